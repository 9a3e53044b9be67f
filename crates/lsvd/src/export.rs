//! The adapter: a volume as an export of the NBD server.
//!
//! Knows both sides' types and the map of errors between them; decides nothing else.

use std::sync::Arc;

use bytes::Bytes;
use lsvd_nbd::{
    Export, ExportError, ExportErrorKind, ExportInfo, ExtentStatus, MetaContext, ReadPiece, ZeroFlags,
};
use lsvd_volume::{Error, ObjectFormat, Piece, Volume};

use crate::changes::{ChangedSince, NAMESPACE};
use crate::served::Served;
use crate::traffic::{Kind, Traffic};
use crate::units;

/// A volume that is served.
#[derive(Debug)]
pub(crate) struct VolumeExport {
    /// The volume.
    pub(crate) volume: Volume,
    /// What people are told of it.
    pub(crate) description: String,
    /// Where its requests are counted.
    pub(crate) traffic: Arc<Traffic>,
    /// What it is compared with, if it shows a moment.
    pub(crate) changed_since: Option<ChangedSince>,
}

impl VolumeExport {
    /// The volume as it is open now.
    pub(crate) fn of(served: &Served) -> Self {
        let volume = served.volume();
        let opened = volume.description();
        let size_bytes = opened.size_bytes;
        // Whose contents these are, for clients that connect again by themselves: they change by writes alone while this stays.
        let since = served.as_of.or(opened.rolled_back_at).unwrap_or_default();
        // And what of the answers of servers before this one is kept.
        let openings = match opened.read_only {
            true => String::new(),
            false => format!(", openings {}-{}", opened.unbroken_since, opened.epoch),
        };
        let description = format!(
            "lsvd volume {} of {}{openings}, contents {}-{since}",
            served.name,
            units::bytes_exact(size_bytes),
            opened.volume_id
        );
        let changed_since =
            served.as_of.map(|as_of| ChangedSince::new(served.bucket.clone(), as_of, size_bytes));
        Self { volume, description, traffic: served.traffic.clone(), changed_since }
    }
}

impl Export for VolumeExport {
    fn info(&self) -> ExportInfo {
        let volume = self.volume.description();
        let format_2 = volume.append_format == ObjectFormat::V2;
        ExportInfo {
            read_only: volume.read_only,
            description: self.description.clone(),
            // All connections meet in one engine: a flush on any of them covers what completed on all.
            can_multi_conn: true,
            // Format 1 can not say that blocks were discarded.
            can_trim: format_2,
            // Zeroes are an entry in a log object, without data; in format 1 they are data like any other.
            fast_zero: format_2,
            context_namespace: self.changed_since.as_ref().map(|_| NAMESPACE),
            ..ExportInfo::new(volume.size_bytes)
        }
    }

    fn size_bytes(&self) -> u64 {
        self.volume.size_bytes()
    }

    async fn read(&self, offset_bytes: u64, length_bytes: u32) -> Result<Vec<ReadPiece>, ExportError> {
        let length_bytes = length_bytes.into();
        let read = self.volume.read(offset_bytes, length_bytes);
        let pieces = self.traffic.count(Kind::Read, length_bytes, read).await.map_err(refuse)?;
        let piece = |piece| match piece {
            Piece::Data(data) => ReadPiece::Data(data),
            Piece::Zeroes(length_bytes) => ReadPiece::Hole(length_bytes),
        };
        Ok(pieces.into_iter().map(piece).collect())
    }

    async fn write(&self, offset_bytes: u64, data: Bytes, fua: bool) -> Result<(), ExportError> {
        let length_bytes = data.len() as u64;
        let write = self.volume.write(offset_bytes, data, fua);
        self.traffic.count(Kind::Write, length_bytes, write).await.map_err(refuse_to_write)
    }

    async fn flush(&self) -> Result<(), ExportError> {
        self.traffic.count(Kind::Flush, 0, self.volume.flush()).await.map_err(refuse)
    }

    async fn trim(&self, offset_bytes: u64, length_bytes: u64, fua: bool) -> Result<(), ExportError> {
        let trim = self.volume.trim(offset_bytes, length_bytes, fua);
        self.traffic.count(Kind::Trim, length_bytes, trim).await.map_err(refuse)
    }

    async fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        flags: ZeroFlags,
    ) -> Result<(), ExportError> {
        let write = self.volume.write_zeroes(offset_bytes, length_bytes, flags.no_hole, flags.fua);
        self.traffic.count(Kind::Zeroes, length_bytes, write).await.map_err(refuse_to_write)
    }

    async fn block_status(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Vec<ExtentStatus>, ExportError> {
        let extents = self.volume.block_status(offset_bytes, length_bytes).await.map_err(refuse)?;
        let extent = |extent: lsvd_volume::ExtentStatus| ExtentStatus {
            length_bytes: extent.length_bytes,
            hole: extent.hole,
            zero: extent.zero,
        };
        Ok(extents.into_iter().map(extent).collect())
    }

    async fn list_contexts(&self, query: &str) -> Vec<String> {
        let Some(changed_since) = &self.changed_since else { return Vec::new() };
        changed_since.list(query).await.unwrap_or_else(|error| {
            tracing::warn!(query, %error, "its contexts can not be listed");
            Vec::new()
        })
    }

    async fn open_context(&self, name: &str) -> Option<Arc<dyn MetaContext>> {
        let changed_since = self.changed_since.as_ref()?;
        // Without it the client copies all, which is right at any rate.
        changed_since.open(name).await.unwrap_or_else(|error| {
            tracing::warn!(context = name, %error, "a client goes without the context that it asked for");
            None
        })
    }
}

/// Beyond the end of a volume that was larger when its client connected there is no room.
fn refuse_to_write(error: Error) -> ExportError {
    match error {
        Error::BeyondEnd { .. } => ExportError::new(ExportErrorKind::NoSpace, error.to_string()),
        error => refuse(error),
    }
}

/// What a client is told of an error.
pub(crate) fn refuse(error: Error) -> ExportError {
    let kind = match &error {
        Error::Fenced { .. } | Error::Closed { .. } => ExportErrorKind::Shutdown,
        Error::ReadOnly { .. } => ExportErrorKind::Permission,
        Error::Invalid(_) | Error::BeyondEnd { .. } => ExportErrorKind::Invalid,
        Error::Store { source: lsvd_backend::Error::Full { .. }, .. } => ExportErrorKind::NoSpace,
        _ => ExportErrorKind::Io,
    };
    ExportError::new(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client is told follows from what it can do next; all that is not listed is an I/O error.
    #[test]
    fn errors_as_clients_see_them() {
        let volume = || "db1".into();
        for (error, kind) in [
            (Error::Fenced { volume: volume(), epoch: None }, ExportErrorKind::Shutdown),
            (Error::Closed { volume: volume() }, ExportErrorKind::Shutdown),
            (Error::ReadOnly { volume: volume() }, ExportErrorKind::Permission),
            (Error::Invalid("beyond the end".into()), ExportErrorKind::Invalid),
            (
                Error::BeyondEnd { offset_bytes: 8192, length_bytes: 1, size_bytes: 4096 },
                ExportErrorKind::Invalid,
            ),
            (Error::NotFound { volume: volume() }, ExportErrorKind::Io),
            (
                Error::TimedOut { volume: volume(), after: std::time::Duration::from_secs(60) },
                ExportErrorKind::Io,
            ),
        ] {
            assert_eq!(refuse(error.clone()).kind, kind, "{error}");
            let to_write = match error {
                Error::BeyondEnd { .. } => ExportErrorKind::NoSpace,
                _ => kind,
            };
            assert_eq!(refuse_to_write(error).kind, to_write, "as the server says of its own gate");
        }
    }
}

//! The objects of a volume's log, described for people: what each is, what of it is live, and what becomes of it.
//!
//! Lists, and reads the headers of those that are asked for, in parallel; what is live, the newest checkpoint and the tail
//! say. Writes nothing.

use futures::StreamExt;
use lsvd_backend::Bucket;
use lsvd_format::log_object::Entry;
use lsvd_format::{AnyHeader, Epoch, ObjectFormat, SequenceNumber};

use crate::Error;
use crate::recovery::recover_for_reading;
use crate::store::{ListedLog, VolumeStore};

/// Headers fetched at once.
const HEADERS_AT_ONCE: usize = 100;

/// What a log object is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// It holds what clients wrote.
    Data,
    /// It holds what collection moved.
    Relocation,
    /// It ends the log of the writers before.
    Fence,
    /// It discards or zeroes, and holds no data.
    Zeroes,
    /// It changes nothing but takes its number.
    Empty,
    /// Its header can not be read: it says why.
    Damaged,
}

/// A log object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its number.
    pub number: SequenceNumber,
    /// What it is for.
    pub kind: LogKind,
    /// Its format; `None` if it is damaged.
    pub format: Option<ObjectFormat>,
    /// The epoch that it says it is of; format 1 says none.
    pub epoch: Option<Epoch>,
    /// Its bytes.
    pub object_bytes: u64,
    /// When it was sealed, by its writer's clock, in milliseconds since 1970; format 1 does not say.
    pub sealed_unix_ms: Option<u64>,
    /// Blocks in its payload.
    pub payload_blocks: u64,
    /// Of these, such as the map points at; `None` where that is not known: a stray's, or beyond damage.
    pub live_blocks: Option<u64>,
    /// It may be deleted at any moment.
    pub condemned: bool,
    /// It is beyond the log's end, or skipped by a fence: no part of the log.
    pub stray: bool,
    /// A kept checkpoint is as of it.
    pub checkpoint: bool,
    /// It is on a branch that a rollback left: no part of the log as it is now, but of moments before.
    pub branch: bool,
    /// The snapshots that are as of it.
    pub snapshots: Vec<String>,
}

/// Lists the log of the volume on `bucket`, ascending: of its objects, the `last` that are stored, or all.
///
/// # Errors
/// [`Error::NotFound`] if there is no volume; the store's. An object that can not be read is listed as damaged.
pub async fn list_log(bucket: &Bucket, last: Option<usize>) -> Result<Vec<LogEntry>, Error> {
    let store = VolumeStore::new(bucket.clone());
    let (_, superblock, recovered) = recover_for_reading(&store, false).await?;
    let mut listed = store.list_log(None).await?;
    if let Some(last) = last {
        listed.drain(..listed.len().saturating_sub(last));
    }
    let objects = recovered.replay.prefix().objects();
    let next = recovered.replay.next_number();
    let line = superblock.own_line();
    let mut headers = futures::stream::iter(listed)
        .map(async |entry: ListedLog| (entry, store.read_log_header(entry.number).await))
        .buffered(HEADERS_AT_ONCE);
    let mut log = Vec::new();
    while let Some((entry, header)) = headers.next().await {
        let header = match header {
            Ok(Some(header)) => Some(header),
            // Condemned, and deleted since the listing.
            Ok(None) => continue,
            Err(error @ (Error::Corrupt { .. } | Error::Newer { .. })) => {
                tracing::warn!("{error}");
                None
            }
            Err(error) => return Err(error),
        };
        let number = entry.number;
        let state = objects.find(number).map(|slot| objects.state(slot));
        let payload_blocks = state.map(|state| state.record.payload_blocks);
        let branch = !line.contains(number);
        let in_log = !branch && number < next && !recovered.replay.skips(number);
        let condemned = superblock.is_condemned(number);
        log.push(LogEntry {
            number,
            kind: header.as_ref().map_or(LogKind::Damaged, kind),
            format: header.as_ref().map(|header| match header {
                AnyHeader::V1(_) => ObjectFormat::V1,
                AnyHeader::V2(_) => ObjectFormat::V2,
            }),
            epoch: header.as_ref().and_then(AnyHeader::epoch),
            object_bytes: entry.object_bytes,
            sealed_unix_ms: header.as_ref().and_then(AnyHeader::sealed_unix_ms),
            payload_blocks: payload_blocks.or(header.as_ref().map(blocks)).unwrap_or(0),
            live_blocks: in_log.then(|| state.map_or(0, |state| state.live_blocks)),
            condemned,
            stray: !in_log && !branch && recovered.damage.is_none(),
            checkpoint: superblock.checkpoints.iter().any(|kept| kept.stamp.as_of == number),
            branch,
            snapshots: superblock
                .moments
                .snapshots
                .iter()
                .filter(|of| of.as_of == number)
                .map(|of| of.name.clone())
                .collect(),
        });
    }
    Ok(log)
}

fn kind(header: &AnyHeader) -> LogKind {
    match header {
        AnyHeader::V1(header) if header.mark.is_some() => LogKind::Fence,
        AnyHeader::V1(header) if header.entries.is_empty() => LogKind::Empty,
        AnyHeader::V1(_) => LogKind::Data,
        AnyHeader::V2(header) => {
            let has = |wanted: fn(&Entry) -> bool| header.entries.iter().any(wanted);
            match () {
                () if has(|entry| matches!(entry, Entry::Data { .. })) => LogKind::Data,
                () if has(|entry| matches!(entry, Entry::Relocation { .. })) => LogKind::Relocation,
                () if has(|entry| matches!(entry, Entry::Fence { .. })) => LogKind::Fence,
                () if header.entries.is_empty() => LogKind::Empty,
                () => LogKind::Zeroes,
            }
        }
    }
}

fn blocks(header: &AnyHeader) -> u64 {
    match header {
        AnyHeader::V1(header) => {
            let bytes = header.entries.iter().map(|entry| u64::from(entry.size_bytes));
            bytes.sum::<u64>() / lsvd_format::BLOCK_BYTES
        }
        AnyHeader::V2(header) => header.payload_blocks(),
    }
}

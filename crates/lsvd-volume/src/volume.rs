//! An open volume.

use std::future::Future;

use bytes::Bytes;
use lsvd_backend::Bucket;
use lsvd_format::{Epoch, SequenceNumber, SuperblockNumber, VolumeId, WriterId};

use crate::{CreateOptions, Error, OpenOptions};

/// What was created.
#[derive(Clone, Debug)]
pub struct Created {
    /// The new volume's identity.
    pub volume_id: VolumeId,
    /// What the store promises, for a person.
    pub guarantees: Vec<String>,
}

/// What a volume is, as its objects say; nothing is written to find out.
#[derive(Clone, Debug)]
pub struct VolumeInfo {
    /// The volume.
    pub volume_id: VolumeId,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Number of the superblock version that counts.
    pub superblock: SuperblockNumber,
    /// Epoch of its last writer.
    pub epoch: Epoch,
    /// Its last writer.
    pub writer_id: WriterId,
    /// The window: see [`CreateOptions::window`].
    pub window: u64,
    /// Single writer by the user's word.
    pub unsafe_single_writer: bool,
    /// Closed cleanly, and not opened since.
    pub closed_cleanly: bool,
    /// Last number of the gapless log, if it holds an object.
    pub durable_number: Option<SequenceNumber>,
    /// Objects in the log.
    pub log_objects: u64,
    /// Bytes of the log's objects.
    pub log_bytes: u64,
    /// When the superblock version that counts was written, by its writer's clock, in milliseconds since 1970.
    pub written_unix_ms: u64,
}

/// What recovery did when the volume was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Log objects whose headers were replayed.
    pub objects_processed: u64,
    /// Objects found beyond the durable point and moved to the archive.
    pub objects_archived: u64,
    /// Last number of the log, the own fence included.
    pub durable_number: SequenceNumber,
}

/// An open volume, described.
#[derive(Clone, Debug)]
pub struct VolumeDescription {
    /// The volume.
    pub volume_id: VolumeId,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Epoch of this opening (of the last writer if read-only).
    pub epoch: Epoch,
    /// This opening's identity.
    pub writer_id: WriterId,
    /// Opened read-only.
    pub read_only: bool,
    /// What recovery did.
    pub recovery: Recovery,
}

/// A run of bytes that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Data.
    Data(Bytes),
    /// This many bytes that read as zeroes.
    Zeroes(u64),
}

/// A run of bytes and whether it is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentStatus {
    /// Length in bytes.
    pub length_bytes: u64,
    /// Nothing is stored for it.
    pub hole: bool,
    /// It reads as zeroes.
    pub zero: bool,
}

/// What an open volume has done and holds, for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of accepted writes that the store does not hold yet.
    pub buffered_bytes: u64,
    /// PUTs in flight.
    pub uploads_in_flight: u64,
    /// Log objects written.
    pub objects_written: u64,
    /// Bytes of log objects written.
    pub bytes_written: u64,
    /// GETs made.
    pub fetches: u64,
    /// Bytes fetched.
    pub bytes_fetched: u64,
    /// Reads of chunks that the cache answered.
    pub cache_hits: u64,
    /// Reads that failed verification.
    pub corrupt_reads: u64,
    /// Records in the extent map.
    pub map_extents: u64,
    /// Last durable number.
    pub durable_number: u64,
}

/// Creates a volume on `bucket`, whose prefix is the volume's own.
///
/// # Errors
/// [`Error::Exists`] if there is one, [`Error::UnsafeStore`] if the store does not hold create-only PUT.
pub async fn create(bucket: &Bucket, options: &CreateOptions) -> Result<Created, Error> {
    let _ = (bucket, options);
    todo!()
}

/// Reads what the volume on `bucket` is, writing nothing.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
pub async fn inspect(bucket: &Bucket) -> Result<VolumeInfo, Error> {
    let _ = bucket;
    todo!()
}

/// Names of the volumes right below `bucket`'s prefix, sorted.
///
/// # Errors
/// The store's.
pub async fn list(bucket: &Bucket) -> Result<Vec<String>, Error> {
    let _ = bucket;
    todo!()
}

/// An open volume; clones are handles of the same one. Dropping the last handle without [`Volume::close`] is as safe
/// as a crash: what was flushed is there, what was not may be.
#[derive(Clone, Debug)]
pub struct Volume {}

impl Volume {
    /// Opens for writing: takes the volume over from whoever had it, and recovers it.
    ///
    /// # Errors
    /// [`Error::Fenced`] if yet another writer took it over meanwhile; [`Error::Corrupt`] names the object.
    pub async fn open(bucket: Bucket, options: OpenOptions) -> Result<Self, Error> {
        let _ = (bucket, options);
        todo!()
    }

    /// Opens for reading as of now: writes nothing, fences nobody. Opens what is whole of a damaged log, with a warning.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the store's.
    pub async fn open_read_only(bucket: Bucket, options: OpenOptions) -> Result<Self, Error> {
        let _ = (bucket, options);
        todo!()
    }

    /// What was opened.
    pub fn description(&self) -> &VolumeDescription {
        todo!()
    }

    /// What it has done so far and holds now.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Reads `length_bytes` from `offset_bytes`, any alignment. The pieces' lengths sum to it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if what came back fails verification; [`Error::TimedOut`] if the store is away.
    pub async fn read(&self, offset_bytes: u64, length_bytes: u64) -> Result<Vec<Piece>, Error> {
        let _ = (offset_bytes, length_bytes);
        todo!()
    }

    /// Writes `data` at `offset_bytes`, any alignment. Accepted when it returns; durable after a flush, or at once with
    /// `fua`.
    ///
    /// # Errors
    /// After an error without `fua` the write was not and will not be applied.
    pub async fn write(&self, offset_bytes: u64, data: Bytes, fua: bool) -> Result<(), Error> {
        let _ = (offset_bytes, data, fua);
        todo!()
    }

    /// Discards the whole blocks within the range: they read as zeroes.
    ///
    /// # Errors
    /// As for [`Volume::write`].
    pub async fn trim(&self, offset_bytes: u64, length_bytes: u64, fua: bool) -> Result<(), Error> {
        let _ = (offset_bytes, length_bytes, fua);
        todo!()
    }

    /// Makes the range read as zeroes; its whole blocks stay allocated if `keep_allocated`.
    ///
    /// # Errors
    /// As for [`Volume::write`].
    pub async fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        keep_allocated: bool,
        fua: bool,
    ) -> Result<(), Error> {
        let _ = (offset_bytes, length_bytes, keep_allocated, fua);
        todo!()
    }

    /// Returns when every write that had completed before the call is in the store.
    ///
    /// # Errors
    /// [`Error::TimedOut`] promises nothing but takes nothing back: flush again.
    pub async fn flush(&self) -> Result<(), Error> {
        todo!()
    }

    /// What is allocated and what reads as zeroes, from memory alone. Lengths sum to `length_bytes`.
    ///
    /// # Errors
    /// If the range is beyond the volume, or the volume was closed or fenced.
    pub fn block_status(&self, offset_bytes: u64, length_bytes: u64) -> Result<Vec<ExtentStatus>, Error> {
        let _ = (offset_bytes, length_bytes);
        todo!()
    }

    /// Drains, flushes and marks the volume as closed cleanly. Later requests fail with [`Error::Closed`].
    ///
    /// # Errors
    /// What kept it from being clean; what was flushed before is safe all the same.
    pub async fn close(&self) -> Result<(), Error> {
        todo!()
    }

    /// Resolves when the volume can serve no more by itself: fenced. Pending while it is well.
    pub fn ended(&self) -> impl Future<Output = Error> + Send + 'static {
        std::future::pending()
    }
}

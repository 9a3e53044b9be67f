//! Writing: records into segments, one sync for all that were written, and segments removed when the log has them.
//!
//! Knows no threads: whoever calls from one writes what has come in while the last sync ran, then syncs once.

use std::io::ErrorKind;

use lsvd_format::journal::{RECORD_HEADER_BYTES, RecordHeader, RecordKind, payload_checksum};
use lsvd_format::{Epoch, JournalId, VolumeId, WriterId};

use super::{SLOT_LEN, SLOTS, SYNCED, failed, remove, segment_name, slot};
use crate::error::JournalError;
use crate::files::Files;

/// Ceilings of a journal.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A segment has this much room from its beginning, and is ended when that is used up.
    pub segment_bytes: u64,
    /// All segments together take at most this many bytes of the disk, what is reserved in them included.
    pub bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, bytes_max: 8 << 30 }
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is written, and durable after the next [`JournalWriter::sync`].
    Done,
    /// There is no room: write it again after a release, or skip it if the log contains it by then.
    Full,
}

/// The end of a journal, where records are appended.
#[derive(Debug)]
pub struct JournalWriter<F> {
    files: F,
    id: JournalId,
    volume: VolumeId,
    limits: Limits,
    /// The last record that was written, or that the log contained at the opening.
    last: u64,
    /// The last record on the disk: what does not follow it begins a segment.
    on_disk: u64,
    /// The last record that is durable.
    synced: u64,
    /// The log contains all up to this one.
    released: u64,
    /// First record and length in bytes of each segment, ascending.
    segments: Vec<(u64, u64)>,
    /// Segments that hold what is not synced.
    dirty: Vec<u64>,
    /// A segment was made since the names were synced.
    names_dirty: bool,
    failed: bool,
    /// How often the file that says how far it was synced has been written.
    marks: usize,
}

impl<F: Files> JournalWriter<F> {
    pub(super) fn new(
        files: F,
        id: JournalId,
        volume: VolumeId,
        limits: Limits,
        (last, on_disk): (u64, u64),
        segments: Vec<(u64, u64)>,
    ) -> Result<Self, JournalError> {
        let dirty = segments.iter().map(|(first, _)| *first).collect();
        let (synced, released, names_dirty) = (0, 0, true);
        let mut writer = Self {
            files,
            id,
            volume,
            limits,
            last,
            on_disk,
            synced,
            released,
            segments,
            dirty,
            names_dirty,
            failed: false,
            marks: 0,
        };
        // What replay found may have been written and not synced by the process before: durable it is only now.
        if !writer.files.names().map_err(failed("list", "."))?.iter().any(|name| name == SYNCED) {
            writer.files.create(SYNCED).map_err(failed("create", SYNCED))?;
            writer.files.write(SYNCED, SLOTS[1], &[0; SLOT_LEN]).map_err(failed("write", SYNCED))?;
        }
        writer.sync()?;
        writer.reserve_again()?;
        Ok(writer)
    }

    /// What was cut off behind the last record is room again.
    fn reserve_again(&mut self) -> Result<(), JournalError> {
        let Some((first, bytes)) = self.segments.last().copied() else { return Ok(()) };
        let (name, segment_bytes) = (segment_name(first), self.limits.segment_bytes);
        if bytes < segment_bytes {
            let reserved = self.files.reserve(&name, segment_bytes);
            // Without room the segment grows as it is written to, as far as it can.
            self.took(reserved, &name)?;
        }
        Ok(())
    }

    /// The last record that was written, or that the log contained when the journal was opened.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Bytes of all records that are kept.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes that the segments take of the disk.
    fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(|(_, bytes)| bytes.max(&self.limits.segment_bytes)).sum()
    }

    /// Appends record `record`: `data` for [`RecordKind::Data`], else nothing. A number that skips some says that the log
    /// contains those.
    ///
    /// # Errors
    /// The disk's, and from then on [`JournalError::Failed`].
    ///
    /// # Panics
    /// If the number is not above the last one, or skips what was not released; if the data is not as long as it says.
    pub fn write(
        &mut self,
        record: u64,
        (epoch, writer): (Epoch, WriterId),
        kind: RecordKind,
        (start_bytes, length_bytes): (u64, u64),
        data: &[u8],
    ) -> Result<Written, JournalError> {
        self.check()?;
        assert!(record > self.last, "record {record} after {}", self.last);
        assert!(
            record == self.last + 1 || record <= self.released + 1,
            "record {record} skips what is not released"
        );
        assert_eq!(
            data.len() as u64,
            if kind == RecordKind::Data { length_bytes } else { 0 },
            "the data is whole"
        );
        let header = RecordHeader {
            journal: self.id,
            volume: self.volume,
            epoch,
            writer,
            record,
            kind,
            start_bytes,
            length_bytes,
            payload_checksum: match kind {
                RecordKind::Data => payload_checksum(self.id, record, data),
                RecordKind::Zero | RecordKind::Trim => 0,
            },
            synced: self.synced.min(record - 1),
        };
        let record_bytes = RECORD_HEADER_BYTES + data.len() as u64;
        let follows = record == self.on_disk + 1;
        let room = |(_, bytes): &(u64, u64)| self.limits.segment_bytes.saturating_sub(*bytes);
        let room = self.segments.last().filter(|_| follows).map(room).filter(|room| *room > 0);
        let more_bytes = match room {
            Some(room) => record_bytes.saturating_sub(room),
            None => record_bytes.max(self.limits.segment_bytes),
        };
        let mut begins = room.is_none();
        if self.disk_bytes() + more_bytes > self.limits.bytes_max {
            if self.last > self.released {
                return Ok(Written::Full);
            }
            // Nothing in it is needed, and the last segment has less room than the ceiling says.
            self.remove_while(|_| true)?;
            begins = true;
        }
        if begins && !self.begin_segment(record)? {
            return Ok(Written::Full);
        }
        let Some((first, offset)) = self.segments.last().copied() else { return Err(JournalError::Failed) };
        let name = segment_name(first);
        // Marked before the bytes are there, so that no sync passes it over.
        if !self.dirty.contains(&first) {
            self.dirty.push(first);
        }
        let mut bytes = Vec::with_capacity(header.encode().len() + data.len());
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(data);
        let written = self.files.write(&name, offset, &bytes);
        if !self.took(written, &name)? {
            return Ok(Written::Full);
        }
        if let Some((_, length)) = self.segments.last_mut() {
            *length += record_bytes;
        }
        self.last = record;
        self.on_disk = record;
        Ok(Written::Done)
    }

    /// Whether a record with so many bytes of data goes into the segment that is there: then it is written by one write.
    pub fn has_room(&self, data_bytes: u64) -> bool {
        let room_bytes =
            self.segments.last().map_or(0, |(_, bytes)| self.limits.segment_bytes.saturating_sub(*bytes));
        !self.failed && room_bytes > RECORD_HEADER_BYTES + data_bytes
    }

    /// Makes a segment; `false` if there is no room.
    fn begin_segment(&mut self, first: u64) -> Result<bool, JournalError> {
        // An empty one that was begun before there was no room.
        if self.segments.last().is_some_and(|segment| *segment == (first, 0)) {
            return Ok(true);
        }
        // The one before is synced while it is at hand, so that a later sync is of one file.
        if !self.dirty.is_empty() {
            self.sync()?;
        }
        let name = segment_name(first);
        let segment_bytes = self.limits.segment_bytes;
        let made = self.files.create(&name).and_then(|()| self.files.reserve(&name, segment_bytes));
        self.names_dirty = true;
        if !self.took(made, &name)? {
            // Nothing is in it; what is left of it, if it was made, is no segment.
            match self.files.remove(&name) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(failed("remove", &name)(error));
                }
                _ => return Ok(false),
            }
        }
        self.segments.push((first, 0));
        Ok(true)
    }

    /// Whether it was done; not for want of room, or failed for good.
    fn took(&mut self, result: std::io::Result<()>, name: &str) -> Result<bool, JournalError> {
        match result {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                Ok(false)
            }
            Err(error) => {
                self.failed = true;
                Err(failed("write", name)(error))
            }
        }
    }

    /// Makes all that was written durable; gives the last record.
    ///
    /// # Errors
    /// The disk's: nobody knows then what it holds, and from then on it is [`JournalError::Failed`]. A sync that failed is
    /// never made again, as the next one would succeed without the bytes.
    pub fn sync(&mut self) -> Result<u64, JournalError> {
        self.check()?;
        // Until it has succeeded.
        self.failed = true;
        for first in std::mem::take(&mut self.dirty) {
            let name = segment_name(first);
            self.files.sync(&name).map_err(failed("sync", &name))?;
        }
        if std::mem::take(&mut self.names_dirty) {
            self.files.sync_names().map_err(failed("sync the names of", "."))?;
        }
        self.failed = false;
        self.synced = self.last;
        self.marks += 1;
        let mark = slot(self.id, self.synced);
        if let Err(error) = self.files.write(SYNCED, SLOTS[self.marks % 2], &mark)
            && !matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        {
            // The records are durable all the same; but a disk that fails is not written to any more.
            self.failed = true;
        }
        Ok(self.last)
    }

    /// The log contains all records up to `record`: removes the segments that hold no others.
    ///
    /// # Errors
    /// The disk's; the segment is then removed when the journal is opened again.
    pub fn release(&mut self, record: u64) -> Result<(), JournalError> {
        self.released = self.released.max(record);
        // The last one takes further records, unless it is full.
        let segment_bytes = self.limits.segment_bytes;
        self.remove_while(|bytes| bytes >= segment_bytes)
    }

    /// Removes segments that hold nothing but what was released; the last one if its length in bytes says so.
    fn remove_while(&mut self, also_the_last: impl Fn(u64) -> bool) -> Result<(), JournalError> {
        while let [(first, bytes), rest @ ..] = &self.segments[..] {
            let last = rest.first().map_or(self.last, |(next, _)| next - 1);
            if last > self.released || rest.is_empty() && !also_the_last(*bytes) {
                break;
            }
            let name = segment_name(*first);
            let first = self.segments.remove(0).0;
            self.dirty.retain(|dirty| *dirty != first);
            self.files.remove(&name).map_err(failed("remove", &name))?;
        }
        Ok(())
    }

    /// Removes the journal, whose records are all in the log and whose volume was closed: the directory is then free for
    /// any volume.
    ///
    /// # Errors
    /// The disk's; what is left is then found by the next opening, which needs none of it.
    pub fn finish(mut self) -> Result<(), JournalError> {
        remove(&mut self.files)
    }

    fn check(&self) -> Result<(), JournalError> {
        if self.failed { Err(JournalError::Failed) } else { Ok(()) }
    }

    /// The files: what a crash leaves.
    #[cfg(test)]
    pub(super) fn into_files(self) -> F {
        self.files
    }

    #[cfg(test)]
    pub(super) fn files(&self) -> &F {
        &self.files
    }

    #[cfg(test)]
    pub(super) fn files_mut(&mut self) -> &mut F {
        &mut self.files
    }
}

//! The header of a record of the local journal.
//!
//! Knows one record: neither the file around it nor which records count. Invariants:
//! 1. the checksums are seeded with journal id and record number: a record of another journal, or a stale one that
//!    a reused file still holds, is never taken for this one;
//! 2. only data has a payload, of `length_bytes` bytes, right behind the header;
//! 3. what [`RecordHeader::encode`] writes, [`RecordHeader::decode`] reads.

#[cfg(test)]
mod tests;

use crate::wire::{array, len_bytes, put, u16_at, u32_at, u64_at};
use crate::{DecodeError, Epoch, JournalId, NUMBER_MAX, VOLUME_BYTES_MAX, VolumeId, WriterId};

/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: u64 = 128;
/// Bytes of one record's data at most.
pub const RECORD_DATA_BYTES_MAX: u64 = 64 << 20;
/// The first bytes of every record.
pub const MAGIC: [u8; 8] = *b"lsvdjrn\n";

const VERSION: u16 = 1;
const HEADER_LEN: usize = 128;

/// Offsets of the header's fields, in bytes from its start.
mod at {
    pub(super) const CHECKSUM: usize = 8;
    pub(super) const VERSION: usize = 12;
    pub(super) const KIND: usize = 14;
    pub(super) const FLAGS: usize = 15;
    pub(super) const JOURNAL: usize = 16;
    pub(super) const VOLUME: usize = 32;
    pub(super) const WRITER: usize = 48;
    pub(super) const EPOCH: usize = 64;
    pub(super) const RECORD: usize = 72;
    pub(super) const START: usize = 80;
    pub(super) const LENGTH: usize = 88;
    pub(super) const PAYLOAD_CHECKSUM: usize = 96;
    pub(super) const SYNCED: usize = 100;
    pub(super) const RESERVED: usize = 108;
}

/// What a record did to its bytes of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Wrote the data that follow the header.
    Data,
    /// Wrote zeroes.
    Zero,
    /// Discarded.
    Trim,
}

/// What a record says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The journal that the record belongs to; never all zeroes.
    pub journal: JournalId,
    /// The volume that was written to.
    pub volume: VolumeId,
    /// The opening that wrote.
    pub epoch: Epoch,
    /// The process that wrote.
    pub writer: WriterId,
    /// Number of the record in its journal, from 1, without gaps.
    pub record: u64,
    /// What was done.
    pub kind: RecordKind,
    /// Where in the volume, in bytes: requests are journalled before they are merged into blocks.
    pub start_bytes: u64,
    /// How much, in bytes; never 0. At most [`RECORD_DATA_BYTES_MAX`] for data.
    pub length_bytes: u64,
    /// Checksum of the data, from [`payload_checksum`]; 0 without data.
    pub payload_checksum: u32,
    /// All records up to this one, which is below this record's own, had been synced when this one was written: what is
    /// missing of them was lost, and not torn by a crash.
    pub synced: u64,
}

/// Checksum of a record's data, seeded with where they belong.
pub fn payload_checksum(journal: JournalId, record: u64, data: &[u8]) -> u32 {
    crc32c::crc32c_append(seed(journal, record), data)
}

impl RecordHeader {
    /// Bytes of data behind the header.
    pub fn payload_bytes(&self) -> u64 {
        match self.kind {
            RecordKind::Data => self.length_bytes,
            RecordKind::Zero | RecordKind::Trim => 0,
        }
    }

    /// The header's bytes; the data follow them.
    ///
    /// # Panics
    /// If a value is none that [`RecordHeader::decode`] takes.
    pub fn encode(&self) -> [u8; 128] {
        if let Err((_, reason)) = self.check() {
            panic!("a journal record that no reader would take: {reason}");
        }
        let kind = match self.kind {
            RecordKind::Data => 1,
            RecordKind::Zero => 2,
            RecordKind::Trim => 3,
        };
        let mut bytes = [0; HEADER_LEN];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, at::VERSION, &VERSION.to_le_bytes());
        put(&mut bytes, at::KIND, &[kind]);
        put(&mut bytes, at::JOURNAL, &self.journal.0);
        put(&mut bytes, at::VOLUME, &self.volume.0);
        put(&mut bytes, at::WRITER, &self.writer.0);
        put(&mut bytes, at::EPOCH, &self.epoch.0.to_le_bytes());
        put(&mut bytes, at::RECORD, &self.record.to_le_bytes());
        put(&mut bytes, at::START, &self.start_bytes.to_le_bytes());
        put(&mut bytes, at::LENGTH, &self.length_bytes.to_le_bytes());
        put(&mut bytes, at::PAYLOAD_CHECKSUM, &self.payload_checksum.to_le_bytes());
        put(&mut bytes, at::SYNCED, &self.synced.to_le_bytes());
        let checksum = header_checksum(&bytes, self.journal, self.record);
        put(&mut bytes, at::CHECKSUM, &checksum.to_le_bytes());
        debug_assert_eq!(Self::decode(&bytes).as_ref(), Ok(self), "what is written can be read");
        bytes
    }

    /// Reads a record's header. Whoever reads compares journal and number with those that it expects.
    ///
    /// # Errors
    /// [`DecodeError::Short`] or [`DecodeError::Corrupt`]: after a crash the journal ends before this record.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let magic_len = bytes.len().min(MAGIC.len());
        if bytes[..magic_len] != MAGIC[..magic_len] {
            return Err(DecodeError::corrupt(0, "this is no journal record: its magic is missing"));
        }
        let Some(bytes) = bytes.get(..HEADER_LEN) else {
            let have_bytes = len_bytes(bytes);
            return Err(DecodeError::Short { have_bytes, need_bytes: RECORD_HEADER_BYTES });
        };
        let (journal, record) = (JournalId(array(bytes, at::JOURNAL)), u64_at(bytes, at::RECORD));
        let (stored, computed) = (u32_at(bytes, at::CHECKSUM), header_checksum(bytes, journal, record));
        if stored != computed {
            let reason = format!("the journal record has checksum {computed:08x}, not {stored:08x}");
            return Err(DecodeError::corrupt(at::CHECKSUM as u64, reason));
        }
        let decoded = Self {
            journal,
            volume: VolumeId(array(bytes, at::VOLUME)),
            epoch: Epoch(u64_at(bytes, at::EPOCH)),
            writer: WriterId(array(bytes, at::WRITER)),
            record,
            kind: decode_kind(bytes)?,
            start_bytes: u64_at(bytes, at::START),
            length_bytes: u64_at(bytes, at::LENGTH),
            payload_checksum: u32_at(bytes, at::PAYLOAD_CHECKSUM),
            synced: u64_at(bytes, at::SYNCED),
        };
        decoded.check().map_err(|(offset, reason)| DecodeError::corrupt(offset as u64, reason))?;
        Ok(decoded)
    }

    /// Verifies the data behind the header.
    ///
    /// # Errors
    /// As [`RecordHeader::decode`]; offsets count from the start of `data`.
    pub fn verify_payload(&self, data: &[u8]) -> Result<(), DecodeError> {
        let (have_bytes, need_bytes) = (len_bytes(data), self.payload_bytes());
        if have_bytes < need_bytes {
            return Err(DecodeError::Short { have_bytes, need_bytes });
        }
        if have_bytes > need_bytes {
            return Err(DecodeError::corrupt(need_bytes, "more data than the journal record has"));
        }
        let computed = payload_checksum(self.journal, self.record, data);
        if need_bytes > 0 && computed != self.payload_checksum {
            let (record, stored) = (self.record, self.payload_checksum);
            let reason =
                format!("the data of journal record {record} has checksum {computed:08x}, not {stored:08x}");
            return Err(DecodeError::corrupt(0, reason));
        }
        Ok(())
    }

    /// The invariants that are about values, for both directions: offset of the field and what is wrong.
    fn check(&self) -> Result<(), (usize, String)> {
        if self.journal.0 == [0; 16] {
            return Err((at::JOURNAL, "a journal's id is never all zeroes".to_owned()));
        }
        if !(1..=NUMBER_MAX).contains(&self.epoch.0) {
            return Err((at::EPOCH, format!("epoch {} is out of range", self.epoch)));
        }
        if !(1..=NUMBER_MAX).contains(&self.record) {
            return Err((at::RECORD, format!("record number {} is out of range", self.record)));
        }
        if self.synced >= self.record {
            return Err((
                at::SYNCED,
                format!("record {} was synced before {} was written", self.synced, self.record),
            ));
        }
        let (start, length) = (self.start_bytes, self.length_bytes);
        if length == 0 || start.checked_add(length).is_none_or(|end| end > VOLUME_BYTES_MAX) {
            return Err((at::LENGTH, format!("a record for {length} bytes at {start}")));
        }
        if self.payload_bytes() > RECORD_DATA_BYTES_MAX {
            return Err((at::LENGTH, format!("a record of {length} bytes of data is too long")));
        }
        if self.kind != RecordKind::Data && self.payload_checksum != 0 {
            return Err((at::PAYLOAD_CHECKSUM, "a checksum of no data".to_owned()));
        }
        Ok(())
    }
}

fn decode_kind(bytes: &[u8]) -> Result<RecordKind, DecodeError> {
    let newer = |what: String| Err(DecodeError::Newer { what });
    let (version, flags) = (u16_at(bytes, at::VERSION), bytes[at::FLAGS]);
    if version != VERSION {
        return newer(format!("a journal record of version {version}"));
    }
    if flags != 0 || bytes[at::RESERVED..].iter().any(|byte| *byte != 0) {
        return newer("a journal record that uses reserved bytes of its header".to_owned());
    }
    match bytes[at::KIND] {
        1 => Ok(RecordKind::Data),
        2 => Ok(RecordKind::Zero),
        3 => Ok(RecordKind::Trim),
        unknown => newer(format!("a journal record of kind {unknown}")),
    }
}

fn seed(journal: JournalId, record: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&journal.0), &record.to_le_bytes())
}

fn header_checksum(bytes: &[u8], journal: JournalId, record: u64) -> u32 {
    crc32c::crc32c_append(seed(journal, record), &bytes[at::VERSION..])
}

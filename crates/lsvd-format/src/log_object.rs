//! A log object of format 2: header, entry table, and the payload as a run of frames.
//!
//! Knows one object at a time: not the log, not the map. Invariants:
//! 1. `payload_blocks == sum of count over data and relocation entries`, and fits `u32`;
//! 2. `object_bytes == header_bytes + payload_blocks × FRAME_BYTES`;
//! 3. a fence stands alone: one entry, no payload, and its next number is above its own;
//! 4. every extent holds a block and ends within [`VOLUME_BYTES_MAX`](crate::VOLUME_BYTES_MAX);
//! 5. what [`Header::encode`] writes, [`Header::decode`] reads; both ask the same `Header::check`.

mod entry;
mod frame;
#[cfg(test)]
mod tests;

pub use entry::{Entry, Source};
pub use frame::{
    FRAME_BYTES, FRAME_HEAD_BYTES, decode_frames, encode_frame, encode_frame_heads, encode_frames,
    frames_range,
};

use entry::ENTRY_LEN;

use crate::wire::{array, len_bytes, put, u16_at, u32_at, u64_at};
use crate::{
    DecodeError, Epoch, JournalId, JournalPosition, NUMBER_MAX, ObjectIdentity, SequenceNumber, VolumeId,
    WriterId,
};

/// Entries of one object at most.
pub const ENTRIES_MAX: usize = 65_536;
/// The first bytes of every object of format 2. Never those of a format-1 object: as its first entry they would
/// be an address that is not a multiple of the block size.
pub const MAGIC: [u8; 12] = *b"lsvd-log-v2\n";
/// Bytes of the header before its entries: what to read first of an object.
pub const HEADER_FIXED_BYTES: u64 = 192;
/// Bytes of the longest header.
pub const HEADER_BYTES_MAX: u64 = HEADER_FIXED_BYTES + 65_536 * 48;

const VERSION: u16 = 2;
/// Frames of one block are the only ones that this version knows.
const FRAME_BLOCKS: u16 = 1;
const FIXED_LEN: usize = 192;

/// Offsets of the header's fields, in bytes from its start.
mod at {
    pub(super) const CHECKSUM: usize = 12;
    pub(super) const VERSION: usize = 16;
    pub(super) const FLAGS: usize = 18;
    pub(super) const FRAME_BLOCKS: usize = 20;
    pub(super) const RESERVED_A: usize = 22;
    pub(super) const HEADER_BYTES: usize = 24;
    pub(super) const ENTRY_COUNT: usize = 28;
    pub(super) const OBJECT_BYTES: usize = 32;
    pub(super) const PAYLOAD_BLOCKS: usize = 40;
    pub(super) const RESERVED_B: usize = 44;
    pub(super) const IDENTITY: usize = 48;
    pub(super) const SEALED: usize = 96;
    pub(super) const JOURNAL_RECORD: usize = 104;
    pub(super) const JOURNAL_ID: usize = 112;
    pub(super) const RESERVED_C: usize = 128;
}

/// What a log object says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who wrote it, and which it is.
    pub identity: ObjectIdentity,
    /// Wall-clock time of sealing, in milliseconds since 1970, by the writer's clock.
    pub sealed_unix_ms: u64,
    /// How much of which journal the log up to here contains. The id of all zeroes means "none" in the bytes and
    /// is never a journal's.
    pub journal: Option<JournalPosition>,
    /// The changes, in order. May be empty: such an object changes nothing but takes its number.
    pub entries: Vec<Entry>,
}

impl Header {
    /// Encoded length in bytes, which is also where the payload begins.
    pub fn header_bytes(&self) -> u64 {
        HEADER_FIXED_BYTES + self.entries.iter().map(Entry::header_bytes).sum::<u64>()
    }

    /// Blocks in the payload.
    pub fn payload_blocks(&self) -> u64 {
        self.entries.iter().map(Entry::payload_blocks).fold(0, u64::saturating_add)
    }

    /// Length of the whole object in bytes.
    pub fn object_bytes(&self) -> u64 {
        self.header_bytes() + self.payload_blocks() * FRAME_BYTES
    }

    /// The number that follows this object in the log: one more, or what the fence says.
    pub fn next_number(&self) -> SequenceNumber {
        match self.entries.as_slice() {
            [Entry::Fence { next }] => *next,
            _ => self.identity.number.next(),
        }
    }

    /// Appends the header's bytes to `out`. The caller then appends the payload's frames with [`encode_frame`].
    ///
    /// # Panics
    /// If the header breaks an invariant of this module, or an extent counts above `u32::MAX` blocks: the engine
    /// splits such a one and never builds the others.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if let Err(broken) = self.check() {
            panic!("a header that no reader would take: {}", broken.reason);
        }
        let header_bytes = self.header_bytes();
        let header_len = usize::try_from(header_bytes).expect("bounded by ENTRIES_MAX");
        let mut header = Vec::with_capacity(header_len);
        header.resize(FIXED_LEN, 0);
        put(&mut header, 0, &MAGIC);
        put(&mut header, at::VERSION, &VERSION.to_le_bytes());
        put(&mut header, at::FRAME_BLOCKS, &FRAME_BLOCKS.to_le_bytes());
        put(&mut header, at::HEADER_BYTES, &narrow(header_bytes).to_le_bytes());
        put(&mut header, at::ENTRY_COUNT, &narrow(self.entries.len() as u64).to_le_bytes());
        put(&mut header, at::OBJECT_BYTES, &self.object_bytes().to_le_bytes());
        put(&mut header, at::PAYLOAD_BLOCKS, &narrow(self.payload_blocks()).to_le_bytes());
        put(&mut header, at::IDENTITY, &identity_bytes(&self.identity));
        put(&mut header, at::SEALED, &self.sealed_unix_ms.to_le_bytes());
        if let Some(position) = self.journal {
            put(&mut header, at::JOURNAL_RECORD, &position.record.to_le_bytes());
            put(&mut header, at::JOURNAL_ID, &position.journal.0);
        }
        for entry in &self.entries {
            entry.encode(&mut header);
        }
        assert_eq!(header.len(), header_len, "the table is as long as its entries");
        let checksum = crc32c::crc32c(&header[at::VERSION..]);
        put(&mut header, at::CHECKSUM, &checksum.to_le_bytes());
        debug_assert_eq!(Self::decode(&header).as_ref(), Ok(self), "what is written can be read");
        out.extend_from_slice(&header);
    }

    /// Reads a header from the first bytes of an object. Bytes after the header are not looked at.
    ///
    /// # Errors
    /// [`DecodeError::Short`] says how many bytes to read and try again with; what is corrupt or newer is so.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let magic_len = bytes.len().min(MAGIC.len());
        if bytes[..magic_len] != MAGIC[..magic_len] {
            return Err(DecodeError::corrupt(0, "this is no log object of format 2: its magic is missing"));
        }
        let header = whole_header(bytes)?;
        check_versions(header)?;
        let entries = decode_entries(header)?;
        let decoded = Self {
            identity: decode_identity(header),
            sealed_unix_ms: u64_at(header, at::SEALED),
            journal: decode_journal(header)?,
            entries,
        };
        decoded.check().map_err(|broken| DecodeError::corrupt(broken.offset_bytes, broken.reason))?;
        let payload_blocks = u64::from(u32_at(header, at::PAYLOAD_BLOCKS));
        if payload_blocks != decoded.payload_blocks() {
            let reason = format!(
                "a payload of {payload_blocks} blocks where the entries have {}",
                decoded.payload_blocks()
            );
            return Err(DecodeError::corrupt(at::PAYLOAD_BLOCKS as u64, reason));
        }
        let object_bytes = u64_at(header, at::OBJECT_BYTES);
        if object_bytes != decoded.object_bytes() {
            let reason =
                format!("an object of {object_bytes} bytes where it needs {}", decoded.object_bytes());
            return Err(DecodeError::corrupt(at::OBJECT_BYTES as u64, reason));
        }
        Ok(decoded)
    }

    /// The invariants that are about values, for both directions.
    fn check(&self) -> Result<(), Broken> {
        let broken = |offset: usize, reason: String| Err(Broken { offset_bytes: offset as u64, reason });
        let identity = &self.identity;
        if !(1..=NUMBER_MAX).contains(&identity.epoch.0) {
            return broken(at::IDENTITY + 16, format!("epoch {} is out of range", identity.epoch));
        }
        if !(1..=NUMBER_MAX).contains(&identity.number.0) {
            return broken(at::IDENTITY + 24, format!("number {} is out of range", identity.number));
        }
        if self.journal.is_some_and(|position| position.journal.0 == [0; 16]) {
            return broken(at::JOURNAL_ID, "a journal's id is never all zeroes".to_owned());
        }
        if self.entries.len() > ENTRIES_MAX {
            return broken(at::ENTRY_COUNT, format!("{} entries are too many", self.entries.len()));
        }
        let fence = self.entries.iter().any(|entry| matches!(entry, Entry::Fence { .. }));
        if fence && self.entries.len() != 1 {
            return broken(FIXED_LEN, "a fence beside other entries".to_owned());
        }
        let mut offset_bytes = HEADER_FIXED_BYTES;
        for entry in &self.entries {
            if let Err(reason) = entry.check(identity) {
                return Err(Broken { offset_bytes, reason });
            }
            offset_bytes += entry.header_bytes();
        }
        if self.payload_blocks() > u64::from(u32::MAX) {
            return broken(at::PAYLOAD_BLOCKS, format!("{} blocks are too many", self.payload_blocks()));
        }
        Ok(())
    }
}

/// An invariant that does not hold, and the field that shows it.
struct Broken {
    offset_bytes: u64,
    reason: String,
}

/// Volume, epoch, number and writer as they stand in the header, and as they seed the frames' checksums.
fn identity_bytes(identity: &ObjectIdentity) -> [u8; 48] {
    let mut bytes = [0; 48];
    put(&mut bytes, 0, &identity.volume.0);
    put(&mut bytes, 16, &identity.epoch.0.to_le_bytes());
    put(&mut bytes, 24, &identity.number.0.to_le_bytes());
    put(&mut bytes, 32, &identity.writer.0);
    bytes
}

fn decode_identity(header: &[u8]) -> ObjectIdentity {
    ObjectIdentity {
        volume: VolumeId(array(header, at::IDENTITY)),
        epoch: Epoch(u64_at(header, at::IDENTITY + 16)),
        number: SequenceNumber(u64_at(header, at::IDENTITY + 24)),
        writer: WriterId(array(header, at::IDENTITY + 32)),
    }
}

fn decode_journal(header: &[u8]) -> Result<Option<JournalPosition>, DecodeError> {
    let journal = JournalId(array(header, at::JOURNAL_ID));
    let record = u64_at(header, at::JOURNAL_RECORD);
    if journal.0 != [0; 16] {
        return Ok(Some(JournalPosition { journal, record }));
    }
    if record != 0 {
        return Err(DecodeError::corrupt(at::JOURNAL_RECORD as u64, "a record of no journal"));
    }
    Ok(None)
}

/// The header's own bytes, with their checksum verified. What this looks at has its place in every later version.
fn whole_header(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let short = |need_bytes| DecodeError::Short { have_bytes: len_bytes(bytes), need_bytes };
    if bytes.len() < FIXED_LEN {
        return Err(short(HEADER_FIXED_BYTES));
    }
    let header_bytes = u64::from(u32_at(bytes, at::HEADER_BYTES));
    if !(HEADER_FIXED_BYTES..=HEADER_BYTES_MAX).contains(&header_bytes) || !header_bytes.is_multiple_of(16) {
        let reason = format!("a header of {header_bytes} bytes, which is no possible length");
        return Err(DecodeError::corrupt(at::HEADER_BYTES as u64, reason));
    }
    let header_len = usize::try_from(header_bytes).map_err(|_| short(header_bytes))?;
    let header = bytes.get(..header_len).ok_or_else(|| short(header_bytes))?;
    let (stored, computed) = (u32_at(header, at::CHECKSUM), crc32c::crc32c(&header[at::VERSION..]));
    if stored != computed {
        let reason = format!("the header has checksum {computed:08x}, not {stored:08x}");
        return Err(DecodeError::corrupt(at::CHECKSUM as u64, reason));
    }
    Ok(header)
}

/// Rejects what a later version may come to mean.
fn check_versions(header: &[u8]) -> Result<(), DecodeError> {
    let newer = |what: String| Err(DecodeError::Newer { what });
    let version = u16_at(header, at::VERSION);
    if version != VERSION {
        return newer(format!("a log object of version {version}"));
    }
    let flags = u16_at(header, at::FLAGS);
    if flags != 0 {
        return newer(format!("a log object with flags {flags:#x}"));
    }
    let frame_blocks = u16_at(header, at::FRAME_BLOCKS);
    if frame_blocks != FRAME_BLOCKS {
        return newer(format!("a log object with frames of {frame_blocks} blocks"));
    }
    let reserved = [
        &header[at::RESERVED_A..at::HEADER_BYTES],
        &header[at::RESERVED_B..at::IDENTITY],
        &header[at::RESERVED_C..FIXED_LEN],
    ];
    if reserved.into_iter().flatten().any(|byte| *byte != 0) {
        return newer("a log object that uses reserved bytes of its header".to_owned());
    }
    Ok(())
}

fn decode_entries(header: &[u8]) -> Result<Vec<Entry>, DecodeError> {
    let count = u32_at(header, at::ENTRY_COUNT) as usize;
    // Before anything is allocated: so many entries must be able to lie in the bytes that are there.
    let table_len = header.len() - FIXED_LEN;
    if count > ENTRIES_MAX || count > table_len / ENTRY_LEN {
        let reason = format!("{count} entries, which is more than the header can hold");
        return Err(DecodeError::corrupt(at::ENTRY_COUNT as u64, reason));
    }
    let mut entries = Vec::with_capacity(count);
    let mut offset = FIXED_LEN;
    for _ in 0..count {
        let (entry, entry_len) = Entry::decode(&header[offset..], offset as u64)?;
        entries.push(entry);
        offset += entry_len;
    }
    if offset != header.len() {
        return Err(DecodeError::corrupt(offset as u64, "the header goes on after its last entry"));
    }
    Ok(entries)
}

/// A count that [`Header::check`] has bounded.
fn narrow(count: u64) -> u32 {
    u32::try_from(count).expect("checked before encoding")
}

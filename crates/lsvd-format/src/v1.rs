//! A log object of format 1, the seed's, bit for bit: a 12 KiB header of 1,024 entries, then the data.
//!
//! Format 1 has no identity and no checksum: only bounds and lengths can be verified (rule 5). Knows one object at a
//! time. Invariants:
//! 1. addresses and sizes are multiples of the block size, and end within [`VOLUME_BYTES_MAX`];
//! 2. an entry of size 0 ends the table, and nothing after it is looked at;
//! 3. the data of the entries follow the header in their order, without gaps, to the object's end;
//! 4. a mark is only in an object without entries, where the seed's reader ignores everything.

#[cfg(test)]
mod tests;

use crate::wire::{array, len_bytes};
use crate::{BLOCK_BYTES, DecodeError, Epoch, SequenceNumber, VOLUME_BYTES_MAX, VolumeId, WriterId};

/// Bytes of the header, whatever it holds.
pub const HEADER_BYTES: u64 = 12 * 1024;
/// Entries of one object at most.
pub const ENTRIES_MAX: usize = 1024;

const HEADER_LEN: usize = 12 * 1024;
const ENTRY_LEN: usize = 12;

/// What a mark begins with, right behind the entry of size 0 that ends the table.
const MARK_MAGIC: [u8; 12] = *b"lsvd-mark-1\n";
/// Bytes of a mark, its checksum at the end.
const MARK_LEN: usize = 64;

/// One write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where in the volume, in bytes.
    pub address_bytes: u64,
    /// How much, in bytes; never 0.
    pub size_bytes: u32,
}

/// The writes of one object, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// At most [`ENTRIES_MAX`].
    pub entries: Vec<Entry>,
    /// Who began to write here; only in an object without entries.
    pub mark: Option<Mark>,
}

/// What a writer leaves at the first number that it finds free, in bytes that the seed's readers ignore: a writer from
/// before it meets this object at its own first incomplete number, and can not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The volume. A mark of another one says nothing: the bucket was adopted anew since.
    pub volume: VolumeId,
    /// The epoch that begins.
    pub epoch: Epoch,
    /// Its writer.
    pub writer: WriterId,
    /// Number of the object that holds it.
    pub number: SequenceNumber,
}

impl Mark {
    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MARK_MAGIC);
        out.extend_from_slice(&self.volume.0);
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        out.extend_from_slice(&self.writer.0);
        out.extend_from_slice(&self.number.0.to_be_bytes());
        let checksum = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&checksum.to_be_bytes());
    }

    /// Reads what follows the end of an empty table. What is no sound mark is what it always was: ignored.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..MARK_LEN).filter(|bytes| bytes.starts_with(&MARK_MAGIC))?;
        let (fields, checksum) = bytes.split_at(MARK_LEN - 4);
        let sound = crc32c::crc32c(fields) == u32::from_be_bytes(array(checksum, 0));
        sound.then(|| Self {
            volume: VolumeId(array(fields, 12)),
            epoch: Epoch(u64::from_be_bytes(array(fields, 28))),
            writer: WriterId(array(fields, 36)),
            number: SequenceNumber(u64::from_be_bytes(array(fields, 52))),
        })
    }
}

impl Header {
    /// Where in the object the data of entry `index` begin, in bytes; with the number of entries, the object's end.
    ///
    /// # Panics
    /// If there are fewer entries.
    pub fn data_offset(&self, index: usize) -> u64 {
        HEADER_BYTES + self.entries[..index].iter().map(|entry| u64::from(entry.size_bytes)).sum::<u64>()
    }

    /// Length of the whole object in bytes: all that can tell a truncated object from a whole one.
    pub fn object_bytes(&self) -> u64 {
        self.data_offset(self.entries.len())
    }

    /// Appends the header's 12 KiB to `out`. The caller then appends the entries' data in their order.
    ///
    /// # Panics
    /// If there are too many entries, or one is empty, unaligned or beyond any volume's end; or a mark beside entries.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.entries.len() <= ENTRIES_MAX, "{} entries are too many", self.entries.len());
        assert!(self.mark.is_none() || self.entries.is_empty(), "a mark is an object's only content");
        let start = out.len();
        for entry in &self.entries {
            if let Err(reason) = entry.check() {
                panic!("an entry that no reader would take: {reason}");
            }
            out.extend_from_slice(&entry.address_bytes.to_be_bytes());
            out.extend_from_slice(&entry.size_bytes.to_be_bytes());
        }
        if let Some(mark) = &self.mark {
            out.extend_from_slice(&[0; ENTRY_LEN]);
            mark.encode(out);
        }
        out.resize(start + HEADER_LEN, 0);
        debug_assert_eq!(Self::decode(&out[start..]).as_ref(), Ok(self), "what is written can be read");
    }

    /// Reads a header from the first bytes of an object. Bytes after the header are not looked at.
    ///
    /// # Errors
    /// [`DecodeError::Short`] below 12 KiB; [`DecodeError::Corrupt`] for an entry that no writer makes, also if the
    /// header is short.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let header = &bytes[..bytes.len().min(HEADER_LEN)];
        let mut entries = Vec::new();
        let mut offset_bytes = 0;
        for bytes in header.chunks_exact(ENTRY_LEN) {
            let entry = Entry {
                address_bytes: u64::from_be_bytes(array(bytes, 0)),
                size_bytes: u32::from_be_bytes(array(bytes, 8)),
            };
            if entry.size_bytes == 0 {
                break;
            }
            entry.check().map_err(|reason| DecodeError::corrupt(offset_bytes, reason))?;
            entries.push(entry);
            offset_bytes += ENTRY_LEN as u64;
        }
        if header.len() < HEADER_LEN {
            return Err(DecodeError::Short { have_bytes: len_bytes(bytes), need_bytes: HEADER_BYTES });
        }
        let mark = if entries.is_empty() { Mark::decode(&header[ENTRY_LEN..]) } else { None };
        Ok(Self { entries, mark })
    }
}

impl Entry {
    fn check(self) -> Result<(), String> {
        let (address, size) = (self.address_bytes, u64::from(self.size_bytes));
        if size == 0 {
            return Err("an entry of no bytes".to_owned());
        }
        if !address.is_multiple_of(BLOCK_BYTES) {
            return Err(format!("an entry's address {address} is not a multiple of {BLOCK_BYTES}"));
        }
        if !size.is_multiple_of(BLOCK_BYTES) {
            return Err(format!("an entry's size {size} is not a multiple of {BLOCK_BYTES}"));
        }
        if address.checked_add(size).is_none_or(|end| end > VOLUME_BYTES_MAX) {
            return Err(format!("an entry for {size} bytes at {address}, beyond any volume's end"));
        }
        Ok(())
    }
}

/// The number and the width in digits of a log object's name, relative to the log's own prefix: hex digits,
/// lowercase, as many as the writer made, padded or not.
///
/// Two names may say one number (`1` and `01`): whoever lists them rejects that.
pub fn parse_v1_name(name: &str) -> Option<(u64, usize)> {
    let lowercase = name.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    // The parser refuses an empty text and a number above 64 bits by itself, but takes signs and capitals.
    let number = u64::from_str_radix(name, 16).ok().filter(|_| lowercase)?;
    Some((number, name.len()))
}

/// The name that follows such names: `number` in hex digits, padded to `width`.
pub fn v1_name(number: u64, width: usize) -> String {
    format!("{number:0width$x}")
}

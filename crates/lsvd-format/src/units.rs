//! The words of the format as types: blocks, extents, numbers, identities.
//!
//! Knows no layout and no I/O. A block index, a block count, a byte offset and a sequence number are different
//! types, so that one is never taken for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a block, the unit of addressing and mapping.
pub const BLOCK_BYTES: u64 = 4096;
/// [`BLOCK_BYTES`] for indexing memory.
pub const BLOCK_LEN: usize = 4096;
/// The largest volume, 64 PiB: one batch can then discard all of it in 4,096 entries, and no sum of offsets overflows.
pub const VOLUME_BYTES_MAX: u64 = 1 << 56;
/// The largest number of a log object or superblock version, and the largest epoch: adding a window to it, or one,
/// does not overflow.
pub const NUMBER_MAX: u64 = (1 << 63) - 1;

/// Index of a block of the volume, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(pub u64);

/// A number of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockCount(pub u64);

/// Index of a block in a log object's payload, from 0 (blocks of data and relocation entries, in entry order).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockOrdinal(pub u32);

/// Number of a log object, from 1; dense but for what a fence skips; never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SequenceNumber(pub u64);

/// Which opening of the volume wrote an object: the number of the superblock version that began it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// Number of a superblock version, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SuperblockNumber(pub u64);

impl BlockIndex {
    /// Byte offset of the block in the volume.
    pub fn offset_bytes(self) -> u64 {
        self.0 * BLOCK_BYTES
    }
}

impl BlockCount {
    /// Length in bytes.
    pub fn bytes(self) -> u64 {
        self.0 * BLOCK_BYTES
    }
}

impl SequenceNumber {
    /// The number after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl SuperblockNumber {
    /// The number after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A run of blocks of the volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// First block.
    pub start: BlockIndex,
    /// Number of blocks.
    pub count: BlockCount,
}

impl Extent {
    /// The run of `count` blocks from `start`.
    pub fn new(start: u64, count: u64) -> Self {
        Self { start: BlockIndex(start), count: BlockCount(count) }
    }

    /// First block after the run.
    pub fn end(self) -> BlockIndex {
        BlockIndex(self.start.0 + self.count.0)
    }

    /// Whether the run holds no block.
    pub fn is_empty(self) -> bool {
        self.count.0 == 0
    }

    /// Whether the two runs share a block.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

impl fmt::Display for BlockIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for SuperblockNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// 16 random bytes, written as 32 lowercase hex digits.
macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdentityError;

            fn from_str(text: &str) -> Result<Self, IdentityError> {
                identity_bytes(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

identity! {
    /// Which volume: made at creation, random, never changed.
    VolumeId
}
identity! {
    /// Which process opened the volume: made at each opening, random.
    WriterId
}
identity! {
    /// Which local journal: made with the journal, random.
    JournalId
}

/// A text that is not 32 lowercase hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 32 lowercase hex digits")]
pub struct IdentityError;

fn identity_bytes(text: &str) -> Result<[u8; 16], IdentityError> {
    let digits = text.as_bytes();
    let mut bytes = [0; 16];
    if digits.len() != 32 {
        return Err(IdentityError);
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Ok(bytes)
}

fn hex_digit(digit: u8) -> Result<u8, IdentityError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(IdentityError),
    }
}

/// What names one log object for good: two objects with the same identity are the same object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectIdentity {
    /// The volume that the object was written for.
    pub volume: VolumeId,
    /// The opening that wrote it.
    pub epoch: Epoch,
    /// The process that wrote it.
    pub writer: WriterId,
    /// Its number in the log.
    pub number: SequenceNumber,
}

/// Where the log stands relative to a journal: everything up to and with `record` of `journal` is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPosition {
    /// The journal.
    pub journal: JournalId,
    /// Number of its last record that the log up to here contains.
    pub record: u64,
}

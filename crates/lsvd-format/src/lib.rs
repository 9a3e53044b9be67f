//! Bytes to typed records and back: log objects of format 1 and 2, the superblock, checkpoints, journal records, names
//! in the bucket.
//!
//! - [`log_object`]: an object of format 2, its header and its frames; [`v1`]: one of format 1; [`decode_any`]:
//!   whichever it is.
//! - [`superblock`]: the root record of a volume. [`checkpoint`]: the extent map as of one log object.
//! - [`journal`]: the header of a record of the local journal.
//! - [`names`]: which object is called what; [`LogLayout`]: what a log of format 1 is called.
//!
//! Knows no I/O, no time and no async. Everything here is specified in `docs/format.md`, byte for byte; the two
//! change together (`cargo xtask tidy` compares a hash). Decoders take arbitrary bytes: they never panic and never
//! allocate more than the input justifies.

#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod any_header;
pub mod checkpoint;
pub mod journal;
mod log_layout;
pub mod log_object;
pub mod names;
pub mod superblock;
mod units;
pub mod v1;
mod varint;
mod wire;

pub use any_header::{AnyHeader, decode_any};
pub use log_layout::{LogLayout, ObjectFormat, validate_prefix};
pub use units::{
    BLOCK_BYTES, BLOCK_LEN, BlockCount, BlockIndex, BlockOrdinal, Epoch, Extent, IdentityError, JournalId,
    JournalPosition, NUMBER_MAX, ObjectIdentity, SequenceNumber, SuperblockNumber, VOLUME_BYTES_MAX,
    VolumeId, WriterId,
};

/// Why bytes are not what they should be. Nothing of them was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early: read at least `need_bytes` from the object's start and decode again; if the object
    /// has no more, it is truncated.
    #[error("{have_bytes} bytes where at least {need_bytes} are needed")]
    Short {
        /// Bytes that were there.
        have_bytes: u64,
        /// Bytes that are needed for the next try.
        need_bytes: u64,
    },
    /// The bytes are damaged or are something else; reading them again may help if the reading was at fault.
    #[error("{reason} at byte {offset_bytes}")]
    Corrupt {
        /// Byte offset, from the start of what was decoded.
        offset_bytes: u64,
        /// What is wrong, for a person.
        reason: String,
    },
    /// Written by a newer lsvd: use that one.
    #[error("{what} is newer than this lsvd understands: open it with a newer one")]
    Newer {
        /// The version, flag or feature that is not known.
        what: String,
    },
}

impl DecodeError {
    pub(crate) fn corrupt(offset_bytes: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { offset_bytes, reason: reason.into() }
    }
}

//! The superblock: the volume's root record, one create-only object for each version.
//!
//! A version is one line of ASCII that says number, length and checksum, then JSON that a person can read. Knows
//! not which version counts: whoever lists them does.

use serde::{Deserialize, Serialize};

use crate::{DecodeError, Epoch, SequenceNumber, SuperblockNumber, VolumeId, WriterId};

/// What the root record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superblock {
    /// The volume.
    pub volume_id: VolumeId,
    /// Epoch of the writer of this version.
    pub epoch: Epoch,
    /// The writer of this version.
    pub writer_id: WriterId,
    /// Size of the volume in bytes, a multiple of the block size.
    pub size_bytes: u64,
    /// A writer never creates a log object whose number is this much or more above its first incomplete number.
    pub window: u64,
    /// Number of the first log object.
    pub log_first_number: SequenceNumber,
    /// The volume was created on a store without create-only PUT: only one writer at a time, by the user's word.
    #[serde(default)]
    pub unsafe_single_writer: bool,
    /// Present if this version was written by a clean close: the last number of the log then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<SequenceNumber>,
    /// Wall-clock time of writing, in milliseconds since 1970, by the writer's clock.
    pub written_unix_ms: u64,
    /// The program that wrote this version, for people.
    pub written_by: String,
    /// Features without which the volume can not be read. An unknown one is an error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features_to_read: Vec<String>,
    /// Features without which the volume can not be written. An unknown one is an error for writers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features_to_write: Vec<String>,
    /// Fields that this lsvd does not know; they are kept when a version is written anew.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// The bytes of version `number`.
pub fn encode(number: SuperblockNumber, superblock: &Superblock) -> Vec<u8> {
    let _ = (number, superblock);
    todo!()
}

/// Reads version `number` from the whole bytes of its object.
///
/// # Errors
/// Corrupt or truncated, another version's bytes under this name, or a feature to read that is not known.
pub fn decode(number: SuperblockNumber, bytes: &[u8]) -> Result<Superblock, DecodeError> {
    let _ = (number, bytes);
    todo!()
}

//! Names in the bucket, relative to the volume's prefix.
//!
//! Knows only texts. A name that does not parse is somebody else's object and is left alone.

use crate::{SequenceNumber, SuperblockNumber};

/// Folder of the superblock versions, with its slash.
pub const SUPERBLOCK_FOLDER: &str = "superblock/";
/// Folder of the log of a volume that was not adopted, with its slash.
pub const LOG_FOLDER: &str = "log/";
/// Folder of checkpoints, with its slash.
pub const CHECKPOINT_FOLDER: &str = "checkpoint/";
/// Folder of what was found beyond the durable point, with its slash.
pub const ARCHIVE_FOLDER: &str = "archive/";
/// Folder of the probe's objects, with its slash. All of them may be deleted.
pub const PROBE_FOLDER: &str = "probe/";

/// `superblock/<16 hex digits>`.
pub fn superblock(number: SuperblockNumber) -> String {
    format!("{SUPERBLOCK_FOLDER}{:016x}", number.0)
}

/// The number in a superblock version's name.
pub fn parse_superblock(name: &str) -> Option<SuperblockNumber> {
    let _ = name;
    todo!()
}

/// `log/<16 hex digits>`.
pub fn log_object(number: SequenceNumber) -> String {
    format!("{LOG_FOLDER}{:016x}", number.0)
}

/// The number in a log object's name.
pub fn parse_log_object(name: &str) -> Option<SequenceNumber> {
    let _ = name;
    todo!()
}

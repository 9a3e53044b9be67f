//! What can go wrong with a journal, by what its user does next.

use std::io;

use lsvd_format::{Epoch, VolumeId};

/// Why a journal can not be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk failed. A journal whose write or sync failed takes nothing more: reopen it, which reads what is there.
    #[error("the journal can not {what} '{file}': {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file.
        file: String,
        /// The system's words.
        source: io::Error,
    },
    /// Something that was synced is not there as it was written. Nothing of the journal was used or changed: restore the
    /// file, or give the journal up for lost.
    #[error("the journal's file '{file}' is damaged at byte {offset}: {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The directory holds another volume's journal: use another directory.
    #[error("the directory holds the journal of volume {theirs}, not of {ours}: use another directory")]
    OtherVolume {
        /// The volume that was asked for.
        ours: VolumeId,
        /// The journal's.
        theirs: VolumeId,
    },
    /// The journal was written to a later state of the volume, which was wound back or is an older copy: its records were
    /// written over what is not there. Use another directory, or give the records up.
    #[error(
        "the journal was in use by epoch {epoch} of the volume, and the volume is only at epoch {volume_epoch}: it is an \
         older copy, without what the journal's records were written over"
    )]
    OlderVolume {
        /// The last opening that had the journal.
        epoch: Epoch,
        /// The volume's.
        volume_epoch: Epoch,
    },
    /// Another process has the journal: stop it first.
    #[error("the journal is in use by another process")]
    InUse,
    /// A write or sync failed before, and what the disk holds is not known: reopen the journal.
    #[error("the journal failed before and takes nothing more until it is opened again")]
    Failed,
}

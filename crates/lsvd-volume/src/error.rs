//! What can go wrong with a volume, by what the caller does next.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lsvd_format::{Epoch, JournalId, SequenceNumber};

/// Why a request or an opening failed. Cheap to clone: one failure may answer many requests.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Another writer has taken the volume over, and this one can do nothing more: stop, and do not reopen by itself.
    #[error("volume '{volume}' was taken over by another writer{}: this one is fenced", by_epoch(*.epoch))]
    Fenced {
        /// The volume.
        volume: Arc<str>,
        /// The new writer's epoch, if it is known.
        epoch: Option<Epoch>,
    },
    /// Stored bytes are not what was written: never retried into data. Restore the named object, or open read-only.
    #[error("volume '{volume}': object '{object}' is corrupt: {reason}")]
    Corrupt {
        /// The volume.
        volume: Arc<str>,
        /// Name of the object in the volume's prefix.
        object: String,
        /// What is wrong and at which byte.
        reason: String,
    },
    /// An object that the volume refers to is not there. Restore it, or open read-only as of before it was needed.
    #[error("volume '{volume}': object '{object}' is missing: the log refers to it, but it is not there")]
    Missing {
        /// The volume.
        volume: Arc<str>,
        /// Name of the object in the volume's prefix.
        object: String,
    },
    /// Written by a newer lsvd: use that one.
    #[error("volume '{volume}': {what}")]
    Newer {
        /// The volume.
        volume: Arc<str>,
        /// What is newer.
        what: String,
    },
    /// The store answered with an error that no retry mended; it says what to check.
    #[error("volume '{volume}': {source}")]
    Store {
        /// The volume.
        volume: Arc<str>,
        /// The store's error.
        source: lsvd_backend::Error,
    },
    /// The store did not answer in time. What was accepted is kept, and service resumes when the store is back.
    #[error("volume '{volume}': the store did not answer within {} s", .after.as_secs())]
    TimedOut {
        /// The volume.
        volume: Arc<str>,
        /// How long the request waited.
        after: Duration,
    },
    /// Each time when the volume was read it had changed meanwhile, so that what was read may have been deleted: try again,
    /// from nearer to the store, or with a longer time before its writer deletes.
    #[error(
        "volume '{volume}' changed {tries} times while it was read, and what was read may be deleted by then: try again, from \
         nearer to the store"
    )]
    Unsteady {
        /// The volume.
        volume: Arc<str>,
        /// How often it was read.
        tries: u32,
    },
    /// The caller asked for what can not be: it says what can.
    #[error("{0}")]
    Invalid(String),
    /// The range ends beyond the volume, which may have been larger before.
    #[error("{length_bytes} bytes at byte {offset_bytes} reach beyond the volume's end at {size_bytes}")]
    BeyondEnd {
        /// Where it begins, in bytes.
        offset_bytes: u64,
        /// How long it is, in bytes.
        length_bytes: u64,
        /// Size of the volume now, in bytes.
        size_bytes: u64,
    },
    /// What lies beyond the new end holds data, and it was not said that it may go. Nothing was changed: free it, choose a
    /// larger size, or discard it.
    #[error(
        "volume '{volume}' can not shrink to {size_bytes} bytes: {live_bytes} bytes beyond that hold data, the first of them \
         at byte {first_bytes}"
    )]
    HoldsData {
        /// The volume.
        volume: Arc<str>,
        /// The size that was asked for, in bytes.
        size_bytes: u64,
        /// Bytes of blocks beyond it that hold data.
        live_bytes: u64,
        /// Where the first of those blocks begins, in bytes.
        first_bytes: u64,
    },
    /// The volume was opened read-only.
    #[error("volume '{volume}' is open read-only")]
    ReadOnly {
        /// The volume.
        volume: Arc<str>,
    },
    /// There is no volume here: create it, or check the URL.
    #[error("there is no volume at '{volume}': `lsvd create` makes one")]
    NotFound {
        /// The volume.
        volume: Arc<str>,
    },
    /// There is a volume here already, and it was left alone.
    #[error("there is a volume at '{volume}' already; it was left as it is")]
    Exists {
        /// The volume.
        volume: Arc<str>,
    },
    /// The volume's removal began, and can not be undone: nobody opens it any more. Remove it again, which goes on where the
    /// removal stopped.
    #[error("volume '{volume}' is being removed; run `lsvd rm` again to finish")]
    Removed {
        /// The volume.
        volume: Arc<str>,
    },
    /// The volume can not be removed, as something that is kept needs it: remove that first.
    #[error("volume '{volume}' can not be removed: {by}")]
    Pinned {
        /// The volume.
        volume: Arc<str>,
        /// What needs it, for a person.
        by: String,
    },
    /// A snapshot is kept for a clone, which needs it or may: it says what can be done.
    #[error(
        "snapshot '{snapshot}' of volume '{volume}' is kept for the clone at '{clone}' from there: {what}"
    )]
    KeptForClone {
        /// The volume.
        volume: Arc<str>,
        /// The snapshot.
        snapshot: String,
        /// Where the clone is or was to be, from the volume's own prefix.
        clone: String,
        /// What can be done, for a person.
        what: String,
    },
    /// A clone that is flattened holds all its data itself, but something of it needs its parent still: it says what and what can be
    /// done.
    #[error("volume '{volume}': it has copied all that it shows, but {what}")]
    NeedsParent {
        /// The volume.
        volume: Arc<str>,
        /// What needs it and what can be done, for a person.
        what: String,
    },
    /// The volume was opened with [`crate::OpenOptions::if_free`], and somebody seems to write it: wait until that
    /// writer has closed it, or open without asking, which takes the volume from it.
    #[error(
        "volume '{volume}' is in use or its writer crashed: it was not closed, and its last object was stored {} s ago \
         (epoch {epoch}; {} s without any are asked for)",
        .written_ago.as_secs(), .quiet_for.as_secs()
    )]
    InUse {
        /// The volume.
        volume: Arc<str>,
        /// The writer's epoch.
        epoch: Epoch,
        /// Since when nothing was stored, by the store's clock.
        written_ago: Duration,
        /// How long nothing was to be stored.
        quiet_for: Duration,
    },
    /// A log that is to be adopted is still written: stop its writer, and adopt it then.
    #[error(
        "the log at '{volume}' is still growing: {what}; stop its writer, and adopt it when nothing is added any more"
    )]
    LogGrowing {
        /// The volume to be.
        volume: Arc<str>,
        /// What was seen.
        what: String,
    },
    /// The local journal can not be used; it says why and what to do. What was flushed is on its disk, as far as that can
    /// be read. A volume that was open has ended: open it again.
    #[error("volume '{volume}': {source}")]
    Journal {
        /// The volume.
        volume: Arc<str>,
        /// The journal's error.
        source: Arc<lsvd_local::JournalError>,
    },
    /// A journal is in use that was not given: open with it, or give up what only it holds.
    #[error(
        "volume '{volume}': journal {journal} is in use, and may hold flushed writes that the store does not: the last \
         object was stored {}",
        stored_at(*.stored_unix_ms)
    )]
    JournalNeeded {
        /// The volume.
        volume: Arc<str>,
        /// The journal.
        journal: JournalId,
        /// When the log's last object was sealed, in milliseconds since 1970 by its writer's clock: what was flushed before
        /// is in the store.
        stored_unix_ms: Option<u64>,
    },
    /// The journal that was given holds records that the log does not contain, and can not be replayed any more, because
    /// something else was written since, or the log was wound back: use another directory, or give the records up.
    #[error(
        "volume '{volume}': journal {journal} in '{place}' holds writes that the volume does not, and the volume went on \
         without it: they can not be put in their place any more"
    )]
    JournalPassedOver {
        /// The volume.
        volume: Arc<str>,
        /// The journal.
        journal: JournalId,
        /// Its directory.
        place: String,
    },
    /// The store does not keep its promises, and two writers at once would lose data.
    #[error(
        "the store of volume '{volume}' does not hold create-only PUT ({details}): two writers at once would lose \
         data; use another store, or vouch for a single writer with --unsafe-single-writer"
    )]
    UnsafeStore {
        /// The volume.
        volume: Arc<str>,
        /// What the probe saw.
        details: String,
    },
    /// A moment can not be reached: there is none such, or what it needs may be deleted. It says which ones can.
    #[error("volume '{volume}' can not be had as of {moment}: {reason}; {reachable}")]
    NoMoment {
        /// The volume.
        volume: Arc<str>,
        /// The moment that was asked for.
        moment: String,
        /// Why not.
        reason: String,
        /// What can be reached.
        reachable: String,
    },
    /// What a moment needs may be deleted: take a later one, or a snapshot.
    #[error(
        "volume '{volume}': number {number} is not within reach any more: the oldest that is is {oldest}"
    )]
    Unreachable {
        /// The volume.
        volume: Arc<str>,
        /// What was asked for.
        number: SequenceNumber,
        /// The oldest number that is not only a snapshot's.
        oldest: SequenceNumber,
    },
    /// The volume was closed by this process.
    #[error("volume '{volume}' is closed")]
    Closed {
        /// The volume.
        volume: Arc<str>,
    },
}

impl Error {
    pub(crate) fn journal(volume: Arc<str>, source: lsvd_local::JournalError) -> Self {
        Self::Journal { volume, source: Arc::new(source) }
    }
}

fn stored_at(unix_ms: Option<u64>) -> String {
    // Whoever prints for people knows calendars; here a difference says as much.
    let Some(unix_ms) = unix_ms else { return "never".to_owned() };
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms);
    match SystemTime::now().duration_since(at) {
        Ok(ago) => format!("{} s ago", ago.as_secs()),
        Err(_) => "just now, or by a clock that is ahead".to_owned(),
    }
}

fn by_epoch(epoch: Option<Epoch>) -> String {
    epoch.map(|epoch| format!(" (epoch {epoch})")).unwrap_or_default()
}

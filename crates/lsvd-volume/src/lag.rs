//! What only a local journal holds, looked at from outside: whether a daemon has it open or not, nothing is changed.
//!
//! Knows a journal's directory and what the log says of it. A daemon that goes on writing meanwhile makes it a moment's
//! reading, never less than what had been synced before.

use std::path::Path;
use std::time::Duration;

use lsvd_format::JournalId;
use lsvd_local::{Directory, Held, Journal, JournalError};

use crate::{Error, VolumeInfo};

/// Readings that a daemon's writing may spoil before it is taken for damage.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// What a journal holds and its volume's log does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLag {
    /// The journal.
    pub journal: JournalId,
    /// Writes that only it holds.
    pub records: u64,
    /// Bytes of the volume that they cover.
    pub bytes: u64,
}

/// Looks at the journal of the volume `info` in `directory`; `None` if there is none. Blocks while it reads.
///
/// # Errors
/// [`Error::Journal`] if it is another volume's, is damaged, or can not be read.
pub fn journal_lag(info: &VolumeInfo, directory: &Path) -> Result<Option<JournalLag>, Error> {
    let mut tries = 1;
    loop {
        match look(info, directory) {
            Ok(lag) => return Ok(lag),
            // A record that is being written looks torn, and a segment that the log contains is removed.
            Err(JournalError::Damaged { .. } | JournalError::Io { .. }) if tries < TRIES => tries += 1,
            Err(error) => return Err(Error::journal(info.label.clone(), error)),
        }
        std::thread::sleep(PAUSE);
    }
}

fn look(info: &VolumeInfo, directory: &Path) -> Result<Option<JournalLag>, JournalError> {
    if !directory.is_dir() {
        return Ok(None);
    }
    let Some(journal) = Journal::find(Directory::look_at(directory), info.volume_id)? else {
        return Ok(None);
    };
    let position = info.last_data.and_then(|last| last.journal);
    let in_log = position.filter(|position| position.journal == journal.id());
    let Held { records, bytes, .. } = journal.check(in_log.map_or(0, |position| position.record))?;
    Ok(Some(JournalLag { journal: journal.id(), records, bytes }))
}

//! The engine's side of a local journal: which record each write is, and who waits until it is written or synced.
//!
//! Knows no files: the rim appends records, syncs them and says how far it is. Invariants: records are numbered in the
//! order in which writes are applied, without gaps, so that the log always contains a prefix of them; whoever waits
//! for a record is answered when the journal has it or the durable log contains it, whichever comes first; and no write is
//! answered before that, so that one that was answered outlives this process.

use std::collections::BTreeMap;

use lsvd_format::journal::RECORD_DATA_BYTES_MAX;
use lsvd_format::{BLOCK_BYTES, Extent, JournalId, JournalPosition};

use crate::content::Content;
use crate::interval::Run;
use crate::request::{Action, RequestId};

/// What a journal is to an engine.
#[derive(Clone, Copy, Debug)]
pub struct JournalUse {
    /// How much of which journal the log contains.
    pub from: JournalPosition,
    /// Flush and FUA mean that the journal has synced it. Otherwise they mean the store, and the journal is there for writes
    /// alone: nothing is ever synced.
    pub answers_flushes: bool,
}

#[derive(Debug)]
pub(crate) struct Journal {
    id: JournalId,
    answers_flushes: bool,
    /// The last record that was given to a write.
    last: u64,
    /// All records up to here survive the loss of this process.
    written: u64,
    /// All records up to here survive the loss of this host, too.
    held: u64,
    /// The last record that the rim was asked to sync.
    asked: u64,
    /// The journal takes no more for now: waiting ends by uploads.
    pub(crate) full: bool,
    /// Who waits until a record is written.
    writers: BTreeMap<u64, Vec<RequestId>>,
    /// Who waits until it is held.
    waiters: BTreeMap<u64, Vec<RequestId>>,
}

/// Takes out who waits for no more than `record`.
fn up_to(waiters: &mut BTreeMap<u64, Vec<RequestId>>, record: u64) -> Vec<RequestId> {
    if waiters.is_empty() {
        return Vec::new();
    }
    let left = waiters.split_off(&(record + 1));
    std::mem::replace(waiters, left).into_values().flatten().collect()
}

/// What becomes of somebody who waits for all records so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// All of them are held.
    Over,
    /// They are being synced already.
    Joined,
    /// The rim has to sync up to this record.
    Sync(u64),
}

impl Journal {
    /// A journal whose records up to and with `from.record` the log contains.
    pub(crate) fn new(JournalUse { from, answers_flushes }: JournalUse) -> Self {
        let record = from.record;
        Self {
            id: from.journal,
            answers_flushes,
            last: record,
            written: record,
            held: record,
            asked: record,
            full: false,
            writers: BTreeMap::new(),
            waiters: BTreeMap::new(),
        }
    }

    /// Whether flush and FUA mean this journal.
    pub(crate) fn answers_flushes(&self) -> bool {
        self.answers_flushes
    }

    /// What a batch contains that is sealed now.
    pub(crate) fn position(&self) -> JournalPosition {
        JournalPosition { journal: self.id, record: self.last }
    }

    /// Records what was written: in parts, if it is longer than a record can be.
    pub(crate) fn records(&mut self, extent: Extent, content: &Content) -> Vec<Action> {
        let part_blocks = match content {
            Content::Data(_) => RECORD_DATA_BYTES_MAX / BLOCK_BYTES,
            Content::Zero | Content::Trim => extent.count.0,
        };
        let parts = (0..extent.count.0).step_by(usize::try_from(part_blocks).unwrap_or(usize::MAX));
        let parts = parts.map(|from| {
            let count = part_blocks.min(extent.count.0 - from);
            let (extent, content) = (Extent::new(extent.start.0 + from, count), content.part(from, count));
            Action::Journal { record: self.number(), extent, content }
        });
        parts.collect()
    }

    /// Gives the next write its record.
    pub(crate) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// `id`, a write, waits until all records so far are written; `false` if they are.
    pub(crate) fn wait_written(&mut self, id: RequestId) -> bool {
        if self.last <= self.written {
            return false;
        }
        self.writers.entry(self.last).or_default().push(id);
        true
    }

    /// `id` waits until all records so far are held.
    pub(crate) fn wait(&mut self, id: RequestId) -> Wait {
        if self.last <= self.held {
            return Wait::Over;
        }
        self.waiters.entry(self.last).or_default().push(id);
        if self.last <= self.asked {
            return Wait::Joined;
        }
        self.asked = self.last;
        Wait::Sync(self.last)
    }

    /// Whether anybody waits.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.waiters.is_empty() || !self.writers.is_empty()
    }

    /// All records up to `record` are written: gives which writes waited for no more than that.
    pub(crate) fn wrote(&mut self, record: u64) -> Vec<RequestId> {
        self.written = self.written.max(record);
        up_to(&mut self.writers, self.written)
    }

    /// All records up to `record` survive: gives who waited for no more than that.
    pub(crate) fn holds(&mut self, record: u64) -> Vec<RequestId> {
        let mut answered = self.wrote(record);
        self.held = self.held.max(record);
        answered.extend(up_to(&mut self.waiters, self.held));
        answered
    }

    /// `id` waits no longer; `false` if it did not.
    pub(crate) fn forget(&mut self, id: RequestId) -> bool {
        self.waiters.values_mut().chain(self.writers.values_mut()).any(|ids| {
            let before = ids.len();
            ids.retain(|waiter| *waiter != id);
            ids.len() < before
        })
    }

    /// Ends all waiting.
    pub(crate) fn take_waiters(&mut self) -> Vec<RequestId> {
        let writers = std::mem::take(&mut self.writers);
        let waiters = std::mem::take(&mut self.waiters);
        writers.into_values().chain(waiters.into_values()).flatten().collect()
    }
}

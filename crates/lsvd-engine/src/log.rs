//! How far the log was followed, and what it said on the way: what replay needs to go on behind a checkpoint.
//!
//! Knows headers one by one, in order; not the map. Whether an object may follow, replay decides.

use std::collections::BTreeMap;

use lsvd_format::log_object::{Entry, Header};
use lsvd_format::{Epoch, JournalId, JournalPosition, ObjectFormat, ObjectIdentity, SequenceNumber};

/// The last object of a log that is no fence: what its writer had stored when the log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastData {
    /// The opening that wrote it.
    pub epoch: Epoch,
    /// When it was sealed, in milliseconds since 1970 by its writer's clock.
    pub sealed_unix_ms: u64,
    /// The journal of its writer and the last record that the log contains, if it had one.
    pub journal: Option<JournalPosition>,
}

/// Where a log stands behind its last object.
#[derive(Clone, Debug)]
pub struct LogState {
    /// Number of the next object.
    pub next: SequenceNumber,
    /// Identity of the last object.
    pub last: Option<ObjectIdentity>,
    /// Format of the last object.
    pub last_format: Option<ObjectFormat>,
    /// The last object that is no fence.
    pub last_data: Option<LastData>,
    /// The last record of each journal that the objects of an opening contain; of the last openings.
    pub journals: BTreeMap<(JournalId, Epoch), u64>,
    /// Each fence, and the number that it names as the next.
    pub skipped: Vec<(SequenceNumber, SequenceNumber)>,
}

/// Openings of which it is known which records of their journals the log contains: a journal that comes back later is refused,
/// as if the log had nothing of it.
const JOURNALS_KEPT: usize = 64;

impl LogState {
    /// A log that begins with `first`.
    pub fn new(first: SequenceNumber) -> Self {
        Self {
            next: first,
            last: None,
            last_format: None,
            last_data: None,
            journals: BTreeMap::new(),
            skipped: Vec::new(),
        }
    }

    /// Takes in the next object.
    pub fn take(&mut self, header: &Header, format: ObjectFormat) {
        self.last = Some(header.identity);
        self.last_format = Some(format);
        self.next = header.next_number();
        if let [Entry::Fence { next }] = header.entries[..] {
            self.skipped.push((header.identity.number, next));
            return;
        }
        let (epoch, sealed_unix_ms) = (header.identity.epoch, header.sealed_unix_ms);
        self.last_data = Some(LastData { epoch, sealed_unix_ms, journal: header.journal });
        if let Some(JournalPosition { journal, record }) = header.journal {
            self.journals.insert((journal, epoch), record);
            if self.journals.len() > JOURNALS_KEPT {
                let oldest = self.journals.keys().copied().min_by_key(|(journal, epoch)| (*epoch, *journal));
                self.journals.remove(&oldest.expect("there are some"));
            }
        }
    }
}

//! Replay: from the headers of a log to the map as of its durable point.
//!
//! Takes headers one by one, in the order of their numbers, and says which number comes next. Knows neither listing
//! nor fetching. Invariants: epochs never fall, and each has one writer; only a fence skips numbers; an object that
//! breaks one is an error and never the end of the log (rule 4).

use std::collections::BTreeMap;

use lsvd_format::log_object::{Entry, Header};
use lsvd_format::{BLOCK_BYTES, Epoch, JournalId, JournalPosition, ObjectIdentity, SequenceNumber, VolumeId};

use crate::apply::apply;
use crate::map::{ExtentMap, ObjectTable};

/// The durable prefix as far as it was replayed.
#[derive(Clone, Debug)]
pub struct Replay {
    volume: VolumeId,
    blocks: u64,
    window: u64,
    next: SequenceNumber,
    /// Identity of the last object that was replayed.
    last: Option<ObjectIdentity>,
    objects_processed: u64,
    last_data: Option<LastData>,
    /// The last record of each journal that the objects of an opening contain.
    journals: BTreeMap<(JournalId, Epoch), u64>,
    skipped: Vec<(SequenceNumber, SequenceNumber)>,
    map: ExtentMap,
    objects: ObjectTable,
}

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

/// Why an object can not be part of this log. Nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReplayError(String);

impl Replay {
    /// An empty volume whose log begins at `first`.
    pub fn new(volume: VolumeId, size_bytes: u64, window: u64, first: SequenceNumber) -> Self {
        Self {
            volume,
            blocks: size_bytes / BLOCK_BYTES,
            window,
            next: first,
            last: None,
            objects_processed: 0,
            last_data: None,
            journals: BTreeMap::new(),
            skipped: Vec::new(),
            map: ExtentMap::default(),
            objects: ObjectTable::default(),
        }
    }

    /// The first number that was not replayed.
    pub fn next_number(&self) -> SequenceNumber {
        self.next
    }

    /// Number and epoch of the last object that was replayed.
    pub fn last(&self) -> Option<(SequenceNumber, Epoch)> {
        self.last.map(|last| (last.number, last.epoch))
    }

    /// What the last object that is no fence says; `None` if there is none.
    pub fn last_data(&self) -> Option<LastData> {
        self.last_data
    }

    /// The last record of a journal that the log contains, by the openings up to `epoch`; `None` if it has none of it.
    pub fn contained(&self, journal: JournalId, epoch: Epoch) -> Option<u64> {
        self.journals.range((journal, Epoch(0))..=(journal, epoch)).map(|(_, record)| *record).max()
    }

    /// Objects replayed so far.
    pub fn objects_processed(&self) -> u64 {
        self.objects_processed
    }

    /// Whether a fence that was replayed skips this number: then no object under it is or will be part of the log.
    pub fn skips(&self, number: SequenceNumber) -> bool {
        self.skipped.iter().any(|(fence, next)| *fence < number && number < *next)
    }

    /// Takes in the next object: the one stored as number [`Replay::next_number`].
    ///
    /// # Errors
    /// The object is not of this log, and the log can not be followed past it.
    pub fn accept(&mut self, header: &Header) -> Result<(), ReplayError> {
        self.check(header).map_err(ReplayError)?;
        apply(&mut self.map, &mut self.objects, header);
        self.last = Some(header.identity);
        if !matches!(header.entries[..], [Entry::Fence { .. }]) {
            let (epoch, sealed_unix_ms) = (header.identity.epoch, header.sealed_unix_ms);
            self.last_data = Some(LastData { epoch, sealed_unix_ms, journal: header.journal });
            if let Some(JournalPosition { journal, record }) = header.journal {
                self.journals.insert((journal, epoch), record);
            }
        }
        self.next = match header.entries[..] {
            [Entry::Fence { next }] => {
                self.skipped.push((header.identity.number, next));
                next
            }
            _ => header.identity.number.next(),
        };
        self.objects_processed += 1;
        Ok(())
    }

    fn check(&self, header: &Header) -> Result<(), String> {
        let identity = header.identity;
        if identity.volume != self.volume {
            return Err(format!("it is of another volume, {}", identity.volume));
        }
        if identity.number != self.next {
            return Err(format!("it says that it is number {}", identity.number));
        }
        if let Some(last) = self.last {
            if identity.epoch < last.epoch {
                return Err(format!("its epoch {} is below epoch {} before it", identity.epoch, last.epoch));
            }
            if identity.epoch == last.epoch && identity.writer != last.writer {
                let (epoch, writer) = (identity.epoch, identity.writer);
                return Err(format!("its writer {writer} is not the one that epoch {epoch} belongs to"));
            }
        }
        for entry in &header.entries {
            match *entry {
                Entry::Fence { next } => {
                    let expected = identity.number.0.checked_add(self.window);
                    if Some(next.0) != expected {
                        return Err(format!(
                            "its fence names {next} as the next, with a window of {}",
                            self.window
                        ));
                    }
                }
                Entry::Data { extent }
                | Entry::Zero { extent }
                | Entry::Trim { extent }
                | Entry::Relocation { extent, .. } => {
                    if extent.end().0 > self.blocks {
                        let end = extent.end();
                        return Err(format!("it reaches block {end} of a volume of {} blocks", self.blocks));
                    }
                }
            }
        }
        Ok(())
    }

    /// The map, the objects that it points into, and the next number.
    pub fn finish(self) -> (ExtentMap, ObjectTable, SequenceNumber) {
        (self.map, self.objects, self.next)
    }
}

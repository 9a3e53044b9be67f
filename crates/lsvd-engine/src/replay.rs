//! Replay: from the headers of a log to the map as of its durable point.
//!
//! Takes headers one by one, in the order of their numbers, and says which number comes next. Knows neither listing
//! nor fetching. Invariants: epochs never fall, and each has one writer; only a fence skips numbers; format 1 is only in
//! a log that may have it, and never behind format 2; an object that breaks one is an error and never the end of the log
//! (rule 4).

use std::collections::BTreeMap;

use lsvd_format::log_object::{Entry, Header};
use lsvd_format::{
    AnyHeader, BLOCK_BYTES, Epoch, Extent, JournalId, JournalPosition, ObjectFormat, ObjectIdentity,
    SequenceNumber, VolumeId, WriterId, v1,
};

use crate::apply::apply;
use crate::map::{ExtentMap, ObjectTable};

/// The durable prefix as far as it was replayed.
#[derive(Clone, Debug)]
pub struct Replay {
    volume: VolumeId,
    blocks: u64,
    window: u64,
    /// The format that a log with objects of format 1 goes on in; `None` for a log without any.
    append_format: Option<ObjectFormat>,
    /// The format of the last object.
    last_format: Option<ObjectFormat>,
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
            append_format: None,
            last_format: None,
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

    /// Lets objects of format 1 into the log: at its beginning if it goes on in format 2, everywhere and nothing else
    /// if it goes on in format 1.
    pub fn taking_format_1(self, append_format: ObjectFormat) -> Self {
        Self { append_format: Some(append_format), ..self }
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

    /// Takes in the next object, of either format: the one stored as `number`, which is [`Replay::next_number`].
    ///
    /// # Errors
    /// As for [`Replay::accept`].
    pub fn accept_any(&mut self, number: SequenceNumber, header: &AnyHeader) -> Result<(), ReplayError> {
        match header {
            AnyHeader::V1(header) => {
                let header = self.header_of_v1(number, header).map_err(ReplayError)?;
                self.take(&header, ObjectFormat::V1)
            }
            AnyHeader::V2(header) => self.accept(header),
        }
    }

    /// Takes in the next object, of format 2: the one stored as number [`Replay::next_number`].
    ///
    /// # Errors
    /// The object is not of this log, and the log can not be followed past it.
    pub fn accept(&mut self, header: &Header) -> Result<(), ReplayError> {
        if self.append_format == Some(ObjectFormat::V1) {
            return Err(ReplayError("it is of format 2, in a log that goes on in format 1".to_owned()));
        }
        self.take(header, ObjectFormat::V2)
    }

    /// An object of format 1 as if it was of format 2. It does not say whose it is: whose the last mark says.
    fn header_of_v1(&self, number: SequenceNumber, header: &v1::Header) -> Result<Header, String> {
        match (self.append_format, self.last_format) {
            (None, _) => return Err("it is of format 1, in a log of format 2".to_owned()),
            (_, Some(ObjectFormat::V2)) => {
                let words =
                    "it is of format 1, but the log had gone on in format 2: its old writer writes it still";
                return Err(words.to_owned());
            }
            _ => {}
        }
        let mark = header.mark.filter(|mark| mark.volume == self.volume);
        if let Some(mark) = mark.filter(|mark| mark.number != number) {
            return Err(format!("its mark says that it is number {}", mark.number));
        }
        let before = self.last.map_or((Epoch(0), WriterId([0; 16])), |last| (last.epoch, last.writer));
        let (epoch, writer) = mark.map_or(before, |mark| (mark.epoch, mark.writer));
        let identity = ObjectIdentity { volume: self.volume, epoch, writer, number };
        let data = |entry: &v1::Entry| {
            let count = u64::from(entry.size_bytes) / BLOCK_BYTES;
            Entry::Data { extent: Extent::new(entry.address_bytes / BLOCK_BYTES, count) }
        };
        let entries = header.entries.iter().map(data).collect();
        Ok(Header { identity, sealed_unix_ms: 0, journal: None, entries })
    }

    fn take(&mut self, header: &Header, format: ObjectFormat) -> Result<(), ReplayError> {
        self.check(header).map_err(ReplayError)?;
        apply(&mut self.map, &mut self.objects, header, format);
        self.last = Some(header.identity);
        self.last_format = Some(format);
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

//! Replay: from the headers of a log to the map as of its durable point.
//!
//! Takes headers one by one, in the order of their numbers, and says which number comes next; behind a checkpoint it says
//! which regions it needs. Knows neither listing nor fetching. Invariants: epochs never fall, and each has one writer; only a
//! fence skips numbers, and the line where a rollback left its way; format 1 is only in a log that may have it, and never
//! behind format 2; an object that breaks one is an error and never the end of the log (rule 4).

use std::collections::VecDeque;

use lsvd_format::checkpoint::RegionIndex;
use lsvd_format::log_object::{Entry, Header};
use lsvd_format::superblock::Line;
use lsvd_format::{
    AnyHeader, BLOCK_BYTES, BlockIndex, Epoch, Extent, JournalId, ObjectFormat, ObjectIdentity,
    SequenceNumber, VolumeId, WriterId, v1,
};

use crate::log::{LastData, LogState};
use crate::prefix::{Place, Prefix, Progress, RegionContent};

/// Absent regions that are asked for at once.
const REGIONS_AT_ONCE: usize = 1024;

/// The durable prefix as far as it was replayed.
#[derive(Debug)]
pub struct Replay {
    volume: VolumeId,
    blocks: u64,
    window: u64,
    /// The format that a log with objects of format 1 goes on in; `None` for a log without any.
    append_format: Option<ObjectFormat>,
    /// What was applied.
    prefix: Prefix,
    /// The log with all that was taken in, applied or not.
    log: LogState,
    /// Objects that were taken in and are still to be applied, in order.
    unapplied: VecDeque<(Header, ObjectFormat)>,
    progress: Progress,
    objects_processed: u64,
    /// Where the log goes on with another number than the next: behind the first of each comes the second.
    jumps: Vec<(SequenceNumber, SequenceNumber)>,
}

/// Why an object can not be part of this log. Nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReplayError(String);

impl Replay {
    /// An empty volume whose log begins at `first`. `size_bytes` is the largest size that it ever had.
    pub fn new(volume: VolumeId, size_bytes: u64, window: u64, first: SequenceNumber) -> Self {
        Self::from(volume, size_bytes, window, Prefix::new(first))
    }

    /// A volume of which a checkpoint holds this prefix.
    pub fn from(volume: VolumeId, size_bytes: u64, window: u64, prefix: Prefix) -> Self {
        Self {
            volume,
            blocks: size_bytes / BLOCK_BYTES,
            window,
            append_format: None,
            log: prefix.log().clone(),
            prefix,
            unapplied: VecDeque::new(),
            progress: Progress::default(),
            objects_processed: 0,
            jumps: Vec::new(),
        }
    }

    /// Follows this line, on which what was replayed so far lies. Nothing was taken in yet.
    pub fn along(mut self, line: &Line) -> Self {
        self.jumps = line.jumps().collect();
        self.jump();
        self
    }

    /// Goes on with the number that a rollback went on with, if it went back to the last object.
    fn jump(&mut self) {
        let Some(last) = self.log.last else { return };
        if let Some((_, next)) = self.jumps.iter().find(|(to, _)| *to == last.number) {
            self.log.next = *next;
        }
    }

    /// Lets objects of format 1 into the log: at its beginning if it goes on in format 2, everywhere and nothing else
    /// if it goes on in format 1.
    pub fn taking_format_1(self, append_format: ObjectFormat) -> Self {
        Self { append_format: Some(append_format), ..self }
    }

    /// The volume.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// The first number that was not replayed.
    pub fn next_number(&self) -> SequenceNumber {
        self.log.next
    }

    /// Number and epoch of the last object that was replayed.
    pub fn last(&self) -> Option<(SequenceNumber, Epoch)> {
        self.log.last.map(|last| (last.number, last.epoch))
    }

    /// What the last object that is no fence says; `None` if there is none.
    pub fn last_data(&self) -> Option<LastData> {
        self.log.last_data
    }

    /// The last record of a journal that the log contains, by the openings up to `epoch`; `None` if it has none of it.
    pub fn contained(&self, journal: JournalId, epoch: Epoch) -> Option<u64> {
        self.log.journals.range((journal, Epoch(0))..=(journal, epoch)).map(|(_, record)| *record).max()
    }

    /// Objects replayed so far.
    pub fn objects_processed(&self) -> u64 {
        self.objects_processed
    }

    /// Whether a fence of this log skips this number: then no object under it is or will be part of the log.
    pub fn skips(&self, number: SequenceNumber) -> bool {
        self.log.skipped.iter().any(|(fence, next)| *fence < number && number < *next)
    }

    /// The prefix with all that could be applied: all, unless regions are wanted.
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Regions of the checkpoint that what was taken in needs; none when all of it is applied. Bring them by
    /// [`Replay::load`], in any order, and ask again.
    pub fn wanted_regions(&self) -> Vec<RegionIndex> {
        let mut regions = Vec::new();
        let fresh = Progress::default();
        for (nth, (header, _)) in self.unapplied.iter().enumerate() {
            let progress = if nth == 0 { &self.progress } else { &fresh };
            for region in self.prefix.needs(header, progress, REGIONS_AT_ONCE) {
                if !regions.contains(&region) {
                    regions.push(region);
                }
            }
            if regions.len() >= REGIONS_AT_ONCE {
                break;
            }
        }
        regions
    }

    /// Brings a region, and applies what needed no other one.
    pub fn load(&mut self, region: RegionIndex, place: Place, content: RegionContent) {
        self.prefix.load(region, place, content);
        self.apply();
    }

    /// Goes on without what a region held: see [`Prefix::lose`].
    pub fn lose(&mut self, region: RegionIndex, place: Place) {
        self.prefix.lose(region, place, BlockIndex(self.blocks));
        self.apply();
    }

    /// Says that blocks of this volume were lost before.
    pub fn set_lossy(&mut self, lossy: bool) {
        self.prefix.set_lossy(lossy);
    }

    fn apply(&mut self) {
        while let Some((header, format)) = self.unapplied.front() {
            if self.prefix.advance(header, *format, &mut self.progress).is_err() {
                return; // a region is wanted
            }
            self.progress = Progress::default();
            self.unapplied.pop_front();
        }
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
        match (self.append_format, self.log.last_format) {
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
        let before = self.log.last.map_or((Epoch(0), WriterId([0; 16])), |last| (last.epoch, last.writer));
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
        self.log.take(header, format);
        self.jump();
        self.unapplied.push_back((header.clone(), format));
        self.objects_processed += 1;
        self.apply();
        Ok(())
    }

    fn check(&self, header: &Header) -> Result<(), String> {
        let identity = header.identity;
        if identity.volume != self.volume {
            return Err(format!("it is of another volume, {}", identity.volume));
        }
        if identity.number != self.log.next {
            return Err(format!("it says that it is number {}", identity.number));
        }
        if let Some(last) = self.log.last {
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

    /// The prefix. Everything is applied: ask [`Replay::wanted_regions`] before.
    pub fn finish(mut self) -> Prefix {
        assert!(self.unapplied.is_empty(), "regions are still wanted");
        self.prefix.log.next = self.log.next; // a rollback may have gone back to the last object
        self.prefix
    }
}

//! An engine with somebody who does what it asks for, when the test says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lsvd_engine::{
    Action, Config, Content, Engine, Event, Location, Now, Outcome, Prefix, Request, RequestId, SealedBatch,
};
use lsvd_format::{BLOCK_BYTES, BlockIndex, Epoch, Extent, SequenceNumber, VolumeId, WriterId};

/// First number of the engine under test.
pub(crate) const FIRST: u64 = 10;

pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) clock: Duration,
    pub(crate) next_id: u64,
    pub(crate) answers: BTreeMap<u64, Outcome>,
    /// In the order in which they were answered.
    pub(crate) answered: Vec<u64>,
    pub(crate) uploads: Vec<Arc<SealedBatch>>,
    pub(crate) bases: Vec<(RequestId, BlockIndex, Location)>,
    /// Records for the journal, with the syncs and releases that were asked for.
    pub(crate) records: Vec<(u64, Extent, Content)>,
    pub(crate) syncs: Vec<u64>,
    pub(crate) releases: Vec<u64>,
    /// The journal has each record as soon as it is asked for; otherwise when a test says so.
    pub(crate) journal_is_quick: bool,
}

/// Small ceilings, but for the map's.
pub(crate) fn config() -> Config {
    Config {
        volume: VolumeId([1; 16]),
        epoch: Epoch(3),
        writer: WriterId([2; 16]),
        window: 8,
        batch_bytes_max: 4 * BLOCK_BYTES,
        batch_age_max: Duration::from_secs(1),
        buffer_bytes_max: 1 << 20,
        map_bytes_max: u64::MAX,
        uploads_max: 100,
        flush_uploads_max: 2,
        journal: None,
    }
}

impl Rig {
    pub(crate) fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        Self {
            engine: Engine::new(config, Prefix::new(SequenceNumber(FIRST))),
            clock: Duration::ZERO,
            next_id: 0,
            answers: BTreeMap::new(),
            answered: Vec::new(),
            uploads: Vec::new(),
            bases: Vec::new(),
            records: Vec::new(),
            syncs: Vec::new(),
            releases: Vec::new(),
            journal_is_quick: true,
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        let before = self.records.len();
        self.engine.handle(Now { monotonic: self.clock, unix_ms: 77 }, event);
        self.act();
        if self.journal_is_quick
            && self.records.len() > before
            && let Some((record, ..)) = self.records.last()
        {
            self.event(Event::JournalWritten { record: *record });
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.engine.next_action() {
            match action {
                Action::Complete { id, outcome } => {
                    assert!(self.answers.insert(id.0, outcome).is_none(), "{id:?} is answered once");
                    self.answered.push(id.0);
                }
                Action::ReadBase { id, block, location } => self.bases.push((id, block, location)),
                Action::LoadRegion { .. } => panic!("all of the map is in memory"),
                Action::Upload(batch) => self.uploads.push(batch),
                Action::Journal { record, extent, content } => self.records.push((record, extent, content)),
                Action::SyncJournal { record } => self.syncs.push(record),
                Action::ReleaseJournal { record } => self.releases.push(record),
            }
        }
    }

    pub(crate) fn submit(&mut self, request: Request) -> u64 {
        self.next_id += 1;
        self.event(Event::Submit { id: RequestId(self.next_id), request });
        self.next_id
    }

    pub(crate) fn write(&mut self, block: u64, blocks: u64) -> u64 {
        self.write_bytes(block * BLOCK_BYTES, blocks * BLOCK_BYTES, false)
    }

    pub(crate) fn write_bytes(&mut self, offset_bytes: u64, length_bytes: u64, fua: bool) -> u64 {
        let data = Bytes::from(vec![5; usize::try_from(length_bytes).unwrap()]);
        self.submit(Request::Write { offset_bytes, data, fua })
    }

    pub(crate) fn flush(&mut self) -> u64 {
        self.submit(Request::Flush)
    }

    pub(crate) fn uploaded(&mut self, number: u64) {
        let at = self.uploads.iter().position(|batch| batch.header.identity.number.0 == number);
        self.uploads.remove(at.expect("it was asked for"));
        self.event(Event::Uploaded { number: SequenceNumber(number) });
    }

    /// Numbers of the uploads that were asked for and are not done.
    pub(crate) fn uploading(&self) -> Vec<u64> {
        self.uploads.iter().map(|batch| batch.header.identity.number.0).collect()
    }

    pub(crate) fn answer(&self, id: u64) -> Option<Outcome> {
        self.answers.get(&id).copied()
    }
}

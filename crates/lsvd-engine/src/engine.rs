//! The engine: the one place where writes get their order, their batch and their number (rule 6).
//!
//! A pure state machine: [`Engine::handle`] takes what happened, [`Engine::next_action`] says what to do. Knows no
//! tasks, no clock, no bucket, no randomness; the caller keeps no order but that of the calls. Invariants:
//! 1. what the prefix holds is durable: it is the log applied up to, and without, the first sealed batch, which is at or
//!    below `first_incomplete`, as the map may have to be fetched first; a batch stays in the overlay until it is applied;
//! 2. `number of the first sealed batch <= first_incomplete`, sealed batches are dense up to `next_number`, and an upload
//!    is asked for only below `first_incomplete + window`;
//! 3. `buffered_bytes` is the sum of what open batch, sealed batches and merging mutations hold;
//! 4. a mutation is applied whole, and never while an earlier one that touches one of its blocks is not.

mod upkeep;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lsvd_format::checkpoint::RegionIndex;
use lsvd_format::log_object::Header;
use lsvd_format::v1;
use lsvd_format::{
    BlockIndex, Epoch, Extent, ObjectFormat, ObjectIdentity, SequenceNumber, VolumeId, WriterId,
};

use crate::batch::{Batch, payload_bytes};
use crate::content::{Buffered, Content, without_zeroes};
use crate::interval::{IntervalMap, Run};
use crate::journal::{Journal, JournalUse, Wait};
use crate::mutation::{Mutation, RECORD_BYTES};
use crate::objects::{ObjectIndex, ObjectRecord, ObjectTotals};
use crate::plan::{self, BlockSource, Live, PlanPiece, Status};
use crate::prefix::{Prefix, Progress};
use crate::request::{Action, Event, Now, Outcome, Request, RequestId, SealedBatch};

/// A batch is sealed at this many runs, so that its header stays small enough to be read at recovery in one go.
const BATCH_RUNS_MAX: usize = 16_384;

/// Absent regions that are asked for at once on behalf of one object.
const REGIONS_AHEAD: usize = 64;

/// Who writes, and the ceilings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The volume.
    pub volume: VolumeId,
    /// This opening.
    pub epoch: Epoch,
    /// This process.
    pub writer: WriterId,
    /// See rule "window": no number this much or more above the first incomplete one.
    pub window: u64,
    /// A batch is sealed at this payload.
    pub batch_bytes_max: u64,
    /// A batch is sealed at this age.
    pub batch_age_max: Duration,
    /// Mutations wait when this much is buffered.
    pub buffer_bytes_max: u64,
    /// Uploads asked for and not done, at most.
    pub uploads_max: usize,
    /// Of these, such as a flush waits for; beyond it flushes share the next one.
    pub flush_uploads_max: usize,
    /// Regions of the extent map leave memory when it takes this many bytes, as far as checkpoints hold them. What they
    /// hold may take a quarter of it in any case, however much the index of all regions takes.
    pub map_bytes_max: u64,
    /// With a journal: a write is answered when the journal has it, so that it outlives this process.
    pub journal: Option<JournalUse>,
}

/// A run of blocks of the open batch, whatever was written there: neighbours are one entry of its object.
#[derive(Clone, Debug)]
struct Area;

impl Run for Area {
    fn part(&self, _from: u64, _count: u64) -> Self {
        Self
    }

    fn continues(&self, _count: u64, _next: &Self) -> bool {
        true
    }
}

/// A sealed batch that is not durable, or not applied to the map yet.
#[derive(Debug)]
struct InFlight {
    batch: Arc<SealedBatch>,
    extents: Vec<Extent>,
    uploaded: bool,
    /// When its first write was applied.
    opened_at: Duration,
}

/// The state of an open volume that is in memory.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    prefix: Prefix,
    /// How far the first sealed batch is applied.
    progress: Progress,
    /// Regions that were asked for.
    loading: BTreeSet<RegionIndex>,
    /// Regions that somebody who plans needs at once.
    pinned: BTreeMap<RegionIndex, u32>,
    /// Up to these bytes of the map nothing leaves memory: most of it could not when that was last tried.
    stuck_bytes: u64,
    /// Blocks that are changed in part and whose region is absent.
    bases_wanted: Vec<(RequestId, BlockIndex)>,
    overlay: IntervalMap<Buffered>,
    open: Batch,
    open_payload_bytes: u64,
    open_wanted: bool,
    /// The runs of the open batch as entries of format 1, where those are what is written.
    open_areas: Option<IntervalMap<Area>>,
    /// Sealed batches that are not applied, in order of their dense numbers.
    sealed: VecDeque<InFlight>,
    /// How many of `sealed`, from its front, were asked to be uploaded.
    asked: usize,
    first_incomplete: SequenceNumber,
    last_durable: Option<SequenceNumber>,
    next_number: SequenceNumber,
    buffered_bytes: u64,
    waiting: VecDeque<Mutation>,
    merging: BTreeMap<RequestId, Mutation>,
    durable_waiters: BTreeMap<SequenceNumber, Vec<RequestId>>,
    journal: Option<Journal>,
    actions: VecDeque<Action>,
    fenced: bool,
}

impl Engine {
    /// An engine over a replayed log.
    pub fn new(config: Config, prefix: Prefix) -> Self {
        let next_number = prefix.log().next;
        let journal = config.journal.map(Journal::new);
        Self {
            config,
            journal,
            prefix: prefix.counting_later(),
            progress: Progress::default(),
            loading: BTreeSet::new(),
            pinned: BTreeMap::new(),
            stuck_bytes: 0,
            bases_wanted: Vec::new(),
            overlay: IntervalMap::default(),
            open: Batch::default(),
            open_payload_bytes: 0,
            open_wanted: false,
            open_areas: None,
            sealed: VecDeque::new(),
            asked: 0,
            first_incomplete: next_number,
            last_durable: None,
            next_number,
            buffered_bytes: 0,
            waiting: VecDeque::new(),
            merging: BTreeMap::new(),
            durable_waiters: BTreeMap::new(),
            actions: VecDeque::new(),
            fenced: false,
        }
    }

    /// The same engine, whose objects are of format 1: they hold data alone, so trims and zeroes are not to be asked for.
    pub fn appending_format_1(self) -> Self {
        assert!(self.journal.is_none(), "an object of format 1 names no journal record");
        Self { open_areas: Some(IntervalMap::default()), ..self }
    }

    /// The format of the objects that it writes.
    fn append_format(&self) -> ObjectFormat {
        if self.open_areas.is_some() { ObjectFormat::V1 } else { ObjectFormat::V2 }
    }

    /// Takes in what happened. Call [`Engine::next_action`] until it has no more to say.
    pub fn handle(&mut self, now: Now, event: Event) {
        match event {
            Event::Submit { id, request } => self.submit(now, id, request),
            Event::BaseRead { id, block, base } => self.base_read(now, id, block, base),
            Event::Uploaded { number } => self.uploaded(now, number),
            Event::Collected { id, moves, payload } => self.collected(now, id, &moves, payload),
            Event::RegionWanted { region } => self.want_region(region),
            Event::RegionLoaded { region, place, content } => {
                self.region_loaded(now, (region, place), content)
            }
            Event::JournalWritten { record } => self.journal_written(record),
            Event::RegionLost { region, place, end } => self.region_lost(now, region, place, end),
            Event::JournalSynced { record } => self.journal_synced(record),
            Event::JournalFull => self.journal_full(),
            Event::Replayed { record, extent, content } => self.replayed(now, record, extent, content),
            Event::Cancel { id } => self.cancel(now, id),
            Event::Fenced => self.fence(),
            Event::Tick => {}
        }
        if !self.fenced {
            self.seal_if_due(now);
            self.ask_for_uploads();
        }
    }

    /// The next thing to do, in order; `None` until the next event.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When an [`Event::Tick`] is due, if nothing happens before: the open batch's age.
    pub fn next_deadline(&self) -> Option<Duration> {
        // With the window full only a finished upload helps, and that is an event; a fenced engine seals no more.
        let opened_at = self.open.opened_at.filter(|_| !self.fenced && self.sealed.len() < self.window());
        opened_at.map(|opened_at| opened_at + self.config.batch_age_max)
    }

    /// Where the bytes of a range come from. It holds all that completed before the call.
    ///
    /// # Errors
    /// Regions of the map that are absent: ask for each by [`Event::RegionWanted`], and again when they are loaded.
    pub fn plan_read(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Vec<PlanPiece>, Vec<RegionIndex>> {
        plan::plan_read(&self.overlay, &self.prefix, offset_bytes, length_bytes)
    }

    /// A range is used: its regions of the map leave memory after others.
    pub fn touch(&mut self, offset_bytes: u64, length_bytes: u64) {
        self.prefix.touch(plan::blocks_of(offset_bytes, length_bytes));
    }

    /// What is allocated in a range, and what reads as zeroes; it may stop before the range ends.
    ///
    /// # Errors
    /// As for [`Engine::plan_read`].
    pub fn status(&self, offset_bytes: u64, length_bytes: u64) -> Result<Vec<Status>, Vec<RegionIndex>> {
        plan::status(&self.overlay, &self.prefix, offset_bytes, length_bytes)
    }

    /// What holds data in a run. A write on its way counts, whatever it will leave.
    ///
    /// # Errors
    /// As for [`Engine::plan_read`].
    pub fn live(&self, extent: Extent) -> Result<Live, Vec<RegionIndex>> {
        let mut live = plan::live(&self.overlay, &self.prefix, extent)?;
        for mutation in self.merging.values().chain(&self.waiting) {
            let blocks = mutation.blocks();
            let (start, end) = (blocks.start.max(extent.start), blocks.end().min(extent.end()));
            if start < end {
                live.add(start, end.0 - start.0);
            }
        }
        Ok(live)
    }

    /// As [`Engine::live`] for the beginning of a run, up to what is not in memory; and where that ends. Somebody who goes on
    /// from there needs no more than a few regions in memory at once.
    ///
    /// # Errors
    /// The first few absent regions, if the run begins in one.
    pub fn live_ahead(&self, extent: Extent) -> Result<(Live, BlockIndex), Vec<RegionIndex>> {
        let absent = self.prefix.map().first_absent(extent);
        let until = absent.map_or(extent.end(), |region| region.extent().start.max(extent.start));
        if until == extent.start {
            let mut absent = Vec::new();
            self.prefix.absent_in(extent, REGIONS_AHEAD, &mut absent);
            return Err(absent);
        }
        Ok((self.live(Extent::new(extent.start.0, until.0 - extent.start.0))?, until))
    }

    /// An object that a plan names.
    pub fn object(&self, index: ObjectIndex) -> ObjectRecord {
        self.prefix.objects().get(index)
    }

    /// Whether somebody waits until the store has what was written.
    pub fn is_durability_awaited(&self) -> bool {
        !self.durable_waiters.is_empty()
    }

    /// The durable prefix as far as it is applied.
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Counts again what is live, and looks through the overlay: see [`Prefix::audit`].
    ///
    /// # Errors
    /// What breaks an invariant, for a person.
    pub fn audit(&self) -> Result<u64, String> {
        let first = self.sealed.front().map_or(self.next_number, |batch| batch.batch.header.identity.number);
        for (extent, buffered) in self.overlay.overlapping(Extent::new(0, u64::MAX)) {
            if !(first..=self.next_number).contains(&buffered.number) {
                let (start, number) = (extent.start, buffered.number);
                return Err(format!(
                    "block {start} is buffered for number {number}, which is none of the batches"
                ));
            }
        }
        self.prefix.audit()
    }

    /// Sums over the objects of the prefix.
    pub fn totals(&self) -> ObjectTotals {
        self.prefix.objects().totals()
    }

    /// Bytes accepted that are not durable.
    pub fn buffered_bytes(&self) -> u64 {
        self.buffered_bytes
    }

    /// Since when the oldest of them waits, by the clock of the events; `None` if all is durable in the store.
    pub fn buffered_since(&self) -> Option<Duration> {
        self.sealed.front().map(|batch| batch.opened_at).or(self.open.opened_at)
    }

    /// Uploads asked for and not done.
    pub fn uploads_in_flight(&self) -> usize {
        self.sealed.iter().take(self.asked).filter(|batch| !batch.uploaded).count()
    }

    /// The first number that is not durable.
    pub fn first_incomplete(&self) -> SequenceNumber {
        self.first_incomplete
    }

    /// The last number that this engine knows to be durable: none before its own first one is.
    pub fn last_durable(&self) -> Option<SequenceNumber> {
        self.last_durable
    }

    /// Records in the extent map.
    pub fn map_extents(&self) -> usize {
        self.prefix.map().extents()
    }

    /// Bytes of memory of the extent map.
    pub fn map_bytes(&self) -> u64 {
        self.prefix.map().resident_bytes()
    }

    /// What it may take: see [`Config::map_bytes_max`].
    pub fn map_bytes_max(&self) -> u64 {
        self.config.map_bytes_max
    }

    /// Of [`Engine::map_bytes`], the index of all regions, which stays in memory whatever the budget is.
    pub fn map_index_bytes(&self) -> u64 {
        self.prefix.map().index_bytes()
    }

    fn complete(&mut self, id: RequestId, outcome: Outcome) {
        self.actions.push_back(Action::Complete { id, outcome });
    }

    fn submit(&mut self, now: Now, id: RequestId, request: Request) {
        if self.fenced {
            return self.complete(id, Outcome::Fenced);
        }
        let data_alone = !matches!(request, Request::Trim { .. } | Request::WriteZeroes { .. });
        assert!(
            data_alone || self.append_format() == ObjectFormat::V2,
            "format 1 knows neither trims nor zeroes"
        );
        let drain = matches!(request, Request::Drain);
        match Mutation::new(id, request) {
            None if drain => self.wait_stored(id),
            None => self.wait_durable(id),
            Some(mutation) => {
                self.waiting.push_back(mutation);
                self.admit(now);
            }
        }
    }

    /// Completes `id` when all that is applied by now is as durable as was asked for.
    fn wait_durable(&mut self, id: RequestId) {
        if let Some(journal) = self.journal.as_mut().filter(|journal| journal.answers_flushes()) {
            match journal.wait(id) {
                Wait::Over => self.complete(id, Outcome::Done),
                Wait::Joined => {}
                Wait::Sync(record) => self.actions.push_back(Action::SyncJournal { record }),
            }
            self.seal_for_waiters();
            return;
        }
        self.wait_stored(id);
    }

    /// Completes `id`, a write that is applied, when it outlives this process, where there is something that outlives it.
    fn wait_written(&mut self, id: RequestId) {
        if self.journal.as_mut().is_some_and(|journal| journal.wait_written(id)) {
            self.seal_for_waiters();
        } else {
            self.complete(id, Outcome::Done);
        }
    }

    /// Completes `id` when the store holds all that is applied by now.
    fn wait_stored(&mut self, id: RequestId) {
        let target = if self.open.is_empty() {
            SequenceNumber(self.next_number.0 - 1)
        } else {
            self.open_wanted = true;
            self.next_number
        };
        if target < self.first_incomplete {
            self.complete(id, Outcome::Done);
        } else {
            self.durable_waiters.entry(target).or_default().push(id);
        }
    }

    /// Lets waiting mutations in, in their order, as far as blocks and memory allow.
    fn admit(&mut self, now: Now) {
        let mut at = 0;
        while at < self.waiting.len() {
            let mutation = &self.waiting[at];
            let fits = self.buffered_bytes == 0
                || self.buffered_bytes + mutation.held_bytes() <= self.config.buffer_bytes_max;
            if !fits {
                // Memory is given in order of arrival: nobody starves. Only uploads give it back, so one must run.
                if self.sealed.is_empty() {
                    self.seal(now, false);
                }
                return;
            }
            let blocks = mutation.blocks();
            let mut before = self.merging.values().chain(self.waiting.iter().take(at));
            if before.any(|before| before.blocks().overlaps(blocks)) {
                at += 1;
                continue;
            }
            let mutation = self.waiting.remove(at).expect("it is at this index");
            self.begin(now, mutation);
        }
    }

    /// Applies an admitted mutation, at once or when the blocks that it changes in part are fetched.
    fn begin(&mut self, now: Now, mut mutation: Mutation) {
        let mut reads = Vec::new();
        for block in mutation.missing().collect::<Vec<_>>() {
            match plan::block(&self.overlay, &self.prefix, block) {
                BlockSource::Known(base) => mutation.set_base(block, base),
                BlockSource::Lost => return self.complete(mutation.id, Outcome::BaseLost(block)),
                source => reads.push((block, source)),
            }
        }
        self.buffered_bytes += mutation.held_bytes();
        if reads.is_empty() {
            return self.apply(now, mutation);
        }
        let id = mutation.id;
        self.merging.insert(id, mutation);
        for (block, source) in reads {
            self.fetch_base(id, block, source);
        }
    }

    /// Has the content before of a block fetched that is changed in part.
    fn fetch_base(&mut self, id: RequestId, block: BlockIndex, source: BlockSource) {
        match source {
            BlockSource::Stored(location) => self.actions.push_back(Action::ReadBase { id, block, location }),
            BlockSource::Absent(region) => {
                self.bases_wanted.push((id, block));
                self.want_region(region);
            }
            BlockSource::Lost => {
                let mutation = self.release(id);
                self.buffered_bytes -= mutation.held_bytes();
                self.complete(id, Outcome::BaseLost(block));
            }
            BlockSource::Known(_) => unreachable!("it needs no fetch"),
        }
    }

    fn base_read(&mut self, now: Now, id: RequestId, block: BlockIndex, base: Option<Bytes>) {
        let Some(mutation) = self.merging.get_mut(&id) else {
            return; // cancelled, or failed by its other block
        };
        match base {
            Some(base) => {
                mutation.set_base(block, base);
                if mutation.missing().next().is_some() {
                    return;
                }
                let mutation = self.release(id);
                self.apply(now, mutation);
            }
            None => {
                let mutation = self.release(id);
                self.buffered_bytes -= mutation.held_bytes();
                self.complete(id, Outcome::BaseUnreadable);
            }
        }
        self.admit(now);
    }

    /// Takes a mutation out of merging; its blocks are free for others.
    fn release(&mut self, id: RequestId) -> Mutation {
        self.merging.remove(&id).expect("it is merging")
    }

    /// Gives a mutation its place in the order of writes.
    fn apply(&mut self, now: Now, mutation: Mutation) {
        let (id, fua) = (mutation.id, mutation.fua);
        self.open.held_bytes += mutation.held_bytes();
        // Format 1 knows data alone.
        let zeroes_are_entries = self.append_format() == ObjectFormat::V2;
        let contents = mutation.into_contents().into_iter().flat_map(|(extent, content)| match content {
            Content::Data(data) if zeroes_are_entries => without_zeroes(extent, data),
            content => vec![(extent, content)],
        });
        for (extent, content) in contents {
            if let Some(journal) = &mut self.journal {
                self.actions.extend(journal.records(extent, &content));
            }
            self.put_into_open(now, extent, content);
        }
        if self.open.is_empty() {
            // A trim of less than a block changes nothing and holds nothing.
            self.buffered_bytes -= std::mem::take(&mut self.open.held_bytes);
        }
        if fua {
            self.wait_durable(id);
        } else {
            self.wait_written(id);
        }
        self.seal_if_large(now);
    }

    fn put_into_open(&mut self, now: Now, extent: Extent, content: Content) {
        self.open.opened_at.get_or_insert(now.monotonic);
        self.open_payload_bytes += payload_bytes(extent, &content);
        if let Some(areas) = &mut self.open_areas {
            areas.insert(extent, Area);
        }
        self.open.insert(extent, content.clone());
        self.overlay.insert(extent, Buffered { number: self.next_number, content });
    }

    /// Applies a record of the journal once more.
    fn replayed(&mut self, now: Now, record: u64, extent: Extent, content: Content) {
        let journal = self.journal.as_mut().expect("only a journal has records");
        assert_eq!(journal.number(), record, "records come in order");
        // Nobody can wait for a record of an earlier opening.
        journal.holds(record);
        let held_bytes = RECORD_BYTES + payload_bytes(extent, &content);
        self.buffered_bytes += held_bytes;
        self.open.held_bytes += held_bytes;
        self.put_into_open(now, extent, content);
        self.seal_if_large(now);
    }

    fn journal_written(&mut self, record: u64) {
        let Some(journal) = &mut self.journal else { return };
        journal.full = false;
        for id in journal.wrote(record) {
            self.complete(id, Outcome::Done);
        }
    }

    fn journal_synced(&mut self, record: u64) {
        let Some(journal) = &mut self.journal else { return };
        journal.full = false;
        for id in journal.holds(record) {
            self.complete(id, Outcome::Done);
        }
    }

    fn journal_full(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        journal.full = true;
        self.seal_for_waiters();
    }

    /// Behind a full journal only uploads answer who waits.
    fn seal_for_waiters(&mut self) {
        let waits = self.journal.as_ref().is_some_and(|journal| journal.full && journal.is_waited_for());
        self.open_wanted |= waits && !self.open.is_empty();
    }

    fn seal_if_large(&mut self, now: Now) {
        // A write adds one area at most, so that this never is one too late.
        let no_entry_is_left = self.open_areas.as_ref().is_some_and(|areas| areas.len() >= v1::ENTRIES_MAX);
        if no_entry_is_left
            || self.open_payload_bytes >= self.config.batch_bytes_max
            || self.open.held_bytes >= 2 * self.config.batch_bytes_max
            || self.open.runs() >= BATCH_RUNS_MAX
        {
            self.seal(now, false);
        }
    }

    /// Seals the open batch if its age or a flush asks for it.
    fn seal_if_due(&mut self, now: Now) {
        let Some(opened_at) = self.open.opened_at else { return };
        let flushing = self.sealed.iter().filter(|batch| batch.batch.for_flush && !batch.uploaded).count();
        if self.open_wanted && flushing < self.config.flush_uploads_max {
            self.seal(now, true);
        } else if now.monotonic >= opened_at + self.config.batch_age_max && self.sealed.len() < self.window()
        {
            self.seal(now, false);
        }
    }

    fn window(&self) -> usize {
        usize::try_from(self.config.window).unwrap_or(usize::MAX)
    }

    /// Ends the open batch and gives it its number.
    fn seal(&mut self, now: Now, for_flush: bool) {
        if self.open.is_empty() {
            return;
        }
        let open = std::mem::take(&mut self.open);
        let opened_at = open.opened_at.unwrap_or(now.monotonic);
        self.open_payload_bytes = 0;
        self.open_areas = self.open_areas.take().map(|_| IntervalMap::default());
        let for_flush = for_flush || std::mem::take(&mut self.open_wanted);
        self.open_wanted = false;
        let held_bytes = open.held_bytes;
        let extents = open.extents();
        let (entries, payload) = open.seal();
        let identity = self.identity(self.next_number);
        let journal = self.journal.as_ref().map(Journal::position);
        let header = Header { identity, sealed_unix_ms: now.unix_ms, journal, entries };
        let batch =
            Arc::new(SealedBatch { header, format: self.append_format(), payload, held_bytes, for_flush });
        self.sealed.push_back(InFlight { batch, extents, uploaded: false, opened_at });
        self.next_number = self.next_number.next();
    }

    fn identity(&self, number: SequenceNumber) -> ObjectIdentity {
        let Config { volume, epoch, writer, .. } = self.config;
        ObjectIdentity { volume, epoch, writer, number }
    }

    /// Asks for the uploads that window and ceiling allow, in order of number.
    fn ask_for_uploads(&mut self) {
        let mut uploading = self.uploads_in_flight();
        while uploading < self.config.uploads_max && self.asked < self.sealed.len().min(self.window()) {
            self.actions.push_back(Action::Upload(self.sealed[self.asked].batch.clone()));
            self.asked += 1;
            uploading += 1;
        }
    }

    fn uploaded(&mut self, now: Now, number: SequenceNumber) {
        let at = self.place_in_line(number);
        self.sealed[at].uploaded = true;
        let durable = self.sealed.iter().skip(self.place_in_line(self.first_incomplete));
        let durable = durable.take_while(|batch| batch.uploaded).map(|batch| batch.batch.clone());
        for batch in durable.collect::<Vec<_>>() {
            self.durable(&batch);
        }
        self.apply_durable(now);
        self.evict();
    }

    /// Where in `sealed` the batch with a number is.
    fn place_in_line(&self, number: SequenceNumber) -> usize {
        let first = self.next_number.0 - self.sealed.len() as u64;
        usize::try_from(number.0 - first).expect("the window is small")
    }

    /// The first incomplete batch is durable: answers who waits for it.
    fn durable(&mut self, batch: &SealedBatch) {
        let number = batch.header.identity.number;
        assert_eq!(number, self.first_incomplete, "batches become durable in order");
        self.first_incomplete = number.next();
        self.last_durable = Some(number);
        let mut answered = self.durable_waiters.remove(&number).unwrap_or_default();
        if let (Some(journal), Some(position)) = (&mut self.journal, batch.header.journal) {
            let record = position.record;
            answered.extend(journal.holds(record));
            self.actions.push_back(Action::ReleaseJournal { record });
        }
        for id in answered {
            self.complete(id, Outcome::Done);
        }
    }

    /// Moves durable batches from the overlay into the map, in order, as far as its regions are in memory.
    fn apply_durable(&mut self, now: Now) {
        while let Some(first) = self.sealed.front()
            && first.batch.header.identity.number < self.first_incomplete
        {
            let batch = first.batch.clone();
            if self.prefix.advance(&batch.header, batch.format, &mut self.progress).is_err() {
                for region in self.prefix.needs(&batch.header, &self.progress, REGIONS_AHEAD) {
                    self.want_region(region);
                }
                break;
            }
            self.progress = Progress::default();
            let done = self.sealed.pop_front().expect("there is a front");
            self.asked -= 1;
            let number = batch.header.identity.number;
            for extent in &done.extents {
                self.overlay.remove_runs_if(*extent, |buffered| buffered.number == number);
            }
            self.buffered_bytes -= batch.held_bytes;
        }
        self.ask_for_owed();
        self.admit(now);
    }

    fn cancel(&mut self, now: Now, id: RequestId) {
        if let Some(at) = self.waiting.iter().position(|mutation| mutation.id == id) {
            self.waiting.remove(at);
        } else if self.merging.contains_key(&id) {
            let mutation = self.release(id);
            self.buffered_bytes -= mutation.held_bytes();
        } else {
            let waits = self.durable_waiters.values_mut().any(|ids| {
                let before = ids.len();
                ids.retain(|waiter| *waiter != id);
                ids.len() < before
            });
            if waits || self.journal.as_mut().is_some_and(|journal| journal.forget(id)) {
                self.complete(id, Outcome::Cancelled { applied: true });
            }
            return; // completed already, otherwise
        }
        self.complete(id, Outcome::Cancelled { applied: false });
        self.admit(now);
    }

    /// Ends everything that waits: nothing of it can become durable by this writer.
    fn fence(&mut self) {
        self.fenced = true;
        let waiting = std::mem::take(&mut self.waiting);
        let merging = std::mem::take(&mut self.merging);
        let durable = std::mem::take(&mut self.durable_waiters);
        let ids = waiting.iter().map(|mutation| mutation.id);
        let journal = self.journal.as_mut().map(Journal::take_waiters).unwrap_or_default();
        let ids = ids.chain(merging.into_keys()).chain(durable.into_values().flatten()).chain(journal);
        let ids = ids.collect::<Vec<_>>();
        for id in ids {
            self.complete(id, Outcome::Fenced);
        }
    }
}

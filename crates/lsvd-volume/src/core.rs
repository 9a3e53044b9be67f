//! The rim of the engine: hands it what happens, does what it asks for, and wakes who waits.
//!
//! One lock around the engine, held for its own steps only, never over I/O or copies of payloads. Knows no order of
//! writes: the engine does.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use lsvd_engine::{
    Action, Config, Engine, Event, Move, Now, ObjectRecord, ObjectTotals, Outcome, Place, PlanPiece, Request,
    RequestId, Tail, moved_bytes,
};
use lsvd_format::checkpoint::RegionIndex;
use lsvd_format::{BLOCK_BYTES, Epoch, SequenceNumber, SuperblockNumber, VolumeId, WriterId, names};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::fetch::Fetcher;
use crate::journal::JournalQueue;
use crate::named::NamedState;
use crate::recovery::recover_newest;
use crate::regions::read_regions;
use crate::root::newest_readable;
use crate::store::VolumeStore;
use crate::tasks::Tasks;
use crate::upload::upload;
use crate::volume::{ExtentStatus, Piece, Stats};
use crate::{Environment, Error};

/// How long a client's requests are served before somebody looks for a newer writer again, when no upload of this one
/// has shown it. A listing each half minute of activity costs about 5 US dollars a year at S3's prices of 2026.
const FENCE_CHECK_EVERY: Duration = Duration::from_secs(30);

/// How old what only the journal holds may get before it is said, and how often it is looked at.
const LAG_TOLD_FROM: Duration = Duration::from_secs(20);
const LAG_LOOK_EVERY: Duration = Duration::from_secs(5);

/// Wait between tries to read a region of the map when the store has failed for longer than its own retries last.
const LOAD_RETRY_FIRST: Duration = Duration::from_millis(500);
const LOAD_RETRY_MAX: Duration = Duration::from_secs(5);

/// How often a read is planned again because what it referred to was deleted.
const PLANS_MAX: u32 = 3;

/// What is behind the lock.
struct State {
    engine: Engine,
    next_id: u64,
    waiters: BTreeMap<RequestId, Waiter>,
    /// Who waits for a region of the map.
    region_waiters: BTreeMap<RegionIndex, Vec<oneshot::Sender<Result<(), Error>>>>,
    /// Why objects can not be stored now, by their numbers.
    upload_errors: BTreeMap<SequenceNumber, Error>,
    deadline: Option<Duration>,
    fence_checked: Duration,
}

/// Who waits for an answer.
struct Waiter {
    sender: oneshot::Sender<(Outcome, Option<Error>)>,
    /// Why a block that is changed in part could not be read.
    base_error: Option<Error>,
}

pub(crate) struct Core {
    state: Mutex<State>,
    store: VolumeStore,
    fetcher: Arc<Fetcher>,
    tasks: Tasks,
    environment: Environment,
    /// A writer's superblock: it looks for another's version above its own; a reader does not look.
    named: Option<NamedState>,
    /// Last number of the log when it was opened.
    durable_at_opening: SequenceNumber,
    opened_at: Instant,
    io_timeout: Duration,
    /// When the last object was stored, in milliseconds since the opening.
    progress_ms: AtomicU64,
    deadline_changed: Notify,
    ended: watch::Sender<Option<Error>>,
    size_bytes: u64,
    volume_id: VolumeId,
    epoch: Epoch,
    writer: WriterId,
    journal: Option<Arc<JournalQueue>>,
    /// `None` for a writer.
    reader: Option<Reader>,
    objects_written: AtomicU64,
    bytes_written: AtomicU64,
    checkpoints: AtomicU64,
    reloads: AtomicU64,
    moved_bytes: AtomicU64,
}

/// What a volume that is open for reading needs to go on when it is behind.
pub(crate) struct Reader {
    config: Config,
    /// The superblock version that it last read.
    as_of: AtomicU64,
    newest: tokio::sync::Mutex<SuperblockNumber>,
}

impl Reader {
    pub(crate) fn new(config: Config, as_of: SuperblockNumber) -> Self {
        Self { config, as_of: AtomicU64::new(as_of.0), newest: tokio::sync::Mutex::new(as_of) }
    }

    fn as_of(&self) -> SuperblockNumber {
        SuperblockNumber(self.as_of.load(Ordering::Acquire))
    }
}

/// What a core is made of.
pub(crate) struct Parts {
    pub(crate) engine: Engine,
    pub(crate) store: VolumeStore,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) tasks: Tasks,
    pub(crate) environment: Environment,
    pub(crate) named: Option<NamedState>,
    pub(crate) epoch: Epoch,
    pub(crate) writer: WriterId,
    pub(crate) durable_at_opening: SequenceNumber,
    pub(crate) io_timeout: Duration,
    pub(crate) size_bytes: u64,
    pub(crate) volume_id: VolumeId,
    pub(crate) journal: Option<Arc<JournalQueue>>,
    pub(crate) reader: Option<Reader>,
}

impl Core {
    /// Puts the parts together and starts the clock of the batches' ages.
    pub(crate) fn start(parts: Parts) -> Arc<Self> {
        let Parts {
            engine,
            store,
            fetcher,
            tasks,
            environment,
            named,
            epoch,
            writer,
            durable_at_opening,
            io_timeout,
            size_bytes,
            volume_id,
            journal,
            reader,
        } = parts;
        let state = State {
            engine,
            next_id: 0,
            waiters: BTreeMap::new(),
            region_waiters: BTreeMap::new(),
            upload_errors: BTreeMap::new(),
            deadline: None,
            fence_checked: Duration::ZERO,
        };
        let core = Arc::new(Self {
            state: Mutex::new(state),
            store,
            fetcher,
            tasks,
            environment,
            named,
            epoch,
            writer,
            durable_at_opening,
            opened_at: Instant::now(),
            io_timeout,
            progress_ms: AtomicU64::new(0),
            deadline_changed: Notify::new(),
            ended: watch::Sender::new(None),
            size_bytes,
            volume_id,
            journal,
            reader,
            objects_written: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
            moved_bytes: AtomicU64::new(0),
        });
        core.tasks.spawn(tick(core.clone()));
        if core.journal.is_some() {
            core.tasks.spawn(tell_the_lag(core.clone()));
        }
        core
    }

    pub(crate) fn store(&self) -> &VolumeStore {
        &self.store
    }

    pub(crate) fn fetcher(&self) -> &Arc<Fetcher> {
        &self.fetcher
    }

    /// What the journal's thread is asked for; `None` without a journal.
    pub(crate) fn journal(&self) -> Option<&Arc<JournalQueue>> {
        self.journal.as_ref()
    }

    /// Has the engine do something that asks for nothing at once: no actions come of it.
    pub(crate) fn engine<T>(&self, act: impl FnOnce(&mut Engine) -> T) -> T {
        act(&mut self.lock().engine)
    }

    /// Hands collected blocks to the engine and waits until they are durable.
    pub(crate) async fn collected(
        self: &Arc<Self>,
        moves: Vec<Move>,
        payload: Vec<Bytes>,
    ) -> Result<(), Error> {
        self.check_ended()?;
        let moved_bytes = moved_bytes(&moves);
        let (sender, receiver) = oneshot::channel();
        let now = self.now();
        let actions = {
            let mut state = self.lock();
            state.next_id += 1;
            let id = RequestId(state.next_id);
            state.waiters.insert(id, Waiter { sender, base_error: None });
            state.engine.handle(now, Event::Collected { id, moves, payload });
            self.drain(&mut state)
        };
        self.act(actions);
        match receiver.await {
            Ok((outcome, base_error)) => self.outcome(outcome, base_error)?,
            Err(_) => return Err(Error::Closed { volume: self.store.label() }),
        }
        self.moved_bytes.fetch_add(moved_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Sums over the log's objects.
    pub(crate) fn totals(&self) -> ObjectTotals {
        self.lock().engine.totals()
    }

    /// Whether a client waits for durability.
    pub(crate) fn is_flush_awaited(&self) -> bool {
        self.lock().engine.is_durability_awaited()
    }

    pub(crate) fn wrote_checkpoint(&self) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
    }

    /// What the next checkpoint would hold.
    pub(crate) fn tail(&self) -> Tail {
        self.lock().engine.prefix().tail()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn writer(&self) -> WriterId {
        self.writer
    }

    pub(crate) fn volume_id(&self) -> VolumeId {
        self.volume_id
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Runs a task that ends with the volume.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    pub(crate) fn ended(&self) -> watch::Receiver<Option<Error>> {
        self.ended.subscribe()
    }

    /// The error that ended the volume, if one did.
    pub(crate) fn check_ended(&self) -> Result<(), Error> {
        self.ended.borrow().clone().map_or(Ok(()), Err)
    }

    /// Ends the volume for good: all that waits and all that comes gets this error.
    pub(crate) fn end(self: &Arc<Self>, error: Error) {
        let first = self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(error.clone());
            }
            first
        });
        if first {
            if !matches!(error, Error::Closed { .. }) {
                tracing::error!("{error}");
            }
            self.event(Event::Fenced);
            self.tasks.stop();
            if let Some(journal) = &self.journal {
                journal.end();
            }
        }
    }

    /// An upload fails and is tried again.
    pub(crate) fn upload_fails(&self, number: SequenceNumber, error: Error) {
        self.lock().upload_errors.insert(number, error);
    }

    /// An upload that may have failed before has succeeded.
    pub(crate) fn upload_succeeded(&self, number: SequenceNumber) {
        let since = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress_ms.fetch_max(since, Ordering::Relaxed);
        self.lock().upload_errors.remove(&number);
    }

    pub(crate) fn wrote(&self, object_bytes: u64) {
        self.objects_written.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(object_bytes, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The engine's own assertions are the only panics under this lock; what is behind it is then not to be trusted.
        self.state.lock().expect("the engine keeps its invariants")
    }

    fn now(&self) -> Now {
        Now { monotonic: self.opened_at.elapsed(), unix_ms: (self.environment.now_unix_ms)() }
    }

    /// Hands an event to the engine and does what it asks for.
    pub(crate) fn event(self: &Arc<Self>, event: Event) {
        let now = self.now();
        let mut state = self.lock();
        state.engine.handle(now, event);
        let actions = self.drain(&mut state);
        drop(state);
        self.act(actions);
    }

    fn drain(&self, state: &mut State) -> VecDeque<Action> {
        let mut actions = VecDeque::new();
        while let Some(action) = state.engine.next_action() {
            match action {
                Action::Complete { id, outcome } => {
                    if let Some(waiter) = state.waiters.remove(&id) {
                        // A client that has gone needs no answer.
                        let _ = waiter.sender.send((outcome, waiter.base_error));
                    }
                }
                // Under the lock, so that records are queued in their order.
                Action::Journal { record, extent, content } => self.queue().write(record, extent, content),
                Action::SyncJournal { record } => self.queue().sync(record),
                Action::ReleaseJournal { record } => self.queue().release(record),
                Action::Upload(_) | Action::ReadBase { .. } | Action::LoadRegion { .. } => {
                    actions.push_back(action)
                }
            }
        }
        let deadline = state.engine.next_deadline();
        if deadline != state.deadline {
            state.deadline = deadline;
            self.deadline_changed.notify_one();
        }
        actions
    }

    fn queue(&self) -> &JournalQueue {
        self.journal.as_ref().expect("only an engine with a journal asks for it")
    }

    fn act(self: &Arc<Self>, actions: VecDeque<Action>) {
        for action in actions {
            match action {
                Action::Upload(batch) => self.tasks.spawn(upload(self.clone(), batch)),
                Action::ReadBase { id, block, location } => {
                    let core = self.clone();
                    let record = self.lock().engine.object(location.object);
                    self.tasks.spawn(async move {
                        let read = core.fetcher.read(record, location.ordinal, 1).await;
                        let base = match read {
                            Ok(pieces) => pieces.into_iter().next(),
                            Err(error) => {
                                if let Some(waiter) = core.lock().waiters.get_mut(&id) {
                                    waiter.base_error = Some(error);
                                }
                                None
                            }
                        };
                        core.event(Event::BaseRead { id, block, base });
                    });
                }
                Action::LoadRegion { region, place } => {
                    self.tasks.spawn(load_region(self.clone(), region, place))
                }
                Action::Complete { .. }
                | Action::Journal { .. }
                | Action::SyncJournal { .. }
                | Action::ReleaseJournal { .. } => unreachable!("it is done under the lock"),
            }
        }
    }

    /// Submits a mutation or a flush and waits until it is answered.
    pub(crate) async fn request(self: &Arc<Self>, request: Request) -> Result<(), Error> {
        self.check_ended()?;
        let (sender, mut receiver) = oneshot::channel();
        let now = self.now();
        let (id, actions) = {
            let mut state = self.lock();
            state.next_id += 1;
            let id = RequestId(state.next_id);
            state.waiters.insert(id, Waiter { sender, base_error: None });
            state.engine.handle(now, Event::Submit { id, request });
            (id, self.drain(&mut state))
        };
        self.act(actions);
        self.check_fence_sometimes(now.monotonic);
        // Most writes are answered by now; only those that wait need a guard and a timer.
        if let Ok((outcome, base_error)) = receiver.try_recv() {
            return self.outcome(outcome, base_error);
        }
        let mut abandoned = Abandoned { core: self, id, armed: true };
        let mut patient_until = Instant::now() + self.io_timeout;
        let outcome = loop {
            match tokio::time::timeout_at(patient_until, &mut receiver).await {
                Ok(outcome) => break outcome,
                // A slow line is not a dead one: as long as objects are stored, this one's turn comes.
                Err(_) if self.last_progress() + self.io_timeout > patient_until => {
                    patient_until = self.last_progress() + self.io_timeout;
                }
                Err(_) => {
                    self.event(Event::Cancel { id });
                    break receiver.await;
                }
            }
        };
        abandoned.armed = false;
        match outcome {
            Ok((outcome, base_error)) => self.outcome(outcome, base_error),
            Err(_) => Err(Error::Closed { volume: self.store.label() }),
        }
    }

    fn last_progress(&self) -> Instant {
        self.opened_at + Duration::from_millis(self.progress_ms.load(Ordering::Relaxed))
    }

    fn outcome(&self, outcome: Outcome, base_error: Option<Error>) -> Result<(), Error> {
        match outcome {
            Outcome::Done => Ok(()),
            Outcome::BaseUnreadable => Err(base_error.unwrap_or_else(|| self.timed_out())),
            Outcome::Cancelled { .. } => {
                // The store's own words are better than "it took too long".
                let upload_error = self.lock().upload_errors.values().next().cloned();
                Err(upload_error.unwrap_or_else(|| self.timed_out()))
            }
            Outcome::Fenced => {
                self.check_ended()?;
                Err(Error::Fenced { volume: self.store.label(), epoch: None })
            }
        }
    }

    fn timed_out(&self) -> Error {
        Error::TimedOut { volume: self.store.label(), after: self.io_timeout }
    }

    /// Reads a range that was checked.
    pub(crate) async fn read(
        self: &Arc<Self>,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Vec<Piece>, Error> {
        self.check_ended()?;
        self.check_fence_sometimes(self.opened_at.elapsed());
        let mut tries = 0;
        loop {
            let plan = self.plan(offset_bytes, length_bytes).await?;
            let read = tokio::time::timeout(self.io_timeout, self.fetch(&plan)).await;
            // First: why the volume ended says more than that its fetches were stopped.
            self.check_ended()?;
            match read.map_err(|_| self.timed_out())? {
                // What this plan still referred to was moved and deleted since, which takes longer than any read should:
                // the next plan knows where it is now.
                Err(Error::Missing { object, .. }) if tries < PLANS_MAX => {
                    tries += 1;
                    tracing::warn!(volume = %self.store.label(), %object, "it is not there any more; the read is planned again");
                    self.reload().await?;
                }
                // A late fence of a writer that lost may lie in its place by now.
                Err(Error::Corrupt { object, .. }) if tries < PLANS_MAX && self.is_behind().await => {
                    tries += 1;
                    tracing::warn!(volume = %self.store.label(), %object, "it is not as planned; the read is planned again");
                    self.reload().await?;
                }
                read => return read,
            }
        }
    }

    /// Where the bytes of a range are, with what is to be known of the objects.
    async fn plan(
        self: &Arc<Self>,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Vec<(Option<ObjectRecord>, PlanPiece)>, Error> {
        let plan = self.with_regions(|engine| {
            engine.touch(offset_bytes, length_bytes);
            let plan = engine.plan_read(offset_bytes, length_bytes)?;
            let with_record = |piece| match piece {
                PlanPiece::Stored { object, .. } => (Some(engine.object(object)), piece),
                PlanPiece::Buffered(_) | PlanPiece::Zeroes(_) => (None, piece),
            };
            Ok(plan.into_iter().map(with_record).collect())
        });
        plan.await
    }

    async fn fetch(
        self: &Arc<Self>,
        plan: &[(Option<ObjectRecord>, PlanPiece)],
    ) -> Result<Vec<Piece>, Error> {
        let reads = plan.iter().map(async |(record, piece)| match (record, piece) {
            (_, PlanPiece::Buffered(bytes)) => Ok(vec![Piece::Data(bytes.clone())]),
            (_, PlanPiece::Zeroes(bytes)) => Ok(vec![Piece::Zeroes(*bytes)]),
            (Some(record), PlanPiece::Stored { ordinal, blocks, skip_bytes, length_bytes, .. }) => {
                let blocks = self.fetcher.read(*record, *ordinal, *blocks).await?;
                Ok(cut(blocks, u64::from(*skip_bytes), *length_bytes))
            }
            (None, PlanPiece::Stored { .. }) => unreachable!("every stored piece has its record"),
        });
        let pieces = futures::future::try_join_all(reads).await?;
        Ok(pieces.into_iter().flatten().collect())
    }

    /// Whether a reader's superblock is not the newest any more.
    async fn is_behind(&self) -> bool {
        let Some(reader) = &self.reader else { return false };
        let newest = newest_readable(&self.store, true).await;
        newest.is_ok_and(|(number, _)| number > reader.as_of())
    }

    /// A reader that is behind reads superblock, checkpoint and log again (rule 7). A writer is never behind.
    async fn reload(&self) -> Result<(), Error> {
        let Some(reader) = &self.reader else { return Ok(()) };
        let before = reader.as_of();
        let mut newest = reader.newest.lock().await;
        if *newest > before {
            return Ok(()); // somebody else did, meanwhile
        }
        let (number, prefix) = recover_newest(&self.store).await?;
        let next = prefix.log().next;
        let engine = Engine::new(reader.config.clone(), prefix);
        self.engine(|old| *old = engine);
        *newest = number;
        reader.as_of.store(number.0, Ordering::Release);
        self.reloads.fetch_add(1, Ordering::Relaxed);
        tracing::info!(volume = %self.store.label(), "a reader that was behind goes on as of the object before number {next}");
        Ok(())
    }

    pub(crate) async fn block_status(
        self: &Arc<Self>,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Vec<ExtentStatus>, Error> {
        self.check_ended()?;
        let statuses = self.with_regions(|engine| engine.status(offset_bytes, length_bytes)).await?;
        let status = |status: lsvd_engine::Status| ExtentStatus {
            length_bytes: status.length_bytes,
            hole: status.hole,
            zero: status.zero,
        };
        Ok(statuses.into_iter().map(status).collect())
    }

    /// Asks the engine for what needs regions of the map, and loads those that are absent until it has its answer.
    pub(crate) async fn with_regions<T>(
        self: &Arc<Self>,
        mut ask: impl FnMut(&mut Engine) -> Result<T, Vec<RegionIndex>>,
    ) -> Result<T, Error> {
        let mut pins = Pins { core: self, regions: Vec::new() };
        let mut tries = 0;
        loop {
            let (waits, actions) = {
                let mut state = self.lock();
                let absent = match ask(&mut state.engine) {
                    Ok(answer) => return Ok(answer),
                    Err(absent) => absent,
                };
                let now = self.now();
                let waits = absent.into_iter().map(|region| {
                    let (sender, receiver) = oneshot::channel();
                    state.region_waiters.entry(region).or_default().push(sender);
                    state.engine.pin(region);
                    pins.regions.push(region);
                    state.engine.handle(now, Event::RegionWanted { region });
                    receiver
                });
                let waits = waits.collect::<Vec<_>>();
                (waits, self.drain(&mut state))
            };
            self.act(actions);
            let all = tokio::time::timeout(self.io_timeout, futures::future::join_all(waits)).await;
            self.check_ended()?;
            for loaded in all.map_err(|_| self.timed_out())? {
                // The sender goes away unused only if the volume ends.
                match loaded.map_err(|_| Error::Closed { volume: self.store.label() })? {
                    Err(Error::Missing { object, .. } | Error::Corrupt { object, .. })
                        if self.reader.is_some() && tries < PLANS_MAX =>
                    {
                        tries += 1;
                        tracing::warn!(volume = %self.store.label(), %object, "it is not there any more");
                        self.reload().await?;
                        break;
                    }
                    loaded => loaded?,
                }
            }
        }
    }

    /// Whether nobody waits and the store has all that was accepted.
    pub(crate) fn is_drained(&self) -> bool {
        let state = self.lock();
        state.waiters.is_empty() && state.engine.buffered_bytes() == 0
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.lock();
        let engine = &state.engine;
        let fetch = &self.fetcher.stats;
        Stats {
            buffered_bytes: engine.buffered_bytes(),
            buffered_for: engine
                .buffered_since()
                .map_or(Duration::ZERO, |since| self.opened_at.elapsed().saturating_sub(since)),
            uploads_in_flight: engine.uploads_in_flight() as u64,
            objects_written: self.objects_written.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            fetches: fetch.fetches.load(Ordering::Relaxed),
            bytes_fetched: fetch.bytes_fetched.load(Ordering::Relaxed),
            cache_hits: fetch.cache_hits.load(Ordering::Relaxed),
            corrupt_reads: fetch.corrupt_reads.load(Ordering::Relaxed),
            reloads: self.reloads.load(Ordering::Relaxed),
            map_extents: engine.map_extents() as u64,
            map_bytes: engine.map_bytes(),
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
            moved_bytes: self.moved_bytes.load(Ordering::Relaxed),
            log_objects: engine.totals().objects,
            log_bytes: engine.totals().object_bytes,
            live_bytes: engine.totals().live_blocks * BLOCK_BYTES,
            durable_number: engine.last_durable().unwrap_or(self.durable_at_opening).0,
        }
    }

    /// Looks for a newer writer now and then: one that only reads would not notice it by its uploads.
    fn check_fence_sometimes(self: &Arc<Self>, now: Duration) {
        let Some(named) = self.named.clone() else { return };
        {
            let mut state = self.lock();
            if now < state.fence_checked + FENCE_CHECK_EVERY {
                return;
            }
            state.fence_checked = now;
        }
        let core = self.clone();
        self.tasks.spawn(async move {
            // What can not be listed now is looked at again after the next interval.
            if let Err(error @ Error::Fenced { .. }) = named.check_newest().await {
                core.end(error);
            }
        });
    }
}

/// Regions that are kept in memory for a plan.
struct Pins<'a> {
    core: &'a Core,
    regions: Vec<RegionIndex>,
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        if !self.regions.is_empty() && !self.core.state.is_poisoned() {
            self.core.engine(|engine| self.regions.iter().for_each(|region| engine.unpin(*region)));
        }
    }
}

/// Tells the engine when a client gives a request up before it is answered.
struct Abandoned<'a> {
    core: &'a Arc<Core>,
    id: RequestId,
    armed: bool,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        // A second panic while the first one unwinds would end the whole process.
        if self.armed && !self.core.state.is_poisoned() {
            self.core.event(Event::Cancel { id: self.id });
        }
    }
}

/// Loads a region of the map, however long that takes, and tells who waits for it what hinders it.
async fn load_region(core: Arc<Core>, region: RegionIndex, place: Place) {
    let mut wait = LOAD_RETRY_FIRST;
    let content = loop {
        let read =
            read_regions(&core.store, core.volume_id, vec![(region, place)]).await.and_then(|loaded| {
                let content = loaded.into_iter().next().map(|(.., content)| content).unwrap_or_default();
                // A reader that went on as of a newer state meanwhile has no use for it.
                let checked = core.engine(|engine| match engine.prefix().find_place(region) {
                    Some(now) if now == place => engine.prefix().check_region(&content),
                    _ => Ok(()),
                });
                let corrupt =
                    |reason: String| core.store.corrupt(names::checkpoint_part(&place.part), reason);
                checked.map(|()| content).map_err(corrupt)
            });
        match read {
            Ok(content) => break content,
            Err(error) => {
                let waiters = core.lock().region_waiters.remove(&region).unwrap_or_default();
                for waiter in waiters {
                    // A reader that has gone needs no answer.
                    let _ = waiter.send(Err(error.clone()));
                }
                if core.reader.is_some() {
                    // It may be behind, and then needs another place.
                    return core.engine(|engine| engine.region_failed(region));
                }
                tracing::error!("a region of the map is read again in {} ms: {error}", wait.as_millis());
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LOAD_RETRY_MAX);
            }
        }
    };
    core.event(Event::RegionLoaded { region, place, content });
    for waiter in core.lock().region_waiters.remove(&region).unwrap_or_default() {
        let _ = waiter.send(Ok(()));
    }
}

/// Seals batches when they are old enough.
async fn tick(core: Arc<Core>) {
    loop {
        let deadline = core.lock().engine.next_deadline();
        match deadline {
            None => core.deadline_changed.notified().await,
            Some(deadline) => {
                let at = core.opened_at + deadline;
                // A deadline that has moved is looked at again when the old one is due: it only ever moves later.
                tokio::time::sleep_until(at).await;
                core.event(Event::Tick);
            }
        }
    }
}

/// Says when what only the journal holds gets old: twice as old each time.
async fn tell_the_lag(core: Arc<Core>) {
    let mut told = LAG_TOLD_FROM / 2;
    loop {
        tokio::time::sleep(LAG_LOOK_EVERY).await;
        let Stats { buffered_bytes, buffered_for, .. } = core.stats();
        if buffered_for >= told * 2 {
            told = buffered_for;
            let seconds = buffered_for.as_secs();
            tracing::warn!(
                volume = %core.store.label(), buffered_bytes, seconds, "only the journal holds this: the store is behind"
            );
        } else if buffered_for < LAG_TOLD_FROM / 2 && told > LAG_TOLD_FROM {
            told = LAG_TOLD_FROM / 2;
            tracing::info!(volume = %core.store.label(), buffered_bytes, "the store has caught up with the journal");
        }
    }
}

/// Cuts whole blocks to the bytes that were asked for.
fn cut(blocks: Vec<Bytes>, skip_bytes: u64, length_bytes: u64) -> Vec<Piece> {
    let mut skip = usize::try_from(skip_bytes).expect("less than a block");
    let mut left = usize::try_from(length_bytes).expect("a read is in memory");
    let mut pieces = Vec::with_capacity(blocks.len());
    for blocks in blocks {
        let taken = left.min(blocks.len() - skip);
        pieces.push(Piece::Data(blocks.slice(skip..skip + taken)));
        left -= taken;
        skip = 0;
    }
    pieces
}

//! The rim of the engine: hands it what happens, does what it asks for, and wakes who waits.
//!
//! One lock around the engine, held for its own steps only, never over I/O or copies of payloads. Knows no order of
//! writes: the engine does.

mod read;
mod seal;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lsvd_engine::{
    Action, Choice, Engine, Event, Live, Move, Now, ObjectState, ObjectTotals, Outcome, Request, RequestId,
    Tail, moved_bytes,
};
use lsvd_format::checkpoint::RegionIndex;
use lsvd_format::{BLOCK_BYTES, BlockIndex, Epoch, Extent, SequenceNumber, VolumeId, WriterId};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::fetch::Fetcher;
use crate::journal::JournalQueue;
use crate::mend::Wounds;
use crate::named::NamedState;
use crate::pressure::{Bounds, Pressure};
use crate::store::VolumeStore;
use crate::tasks::Tasks;
use crate::upload::upload;
use crate::volume::Stats;
use crate::{CollectOptions, Environment, Error};

pub(crate) use read::Reader;
use read::load_region;

/// How long a client's requests are served before somebody looks for a newer writer again, when no upload of this one
/// has shown it. A listing each half minute of activity costs about 5 US dollars a year at S3's prices of 2026.
const FENCE_CHECK_EVERY: Duration = Duration::from_secs(30);

/// How old what only the journal holds may get before it is said, and how often it is looked at.
const LAG_TOLD_FROM: Duration = Duration::from_secs(20);
const LAG_LOOK_EVERY: Duration = Duration::from_secs(5);

/// Objects that are looked at under one hold of the engine's lock.
const OBJECTS_AT_ONCE: usize = 4 << 10;

/// A write waits for collection this part of the time that it waits for a store, at most.
const SLOWED_SHARE: u32 = 4;

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

/// What a request has to lie within.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// The volume as large as it is.
    Size,
    /// Any volume.
    Anything,
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
    /// How clients are slowed down for collection.
    pressure: Mutex<Pressure>,
    target: f64,
    slowed_us: AtomicU64,
    deadline_changed: Notify,
    ended: watch::Sender<Option<Error>>,
    /// The size now. It changes under the engine's lock alone, so that what is handed to the engine is within it.
    size_bytes: AtomicU64,
    volume_id: VolumeId,
    epoch: Epoch,
    writer: WriterId,
    journal: Option<Arc<JournalQueue>>,
    answers_flushes: bool,
    /// `None` for a writer.
    reader: Option<Reader>,
    wounds: Mutex<Wounds>,
    objects_written: AtomicU64,
    bytes_written: AtomicU64,
    checkpoints: AtomicU64,
    warned_of_index: AtomicBool,
    reloads: AtomicU64,
    moved_bytes: AtomicU64,
    deleted_objects: AtomicU64,
    deleted_bytes: AtomicU64,
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
    pub(crate) collect: CollectOptions,
    pub(crate) size_bytes: u64,
    pub(crate) volume_id: VolumeId,
    pub(crate) journal: Option<Arc<JournalQueue>>,
    pub(crate) answers_flushes: bool,
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
            collect,
            size_bytes,
            volume_id,
            journal,
            answers_flushes,
            reader,
        } = parts;
        let bounds = Bounds { slow_above: collect.slow_above, stop_above: collect.stop_above };
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
            pressure: Mutex::new(Pressure::new(bounds)),
            target: collect.target,
            slowed_us: AtomicU64::new(0),
            deadline_changed: Notify::new(),
            ended: watch::Sender::new(None),
            size_bytes: AtomicU64::new(size_bytes),
            volume_id,
            journal,
            answers_flushes,
            reader,
            wounds: Mutex::default(),
            objects_written: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            warned_of_index: AtomicBool::new(false),
            reloads: AtomicU64::new(0),
            moved_bytes: AtomicU64::new(0),
            deleted_objects: AtomicU64::new(0),
            deleted_bytes: AtomicU64::new(0),
        });
        core.tasks.spawn(tick(core.clone()));
        if answers_flushes {
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

    /// Whether a flush means the journal.
    pub(crate) fn answers_flushes(&self) -> bool {
        self.answers_flushes
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

    /// Calls `each` for all of the volume's own objects, and none of its parents', a few under one hold of the engine's lock:
    /// what changes meanwhile is seen as it is then.
    pub(crate) fn each_own_object(&self, mut each: impl FnMut(&ObjectState)) {
        for from in (0..).step_by(OBJECTS_AT_ONCE) {
            let more = self.engine(|engine| {
                let objects = engine.prefix().objects();
                let some = objects.slots().iter(from..from + OBJECTS_AT_ONCE);
                some.filter(|(index, _)| !objects.is_shared(*index)).for_each(|(_, state)| each(&state));
                from + OBJECTS_AT_ONCE < objects.slots().len()
            });
            if !more {
                return;
            }
        }
    }

    /// Forgets the parents' objects for which `may_go` says so, a few under one hold of the engine's lock. Of these nothing is
    /// live.
    pub(crate) fn forget_shared(&self, may_go: impl Fn(&ObjectState) -> bool) {
        let mut next = Some(SequenceNumber(0));
        while let Some(from) = next {
            next = self.engine(|engine| {
                let shared = engine.prefix().objects().shared_from(from).map(|(_, state)| state);
                let some: Vec<ObjectState> = shared.take(OBJECTS_AT_ONCE).collect();
                for state in some.iter().filter(|state| may_go(state)) {
                    engine.forget(state.record.identity.number);
                }
                let last = some.last().map(|state| state.record.identity.number.next());
                last.filter(|_| some.len() == OBJECTS_AT_ONCE)
            });
        }
    }

    /// The objects that are best worth collecting, but those with these numbers.
    pub(crate) fn choose(&self, mut choice: Choice, but: &BTreeSet<SequenceNumber>) -> Choice {
        while self.engine(|engine| engine.look_for_victims(&mut choice, OBJECTS_AT_ONCE, but)) {}
        choice
    }

    /// Sums over the log's objects.
    pub(crate) fn totals(&self) -> ObjectTotals {
        self.lock().engine.totals()
    }

    /// Bytes of log objects that this opening has deleted.
    pub(crate) fn deleted_bytes(&self) -> u64 {
        self.deleted_bytes.load(Ordering::Relaxed)
    }

    /// How far above its target the volume is, what is accepted and not stored yet included.
    pub(crate) fn above_target(&self) -> f64 {
        let state = self.lock();
        state.engine.totals().amplification_with(state.engine.buffered_bytes()) - self.target
    }

    /// What clients have to wait for collection.
    fn pressure(&self) -> MutexGuard<'_, Pressure> {
        self.pressure.lock().expect("nothing panics under this lock")
    }

    /// Collection gave `bytes` back, which took it so long.
    pub(crate) fn gave_back(&self, bytes: u64, took: Duration) {
        self.pressure().gave_back(self.opened_at.elapsed(), bytes, took);
    }

    /// Collection has nothing to do, or can do nothing: nobody waits for it.
    pub(crate) fn release_pressure(&self) {
        self.pressure().release();
    }

    /// Lets a client's write wait while collection is behind, and says for how long it had to; ends with the volume.
    pub(crate) async fn slow_down(&self, bytes: u64) -> Duration {
        let now = self.opened_at.elapsed();
        if !self.pressure().is_on(now) {
            return Duration::ZERO;
        }
        let above = self.above_target();
        let delay = self.pressure().delay(now, bytes, above, self.io_timeout / SLOWED_SHARE);
        if delay.is_zero() {
            return Duration::ZERO;
        }
        self.slowed_us.fetch_add(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let mut ended = self.ended();
        // Whether it ended is looked at next.
        let _ = tokio::time::timeout(delay, ended.wait_for(Option::is_some)).await;
        delay
    }

    /// What was found damaged.
    pub(crate) fn wounds(&self) -> MutexGuard<'_, Wounds> {
        self.wounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a client waits for durability.
    pub(crate) fn is_flush_awaited(&self) -> bool {
        self.lock().engine.is_durability_awaited()
    }

    /// The store has this dead object no longer.
    pub(crate) fn deleted(&self, number: SequenceNumber) {
        let bytes = self.engine(|engine| {
            let objects = engine.prefix().objects();
            let bytes = objects.find(number).map_or(0, |index| objects.get(index).object_bytes());
            engine.forget(number);
            bytes
        });
        self.deleted_objects.fetch_add(1, Ordering::Relaxed);
        self.deleted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn wrote_checkpoint(&self) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.warn_of_index();
    }

    /// Says once that the index of the map's regions alone takes more than the map may: what it holds is then fetched
    /// more often.
    pub(crate) fn warn_of_index(&self) {
        let (index_bytes, budget_bytes) =
            self.engine(|engine| (engine.map_index_bytes(), engine.map_bytes_max()));
        if index_bytes > budget_bytes && !self.warned_of_index.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                volume = %self.store.label(), index_bytes, budget_bytes,
                "the index of the map's regions takes {index_bytes} bytes of memory, of {budget_bytes} for the map \
                 (--map-memory): regions are fetched more often than need be"
            );
        }
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

    /// The size now, in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    /// Sets the size: what is handed to the engine from here on lies within it.
    pub(crate) fn set_size_bytes(&self, size_bytes: u64) {
        // Who finds the lock poisoned has other worries, and may be unwinding.
        if let Ok(_state) = self.state.lock() {
            self.size_bytes.store(size_bytes, Ordering::Release);
        }
    }

    /// Shrinks if nothing holds data beyond the new end, in one step; otherwise says what does.
    pub(crate) async fn shrink_if_unused(self: &Arc<Self>, beyond: Extent) -> Result<Live, Error> {
        self.with_regions(|engine| {
            let live = engine.live(beyond)?;
            if live.blocks == 0 {
                // The engine's lock is held.
                self.size_bytes.store(beyond.start.offset_bytes(), Ordering::Release);
            }
            Ok(live)
        })
        .await
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

    /// How long the volume has been open.
    pub(crate) fn opened_for(&self) -> Duration {
        self.opened_at.elapsed()
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The wall clock, in milliseconds since 1970.
    pub(crate) fn now_unix_ms(&self) -> u64 {
        (self.environment.now_unix_ms)()
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
        if let Some(journal) = &self.journal {
            journal.hand_in();
        }
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
        self.submit(Duration::ZERO, request, Within::Size).await
    }

    /// The same for one that has waited before.
    pub(crate) async fn request_after(
        self: &Arc<Self>,
        waited: Duration,
        request: Request,
    ) -> Result<(), Error> {
        self.submit(waited, request, Within::Size).await
    }

    /// Discards what lies beyond the size, as a volume that shrinks does.
    pub(crate) async fn discard(self: &Arc<Self>, offset_bytes: u64, length_bytes: u64) -> Result<(), Error> {
        let trim = Request::Trim { offset_bytes, length_bytes, fua: false };
        self.submit(Duration::ZERO, trim, Within::Anything).await
    }

    async fn submit(
        self: &Arc<Self>,
        waited: Duration,
        request: Request,
        within: Within,
    ) -> Result<(), Error> {
        self.check_ended()?;
        let (sender, mut receiver) = oneshot::channel();
        let now = self.now();
        let (id, actions) = {
            let mut state = self.lock();
            let ((offset_bytes, length_bytes), size_bytes) = (request.range_bytes(), self.size_bytes());
            if within == Within::Size && offset_bytes + length_bytes > size_bytes {
                // It passed the gate before the volume shrank.
                return Err(Error::BeyondEnd { offset_bytes, length_bytes, size_bytes });
            }
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
        let mut patient_until = Instant::now() + self.io_timeout.saturating_sub(waited);
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

    /// What a block held before that is changed in part can not be read.
    fn base_failed(self: &Arc<Self>, id: RequestId, block: BlockIndex, error: Error) {
        if let Some(waiter) = self.lock().waiters.get_mut(&id) {
            waiter.base_error = Some(error);
        }
        self.event(Event::BaseRead { id, block, base: None });
    }

    fn last_progress(&self) -> Instant {
        self.opened_at + Duration::from_millis(self.progress_ms.load(Ordering::Relaxed))
    }

    fn outcome(&self, outcome: Outcome, base_error: Option<Error>) -> Result<(), Error> {
        match outcome {
            Outcome::Done => Ok(()),
            Outcome::BaseUnreadable => Err(base_error.unwrap_or_else(|| self.timed_out())),
            Outcome::BaseLost(block) => Err(self.lost(block)),
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

    /// Whether nobody waits and the store has all that was accepted.
    pub(crate) fn is_drained(&self) -> bool {
        let state = self.lock();
        state.waiters.is_empty() && state.engine.buffered_bytes() == 0
    }

    pub(crate) fn stats(&self) -> Stats {
        let cache_bytes = self.fetcher.cache_bytes();
        let (mended_regions, passed_over_objects) = {
            let wounds = self.wounds();
            (wounds.mended, wounds.passed_over.len() as u64)
        };
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
            cache_misses: fetch.cache_misses.load(Ordering::Relaxed),
            cache_bytes,
            corrupt_reads: fetch.corrupt_reads.load(Ordering::Relaxed),
            reloads: self.reloads.load(Ordering::Relaxed),
            mended_regions,
            lost_regions: engine.prefix().lost_regions(),
            passed_over_objects,
            map_extents: engine.map_extents() as u64,
            map_bytes: engine.map_bytes(),
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
            moved_bytes: self.moved_bytes.load(Ordering::Relaxed),
            deleted_objects: self.deleted_objects.load(Ordering::Relaxed),
            deleted_bytes: self.deleted_bytes.load(Ordering::Relaxed),
            slowed_for: Duration::from_micros(self.slowed_us.load(Ordering::Relaxed)),
            log_objects: engine.totals().objects,
            log_bytes: engine.totals().object_bytes,
            dead_bytes: engine.totals().dead_object_bytes,
            live_bytes: engine.totals().shown_bytes(),
            shared_bytes: engine.totals().shared_blocks * BLOCK_BYTES,
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

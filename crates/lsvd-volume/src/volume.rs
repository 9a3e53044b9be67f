//! An open volume: the gate that every request passes, and its opening and closing.
//!
//! Behind the gate a range is not empty and lies within the volume, and a mutation may be made. Knows no order of
//! writes and no objects.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lsvd_backend::Bucket;
use lsvd_engine::{Config, Engine, JournalUse, Request};
use lsvd_format::superblock::Superblock;
use lsvd_format::{Epoch, JournalId, JournalPosition, ObjectFormat, SequenceNumber, VolumeId, WriterId};
use lsvd_local::{Journal, JournalWriter};
use tokio::sync::Mutex;

use crate::acceptance::{Accepted, accept, open_journal};
use crate::clones;
use crate::collect::Collector;
use crate::core::{Core, Parts, Reader};
use crate::fetch::Fetcher;
use crate::garbage::{CollectionGoal, CollectionStep, Garbage, GivenBack, garbage, run_to_its_end};
use crate::guarantees::check_guarantees;
use crate::handover::{self, Handover};
use crate::journal;
use crate::moments::{At, Moment, recover_at};
use crate::named::NamedState;
use crate::occupancy::refuse_if_in_use;
use crate::options::check_options;
use crate::recovery::{Recovered, recover_for_reading};
use crate::resize::{self, Resized, ShrinkPolicy};
use crate::store::VolumeStore;
use crate::takeover::{TakenOver, take_over};
use crate::tasks::Tasks;
use crate::upkeep::Upkeep;
use crate::{Error, OpenOptions};

/// How often a volume that closes looks whether all that was let in is stored.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(10);

/// Zeroes for a volume of format 1, which has to store them: this many bytes at once.
const ZEROES: &[u8] = &[0; 1 << 20];

/// What recovery did when the volume was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Log objects whose headers were replayed.
    pub objects_processed: u64,
    /// Objects found beyond the durable point and moved to the archive.
    pub objects_archived: u64,
    /// Records of the journal that the log did not contain, and that were written into it again.
    pub journal_records: u64,
    /// Last number of the log, the own fence included.
    pub durable_number: SequenceNumber,
}

/// An open volume, described.
#[derive(Clone, Debug)]
pub struct VolumeDescription {
    /// The volume.
    pub volume_id: VolumeId,
    /// Size in bytes, as it is now.
    pub size_bytes: u64,
    /// Epoch of this opening (of the last writer if read-only).
    pub epoch: Epoch,
    /// This opening's identity.
    pub writer_id: WriterId,
    /// Opened read-only.
    pub read_only: bool,
    /// Single writer by the user's word, as its store does not fence.
    pub unsafe_single_writer: bool,
    /// Its journal, if a flush is answered by one.
    pub journal: Option<JournalId>,
    /// A write that was answered outlives the process: see [`OpenOptions::handover`].
    pub hands_over: bool,
    /// The first of the openings, up to this one's, of all of which everything that was answered is here. A client that was
    /// answered by an earlier one, or by none of them, must not go on as if nothing had been.
    pub unbroken_since: Epoch,
    /// The format of the objects that it writes. In format 1 there is no trim, and zeroes are written as data.
    pub append_format: ObjectFormat,
    /// The number with which the log went on after the last time that the volume was rolled back; `None` if it never was.
    pub rolled_back_at: Option<SequenceNumber>,
    /// What recovery did.
    pub recovery: Recovery,
}

/// A run of bytes that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Data.
    Data(Bytes),
    /// This many bytes that read as zeroes.
    Zeroes(u64),
}

/// A run of bytes and whether it is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentStatus {
    /// Length in bytes.
    pub length_bytes: u64,
    /// Nothing is stored for it.
    pub hole: bool,
    /// It reads as zeroes.
    pub zero: bool,
}

/// What an open volume has done and holds, for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of accepted writes that the store does not hold yet: with a journal, what the loss of its disk would take.
    pub buffered_bytes: u64,
    /// How long the oldest of them has waited.
    pub buffered_for: Duration,
    /// PUTs in flight.
    pub uploads_in_flight: u64,
    /// Log objects written.
    pub objects_written: u64,
    /// Bytes of log objects written.
    pub bytes_written: u64,
    /// GETs made.
    pub fetches: u64,
    /// Bytes fetched.
    pub bytes_fetched: u64,
    /// Reads of chunks that the cache answered.
    pub cache_hits: u64,
    /// Reads of chunks that had to be fetched, those among them for which somebody else's fetch was waited for.
    pub cache_misses: u64,
    /// Memory that the cache takes.
    pub cache_bytes: u64,
    /// Reads that failed verification.
    pub corrupt_reads: u64,
    /// How often a reader was behind and read the log again: what it shows is of that moment since.
    pub reloads: u64,
    /// Regions of the map that were damaged in the newest checkpoint, and made again from the one before and the log.
    pub mended_regions: u64,
    /// Regions of the map that were lost, as every checkpoint of them was damaged: by this opening, or while the volume was
    /// open. Their blocks are I/O errors until they are written or discarded.
    pub lost_regions: u64,
    /// Log objects that collection found damaged and leaves alone, since the volume was opened.
    pub passed_over_objects: u64,
    /// Records in the extent map that are in memory.
    pub map_extents: u64,
    /// Bytes of memory that the extent map takes.
    pub map_bytes: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Bytes of live blocks that collection has moved.
    pub moved_bytes: u64,
    /// Log objects deleted, since nothing referred to them.
    pub deleted_objects: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// How long writes have waited for collection, all together: see [`crate::CollectOptions::stop_above`].
    pub slowed_for: Duration,
    /// Objects of the log that are stored, but for fences.
    pub log_objects: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// Of these, such of objects of which nothing is live: they wait to be deleted.
    pub dead_bytes: u64,
    /// Bytes of blocks that the extent map points at.
    pub live_bytes: u64,
    /// Of these, such as lie in objects of the volumes that this one is a clone of.
    pub shared_bytes: u64,
    /// Last durable number.
    pub durable_number: u64,
}

/// An open volume; clones are handles of the same one. Dropping the last handle without [`Volume::close`] is as safe
/// as a crash: what was flushed is there, what was not may be.
#[derive(Clone, Debug)]
pub struct Volume {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    tasks: Tasks,
    description: VolumeDescription,
    /// `None` if it is read-only.
    named: Option<NamedState>,
    /// `None` if it is read-only, or its log goes on in format 1.
    upkeep: Option<Arc<Mutex<Upkeep>>>,
    /// Held while it is resized.
    resizing: Mutex<()>,
    closing: AtomicBool,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.description.fmt(f)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.stop();
        if let Some(journal) = self.core.journal() {
            journal.end();
        }
    }
}

/// How a volume is opened.
#[derive(Clone, Copy)]
enum Access {
    /// As of a moment, or of the present.
    ReadOnly(Option<SequenceNumber>),
    /// With what its journal is to it, if it has one.
    Write(Option<JournalUse>),
}

impl Volume {
    /// Opens for writing: takes the volume over from whoever had it, and recovers it.
    ///
    /// # Errors
    /// [`Error::Fenced`] if yet another writer took it over meanwhile; [`Error::Corrupt`] names the object;
    /// [`Error::InUse`] only with [`OpenOptions::if_free`].
    pub async fn open(bucket: Bucket, options: OpenOptions) -> Result<Self, Error> {
        check_options(&options)?;
        let store = VolumeStore::new(bucket);
        if let Some(quiet_for) = options.if_free {
            refuse_if_in_use(&store, quiet_for, &options.environment).await?;
        }
        let known = check_guarantees(&store, &options).await?;
        let journal = open_journal(&store, &options).await?;
        let left = handover::find(&store, &options, known.1.volume_id).await?;
        let ids = (journal.as_ref().map(Journal::id), left.as_ref().map(Handover::id));
        let mut taken = take_over(&store, &options, ids, known).await?;
        clones::tell_if_untied(&store, &taken.superblock).await;
        let (place, accepted) = match (journal, options.journal.clone(), left) {
            (Some(journal), Some(place), _) => {
                let named = (&mut taken.number, &mut taken.superblock);
                let accepted =
                    accept(&store, (&options, &place), journal, &taken.replay, named, taken.before).await?;
                (place, accepted)
            }
            (_, _, Some(left)) => match handover::accept(&store, &options, left, &mut taken).await? {
                Some(accepted) => accepted,
                None => return Ok(Self::start(store, options, taken, Access::Write(None))),
            },
            _ => return Ok(Self::start(store, options, taken, Access::Write(None))),
        };
        let Accepted { journal, contained } = accepted;
        let from = JournalPosition { journal: journal.id(), record: contained };
        let role = JournalUse { from, answers_flushes: options.journal.is_some() };
        let buffer_bytes_max = options.buffer_bytes_max;
        let replaying = journal.replay(contained).map_err(|error| Error::journal(store.label(), error))?;
        let identity = (taken.superblock.epoch, taken.superblock.writer_id);
        let mut opened = Self::start(store, options, taken, Access::Write(Some(role)));
        let core = opened.inner.core.clone();
        let (writer, records) = journal::replay(&core, &place, replaying, buffer_bytes_max).await?;
        let inner = Arc::get_mut(&mut opened.inner).expect("nobody has a handle yet");
        inner.description.recovery.journal_records = records;
        tracing::info!(volume = %core.store().label(), records, "journal in {} replayed", place.place());
        journal::start(&core, &place, writer, contained, identity)?;
        Ok(opened)
    }

    /// Opens for reading as of now: writes nothing, fences nobody. Opens what is whole of a damaged log, with a warning.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the store's.
    pub async fn open_read_only(bucket: Bucket, options: OpenOptions) -> Result<Self, Error> {
        check_options(&options)?;
        let store = VolumeStore::new(bucket);
        let (number, superblock, recovered) = recover_for_reading(&store, true).await?;
        let Recovered { replay, strays, damage, .. } = recovered;
        if let Some(damage) = damage {
            let next = replay.next_number();
            tracing::warn!("{damage}; opened read-only as of the object before number {next}");
        }
        if let Some(reached) = superblock.log_reached.filter(|reached| *reached >= replay.next_number()) {
            let next = replay.next_number();
            tracing::warn!(volume = %store.label(), "the log had reached number {reached}, but ends before {next}");
        }
        let beyond = strays.iter().filter(|number| **number > replay.next_number()).count();
        if beyond > 0 {
            tracing::warn!(volume = %store.label(), "{beyond} objects lie beyond the durable point and are ignored");
        }
        let durable_number = replay.last().map_or(SequenceNumber(0), |(number, _)| number);
        let recovery =
            Recovery { objects_processed: replay.objects_processed(), durable_number, ..Recovery::default() };
        if let Some(journal) = superblock.journal {
            tracing::warn!(volume = %store.label(), "journal {journal} is in use: what only it holds is not shown");
        }
        let found = TakenOver::to_read(number, superblock, replay, recovery);
        Ok(Self::start(store, options, found, Access::ReadOnly(None)))
    }

    /// Opens for reading as of a moment, with the size that the volume had then: writes nothing, fences nobody. It stays at
    /// that moment; when nothing holds it any more, reads of what was deleted fail and say so.
    ///
    /// # Errors
    /// [`Error::NoMoment`] if it can not be reached; [`Error::NotFound`], or the store's.
    pub async fn open_read_only_at(
        bucket: Bucket,
        moment: &Moment,
        options: OpenOptions,
    ) -> Result<Self, Error> {
        check_options(&options)?;
        let store = VolumeStore::new(bucket);
        let At { number, superblock, recovered, as_of, size_bytes } = recover_at(&store, moment).await?;
        let replay = recovered.replay;
        let recovery = Recovery {
            objects_processed: replay.objects_processed(),
            durable_number: as_of,
            ..Recovery::default()
        };
        let superblock = Superblock { size_bytes, ..superblock };
        let found = TakenOver::to_read(number, superblock, replay, recovery);
        Ok(Self::start(store, options, found, Access::ReadOnly(Some(as_of))))
    }

    fn start(store: VolumeStore, options: OpenOptions, found: TakenOver, access: Access) -> Self {
        let TakenOver { number: superblock_number, superblock, replay, recovery, unusable, .. } = found;
        let (read_only, journal) = match access {
            Access::ReadOnly(_) => (true, None),
            Access::Write(journal) => (false, journal),
        };
        let config = Config {
            volume: superblock.volume_id,
            epoch: superblock.epoch,
            writer: superblock.writer_id,
            window: superblock.window,
            batch_bytes_max: options.batch_bytes_max,
            batch_age_max: options.batch_age_max,
            buffer_bytes_max: options.buffer_bytes_max,
            map_bytes_max: options.map_bytes_max,
            uploads_max: options.uploads_max,
            flush_uploads_max: options.flush_uploads_max,
            journal,
        };
        let tasks = Tasks::new();
        let fetcher =
            Fetcher::new(store.clone(), options.cache_bytes_max, options.fetches_max, tasks.clone());
        let flushing = journal.filter(|role| role.answers_flushes);
        let description = VolumeDescription {
            volume_id: superblock.volume_id,
            size_bytes: superblock.size_bytes,
            epoch: superblock.epoch,
            writer_id: superblock.writer_id,
            read_only,
            unsafe_single_writer: superblock.unsafe_single_writer,
            journal: flushing.map(|role| role.from.journal),
            hands_over: journal.is_some(),
            unbroken_since: superblock.unbroken_since.unwrap_or(superblock.epoch),
            append_format: store.append_format(),
            rolled_back_at: superblock.moments.rollbacks.last().map(|last| last.next),
            recovery,
        };
        let named = (!read_only).then(|| {
            NamedState::new(store.clone(), options.environment.clone(), superblock_number, superblock.clone())
        });
        let keeps_up = description.append_format == ObjectFormat::V2;
        let reader = match access {
            Access::ReadOnly(moment) => Some(Reader::new(config.clone(), superblock_number, moment)),
            Access::Write(_) => None,
        };
        let mut engine = Engine::new(config, replay.finish());
        engine.set_kept_until(superblock.pins().newest());
        let engine = match description.append_format {
            ObjectFormat::V1 => engine.appending_format_1(),
            ObjectFormat::V2 => engine,
        };
        let core = Core::start(Parts {
            engine,
            store,
            fetcher: Arc::new(fetcher),
            tasks: tasks.clone(),
            environment: options.environment.clone(),
            durable_at_opening: recovery.durable_number,
            named: named.clone(),
            epoch: superblock.epoch,
            writer: superblock.writer_id,
            io_timeout: options.io_timeout,
            collect: options.upkeep.collect,
            size_bytes: superblock.size_bytes,
            volume_id: superblock.volume_id,
            journal: journal.map(|_| Arc::default()),
            answers_flushes: flushing.is_some(),
            reader,
        });
        core.warn_of_index();
        let upkeep = named.clone().filter(|_| keeps_up).map(|named| {
            let upkeep =
                Upkeep::new(core.clone(), (named, unusable), options.upkeep, options.batch_bytes_max);
            tasks.spawn(Collector::run(upkeep.collector.clone()));
            let upkeep = Arc::new(Mutex::new(upkeep));
            tasks.spawn(Upkeep::run(upkeep.clone(), options.upkeep.look_every));
            upkeep
        });
        let closing = AtomicBool::new(false);
        Self {
            inner: Arc::new(Inner {
                core,
                tasks,
                description,
                named,
                upkeep,
                resizing: Mutex::new(()),
                closing,
            }),
        }
    }

    /// What was opened, with the size that it has now.
    pub fn description(&self) -> VolumeDescription {
        VolumeDescription { size_bytes: self.size_bytes(), ..self.inner.description.clone() }
    }

    /// The size now, in bytes. It changes by [`Volume::resize`] alone: who has opened it read-only keeps what it had then.
    pub fn size_bytes(&self) -> u64 {
        self.inner.core.size_bytes()
    }

    /// What it has done so far and holds now.
    pub fn stats(&self) -> Stats {
        self.inner.core.stats()
    }

    /// Counts again what is live, for tests: how many regions of the map are not in memory, or what is not as counted.
    ///
    /// # Errors
    /// What is wrong, for a person.
    #[doc(hidden)]
    pub fn audit(&self) -> Result<u64, String> {
        self.inner.core.engine(|engine| engine.audit())
    }

    /// The gate: whether a range lies within the volume and holds anything.
    fn gate(&self, offset_bytes: u64, length_bytes: u64) -> Result<bool, Error> {
        self.check_open()?;
        let size_bytes = self.size_bytes();
        match offset_bytes.checked_add(length_bytes) {
            Some(end) if end <= size_bytes => Ok(length_bytes > 0),
            _ => Err(Error::BeyondEnd { offset_bytes, length_bytes, size_bytes }),
        }
    }

    fn gate_mutation(&self, offset_bytes: u64, length_bytes: u64) -> Result<bool, Error> {
        let holds = self.gate(offset_bytes, length_bytes)?;
        if self.inner.description.read_only {
            return Err(Error::ReadOnly { volume: self.label() });
        }
        Ok(holds)
    }

    fn check_open(&self) -> Result<(), Error> {
        self.inner.core.check_ended()?;
        if self.inner.closing.load(Ordering::Acquire) {
            return Err(Error::Closed { volume: self.label() });
        }
        Ok(())
    }

    /// Whether a change of what is kept may be made.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        self.check_open()?;
        match self.inner.description.read_only {
            true => Err(Error::ReadOnly { volume: self.label() }),
            false => Ok(()),
        }
    }

    /// What is done behind the clients; `None` where nothing is.
    pub(crate) fn upkeep(&self) -> Option<&Mutex<Upkeep>> {
        self.inner.upkeep.as_deref()
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.inner.core
    }

    /// The superblock of a volume that is open for writing.
    pub(crate) fn named(&self) -> &NamedState {
        self.inner.named.as_ref().expect("it is open for writing")
    }

    pub(crate) fn label(&self) -> Arc<str> {
        self.inner.core.store().label()
    }

    /// Reads `length_bytes` from `offset_bytes`, any alignment. The pieces' lengths sum to it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if what came back fails verification; [`Error::TimedOut`] if the store is away.
    pub async fn read(&self, offset_bytes: u64, length_bytes: u64) -> Result<Vec<Piece>, Error> {
        if !self.gate(offset_bytes, length_bytes)? {
            return Ok(Vec::new());
        }
        self.inner.core.read(offset_bytes, length_bytes).await
    }

    /// Writes `data` at `offset_bytes`, any alignment. Accepted when it returns; durable after a flush, or at once with
    /// `fua`.
    ///
    /// # Errors
    /// After an error without `fua` the write was not and will not be applied. With `fua` it may be applied, but is not
    /// known to be durable.
    pub async fn write(&self, offset_bytes: u64, data: Bytes, fua: bool) -> Result<(), Error> {
        if !self.gate_mutation(offset_bytes, data.len() as u64)? {
            return Ok(());
        }
        let waited = self.inner.core.slow_down(data.len() as u64).await;
        self.check_open()?;
        self.inner.core.request_after(waited, Request::Write { offset_bytes, data, fua }).await
    }

    /// Discards the whole blocks within the range: they read as zeroes.
    ///
    /// # Errors
    /// As for [`Volume::write`]; always, in a volume that writes format 1.
    pub async fn trim(&self, offset_bytes: u64, length_bytes: u64, fua: bool) -> Result<(), Error> {
        if !self.gate_mutation(offset_bytes, length_bytes)? {
            return Ok(());
        }
        if self.writes_format_1() {
            return Err(Error::Invalid(format!(
                "volume '{}' writes its log in format 1, which can not say that blocks were discarded; write zeroes",
                self.label()
            )));
        }
        self.inner.core.request(Request::Trim { offset_bytes, length_bytes, fua }).await
    }

    /// Makes the range read as zeroes; its whole blocks stay allocated if `keep_allocated`. A volume that writes format 1
    /// stores the zeroes, in several writes.
    ///
    /// # Errors
    /// As for [`Volume::write`]; in format 1 a part of it may be applied.
    pub async fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        keep_allocated: bool,
        fua: bool,
    ) -> Result<(), Error> {
        if !self.gate_mutation(offset_bytes, length_bytes)? {
            return Ok(());
        }
        if self.writes_format_1() {
            return self.write_stored_zeroes(offset_bytes, length_bytes, fua).await;
        }
        let request = Request::WriteZeroes { offset_bytes, length_bytes, keep_allocated, fua };
        self.inner.core.request(request).await
    }

    fn writes_format_1(&self) -> bool {
        self.inner.description.append_format == ObjectFormat::V1
    }

    async fn write_stored_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        fua: bool,
    ) -> Result<(), Error> {
        let (mut at, end) = (offset_bytes, offset_bytes + length_bytes);
        while at < end {
            // Up to a multiple of the pieces' length, so that all but the ends are whole blocks.
            let piece = (ZEROES.len() as u64 - at % ZEROES.len() as u64).min(end - at);
            let zeroes = &ZEROES[..usize::try_from(piece).expect("no longer than the zeroes")];
            at += piece;
            // The last is durable only with all that was applied before it.
            let data = Bytes::from_static(zeroes);
            let request = Request::Write { offset_bytes: at - piece, data, fua: fua && at == end };
            self.inner.core.request(request).await?;
        }
        Ok(())
    }

    /// Returns when every write that had completed before the call is in the store; with a journal, when its disk has it.
    ///
    /// # Errors
    /// [`Error::TimedOut`] promises nothing but takes nothing back: flush again.
    pub async fn flush(&self) -> Result<(), Error> {
        self.check_open()?;
        if self.inner.description.read_only {
            return Ok(());
        }
        self.inner.core.request(Request::Flush).await
    }

    /// Returns when every write that had completed before the call is in the store, also with a journal.
    ///
    /// # Errors
    /// As for [`Volume::flush`].
    pub async fn drain(&self) -> Result<(), Error> {
        self.check_open()?;
        if self.inner.description.read_only {
            return Ok(());
        }
        self.inner.core.request(Request::Drain).await
    }

    /// What is allocated and what reads as zeroes. Tells something, but may stop before `length_bytes` are covered, where
    /// the extent map is not in memory: ask again from there.
    ///
    /// # Errors
    /// If the range is beyond the volume, or the volume was closed or fenced; the store's, where the extent map is not in
    /// memory.
    pub async fn block_status(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Vec<ExtentStatus>, Error> {
        if !self.gate(offset_bytes, length_bytes)? {
            return Ok(Vec::new());
        }
        self.inner.core.block_status(offset_bytes, length_bytes).await
    }

    /// What a collection with this goal would find now, and give back. Writes nothing.
    pub fn garbage(&self, goal: CollectionGoal) -> Garbage {
        garbage(&self.inner.core, goal)
    }

    /// Collects, waits [`crate::UpkeepOptions::delete_after`] and deletes until all that can be given back is.
    ///
    /// # Errors
    /// The store's, or what ended the volume: what was done is done, and the rest is done by the next call, or behind the
    /// clients. [`Error::Invalid`] if the log goes on in format 1.
    pub async fn collect_garbage(&self, goal: CollectionGoal) -> Result<GivenBack, Error> {
        self.collect_garbage_telling(goal, &|_| {}).await
    }

    /// The same, and `tell` hears how far it is. Clients are served meanwhile; what they make garbage after it was collected is
    /// not waited for. Dropping the future leaves the rest to what is done behind the clients.
    ///
    /// # Errors
    /// As for [`Volume::collect_garbage`].
    pub async fn collect_garbage_telling(
        &self,
        goal: CollectionGoal,
        tell: &(dyn Fn(CollectionStep) + Send + Sync),
    ) -> Result<GivenBack, Error> {
        self.check_open()?;
        if self.inner.description.read_only {
            return Err(Error::ReadOnly { volume: self.label() });
        }
        let Some(upkeep) = &self.inner.upkeep else {
            return Err(Error::Invalid(format!(
                "volume '{}' writes its log in format 1, for good: it has no checkpoints, and nothing of it is collected; to \
                 leave that format, create another volume and copy this one into it",
                self.label()
            )));
        };
        let given_back = run_to_its_end(upkeep, goal, tell).await;
        if let Err(error @ Error::Fenced { .. }) = &given_back {
            self.inner.core.end(error.clone());
        }
        given_back
    }

    /// Gives the volume another size, in bytes: a multiple of 4,096, while its clients go on. When it returns, the store has
    /// it. Growing shows zeroes. Shrinking refuses requests beyond the new end from the moment at which it begins.
    ///
    /// # Errors
    /// [`Error::HoldsData`] with [`ShrinkPolicy::Refuse`]; [`Error::Invalid`] if the size can not be, or the log goes on in
    /// format 1 and the volume is to shrink. The store's: the size is the old one, though with [`ShrinkPolicy::Discard`] what
    /// was to go may be gone; or, if the store did not say whether it has the new size, a shrunk volume serves no more than
    /// that. Ask again.
    pub async fn resize(&self, size_bytes: u64, policy: ShrinkPolicy) -> Result<Resized, Error> {
        let _resizing = self.inner.resizing.lock().await;
        self.check_open()?;
        let Some(named) = &self.inner.named else {
            return Err(Error::ReadOnly { volume: self.label() });
        };
        let resized = resize::resize(&self.inner.core, named, size_bytes, policy).await;
        if let Err(error @ Error::Fenced { .. }) = &resized {
            self.inner.core.end(error.clone());
        }
        resized
    }

    /// Drains, flushes and marks the volume as closed cleanly. Later requests fail with [`Error::Closed`].
    ///
    /// # Errors
    /// What kept it from being clean: close again, or drop it, which is as safe as a crash. What was flushed before is
    /// safe all the same.
    pub async fn close(&self) -> Result<(), Error> {
        let inner = &self.inner;
        inner.closing.store(true, Ordering::Release);
        // One that is under way ends first, and none begins any more.
        let _resizing = inner.resizing.lock().await;
        match inner.core.check_ended() {
            Err(Error::Closed { .. }) => return Ok(()),
            ended => ended?,
        }
        if let Some(named) = &inner.named {
            inner.core.request(Request::Drain).await?;
            // A write that waited at the ceiling was let in by that flush: it is to be stored, too.
            while !inner.core.is_drained() {
                tokio::time::sleep(DRAIN_LOOK_EVERY).await;
                inner.core.request(Request::Drain).await?;
            }
            let durable_number = SequenceNumber(inner.core.stats().durable_number);
            let closed = named.update(|superblock| {
                superblock.closed_at = Some(durable_number);
                superblock.log_reached = Some(durable_number);
                *superblock = superblock.clone().with_journal(None);
                superblock.handover = None;
            });
            if let Err(error) = closed.await {
                if matches!(error, Error::Fenced { .. }) {
                    inner.core.end(error.clone());
                }
                return Err(error);
            }
        }
        let journal = inner.core.journal().inspect(|journal| journal.keep_writer());
        inner.core.end(Error::Closed { volume: self.label() });
        if let Some(journal) = journal {
            while !journal.is_gone() {
                tokio::time::sleep(DRAIN_LOOK_EVERY).await;
            }
            // The volume is closed whatever becomes of it: the next opening needs none of it.
            if let Some(Err(error)) = journal.take_writer().map(JournalWriter::finish) {
                tracing::warn!(volume = %self.label(), "{error}");
            }
        }
        Ok(())
    }

    /// Resolves when the volume can serve no more by itself: fenced. Pending while it is well.
    pub fn ended(&self) -> impl Future<Output = Error> + Send + 'static {
        let mut ended = self.inner.core.ended();
        async move {
            match ended.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
                Ok(Some(error)) => error,
                // The volume was dropped: nobody is left to be told.
                Ok(None) | Err(_) => std::future::pending().await,
            }
        }
    }
}

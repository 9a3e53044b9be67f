//! Reading: what the engine plans, fetched; regions of the map that it needs first; and a reader that is behind.
//!
//! Knows plans and regions; changes nothing of the volume. Invariant: what a plan needs at once is kept in memory until it is
//! made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lsvd_engine::{Config, Engine, Event, ObjectRecord, Place, PlanPiece, RegionContent};
use lsvd_format::checkpoint::RegionIndex;
use lsvd_format::{BLOCK_BYTES, BlockIndex, SequenceNumber, SuperblockNumber, names};
use tokio::sync::oneshot;

use super::Core;
use crate::Error;
use crate::mend::{
    DAMAGED_TRIES, DAMAGED_WAIT_FIRST, Rebuilt, check_length, fitted, has, lost, rebuild, tell_loss,
};
use crate::moments::{Moment, recover_at};
use crate::recovery::is_away;
use crate::recovery::recover_newest;
use crate::regions::{read_regions, read_root};
use crate::root::newest_readable;
use crate::volume::{ExtentStatus, Piece};

/// Wait between tries to read a region of the map when the store has failed for longer than its own retries last.
const LOAD_RETRY_FIRST: Duration = DAMAGED_WAIT_FIRST;
const LOAD_RETRY_MAX: Duration = Duration::from_secs(5);

/// How often a read is planned again because what it referred to was deleted.
const PLANS_MAX: u32 = 3;

/// What a volume that is open for reading needs to go on when it is behind.
pub(crate) struct Reader {
    config: Config,
    /// The moment that it shows, if that is not the present.
    moment: Option<SequenceNumber>,
    /// The superblock version that it last read.
    as_of: AtomicU64,
    newest: Arc<tokio::sync::Mutex<SuperblockNumber>>,
}

impl Reader {
    pub(crate) fn new(config: Config, as_of: SuperblockNumber, moment: Option<SequenceNumber>) -> Self {
        Self {
            config,
            moment,
            as_of: AtomicU64::new(as_of.0),
            newest: Arc::new(tokio::sync::Mutex::new(as_of)),
        }
    }

    fn as_of(&self) -> SuperblockNumber {
        SuperblockNumber(self.as_of.load(Ordering::Acquire))
    }
}

impl Core {
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
                PlanPiece::Buffered(_) | PlanPiece::Zeroes(_) | PlanPiece::Lost { .. } => (None, piece),
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
            (_, PlanPiece::Lost { block, .. }) => Err(self.lost(*block)),
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

    /// That a block is lost.
    pub(super) fn lost(&self, block: BlockIndex) -> Error {
        self.engine(|engine| lost(&self.store, engine.prefix(), block))
    }

    /// Whether a reader's superblock is not the newest any more.
    async fn is_behind(&self) -> bool {
        let Some(reader) = &self.reader else { return false };
        let newest = tokio::time::timeout(self.io_timeout, newest_readable(&self.store, true));
        match newest.await.unwrap_or_else(|_| Err(self.timed_out())) {
            Ok((number, _)) => number > reader.as_of(),
            // As far behind as can be.
            Err(error) => matches!(error, Error::Removed { .. } | Error::NotFound { .. }),
        }
    }

    /// A reader that is behind reads superblock, checkpoint and log again (rule 7). A writer is never behind. Who waits for that
    /// waits no longer than for any other answer of the store (rule 10); it goes on all the same, for those that come.
    async fn reload(self: &Arc<Self>) -> Result<(), Error> {
        let Some(reader) = &self.reader else { return Ok(()) };
        let before = reader.as_of();
        let reload = async {
            let newest = reader.newest.clone().lock_owned().await;
            if *newest > before {
                return Ok(()); // somebody else did, meanwhile
            }
            let (sender, receiver) = oneshot::channel();
            let core = self.clone();
            self.tasks.spawn(async move {
                // Who waited may have gone.
                let _ = sender.send(core.read_anew(newest).await);
            });
            receiver.await.unwrap_or_else(|_| Err(Error::Closed { volume: self.store.label() }))
        };
        tokio::time::timeout(self.io_timeout, reload).await.unwrap_or_else(|_| Err(self.timed_out()))
    }

    async fn read_anew(
        &self,
        mut newest: tokio::sync::OwnedMutexGuard<SuperblockNumber>,
    ) -> Result<(), Error> {
        let Some(reader) = &self.reader else { return Ok(()) };
        let (number, prefix) = match reader.moment {
            None => recover_newest(&self.store).await?,
            // The same content by another checkpoint; or nothing holds it any more, which is said.
            Some(moment) => {
                let at = recover_at(&self.store, &Moment::Number(moment)).await?;
                (at.number, at.recovered.replay.finish())
            }
        };
        let next = prefix.log().next;
        let engine = Engine::new(reader.config.clone(), prefix);
        self.engine(|old| *old = engine);
        *newest = number;
        reader.as_of.store(number.0, Ordering::Release);
        self.reloads.fetch_add(1, Ordering::Relaxed);
        tracing::info!(volume = %self.store.label(), "a reader that was behind goes on as of the object before number {next}");
        Ok(())
    }

    /// Makes a region again that is damaged where it is stored; `None` if that can not be.
    async fn mend(&self, region: RegionIndex, place: Place) -> Result<Option<RegionContent>, Error> {
        let superblock = match &self.named {
            Some(named) => named.get().await,
            None => newest_readable(&self.store, true).await?.1,
        };
        let Some(Rebuilt { prefix, poor }) = rebuild(&self.store, &superblock, region, place).await? else {
            return Ok(None);
        };
        let content = self.engine(|engine| {
            let now = engine.prefix();
            if now.find_place(region) != Some(place) {
                return Ok(None); // a reader that went on meanwhile
            }
            fitted(&self.store, &prefix, now, (region, place)).map(Some)
        });
        let Some(content) = content? else { return Ok(None) };
        check_length(&self.store, &superblock, (region, place), &content)?;
        {
            let mut wounds = self.wounds();
            wounds.add_place(region, place);
            wounds.add_poor(poor);
        }
        if let Some(named) = &self.named {
            // One that was named while this was under way is no better; one that comes later hears of the place itself.
            for checkpoint in named.get().await.checkpoints {
                if !superblock.checkpoints.contains(&checkpoint)
                    && has(&read_root(&self.store, self.volume_id, &checkpoint).await?, region, place)
                {
                    self.wounds().add_poor([checkpoint]);
                }
            }
        }
        Ok(Some(content))
    }

    /// Goes on without a region that is damaged wherever it is stored, if what is durable can not be applied without it: or
    /// nothing behind it would ever be. Whether it did.
    async fn give_up(self: &Arc<Self>, region: RegionIndex, place: Place, error: &Error) -> bool {
        let Some(named) = self.named.as_ref().filter(|_| self.engine(|engine| engine.is_stuck_on(region)))
        else {
            return false;
        };
        // A newer writer may have deleted it.
        match named.check_newest().await {
            Ok(()) => {}
            Err(error @ Error::Fenced { .. }) => {
                self.end(error);
                return true;
            }
            Err(_) => return false,
        }
        let superblock = named.get().await;
        if is_away(&superblock, place, error) {
            return false;
        }
        let end = BlockIndex(superblock.largest_size_bytes() / BLOCK_BYTES);
        if self.engine(|engine| engine.owes(region)) {
            tracing::warn!(
                "{error}; region {region} of the map was discarded, and what was stored for it stays in the bucket, as nobody can \
                 say what that is"
            );
        } else {
            tell_loss(&self.store, region, place, error);
        }
        self.event(Event::RegionLost { region, place, end });
        for waiter in self.lock().region_waiters.remove(&region).unwrap_or_default() {
            let _ = waiter.send(Ok(()));
        }
        true
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

/// Loads a region of the map, however long that takes, and tells who waits for it what hinders it.
pub(super) async fn load_region(core: Arc<Core>, region: RegionIndex, place: Place) {
    let mut wait = LOAD_RETRY_FIRST;
    let (mut is_mended, mut may_mend, mut damaged_tries) = (false, true, 0);
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
                if may_mend && matches!(error, Error::Corrupt { .. } | Error::Missing { .. }) {
                    match core.mend(region, place).await {
                        Ok(Some(content)) => {
                            tracing::warn!(
                                "{error}; region {region} of the map was made again from the checkpoint before"
                            );
                            is_mended = true;
                            break content;
                        }
                        // What is damaged there, too, is asked for once.
                        Ok(None) | Err(Error::Corrupt { .. } | Error::Missing { .. }) => may_mend = false,
                        Err(other) => {
                            tracing::warn!("region {region} of the map can not be made again now: {other}")
                        }
                    }
                }
                let waiters = core.lock().region_waiters.remove(&region).unwrap_or_default();
                for waiter in waiters {
                    // A reader that has gone needs no answer.
                    let _ = waiter.send(Err(error.clone()));
                }
                if core.reader.is_some() {
                    // It may be behind, and then needs another place.
                    return core.engine(|engine| engine.region_failed(region));
                }
                // Who changes a block of it in part does not wait for what may never come.
                for (id, block) in core.engine(|engine| engine.take_bases_wanted(region)) {
                    core.base_failed(id, block, error.clone());
                }
                if matches!(error, Error::Corrupt { .. } | Error::Missing { .. }) {
                    damaged_tries += 1;
                    // Somebody may have brought the one before back.
                    may_mend |= damaged_tries + 1 == DAMAGED_TRIES;
                    if !may_mend
                        && damaged_tries >= DAMAGED_TRIES
                        && core.give_up(region, place, &error).await
                    {
                        return;
                    }
                }
                tracing::error!("a region of the map is read again in {} ms: {error}", wait.as_millis());
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LOAD_RETRY_MAX);
            }
        }
    };
    core.engine(|engine| engine.pin(region));
    core.event(Event::RegionLoaded { region, place, content });
    core.engine(|engine| {
        if is_mended && core.reader.is_none() {
            // The next checkpoint has it again; it stays until then. If it is gone already, somebody had it stored.
            let _ = engine.store_again(&[region]);
        }
        engine.unpin(region);
    });
    for waiter in core.lock().region_waiters.remove(&region).unwrap_or_default() {
        let _ = waiter.send(Ok(()));
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

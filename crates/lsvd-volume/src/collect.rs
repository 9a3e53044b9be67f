//! Garbage collection: blocks that are still live in objects that mostly are not are written again, so that the old
//! objects die.
//!
//! A round is: victims, their headers, what of them is live, its bytes, and a new object that the engine numbers. Knows
//! when to begin and to stop; which blocks, the engine says. Near the target there is one round at a time, four turns in
//! five are left to clients who wait for a flush, and there are pauses; the further above, the shorter they get, until
//! some rounds are under way at once, so that one reads while the other's object is stored. What comes back in what time
//! is told to who slows clients down. A victim that is damaged keeps nobody: it is left alone for this opening.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lsvd_engine::{Choice, Location, Move, ObjectIndex, ObjectState, Purpose};
use lsvd_format::checkpoint::RegionIndex;
use lsvd_format::log_object::{Entry, FRAME_BYTES};
use lsvd_format::{AnyHeader, BLOCK_BYTES, BLOCK_LEN, BlockOrdinal, Extent, SequenceNumber};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::core::Core;
use crate::{CollectOptions, Error};

/// Victims of one round at most: their headers and runs are in memory.
const VICTIMS_MAX: usize = 64;
/// Regions of the map that are looked at together.
const REGIONS_TOGETHER: u32 = 64;
/// Reads of victims at once, of one round.
const READS_AT_ONCE: usize = 8;
/// Rounds at once where all the time is collection's: each has two batches in memory, what it reads and what it writes.
const ROUNDS_AT_ONCE: usize = 3;
/// Entries of one object of relocations at most.
const ENTRIES_MAX: usize = 8192;
/// Objects with less than this share of a full batch are small.
const SMALL_SHARE: u64 = 8;
/// A turn lasts this long, before somebody else may collect.
const TURN_MAX: Duration = Duration::from_secs(2);
/// Turns in a row that are left to clients who wait for a flush.
const YIELDS_MAX: u32 = 4;
/// Small objects are merged when there are this many.
const SMALL_MANY: usize = 128;
/// Wait after a failure.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

pub(crate) struct Collector {
    core: Arc<Core>,
    options: CollectOptions,
    look_every: Duration,
    batch_bytes_max: u64,
    /// Above the target, and not back below where it ends.
    collecting: bool,
    /// Turns in a row that were left to a flush.
    yielded: u32,
}

/// What was collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects whose live blocks were moved.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Bytes of blocks that were copied.
    pub moved_bytes: u64,
}

impl Collected {
    /// Bytes that the log has less when the objects are deleted.
    fn given_back_bytes(&self) -> u64 {
        self.object_bytes.saturating_sub(self.moved_bytes / BLOCK_BYTES * FRAME_BYTES)
    }
}

/// Objects that are collected together.
type Victims = Vec<(ObjectIndex, ObjectState)>;

impl Collector {
    pub(crate) fn new(
        core: Arc<Core>,
        options: CollectOptions,
        look_every: Duration,
        batch_bytes_max: u64,
    ) -> Self {
        Self { core, options, look_every, batch_bytes_max, collecting: false, yielded: 0 }
    }

    /// Collects until the volume ends; whoever holds the lock meanwhile does it in its place.
    pub(crate) async fn run(collector: Arc<Mutex<Self>>) {
        loop {
            let mut one = collector.lock().await;
            let pause = match one.turn().await {
                Ok(pause) => pause,
                Err(error @ Error::Fenced { .. }) => return one.core.end(error),
                Err(error) => {
                    one.core.release_pressure();
                    tracing::warn!("collection goes on in {} s: {error}", PAUSE_AFTER_FAILURE.as_secs());
                    PAUSE_AFTER_FAILURE
                }
            };
            drop(one);
            tokio::time::sleep(pause).await;
        }
    }

    /// Collects for a while, if it is due. Gives the pause before the next turn.
    ///
    /// # Errors
    /// The store's, or what ended the volume.
    async fn turn(&mut self) -> Result<Duration, Error> {
        let Some(purpose) = self.purpose() else {
            self.core.release_pressure();
            return Ok(self.look_every);
        };
        // A client that always flushes must not keep the space for ever.
        if self.core.is_flush_awaited() && self.yielded < YIELDS_MAX && self.share() < 1.0 {
            self.yielded += 1;
            return Ok(self.look_every);
        }
        self.yielded = 0;
        let began = Instant::now();
        if !self.rounds(purpose).await? {
            self.collecting = false;
            self.core.release_pressure();
            return Ok(self.look_every);
        }
        // The nearer to the target, the longer the pause; far above it there is none.
        Ok(began.elapsed().mul_f64(1.0 / self.share() - 1.0))
    }

    /// One round, or some at once until the turn is over where all the time is collection's. Whether anything came of it.
    async fn rounds(&mut self, purpose: Purpose) -> Result<bool, Error> {
        let (began, mut told) = (Instant::now(), Instant::now());
        let (mut busy, mut running) = (BTreeSet::new(), FuturesUnordered::new());
        let (mut more, mut any) = (true, false);
        loop {
            while more && running.len() < if self.share() < 1.0 { 1 } else { ROUNDS_AT_ONCE } {
                let victims = self.victims(purpose, &busy);
                if victims.is_empty() {
                    more = false;
                    break;
                }
                let numbers: Vec<_> = victims.iter().map(|(_, state)| state.record.identity.number).collect();
                busy.extend(numbers.iter().copied());
                let (core, blocks) = (self.core.clone(), self.batch_blocks());
                running.push(async move { (numbers, collect_victims(&core, victims, blocks).await) });
            }
            let Some((numbers, done)) = running.next().await else { return Ok(any) };
            let collected = done?;
            numbers.iter().for_each(|number| {
                busy.remove(number);
            });
            self.core.gave_back(collected.given_back_bytes(), told.elapsed());
            told = Instant::now();
            any |= collected.objects > 0;
            // What clients have overwritten meanwhile dies by itself, and would be chosen again until it is applied.
            more = more
                && collected.objects > 0
                && self.share() >= 1.0
                && began.elapsed() < TURN_MAX
                && self.purpose() == Some(purpose);
        }
    }

    /// The share of time to collect in, from the configured one at the target to all of it.
    fn share(&self) -> f64 {
        let above = self.core.above_target().max(0.0);
        // Also where the bound is 0.
        let way = if above >= self.options.slow_above { 1.0 } else { above / self.options.slow_above };
        self.options.share + way * (1.0 - self.options.share)
    }

    /// What there is to collect for now.
    fn purpose(&mut self) -> Option<Purpose> {
        if self.options.target.is_infinite() {
            return None;
        }
        let totals = self.core.totals();
        let waste_bytes = totals.waste_bytes();
        let over = totals.amplification();
        // Hysteresis: it ends a tenth of the way below the target.
        let end = 1.0 + (self.options.target - 1.0) * 0.9;
        let limit = if self.collecting { end } else { self.options.target };
        self.collecting = over > limit && waste_bytes >= self.options.waste_bytes_min;
        if self.collecting {
            return Some(Purpose::Space);
        }
        // Looking at each object takes time: only where the average object is small.
        if totals.objects < SMALL_MANY as u64
            || totals.payload_blocks / totals.objects >= self.batch_blocks() / 2
        {
            return None;
        }
        let small = self.small();
        let many = self.core.choose(Choice::new(small, SMALL_MANY), &BTreeSet::new()).victims(u64::MAX).len();
        (many >= SMALL_MANY).then_some(small)
    }

    fn batch_blocks(&self) -> u64 {
        self.batch_bytes_max / BLOCK_BYTES
    }

    fn small(&self) -> Purpose {
        Purpose::Small { below_blocks: self.batch_blocks() / SMALL_SHARE }
    }

    /// Objects that are worth it most, for one round; none of those that are being collected, or are known to be damaged.
    fn victims(&self, purpose: Purpose, busy: &BTreeSet<SequenceNumber>) -> Victims {
        let but = busy | &self.core.wounds().passed_over;
        let victims = self.core.choose(Choice::new(purpose, VICTIMS_MAX), &but).victims(self.batch_blocks());
        let alone = victims.len() == 1 && matches!(purpose, Purpose::Small { .. });
        if alone { Victims::new() } else { victims }
    }

    /// Collects a few objects.
    pub(crate) async fn collect(&self, purpose: Purpose) -> Result<Collected, Error> {
        let victims = self.victims(purpose, &BTreeSet::new());
        collect_victims(&self.core, victims, self.batch_blocks()).await
    }
}

/// Moves what is live of these objects into new ones of so many blocks, but of such as turn out to be damaged. None of them
/// counts as collected if clients have overwritten all of it, which is on its way.
async fn collect_victims(core: &Arc<Core>, mut victims: Victims, blocks: u64) -> Result<Collected, Error> {
    let moved_bytes = loop {
        match move_live(core, &victims, blocks).await {
            Ok(0) => return Ok(Collected::default()),
            Ok(moved_bytes) => break moved_bytes,
            // It died meanwhile, and was deleted.
            Err(Error::Missing { .. }) if victims.iter().any(|victim| is_gone(core, victim)) => {
                return Ok(Collected::default());
            }
            Err(error) => {
                let Some(number) = damaged(core, &error) else { return Err(error) };
                if !core.wounds().pass_over(number) {
                    return Err(error);
                }
                victims.retain(|(_, state)| state.record.identity.number != number);
                // Whoever reads it gets that error; the others' space is to come back all the same.
                tracing::warn!(
                    "{error}: collection leaves this object alone until the volume is opened again"
                );
            }
        }
    };
    let mut collected = Collected { moved_bytes, ..Collected::default() };
    for (_, state) in &victims {
        collected.objects += 1;
        collected.object_bytes += state.record.object_bytes();
    }
    tracing::debug!(volume = %core.store().label(), ?collected, "collected");
    Ok(collected)
}

/// The object of the log that the error calls damaged or missing: a victim, or one whose blocks were to be moved along.
fn damaged(core: &Core, error: &Error) -> Option<SequenceNumber> {
    let (Error::Corrupt { object, .. } | Error::Missing { object, .. }) = error else { return None };
    core.store().log_number(object)
}

fn is_gone(core: &Core, (_, state): &(ObjectIndex, ObjectState)) -> bool {
    let number = state.record.identity.number;
    core.engine(|engine| {
        let objects = engine.prefix().objects();
        objects.find(number).is_none_or(|index| objects.state(index).live_blocks == 0)
    })
}

/// Moves what is live, and says how many bytes that was.
async fn move_live(core: &Arc<Core>, victims: &Victims, blocks: u64) -> Result<u64, Error> {
    if victims.is_empty() {
        return Ok(0);
    }
    let mut runs = payload_runs(core, victims).await?;
    // The regions of all of them together may be more than memory is for.
    runs.sort_unstable_by_key(|(extent, _)| extent.start);
    let near = |run: &(Extent, Location)| RegionIndex::of(run.0.start).0 / REGIONS_TOGETHER;
    let mut moves = Vec::new();
    for runs in runs.chunk_by(|a, b| near(a) == near(b)) {
        moves.extend(core.with_regions(|engine| engine.moves(runs)).await?);
    }
    let passed_over = core.wounds().passed_over.clone();
    moves.retain(|one| !passed_over.contains(&one.object.identity.number));
    let lossy = core.engine(|engine| engine.prefix().is_lossy());
    let with_loss = if lossy { with_lost_blocks(victims, &moves) } else { Vec::new() };
    let mut moved_bytes = 0;
    for moves in batches(moves, blocks) {
        moved_bytes += lsvd_engine::moved_bytes(&moves);
        let payload = fetch(core, &moves).await?;
        core.collected(moves, payload).await?;
    }
    let mut wounds = core.wounds();
    for number in with_loss {
        wounds.pass_over(number);
    }
    drop(wounds);
    Ok(moved_bytes)
}

/// Victims of which not all that counts as live is to move: what lost blocks were counts for ever, and whoever was chosen for
/// that is not to be chosen again and again.
fn with_lost_blocks(victims: &Victims, moves: &[Move]) -> Vec<SequenceNumber> {
    let mut moved = BTreeMap::<SequenceNumber, u64>::new();
    for one in moves {
        *moved.entry(one.object.identity.number).or_default() += one.extent.count.0;
    }
    let numbers = victims.iter().map(|(_, state)| (state.record.identity.number, state.live_blocks));
    let less = numbers.filter(|(number, live)| moved.get(number).is_none_or(|moved| moved < live));
    less.map(|(number, _)| number).collect()
}

/// Where each run of the victims' payloads was written.
async fn payload_runs(
    core: &Core,
    victims: &[(ObjectIndex, ObjectState)],
) -> Result<Vec<(Extent, Location)>, Error> {
    let store = core.store();
    let headers = futures::stream::iter(victims.iter().copied()).map(async |(index, state)| {
        let number = state.record.identity.number;
        let store = store.store_of(number)?;
        match store.read_log_header(number).await? {
            Some(header) => Ok((index, header)),
            None => Err(Error::Missing { volume: store.label(), object: store.log_name(number) }),
        }
    });
    let mut headers = headers.buffered(READS_AT_ONCE);
    let mut runs = Vec::new();
    while let Some(header) = headers.next().await {
        let (object, header) = header?;
        let mut ordinal = 0;
        for (extent, blocks) in extents(&header) {
            runs.push((extent, Location { object, ordinal: BlockOrdinal(ordinal) }));
            ordinal += u32::try_from(blocks).expect("a payload has fewer than 2^32 blocks");
        }
    }
    Ok(runs)
}

/// The contents of the moves, in their order, verified.
async fn fetch(core: &Core, moves: &[Move]) -> Result<Vec<Bytes>, Error> {
    let fetcher = core.fetcher();
    let reads = futures::stream::iter(sources(moves)).map(async |read: SourceRead| {
        let blocks = read.end - read.first;
        let bytes = fetcher.read_past_cache(read.moves[0].1.object, BlockOrdinal(read.first), blocks).await?;
        Ok::<_, Error>((read, bytes))
    });
    let mut payload = vec![Bytes::new(); moves.len()];
    let mut reads = reads.buffer_unordered(READS_AT_ONCE);
    while let Some(read) = reads.next().await {
        let (read, bytes) = read?;
        for (nth, one) in read.moves {
            let from = (one.ordinal.0 - read.first) as usize * BLOCK_LEN;
            let len = usize::try_from(one.extent.count.0).expect("it is in memory") * BLOCK_LEN;
            // Copied, so that a few small live blocks do not hold the whole reads.
            payload[nth] = Bytes::copy_from_slice(&bytes[from..from + len]);
        }
    }
    let mut all = BytesMut::with_capacity(payload.iter().map(Bytes::len).sum());
    payload.iter().for_each(|piece| all.extend_from_slice(piece));
    Ok(vec![all.freeze()])
}

/// The runs of an object's payload: where they are on the volume, and how many blocks.
fn extents(header: &AnyHeader) -> Vec<(Extent, u64)> {
    match header {
        AnyHeader::V1(header) => {
            let run = |entry: &lsvd_format::v1::Entry| {
                let count = u64::from(entry.size_bytes) / BLOCK_BYTES;
                (Extent::new(entry.address_bytes / BLOCK_BYTES, count), count)
            };
            header.entries.iter().map(run).collect()
        }
        AnyHeader::V2(header) => {
            let stored = |entry: &&Entry| entry.payload_blocks() > 0;
            let run = |entry: &Entry| Some((entry.extent()?, entry.payload_blocks()));
            header.entries.iter().filter(stored).filter_map(run).collect()
        }
    }
}

/// Cuts moves into such as one object holds each.
fn batches(moves: Vec<Move>, blocks_max: u64) -> Vec<Vec<Move>> {
    let mut batches: Vec<Vec<Move>> = Vec::new();
    let mut blocks = u64::MAX;
    for mut one in moves {
        while one.extent.count.0 > 0 {
            if blocks >= blocks_max || batches.last().is_none_or(|batch| batch.len() >= ENTRIES_MAX) {
                batches.push(Vec::new());
                blocks = 0;
            }
            let count = one.extent.count.0.min(blocks_max - blocks);
            let part = Move { extent: Extent::new(one.extent.start.0, count), ..one };
            batches.last_mut().expect("one was pushed").push(part);
            blocks += count;
            one.extent = Extent::new(one.extent.start.0 + count, one.extent.count.0 - count);
            one.ordinal.0 += u32::try_from(count).expect("a payload has fewer than 2^32 blocks");
        }
    }
    batches
}

/// One read of a source: its moves, and the blocks of the payload that cover them.
struct SourceRead {
    moves: Vec<(usize, Move)>,
    first: u32,
    end: u32,
}

/// Blocks between two moves of one source that are read along rather than asked for twice.
const READ_GAP_BLOCKS: u32 = 32;
/// Blocks of one read at most.
const READ_BLOCKS_MAX: u32 = 1024;

/// The reads that bring the contents of moves.
fn sources(moves: &[Move]) -> Vec<SourceRead> {
    let mut by_source: Vec<(usize, Move)> = moves.iter().copied().enumerate().collect();
    by_source.sort_unstable_by_key(|(_, one)| (one.object.identity.number, one.ordinal));
    let mut reads: Vec<SourceRead> = Vec::new();
    for (nth, one) in by_source {
        let first = one.ordinal.0;
        let end = first + u32::try_from(one.extent.count.0).expect("a payload has fewer than 2^32 blocks");
        match reads.last_mut() {
            Some(read)
                if read.moves[0].1.object.identity == one.object.identity
                    && first <= read.end + READ_GAP_BLOCKS
                    && end - read.first <= READ_BLOCKS_MAX =>
            {
                read.end = read.end.max(end);
                read.moves.push((nth, one));
            }
            _ => reads.push(SourceRead { moves: vec![(nth, one)], first, end }),
        }
    }
    reads
}

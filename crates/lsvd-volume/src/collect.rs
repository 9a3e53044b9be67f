//! Garbage collection: blocks that are still live in objects that mostly are not are written again, so that the old
//! objects die.
//!
//! One round at a time: victims, their headers, what of them is live, its bytes, and a new object that the engine numbers.
//! Knows when to begin and to stop; which blocks, the engine says. It yields: near the target four turns in five are
//! left to clients who wait for a flush, and rounds have pauses between them, which get shorter the further it is above.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use lsvd_engine::{Location, Move, ObjectIndex, ObjectState, Purpose};
use lsvd_format::log_object::Entry;
use lsvd_format::{AnyHeader, BLOCK_BYTES, BLOCK_LEN, BlockOrdinal, Extent};
use tokio::time::Instant;

use crate::core::Core;
use crate::{CollectOptions, Error};

/// Victims of one round at most: their headers and runs are in memory.
const VICTIMS_MAX: usize = 64;
/// Reads of victims at once.
const READS_AT_ONCE: usize = 8;
/// Entries of one object of relocations at most.
const ENTRIES_MAX: usize = 8192;
/// Objects with less than this share of a full batch are small.
const SMALL_SHARE: u64 = 8;
/// This far above its target a volume is collected all the time.
const FAR_ABOVE: f64 = 0.2;
/// Then a turn lasts this long, before checkpoints and deletion have theirs.
const TURN_MAX: Duration = Duration::from_secs(1);
/// Turns in a row that are left to clients who wait for a flush.
const YIELDS_MAX: u32 = 4;
/// Small objects are merged when there are this many.
const SMALL_MANY: usize = 128;

pub(crate) struct Collector {
    core: Arc<Core>,
    options: CollectOptions,
    batch_bytes_max: u64,
    /// Above the target, and not back below where it ends.
    collecting: bool,
    pause_until: Instant,
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

impl Collector {
    pub(crate) fn new(core: Arc<Core>, options: CollectOptions, batch_bytes_max: u64) -> Self {
        Self { core, options, batch_bytes_max, collecting: false, pause_until: Instant::now(), yielded: 0 }
    }

    /// Collects for a while, if it is due.
    ///
    /// # Errors
    /// The store's, or what ended the volume.
    pub(crate) async fn round(&mut self) -> Result<(), Error> {
        if Instant::now() < self.pause_until {
            return Ok(());
        }
        let Some(purpose) = self.purpose() else { return Ok(()) };
        // A client that always flushes must not keep the space for ever.
        if self.core.is_flush_awaited() && self.yielded < YIELDS_MAX && self.share() < 1.0 {
            self.yielded += 1;
            return Ok(());
        }
        self.yielded = 0;
        let began = Instant::now();
        loop {
            let collected = self.collect(purpose).await?;
            if collected.objects == 0 {
                self.collecting = false;
            }
            // The nearer to the target, the longer the pause; far above it there is none.
            let share = self.share();
            if share < 1.0 || collected.objects == 0 || began.elapsed() > TURN_MAX {
                self.pause_until = Instant::now() + began.elapsed().mul_f64(1.0 / share - 1.0);
                return Ok(());
            }
        }
    }

    /// The share of time to collect in, from the configured one at the target to all of it.
    fn share(&self) -> f64 {
        let above = (self.core.totals().amplification() - self.options.target).max(0.0);
        (self.options.share + above / FAR_ABOVE * (1.0 - self.options.share)).min(1.0)
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
        // Looking at each object takes the engine's lock: only where the average object is small.
        if totals.objects < SMALL_MANY as u64
            || totals.payload_blocks / totals.objects >= self.batch_blocks() / 2
        {
            return None;
        }
        let small = self.small();
        let many = self.core.engine(|engine| engine.victims(small, u64::MAX, SMALL_MANY).len());
        (many >= SMALL_MANY).then_some(small)
    }

    fn batch_blocks(&self) -> u64 {
        self.batch_bytes_max / BLOCK_BYTES
    }

    fn small(&self) -> Purpose {
        Purpose::Small { below_blocks: self.batch_blocks() / SMALL_SHARE }
    }

    /// Collects a few objects.
    pub(crate) async fn collect(&self, purpose: Purpose) -> Result<Collected, Error> {
        let blocks = self.batch_blocks();
        let victims = self.core.engine(|engine| engine.victims(purpose, blocks, VICTIMS_MAX));
        let mut collected = Collected::default();
        for (_, state) in &victims {
            collected.objects += 1;
            collected.object_bytes += state.record.object_bytes();
        }
        if victims.is_empty() || (victims.len() == 1 && matches!(purpose, Purpose::Small { .. })) {
            return Ok(Collected::default());
        }
        let runs = self.payload_runs(&victims).await?;
        let moves = self.core.with_regions(|engine| engine.moves(&runs)).await?;
        if moves.is_empty() {
            return Ok(Collected::default()); // clients have overwritten all of it, which is on its way
        }
        for moves in batches(moves, blocks) {
            collected.moved_bytes += lsvd_engine::moved_bytes(&moves);
            let payload = self.fetch(&moves).await?;
            self.core.collected(moves, payload).await?;
        }
        tracing::debug!(volume = %self.core.store().label(), ?collected, "collected");
        Ok(collected)
    }

    /// Where each run of the victims' payloads was written.
    async fn payload_runs(
        &self,
        victims: &[(ObjectIndex, ObjectState)],
    ) -> Result<Vec<(Extent, Location)>, Error> {
        let store = self.core.store();
        let headers = futures::stream::iter(victims.iter().copied()).map(async |(index, state)| {
            let number = state.record.identity.number;
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
    async fn fetch(&self, moves: &[Move]) -> Result<Vec<Bytes>, Error> {
        let fetcher = self.core.fetcher();
        let reads = futures::stream::iter(sources(moves)).map(async |read: SourceRead| {
            let blocks = read.end - read.first;
            let bytes =
                fetcher.read_past_cache(read.moves[0].1.object, BlockOrdinal(read.first), blocks).await?;
            Ok::<_, Error>((read, bytes))
        });
        let mut payload = vec![Bytes::new(); moves.len()];
        let mut reads = reads.buffer_unordered(READS_AT_ONCE);
        while let Some(read) = reads.next().await {
            let (read, bytes) = read?;
            for (nth, one) in read.moves {
                let from = (one.ordinal.0 - read.first) as usize * BLOCK_LEN;
                let len = usize::try_from(one.extent.count.0).expect("it is in memory") * BLOCK_LEN;
                payload[nth] = bytes.slice(from..from + len);
            }
        }
        // Copied together, so that a few small live blocks do not hold the whole reads.
        let mut all = BytesMut::with_capacity(payload.iter().map(Bytes::len).sum());
        payload.iter().for_each(|piece| all.extend_from_slice(piece));
        Ok(vec![all.freeze()])
    }
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

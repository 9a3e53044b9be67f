//! What a volume that is open for writing does behind its clients: checkpoints, and giving back what nothing refers to.
//!
//! One task that looks now and then whether something is due, and does one thing at a time; collection has a task of its
//! own beside it, as a checkpoint of a large volume takes a while. Knows when; how, its rooms know. What fails for now is
//! tried again later; only another writer ends the volume.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lsvd_format::superblock::CheckpointRef;
use lsvd_format::{BLOCK_BYTES, SequenceNumber};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::checkpoint::{CHECKPOINTS_KEPT, Checkpointer};
use crate::collect::Collector;
use crate::core::Core;
use crate::named::NamedState;
use crate::reclaim::Reclaimer;
use crate::{Error, UpkeepOptions};

/// The first checkpoint of a long tail is put off while each of its regions would cost more than this many objects' worth
/// of headers saves: see [`Upkeep::checkpoint_is_due`].
const TAIL_FACTOR_MAX: u64 = 8;
/// What a region costs in a checkpoint, at its worst, in bytes.
const REGION_BYTES: u64 = 110 << 10;
/// A checkpoint is written early when what died and waits for one is this share of what is live,
const DEAD_SHARE: u64 = 10;
/// and so many times what the checkpoint stores at its worst.
const DEAD_TIMES: u64 = 4;
/// Wait after a failure.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

pub(crate) struct Upkeep {
    pub(crate) core: Arc<Core>,
    named: NamedState,
    pub(crate) options: UpkeepOptions,
    checkpointer: Checkpointer,
    pub(crate) reclaimer: Reclaimer,
    pub(crate) collector: Arc<Mutex<Collector>>,
    /// When the last checkpoint was written, and the next number then.
    checkpointed: Instant,
    /// The newest checkpoint when it was last looked whether something died.
    advanced: Option<SequenceNumber>,
    /// Bytes of all objects that had died at the last checkpoint, and at the one before.
    died_bytes: [u64; CHECKPOINTS_KEPT],
}

impl Upkeep {
    pub(crate) fn new(
        core: Arc<Core>,
        (named, unusable): (NamedState, Vec<CheckpointRef>),
        options: UpkeepOptions,
        batch_bytes_max: u64,
    ) -> Self {
        let checkpointer = Checkpointer::new(core.clone(), named.clone(), unusable);
        let reclaimer = Reclaimer::new(core.clone(), named.clone(), options.delete_after);
        let collector = Collector::new(core.clone(), options.collect, options.look_every, batch_bytes_max);
        let collector = Arc::new(Mutex::new(collector));
        let died_bytes = [core.totals().dead_object_bytes; CHECKPOINTS_KEPT];
        let (checkpointed, advanced) = (Instant::now(), None);
        Self { core, named, options, checkpointer, reclaimer, collector, checkpointed, advanced, died_bytes }
    }

    pub(crate) fn named(&self) -> &NamedState {
        &self.named
    }

    /// Runs until the volume ends; whoever holds the lock meanwhile does it in its place.
    pub(crate) async fn run(upkeep: Arc<Mutex<Self>>, look_every: Duration) {
        loop {
            tokio::time::sleep(look_every).await;
            let mut one = upkeep.lock().await;
            let done = one.round().await;
            match done {
                Ok(()) => {}
                Err(error @ Error::Fenced { .. }) => return one.core.end(error),
                Err(error) => {
                    drop(one);
                    tracing::warn!("upkeep is tried again in {} s: {error}", PAUSE_AFTER_FAILURE.as_secs());
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }

    async fn round(&mut self) -> Result<(), Error> {
        if self.checkpoint_is_due() {
            self.write_checkpoint().await?;
        }
        self.advance_for_the_dead().await?;
        self.reclaimer.round().await
    }

    /// Bytes of all objects that have died since the opening, or were dead then.
    fn died_bytes(&self) -> u64 {
        self.core.totals().dead_object_bytes + self.core.deleted_bytes()
    }

    /// What died behind the older one of two checkpoints goes when a third one is written, for which nothing may ever be
    /// due in a volume that is idle: then an object that changes nothing makes the log go on.
    async fn advance_for_the_dead(&mut self) -> Result<(), Error> {
        if self.core.tail().objects > 0 || self.checkpointed.elapsed() < self.options.checkpoint_age {
            return Ok(());
        }
        let kept = self.named.get().await.checkpoints;
        let (Some(oldest), Some(newest)) = (kept.first(), kept.last()) else { return Ok(()) };
        if self.advanced == Some(newest.stamp.as_of) {
            return Ok(());
        }
        self.advanced = Some(newest.stamp.as_of);
        let after = if kept.len() < CHECKPOINTS_KEPT { SequenceNumber(0) } else { oldest.stamp.as_of };
        let died_bytes = self.core.engine(|engine| engine.prefix().died_bytes(after, newest.stamp.as_of));
        if died_bytes > self.options.collect.waste_bytes_min {
            self.core.collected(Vec::new(), Vec::new()).await?;
        }
        Ok(())
    }

    /// Objects with a payload of which nothing is live as of the newest checkpoint: they may go when it is the older of two.
    pub(crate) async fn dead_in_the_newest_checkpoint(&self) -> BTreeSet<SequenceNumber> {
        let kept = self.named.get().await.checkpoints;
        let newest = kept.last().map_or(SequenceNumber(0), |newest| newest.stamp.as_of);
        self.core.engine(|engine| {
            let objects = engine.prefix().objects().own();
            let with_payload = objects.filter(|(_, state)| state.record.payload_blocks > 0);
            let dead = with_payload.filter(|(_, state)| state.died_at.is_some_and(|at| at <= newest));
            dead.map(|(_, state)| state.record.identity.number).collect()
        })
    }

    /// Writes a checkpoint; `false` if an object is just being applied.
    pub(crate) async fn write_checkpoint(&mut self) -> Result<bool, Error> {
        let died_bytes = self.died_bytes();
        let written = self.checkpointer.write().await?.is_some();
        if written {
            self.died_bytes = [died_bytes, self.died_bytes[0]];
            self.checkpointed = Instant::now();
        }
        Ok(written)
    }

    /// A checkpoint is due when the tail is long or old: long enough that its data is worth more than what the checkpoint
    /// stores, but never longer than some times the usual length, as openings wait for it. Or when much is dead that two
    /// checkpoints have to know of before it can go, and it is much more than this one stores.
    fn checkpoint_is_due(&self) -> bool {
        let tail = self.core.tail();
        let most = self.options.checkpoint_objects;
        let old = self.checkpointed.elapsed() >= self.options.checkpoint_age;
        let cheap = tail.bytes >= 4 * REGION_BYTES * tail.changed_regions;
        let waits = self.died_bytes().saturating_sub(self.died_bytes[1]);
        let live_bytes = self.core.totals().live_blocks * BLOCK_BYTES;
        let much = waits > self.options.collect.waste_bytes_min.max(live_bytes / DEAD_SHARE)
            && waits > DEAD_TIMES * REGION_BYTES * tail.changed_regions;
        let long = tail.objects >= most && cheap || tail.objects >= TAIL_FACTOR_MAX * most;
        // What was made again is stored again, though nothing else is new.
        let anything = tail.objects > 0 || tail.changed_regions > 0;
        anything && (old || long || much)
    }
}

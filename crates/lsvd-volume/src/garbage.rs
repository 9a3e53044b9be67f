//! Upkeep to its end: all that can be given back now is, before the call returns.
//!
//! The same checkpoints, collection and deletes as behind the clients, without their pauses, in the order in which each
//! needs what is before it. Knows what is enough; how, the rooms of upkeep know.

use std::time::Duration;

use lsvd_engine::{Engine, Purpose, Request};
use lsvd_format::log_object::FRAME_BYTES;
use lsvd_format::{BLOCK_BYTES, ObjectFormat};

use crate::Error;
use crate::collect::Collected;
use crate::upkeep::Upkeep;

/// How often it is looked whether what is waited for has come.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// When enough is collected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CollectionGoal {
    /// When the log's objects that hold anything live have no more than this many bytes for each live one.
    Target(f64),
    /// When nothing is live in objects of format 1 any more.
    Format2,
}

/// What could be given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Objects of which nothing is live.
    pub dead_objects: u64,
    /// Their bytes.
    pub dead_bytes: u64,
    /// Objects whose live blocks would be moved.
    pub victims: u64,
    /// Their bytes.
    pub victim_bytes: u64,
    /// Bytes of blocks that would be moved.
    pub move_bytes: u64,
}

/// What was given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenBack {
    /// What was moved for it.
    pub collected: Collected,
    /// Log objects that were deleted.
    pub deleted_objects: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Live blocks of format 1 that are left where the goal was that none are: no relocation can name object 0.
    pub format_1_blocks_left: u64,
}

impl Garbage {
    /// Bytes that the log would have less, but for headers.
    pub fn frees_bytes(&self) -> u64 {
        let moved = self.move_bytes / BLOCK_BYTES * FRAME_BYTES;
        (self.dead_bytes + self.victim_bytes).saturating_sub(moved)
    }
}

/// What a collection with this goal would find now.
pub(crate) fn garbage(engine: &Engine, goal: CollectionGoal) -> Garbage {
    let totals = engine.totals();
    let dead = engine.prefix().objects().iter().filter(|(_, state)| state.live_blocks == 0);
    let mut found = Garbage { dead_bytes: totals.dead_object_bytes, ..Garbage::default() };
    found.dead_objects = dead.count() as u64;
    let (mut held, live) = (totals.held_bytes(), totals.live_blocks * BLOCK_BYTES);
    for (_, state) in engine.victims(purpose(goal), u64::MAX, usize::MAX) {
        if let CollectionGoal::Target(target) = goal
            && ratio(held, live) <= target
        {
            break;
        }
        found.victims += 1;
        found.victim_bytes += state.record.object_bytes();
        found.move_bytes += state.live_blocks * BLOCK_BYTES;
        held = held.saturating_sub(state.record.object_bytes()) + state.live_blocks * FRAME_BYTES;
    }
    found
}

#[allow(clippy::cast_precision_loss)] // a ratio
fn ratio(held_bytes: u64, live_bytes: u64) -> f64 {
    if live_bytes == 0 { 1.0 } else { held_bytes as f64 / live_bytes as f64 }
}

fn purpose(goal: CollectionGoal) -> Purpose {
    match goal {
        CollectionGoal::Target(_) => Purpose::Space,
        CollectionGoal::Format2 => Purpose::Format1,
    }
}

impl Upkeep {
    /// Collects, waits and deletes until nothing is left to do.
    ///
    /// # Errors
    /// The store's, or what ended the volume: what was done is done, and the rest is done by the next call.
    pub(crate) async fn run_to_its_end(&mut self, goal: CollectionGoal) -> Result<GivenBack, Error> {
        let label = self.core.store().label();
        let before = self.core.stats();
        self.checkpoint().await?;
        let collected = self.collect_all(goal).await?;
        self.checkpoint().await?;
        let dead = self.core.engine(|engine| dead_payload(engine));
        if dead {
            // What died with the last object may go when a later checkpoint is the newest of two.
            self.core.collected(Vec::new(), Vec::new()).await?;
            self.checkpoint().await?;
        }
        if !dead && self.reclaimer.is_done().await {
            // Nobody waits for a few objects without a payload: they go with the next others.
            return Ok(GivenBack {
                collected,
                format_1_blocks_left: self.blocks_left(goal),
                ..GivenBack::default()
            });
        }
        self.reclaimer.round().await?;
        if !self.reclaimer.is_done().await {
            let seconds = self.options.delete_after.as_secs_f32();
            tracing::info!(volume = %label, "dead objects are deleted in {seconds} s: readers may be behind");
        }
        while !self.reclaimer.is_done().await {
            tokio::time::sleep(LOOK_EVERY).await;
            self.core.check_ended()?;
            self.reclaimer.round().await?;
        }
        let after = self.core.stats();
        if after.deleted_objects != before.deleted_objects {
            // Again as of the same object: the next opening is not to take them for objects that are there.
            while !self.write_checkpoint().await? {
                tokio::time::sleep(LOOK_EVERY).await;
                self.core.check_ended()?;
            }
        }
        Ok(GivenBack {
            collected,
            deleted_objects: after.deleted_objects - before.deleted_objects,
            deleted_bytes: after.deleted_bytes - before.deleted_bytes,
            format_1_blocks_left: self.blocks_left(goal),
        })
    }

    /// Writes a checkpoint of all that was accepted before.
    async fn checkpoint(&mut self) -> Result<(), Error> {
        self.core.request(Request::Drain).await?;
        self.applied().await?;
        while self.core.tail().objects > 0 && !self.write_checkpoint().await? {
            tokio::time::sleep(LOOK_EVERY).await;
            self.core.check_ended()?;
        }
        Ok(())
    }

    async fn collect_all(&self, goal: CollectionGoal) -> Result<Collected, Error> {
        let mut all = Collected::default();
        loop {
            self.applied().await?;
            let left = self.left(goal);
            if left == 0 {
                break;
            }
            let collected = self.collector.collect(purpose(goal)).await?;
            all.objects += collected.objects;
            all.object_bytes += collected.object_bytes;
            all.moved_bytes += collected.moved_bytes;
            self.applied().await?;
            // A round that wins nothing is the last: so near to 1 headers are more than what comes back.
            if collected.objects == 0 || self.left(goal) >= left {
                break;
            }
            tracing::info!(
                volume = %self.core.store().label(), "{} objects collected, {} bytes moved", all.objects, all.moved_bytes
            );
        }
        Ok(all)
    }

    /// How much is left to collect: 0 at the goal.
    fn left(&self, goal: CollectionGoal) -> u64 {
        match goal {
            CollectionGoal::Format2 => self.core.engine(|engine| format_1_blocks(engine)),
            CollectionGoal::Target(target) => {
                let totals = self.core.totals();
                if totals.amplification() <= target { 0 } else { totals.held_bytes() }
            }
        }
    }

    fn blocks_left(&self, goal: CollectionGoal) -> u64 {
        match goal {
            CollectionGoal::Format2 => self.left(goal),
            CollectionGoal::Target(_) => 0,
        }
    }

    /// Waits until all that is durable is applied.
    async fn applied(&self) -> Result<(), Error> {
        while self.core.engine(|engine| engine.prefix().log().next < engine.first_incomplete()) {
            tokio::time::sleep(LOOK_EVERY).await;
            self.core.check_ended()?;
        }
        Ok(())
    }
}

/// Whether there are objects with a payload of which nothing is live.
fn dead_payload(engine: &Engine) -> bool {
    let objects = engine.prefix().objects();
    objects.iter().any(|(_, state)| state.live_blocks == 0 && state.record.payload_blocks > 0)
}

fn format_1_blocks(engine: &Engine) -> u64 {
    let objects = engine.prefix().objects().iter();
    objects
        .filter(|(_, state)| state.record.format == ObjectFormat::V1)
        .map(|(_, state)| state.live_blocks)
        .sum()
}

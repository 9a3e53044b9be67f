//! Upkeep to its end: all that can be given back now is, before the call returns.
//!
//! The same checkpoints, collection and deletes as behind the clients, without their pauses, in the order in which each
//! needs what is before it. Knows what is enough; how, the rooms of upkeep know.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lsvd_engine::{Choice, Purpose, Request};
use lsvd_format::log_object::FRAME_BYTES;
use lsvd_format::{BLOCK_BYTES, ObjectFormat, SequenceNumber};
use tokio::sync::Mutex;

use crate::Error;
use crate::collect::Collected;
use crate::core::Core;
use crate::upkeep::Upkeep;

/// How often it is looked whether what is waited for is deleted: that looks through all objects.
const DELETED_LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether what is waited for has come.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Rounds in a row after which no less is left than before. One of them may well win nothing: where every second block was
/// written anew it moves those between along, and their objects are for the next rounds.
const IN_VAIN_MAX: u32 = 8;

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

/// How far a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectionStep {
    /// This was moved so far.
    Collected(Collected),
    /// Moved is what was to be. Dead objects are left for this long after it is recorded that they are dead, for readers that
    /// are behind; then they are deleted.
    Waiting {
        /// [`crate::UpkeepOptions::delete_after`].
        delete_after: Duration,
    },
}

impl Garbage {
    /// Bytes that the log would have less, but for headers.
    pub fn frees_bytes(&self) -> u64 {
        let moved = self.move_bytes / BLOCK_BYTES * FRAME_BYTES;
        (self.dead_bytes + self.victim_bytes).saturating_sub(moved)
    }
}

/// What a collection with this goal would find now.
pub(crate) fn garbage(core: &Core, goal: CollectionGoal) -> Garbage {
    let totals = core.totals();
    let mut found = Garbage { dead_bytes: totals.dead_object_bytes, ..Garbage::default() };
    core.each_own_object(|state| found.dead_objects += u64::from(state.live_blocks == 0));
    let (mut held, live) = (totals.held_bytes(), totals.live_blocks * BLOCK_BYTES);
    let choice = core.choose(Choice::new(purpose(goal), usize::MAX), &BTreeSet::new());
    for (_, state) in choice.victims(u64::MAX) {
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

/// Collects, waits and deletes until what was garbage is gone. The lock is let go between steps, so that checkpoints and
/// deletes behind the clients go on meanwhile.
///
/// # Errors
/// The store's, or what ended the volume: what was done is done, and the rest is done by the next call.
pub(crate) async fn run_to_its_end(
    upkeep: &Mutex<Upkeep>,
    goal: CollectionGoal,
    tell: &(dyn Fn(CollectionStep) + Send + Sync),
) -> Result<GivenBack, Error> {
    let (core, delete_after) = {
        let one = upkeep.lock().await;
        (one.core.clone(), one.options.delete_after)
    };
    let before = core.stats();
    checkpoint(upkeep, &core).await?;
    let collected = collect_all(upkeep, &core, goal, tell).await?;
    checkpoint(upkeep, &core).await?;
    // What clients make garbage from here on is not waited for: it would never end.
    let awaited = upkeep.lock().await.dead_in_the_newest_checkpoint().await;
    let dead = !awaited.is_empty();
    if dead {
        // What died with the last object may go when a later checkpoint is the newest of two.
        core.collected(Vec::new(), Vec::new()).await?;
        checkpoint(upkeep, &core).await?;
    }
    let outstanding = upkeep.lock().await.reclaimer.outstanding().await;
    if !dead && outstanding.is_empty() {
        // Nobody waits for a few objects without a payload: they go with the next others.
        let format_1_blocks_left = blocks_left(&core, goal);
        return Ok(GivenBack { collected, format_1_blocks_left, ..GivenBack::default() });
    }
    // Nor is what a snapshot or the history keeps.
    let may_go = upkeep.lock().await.reclaimer.may_go().await;
    let mut awaited = &(&awaited & &may_go) | &outstanding;
    upkeep.lock().await.reclaimer.round().await?;
    if !delete(upkeep, &mut awaited).await? {
        tell(CollectionStep::Waiting { delete_after });
    }
    while !delete(upkeep, &mut awaited).await? {
        tokio::time::sleep(DELETED_LOOK_EVERY).await;
        core.check_ended()?;
    }
    let after = core.stats();
    if after.deleted_objects != before.deleted_objects {
        // Again as of the same object: the next opening is not to take them for objects that are there.
        while !upkeep.lock().await.write_checkpoint().await? {
            tokio::time::sleep(LOOK_EVERY).await;
            core.check_ended()?;
        }
    }
    Ok(GivenBack {
        collected,
        deleted_objects: after.deleted_objects - before.deleted_objects,
        deleted_bytes: after.deleted_bytes - before.deleted_bytes,
        format_1_blocks_left: blocks_left(&core, goal),
    })
}

/// Deletes what is due; whether all that is awaited is deleted, and off the list.
async fn delete(upkeep: &Mutex<Upkeep>, awaited: &mut BTreeSet<SequenceNumber>) -> Result<bool, Error> {
    let mut one = upkeep.lock().await;
    one.reclaimer.round().await?;
    let waits_for = &one.reclaimer.outstanding().await | &one.reclaimer.may_go().await;
    awaited.retain(|number| waits_for.contains(number));
    if !awaited.is_empty() {
        return Ok(false);
    }
    // Once more, so that the superblock's list says so, too.
    one.reclaimer.round().await?;
    Ok(true)
}

/// Writes a checkpoint of all that was accepted before.
async fn checkpoint(upkeep: &Mutex<Upkeep>, core: &Arc<Core>) -> Result<(), Error> {
    core.request(Request::Drain).await?;
    applied(core).await?;
    while core.tail().objects > 0 && !upkeep.lock().await.write_checkpoint().await? {
        tokio::time::sleep(LOOK_EVERY).await;
        core.check_ended()?;
    }
    Ok(())
}

async fn collect_all(
    upkeep: &Mutex<Upkeep>,
    core: &Core,
    goal: CollectionGoal,
    tell: &(dyn Fn(CollectionStep) + Send + Sync),
) -> Result<Collected, Error> {
    let mut all = Collected::default();
    let (mut least_left, mut in_vain) = (u64::MAX, 0);
    loop {
        applied(core).await?;
        let left = left(core, goal);
        in_vain = if left < least_left { 0 } else { in_vain + 1 };
        least_left = least_left.min(left);
        // So near to 1 headers are more than what comes back.
        if left == 0 || in_vain == IN_VAIN_MAX {
            break;
        }
        let collector = upkeep.lock().await.collector.clone();
        let collected = collector.lock().await.collect(purpose(goal)).await?;
        all.objects += collected.objects;
        all.object_bytes += collected.object_bytes;
        all.moved_bytes += collected.moved_bytes;
        if collected.objects == 0 {
            break;
        }
        tell(CollectionStep::Collected(all));
    }
    Ok(all)
}

/// How much is left to collect: 0 at the goal.
fn left(core: &Core, goal: CollectionGoal) -> u64 {
    match goal {
        CollectionGoal::Format2 => format_1_blocks(core),
        CollectionGoal::Target(target) => {
            let totals = core.totals();
            if totals.amplification() <= target { 0 } else { totals.held_bytes() }
        }
    }
}

fn blocks_left(core: &Core, goal: CollectionGoal) -> u64 {
    match goal {
        CollectionGoal::Format2 => left(core, goal),
        CollectionGoal::Target(_) => 0,
    }
}

/// Waits until all that is durable by now is applied.
pub(crate) async fn applied(core: &Core) -> Result<(), Error> {
    let durable = core.engine(|engine| engine.first_incomplete());
    while core.engine(|engine| engine.prefix().log().next < durable) {
        tokio::time::sleep(LOOK_EVERY).await;
        core.check_ended()?;
    }
    Ok(())
}

fn format_1_blocks(core: &Core) -> u64 {
    let mut blocks = 0;
    core.each_own_object(|state| {
        if state.record.format == ObjectFormat::V1 {
            blocks += state.live_blocks;
        }
    });
    blocks
}

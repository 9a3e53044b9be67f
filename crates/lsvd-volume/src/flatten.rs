//! Flattening a clone: what is live in its parents' objects is moved into own ones, by collection, until it needs none of them;
//! then a superblock version says so.
//!
//! Knows the order, and what may still need a parent: the map, a kept checkpoint, a snapshot. Stopped at any step, the next call goes
//! on, as nothing is remembered but what the store has. Invariant: the version that drops the parents names no checkpoint
//! that has an object or a part of theirs.

use std::sync::Arc;
use std::time::Duration;

use lsvd_engine::{Purpose, Request};
use lsvd_format::BLOCK_BYTES;
use lsvd_format::superblock::{CheckpointRef, Parent, Superblock};
use tokio::sync::Mutex;

use crate::core::Core;
use crate::garbage::applied;
use crate::reclaim::roots_to_keep;
use crate::regions::read_root;
use crate::upkeep::Upkeep;
use crate::{Error, Volume};

/// Regions that are stored again by one checkpoint.
const REGIONS_AT_ONCE: usize = 256;
/// How often it is looked whether what is waited for has come.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Rounds of collection in a row that moved nothing, as clients had overwritten all of it.
const IN_VAIN_MAX: u32 = 100;
/// Checkpoints that lead to two that know nothing of the parents any more, unless the history keeps older ones.
const CHECKPOINTS_MAX: u32 = 8;

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flattened {
    /// The volume that it was cloned from, with which it shares nothing any more: that may give up what it keeps for it
    /// ([`Volume::remove_snapshot`]). `None` if it shared nothing before.
    pub parent: Option<Parent>,
    /// Bytes of blocks that were copied by this call.
    pub moved_bytes: u64,
}

/// How far a flattening is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlattenStep {
    /// Bytes of blocks that were copied by this call.
    pub moved_bytes: u64,
    /// Bytes of live blocks that are still the parents'.
    pub left_bytes: u64,
}

impl Volume {
    /// Has a clone share nothing with its parents any more: copies what is live of theirs, while clients go on. A call that was cut
    /// short is finished by the next.
    ///
    /// # Errors
    /// [`Error::NeedsParent`] if all is copied, but a snapshot or the history needs the parents still: it says what to do.
    /// [`Error::Corrupt`] and [`Error::Missing`] if a block can not be copied; the store's, or what ended the volume.
    pub async fn flatten(&self, tell: &(dyn Fn(FlattenStep) + Send + Sync)) -> Result<Flattened, Error> {
        self.check_writable()?;
        let named = self.named();
        let Some(parent) = named.get().await.parent().cloned() else {
            return Ok(Flattened { parent: None, moved_bytes: 0 });
        };
        let Some(upkeep) = self.upkeep() else {
            return Err(Error::Closed { volume: self.label() });
        };
        let flattened = flatten(upkeep, tell).await;
        if let Err(error @ Error::Fenced { .. }) = &flattened {
            self.core().end(error.clone());
        }
        Ok(Flattened { parent: Some(parent), moved_bytes: flattened? })
    }
}

async fn flatten(upkeep: &Mutex<Upkeep>, tell: &(dyn Fn(FlattenStep) + Send + Sync)) -> Result<u64, Error> {
    let core = upkeep.lock().await.core.clone();
    let moved_bytes = move_all(upkeep, &core, tell).await?;
    store_all_regions(upkeep, &core).await?;
    for _ in 0..CHECKPOINTS_MAX {
        {
            // Under this lock nobody else writes a checkpoint.
            let mut one = upkeep.lock().await;
            one.reclaimer.round().await?;
            if cut(&one, &core).await? {
                return Ok(moved_bytes);
            }
        }
        core.collected(Vec::new(), Vec::new()).await?;
        checkpoint(upkeep, &core).await?;
        // What clients trim or write meanwhile brings nothing of the parents' back.
        store_all_regions(upkeep, &core).await?;
    }
    let what = "its history keeps checkpoints that need the parent: flatten it again when they are gone, or make the history \
                shorter";
    Err(needs_parent(&core, what.to_owned()))
}

/// Moves what is live of parents' objects.
async fn move_all(
    upkeep: &Mutex<Upkeep>,
    core: &Arc<Core>,
    tell: &(dyn Fn(FlattenStep) + Send + Sync),
) -> Result<u64, Error> {
    let collector = upkeep.lock().await.collector.clone();
    let (mut moved_bytes, mut in_vain) = (0, 0);
    loop {
        applied(core).await?;
        let left_bytes = core.totals().shared_blocks * BLOCK_BYTES;
        tell(FlattenStep { moved_bytes, left_bytes });
        if left_bytes == 0 {
            return Ok(moved_bytes);
        }
        let collected = collector.lock().await.collect(Purpose::Shared).await?;
        moved_bytes += collected.moved_bytes;
        if collected.objects > 0 {
            in_vain = 0;
            continue;
        }
        in_vain += 1;
        let (own_from, lossy) =
            core.engine(|engine| (engine.prefix().objects().own_from(), engine.prefix().is_lossy()));
        let damaged = core.wounds().passed_over.range(..own_from).next().is_some();
        if in_vain < IN_VAIN_MAX && !damaged {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        let shared = core.engine(|engine| {
            let mut shared = engine.prefix().objects().shared();
            shared.find(|(_, state)| state.live_blocks > 0).map(|(_, state)| state.record.identity.number)
        });
        let Some(number) = shared else { continue };
        let store = core.store().store_of(number)?;
        if lossy {
            let what = format!(
                "a part of its map was lost, and what that was may be in '{}' of the parent, which therefore stays: copy what can \
                 be read into another volume",
                store.log_name(number)
            );
            return Err(needs_parent(core, what));
        }
        let reason = "blocks of it can not be copied; write them anew, or discard them";
        return Err(store.corrupt(store.log_name(number), reason));
    }
}

/// Has all regions of the map stored by the volume itself.
async fn store_all_regions(upkeep: &Mutex<Upkeep>, core: &Arc<Core>) -> Result<(), Error> {
    checkpoint(upkeep, core).await?;
    loop {
        let shared = core.engine(|engine| engine.shared_regions(REGIONS_AT_ONCE));
        if shared.is_empty() {
            return Ok(());
        }
        core.with_regions(|engine| engine.store_again(&shared)).await?;
        write(upkeep, core).await?;
    }
}

/// Drops the parents, if nothing needs them.
///
/// # Errors
/// [`Error::NeedsParent`] if a snapshot does.
async fn cut(upkeep: &Upkeep, core: &Arc<Core>) -> Result<bool, Error> {
    let known = core.engine(|engine| {
        engine.prefix().objects().shared().next().is_some() || !engine.shared_regions(1).is_empty()
    });
    let superblock = upkeep.named().get().await;
    let own_from = superblock.log_first_number;
    let mut free: Vec<CheckpointRef> = Vec::new();
    for checkpoint in roots_to_keep(&superblock) {
        let root = read_root(core.store(), core.volume_id(), &checkpoint).await?;
        let shares = root.objects.iter().any(|object| object.identity.number < own_from)
            || root.parts.iter().any(|part| part.part.as_of < own_from);
        if !shares {
            free.push(checkpoint);
        }
    }
    let kept = |superblock: &Superblock| {
        let snapshots = superblock.moments.snapshots.iter();
        let needs = snapshots.filter(|of| of.base.is_none_or(|base| !free.contains(&base)));
        needs.map(|of| (of.name.clone(), of.base)).collect::<Vec<_>>()
    };
    // One that is read from a kept checkpoint may only need that one to be older.
    let held: Vec<String> = kept(&superblock).into_iter().map(|(name, _)| name).collect();
    if !held.is_empty() {
        let what =
            format!("its snapshots {} need the parent: remove them, and flatten it again", held.join(", "));
        return Err(needs_parent(core, what));
    }
    if known
        || superblock.checkpoints.len()
            != free.iter().filter(|of| superblock.checkpoints.contains(of)).count()
    {
        return Ok(false);
    }
    let mut dropped = false;
    let update = upkeep.named().update(|superblock| {
        // Of this very version: a snapshot may have come meanwhile.
        let all_free = roots_to_keep(superblock).iter().all(|of| free.contains(of));
        dropped = all_free && kept(superblock).is_empty() && superblock.checkpoints.len() >= 2;
        if dropped {
            *superblock = superblock.clone().without_parents();
        }
    });
    update.await?;
    Ok(dropped)
}

fn needs_parent(core: &Core, what: String) -> Error {
    Error::NeedsParent { volume: core.store().label(), what }
}

/// Writes a checkpoint of all that was accepted before, if there is anything.
async fn checkpoint(upkeep: &Mutex<Upkeep>, core: &Arc<Core>) -> Result<(), Error> {
    core.request(Request::Drain).await?;
    applied(core).await?;
    match core.tail().objects {
        0 => Ok(()),
        _ => write(upkeep, core).await,
    }
}

async fn write(upkeep: &Mutex<Upkeep>, core: &Arc<Core>) -> Result<(), Error> {
    while !upkeep.lock().await.write_checkpoint().await? {
        tokio::time::sleep(LOOK_EVERY).await;
        core.check_ended()?;
    }
    Ok(())
}

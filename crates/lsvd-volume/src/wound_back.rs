//! A log whose newest objects were deleted by hand, to wind the volume back: what is left of it, and what goes with it.
//!
//! Knows when all that the new end needs is still there: never a guess. Invariant: what a superblock names beside the log, and
//! lies behind its new end, is dropped before anything is written there.

use lsvd_format::superblock::{CheckpointRef, Moments, Superblock};
use lsvd_format::{SuperblockNumber, names};

use crate::moments::live_but_gone;
use crate::recovery::{Recovered, recover, replay_log};
use crate::store::{Put, VolumeStore};
use crate::{Environment, Error};

/// Recovers the volume as of the end of what is left of its log: behind a checkpoint that it still reaches, or from its
/// beginning.
///
/// # Errors
/// [`Error::Corrupt`] if something is missing that this end needs; it names the oldest moment that can be reached.
pub(crate) async fn recover_shorter(
    store: &VolumeStore,
    superblock: &Superblock,
) -> Result<Recovered, Error> {
    let gone = match recover(store, superblock, false).await {
        Ok(recovered) => match live_but_gone(store, superblock, &recovered).await?.first() {
            None => return Ok(recovered),
            Some(gone) => store.log_name(*gone),
        },
        Err(Error::Corrupt { object, .. }) if !superblock.checkpoints.is_empty() => object,
        Err(error) => return Err(error),
    };
    let line = superblock.own_line();
    if !superblock.is_cut()
        && let Some(recovered) = replay_log(store, superblock, &line, None, true).await?.whole()
    {
        let ends_there = recovered.damage.is_none() && recovered.strays.is_empty();
        let begins = recovered.replay.objects_processed() > 0;
        if ends_there && begins && live_but_gone(store, superblock, &recovered).await?.is_empty() {
            return Ok(Recovered { unusable: superblock.checkpoints.clone(), ..recovered });
        }
    }
    let oldest = superblock.checkpoints.first().map_or(superblock.log_first_number, |kept| kept.stamp.as_of);
    let reason = format!(
        "it is missing, and the volume needs it as of number {oldest}, the oldest moment that can be reached: what is left of \
         the log ends before that, and what lies there needs objects that were deleted long ago; restore the objects up to \
         number {oldest}"
    );
    Err(store.corrupt(gone, reason))
}

/// Drops what lies behind the new end: checkpoints, and snapshots that can not be read any more.
pub(crate) async fn drop_what_lies_behind(
    store: &VolumeStore,
    environment: &Environment,
    recovered: &Recovered,
    (number, superblock): (&mut SuperblockNumber, &mut Superblock),
) -> Result<(), Error> {
    let (next, line) = (recovered.replay.next_number(), superblock.own_line());
    let reached = |of: &CheckpointRef| of.stamp.as_of < next && !recovered.unusable.contains(of);
    let kept: Vec<CheckpointRef> = superblock.checkpoints.iter().filter(|of| reached(of)).copied().collect();
    let (snapshots, lost): (Vec<_>, Vec<_>) = superblock
        .moments
        .snapshots
        .iter()
        .cloned()
        .partition(|snapshot| snapshot.as_of < next || !line.contains(snapshot.as_of));
    // What it needs of what is left may die and go: then nobody could read it.
    if let Some(clone) = lost.iter().find_map(|snapshot| snapshot.clone.as_ref()) {
        return Err(Error::Invalid(format!(
            "what is left of the log of volume '{}' ends before the moment that its clone at {} (from there) needs: restore the \
             objects, or remove the clone",
            store.label(),
            clone.path
        )));
    }
    if kept.len() == superblock.checkpoints.len() && lost.is_empty() {
        return Ok(());
    }
    for snapshot in lost {
        tracing::warn!(volume = %store.label(), "snapshot {} went with the objects that were deleted", snapshot.name);
    }
    let mut dropped = superblock.clone().with_checkpoints(kept);
    dropped = dropped.with_moments(Moments { snapshots, ..superblock.moments.clone() });
    dropped.written_unix_ms = (environment.now_unix_ms)();
    if dropped.checkpoints.len() < crate::checkpoint::CHECKPOINTS_KEPT {
        // They are condemned again when two checkpoints hold that they are dead.
        dropped.condemned.clear();
    }
    *number = number.next();
    if let Put::Theirs(theirs) = store.put_next_superblock(*number, &dropped).await? {
        return Err(Error::Fenced { volume: store.label(), epoch: Some(theirs.epoch) });
    }
    tracing::info!(volume = %store.label(), "{} names what is left", names::superblock(*number));
    *superblock = dropped;
    Ok(())
}

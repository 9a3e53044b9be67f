//! Rolling a volume back: the log goes on from an earlier moment, and what lies between is a branch that stays.
//!
//! Takes the volume over, so that a fence ends the log, and then one superblock version says all of it: where the log goes on,
//! by which checkpoints, with which size, a snapshot of the moment that is left, and that nobody has the volume open. So a
//! crash leaves the volume before or after it, never between. Deletes nothing.

use lsvd_backend::Bucket;
use lsvd_format::names::utc_time;
use lsvd_format::superblock::{
    CheckpointRef, Line, Moments, ROLLBACKS_MAX, Rollback, SNAPSHOTS_MAX, Snapshot, Superblock,
};
use lsvd_format::{ObjectFormat, SequenceNumber};

use crate::guarantees::check_guarantees;
use crate::moments::{Moment, bases, recover_at, try_at};
use crate::occupancy::refuse_if_in_use;
use crate::options::check_options;
use crate::recovery::recover_for_reading;
use crate::store::{Put, VolumeStore};
use crate::takeover::{TakenOver, take_over, written_by};
use crate::{Error, OpenOptions};

/// What a rollback would do, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackPlan {
    /// The last object of the log that counts then.
    pub to: SequenceNumber,
    /// When the last object of data was sealed that it contains, by its writer's clock, in milliseconds since 1970.
    pub sealed_unix_ms: Option<u64>,
    /// Size of the volume then, in bytes.
    pub size_bytes: u64,
    /// Size of the volume before, in bytes.
    pub size_bytes_before: u64,
    /// The last object of the log before.
    pub from: SequenceNumber,
    /// Objects that do not count any more.
    pub left_objects: u64,
    /// Their bytes.
    pub left_bytes: u64,
}

/// A rollback that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// What it did.
    pub plan: RollbackPlan,
    /// The number that the log goes on with.
    pub next: SequenceNumber,
    /// The snapshot of the moment that was left: rolling back to it is the way back.
    pub undo: String,
}

/// Says what rolling the volume on `bucket` back to a moment would do. Writes nothing.
///
/// # Errors
/// [`Error::NoMoment`] if it can not be reached; [`Error::Invalid`] if it is the present; [`Error::NotFound`], or the store's.
pub async fn plan_rollback(bucket: &Bucket, moment: &Moment) -> Result<RollbackPlan, Error> {
    let store = VolumeStore::new(bucket.clone());
    plan(&store, moment).await
}

async fn plan(store: &VolumeStore, moment: &Moment) -> Result<RollbackPlan, Error> {
    let (_, superblock, present) = recover_for_reading(store, false).await?;
    if let Some(damage) = present.damage {
        return Err(damage);
    }
    let at = recover_at(store, moment).await?;
    let from = present.replay.last().map_or(superblock.log_first_number, |(number, _)| number);
    refuse_the_present(store, &at.superblock, at.as_of, from)?;
    let (own, line) = (superblock.own_line(), superblock.line(at.as_of));
    let mut listed = store.list_log(Some(own.fork(&line).unwrap_or(at.as_of))).await?;
    listed.retain(|entry| own.contains(entry.number) && entry.number <= from);
    Ok(RollbackPlan {
        to: at.as_of,
        sealed_unix_ms: at.recovered.replay.last_data().map(|last| last.sealed_unix_ms),
        size_bytes: at.size_bytes,
        size_bytes_before: superblock.size_bytes,
        from,
        left_objects: listed.len() as u64,
        left_bytes: listed.iter().map(|entry| entry.object_bytes).sum(),
    })
}

fn refuse_the_present(
    store: &VolumeStore,
    superblock: &Superblock,
    to: SequenceNumber,
    last: SequenceNumber,
) -> Result<(), Error> {
    if to < last || !superblock.own_line().contains(to) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "volume '{}' is as of number {to} already: there is nothing to roll back",
        store.label()
    )))
}

/// Rolls the volume on `bucket` back to a moment: takes it over as [`crate::Volume::open`] does, and leaves it closed. Who had
/// it is fenced.
///
/// # Errors
/// As for [`plan_rollback`] and [`crate::Volume::open`]: nothing is rolled back then, but for a store's error at the last step,
/// of which [`crate::inspect`] tells what came. [`Error::JournalNeeded`] if a journal is in use: close the volume with it first.
pub async fn rollback(bucket: &Bucket, moment: &Moment, options: OpenOptions) -> Result<RolledBack, Error> {
    // What only a journal holds belongs to the moment that is left, and a log that lost objects is mended first.
    let options = OpenOptions {
        journal: None,
        handover: None,
        abandon_journal: false,
        accept_shorter_log: false,
        ..options
    };
    check_options(&options)?;
    let store = VolumeStore::new(bucket.clone());
    let store = &store;
    // First, so that what can not be done fences nobody.
    let planned = plan(store, moment).await?;
    if let Some(quiet_for) = options.if_free {
        refuse_if_in_use(store, quiet_for, &options.environment).await?;
    }
    let known = check_guarantees(store, &options).await?;
    if store.append_format() == ObjectFormat::V1 {
        return Err(Error::Invalid(format!(
            "volume '{}' writes its log in format 1, which has no rollback: open it read-only as of that moment, and copy it",
            store.label()
        )));
    }
    refuse_too_many(store, &known.1.moments)?;
    let TakenOver { number, superblock, replay, base, .. } =
        take_over(store, &options, (None, None), known).await?;
    let (left, next) = (replay.last().map_or(SequenceNumber(0), |(number, _)| number), replay.next_number());
    let (recovered, to, size_bytes) = try_at(store, &superblock, moment).await?;
    refuse_the_present(store, &superblock, to, left)?;
    refuse_too_many(store, &superblock.moments)?;
    let now_unix_ms = (options.environment.now_unix_ms)();
    let undo = Snapshot {
        name: undo_name(&superblock, now_unix_ms),
        as_of: left,
        base,
        size_bytes: superblock.size_bytes,
        created_unix_ms: now_unix_ms,
        automatic: true,
        clone: None,
    };
    let checkpoints = kept(&superblock, &superblock.line(to), recovered.base);
    let mut moments = superblock.moments.clone();
    moments.snapshots.push(undo.clone());
    moments.rollbacks.push(Rollback { to, next, epoch: superblock.epoch, unix_ms: now_unix_ms });
    let rolled_back = Superblock {
        size_bytes,
        closed_at: Some(to),
        log_reached: Some(to),
        written_unix_ms: now_unix_ms,
        written_by: written_by(),
        ..superblock.clone().with_checkpoints(checkpoints).with_moments(moments)
    };
    let mine = rolled_back.moments.rollbacks.last();
    match store.put_next_superblock(number.next(), &rolled_back).await? {
        Put::Mine => {}
        // Whoever opened it since has taken the rollback along.
        Put::Theirs(theirs) if mine.is_some_and(|mine| theirs.moments.rollbacks.contains(mine)) => {}
        Put::Theirs(theirs) => {
            return Err(Error::Fenced { volume: store.label(), epoch: Some(theirs.epoch) });
        }
    }
    tracing::info!(volume = %store.label(), "rolled back to number {to}; the log goes on with number {next}");
    let plan = RollbackPlan {
        to,
        sealed_unix_ms: recovered.replay.last_data().map(|last| last.sealed_unix_ms),
        size_bytes,
        size_bytes_before: superblock.size_bytes,
        ..planned
    };
    Ok(RolledBack { plan, next, undo: undo.name })
}

fn refuse_too_many(store: &VolumeStore, moments: &Moments) -> Result<(), Error> {
    let refuse = |what: &str| Err(Error::Invalid(format!("volume '{}' {what}", store.label())));
    if moments.snapshots.len() >= SNAPSHOTS_MAX {
        return refuse("has no room for the snapshot of what is left: remove one first");
    }
    if moments.rollbacks.len() >= ROLLBACKS_MAX {
        return refuse("was rolled back as often as it can be");
    }
    Ok(())
}

/// How the snapshots of what rollbacks leave are called: no schedule removes them.
pub(crate) const BEFORE_ROLLBACK: &str = "before-rollback-";

/// A name that no snapshot has.
fn undo_name(superblock: &Superblock, now_unix_ms: u64) -> String {
    let name = format!("{BEFORE_ROLLBACK}{}", utc_time(now_unix_ms));
    let mut names = std::iter::once(name.clone()).chain((2..).map(|nth| format!("{name}.{nth}")));
    names.find(|name| superblock.snapshot(name).is_none()).unwrap_or(name)
}

/// The checkpoints that can be opened with on a line that was recovered from `base`. Behind that one nothing of the line is
/// deleted; behind an older one that is so only if it is kept for the volume's own line, and the line leaves that no earlier
/// than its end.
fn kept(superblock: &Superblock, line: &Line, base: Option<CheckpointRef>) -> Vec<CheckpointRef> {
    let on_own_line = superblock.own_line().contains(line.last());
    // What is newer than the base was tried before it, and does not lead there.
    let from = base.map(|base| base.stamp.as_of);
    let good = |of: &CheckpointRef| {
        let older = from.is_some_and(|from| of.stamp.as_of < from);
        Some(*of) == base || older && on_own_line && superblock.checkpoints.contains(of)
    };
    let mut kept: Vec<CheckpointRef> = bases(superblock, line).into_iter().filter(good).collect();
    kept.sort_by_key(|of| (of.stamp.as_of, Some(*of) != base));
    kept.dedup_by_key(|of| of.stamp.as_of);
    kept
}

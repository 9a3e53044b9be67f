//! Removing a whole volume: its writer is fenced, a superblock version says that it is being removed, and only then its
//! objects are deleted.
//!
//! Knows the order, and which names are a volume's; the reasons are in docs/rfcs/0006-removing-a-volume.md. Invariants:
//! 1. nothing is deleted before a durable version says "removed", which nobody opens;
//! 2. that version, or a later one that says so too, is deleted last, or stays with the fence as the marker;
//! 3. what has no name of this volume is left alone;
//! 4. whatever cuts it short, calling it again goes on.

mod what;

use futures::{StreamExt, TryStreamExt};
use lsvd_backend::{Bucket, Listed};
use lsvd_format::superblock::{Moments, Parent, Removal, Superblock};
use lsvd_format::{
    BLOCK_BYTES, Epoch, NUMBER_MAX, SequenceNumber, SuperblockNumber, VolumeId, WriterId, names,
};

use self::what::{Found, State, Targets, find, refuse_if_pinned};
use crate::named::NamedState;
use crate::occupancy::refuse_if_in_use;
use crate::store::{Put, VolumeStore};
use crate::takeover::{end_log, fenced_or, written_by};
use crate::{Environment, Error, RemoveOptions};

pub use self::what::Plan;

/// Deletes at once: a delete's time is a round trip.
const DELETES_AT_ONCE: usize = 64;
/// Deletes between two looks for a newer epoch (rule 9).
const DELETES_IN_ROUND: usize = 1024;
/// How far above all numbers that are known of a log without a sound end the next volume's log begins. Its writer was not
/// fenced by an object, but goes on for seconds at most until it looks for a newer epoch.
const FAR: u64 = 1 << 32;

/// How far a removal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects that were deleted.
    pub deleted_objects: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Objects that are known to be left.
    pub objects_left: u64,
}

/// What was removed, and what stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Objects that this call deleted.
    pub deleted_objects: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Archived objects, which stay unless they were asked for.
    pub archived_objects: u64,
    /// Their bytes.
    pub archived_bytes: u64,
    /// Objects below the prefix that have no names of this volume, and stay.
    pub other_objects: u64,
    /// The marker stays: [`RemoveOptions::leave_marker`].
    pub marker: bool,
}

/// Says what a removal would delete, and refuses what [`remove`] would refuse. Deletes nothing.
///
/// # Errors
/// As [`remove`].
pub async fn plan_removal(bucket: &Bucket, options: &RemoveOptions) -> Result<Plan, Error> {
    let store = VolumeStore::new(bucket.clone());
    let found = find(&store, options).await?;
    refuse(&store, options, &found).await?;
    let targets = Targets::list(&store, options.archive).await?;
    refuse_nothing(&store, options, &found, &targets)?;
    Ok(Plan::new(&store, found, &targets))
}

/// Deletes the volume on `bucket`, whose prefix is the volume's own; a call that was cut short is finished by the next.
/// `progress` is told after each round of deletes.
///
/// # Errors
/// [`Error::InUse`] if it seems to be written, [`Error::Pinned`] if something that is kept needs it, [`Error::Newer`] if a
/// newer lsvd may know of such a thing: nothing was changed. [`Error::Corrupt`] and [`Error::Missing`] if the log has no
/// sound end: nothing was deleted, and [`RemoveOptions::damaged`] removes it unread. [`Error::Fenced`] if another removal,
/// or a writer that came first, took over; the store's: what was deleted is deleted, call it again.
pub async fn remove(
    bucket: &Bucket,
    options: &RemoveOptions,
    progress: impl FnMut(Progress) + Send,
) -> Result<Removed, Error> {
    remove_clone(bucket, options, progress, async |_, _| Ok(())).await
}

/// The same for a volume that may be a clone. When nothing is left of it but the version that says that it is being removed,
/// `release` is told whose clone it is and its identity, and has the parent give up what that keeps for it:
/// [`crate::Volume::remove_snapshot`] does.
///
/// # Errors
/// As [`remove`], and what `release` says: call it again, which goes on there.
pub async fn remove_clone<E: From<Error>>(
    bucket: &Bucket,
    options: &RemoveOptions,
    progress: impl FnMut(Progress) + Send,
    release: impl AsyncFnOnce(&Parent, VolumeId) -> Result<(), E>,
) -> Result<Removed, E> {
    let store = VolumeStore::new(bucket.clone());
    let (found, named) = claim(&store, options).await?;
    let removal = match found.state {
        State::Alive => begin(&store, options, &named).await?,
        State::Removing(removal) | State::Gone(removal) => removal,
        State::Damaged => named.get().await.removal.unwrap_or_else(|| unreachable!("it was claimed so")),
    };
    let mut deleting =
        Deleting { store: &store, options, named: &named, told: Progress::default(), progress };
    let left = deleting.all_but(removal.fence).await?;
    let marker = options.leave_marker;
    // The names of a log that was adopted are its own writer's, who may begin another log there.
    let fence = removal.fence.filter(|_| marker && store.layout().is_none());
    if fence != removal.fence {
        deleting.fence(left.kept.as_slice()).await?;
    }
    deleting.older_versions().await?;
    let last = named.get().await;
    if let Some(parent) = last.parent() {
        release(parent, last.volume_id).await?;
    }
    if marker {
        let gone = Removal { fence, finished: true, ..removal };
        named.update(|superblock| *superblock = superblock.clone().with_removal(Some(gone))).await?;
        deleting.older_versions().await?;
    } else {
        deleting.last_version().await?;
    }
    let Progress { deleted_objects, deleted_bytes, .. } = deleting.told;
    let Targets { archived, others, .. } = left.targets;
    tracing::info!(volume = %store.label(), "removed: {deleted_objects} objects, {deleted_bytes} bytes");
    Ok(Removed {
        deleted_objects,
        deleted_bytes,
        archived_objects: archived.len() as u64,
        archived_bytes: bytes(&archived),
        other_objects: others,
        marker,
    })
}

/// What speaks against removing it.
async fn refuse(store: &VolumeStore, options: &RemoveOptions, found: &Found) -> Result<(), Error> {
    if let State::Removing(_) | State::Gone(_) = found.state {
        return Ok(());
    }
    refuse_if_pinned(store, &found.superblock)?;
    match (options.if_free, found.state) {
        (Some(quiet_for), State::Alive) => refuse_if_in_use(store, quiet_for, &options.environment).await,
        _ => Ok(()),
    }
}

/// Where nothing is but what is to stay, there is no volume.
fn refuse_nothing(
    store: &VolumeStore,
    options: &RemoveOptions,
    found: &Found,
    targets: &Targets,
) -> Result<(), Error> {
    let nothing = match found.state {
        State::Gone(removal) => {
            let fence = removal.fence.map(|fence| store.log_name(fence));
            let only_fence = targets.objects.iter().all(|entry| Some(&entry.name) == fence.as_ref());
            options.leave_marker && only_fence && targets.superblocks.len() == 1
        }
        State::Damaged => targets.objects.is_empty() && targets.superblocks.is_empty(),
        State::Alive | State::Removing(_) => false,
    };
    match nothing {
        true => Err(Error::NotFound { volume: store.label() }),
        false => Ok(()),
    }
}

/// A number that no version of a volume ever has is that of a stray object, which would count as the newest of all.
fn refuse_far_version(store: &VolumeStore, found: &Found) -> Result<(), Error> {
    if found.number.0 <= NUMBER_MAX / 2 {
        return Ok(());
    }
    let reason = "no volume gets so far: it is a stray object, which nobody can put a superblock version above; look at it, delete \
                  this one by hand, and run `lsvd rm` again";
    Err(store.corrupt(names::superblock(found.number), reason))
}

/// Raises the epoch over whoever has the volume, another removal included.
async fn claim(store: &VolumeStore, options: &RemoveOptions) -> Result<(Found, NamedState), Error> {
    let environment = &options.environment;
    loop {
        let found = find(store, options).await?;
        refuse(store, options, &found).await?;
        let targets = match found.state {
            State::Damaged | State::Gone(_) => Targets::list(store, options.archive).await?,
            // There is something to remove in any case: a large volume is not listed for that.
            State::Alive | State::Removing(_) => Targets::default(),
        };
        refuse_nothing(store, options, &found, &targets)?;
        refuse_far_version(store, &found)?;
        let number = found.number.next();
        let before = found.superblock.clone();
        let removal = match found.state {
            State::Alive => None,
            State::Removing(removal) | State::Gone(removal) => Some(Removal { finished: false, ..removal }),
            State::Damaged => Some(unfenced(&before, &targets)),
        };
        let mine = Superblock {
            epoch: Epoch(number.0),
            writer_id: WriterId((environment.random)()),
            log_reached: before.log_reached.max(before.closed_at),
            closed_at: None,
            written_unix_ms: (environment.now_unix_ms)(),
            written_by: written_by(),
            ..before
        }
        .with_removal(removal);
        if let Put::Mine = store.put_superblock(number, &mine).await?
            && store.superblock_numbers(Some(number)).await?.is_empty()
        {
            let named = NamedState::new(store.clone(), environment.clone(), number, mine);
            return Ok((found, named));
        }
    }
}

/// Fences the old writer, and then says that the volume is being removed.
async fn begin(store: &VolumeStore, options: &RemoveOptions, named: &NamedState) -> Result<Removal, Error> {
    let (mut number, mut superblock) = (named.number().await, named.get().await);
    let ended = end_log(store, &options.environment, (&mut number, &mut superblock), false);
    let removal = match ended.await {
        Ok(ended) => {
            let log_next = SequenceNumber(ended.fence.0.saturating_add(superblock.window));
            Removal { fence: Some(ended.fence), log_next, finished: false }
        }
        Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) => {
            let error = fenced_or(store, named.number().await, error).await;
            if !options.damaged || matches!(error, Error::Fenced { .. }) {
                return Err(error);
            }
            tracing::warn!("{error}; the volume is removed without a fence");
            unfenced(&superblock, &Targets::list(store, false).await?)
        }
        Err(error) => return Err(error),
    };
    // A newer writer, if there is one by now, has the next number, or a higher one that is listed.
    named.update(|superblock| *superblock = superblock.clone().with_removal(Some(removal))).await?;
    Ok(removal)
}

/// The removal of a log whose end is not known.
fn unfenced(superblock: &Superblock, targets: &Targets) -> Removal {
    let checkpoint = superblock.checkpoints.last().map(|checkpoint| checkpoint.stamp.as_of);
    let before = superblock.removal.map(|removal| removal.log_next);
    let known = [targets.log_last, superblock.log_reached, superblock.closed_at, checkpoint, before];
    let last = known.into_iter().flatten().max().unwrap_or(superblock.log_first_number);
    let log_next = last.0.saturating_add(superblock.window).saturating_add(FAR).min(NUMBER_MAX);
    Removal { fence: None, log_next: SequenceNumber(log_next), finished: false }
}

/// What the last listing showed when all was deleted that is to be.
struct Left {
    targets: Targets,
    /// The fence.
    kept: Vec<Listed>,
}

/// A removal from its first delete on.
struct Deleting<'a, F> {
    store: &'a VolumeStore,
    options: &'a RemoveOptions,
    named: &'a NamedState,
    told: Progress,
    progress: F,
}

impl<F: FnMut(Progress) + Send> Deleting<'_, F> {
    /// Deletes the volume's objects but for superblock versions and one fence, until a listing shows none.
    async fn all_but(&mut self, fence: Option<SequenceNumber>) -> Result<Left, Error> {
        let kept = fence.map(|fence| self.store.log_name(fence));
        loop {
            let mut targets = Targets::list(self.store, self.options.archive).await?;
            let objects = std::mem::take(&mut targets.objects);
            let (kept, objects): (Vec<Listed>, Vec<Listed>) =
                objects.into_iter().partition(|entry| Some(&entry.name) == kept.as_ref());
            if objects.is_empty() {
                return Ok(Left { targets, kept });
            }
            self.told.objects_left = objects.len() as u64;
            for round in objects.chunks(DELETES_IN_ROUND) {
                // The listing was before this look: nothing on it is of a volume that was made here since.
                self.named.check_newest().await?;
                self.delete(round).await?;
            }
        }
    }

    /// Deletes the fence.
    async fn fence(&mut self, fence: &[Listed]) -> Result<(), Error> {
        self.named.check_newest().await?;
        self.delete(fence).await
    }

    /// The superblock versions: all else may be long to list.
    async fn versions(&self) -> Result<Vec<Listed>, Error> {
        let listed = self.store.bucket().list(names::SUPERBLOCK_FOLDER, None).await;
        let mut versions = listed.map_err(|error| self.store.store_error(error))?;
        versions.retain(|entry| names::parse_superblock(&entry.name).is_some());
        Ok(versions)
    }

    /// Deletes the superblock versions below mine, oldest first.
    async fn older_versions(&mut self) -> Result<(), Error> {
        let mine = self.named.number().await;
        loop {
            let mut older = self.versions().await?;
            older.retain(|entry| names::parse_superblock(&entry.name).is_some_and(|number| number < mine));
            if older.is_empty() {
                return Ok(());
            }
            self.named.check_newest().await?;
            for version in older.chunks(1) {
                self.delete(version).await?;
            }
        }
    }

    async fn last_version(&mut self) -> Result<(), Error> {
        let mine = names::superblock(self.named.number().await);
        let mut last = self.versions().await?;
        last.retain(|entry| entry.name == mine);
        self.named.check_newest().await?;
        self.delete(&last).await
    }

    async fn delete(&mut self, round: &[Listed]) -> Result<(), Error> {
        let names: Vec<String> = round.iter().map(|entry| entry.name.clone()).collect();
        let bucket = self.store.bucket();
        let deletes = futures::stream::iter(names).map(|name| async move { bucket.delete(&name).await });
        let deleted: Result<Vec<()>, _> = deletes.buffered(DELETES_AT_ONCE).try_collect().await;
        deleted.map_err(|error| self.store.store_error(error))?;
        self.told.deleted_objects += round.len() as u64;
        self.told.deleted_bytes += bytes(round);
        self.told.objects_left = self.told.objects_left.saturating_sub(round.len() as u64);
        (self.progress)(self.told);
        Ok(())
    }
}

fn bytes(listed: &[Listed]) -> u64 {
    listed.iter().map(|entry| entry.object_bytes).sum()
}

/// The only version of a volume that is gone, or was never made: a new one goes on behind its number, and with this number of
/// the log.
pub(crate) fn marker(
    environment: &Environment,
    volume_id: VolumeId,
    number: SuperblockNumber,
    log_next: SequenceNumber,
) -> Superblock {
    let removal = Removal { fence: None, log_next, finished: true };
    let epoch = Epoch(number.0);
    Superblock { volume_id, epoch, written_unix_ms: (environment.now_unix_ms)(), ..unreadable(environment) }
        .with_removal(Some(removal))
}

/// What stands for the superblock of a volume of which no version can be read.
fn unreadable(environment: &Environment) -> Superblock {
    Superblock {
        volume_id: VolumeId((environment.random)()),
        epoch: Epoch(1),
        writer_id: WriterId((environment.random)()),
        size_bytes: BLOCK_BYTES,
        window: crate::CreateOptions::new(BLOCK_BYTES).window,
        log_first_number: SequenceNumber(1),
        log_layout: None,
        unsafe_single_writer: false,
        closed_at: None,
        log_reached: None,
        log_begun_epoch: None,
        journal: None,
        handover: None,
        unbroken_since: None,
        checkpoints: Vec::new(),
        condemned: Vec::new(),
        moments: Moments::default(),
        log_follows: None,
        parents: Vec::new(),
        removal: None,
        written_unix_ms: 0,
        written_by: written_by(),
        features_to_read: Vec::new(),
        features_to_write: Vec::new(),
        unknown: serde_json::Map::new(),
    }
}

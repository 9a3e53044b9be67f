//! The root of a volume that nobody has open: creating one, finding one, saying what it is.
//!
//! Knows superblocks and listings; opens nothing.

use std::sync::Arc;

use futures::StreamExt;
use lsvd_backend::Bucket;
use lsvd_engine::LastData;
use lsvd_format::superblock::{Moments, Parent, Snapshot, Superblock};
use lsvd_format::v1::parse_v1_name;
use lsvd_format::{
    BLOCK_BYTES, Epoch, JournalId, LogLayout, ObjectFormat, SequenceNumber, SuperblockNumber,
    VOLUME_BYTES_MAX, VolumeId, WriterId, names,
};

use crate::guarantees::probe_for_creation;
use crate::recovery::recover_for_reading;
use crate::store::{Put, VolumeStore};
use crate::takeover::written_by;
use crate::{CreateOptions, Error};

/// Folders looked into at once by [`list`].
const FOLDERS_AT_ONCE: usize = 16;

/// Digits of the names of a new log of format 1, as many as format 2 has.
const NAME_DIGITS: u8 = 16;

/// What was created.
#[derive(Clone, Debug)]
pub struct Created {
    /// The new volume's identity.
    pub volume_id: VolumeId,
    /// What the store promises, for a person.
    pub guarantees: Vec<String>,
}

/// What a volume is, as its objects say; nothing is written to find out.
#[derive(Clone, Debug)]
pub struct VolumeInfo {
    /// What messages call it.
    pub label: Arc<str>,
    /// The volume.
    pub volume_id: VolumeId,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Number of the superblock version that counts.
    pub superblock: SuperblockNumber,
    /// Epoch of its last writer.
    pub epoch: Epoch,
    /// Its last writer.
    pub writer_id: WriterId,
    /// The window: see [`CreateOptions::window`].
    pub window: u64,
    /// Single writer by the user's word.
    pub unsafe_single_writer: bool,
    /// Number of the first log object.
    pub log_first_number: SequenceNumber,
    /// The layout of a log that has objects of format 1; `None` if all are of format 2.
    pub log_layout: Option<LogLayout>,
    /// Closed cleanly, and not opened since.
    pub closed_cleanly: bool,
    /// Last number of the gapless log, if it holds an object.
    pub durable_number: Option<SequenceNumber>,
    /// Objects in the log.
    pub log_objects: u64,
    /// Bytes of the log's objects.
    pub log_bytes: u64,
    /// Bytes of blocks that the extent map points at: what the volume shows that is not zeroes.
    pub live_bytes: u64,
    /// Bytes of all that the volume has in the bucket: log, checkpoints, superblock versions, archive.
    pub bucket_bytes: u64,
    /// The kept checkpoints, oldest first.
    pub checkpoints: Vec<CheckpointInfo>,
    /// Log objects behind the newest checkpoint that can be used: what an opening reads the headers of.
    pub tail_objects: u64,
    /// Objects that are still there, but may be deleted at any moment.
    pub condemned_objects: u64,
    /// Their bytes.
    pub condemned_bytes: u64,
    /// The local journal in use: it may hold flushed writes that the store does not.
    pub journal: Option<JournalId>,
    /// What the log's last object of data says of its time and journal.
    pub last_data: Option<LastData>,
    /// When the superblock version that counts was written, by its writer's clock, in milliseconds since 1970.
    pub written_unix_ms: u64,
    /// The volumes that it shares objects with, if it is a clone: the one that it was cloned from last.
    pub parents: Vec<Parent>,
    /// Bytes of live blocks that lie in their objects.
    pub shared_bytes: u64,
    /// The clones that share objects with it, as far as it knows.
    pub clones: Vec<CloneInfo>,
}

/// A clone, as its parent knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneInfo {
    /// The snapshot that is kept for it.
    pub snapshot: String,
    /// The moment that it begins with.
    pub as_of: SequenceNumber,
    /// The clone's identity.
    pub volume_id: VolumeId,
    /// Where it is, from the parent's own prefix.
    pub path: String,
}

/// A checkpoint that the superblock names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// The last log object that it contains.
    pub as_of: SequenceNumber,
    /// When it was stored, by the store's clock, in milliseconds since 1970; `None` if its object is missing.
    pub stored_unix_ms: Option<i64>,
}

impl VolumeInfo {
    /// Bytes of the log for each live byte that lies in it; `None` where none does.
    #[allow(clippy::cast_precision_loss)] // a ratio
    pub fn space_amplification(&self) -> Option<f64> {
        let live_bytes = self.live_bytes - self.shared_bytes;
        (live_bytes > 0).then(|| self.log_bytes as f64 / live_bytes as f64)
    }
}

/// Creates a volume on `bucket`, whose prefix is the volume's own.
///
/// # Errors
/// [`Error::Exists`] if there is one, [`Error::UnsafeStore`] if the store does not hold create-only PUT.
pub async fn create(bucket: &Bucket, options: &CreateOptions) -> Result<Created, Error> {
    check_options(options)?;
    let layout = (options.log_format == ObjectFormat::V1).then(|| LogLayout {
        prefix: String::new(),
        name_digits: NAME_DIGITS,
        append_format: ObjectFormat::V1,
    });
    let store = VolumeStore::new(bucket.clone()).with_layout(layout.clone());
    let marker = refuse_existing(&store).await?;
    // Numbers below are those of a volume that was here: what its writers still put there is in nobody's way.
    let first = marker.as_ref().map_or(SequenceNumber(1), |(_, marker)| marker.log_first_number);
    if let Some(layout) = &layout {
        refuse_format_1(&store, &layout.prefix).await?;
    } else if store.list_log(None).await?.iter().any(|entry| entry.number >= first) {
        let folder = names::LOG_FOLDER;
        return Err(Error::Invalid(format!(
            "'{}' has objects in {folder} but no superblock: they would be taken for the new volume's log; choose \
             another place, or move them away (`lsvd rm --damaged` deletes what has the names of a volume's objects)",
            store.label()
        )));
    }
    let guarantees = probe_for_creation(&store, &options.environment, options.unsafe_single_writer).await?;
    let log = NewLog { layout, first, reached: None, clone: None, has_lost_blocks: false };
    let volume_id = put_first_superblock(&store, options, log, marker.map(|(number, _)| number)).await?;
    Ok(Created { volume_id, guarantees })
}

/// Whether a volume can have this size.
pub(crate) fn check_size(size_bytes: u64) -> Result<(), Error> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(BLOCK_BYTES) || size_bytes > VOLUME_BYTES_MAX {
        return Err(Error::Invalid(format!(
            "a volume of {size_bytes} bytes can not be: the size is a multiple of {BLOCK_BYTES}, above 0 and at most \
             {VOLUME_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// Whether a volume can be made so.
pub(crate) fn check_options(options: &CreateOptions) -> Result<(), Error> {
    let window = options.window;
    check_size(options.size_bytes)?;
    if !(2..=65_536).contains(&window) {
        return Err(Error::Invalid(format!("a window of {window} can not be: it is 2 to 65536")));
    }
    if options.log_format == ObjectFormat::V1 && !options.unsafe_single_writer {
        let words = "a log that goes on in format 1 needs --unsafe-single-writer: its objects do not say whose they are, so \
                     that two writers at once LOSE DATA; you vouch that there is one";
        return Err(Error::Invalid(words.to_owned()));
    }
    Ok(())
}

/// Refuses to make a volume where there is one. Gives the marker of one that was removed: what follows its numbers was
/// never used here.
pub(crate) async fn refuse_existing(
    store: &VolumeStore,
) -> Result<Option<(SuperblockNumber, Superblock)>, Error> {
    if store.superblock_numbers(None).await?.is_empty() {
        return Ok(None);
    }
    match newest_version(store, false).await {
        Ok((number, superblock)) if superblock.is_gone() => Ok(Some((number, superblock))),
        Ok((_, superblock)) if superblock.removal.is_some() => Err(Error::Removed { volume: store.label() }),
        // Removed completely since the listing.
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error @ (Error::Store { .. } | Error::TimedOut { .. })) => Err(error),
        // Whatever it is, it is there.
        Ok(_) | Err(_) => Err(Error::Exists { volume: store.label() }),
    }
}

async fn refuse_format_1(store: &VolumeStore, prefix: &str) -> Result<(), Error> {
    let listed = store.bucket().list(prefix, None).await.map_err(|error| store.store_error(error))?;
    let Some(object) = listed.iter().find(|entry| parse_v1_name(&entry.name).is_some()) else {
        return Ok(());
    };
    Err(Error::Invalid(format!(
        "'{}' has the object '{}', which would be taken for the new volume's log: choose another place, or `lsvd adopt` it",
        store.label(),
        object.name
    )))
}

/// The log of a new volume.
pub(crate) struct NewLog {
    pub(crate) layout: Option<LogLayout>,
    pub(crate) first: SequenceNumber,
    pub(crate) reached: Option<SequenceNumber>,
    /// The identity of a clone, and its parents.
    pub(crate) clone: Option<(VolumeId, Vec<Parent>)>,
    /// Whether blocks may be lost in what it begins with.
    pub(crate) has_lost_blocks: bool,
}

/// Creates the superblock that makes a volume, behind the marker of one that was removed.
pub(crate) async fn put_first_superblock(
    store: &VolumeStore,
    options: &CreateOptions,
    log: NewLog,
    marker: Option<SuperblockNumber>,
) -> Result<VolumeId, Error> {
    let environment = &options.environment;
    let number = marker.map_or(SuperblockNumber(1), SuperblockNumber::next);
    let (volume_id, parents) = log.clone.unwrap_or_else(|| (VolumeId((environment.random)()), Vec::new()));
    let mut superblock = Superblock {
        volume_id,
        epoch: Epoch(number.0),
        writer_id: WriterId((environment.random)()),
        size_bytes: options.size_bytes,
        window: options.window,
        log_first_number: log.first,
        log_layout: None,
        unsafe_single_writer: options.unsafe_single_writer,
        closed_at: None,
        log_reached: log.reached,
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
        written_unix_ms: (environment.now_unix_ms)(),
        written_by: written_by(),
        features_to_read: Vec::new(),
        features_to_write: Vec::new(),
        unknown: serde_json::Map::new(),
    }
    .with_layout(log.layout)
    .with_parents(parents);
    if log.has_lost_blocks {
        superblock = superblock.with_lost_blocks();
    }
    let exists = || Err(Error::Exists { volume: store.label() });
    match store.put_superblock(number, &superblock).await? {
        // It may be a number that was pruned since the first look: then the volume is another's.
        Put::Mine if newest_readable(store, false).await?.1.volume_id != superblock.volume_id => exists(),
        Put::Mine => {
            if let Some(marker) = marker {
                forget_marker(store, marker).await;
            }
            Ok(superblock.volume_id)
        }
        Put::Theirs(_) => exists(),
    }
}

/// The new volume's version says all that the marker said. Left where it is, it is an old version like others.
async fn forget_marker(store: &VolumeStore, marker: SuperblockNumber) {
    let numbers = store.superblock_numbers(None).await.unwrap_or_default();
    for number in numbers.into_iter().filter(|number| *number <= marker) {
        if let Err(error) = store.delete_superblock(number).await {
            tracing::warn!(volume = %store.label(), "a marker is left where it is: {error}");
        }
    }
}

/// The superblock version that counts, of a volume that is not being removed. With `skip_damaged` one that can not be read is
/// passed over with a warning; a writer must never do that, as the damaged version may have said what must not be forgotten.
pub(crate) async fn newest_readable(
    store: &VolumeStore,
    skip_damaged: bool,
) -> Result<(SuperblockNumber, Superblock), Error> {
    let (number, superblock) = newest_version(store, skip_damaged).await?;
    match superblock.removal {
        None => Ok((number, superblock)),
        Some(removal) if removal.finished => Err(Error::NotFound { volume: store.label() }),
        Some(_) => Err(Error::Removed { volume: store.label() }),
    }
}

/// The superblock version that counts, whatever it says of a removal.
pub(crate) async fn newest_version(
    store: &VolumeStore,
    skip_damaged: bool,
) -> Result<(SuperblockNumber, Superblock), Error> {
    loop {
        let mut damage = None;
        let mut pruned = false;
        for number in store.superblock_numbers(None).await?.into_iter().rev() {
            match store.read_superblock(number).await {
                // The marker of a volume that was here before, below the damaged versions of another one.
                Ok(Some(superblock)) if superblock.is_gone() && damage.is_some() => {}
                Ok(Some(superblock)) => return Ok((number, superblock)),
                Ok(None) => pruned = true,
                Err(error @ Error::Corrupt { .. }) if skip_damaged => {
                    tracing::warn!("{error}; the version before it is used");
                    damage = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        // What was pruned since the listing has newer versions above it: the volume is there (rule 4).
        if !pruned {
            return Err(damage.unwrap_or(Error::NotFound { volume: store.label() }));
        }
    }
}

/// Which volume is on `bucket`, and who opened it last for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The volume. A copy of its objects has the same.
    pub volume_id: VolumeId,
    /// Epoch of its last writer.
    pub epoch: Epoch,
    /// Its last writer.
    pub writer_id: WriterId,
}

/// Reads who the volume on `bucket` is, writing nothing: a listing and its superblock.
///
/// # Errors
/// [`Error::NotFound`], or the store's.
pub async fn identify(bucket: &Bucket) -> Result<Identity, Error> {
    let (_, superblock) = newest_readable(&VolumeStore::new(bucket.clone()), true).await?;
    let Superblock { volume_id, epoch, writer_id, .. } = superblock;
    Ok(Identity { volume_id, epoch, writer_id })
}

/// Reads what the volume on `bucket` is, writing nothing. Reads the headers of its log behind the newest checkpoint, and
/// lists the rest.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
pub async fn inspect(bucket: &Bucket) -> Result<VolumeInfo, Error> {
    let store = VolumeStore::new(bucket.clone());
    let (number, superblock, recovered) = recover_for_reading(&store, false).await?;
    if let Some(damage) = &recovered.damage {
        tracing::warn!("{damage}");
    }
    let list = async |folder| bucket.list(folder, None).await.map_err(|error| store.store_error(error));
    let (log, superblocks, parts, archived) = futures::try_join!(
        store.list_log(None),
        list(names::SUPERBLOCK_FOLDER),
        list(names::CHECKPOINT_FOLDER),
        list(names::ARCHIVE_FOLDER),
    )?;
    let log_bytes = log.iter().map(|entry| entry.object_bytes).sum();
    let beside = superblocks.iter().chain(&parts).chain(&archived);
    let beside_bytes: u64 = beside.map(|entry| entry.object_bytes).sum();
    let condemned = log.iter().filter(|entry| superblock.is_condemned(entry.number));
    let (condemned_objects, condemned_bytes) =
        condemned.fold((0, 0), |(objects, bytes), entry| (objects + 1, bytes + entry.object_bytes));
    let checkpoints = superblock.checkpoints.iter().map(|checkpoint| {
        let name = names::checkpoint_part(&checkpoint.part);
        let stored = parts.iter().find(|entry| entry.name == name);
        CheckpointInfo {
            as_of: checkpoint.stamp.as_of,
            stored_unix_ms: stored.map(|entry| entry.last_modified_unix_ms),
        }
    });
    let replay = &recovered.replay;
    Ok(VolumeInfo {
        label: store.label(),
        volume_id: superblock.volume_id,
        size_bytes: superblock.size_bytes,
        superblock: number,
        epoch: superblock.epoch,
        writer_id: superblock.writer_id,
        window: superblock.window,
        unsafe_single_writer: superblock.unsafe_single_writer,
        log_first_number: superblock.log_first_number,
        closed_cleanly: superblock.closed_at.is_some(),
        durable_number: replay
            .last()
            .map(|(number, _)| number)
            .or(superblock.parent().map(|parent| parent.as_of)),
        log_objects: log.len() as u64,
        log_bytes,
        live_bytes: replay.prefix().objects().totals().shown_bytes(),
        bucket_bytes: log_bytes + beside_bytes,
        checkpoints: checkpoints.collect(),
        tail_objects: replay.objects_processed(),
        condemned_objects,
        condemned_bytes,
        journal: superblock.journal,
        last_data: replay.last_data(),
        written_unix_ms: superblock.written_unix_ms,
        shared_bytes: replay.prefix().objects().totals().shared_blocks * BLOCK_BYTES,
        clones: superblock
            .pinned_for_clones()
            .map(|(snapshot, clone)| CloneInfo {
                snapshot: snapshot.name.clone(),
                as_of: snapshot.as_of,
                volume_id: clone.volume_id,
                path: clone.path.clone(),
            })
            .collect(),
        parents: superblock.parents,
        log_layout: superblock.log_layout,
    })
}

/// The snapshots of the volume on `bucket`, in the order of their making, and for how long it holds every commit point, in
/// milliseconds. Writes nothing.
///
/// # Errors
/// [`Error::NotFound`] if there is no volume.
pub async fn snapshots(bucket: &Bucket) -> Result<(Vec<Snapshot>, u64), Error> {
    let (_, superblock) = newest_readable(&VolumeStore::new(bucket.clone()), true).await?;
    Ok((superblock.moments.snapshots, superblock.moments.history_ms))
}

/// Names of the volumes right below `bucket`'s prefix, sorted. The marker of a volume that was removed looks like a volume
/// here; who reads it is told that there is none.
///
/// # Errors
/// The store's.
pub async fn list(bucket: &Bucket) -> Result<Vec<String>, Error> {
    let store = VolumeStore::new(bucket.clone());
    let folders = bucket.list_folders("").await.map_err(|error| store.store_error(error))?;
    let look = |folder: String| async move {
        let volume = VolumeStore::new(bucket.child(&folder));
        Ok(volume.superblock_numbers(None).await?.last().map(|_| folder))
    };
    let mut looks = futures::stream::iter(folders).map(look).buffered(FOLDERS_AT_ONCE);
    let mut volumes = Vec::new();
    while let Some(found) = looks.next().await {
        volumes.extend(found?);
    }
    Ok(volumes)
}

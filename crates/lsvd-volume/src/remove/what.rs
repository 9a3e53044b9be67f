//! What there is to remove: the state that the superblocks tell, and the objects that are the volume's by their names.
//!
//! Knows names and listings; writes and deletes nothing.

use std::sync::Arc;

use lsvd_backend::Listed;
use lsvd_format::superblock::{Parent, Removal, Superblock};
use lsvd_format::{JournalId, SequenceNumber, SuperblockNumber, VolumeId, names};

use super::{bytes, unreadable};
use crate::root::newest_version;
use crate::store::VolumeStore;
use crate::{Error, RemoveOptions};

/// What a removal would delete, and what is known of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What messages call it.
    pub label: Arc<str>,
    /// The volume; `None` if no superblock version can be read.
    pub volume_id: Option<VolumeId>,
    /// Its size in bytes; `None` if no superblock version can be read.
    pub size_bytes: Option<u64>,
    /// Objects that would be deleted, superblock versions among them.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Archived objects, whether they would be deleted or not.
    pub archived_objects: u64,
    /// Their bytes.
    pub archived_bytes: u64,
    /// Objects below the prefix that have no names of this volume, and stay.
    pub other_objects: u64,
    /// When the newest of its objects was stored, by the store's clock, in milliseconds since 1970.
    pub stored_unix_ms: Option<i64>,
    /// It was closed cleanly, and not opened since; else a daemon may still have it, idle.
    pub closed_cleanly: bool,
    /// The local journal in use: its directory stays, on its host.
    pub journal: Option<JournalId>,
    /// A removal began before, and this one goes on with it.
    pub goes_on: bool,
    /// The superblock is damaged or missing.
    pub damaged: bool,
    /// The volume that it is a clone of, which keeps a moment for it.
    pub parent: Option<Parent>,
}

impl Plan {
    pub(super) fn new(store: &VolumeStore, found: Found, targets: &Targets) -> Self {
        let groups = || [&targets.superblocks, &targets.objects];
        let known = found.is_read;
        let newest = groups().into_iter().flatten().map(|entry| entry.last_modified_unix_ms).max();
        Self {
            label: store.label(),
            volume_id: known.then_some(found.superblock.volume_id),
            size_bytes: known.then_some(found.superblock.size_bytes),
            objects: groups().iter().map(|group| group.len() as u64).sum(),
            bytes: groups().iter().map(|group| bytes(group)).sum(),
            archived_objects: targets.archived.len() as u64,
            archived_bytes: bytes(&targets.archived),
            other_objects: targets.others,
            stored_unix_ms: newest,
            closed_cleanly: found.superblock.closed_at.is_some(),
            journal: found.superblock.journal,
            goes_on: matches!(found.state, State::Removing(_) | State::Gone(_)),
            damaged: matches!(found.state, State::Damaged),
            parent: found.superblock.parent().cloned(),
        }
    }
}

/// What the superblocks say.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Alive,
    Removing(Removal),
    /// Only the marker counts; what is there beside was put since.
    Gone(Removal),
    /// The newest version can not be read, or none is there.
    Damaged,
}

pub(super) struct Found {
    /// The highest version's; 0 if there is none.
    pub(super) number: SuperblockNumber,
    /// The newest that can be read, or one that stands for it.
    pub(super) superblock: Superblock,
    /// The superblock is one that was read.
    pub(super) is_read: bool,
    pub(super) state: State,
}

/// Finds the volume, or with [`RemoveOptions::damaged`] what is left of it.
pub(super) async fn find(store: &VolumeStore, options: &RemoveOptions) -> Result<Found, Error> {
    let trouble = match newest_version(store, false).await {
        Ok((number, superblock)) => {
            let state = match superblock.removal {
                None => State::Alive,
                Some(removal) if removal.finished => State::Gone(removal),
                Some(removal) => State::Removing(removal),
            };
            return Ok(Found { number, superblock, is_read: true, state });
        }
        Err(error) => error,
    };
    if !options.damaged || !matches!(trouble, Error::Corrupt { .. } | Error::NotFound { .. }) {
        return Err(trouble);
    }
    let (superblock, is_read) = match newest_version(store, true).await {
        Ok((_, superblock)) => (superblock, true),
        Err(Error::Corrupt { .. } | Error::NotFound { .. }) => (unreadable(&options.environment), false),
        Err(error) => return Err(error),
    };
    let number = store.superblock_numbers(None).await?.last().copied().unwrap_or(SuperblockNumber(0));
    Ok(Found { number, superblock, is_read, state: State::Damaged })
}

/// Refuses a volume that something else needs, or may need as a newer lsvd knows: also one with snapshots that a person made,
/// who is to remove them first.
pub(super) fn refuse_if_pinned(store: &VolumeStore, superblock: &Superblock) -> Result<(), Error> {
    let kept = superblock.moments.snapshots.iter().filter(|snapshot| !snapshot.automatic);
    let clones: Vec<&str> = superblock.pinned_for_clones().map(|(_, clone)| clone.path.as_str()).collect();
    if !clones.is_empty() {
        return Err(Error::Pinned {
            volume: store.label(),
            by: format!("its clones at {} (from there) share its objects", clones.join(", ")),
        });
    }
    let kept: Vec<&str> = kept.map(|snapshot| snapshot.name.as_str()).collect();
    if !kept.is_empty() {
        return Err(Error::Pinned {
            volume: store.label(),
            by: format!("its snapshots {}", kept.join(", ")),
        });
    }
    let mut unknown: Vec<&str> = superblock.unknown_features_to_write();
    unknown.extend(superblock.unknown.keys().map(String::as_str));
    if unknown.is_empty() {
        return Ok(());
    }
    let what = format!(
        "its superblock says what this lsvd does not know ({}), and something may need the volume: remove it with a newer \
         lsvd",
        unknown.join(", ")
    );
    Err(Error::Newer { volume: store.label(), what })
}

/// The objects of the volume, by their names.
#[derive(Default)]
pub(super) struct Targets {
    /// Superblock versions, ascending.
    pub(super) superblocks: Vec<Listed>,
    /// Log, checkpoints, probes' leftovers, and the archive if it is asked for.
    pub(super) objects: Vec<Listed>,
    pub(super) archived: Vec<Listed>,
    /// How many objects have no name of this volume.
    pub(super) others: u64,
    /// The highest number in the log.
    pub(super) log_last: Option<SequenceNumber>,
}

impl Targets {
    /// Lists all below the prefix. What the log's objects are called, the store knows from the superblock.
    pub(super) async fn list(store: &VolumeStore, archive: bool) -> Result<Self, Error> {
        let listed = store.bucket().list("", None).await.map_err(|error| store.store_error(error))?;
        let mut targets = Self::default();
        for entry in listed {
            let name = entry.name.as_str();
            if names::parse_superblock(name).is_some() {
                targets.superblocks.push(entry);
            } else if let Some(number) = store.log_number(name) {
                targets.log_last = targets.log_last.max(Some(number));
                targets.objects.push(entry);
            } else if names::parse_checkpoint_part(name).is_some() || names::is_probe(name) {
                targets.objects.push(entry);
            } else if names::is_archived(name) {
                if archive {
                    targets.objects.push(entry.clone());
                }
                targets.archived.push(entry);
            } else {
                targets.others += 1;
            }
        }
        Ok(targets)
    }
}

//! What lies below a volume's prefix and belongs to no volume any more, or never did.
//!
//! Knows the folders of the format and reads the volume as [`inspect`](crate::inspect) does; writes and removes nothing.
//! Invariant: nothing that a volume could need is called an orphan (rule 3): what has a
//! name of the format and is not known to be left over is the volume's.

use std::collections::{BTreeMap, BTreeSet};

use lsvd_backend::{Bucket, Listed};
use lsvd_format::checkpoint::PartId;
use lsvd_format::names;
use lsvd_format::superblock::Superblock;

use crate::Error;
use crate::reclaim::roots_to_keep;
use crate::recovery::{Recovered, recover_for_reading};
use crate::regions::read_root;
use crate::root::newest_readable;
use crate::store::VolumeStore;

/// Folder below a volume's prefix of objects that are made to find out what the store does. All may be removed.
pub const PROBE_FOLDER: &str = names::PROBE_FOLDER;

/// A part of a checkpoint that is younger may be of one that is being written.
const CHECKPOINT_AGE_MIN_MS: i64 = 3_600_000;
/// Names that are told of each group.
const NAMES_TOLD_MAX: usize = 3;

/// Why objects are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrphanKind {
    /// A probe of the store made them and did not live to remove them. A probe that runs looks the same.
    Probe,
    /// A take-over moved them out of the log: they were beyond its end, and nobody was told that they are durable.
    Archived,
    /// Beyond the end of the log: of a writer that crashed, until the next take-over archives them; or of one at work. Or
    /// below it, and no part of it: put by a writer that was fenced already, or after its deletion.
    Stray,
    /// Parts of checkpoints to which no kept one refers, of a writer that crashed: the next daemon deletes them.
    Checkpoint,
    /// No lsvd gives such names.
    Unknown,
}

/// Orphans of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphans {
    /// Why they are there.
    pub kind: OrphanKind,
    /// How many.
    pub objects: u64,
    /// Their bytes together.
    pub bytes: u64,
    /// When the newest was written, by the store's clock, in milliseconds since 1970.
    pub newest_unix_ms: i64,
    /// The first few names, below the volume's prefix.
    pub names: Vec<String>,
}

/// All that is below a volume's prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// All objects, the orphans among them.
    pub objects: u64,
    /// Their bytes together.
    pub bytes: u64,
    /// The kinds of which there are any.
    pub orphans: Vec<Orphans>,
}

/// Lists all objects of the volume on `bucket` and tells the orphans. Reads the headers of its log, and writes nothing.
///
/// # Errors
/// [`Error::NotFound`] if there is no volume; what [`inspect`](crate::inspect) says of one that can not be read.
pub async fn survey(bucket: &Bucket) -> Result<Survey, Error> {
    let store = VolumeStore::new(bucket.clone());
    // The store learns from it what the log's objects are called.
    newest_readable(&store, false).await?;
    // First the listing, then the log: what becomes durable between the two is not taken for a stray.
    let listed = bucket.list("", None).await.map_err(|error| store.store_error(error))?;
    let (_, superblock, recovered) = recover_for_reading(&store, false).await?;
    let known = Known {
        strays: strays(&store, &superblock, &recovered, &listed),
        parts: parts_kept(&store, &superblock).await?,
        // The store's clock can not be asked without writing: it is this late at least.
        now_unix_ms: listed.iter().map(|entry| entry.last_modified_unix_ms).max().unwrap_or(i64::MIN),
    };
    let mut groups = BTreeMap::new();
    for entry in &listed {
        if let Some(kind) = known.kind_of(&store, entry) {
            add(groups.entry(kind).or_insert_with(|| Orphans::none(kind)), entry);
        }
    }
    Ok(Survey {
        objects: listed.len() as u64,
        bytes: listed.iter().map(|entry| entry.object_bytes).sum(),
        orphans: groups.into_values().collect(),
    })
}

/// What tells an orphan.
struct Known {
    strays: BTreeSet<String>,
    /// The parts that kept checkpoints refer to; `None` if one of them can not be read, and may refer to any.
    parts: Option<BTreeSet<PartId>>,
    now_unix_ms: i64,
}

impl Known {
    fn kind_of(&self, store: &VolumeStore, entry: &Listed) -> Option<OrphanKind> {
        let name = entry.name.as_str();
        let below = |folder: &str| name.starts_with(folder);
        let part = names::parse_checkpoint_part(name);
        let numbered = names::parse_superblock(name).is_some() || store.is_log_name(name);
        match part {
            _ if below(names::PROBE_FOLDER) => Some(OrphanKind::Probe),
            _ if below(names::ARCHIVE_FOLDER) => Some(OrphanKind::Archived),
            _ if self.strays.contains(name) => Some(OrphanKind::Stray),
            Some(part) => self.is_left_over(part, entry).then_some(OrphanKind::Checkpoint),
            None if numbered => None,
            None => Some(OrphanKind::Unknown),
        }
    }

    fn is_left_over(&self, part: PartId, entry: &Listed) -> bool {
        let age_ms = self.now_unix_ms.saturating_sub(entry.last_modified_unix_ms);
        let kept = self.parts.as_ref().is_none_or(|parts| parts.contains(&part));
        !kept && age_ms >= CHECKPOINT_AGE_MIN_MS
    }
}

/// The log's names that are no part of it.
fn strays(
    store: &VolumeStore,
    superblock: &Superblock,
    recovered: &Recovered,
    listed: &[Listed],
) -> BTreeSet<String> {
    // What is behind a damaged object may well be the log's.
    if recovered.damage.is_some() {
        return BTreeSet::new();
    }
    let mut strays: BTreeSet<String> =
        recovered.strays.iter().map(|&number| store.log_name(number)).collect();
    let Some(newest) = superblock.checkpoints.last().map(|checkpoint| checkpoint.stamp.as_of) else {
        return strays;
    };
    let prefix = recovered.replay.prefix();
    let line = superblock.own_line();
    let is_fence = |number| prefix.log().skipped.iter().any(|(fence, _)| *fence == number);
    for entry in listed {
        let Some(number) = store.log_number(&entry.name) else { continue };
        let known = prefix.objects().find(number).is_some() || is_fence(number);
        let below = number < superblock.log_first_number;
        // What a rollback left is needed for as long as a snapshot says so.
        let counts = line.contains(number) && !below;
        if number <= newest && counts && !known && !superblock.is_condemned(number) {
            strays.insert(entry.name.clone());
        }
    }
    strays
}

async fn parts_kept(store: &VolumeStore, superblock: &Superblock) -> Result<Option<BTreeSet<PartId>>, Error> {
    let mut kept = BTreeSet::new();
    for checkpoint in &roots_to_keep(superblock) {
        let root = match read_root(store, superblock.volume_id, checkpoint).await {
            Ok(root) => root,
            Err(Error::Corrupt { .. } | Error::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        kept.insert(checkpoint.part);
        kept.extend(root.parts.iter().map(|part| part.part));
    }
    Ok(Some(kept))
}

impl Orphans {
    fn none(kind: OrphanKind) -> Self {
        Orphans { kind, objects: 0, bytes: 0, newest_unix_ms: i64::MIN, names: Vec::new() }
    }
}

fn add(orphans: &mut Orphans, entry: &Listed) {
    orphans.objects += 1;
    orphans.bytes += entry.object_bytes;
    orphans.newest_unix_ms = orphans.newest_unix_ms.max(entry.last_modified_unix_ms);
    if orphans.names.len() < NAMES_TOLD_MAX {
        orphans.names.push(entry.name.clone());
    }
}

//! What lies below a volume's prefix and belongs to no volume any more, or never did.
//!
//! Knows the folders of the format and reads the volume as [`inspect`](crate::inspect) does; writes and removes nothing.
//! Invariant: nothing that a volume could need is called an orphan (rule 3): what has a
//! name of the format and is not known to be left over is the volume's.

use std::collections::{BTreeMap, BTreeSet};

use lsvd_backend::{Bucket, Listed};
use lsvd_format::names;

use crate::Error;
use crate::recovery::recover;
use crate::root::newest_readable;
use crate::store::VolumeStore;

/// Folder below a volume's prefix of objects that are made to find out what the store does. All may be removed.
pub const PROBE_FOLDER: &str = names::PROBE_FOLDER;

/// Names that are told of each group.
const NAMES_TOLD_MAX: usize = 3;

/// Why objects are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrphanKind {
    /// A probe of the store made them and did not live to remove them. A probe that runs looks the same.
    Probe,
    /// A take-over moved them out of the log: they were beyond its end, and nobody was told that they are durable.
    Archived,
    /// Beyond the end of the log: of a writer that crashed, until the next take-over archives them; or of one at work.
    Stray,
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
    let (_, superblock) = newest_readable(&store, false).await?;
    // First the listing, then the log: what becomes durable between the two is not taken for a stray.
    let listed = bucket.list("", None).await.map_err(|error| store.store_error(error))?;
    let recovered = recover(&store, &superblock, true).await?;
    let strays: BTreeSet<String> = match &recovered.damage {
        // What is behind a damaged object may well be the log's.
        Some(_) => BTreeSet::new(),
        None => recovered.strays.iter().map(|&number| store.log_name(number)).collect(),
    };
    let mut groups = BTreeMap::new();
    for entry in &listed {
        if let Some(kind) = kind_of(&store, &entry.name, &strays) {
            add(groups.entry(kind).or_insert_with(|| Orphans::none(kind)), entry);
        }
    }
    Ok(Survey {
        objects: listed.len() as u64,
        bytes: listed.iter().map(|entry| entry.object_bytes).sum(),
        orphans: groups.into_values().collect(),
    })
}

fn kind_of(store: &VolumeStore, name: &str, strays: &BTreeSet<String>) -> Option<OrphanKind> {
    let below = |folder: &str| name.starts_with(folder);
    let numbered = names::parse_superblock(name).is_some() || store.is_log_name(name);
    match () {
        () if below(names::PROBE_FOLDER) => Some(OrphanKind::Probe),
        () if below(names::ARCHIVE_FOLDER) => Some(OrphanKind::Archived),
        () if strays.contains(name) => Some(OrphanKind::Stray),
        () if numbered || below(names::CHECKPOINT_FOLDER) => None,
        () => Some(OrphanKind::Unknown),
    }
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

//! Mending: a region of the map that is damaged in the newest checkpoint only is made again, from the checkpoint before and
//! the log between the two, all of which is kept (rule 7).
//!
//! Knows checkpoints and headers; who needs the region and where it goes, `core::read` knows. Invariant: what is made is the
//! map as of the newest checkpoint, by the same replay as an opening's (rule 6), or nothing: what can not be verified on the
//! way stays an I/O error (rule 5).

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use lsvd_engine::{Place, Prefix, RegionContent, Replay};
use lsvd_format::checkpoint::{RegionIndex, Root, encode_region};
use lsvd_format::superblock::{CheckpointRef, Superblock};
use lsvd_format::{BLOCK_BYTES, BlockIndex, ObjectIdentity, SequenceNumber, names};

use crate::Error;
use crate::recovery::{HEADERS_AT_ONCE, prefix_of};
use crate::regions::{read_regions, read_root, region_run};
use crate::store::VolumeStore;

/// A region is given up when it was found damaged so often, which takes some 8 seconds.
pub(crate) const DAMAGED_TRIES: u32 = 5;
/// Wait before the second time; each next wait is twice as long.
pub(crate) const DAMAGED_WAIT_FIRST: Duration = Duration::from_millis(500);

/// What was found damaged while the volume is open.
#[derive(Debug, Default)]
pub(crate) struct Wounds {
    /// Regions that were made again, and where what is stored of them is damaged.
    places: Vec<(RegionIndex, Place)>,
    /// Named checkpoints that are of no use, or lack such a region: they do not count among those that are kept (rule 7).
    poor: Vec<CheckpointRef>,
    /// Regions that were made again, counted.
    pub(crate) mended: u64,
    /// Objects of the log that collection found damaged, and leaves alone.
    pub(crate) passed_over: BTreeSet<SequenceNumber>,
}

impl Wounds {
    /// These checkpoints are of no use.
    pub(crate) fn add_poor(&mut self, poor: impl IntoIterator<Item = CheckpointRef>) {
        for checkpoint in poor {
            if !self.poor.contains(&checkpoint) {
                self.poor.push(checkpoint);
            }
        }
    }

    /// Collection leaves this object alone from now on; whether it did not before.
    pub(crate) fn pass_over(&mut self, number: SequenceNumber) -> bool {
        self.passed_over.insert(number)
    }

    pub(crate) fn is_poor(&self, checkpoint: &CheckpointRef) -> bool {
        self.poor.contains(checkpoint)
    }

    /// A region was made again, and what is stored at this place is of no use.
    pub(crate) fn add_place(&mut self, region: RegionIndex, place: Place) {
        self.mended += 1;
        if !self.places.contains(&(region, place)) {
            self.places.push((region, place));
        }
    }

    /// A checkpoint was named that took these regions over from the one before. If one was found damaged meanwhile, it is
    /// no better.
    pub(crate) fn note_named(&mut self, checkpoint: CheckpointRef, kept: &[(RegionIndex, Place)]) {
        if kept.iter().any(|of| self.places.contains(of)) {
            self.add_poor([checkpoint]);
        }
    }
}

/// What a region was made of.
pub(crate) struct Rebuilt {
    /// The map of that region, with the objects that it points at.
    pub(crate) prefix: Prefix,
    /// Kept checkpoints that have the damaged bytes.
    pub(crate) poor: Vec<CheckpointRef>,
}

/// Makes a region again that is damaged at `place`; `None` if the checkpoint before has it no better, or is not there.
///
/// # Errors
/// The store's, and what is damaged or missing of what it takes.
pub(crate) async fn rebuild(
    store: &VolumeStore,
    superblock: &Superblock,
    region: RegionIndex,
    place: Place,
) -> Result<Option<Rebuilt>, Error> {
    let mut before: Option<Root> = None;
    let mut checkpoints = superblock.checkpoints.iter();
    let newest = loop {
        let Some(checkpoint) = checkpoints.next() else { return Ok(None) };
        let root = read_root(store, superblock.volume_id, checkpoint).await?;
        if has(&root, region, place) {
            break checkpoint;
        }
        before = Some(root);
    };
    let Some(before) = before else { return Ok(None) };
    // Those that came after it took the region over from it.
    let poor = std::iter::once(newest).chain(checkpoints).copied().collect();
    let volume = superblock.volume_id;
    let after = before.stamp.as_of;
    let prefix = prefix_of(before).limited_to(region);
    let from = prefix.find_place(region);
    let line = superblock.own_line();
    let (size_bytes, window) = (superblock.largest_size_bytes(), superblock.window);
    let mut replay = Replay::from(volume, size_bytes, window, prefix).along(&line);
    if let Some(layout) = &superblock.log_layout {
        replay = replay.taking_format_1(layout.append_format);
    }
    if let Some(from) = from {
        for (region, place, content) in read_regions(store, volume, vec![(region, from)]).await? {
            let checked = replay.prefix().check_region(&content);
            checked.map_err(|reason| store.corrupt(names::checkpoint_part(&place.part), reason))?;
            replay.load(region, place, content);
        }
    }
    let mut listed = store.list_log(Some(after)).await?;
    listed.retain(|entry| entry.number <= newest.stamp.as_of && line.contains(entry.number));
    let mut headers = futures::stream::iter(listed)
        .map(|entry| async move { (entry, store.read_log_header(entry.number).await) })
        .buffered(HEADERS_AT_ONCE);
    while let Some((entry, header)) = headers.next().await {
        if entry.number < replay.next_number() {
            continue; // skipped by a fence
        }
        let name = store.log_name(entry.number);
        let Some(header) = header? else {
            return Err(Error::Missing { volume: store.label(), object: name });
        };
        if entry.number > replay.next_number() {
            let missing = store.log_name(replay.next_number());
            return Err(Error::Missing { volume: store.label(), object: missing });
        }
        let taken = replay.accept_any(entry.number, &header);
        taken.map_err(|error| store.corrupt(name, error.to_string()))?;
    }
    let stamp = newest.stamp;
    let last = ObjectIdentity { volume, epoch: stamp.epoch, writer: stamp.writer, number: stamp.as_of };
    if replay.prefix().log().last != Some(last) {
        let reason =
            "the log between two checkpoints does not lead to the object that the newer one is as of";
        return Err(store.corrupt(store.log_name(stamp.as_of), reason));
    }
    Ok(Some(Rebuilt { prefix: replay.finish(), poor }))
}

/// What was made again of a region, as the map `now` names it; nothing if it does not fit what was stored there.
///
/// # Errors
/// Why it does not fit.
pub(crate) fn fitted(
    store: &VolumeStore,
    rebuilt: &Prefix,
    now: &Prefix,
    (region, place): (RegionIndex, Place),
) -> Result<RegionContent, Error> {
    let name = names::checkpoint_part(&place.part);
    let corrupt = |reason: String| store.corrupt(name.clone(), format!("made again, {reason}"));
    let content = rebuilt.region_for(region, now.objects());
    let checked = content.and_then(|content| {
        now.check_live(&content)?;
        now.check_region(&content)?;
        Ok(content)
    });
    checked.map_err(corrupt)
}

/// Whether what was made again has the length of what was stored there.
///
/// # Errors
/// That it has another one.
pub(crate) fn check_length(
    store: &VolumeStore,
    superblock: &Superblock,
    (region, place): (RegionIndex, Place),
    content: &RegionContent,
) -> Result<(), Error> {
    let mut bytes = Vec::new();
    let runs = content.iter().map(|&(extent, mapping)| region_run(extent, mapping));
    encode_region(superblock.volume_id, place.part, region, runs, &mut bytes);
    if bytes.len() == place.length_bytes as usize {
        return Ok(());
    }
    let reason = format!("made again, it has {} bytes, and not {}", bytes.len(), place.length_bytes);
    Err(store.corrupt(names::checkpoint_part(&place.part), reason))
}

/// That nobody knows what a block holds: its region of the map was lost.
pub(crate) fn lost(store: &VolumeStore, prefix: &Prefix, block: BlockIndex) -> Error {
    let region = RegionIndex::of(block);
    let place = prefix.find_place(region);
    let object =
        place.map_or_else(|| names::CHECKPOINT_FOLDER.to_owned(), |at| names::checkpoint_part(&at.part));
    let reason = format!(
        "region {region} of the map was lost, as every checkpoint of it was damaged: what the volume holds from byte {} on is \
         not known until it is written or discarded",
        block.0 * BLOCK_BYTES
    );
    store.corrupt(object, reason)
}

/// Says that a region is lost, and what of.
pub(crate) fn tell_loss(store: &VolumeStore, region: RegionIndex, place: Place, error: &Error) {
    let (from, until) = (region.extent().start.0 * BLOCK_BYTES, region.extent().end().0 * BLOCK_BYTES);
    let Place { offset_bytes, length_bytes, .. } = place;
    tracing::error!(
        volume = %store.label(), object = %names::checkpoint_part(&place.part), offset_bytes, length_bytes,
        "region {region} of the map is LOST: {error}; bytes {from} to {until} of the volume are I/O errors until they are \
         written or discarded; all else goes on. The damaged object, and all that it may refer to, is kept"
    );
}

/// Whether a checkpoint has a region at this place.
pub(crate) fn has(root: &Root, region: RegionIndex, place: Place) -> bool {
    let found = root.regions.binary_search_by_key(&region, |of| of.region).ok().map(|at| root.regions[at]);
    found.is_some_and(|of| {
        let part = root.parts[of.part as usize].part;
        (part, of.offset_bytes, of.length_bytes) == (place.part, place.offset_bytes, place.length_bytes)
    })
}

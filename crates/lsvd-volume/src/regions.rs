//! Reading checkpoints, roots and regions of the extent map, verified (rule 5).
//!
//! Knows places; not which of them count, and not the map.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use lsvd_engine::{Location, Mapping, ObjectIndex, Place, RegionContent};
use lsvd_format::checkpoint::{PartId, RegionIndex, Root, RunContent, Slot, decode_region, decode_root};
use lsvd_format::superblock::CheckpointRef;
use lsvd_format::{DecodeError, Extent, VolumeId, names};

use crate::Error;
use crate::store::{VERIFY_TRIES, VolumeStore};

/// GETs at once when many regions are needed.
const READS_AT_ONCE: usize = 64;
/// Regions that lie this near to each other are read by one GET.
const GAP_BYTES_MAX: u64 = 64 << 10;
/// Bytes of one GET at most, unless a region has more.
const READ_BYTES_MAX: u64 = 8 << 20;

/// Reads a checkpoint's root, verified.
///
/// # Errors
/// [`Error::Missing`], [`Error::Corrupt`], [`Error::Newer`], or the store's.
pub(crate) async fn read_root(
    store: &VolumeStore,
    volume: VolumeId,
    checkpoint: &CheckpointRef,
) -> Result<Root, Error> {
    let name = names::checkpoint_part(&checkpoint.part);
    let range = checkpoint.root_offset_bytes..checkpoint.root_offset_bytes + checkpoint.root_bytes;
    let mut tries = 0;
    loop {
        tries += 1;
        let reason = match store.bucket().read_range(&name, range.clone()).await {
            Ok(Some(bytes)) => match decode_root(volume, checkpoint.part, &bytes) {
                Ok(root) if root.stamp == checkpoint.stamp => return Ok(root),
                Ok(_) => "it is as of another object than the superblock says".to_owned(),
                Err(DecodeError::Newer { what }) => {
                    return Err(Error::Newer { volume: store.label(), what: format!("{name}: {what}") });
                }
                Err(error) => error.to_string(),
            },
            Ok(None) => return Err(Error::Missing { volume: store.label(), object: name }),
            Err(lsvd_backend::Error::Corrupt { detail, .. }) => detail,
            Err(error) => return Err(store.store_error(error)),
        };
        if tries == VERIFY_TRIES {
            return Err(store.corrupt(name, reason));
        }
    }
}

/// A region, where it was read, and what a checkpoint holds of it.
pub(crate) type Loaded = (RegionIndex, Place, RegionContent);

/// Reads regions, neighbours by one GET, many at once, in any order.
///
/// # Errors
/// The first one's: the store's, [`Error::Missing`], or [`Error::Corrupt`].
pub(crate) async fn read_regions(
    store: &VolumeStore,
    volume: VolumeId,
    regions: Vec<(RegionIndex, Place)>,
) -> Result<Vec<Loaded>, Error> {
    let reads = futures::stream::iter(neighbours(regions));
    let mut reads = reads.map(|run| read_run(store, volume, run)).buffer_unordered(READS_AT_ONCE);
    let mut loaded = Vec::new();
    while let Some(run) = reads.next().await {
        loaded.extend(run?);
    }
    Ok(loaded)
}

/// Reads the regions of one part that lie near each other.
async fn read_run(
    store: &VolumeStore,
    volume: VolumeId,
    run: Vec<(RegionIndex, Place)>,
) -> Result<Vec<Loaded>, Error> {
    let (part, start, end) = bounds(&run);
    // A clone's regions may lie where its parents stored them.
    let (store, volume) = (store.store_of(part.as_of)?, store.volume_of(part.as_of, volume));
    let name = names::checkpoint_part(&part);
    let mut tries = 0;
    loop {
        tries += 1;
        let read = store.bucket().read_range(&name, start..end).await;
        let reason = match read {
            Ok(Some(bytes)) => match decode(volume, &run, start, &bytes) {
                Ok(loaded) => return Ok(loaded),
                Err(reason) => reason,
            },
            Ok(None) => return Err(Error::Missing { volume: store.label(), object: name }),
            Err(lsvd_backend::Error::Corrupt { detail, .. }) => detail,
            Err(error) => return Err(store.store_error(error)),
        };
        tracing::error!(volume = %store.label(), object = %name, tries, "failed verification: {reason}");
        if tries == VERIFY_TRIES {
            return Err(store.corrupt(name, reason));
        }
    }
}

fn decode(
    volume: VolumeId,
    run: &[(RegionIndex, Place)],
    start: u64,
    bytes: &Bytes,
) -> Result<Vec<Loaded>, String> {
    let each = run.iter().map(|&(region, place)| {
        let from = usize::try_from(place.offset_bytes - start).map_err(|error| error.to_string())?;
        let blob = bytes.get(from..from + place.length_bytes as usize);
        let blob = blob.ok_or_else(|| "it is shorter than its checkpoint says".to_owned())?;
        let runs = decode_region(volume, place.part, region, blob)
            .map_err(|error| format!("region {region} at byte {}: {error}", place.offset_bytes))?;
        Ok((region, place, runs.into_iter().map(|run| (run.extent, mapping(run.content))).collect()))
    });
    each.collect()
}

/// What the map says of a stored run.
fn mapping(content: RunContent) -> Mapping {
    match content {
        RunContent::Zero => Mapping::Zero,
        RunContent::Lost => Mapping::Lost,
        RunContent::Stored { slot, ordinal } => {
            Mapping::Stored(Location { object: ObjectIndex(slot.0), ordinal })
        }
    }
}

/// What is stored of a run of the map.
pub(crate) fn run_content(mapping: Mapping) -> RunContent {
    match mapping {
        Mapping::Zero => RunContent::Zero,
        Mapping::Lost => RunContent::Lost,
        Mapping::Stored(Location { object, ordinal }) => RunContent::Stored { slot: Slot(object.0), ordinal },
    }
}

/// Cuts regions into runs that one GET reads.
fn neighbours(regions: Vec<(RegionIndex, Place)>) -> Vec<Vec<(RegionIndex, Place)>> {
    let mut by_part: BTreeMap<PartId, Vec<(RegionIndex, Place)>> = BTreeMap::new();
    for (region, place) in regions {
        by_part.entry(place.part).or_default().push((region, place));
    }
    let mut runs: Vec<Vec<(RegionIndex, Place)>> = Vec::new();
    for (_, mut regions) in by_part {
        regions.sort_unstable_by_key(|(_, place)| place.offset_bytes);
        let mut run: Vec<(RegionIndex, Place)> = Vec::new();
        for (region, place) in regions {
            if !run.is_empty() {
                let (_, start, end) = bounds(&run);
                let far = place.offset_bytes > end + GAP_BYTES_MAX;
                if far || place.offset_bytes + u64::from(place.length_bytes) > start + READ_BYTES_MAX {
                    runs.push(std::mem::take(&mut run));
                }
            }
            run.push((region, place));
        }
        runs.push(run);
    }
    runs
}

/// Part, first byte and end of a run that is not empty.
fn bounds(run: &[(RegionIndex, Place)]) -> (PartId, u64, u64) {
    let (first, last) = (run[0].1, run[run.len() - 1].1);
    (first.part, first.offset_bytes, last.offset_bytes + u64::from(last.length_bytes))
}

/// An extent as the format has it.
pub(crate) fn region_run(extent: Extent, mapping: Mapping) -> lsvd_format::checkpoint::RegionRun {
    lsvd_format::checkpoint::RegionRun { extent, content: run_content(mapping) }
}

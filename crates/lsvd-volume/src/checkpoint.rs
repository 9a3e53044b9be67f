//! Writing checkpoints: the changed regions of the map and a root, stored behind the clients' backs and then named by a
//! superblock version (rule 8).
//!
//! Knows when one is due and in which order it is stored; what it holds, the engine says. Invariant: nothing is named
//! that is not stored, and what a kept root refers to stays.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lsvd_backend::{Created, PutPayload};
use lsvd_engine::{CaptureStart, Place, StoredRegions};
use lsvd_format::checkpoint::{
    CheckpointStamp, ContainedRecord, LastDataRecord, PartId, RegionIndex, RegionPlace, Root, RootObject,
    RootParent, RootPart, SkippedRange, Slot, decode_part_head, encode_part_head, encode_region, encode_root,
};
use lsvd_format::superblock::{CheckpointRef, Moments, Parent, Superblock};
use lsvd_format::{BLOCK_BYTES, WriterId, names};

use crate::Error;
use crate::core::Core;
use crate::history::Ages;
use crate::mend::Wounds;
use crate::named::NamedState;
use crate::regions::region_run;
use crate::store::VolumeStore;

/// A part is stored when it has this many bytes.
const PART_BYTES: usize = 16 << 20;
/// Regions captured under one hold of the engine's lock.
const CAPTURE_AT_ONCE: usize = 8;
/// Unchanged regions that a checkpoint stores again at most, so that old objects can go.
const STORED_AGAIN_MAX: usize = 256;
/// Checkpoints kept: one to open with, and the one before, should that be damaged (rule 7).
pub(crate) const CHECKPOINTS_KEPT: usize = 2;

/// Writes checkpoints of one opening.
pub(crate) struct Checkpointer {
    core: Arc<Core>,
    named: NamedState,
    writer: WriterId,
    serial: AtomicU32,
    ages: Mutex<Ages>,
}

/// What a checkpoint was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) regions: u64,
    pub(crate) bytes: u64,
}

impl Checkpointer {
    pub(crate) fn new(core: Arc<Core>, named: NamedState, unusable: Vec<CheckpointRef>) -> Self {
        let writer = core.writer();
        core.wounds().add_poor(unusable);
        Self { core, named, writer, serial: AtomicU32::new(0), ages: Mutex::default() }
    }

    /// Writes a checkpoint as of now; `None` if the engine was in the midst of an object, or nothing is new.
    ///
    /// # Errors
    /// [`Error::Fenced`]; the store's: the next one holds what this one would have held.
    pub(crate) async fn write(&self) -> Result<Option<Written>, Error> {
        let sparse = self.core.engine(|engine| engine.sparsely_stored(STORED_AGAIN_MAX));
        match self.core.with_regions(|engine| engine.store_again(&sparse)).await {
            Ok(()) => {}
            // It is for space alone, and a region that is damaged must not keep the others from their checkpoint.
            Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) => {
                tracing::warn!("regions are not stored again: {error}");
            }
            Err(error) => return Err(error),
        }
        let Some(start) = self.core.engine(|engine| engine.begin_checkpoint()) else { return Ok(None) };
        // If this is given up in the midst, the engine hears of it.
        let mut begun = Begun { core: &self.core, named: None };
        let stored = self.store_all(&start).await?;
        let Some((checkpoint, stored, written)) = stored else { return Ok(None) };
        let as_of = checkpoint.stamp.as_of;
        self.named
            .update(|superblock| {
                let wounds = self.core.wounds();
                let mut kept = superblock.checkpoints.clone();
                // An earlier one of the same object: nobody knew that it was named, or a region of it was damaged.
                kept.retain(|earlier| earlier.stamp.as_of < as_of);
                let poor = kept.iter().rev().find(|earlier| wounds.is_poor(earlier)).copied();
                kept.retain(|earlier| !wounds.is_poor(earlier));
                // One that lacks a region is better than none.
                kept.extend(poor.filter(|_| kept.is_empty()));
                kept.push(checkpoint);
                let moments = rebased(superblock, &wounds);
                let now = (self.core.opened_for(), superblock.written_unix_ms);
                let mut ages = self.ages.lock().unwrap_or_else(PoisonError::into_inner);
                ages.thin(&mut kept, superblock.moments.history_ms, now);
                superblock.log_reached = superblock.log_reached.max(Some(as_of));
                *superblock = superblock.clone().with_checkpoints(kept).with_moments(moments);
                if start.lossy {
                    *superblock = superblock.clone().with_lost_blocks();
                }
            })
            .await?;
        self.core.wounds().note_named(checkpoint, &start.stored);
        begun.named = Some(stored);
        drop(begun);
        self.core.wrote_checkpoint();
        tracing::debug!(
            volume = %self.core.store().label(), "checkpoint as of number {as_of}: {} regions, {} bytes",
            written.regions, written.bytes
        );
        Ok(Some(written))
    }

    async fn store_all(
        &self,
        start: &CaptureStart,
    ) -> Result<Option<(CheckpointRef, StoredRegions, Written)>, Error> {
        let Some(last) = start.log.last else { return Ok(None) };
        let stamp = CheckpointStamp { as_of: last.number, epoch: last.epoch, writer: last.writer };
        let mut places: Vec<(RegionIndex, Option<Place>)> = Vec::with_capacity(start.regions);
        let mut parts: Vec<RootPart> = start.parts.clone();
        let mut written = Written::default();
        let mut part = Part::new(self, stamp);
        loop {
            let regions = self.core.engine(|engine| engine.capture(CAPTURE_AT_ONCE));
            if regions.is_empty() {
                break;
            }
            for (region, runs) in regions {
                written.regions += 1;
                let place = (!runs.is_empty()).then(|| part.add(self, region, runs));
                places.push((region, place));
            }
            if part.bytes.len() >= PART_BYTES {
                let full = std::mem::replace(&mut part, Part::new(self, stamp));
                parts.push(self.put(full, &mut written).await?);
            }
        }
        if !part.is_empty() {
            parts.push(self.put(part, &mut written).await?);
        }
        let mut root_part = Part::new(self, stamp);
        let root_offset_bytes = root_part.bytes.len() as u64;
        // Asked behind the beginning: what the map held then fits into what the volume is known to have been then.
        let superblock = self.named.get().await;
        let root = root(self, start, (stamp, root_part.id), &superblock, &places, parts);
        encode_root(&root, &mut root_part.bytes);
        let root_bytes = root_part.bytes.len() as u64 - root_offset_bytes;
        let id = root_part.id;
        self.put(root_part, &mut written).await?;
        let stored = StoredRegions { places, parts: root.parts };
        let taken_unix_ms = self.core.now_unix_ms();
        let checkpoint = CheckpointRef { stamp, part: id, root_offset_bytes, root_bytes, taken_unix_ms };
        Ok(Some((checkpoint, stored, written)))
    }

    /// Stores an object of the checkpoint; a lost answer is resolved by its head (rule 2).
    async fn put(&self, part: Part, written: &mut Written) -> Result<RootPart, Error> {
        let store = self.core.store();
        let Part { id, bytes, .. } = part;
        let object_bytes = bytes.len() as u64;
        let payload = PutPayload::from(Bytes::from(bytes));
        put_part(store, id, self.writer, payload).await?;
        written.bytes += object_bytes;
        Ok(RootPart { part: id, object_bytes })
    }
}

/// The moments, where each snapshot whose base is known to be damaged is read from the newest good one that is still kept: all
/// behind the oldest kept one is stored. A clone has taken over parts of the one that it began with, so that its own stays.
fn rebased(superblock: &Superblock, wounds: &Wounds) -> Moments {
    let mut moments = superblock.moments.clone();
    for snapshot in &mut moments.snapshots {
        if snapshot.clone.is_some() || !snapshot.base.is_some_and(|base| wounds.is_poor(&base)) {
            continue;
        }
        let line = superblock.line(snapshot.as_of);
        let leads = |kept: &&CheckpointRef| line.contains(kept.stamp.as_of) && !wounds.is_poor(kept);
        if let Some(better) = superblock.checkpoints.iter().rev().find(leads) {
            snapshot.base = Some(*better);
        }
    }
    moments
}

async fn put_part(
    store: &VolumeStore,
    id: PartId,
    writer: WriterId,
    payload: PutPayload,
) -> Result<(), Error> {
    let name = names::checkpoint_part(&id);
    match store.bucket().create(&name, payload).await.map_err(|error| store.store_error(error))? {
        Created::Done => Ok(()),
        Created::Exists => {
            let head =
                store.bucket().read_head(&name, 4096).await.map_err(|error| store.store_error(error))?;
            let head = head.and_then(|head| decode_part_head(&head.bytes).ok());
            match head.filter(|head| head.part == id && head.writer == writer) {
                Some(_) => Ok(()),
                None => Err(store.corrupt(name, "it is there, and not what was put")),
            }
        }
    }
}

/// An object of a checkpoint that is being filled.
struct Part {
    id: PartId,
    bytes: Vec<u8>,
    head_len: usize,
}

impl Part {
    fn new(of: &Checkpointer, stamp: CheckpointStamp) -> Self {
        let serial = of.serial.fetch_add(1, Ordering::Relaxed);
        let id = PartId { as_of: stamp.as_of, epoch: of.core.epoch(), serial };
        let bytes = encode_part_head(of.core.volume_id(), id, of.writer).to_vec();
        Self { id, head_len: bytes.len(), bytes }
    }

    fn is_empty(&self) -> bool {
        self.bytes.len() == self.head_len
    }

    fn add(&mut self, of: &Checkpointer, region: RegionIndex, runs: lsvd_engine::RegionContent) -> Place {
        let offset_bytes = self.bytes.len() as u64;
        let runs = runs.into_iter().map(|(extent, mapping)| region_run(extent, mapping));
        encode_region(of.core.volume_id(), self.id, region, runs, &mut self.bytes);
        let length_bytes = u32::try_from(self.bytes.len() as u64 - offset_bytes);
        Place { part: self.id, offset_bytes, length_bytes: length_bytes.expect("a region is small") }
    }
}

/// The root of a checkpoint whose regions are stored.
fn root(
    of: &Checkpointer,
    start: &CaptureStart,
    (stamp, part): (CheckpointStamp, PartId),
    superblock: &Superblock,
    places: &[(RegionIndex, Option<Place>)],
    mut parts: Vec<RootPart>,
) -> Root {
    let log = &start.log;
    let size_bytes = superblock.size_bytes_at(&superblock.line(stamp.as_of));
    let parent = |parent: &Parent| RootParent { volume: parent.volume_id, until: parent.as_of };
    let mut regions: Vec<(RegionIndex, Place)> = start.stored.clone();
    regions.extend(places.iter().filter_map(|&(region, place)| Some((region, place?))));
    regions.sort_unstable_by_key(|(region, _)| *region);
    // A log that was wound back by hand may reach beyond a size that it had later.
    let reaches = regions.last().map_or(0, |(region, _)| region.extent().start.0 + 1);
    let mut used: BTreeSet<PartId> = regions.iter().map(|(_, place)| place.part).collect();
    used.extend(&start.lost_parts);
    parts.retain(|part| used.contains(&part.part));
    parts.sort_unstable_by_key(|part| part.part);
    let place = |&(region, place): &(RegionIndex, Place)| {
        let at = parts.binary_search_by_key(&place.part, |part| part.part).expect("every place has its part");
        let part = u32::try_from(at).expect("few parts");
        RegionPlace { region, part, offset_bytes: place.offset_bytes, length_bytes: place.length_bytes }
    };
    let regions = regions.iter().map(place).collect();
    let objects = start.objects.iter(0..usize::MAX).map(|(index, state)| RootObject {
        slot: Slot(index.0),
        identity: state.record.identity,
        format: state.record.format,
        header_bytes: state.record.header_bytes,
        payload_blocks: state.record.payload_blocks,
        live_blocks: state.live_blocks,
        died_at: state.died_at,
        object_bytes: state.record.object_bytes(),
    });
    let journals =
        log.journals.iter().map(|(&(journal, epoch), &record)| ContainedRecord { journal, epoch, record });
    Root {
        volume: of.core.volume_id(),
        parents: superblock.parents.iter().map(parent).collect(),
        stamp,
        part,
        volume_blocks: reaches.max(size_bytes / BLOCK_BYTES),
        next_number: log.next,
        last_data: log.last_data.map(|last| LastDataRecord {
            epoch: last.epoch,
            sealed_unix_ms: last.sealed_unix_ms,
            journal: last.journal,
        }),
        journals: journals.collect(),
        skipped: log.skipped.iter().map(|&(fence, next)| SkippedRange { fence, next }).collect(),
        last_format: log.last_format,
        objects: objects.collect(),
        parts,
        regions,
    }
}

/// A checkpoint that the engine has begun.
struct Begun<'a> {
    core: &'a Arc<Core>,
    named: Option<StoredRegions>,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let named = self.named.take();
        self.core.engine(|engine| engine.end_checkpoint(named));
    }
}

//! The root of a checkpoint: what opening has to know before the first region is loaded.
//!
//! Knows neither the runs of the regions nor the superblock that names it. Invariants, for both directions:
//! 1. the root lies in a part of its own checkpoint, and nothing in it is newer than what it is as of;
//! 2. a slot, a number, an epoch's writer, a part and a region are each there once;
//! 3. `live_blocks <= payload_blocks`, and an object without live blocks says when the last one died;
//! 4. every region lies within the volume, and its bytes within their part;
//! 5. the next number is the one behind the object that it is as of: one more, or what the fence says;
//! 6. whose an object or a part is, its number says: up to where the volume was cloned it is a parent's.

mod bytes;
#[cfg(test)]
mod tests;

pub use bytes::{ROOT_HEAD_BYTES, ROOT_MAGIC, decode_root, encode_root};

use std::collections::BTreeSet;

use super::{
    CheckpointStamp, PART_BYTES_MAX, PART_HEAD_BYTES, PartId, REGION_BYTES_MAX, REGION_BYTES_MIN,
    RegionIndex, Slot,
};
use crate::log_object::{FRAME_BYTES, HEADER_BYTES_MAX, HEADER_FIXED_BYTES};
use crate::{
    BLOCK_BYTES, Epoch, JournalId, JournalPosition, NUMBER_MAX, ObjectFormat, ObjectIdentity, SequenceNumber,
    VOLUME_BYTES_MAX, VolumeId, v1,
};

/// What a checkpoint says but for the runs of its regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The volume.
    pub volume: VolumeId,
    /// The volumes that it shares objects and parts with, if it is a clone: ascending by `until`.
    pub parents: Vec<RootParent>,
    /// The log object that the checkpoint is as of.
    pub stamp: CheckpointStamp,
    /// The part that holds this root.
    pub part: PartId,
    /// Size of the volume, in blocks.
    pub volume_blocks: u64,
    /// The number of the log behind the object that the checkpoint is as of: a fence skips.
    pub next_number: SequenceNumber,
    /// What the last object that is no fence says; `None` if the log has none yet.
    pub last_data: Option<LastDataRecord>,
    /// The last record of each journal that the objects of an opening contain: ascending by journal and epoch.
    pub journals: Vec<ContainedRecord>,
    /// What the fences skip: ascending.
    pub skipped: Vec<SkippedRange>,
    /// The format of the object that the checkpoint is as of.
    pub last_format: Option<ObjectFormat>,
    /// The log objects that the map may refer to: ascending by slot.
    pub objects: Vec<RootObject>,
    /// The parts that the regions lie in; and such as hold, damaged, what lost blocks were, which are kept for that.
    pub parts: Vec<RootPart>,
    /// Where the regions are that have a run: ascending.
    pub regions: Vec<RegionPlace>,
}

/// A volume that a clone shares objects and parts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootParent {
    /// Which volume.
    pub volume: VolumeId,
    /// What has this number or one below, and above the parent's before, is this volume's.
    pub until: SequenceNumber,
}

/// What the last object of the log that is no fence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastDataRecord {
    /// The opening that wrote it.
    pub epoch: Epoch,
    /// When it was sealed, in milliseconds since 1970 by its writer's clock.
    pub sealed_unix_ms: u64,
    /// How much of which journal the log up to it contains.
    pub journal: Option<JournalPosition>,
}

/// The last record of a journal that the objects of one opening contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainedRecord {
    /// The journal.
    pub journal: JournalId,
    /// The opening.
    pub epoch: Epoch,
    /// Number of the record; 0 if they contain none of it.
    pub record: u64,
}

/// The numbers above `fence` and below `next`, which are no object's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkippedRange {
    /// Number of the fence.
    pub fence: SequenceNumber,
    /// The number that follows it in the log.
    pub next: SequenceNumber,
}

/// A log object that the map may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootObject {
    /// What the regions call it.
    pub slot: Slot,
    /// Which object it is. In format 1, epoch and writer are those of the mark before it, or zeroes.
    pub identity: ObjectIdentity,
    /// The format that it is written in.
    pub format: ObjectFormat,
    /// Length of its header, in bytes: where its payload begins.
    pub header_bytes: u64,
    /// Blocks in its payload.
    pub payload_blocks: u64,
    /// Blocks of its payload that the map refers to.
    pub live_blocks: u64,
    /// Number of the object with which its last block died, its own if it never had one; `None` while a block lives.
    pub died_at: Option<SequenceNumber>,
    /// Length of the whole object, in bytes: `header_bytes` and the payload's.
    pub object_bytes: u64,
}

/// A part that regions lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootPart {
    /// Which part.
    pub part: PartId,
    /// Length of the whole part, in bytes. It takes eight bytes whatever it is, so that the part that holds the root may
    /// be named in it.
    pub object_bytes: u64,
}

/// Where a region lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionPlace {
    /// Which region.
    pub region: RegionIndex,
    /// Index into [`Root::parts`].
    pub part: u32,
    /// Where in the part, in bytes from its start.
    pub offset_bytes: u64,
    /// How long it is there, in bytes.
    pub length_bytes: u32,
}

impl Root {
    /// The invariants that are about values, for both directions.
    fn check(&self) -> Result<(), String> {
        self.check_parents()?;
        self.check_stamp()?;
        self.check_log()?;
        self.check_objects()?;
        self.check_parts()?;
        self.check_regions()
    }

    /// The first number that can be this volume's own: below are its parents'.
    pub fn own_from(&self) -> SequenceNumber {
        self.parents.last().map_or(SequenceNumber(0), |parent| parent.until.next())
    }

    /// The volume that an object or a part with this number belongs to.
    pub fn volume_of(&self, number: SequenceNumber) -> VolumeId {
        let at = self.parents.partition_point(|parent| parent.until < number);
        self.parents.get(at).map_or(self.volume, |parent| parent.volume)
    }

    fn check_parents(&self) -> Result<(), String> {
        if !self.parents.is_sorted_by(|a, b| a.until < b.until) {
            return Err("the parents are not in the order of their numbers".to_owned());
        }
        let mut volumes: Vec<VolumeId> = self.parents.iter().map(|parent| parent.volume).collect();
        volumes.push(self.volume);
        volumes.sort_unstable();
        if volumes.windows(2).any(|two| two[0] == two[1]) {
            return Err("a volume is named twice".to_owned());
        }
        match self.parents.last() {
            Some(last) if last.until >= self.part.as_of => {
                Err(format!("a parent up to {} in a root as of {}", last.until, self.part.as_of))
            }
            _ => Ok(()),
        }
    }

    fn check_stamp(&self) -> Result<(), String> {
        self.part.check()?;
        let (stamp, part) = (&self.stamp, self.part);
        if stamp.as_of != part.as_of {
            return Err(format!(
                "a root as of {} in a part of a checkpoint as of {}",
                stamp.as_of, part.as_of
            ));
        }
        if !(1..=part.epoch.0).contains(&stamp.epoch.0) {
            return Err(format!(
                "epoch {} of object {} is not from 1 to {}",
                stamp.epoch, stamp.as_of, part.epoch
            ));
        }
        if !(1..=VOLUME_BYTES_MAX / BLOCK_BYTES).contains(&self.volume_blocks) {
            return Err(format!("a volume of {} blocks", self.volume_blocks));
        }
        Ok(())
    }

    fn check_log(&self) -> Result<(), String> {
        let CheckpointStamp { as_of, epoch, .. } = self.stamp;
        let mut free = SequenceNumber(0);
        for range in &self.skipped {
            if range.fence < free || range.fence > as_of || range.next <= range.fence {
                return Err(format!("fence {} names {} in a log up to {as_of}", range.fence, range.next));
            }
            free = range.next;
        }
        let next = match self.skipped.last() {
            Some(range) if range.fence == as_of => range.next,
            _ => as_of.next(),
        };
        // A fence that is not the last object has objects behind it, so that all it skips lies below them.
        let skips_itself =
            self.skipped.last().is_some_and(|range| range.fence != as_of && range.next > as_of);
        if self.next_number != next || skips_itself || next.0 > NUMBER_MAX {
            return Err(format!("number {} as the next behind {as_of}", self.next_number));
        }
        let never = JournalId([0; 16]);
        if let Some(last) = &self.last_data
            && (last.epoch > epoch || last.journal.is_some_and(|position| position.journal == never))
        {
            return Err(format!("the last data are of epoch {}, or of no journal", last.epoch));
        }
        if !self.journals.is_sorted_by(|a, b| (a.journal, a.epoch) < (b.journal, b.epoch)) {
            return Err("the journals are not in order".to_owned());
        }
        let strange = self.journals.iter().find(|record| record.epoch > epoch || record.journal == never);
        strange.map_or(Ok(()), |record| Err(format!("journal {} in epoch {}", record.journal, record.epoch)))
    }

    fn check_objects(&self) -> Result<(), String> {
        if !self.objects.is_sorted_by(|a, b| a.slot < b.slot) {
            return Err("the objects are not in the order of their slots".to_owned());
        }
        self.objects.iter().try_for_each(|object| self.check_object(object))?;
        let mut by_number: Vec<&RootObject> = self.objects.iter().collect();
        by_number.sort_unstable_by_key(|object| object.identity.number);
        for pair in by_number.windows(2) {
            check_order(pair[0], pair[1])?;
        }
        for range in &self.skipped {
            let above = by_number.partition_point(|object| object.identity.number <= range.fence);
            let fence = above.checked_sub(1).and_then(|index| by_number.get(index));
            if let Some(object) = fence.filter(|object| object.identity.number == range.fence)
                && object.payload_blocks != 0
            {
                return Err(format!("fence {} has {} blocks", range.fence, object.payload_blocks));
            }
            if let Some(object) = by_number.get(above).filter(|object| object.identity.number < range.next) {
                return Err(format!("object {} is skipped by fence {}", object.identity.number, range.fence));
            }
        }
        Ok(())
    }

    fn check_object(&self, object: &RootObject) -> Result<(), String> {
        let ObjectIdentity { volume, epoch, writer, number } = object.identity;
        let CheckpointStamp { as_of, .. } = self.stamp;
        if volume != self.volume_of(number) {
            return Err(format!("object {number} is of another volume, {volume}"));
        }
        let least = if object.format == ObjectFormat::V1 { 0 } else { 1 };
        let newest = if volume == self.volume { self.stamp.epoch.0 } else { NUMBER_MAX };
        if !(least..=as_of.0).contains(&number.0) || !(least..=newest).contains(&epoch.0) {
            return Err(format!("object {number} of epoch {epoch} in a checkpoint as of {as_of}"));
        }
        if number == as_of && (epoch, writer) != (self.stamp.epoch, self.stamp.writer) {
            return Err(format!("object {number} is not the one that the checkpoint is as of"));
        }
        let payload = object.payload_blocks;
        if !is_header(object.format, object.header_bytes) || payload > u64::from(u32::MAX) {
            let header_bytes = object.header_bytes;
            return Err(format!("object {number} has a header of {header_bytes} bytes and {payload} blocks"));
        }
        if object.object_bytes != object_bytes(object.format, object.header_bytes, payload) {
            return Err(format!("object {number} has {} bytes", object.object_bytes));
        }
        let (live, died_at) = (object.live_blocks, object.died_at);
        if live > payload || died_at.is_some() != (live == 0) {
            return Err(format!(
                "object {number} has {live} live blocks of {payload}, and died at {died_at:?}"
            ));
        }
        if died_at.is_some_and(|died_at| died_at < number || died_at > as_of) {
            return Err(format!("object {number} died at {died_at:?} in a checkpoint as of {as_of}"));
        }
        Ok(())
    }

    fn check_parts(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for RootPart { part, object_bytes } in &self.parts {
            part.check()?;
            let is_own = part.as_of >= self.own_from();
            if part.as_of > self.part.as_of || is_own && part.epoch > self.part.epoch {
                return Err(format!("part {part} is newer than the root"));
            }
            if !(PART_HEAD_BYTES as u64..=PART_BYTES_MAX).contains(object_bytes) {
                return Err(format!("part {part} has {object_bytes} bytes"));
            }
            if !seen.insert(part) {
                return Err(format!("part {part} is named twice"));
            }
        }
        Ok(())
    }

    fn check_regions(&self) -> Result<(), String> {
        if !self.regions.is_sorted_by(|a, b| a.region < b.region) {
            return Err("the regions are not in order".to_owned());
        }
        for place in &self.regions {
            let RegionPlace { region, offset_bytes, .. } = *place;
            let length_bytes = u64::from(place.length_bytes);
            if region.extent().start.0 >= self.volume_blocks {
                return Err(format!("region {region} lies beyond the volume's end"));
            }
            let part = usize::try_from(place.part).ok().and_then(|index| self.parts.get(index));
            let Some(part) = part else {
                return Err(format!("region {region} lies in part {} of {}", place.part, self.parts.len()));
            };
            let end = offset_bytes.checked_add(length_bytes).filter(|end| *end <= part.object_bytes);
            let length = REGION_BYTES_MIN..=REGION_BYTES_MAX;
            if !length.contains(&length_bytes) || offset_bytes < PART_HEAD_BYTES as u64 || end.is_none() {
                let part_bytes = part.object_bytes;
                return Err(format!(
                    "region {region} has {length_bytes} bytes from {offset_bytes} in a part of {part_bytes}"
                ));
            }
        }
        Ok(())
    }
}

/// Whether two objects, the nearest to each other in the table by number, can be of one log.
fn check_order(before: &RootObject, after: &RootObject) -> Result<(), String> {
    let (one, other) = (&before.identity, &after.identity);
    if one.number == other.number {
        return Err(format!("object {} is named twice", one.number));
    }
    if one.volume != other.volume {
        return Ok(()); // each has epochs of its own
    }
    if one.epoch > other.epoch || (one.epoch == other.epoch && one.writer != other.writer) {
        let (epoch, writer) = (other.epoch, other.writer);
        return Err(format!(
            "epoch {epoch} of {writer} at object {} follows epoch {}",
            other.number, one.epoch
        ));
    }
    if (before.format, after.format) == (ObjectFormat::V2, ObjectFormat::V1) {
        return Err(format!("object {} is of format 1, behind format 2", other.number));
    }
    Ok(())
}

fn is_header(format: ObjectFormat, header_bytes: u64) -> bool {
    match format {
        ObjectFormat::V1 => header_bytes == v1::HEADER_BYTES,
        ObjectFormat::V2 => {
            (HEADER_FIXED_BYTES..=HEADER_BYTES_MAX).contains(&header_bytes) && header_bytes.is_multiple_of(16)
        }
    }
}

/// Length of an object, which has no more than 2³² blocks.
fn object_bytes(format: ObjectFormat, header_bytes: u64, payload_blocks: u64) -> u64 {
    match format {
        ObjectFormat::V1 => header_bytes + payload_blocks * BLOCK_BYTES,
        ObjectFormat::V2 => header_bytes + payload_blocks * FRAME_BYTES,
    }
}

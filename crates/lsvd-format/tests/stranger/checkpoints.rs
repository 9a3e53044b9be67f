//! Volumes whose log's beginning is in checkpoints: the stranger finds the map there, or says that it can not.

use lsvd_format::checkpoint::{
    CheckpointStamp, PartId, REGION_BLOCKS, RegionIndex, RegionPlace, RegionRun, Root, RootPart, RunContent,
    Slot, encode_part_head, encode_region, encode_root,
};
use lsvd_format::superblock::{CheckpointRef, NumberRange, Superblock};
use lsvd_format::{BlockOrdinal, Epoch, Extent, ObjectFormat, SequenceNumber, names};

use crate::volume::{VOLUME, Volume, data, trim, writer, zero};

/// Where a region was stored: in which part, from which byte on, how long.
type Stored = (RegionIndex, PartId, u64, u32);

impl Volume {
    /// A checkpoint as of now, the last object of this epoch. Of its regions those in `kept` are not written again.
    fn put_checkpoint(&self, as_of: u64, epoch: u64, kept: &[Stored]) -> (CheckpointRef, Vec<Stored>) {
        let part = PartId { as_of: SequenceNumber(as_of), epoch: Epoch(epoch), serial: 0 };
        let mut bytes = encode_part_head(VOLUME, part, writer(epoch)).to_vec();
        let mut stored = kept.to_vec();
        for region in [RegionIndex(0), RegionIndex(1)] {
            if kept.iter().all(|(kept, ..)| *kept != region) {
                let offset = bytes.len();
                encode_region(VOLUME, part, region, self.runs(region), &mut bytes);
                let length = u32::try_from(bytes.len() - offset).expect("short");
                stored.push((region, part, offset as u64, length));
            }
        }
        stored.sort();
        let mut parts: Vec<PartId> = stored.iter().map(|(_, part, ..)| *part).collect();
        parts.sort();
        parts.dedup();
        let places = stored.iter().map(|(region, part, offset_bytes, length_bytes)| RegionPlace {
            region: *region,
            part: u32::try_from(parts.iter().position(|own| own == part).expect("it is there")).expect("few"),
            offset_bytes: *offset_bytes,
            length_bytes: *length_bytes,
        });
        let last = self.skipped.last().filter(|range| range.fence.0 == as_of).map(|range| range.next);
        let stamp = CheckpointStamp { as_of: part.as_of, epoch: Epoch(epoch), writer: writer(epoch) };
        let root = Root {
            volume: VOLUME,
            parents: Vec::new(),
            stamp,
            part,
            volume_blocks: REGION_BLOCKS + 64,
            next_number: last.unwrap_or(part.as_of.next()),
            last_data: None,
            journals: Vec::new(),
            skipped: self.skipped.clone(),
            last_format: Some(ObjectFormat::V2),
            objects: self.objects.values().copied().collect(),
            parts: parts.iter().map(|part| RootPart { part: *part, object_bytes: 1 << 20 }).collect(),
            regions: places.collect(),
        };
        let root_offset_bytes = bytes.len() as u64;
        encode_root(&root, &mut bytes);
        self.put(&names::checkpoint_part(&part), &bytes);
        let root_bytes = bytes.len() as u64 - root_offset_bytes;
        (CheckpointRef { stamp, part, root_offset_bytes, root_bytes, taken_unix_ms: 0 }, stored)
    }

    /// The blocks of a region, those that follow each other in one object as one run.
    fn runs(&self, region: RegionIndex) -> Vec<RegionRun> {
        let extent = region.extent();
        let mut runs: Vec<RegionRun> = Vec::new();
        for (block, place) in self.map.range(extent.start.0..extent.end().0) {
            let content = place.map_or(RunContent::Zero, |(number, ordinal)| RunContent::Stored {
                slot: Slot(u32::try_from(number.0).expect("few objects")),
                ordinal: BlockOrdinal(ordinal),
            });
            let continues = |run: &RegionRun| match (run.content, content) {
                (RunContent::Stored { slot, ordinal }, RunContent::Stored { slot: own, ordinal: next }) => {
                    slot == own && u64::from(ordinal.0) + run.extent.count.0 == u64::from(next.0)
                }
                (before, own) => before == own,
            };
            match runs.last_mut() {
                Some(run) if run.extent.end().0 == *block && continues(run) => run.extent.count.0 += 1,
                _ => runs.push(RegionRun { extent: Extent::new(*block, 1), content }),
            }
        }
        runs
    }

    /// Two checkpoints, as of objects 9 and 14; what the older one does not need is gone.
    fn with_checkpoints(test: &str) -> Self {
        let blocks = usize::try_from(REGION_BLOCKS).expect("small") + 64;
        let mut volume = Self::empty(test, blocks);
        volume.first_opening(&[data(REGION_BLOCKS - 4, 10), zero(REGION_BLOCKS + 20, 3)]);
        let (older, stored) = volume.put_checkpoint(9, 1, &[]);
        volume.second_opening();
        let (newer, _) = volume.put_checkpoint(14, 2, &stored[1..]);
        volume.put_end(vec![data(1, 1), zero(REGION_BLOCKS - 1, 2)]);
        // Fences stay, and so does what the older checkpoint refers to.
        for number in [7, 9] {
            let object = &volume.objects[&number];
            assert!(object.died_at.is_some_and(|died_at| died_at.0 <= 9) && object.payload_blocks > 0);
            let name = names::log_object(SequenceNumber(number));
            std::fs::remove_file(volume.path(&name)).expect("the object is there");
        }
        let range = |number| NumberRange { first: SequenceNumber(number), last: SequenceNumber(number) };
        volume.put_superblock(4, 2, |superblock| {
            Superblock { condemned: vec![range(7), range(9)], ..superblock }
                .with_checkpoints(vec![older, newer])
        });
        volume
    }

    fn damage_part(&self, as_of: u64, epoch: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let part = PartId { as_of: SequenceNumber(as_of), epoch: Epoch(epoch), serial: 0 };
        let name = names::checkpoint_part(&part);
        let mut bytes = std::fs::read(self.path(&name)).expect("the part is there");
        change(&mut bytes);
        self.put(&name, &bytes);
    }

    fn remove_part(&self, as_of: u64, epoch: u64) {
        let part = PartId { as_of: SequenceNumber(as_of), epoch: Epoch(epoch), serial: 0 };
        std::fs::remove_file(self.path(&names::checkpoint_part(&part))).expect("the part is there");
    }
}

/// Rules 7 and 8: what a checkpoint no longer refers to may go, and the map of what is behind it is read from its regions,
/// in whichever part each lies.
#[test]
fn reads_from_a_checkpoint() {
    Volume::with_checkpoints("checkpoint").reads("");
}

/// Rule 7: two are kept, so that the older one is there when the newer one can not be read.
#[test]
fn takes_the_older_checkpoint_if_the_newer_is_damaged_or_missing() {
    let volume = Volume::with_checkpoints("checkpoint-torn");
    volume.damage_part(14, 2, |bytes| *bytes.last_mut().expect("not empty") ^= 1);
    volume.reads("checkpoint as of 14 is passed over: its root's checksum is wrong");
    volume.damage_part(14, 2, |bytes| bytes.truncate(bytes.len() - 1));
    volume.reads("checkpoint as of 14 is passed over: its root is truncated");
    volume.remove_part(14, 2);
    volume.reads("0000000e-0000000000000002-00000000 is missing");
}

/// Rule 5: no unverified byte of the map.
#[test]
fn passes_over_a_checkpoint_with_a_damaged_region() {
    let volume = Volume::with_checkpoints("checkpoint-region");
    volume.damage_part(14, 2, |bytes| bytes[100] ^= 1);
    volume.reads("checkpoint as of 14 is passed over: region 0 is damaged");
}

/// Rule 8: a checkpoint of another history is not used.
#[test]
fn passes_over_a_checkpoint_of_another_history() {
    let mut volume = Volume::with_checkpoints("checkpoint-history");
    // With the same content, so that only whose they are tells them apart.
    volume.put_log(3, 14, vec![trim(22, 40), data(63, 1)], false);
    volume.put_log(3, 15, vec![data(1, 1), zero(REGION_BLOCKS - 1, 2)], false);
    volume.reads("checkpoint as of 14 is passed over: it is of another history");
}

/// Rule 4: a log whose beginning is gone is not taken for an empty one.
#[test]
fn refuses_a_log_without_beginning_and_without_checkpoint() {
    let volume = Volume::with_checkpoints("checkpoint-none");
    volume.remove_part(14, 2);
    volume.remove_part(9, 1);
    volume.refused("the log ends at 6, but had reached 14");
    std::fs::remove_file(volume.path("log/0000000000000001")).expect("the object is there");
    volume.refused("no checkpoint is left");
}

//! What the kept checkpoints and the snapshots of the stored superblock refer to, from the store's bytes alone (rule 7).
//!
//! Shares with the product only the decoders of its format: what is live is counted again from the regions, and what a snapshot
//! needs is replayed from the beginning of the log (`chronicle`), not concluded from numbers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lsvd_format::checkpoint::{PartId, RunContent, decode_region, decode_root};
use lsvd_format::superblock::{CheckpointRef, Line, Superblock};
use lsvd_format::{SequenceNumber, names};

use crate::chronicle::Chronicle;

/// What must stay.
#[derive(Debug)]
pub(crate) struct Census {
    /// Log objects that a kept checkpoint or a snapshot needs.
    objects: BTreeSet<SequenceNumber>,
    /// Objects of the checkpoints' folder to which a kept root refers, and those of the roots.
    pub(crate) parts: BTreeSet<PartId>,
    /// The line that is written now.
    own: Line,
    /// Log objects of the own line above this number are all needed; all there are without it.
    oldest: Option<SequenceNumber>,
}

impl Census {
    /// Takes it from `superblock`; `get` reads an object by its name below the prefix.
    pub(crate) fn take(
        superblock: &Superblock,
        chronicle: &mut Chronicle,
        get: impl Fn(&str) -> Option<Bytes>,
    ) -> Result<Self, String> {
        let own = superblock.own_line();
        let mut census = Self { objects: BTreeSet::new(), parts: BTreeSet::new(), own, oldest: None };
        let rolled_back = !superblock.moments.rollbacks.is_empty();
        if superblock.checkpoints.len() >= 2 || rolled_back {
            census.oldest = superblock.checkpoints.first().map(|oldest| oldest.stamp.as_of);
        }
        // Where the own line was gone on with: what a checkpoint before has besides, may have been deleted by then.
        let last_jump = census.own.jumps().map(|(to, _)| to).last();
        for checkpoint in &superblock.checkpoints {
            let mut live = census.count(superblock, checkpoint, &get)?;
            if let Some(to) = last_jump.filter(|to| checkpoint.stamp.as_of < *to) {
                let owners = chronicle.state(superblock, to)?.owners();
                live.retain(|number| owners.contains(number));
            }
            census.objects.extend(live);
        }
        for snapshot in &superblock.moments.snapshots {
            if let Some(base) = &snapshot.base {
                census.count(superblock, base, &get)?;
            }
            let base = snapshot.base.map(|base| base.stamp.as_of);
            census.objects.extend(chronicle.state(superblock, snapshot.as_of)?.needs(base));
        }
        Ok(census)
    }

    /// Whether a log object must stay.
    pub(crate) fn needs(&self, number: SequenceNumber) -> bool {
        let replayed = self.own.contains(number) && self.oldest.is_none_or(|oldest| number > oldest);
        replayed || self.objects.contains(&number)
    }

    /// The parts of a checkpoint, and the log objects that are live in it.
    fn count(
        &mut self,
        superblock: &Superblock,
        checkpoint: &CheckpointRef,
        get: impl Fn(&str) -> Option<Bytes>,
    ) -> Result<BTreeSet<SequenceNumber>, String> {
        self.parts.insert(checkpoint.part);
        let slice = |part: PartId, offset: u64, length: u64| {
            let name = names::checkpoint_part(&part);
            let bytes = get(&name).ok_or_else(|| format!("'{name}' is needed and not there"))?;
            let range = usize::try_from(offset).ok().zip(usize::try_from(offset + length).ok());
            let range = range.filter(|(_, end)| *end <= bytes.len());
            let (start, end) = range.ok_or_else(|| format!("'{name}' is too short"))?;
            Ok::<Bytes, String>(bytes.slice(start..end))
        };
        let bytes = slice(checkpoint.part, checkpoint.root_offset_bytes, checkpoint.root_bytes)?;
        let volume = superblock.volume_id;
        let root = decode_root(volume, checkpoint.part, &bytes).map_err(|error| error.to_string())?;
        let by_slot: BTreeMap<u32, SequenceNumber> =
            root.objects.iter().map(|object| (object.slot.0, object.identity.number)).collect();
        let mut live: BTreeMap<u32, u64> = BTreeMap::new();
        for place in &root.regions {
            let part = root.parts[place.part as usize].part;
            self.parts.insert(part);
            let bytes = slice(part, place.offset_bytes, u64::from(place.length_bytes))?;
            let runs = decode_region(volume, part, place.region, &bytes);
            for run in runs.map_err(|error| error.to_string())? {
                if let RunContent::Stored { slot, .. } = run.content {
                    *live.entry(slot.0).or_default() += run.extent.count.0;
                }
            }
        }
        let numbers = live.keys().map(|slot| {
            let number = by_slot.get(slot).ok_or_else(|| format!("slot {slot} is no object's"))?;
            Ok::<SequenceNumber, String>(*number)
        });
        let numbers = numbers.collect::<Result<_, _>>()?;
        for object in &root.objects {
            let counted = live.get(&object.slot.0).copied().unwrap_or(0);
            if counted != object.live_blocks {
                let (number, said) = (object.identity.number, object.live_blocks);
                return Err(format!("object {number} has {counted} live blocks, and its root says {said}"));
            }
        }
        Ok(numbers)
    }
}

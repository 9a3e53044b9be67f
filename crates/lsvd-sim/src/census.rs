//! What the kept checkpoints of the stored superblock refer to, read from the store's bytes alone (rule 7).
//!
//! Shares with the product only the decoders of its format: what is live is counted again from the regions.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lsvd_format::checkpoint::{PartId, RunContent, decode_region, decode_root};
use lsvd_format::superblock::Superblock;
use lsvd_format::{SequenceNumber, names};

/// What must stay.
#[derive(Debug, Default)]
pub(crate) struct Census {
    /// Log objects that a kept checkpoint points at.
    pub(crate) objects: BTreeSet<SequenceNumber>,
    /// Objects of the checkpoints' folder to which a kept root refers, and those of the roots.
    pub(crate) parts: BTreeSet<PartId>,
    /// Log objects above this number are all needed.
    pub(crate) oldest: Option<SequenceNumber>,
}

impl Census {
    /// Takes it from the kept checkpoints of `superblock`; `get` reads an object by its name below the prefix.
    pub(crate) fn take(superblock: &Superblock, get: impl Fn(&str) -> Option<Bytes>) -> Result<Self, String> {
        let mut census = Self::default();
        if superblock.checkpoints.len() >= 2 {
            census.oldest = superblock.checkpoints.first().map(|oldest| oldest.stamp.as_of);
        }
        for checkpoint in &superblock.checkpoints {
            census.parts.insert(checkpoint.part);
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
                census.parts.insert(part);
                let bytes = slice(part, place.offset_bytes, u64::from(place.length_bytes))?;
                let runs = decode_region(volume, part, place.region, &bytes);
                for run in runs.map_err(|error| error.to_string())? {
                    if let RunContent::Stored { slot, .. } = run.content {
                        *live.entry(slot.0).or_default() += run.extent.count.0;
                    }
                }
            }
            for slot in live.keys() {
                let number = by_slot.get(slot).ok_or_else(|| format!("slot {slot} is no object's"))?;
                census.objects.insert(*number);
            }
            for object in &root.objects {
                let counted = live.get(&object.slot.0).copied().unwrap_or(0);
                if counted != object.live_blocks {
                    let (number, said) = (object.identity.number, object.live_blocks);
                    return Err(format!(
                        "object {number} has {counted} live blocks, and its root says {said}"
                    ));
                }
            }
        }
        Ok(census)
    }
}

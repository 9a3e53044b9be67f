//! How a log object changes the map: one function for replay and for life, so that the two can not differ (rule 6).
//!
//! Knows a header's entries and the map; not the overlay, not the log.

use lsvd_format::log_object::{Entry, Header, Source};
use lsvd_format::{BlockOrdinal, Extent, ObjectFormat, v1};

use crate::map::{ExtentMap, Location, Mapping, ObjectIndex, ObjectRecord, ObjectTable};

/// Applies the object's entries to the map, in order. An object of format 1 has such a header too, with data alone.
pub fn apply(map: &mut ExtentMap, objects: &mut ObjectTable, header: &Header, format: ObjectFormat) {
    let payload_blocks = header.payload_blocks();
    // An object without payload is never pointed at, and fences would fill the table for nothing.
    let object = (payload_blocks > 0).then(|| {
        objects.push(ObjectRecord {
            identity: header.identity,
            format,
            header_bytes: match format {
                ObjectFormat::V1 => v1::HEADER_BYTES,
                ObjectFormat::V2 => header.header_bytes(),
            },
            payload_blocks,
        })
    });
    let mut ordinal = 0u32;
    let mut stored = |extent: Extent| {
        let object = object.expect("data and relocations are payload");
        let location = Location { object, ordinal: BlockOrdinal(ordinal) };
        ordinal += u32::try_from(extent.count.0).expect("a payload has fewer than 2^32 blocks");
        location
    };
    for entry in &header.entries {
        match *entry {
            Entry::Data { extent } => map.insert(extent, Mapping::Stored(stored(extent))),
            Entry::Zero { extent } => map.insert(extent, Mapping::Zero),
            Entry::Trim { extent } => map.remove(extent),
            Entry::Relocation { extent, source } => {
                let location = stored(extent);
                if source.volume == header.identity.volume
                    && let Some(from) = objects.find(source.number)
                {
                    relocate(map, extent, from, source, location);
                }
            }
            Entry::Fence { .. } => {}
        }
    }
}

/// Moves those blocks of `extent` that the map still has at `source`.
fn relocate(map: &mut ExtentMap, extent: Extent, from: ObjectIndex, source: Source, to: Location) {
    for nth in 0..u32::try_from(extent.count.0).expect("a payload has fewer than 2^32 blocks") {
        let block = Extent::new(extent.start.0 + u64::from(nth), 1);
        let was = Location { object: from, ordinal: BlockOrdinal(source.ordinal.0.saturating_add(nth)) };
        if map.get(block.start) == Some(Mapping::Stored(was)) {
            let ordinal = BlockOrdinal(to.ordinal.0 + nth);
            map.insert(block, Mapping::Stored(Location { object: to.object, ordinal }));
        }
    }
}

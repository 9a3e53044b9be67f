//! Rule 8: a checkpoint holds the map as of its beginning, whatever is applied while it is captured.

use lsvd_engine::{Mapping, Place, StoredRegions};
use lsvd_format::checkpoint::{PartId, REGION_BLOCKS, RegionIndex};
use lsvd_format::{Epoch, SequenceNumber};

use crate::rig::{FIRST, Rig};

/// Blocks of a region that was captured.
fn blocks(runs: &[(lsvd_format::Extent, Mapping)]) -> u64 {
    runs.iter().map(|(extent, _)| extent.count.0).sum()
}

#[test]
fn a_region_is_captured_as_it_was_at_the_beginning() {
    let mut rig = Rig::new(|_| {});
    rig.write(0, 4);
    rig.write(REGION_BLOCKS, 4);
    rig.uploaded(FIRST);
    rig.uploaded(FIRST + 1);
    let start = rig.engine.begin_checkpoint().unwrap();
    assert_eq!((start.regions, start.log.next), (2, SequenceNumber(FIRST + 2)));
    let first = rig.engine.capture(1);
    assert_eq!(first[0].0, RegionIndex(0));
    // One that is captured and one that is not change both.
    rig.write(4, 4);
    rig.write(REGION_BLOCKS + 4, 4);
    rig.uploaded(FIRST + 2);
    rig.uploaded(FIRST + 3);
    let second = rig.engine.capture(8);
    assert_eq!((second.len(), second[0].0), (1, RegionIndex(1)));
    assert_eq!((blocks(&first[0].1), blocks(&second[0].1)), (4, 4), "what came later is not in it");
    assert!(rig.engine.capture(8).is_empty());
    let part = PartId { as_of: SequenceNumber(FIRST + 1), epoch: Epoch(3), serial: 0 };
    let place = Place { part, offset_bytes: 64, length_bytes: 100 };
    let places = vec![(RegionIndex(0), Some(place)), (RegionIndex(1), Some(place))];
    rig.engine.end_checkpoint(Some(StoredRegions { places, parts: Vec::new() }));
    // Both have changed since: the next one stores them again.
    let next = rig.engine.begin_checkpoint().unwrap();
    assert_eq!((next.regions, next.stored.len()), (2, 0));
    let both = rig.engine.capture(8);
    assert_eq!((blocks(&both[0].1), blocks(&both[1].1)), (8, 8));
    assert_eq!(rig.engine.audit(), Ok(0));
}

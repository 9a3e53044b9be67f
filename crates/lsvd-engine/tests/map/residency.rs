//! Which regions leave memory, and in what order.

use lsvd_engine::{ExtentMap, Location, Mapping, ObjectIndex};
use lsvd_format::checkpoint::{REGION_BLOCKS, RegionIndex};
use lsvd_format::{BlockIndex, BlockOrdinal, Extent};

fn first_block(region: u32) -> Extent {
    Extent::new(u64::from(region) * REGION_BLOCKS, 1)
}

fn stored(object: u32) -> Mapping {
    Mapping::Stored(Location { object: ObjectIndex(object), ordinal: BlockOrdinal(0) })
}

/// Regions of one block each, stored.
fn map(regions: u32) -> ExtentMap {
    let mut map = ExtentMap::default();
    for region in 0..regions {
        map.insert(first_block(region), stored(region), |_, _| {});
        map.mark_clean(RegionIndex(region));
    }
    map
}

fn absent(map: &ExtentMap, regions: u32) -> Vec<u32> {
    (0..regions).filter(|region| map.first_absent(first_block(*region)).is_some()).collect()
}

/// Lets one region go.
fn evict_one(map: &mut ExtentMap) {
    let bytes = map.resident_bytes();
    assert_eq!(map.evict(bytes - 1, |_| true), 1);
}

#[test]
fn what_was_used_since_the_last_search_stays_longer() {
    let mut map = map(6);
    evict_one(&mut map);
    assert_eq!(absent(&map, 6), [0], "all were used alike");
    map.touch(RegionIndex(1));
    map.touch(RegionIndex(3));
    evict_one(&mut map);
    evict_one(&mut map);
    assert_eq!(absent(&map, 6), [0, 2, 4]);
    map.load(RegionIndex(0), [(first_block(0), stored(0))]);
    evict_one(&mut map);
    evict_one(&mut map);
    assert_eq!(absent(&map, 6), [1, 2, 4, 5], "loading is using");
}

/// One call goes on until the bound is met, however much is in use and wherever the last search ended.
#[test]
fn all_that_may_leave_leaves_at_once() {
    let mut map = map(6);
    evict_one(&mut map);
    evict_one(&mut map);
    for region in 0..2 {
        map.load(RegionIndex(region), [(first_block(region), stored(region))]);
    }
    for region in 0..6 {
        map.touch(RegionIndex(region));
    }
    map.remove(first_block(4), |_, _| {});
    map.insert(first_block(4), stored(7), |_, _| {});
    let mut asked = Vec::new();
    let gone = map.evict(0, |region| {
        asked.push(region.0);
        region.0 != 3
    });
    assert_eq!((gone, absent(&map, 6)), (4, vec![0, 1, 2, 5]), "4 is dirty, and 3 may not leave");
    assert!(!asked.contains(&4), "{asked:?}");
    assert_eq!(map.evict(0, |_| true), 1);
    assert_eq!(map.get(BlockIndex(4 * REGION_BLOCKS)), Some(stored(7)));
}

/// What a checkpoint says is taken as far as it belongs to the region.
#[test]
fn a_loaded_region_is_clean_and_keeps_to_itself() {
    let mut map = ExtentMap::default();
    map.set_absent(RegionIndex(1));
    let whole = Extent::new(REGION_BLOCKS, REGION_BLOCKS);
    assert_eq!(map.first_absent(Extent::new(0, REGION_BLOCKS)), None);
    assert_eq!(map.first_absent(Extent::new(0, REGION_BLOCKS + 1)), Some(RegionIndex(1)));
    let runs = [
        (Extent::new(0, 5), stored(1)),
        (Extent::new(2 * REGION_BLOCKS - 2, 5), stored(2)),
        (Extent::new(3 * REGION_BLOCKS, 5), stored(3)),
    ];
    map.load(RegionIndex(1), runs);
    assert_eq!(
        map.overlapping(Extent::new(0, 10 * REGION_BLOCKS)).collect::<Vec<_>>(),
        [(Extent::new(2 * REGION_BLOCKS - 2, 2), stored(2))]
    );
    assert!(!map.is_dirty(RegionIndex(1)) && map.dirty_regions().next().is_none());
    map.remove(whole, |_, _| {});
    assert!(map.is_dirty(RegionIndex(1)) && map.is_region_empty(RegionIndex(1)));
    assert_eq!(map.regions().count(), 0);
}

/// An absent region is not a hole: whoever asks for it without having it loaded learns so.
#[test]
fn an_absent_region_gives_no_answer() {
    let uses: [fn(&mut ExtentMap); 5] = [
        |map| map.insert(first_block(0), stored(1), |_, _| {}),
        |map| map.remove(first_block(0), |_, _| {}),
        |map| _ = map.get(BlockIndex(5)),
        |map| _ = map.overlapping(Extent::new(0, 2)).next(),
        |map| map.set_absent(RegionIndex(1)),
    ];
    for (nth, using) in uses.into_iter().enumerate() {
        let result = std::panic::catch_unwind(move || {
            let mut map = ExtentMap::default();
            map.insert(first_block(1), stored(1), |_, _| {});
            map.set_absent(RegionIndex(0));
            using(&mut map);
        });
        assert!(result.is_err(), "use {nth}");
    }
}

//! What the extent map takes, by its own account and by the allocator's, which have to agree to the byte.
//!
//! A program of its own, without the test harness: the allocator counts for all threads, the harness's among them.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // a small map, and shares

use std::alloc::System;

use cap::Cap;
use lsvd_engine::{ExtentMap, Location, Mapping, ObjectIndex};
use lsvd_format::checkpoint::RegionIndex;
use lsvd_format::{BLOCK_BYTES, BlockOrdinal, Extent, VOLUME_BYTES_MAX};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Blocks of a GiB, and of an object of the default size.
const GIB: u64 = (1 << 30) / BLOCK_BYTES;
const OBJECT: u64 = (8 << 20) / BLOCK_BYTES;

/// A map, and what the process had before it.
struct Measured {
    map: ExtentMap,
    before: usize,
}

impl Measured {
    fn new() -> Self {
        Self { before: ALLOCATOR.allocated(), map: ExtentMap::default() }
    }

    /// Bytes of the map.
    fn bytes(&self) -> u64 {
        let allocated = (ALLOCATOR.allocated() - self.before) as u64;
        assert_eq!(self.map.resident_bytes(), allocated, "the map's own account");
        allocated
    }

    fn mib(&self) -> f64 {
        self.bytes() as f64 / f64::from(1 << 20)
    }

    /// The `nth` block of the log: in objects of 8 MiB, in order.
    fn write(&mut self, block: u64, nth: u64) {
        let location = Location {
            object: ObjectIndex((nth / OBJECT) as u32),
            ordinal: BlockOrdinal((nth % OBJECT) as u32),
        };
        self.map.insert(Extent::new(block, 1), Mapping::Stored(location), |_, _| {});
    }

    /// Blocks of the first GiB in a random order.
    fn write_at_random(&mut self, blocks: u64, first: u64) {
        for nth in 0..blocks {
            // Odd factors make an order of all blocks; two with a shift between them make it look random.
            let mixed = (nth * 0x9_e375) % GIB;
            self.write((mixed ^ mixed >> 9).wrapping_mul(0x5_851f) % GIB, first + nth);
        }
    }

    fn write_in_sequence(&mut self, first: u64) {
        for block in 0..GIB {
            self.write(block, first + block);
        }
    }

    fn store(&mut self) {
        let dirty: Vec<RegionIndex> = self.map.dirty_regions().collect();
        for region in dirty {
            self.map.mark_clean(region);
        }
    }
}

/// A block costs at most 6.4 bytes, whatever was written in whatever order (1.6 MiB for a GiB); a GiB written in
/// sequence 0.02 MiB; a hole nothing.
fn main() {
    let [first, tenth, all, again, loaded] = at_random();
    assert!(first <= 0.04 && tenth <= 0.26, "random, 1 % and 10 %: {first} and {tenth} MiB");
    assert!(all <= 1.6, "random: {all} MiB");
    assert!(again <= 1.6, "written again at random: {again} MiB");
    assert!(loaded <= 1.6, "out of memory and back: {loaded} MiB");

    let mut sequential = Measured::new();
    sequential.write_in_sequence(700);
    assert!(sequential.mib() <= 0.02, "in sequence: {} MiB", sequential.mib());
    let sequential = sequential.mib();

    let wide = wide();
    assert!(wide <= 3.2, "wide: {wide} MiB");
    let [at_100_tib, at_64_pib] = far_apart();
    assert!(at_100_tib <= 16 << 10, "one block at 100 TiB: {at_100_tib} bytes");
    assert!(at_64_pib <= 1 << 20, "and one at 64 PiB: {at_64_pib} bytes");

    println!("random, 1 %, 10 %, all: {first:.4}, {tenth:.4}, {all:.4} MiB; loaded {loaded:.4}");
    println!("in sequence: {sequential:.4} MiB; wide: {wide:.4} MiB");
    println!("a block at 100 TiB: {at_100_tib} bytes, and one at 64 PiB: {at_64_pib} bytes");
    println!("test memory_follows_what_was_written ... ok");
}

/// MiB of a GiB of which one in a hundred blocks was written, one in ten, all, all again, and all that was loaded.
fn at_random() -> [f64; 5] {
    let mut random = Measured::new();
    let [first, tenth, all] = [1, 10, 100].map(|share| {
        random.write_at_random(GIB * share / 100, 0);
        random.mib()
    });
    let written = random.map.overlapping(Extent::new(0, GIB)).map(|(run, _)| run.count.0).sum::<u64>();
    assert_eq!(written, GIB, "every block");
    assert!(random.map.extents() as u64 > GIB * 99 / 100, "and nearly every one a run of its own");
    random.write_at_random(GIB, GIB);
    let again = random.mib();

    let stored: Vec<_> = random
        .map
        .regions()
        .map(|region| (region, random.map.region_runs(region).collect::<Vec<_>>()))
        .collect();
    random.before = ALLOCATOR.allocated() - random.map.resident_bytes() as usize;
    random.store();
    let full = random.bytes();
    let gone = random.map.evict(full / 2, |_| true);
    assert!((8..=9).contains(&gone) && random.bytes() <= full / 2, "half of 16 regions go: {gone}");
    assert_eq!(gone + random.map.evict(0, |_| true), 16);
    assert!(random.bytes() < 4 << 10, "the table is left: {} bytes", random.bytes());
    for (region, runs) in &stored {
        random.map.load(*region, runs.iter().copied());
    }
    let loaded = random.mib();
    drop(stored);
    random.before = ALLOCATOR.allocated() - random.map.resident_bytes() as usize;

    random.write_in_sequence(2 * GIB);
    assert!(random.mib() <= 0.02, "in sequence, over what was random: {} MiB", random.mib());
    random.map.remove(Extent::new(0, GIB), |_, _| {});
    random.store();
    assert!(random.bytes() < 256, "all trimmed: {} bytes", random.bytes());
    [first, tenth, all, again, loaded]
}

/// MiB of a GiB at random in an object that is larger than the narrow form can say.
fn wide() -> f64 {
    let mut wide = Measured::new();
    for nth in 0..GIB {
        let location = Location { object: ObjectIndex(0), ordinal: BlockOrdinal(u32::MAX - nth as u32) };
        wide.map.insert(Extent::new(nth, 1), Mapping::Stored(location), |_, _| {});
    }
    wide.mib()
}

/// Bytes of a map with one block, and with two, behind holes that were trimmed.
fn far_apart() -> [u64; 2] {
    let blocks = VOLUME_BYTES_MAX / BLOCK_BYTES;
    let mut holes = Measured::new();
    holes.map.remove(Extent::new(0, blocks), |_, _| {});
    assert_eq!(holes.bytes(), 0, "holes cost nothing");
    holes.write(100 * 1024 * GIB - 1, 0);
    let at_100_tib = holes.bytes();
    holes.write(blocks - 1, 1);
    let at_64_pib = holes.bytes();
    holes.map.remove(Extent::new(0, blocks), |_, _| {});
    assert_eq!(holes.map.extents(), 0);
    [at_100_tib, at_64_pib]
}

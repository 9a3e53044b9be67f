//! Any operations in any order.

use std::collections::{BTreeMap, BTreeSet};

use lsvd_engine::{ExtentMap, Location, Mapping, ObjectIndex};
use lsvd_format::checkpoint::{REGION_BLOCKS, RegionIndex};
use lsvd_format::{BlockIndex, BlockOrdinal, Extent};
use proptest::prelude::*;

/// The volume of the model: its regions are neighbours, in another span of the table than the first.
const REGIONS: u32 = 3;
const FIRST: u32 = (1 << 16) - 1;
const BLOCKS: u64 = REGIONS as u64 * REGION_BLOCKS;
const BASE: u64 = FIRST as u64 * REGION_BLOCKS;

#[derive(Clone, Debug)]
enum Step {
    Insert {
        extent: Extent,
        mapping: Mapping,
    },
    Remove {
        extent: Extent,
    },
    /// Single blocks, here and there.
    Scatter {
        extent: Extent,
        stride: u64,
        object: u32,
        ordinal: u32,
        removes: bool,
    },
    /// Runs of a few blocks, of two objects in turns.
    Pieces {
        extent: Extent,
        blocks: u64,
        object: u32,
        ordinal: u32,
    },
    /// Something else is written over what is there, which is then written again, with some blocks around it.
    Again {
        extent: Extent,
        over: Option<Mapping>,
        around: u64,
    },
    Overlapping {
        extent: Extent,
    },
    Store {
        region: u32,
    },
    Touch {
        region: u32,
    },
    /// If it is absent.
    Discard {
        region: u32,
    },
    Evict {
        share: u64,
        stays: u32,
    },
}

fn extent() -> impl Strategy<Value = Extent> {
    let edges = prop_oneof![
        (0..BLOCKS),
        // Near the borders of regions and leaves, where pieces are cut and joined.
        (0..BLOCKS / 512, 0u64..8).prop_map(|(leaf, by)| (leaf * 512 + by).saturating_sub(4)),
        (0..u64::from(REGIONS), 0u64..8)
            .prop_map(|(region, by)| (region * REGION_BLOCKS + by).saturating_sub(4)),
    ];
    let count = prop_oneof![0u64..3, 1u64..20, 1u64..1500, Just(512), Just(REGION_BLOCKS), Just(BLOCKS)];
    (edges, count).prop_map(|(start, count)| Extent::new(BASE + start, count.min(BLOCKS - start)))
}

/// Objects and ordinals of few values, so that runs often continue, some of which are too large for the narrow form.
fn location() -> impl Strategy<Value = (u32, u32)> {
    let ordinal = prop_oneof![
        4 => 0u32..40,
        2 => 0u32..4000,
        1 => 65_500u32..65_600,
        1 => Just(0xf000_0000),
    ];
    (prop_oneof![8 => 0u32..4, 1 => Just(u32::MAX)], ordinal)
}

fn mapping() -> impl Strategy<Value = Mapping> {
    prop_oneof![
        4 => location().prop_map(|(object, ordinal)| stored(object, ordinal)),
        1 => Just(Mapping::Zero),
        1 => Just(Mapping::Lost),
    ]
}

fn stored(object: u32, ordinal: u32) -> Mapping {
    Mapping::Stored(Location { object: ObjectIndex(object), ordinal: BlockOrdinal(ordinal) })
}

fn step() -> impl Strategy<Value = Step> {
    let region = || FIRST..FIRST + REGIONS;
    prop_oneof![
        6 => (extent(), mapping()).prop_map(|(extent, mapping)| Step::Insert { extent, mapping }),
        3 => extent().prop_map(|extent| Step::Remove { extent }),
        5 => (extent(), 1u64..40, location(), prop::bool::weighted(0.2)).prop_map(
            |(extent, stride, (object, ordinal), removes)| Step::Scatter { extent, stride, object, ordinal, removes }
        ),
        2 => (extent(), 1u64..60, location())
            .prop_map(|(extent, blocks, (object, ordinal))| Step::Pieces { extent, blocks, object, ordinal }),
        4 => (extent(), prop::option::of(mapping()), 0u64..3)
            .prop_map(|(extent, over, around)| Step::Again { extent, over, around }),
        3 => extent().prop_map(|extent| Step::Overlapping { extent }),
        2 => region().prop_map(|region| Step::Store { region }),
        1 => region().prop_map(|region| Step::Touch { region }),
        1 => region().prop_map(|region| Step::Discard { region }),
        2 => (0u64..5, region()).prop_map(|(share, stays)| Step::Evict { share, stays }),
    ]
}

/// What the map has to say.
struct Model {
    map: ExtentMap,
    blocks: Vec<Option<Mapping>>,
    dirty: BTreeSet<u32>,
    absent: BTreeSet<u32>,
    stored: BTreeMap<u32, Vec<(Extent, Mapping)>>,
    /// Blocks inserted and displaced of each object.
    live: BTreeMap<u32, i64>,
}

fn regions_of(extent: Extent) -> impl Iterator<Item = u32> {
    let last = extent.end().0.saturating_sub(1).max(extent.start.0);
    let none = u64::from(extent.is_empty());
    let regions = extent.start.0 / REGION_BLOCKS + none..last / REGION_BLOCKS + 1;
    regions.map(|region| region as u32)
}

fn after(mapping: Mapping, blocks: u64) -> Mapping {
    match mapping {
        Mapping::Stored(Location { object, ordinal }) => stored(object.0, ordinal.0 + blocks as u32),
        Mapping::Zero | Mapping::Lost => mapping,
    }
}

impl Model {
    fn new() -> Self {
        Self {
            map: ExtentMap::default(),
            blocks: vec![None; BLOCKS as usize],
            dirty: BTreeSet::new(),
            absent: BTreeSet::new(),
            stored: BTreeMap::new(),
            live: BTreeMap::new(),
        }
    }

    fn slice(&mut self, extent: Extent) -> &mut [Option<Mapping>] {
        &mut self.blocks[(extent.start.0 - BASE) as usize..(extent.end().0 - BASE) as usize]
    }

    /// Whoever uses a range loads what is absent of it first.
    fn load(&mut self, extent: Extent) {
        loop {
            let expected = regions_of(extent).find(|region| self.absent.contains(region));
            assert_eq!(self.map.first_absent(extent), expected.map(RegionIndex), "{extent:?}");
            let Some(region) = expected else { return };
            let before = self.map.resident_bytes();
            self.map.load(RegionIndex(region), self.stored[&region].iter().copied());
            assert!(self.map.resident_bytes() > before);
            self.absent.remove(&region);
        }
    }

    fn insert(&mut self, extent: Extent, mapping: Mapping) {
        self.load(extent);
        let live = &mut self.live;
        self.map
            .insert(extent, mapping, |object, blocks| *live.entry(object.0).or_default() -= blocks as i64);
        if let Mapping::Stored(location) = mapping {
            *live.entry(location.object.0).or_default() += extent.count.0 as i64;
        }
        for (nth, block) in self.slice(extent).iter_mut().enumerate() {
            *block = Some(after(mapping, nth as u64));
        }
        self.dirty.extend(regions_of(extent));
    }

    fn remove(&mut self, extent: Extent) {
        self.load(extent);
        let live = &mut self.live;
        self.map.remove(extent, |object, blocks| *live.entry(object.0).or_default() -= blocks as i64);
        for block in extent.start.0..extent.end().0 {
            if self.blocks[(block - BASE) as usize].take().is_some() {
                self.dirty.insert((block / REGION_BLOCKS) as u32);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Insert { extent, mapping } => self.insert(extent, mapping),
            Step::Remove { extent } => self.remove(extent),
            Step::Scatter { extent, stride, object, ordinal, removes } => {
                for (nth, block) in (extent.start.0..extent.end().0).step_by(stride as usize).enumerate() {
                    let block = Extent::new(block, 1);
                    if removes {
                        self.remove(block);
                    } else {
                        // Downwards, so that no block continues the one before it.
                        self.insert(block, stored(object, ordinal + (BLOCKS as u32 - nth as u32)));
                    }
                }
            }
            Step::Pieces { extent, blocks, object, ordinal } => {
                let mut at = extent.start.0;
                while at < extent.end().0 {
                    let count = blocks.min(extent.end().0 - at);
                    self.insert(
                        Extent::new(at, count),
                        stored(object, ordinal + (at - extent.start.0) as u32),
                    );
                    at += count;
                }
            }
            Step::Again { extent, over, around } => {
                let start = extent.start.0.saturating_sub(around).max(BASE);
                let end = (extent.end().0 + around).min(BASE + BLOCKS);
                let before = self.runs(Extent::new(start, end - start));
                match over {
                    Some(mapping) => self.insert(extent, mapping),
                    None => self.remove(extent),
                }
                for (run, mapping) in before {
                    self.insert(run, mapping);
                }
            }
            Step::Overlapping { extent } => {
                self.load(extent);
                self.check_runs(extent);
            }
            Step::Store { region } => self.store(region),
            Step::Touch { region } => self.map.touch(RegionIndex(region)),
            Step::Discard { region } => self.discard(region),
            Step::Evict { share, stays } => self.evict(share, stays),
        }
    }

    fn store(&mut self, region: u32) {
        let index = RegionIndex(region);
        if !self.absent.contains(&region) {
            assert_eq!(
                self.map.is_region_empty(index),
                self.slice(index.extent()).iter().all(Option::is_none)
            );
            self.stored.insert(region, self.map.region_runs(index).collect());
        }
        self.map.mark_clean(index);
        self.dirty.remove(&region);
    }

    fn discard(&mut self, region: u32) {
        if !self.absent.remove(&region) {
            return;
        }
        self.map.discard_absent(RegionIndex(region));
        let extent = RegionIndex(region).extent();
        for block in extent.start.0.max(BASE)..extent.end().0.min(BASE + BLOCKS) {
            if let Some(Mapping::Stored(at)) = self.blocks[(block - BASE) as usize].take() {
                *self.live.entry(at.object.0).or_default() -= 1;
            }
        }
        self.dirty.insert(region);
    }

    fn evict(&mut self, share: u64, stays: u32) {
        let before: BTreeSet<u32> = self.resident().collect();
        let bytes_max = self.map.resident_bytes() * share / 4;
        let gone = self.map.evict(bytes_max, |region| region.0 != stays);
        let may: Vec<u32> = before
            .iter()
            .copied()
            .filter(|region| *region != stays && !self.dirty.contains(region))
            .collect();
        let mut went = 0;
        for region in before {
            if self.map.first_absent(RegionIndex(region).extent()).is_some() {
                assert!(may.contains(&region), "{region} had to stay");
                self.absent.insert(region);
                went += 1;
            }
        }
        assert_eq!(gone, went);
        assert!(self.map.resident_bytes() <= bytes_max || went as usize == may.len(), "too few went");
    }

    /// Regions with content in memory.
    fn resident(&self) -> impl Iterator<Item = u32> {
        (FIRST..FIRST + REGIONS)
            .filter(|region| !self.absent.contains(region) && !self.map.is_region_empty(RegionIndex(*region)))
    }

    /// The runs of a range: what the array says, nothing empty, in order, and what continues is one run.
    fn check_runs(&self, extent: Extent) {
        let expected = self.runs(extent);
        let got: Vec<_> = self.map.overlapping(extent).collect();
        assert!(got == expected, "{extent:?}: {:?}", got.iter().zip(&expected).find(|(got, is)| got != is));
    }

    fn runs(&self, extent: Extent) -> Vec<(Extent, Mapping)> {
        let mut runs: Vec<(Extent, Mapping)> = Vec::new();
        for block in extent.start.0..extent.end().0 {
            let Some(mapping) = self.blocks[(block - BASE) as usize] else { continue };
            match runs.last_mut() {
                Some((run, first)) if run.end().0 == block && after(*first, run.count.0) == mapping => {
                    run.count.0 += 1;
                }
                _ => runs.push((Extent::new(block, 1), mapping)),
            }
        }
        runs
    }

    fn check(&mut self) {
        let dirty: Vec<u32> = self.map.dirty_regions().map(|region| region.0).collect();
        assert_eq!(dirty, self.dirty.iter().copied().collect::<Vec<_>>());
        let with_content: Vec<u32> = (FIRST..FIRST + REGIONS)
            .filter(|region| self.slice(RegionIndex(*region).extent()).iter().any(Option::is_some))
            .collect();
        assert_eq!(self.map.regions().map(|region| region.0).collect::<Vec<_>>(), with_content);
        for region in 0..REGIONS + 2 {
            assert_eq!(
                self.map.is_dirty(RegionIndex(FIRST + region)),
                self.dirty.contains(&(FIRST + region))
            );
        }
    }

    fn finish(mut self) {
        let all = Extent::new(BASE, BLOCKS);
        self.load(all);
        self.check_runs(all);
        for (block, mapping) in (BASE..).zip(&self.blocks) {
            assert_eq!(self.map.get(BlockIndex(block)), *mapping, "block {block}");
        }
        let mut mapped: BTreeMap<u32, i64> = self.live.keys().map(|object| (*object, 0)).collect();
        for mapping in self.blocks.iter().flatten() {
            if let Mapping::Stored(location) = mapping {
                *mapped.get_mut(&location.object.0).expect("it was inserted") += 1;
            }
        }
        assert_eq!(self.live, mapped, "blocks inserted less those displaced are those mapped");
        let runs = self.map.overlapping(all).count();
        let cuts = (BLOCKS / 512) as usize;
        assert!((runs..=runs + cuts).contains(&self.map.extents()), "{runs} runs: {}", self.map.extents());
        // Of what is removed nothing is left, once that is stored, but two short arrays of the table.
        self.map.remove(Extent::new(0, 1 << 44), |object, blocks| {
            *self.live.entry(object.0).or_default() -= blocks as i64;
        });
        assert!(self.live.values().all(|blocks| *blocks == 0), "{:?}", self.live);
        assert_eq!((self.map.extents(), self.map.regions().count()), (0, 0));
        let dirty: Vec<RegionIndex> = self.map.dirty_regions().collect();
        for region in dirty {
            self.map.mark_clean(region);
        }
        assert!(self.map.resident_bytes() < 16 << 10, "{}", self.map.resident_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// What the map says is what was said to it last, whatever form that took and wherever it was meanwhile.
    #[test]
    fn equals_an_array(steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
            model.check();
        }
        model.finish();
    }
}

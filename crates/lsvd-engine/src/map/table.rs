//! Which regions there are: a table of groups of 64 regions, of which only those with content exist.
//!
//! Knows regions as wholes: their content, whether it is in memory, changed, used. Its three levels are arrays, so a
//! region is found without a search; the upper two are as long as the highest region that was ever there asks for. For
//! a group (4 GiB) that is all holes a pointer is held, and for 4 TiB of holes an empty array. Invariants:
//! 1. a region's bit in `held` is set exactly when it has content in memory, in `absent` when it is absent;
//! 2. an absent region is not dirty.

use super::region::Region;
use super::{RegionIndex, Regions, sized};

const GROUP_REGIONS: u32 = 64;
const SPAN_GROUPS: u32 = 1024;

/// 64 regions, and a bit of each for what is asked of many at once.
#[derive(Debug)]
pub(super) struct Group {
    pub held: u64,
    pub absent: u64,
    pub dirty: u64,
    /// Used since the hand of the clock came by.
    pub used: u64,
    regions: [Region; GROUP_REGIONS as usize],
}

impl Group {
    pub fn region(&self, index: RegionIndex) -> &Region {
        &self.regions[(index.0 % GROUP_REGIONS) as usize]
    }

    pub fn region_mut(&mut self, index: RegionIndex) -> &mut Region {
        &mut self.regions[(index.0 % GROUP_REGIONS) as usize]
    }

    pub fn with_content(&self) -> u64 {
        self.held | self.absent
    }

    fn is_idle(&self) -> bool {
        self.held | self.absent | self.dirty == 0
    }
}

/// The region's bit in the sets of its group.
pub(super) fn bit(index: RegionIndex) -> u64 {
    1 << (index.0 % GROUP_REGIONS)
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Table {
    spans: Vec<Vec<Option<Box<Group>>>>,
    bytes: u64,
}

impl Table {
    /// What the table takes, its groups with their slots for regions included, and not what these hold.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    #[inline]
    pub fn group(&self, index: RegionIndex) -> Option<&Group> {
        self.slot(index.0 / GROUP_REGIONS)
    }

    #[inline]
    fn slot(&self, group: u32) -> Option<&Group> {
        let span = self.spans.get((group / SPAN_GROUPS) as usize)?;
        span.get((group % SPAN_GROUPS) as usize)?.as_deref()
    }

    #[inline]
    pub fn region(&self, index: RegionIndex) -> Option<&Region> {
        Some(self.group(index)?.region(index))
    }

    #[inline]
    pub fn group_mut(&mut self, index: RegionIndex) -> Option<&mut Group> {
        let group = index.0 / GROUP_REGIONS;
        let span = self.spans.get_mut((group / SPAN_GROUPS) as usize)?;
        span.get_mut((group % SPAN_GROUPS) as usize)?.as_deref_mut()
    }

    /// The group of a region, made if there is none.
    #[inline]
    pub fn group_or_new(&mut self, index: RegionIndex) -> &mut Group {
        let group = index.0 / GROUP_REGIONS;
        let (span, nth) = ((group / SPAN_GROUPS) as usize, (group % SPAN_GROUPS) as usize);
        let bytes = &mut self.bytes;
        extend(&mut self.spans, span, bytes);
        extend(&mut self.spans[span], nth, bytes);
        self.spans[span][nth].get_or_insert_with(|| {
            *bytes += size_of::<Group>() as u64;
            Box::new(Group {
                held: 0,
                absent: 0,
                dirty: 0,
                used: 0,
                regions: std::array::from_fn(|_| Region::default()),
            })
        })
    }

    /// Lets the group of a region go if nothing is to be said of it.
    pub fn forget_idle(&mut self, index: RegionIndex) {
        if self.group(index).is_some_and(Group::is_idle) {
            let group = index.0 / GROUP_REGIONS;
            self.spans[(group / SPAN_GROUPS) as usize][(group % SPAN_GROUPS) as usize] = None;
            self.bytes -= size_of::<Group>() as u64;
        }
    }

    /// The first region of `first..=last` that is in the set that `of` says.
    #[inline]
    pub fn next(
        &self,
        first: RegionIndex,
        last: RegionIndex,
        of: impl Fn(&Group) -> u64,
    ) -> Option<RegionIndex> {
        let mut mask = u64::MAX << (first.0 % GROUP_REGIONS);
        let mut group = first.0 / GROUP_REGIONS;
        while group <= last.0 / GROUP_REGIONS {
            let span = self.spans.get((group / SPAN_GROUPS) as usize)?;
            match span.get((group % SPAN_GROUPS) as usize) {
                Some(slot) => {
                    let found = slot.as_deref().map_or(0, &of) & mask;
                    if found != 0 {
                        let found = RegionIndex(group * GROUP_REGIONS + found.trailing_zeros());
                        return Some(found).filter(|found| *found <= last);
                    }
                    group += 1;
                }
                None => group = (group / SPAN_GROUPS + 1) * SPAN_GROUPS,
            }
            mask = u64::MAX;
        }
        None
    }

    /// All regions of the set that `of` says, in order.
    pub fn iter(&self, of: impl Fn(&Group) -> u64) -> impl Iterator<Item = RegionIndex> {
        let mut from = Some(RegionIndex(0));
        std::iter::from_fn(move || {
            let found = self.next(from?, RegionIndex::LAST, &of)?;
            from = found.next();
            Some(found)
        })
    }
}

/// Makes `vec` so long that it has an element `nth`.
fn extend<T: Default>(vec: &mut Vec<T>, nth: usize, bytes: &mut u64) {
    if nth >= vec.len() {
        *bytes -= sized::bytes(vec);
        sized::reserve(vec, nth + 1 - vec.len(), usize::MAX);
        vec.resize_with(nth + 1, T::default);
        *bytes += sized::bytes(vec);
    }
}

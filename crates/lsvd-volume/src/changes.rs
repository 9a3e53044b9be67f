//! What changed between two moments of a volume, asked for by ranges: for who copies by it. Writes nothing, reads no data.
//!
//! The same answers as [`crate::diff()`], region by region as they are asked for, and kept for a while: who asks extent by extent
//! causes no more reads than who asks at once. In memory are the two moments, as two open volumes would be, and the changes
//! of a few regions. Knows no protocol.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};
use lsvd_backend::Bucket;
use lsvd_format::checkpoint::RegionIndex;
use lsvd_format::{BLOCK_BYTES, BlockIndex, SequenceNumber};
use tokio::sync::RwLock;

use crate::Error;
use crate::diff::{ChangedExtent, Moves, Side, TRIES, compare, continues, next_region, shared_by};
use crate::moments::Moment;
use crate::store::VolumeStore;

/// Regions whose changes are remembered.
const REGIONS_MAX: usize = 16;
/// Regions that are compared for one answer, all at once: it stops behind them.
const REGIONS_AT_ONCE: usize = 8;

/// A run of bytes, and whether it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeStatus {
    /// Length in bytes.
    pub length_bytes: u64,
    /// It may read otherwise than at the earlier moment; if not, it reads the same for sure.
    pub changed: bool,
    /// It changed, and reads as zeroes now.
    pub zero: bool,
}

/// Two moments of a volume, to be compared where somebody asks.
pub struct Changes {
    store: VolumeStore,
    from: SequenceNumber,
    to: SequenceNumber,
    size_bytes: u64,
    sides: RwLock<Arc<Sides>>,
    known: Mutex<VecDeque<(RegionIndex, Known)>>,
}

/// The changes of a region, in order.
type Known = Arc<[ChangedExtent]>;

/// Both moments as they were recovered.
struct Sides {
    a: Side,
    b: Side,
    moves: Moves,
}

impl Sides {
    async fn find(
        store: &VolumeStore,
        from: &Moment,
        to: SequenceNumber,
        size_bytes: u64,
    ) -> Result<Self, Error> {
        let to = Moment::Number(to);
        let (a, mut b) = futures::try_join!(Side::find(store, Some(from)), Side::find(store, Some(&to)))?;
        // Two of one number may differ in their sizes: the asker's counts.
        b.size_bytes = size_bytes;
        let moves = Moves::new(store.clone(), shared_by(&a, &b));
        Ok(Self { a, b, moves })
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

impl Changes {
    /// Two moments of the volume on `bucket`, of which the later one has this size.
    ///
    /// # Errors
    /// [`Error::NoMoment`] if one of them can not be reached; [`Error::NotFound`], or the store's.
    pub async fn between(
        bucket: &Bucket,
        from: &Moment,
        to: SequenceNumber,
        size_bytes: u64,
    ) -> Result<Self, Error> {
        let store = VolumeStore::new(bucket.clone());
        let sides = Sides::find(&store, from, to, size_bytes).await?;
        Ok(Self {
            store,
            from: sides.a.as_of,
            to,
            size_bytes,
            sides: RwLock::new(Arc::new(sides)),
            known: Mutex::default(),
        })
    }

    /// The moment that is compared with.
    pub fn from(&self) -> SequenceNumber {
        self.from
    }

    /// The moment that is compared.
    pub fn to(&self) -> SequenceNumber {
        self.to
    }

    /// What of a range changed: its extents from `offset_bytes` on, equal neighbours joined. Tells something, but may stop before
    /// `length_bytes` are covered: ask again from there.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the range is empty or ends beyond the later moment. [`Error::NoMoment`] if nothing holds one of the
    /// two any more: compare others, or copy all. The store's: ask again.
    pub async fn status(&self, offset_bytes: u64, length_bytes: u64) -> Result<Vec<ChangeStatus>, Error> {
        let end = offset_bytes.checked_add(length_bytes).filter(|end| *end <= self.size_bytes);
        let Some(end) = end.filter(|end| *end > offset_bytes) else {
            return Err(Error::Invalid(format!(
                "no range of a volume of {} bytes: {length_bytes} from {offset_bytes}",
                self.size_bytes
            )));
        };
        let mut tries = 0;
        loop {
            let sides = self.sides.read().await.clone();
            match self.try_status(&sides, offset_bytes, end).await {
                // What one of them was read from was deleted: another checkpoint leads to it, or nothing any more.
                Err(Error::Missing { .. }) if tries < TRIES => {
                    tries += 1;
                    let from = Moment::Number(self.from);
                    let found = Sides::find(&self.store, &from, self.to, self.size_bytes).await?;
                    *self.sides.write().await = Arc::new(found);
                }
                told => return told,
            }
        }
    }

    async fn try_status(
        &self,
        sides: &Sides,
        offset_bytes: u64,
        end: u64,
    ) -> Result<Vec<ChangeStatus>, Error> {
        let first = region_at(offset_bytes);
        let mut regions = Vec::new();
        let mut until = end;
        let mut next = next_region(&sides.a, &sides.b, first);
        while let Some(region) = next.filter(|region| starts_at(*region) < end) {
            if regions.len() == REGIONS_AT_ONCE {
                until = starts_at(region).max(offset_bytes);
                break;
            }
            regions.push(region);
            next = next_region(&sides.a, &sides.b, RegionIndex(region.0 + 1));
        }
        let compared = futures::stream::iter(regions).map(|region| self.changes_of(sides, region));
        let changes: Vec<Known> = compared.buffered(REGIONS_AT_ONCE).try_collect().await?;
        let mut told: Vec<ChangeStatus> = Vec::new();
        let mut at = offset_bytes;
        for extent in changes.iter().flat_map(|changes| changes.iter()) {
            let (start, stop) =
                (extent.offset_bytes.max(at), (extent.offset_bytes + extent.length_bytes).min(until));
            if start < stop {
                push(&mut told, start - at, None);
                push(&mut told, stop - start, Some(extent.zero));
                at = stop;
            }
        }
        push(&mut told, until - at, None);
        Ok(told)
    }

    async fn changes_of(&self, sides: &Sides, region: RegionIndex) -> Result<Known, Error> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, changes)) = known().iter().find(|(of, _)| *of == region) {
            return Ok(changes.clone());
        }
        let compared = compare(&self.store, region, (&sides.a, &sides.b), &sides.moves).await?;
        let mut changes: Vec<ChangedExtent> = Vec::new();
        for extent in compared.into_iter().flatten() {
            match changes.last_mut() {
                Some(last) if continues(last, &extent) => last.length_bytes += extent.length_bytes,
                _ => changes.push(extent),
            }
        }
        let changes: Known = changes.into();
        let mut known = known();
        if known.iter().all(|(of, _)| *of != region) {
            known.push_back((region, changes.clone()));
            if known.len() > REGIONS_MAX {
                known.pop_front();
            }
        }
        Ok(changes)
    }
}

fn region_at(offset_bytes: u64) -> RegionIndex {
    RegionIndex::of(BlockIndex(offset_bytes / BLOCK_BYTES))
}

fn starts_at(region: RegionIndex) -> u64 {
    region.extent().start.0 * BLOCK_BYTES
}

/// Adds a run: `None` if it did not change, otherwise whether it reads as zeroes.
fn push(told: &mut Vec<ChangeStatus>, length_bytes: u64, changed: Option<bool>) {
    let status = ChangeStatus { length_bytes, changed: changed.is_some(), zero: changed.unwrap_or(false) };
    match told.last_mut() {
        _ if length_bytes == 0 => {}
        Some(last) if (last.changed, last.zero) == (status.changed, status.zero) => {
            last.length_bytes += length_bytes;
        }
        _ => told.push(status),
    }
}

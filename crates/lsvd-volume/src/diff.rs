//! What changed between two moments of a volume, region by region of the extent map. Writes nothing, reads no data.
//!
//! A region that both moments have at the same place in a checkpoint is equal without being read, so a difference costs what
//! changed. A block is changed if the map has it at another place and it is not zeroes in both; where collection moved it, the
//! headers of the objects of relocations say from where. If one of those is gone the block is reported all the same: a change
//! is never missed, what did not change may be reported, as what was written again with the same bytes is. In memory are two
//! regions, and those that the log behind the two checkpoints touches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use lsvd_backend::Bucket;
use lsvd_engine::{Mapping, Prefix, RegionContent};
use lsvd_format::checkpoint::RegionIndex;
use lsvd_format::log_object::{Entry, Source};
use lsvd_format::superblock::Superblock;
use lsvd_format::{AnyHeader, BLOCK_BYTES, SequenceNumber, names};

use crate::Error;
use crate::mend::lost;
use crate::moments::{At, Moment, recover_at};
use crate::recovery::recover_for_reading;
use crate::regions::read_regions;
use crate::store::VolumeStore;

/// Headers of relocations that are remembered.
const HEADERS_MAX: usize = 256;
/// How often both moments are found anew because what one is read from was deleted.
pub(crate) const TRIES: u32 = 3;

/// A run of bytes that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedExtent {
    /// Where it begins.
    pub offset_bytes: u64,
    /// Its length.
    pub length_bytes: u64,
    /// Nothing is stored for it as of the later one of the two arguments.
    pub hole: bool,
    /// It reads as zeroes as of that.
    pub zero: bool,
}

/// Two moments that were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The moment that was compared with.
    pub from: SequenceNumber,
    /// Size of the volume then, in bytes.
    pub from_size_bytes: u64,
    /// The moment that was compared.
    pub to: SequenceNumber,
    /// Size of the volume then, in bytes: no extent lies beyond it.
    pub to_size_bytes: u64,
    /// Bytes of all changed extents.
    pub changed_bytes: u64,
    /// Regions of the extent map, of 64 MiB each, that were looked at: the others are equal for sure.
    pub regions_compared: u64,
}

/// Tells `tell` what has changed from one moment of the volume on `bucket` to another, or to the present, in order.
///
/// # Errors
/// [`Error::NoMoment`] if one of them can not be reached; [`Error::NotFound`], or the store's. What was told before is so.
pub async fn diff(
    bucket: &Bucket,
    from: &Moment,
    to: Option<&Moment>,
    mut tell: impl FnMut(ChangedExtent),
) -> Result<Difference, Error> {
    let store = VolumeStore::new(bucket.clone());
    let (mut a, mut b) = (Side::find(&store, Some(from)).await?, Side::find(&store, to).await?);
    let moves = Moves::new(store.clone(), shared_by(&a, &b));
    let mut found = Difference {
        from: a.as_of,
        from_size_bytes: a.size_bytes,
        to: b.as_of,
        to_size_bytes: b.size_bytes,
        changed_bytes: 0,
        regions_compared: 0,
    };
    let mut run: Option<ChangedExtent> = None;
    let (mut next, mut tries) = (RegionIndex(0), 0);
    while let Some(region) = next_region(&a, &b, next) {
        match compare(&store, region, (&a, &b), &moves).await {
            Ok(None) => {}
            Ok(Some(changed)) => {
                found.regions_compared += 1;
                for extent in changed {
                    found.changed_bytes += extent.length_bytes;
                    match &mut run {
                        Some(run) if continues(run, &extent) => run.length_bytes += extent.length_bytes,
                        _ => run.replace(extent).into_iter().for_each(&mut tell),
                    }
                }
            }
            // What one of them was read from was deleted: another checkpoint leads to it, or nothing any more.
            Err(Error::Missing { .. }) if tries < TRIES => {
                tries += 1;
                a = Side::find(&store, Some(&Moment::Number(a.as_of))).await?;
                b = Side::find(&store, Some(&Moment::Number(b.as_of))).await?;
                continue;
            }
            Err(error) => return Err(error),
        }
        next = RegionIndex(region.0 + 1);
    }
    run.into_iter().for_each(&mut tell);
    Ok(found)
}

/// The last number that two moments of one volume both have.
pub(crate) fn shared_by(a: &Side, b: &Side) -> SequenceNumber {
    b.superblock.line(a.as_of).fork(&b.superblock.line(b.as_of)).unwrap_or_default()
}

/// Whether an extent goes on with what a run has.
pub(crate) fn continues(run: &ChangedExtent, extent: &ChangedExtent) -> bool {
    run.offset_bytes + run.length_bytes == extent.offset_bytes
        && (run.hole, run.zero) == (extent.hole, extent.zero)
}

/// One of the two moments.
pub(crate) struct Side {
    pub(crate) superblock: Superblock,
    prefix: Prefix,
    pub(crate) as_of: SequenceNumber,
    pub(crate) size_bytes: u64,
}

impl Side {
    pub(crate) async fn find(store: &VolumeStore, moment: Option<&Moment>) -> Result<Self, Error> {
        if let Some(moment) = moment {
            let At { superblock, recovered, as_of, size_bytes, .. } = recover_at(store, moment).await?;
            return Ok(Self { superblock, prefix: recovered.replay.finish(), as_of, size_bytes });
        }
        let (_, superblock, recovered) = recover_for_reading(store, false).await?;
        if let Some(damage) = recovered.damage {
            return Err(damage);
        }
        let as_of = recovered.replay.last().map_or(superblock.log_first_number, |(number, _)| number);
        let size_bytes = superblock.size_bytes;
        Ok(Self { superblock, prefix: recovered.replay.finish(), as_of, size_bytes })
    }

    /// The runs of a region.
    async fn runs(&self, store: &VolumeStore, region: RegionIndex) -> Result<Vec<Run>, Error> {
        let absent = self.prefix.map().first_absent(region.extent()).is_some();
        let content: RegionContent = if absent {
            let place = self.prefix.place(region);
            let read = read_regions(store, self.superblock.volume_id, vec![(region, place)]).await?;
            let content = read.into_iter().next().map(|(.., content)| content).unwrap_or_default();
            let checked = self.prefix.check_region(&content);
            checked.map_err(|reason| store.corrupt(names::checkpoint_part(&place.part), reason))?;
            content
        } else {
            self.prefix.map().region_runs(region).collect()
        };
        let run = |(extent, mapping): (lsvd_format::Extent, Mapping)| {
            let content = match mapping {
                Mapping::Zero => Content::Zero,
                Mapping::Lost => return Err(lost(store, &self.prefix, extent.start)),
                Mapping::Stored(at) => {
                    let number = self.prefix.objects().get(at.object).identity.number;
                    Content::Stored { number, ordinal: u64::from(at.ordinal.0) }
                }
            };
            Ok(Run { start: extent.start.0, end: extent.end().0, content })
        };
        content.into_iter().map(run).collect()
    }
}

/// The first region from `from` on that one of them has anything in.
pub(crate) fn next_region(a: &Side, b: &Side, from: RegionIndex) -> Option<RegionIndex> {
    let first = |side: &Side| side.prefix.map().next_region(from);
    let (a, b) = (first(a), first(b));
    a.into_iter().chain(b).min()
}

/// Blocks of the volume whose content lies in a row.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: u64,
    end: u64,
    content: Content,
}

/// Where the content of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Hole,
    Zero,
    Stored { number: SequenceNumber, ordinal: u64 },
}

impl Content {
    fn reads_as_zeroes(self) -> bool {
        !matches!(self, Content::Stored { .. })
    }

    /// The content so many blocks further on.
    fn after(self, blocks: u64) -> Self {
        match self {
            Content::Stored { number, ordinal } => Content::Stored { number, ordinal: ordinal + blocks },
            other => other,
        }
    }
}

/// What changed in a region; `None` if it is stored at the same place in both.
pub(crate) async fn compare(
    store: &VolumeStore,
    region: RegionIndex,
    (a, b): (&Side, &Side),
    moves: &Moves,
) -> Result<Option<Vec<ChangedExtent>>, Error> {
    let unread = |side: &Side| {
        let absent = side.prefix.map().first_absent(region.extent()).is_some();
        absent.then(|| side.prefix.find_place(region)).flatten()
    };
    if let (Some(in_a), Some(in_b)) = (unread(a), unread(b))
        && in_a == in_b
    {
        return Ok(None);
    }
    let (runs_a, runs_b) = (a.runs(store, region).await?, b.runs(store, region).await?);
    let end = region.extent().end().0.min(b.size_bytes / BLOCK_BYTES);
    let mut changed: Vec<ChangedExtent> = Vec::new();
    let (mut at, mut nth_a, mut nth_b) = (region.extent().start.0, 0, 0);
    while at < end {
        let (in_a, until_a) = content_at(&runs_a, &mut nth_a, at, end);
        let (in_b, until_b) = content_at(&runs_b, &mut nth_b, at, end);
        let until = until_a.min(until_b);
        let same = in_a == in_b || in_a.reads_as_zeroes() && in_b.reads_as_zeroes();
        let mut from = at;
        while !same && from < until {
            // Block by block only where collection may have moved something.
            let to = if moves.may_know(in_a) || moves.may_know(in_b) { from + 1 } else { until };
            let (block_a, block_b) = (in_a.after(from - at), in_b.after(from - at));
            if moves.origin(block_a).await? != moves.origin(block_b).await? {
                let extent = ChangedExtent {
                    offset_bytes: from * BLOCK_BYTES,
                    length_bytes: (to - from) * BLOCK_BYTES,
                    hole: in_b == Content::Hole,
                    zero: in_b.reads_as_zeroes(),
                };
                match changed.last_mut() {
                    Some(last) if continues(last, &extent) => last.length_bytes += extent.length_bytes,
                    _ => changed.push(extent),
                }
            }
            from = to;
        }
        at = until;
    }
    Ok(Some(changed))
}

/// What is at a block, and up to where that goes on.
fn content_at(runs: &[Run], nth: &mut usize, at: u64, end: u64) -> (Content, u64) {
    while runs.get(*nth).is_some_and(|run| run.end <= at) {
        *nth += 1;
    }
    match runs.get(*nth) {
        Some(run) if run.start <= at => (run.content.after(at - run.start), run.end.min(end)),
        Some(run) => (Content::Hole, run.start.min(end)),
        None => (Content::Hole, end),
    }
}

/// A run of an object's payload: its first block, the block behind it, and where it was moved from, if it was.
type Moved = (u64, u64, Option<Source>);

/// Where collection moved blocks from.
pub(crate) struct Moves {
    store: VolumeStore,
    /// The last number that both moments have: nothing is followed to below it.
    shared: SequenceNumber,
    /// What the payloads of objects are made of.
    known: Mutex<BTreeMap<SequenceNumber, Payload>>,
}

/// An object's payload in its order; `None` if that can not be read.
type Payload = Arc<Option<Vec<Moved>>>;

impl Moves {
    pub(crate) fn new(store: VolumeStore, shared: SequenceNumber) -> Self {
        Self { store, shared, known: Mutex::default() }
    }

    /// Whether a place is of an object that only one of the moments has.
    fn may_know(&self, content: Content) -> bool {
        matches!(content, Content::Stored { number, .. } if number > self.shared)
    }

    /// Where a block was before all collection that lies between the two moments.
    async fn origin(&self, content: Content) -> Result<Content, Error> {
        let mut content = content;
        while let Content::Stored { number, ordinal } = content {
            if number <= self.shared {
                break;
            }
            let moved = self.payload_of(number).await?;
            let run = (*moved)
                .as_ref()
                .and_then(|runs| runs.iter().find(|(first, end, _)| *first <= ordinal && ordinal < *end));
            match run {
                // A clone's may have been a parent's, whose numbers are all lower.
                Some((first, _, Some(source))) if source.number < number => {
                    let ordinal = u64::from(source.ordinal.0) + (ordinal - first);
                    content = Content::Stored { number: source.number, ordinal };
                }
                _ => break,
            }
        }
        Ok(content)
    }

    async fn payload_of(&self, number: SequenceNumber) -> Result<Payload, Error> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(payload) = known().get(&number) {
            return Ok(payload.clone());
        }
        let read = match self.store.read_log_header(number).await {
            Ok(Some(AnyHeader::V2(header))) => Some(payload(&header.entries)),
            Ok(_) | Err(Error::Corrupt { .. }) => None,
            Err(error) => return Err(error),
        };
        let (read, mut known) = (Arc::new(read), known());
        if known.len() >= HEADERS_MAX {
            known.clear();
        }
        known.insert(number, read.clone());
        Ok(read)
    }
}

fn payload(entries: &[Entry]) -> Vec<Moved> {
    let mut ordinal = 0;
    let mut runs = Vec::new();
    for entry in entries {
        let first = ordinal;
        ordinal += entry.payload_blocks();
        let source = match entry {
            Entry::Relocation { source, .. } => Some(*source),
            _ => None,
        };
        if ordinal > first {
            runs.push((first, ordinal, source));
        }
    }
    runs
}

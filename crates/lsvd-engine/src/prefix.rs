//! The durable prefix: extent map, object table and state of the log as of one number; how an object changes them, and
//! how they are captured for a checkpoint.
//!
//! One way for replay and for life, so that the two can not differ (rule 6). An object is applied piece by piece, as
//! regions of the map may be absent: [`Prefix::advance`] says which one it needs. Knows not the overlay, and not where
//! regions come from. Invariants:
//! 1. every block that the map points at is counted live at its object, once, as soon as its object is applied;
//! 2. a capture holds the map as of its beginning: a region is captured before it changes;
//! 3. only regions that a named checkpoint holds as they are leave memory;
//! 4. what lost blocks were stays counted as live, so that nobody deletes it; and so does what a region held that was discarded
//!    while it was absent, until it is read: no checkpoint begins before.

use std::collections::{BTreeMap, BTreeSet};

use lsvd_format::checkpoint::{PartId, REGION_BLOCKS, RegionIndex, RootPart};
use lsvd_format::log_object::{Entry, Header, Source};
use lsvd_format::{BlockIndex, BlockOrdinal, Extent, ObjectFormat, SequenceNumber, v1};

use crate::log::LogState;
use crate::map::{ExtentMap, Location, Mapping};
use crate::objects::{ObjectIndex, ObjectRecord, ObjectState, ObjectTable, Slots};

/// Where a region is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The object in the checkpoints' folder.
    pub part: PartId,
    /// Where it begins there.
    pub offset_bytes: u64,
    /// Its length.
    pub length_bytes: u32,
}

/// The regions that a checkpoint has stored anew.
#[derive(Clone, Debug, Default)]
pub struct StoredRegions {
    /// Each region that was captured, and where it is; without a place it is a hole.
    pub places: Vec<(RegionIndex, Option<Place>)>,
    /// All objects that the checkpoint's root refers to, with their lengths.
    pub parts: Vec<RootPart>,
}

/// What is stored of a region.
pub type RegionContent = Vec<(Extent, Mapping)>;

/// How far an object is applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    object: Option<ObjectIndex>,
    begun: bool,
    entry: usize,
    /// Blocks of this entry that are applied.
    blocks: u64,
    /// Blocks of the payload that earlier entries took.
    ordinal: u64,
}

impl Progress {
    /// Whether nothing of the object is applied yet.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.begun
    }
}

/// A checkpoint that is being captured.
#[derive(Clone, Debug, Default)]
struct Capture {
    /// Regions that are still to be captured.
    pending: BTreeSet<RegionIndex>,
    /// Regions that were about to change.
    early: BTreeMap<RegionIndex, RegionContent>,
}

/// The state that a checkpoint stores, but for its regions.
#[derive(Clone, Debug)]
pub struct CaptureStart {
    /// The state of the log.
    pub log: LogState,
    /// All objects.
    pub objects: Slots,
    /// Whether blocks may be lost.
    pub lossy: bool,
    /// Of `parts`, such as are kept though no region is stored in them any more.
    pub lost_parts: BTreeSet<PartId>,
    /// The regions that are stored as they are.
    pub stored: Vec<(RegionIndex, Place)>,
    /// The objects that they are stored in.
    pub parts: Vec<RootPart>,
    /// How many regions there are to capture.
    pub regions: usize,
}

/// What was applied since the last checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Log objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Regions of the map that the next checkpoint has to store.
    pub changed_regions: u64,
}

/// The log applied up to a number.
#[derive(Debug)]
pub struct Prefix {
    pub(crate) map: ExtentMap,
    pub(crate) objects: ObjectTable,
    pub(crate) log: LogState,
    places: BTreeMap<RegionIndex, Place>,
    /// The objects that they are in.
    parts: Vec<RootPart>,
    /// Of these, such as hold, damaged, what lost blocks were: checkpoints go on referring to them.
    lost_parts: BTreeSet<PartId>,
    /// Whether a region that is discarded whole needs not be in memory for that.
    counts_later: bool,
    /// Regions of which that is so, and the last object that may have discarded them: what was live there is still counted.
    owed: BTreeMap<RegionIndex, SequenceNumber>,
    /// Whether blocks are lost, or were: then more is counted as live than the map points at.
    lossy: bool,
    /// Regions that were lost here.
    lost_regions: u64,
    /// Marked clean for a checkpoint that is not named yet.
    unsaved: BTreeSet<RegionIndex>,
    capture: Option<Capture>,
    /// Objects from this number on were applied here.
    known_from: SequenceNumber,
    /// The last of them that changed what the volume reads as.
    changed_at: Option<SequenceNumber>,
    /// All that is applied, if it is made for one region.
    only: Option<RegionIndex>,
    tail: Tail,
    /// What the checkpoint that is being captured holds of the tail.
    captured_tail: Tail,
}

impl Prefix {
    /// An empty volume whose log begins with `first`.
    pub fn new(first: SequenceNumber) -> Self {
        Self {
            map: ExtentMap::default(),
            objects: ObjectTable::default(),
            log: LogState::new(first),
            places: BTreeMap::new(),
            parts: Vec::new(),
            lost_parts: BTreeSet::new(),
            counts_later: false,
            owed: BTreeMap::new(),
            lossy: false,
            lost_regions: 0,
            unsaved: BTreeSet::new(),
            capture: None,
            known_from: first,
            changed_at: None,
            only: None,
            tail: Tail::default(),
            captured_tail: Tail::default(),
        }
    }

    /// What a checkpoint holds, none of its regions in memory.
    pub fn from_checkpoint(
        log: LogState,
        objects: impl IntoIterator<Item = (ObjectIndex, ObjectState)>,
        places: impl IntoIterator<Item = (RegionIndex, Place)>,
        parts: Vec<RootPart>,
    ) -> Self {
        let mut prefix = Self::new(log.next);
        prefix.log = log;
        prefix.objects = ObjectTable::restore(objects);
        prefix.places = places.into_iter().collect();
        let used: BTreeSet<PartId> = prefix.places.values().map(|place| place.part).collect();
        let lost = parts.iter().map(|part| part.part).filter(|part| !used.contains(part));
        prefix.lost_parts = lost.collect();
        prefix.lossy = !prefix.lost_parts.is_empty();
        prefix.parts = parts;
        for &region in prefix.places.keys() {
            prefix.map.set_absent(region);
        }
        prefix
    }

    /// Discards regions from now on without reading first what they hold: see [`Prefix::owed`].
    pub(crate) fn counting_later(self) -> Self {
        Self { counts_later: true, ..self }
    }

    /// The first few regions that were discarded unread, but for these: bring what they held by [`Prefix::settle`].
    pub(crate) fn owed(&self, most: usize, but: &BTreeSet<RegionIndex>) -> Vec<RegionIndex> {
        self.owed.keys().filter(|region| !but.contains(region)).take(most).copied().collect()
    }

    /// Whether what a region held that was discarded is still counted.
    pub(crate) fn owes(&self, region: RegionIndex) -> bool {
        self.owed.contains_key(&region)
    }

    /// Whether that is so of any.
    pub(crate) fn owes_any(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Counts what a region held that was discarded unread: it is dead, at the latest since the object `by`.
    pub(crate) fn settle(&mut self, region: RegionIndex, content: &RegionContent, by: SequenceNumber) {
        let Some(discarded) = self.owed.remove(&region) else { return };
        for (extent, mapping) in content {
            match mapping {
                Mapping::Stored(at) => self.objects.kill(at.object, extent.count.0, by.max(discarded)),
                Mapping::Lost => self.lossy = true,
                Mapping::Zero => {}
            }
        }
    }

    /// What a region held that was discarded can not be read: it counts as live for ever, so that nobody deletes it.
    pub(crate) fn settle_unread(&mut self, region: RegionIndex) {
        self.lossy |= self.owed.remove(&region).is_some();
    }

    /// The same, if what is below this number is of volumes that this one is a clone of.
    pub fn sharing_below(mut self, own_from: SequenceNumber) -> Self {
        self.objects.set_own_from(own_from);
        self
    }

    /// What a clone of this volume, as it is now, begins with: the same map, and a log of its own from this number on. Of what is
    /// dead by now it knows nothing.
    pub fn cloned(mut self, own_from: SequenceNumber) -> Self {
        self.objects.forget_dead();
        self.log = LogState::new(own_from);
        self.sharing_below(own_from)
    }

    /// Applies from now on what objects say of one region, and nothing else: who has lost only that one needs no more.
    pub fn limited_to(self, region: RegionIndex) -> Self {
        Self { only: Some(region), ..self }
    }

    /// What the map says of a region, named by the slots of another table of the same objects.
    ///
    /// # Errors
    /// What can not be, for a person: an object that the other one does not know, or knows otherwise.
    pub fn region_for(&self, region: RegionIndex, other: &ObjectTable) -> Result<RegionContent, String> {
        let renamed = |(extent, mapping)| {
            let Mapping::Stored(at) = mapping else { return Ok((extent, mapping)) };
            let record = self.objects.get(at.object);
            let object = other.find(record.identity.number).filter(|object| other.get(*object) == record);
            let object = object.ok_or_else(|| format!("number {} is not known", record.identity.number))?;
            Ok((extent, Mapping::Stored(Location { object, ..at })))
        };
        self.map.region_runs(region).map(renamed).collect()
    }

    /// The extent map.
    pub fn map(&self) -> &ExtentMap {
        &self.map
    }

    /// The objects.
    pub fn objects(&self) -> &ObjectTable {
        &self.objects
    }

    /// The state of the log.
    pub fn log(&self) -> &LogState {
        &self.log
    }

    /// Where an absent region is stored.
    pub fn place(&self, region: RegionIndex) -> Place {
        self.places[&region]
    }

    /// Where a region is stored, if it is.
    pub fn find_place(&self, region: RegionIndex) -> Option<Place> {
        self.places.get(&region).copied()
    }

    /// Whether a region's content can belong to this prefix: each object is known and has the blocks.
    ///
    /// # Errors
    /// What can not be, for a person.
    pub fn check_region(&self, content: &RegionContent) -> Result<(), String> {
        for (extent, mapping) in content {
            let Mapping::Stored(Location { object, ordinal }) = *mapping else { continue };
            let payload_blocks = self.objects.find_slot(object).map(|state| state.record.payload_blocks);
            if payload_blocks.is_none_or(|blocks| u64::from(ordinal.0) + extent.count.0 > blocks) {
                let (start, slot) = (extent.start, object.0);
                return Err(format!(
                    "block {start} is said to be in object slot {slot}, which has no such block"
                ));
            }
        }
        Ok(())
    }

    /// Whether a region's content can be live: no object has more blocks in it than are counted live at it.
    ///
    /// # Errors
    /// As for [`Prefix::check_region`].
    pub fn check_live(&self, content: &RegionContent) -> Result<(), String> {
        let mut counted = BTreeMap::<ObjectIndex, u64>::new();
        for (extent, mapping) in content {
            if let Mapping::Stored(at) = mapping {
                *counted.entry(at.object).or_default() += extent.count.0;
            }
        }
        for (object, blocks) in counted {
            let live_blocks = self.objects.find_slot(object).map_or(0, |state| state.live_blocks);
            if blocks > live_blocks {
                let slot = object.0;
                return Err(format!(
                    "object slot {slot} has {blocks} blocks there, and {live_blocks} live ones"
                ));
            }
        }
        Ok(())
    }

    /// Counts again what is live, as far as regions are in memory. Gives how many are not.
    ///
    /// # Errors
    /// What is not as it was counted (invariant 1), for a person.
    pub fn audit(&self) -> Result<u64, String> {
        let (mut absent, mut counted) = (0, BTreeMap::<ObjectIndex, u64>::new());
        for region in self.map.regions() {
            if self.map.first_absent(region.extent()).is_some() {
                absent += 1;
                continue;
            }
            let content: RegionContent = self.map.region_runs(region).collect();
            self.check_region(&content)?;
            for (extent, mapping) in content {
                if let Mapping::Stored(at) = mapping {
                    *counted.entry(at.object).or_default() += extent.count.0;
                }
            }
        }
        for (index, state) in self.objects.iter() {
            let (found, said) = (counted.get(&index).copied().unwrap_or(0), state.live_blocks);
            let exact = absent == 0 && !self.lossy && self.owed.is_empty();
            if found > said || exact && found != said {
                let number = state.record.identity.number;
                return Err(format!(
                    "object {number} has {found} live blocks in memory, and {said} are counted"
                ));
            }
        }
        Ok(absent)
    }

    /// Brings an absent region into memory: what was read from `place`, and was checked. One that is there already, or
    /// whose place is another by now, is left alone.
    pub fn load(&mut self, region: RegionIndex, place: Place, content: RegionContent) {
        if self.map.first_absent(region.extent()).is_some() && self.places.get(&region) == Some(&place) {
            self.lossy |= content.iter().any(|(_, mapping)| *mapping == Mapping::Lost);
            self.map.load(region, content);
        }
    }

    /// Goes on without what an absent region held, as nobody can read that any more: all of it up to the block `end` is lost
    /// until it is written again. What it pointed at stays counted as live, and the object that holds it, damaged, stays
    /// too: should somebody be able to repair that one day, all is there.
    pub fn lose(&mut self, region: RegionIndex, place: Place, end: BlockIndex) {
        let whole = region.extent();
        let blocks = whole.end().min(end).0.saturating_sub(whole.start.0);
        if self.map.first_absent(whole).is_some() && self.places.get(&region) == Some(&place) {
            let lost = Extent::new(whole.start.0, blocks);
            self.map.load(region, (blocks > 0).then_some((lost, Mapping::Lost)));
            // The next checkpoint says so; until then it stays in memory.
            self.unsaved.insert(region);
            self.lost_parts.insert(place.part);
            self.lost_regions += 1;
            self.lossy = true;
        }
    }

    /// Regions that were lost since the checkpoint that this began with.
    pub fn lost_regions(&self) -> u64 {
        self.lost_regions
    }

    /// Whether blocks are lost, or were.
    pub fn is_lossy(&self) -> bool {
        self.lossy
    }

    /// Says that blocks were lost before.
    pub fn set_lossy(&mut self, lossy: bool) {
        self.lossy |= lossy;
    }

    /// A run is used: its first and its last region leave memory after others.
    pub(crate) fn touch(&mut self, extent: Extent) {
        let (first, last) =
            (RegionIndex::of(extent.start), RegionIndex::of(BlockIndex(extent.end().0.max(1) - 1)));
        for region in [first, last] {
            if self.places.contains_key(&region) {
                self.map.touch(region);
            }
        }
    }

    /// Lets regions leave memory until no more than this is held. Gives how many went.
    pub(crate) fn evict(&mut self, bytes_max: u64, mut may_leave: impl FnMut(RegionIndex) -> bool) -> u64 {
        let (unsaved, places) = (&self.unsaved, &self.places);
        self.map.evict(bytes_max, |region| {
            !unsaved.contains(&region) && places.contains_key(&region) && may_leave(region)
        })
    }

    /// Absent regions that the rest of an object needs, the first few.
    pub(crate) fn needs(&self, header: &Header, progress: &Progress, most: usize) -> Vec<RegionIndex> {
        let mut regions = Vec::new();
        let mut done = progress.blocks;
        for entry in &header.entries[progress.entry..] {
            let Some(extent) = entry.extent() else { continue };
            let rest = Extent::new(extent.start.0 + done, extent.count.0 - done);
            for part in if self.may_discard(entry) { edges(rest) } else { [rest, Extent::new(0, 0)] } {
                self.absent_in(part, most, &mut regions);
            }
            done = 0;
            if regions.len() >= most {
                break;
            }
        }
        regions
    }

    /// Adds the absent regions of a run, as long as there are fewer than `most`.
    pub(crate) fn absent_in(&self, extent: Extent, most: usize, regions: &mut Vec<RegionIndex>) {
        let (mut at, end) = (extent.start.0, extent.end().0);
        while at < end && regions.len() < most {
            let Some(region) = self.map.first_absent(Extent::new(at, end - at)) else { return };
            if !regions.contains(&region) {
                regions.push(region);
            }
            at = region.extent().end().0;
        }
    }

    /// Applies an object, or goes on with it; with an error it needs this region and is to be called again.
    pub(crate) fn advance(
        &mut self,
        header: &Header,
        format: ObjectFormat,
        progress: &mut Progress,
    ) -> Result<(), RegionIndex> {
        if !progress.begun {
            progress.begun = true;
            progress.object = self.begin(header, format);
        }
        while let Some(entry) = header.entries.get(progress.entry) {
            if let Some(extent) = entry.extent() {
                self.advance_entry(header, entry, extent, progress)?;
            }
            progress.ordinal += entry.payload_blocks();
            progress.blocks = 0;
            progress.entry += 1;
        }
        self.log.take(header, format);
        if header.entries.iter().any(changes_content) {
            self.changed_at = Some(header.identity.number);
        }
        self.tail.objects += 1;
        self.tail.bytes += header.object_bytes();
        Ok(())
    }

    /// Gives the object its slot. A fence has none.
    fn begin(&mut self, header: &Header, format: ObjectFormat) -> Option<ObjectIndex> {
        if matches!(header.entries[..], [Entry::Fence { .. }]) {
            return None;
        }
        let header_bytes = match format {
            ObjectFormat::V1 => v1::HEADER_BYTES,
            ObjectFormat::V2 => header.header_bytes(),
        };
        let payload_blocks = header.payload_blocks();
        Some(self.objects.push(ObjectRecord {
            identity: header.identity,
            format,
            header_bytes,
            payload_blocks,
        }))
    }

    fn advance_entry(
        &mut self,
        header: &Header,
        entry: &Entry,
        extent: Extent,
        progress: &mut Progress,
    ) -> Result<(), RegionIndex> {
        let mut end = extent.end().0;
        if let Some(only) = self.only.map(RegionIndex::extent) {
            end = end.min(only.end().0);
            progress.blocks = progress.blocks.max(only.start.0.saturating_sub(extent.start.0));
        }
        while extent.start.0 + progress.blocks < end {
            let at = extent.start.0 + progress.blocks;
            let absent = self.map.first_absent(Extent::new(at, end - at));
            let until = absent.map_or(end, |region| region.extent().start.0.max(at));
            let piece = Extent::new(at, until - at);
            if !piece.is_empty() {
                self.capture_early(piece);
                self.apply(header, entry, piece, progress);
                progress.blocks += piece.count.0;
            }
            if let Some(region) = absent {
                let whole = region.extent();
                if !self.may_discard(entry) || whole.start.0 < extent.start.0 || whole.end().0 > end {
                    return Err(region);
                }
                self.map.discard_absent(region);
                self.owed.insert(region, header.identity.number);
            }
        }
        Ok(())
    }

    /// Whether an entry leaves nothing of a region that it covers.
    fn may_discard(&self, entry: &Entry) -> bool {
        self.counts_later && matches!(entry, Entry::Trim { .. } | Entry::Zero { .. })
    }

    /// Applies one run of an entry, whose regions are in memory.
    fn apply(&mut self, header: &Header, entry: &Entry, piece: Extent, progress: &Progress) {
        let by = header.identity.number;
        let Self { map, objects, .. } = self;
        let stored = || {
            let object = progress.object.expect("data and relocations are payload");
            let ordinal = u32::try_from(progress.ordinal + progress.blocks);
            let ordinal = BlockOrdinal(ordinal.expect("a payload has fewer than 2^32 blocks"));
            Location { object, ordinal }
        };
        match *entry {
            Entry::Data { .. } => {
                let to = stored();
                // First, so that an object that overwrites itself does not seem dead in between.
                objects.revive(to.object, piece.count.0);
                map.insert(piece, Mapping::Stored(to), |object, blocks| objects.kill(object, blocks, by));
            }
            Entry::Zero { .. } => {
                map.insert(piece, Mapping::Zero, |object, blocks| objects.kill(object, blocks, by));
            }
            Entry::Trim { .. } => map.remove(piece, |object, blocks| objects.kill(object, blocks, by)),
            Entry::Relocation { source, .. } => {
                if let Some(from) = objects.find(source.number)
                    && objects.get(from).identity.volume == source.volume
                {
                    let skip = u32::try_from(progress.blocks).expect("a payload has fewer than 2^32 blocks");
                    let source =
                        Source { ordinal: BlockOrdinal(source.ordinal.0.saturating_add(skip)), ..source };
                    self.relocate(piece, (from, source.ordinal), stored(), by);
                }
            }
            Entry::Fence { .. } => {}
        }
    }

    /// Moves those blocks of a run that the map still has at their source (rule 6).
    fn relocate(
        &mut self,
        piece: Extent,
        from: (ObjectIndex, BlockOrdinal),
        to: Location,
        by: SequenceNumber,
    ) {
        let (object, first) = from;
        let unmoved = |(run, mapping): (Extent, Mapping)| {
            let nth = run.start.0 - piece.start.0;
            let was =
                Location { object, ordinal: BlockOrdinal(first.0.checked_add(u32::try_from(nth).ok()?)?) };
            (mapping == Mapping::Stored(was)).then_some((run, nth))
        };
        // A run of the map never spans two places of one object that do not follow each other, so it is moved or left whole.
        let runs: Vec<(Extent, u64)> = self.map.overlapping(piece).filter_map(unmoved).collect();
        let Self { map, objects, .. } = self;
        for (run, nth) in runs {
            let nth = u32::try_from(nth).expect("a payload has fewer than 2^32 blocks");
            let to = Location { object: to.object, ordinal: BlockOrdinal(to.ordinal.0 + nth) };
            objects.revive(to.object, run.count.0);
            map.insert(run, Mapping::Stored(to), |object, blocks| objects.kill(object, blocks, by));
        }
    }

    /// Captures the regions of a run that is about to change, if they are still to be captured.
    fn capture_early(&mut self, piece: Extent) {
        let Some(capture) = &mut self.capture else { return };
        if capture.pending.is_empty() || piece.is_empty() {
            return;
        }
        let last = RegionIndex::of(BlockIndex(piece.end().0 - 1));
        let hit: Vec<RegionIndex> =
            capture.pending.range(RegionIndex::of(piece.start)..=last).copied().collect();
        for region in hit {
            capture.pending.remove(&region);
            capture.early.insert(region, self.map.region_runs(region).collect());
        }
    }

    /// Begins a checkpoint of the prefix as it is now. Call it between two objects.
    pub(crate) fn begin_capture(&mut self) -> CaptureStart {
        assert!(self.capture.is_none(), "one checkpoint at a time");
        self.unsaved.extend(self.map.dirty_regions());
        for &region in &self.unsaved {
            self.map.mark_clean(region);
        }
        let pending = self.unsaved.clone();
        let stored = self.places.iter().filter(|(region, _)| !pending.contains(region));
        let start = CaptureStart {
            log: self.log.clone(),
            objects: self.objects.slots().clone(),
            stored: stored.map(|(&region, &place)| (region, place)).collect(),
            parts: self.parts.clone(),
            lossy: self.lossy,
            lost_parts: self.lost_parts.clone(),
            regions: pending.len(),
        };
        self.capture = Some(Capture { pending, early: BTreeMap::new() });
        self.captured_tail = self.tail;
        start
    }

    /// The next few regions as of the beginning of the checkpoint; none when all were given. An empty one is a hole.
    pub(crate) fn capture(&mut self, most: usize) -> Vec<(RegionIndex, RegionContent)> {
        let Some(capture) = &mut self.capture else { return Vec::new() };
        let mut regions = Vec::new();
        while regions.len() < most {
            if let Some(early) = capture.early.pop_first() {
                regions.push(early);
            } else if let Some(region) = capture.pending.pop_first() {
                regions.push((region, self.map.region_runs(region).collect()));
            } else {
                break;
            }
        }
        regions
    }

    /// Ends a checkpoint: a superblock version names it, and its regions are stored there; or it came to nothing.
    pub(crate) fn end_capture(&mut self, named: Option<StoredRegions>) {
        self.capture = None;
        let Some(StoredRegions { places, parts }) = named else { return };
        self.tail.objects -= self.captured_tail.objects;
        self.tail.bytes -= self.captured_tail.bytes;
        self.parts = parts;
        for (region, place) in places {
            self.unsaved.remove(&region);
            match place {
                Some(place) => self.places.insert(region, place),
                None => self.places.remove(&region),
            };
        }
    }

    /// Forgets an object that is deleted, if it is known. Nothing of it is live.
    pub(crate) fn forget(&mut self, number: SequenceNumber) {
        if let Some(index) = self.objects.find(number) {
            self.objects.forget(index);
        }
    }

    /// Regions that lie in checkpoint objects of volumes that this one is a clone of, the first few.
    pub(crate) fn shared_regions(&self, most: usize) -> Vec<RegionIndex> {
        let shared = self.places.iter().filter(|(_, place)| self.is_shared(place.part));
        shared.map(|(region, _)| *region).take(most).collect()
    }

    fn is_shared(&self, part: PartId) -> bool {
        part.as_of < self.objects.own_from()
    }

    /// Regions that lie in checkpoint objects of which less than half is still referred to, the first few.
    pub(crate) fn sparsely_stored(&self, most: usize) -> Vec<RegionIndex> {
        let mut used: BTreeMap<PartId, u64> = BTreeMap::new();
        for place in self.places.values() {
            *used.entry(place.part).or_default() += u64::from(place.length_bytes);
        }
        let sparse = |part: &&RootPart| {
            !self.is_shared(part.part)
                && used.get(&part.part).is_some_and(|used| used * 2 < part.object_bytes)
        };
        let sparse: BTreeSet<PartId> = self.parts.iter().filter(sparse).map(|part| part.part).collect();
        let regions = self.places.iter().filter(|(_, place)| sparse.contains(&place.part));
        regions.map(|(region, _)| *region).take(most).collect()
    }

    /// Has the next checkpoint store regions again that are stored already.
    ///
    /// # Errors
    /// Those of them that are absent.
    pub(crate) fn store_again(&mut self, regions: &[RegionIndex]) -> Result<(), Vec<RegionIndex>> {
        let absent = |region: &&RegionIndex| self.map.first_absent(region.extent()).is_some();
        let absent: Vec<RegionIndex> = regions.iter().filter(absent).copied().collect();
        if !absent.is_empty() {
            return Err(absent);
        }
        self.unsaved.extend(regions.iter().filter(|region| self.places.contains_key(region)));
        Ok(())
    }

    /// Whether the volume surely reads as it did as of a number.
    pub fn is_unchanged_since(&self, number: SequenceNumber) -> bool {
        self.known_from <= number.next() && self.changed_at.is_none_or(|changed| changed <= number)
    }

    /// Bytes of objects whose last block died behind one number, up to another.
    pub fn died_bytes(&self, after: SequenceNumber, until: SequenceNumber) -> u64 {
        let died = |state: &ObjectState| state.died_at.is_some_and(|at| after < at && at <= until);
        let dead = self.objects.own().filter(|(_, state)| state.record.payload_blocks > 0 && died(state));
        dead.map(|(_, state)| state.record.object_bytes()).sum()
    }

    /// What the next checkpoint would hold.
    pub fn tail(&self) -> Tail {
        let changed_regions = self.map.dirty_regions().count() + self.unsaved.len();
        Tail { changed_regions: changed_regions as u64, ..self.tail }
    }
}

/// The parts of a run in regions that it does not cover.
fn edges(run: Extent) -> [Extent; 2] {
    let (start, end) = (run.start.0, run.end().0);
    let first = start.next_multiple_of(REGION_BLOCKS).min(end);
    let last = (end / REGION_BLOCKS * REGION_BLOCKS).max(first);
    [Extent::new(start, first - start), Extent::new(last, end - last)]
}

/// Whether an entry may change what the volume reads as.
fn changes_content(entry: &Entry) -> bool {
    match entry {
        Entry::Data { .. } | Entry::Zero { .. } | Entry::Trim { .. } => true,
        Entry::Relocation { .. } | Entry::Fence { .. } => false,
    }
}

//! What checkpoints and collection ask of the engine, and how absent regions of the map come into memory.
//!
//! Knows what is captured, what may leave memory and where collected blocks get their number (rule 6); not when any of it is
//! due, and not where it is stored. Invariant: a region that is pinned stays, once it is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use lsvd_format::checkpoint::RegionIndex;
use lsvd_format::log_object::{Entry, Header, Source};
use lsvd_format::{BlockIndex, Extent, ObjectFormat, SequenceNumber};

use super::{Engine, InFlight, REGIONS_AHEAD};
use crate::collect::{self, Choice, Move, Purpose};
use crate::journal::Journal;
use crate::map::Location;
use crate::objects::{ObjectIndex, ObjectState};
use crate::plan::{self, BlockSource};
use crate::prefix::{CaptureStart, Place, RegionContent, StoredRegions};
use crate::request::{Action, Now, Outcome, RequestId, SealedBatch};

/// Of the map's budget, the part that is for what regions hold, whatever the index takes.
const FLOOR_SHARE: u64 = 4;
/// Of the map's budget, the part that comes on top of what may not leave.
const STUCK_SHARE: u64 = 16;

impl Engine {
    /// Objects that are worth collecting, best first, until this many blocks are to be copied.
    pub fn victims(
        &self,
        purpose: Purpose,
        live_blocks_max: u64,
        objects_max: usize,
    ) -> Vec<(ObjectIndex, ObjectState)> {
        let mut choice = Choice::new(purpose, objects_max);
        choice.look(&self.prefix, usize::MAX, &BTreeSet::new());
        choice.victims(live_blocks_max)
    }

    /// Has a choice of victims look at the next few objects, but those with these numbers; whether there are more.
    pub fn look_for_victims(
        &self,
        choice: &mut Choice,
        objects: usize,
        but: &BTreeSet<SequenceNumber>,
    ) -> bool {
        choice.look(&self.prefix, objects, but)
    }

    /// What is to move of these runs of victims' payloads, in order of address.
    ///
    /// # Errors
    /// As for [`Engine::plan_read`].
    pub fn moves(&self, runs: &[(Extent, Location)]) -> Result<Vec<Move>, Vec<RegionIndex>> {
        collect::moves(&self.overlay, &self.prefix, runs)
    }

    /// Snapshots keep the objects that are live up to this number: see [`ObjectTotals`](crate::ObjectTotals).
    pub fn set_kept_until(&mut self, number: SequenceNumber) {
        self.prefix.objects.set_kept_until(number);
    }

    /// Seals what is written so far: the number of the last object that holds it, which may not be durable yet.
    pub fn seal_all(&mut self, now: Now) -> SequenceNumber {
        if !self.fenced {
            self.seal(now, false);
        }
        let log = self.prefix.log();
        match log.last {
            // Below the next number is what the fence skips.
            Some(last) if log.next == self.next_number => last.number,
            _ => SequenceNumber(self.next_number.0 - 1),
        }
    }

    /// Forgets an object that is deleted.
    pub fn forget(&mut self, number: SequenceNumber) {
        self.prefix.forget(number);
    }

    /// Keeps a region in memory, once it is there, until [`Engine::unpin`]: who needs several at once would else wait for
    /// ever where the budget is small.
    pub fn pin(&mut self, region: RegionIndex) {
        *self.pinned.entry(region).or_default() += 1;
    }

    /// Takes a pin back.
    pub fn unpin(&mut self, region: RegionIndex) {
        if let Some(pins) = self.pinned.get_mut(&region) {
            *pins -= 1;
            if *pins == 0 {
                self.pinned.remove(&region);
            }
        }
    }

    /// Who waits for what a block of a region held before, as the region is absent. They wait no more: tell each by
    /// [`crate::Event::BaseRead`].
    pub fn take_bases_wanted(&mut self, region: RegionIndex) -> Vec<(RequestId, BlockIndex)> {
        let (wanted, others) = std::mem::take(&mut self.bases_wanted)
            .into_iter()
            .partition(|(_, block)| RegionIndex::of(*block) == region);
        self.bases_wanted = others;
        wanted
    }

    /// A region that was asked for can not be read: who needs it asks again.
    pub fn region_failed(&mut self, region: RegionIndex) {
        self.loading.remove(&region);
    }

    /// Whether a region was discarded unread, and is asked for to count what died with it.
    pub fn owes(&self, region: RegionIndex) -> bool {
        self.prefix.owes(region)
    }

    /// Whether what is durable can not be applied to the map, or no checkpoint can begin, without this region.
    pub fn is_stuck_on(&self, region: RegionIndex) -> bool {
        if self.owes(region) {
            return true;
        }
        let first =
            self.sealed.front().filter(|first| first.batch.header.identity.number < self.first_incomplete);
        first.is_some_and(|first| {
            self.prefix.needs(&first.batch.header, &self.progress, usize::MAX).contains(&region)
        })
    }

    /// Whether a region is in memory.
    pub fn is_resident(&self, region: RegionIndex) -> bool {
        self.prefix.map().first_absent(region.extent()).is_none()
    }

    /// Regions that lie in checkpoint objects of which less than half is still referred to, the first few.
    pub fn sparsely_stored(&self, most: usize) -> Vec<RegionIndex> {
        self.prefix.sparsely_stored(most)
    }

    /// Regions that lie in checkpoint objects of volumes that this one is a clone of, the first few.
    pub fn shared_regions(&self, most: usize) -> Vec<RegionIndex> {
        self.prefix.shared_regions(most)
    }

    /// Has the next checkpoint store regions again that are stored already.
    ///
    /// # Errors
    /// Those of them that are absent, as for [`Engine::plan_read`].
    pub fn store_again(&mut self, regions: &[RegionIndex]) -> Result<(), Vec<RegionIndex>> {
        self.prefix.store_again(regions)
    }

    /// Begins a checkpoint as of the last object that is applied. `None` while one is half applied, or what died with a region
    /// is not counted yet: try again after the next event.
    pub fn begin_checkpoint(&mut self) -> Option<CaptureStart> {
        let exact = self.progress.is_fresh() && !self.prefix.owes_any();
        exact.then(|| self.prefix.begin_capture())
    }

    /// The next few regions of the checkpoint that was begun, as they were then; none when all were given. An empty one
    /// has become a hole.
    pub fn capture(&mut self, most: usize) -> Vec<(RegionIndex, RegionContent)> {
        self.prefix.capture(most)
    }

    /// Ends the checkpoint: a superblock version names it, with these places of the regions that were captured; or it came
    /// to nothing, and what it had is captured by the next one.
    pub fn end_checkpoint(&mut self, named: Option<StoredRegions>) {
        self.prefix.end_capture(named);
        self.stuck_bytes = 0;
        self.evict();
    }

    /// Asks for what regions held that were discarded unread, some at a time: nobody waits for it but the next checkpoint.
    pub(super) fn ask_for_owed(&mut self) {
        let free = REGIONS_AHEAD.saturating_sub(self.loading.len());
        for region in self.prefix.owed(free, &self.loading) {
            self.loading.insert(region);
            let place = self.prefix.place(region);
            self.actions.push_back(Action::LoadRegion { region, place });
        }
    }

    /// Asks for a region, once.
    pub(super) fn want_region(&mut self, region: RegionIndex) {
        if !self.is_resident(region) && self.loading.insert(region) {
            let place = self.prefix.place(region);
            self.actions.push_back(Action::LoadRegion { region, place });
        }
    }

    pub(super) fn region_loaded(
        &mut self,
        now: Now,
        (region, place): (RegionIndex, Place),
        content: RegionContent,
    ) {
        if self.prefix.owes(region) {
            let by = match self.sealed.front() {
                Some(half_applied) if !self.progress.is_fresh() => half_applied.batch.header.identity.number,
                _ => self.prefix.log().last.map_or(SequenceNumber(0), |last| last.number),
            };
            self.prefix.settle(region, &content, by);
        } else {
            self.prefix.load(region, place, content);
        }
        self.region_is_there(now, region);
    }

    pub(super) fn region_lost(&mut self, now: Now, region: RegionIndex, place: Place, end: BlockIndex) {
        if self.prefix.owes(region) {
            self.prefix.settle_unread(region);
        } else {
            self.prefix.lose(region, place, end);
        }
        self.region_is_there(now, region);
    }

    fn region_is_there(&mut self, now: Now, region: RegionIndex) {
        self.loading.remove(&region);
        for (id, block) in self.take_bases_wanted(region) {
            match plan::block(&self.overlay, &self.prefix, block) {
                BlockSource::Known(base) => self.base_read(now, id, block, Some(base)),
                source if self.merging.contains_key(&id) => self.fetch_base(id, block, source),
                _ => {} // cancelled
            }
        }
        self.apply_durable(now);
        self.evict();
    }

    /// Lets regions go that checkpoints hold, down to the budget, or to the part of it that is theirs in any case: if each
    /// went as soon as it is there, an object with many of them would be applied one fetch after the other.
    ///
    /// Where what may not leave is above that, a search visits every group of regions, and leaves nothing else. So a part
    /// of the budget comes on top of what such a search left, until a checkpoint ends.
    pub(super) fn evict(&mut self) {
        let Self { prefix, pinned, config, stuck_bytes, .. } = self;
        let budget = config.map_bytes_max;
        let limit = budget.max(prefix.map().index_bytes().saturating_add(budget / FLOOR_SHARE));
        let limit = limit.max(*stuck_bytes);
        if prefix.map().resident_bytes() <= limit {
            return;
        }
        prefix.evict(limit, |region| !pinned.contains_key(&region));
        let left = prefix.map().resident_bytes();
        if left > limit {
            *stuck_bytes = left + budget / STUCK_SHARE;
        }
    }

    /// Gives the collected blocks their number, right behind what clients wrote before (rule 6).
    pub(super) fn collected(&mut self, now: Now, id: RequestId, moves: &[Move], payload: Vec<Bytes>) {
        if self.fenced {
            return self.complete(id, Outcome::Fenced);
        }
        // What waits was written before: its order does not matter to a move, but the sealed line is dense.
        self.seal(now, false);
        let number = self.next_number;
        let entry = |one: &Move| {
            let (identity, ordinal) = (one.object.identity, one.ordinal);
            let (volume, number) = (identity.volume, identity.number);
            Entry::Relocation { extent: one.extent, source: Source { volume, number, ordinal } }
        };
        let entries = moves.iter().map(entry).collect();
        let identity = self.identity(number);
        let journal = self.journal.as_ref().map(Journal::position);
        let header = Header { identity, sealed_unix_ms: now.unix_ms, journal, entries };
        let batch =
            SealedBatch { header, format: ObjectFormat::V2, payload, held_bytes: 0, for_flush: false };
        let in_flight = InFlight {
            batch: Arc::new(batch),
            extents: Vec::new(),
            uploaded: false,
            opened_at: now.monotonic,
        };
        self.sealed.push_back(in_flight);
        self.next_number = number.next();
        self.durable_waiters.entry(number).or_default().push(id);
    }
}

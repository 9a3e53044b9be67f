//! The object table: which log objects there are to point into, and how much of each is still live.
//!
//! An object has one slot, the map's [`ObjectIndex`], for as long as it is stored: regions of the map that lie in
//! checkpoints name it so. Knows no extents. Invariants:
//! 1. `live blocks <= blocks in the payload`, for each object and all together;
//! 2. an object without live blocks knows since which number it has none;
//! 3. fences have no slot: nothing points at one, and none is ever collected (rule 9);
//! 4. the totals are the sum of what each slot counts;
//! 5. what a clone shares with its parents is neither its space nor its waste: of that only live blocks are counted.

mod slots;

use std::collections::BTreeMap;

use lsvd_format::log_object::FRAME_BYTES;
use lsvd_format::{BLOCK_BYTES, ObjectFormat, ObjectIdentity, SequenceNumber};

use slots::Slot;
pub use slots::Slots;

/// Slot of an object in the [`ObjectTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectIndex(pub u32);

/// What reading a block of an object needs to know of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRecord {
    /// Which object; checksums are seeded with it. One of format 1 does not say: its epoch and writer are those of the
    /// last mark before it, or zeroes.
    pub identity: ObjectIdentity,
    /// How its payload is written.
    pub format: ObjectFormat,
    /// Where its payload begins, in bytes.
    pub header_bytes: u64,
    /// Blocks in its payload.
    pub payload_blocks: u64,
}

impl ObjectRecord {
    /// Length of the whole object in bytes.
    pub fn object_bytes(&self) -> u64 {
        object_bytes(self.format, self.header_bytes, self.payload_blocks)
    }
}

/// An object and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectState {
    /// The object.
    pub record: ObjectRecord,
    /// Blocks of its payload that the map points at.
    pub live_blocks: u64,
    /// The log object that took its last live block away, or its own number if it never had one; `None` while it has.
    pub died_at: Option<SequenceNumber>,
}

/// Sums over all objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectTotals {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Blocks in their payloads.
    pub payload_blocks: u64,
    /// Of these, such as the map points at.
    pub live_blocks: u64,
    /// Bytes of objects of which nothing is live.
    pub dead_object_bytes: u64,
    /// Bytes that are not live, of objects that a snapshot keeps and that are live for the most part: moving what is live
    /// would give nothing back.
    pub kept_waste_bytes: u64,
    /// Blocks that the map points at in objects of other volumes, of which this one is a clone; those objects count nowhere else.
    pub shared_blocks: u64,
}

impl ObjectTotals {
    /// Bytes of all blocks that the map points at.
    pub fn shown_bytes(&self) -> u64 {
        (self.live_blocks + self.shared_blocks) * BLOCK_BYTES
    }

    /// Bytes of the objects that hold anything live.
    pub fn held_bytes(&self) -> u64 {
        self.object_bytes - self.dead_object_bytes
    }

    /// How much the store holds for what is live: bytes of those objects over bytes of live blocks. What is dead altogether
    /// is deleted, not collected, and does not count; nor does what snapshots keep.
    pub fn amplification(&self) -> f64 {
        self.amplification_with(0)
    }

    /// The same when this many bytes more are held that take the place of live ones.
    #[allow(clippy::cast_precision_loss)] // a ratio
    pub fn amplification_with(&self, more_bytes: u64) -> f64 {
        if self.live_blocks == 0 {
            return 1.0;
        }
        let held_bytes = self.held_bytes() - self.kept_waste_bytes + more_bytes;
        held_bytes as f64 / (self.live_blocks * BLOCK_BYTES) as f64
    }

    /// Bytes that are held and not live, and could be collected.
    pub fn waste_bytes(&self) -> u64 {
        self.held_bytes().saturating_sub(self.live_blocks * BLOCK_BYTES + self.kept_waste_bytes)
    }

    fn add(&mut self, other: &Self) {
        self.objects += other.objects;
        self.object_bytes += other.object_bytes;
        self.payload_blocks += other.payload_blocks;
        self.live_blocks += other.live_blocks;
        self.dead_object_bytes += other.dead_object_bytes;
        self.kept_waste_bytes += other.kept_waste_bytes;
        self.shared_blocks += other.shared_blocks;
    }

    fn subtract(&mut self, other: &Self) {
        self.objects -= other.objects;
        self.object_bytes -= other.object_bytes;
        self.payload_blocks -= other.payload_blocks;
        self.live_blocks -= other.live_blocks;
        self.dead_object_bytes -= other.dead_object_bytes;
        self.kept_waste_bytes -= other.kept_waste_bytes;
        self.shared_blocks -= other.shared_blocks;
    }
}

/// The objects that the map points into, and those that it does no more.
#[derive(Clone, Debug, Default)]
pub struct ObjectTable {
    slots: Slots,
    free: Vec<u32>,
    by_number: BTreeMap<SequenceNumber, ObjectIndex>,
    totals: ObjectTotals,
    /// Snapshots keep what is live up to this number.
    kept_until: SequenceNumber,
    /// The first number that can be the volume's own: below are its parents'.
    own_from: SequenceNumber,
}

impl ObjectTable {
    /// Adds an object, of which nothing is live yet.
    pub fn push(&mut self, record: ObjectRecord) -> ObjectIndex {
        let died_at = Some(record.identity.number);
        let slot = self.slots.slot_of(ObjectState { record, live_blocks: 0, died_at });
        let index = match self.free.pop() {
            Some(free) => free,
            None => {
                self.slots.grow(self.slots.len() + 1);
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 objects")
            }
        };
        self.put(ObjectIndex(index), slot);
        ObjectIndex(index)
    }

    /// A table from the objects of a checkpoint, by ascending slots.
    pub fn restore(objects: impl IntoIterator<Item = (ObjectIndex, ObjectState)>) -> Self {
        let mut table = Self::default();
        for (index, state) in objects {
            let slot = table.slots.slot_of(state);
            let at = index.0 as usize;
            for free in table.slots.len()..at {
                table.free.push(u32::try_from(free).expect("below a slot"));
            }
            table.slots.grow(at + 1);
            table.put(index, slot);
        }
        table.free.reverse();
        table
    }

    fn put(&mut self, index: ObjectIndex, slot: Slot) {
        *self.slots.get_mut(index) = Some(slot);
        self.by_number.insert(slot.number, index);
        let counted = self.counted(&slot);
        self.totals.add(&counted);
    }

    /// Changes a slot, and what the totals count of it.
    fn change(&mut self, index: ObjectIndex, change: impl FnOnce(&mut Slot)) {
        let (kept_until, own_from) = (self.kept_until, self.own_from);
        let slot = self.slots.get_mut(index);
        let slot = slot.as_mut().expect("the map points at objects that are stored");
        self.totals.subtract(&counted(slot, kept_until, own_from));
        change(slot);
        self.totals.add(&counted(slot, kept_until, own_from));
    }

    /// Snapshots keep the objects that are live up to this number, whatever becomes of them.
    pub fn set_kept_until(&mut self, number: SequenceNumber) {
        self.kept_until = number;
        self.count_again();
    }

    /// What is below this number is a parent's.
    pub fn set_own_from(&mut self, number: SequenceNumber) {
        self.own_from = number;
        self.count_again();
    }

    fn count_again(&mut self) {
        let mut totals = ObjectTotals::default();
        for slot in self.by_number.values().filter_map(|index| self.slots.get(*index)) {
            totals.add(&self.counted(slot));
        }
        self.totals = totals;
    }

    /// The first number that can be the volume's own.
    pub fn own_from(&self) -> SequenceNumber {
        self.own_from
    }

    /// Whether an object is a parent's.
    pub fn is_shared(&self, index: ObjectIndex) -> bool {
        self.slot(index).number < self.own_from
    }

    /// The objects of parents, by number.
    pub fn shared(&self) -> impl Iterator<Item = (ObjectIndex, ObjectState)> + '_ {
        self.shared_from(SequenceNumber(0))
    }

    /// Those of them from a number on.
    pub fn shared_from(
        &self,
        first: SequenceNumber,
    ) -> impl Iterator<Item = (ObjectIndex, ObjectState)> + '_ {
        let range = first.min(self.own_from)..self.own_from;
        self.by_number.range(range).map(|(_, &index)| (index, self.state(index)))
    }

    /// The volume's own objects, by number.
    pub fn own(&self) -> impl Iterator<Item = (ObjectIndex, ObjectState)> + '_ {
        self.by_number.range(self.own_from..).map(|(_, &index)| (index, self.state(index)))
    }

    /// Forgets all objects of which nothing is live.
    pub(crate) fn forget_dead(&mut self) {
        let dead = self.iter().filter(|(_, state)| state.live_blocks == 0).map(|(index, _)| index);
        for index in dead.collect::<Vec<_>>() {
            self.forget(index);
        }
    }

    /// Whether moving what is live of an object would give nothing back for now, as a snapshot keeps it, and too little later.
    pub fn is_kept(&self, index: ObjectIndex) -> bool {
        !self.is_shared(index) && is_kept(self.slot(index), self.kept_until)
    }

    fn slot(&self, index: ObjectIndex) -> &Slot {
        self.slots.get(index).expect("the map points at objects that are stored")
    }

    /// An object that was added.
    pub fn get(&self, index: ObjectIndex) -> ObjectRecord {
        self.state(index).record
    }

    /// An object that was added, and what is left of it.
    pub fn state(&self, index: ObjectIndex) -> ObjectState {
        self.slots.state(self.slot(index))
    }

    /// The object in a slot, if there is one.
    pub fn find_slot(&self, index: ObjectIndex) -> Option<ObjectState> {
        self.slots.get(index).map(|slot| self.slots.state(slot))
    }

    /// The object with a number.
    pub fn find(&self, number: SequenceNumber) -> Option<ObjectIndex> {
        self.by_number.get(&number).copied()
    }

    /// All objects, by number.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectIndex, ObjectState)> + '_ {
        self.by_number.values().map(|&index| (index, self.state(index)))
    }

    /// All slots.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The map points at this many more of its blocks.
    pub fn revive(&mut self, index: ObjectIndex, blocks: u64) {
        self.change(index, |slot| slot.live_blocks += blocks);
    }

    /// Log object `by` took this many of its blocks out of the map.
    pub fn kill(&mut self, index: ObjectIndex, blocks: u64, by: SequenceNumber) {
        self.change(index, |slot| {
            slot.live_blocks = slot.live_blocks.checked_sub(blocks).expect("no block dies twice");
            if slot.live_blocks == 0 && blocks > 0 {
                slot.died_at = by;
            }
        });
    }

    /// Gives the slot of an object free that is deleted. The map points at it no more.
    pub fn forget(&mut self, index: ObjectIndex) {
        let slot = self.slots.get_mut(index).take().expect("it is stored");
        assert_eq!(slot.live_blocks, 0, "what is live is not deleted");
        self.by_number.remove(&slot.number);
        self.free.push(index.0);
        let counted = self.counted(&slot);
        self.totals.subtract(&counted);
    }

    fn counted(&self, slot: &Slot) -> ObjectTotals {
        counted(slot, self.kept_until, self.own_from)
    }

    /// Sums over all objects.
    pub fn totals(&self) -> ObjectTotals {
        self.totals
    }
}

/// What a slot adds to the totals.
fn counted(slot: &Slot, kept_until: SequenceNumber, own_from: SequenceNumber) -> ObjectTotals {
    if slot.number < own_from {
        return ObjectTotals { shared_blocks: slot.live_blocks, ..ObjectTotals::default() };
    }
    let bytes = object_bytes(slot.format, slot.header_bytes, slot.payload_blocks);
    let waste_bytes = bytes.saturating_sub(slot.live_blocks * BLOCK_BYTES);
    ObjectTotals {
        objects: 1,
        object_bytes: bytes,
        payload_blocks: slot.payload_blocks,
        live_blocks: slot.live_blocks,
        dead_object_bytes: if slot.live_blocks == 0 { bytes } else { 0 },
        kept_waste_bytes: if is_kept(slot, kept_until) { waste_bytes } else { 0 },
        shared_blocks: 0,
    }
}

/// Below half of it live, what is moved is less than what will come back when the snapshots go that keep it.
fn is_kept(slot: &Slot, kept_until: SequenceNumber) -> bool {
    slot.number <= kept_until && slot.live_blocks > 0 && slot.live_blocks * 2 >= slot.payload_blocks
}

fn object_bytes(format: ObjectFormat, header_bytes: u64, payload_blocks: u64) -> u64 {
    let stored_block_bytes = match format {
        ObjectFormat::V1 => BLOCK_BYTES,
        ObjectFormat::V2 => FRAME_BYTES,
    };
    header_bytes + payload_blocks * stored_block_bytes
}

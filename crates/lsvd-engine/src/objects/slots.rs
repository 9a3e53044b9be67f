//! The slots of the object table, in pieces that a copy shares until they change: a checkpoint takes the table as it is in
//! no time, however many objects there are, and what changes behind it is copied piece by piece.
//!
//! Knows slots and who wrote what is in them; not what is alive, and no numbers.

use std::ops::Range;
use std::sync::Arc;

use lsvd_format::{Epoch, ObjectFormat, ObjectIdentity, SequenceNumber, VolumeId, WriterId};

use super::{ObjectIndex, ObjectRecord, ObjectState};

/// Slots of a piece: so few that copying one is a matter of a microsecond or two.
const PIECE: usize = 256;

/// What most objects share with others: who wrote them.
type Opening = (VolumeId, Epoch, WriterId);

/// A slot's content, small: there is one for each object of the bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) number: SequenceNumber,
    pub(super) died_at: SequenceNumber,
    pub(super) header_bytes: u64,
    pub(super) payload_blocks: u64,
    pub(super) live_blocks: u64,
    pub(super) opening: u32,
    pub(super) format: ObjectFormat,
}

/// All slots of an object table; a copy is as of when it was made.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    pieces: Vec<Arc<[Option<Slot>; PIECE]>>,
    len: usize,
    openings: Vec<Opening>,
}

impl Slots {
    /// How many there are, the free ones included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The objects in a range of slots, by slot; it may reach beyond the last.
    pub fn iter(&self, slots: Range<usize>) -> impl Iterator<Item = (ObjectIndex, ObjectState)> + '_ {
        let object = |at: usize| {
            let index = ObjectIndex(u32::try_from(at).expect("fewer than 2^32 objects"));
            self.get(index).map(|slot| (index, self.state(slot)))
        };
        (slots.start..slots.end.min(self.len)).filter_map(object)
    }

    pub(super) fn grow(&mut self, len: usize) {
        self.len = self.len.max(len);
        while self.pieces.len() * PIECE < self.len {
            self.pieces.push(Arc::new([None; PIECE]));
        }
    }

    pub(super) fn get(&self, index: ObjectIndex) -> Option<&Slot> {
        let at = index.0 as usize;
        self.pieces.get(at / PIECE)?[at % PIECE].as_ref()
    }

    /// A slot that there is.
    pub(super) fn get_mut(&mut self, index: ObjectIndex) -> &mut Option<Slot> {
        let at = index.0 as usize;
        &mut Arc::make_mut(&mut self.pieces[at / PIECE])[at % PIECE]
    }

    /// What the slot of an object holds.
    pub(super) fn slot_of(&mut self, state: ObjectState) -> Slot {
        let ObjectState { record, live_blocks, died_at } = state;
        let ObjectIdentity { volume, epoch, writer, number } = record.identity;
        let opening = (volume, epoch, writer);
        // The newest is the likeliest by far.
        let at = self.openings.iter().rposition(|known| *known == opening).unwrap_or_else(|| {
            self.openings.push(opening);
            self.openings.len() - 1
        });
        Slot {
            number,
            died_at: died_at.unwrap_or(SequenceNumber(u64::MAX)),
            header_bytes: record.header_bytes,
            payload_blocks: record.payload_blocks,
            live_blocks,
            opening: u32::try_from(at).expect("fewer than 2^32 openings"),
            format: record.format,
        }
    }

    /// The object that a slot holds.
    pub(super) fn state(&self, slot: &Slot) -> ObjectState {
        let (volume, epoch, writer) = self.openings[slot.opening as usize];
        let identity = ObjectIdentity { volume, epoch, writer, number: slot.number };
        let record = ObjectRecord {
            identity,
            format: slot.format,
            header_bytes: slot.header_bytes,
            payload_blocks: slot.payload_blocks,
        };
        let died_at = (slot.live_blocks == 0).then_some(slot.died_at);
        ObjectState { record, live_blocks: slot.live_blocks, died_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ObjectTable;

    /// A checkpoint's table is that of its beginning (rule 8), and only the pieces that change behind it are copied.
    #[test]
    fn a_copy_is_as_of_when_it_was_made() {
        let mut table = ObjectTable::default();
        let record = |number: u64| {
            let (volume, epoch, writer) = (VolumeId([1; 16]), Epoch(1), WriterId([2; 16]));
            let identity = ObjectIdentity { volume, epoch, writer, number: SequenceNumber(number) };
            ObjectRecord { identity, format: ObjectFormat::V2, header_bytes: 100, payload_blocks: 8 }
        };
        for number in 1..=1000 {
            let index = table.push(record(number));
            table.revive(index, 8);
        }
        let copy = table.slots().clone();
        let before: Vec<_> = copy.iter(0..usize::MAX).collect();
        let dead = table.find(SequenceNumber(7)).unwrap();
        table.kill(dead, 8, SequenceNumber(1001));
        table.forget(dead);
        assert_eq!(table.push(record(1002)), dead, "the slot is used again");
        for number in 1003..1500 {
            table.push(record(number));
        }
        assert_eq!(copy.iter(0..usize::MAX).collect::<Vec<_>>(), before);
        assert_eq!((copy.len(), table.slots().len()), (1000, 1000 + 1499 - 1002));
        let shared = copy.pieces.iter().zip(&table.slots().pieces).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared, 2, "of four, the first and the last have changed");
        assert_eq!(copy.iter(990..2000).count(), 10);
    }
}

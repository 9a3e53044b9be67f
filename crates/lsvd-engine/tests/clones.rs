//! A clone's map begins as its parent's was, and goes on by a log of its own: what is the parent's is neither space nor waste of
//! the clone's, and is moved for one purpose alone.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use lsvd_engine::{Config, Engine, ObjectTotals, Prefix, Purpose, Replay};
use lsvd_format::log_object::{Entry, Header, Source};
use lsvd_format::{
    BlockOrdinal, Epoch, Extent, JournalPosition, ObjectIdentity, SequenceNumber, VolumeId, WriterId,
};

const PARENT: VolumeId = VolumeId([7; 16]);
const CLONE: VolumeId = VolumeId([8; 16]);
const WINDOW: u64 = 8;
const SIZE_BYTES: u64 = 1 << 30;

fn header(volume: VolumeId, epoch: u64, number: u64, entries: Vec<Entry>) -> Header {
    let (epoch, number) = (Epoch(epoch), SequenceNumber(number));
    let identity = ObjectIdentity { volume, epoch, writer: WriterId([1; 16]), number };
    Header { identity, sealed_unix_ms: 0, journal: None::<JournalPosition>, entries }
}

fn data(start: u64, count: u64) -> Entry {
    Entry::Data { extent: Extent::new(start, count) }
}

fn moved(start: u64, count: u64, volume: VolumeId, number: u64, ordinal: u32) -> Entry {
    let source = Source { volume, number: SequenceNumber(number), ordinal: BlockOrdinal(ordinal) };
    Entry::Relocation { extent: Extent::new(start, count), source }
}

/// The parent at its object 5: a fence at 1, then 0..10 in object 9, of which 0..4 are overwritten by 10; 11 is dead.
fn parent() -> Prefix {
    let mut replay = Replay::new(PARENT, SIZE_BYTES, WINDOW, SequenceNumber(1));
    let next = SequenceNumber(1 + WINDOW);
    for header in [
        header(PARENT, 50, 1, vec![Entry::Fence { next }]),
        header(PARENT, 50, 9, vec![data(0, 10)]),
        header(PARENT, 50, 10, vec![data(0, 4)]),
        header(PARENT, 50, 11, vec![data(20, 1)]),
        header(PARENT, 50, 12, vec![Entry::Trim { extent: Extent::new(20, 1) }]),
    ] {
        replay.accept(&header).unwrap();
    }
    replay.finish()
}

/// A clone with these objects of its own, from number 13 on.
fn clone(headers: &[Header]) -> Prefix {
    let prefix = parent().cloned(SequenceNumber(13));
    let mut replay = Replay::from(CLONE, SIZE_BYTES, WINDOW, prefix);
    for header in headers {
        replay.accept(header).unwrap();
    }
    replay.finish()
}

fn live(prefix: &Prefix) -> Vec<(u64, u64)> {
    prefix.objects().iter().map(|(_, state)| (state.record.identity.number.0, state.live_blocks)).collect()
}

#[test]
fn what_is_live_is_taken_along_and_what_is_dead_is_not() {
    let prefix = clone(&[]);
    assert_eq!(live(&prefix), [(9, 6), (10, 4)]);
    assert_eq!((prefix.log().next, prefix.log().last), (SequenceNumber(13), None));
    assert!(prefix.log().skipped.is_empty(), "the parent's fences are not its own");
    let shared = ObjectTotals { shared_blocks: 10, ..ObjectTotals::default() };
    assert_eq!(prefix.objects().totals(), shared, "and takes no space");
    assert_eq!(shared.shown_bytes(), 10 * 4096);
}

/// Its epochs are its own, and may be below its parent's.
#[test]
fn a_clone_goes_on_with_epochs_and_numbers_of_its_own() {
    let prefix = clone(&[header(CLONE, 2, 13, vec![data(2, 4)]), header(CLONE, 2, 14, vec![data(100, 1)])]);
    assert_eq!(live(&prefix), [(9, 4), (10, 2), (13, 4), (14, 1)]);
    let totals = prefix.objects().totals();
    assert_eq!((totals.objects, totals.live_blocks, totals.shared_blocks), (2, 5, 6));
    assert!(totals.amplification() < 1.2, "what died of the parent's is no waste: {totals:?}");
    assert_eq!((prefix.objects().shared().count(), prefix.objects().own().count()), (2, 2));
}

/// Rule 6, across volumes: numbers alone do not name an object.
#[test]
fn a_move_applies_if_volume_and_number_are_the_sources() {
    let prefix = clone(&[header(CLONE, 2, 13, vec![moved(4, 6, PARENT, 9, 4)])]);
    assert_eq!(live(&prefix), [(9, 0), (10, 4), (13, 6)]);
    let prefix = clone(&[header(CLONE, 2, 13, vec![moved(4, 6, CLONE, 9, 4)])]);
    assert_eq!(live(&prefix), [(9, 6), (10, 4), (13, 0)]);
}

fn victims(prefix: Prefix, purpose: Purpose) -> Vec<u64> {
    let config = Config {
        volume: CLONE,
        epoch: Epoch(2),
        writer: WriterId([1; 16]),
        window: WINDOW,
        batch_bytes_max: 1 << 20,
        batch_age_max: Duration::from_secs(1),
        buffer_bytes_max: 4 << 20,
        map_bytes_max: 1 << 20,
        uploads_max: 4,
        flush_uploads_max: 2,
        journal: None,
    };
    let victims = Engine::new(config, prefix).victims(purpose, u64::MAX, usize::MAX);
    let mut numbers: Vec<u64> = victims.iter().map(|(_, state)| state.record.identity.number.0).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn parents_objects_are_moved_for_one_purpose_alone() {
    let prefix = || clone(&[header(CLONE, 2, 13, vec![data(2, 4)]), header(CLONE, 2, 14, vec![data(2, 3)])]);
    assert_eq!(victims(prefix(), Purpose::Space), [13]);
    assert_eq!(victims(prefix(), Purpose::Small { below_blocks: 100 }), [13, 14]);
    assert_eq!(victims(prefix(), Purpose::Shared), [9, 10]);
    assert_eq!(victims(parent(), Purpose::Shared), [] as [u64; 0]);
}

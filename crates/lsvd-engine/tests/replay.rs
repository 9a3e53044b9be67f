//! Replay: what it takes in, what it refuses, and that a refusal changes nothing.

#![allow(clippy::unwrap_used)]

use lsvd_engine::{Location, Mapping, ObjectIndex, Replay};
use lsvd_format::log_object::{Entry, Header, Source};
use lsvd_format::{
    BLOCK_BYTES, BlockIndex, BlockOrdinal, Epoch, Extent, ObjectIdentity, SequenceNumber, VolumeId, WriterId,
};

const VOLUME: VolumeId = VolumeId([7; 16]);
const BLOCKS: u64 = 100;
const WINDOW: u64 = 16;

fn replay() -> Replay {
    Replay::new(VOLUME, BLOCKS * BLOCK_BYTES, WINDOW, SequenceNumber(5))
}

fn header(number: u64, epoch: u64, entries: Vec<Entry>) -> Header {
    let (volume, writer) = (VOLUME, WriterId([u8::try_from(epoch).unwrap(); 16]));
    let identity = ObjectIdentity { volume, epoch: Epoch(epoch), writer, number: SequenceNumber(number) };
    Header { identity, sealed_unix_ms: 0, journal: None, entries }
}

fn data(start: u64, count: u64) -> Entry {
    Entry::Data { extent: Extent::new(start, count) }
}

fn fence(next: u64) -> Entry {
    Entry::Fence { next: SequenceNumber(next) }
}

fn stored(object: u32, ordinal: u32) -> Option<Mapping> {
    Some(Mapping::Stored(Location { object: ObjectIndex(object), ordinal: BlockOrdinal(ordinal) }))
}

/// Rules 3 and 4: what breaks the log is refused with a reason, nothing of it is applied, and the right object can still
/// be taken in.
#[test]
fn what_breaks_the_log_is_refused_and_changes_nothing() {
    let relocation = |extent| {
        let source = Source { volume: VOLUME, number: SequenceNumber(5), ordinal: BlockOrdinal(0) };
        Entry::Relocation { extent, source }
    };
    let mut of_another_volume = header(6, 3, vec![data(0, 1)]);
    of_another_volume.identity.volume = VolumeId([8; 16]);
    let mut of_another_writer = header(6, 3, vec![data(0, 1)]);
    of_another_writer.identity.writer = WriterId([9; 16]);
    let refused = [
        ("of another volume", of_another_volume),
        ("not the one that epoch 3 belongs to", of_another_writer),
        ("number 5", header(5, 3, vec![data(0, 1)])),
        ("number 7", header(7, 3, vec![data(0, 1)])),
        ("number 22", header(22, 4, vec![data(0, 1)])),
        ("epoch 2 is below epoch 3", header(6, 2, vec![data(0, 1)])),
        ("epoch 2 is below epoch 3", header(6, 2, vec![fence(6 + WINDOW)])),
        ("window of 16", header(6, 4, vec![fence(7)])),
        ("window of 16", header(6, 4, vec![fence(6 + WINDOW + 1)])),
        ("block 101 of a volume of 100", header(6, 3, vec![data(100, 1)])),
        (
            "block 101 of a volume of 100",
            header(6, 3, vec![data(0, 2), Entry::Zero { extent: Extent::new(99, 2) }]),
        ),
        ("block 101 of a volume of 100", header(6, 3, vec![Entry::Trim { extent: Extent::new(0, 101) }])),
        ("block 101 of a volume of 100", header(6, 3, vec![relocation(Extent::new(100, 1))])),
    ];
    for (words, refused) in refused {
        let mut replay = replay();
        replay.accept(&header(5, 3, vec![data(10, 5)])).unwrap();
        let error = replay.accept(&refused).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(replay.next_number(), SequenceNumber(6));
        assert_eq!(replay.last(), Some((SequenceNumber(5), Epoch(3))));
        assert_eq!(replay.objects_processed(), 1);
        assert!(!replay.skips(SequenceNumber(7)));
        replay.accept(&header(6, 3, vec![data(0, 1)])).expect("the right one is taken");
        let prefix = replay.finish();
        let (map, next) = (prefix.map(), prefix.log().next);
        assert_eq!((map.extents(), next), (2, SequenceNumber(7)), "after {words}");
        assert_eq!(map.get(BlockIndex(10)), stored(0, 0));
    }
}

/// Epochs rise or stay; only a fence skips numbers, and exactly those of its window.
#[test]
fn only_a_fence_skips_numbers() {
    let mut replay = replay();
    for (number, epoch) in [(5, 1), (6, 1), (7, 4)] {
        replay.accept(&header(number, epoch, vec![data(0, 1)])).unwrap();
    }
    replay.accept(&header(8, 5, vec![fence(8 + WINDOW)])).unwrap();
    assert_eq!(replay.next_number(), SequenceNumber(24));
    let skipped: Vec<u64> = (1..40).filter(|number| replay.skips(SequenceNumber(*number))).collect();
    assert_eq!(skipped, (9..24).collect::<Vec<_>>());
    assert!(replay.accept(&header(9, 5, vec![data(0, 1)])).is_err(), "a straggler can not rejoin (rule 3)");
    // A second opening that wrote nothing in between: fence upon fence.
    replay.accept(&header(24, 6, vec![fence(24 + WINDOW)])).unwrap();
    assert_eq!(replay.next_number(), SequenceNumber(40));
    assert_eq!(replay.objects_processed(), 5);
    assert!(
        replay.skips(SequenceNumber(9))
            && replay.skips(SequenceNumber(39))
            && !replay.skips(SequenceNumber(24))
    );
}

/// The newest object wins, also inside one object, and an empty object takes its number only.
#[test]
fn the_newest_wins() {
    let mut replay = replay();
    replay.accept(&header(5, 1, vec![data(0, 10)])).unwrap();
    replay.accept(&header(6, 1, Vec::new())).unwrap();
    let entries = vec![
        data(4, 2),
        Entry::Zero { extent: Extent::new(5, 2) },
        Entry::Trim { extent: Extent::new(6, 1) },
        data(5, 1),
    ];
    replay.accept(&header(7, 1, entries)).unwrap();
    let prefix = replay.finish();
    let (map, next) = (prefix.map(), prefix.log().next);
    assert_eq!(next, SequenceNumber(8));
    assert_eq!(map.get(BlockIndex(3)), stored(0, 3));
    assert_eq!(map.get(BlockIndex(4)), stored(2, 0));
    assert_eq!(
        map.get(BlockIndex(5)),
        stored(2, 2),
        "ordinals count the payload, not the blocks that survive"
    );
    assert_eq!(map.get(BlockIndex(6)), None);
    assert_eq!(map.get(BlockIndex(7)), stored(0, 7));
}

/// Rule 6: a relocation moves the blocks that the map still has at its source, block by block, and no others.
#[test]
fn a_relocation_moves_only_what_is_still_at_its_source() {
    let mut replay = replay();
    replay.accept(&header(5, 1, vec![data(0, 10)])).unwrap();
    replay.accept(&header(6, 1, vec![data(2, 1), Entry::Trim { extent: Extent::new(3, 1) }])).unwrap();
    let source = Source { volume: VOLUME, number: SequenceNumber(5), ordinal: BlockOrdinal(0) };
    let elsewhere = Source { ordinal: BlockOrdinal(1), ..source };
    let foreign = Source { volume: VolumeId([9; 16]), ..source };
    let unknown = Source { number: SequenceNumber(1), ..source };
    let entries = vec![
        Entry::Relocation { extent: Extent::new(0, 6), source },
        Entry::Relocation { extent: Extent::new(6, 1), source: elsewhere },
        Entry::Relocation {
            extent: Extent::new(7, 1),
            source: Source { ordinal: BlockOrdinal(7), ..foreign },
        },
        Entry::Relocation {
            extent: Extent::new(8, 1),
            source: Source { ordinal: BlockOrdinal(8), ..unknown },
        },
        Entry::Relocation {
            extent: Extent::new(9, 1),
            source: Source { ordinal: BlockOrdinal(u32::MAX), ..source },
        },
    ];
    replay.accept(&header(7, 1, entries)).unwrap();
    let prefix = replay.finish();
    let map = prefix.map();
    for (block, expected) in
        [(0, stored(2, 0)), (1, stored(2, 1)), (2, stored(1, 0)), (3, None), (4, stored(2, 4))]
    {
        assert_eq!(map.get(BlockIndex(block)), expected, "block {block}");
    }
    for block in 6..10 {
        assert_eq!(map.get(BlockIndex(block)), stored(0, u32::try_from(block).unwrap()), "block {block}");
    }
}

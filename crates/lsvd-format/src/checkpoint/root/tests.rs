//! The root's bytes: round trips, every kind of damage, what is newer, what can not be.

use std::panic::catch_unwind;

use proptest::prelude::*;

use super::bytes::bytes_of;
use super::*;
use crate::{DecodeError, WriterId};

const VOLUME: VolumeId = VolumeId([0x11; 16]);

fn part(as_of: u64, epoch: u64, serial: u32) -> PartId {
    PartId { as_of: SequenceNumber(as_of), epoch: Epoch(epoch), serial }
}

fn object(slot: u32, number: u64, epoch: u64, payload_blocks: u64, live_blocks: u64) -> RootObject {
    let writer = WriterId([u8::try_from(epoch).unwrap(); 16]);
    RootObject {
        slot: Slot(slot),
        identity: ObjectIdentity {
            volume: VOLUME,
            epoch: Epoch(epoch),
            writer,
            number: SequenceNumber(number),
        },
        format: ObjectFormat::V2,
        header_bytes: 192 + 16 * payload_blocks,
        payload_blocks,
        live_blocks,
        died_at: (live_blocks == 0).then_some(SequenceNumber(number + 1)),
        object_bytes: 192 + 16 * payload_blocks + 4104 * payload_blocks,
    }
}

fn place(region: u32, part: u32, offset_bytes: u64, length_bytes: u32) -> RegionPlace {
    RegionPlace { region: RegionIndex(region), part, offset_bytes, length_bytes }
}

/// A volume that was adopted: two objects of format 1, the fences of three openings, and what they wrote.
fn example() -> Root {
    let seed = RootObject {
        identity: ObjectIdentity { writer: WriterId([0; 16]), ..object(0, 0, 0, 9, 0).identity },
        format: ObjectFormat::V1,
        header_bytes: v1::HEADER_BYTES,
        object_bytes: v1::HEADER_BYTES + 9 * 4096,
        ..object(0, 0, 0, 9, 4)
    };
    let (own, journal) = (part(300, 4, 1), JournalId([0xcc; 16]));
    Root {
        volume: VOLUME,
        parents: Vec::new(),
        stamp: CheckpointStamp { as_of: own.as_of, epoch: Epoch(3), writer: WriterId([3; 16]) },
        part: own,
        volume_blocks: 5 * 16_384 - 1,
        next_number: SequenceNumber(301),
        last_data: Some(LastDataRecord {
            epoch: Epoch(3),
            sealed_unix_ms: 1_700_000_000_000,
            journal: Some(JournalPosition { journal, record: 12 }),
        }),
        journals: vec![
            ContainedRecord { journal, epoch: Epoch(2), record: 7 },
            ContainedRecord { journal, epoch: Epoch(3), record: 12 },
        ],
        skipped: vec![
            SkippedRange { fence: SequenceNumber(2), next: SequenceNumber(66) },
            SkippedRange { fence: SequenceNumber(66), next: SequenceNumber(130) },
        ],
        last_format: Some(ObjectFormat::V2),
        objects: vec![seed, object(1, 300, 3, 2048, 2048), object(4, 130, 2, 1, 0), object(9, 299, 3, 70, 1)],
        parts: vec![
            RootPart { part: part(130, 2, 0), object_bytes: 5000 },
            RootPart { part: own, object_bytes: 4096 },
        ],
        regions: vec![place(0, 1, 96, 40), place(1, 0, 4000, 1000), place(2, 0, 96, 4), place(4, 1, 136, 9)],
    }
}

fn encoded(root: &Root) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_root(root, &mut bytes);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Root, DecodeError> {
    decode_root(VOLUME, example().part, bytes)
}

#[test]
fn a_root_reads_back() {
    assert_eq!(decode(&encoded(&example())), Ok(example()));
}

/// These bytes as a root of the right length behind a sound checksum.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let root_bytes = bytes.len() as u64;
    bytes[24..32].copy_from_slice(&root_bytes.to_le_bytes());
    let checksum = crc32c::crc32c_append(example().part.seed(VOLUME), &bytes[16..]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// A root whose head is sound, and what follows it these bytes.
fn with_body(body: &[u8]) -> Vec<u8> {
    sealed([&encoded(&example())[..32], body].concat())
}

#[test]
fn the_smallest_root_reads_back() {
    let (part, writer) = (part(1, 1, 0), WriterId([1; 16]));
    let root = Root {
        stamp: CheckpointStamp { as_of: part.as_of, epoch: Epoch(1), writer },
        part,
        next_number: SequenceNumber(5),
        last_data: None,
        journals: Vec::new(),
        skipped: vec![SkippedRange { fence: SequenceNumber(1), next: SequenceNumber(5) }],
        last_format: None,
        objects: Vec::new(),
        parts: Vec::new(),
        regions: Vec::new(),
        ..example()
    };
    assert_eq!(decode_root(VOLUME, part, &encoded(&root)), Ok(root));
}

/// The part that holds the root may be named in it: its length can be put in when that of the root is known.
#[test]
fn a_roots_length_does_not_depend_on_its_parts_lengths() {
    let mut root = example();
    let length = encoded(&root).len();
    root.parts[1].object_bytes = 1 << 39;
    assert_eq!(encoded(&root).len(), length);
}

/// RFC 5: an index of some ten bytes for each region, and as much for an object.
#[test]
fn an_entry_takes_few_bytes() {
    let mut root = example();
    let before = encoded(&root).len();
    root.parts[1].object_bytes = 1 << 39;
    root.volume_blocks = 1 << 28;
    let regions = 16_384 - 5;
    root.regions
        .extend((0..regions).map(|index| place(5 + index, 1, 200 + u64::from(index) * 110_000, 110_000)));
    let after = encoded(&root).len();
    assert!(after - before < 8 * regions as usize, "{} bytes for {regions} regions", after - before);
    root = example();
    let objects = 100;
    root.objects.extend((0..objects).map(|index| object(10 + index, 131 + u64::from(index), 2, 2048, 1234)));
    let after = encoded(&root).len();
    assert!(after - before < 10 * objects as usize, "{} bytes for {objects} objects", after - before);
}

/// Rule 5: no root with a wrong bit is used.
#[test]
fn every_bit_flip_is_noticed() {
    let sound = encoded(&example());
    for bit in 0..sound.len() * 8 {
        let mut damaged = sound.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&damaged).is_err(), "bit {bit}");
    }
}

/// Rule 5: the length is checked.
#[test]
fn every_other_length_is_noticed() {
    let sound = encoded(&example());
    for length in 0..sound.len() {
        let need_bytes = if length < 32 { 32 } else { sound.len() as u64 };
        let short = DecodeError::Short { have_bytes: length as u64, need_bytes };
        assert_eq!(decode(&sound[..length]), Err(short));
    }
    let error = decode(&[&sound[..], &[0]].concat()).unwrap_err();
    assert!(error.to_string().contains("1 bytes too many"), "{error}");
    // Behind a sound checksum, too.
    for length in 32..sound.len() {
        let error = decode(&with_body(&sound[32..length])).unwrap_err();
        assert!(matches!(error, DecodeError::Corrupt { .. }), "{length}: {error}");
    }
    let error = decode(&with_body(&[&sound[32..], &[0]].concat())).unwrap_err();
    assert!(error.to_string().contains("goes on"), "{error}");
}

/// Rule 5: identity is checked: what is sound elsewhere is not taken here.
#[test]
fn another_parts_root_does_not_verify() {
    let bytes = encoded(&example());
    assert!(decode_root(VolumeId([0x12; 16]), example().part, &bytes).is_err());
    for part in [part(301, 4, 1), part(300, 5, 1), part(300, 4, 2)] {
        assert!(decode_root(VOLUME, part, &bytes).is_err(), "{part}");
    }
    let mut magic = bytes.clone();
    magic[..12].copy_from_slice(b"lsvd-part-1\n");
    assert!(decode(&magic).unwrap_err().to_string().contains("magic is missing"));
}

#[test]
fn what_a_later_version_may_mean_is_newer() {
    for offset in [16, 17, 18, 19, 20, 23] {
        let mut bytes = encoded(&example());
        bytes[offset] = 9;
        assert!(matches!(decode(&sealed(bytes)), Err(DecodeError::Newer { .. })), "{offset}");
    }
}

/// The same volume as a clone of one that is a clone itself: the objects up to 129 are the farther one's, those up to 200 the
/// nearer one's.
fn clone() -> Root {
    let of = |volume, object: RootObject| RootObject {
        identity: ObjectIdentity { volume, ..object.identity },
        ..object
    };
    let (far, near) = (VolumeId([0x22; 16]), VolumeId([0x33; 16]));
    let mut root = example();
    root.parents = vec![
        RootParent { volume: far, until: SequenceNumber(129) },
        RootParent { volume: near, until: SequenceNumber(200) },
    ];
    root.objects = vec![
        of(far, root.objects[0]),
        root.objects[1],
        // Epochs of other volumes: above the own ones, and falling from one volume to the next.
        of(near, object(4, 130, 77, 1, 0)),
        of(near, object(5, 131, 78, 5, 4)),
        of(far, object(6, 129, 200, 7, 7)),
        root.objects[3],
    ];
    root.skipped = Vec::new();
    root.parts[0].part = part(129, 201, 0);
    root.parts.push(RootPart { part: part(200, 90, 5), object_bytes: 4096 });
    root
}

#[test]
fn a_clones_root_reads_back_and_numbers_say_whose_what_is() {
    let root = clone();
    assert_eq!(decode(&encoded(&root)), Ok(root.clone()));
    let of = |number| root.volume_of(SequenceNumber(number));
    assert_eq!([of(0), of(129)], [VolumeId([0x22; 16]); 2]);
    assert_eq!([of(130), of(200)], [VolumeId([0x33; 16]); 2]);
    assert_eq!([of(201), of(1 << 40)], [VOLUME; 2]);
    assert_eq!((root.own_from(), example().own_from()), (SequenceNumber(201), SequenceNumber(0)));
}

#[test]
fn a_clones_root_that_mixes_volumes_up_is_refused() {
    let changes: &[(&str, Change)] = &[
        ("another volume", |root| root.objects[2].identity.volume = VOLUME),
        ("another volume", |root| root.objects[2].identity.volume = VolumeId([0x22; 16])),
        ("another volume", |root| root.objects[1].identity.volume = VolumeId([0x33; 16])),
        ("order of their numbers", |root| root.parents.reverse()),
        ("order of their numbers", |root| root.parents[0].until = SequenceNumber(200)),
        ("named twice", |root| root.parents[0].volume = VOLUME),
        ("named twice", |root| root.parents[0].volume = VolumeId([0x33; 16])),
        ("a parent up to 300", |root| root.parents[1].until = SequenceNumber(300)),
        ("newer than the root", |root| root.parts[2].part = part(201, 90, 5)),
        ("follows epoch 77", |root| {
            root.objects[2].payload_blocks = 1;
            root.objects[3].identity.epoch = Epoch(76);
        }),
    ];
    for (word, change) in changes {
        let mut root = clone();
        change(&mut root);
        let reason = root.check().unwrap_err();
        assert!(reason.contains(word), "{reason:?} instead of {word:?}");
    }
}

/// As for other roots: no bytes mean two things.
#[test]
fn a_changed_byte_of_a_clones_root_is_refused_or_another_root() {
    let sound = encoded(&clone()).split_off(32);
    for at in 0..sound.len() {
        for change in 1..=255 {
            let mut body = sound.clone();
            body[at] ^= change;
            let bytes = with_body(&body);
            if let Ok(root) = decode(&bytes) {
                assert_ne!(root, clone());
                assert_eq!(encoded(&root), bytes, "byte {at}");
            }
        }
    }
}

/// Nothing is allocated for entries that can not be there.
#[test]
fn counts_are_held_against_the_bytes() {
    let sound = encoded(&example());
    let mut refused = 0;
    for at in 32..sound.len() {
        let huge = [&sound[32..at], &[0xff; 8], &[0x7f], &sound[at + 1..]].concat();
        // Some are a number that may be huge, such as a time.
        let Err(error) = decode(&with_body(&huge)) else { continue };
        refused += usize::from(error.to_string().contains("more than the bytes can hold"));
    }
    assert!(refused >= 7, "seven tables, {refused} refused");
}

/// What is stored is what was meant, or an error: no two roots have the same bytes, and no root has two encodings.
#[test]
fn a_changed_byte_behind_a_sound_checksum_is_refused_or_another_root() {
    let sound = encoded(&example()).split_off(32);
    let mut others = 0;
    for at in 0..sound.len() {
        for change in 1..=255 {
            let mut body = sound.clone();
            body[at] ^= change;
            let bytes = with_body(&body);
            if let Ok(root) = decode(&bytes) {
                assert_ne!(root, example());
                assert_eq!(encoded(&root), bytes, "byte {at}");
                others += 1;
            }
        }
    }
    assert!(others > 0, "a time may be any");
}

type Change = fn(&mut Root);

/// What breaks an invariant, and a word of what is said then.
const IMPOSSIBLE: &[(&str, Change)] = &[
    ("out of range", |root| {
        root.part.as_of = SequenceNumber(0);
        root.stamp.as_of = SequenceNumber(0);
    }),
    ("epoch 9223372036854775808", |root| root.part.epoch = Epoch(1 << 63)),
    ("in a part of a checkpoint as of 300", |root| root.stamp.as_of = SequenceNumber(299)),
    ("epoch 0 of object 300", |root| root.stamp.epoch = Epoch(0)),
    ("epoch 5 of object 300", |root| root.stamp.epoch = Epoch(5)),
    ("0 blocks", |root| root.volume_blocks = 0),
    ("a volume of", |root| root.volume_blocks = (1 << 44) + 1),
    ("number 300 as the next", |root| root.next_number = SequenceNumber(300)),
    ("number 302 as the next", |root| root.next_number = SequenceNumber(302)),
    ("number 301 as the next", |root| {
        root.skipped.push(SkippedRange { fence: SequenceNumber(300), next: SequenceNumber(364) });
    }),
    ("number 301 as the next", |root| root.skipped[1].next = SequenceNumber(302)),
    ("number 9223372036854775808 as the next", |root| {
        (root.part.as_of, root.stamp.as_of) = (SequenceNumber(NUMBER_MAX), SequenceNumber(NUMBER_MAX));
        root.next_number = SequenceNumber(NUMBER_MAX + 1);
        root.objects.clear();
    }),
    ("fence 65 names", |root| root.skipped[1].fence = SequenceNumber(65)),
    ("fence 2 names 2", |root| root.skipped[0].next = SequenceNumber(2)),
    ("fence 301 names", |root| {
        root.skipped.push(SkippedRange { fence: SequenceNumber(301), next: SequenceNumber(364) });
    }),
    ("fence 66 has 1 blocks", |root| root.objects[2].identity.number = SequenceNumber(66)),
    ("object 130 is skipped by fence 66", |root| {
        root.skipped[1].next = SequenceNumber(131);
    }),
    ("the last data", |root| root.last_data.as_mut().unwrap().epoch = Epoch(4)),
    ("the last data", |root| {
        let none = JournalPosition { journal: JournalId([0; 16]), record: 0 };
        root.last_data.as_mut().unwrap().journal = Some(none);
    }),
    ("journals are not in order", |root| root.journals.reverse()),
    ("journals are not in order", |root| root.journals[1] = root.journals[0]),
    ("in epoch 4", |root| root.journals[1].epoch = Epoch(4)),
    ("journal 00000000", |root| root.journals[0].journal = JournalId([0; 16])),
    ("the order of their slots", |root| root.objects.reverse()),
    ("the order of their slots", |root| root.objects[1].slot = Slot(0)),
    ("another volume", |root| root.objects[1].identity.volume = VolumeId([9; 16])),
    ("object 301 of epoch 3", |root| root.objects[3].identity.number = SequenceNumber(301)),
    ("object 299 of epoch 4", |root| root.objects[3].identity.epoch = Epoch(4)),
    ("object 0 of epoch 3", |root| root.objects[3].identity.number = SequenceNumber(0)),
    ("object 299 of epoch 0", |root| root.objects[3].identity.epoch = Epoch(0)),
    ("not the one that the checkpoint is as of", |root| root.objects[1].identity.writer = WriterId([9; 16])),
    ("object 130 is named twice", |root| root.objects[3].identity.number = SequenceNumber(130)),
    ("follows epoch 3", |root| root.objects[3].identity.writer = WriterId([9; 16])),
    ("follows epoch 3", |root| {
        root.objects[2].identity = ObjectIdentity { number: SequenceNumber(130), ..root.objects[3].identity };
        root.objects[3].identity =
            ObjectIdentity { number: SequenceNumber(299), ..object(9, 0, 2, 0, 0).identity };
    }),
    ("behind format 2", |root| {
        root.objects[3].format = ObjectFormat::V1;
        root.objects[3].header_bytes = v1::HEADER_BYTES;
        root.objects[3].object_bytes = v1::HEADER_BYTES + 70 * 4096;
    }),
    ("a header of 12304 bytes", |root| root.objects[0].header_bytes += 16),
    ("a header of 176 bytes", |root| root.objects[2].header_bytes = 176),
    ("a header of 200 bytes", |root| root.objects[2].header_bytes = 200),
    ("a header of", |root| root.objects[2].header_bytes = HEADER_BYTES_MAX + 16),
    ("4294967296 blocks", |root| root.objects[1].payload_blocks = 1 << 32),
    ("object 130 has 4311 bytes", |root| root.objects[2].object_bytes -= 1),
    ("71 live blocks of 70", |root| root.objects[3].live_blocks = 71),
    ("object 299 has 0 live blocks", |root| root.objects[3].live_blocks = 0),
    ("object 299 has 1 live blocks", |root| root.objects[3].died_at = Some(SequenceNumber(300))),
    ("object 130 died at", |root| root.objects[2].died_at = Some(SequenceNumber(129))),
    ("object 130 died at", |root| root.objects[2].died_at = Some(SequenceNumber(301))),
    ("out of range", |root| root.parts[0].part.as_of = SequenceNumber(0)),
    ("newer than the root", |root| root.parts[0].part.as_of = SequenceNumber(301)),
    ("newer than the root", |root| root.parts[0].part.epoch = Epoch(5)),
    ("has 95 bytes", |root| root.parts[0].object_bytes = 95),
    ("has 1099511627777 bytes", |root| root.parts[0].object_bytes = PART_BYTES_MAX + 1),
    ("named twice", |root| root.parts[0].part = root.parts[1].part),
    ("regions are not in order", |root| root.regions.reverse()),
    ("regions are not in order", |root| root.regions[1].region = RegionIndex(0)),
    ("region 5 lies beyond", |root| root.regions[3].region = RegionIndex(5)),
    ("part 2 of 2", |root| root.regions[3].part = 2),
    ("4000 in a part of 5000", |root| root.regions[1].length_bytes = 1001),
    ("in a part of 5000", |root| root.regions[1].offset_bytes = 1 << 40),
    ("from 95", |root| root.regions[2].offset_bytes = 95),
    ("has 3 bytes", |root| root.regions[2].length_bytes = 3),
    ("has 196613 bytes", |root| {
        root.parts[1].object_bytes = PART_BYTES_MAX;
        root.regions[3].length_bytes = 196_613;
    }),
];

#[test]
fn impossible_values_are_neither_written_nor_read() {
    let mut read = 0;
    for (words, change) in IMPOSSIBLE {
        let mut root = example();
        change(&mut root);
        let reason = root.check().expect_err(words);
        assert!(reason.contains(words), "{words}: {reason}");
        assert!(catch_unwind(|| encoded(&root)).is_err(), "{words}");
        // Where there are bytes that would say so at all.
        if let Ok(bytes) = catch_unwind(|| bytes_of(&root)) {
            let decoded = decode_root(root.volume, root.part, &bytes);
            read += usize::from(decoded.is_err());
            assert_ne!(decoded, Ok(root), "{words}");
        }
    }
    assert!(read > 25, "{read} were tried");
}

/// Any log of a few openings, with any of its objects in any slots, and regions anywhere.
fn any_root() -> impl Strategy<Value = Root> {
    let objects = prop::collection::vec(
        (
            prop_oneof![9 => Just(0), 1 => 1..4u64],
            1..1000u64,
            0..196_605u64,
            any::<u32>(),
            0..3u64,
            any::<u32>(),
        ),
        0..60,
    );
    let parts = prop::collection::btree_map((0..9u64, 0..2u64, 0..3u32), 200_000..PART_BYTES_MAX, 1..5);
    let regions =
        prop::collection::vec((1..3000u32, any::<prop::sample::Index>(), any::<u64>(), 4..196_613u32), 0..60);
    let journals = prop::collection::btree_map((1..=255u8, 0..3u64), any::<u64>(), 0..4);
    let last = prop::option::of((any::<u64>(), prop::option::of((1..=255u8, any::<u64>()))));
    let numbers = (1..=NUMBER_MAX - (1 << 40), 3..1000u64, 1..100u64, any::<[u8; 16]>());
    (numbers, objects, parts, regions, (journals, last)).prop_map(
        |((first, first_epoch, behind, volume), objects, parts, regions, (journals, last))| {
            let writer = |epoch: u64| WriterId(std::array::from_fn(|index| epoch.to_le_bytes()[index % 8]));
            let (volume, mut number, mut epoch) = (VolumeId(volume), first, first_epoch);
            let (mut skipped, mut table) = (Vec::new(), Vec::new());
            for (rise, gap, entries, payload_blocks, live, slot) in objects {
                number += gap;
                if rise > 0 {
                    epoch += rise;
                    let next = SequenceNumber(number + 64);
                    skipped.push(SkippedRange { fence: SequenceNumber(number), next });
                    number = next.0;
                }
                let live_blocks = u64::from(payload_blocks) * live / 2;
                let header_bytes = HEADER_FIXED_BYTES + 16 * entries;
                table.push(RootObject {
                    slot: Slot(slot),
                    identity: ObjectIdentity {
                        volume,
                        epoch: Epoch(epoch),
                        writer: writer(epoch),
                        number: SequenceNumber(number),
                    },
                    format: ObjectFormat::V2,
                    header_bytes,
                    payload_blocks: payload_blocks.into(),
                    live_blocks,
                    died_at: (live_blocks == 0).then_some(SequenceNumber(number)),
                    object_bytes: object_bytes(ObjectFormat::V2, header_bytes, payload_blocks.into()),
                });
            }
            table.sort_by_key(|object| object.slot);
            table.dedup_by_key(|object| object.slot);
            let as_of = SequenceNumber(number + behind);
            let part = PartId { as_of, epoch: Epoch(epoch + 1), serial: 7 };
            let parts: Vec<_> = parts
                .into_iter()
                .map(|((fall, epoch_fall, serial), object_bytes)| {
                    let as_of = SequenceNumber(as_of.0 - fall.min(as_of.0 - 1));
                    let part = PartId { as_of, epoch: Epoch(epoch - epoch_fall), serial };
                    RootPart { part, object_bytes }
                })
                .collect();
            let mut region = 0;
            let regions = regions
                .into_iter()
                .map(|(gap, index, offset, length_bytes)| {
                    region += gap;
                    let part = index.index(parts.len());
                    let room = parts[part].object_bytes - 96 - u64::from(length_bytes);
                    place(region, part as u32, 96 + offset % (room + 1), length_bytes)
                })
                .collect();
            let position = |(journal, record)| JournalPosition { journal: JournalId([journal; 16]), record };
            Root {
                volume,
                parents: Vec::new(),
                stamp: CheckpointStamp { as_of, epoch: Epoch(epoch), writer: writer(epoch) },
                part,
                volume_blocks: 1 << 32,
                next_number: as_of.next(),
                last_data: last.map(|(sealed_unix_ms, journal)| LastDataRecord {
                    epoch: Epoch(epoch),
                    sealed_unix_ms,
                    journal: journal.map(position),
                }),
                journals: journals
                    .into_iter()
                    .map(|((journal, epoch), record)| ContainedRecord {
                        journal: JournalId([journal; 16]),
                        epoch: Epoch(epoch),
                        record,
                    })
                    .collect(),
                skipped,
                last_format: Some(ObjectFormat::V2),
                objects: table,
                parts,
                regions,
            }
        },
    )
}

proptest! {
    #[test]
    fn any_root_reads_back(root in any_root()) {
        prop_assert_eq!(decode_root(root.volume, root.part, &encoded(&root)), Ok(root));
    }

    #[test]
    fn a_damaged_byte_is_noticed(root in any_root(), at: prop::sample::Index, change in 1..=255u8) {
        let mut bytes = encoded(&root);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(decode_root(root.volume, root.part, &bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>, as_of: u64, epoch: u64) {
        let _ = decode(&bytes);
        let _ = decode(&with_body(&bytes));
        let _ = decode_root(VOLUME, part(as_of, epoch, 0), &bytes);
    }
}

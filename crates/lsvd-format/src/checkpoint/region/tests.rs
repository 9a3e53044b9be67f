//! A region's bytes: round trips, every kind of damage, other regions, what can not be.

use proptest::prelude::*;

use super::*;
use crate::{Epoch, SequenceNumber};

const VOLUME: VolumeId = VolumeId([0x11; 16]);
const PART: PartId = PartId { as_of: SequenceNumber(70), epoch: Epoch(2), serial: 3 };
const REGION: RegionIndex = RegionIndex(5);
const START: u64 = 5 * REGION_BLOCKS;

fn stored(start: u64, count: u64, slot: u32, ordinal: u32) -> RegionRun {
    let content = RunContent::Stored { slot: Slot(slot), ordinal: BlockOrdinal(ordinal) };
    RegionRun { extent: Extent::new(START + start, count), content }
}

fn zero(start: u64, count: u64) -> RegionRun {
    RegionRun { extent: Extent::new(START + start, count), content: RunContent::Zero }
}

fn example() -> Vec<RegionRun> {
    vec![
        stored(0, 1, 0, 0),
        zero(1, 300),
        stored(400, 8, u32::MAX, 70_000),
        lost(500, 1000),
        stored(16_383, 1, 7, u32::MAX - 1),
    ]
}

fn lost(start: u64, count: u64) -> RegionRun {
    RegionRun { extent: Extent::new(START + start, count), content: RunContent::Lost }
}

fn encoded(runs: &[RegionRun]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_region(VOLUME, PART, REGION, runs.iter().copied(), &mut bytes);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Vec<RegionRun>, DecodeError> {
    decode_region(VOLUME, PART, REGION, bytes)
}

/// These runs' bytes behind a sound checksum.
fn sealed(runs: &[u8]) -> Vec<u8> {
    let checksum = checksum(VOLUME, PART, REGION, runs);
    [&checksum.to_le_bytes(), runs].concat()
}

#[test]
fn a_region_reads_back() {
    let bytes = encoded(&example());
    assert_eq!(decode(&bytes), Ok(example()));
    assert_eq!(bytes[4..9], [0, 1, 1, 0, 0], "a run of one block takes four bytes, and the next follows");
    assert_eq!(decode(&encoded(&[])), Ok(Vec::new()));
    assert_eq!(encoded(&[]).len() as u64, REGION_BYTES_MIN);
    let mut behind = vec![7; 100];
    encode_region(VOLUME, PART, REGION, example(), &mut behind);
    assert_eq!((&behind[..100], &behind[100..]), (&[7; 100][..], &bytes[..]));
}

#[test]
fn the_longest_region_is_known() {
    let content = RunContent::Stored { slot: Slot(u32::MAX), ordinal: BlockOrdinal(u32::MAX - 1) };
    let runs: Vec<_> = (START..START + REGION_BLOCKS)
        .map(|block| RegionRun { extent: Extent::new(block, 1), content })
        .collect();
    assert_eq!(encoded(&runs).len() as u64, REGION_BYTES_MAX);
    assert_eq!(decode(&encoded(&runs)), Ok(runs));
}

/// Rule 5: no run with a wrong bit is used.
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
        assert!(decode(&sound[..length]).is_err(), "{length}");
    }
    assert_eq!(decode(&sound[..3]), Err(DecodeError::Short { have_bytes: 3, need_bytes: 4 }));
    assert!(decode(&[&sound[..], &[0]].concat()).is_err());
    // Behind a sound checksum, too: the last run may not be half there.
    for length in 4..sound.len() {
        if let Ok(runs) = decode(&sealed(&sound[4..length])) {
            assert!(runs.len() < example().len() && encoded(&runs) == sealed(&sound[4..length]), "{length}");
        }
    }
}

/// Rule 5: identity is checked: what is sound elsewhere is not taken here.
#[test]
fn another_regions_bytes_do_not_verify() {
    let bytes = encoded(&[]);
    assert!(decode(&bytes).is_ok());
    assert!(decode_region(VolumeId([0x12; 16]), PART, REGION, &bytes).is_err());
    for part in [
        PartId { as_of: SequenceNumber(71), ..PART },
        PartId { epoch: Epoch(3), ..PART },
        PartId { serial: 4, ..PART },
    ] {
        assert!(decode_region(VOLUME, part, REGION, &bytes).is_err(), "{part}");
    }
    assert!(decode_region(VOLUME, PART, RegionIndex(6), &bytes).is_err());
}

#[test]
fn runs_that_can_not_be_are_neither_written_nor_read() {
    for (runs, words) in [
        (vec![zero(3, 0)], "no blocks"),
        (vec![zero(0, 2), zero(1, 2)], "the one before ends"),
        (vec![zero(9, 1), zero(8, 1)], "the one before ends"),
        (vec![zero(16_383, 2)], "beyond region 5"),
        (vec![zero(16_384, 1)], "beyond region 5"),
        (vec![stored(0, 2, 0, u32::MAX - 1)], "beyond any object's end"),
    ] {
        let written = std::panic::catch_unwind(|| encoded(&runs)).unwrap_err();
        let written = written.downcast_ref::<String>().unwrap();
        assert!(written.contains(words), "{words}: {written}");
    }
    assert!(
        std::panic::catch_unwind(|| encoded(&[RegionRun { extent: Extent::new(0, 1), ..zero(0, 1) }]))
            .is_err()
    );
    for (bytes, words) in [
        (&[3, 0, 0][..], "no blocks"),
        (&[0xff, 0x7f, 2, 0], "beyond region 5"),
        (&[0x80, 0x80, 1, 1, 0], "beyond region 5"),
        (&[0, 2, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f], "beyond any object's end"),
        (&[0, 1, 0x82, 0x80, 0x80, 0x80, 0x10, 0], "slot 4294967297"),
        (&[0, 1, 1, 0x80, 0x80, 0x80, 0x80, 0x10], "32 bits"),
        (&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0], "beyond region 5"),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 0], "is no number"),
        (&[0, 0x81, 0, 0], "longer than it needs"),
        (&[0, 1], "end within a number"),
    ] {
        let error = decode(&sealed(bytes)).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn a_region_beyond_any_volume_is_refused() {
    let last = RegionIndex((1 << 30) - 1);
    let mut bytes = Vec::new();
    encode_region(VOLUME, PART, last, [], &mut bytes);
    assert_eq!(decode_region(VOLUME, PART, last, &bytes), Ok(Vec::new()));
    let beyond = RegionIndex(1 << 30);
    let bytes = checksum(VOLUME, PART, beyond, &[]).to_le_bytes();
    assert!(decode_region(VOLUME, PART, beyond, &bytes).is_err());
    assert!(std::panic::catch_unwind(|| encode_region(VOLUME, PART, beyond, [], &mut Vec::new())).is_err());
}

fn any_runs() -> impl Strategy<Value = Vec<RegionRun>> {
    let counts = || prop_oneof![3 => 0..3u64, 1 => 0..500u64];
    let content = prop::option::of((any::<u32>(), 0..u32::MAX - 500));
    prop::collection::vec((counts(), counts(), content), 0..400).prop_map(|pieces| {
        let mut end = 0;
        let mut runs = Vec::new();
        for (gap, count, content) in pieces {
            let (start, count) = (end + gap, count + 1);
            if start + count > REGION_BLOCKS {
                break;
            }
            end = start + count;
            runs.push(match content {
                None if gap % 2 == 1 => lost(start, count),
                None => zero(start, count),
                Some((slot, ordinal)) => stored(start, count, slot, ordinal),
            });
        }
        runs
    })
}

proptest! {
    #[test]
    fn any_region_reads_back(runs in any_runs()) {
        let bytes = encoded(&runs);
        prop_assert!((REGION_BYTES_MIN..=REGION_BYTES_MAX).contains(&(bytes.len() as u64)));
        prop_assert_eq!(decode(&bytes), Ok(runs));
    }

    #[test]
    fn a_damaged_byte_is_noticed(runs in any_runs(), at: prop::sample::Index, change in 1..=255u8) {
        let mut bytes = encoded(&runs);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
        let _ = decode(&bytes);
        if let Ok(runs) = decode(&sealed(&bytes)) {
            prop_assert_eq!(encoded(&runs), sealed(&bytes), "a region has one encoding");
        }
    }

    #[test]
    fn a_changed_byte_behind_a_sound_checksum_is_another_region(
        runs in any_runs(),
        at: prop::sample::Index,
        change in 1..=255u8,
    ) {
        let mut bytes = encoded(&runs).split_off(4);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= change;
        }
        if let Ok(other) = decode(&sealed(&bytes)) {
            prop_assert_eq!(encoded(&other), sealed(&bytes), "a region has one encoding");
        }
    }
}

//! A region of a checkpoint and a part's head, from arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_format::checkpoint::{
    PART_HEAD_BYTES, PART_MAGIC, PartId, RegionIndex, decode_part_head, decode_region, encode_part_head,
    encode_region,
};
use lsvd_format::{Epoch, SequenceNumber, VolumeId};

const VOLUME: VolumeId = VolumeId([0x11; 16]);
const PART: PartId = PartId { as_of: SequenceNumber(70), epoch: Epoch(2), serial: 3 };
const REGION: RegionIndex = RegionIndex(5);

/// The bytes as runs behind a sound checksum.
fn sealed_region(runs: &[u8]) -> Vec<u8> {
    let seed = [
        &VOLUME.0[..],
        &PART.as_of.0.to_le_bytes(),
        &PART.epoch.0.to_le_bytes(),
        &PART.serial.to_le_bytes(),
        &REGION.0.to_le_bytes(),
    ];
    let checksum = crc32c::crc32c(&[&seed.concat(), runs].concat());
    [&checksum.to_le_bytes(), runs].concat()
}

/// The bytes as a head whose magic and checksum are sound, so that the rest is looked at.
fn sealed_head(bytes: &[u8]) -> Option<[u8; PART_HEAD_BYTES]> {
    let mut head: [u8; PART_HEAD_BYTES] = bytes.get(..PART_HEAD_BYTES)?.try_into().ok()?;
    head[..12].copy_from_slice(&PART_MAGIC);
    let checksum = crc32c::crc32c(&head[16..]);
    head[12..16].copy_from_slice(&checksum.to_le_bytes());
    Some(head)
}

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_region(VOLUME, PART, REGION, bytes);
    let sealed = sealed_region(bytes);
    if let Ok(runs) = decode_region(VOLUME, PART, REGION, &sealed) {
        let mut again = Vec::new();
        encode_region(VOLUME, PART, REGION, runs, &mut again);
        assert_eq!(again, sealed, "a region has one encoding");
    }
    let _ = decode_part_head(bytes);
    if let Some(sealed) = sealed_head(bytes)
        && let Ok(head) = decode_part_head(&sealed)
    {
        assert_eq!(encode_part_head(head.volume, head.part, head.writer), sealed, "a head has one encoding");
    }
});

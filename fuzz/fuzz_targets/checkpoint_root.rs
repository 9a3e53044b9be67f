//! The root of a checkpoint, from arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_format::checkpoint::{PartId, ROOT_HEAD_BYTES, ROOT_MAGIC, decode_root, encode_root};
use lsvd_format::{DecodeError, Epoch, SequenceNumber, VolumeId};

const VOLUME: VolumeId = VolumeId([0x11; 16]);
const PART: PartId = PartId { as_of: SequenceNumber(300), epoch: Epoch(4), serial: 1 };

/// The bytes as what follows a sound head, with the volume in its place.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; ROOT_HEAD_BYTES];
    bytes[..12].copy_from_slice(&ROOT_MAGIC);
    bytes[16] = 1;
    bytes.push(1);
    bytes.extend_from_slice(&VOLUME.0);
    bytes.extend_from_slice(body);
    let root_bytes = bytes.len() as u64;
    bytes[24..32].copy_from_slice(&root_bytes.to_le_bytes());
    let seed = [
        &VOLUME.0[..],
        &PART.as_of.0.to_le_bytes(),
        &PART.epoch.0.to_le_bytes(),
        &PART.serial.to_le_bytes(),
    ];
    let checksum = crc32c::crc32c(&[&seed.concat(), &bytes[16..]].concat());
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    if let Err(DecodeError::Short { have_bytes, need_bytes }) = decode_root(VOLUME, PART, bytes) {
        assert!(have_bytes < need_bytes, "a retry reads more");
    }
    let sealed = sealed(bytes);
    if let Ok(root) = decode_root(VOLUME, PART, &sealed) {
        let mut again = Vec::new();
        encode_root(&root, &mut again);
        assert_eq!(again, sealed, "a root has one encoding");
    }
});

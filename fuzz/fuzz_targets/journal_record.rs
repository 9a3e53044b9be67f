//! A journal record's header, from arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_format::journal::{MAGIC, RecordHeader};

/// The bytes as a header whose magic and checksum are sound, so that the rest is looked at.
fn sealed(bytes: &[u8]) -> Option<[u8; 128]> {
    let mut bytes: [u8; 128] = bytes.get(..128)?.try_into().ok()?;
    bytes[..8].copy_from_slice(&MAGIC);
    let seed = crc32c::crc32c_append(crc32c::crc32c(&bytes[16..32]), &bytes[72..80]);
    let checksum = crc32c::crc32c_append(seed, &bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    Some(bytes)
}

fuzz_target!(|bytes: &[u8]| {
    let _ = RecordHeader::decode(bytes);
    if let Some(sealed) = sealed(bytes)
        && let Ok(header) = RecordHeader::decode(&sealed)
    {
        assert_eq!(header.encode(), sealed, "a header has one encoding");
        let _ = header.verify_payload(&bytes[128..]);
    }
});

//! A log object's header of either format, from arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_format::log_object::{HEADER_FIXED_BYTES, Header, MAGIC};
use lsvd_format::{DecodeError, decode_any};

/// The bytes as a header whose magic, length and checksum are sound, so that the rest is looked at.
fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes[..bytes.len() / 16 * 16].to_vec();
    if bytes.len() < HEADER_FIXED_BYTES as usize {
        return None;
    }
    let header_bytes = u32::try_from(bytes.len()).ok()?;
    bytes[..12].copy_from_slice(&MAGIC);
    bytes[24..28].copy_from_slice(&header_bytes.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[16..]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    Some(bytes)
}

fuzz_target!(|bytes: &[u8]| {
    if let Err(DecodeError::Short { have_bytes, need_bytes }) = decode_any(bytes) {
        assert!(have_bytes < need_bytes, "a retry reads more");
    }
    if let Some(bytes) = sealed(bytes)
        && let Ok(header) = Header::decode(&bytes)
    {
        let mut again = Vec::new();
        header.encode(&mut again);
        assert_eq!(again, bytes, "a header has one encoding");
    }
});

//! A superblock version, from arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_format::SuperblockNumber;
use lsvd_format::superblock::{decode, encode};

const NUMBER: SuperblockNumber = SuperblockNumber(5);

/// The bytes as the body of a version whose first line is sound.
fn sealed(body: &[u8]) -> Vec<u8> {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&NUMBER.0.to_le_bytes()), body);
    let length = body.len();
    let line = format!(
        "lsvd superblock format=2 number={:016x} body_bytes={length:08} crc32c={checksum:08x}\n",
        NUMBER.0
    );
    [line.as_bytes(), body].concat()
}

fuzz_target!(|bytes: &[u8]| {
    let _ = decode(NUMBER, bytes);
    if let Ok(superblock) = decode(NUMBER, &sealed(bytes)) {
        let again = decode(NUMBER, &encode(NUMBER, &superblock));
        assert_eq!(again, Ok(superblock), "nothing is lost when a version is written anew");
    }
});

//! A log object's header of format 1 and its name, from arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_format::v1::{Header, parse_v1_name, v1_name};

fuzz_target!(|bytes: &[u8]| {
    let _ = Header::decode(bytes);
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().max(12_288), 0);
    if let Ok(header) = Header::decode(&padded) {
        let mut again = Vec::new();
        header.encode(&mut again);
        assert_eq!(Header::decode(&again), Ok(header));
    }
    if let Ok(name) = str::from_utf8(bytes)
        && let Some((number, width)) = parse_v1_name(name)
    {
        assert_eq!(v1_name(number, width), name);
    }
});

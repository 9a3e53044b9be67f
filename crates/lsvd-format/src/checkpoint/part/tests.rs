//! A part's head: round trip, damage, what is newer, what can not be.

use proptest::prelude::*;

use super::*;

fn example() -> PartHead {
    let part = PartId { as_of: SequenceNumber(70), epoch: Epoch(2), serial: 3 };
    PartHead { volume: VolumeId([0x11; 16]), part, writer: WriterId([0x22; 16]) }
}

fn encoded(head: PartHead) -> [u8; PART_HEAD_BYTES] {
    encode_part_head(head.volume, head.part, head.writer)
}

fn sealed(mut bytes: [u8; PART_HEAD_BYTES]) -> [u8; PART_HEAD_BYTES] {
    let checksum = crc32c::crc32c(&bytes[at::VERSION..]);
    put(&mut bytes, at::CHECKSUM, &checksum.to_le_bytes());
    bytes
}

/// Rule 2: a part says whose it is, so that a lost answer to its create is resolved.
#[test]
fn a_head_reads_back() {
    let bytes = encoded(example());
    assert_eq!(decode_part_head(&bytes), Ok(example()));
    assert_eq!(decode_part_head(&[&bytes[..], b"regions"].concat()), Ok(example()));
}

/// Rule 5: no head with a wrong bit is used.
#[test]
fn every_bit_flip_is_noticed() {
    for bit in 0..PART_HEAD_BYTES * 8 {
        let mut bytes = encoded(example());
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_part_head(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn every_truncation_says_how_much_to_read() {
    let bytes = encoded(example());
    for length in 0..PART_HEAD_BYTES {
        let short = DecodeError::Short { have_bytes: length as u64, need_bytes: 96 };
        assert_eq!(decode_part_head(&bytes[..length]), Err(short));
    }
}

#[test]
fn what_a_later_version_may_mean_is_newer() {
    for offset in
        [at::VERSION, at::FLAGS, at::RESERVED_A, at::RESERVED_B, at::RESERVED_C, PART_HEAD_BYTES - 1]
    {
        let mut bytes = encoded(example());
        bytes[offset] = 9;
        assert!(matches!(decode_part_head(&sealed(bytes)), Err(DecodeError::Newer { .. })), "{offset}");
    }
}

#[test]
fn numbers_out_of_range_are_neither_written_nor_read() {
    for offset in [at::AS_OF, at::EPOCH] {
        for number in [0, 1 << 63, u64::MAX] {
            let mut bytes = encoded(example());
            put(&mut bytes, offset, &number.to_le_bytes());
            let error = decode_part_head(&sealed(bytes)).unwrap_err();
            assert!(error.to_string().contains("out of range"), "{error}");
            let mut head = example();
            match offset {
                at::AS_OF => head.part.as_of = SequenceNumber(number),
                _ => head.part.epoch = Epoch(number),
            }
            assert!(std::panic::catch_unwind(|| encoded(head)).is_err(), "{number}");
        }
    }
}

#[test]
fn nothing_else_is_a_part() {
    for bytes in
        [&b"lsvd-log-v2\n"[..], b"lsvd-root-1\n", b"lsvdjrn\n", b"lsvd superblock format=2", &[0; 12_288]]
    {
        assert!(
            matches!(decode_part_head(bytes), Err(DecodeError::Corrupt { offset_bytes: 0, .. })),
            "{bytes:?}"
        );
    }
    assert!(crate::decode_any(&encoded(example())).is_err(), "and a part is no log object");
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>, fields: [u8; 32]) {
        let _ = decode_part_head(&bytes);
        let mut head = encoded(example());
        put(&mut head, at::AS_OF, &fields);
        let head = sealed(head);
        if let Ok(decoded) = decode_part_head(&head) {
            prop_assert_eq!(encoded(decoded), head, "a head has one encoding");
        }
    }
}

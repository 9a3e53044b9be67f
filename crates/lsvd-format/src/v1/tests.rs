//! Format 1 as the seed thread states it, and damage to it.

use proptest::prelude::*;

use super::*;

fn encoded(header: &Header) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes
}

fn entry(address_bytes: u64, size_bytes: u32) -> Entry {
    Entry { address_bytes, size_bytes }
}

#[test]
fn the_bytes_are_those_of_the_seed() {
    let header = Header { entries: vec![entry(0x1_2345_6000, 0x2000), entry(0, 0x1000)], mark: None };
    let bytes = encoded(&header);
    assert_eq!(bytes.len(), 12_288);
    assert_eq!(bytes[..12], [0, 0, 0, 1, 0x23, 0x45, 0x60, 0, 0, 0, 0x20, 0]);
    assert_eq!(bytes[12..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0]);
    assert!(bytes[24..].iter().all(|byte| *byte == 0));
    assert_eq!(Header::decode(&bytes), Ok(header));
}

#[test]
fn data_follow_in_the_order_of_the_entries() {
    let header =
        Header { entries: vec![entry(8192, 4096), entry(0, 12_288), entry(4096, 4_294_963_200)], mark: None };
    assert_eq!(header.data_offset(0), 12_288);
    assert_eq!(header.data_offset(1), 16_384);
    assert_eq!(header.data_offset(2), 28_672);
    assert_eq!(header.object_bytes(), 28_672 + 4_294_963_200);
}

#[test]
fn an_empty_and_a_full_header_read_back() {
    let full = (0..1024).map(|index| entry(index * 4096, 4096)).collect();
    for header in [Header::default(), Header { entries: full, mark: None }] {
        assert_eq!(Header::decode(&encoded(&header)), Ok(header));
    }
}

fn mark() -> Mark {
    let (volume, writer) = (VolumeId([0xa1; 16]), WriterId([0xb2; 16]));
    Mark { volume, epoch: Epoch(7), writer, number: SequenceNumber(0x1_0203) }
}

#[test]
fn a_mark_lies_where_the_seed_ignores_everything() {
    let marked = Header { entries: Vec::new(), mark: Some(mark()) };
    let bytes = encoded(&marked);
    assert_eq!(bytes.len(), 12_288);
    assert_eq!(marked.object_bytes(), 12_288);
    assert!(bytes[..12].iter().all(|byte| *byte == 0), "the first entry ends the table");
    assert_eq!(&bytes[12..24], b"lsvd-mark-1\n");
    assert_eq!(Header::decode(&bytes), Ok(marked));
}

#[test]
fn what_is_no_sound_mark_is_ignored() {
    let bytes = encoded(&Header { entries: Vec::new(), mark: Some(mark()) });
    for at in 12..76 {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert_eq!(Header::decode(&damaged), Ok(Header::default()), "byte {at}");
    }
    // Behind entries it is no mark either.
    let written = Header { entries: vec![entry(0, 4096)], mark: None };
    let mut behind = encoded(&written);
    behind[24..88].copy_from_slice(&bytes[12..76]);
    assert_eq!(Header::decode(&behind), Ok(written));
}

#[test]
fn what_follows_the_end_is_ignored() {
    let header = Header { entries: vec![entry(4096, 4096)], mark: None };
    let mut bytes = encoded(&header);
    bytes[12..20].fill(0xff);
    bytes[24..].fill(0xff);
    bytes.extend_from_slice(b"data");
    assert_eq!(Header::decode(&bytes), Ok(header));
}

/// Rule 5: bounds and lengths are all that format 1 can be verified by, and they are.
#[test]
fn impossible_entries_are_named_with_their_offset() {
    let header = Header { entries: vec![entry(4096, 4096), entry(8192, 4096)], mark: None };
    for (address, size, expected) in [
        (4097u64, 4096u32, "address 4097 is not a multiple"),
        (4096, 512, "size 512 is not a multiple"),
        (VOLUME_BYTES_MAX, 4096, "beyond any volume's end"),
        (u64::MAX - 4095, 4096, "beyond any volume's end"),
    ] {
        let mut bytes = encoded(&header);
        bytes[12..20].copy_from_slice(&address.to_be_bytes());
        bytes[20..24].copy_from_slice(&size.to_be_bytes());
        let DecodeError::Corrupt { offset_bytes, reason } = Header::decode(&bytes).unwrap_err() else {
            panic!("{address} {size}");
        };
        assert_eq!(offset_bytes, 12);
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn a_truncated_header_is_short() {
    let full = (0..1024).map(|index| entry(index * 4096, 4096)).collect();
    let bytes = encoded(&Header { entries: full, mark: None });
    for length in 0..bytes.len() {
        let short = DecodeError::Short { have_bytes: length as u64, need_bytes: 12_288 };
        assert_eq!(Header::decode(&bytes[..length]), Err(short));
    }
}

#[test]
fn what_no_reader_would_take_is_never_written() {
    for entries in [
        vec![entry(0, 0)],
        vec![entry(1, 4096)],
        vec![entry(0, 4095)],
        vec![entry(VOLUME_BYTES_MAX, 4096)],
        vec![entry(0, 4096); 1025],
    ] {
        let shown = format!("{:?}", entries.first());
        assert!(
            std::panic::catch_unwind(move || encoded(&Header { entries, mark: None })).is_err(),
            "{shown}"
        );
    }
}

#[test]
fn names_have_any_width() {
    for (name, parsed) in [
        ("0", Some((0, 1))),
        ("1f", Some((0x1f, 2))),
        ("001f", Some((0x1f, 4))),
        ("00000000000000ab", Some((0xab, 16))),
        ("000000000000000000ab", Some((0xab, 20))),
        ("ffffffffffffffff", Some((u64::MAX, 16))),
        ("10000000000000000", None),
        ("", None),
        ("+1", None),
        ("-1", None),
        ("1F", None),
        ("0x1", None),
        ("1g", None),
        ("log/1", None),
        ("1.tmp", None),
    ] {
        assert_eq!(parse_v1_name(name), parsed, "{name}");
    }
}

proptest! {
    #[test]
    fn names_follow_each_other(number: u64, width in 0usize..24) {
        let name = v1_name(number, width);
        let (parsed, digits) = parse_v1_name(&name).unwrap();
        prop_assert_eq!(parsed, number);
        prop_assert!(digits >= width);
    }

    #[test]
    fn any_header_reads_back(entries in prop::collection::vec((0..1u64 << 43, 1..1u32 << 20), 0..1024)) {
        let entries = entries.into_iter().map(|(block, count)| entry(block * 4096, count * 4096)).collect();
        let header = Header { entries, mark: None };
        prop_assert_eq!(Header::decode(&encoded(&header)), Ok(header));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(mut bytes: Vec<u8>, pad: bool) {
        if pad {
            bytes.resize(HEADER_LEN, 0);
        }
        let _ = Header::decode(&bytes);
    }
}

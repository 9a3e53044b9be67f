//! Journal records: round trips, damage, strangers.

use proptest::prelude::*;

use super::*;

fn example() -> RecordHeader {
    let journal = JournalId([0xcc; 16]);
    RecordHeader {
        journal,
        volume: VolumeId([0xaa; 16]),
        epoch: Epoch(3),
        writer: WriterId([0xbb; 16]),
        record: 12,
        kind: RecordKind::Data,
        start_bytes: 1000,
        length_bytes: 5,
        payload_checksum: payload_checksum(journal, 12, b"hello"),
        synced: 11,
    }
}

#[test]
fn a_record_reads_back() {
    let bytes = example().encode();
    assert_eq!(RecordHeader::decode(&bytes), Ok(example()));
    assert_eq!(example().verify_payload(b"hello"), Ok(()));
}

/// Rule 5: no record with a wrong bit is used.
#[test]
fn every_bit_flip_is_noticed() {
    for bit in 0..HEADER_LEN * 8 {
        let mut bytes = example().encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(RecordHeader::decode(&bytes).is_err(), "bit {bit}");
    }
    for bit in 0..5 * 8 {
        let mut data = *b"hello";
        data[bit / 8] ^= 1 << (bit % 8);
        assert!(example().verify_payload(&data).is_err(), "bit {bit}");
    }
}

/// Rule 5: a torn record is never good.
#[test]
fn every_truncation_is_noticed() {
    let bytes = example().encode();
    for length in 0..HEADER_LEN {
        let short = DecodeError::Short { have_bytes: length as u64, need_bytes: 128 };
        assert_eq!(RecordHeader::decode(&bytes[..length]), Err(short));
    }
    assert!(matches!(example().verify_payload(b"hell"), Err(DecodeError::Short { need_bytes: 5, .. })));
    assert!(example().verify_payload(b"hello!").is_err());
}

#[test]
fn data_of_another_record_or_journal_do_not_verify() {
    let mut other = example();
    other.payload_checksum = payload_checksum(example().journal, 13, b"hello");
    assert!(other.verify_payload(b"hello").is_err());
    other.payload_checksum = payload_checksum(JournalId([1; 16]), 12, b"hello");
    assert!(other.verify_payload(b"hello").is_err());
}

#[test]
fn what_a_later_version_may_mean_is_newer() {
    for offset in [at::VERSION, at::KIND, at::FLAGS, at::RESERVED, HEADER_LEN - 1] {
        let mut bytes = example().encode();
        bytes[offset] = 9;
        let checksum = header_checksum(&bytes, example().journal, 12);
        put(&mut bytes, at::CHECKSUM, &checksum.to_le_bytes());
        assert!(matches!(RecordHeader::decode(&bytes), Err(DecodeError::Newer { .. })), "{offset}");
    }
}

#[test]
fn impossible_values_are_neither_written_nor_read() {
    let changes: [fn(&mut RecordHeader); 8] = [
        |header| header.journal = JournalId([0; 16]),
        |header| header.epoch = Epoch(0),
        |header| header.record = 0,
        |header| header.length_bytes = 0,
        |header| header.length_bytes = RECORD_DATA_BYTES_MAX + 1,
        |header| header.start_bytes = VOLUME_BYTES_MAX,
        |header| header.start_bytes = u64::MAX,
        |header| header.kind = RecordKind::Trim,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut header = example();
        change(&mut header);
        assert!(header.check().is_err(), "{index}");
        assert!(std::panic::catch_unwind(|| header.encode()).is_err(), "{index}");
    }
}

proptest! {
    #[test]
    fn any_record_reads_back(
        ids in any::<([u8; 16], [u8; 16], [u8; 16])>().prop_filter("no journal", |ids| ids.0 != [0; 16]),
        epoch in 1..=NUMBER_MAX,
        record in 1..=NUMBER_MAX,
        kind in 0..3usize,
        start_bytes in 0..VOLUME_BYTES_MAX - RECORD_DATA_BYTES_MAX,
        length_bytes in 1..=RECORD_DATA_BYTES_MAX,
        checksum: u32,
    ) {
        let kind = [RecordKind::Data, RecordKind::Zero, RecordKind::Trim][kind];
        let header = RecordHeader {
            journal: JournalId(ids.0),
            volume: VolumeId(ids.1),
            epoch: Epoch(epoch),
            writer: WriterId(ids.2),
            record,
            kind,
            start_bytes,
            length_bytes,
            payload_checksum: if kind == RecordKind::Data { checksum } else { 0 },
            synced: 11,
        };
        prop_assert_eq!(RecordHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>, mut fields: [u8; 32]) {
        let _ = RecordHeader::decode(&bytes);
        let mut sealed = example().encode();
        fields[0] %= 4;
        sealed[14] = fields[0];
        sealed[64..95].copy_from_slice(&fields[1..]);
        let checksum = header_checksum(&sealed, example().journal, u64_at(&sealed, at::RECORD));
        put(&mut sealed, at::CHECKSUM, &checksum.to_le_bytes());
        let _ = RecordHeader::decode(&sealed);
    }
}

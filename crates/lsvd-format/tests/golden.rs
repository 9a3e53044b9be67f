//! Golden files: what was written once is written so for ever, and is read so for ever.
//!
//! A file here changes only together with the format's version. A new one is made by running the test that names it
//! with `LSVD_GOLDEN_NEW=1`; one that is there is never written over.

use std::path::{Path, PathBuf};

use lsvd_format::journal::{RecordHeader, RecordKind, payload_checksum};
use lsvd_format::log_object::{Entry, Header, Source, decode_frames, encode_frames};
use lsvd_format::superblock::{self, Superblock};
use lsvd_format::{
    AnyHeader, BlockOrdinal, Epoch, Extent, JournalId, JournalPosition, LogLayout, ObjectFormat,
    ObjectIdentity, SequenceNumber, SuperblockNumber, VolumeId, WriterId, decode_any, v1,
};

/// Bytes that count up: an identity in which every byte's place shows.
fn counting(from: u8) -> [u8; 16] {
    std::array::from_fn(|index| from + u8::try_from(index).expect("below sixteen"))
}

fn identity(number: u64) -> ObjectIdentity {
    ObjectIdentity {
        volume: VolumeId(counting(0x10)),
        epoch: Epoch(0x0203),
        writer: WriterId(counting(0x40)),
        number: SequenceNumber(number),
    }
}

/// Three blocks that differ in every byte's neighbourhood.
fn payload() -> Vec<u8> {
    (0..3 * 4096u32).map(|index| u8::try_from(index * 31 % 251).expect("below 251")).collect()
}

fn object() -> Header {
    let source = Source {
        volume: VolumeId(counting(0x70)),
        number: SequenceNumber(0x0405),
        ordinal: BlockOrdinal(0x0607),
    };
    Header {
        identity: identity(0x0102_0304),
        sealed_unix_ms: 1_700_000_000_123,
        journal: Some(JournalPosition { journal: JournalId(counting(0xa0)), record: 0x0809 }),
        entries: vec![
            Entry::Data { extent: Extent::new(0x0a0b_0c0d_0e0f, 2) },
            Entry::Zero { extent: Extent::new(16, 0x1112_1314) },
            Entry::Trim { extent: Extent::new(1, 3) },
            Entry::Relocation { extent: Extent::new(7, 1), source },
        ],
    }
}

fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The golden file's bytes, which must be `encoded`.
fn golden(name: &str, encoded: &[u8]) -> Vec<u8> {
    let path = golden_path(name);
    if std::env::var_os("LSVD_GOLDEN_NEW").is_some() && !path.exists() {
        std::fs::write(&path, encoded).expect("the golden file can be made");
    }
    let stored = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let differs = stored.iter().zip(encoded).position(|(stored, encoded)| stored != encoded);
    assert_eq!(differs, None, "{name} differs from this byte on");
    assert_eq!(stored.len(), encoded.len(), "length of {name}");
    stored
}

#[test]
fn log_object_of_format_2() {
    let mut encoded = Vec::new();
    object().encode(&mut encoded);
    encode_frames(&object().identity, BlockOrdinal(0), &payload(), &mut encoded);
    let stored = golden("log_object_v2.bin", &encoded);
    assert_eq!(decode_any(&stored), Ok(AnyHeader::V2(object())));
    assert_eq!(stored.len() as u64, object().object_bytes());
    let payload_start = usize::try_from(object().header_bytes()).expect("a short header");
    let frames = decode_frames(&object().identity, BlockOrdinal(0), &stored[payload_start..]);
    assert_eq!(frames.as_deref(), Ok(&payload()[..]));
}

#[test]
fn fence() {
    let fence = Header {
        identity: identity(70),
        sealed_unix_ms: 1_700_000_000_456,
        journal: None,
        entries: vec![Entry::Fence { next: SequenceNumber(134) }],
    };
    let mut encoded = Vec::new();
    fence.encode(&mut encoded);
    assert_eq!(decode_any(&golden("fence.bin", &encoded)), Ok(AnyHeader::V2(fence)));
}

#[test]
fn log_object_of_format_1() {
    let entry = |address_bytes, size_bytes| v1::Entry { address_bytes, size_bytes };
    let header = v1::Header { entries: vec![entry(0x0001_0203_0405_6000, 8192), entry(0, 4096)], mark: None };
    let mut encoded = Vec::new();
    header.encode(&mut encoded);
    encoded.extend_from_slice(&payload());
    let stored = golden("log_object_v1.bin", &encoded);
    assert_eq!(decode_any(&stored), Ok(AnyHeader::V1(header.clone())));
    assert_eq!(stored.len() as u64, header.object_bytes());
}

fn superblock_value() -> Superblock {
    Superblock {
        volume_id: VolumeId(counting(0x10)),
        epoch: Epoch(0x1e),
        writer_id: WriterId(counting(0x40)),
        size_bytes: 1 << 40,
        window: 64,
        log_first_number: SequenceNumber(1),
        log_layout: None,
        unsafe_single_writer: false,
        closed_at: Some(SequenceNumber(70)),
        log_reached: None,
        log_begun_epoch: None,
        journal: None,
        checkpoints: Vec::new(),
        condemned: Vec::new(),
        written_unix_ms: 1_700_000_000_789,
        written_by: "lsvd 0.1.0".to_owned(),
        features_to_read: Vec::new(),
        features_to_write: vec!["a-later-one".to_owned()],
        unknown: [("later_field".to_owned(), serde_json::json!({ "kept": true }))].into_iter().collect(),
    }
}

#[test]
fn superblock_version() {
    let (number, value) = (SuperblockNumber(0x1f), superblock_value());
    let stored = golden("superblock.json", &superblock::encode(number, &value));
    assert_eq!(superblock::decode(number, &stored), Ok(value));
}

#[test]
fn superblock_version_with_a_journal() {
    let number = SuperblockNumber(0x21);
    let value =
        Superblock { closed_at: None, ..superblock_value() }.with_journal(Some(JournalId(counting(0x70))));
    let stored = golden("superblock_journal.json", &superblock::encode(number, &value));
    assert_eq!(superblock::decode(number, &stored), Ok(value));
}

#[test]
fn superblock_version_of_a_log_in_use() {
    let number = SuperblockNumber(0x20);
    let value = Superblock {
        unsafe_single_writer: true,
        closed_at: None,
        log_reached: Some(SequenceNumber(0x0102_0304)),
        ..superblock_value()
    };
    let stored = golden("superblock_reached.json", &superblock::encode(number, &value));
    assert_eq!(superblock::decode(number, &stored), Ok(value));
}

#[test]
fn superblock_version_of_an_adopted_log() {
    let number = SuperblockNumber(0x1e);
    let layout = LogLayout { prefix: "old/".to_owned(), name_digits: 8, append_format: ObjectFormat::V1 };
    let value = Superblock {
        log_first_number: SequenceNumber(0),
        unsafe_single_writer: true,
        closed_at: None,
        log_begun_epoch: Some(Epoch(0x1d)),
        ..superblock_value()
    };
    let value = value.with_layout(Some(layout));
    let stored = golden("superblock_adopted.json", &superblock::encode(number, &value));
    assert_eq!(superblock::decode(number, &stored), Ok(value));
}

#[test]
fn log_object_of_format_1_with_a_mark() {
    let mark = v1::Mark {
        volume: VolumeId(counting(0x10)),
        epoch: Epoch(0x1e),
        writer: WriterId(counting(0x40)),
        number: SequenceNumber(0x0102_0304),
    };
    let header = v1::Header { entries: Vec::new(), mark: Some(mark) };
    let mut encoded = Vec::new();
    header.encode(&mut encoded);
    let stored = golden("mark_v1.bin", &encoded);
    assert_eq!(decode_any(&stored), Ok(AnyHeader::V1(header)));
}

#[test]
fn journal_record() {
    let (journal, data) = (JournalId(counting(0xa0)), b"a write of 24 bytes here");
    let header = RecordHeader {
        journal,
        volume: VolumeId(counting(0x10)),
        epoch: Epoch(0x0203),
        writer: WriterId(counting(0x40)),
        record: 0x0809,
        kind: RecordKind::Data,
        start_bytes: 0x0102_0304_0506,
        length_bytes: data.len() as u64,
        payload_checksum: payload_checksum(journal, 0x0809, data),
        synced: 0x0708,
    };
    let mut encoded = header.encode().to_vec();
    encoded.extend_from_slice(data);
    let stored = golden("journal_record.bin", &encoded);
    assert_eq!(RecordHeader::decode(&stored), Ok(header.clone()));
    assert_eq!(header.verify_payload(&stored[128..]), Ok(()));
}

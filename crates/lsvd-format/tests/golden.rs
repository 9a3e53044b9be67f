//! Golden files: what was written once is written so for ever, and is read so for ever.
//!
//! A file here changes only together with the format's version. A new one is made by running the test that names it
//! with `LSVD_GOLDEN_NEW=1`; one that is there is never written over.

use std::path::{Path, PathBuf};

use lsvd_format::checkpoint::{
    CheckpointStamp, ContainedRecord, LastDataRecord, PartHead, PartId, RegionIndex, RegionPlace, RegionRun,
    Root, RootObject, RootParent, RootPart, RunContent, SkippedRange, Slot, decode_part_head, decode_region,
    decode_root, encode_part_head, encode_region, encode_root,
};
use lsvd_format::journal::{RecordHeader, RecordKind, payload_checksum};
use lsvd_format::log_object::{Entry, Header, Source, decode_frames, encode_frames};
use lsvd_format::superblock::{
    self, CheckpointRef, Moments, NumberRange, Parent, PinnedFor, Removal, Rollback, SizeSince, Snapshot,
    Superblock,
};
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
        handover: None,
        unbroken_since: None,
        checkpoints: Vec::new(),
        condemned: Vec::new(),
        moments: Moments::default(),
        log_follows: None,
        parents: Vec::new(),
        removal: None,
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
fn superblock_version_with_moments() {
    let number = SuperblockNumber(0x23);
    let base = CheckpointRef {
        stamp: CheckpointStamp {
            as_of: SequenceNumber(0x30),
            epoch: Epoch(0x11),
            writer: WriterId(counting(0x40)),
        },
        part: PartId { as_of: SequenceNumber(0x30), epoch: Epoch(0x12), serial: 3 },
        root_offset_bytes: 0x1234,
        root_bytes: 0x5678,
        taken_unix_ms: 1_700_000_000_222,
    };
    let snapshot = |name: &str, as_of, base, automatic| Snapshot {
        name: name.to_owned(),
        as_of: SequenceNumber(as_of),
        base,
        size_bytes: 1 << 39,
        created_unix_ms: 1_700_000_000_321,
        automatic,
        clone: None,
    };
    let moments = Moments {
        snapshots: vec![
            snapshot("first", 0x20, None, false),
            snapshot("before-rollback-1", 0x41, Some(base), true),
        ],
        history_ms: 86_400_000,
        rollbacks: vec![Rollback {
            to: SequenceNumber(0x38),
            next: SequenceNumber(0x82),
            epoch: Epoch(29),
            unix_ms: 1_700_000_000_654,
        }],
        sizes: vec![
            SizeSince { since: SequenceNumber(1), size_bytes: 1 << 39 },
            SizeSince { since: SequenceNumber(0x42), size_bytes: 1 << 40 },
        ],
    };
    let value = superblock_value().with_checkpoints(vec![base]).with_moments(moments);
    let stored = golden("superblock_moments.json", &superblock::encode(number, &value));
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
fn superblock_versions_of_a_removal() {
    let removal = Removal { fence: Some(SequenceNumber(70)), log_next: SequenceNumber(134), finished: false };
    let number = SuperblockNumber(0x22);
    let value = Superblock { closed_at: None, ..superblock_value() }.with_removal(Some(removal));
    let stored = golden("superblock_removed.json", &superblock::encode(number, &value));
    assert_eq!(superblock::decode(number, &stored), Ok(value.clone()));
    let number = SuperblockNumber(0x23);
    let gone = value.with_removal(Some(Removal { finished: true, ..removal }));
    let stored = golden("superblock_gone.json", &superblock::encode(number, &gone));
    assert_eq!(superblock::decode(number, &stored), Ok(gone));
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

fn volume() -> VolumeId {
    VolumeId(counting(0x10))
}

/// The part that holds the root, and an older one.
fn parts() -> [PartId; 2] {
    let part = |as_of, epoch, serial| PartId { as_of: SequenceNumber(as_of), epoch: Epoch(epoch), serial };
    [part(0x0102_0304, 0x0205, 0x0607_0809), part(0x0101_0203, 0x0204, 3)]
}

#[test]
fn checkpoint_part_head() {
    let (part, writer) = (parts()[0], WriterId(counting(0x40)));
    let stored = golden("checkpoint_part_head.bin", &encode_part_head(volume(), part, writer));
    assert_eq!(decode_part_head(&stored), Ok(PartHead { volume: volume(), part, writer }));
}

#[test]
fn checkpoint_region() {
    let (part, region) = (parts()[0], RegionIndex(0x0102));
    let start = region.extent().start.0;
    let run = |from: u64, count, content| RegionRun { extent: Extent::new(start + from, count), content };
    let stored = |slot, ordinal| RunContent::Stored { slot: Slot(slot), ordinal: BlockOrdinal(ordinal) };
    let runs = vec![
        run(0, 1, stored(0, 0)),
        run(1, 200, RunContent::Zero),
        run(0x0304, 0x0506, stored(0x0708_090a, 0x0b0c_0d0e)),
        run(16_383, 1, stored(u32::MAX, 7)),
    ];
    let mut encoded = Vec::new();
    encode_region(volume(), part, region, runs.iter().copied(), &mut encoded);
    let stored = golden("checkpoint_region.bin", &encoded);
    assert_eq!(decode_region(volume(), part, region, &stored), Ok(runs));
}

fn stamp() -> CheckpointStamp {
    CheckpointStamp { as_of: parts()[0].as_of, epoch: Epoch(0x0205), writer: WriterId(counting(0xd0)) }
}

/// An adopted volume, as of the fence of its last opening: an object of format 1, what two openings wrote, and regions in
/// two parts.
fn root() -> Root {
    let [own, older] = parts();
    let first = RootObject {
        slot: Slot(3),
        identity: ObjectIdentity { epoch: Epoch(0), writer: WriterId([0; 16]), ..identity(0) },
        format: ObjectFormat::V1,
        header_bytes: 12_288,
        payload_blocks: 3,
        live_blocks: 0,
        died_at: Some(SequenceNumber(0x0101_0203)),
        object_bytes: 12_288 + 3 * 4096,
    };
    let second = RootObject {
        slot: Slot(4),
        identity: identity(0x0102_0303),
        format: ObjectFormat::V2,
        header_bytes: 192 + 16 * 300,
        payload_blocks: 2048,
        live_blocks: 2000,
        died_at: None,
        object_bytes: 192 + 16 * 300 + 2048 * 4104,
    };
    let third = RootObject {
        slot: Slot(0x0506),
        identity: ObjectIdentity {
            epoch: Epoch(0x0201),
            writer: WriterId(counting(0x70)),
            ..identity(0x0101_0203)
        },
        live_blocks: 1,
        ..second
    };
    let place = |region, part, offset_bytes, length_bytes| RegionPlace {
        region: RegionIndex(region),
        part,
        offset_bytes,
        length_bytes,
    };
    let (journal, record) = (JournalId(counting(0xa0)), 0x0809);
    let skipped = |fence, next| SkippedRange { fence: SequenceNumber(fence), next: SequenceNumber(next) };
    Root {
        volume: volume(),
        parents: Vec::new(),
        stamp: stamp(),
        part: own,
        volume_blocks: 1 << 28,
        next_number: SequenceNumber(0x0102_0344),
        last_data: Some(LastDataRecord {
            epoch: Epoch(0x0203),
            sealed_unix_ms: 1_700_000_000_123,
            journal: Some(JournalPosition { journal, record }),
        }),
        journals: vec![
            ContainedRecord { journal, epoch: Epoch(0x0201), record: 7 },
            ContainedRecord { journal, epoch: Epoch(0x0203), record },
        ],
        skipped: vec![skipped(4, 68), skipped(0x0102_0304, 0x0102_0344)],
        last_format: Some(ObjectFormat::V2),
        objects: vec![first, second, third],
        parts: vec![
            RootPart { part: older, object_bytes: 0x0001_0203_0405 },
            RootPart { part: own, object_bytes: 1234 },
        ],
        regions: vec![
            place(0, 1, 96, 40),
            place(1, 0, 5000, 196_612),
            place(2, 1, 136, 400),
            place(0x3fff, 0, 4000, 4),
        ],
    }
}

#[test]
fn checkpoint_root() {
    let mut encoded = Vec::new();
    encode_root(&root(), &mut encoded);
    let stored = golden("checkpoint_root.bin", &encoded);
    assert_eq!(decode_root(volume(), parts()[0], &stored), Ok(root()));
}

/// A clone of a clone: the first object is the farther volume's, the third the nearer one's.
#[test]
fn checkpoint_root_of_a_clone() {
    let (far, near) = (VolumeId(counting(0x11)), VolumeId(counting(0x21)));
    let mut root = root();
    root.parents = vec![
        RootParent { volume: far, until: SequenceNumber(0x0101_0202) },
        RootParent { volume: near, until: SequenceNumber(0x0101_0203) },
    ];
    root.skipped.remove(0);
    root.objects[0].identity.volume = far;
    root.objects[2].identity =
        ObjectIdentity { volume: near, epoch: Epoch(0x0807), ..root.objects[2].identity };
    root.parts[0].part = PartId { as_of: SequenceNumber(0x0101_0203), epoch: Epoch(0x0808), serial: 9 };
    let mut encoded = Vec::new();
    encode_root(&root, &mut encoded);
    let stored = golden("checkpoint_root_clone.bin", &encoded);
    assert_eq!(decode_root(volume(), parts()[0], &stored), Ok(root));
}

#[test]
fn superblock_version_of_a_clone_that_was_cloned() {
    let number = SuperblockNumber(0x24);
    let layout = LogLayout { prefix: "old/".to_owned(), name_digits: 8, append_format: ObjectFormat::V2 };
    let parent = |volume, path: &str, as_of, log_layout| Parent {
        volume_id: VolumeId(counting(volume)),
        path: path.to_owned(),
        as_of: SequenceNumber(as_of),
        log_layout,
    };
    let snapshot = Snapshot {
        name: "clone-a0a1a2a3a4a5a6a7".to_owned(),
        as_of: SequenceNumber(0x41),
        base: None,
        size_bytes: 1 << 39,
        created_unix_ms: 1_700_000_000_321,
        automatic: false,
        clone: Some(PinnedFor {
            volume_id: VolumeId(counting(0xa0)),
            path: "../tests/c".to_owned(),
            given_up: false,
        }),
    };
    let mut given_up = Snapshot { name: "clone-2".to_owned(), ..snapshot.clone() };
    given_up.clone =
        Some(PinnedFor { volume_id: VolumeId(counting(0xb0)), path: "../../d".to_owned(), given_up: true });
    let value = Superblock { log_first_number: SequenceNumber(0x31), ..superblock_value() }
        .with_moments(Moments { snapshots: vec![snapshot, given_up], ..Moments::default() })
        .with_parents(vec![parent(0x11, "../../a", 0x20, Some(layout)), parent(0x21, "../b", 0x30, None)]);
    let stored = golden("superblock_clone.json", &superblock::encode(number, &value));
    assert_eq!(superblock::decode(number, &stored), Ok(value));
}

#[test]
fn superblock_version_with_checkpoints() {
    let number = SuperblockNumber(0x0206);
    let [own, older] = parts();
    let oldest =
        CheckpointStamp { as_of: older.as_of, epoch: Epoch(0x0201), writer: WriterId(counting(0x70)) };
    let checkpoints = vec![
        CheckpointRef {
            stamp: oldest,
            part: older,
            root_offset_bytes: 0x0102_0304,
            root_bytes: 0x0506,
            taken_unix_ms: 0,
        },
        CheckpointRef { stamp: stamp(), part: own, root_offset_bytes: 96, root_bytes: 250, taken_unix_ms: 0 },
    ];
    let range = |first, last| NumberRange { first: SequenceNumber(first), last: SequenceNumber(last) };
    let value = Superblock {
        epoch: Epoch(0x0205),
        closed_at: None,
        condemned: vec![range(1, 1), range(69, 0x0101_0203)],
        ..superblock_value()
    };
    let value = value.with_checkpoints(checkpoints);
    let stored = golden("superblock_checkpoints.json", &superblock::encode(number, &value));
    assert_eq!(superblock::decode(number, &stored), Ok(value));
}

//! The superblock's bytes: round trips, every kind of damage, what is newer.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ObjectFormat;
use crate::checkpoint::{CheckpointStamp, PartId};

const NUMBER: SuperblockNumber = SuperblockNumber(5);

fn example() -> Superblock {
    Superblock {
        volume_id: VolumeId([0x11; 16]),
        epoch: Epoch(4),
        writer_id: WriterId([0x22; 16]),
        size_bytes: 1 << 30,
        window: 64,
        log_first_number: SequenceNumber(1),
        log_layout: None,
        unsafe_single_writer: false,
        closed_at: None,
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
        written_unix_ms: 1_700_000_000_000,
        written_by: "lsvd 0.1.0".to_owned(),
        features_to_read: Vec::new(),
        features_to_write: Vec::new(),
        unknown: serde_json::Map::new(),
    }
}

/// The object of version 5 with this JSON as its body, soundly sealed.
fn sealed(value: &Value) -> Vec<u8> {
    let mut body = serde_json::to_vec_pretty(value).unwrap();
    body.push(b'\n');
    let mut bytes = head(NUMBER, &body).into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

fn example_with(field: &str, value: Value) -> Vec<u8> {
    let mut object = serde_json::to_value(example()).unwrap();
    object[field] = value;
    sealed(&object)
}

#[test]
fn a_superblock_reads_back() {
    let bytes = encode(NUMBER, &example());
    assert_eq!(decode(NUMBER, &bytes), Ok(example()));
    assert_eq!(bytes.iter().position(|byte| *byte == b'\n'), Some(HEAD_LEN - 1));
    assert_eq!(bytes.last(), Some(&b'\n'));
    let body: Value = serde_json::from_slice(&bytes[HEAD_LEN..]).unwrap();
    assert_eq!(body["size_bytes"], 1 << 30);
    assert_eq!(body["volume_id"], "11111111111111111111111111111111");
}

fn layout() -> LogLayout {
    LogLayout { prefix: String::new(), name_digits: 8, append_format: ObjectFormat::V2 }
}

/// An lsvd that does not know format 1 would not find the log, or take it for damaged: it must refuse the volume.
#[test]
fn a_layout_goes_with_its_feature() {
    let adopted = example().with_layout(Some(layout()));
    assert_eq!(adopted.features_to_read, [FEATURE_FORMAT_1]);
    assert_eq!(decode(NUMBER, &encode(NUMBER, &adopted)), Ok(adopted.clone()));
    assert_eq!(adopted.clone().with_layout(None), example());
    let without_feature = Superblock { features_to_read: Vec::new(), ..adopted.clone() };
    assert!(without_feature.validate(NUMBER).unwrap_err().contains("go together"));
    let without_layout = Superblock { log_layout: None, ..adopted };
    assert!(without_layout.validate(NUMBER).unwrap_err().contains("go together"));
}

#[test]
fn a_layout_that_can_not_be_is_refused() {
    let value = |layout: Value| {
        let mut object = serde_json::to_value(example().with_layout(Some(self::layout()))).unwrap();
        object["log_layout"] = layout;
        decode(NUMBER, &sealed(&object))
    };
    for (layout, words) in [
        (json!({ "prefix": "../", "name_digits": 8, "append_format": 1 }), "prefix"),
        (json!({ "prefix": "", "name_digits": 0, "append_format": 1 }), "at least one digit"),
        (json!({ "prefix": "", "name_digits": 8, "append_format": 3 }), "format 3"),
    ] {
        let error = value(layout).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(value(json!({ "prefix": "", "name_digits": 8, "append_format": 1 })).is_ok());
}

/// A checkpoint as of this number and epoch, written by the opening after that.
#[test]
fn a_removal_goes_with_its_feature() {
    let removal = Removal { fence: Some(SequenceNumber(7)), log_next: SequenceNumber(8), finished: false };
    let removed = example().with_layout(Some(layout())).with_removal(Some(removal));
    assert_eq!(removed.features_to_read, [FEATURE_FORMAT_1, FEATURE_REMOVED]);
    assert_eq!(decode(NUMBER, &encode(NUMBER, &removed)).as_ref(), Ok(&removed));
    assert!(!removed.is_gone());
    let gone = removed.clone().with_removal(Some(Removal { finished: true, ..removal }));
    assert_eq!((gone.features_to_read.len(), gone.log_first_number), (1, SequenceNumber(8)));
    assert!(gone.is_gone() && decode(NUMBER, &encode(NUMBER, &gone)).is_ok());
    assert_eq!(removed.clone().with_removal(None).removal, None);
    let without = Superblock { features_to_read: vec![FEATURE_FORMAT_1.to_owned()], ..removed.clone() };
    let only = Superblock { removal: None, ..removed.clone() };
    let below =
        Superblock { removal: Some(Removal { log_next: SequenceNumber(7), ..removal }), ..removed.clone() };
    let laid_out = Superblock { removal: Some(Removal { finished: true, ..removal }), ..removed };
    for impossible in [without, only, below, laid_out] {
        assert!(impossible.validate(NUMBER).is_err(), "{impossible:?}");
    }
}

fn checkpoint(as_of: u64, epoch: u64) -> CheckpointRef {
    let (as_of, epoch) = (SequenceNumber(as_of), Epoch(epoch));
    CheckpointRef {
        stamp: CheckpointStamp { as_of, epoch, writer: WriterId([0x33; 16]) },
        part: PartId { as_of, epoch: Epoch(epoch.0 + 1), serial: 0 },
        root_offset_bytes: 96,
        root_bytes: 200,
        taken_unix_ms: 0,
    }
}

fn range(first: u64, last: u64) -> NumberRange {
    NumberRange { first: SequenceNumber(first), last: SequenceNumber(last) }
}

fn with_condemned() -> Superblock {
    let superblock = example().with_checkpoints(vec![checkpoint(70, 2), checkpoint(90, 3)]);
    Superblock { condemned: vec![range(1, 1), range(3, 60), range(62, 70)], ..superblock }
}

fn snapshot(name: &str, as_of: u64, base: Option<CheckpointRef>) -> Snapshot {
    Snapshot {
        name: name.to_owned(),
        as_of: SequenceNumber(as_of),
        base,
        size_bytes: 1 << 30,
        created_unix_ms: 1_700_000_000_000,
        automatic: false,
        clone: None,
    }
}

/// A superblock with snapshots as (number of the base, number) and rollbacks.
pub(super) fn example_of(
    snapshots: &[(u64, u64)],
    rollbacks: impl IntoIterator<Item = Rollback>,
) -> Superblock {
    let snapshots = snapshots.iter().enumerate().map(|(nth, &(base, as_of))| {
        let base = (base > 0).then(|| checkpoint(base, 1));
        snapshot(&format!("s{nth}"), as_of, base)
    });
    let (snapshots, rollbacks) = (snapshots.collect(), rollbacks.into_iter().collect());
    example().with_moments(Moments { snapshots, rollbacks, ..Moments::default() })
}

fn rollback(to: u64, next: u64) -> Rollback {
    Rollback { to: SequenceNumber(to), next: SequenceNumber(next), epoch: Epoch(1), unix_ms: 5 }
}

/// An lsvd that does not know them would delete what a snapshot needs, or follow a branch that was left.
#[test]
fn moments_go_with_their_features() {
    let sizes = vec![SizeSince { since: SequenceNumber(7), size_bytes: 1 << 29 }];
    let moments = Moments {
        snapshots: vec![snapshot("a", 12, None)],
        history_ms: 1,
        rollbacks: vec![rollback(9, 100)],
        sizes,
    };
    let with = example().with_moments(moments);
    assert_eq!(with.features_to_write, [FEATURE_SNAPSHOT]);
    assert_eq!(with.features_to_read, [FEATURE_ROLLBACK, FEATURE_RESIZE]);
    assert_eq!(decode(NUMBER, &encode(NUMBER, &with)), Ok(with.clone()));
    for feature in [FEATURE_SNAPSHOT, FEATURE_ROLLBACK, FEATURE_RESIZE] {
        let mut without = with.clone();
        without.features_to_read.retain(|known| known != feature);
        without.features_to_write.retain(|known| known != feature);
        assert!(without.validate(NUMBER).unwrap_err().contains("go together"), "{feature}");
    }
    assert_eq!(with.with_moments(Moments::default()), example());
}

#[test]
fn moments_that_can_not_be_are_refused() {
    let kept = || vec![checkpoint(70, 2), checkpoint(90, 3)];
    let with = |moments: Moments| example().with_checkpoints(kept()).with_moments(moments).validate(NUMBER);
    let snapshots = |snapshots: Vec<Snapshot>| with(Moments { snapshots, ..Moments::default() });
    let rollbacks = |rollbacks: Vec<Rollback>| with(Moments { rollbacks, ..Moments::default() });
    assert_eq!(snapshots(vec![snapshot("a", 80, Some(checkpoint(70, 2))), snapshot("b", 80, None)]), Ok(()));
    assert!(snapshots(vec![snapshot("a", 80, None), snapshot("a", 90, None)]).unwrap_err().contains("two"));
    assert!(snapshots(vec![snapshot("a", 60, Some(checkpoint(70, 2)))]).unwrap_err().contains("its base"));
    for name in ["", "7", "-a", "a/b", "a@b", "ä", &"a".repeat(65)] {
        assert!(
            snapshots(vec![snapshot(name, 80, None)]).unwrap_err().contains("can not be called"),
            "{name}"
        );
    }
    assert_eq!(rollbacks(vec![rollback(90, 200), rollback(210, 300)]), Ok(()));
    assert!(rollbacks(vec![rollback(90, 90)]).unwrap_err().contains("a rollback to"));
    assert!(rollbacks(vec![rollback(95, 200), rollback(99, 150)]).unwrap_err().contains("a rollback to"));
    assert!(rollbacks(vec![rollback(80, 200)]).unwrap_err().contains("on a branch"));
    let size = |since, size_bytes| SizeSince { since: SequenceNumber(since), size_bytes };
    let sizes = |sizes: Vec<SizeSince>| with(Moments { sizes, ..Moments::default() });
    assert!(sizes(vec![size(1, 4097)]).unwrap_err().contains("a size of 4097"));
    assert!(sizes(vec![size(2, 4096), size(2, 8192)]).unwrap_err().contains("not in order"));
    let condemned = |snapshot: Snapshot| {
        let moments = Moments { snapshots: vec![snapshot], ..Moments::default() };
        Superblock { condemned: vec![range(30, 70)], ..example() }
            .with_checkpoints(kept())
            .with_moments(moments)
    };
    assert!(condemned(snapshot("a", 60, None)).validate(NUMBER).unwrap_err().contains("is condemned"));
    // What a base is as of is not needed beside it.
    assert_eq!(condemned(snapshot("a", 70, Some(checkpoint(70, 2)))).validate(NUMBER), Ok(()));
}

#[test]
fn a_moment_has_the_size_of_its_time() {
    let size = |since, size_bytes| SizeSince { since: SequenceNumber(since), size_bytes };
    // 1 GiB from 1 on, 2 GiB from 10 on; back to 5, and 4 GiB from 30 on.
    let sizes = vec![size(1, 1 << 30), size(10, 2 << 30), size(30, 4 << 30)];
    let moments = Moments { sizes, rollbacks: vec![rollback(5, 20)], ..Moments::default() };
    let superblock = Superblock { size_bytes: 4 << 30, ..example() }.with_moments(moments);
    for (last, gib) in [(5, 1), (9, 1), (10, 2), (19, 2), (20, 1), (29, 1), (30, 4), (99, 4)] {
        let line = superblock.line(SequenceNumber(last));
        assert_eq!(superblock.size_bytes_at(&line), gib << 30, "at {last}");
    }
    assert_eq!(superblock.largest_size_bytes(), 4 << 30);
}

#[test]
fn a_resize_is_remembered_with_the_size_before() {
    let sizes = |superblock: &Superblock| {
        superblock.moments.sizes.iter().map(|size| (size.since.0, size.size_bytes)).collect::<Vec<_>>()
    };
    let first = example().log_first_number;
    let grown = example().with_size(2 << 30, SequenceNumber(10));
    assert_eq!((grown.size_bytes, sizes(&grown)), (2 << 30, vec![(first.0, 1 << 30), (10, 2 << 30)]));
    assert_eq!(decode(NUMBER, &encode(NUMBER, &grown)), Ok(grown.clone()));
    let again = grown.clone().with_size(4 << 30, SequenceNumber(10));
    assert_eq!(sizes(&again), [(first.0, 1 << 30), (10, 4 << 30)], "nothing was written in between");
    let shrunk = again.with_size(1 << 20, SequenceNumber(12));
    assert_eq!((shrunk.size_bytes, shrunk.largest_size_bytes()), (1 << 20, 4 << 30));
    let mut many = shrunk;
    for nth in 0..2000 {
        many = many.with_size((1 + nth % 7) << 20, SequenceNumber(20 + nth));
    }
    assert_eq!(many.moments.sizes.len(), moments::SIZES_MAX);
    assert_eq!(many.validate(NUMBER), Ok(()));
    assert_eq!(many.largest_size_bytes(), 4 << 30, "objects of that time may be in the log still");
    assert_eq!(many.size_bytes_at(&many.line(SequenceNumber(2018))), (1 + 1998 % 7) << 20);
}

/// An lsvd that does not know checkpoints would take a log whose first objects were deleted for a damaged one: it must
/// refuse the volume.
#[test]
fn checkpoints_go_with_their_feature() {
    let superblock = with_condemned();
    assert_eq!(superblock.features_to_read, [FEATURE_CHECKPOINT]);
    let bytes = encode(NUMBER, &superblock);
    assert_eq!(decode(NUMBER, &bytes), Ok(superblock.clone()));
    let body: Value = serde_json::from_slice(&bytes[HEAD_LEN..]).unwrap();
    let part = json!({ "as_of": 70, "epoch": 3, "serial": 0 });
    let writer = "33".repeat(16);
    let expected = json!({ "as_of": 70, "epoch": 2, "writer": writer, "part": part, "root_offset_bytes": 96, "root_bytes": 200 });
    assert_eq!(body["checkpoints"][0], expected);
    assert_eq!(body["condemned"][1], json!({ "first": 3, "last": 60 }));
    let without_feature = Superblock { features_to_read: Vec::new(), ..superblock.clone() };
    assert!(without_feature.validate(NUMBER).unwrap_err().contains("go together"));
    let without_checkpoints =
        Superblock { checkpoints: Vec::new(), condemned: Vec::new(), ..superblock.clone() };
    assert!(without_checkpoints.validate(NUMBER).unwrap_err().contains("go together"));
    let none = Superblock { condemned: Vec::new(), ..superblock }.with_checkpoints(Vec::new());
    assert_eq!(none, example());
    let body = String::from_utf8(encode(NUMBER, &none)).unwrap();
    assert!(!body.contains("checkpoints") && !body.contains("condemned"), "old readers see what they knew");
    let layout = LogLayout { append_format: ObjectFormat::V1, ..layout() };
    let format_1 = with_condemned().with_layout(Some(layout));
    assert!(format_1.validate(NUMBER).unwrap_err().contains("goes on in format 1"));
}

/// Rules 7 and 8: what may not be named, and what may not be condemned.
#[test]
fn checkpoints_and_condemned_numbers_that_can_not_be_are_refused() {
    type Change = fn(&mut Superblock);
    let changes: &[(&str, Change)] = &[
        ("not in order", |superblock| superblock.checkpoints.reverse()),
        ("not in order", |superblock| superblock.checkpoints[1] = superblock.checkpoints[0]),
        ("not in order", |superblock| superblock.checkpoints[1].stamp.epoch = Epoch(1)),
        ("in part", |superblock| superblock.checkpoints[1].part.as_of = SequenceNumber(91)),
        ("of a log from 71 on", |superblock| superblock.log_first_number = SequenceNumber(71)),
        ("out of range", |superblock| superblock.checkpoints[0].part.epoch = Epoch(0)),
        ("as of epoch 0", |superblock| superblock.checkpoints[0].stamp.epoch = Epoch(0)),
        ("as of epoch 2 in part", |superblock| superblock.checkpoints[0].part.epoch = Epoch(1)),
        ("in a version of epoch 4", |superblock| superblock.checkpoints[1].part.epoch = Epoch(5)),
        ("a root of 31 bytes", |superblock| superblock.checkpoints[1].root_bytes = 31),
        ("from 95 in part", |superblock| superblock.checkpoints[1].root_offset_bytes = 95),
        ("a root of", |superblock| superblock.checkpoints[1].root_bytes = 1 << 40),
        ("a root of", |superblock| superblock.checkpoints[1].root_offset_bytes = u64::MAX),
        ("condemned from 3 to 2", |superblock| superblock.condemned[1].last = SequenceNumber(2)),
        ("could be one", |superblock| superblock.condemned[1].first = SequenceNumber(2)),
        ("could be one", |superblock| superblock.condemned.reverse()),
        ("from 1 to 71", |superblock| superblock.condemned[2].last = SequenceNumber(71)),
        ("from 1 to", |superblock| superblock.condemned[2].last = SequenceNumber(u64::MAX)),
        ("from 0 to 70", |superblock| superblock.condemned[0].first = SequenceNumber(0)),
        ("with 1 checkpoints", |superblock| superblock.checkpoints.truncate(1)),
        ("with 0 checkpoints", |superblock| {
            *superblock = Superblock { condemned: superblock.condemned.clone(), ..example() };
        }),
    ];
    for (words, change) in changes {
        let mut superblock = with_condemned();
        change(&mut superblock);
        let reason = superblock.validate(NUMBER).expect_err(words);
        assert!(reason.contains(words), "{words}: {reason}");
        let bytes = sealed(&serde_json::to_value(&superblock).unwrap());
        let error = decode(NUMBER, &bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

/// The seed may have counted from 0; format 2 never does.
#[test]
fn only_an_adopted_log_begins_at_0() {
    let from_0 = Superblock { log_first_number: SequenceNumber(0), ..example() };
    assert!(from_0.validate(NUMBER).is_err());
    assert_eq!(from_0.with_layout(Some(layout())).validate(NUMBER), Ok(()));
}

/// Rule 5: length and checksum are verified.
#[test]
fn every_bit_flip_is_noticed() {
    let sound = encode(NUMBER, &example());
    for bit in 0..sound.len() * 8 {
        let mut damaged = sound.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(NUMBER, &damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn every_truncation_is_named_with_its_offset() {
    let sound = encode(NUMBER, &example());
    for length in 0..sound.len() {
        match decode(NUMBER, &sound[..length]) {
            Err(DecodeError::Corrupt { offset_bytes, reason }) => {
                assert_eq!(offset_bytes, length as u64);
                assert!(reason.contains("truncated"), "{reason}");
            }
            other => panic!("{length}: {other:?}"),
        }
    }
}

#[test]
fn an_extended_superblock_is_named_with_its_offset() {
    let mut bytes = encode(NUMBER, &example());
    let end = bytes.len() as u64;
    bytes.extend_from_slice(b"\n\n");
    assert_eq!(
        decode(NUMBER, &bytes),
        Err(DecodeError::Corrupt { offset_bytes: end, reason: "2 bytes too many".to_owned() })
    );
}

#[test]
fn a_copy_under_another_name_is_noticed() {
    let bytes = encode(NUMBER, &example());
    let error = decode(SuperblockNumber(6), &bytes).unwrap_err();
    assert_eq!(error.to_string(), "this is superblock version 5 under the name of version 6 at byte 32");
    let mut renumbered = bytes;
    renumbered[47] = b'6';
    let error = decode(SuperblockNumber(6), &renumbered).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[test]
fn a_newer_format_is_newer() {
    let text = String::from_utf8(encode(NUMBER, &example())).unwrap();
    for format in ["3", "9", "10", "123456789"] {
        let newer = text.replacen("format=2", &format!("format={format}"), 1);
        let error = decode(NUMBER, newer.as_bytes()).unwrap_err();
        assert!(matches!(&error, DecodeError::Newer { what } if what.contains(format)), "{error}");
    }
    for format in ["1", "0", "02", "", "x", "-1", "1234567890"] {
        let strange = text.replacen("format=2", &format!("format={format}"), 1);
        let error = decode(NUMBER, strange.as_bytes()).unwrap_err();
        assert!(matches!(error, DecodeError::Corrupt { .. }), "{format}: {error}");
    }
}

#[test]
fn an_unknown_feature_to_read_is_newer_whatever_else_the_body_says() {
    let body = json!({ "features_to_read": ["compression"], "size_bytes": "a different type" });
    assert_eq!(
        decode(NUMBER, &sealed(&body)),
        Err(DecodeError::Newer { what: "a volume with the feature \"compression\"".to_owned() })
    );
}

#[test]
fn an_unknown_feature_to_write_can_be_read() {
    let superblock = decode(NUMBER, &example_with("features_to_write", json!(["leases"]))).unwrap();
    assert_eq!(superblock.unknown_features_to_write(), ["leases"]);
    assert!(example().unknown_features_to_write().is_empty());
}

#[test]
fn fields_of_later_versions_are_kept() {
    let later = json!({ "as_of": 7, "ratio": 0.1, "names": ["a", null, true] });
    let superblock = decode(NUMBER, &example_with("checkpoint", later.clone())).unwrap();
    assert_eq!(superblock.unknown["checkpoint"], later);
    assert_eq!(decode(NUMBER, &encode(NUMBER, &superblock)), Ok(superblock));
}

#[test]
fn impossible_values_are_named() {
    for (field, value) in [
        ("size_bytes", json!(0)),
        ("size_bytes", json!(4097)),
        ("size_bytes", json!(1u64 << 63)),
        ("size_bytes", json!(-4096)),
        ("size_bytes", json!(4096.0)),
        ("size_bytes", json!("4096")),
        ("window", json!(1)),
        ("window", json!((1u64 << 32) + 1)),
        ("epoch", json!(0)),
        ("epoch", json!(6)),
        ("log_first_number", json!(0)),
        ("log_first_number", json!(1u64 << 63)),
        ("closed_at", json!(u64::MAX)),
        ("log_reached", json!(1u64 << 63)),
        ("volume_id", json!("1111")),
        ("writer_id", json!("2222222222222222222222222222222G")),
        ("features_to_read", json!("compression")),
        ("journal", json!("7".repeat(32))),
    ] {
        let error = decode(NUMBER, &example_with(field, value.clone())).unwrap_err();
        assert!(matches!(error, DecodeError::Corrupt { .. }), "{field} {value}: {error}");
    }
}

#[test]
fn a_missing_field_is_named() {
    let mut object = serde_json::to_value(example()).unwrap();
    object.as_object_mut().unwrap().remove("writer_id");
    let error = decode(NUMBER, &sealed(&object)).unwrap_err();
    assert!(error.to_string().contains("writer_id"), "{error}");
}

#[test]
fn deep_nesting_is_an_error() {
    let mut body = vec![b'['; 100_000];
    body.push(b'\n');
    let mut bytes = head(NUMBER, &body).into_bytes();
    bytes.extend_from_slice(&body);
    assert!(matches!(decode(NUMBER, &bytes), Err(DecodeError::Corrupt { .. })));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::from))
}

fn any_superblock() -> impl Strategy<Value = (SuperblockNumber, Superblock)> {
    let numbers = (1..=NUMBER_MAX).prop_flat_map(|number| (Just(number), 1..=number));
    let values = (
        1..=VOLUME_BYTES_MAX / BLOCK_BYTES,
        WINDOW_MIN..=WINDOW_MAX,
        1..=NUMBER_MAX / 2,
        any::<bool>(),
        prop::option::of(0..=NUMBER_MAX),
        prop::option::of(0..=NUMBER_MAX),
        any::<u64>(),
        any::<String>(),
        prop::collection::vec("[a-z]{1,5}", 0..3),
        prop::collection::btree_map("later_[a-z]{1,5}", any_json(), 0..3),
    );
    let checkpoints = (
        prop::collection::btree_set(1..1u64 << 40, 0..4),
        prop::collection::vec((0..1u64 << 38, 2..1u64 << 38), 0..4),
    );
    (numbers, any::<[u8; 16]>(), any::<[u8; 16]>(), checkpoints, values).prop_map(
        |(
            (number, epoch),
            volume,
            writer,
            (as_of, condemned),
            (blocks, window, first, single, closed, reached, ms, by, write, unknown),
        )| {
            let checkpoints: Vec<_> = as_of
                .into_iter()
                .map(|rise| {
                    let mut kept = checkpoint(first + rise, 1);
                    kept.part.epoch = Epoch(epoch);
                    kept
                })
                .collect();
            let oldest = match &checkpoints[..] {
                [oldest, _, ..] => oldest.stamp.as_of.0,
                _ => 0,
            };
            let mut free = first;
            let condemned = condemned
                .into_iter()
                .map(|(more, gap)| {
                    let range = range(free, free + more);
                    free += more + gap;
                    range
                })
                .filter(|range| range.last.0 <= oldest)
                .collect();
            let superblock = Superblock {
                volume_id: VolumeId(volume),
                epoch: Epoch(epoch),
                writer_id: WriterId(writer),
                size_bytes: blocks * BLOCK_BYTES,
                window,
                log_first_number: SequenceNumber(first),
                log_layout: None,
                unsafe_single_writer: single,
                closed_at: closed.map(SequenceNumber),
                log_reached: reached.map(SequenceNumber),
                log_begun_epoch: None,
                journal: None,
                handover: None,
                unbroken_since: None,
                checkpoints: Vec::new(),
                condemned,
                moments: Moments::default(),
                log_follows: None,
                parents: Vec::new(),
                removal: None,
                written_unix_ms: ms,
                written_by: by,
                features_to_read: Vec::new(),
                features_to_write: write,
                unknown: unknown.into_iter().collect(),
            };
            let fence = reached.filter(|fence| fence % 3 == 1 && *fence < NUMBER_MAX);
            let removal = fence.map(|fence| Removal {
                fence: Some(SequenceNumber(fence)),
                log_next: SequenceNumber(fence + 1),
                finished: single,
            });
            let superblock = superblock.with_checkpoints(checkpoints).with_removal(removal);
            (SuperblockNumber(number), superblock)
        },
    )
}

proptest! {
    #[test]
    fn any_superblock_reads_back((number, superblock) in any_superblock()) {
        prop_assert_eq!(decode(number, &encode(number, &superblock)), Ok(superblock));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(number: u64, bytes: Vec<u8>) {
        let _ = decode(SuperblockNumber(number), &bytes);
    }

    #[test]
    fn an_arbitrary_body_does_not_panic(body in any_json()) {
        let _ = decode(NUMBER, &sealed(&body));
    }
}

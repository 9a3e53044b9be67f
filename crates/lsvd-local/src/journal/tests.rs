//! The journal against an SSD that forgets, and against damage.

use std::collections::BTreeMap;

use lsvd_format::journal::RecordKind;
use lsvd_format::{Epoch, JournalId, VolumeId, WriterId};

use super::*;
use crate::files::Directory;
use crate::testing::{Chance, Ssd};

const VOLUME: VolumeId = VolumeId([1; 16]);
const ID: JournalId = JournalId([7; 16]);
const WRITER: (Epoch, WriterId) = (Epoch(3), WriterId([2; 16]));
/// Worlds that the crash test goes through; 60,000 were run once.
const SEEDS: u64 = 1500;
/// So small that segments end often.
const LIMITS: Limits = Limits { segment_bytes: 9000, bytes_max: 1 << 20 };

fn data(record: u64, generation: u64) -> Vec<u8> {
    // The same for all generations, so that a torn tail's records lie where new ones will.
    let length = usize::try_from(record * 7919 % 5000).unwrap();
    let bytes = format!("record {record} of generation {generation}; ").into_bytes();
    bytes.into_iter().cycle().take(length).collect()
}

/// Writes a record whose kind and content follow from its number and generation.
fn write<F: Files>(
    writer: &mut JournalWriter<F>,
    record: u64,
    generation: u64,
) -> Result<Written, JournalError> {
    let data = data(record, generation);
    match record % 5 {
        _ if data.is_empty() => writer.write(record, WRITER, RecordKind::Zero, (generation + 1, 9), &[]),
        0 => writer.write(record, WRITER, RecordKind::Trim, (generation + 1, 1 << 40), &[]),
        _ => writer.write(record, WRITER, RecordKind::Data, (generation + 1, data.len() as u64), &data),
    }
}

type Replayed = Vec<(u64, RecordKind, u64, Vec<u8>)>;

fn open<F: Files>(
    files: F,
    contained: u64,
    limits: Limits,
) -> Result<(JournalWriter<F>, Replayed), JournalError> {
    let journal = Journal::open(files, VOLUME, ID)?;
    assert_eq!(journal.id(), ID);
    let mut replaying = journal.replay(contained)?;
    let mut replayed = Vec::new();
    while let Some((header, data)) = replaying.record()? {
        replayed.push((header.record, header.kind, header.start_bytes - 1, data));
    }
    Ok((replaying.finish(limits)?, replayed))
}

/// Rules 1 and 5, by crashes at any operation: what was synced is replayed, in order, as it was written, and nothing
/// else is; a journal that was crashed in the middle of being reopened is as good as any.
#[test]
fn what_was_synced_survives_every_crash() {
    for seed in 0..SEEDS {
        let mut chance = Chance(seed);
        let mut ssd = Ssd::new();
        // Generation of the newest writing of each record; what is promised; what the log contains.
        let mut written: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut synced, mut contained, mut attempted) = (0, 0, 0);
        for generation in 0..6 {
            ssd.operations_left = chance.below(120);
            let mut failed = None;
            match open(&mut ssd, contained, LIMITS) {
                Ok((mut writer, replayed)) => {
                    let last = contained + replayed.len() as u64;
                    assert_eq!(writer.last(), last.max(contained), "seed {seed}");
                    assert!(last >= synced, "seed {seed}: {synced} records were synced, {last} are left");
                    assert!(last <= attempted.max(contained), "seed {seed}: {last} of {attempted} records");
                    for ((record, kind, of, bytes), expected) in replayed.into_iter().zip(contained + 1..) {
                        assert_eq!(record, expected, "seed {seed}");
                        assert_eq!(
                            of, written[&record],
                            "seed {seed}: record {record} is of another writing"
                        );
                        if kind == RecordKind::Data {
                            assert_eq!(bytes, data(record, of), "seed {seed}: record {record}");
                        }
                    }
                    // An opening vouches for what it hands out.
                    (attempted, synced) = (last, synced.max(last));
                    while failed.is_none() {
                        let record = writer.last() + 1;
                        let result = match chance.below(10) {
                            0..6 => {
                                written.insert(record, generation);
                                attempted = record;
                                write(&mut writer, record, generation).map(|_| ())
                            }
                            6..9 => {
                                writer.files_mut().sync_fails = chance.below(20) == 0;
                                writer.sync().map(|last| synced = synced.max(last))
                            }
                            _ => {
                                contained += chance.below(writer.last() - contained + 1);
                                synced = synced.max(contained);
                                writer.release(contained)
                            }
                        };
                        failed = result.err();
                    }
                }
                // The power was cut while it was being opened: what it changed by then is on the disk.
                Err(JournalError::Io { .. }) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
            // A process that is killed leaves the system's cache as it is, and the power fails later.
            (ssd.operations_left, ssd.sync_fails) = (u64::MAX, false);
            if chance.below(3) > 0 {
                ssd = ssd.crash(&mut chance);
            }
        }
    }
}

/// A journal with twelve synced records in several segments.
fn twelve() -> Ssd {
    let (mut writer, replayed) = open(Ssd::new(), 0, LIMITS).unwrap();
    assert!(replayed.is_empty());
    for record in 1..=12 {
        assert_eq!(write(&mut writer, record, 0).unwrap(), Written::Done);
        writer.sync().unwrap();
    }
    writer.into_files()
}

/// Rules 4 and 5: what was synced and is damaged is an error that names file and byte, and changes nothing; what the log
/// contains may be damaged.
#[test]
fn damage_is_no_end() {
    let whole = twelve();
    let (_, replayed) = open(whole.clone(), 0, LIMITS).unwrap();
    assert_eq!(replayed.len(), 12);
    let segments: Vec<String> = whole.names().unwrap().into_iter().filter(|n| n.ends_with(SEGMENT)).collect();
    assert!(segments.len() >= 2, "{segments:?}");
    for segment in &segments {
        // What is reserved behind the last record holds nothing.
        let mut bytes = vec![0; usize::try_from(whole.len(segment).unwrap()).unwrap()];
        whole.read(segment, 0, &mut bytes).unwrap();
        let length = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for offset in (0..length).step_by(61) {
            let mut ssd = whole.clone();
            ssd.flip(segment, offset);
            let error = open(ssd.clone(), 0, LIMITS).map(|_| ()).expect_err("it is damaged");
            assert!(matches!(error, JournalError::Damaged { .. }), "{segment} at {offset}: {error}");
            open(ssd, 12, LIMITS).expect("the log contains all of it");
        }
        let mut ssd = whole.clone();
        ssd.swap(segment, segments.iter().find(|other| *other != segment).unwrap());
        assert!(matches!(open(ssd, 0, LIMITS), Err(JournalError::Damaged { .. })), "{segment} is another");
        let mut ssd = whole.clone();
        ssd.remove(segment).unwrap();
        assert!(matches!(open(ssd, 0, LIMITS), Err(JournalError::Damaged { .. })), "without {segment}");
    }
}

/// What the log contains is not handed out again, whole segments of it are removed, and writing goes on behind it.
#[test]
fn what_the_log_contains_is_dropped() {
    for contained in 0..=15 {
        let (mut writer, replayed) = open(twelve(), contained, LIMITS).unwrap();
        let records: Vec<u64> = replayed.iter().map(|(record, ..)| *record).collect();
        assert_eq!(records, (contained + 1..=12).collect::<Vec<_>>());
        let next = contained.max(12) + 1;
        write(&mut writer, next, 1).unwrap();
        writer.sync().unwrap();
        let (_, replayed) = open(writer.into_files(), contained.max(12), LIMITS).unwrap();
        assert_eq!(replayed.iter().map(|(record, ..)| *record).collect::<Vec<_>>(), [next]);
    }
    let (mut writer, _) = open(twelve(), 0, LIMITS).unwrap();
    let before = writer.bytes();
    writer.release(11).unwrap();
    assert!(writer.bytes() < before / 2, "{} of {before} bytes", writer.bytes());
}

/// A ceiling and a full disk are an answer and no failure: there is room again after a release, and what the log
/// contains by then is skipped.
#[test]
fn a_full_journal_goes_on_when_there_is_room() {
    let fill = |limits: Limits, ssd: Ssd| {
        let (mut writer, _) = open(ssd, 0, limits).unwrap();
        let mut record = 1;
        while write(&mut writer, record, 0).unwrap() == Written::Done {
            record += 1;
        }
        assert_eq!(writer.sync().unwrap(), record - 1);
        assert_eq!(write(&mut writer, record, 0).unwrap(), Written::Full, "again");
        writer.release(record + 2).unwrap();
        assert_eq!(write(&mut writer, record + 3, 5).unwrap(), Written::Done, "three were skipped");
        writer.sync().unwrap();
        let (_, replayed) = open(writer.into_files(), record + 2, limits).unwrap();
        assert_eq!((replayed.len(), replayed[0].0, replayed[0].2), (1, record + 3, 5));
        record
    };
    let by_limit = fill(Limits { bytes_max: 40_000, ..LIMITS }, Ssd::new());
    let mut small = Ssd::new();
    small.capacity = 50_000;
    let by_disk = fill(LIMITS, small);
    assert!(by_limit > 8 && by_disk > 8, "{by_limit}, {by_disk}");
}

/// Never retried into false success: after a sync that failed nothing is taken, though the next sync would succeed.
#[test]
fn a_failed_sync_is_for_good() {
    let (mut writer, _) = open(Ssd::new(), 0, LIMITS).unwrap();
    write(&mut writer, 1, 0).unwrap();
    writer.files_mut().sync_fails = true;
    assert!(matches!(writer.sync(), Err(JournalError::Io { .. })));
    writer.files_mut().sync_fails = false;
    assert!(matches!(writer.sync(), Err(JournalError::Failed)));
    assert!(matches!(write(&mut writer, 2, 0), Err(JournalError::Failed)));
}

/// Nor by a new process: what the system reads back after a sync that failed may be in its memory alone. What an opening
/// hands out is on the disk.
#[test]
fn what_a_failed_sync_left_in_memory_is_written_again() {
    let (mut writer, _) = open(Ssd::new(), 0, LIMITS).unwrap();
    for record in 1..=6 {
        write(&mut writer, record, 0).unwrap();
        if record == 3 {
            writer.sync().unwrap();
        }
    }
    writer.files_mut().sync_fails = true;
    writer.sync().unwrap_err();
    let mut ssd = writer.into_files();
    ssd.sync_fails = false;
    let (writer, replayed) = open(ssd, 0, LIMITS).unwrap();
    assert_eq!(replayed.len(), 6);
    for seed in 0..50 {
        let after = writer.files().clone().crash(&mut Chance(seed));
        assert_eq!(open(after, 0, LIMITS).unwrap().1, replayed);
    }
}

/// A record that a newer program wrote is no torn tail: it is left as it is.
#[test]
fn a_newer_record_is_not_cut_off() {
    let mut ssd = twelve();
    let name = segment_name(1);
    let mut head = [0; 128];
    ssd.read(&name, 0, &mut head).unwrap();
    // A flag that is not known yet, with a sound checksum: offsets as in docs/format.md.
    head[15] = 1;
    let seed = crc32c::crc32c_append(crc32c::crc32c(&ID.0), &1_u64.to_le_bytes());
    let checksum = crc32c::crc32c_append(seed, &head[12..]);
    head[8..12].copy_from_slice(&checksum.to_le_bytes());
    assert!(matches!(RecordHeader::decode(&head), Err(lsvd_format::DecodeError::Newer { .. })));
    ssd.overwrite(&name, 0, &head);
    ssd.remove(SYNCED).unwrap();
    let before = ssd.len(&name).unwrap();
    let error = open(&mut ssd, 0, LIMITS).expect_err("it is newer");
    assert!(error.to_string().contains("newer lsvd"), "{error}");
    assert_eq!(ssd.len(&name).unwrap(), before);
}

/// A ceiling that is not a multiple of a segment's length does not stop a journal in which nothing is needed.
#[test]
fn a_journal_of_released_records_takes_more() {
    for bytes_max in [8000, 9000, 12_000, 20_000, 40_000] {
        let (mut writer, _) = open(Ssd::new(), 0, Limits { bytes_max, ..LIMITS }).unwrap();
        let mut record = 1;
        for _ in 0..200 {
            while write(&mut writer, record, 0).unwrap() == Written::Done {
                record += 1;
            }
            writer.sync().unwrap();
            writer.release(record - 1).unwrap();
            assert_eq!(write(&mut writer, record, 0).unwrap(), Written::Done, "{bytes_max}, {record}");
            record += 1;
        }
    }
}

/// What the log says comes from outside.
#[test]
fn a_log_that_contains_impossible_records_is_refused() {
    for contained in [u64::MAX, NUMBER_MAX] {
        assert!(matches!(open(twelve(), contained, LIMITS), Err(JournalError::Damaged { .. })));
    }
}

/// A journal that is given up or finished leaves a directory that anybody can use, wherever a crash cuts that short; until
/// then it is the journal that it was.
#[test]
fn a_journal_that_is_removed_is_a_journal_until_it_is_none() {
    const NEW: JournalId = JournalId([8; 16]);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..400 {
        let mut chance = Chance(seed);
        let mut ssd = twelve();
        ssd.operations_left = seed % 20;
        let anew = match seed % 2 {
            0 => Journal::open(&mut ssd, VOLUME, ID).and_then(|journal| journal.begin_anew(NEW)).is_ok(),
            _ => open(&mut ssd, 12, LIMITS).and_then(|(writer, _)| writer.finish()).is_ok(),
        };
        let ssd = ssd.crash(&mut chance);
        let journal = Journal::open(ssd, VOLUME, NEW).unwrap();
        let (id, had_segments) = (journal.id(), journal.has_segments());
        assert!(id == ID || !had_segments, "seed {seed}");
        assert!(id == NEW || !anew, "seed {seed}");
        let writer = journal.replay(12).unwrap().finish(LIMITS).unwrap();
        assert_eq!(writer.last(), 12);
        seen.insert((id == NEW, had_segments));
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

/// Another volume's journal is refused and left as it is.
#[test]
fn another_volumes_journal_is_refused() {
    let other = VolumeId([9; 16]);
    let error = Journal::open(twelve(), other, JournalId([8; 16])).expect_err("it is another volume's");
    assert!(matches!(error, JournalError::OtherVolume { ours, theirs: VOLUME } if ours == other), "{error}");
    let mut ssd = twelve();
    ssd.flip(IDENTITY, 40);
    assert!(matches!(Journal::open(ssd, VOLUME, ID), Err(JournalError::Damaged { .. })));
}

/// Real files: what was synced is there for the next opening, and no two openings share a directory.
#[test]
fn a_real_directory_holds_a_journal() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a/journal");
    let (mut writer, replayed) = open(Directory::open(&path).unwrap(), 0, LIMITS).unwrap();
    assert!(replayed.is_empty());
    let busy = Directory::open(&path).expect_err("it is locked");
    assert_eq!(busy.kind(), ErrorKind::ResourceBusy);
    for record in 1..=20 {
        write(&mut writer, record, 0).unwrap();
    }
    assert_eq!(writer.sync().unwrap(), 20);
    drop(writer);
    let (mut writer, replayed) = open(Directory::open(&path).unwrap(), 7, LIMITS).unwrap();
    assert_eq!(replayed.iter().map(|(record, ..)| *record).collect::<Vec<_>>(), (8..=20).collect::<Vec<_>>());
    assert!(
        replayed
            .iter()
            .all(|(record, kind, _, bytes)| *kind != RecordKind::Data || *bytes == data(*record, 0))
    );
    writer.release(20).unwrap();
    drop(writer);
    let left = std::fs::read_dir(&path).unwrap().count();
    assert!(left <= 4, "identity, lock, synced and at most one segment: {left}");
}

/// A segment that could not be removed when it was released is removed with the journal: left behind alone, it would make
/// the directory of no use to anybody. (The simulator's seed 117932.)
#[test]
fn a_segment_that_could_not_be_removed_goes_with_the_journal() {
    let mut ssd = Ssd::new();
    let (mut writer, _) = open(&mut ssd, 0, LIMITS).unwrap();
    for record in 1..=12 {
        write(&mut writer, record, 0).unwrap();
    }
    writer.sync().unwrap();
    writer.files_mut().removes_fail = true;
    writer.release(12).expect_err("it says so");
    writer.files_mut().removes_fail = false;
    writer.finish().unwrap();
    assert_eq!(ssd.names().unwrap(), Vec::<String>::new());
    open(ssd, 0, LIMITS).expect("the directory is free for another journal");
}

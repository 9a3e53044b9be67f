//! A log that goes on in format 1: no identity in its objects, and what is safe all the same.

use bytes::Bytes;
use lsvd_format::v1::{Entry, Header};
use lsvd_volume::{CreateOptions, Error, JournalOptions, ObjectFormat, OpenOptions, Volume, create};

use crate::common::{BLOCK, Fate, MIB, Verb, World, blocks, fill_of, read, settle, write_block};

async fn world() -> World {
    let world = World::empty();
    let options =
        CreateOptions { log_format: ObjectFormat::V1, unsafe_single_writer: true, ..world.create_options() };
    create(&world.bucket, &options).await.unwrap();
    world.store.forget();
    world
}

async fn try_open(world: &World) -> Result<Volume, Error> {
    Volume::open(world.bucket.clone(), options(world)).await
}

fn options(world: &World) -> OpenOptions {
    OpenOptions { unsafe_single_writer: true, ..world.options() }
}

async fn open(world: &World) -> Volume {
    try_open(world).await.expect("it opens")
}

/// The name of a log object.
fn log(number: u64) -> String {
    format!("{number:016x}")
}

/// The log objects.
fn logs(world: &World) -> Vec<String> {
    world.store.names("").into_iter().filter(|name| !name.contains('/')).collect()
}

/// An object of format 1 that fills `blocks` blocks from `at` on.
fn object(at: u64, blocks: u32, fill: u8) -> Bytes {
    let entries = vec![Entry { address_bytes: at * BLOCK, size_bytes: blocks * 4096 }];
    let header = Header { entries, mark: None };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes.resize(usize::try_from(header.object_bytes()).unwrap(), fill);
    bytes.into()
}

fn header(world: &World, number: u64) -> Header {
    Header::decode(&world.store.bytes(&log(number)).unwrap()).unwrap()
}

/// Rule 2: with no identity to look at, a lost answer is resolved by comparing all bytes, marks included.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_resolved_by_comparing_all_bytes() {
    let world = world().await;
    world.store.rule(Verb::Put, &log(1), Fate::AnswerLost, 1);
    let volume = open(&world).await;
    world.store.rule(Verb::Put, &log(2), Fate::AnswerLost, 1);
    write_block(&volume, 1, 11).await.unwrap();
    write_block(&volume, 2, 22).await.unwrap();
    assert_eq!(logs(&world), [1, 2, 3].map(log));
    world.store.rule(Verb::Put, &log(4), Fate::SaysExists, 3);
    write_block(&volume, 3, 33).await.unwrap();
    drop(volume);
    let volume = open(&world).await;
    for block in 1..4 {
        assert_eq!(u64::from(fill_of(&volume, block).await.unwrap()), 11 * block);
    }
}

/// Rules 2 and 9: an object at my number that differs in one byte is another's; it is not overwritten, and I end.
#[tokio::test(start_paused = true)]
async fn other_bytes_at_my_number_fence_me() {
    let world = world().await;
    let volume = open(&world).await;
    // What the batch below would be, but for its last byte.
    let mut theirs = object(1, 1, 11).to_vec();
    *theirs.last_mut().unwrap() = 12;
    world.store.put(&log(2), theirs.clone());
    assert!(matches!(write_block(&volume, 1, 11).await, Err(Error::Fenced { .. })));
    assert_eq!(world.store.bytes(&log(2)).unwrap(), theirs);
    drop(volume);
    // It belongs to the log: it may be acknowledged.
    let volume = open(&world).await;
    assert_eq!(read(&volume, BLOCK, BLOCK).await.unwrap(), theirs[12_288..]);
}

/// A batch closes at 1,024 entries, which fill the header, and not before: neighbours are one entry.
#[tokio::test(start_paused = true)]
async fn a_batch_closes_at_1024_entries() {
    let world = world().await;
    let volume = open(&world).await;
    // Every other block: no two are neighbours.
    for nth in 0..1500u64 {
        volume.write(nth * 2 * BLOCK, blocks(1, nth as u8), false).await.unwrap();
    }
    volume.flush().await.unwrap();
    assert_eq!(logs(&world), [1, 2, 3].map(log));
    assert_eq!((header(&world, 2).entries.len(), header(&world, 3).entries.len()), (1024, 476));
    // 1,500 writes side by side are one entry, and the same written again is still one.
    for nth in (0..1500u64).chain(0..20) {
        volume.write(nth * BLOCK, blocks(1, 1), false).await.unwrap();
    }
    volume.flush().await.unwrap();
    assert_eq!(header(&world, 4).entries, [Entry { address_bytes: 0, size_bytes: 1500 * 4096 }]);
    drop(volume);
    let volume = open(&world).await;
    assert_eq!(fill_of(&volume, 1499).await.unwrap(), 1);
    assert_eq!(fill_of(&volume, 2998).await.unwrap(), 1499u64 as u8);
}

/// There is no entry for what was discarded: TRIM is an error, and zeroes are data, as many as there are.
#[tokio::test(start_paused = true)]
async fn zeroes_are_written_and_trim_is_refused() {
    let world = world().await;
    let volume = open(&world).await;
    assert_eq!(volume.description().append_format, ObjectFormat::V1);
    volume.write(0, blocks(1024, 9), true).await.unwrap();
    let error = volume.trim(0, BLOCK, false).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains("format 1"), "{error}");
    volume.write_zeroes(1000, 3 * MIB, false, true).await.unwrap();
    assert_eq!(volume.stats().buffered_bytes, 0, "FUA");
    drop(volume);
    let volume = open(&world).await;
    let bytes = read(&volume, 0, 4 * MIB).await.unwrap();
    let (start, end) = (1000, 1000 + 3 * (1 << 20));
    assert!(bytes[..start].iter().chain(&bytes[end..]).all(|byte| *byte == 9));
    assert!(bytes[start..end].iter().all(|byte| *byte == 0));
    let stored: u64 =
        (1..=logs(&world).len() as u64).map(|number| header(&world, number).object_bytes()).sum();
    assert!(stored > 7 * MIB, "{stored} bytes: zeroes are stored");
}

/// An object of format 1 names no journal record, so that a replay would not know where to go on.
#[tokio::test(start_paused = true)]
async fn a_local_journal_is_refused() {
    let world = world().await;
    let directory = tempfile::tempdir().unwrap();
    let journal = Some(JournalOptions::directory(directory.path()));
    let before = world.store.image();
    let opened = Volume::open(world.bucket.clone(), OpenOptions { journal, ..options(&world) }).await;
    let error = opened.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains("no local journal"), "{error}");
    assert!(world.store.image() == before, "nobody is fenced");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Rule 9: an older writer that still lives meets the new one's mark at its first incomplete number, and can acknowledge
/// nothing more, whatever it has above.
#[tokio::test(start_paused = true)]
async fn an_older_writer_meets_the_mark() {
    let world = world().await;
    let old = open(&world).await;
    write_block(&old, 1, 11).await.unwrap();
    // Number 3 is held up on its way, 4 gets through.
    world.store.rule(Verb::Put, &log(3), Fate::Hangs, 1);
    let waiting = tokio::spawn({
        let old = old.clone();
        async move { write_block(&old, 2, 22).await }
    });
    settle().await;
    let also = tokio::spawn({
        let old = old.clone();
        async move { write_block(&old, 3, 33).await }
    });
    settle().await;
    assert_eq!(logs(&world), [1, 2, 4].map(log));
    let new = open(&world).await;
    assert_eq!(new.description().recovery.objects_archived, 1);
    assert_eq!(header(&world, 3).mark.unwrap().epoch, new.description().epoch);
    world.store.release();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Fenced { .. })));
    assert!(matches!(also.await.unwrap(), Err(Error::Fenced { .. })));
    write_block(&new, 4, 44).await.unwrap();
    assert_eq!(fill_of(&new, 1).await.unwrap(), 11);
    assert_eq!(fill_of(&new, 2).await.unwrap(), 0);
    assert_eq!(fill_of(&new, 3).await.unwrap(), 0);
    assert_eq!(logs(&world), [1, 2, 3, 4].map(log));
}

/// Rules 3 and 9: what an older writer put first belongs to the log, as it may be acknowledged, with what follows it.
#[tokio::test(start_paused = true)]
async fn what_came_before_the_mark_is_taken_in() {
    let world = world().await;
    let old = open(&world).await;
    write_block(&old, 1, 11).await.unwrap();
    world.store.put(&log(4), object(4, 1, 44));
    let late = object(3, 1, 33);
    world.store.before(Verb::Put, &log(3), move |store| store.put(&log(3), late.clone()));
    let volume = open(&world).await;
    let recovery = volume.description().recovery;
    assert_eq!((recovery.durable_number.0, recovery.objects_archived), (5, 0));
    for block in [1, 3, 4] {
        assert_eq!(u64::from(fill_of(&volume, block).await.unwrap()), 11 * block);
    }
}

/// Rule 3: what lies beyond the gap is archived byte for byte, before its number is used; if it can not be, the volume
/// does not open. Regression for a bug that was nearly made: a mark closes the gap, so that an opening that fails right
/// behind it would have let the stragglers rejoin the log.
#[tokio::test(start_paused = true)]
async fn stragglers_are_archived_or_nothing_is_written() {
    let world = world().await;
    let old = open(&world).await;
    write_block(&old, 1, 11).await.unwrap();
    drop(old);
    let stragglers = [object(1, 1, 98), object(1, 2, 99)];
    world.store.put(&log(4), stragglers[0].clone());
    world.store.put(&log(6), stragglers[1].clone());
    world.store.rule(Verb::Put, "archive/", Fate::Denied, 1);
    assert!(matches!(try_open(&world).await, Err(Error::Store { .. })));
    let reader = Volume::open_read_only(world.bucket.clone(), options(&world)).await.unwrap();
    assert_eq!(fill_of(&reader, 1).await.unwrap(), 11);
    let volume = open(&world).await;
    assert_eq!(volume.description().recovery.durable_number.0, 3, "the mark of the opening that failed");
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 11);
    let mut archived = world.store.names("archive/");
    archived.retain(|name| name.contains("-epoch-0000000000000005-"));
    for (name, (number, bytes)) in archived.iter().zip([4, 6].into_iter().zip(&stragglers)) {
        assert!(name.ends_with(&format!("-beyond-fence/{}", log(number))), "{archived:?}");
        assert_eq!(world.store.bytes(name).unwrap(), bytes);
    }
    assert_eq!(archived.len(), 2);
    write_block(&volume, 2, 22).await.unwrap();
    assert_eq!(header(&world, 4).entries.len(), 1);
    drop(volume);
    let volume = open(&world).await;
    assert_eq!((fill_of(&volume, 1).await.unwrap(), fill_of(&volume, 2).await.unwrap()), (11, 22));
}

/// Rule 9: whoever sleeps between its superblock and its mark finds a newer writer's mark, and knows that it lost.
#[tokio::test(start_paused = true)]
async fn a_newer_mark_fences_an_older_opening() {
    let world = world().await;
    let volume = open(&world).await;
    write_block(&volume, 1, 11).await.unwrap();
    let newer = {
        let description = volume.description();
        let mark = lsvd_format::v1::Mark {
            volume: description.volume_id,
            epoch: lsvd_format::Epoch(9),
            writer: description.writer_id,
            number: lsvd_format::SequenceNumber(3),
        };
        let mut bytes = Vec::new();
        Header { entries: Vec::new(), mark: Some(mark) }.encode(&mut bytes);
        bytes
    };
    world.store.before(Verb::Put, &log(3), move |store| store.put(&log(3), newer.clone()));
    match try_open(&world).await {
        Err(Error::Fenced { epoch, .. }) => assert_eq!(epoch.unwrap().0, 9),
        other => panic!("{other:?}"),
    }
}

/// Rule 4: an object far beyond a gap means a loss; one of format 2 in this log is an error, and neither is an end.
#[tokio::test(start_paused = true)]
async fn what_can_not_be_in_this_log_is_an_error() {
    let world = world().await;
    let volume = open(&world).await;
    write_block(&volume, 1, 11).await.unwrap();
    volume.close().await.unwrap();
    world.store.put(&log(40), object(1, 1, 99));
    let error = try_open(&world).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains("is missing"), "{error}");
    world.store.remove(&log(40));
    let description = volume.description();
    let identity = lsvd_format::ObjectIdentity {
        volume: description.volume_id,
        epoch: lsvd_format::Epoch(9),
        writer: description.writer_id,
        number: lsvd_format::SequenceNumber(3),
    };
    world.store.put(&log(3), crate::common::object(identity, lsvd_format::Extent::new(0, 1), 9));
    let error = try_open(&world).await.unwrap_err();
    assert!(error.to_string().contains("it is of format 2"), "{error}");
}

/// Rule 5: what can be verified is: a payload that is shorter than its header says.
#[tokio::test(start_paused = true)]
async fn a_truncated_object_is_an_error() {
    let world = world().await;
    let volume = open(&world).await;
    write_block(&volume, 1, 11).await.unwrap();
    drop(volume);
    let reader = Volume::open_read_only(world.bucket.clone(), options(&world)).await.unwrap();
    let whole = world.store.bytes(&log(2)).unwrap();
    world.store.put(&log(2), whole.slice(..whole.len() - 1));
    assert!(matches!(fill_of(&reader, 1).await, Err(Error::Corrupt { .. })));
    assert!(matches!(try_open(&world).await, Err(Error::Corrupt { .. })));
}

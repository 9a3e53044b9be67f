//! Taking a volume over: the old writer is fenced, what it had acknowledged is kept, and a loser spoils nothing.

use std::time::Duration;

use lsvd_format::{Epoch, SuperblockNumber, WriterId, names, superblock};
use lsvd_volume::{Error, OpenOptions, Volume};

use crate::common::{BLOCK, Fate, Verb, World, blocks, fill_of, log, settle, write_block};

fn fenced_by(result: Result<(), Error>) -> Option<Epoch> {
    match result {
        Err(Error::Fenced { epoch, .. }) => epoch,
        other => panic!("not fenced: {other:?}"),
    }
}

/// Rule 9: the second opening fences the first, whichever way the first next asks for durability, and has all that
/// the first had acknowledged (rule 1).
#[tokio::test(start_paused = true)]
async fn a_second_opening_fences_the_first() {
    for how in ["flush", "fua write", "fua trim", "nothing"] {
        let world = World::new().await;
        let first = world.open().await;
        let ended = tokio::spawn(first.ended());
        write_block(&first, 1, 11).await.unwrap();
        let second = world.open().await;
        assert_eq!(second.description().epoch, Epoch(3));
        assert_eq!(fill_of(&second, 1).await.unwrap(), 11);
        settle().await;
        assert!(!ended.is_finished(), "nothing has told the first yet");

        // It may accept a write that it has not to store yet.
        first.write(BLOCK, blocks(1, 99), false).await.unwrap();
        match how {
            "flush" => assert_eq!(fenced_by(first.flush().await), Some(Epoch(3))),
            "fua write" => {
                assert_eq!(fenced_by(first.write(0, blocks(1, 99), true).await), Some(Epoch(3)));
            }
            "fua trim" => assert_eq!(fenced_by(first.trim(0, BLOCK, true).await), Some(Epoch(3))),
            // The batch's age asks for it.
            _ => tokio::time::sleep(Duration::from_secs(2)).await,
        }
        assert!(matches!(ended.await.unwrap(), Error::Fenced { epoch: Some(Epoch(3)), .. }));
        fenced_by(first.write(0, blocks(1, 99), false).await);
        fenced_by(first.flush().await);
        fenced_by(first.read(0, BLOCK).await.map(drop));
        fenced_by(first.block_status(0, BLOCK).await.map(drop));
        fenced_by(first.close().await);
        write_block(&second, 2, 22).await.unwrap();
        drop((first, second));
        let third = world.open().await;
        assert_eq!(fill_of(&third, 1).await.unwrap(), 11, "after {how}");
        assert_eq!(fill_of(&third, 2).await.unwrap(), 22);
    }
}

/// Rule 9: an old writer that only reads notices by a look at the superblocks while its client is active, and makes no
/// request at all while it is idle.
#[tokio::test(start_paused = true)]
async fn a_fenced_writer_that_only_reads_notices() {
    let world = World::new().await;
    let first = world.open().await;
    write_block(&first, 1, 11).await.unwrap();
    let second = world.open().await;
    write_block(&second, 1, 22).await.unwrap();
    world.store.forget();
    let ended = tokio::spawn(first.ended());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(world.store.made().is_empty() && !ended.is_finished(), "it is idle");
    assert_eq!(fill_of(&first, 1).await.unwrap(), 11, "old data until its check");
    let ended = tokio::time::timeout(Duration::from_secs(1), ended).await.expect("it looks at once");
    assert!(matches!(ended.unwrap(), Error::Fenced { .. }));
    assert!(matches!(fill_of(&first, 1).await, Err(Error::Fenced { .. })));
    assert_eq!(world.store.count(Verb::List, "superblock"), 1);
    assert_eq!(fill_of(&second, 1).await.unwrap(), 22);
}

/// Requests that wait for the store when their volume is fenced are told so, and at once: neither that it is closed nor
/// that the store is slow.
#[tokio::test(start_paused = true)]
async fn waiting_requests_are_told_that_they_are_fenced() {
    let world = World::new().await;
    let old = world.open().await;
    write_block(&old, 1, 11).await.unwrap();
    drop(old);
    let first = world.open().await;
    let _second = world.open().await;
    world.store.always(Verb::Get, "log/0000000000000009", Fate::Hangs);
    let spawn = |volume: Volume| tokio::spawn(async move { volume.read(BLOCK, BLOCK).await.map(drop) });
    let reads = [spawn(first.clone()), spawn(first.clone())];
    let part = first.clone();
    let part = tokio::spawn(async move { part.write(BLOCK + 5, "part".into(), false).await });
    settle().await;
    let before = tokio::time::Instant::now();
    fenced_by(first.write(0, blocks(1, 1), true).await);
    for read in reads {
        fenced_by(read.await.unwrap());
    }
    fenced_by(part.await.unwrap());
    assert_eq!(before.elapsed(), Duration::ZERO);
}

/// Two openings at once: one of them, and only one, can then write, and nothing acknowledged is lost.
#[tokio::test(start_paused = true)]
async fn of_two_openings_at_once_one_writes() {
    // Different speeds of their requests make them meet at different steps.
    for slow_put in [0, 3, 7, 20] {
        for slow_list in [0, 2, 5, 30] {
            let world = World::new().await;
            write_block(&world.open().await, 1, 11).await.unwrap();
            let slow = |ms| Fate::Slow(Duration::from_millis(ms));
            world.store.rule(Verb::Put, "", slow(slow_put), 1);
            world.store.rule(Verb::List, "", slow(slow_list), 2);
            world.store.rule(Verb::Put, "log", slow(slow_put + 4), 1);
            let (a, b) = tokio::join!(world.try_open(), world.try_open());
            let mut writers = 0;
            for (nth, volume) in [a, b].into_iter().enumerate() {
                let written = match volume {
                    Ok(volume) => write_block(&volume, 2 + nth as u64, 22).await.map(|()| volume),
                    Err(error) => Err(error),
                };
                match written {
                    Ok(volume) => {
                        writers += 1;
                        assert_eq!(fill_of(&volume, 1).await.unwrap(), 11);
                    }
                    Err(Error::Fenced { .. }) => {}
                    Err(other) => panic!("neither writer nor fenced: {other}"),
                }
            }
            assert_eq!(writers, 1, "puts {slow_put} ms, lists {slow_list} ms slow");
            let last = world.open().await;
            assert_eq!(fill_of(&last, 1).await.unwrap(), 11);
            let survived = [fill_of(&last, 2).await.unwrap(), fill_of(&last, 3).await.unwrap()];
            assert!(survived.contains(&22), "what the winner flushed is there: {survived:?}");
        }
    }
}

/// Regression: an opening that stalled after it had raised the epoch, and meanwhile lost the volume to a newer one that
/// writes already, put its fence at the newer one's next number, where it landed as the number was free. Epochs fell,
/// the newer writer was fenced by the loser, and no one could open the volume any more.
#[tokio::test(start_paused = true)]
async fn a_stalled_opening_leaves_the_log_of_its_successor_alone() {
    let world = World::new().await;
    write_block(&world.open().await, 1, 11).await.unwrap();
    world.store.rule(Verb::List, "log", Fate::Hangs, 1);
    let (bucket, options) = (world.bucket.clone(), world.options());
    let stalled = tokio::spawn(Volume::open(bucket, options));
    settle().await;
    let newer = world.open().await;
    write_block(&newer, 2, 22).await.unwrap();
    world.store.release();
    match stalled.await.unwrap() {
        Err(Error::Fenced { epoch, .. }) => assert_eq!(epoch, Some(newer.description().epoch)),
        other => panic!("it lost: {other:?}"),
    }
    write_block(&newer, 3, 33).await.unwrap();
    drop(newer);
    let last = world.open().await;
    for (block, fill) in [(1, 11), (2, 22), (3, 33)] {
        assert_eq!(fill_of(&last, block).await.unwrap(), fill);
    }
}

/// Wherever an opening stalls while a newer one goes by, one of the two can write then, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn an_opening_may_stall_at_any_request() {
    let mut stalls_at = 0;
    loop {
        let world = World::new().await;
        write_block(&world.open().await, 1, 11).await.unwrap();
        world.store.forget();
        let (bucket, options) = (world.bucket.clone(), world.options());
        for verb in [Verb::Put, Verb::Get, Verb::List] {
            world.store.always(verb, "", Fate::Slow(Duration::from_secs(1)));
        }
        let stalled = tokio::spawn(Volume::open(bucket, options));
        tokio::time::sleep(Duration::from_millis(1000 * stalls_at + 500)).await;
        let finished = stalled.is_finished();
        world.store.release();
        // What is under way takes effect only when the newer one, which nothing slows, has written.
        let newer = world.open().await;
        write_block(&newer, 2, 22).await.unwrap();
        let mut opened = vec![newer];
        match stalled.await.unwrap() {
            Err(Error::Fenced { .. }) => {}
            // It had not raised its epoch yet, and takes over what was the newer one.
            Ok(volume) => opened.push(volume),
            Err(other) => panic!("stalled at its request {stalls_at}: {other}"),
        }
        let mut writers = 0;
        for volume in &opened {
            match write_block(volume, 3, 33).await {
                Ok(()) => writers += 1,
                Err(error) => assert!(matches!(error, Error::Fenced { .. }), "{error}"),
            }
        }
        assert_eq!(writers, 1, "stalled at its request {stalls_at}");
        let last = world.open().await;
        for (block, fill) in [(1, 11), (2, 22), (3, 33)] {
            assert_eq!(fill_of(&last, block).await.unwrap(), fill, "stalled at its request {stalls_at}");
        }
        if finished {
            break;
        }
        stalls_at += 1;
    }
    assert!(stalls_at >= 6, "an opening makes some requests: {stalls_at}");
}

/// Step 3 of taking over: a writer that lost by the time its fence has landed archives nothing any more.
#[tokio::test(start_paused = true)]
async fn a_loser_archives_nothing() {
    let world = World::new().await;
    let old = world.open().await;
    write_block(&old, 1, 11).await.unwrap();
    world.put_old_object(&old, 2, 11, 1, 99);
    // Before its third look at the superblocks a newer writer has begun.
    for _ in 0..2 {
        world.store.before(Verb::List, "superblock", |_| {});
    }
    world.store.before(Verb::List, "superblock", |store| {
        let newest = store.names("superblock/").pop().unwrap();
        let number = names::parse_superblock(&newest).unwrap();
        let mut superblock = superblock::decode(number, &store.bytes(&newest).unwrap()).unwrap();
        superblock.epoch = Epoch(number.next().0);
        store.put(&names::superblock(number.next()), superblock::encode(number.next(), &superblock));
    });
    assert_eq!(fenced_by(world.try_open().await.map(drop)), Some(Epoch(4)));
    assert_eq!(
        world.store.names("log/"),
        [1, 9, 10, 11].map(log),
        "its fence has landed, the straggler is there"
    );
    assert_eq!(world.store.names("archive/"), [""; 0]);
    let volume = world.open().await;
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 11);
    assert_eq!(volume.description().recovery.objects_archived, 1);
}

/// Step 1 of taking over: who re-created a superblock number that was used and pruned meanwhile starts again from the
/// highest, instead of opening an epoch that is long past.
#[tokio::test(start_paused = true)]
async fn a_pruned_number_raises_no_epoch() {
    let world = World::new().await;
    write_block(&world.open().await, 1, 11).await.unwrap();
    world.store.rule(Verb::Put, "superblock/0000000000000003", Fate::Hangs, 1);
    let stalled = tokio::spawn(Volume::open(world.bucket.clone(), world.options()));
    settle().await;
    for _ in 0..20 {
        world.open().await;
    }
    assert!(!world.store.names("superblock/").contains(&"superblock/0000000000000003".to_owned()));
    world.store.release();
    let volume = stalled.await.unwrap().unwrap();
    assert_eq!(volume.description().epoch, Epoch(23));
    write_block(&volume, 2, 22).await.unwrap();
    drop(volume);
    let volume = world.open().await;
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 11);
    assert_eq!(fill_of(&volume, 2).await.unwrap(), 22);
}

/// A hundred take-overs in a row, each in the middle of writing: nothing flushed is lost, superblock versions stay
/// bounded, and every fence stays (rule 9).
#[tokio::test(start_paused = true)]
async fn a_hundred_takeovers_lose_nothing() {
    let world = World::new().await;
    let mut before: Option<Volume> = None;
    for nth in 1..=100u8 {
        let volume = world.open().await;
        if let Some(before) = before.take() {
            assert!(write_block(&before, 0, 255).await.is_err(), "the one before is fenced");
        }
        write_block(&volume, u64::from(nth), nth).await.unwrap();
        // Accepted, never flushed: it may be lost, and must not come instead of something else.
        volume.write(u64::from(nth) * BLOCK + 500 * BLOCK, blocks(1, nth), false).await.unwrap();
        assert!(world.store.names("superblock/").len() <= 16, "superblocks are pruned");
        before = Some(volume);
    }
    drop(before);
    let last = world.open().await;
    for nth in 1..=100u8 {
        assert_eq!(fill_of(&last, u64::from(nth)).await.unwrap(), nth);
        let unflushed = fill_of(&last, u64::from(nth) + 500).await.unwrap();
        assert!(unflushed == 0 || unflushed == nth);
    }
    assert_eq!(fill_of(&last, 0).await.unwrap(), 0);
    let log = world.store.names("log/");
    assert!(log.len() >= 201, "101 fences and 100 batches: {}", log.len());
    assert!(world.store.count(Verb::Delete, "log/") == 0, "no log object was deleted");
    assert!(world.store.names("superblock/").len() >= 8);
}

/// Asked to, an opening leaves a volume alone that was not closed and was written a moment ago; it takes one that was
/// closed, or that nobody has written for the stated time. Refusing changes nothing.
#[tokio::test(start_paused = true)]
async fn a_volume_in_use_is_left_alone_if_that_was_asked_for() {
    let world = World::new().await;
    let asks = |quiet_for: Duration| OpenOptions { if_free: Some(quiet_for), ..world.options() };
    let minute = Duration::from_secs(60);
    let volume = world.open().await;
    write_block(&volume, 0, 1).await.unwrap();
    let before = world.store.image();
    let refused = Volume::open(world.bucket.clone(), asks(minute)).await.expect_err("it is in use");
    assert!(matches!(refused, Error::InUse { quiet_for, .. } if quiet_for == minute), "{refused}");
    assert_eq!(world.store.image(), before);
    write_block(&volume, 1, 2).await.expect("nobody fenced it");
    drop(volume);
    settle().await;
    Volume::open(world.bucket.clone(), asks(minute)).await.expect_err("a crash looks the same");

    // The store's clock is the real one: the test's is paused.
    std::thread::sleep(Duration::from_millis(1100));
    let volume =
        Volume::open(world.bucket.clone(), asks(Duration::ZERO)).await.expect("left alone long enough");
    volume.close().await.unwrap();
    let volume = Volume::open(world.bucket.clone(), asks(minute)).await.expect("it was closed");
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 2);
}

/// Rule 9: a writer that slept while newer ones wrote many versions may put its next one at a number that was pruned. It
/// sees the higher one, and neither closes nor names a journal or a checkpoint as if it had the volume. The simulator found
/// it (seed 9223783).
#[tokio::test(start_paused = true)]
async fn a_version_at_a_pruned_number_counts_for_nothing() {
    let world = World::new().await;
    let first = world.open().await;
    let newest = world.store.names("superblock/").pop().unwrap();
    let number = names::parse_superblock(&newest).unwrap();
    let mut superblock = superblock::decode(number, &world.store.bytes(&newest).unwrap()).unwrap();
    let later = SuperblockNumber(number.0 + 20);
    (superblock.epoch, superblock.writer_id) = (Epoch(later.0), WriterId([9; 16]));
    world.store.put(&names::superblock(later), superblock::encode(later, &superblock));
    assert_eq!(fenced_by(first.close().await), Some(Epoch(later.0)));
}

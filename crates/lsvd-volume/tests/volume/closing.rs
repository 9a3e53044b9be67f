//! Closing: what a clean close leaves, how it fails and is repeated, and that nothing runs on after it.

use std::time::Duration;

use lsvd_format::{SuperblockNumber, superblock};
use lsvd_volume::{Error, inspect};

use crate::common::{BLOCK, Fate, Verb, World, blocks, fill_of, read, settle, write_block};

fn newest_superblock(world: &World) -> superblock::Superblock {
    let name = world.store.names("superblock/").pop().unwrap();
    let number = lsvd_format::names::parse_superblock(&name).unwrap();
    superblock::decode(number, &world.store.bytes(&name).unwrap()).unwrap()
}

/// A clean close flushes, records the log's last number, ends the volume for all its handles, and is idempotent.
#[tokio::test(start_paused = true)]
async fn a_clean_close_is_recorded() {
    let world = World::new().await;
    let volume = world.open().await;
    let other = volume.clone();
    let ended = tokio::spawn(volume.ended());
    volume.write(0, blocks(1, 7), false).await.unwrap();
    volume.close().await.unwrap();
    let closed = newest_superblock(&world);
    assert_eq!(closed.closed_at.unwrap().0, 9);
    assert!(inspect(&world.bucket).await.unwrap().closed_cleanly);
    assert!(matches!(ended.await.unwrap(), Error::Closed { .. }));
    volume.close().await.unwrap();
    other.close().await.unwrap();
    let results = [
        other.write(0, blocks(1, 1), false).await.err(),
        other.read(0, BLOCK).await.err(),
        other.flush().await.err(),
        other.trim(0, BLOCK, false).await.err(),
        other.write_zeroes(0, BLOCK, false, true).await.err(),
        other.block_status(0, BLOCK).await.err(),
    ];
    for error in results {
        assert!(matches!(error, Some(Error::Closed { .. })), "{error:?}");
    }
    let volume = world.open().await;
    assert_eq!(fill_of(&volume, 0).await.unwrap(), 7);
    assert!(!inspect(&world.bucket).await.unwrap().closed_cleanly, "it is open again");
}

/// A write that waits at the ceiling when the volume closes is stored before the close is recorded, if it is answered.
#[tokio::test(start_paused = true)]
async fn a_write_that_waits_when_the_volume_closes_is_stored() {
    let world = World::new().await;
    let change = |options: &mut lsvd_volume::OpenOptions| {
        options.batch_bytes_max = 64 << 10;
        options.buffer_bytes_max = 128 << 10;
    };
    let volume = world.open_with(change).await;
    world.store.hangs();
    let write = |nth: u64| {
        let volume = volume.clone();
        tokio::spawn(async move { volume.write(nth * 16 * BLOCK, blocks(16, 7), false).await })
    };
    let writes: Vec<_> = (0..20).map(write).collect();
    settle().await;
    assert!(writes.iter().any(|write| !write.is_finished()), "some wait at the ceiling");
    let closing = tokio::spawn({
        let volume = volume.clone();
        async move { volume.close().await }
    });
    settle().await;
    world.store.release();
    closing.await.unwrap().unwrap();
    let mut answered = Vec::new();
    for write in writes {
        answered.push(write.await.unwrap().is_ok());
    }
    let volume = world.open().await;
    for (nth, answered) in (0..).zip(answered) {
        let fill = fill_of(&volume, nth * 16).await.unwrap();
        assert!(!answered || fill == 7, "write {nth} was answered and is gone after a clean close");
    }
}

/// Regression: a close without a write recorded a number far above the log's end, as if the log had been there.
#[tokio::test(start_paused = true)]
async fn a_close_without_a_write_records_the_fence() {
    let world = World::new().await;
    let volume = world.open().await;
    assert_eq!(volume.stats().durable_number, 1);
    volume.close().await.unwrap();
    assert_eq!(newest_superblock(&world).closed_at.unwrap().0, 1);
    world.open().await.close().await.unwrap();
    assert_eq!(newest_superblock(&world).log_reached.unwrap().0, 9);
}

/// A close while the store is away is an error, loses nothing, and can be repeated.
#[tokio::test(start_paused = true)]
async fn a_close_without_the_store_can_be_repeated() {
    let world = World::new().await;
    let volume = world.open().await;
    volume.write(0, blocks(1, 7), false).await.unwrap();
    world.store.always(Verb::Put, "", Fate::Fails);
    let error = volume.close().await.unwrap_err();
    assert!(!matches!(error, Error::Closed { .. } | Error::Fenced { .. }), "{error}");
    world.store.release();
    volume.close().await.unwrap();
    assert_eq!(fill_of(&world.open().await, 0).await.unwrap(), 7);
}

/// Regression: a close whose superblock was stored while every answer was lost, repeated later, took its own superblock
/// for another writer's and called itself fenced.
#[tokio::test(start_paused = true)]
async fn a_close_whose_answer_was_lost_can_be_repeated() {
    let world = World::new().await;
    // The wall clock goes on between the two.
    let now = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1_800_000_000_000));
    let clock = now.clone();
    let volume = world
        .open_with(|options| {
            options.environment.now_unix_ms =
                std::sync::Arc::new(move || clock.fetch_add(1000, std::sync::atomic::Ordering::Relaxed));
        })
        .await;
    write_block(&volume, 0, 7).await.unwrap();
    world.store.rule(Verb::Put, "superblock/", Fate::AnswerLost, 1);
    world.store.always(Verb::Put, "superblock/", Fate::Fails);
    assert!(matches!(volume.close().await, Err(Error::Store { .. })));
    world.store.release();
    volume.close().await.unwrap();
    assert!(inspect(&world.bucket).await.unwrap().closed_cleanly);
    assert_eq!(fill_of(&world.open().await, 0).await.unwrap(), 7);
}

/// A fenced writer can not close over its successor.
#[tokio::test(start_paused = true)]
async fn a_fenced_writer_does_not_close_the_volume() {
    let world = World::new().await;
    let first = world.open().await;
    let second = world.open().await;
    assert!(matches!(first.close().await, Err(Error::Fenced { .. })));
    assert!(!inspect(&world.bucket).await.unwrap().closed_cleanly);
    write_block(&second, 1, 2).await.unwrap();
    second.close().await.unwrap();
}

/// Dropping the last handle leaves nothing behind that goes on asking the store, whatever was under way.
#[tokio::test(start_paused = true)]
async fn a_dropped_volume_asks_the_store_no_more() {
    let world = World::new().await;
    write_block(&world.open().await, 1, 11).await.unwrap();
    let volume = world.open().await;
    let ended = tokio::spawn(volume.ended());
    let other = volume.clone();
    world.store.always(Verb::Put, "", Fate::Fails);
    world.store.always(Verb::Get, "", Fate::Hangs);
    volume.write(0, blocks(1, 7), false).await.unwrap();
    let reading = tokio::spawn(async move { read(&other, BLOCK, BLOCK).await });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(world.store.count(Verb::Put, "log/") > 1, "an upload is being tried");
    reading.abort();
    let _ = reading.await;
    drop(volume);
    settle().await;
    assert_eq!(world.store.in_flight(), 0);
    world.store.release();
    world.store.forget();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.store.made().len(), 0, "{:?}", world.store.made());
    assert!(!ended.is_finished(), "nobody closed or fenced it");
}

/// A closed volume asks the store no more either, though its handles live on.
#[tokio::test(start_paused = true)]
async fn a_closed_volume_asks_the_store_no_more() {
    let world = World::new().await;
    let volume = world.open().await;
    write_block(&volume, 1, 1).await.unwrap();
    volume.close().await.unwrap();
    world.store.forget();
    let _ = volume.read(0, BLOCK).await;
    volume.close().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(world.store.made().is_empty());
    assert_eq!(newest_superblock(&world).epoch.0, 2);
    assert_eq!(SuperblockNumber(3).0, world.store.names("superblock/").len() as u64);
}

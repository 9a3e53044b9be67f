//! Nothing is serial that need not be: uploads, fetches and flushes run side by side and share requests, within their
//! ceilings.

use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use tokio::time::Instant;

use crate::common::{BLOCK, Fate, MIB, Verb, World, blocks, fill_of, read, settle};

const PUT_TIME: Duration = Duration::from_millis(50);

/// Flushes of 64 clients at once share PUTs: the first ones go alone, the others together.
#[tokio::test(start_paused = true)]
async fn flushes_of_many_clients_share_puts() {
    let world = World::new().await;
    let volume = world.open().await;
    world.store.always(Verb::Put, "log/", Fate::Slow(PUT_TIME));
    world.store.forget();
    let before = Instant::now();
    let clients = (0..64u64).map(|client| {
        let volume = volume.clone();
        tokio::spawn(async move {
            for round in 0..3 {
                volume.write((client * 8 + round) * BLOCK, blocks(1, client as u8), false).await.unwrap();
                volume.flush().await.unwrap();
            }
        })
    });
    for client in join_all(clients).await {
        client.unwrap();
    }
    let puts = world.store.count(Verb::Put, "log/");
    assert!(puts <= 24, "{puts} PUTs for 192 flushes");
    assert!(before.elapsed() <= 8 * PUT_TIME, "{:?}", before.elapsed());
    drop(volume);
    let volume = world.open().await;
    for client in 0..64u64 {
        assert_eq!(fill_of(&volume, client * 8 + 2).await.unwrap(), client as u8);
    }
}

/// A flush that is not needed makes no PUT.
#[tokio::test(start_paused = true)]
async fn a_flush_of_nothing_is_free() {
    let world = World::new().await;
    let volume = world.open().await;
    volume.write(0, blocks(1, 1), true).await.unwrap();
    world.store.forget();
    volume.flush().await.unwrap();
    volume.trim(1, 100, true).await.unwrap();
    assert!(world.store.made().is_empty());
}

/// Uploads run side by side up to their ceiling, end in any order, and become durable in theirs.
#[tokio::test(start_paused = true)]
async fn uploads_run_side_by_side_and_complete_in_order() {
    let world = World::new().await;
    let volume = world
        .open_with(|options| {
            options.batch_bytes_max = 4 * BLOCK;
            options.uploads_max = 5;
        })
        .await;
    // The first one is slowest.
    world.store.rule(Verb::Put, "log/", Fate::Slow(10 * PUT_TIME), 1);
    world.store.always(Verb::Put, "log/", Fate::Slow(PUT_TIME));
    world.store.watch_peak(Verb::Put, "log/");
    for nth in 0..40u64 {
        volume.write(nth * BLOCK, blocks(1, nth as u8), false).await.unwrap();
    }
    let flush = tokio::spawn({
        let volume = volume.clone();
        async move { volume.flush().await }
    });
    tokio::time::sleep(5 * PUT_TIME).await;
    assert_eq!(world.store.peak(Verb::Put, "log/"), 5);
    assert_eq!(volume.stats().durable_number, 1, "others are stored, but not all before them");
    assert!(world.store.names("log/").len() > 4);
    assert!(!flush.is_finished());
    flush.await.unwrap().unwrap();
    assert_eq!(volume.stats().durable_number, 18);
    assert_eq!(world.store.peak(Verb::Put, "log/"), 5);
}

/// The window: with the first number unanswered, no number 8 or more above it is created, however many uploads are
/// allowed; a crash then leaves nothing that the next writer could not tell from a loss.
#[tokio::test(start_paused = true)]
async fn no_number_beyond_the_window_is_created() {
    let world = World::new().await;
    let volume = world
        .open_with(|options| {
            options.batch_bytes_max = BLOCK;
            options.uploads_max = 100;
        })
        .await;
    world.store.always(Verb::Put, &crate::common::log(9), Fate::Hangs);
    for nth in 0..40u64 {
        volume.write(nth * BLOCK, blocks(1, 1), false).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    let expected: Vec<String> = [1].into_iter().chain(10..=16).map(crate::common::log).collect();
    assert_eq!(world.store.names("log/"), expected);
    world.store.release();
    volume.flush().await.unwrap();
    assert_eq!(volume.stats().durable_number, 48);
}

/// A volume with 4 MiB of data in one object, opened anew so that nothing is cached.
async fn cold_4_mib(fetches_max: usize, cache_bytes_max: u64) -> (World, lsvd_volume::Volume, Vec<u8>) {
    let world = World::new().await;
    let data: Vec<u8> = (0..1024u64).flat_map(|block| vec![(block % 255) as u8 + 1; 4096]).collect();
    world.open().await.write(0, Bytes::from(data.clone()), true).await.unwrap();
    let change = |options: &mut lsvd_volume::OpenOptions| {
        options.fetches_max = fetches_max;
        options.cache_bytes_max = cache_bytes_max;
    };
    let volume = world.open_with(change).await;
    world.store.forget();
    (world, volume, data)
}

/// Fifty readers of one cold chunk make one GET, and all get its data; also those whose own client is gone by then do no
/// harm to the others.
#[tokio::test(start_paused = true)]
async fn readers_of_one_chunk_share_one_get() {
    let (world, volume, _) = cold_4_mib(100, 64 * MIB).await;
    world.store.always(Verb::Get, "log/", Fate::Slow(PUT_TIME));
    let first = tokio::spawn({
        let volume = volume.clone();
        async move { fill_of(&volume, 3).await }
    });
    settle().await;
    let others = (0..50).map(|nth| fill_of(&volume, nth % 16));
    let others = join_all(others);
    first.abort();
    for (nth, fill) in others.await.into_iter().enumerate() {
        assert_eq!(fill.unwrap(), (nth % 16) as u8 + 1);
    }
    assert_eq!(world.store.count(Verb::Get, "log/"), 1);
    assert_eq!(fill_of(&volume, 9).await.unwrap(), 10);
    assert_eq!(world.store.count(Verb::Get, "log/"), 1, "and it is cached");
}

/// A cold sequential read makes few large GETs, side by side.
#[tokio::test(start_paused = true)]
async fn a_cold_sequential_read_makes_few_gets_side_by_side() {
    let (world, volume, data) = cold_4_mib(100, 64 * MIB).await;
    world.store.always(Verb::Get, "log/", Fate::Slow(PUT_TIME));
    let before = Instant::now();
    assert_eq!(read(&volume, 0, MIB).await.unwrap(), data[..1 << 20]);
    assert_eq!(world.store.count(Verb::Get, "log/"), 1, "1 MiB of one object is one GET");
    assert_eq!(read(&volume, MIB, 3 * MIB).await.unwrap(), data[1 << 20..]);
    assert_eq!(world.store.count(Verb::Get, "log/"), 4);
    assert!(before.elapsed() <= 2 * PUT_TIME + Duration::from_millis(5), "{:?}", before.elapsed());
    assert_eq!(read(&volume, 0, 4 * MIB).await.unwrap(), data);
    assert_eq!(world.store.count(Verb::Get, "log/"), 4, "all of it is cached");
}

/// Rule 10: never more GETs at once than allowed.
#[tokio::test(start_paused = true)]
async fn fetches_stay_below_their_ceiling() {
    let (world, volume, _) = cold_4_mib(3, 64 * MIB).await;
    world.store.always(Verb::Get, "log/", Fate::Slow(PUT_TIME));
    world.store.watch_peak(Verb::Get, "log/");
    // One block in every chunk, not neighbours of each other for one reader.
    let reads = (0..64).map(|chunk| fill_of(&volume, chunk * 16));
    let before = Instant::now();
    try_join_all(reads).await.unwrap();
    assert_eq!(world.store.peak(Verb::Get, "log/"), 3);
    assert!(before.elapsed() >= 21 * PUT_TIME, "64 GETs, 3 at once: {:?}", before.elapsed());
}

/// Rule 10: the cache does not grow beyond its ceiling: what does not fit is fetched again. Without a cache all works.
#[tokio::test(start_paused = true)]
async fn the_cache_keeps_to_its_ceiling() {
    for (cache_bytes_max, cached_max) in [(0, 0), (MIB, 16)] {
        let (world, volume, data) = cold_4_mib(100, cache_bytes_max).await;
        assert_eq!(read(&volume, 0, 4 * MIB).await.unwrap(), data);
        world.store.forget();
        let hits_before = volume.stats().cache_hits;
        for chunk in 0..64 {
            // Whatever is fetched here may push out what was not asked for yet, but nothing comes in unasked.
            assert_eq!(fill_of(&volume, chunk * 16).await.unwrap(), (chunk * 16 % 255) as u8 + 1);
        }
        let hits = volume.stats().cache_hits - hits_before;
        assert!(hits <= cached_max, "{hits} chunks of 64 KiB were in a cache of {cache_bytes_max} bytes");
        assert_eq!(world.store.count(Verb::Get, "log/") as u64 + hits, 64);
    }
}

/// What was just written is read without the store.
#[tokio::test(start_paused = true)]
async fn what_was_just_written_is_cached() {
    let world = World::new().await;
    let volume = world.open().await;
    volume.write(0, blocks(100, 5), true).await.unwrap();
    world.store.forget();
    assert_eq!(read(&volume, 0, 100 * BLOCK).await.unwrap(), blocks(100, 5));
    assert_eq!(world.store.count(Verb::Get, ""), 0);
}

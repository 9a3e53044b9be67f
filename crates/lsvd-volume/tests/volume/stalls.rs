//! Rule 10: at the ceiling writes wait, then fail after the configured time; service resumes by itself when the store is
//! back, and nothing that was accepted is lost.

use std::time::Duration;

use lsvd_volume::{CollectionGoal, CreateOptions, Error, OpenOptions, Volume, create};
use tokio::time::Instant;

use crate::common::{BLOCK, Fate, MIB, Verb, World, blocks, fill_of, settle, write_block};

const BUFFER: u64 = MIB;
const TIMEOUT: Duration = Duration::from_secs(20);

async fn small(world: &World) -> Volume {
    let change = |options: &mut OpenOptions| {
        options.batch_bytes_max = 64 << 10;
        options.buffer_bytes_max = BUFFER;
        options.io_timeout = TIMEOUT;
    };
    world.open_with(change).await
}

/// Rule 10: a store that hangs slows the device at its ceiling, then fails writes after the configured time, and not
/// before; what failed never appears (rule 1), what was accepted is stored when the store is back, without being asked.
#[tokio::test(start_paused = true)]
async fn a_stalled_store_bounds_memory_and_time() {
    let world = World::new().await;
    let volume = small(&world).await;
    world.store.hangs();
    let mut accepted = 0;
    let error = loop {
        let before = Instant::now();
        match volume.write(accepted * BLOCK, blocks(1, 1), false).await {
            Ok(()) => assert_eq!(before.elapsed(), Duration::ZERO, "below the ceiling nothing waits"),
            Err(error) => {
                assert_eq!(before.elapsed(), TIMEOUT);
                break error;
            }
        }
        accepted += 1;
        assert!(volume.stats().buffered_bytes <= BUFFER);
    };
    assert!(matches!(error, Error::TimedOut { after: TIMEOUT, .. }), "{error}");
    assert!((200..=256).contains(&accepted), "{accepted} blocks are just below the ceiling");
    let failed = accepted;

    // An hour of a client that keeps trying: memory stays, and reads of memory work.
    for nth in 0..20u64 {
        assert!(volume.write((failed + nth) * BLOCK, blocks(1, 9), false).await.is_err());
        tokio::time::sleep(Duration::from_secs(180)).await;
        assert!(volume.stats().buffered_bytes <= BUFFER);
    }
    assert_eq!(fill_of(&volume, 0).await.unwrap(), 1);
    assert!(volume.stats().uploads_in_flight <= 8, "the window bounds it");

    world.store.release();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(volume.stats().buffered_bytes, 0, "service resumes by itself");
    write_block(&volume, 1000, 3).await.unwrap();
    drop(volume);
    let volume = world.open().await;
    for block in 0..accepted {
        assert_eq!(fill_of(&volume, block).await.unwrap(), 1, "block {block} was accepted");
    }
    for block in failed..failed + 20 {
        assert_eq!(fill_of(&volume, block).await.unwrap(), 0, "the write of block {block} failed");
    }
    assert_eq!(fill_of(&volume, 1000).await.unwrap(), 3);
}

/// Rule 10: writes that wait at the ceiling go on in the order in which they came as soon as there is room.
#[tokio::test(start_paused = true)]
async fn writes_wait_at_the_ceiling_and_then_go_on_in_order() {
    let world = World::new().await;
    let volume = small(&world).await;
    world.store.always(Verb::Put, "log/", Fate::Hangs);
    for block in 0..240 {
        volume.write(block * BLOCK, blocks(1, 1), false).await.unwrap();
    }
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    // A large one first: the small ones that would fit do not pass it.
    let waiting: Vec<_> = [200, 1, 1, 1]
        .into_iter()
        .enumerate()
        .map(|(nth, count)| {
            let (volume, order) = (volume.clone(), order.clone());
            tokio::spawn(async move {
                volume.write((1000 + 300 * nth as u64) * BLOCK, blocks(count, 2), false).await.unwrap();
                order.lock().unwrap().push(nth);
            })
        })
        .collect();
    settle().await;
    assert!(order.lock().unwrap().is_empty(), "all wait");
    world.store.release();
    for waits in waiting {
        waits.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
}

/// Rule 10: a flush that timed out takes nothing back and can be repeated.
#[tokio::test(start_paused = true)]
async fn a_flush_that_timed_out_can_be_repeated() {
    let world = World::new().await;
    let volume = small(&world).await;
    world.store.hangs();
    volume.write(0, blocks(1, 1), false).await.unwrap();
    assert!(matches!(volume.flush().await, Err(Error::TimedOut { .. })));
    // FUA: it is in the order of writes already, only not known to be durable.
    assert!(matches!(volume.write(BLOCK, blocks(1, 2), true).await, Err(Error::TimedOut { .. })));
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 2);
    world.store.release();
    volume.flush().await.unwrap();
    drop(volume);
    let volume = world.open().await;
    assert_eq!(fill_of(&volume, 0).await.unwrap(), 1);
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 2);
}

/// Rule 10: a read of a store that hangs fails after the configured time; when the store is back the same read works.
#[tokio::test(start_paused = true)]
async fn a_read_times_out_and_works_later() {
    let world = World::new().await;
    write_block(&world.open().await, 1, 11).await.unwrap();
    let volume = small(&world).await;
    world.store.hangs();
    let before = Instant::now();
    let error = fill_of(&volume, 1).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert_eq!(before.elapsed(), TIMEOUT);
    // A write of a part of that block waits for its base as long, and is never applied.
    let error = volume.write(BLOCK + 1, "part".into(), false).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    world.store.release();
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 11);
}

/// Rule 1: a write that its client gave up while it waited is never applied; one that was applied stays.
#[tokio::test(start_paused = true)]
async fn a_write_that_was_given_up_is_not_applied() {
    let world = World::new().await;
    write_block(&world.open().await, 1, 11).await.unwrap();
    let volume = small(&world).await;
    world.store.always(Verb::Get, "log/", Fate::Hangs);
    let part = volume.clone();
    let part = tokio::spawn(async move { part.write(BLOCK + 1, "part".into(), false).await });
    settle().await;
    part.abort();
    assert!(part.await.unwrap_err().is_cancelled());
    // Its block is free for others at once, and its memory is given back.
    let before = Instant::now();
    volume.write(BLOCK, blocks(1, 12), false).await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
    world.store.release();
    settle().await;
    volume.flush().await.unwrap();
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 12);
    assert_eq!(volume.stats().buffered_bytes, 0);
}

/// A client's future may be dropped where no runtime is: its blocks are free for others all the same.
#[test]
fn a_request_may_be_given_up_outside_the_runtime() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    let (world, volume) = runtime.block_on(async {
        let world = World::new().await;
        write_block(&world.open().await, 1, 11).await.unwrap();
        let volume = small(&world).await;
        world.store.always(Verb::Get, "log/", Fate::Hangs);
        (world, volume)
    });
    let mut part = Box::pin(volume.write(BLOCK + 1, "part".into(), false));
    let mut after = Box::pin(volume.write(BLOCK + 2, "after".into(), false));
    runtime.block_on(async {
        assert!(futures::poll!(&mut part).is_pending());
        assert!(futures::poll!(&mut after).is_pending());
    });
    // What waited for the block begins by this, outside.
    drop(part);
    world.store.release();
    runtime.block_on(after).unwrap();
}

/// Rule 10: a batch that nobody flushes is stored when it is old enough, and no earlier.
#[tokio::test(start_paused = true)]
async fn a_batch_is_stored_at_its_age() {
    let world = World::new().await;
    let volume = world.open_with(|options| options.batch_age_max = Duration::from_secs(7)).await;
    volume.write(0, blocks(1, 1), false).await.unwrap();
    tokio::time::sleep(Duration::from_millis(6_900)).await;
    volume.write(BLOCK, blocks(1, 2), false).await.unwrap();
    assert_eq!(volume.stats().objects_written, 0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((volume.stats().objects_written, volume.stats().buffered_bytes), (1, 0));
    drop(volume);
    let volume = world.open().await;
    assert_eq!(fill_of(&volume, 0).await.unwrap(), 1);
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 2);
}

/// Rule 10: a slow line is not a dead one. Eight objects at once would share 4 Mbit/s until all of them time out, for
/// ever; instead as few go at once as get through, nobody gets an error, and hardly anything is sent twice.
#[tokio::test(start_paused = true)]
async fn a_slow_line_is_not_a_dead_one() {
    const LINE: u64 = 512 << 10;
    let mut world = World::new().await;
    world.bucket = world.bucket.with_retry(lsvd_backend::RetryPolicy::default());
    let volume = world.open().await;
    world.store.always(Verb::Put, "log/", Fate::Line(LINE));
    world.store.forget();
    let begun = Instant::now();
    for nth in 0..192 {
        volume.write(nth % 64 * MIB, blocks(256, 1), false).await.expect("it waits for the line");
    }
    volume.flush().await.expect("it waits for the line");
    let ideal = Duration::from_secs(192 * MIB / LINE);
    assert!(begun.elapsed() < ideal * 5 / 4, "{:?} instead of {ideal:?}", begun.elapsed());
    assert!(world.store.count(Verb::Put, "log/") < 24 + 4, "hardly anything is sent twice");
}

/// Rule 10: a discard of many regions of the map that are not in memory, and that come slowly, keeps nobody waiting: what was
/// written in them is counted as dead when they have come.
#[tokio::test(start_paused = true)]
async fn a_large_discard_keeps_nobody_waiting() {
    const REGION: u64 = 64 * MIB;
    const REGIONS: u64 = 400;
    let world = World::empty();
    let size_bytes = (REGIONS + 1) * REGION;
    create(&world.bucket, &CreateOptions { size_bytes, ..world.create_options() }).await.unwrap();
    let volume = world.open().await;
    for nth in 0..=REGIONS {
        volume.write(nth * REGION + 5 * BLOCK, blocks(2, 7), false).await.unwrap();
    }
    volume.collect_garbage(CollectionGoal::Target(100.0)).await.unwrap();
    volume.close().await.unwrap();
    let change = |options: &mut OpenOptions| {
        options.io_timeout = TIMEOUT;
        options.map_bytes_max = 0;
        options.upkeep.look_every = Duration::from_secs(1 << 30);
    };
    let volume = world.open_with(change).await;
    // 64 of them at once: over a minute for all.
    world.store.always(Verb::Get, "checkpoint/", Fate::Slow(TIMEOUT / 2));
    let began = Instant::now();
    // All of them, but half of the last.
    volume.trim(0, REGIONS * REGION + REGION / 2, false).await.unwrap();
    volume.flush().await.unwrap();
    for nth in 0..100 {
        let at = nth % 10 * REGION + nth * BLOCK;
        volume.write(at, blocks(1, 9), true).await.unwrap();
        assert_eq!(fill_of(&volume, at / BLOCK).await.unwrap(), 9);
        if nth > 10 {
            assert_eq!(fill_of(&volume, 5).await.unwrap(), 0);
        }
    }
    assert!(began.elapsed() < TIMEOUT, "only the edge was waited for: {:?}", began.elapsed());
    let dead = |volume: &Volume| volume.stats().live_bytes == 100 * BLOCK;
    assert!(!dead(&volume), "what was not seen yet counts as live");
    tokio::time::sleep(TIMEOUT * 10).await;
    assert!(dead(&volume), "{:?}", volume.stats());
    volume.audit().unwrap();
    world.store.drop_rules();
    volume.collect_garbage(CollectionGoal::Target(100.0)).await.unwrap();
    assert_eq!(volume.stats().live_bytes, 100 * BLOCK);
    drop(volume);
    let volume = world.open_with(change).await;
    assert_eq!(fill_of(&volume, 5).await.unwrap(), 0);
    assert_eq!(fill_of(&volume, REGIONS * REGION / BLOCK + 5).await.unwrap(), 0);
    volume.audit().unwrap();
}

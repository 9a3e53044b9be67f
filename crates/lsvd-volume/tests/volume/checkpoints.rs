//! Checkpoints, deletion and collection of an open volume, each promise by the number of its rule.

use std::time::Duration;

use bytes::Bytes;
use lsvd_format::names;
use lsvd_format::superblock::{self, Superblock};
use lsvd_volume::{CollectOptions, Error, UpkeepOptions, Volume};

use crate::common::{BLOCK, Fate, Verb, World, blocks, fill_of, log, read, write_block};

/// Looks each second, writes a checkpoint behind every 20 objects, deletes after 10 s, collects nothing.
fn eager() -> UpkeepOptions {
    UpkeepOptions {
        look_every: Duration::from_secs(1),
        checkpoint_objects: 20,
        checkpoint_age: Duration::from_secs(60),
        delete_after: Duration::from_secs(10),
        collect: CollectOptions { target: f64::INFINITY, ..CollectOptions::default() },
    }
}

async fn open(world: &World, upkeep: UpkeepOptions) -> Volume {
    world.open_with(|options| options.upkeep = upkeep).await
}

/// Writes `count` log objects of one block each, round and round over the first `over` blocks.
async fn objects(volume: &Volume, count: u64, over: u64) {
    for nth in 0..count {
        write_block(volume, nth % over, (nth % 251) as u8 + 1).await.unwrap();
        volume.flush().await.unwrap();
    }
}

async fn minutes(minutes: u64) {
    tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
}

fn newest(world: &World) -> Superblock {
    let name = world.store.names(names::SUPERBLOCK_FOLDER).pop().unwrap();
    let number = names::parse_superblock(&name).unwrap();
    superblock::decode(number, &world.store.bytes(&name).unwrap()).unwrap()
}

/// Two checkpoints, and some objects behind the newest.
async fn with_two(world: &World) {
    let volume = open(world, eager()).await;
    objects(&volume, 30, 1000).await;
    minutes(2).await;
    objects(&volume, 30, 1000).await;
    minutes(2).await;
    objects(&volume, 5, 3).await;
    assert_eq!(newest(world).checkpoints.len(), 2);
}

async fn content(volume: &Volume) -> Vec<u8> {
    read(volume, 0, 64 * BLOCK).await.unwrap()
}

/// Opening asks for what lies behind the newest checkpoint, and at most ten requests besides, however long the log is.
#[tokio::test(start_paused = true)]
async fn opening_reads_a_checkpoint_and_the_tail() {
    let mut besides = Vec::new();
    for count in [50, 500] {
        let world = World::new().await;
        let volume = open(&world, eager()).await;
        objects(&volume, count, 40).await;
        minutes(3).await;
        objects(&volume, 7, 40).await;
        let before = content(&volume).await;
        drop(volume);
        world.store.forget();
        let volume = open(&world, eager()).await;
        let made = world.store.made().len();
        // The tail: the checkpoint's own object and seven others, each one header, and the region that they change.
        besides.push(made - 9);
        assert!(made <= 9 + 10, "{made} requests: {:?}", world.store.made());
        assert_eq!(volume.description().recovery.objects_processed, 7 + 1);
        assert_eq!(content(&volume).await, before);
    }
    assert_eq!(besides[0], besides[1], "nothing grows with the log");
}

/// Rules 7 and 8: a newest checkpoint that is torn, missing or of another object is passed over, and the one before, with
/// the log behind it, gives the same.
#[tokio::test(start_paused = true)]
async fn the_checkpoint_before_stands_in() {
    for how in ["torn", "missing", "flipped"] {
        let world = World::new().await;
        with_two(&world).await;
        let before = content(&world.open_read_only().await).await;
        let root = names::checkpoint_part(&newest(&world).checkpoints[1].part);
        let bytes = world.store.bytes(&root).unwrap();
        match how {
            "torn" => world.store.put(&root, bytes.slice(..bytes.len() - 1)),
            "missing" => world.store.remove(&root),
            _ => world.store.flip(&root, bytes.len() - 10),
        }
        assert!(content(&world.open_read_only().await).await == before, "{how}");
        let volume = open(&world, eager()).await;
        assert!(content(&volume).await == before, "{how}");
    }
}

/// Never a guess: without any checkpoint of those that a volume had, it does not open.
#[tokio::test(start_paused = true)]
async fn without_its_checkpoints_a_volume_is_refused() {
    let world = World::new().await;
    with_two(&world).await;
    for checkpoint in newest(&world).checkpoints {
        world.store.remove(&names::checkpoint_part(&checkpoint.part));
    }
    assert!(
        matches!(world.try_open().await, Err(Error::Corrupt { reason, .. }) if reason.contains("restore"))
    );
    let read_only = Volume::open_read_only(world.bucket.clone(), world.options()).await;
    assert!(matches!(read_only, Err(Error::Corrupt { .. })));
}

/// Rule 7: dead objects go after two checkpoints hold that they are dead, a superblock version condemns them, and the
/// grace period is over; fences stay (rule 9), and so does all behind the older checkpoint.
#[tokio::test(start_paused = true)]
async fn dead_objects_go_last() {
    let world = World::new().await;
    let volume = open(&world, UpkeepOptions { delete_after: Duration::from_secs(600), ..eager() }).await;
    objects(&volume, 60, 4).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    objects(&volume, 30, 4).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    let condemned = newest(&world).condemned;
    assert!(!condemned.is_empty(), "two checkpoints hold that they are dead");
    let named = |number: u64| condemned.iter().any(|run| (run.first.0..=run.last.0).contains(&number));
    assert!(
        (2..50).all(|number| !named(number) || world.store.bytes(&log(number)).is_some()),
        "not before the grace"
    );
    minutes(11).await;
    assert!(
        (2..92).all(|number| !named(number) || world.store.bytes(&log(number)).is_none()),
        "they are deleted"
    );
    assert!(world.store.bytes(&log(1)).is_some(), "the fence stays");
    let oldest = newest(&world).checkpoints[0].stamp.as_of.0;
    assert!(
        (oldest + 1..92).all(|number| world.store.bytes(&log(number)).is_some()),
        "what is behind it stays"
    );
    let before = content(&volume).await;
    drop(volume);
    assert_eq!(content(&open(&world, eager()).await).await, before);
}

/// Rule 9: a writer that was fenced while the grace period ran deletes nothing.
#[tokio::test(start_paused = true)]
async fn a_fenced_writer_deletes_nothing() {
    let world = World::new().await;
    let first = open(&world, UpkeepOptions { delete_after: Duration::from_secs(600), ..eager() }).await;
    objects(&first, 60, 4).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    objects(&first, 30, 4).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert!(!newest(&world).condemned.is_empty());
    let never = UpkeepOptions { delete_after: Duration::from_secs(1 << 40), ..eager() };
    let _second = open(&world, never).await;
    world.store.forget();
    minutes(15).await;
    assert_eq!(world.store.count(Verb::Delete, "log/"), 0);
}

/// Rule 7: what the superblock condemned is deleted by whoever opens next, after a grace of its own.
#[tokio::test(start_paused = true)]
async fn the_next_opening_works_the_list_off() {
    let world = World::new().await;
    let volume = open(&world, UpkeepOptions { delete_after: Duration::from_secs(6000), ..eager() }).await;
    objects(&volume, 60, 4).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    objects(&volume, 30, 4).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    let condemned = newest(&world).condemned;
    assert!(!condemned.is_empty());
    drop(volume);
    let _volume = open(&world, eager()).await;
    minutes(2).await;
    let first = condemned[0].first.0;
    assert!(world.store.bytes(&log(first)).is_none(), "number {first} is deleted");
}

/// A volume that is overwritten over and over takes a bounded multiple of what is live, and reads back equal.
#[tokio::test(start_paused = true)]
async fn collection_holds_the_target() {
    let world = World::new().await;
    let collect = CollectOptions { waste_bytes_min: 0, share: 1.0, ..CollectOptions::default() };
    let upkeep = UpkeepOptions { collect, delete_after: Duration::from_secs(5), ..eager() };
    let volume = world
        .open_with(|options| {
            options.upkeep = upkeep;
            options.batch_bytes_max = 64 * BLOCK;
        })
        .await;
    let size = 4096;
    let mut model = vec![0u8; size];
    let mut state = 1u64;
    for round in 0..40u64 {
        for _ in 0..256 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % (size - 4);
            let fill = (state >> 20) as u8 | 1;
            volume.write(at as u64 * BLOCK, blocks(4, fill), false).await.unwrap();
            model[at..at + 4].fill(fill);
        }
        volume.flush().await.unwrap();
        tokio::time::sleep(Duration::from_secs(if round % 10 == 9 { 120 } else { 2 })).await;
    }
    minutes(3).await;
    let stats = volume.stats();
    assert!(stats.moved_bytes > 0, "{stats:?}");
    let stored: usize =
        world.store.names("log/").iter().map(|name| world.store.bytes(name).unwrap().len()).sum();
    let live = model.iter().filter(|fill| **fill > 0).count() * BLOCK as usize;
    assert_eq!(stats.live_bytes, live as u64, "live blocks are counted exactly");
    assert!(stored as f64 <= 1.4 * live as f64, "{stored} bytes are stored for {live} live ones: {stats:?}");
    drop(volume);
    let volume = open(&world, eager()).await;
    for (block, fill) in model.iter().enumerate() {
        assert_eq!(fill_of(&volume, block as u64).await.unwrap(), *fill, "block {block}");
    }
}

/// Rule 7: a reader that is behind meets a deleted object, reads superblock and checkpoint again, and goes on.
#[tokio::test(start_paused = true)]
async fn a_reader_that_is_behind_goes_on() {
    let world = World::new().await;
    let volume = open(&world, eager()).await;
    objects(&volume, 30, 4).await;
    let reader = world.open_read_only().await;
    minutes(2).await;
    objects(&volume, 40, 4).await;
    minutes(2).await;
    objects(&volume, 40, 4).await;
    minutes(3).await;
    let now = content(&volume).await;
    assert_eq!(content(&reader).await, now);
    assert!(reader.stats().reloads > 0, "it was behind");
}

/// Rule 10: a store that is slow then keeps nobody longer than it would otherwise; it goes on behind those who gave up.
#[tokio::test(start_paused = true)]
async fn a_reader_that_is_behind_keeps_nobody_waiting() {
    let world = World::new().await;
    let volume = open(&world, eager()).await;
    objects(&volume, 30, 4).await;
    let reader = world.open_read_only().await;
    for _ in 0..2 {
        minutes(2).await;
        objects(&volume, 40, 4).await;
    }
    minutes(3).await;
    let now = content(&volume).await;
    drop(volume);
    for verb in [Verb::Get, Verb::List] {
        world.store.always(verb, "", Fate::Slow(Duration::from_secs(25)));
    }
    let began = tokio::time::Instant::now();
    let read = fill_of(&reader, 0).await;
    assert!(matches!(read, Err(Error::TimedOut { .. })), "{read:?}");
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
    minutes(10).await;
    assert_eq!(reader.stats().reloads, 1);
    assert_eq!(content(&reader).await, now);
}

/// A map that may not stay in memory is read from checkpoints, by reads, by writes of parts of blocks and by what is
/// applied; nothing differs.
#[tokio::test(start_paused = true)]
async fn a_small_budget_for_the_map_changes_nothing() {
    let world = World::new().await;
    with_two(&world).await;
    let before = content(&world.open_read_only().await).await;
    let volume = world
        .open_with(|options| {
            options.upkeep = eager();
            options.map_bytes_max = 0;
        })
        .await;
    assert_eq!(content(&volume).await, before);
    volume.write(100, "part".into(), true).await.unwrap();
    volume.trim(10 * BLOCK, BLOCK, true).await.unwrap();
    objects(&volume, 25, 4).await;
    minutes(2).await;
    assert_eq!(fill_of(&volume, 10).await.unwrap(), 0);
    assert_eq!(fill_of(&volume, 20).await.unwrap(), before[20 * BLOCK as usize]);
}

/// Rule 8 and rule 10: a store that refuses checkpoints does not stop clients, and the next one that it takes is whole.
#[tokio::test(start_paused = true)]
async fn checkpoints_that_fail_are_written_later() {
    let world = World::new().await;
    let volume = open(&world, eager()).await;
    world.store.rule(Verb::Put, "checkpoint/", Fate::Fails, 10_000);
    objects(&volume, 60, 1000).await;
    minutes(10).await;
    assert!(newest(&world).checkpoints.is_empty());
    objects(&volume, 5, 3).await;
    let before = content(&volume).await;
    drop(volume);
    assert_eq!(content(&open(&world, eager()).await).await, before);
}

/// Rule 4: a reader that slept between the superblock and the log, while the objects were collected that its superblock
/// begins with, does not take what is left for the whole log. The simulator found it (seed 9150602).
#[tokio::test(start_paused = true)]
async fn a_log_whose_beginning_was_collected_does_not_end_there() {
    let world = World::new().await;
    let volume = open(&world, eager()).await;
    objects(&volume, 60, 4).await;
    minutes(2).await;
    objects(&volume, 30, 4).await;
    minutes(4).await;
    assert!(world.store.bytes(&log(3)).is_none(), "the beginning is collected");
    let before = content(&volume).await;
    // The versions that name checkpoints come when it has read the one before.
    let versions = world.store.names(names::SUPERBLOCK_FOLDER);
    let newer: Vec<(String, Bytes)> =
        versions[2..].iter().map(|name| (name.clone(), world.store.bytes(name).unwrap())).collect();
    newer.iter().for_each(|(name, _)| world.store.remove(name));
    world.store.before(Verb::List, "log", move |store| {
        newer.iter().for_each(|(name, bytes)| store.put(name, bytes.clone()));
    });
    let reader = world.open_read_only().await;
    assert!(content(&reader).await == before);
}

/// A client that waits for a flush at every moment does not keep the space: collection leaves it some turns, not all.
#[tokio::test(start_paused = true)]
async fn collection_goes_on_beside_a_client_that_always_flushes() {
    let world = World::new().await;
    let collect = CollectOptions { waste_bytes_min: 0, ..CollectOptions::default() };
    let volume = world.open_with(|options| options.upkeep = UpkeepOptions { collect, ..eager() }).await;
    volume.write(0, blocks(1000, 7), true).await.unwrap();
    for block in (0..1000).step_by(5) {
        volume.write(block * BLOCK, blocks(2, 8), false).await.unwrap();
    }
    volume.flush().await.unwrap();
    world.store.always(Verb::Put, "log/", Fate::Slow(Duration::from_millis(700)));
    let busy = volume.clone();
    let client = tokio::spawn(async move {
        loop {
            write_block(&busy, 2000, 9).await.unwrap();
            busy.flush().await.unwrap();
        }
    });
    minutes(2).await;
    client.abort();
    assert!(volume.stats().moved_bytes > 0, "{:?}", volume.stats());
    assert_eq!(fill_of(&volume, 3).await.unwrap(), 7);
}

/// A kept root that has rotted is asked for once, not each second, and nothing of the checkpoints is deleted meanwhile.
#[tokio::test(start_paused = true)]
async fn a_rotten_kept_root_costs_no_requests() {
    let world = World::new().await;
    with_two(&world).await;
    let older = names::checkpoint_part(&newest(&world).checkpoints[0].part);
    world.store.flip(&older, world.store.bytes(&older).unwrap().len() - 10);
    let still = UpkeepOptions { checkpoint_age: Duration::MAX, ..eager() };
    let _volume = open(&world, still).await;
    minutes(1).await;
    world.store.forget();
    minutes(30).await;
    assert_eq!(world.store.made().len(), 0, "{:?}", world.store.made());
    assert!(world.store.bytes(&older).is_some());
}

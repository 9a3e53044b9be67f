//! Snapshots and history: what they keep from being deleted, and that it goes when they go (rule 7).

use std::collections::BTreeSet;
use std::time::Duration;

use lsvd_format::superblock::{self, Snapshot, Superblock};
use lsvd_format::{SequenceNumber, names};
use lsvd_volume::{CollectOptions, Error, Moment, Retention, ShrinkPolicy, UpkeepOptions, Volume, rollback};

use crate::common::{Fate, Verb, World, fill_of, write_block};

/// Looks each second, writes a checkpoint each minute in which anything was written, deletes after 10 s, collects nothing.
fn eager() -> UpkeepOptions {
    UpkeepOptions {
        look_every: Duration::from_secs(1),
        checkpoint_objects: 1000,
        checkpoint_age: Duration::from_secs(60),
        delete_after: Duration::from_secs(10),
        collect: CollectOptions { target: f64::INFINITY, waste_bytes_min: 0, ..CollectOptions::default() },
    }
}

async fn open(world: &World) -> Volume {
    world.open_with(|options| options.upkeep = eager()).await
}

/// Writes `count` log objects of one block each, round and round over the first `over` blocks.
async fn objects(volume: &Volume, count: u64, over: u64) {
    for nth in 0..count {
        write_block(volume, nth % over, (nth % 251) as u8 + 1).await.unwrap();
        volume.flush().await.unwrap();
    }
}

/// Goes on until everything that may go is gone: three checkpoints, and the grace.
async fn settle(volume: &Volume) {
    for _ in 0..4 {
        objects(volume, 1, 1).await;
        tokio::time::sleep(Duration::from_secs(90)).await;
    }
}

fn stored(world: &World) -> BTreeSet<u64> {
    let names = world.store.names(names::LOG_FOLDER);
    names.iter().filter_map(|name| Some(names::parse_log_object(name)?.0)).collect()
}

/// Below its next number is not its last object, but what its fence skipped.
#[tokio::test(start_paused = true)]
async fn a_snapshot_of_who_has_written_nothing_yet_is_of_its_fence() {
    let world = World::new().await;
    let volume = open(&world).await;
    volume.create_snapshot("empty", false).await.unwrap();
    write_block(&volume, 1, 7).await.unwrap();
    volume.close().await.unwrap();
    let volume = open(&world).await;
    let snapshot = volume.create_snapshot("written", false).await.unwrap();
    assert_eq!(Some(&snapshot.as_of.0), stored(&world).last());
    write_block(&volume, 1, 8).await.unwrap();
    volume.close().await.unwrap();
    for (name, expected) in [("empty", 0), ("written", 7)] {
        let moment = Moment::Snapshot(name.into());
        let volume = Volume::open_read_only_at(world.bucket.clone(), &moment, world.options()).await.unwrap();
        assert_eq!(fill_of(&volume, 1).await.unwrap(), expected, "{name}");
    }
}

/// Growing writes nothing to the log, so that both are of one number.
#[tokio::test(start_paused = true)]
async fn a_snapshot_has_its_own_size_and_not_that_of_another_of_the_same_number() {
    let world = World::new().await;
    let volume = open(&world).await;
    let small = volume.size_bytes();
    write_block(&volume, 1, 7).await.unwrap();
    let before = volume.create_snapshot("before", false).await.unwrap();
    volume.resize(2 * small, ShrinkPolicy::Refuse).await.unwrap();
    let after = volume.create_snapshot("after", false).await.unwrap();
    assert_eq!(before.as_of, after.as_of);
    volume.close().await.unwrap();
    for (name, size_bytes) in [("before", small), ("after", 2 * small)] {
        let moment = Moment::Snapshot(name.into());
        let volume = Volume::open_read_only_at(world.bucket.clone(), &moment, world.options()).await.unwrap();
        assert_eq!(volume.size_bytes(), size_bytes, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_snapshot_needs_stays_until_it_is_removed() {
    let world = World::new().await;
    let volume = open(&world).await;
    // Below the base of the snapshot: its header is not replayed, and it is needed for its block alone.
    write_block(&volume, 100, 9).await.unwrap();
    volume.flush().await.unwrap();
    let below = *stored(&world).last().unwrap();
    objects(&volume, 20, 4).await;
    settle(&volume).await;
    objects(&volume, 20, 4).await;
    let snapshot = volume.create_snapshot("monday", false).await.unwrap();
    let read_by_it: BTreeSet<u64> =
        stored(&world).into_iter().filter(|at| *at + 4 > snapshot.as_of.0).collect();
    assert!(read_by_it.contains(&snapshot.as_of.0), "all that was flushed is in it");
    objects(&volume, 20, 4).await;
    write_block(&volume, 100, 10).await.unwrap();
    settle(&volume).await;
    let left = stored(&world);
    for number in &read_by_it {
        assert!(left.contains(number), "number {number} is read by the snapshot");
    }
    let base = snapshot.base.unwrap();
    assert!(
        below <= base.stamp.as_of.0 && left.contains(&below),
        "a block of number {below} is read: {left:?}"
    );
    let moment = Moment::Snapshot("monday".to_owned());
    let reader = Volume::open_read_only_at(world.bucket.clone(), &moment, world.options()).await.unwrap();
    assert_eq!(fill_of(&reader, 100).await.unwrap(), 9);
    assert!(world.store.bytes(&names::checkpoint_part(&base.part)).is_some(), "its base stays");
    let replayed = (base.stamp.as_of.0 + 1..=snapshot.as_of.0).all(|number| left.contains(&number));
    assert!(replayed, "what is replayed for it stays");
    let after = (snapshot.as_of.0 + 1..snapshot.as_of.0 + 17).filter(|number| left.contains(number));
    assert_eq!(after.count(), 0, "what came later and died is not needed");

    volume.remove_snapshot("monday").await.unwrap();
    settle(&volume).await;
    let left = stored(&world);
    assert!(read_by_it.iter().all(|number| !left.contains(number)), "without it they go: {left:?}");
    assert!(!left.contains(&below), "{left:?}");
    assert!(world.store.bytes(&names::checkpoint_part(&base.part)).is_none(), "so does its base");
}

/// The next opening keeps what the superblock says, and nothing that it has to remember.
#[tokio::test(start_paused = true)]
async fn a_snapshot_outlives_its_maker() {
    let world = World::new().await;
    let volume = open(&world).await;
    objects(&volume, 8, 4).await;
    let snapshot = volume.create_snapshot("a", false).await.unwrap();
    drop(volume);
    let volume = open(&world).await;
    assert_eq!(volume.snapshots().await.unwrap(), std::slice::from_ref(&snapshot));
    assert_eq!(lsvd_volume::snapshots(&world.bucket).await.unwrap().0, std::slice::from_ref(&snapshot));
    objects(&volume, 8, 4).await;
    settle(&volume).await;
    let left = stored(&world);
    assert!((snapshot.as_of.0 - 3..=snapshot.as_of.0).all(|number| left.contains(&number)), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn names_are_unique_and_what_is_not_there_can_not_be_removed() {
    let world = World::new().await;
    let volume = open(&world).await;
    volume.create_snapshot("a", false).await.unwrap();
    assert!(
        matches!(volume.create_snapshot("a", false).await, Err(Error::Invalid(what)) if what.contains("already"))
    );
    assert!(matches!(volume.create_snapshot("12", false).await, Err(Error::Invalid(_))));
    let missing = volume.remove_snapshot("b").await;
    assert!(matches!(missing, Err(Error::NoMoment { reachable, .. }) if reachable.ends_with(" a")));
    let reader = world.open_read_only().await;
    assert!(matches!(reader.create_snapshot("c", false).await, Err(Error::ReadOnly { .. })));
}

/// A snapshot is a flush and one small object: as many requests for a volume of much content as for one of none.
#[tokio::test(start_paused = true)]
async fn a_snapshot_costs_the_same_whatever_the_volume_holds() {
    let mut costs = Vec::new();
    for count in [1, 400] {
        let world = World::new().await;
        let volume = open(&world).await;
        objects(&volume, count, 400).await;
        world.store.forget();
        volume.create_snapshot("a", false).await.unwrap();
        costs.push(world.store.made().len());
    }
    // The version, and the listing that shows that no other writer has one.
    assert_eq!(costs, [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_volume_is_known_to_be_so() {
    let world = World::new().await;
    let volume = open(&world).await;
    objects(&volume, 3, 3).await;
    let snapshot = volume.create_snapshot("a", false).await.unwrap();
    assert!(volume.is_unchanged_since(&snapshot));
    volume.close().await.unwrap();
    let volume = open(&world).await;
    assert!(volume.is_unchanged_since(&snapshot), "a fence changes nothing");
    write_block(&volume, 1, 7).await.unwrap();
    assert!(!volume.is_unchanged_since(&snapshot), "nor is what is not stored yet forgotten");
    volume.flush().await.unwrap();
    assert!(!volume.is_unchanged_since(&snapshot));
}

/// Every commit point of the last hour stays within reach, and no older one for long.
#[tokio::test(start_paused = true)]
async fn a_history_holds_what_died_within_it() {
    let world = World::new().await;
    let volume = open(&world).await;
    volume.set_history(3_600_000).await.unwrap();
    for _ in 0..90 {
        objects(&volume, 2, 2).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let left = stored(&world);
    let newest = *left.last().unwrap();
    assert!((newest - 110..=newest).all(|number| left.contains(&number)), "an hour is held: {left:?}");
    let older = left.range(2..newest - 160).count();
    assert_eq!(older, 0, "what is older went: {left:?}");
    volume.set_history(0).await.unwrap();
    settle(&volume).await;
    assert!(stored(&world).len() < 20, "{:?}", stored(&world));
}

/// A schedule passes over a volume that nobody has written, and removes its own alone.
#[tokio::test(start_paused = true)]
async fn a_schedule_skips_what_has_not_changed() {
    let world = World::new().await;
    let volume = open(&world).await;
    let retention = Retention { last: 2, ..Retention::default() };
    objects(&volume, 1, 1).await;
    volume.create_snapshot("mine", false).await.unwrap();
    let skipped = volume.snapshot_by_schedule(&retention).await.unwrap();
    assert_eq!((skipped.created, skipped.removed.len()), (None, 0));
    let mut removed = Vec::new();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        objects(&volume, 1, 1).await;
        let done = volume.snapshot_by_schedule(&retention).await.unwrap();
        assert!(done.created.is_some_and(|made| made.automatic && made.name.starts_with("auto-2027")));
        removed.extend(done.removed);
    }
    assert_eq!(removed.len(), 2);
    let left: Vec<String> = volume.snapshots().await.unwrap().into_iter().map(|made| made.name).collect();
    assert!(left.len() == 3 && left[0] == "mine", "{left:?}");
}

fn newest(world: &World) -> Superblock {
    let name = world.store.names(names::SUPERBLOCK_FOLDER).pop().unwrap();
    let number = names::parse_superblock(&name).unwrap();
    superblock::decode(number, &world.store.bytes(&name).unwrap()).unwrap()
}

/// A volume that is closed and has two checkpoints, four blocks that each hold `fill`, and nothing behind the newest.
async fn with_two_checkpoints(world: &World, fill: u8) {
    let volume = open(world).await;
    for _ in 0..2 {
        for block in 0..4 {
            write_block(&volume, block, fill).await.unwrap();
            volume.flush().await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(90)).await;
    }
    volume.close().await.unwrap();
    assert_eq!(newest(world).checkpoints.len(), 2);
}

async fn reads(world: &World, moment: &str) -> Vec<u8> {
    let moment = Moment::Snapshot(moment.to_owned());
    let reader = Volume::open_read_only_at(world.bucket.clone(), &moment, world.options()).await.unwrap();
    let mut fills = Vec::new();
    for block in 0..4 {
        fills.push(fill_of(&reader, block).await.unwrap());
    }
    fills
}

/// What stands in for a damaged checkpoint may be deleted when two good ones are there again: so a snapshot is not made to
/// need the damaged one.
#[tokio::test(start_paused = true)]
async fn a_damaged_checkpoint_is_no_base() {
    let world = World::new().await;
    with_two_checkpoints(&world, 7).await;
    let [good, damaged] = newest(&world).checkpoints[..] else { unreachable!() };
    world.store.remove(&names::checkpoint_part(&damaged.part));
    let volume = open(&world).await;
    let snapshot = volume.create_snapshot("a", false).await.unwrap();
    assert_eq!(snapshot.base, Some(good));
    objects(&volume, 8, 4).await;
    settle(&volume).await;
    assert_eq!(reads(&world, "a").await, [7; 4]);
}

/// One that has a base which is found damaged later is given another one, while there is one.
#[tokio::test(start_paused = true)]
async fn a_snapshot_whose_base_is_damaged_gets_another_one() {
    let world = World::new().await;
    with_two_checkpoints(&world, 7).await;
    let volume = open(&world).await;
    let base = volume.create_snapshot("a", false).await.unwrap().base.unwrap();
    drop(volume);
    world.store.remove(&names::checkpoint_part(&base.part));
    let volume = open(&world).await;
    objects(&volume, 8, 4).await;
    settle(&volume).await;
    assert_ne!(newest(&world).snapshot("a").unwrap().base, Some(base));
    assert_eq!(reads(&world, "a").await, [7; 4]);
}

/// The list is of the newest superblock: a version whose answer was lost counts, and one of another writer ends it.
#[tokio::test(start_paused = true)]
async fn the_list_of_snapshots_is_as_it_is_stored() {
    let world = World::new().await;
    let volume = open(&world).await;
    objects(&volume, 3, 1).await;
    world.store.rule(Verb::Put, "superblock/", Fate::AnswerLost, 1);
    world.store.always(Verb::Put, "superblock/", Fate::Fails);
    world.store.always(Verb::Get, "superblock/", Fate::Fails);
    assert!(volume.create_snapshot("lost", false).await.is_err());
    world.store.drop_rules();
    let names = |listed: Vec<Snapshot>| listed.into_iter().map(|of| of.name).collect::<Vec<_>>();
    assert_eq!(names(volume.snapshots().await.unwrap()), ["lost"]);
    let other = open(&world).await;
    other.remove_snapshot("lost").await.unwrap();
    other.create_snapshot("other", false).await.unwrap();
    let stale = volume.snapshots().await;
    assert!(matches!(stale, Err(Error::Fenced { .. })), "{stale:?}");
    assert_eq!(names(other.snapshots().await.unwrap()), ["other"]);
}

/// A checkpoint that a rollback's own recovery found damaged is not kept by it: the volume could not be opened any more.
#[tokio::test(start_paused = true)]
async fn a_rollback_keeps_no_damaged_checkpoint() {
    let world = World::new().await;
    let upkeep = UpkeepOptions { delete_after: Duration::from_secs(1 << 30), ..eager() };
    let volume = world.open_with(|options| options.upkeep = upkeep).await;
    objects(&volume, 4, 4).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    objects(&volume, 8, 4).await;
    let to = volume.stats().durable_number;
    let then = [fill_of(&volume, 0).await.unwrap(), fill_of(&volume, 3).await.unwrap()];
    objects(&volume, 3, 1).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    volume.close().await.unwrap();
    let [older, newer] = newest(&world).checkpoints[..] else { unreachable!() };
    assert!(older.stamp.as_of.0 <= to && to < newer.stamp.as_of.0);
    world.store.remove(&names::checkpoint_part(&older.part));
    let moment = Moment::Number(SequenceNumber(to));
    rollback(&world.bucket, &moment, world.options()).await.unwrap();
    assert!(!newest(&world).checkpoints.contains(&older));
    let volume = open(&world).await;
    assert_eq!([fill_of(&volume, 0).await.unwrap(), fill_of(&volume, 3).await.unwrap()], then);
}

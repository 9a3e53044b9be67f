//! Rules 7 to 9 in the volume's background: what is kept, what an opening falls back to, and what is deleted when.

use std::collections::BTreeSet;
use std::time::Duration;

use lsvd_format::checkpoint::decode_root;
use lsvd_format::superblock::{self, Superblock};
use lsvd_format::{SequenceNumber, names};
use lsvd_volume::{CollectOptions, CreateOptions, OpenOptions, UpkeepOptions, Volume, create};

use crate::common::{Fate, MIB, Verb, World, blocks, fill_of, log, settle, write_block};

/// A checkpoint for each object, and what is dead is deleted soon; nothing is collected.
fn busy(options: &mut OpenOptions) {
    options.upkeep = UpkeepOptions {
        look_every: Duration::from_secs(1),
        checkpoint_objects: 1,
        checkpoint_age: Duration::from_secs(1),
        delete_after: Duration::from_secs(10),
        collect: CollectOptions { target: f64::INFINITY, ..CollectOptions::default() },
    };
}

/// Writes a block and lets a checkpoint of it be named.
async fn write_and_wait(volume: &Volume, block: u64, fill: u8) {
    let before = volume.stats().checkpoints;
    write_block(volume, block, fill).await.unwrap();
    for _ in 0..100 {
        if volume.stats().checkpoints > before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("no checkpoint is written");
}

fn newest(world: &World) -> Superblock {
    let name = world.store.names("superblock/").pop().unwrap();
    let number = names::parse_superblock(&name).unwrap();
    superblock::decode(number, &world.store.bytes(&name).unwrap()).unwrap()
}

/// Names of the kept roots, oldest first.
fn roots(world: &World) -> Vec<String> {
    newest(world).checkpoints.iter().map(|checkpoint| names::checkpoint_part(&checkpoint.part)).collect()
}

/// All objects that the kept checkpoints refer to.
fn referenced(world: &World) -> BTreeSet<String> {
    let superblock = newest(world);
    let mut all = BTreeSet::new();
    for checkpoint in &superblock.checkpoints {
        let name = names::checkpoint_part(&checkpoint.part);
        let bytes = world.store.bytes(&name).expect("a kept root is there");
        let (from, len) = (checkpoint.root_offset_bytes as usize, checkpoint.root_bytes as usize);
        let root = decode_root(superblock.volume_id, checkpoint.part, &bytes[from..from + len]).unwrap();
        all.extend(root.parts.iter().map(|part| names::checkpoint_part(&part.part)));
        all.insert(name);
    }
    all
}

/// Rule 7: a checkpoint that an opening found damaged is not one of the two that are kept: the next one takes its place.
#[tokio::test(start_paused = true)]
async fn a_damaged_checkpoint_is_not_one_of_the_two() {
    let world = World::new().await;
    let volume = world.open_with(busy).await;
    write_and_wait(&volume, 1, 11).await;
    write_and_wait(&volume, 2, 22).await;
    drop(volume);
    for fill in 30..34 {
        // Each time the newest one is lost, and the one before has to do.
        let kept = roots(&world);
        let at = world.store.bytes(&kept[1]).unwrap().len() - 5;
        world.store.flip(&kept[1], at);
        let volume = world.open_with(busy).await;
        assert_eq!(fill_of(&volume, 1).await.unwrap(), 11);
        assert_eq!(fill_of(&volume, 2).await.unwrap(), 22);
        write_and_wait(&volume, 3, fill).await;
        assert_eq!(roots(&world)[0], kept[0], "the one that it opened with stays");
        assert!(!roots(&world).contains(&kept[1]));
        drop(volume);
    }
    let volume = world.open_with(busy).await;
    assert_eq!(fill_of(&volume, 3).await.unwrap(), 33);
}

/// Rule 7: a checkpoint whose regions are gone, short or damaged is no better than one without a root.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_without_its_regions_is_passed_over() {
    for harm in ["gone", "short", "damaged"] {
        let world = World::new().await;
        let volume = world.open_with(busy).await;
        write_and_wait(&volume, 1, 11).await;
        write_and_wait(&volume, 2, 22).await;
        // What the tail changes is loaded at once.
        let quiet = |options: &mut OpenOptions| {
            options.upkeep.look_every = Duration::from_secs(1 << 30);
        };
        drop(volume);
        let volume = world.open_with(quiet).await;
        write_block(&volume, 3, 33).await.unwrap();
        drop(volume);
        let kept = newest(&world).checkpoints;
        let of_newest = format!("{:016x}-", kept[1].stamp.as_of.0);
        let root = names::checkpoint_part(&kept[1].part);
        let parts = world.store.names(&format!("checkpoint/{of_newest}"));
        let part = parts.iter().find(|part| **part != root).unwrap();
        match harm {
            "gone" => world.store.remove(part),
            "short" => {
                let bytes = world.store.bytes(part).unwrap();
                world.store.put(part, bytes.slice(..bytes.len() - 1));
            }
            _ => world.store.flip(part, world.store.bytes(part).unwrap().len() - 5),
        }
        let volume = world.open_with(quiet).await;
        for (block, fill) in [(1, 11), (2, 22), (3, 33)] {
            assert_eq!(fill_of(&volume, block).await.unwrap(), fill, "{harm}");
        }
    }
}

/// Rules 2 and 7: a checkpoint of which it is not known whether it was named stays until that is known.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_was_named_after_all_stays() {
    let world = World::empty();
    let options = CreateOptions { size_bytes: 512 * MIB, ..world.create_options() };
    create(&world.bucket, &options).await.unwrap();
    let volume = world
        .open_with(|options| {
            busy(options);
            options.upkeep.checkpoint_age = Duration::MAX;
        })
        .await;
    let write = async |mib: u64, blocks_: u64| {
        volume.write(mib * MIB, blocks(blocks_, 7), false).await.unwrap();
        volume.flush().await.unwrap();
    };
    // The folder can not be looked through yet.
    world.store.always(Verb::Get, "checkpoint/", Fate::Fails);
    write(0, 256).await;
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert_eq!(roots(&world).len(), 1);
    // The next version is stored, and nobody hears of it.
    world.store.always(Verb::Put, "superblock/", Fate::AnswerLost);
    world.store.always(Verb::Get, "superblock/", Fate::Fails);
    let versions = world.store.names("superblock/").len();
    write(0, 256).await;
    while world.store.names("superblock/").len() == versions {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(roots(&world).len(), 2);
    // So much has changed that a checkpoint would be too dear for now.
    for mib in [64, 128, 192, 256] {
        write(mib, 1).await;
    }
    tokio::time::sleep(Duration::from_secs(125)).await;
    world.store.release();
    tokio::time::sleep(Duration::from_secs(300)).await;
    drop(volume);
    let there: BTreeSet<String> = world.store.names("checkpoint/").into_iter().collect();
    assert!(referenced(&world).is_subset(&there), "{:?} of {there:?}", referenced(&world));
}

/// Waits until a version condemns something, which takes some looks of upkeep.
async fn until_condemned(world: &World) {
    for _ in 0..1000 {
        if !newest(world).condemned.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no version condemns anything");
}

/// Rule 7: condemned first, in a version that is stored; the delete comes a grace period later. A crash in between changes
/// nothing: the list is worked off by whoever opens next.
#[tokio::test(start_paused = true)]
async fn what_is_deleted_was_condemned_before() {
    let world = World::new().await;
    let volume = world.open_with(busy).await;
    write_block(&volume, 1, 11).await.unwrap();
    let dead = SequenceNumber(9);
    world.store.before(Verb::Delete, &log(9), move |store| {
        let versions = store.names("superblock/");
        let condemned = versions.iter().filter_map(|name| {
            superblock::decode(names::parse_superblock(name).unwrap(), &store.bytes(name).unwrap()).ok()
        });
        let mut condemned = condemned.flat_map(|version| version.condemned);
        assert!(condemned.any(|range| range.first <= dead && dead <= range.last));
    });
    for fill in 12..16 {
        write_and_wait(&volume, 1, fill).await;
    }
    until_condemned(&world).await;
    assert!(world.store.bytes(&log(9)).is_some(), "readers have their grace");
    drop(volume);
    let volume = world.open_with(busy).await;
    assert!(!newest(&world).condemned.is_empty(), "an opening keeps the list");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(world.store.bytes(&log(9)).is_none());
    assert!(world.store.bytes(&log(1)).is_some(), "fences stay");
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 15);
}

/// Rule 9: a writer that is not the newest any more deletes nothing.
#[tokio::test(start_paused = true)]
async fn who_was_taken_over_deletes_nothing() {
    let world = World::new().await;
    let old = world.open_with(busy).await;
    for fill in 11..16 {
        write_and_wait(&old, 1, fill).await;
    }
    until_condemned(&world).await;
    // A newcomer that keeps its hands still.
    let _new = world.open_with(|options| options.upkeep.look_every = Duration::from_secs(1 << 30)).await;
    world.store.forget();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.store.count(Verb::Delete, ""), 0);
    drop(old);
}

/// Rule 7: a reader goes on as of a newer state while a region of the old one is on its way: that is of no use to anybody,
/// and no damage either.
#[tokio::test(start_paused = true)]
async fn a_region_that_arrives_after_a_reload_is_no_damage() {
    let world = World::empty();
    create(&world.bucket, &CreateOptions { size_bytes: 128 * MIB, ..world.create_options() }).await.unwrap();
    let writer = world.open_with(busy).await;
    let far = 64 * MIB / 4096;
    writer.write(0, blocks(4, 11), false).await.unwrap();
    write_and_wait(&writer, far, 21).await;
    let mut options = world.options();
    options.cache_bytes_max = 0;
    options.io_timeout = Duration::from_secs(3600);
    let reader = Volume::open_read_only(world.bucket.clone(), options).await.unwrap();
    assert_eq!(fill_of(&reader, far).await.unwrap(), 21);
    let regions = referenced(&world).into_iter().find(|name| !roots(&world).contains(name)).unwrap();
    world.store.always(Verb::Get, &regions, Fate::Hangs);
    let waiting = tokio::spawn({
        let reader = reader.clone();
        async move { fill_of(&reader, 3).await }
    });
    settle().await;
    // The log goes on without the object of both, and its slot is another's; the old regions stay.
    let old = world.store.bytes(&regions).unwrap();
    writer.write(0, blocks(4, 12), false).await.unwrap();
    for fill in 22..25 {
        write_and_wait(&writer, far, fill).await;
    }
    while world.store.bytes(&log(9)).is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    write_and_wait(&writer, far, 25).await;
    world.store.put(&regions, old);
    assert_eq!(fill_of(&reader, far).await.unwrap(), 25);
    assert_eq!(reader.stats().reloads, 1);
    world.store.release();
    assert_eq!(waiting.await.unwrap().unwrap(), 12);
    assert_eq!(reader.stats().reloads, 1);
}

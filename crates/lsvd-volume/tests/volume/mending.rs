//! Rules 5 to 7: a region of the map that is damaged in the newest checkpoint only is made again from the one before and the
//! log between them; one that is damaged in both is an I/O error, and nothing else is, also when it is written.

use std::time::Duration;

use bytes::Bytes;

use lsvd_format::checkpoint::{RegionIndex, Root, RunContent, Slot, decode_region, decode_root};
use lsvd_format::superblock::{self, CheckpointRef, Superblock};
use lsvd_format::{BLOCK_LEN, names};
use lsvd_volume::{CollectOptions, CreateOptions, Error, OpenOptions, UpkeepOptions, Volume, create};

use crate::common::{BLOCK, Fate, MIB, Verb, World, blocks, fill_of, read, settle, write_block};

const REGION: u64 = 64 * MIB / BLOCK;
/// Regions of the volume, and blocks at the beginning of each that the tests use.
const REGIONS: u64 = 4;
const USED: u64 = 64;

fn upkeep(checkpoint_objects: u64) -> UpkeepOptions {
    UpkeepOptions {
        look_every: Duration::from_secs(1),
        checkpoint_objects,
        checkpoint_age: Duration::MAX,
        delete_after: Duration::from_secs(10),
        collect: CollectOptions { target: 1.1, waste_bytes_min: 0, share: 1.0, ..CollectOptions::default() },
    }
}

/// Nothing is done behind the clients, and no region stays in memory.
fn still(options: &mut OpenOptions) {
    options.map_bytes_max = 0;
    options.upkeep = UpkeepOptions { look_every: Duration::from_secs(1 << 30), ..upkeep(1 << 30) };
}

/// A checkpoint is due each second.
fn soon(options: &mut OpenOptions) {
    options.upkeep = UpkeepOptions { checkpoint_age: Duration::from_secs(1), ..upkeep(1) };
}

fn newest(world: &World) -> Superblock {
    let name = world.store.names("superblock/").pop().unwrap();
    let number = names::parse_superblock(&name).unwrap();
    superblock::decode(number, &world.store.bytes(&name).unwrap()).unwrap()
}

fn root(world: &World, checkpoint: &CheckpointRef) -> Root {
    let bytes = world.store.bytes(&names::checkpoint_part(&checkpoint.part)).unwrap();
    let from = checkpoint.root_offset_bytes as usize;
    let bytes = &bytes[from..from + checkpoint.root_bytes as usize];
    decode_root(newest(world).volume_id, checkpoint.part, bytes).unwrap()
}

/// Where a checkpoint has a region: the object's name, offset and length.
fn place(root: &Root, region: u64) -> Option<(String, usize, usize)> {
    let of = root.regions.iter().find(|of| u64::from(of.region.0) == region)?;
    let part = names::checkpoint_part(&root.parts[of.part as usize].part);
    Some((part, of.offset_bytes as usize, of.length_bytes as usize))
}

/// Damages a region of a checkpoint.
fn rot(world: &World, root: &Root, region: u64) {
    let (part, offset, length) = place(root, region).unwrap();
    world.store.flip(&part, offset + length - 1);
}

/// Regions of a checkpoint that are damaged.
fn damaged(world: &World, checkpoint: &CheckpointRef) -> Vec<u64> {
    let root = root(world, checkpoint);
    let is_damaged = |region: &u64| {
        let Some((part, offset, length)) = place(&root, *region) else { return false };
        let bytes = world.store.bytes(&part).unwrap();
        let id = names::parse_checkpoint_part(&part).unwrap();
        let region = RegionIndex(u32::try_from(*region).unwrap());
        decode_region(root.volume, id, region, &bytes[offset..offset + length]).is_err()
    };
    (0..REGIONS).filter(is_damaged).collect()
}

/// Waits for something that has to come.
async fn until(come: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if come() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it does not come");
}

/// The fills of the blocks that the tests use.
struct Model(Vec<Vec<u8>>);

impl Model {
    async fn check(&self, volume: &Volume, regions: impl IntoIterator<Item = u64>) {
        for region in regions {
            let bytes = read(volume, region * REGION * BLOCK, USED * BLOCK).await.unwrap();
            let found: Vec<u8> = bytes.chunks(BLOCK_LEN).map(|block| block[0]).collect();
            assert_eq!(found, self.0[region as usize], "region {region}");
        }
    }
}

/// A volume that was written, trimmed and collected in all its regions, with two checkpoints that share no region.
async fn written(seed: u64) -> (World, Model) {
    let world = World::empty();
    let size_bytes = REGIONS * 64 * MIB;
    create(&world.bucket, &CreateOptions { size_bytes, ..world.create_options() }).await.unwrap();
    let volume = world
        .open_with(|options| {
            options.upkeep = UpkeepOptions { checkpoint_age: Duration::from_secs(20), ..upkeep(24) };
            options.batch_bytes_max = 16 * BLOCK;
        })
        .await;
    let mut model = Model(vec![vec![0; USED as usize]; REGIONS as usize]);
    let mut state = seed;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let is_enough = |volume: &Volume| volume.stats().checkpoints >= 5 && volume.stats().moved_bytes > 0;
    for round in 0.. {
        if is_enough(&volume) {
            break;
        }
        assert!(round < 1000, "{:?}", volume.stats());
        for _ in 0..20 {
            let (region, at, count) = (draw(REGIONS), draw(USED - 6), 1 + draw(6));
            let fill = 1 + draw(250) as u8;
            let (offset, length) = ((region * REGION + at) * BLOCK, count * BLOCK);
            let fill = match draw(10) {
                0 => volume.trim(offset, length, false).await.map(|()| 0),
                1 => volume.write_zeroes(offset, length, false, false).await.map(|()| 0),
                _ => volume.write(offset, blocks(count, fill), false).await.map(|()| fill),
            };
            model.0[region as usize][at as usize..(at + count) as usize].fill(fill.unwrap());
        }
        volume.flush().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // The newest checkpoint has all of it: an opening needs no region at once.
    until(|| newest(&world).checkpoints[1].stamp.as_of.0 == volume.stats().durable_number).await;
    (world, model)
}

/// As long as the checkpoint before has it, nobody notices: neither readers nor writers. The next checkpoint has it whole
/// again, in place of the damaged one.
#[tokio::test(start_paused = true)]
async fn a_region_that_rotted_in_the_newest_checkpoint_only_is_made_again() {
    for seed in 1..9 {
        let (world, model) = written(seed).await;
        let kept = newest(&world).checkpoints;
        let (older, newer) = (root(&world, &kept[0]), root(&world, &kept[1]));
        let rotten: Vec<u64> =
            (0..REGIONS).filter(|region| place(&older, *region) != place(&newer, *region)).collect();
        assert!(!rotten.is_empty());
        rotten.iter().for_each(|region| rot(&world, &newer, *region));
        let reader = world.open_read_only().await;
        model.check(&reader, 0..REGIONS).await;
        assert!(reader.stats().mended_regions > 0);
        drop(reader);
        let volume = world.open_with(still).await;
        model.check(&volume, 0..REGIONS).await;
        let mended = volume.stats().mended_regions;
        assert!(mended > 0 && mended <= rotten.len() as u64, "each once: {mended}");
        volume.audit().unwrap();
        drop(volume);
        let volume = world.open_with(soon).await;
        model.check(&volume, 0..REGIONS).await;
        until(|| newest(&world).checkpoints != kept).await;
        drop(volume);
        let now = newest(&world).checkpoints;
        assert_eq!(now[0], kept[0], "the damaged one is not one of the two");
        assert!(now.iter().all(|checkpoint| damaged(&world, checkpoint).is_empty()));
        let volume = world.open_with(still).await;
        model.check(&volume, 0..REGIONS).await;
        assert_eq!(volume.stats().mended_regions, 0);
    }
}

/// What is damaged in both, or in the one that both share, is an I/O error, and the rest of the volume is not.
#[tokio::test(start_paused = true)]
async fn a_region_that_rotted_in_both_checkpoints_is_an_error() {
    let (world, model) = written(1).await;
    let kept = newest(&world).checkpoints;
    let (older, newer) = (root(&world, &kept[0]), root(&world, &kept[1]));
    rot(&world, &newer, 2);
    if place(&older, 2) != place(&newer, 2) {
        rot(&world, &older, 2);
    }
    for volume in [world.open_read_only().await, world.open_with(still).await] {
        model.check(&volume, [0, 1, 3]).await;
        assert!(matches!(fill_of(&volume, 2 * REGION).await, Err(Error::Corrupt { .. })));
        assert_eq!(volume.stats().mended_regions, 0);
        model.check(&volume, [0, 1, 3]).await;
    }
}

/// Rule 10: a write to part of a block of such a region is an error, too, and waits for nothing, whatever others store.
#[tokio::test(start_paused = true)]
async fn a_write_to_part_of_a_block_that_can_not_be_found_is_an_error() {
    let (world, _) = written(1).await;
    let kept = newest(&world).checkpoints;
    let (older, newer) = (root(&world, &kept[0]), root(&world, &kept[1]));
    rot(&world, &newer, 2);
    if place(&older, 2) != place(&newer, 2) {
        rot(&world, &older, 2);
    }
    let volume = world.open_with(still).await;
    let others = volume.clone();
    let busy = tokio::spawn(async move {
        loop {
            write_block(&others, 1, 7).await.unwrap();
            others.flush().await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let part = volume.write(2 * REGION * BLOCK + 5, Bytes::from_static(b"part"), false);
    let part = tokio::time::timeout(Duration::from_secs(600), part).await.expect("it is answered");
    assert!(matches!(part, Err(Error::Corrupt { .. })), "{part:?}");
    busy.abort();
}

/// A log object between the two that is damaged, too: what it said of the region is not known.
#[tokio::test(start_paused = true)]
async fn a_damaged_log_between_the_checkpoints_mends_nothing() {
    let (world, model) = written(2).await;
    let kept = newest(&world).checkpoints;
    let (older, newer) = (root(&world, &kept[0]), root(&world, &kept[1]));
    let changed = (0..REGIONS).find(|region| place(&older, *region) != place(&newer, *region)).unwrap();
    rot(&world, &newer, changed);
    let between = kept[0].stamp.as_of.next();
    assert!(between < kept[1].stamp.as_of);
    let reader = world.open_read_only().await;
    world.store.flip(&names::log_object(between), 20);
    assert!(matches!(fill_of(&reader, changed * REGION).await, Err(Error::Corrupt { .. })));
    model.check(&reader, (0..REGIONS).filter(|region| *region != changed)).await;
    // Once it is back, so is the region.
    world.store.flip(&names::log_object(between), 20);
    model.check(&reader, 0..REGIONS).await;
}

/// An object of the newest checkpoint is lost while the volume is open.
#[tokio::test(start_paused = true)]
async fn regions_whose_object_is_lost_are_made_again() {
    let (world, model) = written(3).await;
    let kept = newest(&world).checkpoints;
    let (older, newer) = (root(&world, &kept[0]), root(&world, &kept[1]));
    let changed = (0..REGIONS).find(|region| place(&older, *region) != place(&newer, *region)).unwrap();
    let volume = world.open_with(still).await;
    world.store.remove(&place(&newer, changed).unwrap().0);
    model.check(&volume, 0..REGIONS).await;
    assert!(volume.stats().mended_regions > 0);
}

/// A region is found damaged while a checkpoint is being written, which takes it over as it is: that one is no better, and
/// the one after it is whole.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_under_way_is_no_better() {
    let (world, model) = written(4).await;
    let kept = newest(&world).checkpoints;
    let (older, newer) = (root(&world, &kept[0]), root(&world, &kept[1]));
    let changed = (1..REGIONS).find(|region| place(&older, *region) != place(&newer, *region)).unwrap();
    rot(&world, &newer, changed);
    let volume = world
        .open_with(|options| {
            soon(options);
            options.upkeep.collect.target = f64::INFINITY;
        })
        .await;
    world.store.always(Verb::Put, "checkpoint/", Fate::Hangs);
    write_block(&volume, USED, 7).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    settle().await;
    assert!(world.store.in_flight() > 0, "a checkpoint is under way");
    model.check(&volume, [changed]).await;
    assert_eq!(volume.stats().mended_regions, 1);
    world.store.release();
    until(|| volume.stats().checkpoints > 0).await;
    let under_way = newest(&world).checkpoints;
    assert_eq!(damaged(&world, &under_way[1]), [changed]);
    until(|| newest(&world).checkpoints != under_way).await;
    let now = newest(&world).checkpoints;
    assert_eq!(now[0], kept[0]);
    assert!(now.iter().all(|checkpoint| damaged(&world, checkpoint).is_empty()));
}

/// Damages a region wherever the kept checkpoints have it. Gives what stored it.
fn rot_everywhere(world: &World, region: u64) -> Vec<String> {
    let kept = newest(world).checkpoints;
    let roots: Vec<Root> = kept.iter().map(|checkpoint| root(world, checkpoint)).collect();
    let mut places: Vec<_> = roots.iter().map(|root| place(root, region).unwrap()).collect();
    places.dedup();
    for (part, offset, length) in &places {
        world.store.flip(part, offset + length - 1);
    }
    places.into_iter().map(|(part, ..)| part).collect()
}

/// Log objects that the newest checkpoint says to hold blocks of a region.
fn objects_of(world: &World, region: u64) -> Vec<String> {
    let root = root(world, newest(world).checkpoints.last().unwrap());
    let (part, offset, length) = place(&root, region).unwrap();
    let id = names::parse_checkpoint_part(&part).unwrap();
    let bytes = world.store.bytes(&part).unwrap();
    let index = RegionIndex(u32::try_from(region).unwrap());
    let runs = decode_region(root.volume, id, index, &bytes[offset..offset + length]).unwrap();
    let number = |slot: Slot| root.objects.iter().find(|of| of.slot == slot).unwrap().identity.number;
    let slots = runs.iter().filter_map(|run| match run.content {
        RunContent::Stored { slot, .. } => Some(slot),
        RunContent::Zero | RunContent::Lost => None,
    });
    slots.map(|slot| names::log_object(number(slot))).collect()
}

/// What is to be seen of region 2 when it was lost and then written: block `USED` has 7s, `USED + 1` is zeroes, and the rest
/// is an error.
async fn check_lost(volume: &Volume, model: &Model) {
    model.check(volume, [0, 1, 3]).await;
    assert_eq!(fill_of(volume, 2 * REGION + USED).await.unwrap(), 7);
    assert_eq!(fill_of(volume, 2 * REGION + USED + 1).await.unwrap(), 0);
    for at in [0, USED - 1, USED + 2, REGION - 1] {
        let read = fill_of(volume, 2 * REGION + at).await;
        assert!(
            matches!(&read, Err(Error::Corrupt { object, .. }) if object.starts_with("checkpoint/")),
            "{read:?}"
        );
    }
    let status = volume.block_status(2 * REGION * BLOCK, BLOCK).await.unwrap();
    assert!(!status[0].hole && !status[0].zero, "it is not known to be nothing");
}

/// Rule 10: what is durable is applied without such a region, so that nothing waits for it: its blocks that nobody wrote since
/// are I/O errors, and all else is as ever, also for who opens next, and behind checkpoints and collection.
#[tokio::test(start_paused = true)]
async fn a_region_that_rotted_in_both_checkpoints_and_is_written_stalls_nobody() {
    let (world, mut model) = written(1).await;
    let needed = objects_of(&world, 2);
    let parts = rot_everywhere(&world, 2);
    let volume = world.open_with(still).await;
    let fills = |volume: Volume| async move {
        volume.write((2 * REGION + USED) * BLOCK, blocks(1, 7), false).await?;
        volume.trim((2 * REGION + USED + 1) * BLOCK, BLOCK, false).await?;
        volume.flush().await?;
        // More than the window, each an object of its own.
        for nth in 0..300 {
            volume.write((REGION + nth % USED) * BLOCK, blocks(1, 9), true).await?;
        }
        Ok::<_, Error>(())
    };
    let filled = tokio::time::timeout(Duration::from_secs(3600), fills(volume.clone())).await;
    filled.expect("nothing hangs").unwrap();
    model.0[1].fill(9);
    until(|| volume.stats().buffered_bytes == 0).await;
    assert_eq!(volume.stats().lost_regions, 1);
    check_lost(&volume, &model).await;
    let part = volume.write(2 * REGION * BLOCK + 5, Bytes::from_static(b"part"), false).await;
    assert!(matches!(part, Err(Error::Corrupt { .. })), "{part:?}");
    volume.audit().unwrap();
    drop(volume);

    // The log behind the checkpoints needs the region: openings go on without it, too.
    for volume in [world.open_read_only().await, world.open_with(still).await] {
        assert_eq!(volume.stats().lost_regions, 1);
        check_lost(&volume, &model).await;
    }
    // Checkpoints, deletion and collection go on.
    let volume = world.open_with(soon).await;
    check_lost(&volume, &model).await;
    let before = newest(&world).checkpoints;
    for nth in 0..200 {
        let (at, fill) = (nth * 7 % (USED - 6), 1 + nth as u8);
        volume.write((REGION + at) * BLOCK, blocks(6, fill), true).await.unwrap();
        model.0[1][at as usize..at as usize + 6].fill(fill);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let stats = volume.stats();
    assert!(stats.checkpoints > 3 && stats.deleted_objects > 0 && stats.moved_bytes > 0, "{stats:?}");
    assert!(newest(&world).checkpoints.iter().all(|kept| !before.contains(kept)));
    check_lost(&volume, &model).await;
    volume.audit().unwrap();
    drop(volume);
    for volume in [world.open_read_only().await, world.open_with(still).await] {
        assert_eq!(volume.stats().lost_regions, 0, "the checkpoint says it");
        check_lost(&volume, &model).await;
        volume.audit().unwrap();
    }
    // All that a person may need to repair it is there.
    assert!(newest(&world).has_lost_blocks());
    for name in needed.iter().chain(&parts[parts.len() - 1..]) {
        assert!(world.store.bytes(name).is_some(), "{name} was deleted");
    }
    // What is written is well again.
    let volume = world.open_with(still).await;
    volume.write(2 * REGION * BLOCK, blocks(1, 3), false).await.unwrap();
    volume.write(2 * REGION * BLOCK + 5, Bytes::from_static(b"part"), false).await.unwrap();
    let bytes = read(&volume, 2 * REGION * BLOCK, 12).await.unwrap();
    assert_eq!(bytes, *b"\x03\x03\x03\x03\x03part\x03\x03\x03");
}

/// Where each of the two checkpoints has a damaged region that the log behind it changes, and neither has both, nothing is
/// lost: an opening makes the newer one's again.
#[tokio::test(start_paused = true)]
async fn two_checkpoints_with_one_damaged_region_each_lose_nothing() {
    let mut tried = 0;
    for seed in 1..9 {
        let (world, mut model) = written(seed).await;
        let kept = newest(&world).checkpoints;
        let (older, newer) = (root(&world, &kept[0]), root(&world, &kept[1]));
        let changed = (0..REGIONS).filter(|region| place(&older, *region) != place(&newer, *region));
        let [one, other, ..] = changed.collect::<Vec<_>>()[..] else { continue };
        tried += 1;
        let volume = world.open_with(still).await;
        for region in [one, other] {
            volume.write((region * REGION + 1) * BLOCK, blocks(1, 251), false).await.unwrap();
            model.0[region as usize][1] = 251;
        }
        volume.flush().await.unwrap();
        drop(volume);
        rot(&world, &newer, one);
        rot(&world, &older, other);
        for volume in [world.open_read_only().await, world.open_with(still).await] {
            model.check(&volume, 0..REGIONS).await;
            volume.audit().unwrap();
        }
        // The damaged one is not one of the two that are kept from then on.
        let volume = world.open_with(soon).await;
        until(|| volume.stats().checkpoints > 1).await;
        let now = newest(&world);
        assert!(!now.has_lost_blocks() && !now.checkpoints.contains(&kept[1]));
        model.check(&volume, 0..REGIONS).await;
        drop(volume);
    }
    assert!(tried > 0);
}

/// A store that gives back wrong bytes for some seconds makes an opening wait, and loses nothing.
#[tokio::test(start_paused = true)]
async fn what_is_damaged_for_seconds_is_not_lost() {
    let (world, mut model) = written(1).await;
    let volume = world.open_with(still).await;
    volume.write((2 * REGION + 1) * BLOCK, blocks(1, 251), true).await.unwrap();
    model.0[2][1] = 251;
    drop(volume);
    rot_everywhere(&world, 2);
    let opening = {
        let bucket = world.bucket.clone();
        let mut options = world.options();
        still(&mut options);
        tokio::spawn(async move { Volume::open(bucket, options).await })
    };
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!opening.is_finished());
    rot_everywhere(&world, 2);
    let volume = opening.await.unwrap().unwrap();
    assert_eq!(volume.stats().lost_regions, 0);
    model.check(&volume, 0..REGIONS).await;
}

mod clones;

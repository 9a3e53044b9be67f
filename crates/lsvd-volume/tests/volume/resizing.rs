//! Resizing: what clients see from when on, and that what was cut off never comes back, whatever happens in between.
//!
//! A volume of the tests has 64 MiB, which is one region of the map: sizes lie at the end of a region and in its middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lsvd_format::checkpoint::decode_root;
use lsvd_format::names;
use lsvd_format::superblock::{self, Superblock};
use lsvd_volume::{
    CreateOptions, Error, ObjectFormat, OpenOptions, Resized, ShrinkPolicy, UpkeepOptions, Volume, create,
};

use crate::common::{BLOCK, Fate, MIB, Verb, World, blocks, fill_of, read, settle, write_block};

/// Blocks of 64 MiB.
const REGION: u64 = 16_384;

async fn grow(volume: &Volume, size_blocks: u64) {
    volume.resize(size_blocks * BLOCK, ShrinkPolicy::Refuse).await.unwrap();
    assert_eq!(volume.size_bytes(), size_blocks * BLOCK);
}

async fn discard(volume: &Volume, size_blocks: u64) -> Result<Resized, Error> {
    volume.resize(size_blocks * BLOCK, ShrinkPolicy::Discard).await
}

fn newest(world: &World) -> Superblock {
    let name = world.store.names(names::SUPERBLOCK_FOLDER).pop().unwrap();
    superblock::decode(names::parse_superblock(&name).unwrap(), &world.store.bytes(&name).unwrap()).unwrap()
}

/// A checkpoint behind each object, as soon as somebody looks.
fn busy(options: &mut OpenOptions) {
    options.upkeep = UpkeepOptions {
        look_every: Duration::from_millis(100),
        checkpoint_objects: 1,
        checkpoint_age: Duration::from_secs(1),
        delete_after: Duration::from_secs(2),
        ..UpkeepOptions::default()
    };
}

/// All that lies between two blocks is nothing.
async fn reads_as_nothing(volume: &Volume, from: u64, until: u64) {
    let mut at = from;
    while at < until {
        let count = (until - at).min(2048);
        let bytes = read(volume, at * BLOCK, count * BLOCK).await.unwrap();
        let held = bytes.iter().position(|byte| *byte != 0);
        assert_eq!(held.map(|byte| at + byte as u64 / BLOCK), None, "a block that was cut off is back");
        at += count;
    }
}

#[tokio::test(start_paused = true)]
async fn a_grown_volume_shows_zeroes_and_takes_writes() {
    let world = World::new().await;
    let volume = world.open().await;
    write_block(&volume, REGION - 1, 7).await.unwrap();
    let beyond = write_block(&volume, REGION, 8).await;
    assert!(
        matches!(beyond, Err(Error::BeyondEnd { size_bytes, .. }) if size_bytes == 64 * MIB),
        "{beyond:?}"
    );
    // To the middle of the next region, to its end, and by one block.
    for (nth, size) in [REGION + 100, 2 * REGION, 2 * REGION + 1].into_iter().enumerate() {
        let before = volume.size_bytes();
        let resized = volume.resize(size * BLOCK, ShrinkPolicy::Refuse).await.unwrap();
        assert_eq!(resized, Resized { before_bytes: before, size_bytes: size * BLOCK });
        assert_eq!(volume.description().size_bytes, size * BLOCK);
        reads_as_nothing(&volume, before / BLOCK, size).await;
        write_block(&volume, size - 1, 20 + nth as u8).await.unwrap();
        assert!(write_block(&volume, size, 1).await.is_err());
    }
    drop(volume);
    let volume = world.open().await;
    assert_eq!(volume.size_bytes(), (2 * REGION + 1) * BLOCK);
    for (block, fill) in
        [(REGION - 1, 7), (REGION + 99, 20), (2 * REGION - 1, 21), (2 * REGION, 22), (REGION, 0)]
    {
        assert_eq!(fill_of(&volume, block).await.unwrap(), fill, "block {block}");
    }
    let sizes = newest(&world).moments.sizes;
    assert_eq!(sizes.len(), 4, "the first resize records the size before: {sizes:?}");
    assert_eq!((sizes[0].since.0, sizes[0].size_bytes), (1, 64 * MIB));
}

#[tokio::test(start_paused = true)]
async fn sizes_that_can_not_be_are_refused() {
    let world = World::new().await;
    let volume = world.open().await;
    for size_bytes in [0, 1, 4095, 4097, 64 * MIB - 512, (1 << 56) + 4096, u64::MAX] {
        for policy in [ShrinkPolicy::Refuse, ShrinkPolicy::Discard] {
            let refused = volume.resize(size_bytes, policy).await;
            assert!(matches!(refused, Err(Error::Invalid(_))), "{size_bytes}: {refused:?}");
        }
    }
    assert_eq!(volume.size_bytes(), 64 * MIB);
    volume.resize(1 << 56, ShrinkPolicy::Refuse).await.unwrap();
    write_block(&volume, (1 << 44) - 1, 9).await.unwrap();
    let refused = volume.resize(64 * MIB, ShrinkPolicy::Refuse).await;
    assert!(matches!(refused, Err(Error::HoldsData { live_bytes: BLOCK, .. })), "{refused:?}");
    discard(&volume, 1).await.unwrap();
    assert_eq!(read(&volume, 0, BLOCK).await.unwrap(), vec![0; 4096]);
    let reader = world.open_read_only().await;
    assert!(matches!(reader.resize(MIB, ShrinkPolicy::Refuse).await, Err(Error::ReadOnly { .. })));
    volume.close().await.unwrap();
    assert!(matches!(volume.resize(MIB, ShrinkPolicy::Refuse).await, Err(Error::Closed { .. })));
}

/// It says how much there is and where, whether the store has it or not; nobody's request fails meanwhile.
#[tokio::test(start_paused = true)]
async fn a_volume_does_not_shrink_over_data() {
    let world = World::new().await;
    let volume = world.open().await;
    let refused = async |live: u64, first: u64| {
        let refused = volume.resize(4096 * BLOCK, ShrinkPolicy::Refuse).await;
        let Err(Error::HoldsData { live_bytes, first_bytes, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!((live_bytes, first_bytes), (live * BLOCK, first * BLOCK));
        assert_eq!(volume.size_bytes(), 64 * MIB);
        assert_eq!(newest(&world).moments.sizes, []);
    };
    write_block(&volume, 5000, 1).await.unwrap();
    volume.write(9000 * BLOCK, blocks(3, 2), false).await.unwrap();
    refused(4, 5000).await;
    volume.flush().await.unwrap();
    refused(4, 5000).await;
    volume.trim(5000 * BLOCK, BLOCK, false).await.unwrap();
    refused(3, 9000).await;
    // Zeroes hold nothing, allocated or not.
    volume.write_zeroes(9000 * BLOCK, 2 * BLOCK, true, false).await.unwrap();
    refused(1, 9002).await;
    // A write that waits for what was there before counts, too.
    drop(volume.write(9002 * BLOCK, blocks(1, 0), false).await);
    write_block(&volume, 4000, 3).await.unwrap();
    let other = world.open().await;
    world.store.rule(Verb::Get, "log/", Fate::Hangs, 1);
    write_block(&other, 4100, 4).await.unwrap();
    other.trim(4100 * BLOCK, BLOCK, false).await.unwrap();
    other.write(4100 * BLOCK, blocks(1, 4), true).await.unwrap();
    drop(other);
    let volume = world.open().await;
    world.store.rule(Verb::Get, "log/", Fate::Hangs, 1);
    let partly = tokio::spawn({
        let volume = volume.clone();
        async move { volume.write(4100 * BLOCK + 7, "x".into(), false).await }
    });
    settle().await;
    let shrunk = volume.resize(4096 * BLOCK, ShrinkPolicy::Refuse).await;
    assert!(matches!(shrunk, Err(Error::HoldsData { .. })), "{shrunk:?}");
    world.store.release();
    partly.await.unwrap().unwrap();
    volume.trim(4096 * BLOCK, 100 * BLOCK, false).await.unwrap();
    volume.resize(4096 * BLOCK, ShrinkPolicy::Refuse).await.unwrap();
    assert_eq!(fill_of(&volume, 4000).await.unwrap(), 3);
    grow(&volume, REGION).await;
    reads_as_nothing(&volume, 4096, REGION).await;
}

/// Flushed or not, in a checkpoint or not, at the border of a region of the map and in its middle, and over a region that
/// is not in memory: what was cut off stays away, with this opening and with the next one.
#[tokio::test(start_paused = true)]
async fn what_was_cut_off_does_not_come_back() {
    for (cut, crash, checkpoints) in [
        (REGION, false, false),
        (REGION, true, true),
        (REGION + 8000, true, false),
        (REGION + 8000, false, true),
        (REGION / 2, true, true),
        (1, true, false),
    ] {
        let world = World::new().await;
        let open = async || {
            world
                .open_with(|options| {
                    if checkpoints {
                        busy(options)
                    }
                })
                .await
        };
        let pause = async || tokio::time::sleep(Duration::from_secs(if checkpoints { 5 } else { 0 })).await;
        let volume = open().await;
        grow(&volume, 3 * REGION).await;
        volume.write((cut - 1) * BLOCK, blocks(3, 1), true).await.unwrap();
        for at in [2 * REGION - 1, 3 * REGION - 2] {
            volume.write(at * BLOCK, blocks(2, 2), true).await.unwrap();
        }
        pause().await;
        drop(volume);
        // None of its regions is in memory where there is a checkpoint.
        let volume = open().await;
        volume.write((cut + 1) * BLOCK, blocks(2, 3), false).await.unwrap();
        let resized = discard(&volume, cut).await.unwrap();
        assert_eq!(resized.before_bytes, 3 * REGION * BLOCK);
        pause().await;
        assert_eq!(volume.stats().live_bytes, BLOCK, "nothing is left in the map");
        for (offset_bytes, length_bytes) in [(cut * BLOCK, 1), (cut * BLOCK - 1, 2)] {
            let reads = volume.read(offset_bytes, length_bytes).await;
            assert!(matches!(reads, Err(Error::BeyondEnd { .. })), "{reads:?}");
            assert!(volume.block_status(offset_bytes, length_bytes).await.is_err());
            assert!(volume.trim(offset_bytes, length_bytes, false).await.is_err());
        }
        let volume = match crash {
            true => {
                drop(volume);
                open().await
            }
            false => volume,
        };
        assert_eq!(volume.size_bytes(), cut * BLOCK);
        grow(&volume, 4 * REGION).await;
        pause().await;
        assert_eq!(fill_of(&volume, cut - 1).await.unwrap(), 1);
        reads_as_nothing(&volume, cut, 4 * REGION).await;
        drop(volume);
        let volume = open().await;
        reads_as_nothing(&volume, cut, 4 * REGION).await;
        volume.audit().unwrap();
    }
}

/// Rule 1: whichever request to the store is the last one, and whether it was carried out: the volume has the old size or the
/// new one, and beyond the new one there is nothing.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_leaves_the_old_size_or_the_new_one() {
    let mut seen = [0, 0];
    for nth in 0.. {
        let mut done = false;
        for fate in [Fate::Hangs, Fate::AnswerLost] {
            let world = World::new().await;
            let volume = world.open().await;
            write_block(&volume, 5000, 1).await.unwrap();
            volume.write(6000 * BLOCK, blocks(1, 2), false).await.unwrap();
            volume.write(3000 * BLOCK, blocks(1, 3), true).await.unwrap();
            world.store.rule(Verb::Put, "", Fate::Slow(Duration::ZERO), nth);
            world.store.rule(Verb::Put, "", fate.clone(), 1);
            world.store.always(Verb::Put, "", Fate::Hangs);
            let ended = tokio::time::timeout(Duration::from_secs(1), discard(&volume, 4096)).await;
            done = ended.is_ok();
            drop(volume);
            world.store.release();
            settle().await;
            let volume = world.open().await;
            let size = volume.size_bytes() / BLOCK;
            assert!(size == 4096 || !done && size == REGION, "a size of {size} blocks");
            seen[usize::from(size == 4096)] += 1;
            assert_eq!(fill_of(&volume, 3000).await.unwrap(), 3);
            if size == 4096 {
                grow(&volume, REGION).await;
            } else {
                assert!([0, 1].contains(&fill_of(&volume, 5000).await.unwrap()));
                discard(&volume, 4096).await.unwrap();
                grow(&volume, REGION).await;
            }
            reads_as_nothing(&volume, 4096, REGION).await;
        }
        if done {
            assert!(nth >= 2, "a trim and a superblock version are put");
            break;
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

/// The same for growing: what was written beyond the old end is there.
#[tokio::test(start_paused = true)]
async fn a_crash_while_growing_loses_nothing() {
    for fate in [Fate::Hangs, Fate::AnswerLost] {
        let world = World::new().await;
        let volume = world.open().await;
        write_block(&volume, 1, 1).await.unwrap();
        world.store.rule(Verb::Put, "superblock/", fate, 1);
        world.store.always(Verb::Put, "superblock/", Fate::Hangs);
        let growing = volume.resize(2 * 64 * MIB, ShrinkPolicy::Refuse);
        assert!(tokio::time::timeout(Duration::from_secs(1), growing).await.is_err());
        assert!(write_block(&volume, REGION, 2).await.is_err(), "nobody knows yet that it may be written");
        world.store.release();
        grow(&volume, 3 * REGION).await;
        write_block(&volume, 3 * REGION - 1, 3).await.unwrap();
        drop(volume);
        let volume = world.open().await;
        assert_eq!((volume.size_bytes(), fill_of(&volume, 3 * REGION - 1).await.unwrap()), (3 * 64 * MIB, 3));
    }
}

/// A store that does not say whether it has the version: until that is known nobody writes what would not be there then.
#[tokio::test(start_paused = true)]
async fn a_version_of_unknown_fate_keeps_the_volume_small() {
    for fate in [Fate::Fails, Fate::AnswerLost] {
        let world = World::new().await;
        let volume = world.open_with(|options| options.io_timeout = Duration::from_secs(2)).await;
        write_block(&volume, 5000, 1).await.unwrap();
        world.store.rule(Verb::Put, "superblock/", fate, 1);
        world.store.always(Verb::Put, "superblock/", Fate::Hangs);
        assert!(tokio::time::timeout(Duration::from_secs(30), discard(&volume, 4096)).await.is_err());
        assert!(matches!(write_block(&volume, 4096, 2).await, Err(Error::BeyondEnd { .. })));
        world.store.release();
        write_block(&volume, 4095, 3).await.unwrap();
        // Growing back settles it.
        grow(&volume, REGION).await;
        write_block(&volume, 4097, 4).await.unwrap();
        drop(volume);
        let volume = world.open().await;
        assert_eq!(volume.size_bytes(), 64 * MIB);
        for (block, fill) in [(4095, 3), (4096, 0), (4097, 4), (5000, 0)] {
            assert_eq!(fill_of(&volume, block).await.unwrap(), fill, "block {block}");
        }
    }
}

/// Who gives up before the size is said anywhere leaves the volume as large as it was.
#[tokio::test(start_paused = true)]
async fn a_resize_that_is_given_up_changes_no_size() {
    let world = World::new().await;
    let volume = world.open_with(|options| options.io_timeout = Duration::from_secs(2)).await;
    write_block(&volume, 5000, 1).await.unwrap();
    world.store.always(Verb::Put, "log/", Fate::Hangs);
    assert!(tokio::time::timeout(Duration::from_secs(1), discard(&volume, 4096)).await.is_err());
    assert_eq!(volume.size_bytes(), 64 * MIB);
    assert!(matches!(discard(&volume, 4096).await, Err(Error::TimedOut { .. } | Error::Store { .. })));
    assert_eq!(volume.size_bytes(), 64 * MIB);
    volume.write(6000 * BLOCK, blocks(1, 6), false).await.unwrap();
    world.store.release();
    volume.flush().await.unwrap();
    assert_eq!(fill_of(&volume, 6000).await.unwrap(), 6);
    assert_eq!(newest(&world).size_bytes, 64 * MIB);
    // A volume that closes waits for a resize, and none begins any more.
    let (closed, resized) = tokio::join!(volume.close(), discard(&volume, 4096));
    closed.unwrap();
    assert!(matches!(resized, Err(Error::Closed { .. })), "{resized:?}");
}

/// Writers that go on while it shrinks: within the new size all is kept, beyond it a write fails or is cut off.
#[tokio::test(start_paused = true)]
async fn writers_go_on_while_it_shrinks() {
    for cut in [REGION / 2, REGION] {
        let world = World::new().await;
        let volume = world.open_with(busy).await;
        grow(&volume, 2 * REGION).await;
        world.store.always(Verb::Put, "", Fate::Slow(Duration::from_millis(20)));
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |offset: u64| {
            let (volume, stop) = (volume.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut refused, mut kept) = (0, 0);
                for nth in 0u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Around the cut, over it, and of parts of blocks.
                    let at = (cut - 20 + offset) * BLOCK + nth * 3000 % (40 * BLOCK);
                    match volume.write(at, blocks(1, (nth % 250) as u8 + 1), nth % 7 == 0).await {
                        Ok(()) => kept += 1,
                        Err(Error::BeyondEnd { .. }) => refused += 1,
                        Err(error) => panic!("{error}"),
                    }
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                (refused, kept)
            })
        };
        let writers = [writer(0), writer(1), writer(7)];
        tokio::time::sleep(Duration::from_secs(1)).await;
        for round in 0..5 {
            discard(&volume, cut).await.unwrap();
            assert!(volume.write(cut * BLOCK - 1, blocks(1, 9), false).await.is_err());
            let reader = world.open_read_only().await;
            assert_eq!(reader.size_bytes(), cut * BLOCK);
            tokio::time::sleep(Duration::from_millis(300)).await;
            if round < 4 {
                grow(&volume, 2 * REGION).await;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        volume.flush().await.unwrap();
        assert!(write_block(&volume, cut - 30, 77).await.is_ok());
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            let (refused, kept) = writer.await.unwrap();
            assert!(refused > 0 && kept > 0, "{refused} refused, {kept} kept");
        }
        volume.flush().await.unwrap();
        let before = read(&volume, (cut - 40) * BLOCK, 40 * BLOCK).await.unwrap();
        assert!(before.iter().filter(|byte| **byte != 0).count() > 18 * BLOCK as usize);
        drop(volume);
        let volume = world.open().await;
        assert!(read(&volume, (cut - 40) * BLOCK, 40 * BLOCK).await.unwrap() == before);
        grow(&volume, 2 * REGION).await;
        reads_as_nothing(&volume, cut, 2 * REGION).await;
    }
}

/// A checkpoint that is begun while what is cut off is in the map still is one of a larger volume.
#[tokio::test(start_paused = true)]
async fn checkpoints_are_of_the_size_of_their_time() {
    let world = World::new().await;
    let volume = world.open_with(busy).await;
    grow(&volume, 4 * REGION).await;
    volume.write((3 * REGION + 5) * BLOCK, blocks(1, 1), true).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Its root waits, while the volume shrinks.
    world.store.always(Verb::Put, "checkpoint/", Fate::Slow(Duration::from_secs(3)));
    volume.write((2 * REGION + 5) * BLOCK, blocks(1, 2), true).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    discard(&volume, 10).await.unwrap();
    // The trim itself is of the larger volume, what follows it of the smaller one.
    write_block(&volume, 9, 3).await.unwrap();
    let mut sizes = Vec::new();
    for _ in 0..40 {
        let superblock = newest(&world);
        for checkpoint in &superblock.checkpoints {
            let bytes = world.store.bytes(&names::checkpoint_part(&checkpoint.part)).unwrap();
            let (from, len) = (checkpoint.root_offset_bytes as usize, checkpoint.root_bytes as usize);
            let root = decode_root(superblock.volume_id, checkpoint.part, &bytes[from..from + len]).unwrap();
            let line = superblock.line(checkpoint.stamp.as_of);
            assert_eq!(root.volume_blocks * BLOCK, superblock.size_bytes_at(&line));
            sizes.push(root.volume_blocks);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(sizes.contains(&(4 * REGION)) && sizes.last() == Some(&10), "{sizes:?}");
    drop(volume);
    assert_eq!(world.open().await.size_bytes(), 10 * BLOCK);
}

/// Who reads keeps the size that it opened with, also when it reads the log again.
#[tokio::test(start_paused = true)]
async fn readers_keep_their_size() {
    let world = World::new().await;
    let volume = world.open_with(busy).await;
    write_block(&volume, 5000, 1).await.unwrap();
    write_block(&volume, 3, 3).await.unwrap();
    let reader = world.open_read_only().await;
    discard(&volume, 4096).await.unwrap();
    for nth in 0..30 {
        write_block(&volume, nth % 5, 3).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(reader.size_bytes(), 64 * MIB);
    assert_eq!(fill_of(&reader, 5000).await.unwrap(), 0, "it was behind, and reads the log again");
    assert_eq!(reader.stats().reloads, 1);
    assert_eq!((fill_of(&reader, 3).await.unwrap(), reader.size_bytes()), (3, 64 * MIB));
}

/// Format 1 knows no trims: what is cut off would be back.
#[tokio::test(start_paused = true)]
async fn a_log_of_format_1_only_grows() {
    let world = World::empty();
    let options =
        CreateOptions { log_format: ObjectFormat::V1, unsafe_single_writer: true, ..world.create_options() };
    create(&world.bucket, &options).await.unwrap();
    let open = async || world.open_with(|options| options.unsafe_single_writer = true).await;
    let volume = open().await;
    for policy in [ShrinkPolicy::Refuse, ShrinkPolicy::Discard] {
        let refused = volume.resize(MIB, policy).await;
        let Err(Error::Invalid(words)) = refused else { panic!("{refused:?}") };
        assert!(words.contains("format 1") && words.contains("not shrink"), "{words}");
    }
    grow(&volume, 2 * REGION).await;
    write_block(&volume, 2 * REGION - 1, 8).await.unwrap();
    drop(volume);
    let volume = open().await;
    assert_eq!((volume.size_bytes(), fill_of(&volume, 2 * REGION - 1).await.unwrap()), (2 * 64 * MIB, 8));
}

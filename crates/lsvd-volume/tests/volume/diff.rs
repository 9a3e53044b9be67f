//! What changed between two moments: all of it, and what collection moved is no change.

use std::time::Duration;

use lsvd_format::SequenceNumber;
use lsvd_format::checkpoint::REGION_BLOCKS;
use lsvd_volume::{
    ChangedExtent, Changes, CollectOptions, Difference, Error, Moment, UpkeepOptions, Volume, create, diff,
};

use crate::common::{BLOCK, MIB, Verb, World, blocks, write_block};
use crate::moments::{BLOCKS, History};

async fn between(history: &History, from: u64, to: Option<u64>) -> (Difference, Vec<ChangedExtent>) {
    let number = |number: u64| Moment::Number(SequenceNumber(number));
    let mut changed = Vec::new();
    let to = to.map(number);
    let told =
        diff(&history.world.bucket, &number(from), to.as_ref(), |extent| changed.push(extent)).await.unwrap();
    (told, changed)
}

/// The changed extents of a range as [`Changes`] tells them, asked for as often as it takes.
async fn asked(changes: &Changes, mut offset_bytes: u64, end: u64) -> Vec<(u64, u64, bool)> {
    let mut changed: Vec<(u64, u64, bool)> = Vec::new();
    while offset_bytes < end {
        let told = changes.status(offset_bytes, end - offset_bytes).await.unwrap();
        assert!(!told.is_empty());
        for status in told {
            assert!(status.length_bytes > 0 && (status.changed || !status.zero));
            if status.changed {
                match changed.last_mut() {
                    Some((start, length, zero))
                        if *start + *length == offset_bytes && *zero == status.zero =>
                    {
                        *length += status.length_bytes;
                    }
                    _ => changed.push((offset_bytes, status.length_bytes, status.zero)),
                }
            }
            offset_bytes += status.length_bytes;
        }
    }
    assert_eq!(offset_bytes, end);
    changed
}

/// The blocks that extents cover, each with whether it reads as zeroes.
fn covered(changed: &[ChangedExtent]) -> Vec<(u64, bool)> {
    let blocks = |extent: &ChangedExtent| {
        let first = extent.offset_bytes / BLOCK;
        let zero = extent.zero;
        (first..first + extent.length_bytes / BLOCK).map(move |block| (block, zero))
    };
    changed.iter().flat_map(blocks).collect()
}

/// Between any two moments that are held, forth and back: every block whose content differs is told, with what it is then;
/// and none that nobody wrote.
#[tokio::test(start_paused = true)]
async fn every_change_is_told() {
    let mut history = History::new().await;
    let volume = history.open().await;
    history.goes_on(&volume, 60, 2).await;
    let end = volume.stats().durable_number;
    drop(volume);
    let oldest = crate::moments::newest(&history.world).1.checkpoints[0].stamp.as_of.0;
    let held: Vec<u64> = history.then.keys().copied().filter(|number| *number >= oldest).collect();
    assert!(held.len() > 12, "{held:?}");
    for from in held.iter().copied().step_by(3) {
        for to in held.iter().copied().step_by(2) {
            let (told, changed) = between(&history, from, Some(to)).await;
            assert_eq!((told.from.0, told.to.0), (from, to));
            let number = Moment::Number(SequenceNumber(from));
            let size_bytes = told.to_size_bytes;
            let changes = Changes::between(&history.world.bucket, &number, SequenceNumber(to), size_bytes)
                .await
                .unwrap();
            let extents: Vec<_> = changed
                .iter()
                .map(|extent| (extent.offset_bytes, extent.length_bytes, extent.zero))
                .collect();
            assert_eq!(asked(&changes, 0, size_bytes).await, extents, "from {from} to {to}");
            let covered = covered(&changed);
            assert_eq!(told.changed_bytes, covered.len() as u64 * BLOCK);
            let (before, after) = (&history.then[&from].0, &history.then[&to].0);
            for block in 0..BLOCKS {
                let told = covered.iter().find(|(of, _)| *of == block);
                let (was, is) = (before[block as usize], after[block as usize]);
                if was != is {
                    assert_eq!(told, Some(&(block, is == 0)), "block {block} from {from} to {to}");
                }
                if was == 0 && is == 0 {
                    assert_eq!(told, None, "block {block} from {from} to {to}");
                }
            }
            if from == to {
                assert!(changed.is_empty());
            }
        }
    }
    let (told, _) = between(&history, held[0], None).await;
    assert_eq!(told.to.0, end);
}

/// Content that collection moved is where it was, to whoever reads; and zeroes over a hole are no change.
#[tokio::test(start_paused = true)]
async fn what_was_moved_has_not_changed() {
    let mut history = History::new().await;
    let collect =
        CollectOptions { target: 1.05, waste_bytes_min: 0, share: 1.0, ..CollectOptions::default() };
    history.upkeep = UpkeepOptions {
        collect,
        delete_after: Duration::from_secs(1 << 40),
        checkpoint_objects: 1000,
        checkpoint_age: Duration::MAX,
        ..history.upkeep
    };
    let volume = history.open().await;
    volume.write(0, blocks(200, 3), true).await.unwrap();
    // What is left are runs of two blocks.
    for block in (0..200).step_by(3) {
        write_block(&volume, block, 4).await.unwrap();
    }
    let from = volume.stats().durable_number;
    write_block(&volume, 77, 5).await.unwrap();
    volume.write_zeroes(1000 * BLOCK, BLOCK, true, true).await.unwrap();
    volume.trim(99 * BLOCK, BLOCK, true).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let moved = volume.stats().moved_bytes;
    assert!(moved > 90 * BLOCK, "{moved} bytes were moved");
    let (_, changed) = between(&history, from, None).await;
    assert_eq!(covered(&changed), [(77, false), (99, true)]);
}

/// Regions that both have in one place are not read: a difference costs what changed.
#[tokio::test(start_paused = true)]
async fn what_did_not_change_is_not_read() {
    let world = World::empty();
    let options = lsvd_volume::CreateOptions { size_bytes: 64 * 64 * MIB, ..world.create_options() };
    create(&world.bucket, &options).await.unwrap();
    let upkeep = UpkeepOptions {
        checkpoint_objects: 40,
        checkpoint_age: Duration::from_secs(30),
        ..UpkeepOptions::default()
    };
    let volume = world.open_with(|options| options.upkeep = upkeep).await;
    for region in 0..64 {
        write_block(&volume, region * REGION_BLOCKS + 5, 1).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let from = volume.stats().durable_number;
    write_block(&volume, 7 * REGION_BLOCKS + 6, 2).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    write_block(&volume, 9 * REGION_BLOCKS, 2).await.unwrap();
    assert!(volume.stats().checkpoints >= 2);
    drop::<Volume>(volume);
    world.store.forget();
    let mut changed = Vec::new();
    let told =
        diff(&world.bucket, &Moment::Number(SequenceNumber(from)), None, |extent| changed.push(extent)).await;
    assert_eq!(told.unwrap().regions_compared, 2);
    assert_eq!(covered(&changed), [(7 * REGION_BLOCKS + 6, false), (9 * REGION_BLOCKS, false)]);
    let read = world.store.count(Verb::Get, "checkpoint/");
    assert!(read < 10, "{read} reads of checkpoints");
}

/// Whoever asks for a piece is told of that piece, and not what it costs to tell of all.
#[tokio::test(start_paused = true)]
async fn pieces_of_a_difference() {
    let world = World::empty();
    let options = lsvd_volume::CreateOptions { size_bytes: 64 * 64 * MIB, ..world.create_options() };
    create(&world.bucket, &options).await.unwrap();
    let upkeep = UpkeepOptions {
        checkpoint_objects: 1000,
        checkpoint_age: Duration::from_secs(30),
        ..UpkeepOptions::default()
    };
    let volume = world.open_with(|options| options.upkeep = upkeep).await;
    for region in 0..64 {
        write_block(&volume, region * REGION_BLOCKS + 5, 1).await.unwrap();
    }
    volume.create_snapshot("then", false).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    for region in 0..64 {
        write_block(&volume, region * REGION_BLOCKS + 7, 2).await.unwrap();
    }
    volume.trim((3 * REGION_BLOCKS + 5) * BLOCK, BLOCK, true).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let to = SequenceNumber(volume.stats().durable_number);
    drop::<Volume>(volume);
    let then = Moment::Snapshot("then".to_owned());
    let changes = Changes::between(&world.bucket, &then, to, 64 * 64 * MIB).await.unwrap();
    // Finding the two moments reads no regions.
    world.store.forget();
    let at = |region: u64, block: u64| (region * REGION_BLOCKS + block) * BLOCK;
    assert_eq!(asked(&changes, at(3, 0), at(3, 5)).await, []);
    assert_eq!(world.store.count(Verb::Get, "checkpoint/"), 2);
    // Also by the byte, and the region is not read again.
    let piece = asked(&changes, at(3, 5) + 100, at(3, 7) + 1).await;
    assert_eq!(piece, [(at(3, 5) + 100, BLOCK - 100, true), (at(3, 7), 1, false)]);
    assert_eq!(world.store.count(Verb::Get, "checkpoint/"), 2);
    // Across the end of a region, and no further than some regions at once.
    assert_eq!(
        asked(&changes, at(8, 7), at(9, 8)).await,
        [(at(8, 7), BLOCK, false), (at(9, 7), BLOCK, false)]
    );
    let told = changes.status(0, 64 * 64 * MIB).await.unwrap();
    assert_eq!(told.iter().map(|status| status.length_bytes).sum::<u64>(), at(8, 0));
    assert_eq!(asked(&changes, 0, 64 * 64 * MIB).await.len(), 65);
    for (offset_bytes, length_bytes) in [(0, 0), (64 * 64 * MIB, 1), (1, u64::MAX)] {
        let refused = changes.status(offset_bytes, length_bytes).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    let never = Moment::Snapshot("never".to_owned());
    let none = Changes::between(&world.bucket, &never, to, 64 * 64 * MIB).await;
    assert!(matches!(none, Err(Error::NoMoment { .. })));
}

//! What changed between two moments: all of it, and what collection moved is no change.

use std::time::Duration;

use lsvd_format::SequenceNumber;
use lsvd_format::checkpoint::REGION_BLOCKS;
use lsvd_volume::{ChangedExtent, CollectOptions, Difference, Moment, UpkeepOptions, Volume, create, diff};

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

//! The log object that a checkpoint is as of is damaged (rules 3 to 5 and 8): who opens with that checkpoint, and who does
//! not.

use std::time::Duration;

use bytes::Bytes;
use lsvd_format::names;
use lsvd_format::superblock::{self, Superblock};
use lsvd_volume::{CollectOptions, Error, OpenOptions, UpkeepOptions, Volume, inspect, list_log};

use crate::common::{World, fill_of, log, write_block};

/// A checkpoint for each object; nothing is collected.
fn busy(options: &mut OpenOptions) {
    options.upkeep = UpkeepOptions {
        look_every: Duration::from_secs(1),
        checkpoint_objects: 1,
        checkpoint_age: Duration::from_secs(1),
        delete_after: Duration::from_secs(10),
        collect: CollectOptions { target: f64::INFINITY, ..CollectOptions::default() },
    };
}

fn newest(world: &World) -> Superblock {
    let name = world.store.names("superblock/").pop().unwrap();
    let number = names::parse_superblock(&name).unwrap();
    superblock::decode(number, &world.store.bytes(&name).unwrap()).unwrap()
}

/// Blocks 1 and 2 of two objects, each with a checkpoint, and block 3 behind them if it is wished for; gives the number of
/// the object of block 2, which the newest checkpoint is as of.
async fn written(world: &World, behind: bool) -> u64 {
    let volume = world.open_with(busy).await;
    for (block, fill) in [(1, 11), (2, 22)] {
        let before = volume.stats().checkpoints;
        write_block(&volume, block, fill).await.unwrap();
        while volume.stats().checkpoints == before {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    if behind {
        write_block(&volume, 3, 33).await.unwrap();
    }
    newest(world).checkpoints[1].stamp.as_of.0
}

async fn reads(volume: &Volume) -> [Option<u8>; 3] {
    let mut found = [None; 3];
    for (block, found) in (1..).zip(&mut found) {
        match fill_of(volume, block).await {
            Ok(fill) => *found = Some(fill),
            Err(Error::Corrupt { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    found
}

/// Rules 5 and 8: blocks of it, or the object behind it, show that it is the one. Then the checkpoint holds, for readers
/// and for writers: what is damaged of the object fails when it is read, and nothing else.
#[tokio::test(start_paused = true)]
async fn a_damaged_object_under_a_checkpoint_takes_its_own_blocks_only() {
    for (harm, behind, found) in [
        ("header", false, [Some(11), Some(22), Some(0)]),
        ("header", true, [Some(11), Some(22), Some(33)]),
        ("longer", false, [Some(11), Some(22), Some(0)]),
        ("garbage", true, [Some(11), None, Some(33)]),
    ] {
        let world = World::new().await;
        let number = written(&world, behind).await;
        let bytes = world.store.bytes(&log(number)).unwrap();
        match harm {
            "header" => world.store.flip(&log(number), 20),
            "longer" => world.store.put(&log(number), [&bytes[..], b"more"].concat()),
            _ => world.store.put(&log(number), Bytes::from(vec![0xab; 100])),
        }
        let reader = world.open_read_only().await;
        assert_eq!(reads(&reader).await, found, "{harm}, something behind it: {behind}");
        let info = inspect(&world.bucket).await.unwrap();
        assert_eq!(info.durable_number.unwrap().0, number + u64::from(behind));
        assert!(list_log(&world.bucket, None).await.unwrap().iter().any(|entry| entry.number.0 == number));
        let volume = world.open_with(busy).await;
        assert_eq!(reads(&volume).await, found, "{harm}, something behind it: {behind}");
        write_block(&volume, 2, 44).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(volume);
        let found = [found[0], Some(44), found[2]];
        assert_eq!(reads(&world.open().await).await, found, "what is written over it heals it");
    }
}

/// Rules 3 and 4: where nothing shows whose it is, a checkpoint of it is a guess. Readers see what lies before it, with the
/// checkpoint before; a writer, which would end the log there, is refused and moves nothing.
#[tokio::test(start_paused = true)]
async fn an_object_that_may_be_anybodys_is_no_part_of_a_checkpoint() {
    let world = World::new().await;
    let number = written(&world, false).await;
    world.store.put(&log(number), Bytes::from(vec![0xab; 100]));
    assert_eq!(reads(&world.open_read_only().await).await, [Some(11), Some(0), Some(0)]);
    let info = inspect(&world.bucket).await.unwrap();
    assert_eq!(info.durable_number.unwrap().0, number - 1);
    let listed = list_log(&world.bucket, None).await.unwrap();
    assert!(listed.iter().any(|entry| entry.number.0 == number && entry.epoch.is_none()));
    let there = world.store.names("log/");
    match world.try_open().await {
        Err(Error::Corrupt { object, .. }) => assert_eq!(object, log(number)),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.store.names("log/"), there);
    assert!(world.store.names("archive/").is_empty());
}

/// Rule 8: another object in its place is no damage: nobody takes the checkpoint for this log's.
#[tokio::test(start_paused = true)]
async fn another_object_under_a_checkpoint_is_not_its_own() {
    let world = World::new().await;
    let number = written(&world, false).await;
    let reader = world.open_read_only().await;
    world.put_old_object(&reader, newest(&world).epoch.0 + 1, number, 9, 99);
    drop(reader);
    assert_eq!(reads(&world.open_read_only().await).await, [Some(11), Some(0), Some(0)]);
}

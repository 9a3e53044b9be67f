//! One moment of several volumes: order across them, and what is left when one can not be named.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lsvd_backend::{Bucket, StoreOptions};
use lsvd_volume::{CreateOptions, Error, Moment, OpenOptions, Piece, Volume, create_group_snapshot};

use crate::common::{Fate, Verb, World};

const BLOCK: u64 = 4096;
/// Each begins with another volume.
const WRITERS: u64 = 3;

async fn memory(name: &str) -> (Bucket, Volume) {
    let url = format!("memory://group/{name}").parse().unwrap();
    let bucket = Bucket::open(&url, &StoreOptions::default()).unwrap();
    lsvd_volume::create(&bucket, &CreateOptions::new(1 << 20)).await.unwrap();
    let volume = Volume::open(bucket.clone(), OpenOptions::default()).await.unwrap();
    (bucket, volume)
}

fn counter(count: u64) -> Bytes {
    count.to_le_bytes().repeat(512).into()
}

async fn counted(volume: &Volume, block: u64) -> u64 {
    let pieces = volume.read(block * BLOCK, 8).await.unwrap();
    match &pieces[..] {
        [Piece::Data(bytes)] => u64::from_le_bytes(bytes[..].try_into().unwrap()),
        _ => 0,
    }
}

async fn counted_at(bucket: &Bucket, name: &str, block: u64) -> u64 {
    let moment = Moment::Snapshot(name.to_owned());
    let then = Volume::open_read_only_at(bucket.clone(), &moment, OpenOptions::default()).await.unwrap();
    counted(&then, block).await
}

/// Writers count on one volume, then on the next, then on the last. What is in a group snapshot of the later ones is never ahead of the
/// earlier ones; in snapshots that are made one after the other it is, so this looks closely enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_later_write_is_in_without_the_earlier_one() {
    let mut buckets = Vec::new();
    let mut volumes = Vec::new();
    for name in ["a", "b", "c"] {
        let (bucket, volume) = memory(name).await;
        buckets.push(bucket);
        volumes.push(volume);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let done: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (stop, done, volumes) = (stop.clone(), done.clone(), volumes.clone());
        writers.push(tokio::spawn(async move {
            for count in 1.. {
                for nth in 0..3 {
                    let volume = &volumes[(writer as usize + nth) % 3];
                    volume.write(writer * BLOCK, counter(count), false).await.unwrap();
                }
                done[writer as usize].store(count, Ordering::Release);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if count % 64 == 0 {
                    // Others have their turn, also where there is one core.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }));
    }
    let mut taken = Vec::new();
    for nth in 0..12 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let before: Vec<u64> = done.iter().map(|done| done.load(Ordering::Acquire)).collect();
        let made = create_group_snapshot(&volumes, &format!("g{nth}"), false).await.unwrap();
        assert_eq!(made.len(), 3);
        taken.push(before);
    }
    for nth in 0..3 {
        for volume in &volumes {
            volume.create_snapshot(&format!("alone{nth}"), false).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    for (nth, before) in taken.iter().enumerate() {
        for writer in 0..WRITERS as usize {
            let mut counts = Vec::new();
            for step in 0..3 {
                let at = &buckets[(writer + step) % 3];
                counts.push(counted_at(at, &format!("g{nth}"), writer as u64).await);
            }
            assert!(counts.is_sorted_by(|first, then| first >= then), "g{nth}, writer {writer}: {counts:?}");
            assert!(counts[2] >= before[writer] && counts[0] - counts[2] <= 1, "{counts:?}, {before:?}");
        }
    }
    assert!(taken[11][0] > taken[0][0], "nobody wrote meanwhile");
    let mut ahead = 0;
    for nth in 0..3 {
        let name = format!("alone{nth}");
        let (first, last) =
            (counted_at(&buckets[0], &name, 0).await, counted_at(&buckets[2], &name, 0).await);
        ahead += u64::from(last > first);
    }
    assert!(ahead > 0, "snapshots one after the other would do, so nothing was shown");
}

#[tokio::test(start_paused = true)]
async fn one_that_can_not_be_named_takes_the_others_names_back() {
    let world = World::new().await;
    let one = world.open().await;
    let (_, two) = memory("undone").await;
    let group = [two.clone(), one.clone()];
    world.store.always(Verb::Put, "superblock/", Fate::Denied);
    let failed = create_group_snapshot(&group, "g", false).await.unwrap_err();
    assert!(matches!(failed.source, Error::Store { .. } | Error::TimedOut { .. }), "{failed:?}");
    assert_eq!(failed.left.len(), 1, "what was not answered may be stored: {failed}");
    assert_eq!(two.snapshots().await.unwrap(), [], "taken back");
    world.store.drop_rules();
    let made = create_group_snapshot(&group, "g", false).await.unwrap();
    assert_eq!(two.snapshots().await.unwrap(), made[..1]);
    assert_eq!(one.snapshots().await.unwrap(), made[1..]);

    two.remove_snapshot("g").await.unwrap();
    let failed = create_group_snapshot(&group, "g", false).await.unwrap_err();
    assert!(matches!(&failed.source, Error::Invalid(what) if what.contains("already")), "{failed:?}");
    assert_eq!((failed.left.len(), two.snapshots().await.unwrap().len()), (0, 0), "{failed}");
    assert_eq!(one.snapshots().await.unwrap().len(), 1, "what was there stays");
    let twice = create_group_snapshot(&[one.clone(), one], "h", false).await.unwrap_err();
    assert!(matches!(&twice.source, Error::Invalid(what) if what.contains("once")), "{twice:?}");
}

//! A process is killed, and its clients reconnect to the next one on its host: what it answered is there, flushed or not.
//!
//! The disk is in memory and keeps all that was written, as a host does whose processes die.

use std::time::Duration;

use lsvd_format::{names, superblock};
use lsvd_volume::{HandoverOptions, OpenOptions, Volume};

use crate::common::{BLOCK, Fate, Verb, World, blocks, fill_of, settle, write_block};
use crate::journal::Disk;

/// With a place to hand over on `disk`, and batches that only a full one or a flush ends.
fn on(world: &World, disk: &Disk) -> OpenOptions {
    let handover = Some(HandoverOptions::simulated(disk.options()));
    OpenOptions { handover, batch_age_max: Duration::from_secs(1 << 20), ..world.options() }
}

async fn open(world: &World, disk: &Disk) -> Volume {
    Volume::open(world.bucket.clone(), on(world, disk)).await.expect("it opens")
}

async fn crash(world: &World, volume: Volume) {
    drop(volume);
    settle().await;
    world.store.release();
}

async fn unflushed(volume: &Volume, block: u64, fill: u8) {
    volume.write(block * BLOCK, blocks(1, fill), false).await.unwrap();
}

fn newest(world: &World) -> superblock::Superblock {
    let name = world.store.names("superblock/").pop().unwrap();
    superblock::decode(names::parse_superblock(&name).unwrap(), &world.store.bytes(&name).unwrap()).unwrap()
}

/// Rule 1, for who reconnects: the guest wrote, was answered, and flushed what the next process then had to have. (A guest of
/// QEMU lost a record that it had synced, when the daemon was killed between the write's answer and the flush.)
#[tokio::test(start_paused = true)]
async fn what_a_killed_process_answered_is_there_for_who_reconnects() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    assert!(volume.description().hands_over && volume.description().journal.is_none());
    write_block(&volume, 0, 1).await.unwrap();
    unflushed(&volume, 1, 2).await;
    volume.trim(0, BLOCK, false).await.unwrap();
    volume.write(2 * BLOCK + 100, "merged".into(), false).await.unwrap();
    assert_eq!(world.store.names("log/").len(), 2, "the fence and what was flushed");
    assert_eq!(newest(&world).journal, None, "opening elsewhere needs nothing of it");
    crash(&world, volume).await;

    let volume = open(&world, &disk).await;
    assert_eq!(volume.description().recovery.journal_records, 3);
    volume.flush().await.unwrap();
    crash(&world, volume).await;
    let volume = world.open().await;
    assert_eq!((fill_of(&volume, 0).await.unwrap(), fill_of(&volume, 1).await.unwrap()), (0, 2));
    let merged = crate::common::read(&volume, 2 * BLOCK + 98, 10).await.unwrap();
    assert_eq!(merged, *b"\0\0merged\0\0");
}

/// Who was answered by an earlier opening may go on with this one, or is told that it must not: across clean closes and handovers, and not
/// across what was lost.
#[tokio::test(start_paused = true)]
async fn an_opening_says_whose_answers_it_has() {
    let (world, disk) = (World::new().await, Disk::default());
    let since = |volume: &Volume| volume.description().unbroken_since;
    let first = open(&world, &disk).await;
    let begun = since(&first);
    assert_eq!(begun, first.description().epoch);
    unflushed(&first, 1, 1).await;
    crash(&world, first).await;
    let second = open(&world, &disk).await;
    assert_eq!(since(&second), begun, "handed over");
    second.close().await.unwrap();
    let third = open(&world, &Disk::default()).await;
    assert_eq!(since(&third), begun, "closed, wherever it is opened then");
    crash(&world, third).await;
    let elsewhere = open(&world, &Disk::default()).await;
    assert_eq!(since(&elsewhere), elsewhere.description().epoch, "what was answered may be lost");
    crash(&world, elsewhere).await;
    let without = world.open().await;
    assert_eq!(since(&without), without.description().epoch);
    without.close().await.unwrap();
    assert_eq!(since(&world.open_read_only().await), since(&without));
}

/// A flush means the store: a host that dies takes nothing along that was flushed.
#[tokio::test(start_paused = true)]
async fn a_flush_still_waits_for_the_store() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    unflushed(&volume, 1, 2).await;
    volume.flush().await.unwrap();
    volume.write(2 * BLOCK, blocks(1, 3), true).await.unwrap();
    let before = disk.state().syncs;
    crash(&world, volume).await;
    assert_eq!(disk.state().syncs, before);
    let elsewhere = open(&world, &Disk::default()).await;
    assert_eq!((fill_of(&elsewhere, 1).await.unwrap(), fill_of(&elsewhere, 2).await.unwrap()), (2, 3));
}

/// Who was killed again while it opened has not lost it, at whatever request.
#[tokio::test(start_paused = true)]
async fn it_outlives_openings_that_are_cut_short() {
    for cut in 0..24 {
        let (world, disk) = (World::new().await, Disk::default());
        let volume = open(&world, &disk).await;
        let begun = volume.description().epoch;
        unflushed(&volume, 1, 2).await;
        crash(&world, volume).await;
        world.store.dies_after(cut, true);
        if let Ok(volume) = Volume::open(world.bucket.clone(), on(&world, &disk)).await {
            drop(volume);
        }
        settle().await;
        world.store.release();
        let volume = open(&world, &disk).await;
        assert_eq!(fill_of(&volume, 1).await.unwrap(), 2, "cut after {cut} requests");
        assert_eq!(volume.description().unbroken_since, begun, "who was answered before may go on");
    }
}

/// Nor is there anything to tell who was answered before, where nothing was to be handed over: also after a clean close, and at no request.
#[tokio::test(start_paused = true)]
async fn openings_that_are_cut_short_behind_a_clean_close_break_nothing() {
    for cut in 0..24 {
        let (world, disk) = (World::new().await, Disk::default());
        let volume = open(&world, &disk).await;
        let begun = volume.description().epoch;
        write_block(&volume, 1, 2).await.unwrap();
        volume.close().await.unwrap();
        world.store.dies_after(cut, true);
        drop(Volume::open(world.bucket.clone(), on(&world, &disk)).await);
        settle().await;
        world.store.release();
        let volume = open(&world, &disk).await;
        assert_eq!(volume.description().unbroken_since, begun, "cut after {cut} requests");
    }
}

/// Handing over costs an opening one look at the superblock, and no version more.
#[tokio::test(start_paused = true)]
async fn an_opening_stores_as_much_with_a_handover_as_without() {
    let (world, disk) = (World::new().await, Disk::default());
    let puts = || world.store.count(Verb::Put, "superblock/");
    open(&world, &disk).await.close().await.unwrap();
    let before = puts();
    open(&world, &disk).await.close().await.unwrap();
    let with = puts() - before;
    world.open().await.close().await.unwrap();
    assert_eq!((with, puts() - before - with), (2, 2), "an opening and a close");
}

/// Another host went on: nothing comes back that its clients did not see.
#[tokio::test(start_paused = true)]
async fn what_another_host_went_on_without_stays_away() {
    for writes in [false, true] {
        let (world, disk) = (World::new().await, Disk::default());
        let volume = open(&world, &disk).await;
        write_block(&volume, 1, 1).await.unwrap();
        unflushed(&volume, 1, 2).await;
        unflushed(&volume, 2, 2).await;
        crash(&world, volume).await;
        let elsewhere = open(&world, &Disk::default()).await;
        assert_eq!(fill_of(&elsewhere, 1).await.unwrap(), 1);
        if writes {
            write_block(&elsewhere, 1, 3).await.unwrap();
        }
        crash(&world, elsewhere).await;
        let volume = open(&world, &disk).await;
        assert_eq!(fill_of(&volume, 1).await.unwrap(), if writes { 3 } else { 1 });
        assert_eq!(fill_of(&volume, 2).await.unwrap(), 0);
        unflushed(&volume, 2, 4).await;
        crash(&world, volume).await;
        let volume = open(&world, &disk).await;
        assert_eq!(fill_of(&volume, 2).await.unwrap(), 4, "and it hands over again");
    }
}

/// What is torn is not needed: all that was flushed is in the store.
#[tokio::test(start_paused = true)]
async fn a_damaged_one_is_dropped() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    write_block(&volume, 1, 1).await.unwrap();
    unflushed(&volume, 1, 2).await;
    crash(&world, volume).await;
    for bytes in disk.state().files.values_mut() {
        bytes.fill(0xee);
    }
    let volume = open(&world, &disk).await;
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 1);
}

/// A clean close leaves nothing, in the superblock or on the host.
#[tokio::test(start_paused = true)]
async fn a_clean_close_leaves_none() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    unflushed(&volume, 1, 2).await;
    assert!(newest(&world).handover.is_some());
    volume.close().await.unwrap();
    assert_eq!((disk.state().files.len(), newest(&world).handover), (0, None));
    let volume = world.open().await;
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 2);
}

/// While the store is away writes are answered as before, and all of them are handed over.
#[tokio::test(start_paused = true)]
async fn an_outage_and_a_kill_in_it_lose_nothing_that_was_answered() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    world.store.always(Verb::Put, "log/", Fate::Hangs);
    let full = volume.write(0, blocks(2048, 5), false).await;
    assert!(full.is_ok());
    for block in 0..20 {
        unflushed(&volume, block, 7).await;
    }
    crash(&world, volume).await;
    let volume = open(&world, &disk).await;
    for block in [0, 19, 20, 2047] {
        assert_eq!(fill_of(&volume, block).await.unwrap(), if block < 20 { 7 } else { 5 });
    }
    volume.close().await.unwrap();
}

/// A place that fails, or goes away, ends nothing: writes are answered when the store has them, and so outlive a kill, too.
#[tokio::test(start_paused = true)]
async fn a_place_that_fails_leaves_it_to_the_store() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    unflushed(&volume, 0, 1).await;
    disk.state().files.clear();
    let before = world.store.names("log/").len();
    for block in 1..5 {
        unflushed(&volume, block, 2).await;
    }
    volume.flush().await.unwrap();
    assert!(world.store.names("log/").len() > before + 2, "each was stored before it was answered");
    unflushed(&volume, 5, 3).await;
    crash(&world, volume).await;
    let volume = open(&world, &disk).await;
    let fills = [1, 2, 2, 2, 2, 3];
    for (block, fill) in (0..).zip(fills) {
        assert_eq!(fill_of(&volume, block).await.unwrap(), fill, "block {block}");
    }
}

/// A process that still runs keeps its place: the one that takes over has another one.
#[tokio::test]
async fn two_processes_of_a_host_have_a_place_each() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::new().await;
    let handover = || Some(HandoverOptions::directory(directory.path()).unwrap());
    let first = world.open_with(|options| options.handover = handover()).await;
    unflushed(&first, 1, 1).await;
    let second = world.open_with(|options| options.handover = handover()).await;
    assert!(second.description().hands_over);
    unflushed(&second, 1, 2).await;
    drop(first);
    drop(second);
    // Their threads let go of the directories a moment later.
    let is_free = |slot: u32| {
        let boot = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
        let lock = boot.join(format!("{}.{slot}/lock", newest(&world).volume_id));
        std::fs::File::open(lock).unwrap().try_lock().is_ok()
    };
    while !(is_free(0) && is_free(1)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let third = world.open_with(|options| options.handover = handover()).await;
    assert_eq!(third.description().recovery.journal_records, 1);
    assert_eq!(fill_of(&third, 1).await.unwrap(), 2);
    third.close().await.unwrap();
}

/// What is not synced means nothing on a host that was started anew, on whatever disk it is.
#[test]
fn what_was_left_before_the_host_was_started_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let [old, others] = ["boot-0123", "others"].map(|name| directory.path().join(name));
    for path in [&old, &others] {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join("file"), "what was left").unwrap();
    }
    HandoverOptions::directory(directory.path()).unwrap();
    assert!(!old.exists() && others.join("file").exists());
}

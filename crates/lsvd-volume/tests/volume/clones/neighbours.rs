//! Clones beside what else a volume can do: hand over, discard unread, tell what changed, go back.

use lsvd_format::superblock::{self, PARENTS_MAX};
use lsvd_volume::{
    ChangedExtent, Changes, CreateOptions, HandoverOptions, SequenceNumber, create, diff, rollback,
};

use super::*;
use crate::common::{Fate, Verb, settle};
use crate::journal::Disk;

/// Rule 7: a parent that has discarded regions unread owes what dies with that. A clone of before has all of it, whatever was
/// counted when; one of now has nothing of it, and what a clone owes itself is its parent's, which keeps that.
#[tokio::test(start_paused = true)]
async fn what_a_parent_discards_unread_stays_for_the_clone_of_before() {
    const REGION: u64 = 64 * MIB / BLOCK;
    const REGIONS: u64 = 6;
    let world = World::empty();
    let size_bytes = REGIONS * 64 * MIB;
    create(&world.bucket, &CreateOptions { size_bytes, ..world.create_options() }).await.unwrap();
    let volume = world.open().await;
    for nth in 0..REGIONS {
        volume.write((nth * REGION + 5) * BLOCK, blocks(2, 7 + nth as u8), true).await.unwrap();
    }
    volume.collect_garbage(CollectionGoal::Target(100.0)).await.unwrap();
    volume.close().await.unwrap();
    let absent = |options: &mut lsvd_volume::OpenOptions| {
        options.map_bytes_max = 0;
        options.upkeep = UpkeepOptions { delete_after: SOON, ..options.upkeep };
    };
    let volume = world.open_with(absent).await;
    volume.create_snapshot("before", false).await.unwrap();
    world.store.always(Verb::Get, "checkpoint/", Fate::Slow(Duration::from_secs(30)));
    volume.trim(0, 4 * REGION * BLOCK, false).await.unwrap();
    volume.flush().await.unwrap();
    assert_eq!(volume.stats().live_bytes, 2 * REGIONS * BLOCK, "nothing of it was read yet");
    let (of, before) = ((&world, "db1", &volume), Moment::Snapshot("before".into()));
    let (now, _) = clone(of, None, "now").await.unwrap();
    let (then, _) = clone(of, Some(&before), "then").await.unwrap();
    volume.remove_snapshot("before").await.unwrap();
    world.store.drop_rules();
    tokio::time::sleep(Duration::from_secs(60)).await;
    for _ in 0..3 {
        write_block(&volume, 1, 99).await.unwrap();
        collect(&volume).await;
        tokio::time::sleep(SOON * 2).await;
    }
    assert!(volume.stats().live_bytes <= 5 * BLOCK, "{:?}", volume.stats());

    let check = async |cloned: &Volume, gone: u64| {
        for nth in 0..REGIONS {
            let expected = if nth < gone { 0 } else { 7 + nth as u8 };
            assert_eq!(fill_of(cloned, nth * REGION + 5).await.unwrap(), expected, "region {nth}");
        }
        cloned.audit().unwrap();
    };
    check(&now.open_with(absent).await, 4).await;
    let cloned = then.open_with(absent).await;
    check(&cloned, 0).await;
    // Evicted again, and then discarded by the clone.
    drop(cloned);
    let cloned = then.open_with(absent).await;
    world.store.always(Verb::Get, "checkpoint/", Fate::Slow(Duration::from_secs(30)));
    cloned.trim(0, 5 * REGION * BLOCK, false).await.unwrap();
    cloned.flush().await.unwrap();
    assert_eq!(cloned.stats().shared_bytes, 2 * REGIONS * BLOCK, "nothing of it was read yet");
    world.store.drop_rules();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cloned.stats().shared_bytes, 2 * BLOCK);
    check(&cloned, 5).await;
    for _ in 0..2 {
        write_block(&cloned, 1, 98).await.unwrap();
        collect(&cloned).await;
    }
    drop(cloned);
    let cloned = then.open_with(absent).await;
    check(&cloned, 5).await;
    cloned.flatten(&|_| {}).await.unwrap();
    assert_eq!(cloned.stats().shared_bytes, 0);
    check(&cloned, 5).await;
}

/// What a parent's process answered and did not flush is in a clone of now, whose first version names no journal of anybody; the
/// parent hands over to itself alone.
#[tokio::test(start_paused = true)]
async fn a_clone_has_what_was_answered_and_is_handed_over_nothing() {
    let (world, disk, of_clone) = (World::new().await, Disk::default(), Disk::default());
    let on = |world: &World, disk: &Disk| lsvd_volume::OpenOptions {
        handover: Some(HandoverOptions::simulated(disk.options())),
        batch_age_max: Duration::from_secs(1 << 20),
        ..world.options()
    };
    let volume = Volume::open(world.bucket.clone(), on(&world, &disk)).await.unwrap();
    volume.write(BLOCK, blocks(1, 2), false).await.unwrap();
    let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let first = stored(&place, names::SUPERBLOCK_FOLDER).await.pop().unwrap();
    let bytes = place.bucket.read_head(&first, 1 << 20).await.unwrap().unwrap().bytes;
    let first = superblock::decode(names::parse_superblock(&first).unwrap(), &bytes).unwrap();
    assert_eq!((first.handover, first.journal), (None, None));
    volume.write(2 * BLOCK, blocks(1, 3), false).await.unwrap();
    drop(volume);
    settle().await;
    world.store.release();

    let cloned = Volume::open(place.bucket.clone(), on(&place, &of_clone)).await.unwrap();
    assert_eq!(cloned.description().recovery.journal_records, 0);
    let volume = Volume::open(world.bucket.clone(), on(&world, &disk)).await.unwrap();
    assert_eq!(volume.description().recovery.journal_records, 1);
    for (volume, last) in [(&cloned, 0), (&volume, 3)] {
        let fills = (fill_of(volume, 1).await.unwrap(), fill_of(volume, 2).await.unwrap());
        assert_eq!(fills, (2, last));
    }
}

/// What changed is told from the clone's own moments on, also where its collection has moved what was its parent's: a block that
/// reads otherwise is never missed, and nothing that was only moved is told. What lies in the parent is refused.
#[tokio::test(start_paused = true)]
async fn what_changed_in_a_clone_is_told_from_its_own_beginning_on() {
    let (world, volume, mut model) = parent().await;
    volume.create_snapshot("theirs", false).await.unwrap();
    let (place, made) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let mut cloned_model = model.clone();
    let cloned = open(&place).await;
    cloned.create_snapshot("begin", false).await.unwrap();
    write(&cloned, &mut cloned_model, 90, 20, 150).await;
    cloned.trim(300 * BLOCK, 5 * BLOCK, false).await.unwrap();
    cloned.flush().await.unwrap();
    cloned_model.retain(|block, _| !(300..305).contains(block));
    collect(&cloned).await;
    // The parent has objects of the same numbers, of other blocks.
    for nth in 0..30 {
        write(&volume, &mut model, 600 + nth, 1, 3).await;
    }
    let begin = Moment::Snapshot("begin".into());
    let covered = |extents: &[ChangedExtent]| {
        let blocks = extents.iter().flat_map(|of| {
            let first = of.offset_bytes / BLOCK;
            first..first + of.length_bytes / BLOCK
        });
        blocks.collect::<Vec<u64>>()
    };
    let changed = (90..110).chain(300..305).collect::<Vec<u64>>();
    for flattened in [false, true] {
        let mut extents = Vec::new();
        diff(&place.bucket, &begin, None, |extent| extents.push(extent)).await.unwrap();
        assert_eq!(covered(&extents), changed, "flattened: {flattened}");
        let to = SequenceNumber(cloned.stats().durable_number);
        let changes = Changes::between(&place.bucket, &begin, to, cloned.size_bytes()).await.unwrap();
        let (mut at, mut told) = (0, Vec::new());
        while at < cloned.size_bytes() {
            for status in changes.status(at, cloned.size_bytes() - at).await.unwrap() {
                let first = at / BLOCK;
                told.extend((first..first + status.length_bytes / BLOCK).filter(|_| status.changed));
                at += status.length_bytes;
            }
        }
        assert_eq!(told, changed, "flattened: {flattened}");
        for theirs in [Moment::Number(made.as_of), Moment::Snapshot("theirs".into())] {
            let refused = diff(&place.bucket, &theirs, None, |_| {}).await.unwrap_err();
            assert!(matches!(refused, Error::NoMoment { .. }), "{refused}");
            let refused = Changes::between(&place.bucket, &theirs, to, cloned.size_bytes()).await;
            assert!(matches!(refused, Err(Error::NoMoment { .. })), "{refused:?}");
        }
        if !flattened {
            // All that was the parent's is moved.
            let refused = cloned.flatten(&|_| {}).await.unwrap_err();
            assert!(matches!(refused, Error::NeedsParent { .. }), "its snapshot needs the parent: {refused}");
            assert_eq!(cloned.stats().shared_bytes, 0);
            collect(&cloned).await;
        }
    }
    assert_shows(&cloned, &cloned_model).await;
}

/// A parent goes back to above what its clone needs and forth again, and what was left comes too late: the clone's folder is nobody's
/// branch, and it shows what it did.
#[tokio::test(start_paused = true)]
async fn a_parent_that_goes_back_to_above_a_clone_leaves_it_alone() {
    let (world, volume, mut model) = parent().await;
    let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let mut cloned_model = model.clone();
    let cloned = open(&place).await;
    write(&cloned, &mut cloned_model, 0, 30, 44).await;
    write(&volume, &mut model, 10, 30, 45).await;
    let above = Moment::Number(SequenceNumber(volume.stats().durable_number));
    let mut left = model.clone();
    write(&volume, &mut left, 0, 500, 46).await;
    volume.close().await.unwrap();
    let back = rollback(&world.bucket, &above, world.options()).await.unwrap();
    let volume = open(&world).await;
    for round in 0..3 {
        write(&volume, &mut model, 5, 10, 47 + round).await;
        collect(&volume).await;
        write(&cloned, &mut cloned_model, 15, 10, 57 + round).await;
        collect(&cloned).await;
    }
    assert_shows(&volume, &model).await;
    assert_shows(&cloned, &cloned_model).await;
    volume.remove_snapshot(&back.undo).await.unwrap();
    for _ in 0..3 {
        write(&volume, &mut model, 5, 10, 60).await;
        collect(&volume).await;
        tokio::time::sleep(SOON * 2).await;
    }
    drop((volume, cloned));
    assert_shows(&open(&world).await, &model).await;
    assert_shows(&open(&place).await, &cloned_model).await;
}

/// As long a chain as there can be, of clones without a checkpoint, whose maps are all made from the first volume's log: none stands on
/// another's stack. The last one is refused a clone.
#[tokio::test(start_paused = true)]
async fn the_longest_chain_of_clones_opens() {
    let world = World::new().await;
    let mut volume = world.open().await;
    let mut model = Model::new();
    write(&volume, &mut model, 0, 1, 1).await;
    let (mut place, mut name) = (world.beside("db1"), "db1".to_owned());
    for nth in 1..=PARENTS_MAX as u64 {
        let next = format!("c{nth}");
        let (cloned, _) = clone((&place, &name, &volume), None, &next).await.unwrap();
        (place, name) = (cloned, next);
        volume = place.open().await;
        write(&volume, &mut model, nth, 1, nth as u8 + 1).await;
    }
    let info = inspect(&place.bucket).await.unwrap();
    assert_eq!((info.parents.len(), info.checkpoints.len()), (PARENTS_MAX, 0));
    assert_shows(&volume, &model).await;
    volume.audit().unwrap();
    let refused = clone((&place, &name, &volume), None, "more").await.map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("`lsvd flatten` it"), "{refused}");
}

/// What a clone has made dead of its parent's is not its garbage: it counts none of it, and condemns none.
#[tokio::test(start_paused = true)]
async fn what_dies_of_a_parent_s_is_no_garbage_of_the_clone() {
    let (world, volume, _) = parent().await;
    let (place, made) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let cloned = open(&place).await;
    let mut cloned_model = Model::new();
    write(&cloned, &mut cloned_model, 0, 500, 1).await;
    settle().await;
    assert_eq!(cloned.stats().shared_bytes, 0);
    for goal in [CollectionGoal::Target(1.0), CollectionGoal::Format2] {
        let found = cloned.garbage(goal);
        assert_eq!((found.dead_objects, found.dead_bytes), (0, 0), "{found:?}");
        assert_eq!((found.victims, found.move_bytes), (0, 0), "{found:?}");
    }
    collect(&cloned).await;
    let parents = stored(&world, names::LOG_FOLDER).await;
    let parents = parents.iter().filter_map(|name| names::parse_log_object(name));
    assert!(parents.filter(|number| *number <= made.as_of).count() > 5, "they are all there");
}

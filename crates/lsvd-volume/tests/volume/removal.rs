//! Removing a volume: nobody opens it once it began, whatever cuts it short is finished by the next, nothing else in the
//! bucket is touched, and whoever slept meanwhile harms no volume that is made in the same place.

use std::time::Duration;

use lsvd_format::superblock::{self, Superblock};
use lsvd_format::{SequenceNumber, SuperblockNumber, names};
use lsvd_volume::{
    CollectionGoal, CreateOptions, Error, ObjectFormat, RemoveOptions, Removed, Volume, create, inspect,
    list_log, plan_removal, remove, survey,
};

use crate::common::{Fate, Made, Verb, WINDOW, World, blocks, fill_of, log, settle, write_block};

const ARCHIVED: &str = "archive/20090213T233130Z-epoch-0000000000000002-beyond-fence/log/0000000000000007";
const PROBE: &str = "probe/0123456789abcdef0123456789abcdef/clock";

async fn rm(world: &World, options: &RemoveOptions) -> Result<Removed, Error> {
    remove(&world.bucket, options, |_| {}).await
}

fn newest(world: &World) -> (SuperblockNumber, Superblock) {
    let names = world.store.names(names::SUPERBLOCK_FOLDER);
    let number = names.iter().filter_map(|name| names::parse_superblock(name)).max().unwrap();
    let bytes = world.store.bytes(&names::superblock(number)).unwrap();
    (number, superblock::decode(number, &bytes).unwrap())
}

/// A closed volume with a log, checkpoints, an archived object, a probe's leftover and something of others.
async fn full() -> World {
    let world = World::new().await;
    let volume = world.open().await;
    for block in 0..12 {
        write_block(&volume, block, 7).await.unwrap();
    }
    volume.collect_garbage(CollectionGoal::Target(100.0)).await.unwrap();
    volume.close().await.unwrap();
    assert!(!world.store.names(names::CHECKPOINT_FOLDER).is_empty());
    for name in [ARCHIVED, PROBE, "notes.txt"] {
        world.store.put(name, "kept?");
    }
    world
}

/// What stays of a volume whose removal is finished: the version that says so, and the newest fence.
fn assert_only_marker(world: &World) {
    let (number, marker) = newest(world);
    assert!(marker.is_gone(), "{marker:?}");
    let fence = marker.removal.unwrap().fence.unwrap();
    let mut names = world.store.names("");
    names.retain(|name| name != ARCHIVED && name != "notes.txt");
    assert_eq!(names, [log(fence.0), names::superblock(number)]);
}

/// A volume that is made where one was removed works, and its numbers were never used.
async fn assert_begins_anew(world: &World) {
    let marker = world.store.names(names::SUPERBLOCK_FOLDER).pop().map(|_| newest(world).1);
    create(&world.bucket, &world.create_options()).await.unwrap();
    let volume = world.open().await;
    assert_eq!(fill_of(&volume, 3).await.unwrap(), 0, "nothing of the old one shows");
    write_block(&volume, 3, 99).await.unwrap();
    volume.close().await.unwrap();
    let volume = world.open().await;
    assert_eq!(fill_of(&volume, 3).await.unwrap(), 99);
    volume.close().await.unwrap();
    if let Some(marker) = marker {
        assert!(newest(world).1.log_first_number >= marker.removal.unwrap().log_next);
    }
}

async fn assert_nobody_opens(world: &World) {
    let is_removed = |error: Option<Error>| match error {
        Some(error @ Error::Removed { .. }) => assert!(error.to_string().contains("lsvd rm"), "{error}"),
        other => panic!("{other:?}"),
    };
    is_removed(world.try_open().await.err());
    is_removed(Volume::open_read_only(world.bucket.clone(), world.options()).await.err());
    is_removed(inspect(&world.bucket).await.err());
    is_removed(list_log(&world.bucket, None).await.err());
    is_removed(survey(&world.bucket).await.err());
    is_removed(create(&world.bucket, &world.create_options()).await.err());
}

/// All goes but what stays: the marker, the archive, and what is not the volume's.
#[tokio::test(start_paused = true)]
async fn a_removed_volume_leaves_its_marker_the_archive_and_others_objects() {
    let world = full().await;
    let before = world.store.names("").len() as u64;
    let plan = plan_removal(&world.bucket, &world.remove_options()).await.unwrap();
    assert_eq!((plan.objects, plan.archived_objects, plan.other_objects), (before - 2, 1, 1));
    assert!(plan.closed_cleanly && !plan.goes_on && !plan.damaged);
    assert_eq!(plan.size_bytes, Some(64 << 20));
    let mut told = Vec::new();
    let removed = remove(&world.bucket, &world.remove_options(), |progress| told.push(progress)).await;
    let removed = removed.unwrap();
    assert_eq!(told.last().unwrap().deleted_objects, removed.deleted_objects);
    // Its own two first versions and its fence are not of the plan; the fence stays.
    assert_eq!(removed.deleted_objects, plan.objects + 2);
    assert!(removed.deleted_bytes > plan.bytes);
    assert_eq!((removed.archived_objects, removed.archived_bytes, removed.other_objects), (1, 5, 1));
    assert_only_marker(&world);
    assert!(world.store.bytes(ARCHIVED).is_some() && world.store.bytes("notes.txt").is_some());
    for error in [
        world.try_open().await.err().unwrap(),
        inspect(&world.bucket).await.unwrap_err(),
        rm(&world, &world.remove_options()).await.unwrap_err(),
        plan_removal(&world.bucket, &world.remove_options()).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }
    assert_begins_anew(&world).await;
    let survey = survey(&world.bucket).await.unwrap();
    let orphans: Vec<_> = survey.orphans.iter().map(|orphans| &orphans.names[0]).collect();
    assert_eq!(orphans, [ARCHIVED, "notes.txt"], "the old fence is no orphan");
}

#[tokio::test(start_paused = true)]
async fn without_a_marker_and_with_the_archive_nothing_of_it_is_left() {
    let world = full().await;
    let options = RemoveOptions { archive: true, leave_marker: false, ..world.remove_options() };
    let removed = rm(&world, &options).await.unwrap();
    assert_eq!((removed.archived_objects, removed.marker), (0, false));
    assert_eq!(world.store.names(""), ["notes.txt"]);
    assert!(matches!(rm(&world, &options).await, Err(Error::NotFound { .. })));
    assert_begins_anew(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_marker_can_be_removed_later() {
    let world = full().await;
    rm(&world, &world.remove_options()).await.unwrap();
    let options = RemoveOptions { leave_marker: false, ..world.remove_options() };
    rm(&world, &options).await.unwrap();
    assert_eq!(world.store.names(""), [ARCHIVED, "notes.txt"]);
}

/// Rule 7, for a whole volume: until a version says "removed" it is whole and opens; from then on nobody opens it; and
/// wherever removal was cut short, the next one finishes it.
#[tokio::test(start_paused = true)]
async fn removal_that_is_cut_short_anywhere_is_finished_by_the_next() {
    for leave_marker in [true, false] {
        let (mut whole, mut begun) = (0, 0);
        for changes in 0.. {
            let world = full().await;
            let options = RemoveOptions { leave_marker, ..world.remove_options() };
            world.store.cut_off_after(Some(changes));
            let cut = rm(&world, &options).await;
            world.store.cut_off_after(None);
            if cut.is_ok() {
                assert!(changes > 20, "it took {changes}");
                break;
            }
            let state = match world.store.names(names::SUPERBLOCK_FOLDER).is_empty() {
                true => None,
                false => newest(&world).1.removal.map(|removal| removal.finished),
            };
            match state {
                _ if world.store.names(names::SUPERBLOCK_FOLDER).is_empty() => assert!(!leave_marker),
                None => {
                    let volume = world.open_read_only().await;
                    for block in 0..12 {
                        assert_eq!(fill_of(&volume, block).await.unwrap(), 7, "after {changes} changes");
                    }
                    whole += 1;
                }
                Some(false) => {
                    assert_nobody_opens(&world).await;
                    begun += 1;
                }
                Some(true) => {
                    assert!(matches!(world.try_open().await, Err(Error::NotFound { .. })));
                }
            }
            match rm(&world, &options).await {
                Ok(_) => {}
                Err(Error::NotFound { .. }) => {}
                Err(error) => panic!("after {changes} changes: {error}"),
            }
            if leave_marker {
                assert_only_marker(&world);
            } else {
                assert_eq!(world.store.names(""), [ARCHIVED, "notes.txt"]);
            }
            assert_begins_anew(&world).await;
        }
        assert!(whole >= 2 && begun >= 20, "{whole} {begun}");
    }
}

/// Answers that are lost, of every change that removal makes, alter nothing.
#[tokio::test(start_paused = true)]
async fn removal_whose_answers_are_lost_is_a_removal() {
    let world = full().await;
    for verb in [Verb::Put, Verb::Delete] {
        world.store.rule(verb, "", Fate::AnswerLost, 100);
    }
    rm(&world, &world.remove_options()).await.unwrap();
    assert_only_marker(&world);
    assert_begins_anew(&world).await;
}

/// Rule 9: the old writer is fenced by an object, before anything is deleted; also if it is idle until all is done, or until
/// another volume is there.
#[tokio::test(start_paused = true)]
async fn the_old_writer_is_fenced_and_acknowledges_nothing_any_more() {
    for anew in [None, Some(false), Some(true)] {
        let world = World::new().await;
        let old = world.open().await;
        write_block(&old, 1, 11).await.unwrap();
        let written = log(newest_log(&world));
        if anew.is_none() {
            world.store.always(Verb::Delete, "", Fate::Fails);
            rm(&world, &world.remove_options()).await.unwrap_err();
            world.store.release();
            assert!(world.store.bytes(&written).is_some(), "nothing is deleted yet");
        } else {
            rm(&world, &world.remove_options()).await.unwrap();
        }
        if anew == Some(true) {
            assert_begins_anew(&world).await;
        }
        let image = world.store.image();
        let error = write_block(&old, 1, 12).await.unwrap_err();
        assert!(matches!(error, Error::Fenced { .. }), "{anew:?}: {error}");
        assert_eq!(world.store.image(), image, "{anew:?}");
        assert!(matches!(old.close().await, Err(Error::Fenced { .. })));
        if anew == Some(true) {
            let volume = world.open().await;
            assert_eq!(fill_of(&volume, 3).await.unwrap(), 99);
        }
    }
}

/// Without a marker no object is in the old writer's way; but it looks, and finds its own version gone.
#[tokio::test(start_paused = true)]
async fn an_old_writer_finds_that_its_volume_is_gone_without_a_marker() {
    let world = World::new().await;
    let old = world.open().await;
    write_block(&old, 1, 11).await.unwrap();
    let options = RemoveOptions { leave_marker: false, ..world.remove_options() };
    rm(&world, &options).await.unwrap();
    assert!(world.store.names("").is_empty());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let ended = tokio::spawn(old.ended());
    assert_eq!(fill_of(&old, 9).await.unwrap(), 0);
    let ended = tokio::time::timeout(Duration::from_secs(1), ended).await.unwrap().unwrap();
    assert!(matches!(ended, Error::Fenced { epoch: None, .. }), "{ended}");
}

/// A reader that is open is told what happened, and neither that an object is missing nor that the store is slow.
#[tokio::test(start_paused = true)]
async fn an_open_reader_is_told() {
    let world = World::new().await;
    let volume = world.open().await;
    write_block(&volume, 1, 11).await.unwrap();
    volume.close().await.unwrap();
    for finished in [false, true] {
        let reader = world.open_read_only().await;
        if !finished {
            world.store.always(Verb::Delete, "superblock", Fate::Fails);
        }
        assert_eq!(rm(&world, &world.remove_options()).await.is_ok(), finished);
        world.store.release();
        let error = fill_of(&reader, 1).await.unwrap_err();
        match finished {
            false => assert!(matches!(error, Error::Removed { .. }), "{error}"),
            true => assert!(matches!(error, Error::NotFound { .. }), "{error}"),
        }
        if !finished {
            rm(&world, &world.remove_options()).await.unwrap();
            create(&world.bucket, &world.create_options()).await.unwrap();
            let volume = world.open().await;
            write_block(&volume, 1, 11).await.unwrap();
            volume.close().await.unwrap();
        }
    }
}

/// Rule 9: a second removal takes over; the first stops at its next look, and what it had under way when it fell asleep are
/// deletes of names that no later volume has.
#[tokio::test(start_paused = true)]
async fn a_second_removal_takes_over_from_one_that_sleeps() {
    let world = full().await;
    let (bucket, options) = (world.bucket.clone(), world.remove_options());
    world.store.rule(Verb::Delete, "log/", Fate::Hangs, usize::MAX);
    let first = tokio::spawn(async move { remove(&bucket, &options, |_| {}).await });
    settle().await;
    assert!(world.store.in_flight() > 1, "its deletes are under way");
    world.store.drop_rules();
    rm(&world, &world.remove_options()).await.unwrap();
    assert_only_marker(&world);
    assert_begins_anew(&world).await;
    let image = world.store.image();
    world.store.release();
    let first = first.await.unwrap();
    assert!(matches!(first, Err(Error::Fenced { .. })), "{first:?}");
    assert_eq!(world.store.image(), image);
}

/// A newcomer that read the volume and fell asleep before its superblock version, or before its fence: it opens nothing of
/// the old volume, and what it puts late is in nobody's way.
#[tokio::test(start_paused = true)]
async fn a_newcomer_that_sleeps_amid_its_take_over_spoils_nothing() {
    for asleep_at in ["superblock/", "log/"] {
        for anew in [false, true] {
            let world = full().await;
            let (bucket, options) = (world.bucket.clone(), world.options());
            world.store.rule(Verb::Put, asleep_at, Fate::Hangs, 1);
            let newcomer = tokio::spawn(Volume::open(bucket, options));
            settle().await;
            rm(&world, &world.remove_options()).await.unwrap();
            if anew {
                assert_begins_anew(&world).await;
            }
            world.store.release();
            match newcomer.await.unwrap() {
                // It found the new volume, as any newcomer would.
                Ok(volume) => {
                    assert!(anew && asleep_at == "superblock/");
                    assert_eq!(fill_of(&volume, 3).await.unwrap(), 99);
                    assert_eq!(fill_of(&volume, 1).await.unwrap(), 0);
                    volume.close().await.unwrap();
                }
                Err(error) => assert!(
                    matches!(error, Error::Fenced { .. } | Error::Removed { .. } | Error::NotFound { .. }),
                    "{asleep_at}: {error}"
                ),
            }
            if !anew {
                assert!(newest(&world).1.is_gone());
                // What it left is swept by a removal that is run again.
                let swept = rm(&world, &world.remove_options()).await;
                assert!(matches!(swept, Ok(_) | Err(Error::NotFound { .. })), "{swept:?}");
                assert_only_marker(&world);
                assert_begins_anew(&world).await;
            }
            let volume = world.open().await;
            assert_eq!(fill_of(&volume, 3).await.unwrap(), 99, "{asleep_at}");
        }
    }
}

/// A writer that overtakes the removal before that is durable keeps the volume.
#[tokio::test(start_paused = true)]
async fn a_newcomer_that_comes_first_keeps_the_volume() {
    let world = full().await;
    let (bucket, options) = (world.bucket.clone(), world.remove_options());
    // Asleep before it says "removed": its second version.
    let next = names::superblock(SuperblockNumber(newest(&world).0.0 + 2));
    world.store.rule(Verb::Put, &next, Fate::Hangs, 1);
    let removal = tokio::spawn(async move { remove(&bucket, &options, |_| {}).await });
    settle().await;
    let volume = world.open().await;
    world.store.release();
    let removal = removal.await.unwrap();
    assert!(matches!(removal, Err(Error::Fenced { .. })), "{removal:?}");
    for block in 0..12 {
        assert_eq!(fill_of(&volume, block).await.unwrap(), 7);
    }
    write_block(&volume, 1, 8).await.unwrap();
}

/// Rule 2: what a writer of the old volume puts late has numbers of its own, and is neither shown nor in the way.
#[tokio::test(start_paused = true)]
async fn what_is_put_late_never_shows_in_a_new_volume() {
    let world = World::new().await;
    let old = world.open().await;
    write_block(&old, 1, 11).await.unwrap();
    let reached = newest_log(&world);
    rm(&world, &world.remove_options()).await.unwrap();
    create(&world.bucket, &world.create_options()).await.unwrap();
    let epoch = old.description().epoch.0;
    for number in 1..reached + WINDOW {
        if world.store.bytes(&log(number)).is_none() {
            world.put_old_object(&old, epoch, number, number, 66);
        }
    }
    for _ in 0..3 {
        let volume = world.open().await;
        for block in 0..2 * WINDOW {
            assert_ne!(fill_of(&volume, block).await.unwrap(), 66);
        }
        for fill in 1..2 * WINDOW {
            write_block(&volume, 40, fill as u8).await.unwrap();
        }
        volume.close().await.unwrap();
        let reader = world.open_read_only().await;
        assert_eq!(fill_of(&reader, 40).await.unwrap(), 2 * WINDOW as u8 - 1);
        assert_eq!(fill_of(&reader, 2).await.unwrap(), 0);
    }
}

fn newest_log(world: &World) -> u64 {
    let name = world.store.names(names::LOG_FOLDER).pop().unwrap();
    names::parse_log_object(&name).unwrap().0
}

#[tokio::test(start_paused = true)]
async fn of_two_that_create_where_a_volume_was_one_wins() {
    let world = full().await;
    rm(&world, &world.remove_options()).await.unwrap();
    let options = world.create_options();
    let both = tokio::join!(create(&world.bucket, &options), create(&world.bucket, &options));
    assert!(both.0.is_ok() != both.1.is_ok(), "{both:?}");
    assert!(matches!(both.0.err().or(both.1.err()), Some(Error::Exists { .. })));
    let volume = world.open().await;
    write_block(&volume, 1, 1).await.unwrap();
}

/// The courtesy of `--if-free`: a volume that was closed, left alone, or never opened goes; others stay as they are.
#[tokio::test(start_paused = true)]
async fn a_volume_in_use_is_refused_and_left_as_it_is() {
    let world = World::new().await;
    let hour = RemoveOptions { if_free: Some(Duration::from_secs(3600)), ..world.remove_options() };
    let volume = world.open().await;
    write_block(&volume, 1, 11).await.unwrap();
    let image = world.store.image();
    for refused in
        [rm(&world, &hour).await.unwrap_err(), plan_removal(&world.bucket, &hour).await.unwrap_err()]
    {
        assert!(matches!(refused, Error::InUse { .. }), "{refused}");
    }
    assert_eq!(world.store.image(), image);
    write_block(&volume, 1, 12).await.unwrap();
    volume.close().await.unwrap();
    rm(&world, &hour).await.unwrap();
    create(&world.bucket, &world.create_options()).await.unwrap();
    rm(&world, &hour).await.expect("nobody has opened it yet");
    assert_only_marker(&world);
}

/// What a newer lsvd may know to need the volume is a reason to leave it alone, damaged or not.
#[tokio::test(start_paused = true)]
async fn what_a_newer_lsvd_says_of_it_is_a_reason_to_leave_it() {
    for change in [
        (|superblock: &mut Superblock| superblock.features_to_write.push("later".to_owned())) as fn(&mut _),
        |superblock| {
            superblock.unknown.insert("clones".to_owned(), serde_json::json!(["db2"]));
        },
    ] {
        let world = full().await;
        let (number, mut superblock) = newest(&world);
        change(&mut superblock);
        let number = number.next();
        world.store.put(&names::superblock(number), superblock::encode(number, &superblock));
        let image = world.store.image();
        for damaged in [false, true] {
            let options = RemoveOptions { damaged, ..world.remove_options() };
            let refused = rm(&world, &options).await.unwrap_err();
            assert!(matches!(refused, Error::Newer { .. }), "{refused}");
            assert_eq!(world.store.image(), image);
        }
    }
}

/// Damage is refused by name, and removed on demand: a superblock, a log without a sound end, leftovers without a superblock.
#[tokio::test(start_paused = true)]
async fn a_damaged_volume_is_removed_only_on_demand() {
    type Damage = fn(&World);
    let cases: [(&str, Damage); 4] = [
        ("newest superblock", |world| {
            let name = world.store.names(names::SUPERBLOCK_FOLDER).pop().unwrap();
            world.store.flip(&name, 100);
        }),
        ("all superblocks", |world| {
            for name in world.store.names(names::SUPERBLOCK_FOLDER) {
                world.store.flip(&name, 100);
            }
        }),
        ("the log", |world| {
            let name = log(newest_log(world));
            world.store.flip(&name, 50);
        }),
        ("no superblock", |world| {
            for name in world.store.names(names::SUPERBLOCK_FOLDER) {
                world.store.remove(&name);
            }
        }),
    ];
    for (what, damage) in cases {
        let world = World::new().await;
        let volume = world.open().await;
        for block in 0..4 {
            write_block(&volume, block, 7).await.unwrap();
        }
        volume.close().await.unwrap();
        let first = newest_log(&world);
        world.store.put(PROBE, "left over");
        damage(&world);
        let logs = world.store.names(names::LOG_FOLDER);
        let refused = rm(&world, &world.remove_options()).await.unwrap_err();
        let expected = matches!(refused, Error::Corrupt { .. }) || what == "no superblock";
        assert!(expected && world.store.names(names::LOG_FOLDER) == logs, "{what}: {refused}");
        let options = RemoveOptions { damaged: true, ..world.remove_options() };
        let plan = plan_removal(&world.bucket, &options).await.unwrap();
        assert_eq!(plan.damaged, what != "the log", "{what}");
        rm(&world, &options).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let (number, marker) = newest(&world);
        assert_eq!(world.store.names(""), [names::superblock(number)], "{what}");
        assert!(marker.log_first_number > SequenceNumber(first + (1 << 31)), "{what}: far away");
        assert_begins_anew(&world).await;
    }
    let world = World::empty();
    let options = RemoveOptions { damaged: true, ..world.remove_options() };
    assert!(matches!(rm(&world, &options).await, Err(Error::NotFound { .. })));
}

/// Where the log has no folder of its own, names alone tell what is the volume's: others' objects stay, however alike.
#[tokio::test(start_paused = true)]
async fn of_a_log_among_others_objects_only_its_own_names_are_deleted() {
    let world = World::empty();
    let options =
        CreateOptions { log_format: ObjectFormat::V1, unsafe_single_writer: true, ..world.create_options() };
    create(&world.bucket, &options).await.unwrap();
    let volume = world.open_with(|options| options.unsafe_single_writer = true).await;
    volume.write(0, blocks(4, 9), true).await.unwrap();
    volume.close().await.unwrap();
    let others = [
        "0000000000000001.bak",
        "000000000000000G",
        "01",
        "archive/2024/report",
        "checkpoint/model.bin",
        "log/0000000000000001",
        "probe/mars",
        "superblock/notes",
    ];
    for name in others {
        world.store.put(name, "others'");
    }
    let removed = rm(&world, &world.remove_options()).await.unwrap();
    assert_eq!(removed.other_objects, others.len() as u64);
    let marker = names::superblock(newest(&world).0);
    let mut left = world.store.names("");
    left.retain(|name| *name != marker);
    assert_eq!(left, others, "not even a fence: the names of such a log are also others'");
    assert!(newest(&world).1.is_gone());
}

/// A large volume is listed for what there is to delete, and again to see that all is gone; no more.
#[tokio::test(start_paused = true)]
async fn a_removal_lists_the_whole_volume_twice() {
    for leave_marker in [true, false] {
        let world = full().await;
        world.store.forget();
        rm(&world, &RemoveOptions { leave_marker, ..world.remove_options() }).await.unwrap();
        let folders = ["superblock", "log", "checkpoint"];
        let made = world.store.made();
        let whole = |made: &&Made| {
            made.verb == Verb::List && !folders.iter().any(|folder| made.name.ends_with(folder))
        };
        assert_eq!(
            made.iter().filter(whole).count(),
            2,
            "{:?}",
            made.iter().filter(whole).collect::<Vec<_>>()
        );
    }
}

/// A stray object with a number that no version ever gets would count as the newest for ever: its name is said, and that it is
/// to be deleted by hand; then the removal goes on.
#[tokio::test(start_paused = true)]
async fn a_stray_superblock_is_named() {
    let world = full().await;
    let stray = names::superblock(SuperblockNumber(u64::MAX >> 1));
    world.store.put(&stray, "stray");
    let before = world.store.names("");
    for damaged in [false, true] {
        let refused = rm(&world, &RemoveOptions { damaged, ..world.remove_options() }).await.unwrap_err();
        assert!(matches!(&refused, Error::Corrupt { object, .. } if *object == stray), "{refused}");
        assert_eq!(refused.to_string().contains("by hand"), damaged, "{refused}");
        assert_eq!(world.store.names(""), before);
    }
    world.store.remove(&stray);
    rm(&world, &world.remove_options()).await.unwrap();
    assert_only_marker(&world);
}

/// Rule 9: a look at the superblocks comes between any listing and the deletes of what it showed.
#[tokio::test(start_paused = true)]
async fn each_round_of_deletes_is_after_a_look_for_a_newer_epoch() {
    let world = full().await;
    world.store.forget();
    rm(&world, &world.remove_options()).await.unwrap();
    let mut looked = false;
    for made in world.store.made() {
        match made.verb {
            Verb::List => looked = made.name.ends_with("superblock"),
            Verb::Delete => assert!(looked, "{made:?}"),
            Verb::Get | Verb::Put => {}
        }
    }
    let (log, versions) =
        (world.store.count(Verb::Delete, "log/"), world.store.count(Verb::Delete, "superblock/"));
    assert!(log > 10 && versions > 2, "{log} {versions}");
}

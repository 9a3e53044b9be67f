//! Clones: what one shows is its parent's moment and what was written to it since, whatever becomes of either (rule 7).

use std::collections::BTreeMap;
use std::time::Duration;

use lsvd_format::names;
use lsvd_volume::{
    Cloned, CollectionGoal, Error, Moment, RemoveOptions, Removed, ShrinkPolicy, UpkeepOptions, Volume,
    VolumeId, create_clone, inspect, plan_removal, remove, remove_clone, rollback, snapshots,
};

use crate::common::{BLOCK, MIB, World, blocks, fill_of, read, write_block};

/// What blocks are filled with; those that are not there read as zeroes.
type Model = BTreeMap<u64, u8>;

const BLOCKS: u64 = 64 * MIB / BLOCK;

fn id(world: &World) -> VolumeId {
    VolumeId((world.options().environment.random)())
}

/// Makes a clone called `name` of the open volume called `of`.
async fn clone(
    parent: (&World, &str, &Volume),
    moment: Option<&Moment>,
    name: &str,
) -> Result<(World, Cloned), Error> {
    let (world, of, volume) = parent;
    let (place, id) = (world.beside(name), id(world));
    volume.pin_for_clone(moment, id, &format!("../{name}")).await?;
    let made = create_clone(&place.bucket, &format!("../{of}"), id, &world.options().environment).await?;
    Ok((place, made))
}

async fn open(world: &World) -> Volume {
    world.open_with(|options| options.upkeep = UpkeepOptions { delete_after: SOON, ..options.upkeep }).await
}

const SOON: Duration = Duration::from_secs(1);

/// Writes blocks in pieces of one object each.
async fn write(volume: &Volume, model: &mut Model, from: u64, count: u64, fill: u8) {
    volume.write(from * BLOCK, blocks(count, fill), false).await.unwrap();
    volume.flush().await.unwrap();
    model.extend((from..from + count).map(|block| (block, fill)));
}

async fn assert_shows(volume: &Volume, model: &Model) {
    let bytes = read(volume, 0, BLOCKS * BLOCK).await.unwrap();
    for (nth, block) in bytes.chunks(BLOCK as usize).enumerate() {
        let expected = model.get(&(nth as u64)).copied().unwrap_or(0);
        assert!(block.iter().all(|byte| *byte == expected), "block {nth} is {}, not {expected}", block[0]);
    }
}

/// Collects until nothing can be given back.
async fn collect(volume: &Volume) {
    volume.collect_garbage(CollectionGoal::Target(1.0)).await.unwrap();
    volume.collect_garbage(CollectionGoal::Target(1.0)).await.unwrap();
    volume.audit().unwrap();
}

async fn stored(world: &World, folder: &str) -> Vec<String> {
    let listed = world.bucket.list(folder, None).await.unwrap();
    listed.into_iter().map(|entry| entry.name).collect()
}

/// A parent with a checkpoint, a tail behind it, and a hole.
async fn parent() -> (World, Volume, Model) {
    let world = World::new().await;
    let volume = open(&world).await;
    let mut model = Model::new();
    for nth in 0..12 {
        write(&volume, &mut model, nth * 40, 60, nth as u8 + 1).await;
    }
    collect(&volume).await;
    write(&volume, &mut model, 100, 50, 100).await;
    volume.trim(200 * BLOCK, 10 * BLOCK, false).await.unwrap();
    model.retain(|block, _| !(200..210).contains(block));
    volume.flush().await.unwrap();
    (world, volume, model)
}

#[tokio::test(start_paused = true)]
async fn a_clone_shows_its_moment_and_neither_shows_what_is_written_to_the_other() {
    let (world, volume, mut model) = parent().await;
    let (place, made) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    assert_eq!((made.size_bytes, made.parent), (volume.size_bytes(), volume.description().volume_id));
    let mut cloned_model = model.clone();
    write(&volume, &mut model, 0, 30, 201).await;
    assert_shows(
        &Volume::open_read_only(place.bucket.clone(), world.options()).await.unwrap(),
        &cloned_model,
    )
    .await;
    let cloned = open(&place).await;
    assert_eq!(cloned.description().volume_id, made.volume_id);
    write(&cloned, &mut cloned_model, 20, 30, 202).await;
    // Part of a block, merged with what the parent has.
    cloned.write(70 * BLOCK + 512, vec![203; 1024].into(), true).await.unwrap();
    let merged = read(&cloned, 70 * BLOCK, BLOCK).await.unwrap();
    assert_eq!((merged[511], merged[512], merged[1536]), (cloned_model[&70], 203, cloned_model[&70]));
    write(&cloned, &mut cloned_model, 70, 1, 204).await;
    write(&volume, &mut model, 25, 5, 205).await;
    for _ in 0..2 {
        assert_shows(&volume, &model).await;
        assert_shows(&cloned, &cloned_model).await;
    }
    cloned.close().await.unwrap();
    let cloned = open(&place).await;
    assert_shows(&cloned, &cloned_model).await;
    collect(&cloned).await; // its own checkpoint
    cloned.close().await.unwrap();
    let cloned = open(&place).await;
    assert_shows(&cloned, &cloned_model).await;
}

#[tokio::test(start_paused = true)]
async fn a_clone_is_of_any_moment_that_is_held() {
    let (world, volume, model) = parent().await;
    volume.create_snapshot("monday", false).await.unwrap();
    let mut later = model.clone();
    write(&volume, &mut later, 0, 500, 77).await;
    let number = volume.stats().durable_number;
    let mut latest = later.clone();
    write(&volume, &mut latest, 5, 10, 78).await;
    let parent = (&world, "db1", &volume);
    let monday = Moment::Snapshot("monday".into());
    let (of_monday, _) = clone(parent, Some(&monday), "of-monday").await.unwrap();
    let number = Moment::Number(lsvd_volume::SequenceNumber(number));
    let (of_number, _) = clone(parent, Some(&number), "of-number").await.unwrap();
    let never = Moment::Number(lsvd_volume::SequenceNumber(1 << 40));
    let refused = clone(parent, Some(&never), "never").await;
    let refused = refused.err();
    assert!(matches!(refused, Some(Error::NoMoment { .. })), "{refused:?}");
    // The clone holds its moment itself.
    volume.remove_snapshot("monday").await.unwrap();
    for _ in 0..3 {
        write(&volume, &mut latest, 0, 600, 79).await;
        collect(&volume).await;
    }
    for (place, model) in [(of_monday, model), (of_number, later)] {
        let cloned = open(&place).await;
        assert_shows(&cloned, &model).await;
    }
    assert_shows(&volume, &latest).await;
}

/// A young volume has one checkpoint, and all of its log: what lies before that can be cloned, too. (The PostgreSQL day could not clone
/// the moment before the drop.)
#[tokio::test(start_paused = true)]
async fn a_moment_before_the_only_checkpoint_can_be_cloned() {
    let world = World::new().await;
    let soon = |options: &mut lsvd_volume::OpenOptions| {
        let checkpoint_age = Duration::from_secs(5);
        options.upkeep = UpkeepOptions { delete_after: SOON, checkpoint_age, ..options.upkeep };
    };
    let volume = world.open_with(soon).await;
    let mut model = Model::new();
    write(&volume, &mut model, 0, 50, 1).await;
    write(&volume, &mut model, 30, 50, 2).await;
    let (then, number) = (model.clone(), volume.stats().durable_number);
    write(&volume, &mut model, 0, 60, 3).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(volume.stats().checkpoints, 1);
    let moment = Moment::Number(lsvd_volume::SequenceNumber(number));
    let (place, _) = clone((&world, "db1", &volume), Some(&moment), "db2").await.unwrap();
    for fill in 4..10 {
        write(&volume, &mut model, 0, 100, fill).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        collect(&volume).await;
    }
    assert!(volume.stats().checkpoints > 2);
    let cloned = open(&place).await;
    assert_shows(&cloned, &then).await;
    assert_shows(&volume, &model).await;
}

/// The parent is overwritten altogether and collected, again and again: nothing that the clone shows goes. When the clone is
/// removed, it goes.
#[tokio::test(start_paused = true)]
async fn collection_on_both_sides_leaves_what_the_other_needs() {
    let (world, volume, mut model) = parent().await;
    let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let mut cloned_model = model.clone();
    let cloned = open(&place).await;
    for round in 0..4u8 {
        for nth in 0..10 {
            write(&volume, &mut model, nth * 60, 60, 100 + round).await;
            write(&cloned, &mut cloned_model, 300 + nth * 7, 9, 150 + round).await;
        }
        collect(&volume).await;
        collect(&cloned).await;
        assert_shows(&volume, &model).await;
        // Nothing of it is in the cache.
        assert_shows(
            &Volume::open_read_only(place.bucket.clone(), world.options()).await.unwrap(),
            &cloned_model,
        )
        .await;
    }
    let own = stored(&place, names::LOG_FOLDER).await.len();
    assert!(own < 20, "{own} objects of a clone whose own blocks are 70");
    let kept = stored(&world, names::LOG_FOLDER).await.len();
    let stats = cloned.stats();
    assert!(stats.shared_bytes > 0 && stats.live_bytes > stats.shared_bytes);
    cloned.close().await.unwrap();
    let plan = plan_removal(&place.bucket, &place.remove_options()).await.unwrap();
    assert_eq!(plan.parent.unwrap().path, "../db1");
    rm(&place, &volume).await.unwrap();
    assert!(stored(&place, "").await.is_empty());
    collect(&volume).await;
    let left = stored(&world, names::LOG_FOLDER).await.len();
    assert!(left < kept, "{left} of {kept} objects");
    assert_shows(&volume, &model).await;
}

fn without_a_marker(place: &World) -> RemoveOptions {
    RemoveOptions { leave_marker: false, ..place.remove_options() }
}

/// Removes a clone, and what its parent keeps for it.
async fn rm(place: &World, parent: &Volume) -> Result<Removed, Error> {
    let release = async |_: &lsvd_volume::Parent, id: VolumeId| {
        let snapshots = parent.snapshots().await?;
        let pin = snapshots.iter().find(|of| of.clone.as_ref().is_some_and(|of| of.volume_id == id));
        parent.remove_snapshot(&pin.expect("it is kept").name).await
    };
    remove_clone(&place.bucket, &without_a_marker(place), |_| {}, release).await
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_clones_lives_on_through_all_its_ancestors() {
    let (world, first, mut model) = parent().await;
    let parent_world = World::beside(&world, "db1");
    let mut chain: Vec<(World, Volume, Model)> = Vec::new();
    let (mut of, mut of_name) = (first.clone(), "db1".to_owned());
    let mut of_model = model.clone();
    for depth in 0..3u64 {
        let name = format!("deep{depth}");
        let (place, _) = clone((&parent_world, &of_name, &of), None, &name).await.unwrap();
        let volume = open(&place).await;
        write(&volume, &mut of_model, depth * 100, 50, 210 + depth as u8).await;
        // With a checkpoint of its own, and without one.
        if depth == 1 {
            collect(&volume).await;
        }
        chain.push((place, volume.clone(), of_model.clone()));
        (of, of_name) = (volume, name);
    }
    for round in 0..3u8 {
        write(&first, &mut model, 0, 600, 50 + round).await;
        collect(&first).await;
        for (_, volume, model) in &mut chain {
            write(volume, model, 500, 30, 60 + round).await;
            collect(volume).await;
        }
    }
    let info = inspect(&chain[2].0.bucket).await.unwrap();
    let paths: Vec<&str> = info.parents.iter().map(|parent| parent.path.as_str()).collect();
    assert_eq!(paths, ["../db1", "../deep0", "../deep1"]);
    for (place, volume, model) in &chain {
        assert_shows(volume, model).await;
        volume.close().await.unwrap();
        let again = open(place).await;
        assert_shows(&again, model).await;
        again.audit().unwrap();
        again.close().await.unwrap();
    }
    assert_shows(&first, &model).await;
}

#[tokio::test(start_paused = true)]
async fn a_parent_is_not_removed_from_under_its_clone() {
    let (world, volume, model) = parent().await;
    let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let pin = volume.snapshots().await.unwrap().pop().unwrap();
    let (known, _) = snapshots(&world.bucket).await.unwrap();
    assert_eq!(known, std::slice::from_ref(&pin), "who lists them sees it");
    for forced in [false, true] {
        let refused = match forced {
            false => volume.remove_snapshot(&pin.name).await,
            true => volume.remove_snapshot_of_lost_clone(&pin.name).await,
        };
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Error::KeptForClone { .. }), "{refused}");
        assert!(refused.to_string().contains("../db2"), "{refused}");
    }
    volume.close().await.unwrap();
    let refused = remove(&world.bucket, &without_a_marker(&world), |_| {}).await.unwrap_err();
    assert!(matches!(&refused, Error::Pinned { by, .. } if by.contains("../db2")), "{refused}");
    assert_shows(&open(&place).await, &model).await;
    // The clone goes first, and with it what the parent keeps.
    let volume = open(&world).await;
    rm(&place, &volume).await.unwrap();
    assert!(volume.snapshots().await.unwrap().is_empty());
    volume.close().await.unwrap();
    remove(&world.bucket, &without_a_marker(&world), |_| {}).await.unwrap();
    assert!(world.store.names("").is_empty());
}

/// Whoever opens the clone at any moment of its removal, or its parent, finds one or the other state, and a call goes on.
#[tokio::test(start_paused = true)]
async fn a_removal_of_a_clone_that_is_cut_short_is_finished_by_the_next() {
    for cut in 0.. {
        let (world, volume, _) = parent().await;
        let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
        let cloned = open(&place).await;
        write(&cloned, &mut Model::new(), 0, 10, 9).await;
        cloned.close().await.unwrap();
        world.store.cut_off_after(Some(cut));
        let removed = rm(&place, &volume).await;
        world.store.cut_off_after(None);
        if removed.is_ok() {
            assert!(cut > 5);
            return;
        }
        let pinned = !snapshots(&world.bucket).await.unwrap().0.is_empty();
        let there = Volume::open(place.bucket.clone(), place.options()).await;
        assert!(
            pinned || matches!(there, Err(Error::Removed { .. } | Error::NotFound { .. })),
            "{cut}: {there:?}"
        );
        drop(there);
        match rm_again(&place, &volume).await {
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(error) => panic!("{cut}: {error}"),
        }
        assert!(stored(&place, "").await.is_empty(), "{cut}");
        assert!(volume.snapshots().await.unwrap().is_empty(), "{cut}");
    }
}

/// A try before may have removed it, though its answer was lost.
fn gone(removed: Result<(), Error>) -> Result<(), Error> {
    match removed {
        Err(Error::NoMoment { .. }) => Ok(()),
        removed => removed,
    }
}

async fn rm_again(place: &World, parent: &Volume) -> Result<Removed, Error> {
    let release = async |_: &lsvd_volume::Parent, id: VolumeId| {
        let snapshots = parent.snapshots().await?;
        match snapshots.iter().find(|of| of.clone.as_ref().is_some_and(|of| of.volume_id == id)) {
            Some(pin) => gone(parent.remove_snapshot(&pin.name).await),
            None => Ok(()),
        }
    };
    remove_clone(&place.bucket, &without_a_marker(place), |_| {}, release).await
}

/// A crash between the two steps of making one: what is kept for it is listed, says that there is no clone, and goes by force;
/// then who was about to make the clone can not any more.
#[tokio::test(start_paused = true)]
async fn a_clone_that_was_kept_for_and_not_made_goes_by_force_alone() {
    let (world, volume, model) = parent().await;
    let (place, id) = (world.beside("db2"), id(&world));
    let environment = world.options().environment;
    let pin = volume.pin_for_clone(None, id, "../db2").await.unwrap();
    assert_eq!(volume.pin_for_clone(None, id, "../db2").await.unwrap(), pin, "asked again, the same");
    let info = inspect(&world.bucket).await.unwrap();
    assert_eq!((info.clones.len(), info.clones[0].path.as_str()), (1, "../db2"));
    let refused = volume.remove_snapshot(&pin.name).await.unwrap_err();
    assert!(refused.to_string().contains("--force"), "{refused}");
    volume.remove_snapshot_of_lost_clone(&pin.name).await.unwrap();
    assert!(volume.snapshots().await.unwrap().is_empty());
    // Who slept since it had looked at the parent finds what was left for it; who begins anew finds nothing kept.
    let late = create_clone(&place.bucket, "../db1", id, &environment).await;
    assert!(matches!(late, Err(Error::Invalid(_))), "{late:?}");
    let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    assert_shows(&open(&place).await, &model).await;
}

/// The same, where the slow one puts its first version right after it was looked for, or right before.
#[tokio::test(start_paused = true)]
async fn a_clone_that_is_being_made_never_loses_what_is_kept_for_it() {
    for puts_before in 0..3 {
        let (world, volume, model) = parent().await;
        let (place, id) = (world.beside("db2"), id(&world));
        let environment = world.options().environment;
        let pin = volume.pin_for_clone(None, id, "../db2").await.unwrap();
        // The clone's version is stored when the other one is about to store a version.
        let (bucket, parent_bucket) = (place.bucket.clone(), world.bucket.clone());
        let slow = create_clone(&bucket, "../db1", id, &environment);
        let force = async {
            for _ in 0..puts_before * 7 {
                tokio::task::yield_now().await;
            }
            volume.remove_snapshot_of_lost_clone(&pin.name).await
        };
        let (made, forced) = tokio::join!(slow, force);
        let kept = !snapshots(&parent_bucket).await.unwrap().0.is_empty();
        match (&made, &forced) {
            (Ok(_), Err(Error::KeptForClone { .. })) => {
                assert!(kept);
                assert_shows(&open(&place).await, &model).await;
            }
            (Err(Error::Exists { .. } | Error::NotFound { .. } | Error::Invalid(_)), Ok(())) => {
                assert!(!kept)
            }
            other => panic!("{puts_before}: {other:?}"),
        }
    }
}

/// Numbers of a clone's log are its parent's, too: neither takes the other's for its own.
#[tokio::test(start_paused = true)]
async fn a_clone_and_its_parent_have_objects_of_the_same_numbers() {
    let (world, volume, mut model) = parent().await;
    let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let mut cloned_model = model.clone();
    let cloned = open(&place).await;
    for nth in 0..20 {
        write(&volume, &mut model, nth * 30, 20, 100 + nth as u8).await;
        write(&cloned, &mut cloned_model, nth * 30 + 10, 20, 150 + nth as u8).await;
    }
    let (mine, theirs) = (stored(&place, names::LOG_FOLDER).await, stored(&world, names::LOG_FOLDER).await);
    assert!(mine.iter().filter(|name| theirs.contains(name)).count() > 10, "they have many in common");
    assert_shows(&cloned, &cloned_model).await;
    collect(&cloned).await;
    collect(&volume).await;
    drop((volume, cloned));
    assert_shows(&open(&world).await, &model).await;
    assert_shows(&open(&place).await, &cloned_model).await;
}

#[tokio::test(start_paused = true)]
async fn a_clone_is_taken_over_like_any_volume() {
    let (world, volume, model) = parent().await;
    let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let mut cloned_model = model.clone();
    let mut old = open(&place).await;
    for round in 0..4u8 {
        write(&old, &mut cloned_model, u64::from(round) * 5, 10, 90 + round).await;
        if round == 2 {
            collect(&old).await;
        }
        let new = open(&place).await;
        let late = write_block(&old, 3, 1).await;
        assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
        assert_shows(&new, &cloned_model).await;
        old = new;
    }
    // The parent has another writer; the clone's is not concerned.
    let parent = open(&world).await;
    write_block(&parent, 0, 1).await.unwrap();
    write(&old, &mut cloned_model, 0, 1, 2).await;
    assert_shows(&old, &cloned_model).await;
}

/// Making one takes as many requests for a large map as for a small one, and opening it what its parent's tail takes.
#[tokio::test(start_paused = true)]
async fn a_clone_costs_a_few_requests_whatever_the_size() {
    let mut made = Vec::new();
    for objects in [3, 300] {
        let world = World::new().await;
        let volume = open(&world).await;
        let mut model = Model::new();
        for nth in 0..objects {
            write(&volume, &mut model, nth * 30, 17, nth as u8 | 1).await;
        }
        collect(&volume).await;
        write(&volume, &mut model, 1, 1, 9).await;
        world.store.forget();
        let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
        let requests = world.store.made().len();
        world.store.forget();
        let cloned = open(&place).await;
        made.push((requests, world.store.made().len()));
        assert_shows(&cloned, &model).await;
    }
    assert_eq!(made[0], made[1]);
    let (cloning, opening) = made[0];
    assert!(cloning < 20 && opening < 20, "{cloning} and {opening}");
}

#[tokio::test(start_paused = true)]
async fn a_clone_is_rolled_back_to_its_own_moments_and_not_to_its_parents() {
    let (world, volume, model) = parent().await;
    let (place, made) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let mut cloned_model = model.clone();
    let cloned = open(&place).await;
    write(&cloned, &mut cloned_model, 0, 5, 11).await;
    let own = Moment::Number(lsvd_volume::SequenceNumber(cloned.stats().durable_number));
    let mut later = cloned_model.clone();
    write(&cloned, &mut later, 0, 5, 12).await;
    cloned.create_snapshot("later", false).await.unwrap();
    cloned.close().await.unwrap();
    for back in [made.as_of.0, made.as_of.0 - 1] {
        let moment = Moment::Number(lsvd_volume::SequenceNumber(back));
        let refused = rollback(&place.bucket, &moment, place.options()).await.unwrap_err();
        assert!(matches!(refused, Error::NoMoment { .. }), "{refused}");
        assert!(refused.to_string().contains("ask its parent, '../db1'"), "{refused}");
    }
    rollback(&place.bucket, &own, place.options()).await.unwrap();
    let cloned = open(&place).await;
    assert_shows(&cloned, &cloned_model).await;
    collect(&cloned).await;
    cloned.close().await.unwrap();
    // And the parent to before the clone: what that needs is on a branch then.
    volume.create_snapshot("now", false).await.unwrap();
    volume.close().await.unwrap();
    let before = Moment::Number(lsvd_volume::SequenceNumber(made.as_of.0 - 1));
    rollback(&world.bucket, &before, world.options()).await.unwrap();
    let volume = open(&world).await;
    let mut parent_model = Model::new();
    for round in 0..3 {
        write(&volume, &mut parent_model, 0, 700, 30 + round).await;
        collect(&volume).await;
    }
    drop(volume);
    let cloned = open(&place).await;
    assert_shows(&cloned, &cloned_model).await;
    let moment = Moment::Snapshot("later".into());
    assert_shows(
        &Volume::open_read_only_at(place.bucket.clone(), &moment, place.options()).await.unwrap(),
        &later,
    )
    .await;
}

/// The parent's log lost what the clone needs: it does not go on as if nobody had.
#[tokio::test(start_paused = true)]
async fn a_parent_that_was_wound_back_by_hand_behind_a_clone_is_refused() {
    let (world, volume, _) = parent().await;
    let (_, made) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    volume.close().await.unwrap();
    for name in world.store.names(names::LOG_FOLDER) {
        if names::parse_log_object(&name).unwrap() >= made.as_of {
            world.store.remove(&name);
        }
    }
    let mut options = world.options();
    options.accept_shorter_log = true;
    let refused = Volume::open(world.bucket.clone(), options).await.unwrap_err();
    assert!(refused.to_string().contains("../db2"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_clone_has_the_size_of_its_moment() {
    let (world, volume, model) = parent().await;
    volume.create_snapshot("small", false).await.unwrap();
    let number = Moment::Number(lsvd_volume::SequenceNumber(volume.stats().durable_number));
    volume.resize(128 * MIB, ShrinkPolicy::Refuse).await.unwrap();
    write_block(&volume, BLOCKS + 5, 7).await.unwrap();
    let parent = (&world, "db1", &volume);
    let (large, of_large) = clone(parent, None, "large").await.unwrap();
    let small = Moment::Snapshot("small".into());
    let (small, of_small) = clone(parent, Some(&small), "small").await.unwrap();
    assert_eq!((of_small.size_bytes, of_large.size_bytes), (64 * MIB, 128 * MIB));
    let (_, of_number) = clone(parent, Some(&number), "number").await.unwrap();
    assert_eq!(of_number.size_bytes, 64 * MIB, "before it grew, whatever names that");
    volume.resize(32 * MIB, ShrinkPolicy::Discard).await.unwrap();
    collect(&volume).await;
    let (small, large) = (open(&small).await, open(&large).await);
    assert_shows(&small, &model).await;
    assert_eq!(fill_of(&large, BLOCKS + 5).await.unwrap(), 7);
    small.resize(256 * MIB, ShrinkPolicy::Refuse).await.unwrap();
    assert_eq!(fill_of(&small, BLOCKS + 5).await.unwrap(), 0);
    assert_eq!(volume.size_bytes(), 32 * MIB);
}

mod flattening;
mod neighbours;
mod tree;

//! Flattening: at its end a clone needs nothing of its parent, and until then all that it needs is there.

use super::*;

/// Flattens, and has the parent give up what it keeps.
async fn flatten(clone: &Volume, parent: &Volume) -> Result<(), Error> {
    clone.flatten(&|_| {}).await?;
    let id = clone.description().volume_id;
    let snapshots = parent.snapshots().await?;
    match snapshots.iter().find(|of| of.clone.as_ref().is_some_and(|of| of.volume_id == id)) {
        Some(pin) => gone(parent.remove_snapshot(&pin.name).await),
        None => Ok(()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_was_flattened_lives_without_its_parent() {
    let (world, volume, model) = parent().await;
    let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let mut cloned_model = model.clone();
    let cloned = open(&place).await;
    write(&cloned, &mut cloned_model, 90, 20, 33).await;
    let reader = Volume::open_read_only(place.bucket.clone(), place.options()).await.unwrap();
    let pin = volume.snapshots().await.unwrap().pop().unwrap();
    assert!(volume.remove_snapshot(&pin.name).await.is_err());
    flatten(&cloned, &volume).await.unwrap();
    assert_eq!(cloned.stats().shared_bytes, 0);
    assert!(inspect(&place.bucket).await.unwrap().parents.is_empty());
    assert_eq!(cloned.flatten(&|_| {}).await.unwrap().parent, None, "there is nothing to do");
    volume.close().await.unwrap();
    remove(&world.bucket, &without_a_marker(&world), |_| {}).await.unwrap();
    assert_shows(&cloned, &cloned_model).await;
    // Who had opened it before reads what is there now.
    assert_shows(&reader, &cloned_model).await;
    write(&cloned, &mut cloned_model, 0, 10, 34).await;
    collect(&cloned).await;
    cloned.close().await.unwrap();
    let cloned = open(&place).await;
    assert_shows(&cloned, &cloned_model).await;
    // It has a parent's name no more, but clones of its own.
    let (child, _) = clone((&place, "db2", &cloned), None, "db3").await.unwrap();
    assert_shows(&open(&child).await, &cloned_model).await;
}

/// Cut at every request that changes something, and gone on with by who opens it next.
#[tokio::test(start_paused = true)]
async fn a_flattening_that_is_cut_short_is_finished_by_the_next() {
    for cut in 0.. {
        let (world, volume, model) = parent().await;
        let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
        let mut cloned_model = model.clone();
        let cloned = open(&place).await;
        write(&cloned, &mut cloned_model, 90, 20, 33).await;
        world.store.cut_off_after(Some(cut));
        let cut_short = tokio::time::timeout(Duration::from_secs(600), flatten(&cloned, &volume)).await;
        world.store.cut_off_after(None);
        let finished = matches!(cut_short, Ok(Ok(())));
        drop(cloned);
        let cloned = open(&place).await;
        assert_shows(&cloned, &cloned_model).await;
        flatten(&cloned, &volume).await.unwrap_or_else(|error| panic!("{cut}: {error}"));
        assert!(volume.snapshots().await.unwrap().is_empty(), "{cut}");
        volume.close().await.unwrap();
        remove(&world.bucket, &without_a_marker(&world), |_| {}).await.unwrap();
        drop(cloned);
        let cloned = open(&place).await;
        assert_shows(&cloned, &cloned_model).await;
        cloned.audit().unwrap();
        if finished {
            assert!(cut > 8, "it was cut {cut} times");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_snapshot_of_a_clone_needs_keeps_it_tied() {
    let (world, volume, model) = parent().await;
    let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let mut cloned_model = model.clone();
    let cloned = open(&place).await;
    write(&cloned, &mut cloned_model, 90, 20, 33).await;
    cloned.create_snapshot("tied", false).await.unwrap();
    let tied = cloned_model.clone();
    let refused = flatten(&cloned, &volume).await.unwrap_err();
    assert!(matches!(&refused, Error::NeedsParent { what, .. } if what.contains("tied")), "{refused}");
    assert_eq!(cloned.stats().shared_bytes, 0, "all is copied");
    let pin = volume.snapshots().await.unwrap().pop().unwrap();
    assert!(volume.remove_snapshot(&pin.name).await.is_err());
    write(&cloned, &mut cloned_model, 0, 700, 34).await;
    collect(&cloned).await;
    let moment = Moment::Snapshot("tied".into());
    assert_shows(
        &Volume::open_read_only_at(place.bucket.clone(), &moment, place.options()).await.unwrap(),
        &tied,
    )
    .await;
    cloned.remove_snapshot("tied").await.unwrap();
    flatten(&cloned, &volume).await.unwrap();
}

/// A clone's own clone shares the grandparent's objects through it.
#[tokio::test(start_paused = true)]
async fn a_clone_of_a_clone_keeps_that_one_tied_and_is_flattened_first() {
    let (world, volume, model) = parent().await;
    let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let cloned = open(&place).await;
    let (child_place, _) = clone((&place, "db2", &cloned), None, "db3").await.unwrap();
    let child = open(&child_place).await;
    let refused = flatten(&cloned, &volume).await.unwrap_err();
    assert!(matches!(&refused, Error::NeedsParent { .. }), "{refused}");
    assert_shows(&child, &model).await;
    flatten(&child, &cloned).await.unwrap();
    flatten(&cloned, &volume).await.unwrap();
    volume.close().await.unwrap();
    remove(&world.bucket, &without_a_marker(&world), |_| {}).await.unwrap();
    assert_shows(&child, &model).await;
    assert_shows(&cloned, &model).await;
    drop((child, cloned));
    assert_shows(&open(&child_place).await, &model).await;
    assert_shows(&open(&place).await, &model).await;
}

/// The beginning of a log whose blocks were moved from a parent that is gone says nothing any more: it is never replayed as if it was
/// an empty volume's.
#[tokio::test(start_paused = true)]
async fn a_flattened_clone_without_a_checkpoint_is_refused_and_not_read_from_its_beginning() {
    let (world, volume, _) = parent().await;
    let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let cloned = open(&place).await;
    flatten(&cloned, &volume).await.unwrap();
    cloned.close().await.unwrap();
    for name in stored(&place, names::CHECKPOINT_FOLDER).await {
        place.bucket.delete(&name).await.unwrap();
    }
    for accept_shorter_log in [false, true] {
        let mut options = place.options();
        options.accept_shorter_log = accept_shorter_log;
        let refused = Volume::open(place.bucket.clone(), options).await;
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    }
}

/// Clients write while it is flattened.
#[tokio::test(start_paused = true)]
async fn a_clone_is_flattened_under_its_clients() {
    let (world, volume, model) = parent().await;
    let (place, _) = clone((&world, "db1", &volume), None, "db2").await.unwrap();
    let mut cloned_model = model.clone();
    let cloned = open(&place).await;
    let writes = async {
        for nth in 0..60u64 {
            write(&cloned, &mut cloned_model, nth * 11 % 500, 7, 120 + nth as u8).await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    let (flattened, ()) = tokio::join!(flatten(&cloned, &volume), writes);
    flattened.unwrap();
    drop(cloned);
    volume.close().await.unwrap();
    remove(&world.bucket, &without_a_marker(&world), |_| {}).await.unwrap();
    assert_shows(&open(&place).await, &cloned_model).await;
}

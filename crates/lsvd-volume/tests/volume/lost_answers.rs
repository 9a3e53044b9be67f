//! Rule 2: "already exists" is never believed, and a number is kept until the outcome of its PUT is known.

use std::time::Duration;

use lsvd_volume::Error;

use crate::common::{BLOCK, Fate, Verb, World, blocks, fill_of, log, write_block};

/// Rule 2: a PUT that took effect and whose answer was lost comes back as "already exists", and is done: no second
/// object, no other number.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_recognised_as_mine() {
    let world = World::new().await;
    let volume = world.open().await;
    world.store.rule(Verb::Put, "log/", Fate::AnswerLost, 1);
    write_block(&volume, 1, 11).await.unwrap();
    write_block(&volume, 2, 22).await.unwrap();
    assert_eq!(world.store.names("log/"), [log(1), log(9), log(10)]);
    drop(volume);
    let volume = world.open().await;
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 11);
    assert_eq!(fill_of(&volume, 2).await.unwrap(), 22);
}

/// Rule 2: the same for every PUT of creation, opening and closing.
#[tokio::test(start_paused = true)]
async fn every_answer_of_an_opening_may_be_lost() {
    let world = World::empty();
    world.store.always(Verb::Put, "superblock/", Fate::AnswerLost);
    world.store.always(Verb::Put, "log/", Fate::AnswerLost);
    world.store.always(Verb::Put, "archive/", Fate::AnswerLost);
    world.store.rule(Verb::Delete, "log/", Fate::AnswerLost, 1);
    // The second try of each finds what the first has done.
    lsvd_volume::create(&world.bucket, &world.create_options()).await.unwrap();
    let volume = world.open().await;
    write_block(&volume, 1, 11).await.unwrap();
    world.put_old_object(&volume, 2, 12, 1, 99);
    drop(volume);
    let volume = world.open().await;
    assert_eq!(volume.description().recovery.objects_archived, 1);
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 11);
    volume.close().await.unwrap();
    assert!(lsvd_volume::inspect(&world.bucket).await.unwrap().closed_cleanly);
}

/// Rule 2: "exists" and then "not found" (a 409 of another creator that came to nothing) means to PUT again, with a
/// pause between.
#[tokio::test(start_paused = true)]
async fn exists_and_then_not_found_is_put_again() {
    let world = World::new().await;
    let volume = world.open().await;
    world.store.rule(Verb::Put, "log/", Fate::SaysExists, 3);
    let before = tokio::time::Instant::now();
    write_block(&volume, 1, 11).await.unwrap();
    assert_eq!(world.store.count(Verb::Put, &log(9)), 4);
    assert!(before.elapsed() >= Duration::from_millis(100), "not without pause");
    world.store.rule(Verb::Put, "superblock/", Fate::SaysExists, 2);
    world.store.rule(Verb::Put, "log/", Fate::SaysExists, 2);
    let volume = world.open().await;
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 11);
}

/// Rule 10: a store that says "exists" and "not found" for ever is reported, not asked for ever.
#[tokio::test(start_paused = true)]
async fn a_conflict_without_end_is_an_error() {
    let world = World::new().await;
    world.store.always(Verb::Put, "superblock/", Fate::SaysExists);
    world.store.forget();
    let error = world.try_open().await.unwrap_err();
    assert!(matches!(error, Error::Store { .. }), "{error}");
    assert!(error.to_string().contains("superblock/0000000000000002"), "{error}");
    assert!(world.store.made().len() < 500, "{} requests", world.store.made().len());
}

/// Rules 2 and 9: another writer's object under my number means that I am fenced, and is not overwritten.
#[tokio::test(start_paused = true)]
async fn anothers_object_at_my_number_fences_me() {
    let world = World::new().await;
    let volume = world.open().await;
    world.put_old_object(&volume, 7, 9, 1, 99);
    let theirs = world.store.bytes(&log(9));
    match write_block(&volume, 1, 11).await {
        Err(Error::Fenced { epoch, .. }) => assert_eq!(epoch.unwrap().0, 7),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.store.bytes(&log(9)), theirs);
}

/// Rule 5: what lies under my number and is no log object ends the volume with an error that names it.
#[tokio::test(start_paused = true)]
async fn rubbish_at_my_number_is_named() {
    let world = World::new().await;
    let volume = world.open().await;
    world.store.put(&log(9), "rubbish");
    let ended = tokio::spawn(volume.ended());
    match write_block(&volume, 1, 11).await {
        Err(Error::Corrupt { object, .. }) => assert_eq!(object, log(9)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(ended.await.unwrap(), Error::Corrupt { .. }));
    assert_eq!(world.store.bytes(&log(9)).unwrap(), "rubbish");
}

/// Rule 2: while the outcome of a PUT is open its number stays, whatever else goes on, and the log has no gap after it.
#[tokio::test(start_paused = true)]
async fn a_batch_keeps_its_number_through_a_long_failure() {
    let world = World::new().await;
    let volume = world.open().await;
    // Longer than all retries of one PUT.
    world.store.always(Verb::Put, &log(9), Fate::Fails);
    volume.write(BLOCK, blocks(1, 11), false).await.unwrap();
    tokio::time::sleep(Duration::from_secs(400)).await;
    volume.write(2 * BLOCK, blocks(1, 22), false).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.store.names("log/"), [log(1), log(10)]);
    assert_eq!(volume.stats().durable_number, 1, "what lies beyond a gap is not durable");
    let error = volume.flush().await.unwrap_err();
    assert!(matches!(error, Error::Store { .. }), "the store's own words: {error}");
    world.store.release();
    volume.flush().await.unwrap();
    assert_eq!(world.store.names("log/"), [log(1), log(9), log(10)]);
    assert_eq!(volume.stats().durable_number, 10);
}

//! Rule 4: an error is not an absence. Whatever goes wrong while the log is read, the opening fails and can be repeated;
//! it never finds a shorter log.

use std::time::Duration;

use lsvd_volume::Error;

use crate::common::{Fate, Verb, World, fill_of, log, write_block};

const LAST: u8 = 5;

async fn world() -> World {
    let world = World::new().await;
    let volume = world.open().await;
    for nth in 1..=LAST {
        write_block(&volume, u64::from(nth), nth).await.unwrap();
    }
    world
}

/// Rule 4: every verb of recovery, failing in every way, for writers and readers: an error, nothing changed in the log,
/// and everything there when the store is well again.
#[tokio::test(start_paused = true)]
async fn no_failure_shortens_the_log() {
    let last = log(8 + u64::from(LAST));
    let failures: &[(&str, Verb, &str, Fate)] = &[
        ("a listing breaks off before the first", Verb::List, "log", Fate::BreaksOff(0)),
        ("a listing breaks off half way", Verb::List, "log", Fate::BreaksOff(3)),
        ("a listing breaks off after the last", Verb::List, "log", Fate::BreaksOff(1 + LAST as usize)),
        ("a listing is refused", Verb::List, "log", Fate::Denied),
        ("a listing is not answered", Verb::List, "log", Fate::Hangs),
        ("a listing says that nothing is there", Verb::List, "log", Fate::SaysMissing),
        ("a header can not be read", Verb::Get, &last, Fate::Fails),
        ("a header is refused", Verb::Get, &last, Fate::Denied),
        ("a header is not answered", Verb::Get, &last, Fate::Hangs),
        ("superblocks can not be listed", Verb::List, "superblock", Fate::Fails),
        ("superblocks break off", Verb::List, "superblock", Fate::BreaksOff(1)),
        ("a superblock is refused", Verb::Get, "superblock", Fate::Denied),
        ("a superblock is not answered", Verb::Get, "superblock", Fate::Hangs),
    ];
    for (what, verb, part, fate) in failures {
        let world = world().await;
        let before = world.store.names("log/");
        world.store.always(*verb, part, fate.clone());
        let error = world.try_open().await.expect_err(what);
        assert!(matches!(error, Error::Store { .. }), "{what}: {error}");
        let read_only = lsvd_volume::Volume::open_read_only(world.bucket.clone(), world.options()).await;
        assert!(matches!(read_only, Err(Error::Store { .. })), "{what}: {read_only:?}");
        assert_eq!(world.store.names("log/"), before, "{what}");
        world.store.release();
        let volume = world.open().await;
        for nth in 1..=LAST {
            assert_eq!(fill_of(&volume, u64::from(nth)).await.unwrap(), nth, "{what}");
        }
    }
}

/// Rule 4: what fails for a while is asked again, and nobody notices.
#[tokio::test(start_paused = true)]
async fn what_passes_is_waited_for() {
    let world = world().await;
    for verb in [Verb::List, Verb::Get, Verb::Put] {
        world.store.rule(verb, "", Fate::Fails, 4);
    }
    world.store.rule(Verb::List, "log", Fate::BreaksOff(2), 1);
    world.store.rule(Verb::Get, "log", Fate::Slow(Duration::from_secs(60)), 1);
    let volume = world.open().await;
    for nth in 1..=LAST {
        assert_eq!(fill_of(&volume, u64::from(nth)).await.unwrap(), nth);
    }
}

/// Rule 4: an object that was listed and is then definitely not there is no end of the log either.
#[tokio::test(start_paused = true)]
async fn listed_and_then_missing_is_an_error() {
    let world = world().await;
    let last = log(8 + u64::from(LAST));
    world.store.always(Verb::Get, &last, Fate::SaysMissing);
    match world.try_open().await {
        Err(Error::Corrupt { object, reason, .. }) => {
            assert_eq!(object, last);
            assert!(reason.contains("not found"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

/// Headers are fetched in parallel: a recovery takes round trips, not the sum of its objects.
#[tokio::test(start_paused = true)]
async fn headers_are_fetched_in_parallel() {
    let world = World::new().await;
    let volume = world.open().await;
    for nth in 0..60u8 {
        write_block(&volume, u64::from(nth), nth).await.unwrap();
    }
    world.store.always(Verb::Get, "log/", Fate::Slow(Duration::from_millis(100)));
    let before = tokio::time::Instant::now();
    let volume = world.open().await;
    assert!(before.elapsed() < Duration::from_millis(350), "{:?}", before.elapsed());
    assert_eq!(volume.description().recovery.objects_processed, 62);
}

/// A header that is longer than the first read is fetched whole.
#[tokio::test(start_paused = true)]
async fn a_long_header_is_read_whole() {
    let world = World::new().await;
    let volume = world.open().await;
    // Every other block, so that nothing merges: 8,000 entries of 16 bytes.
    for nth in 0..8_000u64 {
        let keep_allocated = nth % 2 == 0;
        volume.write_zeroes(nth * 2 * 4096, 4096, keep_allocated, false).await.unwrap();
    }
    volume.flush().await.unwrap();
    let objects = world.store.names("log/");
    let longest = objects.iter().map(|name| world.store.bytes(name).unwrap().len()).max().unwrap();
    assert!(longest > 100_000, "{longest}");
    let before = volume.stats().map_extents;
    drop(volume);
    let volume = world.open().await;
    assert_eq!(volume.stats().map_extents, before);
    assert_eq!(before, 4_000);
}

//! Rule 5: no unverified byte. What is damaged is named, counted, an error to the client, and never cached.

use std::time::Duration;

use lsvd_format::log_object::{FRAME_BYTES, Header};
use lsvd_format::{BLOCK_LEN, Extent, ObjectIdentity, VolumeId};
use lsvd_volume::{Error, Volume};

use crate::common::{BLOCK, Fate, Verb, World, blocks, fill_of, log, object, read, write_block};

/// A volume with 40 blocks of 7 in object 9, opened anew so that nothing is cached.
async fn cold() -> (World, Volume) {
    let world = World::new().await;
    let volume = world.open().await;
    volume.write(0, blocks(40, 7), true).await.unwrap();
    drop(volume);
    let volume = world.open().await;
    (world, volume)
}

fn header_len(world: &World, name: &str) -> usize {
    let header = Header::decode(&world.store.bytes(name).unwrap()).unwrap();
    usize::try_from(header.header_bytes()).unwrap()
}

fn corrupt(result: Result<Vec<u8>, Error>) -> (String, String) {
    match result {
        Err(Error::Corrupt { object, reason, .. }) => (object, reason),
        other => panic!("{other:?}"),
    }
}

/// Rule 5: a flipped bit in a frame's data, its head's checksum or its flags is an error that names the object and the
/// byte; the other blocks read; and when the object is repaired the block reads, as nothing was cached.
#[tokio::test(start_paused = true)]
async fn a_flipped_bit_is_an_error_and_never_cached() {
    for at_in_frame in [0, 5, 8, 4000] {
        let (world, volume) = cold().await;
        let whole = world.store.bytes(&log(9)).unwrap();
        let frame = header_len(&world, &log(9)) + 20 * FRAME_BYTES as usize;
        world.store.flip(&log(9), frame + at_in_frame);
        for _ in 0..2 {
            let (object, reason) = corrupt(read(&volume, 20 * BLOCK, BLOCK).await);
            assert_eq!(object, log(9));
            assert!(reason.contains("from byte"), "{reason}");
        }
        assert_eq!(volume.stats().corrupt_reads, 6, "each is tried three times, and counted");
        assert_eq!(fill_of(&volume, 0).await.unwrap(), 7, "what is whole is served");
        let error = volume.write(20 * BLOCK + 7, "part".into(), false).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "nor is it merged: {error}");
        world.store.put(&log(9), whole);
        assert_eq!(fill_of(&volume, 20).await.unwrap(), 7);
    }
}

/// Rule 5: damage that is the network's is read again, and no client notices.
#[tokio::test(start_paused = true)]
async fn passing_damage_is_read_again() {
    let (world, volume) = cold().await;
    let whole = world.store.bytes(&log(9)).unwrap();
    world.store.flip(&log(9), whole.len() - 1);
    world.store.before(Verb::Get, &log(9), |_| {});
    world.store.before(Verb::Get, &log(9), move |store| store.put(&log(9), whole.clone()));
    assert_eq!(fill_of(&volume, 39).await.unwrap(), 7);
    assert_eq!(volume.stats().corrupt_reads, 1);
}

/// Rule 5: a truncated object, one that grew, and one that is gone.
#[tokio::test(start_paused = true)]
async fn a_truncated_or_missing_object_is_an_error() {
    let (world, volume) = cold().await;
    let whole = world.store.bytes(&log(9)).unwrap();
    world.store.put(&log(9), whole.slice(..whole.len() - 1));
    let (object, reason) = corrupt(read(&volume, 39 * BLOCK, BLOCK).await);
    assert_eq!(object, log(9));
    assert!(reason.contains("truncated"), "{reason}");
    assert!(matches!(world.try_open().await, Err(Error::Corrupt { object, .. }) if object == log(9)));

    let (world, volume) = cold().await;
    world.store.remove(&log(9));
    let missing = read(&volume, 0, BLOCK).await;
    assert!(matches!(missing, Err(Error::Missing { object, .. }) if object == log(9)));

    let (world, _volume) = cold().await;
    let longer = [&world.store.bytes(&log(9)).unwrap()[..], b"x"].concat();
    world.store.put(&log(9), longer);
    assert!(matches!(world.try_open().await, Err(Error::Corrupt { object, .. }) if object == log(9)));
}

/// Rule 5: two objects that were swapped, each sound in itself, are not taken for each other, neither by an open volume
/// nor by an opening.
#[tokio::test(start_paused = true)]
async fn swapped_objects_are_noticed() {
    let world = World::new().await;
    let volume = world.open().await;
    write_block(&volume, 1, 11).await.unwrap();
    write_block(&volume, 2, 22).await.unwrap();
    drop(volume);
    let volume = world.open().await;
    let (a, b) = (world.store.bytes(&log(9)).unwrap(), world.store.bytes(&log(10)).unwrap());
    world.store.put(&log(9), b);
    world.store.put(&log(10), a);
    assert_eq!(corrupt(read(&volume, BLOCK, BLOCK).await).0, log(9));
    match world.try_open().await {
        Err(Error::Corrupt { object, reason, .. }) => {
            assert_eq!(object, log(9));
            assert!(reason.contains("number 10"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

/// Rule 5: an object of another volume, of the same number, size and entries, is not this volume's.
#[tokio::test(start_paused = true)]
async fn another_volumes_object_is_noticed() {
    let world = World::new().await;
    let volume = world.open().await;
    write_block(&volume, 1, 11).await.unwrap();
    drop(volume);
    let volume = world.open().await;
    let stored = Header::decode(&world.store.bytes(&log(9)).unwrap()).unwrap();
    let identity = ObjectIdentity { volume: VolumeId([9; 16]), ..stored.identity };
    world.store.put(&log(9), object(identity, Extent::new(1, 1), 99));
    assert_eq!(corrupt(read(&volume, BLOCK, BLOCK).await).0, log(9));
    match world.try_open().await {
        Err(Error::Corrupt { object, reason, .. }) => {
            assert_eq!(object, log(9));
            assert!(reason.contains("another volume"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

/// Rules 4 and 5: a damaged header ends no log for a writer, wherever the bit is; a reader gets what lies before it.
#[tokio::test(start_paused = true)]
async fn a_damaged_header_is_never_the_end_of_the_log() {
    let world = World::new().await;
    let volume = world.open().await;
    for nth in 1..=3 {
        write_block(&volume, u64::from(nth), nth).await.unwrap();
    }
    drop(volume);
    let whole = world.store.bytes(&log(10)).unwrap();
    for at in (0..header_len(&world, &log(10))).step_by(7) {
        world.store.put(&log(10), whole.clone());
        world.store.flip(&log(10), at);
        match world.try_open().await {
            Err(Error::Corrupt { object, .. }) => assert_eq!(object, log(10)),
            other => panic!("byte {at}: {other:?}"),
        }
        let reader = world.open_read_only().await;
        assert_eq!(fill_of(&reader, 1).await.unwrap(), 1);
        assert_eq!(fill_of(&reader, 2).await.unwrap(), 0);
        assert_eq!(fill_of(&reader, 3).await.unwrap(), 0, "a prefix: nothing after what is damaged");
    }
    world.store.put(&log(10), whole);
    assert_eq!(fill_of(&world.open().await, 3).await.unwrap(), 3);
}

/// Rule 5: a read that was answered from memory stays whole whatever becomes of the object: the cache holds what was
/// verified, under the object's whole identity.
#[tokio::test(start_paused = true)]
async fn the_cache_holds_what_was_verified() {
    let (world, volume) = cold().await;
    assert_eq!(fill_of(&volume, 3).await.unwrap(), 7);
    world.store.remove(&log(9));
    world.store.forget();
    assert_eq!(fill_of(&volume, 5).await.unwrap(), 7, "of the same chunk");
    assert_eq!(world.store.count(Verb::Get, ""), 0);
    assert!(volume.stats().cache_hits >= 1);
}

/// A failed read of a base fails that request alone, and it is never applied (rule 1).
#[tokio::test(start_paused = true)]
async fn an_unreadable_base_fails_only_its_request() {
    let (world, volume) = cold().await;
    world.store.always(Verb::Get, &log(9), Fate::Denied);
    let (part, whole, beside) = tokio::join!(
        volume.write(2 * BLOCK + 5, "part".into(), false),
        volume.write(2 * BLOCK, blocks(1, 8), false),
        volume.write(100 * BLOCK, blocks(1, 9), false),
    );
    assert!(matches!(part, Err(Error::Store { .. })), "{part:?}");
    whole.unwrap();
    beside.unwrap();
    // Both of its blocks are unreadable: still one answer, and nothing is kept of it.
    let both = volume.write(4 * BLOCK - 5, vec![1; BLOCK_LEN + 10].into(), false).await;
    assert!(matches!(both, Err(Error::Store { .. })), "{both:?}");
    world.store.release();
    volume.flush().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fill_of(&volume, 2).await.unwrap(), 8);
    assert_eq!(fill_of(&volume, 3).await.unwrap(), 7);
    assert_eq!(volume.stats().buffered_bytes, 0);
}

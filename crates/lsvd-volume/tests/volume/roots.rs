//! The root of a volume: creating, what the store must promise, damaged and newer superblocks, inspecting and listing.

use lsvd_backend::Bucket;
use lsvd_format::superblock::{self, Superblock};
use lsvd_format::{Epoch, SuperblockNumber, names};
use lsvd_volume::{CreateOptions, Error, Volume, create, inspect, list};

use crate::common::{BLOCK, Fate, MIB, Verb, World, blocks, fill_of, log, write_block};

fn stored_superblock(world: &World, number: u64) -> Superblock {
    let number = SuperblockNumber(number);
    superblock::decode(number, &world.store.bytes(&names::superblock(number)).unwrap()).unwrap()
}

fn put_superblock(world: &World, number: u64, superblock: &Superblock) {
    let number = SuperblockNumber(number);
    world.store.put(&names::superblock(number), superblock::encode(number, superblock));
}

#[tokio::test(start_paused = true)]
async fn impossible_volumes_are_not_created() {
    let world = World::empty();
    for size_bytes in [0, 1, 4095, MIB + 512, (1 << 56) + BLOCK] {
        let error = create(&world.bucket, &CreateOptions::new(size_bytes)).await.unwrap_err();
        assert!(matches!(&error, Error::Invalid(what) if what.contains("4096")), "{error}");
    }
    for window in [0, 1, 65_537] {
        let options = CreateOptions { window, ..CreateOptions::new(MIB) };
        assert!(matches!(create(&world.bucket, &options).await, Err(Error::Invalid(_))));
    }
    assert!(world.store.made().is_empty(), "no request was needed to know");
    assert!(matches!(world.try_open().await, Err(Error::NotFound { .. })));
    let read_only = Volume::open_read_only(world.bucket.clone(), world.options()).await;
    assert!(matches!(read_only, Err(Error::NotFound { .. })));
    assert!(matches!(inspect(&world.bucket).await, Err(Error::NotFound { .. })));
    assert!(world.store.names("").is_empty(), "looking for a volume makes nothing");
}

#[tokio::test(start_paused = true)]
async fn options_that_can_not_work_are_refused() {
    let world = World::new().await;
    let changes: &[fn(&mut lsvd_volume::OpenOptions)] = &[
        |options| options.batch_bytes_max = 4095,
        |options| options.batch_bytes_max = (1 << 30) + 1,
        |options| options.buffer_bytes_max = options.batch_bytes_max - 1,
        |options| options.uploads_max = 0,
        |options| options.flush_uploads_max = 0,
        |options| options.fetches_max = 0,
        |options| options.io_timeout = std::time::Duration::ZERO,
        |options| options.batch_age_max = std::time::Duration::ZERO,
    ];
    for change in changes {
        let mut options = world.options();
        change(&mut options);
        assert!(matches!(Volume::open(world.bucket.clone(), options).await, Err(Error::Invalid(_))));
    }
    assert!(world.store.made().is_empty());
}

/// What is there is left alone: a volume, or log objects that a new volume would take for its own.
#[tokio::test(start_paused = true)]
async fn create_leaves_alone_what_is_there() {
    let world = World::new().await;
    write_block(&world.open().await, 1, 11).await.unwrap();
    let before = world.store.image();
    assert!(matches!(create(&world.bucket, &world.create_options()).await, Err(Error::Exists { .. })));
    assert_eq!(world.store.image(), before);
    for name in world.store.names("superblock/") {
        world.store.remove(&name);
    }
    let before = world.store.image();
    match create(&world.bucket, &world.create_options()).await {
        Err(Error::Invalid(what)) => assert!(what.contains("log/") && what.contains("superblock"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.store.image(), before);
}

/// Of several creators at once one wins, and its volume is the one that is there.
#[tokio::test(start_paused = true)]
async fn of_several_creators_one_wins() {
    let world = World::empty();
    let options = world.create_options();
    let creations = futures::future::join_all((0..4).map(|_| create(&world.bucket, &options))).await;
    let won: Vec<_> = creations.iter().flatten().collect();
    assert_eq!(won.len(), 1, "{creations:?}");
    assert!(
        creations
            .iter()
            .filter_map(|created| created.as_ref().err())
            .all(|e| matches!(e, Error::Exists { .. }))
    );
    assert_eq!(inspect(&world.bucket).await.unwrap().volume_id, won[0].volume_id);
    assert!(world.store.names("probe/").is_empty(), "the probes have cleaned up");
}

/// A creator that was overtaken by a whole life of another's volume, first superblock pruned, does not claim it.
#[tokio::test(start_paused = true)]
async fn a_creator_that_comes_very_late_claims_nothing() {
    let world = World::new().await;
    let theirs = inspect(&world.bucket).await.unwrap().volume_id;
    for _ in 0..20 {
        world.open().await;
    }
    assert!(!world.store.names("superblock/").contains(&names::superblock(SuperblockNumber(1))));
    // Its first look was before all that.
    let late = World::empty();
    let (from, to) = (world.store.clone(), late.store.clone());
    late.store.before(Verb::Put, "superblock/", move |_| {
        for (name, bytes) in from.image() {
            to.put(&name, bytes);
        }
    });
    let claimed = create(&late.bucket, &late.create_options()).await;
    assert!(matches!(claimed, Err(Error::Exists { .. })), "{claimed:?}");
    assert_eq!(inspect(&late.bucket).await.unwrap().volume_id, theirs);
}

/// A store that ignores create-only PUT is refused by create and open, in words that say what to do, and works for a
/// user who vouches for a single writer at both.
#[tokio::test(start_paused = true)]
async fn an_unsafe_store_needs_a_users_word() {
    let world = World::empty();
    world.store.overwrites(true);
    let error = create(&world.bucket, &world.create_options()).await.unwrap_err();
    assert!(matches!(error, Error::UnsafeStore { .. }), "{error}");
    assert!(error.to_string().contains("--unsafe-single-writer"), "{error}");
    assert!(world.store.names("superblock/").is_empty());
    let options = CreateOptions { unsafe_single_writer: true, ..world.create_options() };
    let created = create(&world.bucket, &options).await.unwrap();
    assert!(!created.guarantees.is_empty());
    for probe in [true, false] {
        let options = lsvd_volume::OpenOptions { probe, ..world.options() };
        let error = Volume::open(world.bucket.clone(), options).await.unwrap_err();
        assert!(error.to_string().contains("--unsafe-single-writer"), "{error}");
    }
    let vouch = |options: &mut lsvd_volume::OpenOptions| {
        options.unsafe_single_writer = true;
        options.probe = true;
    };
    let volume = world.open_with(vouch).await;
    write_block(&volume, 1, 11).await.unwrap();
    drop(volume);
    assert_eq!(fill_of(&world.open_with(vouch).await, 1).await.unwrap(), 11);
    assert!(inspect(&world.bucket).await.unwrap().unsafe_single_writer);
}

/// A volume whose store became unsafe (it was copied elsewhere) is refused too.
#[tokio::test(start_paused = true)]
async fn a_store_that_became_unsafe_is_refused() {
    let world = World::new().await;
    world.store.overwrites(true);
    let options = lsvd_volume::OpenOptions { probe: true, ..world.options() };
    let error = Volume::open(world.bucket.clone(), options).await.unwrap_err();
    assert!(matches!(error, Error::UnsafeStore { .. }), "{error}");
    assert_eq!(world.store.names("superblock/").len(), 1, "no epoch was raised");
}

/// Rule 5: a writer never passes over a damaged newest superblock, which may say what must not be forgotten; a reader
/// uses the one before it.
#[tokio::test(start_paused = true)]
async fn a_damaged_newest_superblock_stops_writers_only() {
    let world = World::new().await;
    write_block(&world.open().await, 1, 11).await.unwrap();
    let newest = names::superblock(SuperblockNumber(2));
    let whole = world.store.bytes(&newest).unwrap();
    let damages: [&dyn Fn(); 4] = [
        &|| world.store.flip(&newest, 200),
        &|| world.store.put(&newest, whole.slice(..whole.len() - 5)),
        &|| world.store.put(&newest, world.store.bytes(&names::superblock(SuperblockNumber(1))).unwrap()),
        &|| world.store.put(&newest, ""),
    ];
    for damage in damages {
        world.store.put(&newest, whole.clone());
        damage();
        match world.try_open().await {
            Err(Error::Corrupt { object, .. }) => assert_eq!(object, newest),
            other => panic!("{other:?}"),
        }
        assert_eq!(world.store.names("superblock/").len(), 2);
        let reader = world.open_read_only().await;
        assert_eq!(reader.description().epoch, Epoch(1));
        assert_eq!(fill_of(&reader, 1).await.unwrap(), 11);
    }
    world.store.put(&newest, whole);
    assert_eq!(fill_of(&world.open().await, 1).await.unwrap(), 11);
}

/// A newer lsvd's volume: what is needed to write stops writers, what is needed to read stops all, and each says so.
#[tokio::test(start_paused = true)]
async fn newer_features_are_told_apart() {
    let world = World::new().await;
    write_block(&world.open().await, 1, 11).await.unwrap();
    let known = stored_superblock(&world, 2);
    let to_write = Superblock { features_to_write: vec!["colour".into()], ..known.clone() };
    put_superblock(&world, 3, &to_write);
    let error = world.try_open().await.unwrap_err();
    assert!(matches!(&error, Error::Newer { what, .. } if what.contains("colour")), "{error}");
    assert_eq!(fill_of(&world.open_read_only().await, 1).await.unwrap(), 11);

    // Ours would never write this one, so its bytes are made by hand.
    let to_read = Superblock { features_to_read: vec!["smell".into()], ..known };
    let body = serde_json::to_vec(&to_read).unwrap();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&4u64.to_le_bytes()), &body);
    let (number, body_bytes) = (4, body.len());
    let head = format!(
        "lsvd superblock format=2 number={number:016x} body_bytes={body_bytes:08} crc32c={checksum:08x}\n"
    );
    world.store.put(&names::superblock(SuperblockNumber(number)), [head.as_bytes(), &body[..]].concat());
    let error = world.try_open().await.unwrap_err();
    assert!(matches!(&error, Error::Newer { what, .. } if what.contains("smell")), "{error}");
    let error = Volume::open_read_only(world.bucket.clone(), world.options()).await.unwrap_err();
    assert!(matches!(error, Error::Newer { .. }), "{error}");
    assert_eq!(world.store.names("superblock/").len(), 4);
}

/// Fields that this lsvd does not know survive being opened and closed by it.
#[tokio::test(start_paused = true)]
async fn unknown_fields_are_kept() {
    let world = World::new().await;
    let mut superblock = stored_superblock(&world, 1);
    superblock.unknown.insert("mood".into(), "sunny".into());
    put_superblock(&world, 2, &superblock);
    world.open().await.close().await.unwrap();
    assert_eq!(stored_superblock(&world, 4).unknown["mood"], "sunny");
}

/// Rule 4: a reader whose listing of superblocks is so old that all of them were pruned looks again.
#[tokio::test(start_paused = true)]
async fn pruned_superblocks_are_not_a_missing_volume() {
    let world = World::new().await;
    write_block(&world.open().await, 1, 11).await.unwrap();
    world.store.rule(Verb::Get, "superblock/", Fate::SaysMissing, 2);
    let reader = world.open_read_only().await;
    assert_eq!(fill_of(&reader, 1).await.unwrap(), 11);
}

#[tokio::test(start_paused = true)]
async fn inspect_says_what_a_volume_is() {
    let world = World::new().await;
    let fresh = inspect(&world.bucket).await.unwrap();
    assert_eq!((fresh.durable_number, fresh.log_objects, fresh.log_bytes), (None, 0, 0));
    let volume = world.open().await;
    write_block(&volume, 1, 11).await.unwrap();
    world.put_old_object(&volume, 2, 12, 1, 99);
    world.store.forget();
    let info = inspect(&world.bucket).await.unwrap();
    assert!(!world.store.made().iter().any(|made| made.verb.mutates()), "rule 3: it writes nothing");
    assert_eq!(info.volume_id, volume.description().volume_id);
    assert_eq!((info.size_bytes, info.window), (64 * MIB, crate::common::WINDOW));
    assert_eq!((info.superblock, info.epoch), (SuperblockNumber(2), Epoch(2)));
    assert_eq!(info.writer_id, volume.description().writer_id);
    assert_eq!((info.durable_number.unwrap().0, info.log_objects), (9, 3));
    let bytes: usize = [1, 9, 12].iter().map(|number| world.store.bytes(&log(*number)).unwrap().len()).sum();
    assert_eq!(info.log_bytes, bytes as u64);
    assert!(!info.closed_cleanly && !info.unsafe_single_writer);
    assert_eq!(info.written_unix_ms, 1_800_000_000_000);
}

/// Volumes below a prefix are listed by name, sorted; folders that hold none are not.
#[tokio::test(start_paused = true)]
async fn list_names_the_volumes_of_a_prefix() {
    let root: std::sync::Arc<dyn object_store::ObjectStore> =
        std::sync::Arc::new(object_store::memory::InMemory::new());
    let bucket = Bucket::from_store(root, "team", "test://team");
    assert!(list(&bucket).await.unwrap().is_empty());
    for name in ["web", "db1", "db10"] {
        create(&bucket.child(name), &CreateOptions::new(MIB)).await.unwrap();
    }
    bucket.create("notes/readme", "hello".into()).await.unwrap();
    bucket.create("superblock", "not a folder".into()).await.unwrap();
    assert_eq!(list(&bucket).await.unwrap(), ["db1", "db10", "web"]);
    let volume = Volume::open(bucket.child("db1"), lsvd_volume::OpenOptions::default()).await.unwrap();
    volume.write(0, blocks(1, 1), true).await.unwrap();
    assert_eq!(list(&bucket).await.unwrap(), ["db1", "db10", "web"]);
}

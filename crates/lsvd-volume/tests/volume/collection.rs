//! Collection where the log is damaged: it goes on with the rest.

use std::time::Duration;

use lsvd_volume::{CollectOptions, UpkeepOptions, Volume};

use crate::common::{BLOCK, Verb, World, blocks, fill_of};

const OBJECTS: u64 = 8;
/// Blocks of each, of which every second is overwritten.
const EACH: u64 = 32;

/// A volume whose objects are all half dead, and of which collection has seen nothing yet; with one object's name.
async fn half_dead(world: &World) -> (Volume, String) {
    let upkeep = UpkeepOptions {
        look_every: Duration::from_secs(1),
        checkpoint_objects: 4,
        checkpoint_age: Duration::from_secs(5),
        delete_after: Duration::from_secs(2),
        collect: CollectOptions { target: 1.2, waste_bytes_min: 0, share: 1.0, ..CollectOptions::default() },
    };
    let volume = world.open_with(|options| {
        options.upkeep = upkeep;
        options.cache_bytes_max = 0;
    });
    let volume = volume.await;
    for object in 0..OBJECTS {
        volume.write(object * EACH * BLOCK, blocks(EACH, 1), false).await.unwrap();
        volume.flush().await.unwrap();
    }
    let victim = world.store.names("log/")[OBJECTS as usize / 2].clone();
    for block in (0..OBJECTS * EACH).step_by(2) {
        volume.write(block * BLOCK, blocks(1, 2), false).await.unwrap();
    }
    volume.flush().await.unwrap();
    (volume, victim)
}

/// What collection makes of an object in which this byte is flipped; so many blocks can not be read then.
async fn goes_on(flip: impl Fn(usize) -> usize, lost: u64) {
    let world = World::new().await;
    let (volume, victim) = half_dead(&world).await;
    let at = flip(world.store.bytes(&victim).unwrap().len());
    world.store.flip(&victim, at);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let stats = volume.stats();
    assert_eq!(stats.passed_over_objects, 1, "{stats:?}");
    assert!(stats.moved_bytes >= (OBJECTS - 1) * EACH / 2 * BLOCK, "{stats:?}");
    assert!(stats.deleted_objects >= OBJECTS - 1, "{stats:?}");
    // It is asked for no more.
    let asked = world.store.count(Verb::Get, &victim);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.store.count(Verb::Get, &victim), asked);
    let mut readable = 0;
    for block in 0..OBJECTS * EACH {
        match fill_of(&volume, block).await {
            Ok(fill) => assert_eq!(u64::from(fill), 2 - block % 2, "block {block}"),
            Err(_) => continue,
        }
        readable += 1;
    }
    assert_eq!(OBJECTS * EACH - readable, lost, "blocks that can not be read");
}

/// An object whose header is damaged does not keep collection from the others; what is in it is read as before.
#[tokio::test(start_paused = true)]
async fn collection_goes_on_beside_a_damaged_header() {
    goes_on(|_| 50, 0).await;
}

/// Nor does one of whose blocks one is damaged: it is an error to who reads its chunk of 16 blocks, half of them live.
#[tokio::test(start_paused = true)]
async fn collection_goes_on_beside_a_damaged_block() {
    goes_on(|bytes| bytes - 1, 8).await;
}

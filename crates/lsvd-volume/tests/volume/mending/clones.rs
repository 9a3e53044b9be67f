//! What of a parent's map is damaged is lost for its clones, too, and nothing else is: nobody forgets that it may be referred to.

use lsvd_format::SuperblockNumber;
use lsvd_volume::{VolumeId, create_clone, inspect};

use super::*;

/// A clone, called `db2`, of the open volume as it is now.
async fn clone(world: &World, volume: &Volume) -> World {
    let (place, environment) = (world.beside("db2"), world.options().environment);
    let id = VolumeId((environment.random)());
    volume.pin_for_clone(None, id, "../db2").await.unwrap();
    create_clone(&place.bucket, "../db1", id, &environment).await.unwrap();
    place
}

async fn first_version(place: &World) -> Superblock {
    let name = names::superblock(SuperblockNumber(1));
    let head = place.bucket.read_head(&name, 1 << 20).await.unwrap().unwrap();
    superblock::decode(SuperblockNumber(1), &head.bytes).unwrap()
}

/// Block `USED` of region 2 is written with 7s, and the one behind it discarded.
async fn touch(volume: &Volume) {
    volume.write((2 * REGION + USED) * BLOCK, blocks(1, 7), false).await.unwrap();
    volume.trim((2 * REGION + USED + 1) * BLOCK, BLOCK, false).await.unwrap();
    volume.flush().await.unwrap();
}

/// Writes, until checkpoints were written, objects deleted and others moved.
async fn live_on(volume: &Volume, model: &mut Model) {
    for nth in 0..200 {
        let (at, fill) = (nth * 7 % (USED - 6), 1 + nth as u8);
        volume.write((REGION + at) * BLOCK, blocks(6, fill), true).await.unwrap();
        model.0[1][at as usize..at as usize + 6].fill(fill);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let stats = volume.stats();
    assert!(stats.checkpoints > 3 && stats.deleted_objects > 0 && stats.moved_bytes > 0, "{stats:?}");
    volume.audit().unwrap();
}

async fn refuse_to_flatten(volume: &Volume) {
    let refused = volume.flatten(&|_| {}).await.unwrap_err();
    assert!(matches!(refused, Error::NeedsParent { .. }), "{refused}");
    assert!(refused.to_string().contains("a part of its map was lost"), "{refused}");
}

/// Rules 5 and 7: a clone of a volume that has lost a region has lost it, too. Both live on; what the region may have pointed at
/// counts as live for both, stays, and keeps the clone tied.
#[tokio::test(start_paused = true)]
async fn what_a_parent_has_lost_is_lost_for_its_clone_and_stays_for_both() {
    for stored_as_lost in [false, true] {
        let (world, mut model) = written(1).await;
        let needed = objects_of(&world, 2);
        rot_everywhere(&world, 2);
        let mut volume = world.open_with(still).await;
        touch(&volume).await;
        if stored_as_lost {
            drop(volume);
            volume = world.open_with(soon).await;
            live_on(&volume, &mut model).await;
            assert!(newest(&world).has_lost_blocks());
        }
        let place = clone(&world, &volume).await;
        assert_eq!(first_version(&place).await.has_lost_blocks(), stored_as_lost);
        let reader = place.open_read_only().await;
        check_lost(&reader, &model).await;
        reader.audit().unwrap();
        let mut of_clone = Model(model.0.clone());
        for round in 0..2 {
            let cloned = place.open_with(soon).await;
            check_lost(&cloned, &of_clone).await;
            live_on(&cloned, &mut of_clone).await;
            check_lost(&cloned, &of_clone).await;
            if round == 1 {
                refuse_to_flatten(&cloned).await;
                check_lost(&cloned, &of_clone).await;
            }
        }
        drop(volume);
        let volume = world.open_with(soon).await;
        live_on(&volume, &mut model).await;
        check_lost(&volume, &model).await;
        check_lost(&place.open_with(still).await, &of_clone).await;
        assert_eq!(inspect(&place.bucket).await.unwrap().parents.len(), 1);
        for name in &needed {
            assert!(world.store.bytes(name).is_some(), "{name} was deleted");
        }
    }
}

/// Rule 10: a region rotted at the parent when its clone, that has no checkpoint of its own, had its log's objects in it: openings of
/// the clone go on without it, and its own checkpoints say so.
#[tokio::test(start_paused = true)]
async fn a_clone_whose_parent_s_region_rotted_opens_without_it() {
    let (world, model) = written(2).await;
    let volume = world.open_with(still).await;
    let place = clone(&world, &volume).await;
    touch(&place.open_with(still).await).await;
    rot_everywhere(&world, 2);
    check_lost(&place.open_read_only().await, &model).await;
    for _ in 0..2 {
        check_lost(&place.open_with(still).await, &model).await;
    }
    let mut of_clone = Model(model.0.clone());
    let cloned = place.open_with(soon).await;
    live_on(&cloned, &mut of_clone).await;
    drop(cloned);
    let cloned = place.open_with(still).await;
    check_lost(&cloned, &of_clone).await;
    refuse_to_flatten(&cloned).await;
    // The parent needs that region for nothing that it wrote.
    model.check(&volume, [0, 1, 3]).await;
}

/// Rule 4: a parent that was moved, or is not there for a while, is no damage. What of the map is in its checkpoints is waited for, openings
/// that need it are refused, and nothing is lost when it is back.
#[tokio::test(start_paused = true)]
async fn a_clone_whose_parent_is_away_loses_nothing() {
    let (world, model) = written(2).await;
    let volume = world.open_with(still).await;
    let place = clone(&world, &volume).await;
    let mut of_clone = Model(model.0.clone());
    let cloned = place.open_with(soon).await;
    live_on(&cloned, &mut of_clone).await;
    drop(cloned);
    drop(volume);
    let away: Vec<_> = world.store.names("checkpoint/");
    let away: Vec<_> = away.into_iter().map(|name| (world.store.bytes(&name).unwrap(), name)).collect();
    away.iter().for_each(|(_, name)| world.store.remove(name));
    let cloned = place.open_with(still).await;
    touch(&cloned).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(cloned.stats().lost_regions, 0);
    drop(cloned);
    let refused = place.try_open().await.unwrap_err();
    assert!(matches!(refused, Error::Missing { .. }), "{refused}");
    away.iter().for_each(|(bytes, name)| world.store.put(name, bytes.clone()));
    let cloned = place.open_with(still).await;
    of_clone.check(&cloned, 0..REGIONS).await;
    assert_eq!(cloned.stats().lost_regions, 0);
}

//! Copies of the store as it is at one moment, in which the volume is opened with either kept checkpoint: both must show
//! the same (rules 7 and 8).
//!
//! Nobody writes in a copy, nothing fails there, and what was damaged on purpose is whole. Knows openings and contents.

use std::sync::{Arc, Mutex};

use lsvd_format::names;
use lsvd_volume::Volume;

use crate::client::read_whole;
use crate::cloud::{Cloud, PREFIX};
use crate::link::{Link, Rights, World};
use crate::oracle::Violation;
use crate::scene::{Scene, words};
use crate::sector::Value;
use crate::stage::lock;
use crate::weather::Weather;

/// Numbers of processes that no run comes to.
const FIRST_PROCESS: u32 = 1 << 24;

/// Opens copies of the store with the newest and with the older kept checkpoint, and compares what they show.
pub(crate) async fn compare(scene: &Arc<Scene>) {
    let (newest, mut older, root) = {
        let cloud = lock(&scene.world.cloud);
        let Some(superblock) = cloud.ledger().newest() else { return };
        let [_, .., newest] = superblock.checkpoints[..] else { return };
        (cloud.whole_copy(), cloud.whole_copy(), names::checkpoint_part(&newest.part))
    };
    older.lose(&format!("{PREFIX}/{root}"));
    let process =
        FIRST_PROCESS + u32::try_from(lock(&scene.world.cloud).next_copy()).expect("few copies") * 2;
    let one = look(scene, newest, process).await;
    let other = look(scene, older, process + 1).await;
    let what = match (one, other) {
        (Ok(one), Ok(other)) if one == other => return,
        (Ok(one), Ok(other)) => {
            let at = one.iter().zip(&other).position(|(one, other)| one != other).unwrap_or(0);
            format!(
                "sector {at} is {:?} with the newest checkpoint, and {:?} with the one before",
                one[at], other[at]
            )
        }
        (Err(why), _) => format!("a copy of the store can not be read: {why}"),
        (_, Err(why)) => format!("a copy of the store can not be read with the older checkpoint: {why}"),
    };
    scene.stage().accuse(Violation::new(7, what));
}

async fn look(scene: &Arc<Scene>, cloud: Cloud, process: u32) -> Result<Vec<Value>, String> {
    let world = World {
        cloud: Arc::new(Mutex::new(cloud)),
        weather: Arc::new(Mutex::new(Weather::calm())),
        stage: Arc::clone(&scene.world.stage),
        mutation: None,
    };
    let rights = Rights { write: false, abandon: false };
    let link = Link::new(&world, process, rights, scene.rng(10, u64::from(process)));
    let opened = Volume::open_read_only(scene.bucket(&link, process), scene.open_options(process)).await;
    let volume = opened.map_err(|error| words(&error))?;
    let values = read_whole(scene, &volume, &mut scene.rng(24, u64::from(process))).await;
    values.ok_or_else(|| "reading it fails".to_owned())
}

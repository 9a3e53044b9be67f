//! Whoever makes clones of the open volume, writes to them, kills them, flattens and removes them, whatever befalls the parent.
//!
//! The judge of the volume does not know them. What a clone has to show is known here: what the log says of its moment
//! (`chronicle`), and of each sector what its only client may have left there. Knows the volumes' public faces only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lsvd_backend::Bucket;
use lsvd_format::VolumeId;
use lsvd_format::superblock::Snapshot;
use lsvd_volume::{Error, Moment, RemoveOptions, Volume, create_clone, remove_clone};
use tokio::time::{sleep, timeout};

use crate::client::read_whole_unless;
use crate::link::{Gate, Link, Rights};
use crate::oracle::Violation;
use crate::process::Process;
use crate::rng::Rng;
use crate::scene::{Scene, words};
use crate::sector::{self, Value};
use crate::stage::lock;

/// Virtual time within which anything is done that is not refused.
const PATIENCE: Duration = Duration::from_secs(3000);
/// How often an opening is tried in calm weather.
const TRIES: u32 = 3;

/// A clone that was made, or may have been.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    nth: usize,
    pin: Snapshot,
    /// What each sector may hold.
    may: Vec<BTreeSet<Value>>,
    /// Who opened it last: what others still see or are told says nothing of what it may hold.
    session: u32,
    /// Whether it was made for sure.
    made: bool,
    /// It shares nothing, or is being removed: it may be gone.
    leaving: bool,
}

impl Record {
    fn name(&self) -> String {
        format!("clone-{}", self.nth)
    }
}

/// Makes a clone of the volume that `process` has open, and plays with it.
pub(crate) async fn clone_and_play(scene: Arc<Scene>, process: Arc<Process>, nth: usize, mut rng: Rng) {
    let Some(parent) = process.volume() else { return };
    let id = VolumeId(rng.bytes16());
    let moment = moment(&scene, &mut rng);
    let path = format!("../clone-{nth}");
    let asked = parent.pin_for_clone(moment.as_ref(), id, &path);
    let pinned = match timeout(PATIENCE, asked).await {
        Ok(Ok(pinned)) => pinned,
        // Its process is dead, or was told so.
        Err(_) => return,
        Ok(Err(error)) => {
            scene.stage().event(format_args!("clone {nth} is not kept for: {}", words(&error)));
            return;
        }
    };
    drop(parent);
    scene.stage().event(format_args!("clone {nth} of number {} is kept for", pinned.as_of));
    let there = scene.sectors_of(pinned.size_bytes);
    let Some(content) = scene.content(pinned.as_of, there) else { return };
    let may = content.into_iter().map(|value| BTreeSet::from([value])).collect();
    let record = Record { nth, pin: pinned, may, session: 0, made: false, leaving: false };
    let at = {
        let mut clones = lock(&scene.clones);
        clones.push(record);
        clones.len() - 1
    };
    if rng.chance(100) {
        return; // died between the two steps
    }
    let id_of_maker = scene.next_process();
    let link = link(&scene, id_of_maker);
    for _ in 0..5 {
        let bucket = place(&scene, &link, at);
        let environment = scene.open_options(id_of_maker).environment;
        match create_clone(&bucket, "../vol", id, &environment).await {
            Ok(_) | Err(Error::Exists { .. }) => {
                lock(&scene.clones)[at].made = true;
                lock(&scene.world.cloud).deeds().clones += 1;
                break;
            }
            Err(error) => scene.stage().event(format_args!("clone {nth} is not made: {}", words(&error))),
        }
        sleep(Duration::from_millis(rng.spread(1, 5000))).await;
    }
    if !lock(&scene.clones)[at].made {
        return;
    }
    for _ in 0..rng.between(1, 5) {
        sleep(Duration::from_millis(rng.spread(1, 5000))).await;
        // What can not be opened in this weather is opened later.
        let _ = play_once(&scene, at, &mut rng, false).await;
    }
    match rng.between(0, 9) {
        0..=2 => cut(&scene, &process, at, &mut rng).await,
        3..=4 => leave(&scene, &process, at).await,
        _ => {}
    }
}

/// Now, a snapshot, or some number.
fn moment(scene: &Scene, rng: &mut Rng) -> Option<Moment> {
    let mut cloud = lock(&scene.world.cloud);
    let known = cloud.ledger().newest().map(|newest| newest.moments.snapshots.clone()).unwrap_or_default();
    let nth = usize::try_from(rng.between(0, known.len().max(1) as u64 - 1)).expect("an index fits");
    match rng.between(0, 9) {
        0..=4 => None,
        5..=7 => known.get(nth).map(|snapshot| Moment::Snapshot(snapshot.name.clone())),
        _ => {
            let (chronicle, _) = cloud.chronicle()?;
            chronicle.some_number(rng.bits()).map(Moment::Number)
        }
    }
}

/// A way to the store for a clone's player, which is stopped in the end.
fn link(scene: &Scene, id: u32) -> Link {
    let link = scene.link(id, Rights { write: true, abandon: false });
    lock(&scene.players).push(link.clone());
    link
}

fn place(scene: &Scene, link: &Link, at: usize) -> Bucket {
    let name = lock(&scene.clones)[at].name();
    scene.bucket(link, link.process()).beside(&format!("../{name}")).expect("it is in the same bucket")
}

/// Opens a clone, compares it, writes to it, and closes or kills it. Gives whether it could be opened and read.
async fn play_once(scene: &Arc<Scene>, at: usize, rng: &mut Rng, calm: bool) -> Result<(), Error> {
    let id = scene.next_process();
    let link = link(scene, id);
    let nth = lock(&scene.clones)[at].nth;
    scene.stage().event(format_args!("p{id} opens clone {nth}"));
    lock(&scene.clones)[at].session = id;
    let opened = Volume::open(place(scene, &link, at), scene.open_options(id)).await;
    let volume = opened.inspect_err(|error| {
        scene.stage().event(format_args!("p{id} can not open clone {nth}: {}", words(error)));
    })?;
    let seen = compare(scene, (at, id), &volume, rng).await;
    if seen {
        for _ in 0..rng.between(0, 12) {
            if write(scene, (at, id), &volume, rng).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(rng.spread(1, 1000))).await;
        }
    }
    let closes = calm || rng.chance(300);
    if closes {
        let _ = timeout(PATIENCE, volume.close()).await;
    }
    link.set_gate(Gate::Dead);
    match seen || !calm {
        true => Ok(()),
        false => Err(Error::Closed { volume: "clone".into() }),
    }
}

/// Whether all of a clone could be read, and was what it may be; from then on it is what it was.
async fn compare(scene: &Arc<Scene>, (at, id): (usize, u32), volume: &Volume, rng: &mut Rng) -> bool {
    // Its base may be a checkpoint that was damaged on purpose: the parent makes the region again for itself alone.
    let has_reason = |error: &Error| {
        matches!(error, Error::Corrupt { .. } | Error::Missing { .. })
            && lock(&scene.world.cloud).deeds().damaged > 0
    };
    let Some(seen) = read_whole_unless(scene, volume, rng, has_reason).await else { return false };
    let mut clones = lock(&scene.clones);
    let record = &mut clones[at];
    if record.session != id {
        return false;
    }
    for (sector, (value, may)) in seen.iter().zip(&mut record.may).enumerate() {
        if !may.contains(value) {
            let what = format!(
                "clone {} of number {} shows {value:?} in sector {sector}, which may hold {may:?}",
                record.nth, record.pin.as_of
            );
            scene.stage().accuse(Violation::new(1, what));
            return false;
        }
        *may = BTreeSet::from([*value]);
    }
    lock(&scene.world.cloud).deeds().clones_read += 1;
    true
}

/// One write of the clone's only client, and mostly a flush.
async fn write(
    scene: &Arc<Scene>,
    (at, id): (usize, u32),
    volume: &Volume,
    rng: &mut Rng,
) -> Result<(), Error> {
    let there = scene.sectors_of(volume.size_bytes());
    if there == 0 {
        return Ok(());
    }
    let count = u32::try_from(rng.spread(1, u64::from(there.min(24)))).expect("small");
    let first = u32::try_from(rng.between(0, u64::from(there - count))).expect("small");
    let write = scene.next_write();
    let sectors = first as usize..(first + count) as usize;
    lock(&scene.clones)[at].may[sectors.clone()].iter_mut().for_each(|may| {
        may.insert(Value::Write(write));
    });
    let data = Bytes::from(sector::fill(first, count, write));
    let flush = rng.chance(600);
    let asked = async {
        volume.write(scene.offset_bytes(first), data, false).await?;
        if flush { volume.flush().await } else { Ok(()) }
    };
    match timeout(PATIENCE, asked).await {
        Err(_) => Err(Error::Closed { volume: "clone".into() }),
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) => {
            let mut clones = lock(&scene.clones);
            if flush && clones[at].session == id {
                for may in &mut clones[at].may[sectors] {
                    *may = BTreeSet::from([Value::Write(write)]);
                }
            }
            Ok(())
        }
    }
}

/// Flattens a clone, and has its parent give up what it keeps, if it is open.
async fn cut(scene: &Arc<Scene>, process: &Process, at: usize, rng: &mut Rng) {
    let id = scene.next_process();
    let link = link(scene, id);
    let nth = lock(&scene.clones)[at].nth;
    lock(&scene.clones)[at].session = id;
    let Ok(volume) = Volume::open(place(scene, &link, at), scene.open_options(id)).await else { return };
    let patience = if rng.chance(300) { Duration::from_millis(rng.spread(1, 5000)) } else { PATIENCE };
    let flattened = timeout(patience, volume.flatten(&|_| {})).await;
    scene.stage().event(format_args!(
        "clone {nth} flattened: {:?}",
        flattened.as_ref().map(|done| done.as_ref().map(|done| done.moved_bytes).map_err(words))
    ));
    compare(scene, (at, id), &volume, rng).await;
    link.set_gate(Gate::Dead);
    if let Ok(Ok(_)) = flattened {
        lock(&scene.world.cloud).deeds().clones_flattened += 1;
        release(scene, process, at).await;
    }
}

/// Removes a clone.
async fn leave(scene: &Arc<Scene>, process: &Process, at: usize) {
    let id = scene.next_process();
    let link = link(scene, id);
    let options = RemoveOptions {
        if_free: None,
        environment: scene.open_options(id).environment,
        ..RemoveOptions::default()
    };
    lock(&scene.clones)[at].leaving = true;
    let bucket = place(scene, &link, at);
    let released = async |_: &lsvd_volume::Parent, _: VolumeId| {
        release(scene, process, at).await;
        Ok::<_, Error>(())
    };
    let removed = timeout(PATIENCE, remove_clone(&bucket, &options, |_| {}, released)).await;
    let nth = lock(&scene.clones)[at].nth;
    scene.stage().event(format_args!("clone {nth} removed: {}", matches!(removed, Ok(Ok(_)))));
}

/// Has the parent give up what it keeps for a clone, if it is open: it decides whether that may be.
async fn release(scene: &Arc<Scene>, process: &Process, at: usize) {
    let Some(parent) = process.volume() else { return };
    let name = lock(&scene.clones)[at].pin.name.clone();
    lock(&scene.world.cloud).may_forget(&name);
    let released = timeout(PATIENCE, parent.remove_snapshot(&name)).await;
    scene.stage().event(format_args!("{name} given up: {}", matches!(released, Ok(Ok(())))));
}

/// Opens all clones that there are, when nothing stands in the way. Who keeps a clone's moment keeps all that it needs.
pub(crate) async fn read_all(scene: &Arc<Scene>, rng: &mut Rng) {
    // Nobody else opens one any more; what was sent may still land.
    lock(&scene.players).iter().for_each(|link| link.set_gate(Gate::Dead));
    let damaged = lock(&scene.world.cloud).deeds().damaged > 0;
    let count = lock(&scene.clones).len();
    for at in 0..count {
        let record = lock(&scene.clones)[at].clone();
        if !record.made || record.leaving {
            continue;
        }
        let mut why = None;
        for _ in 0..TRIES {
            why = match timeout(PATIENCE, play_once(scene, at, rng, true)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(words(&error)),
                Err(_) => Some("it hangs".to_owned()),
            };
            if why.is_none() || scene.stage().accused().is_some() {
                break;
            }
        }
        // A checkpoint that was damaged on purpose may be its base.
        if let Some(why) = why.filter(|_| !damaged) {
            let what = format!("clone {} can not be read in calm weather: {why}", record.nth);
            scene.stage().accuse(Violation::new(7, what));
        }
    }
}

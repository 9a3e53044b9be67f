//! Whoever makes and removes snapshots of an open volume while clients use it, and readers that open what is pinned.
//!
//! For the judge a snapshot that was made is a reader's sighting of its writer: what its object of the log was the last one of,
//! by the bytes of the log alone (`chronicle`), with all that had completed before it was asked for. Whoever opens the snapshot later,
//! after whatever take-overs, deletions and rollbacks, has to find the same. Knows the volume's public face only.

use std::sync::Arc;
use std::time::Duration;

use lsvd_format::superblock::Snapshot;
use lsvd_volume::{Error, Moment, Volume};
use tokio::time::{sleep, timeout};

use crate::client::{Client, read_whole};
use crate::history::{Outcome, Request, Sighting};
use crate::link::{Gate, Rights};
use crate::oracle::Violation;
use crate::rng::Rng;
use crate::scene::{Scene, words};
use crate::sector::Value;
use crate::stage::lock;

/// Virtual time within which a moment is read in calm weather.
const READING_MAX: Duration = Duration::from_secs(1200);

impl Client {
    /// Makes and removes snapshots now and then, until it was enough or the volume is gone.
    pub(crate) async fn keep_moments(mut self) {
        for nth in 0..self.rng.between(1, 8) {
            sleep(Duration::from_millis(self.rng.spread(1, 3000))).await;
            let ended = match self.rng.between(0, 99) {
                0..=59 => self.make_snapshot(nth).await,
                60..=84 => self.remove_snapshot().await,
                _ => {
                    let history_ms = self.rng.pick(&[0, 0, 100, 10_000, 600_000]);
                    self.scene.stage().event(format_args!("{} keeps {history_ms} ms", self.name));
                    self.volume.set_history(history_ms).await
                }
            };
            if self.link.gate() == Gate::Dead {
                return std::future::pending().await;
            }
            if let Err(error) = &ended {
                self.scene.stage().event(format_args!("{} is told: {}", self.name, words(error)));
                self.scene.check_error(&self.name, error);
            }
            if let Err(Error::Fenced { .. } | Error::Closed { .. } | Error::Journal { .. }) = ended {
                break;
            }
        }
    }

    async fn make_snapshot(&self, nth: u64) -> Result<(), Error> {
        let name = format!("{}n{nth}", self.name);
        // All that has completed is in the store, and in the snapshot, when this is answered.
        let op = self.submit(Request::Stored);
        let made = self.volume.create_snapshot(&name, false).await;
        if self.link.gate() == Gate::Dead {
            return std::future::pending().await;
        }
        let until = self.scene.tick();
        let from = {
            let mut history = lock(&self.scene.history);
            let op = &mut history.generations[self.generation].ops[op];
            op.outcome = if made.is_ok() { Outcome::Done(until) } else { Outcome::Failed(until) };
            op.submit
        };
        let Snapshot { as_of, .. } = made?;
        self.scene.stage().event(format_args!("{} @{until} has made {name} of number {as_of}", self.name));
        lock(&self.scene.world.cloud).deeds().snapshots += 1;
        if let Some(values) = self.scene.content(as_of, self.scene.sectors()) {
            let sighting = Sighting { from, until, values, completed: true };
            lock(&self.scene.history).generations[self.generation].sightings.push(sighting);
        }
        Ok(())
    }

    async fn remove_snapshot(&mut self) -> Result<(), Error> {
        let known = self.volume.snapshots().await?;
        if known.is_empty() {
            return Ok(());
        }
        let nth = usize::try_from(self.rng.between(0, known.len() as u64 - 1)).expect("an index fits");
        if known[nth].clone.is_some() {
            return Ok(()); // its clone's player does
        }
        let name = &known[nth].name;
        self.scene.stage().event(format_args!("{} removes {name}", self.name));
        lock(&self.scene.world.cloud).may_forget(name);
        match self.volume.remove_snapshot(name).await {
            Ok(()) => lock(&self.scene.world.cloud).deeds().removed_snapshots += 1,
            // An answer that got lost, or somebody else's deed.
            Err(Error::NoMoment { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The snapshots that the version that counts has.
fn snapshots(scene: &Scene) -> Vec<Snapshot> {
    let cloud = lock(&scene.world.cloud);
    cloud.ledger().newest().map(|newest| newest.moments.snapshots.clone()).unwrap_or_default()
}

/// Opens some moment, in whatever weather there is.
pub(crate) async fn look_back(scene: Arc<Scene>, mut rng: Rng) {
    let known = snapshots(&scene);
    if !known.is_empty() && rng.chance(700) {
        let nth = usize::try_from(rng.between(0, known.len() as u64 - 1)).expect("an index fits");
        read_snapshot(&scene, &known[nth], &mut rng, false).await;
        return;
    }
    let number = {
        let mut cloud = lock(&scene.world.cloud);
        cloud.chronicle().and_then(|(chronicle, _)| chronicle.some_number(rng.bits()))
    };
    if let Some(number) = number {
        // It is within reach or not; if it is, it is what it was.
        let _ = read_moment(&scene, &Moment::Number(number), number, &mut rng).await;
    }
}

/// Opens all snapshots that there are, when nothing stands in the way.
pub(crate) async fn read_all(scene: &Arc<Scene>, rng: &mut Rng) {
    for snapshot in snapshots(scene) {
        let read = read_snapshot(scene, &snapshot, rng, true);
        if timeout(READING_MAX, read).await.is_err() {
            let what = format!("snapshot {} is not read to its end in calm weather", snapshot.name);
            scene.stage().accuse(Violation::new(10, what));
        }
    }
}

async fn read_snapshot(scene: &Arc<Scene>, snapshot: &Snapshot, rng: &mut Rng, calm: bool) {
    let moment = Moment::Snapshot(snapshot.name.clone());
    let read = read_moment(scene, &moment, snapshot.as_of, rng).await;
    let is_there = snapshots(scene).contains(snapshot);
    let damaged = snapshot.base.is_some_and(|base| lock(&scene.world.cloud).is_damaged(base.part));
    if !is_there || damaged {
        return; // nobody holds it any more, or nobody can
    }
    match read {
        Ok(Some(size_bytes)) if size_bytes != snapshot.size_bytes => {
            let what = format!("{moment} has {size_bytes} bytes instead of {}", snapshot.size_bytes);
            scene.stage().accuse(Violation::new(8, what));
        }
        Ok(Some(_)) => {}
        Ok(None) if !calm => {}
        Ok(None) => {
            let what = format!("{moment} was opened and can not be read");
            scene.stage().accuse(Violation::new(7, what));
        }
        Err(error) if calm || matches!(error, Error::NoMoment { .. }) && !scene.may_be_damaged() => {
            let what = format!("{moment} is kept and can not be opened: {}", words(&error));
            scene.stage().accuse(Violation::new(7, what));
        }
        Err(_) => {}
    }
}

/// Opens a moment and compares what it shows with the log; gives its size, or nothing if not all of it could be read.
async fn read_moment(
    scene: &Arc<Scene>,
    moment: &Moment,
    as_of: lsvd_format::SequenceNumber,
    rng: &mut Rng,
) -> Result<Option<u64>, Error> {
    let id = scene.next_process();
    let link = scene.link(id, Rights { write: false, abandon: false });
    scene.stage().event(format_args!("p{id} opens {moment}"));
    let opened = Volume::open_read_only_at(scene.bucket(&link, id), moment, scene.open_options(id)).await;
    let volume = opened.inspect_err(|error| {
        scene.stage().event(format_args!("p{id} can not open {moment}: {}", words(error)));
        if !matches!(error, Error::NoMoment { .. }) {
            scene.check_error("an opening of a moment", error);
        }
    })?;
    for _ in 0..rng.between(1, 3) {
        let Some(seen) = read_whole(scene, &volume, rng).await else { return Ok(None) };
        let size_bytes = volume.size_bytes();
        let Some(expected) = scene.content(as_of, scene.sectors_of(size_bytes)) else { return Ok(None) };
        if let Some(at) = (0..seen.len()).find(|at| seen[*at] != expected[*at]) {
            let what =
                format!("{moment} shows {:?} in sector {at}, and the log says {:?}", seen[at], expected[at]);
            scene.stage().accuse(Violation::new(1, what));
            return Ok(None);
        }
        lock(&scene.world.cloud).deeds().moments_read += 1;
        sleep(Duration::from_millis(rng.spread(1, 20_000))).await;
    }
    Ok(Some(volume.size_bytes()))
}

impl Scene {
    /// What the log says that the volume held when this number was its last one, as far as it was so large.
    pub(crate) fn content(&self, as_of: lsvd_format::SequenceNumber, there: u32) -> Option<Vec<Value>> {
        let state = {
            let mut cloud = lock(&self.world.cloud);
            let (chronicle, newest) = cloud.chronicle()?;
            chronicle.state(newest, as_of)
        };
        match state.and_then(|state| state.values(self.first_block(), self.sectors(), there)) {
            Ok(values) => Some(values),
            Err(why) => {
                self.stage().accuse(Violation::new(3, format!("number {as_of} can not be told: {why}")));
                None
            }
        }
    }
}

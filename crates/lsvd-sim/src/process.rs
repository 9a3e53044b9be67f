//! A daemon: opens the volume, reads what it finds, lets its clients loose, and may die or stall at any moment.
//!
//! Knows nothing of other processes: they meet in the store only. A process's death is sudden: its tasks are dropped
//! and nothing more leaves it, but what it had sent may still land.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use lsvd_volume::{Error, OpenOptions, Volume};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::ambush::Ambush;
use crate::client::{Client, read_whole};
use crate::history::{Generation, Op, Outcome, Request, Sighting};
use crate::host::Host;
use crate::link::{Gate, Link, Rights};
use crate::oracle::Violation;
use crate::rng::Rng;
use crate::scene::{Scene, words};
use crate::sector::Value;
use crate::stage::lock;

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Takes the volume over and reads what it holds.
    Opening,
    /// Its clients are at work.
    Serving,
    /// Its clients have done what they wanted; the volume is open.
    Idle,
    /// Could not open, or was closed or killed.
    Ended,
}

/// With what a process is started.
#[derive(Clone, Default)]
pub(crate) struct Role {
    /// Its journal is on this host; without one it has none.
    pub(crate) host: Option<Arc<Host>>,
    /// It may give up a journal that it needs and has not.
    pub(crate) abandon: bool,
}

/// A process that opens the volume for writing.
pub(crate) struct Process {
    scene: Arc<Scene>,
    pub(crate) id: u32,
    pub(crate) role: Role,
    link: Link,
    phase: watch::Sender<Phase>,
    tasks: Mutex<Vec<AbortHandle>>,
    /// The volume once it is open, and its generation.
    open: Mutex<Option<(Volume, usize)>>,
    failure: Mutex<Option<Error>>,
}

impl Process {
    /// Starts a process.
    pub(crate) fn start(scene: &Arc<Scene>, role: Role) -> Arc<Self> {
        let id = scene.next_process();
        let process = Arc::new(Self {
            link: scene.link(id, Rights { write: true, abandon: role.abandon }),
            role,
            scene: Arc::clone(scene),
            id,
            phase: watch::Sender::new(Phase::Opening),
            tasks: Mutex::new(Vec::new()),
            open: Mutex::new(None),
            failure: Mutex::new(None),
        });
        let ssd = process.role.host.as_ref().map(|host| host.ssd());
        process.say(&format!("starts, journal on {ssd:?}, may give one up: {}", process.role.abandon));
        let watched = Arc::clone(&process);
        // Whatever kills it: the power of its host, or an ambush.
        tokio::spawn(async move {
            watched.link.dead().await;
            watched.kill();
        });
        let main = Arc::clone(&process).main();
        process.spawn(main);
        process
    }

    fn say(&self, what: &str) {
        self.scene.stage().event(format_args!("p{} {what}", self.id));
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        let task = tokio::spawn(task);
        lock(&self.tasks).push(task.abort_handle());
        task
    }

    /// How far it is.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until it is at least so far.
    pub(crate) async fn reach(&self, phase: Phase) {
        let mut now = self.phase.subscribe();
        let reached = now.wait_for(|now| *now >= phase).await;
        debug_assert!(reached.is_ok(), "the process holds the other end");
    }

    /// Why it could not open the volume, if that is so.
    pub(crate) fn failure(&self) -> Option<Error> {
        lock(&self.failure).clone()
    }

    /// Its volume, if it is open.
    pub(crate) fn volume(&self) -> Option<Volume> {
        lock(&self.open).as_ref().map(|(volume, _)| volume.clone())
    }

    /// Lies in wait for it, or does not any more.
    pub(crate) fn set_ambush(&self, ambush: Option<Ambush>) {
        self.link.set_ambush(ambush);
    }

    /// Dies here and now.
    pub(crate) fn kill(&self) {
        if self.phase() != Phase::Ended {
            self.say("dies");
        }
        self.link.set_gate(Gate::Dead);
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
        lock(&self.open).take();
        self.phase.send_replace(Phase::Ended);
    }

    /// Stalls or wakes.
    pub(crate) fn set_stalled(&self, stalled: bool) {
        self.say(if stalled { "stalls" } else { "wakes" });
        self.link.set_gate(if stalled { Gate::Stalled } else { Gate::Open });
    }

    /// Whether it stalls.
    pub(crate) fn is_stalled(&self) -> bool {
        self.link.gate() == Gate::Stalled
    }

    /// After a while the newest checkpoint's root is damaged in the store, whoever is at work.
    pub(crate) fn damage_checkpoint(&self, rng: &mut Rng) {
        let (after, salt) = (Duration::from_millis(rng.spread(1, 3000)), rng.bits());
        let cloud = Arc::clone(&self.scene.world.cloud);
        tokio::spawn(async move {
            sleep(after).await;
            lock(&cloud).damage_checkpoint(false, salt);
        });
    }

    /// Counts again what is live in the process's memory (rule 7).
    pub(crate) fn audit(&self) {
        let Some(volume) = self.volume() else { return };
        match volume.audit() {
            Ok(absent) => lock(&self.scene.world.cloud).deeds().absent_regions += absent,
            Err(what) => self.scene.stage().accuse(Violation::new(7, format!("p{}: {what}", self.id))),
        }
    }

    /// Closes the volume cleanly, in the background, whatever its clients do.
    pub(crate) fn close(self: &Arc<Self>) {
        let Some((volume, generation)) = lock(&self.open).clone() else { return };
        let process = Arc::clone(self);
        self.spawn(async move {
            let scene = &process.scene;
            let submit = scene.tick();
            process.say("closes");
            let closed = volume.close().await;
            let tick = scene.tick();
            let told = closed.as_ref().map_err(words);
            scene.stage().event(format_args!("p{} @{tick} closed: {told:?}", process.id));
            let outcome = if closed.is_ok() { Outcome::Done(tick) } else { Outcome::Failed(tick) };
            let op = Op { request: Request::Stored, submit, outcome };
            lock(&scene.history).generations[generation].ops.push(op);
        });
    }

    async fn main(self: Arc<Self>) {
        let scene = &self.scene;
        let bucket = scene.bucket(&self.link, self.id);
        let journal = self.role.host.as_ref().map(|host| scene.journal(host, &self.link));
        let abandon_journal = self.role.abandon;
        let options = OpenOptions { journal, abandon_journal, ..scene.open_options(self.id) };
        let falls_back = lock(&scene.world.cloud).is_newest_damaged();
        let volume = match Volume::open(bucket, options).await {
            Ok(volume) => volume,
            Err(_) if self.link.gate() == Gate::Dead => return,
            Err(error) => {
                scene.stage().event(format_args!("p{} can not open: {}", self.id, words(&error)));
                scene.check_error("an opening", &error);
                lock(&self.failure).replace(error);
                self.phase.send_replace(Phase::Ended);
                return;
            }
        };
        lock(&scene.world.cloud).deeds().fallbacks += u64::from(falls_back);
        let opened = scene.tick();
        let description = volume.description().clone();
        scene.stage().event(format_args!("p{} @{opened} has opened: {description:?}", self.id));
        let generation = {
            let mut history = lock(&scene.history);
            let epoch = description.epoch.0;
            let journal = lock(&scene.world.cloud).ledger().journal_of(epoch);
            assert_eq!(journal.is_some(), self.role.host.is_some(), "the superblock names its journal");
            let replayed = description.recovery.journal_records > 0;
            history.generations.push(Generation {
                epoch,
                opened,
                journal,
                boot: self.role.host.as_ref().map(|host| host.boot()),
                replayed,
                ..Generation::default()
            });
            history.generations.len() - 1
        };
        lock(&self.open).replace((volume.clone(), generation));
        let Some(found) = self.sight(&volume, generation).await else {
            self.say("can not read what it opened");
            self.phase.send_replace(Phase::Ended);
            return;
        };
        lock(&scene.history).generations[generation].found = Some(found);
        self.phase.send_replace(Phase::Serving);
        let mut rng = scene.rng(20, u64::from(self.id));
        let clients = (0..rng.between(1, scene.settings.clients_max)).map(|i| Client {
            scene: Arc::clone(scene),
            volume: volume.clone(),
            link: self.link.clone(),
            name: format!("p{}c{i}", self.id),
            generation,
            rng: scene.rng(21, u64::from(self.id) << 8 | i),
        });
        let mut plot = scene.rng(32, 0);
        if plot.chance(500) && !scene.limits.leaves_out("resize") {
            let resizer = Client {
                scene: Arc::clone(scene),
                volume: volume.clone(),
                link: self.link.clone(),
                name: format!("p{}r", self.id),
                generation,
                rng: scene.rng(33, u64::from(self.id)),
            };
            self.spawn(resizer.resize_now_and_then());
        }
        if scene.rng(34, 0).chance(600) && !scene.limits.leaves_out("snapshot") {
            let keeper = Client {
                scene: Arc::clone(scene),
                volume: volume.clone(),
                link: self.link.clone(),
                name: format!("p{}s", self.id),
                generation,
                rng: scene.rng(35, u64::from(self.id)),
            };
            self.spawn(keeper.keep_moments());
        }
        let tasks: Vec<_> = clients.map(|client| self.spawn(client.run())).collect();
        join_all(tasks).await;
        self.phase.send_replace(Phase::Idle);
    }

    /// All sectors as this opening found them: read by itself, or by a reader beside it.
    async fn sight(&self, volume: &Volume, generation: usize) -> Option<Vec<Value>> {
        let mut rng = self.scene.rng(22, u64::from(self.id));
        // A reader sees the store alone.
        if rng.chance(250) && self.role.host.is_none() {
            // Only as long as nobody newer lets clients write, it finds the same as this one.
            match look_once(&self.scene).await {
                Some((newest, sighting)) if newest == Some(generation) => return Some(sighting.values),
                _ => {}
            }
        }
        let found = read_whole(&self.scene, volume, &mut rng).await;
        lock(&self.scene.world.cloud).deeds().mended += volume.stats().mended_regions;
        found
    }
}

/// The generation with the highest epoch so far.
fn newest(scene: &Scene) -> Option<usize> {
    scene.note_turns();
    let history = lock(&scene.history);
    (0..history.generations.len()).max_by_key(|i| history.generations[*i].epoch)
}

/// Opens the volume read-only and reads all of it; with the generation that was the newest when it had opened.
async fn look_once(scene: &Arc<Scene>) -> Option<(Option<usize>, Sighting)> {
    let id = scene.next_process();
    let link = scene.link(id, Rights { write: false, abandon: false });
    let from = scene.tick();
    scene.stage().event(format_args!("p{id} @{from} opens read-only"));
    let damage = scene.may_be_damaged();
    let opened = Volume::open_read_only(scene.bucket(&link, id), scene.open_options(id)).await;
    let until = scene.tick();
    let newest = newest(scene);
    let volume = match opened {
        Ok(volume) => volume,
        Err(error) => {
            scene.stage().event(format_args!("p{id} can not open read-only: {}", words(&error)));
            scene.check_error("a read-only opening", &error);
            return None;
        }
    };
    scene.stage().event(format_args!("p{id} @{until} has opened read-only"));
    let mut rng = scene.rng(23, u64::from(id));
    let values = read_whole(scene, &volume, &mut rng).await?;
    if volume.stats().reloads == 0 {
        linger(scene, (id, &volume), &values, &mut rng).await?;
    }
    let reloads = volume.stats().reloads;
    lock(&scene.world.cloud).deeds().reloads += reloads;
    lock(&scene.world.cloud).deeds().mended += volume.stats().mended_regions;
    if reloads > 0 {
        // It was behind, and went on as of a later moment: what it read is of two.
        return None;
    }
    if damage {
        // What is whole of a damaged log is what a read-only opening promises: it may end anywhere.
        return None;
    }
    Some((newest, Sighting { from, until, values, completed: false }))
}

/// A reader that stays for a while shows the same as before, until it is so far behind that it goes on as of another moment.
async fn linger(
    scene: &Arc<Scene>,
    (id, volume): (u32, &Volume),
    values: &[Value],
    rng: &mut Rng,
) -> Option<()> {
    for _ in 0..rng.between(0, 4) {
        sleep(Duration::from_millis(rng.spread(10, 20_000))).await;
        let again = read_whole(scene, volume, rng).await?;
        if volume.stats().reloads > 0 {
            break;
        }
        if again != values {
            let what = format!(
                "p{id} reads another volume than before, though it did not go on as of another moment"
            );
            scene.stage().accuse(Violation::new(7, what));
            return None;
        }
    }
    Some(())
}

/// A read-only opening beside whoever writes; kept for the judge if the same writer was the newest all the time.
pub(crate) async fn look(scene: Arc<Scene>) {
    let before = newest(&scene);
    if let Some((after, sighting)) = look_once(&scene).await
        && let Some(generation) = before.filter(|_| before == after)
        // What is there since is another volume.
        && !lock(&scene.world.cloud).is_removed()
    {
        lock(&scene.history).generations[generation].sightings.push(sighting);
    }
}

//! The plot of one run: who opens the volume when, who dies, who stalls and wakes, and how it ends.
//!
//! Knows processes and the weather; the judging is the oracle's.

use std::sync::Arc;
use std::time::Duration;

use lsvd_format::names;
use lsvd_volume::Error;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::ambush::Ambush;
use crate::cloner;
use crate::happenings::befall;
use crate::link::{Gate, Link, Rights};
use crate::oracle::Violation;
use crate::process::{Phase, Process, Role, look};
use crate::remover::remove_and_make_anew;
use crate::rng::Rng;
use crate::roller;
use crate::scene::{Scene, Settings, words};
use crate::snapshooter::{look_back, read_all};
use crate::stage::lock;
use crate::twin::compare;
use crate::weather::Weather;

/// Virtual time within which any opening ends in calm weather.
const OPENING_MAX: Duration = Duration::from_secs(600);

/// Plays a run to its end.
pub(crate) async fn play(scene: &Arc<Scene>) {
    let mut rng = scene.rng(30, 0);
    if !create(scene).await {
        return;
    }
    let mut cast: Vec<Arc<Process>> = Vec::new();
    let mut moments = scene.rng(36, 0);
    let mut rollers: Vec<Link> = Vec::new();
    let mut clones = scene.rng(38, 0);
    let clones_rate = if clones.chance(400) { 700 } else { 0 };
    let mut players: Vec<AbortHandle> = Vec::new();
    for _ in 0..scene.settings.takeovers {
        if scene.stage().accused().is_some() {
            return;
        }
        take_over(scene, &mut rng, &mut cast).await;
        cast.iter().for_each(|process| process.audit());
        if cast.len().is_multiple_of(3) {
            let scene = Arc::clone(scene);
            tokio::spawn(async move { compare(&scene).await });
        }
        if moments.chance(400) && !scene.limits.leaves_out("snapshot") {
            let after = Duration::from_millis(moments.spread(1, 5000));
            let (scene, rng) = (Arc::clone(scene), Rng::new(moments.bits(), 1));
            tokio::spawn(async move {
                sleep(after).await;
                look_back(scene, rng).await;
            });
        }
        if moments.chance(250) && !scene.limits.leaves_out("rollback") {
            let (after, draws) = (Duration::from_millis(moments.spread(1, 5000)), moments.bits());
            let link = roller::link(scene, &mut moments);
            rollers.push(link.clone());
            let scene = Arc::clone(scene);
            tokio::spawn(async move {
                sleep(after).await;
                roller::roll_back(scene, link, Rng::new(draws, 1)).await;
            });
        }
        if clones.chance(clones_rate) && !scene.limits.leaves_out("clone") {
            let (after, draws) = (Duration::from_millis(clones.spread(1, 2000)), clones.bits());
            if let Some(process) = cast.last().cloned() {
                let (scene, nth) = (Arc::clone(scene), players.len() + 1);
                let player = tokio::spawn(async move {
                    sleep(after).await;
                    cloner::clone_and_play(scene, process, nth, Rng::new(draws, 1)).await;
                });
                players.push(player.abort_handle());
            }
        }
        happenings(scene, &mut rng, &cast);
    }
    finish(scene, &mut rng, (&cast, &rollers)).await;
    players.iter().for_each(AbortHandle::abort);
    cloner::read_all(scene, &mut scene.rng(39, 0)).await;
}

/// Creates the volume, in whatever weather there is.
async fn create(scene: &Arc<Scene>) -> bool {
    for _ in 0..20 {
        let id = scene.next_process();
        let link = scene.link(id, Rights { write: true, abandon: false });
        match lsvd_volume::create(&scene.bucket(&link, id), &scene.create_options(id)).await {
            Ok(_) | Err(Error::Exists { .. }) => return true,
            Err(error) => scene.stage().event(format_args!("p{id} can not create: {error}")),
        }
        sleep(Duration::from_secs(5)).await;
    }
    // Nobody could make a volume in this weather: nothing can be lost.
    false
}

/// One or two newcomers open the volume; some do not live to see it open.
async fn take_over(scene: &Arc<Scene>, rng: &mut Rng, cast: &mut Vec<Arc<Process>>) {
    let limits = &scene.limits;
    let newcomers = if rng.chance(250) && !limits.leaves_out("second") { 2 } else { 1 };
    for _ in 0..newcomers {
        let role = role(scene, rng, cast);
        let process = Process::start(scene, role);
        let (ambushed, ambush) = (rng.chance(250), Ambush::draw(rng));
        if ambushed && !limits.leaves_out("ambush") {
            process.set_ambush(Some(ambush));
        }
        if rng.chance(150) && !limits.leaves_out("doom") {
            let doomed = Arc::clone(&process);
            let after = Duration::from_millis(rng.spread(1, 500));
            tokio::spawn(async move {
                sleep(after).await;
                doomed.kill();
            });
        }
        cast.push(process);
        if rng.chance(500) {
            sleep(Duration::from_millis(rng.spread(1, 2000))).await;
        }
    }
    if rng.chance(400) && !limits.leaves_out("look") {
        let after = Duration::from_millis(rng.spread(1, 3000));
        let scene = Arc::clone(scene);
        tokio::spawn(async move {
            sleep(after).await;
            look(scene).await;
        });
    }
    let patience = Duration::from_millis(rng.spread(100, 60_000));
    let newest = cast.last().expect("somebody has just come");
    let _ = timeout(patience, newest.reach(Phase::Serving)).await;
    if let Some(Error::JournalNeeded { .. }) = newest.failure() {
        // It is given up, or whoever has it comes back.
        let role =
            if rng.chance(600) { Role { abandon: true, ..newest.role.clone() } } else { at_home(scene) };
        let process = Process::start(scene, role);
        let _ = timeout(patience, process.reach(Phase::Serving)).await;
        cast.push(process);
    }
    let newest = cast.last().expect("somebody has just come");
    // Mostly in the middle of the work, now and then after it.
    if rng.chance(800) {
        sleep(Duration::from_millis(rng.spread(5, 4000))).await;
    } else {
        let _ = timeout(Duration::from_secs(120), newest.reach(Phase::Idle)).await;
    }
}

/// With or without a journal, and where: mostly on the host of the one before, which is mostly stopped first.
fn role(scene: &Scene, rng: &mut Rng, cast: &[Arc<Process>]) -> Role {
    let Settings { hosts, journals, .. } = scene.settings;
    if hosts == 0 || !rng.chance(journals) {
        return Role { host: None, abandon: rng.chance(if hosts > 0 { 50 } else { 0 }) };
    }
    let before = cast.iter().rev().find_map(|process| process.role.host.clone());
    let other = Arc::clone(&scene.hosts[usize::try_from(rng.between(0, hosts - 1)).expect("few")]);
    let host = before.filter(|_| rng.chance(700)).unwrap_or(other);
    if let Some(holder) = host.holder().filter(|_| rng.chance(850)) {
        holder.set_gate(Gate::Dead);
    }
    Role { host: Some(host), abandon: rng.chance(50) }
}

/// Where the journal in use lies; anywhere if nobody knows.
fn at_home(scene: &Scene) -> Role {
    let home = lock(&scene.world.cloud).ledger().in_use().flatten();
    let host = scene.hosts.iter().find(|host| home == Some(host.ssd()));
    Role { host: host.or(scene.hosts.first()).cloned(), abandon: false }
}

/// Something befalls each process, or nothing: then the next one takes over from a living one.
fn happenings(scene: &Scene, rng: &mut Rng, cast: &[Arc<Process>]) {
    for process in cast.iter().filter(|process| process.phase() != Phase::Ended) {
        if !process.is_stalled() {
            befall(scene, process, rng);
        } else if rng.chance(300) {
            process.set_stalled(false);
        }
    }
}

/// The weather clears, everybody wakes; whoever still holds the volume must serve it; then all die, and the volume
/// must open and be what it was promised to be, twice.
async fn finish(scene: &Arc<Scene>, rng: &mut Rng, (cast, rollers): (&[Arc<Process>], &[Link])) {
    sleep(Duration::from_millis(rng.spread(1, 20_000))).await;
    *lock(&scene.world.weather) = Weather::calm();
    scene.hosts.iter().for_each(|host| host.calm());
    scene.stage().event(format_args!("the weather clears"));
    cast.iter().for_each(|process| process.set_ambush(None));
    cast.iter().filter(|process| process.is_stalled()).for_each(|process| process.set_stalled(false));
    for process in cast {
        let _ = timeout(Duration::from_secs(300), process.reach(Phase::Idle)).await;
        if rng.chance(500) {
            serves_again(scene, process).await;
        }
    }
    let mut damage = scene.rng(31, 0);
    rollers.iter().for_each(|link| link.set_gate(Gate::Dead));
    for _ in 0..2 {
        cast.iter().for_each(|process| process.audit());
        cast.iter().for_each(|process| process.kill());
        if damage.chance(500) && !scene.limits.leaves_out("rot") {
            let (regions, salt) = (damage.chance(500), damage.bits());
            while regions && lock(&scene.world.cloud).is_version_in_flight() {
                sleep(Duration::from_secs(1)).await;
            }
            lock(&scene.world.cloud).damage_checkpoint(regions, salt);
            if lock(&scene.world.cloud).is_rotten() {
                look(Arc::clone(scene)).await;
            }
        }
        for host in &scene.hosts {
            if rng.chance(500) && !scene.limits.leaves_out("power") {
                host.lose_power();
            }
        }
        let Some(last) = open_in_calm(scene, rng).await else { return };
        if rng.chance(200) {
            let _ = timeout(Duration::from_secs(300), last.reach(Phase::Idle)).await;
            last.close();
            sleep(Duration::from_secs(10)).await;
        }
        last.audit();
        last.kill();
    }
    compare(scene).await;
    read_all(scene, &mut scene.rng(37, 0)).await;
    let mut removal = scene.rng(40, 0);
    if removal.chance(400) && !scene.limits.leaves_out("remove") {
        remove_and_make_anew(scene, &mut removal).await;
    }
    let (requests, log, archive) = {
        let cloud = lock(&scene.world.cloud);
        (cloud.requests(), cloud.count(names::LOG_FOLDER), cloud.count(names::ARCHIVE_FOLDER))
    };
    scene.stage().event(format_args!("{requests} requests, {log} log objects, {archive} in the archive"));
}

/// Rule 10: service resumes by itself when the store is back.
async fn serves_again(scene: &Arc<Scene>, process: &Process) {
    let Some(volume) = process.volume() else { return };
    let mut last = None;
    for _ in 0..4 {
        // Somebody who was to die early may do so late.
        if process.phase() == Phase::Ended {
            return;
        }
        match timeout(scene.patience(), volume.flush()).await {
            Ok(Ok(()) | Err(Error::Fenced { .. } | Error::Closed { .. })) => return,
            // It ended when its disk failed, and stays ended.
            Ok(Err(Error::Journal { .. })) => return,
            Ok(Err(error)) => last = Some(error),
            Err(_) => break,
        }
        sleep(Duration::from_secs(60)).await;
    }
    let why = last.map_or_else(|| "it hangs".to_owned(), |error| words(&error));
    let what = format!("p{} does not flush although the store has been back for long: {why}", process.id);
    scene.stage().accuse(Violation::new(10, what));
}

/// Opens the volume when nothing stands in the way; only a straggler of somebody dead can still come in between.
///
/// A journal that is in use and not lost is all that it takes; one that is lost has to be given up.
async fn open_in_calm(scene: &Arc<Scene>, rng: &mut Rng) -> Option<Arc<Process>> {
    let mut why = "it hangs".to_owned();
    for _ in 0..3 {
        let in_use = lock(&scene.world.cloud).ledger().in_use();
        let home = at_home(scene);
        let role = match in_use {
            None => role(scene, rng, &[]),
            Some(ssd) if ssd.is_some() && ssd == home.host.as_ref().map(|host| host.ssd()) => home,
            Some(_) => Role { abandon: true, ..role(scene, rng, &[]) },
        };
        let process = Process::start(scene, role);
        let opened = timeout(OPENING_MAX, process.reach(Phase::Serving)).await;
        if opened.is_ok() && process.phase() != Phase::Ended {
            return Some(process);
        }
        match process.failure() {
            // Its host has the journal of an opening that was given up since: that is to be said twice.
            Some(Error::JournalPassedOver { .. }) => {
                process.kill();
                let role = Role { abandon: true, ..process.role.clone() };
                let process = Process::start(scene, role);
                let opened = timeout(OPENING_MAX, process.reach(Phase::Serving)).await;
                if opened.is_ok() && process.phase() != Phase::Ended {
                    return Some(process);
                }
            }
            Some(error) => why = words(&error),
            None => {}
        }
        process.kill();
    }
    scene.stage().accuse(Violation::new(1, format!("the volume can not be opened in calm weather: {why}")));
    None
}

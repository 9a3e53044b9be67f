//! The plot of one run: who opens the volume when, who dies, who stalls and wakes, and how it ends.
//!
//! Knows processes and the weather; the judging is the oracle's.

use std::sync::Arc;
use std::time::Duration;

use lsvd_format::names;
use lsvd_volume::Error;
use tokio::time::{sleep, timeout};

use crate::oracle::Violation;
use crate::process::{Phase, Process, look};
use crate::rng::Rng;
use crate::scene::Scene;
use crate::stage::lock;
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
    for _ in 0..scene.settings.takeovers {
        if scene.stage().accused().is_some() {
            return;
        }
        take_over(scene, &mut rng, &mut cast).await;
        happenings(&mut rng, &cast);
    }
    finish(scene, &mut rng, &cast).await;
}

/// Creates the volume, in whatever weather there is.
async fn create(scene: &Arc<Scene>) -> bool {
    for _ in 0..20 {
        let id = scene.next_process();
        let link = scene.link(id, true);
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
    let newcomers = if rng.chance(250) { 2 } else { 1 };
    for _ in 0..newcomers {
        let process = Process::start(scene);
        if rng.chance(200) {
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
    if rng.chance(400) {
        let after = Duration::from_millis(rng.spread(1, 3000));
        let scene = Arc::clone(scene);
        tokio::spawn(async move {
            sleep(after).await;
            look(scene).await;
        });
    }
    let newest = cast.last().expect("somebody has just come");
    let patience = Duration::from_millis(rng.spread(100, 60_000));
    let _ = timeout(patience, newest.reach(Phase::Serving)).await;
    // Mostly in the middle of the work, now and then after it.
    if rng.chance(800) {
        sleep(Duration::from_millis(rng.spread(5, 4000))).await;
    } else {
        let _ = timeout(Duration::from_secs(120), newest.reach(Phase::Idle)).await;
    }
}

/// Something befalls each process, or nothing: then the next one takes over from a living one.
fn happenings(rng: &mut Rng, cast: &[Arc<Process>]) {
    for process in cast.iter().filter(|process| process.phase() != Phase::Ended) {
        let what = rng.between(0, 99);
        if process.is_stalled() {
            if what < 30 {
                process.set_stalled(false);
            }
            continue;
        }
        match what {
            0..=29 => process.kill(),
            30..=54 => {
                process.set_stalled(true);
                if rng.chance(600) {
                    let (process, after) =
                        (Arc::clone(process), Duration::from_millis(rng.spread(100, 600_000)));
                    tokio::spawn(async move {
                        sleep(after).await;
                        process.set_stalled(false);
                    });
                }
            }
            55..=62 => process.close(),
            _ => {}
        }
    }
}

/// The weather clears, everybody wakes; whoever still holds the volume must serve it; then all die, and the volume
/// must open and be what it was promised to be, twice.
async fn finish(scene: &Arc<Scene>, rng: &mut Rng, cast: &[Arc<Process>]) {
    sleep(Duration::from_millis(rng.spread(1, 20_000))).await;
    *lock(&scene.world.weather) = Weather::calm();
    scene.stage().event(format_args!("the weather clears"));
    cast.iter().filter(|process| process.is_stalled()).for_each(|process| process.set_stalled(false));
    for process in cast {
        let _ = timeout(Duration::from_secs(300), process.reach(Phase::Idle)).await;
        if rng.chance(500) {
            serves_again(scene, process).await;
        }
    }
    for _ in 0..2 {
        cast.iter().for_each(|process| process.kill());
        let Some(last) = open_in_calm(scene).await else { return };
        last.kill();
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
        match timeout(scene.patience(), volume.flush()).await {
            Ok(Ok(()) | Err(Error::Fenced { .. } | Error::Closed { .. })) => return,
            Ok(Err(error)) => last = Some(error),
            Err(_) => break,
        }
        sleep(Duration::from_secs(60)).await;
    }
    let why = last.map_or_else(|| "it hangs".to_owned(), |error| error.to_string());
    let what = format!("p{} does not flush although the store has been back for long: {why}", process.id);
    scene.stage().accuse(Violation::new(10, what));
}

/// Opens the volume when nothing stands in the way; only a straggler of somebody dead can still come in between.
async fn open_in_calm(scene: &Arc<Scene>) -> Option<Arc<Process>> {
    let mut why = "it hangs".to_owned();
    for _ in 0..3 {
        let process = Process::start(scene);
        let opened = timeout(OPENING_MAX, process.reach(Phase::Serving)).await;
        if opened.is_ok() && process.phase() != Phase::Ended {
            return Some(process);
        }
        if let Some(error) = process.failure() {
            why = error.to_string();
        }
        process.kill();
    }
    scene.stage().accuse(Violation::new(1, format!("the volume can not be opened in calm weather: {why}")));
    None
}

//! A store that is away, throttles, loses answers and cuts them off, under load: nothing is lost, and service resumes
//! (rules 1, 2, 4 and 10).
//!
//! Runs on the lab store alone, which misbehaves on demand. Its line is slow enough that a writer without limit does
//! not fill the host's memory.

use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::super::case::{Needs, World};
use super::super::lab::Lab;
use super::Entry;
use super::takeover::Writer;
use crate::numbers::Numbers;
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    (
        "lab-outage",
        "20 s of resets and silence under load: nothing lost, service resumes (rules 1, 10)",
        Needs::Lab,
        outage,
    ),
    (
        "lab-throttling",
        "one request of five answered 503 under load: nothing lost (rules 1, 4)",
        Needs::Lab,
        throttling,
    ),
    (
        "lab-unreliable",
        "answers lost, late, cut off and refused, killed under load: a prefix (rules 1, 2, 4)",
        Needs::Lab,
        unreliable,
    ),
];

/// Kills of the daemon on an unreliable store.
const KILLS: u32 = 3;
const LONG_KILLS: u32 = 10;
/// How long the outage is; half of it resets, half silence.
const OUTAGE: Duration = Duration::from_secs(20);
/// The load goes on this long after the outage.
const AFTER_OUTAGE: Duration = Duration::from_secs(20);
/// From the end of an outage to the first PUT that gets through: the store is looked after every few seconds.
const RESUMED_LIMIT: Duration = Duration::from_secs(10);

/// A writer that ends by itself.
struct Load(JoinHandle<Result<shell::Output>>);

impl Load {
    fn start(world: &World, uri: &str, duration: Duration) -> Self {
        let mut command = world.script("ordered.py");
        command.args(["write", uri, "ordered.json", "--seconds", &duration.as_secs().to_string()]);
        let limit = duration + Duration::from_secs(150);
        Self(std::thread::spawn(move || shell::output_ok(&mut command, limit)))
    }

    /// Waits for its end; says the last wave that a flush covers. An error of the device is an error.
    fn end(self) -> Result<u64> {
        let output = self.0.join().map_err(|_| anyhow!("the writer's thread panicked"))??;
        let last = output.stdout.lines().last().unwrap_or_default();
        let said: Value = serde_json::from_str(last).with_context(|| format!("the writer said '{last}'"))?;
        ensure!(said["failure"].is_null(), "the writer's device failed: {}", said["failure"]);
        said["acknowledged"].as_u64().context("no flush was ever acknowledged: nothing was shown")
    }
}

/// 24 MiB a second up, some milliseconds away: the load's pace, and what its objects take of memory.
fn line(lab: &Lab) -> Result<()> {
    lab.set_line(&json!({ "latency": [{ "median_ms": 5, "p99_ms": 40 }], "up_bytes_per_s": 24 << 20 }))
}

fn outage(world: &World) -> Result<()> {
    let lab = world.store.borrow().lab()?;
    line(&lab)?;
    let mut daemon = world.create_and_serve("db1", "1G")?;
    let before = Duration::from_secs(5);
    let opened = lab.outcomes("PUT", "200")?;
    let load = Load::start(world, daemon.uri(), before + OUTAGE + AFTER_OUTAGE);
    sleep(before);
    ensure!(lab.outcomes("PUT", "200")? > opened, "nothing was stored before the outage");

    lab.misbehave(&json!({ "fault": "reset" }))?;
    // What was in the store's hands is stored yet.
    sleep(Duration::from_secs(1));
    let stored = lab.outcomes("PUT", "200")?;
    sleep(OUTAGE / 2 - Duration::from_secs(1));
    let resets = lab.strikes()?;
    lab.behave()?;
    lab.misbehave(&json!({ "fault": "hang" }))?;
    sleep(OUTAGE / 2);
    let hangs = lab.strikes()?;
    let stored_meanwhile = lab.outcomes("PUT", "200")? - stored;
    lab.behave()?;
    let over = Instant::now();
    ensure!(daemon.runs(), "the daemon did not survive the outage");

    let stored = lab.outcomes("PUT", "200")?;
    shell::wait_until("a PUT gets through after the outage", RESUMED_LIMIT, || {
        lab.outcomes("PUT", "200").is_ok_and(|now| now > stored)
    })?;
    let resumed = over.elapsed();
    let acknowledged = load.end().context("the load over the outage")?;
    let stored_after = lab.outcomes("PUT", "200")? - stored;
    let memory = daemon.memory_bytes_max().unwrap_or(0) >> 20;
    daemon.kill();
    let daemon = world.serve("db1")?;
    Writer::check(world, daemon.uri())?;
    println!(
        "  {resets:?} resets, {hangs:?} hangs, {stored_meanwhile} PUTs between the two; the first PUT {:.1} s after the \
         end, {stored_after} in all; acknowledged up to wave {acknowledged}; {memory} MiB of memory at most",
        resumed.as_secs_f64()
    );
    ensure!(stored_after > 10, "service did not resume: {stored_after} PUTs after the outage");
    ensure!(resets.iter().sum::<u64>() > 0 && hangs.iter().sum::<u64>() > 0, "nobody met the outage");
    daemon.close()
}

fn throttling(world: &World) -> Result<()> {
    let lab = world.store.borrow().lab()?;
    line(&lab)?;
    lab.misbehave(&json!({ "fault": "slow-down", "rate": 0.2 }))?;
    let daemon = world.create_and_serve("db1", "1G")?;
    let seconds = if world.long { 20 } else { 8 };
    let load = Load::start(world, daemon.uri(), Duration::from_secs(seconds));
    let acknowledged = load.end().context("the load on a store that throttles")?;
    daemon.kill();
    let daemon = world.serve("db1")?;
    Writer::check(world, daemon.uri())?;
    let (stored, refused) = (lab.outcomes("PUT", "200")?, lab.outcomes("PUT", "503")?);
    println!(
        "  {stored} PUTs stored, {refused} refused in {seconds} s; acknowledged up to wave {acknowledged}"
    );
    ensure!(refused > 3, "only {refused} PUTs were throttled");
    daemon.close()
}

fn unreliable(world: &World) -> Result<()> {
    let lab = world.store.borrow().lab()?;
    line(&lab)?;
    lab.misbehave(&json!([
        { "fault": "lose-answer", "verbs": ["PUT"], "rate": 0.1 },
        { "fault": "truncate", "rate": 0.1 },
        { "fault": "reset", "rate": 0.05 },
        { "fault": "slow-down", "rate": 0.05 },
    ]))?;
    world.create("db1", "1G")?;
    let mut chance = Numbers::new(world.seed);
    let mut acknowledged = 0;
    for round in 1..=if world.long { LONG_KILLS } else { KILLS } {
        let daemon = world.serve("db1").with_context(|| format!("round {round}"))?;
        if round > 1 {
            Writer::check(world, daemon.uri()).with_context(|| format!("round {round}"))?;
        }
        let writer = Writer::start(world, daemon.uri())?;
        sleep(Duration::from_millis(1_500 + chance.below(2_000)));
        // A PUT that is under way for longer than its daemon lives: it lands while or after another takes over.
        let ms = 300 + chance.below(3_000);
        lab.misbehave(&json!({ "fault": "hang", "verbs": ["PUT"], "key": "/log/", "count": 1, "ms": ms }))?;
        sleep(Duration::from_millis(300));
        daemon.kill();
        acknowledged = writer.end(Duration::from_secs(30))?.acknowledged;
    }
    let daemon = world.serve("db1")?;
    Writer::check(world, daemon.uri())?;
    ensure!(acknowledged > 0, "no flush was ever acknowledged: nothing was shown");
    let strikes = lab.strikes()?;
    println!("  struck {strikes:?} times by rule; acknowledged up to wave {acknowledged}");
    ensure!(strikes[..4].iter().all(|&strikes| strikes > 0), "a fault never struck: {strikes:?}");
    ensure!(strikes[4..].contains(&1), "no PUT outlived its daemon: {strikes:?}");
    daemon.close()
}

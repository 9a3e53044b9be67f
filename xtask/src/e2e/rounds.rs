//! Rounds of a crash case: serve, judge what is there, write, kill.
//!
//! Knows what happens to a daemon and when; what is lawful is the judge's matter (`crate::crash`). Invariants: 1. each
//! round's choices come from its own seed, so that a failing round can be chosen again; 2. a round that fails leaves its
//! history and what was found in the case's directory; 3. a volume is judged from the first byte that it got.

use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;

use super::case::World;
use super::daemon::{Daemon, Serve};
use crate::crash::client;
use crate::crash::history::{Answer, Kind, Op, SECTOR_BYTES, Value};
use crate::crash::judge::{Claim, judge};
use crate::crash::load::{Clock, Load, Shape};
use crate::numbers::Numbers;
use crate::shell;

/// Rounds of a case if nothing is said: what CI has time for, and as many as were recorded for docs/testing.md.
const USUAL_ROUNDS: u32 = 6;
const LONG_ROUNDS: u32 = 60;
/// A volume lives this many rounds; the next one begins without a checkpoint.
const ROUNDS_PER_VOLUME: u32 = 20;
/// Checkpoints and collection as often as they can be, and deletion soon after; and each daemon says what it did of that.
const UPKEEP: [&str; 10] = [
    "--checkpoint-interval",
    "1s",
    "--gc-target",
    "1.2",
    "--gc-waste-min",
    "256K",
    "--stats-interval",
    "200ms",
    "--log-format",
    "json",
];
/// What a daemon's patience with its store is, and on a server that syncs, whose disk others use; objects are deleted 100 ms
/// later than that.
const PATIENCE_MS: u64 = 2_000;
const PATIENCE_WITH_A_SERVER_MS: u64 = 6_000;
/// From a volume's first write until something of it is collected and something deleted: some seconds, on an idle machine.
const UPKEEP_LIMIT: Duration = Duration::from_secs(60);
const VOLUME_SIZE: &str = "16M";
const SECTORS: u32 = (16 << 20) / SECTOR_BYTES;
/// From a signal to the end: what is buffered is stored first.
const CLOSE_LIMIT: Duration = Duration::from_secs(90);
/// The exit code after a second signal.
const INTERRUPTED: i32 = 130;
/// What a process has that was asked to end before it could listen.
const TERMINATED: i32 = 128 + 15;

/// One connection, one request at a time: the order is total.
pub(super) const ONE_BY_ONE: Shape = Shape { connections: 1, depth: 1, trims: true, rate: 2_000 };
/// One connection, several requests in flight.
pub(super) const IN_FLIGHT: Shape = Shape { connections: 1, depth: 8, trims: true, rate: 2_000 };
/// Several writers on the same blocks.
pub(super) const SEVERAL: Shape = Shape { connections: 4, depth: 4, trims: true, rate: 2_000 };

const SHAPES: [Shape; 3] = [ONE_BY_ONE, IN_FLIGHT, SEVERAL];

/// What was done, for the record.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rounds: u32,
    shapes: [u32; 3],
    ends: [u32; 5],
    openings: u32,
    /// Rounds whose daemon had moved something before it ended, and bytes that it had moved.
    collected: (u32, u64),
    /// Rounds whose daemon had deleted something before it ended, and objects that it had deleted.
    deleted: (u32, u64),
    requests: u64,
    pub(super) flushes: u64,
    pub(super) fua: u64,
    required: u64,
    gone: u64,
    /// Judgements in which durable writes were gone, as they may where a journal was given up.
    pub(super) waived: u32,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rounds > 0 {
            let [one, in_flight, several] = self.shapes;
            let [kill, idle, closing, second, clean] = self.ends;
            write!(
                f,
                "{} rounds ({one} one by one, {in_flight} in flight, {several} several writers); killed {kill} under \
                 load, {idle} idle, {closing} closing, {second} by a second signal, {} while opening, closed {clean}; ",
                self.rounds, self.openings
            )?;
            write!(
                f,
                "{} MiB collected in {} of them, {} objects deleted in {}; ",
                self.collected.1 >> 20,
                self.collected.0,
                self.deleted.1,
                self.deleted.0
            )?;
        }
        write!(
            f,
            "{} requests, {} flushes and {} FUA acknowledged; {} writes had to be there, {} others were gone",
            self.requests, self.flushes, self.fua, self.required, self.gone
        )
    }
}

/// A volume under test, with all that is known of it.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    world: &'a World<'a>,
    /// The volume's name.
    pub(super) name: String,
    clock: Clock,
    /// What was there when it was read last.
    base: Vec<Value>,
    /// All requests since.
    ops: Vec<Op>,
    pub(super) tally: Tally,
    /// What was answered outlives the daemon, flushed or not.
    answered_binds: bool,
    /// How long the last opening took.
    opening: Duration,
    /// How long an object lives on when it is condemned.
    delete_after_ms: u64,
}

impl<'a> Subject<'a> {
    /// Creates the volume `name`.
    pub(super) fn create(world: &'a World<'a>, name: &str) -> Result<Self> {
        world.create(name, VOLUME_SIZE)?;
        Ok(Self {
            world,
            name: name.to_owned(),
            clock: Clock::default(),
            base: vec![0; SECTORS as usize],
            ops: Vec::new(),
            tally: Tally::default(),
            answered_binds: false,
            opening: Duration::from_millis(500),
            delete_after_ms: patience_ms(world) + 100,
        })
    }

    /// Where a daemon runs: it finds nothing there that another left.
    fn wiped(&self) -> Result<PathBuf> {
        let local = self.world.dir.join("local");
        match fs::remove_dir_all(&local) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&local)?,
        }
        Ok(local)
    }

    fn start(&self, flags: &[&str], how: fn(&Serve) -> Result<Daemon>) -> Result<Daemon> {
        let local = self.wiped()?;
        let mut command = self.world.lsvd();
        command.current_dir(&local).env("HOME", &local).env("XDG_RUNTIME_DIR", &local);
        let url = self.world.url(&self.name);
        how(&Serve { command: &command, dir: &self.world.dir, urls: &[&url], flags })
    }

    /// Serves it where the local directory was wiped.
    pub(super) fn serve(&mut self, flags: &[&str]) -> Result<Daemon> {
        let started = Instant::now();
        let daemon = self.start(flags, Daemon::start)?;
        self.opening = started.elapsed();
        Ok(daemon)
    }

    /// Starts a daemon and ends it while it opens, or just after.
    fn interrupt_opening(&mut self, flags: &[&str], chance: &mut Numbers) -> Result<()> {
        let mut daemon = self.start(flags, Daemon::spawn)?;
        let longest = u64::try_from(self.opening.as_millis())?.clamp(20, 5_000) * 5 / 4;
        sleep(Duration::from_millis(chance.below(longest)));
        self.tally.openings += 1;
        if chance.below(3) == 0 {
            daemon.ask_to_close();
            let code = daemon.exit_code(CLOSE_LIMIT)?;
            ensure!(
                code == 0 || code == TERMINATED,
                "a signal while opening: exit code {code}: {}",
                daemon.log()
            );
        } else {
            daemon.kill();
        }
        Ok(())
    }

    /// Reads all and judges it; with `durable` false flushes bind nothing. What was found is what the next judgement
    /// begins with.
    pub(super) fn check(&mut self, daemon: &Daemon, durable: bool) -> Result<()> {
        let found = client::read_all(daemon.socket(), &self.name).context("reading the volume")?;
        let claim = Claim { base: &self.base, ops: &self.ops, found: &found, durable };
        if !durable && judge(Claim { durable: true, ..claim }).is_err() {
            self.tally.waived += 1;
        }
        match judge(claim) {
            Ok(verdict) => {
                self.tally.required += verdict.required;
                self.tally.gone += verdict.gone;
            }
            Err(why) => {
                let path = self.world.dir.join(format!("{}.history", self.name));
                fs::write(&path, self.history(&found))?;
                bail!("{why}\nthe history is in {}", path.display());
            }
        }
        self.base = found;
        self.ops.clear();
        Ok(())
    }

    fn history(&self, found: &[Value]) -> String {
        let mut text = String::new();
        let mut ops: Vec<&Op> = self.ops.iter().collect();
        ops.sort_by_key(|op| op.submit);
        for op in ops {
            let _ = writeln!(text, "{op}");
        }
        for (sector, (before, now)) in self.base.iter().zip(found).enumerate() {
            if *before != 0 || *now != 0 {
                let _ = writeln!(text, "sector {sector}: {before} before, {now} found");
            }
        }
        text
    }

    /// Starts writers.
    pub(super) fn load(&self, daemon: &Daemon, shape: Shape, seed: u64) -> Result<Load> {
        Load::start((daemon.socket(), &self.name, SECTORS), shape, &self.clock, seed)
            .context("starting writers")
    }

    /// Ends the writers and keeps what they did; says how many flushes and FUA requests were acknowledged.
    pub(super) fn end(&mut self, load: Load) -> Result<u64> {
        let mut ops = load.end().context("a writer's connection")?;
        let done = |op: &&Op| matches!(op.answer, Answer::Done(_));
        let flushes = ops.iter().filter(done).filter(|op| op.kind == Kind::Flush).count() as u64;
        let fua = ops.iter().filter(done).filter(|op| op.fua).count() as u64;
        self.tally.requests += ops.len() as u64;
        self.tally.flushes += flushes;
        self.tally.fua += fua;
        if self.answered_binds {
            let answered = ops.iter_mut().filter(|op| op.kind != Kind::Flush && done(&&**op));
            answered.for_each(|op| op.fua = true);
        }
        self.ops.extend(ops);
        Ok(flushes + fua)
    }

    /// Requests since the last judgement that were answered with an error.
    pub(super) fn failures(&self) -> usize {
        self.ops.iter().filter(|op| matches!(op.answer, Answer::Failed(_))).count()
    }

    /// Writes for a while, by writers of some kind, and kills the daemon.
    pub(super) fn write_and_kill(&mut self, daemon: Daemon, chance: &mut Numbers) -> Result<()> {
        let shape = SHAPES[usize::try_from(chance.below(3))?];
        let load = self.load(&daemon, shape, chance.next())?;
        sleep(Duration::from_millis(200 + chance.below(600)));
        daemon.kill();
        self.end(load).map(|_| ())
    }

    /// Writes for a while and closes the volume under the writers.
    pub(super) fn write_and_close(&mut self, daemon: Daemon, chance: &mut Numbers) -> Result<()> {
        let shape = SHAPES[usize::try_from(chance.below(3))?];
        let load = self.load(&daemon, shape, chance.next())?;
        sleep(Duration::from_millis(200 + chance.below(600)));
        daemon.close()?;
        self.end(load)?;
        self.was_closed();
        Ok(())
    }

    /// All that was answered by now is durable: the volume was closed cleanly.
    fn was_closed(&mut self) {
        let (submit, done) = (self.clock.tick(), self.clock.tick());
        self.ops.push(Op {
            kind: Kind::Flush,
            first: 0,
            count: 0,
            fua: false,
            submit,
            answer: Answer::Done(done),
        });
    }

    /// Counts what a daemon has collected and deleted, as far as it got to say it.
    fn count(&mut self, daemon: &Daemon) {
        let (moved_bytes, deleted_objects) = given_back(daemon);
        for (sum, more) in
            [(&mut self.tally.collected, moved_bytes), (&mut self.tally.deleted, deleted_objects)]
        {
            sum.0 += u32::from(more > 0);
            sum.1 += more;
        }
    }

    /// One round. `flags` are those of the daemon that writes; with `first` it lives until it has collected and deleted.
    fn round(&mut self, flags: &[&str], first: bool, chance: &mut Numbers) -> Result<()> {
        self.tally.rounds += 1;
        while chance.below(4) == 0 {
            self.interrupt_opening(flags, chance)?;
        }
        let mut daemon = self.serve(flags)?;
        self.check(&daemon, true)?;
        if !first && chance.below(8) == 0 {
            self.tally.ends[1] += 1;
            // Whoever is idle may collect.
            sleep(Duration::from_millis(chance.below(3_000)));
            daemon.kill_now();
            self.count(&daemon);
            return Ok(());
        }
        let kind = usize::try_from(chance.below(3))?;
        self.tally.shapes[kind] += 1;
        let shape = SHAPES[kind];
        let load = self.load(&daemon, shape, chance.next())?;
        if first {
            let gave_back = || matches!(given_back(&daemon), (1.., 1..));
            shell::wait_until("the daemon collects and deletes", UPKEEP_LIMIT, gave_back)?;
        }
        // Checkpoints, collection and deletion begin after the first second.
        let later_ms = chance.below(2) * (1_000 + chance.below(2 * self.delete_after_ms));
        sleep(Duration::from_millis(30 + chance.below(900) + later_ms));
        let how = chance.below(20);
        let soon = Duration::from_millis(chance.below(400));
        match how {
            0..12 => {
                self.tally.ends[0] += 1;
                self.delay_a_put(chance)?;
                daemon.kill_now();
            }
            12..15 => {
                self.tally.ends[2] += 1;
                daemon.ask_to_close();
                sleep(soon);
                daemon.kill_now();
            }
            15..17 => {
                self.tally.ends[3] += 1;
                daemon.ask_to_close();
                sleep(soon);
                daemon.ask_to_close();
                let code = daemon.exit_code(CLOSE_LIMIT)?;
                ensure!(code == 0 || code == INTERRUPTED, "two signals: exit code {code}: {}", daemon.log());
            }
            _ => {
                self.tally.ends[4] += 1;
                self.count(&daemon);
                daemon.close()?;
                self.end(load)?;
                self.was_closed();
                return Ok(());
            }
        }
        self.count(&daemon);
        self.end(load)?;
        Ok(())
    }

    /// On a store that can: a PUT that is under way for longer than its daemon lives.
    fn delay_a_put(&self, chance: &mut Numbers) -> Result<()> {
        let ms = 100 + chance.below(2_000);
        if chance.below(3) == 0 && self.world.store.borrow().is_lab() {
            let lab = self.world.store.borrow().lab()?;
            lab.misbehave(
                &json!({ "fault": "hang", "verbs": ["PUT"], "key": "/log/", "count": 1, "ms": ms }),
            )?;
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// Answers lost, cut off and refused, at rates at which work still gets done.
pub(super) fn misbehave(world: &World) -> Result<()> {
    if !world.store.borrow().is_lab() {
        return Ok(());
    }
    let lab = world.store.borrow().lab()?;
    lab.behave()?;
    lab.misbehave(&json!([
        { "fault": "lose-answer", "verbs": ["PUT"], "rate": 0.05 },
        { "fault": "truncate", "rate": 0.05 },
        { "fault": "reset", "rate": 0.03 },
        { "fault": "slow-down", "rate": 0.01 },
    ]))
}

/// All rounds of a case. `flags` says with which flags each daemon of a volume is started; with `answered_binds` all that one
/// answered has to be there, whatever was flushed.
pub(super) fn run(
    world: &World,
    answered_binds: bool,
    flags: impl Fn(&mut Numbers) -> Vec<String>,
) -> Result<()> {
    let mut tally = Tally::default();
    let mut first = 0;
    let rounds = world.rounds(USUAL_ROUNDS, LONG_ROUNDS);
    let upkeep = upkeep(world);
    while first < rounds {
        let last = (first + ROUNDS_PER_VOLUME).min(rounds);
        misbehave(world)?;
        let mut subject = Subject::create(world, &format!("v{}", first / ROUNDS_PER_VOLUME))?;
        (subject.tally, subject.answered_binds) = (tally, answered_binds);
        for round in first..last {
            let mut chance =
                Numbers::new(world.seed.wrapping_add(u64::from(round)).wrapping_mul(0x9e6c_63d0_876a_68de));
            let flags = flags(&mut chance);
            let flags: Vec<&str> = upkeep.iter().chain(&flags).map(String::as_str).collect();
            let judged = subject.round(&flags, round == first, &mut chance);
            // The last round's damage is seen by nobody else.
            let judged =
                judged.and_then(|()| if round + 1 == last { subject.finish(&flags) } else { Ok(()) });
            judged.map_err(|error| anyhow!("round {round}: {error:#}\n{}", repeat(world, first, round)))?;
        }
        tally = subject.tally;
        world.discard(&subject.name)?;
        first = last;
    }
    println!("  {tally}");
    ensure!(tally.flushes + tally.fua > 0, "nothing was ever acknowledged as durable: nothing was shown");
    ensure!(tally.collected.1 > 0 && tally.deleted.1 > 0, "nothing was collected and deleted meanwhile");
    Ok(())
}

fn patience_ms(world: &World) -> u64 {
    let store = world.store.borrow();
    if store.is_directory() || store.is_lab() { PATIENCE_MS } else { PATIENCE_WITH_A_SERVER_MS }
}

fn upkeep(world: &World) -> Vec<String> {
    let patience_ms = patience_ms(world);
    let mut flags = UPKEEP.map(str::to_owned).to_vec();
    flags.extend(["--io-timeout".to_owned(), format!("{patience_ms}ms")]);
    flags.extend(["--delete-after".to_owned(), format!("{}ms", patience_ms + 100)]);
    flags
}

/// Bytes that a daemon has moved, and objects that it has deleted.
fn given_back(daemon: &Daemon) -> (u64, u64) {
    let stats = daemon.stats().unwrap_or_default();
    let number = |name: &str| stats[name].as_u64().unwrap_or(0);
    (number("moved_bytes"), number("deleted_objects"))
}

impl Subject<'_> {
    /// Judges what the last round left, and closes.
    fn finish(&mut self, flags: &[&str]) -> Result<()> {
        let daemon = self.serve(flags)?;
        self.check(&daemon, true)?;
        daemon.close()
    }
}

/// The command that makes the same choices again, from the volume's first round on; moments are not repeated.
fn repeat(world: &World, first: u32, round: u32) -> String {
    format!(
        "the same choices, if not the same moments: cargo xtask e2e --store {} --seed {} --rounds {} {}",
        world.store.borrow().name(),
        world.seed + u64::from(first),
        round - first + 1,
        world.name()
    )
}

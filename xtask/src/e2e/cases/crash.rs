//! Daemons killed at any moment under writers of every kind: what is left is a prefix with all that was durable (rule 1).
//!
//! `--rounds` says how often. On the lab store answers are lost, cut off and refused meanwhile (rules 2 and 4). What is
//! lawful says `crate::crash::judge`, and the case `crash-control` shows that it can tell.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::super::case::{Needs, World};
use super::super::rounds::{self, IN_FLIGHT, ONE_BY_ONE, SEVERAL};
use super::Entry;
use crate::crash::client;
use crate::crash::history::{SECTOR_BYTES, Value};
use crate::crash::judge::{Claim, judge};
use crate::crash::load::{Clock, Load, Shape};
use crate::numbers::Numbers;
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    (
        "crash-object",
        "killed at any moment, also collecting, local directory wiped: all that was flushed or FUA (rules 1, 2, 4, 6, 7)",
        Needs::Store,
        object,
    ),
    (
        "crash-journal",
        "the same with --flush journal and the journal kept, of any size (rules 1, 2, 4, 6, 7)",
        Needs::Store,
        journal,
    ),
    (
        "crash-handover",
        "killed at any moment on a host that lives: all that was answered, flushed or not, for who reconnects (rule 1)",
        Needs::Directory,
        handover,
    ),
    (
        "crash-control",
        "the judge passes a file and fails a cache that ignores flushes",
        Needs::Directory,
        control,
    ),
];

fn object(world: &World) -> Result<()> {
    rounds::run(world, false, |_| Vec::new())
}

fn handover(world: &World) -> Result<()> {
    let place = world.dir.join("handover").display().to_string();
    rounds::run(world, true, |_| ["--handover", &place].map(str::to_owned).to_vec())
}

fn journal(world: &World) -> Result<()> {
    let journal = world.dir.join("journal").display().to_string();
    rounds::run(world, false, |chance| {
        // Ample, and so small that it is full now and then.
        let (size, batch) =
            [("8G", "8M"), ("16M", "8M"), ("2M", "512K")][usize::try_from(chance.below(3)).unwrap_or(0)];
        let flags = ["--flush", "journal", "--journal", &journal, "--journal-size", size, "--batch", batch];
        flags.map(str::to_owned).to_vec()
    })
}

/// Kills of a control; the one that ignores flushes loses some at once.
const CONTROL_KILLS: u32 = 6;
const CONTROL_BYTES: u64 = 4 << 20;

fn control(world: &World) -> Result<()> {
    let file = world.dir.join("control").display().to_string();
    std::fs::File::create(&file)?.set_len(CONTROL_BYTES)?;
    killed(world, &["file", &file]).context("nbdkit file, which keeps what it has written")?;
    std::fs::File::create(&file)?.set_len(CONTROL_BYTES)?;
    match killed(world, &["--filter=cache", "file", &file, "cache=unsafe"]) {
        Ok(flushes) => {
            bail!("{flushes} flushes to a cache that ignores them were lost, and the judge saw nothing")
        }
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(said.contains("LOST"), "another failure than the loss: {said}");
        }
    }
    Ok(())
}

/// Kills `nbdkit` under load and judges what is left, several times; says how many flushes were acknowledged.
fn killed(world: &World, arguments: &[&str]) -> Result<u64> {
    let mut chance = Numbers::new(world.seed);
    let sectors = CONTROL_BYTES / u64::from(SECTOR_BYTES);
    let mut base: Vec<Value> = vec![0; usize::try_from(sectors)?];
    let (clock, mut flushes) = (Clock::default(), 0);
    for kill in 0..CONTROL_KILLS {
        // A file keeps zeroes where it was trimmed by whole blocks, or not: that is for no client to rely on.
        let shape = [ONE_BY_ONE, IN_FLIGHT, SEVERAL][kill as usize % 3];
        let shape = Shape { trims: false, ..shape };
        let mut nbdkit = Nbdkit::start(world, kill, arguments)?;
        let load = Load::start((&nbdkit.socket, "", u32::try_from(sectors)?), shape, &clock, chance.next())?;
        std::thread::sleep(Duration::from_millis(200 + chance.below(400)));
        nbdkit.kill();
        let ops = load.end()?;
        let mut nbdkit = Nbdkit::start(world, CONTROL_KILLS + kill, arguments)?;
        let found = client::read_all(&nbdkit.socket, "")?;
        nbdkit.kill();
        let verdict = judge(Claim { base: &base, ops: &ops, found: &found, durable: true });
        let verdict = verdict.map_err(anyhow::Error::msg).with_context(|| format!("kill {kill}"))?;
        ensure!(verdict.required > 0, "nothing had to be there: nothing was shown");
        flushes += verdict.required;
        base = found;
    }
    Ok(flushes)
}

/// A server that is not ours.
struct Nbdkit {
    child: Child,
    socket: std::path::PathBuf,
}

impl Nbdkit {
    fn start(world: &World, number: u32, arguments: &[&str]) -> Result<Self> {
        let socket = world.dir.join(format!("nbdkit{number}.sock"));
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("nbdkit");
        command.arg("--foreground").arg("--unix").arg(&socket).args(arguments).stdin(Stdio::null());
        let child = command.spawn().context("cannot start nbdkit")?;
        let nbdkit = Self { child, socket };
        shell::wait_until("nbdkit listens", Duration::from_secs(10), || nbdkit.socket.exists())?;
        Ok(nbdkit)
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Nbdkit {
    fn drop(&mut self) {
        self.kill();
    }
}

//! Two daemons that take one volume over from each other under load: nothing acknowledged is lost (rules 1, 2 and 9).

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::Entry;
use crate::numbers::Numbers;
use crate::shell;

pub(super) const CASES: &[Entry] = &[(
    "take-over",
    "two daemons in turn under load, nothing acknowledged lost (rules 1, 2, 9)",
    Needs::Store,
    take_over,
)];

/// Waves a second, 12 MiB: a load that a hundred rounds can bear, as the log only grows and each opening reads all of it.
const RATE: u32 = 200;

/// The exit code of a daemon that was taken over from.
const FENCED: i32 = 4;

/// xtask/scripts/ordered.py: a writer that can tell afterwards whether the volume is a prefix of what it wrote.
#[derive(Debug)]
pub(super) struct Writer {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

/// What a writer said at its end.
#[derive(Debug)]
pub(super) struct Written {
    /// The last wave that a completed flush covers; -1 for none.
    pub(super) acknowledged: i64,
    /// Waves of this run.
    pub(super) waves: u64,
    /// Name of the error that ended it, as `ESHUTDOWN`.
    pub(super) failure: Option<String>,
}

impl Writer {
    /// Starts a writer on the export at `uri` that writes as fast as it can; returns when it writes.
    pub(super) fn start(world: &World, uri: &str) -> Result<Self> {
        Self::start_at_rate(world, uri, 0)
    }

    /// The same with so many waves a second at most, if not 0.
    pub(super) fn start_at_rate(world: &World, uri: &str, rate: u32) -> Result<Self> {
        let mut command = world.script("ordered.py");
        command.args(["write", uri, "ordered.json", "--rate", &rate.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().context("cannot start the writer")?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout was piped")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        ensure!(line.trim() == "started", "the writer said '{}'", line.trim());
        Ok(Self { child, stdout })
    }

    /// Waits for its end, which an error of the device is.
    pub(super) fn end(mut self, limit: Duration) -> Result<Written> {
        if shell::wait(&mut self.child, limit)?.is_none() {
            bail!("the writer still waits for its device after {} s", limit.as_secs());
        }
        let mut said = String::new();
        self.stdout.read_to_string(&mut said)?;
        let said: serde_json::Value =
            serde_json::from_str(&said).with_context(|| format!("the writer said '{}'", said.trim()))?;
        Ok(Written {
            acknowledged: said["acknowledged"].as_i64().context("the writer says what was acknowledged")?,
            waves: said["waves"].as_u64().unwrap_or(0),
            failure: said["failure"].as_str().map(str::to_owned),
        })
    }

    /// Checks that the export at `uri` is a prefix of all that writers of this case wrote.
    pub(super) fn check(world: &World, uri: &str) -> Result<()> {
        let mut command = world.script("ordered.py");
        shell::output_ok(command.args(["check", uri, "ordered.json"]), TOOL_LIMIT).map(|_| ())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn take_over(world: &World) -> Result<()> {
    world.create("db1", "1G")?;
    let mut chance = Numbers::new(world.seed);
    let mut old = world.serve("db1")?;
    let (mut waves, mut acknowledged) = (0, -1);
    for round in 1..=world.takeovers {
        let writer = Writer::start_at_rate(world, old.uri(), RATE)?;
        std::thread::sleep(Duration::from_millis(50 + chance.below(400)));
        let new = world.serve("db1").with_context(|| format!("take-over {round}"))?;
        let written = writer.end(Duration::from_secs(90)).with_context(|| format!("take-over {round}"))?;
        ensure!(
            written.failure.as_deref() == Some("ESHUTDOWN"),
            "take-over {round}: the old daemon's client got {:?} instead of ESHUTDOWN",
            written.failure
        );
        let code = old.exit_code(Duration::from_secs(60))?;
        ensure!(
            code == FENCED,
            "take-over {round}: the old daemon ended with {code}: {}",
            shell::tail(&old.log(), 6)
        );
        Writer::check(world, new.uri()).with_context(|| format!("take-over {round}"))?;
        waves += written.waves;
        acknowledged = written.acknowledged;
        old = new;
    }
    println!(
        "  {} take-overs, {waves} waves of 16 writes, acknowledged up to wave {acknowledged}",
        world.takeovers
    );
    ensure!(acknowledged > 0, "no flush was ever acknowledged: nothing was shown");
    old.close()
}

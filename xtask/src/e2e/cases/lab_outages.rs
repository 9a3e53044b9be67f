//! What a client sees while its store is away, by how it is away, and that everything goes on by itself (rules 4 and 10).
//!
//! Runs on the lab store alone. Each case ends with a daemon that is killed and one that reads what the other promised.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;
use serde_json::json;

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::super::daemon::{Daemon, Serve};
use super::Entry;
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    (
        "lab-errors",
        "reads and writes of a silent store wait, fail in time, and work again (rule 10)",
        Needs::Lab,
        errors,
    ),
    (
        "lab-outage-journal",
        "flushes go on in an outage until the ceiling, then fail in time (rules 1, 10)",
        Needs::Lab,
        journal,
    ),
    (
        "lab-credentials",
        "credentials that expire are renewed in the profile's file, without a restart (rule 10)",
        Needs::LabS3,
        credentials,
    ),
    (
        "lab-names",
        "a host whose name does not resolve is an outage, and named (rules 4, 10)",
        Needs::LabS3,
        names,
    ),
];

/// Small ceilings and little patience: what takes minutes by default takes seconds.
const SMALL: &[&str] = &["--io-timeout", "6s", "--buffer", "16M", "--batch", "4M", "--cache", "4M"];
const IO_TIMEOUT: Duration = Duration::from_secs(6);

/// How long nobody knows the store's name.
const NAMELESS: Duration = Duration::from_secs(5);

/// Writes MiB after MiB from the second one on, flushing each if told so, until one fails; says how many were accepted
/// and how long the one that failed took.
const FILL: &str = "
import time
def fill(h, flush):
  for n in range(1, 64):
    begun = time.monotonic()
    try:
      h.pwrite(bytes([n]) * 1048576, n * 1048576)
      if flush:
        h.flush()
    except nbd.Error as e:
      assert e.errnum == 5, e
      return n, time.monotonic() - begun
  raise SystemExit('64 MiB were accepted, and the ceiling is 16')
";

fn nbdsh(world: &World, uri: &str, code: &str) -> Result<String> {
    let fill = world.dir.join("fill.py");
    std::fs::write(&fill, format!("{FILL}{code}\n"))?;
    let run = format!("exec(open('{}').read())", fill.display());
    Ok(world.tool("nbdsh", &["-u", uri, "-c", &run])?.stdout.trim().to_owned())
}

/// What `print(*fill(h, …))` printed.
fn filled(said: &str) -> Result<(u32, f64)> {
    let (accepted, took) = said.split_once(' ').with_context(|| format!("the client said '{said}'"))?;
    let (accepted, took) = (accepted.parse()?, took.parse()?);
    let limit = IO_TIMEOUT.as_secs_f64();
    ensure!((limit - 1.0..limit * 2.0).contains(&took), "the error came after {took:.1} s");
    Ok((accepted, took))
}

/// All that was accepted before the first error is there.
fn check(accepted: u32) -> String {
    format!(
        "for n in range(1, {accepted}):\n  assert h.pread(1048576, n * 1048576) == bytes([n]) * 1048576, n"
    )
}

fn errors(world: &World) -> Result<()> {
    let lab = world.store.borrow().lab()?;
    world.create("db1", "256M")?;
    let mut daemon = world.serve_with("db1", SMALL)?;
    // More than the cache holds: some of it is in the store alone.
    let before = "for n in range(8):\n  h.pwrite(bytes([100 + n]) * 1048576, n * 1048576)\nh.flush()";
    nbdsh(world, daemon.uri(), before)?;
    lab.misbehave(&json!({ "fault": "hang" }))?;
    let read = "
begun = time.monotonic()
try:
  h.pread(8 << 20, 0)
  raise SystemExit('read from a store that is silent')
except nbd.Error as e:
  assert e.errnum == 5, e
print(0, time.monotonic() - begun)";
    let (_, read_took) = filled(&nbdsh(world, daemon.uri(), read)?)?;
    let (accepted, write_took) = filled(&nbdsh(world, daemon.uri(), "print(*fill(h, False))")?)?;
    ensure!((12..=17).contains(&accepted), "{accepted} MiB were accepted below a ceiling of 16");
    lab.behave()?;
    let back = Instant::now();
    nbdsh(
        world,
        daemon.uri(),
        &format!(
            "assert h.pread(1 << 20, 0) == bytes([100]) * (1 << 20)\nh.pwrite(b'x', 0)\nh.flush()\n{}",
            check(accepted)
        ),
    )?;
    let resumed = back.elapsed().as_secs_f64();
    ensure!(daemon.runs(), "the daemon did not survive");
    daemon.kill();
    let daemon = world.serve("db1")?;
    nbdsh(world, daemon.uri(), &check(accepted))?;
    println!(
        "  a read failed after {read_took:.1} s, the {accepted}th MiB after {write_took:.1} s; all was well {resumed:.1} s after the end"
    );
    daemon.close()
}

fn journal(world: &World) -> Result<()> {
    let lab = world.store.borrow().lab()?;
    world.create("db1", "256M")?;
    let flags = [SMALL, &["--flush", "journal", "--journal", "journals"]].concat();
    let mut daemon = world.serve_with("db1", &flags)?;
    nbdsh(world, daemon.uri(), "h.pwrite(b'1' * 4096, 0)\nh.flush()")?;
    lab.misbehave(&json!({ "fault": "hang" }))?;
    sleep(Duration::from_secs(1));
    let stored = lab.outcomes("PUT", "200")?;
    let begun = Instant::now();
    // Each of them is flushed: the journal answers, the store does not.
    let (accepted, took) = filled(&nbdsh(world, daemon.uri(), "print(*fill(h, True))")?)?;
    let until_ceiling = begun.elapsed().as_secs_f64() - took;
    ensure!((12..=17).contains(&accepted), "{accepted} MiB were flushed below a ceiling of 16");
    ensure!(lab.outcomes("PUT", "200")? == stored, "the store was not away");
    // Killed in the outage: what was flushed is in the journal alone.
    ensure!(daemon.runs(), "the daemon did not survive");
    daemon.kill();
    lab.behave()?;
    let daemon = world.serve_with("db1", &flags)?;
    nbdsh(world, daemon.uri(), &check(accepted))?;

    lab.misbehave(&json!({ "fault": "hang" }))?;
    let (again, _) = filled(&nbdsh(world, daemon.uri(), "print(*fill(h, True))")?)?;
    lab.behave()?;
    let back = Instant::now();
    nbdsh(world, daemon.uri(), "h.pwrite(b'2' * 1048576, 0)\nh.flush()")?;
    println!(
        "  {accepted} flushes in {until_ceiling:.1} s of an outage, and {again}; then EIO; the next one {:.1} s after the end",
        back.elapsed().as_secs_f64()
    );
    daemon.kill();
    let daemon = world.serve_with("db1", &flags)?;
    nbdsh(world, daemon.uri(), &format!("assert h.pread(4096, 0) == b'2' * 4096\n{}", check(again)))?;
    daemon.close()
}

fn credentials(world: &World) -> Result<()> {
    let lab = world.store.borrow().lab()?;
    world.create("db1", "64M")?;
    let aws = world.dir.join("home/.aws");
    std::fs::create_dir_all(&aws)?;
    let renew = |key: &str| -> Result<()> {
        let secret = world.store.borrow().secret().unwrap_or("none").to_owned();
        let profile = format!(
            "[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\naws_session_token = t-{key}\n"
        );
        std::fs::write(aws.join("new"), profile)?;
        Ok(std::fs::rename(aws.join("new"), aws.join("credentials"))?)
    };
    renew("first")?;
    let mut command = world.lsvd();
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let serve = |command: &Command| {
        let urls = [world.url("db1")];
        Daemon::start(&Serve { command, dir: &world.dir, urls: &[&urls[0]], flags: &[] })
    };
    let mut daemon = serve(&command)?;
    nbdsh(world, daemon.uri(), "h.pwrite(b'1' * 4096, 0)\nh.flush()")?;
    lab.misbehave(&json!({ "fault": "expired-token", "access_key": "second" }))?;
    let code = "h.pwrite(b'2' * 4096, 4096)\nh.flush()";
    let flush = world.client("nbdsh").args(["-u", daemon.uri(), "-c", code]).stdin(Stdio::null()).spawn()?;
    let mut flush = flush;
    sleep(Duration::from_secs(3));
    ensure!(flush.try_wait()?.is_none(), "a flush was answered with credentials that have expired");
    renew("second")?;
    let renewed = Instant::now();
    let status = shell::wait(&mut flush, TOOL_LIMIT)?.context("the flush was never answered")?;
    ensure!(status.success(), "the flush failed though the credentials were renewed in time");
    println!("  the flush was answered {:.1} s after the renewal", renewed.elapsed().as_secs_f64());
    ensure!(lab.strikes()?.iter().sum::<u64>() > 0, "nobody met an expired token");
    ensure!(daemon.runs(), "the daemon did not survive");
    ensure!(!daemon.log().contains("t-second"), "rule 11: the token is in the log");
    daemon.kill();
    let daemon = serve(&command)?;
    nbdsh(world, daemon.uri(), "assert h.pread(8192, 0) == b'1' * 4096 + b'2' * 4096")?;
    daemon.close()
}

/// Names of this sandbox' own, instead of the host's.
struct Hosts(PathBuf);

impl Hosts {
    fn new(world: &World) -> Result<Self> {
        let hosts = Self(world.dir.join("hosts"));
        hosts.set(true)?;
        let mut mount = Command::new("mount");
        shell::output_ok(mount.arg("--bind").arg(&hosts.0).arg("/etc/hosts"), TOOL_LIMIT)?;
        Ok(hosts)
    }

    /// In place: it is mounted.
    fn set(&self, there: bool) -> Result<()> {
        let store = if there { "127.0.0.1 store.lab\n" } else { "" };
        Ok(std::fs::write(&self.0, format!("127.0.0.1 localhost\n{store}"))?)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = shell::output(Command::new("umount").arg("/etc/hosts"), TOOL_LIMIT);
    }
}

fn names(world: &World) -> Result<()> {
    if world.skip_part_unless(geteuid().is_root(), "names of its own need a mount, which needs root")? {
        return Ok(());
    }
    let lab = world.store.borrow().lab()?;
    let hosts = Hosts::new(world)?;
    world.create("db1", "64M")?;
    let port = lab.port();
    let endpoint = format!("http://store.lab:{port}");
    hosts.set(false)?;
    let begun = Instant::now();
    // It opens as long as it takes: the name comes back meanwhile.
    let daemon = std::thread::scope(|scope| {
        scope.spawn(|| {
            sleep(NAMELESS);
            hosts.set(true)
        });
        world.serve_with("db1", &["--endpoint", &endpoint])
    })?;
    let took = begun.elapsed();
    ensure!(took >= NAMELESS, "a store without a name was found after {} ms", took.as_millis());
    let told = format!("no connection to store.lab:{port}");
    ensure!(daemon.log().contains(&told), "the log says nothing of '{told}'");
    println!("  served {:.1} s after the name came back", (took - NAMELESS).as_secs_f64());
    nbdsh(world, daemon.uri(), "h.pwrite(b'1' * 4096, 0)\nh.flush()")?;
    daemon.close()
}

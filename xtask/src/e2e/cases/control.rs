//! The control socket: a daemon is asked to collect while clients write.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::case::{Needs, World};
use super::Entry;
use super::takeover::Writer;

pub(super) const CASES: &[Entry] = &[(
    "control",
    "lsvd gc through the daemon, beside a writing client: space comes back, contents stay; found again after a kill (rules 1, 6, 7)",
    Needs::Store,
    control,
)];

/// Where the content is that is compared: beyond what the writer writes to.
const OFFSET: u64 = 512 << 20;
/// 64 MiB in pieces of 1 MiB, of which every second block is written again.
const PIECES: u64 = 64;
const FLAGS: &[&str] =
    &["--batch", "2M", "--gc-target", "off", "--io-timeout", "10s", "--delete-after", "11s"];

fn control(world: &World) -> Result<()> {
    world.create("db1", "1G")?;
    let daemon = world.serve_with("db1", FLAGS)?;
    fill(world, daemon.uri())?;
    let before = log_bytes(world)?;
    // Few writes, so that what they add does not hide what comes back.
    let writer = Writer::start_at_rate(world, daemon.uri(), 5)?;
    let dry = json(world, &["gc", &world.url("db1"), "--dry-run", "--target", "1.15", "--json"])?;
    ensure!(dry["through"] == "daemon" && dry["victims"].as_u64() > Some(0), "a dry run said {dry}");
    let done = json(world, &["gc", &world.url("db1"), "--target", "1.15", "--json"])?;
    ensure!(done["through"] == "daemon", "not through the daemon: {done}");
    let after = log_bytes(world)?;
    ensure!(
        after < before * 85 / 100 && done["deleted_bytes"].as_u64() > Some(before / 4),
        "the log had {before} bytes and has {after}: {done}"
    );
    check(world, daemon.uri())?;
    let status = json(world, &["status", &world.url("db1"), "--json"])?;
    let volume = &status["daemons"][0]["volumes"][0];
    ensure!(volume["state"] == "serving" && volume["clients"] == 1, "status said {status}");
    let deletes = volume["store"]["deletes"].as_u64();
    ensure!(deletes >= done["deleted_objects"].as_u64(), "status said {status}");
    daemon.kill();
    let written = writer.end(Duration::from_secs(30))?;
    ensure!(written.acknowledged > 0, "no flush was ever acknowledged: nothing was shown");

    let gone = world.run_lsvd(&["status", &world.url("db1")])?;
    ensure!(gone.code() == 6, "a killed daemon has status {}: {}", gone.code(), gone.stdout);
    let daemon = world.serve_with("db1", FLAGS)?;
    Writer::check(world, daemon.uri())?;
    check(world, daemon.uri())?;
    let again = json(world, &["gc", &world.url("db1"), "--target", "1.15", "--json"])?;
    ensure!(again["through"] == "daemon", "not through the daemon that came after: {again}");
    Writer::check(world, daemon.uri())?;
    check(world, daemon.uri())?;
    daemon.close()?;
    println!(
        "  log {} MiB before, {} MiB after; {} waves of 16 writes beside, acknowledged up to wave {}",
        before >> 20,
        after >> 20,
        written.waves,
        written.acknowledged
    );
    Ok(())
}

/// Bytes of the log, as the store says.
fn log_bytes(world: &World) -> Result<u64> {
    let info = json(world, &["info", &world.url("db1"), "--no-control", "--json"])?;
    info["log_bytes"].as_u64().context("info says what the log takes")
}

fn json(world: &World, arguments: &[&str]) -> Result<Value> {
    let output = world.run_lsvd(arguments)?;
    ensure!(output.code() == 0, "`lsvd {}` ended with {}: {}", arguments[0], output.code(), output.stderr);
    serde_json::from_str(&output.stdout).with_context(|| format!("`lsvd {}` prints JSON", arguments[0]))
}

fn fill(world: &World, uri: &str) -> Result<()> {
    let pieces =
        format!("for i in range({PIECES}): h.pwrite(bytes([i % 250 + 1]) * (1 << 20), {OFFSET} + (i << 20))");
    let blocks = format!("for i in range({PIECES} * 128): h.pwrite(b'\\xff' * 4096, {OFFSET} + i * 8192)");
    world.tool("nbdsh", &["-u", uri, "-c", &pieces, "-c", "h.flush()", "-c", &blocks, "-c", "h.flush()"])?;
    Ok(())
}

fn check(world: &World, uri: &str) -> Result<()> {
    let compare = format!(
        "for i in range({PIECES}): assert h.pread(1 << 20, {OFFSET} + (i << 20)) == \
         (b'\\xff' * 4096 + bytes([i % 250 + 1]) * 4096) * 128, i"
    );
    world.tool("nbdsh", &["-u", uri, "-c", &compare])?;
    Ok(())
}

//! A snapshot through the daemon: what was written then is served, gone back to and let go of.
//!
//! Knows the volume by its clients alone. Invariant: what is compared is a copy that was made when the snapshot was, and everything
//! was overwritten and collected since.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::case::{Needs, World};
use super::super::daemon::{Daemon, Serve};
use super::Entry;

pub(super) const CASES: &[Entry] = &[(
    "snapshots",
    "a snapshot through the daemon, all overwritten and collected: served, rolled back to, and its space comes back (rules 6, 7)",
    Needs::Store,
    snapshots,
)];

const FLAGS: &[&str] = &["--batch", "1M", "--gc-target", "off", "--io-timeout", "5s", "--delete-after", "6s"];
/// All that is written, in pieces of 1 MiB.
pub(super) const PIECES: u64 = 16;

fn snapshots(world: &World) -> Result<()> {
    world.create("db1", "64M")?;
    let url = world.url("db1");
    let daemon = world.serve_with("db1", FLAGS)?;
    fill(world, daemon.uri(), 1)?;
    let made = json(world, &["snapshot", "create", &url, "then", "--json"])?;
    ensure!(made["through"] == "daemon", "not through the daemon: {made}");
    world.tool("nbdcopy", &[daemon.uri(), "copy"])?;
    fill(world, daemon.uri(), 101)?;
    let collected = json(world, &["gc", &url, "--target", "1.1", "--json"])?;
    ensure!(collected["through"] == "daemon", "not through the daemon: {collected}");
    let held = world.stored_bytes("db1")?;
    ensure!(held > (2 * PIECES) << 20, "{held} bytes are stored, which is not both moments");
    let at = format!("{url}@then");
    let then = Daemon::start(&Serve {
        command: &world.lsvd(),
        dir: &world.dir,
        urls: &[&at],
        flags: &["--no-control"],
    })?;
    compare(world, then.uri(), 64).context("the snapshot beside the daemon")?;
    then.close()?;
    daemon.close()?;

    let back = json(world, &["rollback", &url, "--to", "then", "--yes", "--json"])?;
    let undo = back["undo"].as_str().context("a rollback has a way back")?.to_owned();
    let daemon = world.serve_with("db1", FLAGS)?;
    compare(world, daemon.uri(), 64).context("after the rollback")?;
    let gone = json(world, &["snapshot", "rm", &url, "then", &undo, "--json"])?;
    ensure!(gone["through"] == "daemon", "not through the daemon: {gone}");
    // Deletes wait for two checkpoints, which are made where something was written.
    let mut left = held;
    for round in 1..=3 {
        let change = format!("h.pwrite(bytes([{round}]) * 4096, 48 << 20)");
        world.tool("nbdsh", &["-u", daemon.uri(), "-c", &change, "-c", "h.flush()"])?;
        json(world, &["gc", &url, "--target", "1.1", "--json"])?;
        left = world.stored_bytes("db1")?;
        if left < held * 7 / 10 {
            break;
        }
    }
    ensure!(left < held * 7 / 10, "{held} bytes were stored, and without the snapshot {left}");
    println!("  {} MiB with both moments, {} MiB with one", held >> 20, left >> 20);
    daemon.close()?;
    Ok(())
}

/// Everything anew: each piece says which it is.
pub(super) fn fill(world: &World, uri: &str, first: u64) -> Result<()> {
    let pieces = format!("for i in range({PIECES}): h.pwrite(bytes([{first} + i]) * (1 << 20), i << 20)");
    world.tool("nbdsh", &["-u", uri, "-c", &pieces, "-c", "h.flush()"])?;
    Ok(())
}

/// The volume's first MiB are as the file `copy` has them, and begin as [`fill`] left them.
pub(super) fn compare(world: &World, uri: &str, mib: u64) -> Result<()> {
    let compare = format!(
        "f = open('copy', 'rb')\nfor i in range({mib}): assert h.pread(1 << 20, i << 20) == f.read(1 << 20), i\n\
         assert h.pread(1, 0) == bytes([1]) and h.pread(1, ({PIECES} << 20) - 1) == bytes([{PIECES}])"
    );
    world.tool("nbdsh", &["-u", uri, "-c", &compare])?;
    Ok(())
}

/// What the program prints with `--json`.
pub(super) fn json(world: &World, arguments: &[&str]) -> Result<Value> {
    let output = world.run_lsvd(arguments)?;
    ensure!(output.code() == 0, "`lsvd {}` ended with {}: {}", arguments[0], output.code(), output.stderr);
    serde_json::from_str(&output.stdout).with_context(|| format!("`lsvd {}` prints JSON", arguments[0]))
}

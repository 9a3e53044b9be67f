//! A copy that is brought up to date by what changed alone: the recipe of docs/recipes.md, run as it is written there.
//!
//! Invariants: the copy is compared with a full one, and what was read for it is what changed, to the block, though collection has
//! moved much of the rest meanwhile.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::super::daemon::{Daemon, Serve};
use super::Entry;
use crate::shell;

pub(super) const CASES: &[Entry] = &[(
    "incremental",
    "lsvd:changed-since by libnbd, nbdinfo and QEMU: a copy made anew from what changed alone equals a full one",
    Needs::Store,
    incremental,
)];

const FLAGS: &[&str] = &["--batch", "1M", "--gc-target", "off", "--io-timeout", "5s", "--delete-after", "6s"];
const CONTEXT: &str = "lsvd:changed-since:monday";

/// Of each object a quarter is left when all is written: collection moves that later, which changes nothing.
const MONDAY: &str = "
for i in range(64):
    h.pwrite(bytes([1 + i]) * (256 << 10), i << 20)
    h.pwrite(bytes([99]) * (768 << 10), 80 << 20)
h.flush()";
/// What that leaves to be moved, at least: an object may begin in the midst of a piece.
const MOVED_BYTES_MIN: u64 = 12 << 20;
/// Blocks on their own, a run across the end of 64 MiB where nothing was, a hole where data was, and a block with the bytes that it had,
/// which counts as a change.
const TUESDAY: &str = "
for i in range(0, 32, 2): h.pwrite(bytes([200]) * 4096, (i << 20) + 8192)
h.pwrite(bytes([202]) * 8192, (64 << 20) - 4096)
h.trim(2 << 20, 40 << 20)
h.pwrite(bytes([51]) * 4096, 50 << 20)
h.flush()";
/// Of the trim, a quarter of each MiB held data.
const ZERO_BYTES: u64 = 512 << 10;
const CHANGED_BYTES: u64 = 16 * 4096 + 8192 + ZERO_BYTES + 4096;

fn incremental(world: &World) -> Result<()> {
    world.create("db1", "96M")?;
    let url = world.url("db1");
    let daemon = world.serve_with("db1", FLAGS)?;
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", MONDAY])?;
    ok(world, &["snapshot", "create", &url, "monday"])?;
    let monday = moment(world, &url, "monday")?;
    world.tool("nbdcopy", &[monday.uri(), "copy"])?;
    monday.close()?;
    let collected = ok(world, &["gc", &url, "--target", "1.05", "--json"])?;
    let collected: Value = serde_json::from_str(&collected).context("`lsvd gc` prints JSON")?;
    let moved_bytes = collected["moved_bytes"].as_u64().unwrap_or(0);
    ensure!(moved_bytes >= MOVED_BYTES_MIN, "collection moved {moved_bytes} bytes: nothing is shown");
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", TUESDAY])?;
    ok(world, &["snapshot", "create", &url, "tuesday"])?;
    let tuesday = moment(world, &url, "tuesday")?;

    let mut script = world.client("/usr/bin/python3");
    script.arg(shell::root().join("docs/examples/incremental.py")).args([tuesday.uri(), "monday", "copy"]);
    let said = shell::output_ok(&mut script, TOOL_LIMIT)?.stdout;
    let expected = format!("{CHANGED_BYTES} of {} bytes changed since monday\n", 96 << 20);
    ensure!(said == expected, "said {said:?} instead of {expected:?}");
    world.tool("nbdcopy", &[tuesday.uri(), "full"])?;
    world.tool("cmp", &["copy", "full"]).context("the copy that was brought up to date, and a full one")?;

    by_others(world, &daemon, &tuesday)?;
    tuesday.close()?;
    daemon.close()
}

/// What other clients make of it.
fn by_others(world: &World, daemon: &Daemon, tuesday: &Daemon) -> Result<()> {
    let listed = world.tool("nbdinfo", &["--no-content", tuesday.uri()])?.stdout;
    for name in ["base:allocation", CONTEXT, "lsvd:changed-since:tuesday"] {
        ensure!(listed.contains(name), "{name} is not listed: {listed}");
    }
    let map = world.tool("nbdinfo", &["--json", &format!("--map={CONTEXT}"), tuesday.uri()])?.stdout;
    let map: Vec<Value> = serde_json::from_str(&map).context("nbdinfo prints JSON")?;
    let flags = |extent: &Value| extent["type"].as_u64().unwrap_or(0);
    let bytes = |flag: u64| -> u64 {
        let with = map.iter().filter(|extent| flags(extent) & flag != 0);
        with.filter_map(|extent| extent["length"].as_u64()).sum()
    };
    ensure!((bytes(1), bytes(2)) == (CHANGED_BYTES, ZERO_BYTES), "nbdinfo says {map:?}");
    // Nothing has changed since itself.
    let itself = world.tool("nbdinfo", &["--map=lsvd:changed-since:tuesday", tuesday.uri()])?.stdout;
    let itself: Vec<&str> = itself.split_whitespace().take(3).collect();
    ensure!(itself == ["0", "100663296", "0"], "since itself: {itself:?}");

    let socket = tuesday.socket().display();
    let image = format!(
        "driver=nbd,server.type=unix,server.path={socket},export=db1@tuesday,x-dirty-bitmap={CONTEXT}"
    );
    let map = world.tool("qemu-img", &["map", "--output=json", "--image-opts", &image])?.stdout;
    let map: Vec<Value> = serde_json::from_str(&map).context("qemu-img prints JSON")?;
    // QEMU shows the first flag as the lack of data.
    let dirty = map.iter().filter(|extent| extent["data"] == false);
    let dirty: u64 = dirty.filter_map(|extent| extent["length"].as_u64()).sum();
    ensure!(dirty == CHANGED_BYTES, "QEMU says {dirty}: {map:?}");

    // What goes on changing has none: who asked is given no answer that it could rely on.
    let none =
        format!("assert h.can_meta_context('base:allocation') and not h.can_meta_context('{CONTEXT}')");
    let asks = format!("h.add_meta_context('base:allocation'); h.add_meta_context('{CONTEXT}')");
    let connects = format!("h.connect_uri('{}')", daemon.uri());
    world.tool("nbdsh", &["-c", &asks, "-c", &connects, "-c", &none])?;
    Ok(())
}

fn moment(world: &World, url: &str, name: &str) -> Result<Daemon> {
    let at = format!("{url}@{name}");
    let command: Command = world.lsvd();
    Daemon::start(&Serve { command: &command, dir: &world.dir, urls: &[&at], flags: &["--no-control"] })
}

fn ok(world: &World, arguments: &[&str]) -> Result<String> {
    let output = world.run_lsvd(arguments)?;
    ensure!(output.code() == 0, "`lsvd {}` ended with {}: {}", arguments[0], output.code(), output.stderr);
    Ok(output.stdout)
}

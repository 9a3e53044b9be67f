//! Clones through the daemon: what each shows while all of the other is overwritten and collected, a chain, and a life without the
//! parent.
//!
//! Knows the volumes by their clients alone. Invariant: what is compared is a copy that was made before the clone was.

use anyhow::{Context, Result, ensure};

use super::super::case::{Needs, World};
use super::Entry;
use super::snapshots::{PIECES, compare, fill, json};

pub(super) const CASES: &[Entry] = &[(
    "clones",
    "a clone beside its parent's daemon, both overwritten and collected; a clone of it; the parent refused to go, flattened from, and \
     removed (rules 5, 7)",
    Needs::Store,
    clones,
)];

const FLAGS: &[&str] = &["--batch", "1M", "--gc-target", "off", "--io-timeout", "5s", "--delete-after", "6s"];
/// The exit code of what is kept.
const PINNED: i32 = 10;

fn clones(world: &World) -> Result<()> {
    let (db1, db2, db3) = (world.url("db1"), world.url("db2"), world.url("db3"));
    world.create("db1", "64M")?;
    let parent = world.serve_with("db1", FLAGS)?;
    fill(world, parent.uri(), 1)?;
    world.tool("nbdcopy", &[parent.uri(), "copy"])?;
    let made = json(world, &["clone", &db1, &db2, "--json"])?;
    ensure!(made["through"] == "daemon", "not through the daemon: {made}");
    let clone = world.serve_with("db2", FLAGS)?;
    compare(world, clone.uri(), 32).context("a new clone")?;

    // All of the parent goes, and is collected; of the clone the half that is not compared.
    for round in 1..=2 {
        fill(world, parent.uri(), 100 * round)?;
        json(world, &["gc", &db1, "--target", "1.1", "--json"])?;
        let own = format!("for i in range(16): h.pwrite(bytes([{round} + i]) * (1 << 20), (32 + i) << 20)");
        world.tool("nbdsh", &["-u", clone.uri(), "-c", &own, "-c", "h.flush()"])?;
        json(world, &["gc", &db2, "--target", "1.1", "--json"])?;
    }
    clone.kill();
    let clone = world.serve_with("db2", FLAGS)?;
    compare(world, clone.uri(), 32).context("after collection on both sides and a crash")?;
    let shown =
        format!("assert h.pread(1, 0) == bytes([200])\nassert h.pread(1, {} << 20) == bytes([0])", 40);
    world.tool("nbdsh", &["-u", parent.uri(), "-c", &shown]).context("the parent shows the clone's")?;

    let chained = json(world, &["clone", &db2, &db3, "--json"])?;
    ensure!(chained["through"] == "daemon", "not through the daemon: {chained}");
    let last = world.serve_with("db3", FLAGS)?;
    compare(world, last.uri(), 32).context("a clone of the clone")?;
    last.close()?;
    for url in [&db1, &db2] {
        let refused = world.run_lsvd(&["rm", url, "--yes", "--if-free", "off"])?;
        world.failed_with(&refused, PINNED, &["its clones at ../db"])?;
    }
    let removed = world.run_lsvd(&["rm", &db3, "--yes", "--no-marker"])?;
    ensure!(removed.code() == 0, "rm of a clone ended with {}: {}", removed.code(), removed.stderr);
    let flat = json(world, &["flatten", &db2, "--json"])?;
    ensure!(flat["through"] == "daemon" && flat["released"] == true, "not flattened: {flat}");
    let moved = flat["moved_bytes"].as_u64().unwrap_or(0);
    ensure!(moved >= PIECES << 20, "{moved} bytes are not all that was shared");
    compare(world, clone.uri(), 32).context("flattened")?;
    parent.close()?;
    let removed = world.run_lsvd(&["rm", &db1, "--yes", "--no-marker"])?;
    ensure!(removed.code() == 0, "rm of the parent ended with {}: {}", removed.code(), removed.stderr);
    clone.kill();
    let clone = world.serve_with("db2", FLAGS)?;
    compare(world, clone.uri(), 32).context("without the parent")?;
    println!("  {} MiB copied to live without the parent", moved >> 20);
    clone.close()?;
    Ok(())
}

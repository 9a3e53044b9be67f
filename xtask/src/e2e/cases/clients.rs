//! Clients that lie, hang and vanish: nobody else notices.

use anyhow::{Context, Result, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::Entry;
use crate::shell;

pub(super) const CASES: &[Entry] =
    &[("hostile-clients", "garbage, absurd lengths, clients that vanish (rule 10)", Needs::Store, hostile)];

/// What a daemon may have at most: its ceilings of buffers and cache, what requests in flight hold, and itself.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

fn hostile(world: &World) -> Result<()> {
    let mut daemon = world.create_and_serve("db1", "1G")?;
    let run = |code: &str| world.tool("nbdsh", &["-u", daemon.uri(), "-c", code, "-c", "h.flush()"]);
    run("h.pwrite(b'k' * 100000, 12345678)")?;
    let socket = daemon.socket().to_str().context("the tree's path is text")?.to_owned();
    shell::output_ok(world.script("hostile.py").args([&socket, "db1"]), TOOL_LIMIT)?;
    run("assert h.pread(100000, 12345678) == b'k' * 100000")?;
    ensure!(daemon.runs(), "the daemon did not survive its clients");
    if let Some(memory) = daemon.memory_bytes_max() {
        ensure!(memory < MEMORY_BYTES_MAX, "the daemon grew to {} MiB", memory >> 20);
    }
    daemon.close()
}

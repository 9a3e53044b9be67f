//! A store that is gone, at the start and in mid-flight, and comes back (rules 4 and 10).

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::Entry;
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    (
        "store-gone-at-start",
        "no store, no daemon: an error with its own code",
        Needs::ServerProcess,
        gone_at_start,
    ),
    ("store-stalls", "a stalled store is an I/O error in time, then service resumes", Needs::Process, stalls),
    ("store-dies", "a flush outlives the store's death and restart (rules 1, 4)", Needs::ServerProcess, dies),
];

const STORE: i32 = 3;
/// What the stalled daemon is told to wait for its store.
const IO_TIMEOUT: Duration = Duration::from_secs(6);

fn gone_at_start(world: &World) -> Result<()> {
    world.create("db1", "64M")?;
    world.store.borrow_mut().kill();
    let url = world.url("db1");
    let started = Instant::now();
    let result = ["info", "serve"].into_iter().try_for_each(|command| {
        // Less than the defaults, which would be a minute and a third.
        let mut arguments = vec![command, url.as_str()];
        match command {
            "serve" => arguments.extend(["--listen", "unix:no.sock", "--io-timeout", "8s"]),
            _ => arguments.extend(["--timeout", "8s"]),
        }
        let output = shell::output(world.lsvd().args(arguments), Duration::from_secs(180))?;
        world
            .failed_with(&output, STORE, &["Connection refused", "127.0.0.1:"])
            .with_context(|| format!("lsvd {command}"))
    });
    let seconds = started.elapsed().as_secs();
    world.store.borrow_mut().restart()?;
    result?;
    println!("  two commands gave up on the absent store after {seconds} s together");
    world.serve("db1")?.close()
}

fn stalls(world: &World) -> Result<()> {
    world.create("db1", "64M")?;
    let mut daemon = world.serve_with("db1", &["--io-timeout", "6s"])?;
    let before = "h.pwrite(b'1' * 65536, 0)";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", before, "-c", "h.flush()"])?;
    world.store.borrow().pause();
    let started = Instant::now();
    let code = "h.pwrite(b'2' * 65536, 65536)\ntry:\n  h.flush()\n  raise SystemExit('acknowledged by nobody')\n\
                except nbd.Error as e:\n  assert e.errnum in (5, 110), e";
    let stalled = shell::output_ok(world.client("nbdsh").args(["-u", daemon.uri(), "-c", code]), TOOL_LIMIT);
    let took = started.elapsed();
    world.store.borrow().resume();
    stalled?;
    ensure!(took > IO_TIMEOUT / 2 && took < IO_TIMEOUT * 6, "the error came after {} s", took.as_secs());
    ensure!(daemon.runs(), "the daemon did not survive a stalled store");
    let after = "h.pwrite(b'3' * 65536, 131072)\nh.flush()\n\
                 assert h.pread(196608, 0) == b'1' * 65536 + b'2' * 65536 + b'3' * 65536";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", after])?;
    daemon.kill();
    let daemon = world.serve("db1")?;
    let there = "assert h.pread(196608, 0) == b'1' * 65536 + b'2' * 65536 + b'3' * 65536";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", there])?;
    daemon.close()
}

fn dies(world: &World) -> Result<()> {
    let mut daemon = world.create_and_serve("db1", "64M")?;
    let before = "h.pwrite(b'1' * 65536, 0)";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", before, "-c", "h.flush()"])?;
    world.store.borrow_mut().kill();
    // Flushed while nobody is there: it waits, and is answered when the store is back.
    let mut command = world.client("nbdsh");
    let code = "h.pwrite(b'2' * 65536, 65536)\nh.flush()";
    command.args(["-u", daemon.uri(), "-c", code]).stdin(Stdio::null());
    let mut flush = command.spawn()?;
    std::thread::sleep(Duration::from_secs(3));
    let early = flush.try_wait()?;
    world.store.borrow_mut().restart()?;
    ensure!(early.is_none(), "a flush was answered with {early:?} while the store was dead");
    let status = shell::wait(&mut flush, TOOL_LIMIT)?.context("the flush was never answered")?;
    ensure!(status.success(), "the flush failed though the store came back in time");
    ensure!(daemon.runs(), "the daemon did not survive its store's death");
    daemon.kill();
    let daemon = world.serve("db1")?;
    let there = "assert h.pread(131072, 0) == b'1' * 65536 + b'2' * 65536";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", there])?;
    daemon.close()
}

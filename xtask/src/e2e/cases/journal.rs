//! The local journal when it is gone, old, another's, in use or out of room (rules 1 and 10).
//!
//! Each refusal is exit code 9 with words that say what to do, before anybody is fenced. What only a lost journal held may be
//! gone; what is left is a prefix all the same. Knows no journal's inside. Who is refused does not depend on the store, so that is
//! shown on the quickest.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::super::rounds::{SEVERAL, Subject};
use super::Entry;
use crate::crash::load::Shape;
use crate::numbers::Numbers;
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    ("journal-lost", "refused without its journal; given up for lost, a prefix (rule 1)", Needs::Store, lost),
    (
        "journal-copies",
        "an old copy and another volume's journal are refused (rule 1)",
        Needs::Directory,
        copies,
    ),
    (
        "journal-in-use",
        "a second daemon is refused, or takes over by giving the journal up (rules 1, 9)",
        Needs::Directory,
        in_use,
    ),
    ("journal-full", "a full journal makes flushes wait for the store (rules 1, 10)", Needs::Store, full),
    (
        "journal-disk-full",
        "a full disk below the journal does the same (rules 1, 10)",
        Needs::Mounts,
        disk_full,
    ),
];

/// The exit code of whatever a journal is the reason of.
const JOURNAL: i32 = 9;
/// The exit code of a daemon that was taken over from.
const FENCED: i32 = 4;
/// Kills on a full journal, and on a full disk.
const KILLS: u32 = 2;

/// Flags of a daemon whose journals are in `dir`.
fn flags(dir: &Path) -> [String; 4] {
    ["--flush", "journal", "--journal", &dir.display().to_string()].map(str::to_owned)
}

fn words<'a>(flags: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    flags.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

/// Serving the volume `name` must fail, and say `said`.
fn refused(world: &World, name: &str, flags: &[&str], said: &[&str]) -> Result<()> {
    let url = world.url(name);
    let serve = ["serve", &url, "--listen", "unix:refused.sock"];
    let output = world.run_lsvd(&[&serve, flags].concat())?;
    world.failed_with(&output, JOURNAL, said).with_context(|| format!("lsvd serve {}", flags.join(" ")))
}

fn replace(journal: &Path, by: &Path) -> Result<()> {
    if journal.exists() {
        fs::remove_dir_all(journal)?;
    }
    let mut copy = std::process::Command::new("cp");
    shell::output_ok(copy.arg("-a").arg(by).arg(journal), TOOL_LIMIT).map(|_| ())
}

fn lost(world: &World) -> Result<()> {
    let journal = world.dir.join("journal");
    let flags = flags(&journal);
    let chance = &mut Numbers::new(world.seed);
    let mut subject = Subject::create(world, "db1")?;
    // The store gets what fills a batch; the rest is the journal's alone.
    let serve = words(&flags, &["--batch-age", "1h"]);
    // A directory is quick; on another store once shows the same.
    let losses = if world.store.borrow().is_directory() { 3 } else { 1 };
    for loss in 0..losses {
        // A clean close puts all into the store, so that what may be gone is what comes after.
        let daemon = subject.serve(&serve)?;
        subject.check(&daemon, true).with_context(|| format!("before loss {loss}"))?;
        subject.write_and_close(daemon, chance)?;
        let daemon = subject.serve(&serve)?;
        subject.check(&daemon, true)?;
        subject.write_and_kill(daemon, chance)?;
        fs::remove_dir_all(&journal)?;
        let helps = ["in use", "--journal", "--abandon-journal"];
        refused(world, "db1", &[], &helps)?;
        refused(world, "db1", &words(&flags, &[]), &helps)?;
        let daemon = subject.serve(&words(&flags, &["--batch-age", "1h", "--abandon-journal"]))?;
        subject.check(&daemon, false).with_context(|| format!("loss {loss}"))?;
        ensure!(daemon.log().contains("given up"), "nothing was said of the lost journal");
        subject.write_and_kill(daemon, chance)?;
    }
    let daemon = subject.serve(&serve)?;
    subject.check(&daemon, true)?;
    println!("  {}", subject.tally);
    ensure!(subject.tally.waived > 0, "a lost journal never lost anything: nothing was shown");
    daemon.close()
}

fn copies(world: &World) -> Result<()> {
    let [journal, other, copy] = ["journal", "other", "copy"].map(|name| world.dir.join(name));
    let (flags, others) = (flags(&journal), flags(&other));
    let chance = &mut Numbers::new(world.seed);
    let mut subject = Subject::create(world, "db1")?;
    let daemon = subject.serve(&words(&flags, &["--batch-age", "1h"]))?;
    subject.write_and_kill(daemon, chance)?;
    fs::create_dir(&copy)?;
    replace(&copy.join("db1"), &journal.join("db1"))?;

    // The journal's own writer goes on, and its disk is wound back.
    let daemon = subject.serve(&words(&flags, &[]))?;
    subject.check(&daemon, true)?;
    subject.write_and_kill(daemon, chance)?;
    let newest = world.dir.join("newest");
    replace(&newest, &journal.join("db1"))?;
    replace(&journal.join("db1"), &copy.join("db1"))?;
    refused(world, "db1", &words(&flags, &[]), &["went on without it", "--abandon-journal"])?;
    replace(&journal.join("db1"), &newest)?;
    let daemon = subject.serve(&words(&flags, &[]))?;
    subject.check(&daemon, true).context("the newest journal put back")?;
    // What may be gone is what comes after the clean close.
    daemon.close()?;
    let daemon = subject.serve(&words(&flags, &[]))?;
    subject.write_and_kill(daemon, chance)?;

    // Another host's writer goes on: with its journal in use, and when that one is closed.
    let daemon = subject.serve(&words(&others, &["--abandon-journal"]))?;
    subject.check(&daemon, false)?;
    subject.write_and_kill(daemon, chance)?;
    refused(world, "db1", &words(&flags, &[]), &["in use", "--abandon-journal"])?;
    let daemon = subject.serve(&words(&others, &[]))?;
    subject.check(&daemon, true)?;
    subject.write_and_close(daemon, chance)?;
    refused(world, "db1", &words(&flags, &[]), &["went on without it", "--abandon-journal"])?;
    let daemon = subject.serve(&[])?;
    subject.check(&daemon, true)?;
    daemon.close()?;

    world.create("db2", "16M")?;
    replace(&copy.join("db2"), &journal.join("db1"))?;
    refused(world, "db2", &words(&self::flags(&copy), &[]), &["of volume", "use another directory"])?;
    println!("  {}", subject.tally);
    Ok(())
}

fn in_use(world: &World) -> Result<()> {
    let [journal, other] = ["journal", "other"].map(|name| world.dir.join(name));
    let flags = flags(&journal);
    let mut subject = Subject::create(world, "db1")?;
    let mut daemon = subject.serve(&words(&flags, &[]))?;
    let calm = Shape { rate: 500, ..SEVERAL };
    let load = subject.load(&daemon, calm, world.seed)?;
    refused(world, "db1", &words(&flags, &[]), &["in use by another process", "stop"])?;
    refused(world, "db1", &words(&self::flags(&other), &[]), &["in use", "--abandon-journal"])?;
    refused(world, "db1", &[], &["in use", "--abandon-journal"])?;
    sleep(Duration::from_millis(300));
    ensure!(daemon.runs(), "the first daemon did not survive the second");
    let acknowledged = subject.end(load)?;
    ensure!(acknowledged > 0, "nothing was ever acknowledged as durable: nothing was shown");
    ensure!(subject.failures() == 0, "{} requests to the first daemon failed", subject.failures());
    daemon.kill();
    let daemon = subject.serve(&words(&flags, &[]))?;
    subject.check(&daemon, true)?;
    // What may be gone is what comes after the clean close.
    daemon.close()?;

    // Who gives the journal up takes the volume: the first daemon is fenced, and its journal is of no use any more.
    let mut daemon = subject.serve(&words(&flags, &[]))?;
    let load = subject.load(&daemon, calm, world.seed + 1)?;
    sleep(Duration::from_millis(300));
    let taker = subject.serve(&words(&self::flags(&other), &["--abandon-journal"]))?;
    subject.end(load)?;
    let code = daemon.exit_code(TOOL_LIMIT)?;
    ensure!(code == FENCED, "the first daemon ended with {code}: {}", shell::tail(&daemon.log(), 6));
    subject.check(&taker, false)?;
    refused(world, "db1", &words(&flags, &[]), &["in use", "--abandon-journal"])?;
    subject.write_and_kill(taker, &mut Numbers::new(world.seed))?;
    let daemon = subject.serve(&words(&self::flags(&other), &[]))?;
    subject.check(&daemon, true)?;
    println!("  {}", subject.tally);
    daemon.close()
}

/// What is said when there is no room.
const FULL: &str = "the journal is full";

fn full(world: &World) -> Result<()> {
    let flags = flags(&world.dir.join("journal"));
    fills_up(
        world,
        &words(&flags, &["--journal-size", "2M", "--batch", "1M", "--batch-age", "1h"]),
        || Ok(()),
    )
}

fn disk_full(world: &World) -> Result<()> {
    let small = world.dir.join("small");
    fs::create_dir_all(&small)?;
    let path = small.to_str().context("the tree's path is text")?;
    world.tool("mount", &["-t", "tmpfs", "-o", "size=3m", "none", path])?;
    let flags = flags(&small);
    let result = fills_up(world, &words(&flags, &["--batch", "1M", "--batch-age", "1h"]), || {
        // Somebody else fills the rest of the disk, and makes room again.
        let filler: PathBuf = small.join("filler");
        let filled = fs::write(&filler, vec![1; 4 << 20]);
        ensure!(filled.is_err(), "4 MiB went onto 3 MiB");
        sleep(Duration::from_millis(500));
        Ok(fs::remove_file(&filler)?)
    });
    let unmounted = shell::output(world.client("umount").args(["--lazy", path]), TOOL_LIMIT);
    result.and(unmounted.map(|_| ()))
}

/// A load fills the journal, flushes go on all the same, and nothing is lost when the daemon is killed.
fn fills_up(world: &World, flags: &[&str], meanwhile: impl Fn() -> Result<()>) -> Result<()> {
    let chance = &mut Numbers::new(world.seed);
    let mut subject = Subject::create(world, "db1")?;
    for kill in 0..KILLS {
        let mut daemon = subject.serve(flags)?;
        subject.check(&daemon, true).with_context(|| format!("after kill {kill}"))?;
        let load = subject.load(&daemon, SEVERAL, chance.next())?;
        sleep(Duration::from_millis(700));
        meanwhile()?;
        sleep(Duration::from_millis(chance.below(700)));
        ensure!(daemon.runs(), "the daemon did not survive: {}", shell::tail(&daemon.log(), 6));
        ensure!(daemon.log().contains(FULL), "the journal was never full: nothing was shown");
        if kill == 1 {
            // Nothing is stuck: what is in flight is answered.
            let acknowledged = subject.end(load)?;
            ensure!(acknowledged > 0, "nothing was ever acknowledged as durable");
            ensure!(subject.failures() == 0, "{} requests failed", subject.failures());
            daemon.kill();
        } else {
            daemon.kill();
            subject.end(load)?;
        }
    }
    let daemon = subject.serve(flags)?;
    subject.check(&daemon, true)?;
    println!("  {}", subject.tally);
    daemon.close()
}

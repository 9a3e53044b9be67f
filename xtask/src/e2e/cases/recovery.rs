//! What is there after a daemon died: by blocks, and by the host's own file system.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::super::mount::Attached;
use super::super::{Daemon, daemon::Serve};
use super::Entry;
use super::takeover::Writer;
use crate::numbers::Numbers;
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    ("kill", "killed ten times under load: a prefix with all that was flushed (rule 1)", Needs::Store, kill),
    (
        "ext4",
        "mkfs, copy, sync, kill mid-write, serve elsewhere, fsck clean, files equal",
        Needs::Mounts,
        ext4,
    ),
    (
        "read-only",
        "a read-only daemon serves, refuses writes and writes nothing (rule 3)",
        Needs::Store,
        read_only,
    ),
];

const KILLS: u32 = 10;

fn kill(world: &World) -> Result<()> {
    world.create("db1", "1G")?;
    let mut chance = Numbers::new(world.seed);
    let mut acknowledged = 0;
    for round in 0..KILLS {
        let daemon = world.serve("db1")?;
        if round > 0 {
            Writer::check(world, daemon.uri())?;
        }
        let writer = Writer::start(world, daemon.uri())?;
        std::thread::sleep(Duration::from_millis(300 + chance.below(1200)));
        daemon.kill();
        acknowledged = writer.end(Duration::from_secs(30))?.acknowledged;
    }
    let daemon = world.serve("db1")?;
    Writer::check(world, daemon.uri())?;
    ensure!(acknowledged > 0, "no flush was ever acknowledged: nothing was shown");
    daemon.close()
}

fn read_only(world: &World) -> Result<()> {
    let daemon = world.create_and_serve("db1", "64M")?;
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", "h.pwrite(b'r' * 8192, 4096)", "-c", "h.flush()"])?;
    daemon.close()?;
    let info = || Ok::<_, anyhow::Error>(world.run_lsvd(&["info", &world.url("db1"), "--json"])?.stdout);
    let before = info()?;
    let daemon = world.serve_with("db1", &["--read-only"])?;
    let code = "assert h.is_read_only()\nassert h.pread(8192, 4096) == b'r' * 8192";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", code])?;
    let code = "h.set_strict_mode(0)\ntry:\n  h.pwrite(b'x', 0)\n  raise SystemExit('a write was taken')\n\
                except nbd.Error as e:\n  assert e.errnum in (1, 22, 30), e";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", code])?;
    daemon.close()?;
    ensure!(info()? == before, "a read-only opening left something behind:\n{before}\n{}", info()?);
    Ok(())
}

/// Writes `files` files of seeded content, so that no earlier run's file can pass for one of these.
fn generated_tree(dir: &Path, seed: u64, files: u64) -> Result<()> {
    let mut numbers = Numbers::new(seed);
    for index in 0..files {
        let sub = dir.join(format!("d{}", index % 17));
        std::fs::create_dir_all(&sub)?;
        // Many small, some empty, a few large.
        let bytes = match index % 10 {
            0 => 0,
            1..=7 => numbers.below(20_000),
            8 => numbers.below(300_000),
            _ => numbers.below(2_000_000),
        };
        let mut content = vec![0; usize::try_from(bytes)?];
        numbers.fill(&mut content);
        std::fs::write(sub.join(format!("f{index}")), content)?;
    }
    Ok(())
}

/// Digests of all files below `dir`, by name.
fn digests(dir: &Path) -> Result<String> {
    let mut command = Command::new("sh");
    command.current_dir(dir).args(["-c", "find . -type f -print0 | sort -z | xargs -0 sha256sum"]);
    Ok(shell::output_ok(&mut command, TOOL_LIMIT)?.stdout)
}

fn ext4(world: &World) -> Result<()> {
    let daemon = world.create_and_serve("db1", "4G")?;
    let files = world.dir.join("mnt");
    let mut attached = Attached::new(daemon.uri(), &world.dir)?;
    shell::output_ok(world.client("mkfs.ext4").args(["-q", attached.device()]), TOOL_LIMIT)?;
    attached.mount(&files)?;
    let real = ["/usr/include/linux", "/usr/share/perl5", "/usr/share/doc"];
    if let Some(tree) = real.iter().find(|tree| Path::new(tree).is_dir()) {
        world.tool("cp", &["-rL", tree, "mnt/copied"])?;
    }
    let synced = files.join("synced");
    generated_tree(&synced, world.seed, 300)?;
    world.tool("sync", &["--file-system", "mnt"])?;
    let before = digests(&files)?;
    ensure!(before.lines().count() >= 300, "only {} files", before.lines().count());

    // Data and metadata are being written when the daemon dies.
    let churn = "i=0; while :; do head -c 300000 /dev/urandom > later/$i || exit; i=$((i + 1)); \
                 [ $((i % 7)) = 0 ] && sync -f later; done";
    std::fs::create_dir(files.join("later"))?;
    let mut churn = Command::new("sh")
        .current_dir(&files)
        .args(["-c", churn])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    std::thread::sleep(Duration::from_millis(2500));
    daemon.kill();
    std::thread::sleep(Duration::from_millis(300));
    let _ = churn.kill();
    if shell::wait(&mut churn, Duration::from_secs(60))?.is_none() {
        println!("  the writer hangs in the kernel after its disk died");
    }
    drop(attached);

    // Elsewhere: another home, another directory, nothing but the bucket.
    let elsewhere = world.dir.join("elsewhere");
    std::fs::create_dir_all(&elsewhere)?;
    let mut command = world.lsvd();
    command.current_dir(&elsewhere).env("HOME", &elsewhere);
    let url = world.url("db1");
    let daemon = Daemon::start(&Serve { command: &command, dir: &world.dir, urls: &[&url], flags: &[] })?;
    let mut attached = Attached::new(daemon.uri(), &world.dir)?;
    attached.mount(&files).context("mounting after the loss: the journal did not replay")?;
    let after = digests(&files)?;
    for line in before.lines() {
        ensure!(after.contains(line), "lost or changed after the daemon died: {line}");
    }
    generated_tree(&files.join("more"), world.seed + 1, 50)?;
    attached.unmount()?;
    let fsck = shell::output(world.client("e2fsck").args(["-f", "-n", attached.device()]), TOOL_LIMIT)?;
    ensure!(fsck.code() == 0, "e2fsck ended with {}: {}{}", fsck.code(), fsck.stdout, fsck.stderr);
    drop(attached);
    daemon.close()
}

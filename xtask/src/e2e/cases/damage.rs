//! Damaged objects, found by hand in a directory: never silently shorter, never wrong data (rules 3, 4 and 5).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::Entry;
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    (
        "damaged-data",
        "a flipped byte is an I/O error that names the object (rule 5)",
        Needs::Directory,
        damaged_data,
    ),
    (
        "damaged-log",
        "a damaged object in the log stops an opening, by name (rules 3, 4)",
        Needs::Directory,
        damaged_log,
    ),
    (
        "damaged-root",
        "damaged and truncated superblocks are named (rules 4, 5)",
        Needs::Directory,
        damaged_root,
    ),
    (
        "disk-full",
        "a full disk is an I/O error, and service resumes with space (rule 10)",
        Needs::Directory,
        disk_full,
    ),
];

const CORRUPT: i32 = 5;

/// The volume's directory.
fn volume(world: &World, name: &str) -> PathBuf {
    PathBuf::from(world.url(name).trim_start_matches("file://"))
}

/// Objects in a part of the volume, by name.
fn objects(world: &World, name: &str, part: &str) -> Result<Vec<PathBuf>> {
    let dir = volume(world, name).join(part);
    let mut found = std::fs::read_dir(&dir)
        .with_context(|| format!("cannot list {}", dir.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    found.sort();
    Ok(found)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Inverts one byte.
fn flip(path: &Path, at: usize) -> Result<()> {
    let mut bytes = std::fs::read(path)?;
    let byte = bytes.get_mut(at).context("the object is shorter than where it is to be damaged")?;
    *byte = !*byte;
    std::fs::write(path, bytes)?;
    Ok(())
}

/// Log objects that hold data, largest last: fences and the like are small.
fn by_size(mut objects: Vec<PathBuf>) -> Vec<PathBuf> {
    objects.sort_by_key(|path| path.metadata().map(|metadata| metadata.len()).unwrap_or(0));
    objects
}

/// A volume with three flushed MiB of different letters, closed.
fn three_letters(world: &World, name: &str) -> Result<()> {
    let daemon = world.create_and_serve(name, "64M")?;
    for (index, letter) in ["a", "b", "c"].iter().enumerate() {
        let write = format!("h.pwrite(b'{letter}' * {}, {})", 1 << 20, index << 20);
        world.tool("nbdsh", &["-u", daemon.uri(), "-c", &write, "-c", "h.flush()"])?;
    }
    daemon.close()
}

fn damaged_data(world: &World) -> Result<()> {
    three_letters(world, "db1")?;
    let data = by_size(objects(world, "db1", "log")?);
    let victim = data.iter().rev().nth(1).context("three flushes left fewer than two log objects")?;
    let length = usize::try_from(victim.metadata()?.len())?;
    flip(victim, length - 5000)?;
    let daemon = world.serve("db1")?;
    // Of the three MiB exactly one has a block that can not be read; what can be read is right.
    let code = "bad = 0\nfor i in range(768):\n  try:\n    block = h.pread(4096, i * 4096)\n    \
                assert block == b'abc'[i // 256:i // 256 + 1] * 4096, i\n  except nbd.Error as e:\n    \
                assert e.errnum == 5, e\n    bad += 1\nassert 1 <= bad <= 256, bad";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", code])?;
    let log = daemon.log();
    ensure!(log.contains(&file_name(victim)), "the log does not name {}: {log}", file_name(victim));
    // The damage is the object's, not the volume's: writing the block anew mends what it holds.
    let code = "for i in range(768):\n  h.pwrite(b'd' * 4096, i * 4096)\nh.flush()\n\
                assert h.pread(4096 * 768, 0) == b'd' * 4096 * 768";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", code])?;
    daemon.close()
}

fn damaged_log(world: &World) -> Result<()> {
    three_letters(world, "db1")?;
    let log = objects(world, "db1", "log")?;
    let victim = by_size(log.clone()).into_iter().rev().nth(1).context("too few log objects")?;
    flip(&victim, 100)?;
    let url = world.url("db1");
    let refused = world.run_lsvd(&["serve", &url, "--listen", "unix:no.sock"])?;
    world.failed_with(&refused, CORRUPT, &[&file_name(&victim)])?;
    ensure!(objects(world, "db1", "log")?.starts_with(&log), "the refused opening removed log objects");
    let daemon = world.serve_with("db1", &["--read-only"])?;
    let code = "assert h.pread(4096, 0) in (b'a' * 4096, bytes(4096))";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", code])?;
    ensure!(
        daemon.log().contains(&file_name(&victim)),
        "read-only does not say what is damaged: {}",
        daemon.log()
    );
    daemon.close()?;
    // Mended, all of it is there again.
    flip(&victim, 100)?;
    let daemon = world.serve("db1")?;
    let code = "assert h.pread(3 << 20, 0) == b'a' * (1 << 20) + b'b' * (1 << 20) + b'c' * (1 << 20)";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", code])?;
    daemon.close()
}

fn damaged_root(world: &World) -> Result<()> {
    world.create("db1", "64M")?;
    let roots = objects(world, "db1", "superblock")?;
    let whole: Vec<Vec<u8>> = roots.iter().map(std::fs::read).collect::<std::io::Result<_>>()?;
    let url = world.url("db1");
    let last = roots.last().context("a volume without superblock")?;
    let name = file_name(last);
    for (what, damage) in [("flipped", 1), ("truncated", 2), ("empty", 3)] {
        for (path, bytes) in roots.iter().zip(&whole) {
            let mut bytes = bytes.clone();
            let middle = bytes.len() / 2;
            match damage {
                1 => bytes[middle] = !bytes[middle],
                2 => bytes.truncate(middle),
                _ => bytes.clear(),
            }
            std::fs::write(path, bytes)?;
        }
        for arguments in [&["info", url.as_str()][..], &["serve", &url, "--listen", "unix:no.sock"]] {
            let output = world.run_lsvd(arguments)?;
            world.failed_with(&output, CORRUPT, &[&name]).with_context(|| format!("a {what} superblock"))?;
        }
    }
    for (path, bytes) in roots.iter().zip(&whole) {
        std::fs::write(path, bytes)?;
    }
    world.serve("db1")?.close()
}

fn disk_full(world: &World) -> Result<()> {
    if world.skip_part_unless(super::super::mount::lacking().is_none(), "a small file system needs mounts")? {
        return Ok(());
    }
    let dir = world.dir.join("small");
    std::fs::create_dir_all(&dir)?;
    let path = dir.to_str().context("the tree's path is text")?;
    world.tool("mount", &["-t", "tmpfs", "-o", "size=24m", "none", path])?;
    let result = fill_and_grow(world, path);
    let unmounted = shell::output(world.client("umount").args(["--lazy", path]), TOOL_LIMIT);
    result.and(unmounted.map(|_| ()))
}

fn fill_and_grow(world: &World, path: &str) -> Result<()> {
    use super::super::daemon::{Daemon, Serve};
    let url = format!("file://{path}/db1");
    let created = world.run_lsvd(&["create", &url, "--size", "1G"])?;
    ensure!(created.code() == 0, "`lsvd create`: {}", created.stderr);
    let serve =
        Serve { command: &world.lsvd(), dir: &world.dir, urls: &[&url], flags: &["--io-timeout", "5s"] };
    let mut daemon = Daemon::start(&serve)?;
    let write =
        "import random\nfor i in range(40):\n  h.pwrite(random.Random(i).randbytes(1 << 20), i << 20)\n";
    let full = format!(
        "try:\n  exec('''{write}''')\n  h.flush()\n  raise SystemExit('40 MiB went onto 24 MiB')\n\
         except nbd.Error as e:\n  assert e.errnum in (5, 28), e"
    );
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", &full])?;
    ensure!(daemon.runs(), "the daemon did not survive a full disk");
    world.tool("mount", &["-o", "remount,size=256m", path])?;
    let read = "import random\nfor i in range(40):\n  \
                assert h.pread(1 << 20, i << 20) == random.Random(i).randbytes(1 << 20), i";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", write, "-c", "h.flush()", "-c", read])?;
    daemon.kill();
    let daemon = Daemon::start(&serve)?;
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", read])?;
    daemon.close()
}

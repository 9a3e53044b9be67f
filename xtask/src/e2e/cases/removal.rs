//! A volume is deleted: what the store itself lists afterwards, and who does no harm any more.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::Entry;
use super::takeover::Writer;
use crate::shell;

pub(super) const CASES: &[Entry] = &[(
    "removal",
    "a killed writer's volume removed, rm killed too; then one made in its place beside an idle daemon of the old one; the store \
     lists nothing else (rules 2, 9)",
    Needs::Store,
    rm,
)];

/// The exit codes of what was fenced, and of what is not there.
const FENCED: i32 = 4;
const ABSENT: i32 = 6;

fn rm(world: &World) -> Result<()> {
    let daemon = world.create_and_serve("db1", "1G")?;
    let writer = Writer::start(world, daemon.uri())?;
    std::thread::sleep(Duration::from_secs(2));
    daemon.kill();
    ensure!(writer.end(Duration::from_secs(30))?.acknowledged > 0, "nothing was stored");
    let before = listed(world, "db1")?.len();
    ensure!(before > 10, "{before} objects are few to be removed");

    let url = world.url("db1");
    let arguments = ["rm", &url, "--yes", "--if-free", "off", "--archive"];
    let mut first = world.lsvd();
    let mut first = first.args(arguments).stderr(std::process::Stdio::null()).spawn().context("no rm")?;
    std::thread::sleep(Duration::from_millis(100));
    first.kill().and_then(|()| first.wait()).context("rm can not be killed")?;
    let again = world.run_lsvd(&arguments)?;
    ensure!([0, ABSENT].contains(&again.code()), "rm after rm ended with {}: {}", again.code(), again.stderr);
    only_marker(world, "db1")?;
    world.failed_with(&world.run_lsvd(&["info", &url])?, ABSENT, &["no volume"])?;

    let mut idle = world.create_and_serve("db1", "64M")?;
    world.tool("nbdsh", &["-u", idle.uri(), "-c", "h.pwrite(b'o' * 8192, 0)", "-c", "h.flush()"])?;
    let removed = world.run_lsvd(&arguments)?;
    ensure!(removed.code() == 0, "ended with {}: {}", removed.code(), removed.stderr);
    let new = world.create_and_serve("db1", "64M")?;
    let fresh = "assert h.pread(8192, 0) == bytes(8192)\nh.pwrite(b'n' * 8192, 0)\nh.flush()";
    world.tool("nbdsh", &["-u", new.uri(), "-c", fresh])?;
    let refused = "try:\n  h.pwrite(b'o' * 4096, 0)\n  h.flush()\n  raise SystemExit('it was taken')\nexcept nbd.Error: pass";
    world.tool("nbdsh", &["-u", idle.uri(), "-c", refused])?;
    let code = idle.exit_code(Duration::from_secs(30))?;
    ensure!(code == FENCED, "the idle daemon of the old volume ended with {code}");
    let whole = "assert h.pread(8192, 0) == b'n' * 8192\nh.pwrite(b'm' * 4096, 4096)\nh.flush()";
    world.tool("nbdsh", &["-u", new.uri(), "-c", whole])?;
    new.close()?;
    let new = world.serve("db1")?;
    world.tool("nbdsh", &["-u", new.uri(), "-c", "assert h.pread(8192, 0) == b'n' * 4096 + b'm' * 4096"])?;
    new.close()?;

    let removed = world.run_lsvd(&["rm", &url, "--yes", "--archive", "--no-marker"])?;
    ensure!(removed.code() == 0, "ended with {}: {}", removed.code(), removed.stderr);
    let left = listed(world, "db1")?;
    ensure!(left.is_empty(), "the store lists {left:?}");
    Ok(())
}

fn only_marker(world: &World, name: &str) -> Result<()> {
    let left = listed(world, name)?;
    let is = |folder: &str| left.iter().filter(|name| name.starts_with(folder)).count() == 1;
    ensure!(left.len() == 2 && is("superblock/") && is("log/"), "the store lists {left:?}");
    Ok(())
}

/// All names below the volume's prefix, as the store itself or another client than lsvd lists them.
fn listed(world: &World, name: &str) -> Result<Vec<String>> {
    let store = world.store.borrow();
    if !store.is_directory() {
        let output = shell::output_ok(store.objects().args(["list", &world.url(name)]), TOOL_LIMIT)?;
        return Ok(output.stdout.lines().map(str::to_owned).collect());
    }
    let root = PathBuf::from(world.url(name).trim_start_matches("file://"));
    let mut names = Vec::new();
    walk(&root, &root, &mut names)?;
    // Unfinished files of a writer that was killed are no objects; `lsvd doctor` names them.
    names.retain(|name| !name.contains('#'));
    Ok(names)
}

fn walk(root: &Path, folder: &Path, names: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => walk(root, &path, names)?,
            false => names.push(path.strip_prefix(root)?.display().to_string()),
        }
    }
    Ok(())
}

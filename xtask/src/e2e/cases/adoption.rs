//! The seed's format, both ways: what a stranger's encoder wrote is served, and what is written is replayed by the stranger.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::Entry;
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    (
        "adopt",
        "a bucket in the seed's format, with a gap and full headers, is adopted and read to the byte (rule 3)",
        Needs::Store,
        adopt,
    ),
    (
        "format-1",
        "what is written in the seed's format is replayed by a stranger to the byte, after a kill too",
        Needs::Store,
        format_1,
    ),
];

const SIZE_BYTES: u64 = 16 << 20;

/// Runs the stranger on the files in `objects` and gives the image that it wrote.
fn stranger(world: &World, what: &str, objects: &Path, flags: &[&str]) -> Result<PathBuf> {
    let image = objects.with_extension(what);
    let mut script = world.script("seed.py");
    shell::output_ok(script.arg(what).arg(objects).arg(&image).args(flags), TOOL_LIMIT)?;
    Ok(image)
}

/// Puts the files in `from` into the store, by another client than lsvd.
fn upload(world: &World, from: &Path, name: &str) -> Result<()> {
    let store = world.store.borrow();
    if !store.is_directory() {
        shell::output_ok(store.objects().arg("upload").arg(from).arg(world.url(name)), TOOL_LIMIT)?;
        return Ok(());
    }
    let to = PathBuf::from(world.url(name).trim_start_matches("file://"));
    std::fs::create_dir_all(&to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// What the stranger makes of the objects that are in the store.
fn replayed(world: &World, name: &str) -> Result<PathBuf> {
    let size = SIZE_BYTES.to_string();
    let store = world.store.borrow();
    let objects = match store.is_directory() {
        true => PathBuf::from(world.url(name).trim_start_matches("file://")),
        false => {
            let to = world.dir.join("downloaded");
            let _ = std::fs::remove_dir_all(&to);
            std::fs::create_dir_all(&to)?;
            shell::output_ok(store.objects().args(["download", &world.url(name)]).arg(&to), TOOL_LIMIT)?;
            to
        }
    };
    stranger(world, "replay", &objects, &["--bytes", &size])
}

/// Whether the device holds what the image does.
fn same(world: &World, uri: &str, image: &Path) -> Result<()> {
    let copy = world.dir.join("copy");
    world.tool("nbdcopy", &[uri, &copy.to_string_lossy()])?;
    ensure!(std::fs::read(copy)? == std::fs::read(image)?, "{} and the device differ", image.display());
    Ok(())
}

/// From the last write to when it counts as past, where nothing can be written in the past.
const QUIET: Duration = Duration::from_secs(2);

fn adopt(world: &World) -> Result<()> {
    let old = world.dir.join("objects");
    std::fs::create_dir_all(&old)?;
    let seed = world.seed.to_string();
    let flags = [
        "--seed",
        &seed,
        "--blocks",
        "4096",
        "--objects",
        "60",
        "--full",
        "2",
        "--digits",
        "8",
        "--gap",
        "55",
    ];
    let image = stranger(world, "encode", &old, &flags)?;
    upload(world, &old, "old")?;
    let url = world.url("old");
    let growing = world.run_lsvd(&["adopt", &url, "--size", "16M"])?;
    world.failed_with(&growing, 8, &["still growing"])?;
    let mut flags = vec!["adopt", &url, "--size", "16M"];
    let quiet = format!("{}s", QUIET.as_secs());
    if world.store.borrow().is_directory() {
        for entry in std::fs::read_dir(url.trim_start_matches("file://"))? {
            let path = entry?.path();
            if path.is_file() {
                let object = std::fs::File::options().write(true).open(path)?;
                object.set_modified(SystemTime::now() - Duration::from_secs(3600))?;
            }
        }
    } else {
        // Stores tell the time of a write by the second.
        sleep(QUIET + Duration::from_secs(2));
        flags.extend(["--quiet-for", &quiet]);
    }
    let adopted = world.run_lsvd(&flags)?;
    ensure!(adopted.code() == 0, "`lsvd adopt` ended with {}: {}", adopted.code(), adopted.stderr);
    ensure!(adopted.stdout.contains("5 objects beyond it were moved"), "{}", adopted.stdout);
    let daemon = world.serve("old")?;
    same(world, daemon.uri(), &image)?;
    let code = "assert h.can_trim()\nh.pwrite(b'x' * 5000, 1 << 20)\nh.trim(1 << 20, 2 << 20)\nh.flush()";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", code])?;
    daemon.kill();
    let daemon = world.serve("old")?;
    let code =
        "assert h.pread(5000, 1 << 20) == b'x' * 5000\nassert h.pread(1 << 20, 2 << 20) == bytes(1 << 20)";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", code])?;
    daemon.close()
}

fn format_1(world: &World) -> Result<()> {
    let flags = ["--size", "16M", "--log-format", "1", "--unsafe-single-writer"];
    let created = world.run_lsvd(&[&["create", &world.url("new")], &flags[..]].concat())?;
    ensure!(created.code() == 0, "`lsvd create` ended with {}: {}", created.code(), created.stderr);
    let content = world.sparse_file("content", SIZE_BYTES)?;
    let daemon = world.serve_with("new", &["--unsafe-single-writer"])?;
    world.tool("nbdcopy", &["--flush", &content.to_string_lossy(), daemon.uri()])?;
    let code = "assert not h.can_trim()\nfor i in range(1500):\n  h.pwrite(bytes([i % 251]) * 4096, i * 8192)\n\
                h.zero(3 << 20, 13 << 19)\nh.flush()";
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", code])?;
    same(world, daemon.uri(), &replayed(world, "new")?)?;
    daemon.kill();
    let daemon = world.serve_with("new", &["--unsafe-single-writer"])?;
    same(world, daemon.uri(), &replayed(world, "new")?)?;
    daemon.close()
}

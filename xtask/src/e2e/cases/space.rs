//! Space that a file system has given back comes back from the bucket, and what it has kept stays as it was.
//!
//! On the host's ext4 by nbdfuse and a loop device, through which fstrim's discards arrive as TRIM. The bytes in the bucket
//! are those of the store's own listing, in which everything counts: what is live and what is not, checkpoints, superblocks.
//! Invariant: before each collection the bucket holds far more than it may hold afterwards, so that each of them shows
//! something.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::Entry;
use super::disk::Disk;
use crate::numbers::Numbers;
use crate::shell;

pub(super) const CASES: &[Entry] = &[(
    "space",
    "ext4 filled, emptied and trimmed: the bucket shrinks by lsvd gc and by a daemon, what is left is equal (rules 6, 7, 8)",
    Needs::Mounts,
    space,
)];

const VOLUME: &str = "db1";
/// Files that are written before each of the two collections, all together.
const USUAL_BYTES: u64 = 384 << 20;
const LONG_BYTES: u64 = 4 << 30;
/// One in so many is kept. Neighbours on the disk and in the log, so that hardly an object dies by itself.
const KEPT_OF: u64 = 5;
/// Bytes in the log for each live one.
const TARGET: f64 = 1.3;
/// ext4's journal is as large as that, on a volume of this size; what is written of its tables is little.
const EXT4_BYTES: u64 = 64 << 20;
/// A daemon leaves so much alone, of what is dead within objects and again of dead objects; and checkpoints, superblocks and
/// fences are on top.
const LEFT_ALONE_BYTES: u64 = (8 << 20) * 2 + (4 << 20);
pub(super) const DAEMON: [&str; 10] = [
    "--checkpoint-interval",
    "2s",
    "--gc-target",
    "1.3",
    "--gc-waste-min",
    "8M",
    "--io-timeout",
    "5s",
    "--delete-after",
    "6s",
];
/// From the last trim until the bucket is as small as it has to be: two checkpoints, the wait before deletes, and the
/// collection itself on a loaded machine.
pub(super) const GC_LIMIT: Duration = Duration::from_secs(300);
/// From the last trim until the store has it.
const TRIM_LIMIT: Duration = Duration::from_secs(10);
const BLOCK: usize = 4096;

fn space(world: &World) -> Result<()> {
    let bytes = if world.long { LONG_BYTES } else { USUAL_BYTES };
    let mut files = Files::new(world.seed);
    let disk = Disk::new(world, VOLUME, &["--gc-target", "off"].map(str::to_owned))?;
    files.fill_and_thin(&disk, bytes)?;
    let used = used_bytes(&disk)?;
    disk.close(world)?;
    let before = Held::wasteful(world, VOLUME)?;
    let collecting = Instant::now();
    let mut gc = world.lsvd();
    gc.args(["gc", &world.url(VOLUME), "--target", &TARGET.to_string(), "--delete-after", "1s"]);
    let gc = shell::output(&mut gc, GC_LIMIT)?;
    ensure!(gc.code() == 0, "`lsvd gc` ended with {}: {}", gc.code(), gc.stderr);
    let after = Held::now(world, VOLUME)?;
    say("lsvd gc", (&files, used), (&before, &after), collecting.elapsed());
    after.is_lean()?;
    after.fits(&files, used)?;

    let disk = Disk::open(world, VOLUME, &DAEMON.map(str::to_owned))?;
    files.compare(&disk.files).context("after lsvd gc")?;
    files.fill_and_thin(&disk, bytes)?;
    let used = used_bytes(&disk)?;
    let before = Held::wasteful(world, VOLUME)?;
    let collecting = Instant::now();
    let mut after = None;
    shell::wait_until("the daemon collects", GC_LIMIT, || {
        after = Held::now(world, VOLUME).ok().filter(|held| held.is_lean().is_ok());
        after.is_some()
    })
    .with_context(|| format!("{:?}", Held::now(world, VOLUME)))?;
    let after = after.context("it was waited for")?;
    after.fits(&files, used)?;
    say("a daemon", (&files, used), (&before, &after), collecting.elapsed());
    disk.close(world)?;
    let disk = Disk::open(world, VOLUME, &["--gc-target", "off"].map(str::to_owned))?;
    files.compare(&disk.files).context("after the daemon's collection")?;
    disk.close(world)
}

fn say(who: &str, (files, used): (&Files, u64), (before, after): (&Held, &Held), took: Duration) {
    println!(
        "  {who}: {} MiB of files kept, ext4 uses {} MiB, {} MiB are live; bucket {} MiB, then {} MiB after {:.0} s",
        files.kept_bytes() >> 20,
        used >> 20,
        after.live >> 20,
        before.stored >> 20,
        after.stored >> 20,
        took.as_secs_f64()
    );
}

/// What ext4 says to be in use, without its own tables and its journal.
fn used_bytes(disk: &Disk) -> Result<u64> {
    let mut stat = Command::new("stat");
    stat.args(["--file-system", "--format", "%b %f %S"]).arg(&disk.files);
    let said = shell::output_ok(&mut stat, TOOL_LIMIT)?.stdout;
    let numbers: Vec<u64> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [blocks, free, block_bytes] = numbers[..] else { bail!("stat said '{said}'") };
    Ok((blocks - free) * block_bytes)
}

/// What the volume takes of its bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// By the store's listing.
    pub(super) stored: u64,
    /// By `lsvd info`.
    pub(super) live: u64,
}

impl Held {
    pub(super) fn now(world: &World, volume: &str) -> Result<Self> {
        let info = world.run_lsvd(&["info", &world.url(volume), "--json"])?;
        ensure!(info.code() == 0, "`lsvd info`: {}", info.stderr);
        let info: serde_json::Value = serde_json::from_str(&info.stdout)?;
        let live = info["live_bytes"].as_u64().context("`lsvd info` says what is live")?;
        Ok(Self { stored: world.stored_bytes(volume)?, live })
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::cast_possible_truncation)] // a ratio
    fn allowed(&self) -> u64 {
        (self.live as f64 * TARGET) as u64 + LEFT_ALONE_BYTES
    }

    pub(super) fn is_lean(&self) -> Result<()> {
        let allowed = self.allowed();
        ensure!(self.stored <= allowed, "{self:?}, and {allowed} bytes are allowed");
        Ok(())
    }

    /// What is live is what the file system has: not less than the files, and not more than it says, with its own tables.
    fn fits(&self, files: &Files, used: u64) -> Result<()> {
        let (kept, most) = (files.kept_bytes(), used + EXT4_BYTES);
        ensure!((kept..=most).contains(&self.live), "{self:?}, and {kept} to {most} bytes should be live");
        Ok(())
    }

    /// What it takes when the trims have reached the store, which a batch's age can delay; less than half as much again as is
    /// allowed is nothing to collect.
    pub(super) fn wasteful(world: &World, volume: &str) -> Result<Self> {
        let mut held = Self::now(world, volume)?;
        let wasteful = || {
            held = Self::now(world, volume).unwrap_or(held);
            held.stored > held.allowed() * 3 / 2
        };
        shell::wait_until("there is something to collect", TRIM_LIMIT, wasteful)
            .with_context(|| format!("{:?}", Self::now(world, volume)))?;
        Ok(held)
    }
}

/// Files of which a part stays: each block says whose it is and which.
struct Files {
    chance: Numbers,
    pool: Vec<u8>,
    next: u64,
    kept: Vec<(u64, u64)>,
}

impl Files {
    fn new(seed: u64) -> Self {
        let mut chance = Numbers::new(seed);
        let mut pool = vec![0; 1 << 20];
        chance.fill(&mut pool);
        Self { chance, pool, next: 0, kept: Vec::new() }
    }

    fn kept_bytes(&self) -> u64 {
        self.kept.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Writes about `bytes` of files, small ones and large ones, removes most of them and has the rest trimmed.
    fn fill_and_thin(&mut self, disk: &Disk, bytes: u64) -> Result<()> {
        let mut written = 0;
        let mut gone = Vec::new();
        while written < bytes {
            let blocks = if self.chance.below(4) == 0 { 512 } else { 32 };
            let size = (1 + self.chance.below(blocks)) * BLOCK as u64;
            let file = self.next;
            fs::write(path(&disk.files, file), self.content(file, size))?;
            self.next += 1;
            written += size;
            if file.is_multiple_of(KEPT_OF) { self.kept.push((file, size)) } else { gone.push(file) }
        }
        sync(disk)?;
        for file in gone {
            fs::remove_file(path(&disk.files, file))?;
        }
        sync(disk)?;
        shell::output_ok(Command::new("fstrim").arg(&disk.files), TOOL_LIMIT)?;
        sync(disk)
    }

    fn content(&self, file: u64, size: u64) -> Vec<u8> {
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        for nth in 0..size / BLOCK as u64 {
            let at = usize::try_from((file * 7 + nth) % 256).unwrap_or(0) * BLOCK;
            let begins = content.len();
            content.extend_from_slice(&self.pool[at..at + BLOCK]);
            content[begins..begins + 8].copy_from_slice(&file.to_le_bytes());
            content[begins + 8..begins + 16].copy_from_slice(&nth.to_le_bytes());
        }
        content
    }

    /// All that was kept is there, and is what was written.
    fn compare(&self, dir: &Path) -> Result<()> {
        for &(file, size) in &self.kept {
            let path = path(dir, file);
            let found = fs::read(&path).with_context(|| format!("LOST: {}", path.display()))?;
            ensure!(found == self.content(file, size), "{} is not what was written", path.display());
        }
        Ok(())
    }
}

fn sync(disk: &Disk) -> Result<()> {
    shell::output_ok(Command::new("sync").arg("--file-system").arg(&disk.files), TOOL_LIMIT).map(|_| ())
}

fn path(dir: &Path, file: u64) -> PathBuf {
    dir.join(format!("file{file}"))
}

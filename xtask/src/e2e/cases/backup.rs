//! A backup program's repository on a volume whose daemon dies: what it said to be finished can be restored, byte for byte.
//!
//! borg writes much in large files, renames and syncs as it likes, and checks all of it itself afterwards. The daemon dies in
//! the midst of a backup and at the moment at which one is finished. Which file held what at which backup is known here from
//! seeds, so nothing that borg says is taken for it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::super::case::{Needs, World};
use super::Entry;
use super::disk::{Disk, modes};
use crate::numbers::Numbers;
use crate::shell;

pub(super) const CASES: &[Entry] = &[(
    "backup",
    "borg, daemon killed in the midst and at the end of backups: its check passes, finished ones restore (rule 1)",
    Needs::Mounts,
    backup,
)];

/// Kills in each mode: each second one in the midst of a backup.
const USUAL_KILLS: u32 = 2;
const LONG_KILLS: u32 = 6;
/// What the first backup holds, and how much of it is new in each later one, in percent.
const USUAL_BYTES: u64 = 96 << 20;
const LONG_BYTES: u64 = 3 << 30;
const NEW_PERCENT: u64 = 15;
/// Most files are small, and most bytes in large ones.
const SMALL_BYTES_MAX: u64 = 256 << 10;
const LARGE_BYTES_MAX: u64 = 8 << 20;
const LARGE_ONE_IN: u64 = 8;
/// What a command of borg may take.
const LIMIT: Duration = Duration::from_secs(1200);

fn backup(world: &World) -> Result<()> {
    // The usual run shows each mode once: a server has the one, a directory the other.
    let server = !world.store.borrow().is_directory();
    let shown = |mode: &str| world.long || (mode == "object") == server;
    for (mode, mut flags) in modes(world).into_iter().filter(|(mode, _)| shown(mode)) {
        // Nothing but flushes hurries what is small to the store: what one leaves behind is missed.
        flags.extend(["--batch-age", "1m"].map(str::to_owned));
        let name = format!("borg-{mode}");
        let disk = Disk::new(world, &name, &flags)?;
        let mut run = Run::new(world, disk, &name, &flags)?;
        run.all().with_context(|| format!("{mode} mode"))?;
        let Run { disk, midst, finished, .. } = run;
        disk.close(world)?;
        world.discard(&name)?;
        println!("  {mode}: {} backups restored, {midst} others killed in their midst", finished.len());
    }
    Ok(())
}

/// A backup that borg said to be finished, and what it must hold.
type Finished = (String, BTreeMap<String, File>);

/// One volume's story.
struct Run<'a> {
    world: &'a World<'a>,
    disk: Disk,
    volume: &'a str,
    flags: &'a [String],
    tree: Tree,
    chance: Numbers,
    finished: Vec<Finished>,
    /// Backups that the kill met.
    midst: u32,
}

impl<'a> Run<'a> {
    fn new(world: &'a World<'a>, disk: Disk, volume: &'a str, flags: &'a [String]) -> Result<Self> {
        let tree = Tree::new(world.dir.join("tree"), world.seed)?;
        let (chance, finished) = (Numbers::new(world.seed), Vec::new());
        Ok(Self { world, disk, volume, flags, tree, chance, finished, midst: 0 })
    }

    fn all(&mut self) -> Result<()> {
        let bytes = if self.world.long { LONG_BYTES } else { USUAL_BYTES };
        shell::output_ok(self.borg(&["init", "--encryption=none"]).arg(self.repository()), LIMIT)?;
        self.tree.grow(bytes)?;
        for kill in 0..if self.world.long { LONG_KILLS } else { USUAL_KILLS } {
            if kill % 2 == 0 {
                self.back_up(kill)?;
                self.disk.daemon.kill_now();
            } else {
                self.back_up_until_killed(kill, bytes * NEW_PERCENT / 100)?;
            }
            self.come_back(kill)?;
            self.tree.change(bytes * NEW_PERCENT / 100)?;
        }
        ensure!(self.midst > 0, "no backup was met in its midst: nothing was shown");
        self.back_up(u32::MAX)?;
        self.check()?;
        self.restore()
    }

    fn repository(&self) -> PathBuf {
        self.disk.files.join("repository")
    }

    fn borg(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.client("borg");
        command.args(arguments).env("BORG_BASE_DIR", self.world.dir.join("borg")).env("LC_ALL", "C.UTF-8");
        command.env("BORG_REPO", self.repository()).env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes");
        command
    }

    fn create(&self, name: &str) -> Command {
        let mut command = self.borg(&["create", "--compression=none", &format!("::{name}"), "."]);
        command.current_dir(&self.tree.dir);
        command
    }

    /// A backup that ends well.
    fn back_up(&mut self, number: u32) -> Result<()> {
        let name = format!("backup-{number}");
        shell::output_ok(&mut self.create(&name), LIMIT)?;
        self.finished.push((name, self.tree.files.clone()));
        Ok(())
    }

    /// A backup whose daemon dies when some of the `expected` new bytes are in the repository.
    fn back_up_until_killed(&mut self, number: u32, expected: u64) -> Result<()> {
        let name = format!("backup-{number}");
        let before = bytes_below(&self.repository())?;
        let enough = before + expected * (5 + self.chance.below(90)) / 100;
        let said = fs::File::create(self.world.dir.join("borg.log"))?;
        let mut command = self.create(&name);
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let mut child = command.spawn().context("cannot start borg: `cargo xtask setup`")?;
        let end = Instant::now() + LIMIT;
        while child.try_wait()?.is_none() && bytes_below(&self.repository())? < enough {
            ensure!(Instant::now() < end, "borg wrote too little in {} s", LIMIT.as_secs());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.disk.daemon.kill_now();
        let Some(status) = shell::wait(&mut child, LIMIT)? else {
            let _ = child.kill();
            bail!("borg hangs after its disk died");
        };
        if status.success() {
            // It was quicker than the kill, and has to be there.
            self.finished.push((name, self.tree.files.clone()));
        } else {
            self.midst += 1;
        }
        Ok(())
    }

    /// The daemon has died: on another one everything that was finished must be there, and the repository be whole.
    fn come_back(&mut self, kill: u32) -> Result<()> {
        self.disk.come_back(self.world, self.volume, self.flags)?;
        // The one that held it has died with its disk.
        shell::output_ok(&mut self.borg(&["break-lock"]), LIMIT)?;
        self.check().with_context(|| format!("after kill {}", kill + 1))
    }

    /// Every piece of the repository is read and verified, and every finished backup is listed.
    fn check(&self) -> Result<()> {
        shell::output_ok(&mut self.borg(&["check", "--verify-data"]), LIMIT)?;
        let listed = shell::output_ok(&mut self.borg(&["list", "--short"]), LIMIT)?.stdout;
        for (name, _) in &self.finished {
            ensure!(listed.lines().any(|line| line == name), "LOST: {name}, of {listed:?}");
        }
        Ok(())
    }

    /// Every finished backup holds what the tree held then.
    fn restore(&self) -> Result<()> {
        for (name, files) in &self.finished {
            let place = self.world.dir.join("restored");
            fs::create_dir_all(&place)?;
            let mut extract = self.borg(&["extract", &format!("::{name}")]);
            shell::output_ok(extract.current_dir(&place), LIMIT)?;
            let restored = fs::read_dir(&place)?.count();
            ensure!(restored == files.len(), "LOST: {name} has {restored} of {} files", files.len());
            for (path, file) in files {
                let same = file.is(&place.join(path)).with_context(|| format!("{name}: {path}"))?;
                ensure!(same, "LOST: {path} of {name} is not what was backed up");
            }
            fs::remove_dir_all(&place)?;
        }
        Ok(())
    }
}

/// The bytes of all files below `dir`.
fn bytes_below(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // borg removes files meanwhile.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// What a file holds.
#[derive(Clone, Copy, Debug)]
struct File {
    seed: u64,
    bytes: u64,
}

impl File {
    fn content(self) -> Vec<u8> {
        let mut content = vec![0; usize::try_from(self.bytes).unwrap_or(0)];
        Numbers::new(self.seed).fill(&mut content);
        content
    }

    fn is(self, path: &Path) -> Result<bool> {
        let mut found = Vec::new();
        fs::File::open(path)?.read_to_end(&mut found)?;
        Ok(found == self.content())
    }
}

/// What is backed up: files that come, change and go.
struct Tree {
    dir: PathBuf,
    files: BTreeMap<String, File>,
    chance: Numbers,
    made: u64,
}

impl Tree {
    fn new(dir: PathBuf, seed: u64) -> Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, files: BTreeMap::new(), chance: Numbers::new(seed), made: 0 })
    }

    /// So many bytes in new files.
    fn grow(&mut self, bytes: u64) -> Result<()> {
        let mut left = bytes;
        while left > 0 {
            let name = format!("file-{:06}", self.made);
            self.made += 1;
            left = left.saturating_sub(self.write(name)?);
        }
        Ok(())
    }

    /// So many bytes in files that change, come in place of others, or are new.
    fn change(&mut self, bytes: u64) -> Result<()> {
        let names: Vec<String> = self.files.keys().cloned().collect();
        let mut left = bytes;
        while left > 0 {
            let name = names[usize::try_from(self.chance.below(names.len() as u64))?].clone();
            match self.chance.below(3) {
                0 => left = left.saturating_sub(self.write(name)?),
                1 if self.files.remove(&name).is_some() => fs::remove_file(self.dir.join(&name))?,
                _ => {
                    let name = format!("file-{:06}", self.made);
                    self.made += 1;
                    left = left.saturating_sub(self.write(name)?);
                }
            }
        }
        Ok(())
    }

    /// Writes the file of that name and says how long it is.
    fn write(&mut self, name: String) -> Result<u64> {
        let large = self.chance.below(LARGE_ONE_IN) == 0;
        let bytes = 1 + self.chance.below(if large { LARGE_BYTES_MAX } else { SMALL_BYTES_MAX });
        let file = File { seed: self.chance.next(), bytes };
        fs::File::create(self.dir.join(&name))?.write_all(&file.content())?;
        self.files.insert(name, file);
        Ok(bytes)
    }
}

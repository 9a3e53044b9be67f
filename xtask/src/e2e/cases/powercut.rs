//! Power cuts: what the daemon's syncs are worth, by a disk whose every write and barrier is known.
//!
//! In a virtual machine the daemon keeps its journal, its bucket or both on a disk below dm-log-writes, and a client marks
//! in that disk's log what was acknowledged. Here, the disk is made as a power cut at many points of the log left it; the
//! file system recovers it, the daemon opens what is there, and it must be a prefix with all that was acknowledged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::super::daemon::{Daemon, Serve};
use super::super::mount;
use super::super::vm::writelog::{Entry, Replay, Unflushed, WriteLog};
use super::super::vm::{self, Boot, Machine};
use super::Entry as CaseEntry;
use crate::shell;

pub(super) const CASES: &[CaseEntry] = &[(
    "power-cut",
    "power cuts at every barrier of the journal's and the bucket's disk: nothing flushed is lost (rule 1)",
    Needs::Vm,
    power_cut,
)];

/// One daemon on one logged disk; xtask/guest/powercut.sh says what the kinds mean.
struct Part {
    name: &'static str,
    file_system: &'static str,
    kind: &'static str,
    /// Whether the daemon's fsync and fdatasync do anything. If not it is a control: cuts must lose something.
    syncs: bool,
    disk_mib: u64,
}

impl Part {
    const fn new(name: &'static str, file_system: &'static str, kind: &'static str, disk_mib: u64) -> Self {
        Self { name, file_system, kind, syncs: true, disk_mib }
    }

    const fn unsynced(self) -> Self {
        Self { syncs: false, ..self }
    }

    fn has_journal(&self) -> bool {
        self.kind != "bucket"
    }

    fn has_bucket(&self) -> bool {
        self.kind != "journal"
    }
}

const PARTS: [Part; 6] = [
    Part::new("journal", "ext4", "journal", 128),
    Part::new("journal-xfs", "xfs", "journal", 320),
    Part::new("both", "ext4", "both", 256),
    Part::new("bucket", "ext4", "bucket", 256),
    Part::new("no-sync-journal", "ext4", "journal", 128).unsynced(),
    Part::new("no-sync-bucket", "ext4", "bucket", 256).unsynced(),
];

/// Sparse; the log has a sector of its own for each write, and all file systems' beginnings.
const LOG_MIB: u64 = 1024;
const MACHINE_LIMIT: Duration = Duration::from_secs(900);

fn power_cut(world: &World) -> Result<()> {
    if let Some(why) = mount::lacking() {
        bail!("the cuts are looked at here: {why}");
    }
    let waves: u64 = if world.long { 150 } else { 60 };
    let out = world.dir.join("out");
    std::fs::create_dir_all(&out)?;
    let mut disks = Vec::new();
    for part in &PARTS {
        for (what, mib) in [("data", part.disk_mib), ("log", LOG_MIB)] {
            let serial = format!("{what}-{}", part.name);
            let path = world.dir.join(format!("{serial}.img"));
            std::fs::File::create(&path)?.set_len(mib << 20)?;
            disks.push(vm::Disk { serial, path });
        }
    }
    let argument = |part: &Part| {
        let syncs = if part.syncs { "sync" } else { "no-sync" };
        format!("{}:{}:{}:{syncs}:{waves}", part.name, part.file_system, part.kind)
    };
    let arguments: Vec<String> = PARTS.iter().map(argument).collect();
    let started = Instant::now();
    let boot = Boot {
        script: "powercut.sh",
        arguments: &arguments,
        out: &out,
        disks: &disks,
        nbd: None,
        environment: &[],
        lsvd: world.lsvd_path(),
        network: false,
        memory_mib: 2048,
    };
    Machine::boot(&boot)?.finish(MACHINE_LIMIT)?;
    println!("  the machine wrote for {:.1} s", started.elapsed().as_secs_f64());
    // What is synced here need not wait for this machine's own disk.
    let memory = world.dir.join("memory");
    let _memory = Mounted::new(Command::new("mount").args(["-t", "tmpfs", "none"]), &memory)?;
    for part in &PARTS {
        let log = WriteLog::read(&world.dir.join(format!("log-{}.img", part.name)))?;
        look_at_cuts(world, part, &log, waves).with_context(|| format!("part '{}'", part.name))?;
    }
    Ok(())
}

/// A point in the log, and what becomes there of what no flush covers.
type Cut = (usize, Unflushed);

/// The cuts to look at, ascending. Behind each barrier and each acknowledgement, with nothing of what no flush covers yet;
/// and before the next one, with none, some or all of it. Not in a long run: `POINTS` of those, from all over the log.
fn cuts(log: &WriteLog, long: bool, seed: u64) -> Result<Vec<Vec<Cut>>> {
    const POINTS: usize = 14;
    let (begin, end) = (log.mark("begin")?, log.mark("end")?);
    let is_point = |index: &usize| log.entries[*index].is_barrier() || wave(&log.entries[*index]).is_some();
    let points: Vec<usize> = (begin..end).filter(is_point).collect();
    let mut cuts = Vec::new();
    for (number, point) in points.iter().enumerate() {
        let next = points.get(number + 1).copied().unwrap_or(end);
        let torn = Unflushed::Torn(seed + number as u64);
        let mut group = vec![(point + 1, Unflushed::Lost)];
        if next > point + 1 {
            group.extend([(next, torn), (next, Unflushed::Kept)]);
        }
        cuts.push(group);
    }
    if !long {
        // The last one always.
        let (step, last) = (cuts.len().div_ceil(POINTS).max(1), cuts.len() - 1);
        let mut index = 0;
        cuts.retain(|_| {
            index += 1;
            (last + 1 - index).is_multiple_of(step)
        });
    }
    Ok(cuts)
}

/// The wave that an entry says was acknowledged.
fn wave(entry: &Entry) -> Option<i64> {
    match entry {
        Entry::Mark(text) => text.strip_prefix("acknowledged=")?.parse().ok(),
        _ => None,
    }
}

fn look_at_cuts(world: &World, part: &Part, log: &WriteLog, waves: u64) -> Result<()> {
    let started = Instant::now();
    let driven = &log.entries[log.mark("begin")?..log.mark("end")?];
    let barriers = driven.iter().filter(|entry| entry.is_barrier()).count();
    let groups = cuts(log, world.long, world.seed)?;
    let cuts: Vec<&Cut> = groups.iter().flatten().collect();
    let mut replay = Replay::new(log);
    let mut losses = Vec::new();
    let mut acknowledgements = BTreeSet::new();
    for (at, unflushed) in &cuts {
        let place = world.dir.join("memory/cut");
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir_all(&place)?;
        replay.cut(*at, *unflushed)?.save(&place.join("disk.img"), part.disk_mib << 20)?;
        let acknowledged = log.entries[..*at].iter().rev().find_map(wave).unwrap_or(-1);
        acknowledgements.insert(acknowledged);
        let disk = Disk { world, part, place, acknowledged, waves };
        match disk.look(matches!(unflushed, Unflushed::Torn(_))) {
            Err(error) if !part.syncs => losses.push(format!("{error:#}")),
            Err(error) => {
                // Without what the recovery did to it.
                replay.cut(*at, *unflushed)?.save(&world.dir.join("failed.img"), part.disk_mib << 20)?;
                let all = log.entries.len();
                return Err(error.context(format!(
                    "power cut after entry {at} of {all}, with what was not flushed {unflushed:?}: that disk is failed.img"
                )));
            }
            Ok(()) => {}
        }
    }
    let told = acknowledgements.len();
    ensure!(told > 5, "the cuts lie behind only {told} different acknowledgements: nothing was shown");
    let lost = losses.iter().filter(|loss| loss.contains("LOST")).count();
    let lost_told = if part.syncs { String::new() } else { format!(", {lost} lost what was flushed") };
    println!(
        "  {:<16} {} entries, {barriers} barriers, {} cuts{lost_told}, {:.1} s",
        part.name,
        driven.len(),
        cuts.len(),
        started.elapsed().as_secs_f64()
    );
    ensure!(
        part.syncs || lost > cuts.len() / 2,
        "a daemon that syncs nothing lost too little for the other parts to show anything: {losses:?}"
    );
    Ok(())
}

/// One disk as a power cut left it.
struct Disk<'a> {
    world: &'a World<'a>,
    part: &'a Part,
    place: PathBuf,
    acknowledged: i64,
    waves: u64,
}

impl Disk<'_> {
    /// Mounts it, which recovers the file system, opens the volume and reads all of it; then perhaps once more, after a
    /// clean close and without the journal: what was recovered stays.
    fn look(&self, twice: bool) -> Result<()> {
        let (image, files) = (self.place.join("disk.img"), self.place.join("mnt"));
        let mounted = Mounted::new(Command::new("mount").args(["-o", "loop"]).arg(image), &files)
            .context("the file system did not recover")?;
        let bucket = if self.part.has_bucket() {
            mounted.path.join("bucket")
        } else {
            let then = self.world.dir.join("out").join(format!("{}.bucket", self.part.name));
            let copy = self.place.join("bucket");
            shell::output_ok(Command::new("cp").arg("-r").arg(then).arg(&copy), TOOL_LIMIT)?;
            copy
        };
        let url = format!("file://{}/db1", bucket.display());
        let journal = mounted.path.join("journal").display().to_string();
        let with_journal: &[&str] = &["--flush", "journal", "--journal", &journal];
        let serve = |flags| {
            let command = &self.world.lsvd();
            Daemon::start(&Serve { command, dir: &self.place, urls: &[&url], flags })
        };
        let daemon = serve(if self.part.has_journal() { with_journal } else { &[] })?;
        let left = self.check(&daemon, self.acknowledged)?;
        if !twice {
            daemon.kill();
            return Ok(());
        }
        daemon.close()?;
        let daemon = serve(&[])?;
        let again = self.check(&daemon, left).context("after a clean close")?;
        ensure!(again == left, "wave {left} was the last one, and after a clean close it is {again}");
        daemon.kill();
        Ok(())
    }

    /// The volume must be a prefix with all up to this wave. Says the last wave that is there.
    fn check(&self, daemon: &Daemon, acknowledged: i64) -> Result<i64> {
        let state = self.place.join("state.json");
        let told = serde_json::json!({
            "starts": [0], "acknowledged": acknowledged, "submitted": self.waves, "left": -1
        });
        std::fs::write(&state, told.to_string())?;
        let mut check = self.world.script("ordered.py");
        shell::output_ok(check.args(["check", daemon.uri()]).arg(&state), TOOL_LIMIT)?;
        let said: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&state)?)?;
        said["left"].as_i64().context("the check does not say what is left")
    }
}

/// A file system that is mounted while the value lives.
struct Mounted {
    path: PathBuf,
}

impl Mounted {
    fn new(mount: &mut Command, path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        shell::output_ok(mount.arg(path), TOOL_LIMIT)?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        let unmounted = shell::output(command.arg(&self.path), TOOL_LIMIT);
        if !unmounted.is_ok_and(|output| output.status.success()) {
            let _ = shell::output(Command::new("umount").arg("--lazy").arg(&self.path), TOOL_LIMIT);
        }
    }
}

//! The kernel as a client: its file systems on its own NBD client, and on a virtual disk that QEMU's client serves.
//!
//! The daemon runs here, on a directory; a Debian kernel in a virtual machine attaches it by `lsvd attach`, or QEMU does. Both
//! ends are killed, and what was synced must be there on the next boot.
//!
//! A round of a file system's case is one boot that writes and ends by a kill of the daemon and of the machine, and the next
//! boot, in which everything must be there. With `--rounds` or `--long` the same file system goes through many.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::super::daemon::Daemon;
use super::super::vm::{Boot, HOST, Machine};
use super::Entry;
use super::space::{self, Held};
use crate::numbers::Numbers;
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    (
        "kernel-ext4",
        "nbd.ko, ext4: copy, sync, trim, kill daemon and machine mid-write, all there (rule 1)",
        Needs::Vm,
        ext4,
    ),
    ("kernel-xfs", "the same with XFS (rule 1)", Needs::Vm, xfs),
    ("kernel-btrfs", "the same with btrfs (rule 1)", Needs::Vm, btrfs),
    (
        "kernel-postgres",
        "nbd.ko, ext4, PostgreSQL under load: daemon and machine killed, every acknowledged transaction is there (rule 1)",
        Needs::Vm,
        postgres,
    ),
    (
        "kernel-space",
        "nbd.ko: filled, emptied and trimmed, the bucket shrinks by the daemon, what is left is equal (rules 6, 7, 8)",
        Needs::Vm,
        give_back,
    ),
    (
        "kernel-restarts",
        "a mounted file system on nbd.ko outlives three kills of the daemon",
        Needs::Vm,
        restarts,
    ),
    (
        "kernel-resize",
        "nbd.ko, ext4: the volume grows under a mounted file system and a running writer, and so does the file system",
        Needs::VmLong,
        resize,
    ),
    (
        "kernel-rollback",
        "a mounted file system on nbd.ko does not come back to a volume that was rolled back under it",
        Needs::Vm,
        rollback,
    ),
    (
        "kernel-lost",
        "nor to a daemon that has not all that the killed one had answered (rule 1)",
        Needs::VmLong,
        lost,
    ),
    ("virtio-restarts", "the same on virtio-blk over QEMU's NBD client", Needs::Vm, virtio_restarts),
    ("kernel-control", "a server that ignores flushes is caught by the same check", Needs::Vm, control),
];

/// From a boot to what is waited for, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(180);
/// The same with a database server to make, or to recover.
const SERVER_LIMIT: Duration = Duration::from_secs(400);
/// Records that must be there before something is killed, and again between kills.
const RECORDS: u64 = 40;
/// Rounds of a file system's case: object mode alone, and with --long half of them in each mode.
const USUAL_ROUNDS: u32 = 1;
const LONG_ROUNDS: u32 = 100;
/// From the last record that a round waits for to its first kill, at most, and from there to its second.
const KILL_AFTER_MS: u64 = 800;
const SECOND_KILL_AFTER_MS: u64 = 300;

/// A server on loopback, and how guests are started on it.
struct Stage<'a> {
    world: &'a World<'a>,
    out: PathBuf,
    port: u16,
    client: &'static str,
    file_system: &'static str,
    connections: u32,
    /// The volume, and with which flags it is served.
    volume: String,
    flags: Vec<String>,
    /// Each round's records are its own.
    round: u32,
}

impl<'a> Stage<'a> {
    fn new(world: &'a World, client: &'static str, file_system: &'static str) -> Result<Self> {
        let out = world.dir.join("out");
        std::fs::create_dir_all(&out)?;
        // The sandbox's network is this run's alone, so a port that is free now stays so.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // As after the loss of the host, but where the guest goes on with the next daemon.
        let (volume, flags) = ("db1".to_owned(), vec!["--no-handover".to_owned()]);
        Ok(Self { world, out, port, client, file_system, connections: 1, volume, flags, round: 0 })
    }

    fn serve(&self) -> Result<Daemon> {
        let listen = format!("tcp:127.0.0.1:{}", self.port);
        let mut flags = vec!["--listen", listen.as_str()];
        flags.extend(self.flags.iter().map(String::as_str));
        self.world.serve_with(&self.volume, &flags)
    }

    fn boot(&self, what: &str) -> Result<Machine> {
        let arguments = [self.client, self.file_system, what].map(str::to_owned);
        let uri = |host| format!("nbd://{host}:{}/{}", self.port, self.volume);
        let tree = shell::root().join("crates");
        let here = uri("127.0.0.1");
        Machine::boot(&Boot {
            script: "kernel.sh",
            arguments: &arguments,
            out: &self.out,
            disks: &[],
            nbd: (self.client == "qemu").then_some(&here),
            environment: &[
                ("URI", uri(HOST)),
                ("TREE", tree.display().to_string()),
                ("CONNECTIONS", self.connections.to_string()),
                ("ROUND", self.round.to_string()),
            ],
            lsvd: self.world.lsvd_path(),
            network: self.client == "kernel",
            memory_mib: 1024,
        })
    }

    /// What this round's records say of themselves.
    fn told(&self) -> PathBuf {
        self.out.join(format!("records.{}.json", self.round))
    }

    /// How many records this round has acknowledged so far.
    fn records(&self) -> u64 {
        let told = std::fs::read_to_string(self.told()).unwrap_or_default();
        let told: serde_json::Value = serde_json::from_str(&told).unwrap_or_default();
        told["count"].as_u64().unwrap_or(0)
    }

    /// Waits until there are so many.
    fn wait_for_records(&self, machine: &mut Machine, count: u64) -> Result<()> {
        let mut ended = false;
        shell::wait_until(&format!("{count} records"), LIMIT, || {
            ended = !machine.runs();
            ended || self.records() >= count
        })
        .with_context(|| machine.said())?;
        ensure!(!ended, "the machine ended too early: {}", machine.said());
        Ok(())
    }
}

fn ext4(world: &World) -> Result<()> {
    crash(world, "ext4")
}

fn xfs(world: &World) -> Result<()> {
    crash(world, "xfs")
}

fn btrfs(world: &World) -> Result<()> {
    crash(world, "btrfs")
}

fn crash(world: &World, file_system: &'static str) -> Result<()> {
    let rounds = world.rounds(USUAL_ROUNDS, LONG_ROUNDS);
    let journal = world.dir.join("journal").display().to_string();
    let journal = ["--flush", "journal", "--journal", &journal].map(str::to_owned);
    for (mode, flags, rounds) in
        [("object", &[][..], rounds.div_ceil(2)), ("journal", &journal[..], rounds / 2)]
    {
        if rounds == 0 {
            continue;
        }
        let volume = format!("{file_system}-{mode}");
        world.create(&volume, "2G")?;
        let mut stage = Stage { volume, flags: flags.to_vec(), ..Stage::new(world, "kernel", file_system)? };
        stage.crashes(rounds).with_context(|| format!("{mode}, round {} of {rounds}", stage.round))?;
        std::fs::remove_dir_all(&stage.out)?;
        world.discard(&stage.volume)?;
    }
    Ok(())
}

impl Stage<'_> {
    /// A new file system, and so many times the end of both the daemon and the machine.
    fn crashes(&mut self, rounds: u32) -> Result<()> {
        let mut chance = Numbers::new(self.world.seed);
        let mut daemon = self.serve()?;
        let mut machine = self.boot("fill")?;
        let mut records = 0;
        loop {
            self.wait_for_records(&mut machine, RECORDS)?;
            std::thread::sleep(Duration::from_millis(chance.below(KILL_AFTER_MS)));
            let between = Duration::from_millis(chance.below(SECOND_KILL_AFTER_MS));
            // Whoever goes first leaves the other one without its peer, or with what it had not yet been asked to keep.
            let daemon_first = chance.below(2) == 0;
            if daemon_first {
                daemon.kill_now();
                std::thread::sleep(between);
            }
            machine.kill();
            if !daemon_first {
                std::thread::sleep(between);
                daemon.kill_now();
            }
            let told = self.records();
            records += told;
            if rounds > 1 {
                let first = if daemon_first { "daemon" } else { "machine" };
                println!("  {}, round {}: {told} records, {first} killed first", self.volume, self.round + 1);
            }
            daemon = self.serve()?;
            self.round += 1;
            if self.round == rounds {
                break;
            }
            machine = self.boot("again")?;
        }
        self.boot("check")?.finish(LIMIT)?;
        let files = std::fs::read_to_string(self.out.join("sums"))?.lines().count();
        ensure!(files > 100, "only {files} files were copied");
        println!("  {}: {files} files and {records} records over {rounds} rounds, none lost", self.volume);
        daemon.close()
    }
}

/// A server in the machine, whose disk is the kernel's: initdb and recovery are slow where the processor is emulated.
fn postgres(world: &World) -> Result<()> {
    world.create("db1", "2G")?;
    let stage = Stage::new(world, "kernel", "ext4")?;
    let mut daemon = stage.serve()?;
    let mut machine = stage.boot("database")?;
    shell::wait_until("the first rows", SERVER_LIMIT, || stage.records() >= RECORDS || !machine.runs())?;
    ensure!(machine.runs(), "the machine ended too early: {}", machine.said());
    std::thread::sleep(Duration::from_millis(Numbers::new(world.seed).below(KILL_AFTER_MS)));
    daemon.kill_now();
    machine.kill();
    let acknowledged = stage.records();
    let daemon = stage.serve()?;
    stage.boot("database-check")?.finish(SERVER_LIMIT)?;
    println!("  {acknowledged} transactions acknowledged, none lost");
    daemon.close()
}

/// ext4, and with --long XFS too: what the kernel trims is collected by the daemon while it is mounted.
fn give_back(world: &World) -> Result<()> {
    for file_system in ["ext4", "xfs"].into_iter().take(if world.long { 2 } else { 1 }) {
        let volume = format!("{file_system}-space");
        world.create(&volume, "2G")?;
        let flags = space::DAEMON.map(str::to_owned).to_vec();
        let stage = Stage { volume, flags, ..Stage::new(world, "kernel", file_system)? };
        let daemon = stage.serve()?;
        let mut machine = stage.boot("space")?;
        let trimmed = stage.out.join("trimmed");
        shell::wait_until("the guest trims", LIMIT, || trimmed.exists() || !machine.runs())?;
        ensure!(machine.runs(), "the machine ended too early: {}", machine.said());
        let before = Held::wasteful(world, &stage.volume)?;
        let collecting = Instant::now();
        let lean = || Held::now(world, &stage.volume).is_ok_and(|held| held.is_lean().is_ok());
        shell::wait_until("the daemon collects", space::GC_LIMIT, lean)?;
        let (after, took) = (Held::now(world, &stage.volume)?, collecting.elapsed().as_secs());
        std::fs::write(stage.out.join("enough"), "")?;
        machine.finish(LIMIT)?;
        println!(
            "  {file_system}: {} MiB kept, {} MiB live; bucket {} MiB, then {} MiB after {took} s",
            std::fs::read_to_string(&trimmed)?.trim(),
            after.live >> 20,
            before.stored >> 20,
            after.stored >> 20,
        );
        daemon.close()?;
        std::fs::remove_dir_all(&stage.out)?;
        world.discard(&stage.volume)?;
    }
    Ok(())
}

fn restarts(world: &World) -> Result<()> {
    endure(world, "kernel")
}

fn virtio_restarts(world: &World) -> Result<()> {
    endure(world, "qemu")
}

fn endure(world: &World, client: &'static str) -> Result<()> {
    world.create("db1", "2G")?;
    // Each of several is replaced by itself.
    let stage = Stage { connections: 2, flags: Vec::new(), ..Stage::new(world, client, "ext4")? };
    let mut daemon = stage.serve()?;
    let mut machine = stage.boot("endure")?;
    for _ in 0..3 {
        let count = stage.records() + RECORDS;
        stage.wait_for_records(&mut machine, count)?;
        daemon.kill();
        std::thread::sleep(Duration::from_secs(1));
        daemon = stage.serve()?;
    }
    let count = stage.records() + RECORDS;
    stage.wait_for_records(&mut machine, count)?;
    std::fs::write(stage.out.join("enough"), "")?;
    machine.finish(LIMIT)?;
    println!("  {client}: {}", std::fs::read_to_string(stage.told())?.trim());
    daemon.close()
}

/// Between two daemons the volume grows; the kernel is told when the second one answers.
fn resize(world: &World) -> Result<()> {
    world.create("db1", "1G")?;
    let stage = Stage { connections: 2, flags: Vec::new(), ..Stage::new(world, "kernel", "ext4")? };
    let daemon = stage.serve()?;
    let mut machine = stage.boot("grow")?;
    stage.wait_for_records(&mut machine, RECORDS)?;
    // A daemon that stops in order tells its clients so, and the kernel's would give up.
    daemon.kill();
    std::thread::sleep(Duration::from_secs(3)); // so that nobody seems to write the volume
    let url = world.url("db1");
    let mut resize = Command::new(world.lsvd_path());
    shell::output_ok(resize.args(["resize", &url, "--size", "3G", "--if-free", "1s"]), TOOL_LIMIT)?;
    let daemon = stage.serve()?;
    let count = stage.records() + RECORDS;
    stage.wait_for_records(&mut machine, count)?;
    let grown = stage.out.join("grown");
    shell::wait_until("the file system has grown", LIMIT, || grown.exists() || !machine.runs())?;
    ensure!(grown.exists(), "the machine ended too early: {}", machine.said());
    let count = stage.records() + RECORDS;
    stage.wait_for_records(&mut machine, count)?;
    std::fs::write(stage.out.join("enough"), "")?;
    machine.finish(LIMIT)?;
    println!("  {}", std::fs::read_to_string(grown)?.trim());
    daemon.close()
}

/// Between two daemons the volume is rolled back: what is mounted must not go on with other contents.
fn rollback(world: &World) -> Result<()> {
    world.create("db1", "1G")?;
    let stage = Stage { connections: 2, ..Stage::new(world, "kernel", "ext4")? };
    let (url, control) = (world.url("db1"), world.dir.join("control").display().to_string());
    let stage = Stage { flags: vec!["--control".to_owned(), control.clone()], ..stage };
    std::fs::create_dir_all(&control)?;
    let daemon = stage.serve()?;
    let mut machine = stage.boot("endure")?;
    stage.wait_for_records(&mut machine, RECORDS)?;
    let made = world.run_lsvd(&["snapshot", "create", &url, "then", "--control", &control])?;
    ensure!(made.code() == 0, "no snapshot: {}", made.stderr);
    let count = stage.records() + RECORDS;
    stage.wait_for_records(&mut machine, count)?;
    daemon.kill();
    std::thread::sleep(Duration::from_secs(3)); // so that nobody seems to write the volume
    let back =
        world.run_lsvd(&["rollback", &url, "--to", "then", "--yes", "--if-free", "1s", "--no-control"])?;
    ensure!(back.code() == 0, "not rolled back: {}", back.stderr);
    let daemon = stage.serve()?;
    stays_away(&stage, &control, &machine, "it has other contents")?;
    drop(machine);
    daemon.close()
}

/// The next daemon has not what the one before had answered and nobody flushed.
fn lost(world: &World) -> Result<()> {
    world.create("db1", "1G")?;
    let stage = Stage { connections: 2, ..Stage::new(world, "kernel", "ext4")? };
    let control = world.dir.join("control").display().to_string();
    let flags = ["--no-handover", "--control", &control].map(str::to_owned).to_vec();
    let stage = Stage { flags, ..stage };
    std::fs::create_dir_all(&control)?;
    let daemon = stage.serve()?;
    let mut machine = stage.boot("endure")?;
    stage.wait_for_records(&mut machine, RECORDS)?;
    daemon.kill();
    let daemon = stage.serve()?;
    stays_away(&stage, &control, &machine, "it has lost writes")?;
    drop(machine);
    daemon.close()
}

/// `lsvd attach` refuses to connect again, in these words, and nothing is asked of the daemon.
fn stays_away(stage: &Stage, control: &str, machine: &Machine, words: &str) -> Result<()> {
    let world = stage.world;
    let attach = stage.out.join("attach-endure.log");
    let refused = || std::fs::read_to_string(&attach).is_ok_and(|said| said.contains(words));
    shell::wait_until("lsvd attach refuses to connect again", LIMIT, refused)
        .with_context(|| machine.said())?;
    let url = world.url(&stage.volume);
    let status = world.run_lsvd(&["status", &url, "--json", "--control", control])?;
    let status: serde_json::Value = serde_json::from_str(&status.stdout).context("status prints JSON")?;
    let requests = &status["daemons"][0]["volumes"][0]["requests"];
    for kind in ["read", "write", "flush", "trim", "zeroes"] {
        ensure!(requests[kind]["requests"] == 0, "the device came back: {requests}");
    }
    Ok(())
}

/// nbdkit with a cache that ignores flushes, over a file with an empty file system.
struct Unsafe(Child);

impl Unsafe {
    fn serve(disk: &Path, port: u16) -> Result<Self> {
        let mut command = Command::new("nbdkit");
        command.args([
            "--foreground",
            "--ipaddr",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--exportname",
            "db1",
        ]);
        command.args(["--filter", "cache", "file"]).arg(disk).arg("cache=unsafe");
        let server = Self(command.stdin(Stdio::null()).spawn().context("cannot start nbdkit")?);
        let connects = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        shell::wait_until("nbdkit listens", LIMIT, connects)?;
        Ok(server)
    }
}

impl Drop for Unsafe {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn control(world: &World) -> Result<()> {
    let disk = world.dir.join("disk.img");
    std::fs::File::create(&disk)?.set_len(512 << 20)?;
    shell::output_ok(world.client("mkfs.ext4").args(["-q", "-F"]).arg(&disk), TOOL_LIMIT)?;
    let stage = Stage::new(world, "kernel", "ext4")?;
    let server = Unsafe::serve(&disk, stage.port)?;
    let mut machine = stage.boot("churn")?;
    stage.wait_for_records(&mut machine, RECORDS)?;
    drop(server);
    machine.kill();
    let server = Unsafe::serve(&disk, stage.port)?;
    match stage.boot("check")?.finish(LIMIT) {
        Ok(()) => {
            bail!("a server that ignores flushes was killed and nothing was missed: the check shows nothing")
        }
        Err(error) => {
            let told = format!("{error:#}");
            ensure!(told.contains("LOST"), "the check failed, but not for lost records: {told}");
        }
    }
    drop(server);
    Ok(())
}

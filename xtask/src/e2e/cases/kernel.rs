//! The kernel as a client: its file systems on its own NBD client, and on a virtual disk that QEMU's client serves.
//!
//! The daemon runs here, on a directory; a Debian kernel in a virtual machine attaches it by `lsvd attach`, or QEMU does. Both
//! ends are killed, and what was synced must be there on the next boot.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::super::daemon::Daemon;
use super::super::vm::{Boot, HOST, Machine};
use super::Entry;
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
        "kernel-restarts",
        "a mounted file system on nbd.ko outlives three kills of the daemon",
        Needs::Vm,
        restarts,
    ),
    ("virtio-restarts", "the same on virtio-blk over QEMU's NBD client", Needs::Vm, virtio_restarts),
    ("kernel-control", "a server that ignores flushes is caught by the same check", Needs::Vm, control),
];

/// From a boot to what is waited for, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(180);
/// Records that must be there before something is killed, and again between kills.
const RECORDS: u64 = 40;

/// A server on loopback, and how guests are started on it.
struct Stage<'a> {
    world: &'a World<'a>,
    out: PathBuf,
    port: u16,
    client: &'static str,
    file_system: &'static str,
    connections: u32,
}

impl<'a> Stage<'a> {
    fn new(world: &'a World, client: &'static str, file_system: &'static str) -> Result<Self> {
        let out = world.dir.join("out");
        std::fs::create_dir_all(&out)?;
        // The sandbox's network is this run's alone, so a port that is free now stays so.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self { world, out, port, client, file_system, connections: 1 })
    }

    fn serve(&self) -> Result<Daemon> {
        let listen = format!("tcp:127.0.0.1:{}", self.port);
        self.world.serve_with("db1", &["--listen", &listen])
    }

    fn boot(&self, what: &str) -> Result<Machine> {
        let arguments = [self.client, self.file_system, what].map(str::to_owned);
        let uri = |host| format!("nbd://{host}:{}/db1", self.port);
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
            ],
            lsvd: self.world.lsvd_path(),
            network: self.client == "kernel",
            memory_mib: 1024,
        })
    }

    /// How many records were acknowledged so far.
    fn records(&self) -> u64 {
        let told = std::fs::read_to_string(self.out.join("records.json")).unwrap_or_default();
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
    world.create("db1", "2G")?;
    let stage = Stage::new(world, "kernel", file_system)?;
    let daemon = stage.serve()?;
    let mut machine = stage.boot("fill")?;
    stage.wait_for_records(&mut machine, RECORDS)?;
    daemon.kill();
    machine.kill();
    let files = std::fs::read_to_string(stage.out.join("sums"))?.lines().count();
    ensure!(files > 100, "only {files} files were copied");
    let daemon = stage.serve()?;
    stage.boot("check")?.finish(LIMIT)?;
    println!("  {file_system}: {files} files and {} records", stage.records());
    daemon.close()
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
    let stage = Stage { connections: 2, ..Stage::new(world, client, "ext4")? };
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
    println!("  {client}: {}", std::fs::read_to_string(stage.out.join("records.json"))?.trim());
    daemon.close()
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

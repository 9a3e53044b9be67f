//! Databases on a volume of which the daemon dies: every transaction that was acknowledged is there afterwards.
//!
//! On the host's ext4 by nbdfuse and a loop device. The databases' own checks judge the rest. Each mode of FLUSH is shown:
//! `object` with nothing of the host kept, `journal` with the journal alone.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::super::Daemon;
use super::super::case::{Needs, TOOL_LIMIT, World};
use super::super::mount::Attached;
use super::Entry;
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    (
        "postgres",
        "PostgreSQL under load, daemon killed, all else wiped: every acknowledged transaction is there (rule 1)",
        Needs::Mounts,
        postgres,
    ),
    ("sqlite", "SQLite with WAL and with a rollback journal, the same way (rule 1)", Needs::Mounts, sqlite),
];

/// How often a database loses its disk, in each mode.
const KILLS: u32 = 2;
/// How long it is under load before.
const LOAD: Duration = Duration::from_secs(4);
/// From its start to its first answer: its own recovery on a loaded machine.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// What FLUSH means, and the flags for it.
fn modes(world: &World) -> [(&'static str, Vec<String>); 2] {
    let journal = world.dir.join("journal").display().to_string();
    let flags = ["--flush", "journal", "--journal", &journal].map(str::to_owned);
    [("object", Vec::new()), ("journal", flags.to_vec())]
}

/// A volume that is served, attached and mounted.
struct Disk {
    daemon: Daemon,
    attached: Attached,
    files: PathBuf,
}

impl Disk {
    fn new(world: &World, name: &str, flags: &[String]) -> Result<Self> {
        world.create(name, "8G")?;
        let (daemon, mut attached) = Self::attach(world, name, flags)?;
        world.tool("mkfs.ext4", &["-q", "-E", "nodiscard,lazy_itable_init=1", attached.device()])?;
        let files = world.dir.join("mnt");
        attached.mount(&files)?;
        Ok(Self { daemon, attached, files })
    }

    fn attach(world: &World, name: &str, flags: &[String]) -> Result<(Daemon, Attached)> {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let daemon = world.serve_with(name, &flags)?;
        let attached = Attached::new(daemon.uri(), &world.dir)?;
        Ok((daemon, attached))
    }

    /// The daemon has died and who used the disk has ended: what is left is the bucket, and the journal.
    fn come_back(self, world: &World, name: &str, flags: &[String]) -> Result<Self> {
        let Self { files, attached, .. } = self;
        drop(attached);
        let (daemon, mut attached) = Self::attach(world, name, flags)?;
        attached.mount(&files).context("mounting after the loss: ext4's journal did not replay")?;
        Ok(Self { daemon, attached, files })
    }

    fn close(mut self, world: &World) -> Result<()> {
        self.attached.unmount()?;
        let fsck =
            shell::output(world.client("e2fsck").args(["-f", "-n", self.attached.device()]), TOOL_LIMIT)?;
        ensure!(fsck.code() == 0, "e2fsck ended with {}: {}{}", fsck.code(), fsck.stdout, fsck.stderr);
        drop(self.attached);
        self.daemon.close()
    }
}

/// A PostgreSQL server and its data directory.
struct Postgres<'a> {
    world: &'a World<'a>,
    programs: PathBuf,
    data: PathBuf,
    uid: u32,
    gid: u32,
}

const PORT: &str = "15432";
/// Rows that a client wrote in its own order; pgbench's log says which of them were acknowledged.
const SCRIPT: &str = "\\set n :n + 1\nBEGIN;\nINSERT INTO acked VALUES (:client_id, :n, repeat('x', 200));\n\
                      UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 1 + mod(:n * 7919::bigint, 100000);\nEND;\n";

impl<'a> Postgres<'a> {
    fn new(world: &'a World, files: &Path) -> Result<Self> {
        let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .context("PostgreSQL's server is not installed: `cargo xtask setup`")?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .filter(|programs| programs.join("initdb").exists())
            .collect();
        versions.sort();
        let programs = versions.pop().context("PostgreSQL's server is not installed: `cargo xtask setup`")?;
        let id = |flag: &str| -> Result<u32> {
            let output = shell::output_ok(Command::new("id").args([flag, "postgres"]), TOOL_LIMIT)?;
            Ok(output.stdout.trim().parse()?)
        };
        Ok(Self { world, programs, data: files.join("data"), uid: id("-u")?, gid: id("-g")? })
    }

    /// One of its programs, as its user: as root it refuses to run.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir("/").uid(self.uid).gid(self.gid);
        command.env("PGHOST", "127.0.0.1").env("PGPORT", PORT).env("PGUSER", "postgres").env("LC_ALL", "C");
        command
    }

    fn initialise(&self) -> Result<()> {
        std::fs::create_dir_all(&self.data)?;
        std::os::unix::fs::chown(&self.data, Some(self.uid), Some(self.gid))?;
        let mut initdb = self.program("initdb");
        initdb.args(["--data-checksums", "--auth=trust", "--username=postgres", "--pgdata"]).arg(&self.data);
        shell::output_ok(&mut initdb, READY_LIMIT)?;
        Ok(())
    }

    /// Starts the server and waits until it has recovered.
    fn start(&self) -> Result<Server> {
        let log = self.world.dir.join("postgres.log");
        let log = File::options().create(true).append(true).open(log)?;
        let mut postgres = self.program("postgres");
        postgres.arg("-D").arg(&self.data).args(["-p", PORT, "-h", "127.0.0.1", "-k", ""]);
        postgres.args(["-c", "shared_buffers=64MB", "-c", "checkpoint_timeout=30s"]);
        postgres.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let server = Server(postgres.spawn().context("cannot start postgres")?);
        let ready = || {
            let mut asks = self.program("pg_isready");
            shell::output(&mut asks, TOOL_LIMIT).is_ok_and(|output| output.code() == 0)
        };
        shell::wait_until("PostgreSQL answers", READY_LIMIT, ready)?;
        Ok(server)
    }

    fn sql(&self, text: &str) -> Result<String> {
        let mut psql = self.program("psql");
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            text,
        ]);
        Ok(shell::output_ok(&mut psql, READY_LIMIT)?.stdout.trim().to_owned())
    }

    /// Clients that write until their server dies; their log is `prefix`.CLIENT-LIKE.
    fn load(&self, script: &Path, prefix: &Path, start: u64) -> Result<Child> {
        let mut pgbench = self.program("pgbench");
        pgbench
            .args(["-n", "-c", "4", "-j", "2", "-T", "600", "-D", &format!("n={start}"), "-f"])
            .arg(script);
        pgbench.arg("-l").arg(format!("--log-prefix={}", prefix.display())).arg("postgres");
        pgbench.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        pgbench.spawn().context("cannot start pgbench")
    }

    /// Every row that a client was told to be committed, and the database's own opinion of itself.
    fn check(&self, acknowledged: &[(u64, u64)]) -> Result<()> {
        let rows = self.sql("SELECT client || ' ' || n FROM acked")?;
        let rows: std::collections::HashSet<&str> = rows.lines().collect();
        let lost = acknowledged.iter().filter(|(client, n)| !rows.contains(format!("{client} {n}").as_str()));
        let lost: Vec<_> = lost.collect();
        ensure!(lost.is_empty(), "LOST: {} of {} transactions: {lost:?}", lost.len(), acknowledged.len());
        let mut amcheck = self.program("pg_amcheck");
        amcheck.args(["--database=postgres", "--heapallindexed"]);
        shell::output_ok(&mut amcheck, READY_LIMIT)?;
        Ok(())
    }

    fn checksums(&self) -> Result<()> {
        let mut checksums = self.program("pg_checksums");
        shell::output_ok(checksums.arg("--check").arg("-D").arg(&self.data), READY_LIMIT)?;
        Ok(())
    }
}

/// A server that dies with this value.
struct Server(Child);

impl Server {
    /// An orderly end: SIGINT is PostgreSQL's "fast".
    fn stop(mut self) -> Result<()> {
        shell::signal(&self.0, rustix::process::Signal::INT);
        let status = shell::wait(&mut self.0, READY_LIMIT)?;
        ensure!(
            status.is_some_and(|status| status.success()),
            "PostgreSQL did not stop in order: {status:?}"
        );
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        shell::kill_group(&self.0);
        let _ = self.0.wait();
    }
}

/// Transactions that pgbench's logs below `dir` say to be committed: client and the number of its row.
fn acknowledged(dir: &Path, prefix: &str, start: u64) -> Result<Vec<(u64, u64)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)) {
            continue;
        }
        for line in std::fs::read_to_string(&path)?.lines() {
            let mut words = line.split(' ');
            let (Some(client), Some(nth)) = (words.next(), words.next()) else {
                bail!("pgbench logged '{line}'")
            };
            // What was cut off when its writer died is no answer; failed ones say so in place of a time.
            let Some(time) = words.next() else { continue };
            if time.parse::<u64>().is_ok() {
                all.push((client.parse()?, start + nth.parse::<u64>()?));
            }
        }
    }
    Ok(all)
}

fn postgres(world: &World) -> Result<()> {
    for (mode, flags) in modes(world) {
        let name = format!("pg-{mode}");
        let mut disk = Disk::new(world, &name, &flags)?;
        let postgres = Postgres::new(world, &disk.files)?;
        postgres.initialise()?;
        let logs = world.dir.join(format!("acked-{mode}"));
        std::fs::create_dir_all(&logs)?;
        std::os::unix::fs::chown(&logs, Some(postgres.uid), Some(postgres.gid))?;
        let script = logs.join("script.sql");
        std::fs::write(&script, SCRIPT)?;
        let mut acked = Vec::new();
        for kill in 0..KILLS {
            let server = postgres.start()?;
            if kill == 0 {
                shell::output_ok(postgres.program("pgbench").args(["-i", "-q", "postgres"]), READY_LIMIT)?;
                postgres.sql("CREATE EXTENSION amcheck")?;
                postgres.sql("CREATE TABLE acked (client int, n bigint, x text, PRIMARY KEY (client, n))")?;
            }
            postgres.check(&acked)?;
            let start = u64::from(kill + 1) * 1_000_000;
            let prefix = format!("kill{kill}");
            let mut clients = postgres.load(&script, &logs.join(&prefix), start)?;
            std::thread::sleep(LOAD);
            disk.daemon.kill_now();
            ensure!(shell::wait(&mut clients, READY_LIMIT)?.is_some(), "pgbench hangs after its disk died");
            drop(server);
            let before = acked.len();
            acked.extend(acknowledged(&logs, &prefix, start)?);
            ensure!(acked.len() > before, "no transaction was acknowledged: nothing was shown");
            disk = disk.come_back(world, &name, &flags)?;
        }
        let server = postgres.start()?;
        postgres.check(&acked)?;
        server.stop()?;
        postgres.checksums()?;
        disk.close(world)?;
        println!("  {mode}: {} transactions acknowledged over {KILLS} kills, none lost", acked.len());
    }
    Ok(())
}

fn sqlite(world: &World) -> Result<()> {
    for (mode, flags) in modes(world) {
        let name = format!("sqlite-{mode}");
        let mut disk = Disk::new(world, &name, &flags)?;
        for journal in ["wal", "delete"] {
            let database = disk.files.join(format!("{journal}.db")).display().to_string();
            let acked = world.dir.join(format!("{mode}-{journal}.acked"));
            for _ in 0..KILLS {
                let mut writer = world.script("sqlite.py");
                writer.args(["write", &database, journal]).arg(&acked).stdin(Stdio::null());
                writer.stdout(Stdio::null()).stderr(Stdio::null());
                let mut writer = writer.spawn().context("cannot start the writer")?;
                std::thread::sleep(LOAD / 2);
                disk.daemon.kill_now();
                if shell::wait(&mut writer, READY_LIMIT)?.is_none() {
                    let _ = writer.kill();
                    bail!("the writer hangs after its disk died");
                }
                disk = disk.come_back(world, &name, &flags)?;
                let mut check = world.script("sqlite.py");
                check.args(["check", &database, journal]).arg(&acked);
                let said = shell::output_ok(&mut check, READY_LIMIT)?.stdout;
                println!("  {mode}, {journal}: {}", said.trim());
            }
        }
        disk.close(world)?;
    }
    Ok(())
}

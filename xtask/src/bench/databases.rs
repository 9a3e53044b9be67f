//! `cargo xtask bench databases`: transactions a second on a volume beside the same machine's own disk, in one run.
//!
//! All that a database can tell of its disk is how long a sync takes, so that is what these loads are made of. Invariants: 1. the
//! targets take turns within each round; 2. each is a fresh ext4 on a loop device, with the same databases and settings; 3. a
//! commit is durable when it returns, everywhere; 4. what nbdkit and nbdfuse cost by themselves is a column of its own.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::{bounds, median};
use crate::e2e::{self, Attached, Daemon, LabServer, Serve};
use crate::postgres::Postgres;
use crate::{setup, shell};

/// `cargo xtask bench databases`
#[derive(clap::Args, Debug)]
pub(crate) struct Databases {
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,
    /// How long PostgreSQL is measured, with each number of clients; SQLite half as long
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    seconds: u32,
    /// pgbench's scale: 15 MiB each
    #[arg(long, value_name = "N", default_value_t = 16)]
    scale: u32,
    /// Measure this daemon instead of building one
    #[arg(long, value_name = "PATH")]
    lsvd: Option<PathBuf>,
}

/// What one command may take beside what it measures.
const LIMIT: Duration = Duration::from_secs(600);
const DISK_BYTES: u64 = 3 << 30;
/// PostgreSQL's own defaults hold but for these: WAL goes on in one checkpoint's span, as in a server that is not idle.
const SETTINGS: &[&str] = &["synchronous_commit=on", "shared_buffers=128MB", "max_wal_size=4GB"];

/// What a database stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    /// A file of the local disk.
    Local,
    /// The same file behind nbdkit and nbdfuse: what the way to a volume costs by itself.
    Nbdkit,
    /// A volume, with its journal on the local disk or without, on a store that is so far away.
    Volume { journal: bool, latency_ms: u32 },
}

/// The first is what the others are compared with.
const DISKS: &[(&str, Disk)] = &[
    ("local disk", Disk::Local),
    ("the same by nbdkit", Disk::Nbdkit),
    ("journal, store at 0 ms", Disk::Volume { journal: true, latency_ms: 0 }),
    ("journal, 20 ms", Disk::Volume { journal: true, latency_ms: 20 }),
    ("object, 0 ms", Disk::Volume { journal: false, latency_ms: 0 }),
    ("object, 20 ms", Disk::Volume { journal: false, latency_ms: 20 }),
];

#[derive(Clone, Copy, Debug)]
enum Load {
    /// pgbench's own transaction by so many clients.
    Postgres {
        clients: u32,
    },
    Sqlite {
        journal: &'static str,
    },
}

const LOADS: &[(&str, Load)] = &[
    ("PostgreSQL, 1 client", Load::Postgres { clients: 1 }),
    ("PostgreSQL, 16 clients", Load::Postgres { clients: 16 }),
    ("SQLite, WAL", Load::Sqlite { journal: "wal" }),
    ("SQLite, rollback journal", Load::Sqlite { journal: "delete" }),
];

/// Measures and prints the table.
pub(super) fn run(args: &Databases) -> Result<()> {
    setup::install(false)?;
    if let Some(lacking) = e2e::lacking_mounts() {
        bail!("the volumes are mounted here: {lacking}");
    }
    let lsvd = match &args.lsvd {
        Some(path) => path.canonicalize().with_context(|| format!("no daemon at {}", path.display()))?,
        None => e2e::build_lsvd(true)?,
    };
    let labstore = e2e::build("lsvd-labstore", true)?;
    let dir = e2e::target().join("bench-databases");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let image = image(&dir)?;
    let mut measured: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
    for round in 1..=args.rounds {
        for (column, (name, disk)) in DISKS.iter().enumerate() {
            let place = dir.join(format!("{round}-{column}"));
            std::fs::create_dir_all(&place)?;
            let mounted = Mounted::new(*disk, &place, &image, &lsvd, &labstore).context(*name)?;
            for (row, value) in loads(args, &mounted, &place).context(*name)?.into_iter().enumerate() {
                eprintln!("round {round}: {name}: {}: {value:.0}", LOADS[row].0);
                measured.entry((row, column)).or_default().push(value);
            }
            mounted.end().context(*name)?;
            std::fs::remove_dir_all(&place)?;
        }
    }
    print_table(args, &measured);
    Ok(())
}

/// The figure of each load, in their order, on what is mounted.
fn loads(args: &Databases, mounted: &Mounted, place: &Path) -> Result<Vec<f64>> {
    let postgres = Postgres::new(&mounted.files.join("data"), &place.join("postgres.log"))?;
    postgres.initialise()?;
    let server = postgres.start(SETTINGS)?;
    let mut init = postgres.program("pgbench");
    init.args(["-i", "-q", "-s", &args.scale.to_string(), "postgres"]);
    shell::output_ok(&mut init, LIMIT)?;
    let mut values = Vec::new();
    let mut server = Some(server);
    for (_, load) in LOADS {
        values.push(match load {
            Load::Postgres { clients } => {
                // What the one before has left to write is not this one's.
                postgres.sql("CHECKPOINT")?;
                let mut pgbench = postgres.program("pgbench");
                pgbench.args(["-n", "-c", &clients.to_string(), "-j", &clients.min(&2).to_string()]);
                pgbench.args(["-T", &args.seconds.to_string(), "postgres"]);
                tps(&shell::output_ok(&mut pgbench, LIMIT)?.stdout).context("pgbench told no rate")?
            }
            Load::Sqlite { journal } => {
                if let Some(server) = server.take() {
                    server.stop()?;
                }
                let mut rate = Command::new("/usr/bin/python3");
                rate.arg(shell::root().join("xtask/scripts/sqlite_rate.py"));
                rate.arg(mounted.files.join(format!("{journal}.db"))).arg(journal);
                rate.arg((f64::from(args.seconds) / 2.0).to_string());
                shell::output_ok(&mut rate, LIMIT)?.stdout.trim().parse()?
            }
        });
    }
    Ok(values)
}

/// The rate that pgbench printed, without the time in which it connected.
fn tps(printed: &str) -> Option<f64> {
    let line = printed.lines().find(|line| line.starts_with("tps = "))?;
    line.split_whitespace().nth(2)?.parse().ok()
}

fn print_table(args: &Databases, measured: &BTreeMap<(usize, usize), Vec<f64>>) {
    println!(
        "Transactions a second: medians of {} rounds (lowest to highest), and the share of the first column. {} s each, \
         SQLite half as long; pgbench's own transaction at scale {}; {} cores.\n",
        args.rounds,
        args.seconds,
        args.scale,
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    let names: Vec<&str> = DISKS.iter().map(|(name, _)| *name).collect();
    println!("| load | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
    for (row, (load, _)) in LOADS.iter().enumerate() {
        print!("| {load} |");
        let first = median(&measured[&(row, 0)]);
        for column in 0..names.len() {
            let values = &measured[&(row, column)];
            let (low, high) = bounds(values);
            let value = median(values);
            print!(" {value:.0} ({low:.0}–{high:.0})");
            if column > 0 {
                print!(", {:.0} %", 100.0 * value / first);
            }
            print!(" |");
        }
        println!();
    }
}

/// An ext4 that is mounted, and all that is below it, in the order in which it ends.
struct Mounted {
    files: PathBuf,
    attached: Option<Attached>,
    below: Below,
    _store: Option<LabServer>,
}

enum Below {
    Nothing,
    Nbdkit(Child),
    Daemon(Option<Daemon>),
}

impl Drop for Below {
    fn drop(&mut self) {
        if let Self::Nbdkit(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Mounted {
    fn new(disk: Disk, place: &Path, image: &Path, lsvd: &Path, labstore: &Path) -> Result<Self> {
        let files = place.join("mnt");
        let (attached, below, store) = match disk {
            Disk::Local => (Attached::file(image)?, Below::Nothing, None),
            Disk::Nbdkit => {
                let socket = place.join("nbdkit.sock");
                let mut command = Command::new("nbdkit");
                command.args(["--foreground", "--unix"]).arg(&socket).arg("file").arg(image);
                let child = command.stdin(Stdio::null()).spawn().context("cannot start nbdkit")?;
                let below = Below::Nbdkit(child);
                shell::wait_until("nbdkit listens", Duration::from_secs(10), || socket.exists())?;
                let uri = format!("nbd+unix:///?socket={}", socket.display());
                (Attached::new(&uri, place)?, below, None)
            }
            Disk::Volume { journal, latency_ms } => {
                let store = LabServer::start(labstore)?;
                let latency =
                    json!({ "latency": [{ "median_ms": latency_ms, "p99_ms": latency_ms * 3 / 2 }] });
                store.lab().set_line(&latency)?;
                let daemon = serve(lsvd, place, &store, journal)?;
                (Attached::new(daemon.uri(), place)?, Below::Daemon(Some(daemon)), Some(store))
            }
        };
        let mut mounted = Self { files, attached: Some(attached), below, _store: store };
        let attached = mounted.attached.as_mut().context("it was just attached")?;
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", attached.device()]);
        shell::output_ok(mkfs.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin"), LIMIT)?;
        attached.mount(&mounted.files)?;
        Ok(mounted)
    }

    fn end(mut self) -> Result<()> {
        if let Some(mut attached) = self.attached.take() {
            attached.unmount()?;
        }
        match &mut self.below {
            Below::Daemon(daemon) => daemon.take().map_or(Ok(()), Daemon::close),
            Below::Nothing | Below::Nbdkit(_) => Ok(()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Before the server below it goes.
        self.attached = None;
    }
}

/// A file of the local disk whose blocks were all written once: a sync of it is one of the disk, as if it were a partition, with
/// nothing to do for the file system that it is in.
fn image(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("disk.img");
    let mut file = std::fs::File::create(&path)?;
    std::io::copy(&mut std::io::repeat(1).take(DISK_BYTES), &mut file)?;
    file.sync_all()?;
    Ok(path)
}

fn serve(lsvd: &Path, place: &Path, store: &LabServer, journal: bool) -> Result<Daemon> {
    let mut command = Command::new(lsvd);
    command.current_dir(place).env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", place);
    command.env("AWS_ACCESS_KEY_ID", "lab").env("AWS_SECRET_ACCESS_KEY", "lab-does-not-look");
    let (endpoint, size) = (store.endpoint(), DISK_BYTES.to_string());
    let mut flags = vec!["--create", size.as_str(), "--allow-http", "--endpoint", endpoint.as_str()];
    let journals = place.join("journal");
    let journals = journals.to_str().context("a path is not text")?;
    if journal {
        flags.extend(["--flush", "journal", "--journal", journals]);
    }
    let daemon =
        Daemon::start(&Serve { command: &command, dir: place, urls: &["s3://lab/db1"], flags: &flags })?;
    ensure!(!daemon.uri().is_empty(), "the daemon told no URI");
    Ok(daemon)
}

#[cfg(test)]
mod tests {
    use super::tps;

    #[test]
    fn pgbenchs_rate_is_found() {
        let printed = "latency average = 1.2 ms\ninitial connection time = 3.1 ms\n\
                       tps = 812.431052 (without initial connection time)\n";
        assert_eq!(tps(printed), Some(812.431_052));
        assert_eq!(tps("nothing"), None);
    }
}

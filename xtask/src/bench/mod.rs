//! `cargo xtask bench`: lsvd beside `nbdkit memory` on the same machine in the same run, as a table for
//! docs/performance.md.
//!
//! Databases beside the local disk are in `databases`, space under overwriting in `day`, snapshots and rollbacks in `moments`.
//!
//! Knows fio's JSON and nothing of what it measures. Invariants: 1. targets take turns within each round, so that what
//! else the machine does meets all of them; 2. what is printed is a median, with the spread beside it; 3. every target
//! does the same work on a fresh volume: a sequential fill, then reads, then random writes, then random reads.

mod databases;
mod day;
mod moments;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::e2e::{self, Daemon};
use crate::{setup, shell};

/// `cargo xtask bench`
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    other: Option<Other>,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,
    /// How much of the volume is written and read, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    area: u64,
    /// Measure this daemon instead of building one
    #[arg(long, value_name = "PATH")]
    lsvd: Option<PathBuf>,
    /// Only targets whose names contain this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// What else is measured.
#[derive(clap::Subcommand, Debug)]
enum Other {
    /// PostgreSQL and SQLite on a volume, beside the local disk
    Databases(databases::Databases),
    /// A full volume overwritten at random: what the bucket holds, with collection and without
    Day(day::Day),
    /// Snapshots, rollbacks and openings at a moment, on a small volume and on a large one
    Moments(moments::Moments),
}

/// What one measurement may take.
const JOB_LIMIT: Duration = Duration::from_secs(600);

/// One kind of load.
#[derive(Debug)]
struct Load {
    name: &'static str,
    rw: &'static str,
    block_size: &'static str,
    depth: u32,
    /// Part of the area that is moved, in percent: small blocks take longer.
    percent: u64,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Iops,
    MibPerSecond,
}

/// In this order, because reads need what a write left.
const LOADS: &[Load] = &[
    Load {
        name: "write 1 MiB, sequential, depth 8",
        rw: "write",
        block_size: "1m",
        depth: 8,
        percent: 100,
        unit: Unit::MibPerSecond,
    },
    Load {
        name: "read 1 MiB, sequential, depth 8",
        rw: "read",
        block_size: "1m",
        depth: 8,
        percent: 100,
        unit: Unit::MibPerSecond,
    },
    Load {
        name: "write 4 KiB, random, depth 32",
        rw: "randwrite",
        block_size: "4k",
        depth: 32,
        percent: 40,
        unit: Unit::Iops,
    },
    Load {
        name: "read 4 KiB, random, depth 32",
        rw: "randread",
        block_size: "4k",
        depth: 32,
        percent: 40,
        unit: Unit::Iops,
    },
];

/// What is measured; the first is what the others are compared with.
const TARGETS: &[&str] = &["nbdkit memory", "lsvd, bucket in memory", "lsvd, bucket in a directory"];

/// Measures and prints the table.
pub(crate) fn run(args: &Bench) -> Result<()> {
    match &args.other {
        Some(Other::Databases(args)) => return databases::run(args),
        Some(Other::Day(args)) => return day::run(args),
        Some(Other::Moments(args)) => return moments::run(args),
        None => {}
    }
    setup::install(false)?;
    let lsvd = match &args.lsvd {
        Some(path) => path.canonicalize().with_context(|| format!("no daemon at {}", path.display()))?,
        None => e2e::build_lsvd(true)?,
    };
    let dir = e2e::target().join("bench");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let wanted = |target: &&&str| args.only.as_ref().is_none_or(|only| target.contains(only.as_str()));
    let targets: Vec<&str> = TARGETS.iter().filter(wanted).copied().collect();
    let mut measured: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
    for round in 1..=args.rounds {
        for (column, target) in targets.iter().enumerate() {
            let place = dir.join(format!("{round}-{column}"));
            std::fs::create_dir_all(&place)?;
            let served = Served::start(target, &lsvd, &place, args.area)?;
            for (row, load) in LOADS.iter().enumerate() {
                let value = measure(load, served.uri(), args.area)
                    .with_context(|| format!("{target}: {}", load.name))?;
                eprintln!("round {round}: {target}: {}: {value:.0}", load.name);
                measured.entry((row, column)).or_default().push(value);
            }
            drop(served);
            std::fs::remove_dir_all(&place)?;
        }
    }
    print_table(args, &targets, &measured);
    Ok(())
}

fn print_table(args: &Bench, targets: &[&str], measured: &BTreeMap<(usize, usize), Vec<f64>>) {
    println!(
        "Medians of {} rounds (lowest to highest); {} MiB of a fresh volume, {} cores, fio's nbd engine over a unix \
         socket. The share is of the first column.\n",
        args.rounds,
        args.area,
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    println!("| load | {} |", targets.join(" | "));
    println!("|---|{}", "---|".repeat(targets.len()));
    for (row, load) in LOADS.iter().enumerate() {
        let unit = if load.unit == Unit::Iops { "requests/s" } else { "MiB/s" };
        print!("| {} ({unit}) |", load.name);
        let first = median(&measured[&(row, 0)]);
        for column in 0..targets.len() {
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

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

fn bounds(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, 0.0), |(low, high), &value| (low.min(value), f64::max(high, value)))
}

/// Runs fio once and says what it found.
fn measure(load: &Load, uri: &str, area: u64) -> Result<f64> {
    let mut command = Command::new("fio");
    command.args(["--name=bench", "--ioengine=nbd", "--output-format=json", "--randseed=1", "--end_fsync=1"]);
    command
        .arg(format!("--uri={uri}"))
        .arg(format!("--rw={}", load.rw))
        .arg(format!("--bs={}", load.block_size));
    command.arg(format!("--iodepth={}", load.depth)).arg(format!("--size={area}m"));
    command.arg(format!("--io_size={}m", area * load.percent / 100));
    // Data that repeats would flatter whoever compresses or deduplicates.
    command.arg("--refill_buffers");
    let printed = shell::output_ok(&mut command, JOB_LIMIT)?.stdout;
    value_of(&printed, load).with_context(|| format!("fio printed {}", shell::tail(&printed, 3)))
}

fn value_of(printed: &str, load: &Load) -> Option<f64> {
    // What a library says before the JSON begins is not part of it.
    let json: serde_json::Value = serde_json::from_str(printed.get(printed.find('{')?..)?).ok()?;
    let direction = if load.rw.ends_with("read") { "read" } else { "write" };
    let found = &json["jobs"][0][direction];
    match load.unit {
        Unit::Iops => found["iops"].as_f64(),
        Unit::MibPerSecond => found["bw_bytes"].as_f64().map(|bytes| bytes / f64::from(1 << 20)),
    }
}

/// A target that serves.
#[derive(Debug)]
enum Served {
    Nbdkit { child: Child, uri: String },
    Lsvd(Daemon),
}

impl Served {
    fn start(target: &str, lsvd: &Path, dir: &Path, area: u64) -> Result<Self> {
        if target == TARGETS[0] {
            let socket = dir.join("nbdkit.sock");
            let mut command = Command::new("nbdkit");
            command.args(["--foreground", "--unix"]).arg(&socket).arg("memory").arg(format!("{area}M"));
            let child = command.stdin(Stdio::null()).spawn().context("cannot start nbdkit")?;
            let uri = format!("nbd+unix:///?socket={}", socket.display());
            let served = Self::Nbdkit { child, uri };
            shell::wait_until("nbdkit listens", Duration::from_secs(10), || socket.exists())?;
            return Ok(served);
        }
        let size = format!("{area}M");
        let mut command = Command::new(lsvd);
        command.current_dir(dir).env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", dir);
        let (url, flags) = if target.contains("memory") {
            // A bucket in memory lives and dies with the daemon.
            ("memory://bench/db1".to_owned(), vec!["--create", size.as_str()])
        } else {
            let url = format!("file://{}", dir.join("bucket/db1").display());
            let create =
                shell::output(Command::new(lsvd).args(["create", &url, "--size", &size]), JOB_LIMIT)?;
            ensure!(create.code() == 0, "`lsvd create`: {}", create.stderr);
            (url, Vec::new())
        };
        let serve = e2e::Serve { command: &command, dir, urls: &[&url], flags: &flags };
        Ok(Self::Lsvd(Daemon::start(&serve)?))
    }

    fn uri(&self) -> &str {
        match self {
            Self::Nbdkit { uri, .. } => uri,
            Self::Lsvd(daemon) => daemon.uri(),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Self::Nbdkit { child, .. } = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fios_figures_are_found() {
        let printed = r#"a warning
            {"jobs": [{"read": {"iops": 1.0, "bw_bytes": 1048576}, "write": {"iops": 7.5, "bw_bytes": 2097152}}]}"#;
        let values: Vec<f64> = LOADS.iter().filter_map(|load| value_of(printed, load)).collect();
        assert_eq!(values, [2.0, 1.0, 7.5, 1.0]);
        assert_eq!(value_of("nothing", &LOADS[0]), None);
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(bounds(&[3.0, 1.0, 2.0]), (1.0, 3.0));
    }
}

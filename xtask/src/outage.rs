//! `cargo xtask outage`: a store that goes silent for minutes under load, as a plot for docs/performance.md.
//!
//! Starts the lab store and an optimised daemon, keeps a steady load on it (xtask/scripts/steady.py), takes the store away
//! in the middle and looks at all of them once a second. At the end it reads everything back, twice: from the daemon that
//! lived through it, and from a fresh one after a SIGKILL. Invariant: what is not shown is an error: a plot is written only
//! of a run that lost nothing and whose device went on by itself.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::e2e::{self, Daemon, Lab, LabServer, Serve};
use crate::plot::{Line, Panel, Plot, svg};
use crate::{setup, shell};

/// `cargo xtask outage`
#[derive(clap::Args, Debug)]
pub(crate) struct Outage {
    /// How long the store is away
    #[arg(long, value_name = "MINUTES", default_value_t = 10.0)]
    minutes: f64,
    /// How long the load runs before and after
    #[arg(long, value_name = "MINUTES", default_value_t = 2.0)]
    around: f64,
    /// What the store does meanwhile
    #[arg(long, value_enum, default_value_t = Kind::Silence)]
    kind: Kind,
    /// Flushes are answered by a journal on the local disk
    #[arg(long)]
    journal: bool,
    /// MiB per second that are written, and as many that are read
    #[arg(long, value_name = "MIB", default_value_t = 6)]
    rate: u32,
    /// Drive this daemon instead of building one
    #[arg(long, value_name = "PATH")]
    lsvd: Option<PathBuf>,
    /// Where the plot goes
    #[arg(long, value_name = "PATH", default_value = "docs/outage.svg")]
    plot: PathBuf,
}

/// How a store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// It answers nothing
    Silence,
    /// It resets every connection
    Resets,
}

const PANELS: &[Panel<Sample>] = &[
    Panel {
        title: "client (MiB/s)",
        lines: &[
            Line { name: "writes", colour: "#c2410c", of: |s| s.write_mib_per_s },
            Line { name: "reads", colour: "#1d4ed8", of: |s| s.read_mib_per_s },
        ],
        most: None,
    },
    Panel {
        title: "flushes answered (a second)",
        lines: &[Line { name: "flushes", colour: "#0f766e", of: |s| s.flushes }],
        most: None,
    },
    Panel {
        title: "memory (MiB)",
        lines: &[
            Line { name: "the daemon's", colour: "#6d28d9", of: |s| s.memory_mib },
            Line { name: "accepted and not stored", colour: "#be185d", of: |s| s.buffered_mib },
        ],
        most: None,
    },
    Panel {
        title: "requests at the store",
        lines: &[Line { name: "in flight", colour: "#334155", of: |s| s.in_flight }],
        most: None,
    },
];

/// What there was in one second.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Since the load's start.
    second: f64,
    write_mib_per_s: f64,
    read_mib_per_s: f64,
    flushes: f64,
    errors: f64,
    buffered_mib: f64,
    memory_mib: f64,
    in_flight: f64,
}

/// A second of the daemon and of the store, as they were looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Looked {
    second: f64,
    buffered_bytes: u64,
    memory_bytes: u64,
    in_flight: u64,
}

/// Beyond its end, what the load may take until everything is written that failed meanwhile.
const LOAD_SLACK: Duration = Duration::from_secs(180);
/// From the store's return to the first byte that the load wrote again.
const RESUMED_LIMIT_S: f64 = 15.0;

/// Runs the outage and writes the plot.
pub(crate) fn run(args: &Outage) -> Result<()> {
    setup::install(false)?;
    let lsvd = match &args.lsvd {
        Some(path) => path.canonicalize().with_context(|| format!("no daemon at {}", path.display()))?,
        None => e2e::build_lsvd(true)?,
    };
    let labstore = e2e::build("lsvd-labstore", true)?;
    let dir = e2e::target().join("outage").join(if args.journal { "journal" } else { "object" });
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let store = LabServer::start(&labstore)?;
    let daemon = serve(args, &lsvd, &dir, &store)?;
    let samples = measure(args, &dir, &store.lab(), &daemon)?;
    steady(&dir, &["check", daemon.uri(), "state.json"]).context("what the living daemon has")?;
    daemon.kill();
    let daemon = serve(args, &lsvd, &dir, &store)?;
    steady(&dir, &["check", daemon.uri(), "state.json"])
        .context("what a fresh daemon has after a SIGKILL")?;
    daemon.kill();

    let (from, to) = (args.around * 60.0, (args.around + args.minutes) * 60.0);
    let resumed = samples.iter().find(|sample| sample.second > to + 1.0 && sample.write_mib_per_s > 0.0);
    let resumed_s =
        resumed.map(|sample| sample.second - to).context("nothing was written after the outage")?;
    ensure!(resumed_s < RESUMED_LIMIT_S, "the first write came {resumed_s:.1} s after the store's return");
    let title = format!(
        "{} minutes of a store that {}, flushes answered by {}",
        args.minutes,
        if args.kind == Kind::Silence { "answers nothing" } else { "resets every connection" },
        if args.journal { "the local journal" } else { "the store" }
    );
    let shaded = Some((from, to));
    let plot =
        Plot { title: &title, panels: PANELS, samples: &samples, second: |sample| sample.second, shaded };
    std::fs::write(&args.plot, svg(&plot))?;
    print_table(&samples, (from, to), resumed_s);
    Ok(())
}

fn serve(args: &Outage, lsvd: &Path, dir: &Path, store: &LabServer) -> Result<Daemon> {
    let mut command = Command::new(lsvd);
    command.current_dir(dir).env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", dir);
    command.env("AWS_ACCESS_KEY_ID", "lab").env("AWS_SECRET_ACCESS_KEY", "lab-does-not-look");
    let endpoint = store.endpoint();
    let journal = dir.join("journals");
    let mut flags = vec!["--create", "1G", "--allow-http", "--endpoint", endpoint.as_str()];
    flags.extend(["--stats-interval", "1s", "--log-format", "json"]);
    let journal = journal.to_string_lossy();
    if args.journal {
        flags.extend(["--flush", "journal", "--journal", &journal]);
    }
    Daemon::start(&Serve { command: &command, dir, urls: &["s3://lab/db1"], flags: &flags })
}

/// Puts the load on, takes the store away and gives it back, and looks at everything meanwhile.
fn measure(args: &Outage, dir: &Path, lab: &Lab, daemon: &Daemon) -> Result<Vec<Sample>> {
    lab.set_line(
        &json!({ "latency": [{ "median_ms": 10, "p99_ms": 60 }], "up_bytes_per_s": 48 << 20, "down_bytes_per_s": 96 << 20 }),
    )?;
    let seconds = (2.0 * args.around + args.minutes) * 60.0;
    let (seconds_text, rate) = (seconds.to_string(), args.rate.to_string());
    let mut command = script(dir);
    command.args(["run", daemon.uri(), "state.json", "samples.jsonl", "--seconds", &seconds_text]);
    command.args(["--mib-per-s", &rate]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut load = command.spawn().context("cannot start the load")?;
    let mut line = String::new();
    let mut said = BufReader::new(load.stdout.take().context("stdout was piped")?);
    said.read_line(&mut line)?;
    ensure!(line.trim() == "started", "the load said '{}'", line.trim());
    let begun = Instant::now();
    let (from, to) = (args.around * 60.0, (args.around + args.minutes) * 60.0);
    let (mut away, mut looked) = (false, Vec::new());
    for nth in 1.. {
        let now = begun.elapsed().as_secs_f64();
        let should = (from..to).contains(&now);
        if should != away {
            away = should;
            match away {
                true => lab.misbehave(
                    &json!({ "fault": if args.kind == Kind::Silence { "hang" } else { "reset" } }),
                )?,
                false => lab.behave()?,
            }
            eprintln!("{now:.0} s: the store is {}", if away { "away" } else { "back" });
        }
        looked.push(Looked {
            second: now,
            buffered_bytes: daemon.stats().and_then(|stats| stats["buffered_bytes"].as_u64()).unwrap_or(0),
            memory_bytes: daemon.memory_bytes().unwrap_or(0),
            in_flight: lab.in_flight()?,
        });
        if load.try_wait()?.is_some() || now > seconds + LOAD_SLACK.as_secs_f64() {
            break;
        }
        let next = Duration::from_secs(nth);
        sleep(next.saturating_sub(begun.elapsed()));
    }
    let status = shell::wait(&mut load, Duration::from_secs(1))?;
    let status = match status {
        Some(status) => status,
        None => {
            shell::kill_group(&load);
            anyhow::bail!("the load still waits for its device");
        }
    };
    ensure!(status.success(), "the load ended with {}", shell::exit_code(status));
    joined(&dir.join("samples.jsonl"), &looked)
}

/// What the load counted, with what was looked at in the same second.
fn joined(path: &Path, looked: &[Looked]) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for line in BufReader::new(File::open(path)?).lines() {
        let counted: Value = serde_json::from_str(&line?)?;
        let number = |name: &str| counted[name].as_f64().with_context(|| format!("a sample has no {name}"));
        let (second, took) = (number("seconds")?, number("took")?);
        let mib = f64::from(1 << 20);
        let nearest =
            looked.iter().min_by(|a, b| (a.second - second).abs().total_cmp(&(b.second - second).abs()));
        let looked = nearest.copied().unwrap_or_default();
        samples.push(Sample {
            second,
            write_mib_per_s: number("written")? / took / mib,
            read_mib_per_s: number("read")? / took / mib,
            flushes: number("flushes")? / took,
            errors: number("write_errors")? + number("read_errors")? + number("flush_errors")?,
            buffered_mib: looked.buffered_bytes as f64 / mib,
            memory_mib: looked.memory_bytes as f64 / mib,
            in_flight: looked.in_flight as f64,
        });
    }
    ensure!(!samples.is_empty(), "the load counted nothing");
    Ok(samples)
}

/// A row of the table.
struct Row {
    name: &'static str,
    of: fn(&Sample) -> f64,
    fold: Fold,
    digits: usize,
}

#[derive(Clone, Copy)]
enum Fold {
    Mean,
    Sum,
    Max,
}

const ROWS: &[Row] = &[
    Row { name: "writes, mean (MiB/s)", of: |s| s.write_mib_per_s, fold: Fold::Mean, digits: 1 },
    Row { name: "reads, mean (MiB/s)", of: |s| s.read_mib_per_s, fold: Fold::Mean, digits: 1 },
    Row { name: "flushes answered, mean (a second)", of: |s| s.flushes, fold: Fold::Mean, digits: 2 },
    Row { name: "I/O errors", of: |s| s.errors, fold: Fold::Sum, digits: 0 },
    Row {
        name: "accepted and not stored, at most (MiB)",
        of: |s| s.buffered_mib,
        fold: Fold::Max,
        digits: 0,
    },
    Row { name: "memory of the daemon, at most (MiB)", of: |s| s.memory_mib, fold: Fold::Max, digits: 0 },
    Row { name: "requests at the store, at most", of: |s| s.in_flight, fold: Fold::Max, digits: 0 },
];

fn print_table(samples: &[Sample], (from, to): (f64, f64), resumed_s: f64) {
    let (first, last) = (samples.first().map_or(0.0, |s| s.second), samples.last().map_or(0.0, |s| s.second));
    println!("| | before | first minute of the outage | rest of it | first minute after | rest |");
    println!("|---|---|---|---|---|---|");
    let spans =
        [(first, from), (from, from + 60.0), (from + 60.0, to), (to, to + 60.0), (to + 60.0, last + 1.0)];
    for row in ROWS {
        print!("| {} |", row.name);
        for (from, to) in spans {
            let inside = samples.iter().filter(|sample| (from..to).contains(&sample.second));
            let values: Vec<f64> = inside.map(row.of).collect();
            // An empty sum is -0.
            let sum = values.iter().fold(0.0, |sum, value| sum + value);
            let value = match row.fold {
                Fold::Mean => sum / values.len().max(1) as f64,
                Fold::Sum => sum,
                Fold::Max => values.into_iter().fold(0.0, f64::max),
            };
            print!(" {value:.*} |", row.digits);
        }
        println!();
    }
    println!("\nThe first write was answered {resumed_s:.1} s after the store's return; nothing was lost.");
}

/// xtask/scripts/steady.py, by Debian's Python, which has the libnbd binding.
fn script(dir: &Path) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.current_dir(dir).arg("-u").arg(shell::root().join("xtask/scripts/steady.py"));
    command
}

fn steady(dir: &Path, arguments: &[&str]) -> Result<()> {
    shell::output_ok(script(dir).args(arguments), Duration::from_secs(300)).map(|_| ())
}

//! `cargo xtask bench day`: a full volume overwritten at random for many times its size, with collection and without, as
//! plots and a table for docs/performance.md.
//!
//! Starts a lab store on a line of its own for each run and the load (crates/lsvd-volume/examples/day.rs) beside it. Knows
//! what the load prints. Invariant: runs that are compared write the same to the same line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::median;
use crate::e2e::{self, LabServer};
use crate::plot::{Line, Panel, Plot, svg};
use crate::shell;

/// `cargo xtask bench day`
#[derive(clap::Args, Debug)]
pub(super) struct Day {
    /// Size of the volume in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    volume: u64,
    /// How many times it is written
    #[arg(long, value_name = "N", default_value_t = 5)]
    times: u64,
    /// What the line to the store takes, in MiB a second up, and twice as much down
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    line: u64,
    /// Time to the store's first byte, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20)]
    latency: u64,
    /// MiB a second that a client writes where it does not write as fast as it can
    #[arg(long, value_name = "MIB", default_value_t = 12)]
    steady: u64,
    /// Run nothing, and draw what the last runs left in target/day
    #[arg(long)]
    redraw: bool,
    /// Where the plots go
    #[arg(long, value_name = "PATH", default_value = "docs")]
    plots: PathBuf,
}

/// A run may take so long.
const LIMIT: Duration = Duration::from_secs(1800);
const MIB: f64 = (1 << 20) as f64;

/// A second of a run.
#[derive(Clone, Copy, Debug)]
struct Second {
    at: f64,
    /// In the bucket, for each live byte.
    stored: f64,
    /// In objects that hold anything live, for each live byte.
    held: f64,
    client_mib_per_s: f64,
    moved_mib_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

const OVER: Second = Second {
    at: f64::NAN,
    stored: f64::NAN,
    held: f64::NAN,
    client_mib_per_s: f64::NAN,
    moved_mib_per_s: f64::NAN,
    p50_ms: f64::NAN,
    p99_ms: f64::NAN,
};

/// A run.
struct Run {
    seconds: Vec<Second>,
    /// Written to the log for each byte that clients wrote.
    written: f64,
    client_mib_per_s: f64,
}

/// Two runs, second by second.
struct Beside {
    on: Second,
    off: Second,
}

const PANELS: &[Panel<Beside>] = &[
    Panel {
        title: "stored for each live byte",
        lines: &[
            Line { name: "all in the bucket", colour: "#c2410c", of: |s| s.on.stored },
            Line { name: "objects that hold anything live", colour: "#1d4ed8", of: |s| s.on.held },
            Line { name: "without collection", colour: "#94a3b8", of: |s| s.off.stored },
        ],
        most: Some(3.0),
    },
    Panel {
        title: "clients write (MiB/s)",
        lines: &[
            Line { name: "with collection", colour: "#c2410c", of: |s| s.on.client_mib_per_s },
            Line { name: "collection", colour: "#0f766e", of: |s| s.on.moved_mib_per_s },
            Line { name: "without", colour: "#94a3b8", of: |s| s.off.client_mib_per_s },
        ],
        most: None,
    },
    Panel {
        title: "99 of 100 writes wait less (ms)",
        lines: &[
            Line { name: "with collection", colour: "#c2410c", of: |s| s.on.p99_ms },
            Line { name: "without", colour: "#94a3b8", of: |s| s.off.p99_ms },
        ],
        most: None,
    },
];

/// Runs all, draws the plots and prints the table.
pub(super) fn run(args: &Day) -> Result<()> {
    let records = e2e::target().join("day");
    if !args.redraw {
        let labstore = e2e::build("lsvd-labstore", true)?;
        let mut build = shell::cargo();
        build.args(["build", "--quiet", "--release", "--locked"]);
        shell::run(build.args(["--package", "lsvd-volume", "--example", "day"]))?;
        let program = e2e::target().join("release/examples/day");
        fs::create_dir_all(&records)?;
        for (pattern, fast) in LOADS {
            for collection in ["on", "off"] {
                let load = Load { pattern, collection, mib_per_s: if *fast { 0 } else { args.steady } };
                eprintln!("{}", load.name());
                fs::write(records.join(load.name()), measure(args, (&labstore, &program), &load)?)?;
            }
        }
    }
    println!(
        "| writes | collection | stored bytes / live bytes: median, p99, highest | held / live: median, highest | written / \
         clients' | clients (MiB/s) | write p50, p99 (ms) |\n|---|---|---|---|---|---|---|"
    );
    for (pattern, fast) in LOADS {
        let mib_per_s = if *fast { 0 } else { args.steady };
        let read = |collection| {
            let path = records.join(Load { pattern, collection, mib_per_s }.name());
            let printed =
                fs::read_to_string(&path).with_context(|| format!("no record {}", path.display()))?;
            parsed(&printed).with_context(|| format!("the load printed {}", shell::tail(&printed, 3)))
        };
        let (on, off) = (read("on")?, read("off")?);
        let speed = if *fast { "as fast as it can".to_owned() } else { format!("{mib_per_s} MiB/s") };
        print_rows(&format!("{pattern}, {speed}"), &on, &off);
        if *fast {
            let path = args.plots.join(format!("day-{pattern}.svg"));
            fs::write(&path, draw(args, pattern, &on, &off))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Patterns, and whether the client writes as fast as it can.
const LOADS: &[(&str, bool)] = &[("uniform", true), ("skewed", true), ("uniform", false)];

/// What is put on the volume.
struct Load<'a> {
    pattern: &'a str,
    collection: &'a str,
    /// 0: as fast as it can.
    mib_per_s: u64,
}

impl Load<'_> {
    /// Its record's name.
    fn name(&self) -> String {
        format!("{}-{}-{}.jsonl", self.pattern, self.collection, self.mib_per_s)
    }
}

fn measure(args: &Day, (labstore, program): (&Path, &Path), load: &Load) -> Result<String> {
    let store = LabServer::start(labstore)?;
    store.lab().set_line(&json!({
        "latency": [{ "median_ms": args.latency, "p99_ms": args.latency * 3 }],
        "up_bytes_per_s": args.line << 20,
        "down_bytes_per_s": args.line << 21,
    }))?;
    let mut command = Command::new(program);
    command.env("AWS_ACCESS_KEY_ID", "lab").env("AWS_SECRET_ACCESS_KEY", "lab-does-not-look");
    command.env("LSVD_ENDPOINT", store.endpoint()).args(["s3://lab/day", load.pattern, load.collection]);
    // A slow client takes its time.
    let times = if load.mib_per_s == 0 { args.times } else { args.times.div_ceil(2) };
    command.args([args.volume.to_string(), times.to_string(), load.mib_per_s.to_string()]);
    Ok(shell::output_ok(&mut command, LIMIT)?.stdout)
}

/// What the load counted, as seconds.
fn parsed(printed: &str) -> Result<Run> {
    let mut seconds = Vec::new();
    let mut before = [0.0; 3];
    let (mut written, mut client_mib_per_s) = (0.0, 0.0);
    for line in printed.lines().filter(|line| line.starts_with('{')) {
        let said: Value = serde_json::from_str(line)?;
        let number = |name: &str| said[name].as_f64().with_context(|| format!("a second has no {name}"));
        let live = number("live_bytes")?.max(1.0);
        let now = [number("seconds")?, number("client_bytes")?, number("moved_bytes")?];
        let took = now[0] - before[0];
        seconds.push(Second {
            at: now[0],
            stored: number("bucket_bytes")? / live,
            held: (number("log_bytes")? - number("dead_bytes")?) / live,
            client_mib_per_s: (now[1] - before[1]) / took / MIB,
            moved_mib_per_s: (now[2] - before[2]) / took / MIB,
            p50_ms: number("p50_us")? / 1e3,
            p99_ms: number("p99_us")? / 1e3,
        });
        before = now;
        written = number("written_bytes")? / now[1].max(1.0);
        client_mib_per_s = now[1] / now[0] / MIB;
    }
    ensure!(!seconds.is_empty(), "nothing was counted");
    Ok(Run { seconds, written, client_mib_per_s })
}

fn values(run: &Run, of: fn(&Second) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = run.seconds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn highest(values: &[f64]) -> f64 {
    values.last().copied().unwrap_or(0.0)
}

fn print_rows(load: &str, on: &Run, off: &Run) {
    let wait = |run: &Run, of: fn(&Second) -> f64| median(&values(run, of));
    for (collection, run) in [("on", on), ("off", off)] {
        let (stored, held) = (values(run, |s| s.stored), values(run, |s| s.held));
        let p99th = stored[(stored.len() - 1) * 99 / 100];
        print!("| {load} | {collection} | {:.2}, {p99th:.2}, {:.2} |", median(&stored), highest(&stored));
        print!(" {:.2}, {:.2} | {:.2} |", median(&held), highest(&held), run.written);
        print!(" {:.1}", run.client_mib_per_s);
        if collection == "on" {
            print!(", {:.0} %", 100.0 * on.client_mib_per_s / off.client_mib_per_s);
        }
        print!(" | {:.2}, {:.2}", wait(run, |s| s.p50_ms), wait(run, |s| s.p99_ms));
        if collection == "on" {
            print!(" ({:.1} times)", wait(on, |s| s.p99_ms) / wait(off, |s| s.p99_ms).max(1e-3));
        }
        println!(" |");
    }
}

fn draw(args: &Day, pattern: &str, on: &Run, off: &Run) -> String {
    let seconds = on.seconds.len().max(off.seconds.len());
    let at = |run: &Run, nth: usize| run.seconds.get(nth).copied().unwrap_or(OVER);
    let samples: Vec<Beside> =
        (0..seconds).map(|nth| Beside { on: at(on, nth), off: at(off, nth) }).collect();
    let title = format!(
        "A full volume of {} MiB is overwritten {} times, {pattern}, on a line of {} MiB/s",
        args.volume, args.times, args.line
    );
    let second = |sample: &Beside| if sample.on.at.is_nan() { sample.off.at } else { sample.on.at };
    svg(&Plot { title: &title, panels: PANELS, samples: &samples, second, shaded: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_differences() {
        let line = |seconds: u32, client: u32, moved: u32| {
            let (stored, live) = (client + moved, 50);
            format!(
                r#"{{"seconds": {seconds}, "bucket_bytes": {stored}, "log_bytes": {stored}, "dead_bytes": 50, "live_bytes": {live},
                    "client_bytes": {client}, "moved_bytes": {moved}, "written_bytes": {stored}, "p50_us": 1500, "p99_us": 2000}}"#
            )
            .replace('\n', " ")
        };
        let printed = [line(1, 3 << 20, 0), "a warning".to_owned(), line(3, 7 << 20, 2 << 20)].join("\n");
        let run = parsed(&printed).unwrap();
        let rates: Vec<_> = run.seconds.iter().map(|s| (s.client_mib_per_s, s.moved_mib_per_s)).collect();
        assert_eq!(rates, [(3.0, 0.0), (2.0, 1.0)]);
        assert_eq!((run.seconds[1].p50_ms, run.written), (1.5, 9.0 / 7.0));
        assert!((run.seconds[0].stored - run.seconds[0].held - 1.0).abs() < 1e-9);
        assert!(parsed("nothing").is_err());
    }
}

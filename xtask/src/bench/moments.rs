//! `cargo xtask bench moments`: what a snapshot, a rollback and an opening at a moment cost on a small volume and on one a thousand
//! times larger, as a table for docs/performance.md.
//!
//! Knows the commands and the lab store's counters. Invariant: both volumes get the same writes, at random over all of their size,
//! and nothing else asks the store while something is measured.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::e2e::{self, Daemon, Lab, LabServer, Serve};
use crate::shell;

/// `cargo xtask bench moments`
#[derive(clap::Args, Debug)]
pub(super) struct Moments {
    /// Sizes of the volumes
    #[arg(long, value_name = "SIZE", value_delimiter = ',', default_value = "1G,1T")]
    sizes: Vec<String>,
    /// Blocks of 4 KiB that are written at random before the snapshot, and half as many after
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    blocks: u64,
    /// Time to the store's first byte, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20)]
    latency: u64,
    /// Measure the optimised program
    #[arg(long)]
    release: bool,
}

const LIMIT: Duration = Duration::from_secs(300);
/// Longer than a measurement: what a daemon does by itself is not part of it.
const QUIET: &[&str] = &["--checkpoint-interval", "1h", "--gc-target", "off", "--no-control"];
/// Some times the interval of checkpoints.
const CHECKPOINT_WRITTEN: Duration = Duration::from_secs(4);
const VERBS: [&str; 5] = ["PUT", "GET", "HEAD", "LIST", "DELETE"];

/// What was asked of the store.
struct Cost {
    what: &'static str,
    seconds: f64,
    requests: [u64; VERBS.len()],
    up_bytes: u64,
    down_bytes: u64,
}

/// Measures and prints the table.
pub(super) fn run(args: &Moments) -> Result<()> {
    let (lsvd, lab) = (e2e::build_lsvd(args.release)?, e2e::build("lsvd-labstore", args.release)?);
    let dir = e2e::target().join("moments");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    println!("\n| volume | | time (s) | PUT | GET | HEAD | LIST | DELETE | KiB up | KiB down |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for size in &args.sizes {
        let store = LabServer::start(&lab)?;
        let stage = Stage { lsvd: &lsvd, dir: &dir, store: &store, lab: store.lab() };
        for cost in stage.measure(args, size)? {
            let requests = cost.requests.map(|count| count.to_string()).join(" | ");
            let kib = |bytes: u64| (bytes as f64 / 1024.0).round();
            let (up, down) = (kib(cost.up_bytes), kib(cost.down_bytes));
            println!("| {size} | {} | {:.2} | {requests} | {up} | {down} |", cost.what, cost.seconds);
        }
    }
    println!("\n{} and {} blocks, {} ms", args.blocks, args.blocks / 2, args.latency);
    Ok(())
}

struct Stage<'a> {
    lsvd: &'a Path,
    dir: &'a Path,
    store: &'a LabServer,
    lab: Lab,
}

impl Stage<'_> {
    fn measure(&self, args: &Moments, size: &str) -> Result<Vec<Cost>> {
        self.run(&["create", "s3://lab/db1", "--size", size])?;
        let daemon = self.serve("s3://lab/db1", &["--checkpoint-interval", "1s", "--no-control"])?;
        // Most of it lies behind a checkpoint, as in a volume that is served for a while.
        for seed in 1..=4 {
            self.sprinkle(&daemon, args.blocks / 4, seed)?;
            std::thread::sleep(CHECKPOINT_WRITTEN);
        }
        daemon.close()?;
        let info = self.run(&["info", "s3://lab/db1", "--json"])?;
        let info: Value = serde_json::from_str(&info).context("`lsvd info` prints JSON")?;
        let checkpoints = info["checkpoints"].as_array().map_or(0, Vec::len);
        ensure!(checkpoints >= 2, "only {checkpoints} checkpoints were written");
        self.lab.set_line(&json!({ "latency": [{ "median_ms": args.latency }] }))?;
        let mut costs = Vec::new();
        let flags: Vec<&str> = QUIET.iter().copied().filter(|flag| *flag != "--no-control").collect();
        let control = self.dir.join("control").display().to_string();
        let flags = [&flags[..], &["--control", &control]].concat();
        std::fs::create_dir_all(&control)?;
        let daemon = self.serve("s3://lab/db1", &flags)?;
        // So that there is something to flush.
        self.sprinkle_unflushed(&daemon)?;
        costs.push(self.cost("`snapshot create` through the daemon", || {
            self.run(&["snapshot", "create", "s3://lab/db1", "then", "--control", &control])
        })?);
        costs.push(self.cost("`snapshot create`, nothing new", || {
            self.run(&["snapshot", "create", "s3://lab/db1", "again", "--control", &control])
        })?);
        self.lab.set_line(&json!({}))?;
        self.sprinkle(&daemon, args.blocks / 2, 5)?;
        self.lab.set_line(&json!({ "latency": [{ "median_ms": args.latency }] }))?;
        daemon.close()?;
        costs.push(self.opening("`serve URL@then`, until it is ready", "s3://lab/db1@then")?);
        costs.push(self.cost("`rollback --to then`", || {
            self.run(&["rollback", "s3://lab/db1", "--to", "then", "--yes", "--no-control"])
        })?);
        costs.push(self.opening("`serve URL` after it", "s3://lab/db1")?);
        Ok(costs)
    }

    fn opening(&self, what: &'static str, url: &str) -> Result<Cost> {
        let mut daemon = None;
        let cost = self.cost(what, || {
            daemon = Some(self.serve(url, QUIET)?);
            Ok(())
        })?;
        daemon.context("it was started")?.close()?;
        Ok(cost)
    }

    fn cost<T>(&self, what: &'static str, act: impl FnOnce() -> Result<T>) -> Result<Cost> {
        let before = self.lab.counters()?;
        let began = Instant::now();
        act()?;
        let seconds = began.elapsed().as_secs_f64();
        let after = self.lab.counters()?;
        let count =
            |counters: &Value, verb: &str, of: &str| counters["verbs"][verb][of].as_u64().unwrap_or(0);
        let since = |verb: &str, of: &str| count(&after, verb, of) - count(&before, verb, of);
        Ok(Cost {
            what,
            seconds,
            requests: VERBS.map(|verb| since(verb, "requests")),
            up_bytes: VERBS.iter().map(|verb| since(verb, "bytes_in")).sum(),
            down_bytes: VERBS.iter().map(|verb| since(verb, "bytes_out")).sum(),
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.lsvd);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.dir);
        command.env("AWS_ACCESS_KEY_ID", "lab").env("AWS_SECRET_ACCESS_KEY", "lab-does-not-look");
        command.env("XDG_RUNTIME_DIR", self.dir.join("run")).current_dir(self.dir);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command();
        command.args(arguments).args(["--allow-http", "--endpoint", &self.store.endpoint()]);
        let output = shell::output(&mut command, LIMIT)?;
        ensure!(
            output.code() == 0,
            "`lsvd {}` ended with {}: {}",
            arguments[0],
            output.code(),
            output.stderr
        );
        Ok(output.stdout)
    }

    fn serve(&self, url: &str, flags: &[&str]) -> Result<Daemon> {
        let endpoint = self.store.endpoint();
        let flags = [&["--allow-http", "--endpoint", &endpoint], flags].concat();
        let command = self.command();
        Daemon::start(&Serve { command: &command, dir: self.dir, urls: &[url], flags: &flags })
    }

    fn sprinkle(&self, daemon: &Daemon, blocks: u64, seed: u64) -> Result<()> {
        let mut script = Command::new("/usr/bin/python3");
        script.arg(shell::root().join("xtask/scripts/large.py")).args(["sprinkle", daemon.uri()]);
        script.args([blocks.to_string(), "--seed".to_owned(), seed.to_string()]);
        shell::output_ok(&mut script, LIMIT).map(|_| ())
    }

    /// A block at the volume's beginning.
    fn sprinkle_unflushed(&self, daemon: &Daemon) -> Result<()> {
        let mut python = Command::new("/usr/bin/python3");
        let write = "import nbd, sys; h = nbd.NBD(); h.connect_uri(sys.argv[1]); h.pwrite(b'x' * 4096, 0)";
        shell::output_ok(python.args(["-c", write, daemon.uri()]), LIMIT).map(|_| ())
    }
}

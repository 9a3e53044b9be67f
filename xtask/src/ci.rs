//! `cargo xtask ci`: the steps that a change must pass, in order of cost, with the time of each.
//!
//! Invariants: 1. every step runs, whatever an earlier one said, so that one run shows all that is wrong; 2. the last
//! line counts the steps, and the exit code is 0 only if none failed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::{e2e, setup, shell, sim, tidy};

/// Simulator seeds that a change must pass. The nightly habit is more, with another first seed.
const SEEDS: &str = "3000";

/// `cargo xtask ci`
#[derive(clap::Args, Debug)]
pub(crate) struct Ci {
    /// Only these steps
    #[arg(long, value_enum, value_name = "STEP")]
    only: Vec<Step>,
    /// All steps but these
    #[arg(long, value_enum, value_name = "STEP")]
    skip: Vec<Step>,
    /// How many seeds the simulator runs
    #[arg(long, value_name = "N", default_value = SEEDS)]
    seeds: String,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Install what the machine lacks
    Setup,
    /// rustfmt --check
    Fmt,
    /// Arrows, heads, licences, the format lock and the like
    Tidy,
    /// shellcheck and Python's parser on the scripts
    Lint,
    /// clippy on everything, warnings as errors
    Clippy,
    /// All tests, documentation tests too
    Test,
    /// The documentation builds without warnings
    Doc,
    /// A few thousand simulator seeds
    Sim,
    /// The daemon on a real S3 server, driven by real clients
    E2e,
    /// The same on a directory
    E2eDirectory,
    /// A store that is away, throttles and loses answers, under load
    E2eLab,
    /// A part of it by Azure's protocol, on Azurite, and by Google's, on the lab store
    E2eProtocols,
    /// A real kernel in a virtual machine: power cuts, and file systems on its NBD client
    E2eVm,
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn run(self, args: &Ci) -> Result<()> {
        let cargo = |words: &[&str]| shell::run(shell::cargo().args(words));
        match self {
            Self::Setup => setup::install(true),
            Self::Fmt => cargo(&["fmt", "--all", "--check"]),
            Self::Tidy => tidy::run(&tidy::Tidy::default()),
            Self::Lint => lint(),
            Self::Clippy => {
                cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"])
            }
            Self::Test => cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]),
            Self::Doc => shell::run(
                shell::cargo()
                    .args(["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"])
                    .env("RUSTDOCFLAGS", "--deny warnings"),
            ),
            Self::Sim => sim::simulate(["--seeds", &args.seeds]),
            Self::E2e => e2e::run_on(e2e::StoreKind::Seaweedfs),
            Self::E2eDirectory => e2e::run_on(e2e::StoreKind::Directory),
            Self::E2eLab => e2e::run_lab_cases(),
            Self::E2eProtocols => e2e::run_other_protocols(),
            Self::E2eVm => e2e::run_in_machines(),
        }
    }
}

/// Runs the steps.
pub(crate) fn run(args: &Ci) -> Result<()> {
    let chosen =
        |step: &&Step| (args.only.is_empty() || args.only.contains(step)) && !args.skip.contains(step);
    let mut results: Vec<(Step, Duration, Option<String>)> = Vec::new();
    for &step in Step::value_variants().iter().filter(chosen) {
        println!("\n=== {} ===", step.name());
        let started = Instant::now();
        let failure = step.run(args).err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            println!("=== {} FAILED: {failure}", step.name());
        }
        results.push((step, started.elapsed(), failure));
    }
    let failed = results.iter().filter(|(_, _, failure)| failure.is_some()).count();
    println!("\n{:<14} {:>7}", "step", "seconds");
    for (step, took, failure) in &results {
        let outcome = if failure.is_some() { "FAILED" } else { "ok" };
        println!("{:<14} {:>7.1} {outcome}", step.name(), took.as_secs_f64());
    }
    let total: Duration = results.iter().map(|(_, took, _)| *took).sum();
    println!("{:<14} {:>7.1}", "all", total.as_secs_f64());
    println!("steps: {} passed, {failed} failed", results.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} steps failed", results.len());
    }
    Ok(())
}

/// Linters of what is not Rust; one that this machine lacks is said, and is an error where CI is set.
fn lint() -> Result<()> {
    let mut missing = Vec::new();
    if shell::on_path("shellcheck") {
        let mut command = std::process::Command::new("shellcheck");
        command.current_dir(shell::root()).args([".ci/run", "xtask/setup.sh", "xtask/guest/main.sh"]);
        command.args(["xtask/guest/init.sh", "xtask/guest/powercut.sh", "xtask/guest/kernel.sh"]);
        command.args(["xtask/guest/disks.sh", "xtask/guest/postgres.sh"]);
        shell::run(&mut command)?;
    } else {
        missing.push("shellcheck");
    }
    if !missing.is_empty() {
        println!("SKIPPED: {} not installed", missing.join(", "));
        if e2e::in_ci() {
            bail!("{} must be there in CI", missing.join(", "));
        }
    }
    shell::output_ok(
        std::process::Command::new("/usr/bin/python3")
            .current_dir(shell::root())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .args([
                "-c",
                "import ast, glob\nfor f in glob.glob('xtask/*/*.py'): ast.parse(open(f).read(), f)",
            ]),
        Duration::from_secs(60),
    )?;
    Ok(())
}

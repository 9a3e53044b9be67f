//! `cargo xtask`: the project's own commands.
//!
//! Glue only: one definition of the command line, and a call. Each command is a module of its own, and none of them is
//! needed to build or use lsvd.

mod bench;
mod ci;
mod crash;
mod e2e;
mod mutants;
mod numbers;
mod outage;
mod plot;
mod postgres;
mod promises;
mod setup;
mod shell;
mod sim;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything that must pass before a change lands: installs what is missing, then runs each step
    Ci(ci::Ci),
    /// The rules of the source tree that compilers do not check
    Tidy(tidy::Tidy),
    /// Seeded simulation of crashes, faults and take-overs
    Sim(sim::Sim),
    /// End to end: the daemon on a real store, driven by clients that are not ours
    E2e(e2e::E2e),
    /// Break each rule on purpose, in a copy, and show which seed or test notices
    Mutants(mutants::Mutants),
    /// Speed beside `nbdkit memory`, as a table for docs/performance.md
    Bench(bench::Bench),
    /// A store that goes away for minutes under load, as a plot for docs/performance.md
    Outage(outage::Outage),
    /// Which test shows which rule, as the table of docs/testing.md
    Promises(promises::Promises),
    /// Install what the end-to-end tests need and this machine lacks
    Setup(setup::Setup),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Ci(args) => ci::run(&args),
        Command::Tidy(args) => tidy::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::E2e(args) => e2e::run(&args),
        Command::Mutants(args) => mutants::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Outage(args) => outage::run(&args),
        Command::Promises(args) => promises::run(&args),
        Command::Setup(args) => setup::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

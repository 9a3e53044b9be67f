//! The `lsvd` program: parse, compose, run, report.
//!
//! Knows the commands and which of them need a runtime; no rule of the disk is decided in this crate.

mod changes;
mod cli;
mod clones;
mod collection;
mod commands;
mod control;
mod demo;
mod exit;
mod export;
mod logging;
mod nbd_client;
mod output;
mod process;
mod served;
mod snapshots;
mod store;
mod traffic;
mod units;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::exit::Exit;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(error) if exit::is_closed_pipe(&error) => Exit::Done.into(),
        Err(error) => {
            // Nothing is left to be done about a stderr that can not be written.
            let _ = writeln!(io::stderr(), "error: {}", exit::words(&error));
            if let Some(help) = exit::help(&error) {
                let _ = writeln!(io::stderr(), "help: {help}");
            }
            exit::of(&error).into()
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    logging::start(cli.log_format(), &cli.log)?;
    match cli.command {
        Command::Create(arguments) => on_runtime(commands::create::run(arguments)),
        Command::Adopt(arguments) => on_runtime(commands::adopt::run(arguments)),
        Command::Serve(arguments) => on_runtime(commands::serve::run(*arguments)),
        Command::Attach(arguments) => on_runtime(commands::attach::run(arguments)),
        Command::Detach(arguments) => commands::attach::detach(&arguments),
        Command::Ls(arguments) => on_runtime(commands::ls::run(arguments)),
        Command::Info(arguments) => on_runtime(commands::info::run(arguments)),
        Command::Status(arguments) => on_runtime(commands::status::run(arguments)),
        Command::Top(arguments) => on_runtime(commands::top::run(arguments)),
        Command::Log(arguments) => on_runtime(commands::log::run(arguments)),
        Command::Gc(arguments) => on_runtime(commands::gc::gc(arguments)),
        Command::Upgrade(arguments) => on_runtime(commands::gc::upgrade(arguments)),
        Command::Rm(arguments) => on_runtime(commands::rm::run(arguments)),
        Command::Rollback(arguments) => on_runtime(commands::rollback::run(arguments)),
        Command::Diff(arguments) => on_runtime(commands::diff::run(arguments)),
        Command::Resize(arguments) => on_runtime(commands::resize::run(arguments)),
        Command::Snapshot(arguments) => on_runtime(commands::snapshot::run(arguments)),
        Command::Clone(arguments) => on_runtime(commands::clone::run(arguments)),
        Command::Flatten(arguments) => on_runtime(commands::clone::flatten(arguments)),
        Command::Doctor(arguments) => on_runtime(commands::doctor::run(arguments)),
        Command::Demo(arguments) => on_runtime(demo::run(arguments)),
        Command::Licenses => commands::manual::licenses(),
        Command::Completions(arguments) => commands::manual::completions(&arguments),
        Command::Man(arguments) => commands::manual::man(&arguments),
    }
}

/// Runs a command that speaks to a store; it holds secrets in memory, so no core is dumped from here on.
fn on_runtime(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    process::forbid_core_dumps();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(command);
    // What was to be waited for was waited for; a directory that hangs must not keep a second signal from ending us.
    runtime.shutdown_background();
    ended
}

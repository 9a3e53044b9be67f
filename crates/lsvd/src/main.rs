//! The `lsvd` program: parse, compose, run, report.
//!
//! Knows the commands and which of them need a runtime; no rule of the disk is decided in this crate.

mod cli;
mod commands;
mod demo;
mod exit;
mod export;
mod logging;
mod nbd_client;
mod output;
mod process;
mod store;
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
    logging::start(cli.log_format, &cli.log)?;
    match cli.command {
        Command::Create(arguments) => runtime()?.block_on(commands::create::run(arguments)),
        Command::Serve(arguments) => runtime()?.block_on(commands::serve::run(arguments)),
        Command::Ls(arguments) => runtime()?.block_on(commands::ls::run(arguments)),
        Command::Info(arguments) => runtime()?.block_on(commands::info::run(arguments)),
        Command::Demo(arguments) => runtime()?.block_on(demo::run(arguments)),
        Command::Licenses => commands::manual::licenses(),
        Command::Completions(arguments) => commands::manual::completions(&arguments),
        Command::Man(arguments) => commands::manual::man(&arguments),
    }
}

/// The runtime of the commands that speak to a store; they hold secrets in memory, so no core is dumped from here on.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    process::forbid_core_dumps();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

//! `cargo xtask setup`: what the tests need and the machine lacks.
//!
//! The list is xtask/setup.sh, so that a machine without Rust can run it too; this room only calls it.

use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// `cargo xtask setup`
#[derive(clap::Args, Debug)]
pub(crate) struct Setup {
    /// Only say what is missing
    #[arg(long)]
    check: bool,
    /// Azurite, too, which `cargo xtask e2e --store azurite` runs on
    #[arg(long)]
    azurite: bool,
}

/// Installs, or says, what is missing.
pub(crate) fn run(args: &Setup) -> Result<()> {
    let mut command = Command::new("bash");
    command.arg(shell::root().join("xtask/setup.sh"));
    for (flag, given) in [("--check", args.check), ("--azurite", args.azurite)] {
        command.args(given.then_some(flag));
    }
    shell::run(&mut command)
}

/// Installs what is missing, Azurite only if it is asked for; quick when nothing is.
pub(crate) fn install(azurite: bool) -> Result<()> {
    run(&Setup { check: false, azurite }).context("the machine lacks what the tests need")
}

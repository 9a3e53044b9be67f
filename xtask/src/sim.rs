//! `cargo xtask sim`: passes its arguments on to the simulator.
//!
//! Knows the simulator's name and no flag of it, so that a failing seed's own words are the command that replays it.

use anyhow::Result;

use crate::shell;

/// `cargo xtask sim`
#[derive(clap::Args, Debug)]
pub(crate) struct Sim {
    /// For the simulator: --seeds N, --seed S
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the simulator and runs it.
pub(crate) fn run(args: &Sim) -> Result<()> {
    simulate(args.arguments.iter().map(String::as_str))
}

/// Builds the simulator and runs it with `arguments`.
pub(crate) fn simulate<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut command = shell::cargo();
    command.args([
        "run",
        "--quiet",
        "--release",
        "--locked",
        "--package",
        "lsvd-sim",
        "--bin",
        "lsvd-sim",
        "--",
    ]);
    shell::run(command.args(arguments))
}

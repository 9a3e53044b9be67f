//! `lsvd licenses`, `lsvd completions` and `lsvd man`: what the program says about itself.
//!
//! Knows the command line's definition and the checked-in list of licences, which a test compares with what is
//! built in.

use std::fs;
use std::io;

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::{Cli, Completions, Man};
use crate::exit::Exit;
use crate::output;

const LICENSES: &str = include_str!("../../licenses.txt");

/// Prints the licences.
///
/// # Errors
/// If stdout can not be written.
pub(crate) fn licenses() -> anyhow::Result<Exit> {
    output::line(LICENSES.trim_end())?;
    Ok(Exit::Done)
}

/// Prints a completion script.
///
/// # Errors
/// If stdout can not be written.
pub(crate) fn completions(arguments: &Completions) -> anyhow::Result<Exit> {
    // Into memory first: the generator panics where a write fails, and stdout may be a pipe that nobody reads.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "lsvd", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Done)
}

/// Prints the manual page, or writes one for each command.
///
/// # Errors
/// If stdout or the directory can not be written.
pub(crate) fn man(arguments: &Man) -> anyhow::Result<Exit> {
    let Some(dir) = &arguments.dir else {
        output::line(page(Cli::command())?.trim_end())?;
        return Ok(Exit::Done);
    };
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .with_context(|| format!("cannot write manual pages to '{}'", dir.display()))?;
    Ok(Exit::Done)
}

fn page(command: clap::Command) -> io::Result<String> {
    let mut bytes = Vec::new();
    clap_mangen::Man::new(command).render(&mut bytes)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

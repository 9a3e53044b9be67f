//! The conformance suite of lsvd-backend, on whatever the other cases run on.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::case::{Needs, World};
use super::super::suite;
use super::{CONFORMANCE, Entry};
use crate::shell;

pub(super) const CASES: &[Entry] =
    &[(CONFORMANCE, "what is asked of every store, check by check (rules 2, 4, 5)", Needs::Store, conforms)];

/// A thousand objects are made and listed.
const LIMIT: Duration = Duration::from_secs(180);

fn conforms(world: &World) -> Result<()> {
    let mut command = Command::new(suite());
    command.env_clear().envs(world.store.borrow().environment()).arg(world.url("prefix"));
    let output = shell::output_ok(&mut command, LIMIT)?;
    ensure!(output.stdout.contains("conforms"), "the suite said nothing of what it found: {}", output.stdout);
    print!("  {}", output.stdout);
    Ok(())
}

//! What Azure's protocol refuses in a way of its own: keys, containers, endpoints.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::Entry;
use crate::shell;

pub(super) const CASES: &[Entry] = &[(
    "azure-refusals",
    "wrong key, no container, nobody there, by Azure's protocol (rules 4, 11)",
    Needs::Azure,
    refusals,
)];

const STORE: i32 = 3;
const EXISTENCE: i32 = 6;

fn refusals(world: &World) -> Result<()> {
    let url = world.url("db1");
    world.create("db1", "64M")?;
    let run = |environment: &[(&str, &str)], arguments: &[&str]| {
        let mut command = world.lsvd();
        command.envs(environment.iter().copied()).args(arguments);
        shell::output(&mut command, TOOL_LIMIT)
    };
    let info = ["info", url.as_str()];
    let serve = ["serve", url.as_str(), "--listen", "unix:never.sock"];
    let doctor = ["doctor", url.as_str(), "--timeout", "20s"];
    let wrong = "d3JvbmctYnV0LWJhc2U2NA==";
    for arguments in [&info[..], &serve, &doctor] {
        let output = run(&[("AZURE_STORAGE_ACCOUNT_KEY", wrong)], arguments)?;
        world.failed_with(&output, STORE, &["403", "AZURE_STORAGE_ACCOUNT_KEY"]).context("a wrong key")?;
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(!said.contains(wrong.trim_end_matches('=')), "the wrong key was printed");
    }
    let output = run(&[("AZURE_STORAGE_ACCOUNT_KEY", "no base64!")], &info)?;
    ensure!(output.code() != 0, "a key that is none was taken");
    ensure!(!output.stderr.contains("no base64!"), "the malformed key was printed: {}", output.stderr);
    for arguments in [
        &["info", "az://no-such-container/db1"][..],
        &["create", "az://no-such-container/db1", "--size", "1G"],
        &["doctor", "az://no-such-container/db1"],
    ] {
        let output = run(&[], arguments)?;
        world.failed_with(&output, EXISTENCE, &["does not exist"]).context("no container")?;
    }
    let nobody = "http://127.0.0.1:9/lsvde2e";
    let output = run(&[("AZURE_STORAGE_ENDPOINT", nobody)], &["info", url.as_str(), "--timeout", "5s"])?;
    world.failed_with(&output, STORE, &["127.0.0.1:9"]).context("an endpoint where nobody listens")?;
    let mut command = world.lsvd();
    command.env_remove("AZURE_STORAGE_ACCOUNT_KEY").args(info);
    let output = shell::output(&mut command, Duration::from_secs(20))?;
    world
        .failed_with(&output, STORE, &["credentials"])
        .context("no key, and nobody else is asked for one")?;

    // After all refusals the volume is as it was.
    world.serve("db1")?.close()
}

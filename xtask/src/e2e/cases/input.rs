//! Bad input: a clear error, its own exit code, and nothing lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::super::servers::{NO_LIST_KEY, NO_LIST_SECRET, StoreKind};
use super::Entry;
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    ("bad-input", "unknown schemes, bad sizes, volumes that are or are not there", Needs::Store, bad_input),
    ("sockets", "a live socket is left alone, a dead one is replaced", Needs::Store, sockets),
    ("if-free", "--if-free leaves a volume in use alone and takes a closed one", Needs::Store, if_free),
    (
        "s3-refusals",
        "wrong secret, no bucket, no right to list, a wrong clock (rules 4, 11)",
        Needs::S3,
        refusals,
    ),
];

const OTHER: i32 = 1;
const USAGE: i32 = 2;
const STORE: i32 = 3;
const EXISTENCE: i32 = 6;
const IN_USE: i32 = 8;

fn bad_input(world: &World) -> Result<()> {
    let url = world.url("db1");
    let check = |arguments: &[&str], code: i32, words: &[&str]| -> Result<()> {
        let output = world.run_lsvd(arguments)?;
        world.failed_with(&output, code, words).with_context(|| format!("lsvd {}", arguments.join(" ")))
    };
    check(&["create", "ftp://host/db1", "--size", "1G"], USAGE, &["unknown scheme"])?;
    check(&["create", "db1", "--size", "1G"], USAGE, &["begins with one of", "s3://"])?;
    check(&["create", &url, "--size", "0"], USAGE, &["size"])?;
    check(&["create", &url, "--size", "4097"], USAGE, &["4097"])?;
    check(&["create", &url, "--size", "1Q"], USAGE, &["1Q"])?;
    check(&["create", &url, "--size", "-1"], USAGE, &[])?;
    check(&["create", &url, "--size", "99999999999999999999"], USAGE, &[])?;
    check(&["info", &url], EXISTENCE, &["db1"])?;
    check(&["serve", &url, "--listen", "unix:none.sock"], EXISTENCE, &["db1", "create"])?;
    check(&["serve", &url, "--listen", "http:x"], USAGE, &["http:x"])?;
    world.create("db1", "64M")?;
    check(&["create", &url, "--size", "1G"], EXISTENCE, &["db1"])?;
    check(&["serve", &url, "--listen", "tcp:0.0.0.0:10910"], USAGE, &["allow-remote"])?;
    let daemon = world.serve("db1")?;
    let size = world.tool("nbdinfo", &["--size", daemon.uri()])?.stdout;
    ensure!(size.trim() == (64 << 20).to_string(), "the refused create changed the volume: {size}");
    daemon.close()
}

fn sockets(world: &World) -> Result<()> {
    let first = world.create_and_serve("db1", "64M")?;
    world.create("db2", "64M")?;
    let socket = format!("unix:{}", first.socket().display());
    let url = world.url("db2");
    let second = world.run_lsvd(&["serve", &url, "--listen", &socket])?;
    world.failed_with(&second, OTHER, &["is listening"])?;
    world.tool("nbdinfo", &["--size", first.uri()])?;
    let path = first.socket().to_path_buf();
    first.kill();
    ensure!(path.exists(), "a killed daemon can not have removed its socket");
    let again = world.serve_with("db1", &["--listen", &socket])?;
    world.tool("nbdinfo", &["--size", again.uri()])?;
    again.close()?;
    // What is no socket is nobody's to remove.
    let precious = world.dir.join("precious");
    std::fs::write(&precious, "data")?;
    let refused = world.run_lsvd(&["serve", &url, "--listen", &format!("unix:{}", precious.display())])?;
    world.failed_with(&refused, OTHER, &["precious"])?;
    ensure!(std::fs::read(&precious)? == b"data", "a file was replaced by a socket");
    Ok(())
}

fn if_free(world: &World) -> Result<()> {
    let first = world.create_and_serve("db1", "64M")?;
    let url = world.url("db1");
    let second = world.run_lsvd(&["serve", &url, "--if-free", "--listen", "unix:second.sock"])?;
    world.failed_with(&second, IN_USE, &["not closed", "--if-free"])?;
    world.tool("nbdsh", &["-u", first.uri(), "-c", "h.pwrite(b'1' * 4096, 0)\nh.flush()"])?;
    first.close()?;
    let third = world.serve_with("db1", &["--if-free=10m"])?;
    world.tool("nbdsh", &["-u", third.uri(), "-c", "assert h.pread(4096, 0) == b'1' * 4096"])?;
    third.close()
}

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
    let wrong = "wrong-secret-9c1";
    for arguments in [&info[..], &serve] {
        let output = run(&[("AWS_SECRET_ACCESS_KEY", wrong)], arguments)?;
        world.failed_with(&output, STORE, &["403", "AWS_"]).context("a wrong secret")?;
        ensure!(
            !format!("{}{}", output.stdout, output.stderr).contains(wrong),
            "the wrong secret was printed"
        );
    }
    let output = run(&[("AWS_ACCESS_KEY_ID", "nobody")], &info)?;
    world.failed_with(&output, STORE, &["403"]).context("an unknown user")?;
    let output = run(&[], &["info", "s3://no-such-bucket/db1"])?;
    world.failed_with(&output, EXISTENCE, &["no-such-bucket"]).context("a bucket that is not there")?;
    let output = run(&[], &["create", "s3://no-such-bucket/db1", "--size", "1G"])?;
    world.failed_with(&output, EXISTENCE, &["no-such-bucket"]).context("a bucket that is not there")?;

    if world.store.borrow().server() == Some(StoreKind::Seaweedfs) {
        let user = [("AWS_ACCESS_KEY_ID", NO_LIST_KEY), ("AWS_SECRET_ACCESS_KEY", NO_LIST_SECRET)];
        for arguments in [&info[..], &serve] {
            let output = run(&user, arguments)?;
            world.failed_with(&output, STORE, &["LIST"]).context("a user who may not list")?;
        }
    }
    if !world.skip_part_unless(shell::on_path("faketime"), "no faketime")? {
        let mut command = world.client("faketime");
        let lsvd = world.lsvd();
        command.args(["-f", "+2h"]).arg(lsvd.get_program()).args(info);
        command.envs(lsvd.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = shell::output(&mut command, TOOL_LIMIT)?;
        world.failed_with(&output, STORE, &["clock"]).context("a clock that is two hours ahead")?;
    }
    let mut command = world.lsvd();
    command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").args(info);
    let output = shell::output(&mut command, Duration::from_secs(180))?;
    world.failed_with(&output, STORE, &["127.0.0.1:9"]).context("an endpoint where nobody listens")?;

    // After all refusals the volume is as it was.
    let daemon = world.serve("db1")?;
    daemon.close()
}

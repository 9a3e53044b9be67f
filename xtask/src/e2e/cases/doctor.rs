//! `lsvd doctor` on real stores: a volume in use is examined and left as it was, and what is wrong is named (rules 3, 11).

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::super::servers::{NO_LIST_KEY, NO_LIST_SECRET, StoreKind};
use super::Entry;
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    (
        "doctor",
        "a store is examined beside a volume in use, and nothing is left (rule 3)",
        Needs::Store,
        examined,
    ),
    (
        "doctor-refusals",
        "wrong secret, no right to list, no bucket: each is named (rule 11)",
        Needs::S3,
        refusals,
    ),
    (
        "doctor-broken",
        "a server that is known to break a promise is found out, each by its fault (rules 2, 5)",
        Needs::Broken,
        broken,
    ),
    (
        "lab-doctor",
        "a store that overwrites, lists late or answers half is found out (rules 2, 4)",
        Needs::Lab,
        lies,
    ),
];

const DONE: i32 = 0;
const STORE: i32 = 3;
const EXISTENCE: i32 = 6;
const UNSAFE_STORE: i32 = 7;

fn told(world: &World, environment: &[(&str, &str)], url: &str, code: i32) -> Result<Value> {
    let mut command = world.lsvd();
    command.envs(environment.iter().copied()).args(["doctor", url, "--json", "--timeout", "20s"]);
    let output = shell::output(&mut command, TOOL_LIMIT)?;
    world.failed_with(&output, code, &[])?;
    let told: Value = serde_json::from_str(&output.stdout).context("doctor prints one JSON object")?;
    ensure!(told["left_behind"] == json!([]), "something was left behind: {}", told["left_behind"]);
    Ok(told)
}

fn check(told: &Value, check: &str, verdict: &str, words: &str) -> Result<()> {
    let findings = told["findings"].as_array().context("findings are a list")?;
    let finding = findings.iter().find(|finding| finding["check"] == check);
    let finding = finding.with_context(|| format!("no finding '{check}' in {told}"))?;
    let says = format!("{} {}", finding["answered"], finding["advice"]);
    ensure!(finding["verdict"] == verdict && says.contains(words), "not {verdict} with '{words}': {finding}");
    Ok(())
}

fn examined(world: &World) -> Result<()> {
    let daemon = world.create_and_serve("db1", "64M")?;
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", "h.pwrite(b'1' * 4096, 0)\nh.flush()"])?;
    let url = world.url("db1");
    let told = told(world, &[], &url, DONE)?;
    for good in [
        "may-list",
        "may-create",
        "may-read",
        "may-learn-absence",
        "may-delete",
        "create-only",
        "create-only-in-a-race",
        "list-after-write",
        "range-reads",
        "large-objects",
        "whole-or-absent",
        "orphans",
        "left-behind",
    ] {
        check(&told, good, "good", "")?;
    }
    ensure!(told["measured"]["up_bytes_per_s"].as_u64() > Some(0), "no speed was measured: {told}");
    // The volume was not taken over, and its log holds what it held.
    world.tool("nbdsh", &["-u", daemon.uri(), "-c", "h.pwrite(b'2' * 4096, 4096)\nh.flush()"])?;
    daemon.close()?;
    let again = world.serve("db1")?;
    let script = "assert h.pread(8192, 0) == b'1' * 4096 + b'2' * 4096";
    world.tool("nbdsh", &["-u", again.uri(), "-c", script])?;
    again.close()
}

fn refusals(world: &World) -> Result<()> {
    let url = world.url("db1");
    world.create("db1", "64M")?;
    let wrong = "wrong-secret-9c1";
    let refused = told(world, &[("AWS_SECRET_ACCESS_KEY", wrong)], &url, STORE).context("a wrong secret")?;
    check(&refused, "credentials", "fault", "AWS_SECRET_ACCESS_KEY")?;
    ensure!(!refused.to_string().contains(wrong), "the wrong secret was printed");
    let missing =
        told(world, &[], "s3://no-such-bucket/db1", EXISTENCE).context("a bucket that is not there")?;
    check(&missing, "bucket", "fault", "does not exist")?;
    if world.store.borrow().server() == Some(StoreKind::Seaweedfs) {
        let user = [("AWS_ACCESS_KEY_ID", NO_LIST_KEY), ("AWS_SECRET_ACCESS_KEY", NO_LIST_SECRET)];
        let lacking = told(world, &user, &url, STORE).context("a user who may not list")?;
        check(&lacking, "may-list", "fault", "s3:ListBucket")?;
        for good in ["may-create", "may-read", "may-delete", "create-only", "create-only-in-a-race"] {
            check(&lacking, good, "good", "")?;
        }
        check(&told(world, &[], &url, DONE)?, "signatures", "good", "refused")?;
    }
    Ok(())
}

/// What each of these servers does was measured with clients that are not ours.
fn broken(world: &World) -> Result<()> {
    let kind = world.store.borrow().server();
    // Without ranges no volume can be there at all, not even with one writer.
    let code = if kind == Some(StoreKind::Rclone) { STORE } else { UNSAFE_STORE };
    let told = told(world, &[], &world.url("db1"), code)?;
    for (name, said) in findings(&told)? {
        println!("  {name}: {said}");
    }
    match kind {
        Some(StoreKind::Garage) => {
            check(&told, "create-only", "fault", "overwrites")?;
            let elsewhere = [("AWS_REGION", "us-east-1")];
            let told = self::told(world, &elsewhere, &world.url("db1"), STORE).context("another region")?;
            check(&told, "region", "fault", "garage")
        }
        Some(StoreKind::S3sFs) => check(&told, "create-only-in-a-race", "fault", "told that they won"),
        Some(StoreKind::Rclone) => {
            check(&told, "create-only", "fault", "overwrites")?;
            check(&told, "range-reads", "fault", "ranged GET")
        }
        other => bail!("nothing is known of {other:?}"),
    }
}

/// What is not good, and what was answered.
fn findings(told: &Value) -> Result<Vec<(String, String)>> {
    let findings = told["findings"].as_array().context("findings are a list")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(findings
        .iter()
        .filter(|finding| !matches!(finding["verdict"].as_str(), Some("good" | "not-asked")))
        .map(|finding| {
            let said = format!("{}: {}", text(&finding["verdict"]), text(&finding["answered"]));
            (text(&finding["check"]), said)
        })
        .collect())
}

fn lies(world: &World) -> Result<()> {
    let url = world.url("db1");
    let lab = world.store.borrow().lab()?;
    let examine = |rule: Value, code| {
        lab.behave()?;
        lab.misbehave(&rule)?;
        told(world, &[], &url, code).with_context(|| format!("with {rule}"))
    };
    let lax = examine(json!({"fault": "ignore-condition"}), UNSAFE_STORE)?;
    check(&lax, "create-only", "fault", "overwrites")?;
    let racy = examine(json!({"fault": "ignore-condition", "key": "/race-"}), UNSAFE_STORE)?;
    check(&racy, "create-only-in-a-race", "fault", "told that they won")?;
    let stale = examine(json!({"fault": "stale-listing"}), STORE)?;
    check(&stale, "list-after-write", "fault", "just created")?;
    let cut = examine(json!({"fault": "truncate", "verbs": ["GET"], "rate": 0.2}), DONE)?;
    check(&cut, "answers", "warning", "end of file")?;
    let throttled = examine(json!({"fault": "slow-down", "rate": 0.2, "ms": 0}), DONE)?;
    check(&throttled, "answers", "warning", "SlowDown")?;
    lab.behave()?;
    let well = told(world, &[], &url, DONE)?;
    check(&well, "answers", "good", "")
}

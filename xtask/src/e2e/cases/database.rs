//! Databases on a volume of which the daemon dies: every transaction that was acknowledged is there afterwards.
//!
//! On the host's ext4 by nbdfuse and a loop device. The databases' own checks judge the rest. Each mode of FLUSH is shown:
//! `object` with nothing of the host kept, `journal` with the journal alone.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::super::case::{Needs, World};
use super::Entry;
use super::disk::{Disk, modes};
use crate::numbers::Numbers;
use crate::postgres::{Postgres, READY_LIMIT};
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    (
        "postgres",
        "PostgreSQL under load, daemon killed, all else wiped: every acknowledged transaction is there (rule 1)",
        Needs::Mounts,
        postgres,
    ),
    ("sqlite", "SQLite with WAL and with a rollback journal, the same way (rule 1)", Needs::Mounts, sqlite),
];

/// How often a database loses its disk, in all that a case shows together.
const USUAL_ROUNDS: u32 = 4;
const LONG_ROUNDS: u32 = 100;
/// How long it is under load before, at least, and by chance so much more.
const LOAD: Duration = Duration::from_secs(4);
const MORE_LOAD_MS: u64 = 1_500;
/// With --long the server stops in order after so many kills, and every page's checksum is looked at.
const KILLS_PER_STOP: u32 = 10;
/// Small enough that it writes its pages now and then.
const SETTINGS: [&str; 2] = ["shared_buffers=64MB", "checkpoint_timeout=30s"];
/// Rows that a client wrote in its own order; pgbench's log says which of them were acknowledged.
const SCRIPT: &str = "\\set n :n + 1\nBEGIN;\nINSERT INTO acked VALUES (:client_id, :n, repeat('x', 200));\n\
                      UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 1 + mod(:n * 7919::bigint, 100000);\nEND;\n";

/// Transactions that pgbench's logs below `dir` say to be committed: client and the number of its row.
fn acknowledged(dir: &Path, prefix: &str, start: u64) -> Result<Vec<(u64, u64)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        // What follows is the process and the thread; "kill1" is not the beginning of "kill10".
        let begins = format!("{prefix}.");
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begins)) {
            continue;
        }
        for line in std::fs::read_to_string(&path)?.lines() {
            let mut words = line.split(' ');
            let (Some(client), Some(nth)) = (words.next(), words.next()) else {
                bail!("pgbench logged '{line}'")
            };
            // What was cut off when its writer died is no answer; failed ones say so in place of a time.
            let Some(time) = words.next() else { continue };
            if time.parse::<u64>().is_ok() {
                all.push((client.parse()?, start + nth.parse::<u64>()?));
            }
        }
    }
    Ok(all)
}

/// Clients that write until their server dies; their logs begin with `prefix`.
fn load(postgres: &Postgres, script: &Path, prefix: &Path, start: u64) -> Result<Child> {
    let mut pgbench = postgres.program("pgbench");
    pgbench.args(["-n", "-c", "4", "-j", "2", "-T", "600", "-D", &format!("n={start}"), "-f"]).arg(script);
    pgbench.arg("-l").arg(format!("--log-prefix={}", prefix.display())).arg("postgres");
    pgbench.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    pgbench.spawn().context("cannot start pgbench")
}

/// Every row that a client was told to be committed, and the database's own opinion of itself.
fn check(postgres: &Postgres, acknowledged: &[(u64, u64)]) -> Result<()> {
    let rows = postgres.sql("SELECT client || ' ' || n FROM acked")?;
    let rows: std::collections::HashSet<&str> = rows.lines().collect();
    let lost = acknowledged.iter().filter(|(client, n)| !rows.contains(format!("{client} {n}").as_str()));
    let lost: Vec<_> = lost.collect();
    ensure!(lost.is_empty(), "LOST: {} of {} transactions: {lost:?}", lost.len(), acknowledged.len());
    postgres.amcheck()
}

fn postgres(world: &World) -> Result<()> {
    let kills = world.rounds(USUAL_ROUNDS, LONG_ROUNDS).div_ceil(2);
    for (mode, flags) in modes(world) {
        let name = format!("pg-{mode}");
        let mut disk = Disk::new(world, &name, &flags)?;
        let postgres = Postgres::new(&disk.files.join("data"), &world.dir.join("postgres.log"))?;
        postgres.initialise()?;
        let logs = world.dir.join(format!("acked-{mode}"));
        postgres.own_dir(&logs)?;
        let script = logs.join("script.sql");
        std::fs::write(&script, SCRIPT)?;
        let mut chance = Numbers::new(world.seed);
        let mut acked = Vec::new();
        for kill in 0..kills {
            let mut server = postgres.start(&SETTINGS)?;
            if kill == 0 {
                shell::output_ok(postgres.program("pgbench").args(["-i", "-q", "postgres"]), READY_LIMIT)?;
                postgres.sql("CREATE EXTENSION amcheck")?;
                postgres.sql("CREATE TABLE acked (client int, n bigint, x text, PRIMARY KEY (client, n))")?;
            }
            check(&postgres, &acked).with_context(|| format!("{mode}, after {kill} kills"))?;
            if world.long && kill > 0 && kill % KILLS_PER_STOP == 0 {
                server.stop()?;
                postgres.checksums().with_context(|| format!("{mode}, after {kill} kills"))?;
                server = postgres.start(&SETTINGS)?;
            }
            let start = u64::from(kill + 1) * 1_000_000;
            let prefix = format!("kill{kill}");
            let mut clients = load(&postgres, &script, &logs.join(&prefix), start)?;
            std::thread::sleep(LOAD + Duration::from_millis(chance.below(MORE_LOAD_MS)));
            disk.daemon.kill_now();
            ensure!(shell::wait(&mut clients, READY_LIMIT)?.is_some(), "pgbench hangs after its disk died");
            drop(server);
            let before = acked.len();
            acked.extend(acknowledged(&logs, &prefix, start)?);
            ensure!(acked.len() > before, "no transaction was acknowledged: nothing was shown");
            if world.long {
                println!("  {mode}, kill {}: {} transactions", kill + 1, acked.len() - before);
            }
            disk.come_back(world, &name, &flags)?;
        }
        let server = postgres.start(&SETTINGS)?;
        check(&postgres, &acked)?;
        server.stop()?;
        postgres.checksums()?;
        disk.close(world)?;
        world.discard(&name)?;
        println!("  {mode}: {} transactions acknowledged over {kills} kills, none lost", acked.len());
    }
    Ok(())
}

fn sqlite(world: &World) -> Result<()> {
    // Two ways to journal in each of two modes, and twice the kills of PostgreSQL's case.
    let kills = world.rounds(2 * USUAL_ROUNDS, LONG_ROUNDS).div_ceil(4);
    for (mode, flags) in modes(world) {
        let name = format!("sqlite-{mode}");
        let mut disk = Disk::new(world, &name, &flags)?;
        for journal in ["wal", "delete"] {
            let database = disk.files.join(format!("{journal}.db")).display().to_string();
            let acked = world.dir.join(format!("{mode}-{journal}.acked"));
            for _ in 0..kills {
                let mut writer = world.script("sqlite.py");
                writer.args(["write", &database, journal]).arg(&acked).stdin(Stdio::null());
                writer.stdout(Stdio::null()).stderr(Stdio::null());
                let mut writer = writer.spawn().context("cannot start the writer")?;
                std::thread::sleep(LOAD / 2);
                disk.daemon.kill_now();
                if shell::wait(&mut writer, READY_LIMIT)?.is_none() {
                    let _ = writer.kill();
                    bail!("the writer hangs after its disk died");
                }
                disk.come_back(world, &name, &flags)?;
                let mut check = world.script("sqlite.py");
                check.args(["check", &database, journal]).arg(&acked);
                let said = shell::output_ok(&mut check, READY_LIMIT)?.stdout;
                println!("  {mode}, {journal}: {}", said.trim());
            }
        }
        disk.close(world)?;
    }
    Ok(())
}

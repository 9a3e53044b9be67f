//! docs/postgresql-day.md, run as it is written there: a table that was dropped comes back from the volume as it was before, and then
//! all of the volume goes back, through its daemon.
//!
//! Knows what stands in place of the kernel's NBD client, and what must be so afterwards; what is done, the document says.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::super::document::Document;
use super::super::mount;
use super::Entry;
use crate::shell;

pub(super) const CASES: &[Entry] = &[(
    "postgresql-day",
    "docs/postgresql-day.md as it is written: a dropped table comes back from the volume as of before, beside the one that goes on",
    Needs::Directory,
    postgresql_day,
)];

const LIMIT: Duration = Duration::from_secs(300);

/// A device is a link to a loop device on nbdfuse's file; what is left of it goes at the end, whatever happened.
const PRELUDE: &str = r#"
set -euxo pipefail
lsvd() {
  case $1 in
    attach)
      mkdir -p $3.fuse
      nbdfuse $3.fuse/nbd "$2" & echo $! >$3.pid
      until [ -s $3.fuse/nbd ]; do sleep 0.1; done
      ln -s $(losetup --find --show --direct-io=on $3.fuse/nbd) $3 ;;
    detach)
      losetup --detach $(readlink $2)
      rm $2
      umount $2.fuse
      tail --pid=$(cat $2.pid) -f /dev/null ;;
    serve) exec lsvd "$@" ;;
    *) command lsvd "$@" ;;
  esac
}
leave() {
  set +e
  for data in $RUN/before/pg $RUN/data/pg; do
    [ ! -e $data/postmaster.pid ] || kill -9 $(head -1 $data/postmaster.pid)
  done
  umount --lazy $RUN/before $RUN/data
  for device in $DISK $DISK2; do
    [ ! -L $device ] || losetup --detach $(readlink $device)
    umount --lazy $device.fuse
  done
  kill $(jobs -p)
} 2>/dev/null
trap leave EXIT
"#;

/// Its rows, as the document asks for them.
const ORDERS: &str = "100000|5000050000";

/// What must be so at the end: every row of the table, and what pgbench had done, and no page that is damaged.
const CHECKS: &str = r#"
[ "$(psql -Atc "SELECT count(*), sum(n), bool_and(what = md5(n::text)) FROM orders")" = "100000|5000050000|t" ]
[ "$(psql -Atc "SELECT count(*) FROM pgbench_history")" -gt 0 ]
pg pg_ctl stop -m fast -D $RUN/data/pg >/dev/null
pg pg_checksums --check -D $RUN/data/pg
ready umount $RUN/data
e2fsck -f -n $DISK
echo THE DAY IS OVER
"#;

fn postgresql_day(world: &World) -> Result<()> {
    if let Some(why) = mount::lacking() {
        world.skip_part_unless(false, why)?;
        return Ok(());
    }
    let mut document = Document::read("postgresql-day.md")?;
    let (url, beside) = (world.url("db1"), world.url("db1-before"));
    document.replace("export URL=", &format!("export URL={url} BESIDE={beside}"))?;
    let run = world.dir.join("day");
    std::fs::create_dir_all(&run)?;
    let run = run.display();
    document.replace("export RUN=", &format!("export RUN={run} DISK={run}/nbd0 DISK2={run}/nbd1"))?;
    let programs = world.dir.join("programs");
    std::fs::create_dir_all(&programs)?;
    std::os::unix::fs::symlink(world.lsvd_path(), programs.join("lsvd"))?;
    let (settings, rest) = document.script().split_once("\ncd /\n").map_or_else(
        || Err(anyhow::anyhow!("the settings of the document end with `cd /`")),
        |(settings, rest)| Ok((settings.to_owned(), rest.to_owned())),
    )?;
    let script = world.dir.join("day.sh");
    std::fs::write(&script, format!("{settings}\ncd /\n{PRELUDE}\n{rest}\n{CHECKS}"))?;

    let mut bash = world.client("bash");
    bash.envs(world.lsvd().get_envs().filter_map(|(name, value)| Some((name, value?))));
    let path = std::env::var("PATH").unwrap_or_default();
    bash.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin:{path}", programs.display()));
    bash.env("LC_ALL", "C").arg(&script);
    let day = shell::output(&mut bash, LIMIT)?;
    std::fs::write(world.dir.join("day.log"), format!("{}\n---\n{}", day.stdout, day.stderr))?;
    ensure!(day.code() == 0 && day.stdout.contains("THE DAY IS OVER"), "the day ended with {}", day.code());
    let whole = day.stdout.lines().filter(|line| *line == ORDERS).count();
    ensure!(
        whole == 2,
        "the table was whole {whole} times, and not after each of the two ways: {}",
        day.stdout
    );
    for snapshot in ["before-release", "before-rollback-"] {
        ensure!(day.stdout.contains(snapshot), "{snapshot} is not listed: {}", day.stdout);
    }
    ensure!(
        day.stderr.contains("rolled back, and served again"),
        "the rollback did not go through the daemon"
    );
    let left = shell::output(world.lsvd().args(["info", &beside]), TOOL_LIMIT)?;
    world.failed_with(&left, 6, &["there is no volume"]).context("the volume beside it is gone")
}

//! The arguments of `lsvd snapshot`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use lsvd_volume::Retention;

use super::{ControlPlace, LogLines, Patience, Store};
use crate::units::parse_duration;

/// `lsvd snapshot`
#[derive(Args, Debug)]
pub(crate) struct Snapshot {
    /// What to do
    #[command(subcommand)]
    pub(crate) act: SnapshotAct,
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotAct {
    /// Make one of now: a flush and one small object, whatever the volume's size
    Create(SnapshotCreate),
    /// Make one of each of several volumes that one daemon of this host serves, all of the same moment
    Group(SnapshotGroup),
    /// List them, writing nothing
    Ls(SnapshotLs),
    /// Remove some: what nothing else needs is deleted, by a daemon or by `lsvd gc`
    Rm(SnapshotRm),
}

/// `lsvd snapshot create`
#[derive(Args, Debug)]
pub(crate) struct SnapshotCreate {
    /// The volume
    pub(crate) url: String,

    /// Its name: a letter, then letters, digits, '.', '_' and '-', 64 at most. Without one it is automatic: named by the time,
    /// skipped if nothing has changed since the newest, and removed again by --keep
    pub(crate) name: Option<String>,

    /// Remove automatic ones that no rule keeps, as hourly=24,daily=7: the newest of each of the last N hours, days, weeks,
    /// months or years, or the last N
    #[arg(long, value_name = "RULES", value_parser = parse_retention, conflicts_with = "name")]
    pub(crate) keep: Option<Retention>,

    /// What all of them share.
    #[command(flatten)]
    pub(crate) common: Keeping,
}

/// `lsvd snapshot group`
#[derive(Args, Debug)]
pub(crate) struct SnapshotGroup {
    /// The name that it has in each of them
    pub(crate) name: String,

    /// The volumes
    #[arg(required = true, value_name = "URL")]
    pub(crate) urls: Vec<String>,

    /// Where the daemon is asked: its socket, or the directory that `serve --control` has
    /// [default: $XDG_RUNTIME_DIR/lsvd/control, then /run/lsvd/control]
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,

    /// Print JSON: docs/json.md has the fields
    #[arg(long)]
    pub(crate) json: bool,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,

    /// How long the store may be away.
    #[command(flatten)]
    pub(crate) patience: Patience,

    /// How the store is reached.
    #[command(flatten)]
    pub(crate) store: Store,
}

/// `lsvd snapshot ls`
#[derive(Args, Debug)]
pub(crate) struct SnapshotLs {
    /// The volume
    pub(crate) url: String,

    /// Print JSON: docs/json.md has the fields
    #[arg(long)]
    pub(crate) json: bool,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,

    /// How long the store may be away.
    #[command(flatten)]
    pub(crate) patience: Patience,

    /// How the store is reached.
    #[command(flatten)]
    pub(crate) store: Store,
}

/// `lsvd snapshot rm`
#[derive(Args, Debug)]
pub(crate) struct SnapshotRm {
    /// The volume
    pub(crate) url: String,

    /// The snapshots
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,

    /// Remove also what is kept for a clone of which nothing is there: its making was cut short, or its objects are lost
    #[arg(long)]
    pub(crate) force: bool,

    /// What all of them share.
    #[command(flatten)]
    pub(crate) common: Keeping,
}

/// How a volume is reached whose snapshots change.
#[derive(Args, Debug)]
pub(crate) struct Keeping {
    /// Refuse a volume that was not closed cleanly and in which something was stored this lately, by the store's clock
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) if_free: Duration,

    /// Use a store without create-only PUT. Two writers at once then LOSE DATA: you vouch that there is one
    #[arg(long)]
    pub(crate) unsafe_single_writer: bool,

    /// Print JSON: docs/json.md has the fields
    #[arg(long)]
    pub(crate) json: bool,

    /// Who is asked.
    #[command(flatten)]
    pub(crate) control: ControlPlace,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,

    /// How long the store may be away.
    #[command(flatten)]
    pub(crate) patience: Patience,

    /// How the store is reached.
    #[command(flatten)]
    pub(crate) store: Store,
}

/// Reads `hourly=24,daily=7`.
///
/// # Errors
/// Says which rule is none, and which there are.
pub(crate) fn parse_retention(text: &str) -> Result<Retention, String> {
    let mut retention = Retention::default();
    for rule in text.split(',') {
        let wrong = || format!("'{rule}' is no rule: write last, hourly, daily, weekly, monthly or yearly=N");
        let (period, count) = rule.split_once('=').ok_or_else(wrong)?;
        let rule = match period {
            "last" => &mut retention.last,
            "hourly" => &mut retention.hourly,
            "daily" => &mut retention.daily,
            "weekly" => &mut retention.weekly,
            "monthly" => &mut retention.monthly,
            "yearly" => &mut retention.yearly,
            _ => return Err(wrong()),
        };
        if *rule != 0 {
            return Err(format!("{period} is said twice"));
        }
        *rule = match count.parse() {
            Ok(0) | Err(_) => return Err(wrong()),
            Ok(count) => count,
        };
    }
    Ok(retention)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_what_is_none_is_said() {
        let read = parse_retention("hourly=24,daily=7").unwrap();
        assert_eq!(read, Retention { hourly: 24, daily: 7, ..Retention::default() });
        for wrong in ["", "hourly", "hourly=0", "hourly=x", "minutely=3", "daily=1,daily=2", "daily=1,"] {
            assert!(parse_retention(wrong).is_err(), "{wrong}");
        }
    }
}

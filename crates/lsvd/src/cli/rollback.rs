//! The arguments of `lsvd rollback`.

use std::time::Duration;

use clap::Args;

use super::{ControlPlace, LogLines, Patience, Store};
use crate::units::parse_duration;

/// `lsvd rollback`
#[derive(Args, Debug)]
pub(crate) struct Rollback {
    /// The volume
    pub(crate) url: String,

    /// Where to: a snapshot's name, a number of the log, or a time as 2026-11-25T20:00:00Z, which means the last object that
    /// was sealed by then
    #[arg(long, value_name = "MOMENT")]
    pub(crate) to: String,

    /// Write nothing, take nothing over, and say what would be left
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Do not ask
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) yes: bool,

    /// End the connections of clients. Without it a volume that has any is not rolled back by the daemon that serves it, as a client that
    /// connects again by itself goes on with other contents than it knows
    #[arg(long)]
    pub(crate) disconnect: bool,

    /// Refuse a volume that was not closed cleanly and in which something was stored this lately, by the store's clock
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) if_free: Duration,

    /// Use a store without create-only PUT. Two writers at once then LOSE DATA: you vouch that there is one
    #[arg(long)]
    pub(crate) unsafe_single_writer: bool,

    /// Print JSON: docs/json.md has the fields. Does not ask
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

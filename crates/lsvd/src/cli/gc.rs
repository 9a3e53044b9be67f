//! The arguments of `lsvd gc` and `lsvd upgrade`.

use std::time::Duration;

use clap::Args;

use super::serve::parse_gc_target;
use super::{ControlPlace, LogLines, Patience, Store};
use crate::units::parse_duration;

/// `lsvd gc`
#[derive(Args, Debug)]
pub(crate) struct Gc {
    /// The volume
    pub(crate) url: String,

    /// Write nothing, take nothing over, and say what would come back
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Collect until the log holds no more than this many bytes for each live one, 1.05 to 100; or `off`, to delete only
    /// objects in which nothing is live
    #[arg(long, value_name = "RATIO", default_value = "1.3", value_parser = parse_gc_target)]
    pub(crate) target: f64,

    /// What both commands share.
    #[command(flatten)]
    pub(crate) common: Collecting,
}

/// `lsvd upgrade`
#[derive(Args, Debug)]
pub(crate) struct Upgrade {
    /// The volume
    pub(crate) url: String,

    /// Write nothing, take nothing over, and say what would be moved
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// What both commands share.
    #[command(flatten)]
    pub(crate) common: Collecting,
}

/// How a volume is collected.
#[derive(Args, Debug)]
pub(crate) struct Collecting {
    /// Delete dead objects this long after it is recorded that they are, for readers that are behind: longer than their
    /// --io-timeout. 1s will do if there are none. A daemon has its own time
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub(crate) delete_after: Duration,

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

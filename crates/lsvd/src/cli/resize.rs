//! The arguments of `lsvd resize`.

use std::time::Duration;

use clap::Args;

use super::{ControlPlace, LogLines, Patience, Store};
use crate::units::{parse_duration, parse_volume_bytes};

/// `lsvd resize`
#[derive(Args, Debug)]
pub(crate) struct Resize {
    /// The volume
    pub(crate) url: String,

    /// The new size of the device, as 64M or 1T (powers of 1,024)
    #[arg(long, value_parser = parse_volume_bytes)]
    pub(crate) size: u64,

    /// Let go of data beyond the new end, for good. Without it a volume does not shrink while there is any
    #[arg(long)]
    pub(crate) discard: bool,

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

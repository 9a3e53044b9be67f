//! The arguments of `lsvd rm`.

use std::time::Duration;

use clap::Args;

use super::{ControlPlace, LogLines, Patience, Store};
use crate::units::parse_duration;

/// `lsvd rm`
#[derive(Args, Debug)]
pub(crate) struct Rm {
    /// The volume
    pub(crate) url: String,

    /// Do not ask. Without a terminal to ask on it is needed
    #[arg(long)]
    pub(crate) yes: bool,

    /// Delete its archive, too: objects that openings found beyond the end of the log, and that nobody was told to be durable
    #[arg(long)]
    pub(crate) archive: bool,

    /// Delete the marker, too: two small objects that stay, so that what still knows this volume can not harm another one that
    /// is made in its place. Without it make none there while a daemon or another rm of this volume may wake up
    #[arg(long)]
    pub(crate) no_marker: bool,

    /// Delete a volume that can not be read: its superblock or its log is damaged, or it has no superblock any more. Whether
    /// anything needs it is then not known
    #[arg(long)]
    pub(crate) damaged: bool,

    /// Refuse a volume that was not closed cleanly and in which something was stored this lately, by the store's clock; `off`
    /// takes it from a daemon that serves it
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_if_free)]
    pub(crate) if_free: Duration,

    /// Who is asked to give up what the parent of a clone keeps for it.
    #[command(flatten)]
    pub(crate) control: ControlPlace,

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

/// A duration, or none.
fn parse_if_free(text: &str) -> Result<Duration, String> {
    match text {
        "off" => Ok(Duration::ZERO),
        _ => parse_duration(text).map_err(|error| format!("{error}, or off")),
    }
}

//! The arguments of `lsvd top`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{LogLines, Patience, Store};
use crate::units::parse_duration;

/// `lsvd top`
#[derive(Args, Debug)]
pub(crate) struct Top {
    /// The volume; without it all that daemons of this host serve, and no store is asked
    pub(crate) url: Option<String>,

    /// How often daemons are asked
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub(crate) interval: Duration,

    /// End after so many intervals [default: go on until a signal comes]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) iterations: Option<u64>,

    /// Where the daemon is asked: its socket, or the directory that `serve --control` has
    /// [default: $XDG_RUNTIME_DIR/lsvd/control, then /run/lsvd/control]
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,

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

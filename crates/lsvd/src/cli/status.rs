//! The arguments of `lsvd status`, and how commands find a daemon.

use std::path::PathBuf;

use clap::Args;

use super::{LogLines, Patience, Store};

/// Where daemons of this host are asked.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Daemons of this host")]
pub(crate) struct ControlPlace {
    /// Where a daemon is asked: its socket, or the directory that `serve --control` has
    /// [default: $XDG_RUNTIME_DIR/lsvd/control, then /run/lsvd/control]
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,

    /// Ask no daemon
    #[arg(long, conflicts_with = "control")]
    pub(crate) no_control: bool,
}

/// `lsvd status`
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// The volume; without it all daemons that are found, and no store is asked
    pub(crate) url: Option<String>,

    /// Print JSON: docs/json.md has the fields
    #[arg(long)]
    pub(crate) json: bool,

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

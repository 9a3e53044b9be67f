//! The arguments of `lsvd info`.

use std::path::PathBuf;

use clap::Args;

use super::{ControlPlace, LogLines, Patience, Store};

/// `lsvd info`
#[derive(Args, Debug)]
pub(crate) struct Info {
    /// The volume, or a moment of it: URL@SNAPSHOT, URL@NUMBER, or URL@TIME as 2026-11-25T20:00:00Z
    pub(crate) url: String,

    /// Say what only the local journal in this directory holds: the one that `serve --journal` has
    #[arg(long, value_name = "DIR")]
    pub(crate) journal: Option<PathBuf>,

    /// Print JSON: docs/json.md has the fields
    #[arg(long)]
    pub(crate) json: bool,

    /// Who is asked beside the store.
    #[command(flatten)]
    pub(crate) control: ControlPlace,

    /// How long the store may be away.
    #[command(flatten)]
    pub(crate) patience: Patience,

    /// How the store is reached.
    #[command(flatten)]
    pub(crate) store: Store,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,
}

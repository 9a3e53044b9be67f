//! The arguments of `lsvd ls`.

use clap::Args;

use super::{LogLines, Patience, Store};

/// `lsvd ls`
#[derive(Args, Debug)]
pub(crate) struct Ls {
    /// The prefix below which volumes are looked for
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

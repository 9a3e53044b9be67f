//! The arguments of `lsvd diff`.

use clap::Args;

use super::{LogLines, Patience, Store};

/// `lsvd diff`
#[derive(Args, Debug)]
pub(crate) struct Diff {
    /// The moment that is compared with: URL@SNAPSHOT, URL@NUMBER, or URL@TIME as 2026-11-25T20:00:00Z
    pub(crate) from: String,

    /// The moment that is compared, of the same volume; without one behind it, the present
    pub(crate) to: String,

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

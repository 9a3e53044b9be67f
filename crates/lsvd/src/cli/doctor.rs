//! The arguments of `lsvd doctor`.

use clap::Args;

use super::{LogLines, Patience, Store};

/// `lsvd doctor`
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// A volume, or where one is to be; its objects are not touched. Some 100 MB are sent and as many fetched, and
    /// removed again
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

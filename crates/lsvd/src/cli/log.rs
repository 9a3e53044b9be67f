//! The arguments of `lsvd log`.

use clap::Args;

use super::{LogLines, Patience, Store, at_least_one};

/// `lsvd log`
#[derive(Args, Debug)]
pub(crate) struct Log {
    /// The volume
    pub(crate) url: String,

    /// Only the newest N objects; the header of each that is listed is read
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) last: Option<usize>,

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

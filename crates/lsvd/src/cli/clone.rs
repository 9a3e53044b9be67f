//! The arguments of `lsvd clone` and `lsvd flatten`.

use clap::Args;

use super::Keeping;

/// `lsvd clone`
#[derive(Args, Debug)]
pub(crate) struct CloneOf {
    /// The volume, and behind an '@' its moment: a snapshot, a number of the log, a time. Without one it is now
    #[arg(value_name = "URL[@MOMENT]")]
    pub(crate) url: String,

    /// Where the clone is to be: in the same bucket, or in another directory of this host
    pub(crate) new_url: String,

    /// What it shares with commands that change snapshots.
    #[command(flatten)]
    pub(crate) common: Keeping,
}

/// `lsvd flatten`
#[derive(Args, Debug)]
pub(crate) struct Flatten {
    /// The clone
    pub(crate) url: String,

    /// What it shares with commands that change snapshots.
    #[command(flatten)]
    pub(crate) common: Keeping,
}

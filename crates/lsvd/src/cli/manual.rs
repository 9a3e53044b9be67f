//! The arguments of the commands that print what belongs to the program itself.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// `lsvd completions`
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// `lsvd man`
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Write lsvd.1, lsvd-create.1 and so on here
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}

//! The arguments of `lsvd demo`.

use std::path::PathBuf;

use clap::Args;

use super::LogLines;
use crate::units::parse_bytes;

/// `lsvd demo`
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Where the demo makes its own directory, which it removes at the end [default: the system's temporary directory]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,

    /// How much is written in one stream
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = demo_bytes)]
    pub(crate) data: u64,

    /// Leave the directory there
    #[arg(long)]
    pub(crate) keep: bool,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,
}

fn demo_bytes(text: &str) -> Result<u64, String> {
    const MIB: u64 = 1 << 20;
    let bytes = parse_bytes(text)?;
    if !(MIB..=64 << 30).contains(&bytes) || !bytes.is_multiple_of(MIB) {
        return Err("the demo writes whole MiB, from 1M to 64G".into());
    }
    Ok(bytes)
}

//! The arguments of `lsvd create`.

use clap::Args;

use super::{ObjectFormat, Patience, Store};
use crate::units::parse_volume_bytes;

/// `lsvd create`
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Where: the last segment is the volume's name
    pub(crate) url: String,

    /// Size of the device, as 64M or 1T (powers of 1,024). Nothing is paid for what was never written
    #[arg(long, value_parser = parse_volume_bytes)]
    pub(crate) size: u64,

    /// Numbers that a writer may be ahead of its first unfinished upload, for good
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(2..=65_536))]
    pub(crate) window: u64,

    /// Use a store without create-only PUT. Two writers at once then LOSE DATA: you vouch that there is one
    #[arg(long)]
    pub(crate) unsafe_single_writer: bool,

    /// Format of the log's objects, for good
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ObjectFormat::V2)]
    pub(crate) log_format: ObjectFormat,

    /// How long the store may be away.
    #[command(flatten)]
    pub(crate) patience: Patience,

    /// How the store is reached.
    #[command(flatten)]
    pub(crate) store: Store,
}

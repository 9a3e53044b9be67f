//! The arguments of `lsvd adopt`.

use std::time::Duration;

use clap::Args;

use super::{ObjectFormat, Patience, Store};
use crate::units::{parse_duration, parse_volume_bytes};

/// `lsvd adopt`
#[derive(Args, Debug)]
pub(crate) struct Adopt {
    /// Where the objects lie: a prefix, or a bucket alone, which is then the volume's name
    pub(crate) url: String,

    /// Size of the device, as 64M or 1T (powers of 1,024): what the old daemon served, or more
    #[arg(long, value_parser = parse_volume_bytes)]
    pub(crate) size: u64,

    /// Format of new objects, for good
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ObjectFormat::V2)]
    pub(crate) log_format: ObjectFormat,

    /// What the objects' names begin with below the URL, if not with their number: folders, each with its slash
    #[arg(long, value_name = "PREFIX", default_value = "")]
    pub(crate) log_prefix: String,

    /// The log begins with this number (decimal), and nothing before it is missing. Needed if that is neither 0 nor 1
    #[arg(long, value_name = "N")]
    pub(crate) first_number: Option<u64>,

    /// Refuse a log to which something was added this lately, by the store's clock
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) quiet_for: Duration,

    /// Numbers that a writer may be ahead of its first unfinished upload, for good
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(2..=65_536))]
    pub(crate) window: u64,

    /// Use format 1, or a store without create-only PUT. Two writers at once then LOSE DATA: you vouch that there is one
    #[arg(long)]
    pub(crate) unsafe_single_writer: bool,

    /// How long the store may be away.
    #[command(flatten)]
    pub(crate) patience: Patience,

    /// How the store is reached.
    #[command(flatten)]
    pub(crate) store: Store,
}

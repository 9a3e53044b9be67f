//! The arguments of `lsvd attach` and `lsvd detach`.

use std::time::Duration;

use clap::Args;

use super::LogLines;
use crate::units::parse_duration;

/// `lsvd attach`
#[derive(Args, Debug)]
pub(crate) struct Attach {
    /// The export, as `lsvd serve` prints it: nbd+unix:///NAME?socket=PATH or nbd://HOST:PORT/NAME
    pub(crate) uri: String,

    /// The device, as /dev/nbd0
    pub(crate) device: String,

    /// Connections; more are quicker where both sides have the cores for it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) connections: u32,

    /// Bytes of a logical block: 512, 1024, 2048 or 4096. A partition table or file system made with one size is not read
    /// with another
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    pub(crate) block_size: u32,

    /// Cut a connection off whose request takes longer, and send its requests again on a new one. Make it longer than the
    /// daemon's own --io-timeout [default: none is cut off; what was in flight when a connection died is sent again
    /// within 30 s]
    #[arg(long, value_name = "DURATION", value_parser = whole_seconds)]
    pub(crate) timeout: Option<Duration>,

    /// While the server is away, requests wait this long before they fail, and the device with them
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = whole_seconds)]
    pub(crate) dead_conn_timeout: Duration,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,
}

/// `lsvd detach`
#[derive(Args, Debug)]
pub(crate) struct Detach {
    /// The device, as /dev/nbd0
    pub(crate) device: String,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,
}

/// The kernel counts in these.
fn whole_seconds(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration.is_zero() || duration.subsec_nanos() != 0 {
        return Err("the kernel counts in whole seconds, from 1s on".into());
    }
    Ok(duration)
}

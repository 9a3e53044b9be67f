//! The arguments of `lsvd serve`: what is served where, and within which ceilings.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use lsvd_volume::Retention;

use super::{LogLines, Store, at_least_one, parse_retention};
use crate::collection::check_target;
use crate::units::{parse_bytes, parse_duration, parse_volume_bytes};

/// `lsvd serve`
#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// The volumes; each is an export named by its last segment, one alone is the default export too. URL@MOMENT is served
    /// read-only as of a snapshot, a number of the log, or a time as 2026-11-25T20:00:00Z
    #[arg(required = true, value_name = "URL")]
    pub(crate) urls: Vec<String>,

    /// Where clients connect: unix:PATH or tcp:HOST:PORT; may be repeated
    /// [default: unix:DIR/VOLUME.sock, with $XDG_RUNTIME_DIR/lsvd or else /run/lsvd as DIR]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,

    /// Let tcp: addresses be reached from other hosts. There is NO AUTHENTICATION and no encryption: who connects
    /// reads and writes the volume
    #[arg(long)]
    pub(crate) allow_remote: bool,

    /// Serve as of now, writing nothing and fencing nobody; opens what is whole of a damaged volume
    #[arg(long, conflicts_with = "create")]
    pub(crate) read_only: bool,

    /// Create with this size what does not exist yet
    #[arg(long, value_name = "SIZE", value_parser = parse_volume_bytes)]
    pub(crate) create: Option<u64>,

    /// Use a store without create-only PUT. Two writers at once then LOSE DATA: you vouch that there is one
    #[arg(long)]
    pub(crate) unsafe_single_writer: bool,

    /// Open a log that lost its newest objects, as if they had never been written. For winding a volume back by
    /// deleting them on purpose; what they held is GONE
    #[arg(long, conflicts_with = "read_only")]
    pub(crate) accept_shorter_log: bool,

    /// Take a volume over only if it was closed cleanly, or nothing was stored in it for this long by the store's clock
    /// [one minute if no time is given]. A writer that is idle can not be seen
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "60s",
        value_parser = parse_duration, conflicts_with = "read_only")]
    pub(crate) if_free: Option<Duration>,

    /// How long a first SIGTERM or SIGINT waits for the store to take what is buffered; then the daemon ends as after a
    /// crash: what was flushed is safe
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = parse_duration)]
    pub(crate) shutdown_timeout: Duration,

    /// Where the control socket is made, by which `lsvd status`, `gc` and `info` ask this daemon: a directory of this user
    /// alone [default: $XDG_RUNTIME_DIR/lsvd/control, or else /run/lsvd/control, and none where it can not be made]
    #[arg(long, value_name = "DIR")]
    pub(crate) control: Option<PathBuf>,

    /// Make no control socket
    #[arg(long, conflicts_with = "control")]
    pub(crate) no_control: bool,

    /// Where writes that were answered and are not in the store yet are kept for the next daemon on this host, in case this one
    /// is killed: a directory of this user alone, which may be in memory and takes up to --buffer. Without it clients that
    /// reconnect may lose what they flush then [default: $XDG_RUNTIME_DIR/lsvd/handover, or else /run/lsvd/handover]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["read_only", "journal"])]
    pub(crate) handover: Option<PathBuf>,

    /// Answer writes from memory alone: for clients that do not reconnect
    #[arg(long, conflicts_with = "handover")]
    pub(crate) no_handover: bool,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,

    /// The local journal.
    #[command(flatten)]
    pub(crate) journal: Journal,

    /// Log what each volume holds and has done, this often [default: never]: docs/json.md has the fields
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) stats_interval: Option<Duration>,

    /// Ceilings.
    #[command(flatten)]
    pub(crate) limits: Limits,

    /// What is done behind the clients.
    #[command(flatten)]
    pub(crate) upkeep: Upkeep,

    /// What is kept.
    #[command(flatten)]
    pub(crate) moments: Moments,

    /// How the store is reached.
    #[command(flatten)]
    pub(crate) store: Store,
}

/// What a flush waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flush {
    /// The store holds it: losing this host loses nothing that was flushed
    Object,
    /// The local journal holds it: fast, but losing its disk loses what the store does not hold yet
    Journal,
}

/// The local journal.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Local journal")]
pub(crate) struct Journal {
    /// When FLUSH, FUA and fsync are answered
    #[arg(long, value_enum, default_value_t = Flush::Object, conflicts_with = "read_only")]
    pub(crate) flush: Flush,

    /// Where journals are kept, on a local disk that survives: each volume's in a folder of its name. Needs --flush journal
    #[arg(long, value_name = "DIR")]
    pub(crate) journal: Option<PathBuf>,

    /// What each volume's journal may take of the disk; when it is full, flushes wait for the store
    #[arg(long, value_name = "SIZE", default_value = "8G", value_parser = parse_bytes)]
    pub(crate) journal_size: u64,

    /// Open a volume whose journal is lost or damaged, or can not be replayed any more. What only that journal holds is
    /// GONE, flushed or not: what is known of it is said first
    #[arg(long, conflicts_with = "read_only")]
    pub(crate) abandon_journal: bool,
}

/// The ceilings of each served volume.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Ceilings, for each volume")]
pub(crate) struct Limits {
    /// Memory for chunks that were read
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_bytes)]
    pub(crate) cache: u64,

    /// Memory for the extent map; what checkpoints hold of it leaves memory beyond that, and is fetched when it is needed.
    /// 1 GiB of the volume takes 10 KiB if it was written in large pieces, 1.6 MiB if in single blocks at random. The index
    /// of all of it stays (up to 1.5 MiB for 1 TiB): a quarter of SIZE is for the rest in any case
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_bytes)]
    pub(crate) map_memory: u64,

    /// Memory for writes that the store does not hold yet; beyond it writes wait
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = parse_bytes)]
    pub(crate) buffer: u64,

    /// A log object is sealed when it holds this much
    #[arg(long, value_name = "SIZE", default_value = "8M", value_parser = parse_bytes)]
    pub(crate) batch: u64,

    /// A log object is sealed when its first write is this old: what a crash can take of unflushed writes
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub(crate) batch_age: Duration,

    /// Uploads in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    pub(crate) uploads: usize,

    /// Uploads in flight for flushes; beyond it flushes wait and share the next one
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    pub(crate) flush_uploads: usize,

    /// Fetches in flight
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub(crate) fetches: usize,

    /// How long a request waits for the store before it fails; service resumes when the store is back
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) io_timeout: Duration,
}

/// What is done behind the clients of each served volume.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Checkpoints and garbage collection, for each volume")]
pub(crate) struct Upkeep {
    /// Collect garbage while the log holds more than this many bytes for each live one, 1.05 to 100; or `off`, and space
    /// comes back only of objects in which nothing is live. Further above it writes are slowed down, so that they do not
    /// outrun collection
    #[arg(long, value_name = "RATIO", default_value = "1.3", value_parser = parse_gc_target)]
    pub(crate) gc_target: f64,

    /// Collect garbage only while at least this much could come back: less is not worth copying for
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_bytes)]
    pub(crate) gc_waste_min: u64,

    /// Write a checkpoint when the last one is this old and anything was written since; sooner if much was
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub(crate) checkpoint_interval: Duration,

    /// Delete objects this long after it is recorded that nothing refers to them, for readers that are behind. Longer than
    /// --io-timeout [default: 5m, or twice --io-timeout if that is longer]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) delete_after: Option<Duration>,
}

/// Which moments of each served volume are kept.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Moments, for each volume")]
pub(crate) struct Moments {
    /// Hold every commit point for this long, so that the volume can be wound back to it; 0s for no longer than
    /// checkpoints are kept anyhow [default: what the volume was last told]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_or_none, conflicts_with = "read_only")]
    pub(crate) history: Option<Duration>,

    /// Make an automatic snapshot this often, unless nothing has changed [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "read_only")]
    pub(crate) snapshot_every: Option<Duration>,

    /// Remove automatic snapshots that no rule keeps, as hourly=24,daily=7: the newest of each of the last N hours, days,
    /// weeks, months or years, or the last N
    #[arg(long, value_name = "RULES", value_parser = parse_retention, requires = "snapshot_every")]
    pub(crate) snapshot_keep: Option<Retention>,
}

/// A duration, or none at all.
fn parse_duration_or_none(text: &str) -> Result<Duration, String> {
    if text == "0" || text == "0s" { Ok(Duration::ZERO) } else { parse_duration(text) }
}

/// How much garbage is too much: a ratio, or infinity for `off`.
pub(super) fn parse_gc_target(text: &str) -> Result<f64, String> {
    if text == "off" {
        return Ok(f64::INFINITY);
    }
    match text.parse::<f64>() {
        Ok(ratio) => check_target(ratio),
        Err(_) => Err(format!("'{text}' is no ratio: write it as 1.3, or off")),
    }
}

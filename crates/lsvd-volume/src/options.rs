//! What a caller can choose when it creates or opens a volume, with the reasons for the defaults.
//!
//! Knows no flags and no files: whoever parses those fills these in.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lsvd_format::{BLOCK_BYTES, ObjectFormat};

use crate::{Error, HandoverOptions, JournalOptions};

/// How a new volume is made.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Size in bytes: a multiple of 4,096, not zero, at most [`lsvd_format::VOLUME_BYTES_MAX`].
    pub size_bytes: u64,
    /// A writer never creates a log object numbered this much or more above its first incomplete number. It bounds
    /// uploads in flight, for good: it is part of the volume. 2 to 65,536; 128 by default.
    pub window: u64,
    /// Use a store whose create-only PUT does not hold. Two writers at once then lose data: the caller vouches that
    /// there is one.
    pub unsafe_single_writer: bool,
    /// The format of its log objects. Format 1 is for whoever has a reader of the experiment that this descends from, and
    /// needs `unsafe_single_writer`: its objects do not say whose they are. 2 by default.
    pub log_format: ObjectFormat,
    /// Where time and randomness come from.
    pub environment: Environment,
}

impl CreateOptions {
    /// A volume of `size_bytes` with the defaults.
    pub fn new(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            window: 128,
            unsafe_single_writer: false,
            log_format: ObjectFormat::V2,
            environment: Environment::default(),
        }
    }
}

/// How a log of format 1 becomes a volume.
#[derive(Clone, Debug)]
pub struct AdoptOptions {
    /// What a new volume has too. [`CreateOptions::log_format`] is the format that the log goes on in.
    pub create: CreateOptions,
    /// What the names of the log's objects begin with, relative to the volume's prefix: nothing by default, else folders,
    /// each with its slash.
    pub log_prefix: String,
    /// The number that the log begins with, where that is neither 0 nor 1: the caller vouches that nothing before it is
    /// missing.
    pub first_number: Option<u64>,
    /// A log to which something was added this lately, by the store's clock, is taken for one that is still written, and
    /// refused. One minute by default.
    pub quiet_for: Duration,
}

impl AdoptOptions {
    /// A volume of `size_bytes` with the defaults.
    pub fn new(size_bytes: u64) -> Self {
        Self {
            create: CreateOptions::new(size_bytes),
            log_prefix: String::new(),
            first_number: None,
            quiet_for: Duration::from_secs(60),
        }
    }
}

/// How a volume is removed.
#[derive(Clone, Debug)]
pub struct RemoveOptions {
    /// Refuse a volume that was neither closed cleanly nor left alone for this long by the store's clock, as
    /// [`OpenOptions::if_free`]; `None` takes it from whoever has it. One minute by default.
    pub if_free: Option<Duration>,
    /// Remove a volume that can not be read: whose newest superblock version is damaged, of which only objects without a
    /// superblock are left, or whose log has no sound end. What a damaged version said is not known, so also not whether
    /// something needs the volume. Its old writer is not stopped by a fence, but by its next look at the superblocks. Off by
    /// default.
    pub damaged: bool,
    /// Delete the archive, too: what recoveries found beyond the durable point and nobody was told to be durable. Off by
    /// default: it stays.
    pub archive: bool,
    /// Leave a superblock version, which says that the volume is gone and where the numbers of another one begin, and the
    /// fence: some 800 bytes. Without them numbers are used again by a volume that is made in the same place: then whoever knew the old one and
    /// only slept (its daemon, another removal) may spoil the new one. On by default.
    pub leave_marker: bool,
    /// Where time and randomness come from.
    pub environment: Environment,
}

impl Default for RemoveOptions {
    fn default() -> Self {
        Self {
            if_free: Some(Duration::from_secs(60)),
            damaged: false,
            archive: false,
            leave_marker: true,
            environment: Environment::default(),
        }
    }
}

/// How a volume is opened: the ceilings of its memory and of its patience.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// A batch is sealed when it holds this many payload bytes. 8 MiB by default: large enough that a PUT's latency
    /// and price are shared by 2,048 blocks, small enough that a few in flight fit in memory.
    pub batch_bytes_max: u64,
    /// A batch is sealed when its first write is this old, flushed or not. 1 s by default: it bounds what an idle
    /// writer that never flushes can lose.
    pub batch_age_max: Duration,
    /// Bytes of accepted writes that the store does not hold yet; at this ceiling writes wait. 128 MiB by default.
    pub buffer_bytes_max: u64,
    /// PUTs in flight at most. 16 by default.
    pub uploads_max: usize,
    /// PUTs in flight that a flush asked for, beyond which flushes wait and share the next one. 4 by default.
    pub flush_uploads_max: usize,
    /// GETs in flight at most. 100 by default, as in the experiment that this descends from.
    pub fetches_max: usize,
    /// Bytes of verified chunks kept in memory. 256 MiB by default.
    pub cache_bytes_max: u64,
    /// Bytes of memory for the extent map: what checkpoints hold of it leaves memory above that, and is read again when it
    /// is needed. 1.6 MiB hold the map of 1 GiB at its worst (every 4 KiB written at random), 10 KiB of 1 GiB written in
    /// large pieces. The index of all regions (some 90 B for each 64 MiB with anything in them) counts and never leaves; a
    /// quarter is for the rest in any case. 512 MiB by default.
    pub map_bytes_max: u64,
    /// What is done behind the clients.
    pub upkeep: UpkeepOptions,
    /// How long a request waits for a store that stores nothing before it fails with [`crate::Error::TimedOut`]; each
    /// object that gets through begins the wait anew, so that a slow line is not taken for a dead one. What was accepted
    /// stays accepted and is still uploaded when the store is back. 60 s by default; it should stay below what a kernel
    /// waits for its NBD server.
    pub io_timeout: Duration,
    /// Open a volume on a store whose create-only PUT does not hold; see [`CreateOptions::unsafe_single_writer`].
    pub unsafe_single_writer: bool,
    /// Take a log that ends before the number that it is known to have reached for the whole log: somebody deleted its
    /// newest objects on purpose, to wind the volume back. Off by default: the volume then refuses to open for writing.
    pub accept_shorter_log: bool,
    /// Take the volume over only if it was closed cleanly, or nothing was stored in it for this long by the store's clock.
    /// A courtesy and no lock: a writer that is idle stores nothing and can not be seen. None by default: whoever opens
    /// for writing takes the volume over.
    pub if_free: Option<Duration>,
    /// Keep a journal on a local disk: a flush is then answered when that disk holds what was written, and the store
    /// gets it behind. If that disk is lost, so is what only it holds. None by default: a flush is answered by the store.
    pub journal: Option<JournalOptions>,
    /// Keep what was answered and not flushed where the next process on this host finds it, so that clients that reconnect lose
    /// nothing when this one is killed. Only where no journal is kept, which does the same. None by default: what was not flushed
    /// may be lost with the process, and its clients have to know that it was.
    pub handover: Option<HandoverOptions>,
    /// Give up what only a journal holds: one that is in use and lost, one that is damaged, or the records of the given
    /// one that can not be replayed any more. Off by default: such a volume then refuses to open for writing.
    pub abandon_journal: bool,
    /// Ask the store at opening whether its create-only PUT holds (a dozen small requests). On by default.
    pub probe: bool,
    /// Where time and randomness come from.
    pub environment: Environment,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            batch_bytes_max: 8 << 20,
            batch_age_max: Duration::from_secs(1),
            buffer_bytes_max: 128 << 20,
            uploads_max: 16,
            flush_uploads_max: 4,
            fetches_max: 100,
            cache_bytes_max: 256 << 20,
            map_bytes_max: 512 << 20,
            upkeep: UpkeepOptions::default(),
            io_timeout: Duration::from_secs(60),
            unsafe_single_writer: false,
            accept_shorter_log: false,
            if_free: None,
            journal: None,
            handover: None,
            abandon_journal: false,
            probe: true,
            environment: Environment::default(),
        }
    }
}

/// What a volume that is open for writing does behind its clients, and how often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpkeepOptions {
    /// How often it is looked whether something is due; looking asks nothing of the store. 1 s by default.
    pub look_every: Duration,
    /// A checkpoint is written when this many log objects lie behind the last one, unless it would store more than a
    /// quarter of what they hold: an opening reads the header of each. 256 by default, some two round trips.
    pub checkpoint_objects: u64,
    /// A checkpoint is written when the last one is this old and anything lies behind it. 5 minutes by default.
    pub checkpoint_age: Duration,
    /// Objects are deleted when this long has passed since it is recorded that nothing refers to them: for readers that
    /// are behind. 5 minutes by default; above [`OpenOptions::io_timeout`].
    pub delete_after: Duration,
    /// Garbage collection.
    pub collect: CollectOptions,
}

/// How space comes back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CollectOptions {
    /// Collect while the log's objects that hold anything live have more than this many bytes for each live one. 1.3 by
    /// default: in LSVD's paper collection from 70 % live on. Nothing is collected if it is infinite.
    pub target: f64,
    /// Collect only while at least this many bytes could come back. 64 MiB by default.
    pub waste_bytes_min: u64,
    /// The share of time that collection works in, when the volume is at its target; it rises to all of it
    /// [`CollectOptions::slow_above`]. 0.25 by default.
    pub share: f64,
    /// This far above the target collection works all the time, several rounds at once, and clients that write faster than
    /// it gives back begin to be slowed down. 0.05 by default.
    pub slow_above: f64,
    /// This far above the target clients are left an eighth of the speed at which collection gives back, and half-way
    /// from [`CollectOptions::slow_above`] as much as it gives back: there a client settles that overwrites at random as
    /// fast as it can. A write waits a quarter of [`OpenOptions::io_timeout`] at most, and none while collection gives
    /// nothing back. 0.15 by default; clients are never slowed down if it is infinite.
    pub stop_above: f64,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self { target: 1.3, waste_bytes_min: 64 << 20, share: 0.25, slow_above: 0.05, stop_above: 0.15 }
    }
}

impl Default for UpkeepOptions {
    fn default() -> Self {
        Self {
            look_every: Duration::from_secs(1),
            checkpoint_objects: 256,
            checkpoint_age: Duration::from_secs(300),
            delete_after: Duration::from_secs(300),
            collect: CollectOptions::default(),
        }
    }
}

/// The wall clock and the source of identities: real by default, seeded in a simulation.
#[derive(Clone)]
pub struct Environment {
    /// Milliseconds since 1970. Only recorded, never trusted: no proof rests on it.
    pub now_unix_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// 16 bytes that nobody drew before.
    pub random: Arc<dyn Fn() -> [u8; 16] + Send + Sync>,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            now_unix_ms: Arc::new(|| {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }),
            random: Arc::new(|| {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).expect("the system's random source works, or nothing else does");
                bytes
            }),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// Whether a volume can be opened so.
pub(crate) fn check_options(options: &OpenOptions) -> Result<(), Error> {
    let invalid = |what: &str| Err(Error::Invalid(what.to_owned()));
    if options.batch_bytes_max < BLOCK_BYTES || options.batch_bytes_max > 1 << 30 {
        return invalid("a batch holds 4 KiB to 1 GiB");
    }
    if options.buffer_bytes_max < options.batch_bytes_max {
        return invalid("the write buffer must hold at least one batch");
    }
    if options.uploads_max == 0 || options.flush_uploads_max == 0 || options.fetches_max == 0 {
        return invalid("uploads and fetches at once must be at least 1");
    }
    if options.journal.as_ref().is_some_and(|journal| journal.bytes_max < 2 * options.batch_bytes_max) {
        return invalid("the journal must hold at least two batches");
    }
    if options.io_timeout.is_zero() || options.batch_age_max.is_zero() {
        return invalid("the I/O timeout and the batch age must be above 0");
    }
    let UpkeepOptions { look_every, delete_after, collect, .. } = options.upkeep;
    if look_every.is_zero() || delete_after.is_zero() {
        return invalid("the pauses between looks and before deletes must be above 0");
    }
    if collect.target.is_nan() || collect.target < 1.0 {
        return invalid("the target of garbage collection is at least 1: what is live has to be held");
    }
    if !(collect.slow_above >= 0.0 && collect.stop_above > collect.slow_above) {
        return invalid("clients are slowed down above the target, and stopped further above");
    }
    if !(collect.share > 0.0 && collect.share <= 1.0) {
        return invalid("the share of garbage collection is above 0 and at most 1");
    }
    Ok(())
}

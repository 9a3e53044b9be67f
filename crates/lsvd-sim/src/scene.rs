//! The setting of one run: how the volume is made and opened, how many take it over, what the history says so far.
//!
//! Knows what was drawn from the seed; plays nothing itself.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lsvd_backend::{Bucket, RetryPolicy};
use lsvd_format::BLOCK_BYTES;
use lsvd_format::checkpoint::REGION_BLOCKS;
use lsvd_local::JournalError;
use lsvd_volume::{
    CollectOptions, CreateOptions, Environment, Error, JournalOptions, OpenOptions, UpkeepOptions,
};

use crate::cloner::Record;
use crate::cloud::{Cloud, PREFIX};
use crate::history::{History, Tick};
use crate::host::Host;
use crate::limits::Limits;
use crate::link::{Link, Rights, World};
use crate::mutation::Mutation;
use crate::oracle::Violation;
use crate::rng::Rng;
use crate::sector::{BLOCK_SECTORS, SECTOR_BYTES};
use crate::stage::{Stage, lock};
use crate::weather::{SsdWeather, Weather};

/// What is drawn once for a run. Small on purpose: corners are near.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) blocks: u32,
    pub(crate) window: u64,
    pub(crate) batch_bytes_max: u64,
    pub(crate) batch_age_max: Duration,
    pub(crate) buffer_bytes_max: u64,
    pub(crate) uploads_max: usize,
    pub(crate) flush_uploads_max: usize,
    pub(crate) fetches_max: usize,
    pub(crate) cache_bytes_max: u64,
    pub(crate) io_timeout: Duration,
    pub(crate) probe: bool,
    pub(crate) retry: RetryPolicy,
    pub(crate) takeovers: u64,
    pub(crate) clients_max: u64,
    pub(crate) requests_max: u64,
    /// Largest write in sectors.
    pub(crate) write_sectors_max: u64,
    /// Longest pause between a client's requests.
    pub(crate) pause_ms_max: u64,
    pub(crate) flush_rate: u64,
    /// Hosts with an SSD for a journal; none: no process has a journal.
    pub(crate) hosts: u64,
    pub(crate) journal_bytes_max: u64,
    /// Processes that have a journal, if there are hosts.
    pub(crate) journals: u64,
    pub(crate) map_bytes_max: u64,
    pub(crate) upkeep: UpkeepOptions,
}

impl Settings {
    fn draw(rng: &mut Rng) -> Self {
        let batch_bytes_max = rng.pick(&[8 << 10, 16 << 10, 32 << 10, 64 << 10]);
        let mut settings = Self {
            blocks: u32::try_from(rng.spread(8, 192)).expect("small"),
            window: rng.pick(&[2, 2, 3, 4, 8, 128]),
            batch_bytes_max,
            batch_age_max: Duration::from_millis(rng.spread(5, 2000)),
            buffer_bytes_max: batch_bytes_max * rng.pick(&[2, 3, 8, 64]),
            uploads_max: rng.pick(&[1, 2, 4, 16]),
            flush_uploads_max: rng.pick(&[1, 2, 4]),
            fetches_max: rng.pick(&[1, 4, 100]),
            cache_bytes_max: rng.pick(&[0, 64 << 10, 4 << 20]),
            io_timeout: Duration::from_secs(rng.pick(&[5, 10, 30])),
            probe: rng.chance(100),
            retry: RetryPolicy {
                attempt_timeout: Duration::from_millis(rng.pick(&[500, 2000, 10_000])),
                total_limit: Duration::from_secs(rng.pick(&[5, 30, 3600])),
                backoff_first: Duration::from_millis(10),
                backoff_max: Duration::from_millis(rng.pick(&[50, 1000, 5000])),
                ..RetryPolicy::default()
            },
            takeovers: if rng.chance(50) { rng.between(8, 24) } else { rng.between(1, 7) },
            clients_max: rng.between(1, 4),
            requests_max: rng.spread(3, 40),
            write_sectors_max: rng.pick(&[4, 8, 24, 64]),
            pause_ms_max: rng.pick(&[1, 20, 200]),
            flush_rate: rng.pick(&[20, 100, 250]),
            hosts: rng.pick(&[0, 0, 1, 2, 3]),
            journal_bytes_max: batch_bytes_max * rng.pick(&[2, 3, 8, 16]),
            journals: rng.pick(&[1000, 1000, 800, 500]),
            map_bytes_max: rng.pick(&[0, 200, 1000, u64::MAX]),
            upkeep: UpkeepOptions {
                look_every: Duration::from_millis(rng.spread(5, 500)),
                checkpoint_objects: rng.pick(&[1, 2, 4, 16]),
                checkpoint_age: Duration::from_millis(rng.pick(&[20, 200, 2000])),
                delete_after: Duration::from_millis(rng.pick(&[1, 100, 5000])),
                collect: CollectOptions {
                    target: if rng.chance(200) { f64::INFINITY } else { 1.0 },
                    waste_bytes_min: rng.pick(&[0, 0, 64 << 10]),
                    share: 1.0,
                    // Whoever collects at all slows its clients down.
                    slow_above: 0.0,
                    stop_above: 1.0,
                },
            },
        };
        // Last, so that what was drawn before stays what it was: clients that write for long enough to make garbage.
        if rng.chance(250) {
            settings.requests_max *= 5;
        }
        settings
    }
}

/// All that the players of a run share.
pub(crate) struct Scene {
    pub(crate) seed: u64,
    pub(crate) world: World,
    pub(crate) settings: Settings,
    pub(crate) hosts: Vec<Arc<Host>>,
    pub(crate) limits: Limits,
    pub(crate) history: Mutex<History>,
    pub(crate) clones: Mutex<Vec<Record>>,
    /// Ways to the store of who plays with clones.
    pub(crate) players: Mutex<Vec<Link>>,
    writes: Mutex<u32>,
    processes: Mutex<u32>,
}

impl Scene {
    /// The scene of `seed`. Needs a runtime with a paused clock.
    pub(crate) fn new(seed: u64, keep_lines: bool, mutation: Option<Mutation>, limits: &Limits) -> Self {
        let stage = Arc::new(Stage::new(keep_lines));
        let mut settings = Settings::draw(&mut Rng::new(seed, 1));
        limits.bound(&mut settings);
        let mut weather = Weather::draw(&mut Rng::new(seed, 2));
        limits.clear(&mut weather);
        let hosts = 1..=settings.hosts;
        let hosts = hosts.map(|number| {
            let mut weather = SsdWeather::draw(&mut Rng::new(seed, 3 << 32 | number));
            limits.clear_ssd(&mut weather);
            stage.event(format_args!("h{number} {weather:?}"));
            let (stage, rng) = (Arc::clone(&stage), Rng::new(seed, 4 << 32 | number));
            let number = u32::try_from(number).expect("there are few");
            Arc::new(Host::new(number, stage, mutation, weather, rng))
        });
        let hosts = hosts.collect();
        stage.event(format_args!("seed {seed} {settings:?}"));
        stage.event(format_args!("{weather:?}"));
        let world = World {
            cloud: Arc::new(Mutex::new(Cloud::new(Arc::clone(&stage), mutation))),
            weather: Arc::new(Mutex::new(weather)),
            stage,
            mutation,
        };
        lock(&world.cloud).set_grace(settings.upkeep.delete_after);
        let history = Mutex::new(History::new(settings.blocks));
        let (limits, writes, processes) = (limits.clone(), Mutex::new(0), Mutex::new(0));
        let (clones, players) = (Mutex::default(), Mutex::default());
        Self { seed, world, settings, hosts, limits, history, clones, players, writes, processes }
    }

    pub(crate) fn stage(&self) -> &Stage {
        &self.world.stage
    }

    pub(crate) fn sectors(&self) -> u32 {
        self.settings.blocks * BLOCK_SECTORS
    }

    /// Clients use the end of one region of the map and the beginning of the next.
    pub(crate) fn first_block(&self) -> u64 {
        REGION_BLOCKS - u64::from(self.settings.blocks / 2)
    }

    /// Where a client's sector is in the volume, in bytes.
    pub(crate) fn offset_bytes(&self, sector: u32) -> u64 {
        self.first_block() * BLOCK_BYTES + u64::from(sector) * SECTOR_BYTES as u64
    }

    /// Clients' sectors that a volume of this size has.
    pub(crate) fn sectors_of(&self, size_bytes: u64) -> u32 {
        let bytes = size_bytes.saturating_sub(self.offset_bytes(0));
        u32::try_from(bytes / SECTOR_BYTES as u64)
            .map_or(self.sectors(), |sectors| sectors.min(self.sectors()))
    }

    /// A generator for one user, of which there is one for each `kind` and `number`.
    pub(crate) fn rng(&self, kind: u64, number: u64) -> Rng {
        Rng::new(self.seed, kind << 32 | number)
    }

    /// A number for a new process.
    pub(crate) fn next_process(&self) -> u32 {
        let mut processes = lock(&self.processes);
        *processes += 1;
        *processes
    }

    /// A number for a new write.
    pub(crate) fn next_write(&self) -> u32 {
        let mut writes = lock(&self.writes);
        *writes += 1;
        *writes
    }

    /// A new process's way to the store.
    pub(crate) fn link(&self, process: u32, rights: Rights) -> Link {
        Link::new(&self.world, process, rights, self.rng(10, u64::from(process)))
    }

    /// The volume's prefix as seen over `link`.
    pub(crate) fn bucket(&self, link: &Link, process: u32) -> Bucket {
        Bucket::from_store(Arc::new(link.clone()), PREFIX, "sim")
            .with_retry(self.settings.retry)
            .with_jitter_seed(self.rng(11, u64::from(process)).bits())
    }

    fn environment(&self, process: u32) -> Environment {
        let rng = Mutex::new(self.rng(12, u64::from(process)));
        let stage = Arc::clone(&self.world.stage);
        // Hosts' clocks differ, by more than any timeout.
        let ahead_ms = self.rng(13, u64::from(process)).between(0, 3_600_000);
        Environment {
            now_unix_ms: Arc::new(move || stage.unix_ms(ahead_ms)),
            random: Arc::new(move || lock(&rng).bytes16()),
        }
    }

    pub(crate) fn create_options(&self, process: u32) -> CreateOptions {
        let blocks = self.first_block() + u64::from(self.settings.blocks);
        let mut options = CreateOptions::new(blocks * BLOCK_BYTES);
        options.window = self.settings.window;
        options.environment = self.environment(process);
        options
    }

    pub(crate) fn open_options(&self, process: u32) -> OpenOptions {
        let settings = &self.settings;
        let mut upkeep = settings.upkeep;
        if lock(&self.world.cloud).is_rotten() {
            // A region that nobody has read yet is taken over by the next checkpoint as it is, and the older one is lost.
            upkeep.look_every = Duration::from_secs(60);
        }
        OpenOptions {
            batch_bytes_max: settings.batch_bytes_max,
            batch_age_max: settings.batch_age_max,
            buffer_bytes_max: settings.buffer_bytes_max,
            uploads_max: settings.uploads_max,
            flush_uploads_max: settings.flush_uploads_max,
            fetches_max: settings.fetches_max,
            cache_bytes_max: settings.cache_bytes_max,
            io_timeout: settings.io_timeout,
            map_bytes_max: settings.map_bytes_max,
            upkeep,
            probe: settings.probe && self.world.mutation.is_none(),
            environment: self.environment(process),
            ..OpenOptions::default()
        }
    }

    /// The journal of the process of `link` on a host.
    pub(crate) fn journal(&self, host: &Arc<Host>, link: &Link) -> JournalOptions {
        let rng = Mutex::new(self.rng(14, u64::from(link.process())));
        let (at, of, link) = (Arc::clone(host), Arc::clone(host), link.clone());
        let mut journal =
            JournalOptions::simulated(move || at.mount(&link), move || of.pause(&mut lock(&rng)));
        journal.bytes_max = self.settings.journal_bytes_max;
        journal
    }

    /// A new tick.
    pub(crate) fn tick(&self) -> Tick {
        self.stage().tick()
    }

    /// The longest that a client may have to wait for any answer: for room, for a base, and for durability.
    pub(crate) fn patience(&self) -> Duration {
        self.settings.io_timeout * 4 + Duration::from_secs(1)
    }

    /// Whether answers of the store may come back damaged in this run.
    pub(crate) fn may_be_damaged(&self) -> bool {
        lock(&self.world.weather).damaged > 0
    }

    /// An error that nothing in this run can be the reason of.
    pub(crate) fn check_error(&self, who: &str, error: &Error) {
        // Nothing is owed to who finds a volume that was removed, or another one in its place.
        if lock(&self.world.cloud).is_removed() {
            return;
        }
        let hosts_failed = || self.hosts.iter().any(|host| host.has_failed());
        let rule = match error {
            Error::Journal { source, .. } => match **source {
                JournalError::InUse => return,
                JournalError::Io { ref source, .. } if source.kind() == ErrorKind::StorageFull => return,
                JournalError::Io { .. } | JournalError::Failed if hosts_failed() => return,
                JournalError::Io { .. } | JournalError::Failed => 10,
                // Nothing that an SSD of this world does, damages what was synced.
                JournalError::Damaged { .. }
                | JournalError::OtherVolume { .. }
                | JournalError::OlderVolume { .. } => 1,
            },
            Error::JournalNeeded { .. } if self.hosts.is_empty() => 1,
            Error::JournalPassedOver { .. } if !self.has_abandoned() && !self.was_rolled_back() => 1,
            Error::Corrupt { .. } if !self.may_be_damaged() => 5,
            Error::Newer { .. } if !self.may_be_damaged() => 5,
            Error::Invalid(_) | Error::ReadOnly { .. } | Error::NotFound { .. } => 4,
            // Nobody asks for more than the volume had at first.
            Error::BeyondEnd { size_bytes, .. } if self.sectors_of(*size_bytes) == self.sectors() => 4,
            Error::UnsafeStore { .. } => 2,
            _ => return,
        };
        let words = words(error);
        self.stage().accuse(Violation::new(rule, format!("{who} was told, without a reason: {words}")));
    }

    /// Whether a rollback was made in this run.
    fn was_rolled_back(&self) -> bool {
        !lock(&self.world.cloud).ledger().turns().is_empty()
    }

    /// Whether some journal in use was given up in this run.
    fn has_abandoned(&self) -> bool {
        !lock(&self.world.cloud).ledger().abandoned().is_empty()
    }
}

/// What an error says, but for what a real clock has a part in.
pub(crate) fn words(error: &Error) -> String {
    match error {
        Error::JournalNeeded { journal, .. } => format!("journal {journal} is in use, and not at hand"),
        other => other.to_string(),
    }
}

//! What a daemon tells of itself: its volumes, what they are and what they have done.
//!
//! Knows open volumes and the forms of docs/control.md; no sockets. Counters are cumulative: whoever wants rates asks twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use lsvd_backend::RequestCounts;
use lsvd_nbd::Server;
use lsvd_volume::{Recovery, Stats};
use serde::{Deserialize, Serialize};

use super::protocol::{HelloVolume, State};
use crate::cli::VERSION;
use crate::export::VolumeExport;
use crate::served::Served;
use crate::traffic::TrafficJson;

/// A daemon, as its control socket knows it: from its start on.
pub(crate) struct Daemon {
    started: Instant,
    started_unix_ms: u64,
    /// Names and URLs of what is to be served.
    wanted: Vec<(String, String)>,
    volumes: OnceLock<Arc<Vec<Served>>>,
    nbd: OnceLock<Server<VolumeExport>>,
    closing: AtomicBool,
}

impl Daemon {
    /// A daemon that is about to open `wanted`: names and URLs.
    pub(crate) fn new(wanted: Vec<(String, String)>) -> Arc<Self> {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Arc::new(Self {
            started: Instant::now(),
            started_unix_ms: milliseconds(since_1970),
            wanted,
            volumes: OnceLock::new(),
            nbd: OnceLock::new(),
            closing: AtomicBool::new(false),
        })
    }

    /// The volumes are open.
    pub(crate) fn opened(&self, volumes: Arc<Vec<Served>>) {
        // Said once, as a daemon opens once.
        let _ = self.volumes.set(volumes);
    }

    /// Clients are served.
    pub(crate) fn serves(&self, nbd: Server<VolumeExport>) {
        let _ = self.nbd.set(nbd);
    }

    /// From now on nothing new is begun.
    pub(crate) fn closes(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// The server of its exports, when clients are served.
    pub(crate) fn nbd(&self) -> Option<&Server<VolumeExport>> {
        self.nbd.get()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The open volumes; none before they are.
    pub(crate) fn volumes(&self) -> &[Served] {
        self.volumes.get().map_or(&[], |volumes| volumes)
    }

    /// The volume of this identity, or else of this export name.
    pub(crate) fn find(&self, volume: &str) -> Option<&Served> {
        let by_id = |served: &&Served| served.volume().description().volume_id.to_string() == volume;
        let volumes = self.volumes();
        volumes.iter().find(by_id).or_else(|| volumes.iter().find(|served| served.name == volume))
    }

    /// Whether `volume` names one that is not open yet.
    pub(crate) fn is_opening(&self, volume: &str) -> bool {
        self.volumes.get().is_none() && self.wanted.iter().any(|(name, _)| name == volume)
    }

    fn state(&self, served: &Served) -> State {
        match (served.error(), self.is_closing()) {
            (Some(lsvd_volume::Error::Closed { .. }), _) | (None, true) => State::Closing,
            (Some(_), _) => State::Ended,
            (None, false) => State::Serving,
        }
    }

    /// The volumes as it greets with them.
    pub(crate) fn greeting(&self) -> Vec<HelloVolume> {
        if self.volumes.get().is_none() {
            let opening = self.wanted.iter().map(|(name, url)| HelloVolume {
                name: name.clone(),
                url: url.clone(),
                volume_id: String::new(),
                epoch: 0,
                writer_id: String::new(),
                read_only: false,
                state: State::Opening,
            });
            return opening.collect();
        }
        let greet = |served: &Served| {
            let opened = served.volume().description();
            HelloVolume {
                name: served.name.clone(),
                url: served.url.clone(),
                volume_id: opened.volume_id.to_string(),
                epoch: opened.epoch.0,
                writer_id: opened.writer_id.to_string(),
                read_only: opened.read_only,
                state: self.state(served),
            }
        };
        self.volumes().iter().map(greet).collect()
    }

    /// Itself and `volumes`.
    pub(crate) fn status<'a>(&self, volumes: impl Iterator<Item = &'a Served>) -> DaemonStatus {
        DaemonStatus {
            version: VERSION.to_owned(),
            pid: std::process::id(),
            started_unix_ms: self.started_unix_ms,
            uptime_ms: milliseconds(self.started.elapsed()),
            opening: match self.volumes.get() {
                None => self.wanted.iter().map(|(name, _)| name.clone()).collect(),
                Some(_) => Vec::new(),
            },
            volumes: volumes.map(|served| self.volume_status(served)).collect(),
        }
    }

    /// One volume.
    pub(crate) fn volume_status(&self, served: &Served) -> VolumeStatus {
        let opened = served.volume().description();
        VolumeStatus {
            name: served.name.clone(),
            url: served.url.clone(),
            volume_id: opened.volume_id.to_string(),
            size_bytes: opened.size_bytes,
            epoch: opened.epoch.0,
            writer_id: opened.writer_id.to_string(),
            read_only: opened.read_only,
            unsafe_single_writer: opened.unsafe_single_writer,
            log_format: opened.append_format.into(),
            flush: if opened.journal.is_some() { "journal" } else { "object" }.to_owned(),
            journal: opened.journal.map(|journal| journal.to_string()),
            state: self.state(served),
            error: served.error().map(|error| error.to_string()),
            clients: self.nbd.get().map_or(0, |nbd| nbd.clients(&served.name)),
            recovery: opened.recovery.into(),
            stats: served.volume().stats().into(),
            requests: served.traffic.read(),
            store: served.bucket.requests().into(),
        }
    }
}

/// A daemon and what it serves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DaemonStatus {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) started_unix_ms: u64,
    pub(crate) uptime_ms: u64,
    /// Names of volumes that are not open yet.
    pub(crate) opening: Vec<String>,
    pub(crate) volumes: Vec<VolumeStatus>,
}

/// An open volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct VolumeStatus {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) volume_id: String,
    pub(crate) size_bytes: u64,
    pub(crate) epoch: u64,
    pub(crate) writer_id: String,
    pub(crate) read_only: bool,
    pub(crate) unsafe_single_writer: bool,
    pub(crate) log_format: u8,
    pub(crate) flush: String,
    pub(crate) journal: Option<String>,
    pub(crate) state: State,
    pub(crate) error: Option<String>,
    pub(crate) clients: u64,
    pub(crate) recovery: RecoveryJson,
    pub(crate) stats: StatsJson,
    #[serde(default)]
    pub(crate) requests: TrafficJson,
    #[serde(default)]
    pub(crate) store: StoreJson,
}

/// What opening did.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RecoveryJson {
    pub(crate) objects_processed: u64,
    pub(crate) objects_archived: u64,
    pub(crate) journal_records: u64,
    pub(crate) durable_number: u64,
}

impl From<Recovery> for RecoveryJson {
    fn from(of: Recovery) -> Self {
        Self {
            objects_processed: of.objects_processed,
            objects_archived: of.objects_archived,
            journal_records: of.journal_records,
            durable_number: of.durable_number.0,
        }
    }
}

/// What a volume holds, and what its daemon has done with it since it was opened.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StatsJson {
    pub(crate) buffered_bytes: u64,
    pub(crate) buffered_ms: u64,
    pub(crate) uploads_in_flight: u64,
    pub(crate) objects_written: u64,
    pub(crate) bytes_written: u64,
    pub(crate) fetches: u64,
    pub(crate) bytes_fetched: u64,
    pub(crate) cache_hits: u64,
    pub(crate) cache_misses: u64,
    pub(crate) cache_bytes: u64,
    pub(crate) corrupt_reads: u64,
    pub(crate) reloads: u64,
    pub(crate) mended_regions: u64,
    pub(crate) lost_regions: u64,
    pub(crate) passed_over_objects: u64,
    pub(crate) map_extents: u64,
    pub(crate) map_bytes: u64,
    pub(crate) checkpoints: u64,
    pub(crate) moved_bytes: u64,
    pub(crate) deleted_objects: u64,
    pub(crate) deleted_bytes: u64,
    pub(crate) slowed_ms: u64,
    pub(crate) log_objects: u64,
    pub(crate) log_bytes: u64,
    pub(crate) dead_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) shared_bytes: u64,
    pub(crate) durable_number: u64,
}

impl From<Stats> for StatsJson {
    fn from(of: Stats) -> Self {
        Self {
            buffered_bytes: of.buffered_bytes,
            buffered_ms: milliseconds(of.buffered_for),
            uploads_in_flight: of.uploads_in_flight,
            objects_written: of.objects_written,
            bytes_written: of.bytes_written,
            fetches: of.fetches,
            bytes_fetched: of.bytes_fetched,
            cache_hits: of.cache_hits,
            cache_misses: of.cache_misses,
            cache_bytes: of.cache_bytes,
            corrupt_reads: of.corrupt_reads,
            reloads: of.reloads,
            mended_regions: of.mended_regions,
            lost_regions: of.lost_regions,
            passed_over_objects: of.passed_over_objects,
            map_extents: of.map_extents,
            map_bytes: of.map_bytes,
            checkpoints: of.checkpoints,
            moved_bytes: of.moved_bytes,
            deleted_objects: of.deleted_objects,
            deleted_bytes: of.deleted_bytes,
            slowed_ms: milliseconds(of.slowed_for),
            log_objects: of.log_objects,
            log_bytes: of.log_bytes,
            dead_bytes: of.dead_bytes,
            live_bytes: of.live_bytes,
            shared_bytes: of.shared_bytes,
            durable_number: of.durable_number,
        }
    }
}

/// What was asked of the store, attempts that failed among it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StoreJson {
    pub(crate) puts: u64,
    pub(crate) put_bytes: u64,
    pub(crate) gets: u64,
    pub(crate) get_bytes: u64,
    pub(crate) lists: u64,
    pub(crate) deletes: u64,
    pub(crate) failures: u64,
}

impl From<RequestCounts> for StoreJson {
    fn from(of: RequestCounts) -> Self {
        let RequestCounts { puts, put_bytes, gets, get_bytes, lists, deletes, failures } = of;
        Self { puts, put_bytes, gets, get_bytes, lists, deletes, failures }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

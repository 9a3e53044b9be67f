//! `lsvd status`: what the daemons of this host do, asked through their control sockets.
//!
//! Knows the fields of docs/json.md. Without a URL no store is asked.

use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

use super::info::SCHEMA_VERSION;
use crate::cli::{self, ControlPlace};
use crate::control::client::{self, Client, Wanted};
use crate::control::daemon::{DaemonStatus, VolumeStatus};
use crate::control::protocol::{State, Status};
use crate::exit::Exit;
use crate::store::{self, Errand};
use crate::{output, units};

#[derive(Serialize)]
struct StatusJson {
    schema_version: u32,
    daemons: Vec<DaemonJson>,
}

/// A daemon that was asked.
#[derive(Serialize)]
pub(super) struct DaemonJson {
    socket: PathBuf,
    #[serde(flatten)]
    pub(super) status: DaemonStatus,
}

/// Runs the command.
///
/// # Errors
/// If no daemon of this host serves the volume, or the one that does can not be asked.
pub(crate) async fn run(arguments: cli::Status) -> anyhow::Result<Exit> {
    let at = ControlPlace { control: arguments.control.clone(), no_control: false };
    let daemons = match &arguments.url {
        None => ask_all(&at).await?,
        Some(url) => vec![ask_one(&at, url, &arguments.store, arguments.patience).await?],
    };
    if arguments.json {
        output::json(&StatusJson { schema_version: SCHEMA_VERSION, daemons })?;
        return Ok(Exit::Done);
    }
    match (&arguments.url, daemons.as_slice()) {
        (Some(_), [daemon]) => {
            for volume in &daemon.status.volumes {
                output::table(&["volume", &volume.name], &rows(daemon, volume))?;
            }
        }
        _ => {
            let heads = ["volume", "state", "size", "clients", "buffered", "log", "live", "daemon", "url"];
            output::table(&heads, &daemons.iter().flat_map(list).collect::<Vec<_>>())?;
        }
    }
    Ok(Exit::Done)
}

/// All daemons that are found.
pub(super) async fn ask_all(at: &ControlPlace) -> anyhow::Result<Vec<DaemonJson>> {
    let mut daemons = Vec::new();
    for client in client::all(at).await? {
        let socket = client.socket().to_owned();
        match ask(client, None).await {
            Ok(daemon) => daemons.push(daemon),
            Err(error) if at.control.as_ref() == Some(&socket) => return Err(error),
            // It ended meanwhile.
            Err(error) => tracing::warn!("{error:#}"),
        }
    }
    Ok(daemons)
}

/// The daemon that serves the volume at `url`, with that volume alone.
pub(super) async fn ask_one(
    at: &ControlPlace,
    url: &str,
    store: &cli::Store,
    patience: cli::Patience,
) -> anyhow::Result<DaemonJson> {
    let errand = Errand { verb: "read", create_root: false, patience: patience.timeout };
    let place = store::volume_or_bucket(url, store, errand)?;
    let identity = lsvd_volume::identify(&place.bucket).await;
    let identity = identity.with_context(|| format!("cannot read volume '{}'", place.name))?;
    let found = client::find(at, &identity, &place.url.to_string(), Wanted::Any).await?;
    match found {
        Some((client, volume)) => ask(client, Some(volume.volume_id)).await,
        None => Err(client::nobody(&place.name).into()),
    }
}

async fn ask(mut client: Client, volume: Option<String>) -> anyhow::Result<DaemonJson> {
    let status = client.ask(&Status { volume }, &|_| {}).await?;
    Ok(DaemonJson { socket: client.socket().to_owned(), status })
}

/// A daemon's volumes in a list.
fn list(daemon: &DaemonJson) -> Vec<Vec<String>> {
    let pid = daemon.status.pid.to_string();
    let opening = daemon.status.opening.iter().map(|name| {
        let unknown = || "-".to_owned();
        let mut row = vec![name.clone(), state(State::Opening).to_owned()];
        row.extend([unknown(), unknown(), unknown(), unknown(), unknown(), pid.clone(), unknown()]);
        row
    });
    let open = daemon.status.volumes.iter().map(|volume| {
        vec![
            volume.name.clone(),
            state_of(volume),
            units::bytes_exact(volume.size_bytes),
            volume.clients.to_string(),
            units::bytes_human(volume.stats.buffered_bytes),
            units::bytes_human(volume.stats.log_bytes),
            units::bytes_human(volume.stats.live_bytes),
            pid.clone(),
            volume.url.clone(),
        ]
    });
    opening.chain(open).collect()
}

fn state(state: State) -> &'static str {
    match state {
        State::Opening => "opening",
        State::Serving => "serving",
        State::Ended => "ended",
        State::Closing => "closing",
    }
}

pub(super) fn state_of(volume: &VolumeStatus) -> String {
    match (volume.state, volume.read_only) {
        (State::Serving, true) => "serving read-only".to_owned(),
        (other, _) => state(other).to_owned(),
    }
}

/// What a daemon does with a volume, in a line.
pub(super) fn in_short(volume: &VolumeStatus) -> String {
    format!("{}, {} clients, {}", state_of(volume), units::grouped(volume.clients), buffered(volume))
}

fn buffered(volume: &VolumeStatus) -> String {
    match volume.stats.buffered_bytes {
        0 => "all is in the store".to_owned(),
        bytes => format!(
            "{} for {:.1} s not in the store",
            units::bytes_human(bytes),
            std::time::Duration::from_millis(volume.stats.buffered_ms).as_secs_f64()
        ),
    }
}

fn shared(bytes: u64) -> String {
    match bytes {
        0 => "nothing: it is no clone, or has all itself".to_owned(),
        bytes => format!("{} of what is live are its parent's", units::bytes_human(bytes)),
    }
}

fn rows(daemon: &DaemonJson, volume: &VolumeStatus) -> Vec<Vec<String>> {
    let stats = &volume.stats;
    let status = &daemon.status;
    let up = std::time::Duration::from_millis(status.uptime_ms).as_secs();
    let flush = match &volume.journal {
        Some(journal) => format!("when journal {journal} has it; the store follows"),
        None => "when the store has it".to_owned(),
    };
    let writers =
        if volume.unsafe_single_writer { "ONE ONLY, by the user's word" } else { "fenced by epoch" };
    let recovery = &volume.recovery;
    let mut rows = vec![
        ("url", volume.url.clone()),
        ("identity", volume.volume_id.clone()),
        ("daemon", format!("process {}, for {} s, lsvd {}", status.pid, units::grouped(up), status.version)),
        ("socket", daemon.socket.display().to_string()),
        ("state", state_of(volume)),
        ("size", units::bytes_exact(volume.size_bytes)),
        ("clients", units::grouped(volume.clients)),
        ("buffered", buffered(volume)),
        ("uploads", format!("{} in flight", stats.uploads_in_flight)),
        (
            "written",
            format!(
                "{} in {} objects",
                units::bytes_human(stats.bytes_written),
                units::grouped(stats.objects_written)
            ),
        ),
        (
            "fetched",
            format!("{} in {} GETs", units::bytes_human(stats.bytes_fetched), units::grouped(stats.fetches)),
        ),
        (
            "log",
            format!(
                "{} in {} objects, {} live",
                units::bytes_human(stats.log_bytes),
                units::grouped(stats.log_objects),
                units::bytes_human(stats.live_bytes)
            ),
        ),
        ("shared", shared(stats.shared_bytes)),
        ("moved", units::bytes_human(stats.moved_bytes)),
        ("checkpoints", units::grouped(stats.checkpoints)),
        ("map", units::bytes_human(stats.map_bytes)),
        (
            "opened with",
            format!(
                "{} objects read, {} archived, {} records of the journal",
                units::grouped(recovery.objects_processed),
                units::grouped(recovery.objects_archived),
                units::grouped(recovery.journal_records)
            ),
        ),
        ("epoch", volume.epoch.to_string()),
        ("flush", flush),
        ("writers", writers.to_owned()),
    ];
    if let Some(error) = &volume.error {
        rows.push(("error", error.clone()));
    }
    rows.into_iter().map(|(head, words)| vec![head.to_owned(), words]).collect()
}

//! `lsvd snapshot`: makes, lists and removes snapshots of a volume that nobody serves.
//!
//! Knows the order: take over with courtesy, act, close. What a snapshot is, the volume's library decides.

use anyhow::Context;
use lsvd_volume::{Error, OpenOptions, Retention, Snapshot, Volume};
use serde::Serialize;

use super::info::SCHEMA_VERSION;
use crate::cli::{Keeping, SnapshotAct, SnapshotCreate, SnapshotLs, SnapshotRm};
use crate::exit::Exit;
use crate::store::{self, Errand, Place};
use crate::{output, units};

/// The snapshots of a volume.
#[derive(Serialize)]
struct SnapshotsJson {
    schema_version: u32,
    name: String,
    url: String,
    history_ms: u64,
    snapshots: Vec<SnapshotJson>,
}

/// What was changed.
#[derive(Serialize)]
struct ChangedJson {
    schema_version: u32,
    name: String,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<SnapshotJson>,
    removed: Vec<String>,
}

#[derive(Serialize)]
struct SnapshotJson {
    name: String,
    as_of: u64,
    size_bytes: u64,
    created_unix_ms: u64,
    automatic: bool,
}

impl From<&Snapshot> for SnapshotJson {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            name: snapshot.name.clone(),
            as_of: snapshot.as_of.0,
            size_bytes: snapshot.size_bytes,
            created_unix_ms: snapshot.created_unix_ms,
            automatic: snapshot.automatic,
        }
    }
}

/// Runs `lsvd snapshot`.
///
/// # Errors
/// If the volume seems to be in use, there is no such snapshot, or the store refuses.
pub(crate) async fn run(arguments: crate::cli::Snapshot) -> anyhow::Result<Exit> {
    match arguments.act {
        SnapshotAct::Create(arguments) => create(arguments).await,
        SnapshotAct::Ls(arguments) => list(arguments).await,
        SnapshotAct::Rm(arguments) => remove(arguments).await,
    }
}

async fn list(arguments: SnapshotLs) -> anyhow::Result<Exit> {
    let errand = Errand { verb: "read", create_root: false, patience: arguments.patience.timeout };
    let place = store::volume_or_bucket(&arguments.url, &arguments.store, errand)?;
    let listed = lsvd_volume::snapshots(&place.bucket).await;
    let (snapshots, history_ms) = listed.with_context(|| format!("cannot read volume '{}'", place.name))?;
    if arguments.json {
        let (name, url) = (place.name, place.url.to_string());
        let snapshots = snapshots.iter().map(SnapshotJson::from).collect();
        output::json(&SnapshotsJson { schema_version: SCHEMA_VERSION, name, url, history_ms, snapshots })?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = snapshots.iter().map(row).collect();
    output::table(&["snapshot", "made", "number", "size", "by"], &rows)?;
    Ok(Exit::Done)
}

fn row(snapshot: &Snapshot) -> Vec<String> {
    vec![
        snapshot.name.clone(),
        units::utc(snapshot.created_unix_ms),
        snapshot.as_of.to_string(),
        units::bytes_exact(snapshot.size_bytes),
        if snapshot.automatic { "itself".to_owned() } else { "a person".to_owned() },
    ]
}

async fn create(arguments: SnapshotCreate) -> anyhow::Result<Exit> {
    let SnapshotCreate { url, name, keep, common } = arguments;
    if let Some(name) = &name {
        lsvd_volume::check_snapshot_name(name).map_err(Error::Invalid)?;
    }
    changed(&url, &common, async |volume| match &name {
        Some(name) => Ok((Some(volume.create_snapshot(name, false).await?), Vec::new())),
        None => {
            let done = volume.snapshot_by_schedule(&keep.unwrap_or_else(Retention::default)).await?;
            Ok((done.created, done.removed))
        }
    })
    .await
}

async fn remove(arguments: SnapshotRm) -> anyhow::Result<Exit> {
    let SnapshotRm { url, names, common } = arguments;
    changed(&url, &common, async |volume| {
        for name in &names {
            volume.remove_snapshot(name).await?;
        }
        Ok((None, names.clone()))
    })
    .await
}

/// Opens the volume with courtesy, changes its snapshots, closes it, and says what was done.
async fn changed(
    url: &str,
    common: &Keeping,
    act: impl AsyncFnOnce(&Volume) -> Result<(Option<Snapshot>, Vec<String>), Error>,
) -> anyhow::Result<Exit> {
    let errand = Errand { verb: "open", create_root: false, patience: common.patience.timeout };
    let place = store::volume_or_bucket(url, &common.store, errand)?;
    let options = OpenOptions {
        io_timeout: common.patience.timeout,
        if_free: Some(common.if_free),
        unsafe_single_writer: common.unsafe_single_writer,
        ..OpenOptions::default()
    };
    let opened = Volume::open(place.bucket.clone(), options).await;
    let volume = opened.with_context(|| format!("cannot open volume '{}'", place.name))?;
    let acted = act(&volume).await;
    let closed = volume.close().await;
    let (created, removed) =
        acted.with_context(|| format!("cannot change the snapshots of volume '{}'", place.name))?;
    closed.with_context(|| format!("cannot close volume '{}' cleanly", place.name))?;
    tell(&place, common.json, created.as_ref(), removed)
}

fn tell(place: &Place, json: bool, created: Option<&Snapshot>, removed: Vec<String>) -> anyhow::Result<Exit> {
    if json {
        let (name, url) = (place.name.clone(), place.url.to_string());
        let created = created.map(SnapshotJson::from);
        output::json(&ChangedJson { schema_version: SCHEMA_VERSION, name, url, created, removed })?;
        return Ok(Exit::Done);
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    match created {
        Some(made) => rows.push(vec!["made".to_owned(), made.name.clone()]),
        None if removed.is_empty() => {
            rows.push(vec!["unchanged".to_owned(), "since the newest snapshot".to_owned()])
        }
        None => {}
    }
    rows.extend(removed.into_iter().map(|name| vec!["removed".to_owned(), name]));
    output::table(&["snapshots of", &place.name], &rows)?;
    Ok(Exit::Done)
}

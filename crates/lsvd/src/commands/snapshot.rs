//! `lsvd snapshot`: makes, lists and removes snapshots.
//!
//! Knows the order: the daemon of this host that serves the volume is asked; where there is none, take over with courtesy, act,
//! close. A group is one daemon's alone. What a snapshot is, the volume's library decides.

use anyhow::Context;
use lsvd_volume::{Error, Snapshot, Volume};
use serde::Serialize;

use super::info::SCHEMA_VERSION;
use crate::cli::{ControlPlace, Keeping, SnapshotAct, SnapshotCreate, SnapshotGroup, SnapshotLs, SnapshotRm};
use crate::clones::Reach;
use crate::control::ask;
use crate::control::client::{Client, nobody};
use crate::control::protocol;
use crate::exit::{Exit, Usage};
use crate::snapshots::{self, ChangedSnapshots, SnapshotJson};
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

/// What was changed, and by whom.
#[derive(Serialize)]
struct ChangedJson {
    schema_version: u32,
    name: String,
    url: String,
    #[serde(flatten)]
    changed: ChangedSnapshots,
    through: &'static str,
}

/// One moment of several volumes.
#[derive(Serialize)]
struct GroupJson {
    schema_version: u32,
    name: String,
    volumes: Vec<GroupedJson>,
}

#[derive(Serialize)]
struct GroupedJson {
    name: String,
    url: String,
    snapshot: SnapshotJson,
}

/// Runs `lsvd snapshot`.
///
/// # Errors
/// If the volume seems to be in use by a daemon that can not be asked, there is no such snapshot, or the store refuses.
pub(crate) async fn run(arguments: crate::cli::Snapshot) -> anyhow::Result<Exit> {
    match arguments.act {
        SnapshotAct::Create(arguments) => create(arguments).await,
        SnapshotAct::Group(arguments) => group(arguments).await,
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
    output::table(&["snapshot", "made", "number", "size", "by or for"], &rows)?;
    Ok(Exit::Done)
}

fn row(snapshot: &Snapshot) -> Vec<String> {
    vec![
        snapshot.name.clone(),
        units::utc(snapshot.created_unix_ms),
        snapshot.as_of.to_string(),
        units::bytes_exact(snapshot.size_bytes),
        match (&snapshot.clone, snapshot.automatic) {
            (Some(clone), _) => format!("the clone at {}", clone.path),
            (None, true) => "itself".to_owned(),
            (None, false) => "a person".to_owned(),
        },
    ]
}

async fn create(arguments: SnapshotCreate) -> anyhow::Result<Exit> {
    let SnapshotCreate { url, name, keep, common } = arguments;
    if let Some(name) = &name {
        lsvd_volume::check_snapshot_name(name).map_err(Error::Invalid)?;
    }
    let place = place(&url, &common)?;
    let asked = ask::writer(&place, &common.control, |volume| protocol::SnapshotCreate {
        volume,
        name: name.clone(),
        keep: keep.map(Into::into),
    });
    let done = match asked.await? {
        Some(changed) => (changed, "daemon"),
        None => {
            let act = async |volume: &Volume| {
                snapshots::create(volume, name.as_deref(), keep.unwrap_or_default()).await
            };
            (Reach::from(&common).take_over(&place, act).await?, "store")
        }
    };
    tell(place, done, common.json)
}

async fn remove(arguments: SnapshotRm) -> anyhow::Result<Exit> {
    let SnapshotRm { url, names, force, common } = arguments;
    let place = place(&url, &common)?;
    let asked = ask::writer(&place, &common.control, |volume| protocol::SnapshotRm {
        volume,
        names: names.clone(),
        force,
    });
    let done = match asked.await? {
        Some(changed) => (changed, "daemon"),
        None => {
            let act = async |volume: &Volume| snapshots::remove(volume, &names, force).await;
            (Reach::from(&common).take_over(&place, act).await?, "store")
        }
    };
    tell(place, done, common.json)
}

fn place(url: &str, common: &Keeping) -> anyhow::Result<Place> {
    let errand = Errand { verb: "open", create_root: false, patience: common.patience.timeout };
    store::volume_or_bucket(url, &common.store, errand)
}

/// Has one daemon name one moment of all volumes: without it there is no moment that all of them have.
async fn group(arguments: SnapshotGroup) -> anyhow::Result<Exit> {
    let SnapshotGroup { name, urls, control, json, lines: _, patience, store } = arguments;
    lsvd_volume::check_snapshot_name(&name).map_err(Error::Invalid)?;
    let control = ControlPlace { control, no_control: false };
    let mut places = Vec::new();
    let mut volumes = Vec::new();
    let mut daemon: Option<Client> = None;
    for url in &urls {
        let errand = Errand { verb: "open", create_root: false, patience: patience.timeout };
        let place = store::volume_or_bucket(url, &store, errand)?;
        let Some((found, served)) = ask::found(&place, &control).await? else {
            return Err(anyhow::Error::new(nobody(&place.name))
                .context("a group snapshot is made by the one daemon that serves all its volumes"));
        };
        match &daemon {
            Some(first) if first.greeting.pid != found.greeting.pid => {
                return Err(Usage(format!(
                    "a group snapshot is made by the one daemon that serves all its volumes, and volume '{}' is served by another \
                     one than '{}'",
                    place.name,
                    urls[0]
                ))
                .into());
            }
            Some(_) => {}
            None => daemon = Some(found),
        }
        volumes.push(served.volume_id);
        places.push(place);
    }
    let (Some(mut daemon), Some(first)) = (daemon, places.first()) else {
        return Err(Usage("a group has volumes".to_owned()).into());
    };
    ask::say(first, &daemon);
    let asked = protocol::SnapshotGroup { volumes, name: name.clone() };
    let made = daemon.ask(&asked, &|_| {}).await?.snapshots;
    if json {
        let volumes = places.iter().zip(made).map(|(place, snapshot)| GroupedJson {
            name: place.name.clone(),
            url: place.url.to_string(),
            snapshot,
        });
        output::json(&GroupJson { schema_version: SCHEMA_VERSION, name, volumes: volumes.collect() })?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> =
        places.iter().zip(made).map(|(place, of)| vec![place.name.clone(), of.as_of.to_string()]).collect();
    output::table(&[&name, "number"], &rows)?;
    Ok(Exit::Done)
}

fn tell(
    place: Place,
    (changed, through): (ChangedSnapshots, &'static str),
    json: bool,
) -> anyhow::Result<Exit> {
    if json {
        let (name, url) = (place.name, place.url.to_string());
        output::json(&ChangedJson { schema_version: SCHEMA_VERSION, name, url, changed, through })?;
        return Ok(Exit::Done);
    }
    let ChangedSnapshots { created, removed } = changed;
    let mut rows: Vec<Vec<String>> = Vec::new();
    match created {
        Some(made) => rows.push(vec!["made".to_owned(), made.name]),
        None if removed.is_empty() => {
            rows.push(vec!["unchanged".to_owned(), "since the newest snapshot".to_owned()])
        }
        None => {}
    }
    rows.extend(removed.into_iter().map(|name| vec!["removed".to_owned(), name]));
    output::table(&["snapshots of", &place.name], &rows)?;
    Ok(Exit::Done)
}

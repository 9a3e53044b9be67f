//! `lsvd gc` and `lsvd upgrade`: what a daemon does behind its clients, to its end, when somebody asks.
//!
//! Knows the order: the daemon of this host that serves the volume is asked; where there is none, take over with courtesy,
//! collect, close. What is garbage, the volume's library decides. Invariant: with `--dry-run` nothing is written.

use anyhow::Context;
use lsvd_volume::{CollectionGoal, Error, ObjectFormat, OpenOptions, UpkeepOptions, Volume};
use serde::Serialize;

use super::info::SCHEMA_VERSION;
use crate::cli::{Collecting, Gc, Upgrade};
use crate::collection::{self, CollectionJson};
use crate::control::protocol::{self, GcTarget, Off};
use crate::control::{ask, place};
use crate::exit::Exit;
use crate::store::{self, Errand, Place};
use crate::{output, units};

/// What was or would be given back, and by whom.
#[derive(Serialize)]
struct GcJson {
    schema_version: u32,
    name: String,
    url: String,
    #[serde(flatten)]
    collection: CollectionJson,
    through: &'static str,
}

/// Runs `lsvd gc`.
///
/// # Errors
/// If the volume seems to be in use by a daemon that can not be asked, or the store refuses. What was given back until then
/// stays so.
pub(crate) async fn gc(arguments: Gc) -> anyhow::Result<Exit> {
    let goal = CollectionGoal::Target(arguments.target);
    run(&arguments.url, &arguments.common, ("collect", goal), arguments.dry_run).await
}

/// Runs `lsvd upgrade`.
///
/// # Errors
/// As for [`gc`]; also if the volume goes on in format 1.
pub(crate) async fn upgrade(arguments: Upgrade) -> anyhow::Result<Exit> {
    let goal = CollectionGoal::Format2;
    run(&arguments.url, &arguments.common, ("upgrade", goal), arguments.dry_run).await
}

async fn run(
    url: &str,
    common: &Collecting,
    (verb, goal): (&'static str, CollectionGoal),
    dry_run: bool,
) -> anyhow::Result<Exit> {
    let errand = Errand { verb, create_root: false, patience: common.patience.timeout };
    let place = store::volume_or_bucket(url, &common.store, errand)?;
    let (collection, through) = match ask(&place, common, goal, dry_run).await? {
        Some(collection) => (collection, "daemon"),
        None if dry_run => (plan(&place, goal).await?, "store"),
        None => (collect(&place, common, goal).await?, "store"),
    };
    let (name, url) = (place.name, place.url.to_string());
    tell(&GcJson { schema_version: SCHEMA_VERSION, name, url, collection, through }, common.json)
}

/// Has it done by the daemon of this host that has the volume open for writing; `None` if there is none.
async fn ask(
    place: &Place,
    common: &Collecting,
    goal: CollectionGoal,
    dry_run: bool,
) -> anyhow::Result<Option<CollectionJson>> {
    match goal {
        CollectionGoal::Target(target) => {
            let target = if target.is_finite() { GcTarget::Ratio(target) } else { GcTarget::Off(Off::Off) };
            let gc = |volume| protocol::Gc { volume, dry_run, target: Some(target) };
            ask::writer(place, &common.control, gc).await
        }
        CollectionGoal::Format2 => {
            ask::writer(place, &common.control, |volume| protocol::Upgrade { volume, dry_run }).await
        }
    }
}

/// What would come back.
async fn plan(place: &Place, goal: CollectionGoal) -> anyhow::Result<CollectionJson> {
    let opened = Volume::open_read_only(place.bucket.clone(), OpenOptions::default()).await;
    let volume = opened.with_context(|| format!("cannot read volume '{}'", place.name))?;
    collection::planned(&volume, &place.name, goal)
}

async fn collect(place: &Place, common: &Collecting, goal: CollectionGoal) -> anyhow::Result<CollectionJson> {
    let info = lsvd_volume::inspect(&place.bucket).await;
    let info = info.with_context(|| format!("cannot read volume '{}'", place.name))?;
    let appends = info.log_layout.map_or(ObjectFormat::V2, |layout| layout.append_format);
    collection::refuse_format_1(appends, &place.name)?;
    let options = OpenOptions {
        io_timeout: common.patience.timeout,
        if_free: Some(common.if_free),
        unsafe_single_writer: common.unsafe_single_writer,
        handover: place::handover_that_is_there(None),
        upkeep: UpkeepOptions { delete_after: common.delete_after, ..UpkeepOptions::default() },
        ..OpenOptions::default()
    };
    let volume = Volume::open(place.bucket.clone(), options).await.map_err(|error| {
        let in_use = matches!(error, Error::InUse { .. });
        anyhow::Error::new(error).context(match in_use {
            true => format!(
                "volume '{}' seems to be served by a daemon that can not be asked here, and a daemon collects by itself",
                place.name
            ),
            false => format!("cannot open volume '{}'", place.name),
        })
    })?;
    let step = |step| tracing::info!(volume = place.name, "{}", collection::step_in_words(step));
    let collected = collection::collected(&volume, &place.name, goal, &step).await;
    let closed = volume.close().await;
    let collected = collected?;
    closed.with_context(|| format!("cannot close volume '{}' cleanly", place.name))?;
    Ok(collected)
}

fn tell(told: &GcJson, json: bool) -> anyhow::Result<Exit> {
    if json {
        output::json(told)?;
        return Ok(Exit::Done);
    }
    let (name, told) = (&told.name, &told.collection);
    let bytes_in =
        |bytes, objects| format!("{} in {} objects", units::bytes_human(bytes), units::grouped(objects));
    let (collected, moved, deleted, after) = match told.dry_run {
        true => ("would be collected", "would be moved", "would be deleted", "log then, about"),
        false => ("collected", "moved", "deleted", "log now"),
    };
    let mut rows = vec![
        (collected, bytes_in(told.victim_bytes, told.victims)),
        (moved, units::bytes_human(told.moved_bytes)),
        (deleted, bytes_in(told.deleted_bytes, told.deleted_objects)),
        ("log before", units::bytes_human(told.log_bytes_before)),
        (after, units::bytes_human(told.log_bytes_after)),
        ("live", units::bytes_human(told.live_bytes)),
    ];
    match told.format_1_blocks_left {
        Some(0) => rows.push(("format 1", "nothing that is live is left in it".to_owned())),
        Some(blocks) => rows.push((
            "format 1",
            format!(
                "{} blocks are left in object 0, which none can move: write them anew through the device",
                units::grouped(blocks)
            ),
        )),
        None => {}
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(head, words)| vec![head.to_owned(), words]).collect();
    output::table(&["volume", name], &rows)?;
    Ok(Exit::Done)
}

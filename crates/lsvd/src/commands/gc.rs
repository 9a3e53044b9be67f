//! `lsvd gc` and `lsvd upgrade`: what a daemon does behind its clients, for a volume that nobody serves, and to its end.
//!
//! Knows the order: take over with courtesy, collect, close. What is garbage, the volume's library decides. Invariant: with
//! `--dry-run` nothing is written.

use anyhow::Context;
use lsvd_volume::{
    CollectionGoal, Error, Garbage, GivenBack, ObjectFormat, OpenOptions, UpkeepOptions, Volume,
};
use serde::Serialize;

use super::info::SCHEMA_VERSION;
use crate::cli::{Collecting, Gc, Upgrade};
use crate::exit::Exit;
use crate::store::{self, Errand, Place};
use crate::{output, units};

/// What was or would be given back.
#[derive(Serialize)]
struct GcJson {
    schema_version: u32,
    name: String,
    url: String,
    dry_run: bool,
    victims: u64,
    victim_bytes: u64,
    moved_bytes: u64,
    deleted_objects: u64,
    deleted_bytes: u64,
    log_bytes_before: u64,
    log_bytes_after: u64,
    live_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    format_1_blocks_left: Option<u64>,
}

/// Runs `lsvd gc`.
///
/// # Errors
/// If the volume seems to be in use, or the store refuses. What was given back until then stays so.
pub(crate) async fn gc(arguments: Gc) -> anyhow::Result<Exit> {
    let place = place(&arguments.url, &arguments.common, "collect")?;
    let goal = CollectionGoal::Target(arguments.target);
    let told = match arguments.dry_run {
        true => plan(&place, goal).await?,
        false => collect(&place, &arguments.common, goal).await?,
    };
    tell(&told, arguments.common.json)
}

/// Runs `lsvd upgrade`.
///
/// # Errors
/// As for [`gc`]; also if the volume goes on in format 1.
pub(crate) async fn upgrade(arguments: Upgrade) -> anyhow::Result<Exit> {
    let place = place(&arguments.url, &arguments.common, "upgrade")?;
    let told = match arguments.dry_run {
        true => plan(&place, CollectionGoal::Format2).await?,
        false => collect(&place, &arguments.common, CollectionGoal::Format2).await?,
    };
    tell(&told, arguments.common.json)
}

fn place(url: &str, common: &Collecting, verb: &'static str) -> anyhow::Result<Place> {
    let errand = Errand { verb, create_root: false, patience: common.patience.timeout };
    store::volume_or_bucket(url, &common.store, errand)
}

/// What would come back.
async fn plan(place: &Place, goal: CollectionGoal) -> anyhow::Result<GcJson> {
    let opened = Volume::open_read_only(place.bucket.clone(), OpenOptions::default()).await;
    let volume = opened.with_context(|| format!("cannot read volume '{}'", place.name))?;
    refuse_format_1(volume.description().append_format, place)?;
    let (found, stats) = (volume.garbage(goal), volume.stats());
    let Garbage { dead_objects, dead_bytes, victims, victim_bytes, move_bytes } = found;
    Ok(GcJson {
        dry_run: true,
        victims,
        victim_bytes,
        moved_bytes: move_bytes,
        deleted_objects: dead_objects + victims,
        deleted_bytes: dead_bytes + victim_bytes,
        log_bytes_before: stats.log_bytes,
        log_bytes_after: stats.log_bytes.saturating_sub(found.frees_bytes()),
        live_bytes: stats.live_bytes,
        ..GcJson::of(place)
    })
}

async fn collect(place: &Place, common: &Collecting, goal: CollectionGoal) -> anyhow::Result<GcJson> {
    let info = lsvd_volume::inspect(&place.bucket).await;
    let info = info.with_context(|| format!("cannot read volume '{}'", place.name))?;
    refuse_format_1(info.log_layout.map_or(ObjectFormat::V2, |layout| layout.append_format), place)?;
    let options = OpenOptions {
        io_timeout: common.patience.timeout,
        if_free: Some(common.if_free),
        unsafe_single_writer: common.unsafe_single_writer,
        upkeep: UpkeepOptions { delete_after: common.delete_after, ..UpkeepOptions::default() },
        ..OpenOptions::default()
    };
    let volume = Volume::open(place.bucket.clone(), options).await.map_err(|error| {
        let in_use = matches!(error, Error::InUse { .. });
        anyhow::Error::new(error).context(match in_use {
            true => format!("volume '{}' seems to be served, and a daemon collects by itself", place.name),
            false => format!("cannot open volume '{}'", place.name),
        })
    })?;
    let before = volume.stats();
    let collected = volume.collect_garbage(goal).await;
    let collected = collected.with_context(|| format!("cannot collect volume '{}' to the end", place.name));
    let after = volume.stats();
    let closed = volume.close().await;
    let GivenBack { collected, deleted_objects, deleted_bytes, format_1_blocks_left } = collected?;
    closed.with_context(|| format!("cannot close volume '{}' cleanly", place.name))?;
    Ok(GcJson {
        victims: collected.objects,
        victim_bytes: collected.object_bytes,
        moved_bytes: collected.moved_bytes,
        deleted_objects,
        deleted_bytes,
        log_bytes_before: before.log_bytes,
        log_bytes_after: after.log_bytes,
        live_bytes: after.live_bytes,
        format_1_blocks_left: (goal == CollectionGoal::Format2).then_some(format_1_blocks_left),
        ..GcJson::of(place)
    })
}

/// A log that goes on in format 1 has no checkpoints, and so nothing of it is ever deleted.
fn refuse_format_1(appends: ObjectFormat, place: &Place) -> anyhow::Result<()> {
    if appends == ObjectFormat::V2 {
        return Ok(());
    }
    let what = format!(
        "volume '{}' writes its log in format 1, for good, and nothing of such a log is collected; to leave that format, \
         create another volume and copy this one into it, both served",
        place.name
    );
    Err(Error::Invalid(what).into())
}

impl GcJson {
    fn of(place: &Place) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            name: place.name.clone(),
            url: place.url.to_string(),
            dry_run: false,
            victims: 0,
            victim_bytes: 0,
            moved_bytes: 0,
            deleted_objects: 0,
            deleted_bytes: 0,
            log_bytes_before: 0,
            log_bytes_after: 0,
            live_bytes: 0,
            format_1_blocks_left: None,
        }
    }
}

fn tell(told: &GcJson, json: bool) -> anyhow::Result<Exit> {
    if json {
        output::json(told)?;
        return Ok(Exit::Done);
    }
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
    output::table(&["volume", &told.name], &rows)?;
    Ok(Exit::Done)
}

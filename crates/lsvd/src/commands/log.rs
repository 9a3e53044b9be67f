//! `lsvd log`: the objects of a volume's log, oldest first.
//!
//! Knows the list of docs/json.md. Invariant: nothing is written, and what is damaged is listed with the others.

use anyhow::Context;
use lsvd_volume::{LogEntry, LogKind, ObjectFormat};
use serde::Serialize;

use super::info::SCHEMA_VERSION;
use crate::cli::Log;
use crate::exit::Exit;
use crate::store::{self, Errand};
use crate::{output, units};

#[derive(Serialize)]
struct LogJson {
    schema_version: u32,
    name: String,
    url: String,
    objects: Vec<ObjectJson>,
}

#[derive(Serialize)]
struct ObjectJson {
    number: u64,
    kind: &'static str,
    format: Option<u8>,
    epoch: Option<u64>,
    object_bytes: u64,
    sealed_unix_ms: Option<u64>,
    payload_blocks: u64,
    live_blocks: Option<u64>,
    condemned: bool,
    stray: bool,
    checkpoint: bool,
    branch: bool,
    snapshots: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// If there is no volume, or what describes it can not be read.
pub(crate) async fn run(arguments: Log) -> anyhow::Result<Exit> {
    let errand = Errand { verb: "read", create_root: false, patience: arguments.patience.timeout };
    let place = store::volume_or_bucket(&arguments.url, &arguments.store, errand)?;
    let log = lsvd_volume::list_log(&place.bucket, arguments.last)
        .await
        .with_context(|| format!("cannot read the log of volume '{}'", place.name))?;
    if arguments.json {
        let objects = log.iter().map(object).collect();
        let (name, url) = (place.name, place.url.to_string());
        output::json(&LogJson { schema_version: SCHEMA_VERSION, name, url, objects })?;
    } else {
        let rows: Vec<Vec<String>> = log.iter().map(row).collect();
        output::table(&["number", "kind", "epoch", "bytes", "live", "sealed", "remarks"], &rows)?;
    }
    Ok(Exit::Done)
}

fn kind_name(kind: LogKind) -> &'static str {
    match kind {
        LogKind::Data => "data",
        LogKind::Relocation => "relocation",
        LogKind::Fence => "fence",
        LogKind::Zeroes => "zeroes",
        LogKind::Empty => "empty",
        LogKind::Damaged => "damaged",
    }
}

fn object(entry: &LogEntry) -> ObjectJson {
    ObjectJson {
        number: entry.number.0,
        kind: kind_name(entry.kind),
        format: entry.format.map(u8::from),
        epoch: entry.epoch.map(|epoch| epoch.0),
        object_bytes: entry.object_bytes,
        sealed_unix_ms: entry.sealed_unix_ms,
        payload_blocks: entry.payload_blocks,
        live_blocks: entry.live_blocks,
        condemned: entry.condemned,
        stray: entry.stray,
        checkpoint: entry.checkpoint,
        branch: entry.branch,
        snapshots: entry.snapshots.clone(),
    }
}

fn row(entry: &LogEntry) -> Vec<String> {
    let nothing = || "-".to_owned();
    let live = match (entry.live_blocks, entry.payload_blocks) {
        (Some(live), payload @ 1..) => format!("{} %", live * 100 / payload),
        _ => nothing(),
    };
    let remarks = [
        (entry.format == Some(ObjectFormat::V1), "format 1"),
        (entry.condemned, "condemned"),
        (entry.stray, "no part of the log"),
        (entry.branch, "left by a rollback"),
        (entry.checkpoint, "checkpoint"),
    ];
    let mut remarks: Vec<String> =
        remarks.into_iter().filter(|(is, _)| *is).map(|(_, words)| words.to_owned()).collect();
    remarks.extend(entry.snapshots.iter().map(|name| format!("snapshot {name}")));
    vec![
        entry.number.to_string(),
        kind_name(entry.kind).to_owned(),
        entry.epoch.map_or_else(nothing, |epoch| epoch.to_string()),
        units::grouped(entry.object_bytes),
        live,
        entry.sealed_unix_ms.map_or_else(nothing, units::utc),
        remarks.join(", "),
    ]
}

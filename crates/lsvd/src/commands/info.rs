//! `lsvd info`: what a volume is, as its objects say; and the form in which volumes are described in JSON.
//!
//! Knows the fields of docs/json.md. Invariants: nothing is written to find out; a field of the JSON is never
//! renamed, removed or given another meaning under the same `schema_version`.

use std::path::Path;

use anyhow::Context;
use lsvd_backend::BucketUrl;
use lsvd_volume::{
    CheckpointInfo, CloneInfo, Identity, JournalLag, Moment, MomentInfo, ObjectFormat, Parent, VolumeInfo,
    inspect_at, journal_lag,
};
use serde::{Deserialize, Serialize};

use super::status;
use crate::cli::{ControlPlace, Info};
use crate::control::client::{self, Wanted};
use crate::control::daemon::VolumeStatus;
use crate::control::protocol::Status;
use crate::exit::{self, Exit, Usage};
use crate::store::{self, Errand, Place};
use crate::{output, units};

/// Which edition of docs/json.md the printed JSON keeps to.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// A volume in JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VolumeJson {
    name: String,
    url: String,
    volume_id: String,
    size_bytes: u64,
    epoch: u64,
    writer_id: String,
    superblock: u64,
    window: u64,
    unsafe_single_writer: bool,
    log_format: u8,
    format_1_log: Option<Format1Json>,
    closed_cleanly: bool,
    durable_number: Option<u64>,
    log_objects: u64,
    log_bytes: u64,
    live_bytes: u64,
    bucket_bytes: u64,
    checkpoints: Vec<CheckpointJson>,
    tail_objects: u64,
    condemned_objects: u64,
    condemned_bytes: u64,
    written_unix_ms: u64,
    flush: String,
    journal: Option<String>,
    stored_unix_ms: Option<u64>,
    /// The nearest last.
    #[serde(default)]
    parents: Vec<ParentJson>,
    #[serde(default)]
    shared_bytes: u64,
    #[serde(default)]
    clones: Vec<CloneJson>,
}

/// A volume with which a clone shares objects.
#[derive(Debug, Serialize, Deserialize)]
struct ParentJson {
    volume_id: String,
    path: String,
    as_of: u64,
}

/// A clone that shares objects with the volume.
#[derive(Debug, Serialize, Deserialize)]
struct CloneJson {
    volume_id: String,
    path: String,
    as_of: u64,
    snapshot: String,
}

/// A log that has objects of format 1.
#[derive(Debug, Serialize, Deserialize)]
struct Format1Json {
    prefix: String,
    first_number: u64,
    name_digits: u8,
}

/// A kept checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct CheckpointJson {
    as_of: u64,
    stored_unix_ms: Option<i64>,
}

impl VolumeJson {
    /// Describes the volume `name` at `url`.
    pub(crate) fn new(name: &str, url: &str, info: &VolumeInfo) -> Self {
        Self {
            name: name.to_owned(),
            url: url.to_owned(),
            volume_id: info.volume_id.to_string(),
            size_bytes: info.size_bytes,
            epoch: info.epoch.0,
            writer_id: info.writer_id.to_string(),
            superblock: info.superblock.0,
            window: info.window,
            unsafe_single_writer: info.unsafe_single_writer,
            log_format: append_format(info).into(),
            format_1_log: info.log_layout.as_ref().map(|layout| Format1Json {
                prefix: layout.prefix.clone(),
                first_number: info.log_first_number.0,
                name_digits: layout.name_digits,
            }),
            closed_cleanly: info.closed_cleanly,
            durable_number: info.durable_number.map(|number| number.0),
            log_objects: info.log_objects,
            log_bytes: info.log_bytes,
            live_bytes: info.live_bytes,
            bucket_bytes: info.bucket_bytes,
            checkpoints: info.checkpoints.iter().map(checkpoint).collect(),
            tail_objects: info.tail_objects,
            condemned_objects: info.condemned_objects,
            condemned_bytes: info.condemned_bytes,
            written_unix_ms: info.written_unix_ms,
            flush: flush(info).to_owned(),
            journal: info.journal.map(|journal| journal.to_string()),
            stored_unix_ms: info.last_data.map(|last| last.sealed_unix_ms),
            parents: info.parents.iter().map(parent).collect(),
            shared_bytes: info.shared_bytes,
            clones: info.clones.iter().map(clone).collect(),
        }
    }
}

fn parent(of: &Parent) -> ParentJson {
    ParentJson { volume_id: of.volume_id.to_string(), path: of.path.clone(), as_of: of.as_of.0 }
}

fn clone(of: &CloneInfo) -> CloneJson {
    CloneJson {
        volume_id: of.volume_id.to_string(),
        path: of.path.clone(),
        as_of: of.as_of.0,
        snapshot: of.snapshot.clone(),
    }
}

fn checkpoint(of: &CheckpointInfo) -> CheckpointJson {
    CheckpointJson { as_of: of.as_of.0, stored_unix_ms: of.stored_unix_ms }
}

#[derive(Serialize)]
struct InfoJson {
    schema_version: u32,
    #[serde(flatten)]
    volume: VolumeJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal_only: Option<JournalJson>,
    daemon: Option<VolumeStatus>,
}

/// What only a journal holds.
#[derive(Serialize)]
struct JournalJson {
    journal: String,
    records: u64,
    bytes: u64,
}

/// Runs the command.
///
/// # Errors
/// If there is no volume, or what describes it can not be read.
pub(crate) async fn run(arguments: Info) -> anyhow::Result<Exit> {
    let errand = Errand { verb: "read", create_root: false, patience: arguments.patience.timeout };
    let (place, moment) = store::volume_at(&arguments.url, &arguments.store, errand)?;
    if let Some(moment) = moment {
        return at(&place, &moment, &arguments).await;
    }
    let info = lsvd_volume::inspect(&place.bucket)
        .await
        .with_context(|| format!("cannot read volume '{}'", place.name))?;
    let lag = match &arguments.journal {
        Some(directory) => Some(lag(&info, &directory.join(&place.name))?),
        None => None,
    };
    let daemon = ask(&arguments.control, &place, &info).await;
    if arguments.json {
        let volume = VolumeJson::new(&place.name, &place.url.to_string(), &info);
        let journal_only = lag.map(|JournalLag { journal, records, bytes }| JournalJson {
            journal: journal.to_string(),
            records,
            bytes,
        });
        output::json(&InfoJson { schema_version: SCHEMA_VERSION, volume, journal_only, daemon })?;
    } else {
        let mut rows = rows(&place.url, &info);
        rows.extend(family(&place.url, &info));
        rows.extend(lag.map(|lag| vec!["only in the journal".to_owned(), in_words(lag)]));
        rows.extend(daemon.as_ref().map(|status| vec!["daemon here".to_owned(), status::in_short(status)]));
        output::table(&["volume", &place.name], &rows)?;
    }
    Ok(Exit::Done)
}

/// What a daemon of this host knows of the volume. That it can not be asked is no error: the store was.
async fn ask(control: &ControlPlace, place: &Place, info: &VolumeInfo) -> Option<VolumeStatus> {
    let VolumeInfo { volume_id, epoch, writer_id, .. } = *info;
    let identity = Identity { volume_id, epoch, writer_id };
    let asked = async {
        let found = client::find(control, &identity, &place.url.to_string(), Wanted::Any).await?;
        let Some((mut daemon, volume)) = found else { return Ok(None) };
        let answer = daemon.ask(&Status { volume: Some(volume.volume_id) }, &|_| {}).await?;
        anyhow::Ok(answer.volumes.into_iter().next())
    };
    asked.await.unwrap_or_else(|error| {
        tracing::warn!("{}", exit::words(&error));
        None
    })
}

/// A moment of a volume in JSON.
#[derive(Serialize)]
struct MomentJson {
    schema_version: u32,
    name: String,
    url: String,
    volume_id: String,
    as_of: u64,
    stored_unix_ms: Option<u64>,
    size_bytes: u64,
    live_bytes: u64,
    snapshots: Vec<String>,
    branch: bool,
    base: Option<u64>,
    tail_objects: u64,
}

/// Says what a volume was at a moment.
async fn at(place: &Place, moment: &Moment, arguments: &Info) -> anyhow::Result<Exit> {
    if arguments.journal.is_some() {
        return Err(Usage("--journal tells of the present: leave it out, or the moment".to_owned()).into());
    }
    let info = inspect_at(&place.bucket, moment).await;
    let info: MomentInfo = info.with_context(|| format!("cannot read volume '{}'", place.name))?;
    if arguments.json {
        output::json(&MomentJson {
            schema_version: SCHEMA_VERSION,
            name: place.name.clone(),
            url: place.url.to_string(),
            volume_id: info.volume_id.to_string(),
            as_of: info.as_of.0,
            stored_unix_ms: info.sealed_unix_ms,
            size_bytes: info.size_bytes,
            live_bytes: info.live_bytes,
            snapshots: info.snapshots,
            branch: !info.on_own_line,
            base: info.base.map(|base| base.0),
            tail_objects: info.objects_replayed,
        })?;
        return Ok(Exit::Done);
    }
    let nothing = || "none".to_owned();
    let branch = if info.on_own_line { "" } else { ", on a branch that a rollback left" };
    let rows = [
        ("url", place.url.to_string()),
        ("identity", info.volume_id.to_string()),
        ("as of", format!("number {}{branch}", info.as_of)),
        ("last stored", info.sealed_unix_ms.map_or_else(nothing, units::utc)),
        ("size", units::bytes_exact(info.size_bytes)),
        ("live", units::bytes_human(info.live_bytes)),
        ("snapshots", if info.snapshots.is_empty() { nothing() } else { info.snapshots.join(", ") }),
        ("checkpoint", info.base.map_or_else(nothing, |base| format!("as of {base}"))),
        ("behind it", format!("{} log objects", units::grouped(info.objects_replayed))),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(head, words)| vec![head.to_owned(), words]).collect();
    output::table(&["volume", &place.name], &rows)?;
    Ok(Exit::Done)
}

fn lag(info: &VolumeInfo, directory: &Path) -> anyhow::Result<JournalLag> {
    let shown = directory.display();
    journal_lag(info, directory)
        .with_context(|| format!("cannot read the journal in '{shown}'"))?
        .with_context(|| {
            format!("there is no journal in '{shown}': name the directory that `serve --journal` has")
        })
}

fn in_words(lag: JournalLag) -> String {
    let JournalLag { records, bytes, .. } = lag;
    format!("{} in {} writes", units::bytes_human(bytes), units::grouped(records))
}

/// What a flush means for the volume as it is open, or was last.
fn flush(info: &VolumeInfo) -> &'static str {
    if info.journal.is_some() { "journal" } else { "object" }
}

fn rows(url: &BucketUrl, info: &VolumeInfo) -> Vec<Vec<String>> {
    let size = format!("{} ({} bytes)", units::bytes_exact(info.size_bytes), units::grouped(info.size_bytes));
    let log =
        format!("{} in {} objects", units::bytes_human(info.log_bytes), units::grouped(info.log_objects));
    let durable = info.durable_number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let writers = if info.unsafe_single_writer { "ONE ONLY, by the user's word" } else { "fenced by epoch" };
    let flush = match info.journal {
        Some(journal) => format!("when journal {journal} has it; the store follows"),
        None => "when the store has it".to_owned(),
    };
    let stored =
        info.last_data.map_or_else(|| "nothing yet".to_owned(), |last| units::utc(last.sealed_unix_ms));
    let written = format!("version {}, {}", info.superblock, units::utc(info.written_unix_ms));
    [
        ("url", url.to_string()),
        ("identity", info.volume_id.to_string()),
        ("size", size),
        ("log", log),
        ("live", live(info)),
        ("condemned", condemned(info)),
        ("in the bucket", units::bytes_human(info.bucket_bytes)),
        ("checkpoints", checkpoints(info)),
        ("behind them", format!("{} log objects", units::grouped(info.tail_objects))),
        ("log format", log_format(info)),
        ("last log object", durable),
        ("state", state(info).to_owned()),
        ("superblock", written),
        ("epoch", info.epoch.to_string()),
        ("last writer", info.writer_id.to_string()),
        ("window", info.window.to_string()),
        ("flush", flush),
        ("last stored", stored),
        ("writers", writers.to_owned()),
    ]
    .map(|(head, words)| vec![head.to_owned(), words])
    .into()
}

/// Whose clone it is, and whose parent.
fn family(url: &BucketUrl, info: &VolumeInfo) -> Vec<Vec<String>> {
    let at = |path: &str| url.beside(path).map_or_else(|| path.to_owned(), |url| url.to_string());
    let mut rows = Vec::new();
    if let Some(parent) = info.parents.last() {
        let shared = units::bytes_human(info.shared_bytes);
        let words = format!("{} as of number {}; shares {shared}", at(&parent.path), parent.as_of);
        rows.push(vec!["clone of".to_owned(), words]);
    }
    for clone in &info.clones {
        rows.push(vec!["clone".to_owned(), format!("{} as of number {}", at(&clone.path), clone.as_of)]);
    }
    rows
}

fn live(info: &VolumeInfo) -> String {
    let live = units::bytes_human(info.live_bytes);
    match info.space_amplification() {
        Some(ratio) => format!("{live}; the log holds {ratio:.2} bytes for each"),
        None => live,
    }
}

fn condemned(info: &VolumeInfo) -> String {
    match info.condemned_objects {
        0 => "nothing".to_owned(),
        objects => format!(
            "{} in {} objects: dead, and deleted soon while a daemon serves the volume",
            units::bytes_human(info.condemned_bytes),
            units::grouped(objects)
        ),
    }
}

fn checkpoints(info: &VolumeInfo) -> String {
    if info.checkpoints.is_empty() {
        return "none: opening reads the header of every log object".to_owned();
    }
    let told = info.checkpoints.iter().map(|checkpoint| {
        let stored = checkpoint.stored_unix_ms.map(|at| units::utc(u64::try_from(at).unwrap_or(0)));
        format!("as of {} ({})", checkpoint.as_of, stored.as_deref().unwrap_or("MISSING"))
    });
    told.collect::<Vec<_>>().join(", ")
}

fn append_format(info: &VolumeInfo) -> ObjectFormat {
    info.log_layout.as_ref().map_or(ObjectFormat::V2, |layout| layout.append_format)
}

/// What of it can be verified is said too (rule 5).
fn log_format(info: &VolumeInfo) -> String {
    let Some(layout) = &info.log_layout else { return "2".to_owned() };
    let number = info.log_first_number.0;
    let first = layout.name(info.log_first_number);
    let unverified = "it has no checksums: length and bounds are all that is verified";
    match layout.append_format {
        ObjectFormat::V1 => format!("1, from number {number} ('{first}') on; {unverified}"),
        ObjectFormat::V2 => {
            format!("2, behind a log of format 1 from number {number} ('{first}') on; in that, {unverified}")
        }
    }
}

/// Whether somebody has it open can not be known from the bucket alone.
pub(crate) fn state(info: &VolumeInfo) -> &'static str {
    if info.closed_cleanly { "closed cleanly" } else { "open, or ended by a crash" }
}

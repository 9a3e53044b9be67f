//! The words of the control protocol: JSON-RPC 2.0, one message a line, and the types of each method.
//!
//! Knows no sockets and no volumes. Invariants: 1. what docs/control.md has keeps its meaning under the same [`PROTOCOL`];
//! answers may get more fields, which clients ignore; 2. a parameter that is not known is refused, so that an older daemon never
//! does something else than was asked; 3. an error says its kind, and by it the exit code of the command that asked.

use lsvd_volume::{RollbackPlan, RolledBack};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clones::FlattenedJson;
use crate::collection::CollectionJson;
use crate::commands::info::VolumeJson;
use crate::control::daemon::{DaemonStatus, VolumeStatus};
use crate::exit::Exit;
use crate::snapshots::{ChangedSnapshots, KeepJson, SnapshotJson};

/// Which edition of docs/control.md this program speaks.
pub(crate) const PROTOCOL: u32 = 1;

/// The longest line that a daemon reads, in bytes. No request is near it.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 << 10;
/// The longest line that a client reads, in bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A method: its parameters, under its name, and what it answers.
pub(crate) trait Method: Serialize + DeserializeOwned + Send {
    /// Its name.
    const NAME: &'static str;
    /// What it answers.
    type Answer: Serialize + DeserializeOwned + Send;
}

/// Who are you, and what do you serve?
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hello {}

impl Method for Hello {
    const NAME: &'static str = "hello";
    type Answer = HelloAnswer;
}

/// Who the daemon is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HelloAnswer {
    pub(crate) protocol: u32,
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) methods: Vec<String>,
    pub(crate) volumes: Vec<HelloVolume>,
}

/// A volume as a daemon greets with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HelloVolume {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) volume_id: String,
    pub(crate) epoch: u64,
    pub(crate) writer_id: String,
    pub(crate) read_only: bool,
    pub(crate) state: State,
}

/// Whether a volume can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It waits for the store or for its turn.
    Opening,
    /// Clients are served.
    Serving,
    /// It ended by itself: another writer took it over, or its journal failed.
    Ended,
    /// The daemon stores what is left and ends.
    Closing,
}

/// What do your volumes do?
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Status {
    /// One volume, by identity or export name; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) volume: Option<String>,
}

impl Method for Status {
    const NAME: &'static str = "status";
    type Answer = DaemonStatus;
}

/// What is this volume, as `lsvd info` says, and what do you know of it beside?
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Info {
    pub(crate) volume: String,
}

impl Method for Info {
    const NAME: &'static str = "info";
    type Answer = InfoAnswer;
}

/// A volume as its objects say, and as its daemon knows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InfoAnswer {
    #[serde(flatten)]
    pub(crate) volume: VolumeJson,
    pub(crate) daemon: VolumeStatus,
}

/// Collect garbage.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gc {
    pub(crate) volume: String,
    /// Say what would come back, and write nothing.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// Until the log has no more than this many bytes for each live one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<GcTarget>,
}

impl Method for Gc {
    const NAME: &'static str = "gc";
    type Answer = CollectionJson;
}

/// A ratio, or `"off"`: delete only what is dead.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum GcTarget {
    Ratio(f64),
    Off(Off),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Off {
    Off,
}

/// Write anew what is held in objects of format 1.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upgrade {
    pub(crate) volume: String,
    #[serde(default)]
    pub(crate) dry_run: bool,
}

impl Method for Upgrade {
    const NAME: &'static str = "upgrade";
    type Answer = CollectionJson;
}

/// Make a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotCreate {
    pub(crate) volume: String,
    /// Without one it is automatic: skipped if nothing has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Then remove automatic ones that no rule keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) keep: Option<KeepJson>,
}

impl Method for SnapshotCreate {
    const NAME: &'static str = "snapshot-create";
    type Answer = ChangedSnapshots;
}

/// Make a snapshot of one moment of several volumes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotGroup {
    pub(crate) volumes: Vec<String>,
    pub(crate) name: String,
}

impl Method for SnapshotGroup {
    const NAME: &'static str = "snapshot-group";
    type Answer = SnapshotGroupAnswer;
}

/// One for each volume, in the order of the request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotGroupAnswer {
    pub(crate) snapshots: Vec<SnapshotJson>,
}

/// Remove snapshots.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotRm {
    pub(crate) volume: String,
    pub(crate) names: Vec<String>,
    /// Also what is kept for a clone that is not there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) force: bool,
}

impl Method for SnapshotRm {
    const NAME: &'static str = "snapshot-rm";
    type Answer = ChangedSnapshots;
}

/// Keep a moment for a clone that is to be made.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClonePin {
    pub(crate) volume: String,
    /// The clone's identity.
    pub(crate) clone_id: String,
    /// Where it is to be, from the volume's own prefix.
    pub(crate) path: String,
    /// A snapshot, a number or a time; now without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) moment: Option<String>,
}

impl Method for ClonePin {
    const NAME: &'static str = "clone-pin";
    type Answer = SnapshotJson;
}

/// Share nothing with parents any more.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flatten {
    pub(crate) volume: String,
}

impl Method for Flatten {
    const NAME: &'static str = "flatten";
    type Answer = FlattenedJson;
}

/// Have another size.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resize {
    pub(crate) volume: String,
    pub(crate) size_bytes: u64,
    /// Let go of data beyond the new end.
    #[serde(default)]
    pub(crate) discard: bool,
}

impl Method for Resize {
    const NAME: &'static str = "resize";
    type Answer = ResizeAnswer;
}

/// What the volume had and has.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct ResizeAnswer {
    pub(crate) size_bytes_before: u64,
    pub(crate) size_bytes: u64,
}

/// Go back to a moment.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rollback {
    pub(crate) volume: String,
    /// As `lsvd rollback --to` has it.
    pub(crate) to: String,
    /// Say what would be.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// End the connections of clients.
    #[serde(default)]
    pub(crate) disconnect: bool,
}

impl Method for Rollback {
    const NAME: &'static str = "rollback";
    type Answer = RollbackAnswer;
}

/// What a rollback did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RollbackAnswer {
    pub(crate) to: u64,
    pub(crate) stored_unix_ms: Option<u64>,
    pub(crate) size_bytes: u64,
    pub(crate) size_bytes_before: u64,
    pub(crate) from: u64,
    pub(crate) left_objects: u64,
    pub(crate) left_bytes: u64,
    pub(crate) next: Option<u64>,
    pub(crate) undo: Option<String>,
}

impl From<&RollbackPlan> for RollbackAnswer {
    fn from(plan: &RollbackPlan) -> Self {
        Self {
            to: plan.to.0,
            stored_unix_ms: plan.sealed_unix_ms,
            size_bytes: plan.size_bytes,
            size_bytes_before: plan.size_bytes_before,
            from: plan.from.0,
            left_objects: plan.left_objects,
            left_bytes: plan.left_bytes,
            next: None,
            undo: None,
        }
    }
}

impl From<&RolledBack> for RollbackAnswer {
    fn from(done: &RolledBack) -> Self {
        let RolledBack { plan, next, undo } = done;
        Self { next: Some(next.0), undo: Some(undo.clone()), ..plan.into() }
    }
}

/// A request, read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) id: Value,
    pub(crate) method: String,
    pub(crate) params: Value,
}

/// What can be wrong with a request before its method is asked; the numbers are JSON-RPC's, or in its range for servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Parse = -32700,
    Invalid = -32600,
    UnknownMethod = -32601,
    Params = -32602,
    Internal = -32603,
    /// The method was asked, and failed.
    Failed = -32000,
    /// The volume is not served here.
    NotServed = -32001,
    /// Too much is asked at once.
    Busy = -32002,
}

/// An error as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub(crate) code: i32,
    pub(crate) message: String,
    pub(crate) data: FaultData,
}

/// What the caller can do about an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FaultData {
    pub(crate) kind: String,
    pub(crate) exit_code: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) help: Option<String>,
}

impl Fault {
    /// An error of the protocol.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        let (kind, exit) = match code {
            Code::Internal | Code::Failed => ("other", Exit::Other),
            Code::NotServed => ("not-served", Exit::Existence),
            Code::Busy => ("busy", Exit::Other),
            Code::Parse | Code::Invalid | Code::UnknownMethod | Code::Params => ("protocol", Exit::Usage),
        };
        let data = FaultData { kind: kind.to_owned(), exit_code: exit as u8, help: None };
        Self { code: code as i32, message: message.into(), data }
    }

    /// A method that was refused, and what can be done about it.
    pub(crate) fn with_help(exit: Exit, message: String, help: &str) -> Self {
        let data =
            FaultData { kind: kind(exit).to_owned(), exit_code: exit as u8, help: Some(help.to_owned()) };
        Self { code: Code::Failed as i32, message, data }
    }

    /// What a command that did it itself would have said.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let exit = crate::exit::of(error);
        let help = crate::exit::help(error).map(str::to_owned);
        let data = FaultData { kind: kind(exit).to_owned(), exit_code: exit as u8, help };
        Self { code: Code::Failed as i32, message: crate::exit::words(error), data }
    }
}

/// The exit code's name.
fn kind(exit: Exit) -> &'static str {
    match exit {
        Exit::Done | Exit::Other | Exit::Interrupted => "other",
        Exit::Usage => "usage",
        Exit::Store => "store",
        Exit::Fenced => "fenced",
        Exit::Corrupt => "corrupt",
        Exit::Existence => "existence",
        Exit::UnsafeStore => "unsafe-store",
        Exit::InUse => "in-use",
        Exit::Journal => "journal",
        Exit::Pinned => "pinned",
    }
}

/// A line from a daemon.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    #[serde(default)]
    pub(crate) id: Value,
    pub(crate) method: Option<String>,
    pub(crate) params: Option<Progress>,
    pub(crate) result: Option<Value>,
    pub(crate) error: Option<Fault>,
}

/// How far a request is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The request's.
    pub(crate) id: Value,
    /// For people.
    pub(crate) words: String,
}

/// The name under which progress comes.
pub(crate) const PROGRESS: &str = "progress";

/// Reads a request.
///
/// # Errors
/// What to answer, with the request's id as far as it can be known.
pub(crate) fn parse_request(line: &[u8]) -> Result<Request, (Value, Fault)> {
    let refuse = |id: Value, code, words: &str| Err((id, Fault::new(code, words)));
    let Ok(value) = serde_json::from_slice::<Value>(line) else {
        return refuse(Value::Null, Code::Parse, "a request is one JSON object on one line");
    };
    let Value::Object(mut fields) = value else {
        return refuse(
            Value::Null,
            Code::Invalid,
            "a request is one JSON object; lists of them are not read",
        );
    };
    let id = match fields.remove("id") {
        Some(id @ Value::Number(_)) => id,
        Some(Value::String(id)) if id.len() <= ID_BYTES_MAX => Value::String(id),
        _ => {
            let words = "a request has an id: a number or a text of 128 bytes at most";
            return refuse(Value::Null, Code::Invalid, words);
        }
    };
    if fields.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return refuse(id, Code::Invalid, "a request says \"jsonrpc\": \"2.0\"");
    }
    let Some(Value::String(method)) = fields.remove("method") else {
        return refuse(id, Code::Invalid, "a request names its method");
    };
    let params = match fields.remove("params") {
        None => Value::Object(serde_json::Map::new()),
        Some(params @ Value::Object(_)) => params,
        Some(_) => return refuse(id, Code::Params, "parameters are named: params is an object"),
    };
    Ok(Request { id, method, params })
}

/// The longest id that is a text.
const ID_BYTES_MAX: usize = 128;

/// A request as a line.
pub(crate) fn request_line(id: u64, method: &str, params: &Value) -> Vec<u8> {
    line(&serde_json::json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
}

/// An answer as a line.
pub(crate) fn answer_line(id: &Value, answer: Result<Value, Fault>) -> Vec<u8> {
    line(&match answer {
        Ok(result) => serde_json::json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(fault) => serde_json::json!({ "jsonrpc": "2.0", "id": id, "error": fault }),
    })
}

/// Progress as a line.
pub(crate) fn progress_line(progress: &Progress) -> Vec<u8> {
    line(&serde_json::json!({ "jsonrpc": "2.0", "method": PROGRESS, "params": progress }))
}

fn line(message: &Value) -> Vec<u8> {
    // Texts hold no line ends in JSON: they are escaped.
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    line
}

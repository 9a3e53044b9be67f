//! The contract of docs/json.md: fields, types and the forms of errors. A field that is renamed fails here.

use serde_json::Value;

use crate::nbd_client::Request;
use crate::rig::{Rig, block, lsvd, write};

const VOLUME_FIELDS: [(&str, &str); 28] = [
    ("name", "text"),
    ("url", "text"),
    ("volume_id", "text"),
    ("size_bytes", "number"),
    ("epoch", "number"),
    ("writer_id", "text"),
    ("superblock", "number"),
    ("window", "number"),
    ("unsafe_single_writer", "bool"),
    ("log_format", "number"),
    ("format_1_log", "object or null"),
    ("closed_cleanly", "bool"),
    ("durable_number", "number or null"),
    ("log_objects", "number"),
    ("log_bytes", "number"),
    ("live_bytes", "number"),
    ("bucket_bytes", "number"),
    ("checkpoints", "list"),
    ("tail_objects", "number"),
    ("condemned_objects", "number"),
    ("condemned_bytes", "number"),
    ("written_unix_ms", "number"),
    ("flush", "text"),
    ("journal", "text or null"),
    ("stored_unix_ms", "number or null"),
    ("parents", "list"),
    ("shared_bytes", "number"),
    ("clones", "list"),
];

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "text" => value.is_string(),
        "number" => value.is_u64(),
        "bool" => value.is_boolean(),
        "list" => value.is_array(),
        "text or null" => value.is_string() || value.is_null(),
        "object or null" => value.is_object() || value.is_null(),
        _ => value.is_u64() || value.is_null(),
    }
}

#[track_caller]
fn check_fields(volume: &Value, more: &[&str]) {
    for (field, kind) in VOLUME_FIELDS {
        let value = volume.get(field).unwrap_or_else(|| panic!("no '{field}' in {volume}"));
        assert!(is(value, kind), "'{field}' is no {kind}: {volume}");
    }
    let known = |name: &str| more.contains(&name) || VOLUME_FIELDS.iter().any(|(field, _)| *field == name);
    for name in volume.as_object().unwrap().keys() {
        assert!(known(name), "docs/json.md does not have '{name}'");
    }
}

fn json(arguments: &[&str], code: i32) -> Value {
    let ended = lsvd(arguments);
    ended.expect(code, &[]);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

#[test]
fn info_has_the_documented_fields() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let fresh = json(&["info", &rig.url("db1"), "--json"], 0);
    check_fields(&fresh, &["schema_version", "daemon"]);
    assert_eq!((&fresh["schema_version"], &fresh["daemon"]), (&1.into(), &Value::Null));
    assert_eq!(fresh["name"], "db1");
    assert_eq!(fresh["url"], rig.url("db1"));
    assert_eq!(fresh["size_bytes"], 64 << 20);
    assert_eq!(fresh["log_objects"], 0);

    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Flush).unwrap();
    let open = json(&["info", &rig.url("db1"), "--json"], 0);
    check_fields(&open, &["schema_version", "daemon"]);
    assert_eq!(open["daemon"]["state"], "serving");
    assert_eq!(open["closed_cleanly"], false);
    assert!(open["epoch"].as_u64() > fresh["epoch"].as_u64());
    assert!(open["log_bytes"].as_u64().unwrap() > 4096);
    drop(client);
    daemon.stop().expect(0, &[]);
    assert_eq!(json(&["info", &rig.url("db1"), "--json"], 0)["closed_cleanly"], true);
}

#[test]
fn ls_lists_volumes_and_what_can_not_be_read() {
    let rig = Rig::new();
    let above = format!("file://{}", rig.path("bucket").display());
    let empty = json(&["ls", &above, "--json"], 0);
    assert_eq!(empty["volumes"], Value::Array(Vec::new()));

    rig.create("db1", "1T");
    rig.create("db2", "64M");
    let listed = json(&["ls", &above, "--json"], 0);
    assert_eq!(listed["schema_version"], 1);
    assert_eq!(listed["url"], above);
    let volumes = listed["volumes"].as_array().unwrap();
    assert_eq!(volumes.len(), 2);
    volumes.iter().for_each(|volume| check_fields(volume, &[]));
    assert_eq!(volumes[1]["url"], rig.url("db2"));

    let superblock = rig.objects("db2", "superblock").pop().unwrap();
    std::fs::write(superblock, "nonsense").unwrap();
    let listed = json(&["ls", &above, "--json"], 5);
    check_fields(&listed["volumes"][0], &[]);
    let broken = &listed["volumes"][1];
    assert_eq!(broken["name"], "db2");
    assert_eq!(broken["exit_code"], 5);
    assert!(broken["error"].as_str().unwrap().contains("superblock"), "{broken}");
    let table = lsvd(&["ls", &above]);
    table.expect(5, &[]);
    assert!(table.stdout.contains("db1\t1T\t") && table.stdout.contains("unreadable"), "{table:?}");
}

/// Log lines are one JSON object each when asked, and stay off stdout.
#[test]
fn log_lines_in_json() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &["--log-format", "json"]);
    let ended = daemon.stop();
    ended.expect(0, &[]);
    assert!(ended.stdout.is_empty(), "{ended:?}");
    let events: Vec<Value> = ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let opened = events.iter().find(|event| event["message"] == "volume is open").unwrap();
    assert_eq!(opened["volume"], "db1");
    assert!(opened["objects_processed"].is_u64() && opened["objects_archived"].is_u64(), "{opened}");
}

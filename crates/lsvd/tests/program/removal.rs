//! `lsvd rm`: what it says, asks and refuses, and what is left in the bucket.

use std::fs;

use serde_json::Value;

use crate::nbd_client::Request;
use crate::rig::{Rig, block, lsvd, write};

/// A volume with a block in it, closed.
fn with_data(rig: &Rig) -> String {
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Flush).unwrap();
    daemon.stop().expect(0, &[]);
    rig.url("db1")
}

/// The files below the volume's folder.
fn files(rig: &Rig) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![rig.volume("db1")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap()) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => {
                    found.push(entry.path().strip_prefix(rig.volume("db1")).unwrap().display().to_string())
                }
            }
        }
    }
    found.sort();
    found
}

#[test]
fn without_a_terminal_nothing_is_removed_unless_somebody_said_yes() {
    let rig = Rig::new();
    let url = with_data(&rig);
    let before = files(&rig);
    lsvd(&["rm", &url]).expect(2, &["--yes"]);
    assert_eq!(files(&rig), before);
    let ended = lsvd(&["rm", &url, "--yes"]);
    ended.expect(0, &["deletes", "size      64M", "last      stored"]);
    assert!(ended.stdout.contains("removed volume 'db1'"), "{}", ended.stdout);
    let left = files(&rig);
    assert!(left.len() == 2 && left[0].starts_with("log/") && left[1].starts_with("superblock/"), "{left:?}");
    lsvd(&["rm", &url, "--yes"]).expect(6, &["there is no volume"]);
    lsvd(&["info", &url]).expect(6, &["there is no volume"]);
    let listed = lsvd(&["ls", &rig.url(""), "--json"]);
    listed.expect(0, &[]);
    assert_eq!(serde_json::from_str::<Value>(&listed.stdout).unwrap()["volumes"], serde_json::json!([]));
    with_data(&rig);
    lsvd(&["rm", &url, "--yes", "--no-marker"]).expect(0, &[]);
    assert_eq!(files(&rig), Vec::<String>::new());
}

/// The fields of docs/json.md, and no others.
#[test]
fn rm_has_the_documented_fields() {
    let rig = Rig::new();
    let url = with_data(&rig);
    let ended = lsvd(&["rm", &url, "--yes", "--json"]);
    ended.expect(0, &[]);
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    let mut fields: Vec<&str> = said.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    let documented = include_str!("../../../../docs/json.md");
    let section = documented.split("## `lsvd rm URL --json`").nth(1).unwrap().split("\n## ").next().unwrap();
    for field in &fields {
        assert!(section.contains(&format!("`{field}`")), "docs/json.md does not have '{field}'");
    }
    assert_eq!(fields.len(), 11, "{fields:?}");
    assert_eq!((said["size_bytes"].as_u64(), said["marker"].as_bool()), (Some(64 << 20), Some(true)));
}

/// A volume that a daemon wrote lately is refused; taken from it on demand, and the daemon ends as one that was fenced.
#[test]
fn a_volume_that_is_served_is_refused() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Flush).unwrap();
    let before = files(&rig);
    lsvd(&["rm", &rig.url("db1"), "--yes"]).expect(8, &["seems to be served", "--if-free off"]);
    assert_eq!(files(&rig), before);
    lsvd(&["rm", &rig.url("db1"), "--yes", "--if-free", "off"]).expect(0, &["it was not closed"]);
    client.call(write(0, block(2))).and_then(|_| client.call(Request::Flush)).unwrap_err();
    daemon.end().expect(4, &["fenced"]);
}

/// Damage is named, and what is damaged is removed on demand only.
#[test]
fn a_damaged_volume_is_removed_with_damaged_alone() {
    let rig = Rig::new();
    let url = with_data(&rig);
    let newest = rig.objects("db1", "superblock").pop().unwrap();
    fs::write(&newest, "rubbish").unwrap();
    lsvd(&["rm", &url, "--yes"]).expect(5, &["damaged", "--damaged"]);
    lsvd(&["rm", &url, "--yes", "--damaged"]).expect(0, &["is not known"]);
    lsvd(&["info", &url]).expect(6, &[]);
    with_data(&rig);
}

//! Moments on the command line: served, described, compared and gone back to.

use serde_json::Value;

use crate::nbd_client::Request;
use crate::rig::{Rig, lsvd, read, write};

fn json(arguments: &[&str]) -> Value {
    let ended = lsvd(arguments);
    ended.expect(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Three commit points of a block each, and the number of the first.
fn three(rig: &Rig) -> u64 {
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    for round in 1..=3_u8 {
        client.call(write(u64::from(round) * 4096, vec![round; 4096])).unwrap();
        client.call(Request::Flush).unwrap();
    }
    drop(client);
    daemon.stop().expect(0, &[]);
    let said = json(&["log", &rig.url("db1"), "--json"]);
    let data = |of: &&Value| of["kind"] == "data";
    said["objects"].as_array().unwrap().iter().find(data).unwrap()["number"].as_u64().unwrap()
}

#[test]
fn a_moment_is_served_beside_the_present() {
    let rig = Rig::new();
    let first = three(&rig);
    let (url, at) = (rig.url("db1"), format!("{}@{first}", rig.url("db1")));
    let daemon = rig.serve_urls(&[&at, &url], "s", &[]);
    let mut then = daemon.client(&format!("db1@{first}"));
    assert_eq!(then.call(read(4096, 12288)).unwrap(), [vec![1; 4096], vec![0; 8192]].concat());
    assert!(then.call(write(0, vec![9; 4096])).is_err(), "read-only by itself");
    let mut now = daemon.client("db1");
    assert_eq!(now.call(read(8192, 4096)).unwrap(), vec![2; 4096]);
    now.call(write(0, vec![9; 4096])).unwrap();
    drop((then, now));
    daemon.stop().expect(0, &[]);
    let said = json(&["info", &at, "--json"]);
    assert_eq!(
        (&said["as_of"], &said["branch"], &said["name"]),
        (&first.into(), &false.into(), &format!("db1@{first}").into())
    );
    lsvd(&["info", &at]).expect(0, &[]);
    let stored = said["stored_unix_ms"].as_u64().unwrap();
    lsvd(&["info", &format!("{url}@{}", 1_u64 << 40)])
        .expect(6, &["the log ends with number", "there are no snapshots"]);
    lsvd(&["info", &format!("{url}@nightly")]).expect(6, &["there is no such snapshot"]);
    lsvd(&["info", &format!("{url}@1999-12-31T23:59:59Z")]).expect(6, &["before the oldest"]);
    lsvd(&["info", &format!("{url}@{}", lsvd_volume::utc(stored + 3_600_000))]).expect(0, &[]);
    lsvd(&["info", &format!("{url}@-1")]).expect(2, &["no moment"]);
    lsvd(&["serve", &at, "--create", "64M"]).expect(2, &["snapshots"]);
    lsvd(&["create", &format!("{url}@x"), "--size", "64M"]).expect(2, &["snapshots"]);
}

#[test]
fn back_and_the_way_back() {
    let rig = Rig::new();
    let first = three(&rig);
    let (url, to) = (rig.url("db1"), first.to_string());
    let before = rig.objects("db1", "superblock");
    let said = json(&["rollback", &url, "--to", &to, "--dry-run", "--json"]);
    assert_eq!((&said["to"], &said["left_objects"], &said["undo"]), (&first.into(), &2.into(), &Value::Null));
    lsvd(&["rollback", &url, "--to", &to]).expect(2, &["--yes"]);
    assert_eq!(rig.objects("db1", "superblock"), before, "nothing was written");
    let said = json(&["rollback", &url, "--to", &to, "--yes", "--json"]);
    let undo = said["undo"].as_str().unwrap().to_owned();
    assert!(undo.starts_with("before-rollback-20"), "{undo}");
    let listed = json(&["log", &url, "--json"]);
    let branch = listed["objects"].as_array().unwrap().iter().filter(|of| of["branch"] == true).count();
    assert_eq!(branch, 3, "two of data, and a fence");
    let changed = json(&["diff", &format!("{url}@{undo}"), &url, "--json"]);
    let extent = |block: u64| serde_json::json!({"offset_bytes": block * 4096, "length_bytes": 8192, "hole": true, "zero": true});
    assert_eq!(changed["extents"], serde_json::json!([extent(2)]));
    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read(4096, 12288)).unwrap(), [vec![1; 4096], vec![0; 8192]].concat());
    client.call(write(0, vec![7; 4096])).unwrap();
    client.call(Request::Flush).unwrap();
    lsvd(&["rollback", &url, "--to", &undo, "--yes"]).expect(8, &["has a client"]);
    lsvd(&["rollback", &url, "--to", &undo, "--yes", "--no-control"]).expect(8, &["seems to be served"]);
    drop(client);
    daemon.stop().expect(0, &[]);
    let back = lsvd(&["rollback", &url, "--to", &undo, "--yes"]);
    back.expect(0, &[]);
    assert!(back.stdout.contains("way back"), "{}", back.stdout);
    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    let all = [vec![0; 4096], vec![1; 4096], vec![2; 4096], vec![3; 4096]].concat();
    assert_eq!(client.call(read(0, 16384)).unwrap(), all);
    drop(client);
    daemon.stop().expect(0, &[]);
}

#[test]
fn what_can_not_be_compared() {
    let rig = Rig::new();
    let first = three(&rig);
    rig.create("db2", "64M");
    let (one, two) = (rig.url("db1"), rig.url("db2"));
    lsvd(&["diff", &one, &one]).expect(2, &["behind an '@'"]);
    lsvd(&["diff", &format!("{one}@{first}"), &two]).expect(2, &["two volumes"]);
    let listed = lsvd(&["diff", &format!("{one}@{first}"), &one]);
    listed.expect(0, &[]);
    assert_eq!(listed.stdout, "offset\tlength\tnow\n8192\t8192\tdata\n");
}

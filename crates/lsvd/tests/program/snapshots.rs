//! Snapshots and sizes through the daemon that serves the volume, and without one.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::nbd_client::Request;
use crate::rig::{PATIENCE, Rig, block, lsvd, read, write};

fn json(arguments: &[&str]) -> Value {
    let ended = lsvd(arguments);
    ended.expect(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap()
}

fn names(url: &str) -> Vec<String> {
    let listed = json(&["snapshot", "ls", url, "--json"]);
    let name = |of: &Value| of["name"].as_str().unwrap().to_owned();
    listed["snapshots"].as_array().unwrap().iter().map(name).collect()
}

#[test]
fn a_snapshot_beside_a_writing_client() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    client.call(write(0, block(1))).unwrap();
    let url = rig.url("db1");
    let made = json(&["snapshot", "create", &url, "monday", "--json"]);
    assert_eq!((&made["through"], &made["created"]["name"]), (&"daemon".into(), &"monday".into()), "{made}");
    client.call(write(0, block(2))).unwrap();
    client.call(Request::Flush).unwrap();
    let then = rig.serve_urls(&[&format!("{url}@monday")], "then", &[]);
    let mut reader = then.client("db1@monday");
    assert_eq!(reader.call(read(0, 4096)).unwrap(), block(1));
    client.call(write(4096, block(3))).unwrap();
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(2), "the daemon goes on");
    drop(reader);
    then.stop().expect(0, &[]);

    let grown = json(&["resize", &url, "--size", "96M", "--json"]);
    assert_eq!((&grown["through"], &grown["size_bytes"]), (&"daemon".into(), &(96 << 20).into()), "{grown}");
    assert_eq!(daemon.client("db1").size_bytes(), 96 << 20);
    assert_eq!(client.call(read(4096, 4096)).unwrap(), block(3), "the old connection goes on");
    let group = json(&["snapshot", "group", "both", &url, "--json"]);
    assert_eq!(group["volumes"][0]["snapshot"]["size_bytes"], 96 << 20, "{group}");
    assert_eq!(names(&url), ["monday", "both"]);
    lsvd(&["snapshot", "rm", &url, "friday"]).expect(6, &["no such snapshot", "monday, both"]);
    let gone = json(&["snapshot", "rm", &url, "monday", "both", "--json"]);
    assert_eq!((&gone["through"], names(&url).len()), (&"daemon".into(), 0), "{gone}");
    drop(client);
    daemon.stop().expect(0, &["snapshot made, as a client", "resized, as a client"]);
}

#[test]
fn without_a_daemon_the_command_does_it_itself() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    let url = rig.url("db1");
    assert_eq!(json(&["snapshot", "create", &url, "a", "--json"])["through"], "daemon");
    daemon.kill();
    lsvd(&["snapshot", "create", &url, "b"]).expect(8, &["was not closed"]);
    std::thread::sleep(Duration::from_millis(2500));
    let made = json(&["snapshot", "create", &url, "b", "--if-free", "1s", "--json"]);
    assert_eq!(made["through"], "store", "{made}");
    assert_eq!(names(&url), ["a", "b"]);
    lsvd(&["snapshot", "group", "c", &url]).expect(6, &["the one daemon that serves all"]);
    assert_eq!(json(&["resize", &url, "--size", "96M", "--json"])["through"], "store");
}

#[test]
fn a_schedule_makes_and_removes_and_skips_what_is_idle() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &["--snapshot-every", "1s", "--snapshot-keep", "last=3"]);
    let url = rig.url("db1");
    let mut client = daemon.client("db1");
    let mut seen = std::collections::BTreeSet::new();
    let deadline = Instant::now() + PATIENCE;
    for round in (1..=250).cycle() {
        client.call(write(0, block(round))).unwrap();
        client.call(Request::Flush).unwrap();
        seen.extend(names(&url));
        if seen.len() >= 5 {
            break;
        }
        assert!(Instant::now() < deadline, "{seen:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    // The last write is in one more at most; then nothing is made, though many times are due.
    std::thread::sleep(Duration::from_secs(3));
    let kept = names(&url);
    assert_eq!(kept.len(), 3, "{kept:?} of {seen:?}");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(names(&url), kept, "idle");
    drop(client);
    daemon.stop().expect(0, &[]);
}

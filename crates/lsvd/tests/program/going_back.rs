//! Rolling back through the daemon that serves the volume: who is in the way, who is sent away, and what comes after.

use std::time::Duration;

use serde_json::Value;

use crate::nbd_client::Request;
use crate::rig::{Rig, block, lsvd, read, write};

fn json(arguments: &[&str]) -> Value {
    let ended = lsvd(arguments);
    ended.expect(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// A client is not given other contents under its feet: it is in the way, or it is sent away.
#[test]
fn a_client_is_in_the_way_unless_it_may_be_disconnected() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    rig.create("db2", "64M");
    let url = rig.url("db1");
    let daemon = rig.serve_urls(&[&url, &rig.url("db2")], "s", &["--log-format", "json"]);
    let (mut client, mut beside) = (daemon.client("db1"), daemon.client("db2"));
    client.call(write(0, block(1))).unwrap();
    json(&["snapshot", "create", &url, "then", "--json"]);
    client.call(write(0, block(2))).unwrap();
    json(&["resize", &url, "--size", "96M", "--json"]);
    lsvd(&["rollback", &url, "--to", "then", "--yes"]).expect(8, &["has a client", "--disconnect", "detach"]);
    lsvd(&["rollback", &url, "--to", "never", "--yes", "--disconnect"]).expect(6, &["no such snapshot"]);
    let planned = json(&["rollback", &url, "--to", "then", "--dry-run", "--json"]);
    assert_eq!((&planned["through"], &planned["dry_run"]), (&Value::Null, &true.into()), "{planned}");
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(2), "nothing has happened to it");
    // Not flushed: it is in the moment that is left all the same.
    client.call(write(4096, block(3))).unwrap();

    let done = json(&["rollback", &url, "--to", "then", "--disconnect", "--yes", "--json"]);
    assert_eq!((&done["through"], &done["dry_run"]), (&"daemon".into(), &false.into()), "{done}");
    assert_eq!((&done["size_bytes_before"], &done["size_bytes"]), (&(96 << 20).into(), &(64 << 20).into()));
    let undo = done["undo"].as_str().unwrap().to_owned();
    assert!(client.call(read(0, 4096)).is_err(), "it is told of nothing else");
    beside.call(write(0, block(9))).unwrap();
    assert_eq!(beside.call(read(0, 4096)).unwrap(), block(9), "its neighbour has noticed nothing");
    let mut client = daemon.client("db1");
    assert_eq!(client.size_bytes(), 64 << 20);
    assert_eq!(client.call(read(0, 8192)).unwrap(), [block(1), vec![0; 4096]].concat());
    client.call(write(8192, block(4))).unwrap();
    client.call(Request::Flush).unwrap();
    let status = json(&["status", &url, "--json"]);
    assert_eq!(status["daemons"][0]["volumes"][0]["state"], "serving", "{status}");
    json(&["snapshot", "create", &url, "after", "--json"]);
    drop(client);

    // The way back, and no client is left to be asked for.
    let done = json(&["rollback", &url, "--to", &undo, "--yes", "--json"]);
    assert_eq!(done["through"], "daemon", "{done}");
    let mut client = daemon.client("db1");
    let all = [block(2), block(3), vec![0; 4096]].concat();
    assert_eq!((client.size_bytes(), client.call(read(0, 12288)).unwrap()), (96 << 20, all));
    drop((client, beside));
    daemon.stop().expect(0, &["rolled back, and served again", "closed cleanly"]);
    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(2));
    drop(client);
    daemon.stop().expect(0, &[]);
}

/// What only the journal held belongs to the moment that is left; from then on it is the journal of the other one.
#[test]
fn with_a_journal() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let (url, journal) = (rig.url("db1"), rig.path("journal").display().to_string());
    let flags = ["--flush", "journal", "--journal", &journal, "--batch-age", "60s"];
    let daemon = rig.serve("db1", "s", &flags);
    let mut client = daemon.client("db1");
    client.call(write(0, block(1))).unwrap();
    json(&["snapshot", "create", &url, "then", "--json"]);
    client.call(write(0, block(2))).unwrap();
    client.call(Request::Flush).unwrap();
    drop(client);
    let done = json(&["rollback", &url, "--to", "then", "--yes", "--json"]);
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(1));
    client.call(write(4096, block(3))).unwrap();
    client.call(Request::Flush).unwrap();
    daemon.kill();
    let daemon = rig.serve("db1", "s", &flags);
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read(0, 8192)).unwrap(), [block(1), block(3)].concat());
    drop(client);
    let undo = done["undo"].as_str().unwrap();
    assert_eq!(json(&["rollback", &url, "--to", undo, "--yes", "--json"])["through"], "daemon");
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read(0, 8192)).unwrap(), [block(2), vec![0; 4096]].concat());
    drop(client);
    daemon.stop().expect(0, &[]);
}

/// Whoever goes on writing is no reason to wait: it is closed out, and what it was told to be written is in one of the two.
#[test]
fn beside_clients_that_write() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let url = rig.url("db1");
    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    client.call(write(0, block(1))).unwrap();
    json(&["snapshot", "create", &url, "then", "--json"]);
    let writer = std::thread::spawn(move || {
        let mut written = 0_u64;
        while client.call(write((1 + written % 1000) * 4096, block(1 + (written % 200) as u8))).is_ok() {
            written += 1;
        }
        written
    });
    std::thread::sleep(Duration::from_millis(300));
    let done = json(&["rollback", &url, "--to", "then", "--disconnect", "--yes", "--json"]);
    let written = writer.join().unwrap();
    assert!(written > 10, "{written}");
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read(0, 8192)).unwrap(), [block(1), vec![0; 4096]].concat());
    drop(client);
    let undo = format!("{url}@{}", done["undo"].as_str().unwrap());
    let then = rig.serve_urls(&[&undo], "then", &["--no-control"]);
    let mut reader = then.client(&format!("db1@{}", done["undo"].as_str().unwrap()));
    let last = written - 1;
    let held = reader.call(read((1 + last % 1000) * 4096, 4096)).unwrap();
    assert_eq!(held, block(1 + (last % 200) as u8), "the last write that was answered");
    drop(reader);
    then.stop().expect(0, &[]);
    daemon.stop().expect(0, &[]);
}

//! Clones through daemons and without one: made, written, flattened and removed.

use serde_json::Value;

use crate::nbd_client::Request;
use crate::rig::{Rig, block, lsvd, read, write};

fn json(arguments: &[&str]) -> Value {
    let ended = lsvd(arguments);
    ended.expect(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn a_clone_beside_its_parents_clients_until_the_parent_is_gone() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let parent = rig.serve("db1", "p", &[]);
    let mut client = parent.client("db1");
    client.call(write(0, block(1))).unwrap();
    let (url, new) = (rig.url("db1"), rig.url("db2"));
    json(&["snapshot", "create", &url, "then", "--json"]);
    client.call(write(0, block(2))).unwrap();
    client.call(Request::Flush).unwrap();
    let made = json(&["clone", &format!("{url}@then"), &new, "--json"]);
    assert_eq!((&made["through"], &made["parent_url"]), (&"daemon".into(), &Value::from(&*url)), "{made}");
    lsvd(&["clone", &url, &new]).expect(6, &["there is a volume at"]);
    lsvd(&["clone", &url, &url]).expect(2, &["at another place"]);
    lsvd(&["clone", &url, "memory://elsewhere/db3"]).expect(2, &["in the same bucket"]);
    lsvd(&["clone", &format!("{url}@never"), &rig.url("db3")]).expect(6, &["no such snapshot"]);
    json(&["snapshot", "rm", &url, "then", "--json"]);

    let clone = rig.serve("db2", "c", &[]);
    let mut cloned = clone.client("db2");
    assert_eq!(cloned.call(read(0, 4096)).unwrap(), block(1), "its moment");
    cloned.call(write(4096, block(3))).unwrap();
    cloned.call(Request::Flush).unwrap();
    assert_eq!(client.call(read(0, 8192)).unwrap(), [block(2), vec![0; 4096]].concat());

    let id = made["volume_id"].as_str().unwrap();
    let pin = format!("clone-{id}");
    let listed = json(&["snapshot", "ls", &url, "--json"]);
    assert_eq!(listed["snapshots"][0]["clone"]["path"], "../db2", "{listed}");
    lsvd(&["snapshot", "ls", &url]).expect(0, &[]);
    assert_eq!(json(&["info", &url, "--json"])["clones"][0]["snapshot"], *pin);
    let info = json(&["info", &new, "--json"]);
    assert_eq!(
        (&info["parents"][0]["path"], &info["shared_bytes"]),
        (&"../db1".into(), &4096.into()),
        "{info}"
    );
    for force in [&["snapshot", "rm", &url, &pin][..], &["snapshot", "rm", "--force", &url, &pin]] {
        lsvd(force).expect(10, &["../db2", "remove the clone first"]);
    }
    lsvd(&["rm", &url, "--yes", "--if-free", "off"]).expect(10, &["its clones at ../db2"]);

    let flat = json(&["flatten", &new, "--json"]);
    assert_eq!((&flat["through"], &flat["released"]), (&"daemon".into(), &true.into()), "{flat}");
    assert_eq!(json(&["flatten", &new, "--json"])["parent_url"], Value::Null);
    assert!(json(&["snapshot", "ls", &url, "--json"])["snapshots"].as_array().unwrap().is_empty());
    drop(client);
    parent.stop().expect(0, &["kept for a clone", "snapshot removed"]);
    lsvd(&["rm", &url, "--yes", "--no-marker"]).expect(0, &[]);
    assert_eq!(cloned.call(read(0, 8192)).unwrap(), [block(1), block(3)].concat());
    drop(cloned);
    clone.stop().expect(0, &["flattening, as a client"]);
}

#[test]
fn without_a_daemon_the_commands_do_it_themselves() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    daemon.client("db1").call(write(0, block(1))).unwrap();
    daemon.stop().expect(0, &[]);
    let urls = ["db1", "a", "b", "c"].map(|name| rig.url(name));
    for (parent, clone) in urls.iter().zip(&urls[1..]) {
        assert_eq!(json(&["clone", parent, clone, "--json"])["through"], "store");
    }
    let info = json(&["info", &urls[3], "--json"]);
    let paths: Vec<&Value> = info["parents"].as_array().unwrap().iter().map(|of| &of["path"]).collect();
    assert_eq!(paths, ["../db1", "../a", "../b"], "{info}");
    let clone = rig.serve("c", "c", &[]);
    assert_eq!(clone.client("c").call(read(0, 4096)).unwrap(), block(1));
    clone.stop().expect(0, &[]);
    lsvd(&["rm", &urls[1], "--yes"]).expect(10, &["its clones at ../b"]);
    lsvd(&["flatten", &urls[1]]).expect(10, &["need the parent"]);
    assert_eq!(json(&["flatten", &urls[3], "--json"])["released"], true);
    for url in [&urls[2], &urls[1], &urls[0]] {
        lsvd(&["rm", url, "--yes", "--no-marker"]).expect(0, &[]);
    }
    let clone = rig.serve("c", "c2", &[]);
    assert_eq!(clone.client("c").call(read(0, 4096)).unwrap(), block(1));
    clone.stop().expect(0, &[]);
}

/// Each goes back through the daemon that serves both, the clone to its own beginning and the parent to before the clone, and neither
/// notices the other.
#[test]
fn a_clone_and_its_parent_go_back_through_their_daemon() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let (url, new) = (rig.url("db1"), rig.url("db2"));
    let parent = rig.serve("db1", "p", &[]);
    let mut client = parent.client("db1");
    client.call(write(0, block(1))).unwrap();
    json(&["snapshot", "create", &url, "before", "--json"]);
    // Not flushed: it is in a clone of now all the same.
    client.call(write(0, block(2))).unwrap();
    let made = json(&["clone", &url, &new, "--json"]);
    assert_eq!(made["through"], "daemon", "{made}");
    drop(client);
    parent.stop().expect(0, &[]);

    let daemon = rig.serve_urls(&[&url, &new], "s", &[]);
    json(&["snapshot", "create", &new, "begin", "--json"]);
    let mut client = daemon.client("db2");
    client.call(write(0, block(3))).unwrap();
    client.call(Request::Flush).unwrap();
    drop(client);
    let theirs = made["as_of"].to_string();
    lsvd(&["rollback", &new, "--to", &theirs, "--yes"]).expect(6, &["ask its parent, '../db1'"]);
    lsvd(&["rollback", &new, "--to", "before", "--yes"]).expect(6, &["no such snapshot"]);
    let shows = |name: &str| daemon.client(name).call(read(0, 4096)).unwrap();
    assert_eq!((shows("db1"), shows("db2")), (block(2), block(3)));
    let done = json(&["rollback", &new, "--to", "begin", "--yes", "--disconnect", "--json"]);
    assert_eq!(done["through"], "daemon", "{done}");
    let undo = done["undo"].as_str().unwrap().to_owned();
    assert_eq!((shows("db1"), shows("db2")), (block(2), block(2)));
    let done = json(&["rollback", &url, "--to", "before", "--yes", "--disconnect", "--json"]);
    assert_eq!(done["through"], "daemon", "{done}");
    assert_eq!((shows("db1"), shows("db2")), (block(1), block(2)));
    lsvd(&["snapshot", "rm", &url, done["undo"].as_str().unwrap()]).expect(0, &[]);
    json(&["gc", &url, "--json"]);
    lsvd(&["flatten", &new]).expect(10, &["begin", &undo, "need the parent"]);
    lsvd(&["snapshot", "rm", &new, "begin", &undo]).expect(0, &[]);
    let flat = json(&["flatten", &new, "--json"]);
    assert_eq!(flat["parent_url"], Value::from(&*url), "{flat}");
    daemon.stop().expect(0, &[]);
    let daemon = rig.serve("db2", "c", &[]);
    assert_eq!(daemon.client("db2").call(read(0, 4096)).unwrap(), block(2));
    daemon.stop().expect(0, &[]);
}

//! `lsvd serve --flush journal`, end to end: what the journal holds survives, and what is said where it is not at hand.

use std::fs;

use crate::nbd_client::Request;
use crate::rig::{Daemon, Rig, block, lsvd, read, write};

/// With batches that only their size ends: the store gets nothing by itself.
fn serve(rig: &Rig, socket: &str) -> Daemon {
    let journal = rig.path("journal").display().to_string();
    rig.serve("db1", socket, &["--flush", "journal", "--journal", &journal, "--batch-age", "1h"])
}

fn serve_fails(rig: &Rig, more: &[&str], code: i32, words: &[&str]) {
    let (url, socket) = (rig.url("db1"), format!("unix:{}", rig.path("other").display()));
    let mut arguments = vec!["serve", &url, "--listen", &socket];
    arguments.extend(more);
    lsvd(&arguments).expect(code, words);
}

/// Rule 1: what was flushed survives `kill -9` though the store has none of it; without the journal the volume is refused,
/// and `info` says what only the journal holds.
#[test]
fn kill_9_keeps_what_the_journal_has() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let journal = rig.path("journal").display().to_string();
    let daemon = serve(&rig, "s");
    let mut client = daemon.client("db1");
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Flush).unwrap();
    client.call(Request::Write { offset_bytes: 8192, data: block(2), fua: true }).unwrap();
    let info = lsvd(&["info", &rig.url("db1"), "--journal", &journal]);
    assert!(info.stdout.contains("8.00 KiB in 2 writes"), "{info:?}");
    serve_fails(
        &rig,
        &["--flush", "journal", "--journal", &journal],
        9,
        &["in use by another process", "stop"],
    );
    daemon.kill();
    assert_eq!(rig.objects("db1", "log").len(), 1, "only the fence is in the store");

    serve_fails(
        &rig,
        &[],
        9,
        &["journal", "is in use", "--flush journal --journal DIR", "--abandon-journal"],
    );
    let elsewhere = rig.path("elsewhere").display().to_string();
    serve_fails(&rig, &["--flush", "journal", "--journal", &elsewhere], 9, &["is in use"]);
    let json = lsvd(&["info", &rig.url("db1"), "--json", "--journal", &journal]);
    for field in [r#""flush": "journal""#, r#""records": 2"#, r#""bytes": 8192"#] {
        assert!(json.stdout.contains(field), "no {field} in {json:?}");
    }

    let daemon = serve(&rig, "s");
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(1));
    assert_eq!(client.call(read(8192, 4096)).unwrap(), block(2));
    client.disconnect().unwrap();
    daemon.stop().expect(0, &["journal_records=2", "closed cleanly"]);

    // A clean close leaves all of it in the store.
    lsvd(&["info", &rig.url("db1"), "--journal", &journal]).expect(1, &["there is no journal in"]);
    let daemon = rig.serve("db1", "s", &[]);
    assert_eq!(daemon.client("db1").call(read(8192, 4096)).unwrap(), block(2));
}

/// A lost journal is given up only when that is asked for, and what is known of the loss is said. One that something was
/// written past is refused.
#[test]
fn a_lost_journal_is_given_up_on_demand() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = serve(&rig, "s");
    let mut client = daemon.client("db1");
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Flush).unwrap();
    daemon.kill();
    let journal = rig.path("journal");
    fs::rename(&journal, rig.path("lost")).unwrap();
    let daemon = rig.serve("db1", "s", &["--abandon-journal"]);
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(0));
    client.call(write(0, block(3))).unwrap();
    client.call(Request::Flush).unwrap();
    daemon.stop().expect(0, &["given up for lost", "the last object was stored"]);

    fs::rename(rig.path("lost"), &journal).unwrap();
    let journal = journal.display().to_string();
    let flags = ["--flush", "journal", "--journal", &journal];
    serve_fails(&rig, &flags, 9, &["the volume went on without it", "another --journal directory"]);
    let daemon = rig.serve("db1", "s", &[&flags[..], &["--abandon-journal"]].concat());
    assert_eq!(daemon.client("db1").call(read(0, 4096)).unwrap(), block(3));
    daemon.stop().expect(0, &["the journal is given up", "records=1 bytes=4096"]);
}

/// A volume served beside others has a folder of its own, and another volume's journal is refused.
#[test]
fn each_volume_has_its_own_journal() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    rig.create("db2", "64M");
    let journal = rig.path("journal").display().to_string();
    let flags = ["--flush", "journal", "--journal", &journal];
    let daemon = rig.serve_urls(&[&rig.url("db1"), &rig.url("db2")], "s", &flags);
    for name in ["db1", "db2"] {
        daemon.client(name).call(Request::Write { offset_bytes: 0, data: block(1), fua: true }).unwrap();
    }
    daemon.kill();
    fs::remove_dir_all(rig.path("journal/db1")).unwrap();
    fs::rename(rig.path("journal/db2"), rig.path("journal/db1")).unwrap();
    serve_fails(&rig, &flags, 9, &["the journal of volume", "use another directory"]);
}

#[test]
fn what_makes_no_sense_is_said_before_anything_is_opened() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    serve_fails(&rig, &["--flush", "journal"], 2, &["--journal DIR"]);
    serve_fails(&rig, &["--journal", "j"], 2, &["--flush journal"]);
    let small = ["--flush", "journal", "--journal", "j", "--journal-size", "1M"];
    serve_fails(&rig, &small, 2, &["the journal must hold at least two batches"]);
    assert_eq!(rig.objects("db1", "superblock").len(), 1);
}

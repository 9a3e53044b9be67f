//! `lsvd adopt`: a bucket of format 1 becomes a volume that is served, in either format.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::nbd_client::Request;
use crate::rig::{Rig, block, lsvd, read, write};

/// An object of format 1 that writes one block of `fill` at block `at`.
fn object(at: u64, fill: u8) -> Vec<u8> {
    let mut bytes = vec![0; 12 * 1024];
    bytes[..8].copy_from_slice(&(at * 4096).to_be_bytes());
    bytes[8..12].copy_from_slice(&4096u32.to_be_bytes());
    bytes.extend(block(fill));
    bytes
}

/// Objects 1 to 3 with names of eight digits, and 5 beyond a gap, stored an hour ago.
fn bucket(rig: &Rig) {
    fs::create_dir(rig.volume("old")).unwrap();
    for (number, fill) in [(1, 11), (2, 22), (3, 33), (5, 55)] {
        let path = rig.volume("old").join(format!("{number:08x}"));
        fs::write(&path, object(number, fill)).unwrap();
        let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().write(true).open(path).unwrap().set_modified(an_hour_ago).unwrap();
    }
}

fn info(rig: &Rig) -> Value {
    let ended = lsvd(&["info", &rig.url("old"), "--json"]);
    ended.expect(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn an_old_bucket_is_adopted_and_served() {
    let rig = Rig::new();
    bucket(&rig);
    let adopted = lsvd(&["adopt", &rig.url("old"), "--size", "1M"]);
    adopted.expect(0, &[]);
    for words in [
        "nothing was copied",
        "3 objects",
        "numbers 1 to 3",
        "number 4 is missing",
        "in format 2",
        "lsvd serve",
    ] {
        assert!(adopted.stdout.contains(words), "{words}: {}", adopted.stdout);
    }
    let said = info(&rig);
    assert_eq!(said["log_format"], 2);
    assert_eq!(said["format_1_log"], json!({ "prefix": "", "first_number": 1, "name_digits": 8 }));
    assert!(
        lsvd(&["info", &rig.url("old")]).stdout.contains("no checksums"),
        "rule 5 covers less, and that is said"
    );
    let daemon = rig.serve("old", "s", &[]);
    let mut client = daemon.client("old");
    for (at, fill) in [(1, 11), (2, 22), (3, 33), (5, 0)] {
        assert_eq!(client.call(read(at * 4096, 4096)).unwrap(), block(fill));
    }
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Trim { offset_bytes: 4096, length_bytes: 4096 }).unwrap();
    drop(client);
    daemon.stop().expect(0, &[]);
    assert_eq!(info(&rig)["closed_cleanly"], true);
}

#[test]
fn an_old_bucket_goes_on_in_format_1() {
    let rig = Rig::new();
    bucket(&rig);
    let url = rig.url("old");
    lsvd(&["adopt", &url, "--size", "1M", "--log-format", "1"]).expect(2, &["--unsafe-single-writer"]);
    lsvd(&["adopt", &url, "--size", "1M", "--log-format", "1", "--unsafe-single-writer"]).expect(0, &[]);
    assert_eq!(info(&rig)["log_format"], 1);
    lsvd(&["serve", &url, "--listen", "unix:no.sock"]).expect(7, &["--unsafe-single-writer"]);
    let journal = rig.path("journal").display().to_string();
    let flags = ["--unsafe-single-writer", "--flush", "journal", "--journal", &journal];
    let listen = format!("unix:{}", rig.path("no.sock").display());
    lsvd(&[&["serve", &url, "--listen", &listen], &flags[..]].concat())
        .expect(2, &["format 1", "no local journal"]);
    let daemon = rig.serve("old", "s", &["--unsafe-single-writer"]);
    let mut client = daemon.client("old");
    client.call(write(0, block(1))).unwrap();
    let trim = client.call(Request::Trim { offset_bytes: 4096, length_bytes: 4096 });
    assert!(trim.is_err(), "TRIM is not offered");
    client.call(Request::Flush).unwrap();
    drop(client);
    daemon.stop().expect(0, &[]);
    // The mark, and the block as the old reader finds it.
    assert_eq!(fs::read(rig.volume("old").join("00000005")).unwrap(), object(0, 1));
}

#[test]
fn what_can_not_be_adopted_says_why() {
    let rig = Rig::new();
    bucket(&rig);
    let url = rig.url("old");
    lsvd(&["adopt", &url, "--size", "12K"]).expect(2, &["least size that fits is 16384"]);
    fs::write(rig.volume("old").join("00000004"), object(4, 44)).unwrap();
    lsvd(&["adopt", &url, "--size", "1M"]).expect(8, &["'00000004' was stored", "still growing"]);
    fs::remove_file(rig.volume("old").join("00000004")).unwrap();
    let damaged = rig.volume("old").join("00000002");
    let whole = fs::read(&damaged).unwrap();
    fs::write(&damaged, &whole[..whole.len() - 1]).unwrap();
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(&damaged).unwrap().set_modified(an_hour_ago).unwrap();
    lsvd(&["adopt", &url, "--size", "1M"])
        .expect(5, &["00000002", "16383 bytes where its header says 16384"]);
    assert!(!rig.volume("old").join("superblock").exists());
    lsvd(&["adopt", &rig.url("nothing"), "--size", "1M"]).expect(6, &["does not exist"]);
    fs::create_dir(rig.volume("empty")).unwrap();
    lsvd(&["adopt", &rig.url("empty"), "--size", "1M"]).expect(2, &["no object there is named by a number"]);
}

/// What was adopted is written anew in format 2, the old objects go, and every block reads as before.
#[test]
fn an_old_bucket_is_upgraded() {
    let rig = Rig::new();
    bucket(&rig);
    lsvd(&["adopt", &rig.url("old"), "--size", "1M"]).expect(0, &[]);
    let dry = lsvd(&["upgrade", &rig.url("old"), "--dry-run"]);
    assert!(dry.expect(0, &[]).stdout.contains("would be collected\t48.0 KiB in 3 objects"), "{dry:?}");
    let upgraded = lsvd(&["upgrade", &rig.url("old"), "--delete-after", "1s"]);
    upgraded.expect(0, &[]);
    assert!(upgraded.stdout.contains("nothing that is live is left in it"), "{upgraded:?}");
    for number in 1..=3 {
        assert!(!rig.volume("old").join(format!("{number:08x}")).exists(), "{number} is left");
    }
    let again = lsvd(&["upgrade", &rig.url("old"), "--json"]);
    again.expect(0, &[]);
    assert_eq!(serde_json::from_str::<Value>(&again.stdout).unwrap()["victims"], 0);
    let daemon = rig.serve("old", "s", &[]);
    let mut client = daemon.client("old");
    for (at, fill) in [(1, 11), (2, 22), (3, 33), (5, 0)] {
        assert_eq!(client.call(read(at * 4096, 4096)).unwrap(), block(fill));
    }
    drop(client);
    daemon.stop().expect(0, &[]);
}

/// A log that goes on in format 1 stays so, and that is said.
#[test]
fn what_goes_on_in_format_1_is_not_upgraded() {
    let rig = Rig::new();
    bucket(&rig);
    let old = rig.url("old");
    let format_1 = ["--log-format", "1", "--unsafe-single-writer"];
    lsvd(&[&["adopt", &old, "--size", "1M"], &format_1[..]].concat()).expect(0, &[]);
    for command in ["gc", "upgrade"] {
        for options in [&["--dry-run"][..], &["--unsafe-single-writer"]] {
            let words = ["in format 1, for good", "create another volume and copy"];
            lsvd(&[&[command, &old], options].concat()).expect(2, &words);
        }
    }
    assert_eq!(info(&rig)["epoch"], 1, "it was not even taken over");
}

//! `lsvd doctor` as it is called: its table, its JSON as docs/json.md has it, its exit codes, and what it leaves: nothing.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::nbd_client::Request;
use crate::rig::{PATIENCE, Rig, block, lsvd, write};

fn examine(url: &str, code: i32) -> Value {
    let ended = lsvd(&["doctor", url, "--json"]);
    ended.expect(code, &[]);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

fn finding<'a>(told: &'a Value, check: &str) -> &'a Value {
    let findings = told["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["check"] == check)
        .unwrap_or_else(|| panic!("no {check} in {told}"))
}

fn files(rig: &Rig) -> Vec<String> {
    fn walk(folder: &std::path::Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.display().to_string());
            if path.is_dir() {
                walk(&path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(&rig.path("bucket"), &mut found);
    found.sort();
    found
}

/// Every check and every field that the documents name is there, and no other.
#[test]
fn the_report_is_the_documented_one() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let before = files(&rig);
    let told = examine(&rig.url("db1"), 0);
    assert_eq!(files(&rig), before, "nothing is left behind, not even folders");
    let fields: Vec<&String> = told.as_object().unwrap().keys().collect();
    let documented = [
        "exit_code",
        "findings",
        "left_behind",
        "measured",
        "place",
        "schema_version",
        "url",
        "verdict",
        "volume",
    ];
    assert_eq!(fields, documented);
    assert_eq!((told["schema_version"].as_u64(), told["exit_code"].as_u64()), (Some(1), Some(0)));
    assert_eq!(told["verdict"], "good");
    let cli = include_str!("../../../../docs/cli.md");
    for finding in told["findings"].as_array().unwrap() {
        assert_eq!(finding.as_object().unwrap().len(), 5, "{finding}");
        for name in ["check", "verdict"] {
            let name = finding[name].as_str().unwrap();
            assert!(cli.contains(&format!("`{name}`")), "docs/cli.md does not have '{name}'");
        }
    }
    for name in ["put_median_us", "list_longest_us", "up_bytes_per_s", "down_bytes_per_s", "at_once"] {
        assert!(told["measured"][name].is_u64(), "{name}: {told}");
    }
    assert_eq!(told["volume"]["objects"], 1);
    assert_eq!(told["volume"]["orphans"], Value::Array(Vec::new()));
}

#[test]
fn a_table_has_one_line_a_check() {
    let rig = Rig::new();
    let url = format!("file://{}/", rig.path("bucket").display());
    let ended = lsvd(&["doctor", &url]);
    ended.expect(0, &[]);
    let lines: Vec<Vec<&str>> = ended.stdout.lines().map(|line| line.split('\t').collect()).collect();
    assert!(lines.iter().all(|cells| cells.len() == 5), "{ended:?}");
    assert_eq!(lines[0], ["check", "verdict", "asked", "answered", "advice"]);
    assert!(lines.iter().any(|cells| cells[..2] == ["create-only-in-a-race", "good"]), "{ended:?}");
    assert!(lines.iter().any(|cells| cells[..2] == ["versioning", "not-asked"]), "{ended:?}");
    assert!(lines.iter().any(|cells| cells[..2] == ["orphans", "not-asked"]), "{ended:?}");
}

/// Rule 3: what is in nobody's use is told by kind and size, what belongs to the volume is not, and all of it stays.
#[test]
fn orphans_are_told_and_kept() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Flush).unwrap();
    drop(client);
    daemon.stop().expect(0, &[]);
    let volume = rig.volume("db1");
    let log = rig.objects("db1", "log");
    // Beyond a gap: as a crashed writer leaves it.
    fs::copy(&log[0], volume.join("log/0000000000000050")).unwrap();
    for (name, bytes) in [
        ("probe/0123/a", 10),
        ("probe/0123/b", 20),
        ("archive/20270115T080000Z-epoch-0000000000000003-beyond-fence/log/0000000000000009", 4096),
        ("precious.txt", 7),
        ("log/0000000000000001.bak", 5),
    ] {
        fs::create_dir_all(volume.join(name).parent().unwrap()).unwrap();
        fs::write(volume.join(name), vec![1; bytes]).unwrap();
    }
    fs::write(volume.join("log/0000000000000051#1"), "half").unwrap();
    let before = files(&rig);
    let told = examine(&rig.url("db1"), 0);
    assert_eq!(files(&rig), before);
    let orphans = told["volume"]["orphans"].as_array().unwrap();
    let of = |kind: &str| {
        let found = orphans.iter().find(|orphans| orphans["kind"] == kind);
        found.map(|found| (found["objects"].as_u64().unwrap(), found["bytes"].as_u64().unwrap()))
    };
    assert_eq!(of("probe"), Some((2, 30)));
    assert_eq!(of("archived"), Some((1, 4096)));
    assert_eq!(of("stray").map(|stray| stray.0), Some(1));
    assert_eq!(of("unknown"), Some((2, 12)));
    let listed = finding(&told, "orphans");
    assert_eq!(listed["verdict"], "note");
    assert!(listed["answered"].as_str().unwrap().contains("precious.txt"), "{listed}");
    let unfinished = finding(&told, "unfinished-files");
    assert_eq!(unfinished["verdict"], "note", "it is young: {unfinished}");
    assert!(unfinished["answered"].as_str().unwrap().contains("0000000000000051#1"), "{unfinished}");
}

/// Rules 3 and 8: parts of checkpoints to which none refers are told when they are old; what a kept one refers to, and what is
/// condemned, is the volume's. What is below the newest checkpoint and no part of the log is a stray.
#[test]
fn what_checkpoints_leave_over_is_told() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &["--checkpoint-interval", "1ms"]);
    let mut client = daemon.client("db1");
    let checkpoints = || {
        let told = lsvd(&["info", &rig.url("db1"), "--json"]);
        let told: Value = serde_json::from_str(&told.stdout).unwrap();
        (told["checkpoints"].as_array().unwrap().len(), told["tail_objects"].as_u64().unwrap())
    };
    let deadline = Instant::now() + PATIENCE;
    while checkpoints() != (2, 0) {
        client.call(write(0, block(1))).unwrap();
        client.call(Request::Flush).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(Instant::now() < deadline, "two checkpoints");
    }
    drop(client);
    daemon.kill();
    let volume = rig.volume("db1");
    let part = |number: u64| volume.join(format!("checkpoint/{number:016x}-{number:016x}-00000001"));
    fs::write(part(0xa1), vec![1; 100]).unwrap();
    let two_hours_ago = SystemTime::now() - Duration::from_secs(7200);
    for path in rig.objects("db1", "checkpoint") {
        fs::File::options().write(true).open(path).unwrap().set_modified(two_hours_ago).unwrap();
    }
    fs::write(part(0xa2), "young").unwrap();
    // The first object is a fence, and the next number that it leaves out is free.
    fs::copy(&rig.objects("db1", "log")[1], volume.join("log/0000000000000002")).unwrap();
    let told = examine(&rig.url("db1"), 0);
    let orphans = told["volume"]["orphans"].as_array().unwrap();
    let kinds: Vec<_> = orphans.iter().map(|one| (&one["kind"], &one["objects"], &one["bytes"])).collect();
    assert_eq!(kinds.len(), 2, "{told}");
    assert_eq!(kinds[0].0, "stray");
    assert_eq!(orphans[0]["names"], serde_json::json!(["log/0000000000000002"]));
    // Beside what the daemon was killed at.
    assert_eq!(kinds[1].0, "checkpoint");
    let names = orphans[1]["names"].to_string();
    assert!(names.contains("00000000000000a1-") && !names.contains("00000000000000a2-"), "{told}");
}

/// What a snapshot is read from stays, however many checkpoints there were since: nobody is to take it for left over.
#[test]
fn what_a_snapshot_is_read_from_is_not_left_over() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &["--checkpoint-interval", "1ms"]);
    let mut client = daemon.client("db1");
    let kept = || {
        let told: Value = serde_json::from_str(&lsvd(&["info", &rig.url("db1"), "--json"]).stdout).unwrap();
        let kept = told["checkpoints"].as_array().unwrap();
        kept.iter().map(|kept| kept["as_of"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let deadline = Instant::now() + PATIENCE;
    let mut write_until = |enough: &dyn Fn(&[u64]) -> bool| {
        while !enough(&kept()) {
            client.call(write(0, block(1))).unwrap();
            client.call(Request::Flush).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            assert!(Instant::now() < deadline, "checkpoints");
        }
    };
    write_until(&|kept| kept.len() == 2);
    lsvd(&["snapshot", "create", &rig.url("db1"), "monday"]).expect(0, &[]);
    let before = kept();
    write_until(&|kept| !kept.iter().any(|kept| before.contains(kept)));
    drop(client);
    daemon.kill();
    let base = format!("{:016x}-", before[before.len() - 1]);
    let of_base =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&base));
    let left: Vec<_> = rig.objects("db1", "checkpoint").into_iter().filter(of_base).collect();
    assert!(!left.is_empty(), "what the snapshot is read from");
    let two_hours_ago = SystemTime::now() - Duration::from_secs(7200);
    for path in &left {
        fs::File::options().write(true).open(path).unwrap().set_modified(two_hours_ago).unwrap();
    }
    let told = examine(&rig.url("db1"), 0);
    let orphans = told["volume"]["orphans"].to_string();
    for path in &left {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(!orphans.contains(&name), "{name}: {told}");
    }
}

#[test]
fn what_is_not_there_has_its_exit_code() {
    let rig = Rig::new();
    let missing = format!("file://{}/nowhere/db1", rig.path("bucket").display());
    lsvd(&["doctor", &missing]).expect(6, &["nowhere"]);
    lsvd(&["doctor", "db1"]).expect(2, &["begins with one of"]);
}

//! What a volume takes of its bucket: the options of checkpoints and collection, and what is said and done about it.

use serde_json::Value;

use crate::nbd_client::Request;
use crate::rig::{Daemon, PATIENCE, Rig, block, lsvd, read, write};

/// What can not be is refused before anything is opened, and says what can.
#[test]
fn options_that_can_not_be() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let url = rig.url("db1");
    let before = rig.objects("db1", "superblock");
    for (options, words) in [
        (&["--delete-after", "60s"][..], "not longer than --io-timeout 60s"),
        (&["--io-timeout", "2s", "--delete-after", "1s"], "not longer than --io-timeout 2s"),
        (&["--gc-target", "1.0"], "1.05 to 100"),
        (&["--gc-target", "much"], "write it as 1.3, or off"),
        (&["--map-memory", "1MB"], "power of 1,024"),
        (&["--gc-waste-min", "64MB"], "power of 1,024"),
    ] {
        let listen = format!("unix:{}", rig.path("s").display());
        let mut arguments = vec!["serve", &url, "--listen", &listen];
        arguments.extend(options);
        lsvd(&arguments).expect(2, &[words]);
    }
    assert_eq!(rig.objects("db1", "superblock"), before);
}

/// The defaults follow a longer --io-timeout, and what can be is taken.
#[test]
fn options_that_can_be() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    for options in [
        &["--io-timeout", "10m"][..],
        &["--io-timeout", "1s", "--delete-after", "2s", "--gc-target", "off", "--map-memory", "0"],
        &["--gc-target", "1.05", "--checkpoint-interval", "10s", "--map-memory", "64M"],
        &["--gc-waste-min", "0"],
    ] {
        rig.serve("db1", "s", options).stop().expect(0, &[]);
    }
}

fn info(rig: &Rig) -> Value {
    let ended = lsvd(&["info", &rig.url("db1"), "--json"]);
    ended.expect(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Waits until `holds` of what `lsvd info` says.
fn until(rig: &Rig, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let said = info(rig);
        if holds(&said) {
            return said;
        }
        assert!(std::time::Instant::now() < deadline, "{what}: {said}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn info_says_what_is_live_and_what_a_checkpoint_saves() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &["--checkpoint-interval", "1ms"]);
    let mut client = daemon.client("db1");
    for round in 0..3 {
        client.call(write(0, vec![round + 1; 1 << 20])).unwrap();
        client.call(Request::Flush).unwrap();
    }
    let said = until(&rig, "a checkpoint has all", |said| said["tail_objects"] == 0);
    assert_eq!(said["live_bytes"], 1 << 20);
    let checkpoints = said["checkpoints"].as_array().unwrap();
    let newest = checkpoints.last().unwrap();
    assert_eq!(newest["as_of"], said["durable_number"]);
    assert!(
        newest["stored_unix_ms"].as_u64().unwrap() >= said["stored_unix_ms"].as_u64().unwrap() / 1000 * 1000
    );
    let beside: u64 = ["log", "checkpoint", "superblock"]
        .iter()
        .flat_map(|folder| rig.objects("db1", folder))
        .map(|path| std::fs::metadata(path).unwrap().len())
        .sum();
    drop(client);
    daemon.kill();
    assert_eq!(info(&rig)["bucket_bytes"], beside);
    let text = lsvd(&["info", &rig.url("db1")]).stdout;
    for words in [
        "live\t1.00 MiB; the log holds 3.",
        "condemned\tnothing",
        "checkpoints\tas of ",
        "behind them\t0 log",
    ] {
        assert!(text.contains(words), "no '{words}' in {text}");
    }
}

pub(crate) const MIB: u64 = 1 << 20;

/// A closed volume of 16 MiB in objects of 1 MiB, of which every second block was written again.
fn half_dead(rig: &Rig) {
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &["--batch", "1M", "--gc-target", "off"]);
    kill_half(&daemon);
    daemon.stop().expect(0, &[]);
}

/// Writes 16 MiB, and every second block of them again.
pub(crate) fn kill_half(daemon: &Daemon) {
    let mut client = daemon.client("db1");
    for at in 0..16 {
        let fill = u8::try_from(at + 1).unwrap();
        client.call(write(at * MIB, vec![fill; 1 << 20])).unwrap();
    }
    client.call(Request::Flush).unwrap();
    for nth in 0..16 * 128 {
        client.call(write(nth * 8192, block(200))).unwrap();
    }
    client.call(Request::Flush).unwrap();
}

#[track_caller]
fn is_as_written(rig: &Rig) {
    let daemon = rig.serve("db1", "s", &["--gc-target", "off"]);
    reads_as_written(&daemon);
    daemon.stop().expect(0, &[]);
}

#[track_caller]
pub(crate) fn reads_as_written(daemon: &Daemon) {
    let mut client = daemon.client("db1");
    for at in 0..16 {
        let fill = u8::try_from(at + 1).unwrap();
        let bytes = client.call(read(at * MIB, 1 << 20)).unwrap();
        for (nth, found) in bytes.chunks(4096).enumerate() {
            assert_eq!(found, block(if nth % 2 == 0 { 200 } else { fill }), "block {nth} of MiB {at}");
        }
    }
}

pub(crate) fn gc(rig: &Rig, command: &str, options: &[&str]) -> Value {
    let url = rig.url("db1");
    let mut arguments = vec![command, &url, "--json"];
    arguments.extend(options);
    let ended = lsvd(&arguments);
    ended.expect(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap()
}

pub(crate) fn log_bytes(rig: &Rig) -> u64 {
    rig.objects("db1", "log").iter().map(|path| std::fs::metadata(path).unwrap().len()).sum()
}

/// Rules 6 and 7: the bucket shrinks to the target, and what is live is as it was.
#[test]
fn gc_without_a_daemon() {
    let rig = Rig::new();
    half_dead(&rig);
    let before = log_bytes(&rig);
    let dry = gc(&rig, "gc", &["--dry-run", "--target", "1.1"]);
    assert_eq!(dry["dry_run"], true);
    assert!(dry["victims"].as_u64().unwrap() > 0, "{dry}");
    assert_eq!(log_bytes(&rig), before, "a dry run writes nothing");
    assert_eq!(info(&rig)["closed_cleanly"], true);

    let done = gc(&rig, "gc", &["--target", "1.1", "--delete-after", "1s"]);
    let (live, after) = (done["live_bytes"].as_u64().unwrap(), log_bytes(&rig));
    assert_eq!(live, 16 * MIB);
    assert!(before > live * 14 / 10 && after < live * 112 / 100, "{before} bytes, then {after}: {done}");
    assert!(done["deleted_objects"].as_u64().unwrap() >= done["victims"].as_u64().unwrap(), "{done}");
    let said = info(&rig);
    assert_eq!((&said["closed_cleanly"], &said["condemned_objects"]), (&true.into(), &0.into()));
    is_as_written(&rig);

    // Nothing is left but the object that stands for nothing, which made a later checkpoint possible.
    let again = gc(&rig, "gc", &["--target", "1.1", "--delete-after", "1s"]);
    assert_eq!(again["victims"], 0, "{again}");
    assert!(again["deleted_bytes"].as_u64().unwrap() < 1024, "{again}");
    let third = gc(&rig, "gc", &["--target", "1.1", "--delete-after", "1s"]);
    assert_eq!(third["deleted_objects"], 0, "{third}");
    is_as_written(&rig);
}

/// A daemon collects what is worth it: a volume with less waste than `--gc-waste-min` stays as it is.
#[test]
fn a_daemon_collects_from_the_least_waste_on() {
    let rig = Rig::new();
    half_dead(&rig);
    let serve = |waste_min: &str| {
        let often = ["--checkpoint-interval", "1s", "--io-timeout", "5s", "--delete-after", "6s"];
        let often = [&often[..], &["--stats-interval", "50ms"]].concat();
        rig.serve("db1", "s", &[&often, &["--gc-target", "1.1", "--gc-waste-min", waste_min][..]].concat())
    };
    let daemon = serve("16M");
    std::thread::sleep(std::time::Duration::from_secs(3));
    daemon.stop().expect(0, &[]);
    let kinds = |rig: &Rig| gc(rig, "log", &[])["objects"].to_string();
    assert!(!kinds(&rig).contains("relocation"), "there was less to win: {}", kinds(&rig));
    let daemon = serve("1M");
    until(&rig, "the daemon collects", |_| log_bytes(&rig) < 16 * MIB * 112 / 100);
    assert!(kinds(&rig).contains("relocation"));
    // What is deleted is counted right behind it.
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let status = lsvd(&["status", &rig.url("db1"), "--json"]);
        let status: Value = serde_json::from_str(&status.expect(0, &[]).stdout).unwrap();
        let stats = &status["daemons"][0]["volumes"][0]["stats"];
        let is_above = |field: &str, least: u64| stats[field].as_u64().unwrap() > least;
        if is_above("deleted_objects", 0)
            && is_above("deleted_bytes", 4 * MIB)
            && is_above("moved_bytes", MIB)
        {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{stats}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    daemon.stop().expect(0, &["deleted_bytes=", "moved_bytes="]);
    is_as_written(&rig);
}

/// A volume in which nothing is live gives all of it back.
#[test]
fn gc_of_an_empty_volume() {
    let rig = Rig::new();
    half_dead(&rig);
    let daemon = rig.serve("db1", "s", &["--gc-target", "off"]);
    let mut client = daemon.client("db1");
    client.call(Request::Trim { offset_bytes: 0, length_bytes: 16 << 20 }).unwrap();
    drop(client);
    daemon.stop().expect(0, &[]);
    let done = gc(&rig, "gc", &["--delete-after", "1s"]);
    assert_eq!(done["live_bytes"], 0);
    assert!(log_bytes(&rig) < 4096, "fences and what says nothing: {done}");
}

/// A daemon collects by itself; it is not fenced by a gc that meant well and can not ask it.
#[test]
fn gc_of_a_volume_that_is_served() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &["--no-control"]);
    let mut client = daemon.client("db1");
    for command in ["gc", "upgrade"] {
        lsvd(&[command, &rig.url("db1")])
            .expect(8, &["seems to be served", "collects by itself", "help: stop"]);
    }
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Flush).unwrap();
    drop(client);
    daemon.stop().expect(0, &[]);
}

/// What a volume's objects are, and what of them is live; `--last` reads no more than it lists.
#[test]
fn the_log_is_listed() {
    let rig = Rig::new();
    half_dead(&rig);
    let whole = gc(&rig, "log", &[]);
    let objects = whole["objects"].as_array().unwrap();
    assert_eq!(objects.len(), rig.objects("db1", "log").len());
    let of = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).count();
    assert_eq!((of("fence"), of("data")), (1, objects.len() - 1));
    let sum = |field: &str| objects.iter().map(|object| object[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("live_blocks") * 4096, 16 * MIB);
    assert_eq!(sum("object_bytes"), log_bytes(&rig));
    assert!(objects.iter().all(|object| object["sealed_unix_ms"].as_u64().unwrap() > 1_600_000_000_000));
    let newest = gc(&rig, "log", &["--last", "3"]);
    assert_eq!(newest["objects"].as_array().unwrap()[..], objects[objects.len() - 3..]);

    gc(&rig, "gc", &["--target", "1.05", "--delete-after", "1s"]);
    let collected = gc(&rig, "log", &[]);
    let objects = collected["objects"].as_array().unwrap();
    assert!(objects.iter().any(|object| object["kind"] == "relocation"), "{collected}");
    assert_eq!(objects.iter().filter(|object| object["checkpoint"] == true).count(), 2, "{collected}");
    let text = lsvd(&["log", &rig.url("db1")]);
    assert!(text.expect(0, &[]).stdout.starts_with("number\tkind\tepoch\tbytes\tlive\tsealed\tremarks\n"));
    assert!(text.stdout.contains("\t50 %\t") || text.stdout.contains("\t100 %\t"), "{text:?}");

    let damaged = rig.objects("db1", "log").swap_remove(0);
    std::fs::write(damaged, "nonsense").unwrap();
    let listed = gc(&rig, "log", &[]);
    let first = &listed["objects"][0];
    assert_eq!((&first["kind"], &first["number"]), (&"damaged".into(), &objects[0]["number"]), "{first}");
    assert_eq!(listed["objects"].as_array().unwrap()[1..], objects[1..]);
}

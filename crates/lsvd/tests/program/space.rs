//! What a volume takes of its bucket: the options of checkpoints and collection, and what is said and done about it.

use serde_json::Value;

use crate::nbd_client::Request;
use crate::rig::{PATIENCE, Rig, lsvd, write};

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
        client.call(write(0, vec![round; 1 << 20])).unwrap();
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

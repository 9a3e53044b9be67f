//! The control socket: commands that ask the daemon, and who is found when several were there.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::nbd_client::Request;
use crate::rig::{Daemon, PATIENCE, Rig, Running, block, lsvd, read, run, runtime_dir, write};
use crate::space::{MIB, gc, kill_half, log_bytes, reads_as_written};

/// A daemon that collects when it is asked, and soon deletes.
const QUICK: [&str; 8] =
    ["--batch", "1M", "--gc-target", "off", "--io-timeout", "1s", "--delete-after", "2s"];

fn json(arguments: &[&str], code: i32) -> Value {
    let ended = lsvd(arguments);
    ended.expect(code, &[]);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

fn status(rig: &Rig) -> Value {
    json(&["status", &rig.url("db1"), "--json"], 0)
}

/// The volume's link in the directory of all.
fn link(rig: &Rig) -> PathBuf {
    let info = json(&["info", &rig.url("db1"), "--json", "--no-control"], 0);
    runtime_dir().join(format!("lsvd/control/{}.sock", info["volume_id"].as_str().unwrap()))
}

/// One line to a daemon, and its answer.
fn ask(socket: &Path, line: &str) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, "{line}").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// Rules 6 and 7, beside a client: the daemon collects, the client's data stays as it was.
#[test]
fn gc_through_the_daemon() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &QUICK);
    kill_half(&daemon);
    let before = log_bytes(&rig);
    let dry = gc(&rig, "gc", &["--dry-run", "--target", "1.1"]);
    assert_eq!((&dry["through"], &dry["dry_run"]), (&"daemon".into(), &true.into()), "{dry}");
    assert!(dry["victims"].as_u64().unwrap() > 0, "{dry}");
    assert_eq!(log_bytes(&rig), before, "a dry run writes nothing");

    let done = gc(&rig, "gc", &["--target", "1.1"]);
    assert_eq!((&done["through"], &done["live_bytes"]), (&"daemon".into(), &(16 * MIB).into()), "{done}");
    let after = log_bytes(&rig);
    assert!(before > 16 * MIB * 14 / 10 && after < 16 * MIB * 112 / 100, "{before}, then {after}: {done}");
    assert!(done["deleted_objects"].as_u64().unwrap() > 0, "{done}");
    reads_as_written(&daemon);
    let said = lsvd(&["gc", &rig.url("db1"), "--target", "1.1"]);
    said.expect(0, &["asking the daemon"]);

    let upgraded = gc(&rig, "upgrade", &[]);
    assert_eq!((&upgraded["through"], &upgraded["format_1_blocks_left"]), (&"daemon".into(), &0.into()));
    let ended = daemon.stop();
    ended.expect(0, &["as a client of the control socket asks"]);
    assert_eq!(gc(&rig, "gc", &["--delete-after", "1s"])["through"], "store");
}

/// A client of the device writes on while the daemon is asked to collect: what it wrote last is what is read.
#[test]
fn gc_beside_a_writing_client() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &QUICK);
    kill_half(&daemon);
    let before = log_bytes(&rig);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let last = std::thread::scope(|scope| {
        let mut client = daemon.client("db1");
        let stop = &stop;
        let writing = scope.spawn(move || {
            let mut round = 0_u8;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round = round % 250 + 1;
                for nth in 0..64 {
                    client.call(write(32 * MIB + nth * 4096, block(round))).unwrap();
                }
                client.call(Request::Flush).unwrap();
            }
            round
        });
        let done = gc(&rig, "gc", &["--target", "1.2"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(done["deleted_bytes"].as_u64().unwrap() > before / 4, "{done}");
        writing.join().unwrap()
    });
    reads_as_written(&daemon);
    let mut client = daemon.client("db1");
    for nth in 0..64 {
        assert_eq!(client.call(read(32 * MIB + nth * 4096, 4096)).unwrap(), block(last));
    }
    drop(client);
    daemon.stop().expect(0, &[]);
}

/// What a daemon refuses, the command says with the words and the code of one that did it itself.
#[test]
fn errors_of_the_daemon_are_the_commands() {
    let rig = Rig::new();
    lsvd(&["create", &rig.url("db1"), "--size", "64M", "--log-format", "1", "--unsafe-single-writer"])
        .expect(0, &[]);
    let daemon = rig.serve("db1", "s", &["--unsafe-single-writer"]);
    let through = lsvd(&["gc", &rig.url("db1")]);
    through.expect(2, &["asking the daemon", "error: volume 'db1' writes its log in format 1"]);
    let answer =
        ask(&daemon.control(), r#"{"jsonrpc":"2.0","id":1,"method":"gc","params":{"volume":"db1"}}"#);
    assert_eq!(answer["error"]["data"]["kind"], "usage");
    daemon.kill();
    let alone = lsvd(&["gc", &rig.url("db1")]);
    alone.expect(2, &[]);
    let error = |ended: &crate::rig::Ended| {
        ended.stderr.lines().find(|line| line.starts_with("error: ")).unwrap().to_owned()
    };
    assert_eq!(error(&through), error(&alone));
}

#[test]
fn status_of_what_is_served() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    rig.create("db2", "1T");
    let daemon = rig.serve_urls(&[&rig.url("db1"), &rig.url("db2")], "s", &[]);
    let mut client = daemon.client("db1");
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Flush).unwrap();
    let said = status(&rig);
    let found = &said["daemons"][0];
    assert_eq!((&said["schema_version"], &found["pid"]), (&1.into(), &daemon.pid().into()));
    assert_eq!(found["volumes"].as_array().unwrap().len(), 1);
    let volume = &found["volumes"][0];
    for (field, value) in [
        ("name", "db1".into()),
        ("url", rig.url("db1").into()),
        ("state", "serving".into()),
        ("clients", 1.into()),
        ("size_bytes", (64 << 20).into()),
        ("read_only", false.into()),
        ("flush", "object".into()),
        ("error", Value::Null),
    ] {
        assert_eq!(volume[field], value, "{field} of {volume}");
    }
    assert_eq!(volume["stats"]["live_bytes"], 4096);
    assert_eq!(volume["stats"]["buffered_bytes"], 0);
    let info = json(&["info", &rig.url("db1"), "--json"], 0);
    assert_eq!(info["daemon"]["volume_id"], info["volume_id"]);
    drop(client);
    let deadline = std::time::Instant::now() + PATIENCE;
    while status(&rig)["daemons"][0]["volumes"][0]["clients"] != 0 {
        assert!(std::time::Instant::now() < deadline, "a client that has gone is counted");
    }

    // All daemons of the host: other tests' among them.
    let all = json(&["status", "--json"], 0);
    let mine = all["daemons"].as_array().unwrap().iter().find(|one| one["pid"] == daemon.pid()).unwrap();
    assert_eq!(mine["volumes"].as_array().unwrap().len(), 2);
    let text = lsvd(&["status", "--control", daemon.control().to_str().unwrap()]);
    assert!(
        text.expect(0, &[]).stdout.contains(&format!("db2\tserving\t1T\t0\t0 B\t0 B\t0 B\t{}", daemon.pid()))
    );
    let text = lsvd(&["status", &rig.url("db1")]);
    for words in
        ["url\tfile://", "state\tserving\n", "buffered\tall is in the store", "writers\tfenced by epoch"]
    {
        assert!(text.expect(0, &[]).stdout.contains(words), "no '{words}' in {text:?}");
    }
    assert!(lsvd(&["info", &rig.url("db1")]).stdout.contains("daemon here\tserving, 0 clients"));
    let control = daemon.control();
    daemon.stop().expect(0, &[]);
    assert!(!control.exists(), "a daemon takes its socket along");
    lsvd(&["status", &rig.url("db1")]).expect(6, &["no daemon of this host serves volume 'db1'", "help: "]);
    assert_eq!(json(&["info", &rig.url("db1"), "--json"], 0)["daemon"], Value::Null);
}

/// What a killed daemon leaves is in nobody's way, and its successor is found by the same link.
#[test]
fn a_killed_daemon_and_its_successor() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let link = link(&rig);
    let first = rig.serve("db1", "s", &QUICK);
    let left = first.control();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(left.file_name().unwrap()));
    first.kill();
    assert!(left.exists() && link.symlink_metadata().is_ok());
    lsvd(&["status", &rig.url("db1")]).expect(6, &[]);
    let second = rig.serve("db1", "s2", &QUICK);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(second.control().file_name().unwrap()));
    assert_eq!(status(&rig)["daemons"][0]["pid"], second.pid());
    second.stop().expect(0, &[]);
    assert!(link.symlink_metadata().is_err());
    let _ = fs::remove_file(left);
}

/// A link to nothing, to a file, and to another daemon: the daemon is found in spite of them.
#[test]
fn links_that_lead_nowhere() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    rig.create("db2", "64M");
    let link = link(&rig);
    let other = rig.serve("db2", "s2", &[]);
    let daemon = rig.serve("db1", "s", &[]);
    for target in [Path::new("nothing.sock"), Path::new("/etc/hostname"), &other.control(), &link] {
        fs::remove_file(&link).unwrap();
        symlink(target, &link).unwrap();
        assert_eq!(status(&rig)["daemons"][0]["pid"], daemon.pid(), "{}", target.display());
    }
    fs::remove_file(&link).unwrap();
    assert_eq!(status(&rig)["daemons"][0]["pid"], daemon.pid());
    daemon.stop().expect(0, &[]);
    // One that nobody serves is not found at the other daemon either.
    symlink(other.control(), &link).unwrap();
    lsvd(&["status", &rig.url("db1")]).expect(6, &[]);
    fs::remove_file(&link).unwrap();
    other.stop().expect(0, &[]);
}

/// The daemon that took the volume over is found, not the one that it was taken from; and that one, when it ends, leaves its
/// successor's link alone.
#[test]
fn a_fenced_daemon_is_not_asked() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    rig.create("db2", "64M");
    let old = rig.serve_urls(&[&rig.url("db1"), &rig.url("db2")], "s", &QUICK);
    let new = rig.serve("db1", "s2", &QUICK);
    assert_eq!(status(&rig)["daemons"][0]["pid"], new.pid());
    // It learns of it when it writes.
    let mut client = old.client("db1");
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Flush).unwrap_err();
    let said = json(&["status", "--control", old.control().to_str().unwrap(), "--json"], 0);
    let volume = &said["daemons"][0]["volumes"][0];
    assert_eq!(volume["state"], "ended", "{volume}");
    assert!(volume["error"].as_str().unwrap().contains("taken over"), "{volume}");
    let at = old.control();
    lsvd(&["status", &rig.url("db1"), "--control", at.to_str().unwrap()]).expect(6, &[]);
    assert_eq!(gc(&rig, "gc", &[])["through"], "daemon");
    old.signal(Signal::TERM);
    old.end().expect(4, &[]);
    assert_eq!(status(&rig)["daemons"][0]["pid"], new.pid());
    new.stop().expect(0, &[]);
}

/// A reader beside a writer: the writer is the one that collects, and readers are found when there is no writer.
#[test]
fn a_writer_is_found_rather_than_a_reader() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let writer = rig.serve("db1", "s", &QUICK);
    let reader = rig.serve("db1", "s2", &["--read-only"]);
    assert_eq!(status(&rig)["daemons"][0]["pid"], writer.pid());
    assert_eq!(gc(&rig, "gc", &[])["through"], "daemon");
    writer.stop().expect(0, &[]);
    let found = status(&rig);
    assert_eq!(found["daemons"][0]["pid"], reader.pid());
    assert_eq!(found["daemons"][0]["volumes"][0]["read_only"], true);
    // A reader can not collect; nobody has the volume open for writing.
    assert_eq!(gc(&rig, "gc", &["--delete-after", "1s"])["through"], "store");
    reader.stop().expect(0, &[]);
}

/// A copy of a volume's objects has the same identity. The daemon of the other one is not told to change it.
#[test]
fn a_copy_is_not_mistaken_for_the_volume() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    let copy = rig.volume("copy");
    for folder in ["superblock", "log"] {
        fs::create_dir_all(copy.join(folder)).unwrap();
        for path in rig.objects("db1", folder) {
            fs::copy(&path, copy.join(folder).join(path.file_name().unwrap())).unwrap();
        }
    }
    let refused = lsvd(&["gc", &rig.url("copy"), "--if-free", "1s"]);
    refused.expect(8, &["serves the volume", "bucket/db1", "--no-control"]);
    lsvd(&["gc", &rig.url("copy"), "--dry-run", "--no-control"]).expect(0, &[]);
    daemon.stop().expect(0, &[]);
}

/// Nobody else can connect; where no control socket can be made a daemon serves without, unless it was asked for.
#[test]
fn where_the_socket_can_be() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let directory = rig.path("control");
    let at = directory.to_str().unwrap();
    let daemon = rig.serve("db1", "s", &["--control", at]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let socket = directory.join(format!("daemon-{}.sock", daemon.pid()));
    assert_eq!((mode(&directory), mode(&socket)), (0o700, 0o600));
    assert_eq!(
        json(&["status", &rig.url("db1"), "--json", "--control", at], 0)["daemons"][0]["pid"],
        daemon.pid()
    );
    lsvd(&["status", &rig.url("db1")]).expect(6, &[]);
    daemon.stop().expect(0, &[]);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);

    fs::write(rig.path("file"), "").unwrap();
    fs::create_dir(rig.path("shared")).unwrap();
    fs::set_permissions(rig.path("shared"), fs::Permissions::from_mode(0o777)).unwrap();
    let url = rig.url("db1");
    let versions = rig.objects("db1", "superblock");
    for (place, words) in [("file", "cannot make"), ("shared", "can be written by others")] {
        let listen = format!("unix:{}", rig.path("s").display());
        let place = rig.path(place);
        lsvd(&["serve", &url, "--listen", &listen, "--control", place.to_str().unwrap()]).expect(1, &[words]);
    }
    assert_eq!(rig.objects("db1", "superblock"), versions, "nothing was opened");
    let elsewhere = format!("XDG_RUNTIME_DIR={}", rig.path("file").display());
    let listen = format!("unix:{}", rig.path("s").display());
    let arguments = [&elsewhere, env!("CARGO_BIN_EXE_lsvd"), "serve", &url, "--listen", &listen];
    let daemon = Daemon::start_as("/usr/bin/env", &arguments, rig.path("s"));
    daemon.client("db1").call(write(0, block(1))).unwrap();
    daemon.stop().expect(0, &["no control socket"]);
    let daemon = rig.serve("db1", "s", &["--no-control"]);
    assert!(!daemon.control().exists());
    daemon.stop().expect(0, &[]);
}

/// Another user of the host learns nothing and takes nothing over by mistake.
#[test]
fn another_user() {
    use std::os::unix::process::CommandExt;
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    if !rustix::process::geteuid().is_root() {
        // Only root can become somebody else; what another user is refused is the mode that `where_the_socket_can_be` checks.
        return daemon.kill();
    }
    let copy = PathBuf::from(format!("/tmp/lsvd-{}", std::process::id()));
    fs::copy(env!("CARGO_BIN_EXE_lsvd"), &copy).unwrap();
    for path in [rig.path(""), runtime_dir(), runtime_dir().join("lsvd")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // It can write to the store, as one who shares the keys of a bucket can.
    fs::create_dir_all(rig.volume("db1").join("probe")).unwrap();
    fs::set_permissions(rig.volume("db1").join("probe"), fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = std::process::Command::new(&copy);
    command.args(["gc", &rig.url("db1")]).env("XDG_RUNTIME_DIR", runtime_dir()).uid(65534).gid(65534);
    let refused = run(&mut command);
    fs::remove_file(&copy).unwrap();
    refused.expect(8, &["can not be seen", "Permission denied", "can not be asked here"]);
    daemon.stop().expect(0, &["closed cleanly"]);
}

/// One that is stopped is not waited for: it is said, and the volume is left to it, however long it was idle.
#[test]
fn a_daemon_that_does_not_answer() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    daemon.signal(Signal::STOP);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    lsvd(&["gc", &rig.url("db1"), "--if-free", "1s"]).expect(8, &["does not answer", "can not be asked"]);
    let at = daemon.control();
    lsvd(&["status", "--control", at.to_str().unwrap()]).expect(1, &["does not answer"]);
    daemon.signal(Signal::CONT);
    assert_eq!(status(&rig)["daemons"][0]["pid"], daemon.pid());
    daemon.stop().expect(0, &[]);
}

/// By hand, as docs/control.md shows it: without a greeting, several on one connection, in any order.
#[test]
fn by_hand() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    let hello = ask(&daemon.control(), r#"{"jsonrpc":"2.0","id":"a","method":"hello"}"#);
    assert_eq!((&hello["id"], &hello["result"]["protocol"]), (&"a".into(), &1.into()), "{hello}");
    assert_eq!(hello["result"]["volumes"][0]["name"], "db1");
    let unknown = ask(&daemon.control(), r#"{"jsonrpc":"2.0","id":1,"method":"format-c"}"#);
    assert_eq!(unknown["error"]["code"], -32601, "{unknown}");
    let params = r#"{"jsonrpc":"2.0","id":1,"method":"gc","params":{"volume":"db1","dry-run":true}}"#;
    let wrong = ask(&daemon.control(), params);
    assert_eq!(wrong["error"]["code"], -32602, "a parameter that is not known is refused: {wrong}");
    let info =
        ask(&daemon.control(), r#"{"jsonrpc":"2.0","id":1,"method":"info","params":{"volume":"db1"}}"#);
    assert_eq!(info["result"]["daemon"]["volume_id"], info["result"]["volume_id"]);
    let nobody =
        ask(&daemon.control(), r#"{"jsonrpc":"2.0","id":1,"method":"info","params":{"volume":"x"}}"#);
    assert_eq!(nobody["error"]["data"]["kind"], "not-served", "{nobody}");
    daemon.stop().expect(0, &[]);
}

/// A daemon that ends gives up what it was asked for, and does not wait for it.
#[test]
fn a_daemon_that_ends_waits_for_no_collection() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &["--batch", "1M", "--gc-target", "off", "--delete-after", "1h"]);
    kill_half(&daemon);
    let mut waiting = Running::start(&["gc", &rig.url("db1")]);
    waiting.until_it_says("dead objects are deleted in 3600 s");
    let began = std::time::Instant::now();
    daemon.stop().expect(0, &["closed cleanly"]);
    assert!(began.elapsed() < PATIENCE / 2);
    waiting.end().expect(1, &["told to end before this was done"]);
}

/// What docs/control.md shows is what a daemon says: each request there is sent, and its answer compared.
#[test]
fn the_documents_examples() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    let document = include_str!("../../../../docs/control.md");
    let examples: Vec<Value> = document
        .split("```json\n")
        .skip(1)
        .flat_map(|rest| rest.split("```").next().unwrap().lines())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let mut replayed = 0;
    for pair in examples.chunks(2) {
        assert!(pair[0].get("method").is_some(), "{} is no request", pair[0]);
        let answer = ask(&daemon.control(), &pair[0].to_string());
        fits(&answer, &pair[1], "answer");
        replayed += 1;
    }
    assert!(replayed >= 4);
    daemon.stop().expect(0, &[]);
}

/// Whether `found` is as `shown`, where `<text>` and `<number>` stand for any.
#[track_caller]
fn fits(found: &Value, shown: &Value, at: &str) {
    match (found, shown) {
        (Value::String(_), Value::String(any)) if any == "<text>" => {}
        (Value::Number(_), Value::String(any)) if any == "<number>" => {}
        (Value::Object(found), Value::Object(shown)) if shown.contains_key("<text>") => {
            found.values().for_each(|value| fits(value, &shown["<text>"], at));
        }
        (Value::Object(found), Value::Object(shown)) => {
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(found), names(shown), "the fields of {at}");
            found.iter().for_each(|(name, value)| fits(value, &shown[name], &format!("{at}.{name}")));
        }
        (Value::Array(found), Value::Array(shown)) if found.len() == shown.len() => {
            found.iter().zip(shown).for_each(|(found, shown)| fits(found, shown, at));
        }
        _ => assert_eq!(found, shown, "{at}"),
    }
}

/// In a pipe: heads, then a line for each interval, with what came in it.
#[test]
fn top_in_a_pipe() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    let url = rig.url("db1");
    let watching = std::thread::spawn(move || lsvd(&["top", &url, "-n", "3", "--interval", "500ms"]));
    let mut client = daemon.client("db1");
    while !watching.is_finished() {
        client.call(write(0, block(1))).unwrap();
        client.call(Request::Flush).unwrap();
        client.call(read(0, 4096)).unwrap();
    }
    let ended = watching.join().unwrap();
    let rows: Vec<Vec<&str>> =
        ended.expect(0, &[]).stdout.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 4, "{ended:?}");
    let column = |name: &str| rows[0].iter().position(|head| *head == name).unwrap();
    for row in &rows[1..] {
        assert_eq!((row[0], row[1], row[2], row.len()), ("db1", "serving", "1", rows[0].len()));
        for name in ["read/s", "write/s", "flush/s", "write_p99_ms", "flush_p50_ms", "put/s", "put_mib/s"] {
            assert!(row[column(name)].parse::<f64>().unwrap() > 0.0, "{name} of {row:?}");
        }
        assert_eq!((row[column("errors/s")], row[column("live_bytes")]), ("0.0", "4096"));
    }
    drop(client);
    let volume = &status(&rig)["daemons"][0]["volumes"][0];
    let requests = |kind: &str| volume["requests"][kind]["requests"].as_u64().unwrap();
    assert!(requests("flush") > 3 && requests("write").abs_diff(requests("flush")) <= 1, "{volume}");
    assert_eq!(volume["requests"]["write"]["bytes"], requests("write") * 4096);
    let times = volume["requests"]["flush"]["latency_us"].as_array().unwrap();
    assert_eq!(times.iter().map(|pair| pair[1].as_u64().unwrap()).sum::<u64>(), requests("flush"));
    assert!(volume["store"]["puts"].as_u64() > volume["stats"]["objects_written"].as_u64(), "{volume}");
    daemon.stop().expect(0, &[]);
    lsvd(&["top", &rig.url("db1"), "-n", "1"]).expect(6, &["no daemon of this host"]);
}

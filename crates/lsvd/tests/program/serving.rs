//! `lsvd serve`, end to end: what was flushed survives, who comes second takes over, who is told to stop stops.

use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use crate::nbd_client::{Client, Request};
use crate::rig::{Daemon, ESHUTDOWN, Rig, block, lsvd, read, write};

const EPERM: i32 = 1;

/// Rule 1: what was flushed survives `kill -9`; nothing but the bucket is left.
#[test]
fn kill_9_keeps_what_was_flushed() {
    let rig = Rig::new();
    rig.create("db1", "1T");
    let daemon = rig.serve("db1", "s", &[]);
    assert!(daemon.uris[0].starts_with("nbd+unix:///db1?socket=/"), "{:?}", daemon.uris);
    let mut client = daemon.client("db1");
    assert_eq!(client.size_bytes(), 1 << 40);
    let far = (1 << 40) - 4096;
    let requests = (0..64).map(|index| write(index * 4096, block(u8::try_from(index).unwrap())));
    client.pipeline(requests, 16, |_, _| Ok(())).unwrap();
    client.call(write(far, block(99))).unwrap();
    client.call(Request::Flush).unwrap();
    client.call(Request::Write { offset_bytes: 1 << 30, data: block(77), fua: true }).unwrap();
    daemon.kill();

    let daemon = rig.serve("db1", "other", &[]);
    let mut client = daemon.client("db1");
    for index in 0..64_u8 {
        assert_eq!(client.call(read(u64::from(index) * 4096, 4096)).unwrap(), block(index));
    }
    assert_eq!(client.call(read(far, 4096)).unwrap(), block(99));
    assert_eq!(client.call(read(1 << 30, 4096)).unwrap(), block(77));
    assert_eq!(client.call(read(1 << 31, 4096)).unwrap(), block(0));
    client.disconnect().unwrap();
    daemon.stop().expect(0, &["closed cleanly"]);
}

/// A signal ends with everything in the store, flushed or not, and the volume says so.
#[test]
fn sigterm_closes_cleanly() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &["--batch-age", "1h"]);
    let mut client = daemon.client("db1");
    client.call(write(8192, block(5))).unwrap();
    daemon.stop().expect(0, &["SIGTERM", "closed cleanly"]);
    assert!(!rig.path("s").exists(), "the socket is gone");
    assert!(lsvd(&["info", &rig.url("db1")]).stdout.contains("closed cleanly"));

    let daemon = rig.serve("db1", "s", &[]);
    assert_eq!(daemon.client("db1").call(read(8192, 4096)).unwrap(), block(5));
    daemon.signal(rustix::process::Signal::INT);
    daemon.end().expect(0, &["SIGINT", "closed cleanly"]);
}

/// A store that takes nothing holds a shutdown up for the stated time and no longer; what is lost then is what a crash loses:
/// nothing, where the next daemon is handed what this one answered.
#[test]
fn a_shutdown_ends_in_time_without_the_store() {
    shut_down_without_the_store(&["--shutdown-timeout", "1s", "--batch-age", "1h"], 2);
    shut_down_without_the_store(&["--shutdown-timeout", "1s", "--batch-age", "1h", "--no-handover"], 1);
}

fn shut_down_without_the_store(flags: &[&str], left: u8) {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", flags);
    let mut client = daemon.client("db1");
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Flush).unwrap();
    client.call(write(0, block(2))).unwrap();
    client.disconnect().unwrap();
    std::fs::rename(rig.volume("db1"), rig.path("away")).unwrap();
    std::fs::write(rig.volume("db1"), "no directory").unwrap();
    daemon.stop().expect(3, &["not closed in time", "not_stored_bytes=4224"]);
    std::fs::remove_file(rig.volume("db1")).unwrap();
    std::fs::rename(rig.path("away"), rig.volume("db1")).unwrap();
    let daemon = rig.serve("db1", "s", &[]);
    assert_eq!(daemon.client("db1").call(read(0, 4096)).unwrap(), block(left));
}

/// Who reconnects flushes at the next daemon what this one answered: it is there. Nothing of the host is needed for what was
/// flushed.
#[test]
fn a_killed_daemon_hands_over_what_it_answered() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let place = rig.path("handover").display().to_string();
    for flags in [&["--handover", &place][..], &["--flush", "journal", "--journal", &place]] {
        let flags = [flags, &["--batch-age", "1h"]].concat();
        let daemon = rig.serve("db1", "s", &flags);
        let mut client = daemon.client("db1");
        client.call(write(0, block(1))).unwrap();
        client.call(Request::Flush).unwrap();
        let many = (1..200).map(|index| write(index * 4096, block(2)));
        client.pipeline(many, 16, |_, _| Ok(())).unwrap();
        daemon.kill();
        let daemon = rig.serve("db1", "s", &flags);
        let mut client = daemon.client("db1");
        client.call(Request::Flush).unwrap();
        for index in [0, 1, 100, 199] {
            assert_eq!(client.call(read(index * 4096, 4096)).unwrap(), block(if index == 0 { 1 } else { 2 }));
        }
        drop(client);
        daemon.stop().expect(0, &["closed cleanly"]);
    }
}

/// Rules 1 and 9: the second daemon has all that was flushed; the first fails its clients' I/O with ESHUTDOWN and
/// ends with its own exit code.
#[test]
fn a_second_daemon_takes_over() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let first = rig.serve("db1", "first", &[]);
    let mut old = first.client("db1");
    old.call(write(0, block(1))).unwrap();
    old.call(Request::Flush).unwrap();

    let second = rig.serve("db1", "second", &[]);
    let mut new = second.client("db1");
    assert_eq!(new.call(read(0, 4096)).unwrap(), block(1));
    new.call(write(0, block(2))).unwrap();
    new.call(Request::Flush).unwrap();

    let refused = old.call(write(0, block(3))).and_then(|_| old.call(Request::Flush)).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(ESHUTDOWN), "{refused}");
    first.end().expect(4, &["taken over"]);
    assert_eq!(new.call(read(0, 4096)).unwrap(), block(2));
    drop(new);
    second.stop().expect(0, &[]);
}

/// The same command twice, by mistake: the second fails on the socket, before it could take anything over.
#[test]
fn a_live_socket_is_not_taken_and_nobody_is_fenced() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let daemon = rig.serve("db1", "s", &[]);
    let listen = format!("unix:{}", rig.path("s").display());
    lsvd(&["serve", &rig.url("db1"), "--listen", &listen]).expect(1, &["another process is listening"]);
    let mut client = daemon.client("db1");
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Flush).unwrap();
    drop(client);
    daemon.stop().expect(0, &[]);
}

#[test]
fn a_stale_socket_is_replaced() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    rig.serve("db1", "s", &[]).kill();
    assert!(rig.path("s").exists(), "a killed daemon leaves its socket");
    let daemon = rig.serve("db1", "s", &[]);
    assert_eq!(daemon.client("db1").size_bytes(), 64 << 20);
    daemon.stop().expect(0, &[]);
}

/// Several volumes are named exports; none of them is the default one, and one that is fenced does not end the rest.
#[test]
fn several_volumes_in_one_daemon() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    rig.create("db2", "1G");
    let mut daemon = rig.serve_urls(&[&rig.url("db1"), &rig.url("db2")], "s", &[]);
    assert!(daemon.next_uri().starts_with("nbd+unix:///db2?socket="));
    assert_eq!(daemon.client("db1").size_bytes(), 64 << 20);
    assert_eq!(daemon.client("db2").size_bytes(), 1 << 30);
    for unknown in ["", "db3"] {
        assert!(Client::connect(daemon.socket(), unknown).is_err(), "'{unknown}'");
    }

    let mut old = daemon.client("db1");
    let thief = rig.serve("db1", "thief", &[]);
    let refused = old.call(write(0, block(3))).and_then(|_| old.call(Request::Flush)).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(ESHUTDOWN), "{refused}");
    let mut other = daemon.client("db2");
    other.call(write(0, block(4))).unwrap();
    other.call(Request::Flush).unwrap();
    thief.stop().expect(0, &[]);
    daemon.stop().expect(4, &["taken over", "closed cleanly"]);
}

#[test]
fn one_volume_is_the_default_export_too() {
    let rig = Rig::new();
    let daemon = rig.serve("db1", "s", &["--create", "64M"]);
    assert_eq!(daemon.client("").size_bytes(), 64 << 20);
    assert_eq!(daemon.client("db1").size_bytes(), 64 << 20);
    daemon.stop().expect(0, &["volume created"]);
    // `--create` leaves alone what is there.
    let daemon = rig.serve("db1", "s", &["--create", "1G"]);
    assert_eq!(daemon.client("").size_bytes(), 64 << 20);
    daemon.stop().expect(0, &[]);
}

/// Rule 3: a read-only opening writes nothing, not even a fence.
#[test]
fn read_only_writes_nothing() {
    let rig = Rig::new();
    let daemon = rig.serve("db1", "s", &["--create", "64M"]);
    let mut writer = daemon.client("db1");
    writer.call(write(0, block(7))).unwrap();
    writer.call(Request::Flush).unwrap();

    let before = files(&rig);
    let reader = rig.serve("db1", "ro", &["--read-only"]);
    let mut client = reader.client("db1");
    assert_eq!(client.flags() & 2, 2, "the read-only flag is told");
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(7));
    assert_eq!(client.call(write(0, block(8))).unwrap_err().raw_os_error(), Some(EPERM));
    drop(client);
    reader.stop().expect(0, &[]);
    assert_eq!(files(&rig), before);

    writer.call(write(0, block(9))).unwrap();
    writer.call(Request::Flush).unwrap();
    drop(writer);
    daemon.stop().expect(0, &[]);
}

fn files(rig: &Rig) -> Vec<std::path::PathBuf> {
    let mut folders = vec![rig.volume("db1")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// A volume in memory needs its creation in the same process. TCP, with a client that we did not write.
#[test]
fn memory_and_tcp_with_the_nbd_crates_client() {
    let rig = Rig::new();
    let arguments = ["serve", "memory://trial/db1", "--create", "64M", "--listen", "tcp:127.0.0.1:0"];
    let daemon = Daemon::start(&arguments, rig.path("none"));
    let address = daemon.uris[0].strip_prefix("nbd://").unwrap().strip_suffix("/db1").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let export = nbd::client::handshake(&mut stream, b"db1").unwrap();
    assert_eq!(export.size, 64 << 20);
    let mut disk = nbd::client::NbdClient::new(&mut stream, &export);
    disk.seek(SeekFrom::Start(12_345)).unwrap();
    disk.write_all(b"somewhere in the middle of a block").unwrap();
    disk.seek(SeekFrom::Start(12_345)).unwrap();
    let mut words = [0; 34];
    disk.read_exact(&mut words).unwrap();
    assert_eq!(&words, b"somewhere in the middle of a block");
    drop(stream);
    daemon.stop().expect(0, &[]);
}

/// Garbage, an absurd length and a client that vanishes in the middle of a write hurt nobody else.
#[test]
fn nbd_garbage_hurts_nobody_else() {
    let rig = Rig::new();
    let daemon = rig.serve("db1", "s", &["--create", "64M"]);
    let mut good = daemon.client("db1");
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0; 16], b""] {
        let mut bad = UnixStream::connect(daemon.socket()).unwrap();
        // The daemon may close before all is written.
        let _ = bad.write_all(garbage);
    }
    let mut vanishing = daemon.client("db1");
    vanishing.send(&write(0, vec![1; 1 << 20])).unwrap();
    drop(vanishing);
    let absurd = daemon.client("db1").call(read(0, u32::MAX)).unwrap_err();
    assert!(absurd.raw_os_error().is_some(), "an absurd length is answered: {absurd}");
    let beyond = daemon.client("db1").call(read(64 << 20, 4096)).unwrap_err();
    assert!(beyond.raw_os_error().is_some(), "beyond the end is answered: {beyond}");
    good.call(write(1 << 21, block(6))).unwrap();
    good.call(Request::Trim { offset_bytes: 0, length_bytes: 1 << 20 }).unwrap();
    good.call(Request::Flush).unwrap();
    assert_eq!(good.call(read(1 << 21, 4096)).unwrap(), block(6));
    drop(good);
    daemon.stop().expect(0, &[]);
}

/// A service manager's socket is served as it is, and left alone at the end: connections that came before the daemon was
/// ready are answered, and none is refused while it restarts.
#[test]
fn a_service_managers_socket_is_used() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let socket = rig.path("handed");
    // What systemd does: binds, listens, and hands over as the third descriptor.
    let code = "import os, socket, sys\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\ns.bind(sys.argv[1])\ns.listen(8)\n\
        os.dup2(s.fileno(), 3)\nos.set_inheritable(3, True)\nos.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n\
        os.execv(sys.argv[2], sys.argv[2:])";
    let url = rig.url("db1");
    let arguments = ["-c", code, &socket.display().to_string(), env!("CARGO_BIN_EXE_lsvd"), "serve", &url]
        .map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let daemon = Daemon::start_as("/usr/bin/python3", &arguments, socket.clone());
    assert!(daemon.uris[0].contains("handed"), "{:?}", daemon.uris);
    daemon.client("db1").call(write(0, block(7))).unwrap();
    daemon.stop().expect(0, &["closed cleanly"]);
    assert!(socket.exists(), "it is not ours to remove");
}

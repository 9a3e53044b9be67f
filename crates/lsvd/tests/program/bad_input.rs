//! What is wrong with the store or in it: said clearly, with the exit code that tells what to do, and nothing lost.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::nbd_client::Request;
use crate::rig::{Rig, block, lsvd, read, write};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[test]
fn a_volume_that_is_not_there() {
    let rig = Rig::new();
    for url in [rig.url("db1"), format!("file://{}/db1", rig.path("missing").display())] {
        lsvd(&["info", &url]).expect(6, &["error: cannot read volume 'db1'"]);
        let listen = format!("unix:{}", rig.path("s").display());
        lsvd(&["serve", &url, "--listen", &listen]).expect(6, &["error: cannot open volume 'db1'"]);
    }
    assert!(!rig.path("missing").exists(), "looking makes nothing");
    let above = format!("file://{}", rig.path("missing").display());
    lsvd(&["ls", &above]).expect(6, &["cannot list"]);
}

/// What is there is left as it is.
#[test]
fn a_volume_that_is_there_already() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let before = fs::read(&rig.objects("db1", "superblock")[0]).unwrap();
    lsvd(&["create", &rig.url("db1"), "--size", "1T"]).expect(6, &["already"]);
    let superblocks = rig.objects("db1", "superblock");
    assert_eq!(superblocks.len(), 1);
    assert_eq!(fs::read(&superblocks[0]).unwrap(), before);
}

/// What was made is told, with what the store promises and what to do next.
#[test]
fn creating_says_what_was_made() {
    let rig = Rig::new();
    let made = lsvd(&["create", &rig.url("new/db1"), "--size", "1T"]);
    made.expect(0, &[]);
    for words in [
        "created volume 'db1'",
        "1T (1,099,511,627,776 bytes)",
        "create-only PUT, in a race too",
        "lsvd serve file://",
    ] {
        assert!(made.stdout.contains(words), "no '{words}' in {}", made.stdout);
    }
}

/// A store that is not there: named, with what to check, and within the time that a user waits.
#[test]
fn a_store_that_is_away() {
    let mut command = crate::rig::program();
    command
        .args(["create", "s3://acme/db1", "--size", "1G", "--allow-http", "--endpoint", "http://127.0.0.1:1"])
        .args(["--region", "auto", "--timeout", "1s"])
        .env("AWS_ACCESS_KEY_ID", "someone")
        .env("AWS_SECRET_ACCESS_KEY", "hunter2");
    let ended = crate::rig::run(&mut command);
    ended.expect(3, &["error: cannot create volume 'db1'", "s3://acme/db1"]);
    assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
}

/// Without credentials and with an endpoint of one's own no cloud's metadata service is asked.
#[test]
fn credentials_that_are_missing() {
    let arguments = ["info", "s3://acme/db1", "--endpoint", "http://127.0.0.1:1", "--allow-http"];
    lsvd(&arguments).expect(3, &["AWS_ACCESS_KEY_ID"]);
}

/// A volume with two flushed blocks in two log objects; their files are returned.
fn written(rig: &Rig) -> Vec<PathBuf> {
    let daemon = rig.serve("db1", "s", &["--create", "64M"]);
    let mut client = daemon.client("db1");
    let mut files = Vec::new();
    for index in 0..2_u8 {
        client.call(write(u64::from(index) * 4096, block(index + 1))).unwrap();
        client.call(Request::Flush).unwrap();
        files.push(rig.objects("db1", "log").pop().unwrap());
    }
    drop(client);
    daemon.stop().expect(0, &[]);
    assert_ne!(files[0], files[1]);
    files
}

fn flip(path: &Path, offset_bytes: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset_bytes).unwrap();
    byte[0] ^= 0x40;
    file.write_all_at(&byte, offset_bytes).unwrap();
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Rules 3 and 4: a header that is damaged is named, opens nothing, deletes nothing; `--read-only` opens what is whole.
#[test]
fn a_corrupt_log_object_is_named_and_nothing_is_lost() {
    let rig = Rig::new();
    let files = written(&rig);
    flip(&files[1], 40);
    let before = rig.objects("db1", "log");
    let listen = format!("unix:{}", rig.path("s").display());
    lsvd(&["serve", &rig.url("db1"), "--listen", &listen])
        .expect(5, &["error: cannot open volume 'db1'", name(&files[1]), "corrupt"]);
    assert_eq!(rig.objects("db1", "log"), before);

    let daemon = rig.serve("db1", "s", &["--read-only"]);
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(1));
    drop(client);
    daemon.stop().expect(0, &[name(&files[1])]);
    assert_eq!(rig.objects("db1", "log"), before);
}

#[test]
fn a_truncated_log_object_is_named() {
    let rig = Rig::new();
    let files = written(&rig);
    let length = fs::metadata(&files[0]).unwrap().len();
    OpenOptions::new().write(true).open(&files[0]).unwrap().set_len(length - 100).unwrap();
    let listen = format!("unix:{}", rig.path("s").display());
    lsvd(&["serve", &rig.url("db1"), "--listen", &listen]).expect(5, &[name(&files[0])]);
}

/// Rule 4: a log whose newest objects are missing is not taken for a shorter one, unless the user says that it is.
#[test]
fn a_log_that_lost_its_end_is_not_a_shorter_log() {
    let rig = Rig::new();
    written(&rig);
    // With its end, the objects from the second write on.
    let lost = rig.objects("db1", "log").split_off(2);
    lost.iter().for_each(|path| fs::remove_file(path).unwrap());
    let listen = format!("unix:{}", rig.path("s").display());
    lsvd(&["serve", &rig.url("db1"), "--listen", &listen]).expect(5, &["--accept-shorter-log"]);
    let daemon = rig.serve("db1", "s", &["--accept-shorter-log"]);
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(1));
    assert_eq!(client.call(read(4096, 4096)).unwrap(), block(0));
    drop(client);
    daemon.stop().expect(0, &[]);
}

/// Rule 5: a byte that fails verification is an I/O error to the client and a log line, never data.
#[test]
fn corrupt_data_is_an_io_error() {
    let rig = Rig::new();
    let files = written(&rig);
    let length = fs::metadata(&files[1]).unwrap().len();
    flip(&files[1], length - 5);
    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(1));
    for _ in 0..2 {
        let error = client.call(read(4096, 4096)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EIO), "{error}");
    }
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(1));
    drop(client);
    daemon.stop().expect(0, &[name(&files[1])]);
}

#[test]
fn a_corrupt_superblock_is_named() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let file = rig.objects("db1", "superblock").pop().unwrap();
    flip(&file, 100);
    let listen = format!("unix:{}", rig.path("s").display());
    for arguments in [&["info"][..], &["serve", "--listen", &listen]] {
        let mut all = arguments.to_vec();
        let url = rig.url("db1");
        all.insert(1, &url);
        lsvd(&all).expect(5, &["superblock/0000000000000001", "corrupt"]);
    }
}

/// What a newer lsvd wrote is not touched.
#[test]
fn a_newer_format_is_refused() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let file = rig.objects("db1", "superblock").pop().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("lsvd superblock format=2 "), "{text}");
    fs::write(file, text.replace("format=2", "format=3")).unwrap();
    let listen = format!("unix:{}", rig.path("s").display());
    lsvd(&["info", &rig.url("db1")]).expect(5, &["newer"]);
    lsvd(&["serve", &rig.url("db1"), "--listen", &listen]).expect(5, &["newer"]);
    assert_eq!(rig.objects("db1", "superblock").len(), 1);
}

/// A small file system of its own; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Option<Self> {
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&path).status();
        status.is_ok_and(|status| status.success()).then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A full disk is an error to the client, keeps what was flushed, and is over when there is room again.
#[test]
fn a_full_disk_loses_nothing() {
    let rig = Rig::new();
    let Some(_disk) = SmallDisk::mount(rig.path("bucket")) else {
        println!("SKIPPED: a small tmpfs can not be mounted here (that needs root)");
        return;
    };
    let ballast = rig.path("bucket/ballast");
    fs::write(&ballast, vec![0; 2 << 20]).unwrap();
    let daemon =
        rig.serve("db1", "s", &["--create", "64M", "--batch", "1M", "--io-timeout", "3s", "--no-handover"]);
    let mut client = daemon.client("db1");
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Flush).unwrap();

    let many = (1..=12).map(|index| write(index << 20, vec![2; 1 << 20]));
    let error =
        client.pipeline(many, 1, |_, _| Ok(())).and_then(|()| client.call(Request::Flush).map(|_| ()));
    let error = error.unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(EIO | ENOSPC)), "{error}");
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(1));
    // What is buffered can not be uploaded: a second signal ends the waiting.
    daemon.signal(rustix::process::Signal::TERM);
    std::thread::sleep(Duration::from_millis(500));
    daemon.stop().expect(130, &["as safe as a crash"]);

    fs::remove_file(ballast).unwrap();
    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(1));
    drop(client);
    daemon.stop().expect(0, &[]);
}

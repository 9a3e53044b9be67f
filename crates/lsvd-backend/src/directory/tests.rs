//! A directory that is strict: unmounted, replaced, unreadable and full ones are errors, never absences.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::bucket::{Bucket, Created};
use crate::error::Error;
use crate::open::StoreOptions;
use crate::retry::RetryPolicy;
use crate::url::BucketUrl;

fn open(path: &std::path::Path, create_root: bool) -> Result<Bucket, Error> {
    let url: BucketUrl = format!("file://{}", path.display()).parse().unwrap();
    Bucket::open(&url, &StoreOptions { create_root, ..StoreOptions::default() })
}

/// For what fails for good: the disk's own pace must not decide, so nothing that succeeds has this limit.
fn impatient(bucket: &Bucket) -> Bucket {
    let total_limit = Duration::from_millis(50);
    bucket.clone().with_retry(RetryPolicy {
        total_limit,
        backoff_first: total_limit / 10,
        ..RetryPolicy::default()
    })
}

#[tokio::test]
async fn a_missing_directory_is_named_and_made_only_when_asked() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a/b/c");
    let error = open(&path, false).expect_err("it is not there");
    assert!(matches!(&error, Error::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("a/b/c"), "{error}");
    assert!(!temp.path().join("a").exists(), "opening makes nothing");

    let bucket = open(&path, true).unwrap();
    assert_eq!(bucket.create("log/1", "x".into()).await.unwrap(), Created::Done);
    assert!(path.join("log/1").exists());
    open(&path, false).unwrap();
}

/// A writer that is killed in the middle of a PUT leaves part of an object: the next writer makes room, but not of what
/// somebody may still be writing.
#[tokio::test]
async fn what_a_killed_writer_left_is_removed_by_the_next() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("log")).unwrap();
    let file = |name: &str, hours: u64| {
        let file = std::fs::File::create(temp.path().join("log").join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    };
    for (name, hours) in [("3#1", 2), ("4#1", 0), ("4#x", 2), ("2", 2)] {
        file(name, hours);
    }
    let left = || {
        let entries = std::fs::read_dir(temp.path().join("log")).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let bucket = open(temp.path(), false).unwrap();
    bucket.list("log", None).await.unwrap();
    assert_eq!(left(), ["2", "3#1", "4#1", "4#x"], "reading removes nothing (rule 3)");
    bucket.create("log/5", "x".into()).await.unwrap();
    assert_eq!(left(), ["2", "4#1", "4#x", "5"]);
}

#[tokio::test]
async fn a_file_is_no_directory() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    std::fs::write(&path, "x").unwrap();
    for create in [false, true] {
        let error = open(&path, create).expect_err("it is a file");
        assert!(!matches!(error, Error::NotFound { .. }), "{error}");
    }
}

/// Rule 4: when the directory goes away, what was in it is not absent, and writing does not begin a new one.
#[tokio::test]
async fn a_directory_that_vanishes_is_no_empty_store() {
    let temp = tempfile::tempdir().unwrap();
    let (path, aside) = (temp.path().join("store"), temp.path().join("aside"));
    let bucket = open(&path, true).unwrap();
    bucket.create("log/1", "x".into()).await.unwrap();
    std::fs::rename(&path, &aside).unwrap();

    let (patient, bucket) = (bucket.clone(), impatient(&bucket));
    let unavailable = |what: &str, error: Error| {
        assert!(matches!(error, Error::Unavailable { .. }), "{what}: {error}");
        assert!(error.to_string().contains("store"), "{what} names it: {error}");
    };
    unavailable("head", bucket.read_head("log/1", 10).await.expect_err("rule 4"));
    unavailable("range", bucket.read_range("log/1", 0..1).await.expect_err("rule 4"));
    unavailable("list", bucket.list("log", None).await.expect_err("rule 4"));
    unavailable("folders", bucket.list_folders("").await.expect_err("rule 4"));
    unavailable("create", bucket.create("log/2", "x".into()).await.expect_err("no new directory"));
    unavailable("delete", bucket.delete("log/1").await.expect_err("not deleted"));
    assert!(!path.exists(), "nothing was made in its place");

    // An unmounted file system leaves the empty directory that it was mounted on.
    std::fs::create_dir(&path).unwrap();
    unavailable("list", bucket.list("log", None).await.expect_err("rule 4: another directory"));
    unavailable("create", bucket.create("log/2", "x".into()).await.expect_err("another directory"));
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);

    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(patient.list("log", None).await.unwrap().len(), 1, "service resumes when it is back");
    assert_eq!(patient.create("log/2", "x".into()).await.unwrap(), Created::Done);
}

/// Rule 4: what can not be examined is an error, not left out of the listing.
#[tokio::test]
async fn a_listing_leaves_nothing_out_in_silence() {
    let temp = tempfile::tempdir().unwrap();
    let bucket = open(temp.path(), false).unwrap();
    bucket.create("log/1", "x".into()).await.unwrap();
    std::os::unix::fs::symlink("/nonexistent/object", temp.path().join("log/2")).unwrap();
    let error = impatient(&bucket).list("log", None).await.expect_err("a dangling link hides an object");
    assert!(error.to_string().contains("log/2"), "{error}");
}

/// What a crash left half written under a staging name is no object.
#[tokio::test]
async fn staged_files_are_not_listed_and_do_not_block_the_name() {
    let temp = tempfile::tempdir().unwrap();
    let bucket = open(temp.path(), false).unwrap();
    std::fs::create_dir(temp.path().join("log")).unwrap();
    std::fs::write(temp.path().join("log/1#1"), "torn").unwrap();
    assert_eq!(bucket.list("log", None).await.unwrap(), []);
    assert_eq!(bucket.create("log/1", "whole".into()).await.unwrap(), Created::Done);
    assert_eq!(bucket.list("", None).await.unwrap().len(), 1);
}

/// No permission is told as such, with the path, and at once. (As root nothing is forbidden: nothing to see.)
#[tokio::test]
async fn a_forbidden_directory_is_denied() {
    let temp = tempfile::tempdir().unwrap();
    let bucket = open(temp.path(), false).unwrap();
    bucket.create("log/1", "x".into()).await.unwrap();
    let log = temp.path().join("log");
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o000)).unwrap();
    let is_root = std::fs::read_dir(&log).is_ok();
    let listed = bucket.list("log", None).await;
    let created = bucket.create("log/2", "x".into()).await;
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o755)).unwrap();
    if is_root {
        eprintln!("SKIPPED in part: root may do everything");
        return;
    }
    assert!(matches!(listed, Err(Error::Denied { .. })), "{listed:?}");
    assert!(matches!(created, Err(Error::Denied { .. })), "{created:?}");
}

/// A full disk is told as such and at once, leaves nothing behind under the name, and service resumes when there is
/// room. On a real full disk: 1 MiB of memory, mounted in a namespace of its own.
#[test]
fn a_full_disk_is_full() {
    let temp = tempfile::tempdir().unwrap();
    let inner = "mount -t tmpfs -o size=1m none \"$FULL_DIR\" || exit 77; exec \"$0\" --exact --nocapture \
                 directory::tests::on_a_full_disk";
    let program = std::env::current_exe().unwrap();
    let status = std::process::Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", inner])
        .arg(program)
        .env("FULL_DIR", temp.path())
        .status();
    match status.map(|status| status.code()) {
        Ok(Some(0)) => {}
        Ok(Some(1 | 77)) | Err(_) => {
            eprintln!("SKIPPED: no namespace with a small file system can be had here")
        }
        Ok(code) => panic!("on a full disk: exit {code:?}"),
    }
}

/// Does nothing by itself: `a_full_disk_is_full` runs it in its namespace.
#[tokio::test]
async fn on_a_full_disk() {
    let Some(path) = std::env::var_os("FULL_DIR") else { return };
    let bucket = open(path.as_ref(), false).unwrap();
    assert_eq!(bucket.create("log/1", vec![1; 600 << 10].into()).await.unwrap(), Created::Done);
    let error = bucket.create("log/2", vec![2; 600 << 10].into()).await.expect_err("no room");
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("log/2"), "{error}");
    assert_eq!(bucket.read_head("log/2", 10).await.unwrap(), None, "nothing was stored");
    bucket.delete("log/1").await.unwrap();
    assert_eq!(bucket.create("log/2", vec![2; 600 << 10].into()).await.unwrap(), Created::Done);
}

/// A name goes to the file system as it is, spaces and all, and comes back so.
#[tokio::test]
async fn names_round_trip() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("my disks & more");
    let bucket = open(&root, true).unwrap();
    for name in ["log/ä ö+ü=1", "log/a#b", "log/~[x]"] {
        bucket.create(name, "x".into()).await.unwrap();
        assert!(bucket.read_head(name, 1).await.unwrap().is_some());
        assert!(bucket.list("log", None).await.unwrap().iter().any(|listed| listed.name == name), "{name}");
    }
    let error = bucket.create("log/../../escape", "x".into()).await.expect_err("out of the prefix");
    assert!(matches!(error, Error::Misconfigured { .. }), "{error}");
}

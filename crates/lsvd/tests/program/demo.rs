//! `lsvd demo` does what the README says of it.

use crate::rig::{Rig, lsvd};

/// Rule 1, by the demo's own check: flushed bytes survive `kill -9`, unflushed writes survive as a prefix.
#[test]
fn the_demo_passes_and_leaves_nothing() {
    let rig = Rig::new();
    let dir = rig.path("demo");
    std::fs::create_dir(&dir).unwrap();
    let ended = lsvd(&["demo", "--data", "32M", "--dir", dir.to_str().unwrap()]);
    ended.expect(0, &[]);
    for word in
        ["32 MiB", "kill -9", "log objects processed", "a prefix", "closed cleanly", "superblock/", "log/"]
    {
        assert!(ended.stdout.contains(word), "no '{word}' in\n{}", ended.stdout);
    }
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
}

#[test]
fn the_demo_leaves_its_directory_if_asked() {
    let rig = Rig::new();
    let dir = rig.path("demo");
    std::fs::create_dir(&dir).unwrap();
    lsvd(&["demo", "--data", "1M", "--keep", "--dir", dir.to_str().unwrap()]).expect(0, &[]);
    let kept = std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    let url = format!("file://{}/bucket", kept.display());
    let listed = lsvd(&["ls", &url]);
    listed.expect(0, &[]);
    assert!(listed.stdout.contains("demo\t1T\t"), "{listed:?}");
}

#[test]
fn a_demo_that_can_not_begin_says_why() {
    lsvd(&["demo", "--dir", "/nonexistent/dir"]).expect(1, &["cannot make '/nonexistent/dir/lsvd-demo-"]);
    lsvd(&["demo", "--data", "5"]).expect(2, &["whole MiB"]);
}

//! What the program says about itself, and what it says of a command line that is wrong (exit code 2).

use crate::rig::{Rig, lsvd, program, run};

#[test]
fn help_names_every_command_and_exit_code() {
    let help = lsvd(&["--help"]);
    help.expect(0, &[]);
    for word in [
        "create",
        "serve",
        "attach",
        "detach",
        "ls",
        "info",
        "rollback",
        "diff",
        "demo",
        "licenses",
        "completions",
        "man",
        "Exit codes",
        "fenced",
    ] {
        assert!(help.stdout.contains(word), "no '{word}' in {}", help.stdout);
    }
}

#[test]
fn version_has_the_commit() {
    let version = lsvd(&["--version"]);
    version.expect(0, &[]);
    let commit =
        version.stdout.trim().strip_prefix(concat!("lsvd ", env!("CARGO_PKG_VERSION"), " (")).unwrap();
    let commit = commit.strip_suffix(')').unwrap();
    assert!(commit == "unknown" || commit.bytes().all(|digit| digit.is_ascii_hexdigit()), "{commit}");
}

#[test]
fn no_command_is_a_usage_error() {
    lsvd(&[]).expect(2, &["Usage"]);
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish"] {
        let script = lsvd(&["completions", shell]);
        script.expect(0, &[]);
        assert!(script.stdout.contains("unsafe-single-writer"), "{shell}");
    }
    assert!(lsvd(&["man"]).expect(0, &[]).stdout.contains(".TH lsvd 1"));
    let rig = Rig::new();
    let dir = rig.path("man");
    lsvd(&["man", "--dir", dir.to_str().unwrap()]).expect(0, &[]);
    for (page, words) in
        [("lsvd.1", "lsvd"), ("lsvd-create.1", "\\-\\-size"), ("lsvd-serve.1", "\\-\\-listen")]
    {
        let text = std::fs::read_to_string(dir.join(page)).unwrap();
        assert!(text.contains(words), "{page}: {text}");
    }
}

/// A pipe that nobody reads is no error of ours, and no panic.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child =
        program().arg("licenses").stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn urls_that_are_none() {
    for (url, words) in [
        ("ftp://host/db1", "unknown scheme"),
        ("/var/lib/db1", "begins with one of"),
        ("file://relative/db1", "absolute path"),
        ("s3:///db1", "bucket is missing"),
        ("s3://acme/folder/", "names no volume"),
        ("s3://acme/db1?region=x", "query"),
        ("s3://acme/db1@-monday", "moment"),
    ] {
        lsvd(&["create", url, "--size", "1G"]).expect(2, &["error: ", words]);
        lsvd(&["serve", url]).expect(2, &[words]);
        lsvd(&["info", url]).expect(2, &[words]);
    }
    // All of a bucket may be an adopted volume; a new one gets a name.
    lsvd(&["create", "s3://acme", "--size", "1G"]).expect(2, &["names no volume"]);
    lsvd(&["serve", "s3://acme", "--create", "1G"]).expect(2, &["names no volume"]);
}

/// Rule 11: a secret that was typed into a URL is refused and not repeated.
#[test]
fn secrets_in_urls_are_not_repeated() {
    for command in ["info", "ls", "serve"] {
        let ended = lsvd(&[command, "s3://AKIA123:hunter2@acme/db1"]);
        ended.expect(2, &["credentials"]);
        assert!(!ended.stderr.contains("hunter2") && !ended.stdout.contains("hunter2"), "{ended:?}");
    }
}

#[test]
fn sizes_that_can_not_be() {
    let rig = Rig::new();
    for (size, words) in [
        ("0", "no bytes"),
        ("4097", "multiple of 4096"),
        ("1.5T", "whole number"),
        ("64MB", "power of 1,000"),
        ("99E", "64 bits"),
        ("big", "no size"),
    ] {
        lsvd(&["create", &rig.url("db1"), "--size", size]).expect(2, &[words]);
    }
    // 15 E is a number, but no volume: the library says so.
    lsvd(&["create", &rig.url("db1"), "--size", "15E"]).expect(2, &[]);
    assert!(!rig.volume("db1").join("superblock").exists());
    lsvd(&["create", &rig.url("db1")]).expect(2, &["--size"]);
}

#[test]
fn flags_that_make_no_sense() {
    let url = "memory://flags/db1";
    for (arguments, words) in [
        (&["--listen", "/x.sock"][..], "unix:PATH"),
        (&["--listen", "tcp:0.0.0.0:1"], "no authentication"),
        (&["--listen", "unix:/x.sock", "--listen", "unix:/x.sock"], "twice"),
        (&["--read-only", "--create", "1G"], "cannot be used with"),
        (&["--batch-age", "5"], "5s"),
        (&["--io-timeout", "0s"], "nothing"),
        (&["--uploads", "0"], "nothing would ever be done"),
        (&["--cache", "1.5G"], "whole number"),
        (&["--secret-key", "x"], "unexpected argument"),
        (&["--log", "lsvd=loudly"], "neither a log level"),
    ] {
        let mut all = vec!["serve", url];
        all.extend(arguments);
        lsvd(&all).expect(2, &[words]);
    }
}

#[test]
fn two_exports_of_one_name_are_refused() {
    lsvd(&["serve", "memory://a/db1", "memory://b/db1"]).expect(2, &["'db1'", "memory://a/db1"]);
}

/// A path that no socket can have, a directory that is not there, a file in the way: named, and left alone.
#[test]
fn sockets_that_can_not_be() {
    let rig = Rig::new();
    let file = rig.path("file");
    std::fs::write(&file, "precious").unwrap();
    let long = format!("unix:{}/{}", rig.path("").display(), "x".repeat(120));
    for (listen, words) in [
        (format!("unix:{}", file.display()), "there is a file at that path"),
        (format!("unix:{}", rig.path("missing/x.sock").display()), "no directory"),
        (long, "bytes"),
    ] {
        lsvd(&["serve", "memory://sockets/db1", "--create", "1G", "--listen", &listen]).expect(1, &[words]);
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
}

/// Without `--listen` the socket is where the session keeps such things.
#[test]
fn the_default_socket() {
    let rig = Rig::new();
    std::fs::create_dir(rig.volume("nothing")).unwrap();
    // Opening fails after binding; the path was made, the socket is gone again.
    let ended = run(program().args(["serve", &rig.url("nothing")]).env("XDG_RUNTIME_DIR", rig.path("run")));
    ended.expect(6, &["cannot open volume 'nothing'", "no volume"]);
    let dir = rig.path("run/lsvd");
    assert!(dir.is_dir());
    let left = |dir| {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(left(dir.clone()), ["control", "handover"].map(Into::into).into());
    assert!(left(dir.join("control")).is_empty());
}

#[test]
fn attach_says_what_it_can_not_read() {
    lsvd(&["attach", "/run/lsvd/db1.sock", "/dev/nbd0"]).expect(2, &["write nbd://HOST:PORT/NAME"]);
    lsvd(&["attach", "nbd://127.0.0.1:1/db1", "/dev/sda"]).expect(2, &["/dev/sda", "write /dev/nbd0"]);
    lsvd(&["attach", "nbd://127.0.0.1:1/db1", "/dev/nbd0", "--block-size", "8192"]).expect(2, &["4,096"]);
    lsvd(&["attach", "nbd://127.0.0.1:1/db1", "/dev/nbd0", "--timeout", "300ms"])
        .expect(2, &["whole seconds"]);
    lsvd(&["detach", "/dev/sda"]).expect(2, &["write /dev/nbd0"]);
}

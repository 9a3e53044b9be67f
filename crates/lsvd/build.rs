//! Tells the binary which commit it was built from.
//!
//! Knows git only by asking it, and does without: `LSVD_COMMIT` comes first (a build from an archive, a package or a
//! container sets it), then git, then "unknown". Never fails a build.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LSVD_COMMIT");
    let told = env::var("LSVD_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(commit_of_git).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=LSVD_COMMIT={commit}");
}

fn commit_of_git() -> Option<String> {
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    watch("HEAD");
    watch("packed-refs");
    if let Some(branch) = git(&["symbolic-ref", "--quiet", "HEAD"]) {
        watch(&branch);
    }
    Some(commit)
}

/// Has cargo run this again when a file of the repository changes. One that is not there is not named: cargo would
/// take it for changed each time.
fn watch(file: &str) {
    if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", file])
        && Path::new(&path).exists()
    {
        println!("cargo::rerun-if-changed={path}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

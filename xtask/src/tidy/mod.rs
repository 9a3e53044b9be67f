//! `cargo xtask tidy`: the rules of the source tree that compilers do not check.
//!
//! Each rule is a function from text to [`Problem`]s in a file of its own, with tests that show that it can fail; this
//! room lists files and prints. Knows git (for the list of files) and cargo's metadata; changes nothing but, when told
//! to, docs/format.lock.

mod arrows;
mod format_lock;
mod licences;
mod links;
mod source;
mod text;

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{promises, shell};

/// `cargo xtask tidy`
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Tidy {
    /// The format's document says what its code does now: lock them together anew
    #[arg(long)]
    bless_format: bool,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    path: String,
    /// From 1; 0 for the file as a whole.
    line: usize,
    words: String,
}

impl Problem {
    fn new(path: &str, line: usize, words: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, words: words.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.words),
            line => write!(f, "{}:{line}: {}", self.path, self.words),
        }
    }
}

/// Checks every rule.
///
/// # Errors
/// One that counts what is wrong, after each has been printed.
pub(crate) fn run(args: &Tidy) -> Result<()> {
    let root = shell::root();
    if args.bless_format {
        format_lock::bless(&root)?;
        println!("docs/format.lock is written anew: commit it with the change of docs/format.md");
    }
    let metadata = metadata()?;
    let mut problems = arrows::check(&arrows::packages(&metadata)?);
    problems.extend(licences::check(&licences::packages(&metadata)?));
    problems.extend(format_lock::check(&root)?);
    let files = files(&root)?;
    for path in &files {
        let Ok(content) = std::fs::read(root.join(path)) else { continue };
        // What is no text (golden files) has no rules here.
        let Ok(content) = String::from_utf8(content) else { continue };
        problems.extend(text::check(path, &content));
        if path.ends_with(".md") {
            problems.extend(links::check(path, &content, |target| root.join(target).exists()));
        }
        if let Some(words) = text::long_file(path, &content) {
            println!("warning: {path}: {words}");
        }
    }
    // A table that is behind is mended by one command, and by whoever finishes: no reason to refuse their work.
    if let Some(words) = promises::outdated(&root)? {
        println!("warning: {words}");
    }
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        bail!("tidy: {} problems", problems.len());
    }
    println!("tidy: {} files, {} packages, nothing wrong", files.len(), metadata_packages(&metadata));
    Ok(())
}

/// What is committed or about to be: paths below the root.
pub(crate) fn files(root: &Path) -> Result<Vec<String>> {
    let mut command = Command::new("git");
    command.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = shell::output_ok(&mut command, Duration::from_secs(60))?;
    let mut files: Vec<String> =
        listed.stdout.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

fn metadata() -> Result<serde_json::Value> {
    let mut command = shell::cargo();
    // What Linux builds is what is shipped; other platforms' packages are not even fetched.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    command.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &target]);
    let printed = shell::output_ok(&mut command, Duration::from_secs(600))?;
    serde_json::from_str(&printed.stdout).context("cargo metadata prints JSON")
}

fn metadata_packages(metadata: &serde_json::Value) -> usize {
    metadata["packages"].as_array().map_or(0, Vec::len)
}

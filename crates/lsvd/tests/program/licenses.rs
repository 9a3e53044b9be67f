//! `lsvd licenses` names everything that is built in. The list is checked in, so that the program needs no network
//! and no cargo to print it; `BLESS=1 cargo test -p lsvd licenses` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::rig::lsvd;

const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/licenses.txt");
const APACHE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../LICENSE");
const HEAD: &str = "\
lsvd is free software under the Apache License, version 2.0. It is built from its own crates and from these:

";

/// A package that is built into the program.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    license: String,
    dir: PathBuf,
}

/// What the program depends on to run, on the platform that it is released for; never its tests or build scripts.
fn packages() -> BTreeSet<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let by_id = |list: &Value| -> BTreeMap<String, Value> {
        let list = list.as_array().unwrap().iter();
        list.map(|entry| (entry["id"].as_str().unwrap().to_owned(), entry.clone())).collect()
    };
    let all = by_id(&metadata["packages"]);
    let nodes = by_id(&metadata["resolve"]["nodes"]);
    let root = all.iter().find(|(_, package)| package["name"] == "lsvd").unwrap().0;

    let mut seen = BTreeSet::from([root.clone()]);
    let mut next = vec![root.clone()];
    while let Some(id) = next.pop() {
        for dependency in nodes[&id]["deps"].as_array().unwrap() {
            let mut kinds = dependency["dep_kinds"].as_array().unwrap().iter();
            let id = dependency["pkg"].as_str().unwrap().to_owned();
            if kinds.any(|kind| kind["kind"].is_null()) && seen.insert(id.clone()) {
                next.push(id);
            }
        }
    }
    let text = |package: &Value, field: &str| package[field].as_str().unwrap_or_default().to_owned();
    seen.iter()
        .map(|id| &all[id])
        .filter(|package| !package["source"].is_null())
        .map(|package| Package {
            name: text(package, "name"),
            version: text(package, "version"),
            license: text(package, "license"),
            dir: Path::new(&text(package, "manifest_path")).parent().unwrap().to_owned(),
        })
        .collect()
}

fn lines(packages: &BTreeSet<Package>) -> String {
    let mut text = String::new();
    for package in packages {
        writeln!(text, "  {} {}: {}", package.name, package.version, package.license).unwrap();
    }
    text
}

/// The texts that the packages carry, each once, with who carries it. All Apache licences are one text.
fn texts(packages: &BTreeSet<Package>) -> String {
    let apache = fs::read_to_string(APACHE).unwrap();
    let mut carriers: BTreeMap<String, (String, BTreeSet<&str>)> = BTreeMap::new();
    for package in packages {
        for entry in fs::read_dir(&package.dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().to_uppercase();
            let wanted = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];
            if !path.is_file() || !wanted.iter().any(|word| name.starts_with(word)) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            let is_apache = words(&text).starts_with("Apache License Version 2.0, January 2004");
            let text = if is_apache { apache.clone() } else { text };
            carriers.entry(words(&text)).or_insert_with(|| (text, BTreeSet::new())).1.insert(&package.name);
        }
    }
    let mut all = String::new();
    for (text, names) in carriers.values() {
        let names = names.iter().copied().collect::<Vec<_>>().join(", ");
        let text: Vec<&str> = text.lines().map(str::trim_end).collect();
        write!(all, "\n{}\n{names}\n\n{}\n", "-".repeat(80), text.join("\n").trim_matches('\n')).unwrap();
    }
    all
}

#[test]
fn licenses_name_everything_that_is_built_in() {
    let packages = packages();
    let expected = format!("{HEAD}{}", lines(&packages));
    if std::env::var_os("BLESS").is_some() {
        fs::write(LIST, format!("{expected}{}", texts(&packages))).unwrap();
        return;
    }
    let printed = lsvd(&["licenses"]);
    printed.expect(0, &[]);
    assert!(
        printed.stdout.starts_with(&expected),
        "crates/lsvd/licenses.txt is not what is built in; write it anew: BLESS=1 cargo test -p lsvd licenses"
    );
    assert!(printed.stdout.contains("Apache License"));
    assert!(packages.iter().all(|package| !package.license.is_empty()), "a package names no licence");
}

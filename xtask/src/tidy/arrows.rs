//! Arrows between crates: who may depend on whom, and what a layer must not know, as data.
//!
//! Compared with what cargo resolves. Dependencies for tests alone are free (a test may drive a layer with what the
//! layer itself must not know), with one exception: a crate named in `never` that starts with `lsvd-` is not used in
//! tests either, because then the layer could not be understood alone.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Problem;

/// One crate of the workspace.
#[derive(Debug)]
struct Layer {
    name: &'static str,
    /// Crates of the workspace that it may depend on.
    may: &'static [&'static str],
    /// Crates that it may not depend on, neither directly nor through others.
    never: &'static [&'static str],
}

/// The table that docs/architecture.md draws.
const LAYERS: &[Layer] = &[
    Layer {
        name: "lsvd-format",
        may: &[],
        never: &["tokio", "object_store", "rand", "getrandom", "futures"],
    },
    Layer {
        name: "lsvd-engine",
        may: &["lsvd-format"],
        never: &["tokio", "object_store", "rand", "getrandom", "futures", "tracing"],
    },
    Layer { name: "lsvd-backend", may: &[], never: &["clap", "anyhow", "nbd"] },
    Layer { name: "lsvd-local", may: &["lsvd-format"], never: &["object_store", "clap", "anyhow", "nbd"] },
    Layer {
        name: "lsvd-volume",
        may: &["lsvd-format", "lsvd-engine", "lsvd-backend", "lsvd-local"],
        never: &["clap", "anyhow", "nbd", "tracing-subscriber"],
    },
    Layer {
        name: "lsvd-nbd",
        may: &[],
        never: &["object_store", "clap", "anyhow", "nbd", "lsvd-format", "lsvd-engine", "lsvd-volume"],
    },
    Layer {
        name: "lsvd",
        may: &["lsvd-volume", "lsvd-backend", "lsvd-nbd"],
        // The volume's own dependencies come with it; that the binary names none of them is what `may` says.
        never: &["nbd"],
    },
    Layer {
        name: "lsvd-sim",
        may: &["lsvd-format", "lsvd-engine", "lsvd-backend", "lsvd-local", "lsvd-volume"],
        never: &["lsvd-nbd", "nbd"],
    },
    // Dev-only: a server that stands apart from what is tested on it, so that no error of one is the other's.
    Layer {
        name: "lsvd-labstore",
        may: &[],
        never: &["object_store", "lsvd-format", "lsvd-engine", "lsvd-volume", "lsvd-nbd"],
    },
    Layer { name: "xtask", may: &[], never: &["tokio", "object_store"] },
];

/// A package with what it depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct Package {
    /// In the workspace, so that the table must have it.
    pub(super) member: bool,
    /// Names of normal and build dependencies.
    pub(super) normal: BTreeSet<String>,
    /// Names of dependencies of its tests.
    pub(super) dev: BTreeSet<String>,
}

/// The packages as cargo resolved them, by name (two versions of one are taken together).
pub(super) fn packages(metadata: &Value) -> Result<BTreeMap<String, Package>> {
    let mut names = BTreeMap::new();
    for package in metadata["packages"].as_array().context("metadata has packages")? {
        let id = package["id"].as_str().context("a package has an id")?;
        names.insert(id, package["name"].as_str().context("a package has a name")?);
    }
    let members: BTreeSet<&str> =
        metadata["workspace_members"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut packages: BTreeMap<String, Package> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().context("metadata has a resolve graph")? {
        let id = node["id"].as_str().context("a node has an id")?;
        let package = packages.entry(names[id].to_owned()).or_default();
        package.member |= members.contains(id);
        for dependency in node["deps"].as_array().into_iter().flatten() {
            let name = names[dependency["pkg"].as_str().context("a dependency has an id")?].to_owned();
            for kind in dependency["dep_kinds"].as_array().into_iter().flatten() {
                let to = if kind["kind"] == "dev" { &mut package.dev } else { &mut package.normal };
                to.insert(name.clone());
            }
        }
    }
    Ok(packages)
}

/// Compares `packages` with the table.
pub(super) fn check(packages: &BTreeMap<String, Package>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, package) in packages.iter().filter(|(_, package)| package.member) {
        let path =
            if name == "xtask" { "xtask/Cargo.toml".into() } else { format!("crates/{name}/Cargo.toml") };
        let mut problem = |words: String| problems.push(Problem::new(&path, 0, words));
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == name) else {
            problem(format!(
                "{name} is not in the table of layers: say what it may depend on, and why it exists"
            ));
            continue;
        };
        for dependency in &package.normal {
            let member = packages.get(dependency).is_some_and(|package| package.member);
            if member && !layer.may.contains(&dependency.as_str()) {
                problem(format!(
                    "{name} must not depend on {dependency}: no such arrow in the table of layers"
                ));
            }
        }
        for never in layer.never {
            if let Some(way) = way_to(packages, name, never) {
                problem(format!("{name} must not know {never}, but depends on it: {}", way.join(" → ")));
            }
            if never.starts_with("lsvd-") && package.dev.contains(*never) {
                problem(format!("{name} must not know {never}, not even in its tests"));
            }
        }
    }
    problems
}

/// The shortest way of normal dependencies from one package to another.
fn way_to(packages: &BTreeMap<String, Package>, from: &str, to: &str) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([from]);
    while let Some(name) = queue.pop_front() {
        if name == to && name != from {
            let mut way = vec![name.to_owned()];
            let mut at = name;
            while let Some(&previous) = came_from.get(at) {
                way.push(previous.to_owned());
                at = previous;
            }
            way.reverse();
            return Some(way);
        }
        for next in packages.get(name).into_iter().flat_map(|package| &package.normal) {
            if next != from && !came_from.contains_key(next.as_str()) {
                came_from.insert(next, name);
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(arrows: &[(&str, &str)], dev: &[(&str, &str)]) -> Vec<String> {
        let mut packages: BTreeMap<String, Package> = BTreeMap::new();
        for (from, to) in arrows.iter().chain(dev) {
            for name in [from, to] {
                let package = packages.entry((*name).to_owned()).or_default();
                package.member = name.starts_with("lsvd") || *name == "xtask";
            }
        }
        for (from, to) in arrows {
            packages.get_mut(*from).unwrap().normal.insert((*to).to_owned());
        }
        for (from, to) in dev {
            packages.get_mut(*from).unwrap().dev.insert((*to).to_owned());
        }
        check(&packages).into_iter().map(|problem| problem.words).collect()
    }

    #[test]
    fn what_the_table_allows_passes() {
        assert!(world(&[("lsvd-engine", "lsvd-format"), ("lsvd-format", "bytes")], &[]).is_empty());
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_fails() {
        let problems = world(&[("lsvd-format", "lsvd-engine")], &[]);
        assert!(problems[0].contains("must not depend on lsvd-engine"), "{problems:?}");
        assert!(!world(&[("lsvd", "lsvd-engine")], &[]).is_empty());
    }

    #[test]
    fn what_a_layer_must_not_know_fails_also_through_others() {
        let problems = world(&[("lsvd-engine", "a"), ("a", "b"), ("b", "tokio")], &[]);
        assert!(problems[0].contains("lsvd-engine → a → b → tokio"), "{problems:?}");
    }

    #[test]
    fn tests_are_free_but_for_other_layers_that_must_not_be_known() {
        assert!(
            world(&[("lsvd-engine", "bytes")], &[("lsvd-engine", "rand"), ("lsvd-nbd", "nbd")]).is_empty()
        );
        assert!(!world(&[("lsvd-nbd", "bytes")], &[("lsvd-nbd", "lsvd-volume")]).is_empty());
    }

    #[test]
    fn a_new_crate_needs_a_line_in_the_table() {
        assert!(world(&[("lsvd-new", "bytes")], &[])[0].contains("not in the table"));
    }
}

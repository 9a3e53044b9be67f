//! `cargo xtask mutants`: breaks each rule on purpose in a copy of the tree, and shows which seed or test notices.
//!
//! Knows how a change is made, built and run; what is changed is `table`'s. Each is tried on the simulator first, seed by
//! seed from 0 on, and then on the test that is named for it. Invariants: 1. the tree itself is never touched; 2. a change
//! that no longer fits the code is an error, and a test of ours says so before anybody runs this.

mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::table::{MUTANTS, Mutant};
use crate::shell;

/// Seeds of one run of the simulator: few, so that the first failing one is soon known.
const CHUNK: u64 = 250;
/// A change can make the code hang: that is noticed, too.
const CHUNK_LIMIT: Duration = Duration::from_secs(300);
const BUILD_LIMIT: Duration = Duration::from_secs(900);

/// `cargo xtask mutants`
#[derive(clap::Args, Debug)]
pub(crate) struct Mutants {
    /// Only mutants whose names contain one of these
    names: Vec<String>,
    /// Seeds that a mutant may survive before its test is asked
    #[arg(long, value_name = "N", default_value_t = 5000)]
    seeds: u64,
    /// Run the named tests only, not the simulator
    #[arg(long)]
    tests_only: bool,
    /// Run the named test also where a seed notices
    #[arg(long)]
    both: bool,
}

/// Runs the mutants and prints the table of docs/testing.md.
pub(crate) fn run(args: &Mutants) -> Result<()> {
    let place = Place::new()?;
    let chosen = |mutant: &&Mutant| {
        args.names.is_empty() || args.names.iter().any(|name| mutant.name.contains(name.as_str()))
    };
    if !args.tests_only {
        place.copy_tree()?;
        // Otherwise a seed that fails anyhow would be said to notice every one of them.
        if let Some(seed) = place.first_failing_seed(args.seeds)? {
            bail!("seed {seed} fails without any mutant: mend that first");
        }
    }
    println!("| rule | broken on purpose | seed that notices | test that notices |\n|---|---|---|---|");
    let (mut caught, mut survived) = (0, 0);
    for mutant in MUTANTS.iter().filter(chosen) {
        place.copy_tree()?;
        place.mutate(mutant)?;
        let seed = if args.tests_only { None } else { place.first_failing_seed(args.seeds)? };
        let test = match mutant.test {
            Some((package, filter)) if args.both || seed.is_none() => {
                place.test_notices(package, filter)?.then_some(filter)
            }
            _ => None,
        };
        let seed = seed.map_or_else(|| "–".to_owned(), |seed| seed.to_string());
        println!(
            "| {} | {}: {} | {seed} | {} |",
            mutant.rule,
            mutant.name,
            mutant.breaks,
            test.unwrap_or("–")
        );
        if seed == "–" && test.is_none() {
            survived += 1;
        } else {
            caught += 1;
        }
    }
    println!("\n{caught} passed, {survived} failed");
    ensure!(survived == 0, "{survived} mutants survive: nothing notices what they break");
    Ok(())
}

/// The copy, and where it is built.
struct Place {
    tree: PathBuf,
    build: PathBuf,
}

impl Place {
    fn new() -> Result<Self> {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| shell::root().join("target"), PathBuf::from);
        let (tree, build) = (target.join("mutants/tree"), target.join("mutants/build"));
        std::fs::create_dir_all(&tree)?;
        Ok(Self { tree, build })
    }

    /// Brings the copy up to date. What is equal stays as it is, so that it is not built again.
    fn copy_tree(&self) -> Result<()> {
        let mut list = Command::new("git");
        list.current_dir(shell::root()).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]);
        let files = shell::output_ok(&mut list, Duration::from_secs(60))?.stdout;
        for name in files.split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (shell::root().join(name), self.tree.join(name));
            let Ok(bytes) = std::fs::read(&from) else { continue };
            if std::fs::read(&to).is_ok_and(|there| there == bytes) {
                continue;
            }
            std::fs::create_dir_all(to.parent().unwrap_or(&self.tree))?;
            std::fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
        }
        Ok(())
    }

    fn mutate(&self, mutant: &Mutant) -> Result<()> {
        let path = self.tree.join(mutant.file);
        let text = mutated(&self.tree, mutant)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn cargo(&self) -> Command {
        let mut command = shell::cargo();
        command.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.build);
        command
    }

    /// The first seed that fails; `None` if none does.
    fn first_failing_seed(&self, seeds: u64) -> Result<Option<u64>> {
        let mut build = self.cargo();
        build.args(["build", "--release", "--locked", "--quiet", "--package", "lsvd-sim"]);
        shell::output_ok(&mut build, BUILD_LIMIT)?;
        for start in (0..seeds).step_by(usize::try_from(CHUNK)?) {
            let count = CHUNK.min(seeds - start);
            let mut sim = Command::new(self.build.join("release/lsvd-sim"));
            sim.args(["--start", &start.to_string(), "--seeds", &count.to_string()]);
            let Ok(output) = shell::output(&mut sim, CHUNK_LIMIT) else {
                return Ok(Some(start)); // it hangs somewhere in here
            };
            if output.code() != 0 {
                return Ok(Some(failing_seeds(&output.stdout).min().unwrap_or(start)));
            }
        }
        Ok(None)
    }

    /// Whether the test that is named for this mutant fails.
    fn test_notices(&self, package: &str, filter: &str) -> Result<bool> {
        let mut build = self.cargo();
        build.args(["test", "--locked", "--quiet", "--package", package, "--no-run"]);
        shell::output_ok(&mut build, BUILD_LIMIT)?;
        let mut test = self.cargo();
        test.args(["test", "--locked", "--package", package, filter]);
        let Ok(output) = shell::output(&mut test, CHUNK_LIMIT) else { return Ok(true) };
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(said.contains(filter), "no test of {package} is called '{filter}'");
        Ok(output.code() != 0)
    }
}

fn failing_seeds(said: &str) -> impl Iterator<Item = u64> + '_ {
    let seed = |line: &str| line.strip_prefix("seed ")?.split_once(" failed")?.0.parse().ok();
    said.lines().filter_map(seed)
}

/// The file of `root` that a mutant changes, changed.
fn mutated(root: &Path, mutant: &Mutant) -> Result<String> {
    let path = root.join(mutant.file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    match text.matches(mutant.find).count() {
        1 => Ok(text.replacen(mutant.find, mutant.replace, 1)),
        found => bail!("mutant {}: what it changes stands {found} times in {}", mutant.name, mutant.file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mutant that no longer fits the code shows nothing.
    #[test]
    fn every_mutant_fits_the_code() {
        for mutant in MUTANTS {
            if let Err(error) = mutated(&shell::root(), mutant) {
                panic!("{error:#}");
            }
            assert_ne!(mutant.find, mutant.replace, "{}", mutant.name);
        }
    }

    #[test]
    fn failing_seeds_are_read_from_what_the_simulator_says() {
        let said = "12 ms p1 opens\nseed 31 failed: rule 1: lost\nplay it again: cargo xtask sim --seed 31\nseed 7 failed: x";
        assert_eq!(failing_seeds(said).collect::<Vec<_>>(), [31, 7]);
    }
}

//! `cargo xtask promises`: which test shows which rule, read from the tests' own words.
//!
//! A test cites its rules by number in its documentation ("Rule 4: ..."), an end-to-end case in what it shows. This
//! room collects them into the table of docs/testing.md, so that the table can not tell of tests that are gone.
//! Knows the rules' numbers and short names; what they say is in docs/architecture.md.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{e2e, shell, tidy};

/// `cargo xtask promises`
#[derive(clap::Args, Debug)]
pub(crate) struct Promises {
    /// Write the table into docs/testing.md instead of printing it
    #[arg(long)]
    write: bool,
}

/// The rules of docs/architecture.md by their short names.
const RULES: [&str; 11] = [
    "Prefix",
    "Immutable",
    "Recovery destroys nothing",
    "An error is not an absence",
    "No unverified byte",
    "One sequencer",
    "Delete last",
    "Checkpoint after durability",
    "Fencing holds through GC, without clocks",
    "Bounded",
    "Secrets stay out",
];

const DOCUMENT: &str = "docs/testing.md";
const BEGIN: &str = "<!-- promises: cargo xtask promises --write -->";
const END: &str = "<!-- end of promises -->";

/// Prints the table, or writes it.
pub(crate) fn run(args: &Promises) -> Result<()> {
    let root = shell::root();
    let table = table(&collect(&root)?);
    if !args.write {
        print!("{table}");
        return Ok(());
    }
    let path = root.join(DOCUMENT);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let text = with_table(&text, &table).with_context(|| format!("{DOCUMENT} has lost its marks"))?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {DOCUMENT}"))
}

/// What to say if docs/testing.md is behind the tests.
pub(crate) fn outdated(root: &Path) -> Result<Option<String>> {
    let text = std::fs::read_to_string(root.join(DOCUMENT)).unwrap_or_default();
    let current = with_table(&text, &table(&collect(root)?));
    let behind = current.is_none_or(|current| current != text);
    Ok(behind.then(|| format!("{DOCUMENT} is behind the tests: `cargo xtask promises --write`")))
}

/// Tests by the number of the rule.
type ByRule = BTreeMap<usize, Vec<String>>;

fn collect(root: &Path) -> Result<ByRule> {
    let mut found = ByRule::new();
    for path in tidy::files(root)?.iter().filter(|path| path.ends_with(".rs") && path.starts_with("crates/"))
    {
        let Ok(content) = std::fs::read_to_string(root.join(path)) else { continue };
        for (rules, test) in citing_tests(path, &content) {
            for rule in rules {
                found.entry(rule).or_default().push(test.clone());
            }
        }
    }
    for case in e2e::cases() {
        for rule in rules_in(case.1) {
            found.entry(rule).or_default().push(format!("`e2e {}`", case.0));
        }
    }
    Ok(found)
}

fn table(found: &ByRule) -> String {
    let mut text = String::from("| rule | shown by |\n|---|---|\n");
    for (index, name) in RULES.iter().enumerate() {
        let tests = found.get(&(index + 1)).map_or_else(|| "nothing yet".to_owned(), |tests| grouped(tests));
        text.push_str(&format!("| {}. {name} | {tests} |\n", index + 1));
    }
    text
}

/// Tests of one file behind the file's name.
fn grouped(tests: &[String]) -> String {
    let mut files: Vec<(&str, Vec<&str>)> = Vec::new();
    for test in tests {
        let (file, name) = test.split_once("::").unwrap_or((test, ""));
        match files.iter_mut().find(|(known, _)| *known == file) {
            Some((_, names)) => names.push(name),
            None => files.push((file, vec![name])),
        }
    }
    let line = |(file, names): &(&str, Vec<&str>)| match names.as_slice() {
        [""] => (*file).to_owned(),
        names => format!("{file}: {}", names.join(", ")),
    };
    files.iter().map(line).collect::<Vec<_>>().join("; ")
}

fn with_table(text: &str, table: &str) -> Option<String> {
    let begin = text.find(BEGIN)? + BEGIN.len();
    let end = begin + text[begin..].find(END)?;
    Some(format!("{}\n\n{table}\n{}", &text[..begin], &text[end..]))
}

/// The tests of a file that cite rules, as `crate/file::name`.
fn citing_tests(path: &str, content: &str) -> Vec<(Vec<usize>, String)> {
    // A suite's functions are called by the tests of each store.
    let suite = path.ends_with("conformance.rs");
    let place = path.trim_start_matches("crates/").replace("/src/", "/").replace(".rs", "");
    let mut found = Vec::new();
    let (mut words, mut is_test) = (String::new(), suite);
    for line in content.lines().map(str::trim_start) {
        if let Some(comment) = line.strip_prefix("///") {
            words.push_str(comment);
            words.push(' ');
        } else if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.contains("::test");
        } else {
            if let (true, Some(name)) = (is_test, function_name(line)) {
                let rules = rules_in(&words);
                if !rules.is_empty() {
                    found.push((rules, format!("{place}::{name}")));
                }
            }
            words.clear();
            is_test = suite;
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let at = if line.starts_with("fn ") { 3 } else { line.find(" fn ")? + 4 };
    let end = line[at..].find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(&line[at..at + end])
}

/// The numbers behind "rule" or "rules": `rule 4`, `rules 1, 2 and 9`.
fn rules_in(words: &str) -> Vec<usize> {
    let lower = words.to_lowercase();
    let mut rules = Vec::new();
    for (at, _) in lower.match_indices("rule") {
        let rest = lower[at + 4..].strip_prefix('s').unwrap_or(&lower[at + 4..]);
        for word in rest.split_whitespace() {
            match word.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>() {
                Ok(number) if (1..=RULES.len()).contains(&number) => rules.push(number),
                _ if word == "and" => continue,
                _ => break,
            }
            if !word.ends_with(',') && !rest.contains(" and ") {
                break;
            }
        }
    }
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_from_words() {
        assert_eq!(rules_in("Rule 4: a 404 is one."), [4]);
        assert_eq!(rules_in("told apart (rules 4 and 11)"), [4, 11]);
        assert_eq!(rules_in("two daemons (rules 1, 2, 9)"), [1, 2, 9]);
        assert_eq!(rules_in("a prefix (rule 1); 5 times (rule 3)"), [1, 3]);
        assert!(rules_in("no ruler, rule 99, rules of the disk").is_empty());
    }

    #[test]
    fn only_tests_count_and_suites_of_a_store() {
        let file = "/// Rule 2: once.\n#[test]\nfn once() {}\n/// (rule 4).\npub fn list() {}\n\
                    /// Nothing cited.\n#[test]\nfn other() {}\n/// Rule 5.\n#[tokio::test]\nasync fn five() {}\n";
        let names =
            |path: &str| citing_tests(path, file).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(names("crates/a/src/b.rs"), ["a/b::once", "a/b::five"]);
        assert!(names("crates/a/src/conformance.rs").contains(&"a/conformance::list".to_owned()));
    }

    #[test]
    fn the_table_is_put_between_its_marks() {
        let text = format!("# A\n{BEGIN}\nold\n{END}\nrest\n");
        let new = with_table(&text, "| t |\n").unwrap();
        assert_eq!(new, format!("# A\n{BEGIN}\n\n| t |\n\n{END}\nrest\n"));
        assert_eq!(with_table(&new, "| t |\n"), Some(new.clone()));
        assert_eq!(with_table("# A\n", "| t |\n"), None);
    }
}

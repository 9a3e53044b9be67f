//! Licences: everything that is linked or built with must be under a licence of the list.
//!
//! Understands the part of SPDX expressions that packages use: AND, OR (and its old spelling `/`), WITH, parentheses.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Problem;

/// Licences that ask for no more than a notice, which `lsvd licenses` prints.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Name and version, and the licence that the package states, of all packages that are not ours.
pub(super) fn packages(metadata: &Value) -> Result<Vec<(String, Option<String>)>> {
    let all = metadata["packages"].as_array().context("metadata has packages")?;
    let others = all.iter().filter(|package| !package["source"].is_null());
    Ok(others
        .map(|package| {
            let text = |field: &str| package[field].as_str().map(str::to_owned);
            let name =
                format!("{} {}", text("name").unwrap_or_default(), text("version").unwrap_or_default());
            (name, text("license"))
        })
        .collect())
}

/// Compares the licences of `packages` with the list.
pub(super) fn check(packages: &[(String, Option<String>)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, licence) in packages {
        let words = match licence.as_deref() {
            None => format!("{name} states no licence"),
            Some(licence) => match allowed(licence) {
                Some(true) => continue,
                Some(false) => format!("{name} is under {licence}, which is not on the list of xtask"),
                None => format!("{name} states its licence as '{licence}', which is no SPDX expression"),
            },
        };
        problems.push(Problem::new("Cargo.lock", 0, words));
    }
    problems
}

/// Whether the list satisfies `expression`; `None` if it can not be read.
fn allowed(expression: &str) -> Option<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let value = either(&mut words)?;
    words.next().is_none().then_some(value)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>) -> Option<bool> {
    let mut value = both(words)?;
    while words.next_if_eq(&"OR").is_some() {
        value |= both(words)?;
    }
    Some(value)
}

fn both(words: &mut Words<'_>) -> Option<bool> {
    let mut value = one(words)?;
    while words.next_if_eq(&"AND").is_some() {
        value &= one(words)?;
    }
    Some(value)
}

fn one(words: &mut Words<'_>) -> Option<bool> {
    let word = words.next()?;
    if word == "(" {
        let value = either(words)?;
        return (words.next()? == ")").then_some(value);
    }
    if matches!(word, ")" | "OR" | "AND" | "WITH") {
        return None;
    }
    if words.next_if_eq(&"WITH").is_some() {
        // An exception only ever allows more than the licence alone.
        words.next()?;
    }
    Some(ALLOWED.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_spdx_says() {
        for (expression, expected) in [
            ("MIT", Some(true)),
            ("GPL-3.0", Some(false)),
            ("GPL-3.0 OR MIT", Some(true)),
            ("GPL-3.0/MIT", Some(true)),
            ("GPL-3.0 AND MIT", Some(false)),
            ("MIT OR GPL-3.0 AND LGPL-3.0", Some(true)),
            ("(MIT OR GPL-3.0) AND LGPL-3.0", Some(false)),
            ("ISC AND (Apache-2.0 OR GPL-2.0)", Some(true)),
            ("Apache-2.0 WITH LLVM-exception", Some(true)),
            ("MIT OR", None),
            ("(MIT", None),
            ("MIT MIT", None),
            ("", None),
        ] {
            assert_eq!(allowed(expression), expected, "{expression}");
        }
    }

    #[test]
    fn a_licence_that_is_not_on_the_list_fails_and_so_does_none() {
        let problems = check(&[
            ("a 1".into(), Some("MIT".into())),
            ("b 1".into(), Some("AGPL-3.0-only".into())),
            ("c 1".into(), None),
        ]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].words.contains("b 1 is under AGPL-3.0-only"));
    }
}

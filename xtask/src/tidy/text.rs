//! Rules of text files: heads, length, leftovers, white space, and nothing that only one machine has.
//!
//! The words that are looked for are put together from parts, so that this file does not find itself.

use super::Problem;

/// Above this a file is an error.
const LINES_MAX: usize = 1000;
/// Above this a file is worth a word.
const LINES_LONG: usize = 600;

/// Paths that only the machine of whoever wrote them has.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("../sha", "red")];
/// Notes that something is not done; what is not done belongs in an issue.
const LEFTOVERS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
/// Code that is not done, or a test that is not run.
const LEFTOVER_CODE: &[&str] =
    &[concat!("to", "do!("), concat!("unimple", "mented!("), concat!("#[ig", "nore")];
/// Clocks, files, threads and random hash orders: not in the layers that are pure.
const IMPURE: &[&str] =
    &["std::fs", "std::net", "std::thread", "Instant::now", "SystemTime", "HashMap", "HashSet"];
const PURE: &[&str] = &["crates/lsvd-format/src/", "crates/lsvd-engine/src/"];

/// Looks at one file.
pub(super) fn check(path: &str, content: &str) -> Vec<Problem> {
    if path.ends_with("Cargo.lock") || path.ends_with(".proptest-regressions") {
        return Vec::new();
    }
    let rust = path.ends_with(".rs");
    let mut problems = Vec::new();
    if rust && !content.starts_with("//!") {
        problems.push(Problem::new(
            path,
            1,
            "a file opens with `//!`: what room this is, what it does not know",
        ));
    }
    let lines = content.lines().count();
    if rust && lines > LINES_MAX {
        problems.push(Problem::new(path, 0, format!("{lines} lines: above {LINES_MAX} a file is two files")));
    }
    let spaced = [".rs", ".md", ".toml", ".sh", ".py", ".yaml", ".yml"].iter().any(|end| path.ends_with(end));
    for (index, line) in content.lines().enumerate() {
        let mut problem = |words: String| problems.push(Problem::new(path, index + 1, words));
        for found in MACHINE_PATHS.iter().filter(|found| line.contains(**found)) {
            problem(format!("'{found}' is a path of one machine"));
        }
        for found in LEFTOVERS.iter().filter(|found| line.contains(**found)) {
            problem(format!("'{found}': what is not done is an issue, not a comment"));
        }
        if spaced && line.ends_with([' ', '\t']) {
            problem("white space at the end of the line".into());
        }
        if spaced && line.contains('\t') {
            problem("a tab".into());
        }
        if rust {
            for found in LEFTOVER_CODE.iter().filter(|found| line.contains(**found)) {
                problem(format!("'{found}' in code that is to be used"));
            }
        }
    }
    if rust && PURE.iter().any(|dir| path.starts_with(dir)) && !path.contains("tests") {
        let essence = super::source::essence(content);
        for found in IMPURE.iter().filter(|found| essence.contains(**found)) {
            problems.push(Problem::new(
                path,
                0,
                format!("uses {found}: this layer has no clock, file or chance"),
            ));
        }
    }
    problems
}

/// What to say of a file that is long but not yet too long.
pub(super) fn long_file(path: &str, content: &str) -> Option<String> {
    let lines = content.lines().count();
    (path.ends_with(".rs") && (LINES_LONG + 1..=LINES_MAX).contains(&lines))
        .then(|| format!("{lines} lines: above {LINES_LONG} it reads as two rooms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(path: &str, content: &str) -> Vec<String> {
        check(path, content).into_iter().map(|problem| problem.words).collect()
    }

    #[test]
    fn a_sound_file_passes() {
        assert!(words("a.rs", "//! A room.\nfn f() {}\n").is_empty());
        assert!(words("a.md", "# A\n").is_empty());
    }

    #[test]
    fn a_rust_file_without_a_head_fails() {
        assert!(words("a.rs", "fn f() {}\n")[0].contains("opens with"));
    }

    #[test]
    fn a_file_of_more_than_a_thousand_lines_fails_and_a_long_one_is_warned_of() {
        let long = format!("//! A room.\n{}", "\n".repeat(700));
        assert!(words("a.rs", &long).is_empty());
        assert!(long_file("a.rs", &long).is_some());
        assert!(long_file("a.rs", "//! A room.\n").is_none());
        assert!(words("a.rs", &format!("//! A room.\n{}", "\n".repeat(1000)))[0].contains("1001 lines"));
    }

    #[test]
    fn leftovers_fail() {
        for left in LEFTOVERS.iter().chain(LEFTOVER_CODE) {
            assert_eq!(words("a.rs", &format!("//! A room.\n// {left}\n")).len(), 1, "{left}");
        }
    }

    #[test]
    fn white_space_fails() {
        assert_eq!(words("a.md", "a \n").len(), 1);
        assert_eq!(words("a.md", "a\tb\n").len(), 1);
        assert!(words("a.bin", "a\tb \n").is_empty());
    }

    #[test]
    fn paths_of_one_machine_fail() {
        for path in MACHINE_PATHS {
            assert_eq!(words("a.md", &format!("see {path}x\n")).len(), 1, "{path}");
        }
    }

    #[test]
    fn pure_layers_have_no_clock_and_no_chance() {
        let code = "//! A room.\nfn f() { let _ = std::time::Instant::now(); }\n";
        assert_eq!(words("crates/lsvd-engine/src/a.rs", code).len(), 1);
        assert!(words("crates/lsvd-volume/src/a.rs", code).is_empty());
        let comment = "//! A room.\n// not Instant::now\n";
        assert!(words("crates/lsvd-engine/src/a.rs", comment).is_empty());
        let test = "//! A room.\n#[cfg(test)]\nmod tests { use std::collections::HashMap; }\n";
        assert!(words("crates/lsvd-engine/src/a.rs", test).is_empty());
    }
}

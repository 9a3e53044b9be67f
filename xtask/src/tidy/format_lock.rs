//! The format lock: lsvd-format's code and docs/format.md change together.
//!
//! docs/format.lock holds a digest of each. If the code's digest is another but the document's is not, somebody
//! changed what is stored (or only how: tidy can not tell) and did not say so. Comments, white space and tests do not
//! count, so most edits need nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::{Problem, source};

const LOCK: &str = "docs/format.lock";
const DOCUMENT: &str = "docs/format.md";
const CODE: &str = "crates/lsvd-format/src";

/// The two digests, in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Digests {
    code: String,
    document: String,
}

impl Digests {
    fn now(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        rust_files(&root.join(CODE), &mut files)?;
        files.sort();
        let mut code = Sha256::new();
        for path in files {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            // Length first: no two trees are the same row of bytes.
            let essence = source::essence(&text);
            code.update(format!("{name}:{}:", essence.len()));
            code.update(essence);
        }
        let document =
            std::fs::read(root.join(DOCUMENT)).with_context(|| format!("cannot read {DOCUMENT}"))?;
        Ok(Self { code: hex(&code.finalize()), document: hex(&Sha256::digest(document)) })
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix("= ").map(str::to_owned))
        };
        Some(Self { code: value("code")?, document: value("document")? })
    }

    fn print(&self) -> String {
        format!(
            "# {CODE} and {DOCUMENT} change together: `cargo xtask tidy --bless-format` writes this file when the\n\
             # document says again what the code does.\ncode = {}\ndocument = {}\n",
            self.code, self.document
        )
    }
}

/// Compares the lock with what is there.
pub(super) fn check(root: &Path) -> Result<Vec<Problem>> {
    let now = match Digests::now(root) {
        Ok(now) => now,
        Err(error) => return Ok(vec![Problem::new(DOCUMENT, 0, format!("{error:#}"))]),
    };
    let locked = std::fs::read_to_string(root.join(LOCK)).ok().as_deref().and_then(Digests::parse);
    Ok(compare(locked.as_ref(), &now).map(|words| Problem::new(LOCK, 0, words)).into_iter().collect())
}

/// Writes the lock anew.
pub(super) fn bless(root: &Path) -> Result<()> {
    let now = Digests::now(root)?;
    std::fs::write(root.join(LOCK), now.print()).with_context(|| format!("cannot write {LOCK}"))
}

fn compare(locked: Option<&Digests>, now: &Digests) -> Option<String> {
    let Some(locked) = locked else {
        return Some("is missing or unreadable: `cargo xtask tidy --bless-format` writes it".into());
    };
    match (locked.code == now.code, locked.document == now.document) {
        (true, true) => None,
        (false, true) => Some(format!(
            "{CODE} changed and {DOCUMENT} did not: write down what is stored now (or that only the code's shape \
             changed: touch nothing else), then `cargo xtask tidy --bless-format`"
        )),
        (_, false) => Some(format!(
            "{DOCUMENT} changed: check it against {CODE}, then `cargo xtask tidy --bless-format`"
        )),
    }
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if name == "tests" || name == "tests.rs" {
            continue;
        }
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(code: &str, document: &str) -> Digests {
        Digests { code: code.into(), document: document.into() }
    }

    #[test]
    fn code_that_changes_alone_fails() {
        let words = compare(Some(&digests("a", "d")), &digests("b", "d")).unwrap();
        assert!(words.contains("changed and docs/format.md did not"), "{words}");
        assert!(compare(Some(&digests("a", "d")), &digests("b", "e")).is_some());
        assert!(compare(Some(&digests("a", "d")), &digests("a", "e")).is_some());
        assert_eq!(compare(Some(&digests("a", "d")), &digests("a", "d")), None);
        assert!(compare(None, &digests("a", "d")).is_some());
    }

    #[test]
    fn the_lock_reads_back() {
        let digests = digests("12ab", "34cd");
        assert_eq!(Digests::parse(&digests.print()), Some(digests));
        assert_eq!(Digests::parse("nonsense"), None);
    }

    #[test]
    fn a_tree_is_locked_and_a_change_is_seen() {
        let root = std::env::temp_dir().join(format!("xtask-format-lock-{}", std::process::id()));
        let code = root.join(CODE);
        std::fs::create_dir_all(code.join("tests")).unwrap();
        std::fs::create_dir_all(root.join("docs")).unwrap();
        std::fs::write(root.join(DOCUMENT), "bytes").unwrap();
        std::fs::write(code.join("lib.rs"), "const A: u8 = 1;").unwrap();
        assert_eq!(check(&root).unwrap().len(), 1, "no lock yet");
        bless(&root).unwrap();
        assert!(check(&root).unwrap().is_empty());
        std::fs::write(code.join("tests/more.rs"), "fn t() {}").unwrap();
        std::fs::write(code.join("lib.rs"), "// Why.\nconst A: u8  = 1;").unwrap();
        assert!(check(&root).unwrap().is_empty(), "tests and comments are free");
        std::fs::write(code.join("lib.rs"), "const A: u8 = 2;").unwrap();
        assert_eq!(check(&root).unwrap().len(), 1);
        std::fs::remove_dir_all(&root).unwrap();
    }
}

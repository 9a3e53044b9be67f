//! Links of documents: what they point to in the tree must be there.
//!
//! Inline links only, outside of code; what goes to another host is not asked.

use super::Problem;

/// Looks at the relative links of the document at `path`; `exists` is asked for paths below the root.
pub(super) fn check(path: &str, content: &str, exists: impl Fn(&str) -> bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut fenced = false;
    for (index, line) in content.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced || line.starts_with("    ") {
            continue;
        }
        for target in targets(line) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            match resolve(path, file) {
                Some(resolved) if exists(&resolved) => {}
                _ => {
                    problems.push(Problem::new(path, index + 1, format!("link to '{target}' leads nowhere")))
                }
            }
        }
    }
    problems
}

/// What the inline links of a line point to, code spans left out.
fn targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (index, span) in line.split('`').enumerate() {
        if index % 2 == 1 {
            continue;
        }
        let mut rest = span;
        while let Some(start) = rest.find("](") {
            rest = &rest[start + 2..];
            if let Some(end) = rest.find(')') {
                found.push(rest[..end].split_whitespace().next().unwrap_or_default());
            }
        }
    }
    // A link whose words are a code span is split in two: its second half begins with the bracket.
    found
}

/// `target` as the document at `path` means it, below the root; `None` if it leaves the tree.
fn resolve(path: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => path.split('/').collect(),
    };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(content: &str) -> usize {
        check("docs/a.md", content, |path| ["docs/b.md", "README.md", "docs"].contains(&path)).len()
    }

    #[test]
    fn links_that_lead_nowhere_fail() {
        assert_eq!(problems("see [b](b.md), [r](../README.md#top), [`x`](b.md), [here](#there)"), 0);
        assert_eq!(problems("[web](https://example.com/c.md) and [dir](../docs/)"), 0);
        assert_eq!(problems("see [c](c.md) and [d](../d.md)"), 2);
        assert_eq!(problems("[`code`](c.md)"), 1);
        assert_eq!(problems("[out](../../README.md)"), 1);
    }

    #[test]
    fn code_is_not_looked_at() {
        assert_eq!(problems("`[a](c.md)`\n```\n[a](c.md)\n```\n    [a](c.md)"), 0);
    }
}

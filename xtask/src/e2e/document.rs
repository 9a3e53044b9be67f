//! Documents whose commands are run: their indented lines, from top to bottom.
//!
//! Knows Markdown as far as that takes; not what the commands do. Invariant: a line is run as it is written, or replaced by name, and a
//! replacement that finds nothing is an error.

use anyhow::{Context, Result, ensure};

use crate::shell;

/// A document's commands.
#[derive(Debug)]
pub(super) struct Document {
    lines: Vec<String>,
}

impl Document {
    /// Of the file below docs/.
    pub(super) fn read(name: &str) -> Result<Self> {
        let path = shell::root().join("docs").join(name);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::of(&text))
    }

    fn of(text: &str) -> Self {
        let mut fenced = false;
        let mut lines = Vec::new();
        for line in text.lines() {
            if line.starts_with("```") {
                fenced = !fenced;
            }
            if let Some(command) = line.strip_prefix("    ").filter(|_| !fenced) {
                lines.push(command.to_owned());
            }
        }
        Self { lines }
    }

    /// Puts `by` in place of the lines that begin with `head`.
    pub(super) fn replace(&mut self, head: &str, by: &str) -> Result<()> {
        let mut found = false;
        for line in self.lines.iter_mut().filter(|line| line.starts_with(head)) {
            by.clone_into(line);
            found = true;
        }
        ensure!(found, "the document has no line that begins with '{head}' any more");
        Ok(())
    }

    /// As a script.
    pub(super) fn script(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_the_indented_lines() {
        let mut document =
            Document::of("# A\n\n    export A=1\n\nwords\n\n    run $A\n\n```text\n    shown\n```\n    last");
        assert_eq!(document.script(), "export A=1\nrun $A\nlast\n");
        document.replace("export A=", "export A=2").unwrap();
        assert_eq!(document.script(), "export A=2\nrun $A\nlast\n");
        assert!(document.replace("shown", "").is_err());
    }
}

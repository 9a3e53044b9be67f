//! What is printed on stdout: tables for a terminal, tab-separated lines for a pipe, JSON when asked.
//!
//! Knows no volumes. Invariant: a reader that goes away (`| head`) is an error that the caller sees, never a panic.

use std::io::{self, IsTerminal, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

/// Prints a value as JSON, indented, with a line end.
///
/// # Errors
/// If stdout can not be written.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    out.flush()
}

/// Prints a text, with a line end.
///
/// # Errors
/// If stdout can not be written.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints a text as it is.
///
/// # Errors
/// If stdout can not be written.
pub(crate) fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Whether stdout is a terminal, where somebody reads.
pub(crate) fn is_for_people() -> bool {
    io::stdout().is_terminal()
}

/// Prints rows under their heads.
///
/// # Errors
/// If stdout can not be written.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    line(&table_text(heads, rows, is_for_people()))
}

/// The rows as text, without the last line end.
pub(crate) fn table_text(heads: &[&str], rows: &[Vec<String>], for_people: bool) -> String {
    if for_people {
        let mut table = Table::new();
        // Long words are broken where the terminal ends, not where it happens to.
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.load_style(UTF8_FULL_CONDENSED).set_header(heads.iter().copied());
        table.add_rows(rows.iter().map(|row| row.iter()));
        return table.to_string();
    }
    let mut lines = vec![heads.join("\t")];
    lines.extend(rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect::<Vec<_>>().join("\t")));
    lines.join("\n")
}

/// A cell that can not be taken for two.
fn one_line(cell: &str) -> String {
    cell.replace(['\t', '\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_one_line_a_row() {
        let rows = vec![vec!["db1".to_owned(), "a\tb\nc".to_owned()]];
        assert_eq!(table_text(&["volume", "words"], &rows, false), "volume\twords\ndb1\ta b c");
        assert!(table_text(&["volume", "words"], &rows, true).contains("│ db1"));
    }
}

//! What happened in a run, in order: its hash always, its lines only when somebody will read them.
//!
//! Knows no event's meaning. Two runs of one seed have equal hashes, or the simulation is not deterministic.

use std::collections::VecDeque;
use std::fmt::{self, Write};

/// Lines that are kept when lines are kept.
const LINES_MAX: usize = 4000;

/// The events of one run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<VecDeque<String>>,
}

struct Hasher<'a>(&'a mut u64);

impl Write for Hasher<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // FNV-1a: order matters, and that is all that is asked of it.
        for byte in text.bytes() {
            *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

impl Trace {
    /// An empty trace that keeps its last lines if `keep_lines`.
    pub fn new(keep_lines: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines: keep_lines.then(VecDeque::new) }
    }

    /// Adds an event that happened at `now_ms` of virtual time.
    pub fn event(&mut self, now_ms: u64, what: fmt::Arguments<'_>) {
        self.events += 1;
        let written = writeln!(Hasher(&mut self.hash), "{now_ms} {what}");
        debug_assert!(written.is_ok(), "hashing text does not fail");
        if let Some(lines) = &mut self.lines {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(format!("{:>9}.{:03} {what}", now_ms / 1000, now_ms % 1000));
        }
    }

    /// Hash of all events so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The kept lines, oldest first.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.map(Vec::from).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_time_and_text_all_count() {
        let hash = |events: &[(u64, &str)]| {
            let mut trace = Trace::new(false);
            events.iter().for_each(|(at, what)| trace.event(*at, format_args!("{what}")));
            trace.hash()
        };
        assert_eq!(hash(&[(1, "a"), (2, "b")]), hash(&[(1, "a"), (2, "b")]));
        assert_ne!(hash(&[(1, "a"), (2, "b")]), hash(&[(1, "b"), (2, "a")]));
        assert_ne!(hash(&[(1, "a")]), hash(&[(2, "a")]));
    }

    #[test]
    fn keeping_lines_does_not_change_the_hash() {
        let (mut silent, mut kept) = (Trace::new(false), Trace::new(true));
        for trace in [&mut silent, &mut kept] {
            trace.event(1500, format_args!("x"));
        }
        assert_eq!(silent.hash(), kept.hash());
        assert_eq!(kept.into_lines(), ["        1.500 x"]);
    }
}

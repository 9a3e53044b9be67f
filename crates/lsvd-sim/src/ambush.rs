//! Where in its work something befalls a process: right before a request leaves, or right after it took effect.
//!
//! Knows verbs and folders; the blow itself is the link's.

use std::time::Duration;

use lsvd_format::names;

use crate::cloud::relative;
use crate::rng::Rng;

/// What befalls it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blow {
    /// It dies.
    Dies,
    /// It stalls, and wakes after this time.
    Stalls(Duration),
}

/// When it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ambush {
    verb: &'static str,
    folder: &'static str,
    /// Requests of this kind that are let through.
    passes: u64,
    /// After it took effect, before the answer; otherwise before it leaves.
    landed: bool,
    pub(crate) blow: Blow,
}

impl Ambush {
    /// One for a newcomer.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let log = names::LOG_FOLDER;
        let (verb, folder, passes) = rng.pick(&[
            // Between its superblock version and its fence.
            ("PUT", names::SUPERBLOCK_FOLDER, 0),
            ("PUT", log, 0),
            ("PUT", log, 0),
            // Its own journal named, which is its second version.
            ("PUT", names::SUPERBLOCK_FOLDER, 1),
            ("PUT", log, 1),
            ("PUT", log, 3),
            // While it archives.
            ("PUT", names::ARCHIVE_FOLDER, 0),
            ("DELETE", log, 0),
            ("DELETE", log, 1),
            ("DELETE", names::SUPERBLOCK_FOLDER, 0),
        ]);
        let landed = rng.chance(500);
        let blow = match rng.between(0, 2) {
            0 => Blow::Dies,
            1 => Blow::Stalls(Duration::from_millis(rng.spread(1000, 120_000))),
            _ => Blow::Stalls(Duration::from_secs(rng.between(3500, 4000))),
        };
        Self { verb, folder, passes, landed, blow }
    }

    /// Whether it is now.
    pub(crate) fn is_now(&mut self, verb: &str, name: &str, landed: bool) -> bool {
        if verb != self.verb || landed != self.landed || !relative(name).starts_with(self.folder) {
            return false;
        }
        let now = self.passes == 0;
        self.passes = self.passes.saturating_sub(1);
        now
    }
}

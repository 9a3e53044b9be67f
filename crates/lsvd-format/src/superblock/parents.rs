//! Clones: the volumes that a volume shares objects with, and how their pins are named in the other direction.
//!
//! A clone begins with a moment of its parent, and its log with a number above that. So of all that its map points into, the
//! number says whose it is. Knows paths as texts, not what lies there. Invariants:
//! 1. the features that go with clones and with their pins are there if and only if those are;
//! 2. parents ascend by their moments, the nearest is the last, and all are below the clone's first number;
//! 3. no volume is its own parent, and none is there twice.

use serde::{Deserialize, Serialize};

use super::Superblock;
use crate::{LogLayout, NUMBER_MAX, SequenceNumber, VolumeId};

/// Of `features_to_read` of a clone, for good: whoever does not know clones would take its log's beginning for that of an empty
/// volume.
pub const FEATURE_CLONE: &str = "clone";
/// Of `features_to_write` while a snapshot is a clone's: whoever does not know clones would remove it.
pub const FEATURE_CLONED: &str = "cloned";

/// Parents of one volume at most: the length of a chain of clones.
pub const PARENTS_MAX: usize = 64;
/// Length of a path to another volume at most, in bytes.
pub const PATH_BYTES_MAX: usize = 1024;

/// A volume whose objects a clone shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Which volume.
    pub volume_id: VolumeId,
    /// Where it is, from the clone's own prefix: `../` for each folder up, then names.
    pub path: String,
    /// The moment: up to this number, and above the parent's before, objects are this volume's.
    pub as_of: SequenceNumber,
    /// What its log's objects are called, if not as in format 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_layout: Option<LogLayout>,
}

/// The clone that a snapshot is kept for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedFor {
    /// The clone's identity.
    pub volume_id: VolumeId,
    /// Where it is, from the parent's own prefix.
    pub path: String,
    /// It is not to be made any more: somebody is about to remove what is kept for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
}

impl Superblock {
    /// The same as a clone that shares objects with these parents, of which there is one at least.
    pub fn with_parents(mut self, parents: Vec<Parent>) -> Self {
        self = self.with_log_follows(parents.last().map(|parent| parent.as_of));
        self.parents = parents;
        self
    }

    /// The same sharing nothing with any parent any more. Its log still begins behind one's moment.
    pub fn without_parents(mut self) -> Self {
        self.parents = Vec::new();
        self
    }

    pub(super) fn with_log_follows(mut self, log_follows: Option<SequenceNumber>) -> Self {
        super::moments::set_feature(&mut self.features_to_read, FEATURE_CLONE, log_follows.is_some());
        self.log_follows = log_follows;
        self
    }

    /// Whether its log can not be replayed from its beginning, as that is behind a moment of another volume with which it shares
    /// nothing any more.
    pub fn is_cut(&self) -> bool {
        self.log_follows.is_some() && self.parents.is_empty()
    }

    /// The volume that it was cloned from, unless it shares nothing with it any more.
    pub fn parent(&self) -> Option<&Parent> {
        self.parents.last()
    }

    /// Whether the parents are possible ones.
    pub(super) fn check_parents(&self) -> Result<(), String> {
        let says_so = self.features_to_read.iter().any(|feature| feature == FEATURE_CLONE);
        if says_so != self.log_follows.is_some() {
            return Err(format!("log_follows and {FEATURE_CLONE:?} in features_to_read go together"));
        }
        if self.parents.last().is_some_and(|last| Some(last.as_of) != self.log_follows) {
            return Err("the log follows another moment than that of the last of the parents".to_owned());
        }
        if self.parents.len() > PARENTS_MAX {
            return Err(format!("{} parents, where {PARENTS_MAX} is the most", self.parents.len()));
        }
        if !self.parents.is_sorted_by(|a, b| a.as_of < b.as_of) {
            return Err("the parents are not in the order of their moments".to_owned());
        }
        if let Some(follows) = self.log_follows.filter(|follows| *follows >= self.log_first_number) {
            return Err(format!("a log from {} on that follows {follows}", self.log_first_number));
        }
        let mut volumes: Vec<VolumeId> = self.parents.iter().map(|parent| parent.volume_id).collect();
        volumes.push(self.volume_id);
        volumes.sort_unstable();
        if volumes.windows(2).any(|two| two[0] == two[1]) {
            return Err("a volume is named twice among the parents, or is its own".to_owned());
        }
        for Parent { path, as_of, log_layout, .. } in &self.parents {
            check_path(path)?;
            if as_of.0 > NUMBER_MAX {
                return Err(format!("a parent as of {as_of}"));
            }
            log_layout.as_ref().map_or(Ok(()), LogLayout::validate)?;
        }
        Ok(())
    }
}

/// Whether this can be the way from one volume's prefix to another's: `..` for each folder up, then names.
///
/// # Errors
/// That it can not, for a person.
pub fn check_path(path: &str) -> Result<(), String> {
    let down = path.split('/').skip_while(|segment| *segment == "..");
    let fits = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.chars().any(char::is_control);
    if path.len() <= PATH_BYTES_MAX && { down }.all(fits) && !path.is_empty() {
        return Ok(());
    }
    Err(format!("{path:?} leads to no volume"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_up_and_then_down() {
        for path in ["../db1", "clone", "a/b", "..", "../../x/y.z", "../caf\u{e9}"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        for path in ["", "/", "/db1", "../", "a/../b", "./a", "a//b", "a/.", "a\nb"] {
            assert!(check_path(path).is_err(), "{path}");
        }
        assert!(check_path(&"a".repeat(PATH_BYTES_MAX + 1)).is_err());
    }
}

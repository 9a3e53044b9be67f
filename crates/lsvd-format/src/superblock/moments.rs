//! What a superblock keeps beside the present: snapshots, history, and what rollbacks and resizing left behind.
//!
//! Knows numbers, names and sizes, not what lies there. Invariants:
//! 1. the feature that goes with each of them is there if and only if it is;
//! 2. snapshots are by ascending time of making as far as they were made, and no two have one name;
//! 3. a snapshot's base is on its line and not above it; every kept checkpoint is on the volume's own line;
//! 4. each rollback goes to a lower number, its next number is above those of all before, and epochs do not fall.

use serde::{Deserialize, Serialize};

use super::named::CheckpointRef;
use super::parents::{FEATURE_CLONED, PinnedFor, check_path};
use super::{Line, Superblock};
use crate::{BLOCK_BYTES, Epoch, NUMBER_MAX, SequenceNumber, VOLUME_BYTES_MAX};

/// Of `features_to_write` while there is a snapshot: whoever does not know snapshots would delete what they need.
pub const FEATURE_SNAPSHOT: &str = "snapshot";
/// Of `features_to_read` since a rollback: whoever does not know it would take the branch that was left for the log.
pub const FEATURE_ROLLBACK: &str = "rollback";
/// Of `features_to_read` since the volume was resized: whoever does not know it would take objects of a larger volume for
/// damaged ones.
pub const FEATURE_RESIZE: &str = "resize";

/// Snapshots of one volume at most: each is some hundred bytes of every superblock version.
pub const SNAPSHOTS_MAX: usize = 1024;
/// Rollbacks that one volume remembers at most.
pub const ROLLBACKS_MAX: usize = 1024;
/// Sizes that one volume remembers at most.
pub const SIZES_MAX: usize = 1024;
/// Length of a snapshot's name at most, in bytes.
pub const SNAPSHOT_NAME_BYTES_MAX: usize = 64;

/// What is kept beside the present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moments {
    /// The snapshots, in the order of their making.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Snapshot>,
    /// How long every commit point stays within reach, in milliseconds; 0: no longer than checkpoints are kept anyhow.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub history_ms: u64,
    /// The rollbacks, in the order of their making.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollbacks: Vec<Rollback>,
    /// The sizes of the volume, by ascending numbers; empty if it always had the one that it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<SizeSince>,
}

/// A moment with a name: what it needs is not deleted (rule 7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// See [`check_snapshot_name`].
    pub name: String,
    /// The last object of the log that it contains.
    pub as_of: SequenceNumber,
    /// The checkpoint that it is read from, with the objects behind it; without one, the log from its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<CheckpointRef>,
    /// Size of the volume then, in bytes.
    pub size_bytes: u64,
    /// When it was made, in milliseconds since 1970 by the clock of whoever made it.
    pub created_unix_ms: u64,
    /// It was made by a schedule, or before a rollback, and may go by the schedule's rules.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub automatic: bool,
    /// The clone that it is kept for: it goes when that needs it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone: Option<PinnedFor>,
}

/// From here on the log followed another moment than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// The last object of the log that counts.
    pub to: SequenceNumber,
    /// The number that follows it.
    pub next: SequenceNumber,
    /// The opening that did it: a journal of an earlier one belongs to what was left.
    pub epoch: Epoch,
    /// When, in milliseconds since 1970 by the clock of whoever did it.
    pub unix_ms: u64,
}

/// A size of the volume and since when it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeSince {
    /// The first number of the log at which it holds.
    pub since: SequenceNumber,
    /// In bytes.
    pub size_bytes: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
pub(super) fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Whether a snapshot may have this name: a letter, then letters, digits, `.`, `_` and `-`, 64 at most. So it is never taken
/// for a number or a time.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn check_snapshot_name(name: &str) -> Result<(), String> {
    let begins = name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic());
    let goes_on = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if begins && goes_on && name.len() <= SNAPSHOT_NAME_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "a snapshot can not be called {name:?}: a name is a letter, then letters, digits, '.', '_' and '-', \
         {SNAPSHOT_NAME_BYTES_MAX} at most"
    ))
}

impl Superblock {
    /// The same with these moments, and the features that go with them.
    pub fn with_moments(mut self, moments: Moments) -> Self {
        let Moments { snapshots, rollbacks, sizes, .. } = &moments;
        set_feature(&mut self.features_to_write, FEATURE_SNAPSHOT, !snapshots.is_empty());
        set_feature(&mut self.features_to_write, FEATURE_CLONED, has_clones(snapshots));
        set_feature(&mut self.features_to_read, FEATURE_ROLLBACK, !rollbacks.is_empty());
        set_feature(&mut self.features_to_read, FEATURE_RESIZE, !sizes.is_empty());
        self.moments = moments;
        self
    }

    /// The same with a size of its own since a number, at which nothing was durable yet. The first resize also records the size
    /// before; what would be one too many is forgotten, but not how large the volume ever was.
    pub fn with_size(mut self, size_bytes: u64, since: SequenceNumber) -> Self {
        let mut sizes = std::mem::take(&mut self.moments.sizes);
        if sizes.is_empty() {
            sizes.push(SizeSince { since: self.log_first_number, size_bytes: self.size_bytes });
        }
        // A size at which nothing became durable is nobody's.
        sizes.retain(|size| size.since < since);
        sizes.push(SizeSince { since, size_bytes });
        while sizes.len() > SIZES_MAX {
            let oldest = sizes.remove(0);
            sizes[0].size_bytes = sizes[0].size_bytes.max(oldest.size_bytes);
        }
        let moments = Moments { sizes, ..std::mem::take(&mut self.moments) };
        Self { size_bytes, ..self }.with_moments(moments)
    }

    /// The snapshots that are kept for clones.
    pub fn pinned_for_clones(&self) -> impl Iterator<Item = (&Snapshot, &PinnedFor)> {
        self.moments.snapshots.iter().filter_map(|snapshot| Some((snapshot, snapshot.clone.as_ref()?)))
    }

    /// The snapshot with a name.
    pub fn snapshot(&self, name: &str) -> Option<&Snapshot> {
        self.moments.snapshots.iter().find(|snapshot| snapshot.name == name)
    }

    /// The line that ends with a number.
    pub fn line(&self, last: SequenceNumber) -> Line {
        Line::of(&self.moments.rollbacks, self.log_first_number, last)
    }

    /// The line that is written now.
    pub fn own_line(&self) -> Line {
        self.line(SequenceNumber(NUMBER_MAX))
    }

    /// Size of the volume at a moment, in bytes: of the number that ends `line`.
    pub fn size_bytes_at(&self, line: &Line) -> u64 {
        let on_line = |size: &&SizeSince| size.since <= line.last() && line.contains(size.since);
        let size = self.moments.sizes.iter().rev().find(on_line);
        size.map_or(self.size_bytes, |size| size.size_bytes)
    }

    /// The largest size that the volume ever had: no object of its log reaches further.
    pub fn largest_size_bytes(&self) -> u64 {
        self.moments.sizes.iter().map(|size| size.size_bytes).fold(self.size_bytes, u64::max)
    }

    /// Whether the moments are possible ones.
    pub(super) fn check_moments(&self) -> Result<(), String> {
        let Moments { snapshots, rollbacks, sizes, .. } = &self.moments;
        for (features, feature, there) in [
            (&self.features_to_write, FEATURE_SNAPSHOT, !snapshots.is_empty()),
            (&self.features_to_write, FEATURE_CLONED, has_clones(snapshots)),
            (&self.features_to_read, FEATURE_ROLLBACK, !rollbacks.is_empty()),
            (&self.features_to_read, FEATURE_RESIZE, !sizes.is_empty()),
        ] {
            if features.iter().any(|known| known == feature) != there {
                return Err(format!("the feature {feature:?} and what it stands for go together"));
            }
        }
        self.check_rollbacks()?;
        self.check_sizes()?;
        if snapshots.len() > SNAPSHOTS_MAX {
            return Err(format!("{} snapshots, where {SNAPSHOTS_MAX} is the most", snapshots.len()));
        }
        let mut names: Vec<&str> = snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|two| two[0] == two[1]) {
            return Err(format!("two snapshots are called {:?}", twice[0]));
        }
        snapshots.iter().try_for_each(|snapshot| self.check_snapshot(snapshot))?;
        let own = self.own_line();
        match self.checkpoints.iter().find(|kept| !own.contains(kept.stamp.as_of)) {
            Some(kept) => {
                let as_of = kept.stamp.as_of;
                Err(format!("the checkpoint as of {as_of} is on a branch that a rollback left"))
            }
            None => Ok(()),
        }
    }

    fn check_rollbacks(&self) -> Result<(), String> {
        let rollbacks = &self.moments.rollbacks;
        if rollbacks.len() > ROLLBACKS_MAX {
            return Err(format!("{} rollbacks, where {ROLLBACKS_MAX} is the most", rollbacks.len()));
        }
        let (mut before, mut epoch_before) = (SequenceNumber(0), Epoch(0));
        for Rollback { to, next, epoch, .. } in rollbacks {
            if *epoch < epoch_before || *epoch > self.epoch {
                return Err(format!(
                    "a rollback of epoch {epoch}, behind epoch {epoch_before} and up to {}",
                    self.epoch
                ));
            }
            epoch_before = *epoch;
            if *to < self.log_first_number || next.0 > NUMBER_MAX || to >= next || *next <= before {
                return Err(format!("a rollback to {to} that goes on with {next}"));
            }
            before = *next;
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), String> {
        let sizes = &self.moments.sizes;
        if sizes.len() > SIZES_MAX {
            return Err(format!("{} sizes, where {SIZES_MAX} is the most", sizes.len()));
        }
        for SizeSince { since, size_bytes } in sizes {
            check_size(*size_bytes)?;
            if since.0 > NUMBER_MAX {
                return Err(format!("a size since number {since}"));
            }
        }
        let ascending = |a: &SizeSince, b: &SizeSince| a.since < b.since;
        if !sizes.is_sorted_by(ascending) {
            return Err("the sizes are not in order".to_owned());
        }
        Ok(())
    }

    fn check_snapshot(&self, snapshot: &Snapshot) -> Result<(), String> {
        let Snapshot { name, as_of, base, size_bytes, clone, .. } = snapshot;
        check_snapshot_name(name)?;
        clone.as_ref().map_or(Ok(()), |clone| check_path(&clone.path))?;
        check_size(*size_bytes)?;
        if *as_of < self.log_first_number || as_of.0 > NUMBER_MAX {
            return Err(format!("snapshot {name:?} is as of {as_of}"));
        }
        let from = base.map_or(SequenceNumber(0), |base| base.stamp.as_of);
        if from < *as_of && self.is_condemned(*as_of) {
            return Err(format!("snapshot {name:?} is as of {as_of}, which is condemned"));
        }
        let Some(base) = base else { return Ok(()) };
        self.check_checkpoint(base)?;
        if from > *as_of || !self.line(*as_of).contains(from) {
            return Err(format!("snapshot {name:?} is as of {as_of}, but its base of {from}"));
        }
        Ok(())
    }
}

fn check_size(size_bytes: u64) -> Result<(), String> {
    if size_bytes == 0 || size_bytes > VOLUME_BYTES_MAX || !size_bytes.is_multiple_of(BLOCK_BYTES) {
        return Err(format!(
            "a size of {size_bytes} bytes is not a multiple of {BLOCK_BYTES} from {BLOCK_BYTES} to {VOLUME_BYTES_MAX}"
        ));
    }
    Ok(())
}

fn has_clones(snapshots: &[Snapshot]) -> bool {
    snapshots.iter().any(|snapshot| snapshot.clone.is_some())
}

/// Has a feature in a list, or not.
pub(super) fn set_feature(features: &mut Vec<String>, feature: &str, there: bool) {
    features.retain(|known| known != feature);
    features.extend(there.then(|| feature.to_owned()));
}

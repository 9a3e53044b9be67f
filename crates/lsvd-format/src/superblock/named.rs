//! What a superblock names beside the volume's own values: checkpoints, and what is condemned.
//!
//! Knows numbers and places, not what lies there. Invariants:
//! 1. checkpoints are oldest first, and none is of a later opening than the superblock that names it;
//! 2. only what lies at or below the oldest of at least two checkpoints is condemned (rule 7), until a rollback.

use serde::{Deserialize, Serialize};

use super::{FEATURE_CHECKPOINT, Superblock};
use crate::checkpoint::{CheckpointStamp, PART_BYTES_MAX, PART_HEAD_BYTES, PartId, ROOT_HEAD_BYTES};
use crate::{LogLayout, NUMBER_MAX, ObjectFormat, SequenceNumber};

/// A kept checkpoint, and where its root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// What it is as of.
    #[serde(flatten)]
    pub stamp: CheckpointStamp,
    /// The part that holds its root.
    pub part: PartId,
    /// Where in that part the root begins, in bytes.
    pub root_offset_bytes: u64,
    /// How long the root is, in bytes.
    pub root_bytes: u64,
    /// When it was written, in milliseconds since 1970 by its writer's clock; 0 if that is not known.
    #[serde(default, skip_serializing_if = "super::moments::is_zero")]
    pub taken_unix_ms: u64,
}

/// The numbers from `first` to `last`, both among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberRange {
    /// The lowest.
    pub first: SequenceNumber,
    /// The highest.
    pub last: SequenceNumber,
}

impl Superblock {
    /// Whether a log object may be gone, or go at any moment.
    pub fn is_condemned(&self, number: SequenceNumber) -> bool {
        let after = self.condemned.partition_point(|range| range.last < number);
        self.condemned.get(after).is_some_and(|range| range.first <= number)
    }

    /// Whether the checkpoints are possible ones.
    pub(super) fn check_checkpoints(&self) -> Result<(), String> {
        let says_so = self.features_to_read.iter().any(|feature| feature == FEATURE_CHECKPOINT);
        if says_so == self.checkpoints.is_empty() {
            return Err(format!("checkpoints and {FEATURE_CHECKPOINT:?} in features_to_read go together"));
        }
        let format_1 = |layout: &LogLayout| layout.append_format == ObjectFormat::V1;
        if says_so && self.log_layout.as_ref().is_some_and(format_1) {
            return Err("a checkpoint of a log that goes on in format 1".to_owned());
        }
        let older = |a: &CheckpointRef, b: &CheckpointRef| {
            a.stamp.as_of < b.stamp.as_of && a.stamp.epoch <= b.stamp.epoch
        };
        if !self.checkpoints.is_sorted_by(older) {
            return Err("the checkpoints are not in order, oldest first".to_owned());
        }
        self.checkpoints.iter().try_for_each(|checkpoint| self.check_checkpoint(checkpoint))
    }

    pub(super) fn check_checkpoint(&self, checkpoint: &CheckpointRef) -> Result<(), String> {
        let CheckpointRef { stamp, part, root_offset_bytes: offset, root_bytes, .. } = *checkpoint;
        part.check()?;
        let as_of = stamp.as_of;
        if as_of != part.as_of || as_of < self.log_first_number {
            let first = self.log_first_number;
            return Err(format!("a checkpoint as of {as_of} of a log from {first} on, in part {part}"));
        }
        if stamp.epoch.0 == 0 || stamp.epoch > part.epoch || part.epoch > self.epoch {
            let (epoch, own) = (stamp.epoch, self.epoch);
            return Err(format!(
                "a checkpoint as of epoch {epoch} in part {part}, in a version of epoch {own}"
            ));
        }
        let end = offset.checked_add(root_bytes).filter(|end| *end <= PART_BYTES_MAX);
        if offset < PART_HEAD_BYTES as u64 || root_bytes < ROOT_HEAD_BYTES as u64 || end.is_none() {
            return Err(format!("a root of {root_bytes} bytes from {offset} in part {part}"));
        }
        Ok(())
    }

    /// Whether what is condemned may go.
    pub(super) fn check_condemned(&self) -> Result<(), String> {
        let Some(last) = self.condemned.last() else { return Ok(()) };
        if let Some(NumberRange { first, last }) =
            self.condemned.iter().find(|range| range.first > range.last)
        {
            return Err(format!("condemned from {first} to {last}"));
        }
        let apart = |a: &NumberRange, b: &NumberRange| a.last.0 < NUMBER_MAX && a.last.next() < b.first;
        if !self.condemned.is_sorted_by(apart) {
            return Err("the condemned numbers are not in order, or two ranges could be one".to_owned());
        }
        let oldest = match &self.checkpoints[..] {
            // A rollback may have left the checkpoints that it was condemned by; what is condemned may still be there.
            _ if !self.moments.rollbacks.is_empty() => SequenceNumber(NUMBER_MAX),
            [oldest, _, ..] => oldest.stamp.as_of,
            kept => return Err(format!("numbers are condemned with {} checkpoints", kept.len())),
        };
        if last.last > oldest || self.condemned[0].first < self.log_first_number {
            let (from, to) = (self.condemned[0].first, last.last);
            return Err(format!(
                "condemned from {from} to {to}, where the oldest checkpoint is as of {oldest}"
            ));
        }
        Ok(())
    }
}

//! What was done behind the clients in a run, as the store saw it: a run in which nothing of it happens shows nothing of it.
//!
//! Knows counts and their words.

use std::fmt;
use std::ops::AddAssign;

/// Counts of one run, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    /// Checkpoints that a superblock version named.
    pub checkpoints: u64,
    /// Log objects of relocations.
    pub moved_objects: u64,
    /// Their blocks.
    pub moved_blocks: u64,
    /// Condemned log objects that were deleted.
    pub deleted_objects: u64,
    /// Objects of the checkpoints' folder that were deleted.
    pub deleted_parts: u64,
    /// GETs of regions of the map.
    pub region_reads: u64,
    /// Regions that were not in memory when a process was looked at.
    pub absent_regions: u64,
    /// Times that a reader went on as of a newer state.
    pub reloads: u64,
    /// Newest checkpoints that were damaged.
    pub damaged: u64,
    /// Openings that found the newest checkpoint damaged.
    pub fallbacks: u64,
    /// Rotten regions that were made again.
    pub mended: u64,
    /// Times that the older checkpoint was compared with the newest.
    pub compared: u64,
    /// Times that an open volume shrank.
    pub shrunk: u64,
    /// Times that it was given at least the size that it had.
    pub grown: u64,
    /// Snapshots that were made.
    pub snapshots: u64,
    /// Snapshots that were removed.
    pub removed_snapshots: u64,
    /// Times that a moment was read and compared with the log.
    pub moments_read: u64,
    /// Rollbacks.
    pub rollbacks: u64,
    /// Volumes that were removed at the end, and made anew.
    pub removals: u64,
    /// Clones that were made.
    pub clones: u64,
    /// Times that all of a clone was read and compared.
    pub clones_read: u64,
    /// Clones that were flattened.
    pub clones_flattened: u64,
}

impl AddAssign for Deeds {
    fn add_assign(&mut self, other: Self) {
        self.checkpoints += other.checkpoints;
        self.moved_objects += other.moved_objects;
        self.moved_blocks += other.moved_blocks;
        self.deleted_objects += other.deleted_objects;
        self.deleted_parts += other.deleted_parts;
        self.region_reads += other.region_reads;
        self.absent_regions += other.absent_regions;
        self.reloads += other.reloads;
        self.damaged += other.damaged;
        self.fallbacks += other.fallbacks;
        self.mended += other.mended;
        self.compared += other.compared;
        self.shrunk += other.shrunk;
        self.grown += other.grown;
        self.snapshots += other.snapshots;
        self.removed_snapshots += other.removed_snapshots;
        self.moments_read += other.moments_read;
        self.rollbacks += other.rollbacks;
        self.removals += other.removals;
        self.clones += other.clones;
        self.clones_read += other.clones_read;
        self.clones_flattened += other.clones_flattened;
    }
}

impl fmt::Display for Deeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checkpoints, moved_objects, moved_blocks, deleted_objects, deleted_parts, .. } = self;
        let Self {
            region_reads,
            absent_regions,
            reloads,
            damaged,
            fallbacks,
            mended,
            compared,
            shrunk,
            grown,
            snapshots,
            removed_snapshots,
            moments_read,
            rollbacks,
            removals,
            clones,
            clones_read,
            clones_flattened,
            ..
        } = self;
        write!(
            f,
            "{checkpoints} checkpoints ({damaged} damaged, {fallbacks} openings with the one before, {mended} regions mended, {compared} compared with \
             it), {moved_blocks} blocks moved in {moved_objects} objects, {deleted_objects} log and {deleted_parts} \
             checkpoint objects deleted, {region_reads} regions read ({absent_regions} seen absent), {reloads} reloads, shrunk {shrunk} times and \
             grown {grown}, {snapshots} snapshots made and {removed_snapshots} removed, {moments_read} moments read, {rollbacks} rollbacks, \
              {removals} removals, {clones} clones made, {clones_read} times read and {clones_flattened} flattened"
        )
    }
}

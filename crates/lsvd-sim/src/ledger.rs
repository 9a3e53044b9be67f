//! Which journal is in use, as the superblock versions say in the order in which they landed, and which was given up.
//!
//! Knows superblocks. A journal that is in use leaves the superblock by a clean close of its own writer, or by a process
//! that was told to give it up, and never otherwise.

use std::collections::{BTreeMap, BTreeSet};

use lsvd_format::checkpoint::PartId;
use lsvd_format::superblock::{self, Superblock};
use lsvd_format::{JournalId, SequenceNumber, SuperblockNumber};

use crate::history::Tick;
use crate::host::SsdNumber;
use crate::oracle::Violation;
use crate::roller::Turn;

/// Whose superblock version it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Author {
    /// It was told that a journal may be given up.
    pub(crate) may_abandon: bool,
    /// Where its own journal lies.
    pub(crate) ssd: Option<SsdNumber>,
}

/// What the superblock versions said.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    newest: Option<(SuperblockNumber, Superblock)>,
    /// The journal of each epoch that has one.
    by_epoch: BTreeMap<u64, JournalId>,
    /// Where each journal lies. Their places in here number them.
    homes: Vec<(JournalId, Option<SsdNumber>)>,
    abandoned: Vec<u64>,
    /// Log objects that some version condemned.
    condemned: BTreeSet<SequenceNumber>,
    /// Roots of all checkpoints that some version named.
    roots: BTreeSet<PartId>,
    /// Snapshots that somebody was to remove.
    forgettable: BTreeSet<String>,
    turns: Vec<Turn>,
}

impl Ledger {
    /// A version has landed. Gives what is wrong with it.
    pub(crate) fn landed(
        &mut self,
        number: SuperblockNumber,
        bytes: &[u8],
        (author, at): (Author, Tick),
    ) -> Result<(), Violation> {
        let Ok(version) = superblock::decode(number, bytes) else { return Ok(()) };
        if self.newest.as_ref().is_some_and(|(newest, _)| *newest > number) {
            return Ok(()); // of a number that was pruned: it counts for nothing
        }
        let condemned = version.condemned.iter().flat_map(|range| range.first.0..=range.last.0);
        self.condemned.extend(condemned.map(SequenceNumber));
        self.roots.extend(version.checkpoints.iter().map(|checkpoint| checkpoint.part));
        let before = self.newest.replace((number, version.clone())).map(|(_, before)| before);
        if let Some(journal) = version.journal {
            self.by_epoch.insert(version.epoch.0, journal);
            if !self.homes.iter().any(|(known, _)| *known == journal) {
                self.homes.push((journal, author.ssd));
            }
        }
        let Some(before) = before else { return Ok(()) };
        if version.moments.rollbacks.len() > before.moments.rollbacks.len() {
            self.turns.push(Turn { number, version: version.clone(), at });
        }
        let kept = |name: &str| version.snapshot(name).is_some() || self.forgettable.contains(name);
        if let Some(lost) = before.moments.snapshots.iter().find(|snapshot| !kept(&snapshot.name)) {
            let what = format!("superblock {number} drops snapshot {}, which nobody asked for", lost.name);
            return Err(Violation::new(7, what));
        }
        if before.journal.is_none() || before.journal == version.journal {
            return Ok(());
        }
        let closed = version.closed_at.is_some() && version.writer_id == before.writer_id;
        if closed && version.journal.is_none() {
            return Ok(());
        }
        self.abandoned.push(version.epoch.0);
        if author.may_abandon {
            return Ok(());
        }
        let what = format!("superblock {number} gives up the journal in use, which nobody asked for");
        Err(Violation::new(1, what))
    }

    /// The rollbacks that were made, in their order.
    pub(crate) fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Somebody is to remove this snapshot.
    pub(crate) fn may_forget(&mut self, snapshot: &str) {
        self.forgettable.insert(snapshot.to_owned());
    }

    /// The version that counts.
    pub(crate) fn newest(&self) -> Option<&Superblock> {
        self.newest.as_ref().map(|(_, superblock)| superblock)
    }

    /// The version that this one comes after; `None` if it is of a number that was pruned, and counts for nothing.
    pub(crate) fn before(&self, number: SuperblockNumber) -> Option<&Superblock> {
        self.newest.as_ref().filter(|(newest, _)| *newest < number).map(|(_, superblock)| superblock)
    }

    /// The root of the newest checkpoint.
    pub(crate) fn newest_root(&self) -> Option<PartId> {
        self.newest()?.checkpoints.last().map(|checkpoint| checkpoint.part)
    }

    /// Whether an object of the checkpoints' folder holds the root of one that was named.
    pub(crate) fn is_root(&self, part: PartId) -> bool {
        self.roots.contains(&part)
    }

    /// Whether some version said that an object is to go.
    pub(crate) fn has_condemned(&self, number: SequenceNumber) -> bool {
        self.condemned.contains(&number)
    }

    /// The number of the journal of an epoch.
    pub(crate) fn journal_of(&self, epoch: u64) -> Option<u32> {
        let journal = self.by_epoch.get(&epoch)?;
        let at = self.homes.iter().position(|(known, _)| known == journal)?;
        Some(u32::try_from(at).expect("a run has few journals"))
    }

    /// Epochs that began by giving up the journal that was in use.
    pub(crate) fn abandoned(&self) -> &[u64] {
        &self.abandoned
    }

    /// Whether a journal is in use, and where it lies, if that is known.
    pub(crate) fn in_use(&self) -> Option<Option<SsdNumber>> {
        let journal = self.newest.as_ref()?.1.journal?;
        Some(self.homes.iter().find(|(known, _)| *known == journal).and_then(|(_, home)| *home))
    }
}

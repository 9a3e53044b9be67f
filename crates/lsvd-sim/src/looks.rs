//! Whether a process looked for a newer writer between what it decided and what it deletes (rule 9).
//!
//! Knows what one process sent and saw: its superblock versions and fences, its listings of superblocks and its deletes;
//! nothing of the product. A decision is a version that changes what is condemned or kept, or a fence. What was sent before
//! the decision's own requests does not count as a look.

use lsvd_format::SuperblockNumber;
use lsvd_format::superblock::{CheckpointRef, NumberRange, Superblock};

/// What one process did so far.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    decisions: u64,
    said: Option<(Vec<NumberRange>, Vec<CheckpointRef>)>,
    own: Option<SuperblockNumber>,
    /// The decision that the last whole listing came after, and whether all after it showed a higher number than its own.
    looked: Option<(u64, bool)>,
}

impl Looks {
    /// It sends a superblock version.
    pub(crate) fn sends(&mut self, number: SuperblockNumber, version: &Superblock) {
        let says = (version.condemned.clone(), version.checkpoints.clone());
        if self.said.as_ref() != Some(&says) {
            self.decisions += 1;
        }
        self.said = Some(says);
        self.own = self.own.max(Some(number));
    }

    /// It sends a fence: what lies beyond is to be archived.
    pub(crate) fn fences(&mut self) {
        self.decisions += 1;
    }

    /// It begins to list superblocks: to be handed to [`Looks::saw`].
    pub(crate) fn begins(&self) -> u64 {
        self.decisions
    }

    /// A listing that began so has come to its end.
    pub(crate) fn saw(&mut self, began: u64, highest: Option<SuperblockNumber>) {
        // One that began earlier and took longer, of another task, takes nothing back.
        if self.looked.is_some_and(|(good, _)| good > began) {
            return;
        }
        let higher = highest > self.own;
        // One good look is enough for a round: another task of it may see the newcomer while its deletes are on their way.
        if !higher || self.looked.is_none_or(|(good, _)| good != began) {
            self.looked = Some((began, higher));
        }
    }

    /// It deletes what a log or a checkpoint consists of.
    pub(crate) fn check_delete(&self) -> Result<(), &'static str> {
        match self.looked {
            Some((began, false)) if began == self.decisions => Ok(()),
            Some((_, true)) => Err("it had seen a newer writer"),
            _ => Err("it had not looked for a newer writer since it decided that"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 9.
    #[test]
    fn a_delete_needs_a_look_after_the_decision() {
        let mut looks = Looks { own: Some(SuperblockNumber(3)), ..Looks::default() };
        assert!(looks.check_delete().is_err());
        let began = looks.begins();
        looks.saw(began, None);
        assert_eq!(looks.check_delete(), Ok(()));
        looks.fences();
        assert!(looks.check_delete().is_err(), "it was before the fence");
        looks.saw(began, None);
        assert!(looks.check_delete().is_err(), "it began before the fence");
        looks.saw(looks.begins(), Some(SuperblockNumber(3)));
        assert_eq!(looks.check_delete(), Ok(()));
        looks.saw(began, Some(SuperblockNumber(3)));
        assert_eq!(looks.check_delete(), Ok(()), "a slow listing of another task");
        looks.saw(looks.begins(), Some(SuperblockNumber(4)));
        assert_eq!(looks.check_delete(), Ok(()), "it came after the look");
        looks.fences();
        looks.saw(looks.begins(), Some(SuperblockNumber(4)));
        assert!(looks.check_delete().is_err());
    }
}

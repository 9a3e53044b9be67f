//! Ways to break the world on purpose, to show that the simulator would notice.
//!
//! Each takes away one thing that the design rests on, in the store, on the way to it or on a host; the product's code is the
//! same. A simulator that passes with one of these proves nothing.

use std::fmt;
use std::str::FromStr;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Create-only PUT overwrites what is there and reports success, in the log and among the superblocks (rule 2).
    OverwritingStore,
    /// The store reports a fence as stored and does not store it (rule 9).
    DroppedFence,
    /// A fence names the next number as the one right behind it: the window is not skipped (rule 9).
    NarrowFence,
    /// A listing ends early now and then and says that it is complete (rule 4).
    ShortListing,
    /// A GET that fails says "not found" (rule 4).
    ErrorAsAbsence,
    /// The store reports an object as stored and does not store it, now and then (what a flush rests on).
    LyingPut,
    /// An old writer's PUT answers "stored" though another's object is there (rule 2).
    BlindCollision,
    /// An SSD says that it has synced, and has not (what a journal's flush rests on).
    LyingSync,
    /// An SSD loses what was synced when its host loses power.
    ForgetfulSsd,
    /// Two processes open one journal's directory at once.
    LooseLock,
    /// The store reports an object of a checkpoint as stored and does not store it, now and then (rule 8).
    LyingCheckpoint,
    /// A listing of the superblocks above a number shows none (rule 9).
    BlindLook,
}

impl Mutation {
    /// All of them, with their names on the command line.
    pub const ALL: [(&'static str, Self); 12] = [
        ("overwriting-store", Self::OverwritingStore),
        ("dropped-fence", Self::DroppedFence),
        ("narrow-fence", Self::NarrowFence),
        ("short-listing", Self::ShortListing),
        ("error-as-absence", Self::ErrorAsAbsence),
        ("lying-put", Self::LyingPut),
        ("blind-collision", Self::BlindCollision),
        ("lying-sync", Self::LyingSync),
        ("forgetful-ssd", Self::ForgetfulSsd),
        ("loose-lock", Self::LooseLock),
        ("lying-checkpoint", Self::LyingCheckpoint),
        ("blind-look", Self::BlindLook),
    ];
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, mutation)| mutation == self).map(|(name, _)| *name);
        f.write_str(name.expect("every mutation has a name"))
    }
}

impl FromStr for Mutation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(|(name, _)| name).join(", ");
        let found = Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, mutation)| *mutation);
        found.ok_or_else(|| format!("unknown mutation '{text}'; known are {}", known()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_printed() {
        for (name, mutation) in Mutation::ALL {
            assert_eq!(name.parse(), Ok(mutation));
            assert_eq!(mutation.to_string(), name);
        }
        assert!("no-such".parse::<Mutation>().unwrap_err().contains("narrow-fence"));
    }
}

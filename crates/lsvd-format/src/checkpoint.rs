//! What identifies a checkpoint: the extent map as of one log object.
//!
//! Knows neither the map nor its bytes, which have no layout yet: this is what a superblock will refer to.

use serde::{Deserialize, Serialize};

use crate::{Epoch, SequenceNumber, WriterId};

/// The log object that a checkpoint is as of, by number and identity.
///
/// A checkpoint as of `n` is written when every object up to `n` is durable, and says whose `n` that was (rule 8):
/// a reader that finds another object under that number does not use the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStamp {
    /// The last object that the map contains.
    pub as_of: SequenceNumber,
    /// The epoch of that object.
    pub epoch: Epoch,
    /// The writer of that object.
    pub writer: WriterId,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 8: number and identity, as JSON within a superblock.
    #[test]
    fn a_stamp_is_a_number_and_an_identity() {
        let stamp =
            CheckpointStamp { as_of: SequenceNumber(70), epoch: Epoch(2), writer: WriterId([0xab; 16]) };
        let text = r#"{"as_of":70,"epoch":2,"writer":"abababababababababababababababab"}"#;
        assert_eq!(serde_json::to_string(&stamp).unwrap(), text);
        assert_eq!(serde_json::from_str::<CheckpointStamp>(text).unwrap(), stamp);
    }
}

//! What was written to a run of blocks and is still in memory.

use bytes::Bytes;
use lsvd_format::{BLOCK_LEN, SequenceNumber};

use crate::interval::Run;

/// The newest content of a run of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Data: whole blocks, shared with the request that brought them.
    Data(Bytes),
    /// Zeroes that stay allocated.
    Zero,
    /// Discarded.
    Trim,
}

impl Run for Content {
    fn part(&self, from: u64, count: u64) -> Self {
        match self {
            Self::Data(bytes) => {
                let at = |blocks: u64| usize::try_from(blocks).expect("it is in memory") * BLOCK_LEN;
                Self::Data(bytes.slice(at(from)..at(from + count)))
            }
            Self::Zero => Self::Zero,
            Self::Trim => Self::Trim,
        }
    }

    fn continues(&self, _count: u64, next: &Self) -> bool {
        matches!((self, next), (Self::Zero, Self::Zero) | (Self::Trim, Self::Trim))
    }
}

/// An overlay entry: the content, and the number of the object that will hold it.
#[derive(Clone, Debug)]
pub struct Buffered {
    /// Number of the object that this is on its way to.
    pub number: SequenceNumber,
    /// The content.
    pub content: Content,
}

impl Run for Buffered {
    fn part(&self, from: u64, count: u64) -> Self {
        Self { number: self.number, content: self.content.part(from, count) }
    }

    fn continues(&self, count: u64, next: &Self) -> bool {
        self.number == next.number && self.content.continues(count, &next.content)
    }
}

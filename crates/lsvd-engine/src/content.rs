//! What was written to a run of blocks and is still in memory.

use bytes::Bytes;
use lsvd_format::{BLOCK_LEN, Extent, SequenceNumber};

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

/// A block of zeroes.
pub(crate) static ZERO_BLOCK: [u8; BLOCK_LEN] = [0; BLOCK_LEN];

/// Cuts whole blocks of data into runs of zeroes, which take no room in an object, and the rest. A block that is not
/// zero is told by its first bytes, mostly.
pub(crate) fn without_zeroes(extent: Extent, data: Bytes) -> Vec<(Extent, Content)> {
    let mut runs: Vec<(Extent, bool)> = Vec::with_capacity(1);
    for (block, bytes) in (extent.start.0..).zip(data.chunks_exact(BLOCK_LEN)) {
        let zero = bytes == ZERO_BLOCK;
        match runs.last_mut() {
            Some((run, of)) if *of == zero => run.count.0 += 1,
            _ => runs.push((Extent::new(block, 1), zero)),
        }
    }
    let content = |(run, zero): (Extent, bool)| {
        let whole = Content::Data(data.clone());
        let content =
            if zero { Content::Zero } else { whole.part(run.start.0 - extent.start.0, run.count.0) };
        (run, content)
    };
    runs.into_iter().map(content).collect()
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

//! A mutation on its way into the order of writes: which blocks it changes, and what of the blocks that it changes only
//! in part.
//!
//! Knows bytes and blocks of one request; not other requests, not the map.

use bytes::{Bytes, BytesMut};
use lsvd_format::{BLOCK_BYTES, BLOCK_LEN, BlockIndex, Extent};

use crate::content::Content;
use crate::request::{Request, RequestId};

/// What a record of its own costs in batch and overlay, about.
pub(crate) const RECORD_BYTES: u64 = 128;

/// What is put on the range.
#[derive(Clone, Debug)]
enum Kind {
    Data(Bytes),
    Zero { keep_allocated: bool },
    Trim,
}

/// One write, trim or zeroing.
#[derive(Clone, Debug)]
pub(crate) struct Mutation {
    pub(crate) id: RequestId,
    pub(crate) fua: bool,
    kind: Kind,
    offset_bytes: u64,
    length_bytes: u64,
    /// Contents before the mutation of the blocks that it changes in part, as far as they are known.
    bases: Vec<(BlockIndex, Option<Bytes>)>,
}

impl Mutation {
    /// The mutation that a request is; `None` for a flush or a drain.
    pub(crate) fn new(id: RequestId, request: Request) -> Option<Self> {
        let (offset_bytes, length_bytes, kind, fua) = match request {
            Request::Write { offset_bytes, data, fua } => {
                (offset_bytes, data.len() as u64, Kind::Data(data), fua)
            }
            Request::WriteZeroes { offset_bytes, length_bytes, keep_allocated, fua } => {
                (offset_bytes, length_bytes, Kind::Zero { keep_allocated }, fua)
            }
            Request::Trim { offset_bytes, length_bytes, fua } => {
                // TRIM is advisory and rounds inward: what is discarded are whole blocks.
                let start = offset_bytes.next_multiple_of(BLOCK_BYTES);
                let end = (offset_bytes + length_bytes) / BLOCK_BYTES * BLOCK_BYTES;
                (start, end.saturating_sub(start), Kind::Trim, fua)
            }
            Request::Flush | Request::Drain => return None,
        };
        let mut mutation = Self { id, fua, kind, offset_bytes, length_bytes, bases: Vec::new() };
        mutation.bases = mutation.partial_blocks().into_iter().map(|block| (block, None)).collect();
        Some(mutation)
    }

    /// The blocks that it changes, those changed in part included.
    pub(crate) fn blocks(&self) -> Extent {
        let start = self.offset_bytes / BLOCK_BYTES;
        Extent::new(start, (self.offset_bytes + self.length_bytes).div_ceil(BLOCK_BYTES) - start)
    }

    /// Bytes of memory that it brings.
    pub(crate) fn held_bytes(&self) -> u64 {
        let data = if let Kind::Data(data) = &self.kind { data.len() as u64 } else { 0 };
        RECORD_BYTES + data + self.bases.len() as u64 * BLOCK_BYTES
    }

    fn partial_blocks(&self) -> Vec<BlockIndex> {
        let (start, end) = (self.offset_bytes, self.offset_bytes + self.length_bytes);
        let mut blocks = Vec::new();
        if self.length_bytes > 0 && start % BLOCK_BYTES != 0 {
            blocks.push(BlockIndex(start / BLOCK_BYTES));
        }
        if self.length_bytes > 0 && end % BLOCK_BYTES != 0 {
            let last = BlockIndex(end / BLOCK_BYTES);
            if blocks.last() != Some(&last) {
                blocks.push(last);
            }
        }
        blocks
    }

    /// Blocks changed in part whose content before is not known yet.
    pub(crate) fn missing(&self) -> impl Iterator<Item = BlockIndex> + '_ {
        self.bases.iter().filter(|(_, base)| base.is_none()).map(|(block, _)| *block)
    }

    /// Sets the content before of a block that is changed in part.
    pub(crate) fn set_base(&mut self, block: BlockIndex, base: Bytes) {
        debug_assert_eq!(base.len(), BLOCK_LEN);
        for (_, slot) in self.bases.iter_mut().filter(|(of, _)| *of == block) {
            *slot = Some(base.clone());
        }
    }

    /// The mutation as whole blocks, in order of address. All bases are known.
    pub(crate) fn into_contents(self) -> Vec<(Extent, Content)> {
        let mut contents = Vec::with_capacity(3);
        let (start, end) = (self.offset_bytes, self.offset_bytes + self.length_bytes);
        let whole_start = start.next_multiple_of(BLOCK_BYTES);
        let whole_end = end / BLOCK_BYTES * BLOCK_BYTES;
        for (block, base) in &self.bases {
            let base = base.as_ref().expect("bases are fetched before a mutation is applied");
            contents.push((Extent::new(block.0, 1), Content::Data(self.merged(*block, base))));
        }
        if whole_start < whole_end {
            let extent = Extent::new(whole_start / BLOCK_BYTES, (whole_end - whole_start) / BLOCK_BYTES);
            let content = match &self.kind {
                Kind::Data(data) => {
                    Content::Data(data.slice(in_memory(whole_start - start)..in_memory(whole_end - start)))
                }
                Kind::Zero { keep_allocated: true } => Content::Zero,
                Kind::Zero { keep_allocated: false } | Kind::Trim => Content::Trim,
            };
            contents.push((extent, content));
        }
        contents
    }

    fn merged(&self, block: BlockIndex, base: &Bytes) -> Bytes {
        let at = block.offset_bytes();
        let from = self.offset_bytes.max(at);
        let to = (self.offset_bytes + self.length_bytes).min(at + BLOCK_BYTES);
        let mut merged = BytesMut::from(&base[..]);
        let target = &mut merged[in_memory(from - at)..in_memory(to - at)];
        match &self.kind {
            Kind::Data(data) => {
                let source = in_memory(from - self.offset_bytes)..in_memory(to - self.offset_bytes);
                target.copy_from_slice(&data[source]);
            }
            Kind::Zero { .. } | Kind::Trim => target.fill(0),
        }
        merged.freeze()
    }
}

fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a request is in memory")
}

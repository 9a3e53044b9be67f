//! A batch: the writes that will be one log object, the newest winning inside it.
//!
//! Knows no numbers in flight and no memory ceilings. Invariant: a block has one content, the newest.

use std::time::Duration;

use bytes::Bytes;
use lsvd_format::log_object::Entry;
use lsvd_format::{BLOCK_BYTES, BlockCount, BlockIndex, Extent};

use crate::content::Content;
use crate::interval::IntervalMap;

/// The batch that still takes writes.
#[derive(Debug, Default)]
pub struct Batch {
    contents: IntervalMap<Content>,
    /// Bytes of memory that its requests brought, those since overwritten included: slices keep the whole alive.
    pub held_bytes: u64,
    /// When its first write came.
    pub opened_at: Option<Duration>,
}

impl Batch {
    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.contents.is_empty()
    }

    /// Runs of blocks, an upper bound of the entries of its object.
    pub fn runs(&self) -> usize {
        self.contents.len()
    }

    /// Puts the newest content of a run.
    pub fn insert(&mut self, extent: Extent, content: Content) {
        self.contents.insert(extent, content);
    }

    /// Its runs, for the overlay to forget when they are durable.
    pub fn extents(&self) -> Vec<Extent> {
        self.contents.iter().map(|(extent, _)| extent).collect()
    }

    /// The entries and the payload of its object, both in order of address: neighbours on the volume are neighbours in
    /// the object.
    pub fn seal(self) -> (Vec<Entry>, Vec<Bytes>) {
        let mut entries: Vec<Entry> = Vec::with_capacity(self.contents.len());
        let mut payload = Vec::new();
        for (extent, content) in self.contents.iter() {
            match content {
                Content::Data(bytes) => {
                    payload.push(bytes.clone());
                    match entries.last_mut() {
                        Some(Entry::Data { extent: last }) if last.end() == extent.start => {
                            last.count.0 += extent.count.0;
                        }
                        _ => entries.push(Entry::Data { extent }),
                    }
                }
                Content::Zero => entries.extend(encodable(extent).map(|extent| Entry::Zero { extent })),
                Content::Trim => entries.extend(encodable(extent).map(|extent| Entry::Trim { extent })),
            }
        }
        (entries, payload)
    }
}

/// Cuts a run into such as an entry's 32-bit count can say.
fn encodable(extent: Extent) -> impl Iterator<Item = Extent> {
    let most = u64::from(u32::MAX);
    (0..extent.count.0.div_ceil(most)).map(move |nth| {
        let start = extent.start.0 + nth * most;
        Extent { start: BlockIndex(start), count: BlockCount(most.min(extent.end().0 - start)) }
    })
}

/// Bytes that `content` of `extent` adds to an object's payload.
pub fn payload_bytes(extent: Extent, content: &Content) -> u64 {
    match content {
        Content::Data(_) => extent.count.0 * BLOCK_BYTES,
        Content::Zero | Content::Trim => 0,
    }
}

//! The payload's frames: one block each, with a checksum that says whose block it is.
//!
//! Knows no header: an identity and an ordinal are enough to verify a frame from its own ranged GET (rule 5).
//! Invariant: a frame verifies only as the ordinal of the object that it was written for.

use std::ops::Range;

use bytes::Bytes;

use crate::wire::{len_bytes, u32_at};
use crate::{BLOCK_LEN, BlockOrdinal, DecodeError, ObjectIdentity};

/// Bytes before each block's data: its checksum and its flags.
pub const FRAME_HEAD_BYTES: u64 = 8;
/// Bytes of a frame: its head and one block.
pub const FRAME_BYTES: u64 = FRAME_HEAD_BYTES + crate::BLOCK_BYTES;

const HEAD_LEN: usize = 8;
const FRAME_LEN: usize = HEAD_LEN + BLOCK_LEN;

/// Frame flags that this version knows: none. Compression and encryption will be such flags.
const FLAGS: u32 = 0;

/// The part of a frame's checksum that is the same for all frames of an object.
#[derive(Clone, Copy)]
struct Seed(u32);

impl Seed {
    fn new(identity: &ObjectIdentity) -> Self {
        Self(crc32c::crc32c(&super::identity_bytes(identity)))
    }

    /// Checksum of the frame `ordinal`, whose bytes after the checksum are `flags` and `block`.
    fn checksum(self, ordinal: u32, flags: u32, block: &[u8]) -> u32 {
        let mut head = [0; 8];
        head[..4].copy_from_slice(&ordinal.to_le_bytes());
        head[4..].copy_from_slice(&flags.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &head), block)
    }
}

/// Byte range in the object of `count` frames from `first`.
pub fn frames_range(header_bytes: u64, first: BlockOrdinal, count: u32) -> Range<u64> {
    let start = header_bytes + u64::from(first.0) * FRAME_BYTES;
    start..start + u64::from(count) * FRAME_BYTES
}

/// Appends one block as a frame to `out`.
///
/// # Panics
/// If `block` is not one block long.
pub fn encode_frame(identity: &ObjectIdentity, ordinal: BlockOrdinal, block: &[u8], out: &mut Vec<u8>) {
    assert_eq!(block.len(), BLOCK_LEN, "a frame holds one block");
    encode_frames(identity, ordinal, block, out);
}

/// Appends a run of blocks that lie one after the other as frames from `first` to `out`.
///
/// # Panics
/// If `blocks` is not a whole number of blocks, or their ordinals do not fit.
pub fn encode_frames(identity: &ObjectIdentity, first: BlockOrdinal, blocks: &[u8], out: &mut Vec<u8>) {
    out.reserve(blocks.len() / BLOCK_LEN * FRAME_LEN);
    for (head, block) in heads(identity, first, blocks).zip(blocks.chunks_exact(BLOCK_LEN)) {
        out.extend_from_slice(&head);
        out.extend_from_slice(block);
    }
}

/// Appends only the heads of those frames to `out`, for who sends head, block, head, block from where they are.
///
/// # Panics
/// As [`encode_frames`].
pub fn encode_frame_heads(identity: &ObjectIdentity, first: BlockOrdinal, blocks: &[u8], out: &mut Vec<u8>) {
    out.reserve(blocks.len() / BLOCK_LEN * HEAD_LEN);
    for head in heads(identity, first, blocks) {
        out.extend_from_slice(&head);
    }
}

fn heads(
    identity: &ObjectIdentity,
    first: BlockOrdinal,
    blocks: &[u8],
) -> impl Iterator<Item = [u8; HEAD_LEN]> {
    assert_eq!(blocks.len() % BLOCK_LEN, 0, "frames hold whole blocks");
    let ordinals = ordinals(first, blocks.len() / BLOCK_LEN).expect("ordinals fit in 32 bits");
    let seed = Seed::new(identity);
    ordinals.zip(blocks.chunks_exact(BLOCK_LEN)).map(move |(ordinal, block)| {
        let mut head = [0; HEAD_LEN];
        head[..4].copy_from_slice(&seed.checksum(ordinal, FLAGS, block).to_le_bytes());
        head[4..].copy_from_slice(&FLAGS.to_le_bytes());
        head
    })
}

/// Verifies a run of whole frames that begins at `first`, and gives the blocks' data without the frames' heads.
///
/// # Errors
/// The offset in [`DecodeError::Corrupt`] counts from the start of `frames`. [`DecodeError::Short`] if the last
/// frame is not whole: the answer was truncated, or the object is. [`DecodeError::Newer`] for a frame that is
/// sound but flagged in a way that is not known here (encrypted, compressed).
pub fn decode_frames(
    identity: &ObjectIdentity,
    first: BlockOrdinal,
    frames: &[u8],
) -> Result<Bytes, DecodeError> {
    let count = frames.len() / FRAME_LEN;
    if !frames.len().is_multiple_of(FRAME_LEN) {
        let whole = len_bytes(frames).div_ceil(FRAME_BYTES) * FRAME_BYTES;
        return Err(DecodeError::Short { have_bytes: len_bytes(frames), need_bytes: whole });
    }
    let Some(ordinals) = ordinals(first, count) else {
        let reason = format!("{count} frames from ordinal {}, beyond any object's end", first.0);
        return Err(DecodeError::corrupt(0, reason));
    };
    let seed = Seed::new(identity);
    let mut data = Vec::with_capacity(count * BLOCK_LEN);
    let mut offset_bytes = 0;
    for (ordinal, frame) in ordinals.zip(frames.chunks_exact(FRAME_LEN)) {
        let (stored, flags, block) = (u32_at(frame, 0), u32_at(frame, 4), &frame[HEAD_LEN..]);
        let computed = seed.checksum(ordinal, flags, block);
        if stored != computed {
            let number = identity.number;
            return Err(DecodeError::corrupt(
                offset_bytes,
                format!("block {ordinal} of object {number} has checksum {computed:08x}, not {stored:08x}"),
            ));
        }
        if flags != FLAGS {
            return Err(DecodeError::Newer { what: format!("a block with frame flags {flags:#x}") });
        }
        data.extend_from_slice(block);
        offset_bytes += FRAME_BYTES;
    }
    Ok(Bytes::from(data))
}

/// The ordinals of `count` frames from `first`, if a payload can be so long.
fn ordinals(first: BlockOrdinal, count: usize) -> Option<Range<u32>> {
    let end = first.0.checked_add(u32::try_from(count).ok()?)?;
    Some(first.0..end)
}

//! Bytes that tell which write they came from.
//!
//! Every 512-byte sector that a simulated client writes is filled from its place and its write's number, so that a
//! sector read back is zeroes, one known write's, or garbage, and nothing else. Knows no volume.

use crate::rng::mix;

/// Bytes of a sector, the grain at which contents are told apart.
pub const SECTOR_BYTES: usize = 512;
/// Sectors of a block.
pub const BLOCK_SECTORS: u32 = 8;

/// What a sector holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Never written, or discarded, or zeroed.
    Zero,
    /// What this write put there. Numbered from 1, once in a whole run.
    Write(u32),
}

/// Words of a sector: two say what it is, the rest are filling that depends on both.
const WORDS: u64 = SECTOR_BYTES as u64 / 8;
const MAGIC: u64 = 0x5ec7_0500_0000_0000;

fn words(sector: u32, write: u32) -> impl Iterator<Item = u64> {
    let filling = mix(u64::from(write) << 32 | u64::from(sector));
    let head = [MAGIC | u64::from(sector), u64::from(write) << 32 | filling >> 32];
    head.into_iter().chain((2..WORDS).map(move |index| filling.wrapping_add(index)))
}

/// The bytes that `write` puts into the `count` sectors from `first`.
pub fn fill(first: u32, count: u32, write: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count as usize * SECTOR_BYTES);
    for sector in first..first + count {
        words(sector, write).for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    }
    bytes
}

/// What the bytes of `sector` are, or `None` for garbage: damaged, torn inside, or another sector's.
pub fn parse(sector: u32, bytes: &[u8]) -> Option<Value> {
    if bytes.len() != SECTOR_BYTES {
        return None;
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Some(Value::Zero);
    }
    let write = u32::from_le_bytes(bytes[12..16].try_into().ok()?);
    let ours = words(sector, write).zip(bytes.chunks_exact(8)).all(|(word, got)| got == word.to_le_bytes());
    (ours && write != 0).then_some(Value::Write(write))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_tells_its_write() {
        let bytes = fill(40, 3, 7);
        for (i, chunk) in bytes.chunks(SECTOR_BYTES).enumerate() {
            assert_eq!(parse(40 + u32::try_from(i).unwrap(), chunk), Some(Value::Write(7)));
        }
        assert_eq!(parse(9, &[0; SECTOR_BYTES]), Some(Value::Zero));
    }

    #[test]
    fn anything_else_is_garbage() {
        let good = fill(40, 1, 7);
        assert_eq!(parse(41, &good), None, "another sector's bytes");
        assert_eq!(parse(40, &good[..511]), None, "too short");
        for at in [0, 8, 12, 13, 200, 511] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(parse(40, &bad), None, "byte {at} flipped");
        }
        let mut torn = good.clone();
        torn[256..].copy_from_slice(&fill(40, 1, 8)[256..]);
        assert_eq!(parse(40, &torn), None, "torn inside");
        let mut zeroed = good;
        zeroed[256..].fill(0);
        assert_eq!(parse(40, &zeroed), None, "half zero");
    }
}

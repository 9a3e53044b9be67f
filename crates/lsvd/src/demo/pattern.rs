//! What the demo writes: blocks whose every byte follows from their place and a generation.
//!
//! Knows no volume. Invariant: two blocks are equal only if place and generation are.

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// `count` blocks from block `first`, as of `generation`.
pub(crate) fn blocks(first: u64, count: u64, generation: u64) -> Vec<u8> {
    (first..first + count).flat_map(|index| words(index, generation)).flat_map(u64::to_le_bytes).collect()
}

/// Index of the first block in `data`, which begins at block `first`, that is not as of `generation`.
pub(crate) fn first_difference(data: &[u8], first: u64, generation: u64) -> Option<u64> {
    let (blocks, rest) = data.as_chunks::<4096>();
    debug_assert!(rest.is_empty(), "the demo reads whole blocks");
    (first..).zip(blocks).find(|(index, block)| !is_block(block, *index, generation)).map(|(index, _)| index)
}

fn is_block(block: &[u8; 4096], index: u64, generation: u64) -> bool {
    let (stored, _) = block.as_chunks::<8>();
    words(index, generation).zip(stored).all(|(word, bytes)| word.to_le_bytes() == *bytes)
}

/// The words of one block: SplitMix64 (Steele, Lea and Flood, 2014) seeded with place and generation.
fn words(index: u64, generation: u64) -> impl Iterator<Item = u64> {
    let mut state = index.wrapping_mul(0xd1b5_4a32_d192_ed03) ^ generation.rotate_left(48);
    (0..BLOCK_BYTES / 8).map(move |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_found_where_it_is() {
        let mut data = blocks(10, 3, 1);
        assert_eq!(data.len(), 3 * 4096);
        assert_eq!(first_difference(&data, 10, 1), None);
        assert_eq!(first_difference(&data, 10, 2), Some(10));
        assert_eq!(first_difference(&data, 11, 1), Some(11));
        data[2 * 4096 + 4095] ^= 1;
        assert_eq!(first_difference(&data, 10, 1), Some(12));
    }
}

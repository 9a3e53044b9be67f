//! A run of frames, from arbitrary bytes, and of arbitrary data.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_format::log_object::{decode_frames, encode_frames};
use lsvd_format::{BLOCK_LEN, BlockOrdinal, Epoch, ObjectIdentity, SequenceNumber, VolumeId, WriterId};

fuzz_target!(|input: (u32, u64, u64, [u8; 16], [u8; 16], &[u8])| {
    let (ordinal, epoch, number, volume, writer, bytes) = input;
    let first = BlockOrdinal(ordinal);
    let identity = ObjectIdentity {
        volume: VolumeId(volume),
        epoch: Epoch(epoch),
        writer: WriterId(writer),
        number: SequenceNumber(number),
    };
    let _ = decode_frames(&identity, first, bytes);
    let mut blocks = bytes.to_vec();
    blocks.resize(bytes.len().next_multiple_of(BLOCK_LEN), 0);
    if ordinal.checked_add(u32::try_from(blocks.len() / BLOCK_LEN).unwrap_or(u32::MAX)).is_some() {
        let mut frames = Vec::new();
        encode_frames(&identity, first, &blocks, &mut frames);
        let decoded = decode_frames(&identity, first, &frames).expect("sound frames");
        assert_eq!(decoded, blocks);
    }
});

//! Log objects of format 2: round trips, every kind of damage, what is newer, what is never built.

use proptest::prelude::*;

use super::entry::{RELOCATION_LEN, kind};
use super::*;
use crate::{BLOCK_BYTES, BLOCK_LEN, BlockOrdinal, Extent, VOLUME_BYTES_MAX, v1};

const BLOCKS_MAX: u64 = VOLUME_BYTES_MAX / BLOCK_BYTES;

fn identity() -> ObjectIdentity {
    ObjectIdentity {
        volume: VolumeId([0xaa; 16]),
        epoch: Epoch(3),
        writer: WriterId([0xbb; 16]),
        number: SequenceNumber(9),
    }
}

fn header_of(entries: Vec<Entry>) -> Header {
    Header { identity: identity(), sealed_unix_ms: 1_700_000_000_000, journal: None, entries }
}

fn source() -> Source {
    Source { volume: identity().volume, number: SequenceNumber(4), ordinal: BlockOrdinal(17) }
}

fn example() -> Header {
    let mut header = header_of(vec![
        Entry::Data { extent: Extent::new(5, 2) },
        Entry::Zero { extent: Extent::new(100, 50) },
        Entry::Trim { extent: Extent::new(BLOCKS_MAX - 1, 1) },
        Entry::Relocation { extent: Extent::new(7, 1), source: source() },
    ]);
    header.journal = Some(JournalPosition { journal: JournalId([0xcc; 16]), record: 0 });
    header
}

fn fence(next: u64) -> Header {
    header_of(vec![Entry::Fence { next: SequenceNumber(next) }])
}

fn encoded(header: &Header) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes
}

/// The header with these bytes at `offset`, soundly sealed.
fn patched(header: &Header, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut header = encoded(header);
    put(&mut header, offset, bytes);
    let checksum = crc32c::crc32c(&header[at::VERSION..]);
    put(&mut header, at::CHECKSUM, &checksum.to_le_bytes());
    header
}

fn corrupt_at(bytes: &[u8]) -> u64 {
    match Header::decode(bytes) {
        Err(DecodeError::Corrupt { offset_bytes, .. }) => offset_bytes,
        other => panic!("not corrupt: {other:?}"),
    }
}

fn newer_what(bytes: &[u8]) -> String {
    match Header::decode(bytes) {
        Err(DecodeError::Newer { what }) => what,
        other => panic!("not newer: {other:?}"),
    }
}

#[test]
fn the_checksum_is_crc32c() {
    // The check value that the Castagnoli polynomial has in every catalogue.
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn a_header_reads_back() {
    for header in [example(), header_of(Vec::new()), fence(10), fence(NUMBER_MAX)] {
        let mut bytes = encoded(&header);
        assert_eq!(bytes.len() as u64, header.header_bytes());
        assert_eq!(Header::decode(&bytes), Ok(header.clone()));
        bytes.extend_from_slice(b"payload");
        assert_eq!(Header::decode(&bytes), Ok(header));
    }
}

#[test]
fn lengths_follow_from_the_entries() {
    let header = example();
    assert_eq!(header.header_bytes(), 192 + 3 * 16 + 48);
    assert_eq!(header.payload_blocks(), 3);
    assert_eq!(header.object_bytes(), 288 + 3 * 4104);
    assert_eq!(frames_range(288, BlockOrdinal(2), 1), 288 + 2 * 4104..288 + 3 * 4104);
}

#[test]
fn the_next_number_is_one_more_or_what_the_fence_says() {
    assert_eq!(example().next_number(), SequenceNumber(10));
    assert_eq!(fence(73).next_number(), SequenceNumber(73));
}

/// A log may mix both formats: the magic is no first entry that a format-1 writer makes, nor a used-up table.
#[test]
fn the_magic_is_never_a_format_1_header() {
    let address = u64::from_be_bytes(MAGIC[..8].try_into().unwrap());
    let size = u32::from_be_bytes(MAGIC[8..].try_into().unwrap());
    assert_ne!(address % 4096, 0);
    assert_ne!(size, 0);
    assert_ne!(size % 4096, 0);
    let mut object = encoded(&example());
    object.resize(usize::try_from(v1::HEADER_BYTES).unwrap(), 0);
    assert!(matches!(v1::Header::decode(&object), Err(DecodeError::Corrupt { offset_bytes: 0, .. })));
}

/// Rule 5: no header with a wrong bit is used.
#[test]
fn every_bit_flip_of_a_header_is_noticed() {
    let sound = encoded(&example());
    for bit in 0..sound.len() * 8 {
        let mut damaged = sound.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::decode(&damaged).is_err(), "bit {bit}");
    }
}

/// Rule 5: a header cut anywhere says how much of it to read.
#[test]
fn a_truncated_header_says_what_it_needs() {
    let sound = encoded(&example());
    let whole = sound.len() as u64;
    for length in 0..sound.len() {
        let need_bytes = if length < 192 { 192 } else { whole };
        let short = DecodeError::Short { have_bytes: length as u64, need_bytes };
        assert_eq!(Header::decode(&sound[..length]), Err(short));
    }
}

#[test]
fn other_bytes_are_told_from_a_short_header() {
    assert_eq!(corrupt_at(b"lsvd-log-v3\n"), 0);
    assert_eq!(corrupt_at(b"x"), 0);
    assert!(matches!(Header::decode(b""), Err(DecodeError::Short { need_bytes: 192, .. })));
}

#[test]
fn what_a_later_version_may_mean_is_newer() {
    let header = example();
    let entry = FIXED_LEN;
    let relocation = FIXED_LEN + 3 * ENTRY_LEN;
    for (offset, bytes, expected) in [
        (at::VERSION, &[3u8, 0][..], "version 3"),
        (at::FLAGS, &[1, 0], "flags 0x1"),
        (at::FRAME_BLOCKS, &[16, 0], "frames of 16 blocks"),
        (at::FRAME_BLOCKS, &[0, 0], "frames of 0 blocks"),
        (at::RESERVED_A, &[1], "reserved"),
        (at::RESERVED_B + 3, &[1], "reserved"),
        (at::RESERVED_C, &[1], "reserved"),
        (FIXED_LEN - 1, &[1], "reserved"),
        (entry, &[0], "kind 0"),
        (entry, &[6], "kind 6"),
        (entry + 1, &[1], "flags on the entry"),
        (entry + 2, &[1], "flags on the entry"),
        (entry + 3, &[1], "flags on the entry"),
        (relocation + 44, &[1], "flags on the entry"),
    ] {
        let what = newer_what(&patched(&header, offset, bytes));
        assert!(what.contains(expected), "{what}");
    }
}

#[test]
fn impossible_values_are_corrupt_where_they_stand() {
    let header = example();
    let entry = FIXED_LEN;
    let relocation = FIXED_LEN + 3 * ENTRY_LEN;
    let fence_at = |number: u64| patched(&fence(10), entry + 8, &number.to_le_bytes());
    for (damaged, offset) in [
        (patched(&header, entry + 4, &[0; 4]), entry),
        (patched(&header, entry + 8, &BLOCKS_MAX.to_le_bytes()), entry),
        (patched(&header, entry + 8, &u64::MAX.to_le_bytes()), entry),
        (patched(&header, relocation + 32, &[0; 8]), relocation),
        (patched(&header, relocation + 32, &9u64.to_le_bytes()), relocation),
        (patched(&header, relocation + 40, &[0xff; 4]), relocation),
        (patched(&header, entry + 4, &3u32.to_le_bytes()), at::PAYLOAD_BLOCKS),
        (patched(&header, at::PAYLOAD_BLOCKS, &4u32.to_le_bytes()), at::PAYLOAD_BLOCKS),
        (patched(&header, at::OBJECT_BYTES, &288u64.to_le_bytes()), at::OBJECT_BYTES),
        (patched(&header, at::ENTRY_COUNT, &3u32.to_le_bytes()), relocation),
        (patched(&header, at::ENTRY_COUNT, &5u32.to_le_bytes()), relocation + RELOCATION_LEN),
        (patched(&header, at::ENTRY_COUNT, &7u32.to_le_bytes()), at::ENTRY_COUNT),
        (patched(&header, at::ENTRY_COUNT, &u32::MAX.to_le_bytes()), at::ENTRY_COUNT),
        (patched(&header, at::IDENTITY + 16, &[0; 8]), at::IDENTITY + 16),
        (patched(&header, at::IDENTITY + 24, &[0; 8]), at::IDENTITY + 24),
        (patched(&header, at::IDENTITY + 24, &[0xff; 8]), at::IDENTITY + 24),
        (patched(&fence(10), at::JOURNAL_RECORD, &[1]), at::JOURNAL_RECORD),
        (patched(&fence(10), entry + 4, &[1]), entry),
        (patched(&header, entry, &[kind::FENCE, 0, 0, 0, 0, 0, 0, 0, 10]), entry),
        (fence_at(9), entry),
        (fence_at(0), entry),
        (fence_at(u64::MAX), entry),
    ] {
        assert_eq!(corrupt_at(&damaged), offset as u64);
    }
}

/// A decoder never allocates more than its input justifies: an impossible length is refused, not asked for.
#[test]
fn an_absurd_header_length_is_refused_at_once() {
    for header_bytes in [0u32, 191, 193, 200, 192 + 65_536 * 48 + 16, u32::MAX] {
        let mut bytes = encoded(&example());
        put(&mut bytes, at::HEADER_BYTES, &header_bytes.to_le_bytes());
        assert_eq!(corrupt_at(&bytes), at::HEADER_BYTES as u64, "{header_bytes}");
    }
}

#[test]
fn the_longest_header_reads_back() {
    let entry = Entry::Relocation { extent: Extent::new(7, 1), source: source() };
    let header = header_of(vec![entry; ENTRIES_MAX]);
    let bytes = encoded(&header);
    assert_eq!(bytes.len() as u64, HEADER_BYTES_MAX);
    assert_eq!(Header::decode(&bytes), Ok(header));
}

#[test]
fn what_no_reader_would_take_is_never_written() {
    let mut no_journal = example();
    no_journal.journal = Some(JournalPosition { journal: JournalId([0; 16]), record: 1 });
    let mut no_number = example();
    no_number.identity.number = SequenceNumber(0);
    let mut no_epoch = example();
    no_epoch.identity.epoch = Epoch(0);
    let large = Extent::new(0, u64::from(u32::MAX));
    for header in [
        no_journal,
        no_number,
        no_epoch,
        header_of(vec![Entry::Zero { extent: Extent::new(1, 0) }]),
        header_of(vec![Entry::Trim { extent: Extent::new(0, 1 << 32) }]),
        header_of(vec![Entry::Trim { extent: Extent::new(BLOCKS_MAX, 1) }]),
        header_of(vec![Entry::Trim { extent: Extent::new(u64::MAX, 1) }]),
        header_of(vec![Entry::Data { extent: large }, Entry::Data { extent: Extent::new(0, 1) }]),
        header_of(vec![Entry::Zero { extent: Extent::new(1, 1) }; ENTRIES_MAX + 1]),
        header_of(vec![Entry::Zero { extent: Extent::new(1, 1) }, Entry::Fence { next: SequenceNumber(10) }]),
        fence(9),
    ] {
        let shown = format!("{:?}", header.entries.first());
        let built = std::panic::catch_unwind(move || encoded(&header));
        assert!(built.is_err(), "{shown}");
    }
}

fn blocks(count: usize) -> Vec<u8> {
    (0..count * BLOCK_LEN).map(|index| (index * 7 + index / BLOCK_LEN) as u8).collect()
}

#[test]
fn frames_read_back_as_a_run_and_one_by_one() {
    let data = blocks(3);
    let (mut run, mut singles) = (Vec::new(), Vec::new());
    encode_frames(&identity(), BlockOrdinal(40), &data, &mut run);
    for (ordinal, block) in (40..).zip(data.chunks_exact(BLOCK_LEN)) {
        encode_frame(&identity(), BlockOrdinal(ordinal), block, &mut singles);
    }
    assert_eq!(run, singles);
    assert_eq!(decode_frames(&identity(), BlockOrdinal(40), &run).as_deref(), Ok(&data[..]));
    let frame = frames_range(0, BlockOrdinal(1), 1);
    let middle = &run[frame.start as usize..frame.end as usize];
    let block = decode_frames(&identity(), BlockOrdinal(41), middle);
    assert_eq!(block.as_deref(), Ok(&data[BLOCK_LEN..2 * BLOCK_LEN]));
    assert_eq!(decode_frames(&identity(), BlockOrdinal(0), &[]).as_deref(), Ok(&[][..]));
}

/// Rule 5: a block from another place, object, writer, epoch or volume is not this block.
#[test]
fn a_frame_verifies_only_as_itself() {
    let mut frame = Vec::new();
    encode_frame(&identity(), BlockOrdinal(1), &blocks(1), &mut frame);
    let mut others = [identity(); 4];
    others[0].volume.0[15] ^= 1;
    others[1].epoch.0 += 1;
    others[2].writer.0[0] ^= 1;
    others[3].number.0 += 1;
    for other in others {
        assert!(decode_frames(&other, BlockOrdinal(1), &frame).is_err(), "{other:?}");
    }
    assert!(decode_frames(&identity(), BlockOrdinal(0), &frame).is_err());
    assert!(decode_frames(&identity(), BlockOrdinal(1), &frame).is_ok());
}

/// Rule 5: no block with a wrong bit is used.
#[test]
fn every_bit_flip_of_a_frame_is_noticed() {
    let mut sound = Vec::new();
    encode_frame(&identity(), BlockOrdinal(1), &blocks(1), &mut sound);
    for bit in 0..sound.len() * 8 {
        sound[bit / 8] ^= 1 << (bit % 8);
        let decoded = decode_frames(&identity(), BlockOrdinal(1), &sound);
        assert!(matches!(decoded, Err(DecodeError::Corrupt { offset_bytes: 0, .. })), "bit {bit}");
        sound[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_damaged_frame_is_named_with_its_offset() {
    let mut frames = Vec::new();
    encode_frames(&identity(), BlockOrdinal(5), &blocks(3), &mut frames);
    frames[2 * 4104 + 100] ^= 1;
    let error = decode_frames(&identity(), BlockOrdinal(5), &frames).unwrap_err();
    let DecodeError::Corrupt { offset_bytes, reason } = error else { panic!("{error}") };
    assert_eq!(offset_bytes, 2 * 4104);
    assert!(reason.contains("block 7 of object 9"), "{reason}");
}

#[test]
fn an_unknown_frame_flag_is_newer() {
    let block = blocks(1);
    let flags = 1u32;
    let mut seeded = identity_bytes(&identity()).to_vec();
    seeded.extend_from_slice(&0u32.to_le_bytes());
    seeded.extend_from_slice(&flags.to_le_bytes());
    seeded.extend_from_slice(&block);
    let mut frame = crc32c::crc32c(&seeded).to_le_bytes().to_vec();
    frame.extend_from_slice(&flags.to_le_bytes());
    frame.extend_from_slice(&block);
    let error = decode_frames(&identity(), BlockOrdinal(0), &frame).unwrap_err();
    assert!(matches!(&error, DecodeError::Newer { what } if what.contains("frame flags 0x1")), "{error}");
}

/// Rule 5: a truncated answer is never good, however it is cut.
#[test]
fn a_truncated_frame_is_short() {
    let mut frames = Vec::new();
    encode_frames(&identity(), BlockOrdinal(0), &blocks(2), &mut frames);
    for length in (0..frames.len()).filter(|length| length % 4104 != 0) {
        let need_bytes = if length < 4104 { 4104 } else { 8208 };
        let short = DecodeError::Short { have_bytes: length as u64, need_bytes };
        assert_eq!(decode_frames(&identity(), BlockOrdinal(0), &frames[..length]), Err(short));
    }
}

#[test]
fn ordinals_that_do_not_fit_are_an_error() {
    let frames = vec![0; 2 * 4104];
    let decoded = decode_frames(&identity(), BlockOrdinal(u32::MAX), &frames);
    assert!(matches!(decoded, Err(DecodeError::Corrupt { .. })));
}

/// Found by the fuzz target `frames`: counting one past the last ordinal overflowed.
#[test]
fn the_last_ordinal_is_an_ordinal() {
    let last = BlockOrdinal(u32::MAX - 1);
    let mut frame = Vec::new();
    encode_frame(&identity(), last, &blocks(1), &mut frame);
    assert_eq!(decode_frames(&identity(), last, &frame).as_deref(), Ok(&blocks(1)[..]));
    assert_eq!(decode_frames(&identity(), BlockOrdinal(u32::MAX), &[]).as_deref(), Ok(&[][..]));
}

fn any_extent(count_max: u64) -> impl Strategy<Value = Extent> {
    (1..=count_max)
        .prop_flat_map(|count| (0..=BLOCKS_MAX - count, Just(count)))
        .prop_map(|(start, count)| Extent::new(start, count))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let any_source =
        (any::<[u8; 16]>(), 1..=NUMBER_MAX, 0..=u32::MAX / 2).prop_map(|(volume, number, ordinal)| Source {
            volume: VolumeId(volume),
            number: SequenceNumber(number),
            ordinal: BlockOrdinal(ordinal),
        });
    prop_oneof![
        any_extent(1 << 20).prop_map(|extent| Entry::Data { extent }),
        any_extent(u64::from(u32::MAX)).prop_map(|extent| Entry::Zero { extent }),
        any_extent(u64::from(u32::MAX)).prop_map(|extent| Entry::Trim { extent }),
        (any_extent(1 << 20), any_source).prop_map(|(extent, source)| Entry::Relocation { extent, source }),
    ]
}

fn any_header() -> impl Strategy<Value = Header> {
    let any_position = (any::<[u8; 16]>(), any::<u64>())
        .prop_filter("an id of zeroes is none", |(journal, _)| *journal != [0; 16])
        .prop_map(|(journal, record)| JournalPosition { journal: JournalId(journal), record });
    let identity = (any::<[u8; 16]>(), 1..=NUMBER_MAX, any::<[u8; 16]>(), 1..NUMBER_MAX);
    let entries = prop_oneof![
        9 => prop::collection::vec(any_entry(), 0..40),
        1 => Just(vec![Entry::Fence { next: SequenceNumber(NUMBER_MAX) }]),
    ];
    (identity, any::<u64>(), prop::option::of(any_position), entries).prop_map(
        |((volume, epoch, writer, number), sealed_unix_ms, journal, entries)| Header {
            identity: ObjectIdentity {
                volume: VolumeId(volume),
                epoch: Epoch(epoch),
                writer: WriterId(writer),
                number: SequenceNumber(number),
            },
            sealed_unix_ms,
            journal,
            entries,
        },
    )
}

proptest! {
    #[test]
    fn any_header_reads_back(header in any_header(), rest: Vec<u8>) {
        let mut bytes = encoded(&header);
        bytes.extend_from_slice(&rest);
        prop_assert_eq!(Header::decode(&bytes), Ok(header));
    }

    #[test]
    fn a_flipped_bit_anywhere_in_any_header_is_noticed(header in any_header(), bit: prop::sample::Index) {
        let mut bytes = encoded(&header);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Header::decode(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(
        bytes: Vec<u8>,
        ordinal in prop_oneof![any::<u32>(), u32::MAX - 3..=u32::MAX],
        count in 0..4usize,
    ) {
        let _ = Header::decode(&bytes);
        let _ = decode_frames(&identity(), BlockOrdinal(ordinal), &bytes);
        let _ = decode_frames(&identity(), BlockOrdinal(ordinal), &vec![0; count * 4104]);
    }

    /// Arbitrary bytes behind a sound checksum reach the parser's inside.
    #[test]
    fn arbitrary_fields_do_not_panic(
        table in prop::collection::vec(any::<[u8; 16]>(), 0..20),
        count in 0u32..30,
        patches in prop::collection::vec((16usize..192, any::<u8>()), 0..4),
    ) {
        let mut bytes = encoded(&header_of(Vec::new()));
        for mut entry in table {
            entry[0] %= 7;
            bytes.extend_from_slice(&entry);
        }
        for (offset, byte) in patches {
            bytes[offset] = byte;
        }
        let header_bytes = bytes.len() as u32;
        put(&mut bytes, at::HEADER_BYTES, &header_bytes.to_le_bytes());
        put(&mut bytes, at::ENTRY_COUNT, &count.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[at::VERSION..]);
        put(&mut bytes, at::CHECKSUM, &checksum.to_le_bytes());
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(encoded(&header), bytes);
        }
    }
}

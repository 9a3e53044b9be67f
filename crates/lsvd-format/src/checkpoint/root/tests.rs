//! The root's bytes: round trips, every kind of damage, what is newer, what can not be.

use super::*;
use crate::checkpoint::CheckpointStamp;
use crate::{WriterId, v1};

const VOLUME: VolumeId = VolumeId([0x11; 16]);

fn part(as_of: u64, epoch: u64, serial: u32) -> PartId {
    PartId { as_of: SequenceNumber(as_of), epoch: Epoch(epoch), serial }
}

fn object(slot: u32, number: u64, epoch: u64, payload_blocks: u64, live_blocks: u64) -> RootObject {
    let writer = WriterId([u8::try_from(epoch).unwrap(); 16]);
    RootObject {
        slot: Slot(slot),
        identity: ObjectIdentity {
            volume: VOLUME,
            epoch: Epoch(epoch),
            writer,
            number: SequenceNumber(number),
        },
        format: ObjectFormat::V2,
        header_bytes: 192 + 16 * payload_blocks,
        payload_blocks,
        live_blocks,
        died_at: (live_blocks == 0).then_some(SequenceNumber(number + 1)),
        object_bytes: 192 + 16 * payload_blocks + 4104 * payload_blocks,
    }
}

fn place(region: u32, part: u32, offset_bytes: u64, length_bytes: u32) -> RegionPlace {
    RegionPlace { region: RegionIndex(region), part, offset_bytes, length_bytes }
}

/// A volume that was adopted: two objects of format 1, the fences of three openings, and what they wrote.
fn example() -> Root {
    let seed = RootObject {
        identity: ObjectIdentity { writer: WriterId([0; 16]), ..object(0, 0, 0, 9, 0).identity },
        format: ObjectFormat::V1,
        header_bytes: v1::HEADER_BYTES,
        object_bytes: v1::HEADER_BYTES + 9 * 4096,
        ..object(0, 0, 0, 9, 4)
    };
    let (own, journal) = (part(300, 4, 1), JournalId([0xcc; 16]));
    Root {
        volume: VOLUME,
        stamp: CheckpointStamp { as_of: own.as_of, epoch: Epoch(3), writer: WriterId([3; 16]) },
        part: own,
        volume_blocks: 5 * 16_384 - 1,
        next_number: SequenceNumber(301),
        last_data: Some(LastDataRecord {
            epoch: Epoch(3),
            sealed_unix_ms: 1_700_000_000_000,
            journal: Some(JournalPosition { journal, record: 12 }),
        }),
        journals: vec![
            ContainedRecord { journal, epoch: Epoch(2), record: 7 },
            ContainedRecord { journal, epoch: Epoch(3), record: 12 },
        ],
        skipped: vec![
            SkippedRange { fence: SequenceNumber(2), next: SequenceNumber(66) },
            SkippedRange { fence: SequenceNumber(66), next: SequenceNumber(130) },
        ],
        last_format: Some(ObjectFormat::V2),
        objects: vec![seed, object(1, 300, 3, 2048, 2048), object(4, 130, 2, 1, 0), object(9, 299, 3, 70, 1)],
        parts: vec![
            RootPart { part: part(130, 2, 0), object_bytes: 5000 },
            RootPart { part: own, object_bytes: 4096 },
        ],
        regions: vec![place(0, 1, 96, 40), place(1, 0, 4000, 1000), place(2, 0, 96, 4), place(4, 1, 136, 9)],
    }
}

fn encoded(root: &Root) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_root(root, &mut bytes);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Root, crate::DecodeError> {
    decode_root(VOLUME, example().part, bytes)
}

#[test]
fn a_root_reads_back() {
    assert_eq!(decode(&encoded(&example())), Ok(example()));
}

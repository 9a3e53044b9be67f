//! Rule 6: what collection plans to move is what the map has at its source and nothing newer is on its way for.

use lsvd_engine::{Location, Move, Request};
use lsvd_format::{BLOCK_BYTES, BlockOrdinal, Extent, SequenceNumber};

use crate::rig::{FIRST, Rig};

/// What is to move of the first object, which holds blocks 0 to 31.
fn moves(rig: &Rig) -> Vec<(Extent, BlockOrdinal)> {
    let object = rig.engine.prefix().objects().find(SequenceNumber(FIRST)).unwrap();
    let first = Location { object, ordinal: BlockOrdinal(0) };
    let planned: Vec<Move> = rig.engine.moves(&[(Extent::new(0, 32), first)]).unwrap();
    // Others are moved along, where that fills a small gap.
    let own = planned.into_iter().filter(|one| one.object.identity.number == SequenceNumber(FIRST));
    own.map(|one| (one.extent, one.ordinal)).collect()
}

fn run(start: u64, count: u64) -> (Extent, BlockOrdinal) {
    (Extent::new(start, count), BlockOrdinal(u32::try_from(start).unwrap()))
}

/// Neither what is in the open batch, nor what is being stored, nor what is applied: whatever it is.
#[test]
fn what_is_written_anew_is_not_moved() {
    let mut rig = Rig::new(|config| config.batch_bytes_max = 32 * BLOCK_BYTES);
    rig.write(0, 32);
    rig.uploaded(FIRST);
    assert_eq!(moves(&rig), [run(0, 32)]);
    let trim = |rig: &mut Rig, block: u64| {
        let (offset_bytes, length_bytes) = (block * BLOCK_BYTES, BLOCK_BYTES);
        rig.submit(Request::Trim { offset_bytes, length_bytes, fua: false })
    };
    rig.write(4, 2);
    assert_eq!(moves(&rig), [run(0, 4), run(6, 26)], "accepted");
    trim(&mut rig, 10);
    rig.flush();
    assert_eq!(rig.uploading(), [FIRST + 1]);
    assert_eq!(moves(&rig), [run(0, 4), run(6, 4), run(11, 21)], "being stored");
    rig.write(0, 1);
    assert_eq!(moves(&rig), [run(1, 3), run(6, 4), run(11, 21)]);
    rig.uploaded(FIRST + 1);
    assert_eq!(rig.engine.audit(), Ok(0));
    assert_eq!(moves(&rig), [run(1, 3), run(6, 4), run(11, 21)], "applied, but for the last");
}

//! The engine step by step: group commit, window, ceiling, age, cancellation and fence, each by its rule.

#![allow(clippy::unwrap_used)]

mod capture;
mod journal;
mod moves;
mod residency;
mod rig;

use std::time::Duration;

use bytes::Bytes;
use lsvd_engine::{Event, Outcome, PlanPiece, Request, RequestId};
use lsvd_format::log_object::Entry;
use lsvd_format::{BLOCK_BYTES, BlockIndex, Extent, SequenceNumber};

use crate::rig::{FIRST, Rig};

/// Flushes that arrive while enough uploads are in flight share the next one: any number of them, three PUTs.
#[test]
fn flushes_share_uploads() {
    let mut rig = Rig::new(|config| config.batch_bytes_max = 1 << 20);
    let flushes: Vec<u64> = (0..50)
        .map(|nth| {
            rig.write(nth, 1);
            rig.flush()
        })
        .collect();
    assert_eq!(rig.uploading(), [10, 11], "two at once for flushes");
    rig.uploaded(10);
    assert_eq!(rig.uploading(), [11, 12]);
    assert_eq!(rig.uploads[1].header.entries, [Entry::Data { extent: Extent::new(2, 48) }], "all the others");
    rig.uploaded(11);
    rig.uploaded(12);
    assert!(flushes.iter().all(|flush| rig.answer(*flush) == Some(Outcome::Done)));
    assert_eq!(rig.engine.last_durable(), Some(SequenceNumber(12)));
}

/// Rule 1: a flush waits for what completed before it and for nothing that came after; order of upload is no matter.
#[test]
fn a_flush_covers_what_completed_before_it() {
    let mut rig = Rig::new(|_| {});
    assert_eq!(
        {
            let flush = rig.flush();
            rig.answer(flush)
        },
        Some(Outcome::Done),
        "nothing to wait for"
    );
    rig.write(0, 4);
    let flush = rig.flush();
    rig.write(10, 4);
    assert_eq!(rig.uploading(), [10, 11]);
    let fua = rig.write_bytes(20 * BLOCK_BYTES, BLOCK_BYTES, true);
    let later = rig.flush();
    assert_eq!(rig.uploading(), [10, 11, 12]);
    rig.uploaded(11);
    rig.uploaded(12);
    assert_eq!(
        (rig.answer(flush), rig.answer(fua), rig.answer(later)),
        (None, None, None),
        "10 is not there"
    );
    assert_eq!(rig.engine.first_incomplete(), SequenceNumber(10));
    rig.uploaded(10);
    assert_eq!(rig.answer(flush), Some(Outcome::Done));
    assert_eq!(rig.answer(fua), Some(Outcome::Done));
    assert_eq!(rig.answer(later), Some(Outcome::Done));
    assert_eq!(rig.engine.first_incomplete(), SequenceNumber(13));
    assert_eq!(rig.engine.buffered_bytes(), 0);
}

/// The window: no upload of a number that is the window or more above the first incomplete one, however they end.
#[test]
fn the_window_is_never_exceeded() {
    for window in [2, 3, 8] {
        let mut rig = Rig::new(|config| {
            config.window = window;
            config.flush_uploads_max = 100;
        });
        for nth in 0..40 {
            rig.write(nth * 8, 4);
            rig.flush();
            let highest = FIRST + window - 1;
            assert!(rig.uploading().iter().all(|number| *number <= highest), "{:?}", rig.uploading());
        }
        // All but the first are done: still nothing beyond.
        for number in FIRST + 1..FIRST + window {
            rig.uploaded(number);
        }
        assert_eq!(rig.uploading(), [FIRST]);
        rig.uploaded(FIRST);
        assert_eq!(rig.uploading(), (FIRST + window..FIRST + 2 * window).collect::<Vec<_>>());
    }
}

/// Rule 10: uploads in flight stay at their ceiling, in order of number.
#[test]
fn uploads_stay_at_their_ceiling() {
    let mut rig = Rig::new(|config| config.uploads_max = 3);
    for nth in 0..6 {
        rig.write(nth * 4, 4);
    }
    assert_eq!(rig.uploading(), [10, 11, 12]);
    assert_eq!(rig.engine.uploads_in_flight(), 3);
    rig.uploaded(12);
    assert_eq!(rig.uploading(), [10, 11, 13]);
    rig.uploaded(10);
    rig.uploaded(11);
    assert_eq!(rig.uploading(), [13, 14, 15]);
}

/// Rule 10: at the ceiling mutations wait, and go on in their order: a small one does not pass a large one. What does not
/// fit at all is let in alone.
#[test]
fn at_the_ceiling_mutations_wait_in_order() {
    let mut rig = Rig::new(|config| config.buffer_bytes_max = 10 * BLOCK_BYTES);
    for nth in 0..9 {
        let id = rig.write(nth, 1);
        assert_eq!(rig.answer(id), Some(Outcome::Done));
    }
    let large = rig.write(100, 3);
    let small = rig.write(200, 1);
    let huge = rig.write(300, 50);
    let last = rig.submit(Request::Trim { offset_bytes: 0, length_bytes: BLOCK_BYTES, fua: false });
    assert!(rig.engine.buffered_bytes() <= 10 * BLOCK_BYTES);
    assert_eq!(rig.uploading(), [10, 11]);
    rig.uploaded(11);
    assert_eq!(rig.answer(large), None, "11 is settled only when 10 is");
    rig.uploaded(10);
    assert_eq!((rig.answer(large), rig.answer(small)), (Some(Outcome::Done), Some(Outcome::Done)));
    assert_eq!((rig.answer(huge), rig.answer(last)), (None, None));
    while let Some(number) = rig.uploading().first().copied() {
        rig.uploaded(number);
    }
    let order: Vec<u64> = rig.answered.iter().copied().filter(|id| *id >= large).collect();
    assert_eq!(order, [large, small, huge, last]);
}

/// Rule 10: a ceiling that only the open batch fills does not stop everything: the batch is sealed to make room.
#[test]
fn a_full_buffer_seals_the_open_batch() {
    let mut rig = Rig::new(|config| {
        config.batch_bytes_max = 100 * BLOCK_BYTES;
        config.buffer_bytes_max = 100 * BLOCK_BYTES;
    });
    for nth in 0..90 {
        rig.write(nth, 1);
    }
    assert!(rig.uploading().is_empty());
    let waits = rig.write(500, 20);
    assert_eq!((rig.uploading(), rig.answer(waits)), (vec![10], None));
    rig.uploaded(10);
    assert_eq!(rig.answer(waits), Some(Outcome::Done));
}

/// Small requests hold memory too: a million trims do not grow a batch without bound.
#[test]
fn trims_and_zeroes_count_and_seal() {
    let mut rig = Rig::new(|config| config.buffer_bytes_max = 64 << 10);
    for nth in 0..100_000u64 {
        let offset_bytes = nth * 2 * BLOCK_BYTES;
        rig.submit(Request::WriteZeroes {
            offset_bytes,
            length_bytes: BLOCK_BYTES,
            keep_allocated: true,
            fua: false,
        });
        assert!(rig.engine.buffered_bytes() <= 64 << 10);
    }
    assert!(rig.answered.len() < 1_000, "the others wait");
    // Rewriting one block over and over holds every version until it is stored.
    let mut rig = Rig::new(|config| config.buffer_bytes_max = 64 << 10);
    for _ in 0..100 {
        rig.write(0, 1);
        assert!(rig.engine.buffered_bytes() <= 64 << 10);
    }
    assert!(!rig.uploading().is_empty());
}

/// A batch that has no payload, or whose payload was overwritten in it again and again, is sealed by the memory that it
/// holds.
#[test]
fn a_batch_is_sealed_by_the_memory_it_holds() {
    let mut rig = Rig::new(|_| {});
    let mut trims = 0;
    while rig.uploading().is_empty() {
        rig.submit(Request::Trim {
            offset_bytes: trims * 2 * BLOCK_BYTES,
            length_bytes: BLOCK_BYTES,
            fua: false,
        });
        trims += 1;
        assert!(trims <= 1_000, "a batch of 16 KiB is sealed some time");
    }
    assert_eq!(rig.uploads[0].header.entries.len() as u64, trims);
}

/// A batch is sealed at its age, counted from its first write, and no deadline is left when there is nothing to seal.
#[test]
fn a_batch_is_sealed_at_its_age() {
    let mut rig = Rig::new(|_| {});
    assert_eq!(rig.engine.next_deadline(), None);
    rig.clock = Duration::from_secs(5);
    rig.write(0, 1);
    rig.clock = Duration::from_millis(5_900);
    rig.write(1, 1);
    assert_eq!(rig.engine.next_deadline(), Some(Duration::from_secs(6)));
    rig.event(Event::Tick);
    assert!(rig.uploading().is_empty());
    rig.clock = Duration::from_secs(6);
    rig.event(Event::Tick);
    assert_eq!(rig.uploading(), [10]);
    assert_eq!(rig.uploads[0].header.sealed_unix_ms, 77);
    assert!(!rig.uploads[0].for_flush);
    assert_eq!(rig.engine.next_deadline(), None);
    // A flush seals it earlier; a change of nothing opens no batch.
    rig.submit(Request::Trim { offset_bytes: 1, length_bytes: 100, fua: false });
    assert_eq!((rig.engine.next_deadline(), rig.engine.buffered_bytes() > 0), (None, true));
    rig.uploaded(10);
    assert_eq!(rig.engine.buffered_bytes(), 0);
}

/// With the window full there is no deadline to spin on, and the old batch is sealed as soon as there is room.
#[test]
fn an_old_batch_waits_for_the_window_without_a_deadline() {
    let mut rig = Rig::new(|config| config.window = 2);
    rig.write(0, 4);
    rig.write(10, 4);
    rig.write(20, 1);
    rig.clock = Duration::from_secs(9);
    rig.event(Event::Tick);
    assert_eq!((rig.uploading(), rig.engine.next_deadline()), (vec![10, 11], None));
    rig.uploaded(10);
    assert_eq!(rig.uploading(), [11, 12]);
}

/// Rule 1: what is cancelled while it waits is never applied, what is applied stays, and each is answered once.
#[test]
fn a_cancelled_request_is_applied_wholly_or_never() {
    let mut rig = Rig::new(|config| config.buffer_bytes_max = 5 * BLOCK_BYTES);
    let cancel = |rig: &mut Rig, id| rig.event(Event::Cancel { id: RequestId(id) });
    rig.write(0, 4);
    let waits = rig.write(100, 2);
    let behind = rig.write(200, 1);
    cancel(&mut rig, waits);
    assert_eq!(rig.answer(waits), Some(Outcome::Cancelled { applied: false }));
    cancel(&mut rig, waits);
    let flush = rig.flush();
    cancel(&mut rig, flush);
    assert_eq!(rig.answer(flush), Some(Outcome::Cancelled { applied: true }));
    rig.uploaded(10);
    assert_eq!(rig.answer(behind), Some(Outcome::Done));
    let fua = rig.write_bytes(300 * BLOCK_BYTES, BLOCK_BYTES, true);
    cancel(&mut rig, fua);
    assert_eq!(rig.answer(fua), Some(Outcome::Cancelled { applied: true }));
    cancel(&mut rig, behind);
    cancel(&mut rig, 999);
    assert!(matches!(rig.engine.plan_read(300 * BLOCK_BYTES, 1).unwrap()[..], [PlanPiece::Buffered(_)]));
    assert_eq!(
        rig.engine.plan_read(100 * BLOCK_BYTES, BLOCK_BYTES).unwrap(),
        [PlanPiece::Zeroes(BLOCK_BYTES)]
    );
    assert_eq!(rig.uploading(), [11], "who waited is gone, the batch is stored all the same");
    rig.uploaded(11);
    assert_eq!(rig.engine.buffered_bytes(), 0);
}

/// Rule 1: a merging write that is cancelled frees its block for those behind it, and its base comes too late.
#[test]
fn a_cancelled_merge_frees_its_block() {
    let mut rig = Rig::new(|_| {});
    rig.write(0, 4);
    rig.uploaded(10);
    let merging = rig.write_bytes(100, 10, false);
    let behind = rig.write_bytes(200, 10, false);
    let beside = rig.write(1, 1);
    assert_eq!((rig.answer(behind), rig.answer(beside)), (None, Some(Outcome::Done)), "only its block waits");
    assert_eq!(rig.bases.len(), 1);
    rig.event(Event::Cancel { id: RequestId(merging) });
    assert_eq!(rig.bases.len(), 2, "the one behind begins");
    let base = Bytes::from(vec![9; 4096]);
    rig.event(Event::BaseRead { id: RequestId(merging), block: BlockIndex(0), base: Some(base.clone()) });
    assert_eq!(rig.answer(behind), None);
    rig.event(Event::BaseRead { id: RequestId(behind), block: BlockIndex(0), base: Some(base) });
    assert_eq!(rig.answer(behind), Some(Outcome::Done));
    let [PlanPiece::Buffered(bytes)] = &rig.engine.plan_read(0, 4096).unwrap()[..] else {
        panic!("it is in memory")
    };
    assert_eq!((bytes[100], bytes[199], bytes[200], bytes[209], bytes[210]), (9, 9, 5, 5, 9));
}

/// A base that can not be read fails its write alone, once, though both of its blocks are unreadable.
#[test]
fn an_unreadable_base_fails_its_write_alone() {
    let mut rig = Rig::new(|_| {});
    rig.write(0, 4);
    rig.uploaded(10);
    let both = rig.write_bytes(100, 4096, false);
    let behind = rig.write(0, 2);
    assert_eq!(rig.bases.len(), 2);
    for block in [0, 1] {
        rig.event(Event::BaseRead { id: RequestId(both), block: BlockIndex(block), base: None });
    }
    assert_eq!(rig.answer(both), Some(Outcome::BaseUnreadable));
    assert_eq!(rig.answer(behind), Some(Outcome::Done));
    let flush = rig.flush();
    rig.uploaded(11);
    assert_eq!((rig.answer(flush), rig.engine.buffered_bytes()), (Some(Outcome::Done), 0));
}

/// Rule 9: a fenced engine answers all that waits, whatever it waits for, uploads nothing any more, and takes nothing in.
#[test]
fn a_fence_ends_all_that_waits() {
    let mut rig = Rig::new(|config| config.buffer_bytes_max = 8 * BLOCK_BYTES);
    rig.write(0, 4);
    rig.uploaded(10);
    let merging = rig.write_bytes(100, 10, false);
    let behind = rig.write_bytes(200, 10, false);
    let fua = rig.write_bytes(10 * BLOCK_BYTES, BLOCK_BYTES, true);
    let flush = rig.flush();
    let waits = rig.write(20, 7);
    assert_eq!(rig.uploading(), [11]);
    rig.event(Event::Fenced);
    for id in [merging, behind, fua, flush, waits] {
        assert_eq!(rig.answer(id), Some(Outcome::Fenced), "{id}");
    }
    for id in [
        rig.write(0, 1),
        rig.flush(),
        rig.submit(Request::Trim { offset_bytes: 0, length_bytes: 1, fua: true }),
    ] {
        assert_eq!(rig.answer(id), Some(Outcome::Fenced));
    }
    // What was on its way may still come in, and asks for nothing more.
    rig.event(Event::BaseRead { id: RequestId(merging), block: BlockIndex(0), base: None });
    rig.uploaded(11);
    rig.clock = Duration::from_secs(100);
    rig.event(Event::Tick);
    rig.event(Event::Fenced);
    assert!(rig.uploading().is_empty());
    assert_eq!(rig.engine.next_deadline(), None);
}

/// The newest content of a block wins inside a batch, and what continues on the volume is one entry.
#[test]
fn a_batch_holds_each_block_once() {
    let mut rig = Rig::new(|config| config.batch_bytes_max = 100 * BLOCK_BYTES);
    rig.write(0, 4);
    rig.write(4, 2);
    rig.write(2, 1);
    rig.submit(Request::WriteZeroes {
        offset_bytes: 5 * BLOCK_BYTES,
        length_bytes: 3 * BLOCK_BYTES,
        keep_allocated: true,
        fua: false,
    });
    rig.submit(Request::Trim { offset_bytes: 7 * BLOCK_BYTES, length_bytes: 100 * BLOCK_BYTES, fua: false });
    rig.flush();
    let entries = [
        Entry::Data { extent: Extent::new(0, 5) },
        Entry::Zero { extent: Extent::new(5, 2) },
        Entry::Trim { extent: Extent::new(7, 100) },
    ];
    assert_eq!(rig.uploads[0].header.entries, entries);
    assert_eq!(rig.uploads[0].payload.iter().map(Bytes::len).sum::<usize>(), 5 * 4096);
}

/// A trim of the largest volume is one request, and its object one that the format can say.
#[test]
fn the_largest_volume_can_be_trimmed_at_once() {
    let mut rig = Rig::new(|_| {});
    let length_bytes = lsvd_format::VOLUME_BYTES_MAX;
    rig.submit(Request::Trim { offset_bytes: 0, length_bytes, fua: true });
    let header = &rig.uploads[0].header;
    let blocks: u64 = header.entries.iter().filter_map(Entry::extent).map(|extent| extent.count.0).sum();
    assert_eq!(blocks, length_bytes / BLOCK_BYTES);
    header.encode(&mut Vec::new());
}

/// Blocks of zeroes that a client writes are entries without payload, and read back as allocated zeroes at once.
#[test]
fn blocks_of_zeroes_take_no_payload() {
    let mut rig = Rig::new(|_| {});
    let mut data = vec![0; 6 * 4096];
    data[4096..2 * 4096].fill(7);
    data[5 * 4096 + 4095] = 1;
    let write = Request::Write { offset_bytes: 8 * BLOCK_BYTES, data: data.into(), fua: true };
    rig.submit(write);
    let [batch] = &rig.uploads[..] else { panic!("FUA uploads") };
    let extent = Extent::new;
    let expected = [
        Entry::Zero { extent: extent(8, 1) },
        Entry::Data { extent: extent(9, 1) },
        Entry::Zero { extent: extent(10, 3) },
        Entry::Data { extent: extent(13, 1) },
    ];
    assert_eq!(batch.header.entries, expected);
    assert_eq!(batch.payload.iter().map(Bytes::len).sum::<usize>(), 2 * 4096);
    assert_eq!(
        rig.engine.plan_read(10 * BLOCK_BYTES, BLOCK_BYTES).unwrap(),
        [PlanPiece::Zeroes(BLOCK_BYTES)]
    );
    let status = rig.engine.status(8 * BLOCK_BYTES, BLOCK_BYTES).unwrap();
    assert!(status[0].zero && !status[0].hole, "as it was written, it stays allocated");
}

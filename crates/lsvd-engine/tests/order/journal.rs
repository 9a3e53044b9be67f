//! The engine with a journal: flush means that the journal has it, records follow the order of writes, and uploads
//! answer where the journal can not.

use bytes::Bytes;
use lsvd_engine::{Content, Event, JournalUse, Outcome, PlanPiece, Request, RequestId};
use lsvd_format::{BLOCK_BYTES, BLOCK_LEN, Extent, JournalId, JournalPosition};

use crate::rig::{FIRST, Rig};

const ID: JournalId = JournalId([7; 16]);

/// A journal of which the log contains the first five records.
fn rig() -> Rig {
    rig_with(true)
}

fn rig_with(answers_flushes: bool) -> Rig {
    let from = JournalPosition { journal: ID, record: 5 };
    Rig::new(|config| config.journal = Some(JournalUse { from, answers_flushes }))
}

fn written(rig: &mut Rig, record: u64) {
    rig.event(Event::JournalWritten { record });
}

fn records(rig: &Rig) -> Vec<u64> {
    rig.records.iter().map(|(record, ..)| *record).collect()
}

fn synced(rig: &mut Rig, record: u64) {
    rig.event(Event::JournalSynced { record });
}

/// Whoever reconnects to the next process flushes there what this one answered: so no write is answered that would be lost
/// with this process, whatever a flush means. (A record that a guest had synced was lost when its daemon was killed between
/// the write's answer and the flush.)
#[test]
fn a_write_is_answered_when_it_outlives_this_process() {
    for answers_flushes in [true, false] {
        let mut rig = rig_with(answers_flushes);
        rig.journal_is_quick = false;
        let (first, second) = (rig.write(0, 2), rig.write(4, 1));
        assert_eq!((rig.answer(first), rig.answer(second)), (None, None));
        written(&mut rig, 6);
        assert_eq!((rig.answer(first), rig.answer(second)), (Some(Outcome::Done), None));
        let flush = rig.flush();
        assert_eq!(rig.uploading() == [FIRST], !answers_flushes, "who holds what is flushed");
        written(&mut rig, 7);
        assert_eq!(
            (rig.answer(second), rig.answer(flush)),
            (Some(Outcome::Done), None),
            "it is written, not synced"
        );
        match answers_flushes {
            true => synced(&mut rig, 7),
            false => rig.uploaded(FIRST),
        }
        assert_eq!(rig.answer(flush), Some(Outcome::Done));
        assert_eq!(rig.syncs.is_empty(), !answers_flushes);
    }
}

/// What the store holds outlives this process, too: a journal without room slows writes down and stops none.
#[test]
fn writes_behind_a_full_journal_are_answered_by_uploads() {
    let mut rig = rig_with(false);
    rig.journal_is_quick = false;
    let write = rig.write(0, 1);
    rig.event(Event::JournalFull);
    assert_eq!(rig.uploading(), [FIRST], "sealed, because somebody waits");
    let given_up = rig.write(1, 1);
    rig.event(Event::Cancel { id: RequestId(given_up) });
    assert_eq!(rig.answer(given_up), Some(Outcome::Cancelled { applied: true }));
    rig.uploaded(FIRST);
    assert_eq!(rig.answer(write), Some(Outcome::Done));
    let waits = rig.write(2, 1);
    rig.event(Event::Fenced);
    assert_eq!(rig.answer(waits), Some(Outcome::Fenced));
}

/// A flush waits for the records of what completed before it, and for no upload; those that come while a sync runs join
/// it if it covers them.
#[test]
fn a_flush_waits_for_the_journal_and_not_for_the_store() {
    let mut rig = rig();
    let nothing = rig.flush();
    assert_eq!(rig.answer(nothing), Some(Outcome::Done), "nothing to wait for");
    let write = rig.write(0, 2);
    assert_eq!(rig.answer(write), Some(Outcome::Done));
    assert_eq!(rig.records, [(6, Extent::new(0, 2), Content::Data(Bytes::from(vec![5; 2 * BLOCK_LEN])))]);
    let (first, joins) = (rig.flush(), rig.flush());
    assert_eq!(rig.syncs, [6], "one sync for both");
    rig.write(2, 1);
    let later = rig.flush();
    assert_eq!((rig.uploading(), &rig.syncs[..]), (vec![], &[6, 7][..]), "nothing is sealed for a flush");
    synced(&mut rig, 6);
    assert_eq!((rig.answer(first), rig.answer(joins)), (Some(Outcome::Done), Some(Outcome::Done)));
    assert_eq!(rig.answer(later), None);
    synced(&mut rig, 7);
    assert_eq!(rig.answer(later), Some(Outcome::Done));
    let held = rig.flush();
    assert_eq!(rig.answer(held), Some(Outcome::Done));
}

/// FUA is a flush of the write's own record; trims and zeroes are records, too.
#[test]
fn every_kind_of_write_is_a_record() {
    let mut rig = rig();
    let fua = rig.write_bytes(0, BLOCK_BYTES, true);
    assert_eq!((rig.answer(fua), &rig.syncs[..]), (None, &[6][..]));
    let range = |block: u64| (block * BLOCK_BYTES, 4 * BLOCK_BYTES);
    let (offset_bytes, length_bytes) = range(8);
    rig.submit(Request::Trim { offset_bytes, length_bytes, fua: false });
    let (offset_bytes, length_bytes) = range(16);
    rig.submit(Request::WriteZeroes { offset_bytes, length_bytes, keep_allocated: true, fua: false });
    assert_eq!(
        rig.records[1..],
        [(7, Extent::new(8, 4), Content::Trim), (8, Extent::new(16, 4), Content::Zero)]
    );
    synced(&mut rig, 6);
    assert_eq!(rig.answer(fua), Some(Outcome::Done));
}

/// Records have the order in which writes are applied: one that waits for its base comes after what overtook it.
#[test]
fn a_write_that_merges_is_recorded_when_it_is_applied() {
    let mut rig = rig();
    rig.write(0, 4);
    rig.uploaded(FIRST);
    let partial = rig.write_bytes(100, 8, false);
    rig.write(2, 1);
    assert_eq!(records(&rig), [6, 7]);
    assert_eq!(rig.records[1].1, Extent::new(2, 1));
    let (id, block, _) = rig.bases.pop().unwrap();
    rig.event(Event::BaseRead { id, block, base: Some(Bytes::from(vec![5; BLOCK_LEN])) });
    assert_eq!(rig.answer(partial), Some(Outcome::Done));
    assert_eq!((rig.records[2].0, rig.records[2].1), (8, Extent::new(0, 1)), "the whole merged block");
}

/// Every object says which records the log contains with it, and when it is durable in order they are released.
#[test]
fn objects_name_their_last_record() {
    let mut rig = rig();
    rig.write(0, 4);
    rig.write(4, 2);
    rig.write(6, 2);
    let position = |record| Some(JournalPosition { journal: ID, record });
    assert_eq!(rig.uploads[0].header.journal, position(6));
    assert_eq!(rig.uploads[1].header.journal, position(8));
    rig.uploaded(FIRST + 1);
    assert!(rig.releases.is_empty(), "a release needs all before it");
    rig.uploaded(FIRST);
    assert_eq!(rig.releases, [6, 8]);
    let flush = rig.flush();
    assert_eq!(rig.answer(flush), Some(Outcome::Done), "what the store holds needs no sync");
}

/// A full journal: flushes are answered by uploads, which make room, and by syncs again when there is room.
#[test]
fn a_full_journal_leaves_it_to_uploads() {
    let mut rig = rig();
    rig.write(0, 1);
    let flush = rig.flush();
    rig.event(Event::JournalFull);
    assert_eq!(rig.uploading(), [FIRST], "sealed, because somebody waits");
    rig.write(1, 1);
    let next = rig.flush();
    assert_eq!(rig.uploading(), [FIRST, FIRST + 1]);
    rig.uploaded(FIRST);
    assert_eq!((rig.answer(flush), rig.answer(next)), (Some(Outcome::Done), None));
    synced(&mut rig, 7);
    assert_eq!(rig.answer(next), Some(Outcome::Done));
    rig.write(2, 1);
    rig.flush();
    assert_eq!(rig.uploading(), [FIRST + 1], "there is room again");
}

/// What the journal has and the log has not is applied again under its own numbers, and goes on from there.
#[test]
fn records_are_replayed_under_their_own_numbers() {
    let mut rig = rig();
    let data = Bytes::from(vec![9; 2 * BLOCK_LEN]);
    rig.event(Event::Replayed { record: 6, extent: Extent::new(0, 2), content: Content::Data(data) });
    rig.event(Event::Replayed { record: 7, extent: Extent::new(1, 1), content: Content::Trim });
    assert!(rig.records.is_empty(), "they are in the journal already");
    let plan = rig.engine.plan_read(0, 2 * BLOCK_BYTES).unwrap();
    assert!(
        matches!(&plan[..], [PlanPiece::Buffered(bytes), PlanPiece::Zeroes(BLOCK_BYTES)] if bytes[0] == 9)
    );
    let flush = rig.flush();
    assert_eq!(rig.answer(flush), Some(Outcome::Done), "the journal holds them");
    rig.write(4, 3);
    assert_eq!(records(&rig), [8]);
    assert_eq!(rig.uploads[0].header.journal, Some(JournalPosition { journal: ID, record: 8 }));
    rig.uploaded(FIRST);
    assert_eq!(rig.engine.buffered_bytes(), 0);
}

/// What only the journal holds is never said to be nothing: a trim that was replayed has no data, and is not in the store
/// either. (The simulator's seed 10046834: the lag was 0.)
#[test]
fn a_replayed_trim_is_lag_until_it_is_stored() {
    let mut rig = rig();
    rig.event(Event::Replayed { record: 6, extent: Extent::new(1, 1), content: Content::Trim });
    assert!(rig.engine.buffered_bytes() > 0);
    assert!(rig.engine.buffered_since().is_some());
    rig.submit(Request::Drain);
    rig.uploaded(FIRST);
    assert_eq!((rig.engine.buffered_bytes(), rig.engine.buffered_since()), (0, None));
}

/// Who waits for the journal can give up, and a fence ends all waiting.
#[test]
fn waiting_for_the_journal_ends_by_cancellation_and_fence() {
    let mut rig = rig();
    rig.write(0, 1);
    let (given_up, waits) = (rig.flush(), rig.flush());
    rig.event(Event::Cancel { id: RequestId(given_up) });
    assert_eq!(rig.answer(given_up), Some(Outcome::Cancelled { applied: true }));
    rig.event(Event::Fenced);
    assert_eq!(rig.answer(waits), Some(Outcome::Fenced));
    synced(&mut rig, 6);
}

//! Hand-made histories: the lawful ones pass, and every kind of loss is caught.

use super::*;
use crate::history::{Op, Outcome, Request, Sighting, Tick};

const SECTORS: u32 = 16;

/// A generation under construction: `(submit, done)` ticks are given by hand; `None` is never answered.
struct Story(Generation);

impl Story {
    fn new(epoch: u64) -> Self {
        Self(Generation {
            epoch,
            opened: epoch * 1000,
            found: Some(vec![Value::Zero; SECTORS as usize]),
            ..Generation::default()
        })
    }

    fn found(mut self, values: &[(u32, u32)]) -> Self {
        self.0.found = Some(volume(values));
        self
    }

    fn opened(mut self, tick: Tick) -> Self {
        self.0.opened = tick;
        self
    }

    fn op(mut self, submit: Tick, outcome: Outcome, request: Request) -> Self {
        self.0.ops.push(Op { request, submit, outcome });
        self
    }

    fn write(self, id: u32, first: u32, count: u32, submit: Tick, done: Option<Tick>) -> Self {
        let outcome = done.map_or(Outcome::Pending, Outcome::Done);
        self.op(submit, outcome, Request::Write { first, count, id, fua: false })
    }

    fn zero(self, first: u32, count: u32, inward: bool, submit: Tick, done: Tick) -> Self {
        self.op(submit, Outcome::Done(done), Request::Zero { first, count, inward, fua: false })
    }

    fn flush(self, submit: Tick, done: Tick) -> Self {
        self.op(submit, Outcome::Done(done), Request::Flush)
    }

    /// The store has all that was done before.
    fn stored(self, submit: Tick, done: Tick) -> Self {
        self.op(submit, Outcome::Done(done), Request::Stored)
    }

    fn fua(self, id: u32, first: u32, submit: Tick, done: Tick) -> Self {
        self.op(submit, Outcome::Done(done), Request::Write { first, count: 1, id, fua: true })
    }

    /// Its flushes are answered by this journal.
    fn journal(mut self, number: u32) -> Self {
        self.0.journal = Some(number);
        self
    }

    /// That journal's host had lost its power so often.
    fn boot(mut self, power_losses: u32) -> Self {
        self.0.boot = Some((1, power_losses));
        self
    }

    /// Part of what it found came out of its journal.
    fn replayed(mut self) -> Self {
        self.0.replayed = true;
        self
    }

    fn read(self, first: u32, ids: &[u32], submit: Tick, done: Tick) -> Self {
        let values = ids.iter().map(|id| value(*id)).collect();
        self.op(submit, Outcome::Done(done), Request::Read { first, values })
    }

    fn sighting(mut self, from: Tick, until: Tick, values: &[(u32, u32)]) -> Self {
        self.0.sightings.push(Sighting { from, until, values: volume(values), completed: false });
        self
    }
}

fn value(id: u32) -> Value {
    if id == 0 { Value::Zero } else { Value::Write(id) }
}

fn volume(values: &[(u32, u32)]) -> Vec<Value> {
    let mut volume = vec![Value::Zero; SECTORS as usize];
    values.iter().for_each(|(sector, id)| volume[*sector as usize] = value(*id));
    volume
}

fn judged(stories: impl IntoIterator<Item = Story>) -> Result<(), Violation> {
    judged_with(&[], stories)
}

/// With epochs that began by giving up the journal that was in use.
fn judged_with(abandoned: &[u64], stories: impl IntoIterator<Item = Story>) -> Result<(), Violation> {
    let generations = stories.into_iter().map(|story| story.0).collect();
    judge(&History { sectors: SECTORS, generations, abandoned: abandoned.to_vec() })
}

#[track_caller]
fn lawful(stories: impl IntoIterator<Item = Story>) {
    if let Err(violation) = judged(stories) {
        panic!("a lawful history was refused: {violation}");
    }
}

#[track_caller]
fn caught(rule: u8, stories: impl IntoIterator<Item = Story>) {
    caught_with(rule, &[], stories);
}

#[track_caller]
fn lawful_with(abandoned: &[u64], stories: impl IntoIterator<Item = Story>) {
    if let Err(violation) = judged_with(abandoned, stories) {
        panic!("a lawful history was refused: {violation}");
    }
}

#[track_caller]
fn caught_with(rule: u8, abandoned: &[u64], stories: impl IntoIterator<Item = Story>) {
    let violation = judged_with(abandoned, stories).expect_err("an unlawful history passed");
    assert_eq!(violation.rule, rule, "{violation}");
}

#[test]
fn an_unflushed_write_may_be_lost_or_kept() {
    let first = || Story::new(1).write(1, 0, 8, 1001, Some(1002));
    lawful([first(), Story::new(2)]);
    lawful([first(), Story::new(2).found(&(0..8).map(|s| (s, 1)).collect::<Vec<_>>())]);
}

/// Rule 1: every write that was completed when a since completed flush arrived.
#[test]
fn a_lost_flushed_write_is_caught() {
    let first = || Story::new(1).write(1, 0, 1, 1001, Some(1002)).flush(1003, 1004);
    lawful([first(), Story::new(2).found(&[(0, 1)])]);
    caught(1, [first(), Story::new(2)]);
}

#[test]
fn a_flush_that_arrived_before_the_write_completed_promises_nothing() {
    let first = Story::new(1).write(1, 0, 1, 1001, Some(1003)).flush(1002, 1004);
    lawful([first, Story::new(2)]);
}

/// Rule 1: every completed FUA write.
#[test]
fn a_lost_fua_write_is_caught() {
    let fua =
        |outcome| Story::new(1).op(1001, outcome, Request::Write { first: 3, count: 1, id: 1, fua: true });
    caught(1, [fua(Outcome::Done(1002)), Story::new(2)]);
    lawful([fua(Outcome::Failed(1002)), Story::new(2)]);
    lawful([fua(Outcome::Failed(1002)), Story::new(2).found(&[(3, 1)])]);
}

/// Rule 1: a write that completed before another was submitted comes first.
#[test]
fn a_later_write_without_an_earlier_one_is_caught() {
    let first = || Story::new(1).write(1, 0, 1, 1001, Some(1002)).write(2, 8, 1, 1003, Some(1004));
    lawful([first(), Story::new(2).found(&[(0, 1)])]);
    caught(1, [first(), Story::new(2).found(&[(8, 2)])]);
}

#[test]
fn concurrent_writes_may_fall_in_either_order_but_in_one() {
    let first = || Story::new(1).write(1, 0, 16, 1001, Some(1003)).write(2, 0, 16, 1002, Some(1004));
    let all = |id| (0..16).map(|s| (s, id)).collect::<Vec<_>>();
    lawful([first(), Story::new(2).found(&all(1))]);
    lawful([first(), Story::new(2).found(&all(2))]);
    lawful([first(), Story::new(2).found(&[all(1)[..8].to_vec(), all(2)[8..].to_vec()].concat())]);
    caught(1, [first(), Story::new(2).found(&[all(1)[..4].to_vec(), all(2)[4..].to_vec()].concat())]);
}

/// Rule 1: the order within a prefix; both writes are there, but the older one won.
#[test]
fn a_reordered_overwrite_is_caught() {
    let first = || {
        Story::new(1)
            .write(1, 0, 1, 1001, Some(1002))
            .write(2, 0, 1, 1003, Some(1004))
            .write(3, 9, 1, 1005, None)
    };
    lawful([first(), Story::new(2).found(&[(0, 2), (9, 3)])]);
    caught(1, [first(), Story::new(2).found(&[(0, 1), (9, 3)])]);
}

/// Rule 1: no order of four writes gives this, though each pair alone could be.
#[test]
fn a_cycle_through_several_sectors_is_caught() {
    let first = Story::new(1).write(1, 0, 2, 1001, Some(1005)).write(2, 1, 2, 1002, Some(1006)).write(
        3,
        0,
        3,
        1003,
        Some(1007),
    );
    caught(1, [first, Story::new(2).found(&[(0, 1), (1, 2), (2, 3)])]);
}

/// Rule 1: a write may tear only at block boundaries.
#[test]
fn a_torn_block_is_caught() {
    let first = || Story::new(1).write(1, 4, 8, 1001, None);
    lawful([first(), Story::new(2).found(&[(4, 1), (5, 1), (6, 1), (7, 1)])]);
    caught(1, [first(), Story::new(2).found(&[(4, 1), (5, 1)])]);
}

/// Rule 1: a request answered with an error is never applied later.
#[test]
fn a_write_that_was_answered_with_an_error_and_is_there_is_caught() {
    let first = || {
        let write = Request::Write { first: 0, count: 1, id: 1, fua: false };
        Story::new(1).op(1001, Outcome::Failed(1002), write)
    };
    lawful([first(), Story::new(2)]);
    caught(1, [first(), Story::new(2).found(&[(0, 1)])]);
}

/// Rule 1: what a crash took away does not come back.
#[test]
fn a_resurrected_write_is_caught() {
    let first = || Story::new(1).write(1, 0, 1, 1001, Some(1002));
    lawful([first(), Story::new(2), Story::new(3)]);
    caught(1, [first(), Story::new(2), Story::new(3).found(&[(0, 1)])]);
}

/// Rule 1, across generations: what was recovered once stays.
#[test]
fn a_recovered_write_that_is_lost_later_is_caught() {
    let first = || Story::new(1).write(1, 0, 1, 1001, Some(1002));
    lawful([first(), Story::new(2).found(&[(0, 1)]), Story::new(3).found(&[(0, 1)])]);
    caught(1, [first(), Story::new(2).found(&[(0, 1)]), Story::new(3)]);
}

/// Rule 9: an old writer whose flush is answered after the next one has opened was not fenced.
#[test]
fn a_flush_acknowledged_behind_the_fence_is_caught() {
    let old = || Story::new(1).write(1, 0, 1, 2001, Some(2002)).flush(2003, 2004);
    caught(1, [old(), Story::new(2).opened(2000)]);
    caught(9, [old(), Story::new(2).opened(2000).found(&[(0, 1)])]);
    let unflushed = Story::new(1).write(1, 0, 1, 2001, Some(2002));
    lawful([unflushed, Story::new(2).opened(2000)]);
}

/// Rule 2: no epoch is begun twice.
#[test]
fn one_epoch_for_two_writers_is_caught() {
    caught(2, [Story::new(1), Story::new(1)]);
}

#[test]
fn a_stale_read_is_caught() {
    let story = || Story::new(1).write(1, 0, 1, 1001, Some(1002)).write(2, 0, 1, 1003, Some(1004));
    lawful([story().read(0, &[2], 1005, 1006)]);
    caught(1, [story().read(0, &[1], 1005, 1006)]);
    caught(1, [story().read(0, &[0], 1005, 1006)]);
    caught(1, [story().read(0, &[3], 1005, 1006)]);
}

#[test]
fn a_read_of_what_is_only_asked_later_is_caught() {
    caught(1, [Story::new(1).read(0, &[1], 1001, 1002).write(1, 0, 1, 1003, Some(1004))]);
}

#[test]
fn reads_that_go_back_and_forth_between_concurrent_writes_are_caught() {
    let story = || Story::new(1).write(1, 0, 1, 1001, Some(1003)).write(2, 0, 1, 1002, Some(1004));
    lawful([story().read(0, &[1], 1005, 1006).read(0, &[1], 1007, 1008)]);
    caught(1, [story().read(0, &[1], 1005, 1006).read(0, &[2], 1007, 1008)]);
}

/// Rule 1: one order, for what was read before the crash and for what is found after it.
#[test]
fn an_order_that_reads_showed_binds_recovery() {
    let story = || {
        Story::new(1).write(1, 0, 1, 1001, Some(1003)).write(2, 0, 1, 1002, Some(1004)).read(
            0,
            &[1],
            1005,
            1006,
        )
    };
    lawful([story().flush(1007, 1008), Story::new(2).found(&[(0, 1)])]);
    caught(1, [story().flush(1007, 1008), Story::new(2).found(&[(0, 2)])]);
    lawful([story(), Story::new(2).found(&[(0, 2)])]);
}

#[test]
fn zeroes_are_explained_by_what_zeroes() {
    let story = |inward| Story::new(1).write(1, 0, 16, 1001, Some(1002)).zero(4, 12, inward, 1003, 1004);
    let left = |until| (0..until).map(|s| (s, 1)).collect::<Vec<_>>();
    lawful([story(false).flush(1005, 1006), Story::new(2).found(&left(4))]);
    lawful([story(true).flush(1005, 1006), Story::new(2).found(&left(8))]);
    caught(1, [story(false).flush(1005, 1006), Story::new(2).found(&left(8))]);
    caught(1, [story(true).flush(1005, 1006), Story::new(2).found(&left(4))]);
    lawful([story(false), Story::new(2).found(&left(16))]);
}

#[test]
fn zeroes_that_were_overwritten_are_caught() {
    let story = || Story::new(1).zero(0, 8, false, 1001, 1002).write(1, 0, 1, 1003, Some(1004));
    lawful([story().read(0, &[1], 1005, 1006)]);
    caught(1, [story().read(0, &[0], 1005, 1006)]);
    caught(1, [story().flush(1005, 1006), Story::new(2)]);
}

#[test]
fn data_that_was_zeroed_is_caught() {
    let story = || Story::new(1).write(1, 0, 1, 1001, Some(1002)).zero(0, 8, false, 1003, 1004);
    caught(1, [story().read(0, &[1], 1005, 1006)]);
    caught(1, [story().flush(1005, 1006), Story::new(2).found(&[(0, 1)])]);
}

/// Rule 1: what a read-only opening found is durable, and holds what was flushed before it began.
#[test]
fn a_read_only_opening_is_a_prefix_that_stays() {
    let story =
        || Story::new(1).write(1, 0, 1, 1001, Some(1002)).flush(1003, 1004).write(2, 8, 1, 1005, Some(1006));
    lawful([story().sighting(1007, 1008, &[(0, 1)]), Story::new(2).found(&[(0, 1)])]);
    lawful([story().sighting(1007, 1008, &[(0, 1), (8, 2)]), Story::new(2).found(&[(0, 1), (8, 2)])]);
    caught(1, [story().sighting(1007, 1008, &[]), Story::new(2).found(&[(0, 1)])]);
    caught(1, [story().sighting(1007, 1008, &[(0, 1), (8, 2)]), Story::new(2).found(&[(0, 1)])]);
}

#[test]
fn an_opening_that_never_read_the_volume_changes_nothing() {
    let first = Story::new(1).write(1, 0, 1, 1001, Some(1002)).flush(1003, 1004);
    let mut died = Story::new(2);
    died.0.found = None;
    lawful([first, died, Story::new(3).found(&[(0, 1)])]);
}

/// Rule 1: a flush that a journal answered binds, unless that journal was given up.
#[test]
fn a_lost_journal_waives_its_flushes_and_nothing_else() {
    let first = || {
        let story = Story::new(1).journal(1).write(1, 0, 1, 1001, Some(1002)).flush(1003, 1004);
        story.fua(2, 8, 1005, 1006)
    };
    let all = [(0, 1), (8, 2)];
    lawful([first(), Story::new(2).journal(1).replayed().found(&all)]);
    caught(1, [first(), Story::new(2).journal(1).replayed().found(&[(0, 1)])]);
    caught(1, [first(), Story::new(2).journal(1)]);
    lawful_with(&[2], [first(), Story::new(2)]);
    lawful_with(&[2], [first(), Story::new(2).found(&[(0, 1)])]);
    lawful_with(&[2], [first(), Story::new(2).found(&all)]);
    // Still a prefix of one order.
    caught_with(1, &[2], [first(), Story::new(2).found(&[(8, 2)])]);
    // Given up earlier, or of a store: that is nothing to this one.
    caught_with(1, &[1], [first(), Story::new(2)]);
    let of_the_store = Story::new(1).write(1, 0, 1, 1001, Some(1002)).flush(1003, 1004);
    caught_with(1, &[2], [of_the_store, Story::new(2)]);
}

/// Rule 1, for who reconnects: what a killed process answered is there for the next one with its journal, flushed or not, unless the host
/// went down, too.
#[test]
fn what_was_answered_outlives_its_process() {
    let first = || {
        let story = Story::new(1).journal(1).boot(1).write(1, 0, 1, 1001, Some(1002)).flush(1003, 1004);
        story.write(2, 8, 1, 1005, Some(1006)).write(3, 12, 1, 1007, None)
    };
    let next = |boot| Story::new(2).journal(1).boot(boot).replayed();
    lawful([first(), next(1).found(&[(0, 1), (8, 2)])]);
    lawful([first(), next(1).found(&[(0, 1), (8, 2), (12, 3)])]);
    caught(1, [first(), next(1).found(&[(0, 1)])]);
    lawful([first(), next(2).found(&[(0, 1)])]);
}

/// Rule 1: what the store was known to have is not the journal's to lose.
#[test]
fn what_was_in_the_store_outlives_the_journal() {
    let first = || Story::new(1).journal(1).write(1, 0, 1, 1001, Some(1002)).stored(1003, 1004);
    let later = || first().write(2, 8, 1, 1005, Some(1006)).flush(1007, 1008);
    lawful_with(&[2], [first(), Story::new(2).found(&[(0, 1)])]);
    caught_with(1, &[2], [first(), Story::new(2)]);
    lawful_with(&[2], [later(), Story::new(2).found(&[(0, 1)])]);
    caught_with(1, &[2], [later(), Story::new(2)]);
    let seen = || {
        let story = Story::new(1).journal(1).write(1, 0, 1, 1001, Some(1002)).flush(1003, 1004);
        story.write(2, 8, 1, 1005, Some(1006)).sighting(1007, 1008, &[(0, 1)])
    };
    lawful_with(&[2], [seen(), Story::new(2).found(&[(0, 1)])]);
    caught_with(1, &[2], [seen(), Story::new(2)]);
}

/// Rule 1: readers see the store alone, which has a prefix; what one saw, the next one sees.
#[test]
fn a_reader_beside_a_journal_sees_a_prefix_that_grows() {
    let story = || {
        let story = Story::new(1).journal(1).write(1, 0, 1, 1001, Some(1002));
        story.write(2, 8, 1, 1003, Some(1004)).flush(1005, 1006)
    };
    lawful([story().sighting(1007, 1008, &[])]);
    lawful([story().sighting(1007, 1008, &[(0, 1)]).sighting(1009, 1010, &[(0, 1), (8, 2)])]);
    caught(1, [story().sighting(1007, 1008, &[(8, 2)])]);
    caught(1, [story().sighting(1007, 1008, &[(0, 1)]).sighting(1009, 1010, &[])]);
}

/// What a reader saw may be older than what the newest opening took out of its journal, or newer: then it shows neither.
/// (Seed 2017147 of the simulator, which took it for newer.)
#[test]
fn a_sighting_that_may_be_of_two_openings_shows_nothing() {
    let first = || Story::new(1).journal(1).write(1, 0, 8, 1001, Some(1002)).flush(1003, 1004);
    let all = (0..8).map(|sector| (sector, 1)).collect::<Vec<_>>();
    let second = || {
        let story = Story::new(2).journal(1).replayed().found(&all).zero(0, 8, true, 2001, 2002);
        story.sighting(2003, 2004, &[])
    };
    lawful([first(), second(), Story::new(3).journal(1).replayed().found(&all)]);
    lawful([first(), second(), Story::new(3).journal(1).replayed()]);
    // Nothing was taken out of a journal: there it shows the zeroes.
    let plain = Story::new(2).journal(1).found(&all).zero(0, 8, true, 2001, 2002).sighting(2003, 2004, &[]);
    caught(1, [first(), plain, Story::new(3).journal(1).replayed().found(&all)]);
}

/// Rule 1: giving a journal up may take what an opening had taken out of it, too: then of the opening before that one
/// a prefix is left, and nothing of the opening itself.
#[test]
fn a_journal_given_up_takes_what_was_replayed_from_it() {
    let first = || {
        let story = Story::new(1).journal(1).write(1, 0, 1, 1001, Some(1002));
        story.write(2, 8, 1, 1003, Some(1004)).flush(1005, 1006)
    };
    let second = || Story::new(2).journal(1).replayed().found(&[(0, 1), (8, 2)]);
    let wrote = || second().write(3, 1, 1, 2001, Some(2002)).flush(2003, 2004);
    lawful_with(&[3], [first(), wrote(), Story::new(3).found(&[(0, 1)])]);
    lawful_with(&[3], [first(), wrote(), Story::new(3)]);
    caught(1, [first(), wrote(), Story::new(3).found(&[(0, 1)])]);
    caught_with(1, &[3], [first(), wrote(), Story::new(3).found(&[(8, 2)])]);
    caught_with(1, &[3], [first(), wrote(), Story::new(3).found(&[(0, 1), (1, 3)])]);
    // Nothing of it is left where the store was known to have it.
    lawful_with(&[3], [first(), second().stored(2001, 2002), Story::new(3).found(&[(0, 1), (8, 2)])]);
    caught_with(1, &[3], [first(), second().stored(2001, 2002), Story::new(3).found(&[(0, 1)])]);
    // An opening that took nothing out of a journal found what the store has.
    let found = Story::new(2).journal(1).found(&[(0, 1), (8, 2)]).write(3, 1, 1, 2001, Some(2002));
    caught_with(1, &[3], [first(), found, Story::new(3).found(&[(0, 1)])]);
}

/// Rule 1: a journal that was given up may come back, as long as nothing that was written since is in the store.
#[test]
fn a_journal_that_comes_back_brings_what_it_promised() {
    let first = || Story::new(1).journal(1).write(1, 0, 1, 1001, Some(1002)).flush(1003, 1004);
    let between = || Story::new(2).journal(2).write(2, 8, 1, 2001, Some(2002));
    let back = || Story::new(3).journal(1).replayed();
    lawful_with(&[2, 3], [first(), between(), back().found(&[(0, 1)])]);
    lawful_with(&[2, 3], [first(), between().flush(2003, 2004), back().found(&[(0, 1)])]);
    caught_with(1, &[2, 3], [first(), between().stored(2003, 2004), back().found(&[(0, 1)])]);
    // It was the store that answered in between.
    let by_the_store = Story::new(2).write(2, 8, 1, 2001, Some(2002)).flush(2003, 2004);
    caught_with(1, &[2], [first(), by_the_store, back().found(&[(0, 1)])]);
    // Two tails of one volume do not mix.
    caught_with(1, &[2, 3], [first(), between(), back().found(&[(0, 1), (8, 2)])]);
}

/// Rules 1 and 9: an old writer may go on acknowledging by a journal that was given up, but not by the one in use.
#[test]
fn a_journal_in_use_has_one_writer() {
    let old = || Story::new(1).journal(1).write(1, 0, 1, 2001, Some(2002)).flush(2003, 2004);
    lawful_with(&[2], [old(), Story::new(2).opened(2000)]);
    caught(1, [old(), Story::new(2).journal(1).opened(2000)]);
    caught(9, [old(), Story::new(2).journal(1).opened(2000).found(&[(0, 1)])]);
}

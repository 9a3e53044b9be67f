//! States made by hand, lawful and not, and every answer against a judge that tries all sets and all orders.

use super::*;
use crate::crash::history::Answer;
use crate::numbers::Numbers;

fn op(kind: Kind, sectors: std::ops::Range<u32>, submit: Tick, answer: Answer) -> Op {
    Op { kind, first: sectors.start, count: sectors.end - sectors.start, fua: false, submit, answer }
}

fn write(number: Value, sectors: std::ops::Range<u32>, submit: Tick, done: Tick) -> Op {
    let answer = if done == NEVER { Answer::None } else { Answer::Done(done) };
    op(Kind::Write(number), sectors, submit, answer)
}

fn flush(submit: Tick, done: Tick) -> Op {
    let answer = if done == NEVER { Answer::None } else { Answer::Done(done) };
    op(Kind::Flush, 0..0, submit, answer)
}

fn fua(op: Op) -> Op {
    Op { fua: true, ..op }
}

/// Sectors of as many blocks as there are values, each block of one value.
fn blocks(values: &[Value]) -> Vec<Value> {
    values.iter().flat_map(|value| [*value; SECTORS]).collect()
}

fn check(ops: &[Op], found: &[Value]) -> Result<Verdict, String> {
    judge(Claim { base: &vec![0; found.len()], ops, found, durable: true })
}

#[track_caller]
fn lawful(ops: &[Op], found: &[Value]) -> Verdict {
    check(ops, found).unwrap_or_else(|why| panic!("this is lawful: {why}"))
}

#[track_caller]
fn unlawful(ops: &[Op], found: &[Value], why: &str) {
    let said = check(ops, found).expect_err("this is not lawful");
    assert!(said.contains(why), "expected {why}: {said}");
}

#[test]
fn one_after_the_other_leaves_a_prefix() {
    let ops = [write(1, 0..8, 1, 2), write(2, 8..16, 3, 4), write(3, 16..24, 5, 6)];
    // The one at the end may be torn to nothing: it does not count as gone.
    for (found, gone) in [([0, 0, 0], 2), ([1, 0, 0], 1), ([1, 2, 0], 0), ([1, 2, 3], 0)] {
        assert_eq!(lawful(&ops, &blocks(&found)).gone, gone);
    }
    for found in [[0, 2, 0], [1, 0, 3], [0, 0, 3]] {
        unlawful(&ops, &blocks(&found), "NO PREFIX");
    }
}

#[test]
fn a_flush_binds_what_was_done_before_it_was_asked() {
    let ops = [write(1, 0..8, 1, 2), write(2, 8..16, 3, 6), flush(4, 5)];
    lawful(&ops, &blocks(&[1, 0]));
    lawful(&ops, &blocks(&[1, 2]));
    unlawful(&ops, &blocks(&[0, 0]), "LOST");
    let waived = Claim { base: &[0; 16], ops: &ops, found: &blocks(&[0, 0]), durable: false };
    assert!(judge(waived).is_ok());
    // Not answered, or with an error: it binds nothing.
    lawful(&[write(1, 0..8, 1, 2), flush(3, NEVER)], &blocks(&[0]));
    lawful(&[write(1, 0..8, 1, 2), op(Kind::Flush, 0..0, 3, Answer::Failed(4))], &blocks(&[0]));
}

#[test]
fn fua_binds_itself_and_what_came_before_it() {
    let ops = [write(1, 0..8, 1, 2), fua(write(2, 8..16, 3, 4)), write(3, 0..8, 5, 6)];
    assert_eq!(lawful(&ops, &blocks(&[1, 2])).required, 1);
    lawful(&ops, &blocks(&[3, 2]));
    unlawful(&ops, &blocks(&[1, 0]), "LOST");
    unlawful(&ops, &blocks(&[0, 2]), "NO PREFIX");
    // In flight together, neither comes first.
    lawful(&[write(1, 0..8, 1, 4), fua(write(2, 8..16, 2, 3))], &blocks(&[0, 2]));
    for kind in [Kind::Trim, Kind::Zero] {
        let ops = [write(1, 0..8, 1, 2), fua(op(kind, 0..8, 3, Answer::Done(4)))];
        lawful(&ops, &blocks(&[0]));
        unlawful(&ops, &blocks(&[1]), "LOST");
    }
}

#[test]
fn a_write_tears_at_block_boundaries_and_nowhere_else() {
    let ops = [write(1, 4..20, 1, NEVER)];
    let parts = |parts: [u64; 3]| {
        let mut found = blocks(&parts);
        found[..4].fill(0);
        found[20..].fill(0);
        found
    };
    lawful(&ops, &parts([1, 0, 0]));
    lawful(&ops, &parts([0, 1, 1]));
    let mut torn = parts([1, 1, 1]);
    torn[12] = 0;
    unlawful(&ops, &torn, "NO PREFIX");
    // Not once something came after it, nor when it was flushed.
    unlawful(&[write(1, 0..16, 1, 2), write(2, 16..24, 3, 4)], &blocks(&[1, 0, 2]), "NO PREFIX");
    unlawful(&[write(1, 0..16, 1, 2), flush(3, 4)], &blocks(&[1, 0]), "LOST");
}

#[test]
fn an_overwritten_write_does_not_come_back() {
    let ops = [write(1, 0..8, 1, 2), write(2, 0..8, 3, 4), write(3, 8..16, 5, 6)];
    unlawful(&ops, &blocks(&[1, 3]), "NO PREFIX");
    lawful(&ops, &blocks(&[1, 0]));
    // Both in flight: either may be the last.
    let together = [write(1, 0..8, 1, 4), write(2, 0..8, 2, 3), write(3, 8..16, 5, 6)];
    lawful(&together, &blocks(&[1, 3]));
    lawful(&together, &blocks(&[2, 3]));
    unlawful(&together, &blocks(&[0, 3]), "NO PREFIX");
}

#[test]
fn two_sectors_of_a_block_know_one_order() {
    // Together in flight, so either order; but one of both, not each at its own sector.
    let ops = [write(1, 0..2, 1, 4), write(2, 0..2, 2, 3), flush(5, 6)];
    let found = |a, b| [a, b, 0, 0, 0, 0, 0, 0];
    lawful(&ops, &found(1, 1));
    lawful(&ops, &found(2, 2));
    unlawful(&ops, &found(1, 2), "NO PREFIX");
}

#[test]
fn zeroes_are_somebodys_too() {
    let ops = [write(1, 0..8, 1, 2), op(Kind::Zero, 2..6, 3, Answer::Done(4)), write(2, 8..16, 5, 6)];
    lawful(&ops, &blocks(&[1, 0]));
    let zeroed = [1, 1, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2];
    lawful(&ops, &zeroed);
    unlawful(&ops, &blocks(&[1, 2]), "NO PREFIX");
    unlawful(&ops, &blocks(&[0, 2]), "NO PREFIX");
    // A trim leaves the parts of blocks alone.
    let ops = [write(1, 0..16, 1, 2), op(Kind::Trim, 4..16, 3, Answer::Done(4)), flush(5, 6)];
    lawful(&ops, &blocks(&[1, 0]));
}

#[test]
fn a_failed_request_is_applied_by_its_answer_or_never() {
    let failed = op(Kind::Write(1), 0..8, 1, Answer::Failed(2));
    lawful(&[failed], &blocks(&[0]));
    lawful(&[failed], &blocks(&[1]));
    let ops = [failed, write(2, 0..8, 3, 4), write(3, 8..16, 5, 6)];
    lawful(&ops, &blocks(&[2, 3]));
    unlawful(&ops, &blocks(&[1, 3]), "NO PREFIX");
}

#[test]
fn what_nobody_wrote_is_refused() {
    unlawful(&[write(1, 0..8, 1, 2)], &blocks(&[9]), "NO PREFIX");
    unlawful(&[], &blocks(&[9]), "NO PREFIX");
    let claim = Claim { base: &blocks(&[9]), ops: &[], found: &blocks(&[0]), durable: true };
    assert!(judge(claim).is_err(), "what was there before is gone");
}

/// Tries every set and every order: the definition itself, for few units only.
fn by_trying_all(claim: Claim<'_>) -> bool {
    let judged = Judged::new(claim);
    let units: Vec<(usize, Unit)> = judged
        .blocks
        .iter()
        .enumerate()
        .flat_map(|(block, units)| units.iter().map(move |unit| (block, *unit)))
        .collect();
    (0_u32..1 << units.len()).any(|set| {
        let inside = |index: usize| set & 1 << index != 0;
        let closed = (0..units.len()).all(|later| {
            !inside(later)
                || (0..units.len()).all(|other| inside(other) || units[other].1.done >= units[later].1.submit)
        });
        let required = (0..units.len()).all(|index| inside(index) || !units[index].1.required);
        let chosen = (0..units.len()).filter(|index| inside(*index)).map(|index| units[index]).collect();
        closed && required && some_order(&claim, &mut claim.base.to_vec(), chosen)
    })
}

fn some_order(claim: &Claim<'_>, state: &mut Vec<Value>, left: Vec<(usize, Unit)>) -> bool {
    if left.is_empty() {
        return state == claim.found;
    }
    (0..left.len()).any(|next| {
        let (block, unit) = left[next];
        if left.iter().any(|(_, other)| other.answered < unit.submit) {
            return false;
        }
        let mut state = state.clone();
        for sector in (0..SECTORS).filter(|sector| unit.mask & 1 << sector != 0) {
            state[block * SECTORS + sector] = unit.value;
        }
        let mut left = left.clone();
        left.remove(next);
        some_order(claim, &mut state, left)
    })
}

#[test]
fn the_judge_agrees_with_trying_all() {
    let (mut lawful, mut unlawful) = (0, 0);
    for seed in 0..4_000 {
        let mut chance = Numbers::new(seed);
        let mut ops: Vec<Op> = Vec::new();
        // A deck of ticks: each request takes two of them.
        let count = 2 + chance.below(3);
        for number in 1..=count {
            let submit = 1 + 2 * number + chance.below(2);
            let took = 1 + 2 * chance.below(4);
            let answer = match chance.below(6) {
                0 => Answer::None,
                1 => Answer::Failed(submit + took),
                _ => Answer::Done(submit + took),
            };
            let first = u32::try_from(chance.below(15)).unwrap();
            let length = 1 + u32::try_from(chance.below(u64::from(16 - first).min(9))).unwrap();
            let kind = match chance.below(6) {
                0 => Kind::Zero,
                1 => Kind::Trim,
                2 => Kind::Flush,
                _ => Kind::Write(number),
            };
            ops.push(Op {
                fua: chance.below(4) == 0,
                ..op(kind, first..first + length, submit * 10 + number, answer)
            });
        }
        // Ticks are scaled so that no two are the same.
        for (index, op) in ops.iter_mut().enumerate() {
            let scale = |tick: Tick| tick * 10 + 5 + index as u64 % 5;
            op.answer = match op.answer {
                Answer::None => Answer::None,
                Answer::Done(tick) => Answer::Done(scale(tick)),
                Answer::Failed(tick) => Answer::Failed(scale(tick)),
            };
        }
        // Some requests applied in some order, and now and then a sector that is not as it should be.
        let mut found = vec![0; 16];
        let mut rest = ops.clone();
        while !rest.is_empty() {
            let op = rest.remove(usize::try_from(chance.below(2).min(rest.len() as u64 - 1)).unwrap());
            if chance.below(8) == 0 {
                break;
            }
            for sector in op.sectors() {
                found[sector as usize] = op.value();
            }
        }
        if chance.below(3) == 0 {
            found[usize::try_from(chance.below(16)).unwrap()] = chance.below(count + 1);
        }
        let base = if chance.below(3) == 0 { vec![99; 16] } else { vec![0; 16] };
        if base[0] == 99 {
            let untouched = |sector: u32| !ops.iter().any(|op| op.sectors().contains(&sector));
            (0..16).filter(|sector| untouched(*sector)).for_each(|sector| found[sector as usize] = 99);
        }
        let claim = Claim { base: &base, ops: &ops, found: &found, durable: chance.below(4) > 0 };
        let (judged, truth) = (judge(claim), by_trying_all(claim));
        assert_eq!(
            judged.is_ok(),
            truth,
            "seed {seed}: {ops:#?}\nbase {base:?}\nfound {found:?}\n{judged:?}"
        );
        if truth { lawful += 1 } else { unlawful += 1 }
    }
    assert!(lawful > 500 && unlawful > 500, "{lawful} lawful and {unlawful} unlawful: too few of one kind");
}

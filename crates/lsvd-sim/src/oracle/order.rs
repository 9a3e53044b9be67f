//! Is there one order that keeps a set of "comes before" facts?
//!
//! Knows units only by number. Real time is not spelt out as edges, which would be quadratic: a unit may come next
//! if no unit that is still to come was done before it was submitted.

use std::collections::BTreeSet;

use super::units::Unit;

/// Finds units that can not be ordered, as a cycle of which each must come before the next; `None` if an order exists.
///
/// `members` are the units to order, `edges` pairs of which the first must come before the second.
pub(super) fn find_cycle(units: &[Unit], members: &[bool], edges: &[(usize, usize)]) -> Option<Vec<usize>> {
    let mut waits_for = vec![0_usize; units.len()];
    let mut releases: Vec<Vec<usize>> = vec![Vec::new(); units.len()];
    for &(before, after) in edges.iter().filter(|(before, after)| members[*before] && members[*after]) {
        waits_for[after] += 1;
        releases[before].push(after);
    }
    let remaining = |unit: &usize| members[*unit];
    let mut by_done: BTreeSet<_> =
        (0..units.len()).filter(remaining).map(|unit| (units[unit].done, unit)).collect();
    let mut ready: BTreeSet<_> = (0..units.len())
        .filter(remaining)
        .filter(|unit| waits_for[*unit] == 0)
        .map(|unit| (units[unit].submit, unit))
        .collect();
    while let Some(&(submit, unit)) = ready.first() {
        let (earliest_done, _) = *by_done.first().expect("what is ready is still to come");
        if earliest_done < submit {
            break;
        }
        ready.remove(&(submit, unit));
        by_done.remove(&(units[unit].done, unit));
        for &after in &releases[unit] {
            waits_for[after] -= 1;
            if waits_for[after] == 0 {
                ready.insert((units[after].submit, after));
            }
        }
    }
    let (_, start) = *by_done.first()?;
    Some(walk_back(units, &by_done.iter().map(|(_, unit)| *unit).collect::<Vec<_>>(), edges, start))
}

/// Every unit that is left waits for another that is left: going back from one must come round.
fn walk_back(units: &[Unit], left: &[usize], edges: &[(usize, usize)], start: usize) -> Vec<usize> {
    let mut path = vec![start];
    loop {
        let unit = *path.last().expect("the path begins somewhere");
        let by_edge = edges.iter().find(|(before, after)| *after == unit && left.contains(before));
        let by_time = || left.iter().copied().find(|other| units[*other].done < units[unit].submit);
        let before = by_edge.map(|(before, _)| *before).or_else(by_time);
        let before = before.expect("what can not come next waits for something");
        if let Some(at) = path.iter().position(|seen| *seen == before) {
            let mut cycle = path.split_off(at);
            cycle.reverse();
            return cycle;
        }
        path.push(before);
    }
}

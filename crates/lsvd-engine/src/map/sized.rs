//! Vectors that hold little more than what is in them.
//!
//! Knows nothing of their elements. A vector that doubles has a third of its memory to spare on average; these have an
//! eighth at most after growing and a quarter at most after shrinking, but for a handful of elements.

use std::ops::Range;

/// Elements to spare whatever the length.
const SPARE: usize = 4;

/// Puts `new` in the place of a range. The capacity stays at or below `len_max`, if the length does.
pub(super) fn replace<T: Copy>(vec: &mut Vec<T>, range: Range<usize>, new: &[T], len_max: usize) {
    let kept = range.len().min(new.len());
    let (over, behind) = new.split_at(kept);
    vec[range.start..range.start + kept].copy_from_slice(over);
    if behind.is_empty() {
        if kept < range.len() {
            vec.drain(range.start + kept..range.end);
            release(vec);
        }
        return;
    }
    reserve(vec, behind.len(), len_max);
    for (nth, value) in behind.iter().enumerate() {
        vec.insert(range.end + nth, *value);
    }
}

/// Makes room for `more` elements.
pub(super) fn reserve<T>(vec: &mut Vec<T>, more: usize, len_max: usize) {
    let len = vec.len() + more;
    if len > vec.capacity() {
        let capacity = (len + (len / 8).max(SPARE)).min(len_max).max(len);
        vec.reserve_exact(capacity - vec.len());
    }
}

/// Gives back what has become too much.
fn release<T>(vec: &mut Vec<T>) {
    let len = vec.len();
    if len == 0 {
        *vec = Vec::new();
    } else if vec.capacity() > len + len / 4 + 2 * SPARE {
        vec.shrink_to(len + len / 8);
    }
}

/// Bytes that the vector has allocated.
pub(super) fn bytes<T>(vec: &Vec<T>) -> u64 {
    (vec.capacity() * size_of::<T>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_like_splice_and_spares_little() {
        let mut model: Vec<u32> = Vec::new();
        let mut vec = Vec::new();
        let mut next = 0u32;
        for round in 0..4000usize {
            // It grows to hundreds, then shrinks to nothing, twice.
            let growing = round % 2000 < 1200;
            let at = round * 7919 % (model.len() + 1);
            let removed = (if growing { round % 2 } else { 2 + round % 3 }).min(model.len() - at);
            let added = if growing { 1 + round % 3 } else { round % 2 };
            let new: Vec<u32> = (0..added as u32).map(|n| next + n).collect();
            next += 3;
            replace(&mut vec, at..at + removed, &new, 100_000);
            model.splice(at..at + removed, new);
            assert_eq!(vec, model);
            assert!(vec.capacity() <= vec.len() + vec.len() / 4 + 2 * SPARE, "{round}");
        }
        assert!(next > 0 && model.len() < 400, "{}", model.len());
        replace(&mut vec, 0..model.len(), &[], 100_000);
        assert_eq!(vec.capacity(), 0);
        for n in 0..100 {
            replace(&mut vec, n..n, &[1], 100);
        }
        assert_eq!(vec.capacity(), 100);
    }
}

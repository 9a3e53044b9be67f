//! What clients asked, what they were answered and when, and the bytes that tell which request wrote them.
//!
//! Invariants: 1. a tick is given once: of two events of one history one is first; 2. a request's tick is taken before its
//! first byte is sent, an answer's after it has come, so that "answered before asked" is never claimed wrongly; 3. a sector
//! that is read is zeroes, one request's, or refused.

use std::fmt;

pub(crate) const SECTOR_BYTES: u32 = 512;
/// Sectors of a block: what a write may be torn into.
pub(crate) const BLOCK_SECTORS: u32 = 8;

/// A moment of a history, from 1.
pub(crate) type Tick = u64;
/// After everything.
pub(crate) const NEVER: Tick = Tick::MAX;

/// What a sector holds: the number of the write that wrote it, 0 for zeroes.
pub(crate) type Value = u64;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Fill the sectors with what [`fill`] makes of this number.
    Write(Value),
    /// Zero the sectors.
    Zero,
    /// Zero the whole blocks among the sectors.
    Trim,
    /// What was answered before is durable when this is answered.
    Flush,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Not at all.
    None,
    /// It was answered as done.
    Done(Tick),
    /// It was answered with an error: applied by then, or never.
    Failed(Tick),
}

/// A request and its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    /// First sector.
    pub(crate) first: u32,
    /// Number of sectors.
    pub(crate) count: u32,
    /// Durable when it is answered as done.
    pub(crate) fua: bool,
    pub(crate) submit: Tick,
    pub(crate) answer: Answer,
}

impl Op {
    /// When it was answered as done, or [`NEVER`].
    pub(crate) fn done(&self) -> Tick {
        match self.answer {
            Answer::Done(tick) => tick,
            Answer::None | Answer::Failed(_) => NEVER,
        }
    }

    /// When it was answered at all, or [`NEVER`].
    pub(crate) fn answered(&self) -> Tick {
        match self.answer {
            Answer::Done(tick) | Answer::Failed(tick) => tick,
            Answer::None => NEVER,
        }
    }

    /// The sectors that it changes, from the first to the one after the last.
    pub(crate) fn sectors(&self) -> std::ops::Range<u32> {
        let end = self.first + self.count;
        match self.kind {
            Kind::Write(_) | Kind::Zero => self.first..end,
            Kind::Trim => {
                let start = self.first.next_multiple_of(BLOCK_SECTORS);
                start..(end / BLOCK_SECTORS * BLOCK_SECTORS).max(start)
            }
            Kind::Flush => 0..0,
        }
    }

    /// What it leaves in them.
    pub(crate) fn value(&self) -> Value {
        if let Kind::Write(number) = self.kind { number } else { 0 }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fua = if self.fua { " FUA" } else { "" };
        match self.kind {
            Kind::Write(number) => write!(f, "write {number}{fua}")?,
            Kind::Zero => write!(f, "zero{fua}")?,
            Kind::Trim => write!(f, "trim{fua}")?,
            Kind::Flush => write!(f, "flush")?,
        }
        if self.kind != Kind::Flush {
            write!(f, " of sectors {}..{}", self.first, self.first + self.count)?;
        }
        write!(f, ", asked at {}", self.submit)?;
        match self.answer {
            Answer::None => write!(f, ", not answered"),
            Answer::Done(tick) => write!(f, ", done at {tick}"),
            Answer::Failed(tick) => write!(f, ", failed at {tick}"),
        }
    }
}

/// The words of one sector: who wrote it, where it belongs, and filling that depends on both.
fn words(sector: u32, number: Value) -> impl Iterator<Item = u64> {
    let place = u64::from(sector) | 0x4352_4153 << 32;
    let filling = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place.rotate_left(17);
    [number, place].into_iter().chain((2..u64::from(SECTOR_BYTES) / 8).map(move |i| filling.wrapping_add(i)))
}

/// The bytes that write `number` puts into the `count` sectors from `first`.
pub(crate) fn fill(first: u32, count: u32, number: Value) -> Vec<u8> {
    (first..first + count).flat_map(|sector| words(sector, number)).flat_map(u64::to_le_bytes).collect()
}

/// The values of sectors from `first` on.
///
/// # Errors
/// If a sector is neither zeroes nor what one write put there: damaged, torn inside, or another sector's.
pub(crate) fn values(first: u32, bytes: &[u8]) -> Result<Vec<Value>, String> {
    (first..).zip(bytes.chunks(SECTOR_BYTES as usize)).map(|(sector, bytes)| value(sector, bytes)).collect()
}

fn value(sector: u32, bytes: &[u8]) -> Result<Value, String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let number = bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    let expected = words(sector, number).flat_map(u64::to_le_bytes);
    if number != 0 && expected.eq(bytes.iter().copied()) {
        return Ok(number);
    }
    let head: String = bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
    Err(format!("sector {sector} holds what nobody wrote there, or is torn: {head}…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_tells_its_write_and_nothing_else_passes() {
        let good = fill(40, 3, 7);
        assert_eq!(values(40, &good), Ok(vec![7; 3]));
        assert_eq!(values(9, &[0; SECTOR_BYTES as usize]), Ok(vec![0]));
        assert!(values(41, &good).is_err(), "another sector's");
        for at in [0, 8, 12, 200, 511] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(values(40, &bad).is_err(), "byte {at} flipped");
        }
        let mut torn = good;
        torn[256..512].copy_from_slice(&fill(40, 1, 8)[256..]);
        assert!(values(40, &torn).is_err(), "torn inside");
    }

    #[test]
    fn a_trim_rounds_inward() {
        let op =
            |first, count| Op { kind: Kind::Trim, first, count, fua: false, submit: 1, answer: Answer::None };
        assert_eq!(op(3, 20).sectors(), 8..16);
        assert_eq!(op(8, 16).sectors(), 8..24);
        assert!(op(1, 9).sectors().is_empty() && op(3, 4).sectors().is_empty());
    }
}

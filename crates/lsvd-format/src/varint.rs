//! Integers of as many bytes as they need, and a reader that takes them one after the other.
//!
//! Seven bits in each byte, the lowest first; the highest bit says that more follow. Knows no layout. Invariant: a
//! value has one encoding, the shortest; another one is damage.

use crate::DecodeError;
use crate::wire::{array, len_bytes};

/// Appends `value`.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends `to - from`, which may be negative, so that both small rises and small falls are short: a rise is doubled, a
/// fall is doubled less one.
///
/// # Panics
/// If they are 2⁶³ or more apart, which no two values of the format are.
pub(crate) fn put_step(out: &mut Vec<u8>, from: u64, to: u64) {
    let step = match to.checked_sub(from) {
        Some(rise) => rise.checked_mul(2),
        None => (from - to).checked_mul(2).map(|fall| fall - 1),
    };
    put_varint(out, step.expect("values of the format are below 2^63"));
}

/// Takes what was written from left to right. Its offsets count from the start of `bytes`.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from `at` on.
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Damage at the byte that comes next.
    pub(crate) fn corrupt(&self, reason: impl Into<String>) -> DecodeError {
        DecodeError::corrupt(len_bytes(&self.bytes[..self.at]), reason)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for (index, byte) in self.bytes[self.at..].iter().enumerate() {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for the last of 64 bits only.
            if index > 9 || (index == 9 && bits > 1) {
                return Err(self.corrupt("a number of more than 64 bits"));
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                if bits == 0 && index > 0 {
                    return Err(self.corrupt("a number that is longer than it needs to be"));
                }
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(self.corrupt("the bytes end within a number"))
    }

    /// A number that counts in 32 bits.
    pub(crate) fn varint_u32(&mut self) -> Result<u32, DecodeError> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.corrupt(format!("{value} does not fit 32 bits")))
    }

    /// `base` and the number that comes next.
    pub(crate) fn above(&mut self, base: u64) -> Result<u64, DecodeError> {
        let rise = self.varint()?;
        base.checked_add(rise).ok_or_else(|| self.corrupt(format!("{rise} above {base} is no number")))
    }

    /// `base` less the number that comes next.
    pub(crate) fn below(&mut self, base: u64) -> Result<u64, DecodeError> {
        let fall = self.varint()?;
        base.checked_sub(fall).ok_or_else(|| self.corrupt(format!("{fall} below {base} is no number")))
    }

    /// What [`put_step`] wrote from `from`.
    pub(crate) fn step(&mut self, from: u64) -> Result<u64, DecodeError> {
        let step = self.varint()?;
        let to = match step.is_multiple_of(2) {
            true => from.checked_add(step / 2),
            false => from.checked_sub(step / 2 + 1),
        };
        to.ok_or_else(|| self.corrupt(format!("a step of {step} from {from} to no number")))
    }

    /// How many entries follow, each of at least `entry_len` bytes: as many must be able to lie in the bytes that are
    /// there, before anything is allocated for them.
    pub(crate) fn count(&mut self, entry_len: usize) -> Result<usize, DecodeError> {
        let count = self.varint()?;
        let room = (self.bytes.len() - self.at) / entry_len;
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= room)
            .ok_or_else(|| self.corrupt(format!("{count} entries, which is more than the bytes can hold")))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        if self.bytes.len() - self.at < N {
            return Err(self.corrupt("the bytes end within an id"));
        }
        self.at += N;
        Ok(array(self.bytes, self.at - N))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn varint(value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        bytes
    }

    #[test]
    fn a_number_has_one_encoding() {
        for (value, bytes) in [
            (0, &[0][..]),
            (0x7f, &[0x7f]),
            (0x80, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::from(u32::MAX), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            assert_eq!(varint(value), bytes, "{value}");
            assert_eq!(Reader::new(bytes, 0).varint(), Ok(value));
        }
        for bytes in [
            &[][..],
            &[0x80],
            &[0x80, 0],
            &[0xff, 0x80, 0],
            &[0xff; 9],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
        ] {
            assert!(Reader::new(bytes, 0).varint().is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn steps_go_both_ways() {
        for (from, to, bytes) in [(7, 7, [0]), (7, 6, [1]), (7, 8, [2]), (7, 5, [3]), (0, 50, [100])] {
            let mut step = Vec::new();
            put_step(&mut step, from, to);
            assert_eq!(step, bytes, "{from} to {to}");
            assert_eq!(Reader::new(&step, 0).step(from), Ok(to));
        }
        assert!(Reader::new(&[3], 0).step(1).is_err(), "below 0");
        assert!(Reader::new(&[2], 0).step(u64::MAX).is_err(), "above 64 bits");
    }

    #[test]
    fn nothing_is_allocated_for_entries_that_can_not_be_there() {
        let bytes = [4, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Reader::new(&bytes, 0).count(2), Ok(4));
        assert!(Reader::new(&bytes, 0).count(3).is_err());
        assert!(Reader::new(&varint(u64::MAX), 0).count(1).is_err());
    }

    proptest! {
        #[test]
        fn any_number_reads_back(value: u64) {
            prop_assert_eq!(Reader::new(&varint(value), 0).varint(), Ok(value));
        }

        #[test]
        fn any_step_reads_back(from in 0..1u64 << 63, to in 0..1u64 << 63) {
            let mut bytes = Vec::new();
            put_step(&mut bytes, from, to);
            prop_assert_eq!(Reader::new(&bytes, 0).step(from), Ok(to));
        }

        #[test]
        fn what_reads_is_what_would_be_written(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes, 0);
            if let Ok(value) = reader.varint() {
                prop_assert_eq!(&varint(value)[..], &bytes[..reader.at]);
            }
        }
    }
}

//! Bytes on their way out, gathered from small heads and from data that stays where it is.
//!
//! An [`Outbox`] is a [`Buf`] whose pieces go to one vectored write. `remaining` is the sum of all segments, of which
//! none is empty.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

#[derive(Debug)]
enum Segment {
    /// A range of `heads`.
    Head {
        start: usize,
        end: usize,
    },
    Data(Bytes),
    Zeroes(usize),
}

/// A queue of bytes to send.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    heads: Vec<u8>,
    segments: VecDeque<Segment>,
    remaining: usize,
}

impl Outbox {
    /// Appends what `write` writes: a few bytes that are worth copying.
    pub(super) fn put_head(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.heads.len();
        write(&mut self.heads);
        let end = self.heads.len();
        debug_assert!(end > start);
        self.remaining += end - start;
        match self.segments.back_mut() {
            Some(Segment::Head { end: last_end, .. }) if *last_end == start => *last_end = end,
            _ => self.segments.push_back(Segment::Head { start, end }),
        }
    }

    /// Appends data without copying it.
    pub(super) fn put_data(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.remaining += data.len();
            self.segments.push_back(Segment::Data(data));
        }
    }

    /// Appends zeroes that take no memory.
    pub(super) fn put_zeroes(&mut self, length: usize) {
        if length > 0 {
            self.remaining += length;
            self.segments.push_back(Segment::Zeroes(length));
        }
    }

    fn bytes_of<'a>(&'a self, segment: &'a Segment) -> &'a [u8] {
        match segment {
            Segment::Head { start, end } => &self.heads[*start..*end],
            Segment::Data(data) => data,
            Segment::Zeroes(length) => &ZEROES[..(*length).min(ZEROES.len())],
        }
    }
}

impl Buf for Outbox {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.segments.front().map_or(&[], |segment| self.bytes_of(segment))
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for segment in &self.segments {
            if filled == slices.len() {
                break;
            }
            let bytes = self.bytes_of(segment);
            slices[filled] = IoSlice::new(bytes);
            filled += 1;
            if matches!(segment, Segment::Zeroes(length) if *length > bytes.len()) {
                // The rest of these zeroes comes before what follows them.
                break;
            }
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining, "advanced by {count} of {} bytes", self.remaining);
        self.remaining -= count;
        let mut left = count;
        while left > 0 {
            let front = self.segments.front_mut().expect("remaining is the sum of all segments");
            let (length, spent) = match front {
                Segment::Head { start, end } => {
                    let length = *end - *start;
                    *start += left.min(length);
                    (length, left >= length)
                }
                Segment::Data(data) => {
                    let length = data.len();
                    data.advance(left.min(length));
                    (length, left >= length)
                }
                Segment::Zeroes(zeroes) => {
                    let length = *zeroes;
                    *zeroes -= left.min(length);
                    (length, left >= length)
                }
            };
            left -= left.min(length);
            if spent {
                self.segments.pop_front();
            }
        }
        if self.remaining == 0 {
            self.heads.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Put {
        Head(u8, usize),
        Data(u8, usize),
        Zeroes(usize),
    }

    fn puts() -> impl Strategy<Value = Vec<Put>> {
        let put = prop_oneof![
            (any::<u8>(), 1..40_usize).prop_map(|(byte, length)| Put::Head(byte, length)),
            (any::<u8>(), 0..5000_usize).prop_map(|(byte, length)| Put::Data(byte, length)),
            (0..200_000_usize).prop_map(Put::Zeroes),
        ];
        prop::collection::vec(put, 0..20)
    }

    proptest! {
        /// Whatever the writes take, the bytes come out as they were put in.
        #[test]
        fn what_goes_in_comes_out(puts in puts(), steps in prop::collection::vec(1..70_000_usize, 1..10)) {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for put in &puts {
                match *put {
                    Put::Head(byte, length) => {
                        outbox.put_head(|head| head.resize(head.len() + length, byte));
                        expected.resize(expected.len() + length, byte);
                    }
                    Put::Data(byte, length) => {
                        outbox.put_data(vec![byte; length].into());
                        expected.resize(expected.len() + length, byte);
                    }
                    Put::Zeroes(length) => {
                        outbox.put_zeroes(length);
                        expected.resize(expected.len() + length, 0);
                    }
                }
            }
            let mut sent = Vec::new();
            for step in steps.iter().cycle() {
                prop_assert_eq!(outbox.remaining(), expected.len() - sent.len());
                if !outbox.has_remaining() {
                    break;
                }
                prop_assert!(!outbox.chunk().is_empty());
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = outbox.chunks_vectored(&mut slices);
                prop_assert!(filled > 0);
                let gathered: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
                let count = gathered.len().min(*step);
                sent.extend_from_slice(&gathered[..count]);
                outbox.advance(count);
            }
            prop_assert!(sent == expected);
            prop_assert!(outbox.heads.is_empty() && outbox.segments.is_empty());
        }
    }

    #[test]
    fn neighbouring_heads_are_one_slice() {
        let mut outbox = Outbox::default();
        for _ in 0..10 {
            outbox.put_head(|head| head.extend_from_slice(b"reply"));
        }
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(outbox.chunks_vectored(&mut slices), 1);
    }
}

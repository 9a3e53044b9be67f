//! Answers → bytes: simple replies, and chunks of structured ones.
//!
//! 1. A structured reply's last chunk, and only that, is marked as done.
//! 2. Nothing is marked as successful that can still fail: answers are complete when they come here.

use bytes::BufMut;

use super::{Outbox, Session};
use crate::context::ContextExtent;
use crate::export::{ExportError, ExportErrorKind, ExtentStatus, ReadPiece};

/// Most extents of one context in an answer to BLOCK_STATUS: 256 KiB of reply. The client asks on from where it ends.
pub(crate) const BLOCK_STATUS_EXTENTS_MAX: usize = 32 << 10;

/// Messages are cut to this many bytes; the protocol would take 4,096.
const MESSAGE_BYTES_MAX: usize = 1024;

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668E_33EF;
const DONE: u16 = 1 << 0;

const CHUNK_NONE: u16 = 0;
const CHUNK_OFFSET_DATA: u16 = 1;
const CHUNK_OFFSET_HOLE: u16 = 2;
const CHUNK_BLOCK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = (1 << 15) | 1;

const STATE_HOLE: u32 = 1 << 0;
const STATE_ZERO: u32 = 1 << 1;

/// The protocol's errors, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Errno {
    Permission = 1,
    Io = 5,
    NoMemory = 12,
    Invalid = 22,
    NoSpace = 28,
    Overflow = 75,
    NotSupported = 95,
    Shutdown = 108,
}

/// What a request comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is done and has nothing to say.
    Done,
    /// It failed.
    Error { errno: Errno, message: String },
    /// What was read at `offset_bytes`. Parts of one read but the last are marked so.
    Read { offset_bytes: u64, pieces: Vec<ReadPiece>, last: bool, unfragmented: bool },
    /// What each selected context says: of each at least one extent, of which none but the last reaches `length_bytes`.
    BlockStatus { told: Vec<Told>, length_bytes: u32, one_extent: bool },
}

/// What a context says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// The context's number.
    pub(crate) context_id: u32,
    pub(crate) extents: Vec<ContextExtent>,
}

/// What `base:allocation` says.
pub(crate) fn allocation(extent: &ExtentStatus) -> ContextExtent {
    let flags = if extent.hole { STATE_HOLE } else { 0 } | if extent.zero { STATE_ZERO } else { 0 };
    ContextExtent { length_bytes: extent.length_bytes, flags }
}

impl Answer {
    /// An export's error. The protocol reserves two numbers: EOVERFLOW is for reads (`reading`), ENOTSUP for fast
    /// zeroes (`fast_zero`).
    pub(crate) fn failed(error: ExportError, reading: bool, fast_zero: bool) -> Self {
        let errno = match error.kind {
            ExportErrorKind::Permission => Errno::Permission,
            ExportErrorKind::Io => Errno::Io,
            ExportErrorKind::NoMemory => Errno::NoMemory,
            ExportErrorKind::NoSpace => Errno::NoSpace,
            ExportErrorKind::Shutdown => Errno::Shutdown,
            ExportErrorKind::Overflow if reading => Errno::Overflow,
            ExportErrorKind::NotSupported if fast_zero => Errno::NotSupported,
            ExportErrorKind::Invalid | ExportErrorKind::Overflow | ExportErrorKind::NotSupported => {
                Errno::Invalid
            }
        };
        Self::Error { errno, message: error.message }
    }
}

/// Appends the reply to the request with `cookie`.
pub(crate) fn put_answer(outbox: &mut Outbox, session: &Session, cookie: u64, answer: Answer) {
    match answer {
        Answer::Done => put_simple(outbox, cookie, 0),
        Answer::Error { errno, message } if session.structured => put_error(outbox, cookie, errno, &message),
        Answer::Error { errno, .. } => put_simple(outbox, cookie, errno as u32),
        Answer::Read { offset_bytes, pieces, last, unfragmented } => {
            if !session.structured {
                debug_assert!(last, "a simple reply has one part");
                put_simple(outbox, cookie, 0);
                put_content(outbox, pieces);
            } else if unfragmented && pieces.iter().any(|piece| matches!(piece, ReadPiece::Data(_))) {
                put_data_chunk(outbox, cookie, offset_bytes, pieces, last);
            } else {
                put_chunks(outbox, cookie, offset_bytes, pieces, last);
            }
        }
        Answer::BlockStatus { told, length_bytes, one_extent } => {
            debug_assert_eq!(told.len(), session.selected());
            for (place, told_of) in told.iter().enumerate() {
                let last = place + 1 == told.len();
                put_block_status(outbox, cookie, told_of, length_bytes, one_extent, last);
            }
        }
    }
}

fn put_simple(outbox: &mut Outbox, cookie: u64, error: u32) {
    outbox.put_head(|head| {
        head.put_u32(SIMPLE_MAGIC);
        head.put_u32(error);
        head.put_u64(cookie);
    });
}

fn put_chunk_head(head: &mut Vec<u8>, kind: u16, last: bool, cookie: u64, length: usize) {
    head.put_u32(STRUCTURED_MAGIC);
    head.put_u16(if last { DONE } else { 0 });
    head.put_u16(kind);
    head.put_u64(cookie);
    head.put_u32(u32::try_from(length).expect("a chunk is at most a payload and a few bytes"));
}

fn put_error(outbox: &mut Outbox, cookie: u64, errno: Errno, message: &str) {
    let message = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)];
    let length = u16::try_from(message.len()).expect("the message was cut");
    outbox.put_head(|head| {
        put_chunk_head(head, CHUNK_ERROR, true, cookie, 6 + message.len());
        head.put_u32(errno as u32);
        head.put_u16(length);
        head.put_slice(message.as_bytes());
    });
}

/// One chunk for each run of data and each run of holes: as few as the content allows.
fn put_chunks(outbox: &mut Outbox, cookie: u64, mut offset_bytes: u64, pieces: Vec<ReadPiece>, last: bool) {
    let mut pieces = pieces.into_iter().filter(|piece| piece.length_bytes() > 0).peekable();
    if pieces.peek().is_none() && last {
        outbox.put_head(|head| put_chunk_head(head, CHUNK_NONE, true, cookie, 0));
    }
    while let Some(first) = pieces.next() {
        let is_hole = matches!(first, ReadPiece::Hole(_));
        let mut length_bytes = first.length_bytes();
        let mut run = vec![first];
        while let Some(next) = pieces.next_if(|piece| matches!(piece, ReadPiece::Hole(_)) == is_hole) {
            length_bytes += next.length_bytes();
            run.push(next);
        }
        let last = last && pieces.peek().is_none();
        if is_hole {
            outbox.put_head(|head| {
                put_chunk_head(head, CHUNK_OFFSET_HOLE, last, cookie, 12);
                head.put_u64(offset_bytes);
                head.put_u32(u32::try_from(length_bytes).expect("a read's length has 32 bits"));
            });
        } else {
            put_data_chunk(outbox, cookie, offset_bytes, run, last);
        }
        offset_bytes += length_bytes;
    }
}

/// One chunk for all of it, with its zeroes spelt out.
fn put_data_chunk(outbox: &mut Outbox, cookie: u64, offset_bytes: u64, pieces: Vec<ReadPiece>, last: bool) {
    let length_bytes: u64 = pieces.iter().map(ReadPiece::length_bytes).sum();
    let length = 8 + usize::try_from(length_bytes).expect("a payload fits into memory");
    outbox.put_head(|head| {
        put_chunk_head(head, CHUNK_OFFSET_DATA, last, cookie, length);
        head.put_u64(offset_bytes);
    });
    put_content(outbox, pieces);
}

fn put_content(outbox: &mut Outbox, pieces: Vec<ReadPiece>) {
    for piece in pieces {
        match piece {
            ReadPiece::Data(data) => outbox.put_data(data),
            ReadPiece::Hole(length) => {
                outbox.put_zeroes(usize::try_from(length).expect("a payload fits into memory"));
            }
        }
    }
}

fn put_block_status(
    outbox: &mut Outbox,
    cookie: u64,
    told: &Told,
    length_bytes: u32,
    one_extent: bool,
    last: bool,
) {
    let descriptors_max = if one_extent { 1 } else { BLOCK_STATUS_EXTENTS_MAX };
    let mut descriptors: Vec<(u32, u32)> = Vec::new();
    let mut left = length_bytes;
    for extent in &told.extents {
        // Beyond the end of the request nothing is told: every descriptor fits 32 bits.
        let length = u32::try_from(extent.length_bytes).unwrap_or(u32::MAX).min(left);
        if length == 0 {
            continue;
        }
        match descriptors.last_mut() {
            Some((last_length, flags)) if *flags == extent.flags => *last_length += length,
            _ => {
                if descriptors.len() == descriptors_max {
                    break;
                }
                descriptors.push((length, extent.flags));
            }
        }
        left -= length;
    }
    debug_assert!(!descriptors.is_empty(), "the protocol has no empty answer");
    outbox.put_head(|head| {
        put_chunk_head(head, CHUNK_BLOCK_STATUS, last, cookie, 4 + 8 * descriptors.len());
        head.put_u32(told.context_id);
        for (length, flags) in descriptors {
            head.put_u32(length);
            head.put_u32(flags);
        }
    });
}

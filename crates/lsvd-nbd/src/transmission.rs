//! From the chosen export to the end: requests and replies as bytes, and the gate between them.
//!
//! It knows no sockets, no tasks and no time. A request's head is decoded by [`request`], judged once by [`gate`], and
//! what comes of it is laid out by [`reply`] into an [`outbox`].
//!
//! 1. Where the next request begins depends on the head alone ([`RequestHead::payload_bytes`]), never on the verdict.
//! 2. What the gate lets through needs no further checks: behind it there are only assertions.
//! 3. Read data is never copied: an [`Outbox`] points to it.

mod gate;
mod outbox;
mod reply;
mod request;
#[cfg(test)]
mod tests;

pub(crate) use self::gate::{Command, Denial, admit};
pub(crate) use self::outbox::Outbox;
pub(crate) use self::reply::{Answer, BLOCK_STATUS_EXTENTS_MAX, Errno, Told, allocation, put_answer};
pub(crate) use self::request::{REQUEST_HEAD_BYTES, RequestHead};

/// What client and server agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) size_bytes: u64,
    pub(crate) read_only: bool,
    pub(crate) can_multi_conn: bool,
    pub(crate) can_trim: bool,
    pub(crate) fast_zero: bool,
    /// Structured replies.
    pub(crate) structured: bool,
    /// `base:allocation` was selected.
    pub(crate) base_allocation: bool,
    /// So many other contexts were selected.
    pub(crate) contexts: usize,
    pub(crate) payload_bytes_max: u32,
}

impl Session {
    /// The transmission flags that tell all this to the client.
    pub(crate) fn flags(&self) -> u16 {
        const HAS_FLAGS: u16 = 1 << 0;
        const READ_ONLY: u16 = 1 << 1;
        const SEND_FLUSH: u16 = 1 << 2;
        const SEND_FUA: u16 = 1 << 3;
        const SEND_TRIM: u16 = 1 << 5;
        const SEND_WRITE_ZEROES: u16 = 1 << 6;
        const SEND_DF: u16 = 1 << 7;
        const CAN_MULTI_CONN: u16 = 1 << 8;
        const SEND_CACHE: u16 = 1 << 10;
        const SEND_FAST_ZERO: u16 = 1 << 11;

        let told = [
            (true, HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_CACHE),
            (self.read_only, READ_ONLY),
            (self.offers_trim(), SEND_TRIM),
            (!self.read_only, SEND_WRITE_ZEROES),
            (self.structured, SEND_DF),
            (self.can_multi_conn, CAN_MULTI_CONN),
            (self.offers_fast_zero(), SEND_FAST_ZERO),
        ];
        told.iter().filter(|(holds, _)| *holds).fold(0, |flags, (_, flag)| flags | flag)
    }

    /// Contexts of which BLOCK_STATUS tells.
    pub(crate) fn selected(&self) -> usize {
        usize::from(self.base_allocation) + self.contexts
    }

    fn offers_trim(&self) -> bool {
        self.can_trim && !self.read_only
    }

    fn offers_fast_zero(&self) -> bool {
        self.fast_zero && !self.read_only
    }
}

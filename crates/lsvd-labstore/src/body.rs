//! The body of an answer: bytes, at the pace of the line, whole or cut off.
//!
//! Knows no objects and no faults. Invariants: its length is always told in full; one that is cut ends with an error
//! after what was sent has left, so that the client sees a beginning and no end.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep, sleep_until};

use crate::line::{LineState, PIECE_BYTES};
use crate::stats::Tally;

/// What is written before a body breaks off gets this long to leave.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// The connection is to end without an answer, or in the midst of one.
#[derive(Debug)]
pub(crate) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is cut on purpose, or the client left")
    }
}

impl std::error::Error for Cut {}

/// An answer's body.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    rest: Bytes,
    /// How much of the rest is sent before the connection is cut.
    until_cut: Option<usize>,
    /// The next piece, while it waits for its turn; `None` in it: the cut.
    waiting: Option<(Pin<Box<Sleep>>, Option<Bytes>)>,
    line: Option<Arc<LineState>>,
    tally: Option<Tally>,
}

impl Answer {
    /// A body outside of line and counters.
    pub(crate) fn plain(bytes: impl Into<Bytes>) -> Self {
        Answer { rest: bytes.into(), ..Answer::default() }
    }

    /// A body that goes down the line; `tally` is settled when it has gone.
    pub(crate) fn down(bytes: Bytes, line: &Arc<LineState>, tally: Tally) -> Self {
        Answer { rest: bytes, line: Some(Arc::clone(line)), tally: Some(tally), ..Answer::default() }
    }

    /// The same, cut off after half of it.
    pub(crate) fn cut(self) -> Self {
        Answer { until_cut: Some(self.rest.len() / 2), ..self }
    }

    fn next_piece(&mut self) -> Bytes {
        let limited = self.line.as_ref().is_some_and(|line| line.down.is_limited());
        let mut bytes = if limited { self.rest.len().min(PIECE_BYTES) } else { self.rest.len() };
        if let Some(until_cut) = &mut self.until_cut {
            bytes = bytes.min(*until_cut);
            *until_cut -= bytes;
        }
        if let Some(tally) = &mut self.tally {
            tally.bytes_out += bytes as u64;
        }
        self.rest.split_to(bytes)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        loop {
            if let Some((sleep, _)) = &mut this.waiting {
                ready!(sleep.as_mut().poll(context));
                return Poll::Ready(match this.waiting.take().and_then(|(_, piece)| piece) {
                    Some(piece) => Some(Ok(Frame::data(piece))),
                    None => {
                        this.tally = None;
                        Some(Err(Cut))
                    }
                });
            }
            if this.until_cut == Some(0) {
                this.waiting = Some((Box::pin(sleep(LAST_WORDS)), None));
                continue;
            }
            if this.rest.is_empty() {
                this.tally = None;
                return Poll::Ready(None);
            }
            let piece = this.next_piece();
            match this.line.as_ref().and_then(|line| line.down.passes_at(piece.len())) {
                Some(at) => this.waiting = Some((Box::pin(sleep_until(at)), Some(piece))),
                None => return Poll::Ready(Some(Ok(Frame::data(piece)))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.waiting.is_none() && self.until_cut.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let waiting = self.waiting.as_ref().and_then(|(_, piece)| piece.as_ref()).map_or(0, Bytes::len);
        SizeHint::with_exact((self.rest.len() + waiting) as u64)
    }
}

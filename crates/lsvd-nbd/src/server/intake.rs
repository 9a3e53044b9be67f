//! The receiving half of a connection: heads out of a buffer, payloads straight into their place.
//!
//! 1. A payload's memory is exactly its length, and the caller has paid for it before.
//! 2. A client that stalls in the middle of a message is an error; one that is idle between messages is not.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::transmission::{REQUEST_HEAD_BYTES, RequestHead};

/// Bytes asked of the socket at once.
pub(super) const BUFFER_BYTES: usize = 64 << 10;

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum IntakeError {
    /// The client vanished; in the middle of a message if it says so.
    #[error("the client is gone: {0}")]
    Gone(#[from] io::Error),
    /// The client holds a place and does nothing.
    #[error("the client stalled in the middle of a message")]
    Stalled,
    /// The client does not speak the protocol.
    #[error("{0}")]
    Garbage(String),
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct Intake<R> {
    reader: R,
    buffer: BytesMut,
    stall_timeout: Duration,
}

impl<R: AsyncRead + Unpin> Intake<R> {
    /// `buffer` holds what was received already.
    pub(super) fn new(reader: R, buffer: BytesMut, stall_timeout: Duration) -> Self {
        Self { reader, buffer, stall_timeout }
    }

    /// The next request's head if it was received.
    pub(super) fn take_head(&mut self) -> Result<Option<RequestHead>, IntakeError> {
        let Some(bytes) = self.buffer.first_chunk::<REQUEST_HEAD_BYTES>() else {
            return Ok(None);
        };
        let head = RequestHead::decode(bytes).map_err(|error| IntakeError::Garbage(error.to_string()))?;
        self.buffer.advance(REQUEST_HEAD_BYTES);
        Ok(Some(head))
    }

    /// Receives some more towards the next head; false at the end. Cancel-safe.
    pub(super) async fn fill(&mut self) -> Result<bool, IntakeError> {
        let within = (!self.buffer.is_empty()).then_some(self.stall_timeout);
        self.buffer.reserve(BUFFER_BYTES);
        let received = match within {
            None => self.reader.read_buf(&mut self.buffer).await?,
            Some(within) => timeout(within, self.reader.read_buf(&mut self.buffer))
                .await
                .map_err(|_| IntakeError::Stalled)??,
        };
        if received == 0 && !self.buffer.is_empty() {
            return Err(cut_off());
        }
        Ok(received > 0)
    }

    /// Receives a payload of `length` bytes.
    pub(super) async fn payload(&mut self, length: u32) -> Result<Bytes, IntakeError> {
        let length = length as usize;
        let mut payload = BytesMut::with_capacity(length);
        let buffered = self.buffer.len().min(length);
        payload.extend_from_slice(&self.buffer[..buffered]);
        self.buffer.advance(buffered);
        while payload.len() < length {
            let missing = length - payload.len();
            let mut rest = (&mut payload).limit(missing);
            let received = timeout(self.stall_timeout, self.reader.read_buf(&mut rest))
                .await
                .map_err(|_| IntakeError::Stalled)??;
            if received == 0 {
                return Err(cut_off());
            }
        }
        Ok(payload.freeze())
    }

    /// Receives `length` bytes and forgets them.
    pub(super) async fn discard(&mut self, length: u32) -> Result<(), IntakeError> {
        let mut left = length as usize;
        loop {
            let buffered = self.buffer.len().min(left);
            self.buffer.advance(buffered);
            left -= buffered;
            if left == 0 {
                return Ok(());
            }
            self.buffer.reserve(BUFFER_BYTES);
            let received = timeout(self.stall_timeout, self.reader.read_buf(&mut self.buffer))
                .await
                .map_err(|_| IntakeError::Stalled)??;
            if received == 0 {
                return Err(cut_off());
            }
        }
    }
}

fn cut_off() -> IntakeError {
    IntakeError::Gone(io::Error::new(io::ErrorKind::UnexpectedEof, "it left in the middle of a message"))
}

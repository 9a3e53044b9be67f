//! Lines of a stream, none longer than is allowed.
//!
//! Knows bytes. Invariant: a read that is given up loses nothing, and memory is bounded by the longest line allowed.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes asked for at once.
const READ_BYTES: usize = 8 << 10;

/// Why there is no line.
#[derive(Debug)]
pub(crate) enum LineError {
    /// The stream ended; what came of a last line is not taken for one.
    Ended,
    /// The line is longer than allowed, and what follows it can not be found.
    TooLong,
    /// The stream broke.
    Broken(io::Error),
}

/// Takes a stream apart.
pub(crate) struct Lines<R> {
    stream: R,
    buffer: Vec<u8>,
    /// This far the buffer holds no line end.
    searched: usize,
    line_bytes_max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(stream: R, line_bytes_max: usize) -> Self {
        Self { stream, buffer: Vec::new(), searched: 0, line_bytes_max }
    }

    /// The next line without its end, and without white space around it. Cancel-safe.
    ///
    /// # Errors
    /// [`LineError`]: there is no other line.
    pub(crate) async fn next(&mut self) -> Result<Vec<u8>, LineError> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                return match line.len() - 1 > self.line_bytes_max {
                    true => Err(LineError::TooLong),
                    false => Ok(line.trim_ascii().to_vec()),
                };
            }
            self.searched = self.buffer.len();
            if self.searched > self.line_bytes_max {
                return Err(LineError::TooLong);
            }
            self.buffer.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(LineError::Ended),
                Ok(_) => {}
                Err(error) => return Err(LineError::Broken(error)),
            }
        }
    }
}

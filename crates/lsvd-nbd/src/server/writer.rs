//! The sending half of a connection: replies as they complete, as many as there are in one write.
//!
//! The queue has no bound of its own: every reply in it holds its request's place, of which there are few.

use std::io;
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::requests::Reply;
use crate::transmission::{Outbox, Session, put_answer};

/// Replies taken from the queue at once.
const GATHER_MAX: usize = 64;

/// Bytes gathered for one write; enough that a system call more does not matter.
const GATHER_BYTES: usize = 256 << 10;

/// Sends replies until all senders are gone, then closes this direction.
///
/// # Errors
/// The client can no longer be written to, or leaves its replies unread; nothing more will be sent.
pub(super) async fn send_replies(
    mut replies: UnboundedReceiver<Reply>,
    mut writer: impl AsyncWrite + Unpin,
    session: &Session,
    stall_timeout: Duration,
) -> io::Result<()> {
    let mut gathered = Vec::with_capacity(GATHER_MAX);
    let mut held = Vec::with_capacity(GATHER_MAX);
    let mut outbox = Outbox::default();
    while replies.recv_many(&mut gathered, GATHER_MAX).await > 0 {
        for Reply { cookie, answer, places } in gathered.drain(..) {
            put_answer(&mut outbox, session, cookie, answer);
            held.push(places);
            if outbox.remaining() >= GATHER_BYTES {
                send(&mut outbox, &mut writer, stall_timeout).await?;
                // Only now do these requests make room for others: their data was in memory until here.
                held.clear();
            }
        }
        send(&mut outbox, &mut writer, stall_timeout).await?;
        held.clear();
    }
    writer.shutdown().await
}

async fn send(
    outbox: &mut Outbox,
    writer: &mut (impl AsyncWrite + Unpin),
    stall_timeout: Duration,
) -> io::Result<()> {
    while outbox.has_remaining() {
        match timeout(stall_timeout, writer.write_buf(outbox)).await {
            Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the client leaves its replies unread"));
            }
        }
    }
    Ok(())
}

//! Requests at work: each in its own task, answered exactly once.
//!
//! 1. A [`Pending`] that is dropped without an answer (its task panicked) answers EIO.
//! 2. What an export returns is checked before it is believed: a wrong length is EIO, not a broken stream.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use super::budget::{Budget, PayloadShare, RequestPlace};
use crate::context::{ContextExtent, MetaContext};
use crate::export::{Export, ExportError, ExportErrorKind, ExtentStatus, ReadPiece};
use crate::handshake::{BASE_ALLOCATION_ID, context_id};
use crate::transmission::{Answer, BLOCK_STATUS_EXTENTS_MAX, Command, Errno, Told, allocation};

/// An answer on its way to the client.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) cookie: u64,
    pub(super) answer: Answer,
    /// Held until the reply is sent.
    pub(super) places: Places,
}

/// What a reply still holds.
#[derive(Debug, Default)]
pub(super) struct Places {
    _request: Option<RequestPlace>,
    _payload: Option<PayloadShare>,
}

/// A request that awaits its answer.
#[derive(Debug)]
pub(super) struct Pending {
    cookie: u64,
    replies: UnboundedSender<Reply>,
    request: Option<RequestPlace>,
    payload: Option<PayloadShare>,
}

impl Pending {
    pub(super) fn new(
        cookie: u64,
        replies: UnboundedSender<Reply>,
        request: RequestPlace,
        payload: Option<PayloadShare>,
    ) -> Self {
        Self { cookie, replies, request: Some(request), payload }
    }

    pub(super) fn answer(mut self, answer: Answer) {
        self.send_last(answer);
    }

    /// Sends one part of an answer, and with it the share of memory that it takes.
    fn send_part(&mut self, answer: Answer) {
        let places = Places { _request: None, _payload: self.payload.take() };
        self.send(answer, places);
    }

    fn send_last(&mut self, answer: Answer) {
        let places = Places { _request: self.request.take(), _payload: self.payload.take() };
        self.send(answer, places);
    }

    fn send(&self, answer: Answer, places: Places) {
        // Nobody listens any more if the client is gone: then nobody needs the answer.
        let _ = self.replies.send(Reply { cookie: self.cookie, answer, places });
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.request.is_some() {
            let message = "the request ended by a bug of the server".to_owned();
            self.send_last(Answer::Error { errno: Errno::Io, message });
        }
    }
}

/// The contexts that a connection has selected.
#[derive(Clone, Debug, Default)]
pub(super) struct Selected {
    pub(super) base_allocation: bool,
    /// In the order of their numbers.
    pub(super) contexts: Arc<[Arc<dyn MetaContext>]>,
}

/// Bytes of memory that a command takes at once, requests and replies together.
pub(super) fn payload_bytes(command: &Command, selected: usize, payload_bytes_max: u32) -> u32 {
    match *command {
        // A longer read is sent in parts.
        Command::Read { length_bytes, .. } => length_bytes.min(payload_bytes_max),
        Command::Write { length_bytes, .. } => length_bytes,
        Command::BlockStatus { one_extent: false, length_bytes, .. } => {
            // An extent is at least a sector in all that is real; the reply is 8 bytes for each.
            let extents = usize::try_from(length_bytes / 512 + 1)
                .map_or(BLOCK_STATUS_EXTENTS_MAX, |extents| extents.min(BLOCK_STATUS_EXTENTS_MAX));
            u32::try_from(extents * 8 * selected).expect("1 MiB at most")
        }
        _ => 0,
    }
}

/// Runs one command to its end. `data` is a write's.
pub(super) async fn run<E: Export>(
    (export, selected): (Arc<E>, Selected),
    command: Command,
    data: Bytes,
    pending: Pending,
    budget: Budget,
    payload_bytes_max: u32,
) {
    let fast_zero = matches!(command, Command::WriteZeroes { flags, .. } if flags.fast);
    let done = |result: Result<(), ExportError>| match result {
        Ok(()) => Answer::Done,
        Err(error) => Answer::failed(error, false, fast_zero),
    };
    let answer = match command {
        Command::Read { offset_bytes, length_bytes, unfragmented } => {
            read(&*export, offset_bytes, length_bytes, unfragmented, pending, budget, payload_bytes_max)
                .await;
            return;
        }
        // Nothing to do is done, and no export need think about it.
        Command::Write { length_bytes: 0, .. }
        | Command::Trim { length_bytes: 0, .. }
        | Command::Cache { length_bytes: 0, .. }
        | Command::WriteZeroes { length_bytes: 0, .. } => Answer::Done,
        Command::Write { offset_bytes, length_bytes, fua } => {
            assert_eq!(data.len(), length_bytes as usize, "a write comes with its data");
            done(export.write(offset_bytes, data, fua).await)
        }
        Command::Flush => done(export.flush().await),
        Command::Trim { offset_bytes, length_bytes, fua } => {
            done(export.trim(offset_bytes, length_bytes.into(), fua).await)
        }
        Command::Cache { offset_bytes, length_bytes } => {
            done(export.cache(offset_bytes, length_bytes.into()).await)
        }
        Command::WriteZeroes { offset_bytes, length_bytes, flags } => {
            done(export.write_zeroes(offset_bytes, length_bytes.into(), flags).await)
        }
        Command::BlockStatus { offset_bytes, length_bytes, one_extent } => {
            match block_status(&*export, &selected, offset_bytes, length_bytes).await {
                Ok(told) => Answer::BlockStatus { told, length_bytes, one_extent },
                Err(error) => Answer::failed(error, false, false),
            }
        }
        Command::Disconnect => unreachable!("the connection's reader ends on it"),
    };
    pending.answer(answer);
}

/// What each selected context says of a range.
async fn block_status<E: Export>(
    export: &E,
    selected: &Selected,
    offset_bytes: u64,
    length_bytes: u32,
) -> Result<Vec<Told>, ExportError> {
    let mut told = Vec::new();
    if selected.base_allocation {
        let mut extents = export.block_status(offset_bytes, length_bytes.into()).await?;
        if extents.iter().all(|extent| extent.length_bytes == 0) {
            // "Allocated, not known to be zero" is always true.
            extents = vec![ExtentStatus { length_bytes: length_bytes.into(), hole: false, zero: false }];
        }
        let extents = extents.iter().map(allocation).collect();
        told.push(Told { context_id: BASE_ALLOCATION_ID, extents });
    }
    for (place, context) in selected.contexts.iter().enumerate() {
        let extents: Vec<ContextExtent> = context.status(offset_bytes, length_bytes.into()).await?;
        if extents.iter().all(|extent| extent.length_bytes == 0) {
            let message = format!("the context {} said nothing", context.name());
            return Err(ExportError::new(ExportErrorKind::Io, message));
        }
        told.push(Told { context_id: context_id(place), extents });
    }
    Ok(told)
}

/// Reads in parts of the payload limit, each sent before the next one takes memory.
async fn read<E: Export>(
    export: &E,
    mut offset_bytes: u64,
    mut length_bytes: u32,
    unfragmented: bool,
    mut pending: Pending,
    budget: Budget,
    payload_bytes_max: u32,
) {
    if length_bytes == 0 {
        pending.answer(Answer::Read { offset_bytes, pieces: Vec::new(), last: true, unfragmented });
        return;
    }
    loop {
        let part_bytes = length_bytes.min(payload_bytes_max);
        let pieces = match export.read(offset_bytes, part_bytes).await {
            Ok(pieces) => pieces,
            Err(error) => return pending.answer(Answer::failed(error, true, false)),
        };
        let told_bytes = pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.length_bytes()));
        if told_bytes != Some(part_bytes.into()) {
            return pending.answer(wrong_length(part_bytes, &pieces));
        }
        length_bytes -= part_bytes;
        let answer = Answer::Read { offset_bytes, pieces, last: length_bytes == 0, unfragmented };
        if length_bytes == 0 {
            return pending.answer(answer);
        }
        pending.send_part(answer);
        offset_bytes += u64::from(part_bytes);
        pending.payload = budget.payload(length_bytes.min(payload_bytes_max)).await;
    }
}

fn wrong_length(asked_bytes: u32, pieces: &[ReadPiece]) -> Answer {
    tracing::error!(asked_bytes, pieces = pieces.len(), "an export returned a read of another length");
    Answer::Error {
        errno: Errno::Io,
        message: "the export returned another length than was asked for".to_owned(),
    }
}

//! One client, from its first byte to its last.
//!
//! A reader takes requests one after the other and starts a task for each; a writer sends what they come to. The reader
//! waits when too much is in flight, so a client is slowed by not being read.
//!
//! 1. The connection ends when the reader has ended and every started request is answered, or when the client can not
//!    be written to. Requests that run then still run to their end.
//! 2. While shutting down, or when the export is retired, requests are read and refused until none is in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::budget::Budget;
use super::intake::{BUFFER_BYTES, Intake, IntakeError};
use super::requests::{self, Pending, Reply, Selected};
use super::writer::send_replies;
use super::{Held, Shared};
use crate::context::MetaContext;
use crate::export::Export;
use crate::handshake::{Catalog, Handshake, Step};
use crate::limits::Limits;
use crate::transmission::{Answer, Command, Denial, Errno, RequestHead, Session, admit};

/// A refused write's data is read to its end up to this length; beyond, the connection is closed. The protocol asks not
/// to take up to 32 MiB for an attack; this is twice the largest payload there is.
const DISCARD_BYTES_MAX: u32 = 128 << 20;

/// A client that still negotiates at shutdown may ask once more within this time, to be told.
const HAGGLING_AT_SHUTDOWN: Duration = Duration::from_secs(1);

/// Serves one client to its end.
pub(super) async fn serve<E, R, W>(
    shared: Arc<Shared<E>>,
    mut reader: R,
    mut writer: W,
    mut draining: watch::Receiver<bool>,
) where
    E: Export,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut input = BytesMut::with_capacity(BUFFER_BYTES);
    let (catalog, mut held) = shared.catalog();
    let deadline = Instant::now() + shared.limits.handshake_timeout;
    let negotiated = timeout_at(
        deadline,
        negotiate((catalog, &held), &mut reader, &mut writer, &mut input, &mut draining),
    )
    .await;
    let Chosen { export, session, contexts } = match negotiated {
        Ok(Ok(chosen)) => chosen,
        Ok(Err(why)) => {
            tracing::debug!("no export was chosen: {why}");
            return;
        }
        Err(_) => {
            let timeout_s = shared.limits.handshake_timeout.as_secs_f64();
            tracing::info!(timeout_s, "closed: the client did not choose an export in time");
            return;
        }
    };
    let hosted = &shared.exports[export];
    let _counted = Counted::new(&hosted.clients);
    let Held { export, retired } = held.swap_remove(export);
    tracing::info!(export = %hosted.name, read_only = session.read_only, "connected");

    let (replies, queue) = mpsc::unbounded_channel();
    let limits = &shared.limits;
    let mut connection = Connection {
        export,
        intake: Intake::new(reader, input, limits.stall_timeout),
        budget: Budget::new(limits, shared.payload_bytes.clone()),
        selected: Selected { base_allocation: session.base_allocation, contexts: contexts.into() },
        session,
        replies,
        requests_seen: 0,
        draining,
        retired,
    };
    // A set, because it takes its task along when this connection is dropped.
    let mut sending = JoinSet::new();
    let (session, stall_timeout) = (connection.session.clone(), limits.stall_timeout);
    sending.spawn(async move { send_replies(queue, writer, &session, stall_timeout).await });

    let ending = tokio::select! {
        ending = connection.read_requests(limits) => Some(ending),
        sent = sending.join_next() => {
            note_sending(sent);
            None
        }
    };
    let requests = connection.requests_seen;
    // The writer ends when the last request in flight has let go of its end of the queue.
    drop(connection);
    if let Some(ending) = ending {
        note_sending(sending.join_next().await);
        match ending {
            Ok(()) => {}
            Err(error @ IntakeError::Gone(_)) => tracing::info!("{error}"),
            Err(error) => tracing::warn!("closed: {error}"),
        }
    }
    tracing::info!(requests, "disconnected");
}

/// A client among those of its export, for as long as it is connected.
struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn new(clients: &'a AtomicU64) -> Self {
        clients.fetch_add(1, Ordering::Relaxed);
        Self(clients)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn note_sending(sent: Option<Result<std::io::Result<()>, tokio::task::JoinError>>) {
    match sent {
        None | Some(Ok(Ok(()))) => {}
        Some(Ok(Err(error))) => tracing::debug!("the client takes no more replies: {error}"),
        Some(Err(error)) => tracing::error!("replies ended by a bug: {error}"),
    }
}

/// What a handshake led to.
struct Chosen {
    /// The export's place.
    export: usize,
    /// What was agreed.
    session: Session,
    /// The contexts that the client selected beside `base:allocation`.
    contexts: Vec<Arc<dyn MetaContext>>,
}

/// Leads the handshake to an export, or says why there is none.
async fn negotiate<E: Export>(
    (catalog, held): (Catalog, &[Held<E>]),
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    input: &mut BytesMut,
    draining: &mut watch::Receiver<bool>,
) -> Result<Chosen, String> {
    let mut handshake = Handshake::new(Arc::new(catalog));
    let mut output = BytesMut::new();
    handshake.greet(&mut output);
    writer.write_all_buf(&mut output).await.map_err(|error| error.to_string())?;
    let mut told = false;
    let mut opened = Vec::new();
    loop {
        if !told && *draining.borrow_and_update() {
            told = true;
            handshake.shut_down();
        }
        let step = handshake.advance(input, &mut output);
        writer.write_all_buf(&mut output).await.map_err(|error| error.to_string())?;
        match step {
            Step::Answered => {}
            Step::Chosen { export, session } => {
                // None if the last selection was another one.
                opened.truncate(session.contexts);
                return Ok(Chosen { export, session, contexts: opened });
            }
            Step::Contexts { export, queries, select } => {
                let names = if select {
                    opened = open_contexts(&*held[export].export, &queries).await;
                    opened.iter().map(|context| context.name().to_owned()).collect()
                } else {
                    list_contexts(&*held[export].export, &queries).await
                };
                handshake.tell_contexts(&names, &mut output);
            }
            Step::Closed(why) => return Err(why.to_string()),
            Step::NeedInput => {
                input.reserve(BUFFER_BYTES);
                tokio::select! {
                    received = reader.read_buf(input) => match received {
                        Ok(0) => return Err("the client left".to_owned()),
                        Ok(_) => {}
                        Err(error) => return Err(error.to_string()),
                    },
                    changed = draining.changed(), if !told => {
                        changed.map_err(|_| "the server is gone".to_owned())?;
                    }
                    () = sleep(HAGGLING_AT_SHUTDOWN), if told => return Err("the server is shutting down".to_owned()),
                }
            }
        }
    }
}

async fn open_contexts<E: Export>(export: &E, queries: &[String]) -> Vec<Arc<dyn MetaContext>> {
    let mut opened: Vec<Arc<dyn MetaContext>> = Vec::new();
    for query in queries {
        opened.extend(export.open_context(query).await);
    }
    opened
}

async fn list_contexts<E: Export>(export: &E, queries: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for query in queries {
        for name in export.list_contexts(query).await {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// The reader's side of a connection in transmission.
struct Connection<E, R> {
    export: Arc<E>,
    intake: Intake<R>,
    budget: Budget,
    session: Session,
    selected: Selected,
    replies: UnboundedSender<Reply>,
    requests_seen: u64,
    draining: watch::Receiver<bool>,
    /// The same of its export alone.
    retired: watch::Receiver<bool>,
}

impl<E: Export, R: AsyncRead + Unpin> Connection<E, R> {
    /// Reads and starts requests until the client says goodbye, leaves, or can not be understood.
    async fn read_requests(&mut self, limits: &Limits) -> Result<(), IntakeError> {
        while let Some(head) = self.next_head().await? {
            let place = self.budget.request().await;
            self.requests_seen += 1;
            if !self.session.reaches(&head) {
                self.session.size_bytes = self.session.size_bytes.max(self.export.size_bytes());
            }
            let verdict = admit(&head, &self.session);
            if verdict == Ok(Command::Disconnect) {
                return Ok(());
            }
            let shutting_down = Denial { errno: Errno::Shutdown, message: "the server is shutting down" };
            let verdict =
                if *self.draining.borrow() || *self.retired.borrow() { Err(shutting_down) } else { verdict };
            match verdict {
                Ok(command) => {
                    let bytes =
                        requests::payload_bytes(&command, self.session.selected(), limits.payload_bytes_max);
                    let share = self.budget.payload(bytes).await;
                    let data = match head.payload_bytes() {
                        0 => Bytes::new(),
                        length => self.intake.payload(length).await?,
                    };
                    let pending = Pending::new(head.cookie, self.replies.clone(), place, share);
                    let export = (self.export.clone(), self.selected.clone());
                    let budget = self.budget.clone();
                    tokio::spawn(requests::run(
                        export,
                        command,
                        data,
                        pending,
                        budget,
                        limits.payload_bytes_max,
                    ));
                }
                Err(denial) => {
                    let length = head.payload_bytes();
                    if length > DISCARD_BYTES_MAX {
                        return Err(IntakeError::Garbage(format!("a write of {length} bytes")));
                    }
                    self.intake.discard(length).await?;
                    tracing::debug!(?head, ?denial, "refused");
                    let Denial { errno, message } = denial;
                    let pending = Pending::new(head.cookie, self.replies.clone(), place, None);
                    pending.answer(Answer::Error { errno, message: message.to_owned() });
                }
            }
        }
        Ok(())
    }

    /// The next request; none at the end of the stream, or when all is finished at shutdown.
    async fn next_head(&mut self) -> Result<Option<RequestHead>, IntakeError> {
        loop {
            if let Some(head) = self.intake.take_head()? {
                return Ok(Some(head));
            }
            let draining = *self.draining.borrow_and_update() | *self.retired.borrow_and_update();
            tokio::select! {
                // What the client sent comes first: it is owed an answer.
                biased;
                more = self.intake.fill() => {
                    if !more? {
                        return Ok(None);
                    }
                }
                changed = self.draining.changed(), if !draining => {
                    if changed.is_err() {
                        return Ok(None);
                    }
                }
                changed = self.retired.changed(), if !draining => {
                    if changed.is_err() {
                        return Ok(None);
                    }
                }
                () = self.budget.idle(), if draining => return Ok(None),
            }
        }
    }
}

//! The daemon's side of the control socket: connections, each bounded in all that it can take.
//!
//! Knows lines and the list of methods. Invariants: 1. whatever a client sends, sends half or does not read, it takes no more than
//! [`Bounds`] allow, and the daemon's other clients notice nothing; 2. what was begun for a client goes on when it leaves, and
//! ends when the daemon does.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream, unix};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::daemon::Daemon;
use super::line::{LineError, Lines};
use super::methods::{Tell, dispatch};
use super::protocol::{
    Code, Fault, Progress, REQUEST_BYTES_MAX, Request, answer_line, parse_request, progress_line,
};

/// What clients can take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections at once; the next one is told so and closed.
    pub(crate) connections_max: usize,
    /// Requests at once of one connection; the next one is not read before one is answered.
    pub(crate) requests_max: usize,
    /// Requests at once of all, those of clients that have left among them; the next one is refused.
    pub(crate) requests_total_max: usize,
    /// How long a connection may ask for nothing, or be at one line.
    pub(crate) idle_max: Duration,
    /// How long a client may take to read a line.
    pub(crate) write_max: Duration,
    /// How often a client that waits hears that its request is still worked at.
    pub(crate) beat: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: 32,
            requests_max: 8,
            requests_total_max: 64,
            idle_max: Duration::from_secs(60),
            write_max: Duration::from_secs(10),
            beat: Duration::from_secs(5),
        }
    }
}

/// Lines that wait for a client; progress that does not fit is left out.
const LINES_WAITING_MAX: usize = 16;
/// Pause after a socket could not be accepted, as where there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `listener` until `ended` is true. Requests are given up when the daemon closes.
pub(crate) async fn serve(
    daemon: Arc<Daemon>,
    listener: UnixListener,
    bounds: Bounds,
    closing: watch::Receiver<bool>,
) {
    let shared = Arc::new(Shared {
        daemon,
        bounds,
        connections: Arc::new(Semaphore::new(bounds.connections_max)),
        requests: Arc::new(Semaphore::new(bounds.requests_total_max)),
        closing,
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => welcome(&shared, stream, &mut connections),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client of the control socket");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

struct Shared {
    daemon: Arc<Daemon>,
    bounds: Bounds,
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

fn welcome(shared: &Arc<Shared>, stream: UnixStream, connections: &mut JoinSet<()>) {
    let Ok(place) = shared.connections.clone().try_acquire_owned() else {
        let words = format!("{} clients are connected already: try again", shared.bounds.connections_max);
        let line = answer_line(&serde_json::Value::Null, Err(Fault::new(Code::Busy, words)));
        // One line fits into a new socket; who does not get it sees the end of the stream.
        let _ = stream.try_write(&line);
        return;
    };
    let shared = shared.clone();
    connections.spawn(async move {
        converse(shared, stream).await;
        drop(place);
    });
}

/// One client, from its first line to its last.
async fn converse(shared: Arc<Shared>, stream: UnixStream) {
    let bounds = shared.bounds;
    let (reading, writing) = stream.into_split();
    let mut lines = Lines::new(reading, REQUEST_BYTES_MAX);
    let (answers, queue) = mpsc::channel(LINES_WAITING_MAX);
    let permits = Arc::new(Semaphore::new(bounds.requests_max));
    let mut sending = JoinSet::new();
    sending.spawn(send(queue, writing, bounds.write_max));
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, timeout(bounds.idle_max, lines.next()).await)
        };
        let (permit, line) = tokio::select! {
            next = next => next,
            // The client does not read, and so gets no more answers.
            _ = sending.join_next() => return,
        };
        let line = match line {
            Ok(Ok(line)) => line,
            // It waits for an answer, which may take longer.
            Err(_) if permits.available_permits() + 1 < bounds.requests_max => continue,
            Err(_) => break,
            Ok(Err(LineError::TooLong)) => {
                let words =
                    format!("a request is at most {REQUEST_BYTES_MAX} bytes long: the connection is closed");
                let _ = answers
                    .try_send(answer_line(&serde_json::Value::Null, Err(Fault::new(Code::Invalid, words))));
                break;
            }
            Ok(Err(LineError::Ended)) => break,
            Ok(Err(LineError::Broken(error))) => {
                tracing::debug!(%error, "a client of the control socket is gone");
                break;
            }
        };
        if line.is_empty() {
            continue;
        }
        let request = match parse_request(&line) {
            Ok(request) => request,
            Err((id, fault)) => {
                // Waits where the client does not read: then nothing more of it is read.
                if answers.send(answer_line(&id, Err(fault))).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let answers = answers.clone();
        match shared.requests.clone().try_acquire_owned() {
            Ok(total) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    answer(shared, request, answers).await;
                    drop((permit, total));
                });
            }
            Err(_) => {
                let words = "the daemon works at as many requests as it can: try again";
                let line = answer_line(&request.id, Err(Fault::new(Code::Busy, words)));
                if answers.send(line).await.is_err() {
                    return;
                }
            }
        }
    }
    // What is in flight is still answered, as long as the client reads.
    drop(answers);
    while sending.join_next().await.is_some() {}
}

/// Sends lines until nobody has any more, or the client does not take them.
async fn send(mut queue: mpsc::Receiver<Vec<u8>>, mut stream: unix::OwnedWriteHalf, write_max: Duration) {
    while let Some(line) = queue.recv().await {
        match timeout(write_max, stream.write_all(&line)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Works at one request, and says so from time to time.
async fn answer(shared: Arc<Shared>, request: Request, answers: mpsc::Sender<Vec<u8>>) {
    let id = request.id.clone();
    let tell: Tell = {
        let (id, answers) = (id.clone(), answers.clone());
        Arc::new(move |words| {
            // A slow client misses some.
            let _ = answers.try_send(progress_line(&Progress { id: id.clone(), words }));
        })
    };
    // A task of its own, so that a bug in a method ends that method.
    let mut working = JoinSet::new();
    {
        let (daemon, tell) = (shared.daemon.clone(), tell.clone());
        working.spawn(async move { dispatch(&daemon, request, &tell).await });
    }
    let mut closing = shared.closing.clone();
    let closing_already = *closing.borrow_and_update();
    let mut beats = interval(shared.bounds.beat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats.reset();
    let answer = loop {
        tokio::select! {
            // What is done counts.
            biased;
            done = working.join_next() => break match done {
                Some(Ok(answer)) => answer,
                _ => Err(Fault::new(Code::Internal, "a bug in the daemon: its log says more")),
            },
            // A daemon that was closing when it was asked still says how that goes.
            _ = closing.changed(), if !closing_already => {
                let words = "the daemon was told to end before this was done; what was done stays so";
                break Err(Fault::new(Code::Failed, words));
            }
            _ = beats.tick() => tell(String::new()),
        }
    };
    drop(working);
    let _ = answers.send(answer_line(&id, answer)).await;
}

#[cfg(test)]
mod tests;

//! Connections: accepted, bounded, and led to their end.
//!
//! The rim where bytes meet sockets, tasks and clocks; what the bytes mean is `handshake`'s and `transmission`'s.
//!
//! 1. Whatever one client does, the others are served: errors and panics end a request or a connection, no more.
//! 2. No lock is held over I/O; exports are called from tasks of their own.

mod budget;
mod connection;
mod intake;
mod requests;
mod writer;

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use crate::export::Export;
use crate::handshake::{Catalog, CatalogEntry, STRING_BYTES_MAX};
use crate::limits::Limits;
use crate::listener::{Listener, Stream};

/// A server that makes no sense as configured; it says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// An export's name can not be told to clients.
    #[error("the export name '{name}' {reason}")]
    ExportName {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// The limits contradict each other.
    #[error("limits: {0}")]
    Limits(String),
}

/// Serves exports to any number of clients on any number of listeners.
pub struct Server<E> {
    shared: Arc<Shared<E>>,
}

/// What all connections have in common.
struct Shared<E> {
    exports: Vec<Hosted<E>>,
    /// Place of the default export.
    default: Option<usize>,
    limits: Limits,
    connections: Arc<Semaphore>,
    payload_bytes: Arc<Semaphore>,
    /// Numbers connections for the log.
    connections_seen: AtomicU64,
}

/// An export's name, and what is behind it now.
struct Hosted<E> {
    name: String,
    /// Connections that have chosen it.
    clients: AtomicU64,
    behind: RwLock<Behind<E>>,
}

/// What a connection serves from its first byte to its last, whatever comes behind the name meanwhile.
struct Behind<E> {
    export: Arc<E>,
    retired: watch::Sender<bool>,
}

/// The same as a connection holds it.
struct Held<E> {
    export: Arc<E>,
    retired: watch::Receiver<bool>,
}

impl<E> Hosted<E> {
    fn new(name: String, export: Arc<E>) -> Self {
        let behind = RwLock::new(Behind { export, retired: watch::Sender::new(false) });
        Self { name, clients: AtomicU64::new(0), behind }
    }

    fn hold(&self) -> Held<E> {
        let behind = self.behind.read().unwrap_or_else(PoisonError::into_inner);
        Held { export: behind.export.clone(), retired: behind.retired.subscribe() }
    }
}

impl<E> Clone for Server<E> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<E> std::fmt::Debug for Server<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.shared.exports.iter().map(|hosted| &hosted.name).collect();
        f.debug_struct("Server").field("exports", &names).field("limits", &self.shared.limits).finish()
    }
}

impl<E: Export> Server<E> {
    /// A server of `exports`, by name. Clients that name none get the `default_export`.
    ///
    /// # Errors
    /// [`ServerError`] names what to change.
    pub fn new(
        exports: Vec<(String, Arc<E>)>,
        default_export: Option<String>,
        limits: Limits,
    ) -> Result<Self, ServerError> {
        limits.check().map_err(ServerError::Limits)?;
        let mut seen = HashSet::new();
        for (name, _) in &exports {
            let refuse = |reason| Err(ServerError::ExportName { name: name.clone(), reason });
            if name.len() > STRING_BYTES_MAX {
                return refuse("is longer than the 4096 bytes that the protocol has for it");
            }
            if name.contains('\0') {
                return refuse("holds a NUL");
            }
            if !seen.insert(name.as_str()) {
                return refuse("is there twice");
            }
        }
        let default = match default_export {
            None => None,
            Some(name) => match exports.iter().position(|(other, _)| *other == name) {
                Some(place) => Some(place),
                None => {
                    return Err(ServerError::ExportName {
                        name,
                        reason: "is to be the default, but is not served",
                    });
                }
            },
        };
        let shared = Shared {
            default,
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            payload_bytes: Arc::new(Semaphore::new(limits.payload_bytes_total_max as usize)),
            connections_seen: AtomicU64::new(0),
            exports: exports.into_iter().map(|(name, export)| Hosted::new(name, export)).collect(),
            limits,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// How many connections have chosen this export; 0 if there is no such export.
    pub fn clients(&self, export: &str) -> u64 {
        self.hosted(export).map_or(0, |hosted| hosted.clients.load(Ordering::Relaxed))
    }

    fn hosted(&self, export: &str) -> Option<&Hosted<E>> {
        self.shared.exports.iter().find(|hosted| hosted.name == export)
    }

    /// Ends the connections of this export as a shutdown would: what is in flight is finished and answered, new requests get
    /// ESHUTDOWN, and a connection with nothing in flight is closed. So are those that come, until [`Server::replace`].
    pub fn retire(&self, export: &str) {
        let Some(hosted) = self.hosted(export) else { return };
        hosted.behind.read().unwrap_or_else(PoisonError::into_inner).retired.send_replace(true);
    }

    /// Puts another device behind this export's name, for clients that connect from now on. A connection never meets another one than
    /// it was told of.
    pub fn replace(&self, export: &str, by: Arc<E>) {
        let Some(hosted) = self.hosted(export) else { return };
        let behind = Behind { export: by, retired: watch::Sender::new(false) };
        let mut old = hosted.behind.write().unwrap_or_else(PoisonError::into_inner);
        old.retired.send_replace(true);
        *old = behind;
    }

    /// Serves `listener` until `shutdown` resolves; call it once per listener, limits are shared.
    ///
    /// At shutdown it stops listening (a unix socket's file goes), answers new requests with ESHUTDOWN while those in
    /// flight finish, and returns when all connections are closed, at the latest after [`Limits::shutdown_grace`]. What
    /// an export still does then runs on by itself. Dropping the future instead cuts all connections off.
    pub async fn serve(&self, listener: Listener, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut connections = JoinSet::new();
        let (draining, drained) = watch::channel(false);
        tracing::info!(address = %listener.address(), "listening");
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => note_end(ended),
                accepted = listener.accept() => match accepted {
                    Ok(stream) => self.welcome(stream, &mut connections, &drained),
                    Err(error) => note_accept_error(error).await,
                },
            }
        }
        drop(listener);
        let open = connections.len();
        tracing::info!(connections = open, "shutting down: no more connections, requests in flight finish");
        draining.send_replace(true);
        let all_ended = async {
            while let Some(ended) = connections.join_next().await {
                note_end(ended);
            }
        };
        if timeout(self.shared.limits.shutdown_grace, all_ended).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                grace_s = self.shared.limits.shutdown_grace.as_secs_f64(),
                "requests did not finish in time: closing their connections"
            );
            connections.shutdown().await;
        }
    }

    fn welcome(&self, stream: Stream, connections: &mut JoinSet<()>, drained: &watch::Receiver<bool>) {
        let number = self.shared.connections_seen.fetch_add(1, Ordering::Relaxed) + 1;
        let peer = match &stream {
            Stream::Unix(_) => "unix".to_owned(),
            Stream::Tcp(_, peer) => peer.to_string(),
        };
        let Ok(place) = self.shared.connections.clone().try_acquire_owned() else {
            tracing::warn!(
                connection = number,
                %peer,
                connections_max = self.shared.limits.connections_max,
                "refused: there are as many connections as may be"
            );
            return;
        };
        let span = tracing::info_span!("nbd", connection = number, %peer);
        let (shared, drained) = (self.shared.clone(), drained.clone());
        let served = async move {
            let _place = place;
            match stream {
                Stream::Unix(stream) => {
                    let (read, write) = stream.into_split();
                    connection::serve(shared, read, write, drained).await;
                }
                Stream::Tcp(stream, _) => {
                    let (read, write) = stream.into_split();
                    connection::serve(shared, read, write, drained).await;
                }
            }
        };
        connections.spawn(served.instrument(span));
    }
}

impl<E: Export> Shared<E> {
    /// The exports as a client that connects now is shown them, and what is behind them then.
    fn catalog(&self) -> (Catalog, Vec<Held<E>>) {
        let held: Vec<Held<E>> = self.exports.iter().map(Hosted::hold).collect();
        let names = self.exports.iter().map(|hosted| hosted.name.clone());
        let entries = names.zip(&held).map(|(name, held)| CatalogEntry { name, info: held.export.info() });
        (Catalog::new(entries.collect(), self.default, self.limits.payload_bytes_max), held)
    }
}

fn note_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection ended by a bug: {error}");
    }
}

/// Accepting fails for a while (out of file descriptors) or for one client (gone already), never for good.
async fn note_accept_error(error: io::Error) {
    let of_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    );
    if of_client {
        tracing::debug!(%error, "a client was gone before it was accepted");
        return;
    }
    tracing::warn!(%error, "cannot accept a connection; trying again in 100 ms");
    sleep(Duration::from_millis(100)).await;
}

//! The control socket of `lsvd serve`: from before its volumes are opened until it ends.
//!
//! Knows when; what is asked there, `crate::control` knows. Invariant: a daemon that can not have one serves all the same, unless
//! the user said where it is to be.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cli::Serve;
use crate::control::daemon::Daemon;
use crate::control::place;
use crate::control::server::{self, Bounds};
use crate::served::Served;
use crate::store;

/// The socket, and who answers on it; gone when dropped.
pub(super) struct Control {
    daemon: Arc<Daemon>,
    // Before the listener: the files go while it still answers.
    place: place::Place,
    closing: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

impl Control {
    /// Makes the socket and answers on it; `None` if there is to be none, or can be none.
    ///
    /// # Errors
    /// If the directory that the user named can not have it.
    pub(super) async fn start(
        arguments: &Serve,
        places: impl Iterator<Item = &store::Place>,
    ) -> anyhow::Result<Option<Self>> {
        if arguments.no_control {
            return Ok(None);
        }
        let directory = arguments.control.clone().unwrap_or_else(place::usual);
        let (place, listener) = match place::Place::make(&directory).await {
            Ok(made) => made,
            Err(error) if arguments.control.is_some() => return Err(error),
            Err(error) => {
                tracing::warn!(
                    "no control socket, so `lsvd status` and `gc` can not ask this daemon: {error:#}"
                );
                return Ok(None);
            }
        };
        let daemon = Daemon::new(places.map(|place| (place.name.clone(), place.url.to_string())).collect());
        let (closing, is_closing) = watch::channel(false);
        let mut serving = JoinSet::new();
        serving.spawn(server::serve(daemon.clone(), listener, Bounds::default(), is_closing));
        tracing::info!(path = %place.socket().display(), "control socket");
        Ok(Some(Self { daemon, place, closing, _serving: serving }))
    }

    /// The volumes are open, and from now on found by their identities.
    pub(super) async fn opened(&mut self, volumes: &Arc<Vec<Served>>) {
        self.daemon.opened(volumes.clone());
        for volume in self.daemon.greeting() {
            if let Err(error) = self.place.link(&volume).await {
                tracing::warn!(volume = volume.name, "it is not found by its identity: {error:#}");
            }
        }
    }

    /// What is told of.
    pub(super) fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The daemon ends: nothing new is begun, and what was begun is given up.
    pub(super) fn closes(&self) {
        self.daemon.closes();
        self.closing.send_replace(true);
    }
}

//! Commands that change a volume ask the daemon of this host that has it open, and do it themselves where there is none.
//!
//! Knows how one is found and what it says on the way; not what it is asked for.

use anyhow::Context;

use super::client::{self, Client, DaemonError, Wanted};
use super::protocol::{HelloVolume, Method};
use crate::cli::ControlPlace;
use crate::store::Place;

/// Has it done by the daemon that has the volume open for writing, whose identity `method` is given; `None` if there is none.
///
/// # Errors
/// What the daemon said, or that it went away; if the volume can not be read.
pub(crate) async fn writer<M: Method>(
    place: &Place,
    control: &ControlPlace,
    method: impl FnOnce(String) -> M,
) -> anyhow::Result<Option<M::Answer>> {
    let Some((mut daemon, served)) = found(place, control).await? else { return Ok(None) };
    say(place, &daemon);
    let progress = |words: &str| tracing::info!(volume = place.name, "{words}");
    match daemon.ask(&method(served.volume_id), &progress).await {
        Ok(answer) => Ok(Some(answer)),
        // It ended, or was fenced, between its greeting and now.
        Err(error) if error.downcast_ref().is_some_and(|error: &DaemonError| error.not_served) => {
            tracing::info!(volume = place.name, "{error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The daemon that has the volume open for writing, if one is found.
///
/// # Errors
/// If the volume can not be read, or the socket that the user named can not be asked.
pub(crate) async fn found(
    place: &Place,
    control: &ControlPlace,
) -> anyhow::Result<Option<(Client, HelloVolume)>> {
    if control.no_control {
        return Ok(None);
    }
    let identity = lsvd_volume::identify(&place.bucket).await;
    let identity = identity.with_context(|| format!("cannot read volume '{}'", place.name))?;
    client::find(control, &identity, &place.url.to_string(), Wanted::Writer).await
}

/// Says who is asked.
pub(crate) fn say(place: &Place, daemon: &Client) {
    tracing::info!(
        volume = place.name,
        pid = daemon.greeting.pid,
        "asking the daemon that serves it ({})",
        daemon.socket().display()
    );
}

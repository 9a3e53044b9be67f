//! Rolling a served volume back: its clients go, it is closed, rolled back, opened again, and served to who comes then.
//!
//! Knows the order. Invariants: 1. nothing is ended before it is known that the moment can be reached and that the clients may be
//! disconnected; 2. no connection meets other contents than it was told of; 3. whatever fails, the daemon tries to serve
//! the volume again, as it then is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use lsvd_nbd::Server;
use lsvd_volume::{Error, Moment, OpenOptions, RollbackPlan, RolledBack, Volume, plan_rollback};
use tokio::time::{Instant, sleep};

use super::methods::Tell;
use super::protocol::{Code, Fault};
use crate::exit::Exit;
use crate::export::VolumeExport;
use crate::served::Served;

/// How long clients have to end what is in flight; who takes longer meets a closed volume.
const CLIENTS_LEAVE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How soon a volume that could not be closed, as its store was away, is closed again.
const AGAIN: Duration = Duration::from_secs(1);

/// Says what rolling it back would do. What was accepted and is not stored yet is stored first.
///
/// # Errors
/// Why it can not be done.
pub(super) async fn plan(served: &Served, moment: &Moment) -> Result<RollbackPlan, Fault> {
    let plan = async {
        served.volume().drain().await?;
        plan_rollback(&served.bucket, moment).await
    };
    let cannot = || format!("cannot roll back volume '{}'", served.name);
    plan.await.with_context(cannot).map_err(|error| Fault::of(&error))
}

/// Rolls it back.
///
/// # Errors
/// Why it was not, or is not served any more.
pub(super) async fn roll_back(
    served: &Served,
    nbd: Option<&Server<VolumeExport>>,
    moment: &Moment,
    disconnect: bool,
    tell: &Tell,
) -> Result<RolledBack, Fault> {
    let name = &served.name;
    let fault = |error: anyhow::Error| Fault::of(&error);
    let cannot = || format!("cannot roll back volume '{name}'");
    if served.volume().description().read_only {
        let error = Error::ReadOnly { volume: name.as_str().into() };
        return Err(fault(anyhow::Error::new(error).context(cannot())));
    }
    let busy = || Fault::new(Code::Busy, format!("volume '{name}' is being rolled back already"));
    let followed = served.is_followed().ok_or_else(busy)?;
    plan(served, moment).await?;
    let clients = || nbd.map_or(0, |nbd| nbd.clients(name));
    if clients() > 0 && !disconnect {
        return Err(has_clients(name, clients()));
    }
    tracing::info!(volume = name, to = %moment, clients = clients(), "rolling back, as a client of the control socket asks");
    if let Some(nbd) = nbd {
        nbd.retire(name);
    }
    let end = Instant::now() + CLIENTS_LEAVE;
    while clients() > 0 && Instant::now() < end {
        sleep(LOOK_EVERY).await;
    }
    while let Err(error) = served.volume().close().await {
        if matches!(error, Error::Fenced { .. } | Error::Closed { .. }) {
            return Err(fault(anyhow::Error::new(error).context(cannot())));
        }
        tell(format!("the volume can not be closed yet: {error}"));
        sleep(AGAIN).await;
    }
    // It was closed a moment ago, by this daemon.
    let options = OpenOptions {
        if_free: None,
        abandon_journal: false,
        accept_shorter_log: false,
        ..served.options.clone()
    };
    let done = lsvd_volume::rollback(&served.bucket, moment, options.clone()).await;
    let volume = match Volume::open(served.bucket.clone(), options).await {
        Ok(volume) => volume,
        Err(error) => {
            let what = match &done {
                Ok(_) => format!("volume '{name}' is rolled back, but can not be opened again"),
                Err(why) => {
                    format!("volume '{name}' is not rolled back ({why}), and can not be opened again")
                }
            };
            tracing::error!(volume = name, %error, "{what}");
            return Err(fault(anyhow::Error::new(error).context(what)));
        }
    };
    followed.by(volume);
    if let Some(nbd) = nbd {
        nbd.replace(name, Arc::new(VolumeExport::of(served)));
    }
    match &done {
        Ok(done) => tracing::info!(
            volume = name,
            to = done.plan.to.0,
            undo = done.undo,
            "rolled back, and served again"
        ),
        Err(error) => tracing::error!(volume = name, %error, "not rolled back; served again as it was"),
    }
    done.with_context(cannot).map_err(fault)
}

fn has_clients(name: &str, clients: u64) -> Fault {
    let words = match clients {
        1 => format!("volume '{name}' has a client, which would be disconnected"),
        clients => format!("volume '{name}' has {clients} client connections, which would be cut off"),
    };
    let help = "unmount what is on it and detach it first (`lsvd detach`), or say --disconnect if nobody uses it: a client \
                that connects again by itself goes on with other contents than it knows";
    Fault::with_help(Exit::InUse, words, help)
}

//! `lsvd attach` and `lsvd detach`: an export as a device of this kernel.
//!
//! Knows the order of things and signals. Invariants: 1. the device is printed when it can be used; 2. a signal detaches a
//! device that nobody uses, and leaves one that is mounted attached: its file system would fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsvd_nbd::attach::{self, AttachError, AttachOptions, Device, NbdUri, UriError, WatchEnd};

use crate::cli::{Attach, Detach};
use crate::exit::{Exit, Usage};
use crate::output;
use crate::process::{self, EndSignals};

/// Attaches, and watches until a signal comes or the device is detached.
///
/// # Errors
/// If the device can not be attached; if its server comes back with another export.
pub(crate) async fn run(arguments: Attach) -> anyhow::Result<Exit> {
    let uri: NbdUri = arguments.uri.parse().map_err(|error: UriError| Usage(error.to_string()))?;
    let device = device(&arguments.device)?;
    let options = AttachOptions {
        connections: arguments.connections,
        block_size_bytes: arguments.block_size,
        timeout: arguments.timeout,
        dead_connection_timeout: arguments.dead_conn_timeout,
    };
    let mut signals = EndSignals::catch()?;
    let attached = tokio::task::spawn_blocking(move || attach::attach(&uri, device, &options)).await?;
    let mut attached = attached.map_err(usage)?;
    let path = device.path();
    tracing::info!(device = %path.display(), size_bytes = attached.size_bytes(), "attached");
    if let Err(error) = output::line(&path.display().to_string()) {
        tracing::warn!(%error, "cannot print the device");
    }
    process::notify("READY=1");

    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let mut watching = tokio::task::spawn_blocking(move || attached.watch(&told));
    let end = tokio::select! {
        end = &mut watching => end?,
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            process::notify("STOPPING=1");
            stop.store(true, Ordering::Relaxed);
            watching.await?
        }
    };
    match end? {
        WatchEnd::Detached => {
            tracing::info!(device = %path.display(), "detached");
            Ok(Exit::Done)
        }
        WatchEnd::Stopped => leave(device),
    }
}

/// Detaches what nobody uses.
fn leave(device: Device) -> anyhow::Result<Exit> {
    match attach::detach(device) {
        Ok(()) | Err(AttachError::NotAttached(_)) => Ok(Exit::Done),
        Err(error @ AttachError::Busy(_)) => {
            tracing::warn!("{error}. It stays attached, and nobody reconnects it; `lsvd detach` it later");
            Ok(Exit::Other)
        }
        Err(error) => Err(error.into()),
    }
}

/// Detaches.
///
/// # Errors
/// If it is mounted, or not attached.
pub(crate) fn detach(arguments: &Detach) -> anyhow::Result<Exit> {
    attach::detach(device(&arguments.device)?)?;
    Ok(Exit::Done)
}

fn device(text: &str) -> Result<Device, Usage> {
    text.parse().map_err(Usage)
}

fn usage(error: AttachError) -> anyhow::Error {
    match error {
        AttachError::Invalid(what) => Usage(what).into(),
        error => error.into(),
    }
}

//! Automatic snapshots of the served volumes.
//!
//! Knows when: at whole multiples of the interval by the wall clock, so that hourly ones are made on the hour. What is made and
//! removed, the volume's library decides. What fails is said, and tried again when the next one is due.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use lsvd_volume::{Error, Retention, Scheduled};

use super::Served;
use crate::cli::Moments;

/// Makes snapshots for ever; without a schedule it does nothing.
pub(super) async fn run(volumes: &[Served], moments: &Moments) -> Infallible {
    let Some(every) = moments.snapshot_every else { return std::future::pending().await };
    let retention = moments.snapshot_keep.unwrap_or_default();
    loop {
        tokio::time::sleep(until_next(every)).await;
        join_all(volumes.iter().map(|served| make(served, &retention))).await;
    }
}

/// How long it is until the next whole multiple.
fn until_next(every: Duration) -> Duration {
    // A clock before 1970 is wrong, and any moment is as good.
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let past = since_1970.as_nanos() % every.as_nanos().max(1);
    every.saturating_sub(Duration::from_nanos(u64::try_from(past).unwrap_or(0)))
}

async fn make(served: &Served, retention: &Retention) {
    let name = &served.name;
    match served.volume().snapshot_by_schedule(retention).await {
        Ok(Scheduled { created, removed }) => {
            if let Some(made) = created {
                tracing::info!(volume = name, snapshot = made.name, "snapshot made");
            }
            for snapshot in removed {
                tracing::info!(volume = name, snapshot, "snapshot removed by --snapshot-keep");
            }
        }
        // It was said when the volume ended.
        Err(Error::Fenced { .. } | Error::Closed { .. }) => {}
        Err(error) => {
            tracing::warn!(volume = name, %error, "no snapshot could be made; the next one is tried")
        }
    }
}

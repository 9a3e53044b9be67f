//! Snapshots of an open volume, and what is said of them in JSON: the same for `lsvd snapshot`, which opens the volume, and for a
//! daemon, which has it open.
//!
//! What a snapshot is, the volume's library decides. Knows the fields of docs/json.md.

use lsvd_volume::{Error, Retention, Snapshot, Volume};
use serde::{Deserialize, Serialize};

/// A snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotJson {
    pub(crate) name: String,
    pub(crate) as_of: u64,
    pub(crate) size_bytes: u64,
    pub(crate) created_unix_ms: u64,
    pub(crate) automatic: bool,
    /// The clone that it is kept for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clone: Option<CloneJson>,
}

/// A clone, as its parent knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CloneJson {
    pub(crate) volume_id: String,
    pub(crate) path: String,
}

impl From<&Snapshot> for SnapshotJson {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            name: snapshot.name.clone(),
            as_of: snapshot.as_of.0,
            size_bytes: snapshot.size_bytes,
            created_unix_ms: snapshot.created_unix_ms,
            automatic: snapshot.automatic,
            clone: snapshot
                .clone
                .as_ref()
                .map(|clone| CloneJson { volume_id: clone.volume_id.to_string(), path: clone.path.clone() }),
        }
    }
}

/// What was changed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ChangedSnapshots {
    /// `None` if none was asked for, or nothing has changed since the newest one.
    pub(crate) created: Option<SnapshotJson>,
    pub(crate) removed: Vec<String>,
}

/// Which automatic snapshots are kept.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KeepJson {
    last: u64,
    hourly: u64,
    daily: u64,
    weekly: u64,
    monthly: u64,
    yearly: u64,
}

impl From<Retention> for KeepJson {
    fn from(of: Retention) -> Self {
        let Retention { last, hourly, daily, weekly, monthly, yearly } = of;
        Self { last, hourly, daily, weekly, monthly, yearly }
    }
}

impl From<KeepJson> for Retention {
    fn from(of: KeepJson) -> Self {
        let KeepJson { last, hourly, daily, weekly, monthly, yearly } = of;
        Self { last, hourly, daily, weekly, monthly, yearly }
    }
}

/// Makes one: named, or else automatic, which removes those that `keep` does not keep.
///
/// # Errors
/// As of [`Volume::create_snapshot`].
pub(crate) async fn create(
    volume: &Volume,
    name: Option<&str>,
    keep: Retention,
) -> Result<ChangedSnapshots, Error> {
    match name {
        Some(name) => {
            let created = volume.create_snapshot(name, false).await?;
            Ok(ChangedSnapshots { created: Some((&created).into()), removed: Vec::new() })
        }
        None => {
            let done = volume.snapshot_by_schedule(&keep).await?;
            Ok(ChangedSnapshots { created: done.created.as_ref().map(Into::into), removed: done.removed })
        }
    }
}

/// Removes some, in their order.
///
/// # Errors
/// As of [`Volume::remove_snapshot`]; those before the one that failed are removed.
pub(crate) async fn remove(
    volume: &Volume,
    names: &[String],
    force: bool,
) -> Result<ChangedSnapshots, Error> {
    for name in names {
        match force {
            true => volume.remove_snapshot_of_lost_clone(name).await?,
            false => volume.remove_snapshot(name).await?,
        }
    }
    Ok(ChangedSnapshots { created: None, removed: names.to_vec() })
}

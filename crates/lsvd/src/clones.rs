//! Clones and their parents, where a command has to do with both: from one to the other, and giving up what a parent keeps.
//!
//! Knows the order: the daemon of this host that serves the parent is asked; where there is none, take over with courtesy, act,
//! close. When what is kept may go, the volume's library decides.

use std::time::Duration;

use anyhow::Context;
use lsvd_volume::{Error, FlattenStep, OpenOptions, Volume, VolumeId};
use serde::{Deserialize, Serialize};

use crate::cli::{self, ControlPlace, Keeping};
use crate::control::protocol;
use crate::control::{ask, place};
use crate::store::{self, Errand, Place};
use crate::units;

/// How a volume is reached that is to be changed.
#[derive(Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub(crate) control: &'a ControlPlace,
    pub(crate) if_free: Option<Duration>,
    pub(crate) unsafe_single_writer: bool,
    pub(crate) patience: Duration,
    pub(crate) store: &'a cli::Store,
}

impl<'a> From<&'a Keeping> for Reach<'a> {
    fn from(common: &'a Keeping) -> Self {
        Self {
            control: &common.control,
            if_free: Some(common.if_free),
            unsafe_single_writer: common.unsafe_single_writer,
            patience: common.patience.timeout,
            store: &common.store,
        }
    }
}

impl Reach<'_> {
    /// Opens a volume with courtesy, has something done, and closes it.
    ///
    /// # Errors
    /// If it can not be opened or closed, or what is done fails.
    pub(crate) async fn take_over<T>(
        &self,
        place: &Place,
        act: impl AsyncFnOnce(&Volume) -> Result<T, Error>,
    ) -> anyhow::Result<T> {
        let options = OpenOptions {
            io_timeout: self.patience,
            if_free: self.if_free,
            unsafe_single_writer: self.unsafe_single_writer,
            handover: place::handover_that_is_there(None),
            ..OpenOptions::default()
        };
        let opened = Volume::open(place.bucket.clone(), options).await;
        let volume = opened.with_context(|| format!("cannot open volume '{}'", place.name))?;
        let acted = act(&volume).await;
        let closed = volume.close().await;
        let done = acted.with_context(|| format!("cannot change volume '{}'", place.name))?;
        closed.with_context(|| format!("cannot close volume '{}' cleanly", place.name))?;
        Ok(done)
    }

    /// Has the volume at `path` from this place give up what it keeps for a clone. Gives the parent, and the snapshot that went,
    /// if there was one.
    ///
    /// # Errors
    /// If the parent is in use by a daemon that can not be asked, or says that the clone needs it.
    pub(crate) async fn release(
        &self,
        clone: &Place,
        path: &str,
        id: VolumeId,
    ) -> anyhow::Result<(Place, Option<String>)> {
        let errand = Errand { verb: "open", create_root: false, patience: self.patience };
        let parent = store::beside(clone, path, self.store, errand)?;
        let known = match lsvd_volume::snapshots(&parent.bucket).await {
            Ok((known, _)) => known,
            Err(Error::NotFound { .. } | Error::Removed { .. }) => return Ok((parent, None)),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read volume '{}'", parent.name));
            }
        };
        let pin = known.into_iter().find(|of| of.clone.as_ref().is_some_and(|of| of.volume_id == id));
        let Some(pin) = pin.map(|pin| pin.name) else { return Ok((parent, None)) };
        self.remove_snapshot(&parent, &pin, false).await?;
        Ok((parent, Some(pin)))
    }

    /// Removes a snapshot of a volume; with `force` also if it is kept for a clone that is not there.
    ///
    /// # Errors
    /// As for [`Reach::release`].
    pub(crate) async fn remove_snapshot(&self, place: &Place, name: &str, force: bool) -> anyhow::Result<()> {
        let names = vec![name.to_owned()];
        let asked =
            ask::writer(place, self.control, |volume| protocol::SnapshotRm { volume, names, force }).await?;
        if asked.is_none() {
            let remove = async |volume: &Volume| match force {
                true => volume.remove_snapshot_of_lost_clone(name).await,
                false => volume.remove_snapshot(name).await,
            };
            self.take_over(place, remove).await?;
        }
        Ok(())
    }
}

/// What flattening came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FlattenedJson {
    /// The volume that it was cloned from, by its path from the clone's prefix; `None` if it shared nothing before.
    pub(crate) parent: Option<String>,
    pub(crate) moved_bytes: u64,
}

/// Has a clone share nothing with its parents any more.
///
/// # Errors
/// As of [`Volume::flatten`].
pub(crate) async fn flatten(
    volume: &Volume,
    tell: &(dyn Fn(String) + Send + Sync),
) -> Result<FlattenedJson, Error> {
    let step = |FlattenStep { moved_bytes, left_bytes }| {
        tell(format!(
            "{} copied, {} are the parent's still",
            units::bytes_human(moved_bytes),
            units::bytes_human(left_bytes)
        ));
    };
    let done = volume.flatten(&step).await?;
    Ok(FlattenedJson { parent: done.parent.map(|parent| parent.path), moved_bytes: done.moved_bytes })
}

//! One moment of several volumes, named in each of them.
//!
//! Knows open volumes of this process. Invariants: 1. a write that completed on one volume before another write was begun on any of
//! them is in if the later one is; 2. no name is given before the store holds what each of them names. Naming is one superblock version
//! for each volume: it is not atomic, so what fails is taken back, and where that fails too it is said.

use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use lsvd_engine::Request;
use lsvd_format::superblock::Snapshot;

use crate::core::Core;
use crate::snapshots::{TRIES, taken};
use crate::{Error, Volume};

/// A group snapshot was not made.
#[derive(Clone, Debug, thiserror::Error)]
#[error("group snapshot '{name}' was not made{}", may_be_left(.left))]
pub struct GroupError {
    /// Its name.
    pub name: String,
    /// The volumes that may have a snapshot of this name all the same: remove it there.
    pub left: Vec<Arc<str>>,
    /// Why it was not made, of the first volume that failed.
    pub source: Error,
}

fn may_be_left(left: &[Arc<str>]) -> String {
    match left {
        [] => ", on none of its volumes".to_owned(),
        left => format!(", but may be left at {}: remove it there", left.join(", ")),
    }
}

/// Makes a snapshot of each of `volumes`, all of one moment and of one name, in their order. Everything that had completed
/// before the call is in it, and of what completes meanwhile never a later write without the earlier ones. Clients wait for no store
/// meanwhile.
///
/// # Errors
/// [`GroupError`]: its source is as for [`Volume::create_snapshot`], and [`Error::Invalid`] if a volume is named twice. It names the
/// volumes from which the snapshot could not be taken back: remove it there by hand.
pub async fn create_group_snapshot(
    volumes: &[Volume],
    name: &str,
    automatic: bool,
) -> Result<Vec<Snapshot>, GroupError> {
    let failed = |source| GroupError { name: name.to_owned(), left: Vec::new(), source };
    for volume in volumes {
        volume.check_snapshot(name).map_err(failed)?;
        if volume.named().get().await.snapshot(name).is_some() {
            return Err(failed(taken(&volume.label(), name)));
        }
    }
    // One order for all groups, so that two at once do not wait for each other's locks.
    let mut order: Vec<usize> = (0..volumes.len()).collect();
    let id = |nth: usize| volumes[nth].description().volume_id;
    order.sort_by_key(|nth| id(*nth));
    if order.windows(2).any(|two| id(two[0]) == id(two[1])) {
        return Err(failed(Error::Invalid("a volume is in a group once".to_owned())));
    }
    let mut tried = 1;
    loop {
        let cores: Vec<Arc<Core>> = order.iter().map(|nth| volumes[*nth].core().clone()).collect();
        let numbers = Core::seal_all_of(&cores);
        try_join_all(cores.iter().map(|core| core.request(Request::Drain))).await.map_err(failed)?;
        let pins = order.iter().zip(&numbers).map(|(nth, as_of)| volumes[*nth].pin(name, *as_of, automatic));
        let pinned = join_all(pins).await;
        let Some(source) = pinned.iter().find_map(|pinned| pinned.as_ref().err().cloned()) else {
            let mut made: Vec<(usize, Snapshot)> =
                order.into_iter().zip(pinned.into_iter().flatten()).collect();
            made.sort_by_key(|(nth, _)| *nth);
            return Ok(made.into_iter().map(|(_, snapshot)| snapshot).collect());
        };
        let mut left = Vec::new();
        for ((nth, as_of), pinned) in order.iter().zip(&numbers).zip(&pinned) {
            // These say that no version was stored; one that was fenced may have stored it before.
            if matches!(pinned, Err(Error::Invalid(_) | Error::Unreachable { .. })) {
                continue;
            }
            let volume = &volumes[*nth];
            if volume.unpin(name, *as_of).await.is_err() {
                left.push(volume.label());
            }
        }
        if !left.is_empty() || tried == TRIES || !matches!(source, Error::Unreachable { .. }) {
            return Err(GroupError { name: name.to_owned(), left, source });
        }
        tried += 1;
    }
}

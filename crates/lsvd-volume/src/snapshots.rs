//! Snapshots of an open volume: made, listed and removed as versions of its superblock.
//!
//! Knows how a moment gets its number and its pin (rule 7); not who reads it. Invariant: a snapshot holds all that had
//! completed when it was asked for, durably in the store, before its name is there.

use lsvd_engine::Request;
use lsvd_format::names::utc_time;
use lsvd_format::superblock::{CheckpointRef, SNAPSHOTS_MAX, Snapshot, Superblock, check_snapshot_name};
use lsvd_format::{ObjectFormat, SequenceNumber};

use crate::{Error, Retention, Volume};

/// A moment that no kept checkpoint reaches any more, as the store was slow, is taken anew this often.
pub(crate) const TRIES: u32 = 8;

/// What a schedule did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scheduled {
    /// The snapshot that it made; `None` if nothing had changed since the newest one.
    pub created: Option<Snapshot>,
    /// Names of those that it removed.
    pub removed: Vec<String>,
}

impl Volume {
    /// Makes a snapshot of now: a flush to the store and one small object, whatever the volume's size. Everything that had
    /// completed before the call is in it. `automatic` ones may be removed by a schedule.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the name can not be one or is taken, or there are too many; the store's: the snapshot is then
    /// there or not, [`Volume::snapshots`] says which.
    pub async fn create_snapshot(&self, name: &str, automatic: bool) -> Result<Snapshot, Error> {
        self.check_snapshot(name)?;
        let core = self.core();
        for _ in 1..TRIES {
            let as_of = core.seal_all();
            core.request(Request::Drain).await?;
            match self.pin(name, as_of, automatic).await {
                Err(Error::Unreachable { .. }) => {}
                pinned => return pinned,
            }
        }
        let as_of = core.seal_all();
        core.request(Request::Drain).await?;
        self.pin(name, as_of, automatic).await
    }

    /// Whether a snapshot of this name can be made, as far as that is known without the others'.
    pub(crate) fn check_snapshot(&self, name: &str) -> Result<(), Error> {
        check_snapshot_name(name).map_err(Error::Invalid)?;
        self.check_writable()?;
        if self.description().append_format == ObjectFormat::V1 {
            return Err(Error::Invalid(format!(
                "volume '{}' writes its log in format 1, of which no snapshot is made",
                self.label()
            )));
        }
        Ok(())
    }

    /// Names a moment that can be reached.
    pub(crate) async fn pin(
        &self,
        name: &str,
        as_of: SequenceNumber,
        automatic: bool,
    ) -> Result<Snapshot, Error> {
        let pinned = self.named().try_update(|superblock| {
            // One that is known to be damaged is no base: what stands in for it now may go.
            let is_poor = |kept: &CheckpointRef| self.core().wounds().is_poor(kept);
            let snapshot = snapshot_of(&self.label(), superblock, (name, automatic), as_of, is_poor)?;
            let mut moments = superblock.moments.clone();
            moments.snapshots.push(snapshot);
            *superblock = superblock.clone().with_moments(moments);
            Ok(())
        });
        let pinned = pinned.await?;
        self.keep(&pinned);
        pinned.snapshot(name).cloned().ok_or_else(|| Error::Closed { volume: self.label() })
    }

    /// Takes a name back that was given to a moment, or may have been: also where the store's answer was lost.
    pub(crate) async fn unpin(&self, name: &str, as_of: SequenceNumber) -> Result<(), Error> {
        self.named().check_newest().await?;
        let mine = |snapshot: &Snapshot| snapshot.name == name && snapshot.as_of == as_of;
        if !self.named().get().await.moments.snapshots.iter().any(mine) {
            return Ok(());
        }
        let removed = self.named().update(|superblock| {
            let mut moments = superblock.moments.clone();
            moments.snapshots.retain(|snapshot| !mine(snapshot));
            *superblock = superblock.clone().with_moments(moments);
        });
        self.keep(&removed.await?);
        Ok(())
    }

    /// The snapshots, in the order of their making.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]: a reader knows them as of its opening alone; ask [`crate::snapshots()`]. The store's; [`Error::Fenced`]
    /// if another writer has the volume, which may have made and removed others.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        self.check_writable()?;
        // What a version whose answer was lost says counts, too.
        self.named().check_newest().await?;
        Ok(self.named().get().await.moments.snapshots)
    }

    /// Removes a snapshot: what nothing else needs is deleted behind the clients.
    ///
    /// # Errors
    /// [`Error::NoMoment`] if there is none of this name; [`Error::KeptForClone`] if a clone needs it, or may; the store's, as for
    /// [`Volume::create_snapshot`].
    pub async fn remove_snapshot(&self, name: &str) -> Result<(), Error> {
        self.remove(name, false).await
    }

    /// The same also for a snapshot that is kept for a clone of which nothing is at its place: it was never made, or what was
    /// there was lost. Nobody who was about to make it can any more.
    ///
    /// # Errors
    /// As for [`Volume::remove_snapshot`]; a clone that is there is not passed over.
    pub async fn remove_snapshot_of_lost_clone(&self, name: &str) -> Result<(), Error> {
        self.remove(name, true).await
    }

    async fn remove(&self, name: &str, force: bool) -> Result<(), Error> {
        self.check_writable()?;
        let checked = match self.named().get().await.snapshot(name) {
            Some(found) => Some(self.check_released(found.clone(), force).await?),
            None => None,
        };
        let removed = self.named().try_update(|superblock| {
            let Some(found) = superblock.snapshot(name) else {
                return Err(no_snapshot(&self.label(), superblock, name));
            };
            if let Some(clone) = &found.clone
                && Some(found) != checked.as_ref()
            {
                // It came since it was looked at.
                return Err(Error::KeptForClone {
                    volume: self.label(),
                    snapshot: name.to_owned(),
                    clone: clone.path.clone(),
                    what: "it was made just now".to_owned(),
                });
            }
            let mut moments = superblock.moments.clone();
            moments.snapshots.retain(|snapshot| snapshot.name != name);
            *superblock = superblock.clone().with_moments(moments);
            Ok(())
        });
        self.keep(&removed.await?);
        Ok(())
    }

    /// Makes an automatic snapshot, unless the volume surely reads as it did at the newest one, and then removes those automatic
    /// ones that `retention` does not keep. What was done of both.
    ///
    /// # Errors
    /// As for [`Volume::create_snapshot`]; what was done is done.
    pub async fn snapshot_by_schedule(&self, retention: &Retention) -> Result<Scheduled, Error> {
        let snapshots = self.snapshots().await?;
        let own = self.named().get().await.own_line();
        let on_own_line = snapshots.iter().filter(|snapshot| own.contains(snapshot.as_of));
        let newest = on_own_line.max_by_key(|snapshot| snapshot.as_of);
        let mut done = Scheduled::default();
        if newest.is_none_or(|newest| !self.is_unchanged_since(newest)) {
            let name = format!("auto-{}", utc_time(self.core().now_unix_ms()));
            done.created = Some(self.create_snapshot(&name, true).await?);
        }
        for name in retention.expired(&self.named().get().await.moments.snapshots) {
            self.remove_snapshot(&name).await?;
            done.removed.push(name);
        }
        Ok(done)
    }

    /// Sets for how long every commit point stays within reach, in milliseconds; 0 for no longer than two checkpoints.
    ///
    /// # Errors
    /// The store's, or what ended the volume.
    pub async fn set_history(&self, history_ms: u64) -> Result<(), Error> {
        self.check_writable()?;
        // What a version whose answer was lost says counts, too.
        self.named().check_newest().await?;
        if self.named().get().await.moments.history_ms == history_ms {
            return Ok(());
        }
        self.named().update(|superblock| superblock.moments.history_ms = history_ms).await?;
        Ok(())
    }

    /// Whether the volume surely reads as it did at a moment.
    pub fn is_unchanged_since(&self, snapshot: &Snapshot) -> bool {
        self.core().engine(|engine| {
            engine.buffered_bytes() == 0 && engine.prefix().is_unchanged_since(snapshot.as_of)
        })
    }

    /// Tells collection what snapshots keep.
    pub(crate) fn keep(&self, superblock: &Superblock) {
        let newest = superblock.pins().newest();
        self.core().engine(|engine| engine.set_kept_until(newest));
    }
}

/// A snapshot that the version before can reach.
pub(crate) fn snapshot_of(
    label: &str,
    superblock: &Superblock,
    (name, automatic): (&str, bool),
    as_of: SequenceNumber,
    is_poor: impl Fn(&CheckpointRef) -> bool,
) -> Result<Snapshot, Error> {
    check_room(label, superblock, name)?;
    let kept = &superblock.checkpoints;
    let reaches = |kept: &&CheckpointRef| kept.stamp.as_of <= as_of;
    let good = kept.iter().rev().filter(reaches).find(|kept| !is_poor(kept));
    let base = good.or_else(|| kept.iter().rev().find(reaches)).copied();
    if let (None, Some(oldest)) = (base, kept.first()) {
        return Err(Error::Unreachable { volume: label.into(), number: as_of, oldest: oldest.stamp.as_of });
    }
    Ok(Snapshot { base, automatic, ..snapshot_from_beginning(superblock, name, as_of) })
}

/// The same without a checkpoint to read it from: all of the log up to it is kept.
pub(crate) fn snapshot_from_beginning(
    superblock: &Superblock,
    name: &str,
    as_of: SequenceNumber,
) -> Snapshot {
    // One that shrank since the number was sealed had more then.
    let size_bytes = superblock.size_bytes.max(superblock.size_bytes_at(&superblock.line(as_of)));
    let (name, created_unix_ms) = (name.to_owned(), superblock.written_unix_ms);
    Snapshot { name, as_of, base: None, size_bytes, created_unix_ms, automatic: false, clone: None }
}

/// Whether there is room for one more snapshot, of this name.
pub(crate) fn check_room(label: &str, superblock: &Superblock, name: &str) -> Result<(), Error> {
    if superblock.snapshot(name).is_some() {
        return Err(taken(label, name));
    }
    if superblock.moments.snapshots.len() >= SNAPSHOTS_MAX {
        return Err(Error::Invalid(format!(
            "volume '{label}' has {SNAPSHOTS_MAX} snapshots, and can not have more: remove some"
        )));
    }
    Ok(())
}

/// There is a snapshot of this name.
pub(crate) fn taken(label: &str, name: &str) -> Error {
    Error::Invalid(format!("volume '{label}' has a snapshot '{name}' already"))
}

/// There is no snapshot of this name, but there are others.
pub(crate) fn no_snapshot(label: &str, superblock: &Superblock, name: &str) -> Error {
    let known: Vec<&str> = superblock.moments.snapshots.iter().map(|known| known.name.as_str()).collect();
    let reachable = match &known[..] {
        [] => "it has no snapshots".to_owned(),
        known => format!("it has {}", known.join(", ")),
    };
    let reason = "there is no such snapshot".to_owned();
    Error::NoMoment { volume: label.into(), moment: name.to_owned(), reason, reachable }
}

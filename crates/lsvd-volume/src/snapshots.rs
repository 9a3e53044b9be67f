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
    /// [`Error::NoMoment`] if there is none of this name; the store's, as for [`Volume::create_snapshot`].
    pub async fn remove_snapshot(&self, name: &str) -> Result<(), Error> {
        self.check_writable()?;
        let removed = self.named().try_update(|superblock| {
            if superblock.snapshot(name).is_none() {
                return Err(no_snapshot(&self.label(), superblock, name));
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
    fn keep(&self, superblock: &Superblock) {
        let newest = superblock.pins().newest();
        self.core().engine(|engine| engine.set_kept_until(newest));
    }
}

/// A snapshot that the version before can reach.
fn snapshot_of(
    label: &str,
    superblock: &Superblock,
    (name, automatic): (&str, bool),
    as_of: SequenceNumber,
    is_poor: impl Fn(&CheckpointRef) -> bool,
) -> Result<Snapshot, Error> {
    let snapshots = &superblock.moments.snapshots;
    if superblock.snapshot(name).is_some() {
        return Err(taken(label, name));
    }
    if snapshots.len() >= SNAPSHOTS_MAX {
        return Err(Error::Invalid(format!(
            "volume '{label}' has {SNAPSHOTS_MAX} snapshots, and can not have more: remove some"
        )));
    }
    let kept = &superblock.checkpoints;
    let reaches = |kept: &&CheckpointRef| kept.stamp.as_of <= as_of;
    let good = kept.iter().rev().filter(reaches).find(|kept| !is_poor(kept));
    let base = good.or_else(|| kept.iter().rev().find(reaches)).copied();
    if let (None, Some(oldest)) = (base, kept.first()) {
        return Err(Error::Unreachable { volume: label.into(), number: as_of, oldest: oldest.stamp.as_of });
    }
    // One that shrank since the number was sealed had more then.
    let size_bytes = superblock.size_bytes.max(superblock.size_bytes_at(&superblock.line(as_of)));
    let (name, created_unix_ms) = (name.to_owned(), superblock.written_unix_ms);
    Ok(Snapshot { name, as_of, base, size_bytes, created_unix_ms, automatic, clone: None })
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

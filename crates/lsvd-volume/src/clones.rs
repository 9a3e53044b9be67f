//! Clones: writable volumes that begin as another one was at a moment, and share its objects.
//!
//! Knows the order of their making: a snapshot in the parent that is kept for the clone, and only then the clone's first
//! superblock; and the map that a clone's log begins with. Invariants:
//! 1. what the map of a clone can point into is held by the parent's snapshot for it, whose base never changes;
//! 2. that snapshot goes only when the clone says that it shares nothing, or that it is being removed; or when there is no
//!    clone at its place, and none can be made there any more.

use lsvd_backend::Bucket;
use lsvd_engine::{Prefix, Request};
use lsvd_format::superblock::{
    CheckpointRef, Line, PARENTS_MAX, Parent, PinnedFor, Snapshot, Superblock, check_path,
};
use lsvd_format::{NUMBER_MAX, SequenceNumber, SuperblockNumber, VolumeId};

use crate::moments::{Moment, is_held, oldest_held, recover_at};
use crate::reclaim::roots_to_keep;
use crate::recovery::{Behind, Recovered, Replayed, Start, read_prefix, replay, stored_parts};
use crate::remove::marker;
use crate::root::{NewLog, newest_readable, newest_version, put_first_superblock, refuse_existing};
use crate::snapshots::{TRIES, check_room, snapshot_from_beginning, snapshot_of};
use crate::store::{Put, VolumeStore};
use crate::{CreateOptions, Environment, Error, Volume};

/// A clone that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloned {
    /// The clone's identity.
    pub volume_id: VolumeId,
    /// The parent's.
    pub parent: VolumeId,
    /// The moment of the parent that it begins with: the last object that it contains.
    pub as_of: SequenceNumber,
    /// Its size, in bytes.
    pub size_bytes: u64,
}

/// A parent, and the moment that it keeps for a clone whose log begins with the number `first`.
struct Ancestor {
    home: VolumeStore,
    superblock: Superblock,
    pin: Snapshot,
    first: SequenceNumber,
}

/// The map that a volume's log begins with: an empty one, or a clone's parent's as of the moment.
///
/// # Errors
/// The store's; [`Error::Corrupt`] if the parent does not have what it has to.
pub(crate) async fn prefix_to_begin_with(
    store: &VolumeStore,
    superblock: &Superblock,
) -> Result<Prefix, Error> {
    // Up to one that keeps a checkpoint for the next, or began with nothing, and down again.
    let mut ancestors: Vec<Ancestor> = Vec::new();
    let mut prefix = loop {
        let (from, of) = ancestors.last().map_or((store, superblock), |last| (&last.home, &last.superblock));
        match find_ancestor(from, of).await? {
            None => break Prefix::new(of.log_first_number),
            Some(found) if found.pin.base.is_some() => break found.prefix(None).await?,
            Some(found) => ancestors.push(found),
        }
    };
    while let Some(ancestor) = ancestors.pop() {
        prefix = ancestor.prefix(Some(prefix)).await?;
    }
    Ok(prefix)
}

/// The parent of a volume, if its log begins with what that keeps for it.
async fn find_ancestor(store: &VolumeStore, superblock: &Superblock) -> Result<Option<Ancestor>, Error> {
    let first = superblock.log_first_number;
    let Some(parent) = superblock.parent() else {
        if superblock.is_cut() {
            let reason = "the log begins behind a moment of another volume, with which it shares nothing any more: without \
                          a checkpoint it can not be read";
            return Err(store.corrupt(store.log_name(first), reason));
        }
        return Ok(None);
    };
    let lost = |reason: String| {
        store.corrupt(&*parent.path, format!("this volume is a clone of the one there, and {reason}"))
    };
    let home = store.beside(&parent.path)?.with_layout(parent.log_layout.clone());
    let theirs = match newest_readable(&home, true).await {
        Ok((_, theirs)) if theirs.volume_id == parent.volume_id => theirs,
        Ok((_, theirs)) => return Err(lost(format!("another one is there, {}", theirs.volume_id))),
        Err(Error::NotFound { .. } | Error::Removed { .. }) => {
            return Err(lost("it is not there any more".to_owned()));
        }
        Err(error) => return Err(error),
    };
    let is_mine = |pin: &&Snapshot| {
        pin.as_of == parent.as_of && pin.clone.as_ref().is_some_and(|of| of.volume_id == superblock.volume_id)
    };
    let pin = theirs.moments.snapshots.iter().find(is_mine).cloned();
    let pin =
        pin.ok_or_else(|| lost(format!("that one keeps nothing for it as of number {}", parent.as_of)))?;
    Ok(Some(Ancestor { home, superblock: theirs, pin, first }))
}

/// Says if a clone's parent does not keep what the clone shares: it was moved, say, and somebody took it for gone. What is shared may then be
/// deleted at any moment, and may have been.
pub(crate) async fn tell_if_untied(store: &VolumeStore, superblock: &Superblock) {
    match find_ancestor(store, superblock).await {
        Err(error @ Error::Corrupt { .. }) if superblock.parent().is_some() => {
            tracing::error!(
                "{error}. What this volume shares with it may be deleted at any moment: `lsvd flatten` this one now, or put back what was \
                 moved"
            );
        }
        // What can not be asked now is asked by whoever needs it.
        Ok(_) | Err(_) => {}
    }
}

impl Ancestor {
    /// The map that its clone's log begins with: this one's as of the moment, from the checkpoint that it keeps for that and no
    /// other one, as its parts alone are sure to stay and the clone's checkpoints will refer to them; or else from what its own
    /// log begins with. What of the map is damaged and can not be made again is lost for the clone, too, and nothing else is.
    async fn prefix(&self, beginning: Option<Prefix>) -> Result<Prefix, Error> {
        let Self { home, superblock, pin, first } = self;
        let line = superblock.line(pin.as_of);
        let recovered = match (&pin.base, beginning) {
            (Some(base), _) => self.replay_behind(base, &line).await?,
            (None, beginning) => {
                let prefix = beginning.unwrap_or_else(|| Prefix::new(superblock.log_first_number));
                let start = Start::Beginning { prefix, may_lose: superblock.parent().is_some() };
                replay(home, superblock, &line, start, false).await?.whole()
            }
        };
        let replay = recovered.map(|recovered| recovered.replay);
        match replay.filter(|replay| replay.last().is_some_and(|(last, _)| last == pin.as_of)) {
            Some(replay) => Ok(replay.finish().cloned(*first)),
            None => {
                let from =
                    pin.base.map(|base| format!("its checkpoint as of number {} and ", base.stamp.as_of));
                let (from, as_of) = (from.unwrap_or_default(), pin.as_of);
                let reason = format!(
                    "there is a clone of this volume, and {from}its log can not be followed to number {as_of}"
                );
                Err(home.corrupt(home.log_name(pin.as_of), reason))
            }
        }
    }

    async fn replay_behind(&self, base: &CheckpointRef, line: &Line) -> Result<Option<Recovered>, Error> {
        let Self { home, superblock, .. } = self;
        let stored = stored_parts(home).await?;
        let may_be_gone = !superblock.checkpoints.iter().skip(1).any(|kept| kept == base);
        for may_lose in [false, true] {
            let Some(prefix) = read_prefix(home, superblock, base, &stored).await? else { return Ok(None) };
            let behind = Behind { stamp: base.stamp, prefix, may_be_gone, may_lose };
            match replay(home, superblock, line, Start::Checkpoint(behind), false).await? {
                Replayed::Whole(recovered) => return Ok(Some(*recovered)),
                Replayed::RegionDamaged => {}
                Replayed::Other => return Ok(None),
            }
        }
        Ok(None)
    }
}

impl Volume {
    /// Keeps a moment of this volume, or now, for a clone that is to be made at `path` (from this volume's prefix, `../` for
    /// each folder up) with this identity: [`create_clone`] is what comes next. Asked again for the same clone, it gives what it
    /// gave.
    ///
    /// # Errors
    /// [`Error::NoMoment`] if it can not be reached, [`Error::Invalid`] if this volume can have no clone or no more snapshots;
    /// the store's: ask again.
    pub async fn pin_for_clone(
        &self,
        moment: Option<&Moment>,
        volume_id: VolumeId,
        path: &str,
    ) -> Result<Snapshot, Error> {
        let name = format!("clone-{volume_id}");
        self.check_snapshot(&name)?;
        check_path(path).map_err(Error::Invalid)?;
        let clone = PinnedFor { volume_id, path: path.to_owned(), given_up: false };
        let core = self.core();
        if let Some(moment) = moment {
            // Whole, as of now; what is held goes on being so until a version says otherwise.
            let found = recover_at(core.store(), moment).await?;
            return self.pin_clone(&name, Some((moment, found.recovered.base)), found.as_of, &clone).await;
        }
        let mut tries = 1;
        loop {
            let as_of = core.seal_all();
            core.request(Request::Drain).await?;
            match self.pin_clone(&name, None, as_of, &clone).await {
                Err(Error::Unreachable { .. }) if tries < TRIES => tries += 1,
                pinned => return pinned,
            }
        }
    }

    async fn pin_clone(
        &self,
        name: &str,
        moment: Option<(&Moment, Option<CheckpointRef>)>,
        as_of: SequenceNumber,
        clone: &PinnedFor,
    ) -> Result<Snapshot, Error> {
        let pinned = self.named().try_update(|superblock| {
            if superblock.pinned_for_clones().any(|(_, of)| of.volume_id == clone.volume_id) {
                return Ok(()); // a try before, whose answer was lost
            }
            if superblock.parents.len() >= PARENTS_MAX {
                let label = self.label();
                return Err(Error::Invalid(format!(
                    "volume '{label}' is a clone of {PARENTS_MAX} volumes in a row, and has no clones itself: `lsvd flatten` it"
                )));
            }
            let mut moments = superblock.moments.clone();
            moments.snapshots.push(self.snapshot_for(superblock, (name, clone), moment, as_of)?);
            *superblock = superblock.clone().with_moments(moments);
            Ok(())
        });
        let pinned = pinned.await?;
        self.keep(&pinned);
        let mine =
            pinned.pinned_for_clones().find(|(_, of)| *of == clone).map(|(snapshot, _)| snapshot.clone());
        mine.ok_or_else(|| {
            Error::Invalid(format!(
                "volume '{}' keeps nothing for this clone any more, or keeps it for another place: make another clone",
                self.label()
            ))
        })
    }

    /// The snapshot that holds a moment for a clone, as this version can reach it.
    fn snapshot_for(
        &self,
        superblock: &Superblock,
        (name, clone): (&str, &PinnedFor),
        moment: Option<(&Moment, Option<CheckpointRef>)>,
        as_of: SequenceNumber,
    ) -> Result<Snapshot, Error> {
        let (moment, led) = moment.map_or((None, None), |(moment, led)| (Some(moment), led));
        let label = self.label();
        let snapshots = &superblock.moments.snapshots;
        let known = match moment {
            // Two of one number may differ in their sizes, and now is as it is.
            None => None,
            Some(Moment::Snapshot(known)) => superblock.snapshot(known).filter(|known| known.as_of == as_of),
            Some(_) => snapshots.iter().find(|known| known.as_of == as_of),
        };
        check_room(&label, superblock, name)?;
        let is_poor = |kept: &CheckpointRef| self.core().wounds().is_poor(kept);
        let made = match known {
            // What a snapshot has is held with it, whatever else is.
            Some(known) => Snapshot { name: name.to_owned(), automatic: false, ..known.clone() },
            None if is_held(superblock, as_of) => {
                match snapshot_of(&label, superblock, (name, false), as_of, is_poor) {
                    // Before the only checkpoint: it is read from the log's beginning, all of which is there.
                    Err(Error::Unreachable { .. }) if superblock.condemned.is_empty() => {
                        snapshot_from_beginning(superblock, name, as_of)
                    }
                    made => made?,
                }
            }
            None => {
                let oldest = oldest_held(superblock);
                return Err(Error::Unreachable { volume: label, number: as_of, oldest });
            }
        };
        let created_unix_ms = superblock.written_unix_ms;
        // What the moment was just read from is known to lead to it.
        let led = led.filter(|base| roots_to_keep(superblock).contains(base));
        let base = led.or(made.base);
        let size_bytes = match moment {
            Some(Moment::Number(_) | Moment::Time(_)) => superblock.size_bytes_at(&superblock.line(as_of)),
            Some(Moment::Snapshot(_)) | None => made.size_bytes,
        };
        Ok(Snapshot { created_unix_ms, base, size_bytes, clone: Some(clone.clone()), ..made })
    }

    /// Whether a snapshot that is kept for a clone may go; with `force` also if there is no clone at its place, where from
    /// then on none can be made by who was about to. Gives it as it is then.
    pub(crate) async fn check_released(&self, pin: Snapshot, force: bool) -> Result<Snapshot, Error> {
        let Some(clone) = &pin.clone else { return Ok(pin) };
        let core = self.core();
        let refuse = |what: &str| {
            Err(Error::KeptForClone {
                volume: self.label(),
                snapshot: pin.name.clone(),
                clone: clone.path.clone(),
                what: what.to_owned(),
            })
        };
        match standing(core.store(), core.volume_id(), clone).await? {
            Standing::Needs => return refuse("remove the clone first, or `lsvd flatten` it"),
            Standing::Released => return Ok(pin),
            Standing::Absent(_) if !force => {
                return refuse(
                    "no such clone is there. If it was moved, or is not mounted, it still needs this, and loses data without it; if it is gone for good, --force \n                     removes what is kept for it",
                );
            }
            Standing::Absent(_) => {}
        }
        // First: who looks at its place from here on finds that it was given up. Who looked before collides there.
        let given_up = self.give_up(&pin).await?;
        loop {
            match standing(core.store(), core.volume_id(), clone).await? {
                Standing::Needs => return refuse("it was made just now"),
                Standing::Released | Standing::Absent(None) => return Ok(given_up),
                Standing::Absent(Some(next)) => {
                    let (place, number) = *next;
                    let gone = marker(core.environment(), clone.volume_id, number, pin.as_of.next());
                    match place.put_superblock(number, &gone).await? {
                        Put::Mine => return Ok(given_up),
                        Put::Theirs(_) => {} // whoever it is, it came first
                    }
                }
            }
        }
    }

    /// Says that the clone that a snapshot is kept for is not to be made any more. Gives the snapshot that says so.
    async fn give_up(&self, pin: &Snapshot) -> Result<Snapshot, Error> {
        let clone = pin.clone.clone().map(|clone| PinnedFor { given_up: true, ..clone });
        let given_up = Snapshot { clone, ..pin.clone() };
        if given_up != *pin {
            let update = self.named().update(|superblock| {
                let mut moments = superblock.moments.clone();
                let mine = moments.snapshots.iter_mut().filter(|snapshot| *snapshot == pin);
                mine.for_each(|snapshot| *snapshot = given_up.clone());
                *superblock = superblock.clone().with_moments(moments);
            });
            update.await?;
        }
        Ok(given_up)
    }
}

/// What there is where a clone should be.
enum Standing {
    /// The clone, which shares objects.
    Needs,
    /// The clone, which shares none any more, or is being removed.
    Released,
    /// No such clone; with the version by which it would be made, unless something else is there that keeps it from that.
    Absent(Option<Box<(VolumeStore, SuperblockNumber)>>),
}

async fn standing(store: &VolumeStore, parent: VolumeId, clone: &PinnedFor) -> Result<Standing, Error> {
    let place = match store.beside(&clone.path) {
        Ok(place) => place,
        // A directory that is gone: who has it open can not write there any more.
        Err(Error::Store { source: lsvd_backend::Error::NotFound { .. }, .. }) => {
            return Ok(Standing::Absent(None));
        }
        Err(error) => return Err(error),
    };
    match newest_version(&place, false).await {
        Ok((_, theirs)) if theirs.volume_id == clone.volume_id && !theirs.is_gone() => {
            let shares = theirs.parents.iter().any(|of| of.volume_id == parent);
            Ok(if shares && theirs.removal.is_none() { Standing::Needs } else { Standing::Released })
        }
        // Which of the two left it can not be told apart, and need not be.
        Ok((number, theirs)) if theirs.is_gone() => {
            let released = theirs.volume_id == clone.volume_id;
            Ok(if released {
                Standing::Released
            } else {
                Standing::Absent(Some(Box::new((place, number.next()))))
            })
        }
        Ok(_) => Ok(Standing::Absent(None)),
        Err(Error::NotFound { .. }) => Ok(Standing::Absent(Some(Box::new((place, SuperblockNumber(1)))))),
        Err(error) => Err(error),
    }
}

/// Makes the clone on `bucket` for which the volume at `parent_path` (from the clone's prefix) keeps a moment:
/// [`Volume::pin_for_clone`] was called with this identity. A few requests, whatever the parent's size.
///
/// # Errors
/// [`Error::Exists`] if there is a volume; [`Error::Invalid`] if the path does not lead to a volume that keeps something for the
/// clone, or the place has another log's objects. The store's: the clone is there or not, and what is kept for it stays.
pub async fn create_clone(
    bucket: &Bucket,
    parent_path: &str,
    volume_id: VolumeId,
    environment: &Environment,
) -> Result<Cloned, Error> {
    let store = VolumeStore::new(bucket.clone());
    // In this order: see `Volume::check_released`.
    let marker = refuse_existing(&store).await?;
    let home = store.beside(parent_path)?;
    let (_, theirs) = newest_readable(&home, false).await?;
    let pin = theirs.pinned_for_clones().find(|(_, of)| of.volume_id == volume_id && !of.given_up);
    let Some((pin, _)) = pin else {
        return Err(Error::Invalid(format!("volume '{}' keeps no moment for this clone", home.label())));
    };
    let least = marker.as_ref().map_or(SequenceNumber(1), |(_, marker)| marker.log_first_number);
    let first = pin.as_of.next().max(least);
    if first.0 > NUMBER_MAX / 2 || store.list_log(None).await?.iter().any(|entry| entry.number >= first) {
        return Err(Error::Invalid(format!(
            "'{}' has objects of a log, but no superblock: they would be taken for the clone's; choose another place",
            store.label()
        )));
    }
    let parents = parents(&theirs, parent_path, pin.as_of);
    parents.iter().try_for_each(|parent| check_path(&parent.path)).map_err(Error::Invalid)?;
    // What the store promises, it promises here as there.
    let options = CreateOptions {
        window: theirs.window,
        unsafe_single_writer: theirs.unsafe_single_writer,
        environment: environment.clone(),
        ..CreateOptions::new(pin.size_bytes)
    };
    let log = NewLog {
        layout: None,
        first,
        reached: None,
        clone: Some((volume_id, parents)),
        has_lost_blocks: theirs.has_lost_blocks(),
    };
    put_first_superblock(&store, &options, log, marker.map(|(number, _)| number)).await?;
    Ok(Cloned { volume_id, parent: theirs.volume_id, as_of: pin.as_of, size_bytes: pin.size_bytes })
}

/// The parents of a clone of `theirs`: its own, seen from the clone, and itself.
fn parents(theirs: &Superblock, path: &str, as_of: SequenceNumber) -> Vec<Parent> {
    let farther = theirs.parents.iter().map(|of| Parent { path: joined(path, &of.path), ..of.clone() });
    let nearest = Parent {
        volume_id: theirs.volume_id,
        path: path.to_owned(),
        as_of,
        log_layout: theirs.log_layout.clone(),
    };
    farther.chain([nearest]).collect()
}

/// One path behind another, without going down where it goes up again.
fn joined(first: &str, then: &str) -> String {
    let mut segments: Vec<&str> = first.split('/').collect();
    for segment in then.split('/') {
        if segment == ".." && segments.last().is_some_and(|last| *last != "..") {
            segments.pop();
        } else {
            segments.push(segment);
        }
    }
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn a_path_behind_a_path_is_as_short_as_it_can_be() {
        for (first, then, both) in [
            ("../b", "../a", "../a"),
            ("../b", "../../x/a", "../../x/a"),
            ("..", "../a", "../../a"),
            ("b/c", "..", "b"),
            ("../b", "c", "../b/c"),
        ] {
            assert_eq!(joined(first, then), both, "{first} and then {then}");
        }
    }
}

//! Deleting what nothing refers to any more, in the order of rule 7: condemned by a durable superblock version, then a
//! grace period for readers, then a look for a newer writer, and only then deleted.
//!
//! Knows log objects and checkpoint objects; which of them are dead, the object table and the kept roots say, and which
//! snapshots need, the superblock's pins. Nothing is deleted from what this process alone remembers: after a restart the
//! superblock's list is worked off. Invariants: what is condemned is needed by no pin of the version that condemns it; and it
//! was part of the log once: what never was, is archived (rule 3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lsvd_engine::ObjectState;
use lsvd_format::checkpoint::PartId;
use lsvd_format::log_object::Entry;
use lsvd_format::superblock::{CheckpointRef, Moments, NumberRange, Pins, Superblock};
use lsvd_format::{AnyHeader, SequenceNumber, names};
use tokio::time::Instant;

use crate::Error;
use crate::core::Core;
use crate::named::NamedState;
use crate::regions::read_root;
use crate::store::ListedLog;
use crate::takeover::archive_stray;

/// Objects condemned at once: it bounds the superblock's list.
const CONDEMNED_MAX: usize = 4096;
/// A fence is shorter: what is longer is none.
const FENCE_BYTES_MAX: u64 = 4096;
/// Deletes at once.
const DELETES_AT_ONCE: usize = 16;

pub(crate) struct Reclaimer {
    core: Arc<Core>,
    named: NamedState,
    delete_after: Duration,
    /// Since when this process knows that the list of condemned objects is durable.
    condemned: Option<(BTreeSet<SequenceNumber>, Instant)>,
    /// Numbers of the list that are deleted: the next version leaves them out.
    deleted: BTreeSet<SequenceNumber>,
    /// The oldest checkpoint and the snapshots when all dead objects were last condemned.
    condemned_as_of: Option<(SequenceNumber, Moments)>,
    /// The same of when the dead ones of the parents were last forgotten.
    forgotten_as_of: Option<(SequenceNumber, Moments)>,
    /// The moments when the branches that rollbacks left were last looked through and nothing was found.
    looked_through: Option<Moments>,
    /// Since when no kept root refers to these objects of the checkpoints' folder.
    unreferenced: BTreeMap<PartId, Instant>,
    /// What each kept root refers to.
    roots: Vec<(CheckpointRef, BTreeSet<PartId>)>,
    /// The roots to keep when the folder was last looked through.
    swept: Vec<CheckpointRef>,
}

impl Reclaimer {
    pub(crate) fn new(core: Arc<Core>, named: NamedState, delete_after: Duration) -> Self {
        Self {
            core,
            named,
            delete_after,
            condemned: None,
            deleted: BTreeSet::new(),
            condemned_as_of: None,
            forgotten_as_of: None,
            looked_through: None,
            unreferenced: BTreeMap::new(),
            roots: Vec::new(),
            swept: Vec::new(),
        }
    }

    /// Does what is due.
    ///
    /// # Errors
    /// [`Error::Fenced`], or the store's: call it again later.
    pub(crate) async fn round(&mut self) -> Result<(), Error> {
        let superblock = self.named.get().await;
        self.forget_shared(&superblock);
        self.condemn(&superblock).await?;
        self.delete_condemned().await?;
        self.sweep_checkpoints().await
    }

    /// Forgets parents' objects that the volume needs no more: whether they go is their own volume's to say.
    fn forget_shared(&mut self, superblock: &Superblock) {
        let Some(oldest) = oldest_to_keep(superblock) else { return };
        let seen = (oldest, superblock.moments.clone());
        if self.forgotten_as_of.as_ref() != Some(&seen) {
            let pins = superblock.pins();
            self.core.forget_shared(|state| dead_by(state, oldest, &pins).is_some());
            self.forgotten_as_of = Some(seen);
        }
    }

    /// Log objects that are condemned and not deleted, as far as the last round has seen.
    pub(crate) async fn outstanding(&self) -> BTreeSet<SequenceNumber> {
        let listed = numbers(&self.named.get().await.condemned);
        &listed - &self.deleted
    }

    /// Objects of which nothing is live and nothing needs any: what is not condemned of them will be.
    pub(crate) async fn may_go(&self) -> BTreeSet<SequenceNumber> {
        let superblock = self.named.get().await;
        let Some(oldest) = oldest_to_keep(&superblock) else { return BTreeSet::new() };
        let pins = superblock.pins();
        dead_objects(&self.core, oldest, &pins, usize::MAX).into_keys().collect()
    }

    /// Puts dead objects on the superblock's list, when the list before is worked off.
    async fn condemn(&mut self, superblock: &Superblock) -> Result<(), Error> {
        if self.condemned.is_some() {
            return Ok(());
        }
        let listed = numbers(&superblock.condemned);
        let worked_off = listed.iter().all(|number| self.deleted.contains(number));
        if !worked_off {
            // An opening before condemned them: whoever opened meanwhile has its grace from now on.
            self.condemned = Some((&listed - &self.deleted, Instant::now()));
            return Ok(());
        }
        let Some(oldest) = oldest_to_keep(superblock) else { return Ok(()) };
        let seen = (oldest, superblock.moments.clone());
        if self.condemned_as_of.as_ref() == Some(&seen) && listed.is_empty() {
            return Ok(());
        }
        let pins = superblock.pins();
        let most = CONDEMNED_MAX + 1;
        let dead = dead_objects(&self.core, oldest, &pins, most);
        let left = self.left_behind(superblock, oldest).await?;
        let all = dead.len() + left.len() <= CONDEMNED_MAX;
        self.condemned_as_of = all.then_some(seen);
        if dead.is_empty() && left.is_empty() && listed.is_empty() {
            return Ok(());
        }
        let condemned = self.named.update(|superblock| {
            // Of this very version: a snapshot may have come first.
            let pins = superblock.pins();
            let dead = dead.iter().filter(|(number, died)| !pins.need(**number, **died));
            let left = left.iter().filter(|number| !pins.need_branch(**number));
            let numbers = dead.map(|(number, _)| *number).chain(left.copied()).take(CONDEMNED_MAX);
            superblock.condemned = ranges(&numbers.collect());
        });
        let condemned = numbers(&condemned.await?.condemned);
        self.deleted.clear();
        if !condemned.is_empty() {
            let objects = condemned.len();
            tracing::info!(volume = %self.core.store().label(), "{objects} dead objects are condemned");
            self.condemned = Some((condemned, Instant::now()));
        }
        Ok(())
    }

    /// Objects on branches that a rollback left and that no snapshot needs, but for fences, which stay (rule 9), and for what
    /// came behind a fence of theirs and was never part of the log: that is archived on the way.
    async fn left_behind(
        &mut self,
        superblock: &Superblock,
        oldest: SequenceNumber,
    ) -> Result<BTreeSet<SequenceNumber>, Error> {
        let mut left = BTreeSet::new();
        let Some(last) = superblock.moments.rollbacks.last() else { return Ok(left) };
        if self.looked_through.as_ref() == Some(&superblock.moments) {
            return Ok(left);
        }
        let store = self.core.store();
        let (own, pins) = (superblock.own_line(), superblock.pins());
        let (mut strays, mut skipped_until) = (Vec::new(), SequenceNumber(0));
        for ListedLog { number, object_bytes } in store.list_log(None).await? {
            if number < superblock.log_first_number {
                continue; // of a volume that was here before
            }
            if number >= last.next || number > oldest || left.len() > CONDEMNED_MAX {
                break;
            }
            if own.contains(number) || pins.need_branch(number) || superblock.is_condemned(number) {
                continue;
            }
            if number < skipped_until || is_behind_its_fence(superblock, number) {
                strays.push(number);
                continue;
            }
            if object_bytes <= FENCE_BYTES_MAX {
                match store.read_log_header(number).await {
                    Ok(Some(AnyHeader::V2(header)))
                        if matches!(header.entries[..], [Entry::Fence { .. }]) =>
                    {
                        skipped_until = header.next_number();
                        continue;
                    }
                    Ok(_) => {}
                    Err(error @ (Error::Corrupt { .. } | Error::Newer { .. })) => {
                        tracing::warn!("it stays where it is: {error}");
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            left.insert(number);
        }
        let archived = self.archive(superblock, strays).await?;
        let whole = archived && left.is_empty() && oldest >= last.next;
        self.looked_through = whole.then(|| superblock.moments.clone());
        Ok(left)
    }

    /// Archives what is no part of any line of the log; whether all of it could be.
    async fn archive(&self, superblock: &Superblock, strays: Vec<SequenceNumber>) -> Result<bool, Error> {
        if strays.is_empty() {
            return Ok(true);
        }
        // A move ends with a delete (rule 9).
        self.named.check_newest().await?;
        let at_unix_ms = self.core.now_unix_ms();
        let mut all = true;
        for number in strays {
            all &= archive_stray(self.core.store(), superblock, number, at_unix_ms).await.is_ok();
        }
        Ok(all)
    }

    async fn delete_condemned(&mut self) -> Result<(), Error> {
        let Some((numbers, since)) = &self.condemned else { return Ok(()) };
        if since.elapsed() < self.delete_after {
            return Ok(());
        }
        self.named.check_newest().await?;
        let store = self.core.store();
        let deletes = futures::stream::iter(numbers.iter().copied()).map(|number| async move {
            let deleted = store.bucket().delete(&store.log_name(number)).await;
            deleted.map(|()| number).map_err(|error| store.store_error(error))
        });
        let results: Vec<Result<SequenceNumber, Error>> = deletes.buffered(DELETES_AT_ONCE).collect().await;
        let mut failed = None;
        for result in results {
            match result {
                Ok(number) => {
                    self.deleted.insert(number);
                    self.core.deleted(number);
                }
                Err(error) => failed = Some(error),
            }
        }
        let deleted = &self.deleted;
        if let Some((numbers, _)) = &mut self.condemned {
            numbers.retain(|number| !deleted.contains(number));
            if numbers.is_empty() {
                self.condemned = None;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Deletes objects of the checkpoints' folder to which no kept root refers, when that has been so for long enough.
    async fn sweep_checkpoints(&mut self) -> Result<(), Error> {
        let kept = roots_to_keep(&self.named.get().await);
        if kept.is_empty() || (kept == self.swept && self.unreferenced.is_empty()) {
            return Ok(());
        }
        let core = self.core.clone();
        let store = core.store();
        if kept != self.swept {
            let mut referenced = BTreeSet::new();
            for checkpoint in &kept {
                let Some(parts) = self.parts_of(checkpoint).await? else {
                    // It may refer to anything. Nothing is asked again before other ones are kept.
                    self.unreferenced.clear();
                    self.swept = kept;
                    return Ok(());
                };
                referenced.extend(parts);
                referenced.insert(checkpoint.part);
            }
            self.roots.retain(|(known, _)| kept.contains(known));
            let listed = store.bucket().list(names::CHECKPOINT_FOLDER, None).await;
            let listed = listed.map_err(|error| store.store_error(error))?;
            let now = Instant::now();
            let unreferenced = listed.iter().filter_map(|entry| names::parse_checkpoint_part(&entry.name));
            let unreferenced = unreferenced.filter(|part| !referenced.contains(part));
            self.unreferenced = unreferenced
                .map(|part| (part, self.unreferenced.get(&part).copied().unwrap_or(now)))
                .collect();
            self.swept = kept;
        }
        let due = self.unreferenced.iter().filter(|(_, since)| since.elapsed() >= self.delete_after);
        let due: Vec<PartId> = due.map(|(part, _)| *part).collect();
        if due.is_empty() {
            return Ok(());
        }
        // The listing was before this look: what a newer writer stores is not on it.
        self.named.check_newest().await?;
        if roots_to_keep(&self.named.get().await) != self.swept {
            return Ok(()); // a version of mine that was thought to have failed names other ones
        }
        for part in due {
            let deleted = store.bucket().delete(&names::checkpoint_part(&part)).await;
            deleted.map_err(|error| store.store_error(error))?;
            self.unreferenced.remove(&part);
        }
        Ok(())
    }

    /// The objects that a root refers to; `None` if it can not be read.
    async fn parts_of(&mut self, checkpoint: &CheckpointRef) -> Result<Option<BTreeSet<PartId>>, Error> {
        if let Some((_, parts)) = self.roots.iter().find(|(known, _)| known == checkpoint) {
            return Ok(Some(parts.clone()));
        }
        let store = self.core.store();
        match read_root(store, self.core.volume_id(), checkpoint).await {
            Ok(root) => {
                let parts: BTreeSet<PartId> = root.parts.iter().map(|part| part.part).collect();
                self.roots.push((*checkpoint, parts.clone()));
                Ok(Some(parts))
            }
            Err(error @ (Error::Corrupt { .. } | Error::Missing { .. } | Error::Newer { .. })) => {
                tracing::warn!("no object of a checkpoint is deleted while this one is kept: {error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a number is one that the fence of a rollback skips: what has it came too late for the branch that was left.
fn is_behind_its_fence(superblock: &Superblock, number: SequenceNumber) -> bool {
    let skips = |next: SequenceNumber| next.0.saturating_sub(superblock.window) < number.0 && number < next;
    superblock.moments.rollbacks.iter().any(|rollback| skips(rollback.next))
}

/// Checkpoints that are kept or that snapshots are read from.
pub(crate) fn roots_to_keep(superblock: &Superblock) -> Vec<CheckpointRef> {
    let mut roots = superblock.checkpoints.clone();
    for base in superblock.moments.snapshots.iter().filter_map(|snapshot| snapshot.base) {
        if !roots.contains(&base) {
            roots.push(base);
        }
    }
    roots
}

/// The number at which objects have to be dead to be deleted: the oldest checkpoint's, if two are kept.
fn oldest_to_keep(superblock: &Superblock) -> Option<SequenceNumber> {
    let enough = superblock.checkpoints.len() >= crate::checkpoint::CHECKPOINTS_KEPT;
    superblock.checkpoints.first().filter(|_| enough).map(|oldest| oldest.stamp.as_of)
}

/// The volume's own objects of which nothing was live any more as of `oldest` and that no snapshot needs, each with the number
/// at which its last block died: the first ones, `most` at most.
fn dead_objects(
    core: &Core,
    oldest: SequenceNumber,
    pins: &Pins,
    most: usize,
) -> BTreeMap<SequenceNumber, SequenceNumber> {
    let mut dead = BTreeMap::new();
    core.each_own_object(|state| {
        if let Some((number, died)) = dead_by(state, oldest, pins) {
            dead.insert(number, died);
            if dead.len() > most {
                dead.pop_last();
            }
        }
    });
    dead
}

/// An object's number, and at which its last block died, if nothing was live of it any more as of `oldest` and no snapshot
/// needs it.
fn dead_by(
    state: &ObjectState,
    oldest: SequenceNumber,
    pins: &Pins,
) -> Option<(SequenceNumber, SequenceNumber)> {
    let number = state.record.identity.number;
    let died = state.died_at.filter(|died| *died <= oldest && number <= oldest)?;
    (!pins.need(number, died)).then_some((number, died))
}

fn numbers(ranges: &[NumberRange]) -> BTreeSet<SequenceNumber> {
    ranges.iter().flat_map(|range| range.first.0..=range.last.0).map(SequenceNumber).collect()
}

/// Runs of neighbouring numbers.
fn ranges(numbers: &BTreeSet<SequenceNumber>) -> Vec<NumberRange> {
    let mut ranges: Vec<NumberRange> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some(last) if last.last.next() == number => last.last = number,
            _ => ranges.push(NumberRange { first: number, last: number }),
        }
    }
    ranges
}

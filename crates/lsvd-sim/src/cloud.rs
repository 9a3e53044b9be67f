//! The store that all processes of a run share: objects in memory, strongly consistent, and a witness of rules.
//!
//! Knows names and bytes, and of the format only what a fence is. Faults on the way to it are `link`'s. Watches
//! by itself that no journal is given up unasked (`ledger`, rule 1), that no number is used twice with different bytes (rule 2), that nothing is taken from the log but into
//! the archive (rule 3), that the newest superblock version stays (rule 7), and that fences stay (rule 9).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lsvd_format::checkpoint::{PartId, RegionPlace, decode_root};
use lsvd_format::log_object::{Entry, Header};
use lsvd_format::superblock::{self, CheckpointRef, Superblock};
use lsvd_format::{SequenceNumber, SuperblockNumber, names};

use crate::census::Census;
use crate::chronicle::Chronicle;
use crate::deeds::Deeds;
use crate::ledger::{Author, Ledger};
use crate::mutation::Mutation;
use crate::oracle::Violation;
use crate::stage::Stage;

/// The bucket's prefix that the volume lies under.
pub(crate) const PREFIX: &str = "sim/vol";

/// Requests in one run beyond which somebody is asking without end.
const REQUESTS_MAX: u64 = 200_000;

/// An object as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) bytes: Bytes,
    pub(crate) modified_unix_ms: u64,
}

/// The objects, and what was ever under each name of the log.
#[derive(Debug)]
pub(crate) struct Cloud {
    stage: Arc<Stage>,
    mutation: Option<Mutation>,
    objects: BTreeMap<String, Stored>,
    log_ever: BTreeMap<String, Bytes>,
    ledger: Ledger,
    requests: u64,
    deeds: Deeds,
    /// Objects that were damaged on purpose, as they were.
    whole: BTreeMap<String, Stored>,
    /// Roots of the checkpoints that were.
    damaged: BTreeSet<PartId>,
    /// Some of them in regions of the map that the one before has not.
    rotten: BTreeSet<PartId>,
    /// What readers are given between condemnation and deletion, in milliseconds.
    grace_ms: u64,
    /// When each number was condemned for the first time.
    condemned_at: BTreeMap<SequenceNumber, u64>,
    /// Condemned objects that were deleted, whatever came there later.
    gone: BTreeSet<SequenceNumber>,
    copies: u64,
    /// Superblock versions that were sent and have neither landed nor got lost.
    versions_in_flight: u64,
    chronicle: Chronicle,
    /// The volume is being removed, or was.
    removed: bool,
    /// A version has said so. It goes when another volume is made in the place, and somebody's delete may land later.
    said_removed: bool,
}

impl Cloud {
    pub(crate) fn new(stage: Arc<Stage>, mutation: Option<Mutation>) -> Self {
        let (objects, log_ever, ledger) = (BTreeMap::new(), BTreeMap::new(), Ledger::default());
        let (deeds, whole) = (Deeds::default(), BTreeMap::new());
        Self {
            stage,
            mutation,
            objects,
            log_ever,
            ledger,
            requests: 0,
            deeds,
            whole,
            damaged: BTreeSet::new(),
            rotten: BTreeSet::new(),
            grace_ms: 0,
            condemned_at: BTreeMap::new(),
            gone: BTreeSet::new(),
            copies: 0,
            versions_in_flight: 0,
            chronicle: Chronicle::default(),
            removed: false,
            said_removed: false,
        }
    }

    /// Somebody is to remove the volume: from now on deletes have other rules.
    pub(crate) fn remove(&mut self) {
        self.removed = true;
    }

    /// Whether the rules of a volume that is at work hold no more.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed
    }

    /// A superblock version was sent, or has landed or got lost.
    pub(crate) fn note_version(&mut self, sent: bool) {
        self.versions_in_flight =
            if sent { self.versions_in_flight + 1 } else { self.versions_in_flight - 1 };
    }

    /// Whether a superblock version may land that was sent already.
    pub(crate) fn is_version_in_flight(&self) -> bool {
        self.versions_in_flight > 0
    }

    /// All log objects that ever were, and the version that counts.
    pub(crate) fn chronicle(&mut self) -> Option<(&mut Chronicle, &Superblock)> {
        self.ledger.newest().map(|newest| (&mut self.chronicle, newest))
    }

    /// Readers are given so long between condemnation and deletion.
    pub(crate) fn set_grace(&mut self, grace: Duration) {
        self.grace_ms = u64::try_from(grace.as_millis()).expect("a run does not last for ever");
    }

    /// Rule 7: what is condemned stays for the grace period. Asked when the delete is sent.
    pub(crate) fn check_grace(&self, name: &str) {
        let number = names::parse_log_object(relative(name));
        let Some(at) = number.and_then(|number| self.condemned_at.get(&number)) else { return };
        let waited_ms = self.stage.now_ms() - at;
        if waited_ms < self.grace_ms {
            let what = format!(
                "'{name}' is deleted {waited_ms} ms after it was condemned, and not {}",
                self.grace_ms
            );
            self.stage.accuse(Violation::new(7, what));
        }
    }

    /// Whether a kept checkpoint has a region that rotted, and the one before has it whole.
    pub(crate) fn is_rotten(&self) -> bool {
        let kept = self.ledger.newest().map(|superblock| superblock.checkpoints.clone()).unwrap_or_default();
        kept.iter().any(|kept| self.rotten.contains(&kept.part))
    }

    /// Counts a request; `false` once there were so many that the run is to be ended.
    pub(crate) fn admit(&mut self) -> bool {
        self.requests += 1;
        if self.requests == REQUESTS_MAX {
            self.stage.accuse(Violation::new(10, format!("{REQUESTS_MAX} requests in one small run")));
        }
        self.requests < REQUESTS_MAX
    }

    /// What the superblock versions said of journals.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What was done behind the clients so far.
    pub(crate) fn deeds(&mut self) -> &mut Deeds {
        &mut self.deeds
    }

    /// The store's objects at this moment, with what was damaged on purpose whole.
    pub(crate) fn whole_copy(&self) -> Self {
        let mut copy = Self::new(Arc::clone(&self.stage), None);
        copy.objects = self.objects.clone();
        copy.objects.extend(self.whole.clone());
        copy
    }

    /// A number for a copy.
    pub(crate) fn next_copy(&mut self) -> u64 {
        self.deeds.compared += 1;
        self.copies += 1;
        self.copies
    }

    /// An object is gone, and nobody did it.
    pub(crate) fn lose(&mut self, name: &str) {
        self.objects.remove(name);
    }

    /// Whether the newest kept checkpoint was damaged on purpose.
    pub(crate) fn is_newest_damaged(&self) -> bool {
        let newest = self.ledger.newest().and_then(|superblock| superblock.checkpoints.last());
        newest.is_some_and(|newest| self.damaged.contains(&newest.part))
    }

    /// Damages the newest kept checkpoint, unless the one before is not good itself: its root, or (`regions`) an object that
    /// it alone refers to. Gives the object's name.
    pub(crate) fn damage_checkpoint(&mut self, regions: bool, salt: u64) -> Option<String> {
        let superblock = self.ledger.newest()?;
        let [.., before, newest] = superblock.checkpoints[..] else { return None };
        if superblock.checkpoints.iter().any(|kept| self.damaged.contains(&kept.part)) {
            return None;
        }
        // Somebody dead may have said that this checkpoint is the older one, and it only has to arrive.
        if self.is_version_in_flight() {
            return None;
        }
        // Objects of its regions, and where the regions are in them.
        let places = |checkpoint: &CheckpointRef| {
            let stored = self.objects.get(&at(&names::checkpoint_part(&checkpoint.part)))?;
            let from = usize::try_from(checkpoint.root_offset_bytes).ok()?;
            let root = decode_root(superblock.volume_id, checkpoint.part, stored.bytes.get(from..)?).ok()?;
            let place = |of: &RegionPlace| {
                let from = usize::try_from(of.offset_bytes).expect("it is in memory");
                (root.parts[of.part as usize].part, from..from + of.length_bytes as usize)
            };
            Some(root.regions.iter().map(place).collect::<Vec<_>>())
        };
        let (part, flippable) = match regions {
            false => {
                (newest.part, usize::try_from(newest.root_offset_bytes).expect("it is in memory")..usize::MAX)
            }
            true => {
                let (old, mut new) = (places(&before)?, places(&newest)?);
                new.retain(|(part, _)| old.iter().all(|(other, _)| other != part));
                new.get(usize::try_from(salt >> 40).expect("24 bits fit") % new.len().max(1))?.clone()
            }
        };
        let name = at(&names::checkpoint_part(&part));
        let stored = self.objects.get(&name)?.clone();
        let length = stored.bytes.len();
        let flippable = flippable.start..flippable.end.min(length);
        let bytes = match salt % 3 {
            0 => None,
            1 => Some(stored.bytes.slice(..length - 1)),
            _ => {
                let mut flipped = stored.bytes.to_vec();
                let many = flippable.len() as u64;
                let byte = flippable.start + usize::try_from((salt >> 8) % many).expect("an index fits");
                if regions {
                    self.rotten.insert(newest.part);
                }
                flipped[byte] ^= 1 << (salt >> 4 & 7);
                Some(flipped.into())
            }
        };
        match bytes {
            Some(bytes) => self.put(&name, bytes),
            None => self.lose(&name),
        }
        self.whole.insert(name.clone(), stored);
        self.damaged.insert(newest.part);
        self.deeds.damaged += 1;
        self.stage.event(format_args!("{} is damaged", relative(&name)));
        Some(name)
    }

    /// Somebody is to remove a snapshot.
    pub(crate) fn may_forget(&mut self, snapshot: &str) {
        self.ledger.may_forget(snapshot);
    }

    /// Whether the checkpoint with its root in this object was damaged on purpose.
    pub(crate) fn is_damaged(&self, root: PartId) -> bool {
        self.damaged.contains(&root)
    }

    /// Counts a GET.
    pub(crate) fn note_read(&mut self, name: &str) {
        let part = names::parse_checkpoint_part(relative(name));
        self.deeds.region_reads += u64::from(part.is_some_and(|part| !self.ledger.is_root(part)));
    }

    /// Another object of the folder that `name` is in, if there is one.
    pub(crate) fn neighbour(&self, name: &str, salt: u64) -> Option<Stored> {
        let folder = relative(name).split_inclusive('/').next()?;
        let others: Vec<&Stored> =
            self.folder(folder).filter(|(other, _)| *other != name).map(|(_, stored)| stored).collect();
        let at = usize::try_from(salt % (others.len().max(1)) as u64).expect("an index fits");
        others.get(at).map(|stored| (*stored).clone())
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    pub(crate) fn get(&self, name: &str) -> Option<Stored> {
        self.objects.get(name).cloned()
    }

    /// Creates an object; `false` if there is one of this name, which is then left alone.
    pub(crate) fn create(&mut self, name: &str, bytes: Bytes, author: Author) -> bool {
        let mut bytes = bytes;
        let in_log = relative(name).starts_with(names::LOG_FOLDER);
        let numbered = in_log || relative(name).starts_with(names::SUPERBLOCK_FOLDER);
        match self.mutation {
            Some(Mutation::OverwritingStore) if numbered => {
                self.witness_superblock(name, &bytes, author);
                self.put(name, bytes);
                return true;
            }
            Some(Mutation::DroppedFence) if in_log && fence_of(&bytes).is_some() => return true,
            Some(Mutation::NarrowFence) if in_log => bytes = narrowed(bytes),
            _ => {}
        }
        if self.objects.contains_key(name) {
            return false;
        }
        if in_log && self.mutation.is_none() {
            self.witness_number(name, &bytes);
        }
        self.witness_superblock(name, &bytes, author);
        if in_log {
            let moved = moved_blocks(&bytes);
            self.deeds.moved_blocks += moved;
            self.deeds.moved_objects += u64::from(moved > 0);
        }
        self.put(name, bytes);
        true
    }

    /// Puts an object, whatever is there.
    pub(crate) fn overwrite(&mut self, name: &str, bytes: Bytes) {
        let numbered = [names::LOG_FOLDER, names::SUPERBLOCK_FOLDER, names::ARCHIVE_FOLDER];
        if numbered.iter().any(|folder| relative(name).starts_with(folder)) {
            self.stage
                .accuse(Violation::new(2, format!("'{name}' was put without the condition that it is new")));
        }
        self.put(name, bytes);
    }

    fn put(&mut self, name: &str, bytes: Bytes) {
        if let Some(number) = names::parse_log_object(relative(name)) {
            self.chronicle.stored(number, &bytes);
        }
        let modified_unix_ms = self.stage.unix_ms(0);
        self.objects.insert(name.to_owned(), Stored { bytes, modified_unix_ms });
    }

    /// Rule 2: the same number never means two objects, not even after the first was archived.
    fn witness_number(&mut self, name: &str, bytes: &Bytes) {
        let number = names::parse_log_object(relative(name));
        // What somebody sent before the volume was removed may land where it was deleted: below all that the next one uses.
        let late = self.removed && number.is_some_and(|number| self.is_below_anew(number));
        let before = self.log_ever.entry(name.to_owned()).or_insert_with(|| bytes.clone());
        // A newcomer that slept since it saw the log end there may put its fence where an object was collected. Nobody
        // reads numbers so low any more, and it sees a higher epoch before it does anything else.
        let collected = number.is_some_and(|number| self.ledger.has_condemned(number));
        let late_fence = collected && fence_of(bytes).is_some();
        if before != bytes && !late_fence && !late {
            self.stage.accuse(Violation::new(2, format!("'{name}' was used twice for different objects")));
        }
    }

    /// Whether a number is below those of a volume that is made in the place of the one that is removed.
    fn is_below_anew(&self, number: SequenceNumber) -> bool {
        let first =
            |newest: &Superblock| newest.removal.map_or(newest.log_first_number, |removal| removal.log_next);
        self.ledger.newest().is_some_and(|newest| number < first(newest))
    }

    /// Rule 1: a journal in use is not given up unasked.
    fn witness_superblock(&mut self, name: &str, bytes: &Bytes, author: Author) {
        let Some(number) = names::parse_superblock(relative(name)) else { return };
        let before = self.ledger.newest_root();
        if !self.removed {
            self.witness_list(number, bytes);
        }
        // A volume that is removed has no journal and no snapshots any more.
        if let Err(violation) = self.ledger.landed(number, bytes, (author, self.stage.tick()))
            && !self.removed
        {
            self.stage.accuse(violation);
        }
        self.deeds.checkpoints += u64::from(self.ledger.newest_root() != before);
    }

    /// Rule 7: the list of what is condemned is worked off by whoever opens next, and never forgotten.
    fn witness_list(&mut self, number: SuperblockNumber, bytes: &Bytes) {
        let Ok(version) = superblock::decode(number, bytes) else { return };
        let now_ms = self.stage.now_ms();
        for range in &version.condemned {
            for number in range.first.0..=range.last.0 {
                self.condemned_at.entry(SequenceNumber(number)).or_insert(now_ms);
            }
        }
        let Some(before) = self.ledger.before(number) else { return };
        let listed =
            before.condemned.iter().flat_map(|range| range.first.0..=range.last.0).map(SequenceNumber);
        let forgotten = listed.filter(|number| !version.is_condemned(*number) && !self.gone.contains(number));
        let there = |number: &SequenceNumber| self.objects.contains_key(&at(&names::log_object(*number)));
        if let Some(forgotten) = forgotten.into_iter().find(there) {
            let what = format!(
                "superblock {number} forgets that number {forgotten} is condemned, which is there still"
            );
            self.stage.accuse(Violation::new(7, what));
        }
    }

    pub(crate) fn delete(&mut self, name: &str) {
        let Some(stored) = self.objects.get(name) else { return };
        let bytes = stored.bytes.clone();
        if self.removed {
            self.delete_of_removed(name);
            return;
        }
        if relative(name).starts_with(names::LOG_FOLDER) {
            let archived = self.folder(names::ARCHIVE_FOLDER).any(|(_, stored)| stored.bytes == bytes);
            let number =
                names::parse_log_object(relative(name)).filter(|number| self.ledger.has_condemned(*number));
            match number {
                Some(number) => {
                    self.gone.insert(number);
                    self.deeds.deleted_objects += 1;
                    self.check_unreferenced(name, |census| !census.needs(number))
                }
                None if !archived => {
                    let what =
                        format!("'{name}' was deleted, neither condemned nor with a copy in the archive");
                    self.stage.accuse(Violation::new(3, what));
                }
                None => {}
            }
            let first = self.log_ever.get(name).unwrap_or(&bytes);
            if fence_of(first).is_some() {
                self.stage.accuse(Violation::new(9, format!("the fence '{name}' was deleted")));
            }
        }
        if let Some(part) = names::parse_checkpoint_part(relative(name)) {
            self.deeds.deleted_parts += 1;
            self.check_unreferenced(name, |census| !census.parts.contains(&part));
        }
        if relative(name).starts_with(names::ARCHIVE_FOLDER) {
            self.stage.accuse(Violation::new(3, format!("'{name}' was deleted")));
        }
        let newest = self.folder(names::SUPERBLOCK_FOLDER).last().map(|(newest, _)| newest.clone());
        if newest.as_deref() == Some(name) {
            self.stage.accuse(Violation::new(7, format!("the newest superblock '{name}' was deleted")));
        }
        self.objects.remove(name);
    }

    /// Rule 7: an object of a volume that is removed goes after a version has said so.
    fn delete_of_removed(&mut self, name: &str) {
        let said = self.folder(names::SUPERBLOCK_FOLDER).any(|(name, stored)| {
            let version = names::parse_superblock(relative(name))
                .and_then(|number| superblock::decode(number, &stored.bytes).ok());
            version.is_some_and(|version| version.removal.is_some())
        });
        self.said_removed |= said;
        let condemned = names::parse_log_object(relative(name))
            .is_none_or(|number| self.ledger.has_condemned(number) || self.said_removed);
        if !condemned {
            let what = format!("'{name}' was deleted before a version said that the volume is removed");
            self.stage.accuse(Violation::new(7, what));
        }
        self.objects.remove(name);
    }

    /// Rule 7: no kept checkpoint needs what is deleted.
    fn check_unreferenced(&mut self, name: &str, may_go: impl Fn(&Census) -> bool) {
        let Some(newest) = self.ledger.newest() else { return };
        let (whole, objects) = (&self.whole, &self.objects);
        let get = |name: &str| {
            let name = at(name);
            whole.get(&name).or_else(|| objects.get(&name)).map(|stored| stored.bytes.clone())
        };
        match Census::take(newest, &mut self.chronicle, get) {
            Ok(census) if may_go(&census) => {}
            Ok(_) => {
                let what = format!("'{name}' was deleted, and a kept checkpoint or a snapshot needs it");
                self.stage.accuse(Violation::new(7, what));
            }
            Err(what) => self.stage.accuse(Violation::new(7, format!("'{name}' was deleted: {what}"))),
        }
    }

    /// Up to `count` objects whose names begin with `prefix` and come after `after`, and whether there are more.
    pub(crate) fn page(&self, prefix: &str, after: &str, count: usize) -> (Vec<(String, Stored)>, bool) {
        let start = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let mut names = self
            .objects
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(|(name, stored)| (name.clone(), stored.clone()));
        let page = names.by_ref().take(count).collect();
        (page, names.next().is_some())
    }

    fn folder(&self, folder: &str) -> impl Iterator<Item = (&String, &Stored)> {
        let prefix = format!("{PREFIX}/{folder}");
        self.objects.range(prefix.clone()..).take_while(move |(name, _)| name.starts_with(&prefix))
    }

    /// How many objects a folder holds.
    pub(crate) fn count(&self, folder: &str) -> usize {
        self.folder(folder).count()
    }
}

/// The whole name of what has this one below the volume's prefix.
fn at(relative: &str) -> String {
    format!("{PREFIX}/{relative}")
}

/// Blocks that a log object moves.
fn moved_blocks(bytes: &[u8]) -> u64 {
    let Ok(header) = Header::decode(bytes) else { return 0 };
    let moves = header.entries.iter().filter(|entry| matches!(entry, Entry::Relocation { .. }));
    moves.map(Entry::payload_blocks).sum()
}

/// The part of a name below the volume's prefix.
pub(crate) fn relative(name: &str) -> &str {
    name.strip_prefix(PREFIX).map_or(name, |name| name.trim_start_matches('/'))
}

/// The number that a fence names as the next one, if these bytes are a fence.
fn fence_of(bytes: &[u8]) -> Option<SequenceNumber> {
    match Header::decode(bytes).ok()?.entries.as_slice() {
        [Entry::Fence { next }] => Some(*next),
        _ => None,
    }
}

/// Whether these bytes are a fence.
pub(crate) fn is_fence(bytes: &[u8]) -> bool {
    fence_of(bytes).is_some()
}

/// A fence that skips no number; anything else as it is.
fn narrowed(bytes: Bytes) -> Bytes {
    let Ok(mut header) = Header::decode(&bytes) else { return bytes };
    if let [Entry::Fence { next }] = header.entries.as_mut_slice() {
        *next = header.identity.number.next();
        let mut narrow = Vec::new();
        header.encode(&mut narrow);
        return narrow.into();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Author = Author { may_abandon: false, ssd: None };

    fn with_cloud(test: impl FnOnce(&mut Cloud)) -> Option<Violation> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let stage = Arc::new(Stage::new(false));
            test(&mut Cloud::new(Arc::clone(&stage), None));
            stage.accused()
        })
    }

    fn name(relative: &str) -> String {
        format!("{PREFIX}/{relative}")
    }

    /// Rule 2.
    #[test]
    fn a_number_used_twice_is_noticed_even_after_the_first_is_gone() {
        let accused = with_cloud(|cloud| {
            assert!(cloud.create(&name("log/1"), Bytes::from_static(b"a"), NOBODY));
            assert!(!cloud.create(&name("log/1"), Bytes::from_static(b"b"), NOBODY), "create-only holds");
            assert!(cloud.create(&name("archive/x/log/1"), Bytes::from_static(b"a"), NOBODY));
            cloud.delete(&name("log/1"));
            assert!(
                cloud.create(&name("log/1"), Bytes::from_static(b"a"), NOBODY),
                "a late copy of the same PUT"
            );
        });
        assert_eq!(accused, None);
        let accused = with_cloud(|cloud| {
            cloud.create(&name("log/1"), Bytes::from_static(b"a"), NOBODY);
            cloud.create(&name("archive/x/log/1"), Bytes::from_static(b"a"), NOBODY);
            cloud.delete(&name("log/1"));
            cloud.create(&name("log/1"), Bytes::from_static(b"b"), NOBODY);
        });
        assert_eq!(accused.map(|violation| violation.rule), Some(2));
    }

    /// Rule 3.
    #[test]
    fn a_log_object_deleted_without_a_copy_is_noticed() {
        let accused = with_cloud(|cloud| {
            cloud.create(&name("log/1"), Bytes::from_static(b"a"), NOBODY);
            cloud.delete(&name("log/1"));
        });
        assert_eq!(accused.map(|violation| violation.rule), Some(3));
    }

    /// Rule 7.
    #[test]
    fn the_newest_superblock_stays() {
        let deleted = |number: &str| {
            with_cloud(|cloud| {
                cloud.create(&name("superblock/1"), Bytes::from_static(b"a"), NOBODY);
                cloud.create(&name("superblock/2"), Bytes::from_static(b"b"), NOBODY);
                cloud.delete(&name(number));
            })
        };
        assert_eq!(deleted("superblock/1"), None);
        assert_eq!(deleted("superblock/2").map(|violation| violation.rule), Some(7));
    }

    #[test]
    fn listings_come_in_order_and_in_pages() {
        with_cloud(|cloud| {
            for i in [3, 1, 2] {
                cloud.create(&name(&format!("log/{i}")), Bytes::new(), NOBODY);
            }
            cloud.create(&name("superblock/1"), Bytes::new(), NOBODY);
            let prefix = name("log/");
            let names = |after: &str, count| {
                let (page, more) = cloud.page(&prefix, after, count);
                (page.into_iter().map(|(name, _)| relative(&name).to_owned()).collect::<Vec<_>>(), more)
            };
            assert_eq!(names("", 2), (vec!["log/1".into(), "log/2".into()], true));
            assert_eq!(names(&name("log/2"), 2), (vec!["log/3".into()], false));
            assert_eq!(names(&name("log/3"), 2), (vec![], false));
        });
    }
}

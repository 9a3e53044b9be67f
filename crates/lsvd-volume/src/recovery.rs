//! Recovery: from the newest checkpoint and the log behind it to the map as of the durable point. Writes nothing.
//!
//! Knows how to list and to fetch headers and regions in parallel, which checkpoint can be used, and that only a complete
//! listing or a definite "not found" ends the log (rule 4); what an object means, replay knows. Its requests: two listings,
//! a GET of the root, and what the objects behind it need.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use lsvd_backend::Listed;
use lsvd_engine::{
    LastData, LogState, ObjectIndex, ObjectRecord, ObjectState, Place, Prefix, RegionContent, Replay,
};
use lsvd_format::checkpoint::{CheckpointStamp, PartId, RegionIndex, Root, RootPart};
use lsvd_format::superblock::{CheckpointRef, Line, Superblock};
use lsvd_format::{AnyHeader, ObjectIdentity, SequenceNumber, SuperblockNumber, names};

use crate::Error;
use crate::checkpoint::CHECKPOINTS_KEPT;
use crate::clones;
use crate::mend::{DAMAGED_TRIES, DAMAGED_WAIT_FIRST, Rebuilt, check_length, fitted, rebuild, tell_loss};
use crate::regions::{Loaded, read_regions, read_root};
use crate::root::newest_readable;
use crate::stamp::{self, Own};
use crate::store::{ListedLog, VolumeStore};

/// Headers fetched at once: recovery's time is round trips, not bytes.
pub(crate) const HEADERS_AT_ONCE: usize = 100;

/// How often a volume is read that changes meanwhile in a way that matters: checkpoints come seconds apart at the soonest.
pub(crate) const READS_MAX: u32 = 16;

/// What the listing held of the line besides the gapless run.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) replay: Replay,
    /// Numbers that the run does not hold: before its end (skipped by a fence) or beyond it.
    pub(crate) strays: Vec<SequenceNumber>,
    /// The mark that ends the run because its writer had not begun: what lies behind it does not count.
    pub(crate) unbegun_mark: Option<SequenceNumber>,
    /// Why the run ends early, where a damaged object ended it (only if that was allowed).
    pub(crate) damage: Option<Error>,
    /// The checkpoint that the run begins behind.
    pub(crate) base: Option<CheckpointRef>,
    /// Checkpoints that the superblock names and that are of no use.
    pub(crate) unusable: Vec<CheckpointRef>,
}

/// Replays the gapless run of log objects behind the newest checkpoint that can be used. With `stop_at_damage` a damaged
/// object ends the run and is reported; without it is an error.
pub(crate) async fn recover(
    store: &VolumeStore,
    superblock: &Superblock,
    stop_at_damage: bool,
) -> Result<Recovered, Error> {
    let stored = match superblock.checkpoints.is_empty() {
        true => BTreeMap::new(),
        false => stored_parts(store).await?,
    };
    let line = superblock.own_line();
    // Whether a region of the map alone was in the way.
    let mut region_failed = false;
    let mut unusable = Vec::new();
    // Newest first: the one before is used only if this one is no good, and says so.
    for may_lose in [false, true] {
        // What no checkpoint has whole is lost rather than all that is beside it.
        if may_lose && !region_failed {
            break;
        }
        unusable.clear();
        for checkpoint in superblock.checkpoints.iter().rev() {
            if let Some(prefix) = read_prefix(store, superblock, checkpoint, &stored).await? {
                let may_be_gone = *checkpoint == superblock.checkpoints[0];
                let behind = Behind { stamp: checkpoint.stamp, prefix, may_be_gone, may_lose };
                match replay_log(store, superblock, &line, Some(behind), stop_at_damage).await? {
                    Replayed::Whole(recovered) => {
                        unusable.extend(recovered.unusable.iter().copied());
                        return Ok(Recovered { base: Some(*checkpoint), unusable, ..*recovered });
                    }
                    Replayed::RegionDamaged => region_failed = true,
                    Replayed::Other => {}
                }
            }
            unusable.push(*checkpoint);
        }
    }
    if let Some(oldest) = superblock.checkpoints.first() {
        let name = names::checkpoint_part(&oldest.part);
        let reason = "no checkpoint of this volume can be used, and what the log held before them may be deleted: restore \
                      the checkpoints' objects";
        return Err(store.corrupt(name, reason));
    }
    // What a clone began with has no other copy: what of that is damaged is lost, and nothing else is.
    let may_lose = superblock.parent().is_some();
    let recovered = Box::pin(from_the_beginning(store, superblock, &line, may_lose, stop_at_damage)).await?;
    Ok(recovered.whole().expect("a log from its beginning can be followed"))
}

/// Recovers the volume for a reader, from the newest superblock, or with `skip_damaged` from the newest that can be read.
/// A writer may delete meanwhile what that version still refers to: then a newer one tells what counts now, and it is tried
/// again (rule 7). That is asked even if nothing seems amiss: where the first objects of a log are gone, it seems to end.
pub(crate) async fn recover_for_reading(
    store: &VolumeStore,
    skip_damaged: bool,
) -> Result<(SuperblockNumber, Superblock, Recovered), Error> {
    for _ in 0..READS_MAX {
        let (number, superblock) = newest_readable(store, skip_damaged).await?;
        let recovered = recover(store, &superblock, true).await;
        if store.superblock_numbers(Some(number)).await?.is_empty() {
            return Ok((number, superblock, recovered?));
        }
        let (newest, now) = newest_readable(store, skip_damaged).await?;
        // What was written since a rollback seems to follow what that left, by a superblock that does not know it.
        let same_line = now.moments.rollbacks == superblock.moments.rollbacks;
        let whole = recovered.as_ref().ok().filter(|recovered| same_line && recovered.damage.is_none());
        // What lies behind a kept checkpoint is not deleted, and without two of them nothing is.
        let stays = whole.is_some_and(|recovered| match recovered.base {
            Some(base) => now.checkpoints.contains(&base),
            None => now.checkpoints.len() < CHECKPOINTS_KEPT,
        });
        if newest == number || stays {
            return Ok((number, superblock, recovered?));
        }
    }
    Err(Error::Unsteady { volume: store.label(), tries: READS_MAX })
}

/// The newest durable prefix, for a reader that is behind.
pub(crate) async fn recover_newest(store: &VolumeStore) -> Result<(SuperblockNumber, Prefix), Error> {
    let (number, _, recovered) = recover_for_reading(store, true).await?;
    match recovered.damage {
        None => Ok((number, recovered.replay.finish())),
        Some(damage) => Err(damage),
    }
}

/// The objects of the checkpoints' folder, with their lengths.
pub(crate) async fn stored_parts(store: &VolumeStore) -> Result<BTreeMap<PartId, u64>, Error> {
    let listed = store.bucket().list(names::CHECKPOINT_FOLDER, None).await;
    let listed = listed.map_err(|error| store.store_error(error))?;
    let part = |entry: &Listed| Some((names::parse_checkpoint_part(&entry.name)?, entry.object_bytes));
    Ok(listed.iter().filter_map(part).collect())
}

/// What a checkpoint holds; `None` if its root or an object that it refers to is damaged or gone, which is said.
pub(crate) async fn read_prefix(
    store: &VolumeStore,
    superblock: &Superblock,
    checkpoint: &CheckpointRef,
    stored: &BTreeMap<PartId, u64>,
) -> Result<Option<Prefix>, Error> {
    let reason = match read_root(store, superblock.volume_id, checkpoint).await {
        Ok(root) => {
            // What is kept for lost blocks alone is of no use here, and a clone's parents keep what it needs.
            let used: BTreeSet<u32> = root.regions.iter().map(|place| place.part).collect();
            let own_from = root.own_from();
            let is_needed =
                |(nth, part): &(u32, &RootPart)| used.contains(nth) && part.part.as_of >= own_from;
            let mut parts = (0..).zip(&root.parts).filter(is_needed).map(|(_, part)| part);
            match parts.find(|part| stored.get(&part.part) != Some(&part.object_bytes)) {
                None => return Ok(Some(prefix_of(root))),
                Some(part) => format!("'{}' is not there, or not whole", names::checkpoint_part(&part.part)),
            }
        }
        Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) => error.to_string(),
        Err(error) => return Err(error),
    };
    let as_of = checkpoint.stamp.as_of;
    tracing::error!(
        volume = %store.label(), "the checkpoint as of number {as_of} can not be used: {reason}; the one before is tried"
    );
    Ok(None)
}

/// A checkpoint that the log is replayed behind.
pub(crate) struct Behind {
    pub(crate) stamp: CheckpointStamp,
    pub(crate) prefix: Prefix,
    /// The object that it is as of may be deleted: only what is above the oldest kept one stays for sure.
    pub(crate) may_be_gone: bool,
    /// Regions that can neither be read nor made again are given up.
    pub(crate) may_lose: bool,
}

/// What came of replaying a line behind a checkpoint.
pub(crate) enum Replayed {
    /// All that there is.
    Whole(Box<Recovered>),
    /// A region that the log changes is damaged there.
    RegionDamaged,
    /// The checkpoint does not belong to this log.
    Other,
}

impl Replayed {
    pub(crate) fn whole(self) -> Option<Recovered> {
        match self {
            Self::Whole(recovered) => Some(*recovered),
            Self::RegionDamaged | Self::Other => None,
        }
    }
}

/// Replays a line of the log, behind a checkpoint or from its beginning. What is not on the line is not looked at.
pub(crate) async fn replay_log(
    store: &VolumeStore,
    superblock: &Superblock,
    line: &Line,
    behind: Option<Behind>,
    stop_at_damage: bool,
) -> Result<Replayed, Error> {
    match behind {
        Some(behind) => {
            Box::pin(replay(store, superblock, line, Start::Checkpoint(behind), stop_at_damage)).await
        }
        None => Box::pin(from_the_beginning(store, superblock, line, false, stop_at_damage)).await,
    }
}

async fn from_the_beginning(
    store: &VolumeStore,
    superblock: &Superblock,
    line: &Line,
    may_lose: bool,
    stop_at_damage: bool,
) -> Result<Replayed, Error> {
    let prefix = Box::pin(clones::prefix_to_begin_with(store, superblock)).await?;
    replay(store, superblock, line, Start::Beginning { prefix, may_lose }, stop_at_damage).await
}

/// What a line is replayed behind.
pub(crate) enum Start {
    /// A checkpoint of the volume.
    Checkpoint(Behind),
    /// What its log begins with.
    Beginning {
        /// The map.
        prefix: Prefix,
        /// As of [`Behind`].
        may_lose: bool,
    },
}

/// Replays a line of the log behind what is given.
pub(crate) async fn replay(
    store: &VolumeStore,
    superblock: &Superblock,
    line: &Line,
    start: Start,
    stop_at_damage: bool,
) -> Result<Replayed, Error> {
    let (volume, size_bytes, window) =
        (superblock.volume_id, superblock.largest_size_bytes(), superblock.window);
    let (prefix, behind, may_lose) = match start {
        Start::Checkpoint(Behind { stamp, prefix, may_be_gone, may_lose }) => {
            (prefix, Some((stamp, may_be_gone)), may_lose)
        }
        Start::Beginning { prefix, may_lose } => (prefix, None, may_lose),
    };
    let replay = Replay::from(volume, size_bytes, window, prefix);
    let mut replay = replay.along(line);
    if let Some(layout) = &superblock.log_layout {
        replay = replay.taking_format_1(layout.append_format);
    }
    replay.set_lossy(superblock.has_lost_blocks());
    // The checkpoint's own object is listed, too: it says whether the log still has it.
    let after = behind.and_then(|(stamp, _)| stamp.as_of.0.checked_sub(1)).map(SequenceNumber);
    // What lies below the first number is of a volume that was here before.
    let below =
        (superblock.log_first_number.0 > 1).then(|| SequenceNumber(superblock.log_first_number.0 - 1));
    let mut listed = store.list_log(after.or(below)).await?;
    listed.retain(|entry| line.contains(entry.number));
    if let Some((stamp, may_be_gone)) = behind {
        let own = listed.first().is_some_and(|entry| entry.number == stamp.as_of).then(|| listed.remove(0));
        let of = (superblock.volume_id, stamp);
        match stamp::compare(store, of, replay.prefix(), own, may_be_gone).await? {
            Own::Same => {}
            Own::Other => return Ok(Replayed::Other),
            Own::Damaged(damage) if stop_at_damage => {
                tracing::error!(
                    "{damage}; whether a checkpoint was made of it can not be known: the one before is tried"
                );
                return Ok(Replayed::Other);
            }
            Own::Damaged(damage) => return Err(damage),
        }
    }
    let mut strays = Vec::new();
    let mut damage = None;
    let mut headers = futures::stream::iter(listed.iter().copied())
        .map(|entry| async move { (entry, store.read_log_header(entry.number).await) })
        .buffered(HEADERS_AT_ONCE);
    let mut gap = false;
    let mut unbegun_mark = None;
    while let Some((entry, header)) = headers.next().await {
        gap |= entry.number > replay.next_number();
        if gap || damage.is_some() || entry.number < replay.next_number() {
            strays.push(entry.number);
            continue;
        }
        let is_unbegun = matches!(&header, Ok(Some(header)) if is_unbegun_mark(superblock, header));
        let taken = take_in(store, &mut replay, entry, header);
        if is_unbegun && taken.is_ok() {
            unbegun_mark = Some(entry.number);
            gap = true;
        }
        match taken {
            Ok(()) if replay.objects_processed().is_multiple_of(10_000) => {
                tracing::info!(
                    "recovery: {} of {} objects processed",
                    replay.objects_processed(),
                    listed.len()
                );
            }
            Ok(()) => {}
            Err(error @ (Error::Corrupt { .. } | Error::Newer { .. })) if stop_at_damage => {
                damage = Some(error)
            }
            Err(error) => return Err(error),
        }
    }
    drop(headers);
    let mut unusable = Vec::new();
    match may_lose {
        true => unusable = load_or_lose(store, superblock, &mut replay).await?,
        false => match load_wanted(store, &mut replay).await {
            Ok(()) => {}
            // What is wrong is the checkpoint's: the log has no part in it.
            Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) if behind.is_some() => {
                tracing::error!("{error}; the checkpoint before is tried");
                return Ok(Replayed::RegionDamaged);
            }
            Err(error) => return Err(error),
        },
    }
    Ok(Replayed::Whole(Box::new(Recovered { replay, strays, unbegun_mark, damage, base: None, unusable })))
}

/// Loads the regions that what was taken in changes, and applies it.
pub(crate) async fn load_wanted(store: &VolumeStore, replay: &mut Replay) -> Result<(), Error> {
    loop {
        let wanted = replay.wanted_regions();
        if wanted.is_empty() {
            return Ok(());
        }
        let places = wanted.iter().map(|&region| (region, replay.prefix().place(region))).collect();
        for (region, place, content) in read_regions(store, replay.volume(), places).await? {
            let checked = replay.prefix().check_region(&content);
            checked.map_err(|reason| store.corrupt(names::checkpoint_part(&place.part), reason))?;
            replay.load(region, place, content);
        }
    }
}

/// Loads the regions that what was taken in changes, and applies it. One that is damaged is made again from the checkpoint
/// before; if that can not be, for as long as a store may be confused, it is lost, which is said, and nothing else is. Gives
/// the checkpoints that have one that was made again.
pub(crate) async fn load_or_lose(
    store: &VolumeStore,
    superblock: &Superblock,
    replay: &mut Replay,
) -> Result<Vec<CheckpointRef>, Error> {
    let mut poor = Vec::new();
    loop {
        let wanted = replay.wanted_regions();
        if wanted.is_empty() {
            return Ok(poor);
        }
        let mut missing: Vec<(RegionIndex, Place)> =
            wanted.into_iter().map(|region| (region, replay.prefix().place(region))).collect();
        let mut wait = DAMAGED_WAIT_FIRST;
        for tries in 1.. {
            let reads = futures::stream::iter(missing)
                .map(async |at| (at, read_regions(store, superblock.volume_id, vec![at]).await));
            let reads: Vec<_> = reads.buffer_unordered(HEADERS_AT_ONCE).collect().await;
            let mut damaged = Vec::new();
            for (at, read) in reads {
                match bring(store, superblock, replay, at, read).await? {
                    Brought::Whole(with_damage) => poor.extend(with_damage),
                    Brought::Damaged(error) => damaged.push((at, error)),
                }
            }
            if tries == DAMAGED_TRIES {
                for ((region, place), error) in damaged {
                    if is_away(superblock, place, &error) {
                        return Err(error);
                    }
                    tell_loss(store, region, place, &error);
                    replay.lose(region, place);
                }
                break;
            }
            if damaged.is_empty() {
                break;
            }
            missing = damaged.into_iter().map(|(at, _)| at).collect();
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }
}

/// Whether what is missing is a parent's: that may have been moved, and come back, so nothing is given up for it.
pub(crate) fn is_away(superblock: &Superblock, place: Place, error: &Error) -> bool {
    let is_parents = superblock.parent().is_some() && place.part.as_of < superblock.log_first_number;
    is_parents && matches!(error, Error::Missing { .. })
}

/// What became of a region that was read.
enum Brought {
    /// It is there, and these checkpoints have it damaged.
    Whole(Vec<CheckpointRef>),
    /// It can not be read, nor made again.
    Damaged(Error),
}

async fn bring(
    store: &VolumeStore,
    superblock: &Superblock,
    replay: &mut Replay,
    (region, place): (RegionIndex, Place),
    read: Result<Vec<Loaded>, Error>,
) -> Result<Brought, Error> {
    let content = read.and_then(|loaded| {
        let content = loaded.into_iter().next().map(|(.., content)| content).unwrap_or_default();
        let checked = replay.prefix().check_region(&content);
        checked.map_err(|reason| store.corrupt(names::checkpoint_part(&place.part), reason))?;
        Ok(content)
    });
    let error = match content {
        Ok(content) => {
            replay.load(region, place, content);
            return Ok(Brought::Whole(Vec::new()));
        }
        Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) => error,
        Err(error) => return Err(error),
    };
    match make_again(store, superblock, replay.prefix(), (region, place)).await {
        Ok(Some((content, with_damage))) => {
            tracing::warn!("{error}; region {region} of the map was made again from the checkpoint before");
            replay.load(region, place, content);
            Ok(Brought::Whole(with_damage))
        }
        Ok(None) | Err(Error::Corrupt { .. } | Error::Missing { .. }) => Ok(Brought::Damaged(error)),
        Err(error) => Err(error),
    }
}

async fn make_again(
    store: &VolumeStore,
    superblock: &Superblock,
    now: &Prefix,
    at: (RegionIndex, Place),
) -> Result<Option<(RegionContent, Vec<CheckpointRef>)>, Error> {
    let Some(Rebuilt { prefix, poor }) = rebuild(store, superblock, at.0, at.1).await? else {
        return Ok(None);
    };
    let content = fitted(store, &prefix, now, at)?;
    check_length(store, superblock, at, &content)?;
    Ok(Some((content, poor)))
}

/// The prefix that a checkpoint holds.
pub(crate) fn prefix_of(root: Root) -> Prefix {
    let stamp = root.stamp;
    let volume = root.volume;
    let last = ObjectIdentity { volume, epoch: stamp.epoch, writer: stamp.writer, number: stamp.as_of };
    let last_data = root.last_data.map(|last| LastData {
        epoch: last.epoch,
        sealed_unix_ms: last.sealed_unix_ms,
        journal: last.journal,
    });
    let log = LogState {
        next: root.next_number,
        last: Some(last),
        last_format: root.last_format,
        last_data,
        journals: root.journals.iter().map(|of| ((of.journal, of.epoch), of.record)).collect(),
        skipped: root.skipped.iter().map(|range| (range.fence, range.next)).collect(),
    };
    let objects = root.objects.iter().map(|object| {
        let record = ObjectRecord {
            identity: object.identity,
            format: object.format,
            header_bytes: object.header_bytes,
            payload_blocks: object.payload_blocks,
        };
        let state = ObjectState { record, live_blocks: object.live_blocks, died_at: object.died_at };
        (ObjectIndex(object.slot.0), state)
    });
    let own_from = root.own_from();
    let places = root.regions.iter().map(|place| {
        let part = root.parts[place.part as usize].part;
        let (offset_bytes, length_bytes) = (place.offset_bytes, place.length_bytes);
        (place.region, Place { part, offset_bytes, length_bytes })
    });
    Prefix::from_checkpoint(log, objects, places, root.parts.clone()).sharing_below(own_from)
}

/// Whether an object is the mark of a writer that may not have archived what lay beyond it: none of that is its own.
pub(crate) fn is_unbegun_mark(superblock: &Superblock, header: &AnyHeader) -> bool {
    let AnyHeader::V1(header) = header else { return false };
    let mark = header.mark.filter(|mark| mark.volume == superblock.volume_id);
    mark.is_some_and(|mark| Some(mark.epoch) > superblock.log_begun_epoch)
}

fn take_in(
    store: &VolumeStore,
    replay: &mut Replay,
    entry: ListedLog,
    header: Result<Option<AnyHeader>, Error>,
) -> Result<(), Error> {
    let name = store.log_name(entry.number);
    let Some(header) = header? else {
        let reason = "it was listed and then not found: somebody deletes this volume's objects";
        return Err(store.corrupt(name, reason));
    };
    if header.object_bytes() != entry.object_bytes {
        let reason = format!("listed with {} bytes, read with {}", entry.object_bytes, header.object_bytes());
        return Err(store.corrupt(name, reason));
    }
    replay.accept_any(entry.number, &header).map_err(|error| store.corrupt(name, error.to_string()))
}

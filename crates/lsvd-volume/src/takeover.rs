//! Taking a volume over: superblock version, recovery, fence, a last look, and only then the archive.
//!
//! The four steps are in this order for reasons that the simulator shows when one is left out:
//! 1. a superblock version with the next number raises the epoch, unless a journal is in use that is not at hand; a higher number in a new listing means to start again;
//! 2. the fence lands at the first incomplete number, after what the old writer put there first was taken in;
//! 3. a listing of superblocks without a higher number means that this writer is the newest, as of its fence;
//! 4. stragglers are archived, which nobody refers to any more.
//!
//! No clock decides anything here (rule 9).

use futures::StreamExt;
use lsvd_engine::Replay;
use lsvd_format::log_object::{Entry, Header};
use lsvd_format::superblock::Superblock;
use lsvd_format::{
    Epoch, JournalId, NUMBER_MAX, ObjectIdentity, SequenceNumber, SuperblockNumber, WriterId, names,
};

use crate::acceptance::in_use;
use crate::recovery::{Recovered, recover};
use crate::store::{Put, VolumeStore};
use crate::{Environment, Error, OpenOptions, Recovery};

/// Superblock versions kept when old ones are pruned.
const SUPERBLOCKS_KEPT: usize = 8;
/// Pruning begins when there are this many, so that it is not a round of requests at each opening.
const SUPERBLOCKS_MANY: usize = 16;
/// Stragglers moved at once.
const ARCHIVE_AT_ONCE: usize = 8;

/// A volume that is ours.
#[derive(Debug)]
pub(crate) struct TakenOver {
    pub(crate) number: SuperblockNumber,
    pub(crate) superblock: Superblock,
    pub(crate) replay: Replay,
    pub(crate) recovery: Recovery,
}

/// Takes the volume over from whoever has it.
pub(crate) async fn take_over(
    store: &VolumeStore,
    options: &OpenOptions,
    journal: Option<JournalId>,
) -> Result<TakenOver, Error> {
    let environment = &options.environment;
    let writer = WriterId((environment.random)());
    let (number, superblock) = raise_epoch(store, options, writer, journal).await?;
    tracing::info!(volume = %store.label(), epoch = %superblock.epoch, "starting recovery");
    let Recovered { mut replay, strays, .. } = recover(store, &superblock, false).await?;
    refuse_a_newer_log(store, &superblock, &replay)?;
    refuse_a_hole(store, &replay, &strays, superblock.window).await?;
    refuse_a_shorter_log(store, &superblock, &replay)?;
    let fence = land_fence(store, environment, &superblock, &mut replay).await?;
    let newer = store.superblock_numbers(Some(number)).await?;
    if let Some(newest) = newer.last() {
        return Err(Error::Fenced { volume: store.label(), epoch: Some(Epoch(newest.0)) });
    }
    let objects_processed = replay.objects_processed();
    tracing::info!(volume = %store.label(), "recovery complete (processed {objects_processed} objects)");
    let objects_archived = archive(store, environment, &superblock, &replay, fence, strays).await?;
    tracing::info!(volume = %store.label(), "archived {objects_archived} objects beyond the recovery point");
    prune_superblocks(store, number).await?;
    let recovery =
        Recovery { objects_processed, objects_archived, durable_number: fence, journal_records: 0 };
    Ok(TakenOver { number, superblock, replay, recovery })
}

/// Step 1: creates the superblock version that begins this writer's epoch.
async fn raise_epoch(
    store: &VolumeStore,
    options: &OpenOptions,
    writer: WriterId,
    ours: Option<JournalId>,
) -> Result<(SuperblockNumber, Superblock), Error> {
    loop {
        let numbers = store.superblock_numbers(None).await?;
        let Some(&highest) = numbers.last() else {
            return Err(Error::NotFound { volume: store.label() });
        };
        if highest.0 > NUMBER_MAX / 2 {
            return Err(
                store.corrupt(names::superblock(highest), "the volume has no superblock numbers left")
            );
        }
        let Some(current) = store.read_superblock(highest).await? else {
            continue; // pruned since the listing: there is a higher one now
        };
        let unknown = current.unknown_features_to_write();
        if !unknown.is_empty() {
            let what = format!("it can be written only with {}: use a newer lsvd", unknown.join(", "));
            return Err(Error::Newer { volume: store.label(), what });
        }
        let journal = in_use(store, options, &current, ours).await?;
        let number = highest.next();
        let log_reached = current.log_reached.max(current.closed_at).filter(|_| !options.accept_shorter_log);
        let mine = Superblock {
            epoch: Epoch(number.0),
            writer_id: writer,
            closed_at: None,
            log_reached,
            written_unix_ms: (options.environment.now_unix_ms)(),
            written_by: written_by(),
            ..current.with_journal(journal)
        };
        if let Put::Theirs(_) = store.put_superblock(number, &mine).await? {
            continue;
        }
        // Mine may be a number that was pruned: then it counts for nothing, and the highest one is elsewhere.
        if store.superblock_numbers(Some(number)).await?.is_empty() {
            return Ok((number, mine));
        }
    }
}

/// The name and version that superblocks record.
pub(crate) fn written_by() -> String {
    concat!("lsvd ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// A log that a newer epoch writes already is that writer's. This one may have slept since step 1: its fence at that
/// log's end would land, as the number is free, and epochs would fall for good.
fn refuse_a_newer_log(store: &VolumeStore, superblock: &Superblock, replay: &Replay) -> Result<(), Error> {
    match replay.last() {
        Some((_, epoch)) if epoch > superblock.epoch => {
            Err(Error::Fenced { volume: store.label(), epoch: Some(epoch) })
        }
        _ => Ok(()),
    }
}

/// A missing object with others further above it than any writer could have put at once is a loss, not the log's end.
async fn refuse_a_hole(
    store: &VolumeStore,
    replay: &Replay,
    strays: &[SequenceNumber],
    window: u64,
) -> Result<(), Error> {
    let next = replay.next_number();
    let Some(&beyond) = strays.iter().find(|stray| stray.0 >= next.0.saturating_add(window)) else {
        return Ok(());
    };
    if store.read_log_header(next).await?.is_some() {
        return Ok(()); // it came after the listing: another writer is at work, and the fence decides
    }
    let reason = format!(
        "it is missing, but number {beyond} is there, which no writer could have put before it was: restore it, or \
         open read-only what lies before it"
    );
    Err(store.corrupt(names::log_object(next), reason))
}

/// A log that ends before a number that it had reached has lost objects, or was wound back by hand.
fn refuse_a_shorter_log(store: &VolumeStore, superblock: &Superblock, replay: &Replay) -> Result<(), Error> {
    let next = replay.next_number();
    let Some(reached) = superblock.log_reached.filter(|reached| *reached >= next) else {
        return Ok(());
    };
    let reason = format!(
        "it is missing, though the log had reached number {reached}: restore it; open read-only what lies before it; or, \
         if the newest objects were deleted to wind the volume back, open with --accept-shorter-log"
    );
    Err(store.corrupt(names::log_object(next), reason))
}

/// Step 2: ends the old writers' log at the first number that none of them used. Gives the fence's number.
async fn land_fence(
    store: &VolumeStore,
    environment: &Environment,
    superblock: &Superblock,
    replay: &mut Replay,
) -> Result<SequenceNumber, Error> {
    loop {
        let number = replay.next_number();
        let next = SequenceNumber(number.0.saturating_add(superblock.window));
        // Also room for this writer's own objects: a log so near the end was not written by any honest writer.
        if next.0 > NUMBER_MAX / 2 {
            return Err(store.corrupt(names::log_object(number), "the log has no numbers left"));
        }
        let identity = ObjectIdentity {
            volume: superblock.volume_id,
            epoch: superblock.epoch,
            writer: superblock.writer_id,
            number,
        };
        let sealed_unix_ms = (environment.now_unix_ms)();
        let header = Header { identity, sealed_unix_ms, journal: None, entries: vec![Entry::Fence { next }] };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        let stored = match store.put_log_object(&header, bytes.into()).await? {
            Put::Mine => header,
            Put::Theirs(theirs) if theirs.identity.epoch > superblock.epoch => {
                return Err(Error::Fenced { volume: store.label(), epoch: Some(theirs.identity.epoch) });
            }
            // It came first and may be acknowledged: it belongs to the log.
            Put::Theirs(theirs) => theirs,
        };
        let mine = stored.identity == identity;
        let accepted = replay.accept(&stored);
        accepted.map_err(|error| store.corrupt(names::log_object(number), error.to_string()))?;
        if mine {
            return Ok(number);
        }
    }
}

/// Step 4: moves what no log can refer to any more out of the way. Gives how many objects it moved.
async fn archive(
    store: &VolumeStore,
    environment: &Environment,
    superblock: &Superblock,
    replay: &Replay,
    fence: SequenceNumber,
    mut strays: Vec<SequenceNumber>,
) -> Result<u64, Error> {
    strays.extend(store.list_log(Some(fence)).await?.iter().map(|entry| entry.number));
    // Only numbers that a fence of this log skips. A stray of the first listing may have been taken in since; and a
    // newer writer, if one is at work already, never uses a skipped number, so nothing of it is touched.
    strays.retain(|number| replay.skips(*number));
    strays.sort_unstable();
    strays.dedup();
    let moved_at_unix_ms = (environment.now_unix_ms)();
    let moves = futures::stream::iter(strays).map(|number| async move {
        let name = names::log_object(number);
        let copy = names::archived(moved_at_unix_ms, superblock.epoch, names::BEYOND_FENCE, &name);
        tracing::warn!(volume = %store.label(), object = %name, "moving to {copy}");
        match store.archive_log_object(number, &copy).await {
            Ok(moved) => moved,
            Err(error) => {
                // It is in nobody's way: its number is skipped for good, and the next opening tries again.
                tracing::warn!(volume = %store.label(), object = %name, "left where it is: {error}");
                false
            }
        }
    });
    let mut moves = moves.buffered(ARCHIVE_AT_ONCE);
    let mut archived = 0;
    while let Some(moved) = moves.next().await {
        archived += u64::from(moved);
    }
    Ok(archived)
}

/// Deletes superblock versions that are far below this writer's.
async fn prune_superblocks(store: &VolumeStore, mine: SuperblockNumber) -> Result<(), Error> {
    // This listing is also the look for a higher epoch before a round of deletes (rule 9).
    let numbers = store.superblock_numbers(None).await?;
    if let Some(newest) = numbers.last().filter(|newest| **newest > mine) {
        return Err(Error::Fenced { volume: store.label(), epoch: Some(Epoch(newest.0)) });
    }
    if numbers.len() < SUPERBLOCKS_MANY {
        return Ok(());
    }
    for number in &numbers[..numbers.len() - SUPERBLOCKS_KEPT] {
        if let Err(error) = store.delete_superblock(*number).await {
            // Old versions cost a few hundred bytes each; a volume that does not open costs more.
            tracing::warn!(volume = %store.label(), "an old superblock version is left where it is: {error}");
            break;
        }
    }
    Ok(())
}

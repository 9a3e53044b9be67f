//! Taking a volume over: superblock version, recovery, fence, a last look, and only then the archive.
//!
//! The four steps are in this order for reasons that the simulator shows when one is left out:
//! 1. a superblock version with the next number raises the epoch, unless a journal is in use that is not at hand; a higher number in a new listing means to start again;
//! 2. the fence lands at the first incomplete number, after what the old writer put there first was taken in;
//! 3. a listing of superblocks without a higher number means that this writer is the newest, as of its fence;
//! 4. stragglers are archived, which nobody refers to any more.
//!
//! No clock decides anything here (rule 9). In a log that goes on in format 1 the fence is a mark: it ends what older
//! writers can acknowledge, but skips no numbers. So a fifth step says in the superblock that nothing is left beyond the
//! mark; and late objects of older writers can meet new numbers, which is why such a volume needs its user's word for a
//! single writer.

use futures::StreamExt;
use lsvd_backend::PutPayload;
use lsvd_engine::Replay;
use lsvd_format::log_object::{Entry, Header};
use lsvd_format::superblock::{CheckpointRef, Superblock};
use lsvd_format::{
    AnyHeader, Epoch, JournalId, NUMBER_MAX, ObjectFormat, ObjectIdentity, SequenceNumber, SuperblockNumber,
    WriterId, names, v1,
};

use crate::acceptance::in_use;
use crate::recovery::{Recovered, is_unbegun_mark, load_or_lose, recover};
use crate::root::newest_readable;
use crate::store::{Put, VolumeStore};
use crate::wound_back::{drop_what_lies_behind, recover_shorter};
use crate::{Environment, Error, OpenOptions, Recovery};

/// Superblock versions kept when old ones are pruned.
const SUPERBLOCKS_KEPT: usize = 8;
/// Pruning begins when there are this many, so that it is not a round of requests at each opening.
const SUPERBLOCKS_MANY: usize = 16;
/// Stragglers moved at once.
const ARCHIVE_AT_ONCE: usize = 8;

/// What the superblock said that was replaced.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Before {
    /// Where its writer's answered writes are.
    pub(crate) handover: Option<JournalId>,
    /// Who goes on with all of them is unbroken since this.
    pub(crate) unbroken_since: Epoch,
    /// None of them can be missing, wherever it is opened.
    pub(crate) was_closed: bool,
}

/// A volume that is ours.
#[derive(Debug)]
pub(crate) struct TakenOver {
    pub(crate) number: SuperblockNumber,
    pub(crate) superblock: Superblock,
    pub(crate) replay: Replay,
    pub(crate) recovery: Recovery,
    /// The checkpoint that it was recovered from.
    pub(crate) base: Option<CheckpointRef>,
    pub(crate) before: Before,
    /// Checkpoints that the superblock names and that are of no use: the next one takes their place.
    pub(crate) unusable: Vec<CheckpointRef>,
}

impl TakenOver {
    /// The same for a volume that is only read.
    pub(crate) fn to_read(
        number: SuperblockNumber,
        superblock: Superblock,
        replay: Replay,
        recovery: Recovery,
    ) -> Self {
        let (base, before, unusable) = (None, Before::default(), Vec::new());
        Self { number, superblock, replay, recovery, base, before, unusable }
    }
}

/// Takes the volume over from whoever has it. `known` is a superblock version that was read before.
pub(crate) async fn take_over(
    store: &VolumeStore,
    options: &OpenOptions,
    (journal, handover): (Option<JournalId>, Option<JournalId>),
    known: (SuperblockNumber, Superblock),
) -> Result<TakenOver, Error> {
    let writer = WriterId((options.environment.random)());
    let (number, superblock, before) =
        raise_epoch(store, options, writer, (journal, handover), known).await?;
    let taken = end_older_writers(store, options, number, superblock).await;
    match taken.map(|taken| TakenOver { before, ..taken }) {
        Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) => {
            Err(fenced_or(store, number, error).await)
        }
        taken => taken,
    }
}

/// Steps 2 to 4, in the epoch that version `number` began.
async fn end_older_writers(
    store: &VolumeStore,
    options: &OpenOptions,
    mut number: SuperblockNumber,
    mut superblock: Superblock,
) -> Result<TakenOver, Error> {
    let environment = &options.environment;
    tracing::info!(volume = %store.label(), epoch = %superblock.epoch, "starting recovery");
    let ended = end_log(store, environment, (&mut number, &mut superblock), options.accept_shorter_log);
    let Ended { mut replay, mut strays, fence, base, mut unusable } = ended.await?;
    // Of what was taken in on the way.
    unusable.extend(load_or_lose(store, &superblock, &mut replay).await?);
    if store.append_format() == ObjectFormat::V1 {
        // Before the look for a newer writer: what is listed now is none of its objects.
        strays = store.list_log(Some(fence)).await?.iter().map(|entry| entry.number).collect();
    }
    let versions = store.superblock_numbers(None).await?;
    if let Some(newest) = versions.last().filter(|newest| **newest > number) {
        return Err(Error::Fenced { volume: store.label(), epoch: Some(Epoch(newest.0)) });
    }
    let objects_processed = replay.objects_processed();
    tracing::info!(volume = %store.label(), "recovery complete (processed {objects_processed} objects)");
    let objects_archived = archive(store, environment, &superblock, &replay, fence, strays).await?;
    tracing::info!(volume = %store.label(), "archived {objects_archived} objects beyond the recovery point");
    if store.append_format() == ObjectFormat::V1 {
        begin(store, environment, (&mut number, &mut superblock)).await?;
    }
    if versions.len() >= SUPERBLOCKS_MANY {
        prune_superblocks(store, number).await?;
    }
    let recovery =
        Recovery { objects_processed, objects_archived, durable_number: fence, journal_records: 0 };
    Ok(TakenOver { number, superblock, replay, recovery, base, before: Before::default(), unusable })
}

/// The log of the older writers, which none of them can add to any more.
pub(crate) struct Ended {
    pub(crate) replay: Replay,
    /// Numbers that were listed and are no part of it.
    pub(crate) strays: Vec<SequenceNumber>,
    pub(crate) fence: SequenceNumber,
    pub(crate) base: Option<CheckpointRef>,
    pub(crate) unusable: Vec<CheckpointRef>,
}

/// Recovery and step 2, in the epoch of the superblock's version.
pub(crate) async fn end_log(
    store: &VolumeStore,
    environment: &Environment,
    (number, superblock): (&mut SuperblockNumber, &mut Superblock),
    accept_shorter_log: bool,
) -> Result<Ended, Error> {
    let recovered = match accept_shorter_log {
        true => recover_shorter(store, superblock).await?,
        false => recover(store, superblock, false).await?,
    };
    refuse_a_newer_log(store, superblock, &recovered.replay)?;
    refuse_a_hole(store, &recovered.replay, &recovered.strays, superblock.window).await?;
    refuse_a_shorter_log(store, superblock, &recovered.replay)?;
    refuse_to_end_before_a_rollback(store, superblock, &recovered.replay)?;
    if accept_shorter_log {
        drop_what_lies_behind(store, environment, &recovered, (number, superblock)).await?;
    }
    let Recovered { mut replay, strays, unbegun_mark, base, unusable, .. } = recovered;
    let fence = match unbegun_mark {
        // It ended what older writers can acknowledge, and its own writer can not begin any more.
        Some(mark) => mark,
        None => land_fence(store, environment, superblock, &mut replay).await?,
    };
    Ok(Ended { replay, strays, fence, base, unusable })
}

/// Step 1: creates the superblock version that begins this writer's epoch.
async fn raise_epoch(
    store: &VolumeStore,
    options: &OpenOptions,
    writer: WriterId,
    (ours, handover): (Option<JournalId>, Option<JournalId>),
    known: (SuperblockNumber, Superblock),
) -> Result<(SuperblockNumber, Superblock, Before), Error> {
    let mut known = Some(known);
    loop {
        // The first time what is known may be old: then there is a higher one, and the next round reads that.
        let (highest, current) = match known.take() {
            Some(known) => known,
            None => newest_readable(store, false).await?,
        };
        if highest.0 > NUMBER_MAX / 2 {
            return Err(
                store.corrupt(names::superblock(highest), "the volume has no superblock numbers left")
            );
        }
        let unknown = current.unknown_features_to_write();
        if !unknown.is_empty() {
            let what = format!("it can be written only with {}: use a newer lsvd", unknown.join(", "));
            return Err(Error::Newer { volume: store.label(), what });
        }
        let journal = in_use(store, options, &current, ours).await?;
        let number = highest.next();
        let unbroken_since = current.unbroken_since.unwrap_or(current.epoch);
        let was_closed = current.closed_at.is_some() && !options.accept_shorter_log;
        let before = Before { handover: current.handover, unbroken_since, was_closed };
        // With what it holds in hand this goes on as long as nobody is answered: it is decided before that.
        let holds = |ours: Option<JournalId>, named| ours.is_some() && ours == named;
        let may_be_whole = was_closed || holds(handover, current.handover) || holds(ours, current.journal);
        let log_reached = current.log_reached.max(current.closed_at).filter(|_| !options.accept_shorter_log);
        let mine = Superblock {
            epoch: Epoch(number.0),
            writer_id: writer,
            handover,
            unbroken_since: may_be_whole.then_some(unbroken_since),
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
            return Ok((number, mine, before));
        }
    }
}

/// The name and version that superblocks record.
pub(crate) fn written_by() -> String {
    concat!("lsvd ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// What went wrong, or that a newer writer is the reason: it may have collected what this one, which slept, still
/// looked for.
pub(crate) async fn fenced_or(store: &VolumeStore, mine: SuperblockNumber, error: Error) -> Error {
    match store.superblock_numbers(Some(mine)).await {
        Ok(newer) => match newer.last() {
            Some(newest) => Error::Fenced { volume: store.label(), epoch: Some(Epoch(newest.0)) },
            None => error,
        },
        Err(_) => error,
    }
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
    Err(store.corrupt(store.log_name(next), reason))
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
    Err(store.corrupt(store.log_name(next), reason))
}

/// A log that ends before the moment that a rollback went back to has no numbers to go on with: those that follow belong to
/// what was left.
fn refuse_to_end_before_a_rollback(
    store: &VolumeStore,
    superblock: &Superblock,
    replay: &Replay,
) -> Result<(), Error> {
    let next = replay.next_number();
    let Some((to, _)) = superblock.own_line().jumps().find(|(to, _)| *to >= next) else {
        return Ok(());
    };
    let reason = format!(
        "it is missing, though the volume was rolled back to number {to}, which is behind it: restore it, or open read-only \
         what lies before it"
    );
    Err(store.corrupt(store.log_name(next), reason))
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
            return Err(store.corrupt(store.log_name(number), "the log has no numbers left"));
        }
        let identity = ObjectIdentity {
            volume: superblock.volume_id,
            epoch: superblock.epoch,
            writer: superblock.writer_id,
            number,
        };
        let (header, bytes) = fence(store.append_format(), identity, next, (environment.now_unix_ms)());
        let (mine, stored) = match store.put_log_object(number, &header, bytes).await? {
            Put::Mine => (true, header),
            Put::Theirs(theirs) if theirs.epoch() > Some(superblock.epoch) => {
                return Err(Error::Fenced { volume: store.label(), epoch: theirs.epoch() });
            }
            // It came first and may be acknowledged: it belongs to the log.
            Put::Theirs(theirs) => (false, theirs),
        };
        let accepted = replay.accept_any(number, &stored);
        accepted.map_err(|error| store.corrupt(store.log_name(number), error.to_string()))?;
        // A mark of another's is as good: what lies beyond it is nobody's.
        if mine || is_unbegun_mark(superblock, &stored) {
            return Ok(number);
        }
    }
}

/// The object that ends the log of older writers, and its bytes.
fn fence(
    format: ObjectFormat,
    identity: ObjectIdentity,
    next: SequenceNumber,
    sealed_unix_ms: u64,
) -> (AnyHeader, PutPayload) {
    let mut bytes = Vec::new();
    let header = match format {
        ObjectFormat::V1 => {
            let ObjectIdentity { volume, epoch, writer, number } = identity;
            let mark = Some(v1::Mark { volume, epoch, writer, number });
            let header = v1::Header { entries: Vec::new(), mark };
            header.encode(&mut bytes);
            AnyHeader::V1(header)
        }
        ObjectFormat::V2 => {
            let entries = vec![Entry::Fence { next }];
            let header = Header { identity, sealed_unix_ms, journal: None, entries };
            header.encode(&mut bytes);
            AnyHeader::V2(header)
        }
    };
    (header, bytes.into())
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
    let dense = store.append_format() == ObjectFormat::V1;
    if !dense {
        strays.extend(store.list_log(Some(fence)).await?.iter().map(|entry| entry.number));
    }
    // Only numbers that a fence of this log skips. A stray of the first listing may have been taken in since; and a
    // newer writer, if one is at work already, never uses a skipped number, so nothing of it is touched.
    strays.retain(|number| dense || replay.skips(*number));
    strays.sort_unstable();
    strays.dedup();
    let moved_at_unix_ms = (environment.now_unix_ms)();
    let moves = futures::stream::iter(strays).map(|number| async move {
        match archive_stray(store, superblock, number, moved_at_unix_ms).await {
            // Its number is one of those that come next.
            Err(error) if dense => Err(error),
            // It is in nobody's way: its number is skipped for good, and the next opening tries again.
            Err(_) => Ok(false),
            moved => moved,
        }
    });
    let mut moves = moves.buffered(ARCHIVE_AT_ONCE);
    let mut archived = 0;
    while let Some(moved) = moves.next().await {
        archived += u64::from(moved?);
    }
    Ok(archived)
}

/// Moves an object that came too late for the log into the archive; whether it was there. That it could not be is said.
pub(crate) async fn archive_stray(
    store: &VolumeStore,
    superblock: &Superblock,
    number: SequenceNumber,
    moved_at_unix_ms: u64,
) -> Result<bool, Error> {
    let name = store.log_name(number);
    let copy = names::archived(moved_at_unix_ms, superblock.epoch, names::BEYOND_FENCE, &name);
    tracing::warn!(volume = %store.label(), object = %name, "moving to {copy}");
    let moved = store.archive_log_object(number, &copy).await;
    if let Err(error) = &moved {
        tracing::warn!(volume = %store.label(), object = %name, "left where it is: {error}");
    }
    moved
}

/// Says that all beyond the mark is archived: from here on what follows it is this writer's. Until then the next opening
/// would take what was left there for strays, and not for the log.
async fn begin(
    store: &VolumeStore,
    environment: &Environment,
    (number, superblock): (&mut SuperblockNumber, &mut Superblock),
) -> Result<(), Error> {
    let begun = Superblock {
        log_begun_epoch: Some(superblock.epoch),
        written_unix_ms: (environment.now_unix_ms)(),
        ..superblock.clone()
    };
    *number = number.next();
    if let Put::Theirs(theirs) = store.put_next_superblock(*number, &begun).await? {
        return Err(Error::Fenced { volume: store.label(), epoch: Some(theirs.epoch) });
    }
    *superblock = begun;
    Ok(())
}

/// Deletes superblock versions that are far below this writer's.
pub(crate) async fn prune_superblocks(store: &VolumeStore, mine: SuperblockNumber) -> Result<(), Error> {
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

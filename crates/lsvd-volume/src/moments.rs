//! Moments of a volume: which one somebody means, whether it is held, and recovery as of it. Writes nothing.
//!
//! A moment is a number of the log. Held are those of snapshots, and on the volume's own line all from the oldest kept
//! checkpoint on (rule 7); what is not held may be deleted at any time and is refused, even where it is still whole. Knows
//! superblocks, bases and replay; not who asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use futures::StreamExt;
use lsvd_backend::Bucket;
use lsvd_format::checkpoint::PartId;
use lsvd_format::superblock::{CheckpointRef, Line, Snapshot, Superblock, check_snapshot_name};
use lsvd_format::{AnyHeader, SequenceNumber, SuperblockNumber, VolumeId};

use crate::calendar::parse_utc;
use crate::recovery::{Behind, READS_MAX, Recovered, read_prefix, replay_log, stored_parts};
use crate::regions::read_root;
use crate::root::newest_readable;
use crate::store::VolumeStore;
use crate::{Error, calendar};

/// Headers fetched at once.
const HEADERS_AT_ONCE: usize = 100;

/// A moment of a volume, as somebody names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The snapshot with this name.
    Snapshot(String),
    /// The object of the log with this number was the last one.
    Number(SequenceNumber),
    /// The last object that was sealed at or before this time was the last one, in milliseconds since 1970 by its writer's
    /// clock. Where that clock went backwards, it is the last one behind the newest checkpoint that was not yet later.
    Time(u64),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(name) => write!(f, "snapshot {name}"),
            Self::Number(number) => write!(f, "number {number}"),
            Self::Time(unix_ms) => write!(f, "{}", calendar::utc(*unix_ms)),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    /// A snapshot's name begins with a letter; digits alone are a number; the rest is a time.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            check_snapshot_name(text)?;
            return Ok(Self::Snapshot(text.to_owned()));
        }
        if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) {
            let number =
                text.parse().map_err(|_| format!("'{text}' is no number of a log: it is too large"))?;
            return Ok(Self::Number(SequenceNumber(number)));
        }
        let words = |_| {
            format!(
                "'{text}' is no moment: name a snapshot, a number of the log, or a time as 2026-11-25T20:00:00Z"
            )
        };
        parse_utc(text).map(Self::Time).map_err(words)
    }
}

/// A volume recovered as of a moment.
pub(crate) struct At {
    pub(crate) number: SuperblockNumber,
    pub(crate) superblock: Superblock,
    pub(crate) recovered: Recovered,
    pub(crate) as_of: SequenceNumber,
    pub(crate) size_bytes: u64,
}

/// A volume as of a moment, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MomentInfo {
    /// The volume.
    pub volume_id: VolumeId,
    /// The last object of the log that it contains.
    pub as_of: SequenceNumber,
    /// When the last object of data was sealed that it contains, by its writer's clock, in milliseconds since 1970.
    pub sealed_unix_ms: Option<u64>,
    /// Size of the volume then, in bytes.
    pub size_bytes: u64,
    /// Bytes of blocks that the extent map pointed at.
    pub live_bytes: u64,
    /// The snapshots that hold it.
    pub snapshots: Vec<String>,
    /// It is on the line that is written now, and not on a branch that a rollback left.
    pub on_own_line: bool,
    /// The checkpoint that it is read from; `None`: the log from its beginning.
    pub base: Option<SequenceNumber>,
    /// Log objects behind that.
    pub objects_replayed: u64,
}

/// Says what the volume on `bucket` was at a moment. Writes nothing.
///
/// # Errors
/// [`Error::NoMoment`] if it can not be reached; [`Error::NotFound`], or the store's.
pub async fn inspect_at(bucket: &Bucket, moment: &Moment) -> Result<MomentInfo, Error> {
    let store = VolumeStore::new(bucket.clone());
    let At { superblock, recovered, as_of, size_bytes, .. } = recover_at(&store, moment).await?;
    let replay = &recovered.replay;
    let snapshots = superblock.moments.snapshots.iter().filter(|snapshot| snapshot.as_of == as_of);
    Ok(MomentInfo {
        volume_id: superblock.volume_id,
        as_of,
        sealed_unix_ms: replay.last_data().map(|last| last.sealed_unix_ms),
        size_bytes,
        live_bytes: replay.prefix().objects().totals().shown_bytes(),
        snapshots: snapshots.map(|snapshot| snapshot.name.clone()).collect(),
        on_own_line: superblock.own_line().contains(as_of),
        base: recovered.base.map(|base| base.stamp.as_of),
        objects_replayed: replay.objects_processed(),
    })
}

/// Recovers a volume as of a moment that is held.
///
/// # Errors
/// [`Error::NoMoment`] if there is none such, or it is not held; [`Error::Unsteady`] if it can not be read fast enough.
pub(crate) async fn recover_at(store: &VolumeStore, moment: &Moment) -> Result<At, Error> {
    for _ in 0..READS_MAX {
        let (number, superblock) = newest_readable(store, true).await?;
        let found = try_at(store, &superblock, moment).await;
        if store.superblock_numbers(Some(number)).await?.is_empty() {
            let (recovered, as_of, size_bytes) = found?;
            return Ok(At { number, superblock, recovered, as_of, size_bytes });
        }
        // Something may have been deleted, or a rollback made, while it was read.
        let (_, now) = newest_readable(store, true).await?;
        let (kept, moments) = (&superblock.checkpoints, &superblock.moments);
        if now.checkpoints == *kept && now.moments == *moments {
            let (recovered, as_of, size_bytes) = found?;
            return Ok(At { number, superblock, recovered, as_of, size_bytes });
        }
    }
    Err(Error::Unsteady { volume: store.label(), tries: READS_MAX })
}

pub(crate) async fn try_at(
    store: &VolumeStore,
    superblock: &Superblock,
    moment: &Moment,
) -> Result<(Recovered, SequenceNumber, u64), Error> {
    let as_of = find(store, superblock, moment).await?;
    if !is_held(superblock, as_of) {
        let reason = match superblock.own_line().contains(as_of) {
            true => "nothing holds it any more".to_owned(),
            false if as_of < superblock.log_first_number => match superblock.parent() {
                Some(parent) => {
                    format!("it is before the clone's own log began: ask its parent, '{}'", parent.path)
                }
                None => "it is before the log began".to_owned(),
            },
            false => "it is on a branch that a rollback left, and no snapshot holds it".to_owned(),
        };
        return Err(no_moment(store, superblock, moment, reason).await);
    }
    let line = superblock.line(as_of);
    let stored = stored_parts(store).await?;
    let recovered = recover_line(store, superblock, &line, moment, &stored).await?;
    // Two of one number may differ in their sizes: growing writes nothing to the log.
    let snapshot = match moment {
        Moment::Snapshot(name) => superblock.snapshot(name),
        _ => snapshot_of(superblock, as_of),
    };
    if snapshot.is_none() && may_miss_objects(superblock) {
        refuse_what_is_gone(store, superblock, moment, &recovered).await?;
    }
    let size_bytes = snapshot.map_or_else(|| superblock.size_bytes_at(&line), |snapshot| snapshot.size_bytes);
    Ok((recovered, as_of, size_bytes))
}

/// Replays a line to its end, from the newest base that leads there.
async fn recover_line(
    store: &VolumeStore,
    superblock: &Superblock,
    line: &Line,
    moment: &Moment,
    stored: &BTreeMap<PartId, u64>,
) -> Result<Recovered, Error> {
    let as_of = line.last();
    let mut failed = None;
    // A clone that shares nothing any more has no beginning of its own.
    let beginning = (!superblock.is_cut()).then_some(None);
    for base in bases(superblock, line).into_iter().map(Some).chain(beginning) {
        // What is condemned may still be listed, but whoever relied on it would find it gone.
        let first = base.map_or(SequenceNumber(0), |base| base.stamp.as_of.next());
        if is_condemned_from(superblock, line, first) {
            continue;
        }
        let behind = match &base {
            None => None,
            Some(base) => match read_prefix(store, superblock, base, stored).await? {
                Some(prefix) => {
                    let may_be_gone = !superblock.checkpoints.iter().skip(1).any(|kept| kept == base);
                    Some(Behind { stamp: base.stamp, prefix, may_be_gone, may_lose: false })
                }
                None => continue,
            },
        };
        let recovered = replay_log(store, superblock, line, behind, true).await?;
        let Some(recovered) = recovered.whole() else { continue };
        match (recovered.replay.last(), recovered.damage) {
            (Some((last, _)), _) if last == as_of => {
                return Ok(Recovered { base, damage: None, ..recovered });
            }
            (_, Some(damage)) => failed = failed.or(Some(damage)),
            // The log's own words: it ends before, or a fence skips the number.
            (Some((last, _)), None) => {
                let reason = match recovered.replay.next_number() > as_of {
                    true => format!("the log has no such object; the last one before it is number {last}"),
                    false => format!("the log ends with number {last}"),
                };
                if failed.is_none() {
                    failed = Some(no_moment(store, superblock, moment, reason).await);
                }
            }
            (None, None) => {}
        }
    }
    match failed {
        Some(failed) => Err(failed),
        None => Err(no_moment(store, superblock, moment, "the log is empty".to_owned()).await),
    }
}

/// Whether an object of a line, from a number on, may be gone or go at any moment.
fn is_condemned_from(superblock: &Superblock, line: &Line, from: SequenceNumber) -> bool {
    superblock.condemned.iter().any(|range| {
        let (first, last) = (range.first.max(from), range.last.min(line.last()));
        (first.0..=last.0).any(|number| line.contains(SequenceNumber(number)))
    })
}

/// Checkpoints on a line that it can be replayed behind, newest first.
pub(crate) fn bases(superblock: &Superblock, line: &Line) -> Vec<CheckpointRef> {
    let pinned = superblock.moments.snapshots.iter().filter_map(|snapshot| snapshot.base.as_ref());
    let mut bases: Vec<CheckpointRef> = Vec::new();
    for base in superblock.checkpoints.iter().chain(pinned) {
        if line.contains(base.stamp.as_of) && !bases.contains(base) {
            bases.push(*base);
        }
    }
    bases.sort_by_key(|base| std::cmp::Reverse((base.stamp.as_of, base.stamp.epoch, base.part)));
    bases
}

fn snapshot_of(superblock: &Superblock, as_of: SequenceNumber) -> Option<&Snapshot> {
    superblock.moments.snapshots.iter().find(|snapshot| snapshot.as_of == as_of)
}

/// Whether a moment can be reached, and goes on being so until a later superblock version says otherwise.
pub(crate) fn is_held(superblock: &Superblock, as_of: SequenceNumber) -> bool {
    let on_line = as_of >= oldest_held(superblock) && superblock.own_line().contains(as_of);
    on_line || snapshot_of(superblock, as_of).is_some()
}

/// The oldest moment of the volume's own line that is held.
pub(crate) fn oldest_held(superblock: &Superblock) -> SequenceNumber {
    match &superblock.checkpoints[..] {
        [oldest, _, ..] => oldest.stamp.as_of,
        [oldest] if !superblock.moments.rollbacks.is_empty() => oldest.stamp.as_of,
        // Nothing was ever deleted.
        _ => superblock.log_first_number,
    }
}

/// Whether what lies at or above [`oldest_held`] may have lost objects all the same: before the place to which a rollback
/// went, what that place did not need may have been deleted already.
fn may_miss_objects(superblock: &Superblock) -> bool {
    !superblock.moments.rollbacks.is_empty() || superblock.checkpoints.len() < 2
}

async fn refuse_what_is_gone(
    store: &VolumeStore,
    superblock: &Superblock,
    moment: &Moment,
    recovered: &Recovered,
) -> Result<(), Error> {
    let gone = live_but_gone(store, superblock, recovered).await?;
    let Some(gone) = gone.first() else { return Ok(()) };
    let reason = format!("it needs number {gone} of the log, which was deleted");
    Err(no_moment(store, superblock, moment, reason).await)
}

/// The volume's own objects that a recovered map points into and that are not there, or may go at any moment.
pub(crate) async fn live_but_gone(
    store: &VolumeStore,
    superblock: &Superblock,
    recovered: &Recovered,
) -> Result<Vec<SequenceNumber>, Error> {
    let listed: BTreeSet<SequenceNumber> =
        store.list_log(None).await?.iter().map(|entry| entry.number).collect();
    let objects = recovered.replay.prefix().objects().own();
    let live =
        objects.filter(|(_, state)| state.live_blocks > 0).map(|(_, state)| state.record.identity.number);
    Ok(live.filter(|number| !listed.contains(number) || superblock.is_condemned(*number)).collect())
}

/// The number that somebody means.
async fn find(
    store: &VolumeStore,
    superblock: &Superblock,
    moment: &Moment,
) -> Result<SequenceNumber, Error> {
    match moment {
        Moment::Snapshot(name) => match superblock.snapshot(name) {
            Some(snapshot) => Ok(snapshot.as_of),
            None => Err(no_moment(store, superblock, moment, "there is no such snapshot".to_owned()).await),
        },
        Moment::Number(number) => Ok(*number),
        Moment::Time(unix_ms) => match sealed_by(store, superblock, *unix_ms).await? {
            Some(number) => Ok(number),
            None => {
                let reason = "it is before the oldest moment that can be reached".to_owned();
                Err(no_moment(store, superblock, moment, reason).await)
            }
        },
    }
}

/// The last object of the volume's own line that was sealed at or before a time: of those between the newest checkpoint that
/// was not yet later and the next one. Where clocks went backwards, later ones are not looked at.
async fn sealed_by(
    store: &VolumeStore,
    superblock: &Superblock,
    unix_ms: u64,
) -> Result<Option<SequenceNumber>, Error> {
    let line = superblock.own_line();
    let (mut from, mut until) = (None, None);
    for checkpoint in superblock.checkpoints.iter().rev() {
        let as_of = checkpoint.stamp.as_of;
        match read_root(store, superblock.volume_id, checkpoint).await {
            Ok(root) if root.last_data.is_some_and(|last| last.sealed_unix_ms > unix_ms) => {
                until = Some(as_of)
            }
            Ok(root) => {
                from = Some((as_of, root.next_number));
                break;
            }
            Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) => {
                tracing::warn!("{error}; the checkpoint before is used");
            }
            Err(error) => return Err(error),
        }
    }
    let (mut found, mut next) = match from {
        Some((as_of, next)) => (Some(as_of), next_on(&line, as_of, next)),
        None if oldest_held(superblock) == superblock.log_first_number => (None, superblock.log_first_number),
        None => return Ok(None),
    };
    let after = next.0.checked_sub(1).map(SequenceNumber);
    let mut listed = store.list_log(after).await?;
    listed.retain(|entry| line.contains(entry.number) && until.is_none_or(|until| entry.number < until));
    let mut headers = futures::stream::iter(listed)
        .map(|entry| async move { (entry.number, store.read_log_header(entry.number).await) })
        .buffered(HEADERS_AT_ONCE);
    while let Some((number, header)) = headers.next().await {
        match header {
            _ if number < next => continue,
            Ok(Some(header)) if number == next => {
                // Format 1 says no time, and is older than all that does.
                if header.sealed_unix_ms().is_none_or(|sealed| sealed <= unix_ms) {
                    found = Some(number);
                }
                next = match &header {
                    AnyHeader::V1(_) => next_on(&line, number, number.next()),
                    AnyHeader::V2(header) => next_on(&line, number, header.next_number()),
                };
            }
            // The log ends here, or is damaged from here on.
            Ok(_) | Err(Error::Corrupt { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The number that follows on a line.
fn next_on(line: &Line, number: SequenceNumber, next: SequenceNumber) -> SequenceNumber {
    line.jumps().find(|(to, _)| *to == number).map_or(next, |(_, jump)| jump)
}

/// That a moment can not be reached, why, and what can.
async fn no_moment(store: &VolumeStore, superblock: &Superblock, moment: &Moment, reason: String) -> Error {
    let oldest = oldest_held(superblock);
    // What can not be read is not said.
    let sealed_unix_ms = match superblock.checkpoints.first().filter(|kept| kept.stamp.as_of == oldest) {
        Some(kept) => {
            let root = read_root(store, superblock.volume_id, kept).await.ok();
            root.and_then(|root| root.last_data).map(|last| last.sealed_unix_ms)
        }
        None => {
            let header = store.read_log_header(oldest).await.ok().flatten();
            header.and_then(|header| header.sealed_unix_ms())
        }
    };
    let names: Vec<&str> =
        superblock.moments.snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
    let snapshots = match names.is_empty() {
        true => "there are no snapshots".to_owned(),
        false => format!("the snapshots are {}", names.join(", ")),
    };
    let time = sealed_unix_ms.map(|at| format!(", of {}", calendar::utc(at))).unwrap_or_default();
    Error::NoMoment {
        volume: store.label(),
        moment: moment.to_string(),
        reason,
        reachable: format!("the oldest that can be reached is number {oldest}{time}, and {snapshots}"),
    }
}

//! Recovery: from the bucket's log to the map as of the durable point. Writes nothing.
//!
//! Knows how to list and to fetch headers in parallel, and that only a complete listing or a definite "not found" ends
//! the log (rule 4); what an object means, replay knows.

use futures::StreamExt;
use lsvd_engine::Replay;
use lsvd_format::superblock::Superblock;
use lsvd_format::{AnyHeader, SequenceNumber};

use crate::Error;
use crate::store::{ListedLog, VolumeStore};

/// Headers fetched at once: recovery's time is round trips, not bytes.
const HEADERS_AT_ONCE: usize = 100;

/// What the listing held besides the gapless run.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) replay: Replay,
    /// Numbers that the run does not hold: before its end (skipped by a fence) or beyond it.
    pub(crate) strays: Vec<SequenceNumber>,
    /// The mark that ends the run because its writer had not begun: what lies behind it does not count.
    pub(crate) unbegun_mark: Option<SequenceNumber>,
    /// Why the run ends early, where a damaged object ended it (only if that was allowed).
    pub(crate) damage: Option<Error>,
}

/// Replays the gapless run of log objects. With `stop_at_damage` a damaged object ends the run and is reported; without
/// it is an error.
pub(crate) async fn recover(
    store: &VolumeStore,
    superblock: &Superblock,
    stop_at_damage: bool,
) -> Result<Recovered, Error> {
    let first = superblock.log_first_number;
    let mut replay = Replay::new(superblock.volume_id, superblock.size_bytes, superblock.window, first);
    if let Some(layout) = &superblock.log_layout {
        replay = replay.taking_format_1(layout.append_format);
    }
    let listed = store.list_log(None).await?;
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
    Ok(Recovered { replay, strays, unbegun_mark, damage })
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

//! Recovery: from the bucket's log to the map as of the durable point. Writes nothing.
//!
//! Knows how to list and to fetch headers in parallel, and that only a complete listing or a definite "not found" ends
//! the log (rule 4); what an object means, replay knows.

use futures::StreamExt;
use lsvd_engine::Replay;
use lsvd_format::log_object::Header;
use lsvd_format::superblock::Superblock;
use lsvd_format::{SequenceNumber, names};

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
    let listed = store.list_log(None).await?;
    let mut strays = Vec::new();
    let mut damage = None;
    let mut headers = futures::stream::iter(listed.iter().copied())
        .map(|entry| async move { (entry, store.read_log_header(entry.number).await) })
        .buffered(HEADERS_AT_ONCE);
    let mut gap = false;
    while let Some((entry, header)) = headers.next().await {
        gap |= entry.number > replay.next_number();
        if gap || damage.is_some() || entry.number < replay.next_number() {
            strays.push(entry.number);
            continue;
        }
        match take_in(store, &mut replay, entry, header) {
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
    Ok(Recovered { replay, strays, damage })
}

fn take_in(
    store: &VolumeStore,
    replay: &mut Replay,
    entry: ListedLog,
    header: Result<Option<Header>, Error>,
) -> Result<(), Error> {
    let name = names::log_object(entry.number);
    let Some(header) = header? else {
        let reason = "it was listed and then not found: somebody deletes this volume's objects";
        return Err(store.corrupt(name, reason));
    };
    if header.object_bytes() != entry.object_bytes {
        let reason = format!("listed with {} bytes, read with {}", entry.object_bytes, header.object_bytes());
        return Err(store.corrupt(name, reason));
    }
    replay.accept(&header).map_err(|error| store.corrupt(name, error.to_string()))
}

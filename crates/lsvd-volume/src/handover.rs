//! What a process that is killed hands over to the next one on its host: the writes that it answered and nobody had flushed.
//!
//! A client that reconnects, as kernels and QEMU do, does not know that it talks to another process. What it flushes there it
//! takes for durable, also what it had written before. So an answered write has to outlive its process; where flushes are
//! answered by the store, it does in a journal that is never synced: a process that dies leaves it to the system. A host that
//! dies takes it along, with the clients that it has itself; others must not go on as if nothing had been. Knows which such journal may be replayed; writing it is
//! the journal's matter.
//!
//! One may be replayed if the superblock that was replaced named it, and nobody wrote since. There is nothing to refuse
//! otherwise: all that was flushed is in the store.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsvd_format::superblock::Superblock;
use lsvd_format::{JournalId, ObjectFormat, VolumeId};
use lsvd_local::{Held, Journal, JournalError};

use crate::acceptance::{Accepted, begin_opening, contained_by_log, new_id, put_next};
use crate::journal::{AnyFiles, JournalOptions, blocking};
use crate::root::newest_readable;
use crate::store::VolumeStore;
use crate::takeover::TakenOver;
use crate::{Error, OpenOptions};

/// Directories of a volume: a process that was taken over from and has not ended yet has one of them.
const SLOTS: u32 = 4;
/// Room beside what is buffered: the segment that is written, one that is released in part, and headers.
const MORE_BYTES: u64 = 64 << 20;
/// Small, as a segment is removed when the log has all of it, and it may be in memory.
const SEGMENT_BYTES: u64 = 8 << 20;

/// What names the time since the host was started, and how the directories of such a time are called.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const BOOT: &str = "boot-";

/// Names this start of the host.
pub(crate) fn boot_id() -> io::Result<String> {
    fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned())
}

/// Where the processes of this host hand over to each other.
#[derive(Clone)]
pub struct HandoverOptions {
    slots: Arc<dyn Fn(VolumeId) -> Vec<JournalOptions> + Send + Sync>,
}

impl HandoverOptions {
    /// Below a directory, which is made if it is not there; it may be shared by volumes, and may be in memory (`/run`). What was left there
    /// before the host was started is removed: of what is not synced a lost host may leave anything.
    ///
    /// # Errors
    /// If the system does not say since when it runs (`/proc` is needed), or the directory can not be made or read: serve without, or
    /// choose another one.
    pub fn directory(path: &Path) -> io::Result<Self> {
        let ours = format!("{BOOT}{}", boot_id()?);
        let base: PathBuf = path.join(&ours);
        DirBuilder::new().recursive(true).mode(0o700).create(&base)?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(BOOT) && name != ours) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let slot = move |volume: VolumeId, slot: u32| {
            JournalOptions::unsynced_directory(&base.join(format!("{volume}.{slot}")))
        };
        Ok(Self { slots: Arc::new(move |volume| (0..SLOTS).map(|nth| slot(volume, nth)).collect()) })
    }

    /// In one place, on a simulated disk.
    pub fn simulated(place: JournalOptions) -> Self {
        Self { slots: Arc::new(move |_| vec![place.clone()]) }
    }
}

impl fmt::Debug for HandoverOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandoverOptions").finish_non_exhaustive()
    }
}

/// A place that is ours until we end, with what it holds.
pub(crate) struct Handover {
    pub(crate) place: JournalOptions,
    journal: Journal<AnyFiles>,
}

impl Handover {
    pub(crate) fn id(&self) -> JournalId {
        self.journal.id()
    }
}

/// Finds the place that the last process left, or takes a free one. `None`, with a warning, if none can be had: the volume is
/// then served as well, but for who reconnects.
pub(crate) async fn find(store: &VolumeStore, options: &OpenOptions) -> Result<Option<Handover>, Error> {
    let Some(handover) = options.handover.as_ref().filter(|_| options.journal.is_none()) else {
        return Ok(None);
    };
    if store.append_format() == ObjectFormat::V1 {
        // Its objects can not say which records they contain.
        return Ok(None);
    }
    let (_, superblock) = newest_readable(store, false).await?;
    let mut places = (handover.slots)(superblock.volume_id);
    let own_thread = places.iter().any(JournalOptions::has_own_thread);
    for place in &mut places {
        place.bytes_max = options.buffer_bytes_max.saturating_add(options.buffer_bytes_max / 8) + MORE_BYTES;
        place.segment_bytes = SEGMENT_BYTES;
    }
    let new = new_id(options);
    let found = blocking(own_thread, move || choose(places, &superblock, new)).await;
    match found {
        Ok(found) => {
            if found.is_none() {
                tracing::warn!(volume = %store.label(), "no place to hand over to the next process is free: {WITHOUT}");
            }
            Ok(found)
        }
        Err(error) => {
            tracing::warn!(volume = %store.label(), "{error}: {WITHOUT}");
            Ok(None)
        }
    }
}

const WITHOUT: &str = "if this one is killed, what it answered and nobody flushed is lost, which clients that reconnect do not notice";

/// The place that the superblock names, or the first one that is free, begun anew.
fn choose(
    places: Vec<JournalOptions>,
    superblock: &Superblock,
    new: JournalId,
) -> Result<Option<Handover>, JournalError> {
    let mut free: Option<Handover> = None;
    for place in places {
        let files = match place.open() {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => continue,
            Err(source) => {
                return Err(JournalError::Io { what: "open", file: place.place().to_owned(), source });
            }
        };
        let journal = match Journal::open(files, superblock.volume_id, new) {
            // Whose it is can not be said any more, and nobody needs it.
            Err(JournalError::Damaged { .. } | JournalError::OtherVolume { .. }) => {
                let files = place.open();
                let files = files.map_err(|source| JournalError::Io {
                    what: "open",
                    file: place.place().to_owned(),
                    source,
                })?;
                Journal::replace(files, superblock.volume_id, new)?
            }
            opened => opened?,
        };
        if superblock.handover == Some(journal.id()) {
            return Ok(Some(Handover { place, journal }));
        }
        match &free {
            None => free = Some(Handover { place, journal }),
            // Another one's that has ended: it takes memory, perhaps.
            Some(_) if journal.has_segments() => drop(journal.begin_anew(new)?),
            Some(_) => {}
        }
    }
    let Some(Handover { place, journal }) = free else { return Ok(None) };
    let journal = if journal.id() == new { journal } else { journal.begin_anew(new)? };
    Ok(Some(Handover { place, journal }))
}

/// Decides, when the volume is taken over and its log can not grow any more, what of it is replayed.
pub(crate) async fn accept(
    store: &VolumeStore,
    options: &OpenOptions,
    handover: Handover,
    taken: &mut TakenOver,
) -> Result<Accepted, Error> {
    let failed = |error| Error::journal(store.label(), error);
    let Handover { place, journal } = handover;
    let named = taken.before.handover == Some(journal.id()) && !options.accept_shorter_log;
    let contained = match named {
        true => contained_by_log(&taken.superblock, &taken.replay, &journal).map_err(failed)?,
        false => None,
    };
    let has_segments = journal.has_segments();
    let mut unbroken_since = taken.superblock.unbroken_since;
    let size_bytes = taken.superblock.size_bytes;
    let checked = blocking(place.has_own_thread(), move || {
        let checked = contained.map(|contained| journal.check(contained));
        (journal, checked)
    });
    let accepted = match checked.await {
        (journal, Some(Ok(Held { records, bytes, end_bytes }))) if end_bytes <= size_bytes => {
            if records > 0 {
                tracing::info!(volume = %store.label(), records, bytes, "the process before left writes that the store does not have");
            }
            unbroken_since = Some(taken.before.unbroken_since);
            Accepted { journal, contained: contained.unwrap_or(0) }
        }
        (journal, checked) => {
            if has_segments {
                let why = match checked {
                    Some(Err(error)) => error.to_string(),
                    _ => "the volume went on without them".to_owned(),
                };
                tracing::warn!(volume = %store.label(), "writes that another process left here are dropped: {why}");
            }
            let journal = journal.begin_anew(new_id(options)).map_err(failed)?;
            Accepted { journal, contained: 0 }
        }
    };
    let accepted = begin_opening(store, &place, accepted, taken.superblock.epoch).await?;
    let id = Some(accepted.journal.id());
    if (taken.superblock.handover, taken.superblock.unbroken_since) != (id, unbroken_since) {
        let superblock = Superblock { handover: id, unbroken_since, ..taken.superblock.clone() };
        put_next(store, options, (&mut taken.number, &mut taken.superblock), superblock).await?;
    }
    Ok(accepted)
}

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
use std::time::Duration;

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
/// How often, and after which pause, a place is looked for that another process has.
const BUSY_TRIES: u32 = 4;
const BUSY_PAUSE: Duration = Duration::from_millis(30);
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

    /// The same, and what was left elsewhere is found, too.
    #[must_use]
    pub fn and(self, elsewhere: &Self) -> Self {
        let (here, elsewhere) = (self.slots, elsewhere.slots.clone());
        Self { slots: Arc::new(move |volume| [here(volume), elsewhere(volume)].concat()) }
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
pub(crate) async fn find(
    store: &VolumeStore,
    options: &OpenOptions,
    volume: VolumeId,
) -> Result<Option<Handover>, Error> {
    let Some(handover) = options.handover.as_ref().filter(|_| options.journal.is_none()) else {
        return Ok(None);
    };
    if store.append_format() == ObjectFormat::V1 {
        // Its objects can not say which records they contain.
        return Ok(None);
    }
    let mut places = (handover.slots)(volume);
    let own_thread = places.iter().any(JournalOptions::has_own_thread);
    for place in &mut places {
        place.bytes_max = options.buffer_bytes_max.saturating_add(options.buffer_bytes_max / 8) + MORE_BYTES;
        place.segment_bytes = SEGMENT_BYTES;
    }
    let places: Vec<_> = places.into_iter().map(|place| (place, new_id(options))).collect();
    let mut tries_left = BUSY_TRIES;
    let (found, superblock) = loop {
        let places = places.clone();
        let found = blocking(own_thread, move || Found::look(places, volume)).await;
        // Behind the locks: who had one of the places until now may have had the superblock name it meanwhile.
        let (_, superblock) = newest_readable(store, false).await?;
        tries_left -= 1;
        // Who was killed a moment ago lets go of its place when it is gone altogether.
        let may_come = found.busy && superblock.handover.is_some() && !found.has(superblock.handover);
        if tries_left == 0 || !may_come {
            break (found, superblock);
        }
        drop(found);
        tokio::time::sleep(BUSY_PAUSE).await;
    };
    let label = store.label();
    if superblock.closed_at.is_none() && superblock.handover.is_some() && !found.has(superblock.handover) {
        tracing::warn!(
            volume = %label,
            "the last writer's answered writes are not at hand here (it runs, or ran on another host or with another --handover): what of \
             them was not flushed may be lost"
        );
    }
    let (chosen, failed) = blocking(own_thread, move || found.choose(superblock.handover)).await;
    for error in failed {
        tracing::warn!(volume = %label, "a place to hand over to the next process can not be used: {error}");
    }
    if chosen.is_none() {
        tracing::warn!(volume = %label, "no place to hand over to the next process can be had: {WITHOUT}");
    }
    Ok(chosen)
}

const WITHOUT: &str = "if this one is killed, what it answered and nobody flushed is lost, which clients that reconnect do not notice";

/// The places that no other process has: they are ours while this lives.
#[derive(Default)]
struct Found {
    /// Each with the id of what is begun anew there.
    places: Vec<(Handover, JournalId)>,
    /// Another process has one.
    busy: bool,
    failed: Vec<JournalError>,
}

impl Found {
    fn look(places: Vec<(JournalOptions, JournalId)>, volume: VolumeId) -> Self {
        let mut found = Self::default();
        for (place, new) in places {
            match look(&place, new, volume) {
                Ok(Some(journal)) => found.places.push((Handover { place, journal }, new)),
                Ok(None) => found.busy = true,
                Err(error) => found.failed.push(error),
            }
        }
        found
    }

    fn has(&self, named: Option<JournalId>) -> bool {
        self.places.iter().any(|(handover, _)| Some(handover.id()) == named)
    }

    /// The one that the superblock names, or the first one, begun anew. What others left in the rest takes memory, perhaps, and is
    /// nobody's: it goes.
    fn choose(self, named: Option<JournalId>) -> (Option<Handover>, Vec<JournalError>) {
        let (mut places, mut failed) = (self.places, self.failed);
        // The others keep their order.
        places.sort_by_key(|(handover, _)| Some(handover.id()) != named);
        let mut chosen = None;
        for (Handover { place, journal }, new) in places {
            let stays = chosen.is_none() && Some(journal.id()) == named || journal.is_new();
            match if stays { Ok(journal) } else { journal.begin_anew(new) } {
                Ok(journal) if chosen.is_none() => chosen = Some(Handover { place, journal }),
                Ok(_) => {}
                Err(error) => failed.push(error),
            }
        }
        (chosen, failed)
    }
}

/// The journal in a place; `None` if another process has it.
fn look(
    place: &JournalOptions,
    new: JournalId,
    volume: VolumeId,
) -> Result<Option<Journal<AnyFiles>>, JournalError> {
    let open = || place.open().map_err(|source| (source.kind() == io::ErrorKind::ResourceBusy, source));
    let failed = |source| JournalError::Io { what: "open", file: place.place().to_owned(), source };
    let files = match open() {
        Ok(files) => files,
        Err((true, _)) => return Ok(None),
        Err((false, source)) => return Err(failed(source)),
    };
    match Journal::open(files, volume, new) {
        // Whose it is can not be said any more, and nobody needs it.
        Err(JournalError::Damaged { .. } | JournalError::OtherVolume { .. }) => {
            let files = open().map_err(|(_, source)| failed(source))?;
            Journal::replace(files, volume, new).map(Some)
        }
        opened => opened.map(Some),
    }
}

/// Decides, when the volume is taken over and its log can not grow any more, what of it is replayed. `None`, with a warning, if it can
/// not be used and holds nothing: what was answered is never left behind for want of room to go on.
///
/// # Errors
/// The store's; [`Error::Journal`] if it holds writes and can not be gone on with: make room where it is.
pub(crate) async fn accept(
    store: &VolumeStore,
    options: &OpenOptions,
    handover: Handover,
    taken: &mut TakenOver,
) -> Result<Option<(JournalOptions, Accepted)>, Error> {
    let Handover { place, journal } = handover;
    let named = taken.before.handover == Some(journal.id()) && !options.accept_shorter_log;
    let (epoch, size_bytes) = (taken.superblock.epoch, taken.superblock.size_bytes);
    // An older copy of the volume knows nothing of what a later opening wrote.
    let is_later = matches!(journal.opening(), Ok(Some(had_last)) if had_last >= epoch);
    let contained = match named && !is_later {
        true => contained_by_log(&taken.superblock, &taken.replay, &journal),
        false => Ok(None),
    };
    let (has_segments, new) = (journal.has_segments(), new_id(options));
    let decide = blocking(place.has_own_thread(), move || {
        let is_new = journal.is_new();
        let why = match contained {
            // Of an opening that was cut short before it answered anybody.
            _ if named && is_new => return Ok((Accepted { journal, contained: 0 }, Ok(Held::default()))),
            Ok(Some(contained)) => match journal.check(contained) {
                Ok(left) if left.end_bytes <= size_bytes => {
                    return Ok((Accepted { journal, contained }, Ok(left)));
                }
                Ok(_) => "the volume is smaller now".to_owned(),
                Err(error) => error.to_string(),
            },
            Ok(None) => "the volume went on without them".to_owned(),
            Err(error) => error.to_string(),
        };
        // One that was just begun, and that the superblock names already, need not be begun once more.
        let journal = if is_new { journal } else { journal.begin_anew(new)? };
        Ok::<_, JournalError>((Accepted { journal, contained: 0 }, Err(why)))
    });
    let label = store.label();
    let (accepted, held) = match decide.await {
        Ok(decided) => decided,
        Err(error) => {
            tracing::warn!(volume = %label, "{error}: {WITHOUT}");
            return name(store, options, taken, (None, false)).await.map(|()| None);
        }
    };
    let is_whole = held.is_ok();
    match &held {
        Ok(Held { records: 0, .. }) => {}
        Ok(Held { records, bytes, .. }) => {
            tracing::info!(volume = %label, records, bytes, "the process before left writes that the store does not have");
        }
        Err(why) if has_segments => {
            tracing::warn!(volume = %label, "writes that another process left here are dropped: {why}");
        }
        Err(_) => {}
    }
    let id = accepted.journal.id();
    let begun = match begin_opening(store, &place, accepted, epoch).await {
        Ok(accepted) => accepted,
        // The volume stays as it is; nobody was answered by this opening.
        Err(error) if matches!(held, Ok(Held { records: 1.., .. })) => return Err(error),
        Err(error) => {
            tracing::warn!(volume = %label, "{error}: {WITHOUT}");
            return name(store, options, taken, (None, is_whole)).await.map(|()| None);
        }
    };
    name(store, options, taken, (Some(id), is_whole)).await?;
    Ok(Some((place, begun)))
}

/// Has the superblock name this one, and say whether all that was answered before is there.
async fn name(
    store: &VolumeStore,
    options: &OpenOptions,
    taken: &mut TakenOver,
    (id, is_whole): (Option<JournalId>, bool),
) -> Result<(), Error> {
    let before = taken.before;
    let unbroken_since = (is_whole || before.was_closed).then_some(before.unbroken_since);
    if (taken.superblock.handover, taken.superblock.unbroken_since) != (id, unbroken_since) {
        let superblock = Superblock { handover: id, unbroken_since, ..taken.superblock.clone() };
        put_next(store, options, (&mut taken.number, &mut taken.superblock), superblock).await?;
    }
    Ok(())
}

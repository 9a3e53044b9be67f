//! Which journal may be replayed into a volume's log, and what is said when it may not be.
//!
//! It may if the superblock names it as in use, or the log's last data were written with it; and if it knows the opening that
//! wrote those data. Anything else means that somebody wrote past it, and its records would overwrite newer data: a daemon
//! without it, or one with a copy of it, as a host's restored image has one. Then it goes on behind the record that those data
//! name. Knows superblocks and what replay says of the log's end; no records.

use lsvd_engine::Replay;
use lsvd_format::superblock::Superblock;
use lsvd_format::{Epoch, JournalId, ObjectFormat, SuperblockNumber};
use lsvd_local::{Held, Journal, JournalError};

use crate::journal::{AnyFiles, JournalOptions, blocking, open_files};
use crate::recovery::recover_for_reading;
use crate::root::newest_readable;
use crate::store::{Put, VolumeStore};
use crate::takeover::Before;
use crate::{Error, OpenOptions};

/// Opens the journal that the options name, if they name one. Nothing of it is replayed. One that can never be accepted as
/// the volume is now is refused here, before anybody is fenced.
pub(crate) async fn open_journal(
    store: &VolumeStore,
    options: &OpenOptions,
) -> Result<Option<Journal<AnyFiles>>, Error> {
    let Some(place) = &options.journal else { return Ok(None) };
    if store.append_format() == ObjectFormat::V1 {
        return Err(Error::Invalid(format!(
            "volume '{}' has no local journal, as its log goes on in format 1, whose objects can not name the records that \
             they contain; open it without one",
            store.label()
        )));
    }
    let failed = |error| Error::journal(store.label(), error);
    // First: a process that had the directory until now may have had the superblock name its journal meanwhile.
    let files = open_files(place).await.map_err(failed)?;
    let (_, superblock) = newest_readable(store, false).await?;
    let journal = match Journal::open(files, superblock.volume_id, new_id(options)) {
        Err(error @ JournalError::Damaged { .. }) if options.abandon_journal => {
            tracing::warn!("{error}. It is given up for lost, as was asked for");
            let files = open_files(place).await.map_err(failed)?;
            Journal::replace(files, superblock.volume_id, new_id(options)).map_err(failed)?
        }
        opened => opened.map_err(failed)?,
    };
    if options.abandon_journal {
        return Ok(Some(journal));
    }
    if let Some(epoch) = journal.opening().map_err(failed)?.filter(|epoch| *epoch > superblock.epoch) {
        return Err(failed(JournalError::OlderVolume { epoch, volume_epoch: superblock.epoch }));
    }
    if superblock.journal.is_none() && journal.has_segments() {
        // Whoever has the volume may have collected meanwhile what the version above still refers to.
        let (_, superblock, recovered) = recover_for_reading(store, false).await?;
        let replay = recovered.replay;
        if superblock.journal.is_none()
            && contained_by_log(&superblock, &replay, &journal).map_err(failed)?.is_none()
            && has_more(&superblock, &replay, &journal).map_err(failed)?
        {
            return Err(passed_over(store, place, journal.id()));
        }
    }
    Ok(Some(journal))
}

pub(crate) fn new_id(options: &OpenOptions) -> JournalId {
    JournalId((options.environment.random)())
}

/// The last record of this journal that the log contains; `None` if it may not be replayed.
pub(crate) fn contained_by_log(
    superblock: &Superblock,
    replay: &Replay,
    journal: &Journal<AnyFiles>,
) -> Result<Option<u64>, JournalError> {
    let (last, had_last) = (replay.last_data(), journal.opening()?);
    let in_log = last.and_then(|last| last.journal).filter(|position| position.journal == journal.id());
    let named = [superblock.journal, superblock.handover].contains(&Some(journal.id()));
    let in_use = in_log.is_some() || named;
    let is_known = last.is_none_or(|last| had_last.is_some_and(|epoch| last.epoch <= epoch));
    // What it held before a rollback belongs to the moment that was left.
    let rolled_back = superblock.moments.rollbacks.last();
    let is_left = rolled_back.is_some_and(|rollback| had_last.is_none_or(|epoch| epoch <= rollback.epoch));
    Ok((in_use && is_known && !is_left).then(|| in_log.map_or(0, |position| position.record)))
}

/// Whether a journal that may not be replayed any more has records that the log does not contain: a clean close that was
/// cut short leaves one that has none.
fn has_more(
    superblock: &Superblock,
    replay: &Replay,
    journal: &Journal<AnyFiles>,
) -> Result<bool, JournalError> {
    let contained = journal.opening()?.and_then(|epoch| replay.contained(journal.id(), epoch)).unwrap_or(0);
    if !journal.has_segments() {
        return Ok(false);
    }
    match journal.check(contained) {
        // What it let go of is in the log that a rollback left.
        Err(JournalError::Damaged { .. }) if !superblock.moments.rollbacks.is_empty() => Ok(true),
        checked => Ok(checked?.records > 0),
    }
}

fn passed_over(store: &VolumeStore, place: &JournalOptions, journal: JournalId) -> Error {
    Error::JournalPassedOver { volume: store.label(), journal, place: place.place().to_owned() }
}

/// The journal that the next superblock version names: the one in use if it is `ours`. Before the epoch is raised.
///
/// # Errors
/// [`Error::JournalNeeded`] if another one is in use, and it is not given up.
pub(crate) async fn in_use(
    store: &VolumeStore,
    options: &OpenOptions,
    current: &Superblock,
    ours: Option<JournalId>,
) -> Result<Option<JournalId>, Error> {
    let goes_on = ours.filter(|_| !options.accept_shorter_log);
    let Some(journal) = current.journal.filter(|named| Some(*named) != goes_on) else {
        return Ok(current.journal);
    };
    // What is lost at most is what was flushed after the last object: say it before it is lost.
    let last = match store.list_log(None).await?.last() {
        Some(last) => store.read_log_header(last.number).await?,
        None => None,
    };
    let stored_unix_ms = last.and_then(|header| header.sealed_unix_ms());
    let needed = Error::JournalNeeded { volume: store.label(), journal, stored_unix_ms };
    if !options.abandon_journal {
        return Err(needed);
    }
    tracing::warn!("{needed}. It is given up for lost, as was asked for");
    Ok(None)
}

/// A journal that may be replayed.
pub(crate) struct Accepted {
    pub(crate) journal: Journal<AnyFiles>,
    /// The last record that the log contains.
    pub(crate) contained: u64,
}

/// Decides, when the volume is taken over and its log can not grow any more, and has the superblock name the journal.
pub(crate) async fn accept(
    store: &VolumeStore,
    (options, place): (&OpenOptions, &JournalOptions),
    mut journal: Journal<AnyFiles>,
    replay: &Replay,
    (number, superblock): (&mut SuperblockNumber, &mut Superblock),
    before: Before,
) -> Result<Accepted, Error> {
    let mut since = before.was_closed.then_some(before.unbroken_since);
    let failed = |error| Error::journal(store.label(), error);
    let contained = match journal.opening().map_err(failed)? {
        // A log that was wound back has not what the journal's records were written over.
        _ if options.accept_shorter_log => None,
        // Nor has an older copy of the volume.
        Some(later) if later >= superblock.epoch => None,
        _ => contained_by_log(superblock, replay, &journal).map_err(failed)?,
    };
    let continues = match place.boot() {
        Some(boot) => journal.continues(&boot).map_err(failed)?,
        None => false,
    };
    let accepted = match contained {
        Some(contained) => {
            let check = blocking(place.has_own_thread(), move || {
                let checked = journal.check(contained);
                (journal, checked)
            });
            match check.await {
                (journal, Ok(left)) => {
                    if left.records > 0 {
                        let (records, bytes) = (left.records, left.bytes);
                        tracing::info!(volume = %store.label(), records, bytes, "the journal has what the log does not");
                    }
                    // Its writer was the last one, and what it wrote and did not sync is there.
                    if continues && superblock.journal == Some(journal.id()) {
                        since = Some(before.unbroken_since);
                    }
                    Accepted { journal, contained }
                }
                (journal, Err(error @ JournalError::Damaged { .. })) if options.abandon_journal => {
                    tracing::warn!("{error}. It is given up for lost, as was asked for");
                    anew(store, options, journal).map_err(failed)?
                }
                (_, Err(error)) => return Err(failed(error)),
            }
        }
        None if !options.abandon_journal && has_more(superblock, replay, &journal).map_err(failed)? => {
            return Err(passed_over(store, place, journal.id()));
        }
        None => anew(store, options, journal).map_err(failed)?,
    };
    let mut accepted = begin_opening(store, place, accepted, superblock.epoch).await?;
    if let Some(boot) = place.boot() {
        accepted.journal.continues(&boot).map_err(failed)?;
    }
    if superblock.journal != Some(accepted.journal.id()) || superblock.unbroken_since != since {
        let named = superblock.clone().with_journal(Some(accepted.journal.id()));
        let named = Superblock { unbroken_since: since, ..named };
        put_next(store, options, (number, superblock), named).await?;
    }
    Ok(accepted)
}

/// Notes in the journal that this opening has it: before it stores anything.
pub(crate) async fn begin_opening(
    store: &VolumeStore,
    place: &JournalOptions,
    mut accepted: Accepted,
    epoch: Epoch,
) -> Result<Accepted, Error> {
    let note = blocking(place.has_own_thread(), move || {
        let noted = accepted.journal.begin_opening(epoch);
        (accepted, noted)
    });
    let (accepted, noted) = note.await;
    noted.map_err(|error| Error::journal(store.label(), error))?;
    Ok(accepted)
}

/// Puts the next superblock version of a volume that nobody else knows to be open yet.
pub(crate) async fn put_next(
    store: &VolumeStore,
    options: &OpenOptions,
    (number, superblock): (&mut SuperblockNumber, &mut Superblock),
    next: Superblock,
) -> Result<(), Error> {
    let next = Superblock { written_unix_ms: (options.environment.now_unix_ms)(), ..next };
    *number = number.next();
    if let Put::Theirs(theirs) = store.put_next_superblock(*number, &next).await? {
        return Err(Error::Fenced { volume: store.label(), epoch: Some(theirs.epoch) });
    }
    *superblock = next;
    Ok(())
}

/// Begins another journal in the place of one of which nothing is needed, or that is given up.
fn anew(
    store: &VolumeStore,
    options: &OpenOptions,
    journal: Journal<AnyFiles>,
) -> Result<Accepted, JournalError> {
    if journal.has_segments() {
        // Said before it is lost; the log may contain some of it, which nobody can tell any more.
        match journal.check(0) {
            Ok(Held { records, bytes, .. }) => {
                tracing::warn!(volume = %store.label(), records, bytes, journal = %journal.id(), "the journal is given up")
            }
            Err(error) => {
                tracing::warn!(volume = %store.label(), journal = %journal.id(), "given up: {error}")
            }
        }
    }
    Ok(Accepted { journal: journal.begin_anew(new_id(options))?, contained: 0 })
}

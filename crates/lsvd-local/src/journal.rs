//! The journal: what was written to a volume and may not be in its store yet, in order, on a local disk.
//!
//! [`Journal::open`] finds a directory's journal or begins one; [`Journal::replay`] reads the records that the volume's log
//! does not contain; [`Replaying::finish`] cuts a torn tail off and gives the [`JournalWriter`] that goes on. Knows files by
//! [`Files`] and records by their headers; neither tasks nor time. Invariants:
//! 1. what [`JournalWriter::sync`] answered is replayed after any crash, and nothing that was never written is;
//! 2. what is replayed is the records in order without a gap, as they were written, every one of them verified;
//! 3. a record that was synced and is not there is an error and never the end (rules 4 and 5);
//! 4. after a write or sync that failed, other than for want of room, nothing is taken any more.

mod scan;
#[cfg(test)]
mod tests;
mod writer;

use std::io::ErrorKind;

use lsvd_format::journal::RecordHeader;
use lsvd_format::{Epoch, JournalId, NUMBER_MAX, VolumeId};

pub use self::writer::{JournalWriter, Limits, Written};
use crate::error::JournalError;
use crate::files::Files;

/// Name of the file that says whose journal this is.
const IDENTITY: &str = "identity";
/// What the names of segments end with.
const SEGMENT: &str = ".seg";
/// Name of the file that says how far the journal was synced. It is written after each sync and not synced itself: what
/// it says is true, and may lag.
const SYNCED: &str = "synced";
/// Name of the file that says which opening of the volume had the journal last. It is synced before that opening stores
/// anything.
const OPENING: &str = "opening";
/// Name of the file that says since which start of its host the journal is written. It is not synced: after another start it may say
/// anything.
const BOOT: &str = "boot";
/// Where the two slots of such a file are, written in turn so that one is always whole, and how long one is.
const SLOTS: [u64; 2] = [0, 4096];
const SLOT_LEN: usize = 28;
/// Bytes of an identity file at most.
const IDENTITY_LEN_MAX: usize = 256;

/// How much a journal holds that its volume's log does not contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Records.
    pub records: u64,
    /// Bytes of the volume that they cover.
    pub bytes: u64,
    /// Where the last byte of the volume ends that they cover.
    pub end_bytes: u64,
}

/// A directory's journal before it is known how much of it the volume's log contains.
#[derive(Debug)]
pub struct Journal<F> {
    files: F,
    id: JournalId,
    volume: VolumeId,
    /// First records of the segments, ascending.
    segments: Vec<u64>,
}

fn failed(what: &'static str, file: &str) -> impl FnOnce(std::io::Error) -> JournalError {
    let file = file.to_owned();
    move |source| JournalError::Io { what, file, source }
}

fn damaged(file: &str, offset: u64, reason: impl Into<String>) -> JournalError {
    JournalError::Damaged { file: file.to_owned(), offset, reason: reason.into() }
}

fn segment_name(first: u64) -> String {
    format!("{first:016x}{SEGMENT}")
}

fn parse_segment(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT).filter(|digits| digits.len() == 16)?;
    let first = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(first) == name && first > 0).then_some(first)
}

fn identity_line(id: JournalId, volume: VolumeId) -> String {
    let line = format!("lsvd-journal format=1 journal={id} volume={volume}");
    format!("{line} crc32c={:08x}\n", crc32c::crc32c(line.as_bytes()))
}

/// Journal and volume of an identity file.
fn parse_identity(text: &str) -> Option<(JournalId, VolumeId)> {
    let rest = text.strip_prefix("lsvd-journal format=1 journal=")?;
    let (id, rest) = rest.split_once(" volume=")?;
    let (volume, _) = rest.split_once(" crc32c=")?;
    let (id, volume): (JournalId, VolumeId) = (id.parse().ok()?, volume.parse().ok()?);
    (identity_line(id, volume) == text).then_some((id, volume))
}

/// A slot of the files [`SYNCED`] and [`OPENING`]: a number that only grows.
fn slot(id: JournalId, number: u64) -> [u8; SLOT_LEN] {
    let mut slot = [0; SLOT_LEN];
    slot[..16].copy_from_slice(&id.0);
    slot[16..24].copy_from_slice(&number.to_le_bytes());
    let checksum = crc32c::crc32c(&slot[..24]);
    slot[24..].copy_from_slice(&checksum.to_le_bytes());
    slot
}

/// The highest number that a file of slots says, and the slot that it does not stand in; 0 if it says none.
fn read_slots<F: Files>(files: &F, file: &str, id: JournalId) -> Result<(u64, u64), JournalError> {
    let (mut highest, mut free) = (0, SLOTS[0]);
    if !files.names().map_err(failed("list", "."))?.iter().any(|name| name == file) {
        return Ok((highest, free));
    }
    for (offset, other) in SLOTS.into_iter().zip(SLOTS.into_iter().rev()) {
        let mut bytes = [0; SLOT_LEN];
        let got = files.read(file, offset, &mut bytes).map_err(failed("read", file))?;
        let number = bytes[16..24].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        if got == SLOT_LEN && bytes == slot(id, number) && number > highest {
            (highest, free) = (number, other);
        }
    }
    Ok((highest, free))
}

impl<F: Files> Journal<F> {
    /// Finds the journal of `volume` in a directory and changes nothing; `None` if there is none.
    ///
    /// # Errors
    /// [`JournalError::OtherVolume`]; [`JournalError::Damaged`] if it can not be said whose it is; the disk's.
    pub fn find(files: F, volume: VolumeId) -> Result<Option<Self>, JournalError> {
        Self::found(files, volume).map(Result::ok)
    }

    /// The journal, or the files without one.
    fn found(files: F, volume: VolumeId) -> Result<Result<Self, F>, JournalError> {
        let names = files.names().map_err(failed("list", "."))?;
        let mut segments: Vec<u64> = names.iter().filter_map(|name| parse_segment(name)).collect();
        segments.sort_unstable();
        let mut bytes = vec![0; IDENTITY_LEN_MAX];
        let length = match names.iter().any(|name| name == IDENTITY) {
            true => files.read(IDENTITY, 0, &mut bytes).map_err(failed("read", IDENTITY))?,
            false => 0,
        };
        match parse_identity(&String::from_utf8_lossy(&bytes[..length])) {
            Some((_, theirs)) if theirs != volume => Err(JournalError::OtherVolume { ours: volume, theirs }),
            Some((id, _)) => Ok(Ok(Self { files, id, volume, segments })),
            // None, or one whose beginning was cut short by a crash: no segment was ever made.
            None if segments.is_empty() => Ok(Err(files)),
            None => {
                let reason = "it does not say whose journal this is, and there are records";
                Err(damaged(IDENTITY, 0, reason))
            }
        }
    }

    /// Finds the journal of `volume` in a directory; begins one with the id `new` if there is none.
    ///
    /// # Errors
    /// As for [`Journal::find`].
    pub fn open(files: F, volume: VolumeId, new: JournalId) -> Result<Self, JournalError> {
        let mut journal = match Self::found(files, volume)? {
            Ok(journal) => journal,
            Err(mut files) => {
                files.create(IDENTITY).map_err(failed("create", IDENTITY))?;
                Self { files, id: new, volume, segments: Vec::new() }
            }
        };
        // Also one that was found: who wrote it may have been killed, or its sync may have failed, before it was durable.
        let (line, files) = (identity_line(journal.id, volume), &mut journal.files);
        files.write(IDENTITY, 0, line.as_bytes()).map_err(failed("write", IDENTITY))?;
        files.sync(IDENTITY).map_err(failed("sync", IDENTITY))?;
        files.sync_names().map_err(failed("sync the names of", "."))?;
        Ok(journal)
    }

    /// The opening of the volume that had the journal last; `None` before the first one.
    ///
    /// # Errors
    /// The disk's.
    pub fn opening(&self) -> Result<Option<Epoch>, JournalError> {
        let (epoch, _) = read_slots(&self.files, OPENING, self.id)?;
        Ok((epoch > 0).then_some(Epoch(epoch)))
    }

    /// Notes, durably, that the opening `epoch` has the journal: before that opening stores anything, so that what it
    /// stores is known as the work of this journal, and what a copy of this journal stores is not.
    ///
    /// # Errors
    /// [`JournalError::OlderVolume`] if a later opening has had it; the disk's.
    pub fn begin_opening(&mut self, epoch: Epoch) -> Result<(), JournalError> {
        let (before, free) = read_slots(&self.files, OPENING, self.id)?;
        if before >= epoch.0 {
            return Err(JournalError::OlderVolume { epoch: Epoch(before), volume_epoch: epoch });
        }
        let files = &mut self.files;
        if before == 0 {
            files.create(OPENING).map_err(failed("create", OPENING))?;
            // Room for both slots, so that a later opening wants for none.
            files.write(OPENING, SLOTS[1], &[0; SLOT_LEN]).map_err(failed("write", OPENING))?;
        }
        files.write(OPENING, free, &slot(self.id, epoch.0)).map_err(failed("write", OPENING))?;
        files.sync(OPENING).map_err(failed("sync", OPENING))?;
        files.sync_names().map_err(failed("sync the names of", "."))
    }

    /// Whether the journal was last written since the start of this host that `boot` names: then it has all that was written, synced or
    /// not. Notes the name.
    ///
    /// # Errors
    /// The disk's.
    pub fn continues(&mut self, boot: &str) -> Result<bool, JournalError> {
        let files = &mut self.files;
        let mut noted = vec![0; IDENTITY_LEN_MAX];
        let length = match files.names().map_err(failed("list", "."))?.iter().any(|name| name == BOOT) {
            true => files.read(BOOT, 0, &mut noted).map_err(failed("read", BOOT))?,
            false => 0,
        };
        let continues = noted[..length] == *boot.as_bytes();
        let noted = match continues {
            true => Ok(()),
            false => files.create(BOOT).and_then(|()| files.write(BOOT, 0, boot.as_bytes())),
        };
        match noted {
            // Then it is as if the host had been started since.
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {}
            noted => noted.map_err(failed("write", BOOT))?,
        }
        Ok(continues)
    }

    /// Removes whatever journal there is, also one of which nobody can say whose it is, and begins another one.
    ///
    /// # Errors
    /// The disk's.
    pub fn replace(mut files: F, volume: VolumeId, new: JournalId) -> Result<Self, JournalError> {
        remove(&mut files)?;
        Self::open(files, volume, new)
    }

    /// The journal's id: what superblock and log objects name it by.
    pub fn id(&self) -> JournalId {
        self.id
    }

    /// Whether no opening of the volume has had it yet: there is nothing in it.
    pub fn is_new(&self) -> bool {
        self.segments.is_empty() && matches!(self.opening(), Ok(None))
    }

    /// Whether there are segments: all their records may be in the log.
    pub fn has_segments(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Reads the records after `contained`, the last one that the volume's log contains.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if `contained` is no number of a record; the disk's.
    pub fn replay(self, contained: u64) -> Result<Replaying<F>, JournalError> {
        let scan = self.scan(contained)?;
        Ok(Replaying { journal: self, scan, contained })
    }

    fn scan(&self, contained: u64) -> Result<scan::Scan, JournalError> {
        if contained >= NUMBER_MAX {
            let reason =
                format!("the volume's log says that it contains record {contained}, which can not be");
            return Err(damaged(IDENTITY, 0, reason));
        }
        // From the last segment that begins at or below the first record of interest: all before it are contained.
        let next = contained + 1;
        let first = self.segments.iter().rposition(|first| *first <= next).unwrap_or(0);
        let (promised, _) = read_slots(&self.files, SYNCED, self.id)?;
        Ok(scan::Scan::new(self.id, self.volume, next, promised, self.segments[first..].to_vec()))
    }

    /// Reads and verifies the records after `contained`, and says how much they are; changes nothing.
    ///
    /// # Errors
    /// As for [`Journal::replay`] and [`Replaying::finish`].
    pub fn check(&self, contained: u64) -> Result<Held, JournalError> {
        let mut scan = self.scan(contained)?;
        let mut held = Held::default();
        while let Some((header, _)) = scan.record(&self.files)? {
            held.records += 1;
            held.bytes += header.length_bytes;
            held.end_bytes = held.end_bytes.max(header.start_bytes.saturating_add(header.length_bytes));
        }
        scan.refuse_a_short_end()?;
        Ok(held)
    }

    /// Removes the journal and all its records, and begins another one in its place.
    ///
    /// # Errors
    /// The disk's.
    pub fn begin_anew(mut self, new: JournalId) -> Result<Self, JournalError> {
        remove(&mut self.files)?;
        Self::open(self.files, self.volume, new)
    }
}

/// Removes a journal. What says that records are missing goes first and what says whose they are last, so that a crash in
/// between leaves a journal.
fn remove<F: Files>(files: &mut F) -> Result<(), JournalError> {
    let names = files.names().map_err(failed("list", "."))?;
    // All that are there: one that could not be removed when it was released is nobody's otherwise, and without the identity
    // nobody could use the directory.
    let mut segments: Vec<u64> = names.iter().filter_map(|name| parse_segment(name)).collect();
    segments.sort_unstable();
    let segments = segments.into_iter().map(segment_name);
    let last = [OPENING.to_owned(), IDENTITY.to_owned()];
    for name in [SYNCED.to_owned(), BOOT.to_owned()].into_iter().chain(segments).chain(last) {
        if names.contains(&name) {
            files.remove(&name).map_err(failed("remove", &name))?;
            files.sync_names().map_err(failed("sync the names of", "."))?;
        }
    }
    Ok(())
}

/// A journal whose records are being read.
#[derive(Debug)]
pub struct Replaying<F> {
    journal: Journal<F>,
    scan: scan::Scan,
    contained: u64,
}

impl<F: Files> Replaying<F> {
    /// The next record that the log does not contain, header and data; `None` behind the last one.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if a record is missing that was synced; the disk's. Nothing was changed then.
    pub fn record(&mut self) -> Result<Option<(RecordHeader, Vec<u8>)>, JournalError> {
        self.scan.record(&self.journal.files)
    }

    /// Reads what was not read, cuts off what was torn, drops what the log contains, and gives the writer, whose next
    /// record is the one after the last one that counts. By then all of them are durable.
    ///
    /// # Errors
    /// As for [`Replaying::record`].
    pub fn finish(mut self, limits: Limits) -> Result<JournalWriter<F>, JournalError> {
        while self.record()?.is_some() {}
        let (found, Journal { mut files, id, volume, segments }) = (self.scan, self.journal);
        found.refuse_a_short_end()?;
        let last = found.last();
        found.write_again(&mut files)?;
        for (segment, end) in found.ends() {
            let name = segment_name(*segment);
            if files.len(&name).map_err(failed("examine", &name))? > *end {
                files.truncate(&name, *end).map_err(failed("truncate", &name))?;
                files.sync(&name).map_err(failed("sync", &name))?;
            }
        }
        let kept: Vec<(u64, u64)> = found.ends().iter().filter(|(_, end)| *end > 0).copied().collect();
        for segment in segments.into_iter().filter(|segment| !kept.iter().any(|(first, _)| first == segment))
        {
            let name = segment_name(segment);
            files.remove(&name).map_err(failed("remove", &name))?;
        }
        files.sync_names().map_err(failed("sync the names of", "."))?;
        let mut writer = JournalWriter::new(files, id, volume, limits, (last, found.last_on_disk()), kept)?;
        writer.release(self.contained)?;
        Ok(writer)
    }
}

//! The journal: what was written to a volume and may not be in its store yet, in order, on a local disk.
//!
//! [`Journal::open`] finds a directory's journal or begins one; [`Journal::replay`] hands out the records that the
//! volume's log does not contain, cuts a torn tail off and gives the [`JournalWriter`] that goes on. Knows files by
//! [`Files`] and records by their headers; neither tasks nor time. Invariants:
//! 1. what [`JournalWriter::sync`] answered is replayed after any crash, and nothing that was never written is;
//! 2. what is replayed is the records in order without a gap, as they were written, every one of them verified;
//! 3. a record that was synced and is not there is an error and never the end (rules 4 and 5);
//! 4. after a write or sync that failed, other than for want of room, nothing is taken any more.

mod scan;
#[cfg(test)]
mod tests;
mod writer;

use lsvd_format::journal::RecordHeader;
use lsvd_format::{JournalId, NUMBER_MAX, VolumeId};

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
/// Where its two slots are, written in turn so that one is always whole, and how long one is.
const SYNCED_SLOTS: [u64; 2] = [0, 4096];
const SYNCED_LEN: usize = 28;
/// Bytes of an identity file at most.
const IDENTITY_LEN_MAX: usize = 256;

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

/// A slot of the file [`SYNCED`].
fn synced_slot(id: JournalId, record: u64) -> [u8; SYNCED_LEN] {
    let mut slot = [0; SYNCED_LEN];
    slot[..16].copy_from_slice(&id.0);
    slot[16..24].copy_from_slice(&record.to_le_bytes());
    let checksum = crc32c::crc32c(&slot[..24]);
    slot[24..].copy_from_slice(&checksum.to_le_bytes());
    slot
}

/// How far the journal is known to have been synced.
fn read_synced<F: Files>(files: &F, id: JournalId) -> Result<u64, JournalError> {
    let mut synced = 0;
    if !files.names().map_err(failed("list", "."))?.iter().any(|name| name == SYNCED) {
        return Ok(synced);
    }
    for offset in SYNCED_SLOTS {
        let mut slot = [0; SYNCED_LEN];
        let got = files.read(SYNCED, offset, &mut slot).map_err(failed("read", SYNCED))?;
        let record = slot[16..24].iter().rev().fold(0, |record, byte| record << 8 | u64::from(*byte));
        if got == SYNCED_LEN && slot == synced_slot(id, record) {
            synced = synced.max(record);
        }
    }
    Ok(synced)
}

impl<F: Files> Journal<F> {
    /// Finds the journal of `volume` in a directory; begins one with the id `new` if there is none.
    ///
    /// # Errors
    /// [`JournalError::OtherVolume`]; [`JournalError::Damaged`] if it can not be said whose it is; the disk's.
    pub fn open(mut files: F, volume: VolumeId, new: JournalId) -> Result<Self, JournalError> {
        let names = files.names().map_err(failed("list", "."))?;
        let mut segments: Vec<u64> = names.iter().filter_map(|name| parse_segment(name)).collect();
        segments.sort_unstable();
        let mut bytes = vec![0; IDENTITY_LEN_MAX];
        let length = match names.iter().any(|name| name == IDENTITY) {
            true => files.read(IDENTITY, 0, &mut bytes).map_err(failed("read", IDENTITY))?,
            false => 0,
        };
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let id = match parse_identity(&text) {
            Some((_, theirs)) if theirs != volume => {
                return Err(JournalError::OtherVolume { ours: volume, theirs });
            }
            Some((id, _)) => id,
            None if segments.is_empty() => {
                // None, or one whose beginning was cut short by a crash: no segment was ever made.
                files.create(IDENTITY).map_err(failed("create", IDENTITY))?;
                new
            }
            None => {
                return Err(damaged(
                    IDENTITY,
                    0,
                    "it does not say whose journal this is, and there are records",
                ));
            }
        };
        // Also one that was found: who wrote it may have been killed, or its sync may have failed, before it was durable.
        files.write(IDENTITY, 0, identity_line(id, volume).as_bytes()).map_err(failed("write", IDENTITY))?;
        files.sync(IDENTITY).map_err(failed("sync", IDENTITY))?;
        files.sync_names().map_err(failed("sync the names of", "."))?;
        Ok(Self { files, id, volume, segments })
    }

    /// The journal's id: what superblock and log objects name it by.
    pub fn id(&self) -> JournalId {
        self.id
    }

    /// Hands the records after `contained`, the last one that the volume's log contains, to `take`: in order, header and
    /// data. Then cuts off what was torn, drops what is contained, and gives the writer, whose next record is the one
    /// after the last that was handed out.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if a record is missing that was synced, and then nothing was changed; the disk's.
    /// `take` may have been called before.
    pub fn replay(
        mut self,
        contained: u64,
        limits: Limits,
        mut take: impl FnMut(&RecordHeader, &[u8]),
    ) -> Result<JournalWriter<F>, JournalError> {
        if contained >= NUMBER_MAX {
            let reason =
                format!("the volume's log says that it contains record {contained}, which can not be");
            return Err(damaged(IDENTITY, 0, reason));
        }
        // The last segment that begins at or below the first record of interest: all before it are contained.
        let next = contained + 1;
        let promised = read_synced(&self.files, self.id)?;
        let first = self.segments.iter().rposition(|first| *first <= next);
        let mut found = scan::Scan::new(self.id, self.volume, next, promised);
        for (at, segment) in self.segments.iter().enumerate().skip(first.unwrap_or(0)) {
            let following = self.segments.get(at + 1).copied();
            found.segment(&self.files, *segment, following, &mut take)?;
        }
        let last = found.last();
        if last < promised {
            let reason =
                format!("all records up to {promised} had been synced, and {last} is the last one there is");
            return Err(damaged(&found.end_name(), found.end_offset(), reason));
        }
        found.write_again(&mut self.files)?;
        for (segment, end) in found.ends() {
            let name = segment_name(*segment);
            if self.files.len(&name).map_err(failed("examine", &name))? > *end {
                self.files.truncate(&name, *end).map_err(failed("truncate", &name))?;
                self.files.sync(&name).map_err(failed("sync", &name))?;
            }
        }
        let kept: Vec<u64> =
            found.ends().iter().filter(|(_, end)| *end > 0).map(|(first, _)| *first).collect();
        for segment in self.segments.drain(..).filter(|segment| !kept.contains(segment)) {
            let name = segment_name(segment);
            self.files.remove(&name).map_err(failed("remove", &name))?;
        }
        self.files.sync_names().map_err(failed("sync the names of", "."))?;
        let segments = found.ends().iter().filter(|(_, end)| *end > 0).copied().collect();
        let on_disk = found.last_on_disk();
        let mut writer =
            JournalWriter::new(self.files, self.id, self.volume, limits, (last, on_disk), segments)?;
        writer.release(contained)?;
        Ok(writer)
    }
}

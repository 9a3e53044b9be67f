//! Reading segments back: which records count, where each segment ends, and whether what is missing was ever promised.
//!
//! Knows bytes and numbers; changes nothing.

use std::collections::VecDeque;

use lsvd_format::journal::{MAGIC, RECORD_DATA_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader};
use lsvd_format::{DecodeError, JournalId, VolumeId};

use super::{damaged, failed, segment_name};
use crate::error::JournalError;
use crate::files::Files;

const HEADER_LEN: usize = 128;
const _: () = assert!(HEADER_LEN as u64 == RECORD_HEADER_BYTES);
/// Bytes that are searched at a time for records behind the end.
const SEARCH_LEN: usize = 1 << 20;

/// The state of a replay between segments.
#[derive(Debug)]
pub(super) struct Scan {
    id: JournalId,
    volume: VolumeId,
    /// The first record that is wanted.
    wanted: u64,
    /// First records of the segments to read, ascending.
    segments: Vec<u64>,
    /// The one of them that is being read, its length in bytes if it was asked for, and how far it was read.
    at: usize,
    length: Option<u64>,
    offset: u64,
    /// The record that comes next; `None` before the first segment.
    next: Option<u64>,
    /// Where the run of records ended: a missing record, its file and offset.
    broken: Option<(u64, String, u64)>,
    /// First record and length in bytes of what counts of each segment.
    ends: Vec<(u64, u64)>,
    /// All records up to here are known to have been synced.
    promised: u64,
    /// Records above that: number, segment, offset.
    unpromised: VecDeque<(u64, u64, u64)>,
}

impl Scan {
    /// Reads `segments`, named by their first records; `promised` is the last record that is known to have been synced.
    pub(super) fn new(
        id: JournalId,
        volume: VolumeId,
        wanted: u64,
        promised: u64,
        segments: Vec<u64>,
    ) -> Self {
        Self {
            id,
            volume,
            wanted,
            segments,
            at: 0,
            length: None,
            offset: 0,
            next: None,
            broken: None,
            ends: Vec::new(),
            promised,
            unpromised: VecDeque::new(),
        }
    }

    /// Behind the last record: an error if one that had been synced, by the records' own words too, is not there.
    pub(super) fn refuse_a_short_end(&self) -> Result<(), JournalError> {
        let (last, promised) = (self.last(), self.promised);
        if last >= promised {
            return Ok(());
        }
        let reason =
            format!("all records up to {promised} had been synced, and {last} is the last one there is");
        let (name, end) =
            self.ends.last().map_or(("identity".to_owned(), 0), |(first, end)| (segment_name(*first), *end));
        Err(damaged(&name, end, reason))
    }

    /// The last record that counts: at least the one before the first that is wanted.
    pub(super) fn last(&self) -> u64 {
        self.next.map_or(0, |next| next - 1).max(self.wanted - 1)
    }

    /// The last record that is there; 0 for none.
    pub(super) fn last_on_disk(&self) -> u64 {
        self.next.map_or(0, |next| next - 1)
    }

    pub(super) fn ends(&self) -> &[(u64, u64)] {
        &self.ends
    }

    /// The next record that is wanted, with its data; `None` behind the last one.
    pub(super) fn record<F: Files>(
        &mut self,
        files: &F,
    ) -> Result<Option<(RecordHeader, Vec<u8>)>, JournalError> {
        while let Some(&first) = self.segments.get(self.at) {
            let name = segment_name(first);
            let length = match self.length {
                Some(length) => length,
                None => files.len(&name).map_err(failed("examine", &name))?,
            };
            self.length = Some(length);
            // A first segment that begins too late leaves a gap before it.
            let expected = *self.next.get_or_insert(first.min(self.wanted));
            if self.broken.is_none() {
                if let Some((header, data)) =
                    self.whole_record(files, &name, self.offset, length, expected)?
                {
                    self.promised = self.promised.max(header.synced);
                    self.unpromised.push_back((expected, first, self.offset));
                    while self.unpromised.front().is_some_and(|(record, ..)| *record <= self.promised) {
                        self.unpromised.pop_front();
                    }
                    self.offset += RECORD_HEADER_BYTES + header.payload_bytes();
                    self.next = Some(expected + 1);
                    if expected >= self.wanted {
                        return Ok(Some((header, data)));
                    }
                    continue;
                }
                self.ends.push((first, self.offset));
                if self.segments.get(self.at + 1) != self.next.as_ref() {
                    self.broken = Some((expected, name.clone(), self.offset));
                }
            }
            self.refuse_a_loss(files, &name, self.offset, length)?;
            (self.at, self.length, self.offset) = (self.at + 1, None, 0);
        }
        Ok(None)
    }

    /// Writes what may never have been synced once more, the same bytes to the same place. What was read may be in the
    /// system's memory alone: after a sync that failed it forgets that it has to write those pages, and a later sync would
    /// succeed without them.
    pub(super) fn write_again<F: Files>(&self, files: &mut F) -> Result<(), JournalError> {
        for (record, segment, offset) in &self.unpromised {
            let name = segment_name(*segment);
            let length = files.len(&name).map_err(failed("examine", &name))?;
            let Some((header, data)) = self.whole_record(files, &name, *offset, length, *record)? else {
                return Err(damaged(
                    &name,
                    *offset,
                    format!("record {record} was there, and is not any more"),
                ));
            };
            let mut bytes = Vec::with_capacity(HEADER_LEN + data.len());
            bytes.extend_from_slice(&header.encode());
            bytes.extend_from_slice(&data);
            files.write(&name, *offset, &bytes).map_err(failed("write", &name))?;
        }
        Ok(())
    }

    /// The record `expected` at `offset`, if it is there and whole.
    fn whole_record<F: Files>(
        &self,
        files: &F,
        name: &str,
        offset: u64,
        length: u64,
        expected: u64,
    ) -> Result<Option<(RecordHeader, Vec<u8>)>, JournalError> {
        let mut head = [0; HEADER_LEN];
        if files.read(name, offset, &mut head).map_err(failed("read", name))? < HEADER_LEN {
            return Ok(None);
        }
        let header = match RecordHeader::decode(&head) {
            Ok(header) => header,
            // Its checksum is sound: it is no torn tail.
            Err(DecodeError::Newer { what }) => {
                let reason = format!("it holds {what}: use the newer lsvd that wrote it");
                return Err(damaged(name, offset, reason));
            }
            Err(_) => return Ok(None),
        };
        if header.journal != self.id || header.record != expected {
            return Ok(None);
        }
        if header.volume != self.volume {
            let reason = format!("record {expected} is of another volume, {}", header.volume);
            return Err(damaged(name, offset, reason));
        }
        let payload_bytes = header.payload_bytes();
        if payload_bytes > RECORD_DATA_BYTES_MAX || offset + RECORD_HEADER_BYTES + payload_bytes > length {
            return Ok(None);
        }
        let mut data = vec![0; usize::try_from(payload_bytes).expect("checked against the most")];
        let got = files.read(name, offset + RECORD_HEADER_BYTES, &mut data).map_err(failed("read", name))?;
        let whole = got == data.len() && header.verify_payload(&data).is_ok();
        Ok(whole.then_some((header, data)))
    }

    /// Behind the end of the run: a record that says that the missing one had been synced means a loss.
    fn refuse_a_loss<F: Files>(
        &self,
        files: &F,
        name: &str,
        from: u64,
        length: u64,
    ) -> Result<(), JournalError> {
        let Some((missing, file, at)) = &self.broken else { return Ok(()) };
        // What the log contains may be missing.
        let missing = (*missing).max(self.wanted);
        let mut offset = from;
        let left = usize::try_from(length.saturating_sub(from)).unwrap_or(SEARCH_LEN);
        let mut buffer = vec![0; left.min(SEARCH_LEN)];
        while offset < length {
            let got = files.read(name, offset, &mut buffer).map_err(failed("read", name))?;
            for nth in magics(&buffer[..got]) {
                let mut head = [0; HEADER_LEN];
                let read = files.read(name, offset + nth as u64, &mut head).map_err(failed("read", name))?;
                let Ok(header) = RecordHeader::decode(&head[..read]) else { continue };
                if header.journal == self.id && header.record > missing && header.synced >= missing {
                    let (later, synced) = (header.record, header.synced);
                    let reason = format!(
                        "record {missing} is missing, though record {later} in '{name}' says that all up to {synced} had \
                         been synced"
                    );
                    return Err(damaged(file, *at, reason));
                }
            }
            if got < buffer.len() || got < MAGIC.len() {
                break;
            }
            // A magic may lie across the border.
            offset += (got - (MAGIC.len() - 1)) as u64;
        }
        Ok(())
    }
}

/// Where in `bytes` a record may begin. Room that was reserved and not used is zeroes, and is passed over at once.
fn magics(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    const PAGE_LEN: usize = 4096;
    const ZEROES: [u8; PAGE_LEN] = [0; PAGE_LEN];
    let pages = (0..bytes.len()).step_by(PAGE_LEN);
    let used = pages.filter(|page| {
        let bytes = &bytes[*page..bytes.len().min(page + PAGE_LEN)];
        bytes != &ZEROES[..bytes.len()]
    });
    // One that lies across a border begins in a page that is not empty.
    used.flat_map(move |page| {
        let end = bytes.len().min(page + PAGE_LEN + MAGIC.len() - 1);
        let found = bytes[page..end].windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
        found.map(move |(at, _)| page + at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magic_is_found_wherever_it_begins() {
        for at in [0, 1, 4088, 4089, 4093, 4095, 4096, 9000, 12_280] {
            let mut bytes = vec![0; 3 * 4096];
            bytes[at..at + MAGIC.len()].copy_from_slice(&MAGIC);
            assert_eq!(magics(&bytes).collect::<Vec<_>>(), [at]);
        }
        assert_eq!(magics(&MAGIC[..7]).count() + magics(&[]).count(), 0);
    }
}

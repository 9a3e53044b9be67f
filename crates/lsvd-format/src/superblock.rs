//! The superblock: the volume's root record, one create-only object for each version.
//!
//! A version is one line of ASCII that says number, length and checksum, then JSON that a person can read
//! (`tail -n +2 FILE | jq`). Knows not which version counts: whoever lists them does. Invariants:
//! 1. the length of the object is that of the first line and the `body_bytes` that it names;
//! 2. the checksum covers number and body: a copy under another name is noticed;
//! 3. `1 <= epoch <= number`;
//! 4. fields that this version does not know survive being read and written again.

mod line;
mod moments;
mod named;
mod parents;
mod pins;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use line::Line;
pub use moments::{
    FEATURE_RESIZE, FEATURE_ROLLBACK, FEATURE_SNAPSHOT, Moments, ROLLBACKS_MAX, Rollback,
    SNAPSHOT_NAME_BYTES_MAX, SNAPSHOTS_MAX, SizeSince, Snapshot, check_snapshot_name,
};
pub use named::{CheckpointRef, NumberRange};
pub use parents::{
    FEATURE_CLONE, FEATURE_CLONED, PARENTS_MAX, PATH_BYTES_MAX, Parent, PinnedFor, check_path,
};
pub use pins::Pins;

use crate::wire::len_bytes;
use crate::{
    BLOCK_BYTES, DecodeError, Epoch, JournalId, LogLayout, NUMBER_MAX, SequenceNumber, SuperblockNumber,
    VOLUME_BYTES_MAX, VolumeId, WriterId,
};

/// The features that this lsvd knows, both to read and to write.
pub const FEATURES_KNOWN: &[&str] = &[
    FEATURE_JOURNAL,
    FEATURE_FORMAT_1,
    FEATURE_CHECKPOINT,
    FEATURE_SNAPSHOT,
    FEATURE_ROLLBACK,
    FEATURE_RESIZE,
    FEATURE_CLONE,
    FEATURE_CLONED,
    FEATURE_REMOVED,
    FEATURE_LOST_BLOCKS,
];
/// Of `features_to_write` while a journal is in use: whoever does not know journals would write past it.
pub const FEATURE_JOURNAL: &str = "journal";
/// Of `features_to_read` where the log has a layout: whoever does not know format 1 would not find the log, or take it
/// for damaged.
pub const FEATURE_FORMAT_1: &str = "log-format-1";
/// Of `features_to_read` while the volume has checkpoints: whoever does not know them would take the log for one that
/// lost its beginning.
pub const FEATURE_CHECKPOINT: &str = "checkpoint";
/// Of `features_to_read` since the volume's removal began: whoever does not know removal would take what is left of it for
/// a damaged volume, or begin to write it.
pub const FEATURE_REMOVED: &str = "removed";
/// Of `features_to_read` since a region of the map was lost: whoever does not know lost blocks would take a region that has
/// some for damaged altogether.
pub const FEATURE_LOST_BLOCKS: &str = "lost-blocks";
/// The smallest window: below it no two objects could be in flight.
pub const WINDOW_MIN: u64 = 2;
/// The largest window.
pub const WINDOW_MAX: u64 = 1 << 32;

/// Bytes of the first line, with its newline.
const HEAD_LEN: usize = 85;
/// Bytes of a body at most: what eight digits can say.
const BODY_BYTES_MAX: u64 = 99_999_999;

/// What the root record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superblock {
    /// The volume.
    pub volume_id: VolumeId,
    /// Epoch of the writer of this version.
    pub epoch: Epoch,
    /// The writer of this version.
    pub writer_id: WriterId,
    /// Size of the volume in bytes, a multiple of the block size.
    pub size_bytes: u64,
    /// A writer never creates a log object whose number is this much or more above its first incomplete number.
    pub window: u64,
    /// Number of the first log object: from 1, or from 0 if the log has a layout.
    pub log_first_number: SequenceNumber,
    /// The layout of a log that has objects of format 1; without one it is format 2's. Set it by
    /// [`Superblock::with_layout`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_layout: Option<LogLayout>,
    /// The volume was created on a store without create-only PUT: only one writer at a time, by the user's word.
    #[serde(default)]
    pub unsafe_single_writer: bool,
    /// Present if this version was written by a clean close: the last number of the log then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<SequenceNumber>,
    /// A number that the log is known to have reached: a log that ends before it has lost objects. It may lag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_reached: Option<SequenceNumber>,
    /// In a log that goes on in format 1, the newest epoch whose writer had archived what lay beyond its mark. Behind a
    /// mark of a later epoch nothing counts: its writer had not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_begun_epoch: Option<Epoch>,
    /// The local journal in use: it may hold flushed writes that the log does not contain. A clean close takes it out,
    /// and so does whoever gives the journal up for lost. Set it by [`Superblock::with_journal`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalId>,
    /// The journal of this epoch's writer that holds what was written and not flushed: it is replayed into the log of no other
    /// one. A clean close takes it out. Nothing that was flushed is missing without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<JournalId>,
    /// The first of the openings, up to this epoch's, of all of which everything that their clients were answered is there: each was closed
    /// cleanly or handed over. Absent: this epoch's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbroken_since: Option<Epoch>,
    /// The kept checkpoints, oldest first. Set them by [`Superblock::with_checkpoints`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<CheckpointRef>,
    /// The log objects that may be gone, or may go at any moment: ascending, and never two that could be one. To none of
    /// them does a kept checkpoint refer (rule 7).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub condemned: Vec<NumberRange>,
    /// What is kept beside the present. Set it by [`Superblock::with_moments`].
    #[serde(flatten)]
    pub moments: Moments,
    /// Present in a clone, also when it shares nothing any more: its log begins behind this moment of the volume that it was
    /// cloned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_follows: Option<SequenceNumber>,
    /// The volumes that it shares objects with, if it is a clone: the one that it was cloned from last, before it the one that
    /// that one was cloned from, and so on. Set them by [`Superblock::with_parents`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Parent>,
    /// Present since the volume's removal began: nobody opens it any more. Set it by [`Superblock::with_removal`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<Removal>,
    /// Wall-clock time of writing, in milliseconds since 1970, by the writer's clock.
    pub written_unix_ms: u64,
    /// The program that wrote this version, for people.
    pub written_by: String,
    /// Features without which the volume can not be read. An unknown one is an error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features_to_read: Vec<String>,
    /// Features without which the volume can not be written. An unknown one is an error for writers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features_to_write: Vec<String>,
    /// Fields that this lsvd does not know; they are kept when a version is written anew.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// How far the removal of a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The fence that ended the log, which is deleted after all else of the log; `None` if the volume was damaged, and none
    /// could be put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<SequenceNumber>,
    /// No writer of the volume ever used this number or one above it: a volume that is made here anew begins its log here.
    pub log_next: SequenceNumber,
    /// All is deleted but this version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
}

impl Superblock {
    /// The same in this state of removal, or none, and the feature that goes with it. Of a volume that is gone nothing is
    /// said but where another one may begin.
    pub fn with_removal(mut self, removal: Option<Removal>) -> Self {
        if let Some(Removal { log_next, finished: true, .. }) = removal {
            self = self.with_layout(None).with_journal(None).with_checkpoints(Vec::new());
            self = self.with_moments(Moments::default()).with_parents(Vec::new());
            self.log_first_number = log_next;
            (self.closed_at, self.log_reached, self.log_begun_epoch) = (None, None, None);
            (self.handover, self.unbroken_since) = (None, None);
            self.condemned.clear();
        }
        self.features_to_read.retain(|feature| feature != FEATURE_REMOVED);
        self.features_to_read.extend(removal.map(|_| FEATURE_REMOVED.to_owned()));
        self.removal = removal;
        self
    }

    /// Whether the volume is gone, and this version is all that is left of it.
    pub fn is_gone(&self) -> bool {
        self.removal.is_some_and(|removal| removal.finished)
    }

    /// The same with this layout of its log, or format 2's, and the feature that goes with it.
    pub fn with_layout(mut self, layout: Option<LogLayout>) -> Self {
        self.features_to_read.retain(|feature| feature != FEATURE_FORMAT_1);
        self.features_to_read.extend(layout.as_ref().map(|_| FEATURE_FORMAT_1.to_owned()));
        self.log_layout = layout;
        self
    }

    /// The same with this journal in use, or none, and the feature that goes with it.
    pub fn with_journal(mut self, journal: Option<JournalId>) -> Self {
        self.features_to_write.retain(|feature| feature != FEATURE_JOURNAL);
        self.features_to_write.extend(journal.map(|_| FEATURE_JOURNAL.to_owned()));
        self.journal = journal;
        self
    }

    /// The same with these checkpoints, or none, and the feature that goes with them.
    pub fn with_checkpoints(mut self, checkpoints: Vec<CheckpointRef>) -> Self {
        self.features_to_read.retain(|feature| feature != FEATURE_CHECKPOINT);
        if !checkpoints.is_empty() {
            self.features_to_read.push(FEATURE_CHECKPOINT.to_owned());
        }
        self.checkpoints = checkpoints;
        self
    }

    /// The same of a volume whose checkpoints may have lost blocks. That stays so.
    pub fn with_lost_blocks(mut self) -> Self {
        if !self.has_lost_blocks() {
            self.features_to_read.push(FEATURE_LOST_BLOCKS.to_owned());
        }
        self
    }

    /// Whether its checkpoints may have lost blocks.
    pub fn has_lost_blocks(&self) -> bool {
        self.features_to_read.iter().any(|feature| feature == FEATURE_LOST_BLOCKS)
    }

    /// The features to write that this lsvd does not know. If there are any, open the volume read-only.
    pub fn unknown_features_to_write(&self) -> Vec<&str> {
        self.features_to_write
            .iter()
            .map(String::as_str)
            .filter(|name| !FEATURES_KNOWN.contains(name))
            .collect()
    }

    /// Whether the values are possible ones for version `number`.
    ///
    /// # Errors
    /// The field and its value, for a person.
    pub fn validate(&self, number: SuperblockNumber) -> Result<(), String> {
        let numbers = 1..=NUMBER_MAX;
        if !numbers.contains(&number.0) {
            return Err(format!("the number {number} is out of range"));
        }
        if self.epoch.0 == 0 || self.epoch.0 > number.0 {
            return Err(format!("epoch {} is not from 1 to the version's number {number}", self.epoch));
        }
        let size_bytes = self.size_bytes;
        if size_bytes == 0 || size_bytes > VOLUME_BYTES_MAX || !size_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(format!(
                "size_bytes {size_bytes} is not a multiple of {BLOCK_BYTES} from {BLOCK_BYTES} to {VOLUME_BYTES_MAX}"
            ));
        }
        if !(WINDOW_MIN..=WINDOW_MAX).contains(&self.window) {
            return Err(format!("window {} is not from {WINDOW_MIN} to {WINDOW_MAX}", self.window));
        }
        let least = if self.log_layout.is_some() { 0 } else { 1 };
        if !(least..=NUMBER_MAX).contains(&self.log_first_number.0) {
            return Err(format!("log_first_number {} is out of range", self.log_first_number));
        }
        for (field, value) in [("closed_at", self.closed_at), ("log_reached", self.log_reached)] {
            if let Some(value) = value.filter(|value| value.0 > NUMBER_MAX) {
                return Err(format!("{field} {value} is out of range"));
            }
        }
        self.log_layout.as_ref().map_or(Ok(()), LogLayout::validate)?;
        let says_format_1 = self.features_to_read.iter().any(|feature| feature == FEATURE_FORMAT_1);
        if self.log_layout.is_some() != says_format_1 {
            return Err(format!("log_layout and {FEATURE_FORMAT_1:?} in features_to_read go together"));
        }
        if [self.journal, self.handover].into_iter().flatten().any(|journal| journal.0 == [0; 16]) {
            return Err("a journal's id is never all zeroes".to_owned());
        }
        if self.unbroken_since.is_some_and(|since| since > self.epoch) {
            return Err(format!("epoch {} can not be unbroken since a later one", self.epoch));
        }
        if self.journal.is_some() && !self.features_to_write.iter().any(|feature| feature == FEATURE_JOURNAL)
        {
            return Err(format!("a journal is in use without {FEATURE_JOURNAL:?} in features_to_write"));
        }
        let says_removed = self.features_to_read.iter().any(|feature| feature == FEATURE_REMOVED);
        if self.removal.is_some() != says_removed {
            return Err(format!("removal and {FEATURE_REMOVED:?} in features_to_read go together"));
        }
        if let Some(removal) = self.removal {
            let begins = removal.fence.map_or(1, |fence| fence.0.saturating_add(1));
            if !(begins..=NUMBER_MAX).contains(&removal.log_next.0) {
                return Err(format!("log_next {} of the removal is out of range", removal.log_next));
            }
            if removal.finished && self.log_layout.is_some() {
                return Err("a volume that is gone has no log_layout".to_owned());
            }
        }
        self.check_parents()?;
        self.check_checkpoints()?;
        self.check_moments()?;
        self.check_condemned()
    }
}

/// The bytes of version `number`.
///
/// # Panics
/// If a value is none that [`Superblock::validate`] takes, or the body is longer than 99,999,999 bytes.
pub fn encode(number: SuperblockNumber, superblock: &Superblock) -> Vec<u8> {
    if let Err(reason) = superblock.validate(number) {
        panic!("a superblock that no reader would take: {reason}");
    }
    let mut body = serde_json::to_vec_pretty(superblock).expect("texts, numbers and maps with texts as keys");
    body.push(b'\n');
    assert!(len_bytes(&body) <= BODY_BYTES_MAX, "a superblock's length has eight digits");
    let mut bytes = head(number, &body).into_bytes();
    assert_eq!(bytes.len(), HEAD_LEN, "the first line has a fixed width");
    bytes.extend_from_slice(&body);
    debug_assert_eq!(decode(number, &bytes).as_ref(), Ok(superblock), "what is written can be read");
    bytes
}

/// Reads version `number` from the whole bytes of its object.
///
/// # Errors
/// Corrupt or truncated, another version's bytes under this name, or a feature to read that is not known.
pub fn decode(number: SuperblockNumber, bytes: &[u8]) -> Result<Superblock, DecodeError> {
    let body = verified_body(number, bytes)?;
    let in_body =
        |error: serde_json::Error| corrupt(body_offset(body, &error), format!("no superblock: {error}"));
    // Features first: a later version may have changed the fields that this one would miss.
    let needs: Needs = serde_json::from_slice(body).map_err(in_body)?;
    let unknown = needs.features_to_read.iter().find(|name| !FEATURES_KNOWN.contains(&name.as_str()));
    if let Some(feature) = unknown {
        return Err(DecodeError::Newer { what: format!("a volume with the feature {feature:?}") });
    }
    let superblock: Superblock = serde_json::from_slice(body).map_err(in_body)?;
    superblock.validate(number).map_err(|reason| corrupt(HEAD_LEN as u64, reason))?;
    Ok(superblock)
}

/// What a superblock asks of its reader, whatever else it says.
#[derive(Deserialize)]
struct Needs {
    #[serde(default)]
    features_to_read: Vec<String>,
}

/// The body, if first line and checksum say that it is the whole body of version `number`.
fn verified_body(number: SuperblockNumber, bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let mut line = FirstLine { bytes, offset: 0 };
    line.literal("lsvd superblock format=")?;
    line.format()?;
    line.literal(" number=")?;
    let stored_number = line.digits(16, 16)?;
    if stored_number != number.0 {
        let reason = format!("this is superblock version {stored_number} under the name of version {number}");
        return Err(corrupt(32, reason));
    }
    line.literal(" body_bytes=")?;
    let body_bytes = line.digits(8, 10)?;
    line.literal(" crc32c=")?;
    let stored = line.digits(8, 16)?;
    line.literal("\n")?;
    let body = &bytes[line.offset..];
    let have_bytes = len_bytes(body);
    if have_bytes < body_bytes {
        let reason = format!("truncated: {have_bytes} of {body_bytes} bytes of its body are there");
        return Err(corrupt(len_bytes(bytes), reason));
    }
    if have_bytes > body_bytes {
        let end = len_bytes(bytes) - (have_bytes - body_bytes);
        return Err(corrupt(end, format!("{} bytes too many", have_bytes - body_bytes)));
    }
    let computed = checksum(number, body);
    if stored != u64::from(computed) {
        return Err(corrupt(
            HEAD_LEN as u64,
            format!("the superblock has checksum {computed:08x}, not {stored:08x}"),
        ));
    }
    Ok(body)
}

fn head(number: SuperblockNumber, body: &[u8]) -> String {
    format!(
        "lsvd superblock format=2 number={:016x} body_bytes={:08} crc32c={:08x}\n",
        number.0,
        body.len(),
        checksum(number, body)
    )
}

fn checksum(number: SuperblockNumber, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.0.to_le_bytes()), body)
}

fn corrupt(offset_bytes: u64, reason: impl Into<String>) -> DecodeError {
    DecodeError::corrupt(offset_bytes, reason)
}

/// Byte offset in the object of what the parser stumbled over.
fn body_offset(body: &[u8], error: &serde_json::Error) -> u64 {
    let lines_before = error.line().saturating_sub(1);
    let line_start: usize =
        body.split_inclusive(|byte| *byte == b'\n').take(lines_before).map(<[u8]>::len).sum();
    let offset = HEAD_LEN + line_start + error.column().saturating_sub(1);
    u64::try_from(offset.min(HEAD_LEN + body.len())).unwrap_or(u64::MAX)
}

/// The fields of the first line, taken from left to right.
struct FirstLine<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl FirstLine<'_> {
    fn literal(&mut self, text: &str) -> Result<(), DecodeError> {
        for expected in text.bytes() {
            match self.bytes.get(self.offset) {
                Some(byte) if *byte == expected => self.offset += 1,
                Some(_) => return Err(self.wrong("this is no superblock, or a damaged one")),
                None => return Err(self.wrong("truncated in its first line")),
            }
        }
        Ok(())
    }

    /// The format's number, which is 2 or newer.
    fn format(&mut self) -> Result<(), DecodeError> {
        let rest = &self.bytes[self.offset..];
        let width = rest.iter().take(9).take_while(|byte| byte.is_ascii_digit()).count();
        match (&rest[..width], rest.get(width)) {
            (_, None) => {
                self.offset = self.bytes.len();
                Err(self.wrong("truncated in its first line"))
            }
            (b"2", Some(b' ')) => {
                self.offset += width;
                Ok(())
            }
            ([b'3'..=b'9'] | [b'1'..=b'9', _, ..], Some(b' ')) => {
                let format = String::from_utf8_lossy(&rest[..width]);
                Err(DecodeError::Newer { what: format!("a superblock of format {format}") })
            }
            _ => Err(self.wrong("no format number of a superblock")),
        }
    }

    /// A number of exactly `width` digits, lowercase where they are letters.
    fn digits(&mut self, width: usize, radix: u32) -> Result<u64, DecodeError> {
        let mut value: u64 = 0;
        for _ in 0..width {
            let byte =
                *self.bytes.get(self.offset).ok_or_else(|| self.wrong("truncated in its first line"))?;
            let digit = char::from(byte).to_digit(radix).filter(|_| !byte.is_ascii_uppercase());
            let digit = digit.ok_or_else(|| self.wrong("a damaged number"))?;
            // Sixteen hex digits fill 64 bits exactly and eight decimal ones far less.
            value = value * u64::from(radix) + u64::from(digit);
            self.offset += 1;
        }
        Ok(value)
    }

    fn wrong(&self, reason: &str) -> DecodeError {
        corrupt(self.offset as u64, reason)
    }
}

//! The log of dm-log-writes, and what a disk holds after a power cut at any point of it.
//!
//! The log lists writes in the order in which they became durable: what completed before a flush was sent comes before it,
//! a write with FUA when it completed (Documentation/admin-guide/device-mapper/log-writes.rst; the layout is that of
//! drivers/md/dm-log-writes.c, little-endian). A power cut may also take any of what no flush covers yet. Knows sectors;
//! neither file systems nor volumes.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::numbers::Numbers;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
/// The unit of `sector` and of `sectors`, unless the disk's own is larger.
const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// What was done to the disk, in order.
#[derive(Debug)]
pub(in crate::e2e) struct WriteLog {
    pub(in crate::e2e) entries: Vec<Entry>,
}

/// One thing that was done.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::e2e) enum Entry {
    /// Bytes that were written; `flush` before, `fua` for themselves.
    Write { offset: u64, bytes: Vec<u8>, flush: bool, fua: bool },
    /// Bytes that nobody needs any more.
    Discard { offset: u64, length: u64 },
    /// A flush of all before it.
    Flush,
    /// A word of the one who drives the disk.
    Mark(String),
}

impl Entry {
    /// Whether something becomes durable by it.
    pub(in crate::e2e) fn is_barrier(&self) -> bool {
        matches!(self, Self::Flush | Self::Write { flush: true, .. } | Self::Write { fua: true, .. })
    }
}

/// What becomes of writes that no flush covers at the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::e2e) enum Unflushed {
    /// All of them reached the disk.
    Kept,
    /// None did.
    Lost,
    /// Any, in any part, by the seed.
    Torn(u64),
}

impl WriteLog {
    /// Reads the log from the file of its disk.
    pub(in crate::e2e) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Self::parse(&file).with_context(|| format!("in {}", path.display()))
    }

    fn parse(file: &impl FileExt) -> Result<Self> {
        let mut head = [0; SECTOR];
        file.read_exact_at(&mut head, 0).context("it has no first sector")?;
        ensure!(number(&head, 0) == MAGIC && number(&head, 8) == VERSION, "it is no log of dm-log-writes");
        let count = number(&head, 16);
        let sector_bytes = u64::from(u32::from_le_bytes([head[24], head[25], head[26], head[27]]));
        ensure!(sector_bytes >= SECTOR as u64, "its sectors have {sector_bytes} bytes");
        let mut at = sector_bytes;
        let mut entries = Vec::new();
        for index in 0..count {
            file.read_exact_at(&mut head, at).with_context(|| format!("entry {index} is not there"))?;
            at += sector_bytes;
            let (offset, length) = (number(&head, 0) * sector_bytes, number(&head, 8) * sector_bytes);
            let flags = number(&head, 16);
            entries.push(if flags & MARK != 0 {
                let length = usize::try_from(number(&head, 24))?;
                let text = head.get(32..32 + length).context("a mark is longer than its sector")?;
                Entry::Mark(String::from_utf8_lossy(text).into_owned())
            } else if flags & DISCARD != 0 {
                Entry::Discard { offset, length }
            } else if length == 0 {
                ensure!(flags & FLUSH != 0, "entry {index} does nothing: flags {flags:#x}");
                Entry::Flush
            } else {
                let mut bytes = vec![0; usize::try_from(length)?];
                file.read_exact_at(&mut bytes, at)
                    .with_context(|| format!("data of entry {index} is not there"))?;
                at += length;
                Entry::Write { offset, bytes, flush: flags & FLUSH != 0, fua: flags & FUA != 0 }
            });
        }
        Ok(Self { entries })
    }

    /// Where the mark is.
    pub(in crate::e2e) fn mark(&self, text: &str) -> Result<usize> {
        let found = self.entries.iter().position(|entry| matches!(entry, Entry::Mark(mark) if mark == text));
        found.with_context(|| format!("nobody marked '{text}' in the log"))
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The disk as the log goes on, for cuts in ascending order.
#[derive(Debug)]
pub(in crate::e2e) struct Replay<'a> {
    log: &'a WriteLog,
    /// Entries that are behind us.
    at: usize,
    durable: Image,
    /// Entries since the last flush, each with whether it is durable by itself.
    pending: Vec<(usize, bool)>,
}

impl<'a> Replay<'a> {
    /// Before the first entry: a disk of zeroes.
    pub(in crate::e2e) fn new(log: &'a WriteLog) -> Self {
        Self { log, at: 0, durable: Image::default(), pending: Vec::new() }
    }

    /// What the disk holds if power fails when the first `at` entries have been done.
    pub(in crate::e2e) fn cut(&mut self, at: usize, unflushed: Unflushed) -> Result<Image> {
        ensure!(at >= self.at && at <= self.log.entries.len(), "cuts go from front to back");
        while self.at < at {
            match &self.log.entries[self.at] {
                Entry::Mark(_) => {}
                Entry::Flush => self.flush(),
                Entry::Write { flush, fua, .. } => {
                    if *flush {
                        self.flush();
                    }
                    self.pending.push((self.at, *fua));
                }
                Entry::Discard { .. } => self.pending.push((self.at, false)),
            }
            self.at += 1;
        }
        let mut image = self.durable.clone();
        let mut chance = match unflushed {
            Unflushed::Torn(seed) => Some(Numbers::new(seed)),
            _ => None,
        };
        for (index, durable) in &self.pending {
            let entry = &self.log.entries[*index];
            match (&mut chance, unflushed) {
                _ if *durable => image.apply(entry),
                (Some(chance), _) => image.apply_in_part(entry, chance),
                (None, Unflushed::Kept) => image.apply(entry),
                (None, _) => {}
            }
        }
        Ok(image)
    }

    fn flush(&mut self) {
        for (index, _) in std::mem::take(&mut self.pending) {
            self.durable.apply(&self.log.entries[index]);
        }
    }
}

/// What a disk holds; pages that are not there are zeroes.
#[derive(Clone, Debug, Default)]
pub(in crate::e2e) struct Image {
    pages: HashMap<u64, Box<[u8]>>,
}

impl Image {
    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Write { offset, bytes, .. } => self.write(*offset, bytes),
            Entry::Discard { offset, length } => self.discard(*offset, *length),
            Entry::Flush | Entry::Mark(_) => {}
        }
    }

    /// All of it, none of it, or any of its sectors.
    fn apply_in_part(&mut self, entry: &Entry, chance: &mut Numbers) {
        match chance.below(3) {
            0 => self.apply(entry),
            1 => {}
            _ => {
                if let Entry::Write { offset, bytes, .. } = entry {
                    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                        if chance.below(2) == 0 {
                            self.write(offset + (index * SECTOR) as u64, sector);
                        }
                    }
                }
            }
        }
    }

    fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = usize::try_from(offset % PAGE as u64).unwrap_or(0);
            let length = bytes.len().min(PAGE - within);
            let (now, later) = bytes.split_at(length);
            let page = self.pages.entry(offset / PAGE as u64).or_insert_with(|| vec![0; PAGE].into());
            page[within..within + length].copy_from_slice(now);
            (bytes, offset) = (later, offset + length as u64);
        }
    }

    fn discard(&mut self, offset: u64, length: u64) {
        let page = PAGE as u64;
        let (first, end) = (offset.div_ceil(page), (offset + length) / page);
        // Large ranges of a disk that is nearly empty.
        if end.saturating_sub(first) > self.pages.len() as u64 {
            self.pages.retain(|number, _| !(first..end).contains(number));
        } else {
            for number in first..end {
                self.pages.remove(&number);
            }
        }
    }

    /// Writes it as a raw file of this length.
    pub(in crate::e2e) fn save(&self, path: &Path, length: u64) -> Result<()> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        file.set_len(length)?;
        for (number, bytes) in &self.pages {
            let offset = number * PAGE as u64;
            if offset + PAGE as u64 > length {
                bail!("the log writes at byte {offset} of a disk of {length}");
            }
            if bytes.iter().any(|byte| *byte != 0) {
                file.write_all_at(bytes, offset)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, letter: u8, flush: bool, fua: bool) -> Entry {
        Entry::Write { offset, bytes: vec![letter; 2 * SECTOR], flush, fua }
    }

    /// The letter at each kilobyte.
    fn letters(image: &Image) -> String {
        (0..4)
            .map(|kib| {
                let byte = image.pages.get(&0).map_or(0, |page| page[kib * 1024]);
                if byte == 0 { '.' } else { char::from(byte) }
            })
            .collect()
    }

    #[test]
    fn a_cut_takes_what_no_flush_covers_and_nothing_else() {
        let log = WriteLog {
            entries: vec![
                write(0, b'a', false, false),
                Entry::Flush,
                write(1024, b'b', false, false),
                write(2048, b'c', false, true),
                Entry::Mark("c".into()),
                write(0, b'd', false, false),
                write(3072, b'e', true, false),
            ],
        };
        let both = |at| {
            let mut replay = Replay::new(&log);
            let lost = letters(&replay.cut(at, Unflushed::Lost).unwrap());
            (lost, letters(&replay.cut(at, Unflushed::Kept).unwrap()))
        };
        let expected = [
            ("....", "...."),
            ("....", "a..."),
            ("a...", "a..."),
            ("a...", "ab.."),
            // FUA covers itself and nothing before it.
            ("a.c.", "abc."),
            ("a.c.", "abc."),
            ("a.c.", "dbc."),
            // A flush that carries data covers what came before, not the data.
            ("dbc.", "dbce"),
        ];
        for (at, (lost, kept)) in expected.iter().enumerate() {
            assert_eq!(both(at), ((*lost).to_owned(), (*kept).to_owned()), "at {at}");
        }
    }

    #[test]
    fn a_torn_cut_lies_between_none_and_all() {
        let log = WriteLog { entries: vec![write(0, b'a', false, true), write(1024, b'b', false, false)] };
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let mut replay = Replay::new(&log);
            let image = replay.cut(2, Unflushed::Torn(seed)).unwrap();
            let sectors: Vec<u8> = image.pages[&0].iter().step_by(SECTOR).take(4).copied().collect();
            assert_eq!(sectors[..2], [b'a'; 2], "what is durable is not torn");
            seen.insert(sectors[2..].to_vec());
        }
        assert_eq!(seen.len(), 4, "all, none and each half: {seen:?}");
    }

    #[test]
    fn discards_leave_zeroes() {
        let mut image = Image::default();
        for page in 0..3 {
            image.write(page * PAGE as u64, &[7; PAGE]);
        }
        image.discard(PAGE as u64, 1 << 40);
        assert_eq!(image.pages.len(), 1);
        image.discard(0, PAGE as u64);
        assert!(image.pages.is_empty());
    }

    #[test]
    fn a_log_is_read_as_the_kernel_writes_it() {
        let sector = |words: &[u64]| {
            let mut sector: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            sector.resize(SECTOR, 0);
            sector
        };
        let mut mark = sector(&[0, 0, MARK, 5]);
        mark[32..37].copy_from_slice(b"begin");
        let bytes = [
            sector(&[MAGIC, VERSION, 5, SECTOR as u64]),
            sector(&[8, 1, FUA, 0]),
            vec![b'x'; SECTOR],
            mark,
            sector(&[0, 0, FLUSH, 0]),
            // A discard has a length and no data.
            sector(&[16, 64, DISCARD, 0]),
            sector(&[1, 2, FLUSH, 0]),
            vec![b'y'; 2 * SECTOR],
        ]
        .concat();
        let path = std::env::temp_dir().join(format!("lsvd-writelog-{}", std::process::id()));
        std::fs::write(&path, &bytes).unwrap();
        let log = WriteLog::read(&path);
        std::fs::remove_file(&path).unwrap();
        let log = log.unwrap();
        let expected = [
            Entry::Write { offset: 4096, bytes: vec![b'x'; SECTOR], flush: false, fua: true },
            Entry::Mark("begin".into()),
            Entry::Flush,
            Entry::Discard { offset: 8192, length: 32768 },
            Entry::Write { offset: 512, bytes: vec![b'y'; 2 * SECTOR], flush: true, fua: false },
        ];
        assert_eq!(log.entries, expected);
        assert_eq!(log.mark("begin").unwrap(), 1);
        assert!(log.mark("end").is_err());
    }
}

//! An SSD that forgets: what was not synced is lost in a crash in any part, sector by sector and name by name.
//!
//! Behind the feature `testing`, so that the simulator's hosts have the same one as this crate's own tests. Knows no
//! journal; chance comes from whoever cuts the power.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use crate::files::Files;

const SECTOR: usize = 512;

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), from a seed.
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { length: usize },
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<Change>,
    now: Vec<u8>,
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Truncate { length } => bytes.resize(*length, 0),
        Change::Write { offset, bytes: new } => {
            let end = offset + new.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(new);
        }
    }
}

/// The disk.
#[derive(Clone, Debug)]
pub struct Ssd {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// When they are used up, every operation fails: the power is cut.
    pub operations_left: u64,
    /// Bytes of all files at most.
    pub capacity: usize,
    /// Syncs say that they failed.
    pub sync_fails: bool,
    /// Files can not be removed.
    pub removes_fail: bool,
    /// Syncs say that they were done, and do nothing: a disk that no journal can live on.
    pub sync_lies: bool,
}

impl Default for Ssd {
    fn default() -> Self {
        Self::new()
    }
}

impl Ssd {
    /// An empty one.
    pub fn new() -> Self {
        let (inodes, names, durable_names) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self {
            inodes,
            names,
            durable_names,
            operations_left: u64::MAX,
            capacity: usize::MAX,
            sync_fails: false,
            removes_fail: false,
            sync_lies: false,
        }
    }

    fn step(&mut self) -> io::Result<()> {
        match self.operations_left.checked_sub(1) {
            Some(left) => {
                self.operations_left = left;
                Ok(())
            }
            None => Err(io::Error::other("the power is cut")),
        }
    }

    fn at(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn change(&mut self, name: &str, change: Change) -> io::Result<()> {
        let at = self.at(name)?;
        let inode = &mut self.inodes[at];
        apply(&mut inode.now, &change);
        inode.pending.push(change);
        Ok(())
    }

    /// Bytes of all files.
    pub fn used(&self) -> usize {
        self.names.values().map(|at| self.inodes[*at].now.len()).sum()
    }

    /// What is left when the power comes back.
    #[must_use]
    pub fn crash(mut self, chance: &mut Chance) -> Self {
        // Sometimes nearly everything was written back, sometimes nearly nothing.
        let kept_of_eight = chance.below(9);
        for inode in &mut self.inodes {
            let mut bytes = std::mem::take(&mut inode.durable);
            for change in inode.pending.drain(..) {
                match change {
                    Change::Write { offset, bytes: new } => {
                        let mut at = 0;
                        while at < new.len() {
                            let end = (SECTOR - (offset + at) % SECTOR + at).min(new.len());
                            if chance.below(8) < kept_of_eight {
                                let part =
                                    Change::Write { offset: offset + at, bytes: new[at..end].to_vec() };
                                apply(&mut bytes, &part);
                            }
                            at = end;
                        }
                    }
                    truncate if chance.below(8) < kept_of_eight => apply(&mut bytes, &truncate),
                    Change::Truncate { .. } => {}
                }
            }
            inode.durable.clone_from(&bytes);
            inode.now = bytes;
        }
        let all: Vec<String> = self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        let mut names = BTreeMap::new();
        for name in all {
            let from = if chance.below(8) < kept_of_eight { &self.names } else { &self.durable_names };
            names.extend(from.get(&name).map(|at| (name, *at)));
        }
        self.names.clone_from(&names);
        self.durable_names = names;
        self.operations_left = u64::MAX;
        self
    }

    /// Gives two files each other's names.
    ///
    /// # Panics
    /// If one of them is not there.
    pub fn swap(&mut self, one: &str, other: &str) {
        let (a, b) = (self.names[one], self.names[other]);
        self.names.extend([(one.to_owned(), b), (other.to_owned(), a)]);
    }

    /// Changes bytes behind everybody's back, durably.
    ///
    /// # Panics
    /// If it is not there, or shorter.
    pub fn overwrite(&mut self, name: &str, offset: usize, new: &[u8]) {
        let inode = &mut self.inodes[self.names[name]];
        inode.now[offset..offset + new.len()].copy_from_slice(new);
        inode.durable = inode.now.clone();
    }

    /// Changes one byte behind everybody's back, durably.
    ///
    /// # Panics
    /// If it is not there, or shorter.
    pub fn flip(&mut self, name: &str, offset: usize) {
        let at = self.names[name];
        self.inodes[at].now[offset] ^= 0x40;
        self.inodes[at].durable = self.inodes[at].now.clone();
    }
}

impl Files for Ssd {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.names.keys().cloned().collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.step()?;
        match self.names.get(name) {
            Some(_) => self.change(name, Change::Truncate { length: 0 }),
            None => {
                self.inodes.push(Inode::default());
                self.names.insert(name.to_owned(), self.inodes.len() - 1);
                Ok(())
            }
        }
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(self.inodes[self.at(name)?].now.len() as u64)
    }

    fn read(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = &self.inodes[self.at(name)?].now;
        let from = usize::try_from(offset).expect("what is in memory can be indexed").min(bytes.len());
        let count = buffer.len().min(bytes.len() - from);
        buffer[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("what is in memory can be indexed");
        // What lies within the file has its room already.
        let within = self.inodes[self.at(name)?].now.len().saturating_sub(offset);
        let room = self.capacity.saturating_sub(self.used()).saturating_add(within);
        if bytes.len() > room {
            // Part of it is written all the same.
            self.change(name, Change::Write { offset, bytes: bytes[..room].to_vec() })?;
            return Err(ErrorKind::StorageFull.into());
        }
        if let Err(cut) = self.step() {
            self.change(name, Change::Write { offset, bytes: bytes.to_vec() })?;
            return Err(cut);
        }
        self.change(name, Change::Write { offset, bytes: bytes.to_vec() })
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.step()?;
        self.change(
            name,
            Change::Truncate { length: usize::try_from(length).expect("what is in memory can be indexed") },
        )
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.step()?;
        let at = self.at(name)?;
        let inode = &mut self.inodes[at];
        if self.sync_lies {
            return Ok(());
        }
        let pending = std::mem::take(&mut inode.pending);
        if self.sync_fails {
            // As Linux does: what could not be written is forgotten, and is still read as if it had been.
            return Err(io::Error::other("the disk failed"));
        }
        for change in &pending {
            apply(&mut inode.durable, change);
        }
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.step()?;
        if !self.sync_lies {
            self.durable_names.clone_from(&self.names);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.step()?;
        self.at(name)?;
        if self.removes_fail {
            return Err(io::Error::other("the disk failed"));
        }
        self.names.remove(name);
        Ok(())
    }
}

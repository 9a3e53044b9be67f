//! What was written: four volumes.
//!
//! Knows the maps as [`Subject`]s alone. Everything follows from the number of extents; nothing is random twice.

use crate::subjects::Subject;

/// Numbers that look random (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Sequential,
    /// The first `writes` of all blocks, in an order that looks random.
    Random,
    FileSystem,
}

pub struct Load {
    pub name: &'static str,
    /// Blocks of the volume.
    pub blocks: u64,
    /// Writes that build it.
    pub writes: u64,
    kind: Kind,
}

/// Blocks of a batch.
const BATCH: u64 = 2048;

impl Load {
    pub fn all(extents: u64) -> [Self; 4] {
        let sequential = extents.next_multiple_of(BATCH);
        let load = |name, blocks, writes, kind| Self { name, blocks, writes, kind };
        [
            load("sequential", sequential, sequential / BATCH, Kind::Sequential),
            load("random 4 KiB, full", extents, extents, Kind::Random),
            load("random 4 KiB, 10 % full", extents * 10, extents, Kind::Random),
            load("like ext4", extents, extents / 16, Kind::FileSystem),
        ]
    }

    pub fn build(&self, map: &mut impl Subject) {
        match self.kind {
            Kind::Sequential => {
                for nth in 0..self.writes {
                    map.write(nth * BATCH, BATCH, nth * BATCH);
                }
            }
            Kind::Random => {
                for nth in 0..self.writes {
                    map.write(self.nth_block(nth), 1, nth);
                }
            }
            Kind::FileSystem => self.build_file_system(map),
        }
    }

    /// A block that was written, for a random number; of a file system any block.
    pub fn written_block(&self, random: u64) -> u64 {
        let below = |end: u64| ((u128::from(random) * u128::from(end)) >> 64) as u64;
        match self.kind {
            Kind::Sequential | Kind::FileSystem => below(self.blocks),
            Kind::Random => self.nth_block(below(self.writes)),
        }
    }

    /// The `nth` block of a random order of all blocks: a bijection of a power of two, walked until it hits.
    fn nth_block(&self, nth: u64) -> u64 {
        let bits = 64 - (self.blocks - 1).leading_zeros();
        let mask = (1u64 << bits) - 1;
        let mut block = nth;
        loop {
            for factor in [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
                block = block.wrapping_mul(factor) & mask;
                block ^= block >> (bits / 2);
            }
            if block < self.blocks {
                return block;
            }
        }
    }

    /// Block groups of 128 MiB. Files of a few blocks to 64 MiB are laid down side by side and in pieces, six in ten blocks
    /// of a group; directories and inode tables are written a block at a time, again and again, as is a journal of 64 MiB in
    /// a ring; a file in fifty is a database that is written at random.
    fn build_file_system(&self, map: &mut impl Subject) {
        const GROUP: u64 = 32_768;
        let (mut random, mut log) = (Random(11), Log::default());
        let mut journal = 0;
        let mut writes = 0;
        while writes < self.writes {
            let first = random.below(self.blocks.div_ceil(GROUP)) * GROUP;
            let end = (first + GROUP).min(self.blocks);
            let mut put = |map: &mut _, start: u64, count: u64| {
                let count = count.min(end.saturating_sub(start));
                log.write(map, start, count);
                writes += 1;
            };
            // Small files are many, large ones hold most blocks.
            let file = 1 << random.below(15);
            let start = first + 2048 + random.below(GROUP * 6 / 10);
            let database = random.below(50) == 0;
            let mut at = 0;
            while at < file {
                let piece = if database { 1 } else { (1 + random.below(1024)).min(file - at) };
                let to = if database { random.below(file) } else { at };
                put(map, start + to, piece);
                at += if database { 4 } else { piece };
            }
            for _ in 0..3 {
                put(map, first + random.below(2048), 1);
            }
            for _ in 0..2 {
                let block = journal % 16_384;
                log.write(map, block.min(self.blocks - 4), 4);
                journal += 4;
                writes += 1;
            }
        }
    }
}

/// The end of the log: what is written crosses no object.
#[derive(Default)]
struct Log(u64);

impl Log {
    fn write(&mut self, map: &mut impl Subject, start: u64, count: u64) {
        let mut at = 0;
        while at < count {
            let part = (count - at).min(BATCH - self.0 % BATCH);
            map.write(start + at, part, self.0);
            self.0 += part;
            at += part;
        }
    }
}

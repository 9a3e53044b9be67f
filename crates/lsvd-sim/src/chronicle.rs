//! What the volume held at each moment: all log objects that were ever stored, applied in their order.
//!
//! Shares with the product only the decoders of its format: the oracle's own replay, block by block and from the beginning of
//! the log, whatever was deleted since. Knows no checkpoints. Invariant: a number means one object for ever (rule 2), and the
//! line below a number never changes, so a state that is known stays true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use lsvd_format::log_object::{Entry, Header, decode_frames};
use lsvd_format::superblock::Superblock;
use lsvd_format::{BLOCK_BYTES, BlockOrdinal, Extent, SequenceNumber};

use crate::sector::{self, BLOCK_SECTORS, SECTOR_BYTES, Value};

/// Where a block is, and its data.
#[derive(Clone, Debug)]
struct Cell {
    number: SequenceNumber,
    ordinal: u64,
    data: Bytes,
}

/// The volume as of a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    cells: BTreeMap<u64, Cell>,
    /// All objects of the line, ascending.
    numbers: Vec<SequenceNumber>,
}

/// All log objects that were ever stored.
#[derive(Debug, Default)]
pub(crate) struct Chronicle {
    objects: BTreeMap<SequenceNumber, Bytes>,
    known: BTreeMap<SequenceNumber, Arc<State>>,
}

impl Chronicle {
    /// An object was stored. What comes to the same number later counts for nothing.
    pub(crate) fn stored(&mut self, number: SequenceNumber, bytes: &Bytes) {
        self.objects.entry(number).or_insert_with(|| bytes.clone());
    }

    /// Some number that was ever stored, if there is one.
    pub(crate) fn some_number(&self, salt: u64) -> Option<SequenceNumber> {
        let many = self.objects.len().max(1) as u64;
        let nth = usize::try_from(salt % many).expect("an index fits");
        self.objects.keys().nth(nth).copied()
    }

    /// The volume as of `as_of`, on the line that leads there.
    ///
    /// # Errors
    /// What is wrong with the log.
    pub(crate) fn state(
        &mut self,
        superblock: &Superblock,
        as_of: SequenceNumber,
    ) -> Result<Arc<State>, String> {
        if let Some(state) = self.known.get(&as_of) {
            return Ok(Arc::clone(state));
        }
        let jumps: BTreeMap<_, _> = superblock.line(as_of).jumps().collect();
        let (mut state, mut number) = (State::default(), superblock.log_first_number);
        while number <= as_of {
            let bytes = self.objects.get(&number);
            let bytes =
                bytes.ok_or_else(|| format!("number {number} on the way to {as_of} was never stored"))?;
            let header = Header::decode(bytes).map_err(|error| format!("number {number}: {error}"))?;
            state.apply(&header, bytes)?;
            number = match jumps.get(&number) {
                Some(next) => *next,
                None => header.next_number(),
            };
        }
        if state.numbers.last().is_some_and(|last| *last != as_of) {
            return Err(format!("the log skips number {as_of}"));
        }
        let state = Arc::new(state);
        self.known.insert(as_of, Arc::clone(&state));
        Ok(state)
    }
}

impl State {
    fn apply(&mut self, header: &Header, bytes: &Bytes) -> Result<(), String> {
        let number = header.identity.number;
        self.numbers.push(number);
        let payload = usize::try_from(header.header_bytes()).expect("it is in memory");
        let frames = bytes.get(payload..).unwrap_or_default();
        let data = decode_frames(&header.identity, BlockOrdinal(0), frames)
            .map_err(|error| format!("number {number}: {error}"))?;
        let mut ordinal = 0;
        for entry in &header.entries {
            match *entry {
                Entry::Zero { extent } | Entry::Trim { extent } => self.clear(extent),
                Entry::Data { extent } => {
                    for nth in 0..extent.count.0 {
                        self.cells.insert(extent.start.0 + nth, Cell::of(number, ordinal + nth, &data));
                    }
                }
                Entry::Relocation { extent, source } => {
                    for nth in 0..extent.count.0 {
                        let Some(cell) = self.cells.get_mut(&(extent.start.0 + nth)) else { continue };
                        let was = (source.number, u64::from(source.ordinal.0) + nth);
                        if (cell.number, cell.ordinal) == was {
                            *cell = Cell::of(number, ordinal + nth, &data);
                        }
                    }
                }
                Entry::Fence { .. } => {}
            }
            ordinal += entry.payload_blocks();
        }
        Ok(())
    }

    fn clear(&mut self, extent: Extent) {
        let gone: Vec<u64> = self.cells.range(extent.start.0..extent.end().0).map(|(at, _)| *at).collect();
        gone.iter().for_each(|at| {
            self.cells.remove(at);
        });
    }

    /// The objects that its blocks are in.
    pub(crate) fn owners(&self) -> BTreeSet<SequenceNumber> {
        self.cells.values().map(|cell| cell.number).collect()
    }

    /// The objects that a moment needs which is replayed behind `base`.
    pub(crate) fn needs(&self, base: Option<SequenceNumber>) -> BTreeSet<SequenceNumber> {
        let replayed = self.numbers.iter().copied().filter(|number| base.is_none_or(|base| *number > base));
        self.owners().into_iter().chain(replayed).collect()
    }

    /// What `sectors` sectors from `first_block` on hold; zeroes from `there` on.
    ///
    /// # Errors
    /// One of them is nobody's.
    pub(crate) fn values(&self, first_block: u64, sectors: u32, there: u32) -> Result<Vec<Value>, String> {
        let value = |at: u32| {
            let cell = self.cells.get(&(first_block + u64::from(at / BLOCK_SECTORS)));
            let Some(cell) = cell.filter(|_| at < there) else { return Ok(Value::Zero) };
            let from = (at % BLOCK_SECTORS) as usize * SECTOR_BYTES;
            sector::parse(at, &cell.data[from..from + SECTOR_BYTES])
                .ok_or_else(|| format!("number {} holds nobody's bytes for sector {at}", cell.number))
        };
        (0..sectors).map(value).collect()
    }
}

impl Cell {
    fn of(number: SequenceNumber, ordinal: u64, data: &Bytes) -> Self {
        let block = usize::try_from(BLOCK_BYTES).expect("a block is small");
        let from = usize::try_from(ordinal).expect("it is in memory") * block;
        Self { number, ordinal, data: data.slice(from..from + block) }
    }
}

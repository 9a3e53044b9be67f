//! What goes into the engine and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lsvd_format::checkpoint::RegionIndex;
use lsvd_format::log_object::Header;
use lsvd_format::{BlockIndex, Extent, ObjectFormat, SequenceNumber};

use crate::collect::Move;
use crate::content::Content;
use crate::map::Location;
use crate::prefix::{Place, RegionContent};

/// Names a request between its submission and its completion. The caller chooses it, and never uses one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The time of an event, by the caller's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since any fixed moment; never goes back.
    pub monotonic: Duration,
    /// Milliseconds since 1970, only recorded.
    pub unix_ms: u64,
}

/// What a client asks for. Ranges are in bytes, not empty, and within the volume: the caller has checked.
#[derive(Clone, Debug)]
pub enum Request {
    /// Write `data`, any alignment.
    Write {
        /// Where, in bytes.
        offset_bytes: u64,
        /// What.
        data: Bytes,
        /// Complete only when it is durable.
        fua: bool,
    },
    /// Discard the whole blocks within the range.
    Trim {
        /// Where, in bytes.
        offset_bytes: u64,
        /// How much, in bytes.
        length_bytes: u64,
        /// Complete only when it is durable.
        fua: bool,
    },
    /// Make the range read as zeroes, any alignment.
    WriteZeroes {
        /// Where, in bytes.
        offset_bytes: u64,
        /// How much, in bytes.
        length_bytes: u64,
        /// Whole blocks stay allocated.
        keep_allocated: bool,
        /// Complete only when it is durable.
        fua: bool,
    },
    /// Complete when all that completed before is durable: the journal has synced it, if one answers flushes, or else the
    /// store has it.
    Flush,
    /// Complete when the store holds all that completed before, journal or not.
    Drain,
}

impl Request {
    /// Where the range begins and how long it is, in bytes; nothing for what has none.
    pub fn range_bytes(&self) -> (u64, u64) {
        match self {
            Self::Write { offset_bytes, data, .. } => (*offset_bytes, data.len() as u64),
            Self::Trim { offset_bytes, length_bytes, .. }
            | Self::WriteZeroes { offset_bytes, length_bytes, .. } => (*offset_bytes, *length_bytes),
            Self::Flush | Self::Drain => (0, 0),
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A client asks.
    Submit {
        /// Its name.
        id: RequestId,
        /// What it asks for.
        request: Request,
    },
    /// The block that [`Action::ReadBase`] asked for, or nothing if it can not be read.
    BaseRead {
        /// The request that needs it.
        id: RequestId,
        /// The block.
        block: BlockIndex,
        /// Its whole content.
        base: Option<Bytes>,
    },
    /// The store holds this object for good.
    Uploaded {
        /// Its number.
        number: SequenceNumber,
    },
    /// Blocks of old objects were fetched, to be written again: completed when that is durable.
    Collected {
        /// Its name.
        id: RequestId,
        /// The blocks, in order of address.
        moves: Vec<Move>,
        /// Their contents, in the same order.
        payload: Vec<Bytes>,
    },
    /// A region of the map that is absent is needed: by a plan, say.
    RegionWanted {
        /// The region.
        region: RegionIndex,
    },
    /// What [`Action::LoadRegion`] asked for.
    RegionLoaded {
        /// The region.
        region: RegionIndex,
        /// Where it was read.
        place: Place,
        /// What its checkpoint holds of it.
        content: RegionContent,
    },
    /// What [`Action::LoadRegion`] asked for can not be read, nor made again, and what is durable waits for it: it is lost, up
    /// to a block, and all goes on.
    RegionLost {
        /// The region.
        region: RegionIndex,
        /// Where it was to be read.
        place: Place,
        /// Where the volume ends, at its largest.
        end: BlockIndex,
    },
    /// The journal has all records up to this one: they survive the loss of this process.
    JournalWritten {
        /// The last of them.
        record: u64,
    },
    /// The journal has synced all records up to this one: they survive the loss of this host.
    JournalSynced {
        /// The last of them.
        record: u64,
    },
    /// The journal has no room for what it was not said to have: whoever waits for it is answered by uploads, until
    /// [`Event::JournalWritten`] comes again.
    JournalFull,
    /// A record of the journal that the log does not contain, in order. It has its place in the order of writes again,
    /// and nobody waits for it. The caller heeds the ceiling of memory; clients are served afterwards.
    Replayed {
        /// The record.
        record: u64,
        /// The blocks that it wrote.
        extent: Extent,
        /// What it wrote.
        content: Content,
    },
    /// Somebody waits no longer for this request.
    Cancel {
        /// The request.
        id: RequestId,
    },
    /// Another writer has the volume.
    Fenced,
    /// Time has passed.
    Tick,
}

/// What the caller has to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Answer a request.
    Complete {
        /// The request.
        id: RequestId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Read one block from the log and come back with [`Event::BaseRead`].
    ReadBase {
        /// The request that needs it.
        id: RequestId,
        /// The block.
        block: BlockIndex,
        /// Where it is stored.
        location: Location,
    },
    /// Read a region of the map from its checkpoint and come back with [`Event::RegionLoaded`], however long that takes.
    LoadRegion {
        /// The region.
        region: RegionIndex,
        /// Where it is stored.
        place: Place,
    },
    /// Append a record to the journal, in the order of these actions: what was written to these blocks.
    Journal {
        /// The record's number: one more than the one before.
        record: u64,
        /// The blocks.
        extent: Extent,
        /// What was written.
        content: Content,
    },
    /// Make all records up to this one survive, and come back with [`Event::JournalSynced`]. Several of these may share
    /// one sync.
    SyncJournal {
        /// The record.
        record: u64,
    },
    /// The durable log contains all records up to this one: the journal may drop them.
    ReleaseJournal {
        /// The record.
        record: u64,
    },
    /// Store this object under its number, and come back with [`Event::Uploaded`] when it is certain, however long
    /// that takes.
    Upload(Arc<SealedBatch>),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Done,
    /// A block that it changes in part could not be read; it was not and will not be applied.
    BaseUnreadable,
    /// This block, which it changes in part, is lost; it was not and will not be applied.
    BaseLost(BlockIndex),
    /// Given up. If it was `applied` it stays so, and is durable some time; otherwise it never will be applied.
    Cancelled {
        /// Whether it is in the order of writes.
        applied: bool,
    },
    /// Another writer has the volume.
    Fenced,
}

/// A log object that is ready to be encoded.
#[derive(Debug)]
pub struct SealedBatch {
    /// Its header. If it becomes an object of format 1, of this only number and entries are stored, all of them data.
    pub header: Header,
    /// The format that it is to be stored in.
    pub format: ObjectFormat,
    /// Its payload: whole blocks, in pieces.
    pub payload: Vec<Bytes>,
    /// Bytes of memory that it holds until it is durable.
    pub held_bytes: u64,
    /// A flush or FUA waits for it.
    pub for_flush: bool,
}

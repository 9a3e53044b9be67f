//! What the clients of a run asked, what they were answered, and when: all that the oracle judges by.
//!
//! Knows nothing of how a volume works. Ticks count the events of the run; every submission and every answer has
//! its own, so that of two events one is always first.

use crate::sector::{BLOCK_SECTORS, Value};

/// A moment of the run.
pub type Tick = u64;

/// After everything.
pub const NEVER: Tick = Tick::MAX;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not at all: its process died first.
    Pending,
    /// It was answered as done.
    Done(Tick),
    /// It was answered with an error.
    Failed(Tick),
}

impl Outcome {
    /// When it was answered as done, or [`NEVER`].
    pub fn done_at(self) -> Tick {
        match self {
            Self::Done(tick) => tick,
            Self::Pending | Self::Failed(_) => NEVER,
        }
    }

    /// When it was answered at all, or [`NEVER`].
    pub fn answered_at(self) -> Tick {
        match self {
            Self::Done(tick) | Self::Failed(tick) => tick,
            Self::Pending => NEVER,
        }
    }
}

/// What was asked. Sectors have 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Fill the sectors with what [`crate::sector::fill`] makes of `id`.
    Write {
        /// First sector.
        first: u32,
        /// Number of sectors.
        count: u32,
        /// Number of the write in the run.
        id: u32,
        /// Durable when answered.
        fua: bool,
    },
    /// Zero the sectors.
    Zero {
        /// First sector.
        first: u32,
        /// Number of sectors.
        count: u32,
        /// Only the whole blocks among them: a trim.
        inward: bool,
        /// Durable when answered.
        fua: bool,
    },
    /// What was done before is durable when this is answered.
    Flush,
    /// What was done before is in the store when this is answered: a clean close, or a look that found nothing that is
    /// not. Without a journal it says no more than a flush.
    Stored,
    /// What the sectors from `first` held; empty unless it was answered as done.
    Read {
        /// First sector.
        first: u32,
        /// What each of them held.
        values: Vec<Value>,
    },
}

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Op {
    /// What was asked.
    pub request: Request,
    /// When.
    pub submit: Tick,
    /// How it ended.
    pub outcome: Outcome,
}

/// The whole volume as somebody read it who had opened it after the writer of this generation.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// When its opening began: what was flushed before is in it.
    pub from: Tick,
    /// When its opening ended: what was submitted later is not.
    pub until: Tick,
    /// All sectors.
    pub values: Vec<Value>,
    /// It is a snapshot of its writer: what had completed before `from` is in it, flushed or not.
    pub completed: bool,
}

/// One opening of the volume for writing, and all that its clients did.
#[derive(Clone, Debug, Default)]
pub struct Generation {
    /// Its epoch: orders the generations.
    pub epoch: u64,
    /// When its opening had succeeded.
    pub opened: Tick,
    /// The number of the journal that answers its flushes, if one does: otherwise the store does.
    pub journal: Option<u32>,
    /// The host that this journal is on, and how often that had lost its power by then.
    pub boot: Option<(u32, u32)>,
    /// Its opening took records out of that journal: what it found is not all in the store.
    pub replayed: bool,
    /// The whole volume as it was then; without it no client of this generation may have written.
    pub found: Option<Vec<Value>>,
    /// Its clients' requests, by submission.
    pub ops: Vec<Op>,
    /// It is a rollback: what it found is what it went back to, and none before it explains that.
    pub turned: bool,
    /// What read-only openings saw of this generation while it was the newest.
    pub sightings: Vec<Sighting>,
}

/// All generations of one volume.
#[derive(Clone, Debug)]
pub struct History {
    /// Sectors of the volume.
    pub sectors: u32,
    /// The openings, in any order.
    pub generations: Vec<Generation>,
    /// Epochs that began by giving up the journal that was in use, in any order. Nobody need have opened in them.
    pub abandoned: Vec<u64>,
}

impl History {
    /// The history of a volume of `blocks` blocks that nobody opened yet.
    pub fn new(blocks: u32) -> Self {
        Self { sectors: blocks * BLOCK_SECTORS, generations: Vec::new(), abandoned: Vec::new() }
    }
}

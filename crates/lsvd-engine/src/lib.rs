//! The pure state machine of a log-structured virtual disk: order, batches, numbers, overlay, extent map, replay, plans.
//!
//! Knows no tasks, no clock, no files, no buckets and no randomness: what happens comes in as [`Event`]s with their
//! time, what is to be done goes out as [`Action`]s. The same engine runs in the daemon and in the simulator.
//!
//! A partial write (less than a block at either end) is answered only when the block's content before is known and
//! merged; later writes to its blocks wait for it, reads see the state before or after it, and a flush has nothing to
//! wait for, as the write has not completed.

#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod batch;
mod collect;
mod content;
mod engine;
mod interval;
mod journal;
mod log;
mod map;
mod mutation;
mod objects;
mod plan;
mod prefix;
mod replay;
mod request;

pub use collect::{Choice, Move, Purpose, moved_bytes};
pub use content::Content;
pub use engine::{Config, Engine};
pub use journal::JournalUse;
pub use log::{LastData, LogState};
pub use map::{ExtentMap, Location, Mapping};
pub use objects::{ObjectIndex, ObjectRecord, ObjectState, ObjectTable, ObjectTotals, Slots};
pub use plan::{Live, PlanPiece, Status};
pub use prefix::{CaptureStart, Place, Prefix, RegionContent, StoredRegions, Tail};
pub use replay::{Replay, ReplayError};
pub use request::{Action, Event, Now, Outcome, Request, RequestId, SealedBatch};

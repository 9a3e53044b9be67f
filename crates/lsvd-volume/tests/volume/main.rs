//! The volume against a store that fails, lies, hangs and is tampered with, each promise by the number of its rule.
//!
//! Time is tokio's paused clock: timeouts and backoffs pass at once and repeat. Objects are the real ones, in memory.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod adoption;
mod checkpoints;
mod clones;
mod closing;
mod collection;
mod common;
mod concurrency;
mod data;
mod diff;
mod format_1;
mod group;
mod handover;
mod journal;
mod lost_answers;
mod mending;
mod moments;
mod pressure;
mod recovery;
mod removal;
mod resizing;
mod rollback;
mod root_trouble;
mod roots;
mod snapshots;
mod stalls;
mod stamps;
mod stragglers;
mod takeover;
mod verification;
mod wound_back;

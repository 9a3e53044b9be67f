//! The built program, driven as a user drives it: by command line, signals, sockets and the files of its bucket.
//!
//! One test binary, because linking is what tests of a program cost. Knows nothing of the program's inside, except
//! the blocking NBD client of the demo, which it shares.

#![allow(clippy::unwrap_used, reason = "these are tests: what can not be had fails them")]

mod adopt;
mod bad_input;
mod clones;
mod control;
mod demo;
mod doctor;
mod going_back;
mod journal;
mod json;
mod licenses;
mod moments;
mod removal;
mod resize;
mod rig;
mod serving;
mod snapshots;
mod space;
mod usage;

#[path = "../../src/nbd_client.rs"]
mod nbd_client;

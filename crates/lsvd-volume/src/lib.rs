//! The embeddable disk: a log-structured block volume on a prefix of a bucket.
//!
//! Drives the engine against a bucket: take-over, fence and recovery at opening, uploads, fetches and a cache of
//! verified chunks while it is open. Knows no NBD, no command line and no environment variables.

mod error;
mod options;
mod volume;

pub use error::Error;
pub use options::{CreateOptions, Environment, OpenOptions};
pub use volume::{
    Created, ExtentStatus, Piece, Recovery, Stats, Volume, VolumeDescription, VolumeInfo, create, inspect, list,
};

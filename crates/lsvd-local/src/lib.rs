//! What lives on the local SSD: the journal, which must survive, and the chunk cache, which may vanish.
//!
//! The cache is in memory only so far, and not here. Knows neither the map nor
//! the network, and no tasks: its calls block, and whoever drives it gives it a thread.

mod error;
mod files;
mod journal;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use error::JournalError;
pub use files::{Directory, Files};
pub use journal::{Held, Journal, JournalWriter, Limits, Replaying, Written};

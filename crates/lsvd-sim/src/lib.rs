//! Seeded worlds, faults and the oracle: the real volume, engine and backend on a simulated store.
//!
//! A run is one thread, a paused clock and one seed: it plays the same on every machine. `script` writes the plot
//! with what is in the table `happenings`, `process` and `client` play it on the product's own code, `link`, `weather` and
//! `ambush` are what lies between a process and the store `cloud`, `host` is where its journal lies, `history` is what was asked and answered, and `oracle` judges it by the rules. What is
//! checked and what can not be seen is in docs/simulation.md.

mod ambush;
mod census;
mod chronicle;
mod client;
mod cloner;
mod cloud;
mod deeds;
mod happenings;
pub mod history;
mod host;
mod ledger;
mod limits;
mod link;
mod looks;
mod mutation;
pub mod oracle;
mod process;
mod remover;
mod resizer;
mod rng;
mod roller;
mod run;
mod scene;
mod script;
pub mod sector;
mod shrink;
mod snapshooter;
mod stage;
mod trace;
mod twin;
mod weather;

pub use deeds::Deeds;
pub use limits::Limits;
pub use mutation::Mutation;
pub use run::{Report, run};
pub use shrink::shrink;

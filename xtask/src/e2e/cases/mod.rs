//! The cases: what is shown end to end, in the order in which it is.
//!
//! Each case makes volumes of its own, and leaves the store as a case after it needs it: running.

mod adoption;
mod backup;
mod clients;
mod crash;
mod damage;
mod database;
mod disk;
mod doctor;
mod input;
mod journal;
mod kernel;
mod lab;
mod lab_outages;
mod powercut;
mod recovery;
mod store_faults;
mod takeover;
mod tools;

use super::case::{Case, Needs, World};

/// All cases, those first that say most when they fail.
pub(super) fn all() -> Vec<Case> {
    [
        tools::CASES,
        clients::CASES,
        recovery::CASES,
        database::CASES,
        backup::CASES,
        takeover::CASES,
        crash::CASES,
        journal::CASES,
        input::CASES,
        damage::CASES,
        adoption::CASES,
        doctor::CASES,
        store_faults::CASES,
        lab::CASES,
        lab_outages::CASES,
        powercut::CASES,
        kernel::CASES,
    ]
    .into_iter()
    .flatten()
    .map(|&(name, shows, needs, run)| Case { name, shows, needs, run })
    .collect()
}

/// A case as its file lists it.
type Entry = (&'static str, &'static str, Needs, fn(&World) -> anyhow::Result<()>);

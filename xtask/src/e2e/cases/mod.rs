//! The cases: what is shown end to end, in the order in which it is.
//!
//! Each case makes volumes of its own, and leaves the store as a case after it needs it: running.

mod adoption;
mod azure;
mod backup;
mod clients;
mod clones;
mod conformance;
mod control;
mod crash;
mod damage;
mod database;
mod disk;
mod doctor;
mod incremental;
mod input;
mod journal;
mod kernel;
mod lab;
mod lab_outages;
mod libvirt;
mod postgresql_day;
mod powercut;
mod recovery;
mod removal;
mod snapshots;
mod space;
mod store_faults;
mod systemd;
mod takeover;
mod tools;

use super::case::{Case, Needs, World};

/// All cases, those first that say most when they fail.
pub(super) fn all() -> Vec<Case> {
    [
        conformance::CASES,
        tools::CASES,
        clients::CASES,
        recovery::CASES,
        database::CASES,
        postgresql_day::CASES,
        backup::CASES,
        space::CASES,
        takeover::CASES,
        removal::CASES,
        control::CASES,
        snapshots::CASES,
        incremental::CASES,
        clones::CASES,
        crash::CASES,
        journal::CASES,
        input::CASES,
        systemd::CASES,
        damage::CASES,
        adoption::CASES,
        doctor::CASES,
        azure::CASES,
        store_faults::CASES,
        lab::CASES,
        lab_outages::CASES,
        powercut::CASES,
        kernel::CASES,
        libvirt::CASES,
    ]
    .into_iter()
    .flatten()
    .map(|&(name, shows, needs, run)| Case { name, shows, needs, run })
    .collect()
}

/// The case that needs the suite to be built.
pub(super) const CONFORMANCE: &str = "conformance";

/// Whether a case of this name is among those that are asked for.
pub(super) fn chosen(names: &[String], case: &str) -> bool {
    names.is_empty() || names.iter().any(|name| case.contains(name.as_str()))
}

/// A case as its file lists it.
type Entry = (&'static str, &'static str, Needs, fn(&World) -> anyhow::Result<()>);

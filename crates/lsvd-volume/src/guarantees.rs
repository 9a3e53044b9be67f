//! What the store must promise before a volume is trusted to it, and what the user may vouch for instead.
//!
//! Knows the probe's report; makes no requests of its own.

use lsvd_backend::ProbeReport;
use lsvd_format::superblock::Superblock;
use lsvd_format::{SuperblockNumber, names};

use crate::root::newest_readable;
use crate::store::VolumeStore;
use crate::{Environment, Error, OpenOptions};

async fn probe(store: &VolumeStore, environment: &Environment) -> Result<ProbeReport, Error> {
    let nonce: String = (environment.random)().iter().map(|byte| format!("{byte:02x}")).collect();
    let report = store.bucket().probe(names::PROBE_FOLDER, &nonce).await;
    report.map_err(|error| store.store_error(error))
}

fn unsafe_store(store: &VolumeStore, details: String) -> Error {
    Error::UnsafeStore { volume: store.label(), details }
}

/// Probes the store for a new volume. Gives what it promises, for a person.
pub(crate) async fn probe_for_creation(
    store: &VolumeStore,
    environment: &Environment,
    unsafe_single_writer: bool,
) -> Result<Vec<String>, Error> {
    let report = probe(store, environment).await?;
    check_report(store, &report, unsafe_single_writer)?;
    Ok(report.details)
}

/// Before a volume is opened for writing: is its store as good as its superblock and its user say? Gives the superblock
/// that said so.
pub(crate) async fn check_guarantees(
    store: &VolumeStore,
    options: &OpenOptions,
) -> Result<(SuperblockNumber, Superblock), Error> {
    let (number, superblock) = newest_readable(store, false).await?;
    if superblock.unsafe_single_writer && !options.unsafe_single_writer {
        return Err(unsafe_store(store, "it was created with --unsafe-single-writer".to_owned()));
    }
    if options.probe {
        let report = probe(store, &options.environment).await?;
        check_report(store, &report, options.unsafe_single_writer)?;
    }
    Ok((number, superblock))
}

fn check_report(store: &VolumeStore, report: &ProbeReport, unsafe_single_writer: bool) -> Result<(), Error> {
    if !report.range_reads || !report.list_after_write {
        // No vouching helps here: recovery itself needs these.
        let details = report.details.join("; ");
        return Err(Error::Invalid(format!("'{}' can not hold a volume: {details}", store.label())));
    }
    if report.create_only && report.create_only_under_race {
        return Ok(());
    }
    let details = report.details.join("; ");
    if !unsafe_single_writer {
        return Err(unsafe_store(store, details));
    }
    tracing::warn!(volume = %store.label(), "--unsafe-single-writer: a second writer would lose data ({details})");
    Ok(())
}

//! Whether somebody seems to be writing a volume, for who would rather not take it over from a writer that lives.
//!
//! A courtesy and no lock: a writer that is idle leaves no trace, and who comes next fences it. Knows superblocks and
//! listings; takes nothing over. The store's clock alone is asked, for hosts' clocks differ.

use std::time::Duration;

use lsvd_format::{SuperblockNumber, names};

use crate::root::newest_readable;
use crate::store::VolumeStore;
use crate::{Environment, Error};

/// Stores give times in whole seconds, rounded in either direction.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// Refuses a volume that was neither closed cleanly nor left alone for `quiet_for` by the store's clock.
pub(crate) async fn refuse_if_in_use(
    store: &VolumeStore,
    quiet_for: Duration,
    environment: &Environment,
) -> Result<(), Error> {
    let (number, superblock) = newest_readable(store, false).await?;
    // The only version is of whoever made the volume: nobody has opened it yet.
    let is_first = |versions: &[SuperblockNumber]| versions == [number] && superblock.epoch.0 == number.0;
    if superblock.closed_at.is_some() || is_first(&store.superblock_numbers(None).await?) {
        return Ok(());
    }
    let store_error = |error| store.store_error(error);
    let bucket = store.bucket();
    let mut newest_unix_ms = i64::MIN;
    for folder in [names::SUPERBLOCK_FOLDER, store.log_folder()] {
        let listed = bucket.list(folder, None).await.map_err(store_error)?;
        // The log of a volume that was adopted may have others' objects beside it.
        let ours = listed.iter().filter(|listed| {
            names::parse_superblock(&listed.name).is_some() || store.is_log_name(&listed.name)
        });
        let newest = ours.map(|listed| listed.last_modified_unix_ms).max();
        newest_unix_ms = newest_unix_ms.max(newest.unwrap_or(i64::MIN));
    }
    // After the listings: what is written meanwhile makes the volume look older than it is, never younger.
    let nonce: String = (environment.random)().iter().map(|byte| format!("{byte:02x}")).collect();
    let now_unix_ms = bucket.clock_unix_ms(names::PROBE_FOLDER, &nonce).await.map_err(store_error)?;
    let age_ms = now_unix_ms.saturating_sub(newest_unix_ms);
    let written_ago = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
    if written_ago >= quiet_for.saturating_add(CLOCK_STEP) {
        return Ok(());
    }
    Err(Error::InUse { volume: store.label(), epoch: superblock.epoch, written_ago, quiet_for })
}

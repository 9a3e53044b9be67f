//! `lsvd ls`: the volumes below a prefix.
//!
//! Knows the list of docs/json.md. Invariant: a volume that can not be read is listed with its error and shows in
//! the exit code; it is never left out (rule 4). The marker of one that was removed is none.

use anyhow::Context;
use futures::StreamExt;
use lsvd_backend::{Bucket, BucketUrl};
use lsvd_volume::{Error, VolumeInfo};
use serde::Serialize;

use super::info::{self, SCHEMA_VERSION, VolumeJson};
use crate::cli::Ls;
use crate::exit::{self, Exit};
use crate::{output, store, units};

/// Volumes that are looked at together: each costs two or three requests.
const LOOKS_IN_FLIGHT_MAX: usize = 16;

#[derive(Serialize)]
struct LsJson {
    schema_version: u32,
    url: String,
    volumes: Vec<EntryJson>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum EntryJson {
    Volume(Box<VolumeJson>),
    Removing { name: String, url: String, removing: bool },
    Unreadable { name: String, url: String, error: String, exit_code: u8 },
}

/// A volume that was found, and what could be read of it.
struct Found {
    name: String,
    url: BucketUrl,
    info: anyhow::Result<VolumeInfo>,
}

impl Found {
    fn trouble(&self) -> Option<&Error> {
        self.info.as_ref().err().and_then(|error| error.downcast_ref())
    }

    /// Its removal began, and is to be finished: as somebody wants it, and no fault.
    fn is_removing(&self) -> bool {
        matches!(self.trouble(), Some(Error::Removed { .. }))
    }
}

/// Runs the command.
///
/// # Errors
/// If the prefix can not be listed. A volume that can not be read makes the exit code alone.
pub(crate) async fn run(arguments: Ls) -> anyhow::Result<Exit> {
    let (url, bucket) = store::prefix(&arguments.url, &arguments.store, arguments.patience.timeout)?;
    let names = lsvd_volume::list(&bucket).await.with_context(|| format!("cannot list '{url}'"))?;
    let found: Vec<Found> = futures::stream::iter(names)
        .map(|name| look(&url, &bucket, name))
        .buffered(LOOKS_IN_FLIGHT_MAX)
        .filter(|found| std::future::ready(!matches!(found.trouble(), Some(Error::NotFound { .. }))))
        .collect()
        .await;
    let unreadable = found.iter().filter(|found| !found.is_removing());
    let exit = unreadable.filter_map(|found| found.info.as_ref().err()).next().map_or(Exit::Done, exit::of);
    if arguments.json {
        let volumes = found.into_iter().map(entry).collect();
        output::json(&LsJson { schema_version: SCHEMA_VERSION, url: url.to_string(), volumes })?;
    } else {
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        output::table(&["volume", "size", "in the log", "objects", "epoch", "state"], &rows)?;
    }
    Ok(exit)
}

async fn look(above: &BucketUrl, bucket: &Bucket, name: String) -> Found {
    let info = lsvd_volume::inspect(&bucket.child(&name)).await.map_err(anyhow::Error::new);
    // A name that was listed and is no segment of a URL still gets its row.
    let url = above.join(&name).unwrap_or_else(|_| above.clone());
    Found { name, url, info }
}

fn entry(found: Found) -> EntryJson {
    if found.is_removing() {
        return EntryJson::Removing { name: found.name, url: found.url.to_string(), removing: true };
    }
    match found.info {
        Ok(info) => EntryJson::Volume(Box::new(VolumeJson::new(&found.name, &found.url.to_string(), &info))),
        Err(error) => EntryJson::Unreadable {
            name: found.name,
            url: found.url.to_string(),
            error: exit::words(&error),
            exit_code: exit::of(&error) as u8,
        },
    }
}

fn row(found: &Found) -> Vec<String> {
    match &found.info {
        Ok(info) => vec![
            found.name.clone(),
            units::bytes_exact(info.size_bytes),
            units::bytes_human(info.log_bytes),
            units::grouped(info.log_objects),
            info.epoch.to_string(),
            info::state(info).to_owned(),
        ],
        Err(error) => {
            let nothing = || "?".to_owned();
            let words = match found.is_removing() {
                true => "being removed: `lsvd rm` finishes it".to_owned(),
                false => format!("unreadable: {}", exit::words(error)),
            };
            vec![found.name.clone(), nothing(), nothing(), nothing(), nothing(), words]
        }
    }
}

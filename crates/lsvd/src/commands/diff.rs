//! `lsvd diff`: what changed between two moments of a volume.
//!
//! Knows the list of docs/json.md; what changed, the volume's library says. Invariant: nothing is written.

use anyhow::Context;
use lsvd_volume::{ChangedExtent, diff};
use serde::Serialize;

use super::info::SCHEMA_VERSION;
use crate::cli::Diff;
use crate::exit::{Exit, Usage};
use crate::output;
use crate::store::{self, Errand};

#[derive(Serialize)]
struct DiffJson {
    schema_version: u32,
    url: String,
    from: u64,
    from_size_bytes: u64,
    to: u64,
    to_size_bytes: u64,
    changed_bytes: u64,
    extents: Vec<ExtentJson>,
}

#[derive(Serialize)]
struct ExtentJson {
    offset_bytes: u64,
    length_bytes: u64,
    hole: bool,
    zero: bool,
}

/// Runs the command.
///
/// # Errors
/// If one of the moments can not be reached, or the store refuses.
pub(crate) async fn run(arguments: Diff) -> anyhow::Result<Exit> {
    let errand = Errand { verb: "read", create_root: false, patience: arguments.patience.timeout };
    let (place, from) = store::volume_at(&arguments.from, &arguments.store, errand)?;
    let (other, to) = store::volume_at(&arguments.to, &arguments.store, errand)?;
    if place.url != other.url {
        let what = format!(
            "'{}' and '{}' are two volumes, which share no log: name two moments of one",
            place.url, other.url
        );
        return Err(Usage(what).into());
    }
    let Some(from) = from else {
        let what = "the first one is a moment to compare with: name it behind an '@', as in URL@SNAPSHOT";
        return Err(Usage(what.to_owned()).into());
    };
    let mut extents: Vec<ChangedExtent> = Vec::new();
    let told = diff(&place.bucket, &from, to.as_ref(), |extent| extents.push(extent))
        .await
        .with_context(|| format!("cannot compare '{}' with '{}'", place.name, other.name))?;
    if arguments.json {
        let extents = extents.iter().map(|extent| ExtentJson {
            offset_bytes: extent.offset_bytes,
            length_bytes: extent.length_bytes,
            hole: extent.hole,
            zero: extent.zero,
        });
        output::json(&DiffJson {
            schema_version: SCHEMA_VERSION,
            url: place.url.to_string(),
            from: told.from.0,
            from_size_bytes: told.from_size_bytes,
            to: told.to.0,
            to_size_bytes: told.to_size_bytes,
            changed_bytes: told.changed_bytes,
            extents: extents.collect(),
        })?;
        return Ok(Exit::Done);
    }
    let now = |extent: &ChangedExtent| match (extent.hole, extent.zero) {
        (true, _) => "hole",
        (false, true) => "zeroes",
        (false, false) => "data",
    };
    let row = |extent: &ChangedExtent| {
        vec![extent.offset_bytes.to_string(), extent.length_bytes.to_string(), now(extent).to_owned()]
    };
    output::table(&["offset", "length", "now"], &extents.iter().map(row).collect::<Vec<_>>())?;
    Ok(Exit::Done)
}

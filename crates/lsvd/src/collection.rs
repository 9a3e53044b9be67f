//! Collecting an open volume, and what is said of it in JSON: the same for `lsvd gc`, which opens the volume, and for a
//! daemon, which has it open.
//!
//! What is garbage, the volume's library decides. Knows the fields of docs/json.md.

use std::time::Duration;

use anyhow::Context;
use lsvd_volume::{CollectionGoal, CollectionStep, Error, Garbage, GivenBack, ObjectFormat, Volume};
use serde::{Deserialize, Serialize};

use crate::units;

/// How much garbage is too much, where nobody says: bytes of the log for each live one.
pub(crate) const USUAL_TARGET: f64 = 1.3;

/// What was or would be given back.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CollectionJson {
    pub(crate) dry_run: bool,
    pub(crate) victims: u64,
    pub(crate) victim_bytes: u64,
    pub(crate) moved_bytes: u64,
    pub(crate) deleted_objects: u64,
    pub(crate) deleted_bytes: u64,
    pub(crate) log_bytes_before: u64,
    pub(crate) log_bytes_after: u64,
    pub(crate) live_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) format_1_blocks_left: Option<u64>,
}

/// Whether a number can be how many bytes the log may have for each live one.
///
/// # Errors
/// Says what can.
pub(crate) fn check_target(ratio: f64) -> Result<f64, String> {
    match (1.05..=100.0).contains(&ratio) {
        true => Ok(ratio),
        false => {
            Err("a ratio is 1.05 to 100: headers and checksums alone take 1.01 for each live byte".into())
        }
    }
}

/// What would come back.
///
/// # Errors
/// If the log goes on in format 1.
pub(crate) fn planned(volume: &Volume, name: &str, goal: CollectionGoal) -> anyhow::Result<CollectionJson> {
    refuse_format_1(volume.description().append_format, name)?;
    let (found, stats) = (volume.garbage(goal), volume.stats());
    let Garbage { dead_objects, dead_bytes, victims, victim_bytes, move_bytes } = found;
    Ok(CollectionJson {
        dry_run: true,
        victims,
        victim_bytes,
        moved_bytes: move_bytes,
        deleted_objects: dead_objects + victims,
        deleted_bytes: dead_bytes + victim_bytes,
        log_bytes_before: stats.log_bytes,
        log_bytes_after: stats.log_bytes.saturating_sub(found.frees_bytes()),
        live_bytes: stats.live_bytes,
        format_1_blocks_left: None,
    })
}

/// Collects to the end; `tell` hears how far it is.
///
/// # Errors
/// The volume's. What was given back until then stays so.
pub(crate) async fn collected(
    volume: &Volume,
    name: &str,
    goal: CollectionGoal,
    tell: &(dyn Fn(CollectionStep) + Send + Sync),
) -> anyhow::Result<CollectionJson> {
    refuse_format_1(volume.description().append_format, name)?;
    let before = volume.stats();
    let given_back = volume.collect_garbage_telling(goal, tell).await;
    let given_back = given_back.with_context(|| format!("cannot collect volume '{name}' to the end"))?;
    let after = volume.stats();
    let GivenBack { collected, deleted_objects, deleted_bytes, format_1_blocks_left } = given_back;
    Ok(CollectionJson {
        dry_run: false,
        victims: collected.objects,
        victim_bytes: collected.object_bytes,
        moved_bytes: collected.moved_bytes,
        deleted_objects,
        deleted_bytes,
        log_bytes_before: before.log_bytes,
        log_bytes_after: after.log_bytes,
        live_bytes: after.live_bytes,
        format_1_blocks_left: (goal == CollectionGoal::Format2).then_some(format_1_blocks_left),
    })
}

/// A log that goes on in format 1 has no checkpoints, and so nothing of it is ever deleted.
///
/// # Errors
/// If `appends` is format 1.
pub(crate) fn refuse_format_1(appends: ObjectFormat, name: &str) -> anyhow::Result<()> {
    if appends == ObjectFormat::V2 {
        return Ok(());
    }
    let what = format!(
        "volume '{name}' writes its log in format 1, for good, and nothing of such a log is collected; to leave that format, \
         create another volume and copy this one into it, both served"
    );
    Err(Error::Invalid(what).into())
}

/// How far a collection is, for people.
pub(crate) fn step_in_words(step: CollectionStep) -> String {
    match step {
        CollectionStep::Collected(all) => format!(
            "{} objects collected, {} moved",
            units::grouped(all.objects),
            units::bytes_human(all.moved_bytes)
        ),
        CollectionStep::Waiting { delete_after } => {
            format!("dead objects are deleted in {}: readers may be behind", seconds(delete_after))
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f32())
}

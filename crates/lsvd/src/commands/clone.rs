//! `lsvd clone` and `lsvd flatten`: a writable volume that begins as another one was, and cutting its tie.
//!
//! Knows the order: the parent keeps the moment, by its daemon or here, and then the clone is made; a clone is flattened, by its
//! daemon or here, and then the parent gives up what it kept. Why in this order, the volume's library knows.

use anyhow::Context;
use lsvd_volume::{Environment, Error, Moment, Volume, VolumeId, create_clone};
use serde::Serialize;

use super::info::SCHEMA_VERSION;
use crate::cli::{CloneOf, Flatten};
use crate::clones::{self, Reach};
use crate::control::ask;
use crate::control::protocol;
use crate::exit::{Exit, Usage};
use crate::store::{self, Errand, Place};
use crate::{output, units};

#[derive(Serialize)]
struct CloneJson {
    schema_version: u32,
    name: String,
    url: String,
    volume_id: String,
    size_bytes: u64,
    as_of: u64,
    parent_url: String,
    parent_volume_id: String,
    through: &'static str,
}

#[derive(Serialize)]
struct FlattenJson {
    schema_version: u32,
    name: String,
    url: String,
    moved_bytes: u64,
    parent_url: Option<String>,
    released: bool,
    through: &'static str,
}

/// Runs `lsvd clone`.
///
/// # Errors
/// If the moment can not be reached, there is a volume at the new place, or the two are not in one store; if the parent is in use by a
/// daemon that can not be asked.
pub(crate) async fn run(arguments: CloneOf) -> anyhow::Result<Exit> {
    let CloneOf { url, new_url, common } = arguments;
    let patience = common.patience.timeout;
    let errand = Errand { verb: "clone", create_root: false, patience };
    let (mut parent, moment) = store::volume_at(&url, &common.store, errand)?;
    parent.name = parent.url.volume_or_bucket_name().map_err(|error| Usage(error.to_string()))?.to_owned();
    // First, so that what can not be makes no directory.
    let (there, back) = store::ways(&parent, &new_url)?;
    let place =
        store::volume(&new_url, &common.store, Errand { verb: "create", create_root: true, patience })?;
    refuse_existing(&place).await?;
    let reach = Reach::from(&common);
    let environment = Environment::default();
    let id = VolumeId((environment.random)());
    let (pin, through) = pin(&parent, moment.as_ref(), (id, &there), reach).await?;
    let made = create_clone(&place.bucket, &back, id, &environment).await;
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            // Where nothing can have been made, nothing is kept for it.
            if matches!(error, Error::Exists { .. } | Error::Invalid(_)) {
                if let Err(left) = reach.remove_snapshot(&parent, &pin, true).await {
                    tracing::warn!("snapshot '{pin}' of volume '{}' stays: {left:#}", parent.name);
                }
            } else {
                let url = &parent.url;
                tracing::warn!(
                    "if the clone was not made, snapshot '{pin}' stays: `lsvd snapshot rm --force {url} {pin}`"
                );
            }
            return Err(error).with_context(|| format!("cannot make the clone '{}'", place.name));
        }
    };
    if common.json {
        output::json(&CloneJson {
            schema_version: SCHEMA_VERSION,
            name: place.name,
            url: place.url.to_string(),
            volume_id: made.volume_id.to_string(),
            size_bytes: made.size_bytes,
            as_of: made.as_of.0,
            parent_url: parent.url.to_string(),
            parent_volume_id: made.parent.to_string(),
            through,
        })?;
        return Ok(Exit::Done);
    }
    let rows = [
        ("url", place.url.to_string()),
        ("identity", made.volume_id.to_string()),
        ("size", units::bytes_exact(made.size_bytes)),
        ("clone of", parent.url.to_string()),
        ("as of", format!("number {}", made.as_of)),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(head, words)| vec![head.to_owned(), words]).collect();
    output::table(&["clone", &place.name], &rows)?;
    Ok(Exit::Done)
}

/// Says that there is a volume before anything is kept for a clone.
async fn refuse_existing(place: &Place) -> anyhow::Result<()> {
    match lsvd_volume::identify(&place.bucket).await {
        Err(Error::NotFound { .. }) => Ok(()),
        Ok(_) => {
            let error = Error::Exists { volume: place.bucket.label().into() };
            Err(error).with_context(|| format!("cannot make the clone '{}'", place.name))
        }
        Err(error) => Err(error).with_context(|| format!("cannot make the clone '{}'", place.name)),
    }
}

/// Has the parent keep the moment. Gives the snapshot's name, and who made it.
async fn pin(
    parent: &Place,
    moment: Option<&Moment>,
    (id, path): (VolumeId, &str),
    reach: Reach<'_>,
) -> anyhow::Result<(String, &'static str)> {
    let asked = ask::writer(parent, reach.control, |volume| protocol::ClonePin {
        volume,
        clone_id: id.to_string(),
        path: path.to_owned(),
        moment: moment.map(typed),
    });
    if let Some(pinned) = asked.await? {
        return Ok((pinned.name, "daemon"));
    }
    let keep = async |volume: &Volume| volume.pin_for_clone(moment, id, path).await;
    Ok((reach.take_over(parent, keep).await?.name, "store"))
}

/// A moment as it is read.
fn typed(moment: &Moment) -> String {
    match moment {
        Moment::Snapshot(name) => name.clone(),
        Moment::Number(number) => number.to_string(),
        Moment::Time(unix_ms) => lsvd_volume::utc(*unix_ms),
    }
}

/// Runs `lsvd flatten`.
///
/// # Errors
/// If something of the clone needs the parent still, or the volume is in use by a daemon that can not be asked. What was copied
/// stays so, and another call goes on.
pub(crate) async fn flatten(arguments: Flatten) -> anyhow::Result<Exit> {
    let Flatten { url, common } = arguments;
    let reach = Reach::from(&common);
    let errand = Errand { verb: "flatten", create_root: false, patience: reach.patience };
    let place = store::volume_or_bucket(&url, &common.store, errand)?;
    // Who it is a clone of, it says no more when it is done.
    let info = lsvd_volume::inspect(&place.bucket).await;
    let info = info.with_context(|| format!("cannot read volume '{}'", place.name))?;
    let (flattened, through) =
        match ask::writer(&place, &common.control, |volume| protocol::Flatten { volume }).await? {
            Some(flattened) => (flattened, "daemon"),
            None => {
                let tell = |words: String| tracing::info!(volume = place.name, "{words}");
                let act = async |volume: &Volume| clones::flatten(volume, &tell).await;
                (reach.take_over(&place, act).await?, "store")
            }
        };
    let (mut parent_url, mut released) = (None, false);
    if let Some(path) = &flattened.parent {
        match reach.release(&place, path, info.volume_id).await {
            Ok((parent, _)) => (parent_url, released) = (Some(parent.url.to_string()), true),
            Err(error) => {
                let name = format!("clone-{}", info.volume_id);
                tracing::warn!(
                    "the volume is its own now, but what its parent at '{path}' keeps for it stays until `lsvd snapshot rm` \
                     removes '{name}' there: {error:#}"
                );
            }
        }
    }
    let moved_bytes = flattened.moved_bytes;
    if common.json {
        let (name, url) = (place.name, place.url.to_string());
        output::json(&FlattenJson {
            schema_version: SCHEMA_VERSION,
            name,
            url,
            moved_bytes,
            parent_url,
            released,
            through,
        })?;
        return Ok(Exit::Done);
    }
    let of = match (&flattened.parent, parent_url) {
        (None, _) => "nothing was shared".to_owned(),
        (Some(_), Some(url)) => format!("{url}, which keeps nothing for it any more"),
        (Some(path), None) => format!("'{path}' from there, which keeps a snapshot still"),
    };
    let rows = [("copied", units::bytes_human(moved_bytes)), ("was a clone of", of)];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(head, words)| vec![head.to_owned(), words]).collect();
    output::table(&["flattened", &place.name], &rows)?;
    Ok(Exit::Done)
}

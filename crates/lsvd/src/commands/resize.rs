//! `lsvd resize`: another size for a volume.
//!
//! Knows the order: the daemon of this host that serves the volume is asked; where there is none, take over with courtesy, resize,
//! close; and how it is told. What may be cut off, and in which order, the volume's library decides. [`of_open`] is all that a
//! daemon needs that has the volume open.

use anyhow::Context;
use lsvd_volume::{Error, OpenOptions, Resized, ShrinkPolicy, Volume};
use serde::Serialize;

use super::info::SCHEMA_VERSION;
use crate::cli::Resize;
use crate::control::protocol::{self, ResizeAnswer};
use crate::control::{ask, place};
use crate::exit::Exit;
use crate::store::{self, Errand, Place};
use crate::{output, units};

/// What the volume had and has.
#[derive(Serialize)]
struct ResizeJson {
    schema_version: u32,
    name: String,
    url: String,
    #[serde(flatten)]
    sizes: ResizeAnswer,
    through: &'static str,
}

/// Runs `lsvd resize`.
///
/// # Errors
/// If the volume seems to be in use by a daemon that can not be asked, if it would cut off data, or the store refuses.
pub(crate) async fn run(arguments: Resize) -> anyhow::Result<Exit> {
    let errand = Errand { verb: "resize", create_root: false, patience: arguments.patience.timeout };
    let place = store::volume_or_bucket(&arguments.url, &arguments.store, errand)?;
    let (size_bytes, discard) = (arguments.size, arguments.discard);
    let resize = |volume| protocol::Resize { volume, size_bytes, discard };
    let (sizes, through) = match ask::writer(&place, &arguments.control, resize).await? {
        Some(sizes) => (sizes, "daemon"),
        None => (take_over(&place, &arguments).await?, "store"),
    };
    let (name, url) = (place.name, place.url.to_string());
    tell(&ResizeJson { schema_version: SCHEMA_VERSION, name, url, sizes, through }, arguments.json)
}

async fn take_over(place: &Place, arguments: &Resize) -> anyhow::Result<ResizeAnswer> {
    let options = OpenOptions {
        io_timeout: arguments.patience.timeout,
        if_free: Some(arguments.if_free),
        unsafe_single_writer: arguments.unsafe_single_writer,
        handover: place::handover_that_is_there(None),
        ..OpenOptions::default()
    };
    let volume = Volume::open(place.bucket.clone(), options).await.map_err(|error| {
        let in_use = matches!(error, Error::InUse { .. });
        anyhow::Error::new(error).context(match in_use {
            true => {
                format!("volume '{}' seems to be served by a daemon that can not be asked here", place.name)
            }
            false => format!("cannot open volume '{}'", place.name),
        })
    })?;
    let resized = of_open(&volume, &place.name, arguments.size, arguments.discard).await;
    let closed = volume.close().await;
    let resized = resized?;
    closed.with_context(|| format!("cannot close volume '{}' cleanly", place.name))?;
    Ok(resized)
}

/// Resizes a volume that is open, while its clients go on.
///
/// # Errors
/// As of [`Volume::resize`].
pub(crate) async fn of_open(
    volume: &Volume,
    name: &str,
    size_bytes: u64,
    discard: bool,
) -> anyhow::Result<ResizeAnswer> {
    let policy = if discard { ShrinkPolicy::Discard } else { ShrinkPolicy::Refuse };
    let resized = volume.resize(size_bytes, policy).await;
    let Resized { before_bytes, size_bytes } =
        resized.with_context(|| format!("cannot resize volume '{name}'"))?;
    Ok(ResizeAnswer { size_bytes_before: before_bytes, size_bytes })
}

fn tell(told: &ResizeJson, json: bool) -> anyhow::Result<Exit> {
    if json {
        output::json(told)?;
        return Ok(Exit::Done);
    }
    let size = |bytes| format!("{} ({} bytes)", units::bytes_exact(bytes), units::grouped(bytes));
    let rows = [("size before", size(told.sizes.size_bytes_before)), ("size", size(told.sizes.size_bytes))];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(head, words)| vec![head.to_owned(), words]).collect();
    output::table(&["volume", &told.name], &rows)?;
    Ok(Exit::Done)
}

//! `lsvd rm`: deletes a whole volume.
//!
//! Knows what to say and what to ask before; the order of deleting, the volume's library knows. Invariant: nothing is
//! changed before somebody has typed the volume's name, or `--yes`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use lsvd_volume::{Error, Parent, Plan, Progress, RemoveOptions, Removed, VolumeId};
use serde::Serialize;

use super::info::SCHEMA_VERSION;
use crate::cli::Rm;
use crate::clones::Reach;
use crate::exit::{Exit, Usage};
use crate::store::{self, Errand, Place};
use crate::{output, units};

/// How often it is said how far it is.
const PARENT_IF_FREE: Duration = Duration::from_secs(60);
const SAY_EVERY: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct RmJson {
    schema_version: u32,
    name: String,
    url: String,
    volume_id: Option<String>,
    size_bytes: Option<u64>,
    deleted_objects: u64,
    deleted_bytes: u64,
    archived_objects: u64,
    archived_bytes: u64,
    other_objects: u64,
    marker: bool,
}

/// Runs the command.
///
/// # Errors
/// If the volume seems to be in use, is needed by something, or is damaged and `--damaged` was not given; if nobody says
/// yes; if the store refuses. What was deleted until then stays deleted, and another call goes on.
pub(crate) async fn run(arguments: Rm) -> anyhow::Result<Exit> {
    let errand = Errand { verb: "remove", create_root: false, patience: arguments.patience.timeout };
    let place = store::volume_or_bucket(&arguments.url, &arguments.store, errand)?;
    if !arguments.yes && !is_asked() {
        let what =
            format!("nobody is here to say yes: `lsvd rm {} --yes` removes it without asking", place.url);
        return Err(Usage(what).into());
    }
    let options = RemoveOptions {
        if_free: (!arguments.if_free.is_zero()).then_some(arguments.if_free),
        damaged: arguments.damaged,
        archive: arguments.archive,
        leave_marker: !arguments.no_marker,
        ..RemoveOptions::default()
    };
    let failed = |error: Error| failed(error, &place);
    let plan = lsvd_volume::plan_removal(&place.bucket, &options).await.map_err(failed)?;
    say(&before(&plan, &place, &arguments));
    if !arguments.yes && !agreed(&place)? {
        say("nothing was changed");
        return Ok(Exit::Other);
    }
    let mut said = Instant::now();
    let progress = |progress: Progress| {
        if progress.objects_left > 0 && said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            let (deleted, left) = (progress.deleted_objects, progress.objects_left);
            say(&format!("{} objects deleted, {} left", units::grouped(deleted), units::grouped(left)));
        }
    };
    let reach = Reach {
        control: &arguments.control,
        // What was said of the clone is not said of its parent, which others use.
        if_free: Some(PARENT_IF_FREE),
        unsafe_single_writer: false,
        patience: arguments.patience.timeout,
        store: &arguments.store,
    };
    let release = async |parent: &Parent, id: VolumeId| match reach.release(&place, &parent.path, id).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Stopped::Parent(error)),
    };
    let removed = lsvd_volume::remove_clone(&place.bucket, &options, progress, release).await;
    let removed = removed.map_err(|stopped| match stopped {
        Stopped::Volume(error) => failed(error),
        Stopped::Parent(error) => error.context(format!(
            "all of volume '{}' is deleted but that it is being removed, as its parent could not be told: run `lsvd rm` again",
            place.name
        )),
    })?;
    if arguments.json {
        output::json(&json(&plan, &place, &removed))?;
    } else {
        output::line(&after(&place, &removed))?;
    }
    Ok(Exit::Done)
}

/// Where a removal stopped.
enum Stopped {
    Volume(Error),
    Parent(anyhow::Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Volume(error)
    }
}

/// What is said before anything is done.
fn before(plan: &Plan, place: &Place, arguments: &Rm) -> String {
    let mut lines = vec![match plan.goes_on {
        false => format!("volume '{}' at {}", place.name, place.url),
        true => format!("volume '{}' at {}, whose removal began before", place.name, place.url),
    }];
    if plan.damaged {
        lines.push(
            "  damaged   what its newest superblock said is not known, nor whether anything needs it".into(),
        );
    }
    if let Some(size_bytes) = plan.size_bytes.filter(|_| !plan.goes_on) {
        lines.push(format!("  size      {}", units::bytes_exact(size_bytes)));
    }
    let (bytes, objects) = (units::bytes_human(plan.bytes), units::grouped(plan.objects));
    lines.push(format!("  deletes   {bytes} in {objects} objects"));
    if let Some(stored_unix_ms) = plan.stored_unix_ms {
        lines.push(format!("  last      stored {}", units::utc(u64::try_from(stored_unix_ms).unwrap_or(0))));
    }
    if !plan.closed_cleanly && !plan.goes_on {
        lines.push(
            "  careful   it was not closed: a daemon that still serves it, idle, loses it; stop it first"
                .into(),
        );
    }
    if let Some(parent) = &plan.parent {
        lines.push(format!("  clone of  {} (from there), which keeps nothing for it then", parent.path));
    }
    if let Some(journal) = plan.journal {
        lines.push(format!("  journal   {journal}: its directory stays on its host, and is of no use then"));
    }
    if plan.archived_objects > 0 && !arguments.archive {
        let (bytes, objects) =
            (units::bytes_human(plan.archived_bytes), units::grouped(plan.archived_objects));
        lines.push(format!("  archive   stays: {bytes} in {objects} objects; --archive deletes it, too"));
    }
    if plan.other_objects > 0 {
        let objects = units::grouped(plan.other_objects);
        lines.push(format!("  others    {objects} objects that no volume has names for stay"));
    }
    lines.join("\n")
}

fn after(place: &Place, removed: &Removed) -> String {
    let (bytes, objects) =
        (units::bytes_human(removed.deleted_bytes), units::grouped(removed.deleted_objects));
    let mut text = format!("removed volume '{}': {bytes} in {objects} objects", place.name);
    if removed.archived_objects > 0 {
        let (bytes, objects) =
            (units::bytes_human(removed.archived_bytes), units::grouped(removed.archived_objects));
        text += &format!("\nits archive stays: {bytes} in {objects} objects");
    }
    if removed.marker {
        text += "\na marker of less than 2 KiB stays, so that nothing that knew it can harm another volume in its place; \
                 --no-marker deletes that, too";
    }
    text
}

fn json(plan: &Plan, place: &Place, removed: &Removed) -> RmJson {
    RmJson {
        schema_version: SCHEMA_VERSION,
        name: place.name.clone(),
        url: place.url.to_string(),
        volume_id: plan.volume_id.map(|id| id.to_string()),
        size_bytes: plan.size_bytes,
        deleted_objects: removed.deleted_objects,
        deleted_bytes: removed.deleted_bytes,
        archived_objects: removed.archived_objects,
        archived_bytes: removed.archived_bytes,
        other_objects: removed.other_objects,
        marker: removed.marker,
    }
}

fn failed(error: Error, place: &Place) -> anyhow::Error {
    let name = &place.name;
    let context = match &error {
        Error::Corrupt { .. } | Error::Missing { .. } => {
            format!("volume '{name}' is damaged, and nothing of it was deleted; --damaged deletes it unread")
        }
        Error::InUse { .. } => {
            format!(
                "volume '{name}' seems to be served: stop its daemon, or take it from that with --if-free off"
            )
        }
        Error::Fenced { .. } => {
            format!("volume '{name}' was taken over while it was being removed, by another rm or a daemon")
        }
        _ => format!("cannot remove volume '{name}'"),
    };
    anyhow::Error::new(error).context(context)
}

/// Whether somebody can be asked.
fn is_asked() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn agreed(place: &Place) -> anyhow::Result<bool> {
    let mut err = io::stderr().lock();
    write!(err, "type the volume's name to delete it for ever: ").context("cannot ask")?;
    err.flush().context("cannot ask")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.trim() == place.name)
}

/// Says it on stderr: stdout is for what was done.
fn say(text: &str) {
    // Nothing is left to be done about a stderr that can not be written.
    let _ = writeln!(io::stderr(), "{text}");
}

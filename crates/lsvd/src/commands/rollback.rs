//! `lsvd rollback`: takes a volume back to a moment, and says what was left and how to come back.
//!
//! Knows the order: say what would be, ask, have it done by the daemon of this host that serves the volume, or do it where there is
//! none. What a moment is and how it is done, the volume's library knows. Invariant:
//! without a `yes` nothing is written.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::Context;
use lsvd_volume::{Error, Moment, OpenOptions, plan_rollback};
use serde::Serialize;

use super::info::SCHEMA_VERSION;
use crate::cli::Rollback;
use crate::control::ask;
use crate::control::protocol::{self, RollbackAnswer};
use crate::exit::{Exit, Usage};
use crate::store::{self, Errand, Place};
use crate::{output, units};

/// What would be, or was done.
#[derive(Serialize)]
struct RollbackJson {
    schema_version: u32,
    name: String,
    url: String,
    dry_run: bool,
    #[serde(flatten)]
    back: RollbackAnswer,
    through: Option<&'static str>,
}

/// Runs the command.
///
/// # Errors
/// If the moment can not be reached, the volume has clients or seems to be in use, or the store refuses.
pub(crate) async fn run(arguments: Rollback) -> anyhow::Result<Exit> {
    let errand = Errand { verb: "roll back", create_root: false, patience: arguments.patience.timeout };
    let moment = store::moment(&arguments.to)?;
    let place = store::volume_or_bucket(&arguments.url, &arguments.store, errand)?;
    let cannot = || format!("cannot roll back volume '{}'", place.name);
    let told = |back, through: Option<&'static str>| RollbackJson {
        schema_version: SCHEMA_VERSION,
        name: place.name.clone(),
        url: place.url.to_string(),
        dry_run: through.is_none(),
        back,
        through,
    };
    let asked = |volume, dry_run| protocol::Rollback {
        volume,
        to: arguments.to.clone(),
        dry_run,
        disconnect: arguments.disconnect,
    };
    if arguments.dry_run || !arguments.yes && !arguments.json {
        let plan = match ask::writer(&place, &arguments.control, |volume| asked(volume, true)).await? {
            Some(plan) => plan,
            None => (&plan_rollback(&place.bucket, &moment).await.with_context(cannot)?).into(),
        };
        tell(&told(plan, None), arguments.json)?;
    }
    if arguments.dry_run {
        return Ok(Exit::Done);
    }
    if !arguments.yes && !agreed(arguments.json)? {
        return Ok(Exit::Other);
    }
    let done = match ask::writer(&place, &arguments.control, |volume| asked(volume, false)).await? {
        Some(done) => told(done, Some("daemon")),
        None => told(take_over(&place, &moment, &arguments).await?, Some("store")),
    };
    tell(&done, arguments.json)?;
    Ok(Exit::Done)
}

async fn take_over(place: &Place, moment: &Moment, arguments: &Rollback) -> anyhow::Result<RollbackAnswer> {
    let options = OpenOptions {
        io_timeout: arguments.patience.timeout,
        if_free: Some(arguments.if_free),
        unsafe_single_writer: arguments.unsafe_single_writer,
        ..OpenOptions::default()
    };
    let done = lsvd_volume::rollback(&place.bucket, moment, options).await.map_err(|error| {
        let in_use = matches!(error, Error::InUse { .. });
        anyhow::Error::new(error).context(match in_use {
            true => {
                format!("volume '{}' seems to be served by a daemon that can not be asked here", place.name)
            }
            false => format!("cannot roll back volume '{}'", place.name),
        })
    })?;
    Ok((&done).into())
}

/// Asks whether it is to be done.
fn agreed(json: bool) -> anyhow::Result<bool> {
    if json || !io::stdin().is_terminal() {
        return Err(Usage(
            "nobody can be asked here: say --yes, or --dry-run to see what would be left".to_owned(),
        )
        .into());
    }
    write!(io::stderr(), "roll back? Nothing is deleted, and there is a way back. [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn tell(told: &RollbackJson, json: bool) -> anyhow::Result<()> {
    if json {
        output::json(told)?;
        return Ok(());
    }
    let stored = told.back.stored_unix_ms.map_or_else(|| "nothing yet".to_owned(), units::utc);
    let left = format!(
        "{} in {} objects",
        units::bytes_human(told.back.left_bytes),
        units::grouped(told.back.left_objects)
    );
    let (to, leaves) = match told.dry_run {
        true => ("would be as of", "would leave"),
        false => ("is as of", "left"),
    };
    let mut rows = vec![
        (to, format!("number {}, last stored {stored}", told.back.to)),
        ("before", format!("number {}", told.back.from)),
        (leaves, left),
        ("size", units::bytes_exact(told.back.size_bytes)),
    ];
    if told.back.size_bytes != told.back.size_bytes_before {
        rows.push(("size before", units::bytes_exact(told.back.size_bytes_before)));
    }
    if let Some(undo) = &told.back.undo {
        rows.push(("way back", format!("lsvd rollback {} --to {undo}", told.url)));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(head, words)| vec![head.to_owned(), words]).collect();
    output::table(&["volume", &told.name], &rows)?;
    Ok(())
}

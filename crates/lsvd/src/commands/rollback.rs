//! `lsvd rollback`: takes a volume back to a moment, and says what was left and how to come back.
//!
//! Knows the order: say what would be, ask, do. What a moment is and how it is done, the volume's library knows. Invariant:
//! without a `yes` nothing is written.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::Context;
use lsvd_volume::{Error, OpenOptions, RollbackPlan, RolledBack, plan_rollback};
use serde::Serialize;

use super::info::SCHEMA_VERSION;
use crate::cli::Rollback;
use crate::exit::{Exit, Usage};
use crate::store::{self, Errand};
use crate::{output, units};

#[derive(Serialize)]
struct RollbackJson {
    schema_version: u32,
    name: String,
    url: String,
    dry_run: bool,
    to: u64,
    stored_unix_ms: Option<u64>,
    size_bytes: u64,
    size_bytes_before: u64,
    from: u64,
    left_objects: u64,
    left_bytes: u64,
    next: Option<u64>,
    undo: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// If the moment can not be reached, the volume seems to be in use, or the store refuses.
pub(crate) async fn run(arguments: Rollback) -> anyhow::Result<Exit> {
    let errand = Errand { verb: "roll back", create_root: false, patience: arguments.patience.timeout };
    let moment = store::moment(&arguments.to)?;
    let place = store::volume_or_bucket(&arguments.url, &arguments.store, errand)?;
    let cannot = || format!("cannot roll back volume '{}'", place.name);
    let mut told =
        RollbackJson::of(&place, &plan_rollback(&place.bucket, &moment).await.with_context(cannot)?);
    if arguments.dry_run || !arguments.yes && !arguments.json {
        tell(&told, arguments.json)?;
    }
    if arguments.dry_run {
        return Ok(Exit::Done);
    }
    if !arguments.yes && !agreed(arguments.json)? {
        return Ok(Exit::Other);
    }
    let options = OpenOptions {
        io_timeout: arguments.patience.timeout,
        if_free: Some(arguments.if_free),
        unsafe_single_writer: arguments.unsafe_single_writer,
        ..OpenOptions::default()
    };
    let done = lsvd_volume::rollback(&place.bucket, &moment, options).await.map_err(|error| {
        let in_use = matches!(error, Error::InUse { .. });
        anyhow::Error::new(error).context(match in_use {
            true => format!("volume '{}' seems to be served, and a daemon would be fenced", place.name),
            false => cannot(),
        })
    })?;
    let RolledBack { plan, next, undo } = done;
    told = RollbackJson {
        dry_run: false,
        next: Some(next.0),
        undo: Some(undo),
        ..RollbackJson::of(&place, &plan)
    };
    tell(&told, arguments.json)?;
    Ok(Exit::Done)
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

impl RollbackJson {
    fn of(place: &store::Place, plan: &RollbackPlan) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            name: place.name.clone(),
            url: place.url.to_string(),
            dry_run: true,
            to: plan.to.0,
            stored_unix_ms: plan.sealed_unix_ms,
            size_bytes: plan.size_bytes,
            size_bytes_before: plan.size_bytes_before,
            from: plan.from.0,
            left_objects: plan.left_objects,
            left_bytes: plan.left_bytes,
            next: None,
            undo: None,
        }
    }
}

fn tell(told: &RollbackJson, json: bool) -> anyhow::Result<()> {
    if json {
        output::json(told)?;
        return Ok(());
    }
    let stored = told.stored_unix_ms.map_or_else(|| "nothing yet".to_owned(), units::utc);
    let left =
        format!("{} in {} objects", units::bytes_human(told.left_bytes), units::grouped(told.left_objects));
    let (to, leaves) = match told.dry_run {
        true => ("would be as of", "would leave"),
        false => ("is as of", "left"),
    };
    let mut rows = vec![
        (to, format!("number {}, last stored {stored}", told.to)),
        ("before", format!("number {}", told.from)),
        (leaves, left),
        ("size", units::bytes_exact(told.size_bytes)),
    ];
    if told.size_bytes != told.size_bytes_before {
        rows.push(("size before", units::bytes_exact(told.size_bytes_before)));
    }
    if let Some(undo) = &told.undo {
        rows.push(("way back", format!("lsvd rollback {} --to {undo}", told.url)));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(head, words)| vec![head.to_owned(), words]).collect();
    output::table(&["volume", &told.name], &rows)?;
    Ok(())
}

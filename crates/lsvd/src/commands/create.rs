//! `lsvd create`: makes a volume and says what was made.
//!
//! Knows no defaults but those of the command line; the volume's library decides what can be made.

use std::fmt::Write as _;

use anyhow::Context;
use lsvd_backend::{Scheme, iam_policy};
use lsvd_volume::{CreateOptions, Created};

use crate::cli::{self, Create, ObjectFormat};
use crate::exit::Exit;
use crate::store::{self, Errand, Place};
use crate::{output, units};

/// Runs the command.
///
/// # Errors
/// If there is a volume already, or the store refuses or does not hold create-only PUT.
pub(crate) async fn run(arguments: Create) -> anyhow::Result<Exit> {
    let errand = Errand { verb: "create", create_root: true, patience: arguments.patience.timeout };
    // A reader of format 1 may look for its log in a bucket's root only.
    let place = match arguments.log_format {
        ObjectFormat::V1 => store::volume_or_bucket(&arguments.url, &arguments.store, errand)?,
        ObjectFormat::V2 => store::volume(&arguments.url, &arguments.store, errand)?,
    };
    let options = CreateOptions {
        window: arguments.window,
        unsafe_single_writer: arguments.unsafe_single_writer,
        log_format: arguments.log_format.into(),
        ..CreateOptions::new(arguments.size)
    };
    let created = lsvd_volume::create(&place.bucket, &options)
        .await
        .with_context(|| format!("cannot create volume '{}'", place.name))?;
    output::line(report(&arguments, &place, &created).trim_end())?;
    Ok(Exit::Done)
}

fn report(arguments: &Create, place: &Place, created: &Created) -> String {
    let mut text = String::new();
    let mut add = |line: &str| writeln!(text, "{line}").expect("a String takes everything");
    add(&format!("created volume '{}' at {}", place.name, place.url));
    add(&format!("  identity  {}", created.volume_id));
    add(&format!(
        "  size      {} ({} bytes); only what is written takes room in the bucket",
        units::bytes_exact(arguments.size),
        units::grouped(arguments.size)
    ));
    add(&format!("  window    {} log objects", arguments.window));
    if arguments.log_format == ObjectFormat::V1 {
        add("  log       in format 1: no checksums, no trim, no journal");
    }
    text += &promises(place, &created.guarantees, arguments.unsafe_single_writer);
    let mut add = |line: &str| writeln!(text, "{line}").expect("a String takes everything");
    add("");
    if place.url.scheme() == Scheme::Memory {
        add("it is gone now: what is in memory ends with its process. Create and serve in one:");
        let size = units::bytes_exact(arguments.size);
        add(&format!("  lsvd serve {} --create {size}", place.url));
    } else {
        text += &next(place, &arguments.store, arguments.unsafe_single_writer);
    }
    text
}

/// What a new volume's store promises and asks for, said under its description.
pub(crate) fn promises(place: &Place, guarantees: &[String], unsafe_single_writer: bool) -> String {
    let mut text = String::new();
    let mut add = |line: &str| writeln!(text, "{line}").expect("a String takes everything");
    add("");
    add("what the store promises");
    if guarantees.is_empty() {
        add(
            "  create-only PUT, in a race too; new objects are listed at once; ranges are exact: probed just now",
        );
    }
    guarantees.iter().for_each(|guarantee| add(&format!("  {guarantee}")));
    if unsafe_single_writer {
        add("  WARNING: you vouched for a single writer; two daemons on this volume at once would lose data");
    }
    if let Some(policy) = iam_policy(&place.url) {
        add("");
        add("the least IAM policy that serving it needs");
        policy.lines().for_each(|line| add(&format!("  {line}")));
    }
    text
}

/// The command that comes next, ready to paste.
pub(crate) fn next(place: &Place, store: &cli::Store, unsafe_single_writer: bool) -> String {
    let vouch = if unsafe_single_writer { " --unsafe-single-writer" } else { "" };
    format!("next\n  lsvd serve {}{}{vouch}\n", place.url, store::flags(store))
}

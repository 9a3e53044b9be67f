//! `lsvd adopt`: makes a volume of a log of format 1, and says what was found and what comes next.
//!
//! Knows no rule of adopting; the volume's library does.

use std::fmt::Write as _;

use anyhow::Context;
use lsvd_volume::{AdoptOptions, Adopted, CreateOptions};

use super::create::{next, promises};
use crate::cli::{Adopt, ObjectFormat};
use crate::exit::Exit;
use crate::store::{self, Errand, Place};
use crate::{output, units};

/// Runs the command.
///
/// # Errors
/// If there is a volume already, there is no log that can be adopted (it says why), or the store refuses.
pub(crate) async fn run(arguments: Adopt) -> anyhow::Result<Exit> {
    let errand = Errand { verb: "adopt", create_root: false, patience: arguments.patience.timeout };
    let place = store::volume_or_bucket(&arguments.url, &arguments.store, errand)?;
    let create = CreateOptions {
        window: arguments.window,
        unsafe_single_writer: arguments.unsafe_single_writer,
        log_format: arguments.log_format.into(),
        ..CreateOptions::new(arguments.size)
    };
    let options = AdoptOptions {
        create,
        log_prefix: arguments.log_prefix.clone(),
        first_number: arguments.first_number,
        quiet_for: arguments.quiet_for,
    };
    let adopted = lsvd_volume::adopt(&place.bucket, &options)
        .await
        .with_context(|| format!("cannot adopt volume '{}'", place.name))?;
    output::line(report(&arguments, &place, &adopted).trim_end())?;
    Ok(Exit::Done)
}

fn report(arguments: &Adopt, place: &Place, adopted: &Adopted) -> String {
    let mut text = String::new();
    let mut add = |line: &str| writeln!(text, "{line}").expect("a String takes everything");
    let Adopted { first_number, last_number, name_digits, written_end_bytes, .. } = adopted;
    add(&format!("adopted volume '{}' at {}; nothing was copied", place.name, place.url));
    add(&format!("  identity  {}", adopted.volume_id));
    add(&format!(
        "  size      {} ({} bytes), of which the log wrote up to byte {written_end_bytes}",
        units::bytes_exact(arguments.size),
        units::grouped(arguments.size)
    ));
    add(&format!(
        "  log       {} objects of format 1, {}: numbers {first_number} to {last_number}, in names of {name_digits} or more \
         digits",
        units::grouped(adopted.objects),
        units::bytes_human(adopted.object_bytes)
    ));
    if adopted.objects_archived > 0 {
        let (archived, gap) = (units::grouped(adopted.objects_archived), last_number + 1);
        add(&format!(
            "  gap       number {gap} is missing; {archived} objects beyond it were moved to archive/"
        ));
    }
    add(match arguments.log_format {
        ObjectFormat::V1 => {
            "  goes on   in format 1: no checksums, no trim, no journal; its old reader can go on"
        }
        ObjectFormat::V2 => "  goes on   in format 2: its old daemon must not write it any more",
    });
    text += &promises(place, &adopted.guarantees, arguments.unsafe_single_writer);
    text += "\n";
    text += &next(place, &arguments.store, arguments.unsafe_single_writer);
    text
}

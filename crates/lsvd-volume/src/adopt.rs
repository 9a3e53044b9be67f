//! Adopting a log of format 1: a superblock is put beside its objects, and nothing is copied.
//!
//! Knows listings and headers of format 1; replays nothing and opens nothing. Invariants: 1. nothing is written or moved
//! before all that would be kept was checked; 2. the log is the gapless run from its first number on, and what lies
//! beyond is archived, never deleted; 3. what fails leaves a bucket that can be adopted again.

#[cfg(test)]
mod tests;

use std::time::Duration;

use futures::StreamExt;
use lsvd_backend::{Bucket, Listed};
use lsvd_format::v1::{parse_v1_name, v1_name};
use lsvd_format::{
    AnyHeader, Epoch, LogLayout, NUMBER_MAX, SequenceNumber, VolumeId, names, validate_prefix,
};

use crate::guarantees::probe_for_creation;
use crate::root::{NewLog, check_options, put_first_superblock, refuse_existing};
use crate::store::VolumeStore;
use crate::{AdoptOptions, Environment, Error};

/// Headers fetched at once: adopting's time is round trips, not bytes.
const HEADERS_AT_ONCE: usize = 100;
/// Objects moved into the archive at once.
const ARCHIVE_AT_ONCE: usize = 8;
/// Stores give times in whole seconds, rounded in either direction.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// What was adopted.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// The new volume's identity.
    pub volume_id: VolumeId,
    /// What the store promises, for a person.
    pub guarantees: Vec<String>,
    /// Objects of the log.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Number of the first.
    pub first_number: u64,
    /// Number of the last.
    pub last_number: u64,
    /// Hex digits of their names at least.
    pub name_digits: u8,
    /// The end of what was written, in bytes: the least size of the volume.
    pub written_end_bytes: u64,
    /// Objects beyond the first gap, moved into the archive.
    pub objects_archived: u64,
}

/// An object of the log that is to be adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    number: u64,
    /// Below the log's prefix.
    digits: String,
    object_bytes: u64,
}

/// The log as its names say.
#[derive(Debug, PartialEq, Eq)]
struct FoundLog {
    /// The gapless run.
    run: Vec<Found>,
    /// What lies beyond the first gap.
    beyond: Vec<Found>,
    name_digits: u8,
}

/// Makes a volume of the log of format 1 on `bucket`, whose prefix becomes the volume's own.
///
/// # Errors
/// [`Error::Exists`] if there is a volume; [`Error::Corrupt`] names an object that is not of format 1;
/// [`Error::LogGrowing`]; [`Error::Invalid`] if names or size can not be, and says what can;
/// [`Error::UnsafeStore`] if the store does not hold create-only PUT.
pub async fn adopt(bucket: &Bucket, options: &AdoptOptions) -> Result<Adopted, Error> {
    let AdoptOptions { create, log_prefix, first_number, quiet_for } = options;
    check_options(create)?;
    validate_prefix(log_prefix).map_err(Error::Invalid)?;
    let store = VolumeStore::new(bucket.clone());
    refuse_existing(&store).await?;
    let listed = list(&store, log_prefix).await?;
    let label = store.label();
    let invalid =
        |reason: String| Error::Invalid(format!("the log at '{label}' can not be adopted: {reason}"));
    let log = find_log(&named(&listed, log_prefix), *first_number).map_err(invalid)?;
    let newest = listed
        .iter()
        .filter(|entry| is_named(entry, log_prefix))
        .max_by_key(|entry| entry.last_modified_unix_ms);
    if let Some(newest) = newest.filter(|_| !quiet_for.is_zero()) {
        refuse_lately_written(&store, newest, *quiet_for, &create.environment).await?;
    }
    let layout = LogLayout {
        prefix: log_prefix.clone(),
        name_digits: log.name_digits,
        append_format: create.log_format,
    };
    let store = store.with_layout(Some(layout.clone()));
    let written_end_bytes = check_headers(&store, &log.run).await?;
    if written_end_bytes > create.size_bytes {
        return Err(invalid(format!(
            "it was written up to byte {written_end_bytes}, beyond a size of {}: the least size that fits is \
             {written_end_bytes}",
            create.size_bytes
        )));
    }
    let guarantees = probe_for_creation(&store, &create.environment, create.unsafe_single_writer).await?;
    refuse_growth(&store, &listed, log_prefix).await?;
    // Beyond the gap of a log that somebody else adopted meanwhile lie his volume's own objects.
    let marker = refuse_existing(&store).await?.map(|(number, _)| number);
    let objects_archived = archive(&store, &create.environment, &log.beyond).await?;
    let (first_number, last_number) = (log.run[0].number, log.run[log.run.len() - 1].number);
    let new = NewLog {
        clone: None,
        has_lost_blocks: false,
        layout: Some(layout),
        first: SequenceNumber(first_number),
        reached: Some(SequenceNumber(last_number)),
    };
    let volume_id = put_first_superblock(&store, create, new, marker).await?;
    Ok(Adopted {
        volume_id,
        guarantees,
        objects: log.run.len() as u64,
        object_bytes: log.run.iter().map(|found| found.object_bytes).sum(),
        first_number,
        last_number,
        name_digits: log.name_digits,
        written_end_bytes,
        objects_archived,
    })
}

async fn list(store: &VolumeStore, prefix: &str) -> Result<Vec<Listed>, Error> {
    store.bucket().list(prefix, None).await.map_err(|error| store.store_error(error))
}

/// Whether an object's name could be meant as a number of this log.
fn is_named(entry: &Listed, prefix: &str) -> bool {
    let digits = entry.name.strip_prefix(prefix);
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// What is named by hex digits directly below the prefix, with its length. All else is somebody else's.
fn named(listed: &[Listed], prefix: &str) -> Vec<(String, u64)> {
    let named = listed.iter().filter(|entry| is_named(entry, prefix));
    named.map(|entry| (entry.name[prefix.len()..].to_owned(), entry.object_bytes)).collect()
}

/// Orders the objects by number, and cuts them at the first gap.
fn find_log(named: &[(String, u64)], first_number: Option<u64>) -> Result<FoundLog, String> {
    let mut found = Vec::with_capacity(named.len());
    for (digits, object_bytes) in named {
        let (number, _) = parse_v1_name(digits).ok_or_else(|| {
            format!("'{digits}' has capital digits, or more than 64 bits hold: move it away")
        })?;
        if number > NUMBER_MAX {
            return Err(format!("'{digits}' is a number above {NUMBER_MAX:x}: move it away"));
        }
        found.push(Found { number, digits: digits.clone(), object_bytes: *object_bytes });
    }
    found.sort_by(|a, b| (a.number, &a.digits).cmp(&(b.number, &b.digits)));
    let Some(first) = found.first().map(|first| first.number) else {
        return Err("no object there is named by a number in hex digits: check the URL and the log's prefix"
            .to_owned());
    };
    if let Some([one, other]) = found.array_windows().find(|[one, other]| one.number == other.number) {
        let (one, other, number) = (&one.digits, &other.digits, one.number);
        return Err(format!("'{one}' and '{other}' both are number {number}: move the wrong one away"));
    }
    let name_digits = name_digits(&found)?;
    match first_number {
        Some(vouched) if vouched != first => {
            return Err(format!("it begins with number {first} and not with {vouched}"));
        }
        None if first > 1 => {
            return Err(format!(
                "it begins with number {first}, so that objects before it may be missing: restore them, or say \
                 --first-number {first} if there never were any"
            ));
        }
        _ => {}
    }
    let end = (first..).zip(&found).take_while(|(number, found)| *number == found.number).count();
    let beyond = found.split_off(end);
    Ok(FoundLog { run: found, beyond, name_digits })
}

/// The width that all names are padded to.
fn name_digits(found: &[Found]) -> Result<u8, String> {
    let padded =
        found.iter().filter(|found| found.digits.starts_with('0')).map(|found| found.digits.len()).max();
    let shortest = found.iter().map(|found| found.digits.len()).min();
    // Where nothing is padded all widths up to the shortest name's give the same names until the numbers grow longer.
    let width = padded.or(shortest).unwrap_or(1);
    if let Some(odd) = found.iter().find(|found| v1_name(found.number, width) != found.digits) {
        let digits = &odd.digits;
        return Err(format!(
            "'{digits}' is not how the others would name number {}, which have {width} digits: move it away if it is \
             not of the log",
            odd.number
        ));
    }
    u8::try_from(width).map_err(|_| format!("names of {width} digits are too long"))
}

/// A courtesy, as for `--if-free`: a writer that is idle can not be seen.
async fn refuse_lately_written(
    store: &VolumeStore,
    newest: &Listed,
    quiet_for: Duration,
    environment: &Environment,
) -> Result<(), Error> {
    let nonce: String = (environment.random)().iter().map(|byte| format!("{byte:02x}")).collect();
    let now_unix_ms = store.bucket().clock_unix_ms(names::PROBE_FOLDER, &nonce).await;
    let now_unix_ms = now_unix_ms.map_err(|error| store.store_error(error))?;
    let age_ms = now_unix_ms.saturating_sub(newest.last_modified_unix_ms);
    let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
    if age >= quiet_for.saturating_add(CLOCK_STEP) {
        return Ok(());
    }
    let (name, age, quiet) = (&newest.name, age.as_secs(), quiet_for.as_secs());
    let what = format!("'{name}' was stored {age} s ago, and {quiet} s without any are asked for");
    Err(Error::LogGrowing { volume: store.label(), what })
}

/// Lists once more: whatever is new, gone or of another length was changed meanwhile.
async fn refuse_growth(store: &VolumeStore, before: &[Listed], prefix: &str) -> Result<(), Error> {
    let (before, now) = (named(before, prefix), named(&list(store, prefix).await?, prefix));
    let only_in = |here: &[(String, u64)], there: &[(String, u64)]| {
        // Listings are sorted.
        here.iter()
            .find(|entry| there.binary_search(entry).is_err())
            .map(|(digits, _)| format!("{prefix}{digits}"))
    };
    let Some(name) =
        (before != now).then(|| only_in(&now, &before).or_else(|| only_in(&before, &now))).flatten()
    else {
        return Ok(());
    };
    let what = format!("'{name}' came, went or changed while the log was looked at");
    Err(Error::LogGrowing { volume: store.label(), what })
}

/// Checks that each object is whole and of format 1. Gives the end of what was written.
async fn check_headers(store: &VolumeStore, run: &[Found]) -> Result<u64, Error> {
    let mut headers = futures::stream::iter(run)
        .map(|found| async move { (found, store.read_log_header(SequenceNumber(found.number)).await) })
        .buffered(HEADERS_AT_ONCE);
    let mut end_bytes = 0;
    while let Some((found, header)) = headers.next().await {
        let name = store.log_name(SequenceNumber(found.number));
        match header? {
            Some(AnyHeader::V1(header)) => {
                let ends =
                    header.entries.iter().map(|entry| entry.address_bytes + u64::from(entry.size_bytes));
                end_bytes = ends.fold(end_bytes, u64::max);
            }
            Some(AnyHeader::V2(_)) => {
                let reason = "it is of format 2: it belongs to a volume whose superblock is missing";
                return Err(store.corrupt(name, reason));
            }
            None => {
                let what = format!("'{name}' was there and is gone");
                return Err(Error::LogGrowing { volume: store.label(), what });
            }
        }
    }
    Ok(end_bytes)
}

/// Moves what lies beyond the gap out of the way. Gives how many objects it moved.
async fn archive(store: &VolumeStore, environment: &Environment, beyond: &[Found]) -> Result<u64, Error> {
    let moved_at_unix_ms = (environment.now_unix_ms)();
    let mut moves = futures::stream::iter(beyond)
        .map(|found| async move {
            let number = SequenceNumber(found.number);
            let name = store.log_name(number);
            let copy = names::archived(moved_at_unix_ms, Epoch(1), names::BEYOND_GAP, &name);
            tracing::warn!(volume = %store.label(), object = %name, "moving to {copy}");
            store.archive_log_object(number, &copy).await
        })
        .buffered(ARCHIVE_AT_ONCE);
    let mut archived = 0;
    while let Some(moved) = moves.next().await {
        archived += u64::from(moved?);
    }
    Ok(archived)
}

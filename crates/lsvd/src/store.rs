//! From a URL and flags to a bucket.
//!
//! Knows the flags of the store and what the library wants of them; makes no request. Invariant: an error never
//! repeats a URL that did not parse, for it may hold a secret (rule 11).

use std::time::Duration;

use anyhow::Context;
use lsvd_backend::doctor::Examination;
use lsvd_backend::{Bucket, BucketUrl, RetryPolicy, StoreOptions};
use lsvd_volume::Moment;

use crate::cli;
use crate::exit::Usage;

/// Where a volume is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its URL.
    pub(crate) url: BucketUrl,
    /// Its name: the last segment of the URL.
    pub(crate) name: String,
    /// Its own prefix of the bucket.
    pub(crate) bucket: Bucket,
}

/// What is to be done with a volume, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errand {
    /// The verb of its error: "cannot VERB volume 'db1'".
    pub(crate) verb: &'static str,
    /// Make a directory that is missing.
    pub(crate) create_root: bool,
    /// How long a request to the store is tried again.
    pub(crate) patience: Duration,
}

/// Finds the volume that `url` names.
///
/// # Errors
/// If the URL names no volume, or the store can not be reached as it is configured.
pub(crate) fn volume(url: &str, store: &cli::Store, errand: Errand) -> anyhow::Result<Place> {
    let url = parse(url)?;
    let name = url.volume_name().map_err(|error| Usage(error.to_string()))?.to_owned();
    open(url, name, store, errand)
}

/// Finds the volume that `url` names, which may be all of a bucket: a log that was adopted may lie there.
///
/// # Errors
/// As for [`volume`].
pub(crate) fn volume_or_bucket(url: &str, store: &cli::Store, errand: Errand) -> anyhow::Result<Place> {
    let url = parse(url)?;
    let name = url.volume_or_bucket_name().map_err(|error| Usage(error.to_string()))?.to_owned();
    open(url, name, store, errand)
}

fn open(url: BucketUrl, name: String, store: &cli::Store, errand: Errand) -> anyhow::Result<Place> {
    let bucket = Bucket::open(&url, &options(store, errand.create_root))
        .with_context(|| format!("cannot {} volume '{name}'", errand.verb))?;
    Ok(Place { url, name, bucket: bucket.with_retry(retry(errand.patience)) })
}

/// Finds the volume that `url` names, and the moment of it that stands behind an `@` in its last segment, if one does: then
/// the name has it, too.
///
/// # Errors
/// As for [`volume`].
pub(crate) fn volume_at(
    url: &str,
    store: &cli::Store,
    errand: Errand,
) -> anyhow::Result<(Place, Option<Moment>)> {
    let last = url.rfind('/').map_or(0, |slash| slash + 1);
    let below_bucket = url.find("://").is_some_and(|scheme| last > scheme + 3);
    let Some(at) = url[last..].find('@').filter(|_| below_bucket) else {
        return Ok((volume_or_bucket(url, store, errand)?, None));
    };
    let (volume, text) = (&url[..last + at], &url[last + at + 1..]);
    let moment = moment(text)?;
    let place = volume_or_bucket(volume, store, errand)?;
    Ok((Place { name: format!("{}@{text}", place.name), ..place }, Some(moment)))
}

/// The ways from a volume to the place of another one and back, by their prefixes.
///
/// # Errors
/// If they are not in one store.
pub(crate) fn ways(from: &Place, to: &str) -> anyhow::Result<(String, String)> {
    let to = parse(to)?;
    let ways = from.url.path_to(&to).zip(to.path_to(&from.url));
    ways.ok_or_else(|| {
        let what = "a clone shares its parent's objects: it is in the same bucket, at another place";
        Usage(what.to_owned()).into()
    })
}

/// Finds the volume to which a path leads from another one's prefix.
///
/// # Errors
/// As for [`volume`].
pub(crate) fn beside(place: &Place, path: &str, store: &cli::Store, errand: Errand) -> anyhow::Result<Place> {
    let url = place.url.beside(path).with_context(|| format!("'{path}' leads out of the store"))?;
    let name = url.volume_or_bucket_name().map_err(|error| Usage(error.to_string()))?.to_owned();
    open(url, name, store, errand)
}

/// A moment as it is typed.
///
/// # Errors
/// If it is none; what was typed is not repeated.
pub(crate) fn moment(text: &str) -> Result<Moment, Usage> {
    text.parse().map_err(|_| {
        let words = "that is no moment of a volume: write a snapshot's name, a number of its log, or a time as \
                     2026-11-25T20:00:00Z";
        Usage(words.to_owned())
    })
}

/// Opens the prefix that `url` names, to look for volumes below it.
///
/// # Errors
/// As for [`volume`].
pub(crate) fn prefix(
    url: &str,
    store: &cli::Store,
    patience: Duration,
) -> anyhow::Result<(BucketUrl, Bucket)> {
    let url = parse(url)?;
    let bucket =
        Bucket::open(&url, &options(store, false)).with_context(|| format!("cannot list '{url}'"))?;
    Ok((url, bucket.with_retry(retry(patience))))
}

/// Prepares to examine the store that `url` names, and opens it beside, to look at a volume that may be there.
///
/// # Errors
/// As for [`volume`].
pub(crate) fn examination(
    url: &str,
    store: &cli::Store,
    patience: Duration,
) -> anyhow::Result<(BucketUrl, Bucket, Examination)> {
    let url = parse(url)?;
    let (options, retry) = (options(store, false), retry(patience));
    let open = || -> Result<_, lsvd_backend::Error> {
        let bucket = Bucket::open(&url, &options)?.with_retry(retry);
        Ok((bucket, Examination::open(&url, &options, retry, lsvd_volume::PROBE_FOLDER)?))
    };
    let (bucket, examination) = open().with_context(|| format!("cannot examine '{url}'"))?;
    Ok((url, bucket, examination))
}

fn parse(url: &str) -> anyhow::Result<BucketUrl> {
    url.parse()
        .map_err(|error: lsvd_backend::UrlError| anyhow::Error::new(Usage(error.to_string())))
        .context("the URL of the store is wrong")
}

fn retry(patience: Duration) -> RetryPolicy {
    RetryPolicy { total_limit: patience, ..RetryPolicy::default() }
}

fn options(store: &cli::Store, create_root: bool) -> StoreOptions {
    StoreOptions {
        endpoint: store.endpoint.clone(),
        region: store.region.clone(),
        allow_http: store.allow_http,
        path_style: match (store.path_style, store.virtual_hosted) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        },
        create_root,
        ..StoreOptions::default()
    }
}

/// The store's flags as they were typed, for a command line that the user can paste.
pub(crate) fn flags(store: &cli::Store) -> String {
    let mut text = String::new();
    let mut add = |flag: &str, value: Option<&str>| {
        text.push_str(flag);
        text.push_str(value.unwrap_or_default());
    };
    if let Some(endpoint) = &store.endpoint {
        add(" --endpoint ", Some(endpoint));
    }
    if let Some(region) = &store.region {
        add(" --region ", Some(region));
    }
    for (set, flag) in [
        (store.allow_http, " --allow-http"),
        (store.path_style, " --path-style"),
        (store.virtual_hosted, " --virtual-hosted"),
    ] {
        if set {
            add(flag, None);
        }
    }
    text
}

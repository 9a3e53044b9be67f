//! The lab store as its clients meet it: what it serves, how it misbehaves, and what lsvd's probe says of that.
//!
//! Knows the store from outside alone: the bucket of lsvd-backend, and an HTTP client that sends what it is told.

#![allow(clippy::unwrap_used)]

mod doctor;
mod faults;
mod google;
mod line;
mod protocol;

use std::time::Duration;

use lsvd_backend::{Bucket, Environment, RetryPolicy, StoreOptions};
use lsvd_labstore::{LabOptions, LabStore};

pub(crate) async fn lab() -> LabStore {
    LabStore::start(LabOptions::default()).await.unwrap()
}

/// lsvd's own client, signing with keys that the lab store does not look at.
pub(crate) fn bucket(lab: &LabStore, name: &str) -> Bucket {
    Bucket::open(&format!("s3://lab/{name}").parse().unwrap(), &options(lab)).unwrap()
}

pub(crate) fn options(lab: &LabStore) -> StoreOptions {
    StoreOptions {
        endpoint: Some(lab.endpoint()),
        allow_http: true,
        environment: Environment::from_pairs([
            ("AWS_ACCESS_KEY_ID", "lab"),
            ("AWS_SECRET_ACCESS_KEY", "lab"),
        ]),
        ..StoreOptions::default()
    }
}

/// The same, that gives up after its first attempt or half a second.
pub(crate) fn hasty(lab: &LabStore, name: &str) -> Bucket {
    bucket(lab, name).with_retry(RetryPolicy {
        attempt_timeout: Duration::from_millis(500),
        total_limit: Duration::from_millis(500),
        backoff_first: Duration::from_secs(1),
        ..RetryPolicy::default()
    })
}

/// A client that does what it is told and nothing besides.
pub(crate) fn plain() -> reqwest::Client {
    reqwest::Client::new()
}

//! The stores that are reached through a network: one file for each protocol, and what they share.
//!
//! Invariant: no request goes anywhere but to the store that was named, to the proxy that the environment names for
//! it, or to the service that its credentials name; redirects are not followed.

pub(crate) mod ask;
pub(crate) mod azure;
pub(crate) mod google;
mod http;
mod roots;
pub(crate) mod s3;

pub(crate) use http::Busy;

use object_store::ClientOptions;
use object_store::RetryConfig;
use url::Url;

use crate::classify::{Failure, FailureKind};
use crate::environment::Environment;
use crate::open::StoreOptions;
use crate::scrub;

fn misconfigured(detail: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Misconfigured, detail)
}

/// No retries inside `object_store`: every attempt is ours, so that a retried create is known to have been one.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn client_options(allow_http: bool) -> ClientOptions {
    ClientOptions::new().with_allow_http(allow_http)
}

/// The server's URL that options or environment name, checked. `None`: the cloud's own.
fn endpoint(
    options: &StoreOptions,
    from_environment: Option<&str>,
    allow_http: bool,
) -> Result<Option<Url>, Failure> {
    let Some(text) = options.endpoint.as_deref().filter(|text| !text.is_empty()).or(from_environment) else {
        return Ok(None);
    };
    // What is wrong with it is not repeated: it may hold a password (rule 11).
    let url: Url =
        text.parse().map_err(|_| misconfigured("the endpoint is no URL, as in 'https://host:9000'"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(misconfigured("credentials do not belong into the endpoint's URL"));
    }
    if url.query().is_some() || url.fragment().is_some() || !url.has_host() {
        return Err(misconfigured("the endpoint is a host with scheme and port, as in 'https://host:9000'"));
    }
    match url.scheme() {
        "https" => Ok(Some(url)),
        "http" if allow_http => Ok(Some(url)),
        "http" => Err(misconfigured(format!(
            "the endpoint '{url}' is plain http, which is refused unless it is allowed: by the option for it or by \
             AWS_ALLOW_HTTP=true (AZURE_…, GOOGLE_…)"
        ))),
        _ => Err(misconfigured("the endpoint's URL begins with https:// or http://")),
    }
}

/// A builder's refusal, without any piece of a secret (rule 11).
fn refused(error: &object_store::Error, environment: &Environment, more_secrets: &[&str]) -> Failure {
    let mut secrets = environment.secrets();
    secrets.extend(more_secrets.iter().map(|&secret| secret.to_owned()));
    let words = scrub::without(&error.to_string(), &secrets);
    misconfigured(format!("the settings do not fit together: {}", scrub::words(&words)))
}

/// The refusal to look for a machine's role.
fn no_credentials(say: &str) -> Failure {
    Failure::new(FailureKind::Denied, format!("there are no credentials: {say}"))
}

#[cfg(test)]
pub(crate) mod tests;

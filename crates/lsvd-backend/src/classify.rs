//! What an `object_store` error means: an absence, a name that is taken, or a failure by its kind.
//!
//! Knows no retries. The one place that reads other people's error texts. Invariants: only a definite answer is an
//! absence (rule 4), so a 404 must name the missing key in its body, and whatever is not understood is a failure;
//! nothing that leaves here holds a secret (rule 11).

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cloud::Busy;
use crate::directory::DirectoryError;
use crate::error::{Error, Site, Verb};
use crate::scrub;

/// The kinds of failure, one for each variant of [`Error`], and one that only this crate acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    NotFound,
    Denied,
    /// Denied because the credentials are not good any more.
    Expired,
    Misconfigured,
    Full,
    Unavailable,
    /// Unavailable because too much was asked at once: it throttles, or the time of an attempt is up.
    Overloaded,
    Corrupt,
    /// The range begins at or after the object's end.
    BeyondEnd,
}

/// A failure that does not know yet where it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) detail: String,
    /// For how long the store asks not to be asked.
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Failure { kind, detail: detail.into(), retry_after: None }
    }

    pub(crate) fn into_error(self, at: Site) -> Error {
        let detail = self.detail;
        match self.kind {
            FailureKind::NotFound => Error::NotFound { at, detail },
            FailureKind::Denied | FailureKind::Expired => Error::Denied { at, detail },
            FailureKind::Misconfigured => Error::Misconfigured { at, detail },
            FailureKind::Full => Error::Full { at, detail },
            FailureKind::Unavailable | FailureKind::Overloaded => Error::Unavailable { at, detail },
            FailureKind::Corrupt | FailureKind::BeyondEnd => Error::Corrupt { at, detail },
        }
    }
}

/// What a store answered, where it was not plain success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The object is definitely not there.
    Absent,
    /// An object of that name is there, or another creator of it is under way.
    Exists,
    /// Neither is known.
    Failed(Failure),
}

/// How a store is spoken to, which says how it tells of an absence, and what to check when it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Not through a network that might answer in its place: what it says is absent is absent. The others' absences are a
    /// 404 whose body names the missing key: a proxy's, a load balancer's or a wrong endpoint's does not.
    Embedded,
    S3,
    Azure,
    Google,
}

impl Protocol {
    /// What to check when credentials are refused and nothing more is said.
    fn check(self) -> &'static str {
        match self {
            Self::Embedded => "check the credentials and that they grant this right",
            Self::S3 => "check the credentials (AWS_ACCESS_KEY_ID) and that they grant this right",
            Self::Azure => {
                "check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or the token or identity, that they \
                 grant this right, and this host's clock"
            }
            Self::Google => {
                "check the account (GOOGLE_SERVICE_ACCOUNT, GOOGLE_APPLICATION_CREDENTIALS) and that it has this right"
            }
        }
    }
}

/// Codes by which stores say that the object, and nothing else, is missing.
const CODES_KEY_MISSING: [&str; 2] = ["NoSuchKey", "BlobNotFound"];
/// Codes by which stores say that the bucket is missing.
const CODES_BUCKET_MISSING: [&str; 4] =
    ["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "AccountNotFound"];
/// Codes of 400 and 403 answers that mean that time or credentials do not fit.
const CODES_DENIED: [&str; 4] =
    ["SignatureDoesNotMatch", "RequestTimeTooSkewed", "RequestExpired", "AuthenticationFailed"];
/// Codes of those that mean that the credentials were good once, or will be: they were renewed, or taken back.
const CODES_EXPIRED: [&str; 4] =
    ["ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"];
/// Codes of 400 answers that pass by themselves.
const CODES_TRANSIENT: [&str; 4] = ["RequestTimeout", "InternalError", "OperationAborted", "IncompleteBody"];

/// Sorts an error of `object_store`.
pub(crate) fn answer(verb: Verb, protocol: Protocol, error: &object_store::Error) -> Answer {
    if let Some(gone) = find::<DirectoryError>(error) {
        return Answer::Failed(directory_failure(gone));
    }
    if let Some(busy) = find::<Busy>(error) {
        return match Reply::new(busy.status, &busy.body).answer(verb, protocol) {
            Answer::Failed(failure) => {
                Answer::Failed(Failure { retry_after: Some(busy.retry_after), ..failure })
            }
            other => other,
        };
    }
    if let Some(reply) = Reply::find(error) {
        return reply.answer(verb, protocol);
    }
    match error {
        object_store::Error::NotFound { .. } if protocol == Protocol::Embedded => Answer::Absent,
        // Azure's objects are deleted in batches, whose parts have no body to name the key; a missing container fails
        // the batch itself.
        object_store::Error::NotFound { .. } if verb == Verb::Delete => Answer::Absent,
        object_store::Error::NotFound { .. } => {
            failed(FailureKind::Unavailable, "the store said 'not found' without saying what")
        }
        object_store::Error::AlreadyExists { .. }
        | object_store::Error::Precondition { .. }
        | object_store::Error::NotModified { .. } => Answer::Exists,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            failed(FailureKind::Denied, format!("refused for {verb}: {}", innermost(error)))
        }
        object_store::Error::NotImplemented { .. }
        | object_store::Error::NotSupported { .. }
        | object_store::Error::InvalidPath { .. }
        | object_store::Error::UnknownConfigurationKey { .. } => {
            failed(FailureKind::Misconfigured, scrub::words(&error.to_string()))
        }
        _ => Answer::Failed(other_failure(error)),
    }
}

fn failed(kind: FailureKind, detail: impl Into<String>) -> Answer {
    Answer::Failed(Failure::new(kind, detail))
}

pub(crate) fn directory_failure(error: &DirectoryError) -> Failure {
    match error {
        DirectoryError::Io { source, .. } => io_failure(source.kind(), error.to_string()),
        // It was there when it was opened, so it may come back: somebody moved it or unmounted what holds it.
        DirectoryError::Gone { .. } | DirectoryError::Replaced { .. } => {
            Failure::new(FailureKind::Unavailable, error.to_string())
        }
    }
}

/// A failure without an HTTP status: the host's own disk, the network, or an answer that makes no sense.
fn other_failure(error: &object_store::Error) -> Failure {
    let detail = innermost(error);
    let chain = chain_text(error);
    // Azurite answers a range of an empty object with "bytes 0--1/0" instead of a 416.
    if chain.contains("but object was only") || (chain.contains("CONTENT_RANGE") && chain.contains("-1/0\""))
    {
        return Failure::new(FailureKind::BeyondEnd, detail);
    }
    if chain.contains("non-partial response") || chain.contains("Content-Range header not present") {
        let detail = "the store ignores byte ranges: it answered with the whole object";
        return Failure::new(FailureKind::Misconfigured, detail);
    }
    if chain.contains("redirect without LOCATION") {
        return Failure::new(FailureKind::Misconfigured, WRONG_REGION);
    }
    let from_http = find::<object_store::client::HttpError>(error).is_some();
    if from_http
        && ["certificate", "UnknownIssuer", "NotValidForName"].iter().any(|word| chain.contains(word))
    {
        let detail = format!(
            "the server's certificate is not trusted ({detail}); a private authority's root is added by SSL_CERT_FILE"
        );
        return Failure::new(FailureKind::Misconfigured, detail);
    }
    if from_http && (chain.contains("scheme is not allowed") || chain.contains("invalid URL")) {
        return Failure::new(FailureKind::Misconfigured, detail);
    }
    // The refusal of one part of an Azure batch.
    if ["(code: 401)", "(code: 403)"].iter().any(|code| chain.contains(code)) {
        return Failure::new(
            FailureKind::Denied,
            format!("refused: {detail}; check the credentials' rights"),
        );
    }
    match find::<std::io::Error>(error) {
        Some(io) if !from_http => io_failure(io.kind(), scrub::words(&error.to_string())),
        _ => Failure::new(FailureKind::Unavailable, detail),
    }
}

pub(crate) fn io_failure(kind: ErrorKind, detail: String) -> Failure {
    let kind = match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FailureKind::Full,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => FailureKind::Denied,
        ErrorKind::NotADirectory | ErrorKind::InvalidFilename | ErrorKind::IsADirectory => {
            FailureKind::Misconfigured
        }
        _ => FailureKind::Unavailable,
    };
    Failure::new(kind, detail)
}

const WRONG_REGION: &str = "the server redirects elsewhere, which is not followed: the region or the endpoint is \
                            not this bucket's; check AWS_REGION and the endpoint";

/// A server's HTTP answer, as far as it survives in `object_store`'s error text.
struct Reply {
    status: u16,
    /// The store's own code, for example `NoSuchKey`; empty where it gave none.
    code: String,
    message: String,
}

impl Reply {
    fn find(error: &object_store::Error) -> Option<Reply> {
        let mut current: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(error) = current {
            if let Some(reply) = Reply::parse(&error.to_string()) {
                return Some(reply);
            }
            current = error.source();
        }
        None
    }

    /// Reads `…status code: 404 Not Found: <body>`, or an error that came with a 200.
    fn parse(text: &str) -> Option<Reply> {
        let (status, body) = match text.split_once("non-2xx status code: ") {
            Some((_, rest)) => {
                (rest.get(..3)?.parse().ok()?, rest.split_once(": ").map_or("", |(_, body)| body))
            }
            // A body that holds an error although the status was 200 is as good as a 500.
            None => (500, text.split_once("Server returned error response: ")?.1),
        };
        Some(Reply::new(status, body))
    }

    fn new(status: u16, body: &str) -> Reply {
        let code = scrub::element(body, "Code").or_else(|| scrub::element(body, "code")).unwrap_or_default();
        let message = scrub::element(body, "Message").unwrap_or(body);
        let message = if message.contains("<html") || message.contains("<HTML") { "" } else { message };
        Reply { status, code: scrub::words(code), message: scrub::words(message) }
    }

    fn answer(self, verb: Verb, protocol: Protocol) -> Answer {
        let is = |codes: &[&str]| codes.contains(&self.code.as_str());
        let told = self.to_string();
        if is(&CODES_BUCKET_MISSING) {
            return failed(FailureKind::NotFound, format!("the bucket does not exist ({told})"));
        }
        if is(&CODES_EXPIRED) {
            return failed(FailureKind::Expired, self.denied(verb, protocol));
        }
        if is(&CODES_DENIED) || matches!(self.status, 401 | 403 | 407) {
            return failed(FailureKind::Denied, self.denied(verb, protocol));
        }
        match self.status {
            404 if is(&CODES_KEY_MISSING) => Answer::Absent,
            404 => failed(
                FailureKind::Misconfigured,
                format!("{told}, which names no missing object: is the endpoint an object store's?"),
            ),
            304 | 409 | 412 if verb == Verb::Put => Answer::Exists,
            301 | 302 | 303 | 307 | 308 => {
                failed(FailureKind::Misconfigured, format!("{WRONG_REGION} ({told})"))
            }
            416 => failed(FailureKind::BeyondEnd, told),
            507 => failed(FailureKind::Full, told),
            501 | 505 => failed(FailureKind::Misconfigured, format!("{told}: the store can not do this")),
            429 | 503 => failed(FailureKind::Overloaded, told),
            _ if self.code == "SlowDown" => failed(FailureKind::Overloaded, told),
            408 | 409 | 425 | 500.. => failed(FailureKind::Unavailable, told),
            _ if is(&CODES_TRANSIENT) => failed(FailureKind::Unavailable, told),
            400 if matches!(self.code.as_str(), "AuthorizationHeaderMalformed" | "InvalidRegion") => {
                failed(FailureKind::Misconfigured, format!("{told}; check AWS_REGION"))
            }
            _ => failed(FailureKind::Misconfigured, told),
        }
    }

    /// What to check when a store refuses, by what it said.
    fn denied(&self, verb: Verb, protocol: Protocol) -> String {
        let hint = match self.code.as_str() {
            "RequestTimeTooSkewed" | "RequestExpired" => {
                return format!("{self}: the clocks differ; this host's says {}", utc(SystemTime::now()));
            }
            "InvalidAccessKeyId" => "check AWS_ACCESS_KEY_ID",
            "SignatureDoesNotMatch" => "check AWS_SECRET_ACCESS_KEY",
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                "the session token is no longer good: get new credentials"
            }
            _ => protocol.check(),
        };
        format!("{self} for {verb}; {hint}")
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the store answered {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, " ({})", self.message.trim_end_matches('.')) }
    }
}

fn find<E: StdError + 'static>(error: &object_store::Error) -> Option<&E> {
    let mut current: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        current = error.source();
    }
    None
}

/// The cause at the end of the chain: the others mostly repeat it, with URLs.
fn innermost(error: &object_store::Error) -> String {
    let mut current: &(dyn StdError + 'static) = error;
    while let Some(source) = current.source() {
        current = source;
    }
    scrub::words(&current.to_string())
}

fn chain_text(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut current = error.source();
    while let Some(source) = current {
        text.push_str(": ");
        text.push_str(&source.to_string());
        current = source.source();
    }
    text
}

/// `2026-01-31T23:59:59Z`, by the civil-from-days rule of the proleptic Gregorian calendar.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 1 March of year 0, so that a leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests;

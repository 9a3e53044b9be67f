//! What S3 says when it refuses: a status, a code and a sentence.
//!
//! Codes and statuses are those of the "Error responses" page of the Amazon S3 API reference.

use hyper::StatusCode;

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// After how many seconds to come again.
    pub(crate) retry_after_s: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Refusal { status, code, message: message.into(), retry_after_s: None }
    }

    pub(crate) fn no_such_key() -> Self {
        Refusal::new(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist.")
    }

    pub(crate) fn no_such_bucket() -> Self {
        Refusal::new(StatusCode::NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist.")
    }

    pub(crate) fn precondition_failed() -> Self {
        let words = "At least one of the pre-conditions you specified did not hold.";
        Refusal::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", words)
    }

    pub(crate) fn invalid_range() -> Self {
        let words = "The requested range is not satisfiable.";
        Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", words)
    }

    pub(crate) fn slow_down(retry_after_s: u64) -> Self {
        let words = "Please reduce your request rate.";
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", words);
        Refusal { retry_after_s: Some(retry_after_s), ..refusal }
    }

    pub(crate) fn expired_token() -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, "ExpiredToken", "The provided token has expired.")
    }

    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, "InvalidArgument", message)
    }

    pub(crate) fn invalid_uri() -> Self {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "InvalidURI",
            "The path or query is not UTF-8, percent-encoded.",
        )
    }

    pub(crate) fn key_too_long() -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, "KeyTooLongError", "Your key is too long.")
    }

    pub(crate) fn too_large() -> Self {
        let words = "Your proposed upload exceeds the maximum allowed size.";
        Refusal::new(StatusCode::BAD_REQUEST, "EntityTooLarge", words)
    }

    pub(crate) fn not_implemented(what: &str) -> Self {
        let words = format!("The lab store does not serve {what}.");
        Refusal::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", words)
    }
}

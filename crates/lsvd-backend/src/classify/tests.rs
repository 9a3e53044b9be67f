//! What errors of `object_store` are taken for. Real HTTP answers are in `cloud/tests.rs`.

use std::time::Duration;

use super::*;

fn http(status: &str, body: &str) -> object_store::Error {
    let text = format!("Server returned non-2xx status code: {status}: {body}");
    object_store::Error::Generic { store: "S3", source: text.into() }
}

fn failure(verb: Verb, status: &str, body: &str) -> Failure {
    match answer(verb, Protocol::S3, &http(status, body)) {
        Answer::Failed(failure) => failure,
        other => panic!("{status} {body}: {other:?}"),
    }
}

fn xml(code: &str, message: &str) -> String {
    format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>")
}

/// Rule 4: a 404 is an absence only where it names the missing key.
#[test]
fn only_a_named_key_is_absent() {
    let sorted = |body: &str| answer(Verb::Get, Protocol::S3, &http("404 Not Found", body));
    assert_eq!(sorted(&xml("NoSuchKey", "gone")), Answer::Absent);
    assert_eq!(sorted(&xml("BlobNotFound", "gone")), Answer::Absent);
    for body in ["", "<html>404 page not found</html>", "not found", &xml("NoSuchUpload", "x")] {
        let failure = failure(Verb::Get, "404 Not Found", body);
        assert_eq!(failure.kind, FailureKind::Misconfigured, "{body}");
        assert!(!failure.detail.contains("<html>"), "{}", failure.detail);
    }
    for code in ["NoSuchBucket", "ContainerNotFound"] {
        assert_eq!(failure(Verb::Get, "404 Not Found", &xml(code, "x")).kind, FailureKind::NotFound);
    }
    let unexplained = object_store::Error::NotFound { path: "x".into(), source: "?".into() };
    assert_eq!(answer(Verb::Get, Protocol::Embedded, &unexplained), Answer::Absent);
    assert!(matches!(answer(Verb::Get, Protocol::S3, &unexplained), Answer::Failed(_)));
}

/// Rule 2: a PUT that collides, or may be about to, is "exists".
#[test]
fn collisions_of_a_put_are_exists() {
    for status in ["409 Conflict", "412 Precondition Failed", "304 Not Modified"] {
        assert_eq!(answer(Verb::Put, Protocol::S3, &http(status, "")), Answer::Exists, "{status}");
    }
    assert_eq!(failure(Verb::Delete, "409 Conflict", "").kind, FailureKind::Unavailable);
}

#[test]
fn failures_are_sorted_by_what_helps() {
    use FailureKind::{Denied, Expired, Full, Misconfigured, Overloaded, Unavailable};
    for (status, code, kind) in [
        ("500 Internal Server Error", "InternalError", Unavailable),
        ("503 Service Unavailable", "SlowDown", Overloaded),
        ("429 Too Many Requests", "", Overloaded),
        ("400 Bad Request", "RequestTimeout", Unavailable),
        ("400 Bad Request", "ExpiredToken", Expired),
        ("401 Unauthorized", "", Denied),
        ("403 Forbidden", "AccessDenied", Denied),
        ("403 Forbidden", "InvalidAccessKeyId", Expired),
        ("400 Bad Request", "AuthorizationHeaderMalformed", Misconfigured),
        ("301 Moved Permanently", "PermanentRedirect", Misconfigured),
        ("307 Temporary Redirect", "", Misconfigured),
        ("405 Method Not Allowed", "", Misconfigured),
        ("501 Not Implemented", "NotImplemented", Misconfigured),
        ("507 Insufficient Storage", "XMinioStorageFull", Full),
    ] {
        assert_eq!(failure(Verb::Put, status, &xml(code, "why")).kind, kind, "{status} {code}");
    }
}

#[test]
fn refusals_say_what_to_check() {
    for (code, says) in [
        ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        ("AccessDenied", "for LIST"),
        ("RequestTimeTooSkewed", "clocks differ"),
    ] {
        let failure = failure(Verb::List, "403 Forbidden", &xml(code, "why."));
        assert!(failure.detail.contains(says) && failure.detail.contains("403"), "{}", failure.detail);
    }
    let skewed = failure(Verb::List, "403 Forbidden", &xml("RequestTimeTooSkewed", "x")).detail;
    assert!(skewed.contains("this host's says 20"), "{skewed}");
}

#[test]
fn an_error_in_a_good_answer_is_an_error() {
    let text = format!("Server returned error response: {}", xml("SlowDown", "later"));
    let error = object_store::Error::Generic { store: "S3", source: text.into() };
    let Answer::Failed(failure) = answer(Verb::Put, Protocol::S3, &error) else { panic!() };
    assert_eq!(failure.kind, FailureKind::Overloaded);
    assert!(failure.detail.contains("SlowDown"), "{}", failure.detail);
}

#[test]
fn disks_fail_by_their_kind() {
    for (io, kind) in [
        (ErrorKind::StorageFull, FailureKind::Full),
        (ErrorKind::QuotaExceeded, FailureKind::Full),
        (ErrorKind::PermissionDenied, FailureKind::Denied),
        (ErrorKind::ReadOnlyFilesystem, FailureKind::Denied),
        (ErrorKind::Other, FailureKind::Unavailable),
    ] {
        let error = object_store::Error::Generic { store: "x", source: Box::new(std::io::Error::from(io)) };
        let Answer::Failed(failure) = answer(Verb::Get, Protocol::Embedded, &error) else { panic!() };
        assert_eq!(failure.kind, kind, "{io}");
    }
}

#[test]
fn times_are_told_in_utc() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_827_696, "2000-02-29T12:34:56Z"),
        (1_709_251_199, "2024-02-29T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), text);
    }
}

/// Found on Azurite: a refused account's key was said to be AWS_ACCESS_KEY_ID.
#[test]
fn a_refusal_names_the_variables_of_its_own_protocol() {
    for (protocol, names, others) in [
        (Protocol::S3, "AWS_ACCESS_KEY_ID", ["AZURE_", "GOOGLE_"]),
        (Protocol::Azure, "AZURE_STORAGE_ACCOUNT_KEY", ["AWS_", "GOOGLE_"]),
        (Protocol::Google, "GOOGLE_SERVICE_ACCOUNT", ["AWS_", "AZURE_"]),
    ] {
        for (status, code) in
            [("403 Forbidden", "AuthorizationFailure"), ("403 Forbidden", ""), ("401 Unauthorized", "")]
        {
            let refused = answer(Verb::List, protocol, &http(status, &xml(code, "no")));
            let Answer::Failed(failure) = refused else { panic!("{refused:?}") };
            assert_eq!(failure.kind, FailureKind::Denied);
            assert!(failure.detail.contains(names), "{}", failure.detail);
            assert!(!others.iter().any(|other| failure.detail.contains(other)), "{}", failure.detail);
        }
    }
}

//! Networked stores against canned answers, and which credentials are looked for where.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::s3::{Credentials, iam_policy, settings};
use super::*;
use crate::bucket::{Bucket, Created};
use crate::error::Error;
use crate::retry::RetryPolicy;
use crate::url::BucketUrl;

const KEYS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "verysecretsecret")];

fn options(pairs: &[(&str, &str)]) -> StoreOptions {
    StoreOptions { environment: Environment::from_pairs(pairs.iter().copied()), ..StoreOptions::default() }
}

pub(crate) fn with_keys(more: &[(&str, &str)]) -> StoreOptions {
    options(&[&KEYS[..], more].concat())
}

pub(crate) fn url(text: &str) -> BucketUrl {
    text.parse().unwrap()
}

fn open_error(text: &str, options: &StoreOptions) -> Error {
    Bucket::open(&url(text), options).expect_err(text)
}

/// A server that gives its answers in order, the last one for ever, and keeps what it was asked.
pub(crate) fn canned(answers: &[&str]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (answers, log): (Vec<String>, _) = (answers.iter().map(|&a| a.to_owned()).collect(), asked.clone());
    std::thread::spawn(move || {
        for served in 0.. {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(n) if n > 0 => request.extend_from_slice(&piece[..n]),
                    _ => break,
                }
            }
            log.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
            let answer = &answers[std::cmp::min(served, answers.len() - 1)];
            let (head, body) = answer.split_once("\n\n").unwrap_or((answer, ""));
            let head = head.replace('\n', "\r\n");
            let len = body.len();
            let _ =
                write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}");
        }
    });
    (endpoint, asked)
}

fn bucket_at(endpoint: &str) -> Bucket {
    let options = StoreOptions { endpoint: Some(endpoint.into()), allow_http: true, ..with_keys(&[]) };
    let soon = RetryPolicy {
        attempt_timeout: Duration::from_secs(5),
        total_limit: Duration::from_secs(3),
        backoff_first: Duration::from_millis(1),
        backoff_max: Duration::from_millis(20),
        ..RetryPolicy::default()
    };
    Bucket::open(&url("s3://bucket/db1"), &options).unwrap().with_retry(soon)
}

pub(crate) fn told(status: &str, code: &str) -> String {
    format!(
        "{status}\nContent-Type: application/xml\n\n<Error><Code>{code}</Code><Message>why</Message></Error>"
    )
}

/// Rule 4 with real HTTP: only a 404 that names the key is an absence.
#[tokio::test]
async fn only_a_404_that_names_the_key_is_an_absence() {
    let (endpoint, _) = canned(&[&told("404 Not Found", "NoSuchKey")]);
    assert_eq!(bucket_at(&endpoint).read_head("log/1", 10).await.unwrap(), None);
    let (endpoint, _) = canned(&[&told("404 Not Found", "NoSuchBucket")]);
    let error = bucket_at(&endpoint).read_range("log/1", 0..9).await.expect_err("no bucket");
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    let (endpoint, _) = canned(&["404 Not Found\nContent-Type: text/html\n\n<html>nginx</html>"]);
    let error = bucket_at(&endpoint).read_head("log/1", 10).await.expect_err("a web server's 404");
    assert!(matches!(error, Error::Misconfigured { .. }), "{error}");
    let (endpoint, _) = canned(&[&told("500 Oops", "NoSuchKey")]);
    let error = bucket_at(&endpoint).read_head("log/1", 10).await.expect_err("a 500 is no absence");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}

/// Every attempt is ours: `object_store` makes none in secret, and a 503 is tried again.
#[tokio::test]
async fn failed_attempts_are_made_again_here() {
    let (endpoint, asked) = canned(&[
        &told("503 Slow Down", "SlowDown"),
        &told("500 Oops", "InternalError"),
        "200 OK\nETag: \"x\"",
    ]);
    let created = bucket_at(&endpoint).create("log/1", "bytes".into()).await.unwrap();
    assert_eq!(created, Created::Done);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    for request in &*asked {
        assert!(request.starts_with("PUT /bucket/db1/log/1 "), "{request}");
        assert!(request.to_ascii_lowercase().contains("if-none-match: *"), "create-only: {request}");
    }
}

/// Rule 2: 412 and 409 are "exists".
#[tokio::test]
async fn collisions_are_exists() {
    for answer in [told("412 Precondition Failed", "PreconditionFailed"), told("409 Conflict", "Conflict")] {
        let (endpoint, asked) = canned(&[&answer]);
        assert_eq!(bucket_at(&endpoint).create("log/1", "x".into()).await.unwrap(), Created::Exists);
        assert_eq!(asked.lock().unwrap().len(), 1);
    }
}

/// No request goes anywhere but to the store that was named: redirects are not followed.
#[tokio::test]
async fn redirects_are_not_followed() {
    let (elsewhere, reached) = canned(&["200 OK\nETag: \"x\""]);
    for status in ["301 Moved Permanently", "307 Temporary Redirect", "302 Found"] {
        let (endpoint, _) = canned(&[&format!("{status}\nLocation: {elsewhere}/bucket/db1/log/1")]);
        let error = bucket_at(&endpoint).create("log/1", "x".into()).await.expect_err("redirected");
        assert!(matches!(error, Error::Misconfigured { .. }), "{error}");
        assert!(error.to_string().contains("AWS_REGION"), "{error}");
    }
    assert_eq!(reached.lock().unwrap().len(), 0, "nobody named that server");
}

/// Rule 5: a store that ignores ranges is told, and its answer is not taken for the range.
#[tokio::test]
async fn ignored_ranges_are_noticed() {
    let (endpoint, _) =
        canned(&["200 OK\nETag: \"x\"\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\n\n0123456789"]);
    let error = bucket_at(&endpoint).read_range("log/1", 2..5).await.expect_err("the whole object came");
    assert!(matches!(error, Error::Misconfigured { .. }), "{error}");
}

/// Rule 4: a listing that breaks off between its pages goes on after its last name, and is returned whole.
#[tokio::test]
async fn a_broken_listing_goes_on_after_its_last_name() {
    let page = |names: &[u8], token: &str| {
        let contents: String = names
            .iter()
            .map(|n| {
                format!(
                    "<Contents><Key>db1/log/{n}</Key><Size>{n}</Size><LastModified>2015-10-21T07:28:00.000Z\
                     </LastModified><ETag>x</ETag></Contents>"
                )
            })
            .collect();
        format!("200 OK\n\n<ListBucketResult>{contents}{token}</ListBucketResult>")
    };
    let more = "<NextContinuationToken>more</NextContinuationToken>";
    let (endpoint, asked) =
        canned(&[&page(&[1, 2], more), &told("503 Slow Down", "SlowDown"), &page(&[3], "")]);
    let listed = bucket_at(&endpoint).list("log", None).await.unwrap();
    let names: Vec<&str> = listed.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["log/1", "log/2", "log/3"]);
    assert_eq!(listed[2].object_bytes, 3);
    assert_eq!(listed[0].last_modified_unix_ms, 1_445_412_480_000);
    let asked = asked.lock().unwrap();
    assert!(asked[1].contains("continuation-token=more"), "{}", asked[1]);
    assert!(asked[2].contains("start-after=db1%2Flog%2F2"), "{}", asked[2]);
}

#[tokio::test]
async fn a_store_that_is_not_there_is_unavailable() {
    let endpoint = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let error = bucket_at(&endpoint).list("log", None).await.expect_err("nobody listens");
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

/// Rule 4: a TLS handshake and a connection that break off are outages like others, and the message names the host. (A name
/// that does not resolve is `e2e lab-names`: how long a host's resolver takes to say so is its own matter.)
#[tokio::test]
async fn connections_that_break_off_are_unavailable_and_named() {
    let breaks_off = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = breaks_off.local_addr().unwrap().to_string();
    std::thread::spawn(move || breaks_off.incoming().for_each(drop));
    for endpoint in [format!("https://{address}"), format!("http://{address}")] {
        let error = bucket_at(&endpoint).read_head("log/1", 10).await.expect_err(&endpoint);
        assert!(error.is_retryable(), "{endpoint}: {error}");
        // On a machine too busy to break a connection off in time it is silence, which has no host.
        let named = error.to_string().contains(&address) || error.to_string().contains("no answer within");
        assert!(named, "{endpoint}: {error}");
        assert!(error.to_string().contains("attempts"), "{endpoint}: {error}");
    }
}

/// Rule 11: nothing that opens, fails or is printed shows a secret.
#[tokio::test]
async fn secrets_are_not_shown() {
    let (endpoint, _) = canned(&[&told("403 Forbidden", "SignatureDoesNotMatch")]);
    let bucket = bucket_at(&endpoint);
    let error = bucket.list("", None).await.expect_err("refused");
    for text in
        [error.to_string(), format!("{error:?}"), format!("{bucket:?}"), format!("{:?}", with_keys(&[]))]
    {
        assert!(!text.contains("verysecret"), "{text}");
    }
    // Builders that choke on a secret and quote it.
    for (text, pairs) in [
        (
            "az://c/db1",
            &[("AZURE_STORAGE_ACCOUNT_NAME", "me"), ("AZURE_STORAGE_ACCOUNT_KEY", "not!base64!secret")][..],
        ),
        (
            "az://c/db1",
            &[("AZURE_STORAGE_ACCOUNT_NAME", "me"), ("AZURE_STORAGE_SAS_TOKEN", "secret!without!pairs")],
        ),
        ("gs://b/db1", &[("GOOGLE_SERVICE_ACCOUNT_KEY", "secret!not!json")]),
        ("gs://b/db1", &[("GOOGLE_SERVICE_ACCOUNT_KEY", r#"{"private_key": ["secret!in!json"]}"#)]),
        ("s3://b/db1", &[("AWS_ENDPOINT_URL", "https://me:secret!pw@host")]),
        ("s3://b/db1", &[("AWS_ENDPOINT_URL", "secret!no!url")]),
    ] {
        let error = open_error(text, &options(pairs));
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(!shown.contains("secret!") && !shown.contains("!json"), "{shown}");
        }
    }
}

#[test]
fn credentials_are_looked_for_in_order() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let file = "[default]\naws_access_key_id=FILE\naws_secret_access_key=x\nregion=eu-west-3\n[other]\naws_access_key_id=OTHER\naws_secret_access_key=x\n";
    std::fs::write(home.path().join(".aws/credentials"), file).unwrap();
    let home = ("HOME", home.path().to_str().unwrap());
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:x")];
    let found = |options: StoreOptions| match settings("bucket", &options).map(|s| s.credentials) {
        Ok(Credentials::Unsigned) => "unsigned".to_owned(),
        Ok(Credentials::Static(keys) | Credentials::Profile(keys)) => keys.access_key_id,
        Ok(Credentials::Role(names)) => names[0].to_owned(),
        Ok(Credentials::Instance) => "instance".to_owned(),
        Err(failure) => failure.detail,
    };
    assert_eq!(found(with_keys(&[home])), "AKIAEXAMPLE");
    assert_eq!(found(options(&[home])), "FILE");
    assert_eq!(found(options(&[home, ("AWS_PROFILE", "other"), web[0], web[1]])), "OTHER");
    assert_eq!(found(options(&web)), "AWS_WEB_IDENTITY_TOKEN_FILE");
    assert_eq!(
        found(options(&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/c")])),
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
    );
    assert_eq!(found(options(&[])), "instance");
    assert_eq!(found(StoreOptions { skip_signature: true, ..with_keys(&[]) }), "unsigned");
    assert!(found(options(&[("AWS_ACCESS_KEY_ID", "x")])).contains("AWS_SECRET_ACCESS_KEY is not"));
    let forbidden = StoreOptions { instance_credentials: false, ..options(&[]) };
    assert!(found(forbidden).contains("no credentials"));
}

/// Never a request anywhere but to the store that was named: no metadata service is asked for a custom endpoint.
#[test]
fn roles_are_not_for_custom_endpoints() {
    for (text, endpoint, pairs) in [
        ("s3://b/x", "https://s3.example.org", &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/c")][..]),
        (
            "s3://b/x",
            "https://s3.example.org",
            &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "r")],
        ),
        ("az://c/x", "https://blob.example.org", &[("AZURE_STORAGE_ACCOUNT_NAME", "me")]),
        ("gs://b/x", "https://gcs.example.org", &[]),
    ] {
        let options = StoreOptions { endpoint: Some(endpoint.into()), ..options(pairs) };
        let error = open_error(text, &options);
        assert!(matches!(error, Error::Denied { .. }), "{text}: {error}");
        let unsigned = StoreOptions { skip_signature: true, ..options };
        Bucket::open(&url(text), &unsigned).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn regions_and_endpoints_are_as_documented() {
    let region = |options: &StoreOptions| settings("bucket", options).map(|s| s.region).ok().unwrap();
    assert_eq!(region(&with_keys(&[])), "us-east-1");
    assert_eq!(region(&with_keys(&[("AWS_REGION", "eu-central-1")])), "eu-central-1");
    assert_eq!(region(&with_keys(&[("AWS_DEFAULT_REGION", "eu-west-1")])), "eu-west-1");
    let r2 = ("AWS_ENDPOINT_URL", "https://account.r2.cloudflarestorage.com");
    assert_eq!(region(&with_keys(&[r2, ("AWS_REGION", "eu-west-1")])), "auto");
    let given = StoreOptions { region: Some("garage".into()), ..with_keys(&[r2]) };
    assert_eq!(region(&given), "garage");

    let endpoint = |options: &StoreOptions| {
        settings("bucket", options).map(|s| s.endpoint.map(|url| url.to_string())).map_err(|f| f.detail)
    };
    assert_eq!(endpoint(&with_keys(&[])), Ok(None));
    let both = [("AWS_ENDPOINT_URL", "https://a"), ("AWS_ENDPOINT_URL_S3", "https://b")];
    assert_eq!(endpoint(&with_keys(&both)), Ok(Some("https://b/".into())));
    let http = ("AWS_ENDPOINT_URL", "http://h:9000");
    assert!(endpoint(&with_keys(&[http])).unwrap_err().contains("plain http"));
    assert_eq!(endpoint(&with_keys(&[http, ("AWS_ALLOW_HTTP", "true")])), Ok(Some("http://h:9000/".into())));
    let virtual_hosted = StoreOptions { path_style: Some(false), ..with_keys(&both) };
    assert_eq!(endpoint(&virtual_hosted), Ok(Some("https://bucket.b/".into())));
    let by_address = StoreOptions {
        path_style: Some(false),
        endpoint: Some("https://127.0.0.1:9000".into()),
        ..with_keys(&[])
    };
    assert!(endpoint(&by_address).unwrap_err().contains("path style"));
    for wrong in ["https://h?x=1", "ftp://h", "h:9000", "https://u:p@h"] {
        assert!(endpoint(&with_keys(&[("AWS_ENDPOINT_URL", wrong)])).is_err(), "{wrong}");
    }
}

/// An image without CA certificates works, and so does one with malformed ones; http needs none at all.
#[test]
fn clients_are_built_without_the_hosts_certificates() {
    let garbage = tempfile::tempdir().unwrap();
    let (file, odd) = (garbage.path().join("bundle"), garbage.path().join("odd"));
    std::fs::write(&file, "no certificates").unwrap();
    // A PEM frame around what is no certificate: it parses, and the verifier refuses it.
    std::fs::write(&odd, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let nowhere = ("SSL_CERT_FILE", "/nonexistent/bundle");
    for variable in [
        nowhere,
        ("SSL_CERT_DIR", "/nonexistent"),
        ("SSL_CERT_FILE", file.to_str().unwrap()),
        ("SSL_CERT_FILE", odd.to_str().unwrap()),
        ("SSL_CERT_DIR", garbage.path().to_str().unwrap()),
    ] {
        for endpoint in ["http://127.0.0.1:9", "https://127.0.0.1:9"] {
            let options = StoreOptions {
                endpoint: Some(endpoint.into()),
                allow_http: endpoint.starts_with("http:"),
                ..with_keys(&[variable])
            };
            Bucket::open(&url("s3://bucket/db1"), &options).unwrap_or_else(|e| panic!("{variable:?}: {e}"));
        }
    }
    assert!(roots::bundled().len() > 100);
    assert!(roots::of_host(&Environment::from_pairs([nowhere])).is_empty());
}

#[test]
fn clouds_open_with_the_usual_variables() {
    let azure = [("AZURE_STORAGE_ACCOUNT_NAME", "me"), ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")];
    Bucket::open(&url("az://container/db1"), &options(&azure)).unwrap();
    Bucket::open(&url("az://container/db1"), &options(&[("AZURE_STORAGE_USE_EMULATOR", "true")])).unwrap();
    Bucket::open(&url("gs://bucket/db1"), &options(&[("GOOGLE_BEARER_TOKEN", "t")])).unwrap();
    Bucket::open(&url("s3://bucket/db1"), &with_keys(&[])).unwrap();
}

#[test]
fn the_policy_names_the_prefix_and_four_rights() {
    let policy = iam_policy(&url("s3://bucket/a/db1")).unwrap();
    for part in [
        r#""arn:aws:s3:::bucket""#,
        r#""arn:aws:s3:::bucket/a/db1/*""#,
        r#"["a/db1", "a/db1/*"]"#,
        r#"["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]"#,
        r#""s3:ListBucket""#,
    ] {
        assert!(policy.contains(part), "{part} in {policy}");
    }
    assert_eq!(policy.matches(['{', '[']).count(), policy.matches(['}', ']']).count());
    assert!(!iam_policy(&url("s3://bucket")).unwrap().contains("Condition"));
    assert_eq!(iam_policy(&url("file:///a/db1")), None);
}

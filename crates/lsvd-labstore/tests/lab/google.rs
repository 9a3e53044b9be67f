//! Google's protocol, as lsvd's own client and a plain one meet it.

use lsvd_backend::{Bucket, Created, Environment, Error, StoreOptions};
use lsvd_labstore::{Fault, LabStore, Rule, Verb};

use super::{bucket, lab, plain};

/// lsvd's own client, with a service account's key that asks nobody for a token.
fn google(lab: &LabStore, url: &str) -> Bucket {
    let key =
        r#"{"disable_oauth":true,"client_email":"lab@localhost","private_key":"lab","private_key_id":"lab"}"#;
    let options = StoreOptions {
        endpoint: Some(lab.endpoint()),
        allow_http: true,
        environment: Environment::from_pairs([("GOOGLE_SERVICE_ACCOUNT_KEY", key)]),
        ..StoreOptions::default()
    };
    Bucket::open(&url.parse().unwrap(), &options).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lab_store_conforms_by_googles_protocol() {
    let lab = lab().await;
    lsvd_backend::conformance::run(google(&lab, "gs://lab/prefix")).await;
    // A prefix with what has to be escaped, in paths and in XML.
    lsvd_backend::conformance::run(google(&lab, "gs://lab/a b&c+é/<x>")).await;
    let stats = lab.stats();
    assert_eq!(stats.in_flight, 0, "{stats:?}");
    assert!(stats.outcome(Verb::Put, "412") > 0, "{stats:?}");
    assert!(stats.outcome(Verb::Delete, "404") > 0, "what is not there is said to be: {stats:?}");
}

/// Rule 2: the condition that is sent is the one that is checked: a store that ignores it is found out.
#[tokio::test]
async fn a_store_that_ignores_googles_condition_is_found_out() {
    let lab = lab().await;
    let bucket = google(&lab, "gs://lab/db1");
    lab.add_fault(Rule::new(Fault::IgnoreCondition));
    let report = bucket.probe("probe", "n").await.unwrap();
    assert!(report.verdict().is_err(), "{report:?}");
}

/// Rule 4: by this protocol, too, only the key itself is ever absent.
#[tokio::test]
async fn only_the_key_itself_is_absent() {
    let lab = lab().await;
    let missing = google(&lab, "gs://no-such-bucket/db1");
    for error in [
        missing.read_head("k", 10).await.map(|_| ()).unwrap_err(),
        missing.list("", None).await.map(|_| ()).unwrap_err(),
        missing.delete("k").await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }
}

/// One bucket, two protocols: what one created the other finds taken, and reads.
#[tokio::test]
async fn both_protocols_see_one_bucket() {
    let lab = lab().await;
    let (google, s3) = (google(&lab, "gs://lab/db1"), bucket(&lab, "db1"));
    assert_eq!(google.create("log/1", "first".into()).await.unwrap(), Created::Done);
    assert_eq!(s3.create("log/1", "second".into()).await.unwrap(), Created::Exists);
    assert_eq!(google.create("log/1", "third".into()).await.unwrap(), Created::Exists);
    assert_eq!(&s3.read_head("log/1", 100).await.unwrap().unwrap().bytes[..], b"first");
}

#[tokio::test]
async fn answers_have_a_generation() {
    let lab = lab().await;
    let url = format!("{}/lab/k", lab.endpoint());
    let put = plain().put(&url).bearer_auth("t").body("x").send().await.unwrap();
    let get = plain().get(&url).bearer_auth("t").send().await.unwrap();
    assert_eq!(put.headers()["x-goog-generation"], get.headers()["x-goog-generation"]);
    let s3 = plain().get(&url).send().await.unwrap();
    assert!(!s3.headers().contains_key("x-goog-generation"));
    let missing = plain().delete(format!("{url}2")).bearer_auth("t").send().await.unwrap();
    assert_eq!(missing.status(), 404);
}

//! What it serves, and what it refuses.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use lsvd_backend::Created;
use lsvd_labstore::{Latency, Line, Stats, Verb};
use reqwest::{Method, Response};

use super::{bucket, lab, plain};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lab_store_conforms() {
    let lab = lab().await;
    lsvd_backend::conformance::run(bucket(&lab, "prefix")).await;
    // A prefix with what has to be escaped, in paths and in XML.
    lsvd_backend::conformance::run(bucket(&lab, "a b&c+é/<x>")).await;
    let stats = lab.stats();
    assert_eq!(stats.in_flight, 0, "{stats:?}");
    assert!(stats.outcome(Verb::Put, "412") > 0, "{stats:?}");
}

/// Rule 2: of sixteen creators at once exactly one wins, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_sixteen_creators_wins() {
    let lab = lab().await;
    // So that creators meet on a machine that is busy with other things, too.
    let latency = Latency { verbs: vec![Verb::Put], median_ms: 5.0, p99_ms: 0.0 };
    lab.set_line(&Line { latency: vec![latency], ..Line::default() });
    let bucket = bucket(&lab, "race");
    for race in 0..50 {
        let name = format!("log/{race}");
        let creators = (0..16_u8).map(|racer| {
            let (bucket, name) = (bucket.clone(), name.clone());
            tokio::spawn(async move { bucket.create(&name, vec![racer; 5_000].into()).await.unwrap() })
        });
        let outcomes: Vec<Created> = join_all(creators).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<usize> = (0..16).filter(|&racer| outcomes[racer] == Created::Done).collect();
        assert_eq!(winners.len(), 1, "race {race}");
        let stored = bucket.read_range(&name, 0..5_000).await.unwrap().unwrap();
        assert!(stored.iter().all(|&byte| usize::from(byte) == winners[0]), "race {race}");
    }
    let stats = lab.stats();
    assert_eq!((stats.outcome(Verb::Put, "200"), stats.outcome(Verb::Put, "412")), (50, 750));
    assert!(stats.in_flight_max > 1);
}

async fn said(response: reqwest::Result<Response>) -> (u16, String) {
    let response = response.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn errors_are_those_of_s3() {
    let lab = lab().await;
    let url = |path: &str| format!("{}/{path}", lab.endpoint());
    let client = plain();
    let put = client.put(url("lab/k")).body("0123456789").send().await.unwrap();
    assert_eq!(put.status(), 200);
    let tag = put.headers()["etag"].to_str().unwrap().to_owned();

    let expect = async |request: reqwest::RequestBuilder, status: u16, code: &str| {
        let (got, body) = said(request.send().await).await;
        assert_eq!(got, status, "{body}");
        assert!(body.contains(&format!("<Code>{code}</Code>")), "{body}");
    };
    expect(client.get(url("lab/missing")), 404, "NoSuchKey").await;
    expect(client.get(url("nothing/k")), 404, "NoSuchBucket").await;
    expect(client.get(url("nothing?list-type=2")), 404, "NoSuchBucket").await;
    expect(client.put(url("nothing/k")).body("x"), 404, "NoSuchBucket").await;
    expect(client.put(url("lab/k")).header("if-none-match", "*"), 412, "PreconditionFailed").await;
    expect(client.put(url("lab/k")).header("if-match", "\"other\""), 412, "PreconditionFailed").await;
    expect(client.put(url("lab/new")).header("if-match", &tag), 404, "NoSuchKey").await;
    expect(client.get(url("lab/k")).header("range", "bytes=10-20"), 416, "InvalidRange").await;
    expect(client.get(url("lab")), 400, "InvalidArgument").await;
    expect(client.get(url("lab?list-type=2&continuation-token=x")), 400, "InvalidArgument").await;
    expect(client.request(Method::POST, url("lab?delete")), 501, "NotImplemented").await;
    expect(client.put(url("lab/k?partNumber=1&uploadId=x")), 501, "NotImplemented").await;
    let streamed =
        client.put(url("lab/k")).header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    expect(streamed, 501, "NotImplemented").await;

    let (status, body) = said(client.get(url("lab/k")).header("range", "bytes=-3").send().await).await;
    assert_eq!((status, body.as_str()), (206, "789"));
    let head = client.head(url("lab/k")).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "10"));
    assert_eq!(head.headers()["etag"].to_str().unwrap(), tag);
    assert_eq!(client.head(url("lab/missing")).send().await.unwrap().status(), 404);
    assert_eq!(client.head(url("nothing")).send().await.unwrap().status(), 404);
    assert_eq!(client.put(url("another")).send().await.unwrap().status(), 200);
    assert_eq!(client.head(url("another")).send().await.unwrap().status(), 200);
    let matched = client.put(url("lab/k")).header("if-match", &tag).body("new").send().await.unwrap();
    assert_eq!(matched.status(), 200);
    assert_eq!(client.delete(url("lab/missing")).send().await.unwrap().status(), 204);
}

#[tokio::test]
async fn listings_come_in_pages() {
    let lab = lab().await;
    let bucket = bucket(&lab, "");
    for n in 0..1_001 {
        bucket.create(&format!("log/{n:04}"), "x".into()).await.unwrap();
    }
    lab.reset_stats();
    assert_eq!(bucket.list("log", None).await.unwrap().len(), 1_001);
    assert_eq!(lab.stats().of(Verb::List).requests, 2, "a thousand, and one");
    let url = format!("{}/lab?list-type=2&prefix=log/&max-keys=7&start-after=log/0990", lab.endpoint());
    let (_, body) = said(plain().get(url).send().await).await;
    assert!(body.contains("<IsTruncated>true</IsTruncated>"), "{body}");
    let keys: BTreeSet<&str> =
        body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()).collect();
    assert_eq!((keys.len(), keys.first(), keys.last()), (7, Some(&"log/0991"), Some(&"log/0997")));
}

#[tokio::test]
async fn the_control_endpoint_sets_faults_and_counts() {
    let lab = lab().await;
    let client = plain();
    let control = |path: &str| format!("{}/_lab/{path}", lab.endpoint());
    let rules = r#"[{"fault":"slow-down","verbs":["GET"],"count":1},{"fault":"reset","key":"never"}]"#;
    assert_eq!(client.post(control("faults")).body(rules).send().await.unwrap().status(), 204);
    assert_eq!(lab.faults().len(), 2);
    let (status, words) = said(client.post(control("faults")).body("{}").send().await).await;
    assert_eq!(status, 400, "{words}");
    let struck = client.get(format!("{}/lab/k", lab.endpoint())).send().await.unwrap();
    assert_eq!((struck.status().as_u16(), struck.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    let (_, said_rules) = said(client.get(control("faults")).send().await).await;
    assert!(said_rules.contains(r#""struck":1"#), "{said_rules}");
    let (_, stats) = said(client.get(control("stats")).send().await).await;
    assert!(stats.contains(r#""GET":{"requests":1"#) && stats.contains(r#""503":1"#), "{stats}");
    assert_eq!(client.delete(control("faults")).send().await.unwrap().status(), 204);
    assert!(lab.faults().is_empty());

    client.put(format!("{}/lab/k", lab.endpoint())).body("x").send().await.unwrap();
    assert_eq!(lab.stats().objects, 1);
    assert_eq!(client.delete(control("objects")).send().await.unwrap().status(), 204);
    assert_eq!(client.delete(control("stats")).send().await.unwrap().status(), 204);
    assert_eq!(lab.stats(), Stats { in_flight_max: 0, ..Stats::default() });
    assert_eq!(client.get(control("nothing")).send().await.unwrap().status(), 404);
}

/// What is no HTTP, or no whole request, ends its connection and nothing else.
#[tokio::test]
async fn garbage_does_no_harm() {
    use tokio::io::AsyncWriteExt;
    let lab = lab().await;
    let address = lab.endpoint().trim_start_matches("http://").to_owned();
    for garbage in ["\0\u{1}\u{2}garbage\r\n\r\n", "PUT /lab/k HTTP/1.1\r\nContent-Length: 1000\r\n\r\nx"] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(garbage.as_bytes()).await.unwrap();
    }
    let huge = format!("PUT /lab/k HTTP/1.1\r\nContent-Length: {}\r\n\r\n", u64::MAX / 2);
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    stream.write_all(huge.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let bucket = bucket(&lab, "");
    assert_eq!(bucket.read_head("k", 10).await.unwrap(), None, "no part of a body is an object");
    assert_eq!(bucket.create("k", "x".into()).await.unwrap(), Created::Done);
}

#[tokio::test]
async fn a_store_that_is_dropped_is_gone() {
    let lab = lab().await;
    let client = plain();
    let url = format!("{}/lab/k", lab.endpoint());
    assert_eq!(client.put(&url).body("x").send().await.unwrap().status(), 200);
    drop(lab);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(client.get(&url).send().await.is_err());
}

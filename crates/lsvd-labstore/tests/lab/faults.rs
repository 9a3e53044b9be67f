//! Each fault as a client sees it, and what lsvd's probe makes of a store that lies.

use std::time::{Duration, Instant};

use lsvd_backend::{Bucket, Created, Environment, Error, RetryPolicy, StoreOptions};
use lsvd_labstore::{Fault, LabStore, Rule, Verb};

use super::{bucket, hasty, lab, plain};

fn k(lab: &LabStore) -> String {
    format!("{}/lab/k", lab.endpoint())
}

/// The innermost cause of an HTTP client's error, as words.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[tokio::test]
async fn slow_down_is_a_503_with_retry_after_and_does_nothing() {
    let lab = lab().await;
    lab.add_fault(Rule::new(Fault::SlowDown).verb(Verb::Put).count(1).ms(2_500));
    let answer = plain().put(k(&lab)).body("x").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "3"));
    assert!(answer.text().await.unwrap().contains("<Code>SlowDown</Code>"));
    assert_eq!(lab.stats().objects, 0);
    assert_eq!(lab.stats().outcome(Verb::Put, "503"), 1);
}

#[tokio::test]
async fn a_reset_is_a_reset_and_does_nothing() {
    let lab = lab().await;
    lab.add_fault(Rule::new(Fault::Reset).count(1));
    let error = plain().put(k(&lab)).body("x").send().await.unwrap_err();
    assert!(cause(&error).contains("reset by peer"), "{error:?}");
    assert_eq!(lab.stats().objects, 0);
    assert_eq!(lab.stats().outcome(Verb::Put, "reset"), 1);
}

#[tokio::test]
async fn a_hang_has_no_answer_and_does_nothing() {
    let lab = lab().await;
    lab.add_fault(Rule::new(Fault::Hang).count(1));
    let limit = Duration::from_millis(300);
    // More than fits into the sockets' buffers.
    let error = plain().put(k(&lab)).body(vec![7; 32 << 20]).timeout(limit).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    // The store notices that its client left, also with a body that it does nothing with.
    let began = Instant::now();
    while lab.stats().in_flight > 0 {
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", lab.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((lab.stats().objects, lab.stats().outcome(Verb::Put, "client-left")), (0, 1));
}

#[tokio::test]
async fn a_hang_with_an_end_is_answered_late() {
    let lab = lab().await;
    lab.add_fault(Rule::new(Fault::Hang).count(1).ms(200));
    let began = Instant::now();
    let answer = plain().put(k(&lab)).body("x").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(began.elapsed() >= Duration::from_millis(200));
}

/// As a PUT of a writer that another has taken over from.
#[tokio::test]
async fn a_hang_with_an_end_takes_effect_when_nobody_waits() {
    let lab = lab().await;
    lab.add_fault(Rule::new(Fault::Hang).count(1).ms(600));
    let limit = Duration::from_millis(200);
    let error = plain().put(k(&lab)).body("late").timeout(limit).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(lab.stats().objects, 0);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(plain().get(k(&lab)).send().await.unwrap().text().await.unwrap(), "late");
}

#[tokio::test]
async fn a_truncated_body_is_half_of_what_it_says() {
    let lab = lab().await;
    plain().put(k(&lab)).body(vec![7; 100_000]).send().await.unwrap();
    lab.add_fault(Rule::new(Fault::Truncate).verb(Verb::Get).count(1));
    let mut answer = plain().get(k(&lab)).send().await.unwrap();
    assert_eq!(answer.headers()["content-length"].to_str().unwrap(), "100000");
    let mut got = 0;
    let error = loop {
        match answer.chunk().await {
            Ok(chunk) => got += chunk.expect("the end is no end").len(),
            Err(error) => break error,
        }
    };
    assert_eq!(got, 50_000);
    assert!(error.is_body() || error.is_decode(), "{error:?}");
    assert_eq!(lab.stats().outcome(Verb::Get, "truncated"), 1);
    // lsvd's own client notices, and asks again.
    lab.add_fault(Rule::new(Fault::Truncate).count(1));
    let read = bucket(&lab, "").read_range("k", 0..100_000).await.unwrap().unwrap();
    assert_eq!(read.len(), 100_000);
    assert_eq!(lab.stats().outcome(Verb::Get, "truncated"), 2);
}

/// Rule 2: a lost answer comes back as "exists".
#[tokio::test]
async fn a_lost_answer_is_done_all_the_same() {
    let lab = lab().await;
    lab.add_fault(Rule::new(Fault::LoseAnswer).verb(Verb::Put).count(1));
    let created = bucket(&lab, "").create("k", "mine".into()).await.unwrap();
    assert_eq!(created, Created::Exists);
    let stats = lab.stats();
    assert_eq!((stats.outcome(Verb::Put, "answer-lost"), stats.outcome(Verb::Put, "412")), (1, 1));
    assert_eq!(plain().get(k(&lab)).send().await.unwrap().text().await.unwrap(), "mine");
}

#[tokio::test]
async fn a_stale_listing_leaves_out_what_is_young() {
    let lab = lab().await;
    let bucket = bucket(&lab, "");
    bucket.create("log/1", "x".into()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    bucket.create("log/2", "x".into()).await.unwrap();
    lab.add_fault(Rule::new(Fault::StaleListing).ms(1_000));
    let names = |listed: Vec<lsvd_backend::Listed>| listed.into_iter().map(|l| l.name).collect::<Vec<_>>();
    assert_eq!(names(bucket.list("log", None).await.unwrap()), ["log/1"]);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(names(bucket.list("log", None).await.unwrap()), ["log/1", "log/2"]);
}

/// Rule 2: what ignores `If-None-Match` is found out, and refused.
#[tokio::test]
async fn the_probe_refuses_a_store_that_ignores_conditions() {
    let lab = lab().await;
    let good = bucket(&lab, "").probe("probe", "good").await.unwrap();
    assert_eq!(good.verdict(), Ok(()));
    lab.add_fault(Rule::new(Fault::IgnoreCondition));
    let report = bucket(&lab, "").probe("probe", "lax").await.unwrap();
    assert!(report.verdict().is_err_and(|words| words.contains("overwrites")), "{report:?}");
    assert!(report.reads_hold(), "{report:?}");
}

/// Rule 4: a listing that leaves something out is found out, and refused.
#[tokio::test]
async fn the_probe_refuses_a_store_with_stale_listings() {
    let lab = lab().await;
    lab.add_fault(Rule::new(Fault::StaleListing));
    let report = bucket(&lab, "").probe("probe", "stale").await.unwrap();
    assert!(report.verdict().is_err_and(|words| words.contains("does not show")), "{report:?}");
    assert!(!report.list_after_write, "{report:?}");
}

/// Rule 4: whatever strikes, it is an error or a retry, and never an absence or a shorter listing.
#[tokio::test]
async fn no_fault_is_an_absence() {
    let lab = lab().await;
    let good = bucket(&lab, "");
    for n in 0..10 {
        good.create(&format!("log/{n}"), "x".into()).await.unwrap();
    }
    for fault in [Fault::SlowDown, Fault::Reset, Fault::Hang, Fault::Truncate, Fault::LoseAnswer] {
        lab.add_fault(Rule::new(fault).key("log/"));
        let hasty: Bucket = hasty(&lab, "");
        let read = hasty.read_head("log/1", 10).await;
        assert!(matches!(read, Err(Error::Unavailable { .. })), "{fault:?}: {read:?}");
        let listed = hasty.list("log", None).await;
        assert!(matches!(listed, Err(Error::Unavailable { .. })), "{fault:?}: {listed:?}");
        lab.clear_faults();
        assert_eq!(good.list("log", None).await.unwrap().len(), 10, "{fault:?}");
    }
}

/// A store that says when to come again is not asked before, and not by all who were told at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_store_is_left_alone_as_long_as_it_asks() {
    let lab = lab().await;
    lab.add_fault(Rule::new(Fault::SlowDown).verb(Verb::Put).count(4).ms(1_000));
    let bucket = bucket(&lab, "");
    let began = Instant::now();
    let creates = (0..4).map(|n| {
        let bucket = bucket.clone();
        async move {
            bucket.create(&format!("log/{n}"), "x".into()).await.unwrap();
            began.elapsed()
        }
    });
    let took = futures::future::join_all(creates).await;
    assert!(took.iter().all(|took| (1_000..1_900).contains(&took.as_millis())), "{took:?}");
    let stats = lab.stats();
    assert_eq!(
        (stats.outcome(Verb::Put, "503"), stats.outcome(Verb::Put, "200")),
        (4, 4),
        "asked once too often"
    );
}

/// Credentials that expire while they are in use are waited for, and renewed without a restart: in the file of profiles.
/// Those of the environment can not be, and what was never good is told at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_credentials_are_renewed_without_a_restart() {
    let lab = lab().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("credentials");
    let renew = |key: &str| {
        let text =
            format!("[default]\naws_access_key_id={key}\naws_secret_access_key=s\naws_session_token=t\n");
        std::fs::write(directory.path().join("new"), text).unwrap();
        std::fs::rename(directory.path().join("new"), &path).unwrap();
    };
    renew("OLD");
    let options = || StoreOptions {
        endpoint: Some(lab.endpoint()),
        allow_http: true,
        environment: Environment::from_pairs([("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap())]),
        ..StoreOptions::default()
    };
    let opened = || Bucket::open(&"s3://lab/db1".parse().unwrap(), &options()).unwrap();
    let profile = opened();
    profile.create("log/1", "x".into()).await.unwrap();
    let environment = bucket(&lab, "db1");
    environment.create("log/2", "x".into()).await.unwrap();

    lab.add_fault(Rule::new(Fault::ExpiredToken).but_for_access_key("NEW"));
    for denied in [environment.create("log/3", "x".into()).await, opened().create("log/3", "x".into()).await]
    {
        let error = denied.unwrap_err();
        assert!(matches!(error, Error::Denied { .. }), "{error}");
        assert!(error.to_string().contains("ExpiredToken"), "{error}");
    }
    let waits = tokio::spawn({
        let profile = profile.clone();
        async move { (profile.read_head("log/1", 10).await, profile.create("log/4", "x".into()).await) }
    });
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(!waits.is_finished(), "expired and answered");
    renew("NEW");
    let (read, created) = waits.await.unwrap();
    assert!(read.unwrap().is_some());
    assert_eq!(created.unwrap(), Created::Done);
    // Rule 10: not for ever.
    lab.clear_faults();
    lab.add_fault(Rule::new(Fault::ExpiredToken));
    let limits = RetryPolicy { total_limit: Duration::from_secs(1), ..RetryPolicy::default() };
    let error = profile.with_retry(limits).create("log/5", "x".into()).await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }) && error.to_string().contains("gave up"), "{error}");
}

/// Rule 10: what a store asks for is followed for a quarter of the total limit at most.
#[tokio::test]
async fn an_absurd_retry_after_is_bounded() {
    let lab = lab().await;
    lab.add_fault(Rule::new(Fault::SlowDown).count(1).ms(86_400_000));
    let limits = RetryPolicy { total_limit: Duration::from_secs(4), ..RetryPolicy::default() };
    let began = Instant::now();
    assert_eq!(bucket(&lab, "").with_retry(limits).create("k", "x".into()).await.unwrap(), Created::Done);
    assert!((1_000..2_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

/// While a quarter of the requests are struck by what passes, a client that tries again sees nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_hide_what_passes() {
    let lab = lab().await;
    for fault in [Fault::SlowDown, Fault::Reset, Fault::Truncate] {
        lab.add_fault(Rule::new(fault).rate(0.1));
    }
    let bucket = bucket(&lab, "prefix");
    for n in 0..100 {
        assert_eq!(bucket.create(&format!("log/{n:03}"), "x".into()).await.unwrap(), Created::Done);
    }
    assert_eq!(bucket.list("log", None).await.unwrap().len(), 100);
    let stats = lab.stats();
    assert!(stats.outcome(Verb::Put, "503") > 0 && stats.outcome(Verb::Put, "reset") > 0, "{stats:?}");
    assert_eq!(stats.outcome(Verb::Put, "200"), 100);
}

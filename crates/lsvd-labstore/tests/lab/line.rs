//! The line as a client sees it: how late answers begin, and how much gets through.

use std::time::{Duration, Instant};

use futures::future::join_all;
use lsvd_labstore::{Latency, Line, Verb};

use super::{bucket, lab};

const MIB: u64 = 1 << 20;

fn is_about(took: Duration, expected_ms: u128) {
    // Not less, but for what a burst may catch up; more on a loaded machine.
    let ms = took.as_millis();
    assert!((expected_ms - 20..expected_ms * 4).contains(&ms), "{ms} ms instead of {expected_ms}");
}

#[tokio::test]
async fn answers_begin_late() {
    let lab = lab().await;
    let latency = Latency { verbs: vec![Verb::Put], median_ms: 300.0, p99_ms: 0.0 };
    lab.set_line(&Line { latency: vec![latency], ..Line::default() });
    let bucket = bucket(&lab, "");
    let began = Instant::now();
    bucket.create("k", "x".into()).await.unwrap();
    is_about(began.elapsed(), 300);
    // The time to the first byte is no limit of how many.
    let began = Instant::now();
    join_all((0..10).map(|n| {
        let bucket = bucket.clone();
        async move { bucket.create(&format!("log/{n}"), "x".into()).await.unwrap() }
    }))
    .await;
    is_about(began.elapsed(), 300);
    assert_eq!(lab.stats().in_flight_max, 10);
    let began = Instant::now();
    bucket.read_head("k", 1).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(250));
}

#[tokio::test]
async fn bodies_share_each_direction() {
    let lab = lab().await;
    let bucket = bucket(&lab, "");
    let mib: bytes::Bytes = vec![7; 1 << 20].into();
    lab.set_line(&Line { up_bytes_per_s: Some(4 * MIB), ..Line::default() });
    let began = Instant::now();
    join_all((0..4).map(|n| {
        let (bucket, mib) = (bucket.clone(), mib.clone());
        async move { bucket.create(&format!("log/{n}"), mib.into()).await.unwrap() }
    }))
    .await;
    is_about(began.elapsed(), 1_000);
    let began = Instant::now();
    bucket.read_range("log/0", 0..MIB).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(220), "the other direction is free");

    lab.set_line(&Line { down_bytes_per_s: Some(4 * MIB), ..Line::default() });
    let began = Instant::now();
    let read = join_all((0..4).map(|n| {
        let bucket = bucket.clone();
        async move { bucket.read_range(&format!("log/{n}"), 0..MIB).await.unwrap().unwrap() }
    }))
    .await;
    is_about(began.elapsed(), 1_000);
    assert!(read.iter().all(|read| *read == mib));
    let stats = lab.stats();
    assert_eq!((stats.of(Verb::Put).bytes_in, stats.of(Verb::Get).bytes_out), (4 * MIB, 5 * MIB));
}

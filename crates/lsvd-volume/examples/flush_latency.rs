//! What a flush costs beside a bare PUT to the same store: 4 KiB each, alone and sixteen at once, in turns.
//!
//!     cargo run --release -p lsvd-volume --example flush_latency -- s3://bucket/prefix 200
//!
//! Prints a table of p50 and p99 in milliseconds, and how many PUTs the flushes shared. Leaves its objects behind.

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use lsvd_backend::{Bucket, BucketUrl, StoreOptions};
use lsvd_volume::{CreateOptions, OpenOptions, Volume, create};

const BLOCK: u64 = 4096;
/// Bytes of a log object with one block: what the bare PUT moves too.
const OBJECT_BYTES: usize = 4096 + 160;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(rounds)) = (arguments.next(), arguments.next()) else {
        return Err("flush_latency URL ROUNDS".into());
    };
    let rounds: u64 = rounds.parse()?;
    let url: BucketUrl = url.parse()?;
    let bucket = Bucket::open(&url, &StoreOptions { create_root: true, ..StoreOptions::default() })?;
    let run = std::process::id();
    let (bare, place) = (bucket.child(&format!("bare-{run}")), bucket.child(&format!("volume-{run}")));
    create(&place, &CreateOptions::new(1 << 30)).await?;
    let volume = Volume::open(place, OpenOptions::default()).await?;
    println!(
        "| at once | bare PUT p50, p99 (ms) | write + flush p50, p99 (ms) | p50, share | PUTs for a flush |"
    );
    println!("|---|---|---|---|---|");
    for at_once in [1, 16] {
        let (mut puts, mut flushes) = (Vec::new(), Vec::new());
        let objects_before = volume.stats().objects_written;
        for round in 0..rounds {
            let put = |nth: u64| {
                let (bare, name) = (bare.clone(), format!("{at_once}-{round}-{nth}"));
                async move {
                    let begun = Instant::now();
                    bare.create(&name, Bytes::from(vec![7; OBJECT_BYTES]).into()).await?;
                    Ok::<_, lsvd_backend::Error>(begun.elapsed())
                }
            };
            puts.extend(try_join_all((0..at_once).map(put)).await?);
            let flush = |nth: u64| {
                let volume = volume.clone();
                async move {
                    let begun = Instant::now();
                    let at = (round * at_once + nth) * BLOCK % (1 << 30);
                    volume.write(at, Bytes::from(vec![7; 4096]), false).await?;
                    volume.flush().await?;
                    Ok::<_, lsvd_volume::Error>(begun.elapsed())
                }
            };
            flushes.extend(try_join_all((0..at_once).map(flush)).await?);
        }
        let objects = volume.stats().objects_written - objects_before;
        let (put, flush) = (percentiles(&mut puts), percentiles(&mut flushes));
        println!(
            "| {at_once} | {:.2}, {:.2} | {:.2}, {:.2} | {:.0} % | {:.2} |",
            put.0,
            put.1,
            flush.0,
            flush.1,
            100.0 * flush.0 / put.0,
            objects as f64 / flushes.len() as f64
        );
    }
    volume.close().await?;
    Ok(())
}

/// p50 and p99, in milliseconds.
fn percentiles(times: &mut [Duration]) -> (f64, f64) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    (at(50), at(99))
}

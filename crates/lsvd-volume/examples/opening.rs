//! How long a volume takes to open, by the length of its log and the latency of its store, with a checkpoint and without.
//!
//! The store is in memory and waits before each answer. Prints a table in Markdown, for docs/performance.md:
//! `cargo run --release -p lsvd-volume --example opening`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lsvd_backend::Bucket;
use lsvd_volume::{CreateOptions, Error, OpenOptions, UpkeepOptions, Volume, create};
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};

const BLOCK_BYTES: u64 = 4096;
/// Objects behind the checkpoint.
const TAIL: u64 = 10;
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> Result<(), Error> {
    println!(
        "| log objects | latency | no checkpoint | a checkpoint and {TAIL} objects behind it |\n|---|---|---|---|"
    );
    for objects in [10, 1_000, 10_000] {
        for latency in [Duration::ZERO, Duration::from_millis(30)] {
            let mut cells = Vec::new();
            for checkpoint in [false, true] {
                let store = Arc::new(ThrottledStore::new(InMemory::new(), ThrottleConfig::default()));
                let bucket = Bucket::from_store(store.clone(), "volume", "bench");
                fill(&bucket, objects, checkpoint).await?;
                store.config_mut(|config| {
                    config.wait_get_per_call = latency;
                    config.wait_put_per_call = latency;
                    config.wait_list_per_call = latency;
                });
                let mut times = Vec::new();
                for _ in 0..ROUNDS {
                    let begin = Instant::now();
                    let volume = Volume::open(bucket.clone(), options(u64::MAX)).await?;
                    times.push(begin.elapsed());
                    drop(volume);
                }
                times.sort_unstable();
                cells.push(format!("{:.3} s", times[ROUNDS / 2].as_secs_f64()));
            }
            println!("| {objects} | {} ms | {} |", latency.as_millis(), cells.join(" | "));
        }
    }
    Ok(())
}

fn options(checkpoint_objects: u64) -> OpenOptions {
    let upkeep = UpkeepOptions {
        look_every: Duration::from_millis(50),
        checkpoint_objects,
        checkpoint_age: Duration::from_secs(1 << 40),
        ..UpkeepOptions::default()
    };
    OpenOptions { probe: false, upkeep, ..OpenOptions::default() }
}

/// Makes a volume whose log has this many objects of one block each, spread over 64 GiB.
async fn fill(bucket: &Bucket, objects: u64, checkpoint: bool) -> Result<(), Error> {
    create(bucket, &CreateOptions::new(64 << 30)).await?;
    let volume = Volume::open(bucket.clone(), options(u64::MAX)).await?;
    let last = if checkpoint { objects } else { objects + TAIL };
    write(&volume, 0, last).await?;
    drop(volume);
    if checkpoint {
        let volume = Volume::open(bucket.clone(), options(1)).await?;
        while volume.stats().checkpoints == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(volume);
        let volume = Volume::open(bucket.clone(), options(u64::MAX)).await?;
        write(&volume, objects, objects + TAIL).await?;
    }
    Ok(())
}

async fn write(volume: &Volume, from: u64, to: u64) -> Result<(), Error> {
    for nth in from..to {
        let block = nth * 7919 % (16 << 20);
        let data = Bytes::from(vec![1; 4096]);
        volume.write(block * BLOCK_BYTES, data, true).await?;
    }
    Ok(())
}

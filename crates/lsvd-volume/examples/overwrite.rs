//! A full volume is overwritten at random for as long as it takes to write it several times: what the store holds for each
//! live byte, and what is written to it for each byte that a client wrote.
//!
//! The store is in memory, so that collection competes with the client for the processor alone. Prints a table in
//! Markdown, for docs/performance.md: `cargo run --release -p lsvd-volume --example overwrite`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lsvd_backend::Bucket;
use lsvd_volume::{CollectOptions, CreateOptions, Error, OpenOptions, UpkeepOptions, Volume, create};
use object_store::memory::InMemory;

const BLOCK_BYTES: u64 = 4096;
const VOLUME_BYTES: u64 = 512 << 20;
/// How often the volume is written.
const TIMES: u64 = 4;
/// What the client writes in a second: what a fast line to a bucket takes.
const BYTES_PER_SECOND: u64 = 64 << 20;
/// Bytes of a write.
const WRITE_BYTES: u64 = 16 << 10;

#[tokio::main]
async fn main() -> Result<(), Error> {
    println!(
        "| writes | collection | written by the client | stored bytes / live bytes: end, highest | written / client's | MiB/s |\n\
         |---|---|---|---|---|---|"
    );
    for skewed in [false, true] {
        for target in [f64::INFINITY, 1.3] {
            run(skewed, target).await?;
        }
    }
    Ok(())
}

async fn run(skewed: bool, target: f64) -> Result<(), Error> {
    let bucket = Bucket::from_store(Arc::new(InMemory::new()), "volume", "bench");
    create(&bucket, &CreateOptions::new(VOLUME_BYTES)).await?;
    let upkeep = UpkeepOptions {
        look_every: Duration::from_millis(20),
        checkpoint_objects: 16,
        checkpoint_age: Duration::from_secs(5),
        delete_after: Duration::from_millis(100),
        collect: CollectOptions { target, waste_bytes_min: 0, ..CollectOptions::default() },
    };
    let options = OpenOptions { probe: false, upkeep, cache_bytes_max: 1 << 20, ..OpenOptions::default() };
    let volume = Volume::open(bucket.clone(), options).await?;
    for at in (0..VOLUME_BYTES).step_by(1 << 20) {
        volume.write(at, Bytes::from(vec![1; 1 << 20]), false).await?;
    }
    volume.flush().await?;
    let filled = volume.stats();
    let (begin, mut state, mut highest) = (Instant::now(), 1u64, 0f64);
    let writes = VOLUME_BYTES * TIMES / WRITE_BYTES;
    for nth in 0..writes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let places = VOLUME_BYTES / WRITE_BYTES;
        // Skewed: nine of ten writes go to a tenth of the volume.
        let hot = skewed && (state >> 20) % 10 != 0;
        let place = (state >> 33) % if hot { places / 10 } else { places };
        let data = Bytes::from(vec![u8::try_from(nth % 255).unwrap_or(0) + 1; 16 << 10]);
        volume.write(place * WRITE_BYTES, data, false).await?;
        if nth % (writes / 64) == 0 {
            let due = begin + Duration::from_millis(nth * WRITE_BYTES * 1000 / BYTES_PER_SECOND);
            tokio::time::sleep_until(due.into()).await;
            highest = highest.max(amplification(&bucket, &volume).await?);
        }
    }
    volume.flush().await?;
    let seconds = begin.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let end = amplification(&bucket, &volume).await?;
    let client_bytes = (writes * WRITE_BYTES) as f64;
    let written = (volume.stats().bytes_written - filled.bytes_written) as f64;
    println!(
        "| {} | {} | {} MiB | {end:.2}, {highest:.2} | {:.2} | {:.0} |",
        if skewed { "skewed" } else { "uniform" },
        if target.is_infinite() { "off".to_owned() } else { format!("to {target}") },
        (writes * WRITE_BYTES) >> 20,
        written / client_bytes,
        client_bytes / seconds / f64::from(1 << 20),
    );
    Ok(())
}

async fn amplification(bucket: &Bucket, volume: &Volume) -> Result<f64, Error> {
    let listed = bucket.list("", None).await.map_err(|error| Error::Invalid(error.to_string()))?;
    let stored: u64 = listed.iter().map(|entry| entry.object_bytes).sum();
    Ok(stored as f64 / volume.stats().live_bytes.max(BLOCK_BYTES) as f64)
}

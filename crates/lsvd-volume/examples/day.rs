//! A full volume is overwritten at random until all of it was written some times over, and looked at each second: what the
//! bucket holds, what is live, what clients and collection wrote, and how long clients waited.
//!
//!     cargo run --release -p lsvd-volume --example day -- s3://bucket/prefix uniform on 512 8 0
//!
//! URL (and the server in LSVD_ENDPOINT, if it is not the cloud's own), `uniform` or `skewed` (eight of ten writes go to a fifth of the volume), collection `on` or `off`, MiB of the volume,
//! how often it is written, MiB a second (0: as fast as it can). A day in fast motion: what waits 5 minutes in life waits
//! 0.3 s here. Prints a line of JSON for each second; `cargo xtask bench day` draws them.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lsvd_backend::{Bucket, BucketUrl, StoreOptions};
use lsvd_volume::{CollectOptions, CreateOptions, OpenOptions, UpkeepOptions, Volume, create};
use tokio::time::sleep;

const MIB: u64 = 1 << 20;
/// Bytes of a write.
const WRITE_BYTES: u64 = 16 << 10;
/// Writes at once.
const CLIENTS: u64 = 8;

/// What the clients share.
struct Load {
    volume: Volume,
    places: u64,
    skewed: bool,
    writes_max: u64,
    /// Between two writes of one client, if it has a speed.
    every: Option<Duration>,
    writes: AtomicU64,
    /// Of this second, in microseconds.
    waited: Mutex<Vec<u64>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, pattern, collection, mib, times, mib_per_s] = &arguments[..] else {
        return Err("day URL uniform|skewed on|off MIB TIMES MIB_PER_S".into());
    };
    let (volume_bytes, times, mib_per_s) =
        (mib.parse::<u64>()? * MIB, times.parse::<u64>()?, mib_per_s.parse::<u64>()?);
    let url: BucketUrl = url.parse()?;
    let endpoint = std::env::var("LSVD_ENDPOINT").ok();
    let store = StoreOptions { create_root: true, allow_http: true, endpoint, ..StoreOptions::default() };
    let bucket = Bucket::open(&url, &store)?;
    create(&bucket, &CreateOptions::new(volume_bytes)).await?;
    let target = if collection == "on" { CollectOptions::default().target } else { f64::INFINITY };
    let upkeep = UpkeepOptions {
        look_every: Duration::from_millis(20),
        checkpoint_age: Duration::from_millis(300),
        delete_after: Duration::from_millis(300),
        collect: CollectOptions { target, waste_bytes_min: 0, ..CollectOptions::default() },
        ..UpkeepOptions::default()
    };
    let options = OpenOptions {
        probe: false,
        upkeep,
        cache_bytes_max: MIB,
        // In proportion to the volume.
        buffer_bytes_max: volume_bytes / 16,
        ..OpenOptions::default()
    };
    let volume = Volume::open(bucket.clone(), options).await?;
    for at in (0..volume_bytes).step_by(1 << 20) {
        volume.write(at, Bytes::from(vec![1; 1 << 20]), false).await?;
    }
    volume.flush().await?;
    let load = Arc::new(Load {
        volume: volume.clone(),
        places: volume_bytes / WRITE_BYTES,
        skewed: pattern == "skewed",
        writes_max: volume_bytes / WRITE_BYTES * times,
        every: (mib_per_s > 0)
            .then(|| Duration::from_secs_f64((CLIENTS * WRITE_BYTES) as f64 / (mib_per_s * MIB) as f64)),
        writes: AtomicU64::new(0),
        waited: Mutex::new(Vec::new()),
    });
    let clients: Vec<_> = (0..CLIENTS).map(|nth| tokio::spawn(client(load.clone(), nth))).collect();
    let (begun, filled) = (Instant::now(), volume.stats());
    for second in 1.. {
        sleep(Duration::from_secs(second).saturating_sub(begun.elapsed())).await;
        let done = clients.iter().all(tokio::task::JoinHandle::is_finished);
        let listed = bucket.list("", None).await?;
        let bucket_bytes: u64 = listed.iter().map(|entry| entry.object_bytes).sum();
        let stats = volume.stats();
        let mut waited = std::mem::take(&mut *load.waited.lock().expect("nobody panics"));
        waited.sort_unstable();
        let at =
            |percent: usize| waited.get(waited.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0);
        let line = serde_json::json!({
            "seconds": begun.elapsed().as_secs_f64(),
            "bucket_bytes": bucket_bytes,
            "log_bytes": stats.log_bytes,
            "dead_bytes": stats.dead_bytes,
            "live_bytes": stats.live_bytes,
            "client_bytes": load.writes.load(Ordering::Relaxed) * WRITE_BYTES,
            "written_bytes": stats.bytes_written - filled.bytes_written,
            "moved_bytes": stats.moved_bytes - filled.moved_bytes,
            "p50_us": at(50),
            "p99_us": at(99),
            "longest_us": at(100),
            "slowed_us": stats.slowed_for.as_secs_f64() * 1e6,
        });
        println!("{line}");
        if done {
            break;
        }
    }
    for client in clients {
        client.await??;
    }
    volume.close().await?;
    Ok(())
}

async fn client(load: Arc<Load>, nth: u64) -> Result<(), lsvd_volume::Error> {
    let (begun, mut state) = (Instant::now(), nth + 1);
    for mine in 0u32.. {
        let count = load.writes.fetch_add(1, Ordering::Relaxed);
        if count >= load.writes_max {
            load.writes.fetch_sub(1, Ordering::Relaxed);
            break;
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let hot = load.skewed && (state >> 20) % 10 < 8;
        let place = (state >> 33) % if hot { load.places / 5 } else { load.places };
        let data = Bytes::from(vec![(count % 255) as u8 + 1; 16 << 10]);
        if let Some(every) = load.every {
            sleep((every * mine).saturating_sub(begun.elapsed())).await;
        }
        let asked = Instant::now();
        load.volume.write(place * WRITE_BYTES, data, false).await?;
        let took = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        load.waited.lock().expect("nobody panics").push(took);
    }
    Ok(())
}

//! What a flush costs beside the bare thing that it waits for: 4 KiB each, alone and sixteen at once, in turns.
//!
//!     cargo run --release -p lsvd-volume --example flush_latency -- s3://bucket/prefix 200
//!     cargo run --release -p lsvd-volume --example flush_latency -- s3://bucket/prefix 200 /var/lib/lsvd/journal
//!
//! That is a create-only PUT to the same store, or, with a journal's directory, a write and fdatasync on the same disk. Prints
//! a table of p50 and p99 in milliseconds, and how many PUTs or syncs the flushes shared. Leaves its objects behind.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use lsvd_backend::{Bucket, BucketUrl, StoreOptions};
use lsvd_volume::{CreateOptions, JournalOptions, OpenOptions, Volume, create};

const BLOCK: u64 = 4096;
/// Bytes of a log object with one block: what the bare PUT moves too.
const OBJECT_BYTES: usize = 4096 + 160;
/// Blocks of the file that is synced.
const ROOM_BLOCKS: u64 = 16_384;

/// What a flush is measured beside.
#[derive(Clone)]
enum Bare {
    Put(Bucket),
    /// A file with room for all that is written.
    Sync(Arc<File>),
}

impl Bare {
    async fn time(self, round: u64, nth: u64) -> Result<Duration, Box<dyn Error>> {
        let begun = Instant::now();
        match self {
            Self::Put(bucket) => {
                bucket.create(&format!("{round}-{nth}"), Bytes::from(vec![7; OBJECT_BYTES]).into()).await?;
            }
            Self::Sync(file) => {
                let write = move || {
                    file.write_all_at(&[7; 4096], (round * 16 + nth) % ROOM_BLOCKS * BLOCK)?;
                    file.sync_data()
                };
                tokio::task::spawn_blocking(write).await??;
            }
        }
        Ok(begun.elapsed())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(rounds)) = (arguments.next(), arguments.next()) else {
        return Err("flush_latency URL ROUNDS [JOURNAL]".into());
    };
    let journal = arguments.next().map(PathBuf::from);
    let rounds: u64 = rounds.parse()?;
    let url: BucketUrl = url.parse()?;
    let bucket = Bucket::open(&url, &StoreOptions { create_root: true, ..StoreOptions::default() })?;
    let run = std::process::id();
    let place = bucket.child(&format!("volume-{run}"));
    create(&place, &CreateOptions::new(1 << 30)).await?;
    let (mut options, mut bare) = (OpenOptions::default(), Bare::Put(bucket.child(&format!("bare-{run}"))));
    if let Some(directory) = &journal {
        options.journal = Some(JournalOptions::directory(&directory.join("journal")));
        let file = File::create(directory.join("bare"))?;
        // As good as it gets: its blocks are there and written.
        file.write_all_at(&vec![0; usize::try_from(ROOM_BLOCKS * BLOCK)?], 0)?;
        file.sync_all()?;
        bare = Bare::Sync(Arc::new(file));
    }
    let volume = Volume::open(place, options).await?;
    let what = if journal.is_some() { "write + fdatasync" } else { "bare PUT" };
    println!(
        "| at once | {what} p50, p99 (ms) | write + flush p50, p99 (ms) | p50, share | objects for a flush |"
    );
    println!("|---|---|---|---|---|");
    for at_once in [1, 16] {
        let (mut bares, mut flushes) = (Vec::new(), Vec::new());
        let objects_before = volume.stats().objects_written;
        for round in 0..rounds {
            let round = at_once * rounds + round;
            bares.extend(try_join_all((0..at_once).map(|nth| bare.clone().time(round, nth))).await?);
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
        let (bare, flush) = (percentiles(&mut bares), percentiles(&mut flushes));
        println!(
            "| {at_once} | {:.2}, {:.2} | {:.2}, {:.2} | {:.0} % | {:.2} |",
            bare.0,
            bare.1,
            flush.0,
            flush.1,
            100.0 * flush.0 / bare.0,
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

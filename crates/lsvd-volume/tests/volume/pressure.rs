//! Clients that write faster than collection gives back: the space settles near its target, and nobody waits for what can
//! not come.

use std::time::Duration;

use lsvd_volume::{CollectOptions, OpenOptions, Stats, UpkeepOptions, Volume};
use tokio::time::Instant;

use crate::common::{BLOCK, Fate, MIB, Verb, World, blocks};

/// Blocks of the volume that are written and overwritten.
const BLOCKS: u64 = 8192;

fn options(options: &mut OpenOptions, collect: CollectOptions) {
    options.batch_bytes_max = MIB;
    options.buffer_bytes_max = 2 * MIB;
    options.cache_bytes_max = MIB;
    options.upkeep = UpkeepOptions {
        look_every: Duration::from_millis(100),
        checkpoint_age: Duration::from_secs(5),
        delete_after: Duration::from_secs(1),
        collect,
        ..UpkeepOptions::default()
    };
}

/// A full volume on a line of 8 MiB a second up, 20 ms away.
async fn full(world: &World, collect: CollectOptions) -> Volume {
    let volume = world.open_with(|open| options(open, collect)).await;
    for at in (0..BLOCKS).step_by(64) {
        volume.write(at * BLOCK, blocks(64, 1), false).await.unwrap();
    }
    volume.flush().await.unwrap();
    world.store.always(Verb::Put, "log/", Fate::Line(8 * MIB));
    world.store.always(Verb::Get, "log/", Fate::Slow(Duration::from_millis(20)));
    volume
}

/// Overwrites at random, as fast as it can, for so long. Gives what the log's objects that hold anything live have for each
/// live byte at most in the second half, and the longest wait.
async fn overwrite(volume: &Volume, seconds: u64, seed: &mut u64) -> (f64, Duration) {
    let (begun, mut highest, mut longest) = (Instant::now(), 0.0, Duration::ZERO);
    let seconds = Duration::from_secs(seconds);
    while begun.elapsed() < seconds {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (*seed >> 33) % (BLOCKS / 4) * 4;
        let asked = Instant::now();
        volume.write(at * BLOCK, blocks(4, (*seed >> 20) as u8), false).await.unwrap();
        longest = longest.max(asked.elapsed());
        if begun.elapsed() > seconds / 2 {
            highest = f64::max(highest, held(&volume.stats()));
        }
    }
    (highest, longest)
}

fn held(stats: &Stats) -> f64 {
    (stats.log_bytes - stats.dead_bytes) as f64 / stats.live_bytes as f64
}

/// Rule 10: the space that is held stays near the target however fast a client overwrites, and no write waits for long; where
/// nobody is slowed down, the same client outruns collection.
#[tokio::test(start_paused = true)]
async fn a_client_does_not_outrun_collection() {
    let collect = CollectOptions { waste_bytes_min: 0, ..CollectOptions::default() };
    let world = World::new().await;
    let volume = full(&world, collect).await;
    let (highest, longest) = overwrite(&volume, 120, &mut 1).await;
    let bound = collect.target + collect.stop_above;
    let stats = volume.stats();
    assert!(highest < bound, "{highest} is held for each live byte: {stats:?}");
    assert!(stats.slowed_for > Duration::ZERO);
    assert!(longest < Duration::from_secs(2), "a write waited {longest:?}");

    let world = World::new().await;
    let volume = full(&world, CollectOptions { stop_above: f64::INFINITY, ..collect }).await;
    let (outrun, _) = overwrite(&volume, 120, &mut 1).await;
    assert!(outrun > bound + 0.05, "{outrun} is held where nobody is slowed down");
    assert_eq!(volume.stats().slowed_for, Duration::ZERO);
}

/// Rule 10: no write waits for a collection that can not go on, has nothing to do, or is not wanted.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_can_not_come() {
    let collect = CollectOptions { waste_bytes_min: 0, ..CollectOptions::default() };
    let world = World::new().await;
    let volume = full(&world, collect).await;
    let mut seed = 1;
    overwrite(&volume, 30, &mut seed).await;
    world.store.release();
    world.store.always(Verb::Get, "log/", Fate::Hangs);
    world.store.always(Verb::Put, "log/", Fate::Line(8 * MIB));
    overwrite(&volume, 30, &mut seed).await;
    let slowed_for = volume.stats().slowed_for;
    overwrite(&volume, 30, &mut seed).await;
    assert_eq!(volume.stats().slowed_for, slowed_for, "collection hangs");

    for other in [
        CollectOptions { target: f64::INFINITY, ..collect },
        CollectOptions { waste_bytes_min: 1 << 40, ..collect },
    ] {
        let world = World::new().await;
        let volume = full(&world, other).await;
        overwrite(&volume, 30, &mut 1).await;
        assert_eq!(volume.stats().slowed_for, Duration::ZERO, "{other:?}");
        assert!(held(&volume.stats()) > 1.5);
    }
}

/// A flush is answered in the time of its uploads while writes are slowed down.
#[tokio::test(start_paused = true)]
async fn a_flush_is_not_slowed_down() {
    let collect = CollectOptions { waste_bytes_min: 0, ..CollectOptions::default() };
    let world = World::new().await;
    let volume = full(&world, collect).await;
    let mut seed = 1;
    overwrite(&volume, 60, &mut seed).await;
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        overwrite(&volume, 1, &mut seed).await;
        let asked = Instant::now();
        volume.flush().await.unwrap();
        longest = longest.max(asked.elapsed());
    }
    // What the buffer holds, and three objects of relocations before it, at 8 MiB a second.
    assert!(longest < Duration::from_secs(2), "a flush waited {longest:?}");
}

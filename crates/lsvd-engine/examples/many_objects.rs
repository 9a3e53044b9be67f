//! For how long the engine's lock is held by what checkpoints and collection ask of a log of a million objects: clients
//! wait for so long.
//!
//! Prints a table in Markdown, for docs/performance.md: `cargo run --release -p lsvd-engine --example many_objects`.

use std::time::{Duration, Instant};

use lsvd_engine::{Config, Engine, LogState, ObjectIndex, ObjectRecord, ObjectState, Prefix, Purpose};
use lsvd_format::{Epoch, ObjectFormat, ObjectIdentity, SequenceNumber, VolumeId, WriterId};

const OBJECTS: u32 = 1_000_000;
/// Blocks of an object of 8 MiB.
const BLOCKS: u64 = 2048;
const ROUNDS: usize = 9;

fn main() {
    let mut engine = engine();
    let begin = rounds(|| {
        let begun = Instant::now();
        let start = engine.begin_checkpoint();
        let took = begun.elapsed();
        assert!(start.is_some(), "nothing is half applied");
        engine.end_checkpoint(None);
        took
    });
    let victims = rounds(|| {
        let begun = Instant::now();
        let found = engine.victims(Purpose::Space, BLOCKS, 64);
        let took = begun.elapsed();
        assert!(!found.is_empty(), "most objects are not full");
        took
    });
    println!("| {OBJECTS} objects | median, highest of {ROUNDS} (ms) |\n|---|---|");
    for (what, [median, highest]) in [("beginning a checkpoint", begin), ("choosing victims", victims)] {
        println!("| {what} | {median:.2}, {highest:.2} |");
    }
}

fn engine() -> Engine {
    let (volume, epoch, writer) = (VolumeId([1; 16]), Epoch(1), WriterId([2; 16]));
    let objects = (0..OBJECTS).map(|nth| {
        let number = SequenceNumber(u64::from(nth) + 1);
        let identity = ObjectIdentity { volume, epoch, writer, number };
        let format = ObjectFormat::V2;
        let record = ObjectRecord { identity, format, header_bytes: 20_000, payload_blocks: BLOCKS };
        // As random overwriting leaves them.
        let live_blocks = u64::from(nth).wrapping_mul(6_364_136_223_846_793_005) >> 53;
        let died_at = (live_blocks == 0).then_some(number);
        (ObjectIndex(nth), ObjectState { record, live_blocks, died_at })
    });
    let mut log = LogState::new(SequenceNumber(1));
    log.next = SequenceNumber(u64::from(OBJECTS) + 1);
    let config = Config {
        volume,
        epoch,
        writer,
        window: 128,
        batch_bytes_max: 8 << 20,
        batch_age_max: Duration::from_secs(1),
        buffer_bytes_max: 128 << 20,
        uploads_max: 16,
        flush_uploads_max: 4,
        map_bytes_max: 512 << 20,
        journal: None,
    };
    Engine::new(config, Prefix::from_checkpoint(log, objects, [], Vec::new()))
}

/// Median and highest, in milliseconds.
fn rounds(mut measure: impl FnMut() -> Duration) -> [f64; 2] {
    let mut took: Vec<f64> = (0..ROUNDS).map(|_| measure().as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    [took[ROUNDS / 2], took[ROUNDS - 1]]
}

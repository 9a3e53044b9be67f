//! What the extent map takes, in time and memory, beside a BTreeMap of runs and the rangemap crate.
//!
//! `cargo bench -p lsvd-engine --bench map` takes a million extents, which fit the processor's caches. The figures of
//! docs/performance.md are those of `LSVD_BENCH_EXTENTS=50000000`, which takes 8 GiB of memory and half an hour.

#![allow(missing_docs)] // criterion's macros
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // loads of known size, and shares

use std::alloc::System;
use std::hint::black_box;
use std::time::Duration;

use cap::Cap;
use criterion::Criterion;
use criterion::measurement::Measurement;
use lsvd_engine::ExtentMap;

mod cpu;
mod loads;
mod subjects;

use cpu::CpuTime;
use loads::{Load, Random};
use subjects::{RunsInBTree, RunsInRangeMap, Subject};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Blocks of a request of 128 KiB.
const SCAN_BLOCKS: u64 = 32;

fn main() {
    let extents =
        std::env::var("LSVD_BENCH_EXTENTS").map_or(1_000_000, |text| text.parse().expect("a number"));
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime)
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .configure_from_args();
    for load in Load::all(extents) {
        measure::<ExtentMap>(&mut criterion, &load);
        measure::<RunsInBTree>(&mut criterion, &load);
        measure::<RunsInRangeMap>(&mut criterion, &load);
    }
    criterion.final_summary();
}

fn measure<S: Subject>(criterion: &mut Criterion<CpuTime>, load: &Load) {
    let before = ALLOCATOR.allocated();
    let (mut map, started) = (S::default(), CpuTime.start());
    load.build(&mut map);
    let (built, bytes) = (CpuTime.end(started), ALLOCATOR.allocated() - before);
    println!(
        "{}, {}: {} extents, built in {:.1} s ({:.0} ns a write); {:.4} MiB for a GiB, {:.2} bytes an extent",
        load.name,
        S::NAME,
        map.extents(),
        built.as_secs_f64(),
        built.as_nanos() as f64 / load.writes as f64,
        bytes as f64 / (1 << 20) as f64 / (load.blocks as f64 / 262_144.0),
        bytes as f64 / map.extents() as f64,
    );
    let mut group = criterion.benchmark_group(load.name);
    let mut random = Random(7);
    group.bench_function(format!("lookup, {}", S::NAME), |bencher| {
        bencher.iter(|| black_box(map.find(load.written_block(random.next()))));
    });
    group.bench_function(format!("128 KiB, {}", S::NAME), |bencher| {
        bencher.iter(|| black_box(map.scan(random.below(load.blocks - SCAN_BLOCKS), SCAN_BLOCKS)));
    });
    let mut nth = 1 << 40;
    group.bench_function(format!("update, {}", S::NAME), |bencher| {
        bencher.iter(|| {
            nth += 1;
            map.write(load.written_block(random.next()), 1, nth);
        });
    });
    group.finish();
}

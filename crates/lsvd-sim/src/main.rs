//! `lsvd-sim`: plays seeds and says which one fails, with the command that plays it again.
//!
//! Knows the command line and threads; a run itself has one thread.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use lsvd_sim::{Mutation, Report, run};

/// Failing seeds of which the story is told.
const STORIES_MAX: usize = 3;
/// Failing seeds that are named besides.
const LISTED_MAX: usize = 50;
/// Events that a story ends with, unless all are asked for.
const STORY_LINES: usize = 60;

/// Plays the volume on a simulated store, seed by seed, and checks the rules.
#[derive(Debug, Parser)]
#[command(name = "lsvd-sim")]
struct Arguments {
    /// How many seeds to play.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Play this one seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event of a failing seed (with --seed: of that seed), not only the last ones.
    #[arg(long)]
    trace: bool,
    /// Break the world on purpose; the run is then expected to fail.
    #[arg(long = "break", value_name = "MUTATION")]
    mutation: Option<Mutation>,
    /// Threads.
    #[arg(long)]
    jobs: Option<usize>,
}

#[derive(Default)]
struct Tally {
    failed: Vec<Report>,
    openings: u64,
    requests: u64,
    events: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (start, count) = arguments.seed.map_or((arguments.start, arguments.seeds), |seed| (seed, 1));
    let jobs =
        arguments.jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let next = AtomicU64::new(0);
    let tally = Mutex::new(Tally::default());
    let began = Instant::now();
    std::thread::scope(|threads| {
        for _ in 0..jobs.clamp(1, 64) {
            threads.spawn(|| play(&arguments, start, count, &next, &tally, began));
        }
    });
    let Ok(mut tally) = tally.into_inner() else {
        eprintln!("error: a thread of the simulator itself failed");
        return ExitCode::FAILURE;
    };
    tally.failed.sort_by_key(|report| report.seed);
    let (told, listed) = tally.failed.split_at(tally.failed.len().min(STORIES_MAX));
    told.iter().for_each(|report| tell(&arguments, report));
    listed.iter().take(LISTED_MAX).for_each(say);
    if arguments.seed.is_some() && arguments.trace && tally.failed.is_empty() {
        run(start, arguments.mutation, true).lines.iter().for_each(|line| println!("{line}"));
    }
    let seconds = began.elapsed().as_secs_f64().max(0.001);
    let failed = tally.failed.len() as u64;
    let rate = f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds;
    println!(
        "sim: {} openings, {} client requests, {} events in {seconds:.1} s, {rate:.0} seeds/s",
        tally.openings, tally.requests, tally.events
    );
    println!("{} passed, {failed} failed", count - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn play(
    arguments: &Arguments,
    start: u64,
    count: u64,
    next: &AtomicU64,
    tally: &Mutex<Tally>,
    began: Instant,
) {
    let mut told = began;
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= count {
            return;
        }
        let report = run(start + index, arguments.mutation, false);
        let Ok(mut tally) = tally.lock() else { return };
        tally.openings += report.openings as u64;
        tally.requests += report.requests as u64;
        tally.events += report.events;
        if report.violation.is_some() {
            tally.failed.push(report);
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            let rate = index as f64 / began.elapsed().as_secs_f64();
            eprintln!("sim: {index} of {count} seeds, {} failed, {rate:.0} seeds/s", tally.failed.len());
        }
    }
}

fn say(report: &Report) {
    if let Some(violation) = &report.violation {
        println!("seed {} failed: {violation}", report.seed);
    }
}

/// What happened in a failing run, and how to see it again.
fn tell(arguments: &Arguments, report: &Report) {
    let again = run(report.seed, arguments.mutation, true);
    let skip = if arguments.trace { 0 } else { again.lines.len().saturating_sub(STORY_LINES) };
    again.lines.iter().skip(skip).for_each(|line| println!("{line}"));
    if again.hash != report.hash {
        println!(
            "warning: the second run of this seed went another way: the simulation is not deterministic"
        );
    }
    let broken = arguments.mutation.map(|mutation| format!(" --break {mutation}")).unwrap_or_default();
    say(report);
    println!("play it again: cargo xtask sim --seed {}{broken}\n", report.seed);
}

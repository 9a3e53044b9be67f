//! `lsvd-sim`: plays seeds and says which one fails, with the command that plays it again.
//!
//! Knows the command line and threads; a run itself has one thread.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use lsvd_sim::{Deeds, Limits, Mutation, Report, run, shrink};

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
    /// How many seeds to play [default: 1000, with --long no end].
    #[arg(long)]
    seeds: Option<u64>,
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
    /// Leave something out: takeovers=N, clients=N, requests=N, without=PART+PART, with commas between them. A failing
    /// seed prints what it fails without.
    #[arg(long = "limit", value_name = "LIMITS", default_value = "", hide_default_value = true)]
    limits: Limits,
    /// Play seeds until it is stopped, or until --seeds were played if that is given, and tell of progress every minute.
    #[arg(long)]
    long: bool,
    /// Threads.
    #[arg(long)]
    jobs: Option<usize>,
}

#[derive(Default)]
struct Tally {
    failed: Vec<Report>,
    openings: u64,
    with_journal: u64,
    from_journal: u64,
    requests: u64,
    events: u64,
    deeds: Deeds,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let usual = if arguments.long { u64::MAX - arguments.start } else { 1000 };
    let seeds = arguments.seeds.unwrap_or(usual);
    let (start, count) = arguments.seed.map_or((arguments.start, seeds), |seed| (seed, 1));
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
        run(start, arguments.mutation, &arguments.limits, true)
            .lines
            .iter()
            .for_each(|line| println!("{line}"));
    }
    let seconds = began.elapsed().as_secs_f64().max(0.001);
    let failed = tally.failed.len() as u64;
    let rate = f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds;
    println!(
        "sim: {} openings ({} with a journal, {} took something out of it), {} client requests, {} events in {seconds:.1} s, {rate:.0} seeds/s",
        tally.openings, tally.with_journal, tally.from_journal, tally.requests, tally.events
    );
    println!("sim: {}", tally.deeds);
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
        let report = run(start + index, arguments.mutation, &arguments.limits, false);
        let Ok(mut tally) = tally.lock() else { return };
        tally.openings += report.openings as u64;
        tally.with_journal += report.journals.0 as u64;
        tally.from_journal += report.journals.1 as u64;
        tally.requests += report.requests as u64;
        tally.events += report.events;
        tally.deeds += report.deeds;
        if report.violation.is_some() {
            if arguments.long {
                // Whoever stops it is not to lose it.
                eprintln!("sim: seed {} fails: cargo xtask sim --seed {}", report.seed, report.seed);
            }
            tally.failed.push(report);
        }
        if told.elapsed() > Duration::from_secs(if arguments.long { 60 } else { 5 }) {
            told = Instant::now();
            let rate = index as f64 / began.elapsed().as_secs_f64();
            let of = if count == u64::MAX - start { String::new() } else { format!(" of {count}") };
            eprintln!("sim: {index}{of} seeds, {} failed, {rate:.0} seeds/s", tally.failed.len());
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
    let smallest = shrink(report, arguments.mutation, &arguments.limits);
    let again = run(report.seed, arguments.mutation, &smallest, true);
    let skip = if arguments.trace { 0 } else { again.lines.len().saturating_sub(STORY_LINES) };
    again.lines.iter().skip(skip).for_each(|line| println!("{line}"));
    if run(report.seed, arguments.mutation, &arguments.limits, false).hash != report.hash {
        println!(
            "warning: the second run of this seed went another way: the simulation is not deterministic"
        );
    }
    let broken = arguments.mutation.map(|mutation| format!(" --break {mutation}")).unwrap_or_default();
    let limit = |limits: &Limits| match limits.to_string() {
        text if text.is_empty() => text,
        text => format!(" --limit {text}"),
    };
    say(&again);
    println!("play it again: cargo xtask sim --seed {}{broken}{}", report.seed, limit(&smallest));
    if smallest != arguments.limits {
        say(report);
        println!(
            "as it was found: cargo xtask sim --seed {}{broken}{}",
            report.seed,
            limit(&arguments.limits)
        );
    }
    println!();
}

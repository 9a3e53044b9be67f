//! The simulator itself: a seed plays the same twice, and a world that is broken on purpose is noticed.

#![allow(clippy::unwrap_used)]

use lsvd_sim::{Limits, Mutation, Report, run, shrink};

/// Seeds within which every mutation is found.
const SEEDS: u64 = 600;

fn plain(seed: u64) -> Report {
    run(seed, None, &Limits::default(), false)
}

/// What a failing seed prints is what happens on somebody else's machine, with journals and without.
#[test]
fn a_seed_plays_the_same_twice() {
    let (mut with_journal, mut from_journal, mut without) = (0, 0, 0);
    for seed in 0..60 {
        let (one, other) = (plain(seed), plain(seed));
        assert_eq!((one.hash, one.events), (other.hash, other.events), "seed {seed}");
        assert_eq!(one.violation, None, "seed {seed}");
        with_journal += one.journals.0;
        from_journal += one.journals.1;
        without += usize::from(one.journals.0 == 0);
    }
    assert!(with_journal > 50 && from_journal > 5 && without > 5, "{with_journal} {from_journal} {without}");
}

#[test]
fn seeds_differ() {
    assert_ne!(plain(1).hash, plain(2).hash);
}

/// Keeping the lines for a person changes nothing.
#[test]
fn a_told_seed_is_the_same() {
    let told = run(3, None, &Limits::default(), true);
    assert_eq!((told.hash, told.lines.is_empty()), (plain(3).hash, false));
}

/// Rules 1, 2, 4 and 9 by what breaks them: a simulator that passes with one of these proves nothing.
#[test]
fn every_mutation_is_found() {
    for (name, mutation) in Mutation::ALL {
        let found = (0..SEEDS).find(|seed| {
            let report = run(*seed, Some(mutation), &Limits::default(), false);
            report.violation.is_some()
        });
        assert!(found.is_some(), "{name} was not noticed within {SEEDS} seeds");
    }
}

/// A failing run is made small, always in the same way, and fails as it did.
#[test]
fn a_failing_seed_is_made_small() {
    let mutation = Some(Mutation::LyingPut);
    let failing = (0..SEEDS).map(|seed| run(seed, mutation, &Limits::default(), false));
    let failing = failing.into_iter().find(|report| report.violation.is_some()).unwrap();
    let smallest = shrink(&failing, mutation, &Limits::default());
    assert_eq!(smallest, shrink(&failing, mutation, &Limits::default()));
    let small = run(failing.seed, mutation, &smallest.to_string().parse().unwrap(), false);
    let rule = |report: &Report| report.violation.as_ref().unwrap().rule;
    assert_eq!(rule(&small), rule(&failing));
    // What is small is the world: it may take more events until it fails.
    assert_ne!(smallest, Limits::default(), "nothing was left out");
}

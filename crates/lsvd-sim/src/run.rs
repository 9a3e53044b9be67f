//! One seed, one run, one verdict.
//!
//! Everything happens on the calling thread. A panic anywhere in the run is a violation like any other.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::Duration;

use tokio::time::timeout;

use crate::deeds::Deeds;
use crate::limits::Limits;
use crate::mutation::Mutation;
use crate::oracle::{Violation, judge};
use crate::scene::Scene;
use crate::script::play;
use crate::stage::lock;

/// Virtual time after which a run that has not ended hangs.
const RUN_MAX: Duration = Duration::from_secs(48 * 3600);

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What went wrong, if something did.
    pub violation: Option<Violation>,
    /// Hash of all events: equal for equal seeds.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// Openings for writing that succeeded.
    pub openings: usize,
    /// Of these, with a journal, and of those again such that found something in it.
    pub journals: (usize, usize),
    /// Requests that clients made.
    pub requests: usize,
    /// What was done behind the clients.
    pub deeds: Deeds,
    /// The last events, if they were asked for.
    pub lines: Vec<String>,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static RUNNING: RefCell<bool> = const { RefCell::new(false) };
}

/// Catches panics of tasks too, which end only their task.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if RUNNING.with_borrow(|running| *running) {
                PANIC.with_borrow_mut(|first| {
                    first.get_or_insert_with(|| panic.to_string());
                });
            } else {
                usual(panic);
            }
        }));
    });
}

/// Plays the run of `seed`, without what `limits` leave out, and judges it.
pub fn run(seed: u64, mutation: Option<Mutation>, limits: &Limits, keep_lines: bool) -> Report {
    watch_panics();
    PANIC.set(None);
    RUNNING.set(true);
    let played = catch_unwind(AssertUnwindSafe(|| run_caught(seed, mutation, limits, keep_lines)));
    RUNNING.set(false);
    let panic = PANIC.take().map(|panic| Violation::new(0, format!("panic: {panic}")));
    match played {
        Ok(report) => Report { violation: panic.or(report.violation), ..report },
        Err(_) => {
            let (hash, events, openings, journals, requests) = (0, 0, 0, (0, 0), 0);
            let (deeds, lines) = (Deeds::default(), Vec::new());
            Report { seed, violation: panic, hash, events, openings, journals, requests, deeds, lines }
        }
    }
}

fn run_caught(seed: u64, mutation: Option<Mutation>, limits: &Limits, keep_lines: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system");
    runtime.block_on(async {
        let scene = Arc::new(Scene::new(seed, keep_lines, mutation, limits));
        if timeout(RUN_MAX, play(&scene)).await.is_err() {
            scene.stage().accuse(Violation::new(10, "the run hangs"));
        }
        scene.note_turns();
        let mut history = lock(&scene.history).clone();
        history.abandoned = lock(&scene.world.cloud).ledger().abandoned().to_vec();
        if scene.stage().accused().is_none()
            && let Err(violation) = judge(&history)
        {
            scene.stage().accuse(violation);
        }
        let deeds = *lock(&scene.world.cloud).deeds();
        let violation = scene.stage().accused();
        let trace = scene.stage().take_trace();
        Report {
            seed,
            violation,
            hash: trace.hash(),
            events: trace.events(),
            openings: history.generations.len(),
            journals: (
                history.generations.iter().filter(|generation| generation.journal.is_some()).count(),
                history.generations.iter().filter(|generation| generation.replayed).count(),
            ),
            requests: history.generations.iter().map(|generation| generation.ops.len()).sum(),
            deeds,
            lines: trace.into_lines(),
        }
    })
}

//! Makes a failing run small: leaves out what it fails without, and says what is left.
//!
//! Knows limits and nothing of what they leave out. Bounded in runs, not in time, so that it ends the same everywhere.

use crate::limits::Limits;
use crate::mutation::Mutation;
use crate::run::{Report, run};

/// Runs at most.
const RUNS_MAX: u32 = 400;

/// The smallest failing variant that was found of a failing run, which breaks the same rule.
pub fn shrink(failing: &Report, mutation: Option<Mutation>, limits: &Limits) -> Limits {
    let Some(rule) = failing.violation.as_ref().map(|violation| violation.rule) else {
        return limits.clone();
    };
    let mut runs_left = RUNS_MAX;
    let mut fails = |limits: &Limits| {
        runs_left = runs_left.saturating_sub(1);
        let rule_of = |report: Report| report.violation.map(|violation| violation.rule);
        runs_left > 0 && rule_of(run(failing.seed, mutation, limits, false)) == Some(rule)
    };
    let mut smallest = limits.clone();
    loop {
        let before = smallest.clone();
        for most in 0..before.takeovers.unwrap_or(25) {
            let fewer = Limits { takeovers: Some(most), ..smallest.clone() };
            if fails(&fewer) {
                smallest = fewer;
                break;
            }
        }
        for part in Limits::parts().filter(|part| !before.leaves_out(part)) {
            let without = smallest.clone().and_without(part);
            if fails(&without) {
                smallest = without;
            }
        }
        for most in 1..before.clients.unwrap_or(4) {
            let fewer = Limits { clients: Some(most), ..smallest.clone() };
            if fails(&fewer) {
                smallest = fewer;
                break;
            }
        }
        for most in 1..before.requests.unwrap_or(41) {
            let fewer = Limits { requests: Some(most), ..smallest.clone() };
            if fails(&fewer) {
                smallest = fewer;
                break;
            }
        }
        if smallest == before {
            return smallest;
        }
    }
}

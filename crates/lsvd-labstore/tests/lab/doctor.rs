//! What the examination of a store (`lsvd doctor`) says of a lab store that misbehaves in each of its ways.

use std::time::Duration;

use lsvd_backend::RetryPolicy;
use lsvd_backend::doctor::{CHECKS, Check, Examination, Report, Verdict};
use lsvd_labstore::{Fault, LabStore, Rule, Verb};

use super::{lab, options};

/// Patience enough for what passes, and not too much for what does not.
const SOON: RetryPolicy = RetryPolicy {
    attempt_timeout: Duration::from_secs(1),
    total_limit: Duration::from_secs(1),
    backoff_first: Duration::from_millis(1),
    backoff_max: Duration::from_millis(20),
    puts_first_bytes: 64 << 20,
    gets_first_bytes: 64 << 20,
};

async fn examine(lab: &LabStore) -> Report {
    let url = "s3://lab/prefix/db1".parse().unwrap();
    Examination::open(&url, &options(lab), SOON, "probe/").unwrap().run().await
}

async fn with(rule: Rule) -> (LabStore, Report) {
    let lab = lab().await;
    lab.add_fault(rule);
    let report = examine(&lab).await;
    (lab, report)
}

#[track_caller]
fn check(report: &Report, check: Check, verdict: Verdict, words: &str) {
    let finding = report.finding(check).unwrap();
    assert!(finding.verdict == verdict && finding.answered.contains(words), "{finding:?}");
    // Whoever is told of a fault is told what to do.
    let silent = matches!(verdict, Verdict::Fault | Verdict::Warning) && finding.advice.is_empty();
    assert!(!silent || check == Check::MayList, "{finding:?}");
}

fn faults(report: &Report) -> Vec<Check> {
    let faults = report.findings.iter().filter(|finding| finding.verdict == Verdict::Fault);
    faults.map(|finding| finding.check).collect()
}

#[tokio::test]
async fn a_good_store_has_no_fault_and_is_left_as_it_was() {
    let lab = lab().await;
    let report = examine(&lab).await;
    assert_eq!(faults(&report), [], "{report:?}");
    assert_eq!(report.findings.iter().map(|finding| finding.check).collect::<Vec<_>>(), CHECKS);
    for good in
        [Check::Region, Check::Clock, Check::ListPages, Check::ListOrder, Check::Answers, Check::LeftBehind]
    {
        check(&report, good, Verdict::Good, "");
    }
    // The lab store looks at no signature, and has no settings: both are said, neither is taken for good.
    check(&report, Check::Signatures, Verdict::Warning, "as if it were good");
    for setting in [Check::Versioning, Check::Lifecycle, Check::ObjectLock] {
        check(&report, setting, Verdict::NotAsked, "no such request");
    }
    assert!(report.measured.unwrap().up_bytes_per_s.is_some_and(|rate| rate > 0));
    assert_eq!((lab.stats().objects, report.left_behind.len()), (0, 0));
}

/// Rule 2: a store that overwrites is found out, though all else is well.
#[tokio::test]
async fn ignored_conditions_are_found_out() {
    let (lab, report) = with(Rule::new(Fault::IgnoreCondition)).await;
    assert_eq!(faults(&report), [Check::CreateOnly]);
    check(&report, Check::CreateOnly, Verdict::Fault, "overwrites");
    assert_eq!(lab.stats().objects, 0);
}

/// Rule 2: one that holds alone and not in a race, as some do.
#[tokio::test]
async fn conditions_that_hold_alone_only_are_found_out() {
    let (lab, report) = with(Rule::new(Fault::IgnoreCondition).key("/race-")).await;
    assert_eq!(faults(&report), [Check::CreateOnlyInARace]);
    check(&report, Check::CreateOnlyInARace, Verdict::Fault, "were all told that they won");
    assert_eq!(lab.stats().objects, 0);
}

/// Rule 4: listings that are behind are found out, and nothing is left although they do not show it.
#[tokio::test]
async fn stale_listings_are_found_out() {
    let (lab, report) = with(Rule::new(Fault::StaleListing)).await;
    check(&report, Check::ListAfterWrite, Verdict::Fault, "does not show what was just created");
    check(&report, Check::ListPages, Verdict::Fault, "nothing in 1 pages");
    assert_eq!((lab.stats().objects, report.left_behind.len()), (0, 0));
}

/// `ms` is how long a 503 asks to be left alone: not at all, so that attempts do not run out by chance.
#[tokio::test]
async fn what_passes_is_counted_and_told() {
    for (fault, words) in [
        (Fault::SlowDown, "503 SlowDown"),
        (Fault::Reset, "reset by peer"),
        (Fault::LoseAnswer, "reset by peer"),
        (Fault::Truncate, "end of file before"),
    ] {
        let (lab, report) = with(Rule::new(fault).rate(0.3).ms(0)).await;
        check(&report, Check::Answers, Verdict::Warning, words);
        assert_eq!(faults(&report), [], "{fault:?}: {report:?}");
        lab.clear_faults();
        assert_eq!(lab.stats().objects, 0, "{fault:?}");
    }
}

/// Rule 4: a store that gives no usable answer is said to be that, and nothing is called a broken promise.
#[tokio::test]
async fn what_does_not_pass_is_no_broken_promise() {
    for fault in [Fault::SlowDown, Fault::Reset, Fault::LoseAnswer, Fault::Truncate, Fault::Hang] {
        let (_lab, report) = with(Rule::new(fault)).await;
        check(&report, Check::Bucket, Verdict::Fault, "");
        for promise in [Check::CreateOnly, Check::CreateOnlyInARace, Check::ListAfterWrite, Check::RangeReads]
        {
            check(&report, promise, Verdict::NotAsked, "");
        }
    }
}

/// Rule 4: large reads that nobody answers were said to be other bytes than those that are stored.
#[tokio::test]
async fn large_reads_without_an_answer_say_nothing_of_what_is_stored() {
    for fault in [Fault::SlowDown, Fault::Reset] {
        let (_lab, report) = with(Rule::new(fault).verb(Verb::Get).key("/large").ms(0)).await;
        assert_eq!(faults(&report), [Check::LargeObjects], "{fault:?}");
        let finding = report.finding(Check::LargeObjects).unwrap();
        assert!(finding.advice.contains("not answered"), "{finding:?}");
        check(&report, Check::RangeReads, Verdict::Good, "");
    }
}

/// One verb alone, as behind a proxy that stops uploads: the others are examined all the same.
#[tokio::test]
async fn each_verb_is_asked_by_itself() {
    for (verb, faulty) in
        [(Verb::Put, Check::MayCreate), (Verb::Get, Check::MayRead), (Verb::Delete, Check::MayDelete)]
    {
        let (_lab, report) = with(Rule::new(Fault::Reset).verb(verb)).await;
        assert!(faults(&report).contains(&faulty), "{verb:?}: {:?}", faults(&report));
        check(&report, Check::MayList, Verdict::Good, "");
    }
}

/// What can not be removed is named, exactly.
#[tokio::test]
async fn what_is_left_behind_is_named() {
    let (lab, report) = with(Rule::new(Fault::SlowDown).verb(Verb::Delete).key("/small/1")).await;
    // small/1 and small/10 to small/19
    assert_eq!(report.left_behind.len(), 11, "{:?}", report.left_behind);
    assert!(report.left_behind.iter().all(|name| name.contains("/small/1")), "{:?}", report.left_behind);
    check(&report, Check::LeftBehind, Verdict::Warning, "11 objects");
    assert_eq!(lab.stats().objects, 11);
}

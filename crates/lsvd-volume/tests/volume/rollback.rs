//! Rolling back: the content is that of the moment, the way back is pinned, and no crash and no race leaves anything between.

use std::time::Duration;

use lsvd_format::SequenceNumber;
use lsvd_format::names;
use lsvd_format::superblock::FEATURE_ROLLBACK;
use lsvd_volume::{
    CollectOptions, Error, Moment, RolledBack, Volume, list_log, plan_rollback, rollback, survey,
};

use crate::common::{BLOCK, Fate, Verb, log, write_block};
use crate::moments::{History, fills, newest};

fn number(number: u64) -> Moment {
    Moment::Number(SequenceNumber(number))
}

async fn back(history: &mut History, moment: &Moment) -> RolledBack {
    let done = rollback(&history.world.bucket, moment, history.options()).await.unwrap();
    history.then.insert(done.plan.from.0, (history.now().to_vec(), history.unix_ms()));
    // The fence that ended the log is what the way back leads to.
    let left = newest(&history.world).1.snapshot(&done.undo).unwrap().as_of.0;
    history.then.insert(left, (history.now().to_vec(), history.unix_ms()));
    history.goes_back_to(done.plan.to.0);
    done
}

/// Back, on, back again, and back from that: each time the volume is what it was, also when it goes on from there and is
/// opened anew; and every snapshot and moment that is held stays what it was, whatever is collected and deleted meanwhile.
#[tokio::test(start_paused = true)]
async fn rollbacks_of_rollbacks() {
    for (delete_after, target) in [(1 << 40, f64::INFINITY), (5, f64::INFINITY), (5, 1.05)] {
        let mut history = History::new().await;
        history.upkeep.delete_after = Duration::from_secs(delete_after);
        history.upkeep.collect =
            CollectOptions { target, waste_bytes_min: 0, share: 1.0, ..CollectOptions::default() };
        let deleted = back_and_forth(&mut history, delete_after == 5).await;
        assert_eq!(deleted, delete_after == 5, "objects were deleted, or not");
    }
}

/// Gives whether anything was deleted.
async fn back_and_forth(history: &mut History, deletes: bool) -> bool {
    let mut undos: Vec<String> = Vec::new();
    let mut highest = 0;
    for round in 0..8 {
        let volume = history.open().await;
        assert_eq!(fills(&volume).await.unwrap(), history.now(), "round {round}");
        history.goes_on(&volume, 9 + 5 * round, 4).await;
        volume.audit().unwrap();
        volume.close().await.unwrap();
        highest = volume.stats().durable_number;
        let (_, before) = newest(&history.world);
        let line = before.own_line();
        let oldest = before.checkpoints.first().map_or(1, |kept| kept.stamp.as_of.0);
        let held: Vec<u64> = history.then.keys().copied().collect();
        let held: Vec<u64> =
            held.into_iter().filter(|at| *at >= oldest && line.contains(SequenceNumber(*at))).collect();
        let mut reached = Vec::new();
        for at in held {
            match history.at_number(at).await {
                Ok(reader) => {
                    assert_eq!(fills(&reader).await.unwrap(), history.then[&at].0, "as of number {at}");
                    reached.push(at);
                }
                // Before the place to which a rollback went.
                Err(Error::NoMoment { reason, .. }) if deletes && round > 0 => {
                    assert!(reason.contains("was deleted") && reached.is_empty(), "number {at}: {reason}");
                }
                Err(error) => panic!("number {at}: {error}"),
            }
        }
        let target = match round {
            3 => Moment::Snapshot(undos[0].clone()),
            4 => Moment::Snapshot(undos[2].clone()),
            6 => Moment::Snapshot(undos[1].clone()),
            _ => number(reached[reached.len() / 2]),
        };
        let done = back(history, &target).await;
        let now = newest(&history.world).1;
        assert!(now.features_to_read.iter().any(|feature| feature == FEATURE_ROLLBACK));
        assert_eq!(now.closed_at, Some(done.plan.to));
        let reader = history.world.open_read_only().await;
        assert_eq!(fills(&reader).await.unwrap(), history.now(), "round {round}");
        undos.push(done.undo);
        for undo in &undos {
            let as_of = now.snapshot(undo).unwrap().as_of.0;
            history.check([as_of]).await;
        }
    }
    let volume = history.open().await;
    volume.audit().unwrap();
    assert!(
        survey(&history.world.bucket).await.unwrap().orphans.is_empty(),
        "what was left is nobody's orphan"
    );
    (1..=highest).any(|at| history.then.contains_key(&at) && history.world.store.bytes(&log(at)).is_none())
}

/// Behind the base of a snapshot that was gone back to, what died before the snapshot may be deleted already: such a moment
/// is refused, and never shown with holes.
#[tokio::test(start_paused = true)]
async fn what_a_snapshot_did_not_need_is_not_promised() {
    let mut history = History::new().await;
    let volume = history.open().await;
    history.goes_on(&volume, 48, 1).await;
    volume.close().await.unwrap();
    let as_of = volume.stats().durable_number;
    history.snapshot("then", as_of);
    let base = newest(&history.world).1.snapshot("then").unwrap().base.unwrap().stamp.as_of.0;
    assert!(base + 3 < as_of, "{base} {as_of}");
    let volume = history.open().await;
    history.goes_on(&volume, 60, 4).await;
    volume.close().await.unwrap();
    back(&mut history, &Moment::Snapshot("then".to_owned())).await;
    assert_eq!(newest(&history.world).1.checkpoints[0].stamp.as_of.0, base);
    let (mut reached, mut refused) = (0, 0);
    for at in history.then.keys().copied().filter(|at| (base..=as_of).contains(at)) {
        match history.at_number(at).await {
            Ok(reader) => {
                assert_eq!(fills(&reader).await.unwrap(), history.then[&at].0, "as of number {at}");
                reached += 1;
            }
            Err(Error::NoMoment { reason, .. }) => {
                assert!(reason.contains("was deleted") && at < as_of, "number {at}: {reason}");
                refused += 1;
            }
            Err(error) => panic!("number {at}: {error}"),
        }
    }
    assert!(reached > 0 && refused > 0, "{reached} {refused}");
}

/// What a rollback left is neither fetched, nor moved, nor taken for strays, and is listed as what it is.
#[tokio::test(start_paused = true)]
async fn what_was_left_is_left_alone() {
    let mut history = History::new().await;
    history.upkeep.checkpoint_objects = 1000;
    history.upkeep.checkpoint_age = Duration::MAX;
    let volume = history.open().await;
    history.goes_on(&volume, 30, 0).await;
    volume.close().await.unwrap();
    let to = volume.stats().durable_number - 20;
    let done = back(&mut history, &number(to)).await;
    assert_eq!((done.plan.left_objects, done.plan.to.0), (20, to));
    history.world.store.forget();
    let volume = history.open().await;
    assert_eq!(volume.description().recovery.durable_number, done.next, "it goes on where the fence said");
    for left in to + 1..done.next.0 {
        assert_eq!(history.world.store.count(Verb::Get, &log(left)), 0, "number {left} is not looked at");
    }
    assert!(history.world.store.names(names::ARCHIVE_FOLDER).is_empty());
    let listed = list_log(&history.world.bucket, None).await.unwrap();
    let branch = listed.iter().filter(|entry| entry.branch).count();
    assert_eq!(branch, 21, "and the fence");
    assert!(listed.iter().all(|entry| !entry.stray));
}

/// A writer that does not know of the rollback is fenced, and what it puts late joins nothing.
#[tokio::test(start_paused = true)]
async fn the_old_writer_is_fenced() {
    let mut history = History::new().await;
    let old = history.open().await;
    history.goes_on(&old, 10, 0).await;
    let to = old.stats().durable_number - 4;
    let done = back(&mut history, &number(to)).await;
    assert!(matches!(write_block(&old, 0, 77).await, Err(Error::Fenced { .. })));
    let late = done.next.0 - 2;
    history.world.put_old_object(&old, 2, late, 3, 99);
    let volume = history.open().await;
    assert_eq!(fills(&volume).await.unwrap(), history.now());
    history.goes_on(&volume, 3, 0).await;
    volume.close().await.unwrap();
    let reader = history.world.open_read_only().await;
    assert_eq!(fills(&reader).await.unwrap(), history.now());
}

/// Whatever the store does in the midst of a rollback, the volume is as it was before or as it is behind it.
#[tokio::test(start_paused = true)]
async fn a_crash_leaves_it_before_or_after() {
    let mut outcomes = [0, 0];
    for with_effect in [false, true] {
        for requests in 0.. {
            let mut history = History::new().await;
            let volume = history.open().await;
            history.goes_on(&volume, 25, 2).await;
            drop(volume);
            let to = *history.then.keys().rev().nth(5).unwrap();
            history.world.store.dies_after(requests, with_effect);
            let bucket = history.world.bucket.clone();
            let moment = number(to);
            let rolling = rollback(&bucket, &moment, history.options());
            let ended = tokio::time::timeout(Duration::from_secs(3600), rolling).await;
            history.world.store.release();
            let is_back = !newest(&history.world).1.moments.rollbacks.is_empty();
            if is_back {
                history.goes_back_to(to);
            }
            outcomes[usize::from(is_back)] += 1;
            let reader = history.world.open_read_only().await;
            assert_eq!(fills(&reader).await.unwrap(), history.now(), "after {requests} requests");
            let volume = history.open().await;
            assert_eq!(fills(&volume).await.unwrap(), history.now(), "after {requests} requests");
            history.goes_on(&volume, 2, 0).await;
            drop(volume);
            let volume = history.open().await;
            assert_eq!(fills(&volume).await.unwrap(), history.now(), "after {requests} requests");
            if matches!(ended, Ok(Ok(_))) {
                assert!(is_back);
                break;
            }
        }
    }
    assert!(outcomes[0] > 20 && outcomes[1] > 2, "{outcomes:?}");
}

/// A rollback and an opening at once: exactly one of them has the volume in the end, and it is all of one or of the other.
#[tokio::test(start_paused = true)]
async fn one_of_two_wins() {
    let (mut opened_last, mut rolled_last) = (0, 0);
    for delay in 0..60 {
        let mut history = History::new().await;
        let volume = history.open().await;
        history.goes_on(&volume, 12, 0).await;
        volume.close().await.unwrap();
        let to = volume.stats().durable_number - 5;
        let (bucket, options) = (history.world.bucket.clone(), history.options());
        let opening = async {
            for _ in 0..delay {
                tokio::task::yield_now().await;
            }
            Volume::open(bucket.clone(), options.clone()).await
        };
        let moment = number(to);
        let (rolled, opened) = futures::join!(rollback(&bucket, &moment, options.clone()), opening);
        let is_back = !newest(&history.world).1.moments.rollbacks.is_empty();
        assert_eq!(rolled.is_ok(), is_back, "{rolled:?}");
        if is_back {
            history.goes_back_to(to);
        }
        for error in [rolled.as_ref().err(), opened.as_ref().err()].into_iter().flatten() {
            assert!(matches!(error, Error::Fenced { .. }), "{error}");
        }
        match opened {
            Ok(volume) => match write_block(&volume, 0, 200).await {
                Ok(()) => {
                    opened_last += 1;
                    let mut expected = history.now().to_vec();
                    expected[0] = 200;
                    assert_eq!(fills(&volume).await.unwrap(), expected, "delay {delay}");
                }
                Err(error) => {
                    assert!(is_back && matches!(error, Error::Fenced { .. }), "delay {delay}: {error}");
                    rolled_last += 1;
                    let volume = history.open().await;
                    assert_eq!(fills(&volume).await.unwrap(), history.now(), "delay {delay}");
                }
            },
            Err(_) => {
                assert!(is_back, "one of them wins");
                rolled_last += 1;
            }
        }
    }
    assert!(opened_last > 5 && rolled_last > 5, "{opened_last} {rolled_last}");
}

/// Rule 4: a reader that read its superblock before a rollback, and the log when a writer had gone on, does not take what
/// that wrote for the end of what was left.
#[tokio::test(start_paused = true)]
async fn a_reader_mixes_no_two_lines() {
    let mut history = History::new().await;
    let volume = history.open().await;
    history.goes_on(&volume, 12, 0).await;
    volume.close().await.unwrap();
    let to = volume.stats().durable_number - 6;
    let stale = history.world.store.names(names::SUPERBLOCK_FOLDER).len();
    back(&mut history, &number(to)).await;
    let volume = history.open().await;
    history.goes_on(&volume, 3, 0).await;
    let versions = history.world.store.names(names::SUPERBLOCK_FOLDER);
    let newer: Vec<_> = versions[stale..]
        .iter()
        .map(|name| (name.clone(), history.world.store.bytes(name).unwrap()))
        .collect();
    newer.iter().for_each(|(name, _)| history.world.store.remove(name));
    history.world.store.before(Verb::List, "log", move |store| {
        newer.iter().for_each(|(name, bytes)| store.put(name, bytes.clone()));
    });
    let reader = history.world.open_read_only().await;
    assert_eq!(fills(&reader).await.unwrap(), history.now());
}

/// What would be left, and what can not be.
#[tokio::test(start_paused = true)]
async fn what_a_rollback_would_be() {
    let mut history = History::new().await;
    let volume = history.open().await;
    history.goes_on(&volume, 12, 1).await;
    volume.close().await.unwrap();
    let last = volume.stats().durable_number;
    let versions = history.world.store.names(names::SUPERBLOCK_FOLDER);
    let bucket = history.world.bucket.clone();
    history.world.store.forget();
    let plan = plan_rollback(&bucket, &number(last - 3)).await.unwrap();
    assert_eq!((plan.to.0, plan.from.0, plan.left_objects), (last - 3, last, 3));
    assert!(plan.left_bytes > BLOCK / 2);
    assert!(matches!(plan_rollback(&bucket, &number(last)).await, Err(Error::Invalid(_))));
    assert!(matches!(plan_rollback(&bucket, &number(last + 1)).await, Err(Error::NoMoment { .. })));
    let refused = rollback(&bucket, &number(last + 1), history.options()).await;
    assert!(matches!(refused, Err(Error::NoMoment { .. })));
    assert_eq!(history.world.store.names(names::SUPERBLOCK_FOLDER), versions, "nothing was written");
    assert!(history.world.store.made().iter().all(|made| !made.verb.mutates()));
}

/// A version whose answer was lost is there all the same.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_no_failure() {
    let mut history = History::new().await;
    let volume = history.open().await;
    history.goes_on(&volume, 12, 0).await;
    volume.close().await.unwrap();
    let to = volume.stats().durable_number - 5;
    history.world.store.rule(Verb::Put, "superblock/", Fate::AnswerLost, 2);
    back(&mut history, &number(to)).await;
    let volume = history.open().await;
    assert_eq!(fills(&volume).await.unwrap(), history.now());
}

/// A log that lost what the volume was rolled back to has no numbers to go on with: it is refused, also on request.
#[tokio::test(start_paused = true)]
async fn a_log_that_ends_before_a_rollback_is_refused() {
    let mut history = History::new().await;
    let volume = history.open().await;
    history.goes_on(&volume, 8, 0).await;
    volume.close().await.unwrap();
    let to = volume.stats().durable_number - 3;
    back(&mut history, &number(to)).await;
    history.world.store.remove(&log(to));
    let options = lsvd_volume::OpenOptions { accept_shorter_log: true, ..history.options() };
    let refused = Volume::open(history.world.bucket.clone(), options).await;
    assert!(matches!(refused, Err(Error::Corrupt { reason, .. }) if reason.contains("rolled back")));
}

/// Rule 3: what came too late for a log, behind the fence of a rollback or behind one of the branch that it left, is archived
/// byte for byte, while the branch itself is deleted once nothing needs it.
#[tokio::test(start_paused = true)]
async fn what_came_too_late_for_what_was_left_is_archived() {
    let mut history = History::new().await;
    let oldest = history.open().await;
    history.goes_on(&oldest, 4, 0).await;
    let to = oldest.stats().durable_number;
    let old = history.open().await;
    let fence = old.description().recovery.durable_number.0;
    history.goes_on(&old, 6, 0).await;
    let left = old.stats().durable_number;
    let done = back(&mut history, &number(to)).await;
    let late = [fence + 2, done.next.0 - 2].map(log);
    history.world.put_old_object(&oldest, oldest.description().epoch.0, fence + 2, 3, 98);
    history.world.put_old_object(&old, old.description().epoch.0, done.next.0 - 2, 3, 99);
    let bytes = late.clone().map(|name| history.world.store.bytes(&name).unwrap());
    let volume = history.open().await;
    history.goes_on(&volume, 40, 4).await;
    assert!(history.world.store.bytes(&log(left)).is_some(), "the way back needs it");
    volume.remove_snapshot(&done.undo).await.unwrap();
    history.goes_on(&volume, 40, 4).await;
    assert!(history.world.store.bytes(&log(left)).is_none(), "nothing needs it any more");
    for (late, bytes) in late.iter().zip(bytes) {
        assert!(history.world.store.bytes(late).is_none(), "{late} is still there");
        let archived = history.world.store.names(names::ARCHIVE_FOLDER);
        let copy = archived.iter().find(|copy| copy.ends_with(late.as_str()));
        let copy = copy.unwrap_or_else(|| panic!("{late} was deleted, and is not one of {archived:?}"));
        assert_eq!(history.world.store.bytes(copy), Some(bytes));
    }
}

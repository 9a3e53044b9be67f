//! Winding back by deleting the newest objects by hand: what is left is opened if nothing of it is missing.

use std::time::Duration;

use lsvd_volume::{Error, OpenOptions, Volume};

use crate::common::log;
use crate::moments::{History, fills, newest};

/// Deletes the log from a number on, and opens what is left.
async fn cut(history: &History, from: u64) -> Result<Volume, Error> {
    let end = history.then.keys().next_back().copied().unwrap();
    for number in from..=end + 50 {
        if history.world.store.bytes(&log(number)).is_some() {
            history.world.store.remove(&log(number));
        }
    }
    assert!(matches!(history.world.try_open().await, Err(Error::Corrupt { .. })), "only on request");
    let options = OpenOptions { accept_shorter_log: true, ..history.options() };
    Volume::open(history.world.bucket.clone(), options).await
}

async fn goes_on_well(history: &mut History, volume: Volume, last: u64) {
    history.goes_back_to(last);
    assert_eq!(fills(&volume).await.unwrap(), history.now());
    volume.audit().unwrap();
    history.goes_on(&volume, 30, 2).await;
    drop(volume);
    let volume = history.open().await;
    assert_eq!(fills(&volume).await.unwrap(), history.now());
    let reader = history.world.open_read_only().await;
    assert_eq!(fills(&reader).await.unwrap(), history.now());
}

/// The newest checkpoint lies behind the new end: the one before leads there.
#[tokio::test(start_paused = true)]
async fn behind_an_older_checkpoint() {
    let mut history = History::new().await;
    let volume = history.open().await;
    history.goes_on(&volume, 60, 2).await;
    volume.close().await.unwrap();
    let kept = newest(&history.world).1.checkpoints;
    let from = (kept[0].stamp.as_of.0 + kept[1].stamp.as_of.0) / 2 + 1;
    history.snapshot("lost", kept[1].stamp.as_of.0);
    let volume = cut(&history, from).await.unwrap();
    let now = newest(&history.world).1;
    assert_eq!(now.checkpoints, kept[..1], "what lies behind the end is dropped at once");
    assert!(now.moments.snapshots.is_empty());
    goes_on_well(&mut history, volume, from - 1).await;
}

/// All checkpoints lie behind the new end, and nothing was deleted yet: the log leads there from its beginning.
#[tokio::test(start_paused = true)]
async fn from_the_beginning() {
    let mut history = History::new().await;
    history.upkeep.delete_after = Duration::from_secs(1 << 40);
    let volume = history.open().await;
    history.goes_on(&volume, 60, 2).await;
    volume.close().await.unwrap();
    let from = newest(&history.world).1.checkpoints[0].stamp.as_of.0 - 3;
    let volume = cut(&history, from).await.unwrap();
    assert!(newest(&history.world).1.checkpoints.is_empty());
    goes_on_well(&mut history, volume, from - 1).await;
}

/// What the new end needs was deleted: it is refused, and the oldest moment that can be reached is named.
#[tokio::test(start_paused = true)]
async fn never_a_guess() {
    let mut history = History::new().await;
    let volume = history.open().await;
    history.goes_on(&volume, 60, 2).await;
    volume.close().await.unwrap();
    let oldest = newest(&history.world).1.checkpoints[0].stamp.as_of.0;
    assert!((1..oldest).any(|number| history.world.store.bytes(&log(number)).is_none()));
    // So much is gone that something live as of the oldest checkpoint is.
    let refused = cut(&history, oldest - 6).await;
    assert!(
        matches!(&refused, Err(Error::Corrupt { reason, .. }) if reason.contains(&format!("number {oldest}"))),
        "{refused:?}"
    );
}

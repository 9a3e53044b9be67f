//! Moments: every one that is held reads as it was, what is not held is refused with words, and readers stay where they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lsvd_format::names;
use lsvd_format::superblock::{self, Moments, Snapshot, Superblock};
use lsvd_format::{SequenceNumber, SuperblockNumber};
use lsvd_volume::{
    CollectOptions, Environment, Error, Moment, OpenOptions, UpkeepOptions, Volume, inspect_at, list_log,
};

use crate::common::{BLOCK, MIB, Store, Verb, World, log, read, write_block};

/// When the tests' clocks begin.
pub(crate) const BEGIN_UNIX_MS: u64 = 1_800_000_000_000;
/// Blocks that the tests write over.
pub(crate) const BLOCKS: u64 = 12;

/// A clock that goes on with the test's time, from its first use on.
fn clock() -> Environment {
    let since = tokio::time::Instant::now();
    let now = move || BEGIN_UNIX_MS + u64::try_from(since.elapsed().as_millis()).unwrap();
    Environment { now_unix_ms: Arc::new(now), ..Environment::default() }
}

/// Looks each second, writes a checkpoint behind every 10 objects, deletes after 10 s, collects nothing.
fn eager() -> UpkeepOptions {
    UpkeepOptions {
        look_every: Duration::from_secs(1),
        checkpoint_objects: 10,
        checkpoint_age: Duration::from_secs(20),
        delete_after: Duration::from_secs(10),
        collect: CollectOptions { target: f64::INFINITY, ..CollectOptions::default() },
    }
}

/// A volume whose content at every commit point is remembered.
pub(crate) struct History {
    pub(crate) world: World,
    environment: Environment,
    pub(crate) upkeep: UpkeepOptions,
    now: Vec<u8>,
    /// What the blocks are filled with as of each number, and when that was.
    pub(crate) then: BTreeMap<u64, (Vec<u8>, u64)>,
    state: u64,
}

impl History {
    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        let now = vec![0; BLOCKS as usize];
        Self { world, environment: clock(), upkeep: eager(), now, then: BTreeMap::new(), state: 1 }
    }

    pub(crate) fn options(&self) -> OpenOptions {
        // Without a cache, what is read is asked of the store.
        let (upkeep, environment) = (self.upkeep, self.environment.clone());
        OpenOptions { upkeep, environment, cache_bytes_max: 0, ..self.world.options() }
    }

    pub(crate) async fn open(&mut self) -> Volume {
        let volume = Volume::open(self.world.bucket.clone(), self.options()).await.expect("it opens");
        self.remember(&volume);
        volume
    }

    pub(crate) fn unix_ms(&self) -> u64 {
        (self.environment.now_unix_ms)()
    }

    pub(crate) fn remember(&mut self, volume: &Volume) {
        self.then.insert(volume.stats().durable_number, (self.now.clone(), self.unix_ms()));
    }

    /// What there is now is what there was at a number.
    pub(crate) fn goes_back_to(&mut self, number: u64) {
        self.now = self.then[&number].0.clone();
    }

    pub(crate) fn now(&self) -> &[u8] {
        &self.now
    }

    /// Writes and trims, each a commit point of its own, `seconds` apart.
    pub(crate) async fn goes_on(&mut self, volume: &Volume, commits: u64, seconds: u64) {
        for _ in 0..commits {
            self.state =
                self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let block = (self.state >> 33) % BLOCKS;
            let fill = (self.state >> 50) as u8;
            if fill.is_multiple_of(5) {
                volume.trim(block * BLOCK, BLOCK, true).await.unwrap();
                self.now[block as usize] = 0;
            } else {
                write_block(volume, block, fill).await.unwrap();
                self.now[block as usize] = fill;
            }
            self.remember(volume);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    }

    pub(crate) async fn at(&self, moment: &Moment) -> Result<Volume, Error> {
        Volume::open_read_only_at(self.world.bucket.clone(), moment, self.options()).await
    }

    pub(crate) async fn at_number(&self, number: u64) -> Result<Volume, Error> {
        self.at(&Moment::Number(SequenceNumber(number))).await
    }

    /// Every moment of these is held and reads as it was.
    pub(crate) async fn check(&self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let volume =
                self.at_number(number).await.unwrap_or_else(|error| panic!("number {number}: {error}"));
            assert_eq!(fills(&volume).await.unwrap(), self.then[&number].0, "as of number {number}");
        }
    }

    /// Pins a moment while nobody has the volume open.
    pub(crate) fn snapshot(&self, name: &str, as_of: u64) {
        let (number, newest) = newest(&self.world);
        let as_of = SequenceNumber(as_of);
        let line = newest.line(as_of);
        let base = newest.checkpoints.iter().rev().find(|kept| line.contains(kept.stamp.as_of)).copied();
        let snapshot = Snapshot {
            name: name.to_owned(),
            as_of,
            base,
            size_bytes: newest.size_bytes_at(&line),
            created_unix_ms: self.unix_ms(),
            automatic: false,
            clone: None,
        };
        let mut moments: Moments = newest.moments.clone();
        moments.snapshots.push(snapshot);
        let next = newest.with_moments(moments);
        self.world.store.put(&names::superblock(number.next()), superblock::encode(number.next(), &next));
    }
}

/// What the blocks are filled with.
pub(crate) async fn fills(volume: &Volume) -> Result<Vec<u8>, Error> {
    let bytes = read(volume, 0, BLOCKS * BLOCK).await?;
    let fill = |block: &[u8]| {
        assert!(block.iter().all(|byte| *byte == block[0]), "a block is of one write");
        block[0]
    };
    Ok(bytes.chunks(BLOCK as usize).map(fill).collect())
}

pub(crate) fn newest(world: &World) -> (SuperblockNumber, Superblock) {
    let name = world.store.names(names::SUPERBLOCK_FOLDER).pop().unwrap();
    let number = names::parse_superblock(&name).unwrap();
    (number, superblock::decode(number, &world.store.bytes(&name).unwrap()).unwrap())
}

/// Without a checkpoint all of the log can be reached; with them, all from the oldest on, while what is older is deleted.
#[tokio::test(start_paused = true)]
async fn every_moment_that_is_held_is_what_it_was() {
    let mut history = History::new().await;
    history.upkeep.checkpoint_objects = 1000;
    history.upkeep.checkpoint_age = Duration::MAX;
    let volume = history.open().await;
    history.goes_on(&volume, 15, 0).await;
    history.check(history.then.keys().copied()).await;
    drop(volume);
    history.upkeep = eager();
    let volume = history.open().await;
    for _ in 0..4 {
        history.goes_on(&volume, 14, 3).await;
        let oldest = newest(&history.world).1.checkpoints.first().map_or(0, |kept| kept.stamp.as_of.0);
        history.check(history.then.keys().copied().filter(|number| *number >= oldest)).await;
    }
    let oldest = newest(&history.world).1.checkpoints[0].stamp.as_of.0;
    let gone = (1..oldest).filter(|number| history.world.store.bytes(&log(*number)).is_none()).count();
    assert!(gone > 5, "what died before was deleted: {gone} objects");
    for number in [1, oldest - 1] {
        let refused = history.at_number(number).await.unwrap_err().to_string();
        assert!(
            refused.contains("nothing holds it") && refused.contains(&format!("number {oldest}")),
            "{refused}"
        );
    }
    let end = volume.stats().durable_number;
    let refused = history.at_number(end + 1).await.unwrap_err();
    assert!(matches!(&refused, Error::NoMoment { reason, .. } if reason.contains("ends with")), "{refused}");
}

/// A number that a fence skips is no moment, and its neighbours are named.
#[tokio::test(start_paused = true)]
async fn a_number_that_was_skipped_is_no_moment() {
    let mut history = History::new().await;
    let volume = history.open().await;
    history.goes_on(&volume, 2, 0).await;
    drop(volume);
    let volume = history.open().await;
    let fence = volume.stats().durable_number;
    history.goes_on(&volume, 1, 0).await;
    let refused = history.at_number(fence + 1).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("before it is number {fence}")), "{refused}");
}

/// A snapshot is read by its name, also below what is held otherwise.
#[tokio::test(start_paused = true)]
async fn a_snapshot_is_read_by_its_name() {
    let mut history = History::new().await;
    let volume = history.open().await;
    history.goes_on(&volume, 7, 0).await;
    volume.close().await.unwrap();
    let as_of = volume.stats().durable_number;
    history.snapshot("then", as_of);
    let reader = history.at(&Moment::Snapshot("then".to_owned())).await.unwrap();
    let expected = &history.then[&as_of].0;
    assert_eq!(&fills(&reader).await.unwrap(), expected);
    let info = inspect_at(&history.world.bucket, &Moment::Snapshot("then".to_owned())).await.unwrap();
    assert_eq!((info.as_of.0, info.snapshots, info.size_bytes), (as_of, vec!["then".to_owned()], 64 * MIB));
    assert!(matches!(
        history.at(&Moment::Snapshot("other".to_owned())).await,
        Err(Error::NoMoment { reachable, .. }) if reachable.contains("then")
    ));
    let listed = list_log(&history.world.bucket, None).await.unwrap();
    assert_eq!(listed.last().unwrap().snapshots, ["then"]);
    assert!(matches!(reader.write(0, "x".into(), false).await, Err(Error::ReadOnly { .. })));
}

/// A time means the last object that was sealed by then.
#[tokio::test(start_paused = true)]
async fn a_time_is_the_last_object_until_then() {
    let mut history = History::new().await;
    let volume = history.open().await;
    for _ in 0..4 {
        history.goes_on(&volume, 12, 3).await;
    }
    drop(volume);
    let oldest = newest(&history.world).1.checkpoints[0].stamp.as_of.0;
    let mut tried = 0;
    for (number, (content, unix_ms)) in history.then.range(oldest..) {
        let reader = history.at(&Moment::Time(*unix_ms + 1000)).await.unwrap();
        assert_eq!(reader.description().recovery.durable_number.0, *number);
        assert_eq!(&fills(&reader).await.unwrap(), content);
        tried += 1;
    }
    assert!(tried > 5, "{tried}");
    let refused = history.at(&Moment::Time(BEGIN_UNIX_MS)).await.unwrap_err();
    assert!(refused.to_string().contains("before the oldest"), "{refused}");
}

/// A volume whose superblock changes each time when it is read is given up with words, and not read for ever.
#[tokio::test(start_paused = true)]
async fn a_volume_that_changes_all_the_time_is_read_no_longer() {
    let mut history = History::new().await;
    let volume = history.open().await;
    history.goes_on(&volume, 8, 0).await;
    let number = volume.stats().durable_number;
    volume.close().await.unwrap();
    let changes = |store: &Store| {
        let name = store.names(names::SUPERBLOCK_FOLDER).pop().unwrap();
        let number = names::parse_superblock(&name).unwrap();
        let mut newest = superblock::decode(number, &store.bytes(&name).unwrap()).unwrap();
        newest.moments.history_ms += 1000;
        store.put(&names::superblock(number.next()), superblock::encode(number.next(), &newest));
    };
    for _ in 0..200 {
        history.world.store.before(Verb::List, "log", changes);
    }
    let read = tokio::time::timeout(Duration::from_secs(3600), history.at_number(number)).await;
    let Err(error) = read.expect("it ends") else { panic!("it never stood still") };
    assert!(matches!(error, Error::Unsteady { .. }), "{error}");
    history.world.store.drop_rules();
    history.check([number]).await;
}

/// A reader stays at its moment while the volume goes on; when nothing holds it any more, it says so, and never shows
/// another one.
#[tokio::test(start_paused = true)]
async fn a_reader_stays_at_its_moment() {
    let mut history = History::new().await;
    let volume = history.open().await;
    history.goes_on(&volume, 20, 2).await;
    let number = volume.stats().durable_number;
    let expected = history.then[&number].0.clone();
    let fresh = history.at_number(number).await.unwrap();
    let mut refused = 0;
    for _ in 0..8 {
        history.goes_on(&volume, 8, 3).await;
        match fills(&fresh).await {
            Ok(shown) => assert_eq!(shown, expected),
            Err(Error::NoMoment { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0, "what it needs was deleted in the end");
    assert_eq!(fresh.stats().reloads, 0);
}

/// A checkpoint that leads to a moment may be damaged: the one before does.
#[tokio::test(start_paused = true)]
async fn a_moment_has_more_than_one_way() {
    let mut history = History::new().await;
    let volume = history.open().await;
    history.goes_on(&volume, 40, 2).await;
    drop(volume);
    let kept = newest(&history.world).1.checkpoints;
    let newest = names::checkpoint_part(&kept[1].part);
    let bytes = history.world.store.bytes(&newest).unwrap();
    history.world.store.put(&newest, bytes.slice(..bytes.len() - 1));
    let from = kept[0].stamp.as_of.0;
    history.check(history.then.keys().copied().filter(|number| *number >= from)).await;
    assert_eq!(history.world.store.count(Verb::Delete, names::ARCHIVE_FOLDER), 0);
}

#[test]
fn moments_are_read_as_people_write_them() {
    assert_eq!("nightly-1".parse(), Ok(Moment::Snapshot("nightly-1".to_owned())));
    assert_eq!("42".parse(), Ok(Moment::Number(SequenceNumber(42))));
    assert_eq!("2027-01-15T08:00:00.0Z".parse(), Ok(Moment::Time(1_800_000_000_000)));
    for text in ["", "-1", "a b", "12a", "2027-01-15", "99999999999999999999"] {
        assert!(text.parse::<Moment>().is_err(), "{text}");
    }
}

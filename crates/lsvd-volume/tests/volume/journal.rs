//! A volume with a local journal: what a flush means then, which journals are accepted, and how it fails.
//!
//! The disk is in memory and keeps all that was written: what a crash of the host does to it is the simulator's matter.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use lsvd_format::{SequenceNumber, SuperblockNumber, names, superblock};
use lsvd_volume::{
    Error, Files, JournalError, JournalOptions, Moment, OpenOptions, ShrinkPolicy, Volume, inspect, rollback,
};

use crate::common::{BLOCK, Fate, MIB, Verb, World, blocks, fill_of, settle, write_block};

#[derive(Default)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    locked: bool,
    pub(crate) syncs: usize,
    sync_fails: bool,
}

/// A disk with one directory on it.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn options(&self) -> JournalOptions {
        let disk = self.clone();
        let open = move || {
            let mut state = disk.state();
            if std::mem::replace(&mut state.locked, true) {
                return Err(ErrorKind::ResourceBusy.into());
            }
            Ok(Box::new(Open(disk.clone())) as Box<dyn Files + Send>)
        };
        JournalOptions::simulated(open, || Duration::from_micros(50))
    }

    /// Another disk with the same bytes, as a restored image of the host has it.
    fn copy(&self) -> Self {
        let files = self.state().files.clone();
        Self(Arc::new(Mutex::new(State { files, ..State::default() })))
    }

    fn names(&self) -> Vec<String> {
        self.state().files.keys().cloned().collect()
    }
}

/// The directory while somebody has it.
struct Open(Disk);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

impl Open {
    fn with<T>(&self, name: &str, with: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        self.0.state().files.get_mut(name).map(with).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Files for Open {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.names())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.0.state().files.insert(name.to_owned(), Vec::new());
        Ok(())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        self.with(name, |bytes| bytes.len() as u64)
    }

    fn read(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(name, |bytes| {
            let from = usize::try_from(offset).unwrap().min(bytes.len());
            let count = buffer.len().min(bytes.len() - from);
            buffer[..count].copy_from_slice(&bytes[from..from + count]);
            count
        })
    }

    fn write(&mut self, name: &str, offset: u64, new: &[u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        self.with(name, |bytes| {
            bytes.resize(bytes.len().max(from + new.len()), 0);
            bytes[from..from + new.len()].copy_from_slice(new);
        })
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.with(name, |bytes| bytes.truncate(usize::try_from(length).unwrap()))
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        let mut state = self.0.state();
        state.syncs += 1;
        if state.sync_fails { Err(io::Error::other("the disk failed")) } else { Ok(()) }
    }

    fn sync_names(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.state().files.remove(name).map(|_| ()).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

/// With the journal on `disk`, and batches that only a full one ends.
fn on(world: &World, disk: &Disk) -> OpenOptions {
    let journal = Some(disk.options());
    OpenOptions { journal, batch_age_max: Duration::from_secs(1 << 20), ..world.options() }
}

async fn try_open(world: &World, disk: &Disk) -> Result<Volume, Error> {
    Volume::open(world.bucket.clone(), on(world, disk)).await
}

async fn open(world: &World, disk: &Disk) -> Volume {
    try_open(world, disk).await.expect("it opens")
}

async fn try_abandoning(world: &World, disk: Option<&Disk>) -> Result<Volume, Error> {
    let journal = disk.map(Disk::options);
    let options = OpenOptions { journal, abandon_journal: true, ..world.options() };
    Volume::open(world.bucket.clone(), options).await
}

/// The process dies: nothing more leaves it.
async fn crash(world: &World, volume: Volume) {
    drop(volume);
    settle().await;
    world.store.release();
}

fn newest(world: &World) -> superblock::Superblock {
    let name = world.store.names("superblock/").pop().unwrap();
    superblock::decode(names::parse_superblock(&name).unwrap(), &world.store.bytes(&name).unwrap()).unwrap()
}

fn superblocks(world: &World) -> usize {
    world.store.names("superblock/").len()
}

/// Rule 1: a flush and FUA are answered while the store hangs, and what they cover is there after the crash, trims and
/// zeroes too; of the rest a prefix.
#[tokio::test(start_paused = true)]
async fn what_the_journal_holds_survives_a_crash() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    write_block(&volume, 3, 3).await.unwrap();
    volume.write(4 * BLOCK, blocks(2, 4), true).await.unwrap();
    world.store.hangs();
    write_block(&volume, 0, 7).await.unwrap();
    volume.write(BLOCK, blocks(1, 8), true).await.unwrap();
    volume.trim(3 * BLOCK, BLOCK, true).await.unwrap();
    volume.write_zeroes(4 * BLOCK, BLOCK, true, false).await.unwrap();
    volume.write(100, "merged".into(), false).await.unwrap();
    volume.flush().await.unwrap();
    assert_eq!(world.store.names("log/").len(), 1, "the store has the fence only");
    crash(&world, volume).await;

    let volume = open(&world, &disk).await;
    assert_eq!(volume.description().recovery.journal_records, 7);
    let fills = [8, 0, 0, 0, 4];
    for (block, fill) in (1..).zip(fills) {
        assert_eq!(fill_of(&volume, block).await.unwrap(), fill, "block {block}");
    }
    let merged = crate::common::read(&volume, 98, 10).await.unwrap();
    assert_eq!(merged, [7, 7, b'm', b'e', b'r', b'g', b'e', b'd', 7, 7]);
    // What was replayed goes to the store; then nothing needs the journal.
    volume.close().await.unwrap();
    assert_eq!((disk.names().len(), newest(&world).journal), (0, None), "{:?}", disk.names());
    let volume = world.open().await;
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 8);
}

/// The superblock names the journal before a flush is answered, and every object says how much of it the log contains: a
/// replay resumes behind that, also after a crash amid a replay.
#[tokio::test(start_paused = true)]
async fn a_replay_that_was_cut_short_resumes() {
    let (world, disk) = (World::new().await, Disk::default());
    let small = |options: &mut OpenOptions| options.batch_bytes_max = 4 * BLOCK;
    let mut options = on(&world, &disk);
    small(&mut options);
    let volume = Volume::open(world.bucket.clone(), options.clone()).await.unwrap();
    let journal = newest(&world).journal.expect("it is named");
    world.store.hangs();
    for block in 0..30_u8 {
        volume.write(u64::from(block) * BLOCK, blocks(1, block + 1), false).await.unwrap();
    }
    volume.flush().await.unwrap();
    crash(&world, volume).await;
    let mut replayed = Vec::new();
    for round in 0..4 {
        // Only so many objects get through before the next crash.
        world.store.rule(Verb::Put, "log/", Fate::Slow(Duration::from_millis(1)), 3);
        world.store.always(Verb::Put, "log/", Fate::Hangs);
        let volume = Volume::open(world.bucket.clone(), options.clone()).await.unwrap();
        assert_eq!(newest(&world).journal, Some(journal));
        replayed.push(volume.description().recovery.journal_records);
        tokio::time::sleep(Duration::from_secs(1)).await;
        for block in 0..30_u8 {
            let fill = fill_of(&volume, u64::from(block)).await.unwrap();
            assert_eq!(fill, block + 1, "round {round}, block {block}");
        }
        crash(&world, volume).await;
    }
    assert!(replayed.windows(2).all(|pair| pair[0] > pair[1]), "{replayed:?}");
    let volume = Volume::open(world.bucket.clone(), options).await.unwrap();
    volume.close().await.unwrap();
    let volume = world.open().await;
    assert_eq!(fill_of(&volume, 29).await.unwrap(), 30);
}

/// Many flushes at once share a sync.
#[tokio::test(start_paused = true)]
async fn flushes_share_a_sync() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    let before = disk.state().syncs;
    let clients = (0..64).map(|block| {
        let volume = volume.clone();
        tokio::spawn(async move { write_block(&volume, block, 1).await })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap().unwrap();
    }
    let syncs = disk.state().syncs - before;
    assert!((1..=8).contains(&syncs), "{syncs} syncs for 64 flushes");
    assert_eq!(world.store.count(Verb::Put, "log/"), 1, "and no object but the fence");
}

/// A volume whose journal is elsewhere is refused before anybody is fenced, and says since when the loss counts; given up
/// it opens with what the store has, a prefix.
#[tokio::test(start_paused = true)]
async fn a_volume_without_its_journal_is_refused() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    volume.write(0, blocks(1, 1), false).await.unwrap();
    volume.write(BLOCK, blocks(2048, 2), false).await.unwrap();
    settle().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(volume.stats().buffered_bytes, 0, "the batch was full");
    write_block(&volume, 0, 3).await.unwrap();
    let journal = newest(&world).journal.unwrap();
    let before = superblocks(&world);
    for disk in [None, Some(Disk::default())] {
        let options = OpenOptions { journal: disk.as_ref().map(Disk::options), ..world.options() };
        let error = Volume::open(world.bucket.clone(), options).await.unwrap_err();
        assert!(
            matches!(&error, Error::JournalNeeded { journal: needed, .. } if *needed == journal),
            "{error}"
        );
        assert!(error.to_string().contains("s ago") || error.to_string().contains("ahead"), "{error}");
    }
    assert_eq!(superblocks(&world), before, "nobody was fenced");
    write_block(&volume, 4000, 9).await.unwrap();
    crash(&world, volume).await;
    // A reader needs no journal.
    assert_eq!(fill_of(&world.open_read_only().await, 0).await.unwrap(), 1);
    let volume = try_abandoning(&world, None).await.unwrap();
    let fills = [fill_of(&volume, 0).await.unwrap(), fill_of(&volume, 2).await.unwrap()];
    assert_eq!((fills, fill_of(&volume, 4000).await.unwrap()), ([1, 2], 0));
    assert_eq!(newest(&world).journal, None);
}

/// Rule 1: a journal that something was written past is refused before anybody is fenced: it would bring back what was
/// overwritten. Given up, another one is begun in its place.
#[tokio::test(start_paused = true)]
async fn a_journal_that_was_written_past_is_refused() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    write_block(&volume, 0, 1).await.unwrap();
    crash(&world, volume).await;
    let other = try_abandoning(&world, None).await.unwrap();
    write_block(&other, 0, 2).await.unwrap();
    let before = superblocks(&world);
    let error = try_open(&world, &disk).await.unwrap_err();
    assert!(matches!(error, Error::JournalPassedOver { .. }), "{error}");
    assert_eq!(superblocks(&world), before, "nobody was fenced");
    write_block(&other, 1, 2).await.unwrap();
    crash(&world, other).await;
    let volume = try_abandoning(&world, Some(&disk)).await.unwrap();
    assert_eq!(fill_of(&volume, 0).await.unwrap(), 2);
    write_block(&volume, 0, 3).await.unwrap();
    crash(&world, volume).await;
    assert_eq!(fill_of(&open(&world, &disk).await, 0).await.unwrap(), 3);
}

/// A journal that was given up, but nothing was written past it: it is as good as before.
#[tokio::test(start_paused = true)]
async fn a_journal_that_nobody_wrote_past_is_accepted() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    volume.write(BLOCK, blocks(2048, 2), false).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    write_block(&volume, 0, 1).await.unwrap();
    crash(&world, volume).await;
    drop(try_abandoning(&world, None).await.unwrap());
    assert_eq!(fill_of(&open(&world, &disk).await, 0).await.unwrap(), 1);
}

/// Rule 1: a restored image of a host has a copy of its journal, with the same name. Whichever goes on first, the other one
/// is refused: its records would overwrite what the first one wrote.
#[tokio::test(start_paused = true)]
async fn a_copy_of_a_journal_is_refused() {
    for original_first in [true, false] {
        let (world, disk) = (World::new().await, Disk::default());
        let volume = open(&world, &disk).await;
        write_block(&volume, 0, 1).await.unwrap();
        crash(&world, volume).await;
        let copy = disk.copy();
        let (first, second) = if original_first { (&disk, &copy) } else { (&copy, &disk) };
        let volume = open(&world, first).await;
        write_block(&volume, 0, 2).await.unwrap();
        volume.write(BLOCK, blocks(2048, 2), false).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(volume.stats().buffered_bytes, 0, "it is in the store");
        crash(&world, volume).await;
        let error = try_open(&world, second).await.unwrap_err();
        assert!(matches!(error, Error::JournalPassedOver { .. }), "{error}");
        let volume = open(&world, first).await;
        assert_eq!(fill_of(&volume, 0).await.unwrap(), 2);
    }
}

/// Winding a volume back passes its journal over, which is never silently applied to what it was not written over.
#[tokio::test(start_paused = true)]
async fn a_journal_is_not_replayed_into_a_log_that_was_wound_back() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    volume.write(0, blocks(2048, 1), false).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    write_block(&volume, 0, 2).await.unwrap();
    crash(&world, volume).await;
    let newest_object = world.store.names("log/").pop().unwrap();
    world.store.remove(&newest_object);
    let shorter = OpenOptions { accept_shorter_log: true, ..on(&world, &disk) };
    let error = Volume::open(world.bucket.clone(), shorter.clone()).await.unwrap_err();
    assert!(matches!(error, Error::JournalNeeded { .. }), "{error}");
    let options = OpenOptions { abandon_journal: true, ..shorter };
    let volume = Volume::open(world.bucket.clone(), options).await.unwrap();
    assert_eq!(fill_of(&volume, 0).await.unwrap(), 0);
}

/// An older copy of the bucket has not what the journal was written over.
#[tokio::test(start_paused = true)]
async fn a_journal_is_not_replayed_into_an_older_copy_of_the_volume() {
    let (world, disk) = (World::new().await, Disk::default());
    let image = world.store.image();
    let volume = open(&world, &disk).await;
    write_block(&volume, 0, 2).await.unwrap();
    crash(&world, volume).await;
    for name in world.store.names("") {
        world.store.remove(&name);
    }
    image.into_iter().for_each(|(name, bytes)| world.store.put(&name, bytes));
    let error = try_open(&world, &disk).await.unwrap_err();
    assert!(error.to_string().contains("older copy"), "{error}");
    assert_eq!(superblocks(&world), 1, "nobody was fenced");
    // Not even when its epochs have caught up.
    for _ in 0..3 {
        crash(&world, world.open().await).await;
    }
    let error = try_open(&world, &disk).await.unwrap_err();
    assert!(matches!(error, Error::JournalPassedOver { .. }), "{error}");
    let volume = try_abandoning(&world, Some(&disk)).await.unwrap();
    assert_eq!(fill_of(&volume, 0).await.unwrap(), 0);
}

/// A failed sync ends the volume: nobody is ever answered by a journal that failed. Opened again, it has what was synced.
#[tokio::test(start_paused = true)]
async fn a_failed_sync_ends_the_volume() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    write_block(&volume, 0, 1).await.unwrap();
    disk.state().sync_fails = true;
    let error = write_block(&volume, 1, 2).await.unwrap_err();
    assert!(matches!(error, Error::Journal { .. }), "{error}");
    disk.state().sync_fails = false;
    for _ in 0..2 {
        assert!(matches!(volume.flush().await, Err(Error::Journal { .. })));
        assert!(matches!(volume.write(0, blocks(1, 9), false).await, Err(Error::Journal { .. })));
    }
    assert!(matches!(volume.ended().await, Error::Journal { .. }));
    assert!(matches!(volume.close().await, Err(Error::Journal { .. })));
    crash(&world, volume).await;
    assert_eq!(fill_of(&open(&world, &disk).await, 0).await.unwrap(), 1);
}

/// A full journal is slow and no failure: flushes wait for the store, and are quick again when there is room. While the
/// store is away, too, they fail in time, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn a_full_journal_waits_for_the_store() {
    let (world, disk) = (World::new().await, Disk::default());
    let mut options = on(&world, &disk);
    options.batch_bytes_max = 64 << 10;
    options.journal.as_mut().unwrap().bytes_max = 256 << 10;
    let volume = Volume::open(world.bucket.clone(), options.clone()).await.unwrap();
    for round in 0..400 {
        write_block(&volume, round % 64, u8::try_from(round % 251).unwrap()).await.unwrap();
    }
    world.store.hangs();
    let mut failed = false;
    for round in 0..200 {
        match write_block(&volume, 100 + round, 5).await {
            Ok(()) => assert!(!failed, "flush {round} was answered behind one that was not"),
            Err(error) => {
                assert!(matches!(error, Error::TimedOut { .. }), "{error}");
                failed = true;
                break;
            }
        }
    }
    assert!(failed, "more was flushed than the journal takes");
    let held: usize = disk.state().files.values().map(Vec::len).sum();
    assert!(held <= (256 << 10) + 16384, "{held} bytes");
    world.store.release();
    write_block(&volume, 399, 6).await.unwrap();
    crash(&world, volume).await;
    let volume = Volume::open(world.bucket.clone(), options).await.unwrap();
    assert_eq!(fill_of(&volume, 399).await.unwrap(), 6);
    assert_eq!(fill_of(&volume, 100).await.unwrap(), 5);
}

/// One process to a journal, and the second one fences nobody.
#[tokio::test(start_paused = true)]
async fn a_journal_in_use_is_refused() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    let before = superblocks(&world);
    let error = try_open(&world, &disk).await.unwrap_err();
    let in_use = |error: &Error| matches!(error, Error::Journal { source, .. } if matches!(**source, JournalError::InUse));
    assert!(in_use(&error), "{error}");
    assert_eq!(superblocks(&world), before);
    write_block(&volume, 0, 1).await.unwrap();
}

/// Another volume's journal is refused before anybody is fenced, and left as it is.
#[tokio::test(start_paused = true)]
async fn another_volumes_journal_is_refused() {
    let (world, disk) = (World::new().await, Disk::default());
    crash(&world, open(&world, &disk).await).await;
    let (other, before) = (World::new().await, disk.state().files.clone());
    let error = try_open(&other, &disk).await.unwrap_err();
    assert!(error.to_string().contains("use another directory"), "{error}");
    assert_eq!(superblocks(&other), 1);
    assert!(disk.state().files == before);
}

/// Rule 5: a journal whose synced records were damaged is refused, whatever the log says, and only giving it up opens.
#[tokio::test(start_paused = true)]
async fn a_damaged_journal_is_refused() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    for block in 0..4 {
        write_block(&volume, block, 1).await.unwrap();
    }
    crash(&world, volume).await;
    let segment = disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    disk.state().files.get_mut(&segment).unwrap()[5000] ^= 1;
    let error = try_open(&world, &disk).await.unwrap_err();
    assert!(error.to_string().contains(&segment), "{error}");
    let volume = try_abandoning(&world, Some(&disk)).await.unwrap();
    assert_eq!(fill_of(&volume, 0).await.unwrap(), 0);
}

/// One of which nobody can say whose it is holds what nobody can use: it is refused, and giving it up opens.
#[tokio::test(start_paused = true)]
async fn a_journal_without_an_identity_can_be_given_up() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    write_block(&volume, 0, 1).await.unwrap();
    crash(&world, volume).await;
    disk.state().files.get_mut("identity").unwrap()[40] ^= 1;
    let error = try_open(&world, &disk).await.unwrap_err();
    assert!(error.to_string().contains("does not say whose journal"), "{error}");
    let volume = try_abandoning(&world, Some(&disk)).await.unwrap();
    assert_eq!(fill_of(&volume, 0).await.unwrap(), 0);
    write_block(&volume, 0, 2).await.unwrap();
    crash(&world, volume).await;
    assert_eq!(fill_of(&open(&world, &disk).await, 0).await.unwrap(), 2);
}

/// Rule 10: a replay larger than the buffer waits for uploads.
#[tokio::test(start_paused = true)]
async fn a_replay_keeps_to_the_ceiling_of_memory() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    world.store.hangs();
    for nth in 0..24 {
        volume.write(nth * MIB, blocks(256, u8::try_from(nth).unwrap() + 1), false).await.unwrap();
    }
    volume.flush().await.unwrap();
    crash(&world, volume).await;
    let mut options = on(&world, &disk);
    (options.batch_bytes_max, options.buffer_bytes_max) = (MIB, 4 * MIB);
    world.store.always(Verb::Put, "log/", Fate::Slow(Duration::from_secs(1)));
    let opening = Volume::open(world.bucket.clone(), options);
    let volume = opening.await.unwrap();
    assert!(volume.stats().buffered_bytes <= 4 * MIB, "{:?}", volume.stats());
    assert_eq!(volume.description().recovery.journal_records, 24);
    for nth in 0..24 {
        assert_eq!(fill_of(&volume, nth * 256).await.unwrap(), u8::try_from(nth).unwrap() + 1);
    }
}

/// `inspect` says which journal is in use.
#[tokio::test(start_paused = true)]
async fn a_journal_in_use_is_shown() {
    let (world, disk) = (World::new().await, Disk::default());
    assert_eq!(inspect(&world.bucket).await.unwrap().journal, None);
    let volume = open(&world, &disk).await;
    let info = inspect(&world.bucket).await.unwrap();
    assert_eq!((info.journal, info.superblock), (newest(&world).journal, SuperblockNumber(3)));
    assert!(info.journal.is_some());
    volume.close().await.unwrap();
    assert_eq!(inspect(&world.bucket).await.unwrap().journal, None);
}

/// Rule 1: who waits for a journal's directory looks at the superblock when it has it: the process before may have had the
/// journal named meanwhile, and died. (The simulator's seed 106: it was told to give the journal up.)
#[tokio::test(start_paused = true)]
async fn a_journal_that_was_named_while_one_waited_for_it_is_accepted() {
    let (world, disk) = (World::new().await, Disk::default());
    let third = names::superblock(SuperblockNumber(3));
    world.store.rule(Verb::Put, &third, Fate::Slow(Duration::from_millis(500)), 1);
    let (first, second) = tokio::join!(open(&world, &disk), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(newest(&world).journal, None);
        Some(tokio::spawn(Volume::open(world.bucket.clone(), on(&world, &disk))))
    });
    let second = second.expect("it was begun");
    write_block(&first, 0, 7).await.unwrap();
    assert!(!second.is_finished());
    crash(&world, first).await;
    let second = second.await.unwrap().expect("it opens");
    assert_eq!(fill_of(&second, 0).await.unwrap(), 7);
}

/// A clean close that was cut short before the journal was removed leaves one of which the log has everything: whoever wrote
/// since, it is no loss, and another one is begun in its place. (The simulator's seed 17154.)
#[tokio::test(start_paused = true)]
async fn a_journal_that_a_close_left_behind_is_begun_anew() {
    for more in [false, true] {
        let (world, mut disk) = (World::new().await, Disk::default());
        let volume = open(&world, &disk).await;
        write_block(&volume, 0, 1).await.unwrap();
        let left = disk.copy();
        if more {
            write_block(&volume, 0, 2).await.unwrap();
        }
        volume.close().await.unwrap();
        disk = if more { disk_with_more(&world, &left).await } else { left };
        let other = world.open().await;
        write_block(&other, 0, 3).await.unwrap();
        crash(&world, other).await;
        match try_open(&world, &disk).await {
            Ok(volume) => assert_eq!((more, fill_of(&volume, 0).await.unwrap()), (false, 3)),
            Err(error) => assert!(more && matches!(error, Error::JournalPassedOver { .. }), "{error}"),
        }
    }
}

/// Rule 1: rolling back is refused while a journal is in use; one that was closed and is still on its disk holds what belongs to
/// the moment that was left, and is not replayed, also where the log's last data were written with it.
#[tokio::test(start_paused = true)]
async fn a_journal_is_not_replayed_behind_a_rollback() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    let mut numbers = Vec::new();
    for fill in 1..=3 {
        volume.write(0, blocks(2048, fill), false).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        numbers.push(volume.stats().durable_number);
    }
    volume.flush().await.unwrap();
    let left = disk.copy();
    let to = Moment::Number(SequenceNumber(numbers[0]));
    let refused = rollback(&world.bucket, &to, world.options()).await;
    assert!(matches!(refused, Err(Error::JournalNeeded { .. })), "{refused:?}");
    write_block(&volume, 0, 3).await.expect("it is not fenced");
    volume.close().await.unwrap();
    rollback(&world.bucket, &to, world.options()).await.unwrap();
    let refused = try_open(&world, &left).await;
    assert!(matches!(refused, Err(Error::JournalPassedOver { .. })), "{refused:?}");
    let volume = open(&world, &disk).await;
    assert_eq!(fill_of(&volume, 0).await.unwrap(), 1);
    write_block(&volume, 1, 5).await.unwrap();
    crash(&world, volume).await;
    assert_eq!(fill_of(&open(&world, &disk).await, 1).await.unwrap(), 5);
}

/// What a journal has let go of is in the log that a rollback left: then it is no damaged one, and says so.
#[tokio::test(start_paused = true)]
async fn a_journal_that_a_rollback_left_is_passed_over_and_not_damaged() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    write_block(&volume, 0, 1).await.unwrap();
    volume.create_snapshot("first", false).await.unwrap();
    for fill in 1..=12 {
        volume.write(0, blocks(2048, fill), false).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    write_block(&volume, 0, 3).await.unwrap();
    volume.flush().await.unwrap();
    let left = disk.copy();
    volume.close().await.unwrap();
    let to = Moment::Snapshot("first".to_owned());
    rollback(&world.bucket, &to, world.options()).await.unwrap();
    let refused = try_open(&world, &left).await;
    assert!(matches!(refused, Err(Error::JournalPassedOver { .. })), "{refused:?}");
}

/// The journal `left`, to which its next opening added what the store never got.
async fn disk_with_more(world: &World, left: &Disk) -> Disk {
    let volume = open(world, left).await;
    world.store.hangs();
    write_block(&volume, 1, 9).await.unwrap();
    crash(world, volume).await;
    let volume = try_abandoning(world, None).await.unwrap();
    volume.close().await.unwrap();
    left.clone()
}

/// A journal's flush is not enough to cut a volume off: without the journal the volume has the new size, and what lay beyond
/// it must not be back.
#[tokio::test(start_paused = true)]
async fn what_was_cut_off_needs_no_journal_to_stay_away() {
    let (world, disk) = (World::new().await, Disk::default());
    let volume = open(&world, &disk).await;
    write_block(&volume, 5000, 1).await.unwrap();
    volume.resize(4096 * BLOCK, ShrinkPolicy::Discard).await.unwrap();
    write_block(&volume, 9, 9).await.unwrap();
    let copy = disk.copy();
    drop(volume);
    // With the journal, and without it.
    for journal in [Some(&copy), None] {
        let volume = match journal {
            Some(disk) => open(&world, disk).await,
            None => world.open_with(|options| options.abandon_journal = true).await,
        };
        assert_eq!(volume.size_bytes(), 4096 * BLOCK);
        volume.resize(64 * MIB, ShrinkPolicy::Refuse).await.unwrap();
        assert_eq!(fill_of(&volume, 5000).await.unwrap(), 0);
        assert_eq!(fill_of(&volume, 9).await.unwrap(), 9);
        write_block(&volume, 5000, 5).await.unwrap();
        volume.resize(4096 * BLOCK, ShrinkPolicy::Discard).await.unwrap();
    }
}

//! The end of a volume: it is removed while somebody still has it open, and another one is made in its place.
//!
//! Played when all else is judged. What is asked: nothing is deleted before a stored superblock version says that the volume is removed
//! (`cloud`); a removal that was cut short goes on; what is left is the marker; and whoever had the old volume, and wakes only when the new
//! one is at work, acknowledges nothing any more and does the new one no harm. Numbers are not used twice, as ever (rule 2).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lsvd_format::{BLOCK_BYTES, names};
use lsvd_volume::{Error, OpenOptions, Piece, RemoveOptions, Volume, create, remove};
use tokio::time::{sleep, timeout};

use crate::link::{Gate, Link, Rights};
use crate::oracle::Violation;
use crate::rng::Rng;
use crate::roller;
use crate::scene::{Scene, words};
use crate::stage::lock;

/// Virtual time within which anything ends in calm weather.
const PATIENCE: Duration = Duration::from_secs(600);
/// Removals that may be cut short before one must succeed.
const TRIES: u32 = 5;
/// What the blocks of the new volume hold.
const FIRST: u8 = 10;
const LAST: u8 = 20;

/// Who has the volume open while it is removed.
struct Sleeper {
    id: u32,
    link: Link,
    volume: Volume,
}

impl Sleeper {
    async fn open(scene: &Scene) -> Result<Self, Error> {
        let id = scene.next_process();
        let link = scene.link(id, Rights { write: true, abandon: true });
        let options = OpenOptions { abandon_journal: true, ..scene.open_options(id) };
        let volume = Volume::open(scene.bucket(&link, id), options).await?;
        // With snapshots a volume is not removed.
        for snapshot in volume.snapshots().await? {
            lock(&scene.world.cloud).may_forget(&snapshot.name);
            volume.remove_snapshot(&snapshot.name).await?;
        }
        // Not flushed: in its memory, or on its way.
        volume.write(0, block(1), false).await?;
        Ok(Self { id, link, volume })
    }

    fn is_stalled(&self) -> bool {
        self.link.gate() == Gate::Stalled
    }

    /// Rule 9: who had the volume acknowledges nothing any more, as the fence that it meets stays. Of several fences, as a removal that
    /// was cut short leaves them, only the last one stays.
    async fn is_ended(&self, scene: &Scene, at_once: bool) {
        if self.is_stalled() || !at_once {
            return;
        }
        if let Ok(Ok(())) = timeout(PATIENCE, self.volume.write(BLOCK_BYTES, block(2), true)).await {
            let what = format!("p{} acknowledges a write to a volume that is removed", self.id);
            scene.stage().accuse(Violation::new(9, what));
        }
    }
}

/// Opens the volume, removes it, and makes another one.
pub(crate) async fn remove_and_make_anew(scene: &Arc<Scene>, rng: &mut Rng) {
    let sleeper = match timeout(PATIENCE, Sleeper::open(scene)).await {
        Ok(Ok(sleeper)) => sleeper,
        failed => {
            scene.stage().event(format_args!("nobody is there to be removed: {:?}", failed.map(|_| ())));
            return;
        }
    };
    if rng.chance(600) {
        sleeper.link.set_gate(Gate::Stalled);
    }
    // What its rollbacks were is read from its superblock, which goes.
    scene.note_turns();
    lock(&scene.world.cloud).remove();
    let mut at_once = true;
    for nth in 1..=TRIES {
        match removed(scene, rng, nth == TRIES).await {
            Some(true) => break,
            Some(false) => at_once = false,
            None => return,
        }
    }
    let left = |folder: &str| lock(&scene.world.cloud).count(folder);
    let (log, parts, versions) =
        (left(names::LOG_FOLDER), left(names::CHECKPOINT_FOLDER), left(names::SUPERBLOCK_FOLDER));
    // What somebody sent before may still land.
    scene
        .stage()
        .event(format_args!("removed: {log} log objects, {parts} parts and {versions} versions are left"));
    lock(&scene.world.cloud).deeds().removals += 1;
    sleeper.is_ended(scene, at_once).await;
    make_anew(scene, &sleeper, at_once).await;
    sleeper.link.set_gate(Gate::Dead);
}

/// One removal: whether it was done; `None` if the run is over.
async fn removed(scene: &Arc<Scene>, rng: &mut Rng, last: bool) -> Option<bool> {
    let link = roller::link(scene, rng);
    if last {
        link.set_ambush(None);
    }
    let id = scene.next_process();
    let bucket = scene.bucket(&link, id);
    let options = RemoveOptions {
        if_free: None,
        environment: scene.create_options(id).environment,
        ..RemoveOptions::default()
    };
    let removing = remove(&bucket, &options, |_| {});
    let done = tokio::select! {
        done = timeout(PATIENCE, removing) => done,
        () = link.dead() => {
            scene.stage().event(format_args!("p{id} dies while it removes the volume"));
            return Some(false);
        }
    };
    match done {
        Ok(Ok(done)) => {
            scene.stage().event(format_args!("p{id} has removed the volume: {done:?}"));
            Some(true)
        }
        Ok(Err(error)) if last => {
            let what = format!("the volume can not be removed in calm weather: {}", words(&error));
            scene.stage().accuse(Violation::new(1, what));
            None
        }
        Ok(Err(error)) => {
            scene.stage().event(format_args!("p{id} does not remove the volume: {}", words(&error)));
            Some(false)
        }
        Err(_) if last => {
            scene.stage().accuse(Violation::new(10, format!("p{id} hangs while it removes the volume")));
            None
        }
        // It stalls, and whatever it does when it wakes is to be as if it came late.
        Err(_) => Some(false),
    }
}

async fn make_anew(scene: &Arc<Scene>, sleeper: &Sleeper, at_once: bool) {
    let id = scene.next_process();
    let link = scene.link(id, Rights { write: true, abandon: false });
    let bucket = scene.bucket(&link, id);
    let work = async {
        create(&bucket, &scene.create_options(id)).await?;
        let volume = Volume::open(bucket.clone(), scene.open_options(id)).await?;
        for at in 0..4 {
            volume.write(at * BLOCK_BYTES, block(FIRST + u8::try_from(at).unwrap_or(0)), false).await?;
            volume.flush().await?;
        }
        sleeper.link.set_gate(Gate::Open);
        sleeper.is_ended(scene, at_once).await;
        // Long enough for all that the old one does by itself.
        sleep(Duration::from_secs(20)).await;
        volume.write(3 * BLOCK_BYTES, block(LAST), true).await?;
        drop(volume);
        let volume = Volume::open(bucket.clone(), scene.open_options(id)).await?;
        let mut found = Vec::new();
        for piece in volume.read(0, 5 * BLOCK_BYTES).await? {
            match piece {
                Piece::Data(data) => found.extend(data),
                Piece::Zeroes(bytes) => found.resize(found.len() + usize::try_from(bytes).expect("small"), 0),
            }
        }
        volume.close().await?;
        Ok::<_, Error>(found)
    };
    let expected = [block(FIRST), block(FIRST + 1), block(FIRST + 2), block(LAST), block(0)].concat();
    let what = match timeout(PATIENCE * 2, work).await {
        Ok(Ok(found)) if found == expected => return,
        Ok(Ok(_)) => "it shows something else than was written".to_owned(),
        Ok(Err(error)) => words(&error),
        Err(_) => "it hangs".to_owned(),
    };
    if link.gate() != Gate::Dead {
        let what = format!("a volume in the place of one that was removed: {what}");
        scene.stage().accuse(Violation::new(9, what));
    }
}

fn block(byte: u8) -> Bytes {
    Bytes::from(vec![byte; usize::try_from(BLOCK_BYTES).expect("small")])
}

//! Whoever rolls the volume back, whoever has it open; and what a rollback is to the judge.
//!
//! One superblock version does it, so that it was made when that version landed, whatever its maker was told. The judge gets two
//! openings for it: one that ended the log and found what was left there, which has to hold all that was promised by then,
//! and one that found the moment that was gone back to, which nobody before it explains, and beyond which nobody goes back. Knows
//! no objects: `chronicle` does.

use std::sync::Arc;

use lsvd_format::SuperblockNumber;
use lsvd_format::superblock::Superblock;
use lsvd_volume::{Error, Moment, rollback};

use crate::ambush::Ambush;
use crate::history::{Generation, Tick};
use crate::link::{Gate, Link, Rights};
use crate::oracle::Violation;
use crate::rng::Rng;
use crate::scene::{Scene, words};
use crate::stage::lock;

/// A rollback that was made.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    /// Its version of the superblock.
    pub(crate) number: SuperblockNumber,
    pub(crate) version: Superblock,
    /// When it landed.
    pub(crate) at: Tick,
}

/// Rolls the volume back to a snapshot or to some number, in whatever weather there is.
pub(crate) async fn roll_back(scene: Arc<Scene>, link: Link, mut rng: Rng) {
    let moment = {
        let mut cloud = lock(&scene.world.cloud);
        let known =
            cloud.ledger().newest().map(|newest| newest.moments.snapshots.clone()).unwrap_or_default();
        let nth = usize::try_from(rng.between(0, known.len().max(1) as u64 - 1)).expect("an index fits");
        let named = known.get(nth).filter(|_| rng.chance(700));
        let mut number = || cloud.chronicle().and_then(|(chronicle, _)| chronicle.some_number(rng.bits()));
        match named {
            Some(snapshot) => Moment::Snapshot(snapshot.name.clone()),
            None => match number() {
                Some(number) => Moment::Number(number),
                None => return,
            },
        }
    };
    let id = link.process();
    scene.stage().event(format_args!("p{id} rolls back to {moment}"));
    let options = scene.open_options(id);
    let rolled = rollback(&scene.bucket(&link, id), &moment, options).await;
    if link.gate() == Gate::Dead {
        return;
    }
    match rolled {
        Ok(rolled) => {
            scene.stage().event(format_args!("p{id} has rolled back to number {}", rolled.plan.to));
            let known = lock(&scene.world.cloud).ledger().turns().iter().any(|turn| {
                turn.version.moments.rollbacks.last().is_some_and(|last| last.next == rolled.next)
            });
            if !known {
                let what = format!("p{id} was told that it rolled back, and no version says so");
                scene.stage().accuse(Violation::new(1, what));
            }
        }
        Err(error) => {
            scene.stage().event(format_args!("p{id} does not roll back: {}", words(&error)));
            if !matches!(error, Error::Invalid(_) | Error::NoMoment { .. } | Error::NotFound { .. }) {
                scene.check_error("a rollback", &error);
            }
        }
    }
}

/// A way to the store for somebody who is to roll back, and may die or stall amid it.
pub(crate) fn link(scene: &Scene, rng: &mut Rng) -> Link {
    let id = scene.next_process();
    let link = scene.link(id, Rights { write: true, abandon: false });
    if rng.chance(300) && !scene.limits.leaves_out("ambush") {
        link.set_ambush(Some(Ambush::draw(rng)));
    }
    link
}

impl Scene {
    /// Writes down the rollbacks that were made since it was last asked.
    pub(crate) fn note_turns(&self) {
        let turns = {
            let cloud = lock(&self.world.cloud);
            let noted = lock(&self.history).generations.iter().filter(|generation| generation.turned).count();
            cloud.ledger().turns().get(noted..).unwrap_or_default().to_vec()
        };
        for Turn { number, version, at } in turns {
            let moments = &version.moments;
            let (Some(undo), Some(rollback)) = (moments.snapshots.last(), moments.rollbacks.last()) else {
                continue;
            };
            let there = self.sectors_of(version.size_bytes);
            let left = self.content(undo.as_of, self.sectors());
            let (Some(left), Some(there)) = (left, self.content(rollback.to, there)) else { continue };
            let opening = |epoch, found, turned| Generation {
                epoch,
                opened: at,
                found: Some(found),
                turned,
                ..Generation::default()
            };
            let generations = &mut lock(&self.history).generations;
            generations.push(opening(version.epoch.0, left, false));
            generations.push(opening(number.0, there, true));
            lock(&self.world.cloud).deeds().rollbacks += 1;
        }
    }
}

//! Whoever resizes an open volume while clients use it: shrinks it at the border of a region of the map or anywhere, grows it
//! again, over and over.
//!
//! For the judge a shrinking is a zeroing of all beyond the new end, durable when it is answered: so what was cut off is gone
//! for good, whatever happens then. Who reads a volume that is smaller takes what lies beyond its end for zeroes; that is
//! seen to be true when it grows. Knows the volume's public face only.

use std::time::Duration;

use lsvd_format::BLOCK_BYTES;
use lsvd_format::checkpoint::REGION_BLOCKS;
use lsvd_volume::{Error, ShrinkPolicy};
use tokio::time::sleep;

use crate::client::Client;
use crate::history::{Outcome, Request};
use crate::link::Gate;
use crate::scene::words;
use crate::sector::BLOCK_SECTORS;
use crate::stage::lock;

impl Client {
    /// Resizes now and then, until it was enough or the volume is gone.
    pub(crate) async fn resize_now_and_then(mut self) {
        for _ in 0..self.rng.between(1, 5) {
            sleep(Duration::from_millis(self.rng.spread(1, 3000))).await;
            let ended = self.resize().await;
            if let Err(Error::Fenced { .. } | Error::Closed { .. } | Error::Journal { .. }) = ended {
                break;
            }
        }
    }

    async fn resize(&mut self) -> Result<(), Error> {
        let blocks = self.scene.settings.blocks;
        let shrinks = self.rng.chance(650);
        let kept = match (shrinks, self.rng.chance(300)) {
            (true, true) => blocks / 2, // where a region begins
            (true, false) => u32::try_from(self.rng.between(0, u64::from(blocks - 1))).expect("small"),
            (false, _) => blocks,
        };
        let more = if !shrinks && self.rng.chance(200) { REGION_BLOCKS } else { 0 };
        let size_bytes = (self.scene.first_block() + u64::from(kept) + more) * BLOCK_BYTES;
        let policy = if self.rng.chance(700) { ShrinkPolicy::Discard } else { ShrinkPolicy::Refuse };
        let shrinks = kept < blocks && size_bytes < self.volume.size_bytes();
        let (first, count) = (kept * BLOCK_SECTORS, (blocks - kept) * BLOCK_SECTORS);
        let zeroing = Request::Zero { first, count, inward: false, fua: true };
        let op = shrinks.then(|| self.submit(zeroing));
        self.scene
            .stage()
            .event(format_args!("{} resizes to block {kept} and {more} more, {policy:?}", self.name));
        let answer = self.volume.resize(size_bytes, policy).await;
        if self.link.gate() == Gate::Dead {
            return std::future::pending().await;
        }
        let tick = self.scene.tick();
        let told = answer.as_ref().map_err(words);
        self.scene.stage().event(format_args!("{} @{tick} resized: {told:?}", self.name));
        if let Some(op) = op {
            let mut history = lock(&self.scene.history);
            let op = &mut history.generations[self.generation].ops[op];
            op.outcome = if answer.is_ok() { Outcome::Done(tick) } else { Outcome::Failed(tick) };
            // Refused for what it would discard: then nothing is. After other errors something may be.
            if let (Err(Error::HoldsData { .. }), Request::Zero { fua, .. }) = (&answer, &mut op.request) {
                *fua = false;
            }
        }
        match &answer {
            Ok(_) => {
                let mut cloud = lock(&self.scene.world.cloud);
                cloud.deeds().shrunk += u64::from(shrinks);
                cloud.deeds().grown += u64::from(!shrinks);
            }
            Err(Error::HoldsData { .. }) => {}
            Err(error) => self.scene.check_error(&self.name, error),
        }
        answer.map(|_| ())
    }
}

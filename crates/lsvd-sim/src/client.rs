//! A client of an open volume: asks at random, one request after another, and writes down every answer.
//!
//! Several run at once on one volume and nothing puts them in order. Knows the volume's public face only.

use std::sync::Arc;

use bytes::Bytes;
use lsvd_volume::{Error, Piece, Volume};
use tokio::time::{Duration, sleep, timeout};

use crate::history::{Op, Outcome, Request};
use crate::link::{Gate, Link};
use crate::oracle::Violation;
use crate::rng::Rng;
use crate::scene::{Scene, words};
use crate::sector::{self, BLOCK_SECTORS, SECTOR_BYTES, Value};
use crate::stage::lock;

/// A client.
pub(crate) struct Client {
    pub(crate) scene: Arc<Scene>,
    pub(crate) volume: Volume,
    /// Its process's connection: what a dead process answers, nobody hears.
    pub(crate) link: Link,
    pub(crate) name: String,
    /// Index of the generation that the volume is.
    pub(crate) generation: usize,
    pub(crate) rng: Rng,
}

/// Bytes of a number of sectors.
fn bytes(sectors: u32) -> u64 {
    u64::from(sectors) * SECTOR_BYTES as u64
}

impl Client {
    /// Makes requests until there were enough or the volume is gone.
    pub(crate) async fn run(mut self) {
        let requests = self.rng.between(1, self.scene.settings.requests_max);
        for _ in 0..requests {
            let pause = self.rng.between(0, self.scene.settings.pause_ms_max);
            if pause > 0 {
                sleep(Duration::from_millis(pause)).await;
            }
            if let Err(Error::Fenced { .. } | Error::Closed { .. } | Error::Journal { .. }) =
                self.request().await
            {
                break;
            }
        }
    }

    /// Makes one request that is due to its kind's rate.
    async fn request(&mut self) -> Result<(), Error> {
        let flush_rate = self.scene.settings.flush_rate;
        let fua = self.rng.chance(80);
        if self.rng.chance(flush_rate) {
            return self.flush().await;
        }
        match self.rng.between(0, 99) {
            0..=24 => {
                let (first, count) = self.place(64);
                self.read(first, count).await
            }
            25..=30 => {
                let (first, count) = self.place(64);
                self.zero(first, count, true, fua).await
            }
            31..=35 => {
                let (first, count) = self.place(32);
                self.zero(first, count, false, fua).await
            }
            36..=37 => {
                self.status().await;
                Ok(())
            }
            38..=40 => {
                self.look_for_lag();
                Ok(())
            }
            _ => {
                let (first, count) = self.place(self.scene.settings.write_sectors_max);
                self.write(first, count, fua).await
            }
        }
    }

    /// A run of sectors: often the same few, so that requests meet; sometimes whole blocks.
    fn place(&mut self, most: u64) -> (u32, u32) {
        let all = u64::from(self.scene.sectors());
        let count = self.rng.spread(1, most.min(all));
        let hot = self.rng.chance(600);
        let last = if hot { (all - count).min(40) } else { all - count };
        let first = self.rng.between(0, last);
        let narrow = |sectors: u64| u32::try_from(sectors).expect("the volume is small");
        let (first, count) = (narrow(first), narrow(count));
        if self.rng.chance(400) {
            let start = first / BLOCK_SECTORS * BLOCK_SECTORS;
            return (start, count.next_multiple_of(BLOCK_SECTORS).min(self.scene.sectors() - start));
        }
        (first, count)
    }

    /// Writes a request down before it is asked; the index is for the answer.
    pub(crate) fn submit(&self, request: Request) -> usize {
        let submit = self.scene.tick();
        self.scene.stage().event(format_args!("{} @{submit} {request:?}", self.name));
        let mut history = lock(&self.scene.history);
        let ops = &mut history.generations[self.generation].ops;
        ops.push(Op { request, submit, outcome: Outcome::Pending });
        ops.len() - 1
    }

    /// Waits for an answer, but not for ever (rule 10), and writes it down.
    async fn answer<T>(&self, op: usize, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let Ok(answer) = timeout(self.scene.patience(), asked).await else {
            let what = format!("a request of {} hung for {} s", self.name, self.scene.patience().as_secs());
            self.scene.stage().accuse(Violation::new(10, what));
            return std::future::pending().await;
        };
        if self.link.gate() == Gate::Dead {
            return std::future::pending().await;
        }
        let tick = self.scene.tick();
        let mut history = lock(&self.scene.history);
        let op = &mut history.generations[self.generation].ops[op];
        op.outcome = if answer.is_ok() { Outcome::Done(tick) } else { Outcome::Failed(tick) };
        let submit = op.submit;
        drop(history);
        match &answer {
            Ok(_) => self.scene.stage().event(format_args!("{} @{tick} done with @{submit}", self.name)),
            Err(error) => {
                self.scene.stage().event(format_args!(
                    "{} @{tick} failed with @{submit}: {}",
                    self.name,
                    words(error)
                ));
                self.scene.check_error(&self.name, error);
            }
        }
        answer
    }

    async fn write(&mut self, first: u32, count: u32, fua: bool) -> Result<(), Error> {
        let id = self.scene.next_write();
        let op = self.submit(Request::Write { first, count, id, fua });
        let data = Bytes::from(sector::fill(first, count, id));
        let answer = self.answer(op, self.volume.write(self.scene.offset_bytes(first), data, fua)).await;
        self.check_bounds();
        answer
    }

    async fn zero(&mut self, first: u32, count: u32, inward: bool, fua: bool) -> Result<(), Error> {
        let keep_allocated = self.rng.chance(500);
        let op = self.submit(Request::Zero { first, count, inward, fua });
        let (at, length) = (self.scene.offset_bytes(first), bytes(count));
        if inward {
            self.answer(op, self.volume.trim(at, length, fua)).await
        } else {
            self.answer(op, self.volume.write_zeroes(at, length, keep_allocated, fua)).await
        }
    }

    async fn flush(&self) -> Result<(), Error> {
        let op = self.submit(Request::Flush);
        self.answer(op, self.volume.flush()).await
    }

    /// A lag of nothing is a promise: the loss of the journal's disk would take nothing.
    fn look_for_lag(&self) {
        if self.volume.stats().buffered_bytes == 0 {
            let op = self.submit(Request::Stored);
            let tick = self.scene.tick();
            lock(&self.scene.history).generations[self.generation].ops[op].outcome = Outcome::Done(tick);
        }
    }

    async fn read(&self, first: u32, count: u32) -> Result<(), Error> {
        let op = self.submit(Request::Read { first, values: Vec::new() });
        let pieces = self.answer(op, self.volume.read(self.scene.offset_bytes(first), bytes(count))).await?;
        match values(first, count, &pieces) {
            Ok(seen) => {
                let mut history = lock(&self.scene.history);
                if let Request::Read { values, .. } =
                    &mut history.generations[self.generation].ops[op].request
                {
                    *values = seen;
                }
            }
            Err(violation) => self.scene.stage().accuse(violation),
        }
        Ok(())
    }

    /// BLOCK_STATUS tells of some of what was asked, from its beginning.
    async fn status(&mut self) {
        let (first, count) = self.place(64);
        if let Ok(extents) = self.volume.block_status(self.scene.offset_bytes(first), bytes(count)).await {
            let told: u64 = extents.iter().map(|extent| extent.length_bytes).sum();
            if told == 0 || told > bytes(count) || extents.iter().any(|extent| extent.hole && !extent.zero) {
                let what = format!("{} was told a status that can not be: {extents:?}", self.name);
                self.scene.stage().accuse(Violation::new(1, what));
            }
        }
    }

    /// Rule 10: what is buffered stays under its ceiling, but for the requests that are being taken in.
    fn check_bounds(&self) {
        let settings = &self.scene.settings;
        let allowed = settings.buffer_bytes_max + settings.clients_max * 128 * SECTOR_BYTES as u64;
        let buffered = self.volume.stats().buffered_bytes;
        if buffered > allowed {
            let what = format!("{buffered} bytes are buffered where {} may be", settings.buffer_bytes_max);
            self.scene.stage().accuse(Violation::new(10, what));
        }
    }
}

/// What the sectors hold that were read as `pieces`.
///
/// # Errors
/// Rule 5: what was read is nobody's, or is not as long as what was asked.
pub(crate) fn values(first: u32, count: u32, pieces: &[Piece]) -> Result<Vec<Value>, Violation> {
    let mut read = Vec::with_capacity(count as usize * SECTOR_BYTES);
    for piece in pieces {
        match piece {
            Piece::Data(data) => read.extend_from_slice(data),
            Piece::Zeroes(length) => {
                let length = usize::try_from(*length).unwrap_or(usize::MAX);
                read.resize(read.len().saturating_add(length), 0);
            }
        }
    }
    if read.len() != count as usize * SECTOR_BYTES {
        let what = format!("{} bytes were read where {count} sectors were asked", read.len());
        return Err(Violation::new(5, what));
    }
    let garbage = |sector: u32| Violation::new(5, format!("sector {sector} was read as nobody's bytes"));
    (first..)
        .zip(read.chunks_exact(SECTOR_BYTES))
        .map(|(s, b)| sector::parse(s, b).ok_or_else(|| garbage(s)))
        .collect()
}

/// Reads the whole volume, with patience; `None` if it can not be read.
pub(crate) async fn read_whole(scene: &Scene, volume: &Volume, rng: &mut Rng) -> Option<Vec<Value>> {
    read_whole_unless(scene, volume, rng, |_| false).await
}

/// The same, where some errors have a reason that the scene does not know.
pub(crate) async fn read_whole_unless(
    scene: &Scene,
    volume: &Volume,
    rng: &mut Rng,
    has_reason: impl Fn(&Error) -> bool,
) -> Option<Vec<Value>> {
    let mut seen = Vec::with_capacity(scene.sectors() as usize);
    let mut tries_left = 60;
    while seen.len() < scene.sectors() as usize {
        let first = u32::try_from(seen.len()).expect("the volume is small");
        let most = u64::from(scene.sectors() - first);
        let count = u32::try_from(rng.between(1, most).max(most.min(64))).expect("the volume is small");
        // What a smaller volume shows if it grows is asked then.
        let there = scene.sectors_of(volume.size_bytes()).saturating_sub(first);
        if there == 0 {
            seen.resize(scene.sectors() as usize, Value::Zero);
            break;
        }
        let count = count.min(there);
        match volume.read(scene.offset_bytes(first), bytes(count)).await {
            Ok(pieces) => match values(first, count, &pieces) {
                Ok(values) => seen.extend(values),
                Err(violation) => {
                    scene.stage().accuse(violation);
                    return None;
                }
            },
            Err(error) => {
                scene.stage().event(format_args!("reading the whole volume: {}", words(&error)));
                if has_reason(&error) {
                    return None;
                }
                scene.check_error("a reader of the whole volume", &error);
                tries_left -= 1;
                let over =
                    matches!(error, Error::Fenced { .. } | Error::Closed { .. } | Error::Journal { .. });
                if tries_left == 0 || over {
                    return None;
                }
                sleep(Duration::from_millis(500)).await;
            }
        }
    }
    Some(seen)
}

//! The engine against a plain array: overlapping, unaligned, zeroing and trimming mutations with uploads that end in any
//! order, blocks that can not be read, cancellations, and a crash at the end (rule 1 for one writer, rule 6).
//!
//! The rim here is a store in memory: what was uploaded is kept as header and payload, and nothing else survives.

#![allow(clippy::cast_possible_truncation)] // blocks and bytes of a small volume

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lsvd_engine::{
    Action, Config, Engine, Event, Now, Outcome, PlanPiece, Prefix, Replay, Request, RequestId, SealedBatch,
};
use lsvd_format::{BLOCK_LEN, BlockIndex, Epoch, Extent, SequenceNumber, VolumeId, WriterId};
use proptest::prelude::*;

const BLOCKS: usize = 24;
const BYTES: usize = BLOCKS * BLOCK_LEN;
const VOLUME: VolumeId = VolumeId([7; 16]);

#[derive(Clone, Debug)]
enum Step {
    Write { offset: usize, length: usize, fua: bool },
    Trim { offset: usize, length: usize },
    Zero { offset: usize, length: usize, keep: bool },
    Flush,
    Upload(usize),
    Base { nth: usize, fails: bool },
    Cancel(usize),
    Age,
    Read { offset: usize, length: usize },
}

fn range() -> impl Strategy<Value = (usize, usize)> {
    // Mostly short and near each other, at sectors, so that they meet in parts of blocks.
    (0..BYTES / 512, 1usize..40).prop_map(|(at, sectors)| (at * 512, (sectors * 512).min(BYTES - at * 512)))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (range(), prop::bool::weighted(0.2)).prop_map(|((offset, length), fua)| Step::Write { offset, length, fua }),
        2 => range().prop_map(|(offset, length)| Step::Trim { offset, length }),
        2 => (range(), any::<bool>()).prop_map(|((offset, length), keep)| Step::Zero { offset, length, keep }),
        2 => Just(Step::Flush),
        5 => (0usize..8).prop_map(Step::Upload),
        5 => (0usize..8, prop::bool::weighted(0.1)).prop_map(|(nth, fails)| Step::Base { nth, fails }),
        1 => (0usize..40).prop_map(Step::Cancel),
        1 => Just(Step::Age),
        4 => range().prop_map(|(offset, length)| Step::Read { offset, length }),
    ]
}

/// A mutation as the model sees it.
#[derive(Clone, Debug)]
struct Change {
    offset: usize,
    content: Vec<u8>,
}

struct World {
    engine: Engine,
    clock: Duration,
    next_id: u64,
    changes: BTreeMap<u64, Change>,
    flushes: BTreeMap<u64, BTreeSet<u64>>,
    fua: BTreeSet<u64>,
    /// Applied changes, in the order of their completion or of their batch.
    completed: BTreeSet<u64>,
    never: BTreeSet<u64>,
    must_survive: BTreeSet<u64>,
    bases: Vec<(RequestId, BlockIndex, lsvd_engine::Location)>,
    uploads: Vec<Arc<SealedBatch>>,
    stored: BTreeMap<u64, Arc<SealedBatch>>,
    window: u64,
    order: Vec<u64>,
}

impl World {
    fn new(window: u64, batch_blocks: u64, buffer_blocks: u64, uploads_max: usize) -> Self {
        let config = Config {
            volume: VOLUME,
            epoch: Epoch(2),
            writer: WriterId([3; 16]),
            window,
            batch_bytes_max: batch_blocks * BLOCK_LEN as u64,
            batch_age_max: Duration::from_secs(1),
            buffer_bytes_max: buffer_blocks * BLOCK_LEN as u64,
            map_bytes_max: u64::MAX,
            uploads_max,
            flush_uploads_max: 2,
            journal: None,
        };
        Self {
            engine: Engine::new(config, Prefix::new(SequenceNumber(1))),
            clock: Duration::ZERO,
            next_id: 0,
            changes: BTreeMap::new(),
            flushes: BTreeMap::new(),
            fua: BTreeSet::new(),
            completed: BTreeSet::new(),
            never: BTreeSet::new(),
            must_survive: BTreeSet::new(),
            bases: Vec::new(),
            uploads: Vec::new(),
            stored: BTreeMap::new(),
            window,
            order: Vec::new(),
        }
    }

    fn submit(&mut self, request: Request, change: Option<Change>, fua: bool) {
        self.next_id += 1;
        let id = self.next_id;
        match change {
            Some(change) => {
                self.changes.insert(id, change);
                if fua {
                    self.fua.insert(id);
                }
            }
            None => {
                self.flushes.insert(id, self.completed.clone());
            }
        }
        self.event(Event::Submit { id: RequestId(id), request });
    }

    fn event(&mut self, event: Event) {
        self.engine.handle(Now { monotonic: self.clock, unix_ms: 0 }, event);
        while let Some(action) = self.engine.next_action() {
            match action {
                Action::Complete { id, outcome } => self.completion(id.0, outcome),
                Action::ReadBase { id, block, location } => self.bases.push((id, block, location)),
                Action::LoadRegion { .. } => panic!("all of the map is in memory"),
                Action::Journal { .. } | Action::SyncJournal { .. } | Action::ReleaseJournal { .. } => {
                    panic!("there is no journal")
                }
                Action::Upload(batch) => {
                    let number = batch.header.identity.number;
                    assert!(
                        number.0 < self.engine.first_incomplete().0 + self.window,
                        "number {number} is beyond the window"
                    );
                    assert!(!self.stored.contains_key(&number.0), "number {number} was used before (rule 2)");
                    self.uploads.push(batch);
                }
            }
        }
    }

    fn completion(&mut self, id: u64, outcome: Outcome) {
        match outcome {
            Outcome::Done => {
                if let Some(before) = self.flushes.remove(&id) {
                    self.must_survive.extend(before);
                } else {
                    assert!(!self.never.contains(&id), "{id} completed after it failed");
                    self.completed.insert(id);
                    if self.fua.contains(&id) {
                        self.must_survive.insert(id);
                    } else {
                        self.order.push(id);
                    }
                }
            }
            Outcome::Cancelled { applied: true } => {
                if self.flushes.remove(&id).is_none() {
                    self.completed.insert(id);
                }
            }
            Outcome::BaseUnreadable | Outcome::BaseLost(_) | Outcome::Cancelled { applied: false } => {
                self.flushes.remove(&id);
                self.never.insert(id);
            }
            Outcome::Fenced => panic!("nobody fenced it"),
        }
    }

    fn block_at(&self, location: lsvd_engine::Location) -> Bytes {
        let number = self.engine.object(location.object).identity.number;
        let batch = &self.stored[&number.0];
        let all = batch.payload.concat();
        let at = location.ordinal.0 as usize * BLOCK_LEN;
        Bytes::copy_from_slice(&all[at..at + BLOCK_LEN])
    }

    fn read(&self, engine: &Engine, offset: usize, length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in engine.plan_read(offset as u64, length as u64).expect("all of the map is in memory") {
            match piece {
                PlanPiece::Buffered(bytes) => out.extend_from_slice(&bytes),
                PlanPiece::Zeroes(bytes) => out.extend(std::iter::repeat_n(0, bytes as usize)),
                PlanPiece::Lost { .. } => panic!("nothing is lost"),
                PlanPiece::Stored { object, ordinal, blocks, skip_bytes, length_bytes } => {
                    let number = engine.object(object).identity.number;
                    let all = self.stored[&number.0].payload.concat();
                    let at = ordinal.0 as usize * BLOCK_LEN;
                    let run = &all[at..at + blocks as usize * BLOCK_LEN];
                    out.extend_from_slice(
                        &run[skip_bytes as usize..skip_bytes as usize + length_bytes as usize],
                    );
                }
            }
        }
        assert_eq!(out.len(), length);
        out
    }
}

/// A mutation's bytes all differ from every other's, so that each sector tells who wrote it.
fn pattern(id: u64, length: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(length);
    while content.len() < length {
        content.extend_from_slice(&id.to_le_bytes());
    }
    content.truncate(length);
    content
}

fn run(window: u64, batch_blocks: u64, buffer_blocks: u64, uploads_max: usize, steps: Vec<Step>) {
    let mut world = World::new(window, batch_blocks, buffer_blocks, uploads_max);
    for step in steps {
        world.clock += Duration::from_millis(20);
        match step {
            Step::Write { offset, length, fua } => {
                let content = pattern(world.next_id + 1, length);
                let data = Bytes::from(content.clone());
                let request = Request::Write { offset_bytes: offset as u64, data, fua };
                world.submit(request, Some(Change { offset, content }), fua);
            }
            Step::Trim { offset, length } => {
                let start = offset.next_multiple_of(BLOCK_LEN);
                let end = (offset + length) / BLOCK_LEN * BLOCK_LEN;
                let content = vec![0; end.saturating_sub(start)];
                let (offset_bytes, length_bytes) = (offset as u64, length as u64);
                let request = Request::Trim { offset_bytes, length_bytes, fua: false };
                world.submit(request, Some(Change { offset: start, content }), false);
            }
            Step::Zero { offset, length, keep } => {
                let (offset_bytes, length_bytes) = (offset as u64, length as u64);
                let request =
                    Request::WriteZeroes { offset_bytes, length_bytes, keep_allocated: keep, fua: false };
                world.submit(request, Some(Change { offset, content: vec![0; length] }), false);
            }
            Step::Flush => world.submit(Request::Flush, None, false),
            Step::Upload(nth) if !world.uploads.is_empty() => {
                let at = nth % world.uploads.len();
                let batch = world.uploads.remove(at);
                let number = batch.header.identity.number;
                world.stored.insert(number.0, batch);
                world.event(Event::Uploaded { number });
            }
            Step::Base { nth, fails } if !world.bases.is_empty() => {
                let at = nth % world.bases.len();
                let (id, block, location) = world.bases.remove(at);
                let base = (!fails).then(|| world.block_at(location));
                world.event(Event::BaseRead { id, block, base });
            }
            Step::Cancel(back) => {
                let id = world.next_id.saturating_sub(back as u64);
                world.event(Event::Cancel { id: RequestId(id) });
            }
            Step::Age => {
                world.clock += Duration::from_secs(2);
                world.event(Event::Tick);
            }
            Step::Read { offset, length } => {
                let got = world.read(&world.engine, offset, length);
                check_allowed(&world, offset, &got, &world.completed.clone());
                check_live(&world, false);
            }
            Step::Upload(_) | Step::Base { .. } => {}
        }
    }
    crash_and_check(&world);
    finish_and_check(world);
}

/// What a volume that shrinks asks: blocks that read as something hold data. With nothing on its way they alone do.
fn check_live(world: &World, exactly: bool) {
    let all = world.read(&world.engine, 0, BYTES);
    let holds = |block: usize| all[block * BLOCK_LEN..][..BLOCK_LEN].iter().any(|byte| *byte != 0);
    for from in [0, 1, BLOCKS / 2, BLOCKS - 1] {
        let beyond = Extent::new(from as u64, (BLOCKS - from) as u64);
        let live = world.engine.live(beyond).expect("all of the map is in memory");
        let holding: Vec<u64> = (from..BLOCKS).filter(|at| holds(*at)).map(|at| at as u64).collect();
        assert!(live.blocks >= holding.len() as u64, "{live:?} are fewer than {holding:?}");
        assert!(
            live.first.is_some() == (live.blocks > 0)
                && live.first.map(|first| first.0) <= holding.first().copied().or(Some(u64::MAX))
        );
        if exactly {
            assert_eq!(
                (live.blocks, live.first.map(|first| first.0)),
                (holding.len() as u64, holding.first().copied())
            );
        }
        assert_eq!(world.engine.live_ahead(beyond), Ok((live, beyond.end())));
    }
}

/// Every byte of `got` is of a mutation that may be seen: one that is not known to be overwritten by one that was
/// submitted after it completed and that must be seen.
fn check_allowed(world: &World, offset: usize, got: &[u8], included: &BTreeSet<u64>) {
    for (at, byte) in got
        .chunks(512)
        .enumerate()
        .map(|(nth, chunk)| (offset + nth * 512, chunk[0..8.min(chunk.len())].to_vec()))
    {
        let touching = |id: &u64| {
            let change = &world.changes[id];
            change.offset <= at && at < change.offset + change.content.len()
        };
        let matches = world.changes.iter().filter(|(id, _)| touching(id) && !world.never.contains(id)).any(
            |(_, change)| {
                change.content[at - change.offset..].starts_with(&byte) || {
                    let rest = &change.content[at - change.offset..];
                    rest.len() < byte.len() && byte.starts_with(rest)
                }
            },
        );
        let nothing_included = !included.iter().any(touching);
        assert!(matches || (nothing_included && byte.iter().all(|byte| *byte == 0)), "byte {at}: {byte:?}");
    }
}

fn replay(world: &World) -> (Replay, BTreeMap<u64, Arc<SealedBatch>>) {
    let mut replay = Replay::new(VOLUME, BYTES as u64, world.window, SequenceNumber(1));
    while let Some(batch) = world.stored.get(&replay.next_number().0) {
        replay.accept(&batch.header).expect("the engine writes what replay accepts");
    }
    (replay, world.stored.clone())
}

/// After a crash now, what a flush or FUA promised is in the gapless log.
fn crash_and_check(world: &World) {
    let (replay, _) = replay(world);
    assert_eq!(replay.next_number(), world.engine.first_incomplete(), "the map is the durable prefix");
    let prefix = replay.finish();
    let config = Config {
        volume: VOLUME,
        epoch: Epoch(3),
        writer: WriterId([4; 16]),
        window: world.window,
        batch_bytes_max: 1 << 20,
        batch_age_max: Duration::from_secs(1),
        buffer_bytes_max: 1 << 30,
        map_bytes_max: u64::MAX,
        uploads_max: 1,
        flush_uploads_max: 1,
        journal: None,
    };
    let recovered = Engine::new(config, prefix);
    let got = world.read(&recovered, 0, BYTES);
    check_allowed(world, 0, &got, &world.must_survive);
    // A surviving mutation may be hidden only by one that was submitted later or at the same time.
    for id in &world.must_survive {
        let change = &world.changes[id];
        for at in (change.offset..change.offset + change.content.len()).step_by(512) {
            let seen = &got[at..at + 8];
            let own = &change.content[at - change.offset..at - change.offset + 8];
            let newer = world.changes.iter().any(|(other, newer)| {
                !world.never.contains(other)
                    && other != id
                    && (other > id || !world.completed_before(*other, *id))
                    && newer.offset <= at
                    && at < newer.offset + newer.content.len()
                    && &newer.content[at - newer.offset..at - newer.offset + 8] == seen
            });
            assert!(seen == own || newer, "flushed mutation {id} is lost at byte {at}");
        }
    }
}

impl World {
    /// Whether `a` is known to be ordered before `b`: lower ids were submitted before; completion orders them.
    fn completed_before(&self, a: u64, b: u64) -> bool {
        a < b && self.order.iter().position(|id| *id == a) < self.order.iter().position(|id| *id == b)
    }
}

/// With everything answered, nothing waits any more, memory is free, and one last flush makes all durable.
fn finish_and_check(mut world: World) {
    world.submit(Request::Flush, None, false);
    for _ in 0..10_000 {
        if let Some((id, block, location)) = world.bases.pop() {
            let base = Some(world.block_at(location));
            world.event(Event::BaseRead { id, block, base });
        } else if let Some(batch) = world.uploads.pop() {
            let number = batch.header.identity.number;
            world.stored.insert(number.0, batch);
            world.event(Event::Uploaded { number });
        } else if world.engine.buffered_bytes() > 0 {
            world.submit(Request::Flush, None, false);
            assert!(!world.uploads.is_empty(), "a flush of a buffered write uploads");
        } else {
            break;
        }
    }
    assert_eq!(world.engine.buffered_bytes(), 0, "memory is given back");
    assert!(world.flushes.is_empty(), "every flush ends: {:?}", world.flushes);
    let ended = |id: &u64| world.completed.contains(id) || world.never.contains(id);
    assert!(world.changes.keys().all(ended), "every request ends");
    let (replay, _) = replay(&world);
    let prefix = replay.finish();
    assert_eq!(prefix.map().extents(), world.engine.map_extents());
    let live = world.read(&world.engine, 0, BYTES);
    let config = Config {
        volume: VOLUME,
        epoch: Epoch(3),
        writer: WriterId([4; 16]),
        window: 8,
        batch_bytes_max: 1 << 20,
        batch_age_max: Duration::from_secs(1),
        buffer_bytes_max: 1 << 30,
        map_bytes_max: u64::MAX,
        uploads_max: 1,
        flush_uploads_max: 1,
        journal: None,
    };
    let recovered = Engine::new(config, prefix);
    assert!(live == world.read(&recovered, 0, BYTES), "replay gives what life had (rule 6)");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn equals_an_array_through_crashes(
        window in 2u64..6,
        batch_blocks in 1u64..12,
        buffer_blocks in 4u64..64,
        uploads_max in 1usize..5,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        run(window, batch_blocks, buffer_blocks, uploads_max, steps);
    }

    /// One client that waits for every answer: then the volume equals the array exactly.
    #[test]
    fn one_patient_client_reads_what_it_wrote(
        batch_blocks in 1u64..12,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(4, batch_blocks, 64, 4);
        let mut model = vec![0u8; BYTES];
        for step in steps {
            world.clock += Duration::from_millis(100);
            let (request, change) = match step {
                Step::Write { offset, length, fua } => {
                    let content = pattern(world.next_id + 1, length);
                    let data = Bytes::from(content.clone());
                    (Request::Write { offset_bytes: offset as u64, data, fua }, Change { offset, content })
                }
                Step::Trim { offset, length } => {
                    let start = offset.next_multiple_of(BLOCK_LEN);
                    let content = vec![0; ((offset + length) / BLOCK_LEN * BLOCK_LEN).saturating_sub(start)];
                    let (offset_bytes, length_bytes) = (offset as u64, length as u64);
                    (Request::Trim { offset_bytes, length_bytes, fua: false }, Change { offset: start, content })
                }
                Step::Zero { offset, length, keep } => {
                    let (offset_bytes, length_bytes) = (offset as u64, length as u64);
                    let request = Request::WriteZeroes { offset_bytes, length_bytes, keep_allocated: keep, fua: false };
                    (request, Change { offset, content: vec![0; length] })
                }
                Step::Read { offset, length } => {
                    let got = world.read(&world.engine, offset, length);
                    prop_assert!(got == model[offset..offset + length]);
                    continue;
                }
                _ => continue,
            };
            model[change.offset..change.offset + change.content.len()].copy_from_slice(&change.content);
            world.submit(request, Some(change), false);
            let id = world.next_id;
            for _ in 0..100 {
                if world.completed.contains(&id) {
                    break;
                }
                if let Some((id, block, location)) = world.bases.pop() {
                    let base = Some(world.block_at(location));
                    world.event(Event::BaseRead { id, block, base });
                } else if let Some(batch) = world.uploads.pop() {
                    let number = batch.header.identity.number;
                    world.stored.insert(number.0, batch);
                    world.event(Event::Uploaded { number });
                }
            }
            prop_assert!(world.completed.contains(&id), "it completes");
            let status: u64 = world.engine.status(0, BYTES as u64).unwrap().iter().map(|status| status.length_bytes).sum();
            prop_assert_eq!(status, BYTES as u64);
            check_live(&world, true);
        }
        prop_assert!(world.read(&world.engine, 0, BYTES) == model);
    }
}

//! What the map's budget of memory means for regions that were fetched.

use lsvd_engine::{
    Action, Config, Engine, Event, Location, Mapping, Now, ObjectIndex, ObjectRecord, ObjectState, Place,
    Prefix, Request, RequestId,
};
use lsvd_format::checkpoint::{PartId, RegionIndex};
use lsvd_format::{
    BLOCK_BYTES, BlockIndex, BlockOrdinal, Extent, ObjectFormat, ObjectIdentity, SequenceNumber,
};

use crate::rig::config;

/// One region of each group of them, as a large volume with little in it has: their index is above the budget.
const REGIONS: u32 = 300;
const BUDGET: u64 = 64 << 10;

fn region(nth: u32) -> RegionIndex {
    RegionIndex(nth * 64)
}

fn place(nth: u32) -> Place {
    let part = PartId { as_of: SequenceNumber(9), epoch: lsvd_format::Epoch(3), serial: 1 };
    Place { part, offset_bytes: u64::from(nth) * 100, length_bytes: 100 }
}

fn engine() -> Engine {
    let config = Config { map_bytes_max: BUDGET, ..config() };
    let empty = Prefix::new(SequenceNumber(10));
    let places = (0..REGIONS).map(|nth| (region(nth), place(nth)));
    let prefix = Prefix::from_checkpoint(empty.log().clone(), [], places, Vec::new());
    let engine = Engine::new(config, prefix);
    assert!(engine.map_index_bytes() > 4 * BUDGET, "{}", engine.map_index_bytes());
    engine
}

/// Asks for a region and brings it, with so many runs. Whether the engine wanted it fetched.
fn fetch(engine: &mut Engine, nth: u32, runs: u64) -> bool {
    let region = region(nth);
    handle(engine, Event::RegionWanted { region });
    let Some(Action::LoadRegion { region: wanted, place }) = engine.next_action() else { return false };
    assert_eq!((wanted, engine.next_action().is_none()), (region, true));
    let first = region.extent().start.0;
    let content = (0..runs).map(|run| (Extent::new(first + 2 * run, 1), Mapping::Zero)).collect();
    handle(engine, Event::RegionLoaded { region, place, content });
    true
}

fn handle(engine: &mut Engine, event: Event) {
    engine.handle(Now { monotonic: std::time::Duration::ZERO, unix_ms: 77 }, event);
}

#[test]
fn regions_stay_though_their_index_is_above_the_budget() {
    let mut engine = engine();
    for nth in 0..40 {
        assert!(fetch(&mut engine, nth, 1), "region {nth} was never there");
    }
    for nth in 0..40 {
        assert!(!fetch(&mut engine, nth, 1), "region {nth} is fetched again");
    }
    // And not without a bound.
    for nth in 40..REGIONS {
        fetch(&mut engine, nth, 100);
        let bytes = engine.map_bytes() - engine.map_index_bytes();
        assert!(bytes <= BUDGET / 4, "{bytes} bytes of regions");
    }
    assert!(fetch(&mut engine, 0, 1), "the one that was used longest ago is still there");
    assert!(!fetch(&mut engine, REGIONS - 1, 100), "the one that was used last is gone");
}

#[test]
fn regions_stay_though_what_no_checkpoint_holds_is_above_the_budget() {
    let mut engine = engine();
    // Blocks apart, so that each is a run, in regions of their own.
    let mut writes = 0;
    while engine.map_bytes() - engine.map_index_bytes() < BUDGET {
        let (block, id) = (region(REGIONS).extent().start.0 + 2 * writes, RequestId(writes));
        let request = Request::WriteZeroes {
            offset_bytes: BlockIndex(block).0 * BLOCK_BYTES,
            length_bytes: BLOCK_BYTES,
            fua: false,
            keep_allocated: true,
        };
        handle(&mut engine, Event::Submit { id, request });
        handle(&mut engine, Event::Submit { id: RequestId(1 << 40 | writes), request: Request::Flush });
        while let Some(action) = engine.next_action() {
            if let Action::Upload(batch) = action {
                handle(&mut engine, Event::Uploaded { number: batch.header.identity.number });
            }
        }
        writes += 1;
    }
    fetch(&mut engine, 0, 1);
    for nth in 1..20 {
        assert!(fetch(&mut engine, nth, 1), "region {nth} was never there");
        assert!(!fetch(&mut engine, nth - 1, 1), "region {} is fetched again", nth - 1);
    }
}

/// A region that is discarded whole needs not be in memory: nothing waits for it but the next checkpoint, as what it held
/// counts as live until it has come. It died at the latest with the last object that is applied then.
#[test]
fn a_region_that_is_discarded_unread_is_counted_when_it_comes() {
    let index = ObjectIndex(0);
    let identity = ObjectIdentity { number: SequenceNumber(5), ..identity() };
    let record = ObjectRecord { identity, format: ObjectFormat::V2, header_bytes: 96, payload_blocks: 9 };
    let state = ObjectState { record, live_blocks: 9, died_at: None };
    let places = (0..REGIONS).map(|nth| (region(nth), place(nth)));
    let empty = Prefix::new(SequenceNumber(10));
    let prefix = Prefix::from_checkpoint(empty.log().clone(), [(index, state)], places, Vec::new());
    let mut engine = Engine::new(config(), prefix);
    let live = |engine: &Engine| engine.prefix().objects().state(index);
    let whole = region(1).extent();
    let content = vec![(
        Extent::new(whole.start.0 + 3, 9),
        Mapping::Stored(Location { object: index, ordinal: BlockOrdinal(0) }),
    )];

    // With the last block of the region before, which holds nothing.
    let (first, blocks) = (whole.start.0 - 1, whole.count.0 + 1);
    let asked = step(
        &mut engine,
        Request::Trim { offset_bytes: first * BLOCK_BYTES, length_bytes: blocks * BLOCK_BYTES, fua: false },
    );
    assert_eq!(asked, [region(1)], "the region before has nothing");
    assert!(engine.plan_read(whole.start.0 * BLOCK_BYTES, BLOCK_BYTES).is_ok(), "it is known to be a hole");
    assert_eq!(live(&engine), state);
    assert!(engine.begin_checkpoint().is_none(), "it would say that they live for ever");
    // What is written there since stays.
    let data = bytes::Bytes::from(vec![5; 4096]);
    let asked =
        step(&mut engine, Request::Write { offset_bytes: whole.start.offset_bytes(), data, fua: false });
    assert!(asked.is_empty(), "it is on its way");
    assert_eq!(engine.buffered_bytes(), 0, "and nothing waits for it");
    handle(&mut engine, Event::RegionLoaded { region: region(1), place: place(1), content });
    assert_eq!((live(&engine).live_blocks, live(&engine).died_at), (0, Some(SequenceNumber(11))));
    assert_eq!(engine.totals().live_blocks, 1);
    assert!(engine.begin_checkpoint().is_some());
}

fn identity() -> ObjectIdentity {
    let Config { volume, epoch, writer, .. } = config();
    ObjectIdentity { volume, epoch, writer, number: SequenceNumber(0) }
}

/// Has a mutation flushed and stored. Gives the regions that were asked for.
fn step(engine: &mut Engine, request: Request) -> Vec<RegionIndex> {
    let nth = engine.first_incomplete().0;
    handle(engine, Event::Submit { id: RequestId(2 * nth), request });
    handle(engine, Event::Submit { id: RequestId(2 * nth + 1), request: Request::Flush });
    let mut asked = Vec::new();
    while let Some(action) = engine.next_action() {
        match action {
            Action::Upload(batch) => {
                handle(engine, Event::Uploaded { number: batch.header.identity.number });
            }
            Action::LoadRegion { region, .. } => asked.push(region),
            _ => {}
        }
    }
    asked
}

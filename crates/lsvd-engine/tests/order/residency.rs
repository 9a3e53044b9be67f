//! What the map's budget of memory means for regions that were fetched.

use lsvd_engine::{Action, Config, Engine, Event, Mapping, Now, Place, Prefix, Request, RequestId};
use lsvd_format::checkpoint::{PartId, RegionIndex};
use lsvd_format::{BlockIndex, Extent, SequenceNumber};

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
            offset_bytes: BlockIndex(block).0 * lsvd_format::BLOCK_BYTES,
            length_bytes: lsvd_format::BLOCK_BYTES,
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

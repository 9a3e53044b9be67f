//! Random clients: valid ones against an array, invalid ones against the server's patience.

// A failing test may panic wherever it stands, in its helpers too.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::*;
use lsvd_nbd::{ExportInfo, Limits};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Slots that the requests of one batch share out, so that their order does not matter.
const SLOTS: usize = 16;
const SLOT_BYTES: usize = 20_000;
const SIZE: usize = SLOTS * SLOT_BYTES;

/// One request, within its slot.
#[derive(Clone, Debug)]
struct Op {
    slot: usize,
    command: u16,
    fua: bool,
    start: usize,
    length: usize,
    fill: u8,
    /// The export takes so long for it.
    delay_ms: u64,
}

fn op() -> impl Strategy<Value = Op> {
    let command = prop::sample::select(vec![
        cmd::READ,
        cmd::READ,
        cmd::WRITE,
        cmd::WRITE,
        cmd::WRITE,
        cmd::TRIM,
        cmd::WRITE_ZEROES,
        cmd::CACHE,
        cmd::BLOCK_STATUS,
        cmd::FLUSH,
    ]);
    (0..SLOTS, command, any::<bool>(), 0..SLOT_BYTES, 1..SLOT_BYTES, 1..=255_u8, 0..4_u64).prop_map(
        |(slot, command, fua, start, length, fill, delay_ms)| {
            let length = length.min(SLOT_BYTES - start);
            Op { slot, command, fua, start, length, fill, delay_ms }
        },
    )
}

/// Batches of requests of which no two touch the same slot.
fn batches() -> impl Strategy<Value = Vec<Vec<Op>>> {
    let batch = prop::collection::vec(op(), 1..24).prop_map(|ops| {
        let by_slot: BTreeMap<usize, Op> = ops.into_iter().map(|op| (op.slot, op)).collect();
        by_slot.into_values().collect()
    });
    prop::collection::vec(batch, 1..10)
}

async fn run_against_array(batches: Vec<Vec<Op>>, structured: bool, cut: usize) {
    let delays: BTreeMap<u64, u64> =
        batches.iter().flatten().map(|op| ((op.slot * SLOT_BYTES + op.start) as u64, op.delay_ms)).collect();
    let script = move |call: &Call| match delays.get(&call.offset) {
        Some(0) | None => Fate::Serve,
        Some(delay_ms) => Fate::Delay(Duration::from_millis(*delay_ms)),
    };
    let export = MemoryExport::scripted(ExportInfo::new(SIZE as u64), script);
    let running = Running::start(export, Limits::default()).await;
    let mut client = if structured { running.client().await } else { running.simple_client().await };
    let mut model = vec![0_u8; SIZE];
    for batch in batches {
        let mut bytes = Vec::new();
        let mut expected = BTreeMap::new();
        for (cookie, op) in batch.iter().enumerate() {
            let offset = op.slot * SLOT_BYTES + op.start;
            let range = offset..offset + op.length;
            let (at, length) =
                if op.command == cmd::FLUSH { (0, 0) } else { (offset as u64, op.length as u32) };
            bytes.extend(request(op.command, op.fua.into(), cookie as u64, at, length));
            match op.command {
                cmd::WRITE => {
                    bytes.extend(std::iter::repeat_n(op.fill, op.length));
                    model[range].fill(op.fill);
                }
                cmd::TRIM | cmd::WRITE_ZEROES => model[range].fill(0),
                _ => {}
            }
            expected.insert(cookie as u64, (op.clone(), Assembly::new(at, length)));
        }
        for part in bytes.chunks(cut) {
            client.send(part).await;
        }
        while !expected.is_empty() {
            let message = client.receive().await;
            let cookie = message.cookie();
            let (op, assembly) = expected.get_mut(&cookie).expect("an answer to a request");
            let offset = op.slot * SLOT_BYTES + op.start;
            let answer = if !structured && op.command == cmd::READ {
                assert_eq!(message, Message::Simple { cookie, error: 0 });
                let mut data = vec![0; op.length];
                client.stream.read_exact(&mut data).await.unwrap();
                Some(Ok(data))
            } else {
                assembly.take(message)
            };
            match (answer, op.command) {
                (None, _) => continue,
                (Some(Ok(data)), cmd::READ) => assert!(data == model[offset..offset + op.length], "{op:?}"),
                (Some(Err(errno)), cmd::BLOCK_STATUS) => assert!(!structured && errno == EINVAL),
                (Some(Ok(_)), _) => {}
                (Some(Err(errno)), _) => panic!("{op:?} failed with {errno}"),
            }
            expected.remove(&cookie);
        }
    }
    for slot in 0..SLOTS {
        let data = client.read((slot * SLOT_BYTES) as u64, SLOT_BYTES as u32).await.unwrap();
        assert!(data == model[slot * SLOT_BYTES..(slot + 1) * SLOT_BYTES]);
    }
    client.disconnect().await;
}

fn in_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(60), test).await.expect("the server hangs") });
}

/// A stream that is valid up to somewhere, then not.
fn spoilt_stream() -> impl Strategy<Value = Vec<u8>> {
    let options = prop_oneof![
        Just(option(8, b"")),
        Just(option(3, b"")),
        Just(option(10, b"\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation")),
        (0..13_u32, prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(number, data)| option(number, &data)),
    ];
    let requests = prop_oneof![
        (0..10_u16, 0..64_u16, any::<u64>(), 0..10_000_u64, 0..10_000_u32).prop_map(
            |(command, flags, cookie, offset, length)| {
                let mut bytes = request(command, flags, cookie, offset, length);
                if command == cmd::WRITE {
                    bytes.resize(28 + length as usize, 9);
                }
                bytes
            }
        ),
        (any::<u16>(), any::<u16>(), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(
            |(command, flags, cookie, offset, length)| request(command, flags, cookie, offset, length)
        ),
        prop::collection::vec(any::<u8>(), 0..100),
    ];
    let parts = (prop::collection::vec(options, 0..4), any::<bool>(), prop::collection::vec(requests, 0..20));
    parts.prop_map(|(options, go, requests)| {
        let mut bytes = vec![0, 0, 0, 3];
        bytes.extend(options.concat());
        if go {
            bytes.extend(option(7, &go_data("disk")));
            bytes.extend(requests.concat());
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Requests in flight together, answered in any order, leave what an array would hold.
    #[test]
    fn pipelined_requests_match_an_array(batches in batches(), structured in any::<bool>(), cut in 1..5000_usize) {
        in_runtime(run_against_array(batches, structured, cut));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Whatever strangers send, they are answered or cut off, and the next client is served.
    #[test]
    fn garbage_neither_hangs_nor_harms(
        streams in prop::collection::vec((spoilt_stream(), 1..2000_usize), 1..12),
        script_seed in any::<u64>(),
    ) {
        in_runtime(async move {
            let script = move |call: &Call| match (call.offset ^ script_seed) % 7 {
                0 => Fate::Delay(Duration::from_millis(1)),
                1 => Fate::Short,
                _ => Fate::Serve,
            };
            let limits = Limits { stall_timeout: Duration::from_millis(500), ..Limits::default() };
            let export = MemoryExport::scripted(ExportInfo::new(1 << 20), script);
            let running = Running::start(export, limits).await;
            for (bytes, cut) in streams {
                let (mut read, mut write) = running.stream().await.into_split();
                let sending = async {
                    for part in bytes.chunks(cut) {
                        if write.write_all(part).await.is_err() {
                            break;
                        }
                    }
                    drop(write);
                };
                let mut answers = Vec::new();
                let (_, end) = tokio::join!(sending, timeout(PATIENCE, read.read_to_end(&mut answers)));
                let _ = end.expect("the server closes");
                assert!(answers.starts_with(b"NBDMAGICIHAVEOPT\x00\x03"));
            }
            Client::structured(running.stream().await).await.disconnect().await;
        });
    }
}

//! Requests and their answers over real sockets: what fails, fails alone, and nothing loses the stream.

// A failing test may panic wherever it stands, in its helpers too.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use common::*;
use lsvd_nbd::{ExportErrorKind, ExportInfo, Limits, ZeroFlags};
use tokio::sync::Semaphore;

const GIB: u64 = 1 << 30;

fn disk() -> ExportInfo {
    ExportInfo { can_multi_conn: true, fast_zero: true, ..ExportInfo::new(GIB) }
}

fn small_limits() -> Limits {
    Limits { payload_bytes_max: MIB, ..Limits::default() }
}

#[tokio::test]
async fn answers_come_as_they_are_ready() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let script = move |call: &Call| if call.offset == 0 { Fate::Hold(held.clone()) } else { Fate::Serve };
    let running = Running::start(MemoryExport::scripted(disk(), script), Limits::default()).await;
    let mut client = running.client().await;
    client.send(&request(cmd::READ, 0, 1, 0, 4096)).await;
    client.send(&request(cmd::READ, 0, 2, 4096, 4096)).await;
    client.send(&[request(cmd::WRITE, 0, 3, 8192, 3), b"abc".to_vec()].concat()).await;
    client.send(&request(cmd::FLUSH, 0, 4, 0, 0)).await;
    let mut cookies = Vec::new();
    for _ in 0..2 {
        cookies.push(client.receive().await.cookie());
    }
    // The flush is held by the script too: its offset is 0.
    cookies.sort_unstable();
    assert_eq!(cookies, [2, 3]);
    gate.add_permits(2);
    let mut cookies = [client.receive().await.cookie(), client.receive().await.cookie()];
    cookies.sort_unstable();
    assert_eq!(cookies, [1, 4]);
}

/// Command, flags, offset, length, payload, and the error that must come of them.
type Failing<'a> = (u16, u16, u64, u32, &'a [u8], u32);

/// Every way for a request to fail, each followed by one that must succeed.
#[tokio::test]
async fn a_failed_request_leaves_the_stream_in_order() {
    let script = |call: &Call| match call.offset / 4096 {
        100 => Fate::Fail(ExportErrorKind::Io),
        101 => Fate::Panic,
        102 => Fate::Short,
        103 => Fate::Fail(ExportErrorKind::NoSpace),
        104 => Fate::Fail(ExportErrorKind::Shutdown),
        _ => Fate::Serve,
    };
    let running = Running::start(MemoryExport::scripted(disk(), script), small_limits()).await;
    let long = vec![7; 3 * MIB as usize];
    for mut client in [running.client().await, running.simple_client().await] {
        let at = |block: u64| block * 4096;
        let cases: Vec<Failing<'_>> = vec![
            (cmd::READ, 0, at(100), 4096, &[], EIO),
            (cmd::READ, 0, at(101), 4096, &[], EIO),
            (cmd::READ, 0, at(102), 4096, &[], EIO),
            (cmd::WRITE, 0, at(100), 5, b"hello", EIO),
            (cmd::WRITE, 1, at(101), 5, b"hello", EIO),
            (cmd::WRITE, 0, at(103), 5, b"hello", ENOSPC),
            (cmd::WRITE, 0, at(104), 5, b"hello", ESHUTDOWN),
            (cmd::TRIM, 0, at(101), 4096, &[], EIO),
            (cmd::WRITE, 0, GIB - 2, 5, b"hello", ENOSPC),
            (cmd::WRITE, 0, u64::MAX, 5, b"hello", ENOSPC),
            (cmd::WRITE, 0x8000, 0, 5, b"hello", EINVAL),
            // The extended-headers flag, as if a payload's length had been agreed on.
            (cmd::WRITE, 0x20, 0, 5, b"hello", EINVAL),
            (cmd::WRITE, 0, 0, 3 * MIB, &long, EINVAL),
            (cmd::READ, 0, GIB - 1, 2, &[], EINVAL),
            (cmd::READ, 2, 0, 512, &[], EINVAL),
            (cmd::TRIM, 0, GIB, 1, &[], EINVAL),
            (cmd::WRITE_ZEROES, 0, GIB, 1, &[], ENOSPC),
            (cmd::FLUSH, 0, 1, 0, &[], EINVAL),
            (cmd::BLOCK_STATUS, 0, 0, 0, &[], EINVAL),
            (8, 0, 0, 0, &[], EINVAL),
            (0xFFFF, 0, 0, 4096, &[], EINVAL),
        ];
        for (command, flags, offset, length, payload, errno) in cases {
            let answer = client.call(command, flags, offset, length, payload).await;
            assert_eq!(answer, Err(errno), "command {command} flags {flags} at {offset} of {length}");
            client.write(512, b"still here").await.unwrap();
            assert_eq!(client.read(512, 10).await.unwrap(), b"still here");
        }
        client.disconnect().await;
    }
}

#[tokio::test]
async fn a_read_only_export_answers_eperm() {
    let info = ExportInfo { read_only: true, ..disk() };
    let running = Running::start(MemoryExport::new(info), Limits::default()).await;
    let mut client = running.client().await;
    assert_eq!(client.write(0, b"hello").await, Err(EPERM));
    assert_eq!(client.call(cmd::TRIM, 0, 0, 4096, &[]).await, Err(EPERM));
    assert_eq!(client.call(cmd::WRITE_ZEROES, 0, 0, 4096, &[]).await, Err(EPERM));
    assert_eq!(client.read(0, 5).await.unwrap(), [0; 5]);
    assert!(running.export.calls().iter().all(|call| call.command == cmd::READ));
}

#[tokio::test]
async fn flags_reach_the_export() {
    let script =
        |call: &Call| if call.zero.fast { Fate::Fail(ExportErrorKind::NotSupported) } else { Fate::Serve };
    let running = Running::start(MemoryExport::scripted(disk(), script), Limits::default()).await;
    let mut client = running.client().await;
    client.call(cmd::WRITE, 1, 0, 1, b"x").await.unwrap();
    client.call(cmd::TRIM, 1, 0, 4096, &[]).await.unwrap();
    client.call(cmd::WRITE_ZEROES, 0b00011, 0, 4096, &[]).await.unwrap();
    assert_eq!(client.call(cmd::WRITE_ZEROES, 0b10000, 0, 4096, &[]).await, Err(ENOTSUP));
    client.call(cmd::CACHE, 0, 0, 4096, &[]).await.unwrap();
    // On what does not write, FUA is accepted and means nothing.
    client.call(cmd::FLUSH, 1, 0, 0, &[]).await.unwrap();
    client.call(cmd::READ, 1, 0, 1, &[]).await.unwrap();
    let calls: Vec<_> =
        running.export.calls().iter().map(|call| (call.command, call.fua, call.zero)).collect();
    let none = ZeroFlags::default();
    assert_eq!(
        calls,
        [
            (cmd::WRITE, true, none),
            (cmd::TRIM, true, none),
            (cmd::WRITE_ZEROES, true, ZeroFlags { fua: true, no_hole: true, fast: false }),
            (cmd::WRITE_ZEROES, false, ZeroFlags { fast: true, ..none }),
            (cmd::CACHE, false, none),
            (cmd::FLUSH, false, none),
            (cmd::READ, false, none),
        ]
    );
}

/// A trim above 128 MiB was refused elsewhere, so that mkfs failed on large devices.
#[tokio::test]
async fn lengths_up_to_4_gib_work() {
    let info = ExportInfo { fast_zero: true, ..ExportInfo::new(1 << 40) };
    let running = Running::start(MemoryExport::new(info), Limits::default()).await;
    let mut client = running.client().await;
    assert_eq!(client.size, 1 << 40);
    client.write(4096, &[7; 4096]).await.unwrap();
    client.call(cmd::CACHE, 0, 0, u32::MAX, &[]).await.unwrap();
    let status = client.call(cmd::BLOCK_STATUS, 0, 0, u32::MAX, &[]).await.unwrap();
    let mut status = &status[4..];
    let mut extents = Vec::new();
    while status.has_remaining() {
        extents.push((status.get_u32(), status.get_u32()));
    }
    assert_eq!(extents, [(4096, 3), (4096, 0), (u32::MAX - 8192, 3)]);
    let status = client.call(cmd::BLOCK_STATUS, 8, 0, u32::MAX, &[]).await.unwrap();
    assert_eq!(status, [0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 3]);
    client.call(cmd::TRIM, 0, 0, u32::MAX, &[]).await.unwrap();
    client.call(cmd::WRITE_ZEROES, 0, (1 << 40) - u64::from(u32::MAX), u32::MAX, &[]).await.unwrap();
    assert_eq!(client.read(4096, 4096).await.unwrap(), [0; 4096]);
}

#[tokio::test]
async fn nothing_to_do_is_done() {
    let running = Running::start(MemoryExport::new(disk()), Limits::default()).await;
    for mut client in [running.client().await, running.simple_client().await] {
        for command in [cmd::READ, cmd::WRITE, cmd::TRIM, cmd::CACHE, cmd::WRITE_ZEROES] {
            assert_eq!(client.call(command, 0, 0, 0, &[]).await, Ok(vec![]), "{command}");
            assert_eq!(client.call(command, 0, GIB, 0, &[]).await, Ok(vec![]), "{command}");
        }
    }
    assert_eq!(running.export.calls(), []);
}

/// Rule 10: a read longer than the payload limit comes in parts, of which few are in memory at once.
#[tokio::test]
async fn a_long_read_comes_in_parts() {
    let limits = Limits {
        payload_bytes_max: MIB,
        payload_bytes_in_flight_max: 2 * MIB,
        payload_bytes_total_max: 2 * MIB,
        ..Limits::default()
    };
    let script =
        |call: &Call| if call.offset == GIB / 2 { Fate::Fail(ExportErrorKind::Io) } else { Fate::Serve };
    let running = Running::start(MemoryExport::scripted(disk(), script), limits).await;
    let mut client = running.client().await;
    let data: Vec<u8> = (0..MIB).map(|index| (index % 251) as u8).collect();
    for part in 0..9_u32 {
        client.write(u64::from(part) * u64::from(MIB) + 100, &data).await.unwrap();
    }
    let length = 8 * MIB + 12345;
    let read = client.read(50, length).await.unwrap();
    assert!(read == running.export.bytes(50, length.into()));
    assert!(running.export.calls().iter().all(|call| call.length <= MIB.into()));

    // An error in the middle fails the whole read and nothing else.
    assert_eq!(client.read(GIB / 2 - u64::from(2 * MIB), 5 * MIB).await, Err(EIO));
    assert_eq!(client.call(cmd::READ, 4, 0, MIB + 1, &[]).await, Err(EOVERFLOW));
    assert_eq!(client.read(0, 10).await.unwrap().len(), 10);
    let mut simple = running.simple_client().await;
    assert_eq!(simple.read(0, MIB + 1).await, Err(EINVAL));
    assert_eq!(simple.read(0, MIB).await.unwrap().len(), MIB as usize);
}

#[tokio::test]
async fn an_unfragmented_read_is_one_chunk() {
    let running = Running::start(MemoryExport::new(disk()), Limits::default()).await;
    let mut client = running.client().await;
    client.write(8192, &[7; 4096]).await.unwrap();
    client.send(&request(cmd::READ, 4, 9, 4096, 12288)).await;
    let Message::Chunk { done: true, kind: 1, cookie: 9, payload } = client.receive().await else {
        panic!("not one chunk of data")
    };
    assert_eq!(payload[8..], [[0; 4096], [7; 4096], [0; 4096]].concat());
    // Without the flag the holes are told.
    client.send(&request(cmd::READ, 0, 9, 4096, 12288)).await;
    for (expected_kind, expected_done) in [(2, false), (1, false), (2, true)] {
        let Message::Chunk { done, kind, .. } = client.receive().await else { panic!("not a chunk") };
        assert_eq!((kind, done), (expected_kind, expected_done));
    }
}

/// The protocol has no way on after these, but only this connection ends.
#[tokio::test]
async fn what_can_not_be_understood_closes_the_connection() {
    let running = Running::start(MemoryExport::new(disk()), Limits::default()).await;
    for garbage in [request(cmd::WRITE, 0, 1, 0, u32::MAX), vec![0; 28], vec![0xFF; 100_000]] {
        let mut client = running.client().await;
        client.write(0, b"hello").await.unwrap();
        // The server may be gone before it has taken all of it.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &garbage).await;
        client.assert_closed().await;
        running.assert_well().await;
    }
}

#[tokio::test]
async fn goodbye_waits_for_what_is_in_flight() {
    let script = |call: &Call| match call.command {
        cmd::WRITE => Fate::Delay(Duration::from_millis(200)),
        _ => Fate::Serve,
    };
    let running = Running::start(MemoryExport::scripted(disk(), script), Limits::default()).await;
    let mut client = running.client().await;
    client
        .send(&[request(cmd::WRITE, 0, 5, 0, 2), b"hi".to_vec(), request(cmd::DISC, 0, 0, 0, 0)].concat())
        .await;
    assert_eq!(client.receive().await, Message::Simple { cookie: 5, error: 0 });
    client.assert_closed().await;
    assert_eq!(running.export.bytes(0, 2), b"hi");
}

#[tokio::test]
async fn the_flags_are_what_the_export_says() {
    const TRIM: u16 = 1 << 5;
    const MULTI_CONN: u16 = 1 << 8;
    const FAST_ZERO: u16 = 1 << 11;
    let all = TRIM | MULTI_CONN | FAST_ZERO;
    let plain = ExportInfo { can_trim: false, ..ExportInfo::new(GIB) };
    for (info, expected) in [(disk(), all), (plain, 0), (ExportInfo::new(GIB), TRIM)] {
        let running = Running::start(MemoryExport::new(info), Limits::default()).await;
        assert_eq!(running.client().await.flags & all, expected);
    }
}

/// A client that learned in another way that the export has grown need not connect again; beyond the new end it is as before.
#[tokio::test]
async fn an_export_that_has_grown_is_served_on_old_connections() {
    const INVALID: u32 = 22;
    const NO_SPACE: u32 = 28;
    let running = Running::start(MemoryExport::new(disk()), Limits::default()).await;
    let mut client = running.client().await;
    assert_eq!(client.write(GIB - 1, b"ab").await, Err(NO_SPACE));
    running.export.grow(GIB + 4096);
    assert_eq!(client.write(GIB - 1, b"ab").await, Ok(Vec::new()));
    assert_eq!(client.read(GIB - 1, 2).await, Ok(b"ab".to_vec()));
    assert_eq!(client.write(GIB + 4095, b"ab").await, Err(NO_SPACE));
    assert_eq!(client.read(GIB + 4095, 2).await, Err(INVALID));
    client.disconnect().await;
}

//! Connections that end, stall, crowd or vanish, and the server that goes on.

// A failing test may panic wherever it stands, in its helpers too.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::*;
use lsvd_nbd::{ExportInfo, Limits, ListenAddress, Listener, Server, ServerError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

fn disk() -> ExportInfo {
    ExportInfo::new(1 << 30)
}

/// A script that holds writes until there are permits.
fn holding_writes(gate: &Arc<Semaphore>) -> impl Fn(&Call) -> Fate + Send + Sync + 'static {
    let gate = gate.clone();
    move |call| if call.command == cmd::WRITE { Fate::Hold(gate.clone()) } else { Fate::Serve }
}

async fn until(condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, waited).await.expect("it never came");
}

/// Rule 10: at the limit the server stops reading; nothing is lost or refused.
#[tokio::test]
async fn no_more_requests_than_may_be_in_flight() {
    let gate = Arc::new(Semaphore::new(0));
    let limits = Limits { requests_in_flight_max: 4, ..Limits::default() };
    let running = Running::start(MemoryExport::scripted(disk(), holding_writes(&gate)), limits).await;
    let mut client = running.client().await;
    for cookie in 0..20 {
        client.send(&[request(cmd::WRITE, 0, cookie, cookie * 4096, 1), vec![1]].concat()).await;
    }
    until(|| running.export.calls().len() == 4).await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(running.export.calls().len(), 4);
    gate.add_permits(20);
    let mut cookies = Vec::new();
    for _ in 0..20 {
        cookies.push(client.receive().await.cookie());
    }
    cookies.sort_unstable();
    assert_eq!(cookies, (0..20).collect::<Vec<_>>());
}

/// Rule 10: the bytes that all clients together keep in the server's memory are bounded.
#[tokio::test]
async fn no_more_bytes_than_may_be_in_flight() {
    let gate = Arc::new(Semaphore::new(0));
    let limits = Limits {
        payload_bytes_max: MIB,
        payload_bytes_in_flight_max: 2 * MIB,
        payload_bytes_total_max: 3 * MIB,
        ..Limits::default()
    };
    let running = Running::start(MemoryExport::scripted(disk(), holding_writes(&gate)), limits).await;
    let senders: Vec<_> = [running.client().await, running.client().await]
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let data = vec![1; MIB as usize];
                for cookie in 0..4 {
                    client.send(&[request(cmd::WRITE, 0, cookie, 0, MIB), data.clone()].concat()).await;
                }
                for _ in 0..4 {
                    assert!(matches!(client.receive().await, Message::Simple { error: 0, .. }));
                }
            })
        })
        .collect();
    until(|| running.export.calls().len() == 3).await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(running.export.calls().len(), 3);
    gate.add_permits(8);
    for sender in senders {
        timeout(PATIENCE, sender).await.expect("all is written").unwrap();
    }
}

#[tokio::test]
async fn a_client_that_vanishes_takes_nothing_along() {
    let gate = Arc::new(Semaphore::new(0));
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let running = Running::start(MemoryExport::scripted(disk(), holding_writes(&gate)), limits).await;
    for round in 0..5_u64 {
        let mut client = running.client().await;
        // One request is complete, the other cut off in the middle of its data.
        client.send(&[request(cmd::WRITE, 0, 1, round * 4096, 5), b"whole".to_vec()].concat()).await;
        client.send(&[request(cmd::WRITE, 0, 2, round * 4096 + 100, 9), b"half".to_vec()].concat()).await;
        until(|| running.export.calls().len() as u64 == round + 1).await;
        drop(client);
        gate.add_permits(1);
        until(|| running.export.bytes(round * 4096, 5) == b"whole").await;
        assert_eq!(running.export.bytes(round * 4096 + 100, 9), [0; 9]);
    }
    // Its place is free again.
    until(|| running.export.calls().len() == 5).await;
    sleep(Duration::from_millis(20)).await;
    let mut client = running.client().await;
    assert_eq!(client.read(0, 5).await.unwrap(), b"whole");
}

#[tokio::test]
async fn connections_are_bounded() {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let running = Running::start(MemoryExport::new(disk()), limits).await;
    let (first, _second) = (running.client().await, running.client().await);
    let mut third = running.stream().await;
    assert_eq!(
        timeout(PATIENCE, third.read(&mut [0; 10])).await.unwrap().unwrap(),
        0,
        "closed without a greeting"
    );
    first.disconnect().await;
    sleep(Duration::from_millis(50)).await;
    running.client().await.read(0, 1).await.unwrap();
}

#[tokio::test]
async fn who_does_not_choose_in_time_is_cut_off() {
    let limits = Limits { handshake_timeout: Duration::from_millis(200), ..Limits::default() };
    let running = Running::start(MemoryExport::new(disk()), limits).await;
    let mut silent = running.stream().await;
    let mut chatty = running.stream().await;
    greet(&mut chatty).await;
    let mut greeting = Vec::new();
    timeout(PATIENCE, silent.read_to_end(&mut greeting)).await.unwrap().unwrap();
    assert_eq!(greeting.len(), 18);
    timeout(PATIENCE, async { while chatty.write_all(&option(3, b"")).await.is_ok() {} }).await.unwrap();
    running.assert_well().await;
}

#[tokio::test]
async fn who_stalls_in_the_middle_of_a_message_is_cut_off_and_who_is_idle_is_not() {
    let limits = Limits { stall_timeout: Duration::from_millis(200), ..Limits::default() };
    let running = Running::start(MemoryExport::new(disk()), limits).await;
    let mut idle = running.client().await;
    let mut in_head = running.client().await;
    in_head.send(&request(cmd::READ, 0, 1, 0, 1)[..27]).await;
    let mut in_payload = running.client().await;
    in_payload.send(&[request(cmd::WRITE, 0, 1, 0, 4096), vec![0; 4095]].concat()).await;
    let mut in_refused = running.client().await;
    in_refused.send(&[request(cmd::WRITE, 0, 1, u64::MAX, 4096), vec![0; 4095]].concat()).await;
    let mut unread = running.client().await;
    for cookie in 0..100 {
        unread.send(&request(cmd::READ, 4, cookie, 0, MIB)).await;
        if cookie == 0 {
            unread.send(&[request(cmd::WRITE, 0, 99, 0, 1), vec![1]].concat()).await;
        }
    }
    for mut client in [in_head, in_payload, in_refused] {
        client.assert_closed().await;
    }
    let mut bytes = Vec::new();
    sleep(Duration::from_millis(400)).await;
    timeout(PATIENCE, unread.stream.read_to_end(&mut bytes)).await.expect("closed").ok();
    assert!(bytes.len() < 90 << 20, "{}", bytes.len());
    idle.read(0, 10).await.unwrap();
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_flight_and_refuses_the_rest() {
    let gate = Arc::new(Semaphore::new(0));
    let mut running =
        Running::start(MemoryExport::scripted(disk(), holding_writes(&gate)), Limits::default()).await;
    let mut idle = running.client().await;
    let mut client = running.client().await;
    client.send(&[request(cmd::WRITE, 0, 1, 0, 5), b"hello".to_vec()].concat()).await;
    until(|| running.export.calls().len() == 1).await;
    running.stop();
    idle.assert_closed().await;
    assert!(!running.socket.exists(), "the socket goes first");
    assert_eq!(client.call(cmd::READ, 0, 0, 1, &[]).await, Err(ESHUTDOWN));
    assert_eq!(client.write(0, b"late").await, Err(ESHUTDOWN));
    gate.add_permits(1);
    assert_eq!(client.receive().await, Message::Simple { cookie: 1, error: 0 });
    client.assert_closed().await;
    timeout(PATIENCE, running.task).await.expect("serve returns").unwrap();
    assert_eq!(running.export.bytes(0, 5), b"hello");
}

#[tokio::test]
async fn shutdown_tells_who_still_negotiates() {
    let mut running = Running::start(MemoryExport::new(disk()), Limits::default()).await;
    let mut stream = running.stream().await;
    greet(&mut stream).await;
    assert_eq!(ask(&mut stream, 8, b"").await, [(1, vec![])]);
    running.stop();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(ask(&mut stream, 7, &go_data("")).await[0].0, 0x8000_0007);
    assert_eq!(ask(&mut stream, 2, b"").await, [(1, vec![])]);
    timeout(PATIENCE, running.task).await.expect("serve returns").unwrap();
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let gate = Arc::new(Semaphore::new(0));
    let limits = Limits { shutdown_grace: Duration::from_millis(200), ..Limits::default() };
    let mut running = Running::start(MemoryExport::scripted(disk(), holding_writes(&gate)), limits).await;
    let mut client = running.client().await;
    client.send(&[request(cmd::WRITE, 0, 1, 0, 5), b"hello".to_vec()].concat()).await;
    until(|| running.export.calls().len() == 1).await;
    let begun = Instant::now();
    running.stop();
    timeout(PATIENCE, running.task).await.expect("serve returns").unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(200));
    client.assert_closed().await;
    // What the export was doing goes on by itself.
    gate.add_permits(1);
    until(|| running.export.bytes(0, 5) == b"hello").await;
}

/// Requests of one connection run side by side, not one after the other.
/// Whoever was told of one device never reads or writes another one, though it has the same name.
#[tokio::test]
async fn another_device_behind_a_name_is_for_new_clients_alone() {
    let gate = Arc::new(Semaphore::new(0));
    let running =
        Running::start(MemoryExport::scripted(disk(), holding_writes(&gate)), Limits::default()).await;
    let (mut busy, mut idle) = (running.client().await, running.client().await);
    // It has been shown the exports, and chooses only when there is another device.
    let mut late = running.stream().await;
    greet(&mut late).await;
    busy.send(&[request(cmd::WRITE, 0, 1, 0, 1), vec![7]].concat()).await;
    until(|| running.export.calls().len() == 1).await;
    running.server.retire("disk");
    idle.assert_closed().await;
    assert_eq!(busy.call(cmd::READ, 0, 0, 4096, &[]).await, Err(ESHUTDOWN));
    let mut refused = running.client().await;
    refused.assert_closed().await;
    gate.add_permits(1);
    assert!(matches!(busy.receive().await, Message::Simple { cookie: 1, error: 0 }));
    busy.assert_closed().await;
    until(|| running.server.clients("disk") == 0).await;

    let other = Arc::new(MemoryExport::new(ExportInfo::new(2 << 30)));
    running.server.replace("disk", other.clone());
    let mut client = running.client().await;
    assert_eq!(client.size, 2 << 30);
    client.write(0, &[1; 4096]).await.unwrap();
    assert_eq!(running.server.clients("disk"), 1);
    let (kind, _) = ask(&mut late, 7, &go_data("disk")).await.pop().unwrap();
    assert_eq!(kind, 1, "it is told that it can have what it was shown");
    let mut left = Vec::new();
    timeout(PATIENCE, late.read_to_end(&mut left)).await.unwrap().unwrap();
    assert!(left.is_empty(), "and that has gone");
    assert_eq!(running.export.calls().len(), 1);
    assert_eq!(client.read(0, 4096).await.unwrap(), [1; 4096]);
}

#[tokio::test]
async fn slow_requests_overlap() {
    let script = |_: &Call| Fate::Delay(Duration::from_millis(100));
    let running = Running::start(MemoryExport::scripted(disk(), script), Limits::default()).await;
    let mut client = running.client().await;
    let begun = Instant::now();
    for cookie in 0..64 {
        client.send(&request(cmd::READ, 0, cookie, cookie * 4096, 4096)).await;
    }
    for _ in 0..64 {
        client.receive().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn several_listeners_and_exports() {
    let (a, b) = (Arc::new(MemoryExport::new(disk())), Arc::new(MemoryExport::new(ExportInfo::new(1 << 20))));
    let exports = vec![("a".to_owned(), a.clone()), ("b/c".to_owned(), b)];
    let server = Server::new(exports, None, Limits::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let unix = Listener::bind_unix(directory.path().join("s")).await.unwrap();
    let tcp = Listener::bind_tcp("127.0.0.1", 0).await.unwrap();
    let ListenAddress::Tcp { host, port } = tcp.address().clone() else { panic!("not a port") };
    let path = directory.path().join("s");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let tasks: Vec<_> = [unix, tcp]
        .into_iter()
        .map(|listener| {
            let (server, mut stopped) = (server.clone(), stopped.clone());
            tokio::spawn(async move {
                server.serve(listener, async move { drop(stopped.wait_for(|stop| *stop).await) }).await;
            })
        })
        .collect();

    let mut stream = TcpStream::connect((host.as_str(), port)).await.unwrap();
    greet(&mut stream).await;
    let names: Vec<_> = ask(&mut stream, 3, b"").await.into_iter().map(|reply| reply.1).collect();
    assert_eq!(names, [&b"\0\0\0\x01a"[..], b"\0\0\0\x03b/c", b""]);
    assert_eq!(ask(&mut stream, 7, &go_data("")).await[0].0, 0x8000_0006, "there is no default");
    let told = ask(&mut stream, 7, &go_data("a")).await;
    assert_eq!(told.len(), 2);
    stream.write_all(&[request(cmd::WRITE, 0, 1, 0, 2), b"hi".to_vec()].concat()).await.unwrap();
    let mut reply = [0; 16];
    timeout(PATIENCE, stream.read_exact(&mut reply)).await.unwrap().unwrap();
    assert_eq!(a.bytes(0, 2), b"hi");

    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    greet(&mut stream).await;
    stream.write_all(&option(1, b"b/c")).await.unwrap();
    assert_eq!(stream.read_u64().await.unwrap(), 1 << 20);

    stop.send(true).unwrap();
    for task in tasks {
        timeout(PATIENCE, task).await.expect("serve returns").unwrap();
    }
}

#[tokio::test]
async fn many_clients_come_and_go() {
    let running = Running::start(MemoryExport::new(disk()), Limits::default()).await;
    let served = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..40_u64)
        .map(|number| {
            let (socket, served) = (running.socket.clone(), served.clone());
            tokio::spawn(async move {
                let stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
                let mut client = Client::structured(stream).await;
                let data = [number as u8; 4096];
                client.write(number * 4096, &data).await.unwrap();
                assert_eq!(client.read(number * 4096, 4096).await.unwrap(), data);
                if number % 2 == 0 {
                    client.disconnect().await;
                }
                served.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    for client in clients {
        timeout(PATIENCE, client).await.unwrap().unwrap();
    }
    assert_eq!(served.load(Ordering::Relaxed), 40);
}

#[test]
fn a_server_that_makes_no_sense_says_why() {
    let export = || Arc::new(MemoryExport::new(disk()));
    let named = |names: &[&str], default: Option<&str>, limits: Limits| {
        let exports = names.iter().map(|name| ((*name).to_owned(), export())).collect();
        Server::new(exports, default.map(str::to_owned), limits)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let limits = Limits::default;
    assert_eq!(named(&["a", "b"], Some("b"), limits()), Ok(()));
    assert_eq!(named(&["a", "a"], None, limits()), Err("the export name 'a' is there twice".into()));
    let missing = named(&["a"], Some("b"), limits());
    assert_eq!(missing, Err("the export name 'b' is to be the default, but is not served".into()));
    assert!(named(&["a\0"], None, limits()).is_err());
    assert!(named(&[&"x".repeat(4097)], None, limits()).is_err());
    let limits = Limits { payload_bytes_max: 0, ..limits() };
    assert!(matches!(Server::new(vec![("a".into(), export())], None, limits), Err(ServerError::Limits(_))));
}

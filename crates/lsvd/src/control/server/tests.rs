//! Clients that mean harm, or have bugs: the daemon answers the others, and takes no more than it allows.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::daemon::Daemon;
use super::{Bounds, REQUEST_BYTES_MAX, serve};

const HELLO: &str = r#"{"jsonrpc":"2.0","id":7,"method":"hello"}"#;
const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon that has opened nothing yet.
struct Stage {
    dir: TempDir,
    _closing: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

impl Stage {
    fn new(bounds: Bounds) -> Self {
        let dir = TempDir::with_prefix("lsvd-control-").unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let (closing, is_closing) = watch::channel(false);
        let daemon = Daemon::new(vec![("db1".to_owned(), "memory://a/db1".to_owned())]);
        let mut serving = JoinSet::new();
        serving.spawn(serve(Arc::clone(&daemon), listener, bounds, is_closing));
        Self { dir, _closing: closing, _serving: serving }
    }

    async fn client(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(self.dir.path().join("s")).await.unwrap())
    }

    /// Whether it still answers somebody new.
    async fn is_well(&self) {
        let answer = say(&mut self.client().await, HELLO).await.unwrap();
        assert_eq!((&answer["id"], &answer["result"]["protocol"]), (&json!(7), &json!(1)), "{answer}");
    }
}

/// Sends a line and gives the answer; `None` if the connection was closed.
async fn say(client: &mut BufReader<UnixStream>, line: &str) -> Option<Value> {
    let _ = client.write_all(format!("{line}\n").as_bytes()).await;
    hear(client).await
}

async fn hear(client: &mut BufReader<UnixStream>) -> Option<Value> {
    let mut line = String::new();
    match timeout(PATIENCE, client.read_line(&mut line)).await.expect("an answer or the end") {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(serde_json::from_str(&line).unwrap()),
    }
}

fn quick() -> Bounds {
    Bounds {
        idle_max: Duration::from_millis(300),
        write_max: Duration::from_millis(300),
        ..Bounds::default()
    }
}

#[tokio::test]
async fn what_is_no_request_is_told_so_and_the_connection_goes_on() {
    let stage = Stage::new(Bounds::default());
    let mut client = stage.client().await;
    for (line, code, id) in [
        ("rubbish", -32700, Value::Null),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,", -32700, Value::Null),
        ("[]", -32600, Value::Null),
        (&format!("[{HELLO}]"), -32600, Value::Null),
        ("{}", -32600, Value::Null),
        ("7", -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","method":"hello"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":null,"method":"hello"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"hello"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"1.0","id":1,"method":"hello"}"#, -32600, json!(1)),
        (r#"{"id":1,"method":"hello"}"#, -32600, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32600, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"hello","params":[1]}"#, -32602, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"hello","params":{"protocol":2}}"#, -32602, json!(1)),
        (r#"{"jsonrpc":"2.0","id":"x","method":"gc"}"#, -32602, json!("x")),
        (r#"{"jsonrpc":"2.0","id":"x","method":"gc","params":{"volume":7}}"#, -32602, json!("x")),
        (
            r#"{"jsonrpc":"2.0","id":"x","method":"gc","params":{"volume":"db1","target":"of"}}"#,
            -32602,
            json!("x"),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"rm -rf"}"#, -32601, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"gc","params":{"volume":"db1"}}"#, -32001, json!(1)),
    ] {
        let answer = say(&mut client, line).await.unwrap();
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &id), "{line}: {answer}");
    }
    assert_eq!(say(&mut client, HELLO).await.unwrap()["result"]["volumes"][0]["state"], "opening");
    // Deep enough to overflow a parser that recurses without a limit.
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    assert_eq!(say(&mut client, &deep).await.unwrap()["error"]["code"], -32700);
}

#[tokio::test]
async fn a_line_without_end_is_cut_off() {
    let stage = Stage::new(Bounds::default());
    let mut client = stage.client().await;
    // More than fits into the socket's buffers: it is not all read.
    let endless = vec![b'a'; 8 << 20];
    let _ = timeout(PATIENCE, client.write_all(&endless)).await.expect("the daemon closes");
    if let Some(answer) = hear(&mut client).await {
        assert_eq!(answer["error"]["code"], -32600, "{answer}");
    }
    assert!(hear(&mut client).await.is_none());
    stage.is_well().await;
    // The longest that is allowed is read.
    let mut client = stage.client().await;
    let padding = " ".repeat(REQUEST_BYTES_MAX - HELLO.len());
    assert!(say(&mut client, &format!("{HELLO}{padding}")).await.unwrap()["result"].is_object());
    assert_eq!(say(&mut client, &format!("{HELLO}{padding} ")).await.unwrap()["error"]["code"], -32600);
    assert!(hear(&mut client).await.is_none());
}

#[tokio::test]
async fn half_a_line_holds_no_place_for_ever() {
    let stage = Stage::new(quick());
    for half in ["", "{\"jsonrpc\"", "\n\n"] {
        let mut client = stage.client().await;
        client.write_all(half.as_bytes()).await.unwrap();
        assert!(hear(&mut client).await.is_none(), "{half}");
    }
    // One that only ever adds a byte.
    let (mut reading, mut writing) = stage.client().await.into_inner().into_split();
    let dripping = async {
        while writing.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut rest = Vec::new();
    tokio::select! {
        () = dripping => {}
        _ = timeout(PATIENCE, reading.read_to_end(&mut rest)) => {}
    }
    assert!(rest.is_empty());
    stage.is_well().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let stage = Stage::new(quick());
    let mut client = stage.client().await;
    let line = format!("{HELLO}\n");
    let flood = async {
        // Answers fill the socket; then nothing more is read, and after a while the connection is closed.
        while client.get_mut().write_all(line.as_bytes()).await.is_ok() {}
    };
    timeout(PATIENCE, flood).await.expect("it is cut off");
    stage.is_well().await;
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let stage = Stage::new(Bounds { connections_max: 3, ..Bounds::default() });
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = stage.client().await;
        say(&mut client, HELLO).await.unwrap();
        clients.push(client);
    }
    let mut refused = stage.client().await;
    let answer = hear(&mut refused).await.unwrap();
    assert_eq!(
        (&answer["error"]["code"], &answer["error"]["data"]["kind"]),
        (&json!(-32002), &json!("busy"))
    );
    assert!(hear(&mut refused).await.is_none());
    for client in &mut clients {
        assert!(say(client, HELLO).await.is_some(), "those that are in are not disturbed");
    }
    clients.pop();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while say(&mut stage.client().await, HELLO).await.is_none_or(|answer| answer["id"] != 7) {
        assert!(tokio::time::Instant::now() < deadline, "a place that is free is given again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn requests_in_a_row_are_all_answered() {
    let stage = Stage::new(Bounds { requests_max: 2, requests_total_max: 2, ..Bounds::default() });
    let mut client = stage.client().await;
    let lines: String =
        (0..200).map(|id| format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"hello\"}}\n")).collect();
    client.write_all(lines.as_bytes()).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(hear(&mut client).await.unwrap()["id"].as_u64().unwrap());
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..200).collect::<Vec<u64>>());
    // Who closes its side is still answered.
    let mut client = stage.client().await;
    client.write_all(format!("{HELLO}\n").as_bytes()).await.unwrap();
    client.get_mut().shutdown().await.unwrap();
    assert_eq!(hear(&mut client).await.unwrap()["id"], 7);
}

/// Bytes that may look like requests.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        Just(HELLO.as_bytes().to_vec()),
        Just(b"\n".to_vec()),
        Just(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\",\"params\":".to_vec()),
        Just(b"\"\\ud800\"}\n".to_vec()),
        Just(vec![b'['; 300]),
        Just(vec![b'x'; 70_000]),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, each line from the daemon is JSON, and somebody else is served.
    #[test]
    fn any_bytes_at_all(sent in bytes()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stage = Stage::new(Bounds::default());
            let (reading, mut writing) = stage.client().await.into_inner().into_split();
            let send = async {
                let _ = writing.write_all(&sent).await;
                let _ = writing.shutdown().await;
            };
            let mut reading = BufReader::new(reading);
            let receive = async {
                let mut line = String::new();
                while matches!(reading.read_line(&mut line).await, Ok(read) if read > 0) {
                    let answer: Value = serde_json::from_str(&line).unwrap();
                    assert_eq!(answer["jsonrpc"], "2.0");
                    line.clear();
                }
            };
            timeout(PATIENCE, futures::future::join(send, receive)).await.expect("it ends");
            stage.is_well().await;
        });
    }
}

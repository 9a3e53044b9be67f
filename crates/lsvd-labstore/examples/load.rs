//! How much the lab store serves: what of a benchmark's figures is the store's own.
//!
//!     cargo run --release -p lsvd-labstore --example load -- [ENDPOINT [CONNECTIONS [SECONDS]]]
//!
//! Without an endpoint it starts one in this process. Each connection has one request in flight. Knows as much HTTP as
//! that takes, so that the client costs little.

use std::io;
use std::time::{Duration, Instant};

use lsvd_labstore::{LabOptions, LabStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Sends one request again and again until time is up; gives how often it was answered.
async fn repeat(address: String, request: Vec<u8>, until: Instant) -> io::Result<u64> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 << 10];
    let mut answered = 0;
    while Instant::now() < until {
        stream.write_all(&request).await?;
        let mut have = 0;
        let (head_bytes, body_bytes) = loop {
            let read = stream.read(&mut buffer[have..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            have += read;
            let text = &buffer[..have];
            if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
                assert!(head.starts_with("http/1.1 20"), "{head}");
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
                break (end + 4, length.and_then(|length| length.parse().ok()).unwrap_or(0));
            }
        };
        let mut left: usize = head_bytes + body_bytes - have;
        while left > 0 {
            let end = left.min(buffer.len());
            let read = stream.read(&mut buffer[..end]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= read;
        }
        answered += 1;
    }
    Ok(answered)
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let given = arguments.next();
    let connections: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(32);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(3);
    let own = match &given {
        None => Some(LabStore::start(LabOptions::default()).await?),
        Some(_) => None,
    };
    let endpoint = given.or_else(|| own.as_ref().map(LabStore::endpoint)).unwrap_or_default();
    let address = endpoint.trim_start_matches("http://").to_owned();
    println!("{endpoint}, {connections} connections, {seconds} s each");
    println!("{:<14} {:>12} {:>10}", "request", "requests/s", "MiB/s");
    for (verb, bytes) in [
        ("PUT", 4_096),
        ("GET", 4_096),
        ("PUT", 1 << 20),
        ("GET", 1 << 20),
        ("PUT", 8 << 20),
        ("GET", 8 << 20),
    ] {
        let began = Instant::now();
        let until = began + Duration::from_secs(seconds);
        let mut clients = JoinSet::new();
        for client in 0..connections {
            let sent = if verb == "PUT" { bytes } else { 0 };
            let mut request = format!(
                "{verb} /lab/load/{bytes}/{client} HTTP/1.1\r\nHost: lab\r\nContent-Length: {sent}\r\n\r\n"
            )
            .into_bytes();
            request.resize(request.len() + sent, b'x');
            clients.spawn(repeat(address.clone(), request, until));
        }
        let mut answered = 0;
        while let Some(result) = clients.join_next().await {
            answered += result.map_err(io::Error::other)??;
        }
        let rate = answered as f64 / began.elapsed().as_secs_f64();
        let mib = rate * bytes as f64 / f64::from(1 << 20);
        println!("{:<14} {rate:>12.0} {mib:>10.0}", format!("{verb} {} KiB", bytes >> 10));
    }
    Ok(())
}

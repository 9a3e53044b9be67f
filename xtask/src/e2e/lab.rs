//! The lab store's controls: faults, line and counters of the one that a run has started; and one for who needs no other store.
//!
//! Knows the lab store's requests below `/_lab/` (see crates/lsvd-labstore) and as much HTTP as they take. Faults strike
//! no request of this room.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A control's answer waits for nothing; this is for a loaded machine.
const LIMIT: Duration = Duration::from_secs(10);

/// The controls of a lab store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lab {
    address: SocketAddr,
}

impl Lab {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let ask = || -> Result<String> {
            let mut stream = TcpStream::connect_timeout(&self.address, LIMIT)?;
            stream.set_read_timeout(Some(LIMIT))?;
            write!(
                stream,
                "{method} /_lab/{path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            let mut said = String::new();
            stream.read_to_string(&mut said)?;
            let (head, body) = said.split_once("\r\n\r\n").context("the answer has no end of its head")?;
            ensure!(head.starts_with("HTTP/1.1 20"), "{}: {body}", head.lines().next().unwrap_or_default());
            Ok(body.to_owned())
        };
        ask().with_context(|| format!("{method} /_lab/{path} of the lab store"))
    }

    /// Adds rules by which it misbehaves.
    pub(crate) fn misbehave(&self, rules: &Value) -> Result<()> {
        self.ask("POST", "faults", &rules.to_string()).map(|_| ())
    }

    /// Removes all rules.
    pub(crate) fn behave(&self) -> Result<()> {
        self.ask("DELETE", "faults", "").map(|_| ())
    }

    /// How often each rule struck, in their order.
    pub(super) fn strikes(&self) -> Result<Vec<u64>> {
        let rules: Value = serde_json::from_str(&self.ask("GET", "faults", "")?)?;
        let rules = rules.as_array().context("rules are an array")?;
        rules.iter().map(|rule| rule["struck"].as_u64().context("a rule says how often it struck")).collect()
    }

    /// Sets latency and bandwidth.
    pub(crate) fn set_line(&self, line: &Value) -> Result<()> {
        self.ask("POST", "line", &line.to_string()).map(|_| ())
    }

    /// How many requests of one verb ended so.
    pub(super) fn outcomes(&self, verb: &str, outcome: &str) -> Result<u64> {
        let stats: Value = serde_json::from_str(&self.ask("GET", "stats", "")?)?;
        Ok(stats["verbs"][verb]["outcomes"][outcome].as_u64().unwrap_or(0))
    }

    /// All that it counted since its start.
    pub(crate) fn counters(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask("GET", "stats", "")?)?)
    }

    /// How many requests it has at this moment.
    pub(crate) fn in_flight(&self) -> Result<u64> {
        let stats: Value = serde_json::from_str(&self.ask("GET", "stats", "")?)?;
        stats["in_flight"].as_u64().context("the counters say how many requests are in flight")
    }

    /// Near, well-behaved and empty, as it began.
    pub(super) fn reset(&self) -> Result<()> {
        self.behave()?;
        self.set_line(&serde_json::json!({}))?;
        self.empty()?;
        self.ask("DELETE", "stats", "").map(|_| ())
    }

    /// Forgets all objects.
    pub(super) fn empty(&self) -> Result<()> {
        self.ask("DELETE", "objects", "").map(|_| ())
    }
}

/// A lab store that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct LabServer {
    child: Child,
    address: SocketAddr,
}

impl LabServer {
    /// Starts `program`, with the bucket "lab".
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["--bucket", "lab"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the lab store")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout was piped")?).read_line(&mut line)?;
        let address = line.trim().trim_start_matches("http://").parse();
        let address = address.with_context(|| format!("the lab store said '{}'", line.trim()))?;
        Ok(Self { child, address })
    }

    /// Where it is to be found.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn lab(&self) -> Lab {
        Lab::new(self.address)
    }
}

impl Drop for LabServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

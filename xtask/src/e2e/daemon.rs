//! A daemon that serves volumes, as a case sees it: a process, its sockets, its log.
//!
//! Invariant: a daemon ends with the value that stands for it; a case that fails leaves none behind.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::shell;

/// From start to the line that says that clients may come: opening, probing and recovering on a loaded machine.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// From SIGTERM to the end: what is buffered is uploaded first.
const CLOSE_LIMIT: Duration = Duration::from_secs(90);

static STARTED: AtomicU32 = AtomicU32::new(0);

/// How a daemon is started.
#[derive(Debug)]
pub(crate) struct Serve<'a> {
    /// The program with its environment.
    pub(crate) command: &'a Command,
    /// Where its socket and its log go.
    pub(crate) dir: &'a Path,
    pub(crate) urls: &'a [&'a str],
    /// More flags; a `--listen` among them replaces the socket.
    pub(crate) flags: &'a [&'a str],
}

/// A daemon that serves.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    lines: Receiver<String>,
    uris: Vec<String>,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts a daemon and waits until clients may come.
    pub(crate) fn start(serve: &Serve) -> Result<Self> {
        let mut daemon = Self::spawn(serve)?;
        let expected = serve.urls.len();
        let end = Instant::now() + READY_LIMIT;
        while daemon.uris.len() < expected {
            match daemon.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    // The URI is what a person pastes: whatever stands beside it is not our business.
                    let uri = line.split_whitespace().find(|word| word.starts_with("nbd"));
                    daemon.uris.extend(uri.map(str::to_owned));
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the daemon was not ready in {} s", READY_LIMIT.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let code = daemon.exit_code(CLOSE_LIMIT)?;
                    bail!(
                        "the daemon ended with {code} instead of serving: {}",
                        shell::tail(&daemon.log(), 6)
                    );
                }
            }
        }
        Ok(daemon)
    }

    /// Starts a daemon and waits for nothing.
    pub(crate) fn spawn(serve: &Serve) -> Result<Self> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let socket = serve.dir.join(format!("{number}.sock"));
        let log = serve.dir.join(format!("{number}.log"));
        let mut command = Command::new(serve.command.get_program());
        command.env_clear();
        command.envs(serve.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(dir) = serve.command.get_current_dir() {
            command.current_dir(dir);
        }
        command.arg("serve").args(serve.urls).args(serve.flags);
        if !serve.flags.contains(&"--listen") {
            command.arg("--listen").arg(format!("unix:{}", socket.display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child =
            command.spawn().with_context(|| format!("cannot start `{}`", shell::display(&command)))?;
        let stdout = BufReader::new(child.stdout.take().context("stdout was piped")?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, uris: Vec::new(), socket, log })
    }

    /// The URI of the first export, as the daemon printed it.
    pub(crate) fn uri(&self) -> &str {
        self.uris.first().map_or("", String::as_str)
    }

    /// All URIs that it printed so far.
    pub(crate) fn uris(&self) -> &[String] {
        &self.uris
    }

    /// The unix socket that it was told to listen on.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last `bytes_max` bytes of what it logged.
    pub(crate) fn log_end(&self, bytes_max: u64) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let log_bytes = file.metadata()?.len();
            file.seek(SeekFrom::Start(log_bytes.saturating_sub(bytes_max)))?;
            let mut bytes = Vec::new();
            file.take(bytes_max).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    /// The last event `stats` that it logged, by its fields; it needs `--stats-interval` and `--log-format json`.
    pub(crate) fn stats(&self) -> Option<Value> {
        last_stats(&self.log_end(16 << 10))
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The most memory that it had at once, in bytes.
    pub(crate) fn memory_bytes_max(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    /// The memory that it has now, in bytes.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// Waits for its end and says its exit code.
    pub(crate) fn exit_code(&mut self, limit: Duration) -> Result<i32> {
        let status = shell::wait(&mut self.child, limit)?;
        let status = status.with_context(|| format!("the daemon still runs after {} s", limit.as_secs()))?;
        Ok(shell::exit_code(status))
    }

    /// Asks it to close and waits for nothing.
    pub(crate) fn ask_to_close(&self) {
        shell::signal(&self.child, Signal::TERM);
    }

    /// Asks it to close and waits; a close that is not clean is an error.
    pub(crate) fn close(mut self) -> Result<()> {
        self.ask_to_close();
        let code = self.exit_code(CLOSE_LIMIT)?;
        ensure!(code == 0, "after SIGTERM the daemon ended with {code}: {}", shell::tail(&self.log(), 6));
        ensure!(!self.socket.exists(), "the closed daemon left its socket behind");
        Ok(())
    }

    /// Kills it, as the loss of its host would.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// The same, for who goes on with what was attached to it.
    pub(crate) fn kill_now(&mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last whole `stats` event.
fn last_stats(log: &str) -> Option<Value> {
    let line = log.lines().rev().find(|line| line.contains(r#""message":"stats""#) && line.ends_with('}'))?;
    serde_json::from_str(line).ok()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_stats_line_counts() {
        let log = r#"{"message":"stats","buffered_bytes":1}
{"message":"stats","buffered_bytes":7}
{"message":"other"}
{"message":"stats","buffered_by"#;
        assert_eq!(last_stats(log).map(|stats| stats["buffered_bytes"].clone()), Some(Value::from(7)));
        assert_eq!(last_stats("nothing"), None);
    }
}

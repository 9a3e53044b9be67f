//! Where the demo happens: a directory of its own, and child processes of this same program.
//!
//! Knows how daemons are started, killed and stopped. Invariants: 1. at most one daemon runs; 2. after
//! [`Stage::clear`] nothing runs, nothing is left (unless the user keeps it), and nothing can be started any more.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Longer than any step of the demo takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The demo's directory and daemon.
#[derive(Debug)]
pub(crate) struct Stage {
    dir: PathBuf,
    keep: bool,
    daemon: Mutex<Slot>,
}

#[derive(Debug)]
enum Slot {
    Empty,
    Running(Child),
    Cleared,
}

impl Stage {
    /// Makes a new directory in `above`, or in the system's temporary directory.
    pub(crate) fn new(above: Option<PathBuf>, keep: bool) -> anyhow::Result<Self> {
        let above = above.unwrap_or_else(std::env::temp_dir);
        let dir = std::path::absolute(above)?.join(format!("lsvd-demo-{}", std::process::id()));
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.with_context(|| format!("cannot make '{}'", dir.display()))?;
        Ok(Self { dir, keep, daemon: Mutex::new(Slot::Empty) })
    }

    /// The demo's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The daemon's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("demo.sock")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// What the daemon logged since it was started, one JSON object a line.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Runs this program with `arguments` to its end and returns what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = program()?.args(arguments).current_dir(&self.dir).output()?;
        ensure!(
            output.status.success(),
            "`lsvd {}` failed ({}): {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a daemon with `arguments` and waits until it serves; returns the URI that it printed and how long it took.
    pub(crate) fn start(&self, arguments: &[&str]) -> anyhow::Result<(String, Duration)> {
        let log = File::create(self.log_path())?;
        let started = Instant::now();
        let mut slot = self.slot();
        ensure!(matches!(*slot, Slot::Empty), "the demo was interrupted");
        let mut child = program()?
            .args(["--log-format", "json", "--log", "info"])
            .args(arguments)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let stdout = child.stdout.take().context("the daemon has no stdout")?;
        *slot = Slot::Running(child);
        drop(slot);

        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // A line that can not be read is an empty one, and is told as such.
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        match lines.recv_timeout(PATIENCE) {
            Ok(line) if line.starts_with("nbd") => Ok((line.trim_end().to_owned(), started.elapsed())),
            Ok(_) => bail!("the daemon did not start:\n{}", self.log()),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                bail!("the daemon did not serve within {} s:\n{}", PATIENCE.as_secs(), self.log())
            }
        }
    }

    /// Kills the daemon with SIGKILL, as a power cut would.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        let Some(mut child) = self.take() else { bail!("no daemon runs") };
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops the daemon with SIGTERM and waits for its clean end.
    pub(crate) fn stop(&self) -> anyhow::Result<ExitStatus> {
        let Some(mut child) = self.take() else { bail!("no daemon runs") };
        let process =
            i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the daemon has no number")?;
        kill_process(process, Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                child.kill()?;
                bail!("the daemon did not stop within {} s:\n{}", PATIENCE.as_secs(), self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the demo: kills what runs, removes the directory unless it is kept. Safe to call twice.
    pub(crate) fn clear(&self) {
        let daemon = std::mem::replace(&mut *self.slot(), Slot::Cleared);
        if let Slot::Running(mut child) = daemon {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.dir)
            && self.dir.exists()
        {
            tracing::warn!(dir = %self.dir.display(), %error, "the demo's directory could not be removed");
        }
    }

    fn take(&self) -> Option<Child> {
        let mut slot = self.slot();
        match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Running(child) => Some(child),
            other => {
                *slot = other;
                None
            }
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}

/// This program, with an environment that does not change what the demo shows.
fn program() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
    command.env_remove("LSVD_LOG").env_remove("NOTIFY_SOCKET");
    Ok(command)
}

/// Files and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// What lies in each folder of the volume's directory, by name. What the killed daemon was still writing is counted
/// apart: it is no object yet, and never will be.
pub(crate) fn folders(volume: &Path) -> anyhow::Result<BTreeMap<String, Tally>> {
    let mut folders = BTreeMap::new();
    for entry in fs::read_dir(volume).with_context(|| format!("cannot read '{}'", volume.display()))? {
        let entry = entry?;
        let name = format!("{}/", entry.file_name().to_string_lossy());
        count(&entry.path(), &name, &mut folders)?;
    }
    Ok(folders)
}

fn count(path: &Path, folder: &str, folders: &mut BTreeMap<String, Tally>) -> anyhow::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            count(&entry?.path(), folder, folders)?;
        }
        return Ok(());
    }
    // The directory store writes an object under its name with '#' and a number, and renames it when it is whole.
    let unfinished = path.file_name().is_some_and(|name| name.to_string_lossy().contains('#'));
    let folder = if unfinished { "cut off by the kill" } else { folder };
    let tally = folders.entry(folder.to_owned()).or_default();
    tally.objects += 1;
    tally.bytes += metadata.len();
    Ok(())
}

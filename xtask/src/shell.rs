//! Running other programs: always with a limit of time, always with an error that names the command.
//!
//! Knows no step, no test and no store. Invariants: 1. no call outlives its limit by more than a few seconds; 2. what a
//! command starts dies with it at the limit, because each has its own process group; 3. environments are never
//! printed, arguments are.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How long the pipes of a command that has ended may still be held open by what it left behind.
const PIPES_AFTER_EXIT: Duration = Duration::from_secs(2);

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// The exit code, or 128 and the signal as shells have it.
    pub(crate) fn code(&self) -> i32 {
        exit_code(self.status)
    }
}

/// The exit code, or 128 and the signal as shells have it.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// `cargo`, the one that runs us, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Program and arguments as a person would type them.
pub(crate) fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

/// The word as a shell reads it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs `command` on our own terminal until it ends.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let words = display(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start `{words}`"))?;
    if !status.success() {
        bail!("`{words}` ended with {}", exit_code(status));
    }
    Ok(())
}

/// Runs `command` for at most `limit` and takes what it prints, whatever its exit code.
pub(crate) fn output(command: &mut Command, limit: Duration) -> Result<Output> {
    let words = display(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start `{words}`; `cargo xtask setup` installs what is missing"))?;
    let stdout = drain(child.stdout.take().context("stdout was piped")?);
    let stderr = drain(child.stderr.take().context("stderr was piped")?);
    let status = match wait(&mut child, limit)? {
        Some(status) => status,
        None => {
            kill_group(&child);
            let _ = child.wait();
            let said = stderr.recv_timeout(PIPES_AFTER_EXIT).unwrap_or_default();
            bail!("`{words}` was still running after {} s: {}", limit.as_secs(), tail(&said, 5));
        }
    };
    let take = |pipe: mpsc::Receiver<String>| pipe.recv_timeout(PIPES_AFTER_EXIT).unwrap_or_default();
    Ok(Output { status, stdout: take(stdout), stderr: take(stderr) })
}

/// Runs `command` for at most `limit`; another exit code than 0 is an error with the end of what it said.
pub(crate) fn output_ok(command: &mut Command, limit: Duration) -> Result<Output> {
    let output = output(command, limit)?;
    if !output.status.success() {
        let said = format!("{}{}", output.stdout, output.stderr);
        bail!("`{}` ended with {}: {}", display(command), output.code(), tail(&said, 12));
    }
    Ok(output)
}

/// Waits for `child` for at most `limit`; `None` if it still runs.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `ready` says so, for at most `limit`.
pub(crate) fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + limit;
    while !ready() {
        if Instant::now() >= end {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sends `signal` to `child`; one that has ended already is no error.
pub(crate) fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = pid(child) {
        let _ = kill_process(pid, signal);
    }
}

/// Kills `child` and the process group that it leads.
pub(crate) fn kill_group(child: &Child) {
    if let Some(pid) = pid(child) {
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// The last `lines` lines of `text`.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Whether a program of this name is on `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn drain(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_past_its_limit_is_killed_with_its_children() {
        let started = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "echo waiting >&2; sleep 60 & sleep 60"]);
        let error = output(&mut command, Duration::from_millis(300)).unwrap_err();
        assert!(error.to_string().contains("still running"), "{error}");
        assert!(error.to_string().contains("waiting"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such luck >&2; exit 7"]);
        let error = output_ok(&mut command, Duration::from_secs(10)).unwrap_err().to_string();
        assert!(error.contains("ended with 7") && error.contains("no such luck"), "{error}");
    }

    #[test]
    fn words_are_quoted_when_a_shell_would_need_it() {
        let mut command = Command::new("a");
        command.args(["b c", "d", ""]);
        assert_eq!(display(&command), "a 'b c' d ''");
    }
}

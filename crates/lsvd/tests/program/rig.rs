//! What the tests stand on: a directory of their own, the program, and daemons that never outlive their test.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::nbd_client::{Client, Request};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const ESHUTDOWN: i32 = 108;

/// The program, with nothing of the tester's environment that would change what it does.
pub(crate) fn program() -> Command {
    as_program(env!("CARGO_BIN_EXE_lsvd"))
}

fn as_program(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["LSVD_", "AWS_", "AZURE_", "GOOGLE_", "NOTIFY_", "LISTEN_"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command.env("HOME", "/nonexistent").env("XDG_RUNTIME_DIR", runtime_dir()).stdin(Stdio::null());
    command
}

/// Where all daemons of the tests have their control sockets, one directory for all, as on a host. Its path is short.
pub(crate) fn runtime_dir() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let dir = std::env::temp_dir().join(format!("lsvd-tests-of-{user}"));
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The run ended with `code`, said all `words` on stderr, and did not panic.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "no '{word}' in {self:#?}");
        }
        self
    }
}

/// Runs the program to its end, which must come.
pub(crate) fn lsvd(arguments: &[&str]) -> Ended {
    run(program().args(arguments))
}

pub(crate) fn run(command: &mut Command) -> Ended {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = loop {
        match command.spawn() {
            // A copy that was just written: another thread's child, which has not begun its own program yet, has it open.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            spawned => break spawned.unwrap(),
        }
    };
    let deadline = Instant::now() + PATIENCE;
    // The outputs of what runs here fit into a pipe, but for the licences: read while it runs.
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} did not end: {}", String::from_utf8_lossy(&stderr.recv().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ended::of(&Output { status, stdout: stdout.recv().unwrap(), stderr: stderr.recv().unwrap() })
}

/// A run of the program that says something before it ends; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: String,
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = program();
        let mut child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines() {
                // Nobody may listen any more.
                let _ = sender.send(line.unwrap());
            }
        });
        Self { child, lines, said: String::new() }
    }

    /// Waits until it says this on stderr.
    #[track_caller]
    pub(crate) fn until_it_says(&mut self, words: &str) {
        while !self.said.contains(words) {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.said.extend([line.as_str(), "\n"]),
                Err(error) => panic!("{error}: no '{words}' in {self:#?}"),
            }
        }
    }

    /// Waits for its end, which must come.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.said.extend([line.as_str(), "\n"]);
        }
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end: {self:#?}");
            std::thread::sleep(Duration::from_millis(5));
        };
        let stderr = std::mem::take(&mut self.said);
        Ended { code: status.code().unwrap_or(-1), stdout: String::new(), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        let _ = sender.send(bytes);
    });
    receiver
}

/// A directory with a bucket in it.
#[derive(Debug)]
pub(crate) struct Rig {
    dir: TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let dir = TempDir::with_prefix("lsvd-test-").unwrap();
        fs::create_dir(dir.path().join("bucket")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// URL of the volume `name`.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("file://{}/bucket/{name}", self.dir.path().display())
    }

    /// Directory of the volume `name`.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.path("bucket").join(name)
    }

    /// The files of a folder of the volume `name`, sorted.
    pub(crate) fn objects(&self, name: &str, folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.volume(name).join(folder)).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    /// Creates the volume `name`.
    #[track_caller]
    pub(crate) fn create(&self, name: &str, size: &str) {
        lsvd(&["create", &self.url(name), "--size", size]).expect(0, &[]);
    }

    /// Serves the volume `name` on the socket `socket`.
    #[track_caller]
    pub(crate) fn serve(&self, name: &str, socket: &str, more: &[&str]) -> Daemon {
        self.serve_urls(&[&self.url(name)], socket, more)
    }

    #[track_caller]
    pub(crate) fn serve_urls(&self, urls: &[&str], socket: &str, more: &[&str]) -> Daemon {
        let socket = self.path(socket);
        let listen = format!("unix:{}", socket.display());
        let mut arguments = vec!["serve"];
        arguments.extend(urls);
        arguments.extend(["--listen", &listen]);
        arguments.extend(more);
        Daemon::start(&arguments, socket)
    }
}

/// A running `lsvd serve`; killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    /// The lines that it printed when it was ready.
    pub(crate) uris: Vec<String>,
    socket: PathBuf,
    stderr: mpsc::Receiver<Vec<u8>>,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Daemon {
    #[track_caller]
    pub(crate) fn start(arguments: &[&str], socket: PathBuf) -> Self {
        Self::start_as(env!("CARGO_BIN_EXE_lsvd"), arguments, socket)
    }

    /// The same by another program, which becomes the daemon.
    #[track_caller]
    pub(crate) fn start_as(program: &str, arguments: &[&str], socket: PathBuf) -> Self {
        let mut command = as_program(program);
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = drain(child.stderr.take().unwrap());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        if line.is_empty() {
            let said = stderr.recv_timeout(PATIENCE).unwrap_or_default();
            panic!("lsvd {arguments:?} did not serve: {}", String::from_utf8_lossy(&said));
        }
        let uris = vec![line.trim_end().to_owned()];
        Self { child, uris, socket, stderr, stdout }
    }

    /// Reads one more line that it printed.
    pub(crate) fn next_uri(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        self.uris.push(line.trim_end().to_owned());
        line.trim_end().to_owned()
    }

    #[track_caller]
    pub(crate) fn client(&self, export: &str) -> Client {
        Client::connect(&self.socket, export).unwrap()
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The control socket.
    pub(crate) fn control(&self) -> PathBuf {
        runtime_dir().join(format!("lsvd/control/daemon-{}.sock", self.pid()))
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// SIGKILL: what is left is the bucket.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the end.
    pub(crate) fn stop(self) -> Ended {
        self.signal(rustix::process::Signal::TERM);
        self.end()
    }

    /// Waits for the end, which must come by itself.
    pub(crate) fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the daemon did not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut stdout = Vec::new();
        self.stdout.read_to_end(&mut stdout).unwrap();
        let stderr = self.stderr.recv_timeout(PATIENCE).unwrap();
        Ended::of(&Output { status, stdout, stderr })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A block that says which it is.
pub(crate) fn block(byte: u8) -> Vec<u8> {
    vec![byte; 4096]
}

pub(crate) fn write(offset_bytes: u64, data: Vec<u8>) -> Request {
    Request::Write { offset_bytes, data, fua: false }
}

pub(crate) fn read(offset_bytes: u64, length_bytes: u32) -> Request {
    Request::Read { offset_bytes, length_bytes }
}

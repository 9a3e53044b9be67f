//! Stores that volumes live on: a server of one of the kinds, an S3 endpoint that runs already, a directory.
//!
//! Knows how each is stopped, killed and addressed, and nothing of volumes. Credentials are always explicit and made up
//! for the run; an endpoint that runs already brings its own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::lab::Lab;
use super::servers::{BUCKET, Protocol, StoreKind, address};
use crate::shell;

/// From start to the first answer; after a SIGKILL SeaweedFS takes some seconds longer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A store that runs, and ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Store {
    place: Place,
    dir: PathBuf,
    process: Option<Child>,
    access_key: String,
    secret_key: String,
}

#[derive(Debug)]
enum Place {
    Server { kind: StoreKind },
    Endpoint { url: String, bucket: String },
    Directory,
}

impl Store {
    /// Starts a store with its state in `dir`.
    pub(super) fn start(kind: StoreKind, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let place = match kind {
            StoreKind::Directory => Place::Directory,
            kind => Place::Server { kind },
        };
        let (access_key, secret_key) = kind.credentials();
        let mut store = Self {
            place,
            dir: dir.to_path_buf(),
            process: None,
            access_key: access_key.into(),
            secret_key: secret_key.into(),
        };
        store.restart()?;
        if !kind.has_bucket() {
            let url = store.url("");
            shell::output_ok(store.objects().args(["make", &url]), START_LIMIT)?;
        }
        Ok(store)
    }

    /// A server that runs already and stays.
    pub(super) fn running(url: &str, bucket: &str) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("--endpoint needs {name}"));
        Ok(Self {
            place: Place::Endpoint { url: url.into(), bucket: bucket.into() },
            dir: PathBuf::new(),
            process: None,
            access_key: variable("AWS_ACCESS_KEY_ID")?,
            secret_key: variable("AWS_SECRET_ACCESS_KEY")?,
        })
    }

    /// What to call it.
    pub(super) fn name(&self) -> String {
        match &self.place {
            Place::Server { kind } => kind.name(),
            Place::Endpoint { url, .. } => url.clone(),
            Place::Directory => StoreKind::Directory.name(),
        }
    }

    /// The kind of a server that is ours.
    pub(super) fn server(&self) -> Option<StoreKind> {
        match self.place {
            Place::Server { kind } => Some(kind),
            _ => None,
        }
    }

    pub(super) fn protocol(&self) -> Protocol {
        match &self.place {
            Place::Server { kind } => kind.protocol(),
            Place::Endpoint { .. } => Protocol::S3,
            Place::Directory => Protocol::Directory,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        self.protocol() == Protocol::Directory
    }

    /// Whether it is a lab store of ours.
    pub(super) fn is_lab(&self) -> bool {
        self.server().is_some_and(StoreKind::is_lab)
    }

    /// The lab store's controls.
    pub(super) fn lab(&self) -> Result<Lab> {
        ensure!(self.is_lab(), "{} is no lab store", self.name());
        Ok(Lab::new(address()))
    }

    /// The URL of what has this name in it.
    pub(super) fn url(&self, name: &str) -> String {
        let scheme = match self.protocol() {
            Protocol::S3 => "s3",
            Protocol::Azure => "az",
            Protocol::Google => "gs",
            Protocol::Directory => "file",
        };
        match &self.place {
            Place::Server { .. } => format!("{scheme}://{BUCKET}/{name}"),
            Place::Endpoint { bucket, .. } => {
                format!("{scheme}://{bucket}/lsvd-e2e-{}/{name}", std::process::id())
            }
            Place::Directory => format!("{scheme}://{}", self.path(name).display()),
        }
    }

    /// Where a directory store keeps what has this name.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join("objects").join(name)
    }

    /// What a daemon needs in its environment.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let (endpoint, region) = match &self.place {
            Place::Directory => return Vec::new(),
            Place::Server { kind } => (format!("http://{}", address()), kind.region()),
            Place::Endpoint { url, .. } => (url.clone(), StoreKind::Seaweedfs.region()),
        };
        let variables = match self.protocol() {
            Protocol::Azure => vec![
                ("AZURE_STORAGE_ACCOUNT_NAME", self.access_key.clone()),
                ("AZURE_STORAGE_ACCOUNT_KEY", self.secret_key.clone()),
                ("AZURE_STORAGE_ENDPOINT", format!("{endpoint}/{}", self.access_key)),
                ("AZURE_ALLOW_HTTP", "true".into()),
            ],
            // An account that asks nobody for a token: the one way not to reach out.
            Protocol::Google => vec![
                (
                    "GOOGLE_SERVICE_ACCOUNT_KEY",
                    serde_json::json!({
                        "disable_oauth": true,
                        "client_email": self.access_key,
                        "private_key": self.secret_key,
                        "private_key_id": self.access_key,
                    })
                    .to_string(),
                ),
                ("GOOGLE_BASE_URL", endpoint),
                ("GOOGLE_ALLOW_HTTP", "true".into()),
            ],
            _ => vec![
                ("AWS_ACCESS_KEY_ID", self.access_key.clone()),
                ("AWS_SECRET_ACCESS_KEY", self.secret_key.clone()),
                ("AWS_ENDPOINT_URL", endpoint),
                ("AWS_ALLOW_HTTP", "true".into()),
                ("AWS_REGION", region),
            ],
        };
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// What must never be printed.
    pub(super) fn secret(&self) -> Option<&str> {
        (!self.is_directory()).then_some(self.secret_key.as_str())
    }

    /// A client of the store that is not ours: xtask/scripts/objects.py.
    pub(super) fn objects(&self) -> Command {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(shell::root().join("xtask/scripts/objects.py")).envs(self.environment());
        command
    }

    /// Stops the server in its tracks: connections stay open, answers stay out.
    pub(super) fn pause(&self) {
        if let Some(process) = &self.process {
            shell::signal(process, Signal::STOP);
        }
    }

    /// Lets a stopped server go on.
    pub(super) fn resume(&self) {
        if let Some(process) = &self.process {
            shell::signal(process, Signal::CONT);
        }
    }

    /// Kills the server, as a power cut would; what it acknowledged is in its files.
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts the server again on the same files, and waits until it answers.
    pub(super) fn restart(&mut self) -> Result<()> {
        let Some(kind) = self.server() else {
            std::fs::create_dir_all(self.dir.join("objects"))?;
            return Ok(());
        };
        let mut command = kind.command(&self.dir)?;
        ensure!(!answers(), "{} is in use by something else", address());
        let log = File::options().create(true).append(true).open(self.dir.join("server.out"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process =
            command.spawn().with_context(|| format!("cannot start `{}`", shell::display(&command)))?;
        self.process = Some(process);
        let result = shell::wait_until("the store answers", START_LIMIT, answers);
        result.with_context(|| {
            let said = std::fs::read(self.dir.join("server.out")).unwrap_or_default();
            shell::tail(&String::from_utf8_lossy(&said), 10)
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.resume();
        self.kill();
    }
}

/// Whether an HTTP server answers on the stores' port: anything, a refusal too.
fn answers() -> bool {
    let second = Duration::from_secs(1);
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address(), second)?;
        stream.set_read_timeout(Some(second))?;
        write!(stream, "GET /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.starts_with(b"HTTP/1.1 ") && head[9] != b'5')
    };
    ask().unwrap_or(false)
}

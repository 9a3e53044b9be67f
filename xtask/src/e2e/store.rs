//! Stores that volumes live on: SeaweedFS, MinIO, the lab store, any S3 endpoint, a directory.
//!
//! Knows how each is started, stopped, killed and addressed, and nothing of volumes. Credentials are always explicit
//! and made up for the run; an endpoint that runs already brings its own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use rustix::process::Signal;

use super::lab::Lab;
use super::target;
use crate::shell;

const ACCESS_KEY: &str = "lsvde2e";
const SECRET_KEY: &str = "e2e-secret-5f1c0a7d3b";
/// A user of the server who may read and write but not list.
pub(super) const NO_LIST_KEY: &str = "lsvdnolist";
pub(super) const NO_LIST_SECRET: &str = "e2e-secret-nolist-77";
const BUCKET: &str = "e2e";
const S3_PORT: u16 = 18333;
/// The server's own other ports, and each again 10,000 higher.
const WEED_PORTS: [u16; 3] = [19333, 19340, 18888];
/// From start to the first answer; after a SIGKILL SeaweedFS takes some seconds longer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    /// SeaweedFS, from target/tools (see setup) or from PATH
    Seaweedfs,
    /// MinIO: a `minio` binary on PATH
    Minio,
    /// The lab store of this repository: in memory, and it misbehaves on demand
    Lab,
    /// A directory
    Directory,
}

impl StoreKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Seaweedfs => "seaweedfs",
            Self::Minio => "minio",
            Self::Lab => "lab",
            Self::Directory => "directory",
        }
    }
}

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
        let mut store = Self {
            place,
            dir: dir.to_path_buf(),
            process: None,
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
        };
        store.restart()?;
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
            Place::Server { kind } => kind.name().into(),
            Place::Endpoint { url, .. } => url.clone(),
            Place::Directory => StoreKind::Directory.name().into(),
        }
    }

    pub(super) fn is_s3(&self) -> bool {
        !matches!(self.place, Place::Directory)
    }

    /// Whether it is ours to stop and to let go on.
    pub(super) fn has_process(&self) -> bool {
        matches!(self.place, Place::Server { .. })
    }

    /// Whether it is ours, and looks at signatures and rights, and keeps its objects when it is killed.
    pub(super) fn is_whole_server(&self) -> bool {
        matches!(self.place, Place::Server { kind } if kind != StoreKind::Lab)
    }

    /// Whether it is a lab store of ours.
    pub(super) fn is_lab(&self) -> bool {
        matches!(self.place, Place::Server { kind: StoreKind::Lab })
    }

    /// The lab store's controls.
    pub(super) fn lab(&self) -> Result<Lab> {
        ensure!(self.is_lab(), "{} is no lab store", self.name());
        Ok(Lab::new(address()))
    }

    /// The URL of what has this name in it.
    pub(super) fn url(&self, name: &str) -> String {
        match &self.place {
            Place::Server { .. } => format!("s3://{BUCKET}/{name}"),
            Place::Endpoint { bucket, .. } => format!("s3://{bucket}/lsvd-e2e-{}/{name}", std::process::id()),
            Place::Directory => format!("file://{}", self.path(name).display()),
        }
    }

    /// Where a directory store keeps what has this name.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join("objects").join(name)
    }

    /// What a daemon needs in its environment.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let endpoint = match &self.place {
            Place::Directory => return Vec::new(),
            Place::Server { .. } => format!("http://127.0.0.1:{S3_PORT}"),
            Place::Endpoint { url, .. } => url.clone(),
        };
        let region = std::env::var("AWS_REGION").unwrap_or_else(|_| "us-east-1".into());
        [
            ("AWS_ACCESS_KEY_ID", self.access_key.as_str()),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_key),
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", &region),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// What must never be printed.
    pub(super) fn secret(&self) -> Option<&str> {
        self.is_s3().then_some(self.secret_key.as_str())
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
        let Place::Server { kind } = self.place else {
            std::fs::create_dir_all(self.dir.join("objects"))?;
            return Ok(());
        };
        let mut command = match kind {
            StoreKind::Minio => self.minio()?,
            StoreKind::Lab => lab(),
            _ => self.seaweedfs()?,
        };
        ensure!(!answers(), "port {S3_PORT} of 127.0.0.1 is in use by something else");
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

    fn seaweedfs(&self) -> Result<Command> {
        let own = target().join("tools/seaweedfs/bin/weed");
        let program = if own.is_file() { own } else { PathBuf::from("weed") };
        let user = |name: &str, key: &str, secret: &str, actions: &[&str]| {
            serde_json::json!({
                "name": name,
                "credentials": [{ "accessKey": key, "secretKey": secret }],
                "actions": actions,
            })
        };
        let users = serde_json::json!({ "identities": [
            user("e2e", ACCESS_KEY, SECRET_KEY, &["Admin", "Read", "Write", "List", "Tagging"]),
            user("nolist", NO_LIST_KEY, NO_LIST_SECRET, &["Read", "Write"]),
        ]});
        std::fs::write(self.dir.join("s3.json"), users.to_string())?;
        std::fs::create_dir_all(self.dir.join("data"))?;
        let [master, volume, filer] = WEED_PORTS;
        let mut command = Command::new(program);
        command.current_dir(&self.dir).args(["-logtostderr=true", "mini"]);
        command.args(["-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.config=s3.json"]);
        command.args(["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.args(["-master.telemetry=false", "-filer.maxMB=1"]);
        command.arg(format!("-bucket={BUCKET}")).arg(format!("-s3.port={S3_PORT}"));
        command.arg(format!("-master.port={master}")).arg(format!("-volume.port={volume}"));
        command.arg(format!("-filer.port={filer}"));
        Ok(command)
    }

    fn minio(&self) -> Result<Command> {
        if !shell::on_path("minio") {
            bail!("--store minio needs a `minio` binary on PATH");
        }
        // A directory below its data is a bucket.
        std::fs::create_dir_all(self.dir.join("data").join(BUCKET))?;
        let mut command = Command::new("minio");
        command.current_dir(&self.dir).args(["server", "--quiet", "--address"]);
        command.arg(format!("127.0.0.1:{S3_PORT}")).arg("data");
        command.env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY);
        command.env("MINIO_UPDATE", "off").env("MINIO_CALLHOME_ENABLE", "off");
        Ok(command)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.resume();
        self.kill();
    }
}

/// The lab store that the outer half has built.
fn lab() -> Command {
    let mut command = Command::new(target().join("debug/lsvd-labstore"));
    command.args(["--listen", &address().to_string(), "--bucket", BUCKET]);
    command
}

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], S3_PORT))
}

/// Whether an HTTP server answers on the S3 port: anything, a refusal too.
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

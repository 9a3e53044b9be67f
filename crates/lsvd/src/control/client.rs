//! The other side of the control socket: finds the daemon that serves a volume, and asks it.
//!
//! Knows the directory and the protocol. Invariants: 1. a daemon is used only if it says that it serves the very volume: the same
//! identity, the same writer, the same URL; 2. what it says of an error is what a command that did it itself would have said;
//! 3. nothing that it sends is believed to be harmless for a terminal, and no answer takes more memory than is allowed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use lsvd_volume::Identity;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixStream, unix};
use tokio::time::timeout;

use super::line::{LineError, Lines};
use super::place;
use super::protocol::{
    ANSWER_BYTES_MAX, Code, Fault, Hello, HelloAnswer, HelloVolume, Message, Method, PROGRESS, PROTOCOL,
    State, request_line,
};
use crate::cli::ControlPlace;
use crate::exit::Exit;

/// How long a daemon may take to greet: it answers from memory.
const GREETING_MAX: Duration = Duration::from_secs(2);
/// How long it may be silent while it works: it says every few seconds that it does.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The longest text of a daemon that is shown.
const WORDS_MAX: usize = 4096;

/// An error as a daemon said it.
#[derive(Debug)]
pub(crate) struct DaemonError {
    message: String,
    /// The exit code of a command that had done it itself.
    pub(crate) exit: Exit,
    /// What the user can do next.
    pub(crate) help: Option<String>,
    /// The daemon does not serve the volume, or not any more.
    pub(crate) not_served: bool,
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DaemonError {}

impl From<Fault> for DaemonError {
    fn from(fault: Fault) -> Self {
        Self {
            message: harmless(&fault.message),
            exit: Exit::of_code(fault.data.exit_code),
            help: fault.data.help.as_deref().map(harmless),
            not_served: fault.code == Code::NotServed as i32,
        }
    }
}

/// A text that moves no cursor.
fn harmless(text: &str) -> String {
    text.chars().take(WORDS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A connection to a daemon that has greeted.
pub(crate) struct Client {
    socket: PathBuf,
    lines: Lines<unix::OwnedReadHalf>,
    writing: unix::OwnedWriteHalf,
    next_id: u64,
    /// What it greeted with.
    pub(crate) greeting: HelloAnswer,
}

impl Client {
    /// Connects to the daemon at `socket` and has it greet.
    ///
    /// # Errors
    /// If nobody answers there, or speaks another protocol.
    pub(crate) async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let greet = async {
            let stream = UnixStream::connect(socket).await?;
            let (reading, writing) = stream.into_split();
            let greeting = HelloAnswer {
                protocol: 0,
                version: String::new(),
                pid: 0,
                methods: Vec::new(),
                volumes: Vec::new(),
            };
            let lines = Lines::new(reading, ANSWER_BYTES_MAX);
            let mut client = Self { socket: socket.to_owned(), lines, writing, next_id: 0, greeting };
            let answer = client.ask_untyped(Hello::NAME, serde_json::json!({}), &|_| {}).await?;
            let protocol = answer.get("protocol").and_then(Value::as_u64);
            anyhow::ensure!(
                protocol == Some(u64::from(PROTOCOL)),
                "the daemon speaks edition {} of the control protocol, and this lsvd edition {PROTOCOL}: use the lsvd that the \
                 daemon is from",
                protocol.map_or_else(|| "?".to_owned(), |protocol| protocol.to_string())
            );
            client.greeting = serde_json::from_value(answer)?;
            Ok(client)
        };
        let shown = || format!("cannot ask the daemon at '{}'", socket.display());
        match timeout(GREETING_MAX, greet).await {
            Ok(greeted) => greeted.with_context(shown),
            Err(_) => {
                let silent = io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
                Err(anyhow::Error::new(silent).context(shown()))
            }
        }
    }

    /// What the daemon at `socket` greets with.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub(crate) async fn greet(socket: &Path) -> anyhow::Result<HelloAnswer> {
        Ok(Self::connect(socket).await?.greeting)
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for `method` and waits for its answer; `progress` hears how far it is.
    ///
    /// # Errors
    /// [`DaemonError`] if the daemon answered with one; others if it went away.
    pub(crate) async fn ask<M: Method>(
        &mut self,
        method: &M,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> anyhow::Result<M::Answer> {
        let answer = self.ask_untyped(M::NAME, serde_json::to_value(method)?, progress).await?;
        let shown = self.socket.display();
        serde_json::from_value(answer)
            .with_context(|| format!("the daemon at '{shown}' answers something else"))
    }

    async fn ask_untyped(
        &mut self,
        method: &str,
        params: Value,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> anyhow::Result<Value> {
        self.next_id += 1;
        let id = self.next_id;
        let gone = || format!("the daemon at '{}' went away before it had answered", self.socket.display());
        self.writing.write_all(&request_line(id, method, &params)).await.with_context(gone)?;
        loop {
            let line = match timeout(SILENCE_MAX, self.lines.next()).await {
                Ok(Ok(line)) => line,
                Ok(Err(LineError::Broken(error))) => return Err(anyhow::Error::new(error).context(gone())),
                Ok(Err(LineError::Ended)) => anyhow::bail!("{}", gone()),
                Ok(Err(LineError::TooLong)) => anyhow::bail!("the daemon answers more than is allowed"),
                Err(_) => anyhow::bail!("the daemon at '{}' is silent", self.socket.display()),
            };
            let message: Message = serde_json::from_slice(&line)
                .with_context(|| format!("'{}' is no control socket of lsvd", self.socket.display()))?;
            if message.method.as_deref() == Some(PROGRESS) {
                let words = message.params.filter(|params| params.id == id).map(|params| params.words);
                if let Some(words) = words.filter(|words| !words.is_empty()) {
                    progress(&harmless(&words));
                }
                continue;
            }
            match (message.result, message.error) {
                // One of a connection that was refused has no id.
                (None, Some(fault)) => return Err(DaemonError::from(fault).into()),
                (Some(result), None) if message.id == id => return Ok(result),
                _ => {}
            }
        }
    }
}

/// What a volume is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// To look at.
    Any,
    /// To be changed.
    Writer,
}

/// The daemon that serves the volume `identity` at `url`, if one is found.
///
/// # Errors
/// If the socket that the user named can not be asked; if a daemon serves the volume under another URL.
pub(crate) async fn find(
    at: &ControlPlace,
    identity: &Identity,
    url: &str,
    wanted: Wanted,
) -> anyhow::Result<Option<(Client, HelloVolume)>> {
    if at.no_control {
        return Ok(None);
    }
    let mut tried: Vec<PathBuf> = Vec::new();
    let mut elsewhere = None;
    let volume_id = identity.volume_id.to_string();
    for socket in candidates(at, &volume_id)? {
        let Ok(real) = socket.canonicalize() else { continue };
        if tried.contains(&real) {
            continue;
        }
        tried.push(real);
        let client = match Client::connect(&socket).await {
            Ok(client) => client,
            Err(error) if at.control.as_deref() == Some(&socket) => return Err(error),
            Err(error) => {
                let stale = is_stale(&socket, &error);
                // A daemon that only looks idle must not lose its volume because it is busy.
                if !stale
                    && wanted == Wanted::Writer
                    && socket.file_name() == place::link(Path::new(""), &volume_id).file_name()
                {
                    return Err(can_not_be_asked(&socket, &error));
                }
                continue;
            }
        };
        let Some(volume) = client.greeting.volumes.iter().find(|volume| serves(volume, identity, wanted))
        else {
            continue;
        };
        let volume = volume.clone();
        if volume.url == url {
            return Ok(Some((client, volume)));
        }
        elsewhere = Some(volume);
    }
    match elsewhere {
        None => Ok(None),
        // Its objects may be a copy: then the daemon's volume is another one.
        Some(volume) => Err(DaemonError {
            message: format!(
                "a daemon of this host serves the volume {} as '{}', and this is '{url}'",
                volume.volume_id,
                harmless(&volume.url)
            ),
            exit: Exit::InUse,
            help: Some(
                "name it as the daemon does; if these objects are a copy, say --no-control".to_owned(),
            ),
            not_served: false,
        }
        .into()),
    }
}

/// Whether nobody listens on a socket, which is what a crash leaves; otherwise says that a daemon may be there.
fn is_stale(socket: &Path, error: &anyhow::Error) -> bool {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let stale = matches!(kind, Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound));
    if stale {
        tracing::debug!("{error:#}");
    } else {
        tracing::warn!(socket = %socket.display(), "a daemon may be there, but: {error:#}");
    }
    stale
}

/// The daemon that has this volume's socket may serve it.
fn can_not_be_asked(socket: &Path, error: &anyhow::Error) -> anyhow::Error {
    DaemonError {
        message: format!(
            "a daemon of this host may serve it at '{}', but can not be asked: {error:#}",
            socket.display()
        ),
        exit: Exit::InUse,
        help: Some("try again; if that daemon does not serve it any more, say --no-control".to_owned()),
        not_served: false,
    }
    .into()
}

fn serves(volume: &HelloVolume, identity: &Identity, wanted: Wanted) -> bool {
    let writer = volume.epoch > identity.epoch.0
        || (volume.epoch == identity.epoch.0 && volume.writer_id == identity.writer_id.to_string());
    volume.volume_id == identity.volume_id.to_string()
        && volume.state == State::Serving
        && match wanted {
            Wanted::Writer => writer && !volume.read_only,
            Wanted::Any => writer || volume.read_only,
        }
}

/// The sockets at which a daemon of the volume may be, the likely one first.
fn candidates(at: &ControlPlace, volume_id: &str) -> anyhow::Result<Vec<PathBuf>> {
    let directories = match &at.control {
        Some(path) if !path.is_dir() => return Ok(vec![path.clone()]),
        Some(directory) => vec![directory.clone()],
        None => place::looked_through(),
    };
    let mut sockets = Vec::new();
    for directory in &directories {
        let link = place::link(directory, volume_id);
        match link.symlink_metadata() {
            Ok(_) => sockets.push(link),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(
                    "whether a daemon serves the volume can not be seen in '{}': {error}",
                    directory.display()
                );
            }
            Err(_) => {}
        }
    }
    for directory in &directories {
        sockets.extend(place::daemons(directory).unwrap_or_default());
    }
    Ok(sockets)
}

/// That no daemon of this host serves the volume `name`.
pub(crate) fn nobody(name: &str) -> DaemonError {
    DaemonError {
        message: format!("no daemon of this host serves volume '{name}', as far as can be seen here"),
        exit: Exit::Existence,
        help: Some("`lsvd status` lists the daemons that are found; --control says where to look".to_owned()),
        not_served: true,
    }
}

/// The daemons that can be found, and what is said of those that do not answer.
///
/// # Errors
/// If the socket that the user named can not be asked.
pub(crate) async fn all(at: &ControlPlace) -> anyhow::Result<Vec<Client>> {
    let directories = match &at.control {
        Some(path) if !path.is_dir() => return Ok(vec![Client::connect(path).await?]),
        Some(directory) => vec![directory.clone()],
        None => place::looked_through(),
    };
    let mut clients = Vec::new();
    for directory in directories {
        let sockets = match place::daemons(&directory) {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::warn!("daemons in '{}' can not be seen: {error}", directory.display());
                continue;
            }
        };
        for socket in sockets {
            match Client::connect(&socket).await {
                Ok(client) => clients.push(client),
                Err(error) => {
                    is_stale(&socket, &error);
                }
            }
        }
    }
    Ok(clients)
}

//! Where daemons are found: one directory, a socket of each daemon, and a link of each volume's identity to its daemon's.
//!
//! Knows paths and what a daemon greets with. Invariants: 1. nobody but the owner can connect, at no moment: the directory is made
//! with mode 0700, and one that others own or can write is refused; 2. a link is taken from a daemon only if that one is gone,
//! or serves the volume no better; 3. at the end only what is this daemon's own is removed.

use std::env;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lsvd_volume::HandoverOptions;
use tokio::net::{UnixListener, UnixSocket};
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::protocol::{HelloVolume, State};

/// Longest path that the kernel takes for a unix socket, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;
/// How long another daemon may be at the directory.
const LOCK_MAX: Duration = Duration::from_secs(5);
/// Daemons of one process number, as containers can have them.
const SAME_PID_MAX: u32 = 64;
/// What daemons' own sockets begin with.
const DAEMON: &str = "daemon-";
/// What all sockets and links end with.
const SUFFIX: &str = ".sock";

/// The directory of daemons of this user, as `lsvd serve` makes it: `$XDG_RUNTIME_DIR/lsvd/control`, or below `/run`.
pub(crate) fn usual() -> PathBuf {
    directory_of(runtime_dir()).join("control")
}

/// Where daemons of this user hand over to each other, unless they are told another place.
pub(crate) fn usual_handover() -> PathBuf {
    directory_of(runtime_dir()).join("handover")
}

/// What a daemon that was killed may have left, where this user's daemons hand over and the system's, for who opens its volume next
/// and does not hand over itself in the directory `but`. `None` if there is nothing.
pub(crate) fn handover_that_is_there(but: Option<&Path>) -> Option<HandoverOptions> {
    let mut directories = vec![usual_handover(), directory_of(None).join("handover")];
    directories.dedup();
    let there =
        directories.iter().filter(|directory| Some(directory.as_path()) != but).filter_map(|directory| {
            check_owner(directory).ok()?;
            HandoverOptions::directory(directory).ok()
        });
    there.reduce(|here, elsewhere| here.and(&elsewhere))
}

/// Where clients look: also where the system's daemons are.
pub(crate) fn looked_through() -> Vec<PathBuf> {
    let mut places = vec![usual()];
    let system = directory_of(None).join("control");
    if !places.contains(&system) {
        places.push(system);
    }
    places
}

fn runtime_dir() -> Option<PathBuf> {
    env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

fn directory_of(runtime_dir: Option<PathBuf>) -> PathBuf {
    runtime_dir.unwrap_or_else(|| PathBuf::from("/run")).join("lsvd")
}

/// The link of the volume in `directory`.
pub(crate) fn link(directory: &Path, volume_id: &str) -> PathBuf {
    directory.join(format!("{volume_id}{SUFFIX}"))
}

/// The sockets of all daemons in `directory`; none if there is no such directory.
///
/// # Errors
/// If it can not be read.
pub(crate) fn daemons(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut sockets = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let is_daemon = name.to_str().is_some_and(|name| name.starts_with(DAEMON) && name.ends_with(SUFFIX));
        if is_daemon && entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            sockets.push(entry.path());
        }
    }
    sockets.sort();
    Ok(sockets)
}

/// A daemon's socket and its links; dropping it removes what is its own.
#[derive(Debug)]
pub(crate) struct Place {
    directory: PathBuf,
    socket: PathBuf,
    identity: (u64, u64),
    links: Vec<PathBuf>,
}

impl Place {
    /// Makes the directory if it is missing, and a socket in it.
    ///
    /// # Errors
    /// Says what is in the way; nothing of others' was changed.
    pub(crate) async fn make(directory: &Path) -> anyhow::Result<(Self, UnixListener)> {
        let directory = own(directory).context("for the control socket")?;
        let shown = directory.display();
        let _lock = lock(&directory).await.with_context(|| format!("cannot lock '{shown}'"))?;
        let pid = std::process::id();
        for nth in 0..SAME_PID_MAX {
            let name = match nth {
                0 => format!("{DAEMON}{pid}{SUFFIX}"),
                nth => format!("{DAEMON}{pid}-{nth}{SUFFIX}"),
            };
            let socket = directory.join(name);
            ensure!(
                socket.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX,
                "'{shown}' is too long a path for a control socket: {SOCKET_PATH_BYTES_MAX} bytes are allowed, its name among \
                 them; choose a shorter one with --control DIR"
            );
            // The same number in another container, or one that came round: only what nobody answers on is in nobody's way.
            if socket.symlink_metadata().is_ok() {
                if !is_dead(&socket).await {
                    continue;
                }
                fs::remove_file(&socket).with_context(|| format!("cannot remove '{}'", socket.display()))?;
            }
            let listener =
                bind(&socket).with_context(|| format!("cannot listen on '{}'", socket.display()))?;
            let identity = identity(&socket)?;
            return Ok((Self { directory, socket, identity, links: Vec::new() }, listener));
        }
        bail!("'{shown}' is full of daemons with the number of this process")
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Has `volume` found here, unless a daemon that lives serves it better.
    ///
    /// # Errors
    /// If the link can not be made.
    pub(crate) async fn link(&mut self, volume: &HelloVolume) -> anyhow::Result<()> {
        let link = link(&self.directory, &volume.volume_id);
        let _lock = lock(&self.directory).await?;
        if let Some(theirs) = self.held(&link, volume).await {
            tracing::info!(
                volume = volume.name,
                "another daemon serves it for writing, and is found in place of this one ({})",
                theirs.display()
            );
            return Ok(());
        }
        let name = self.socket.file_name().context("a socket has a name")?;
        let temporary = self.directory.join(format!(".{}.{}", volume.volume_id, std::process::id()));
        let _ = fs::remove_file(&temporary);
        symlink(name, &temporary)?;
        fs::rename(&temporary, &link).with_context(|| format!("cannot make '{}'", link.display()))?;
        self.links.push(link);
        Ok(())
    }

    /// The socket of a daemon that lives and by which the volume is to be found rather than by this one.
    async fn held(&self, link: &Path, volume: &HelloVolume) -> Option<PathBuf> {
        link.symlink_metadata().ok()?;
        let greeting = Client::greet(link).await.ok()?;
        let same = |theirs: &&HelloVolume| theirs.volume_id == volume.volume_id;
        let theirs = greeting.volumes.iter().find(same).filter(|theirs| theirs.state == State::Serving)?;
        // Who opened it for writing later has it; a reader leaves it to any writer, and to who was first of readers.
        let better = match (theirs.read_only, volume.read_only) {
            (false, false) => theirs.epoch > volume.epoch,
            (true, false) => false,
            (_, true) => true,
        };
        better.then(|| link.to_owned())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let name = self.socket.file_name().map(PathBuf::from);
        for link in &self.links {
            if fs::read_link(link).ok() == name {
                let _ = fs::remove_file(link);
            }
        }
        if identity(&self.socket).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.socket);
        }
    }
}

/// Makes a directory of this user alone, if it is missing; its absolute path.
///
/// # Errors
/// If it can not be made, or others could put something in it.
pub(crate) fn own(directory: &Path) -> anyhow::Result<PathBuf> {
    let directory = std::path::absolute(directory)?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.with_context(|| format!("cannot make '{}'", directory.display()))?;
    check_owner(&directory)?;
    Ok(directory)
}

fn check_owner(directory: &Path) -> anyhow::Result<()> {
    let shown = directory.display();
    let found = fs::metadata(directory).with_context(|| format!("cannot look at '{shown}'"))?;
    ensure!(found.is_dir(), "'{shown}' is no directory");
    let me = rustix::process::geteuid().as_raw();
    ensure!(
        found.uid() == me,
        "'{shown}' belongs to the user {}: it has to be where nobody else can put anything in its place",
        found.uid()
    );
    ensure!(
        found.mode() & 0o022 == 0,
        "'{shown}' can be written by others: it has to be where nobody else can put anything in its place"
    );
    Ok(())
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // Nobody can connect before it listens.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)
}

/// Whether nobody listens on a socket, or it is none that anybody could.
async fn is_dead(socket: &Path) -> bool {
    match tokio::net::UnixStream::connect(socket).await {
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
    }
}

fn identity(socket: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(socket)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Two daemons that look at the same stale link must not remove each other's.
async fn lock(directory: &Path) -> io::Result<File> {
    let handle = File::open(directory)?;
    let deadline = Instant::now() + LOCK_MAX;
    loop {
        match handle.try_lock() {
            Ok(()) => return Ok(handle),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                sleep(Duration::from_millis(10)).await
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds the lock"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

//! Sockets to listen on: bound with care, gone without a trace.
//!
//! 1. A unix socket that somebody still answers on, and anything that is not a socket, is never removed.
//! 2. Nobody but the owner can connect to a unix socket, at no moment.
//! 3. Only the file that this process made is removed at the end.
//!
//! It does not know the protocol.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use crate::address::ListenAddress;

/// Longest path that the kernel takes for a unix socket, in bytes (`sun_path` holds 108 with the NUL at the end).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Connections that the kernel keeps for us while we are busy accepting others.
const BACKLOG: u32 = 128;

/// How long another process may be at the same directory's sockets before we give up.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a socket could not be bound; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there: stop that one, or choose another address.
    #[error("cannot listen on '{address}': another process is listening there")]
    InUse {
        /// The address.
        address: ListenAddress,
    },
    /// The path is taken by something that is not a socket: it was left alone.
    #[error("cannot listen on '{address}': there is a {what} at that path; it was left as it is")]
    NotASocket {
        /// The address.
        address: ListenAddress,
        /// What is there.
        what: &'static str,
    },
    /// The path does not fit into a socket address.
    #[error(
        "cannot listen on '{address}': the path has {length_bytes} bytes and a unix socket's may have {}",
        SOCKET_PATH_BYTES_MAX
    )]
    PathTooLong {
        /// The address.
        address: ListenAddress,
        /// Length of the path in bytes.
        length_bytes: usize,
    },
    /// The directory for the socket does not exist.
    #[error("cannot listen on '{address}': there is no directory '{}'; create it first", .directory.display())]
    NoDirectory {
        /// The address.
        address: ListenAddress,
        /// The directory that is missing.
        directory: PathBuf,
    },
    /// The operating system refuses: it says why.
    #[error("cannot listen on '{address}': {what}: {source}")]
    Io {
        /// The address.
        address: ListenAddress,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// A bound socket. Dropping it stops listening and removes the socket file.
#[derive(Debug)]
pub struct Listener {
    // Before `socket`: the file goes while we still answer on it, so that nobody can have taken it for a stale one and
    // put their own in its place.
    _file: Option<SocketFile>,
    socket: Socket,
    address: ListenAddress,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream, SocketAddr),
}

impl Listener {
    /// Binds `address`.
    ///
    /// # Errors
    /// [`BindError`] says what to change.
    pub async fn bind(address: &ListenAddress) -> Result<Self, BindError> {
        match address {
            ListenAddress::Unix(path) => Self::bind_unix(path).await,
            ListenAddress::Tcp { host, port } => Self::bind_tcp(host, *port).await,
        }
    }

    /// Binds a unix socket with mode 0600. A socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`BindError`] says what to change; what was at `path` is still there.
    pub async fn bind_unix(path: impl AsRef<Path>) -> Result<Self, BindError> {
        let path = path.as_ref();
        let address = ListenAddress::Unix(path.to_owned());
        let failed = |what, source| BindError::Io { address: address.clone(), what, source };

        let length_bytes = path.as_os_str().as_bytes().len();
        if length_bytes > SOCKET_PATH_BYTES_MAX {
            return Err(BindError::PathTooLong { address, length_bytes });
        }
        let directory = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Err(BindError::NotASocket { address, what: "directory" }),
        };
        if !directory.is_dir() {
            return Err(BindError::NoDirectory { directory: directory.to_owned(), address });
        }

        // Two of us that find the same stale socket must not remove each other's fresh one: look, remove and bind are
        // one step under a lock of the directory, which leaves no lock file behind.
        let _lock =
            lock_directory(directory).await.map_err(|source| failed("locking its directory", source))?;
        remove_if_stale(path, &address).await?;

        let socket = UnixSocket::new_stream().map_err(|source| failed("making a socket", source))?;
        socket.bind(path).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address: address.clone() },
            _ => failed("binding", source),
        })?;
        let file = SocketFile::of(path).map_err(|source| failed("looking at the new socket", source))?;
        // Until `listen` nobody can connect, so there is no moment at which the mode is wrong.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(|source| failed("setting its mode", source))?;
        let listener = socket.listen(BACKLOG).map_err(|source| failed("listening", source))?;
        Ok(Self { _file: Some(file), socket: Socket::Unix(listener), address })
    }

    /// Binds a TCP port of `host`, the first of its addresses that works; port 0 lets the system choose.
    ///
    /// # Errors
    /// [`BindError`] says what to change.
    pub async fn bind_tcp(host: &str, port: u16) -> Result<Self, BindError> {
        let address = ListenAddress::Tcp { host: host.to_owned(), port };
        let failed = |what, source| BindError::Io { address: address.clone(), what, source };
        let candidates = tokio::net::lookup_host((host, port))
            .await
            .map_err(|source| failed("looking up the host", source))?;
        let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for candidate in candidates {
            match listen_tcp(candidate) {
                Ok(listener) => {
                    let port = listener.local_addr().map_or(port, |bound| bound.port());
                    let address = ListenAddress::Tcp { host: host.to_owned(), port };
                    return Ok(Self { _file: None, socket: Socket::Tcp(listener), address });
                }
                Err(error) => last_error = error,
            }
        }
        Err(match last_error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address },
            _ => failed("binding", last_error),
        })
    }

    /// A unix socket that somebody else made and listens on for us, as a service manager does. Its file is not ours.
    ///
    /// # Errors
    /// The system's.
    pub fn from_unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let path = listener.local_addr()?.as_pathname().map(Path::to_owned);
        let address = ListenAddress::Unix(path.unwrap_or_else(|| PathBuf::from("(unnamed)")));
        Ok(Self { _file: None, socket: Socket::Unix(UnixListener::from_std(listener)?), address })
    }

    /// A TCP socket that somebody else made and listens on for us.
    ///
    /// # Errors
    /// The system's.
    pub fn from_tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        let address = ListenAddress::Tcp { host: bound.ip().to_string(), port: bound.port() };
        Ok(Self { _file: None, socket: Socket::Tcp(TcpListener::from_std(listener)?), address })
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// The next connection. Cancel-safe.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // A reply is one write: waiting for more to send would only delay it.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream, peer))
            }
        }
    }
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it: a client whose host died frees its place some day.
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn lock_directory(directory: &Path) -> io::Result<File> {
    let handle = File::open(directory)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
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

/// Makes way for a new socket at `path`, or says why there is none to make.
async fn remove_if_stale(path: &Path, address: &ListenAddress) -> Result<(), BindError> {
    let address = || address.clone();
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(BindError::Io { address: address(), what: "looking at the path", source }),
    };
    if !kind.is_socket() {
        let what = if kind.is_dir() {
            "directory"
        } else if kind.is_symlink() {
            "symbolic link"
        } else if kind.is_file() {
            "file"
        } else {
            "device or pipe"
        };
        return Err(BindError::NotASocket { address: address(), what });
    }
    match timeout(Duration::from_secs(1), UnixStream::connect(path)).await {
        // A listener whose backlog is full is a live one, and so is one that keeps us waiting.
        Ok(Ok(_)) | Err(_) => return Err(BindError::InUse { address: address() }),
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::ConnectionRefused => {}
            io::ErrorKind::NotFound => return Ok(()),
            io::ErrorKind::WouldBlock => return Err(BindError::InUse { address: address() }),
            _ => {
                let what = "asking whether the socket that is there is in use";
                return Err(BindError::Io { address: address(), what, source: error });
            }
        },
    }
    tracing::info!(path = %path.display(), "replacing a socket that nobody listens on");
    fs::remove_file(path).map_err(|source| BindError::Io {
        address: address(),
        what: "removing the stale socket",
        source,
    })
}

/// The socket file that we made, by its identity: whoever put another one in its place keeps theirs.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        // Absolute, so that it is found again after a change of directory.
        let path = std::path::absolute(path)?;
        Ok(Self { path, device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| metadata.dev() == self.device && metadata.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket could not be removed");
        }
    }
}

#[cfg(test)]
mod tests;

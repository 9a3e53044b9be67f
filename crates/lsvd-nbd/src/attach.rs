//! The kernel as a client: `/dev/nbdN` for an export, and new connections for it when the server comes back.
//!
//! The handshake is made here (`client`), then the kernel is handed the sockets over netlink (`kernel`, `netlink`). Whoever
//! holds an [`Attachment`] watches them: a connection that dies is replaced, while the kernel keeps requests waiting. It
//! knows nothing of what is on the device. Calls block, so an async caller gives them a thread.
//!
//! 1. The kernel gets no connection to an export with fewer abilities than the first one, or, as far as its server says so, with others' contents
//!    or without writes that the server before had answered; of another size it is told.
//! 2. A dead connection is offered a replacement until the device is detached, by whomever.
//! 3. Nothing here ends a device that is in use: only [`detach`], and it says when it is refused.

mod client;
mod kernel;
mod netlink;
mod uri;

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::net::sockopt::{Timeout, socket_timeout};

use self::client::{ClientError, Connection, Told};
use self::kernel::{Kernel, KernelError};
use self::netlink::Command;
pub use self::uri::{NbdUri, UriError};

/// How soon a stop is noticed, and how often a server that is away is tried again.
const TICK: Duration = Duration::from_millis(250);

/// How often the server is asked whether the export has another size: a connection and a few bytes each time.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// The flags that the kernel knows: HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, ROTATIONAL, SEND_TRIM, SEND_WRITE_ZEROES,
/// CAN_MULTI_CONN. It is told of no others: what it does not know it can not use.
const KERNEL_FLAGS: u16 = 0b1_0111_1111;
const CAN_MULTI_CONN: u16 = 1 << 8;

/// A device of the kernel's NBD client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device(u32);

impl Device {
    /// Where it is.
    pub fn path(self) -> PathBuf {
        PathBuf::from(format!("/dev/nbd{}", self.0))
    }
}

impl FromStr for Device {
    type Err = String;

    /// `/dev/nbd0`, or `nbd0`.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix("/dev/").unwrap_or(text);
        let digits =
            name.strip_prefix("nbd").filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
        let index = digits.and_then(|digits| digits.parse().ok()).filter(|index| *index < 1 << 20);
        index.map(Self).ok_or_else(|| {
            format!("'{text}' is no device of the NBD client: write /dev/nbd0 or another number")
        })
    }
}

/// How a device is attached.
#[derive(Clone, Debug)]
pub struct AttachOptions {
    /// Connections; more than one needs a server for which a flush on one covers all. Default 1.
    pub connections: u32,
    /// Bytes of a logical block: 512, 1,024, 2,048 or 4,096, the default.
    pub block_size_bytes: u32,
    /// A connection whose request takes longer, in whole seconds, is cut off, and its requests are sent again on another. By
    /// default none is; requests that were in flight when a connection died are then sent again within 30 s.
    pub timeout: Option<Duration>,
    /// While no connection lives, requests wait this long, in whole seconds, and then fail for good. Default 5 minutes.
    pub dead_connection_timeout: Duration,
}

impl Default for AttachOptions {
    fn default() -> Self {
        Self {
            connections: 1,
            block_size_bytes: 4096,
            timeout: None,
            dead_connection_timeout: Duration::from_secs(300),
        }
    }
}

/// Why a device could not be attached, watched or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel has no NBD client: load the module.
    #[error("the kernel has no NBD client; load it with `modprobe nbd`")]
    NoClient,
    /// Only root may: `CAP_SYS_ADMIN` in the first user namespace.
    #[error("attaching and detaching {} needs root", .0.display())]
    NotPermitted(PathBuf),
    /// The device is attached to something: choose another, or detach it.
    #[error("{} is attached already; choose another, or `lsvd detach` it", .0.display())]
    InUse(PathBuf),
    /// The device holds a mounted file system or the like.
    #[error("{} is in use; unmount what is on it first", .0.display())]
    Busy(PathBuf),
    /// Nothing is attached there.
    #[error("{} is not attached", .0.display())]
    NotAttached(PathBuf),
    /// The server does not answer, or has no such export: check the URI, start the server.
    #[error("the server at {server}: {reason}")]
    Server {
        /// Its address.
        server: String,
        /// What it did.
        reason: String,
    },
    /// The server came back with another export behind the name.
    #[error("the export has changed since {} was attached: {reason}", device.display())]
    Changed {
        /// The device.
        device: PathBuf,
        /// What is different.
        reason: String,
    },
    /// The options make no sense.
    #[error("{0}")]
    Invalid(String),
    /// The kernel refused, for another reason.
    #[error("the kernel can not {what} {}: {source}", device.display())]
    Kernel {
        /// What it was to do.
        what: &'static str,
        /// The device.
        device: PathBuf,
        /// Its reason.
        source: io::Error,
    },
}

/// How a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// It was told to stop; the device is as it was.
    Stopped,
    /// Somebody detached the device, or the kernel did after the server was away for too long.
    Detached,
}

/// An attached device and its connections.
#[derive(Debug)]
pub struct Attachment {
    kernel: Kernel,
    device: Device,
    uri: NbdUri,
    told: Told,
    block_size_bytes: u32,
    asked: Instant,
    has_timeout: bool,
    /// `None` for one that died and has no replacement yet.
    connections: Vec<Option<Connection>>,
}

/// Attaches the export to the device.
///
/// # Errors
/// [`AttachError`]; nothing is attached then.
pub fn attach(uri: &NbdUri, device: Device, options: &AttachOptions) -> Result<Attachment, AttachError> {
    check(options)?;
    let mut kernel = open_kernel(device, "attach")?;
    let mut connections = Vec::new();
    let mut told = None;
    for _ in 0..options.connections {
        let (connection, says) = connect(uri)?;
        if *told.get_or_insert_with(|| says.clone()) != says {
            let reason = "it says different things on two connections".to_owned();
            return Err(AttachError::Server { server: uri.server.to_string(), reason });
        }
        connections.push(connection);
    }
    let told = told.ok_or_else(|| AttachError::Invalid("at least one connection is needed".to_owned()))?;
    if options.connections > 1 && told.flags & CAN_MULTI_CONN == 0 {
        let reason = "a flush on one of its connections does not cover the others: use one".to_owned();
        return Err(AttachError::Server { server: uri.server.to_string(), reason });
    }
    if !told.size_bytes.is_multiple_of(options.block_size_bytes.into()) {
        let reason =
            format!("its {} bytes are no whole blocks of {}", told.size_bytes, options.block_size_bytes);
        return Err(AttachError::Server { server: uri.server.to_string(), reason });
    }
    let command = Command::Connect {
        index: device.0,
        size_bytes: told.size_bytes,
        block_size_bytes: options.block_size_bytes,
        server_flags: told.flags & KERNEL_FLAGS,
        timeout_seconds: options.timeout.map_or(0, |timeout| timeout.as_secs()),
        dead_connection_seconds: options.dead_connection_timeout.as_secs(),
        sockets: connections.iter().map(AsFd::as_fd).collect(),
    };
    kernel.run(&command).map_err(|error| kernel_error("attach", device, error))?;
    Ok(Attachment {
        kernel,
        device,
        uri: uri.clone(),
        told,
        block_size_bytes: options.block_size_bytes,
        asked: Instant::now(),
        has_timeout: options.timeout.is_some(),
        connections: connections.into_iter().map(Some).collect(),
    })
}

/// Lets go of the device.
///
/// # Errors
/// [`AttachError::Busy`] if something on it is mounted, [`AttachError::NotAttached`], or what the kernel says.
pub fn detach(device: Device) -> Result<(), AttachError> {
    let mut kernel = open_kernel(device, "detach")?;
    if !kernel.is_connected(device.0).map_err(|error| kernel_error("examine", device, error))? {
        return Err(AttachError::NotAttached(device.path()));
    }
    if !is_unused(&device.path()) {
        return Err(AttachError::Busy(device.path()));
    }
    kernel
        .run(&Command::Disconnect { index: device.0 })
        .map_err(|error| kernel_error("detach", device, error))
}

fn check(options: &AttachOptions) -> Result<(), AttachError> {
    let refuse = |what: &str| Err(AttachError::Invalid(what.to_owned()));
    if !(1..=64).contains(&options.connections) {
        return refuse("from 1 to 64 connections can be had");
    }
    if !matches!(options.block_size_bytes, 512 | 1024 | 2048 | 4096) {
        return refuse("a block has 512, 1,024, 2,048 or 4,096 bytes");
    }
    if options.timeout.is_some_and(|timeout| timeout.as_secs() == 0)
        || options.dead_connection_timeout.as_secs() == 0
    {
        return refuse("the kernel knows no shorter times than a second");
    }
    Ok(())
}

/// A device that is mounted, or held by another driver, can not be opened exclusively.
fn is_unused(path: &Path) -> bool {
    let exclusive = i32::try_from(OFlags::EXCL.bits()).unwrap_or(0);
    match OpenOptions::new().read(true).custom_flags(exclusive).open(path) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::ResourceBusy,
    }
}

fn open_kernel(device: Device, what: &'static str) -> Result<Kernel, AttachError> {
    Kernel::open().map_err(|error| kernel_error(what, device, error))
}

fn kernel_error(what: &'static str, device: Device, error: KernelError) -> AttachError {
    match error {
        KernelError::NoClient => AttachError::NoClient,
        KernelError::Refused(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            AttachError::NotPermitted(device.path())
        }
        KernelError::Refused(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            AttachError::InUse(device.path())
        }
        KernelError::Refused(source) => AttachError::Kernel { what, device: device.path(), source },
        KernelError::Netlink(error) => AttachError::Kernel {
            what,
            device: device.path(),
            source: io::Error::other(KernelError::Netlink(error)),
        },
    }
}

fn connect(uri: &NbdUri) -> Result<(Connection, Told), AttachError> {
    Connection::open(uri).map_err(|error| AttachError::Server {
        server: uri.server.to_string(),
        reason: match error {
            ClientError::Away(error) => format!("cannot connect: {error}"),
            other => other.to_string(),
        },
    })
}

impl Attachment {
    /// The device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Bytes of the device.
    pub fn size_bytes(&self) -> u64 {
        self.told.size_bytes
    }

    /// Replaces connections that die, and tells the kernel of another size that the export has, until `stop` is set or the device is detached.
    ///
    /// # Errors
    /// [`AttachError::Changed`] if the server comes back with another export; what the kernel says.
    pub fn watch(&mut self, stop: &AtomicBool) -> Result<WatchEnd, AttachError> {
        let mut told_away = false;
        while !stop.load(Ordering::Relaxed) {
            self.wait_for_deaths()?;
            let Some(place) = self.connections.iter().position(Option::is_none) else {
                self.ask_for_the_size()?;
                continue;
            };
            // The kernel takes a moment to see what we saw, and silently leaves a socket for which it knows no dead one.
            std::thread::sleep(TICK);
            if !self.is_attached()? {
                return Ok(WatchEnd::Detached);
            }
            match self.replace(place) {
                Ok(true) => {
                    told_away = false;
                    tracing::info!(device = %self.device.path().display(), server = %self.uri.server, "reconnected");
                }
                Ok(false) => {}
                Err(error @ AttachError::Server { .. }) => {
                    if !std::mem::replace(&mut told_away, true) {
                        tracing::warn!(
                            device = %self.device.path().display(),
                            "{error}; requests wait, and it is tried again and again"
                        );
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(WatchEnd::Stopped)
    }

    /// Waits a tick, or for a connection to die.
    fn wait_for_deaths(&mut self) -> Result<(), AttachError> {
        // An end that the kernel makes, after a timeout or a detach, is seen here too: the socket is the same.
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let live: Vec<usize> =
            (0..self.connections.len()).filter(|at| self.connections[*at].is_some()).collect();
        let mut sockets: Vec<PollFd> = self
            .connections
            .iter()
            .flatten()
            .map(|connection| PollFd::new(connection, PollFlags::RDHUP))
            .collect();
        let tick = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
        match poll(&mut sockets, Some(&tick)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                let source = io::Error::from(error);
                return Err(AttachError::Kernel { what: "watch", device: self.device.path(), source });
            }
        }
        let dead: Vec<bool> = sockets.iter().map(|socket| socket.revents().intersects(gone)).collect();
        for (at, _) in live.into_iter().zip(dead).filter(|(_, dead)| *dead) {
            self.connections[at] = None;
        }
        Ok(())
    }

    fn is_attached(&mut self) -> Result<bool, AttachError> {
        self.kernel.is_connected(self.device.0).map_err(|error| kernel_error("examine", self.device, error))
    }

    /// Offers the kernel a new connection. Whether it took it.
    fn replace(&mut self, place: usize) -> Result<bool, AttachError> {
        let (connection, told) = connect(&self.uri)?;
        if let Some(reason) = self.told.differs_from(&told, self.block_size_bytes) {
            return Err(AttachError::Changed { device: self.device.path(), reason });
        }
        let command = Command::Reconfigure { index: self.device.0, sockets: vec![connection.as_fd()] };
        match self.kernel.run(&command) {
            Ok(()) => {}
            Err(KernelError::Refused(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                // It was detached meanwhile, which the next look will say.
                return Ok(false);
            }
            Err(error) => return Err(kernel_error("reconnect", self.device, error)),
        }
        // A socket that the kernel took has its timeout; where there is none nothing tells.
        if self.has_timeout && matches!(socket_timeout(&connection, Timeout::Send), Ok(None)) {
            return Ok(false);
        }
        self.connections[place] = Some(connection);
        self.told.openings = told.openings.or(self.told.openings);
        self.tell_the_size(&told)?;
        Ok(true)
    }

    /// Asks the server now and then. What else it says is for the next connection.
    fn ask_for_the_size(&mut self) -> Result<(), AttachError> {
        if self.asked.elapsed() < ASK_EVERY {
            return Ok(());
        }
        self.asked = Instant::now();
        match Connection::ask(&self.uri) {
            Ok(told) if self.told.differs_from(&told, self.block_size_bytes).is_none() => {
                self.tell_the_size(&told)
            }
            // The connections say if it is away, and the next of them if it is another.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Tells the kernel how large the export is, if that has changed. Requests go on.
    fn tell_the_size(&mut self, told: &Told) -> Result<(), AttachError> {
        let size_bytes = told.size_bytes;
        if size_bytes == self.told.size_bytes {
            return Ok(());
        }
        let command = Command::Resize { index: self.device.0, size_bytes };
        match self.kernel.run(&command) {
            Ok(()) => {}
            // It was detached meanwhile, which the next look will say.
            Err(KernelError::Refused(error)) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
            Err(error) => return Err(kernel_error("resize", self.device, error)),
        }
        let (device, before_bytes) = (self.device.path(), self.told.size_bytes);
        self.told.size_bytes = size_bytes;
        tracing::info!(device = %device.display(), before_bytes, size_bytes, "resized");
        Ok(())
    }
}

impl Told {
    /// What the kernel relies on and is not so any more.
    fn differs_from(&self, other: &Self, block_size_bytes: u32) -> Option<String> {
        let lost = self.flags & !other.flags & KERNEL_FLAGS;
        if !other.size_bytes.is_multiple_of(block_size_bytes.into()) {
            Some(format!("its {} bytes are no whole blocks of {block_size_bytes}", other.size_bytes))
        } else if lost != 0 {
            Some(format!("it can not do any more what its flags {lost:#x} said"))
        } else if (self.flags ^ other.flags) & 2 != 0 {
            Some("it is read-only now".to_owned())
        } else if self.contents.is_some() && self.contents != other.contents {
            Some("it has other contents: it was rolled back, or another one is there by its name".to_owned())
        } else if !self.is_kept_by(other) {
            Some(
                "it has lost writes that were answered and not flushed yet, as its server was killed, or its host: detach it, and mount \
                 what is on it anew"
                    .to_owned(),
            )
        } else {
            None
        }
    }

    /// Whether another server has all that the last one answered, as far as it says so.
    fn is_kept_by(&self, other: &Self) -> bool {
        match (self.openings, other.openings) {
            (Some((_, last)), Some((since, now))) => since <= last && last <= now,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_as_people_write_them() {
        assert_eq!("/dev/nbd12".parse(), Ok(Device(12)));
        assert_eq!("nbd0".parse::<Device>().unwrap().path(), Path::new("/dev/nbd0"));
        for text in ["/dev/sda", "/dev/nbd", "nbd-1", "nbd0p1", "nbd99999999999", ""] {
            assert!(text.parse::<Device>().is_err_and(|error| error.contains("/dev/nbd0")), "{text}");
        }
    }

    #[test]
    fn options_that_make_no_sense_are_refused_before_anybody_is_asked() {
        let usual = AttachOptions::default;
        for options in [
            AttachOptions { connections: 0, ..usual() },
            AttachOptions { block_size_bytes: 8192, ..usual() },
            AttachOptions { timeout: Some(Duration::from_millis(300)), ..usual() },
            AttachOptions { dead_connection_timeout: Duration::ZERO, ..usual() },
        ] {
            let uri = "nbd+unix:///?socket=/nowhere".parse().unwrap();
            let refused = attach(&uri, Device(0), &options);
            assert!(matches!(refused, Err(AttachError::Invalid(_))), "{options:?}");
        }
    }

    /// What the kernel was told at first it goes on believing.
    #[test]
    fn another_export_is_no_replacement() {
        let contents = Some("1f-0".to_owned());
        let first = Told { size_bytes: 4096, flags: 0b1101, contents, openings: Some((3, 5)) };
        let usual = || first.clone();
        assert_eq!(first.differs_from(&first, 4096), None);
        for other in [
            Told { flags: 0b111_0000_1101, ..usual() },
            Told { size_bytes: 8192, ..usual() },
            Told { openings: Some((5, 9)), ..usual() },
            Told { openings: None, ..usual() },
        ] {
            assert_eq!(
                first.differs_from(&other, 4096),
                None,
                "it can do more now, is larger, or has all: {other:?}"
            );
        }
        for (other, why) in [
            (Told { size_bytes: 8192 + 512, ..usual() }, "8704 bytes"),
            (Told { flags: 0b1001, ..usual() }, "0x4"),
            (Told { flags: 0b1111, ..usual() }, "read-only"),
            (Told { contents: Some("1f-295".to_owned()), ..usual() }, "rolled back"),
            (Told { contents: None, ..usual() }, "other contents"),
            // It was killed without a handover, or another host has it and an older daemon came back.
            (Told { openings: Some((6, 9)), ..usual() }, "lost writes"),
            (Told { openings: Some((2, 4)), ..usual() }, "lost writes"),
        ] {
            assert!(first.differs_from(&other, 4096).is_some_and(|reason| reason.contains(why)), "{other:?}");
        }
        let silent = Told { contents: None, openings: None, ..usual() };
        assert_eq!(silent.differs_from(&first, 4096), None, "what was not said at first can not differ");
    }
}

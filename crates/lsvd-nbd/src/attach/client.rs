//! From a URI to a connection that the kernel can go on with: connected, and past the handshake.
//!
//! Knows the client's side of fixed newstyle as far as the kernel needs it: simple replies, one export. Blocks, with a limit
//! of time for every step. Nothing is sent or read behind the handshake.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::uri::NbdUri;
use crate::address::ListenAddress;

/// For connecting, and for each part of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

const MAGIC: u64 = 0x4E42_444D_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_E889_0455_65A9;
const FIXED_NEWSTYLE: u16 = 1;
/// Of the answer to EXPORT_NAME; nothing is sent of it here.
const NO_ZEROES: u16 = 2;
const OPTION_ABORT: u32 = 2;
const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_ERROR: u32 = 1 << 31;
const REPLY_UNKNOWN: u32 = REPLY_ERROR | 6;
const INFO_EXPORT: u16 = 0;
const INFO_DESCRIPTION: u16 = 2;
/// What stands before the contents' identity at the end of a description: docs/nbd.md.
const CONTENTS: &str = ", contents ";
/// No answer to GO is near this long.
const REPLY_BYTES_MAX: u32 = 64 << 10;

/// What stands before the openings that it has all of, `SINCE-NOW`.
const OPENINGS: &str = ", openings ";

/// What the server says of the export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) size_bytes: u64,
    pub(super) flags: u16,
    /// Whose contents it has: they change by writes alone while this stays. `None` where the server does not say.
    pub(super) contents: Option<String>,
    /// The first and the last of the openings by its servers that it has everything of what they answered: the last one is that of this
    /// server. `None` where it does not say.
    pub(super) openings: Option<(u64, u64)>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Nobody answers, or not in time, or hangs up: again later may help.
    #[error(transparent)]
    Away(#[from] io::Error),
    /// The server has no such export.
    #[error("it has no export '{0}'")]
    NoExport(String),
    /// The peer says what it should not.
    #[error("{0}")]
    Protocol(String),
}

/// A connection.
#[derive(Debug)]
pub(super) enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Connection {
    /// Connects, and enters the export.
    pub(super) fn open(uri: &NbdUri) -> Result<(Self, Told), ClientError> {
        let mut connection = Self::connect(uri)?;
        let told = shake_hands(&mut connection, &uri.export, OPTION_GO)?;
        // From here on the kernel waits, and it knows how long.
        connection.set_patience(None)?;
        Ok((connection, told))
    }

    /// Asks what the server says of the export now, and leaves again.
    pub(super) fn ask(uri: &NbdUri) -> Result<Told, ClientError> {
        let mut connection = Self::connect(uri)?;
        let told = shake_hands(&mut connection, &uri.export, OPTION_INFO)?;
        let abort = [&OPTION_MAGIC.to_be_bytes()[..], &OPTION_ABORT.to_be_bytes(), &[0; 4]].concat();
        connection.write_all(&abort)?;
        Ok(told)
    }

    fn connect(uri: &NbdUri) -> Result<Self, ClientError> {
        let connection = match &uri.server {
            ListenAddress::Unix(path) => Self::Unix(UnixStream::connect(path)?),
            ListenAddress::Tcp { host, port } => Self::Tcp(connect_tcp(host, *port)?),
        };
        connection.set_patience(Some(PATIENCE))?;
        Ok(connection)
    }

    fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(patience)?;
                stream.set_write_timeout(patience)
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(patience)?;
                stream.set_write_timeout(patience)
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                // A request is a message of its own, not worth waiting to fill a packet.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The handshake on any stream, with GO or INFO. No byte behind it is read, as that is the kernel's.
fn shake_hands(stream: &mut (impl Read + Write), export: &str, option: u32) -> Result<Told, ClientError> {
    let protocol = |what: &str| ClientError::Protocol(what.to_owned());
    if u64::from_be_bytes(take(stream)?) != MAGIC || u64::from_be_bytes(take(stream)?) != OPTION_MAGIC {
        return Err(protocol("it is no NBD server of the newstyle"));
    }
    let offered = u16::from_be_bytes(take(stream)?);
    if offered & FIXED_NEWSTYLE == 0 {
        return Err(protocol("it does not speak fixed newstyle"));
    }
    let name = u32::try_from(export.len()).map_err(|_| protocol("the name of the export is too long"))?;
    let mut request = Vec::new();
    request.extend(u32::from(offered & (FIXED_NEWSTYLE | NO_ZEROES)).to_be_bytes());
    request.extend(OPTION_MAGIC.to_be_bytes());
    request.extend(option.to_be_bytes());
    request.extend(name.saturating_add(8).to_be_bytes());
    request.extend(name.to_be_bytes());
    request.extend(export.as_bytes());
    request.extend(1_u16.to_be_bytes());
    request.extend(INFO_DESCRIPTION.to_be_bytes());
    stream.write_all(&request)?;

    let (mut told, mut contents, mut openings) = (None, None, None);
    loop {
        if u64::from_be_bytes(take(stream)?) != OPTION_REPLY_MAGIC
            || u32::from_be_bytes(take(stream)?) != option
        {
            return Err(protocol("what should be its answer to GO or INFO is none"));
        }
        let (kind, length) = (u32::from_be_bytes(take(stream)?), u32::from_be_bytes(take(stream)?));
        if length > REPLY_BYTES_MAX {
            return Err(protocol("its answer to GO is absurdly long"));
        }
        let mut payload = vec![0; usize::try_from(length).unwrap_or(0)];
        stream.read_exact(&mut payload)?;
        match kind {
            REPLY_ACK => {
                let told = told.ok_or_else(|| protocol("it did not say how large the export is"))?;
                return Ok(Told { contents, openings, ..told });
            }
            REPLY_INFO => {
                if let Some(description) = description_info(&payload) {
                    contents = contents_of(description).or(contents);
                    openings = openings_of(description).or(openings);
                }
                told = export_info(&payload).or(told);
            }
            REPLY_UNKNOWN => return Err(ClientError::NoExport(export.to_owned())),
            _ if kind & REPLY_ERROR != 0 => {
                let words = String::from_utf8_lossy(&payload);
                return Err(ClientError::Protocol(format!("it refused the export '{export}': {words}")));
            }
            _ => {}
        }
    }
}

fn export_info(payload: &[u8]) -> Option<Told> {
    let (kind, rest) = payload.split_first_chunk()?;
    let (size, flags) = rest.split_first_chunk()?;
    let flags = u16::from_be_bytes(flags.try_into().ok()?);
    (u16::from_be_bytes(*kind) == INFO_EXPORT).then_some(Told {
        size_bytes: u64::from_be_bytes(*size),
        flags,
        contents: None,
        openings: None,
    })
}

fn description_info(payload: &[u8]) -> Option<&str> {
    let (kind, description) = payload.split_first_chunk()?;
    std::str::from_utf8(description).ok().filter(|_| u16::from_be_bytes(*kind) == INFO_DESCRIPTION)
}

fn contents_of(description: &str) -> Option<String> {
    let (_, contents) = description.rsplit_once(CONTENTS)?;
    Some(contents.to_owned())
}

fn openings_of(description: &str) -> Option<(u64, u64)> {
    let (before, _) = description.rsplit_once(CONTENTS)?;
    let (since, now) = before.rsplit_once(OPENINGS)?.1.split_once('-')?;
    Some((since.parse().ok()?, now.parse().ok()?))
}

fn take<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A server that says `bytes` and hears everything.
    fn against(bytes: &[u8]) -> Result<Told, ClientError> {
        struct Said<'a>(&'a [u8], Vec<u8>);
        impl Read for Said<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(buffer)
            }
        }
        impl Write for Said<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        shake_hands(&mut Said(bytes, Vec::new()), "db1", OPTION_GO)
    }

    fn greeting(flags: u16) -> Vec<u8> {
        [&MAGIC.to_be_bytes()[..], &OPTION_MAGIC.to_be_bytes(), &flags.to_be_bytes()].concat()
    }

    fn reply(kind: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        let head = [OPTION_GO, kind, length].map(u32::to_be_bytes).concat();
        [&OPTION_REPLY_MAGIC.to_be_bytes()[..], &head, payload].concat()
    }

    #[test]
    fn an_export_is_entered() {
        let export =
            [&0_u16.to_be_bytes()[..], &(1_u64 << 40).to_be_bytes(), &0x16d_u16.to_be_bytes()].concat();
        let other = [&3_u16.to_be_bytes()[..], &[0; 12]].concat();
        let described = |words: &str| [&2_u16.to_be_bytes()[..], words.as_bytes()].concat();
        let said =
            [greeting(3), reply(REPLY_INFO, &export), reply(REPLY_INFO, &other), reply(REPLY_ACK, b"")];
        let told = against(&said.concat()).unwrap();
        assert_eq!(told, Told { size_bytes: 1 << 40, flags: 0x16d, contents: None, openings: None });
        for (description, contents, openings) in [
            ("a disk of 1 TiB", None, None),
            ("a disk, contents 7 of 1 TiB, contents 1f-295", Some("1f-295".to_owned()), None),
            ("a disk, openings 9-12, contents 1f-295", Some("1f-295".to_owned()), Some((9, 12))),
            ("a disk, openings 9, contents 1f-295", Some("1f-295".to_owned()), None),
        ] {
            let description = reply(REPLY_INFO, &described(description));
            let said = [greeting(3), description, reply(REPLY_INFO, &export), reply(REPLY_ACK, b"")];
            let told = against(&said.concat()).unwrap();
            assert_eq!((told.contents, told.openings), (contents, openings));
        }
    }

    #[test]
    fn refusals_and_nonsense_are_named() {
        for (said, why) in [
            (greeting(0), "fixed newstyle"),
            (vec![b'x'; 64], "no NBD server"),
            ([greeting(1), reply(REPLY_UNKNOWN, b"")].concat(), "no export 'db1'"),
            ([greeting(1), reply(REPLY_ERROR | 5, b"TLS first")].concat(), "TLS first"),
            ([greeting(1), reply(REPLY_ACK, b"")].concat(), "how large"),
            ([greeting(1), vec![7; 20]].concat(), "is none"),
        ] {
            let error = against(&said).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        let hung_up = against(&greeting(1)).unwrap_err();
        assert!(matches!(hung_up, ClientError::Away(_)), "{hung_up}");
    }

    /// The kernel would wait for its answers no longer than we do for ours.
    #[test]
    fn the_kernel_gets_a_socket_without_our_patience() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let export = [&0_u16.to_be_bytes()[..], &4096_u64.to_be_bytes(), &1_u16.to_be_bytes()].concat();
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .write_all(&[greeting(1), reply(REPLY_INFO, &export), reply(REPLY_ACK, b"")].concat())
                .unwrap();
            stream
        });
        let uri = NbdUri { server: ListenAddress::Unix(path), export: String::new() };
        let (connection, told) = Connection::open(&uri).unwrap();
        assert_eq!(told.size_bytes, 4096);
        let Connection::Unix(stream) = &connection else { panic!("a unix socket") };
        assert_eq!((stream.read_timeout().unwrap(), stream.write_timeout().unwrap()), (None, None));
        drop(server.join().unwrap());
    }
}

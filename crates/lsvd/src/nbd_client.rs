//! A small blocking NBD client over a unix socket, for `lsvd demo` and the tests: simple replies, many in flight.
//!
//! Knows the protocol from its specification (fixed newstyle, NBD_OPT_GO, simple replies) and shares no code with
//! the server, so that one mistake is not made on both sides. Invariants: 1. at most `depth` requests are in flight;
//! 2. every reply is matched by its cookie; 3. no call waits longer than [`PATIENCE`] for a byte.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a call waits for the server's next byte: more than a daemon's own patience with its store.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_ERROR: u32 = 1 << 31;
const FLAG_FUA: u16 = 1;
const COMMAND_DISCONNECT: u16 = 2;
/// No reply to an option is near this long: what is longer is no NBD server.
const OPTION_REPLY_BYTES_MAX: u32 = 64 << 10;

/// A request, with the bytes that it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Reads `length_bytes` from `offset_bytes`.
    Read { offset_bytes: u64, length_bytes: u32 },
    /// Writes `data` at `offset_bytes`.
    Write { offset_bytes: u64, data: Vec<u8>, fua: bool },
    /// Makes completed writes durable.
    Flush,
    /// Discards a range.
    Trim { offset_bytes: u64, length_bytes: u32 },
}

/// A connection to one export.
#[derive(Debug)]
pub(crate) struct Client {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    size_bytes: u64,
    flags: u16,
    next_cookie: u64,
}

impl Client {
    /// Connects to the socket at `path` and enters the export `name`.
    pub(crate) fn connect(path: &Path, name: &str) -> io::Result<Self> {
        let writer = UnixStream::connect(path)?;
        writer.set_read_timeout(Some(PATIENCE))?;
        writer.set_write_timeout(Some(PATIENCE))?;
        let reader = BufReader::with_capacity(256 << 10, writer.try_clone()?);
        let mut client = Self { reader, writer, size_bytes: 0, flags: 0, next_cookie: 1 };
        client.handshake(name)?;
        Ok(client)
    }

    /// Size of the export in bytes, as the server told it.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The transmission flags, as the server told them.
    pub(crate) fn flags(&self) -> u16 {
        self.flags
    }

    fn handshake(&mut self, name: &str) -> io::Result<()> {
        if self.u64()? != MAGIC || self.u64()? != OPTION_MAGIC {
            return Err(protocol("the peer is no NBD server of the newstyle"));
        }
        let offered = self.u16()?;
        let wanted: u32 = 1;
        if u32::from(offered) & wanted == 0 {
            return Err(protocol("the server does not speak fixed newstyle"));
        }
        let name_length = u32::try_from(name.len()).map_err(|_| protocol("the name is too long"))?;
        let mut greeting = Vec::new();
        greeting.extend(wanted.to_be_bytes());
        greeting.extend(OPTION_MAGIC.to_be_bytes());
        greeting.extend(OPTION_GO.to_be_bytes());
        greeting.extend((name_length + 6).to_be_bytes());
        greeting.extend(name_length.to_be_bytes());
        greeting.extend(name.as_bytes());
        greeting.extend(0_u16.to_be_bytes());
        self.writer.write_all(&greeting)?;
        while !self.option_reply(name)? {}
        Ok(())
    }

    /// Reads one reply to the option; true if it was the last.
    fn option_reply(&mut self, name: &str) -> io::Result<bool> {
        if self.u64()? != OPTION_REPLY_MAGIC || self.u32()? != OPTION_GO {
            return Err(protocol("the reply to the option GO is none"));
        }
        let (kind, length) = (self.u32()?, self.u32()?);
        if length > OPTION_REPLY_BYTES_MAX {
            return Err(protocol("the reply to the option GO is absurdly long"));
        }
        let payload = self.bytes(length)?;
        match kind {
            REPLY_ACK => Ok(true),
            REPLY_INFO => {
                // Information of type 0 is the export: size in bytes, then flags.
                if let [0, 0, a, b, c, d, e, f, g, h, flags @ ..] = payload.as_slice()
                    && let [high, low] = flags
                {
                    self.size_bytes = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                    self.flags = u16::from_be_bytes([*high, *low]);
                }
                Ok(false)
            }
            _ if kind & REPLY_ERROR != 0 => {
                let words = String::from_utf8_lossy(&payload).into_owned();
                Err(io::Error::new(io::ErrorKind::NotFound, format!("the server refused '{name}': {words}")))
            }
            _ => Ok(false),
        }
    }

    /// Runs one request and returns what it read.
    pub(crate) fn call(&mut self, request: Request) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        self.pipeline([request].into_iter(), 1, |_, data| {
            answer = data;
            Ok(())
        })?;
        Ok(answer)
    }

    /// Runs `requests` with up to `depth` in flight; `done` sees each as it is answered, with what it read.
    pub(crate) fn pipeline(
        &mut self,
        requests: impl Iterator<Item = Request>,
        depth: usize,
        mut done: impl FnMut(&Request, Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut in_flight = HashMap::new();
        for request in requests {
            while in_flight.len() >= depth {
                self.complete(&mut in_flight, &mut done)?;
            }
            let cookie = self.send(&request)?;
            in_flight.insert(cookie, request);
        }
        while !in_flight.is_empty() {
            self.complete(&mut in_flight, &mut done)?;
        }
        Ok(())
    }

    /// Sends a request and waits for nothing; returns its cookie.
    pub(crate) fn send(&mut self, request: &Request) -> io::Result<u64> {
        let empty: &[u8] = &[];
        let (command, flags, offset, length, payload) = match request {
            Request::Read { offset_bytes, length_bytes } => (0_u16, 0, *offset_bytes, *length_bytes, empty),
            Request::Write { offset_bytes, data, fua } => {
                let length = u32::try_from(data.len()).map_err(|_| protocol("the write is too long"))?;
                (1, if *fua { FLAG_FUA } else { 0 }, *offset_bytes, length, data.as_slice())
            }
            Request::Flush => (3, 0, 0, 0, empty),
            Request::Trim { offset_bytes, length_bytes } => (4, 0, *offset_bytes, *length_bytes, empty),
        };
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        self.writer.write_all(&request_head(flags, command, cookie, offset, length))?;
        self.writer.write_all(payload)?;
        Ok(cookie)
    }

    fn complete(
        &mut self,
        in_flight: &mut HashMap<u64, Request>,
        done: &mut impl FnMut(&Request, Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.u32()? != REPLY_MAGIC {
            return Err(protocol("what should be a reply is none"));
        }
        let (errno, cookie) = (self.u32()?, self.u64()?);
        let request = in_flight.remove(&cookie).ok_or_else(|| protocol("a reply to what was not asked"))?;
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno.cast_signed()));
        }
        let data = match request {
            Request::Read { length_bytes, .. } => self.bytes(length_bytes)?,
            _ => Vec::new(),
        };
        done(&request, data)
    }

    /// Says goodbye, so that the server need not find out.
    pub(crate) fn disconnect(mut self) -> io::Result<()> {
        let head = request_head(0, COMMAND_DISCONNECT, 0, 0, 0);
        self.writer.write_all(&head)
    }

    fn bytes(&mut self, length: u32) -> io::Result<Vec<u8>> {
        let length = usize::try_from(length).map_err(|_| protocol("longer than memory"))?;
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u16(&mut self) -> io::Result<u16> {
        let mut bytes = [0; 2];
        self.reader.read_exact(&mut bytes).map(|()| u16::from_be_bytes(bytes))
    }

    fn u32(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.reader.read_exact(&mut bytes).map(|()| u32::from_be_bytes(bytes))
    }

    fn u64(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.reader.read_exact(&mut bytes).map(|()| u64::from_be_bytes(bytes))
    }
}

fn request_head(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut head = Vec::with_capacity(28);
    head.extend(REQUEST_MAGIC.to_be_bytes());
    head.extend(flags.to_be_bytes());
    head.extend(command.to_be_bytes());
    head.extend(cookie.to_be_bytes());
    head.extend(offset.to_be_bytes());
    head.extend(length.to_be_bytes());
    head
}

fn protocol(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

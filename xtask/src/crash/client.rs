//! An NBD connection over a unix socket: fixed newstyle, OPT_GO, simple replies, any number of requests in flight.
//!
//! Made from the protocol's document. Knows no history: the sending half sends, the receiving half says which cookie was
//! answered with which error. Invariant: no call waits longer than [`PATIENCE`] for a byte.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::history::{Kind, Op, SECTOR_BYTES, Value, fill, values};

/// How long a call waits for the server's next byte: more than a daemon's own patience with its store.
pub(crate) const PATIENCE: Duration = Duration::from_secs(100);

const GREETING: &[u8; 16] = b"NBDMAGICIHAVEOPT";
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_ERROR: u32 = 1 << 31;
const READ: u16 = 0;
const DISCONNECT: u16 = 2;
const FLAG_FUA: u16 = 1;
/// What is read at once.
const READ_BYTES: u32 = 1 << 20;

/// The half that sends.
#[derive(Debug)]
pub(crate) struct Sender(UnixStream);

/// The half that receives.
#[derive(Debug)]
pub(crate) struct Receiver(BufReader<UnixStream>);

/// Connects to the socket at `path` and enters the export `name`; says the export's size in bytes too.
pub(crate) fn connect(path: &Path, name: &str) -> io::Result<(Sender, Receiver, u64)> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut receiver = Receiver(BufReader::with_capacity(256 << 10, stream.try_clone()?));
    if receiver.bytes::<16>()? != *GREETING || receiver.bytes::<2>()?[1] & 1 == 0 {
        return Err(protocol("the peer is no NBD server of the fixed newstyle"));
    }
    let length = u32::try_from(name.len()).map_err(|_| protocol("the name is too long"))?;
    let mut go = Vec::new();
    // The client's flags: fixed newstyle.
    go.extend(1_u32.to_be_bytes());
    go.extend(&GREETING[8..]);
    go.extend(OPTION_GO.to_be_bytes());
    go.extend((length + 6).to_be_bytes());
    go.extend(length.to_be_bytes());
    go.extend(name.as_bytes());
    go.extend(0_u16.to_be_bytes());
    stream.write_all(&go)?;
    let mut size_bytes = 0;
    loop {
        if u64::from_be_bytes(receiver.bytes()?) != OPTION_REPLY_MAGIC || receiver.u32()? != OPTION_GO {
            return Err(protocol("the reply to the option GO is none"));
        }
        let (kind, length) = (receiver.u32()?, receiver.u32()?);
        let mut payload = vec![0; usize::try_from(length.min(1 << 16)).unwrap_or(0)];
        receiver.0.read_exact(&mut payload)?;
        match kind {
            REPLY_ACK => return Ok((Sender(stream), receiver, size_bytes)),
            // Information of type 0 is the export.
            REPLY_INFO if payload.len() == 12 && payload[..2] == [0, 0] => {
                size_bytes = payload[2..10].iter().fold(0, |size, byte| size << 8 | u64::from(*byte));
            }
            kind if kind & REPLY_ERROR != 0 => {
                let words = String::from_utf8_lossy(&payload);
                return Err(protocol(&format!("the server refused '{name}': {words}")));
            }
            _ => {}
        }
    }
}

impl Sender {
    /// Sends a request and waits for nothing.
    pub(crate) fn send(&mut self, op: &Op, cookie: u64) -> io::Result<()> {
        let (offset, length) = (u64::from(op.first) * u64::from(SECTOR_BYTES), op.count * SECTOR_BYTES);
        let flags = if op.fua { FLAG_FUA } else { 0 };
        let (command, payload) = match op.kind {
            Kind::Write(number) => (1, fill(op.first, op.count, number)),
            Kind::Flush => (3, Vec::new()),
            Kind::Trim => (4, Vec::new()),
            Kind::Zero => (6, Vec::new()),
        };
        let mut bytes = head(flags, command, cookie, offset, length).to_vec();
        bytes.extend(payload);
        self.0.write_all(&bytes)
    }

    /// Says goodbye, so that the server need not find out.
    pub(crate) fn disconnect(mut self) {
        let _ = self.0.write_all(&head(0, DISCONNECT, 0, 0, 0));
    }
}

impl Receiver {
    /// Waits for an answer: its cookie, and its error or 0.
    pub(crate) fn answer(&mut self) -> io::Result<(u64, u32)> {
        if self.u32()? != REPLY_MAGIC {
            return Err(protocol("what should be a reply is none"));
        }
        let error = self.u32()?;
        Ok((u64::from_be_bytes(self.bytes()?), error))
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.bytes().map(u32::from_be_bytes)
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// Reads the whole export.
///
/// # Errors
/// If a read fails, or a sector is neither zeroes nor some write's.
pub(crate) fn read_all(path: &Path, name: &str) -> io::Result<Vec<Value>> {
    let (mut sender, mut receiver, size_bytes) = connect(path, name)?;
    let mut found = Vec::new();
    let mut at = 0;
    while at < size_bytes {
        let length = u32::try_from(size_bytes - at).unwrap_or(READ_BYTES).min(READ_BYTES);
        sender.0.write_all(&head(0, READ, at, at, length))?;
        let (_, error) = receiver.answer()?;
        if error != 0 {
            return Err(io::Error::other(format!("reading at byte {at} failed with error {error}")));
        }
        let mut bytes = vec![0; length as usize];
        receiver.0.read_exact(&mut bytes)?;
        let first =
            u32::try_from(at / u64::from(SECTOR_BYTES)).map_err(|_| protocol("the export is too large"))?;
        found.extend(values(first, &bytes).map_err(io::Error::other)?);
        at += u64::from(length);
    }
    sender.disconnect();
    Ok(found)
}

fn head(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> [u8; 28] {
    let mut head = [0; 28];
    head[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
    head[4..6].copy_from_slice(&flags.to_be_bytes());
    head[6..8].copy_from_slice(&command.to_be_bytes());
    head[8..16].copy_from_slice(&cookie.to_be_bytes());
    head[16..24].copy_from_slice(&offset.to_be_bytes());
    head[24..].copy_from_slice(&length.to_be_bytes());
    head
}

fn protocol(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

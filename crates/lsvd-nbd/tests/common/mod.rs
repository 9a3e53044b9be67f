//! What the integration tests share: an export in memory that does as it is told, a server around it, a raw client.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use lsvd_nbd::{
    ContextExtent, ContextStatus, Export, ExportError, ExportErrorKind, ExportInfo, ExtentStatus, Limits,
    Listener, MetaContext, ReadPiece, Server, ZeroFlags,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub const MIB: u32 = 1 << 20;
const BLOCK: u64 = 4096;

/// Nothing in these tests takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A call of the export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub command: u16,
    pub offset: u64,
    pub length: u64,
    pub fua: bool,
    pub zero: ZeroFlags,
}

/// What becomes of a call.
#[derive(Clone)]
pub enum Fate {
    Serve,
    Delay(Duration),
    /// Wait for a permit, then serve.
    Hold(Arc<Semaphore>),
    Fail(ExportErrorKind),
    Panic,
    /// Return a byte less than was asked for.
    Short,
}

type Script = Box<dyn Fn(&Call) -> Fate + Send + Sync>;

/// A sparse disk in memory.
pub struct MemoryExport {
    info: ExportInfo,
    blocks: Mutex<BTreeMap<u64, Vec<u8>>>,
    calls: Mutex<Vec<Call>>,
    script: Script,
    /// What it has grown to, beyond what connections were told.
    grown: std::sync::atomic::AtomicU64,
}

impl MemoryExport {
    pub fn new(info: ExportInfo) -> Self {
        Self::scripted(info, |_| Fate::Serve)
    }

    pub fn scripted(info: ExportInfo, script: impl Fn(&Call) -> Fate + Send + Sync + 'static) -> Self {
        Self {
            info,
            blocks: Mutex::default(),
            calls: Mutex::default(),
            script: Box::new(script),
            grown: 0.into(),
        }
    }

    /// It has this size from now on.
    pub fn grow(&self, size_bytes: u64) {
        self.grown.store(size_bytes, std::sync::atomic::Ordering::Relaxed);
    }

    /// Calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub fn bytes(&self, offset: u64, length: u64) -> Vec<u8> {
        self.pieces(offset, length)
            .into_iter()
            .flat_map(|piece| match piece {
                ReadPiece::Data(data) => data.to_vec(),
                ReadPiece::Hole(length) => vec![0; length as usize],
            })
            .collect()
    }

    async fn meet(&self, call: Call) -> Result<bool, ExportError> {
        self.calls.lock().unwrap().push(call.clone());
        match (self.script)(&call) {
            Fate::Serve => Ok(false),
            Fate::Delay(time) => {
                tokio::time::sleep(time).await;
                Ok(false)
            }
            Fate::Hold(gate) => {
                gate.acquire().await.unwrap().forget();
                Ok(false)
            }
            Fate::Fail(kind) => Err(ExportError::new(kind, "as the script says")),
            Fate::Panic => panic!("as the script says"),
            Fate::Short => Ok(true),
        }
    }

    fn pieces(&self, offset: u64, length: u64) -> Vec<ReadPiece> {
        let blocks = self.blocks.lock().unwrap();
        let (mut at, end) = (offset, offset + length);
        let mut pieces = Vec::new();
        while at < end {
            let stop = end.min((at / BLOCK + 1) * BLOCK);
            pieces.push(match blocks.get(&(at / BLOCK)) {
                Some(block) => {
                    let start = (at % BLOCK) as usize;
                    ReadPiece::Data(Bytes::copy_from_slice(&block[start..start + (stop - at) as usize]))
                }
                None => ReadPiece::Hole(stop - at),
            });
            at = stop;
        }
        pieces
    }

    fn put(&self, offset: u64, data: &[u8]) {
        let mut blocks = self.blocks.lock().unwrap();
        let (mut at, mut data) = (offset, data);
        while !data.is_empty() {
            let start = (at % BLOCK) as usize;
            let count = data.len().min(BLOCK as usize - start);
            let block = blocks.entry(at / BLOCK).or_insert_with(|| vec![0; BLOCK as usize]);
            block[start..start + count].copy_from_slice(&data[..count]);
            at += count as u64;
            data = &data[count..];
        }
    }

    /// Whole blocks are forgotten, the rest is overwritten.
    fn zero(&self, offset: u64, length: u64) {
        let end = offset + length;
        let (first, last) = (offset.div_ceil(BLOCK), end / BLOCK);
        if first >= last {
            self.put(offset, &vec![0; length as usize]);
            return;
        }
        self.put(offset, &vec![0; (first * BLOCK - offset) as usize]);
        self.put(last * BLOCK, &vec![0; (end - last * BLOCK) as usize]);
        self.blocks.lock().unwrap().retain(|block, _| !(first..last).contains(block));
    }
}

fn call(command: u16, offset: u64, length: u64, fua: bool) -> Call {
    Call { command, offset, length, fua, zero: ZeroFlags::default() }
}

/// Says of each block whether its number is odd; or nothing, or that it fails.
#[derive(Debug)]
struct Blocks {
    name: String,
}

impl MetaContext for Blocks {
    fn name(&self) -> &str {
        &self.name
    }

    fn status(&self, offset: u64, length: u64) -> ContextStatus<'_> {
        Box::pin(async move {
            match self.name.as_str() {
                "test:silent" => return Ok(Vec::new()),
                "test:failing" => return Err(ExportError::new(ExportErrorKind::Io, "as its name says")),
                _ => {}
            }
            let extent = |block: u64| {
                let (start, end) = ((block * BLOCK).max(offset), ((block + 1) * BLOCK).min(offset + length));
                ContextExtent { length_bytes: end - start, flags: (block % 2) as u32 }
            };
            // It may stop early.
            let end = (offset + length).min(offset + 8 * BLOCK);
            Ok((offset / BLOCK..end.div_ceil(BLOCK)).map(extent).collect())
        })
    }
}

impl Export for MemoryExport {
    async fn list_contexts(&self, query: &str) -> Vec<String> {
        let known = ["test:odd", "test:silent", "test:failing"].map(str::to_owned);
        known.into_iter().filter(|name| query == "test:" || query == name).collect()
    }

    async fn open_context(&self, name: &str) -> Option<Arc<dyn MetaContext>> {
        let found = self.list_contexts(name).await.pop()?;
        Some(Arc::new(Blocks { name: found }))
    }

    fn size_bytes(&self) -> u64 {
        self.info.size_bytes.max(self.grown.load(std::sync::atomic::Ordering::Relaxed))
    }

    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    async fn read(&self, offset: u64, length: u32) -> Result<Vec<ReadPiece>, ExportError> {
        let short = self.meet(call(cmd::READ, offset, length.into(), false)).await?;
        Ok(self.pieces(offset, u64::from(length) - u64::from(short)))
    }

    async fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<(), ExportError> {
        self.meet(call(cmd::WRITE, offset, data.len() as u64, fua)).await?;
        self.put(offset, &data);
        Ok(())
    }

    async fn flush(&self) -> Result<(), ExportError> {
        self.meet(call(cmd::FLUSH, 0, 0, false)).await.map(|_| ())
    }

    async fn trim(&self, offset: u64, length: u64, fua: bool) -> Result<(), ExportError> {
        self.meet(call(cmd::TRIM, offset, length, fua)).await?;
        self.zero(offset, length);
        Ok(())
    }

    async fn write_zeroes(&self, offset: u64, length: u64, zero: ZeroFlags) -> Result<(), ExportError> {
        self.meet(Call { zero, ..call(cmd::WRITE_ZEROES, offset, length, zero.fua) }).await?;
        self.zero(offset, length);
        Ok(())
    }

    async fn cache(&self, offset: u64, length: u64) -> Result<(), ExportError> {
        self.meet(call(cmd::CACHE, offset, length, false)).await.map(|_| ())
    }

    async fn block_status(&self, offset: u64, length: u64) -> Result<Vec<ExtentStatus>, ExportError> {
        self.meet(call(cmd::BLOCK_STATUS, offset, length, false)).await?;
        let blocks = self.blocks.lock().unwrap();
        let (mut at, end) = (offset, offset + length);
        let mut extents = Vec::new();
        for (block, _) in blocks.range(offset / BLOCK..end.div_ceil(BLOCK)) {
            let (start, stop) = ((block * BLOCK).max(at), end.min((block + 1) * BLOCK));
            if start > at {
                extents.push(ExtentStatus { length_bytes: start - at, hole: true, zero: true });
            }
            extents.push(ExtentStatus { length_bytes: stop - start, hole: false, zero: false });
            at = stop;
        }
        if at < end {
            extents.push(ExtentStatus { length_bytes: end - at, hole: true, zero: true });
        }
        Ok(extents)
    }
}

/// A server on a unix socket in a directory of its own.
pub struct Running {
    pub export: Arc<MemoryExport>,
    pub server: Server<MemoryExport>,
    pub socket: PathBuf,
    pub task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
    _directory: tempfile::TempDir,
}

impl Running {
    pub async fn start(export: MemoryExport, limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("nbd.sock");
        let export = Arc::new(export);
        let exports = vec![("disk".to_owned(), export.clone())];
        let server = Server::new(exports, Some("disk".to_owned()), limits).unwrap();
        let listener = Listener::bind_unix(&socket).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = server.clone();
        let task = tokio::spawn(async move {
            serving
                .serve(listener, async {
                    stopped.await.ok();
                })
                .await;
        });
        Self { export, server, socket, task, stop: Some(stop), _directory: directory }
    }

    /// Tells the server to shut down.
    pub fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub async fn stream(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    pub async fn client(&self) -> Client<UnixStream> {
        Client::structured(self.stream().await).await
    }

    pub async fn simple_client(&self) -> Client<UnixStream> {
        Client::simple(self.stream().await).await
    }

    /// Proves that the server is there for new clients.
    pub async fn assert_well(&self) {
        let mut client = self.client().await;
        client.read(0, 4096).await.unwrap();
        client.disconnect().await;
    }
}

/// Numbers of commands.
pub mod cmd {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

pub const EPERM: u32 = 1;
pub const EIO: u32 = 5;
pub const EINVAL: u32 = 22;
pub const ENOSPC: u32 = 28;
pub const EOVERFLOW: u32 = 75;
pub const ENOTSUP: u32 = 95;
pub const ESHUTDOWN: u32 = 108;

/// A message of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Simple { cookie: u64, error: u32 },
    Chunk { done: bool, kind: u16, cookie: u64, payload: Vec<u8> },
}

impl Message {
    pub fn cookie(&self) -> u64 {
        match self {
            Self::Simple { cookie, .. } | Self::Chunk { cookie, .. } => *cookie,
        }
    }
}

/// A client that says exactly what it is told to.
pub struct Client<S> {
    pub stream: S,
    pub size: u64,
    pub flags: u16,
    structured: bool,
}

pub fn request(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    bytes.put_u32(0x2560_9513);
    bytes.put_u16(flags);
    bytes.put_u16(command);
    bytes.put_u64(cookie);
    bytes.put_u64(offset);
    bytes.put_u32(length);
    bytes
}

pub fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.put_u32(number);
    bytes.put_u32(data.len() as u32);
    bytes.put_slice(data);
    bytes
}

/// Data of a GO for the export, which is also the head of a SET_META_CONTEXT's.
pub fn go_data(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u32(name.len() as u32);
    bytes.put_slice(name.as_bytes());
    bytes.put_u16(0);
    bytes
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Chooses the default export with EXPORT_NAME and nothing else.
    pub async fn simple(mut stream: S) -> Self {
        greet(&mut stream).await;
        stream.write_all(&option(1, b"")).await.unwrap();
        let (size, flags) = (stream.read_u64().await.unwrap(), stream.read_u16().await.unwrap());
        Self { stream, size, flags, structured: false }
    }

    /// Chooses the default export with structured replies and `base:allocation`.
    pub async fn structured(mut stream: S) -> Self {
        greet(&mut stream).await;
        assert_eq!(ask(&mut stream, 8, b"").await, [(1, vec![])]);
        let contexts = b"\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation";
        assert_eq!(ask(&mut stream, 10, contexts).await.len(), 2);
        let replies = ask(&mut stream, 7, &go_data("")).await;
        assert_eq!(replies.last(), Some(&(1, vec![])), "{replies:?}");
        let mut info = &replies[0].1[2..];
        Self { stream, size: info.get_u64(), flags: info.get_u16(), structured: true }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the server reads").unwrap();
    }

    /// The next message; a successful simple reply to a read is not followed further.
    pub async fn receive(&mut self) -> Message {
        timeout(PATIENCE, self.receive_for_ever()).await.expect("the server answers")
    }

    async fn receive_for_ever(&mut self) -> Message {
        let stream = &mut self.stream;
        match stream.read_u32().await.unwrap() {
            0x6744_6698 => {
                let error = stream.read_u32().await.unwrap();
                Message::Simple { cookie: stream.read_u64().await.unwrap(), error }
            }
            0x668E_33EF => {
                assert!(self.structured);
                let flags = stream.read_u16().await.unwrap();
                let kind = stream.read_u16().await.unwrap();
                let cookie = stream.read_u64().await.unwrap();
                let mut payload = vec![0; stream.read_u32().await.unwrap() as usize];
                stream.read_exact(&mut payload).await.unwrap();
                Message::Chunk { done: flags & 1 != 0, kind, cookie, payload }
            }
            magic => panic!("a reply begins with {magic:#x}"),
        }
    }

    /// One request and its whole answer, by itself on the connection: what was read, or the error's number.
    pub async fn call(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        length: u32,
        payload: &[u8],
    ) -> Result<Vec<u8>, u32> {
        self.send(&[&request(command, flags, 42, offset, length), payload].concat()).await;
        let mut answer = Assembly::new(offset, if command == cmd::READ { length } else { 0 });
        loop {
            let message = self.receive().await;
            assert_eq!(message.cookie(), 42);
            if !self.structured && command == cmd::READ && matches!(message, Message::Simple { error: 0, .. })
            {
                let mut data = vec![0; length as usize];
                self.stream.read_exact(&mut data).await.unwrap();
                return Ok(data);
            }
            if let Some(result) = answer.take(message) {
                return result;
            }
        }
    }

    pub async fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>, u32> {
        self.call(cmd::READ, 0, offset, length, &[]).await
    }

    pub async fn write(&mut self, offset: u64, data: &[u8]) -> Result<Vec<u8>, u32> {
        self.call(cmd::WRITE, 0, offset, data.len() as u32, data).await
    }

    pub async fn disconnect(mut self) {
        self.send(&request(cmd::DISC, 0, 0, 0, 0)).await;
        self.assert_closed().await;
    }

    pub async fn assert_closed(&mut self) {
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("the server closes");
        // What the server left unread makes its kernel reset the connection.
        assert!(rest.is_empty() || end.is_err(), "{rest:?}");
    }
}

/// The answer to one request, put together from its messages.
pub struct Assembly {
    offset: u64,
    data: Vec<u8>,
    seen: usize,
    error: Option<u32>,
}

impl Assembly {
    pub fn new(offset: u64, length: u32) -> Self {
        Self { offset, data: vec![0xEE; length as usize], seen: 0, error: None }
    }

    /// Takes the next message in; the result when it was the last. BLOCK_STATUS gives its payload.
    pub fn take(&mut self, message: Message) -> Option<Result<Vec<u8>, u32>> {
        let (done, kind, payload) = match message {
            Message::Simple { error: 0, .. } => return Some(Ok(Vec::new())),
            Message::Simple { error, .. } => return Some(Err(error)),
            Message::Chunk { done, kind, payload, .. } => (done, kind, payload),
        };
        let mut rest = &payload[..];
        match kind {
            0 => assert!(done && rest.is_empty()),
            1 => {
                let at = (rest.get_u64() - self.offset) as usize;
                assert!(!rest.is_empty());
                self.data[at..at + rest.len()].copy_from_slice(rest);
                self.seen += rest.len();
            }
            2 => {
                let (at, length) = ((rest.get_u64() - self.offset) as usize, rest.get_u32() as usize);
                assert!(length > 0 && rest.is_empty());
                self.data[at..at + length].fill(0);
                self.seen += length;
            }
            5 => {
                assert!(done);
                return Some(Ok(payload));
            }
            0x8001 => {
                self.error = Some(rest.get_u32());
                assert_eq!(rest.get_u16() as usize, rest.len());
                assert!(!rest.is_empty(), "an error says why");
            }
            kind => panic!("a chunk of kind {kind}"),
        }
        if !done {
            return None;
        }
        Some(match self.error {
            Some(error) => Err(error),
            None => {
                assert_eq!(self.seen, self.data.len(), "every byte is told once");
                Ok(std::mem::take(&mut self.data))
            }
        })
    }
}

/// Reads the greeting and answers it with all flags.
pub async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let mut greeting = [0; 18];
    timeout(PATIENCE, stream.read_exact(&mut greeting)).await.expect("a greeting").unwrap();
    assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\x00\x03");
    stream.write_all(&[0, 0, 0, 3]).await.unwrap();
}

/// Sends an option; returns kinds and data of all replies.
pub async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    number: u32,
    data: &[u8],
) -> Vec<(u32, Vec<u8>)> {
    stream.write_all(&option(number, data)).await.unwrap();
    let mut replies = Vec::new();
    let all = async {
        loop {
            assert_eq!(stream.read_u64().await.unwrap(), 0x0003_E889_0455_65A9);
            assert_eq!(stream.read_u32().await.unwrap(), number);
            let kind = stream.read_u32().await.unwrap();
            let mut data = vec![0; stream.read_u32().await.unwrap() as usize];
            stream.read_exact(&mut data).await.unwrap();
            replies.push((kind, data));
            if kind == 1 || kind >= 1 << 31 {
                break;
            }
        }
    };
    timeout(PATIENCE, all).await.expect("the server answers");
    replies
}

/// Is there such a program?
pub fn is_installed(program: &str) -> bool {
    let found = Path::new(program).exists();
    if !found {
        eprintln!("skipped: there is no {program}; Debian has it in libnbd-bin and python3-libnbd");
    }
    found
}

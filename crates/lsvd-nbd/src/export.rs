//! What the server asks of a block device: the [`Export`] trait and its words.
//!
//! Defined here, by the one who calls it. It does not know NBD's numbers: those are `transmission`'s.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use crate::context::MetaContext;

/// What a client is told of an export when it connects. Taken once per connection: a change is seen by later ones, but for a
/// size that has grown, see [`Export::size_bytes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Refuse all that writes.
    pub read_only: bool,
    /// For people; empty if there is nothing to say.
    pub description: String,
    /// A flush on one connection covers what completed on all of them, and each sees the others' writes at once.
    pub can_multi_conn: bool,
    /// Requests of this size and alignment in bytes are the cheap ones. Rounded to a power of two from 512.
    pub block_size_preferred: u32,
    /// TRIM is offered.
    pub can_trim: bool,
    /// [`Export::write_zeroes`] honours [`ZeroFlags::fast`]: the flag is offered only then.
    pub fast_zero: bool,
    /// The namespace of its metadata contexts beside `base:allocation`, with the colon; without one it is asked for none.
    pub context_namespace: Option<&'static str>,
}

impl ExportInfo {
    /// A writable export of `size_bytes` with trim, 4 KiB blocks, and none of the promises that must be earned.
    pub fn new(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            read_only: false,
            description: String::new(),
            can_multi_conn: false,
            block_size_preferred: 4096,
            can_trim: true,
            fast_zero: false,
            context_namespace: None,
        }
    }
}

/// A run of bytes that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadPiece {
    /// These bytes. They are sent from where they are, without a copy.
    Data(Bytes),
    /// This many bytes that read as zeroes.
    Hole(u64),
}

impl ReadPiece {
    /// Length in bytes.
    pub fn length_bytes(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Hole(length_bytes) => *length_bytes,
        }
    }
}

/// A run of bytes and whether it is allocated, as `base:allocation` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentStatus {
    /// Length in bytes, not 0.
    pub length_bytes: u64,
    /// Nothing is stored for it.
    pub hole: bool,
    /// It reads as zeroes.
    pub zero: bool,
}

/// How to write zeroes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroFlags {
    /// Durable before the answer.
    pub fua: bool,
    /// Keep the range allocated.
    pub no_hole: bool,
    /// Only if it is faster than writing that many bytes, else [`ExportErrorKind::NotSupported`] at once with nothing
    /// changed. Never set unless [`ExportInfo::fast_zero`].
    pub fast: bool,
}

/// Why a request failed, by what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExportErrorKind {
    /// EPERM: not allowed; asking again is useless.
    Permission,
    /// EIO: the device could not; what it held before is not in doubt unless the request wrote.
    Io,
    /// ENOMEM: no memory for it now.
    NoMemory,
    /// EINVAL: the request makes no sense for this device.
    Invalid,
    /// ENOSPC: no room.
    NoSpace,
    /// EOVERFLOW: too much at once; ask for less. Told as EINVAL where the protocol has no such answer.
    Overflow,
    /// ENOTSUP: a fast zero that would not be fast. Told as EINVAL for all else.
    NotSupported,
    /// ESHUTDOWN: the device serves no more; the client must disconnect.
    Shutdown,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExportError {
    /// What the client is told.
    pub kind: ExportErrorKind,
    /// For people, short. Sent to clients that negotiated structured replies: keep secrets out (rule 11).
    pub message: String,
}

impl ExportError {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ExportErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// A block device that can be served.
///
/// Requests run concurrently, each in a task of its own, and are answered as they complete. The server keeps every
/// range within the size that was told or [`Export::size_bytes`], and non-empty, and calls nothing that writes on a read-only export. A
/// request whose client has vanished still runs to its end. A panic fails its request with EIO and nothing else.
///
/// # Errors
/// Of every method: an [`ExportError`] becomes the error that the client sees; the connection goes on.
pub trait Export: Send + Sync + 'static {
    /// What clients are told.
    fn info(&self) -> ExportInfo;

    /// The size now, in bytes. It may change: an export that has shrunk refuses what reaches beyond it by itself. Asked when a
    /// request reaches beyond what its client was told, as the kernel's does that was told a larger size by its own ways.
    fn size_bytes(&self) -> u64 {
        self.info().size_bytes
    }

    /// Reads; the pieces' lengths sum to `length_bytes`, in order.
    fn read(
        &self,
        offset_bytes: u64,
        length_bytes: u32,
    ) -> impl Future<Output = Result<Vec<ReadPiece>, ExportError>> + Send;

    /// Writes; with `fua` it is durable before it returns.
    fn write(
        &self,
        offset_bytes: u64,
        data: Bytes,
        fua: bool,
    ) -> impl Future<Output = Result<(), ExportError>> + Send;

    /// Makes durable all that had completed before the call, on whichever connection if
    /// [`ExportInfo::can_multi_conn`].
    fn flush(&self) -> impl Future<Output = Result<(), ExportError>> + Send;

    /// Forgets the range as far as the device cares to. Up to 4 GiB at once.
    fn trim(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        fua: bool,
    ) -> impl Future<Output = Result<(), ExportError>> + Send;

    /// Makes the range read as zeroes. Up to 4 GiB at once.
    fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        flags: ZeroFlags,
    ) -> impl Future<Output = Result<(), ExportError>> + Send;

    /// Hears that the range will be read soon. By default nothing is done about it.
    fn cache(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> impl Future<Output = Result<(), ExportError>> + Send {
        let _ = (offset_bytes, length_bytes);
        async { Ok(()) }
    }

    /// Tells what is allocated from `offset_bytes` on: at least one extent; it may stop before `length_bytes` are
    /// covered, and the client asks again from there.
    fn block_status(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> impl Future<Output = Result<Vec<ExtentStatus>, ExportError>> + Send;

    /// Names of its metadata contexts that a query is about: a whole name, or one that ends with a colon and stands for all
    /// below it. Asked only of queries in [`ExportInfo::context_namespace`]; who can not tell tells none.
    fn list_contexts(&self, query: &str) -> impl Future<Output = Vec<String>> + Send {
        let _ = query;
        async { Vec::new() }
    }

    /// The metadata context of this name for a client that selects it; `None` if there is none, or it can not be had now: the
    /// client is not given it then, as the protocol says of unknown names.
    fn open_context(&self, name: &str) -> impl Future<Output = Option<Arc<dyn MetaContext>>> + Send {
        let _ = name;
        async { None }
    }
}

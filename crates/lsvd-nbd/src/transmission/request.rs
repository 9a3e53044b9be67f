//! Bytes → the head of a request. It judges nothing but the magic: the gate does.

use bytes::Buf;

/// Length of a request's head.
pub(crate) const REQUEST_HEAD_BYTES: usize = 28;

const REQUEST_MAGIC: u32 = 0x2560_9513;

/// Numbers of commands.
pub(super) mod command {
    pub(in super::super) const READ: u16 = 0;
    pub(in super::super) const WRITE: u16 = 1;
    pub(in super::super) const DISCONNECT: u16 = 2;
    pub(in super::super) const FLUSH: u16 = 3;
    pub(in super::super) const TRIM: u16 = 4;
    pub(in super::super) const CACHE: u16 = 5;
    pub(in super::super) const WRITE_ZEROES: u16 = 6;
    pub(in super::super) const BLOCK_STATUS: u16 = 7;
}

/// Flags of commands.
pub(super) mod flag {
    pub(in super::super) const FUA: u16 = 1 << 0;
    pub(in super::super) const NO_HOLE: u16 = 1 << 1;
    pub(in super::super) const DF: u16 = 1 << 2;
    pub(in super::super) const REQ_ONE: u16 = 1 << 3;
    pub(in super::super) const FAST_ZERO: u16 = 1 << 4;
}

/// The head of a request as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    /// The client's, returned with the reply.
    pub(crate) cookie: u64,
    pub(crate) offset_bytes: u64,
    pub(crate) length_bytes: u32,
}

/// There is no telling where the next request begins: close.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request begins with {0:#010x}")]
pub(crate) struct BadMagic(u32);

impl RequestHead {
    pub(crate) fn decode(bytes: &[u8; REQUEST_HEAD_BYTES]) -> Result<Self, BadMagic> {
        let mut bytes = bytes.as_slice();
        let magic = bytes.get_u32();
        if magic != REQUEST_MAGIC {
            return Err(BadMagic(magic));
        }
        Ok(Self {
            flags: bytes.get_u16(),
            command: bytes.get_u16(),
            cookie: bytes.get_u64(),
            offset_bytes: bytes.get_u64(),
            length_bytes: bytes.get_u32(),
        })
    }

    /// Bytes that follow the head, whatever becomes of the request.
    pub(crate) fn payload_bytes(&self) -> u32 {
        if self.command == command::WRITE { self.length_bytes } else { 0 }
    }
}

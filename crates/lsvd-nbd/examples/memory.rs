//! A disk in memory, served until interrupted: what the server itself costs, without any storage behind it.
//!
//!     cargo run --release -p lsvd-nbd --example memory -- unix:/tmp/memory.sock 4294967296
//!
//! It has no sparse map and no durability: to measure with, beside `nbdkit memory 4G`.

use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{Bytes, BytesMut};
use lsvd_nbd::{
    Export, ExportError, ExportInfo, ExtentStatus, Limits, ListenAddress, Listener, ReadPiece, Server,
    ZeroFlags,
};

const CHUNK_BYTES: u64 = 64 << 10;

/// Bytes of a chunk once it was written to.
type Chunk = RwLock<Option<Box<[u8]>>>;

/// Chunks that were written to; the others read as zeroes.
struct Memory {
    size_bytes: u64,
    chunks: Vec<Chunk>,
}

impl Memory {
    fn new(size_bytes: u64) -> Self {
        let chunks = (0..size_bytes.div_ceil(CHUNK_BYTES)).map(|_| RwLock::new(None)).collect();
        Self { size_bytes, chunks }
    }

    /// The chunk, the place in it and the length of each part of a range.
    fn parts(&self, offset_bytes: u64, length_bytes: u64) -> impl Iterator<Item = (&Chunk, usize, usize)> {
        let end = offset_bytes + length_bytes;
        let chunks = offset_bytes / CHUNK_BYTES..end.div_ceil(CHUNK_BYTES);
        chunks.map(move |chunk| {
            let start = offset_bytes.max(chunk * CHUNK_BYTES);
            let stop = end.min((chunk + 1) * CHUNK_BYTES);
            (&self.chunks[to_usize(chunk)], to_usize(start % CHUNK_BYTES), to_usize(stop - start))
        })
    }

    fn zero(&self, offset_bytes: u64, length_bytes: u64) {
        for (chunk, start, length) in self.parts(offset_bytes, length_bytes) {
            let mut chunk = chunk.write().unwrap_or_else(PoisonError::into_inner);
            if length as u64 == CHUNK_BYTES {
                *chunk = None;
            } else if let Some(bytes) = chunk.as_mut() {
                bytes[start..start + length].fill(0);
            }
        }
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it fits into memory")
}

impl Export for Memory {
    fn info(&self) -> ExportInfo {
        ExportInfo { can_multi_conn: true, fast_zero: true, ..ExportInfo::new(self.size_bytes) }
    }

    async fn read(&self, offset_bytes: u64, length_bytes: u32) -> Result<Vec<ReadPiece>, ExportError> {
        let pieces =
            self.parts(offset_bytes, length_bytes.into()).map(|(chunk, start, length)| {
                match &*chunk.read().unwrap_or_else(PoisonError::into_inner) {
                    Some(bytes) => ReadPiece::Data(BytesMut::from(&bytes[start..start + length]).freeze()),
                    None => ReadPiece::Hole(length as u64),
                }
            });
        Ok(pieces.collect())
    }

    async fn write(&self, offset_bytes: u64, data: Bytes, _fua: bool) -> Result<(), ExportError> {
        let mut rest = &data[..];
        for (chunk, start, length) in self.parts(offset_bytes, data.len() as u64) {
            let mut chunk = chunk.write().unwrap_or_else(PoisonError::into_inner);
            let bytes = chunk.get_or_insert_with(|| vec![0; to_usize(CHUNK_BYTES)].into());
            bytes[start..start + length].copy_from_slice(&rest[..length]);
            rest = &rest[length..];
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), ExportError> {
        Ok(())
    }

    async fn trim(&self, offset_bytes: u64, length_bytes: u64, _fua: bool) -> Result<(), ExportError> {
        self.zero(offset_bytes, length_bytes);
        Ok(())
    }

    async fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        _: ZeroFlags,
    ) -> Result<(), ExportError> {
        self.zero(offset_bytes, length_bytes);
        Ok(())
    }

    async fn block_status(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Vec<ExtentStatus>, ExportError> {
        let extents = self.parts(offset_bytes, length_bytes).map(|(chunk, _, length)| {
            let empty = chunk.read().unwrap_or_else(PoisonError::into_inner).is_none();
            ExtentStatus { length_bytes: length as u64, hole: empty, zero: empty }
        });
        Ok(extents.collect())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, size_bytes] = &arguments[..] else {
        return Err("usage: memory ADDRESS SIZE_IN_BYTES".into());
    };
    let memory = Arc::new(Memory::new(size_bytes.parse()?));
    let server = Server::new(vec![("memory".into(), memory)], Some("memory".into()), Limits::default())?;
    let listener = Listener::bind(&address.parse::<ListenAddress>()?).await?;
    println!("{}", listener.address().uri("memory"));
    server
        .serve(listener, async {
            tokio::signal::ctrl_c().await.ok();
        })
        .await;
    Ok(())
}

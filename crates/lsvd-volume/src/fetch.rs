//! Reading blocks of log objects: chunks through the cache, misses fetched in parallel, every byte verified (rule 5).
//!
//! Knows objects by their records; not the map, not the overlay.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lsvd_engine::ObjectRecord;
use lsvd_format::log_object::{decode_frames, frames_range};
use lsvd_format::{BLOCK_BYTES, BLOCK_LEN, BlockOrdinal, ObjectFormat};
use tokio::sync::Semaphore;

use crate::Error;
use crate::cache::{CHUNK_BLOCKS, ChunkCache, ChunkKey, Wanted};
use crate::store::{VERIFY_TRIES, VolumeStore};
use crate::tasks::Tasks;

/// Chunks of one GET at most: 1 MiB. Longer runs are fetched by several at once.
const CHUNKS_PER_FETCH: usize = 16;
/// Bytes of a whole chunk.
const CHUNK_LEN: usize = CHUNK_BLOCKS as usize * BLOCK_LEN;

/// Counts of what was read.
#[derive(Debug, Default)]
pub(crate) struct FetchStats {
    pub(crate) fetches: AtomicU64,
    pub(crate) bytes_fetched: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) cache_misses: AtomicU64,
    pub(crate) corrupt_reads: AtomicU64,
}

pub(crate) struct Fetcher {
    store: VolumeStore,
    cache: ChunkCache,
    permits: Semaphore,
    tasks: Tasks,
    pub(crate) stats: FetchStats,
}

impl Fetcher {
    pub(crate) fn new(store: VolumeStore, cache_bytes_max: u64, fetches_max: usize, tasks: Tasks) -> Self {
        Self {
            store,
            cache: ChunkCache::new(cache_bytes_max),
            permits: Semaphore::new(fetches_max.clamp(1, Semaphore::MAX_PERMITS)),
            tasks,
            stats: FetchStats::default(),
        }
    }

    /// Memory that the cache takes.
    pub(crate) fn cache_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Reads `blocks` blocks from `ordinal` on; the pieces are whole blocks, in order.
    pub(crate) async fn read(
        self: &Arc<Self>,
        record: ObjectRecord,
        ordinal: BlockOrdinal,
        blocks: u32,
    ) -> Result<Vec<Bytes>, Error> {
        let (first, end) = (ordinal.0, ordinal.0 + blocks);
        let chunks = first / CHUNK_BLOCKS..end.div_ceil(CHUNK_BLOCKS);
        let mut pieces = Vec::with_capacity(chunks.len());
        let mut waits = Vec::new();
        let mut missing: Vec<u32> = Vec::new();
        for (nth, chunk) in chunks.clone().enumerate() {
            match self.cache.want(ChunkKey { identity: record.identity, chunk }) {
                Wanted::Cached(bytes) => {
                    self.stats.cache_hits.fetch_add(1, Ordering::Relaxed);
                    pieces.push(bytes);
                }
                Wanted::Shared(receiver) => {
                    pieces.push(Bytes::new());
                    waits.push((nth, receiver));
                }
                Wanted::Missing(receiver) => {
                    pieces.push(Bytes::new());
                    waits.push((nth, receiver));
                    missing.push(chunk);
                }
            }
        }
        if !waits.is_empty() {
            self.stats.cache_misses.fetch_add(waits.len() as u64, Ordering::Relaxed);
        }
        for run in runs(&missing) {
            // Made before the task, which never begins if the volume has been stopped.
            let unanswered = Unanswered { fetcher: self.clone(), record, chunks: run };
            // A task of its own: if this reader goes away, those who joined it still get their answer.
            self.tasks.spawn(fetch(unanswered));
        }
        for (nth, receiver) in waits {
            let answer = receiver.await;
            // The sender goes away unused only if the tasks were stopped.
            pieces[nth] = answer.map_err(|_| Error::Closed { volume: self.store.label() })??;
        }
        for (piece, chunk) in pieces.iter_mut().zip(chunks) {
            let chunk_start = chunk * CHUNK_BLOCKS;
            let from = first.max(chunk_start) - chunk_start;
            let to = end.min(chunk_start + CHUNK_BLOCKS) - chunk_start;
            *piece = piece.slice(from as usize * BLOCK_LEN..to as usize * BLOCK_LEN);
        }
        Ok(pieces)
    }

    /// Reads blocks that nobody is likely to read again: they neither come from the cache nor go there.
    pub(crate) async fn read_past_cache(
        &self,
        record: ObjectRecord,
        first: BlockOrdinal,
        blocks: u32,
    ) -> Result<Bytes, Error> {
        let _permit = self.permits.acquire().await;
        self.fetch_verified(record, first, blocks).await
    }

    async fn fetch_verified(
        &self,
        record: ObjectRecord,
        first: BlockOrdinal,
        blocks: u32,
    ) -> Result<Bytes, Error> {
        let number = record.identity.number;
        let store = self.store.store_of(number)?;
        let name = store.log_name(number);
        let range = match record.format {
            ObjectFormat::V1 => {
                let start = record.header_bytes + u64::from(first.0) * BLOCK_BYTES;
                start..start + u64::from(blocks) * BLOCK_BYTES
            }
            ObjectFormat::V2 => frames_range(record.header_bytes, first, blocks),
        };
        let mut tries = 0;
        loop {
            tries += 1;
            self.stats.fetches.fetch_add(1, Ordering::Relaxed);
            let read = store.bucket().read_range(&name, range.clone()).await;
            let reason = match read {
                Ok(Some(frames)) => {
                    self.stats.bytes_fetched.fetch_add(frames.len() as u64, Ordering::Relaxed);
                    if record.format == ObjectFormat::V1 {
                        return Ok(frames); // of which nothing but the length can be verified, and that was
                    }
                    match decode_frames(&record.identity, first, &frames) {
                        Ok(blocks) => return Ok(blocks),
                        Err(error) => format!("in the payload from byte {}: {error}", range.start),
                    }
                }
                Ok(None) => {
                    return Err(Error::Missing { volume: store.label(), object: name });
                }
                Err(lsvd_backend::Error::Corrupt { detail, .. }) => detail,
                Err(error) => return Err(store.store_error(error)),
            };
            self.stats.corrupt_reads.fetch_add(1, Ordering::Relaxed);
            tracing::error!(volume = %store.label(), object = %name, tries, "failed verification: {reason}");
            if tries == VERIFY_TRIES {
                return Err(store.corrupt(name, reason));
            }
        }
    }

    /// Keeps the chunks of an object that was just written: what was written last is often read next.
    pub(crate) fn keep_written(&self, record: &ObjectRecord, payload: &[Bytes]) {
        for (chunk, bytes) in (0..).zip(chunks_of(payload)) {
            self.cache.keep(ChunkKey { identity: record.identity, chunk }, bytes);
        }
    }
}

/// Copies a payload into chunks of their own, none with more memory than its bytes: the cache counts no more.
fn chunks_of(payload: &[Bytes]) -> Vec<Bytes> {
    let mut left: usize = payload.iter().map(Bytes::len).sum();
    let mut chunks = Vec::with_capacity(left.div_ceil(CHUNK_LEN));
    let mut chunk = Vec::with_capacity(left.min(CHUNK_LEN));
    for piece in payload {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let (taken, after) = rest.split_at(rest.len().min(chunk.capacity() - chunk.len()));
            chunk.extend_from_slice(taken);
            rest = after;
            if chunk.len() == chunk.capacity() {
                left -= chunk.len();
                let next = Vec::with_capacity(left.min(CHUNK_LEN));
                chunks.push(Bytes::from(std::mem::replace(&mut chunk, next)));
            }
        }
    }
    chunks
}

/// Fetches neighbouring chunks by one GET and answers all who wait for them.
async fn fetch(mut unanswered: Unanswered) {
    let Unanswered { fetcher, record, chunks } = &unanswered;
    let (fetcher, record, chunks) = (fetcher.clone(), *record, chunks.clone());
    let permit = fetcher.permits.acquire().await;
    let first = chunks.start * CHUNK_BLOCKS;
    let payload_blocks = u32::try_from(record.payload_blocks).expect("a payload has fewer than 2^32 blocks");
    let blocks = (chunks.end * CHUNK_BLOCKS).min(payload_blocks) - first;
    let result = fetcher.fetch_verified(record, BlockOrdinal(first), blocks).await;
    drop(permit);
    for chunk in chunks {
        let key = ChunkKey { identity: record.identity, chunk };
        let from = chunk * CHUNK_BLOCKS - first;
        let to = (from + CHUNK_BLOCKS).min(blocks);
        let part = |bytes: &Bytes| {
            // A copy, so that a cached chunk does not keep its whole fetch alive beyond the cache's ceiling.
            Bytes::copy_from_slice(&bytes[from as usize * BLOCK_LEN..to as usize * BLOCK_LEN])
        };
        fetcher.cache.fetched(key, result.as_ref().map(part).map_err(Clone::clone));
        unanswered.chunks.start = chunk + 1;
    }
}

/// Chunks that somebody waits for. If their fetch is dropped (the volume was stopped), the waiters are told.
struct Unanswered {
    fetcher: Arc<Fetcher>,
    record: ObjectRecord,
    chunks: Range<u32>,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        for chunk in self.chunks.clone() {
            let key = ChunkKey { identity: self.record.identity, chunk };
            self.fetcher.cache.fetched(key, Err(Error::Closed { volume: self.fetcher.store.label() }));
        }
    }
}

/// Cuts ascending chunk numbers into runs of neighbours, each for one GET.
fn runs(chunks: &[u32]) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for &chunk in chunks {
        match runs.last_mut() {
            Some(run) if run.end == chunk && run.len() < CHUNKS_PER_FETCH => run.end += 1,
            _ => runs.push(chunk..chunk + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 10: a chunk that is kept holds no more memory than the cache counts for it. The last chunk of an object of
    /// one block once held 64 KiB, which for a client that flushes each block was sixteen times the ceiling.
    #[test]
    fn a_kept_chunk_holds_no_more_memory_than_its_bytes() {
        for lens in [&[1][..], &[16], &[17], &[3, 14, 40], &[100, 1, 1]] {
            let payload: Vec<Bytes> =
                lens.iter().map(|blocks| Bytes::from(vec![7; blocks * BLOCK_LEN])).collect();
            let chunks = chunks_of(&payload);
            assert_eq!(chunks.concat(), payload.concat());
            for chunk in chunks {
                let len = chunk.len();
                let memory = chunk.try_into_mut().expect("nobody else has it").capacity();
                assert!(memory <= len && len <= CHUNK_LEN, "{len} bytes hold {memory}");
            }
        }
    }

    #[test]
    fn runs_are_neighbours_and_no_longer_than_one_get() {
        let chunks: Vec<u32> = (0..40).filter(|chunk| *chunk != 3).collect();
        assert_eq!(runs(&chunks), [0..3, 4..20, 20..36, 36..40]);
        assert_eq!(runs(&[]), []);
    }
}

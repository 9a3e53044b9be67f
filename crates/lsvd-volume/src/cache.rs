//! Verified chunks in memory, and the sharing of misses: many readers of a chunk make one GET.
//!
//! A chunk is a run of [`CHUNK_BLOCKS`] blocks of one object's payload, verified and without frame heads. Its key holds
//! the object's whole identity, so that an entry is never stale (rule 5). Knows objects; not the map, not requests.

use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use lsvd_format::{BLOCK_LEN, ObjectIdentity};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use tokio::sync::oneshot;

use crate::Error;

/// Blocks of a chunk: 64 KiB. A GET's price and first-byte latency are the same as for one block, and blocks that were
/// written together are read together.
pub(crate) const CHUNK_BLOCKS: u32 = 16;

/// Which chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChunkKey {
    pub(crate) identity: ObjectIdentity,
    pub(crate) chunk: u32,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<ChunkKey, Bytes> for ByBytes {
    fn weight(&self, _key: &ChunkKey, chunk: &Bytes) -> u64 {
        // The key and the cache's own record count too.
        const RECORD_BYTES: u64 = 128;
        chunk.len() as u64 + RECORD_BYTES
    }
}

// A hasher without random state: a simulation must evict the same chunks each time.
type Hasher = BuildHasherDefault<DefaultHasher>;
type Waiters = Vec<oneshot::Sender<Result<Bytes, Error>>>;

/// Where a wanted chunk comes from.
pub(crate) enum Wanted {
    /// From here.
    Cached(Bytes),
    /// Somebody fetches it.
    Shared(oneshot::Receiver<Result<Bytes, Error>>),
    /// The caller has to see that it is fetched, and to [`ChunkCache::fetched`] it.
    Missing(oneshot::Receiver<Result<Bytes, Error>>),
}

pub(crate) struct ChunkCache {
    chunks: Cache<ChunkKey, Bytes, ByBytes, Hasher>,
    fetching: Mutex<BTreeMap<ChunkKey, Waiters>>,
}

impl ChunkCache {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let chunk_bytes = u64::from(CHUNK_BLOCKS) * BLOCK_LEN as u64;
        let items = usize::try_from(bytes_max / chunk_bytes).unwrap_or(usize::MAX).max(1);
        let mut options = OptionsBuilder::new();
        // Few shards, so that a small ceiling is not cut into pieces that hold nothing.
        let options = options.estimated_items_capacity(items).weight_capacity(bytes_max).shards(4).build();
        let options = options.expect("items, weight and shards are all that is needed");
        let chunks = Cache::with_options(options, ByBytes, Hasher::default(), DefaultLifecycle::default());
        Self { chunks, fetching: Mutex::new(BTreeMap::new()) }
    }

    /// Looks a chunk up, and joins whoever fetches it.
    pub(crate) fn want(&self, key: ChunkKey) -> Wanted {
        // Under the lock, so that a chunk that has just been fetched is found in one of the two places.
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = self.chunks.get(&key) {
            return Wanted::Cached(chunk);
        }
        let (sender, receiver) = oneshot::channel();
        if let Some(waiters) = fetching.get_mut(&key) {
            waiters.push(sender);
            return Wanted::Shared(receiver);
        }
        fetching.insert(key, vec![sender]);
        Wanted::Missing(receiver)
    }

    /// Answers all who wait for a chunk. What failed is not kept.
    pub(crate) fn fetched(&self, key: ChunkKey, result: Result<Bytes, Error>) {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(chunk) = &result {
            self.chunks.insert(key, chunk.clone());
        }
        let waiters = fetching.remove(&key).unwrap_or_default();
        drop(fetching);
        for waiter in waiters {
            // A reader that has gone needs no answer.
            let _ = waiter.send(result.clone());
        }
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.chunks.weight()
    }

    /// Keeps a chunk that was just written.
    pub(crate) fn keep(&self, key: ChunkKey, chunk: Bytes) {
        self.chunks.insert(key, chunk);
    }
}

//! How much was asked of a store: requests by verb, and their bytes.
//!
//! Knows numbers. Each attempt counts, as it is paid for; what a store's client does of its own, such as fetching a token, is not
//! seen. Cheap: an atomic addition or two beside each request to a store.

use std::sync::atomic::{AtomicU64, Ordering};

/// Requests to a store since it was opened, attempts that failed among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// PUTs.
    pub puts: u64,
    /// Bytes of their bodies.
    pub put_bytes: u64,
    /// GETs.
    pub gets: u64,
    /// Bytes of the bodies that came.
    pub get_bytes: u64,
    /// LISTs: one for each page of a thousand names, which is what most stores answer with.
    pub lists: u64,
    /// DELETEs.
    pub deletes: u64,
    /// Of all these, such as failed, by the store's word or for want of an answer in time.
    pub failures: u64,
}

/// Names on a page of a listing, as S3, Azure, Google and their like have it, or more.
const PAGE_NAMES: u64 = 1000;

#[derive(Debug, Default)]
pub(crate) struct Counts {
    puts: AtomicU64,
    put_bytes: AtomicU64,
    gets: AtomicU64,
    get_bytes: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    failures: AtomicU64,
}

impl Counts {
    pub(crate) fn put(&self, body_bytes: u64) {
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.put_bytes.fetch_add(body_bytes, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) {
        self.gets.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn got(&self, body_bytes: u64) {
        self.get_bytes.fetch_add(body_bytes, Ordering::Relaxed);
    }

    pub(crate) fn list(&self) {
        self.lists.fetch_add(1, Ordering::Relaxed);
    }

    /// One more name of a listing came, the `nth` from 1 on: a page may have begun with it.
    pub(crate) fn listed(&self, nth: u64) {
        if nth > 1 && nth % PAGE_NAMES == 1 {
            self.list();
        }
    }

    pub(crate) fn delete(&self) {
        self.deletes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> RequestCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts {
            puts: of(&self.puts),
            put_bytes: of(&self.put_bytes),
            gets: of(&self.gets),
            get_bytes: of(&self.get_bytes),
            lists: of(&self.lists),
            deletes: of(&self.deletes),
            failures: of(&self.failures),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use crate::Bucket;

    #[tokio::test]
    async fn each_verb_is_counted_with_its_bytes() {
        let bucket = Bucket::from_store(Arc::new(InMemory::new()), "", "memory");
        bucket.create("a/1", vec![1; 100].into()).await.unwrap();
        bucket.create("a/1", vec![1; 100].into()).await.unwrap();
        bucket.child("a").read_range("1", 10..30).await.unwrap();
        bucket.read_head("nothing", 8).await.unwrap();
        bucket.list("a", None).await.unwrap();
        bucket.list_folders("").await.unwrap();
        bucket.delete("a/1").await.unwrap();
        let counts = bucket.requests();
        assert_eq!((counts.puts, counts.put_bytes), (2, 200));
        assert_eq!((counts.gets, counts.get_bytes), (2, 20));
        assert_eq!((counts.lists, counts.deletes, counts.failures), (2, 1, 0));
    }

    #[tokio::test]
    async fn a_page_of_a_listing_has_a_thousand_names() {
        let bucket = Bucket::from_store(Arc::new(InMemory::new()), "", "memory");
        for (names, pages) in [(1000, 1), (1001, 2)] {
            for nth in 0..names {
                bucket.create(&format!("{nth:04}"), vec![1].into()).await.unwrap();
            }
            let before = bucket.requests().lists;
            bucket.list("", None).await.unwrap();
            assert_eq!(bucket.requests().lists - before, pages, "{names}");
        }
    }
}

//! A bucket on a store that fails in every way that a network can fail: before the effect, after it, by silence, by
//! half an answer. Clocks are paused: minutes of retries take no time, and are counted exactly.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use lsvd_backend::{Bucket, Created, Error, RetryPolicy};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::time::Instant;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing happens in the store, and an error comes back.
    Before,
    /// The store does it, and an error comes back.
    After,
    /// No answer comes back, ever.
    Hang,
    /// The store does it, and no answer comes back.
    HangAfter,
    /// Fewer bytes come back than the answer announces.
    Short,
    /// A listing breaks off after its first names.
    Break,
}

/// Memory with faults: those in the queue first, then the one that is set for good.
#[derive(Debug, Default)]
struct Faulty {
    inner: Arc<InMemory>,
    queue: Mutex<VecDeque<Fault>>,
    for_good: Mutex<Option<Fault>>,
    requests: AtomicU32,
    /// The small questions by which a silent store is watched; they meet only what is set for good.
    questions: AtomicU32,
    questions_now: AtomicU32,
    questions_at_once: AtomicU32,
    /// So many objects are there again when they were deleted: a PUT that had failed has landed late.
    come_back: AtomicU32,
}

/// Counts a question while it is under way.
struct Question<'a>(&'a Faulty);

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.0.questions_now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "the connection was reset".into() }
}

impl Faulty {
    fn next(&self) -> Option<Fault> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.queue.lock().unwrap().pop_front().or(*self.for_good.lock().unwrap())
    }

    async fn around<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        match self.next() {
            Some(Fault::Before) => Err(broken()),
            Some(Fault::After) => request.await.and(Err(broken())),
            Some(Fault::Hang) => futures::future::pending().await,
            Some(Fault::HangAfter) => {
                let _ = request.await;
                futures::future::pending().await
            }
            Some(Fault::Short | Fault::Break) | None => request.await,
        }
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.around(self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        l: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(l, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.range == Some(GetRange::Bounded(0..1)) {
            self.questions.fetch_add(1, Ordering::Relaxed);
            let now = self.questions_now.fetch_add(1, Ordering::Relaxed) + 1;
            self.questions_at_once.fetch_max(now, Ordering::Relaxed);
            let _under_way = Question(self);
            let fault = *self.for_good.lock().unwrap();
            return match fault {
                Some(Fault::Hang | Fault::HangAfter) => futures::future::pending().await,
                _ => self.inner.get_opts(location, options).await,
            };
        }
        let short = self.queue.lock().unwrap().front().copied().or(*self.for_good.lock().unwrap());
        let result = self.around(self.inner.get_opts(location, options)).await?;
        if short != Some(Fault::Short) {
            return Ok(result);
        }
        let (meta, range, attributes, extensions) =
            (result.meta.clone(), result.range.clone(), result.attributes.clone(), result.extensions.clone());
        let bytes = result.bytes().await?;
        let part = bytes.slice(..bytes.len() / 2);
        let payload = GetResultPayload::Stream(stream::once(async { Ok(part) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.next() {
            Some(Fault::Before) => stream::once(async { Err(broken()) }).boxed(),
            Some(Fault::After) => {
                self.inner.delete_stream(locations).and_then(|_| async { Err(broken()) }).boxed()
            }
            Some(Fault::Hang) => stream::pending().boxed(),
            _ if self.come_back.load(Ordering::Relaxed) > 0 => {
                self.come_back.fetch_sub(1, Ordering::Relaxed);
                let inner = self.inner.clone();
                let deleted = self.inner.delete_stream(locations);
                deleted
                    .and_then(move |path| {
                        let inner = inner.clone();
                        async move { inner.put(&path, "b".into()).await.map(|_| path) }
                    })
                    .boxed()
            }
            _ => self.inner.delete_stream(locations),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.inner.list(prefix);
        match self.next() {
            Some(Fault::Before) => stream::once(async { Err(broken()) }).boxed(),
            Some(Fault::Hang) => stream::pending().boxed(),
            Some(Fault::Break) => listed.take(2).chain(stream::once(async { Err(broken()) })).boxed(),
            _ => listed,
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.around(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

struct World {
    store: Arc<Faulty>,
    bucket: Bucket,
}

impl World {
    fn new(faults: &[Fault]) -> World {
        let store = Arc::new(Faulty::default());
        let bucket = Bucket::from_store(store.clone(), "p/db1", "faulty://p/db1").with_jitter_seed(7);
        store.queue.lock().unwrap().extend(faults);
        World { store, bucket }
    }

    /// With an object in it, put there past all faults.
    async fn with_object(faults: &[Fault]) -> World {
        let world = World::new(faults);
        world.store.inner.put(&"p/db1/log/1".into(), "0123456789".into()).await.unwrap();
        world
    }

    fn always(self, fault: Fault) -> World {
        *self.store.for_good.lock().unwrap() = Some(fault);
        self
    }

    fn requests(&self) -> u32 {
        self.store.requests.load(Ordering::Relaxed)
    }

    async fn stored(&self) -> Vec<u8> {
        self.store.inner.get(&"p/db1/log/1".into()).await.unwrap().bytes().await.unwrap().to_vec()
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_request_is_made_again() {
    for faults in [&[Fault::Before][..], &[Fault::Hang, Fault::Before, Fault::Hang]] {
        let world = World::with_object(faults).await;
        assert_eq!(world.bucket.read_range("log/1", 2..4).await.unwrap().unwrap(), "23");
        assert_eq!(world.requests() as usize, faults.len() + 1);

        let world = World::with_object(faults).await;
        assert_eq!(world.bucket.list("log", None).await.unwrap().len(), 1);
        let world = World::with_object(faults).await;
        assert_eq!(world.bucket.list_folders("").await.unwrap(), ["log"]);
        let world = World::with_object(faults).await;
        world.bucket.delete("log/1").await.unwrap();
        assert!(world.bucket.list("", None).await.unwrap().is_empty());
        let world = World::new(faults);
        assert_eq!(world.bucket.create("log/1", "x".into()).await.unwrap(), Created::Done);
    }
}

/// Rule 2: an attempt that took effect although its answer was lost comes back as "exists", and nothing is stored
/// twice. What is stored is what was given, so that reading it tells whose it is.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_a_create_comes_back_as_exists() {
    for fault in [Fault::After, Fault::HangAfter] {
        let world = World::new(&[fault]);
        assert_eq!(world.bucket.create("log/1", "mine".into()).await.unwrap(), Created::Exists);
        assert_eq!(world.stored().await, b"mine");
    }
    let world = World::with_object(&[Fault::Before]).await;
    assert_eq!(world.bucket.create("log/1", "mine".into()).await.unwrap(), Created::Exists);
    assert_eq!(world.stored().await, b"0123456789", "another's object stays");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_a_delete_is_no_error() {
    let world = World::with_object(&[Fault::After]).await;
    world.bucket.delete("log/1").await.unwrap();
}

/// Rule 4: whatever a store does instead of answering, nothing is taken for absent, and nothing is taken for the end
/// of a listing.
#[tokio::test(start_paused = true)]
async fn an_error_is_never_an_absence() {
    for fault in [Fault::Before, Fault::After, Fault::Hang, Fault::HangAfter, Fault::Short] {
        let world = World::with_object(&[]).await.always(fault);
        assert!(world.bucket.read_head("log/1", 100).await.is_err(), "{fault:?}");
        assert!(world.bucket.read_range("log/1", 0..10).await.is_err(), "{fault:?}");
        let missing = world.bucket.read_head("log/2", 100).await;
        assert!(missing.is_err() || fault == Fault::Short || fault == Fault::After, "{fault:?}: {missing:?}");
    }
    for fault in [Fault::Before, Fault::Hang] {
        let world = World::with_object(&[]).await.always(fault);
        assert!(world.bucket.list("log", None).await.is_err(), "{fault:?}");
        assert!(world.bucket.delete("log/1").await.is_err(), "{fault:?}");
    }
    let world = World::with_object(&[]).await.always(Fault::Hang);
    assert!(world.bucket.list_folders("").await.is_err());
}

/// Rule 4: a listing that breaks off is never returned in part.
#[tokio::test(start_paused = true)]
async fn a_listing_is_whole_or_an_error() {
    let world = World::new(&[Fault::Break, Fault::Break]);
    for n in 0..5 {
        world.store.inner.put(&format!("p/db1/log/{n}").into(), "x".into()).await.unwrap();
    }
    let names: Vec<String> =
        world.bucket.list("log", None).await.unwrap().into_iter().map(|l| l.name).collect();
    assert_eq!(names, ["log/0", "log/1", "log/2", "log/3", "log/4"]);
    let world = world.always(Fault::Break);
    assert!(matches!(world.bucket.list("log", None).await, Err(Error::Unavailable { .. })));
}

/// Rule 5: half an answer is noticed and read again; where it stays half, it is corrupt and not data.
#[tokio::test(start_paused = true)]
async fn short_answers_are_noticed() {
    let world = World::with_object(&[Fault::Short]).await;
    assert_eq!(world.bucket.read_range("log/1", 0..10).await.unwrap().unwrap(), "0123456789");
    assert_eq!(world.requests(), 2);
    let world = World::with_object(&[Fault::Short]).await;
    assert_eq!(world.bucket.read_head("log/1", 100).await.unwrap().unwrap().bytes, "0123456789");

    let world = World::with_object(&[]).await.always(Fault::Short);
    let error = world.bucket.read_range("log/1", 0..10).await.expect_err("rule 5");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(world.requests(), 3, "a store that keeps doing it is not asked for ever");
    let error = world.bucket.read_head("log/1", 100).await.expect_err("rule 5");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

/// Rule 10: the total limit holds, to the second, whether the store fails fast or not at all; and the error says
/// how often and how long it was tried, where, and what for.
#[tokio::test(start_paused = true)]
async fn the_total_limit_holds() {
    let limits = RetryPolicy::default();
    for fault in [Fault::Before, Fault::Hang] {
        let world = World::with_object(&[]).await.always(fault);
        let started = Instant::now();
        let error = world.bucket.create("log/9", "x".into()).await.expect_err("it never answers");
        let elapsed = started.elapsed();
        assert!(elapsed <= limits.total_limit, "{fault:?}: {elapsed:?}");
        assert!(
            elapsed > limits.total_limit - limits.attempt_timeout,
            "{fault:?} gave up early: {elapsed:?}"
        );
        assert!(error.is_retryable());
        let text = error.to_string();
        for part in ["PUT", "log/9", "faulty://p/db1", "attempts"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

/// An attempt that hangs is given up after its own limit, and the store's answer to the next one counts.
#[tokio::test(start_paused = true)]
async fn a_hung_attempt_is_replaced() {
    let world = World::with_object(&[Fault::Hang]).await;
    let started = Instant::now();
    world.bucket.read_head("log/1", 10).await.unwrap();
    let elapsed = started.elapsed();
    let limits = RetryPolicy::default();
    assert!(elapsed >= limits.attempt_timeout && elapsed <= limits.attempt_timeout + limits.backoff_first);
}

/// Rule 10: sixteen uploads that met silence do not wait out their half minute when the store is back: it is noticed by
/// one small question at a time, and they are made again within seconds.
#[tokio::test(start_paused = true)]
async fn after_silence_service_resumes_within_seconds() {
    for outage_s in [10, 31, 59, 100] {
        let world = World::new(&[]).always(Fault::Hang);
        let creates: Vec<_> = (0..16)
            .map(|n| {
                let bucket = world.bucket.clone();
                tokio::spawn(async move { bucket.create(&format!("log/{n}"), vec![7; 8 << 20].into()).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(outage_s)).await;
        *world.store.for_good.lock().unwrap() = None;
        let back = Instant::now();
        for create in creates {
            assert_eq!(create.await.unwrap().unwrap(), Created::Done);
        }
        assert!(back.elapsed() < Duration::from_secs(5), "{outage_s} s: {:?} after the end", back.elapsed());
        let questions = world.store.questions.load(Ordering::Relaxed);
        assert!((1..=outage_s / 3).contains(&questions.into()), "{outage_s} s: {questions} questions");
        assert_eq!(world.store.questions_at_once.load(Ordering::Relaxed), 1);
    }
}

/// A store that answers others is asked no questions, and a request that it is slow to answer is not made twice.
#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_not_silence() {
    let world = World::with_object(&[Fault::Hang]).await;
    let slow = tokio::spawn({
        let bucket = world.bucket.clone();
        async move { bucket.create("log/2", "x".into()).await }
    });
    for _ in 0..14 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.bucket.read_range("log/1", 2..4).await.unwrap();
    }
    assert_eq!((world.requests(), world.store.questions.load(Ordering::Relaxed)), (15, 0));
    assert_eq!(slow.await.unwrap().unwrap(), Created::Done);
}

/// Pauses grow and stay below their limit, with jitter that repeats for a seed: a simulated world repeats.
#[tokio::test(start_paused = true)]
async fn pauses_grow_and_repeat_for_a_seed() {
    let mut times = Vec::new();
    for seed in [1, 1, 2] {
        let world = World::with_object(&[Fault::Before; 12]).await;
        let started = Instant::now();
        let bucket = world.bucket.clone().with_jitter_seed(seed);
        bucket.read_head("log/1", 10).await.unwrap();
        times.push(started.elapsed());
    }
    assert_eq!(times[0], times[1]);
    assert_ne!(times[0], times[2]);
    // 0.1, 0.2 … 3.2 and then six times 5 s, each between half and whole.
    let whole = Duration::from_millis(100 + 200 + 400 + 800 + 1_600 + 3_200 + 6 * 5_000);
    assert!(
        times.iter().all(|&time| time >= whole / 2 && time <= whole + Duration::from_millis(50)),
        "{times:?}"
    );
}

/// Service resumes by itself (rule 10): what failed for good before works once the store is back.
#[tokio::test(start_paused = true)]
async fn service_resumes() {
    let world = World::with_object(&[]).await.always(Fault::Before);
    world.bucket.read_head("log/1", 10).await.expect_err("it is gone");
    *world.store.for_good.lock().unwrap() = None;
    world.bucket.read_head("log/1", 10).await.unwrap().expect("it is back");
}

/// The probe tells a store that ignores create-only PUTs, and cleans up after itself; faults do not confuse it.
#[tokio::test(start_paused = true)]
async fn the_probe_finds_out() {
    for fault in [Fault::Before, Fault::After, Fault::HangAfter] {
        let world = World::new(&[fault; 3]);
        let report = world.bucket.probe("probe", "n").await.unwrap();
        assert_eq!(report.verdict(), Ok(()), "{fault:?}: {report:?}");
        assert!(world.bucket.list("", None).await.unwrap().is_empty());
    }
    let world = World::new(&[]).always(Fault::Before);
    assert!(matches!(world.bucket.probe("probe", "n").await, Err(Error::Unavailable { .. })));
}

/// Answers 200 to every create and overwrites, as some servers do; or only where two come at once.
#[derive(Debug)]
struct Lax {
    inner: InMemory,
    only_in_races: bool,
    under_way: AtomicU32,
}

impl fmt::Display for Lax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lax")
    }
}

#[async_trait]
impl ObjectStore for Lax {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        let there = self.inner.head(location).await.is_ok();
        self.under_way.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        let alone = self.under_way.fetch_sub(1, Ordering::Relaxed) == 1;
        if !self.only_in_races || (!alone && !there) {
            opts.mode = object_store::PutMode::Overwrite;
        }
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        l: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(l, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        // Ranges are ignored too.
        let whole = !self.only_in_races && matches!(options.range, Some(GetRange::Bounded(_)));
        let options = if whole { GetOptions { range: None, ..options } } else { options };
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Rule 2 needs create-only PUTs: a store without them is found out, alone or in a race, and told in words.
#[tokio::test(start_paused = true)]
async fn lax_stores_are_found_out() {
    for only_in_races in [false, true] {
        let store = Lax { inner: InMemory::new(), only_in_races, under_way: AtomicU32::new(0) };
        let bucket = Bucket::from_store(Arc::new(store), "p", "lax://p");
        let report = bucket.probe("probe", "n").await.unwrap();
        assert_eq!(report.create_only, only_in_races, "{report:?}");
        assert!(!report.create_only_under_race, "{report:?}");
        assert_eq!(report.range_reads, only_in_races, "{report:?}");
        assert!(report.list_after_write, "{report:?}");
        let words = report.verdict().expect_err("not to be trusted");
        assert!(words.contains(if only_in_races { "creators" } else { "overwrites" }), "{words}");
        assert!(bucket.list("", None).await.unwrap().is_empty(), "the probe cleans up");
    }
}

/// A create that had failed and lands behind the probe's delete is no fault of the store; deletes that do nothing are.
/// (The simulator's seed 1370 of its first journals.)
#[tokio::test(start_paused = true)]
async fn a_probe_survives_its_own_late_create() {
    for (come_back, holds) in [(0, true), (1, true), (2, true), (100, false)] {
        let store = Arc::new(Faulty::default());
        store.come_back.store(come_back, Ordering::Relaxed);
        let bucket = Bucket::from_store(store.clone(), "p", "faulty://p");
        let report = bucket.probe("probe", "n").await.unwrap();
        assert_eq!(report.list_after_write, holds, "{come_back}: {report:?}");
        assert!(report.range_reads && report.create_only_under_race, "{report:?}");
    }
}

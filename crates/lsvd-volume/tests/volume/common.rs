//! A world in memory: a store that does as it is told, and small words for what the tests do all the time.
//!
//! Rules say what becomes of the next requests of a verb whose name holds a text; without one a request is carried out
//! at once. What the store holds can be seen and changed behind everybody's back.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use lsvd_backend::{Bucket, RetryPolicy};
use lsvd_format::log_object::{Entry, Header, encode_frames};
use lsvd_format::{BLOCK_LEN, BlockOrdinal, Epoch, Extent, ObjectIdentity, SequenceNumber, WriterId, names};
use lsvd_volume::{
    CreateOptions, Environment, Error, OpenOptions, Piece, RemoveOptions, UpkeepOptions, Volume, create,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::watch;

/// The window of the tests' volumes, small so that a test can reach beyond it.
pub(crate) const WINDOW: u64 = 8;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const BLOCK: u64 = BLOCK_LEN as u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Put,
    Get,
    List,
    Delete,
}

impl Verb {
    /// Whether it changes anything.
    pub(crate) fn mutates(self) -> bool {
        matches!(self, Verb::Put | Verb::Delete)
    }
}

/// What becomes of a request.
#[derive(Clone)]
pub(crate) enum Fate {
    /// An error that may pass, without effect.
    Fails,
    /// Effect, and then the answer is lost.
    AnswerLost,
    /// Refused for want of a right.
    Denied,
    /// "Already exists", without effect and whatever is there.
    SaysExists,
    /// "Not found", whatever is there.
    SaysMissing,
    /// Waits until [`Store::release`], and then is carried out.
    Hangs,
    /// Waits this long, and then is carried out.
    Slow(Duration),
    /// Shares a line of so many bytes a second with all others of its verb that are in flight.
    Line(u64),
    /// A listing that breaks off after so many objects.
    BreaksOff(usize),
    /// Something happens right before it is carried out.
    After(Arc<dyn Fn(&Store) + Send + Sync>),
}

struct Rule {
    verb: Verb,
    part: String,
    fate: Fate,
    left: usize,
}

/// A request that was made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) verb: Verb,
    pub(crate) name: String,
}

#[derive(Default)]
struct State {
    rules: VecDeque<Rule>,
    made: Vec<Made>,
    in_flight: Vec<(u64, Verb, String)>,
    next_id: u64,
    peaks: Vec<(Verb, String, usize)>,
    /// Requests that are still carried out before none is, and whether the next one has its effect.
    dies: Option<(usize, bool)>,
}

pub(crate) struct Store {
    objects: InMemory,
    state: Mutex<State>,
    released: watch::Sender<u64>,
    /// Create-only PUTs overwrite, as some servers do.
    overwrites: AtomicBool,
    /// Requests that change something and may be made still, before the client is cut off from the store; all of them may
    /// below 0.
    changes_left: AtomicI64,
}

impl Store {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next `times` requests of `verb` whose name holds `part` end so. Rules are tried from the oldest on.
    pub(crate) fn rule(&self, verb: Verb, part: &str, fate: Fate, times: usize) {
        self.state().rules.push_back(Rule { verb, part: part.to_owned(), fate, left: times });
    }

    pub(crate) fn always(&self, verb: Verb, part: &str, fate: Fate) {
        self.rule(verb, part, fate, usize::MAX);
    }

    pub(crate) fn before(&self, verb: Verb, part: &str, happens: impl Fn(&Store) + Send + Sync + 'static) {
        self.rule(verb, part, Fate::After(Arc::new(happens)), 1);
    }

    /// The store answers nothing any more.
    pub(crate) fn hangs(&self) {
        for verb in [Verb::Put, Verb::Get, Verb::List, Verb::Delete] {
            self.always(verb, "", Fate::Hangs);
        }
    }

    /// Drops all rules; what hangs goes on hanging.
    pub(crate) fn drop_rules(&self) {
        self.state().rules.clear();
    }

    /// After so many requests the store answers nothing any more; the next one has its effect all the same, or not.
    pub(crate) fn dies_after(&self, requests: usize, with_effect: bool) {
        self.state().dies = Some((requests, with_effect));
    }

    /// Drops all rules and lets go what hangs.
    pub(crate) fn release(&self) {
        self.state().rules.clear();
        self.state().dies = None;
        self.released.send_modify(|generation| *generation += 1);
    }

    /// The client is cut off after so many requests that change something: all that it asks then fails.
    pub(crate) fn cut_off_after(&self, changes: Option<u32>) {
        self.changes_left.store(changes.map_or(-1, i64::from), Ordering::Relaxed);
    }

    fn is_cut_off(&self, verb: Verb) -> bool {
        match self.changes_left.load(Ordering::Relaxed) {
            ..0 => false,
            0 => true,
            left => {
                self.changes_left.store(left - i64::from(verb.mutates()), Ordering::Relaxed);
                false
            }
        }
    }

    pub(crate) fn overwrites(&self, overwrites: bool) {
        self.overwrites.store(overwrites, Ordering::Relaxed);
    }

    /// Requests that were made since [`Store::forget`].
    pub(crate) fn made(&self) -> Vec<Made> {
        self.state().made.clone()
    }

    pub(crate) fn count(&self, verb: Verb, part: &str) -> usize {
        self.made().iter().filter(|made| made.verb == verb && made.name.contains(part)).count()
    }

    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.made.clear();
        state.peaks.clear();
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.state().in_flight.len()
    }

    /// Most requests of `verb` in flight at once whose names hold `part`, from now on.
    pub(crate) fn watch_peak(&self, verb: Verb, part: &str) {
        self.state().peaks.push((verb, part.to_owned(), 0));
    }

    pub(crate) fn peak(&self, verb: Verb, part: &str) -> usize {
        let state = self.state();
        let peak = state.peaks.iter().find(|peak| peak.0 == verb && peak.1 == part);
        peak.expect("watch_peak was called").2
    }

    /// Names below the volume's prefix that begin with `folder`.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let all: Vec<ObjectMeta> =
            self.objects.list(None).try_collect().now_or_never().expect("memory answers at once").unwrap();
        let below = |meta: ObjectMeta| Some(meta.location.as_ref().strip_prefix("db1/")?.to_owned());
        let mut names: Vec<String> =
            all.into_iter().filter_map(below).filter(|name| name.starts_with(folder)).collect();
        names.sort();
        names
    }

    pub(crate) fn bytes(&self, name: &str) -> Option<Bytes> {
        let read = async { self.objects.get(&path(name)).await?.bytes().await };
        read.now_or_never().expect("memory answers at once").ok()
    }

    pub(crate) fn put(&self, name: &str, bytes: impl Into<Bytes>) {
        let at = path(name);
        let put = self.objects.put(&at, PutPayload::from(bytes.into()));
        put.now_or_never().expect("memory answers at once").unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        self.objects.delete(&path(name)).now_or_never().expect("memory answers at once").unwrap();
    }

    /// Changes one byte of an object.
    pub(crate) fn flip(&self, name: &str, at: usize) {
        let mut bytes = self.bytes(name).expect("it is there").to_vec();
        bytes[at] ^= 0x40;
        self.put(name, bytes);
    }

    /// Everything that is stored.
    pub(crate) fn image(&self) -> Vec<(String, Bytes)> {
        self.names("").into_iter().map(|name| (name.clone(), self.bytes(&name).unwrap())).collect()
    }

    fn begin(self: &Store, verb: Verb, name: &str) -> (InFlight<'_>, Option<Fate>) {
        let mut state = self.state();
        state.made.push(Made { verb, name: name.to_owned() });
        state.next_id += 1;
        let id = state.next_id;
        state.in_flight.push((id, verb, name.to_owned()));
        let State { in_flight, peaks, rules, .. } = &mut *state;
        for (of, part, peak) in peaks {
            let now = in_flight.iter().filter(|(_, verb, name)| verb == of && name.contains(&*part)).count();
            *peak = now.max(*peak);
        }
        let fits = |rule: &&mut Rule| rule.left > 0 && rule.verb == verb && name.contains(&rule.part);
        let rule = rules.iter_mut().find(fits);
        let fate = rule.map(|rule| {
            rule.left -= 1;
            rule.fate.clone()
        });
        (InFlight { store: self, id }, fate)
    }

    /// Carries a request out as its rule says.
    async fn request<T>(
        &self,
        verb: Verb,
        location: &Path,
        body_bytes: usize,
        effect: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let name = location.as_ref();
        // A current-thread runtime runs others only at an await: requests meet as they would on a network.
        let (_in_flight, fate) = self.begin(verb, name);
        tokio::task::yield_now().await;
        if self.is_cut_off(verb) {
            return Err(trouble("cut off"));
        }
        let dies = match &mut self.state().dies {
            Some((0, with_effect)) => Some(std::mem::take(with_effect)),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        if let Some(with_effect) = dies {
            if with_effect {
                effect.await?;
            }
            return std::future::pending().await;
        }
        match fate {
            None | Some(Fate::BreaksOff(_)) => {}
            Some(Fate::Fails) => return Err(trouble("connection reset")),
            Some(Fate::AnswerLost) => {
                effect.await?;
                return Err(trouble("connection reset after the request"));
            }
            Some(Fate::Denied) => {
                let (path, source) = (name.to_owned(), "403".into());
                return Err(object_store::Error::PermissionDenied { path, source });
            }
            Some(Fate::SaysExists) => {
                let (path, source) = (name.to_owned(), "409".into());
                return Err(object_store::Error::AlreadyExists { path, source });
            }
            Some(Fate::SaysMissing) => {
                let (path, source) = (name.to_owned(), "404".into());
                return Err(object_store::Error::NotFound { path, source });
            }
            Some(Fate::Hangs) => {
                let mut released = self.released.subscribe();
                released.changed().await.unwrap();
            }
            Some(Fate::Slow(time)) => tokio::time::sleep(time).await,
            Some(Fate::Line(bytes_per_second)) => {
                let mut left = body_bytes as u64;
                while left > 0 {
                    let sharing =
                        self.state().in_flight.iter().filter(|other| other.1 == verb).count() as u64;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    left = left.saturating_sub(bytes_per_second / 10 / sharing);
                }
            }
            Some(Fate::After(happens)) => happens(self),
        }
        effect.await
    }
}

struct InFlight<'a> {
    store: &'a Store,
    id: u64,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.store.state().in_flight.retain(|(id, ..)| *id != self.id);
    }
}

fn path(name: &str) -> Path {
    Path::from(format!("db1/{name}"))
}

fn trouble(what: &str) -> object_store::Error {
    object_store::Error::Generic { store: "test", source: what.into() }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

/// The store as a client has it.
#[derive(Clone, Debug)]
struct Link(Arc<Store>);

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

#[async_trait]
impl ObjectStore for Link {
    async fn put_opts(&self, at: &Path, payload: PutPayload, mut opts: PutOptions) -> Result<PutResult> {
        if self.0.overwrites.load(Ordering::Relaxed) {
            opts.mode = PutMode::Overwrite;
        }
        let body_bytes = payload.content_length();
        self.0.request(Verb::Put, at, body_bytes, self.0.objects.put_opts(at, payload, opts)).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        panic!("no object is put in parts")
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.request(Verb::Get, at, 0, self.0.objects.get_opts(at, options)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.0.clone();
        let delete = move |at: Path| {
            let store = store.clone();
            async move {
                store.request(Verb::Delete, &at, 0, store.objects.delete(&at)).await?;
                Ok(at)
            }
        };
        paths.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.0.clone(), prefix.cloned());
        let listing = async move {
            let at = prefix.clone().unwrap_or_default();
            let breaks_off = {
                let state = store.state();
                state.rules.iter().find_map(|rule| match rule.fate {
                    Fate::BreaksOff(after) if rule.left > 0 && at.as_ref().contains(&rule.part) => {
                        Some(after)
                    }
                    _ => None,
                })
            };
            let listed = store.request(Verb::List, &at, 0, async {
                store.objects.list(prefix.as_ref()).try_collect::<Vec<_>>().await
            });
            let mut items: Vec<Result<ObjectMeta>> = match listed.await {
                Ok(mut listed) => {
                    listed.sort_by(|a, b| a.location.cmp(&b.location));
                    listed.into_iter().map(Ok).collect()
                }
                Err(error) => vec![Err(error)],
            };
            if let Some(after) = breaks_off {
                items.truncate(after);
                items.push(Err(trouble("connection reset amid a listing")));
            }
            futures::stream::iter(items)
        };
        futures::stream::once(listing).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let at = prefix.cloned().unwrap_or_default();
        self.0.request(Verb::List, &at, 0, self.0.objects.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        panic!("a store is asked for four verbs only")
    }
}

/// A volume's place, with the volume created.
pub(crate) struct World {
    pub(crate) store: Arc<Store>,
    pub(crate) bucket: Bucket,
    environment: Environment,
}

impl World {
    /// A store without a volume.
    pub(crate) fn empty() -> Self {
        let store = Arc::new(Store {
            objects: InMemory::new(),
            state: Mutex::default(),
            released: watch::Sender::new(0),
            overwrites: AtomicBool::new(false),
            changes_left: AtomicI64::new(-1),
        });
        // What a caller has in flight is what these tests count: the store sets no pace.
        let retry = RetryPolicy {
            puts_first_bytes: 256 << 20,
            gets_first_bytes: 256 << 20,
            ..RetryPolicy::default()
        };
        let bucket = Bucket::from_store(Arc::new(Link(store.clone())), "db1", "test://db1");
        let bucket = bucket.with_retry(retry).with_jitter_seed(1);
        static WORLDS: AtomicU64 = AtomicU64::new(1);
        let drawn = AtomicU64::new(WORLDS.fetch_add(1, Ordering::Relaxed) << 32);
        let began = tokio::time::Instant::now();
        let environment = Environment {
            now_unix_ms: Arc::new(move || 1_800_000_000_000 + began.elapsed().as_millis() as u64),
            random: Arc::new(move || {
                u128::from(drawn.fetch_add(1, Ordering::Relaxed)).to_be_bytes().map(|byte| byte ^ 0x5a)
            }),
        };
        Self { store, bucket, environment }
    }

    /// A volume of 64 MiB with a window of [`WINDOW`].
    pub(crate) async fn new() -> Self {
        let world = Self::empty();
        create(&world.bucket, &world.create_options()).await.unwrap();
        world.store.forget();
        world
    }

    /// Another place in the same bucket.
    pub(crate) fn beside(&self, name: &str) -> Self {
        let bucket = self.bucket.beside(&format!("../{name}")).unwrap();
        Self { store: self.store.clone(), bucket, environment: self.environment.clone() }
    }

    pub(crate) fn create_options(&self) -> CreateOptions {
        let environment = self.environment.clone();
        CreateOptions { window: WINDOW, environment, ..CreateOptions::new(64 * MIB) }
    }

    /// The defaults without the probe and without checkpoints by age, whose requests are not what the tests are about.
    pub(crate) fn options(&self) -> OpenOptions {
        let upkeep = UpkeepOptions { checkpoint_age: Duration::MAX, ..UpkeepOptions::default() };
        OpenOptions { probe: false, upkeep, environment: self.environment.clone(), ..OpenOptions::default() }
    }

    /// The defaults, without the look whether somebody has it.
    pub(crate) fn remove_options(&self) -> RemoveOptions {
        RemoveOptions { if_free: None, environment: self.environment.clone(), ..RemoveOptions::default() }
    }

    pub(crate) async fn open(&self) -> Volume {
        self.try_open().await.expect("it opens")
    }

    pub(crate) async fn try_open(&self) -> Result<Volume, Error> {
        Volume::open(self.bucket.clone(), self.options()).await
    }

    pub(crate) async fn open_with(&self, change: impl FnOnce(&mut OpenOptions)) -> Volume {
        let mut options = self.options();
        change(&mut options);
        Volume::open(self.bucket.clone(), options).await.expect("it opens")
    }

    pub(crate) async fn open_read_only(&self) -> Volume {
        Volume::open_read_only(self.bucket.clone(), self.options()).await.expect("it opens read-only")
    }

    /// Stores a log object as the volume's writer, or one of an older epoch, might have: one block of `fill` at `at`.
    pub(crate) fn put_old_object(&self, volume: &Volume, epoch: u64, number: u64, at: u64, fill: u8) {
        let description = volume.description();
        let mine = description.epoch == Epoch(epoch);
        let identity = ObjectIdentity {
            volume: description.volume_id,
            epoch: Epoch(epoch),
            writer: if mine { description.writer_id } else { WriterId([0xee; 16]) },
            number: SequenceNumber(number),
        };
        self.store.put(&log(number), object(identity, Extent::new(at, 1), fill));
    }
}

/// The bytes of a log object that fills `extent`.
pub(crate) fn object(identity: ObjectIdentity, extent: Extent, fill: u8) -> Vec<u8> {
    let entries = vec![Entry::Data { extent }];
    let mut bytes = Vec::new();
    Header { identity, sealed_unix_ms: 0, journal: None, entries }.encode(&mut bytes);
    let data = vec![fill; usize::try_from(extent.count.bytes()).unwrap()];
    encode_frames(&identity, BlockOrdinal(0), &data, &mut bytes);
    bytes
}

pub(crate) fn log(number: u64) -> String {
    names::log_object(SequenceNumber(number))
}

/// `blocks` blocks of `fill`.
pub(crate) fn blocks(blocks: u64, fill: u8) -> Bytes {
    Bytes::from(vec![fill; usize::try_from(blocks * BLOCK).unwrap()])
}

/// Writes a block and flushes.
pub(crate) async fn write_block(volume: &Volume, block: u64, fill: u8) -> Result<(), Error> {
    volume.write(block * BLOCK, blocks(1, fill), false).await?;
    volume.flush().await
}

pub(crate) async fn read(volume: &Volume, offset_bytes: u64, length_bytes: u64) -> Result<Vec<u8>, Error> {
    let pieces = volume.read(offset_bytes, length_bytes).await?;
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Data(data) => bytes.extend_from_slice(&data),
            Piece::Zeroes(count) => bytes.resize(bytes.len() + usize::try_from(count).unwrap(), 0),
        }
    }
    assert_eq!(bytes.len() as u64, length_bytes, "pieces sum to what was asked for");
    Ok(bytes)
}

/// What a block is filled with.
pub(crate) async fn fill_of(volume: &Volume, block: u64) -> Result<u8, Error> {
    let bytes = read(volume, block * BLOCK, BLOCK).await?;
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a block is of one write");
    Ok(bytes[0])
}

/// Lets tasks run as far as they come without time passing.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

//! One process's connection to the store, as an [`ObjectStore`]: everything that can go wrong on the way does.
//!
//! Knows no volume. A request that was sent lives on by itself: its effect lands whether or not the process that
//! sent it still waits, stalls or lives. Invariants: nothing leaves and nothing comes back while the gate is closed;
//! after death nothing new leaves.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use lsvd_format::{names, superblock};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use crate::ambush::{Ambush, Blow};
use crate::cloud::{Cloud, Stored, is_fence, relative};
use crate::host::SsdNumber;
use crate::ledger::Author;
use crate::looks::Looks;
use crate::mutation::Mutation;
use crate::oracle::Violation;
use crate::rng::Rng;
use crate::stage::{Stage, lock};
use crate::weather::{Bequest, Course, Fate, Weather};

/// Whether a process reaches the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It does.
    Open,
    /// It stalls: nothing goes out or comes back until it wakes.
    Stalled,
    /// It is dead.
    Dead,
}

/// A process's connection. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Link(Arc<Inner>);

struct Inner {
    process: u32,
    rights: Rights,
    /// Where its journal lies.
    ssd: Mutex<Option<SsdNumber>>,
    ambush: Mutex<Option<Ambush>>,
    looks: Mutex<Looks>,
    stage: Arc<Stage>,
    cloud: Arc<Mutex<Cloud>>,
    weather: Arc<Mutex<Weather>>,
    mutation: Option<Mutation>,
    rng: Mutex<Rng>,
    gate: Mutex<Gate>,
    /// Wakes who waits in the order in which they came, which a watch does not.
    gate_moved: Notify,
}

/// What a process may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rights {
    /// A mutating request is a violation otherwise.
    pub(crate) write: bool,
    /// It was told that a journal may be given up.
    pub(crate) abandon: bool,
}

/// What a link is made of.
pub(crate) struct World {
    pub(crate) stage: Arc<Stage>,
    pub(crate) cloud: Arc<Mutex<Cloud>>,
    pub(crate) weather: Arc<Mutex<Weather>>,
    pub(crate) mutation: Option<Mutation>,
}

impl Link {
    /// The connection of `process`.
    pub(crate) fn new(world: &World, process: u32, rights: Rights, rng: Rng) -> Self {
        Self(Arc::new(Inner {
            process,
            rights,
            ssd: Mutex::new(None),
            ambush: Mutex::new(None),
            looks: Mutex::default(),
            stage: Arc::clone(&world.stage),
            cloud: Arc::clone(&world.cloud),
            weather: Arc::clone(&world.weather),
            mutation: world.mutation,
            rng: Mutex::new(rng),
            gate: Mutex::new(Gate::Open),
            gate_moved: Notify::new(),
        }))
    }

    /// Opens or closes the way; the dead stay dead.
    pub(crate) fn set_gate(&self, gate: Gate) {
        let mut now = lock(&self.0.gate);
        if *now != Gate::Dead && *now != gate {
            *now = gate;
            self.0.gate_moved.notify_waiters();
        }
    }

    /// How the gate is.
    pub(crate) fn gate(&self) -> Gate {
        *lock(&self.0.gate)
    }

    /// Returns when the gate is as is wished for.
    async fn wait_for(&self, wish: impl Fn(Gate) -> bool) {
        loop {
            // Before the look, so that no move is missed.
            let moved = self.0.gate_moved.notified();
            if wish(self.gate()) {
                return;
            }
            moved.await;
        }
    }

    /// The process.
    pub(crate) fn process(&self) -> u32 {
        self.0.process
    }

    /// Its journal lies on this SSD.
    pub(crate) fn set_ssd(&self, ssd: SsdNumber) {
        lock(&self.0.ssd).replace(ssd);
    }

    /// Lies in wait for the process, or does not any more.
    pub(crate) fn set_ambush(&self, ambush: Option<Ambush>) {
        *lock(&self.0.ambush) = ambush;
    }

    fn author(&self) -> Author {
        Author { may_abandon: self.0.rights.abandon, ssd: *lock(&self.0.ssd) }
    }

    /// Rules 7 and 9, when a delete is sent.
    fn check_delete(&self, name: &str) {
        if [names::LOG_FOLDER, names::CHECKPOINT_FOLDER].iter().all(|folder| !in_folder(name, folder)) {
            return;
        }
        if lock(&self.0.cloud).is_removed() {
            return;
        }
        if let Err(why) = lock(&self.0.looks).check_delete() {
            let what = format!("p{} deletes '{}', and {why}", self.0.process, relative(name));
            self.0.stage.accuse(Violation::new(9, what));
        }
        lock(&self.0.cloud).check_grace(name);
    }

    /// Returns when the process is dead.
    pub(crate) async fn dead(&self) {
        self.wait_for(|gate| gate == Gate::Dead).await;
    }

    /// Strikes if somebody lies in wait for this request.
    fn strike(&self, verb: &str, name: &str, landed: bool) {
        let mut ambush = lock(&self.0.ambush);
        if !ambush.as_mut().is_some_and(|ambush| ambush.is_now(verb, name, landed)) {
            return;
        }
        let Some(Ambush { blow, .. }) = ambush.take() else { return };
        let when = if landed { "after" } else { "before" };
        self.0.stage.event(format_args!(
            "p{} is hit {when} {verb} {}: {blow:?}",
            self.0.process,
            relative(name)
        ));
        match blow {
            Blow::Dies => self.set_gate(Gate::Dead),
            Blow::Stalls(time) => {
                self.set_gate(Gate::Stalled);
                let link = self.clone();
                tokio::spawn(async move {
                    sleep(time).await;
                    link.set_gate(Gate::Open);
                });
            }
        }
    }

    /// Returns when the gate is open; never if the process is dead.
    pub(crate) async fn open(&self) {
        self.wait_for(|gate| gate == Gate::Open).await;
    }

    /// Sends a request: waits for the gate, and draws what will become of it.
    async fn send(&self, verb: &str, name: &str) -> Course {
        self.open().await;
        if !lock(&self.0.cloud).admit() {
            std::future::pending::<()>().await;
        }
        let now_ms = self.0.stage.now_ms();
        let course = lock(&self.0.weather).course(&mut lock(&self.0.rng), now_ms);
        self.0.stage.event(format_args!("p{} {verb} {}: {:?}", self.0.process, relative(name), course.fate));
        course
    }

    /// A request that changes something.
    async fn change<T: fmt::Debug + Send + 'static>(
        &self,
        verb: &'static str,
        name: &str,
        apply: impl FnOnce(&mut Cloud) -> T + Send + 'static,
    ) -> Result<T> {
        if !self.0.rights.write {
            let what = format!("a read-only opening asked for {verb} of '{name}'");
            self.0.stage.accuse(Violation::new(3, what));
        }
        self.strike(verb, name, false);
        let course = self.send(verb, name).await;
        let (answer, answered) = oneshot::channel();
        if !matches!(course.fate, Fate::FailsBefore | Fate::Silent | Fate::Conflict) {
            let (link, name) = (self.clone(), name.to_owned());
            let is_version = names::parse_superblock(relative(&name)).is_some();
            if is_version {
                lock(&link.0.cloud).note_version(true);
            }
            tokio::spawn(async move {
                let arrives = link.arrive(course).await;
                if is_version {
                    lock(&link.0.cloud).note_version(false);
                }
                if arrives {
                    let done = apply(&mut lock(&link.0.cloud));
                    link.0.stage.event(format_args!(
                        "p{} {verb} {} lands: {done:?}",
                        link.0.process,
                        relative(&name)
                    ));
                    link.strike(verb, &name, true);
                    let _ = answer.send(done);
                }
            });
        }
        let result = match course.fate {
            Fate::Answered | Fate::FailsAfter | Fate::SilentAfter => match answered.await {
                Ok(_) if course.fate == Fate::SilentAfter => std::future::pending().await,
                Ok(_) if course.fate == Fate::FailsAfter => Err(trouble(course)),
                Ok(done) => Ok(done),
                Err(_) => std::future::pending().await,
            },
            Fate::FailsBefore | Fate::FailsThenLands => Err(trouble(course)),
            Fate::Silent => std::future::pending().await,
            Fate::Conflict if verb == "PUT" => Err(exists(name)),
            Fate::Conflict => Err(trouble(course)),
        };
        sleep(course.back).await;
        self.open().await;
        result
    }

    /// Until a request that was sent takes effect; `false` if it never will.
    async fn arrive(&self, course: Course) -> bool {
        sleep(course.there).await;
        if course.held_by_stall {
            self.wait_for(|gate| gate != Gate::Stalled).await;
        }
        let dead = self.gate() == Gate::Dead;
        match course.bequest {
            Bequest::Lost if dead => return false,
            Bequest::LandsLate(later) if dead => sleep(later).await,
            _ => {}
        }
        true
    }

    /// A request that only reads.
    async fn look<T>(&self, verb: &str, name: &str, read: impl FnOnce(&Cloud) -> T) -> Result<(T, Course)> {
        let course = self.send(verb, name).await;
        sleep(course.there.min(Duration::from_secs(30))).await;
        let seen = match course.fate {
            Fate::Answered => Ok((read(&lock(&self.0.cloud)), course)),
            Fate::Silent | Fate::SilentAfter => std::future::pending().await,
            _ => Err(trouble(course)),
        };
        sleep(course.back).await;
        self.open().await;
        seen
    }

    /// One page of a listing.
    async fn page(&self, prefix: &str, after: &str) -> Result<(Vec<(String, Stored)>, bool)> {
        let count = lock(&self.0.rng).pick(&[2, 5, 10, 1000]);
        let ((mut page, mut more), course) =
            self.look("LIST", prefix, |cloud| cloud.page(prefix, after, count)).await?;
        if self.0.mutation == Some(Mutation::ShortListing) && course.salt % 4 == 0 {
            page.truncate(page.len() / 2);
            more = false;
        }
        Ok((page, more))
    }

    fn pages(&self, prefix: String, after: String) -> BoxStream<'static, Result<ObjectMeta>> {
        let link = self.clone();
        let first = Some((link, prefix, after));
        let began = lock(&self.0.looks).begins();
        let pages = stream::try_unfold(first, move |at| async move {
            let Some((link, prefix, after)) = at else { return Ok(None) };
            let (page, more) = link.page(&prefix, &after).await?;
            let metas: Vec<Result<ObjectMeta>> =
                page.iter().map(|(name, stored)| Ok(meta(name, stored))).collect();
            if !more && in_folder(&prefix, names::SUPERBLOCK_FOLDER) {
                let highest = page.last().map_or(after.as_str(), |(name, _)| name.as_str());
                lock(&link.0.looks).saw(began, names::parse_superblock(relative(highest)));
            }
            let after = page.last().map_or(after, |(name, _)| name.clone());
            Ok::<_, Error>(Some((stream::iter(metas), more.then_some((link, prefix, after)))))
        });
        pages.try_flatten().boxed()
    }

    /// Bytes that are not the ones that were asked for: of another object, or of another place of this one.
    fn stale(&self, name: &str, stored: &Stored, start: usize, salt: u64) -> Bytes {
        // What the probe reads can not be verified: the same wrong bytes twice would be a store that it is right to refuse.
        let probed = in_folder(name, names::PROBE_FOLDER);
        if probed || lock(&self.0.weather).damaged == 0 {
            return Bytes::new();
        }
        if salt.is_multiple_of(2) {
            let block = 4096 * usize::try_from(salt >> 32).expect("32 bits fit");
            let other = (start + block) % stored.bytes.len().max(1);
            return stored.bytes.slice(other..);
        }
        let other = lock(&self.0.cloud).neighbour(name, salt >> 8).unwrap_or_else(|| stored.clone());
        other.bytes.slice(start.min(other.bytes.len())..)
    }

    /// The bytes of an answer as they come back, in pieces, perhaps damaged, or `stale` ones instead of them.
    fn delivered(&self, bytes: Bytes, stale: Bytes, salt: u64) -> BoxStream<'static, Result<Bytes>> {
        let damaged = lock(&self.0.weather).damaged;
        let mut rng = Rng::new(salt, 1);
        let length = bytes.len();
        let mut bytes = bytes;
        let mut fails_at_end = false;
        if length > 0 && rng.chance(damaged) {
            let at = usize::try_from(rng.between(0, length as u64 - 1)).expect("an index fits");
            match rng.between(0, 4) {
                0 => {
                    let mut flipped = bytes.to_vec();
                    flipped[at] ^= 1 << rng.between(0, 7);
                    bytes = flipped.into();
                }
                1 => bytes = bytes.slice(..at),
                2 | 3 if !stale.is_empty() => {
                    let mut other = stale.to_vec();
                    other.resize(length, 0);
                    bytes = other.into();
                }
                _ => {
                    bytes = bytes.slice(..at);
                    fails_at_end = true;
                }
            }
            self.0.stage.event(format_args!("p{} an answer is damaged at byte {at}", self.0.process));
        }
        let cut = bytes.len() / 2;
        let mut pieces = vec![Ok(bytes.slice(..cut)), Ok(bytes.slice(cut..))];
        if fails_at_end {
            pieces.push(Err(generic("the connection was reset in the body")));
        }
        stream::iter(pieces).boxed()
    }
}

fn in_folder(name: &str, folder: &str) -> bool {
    relative(name).starts_with(folder)
}

fn generic(what: &str) -> Error {
    Error::Generic { store: "simulated", source: what.into() }
}

fn trouble(course: Course) -> Error {
    generic(match course.salt % 3 {
        0 => "500 Internal Server Error",
        1 => "503 Slow Down",
        _ => "connection reset by peer",
    })
}

fn exists(name: &str) -> Error {
    Error::AlreadyExists { path: name.to_owned(), source: "409 ConditionalRequestConflict".into() }
}

fn absent(name: &str) -> Error {
    Error::NotFound { path: name.to_owned(), source: "404 <Code>NoSuchKey</Code>".into() }
}

fn meta(name: &str, stored: &Stored) -> ObjectMeta {
    let mut meta = ObjectMeta {
        location: Path::from(name),
        last_modified: Default::default(),
        size: stored.bytes.len() as u64,
        e_tag: None,
        version: None,
    };
    meta.last_modified += Duration::from_millis(stored.modified_unix_ms);
    meta
}

fn resolve(range: Option<GetRange>, length: u64) -> Result<Range<u64>> {
    let range = match range {
        None => return Ok(0..length),
        Some(GetRange::Bounded(range)) => range,
        Some(GetRange::Offset(start)) => start..length,
        Some(GetRange::Suffix(count)) => length.saturating_sub(count)..length,
    };
    if range.start >= length || range.start >= range.end {
        return Err(generic("416 Requested Range Not Satisfiable"));
    }
    Ok(range.start..range.end.min(length))
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.0.process)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated store seen by process {}", self.0.process)
    }
}

#[async_trait]
impl ObjectStore for Link {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let bytes = Bytes::from(payload);
        let name = location.to_string();
        let target = name.clone();
        let lies = match self.0.mutation {
            Some(Mutation::LyingPut) if in_folder(&name, names::LOG_FOLDER) => lock(&self.0.rng).chance(20),
            Some(Mutation::LyingCheckpoint) if in_folder(&name, names::CHECKPOINT_FOLDER) => {
                lock(&self.0.rng).chance(100)
            }
            _ => false,
        };
        let blind = self.0.mutation == Some(Mutation::BlindCollision);
        if let Some(number) = names::parse_superblock(relative(&name)) {
            if let Ok(version) = superblock::decode(number, &bytes) {
                lock(&self.0.looks).sends(number, &version);
            }
        } else if in_folder(&name, names::LOG_FOLDER) && is_fence(&bytes) {
            lock(&self.0.looks).fences();
        }
        let author = self.author();
        let created = match opts.mode {
            PutMode::Create => {
                self.change("PUT", &name, move |cloud| {
                    let in_log = in_folder(&target, names::LOG_FOLDER);
                    lies || cloud.create(&target, bytes, author) || (blind && in_log)
                })
                .await?
            }
            PutMode::Overwrite => {
                self.change("PUT!", &name, move |cloud| {
                    cloud.overwrite(&target, bytes);
                    true
                })
                .await?
            }
            PutMode::Update(_) => return Err(unsupported("conditional update")),
        };
        if !created {
            return Err(exists(&name));
        }
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(unsupported("multipart upload"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let name = location.to_string();
        let (stored, course) = match self.look("GET", &name, |cloud| cloud.get(&name)).await {
            Err(_) if self.0.mutation == Some(Mutation::ErrorAsAbsence) => return Err(absent(&name)),
            other => other?,
        };
        lock(&self.0.cloud).note_read(&name);
        let stored = stored.ok_or_else(|| absent(&name))?;
        let range = resolve(options.range, stored.bytes.len() as u64)?;
        let index = |at: u64| usize::try_from(at).expect("what is in memory can be indexed");
        let stale = self.stale(&name, &stored, index(range.start), course.salt);
        let bytes = if options.head {
            Bytes::new()
        } else {
            stored.bytes.slice(index(range.start)..index(range.end))
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(self.delivered(bytes, stale, course.salt)),
            meta: meta(&name, &stored),
            range,
            attributes: Attributes::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let link = self.clone();
        locations
            .then(move |location| {
                let link = link.clone();
                async move {
                    let location = location?;
                    let name = location.to_string();
                    link.check_delete(&name);
                    link.change("DELETE", &name.clone(), move |cloud| cloud.delete(&name)).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.pages(folder(prefix), String::new())
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = folder(prefix);
        if self.0.mutation == Some(Mutation::BlindLook) && in_folder(&prefix, names::SUPERBLOCK_FOLDER) {
            return stream::empty().boxed();
        }
        self.pages(prefix, offset.to_string())
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = folder(prefix);
        let all: Vec<ObjectMeta> = self.pages(prefix.clone(), String::new()).try_collect().await?;
        let below = |meta: &ObjectMeta| {
            meta.location.as_ref()[prefix.len()..].split_once('/').map(|(first, _)| first.to_owned())
        };
        let mut common_prefixes: Vec<Path> =
            all.iter().filter_map(below).map(|first| Path::from(format!("{prefix}{first}"))).collect();
        common_prefixes.dedup();
        let objects = all.into_iter().filter(|meta| below(meta).is_none()).collect();
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unsupported("copy"))
    }
}

fn folder(prefix: Option<&Path>) -> String {
    prefix.filter(|prefix| !prefix.as_ref().is_empty()).map(|prefix| format!("{prefix}/")).unwrap_or_default()
}

fn unsupported(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "the simulated store".to_owned() }
}

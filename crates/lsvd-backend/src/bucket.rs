//! A prefix of a bucket, and the few verbs that are asked of it.
//!
//! Knows names and bytes, never blocks or volumes. Every request to a store passes through here, with one loop of
//! attempts each. Invariants: `None` and the end of a listing are definite answers (rule 4); a range that is returned
//! has exactly the bytes that were asked for (rule 5); nothing here is cached.

mod beside;

use std::fmt;
use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use crate::classify::{self, Answer, Failure, FailureKind, Protocol};
use crate::counts::{Counts, RequestCounts};
use crate::error::{Error, Site, Verb};
use crate::pace::Pace;
use crate::pulse::{Pulse, Watch};
use crate::retry::{Attempts, Jitter, RetryPolicy, Standing};

/// How often a range is read again that came back with other than its bytes, before it is called corrupt.
const SHORT_READS_MAX: u32 = 3;

/// From here on "the first bytes" are asked for as the whole object: no object is that long, and servers that count
/// in signed numbers refuse a range that is.
const WHOLE_OBJECT_BYTES: u64 = 1 << 40;

/// What a create-only PUT came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object was created by this call.
    Done,
    /// The store says that the name is taken. That may be by an earlier attempt of this very call whose answer was
    /// lost, or by another creator that is still under way: read the object to know, and where it is definitely not
    /// there, create it again (rule 2).
    Exists,
}

/// The beginning of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The object's first bytes: as many as were asked for, or all of them where it has fewer.
    pub bytes: Bytes,
    /// Length of the whole object.
    pub object_bytes: u64,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name below the bucket's prefix, as the other methods take it.
    pub name: String,
    /// Length of the object.
    pub object_bytes: u64,
    /// When the store says that it was written, in milliseconds since 1970. By the store's clock: for people and
    /// grace periods, not for proofs.
    pub last_modified_unix_ms: i64,
}

/// What is known of a store apart from the trait that it implements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    pub(crate) protocol: Protocol,
    /// Listings come in ascending order, so that one that broke off can go on after the last name.
    pub(crate) lists_in_order: bool,
    /// Its credentials may be renewed while they are in use.
    pub(crate) renewable: bool,
}

/// A prefix of a bucket. Cheap to clone; clones and children share the store, its connections, the jitter, the pace and the pulse.
#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    traits: Traits,
    prefix: Path,
    /// The directory that is the whole store, if it is one: what lies beside it is another store.
    folder: Option<Arc<FsPath>>,
    label: Arc<str>,
    retry: RetryPolicy,
    jitter: Arc<Jitter>,
    paces: Arc<Paces>,
    pulse: Arc<Pulse>,
    standing: Arc<Standing>,
    counts: Arc<Counts>,
}

/// Uploads and downloads go different ways, and one does not wait for the other.
struct Paces {
    puts: Pace,
    gets: Pace,
}

impl Paces {
    fn new(policy: RetryPolicy) -> Self {
        // Half of what an attempt without a body may take: then it is late to notice, but not too late.
        let slow = policy.attempt_timeout / 2;
        Paces {
            puts: Pace::new(policy.puts_first_bytes, slow),
            gets: Pace::new(policy.gets_first_bytes, slow),
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The store's own Debug may hold credentials (rule 11).
        f.debug_struct("Bucket")
            .field("label", &self.label)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    /// A prefix of a store that the caller has made, for embedding and simulation.
    ///
    /// `prefix` is empty or a path without leading slash. `label` names the whole, prefix included, in messages.
    /// The store must not retry by itself: a PUT that was retried in secret answers "exists" for its own object more
    /// often than needed. Nothing random is drawn after [`Bucket::with_jitter_seed`].
    pub fn from_store(store: Arc<dyn ObjectStore>, prefix: &str, label: &str) -> Bucket {
        // What can not be in a path is encoded, so that no prefix is refused.
        let prefix = Path::parse(prefix).unwrap_or_else(|_| Path::from(prefix));
        let traits = Traits { protocol: Protocol::Embedded, lists_in_order: false, renewable: false };
        Bucket::assemble(store, traits, prefix, label)
    }

    pub(crate) fn assemble(store: Arc<dyn ObjectStore>, traits: Traits, prefix: Path, label: &str) -> Bucket {
        let retry = RetryPolicy::default();
        Bucket {
            store,
            traits,
            prefix,
            folder: None,
            label: Arc::from(label),
            retry,
            jitter: Arc::new(Jitter::ambient()),
            paces: Arc::new(Paces::new(retry)),
            pulse: Arc::default(),
            standing: Arc::new(Standing::new(traits.renewable)),
            counts: Arc::default(),
        }
    }

    /// The same bucket with other limits.
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Bucket { retry, paces: Arc::new(Paces::new(retry)), ..self }
    }

    /// The same bucket with a jitter that repeats: the same requests then pause for the same times.
    pub fn with_jitter_seed(self, seed: u64) -> Self {
        Bucket { jitter: Arc::new(Jitter::new(seed)), ..self }
    }

    /// The limits in force.
    pub fn retry(&self) -> RetryPolicy {
        self.retry
    }

    /// What was asked of the store so far, by this bucket and all its clones and children.
    pub fn requests(&self) -> RequestCounts {
        self.counts.read()
    }

    /// The store and prefix as people name them, without secrets.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What is below `segment` here, as a bucket of its own.
    pub fn child(&self, segment: &str) -> Bucket {
        let segment = segment.trim_matches('/');
        let label = format!("{}/{segment}", self.label.trim_end_matches('/'));
        let prefix = match Path::parse(segment) {
            Ok(below) => below.parts().fold(self.prefix.clone(), |path, part| path.join(part)),
            Err(_) => self.prefix.clone().join(segment),
        };
        Bucket { prefix, label: Arc::from(label), ..self.clone() }
    }

    /// Creates an object that must not be there yet.
    ///
    /// # Errors
    /// After [`Error::Unavailable`] the outcome is open: the object may be there, or appear later. Keep its name for
    /// the same bytes and create it again (rule 2). After the other errors nothing was stored by this attempt, but an
    /// earlier one, whose answer was lost, may have been.
    pub async fn create(&self, name: &str, payload: PutPayload) -> Result<Created, Error> {
        self.put(name, payload, PutMode::Create).await
    }

    /// Writes an object whether or not it is there, for stores that ignore create-only PUTs: only for a volume whose
    /// owner promised that there is one writer.
    ///
    /// # Errors
    /// As [`Bucket::create`].
    pub async fn overwrite(&self, name: &str, payload: PutPayload) -> Result<(), Error> {
        self.put(name, payload, PutMode::Overwrite).await.map(|_| ())
    }

    async fn put(&self, name: &str, payload: PutPayload, mode: PutMode) -> Result<Created, Error> {
        let (path, mut attempts) = self.begin(Verb::Put, name)?;
        let body_bytes = payload.content_length() as u64;
        loop {
            self.counts.put(body_bytes);
            let options = PutOptions::from(mode.clone());
            let request = self.store.put_opts(&path, payload.clone(), options);
            let request = self.sorted(Verb::Put, request);
            let failure = match attempts.one_in_turn(&self.paces.puts, body_bytes, request).await {
                Ok(_) => return Ok(Created::Done),
                Err(Answer::Exists) if mode == PutMode::Create => return Ok(Created::Exists),
                Err(Answer::Exists) => unexpected("said 'exists' to a PUT that may overwrite"),
                Err(Answer::Absent) => unexpected("said 'not found' to a PUT"),
                Err(Answer::Failed(failure)) => failure,
            };
            self.counts.failed();
            attempts.again(failure).await?;
        }
    }

    /// Reads the first bytes of an object, up to `bytes_max` (at least 1), and learns its length.
    ///
    /// `None` only where the store definitely says that the object is not there (rule 4).
    ///
    /// # Errors
    /// [`Error::Unavailable`]: nothing is known; try again later. The others as their variants say.
    pub async fn read_head(&self, name: &str, bytes_max: u64) -> Result<Option<Head>, Error> {
        let (path, mut attempts) = self.begin(Verb::Get, name)?;
        let mut short_reads = 0;
        let mut range = (bytes_max < WHOLE_OBJECT_BYTES).then(|| 0..bytes_max.max(1));
        loop {
            let request = self.get(&path, range.clone());
            let body_bytes = range.as_ref().map_or(0, |range| range.end);
            let failure = match attempts.one_in_turn(&self.paces.gets, body_bytes, request).await {
                Ok((bytes, object_bytes)) => {
                    let expected_bytes =
                        range.as_ref().map_or(object_bytes, |range| range.end.min(object_bytes));
                    if bytes.len() as u64 == expected_bytes {
                        return Ok(Some(Head { bytes, object_bytes }));
                    }
                    short_reads += 1;
                    short(0..expected_bytes, bytes.len(), short_reads)
                }
                Err(Answer::Absent) => return Ok(None),
                // An empty object satisfies no range: ask for all of it.
                Err(Answer::Failed(Failure { kind: FailureKind::BeyondEnd, .. })) if range.is_some() => {
                    range = None;
                    continue;
                }
                Err(Answer::Exists) => unexpected("said 'exists' to a GET"),
                Err(Answer::Failed(failure)) => failure,
            };
            self.counts.failed();
            attempts.again(failure).await?;
        }
    }

    /// Reads exactly these bytes of an object.
    ///
    /// `None` only where the store definitely says that the object is not there (rule 4).
    ///
    /// # Errors
    /// [`Error::Corrupt`]: the object is shorter than the range's end, or the store keeps returning other than what
    /// was asked for. [`Error::Unavailable`]: nothing is known; try again later.
    pub async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        let (path, mut attempts) = self.begin(Verb::Get, name)?;
        if range.start >= range.end {
            return Ok(Some(Bytes::new()));
        }
        let expected_bytes = range.end - range.start;
        let mut short_reads = 0;
        loop {
            let request = self.get(&path, Some(range.clone()));
            let failure = match attempts.one_in_turn(&self.paces.gets, expected_bytes, request).await {
                Ok((_, object_bytes)) if object_bytes < range.end => too_short(&range, object_bytes),
                Ok((bytes, _)) if bytes.len() as u64 == expected_bytes => return Ok(Some(bytes)),
                Ok((bytes, _)) => {
                    short_reads += 1;
                    short(range.clone(), bytes.len(), short_reads)
                }
                Err(Answer::Absent) => return Ok(None),
                Err(Answer::Exists) => unexpected("said 'exists' to a GET"),
                Err(Answer::Failed(failure)) => failure,
            };
            self.counts.failed();
            attempts.again(failure).await?;
        }
    }

    /// One GET: the bytes and the length of the whole object.
    async fn get(&self, path: &Path, range: Option<Range<u64>>) -> Result<(Bytes, u64), Answer> {
        self.counts.get();
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        self.sorted(Verb::Get, async {
            let result = self.store.get_opts(path, options).await?;
            let object_bytes = result.meta.size;
            let bytes = result.bytes().await?;
            self.counts.got(bytes.len() as u64);
            Ok((bytes, object_bytes))
        })
        .await
    }

    /// All objects below `folder` (empty: all of the prefix), at any depth, sorted by name, from the first name
    /// greater than `after`. Names, also `after`, are relative to this bucket, so that `log/2` comes after `log/1`
    /// in the folder `log`.
    ///
    /// # Errors
    /// No part of a listing is returned without the rest (rule 4). [`Error::Unavailable`]: try again later.
    pub async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<Listed>, Error> {
        let (path, mut attempts) = self.begin(Verb::List, folder)?;
        let after = after.map(|name| self.path(Verb::List, name)).transpose()?;
        let mut found = Vec::new();
        loop {
            let before = found.len();
            let failure = match self.list_on(&path, after.as_ref(), &mut attempts, &mut found).await {
                Ok(()) => break,
                Err(Answer::Failed(failure)) => failure,
                Err(_) => unexpected("said 'not found' or 'exists' to a LIST"),
            };
            let ordered = found.is_sorted_by(|a: &ObjectMeta, b| a.location.as_ref() < b.location.as_ref());
            if !(self.traits.lists_in_order && ordered) {
                found.clear();
            } else if found.len() > before {
                attempts.progress();
            }
            self.counts.failed();
            attempts.again(failure).await?;
        }
        let mut listed: Vec<Listed> =
            found.into_iter().filter_map(|meta| self.listed(meta, after.as_ref())).collect();
        listed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        listed.dedup_by(|a, b| a.name == b.name);
        Ok(listed)
    }

    /// Goes on with a listing after what was found already. Each page is waited for as long as an attempt may take.
    async fn list_on(
        &self,
        folder: &Path,
        after: Option<&Path>,
        attempts: &mut Attempts<'_>,
        found: &mut Vec<ObjectMeta>,
    ) -> Result<(), Answer> {
        let prefix = (!folder.as_ref().is_empty()).then_some(folder);
        let mut pages = match found.last().map(|meta| &meta.location).or(after) {
            Some(offset) => self.store.list_with_offset(prefix, offset),
            None => self.store.list(prefix),
        };
        self.counts.list();
        let mut next = attempts.one(0, self.sorted(Verb::List, pages.try_next())).await?;
        let found_before = found.len();
        while let Some(meta) = next {
            found.push(meta);
            self.counts.listed((found.len() - found_before) as u64);
            next = attempts.within(0, self.sorted(Verb::List, pages.try_next())).await?;
        }
        Ok(())
    }

    /// The names below `folder` in the order in which the store gives them, in one attempt.
    pub(crate) async fn list_as_answered(&self, folder: &str) -> Result<Vec<String>, Error> {
        let (path, mut attempts) = self.begin(Verb::List, folder)?;
        let mut found = Vec::new();
        match self.list_on(&path, None, &mut attempts, &mut found).await {
            Ok(()) => Ok(found.iter().filter_map(|meta| self.name_of(&meta.location)).collect()),
            Err(Answer::Failed(failure)) => Err(failure.into_error(self.site(Verb::List, folder))),
            Err(_) => {
                let failure = unexpected("said 'not found' or 'exists' to a LIST");
                Err(failure.into_error(self.site(Verb::List, folder)))
            }
        }
    }

    fn listed(&self, meta: ObjectMeta, after: Option<&Path>) -> Option<Listed> {
        // Some stores ignore start-after, and Azure's includes its own name.
        if after.is_some_and(|after| meta.location.as_ref() <= after.as_ref()) {
            return None;
        }
        Some(Listed {
            name: self.name_of(&meta.location)?,
            object_bytes: meta.size,
            last_modified_unix_ms: meta.last_modified.timestamp_millis(),
        })
    }

    /// The folders directly in `folder` (empty: in the prefix itself), sorted, each as its last segment only.
    ///
    /// # Errors
    /// As [`Bucket::list`].
    pub async fn list_folders(&self, folder: &str) -> Result<Vec<String>, Error> {
        let (path, mut attempts) = self.begin(Verb::List, folder)?;
        let prefix = (!path.as_ref().is_empty()).then_some(&path);
        loop {
            self.counts.list();
            let request = self.store.list_with_delimiter(prefix);
            let failure = match attempts.one(0, self.sorted(Verb::List, request)).await {
                Ok(result) => {
                    let mut names: Vec<String> = result
                        .common_prefixes
                        .iter()
                        .filter_map(|p| p.filename().map(str::to_owned))
                        .collect();
                    names.sort_unstable();
                    names.dedup();
                    return Ok(names);
                }
                Err(Answer::Failed(failure)) => failure,
                Err(_) => unexpected("said 'not found' or 'exists' to a LIST"),
            };
            self.counts.failed();
            attempts.again(failure).await?;
        }
    }

    /// Removes an object; one that is not there is removed already.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: it may be gone or not, or go later; delete it again.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let (path, mut attempts) = self.begin(Verb::Delete, name)?;
        loop {
            self.counts.delete();
            let failure = match attempts.one(0, self.sorted(Verb::Delete, self.store.delete(&path))).await {
                Ok(()) | Err(Answer::Absent) => return Ok(()),
                Err(Answer::Exists) => unexpected("said 'exists' to a DELETE"),
                Err(Answer::Failed(failure)) => failure,
            };
            self.counts.failed();
            attempts.again(failure).await?;
        }
    }

    async fn sorted<T>(
        &self,
        verb: Verb,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Answer> {
        request.await.map_err(|error| classify::answer(verb, self.traits.protocol, &error))
    }

    fn begin(&self, verb: Verb, name: &str) -> Result<(Path, Attempts<'_>), Error> {
        let path = self.path(verb, name)?;
        let watch = Watch::new(&self.pulse, &self.store, &path);
        Ok((path, Attempts::new(self.retry, (&self.jitter, &self.standing), watch, self.site(verb, name))))
    }

    fn path(&self, verb: Verb, name: &str) -> Result<Path, Error> {
        let below = Path::parse(name).map_err(|error| Error::Misconfigured {
            at: self.site(verb, name),
            detail: format!("not a name that an object can have ({error})"),
        })?;
        Ok(below.parts().fold(self.prefix.clone(), |path, part| path.join(part)))
    }

    fn name_of(&self, location: &Path) -> Option<String> {
        let location = location.as_ref();
        let name = match self.prefix.as_ref() {
            "" => location,
            prefix => location.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        (!name.is_empty()).then(|| name.to_owned())
    }

    pub(crate) fn site(&self, verb: Verb, object: &str) -> Site {
        Site { store: self.label.clone(), verb, object: object.to_owned() }
    }
}

/// An answer that no store gives to this verb: nothing is known, and least of all that something is absent.
fn unexpected(what: &str) -> Failure {
    Failure::new(FailureKind::Unavailable, format!("the store {what}"))
}

fn too_short(range: &Range<u64>, object_bytes: u64) -> Failure {
    let detail = format!(
        "the object has {object_bytes} bytes, but bytes {} to {} of it are needed: it is truncated",
        range.start, range.end
    );
    Failure::new(FailureKind::Corrupt, detail)
}

/// Other bytes than were asked for: worth another try, but not for ever.
fn short(range: Range<u64>, got_bytes: usize, short_reads: u32) -> Failure {
    let detail = format!("bytes {} to {} were asked for and {got_bytes} bytes came", range.start, range.end);
    let kind = if short_reads < SHORT_READS_MAX { FailureKind::Unavailable } else { FailureKind::Corrupt };
    Failure::new(kind, detail)
}

//! The examination of a store: everything that a volume asks of it, question by question, and what the answers mean.
//!
//! Knows stores and their settings, never volumes. It goes on where a volume would give up, so that one look says all
//! that is wrong. Invariants: every check that exists is in the report, also one that could not be made, with the reason;
//! nothing that was there is touched (names hold a nonce); all that was made is removed at the end, and what can not be
//! removed is named; no secret is in a report (rule 11).

mod access;
mod promises;
mod settings;
mod speed;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;

use crate::bucket::Bucket;
use crate::cloud::ask::{Answered, S3Bucket};
use crate::directory;
use crate::error::{Error, Verb};
use crate::open::StoreOptions;
use crate::retry::RetryPolicy;
use crate::url::{BucketUrl, Scheme};

pub use speed::Measured;

/// The longest that a question takes that only the examination asks.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);

/// How often such a question is asked that gets no usable answer.
const QUESTION_TRIES: u32 = 3;
const QUESTION_PAUSE: Duration = Duration::from_millis(200);

/// How long the removal of each further object is waited for, once one was not answered.
const HOPELESS_LIMIT: Duration = Duration::from_secs(2);

/// Objects that are removed at once.
const DELETES_AT_ONCE: usize = 8;

/// What is asked, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// The bucket, container or directory is there and answers.
    Bucket,
    /// Requests are signed for the bucket's region.
    Region,
    /// This host's clock and the store's agree.
    Clock,
    /// The credentials are known and good.
    Credentials,
    /// A request with a wrong signature is refused.
    Signatures,
    /// Objects may be listed.
    MayList,
    /// Objects may be created.
    MayCreate,
    /// Objects may be read.
    MayRead,
    /// It may be learned that an object is not there.
    MayLearnAbsence,
    /// Objects may be removed.
    MayDelete,
    /// A create of a name that is taken is refused.
    CreateOnly,
    /// Of several creators at once exactly one wins.
    CreateOnlyInARace,
    /// Listings show at once what was created and what was deleted.
    ListAfterWrite,
    /// Listings come in ascending order.
    ListOrder,
    /// The pages of a listing hold each name once.
    ListPages,
    /// A ranged GET returns exactly its bytes.
    RangeReads,
    /// An object of the size of a log object is stored whole.
    LargeObjects,
    /// An object is not seen before it is whole.
    WholeOrAbsent,
    /// What was acknowledged survives a crash of the store.
    Durability,
    /// Requests are answered at the first attempt.
    Answers,
    /// How long small requests take.
    Latency,
    /// How fast large objects pass.
    Throughput,
    /// Whether removed objects stay as old versions.
    Versioning,
    /// Whether rules remove or move objects.
    Lifecycle,
    /// Whether objects are held for a time.
    ObjectLock,
    /// Files of writers that were killed.
    UnfinishedFiles,
    /// What the examination itself left behind.
    LeftBehind,
}

/// All checks, in the order in which they are told.
pub const CHECKS: [Check; 27] = [
    Check::Bucket,
    Check::Region,
    Check::Clock,
    Check::Credentials,
    Check::Signatures,
    Check::MayList,
    Check::MayCreate,
    Check::MayRead,
    Check::MayLearnAbsence,
    Check::MayDelete,
    Check::CreateOnly,
    Check::CreateOnlyInARace,
    Check::ListAfterWrite,
    Check::ListOrder,
    Check::ListPages,
    Check::RangeReads,
    Check::LargeObjects,
    Check::WholeOrAbsent,
    Check::Durability,
    Check::Answers,
    Check::Latency,
    Check::Throughput,
    Check::Versioning,
    Check::Lifecycle,
    Check::ObjectLock,
    Check::UnfinishedFiles,
    Check::LeftBehind,
];

impl Check {
    /// Its name: a contract of docs/json.md.
    pub fn name(self) -> &'static str {
        match self {
            Check::Bucket => "bucket",
            Check::Region => "region",
            Check::Clock => "clock",
            Check::Credentials => "credentials",
            Check::Signatures => "signatures",
            Check::MayList => "may-list",
            Check::MayCreate => "may-create",
            Check::MayRead => "may-read",
            Check::MayLearnAbsence => "may-learn-absence",
            Check::MayDelete => "may-delete",
            Check::CreateOnly => "create-only",
            Check::CreateOnlyInARace => "create-only-in-a-race",
            Check::ListAfterWrite => "list-after-write",
            Check::ListOrder => "list-order",
            Check::ListPages => "list-pages",
            Check::RangeReads => "range-reads",
            Check::LargeObjects => "large-objects",
            Check::WholeOrAbsent => "whole-or-absent",
            Check::Durability => "durability",
            Check::Answers => "answers",
            Check::Latency => "latency",
            Check::Throughput => "throughput",
            Check::Versioning => "versioning",
            Check::Lifecycle => "lifecycle",
            Check::ObjectLock => "object-lock",
            Check::UnfinishedFiles => "unfinished-files",
            Check::LeftBehind => "left-behind",
        }
    }

    /// What is asked, for a person.
    fn question(self) -> &'static str {
        match self {
            Check::Bucket => "LIST of an empty folder",
            Check::Region => "which region the bucket is in",
            Check::Clock => "the time by the store's clock",
            Check::Credentials => "whether the store takes these credentials",
            Check::Signatures => "LIST, signed with a wrong secret",
            Check::MayList => "LIST",
            Check::MayCreate => "PUT of a new object",
            Check::MayRead => "GET of it",
            Check::MayLearnAbsence => "GET of an object that never was",
            Check::MayDelete => "DELETE",
            Check::CreateOnly => "create-only PUT of a name that is taken",
            Check::CreateOnlyInARace => "six races of eight creators for one name",
            Check::ListAfterWrite => "LIST after PUTs, from a name on, and after a DELETE",
            Check::ListOrder => "LIST of names that sort differently by folder and by byte",
            Check::ListPages => "LIST by pages of two names",
            Check::RangeReads => "GET of ranges, also across MiB and at the end",
            Check::LargeObjects => "PUT of 8 MiB, the size of a log object, and GET of it",
            Check::WholeOrAbsent => "GETs of that object while it was uploaded",
            Check::Durability => "whether what is acknowledged survives a crash of the store",
            Check::Answers => "small requests, each tried once",
            Check::Latency => "PUT and GET of 4 KiB, LIST, one at a time",
            Check::Throughput => "PUT and GET of eight objects of 8 MiB, four at once",
            Check::Versioning => "GET ?versioning",
            Check::Lifecycle => "GET ?lifecycle",
            Check::ObjectLock => "GET ?object-lock",
            Check::UnfinishedFiles => "files of writers that were killed",
            Check::LeftBehind => "removal of all that was made, and LIST",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// As a volume needs it.
    Good,
    /// Worth knowing; no fault.
    Note,
    /// It works, and will cost something one day: money, time or trust.
    Warning,
    /// A volume can not be trusted to this store as it is.
    Fault,
    /// It was asked, and no answer says it.
    Unknown,
    /// It was not asked: the reason is the answer.
    NotAsked,
}

impl Verdict {
    /// Its name: a contract of docs/json.md.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Good => "good",
            Verdict::Note => "note",
            Verdict::Warning => "warning",
            Verdict::Fault => "fault",
            Verdict::Unknown => "unknown",
            Verdict::NotAsked => "not-asked",
        }
    }
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was asked.
    pub check: Check,
    /// What the answer means.
    pub verdict: Verdict,
    /// The question, for a person.
    pub asked: &'static str,
    /// The answer, for a person.
    pub answered: String,
    /// What it means and what to do, for a person; empty where there is nothing to say.
    pub advice: String,
}

/// All that was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where requests went, for a person: the bucket's URL and region, or the directory.
    pub place: String,
    /// One for each of [`CHECKS`], in their order.
    pub findings: Vec<Finding>,
    /// Times and speeds, where they were measured.
    pub measured: Option<Measured>,
    /// The bucket, container or directory does not exist: all else is not asked.
    pub bucket_is_missing: bool,
    /// Names below the examined prefix that could not be removed.
    pub left_behind: Vec<String>,
}

impl Report {
    /// What was found of one check.
    pub fn finding(&self, check: Check) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.check == check)
    }
}

/// An examination of one prefix of a store.
#[derive(Debug)]
pub struct Examination {
    bucket: Bucket,
    scheme: Option<Scheme>,
    s3: Option<S3Bucket>,
    /// The prefix in the bucket, which rules may name.
    prefix: String,
    directory: Option<PathBuf>,
    /// The folder of all that is made, below the prefix.
    base: String,
    bucket_is_missing: AtomicBool,
    made: Mutex<BTreeSet<String>>,
    findings: Mutex<Vec<Finding>>,
}

impl Examination {
    /// Prepares to examine what `url` names, making its own objects below `folder` there. No request is made.
    ///
    /// # Errors
    /// As [`Bucket::open`].
    pub fn open(
        url: &BucketUrl,
        options: &StoreOptions,
        retry: RetryPolicy,
        folder: &str,
    ) -> Result<Examination, Error> {
        let bucket = Bucket::open(url, options)?.with_retry(retry);
        let s3 = match url.scheme() {
            Scheme::S3 => {
                let opened = S3Bucket::open(url, options, QUESTION_LIMIT.min(retry.total_limit));
                Some(opened.map_err(|failure| failure.into_error(bucket.site(Verb::Open, "")))?)
            }
            _ => None,
        };
        let directory = (url.scheme() == Scheme::File).then(|| PathBuf::from(format!("/{}", url.path())));
        let mut examination = Examination::of(bucket, folder);
        examination.scheme = Some(url.scheme());
        examination.prefix = url.path();
        examination.s3 = s3;
        examination.directory = directory;
        Ok(examination)
    }

    /// The examination of a bucket of which nothing but the bucket is known.
    pub(crate) fn of(bucket: Bucket, folder: &str) -> Examination {
        // Without randomness names could meet those of another examination, which harms neither.
        let nonce = getrandom::u64().unwrap_or(0);
        Examination {
            bucket,
            scheme: None,
            s3: None,
            prefix: String::new(),
            directory: None,
            base: format!("{}/doctor-{nonce:016x}", folder.trim_matches('/')),
            bucket_is_missing: AtomicBool::new(false),
            made: Mutex::default(),
            findings: Mutex::default(),
        }
    }

    /// Where requests go, for a person.
    pub fn place(&self) -> String {
        match &self.s3 {
            Some(s3) => format!("{}, region {}", s3.url(), s3.region()),
            None => self.bucket.label().to_owned(),
        }
    }

    /// Asks everything and removes what it made.
    pub async fn run(&self) -> Report {
        let measured = match self.access().await {
            Ok(()) => {
                self.promises().await;
                let measured = self.speed().await;
                self.settings().await;
                measured
            }
            Err(Stopped) => None,
        };
        self.unfinished_files().await;
        let left_behind = self.clean_up().await;
        self.report(measured, left_behind)
    }

    /// The report as far as there is one: a check that was not made says so.
    fn report(&self, measured: Option<Measured>, left_behind: Vec<String>) -> Report {
        let found = self.findings();
        let findings = CHECKS.map(|check| {
            found.iter().find(|finding| finding.check == check).cloned().unwrap_or_else(|| {
                finding(check, Verdict::NotAsked, "what was found before stands in the way", "")
            })
        });
        Report {
            place: self.place(),
            findings: findings.into(),
            measured,
            bucket_is_missing: self.bucket_is_missing.load(Ordering::Relaxed),
            left_behind,
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn verdict(&self, check: Check) -> Option<Verdict> {
        self.findings().iter().find(|finding| finding.check == check).map(|finding| finding.verdict)
    }

    fn tell(&self, check: Check, verdict: Verdict, answered: impl Into<String>, advice: impl Into<String>) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings.retain(|finding| finding.check != check);
        findings.push(finding(check, verdict, answered, advice));
    }

    fn good(&self, check: Check, answered: impl Into<String>) {
        self.tell(check, Verdict::Good, answered, "");
    }

    fn not_asked(&self, check: Check, why: &str) {
        self.tell(check, Verdict::NotAsked, why, "");
    }

    /// A name of this examination's own, which will be removed at the end.
    fn name(&self, below: &str) -> String {
        let name = format!("{}/{below}", self.base);
        self.will_be_made([name.clone()]);
        name
    }

    fn will_be_made(&self, names: impl IntoIterator<Item = String>) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
    }

    /// Asks the S3 bucket itself, again where that could help.
    async fn ask(&self, s3: &S3Bucket, query: &[(&str, &str)]) -> Result<Answered, String> {
        for _ in 1..QUESTION_TRIES {
            match s3.ask(query).await {
                Ok(answered) if answered.status < 500 => return Ok(answered),
                _ => tokio::time::sleep(QUESTION_PAUSE).await,
            }
        }
        s3.ask(query).await
    }

    async fn unfinished_files(&self) {
        let check = Check::UnfinishedFiles;
        let Some(directory) = self.directory.clone() else {
            return self.not_asked(check, "only a directory has such");
        };
        let staged = match tokio::task::spawn_blocking(move || directory::staged(&directory)).await {
            Ok(Ok(staged)) => staged,
            Ok(Err(error)) => return self.tell(check, Verdict::Unknown, error.to_string(), ""),
            Err(error) => return self.tell(check, Verdict::Unknown, error.to_string(), ""),
        };
        let bytes: u64 = staged.iter().map(|file| file.file_bytes).sum();
        let Some(oldest) = staged.iter().max_by_key(|file| file.age) else {
            return self.good(check, "none");
        };
        let minutes = oldest.age.as_secs() / 60;
        let answered = format!(
            "{} with {bytes} bytes, the oldest {minutes} minutes old: '{}'",
            staged.len(),
            oldest.path.display()
        );
        if oldest.is_abandoned() {
            let advice = "they are no objects and take room: a daemon removes those older than an hour when it first \
                          writes to their folder; while none runs they may be removed by hand";
            self.tell(check, Verdict::Warning, answered, advice);
        } else {
            self.tell(check, Verdict::Note, answered, "uploads under way look like this");
        }
    }

    /// Removes all that was made, also by an examination that was dropped half-way. Gives the names that are left.
    pub async fn clean_up(&self) -> Vec<String> {
        let made: Vec<String> = {
            let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.iter().cloned().collect()
        };
        let check = Check::LeftBehind;
        if made.is_empty() {
            self.good(check, "nothing was made");
            return Vec::new();
        }
        let first_failure = Mutex::new(None);
        let failure = || first_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let retry = self.once().retry();
        let once = self
            .bucket
            .clone()
            .with_retry(RetryPolicy { total_limit: retry.total_limit.min(HOPELESS_LIMIT), ..retry });
        let mut kept: Vec<String> = futures::stream::iter(made)
            .map(|name| {
                let (failure, first_failure, once) = (&failure, &first_failure, &once);
                async move {
                    // A store that does not answer is not waited for once for each name.
                    let bucket = if failure().is_some() { once } else { &self.bucket };
                    let error = bucket.delete(&name).await.err()?;
                    first_failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    Some(name)
                }
            })
            .buffered(DELETES_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let failed = failure();
        match self.bucket.list(&self.base, None).await {
            // Where listings are behind, what they still show is not what is there.
            Ok(listed) if self.verdict(Check::ListAfterWrite) != Some(Verdict::Fault) || failed.is_some() => {
                kept = listed.into_iter().map(|listed| listed.name).collect();
            }
            // What may not be looked for is what the deletions say.
            _ => {}
        }
        if let Some(root) = self.directory.clone() {
            let folder = root.join(&self.base);
            let removed =
                tokio::task::spawn_blocking(move || directory::remove_empty_folders(&root, &folder));
            // They are in nobody's way.
            let _ = removed.await;
        }
        if kept.is_empty() {
            self.good(check, "nothing");
            return kept;
        }
        let why =
            failed.map_or_else(|| "listed although they were removed".to_owned(), |e| e.detail().to_owned());
        let answered = format!("{} objects: {} ({why})", kept.len(), some_of(&kept));
        let advice = format!("remove what is below '{}' by hand: none of it belongs to a volume", self.base);
        self.tell(check, Verdict::Warning, answered, advice);
        kept
    }

    /// A bucket that tries nothing again.
    fn once(&self) -> Bucket {
        let retry = self.bucket.retry();
        let never = retry.total_limit.saturating_mul(4).max(Duration::from_secs(1));
        self.bucket.clone().with_retry(RetryPolicy { backoff_first: never, backoff_max: never, ..retry })
    }
}

/// What was found makes further questions pointless.
struct Stopped;

fn finding(
    check: Check,
    verdict: Verdict,
    answered: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    Finding { check, verdict, asked: check.question(), answered: answered.into(), advice: advice.into() }
}

/// Names for a line: the first few, and how many more there are.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    let more = names.len().saturating_sub(SHOWN).to_string();
    if more != "0" {
        shown.extend(["and", &more, "more"]);
        return shown.join(" ");
    }
    shown.join(", ")
}

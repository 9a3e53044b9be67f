//! What the store promises by what it does: creates, races, listings, ranges, large objects.
//!
//! Invariants: a promise is called broken only by an answer, never by silence; one broken promise keeps no other from
//! being asked, unless that needs it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join;
use object_store::PutPayload;

use super::{Check, Examination, Verdict};
use crate::bucket::Created;
use crate::error::Error;
use crate::probe::{Probe, ProbeReport};
use crate::url::Scheme;

/// Creators that race for one name, and races: more than a volume's own probe has, since nobody waits to write.
const RACERS: usize = 8;
const RACES: usize = 6;

/// Bytes of a large object: a log object as it is by default.
pub(super) const LARGE_BYTES: usize = 8 << 20;

/// Names whose order by byte is not that of folders.
const ORDERED: [&str; 5] = ["a-1", "a/1", "a/10", "a/2", "a0"];

impl Examination {
    pub(super) async fn promises(&self) {
        match self.scheme {
            Some(Scheme::File) => {
                let answered = "lsvd itself syncs each file and its folders before it answers; whether the disk keeps its word \
                                can not be seen from here";
                self.good(Check::Durability, answered);
            }
            Some(Scheme::Memory) => {
                let advice = "for tests and trials only";
                self.tell(Check::Durability, Verdict::Warning, "it is gone with this process", advice);
            }
            _ => self.not_asked(
                Check::Durability,
                "it can not be seen from here: look up what the store syncs before it answers, and how many copies it has",
            ),
        }
        let stands = |check| matches!(self.verdict(check), Some(Verdict::Good));
        if !(stands(Check::MayCreate) && stands(Check::MayRead)) {
            let why = "it takes PUT and GET, which fail";
            for check in [
                Check::CreateOnly,
                Check::CreateOnlyInARace,
                Check::ListAfterWrite,
                Check::ListOrder,
                Check::ListPages,
                Check::RangeReads,
                Check::LargeObjects,
                Check::WholeOrAbsent,
            ] {
                self.not_asked(check, why);
            }
            return;
        }
        self.creates_and_listings().await;
        if stands(Check::MayList) {
            self.order().await;
        }
        self.large().await;
    }

    async fn creates_and_listings(&self) {
        const SINGLE_WRITER: &str = "two writers at once would both believe that they own a number, and one would lose \
                                     data: use another store, or vouch for one writer with --unsafe-single-writer";
        let base = format!("{}/probe", self.base);
        let probe = Probe { bucket: &self.bucket, base, racers: RACERS, races: RACES };
        self.will_be_made(probe.names());
        let mut report = ProbeReport::default();
        let holds = probe.create_only(&mut report).await;
        let created = holds.is_ok();
        let refused = matches!(holds, Ok(true));
        self.promise(
            Check::CreateOnly,
            holds,
            &mut report,
            "refused, and what was there stayed",
            SINGLE_WRITER,
        );
        if refused {
            let holds = probe.races(&mut report).await;
            self.promise(Check::CreateOnlyInARace, holds, &mut report, "one winner each time", SINGLE_WRITER);
        } else {
            self.not_asked(Check::CreateOnlyInARace, "a create is not even refused without a race");
        }
        if !created {
            return;
        }
        let holds = probe.range_reads(&mut report).await;
        let advice = "a volume reads by ranges, of which it checks each: no volume can be here; a proxy or cache before \
                      the store may be the cause";
        self.promise(Check::RangeReads, holds, &mut report, "exactly the bytes", advice);
        if self.verdict(Check::MayList) != Some(Verdict::Good) {
            let why = "it takes LIST, which fails";
            return [Check::ListAfterWrite, Check::ListOrder, Check::ListPages]
                .into_iter()
                .for_each(|check| self.not_asked(check, why));
        }
        let holds = probe.lists(&mut report).await;
        let advice = "recovery finds the end of the log by listing: with listings that are behind, data would be lost. No \
                      volume can be here; a cache before the store may be the cause";
        self.promise(Check::ListAfterWrite, holds, &mut report, "shown at once, and gone at once", advice);
    }

    fn promise(
        &self,
        check: Check,
        holds: Result<bool, Error>,
        report: &mut ProbeReport,
        good: &str,
        advice: &str,
    ) {
        let details = std::mem::take(&mut report.details).join("; ");
        match holds {
            Ok(true) => self.good(check, good),
            Ok(false) => self.tell(check, Verdict::Fault, details, advice),
            // A range that can not be had or a body that is cut is an answer; silence is none.
            Err(error @ (Error::Corrupt { .. } | Error::Misconfigured { .. })) => {
                self.tell(check, Verdict::Fault, error.detail(), advice);
            }
            Err(error) => {
                let advice = "it could not be found out: ask again when the store answers";
                self.tell(check, Verdict::Unknown, error.detail(), advice);
            }
        }
    }

    async fn order(&self) {
        let folder = format!("{}/order", self.base);
        for name in ORDERED {
            let name = self.name(&format!("order/{name}"));
            if let Err(error) = self.bucket.create(&name, PutPayload::from_static(b"o")).await {
                return [Check::ListOrder, Check::ListPages]
                    .into_iter()
                    .for_each(|check| self.tell(check, Verdict::Unknown, error.detail(), ""));
            }
        }
        let expected = ORDERED.map(|name| format!("{folder}/{name}"));
        match self.bucket.list_as_answered(&folder).await {
            Ok(names) if names == expected => self.good(Check::ListOrder, "ascending"),
            Ok(mut names) => {
                let told: Vec<&str> =
                    names.iter().filter_map(|name| name.rsplit_once("order/")).map(|n| n.1).collect();
                let answered = format!("{} instead of {}", or_nothing(told.join(" ")), ORDERED.join(" "));
                names.sort_unstable();
                if names == expected {
                    let advice = "lsvd sorts what it lists, so nothing is lost; a long listing that breaks off begins anew";
                    self.tell(Check::ListOrder, Verdict::Note, answered, advice);
                } else {
                    let advice = "a listing that leaves out or repeats names can not be relied on: no volume can be here";
                    self.tell(Check::ListOrder, Verdict::Fault, answered, advice);
                }
            }
            Err(error) => self.tell(Check::ListOrder, Verdict::Unknown, error.detail(), ""),
        }
        self.pages(&folder).await;
    }

    /// By pages of two names, as a volume's listing has them by the thousand.
    async fn pages(&self, folder: &str) {
        let check = Check::ListPages;
        let Some(s3) = &self.s3 else { return self.not_asked(check, "only asked of S3") };
        let prefix = match self.prefix.as_str() {
            "" => format!("{folder}/"),
            above => format!("{above}/{folder}/"),
        };
        let mut names = Vec::new();
        let mut token: Option<String> = None;
        let mut pages = 0;
        while pages <= ORDERED.len() {
            let mut query = vec![("list-type", "2"), ("max-keys", "2"), ("prefix", prefix.as_str())];
            query.extend(token.as_deref().map(|token| ("continuation-token", token)));
            let answered = match self.ask(s3, &query).await {
                Ok(answered) if answered.status == 200 => answered,
                Ok(answered) => return self.tell(check, Verdict::Unknown, answered.said(), ""),
                Err(why) => return self.tell(check, Verdict::Unknown, why, ""),
            };
            pages += 1;
            names.extend(keys(&answered.body).filter_map(|key| key.strip_prefix(&prefix).map(str::to_owned)));
            token = crate::scrub::element(&answered.body, "NextContinuationToken").map(unescaped);
            if token.is_none() {
                break;
            }
        }
        names.sort_unstable();
        if names != ORDERED {
            let answered =
                format!("{} in {pages} pages instead of {}", or_nothing(names.join(" ")), ORDERED.join(" "));
            let advice = "listings of more than a page leave out or repeat names: no volume can be here";
            return self.tell(check, Verdict::Fault, answered, advice);
        }
        match pages {
            1 => self.tell(check, Verdict::Note, "all in one page, though two names were asked for", ""),
            pages => self.good(check, format!("each name once, in {pages} pages")),
        }
    }

    /// A log object's size: stored whole, read in ranges, and not seen before it is whole.
    async fn large(&self) {
        let name = self.name("large");
        let bytes = large_bytes();
        let done = AtomicBool::new(false);
        let upload = async {
            let created = self.bucket.create(&name, bytes.clone().into()).await;
            done.store(true, Ordering::Relaxed);
            created
        };
        let watch = self.watch(&name, &bytes, &done);
        let (created, seen) = join(upload, watch).await;
        match created {
            Ok(Created::Done | Created::Exists) => {}
            Err(error) => {
                self.not_asked(Check::WholeOrAbsent, "the upload failed");
                let advice = "log objects are this large (--batch makes them smaller): look for a limit of the store's or \
                              a proxy's on the size of a body or the time of a request";
                return self.tell(Check::LargeObjects, Verdict::Fault, error.detail(), advice);
            }
        }
        match seen {
            Watched { broken: Some(what), .. } => {
                let advice = "recovery could take half an object for a damaged one: use a store that shows objects when \
                              they are whole";
                self.tell(Check::WholeOrAbsent, Verdict::Fault, what, advice);
            }
            Watched { looks: 0, .. } => {
                self.tell(Check::WholeOrAbsent, Verdict::Unknown, "no look fell into it", "")
            }
            Watched { looks, .. } => {
                self.good(Check::WholeOrAbsent, format!("absent or whole in {looks} looks"))
            }
        }
        self.large_reads(&name, &bytes).await;
    }

    async fn large_reads(&self, name: &str, bytes: &Bytes) {
        let check = Check::LargeObjects;
        let advice = "what is read is not what was stored: no volume can be here";
        // Nothing was seen of what is stored, and nothing is said of it.
        let unanswered = |error: &Error| {
            let advice = "reads of this size are not answered: look for a limit of the store's or a proxy's on the size of \
                          a body or the time of a request, and at the network between";
            self.tell(check, Verdict::Fault, error.detail(), advice);
        };
        match self.bucket.read_head(name, u64::MAX).await {
            Ok(Some(head)) if head.bytes == *bytes => self.good(check, "whole"),
            Ok(Some(head)) => {
                let differ = head.bytes.iter().zip(bytes).position(|(a, b)| a != b);
                let answered = match differ {
                    Some(at) => format!("byte {at} differs"),
                    None => format!("{} bytes of {}", head.bytes.len(), bytes.len()),
                };
                return self.tell(check, Verdict::Fault, answered, advice);
            }
            Ok(None) => {
                return self.tell(check, Verdict::Fault, "'not found' after its PUT was done", advice);
            }
            Err(error @ (Error::Corrupt { .. } | Error::Misconfigured { .. })) => {
                return self.tell(check, Verdict::Fault, error.detail(), advice);
            }
            Err(error) => return unanswered(&error),
        }
        if self.verdict(Check::RangeReads) != Some(Verdict::Good) {
            return;
        }
        const MIB: usize = 1 << 20;
        for range in [0..1, MIB - 1..MIB + 4095, 5 * MIB + 12_345..7 * MIB, LARGE_BYTES - 4096..LARGE_BYTES] {
            let expected = bytes.slice(range.clone());
            let read = self.bucket.read_range(name, range.start as u64..range.end as u64).await;
            let answered = match read {
                Ok(Some(read)) if read == expected => continue,
                Ok(Some(_)) => "other bytes".to_owned(),
                Ok(None) => "'not found'".to_owned(),
                Err(error @ (Error::Corrupt { .. } | Error::Misconfigured { .. })) => {
                    error.detail().to_owned()
                }
                Err(error) => return unanswered(&error),
            };
            let answered = format!("bytes {} to {} of 8 MiB: {answered}", range.start, range.end);
            return self.tell(Check::RangeReads, Verdict::Fault, answered, advice);
        }
    }

    /// Looks at an object, again and again, while it is uploaded.
    async fn watch(&self, name: &str, bytes: &Bytes, done: &AtomicBool) -> Watched {
        let once = self.once();
        let len = bytes.len() as u64;
        let mut watched = Watched { looks: 0, broken: None };
        while !done.load(Ordering::Relaxed) {
            match once.read_head(name, u64::MAX).await {
                Ok(Some(head)) if head.object_bytes != len => {
                    watched
                        .broken
                        .get_or_insert(format!("{} bytes of {len} were visible", head.object_bytes));
                }
                Ok(Some(head)) if head.bytes != *bytes => {
                    watched
                        .broken
                        .get_or_insert("it was visible with other bytes than it has in the end".to_owned());
                }
                Ok(_) => {}
                // What was cut short on the way says nothing of what is stored.
                Err(_) => continue,
            }
            watched.looks += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        watched
    }
}

struct Watched {
    looks: u32,
    broken: Option<String>,
}

/// Bytes of which no two pieces are alike, and which do not compress.
fn large_bytes() -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..LARGE_BYTES / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

fn or_nothing(names: String) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names }
}

fn keys(body: &str) -> impl Iterator<Item = String> {
    body.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>")).map(|(key, _)| unescaped(key))
}

/// Text of XML as it was before it was escaped.
pub(super) fn unescaped(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&apos;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

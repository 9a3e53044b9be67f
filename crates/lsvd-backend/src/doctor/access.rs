//! Whether the store is reached at all: bucket, region, clock, credentials, and each right by itself.
//!
//! Invariant: a region or a right is called wrong only by an answer that says so.

use std::sync::atomic::Ordering;
use std::time::Duration;

use object_store::PutPayload;

use super::{Check, Examination, Stopped, Verdict};
use crate::cloud::ask::{Answered, S3Bucket};
use crate::error::Error;
use crate::url::Scheme;

/// How far clocks may be apart before it is a warning: beyond it times in names and logs mislead people.
const SKEW_WARNED: Duration = Duration::from_secs(60);

/// From here on AWS refuses signatures ("RequestTimeTooSkewed").
const SKEW_REFUSED: Duration = Duration::from_secs(15 * 60);

/// What a `Date` header is coarse by, and some for the way.
const SKEW_COARSE: Duration = Duration::from_secs(2);

/// Codes by which S3 servers refuse the credentials themselves, whatever is asked.
const CODES_CREDENTIALS: [&str; 8] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
    "RequestExpired",
    "InvalidClientTokenId",
];

/// What a right is called, store by store: AWS' actions, the letters of a SAS with the role, Google's permissions.
#[derive(Clone, Copy)]
struct Right {
    s3: &'static str,
    azure: &'static str,
    google: &'static str,
}

const LIST: Right = Right {
    s3: "s3:ListBucket",
    azure: "list (l in a SAS; Storage Blob Data Contributor has it)",
    google: "storage.objects.list",
};
const CREATE: Right = Right {
    s3: "s3:PutObject",
    azure: "create and write (cw in a SAS; Storage Blob Data Contributor has them)",
    google: "storage.objects.create",
};
const READ: Right = Right {
    s3: "s3:GetObject",
    azure: "read (r in a SAS; Storage Blob Data Contributor has it)",
    google: "storage.objects.get",
};
const DELETE: Right = Right {
    s3: "s3:DeleteObject",
    azure: "delete (d in a SAS; Storage Blob Data Contributor has it)",
    google: "storage.objects.delete",
};

const OBJECT: &[u8] = b"made by lsvd doctor, and removed by it";

impl Examination {
    /// Finds out what may be done here. `Err` where nothing can.
    pub(super) async fn access(&self) -> Result<(), Stopped> {
        let first = self.first_answer().await;
        let listed = self.bucket.list(&self.base, None).await.map(|_| ());
        self.bucket_and_list(first.as_ref(), &listed)?;
        self.signatures().await;
        let silent = matches!(listed, Err(Error::Unavailable { .. }));
        self.rights(silent).await?;
        if self.s3.is_none() {
            self.clock_by_listing().await;
        }
        Ok(())
    }

    /// The S3 bucket's answer to the simplest question, for what its headers say: region and clock.
    async fn first_answer(&self) -> Option<Result<Answered, String>> {
        let Some(s3) = &self.s3 else {
            let why = "only S3 has regions";
            self.not_asked(Check::Region, why);
            self.not_asked(Check::Credentials, "each right is asked by itself");
            return None;
        };
        let answered = self.ask(s3, &self.first_question()).await;
        match &answered {
            Ok(answered) => {
                self.region(s3, answered);
                self.clock(answered);
                self.credentials(s3, answered);
            }
            Err(why) => self.tell(Check::Region, Verdict::Unknown, why.clone(), ""),
        }
        Some(answered)
    }

    fn first_question(&self) -> [(&'static str, &str); 3] {
        [("list-type", "2"), ("max-keys", "1"), ("prefix", &self.prefix)]
    }

    fn region(&self, s3: &S3Bucket, answered: &Answered) {
        let ours = s3.region();
        let said = answered.said();
        let wrong = matches!(answered.status, 301 | 307 | 400 | 403);
        let check = Check::Region;
        match answered.region.as_deref() {
            Some(theirs) if theirs != ours && wrong => {
                let advice =
                    format!("the bucket is in region {theirs}: use --region {theirs} or AWS_REGION={theirs}");
                self.tell(check, Verdict::Fault, format!("{said}, signed for {ours}"), advice);
            }
            Some(theirs) if theirs != ours => {
                let advice = format!("it answers all the same; AWS_REGION={theirs} is the bucket's own");
                let answered = format!("{said}; the bucket says {theirs}, signed for {ours}");
                self.tell(check, Verdict::Note, answered, advice);
            }
            Some(_) => self.good(check, format!("{ours}, by its own words")),
            None if answered.status == 301 || answered.code() == "AuthorizationHeaderMalformed" => {
                let advice = "region or endpoint are not this bucket's, and the store does not say which are: look them \
                              up where the bucket was made, then set --region and --endpoint";
                self.tell(check, Verdict::Fault, format!("{said}, signed for {ours}"), advice);
            }
            None if answered.status < 300 => {
                self.good(check, format!("{ours} is accepted; the bucket names none"))
            }
            None => self.tell(check, Verdict::Unknown, format!("{said}, which names no region"), ""),
        }
    }

    fn clock(&self, answered: &Answered) {
        let Some(theirs) = answered.date_unix_ms else {
            return self.tell(Check::Clock, Verdict::Unknown, "the answer has no Date", "");
        };
        let refused = matches!(answered.code().as_str(), "RequestTimeTooSkewed" | "RequestExpired");
        // In the middle of the second that it names.
        self.clocks(theirs + 500 - answered.asked_unix_ms, answered.took, refused);
    }

    async fn clock_by_listing(&self) {
        if [Check::MayList, Check::MayCreate, Check::MayDelete].map(|check| self.verdict(check))
            != [Some(Verdict::Good); 3]
        {
            return self.not_asked(Check::Clock, "it takes a PUT, a LIST and a DELETE, which fail");
        }
        self.will_be_made([format!("{}/clock/clock", self.base)]);
        let begun = std::time::SystemTime::now();
        match self.bucket.clock_unix_ms(&self.base, "clock").await {
            Ok(theirs) => {
                let ours = begun.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
                let took = begun.elapsed().unwrap_or_default();
                self.clocks(theirs - i64::try_from(ours).unwrap_or(i64::MAX), took, false);
            }
            Err(error) => self.tell(Check::Clock, Verdict::Unknown, error.detail(), ""),
        }
    }

    fn clocks(&self, ahead_ms: i64, took: Duration, refused: bool) {
        let apart = Duration::from_millis(ahead_ms.unsigned_abs());
        let way = if ahead_ms < 0 { "behind" } else { "ahead of" };
        let advice = "set this host's clock by NTP, or the store's: requests are signed with the time, AWS refuses a \
                      quarter of an hour of difference, and times in names and logs mislead";
        let answered = match apart > SKEW_COARSE + took {
            true => format!("the store is {:.0} s {way} this host", apart.as_secs_f64()),
            false => "no difference that can be seen".to_owned(),
        };
        let verdict = match () {
            () if refused || apart >= SKEW_REFUSED => Verdict::Fault,
            () if apart >= SKEW_WARNED => Verdict::Warning,
            () => return self.good(Check::Clock, answered),
        };
        self.tell(Check::Clock, verdict, answered, advice);
    }

    fn credentials(&self, s3: &S3Bucket, answered: &Answered) {
        let check = Check::Credentials;
        let code = answered.code();
        if !s3.signs() {
            return self.not_asked(check, "requests are not signed");
        }
        if CODES_CREDENTIALS.contains(&code.as_str()) || answered.status == 401 {
            let advice = match code.as_str() {
                "InvalidAccessKeyId" => {
                    "the store does not know this key: check AWS_ACCESS_KEY_ID, and that the \
                                         endpoint is the key's own"
                }
                "SignatureDoesNotMatch" => {
                    "the secret is not this key's: check AWS_SECRET_ACCESS_KEY; a proxy that \
                                            changes the Host header does this too"
                }
                "RequestTimeTooSkewed" | "RequestExpired" => "the clocks differ: set this host's by NTP",
                _ => "the session is over: get new credentials",
            };
            return self.tell(check, Verdict::Fault, answered.said(), advice);
        }
        match answered.status {
            200..300 => self.good(check, "taken"),
            403 => self.tell(check, Verdict::Note, "taken, as far as the refusal tells", ""),
            _ => self.tell(check, Verdict::Unknown, answered.said(), ""),
        }
    }

    fn bucket_and_list(
        &self,
        first: Option<&Result<Answered, String>>,
        listed: &Result<(), Error>,
    ) -> Result<(), Stopped> {
        let took = first.and_then(|first| first.as_ref().ok()).map(|answered| answered.took);
        let took =
            took.map_or_else(String::new, |took| format!(" after {:.1} ms", took.as_secs_f64() * 1000.0));
        let fault = |check, error: &Error, advice: &str| {
            self.tell(check, Verdict::Fault, error.detail(), advice);
        };
        let bad = |check| self.verdict(check) == Some(Verdict::Fault);
        match listed {
            Ok(()) => {
                self.good(Check::Bucket, format!("answered{took}"));
                self.good(Check::MayList, "done");
                Ok(())
            }
            Err(error @ Error::NotFound { .. }) => {
                self.bucket_is_missing.store(true, Ordering::Relaxed);
                fault(
                    Check::Bucket,
                    error,
                    "check its name; lsvd makes no buckets, and a directory only in `lsvd create`",
                );
                Err(Stopped)
            }
            Err(_) if bad(Check::Region) || bad(Check::Credentials) => {
                self.tell(Check::Bucket, Verdict::Unknown, "it answers, and refuses everything for now", "");
                Err(Stopped)
            }
            Err(error @ Error::Denied { .. }) => {
                self.good(Check::Bucket, format!("answered{took}"));
                fault(Check::MayList, error, &self.grant_list(""));
                Ok(())
            }
            Err(error @ Error::Misconfigured { .. }) => {
                fault(Check::Bucket, error, "no object store answers like this: check the endpoint");
                Err(Stopped)
            }
            Err(error) => {
                fault(
                    Check::Bucket,
                    error,
                    "check the endpoint, the network between, and the store's own health",
                );
                fault(Check::MayList, error, "");
                // A store from which no answer at all came is not asked five times more.
                match first {
                    Some(Err(_)) => Err(Stopped),
                    _ => Ok(()),
                }
            }
        }
    }

    async fn signatures(&self) {
        let check = Check::Signatures;
        let Some(s3) = &self.s3 else { return self.not_asked(check, "only asked of S3") };
        if !s3.signs() {
            return self.not_asked(check, "requests are not signed");
        }
        if self.verdict(Check::MayList) != Some(Verdict::Good) {
            return self.not_asked(check, "LIST fails as it is");
        }
        match s3.ask_with_wrong_secret(&self.first_question()).await {
            Ok(answered) if answered.status < 300 => {
                let advice = "the store checks no signatures: whoever reaches it may read and remove everything. Fine \
                              for a test server on loopback, for nothing else";
                self.tell(check, Verdict::Warning, "answered as if it were good", advice);
            }
            Ok(answered) if matches!(answered.status, 400 | 401 | 403) => self.good(check, "refused"),
            Ok(answered) => self.tell(check, Verdict::Unknown, answered.said(), ""),
            Err(why) => self.tell(check, Verdict::Unknown, why, ""),
        }
    }

    /// Each right by itself. Where a second verb stays unanswered, no third is asked.
    async fn rights(&self, silent: bool) -> Result<(), Stopped> {
        let name = self.name("right");
        let created = self.bucket.create(&name, PutPayload::from_static(OBJECT)).await;
        let outcome = created.map(|_| ());
        self.right(Check::MayCreate, &outcome, CREATE);
        if silent && matches!(outcome, Err(Error::Unavailable { .. })) {
            return Err(Stopped);
        }
        if outcome.is_err() {
            self.not_asked(Check::MayRead, "there is nothing to read: the PUT failed");
        } else {
            match self.bucket.read_head(&name, u64::MAX).await {
                Ok(Some(head)) if head.bytes == OBJECT => self.good(Check::MayRead, "done"),
                Ok(found) => {
                    let what = if found.is_some() { "other bytes" } else { "'not found'" };
                    let advice = "what was acknowledged does not read back: no volume can be here";
                    self.tell(
                        Check::MayRead,
                        Verdict::Fault,
                        format!("{what} after its PUT was done"),
                        advice,
                    );
                }
                Err(error) => self.right(Check::MayRead, &Err(error), READ),
            }
        }
        self.absence().await;
        let removed = self.bucket.delete(&name).await;
        self.right(Check::MayDelete, &removed, DELETE);
        Ok(())
    }

    async fn absence(&self) {
        let check = Check::MayLearnAbsence;
        match self.bucket.read_head(&format!("{}/never", self.base), 16).await {
            Ok(None) => self.good(check, "'not found', definitely"),
            Ok(Some(_)) => {
                self.tell(
                    check,
                    Verdict::Fault,
                    "it is found",
                    "this is no object store, or a cache stands before it",
                );
            }
            Err(error @ Error::Denied { .. }) => {
                let advice = match self.scheme {
                    Some(Scheme::Azure | Scheme::Google) => self.grant_list("a GET of what is not there is refused: "),
                    _ => "AWS says 403 for what is not there to whoever may not list: grant s3:ListBucket, without a \
                          condition that a GET can not meet"
                        .to_owned(),
                };
                self.tell(check, Verdict::Fault, error.detail(), advice);
            }
            Err(error) => {
                let advice =
                    "absence must be a definite answer: recovery takes nothing else for the end of the log";
                self.tell(check, Verdict::Fault, error.detail(), advice);
            }
        }
    }

    fn grant_list(&self, before: &str) -> String {
        match self.scheme {
            Some(Scheme::Azure) => format!("{before}grant {} on the container", LIST.azure),
            Some(Scheme::Google) => format!("{before}grant {} on the bucket", LIST.google),
            Some(Scheme::File) => format!("{before}check owner and mode of the directory"),
            _ => format!("{before}grant {} on the bucket", LIST.s3),
        }
    }

    fn right(&self, check: Check, outcome: &Result<(), Error>, right: Right) {
        match outcome {
            Ok(()) => self.good(check, "done"),
            Err(error @ Error::Denied { .. }) => {
                let advice = match self.scheme {
                    Some(Scheme::Azure) => format!("grant {} on the container", right.azure),
                    Some(Scheme::Google) => format!("grant {} on the bucket", right.google),
                    Some(Scheme::File) => "check owner and mode of the directory".to_owned(),
                    _ => format!(
                        "grant {} on what is below the prefix (`lsvd create` prints the whole policy)",
                        right.s3
                    ),
                };
                self.tell(check, Verdict::Fault, error.detail(), advice);
            }
            Err(error @ Error::Full { .. }) => {
                self.tell(check, Verdict::Fault, error.detail(), "make room, or raise the quota");
            }
            Err(error @ Error::Unavailable { .. }) => {
                self.tell(
                    check,
                    Verdict::Fault,
                    error.detail(),
                    "the store's own health, or the network between",
                );
            }
            Err(error) if error.detail().contains("Object Lock") => {
                let advice = "a bucket that holds new objects wants checksums with them: use one without a default retention \
                              (see object-lock); AWS_CHECKSUM_ALGORITHM=sha256 may do where that can not be";
                self.tell(check, Verdict::Fault, error.detail(), advice);
            }
            Err(error) => {
                self.tell(
                    check,
                    Verdict::Fault,
                    error.detail(),
                    "the store can not do what every volume needs",
                );
            }
        }
    }
}

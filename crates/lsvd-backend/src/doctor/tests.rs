//! The examination against canned answers, stores that lie, and settings as S3 writes them.
//!
//! What a whole server does is tested with the lab store (crates/lsvd-labstore/tests/lab/doctor.rs).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::*;
use crate::cloud::tests::{canned, told, url, with_keys};
use crate::environment::Environment;

fn at(endpoint: &str) -> Examination {
    by("s3://bucket/prefix/db1", with_keys(&[]), endpoint)
}

fn by(place: &str, keys: StoreOptions, endpoint: &str) -> Examination {
    let options = StoreOptions { endpoint: Some(endpoint.into()), allow_http: true, ..keys };
    let soon = RetryPolicy {
        attempt_timeout: Duration::from_secs(5),
        total_limit: Duration::from_millis(300),
        backoff_first: Duration::from_millis(1),
        backoff_max: Duration::from_millis(20),
        ..RetryPolicy::default()
    };
    Examination::open(&url(place), &options, soon, "probe").unwrap()
}

#[track_caller]
fn check(report: &Report, check: Check, verdict: Verdict, answered: &str, advice: &str) {
    let finding = report.finding(check).unwrap();
    let fits =
        finding.verdict == verdict && finding.answered.contains(answered) && finding.advice.contains(advice);
    assert!(fits, "{finding:?}");
}

fn faults(report: &Report) -> Vec<Check> {
    let faults = report.findings.iter().filter(|finding| finding.verdict == Verdict::Fault);
    faults.map(|finding| finding.check).collect()
}

/// However a store says which region is the right one, it is named, and nothing else is called wrong.
#[tokio::test]
async fn a_wrong_region_is_named_with_the_right_one() {
    let by_header = "301 Moved Permanently\nx-amz-bucket-region: eu-central-1\n\n<Error><Code>PermanentRedirect</Code></Error>";
    let by_element = "400 Bad Request\n\n<Error><Code>AuthorizationHeaderMalformed</Code><Message>wrong</Message>\
                      <Region>eu-central-1</Region></Error>";
    let by_words = "400 Bad Request\n\n<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is \
                    wrong; expecting 'eu-central-1'</Message></Error>";
    for answer in [by_header, by_element, by_words] {
        let report = at(&canned(&[answer]).0).run().await;
        check(&report, Check::Region, Verdict::Fault, "signed for us-east-1", "--region eu-central-1");
        assert_eq!(faults(&report), [Check::Region], "{answer}");
        check(&report, Check::MayCreate, Verdict::NotAsked, "stands in the way", "");
    }
    let unnamed = "301 Moved Permanently\n\n<Error><Code>PermanentRedirect</Code></Error>";
    let report = at(&canned(&[unnamed]).0).run().await;
    check(&report, Check::Region, Verdict::Fault, "301", "does not say which");
}

#[tokio::test]
async fn refused_credentials_are_told_from_missing_rights() {
    for (code, words) in [
        ("InvalidAccessKeyId", "check AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "check AWS_SECRET_ACCESS_KEY"),
        ("ExpiredToken", "new credentials"),
    ] {
        let report = at(&canned(&[&told("403 Forbidden", code)]).0).run().await;
        check(&report, Check::Credentials, Verdict::Fault, code, words);
        assert_eq!(faults(&report), [Check::Credentials]);
    }
    let report = at(&canned(&[&told("403 Forbidden", "AccessDenied")]).0).run().await;
    check(&report, Check::Bucket, Verdict::Good, "answered", "");
    check(&report, Check::MayList, Verdict::Fault, "AccessDenied", "s3:ListBucket");
    check(&report, Check::MayCreate, Verdict::Fault, "AccessDenied", "s3:PutObject");
    check(&report, Check::MayLearnAbsence, Verdict::Fault, "AccessDenied", "s3:ListBucket");
    check(&report, Check::MayDelete, Verdict::Fault, "AccessDenied", "s3:DeleteObject");
    check(&report, Check::CreateOnly, Verdict::NotAsked, "takes PUT and GET", "");
    // Rule 4: what may not be read is unknown, and neither on nor off.
    check(&report, Check::Versioning, Verdict::Unknown, "403", "s3:GetBucketVersioning");
    check(&report, Check::ObjectLock, Verdict::Unknown, "403", "s3:GetBucketObjectLockConfiguration");
}

/// Found on Azurite: what was missing there was called by the name that AWS has for it.
#[tokio::test]
async fn missing_rights_are_called_as_the_store_calls_them() {
    let keys = |pairs: &[(&str, &str)]| StoreOptions {
        environment: Environment::from_pairs(pairs.iter().copied()),
        ..StoreOptions::default()
    };
    let azure = keys(&[("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")]);
    let google = keys(&[("GOOGLE_BEARER_TOKEN", "token")]);
    for (place, keys, [list, create, delete]) in [
        ("az://bucket/db1", azure, ["list (l in", "create and write (cw", "delete (d in"]),
        (
            "gs://bucket/db1",
            google,
            ["storage.objects.list", "storage.objects.create", "storage.objects.delete"],
        ),
    ] {
        let refused = told("403 Forbidden", "AuthorizationPermissionMismatch");
        let report = by(place, keys, &canned(&[&refused]).0).run().await;
        check(&report, Check::MayList, Verdict::Fault, "AuthorizationPermissionMismatch", list);
        check(&report, Check::MayCreate, Verdict::Fault, "403", create);
        check(&report, Check::MayLearnAbsence, Verdict::Fault, "403", list);
        check(&report, Check::MayDelete, Verdict::Fault, "403", delete);
        let all = format!("{report:?}");
        assert!(!all.contains("s3:") && !all.contains("AWS"), "{all}");
    }
}

/// What a bucket with a default retention wants of a PUT is told by name.
#[tokio::test]
async fn a_bucket_that_holds_objects_wants_checksums() {
    let listing = "200 OK\n\n<ListBucketResult></ListBucketResult>";
    let refused = "400 Bad Request\n\n<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header \
                   is required for Put Object requests with Object Lock parameters</Message></Error>";
    let refused_secret = told("403 Forbidden", "SignatureDoesNotMatch");
    let report = at(&canned(&[listing, listing, &refused_secret, refused]).0).run().await;
    check(&report, Check::Signatures, Verdict::Good, "refused", "");
    check(&report, Check::MayCreate, Verdict::Fault, "Object Lock", "AWS_CHECKSUM_ALGORITHM=sha256");
}

#[tokio::test]
async fn a_missing_bucket_is_that_and_a_web_server_is_no_store() {
    let report = at(&canned(&[&told("404 Not Found", "NoSuchBucket")]).0).run().await;
    assert!(report.bucket_is_missing);
    assert_eq!(faults(&report), [Check::Bucket]);
    let report = at(&canned(&["404 Not Found\nContent-Type: text/html\n\n<html>nginx</html>"]).0).run().await;
    assert!(!report.bucket_is_missing);
    check(&report, Check::Bucket, Verdict::Fault, "names no missing object", "check the endpoint");
}

#[tokio::test]
async fn clocks_that_differ_are_told() {
    let listing = "<ListBucketResult></ListBucketResult>";
    let answer = format!("200 OK\nDate: Sun, 06 Nov 1994 08:49:37 GMT\n\n{listing}");
    let report = at(&canned(&[&answer]).0).run().await;
    check(&report, Check::Clock, Verdict::Fault, "behind this host", "NTP");
    let report = at(&canned(&[&told("403 Forbidden", "RequestTimeTooSkewed")]).0).run().await;
    check(&report, Check::Credentials, Verdict::Fault, "RequestTimeTooSkewed", "clocks differ");
}

/// Rule 11: neither the report nor the examination shows a secret.
#[tokio::test]
async fn no_secret_is_told() {
    let examination = at(&canned(&[&told("403 Forbidden", "SignatureDoesNotMatch")]).0);
    let report = examination.run().await;
    assert!(!format!("{report:?} {examination:?}").contains("verysecretsecret"));
}

/// A store that does not know a request, or answers another, has no such setting: that is not "off".
#[tokio::test]
async fn settings_that_a_store_does_not_know_were_not_asked() {
    for answer in [
        told("501 Not Implemented", "NotImplemented"),
        told("400 Bad Request", "InvalidArgument"),
        "200 OK\n\n<ListBucketResult></ListBucketResult>".to_owned(),
    ] {
        let examination = at(&canned(&[&answer]).0);
        examination.settings().await;
        let report = examination.report(None, Vec::new());
        for setting in [Check::Versioning, Check::Lifecycle, Check::ObjectLock] {
            check(&report, setting, Verdict::NotAsked, "no such request", "");
        }
    }
    let examination = at(&canned(&[&told("404 Not Found", "NoSuchLifecycleConfiguration")]).0);
    examination.settings().await;
    check(&examination.report(None, Vec::new()), Check::Lifecycle, Verdict::Good, "none", "");
    // Another name of the root, as moto has it.
    let examination = at(&canned(&["200 OK\n\n<GetBucketVersioningResponse/>"]).0);
    examination.settings().await;
    check(&examination.report(None, Vec::new()), Check::Versioning, Verdict::Good, "off", "");
}

#[tokio::test]
async fn settings_are_read_as_s3_writes_them() {
    let rule = |what: &str| {
        format!(
            "<LifecycleConfiguration><Rule><ID>r1</ID><Status>Enabled</Status>{what}</Rule></LifecycleConfiguration>"
        )
    };
    let days = "<Expiration><Days>30</Days></Expiration>";
    let old = "<NoncurrentVersionExpiration><NoncurrentDays>3</NoncurrentDays></NoncurrentVersionExpiration>";
    let upload = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>3</DaysAfterInitiation></AbortIncompleteMultipartUpload>";
    let to =
        |class: &str| format!("<Transition><Days>9</Days><StorageClass>{class}</StorageClass></Transition>");
    for (body, verdict, words) in [
        (rule(&format!("<Filter><Prefix></Prefix></Filter>{days}")), Verdict::Fault, "removes after 30 days"),
        (rule(&format!("<Prefix/>{days}")), Verdict::Fault, "rule 'r1'"),
        (rule(&format!("<Prefix>pre</Prefix>{days}")), Verdict::Fault, "'pre*'"),
        (rule(&format!("<Filter><Prefix>prefix/db1/log/</Prefix></Filter>{days}")), Verdict::Fault, "log/"),
        (rule(&format!("<Filter><Prefix>prefix/db10/</Prefix></Filter>{days}")), Verdict::Good, "no rule"),
        (rule(&format!("<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>{days}")), Verdict::Good, ""),
        (rule(days).replace("Enabled", "Disabled"), Verdict::Good, ""),
        (rule(&format!("<Prefix></Prefix>{old}{upload}")), Verdict::Good, "1 looked at"),
        (
            rule("<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"),
            Verdict::Good,
            "",
        ),
        (rule(&to("GLACIER")), Verdict::Fault, "moves to GLACIER after 9 days"),
        (rule(&to("STANDARD_IA")), Verdict::Note, "moves to STANDARD_IA"),
    ] {
        let mut examination = Examination::of(memory(Lie::None), "probe");
        examination.prefix = "prefix/db1".to_owned();
        examination.lifecycle(&body);
        check(&examination.report(None, Vec::new()), Check::Lifecycle, verdict, words, "");
    }
    let lock = |inside: &str| format!("<ObjectLockConfiguration>{inside}</ObjectLockConfiguration>");
    let enabled = "<ObjectLockEnabled>Enabled</ObjectLockEnabled>";
    let retention = "<Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>7</Days></DefaultRetention></Rule>";
    for (body, verdict, words) in [
        (lock(""), Verdict::Good, "off"),
        (lock(enabled), Verdict::Note, "without a default"),
        (lock(&format!("{enabled}{retention}")), Verdict::Warning, "held for 7 days (COMPLIANCE)"),
    ] {
        let examination = Examination::of(memory(Lie::None), "probe");
        examination.object_lock(&body);
        check(&examination.report(None, Vec::new()), Check::ObjectLock, verdict, words, "");
    }
    for (body, verdict, words) in [
        ("<VersioningConfiguration/>", Verdict::Good, "off"),
        (
            "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
            Verdict::Warning,
            "enabled",
        ),
        (
            "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>",
            Verdict::Note,
            "suspended",
        ),
    ] {
        let examination = Examination::of(memory(Lie::None), "probe");
        examination.versioning(body);
        check(&examination.report(None, Vec::new()), Check::Versioning, verdict, words, "");
    }
}

/// A rule on a prefix that XML has to escape was taken for one on another prefix, and what it removes was not told.
#[tokio::test]
async fn a_lifecycle_rules_prefix_is_read_as_it_is() {
    let body = "<LifecycleConfiguration><Rule><ID>a&lt;b</ID><Status>Enabled</Status><Prefix>a&amp;b/</Prefix>\
                <Expiration><Days>30</Days></Expiration></Rule></LifecycleConfiguration>";
    for (prefix, verdict, words) in
        [("a&b/db1", Verdict::Fault, "rule 'a<b' on 'a&b/*'"), ("ab/db1", Verdict::Good, "")]
    {
        let mut examination = Examination::of(memory(Lie::None), "probe");
        examination.prefix = prefix.to_owned();
        examination.lifecycle(body);
        check(&examination.report(None, Vec::new()), Check::Lifecycle, verdict, words, "");
    }
}

/// How a store lies that is memory otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// A large object is there by halves while it is stored.
    Halves,
    /// Listings are in descending order.
    Descending,
    /// Listings leave out the last name.
    LeavesOut,
    /// A large object loses its last byte's value.
    Damages,
}

#[derive(Debug)]
struct Liar {
    inner: InMemory,
    lie: Lie,
}

fn memory(lie: Lie) -> Bucket {
    Bucket::from_store(Arc::new(Liar { inner: InMemory::new(), lie }), "prefix", "liar")
}

impl fmt::Display for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("liar")
    }
}

#[async_trait]
impl ObjectStore for Liar {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if payload.content_length() > 1 << 20 {
            let bytes = bytes::Bytes::from(payload.clone());
            match self.lie {
                Lie::Halves => {
                    self.inner.put(at, bytes.slice(..bytes.len() / 2).into()).await?;
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    return self.inner.put(at, payload).await;
                }
                Lie::Damages => {
                    let mut bytes = bytes.to_vec();
                    *bytes.last_mut().unwrap() ^= 1;
                    return self.inner.put_opts(at, bytes.into(), options).await;
                }
                _ => {}
            }
        }
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(&self, at: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (all, lie) = (self.inner.list(prefix).try_collect::<Vec<_>>(), self.lie);
        stream::once(all)
            .map_ok(move |mut all| {
                match lie {
                    Lie::Descending => all.reverse(),
                    Lie::LeavesOut => {
                        all.pop();
                    }
                    _ => {}
                }
                stream::iter(all.into_iter().map(Ok))
            })
            .try_flatten()
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

async fn of_liar(lie: Lie) -> Report {
    Examination::of(memory(lie), "probe").run().await
}

#[tokio::test]
async fn memory_and_a_directory_have_no_fault() {
    assert_eq!(faults(&of_liar(Lie::None).await), []);
    let dir = tempfile::tempdir().unwrap();
    let here = url(&format!("file://{}", dir.path().display()));
    let examination =
        Examination::open(&here, &StoreOptions::default(), RetryPolicy::default(), "probe/").unwrap();
    let report = examination.run().await;
    assert_eq!(faults(&report), [], "{report:?}");
    check(&report, Check::WholeOrAbsent, Verdict::Good, "looks", "");
    check(&report, Check::UnfinishedFiles, Verdict::Good, "none", "");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "not even a folder is left");
}

/// Rule 5: what is stored otherwise than it was sent, or seen before it is whole, is found out.
#[tokio::test]
async fn halves_and_damage_are_found_out() {
    let report = of_liar(Lie::Halves).await;
    assert_eq!(faults(&report), [Check::WholeOrAbsent]);
    check(&report, Check::WholeOrAbsent, Verdict::Fault, "4194304 bytes of 8388608 were visible", "half");
    let report = of_liar(Lie::Damages).await;
    check(&report, Check::LargeObjects, Verdict::Fault, "byte 8388607 differs", "no volume");
}

/// Rule 4: an order that lsvd mends is worth knowing; a name that is left out is a fault.
#[tokio::test]
async fn listings_out_of_order_or_short_are_found_out() {
    let report = of_liar(Lie::Descending).await;
    assert_eq!(faults(&report), []);
    check(&report, Check::ListOrder, Verdict::Note, "a0 a/2 a/10 a/1 a-1 instead of", "nothing is lost");
    let report = of_liar(Lie::LeavesOut).await;
    check(&report, Check::ListOrder, Verdict::Fault, "a-1 a/1 a/10 a/2 instead of", "no volume");
}

/// An examination that is stopped half-way removes what it made when it is told to.
#[tokio::test]
async fn a_stopped_examination_cleans_up() {
    let bucket = memory(Lie::Halves);
    let examination = Examination::of(bucket.clone(), "probe");
    let stopped = tokio::time::timeout(Duration::from_millis(15), examination.run()).await;
    assert!(stopped.is_err(), "it takes 30 ms at least");
    assert!(!bucket.list("", None).await.unwrap().is_empty());
    assert_eq!(examination.clean_up().await, [""; 0]);
    assert_eq!(bucket.list("", None).await.unwrap(), []);
}

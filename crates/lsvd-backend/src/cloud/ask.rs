//! Questions to an S3 bucket that `object_store` has no verbs for: its settings, its region, one page of a listing.
//!
//! Asked through the same kind of client, with the same credentials and the same place as every other request. Knows how
//! a question is signed and what of the answer is of interest; not what it means. Nothing is tried again here, nothing
//! is changed by a question, and no secret is in what an answer says (rule 11).

use std::fmt;
use std::time::{Duration, SystemTime};

use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody};
use tokio::time::{Instant, timeout};

use super::http::Connector;
use super::s3;
use crate::classify::Failure;
use crate::open::StoreOptions;
use crate::scrub;
use crate::url::BucketUrl;

/// An answer to a question.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// The server's clock in milliseconds since 1970, whole seconds, by its `Date` header.
    pub(crate) date_unix_ms: Option<i64>,
    /// This host's clock in the middle between question and answer.
    pub(crate) asked_unix_ms: i64,
    /// How long the answer took.
    pub(crate) took: Duration,
    /// The region that the answer names, in a header or in its words.
    pub(crate) region: Option<String>,
    pub(crate) body: String,
}

impl Answered {
    /// The store's own code of a refusal; empty where it gave none.
    pub(crate) fn code(&self) -> String {
        scrub::words(scrub::element(&self.body, "Code").unwrap_or_default())
    }

    /// Status, code and message, for a person.
    pub(crate) fn said(&self) -> String {
        let code = self.code();
        let message = scrub::words(scrub::element(&self.body, "Message").unwrap_or_default());
        let code = if code.is_empty() { code } else { format!(" {code}") };
        let message = message.trim_end_matches('.');
        let message = if message.is_empty() { String::new() } else { format!(" ({message})") };
        format!("answered {}{code}{message}", self.status)
    }
}

/// A bucket that questions are put to.
pub(crate) struct S3Bucket {
    store: AmazonS3,
    client: HttpClient,
    /// Of the bucket, without a slash at its end.
    url: String,
    region: String,
    signs: bool,
    request_payer: bool,
    /// The longest that one question takes, its answer's body included.
    limit: Duration,
}

impl fmt::Debug for S3Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The store's own Debug may hold credentials (rule 11).
        f.debug_struct("S3Bucket")
            .field("url", &self.url)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl S3Bucket {
    pub(crate) fn open(
        url: &BucketUrl,
        options: &StoreOptions,
        limit: Duration,
    ) -> Result<S3Bucket, Failure> {
        let (store, settings) = s3::build(url, options)?;
        let client = Connector::new(&options.environment)
            .connect(&ClientOptions::new().with_allow_http(settings.allow_http))
            .map_err(|error| super::refused(&error, &options.environment, &[]))?;
        Ok(S3Bucket {
            store,
            client,
            url: settings.bucket_url(url.bucket()),
            region: settings.region,
            signs: settings.credentials != s3::Credentials::Unsigned,
            request_payer: options.environment.is_on("AWS_REQUEST_PAYER"),
            limit,
        })
    }

    /// The bucket's URL, as requests are sent to.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The region that requests are signed for.
    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// Whether requests are signed at all.
    pub(crate) fn signs(&self) -> bool {
        self.signs
    }

    /// GET of the bucket with this query.
    ///
    /// # Errors
    /// No answer, and why, for a person.
    pub(crate) async fn ask(&self, query: &[(&str, &str)]) -> Result<Answered, String> {
        let credential = self.credential().await?;
        self.ask_as(credential.as_ref(), query).await
    }

    /// As [`S3Bucket::ask`], signed with a secret that is not ours.
    pub(crate) async fn ask_with_wrong_secret(&self, query: &[(&str, &str)]) -> Result<Answered, String> {
        let Some(credential) = self.credential().await? else { return self.ask(query).await };
        let secret_key: String = credential.secret_key.chars().rev().chain("-wrong".chars()).collect();
        self.ask_as(Some(&AwsCredential { secret_key, ..credential }), query).await
    }

    async fn credential(&self) -> Result<Option<AwsCredential>, String> {
        if !self.signs {
            return Ok(None);
        }
        let found = self.store.credentials().get_credential().await;
        let found = found.map_err(|error| scrub::words(&format!("no credentials: {error}")))?;
        Ok(Some(AwsCredential {
            key_id: found.key_id.clone(),
            secret_key: found.secret_key.clone(),
            token: found.token.clone(),
        }))
    }

    async fn ask_as(
        &self,
        credential: Option<&AwsCredential>,
        query: &[(&str, &str)],
    ) -> Result<Answered, String> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        let url = format!("{}?{}", self.url, encoded(query));
        *request.uri_mut() = url.parse().map_err(|_| "the bucket's URL can not be asked".to_owned())?;
        if let Some(credential) = credential {
            AwsAuthorizer::new(credential, "s3", &self.region)
                .with_request_payer(self.request_payer)
                .try_authorize(&mut request, None)
                .map_err(|error| scrub::words(&format!("can not be signed: {error}")))?;
        }
        let begun = Instant::now();
        let asked_unix_ms = unix_ms(SystemTime::now());
        let answer = async {
            let response = self.client.execute(request).await.map_err(|error| cause(&error))?;
            let took = begun.elapsed();
            let (parts, body) = response.into_parts();
            let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
            let (date, region) = (header("date").map(str::to_owned), header("x-amz-bucket-region"));
            let region = region.map(str::to_owned);
            let body =
                body.bytes().await.map_err(|error| format!("its answer broke off: {}", cause(&error)))?;
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok(Answered {
                status: parts.status.as_u16(),
                date_unix_ms: date.as_deref().and_then(http_date_unix_ms),
                asked_unix_ms: asked_unix_ms + i64::try_from(took.as_millis() / 2).unwrap_or(0),
                took,
                region: region.or_else(|| region_in(&body)),
                body,
            })
        };
        match timeout(self.limit, answer).await {
            Ok(answered) => answered,
            Err(_) => Err(format!("no answer within {:.1} s", self.limit.as_secs_f64())),
        }
    }
}

fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    scrub::words(&cause.to_string())
}

fn unix_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// As signatures want it: all but letters, digits and `-._~` as percent and two digits (AWS, "Create a signed request").
fn encoded(query: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        let byte = |byte: u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    let pair = |&(name, value): &(&str, &str)| match value {
        // Without the sign, as every other client has it: there are servers that look for just that.
        "" => encode(name),
        value => format!("{}={}", encode(name), encode(value)),
    };
    query.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// The region that a refusal names: AWS and MinIO as an element, some only in their sentence.
fn region_in(body: &str) -> Option<String> {
    let named = |text: &str| {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        (!text.is_empty() && text.len() <= 40 && text.chars().all(fits)).then(|| text.to_owned())
    };
    if let Some(region) = scrub::element(body, "Region").and_then(named) {
        return Some(region);
    }
    let message = scrub::element(body, "Message")?.replace("&apos;", "'").replace("&#39;", "'");
    // "the region 'a' is wrong; expecting 'b'"
    if let Some((_, rest)) = message.split_once("expecting '") {
        return rest.split('\'').next().and_then(named);
    }
    // "unexpected scope: …, expected: '20260131/b/s3/aws4_request'"
    let (_, rest) = message.split_once("expected: ")?;
    rest.trim_start_matches(['\'', '`', '"']).split('/').nth(1).and_then(named)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7) in milliseconds since 1970.
fn http_date_unix_ms(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.split([' ', ':']);
    let mut next = || words.next();
    let day: i64 = next()?.parse().ok()?;
    let month_name = next()?;
    let month = i64::try_from(MONTHS.iter().position(|&name| name == month_name)?).ok()? + 1;
    let year: i64 = next()?.parse().ok()?;
    let [hour, minute, second] =
        [next()?, next()?, next()?].map(|text| text.parse::<i64>().ok().filter(|n| (0..=60).contains(n)));
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970-01-01 in the Gregorian calendar, counted in years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour?) * 60 + minute?) * 60 + second?) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http() {
        assert_eq!(http_date_unix_ms("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date_unix_ms("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777_000));
        assert_eq!(http_date_unix_ms("Tue, 29 Feb 2000 00:00:00 GMT"), Some(951_782_400_000));
        for bad in
            ["", "yesterday", "Sun, 06 Nov 1994", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 6 Nov 1994 x:49:37"]
        {
            assert_eq!(http_date_unix_ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn regions_are_found_in_refusals() {
        for (body, region) in [
            ("<Error><Code>X</Code><Region>eu-central-1</Region></Error>", Some("eu-central-1")),
            (
                "<Error><Message>the region 'us-east-1' is wrong; expecting 'eu-west-3'</Message></Error>",
                Some("eu-west-3"),
            ),
            (
                "<Error><Message>the region &apos;a&apos; is wrong; expecting &apos;eu-west-3&apos;</Message></Error>",
                Some("eu-west-3"),
            ),
            (
                "<Error><Message>unexpected scope: 'd/us-east-1/s3/aws4_request', expected: \
                 'd/garage/s3/aws4_request'</Message></Error>",
                Some("garage"),
            ),
            ("<Error><Region>https://evil.example/?x</Region></Error>", None),
            ("<html>no</html>", None),
        ] {
            assert_eq!(region_in(body).as_deref(), region, "{body}");
        }
    }

    #[test]
    fn queries_are_encoded_as_they_are_signed() {
        assert_eq!(
            encoded(&[("versioning", ""), ("prefix", "a b/c+é")]),
            "versioning&prefix=a%20b%2Fc%2B%C3%A9"
        );
    }
}

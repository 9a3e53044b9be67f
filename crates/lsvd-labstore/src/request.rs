//! From a request's line and headers to what is asked: the verb, the bucket, the key and their conditions.
//!
//! Knows the syntax of S3, path-style, and of Google's XML API, and holds nothing. Invariant: what is not understood is
//! refused, never passed over, where passing over would do something else than was asked.

use std::ops::Range;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// The longest key, in bytes of UTF-8, as S3 has it.
const KEY_BYTES_MAX: usize = 1024;

/// The most names in one answer to a LIST, as S3 has it.
const PAGE_KEYS_MAX: usize = 1000;

/// What is asked, as it is counted and as faults choose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// An object is written.
    Put,
    /// An object is read.
    Get,
    /// An object's length is asked for.
    Head,
    /// Names are listed.
    List,
    /// An object is removed.
    Delete,
    /// Anything else: buckets, and what is refused.
    Other,
}

/// Whose protocol a request speaks; what they share is most of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    S3,
    /// Google's XML API: its requests bear a token in place of a signature.
    Google,
}

impl Dialect {
    fn of(headers: &HeaderMap) -> Dialect {
        let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        match authorization.and_then(|value| value.split(|&byte| byte == b' ').next()) {
            Some(b"Bearer") => Dialect::Google,
            _ => Dialect::S3,
        }
    }
}

/// Under which condition a PUT takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    None,
    /// `If-None-Match: *`, `x-goog-if-generation-match: 0`
    Absent,
    /// `If-Match`, with the ETag.
    Tag(String),
}

/// A ListObjectsV2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) prefix: String,
    pub(crate) delimiter: Option<String>,
    pub(crate) start_after: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) keys_max: usize,
}

/// Bytes of an object, before its length is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteRange {
    /// From here to here, the last one included, or to the end.
    From(u64, Option<u64>),
    /// The last ones.
    Last(u64),
}

impl ByteRange {
    /// Reads `bytes=…`. What is no single range is ignored, as RFC 9110 demands.
    fn parse(text: &str) -> Option<ByteRange> {
        let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
        let last = (!last.is_empty()).then(|| last.parse::<u64>());
        if first.is_empty() {
            return Some(ByteRange::Last(last?.ok()?));
        }
        let (first, last) = (first.parse().ok()?, last.transpose().ok()?);
        last.is_none_or(|last| first <= last).then_some(ByteRange::From(first, last))
    }

    /// The bytes of an object of this length.
    pub(crate) fn within(self, object_bytes: usize) -> Result<Range<usize>, Refusal> {
        let clamp = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(object_bytes);
        let range = match self {
            ByteRange::From(first, None) => clamp(first)..object_bytes,
            ByteRange::From(first, Some(last)) => clamp(first)..clamp(last.saturating_add(1)),
            ByteRange::Last(count) => object_bytes - clamp(count)..object_bytes,
        };
        if range.is_empty() { Err(Refusal::invalid_range()) } else { Ok(range) }
    }
}

/// What is asked of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Put(Condition),
    Get(Option<ByteRange>),
    Head(Option<ByteRange>),
    Delete,
    List(Listing),
    CreateBucket,
    HeadBucket,
}

/// A request that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) bucket: String,
    /// Empty where the bucket itself is meant.
    pub(crate) key: String,
    pub(crate) ask: Ask,
    pub(crate) dialect: Dialect,
}

impl Call {
    /// Understands a request.
    pub(crate) fn parse(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Call, Refusal> {
        let path = uri.path().strip_prefix('/').ok_or_else(Refusal::invalid_uri)?;
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let (bucket, key) = (decoded(bucket, false)?, decoded(key, false)?);
        let query = Query::parse(uri.query().unwrap_or_default())?;
        if bucket.is_empty() {
            return Err(Refusal::not_implemented("requests without a bucket"));
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(Refusal::key_too_long());
        }
        let dialect = Dialect::of(headers);
        let ask = if key.is_empty() {
            ask_of_bucket(method, &query)?
        } else {
            if let Some((name, _)) = query.0.iter().find(|(name, _)| name != "x-id") {
                return Err(Refusal::not_implemented(&format!("'?{name}' of an object")));
            }
            ask_of_object(method, headers, dialect)?
        };
        Ok(Call { bucket, key, ask, dialect })
    }

    pub(crate) fn verb(&self) -> Verb {
        match self.ask {
            Ask::Put(_) => Verb::Put,
            Ask::Get(_) => Verb::Get,
            Ask::Head(_) => Verb::Head,
            Ask::Delete => Verb::Delete,
            Ask::List(_) => Verb::List,
            Ask::CreateBucket | Ask::HeadBucket => Verb::Other,
        }
    }

    /// What a rule's `key` is looked for in: the key, or the prefix that is listed.
    pub(crate) fn about(&self) -> &str {
        match &self.ask {
            Ask::List(listing) => &listing.prefix,
            _ => &self.key,
        }
    }
}

fn ask_of_bucket(method: &Method, query: &Query) -> Result<Ask, Refusal> {
    match *method {
        Method::GET if query.get("list-type") == Some("2") => {
            let keys_max = match query.get("max-keys") {
                None => PAGE_KEYS_MAX,
                Some(text) => {
                    text.parse().map_err(|_| Refusal::invalid_argument("max-keys is no number."))?
                }
            };
            let owned = |name| query.get(name).map(str::to_owned);
            Ok(Ask::List(Listing {
                prefix: owned("prefix").unwrap_or_default(),
                delimiter: owned("delimiter").filter(|delimiter| !delimiter.is_empty()),
                start_after: owned("start-after"),
                token: owned("continuation-token"),
                keys_max: keys_max.min(PAGE_KEYS_MAX),
            }))
        }
        Method::GET => Err(Refusal::invalid_argument("The lab store lists with list-type=2 only.")),
        Method::PUT if query.0.is_empty() => Ok(Ask::CreateBucket),
        Method::HEAD if query.0.is_empty() => Ok(Ask::HeadBucket),
        _ => Err(Refusal::not_implemented(&format!("{method} of a bucket"))),
    }
}

/// The generation that an object must have for a PUT of Google's; 0 stands for none at all.
const GENERATION_MATCH: HeaderName = HeaderName::from_static("x-goog-if-generation-match");

fn ask_of_object(method: &Method, headers: &HeaderMap, dialect: Dialect) -> Result<Ask, Refusal> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let conditions = (text(header::IF_NONE_MATCH), text(header::IF_MATCH));
    let generation = text(GENERATION_MATCH);
    if generation.is_some() && (dialect, method) != (Dialect::Google, &Method::PUT) {
        return Err(Refusal::not_implemented("a generation's condition but for Google's PUT"));
    }
    match *method {
        Method::PUT => {
            if headers.contains_key("x-amz-copy-source") || headers.contains_key("x-goog-copy-source") {
                return Err(Refusal::not_implemented("copies"));
            }
            let signed = headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok());
            if signed.is_some_and(|signed| signed.starts_with("STREAMING-")) {
                return Err(Refusal::not_implemented("bodies that are signed in chunks"));
            }
            match (dialect, conditions, generation) {
                (_, (None, None), None) => Ok(Ask::Put(Condition::None)),
                (Dialect::Google, (None, None), Some("0")) => Ok(Ask::Put(Condition::Absent)),
                (Dialect::S3, (Some("*"), None), _) => Ok(Ask::Put(Condition::Absent)),
                (Dialect::S3, (None, Some(tag)), _) if tag != "*" => {
                    Ok(Ask::Put(Condition::Tag(tag.to_owned())))
                }
                _ => Err(Refusal::not_implemented("these conditions of a PUT")),
            }
        }
        _ if conditions != (None, None) => Err(Refusal::not_implemented("conditions but for PUT")),
        Method::GET => Ok(Ask::Get(text(header::RANGE).and_then(ByteRange::parse))),
        Method::HEAD => Ok(Ask::Head(text(header::RANGE).and_then(ByteRange::parse))),
        Method::DELETE => Ok(Ask::Delete),
        _ => Err(Refusal::not_implemented(&format!("{method} of an object"))),
    }
}

/// The query, decoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Result<Query, Refusal> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name, true)?, decoded(value, true)?))
        });
        Ok(Query(pairs.collect::<Result<_, Refusal>>()?))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Percent-decoded; a plus is a space in a query and itself in a path.
fn decoded(text: &str, query: bool) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || {
                    rest.next()
                        .and_then(|digit| char::from(digit).to_digit(16))
                        .and_then(|d| u8::try_from(d).ok())
                };
                match (digit(), digit()) {
                    (Some(high), Some(low)) => high << 4 | low,
                    _ => return Err(Refusal::invalid_uri()),
                }
            }
            b'+' if query => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| Refusal::invalid_uri())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &Method, uri: &str, headers: &[(&'static str, &str)]) -> Result<Call, Refusal> {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Call::parse(method, &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn paths_are_decoded_and_queries_too() {
        let put = call(&Method::PUT, "/b/a%20b+c/%C3%A9", &[("if-none-match", "*")]).unwrap();
        assert_eq!((put.bucket.as_str(), put.key.as_str()), ("b", "a b+c/é"));
        assert_eq!(put.ask, Ask::Put(Condition::Absent));
        let list = call(&Method::GET, "/b/?list-type=2&prefix=a+b%2F&max-keys=5000", &[]).unwrap();
        let Ask::List(listing) = list.ask else { panic!("{list:?}") };
        assert_eq!((listing.prefix.as_str(), listing.keys_max), ("a b/", 1000));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let code = |method, uri: &str, headers: &[(&'static str, &str)]| {
            call(&method, uri, headers).unwrap_err().code
        };
        assert_eq!(code(Method::GET, "/b/%zz", &[]), "InvalidURI");
        assert_eq!(code(Method::GET, "/b/%ff", &[]), "InvalidURI");
        assert_eq!(code(Method::GET, "/", &[]), "NotImplemented");
        assert_eq!(code(Method::GET, &format!("/b/{}", "k".repeat(1025)), &[]), "KeyTooLongError");
        assert_eq!(code(Method::POST, "/b/k?uploads", &[]), "NotImplemented");
        assert_eq!(code(Method::PUT, "/b/k", &[("if-none-match", "\"tag\"")]), "NotImplemented");
        assert_eq!(code(Method::PUT, "/b/k", &[("x-amz-copy-source", "/b/l")]), "NotImplemented");
        assert_eq!(code(Method::GET, "/b/k", &[("if-match", "\"tag\"")]), "NotImplemented");
        assert_eq!(code(Method::GET, "/b?list-type=2&max-keys=x", &[]), "InvalidArgument");
    }

    /// Rule 2: a condition of one protocol is not passed over because the other's was expected.
    #[test]
    fn conditions_are_those_of_the_dialect() {
        const GOOGLE: (&str, &str) = ("authorization", "Bearer token");
        const S3: (&str, &str) = ("authorization", "AWS4-HMAC-SHA256 Credential=lab/x");
        let put = |headers: &[(&'static str, &str)]| call(&Method::PUT, "/b/k", headers);
        let absent = ("x-goog-if-generation-match", "0");
        let created = put(&[GOOGLE, absent]).unwrap();
        assert_eq!((created.ask, created.dialect), (Ask::Put(Condition::Absent), Dialect::Google));
        assert_eq!(put(&[("authorization", "Bearer "), absent]).unwrap().dialect, Dialect::Google);
        assert_eq!(put(&[GOOGLE]).unwrap().ask, Ask::Put(Condition::None));
        assert_eq!(put(&[S3]).unwrap().dialect, Dialect::S3);
        for refused in [
            &[GOOGLE, ("x-goog-if-generation-match", "7")][..],
            &[GOOGLE, ("if-none-match", "*")],
            &[GOOGLE, absent, ("if-none-match", "*")],
            &[GOOGLE, ("x-goog-copy-source", "/b/l")],
            &[S3, absent],
            &[absent],
        ] {
            assert_eq!(put(refused).unwrap_err().code, "NotImplemented", "{refused:?}");
        }
        let get = call(&Method::GET, "/b/k", &[GOOGLE, absent]);
        assert_eq!(get.unwrap_err().code, "NotImplemented");
    }

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        let range = |text: &str, len| ByteRange::parse(text).map(|range| range.within(len).ok());
        assert_eq!(range("bytes=0-9", 100), Some(Some(0..10)));
        assert_eq!(range("bytes=90-200", 100), Some(Some(90..100)));
        assert_eq!(range("bytes=90-", 100), Some(Some(90..100)));
        assert_eq!(range("bytes=-10", 100), Some(Some(90..100)));
        assert_eq!(range("bytes=-1000", 100), Some(Some(0..100)));
        assert_eq!(range("bytes=0-18446744073709551615", 100), Some(Some(0..100)));
        for beyond in ["bytes=100-", "bytes=100-200", "bytes=-0"] {
            assert_eq!(range(beyond, 100), Some(None), "{beyond}");
        }
        assert_eq!(range("bytes=0-0", 0), Some(None));
        for none in ["bytes=9-8", "bytes=a-b", "bytes=-", "items=0-1", "bytes=0-1,3-4", "bytes"] {
            assert_eq!(range(none, 100), None, "{none}");
        }
    }
}

//! The objects: buckets of names with bytes.
//!
//! Knows no network and no faults but those that are told to it as arguments. Invariants: 1. a condition is checked and
//! the object stored in one step, so that of many creators one wins; 2. an object's bytes never change, a reader keeps
//! what it has; 3. names are in order of their UTF-8 bytes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::refusal::Refusal;
use crate::request::{Condition, Listing};

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) bytes: Bytes,
    pub(crate) written: SystemTime,
    /// Counts all PUTs; the ETag, and Google's generation.
    pub(crate) version: u64,
}

impl Object {
    /// An opaque tag, new with each PUT; no digest of the bytes.
    pub(crate) fn etag(&self) -> String {
        format!("\"{:032x}\"", self.version)
    }
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Object {
        key: String,
        object: Object,
    },
    /// What all names have in common up to the delimiter.
    Prefix(String),
}

/// One answer to a LIST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    /// The token by which to go on; `None` at the end.
    pub(crate) next: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    buckets: BTreeMap<String, BTreeMap<String, Object>>,
    versions: u64,
    objects: u64,
    object_bytes: u64,
}

/// All buckets.
#[derive(Debug, Default)]
pub(crate) struct Objects(Mutex<State>);

impl Objects {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn create_bucket(&self, bucket: &str) {
        self.lock().buckets.entry(bucket.to_owned()).or_default();
    }

    pub(crate) fn has_bucket(&self, bucket: &str) -> Result<(), Refusal> {
        if self.lock().buckets.contains_key(bucket) { Ok(()) } else { Err(Refusal::no_such_bucket()) }
    }

    /// Stores an object if the condition holds.
    pub(crate) fn put(
        &self,
        bucket: &str,
        key: &str,
        condition: &Condition,
        bytes: Bytes,
    ) -> Result<Object, Refusal> {
        let mut state = self.lock();
        let state = &mut *state;
        let objects = state.buckets.get_mut(bucket).ok_or_else(Refusal::no_such_bucket)?;
        match (condition, objects.get(key)) {
            (Condition::None, _) | (Condition::Absent, None) => {}
            (Condition::Tag(_), None) => return Err(Refusal::no_such_key()),
            (Condition::Tag(tag), Some(object)) if *tag == object.etag() => {}
            (Condition::Absent | Condition::Tag(_), Some(_)) => return Err(Refusal::precondition_failed()),
        }
        state.versions += 1;
        state.objects += 1;
        state.object_bytes += bytes.len() as u64;
        let object = Object { bytes, written: SystemTime::now(), version: state.versions };
        if let Some(old) = objects.insert(key.to_owned(), object.clone()) {
            state.objects -= 1;
            state.object_bytes -= old.bytes.len() as u64;
        }
        Ok(object)
    }

    pub(crate) fn get(&self, bucket: &str, key: &str) -> Result<Object, Refusal> {
        let state = self.lock();
        let objects = state.buckets.get(bucket).ok_or_else(Refusal::no_such_bucket)?;
        objects.get(key).cloned().ok_or_else(Refusal::no_such_key)
    }

    /// Removes an object and says whether it was there.
    pub(crate) fn delete(&self, bucket: &str, key: &str) -> Result<bool, Refusal> {
        let mut state = self.lock();
        let state = &mut *state;
        let objects = state.buckets.get_mut(bucket).ok_or_else(Refusal::no_such_bucket)?;
        let Some(old) = objects.remove(key) else { return Ok(false) };
        state.objects -= 1;
        state.object_bytes -= old.bytes.len() as u64;
        Ok(true)
    }

    /// Empties all buckets.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        for objects in state.buckets.values_mut() {
            objects.clear();
        }
        (state.objects, state.object_bytes) = (0, 0);
    }

    /// How many objects there are, and their bytes.
    pub(crate) fn count(&self) -> (u64, u64) {
        let state = self.lock();
        (state.objects, state.object_bytes)
    }

    /// One page of a listing, without objects that are younger than `younger_than`.
    pub(crate) fn list(
        &self,
        bucket: &str,
        listing: &Listing,
        younger_than: Option<Duration>,
    ) -> Result<Page, Refusal> {
        let state = self.lock();
        let objects = state.buckets.get(bucket).ok_or_else(Refusal::no_such_bucket)?;
        let mut page = Page { entries: Vec::new(), next: None };
        if listing.keys_max == 0 {
            return Ok(page);
        }
        let now = SystemTime::now();
        let stale = |object: &Object| {
            younger_than.is_some_and(|age| now.duration_since(object.written).unwrap_or_default() < age)
        };
        let mut from = Some(beginning(listing)?);
        let mut token = None;
        // From one common prefix it goes on behind all names that have it.
        'names: while let Some(start) = from.take() {
            for (key, object) in
                objects.range::<str, _>((start.as_ref().map(String::as_str), Bound::Unbounded))
            {
                let Some(rest) = key.strip_prefix(&listing.prefix) else { break 'names };
                if stale(object) {
                    continue;
                }
                if page.entries.len() == listing.keys_max {
                    page.next = token;
                    break 'names;
                }
                let common = listing.delimiter.as_ref().and_then(|delimiter| {
                    let end = rest.find(delimiter.as_str())? + delimiter.len();
                    Some(&key[..listing.prefix.len() + end])
                });
                if let Some(prefix) = common {
                    page.entries.push(Entry::Prefix(prefix.to_owned()));
                    let Some(behind) = behind(prefix) else { break 'names };
                    token = Some(format!("from:{behind}"));
                    from = Some(Bound::Included(behind));
                    continue 'names;
                }
                token = Some(format!("after:{key}"));
                page.entries.push(Entry::Object { key: key.clone(), object: object.clone() });
            }
        }
        Ok(page)
    }
}

/// Where a page begins: at the prefix, after a name, or where the one before it ended.
fn beginning(listing: &Listing) -> Result<Bound<String>, Refusal> {
    if let Some(token) = &listing.token {
        return match token.split_once(':') {
            Some(("after", key)) => Ok(Bound::Excluded(key.to_owned())),
            Some(("from", key)) => Ok(Bound::Included(key.to_owned())),
            _ => Err(Refusal::invalid_argument("The continuation token provided is incorrect.")),
        };
    }
    match &listing.start_after {
        Some(after) if *after >= listing.prefix => Ok(Bound::Excluded(after.clone())),
        _ => Ok(Bound::Included(listing.prefix.clone())),
    }
}

/// The first name that is behind all that begin with `prefix`; `None` if there is none.
fn behind(prefix: &str) -> Option<String> {
    let mut name = prefix.to_owned();
    while let Some(last) = name.pop() {
        // Surrogates are no characters.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            name.push(next);
            return Some(name);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(prefix: &str, delimiter: Option<&str>, keys_max: usize) -> Listing {
        Listing {
            prefix: prefix.into(),
            delimiter: delimiter.map(str::to_owned),
            start_after: None,
            token: None,
            keys_max,
        }
    }

    fn store(names: &[&str]) -> Objects {
        let objects = Objects::default();
        objects.create_bucket("b");
        for name in names {
            objects.put("b", name, &Condition::None, Bytes::from_static(b"x")).unwrap();
        }
        objects
    }

    /// All pages, whatever their size, as names.
    fn all(objects: &Objects, mut listing: Listing) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            let page = objects.list("b", &listing, None).unwrap();
            assert!(page.entries.len() <= listing.keys_max);
            names.extend(page.entries.into_iter().map(|entry| match entry {
                Entry::Object { key, .. } => key,
                Entry::Prefix(prefix) => prefix,
            }));
            match page.next {
                Some(next) => listing.token = Some(next),
                None => return names,
            }
        }
    }

    #[test]
    fn pages_of_any_size_make_one_listing() {
        let objects = store(&["a", "log/1", "log/2", "log/x/1", "log/x/2", "log/y/1", "log0", "logs/1"]);
        for keys_max in 1..9 {
            let flat = all(&objects, listing("log/", None, keys_max));
            assert_eq!(flat, ["log/1", "log/2", "log/x/1", "log/x/2", "log/y/1"]);
            let folders = all(&objects, listing("log/", Some("/"), keys_max));
            assert_eq!(folders, ["log/1", "log/2", "log/x/", "log/y/"]);
            assert_eq!(all(&objects, listing("", Some("/"), keys_max)), ["a", "log/", "log0", "logs/"]);
            let after = Listing { start_after: Some("log/2".into()), ..listing("log/", None, keys_max) };
            assert_eq!(all(&objects, after), ["log/x/1", "log/x/2", "log/y/1"]);
        }
        // The last page is full, and says that nothing follows.
        assert_eq!(objects.list("b", &listing("log/", None, 5), None).unwrap().next, None);
    }

    #[test]
    fn start_after_outside_of_the_prefix() {
        let objects = store(&["a", "m/1", "m/2", "z"]);
        for (after, expected) in [("a", &["m/1", "m/2"][..]), ("m", &["m/1", "m/2"]), ("n", &[])] {
            let listing = Listing { start_after: Some(after.into()), ..listing("m/", None, 10) };
            assert_eq!(all(&objects, listing), expected, "after {after}");
        }
    }

    #[test]
    fn conditions_hold() {
        let objects = store(&["k"]);
        let put = |key: &str, condition: Condition| objects.put("b", key, &condition, Bytes::new());
        assert_eq!(put("k", Condition::Absent).unwrap_err().code, "PreconditionFailed");
        let first = objects.get("b", "k").unwrap();
        let second = put("k", Condition::Tag(first.etag())).unwrap();
        assert_ne!(first.etag(), second.etag());
        assert_eq!(put("k", Condition::Tag(first.etag())).unwrap_err().code, "PreconditionFailed");
        assert_eq!(put("missing", Condition::Tag(first.etag())).unwrap_err().code, "NoSuchKey");
        assert_eq!(objects.put("c", "k", &Condition::None, Bytes::new()).unwrap_err().code, "NoSuchBucket");
    }

    #[test]
    fn what_is_there_is_counted() {
        let objects = store(&["a", "b", "b"]);
        assert_eq!(objects.count(), (2, 2));
        assert!(objects.delete("b", "a").unwrap());
        assert!(!objects.delete("b", "a").unwrap());
        assert_eq!(objects.count(), (1, 1));
        objects.clear();
        assert_eq!(objects.count(), (0, 0));
        objects.has_bucket("b").unwrap();
    }

    #[test]
    fn behind_a_prefix() {
        assert_eq!(behind("a/").as_deref(), Some("a0"));
        assert_eq!(behind("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(behind("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(behind("\u{10ffff}"), None);
    }
}

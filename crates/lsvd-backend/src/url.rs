//! The names that people give to stores: `s3://bucket/prefix/volume` and its kin, parsed and printed.
//!
//! Knows no store and no environment. Invariants: a [`BucketUrl`] holds no credentials; its segments are not empty,
//! not `.` or `..`, and free of control characters, `?`, `#`, `%`, `\` and `@`; printing one and parsing it again
//! gives the same; an error never repeats what was typed, for that may hold a secret (rule 11).

use std::fmt;
use std::str::FromStr;

/// Where the objects live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// A directory of this host.
    File,
    /// This process' own memory: gone with it. For tests and trials.
    Memory,
    /// Amazon S3, Cloudflare R2 and every server that speaks the same protocol.
    S3,
    /// Azure Blob Storage.
    Azure,
    /// Google Cloud Storage.
    Google,
}

/// Every scheme with its name, in the order in which they are told to people.
const SCHEMES: [(Scheme, &str); 5] = [
    (Scheme::File, "file"),
    (Scheme::Memory, "memory"),
    (Scheme::S3, "s3"),
    (Scheme::Azure, "az"),
    (Scheme::Google, "gs"),
];

impl Scheme {
    fn name(self) -> &'static str {
        SCHEMES.iter().find(|(scheme, _)| *scheme == self).map_or("", |(_, name)| name)
    }
}

/// Why what was typed is not the URL of a store. Nothing was asked of any store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct UrlError {
    reason: String,
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, UrlError> {
    Err(UrlError { reason: reason.into() })
}

/// A parsed URL: of a bucket, of a prefix in it, or of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BucketUrl {
    scheme: Scheme,
    /// Bucket, container or name of the memory; empty for a directory.
    bucket: String,
    segments: Vec<String>,
    /// A slash at the end is kept in mind: it names a folder of volumes, not a volume.
    ends_in_slash: bool,
}

impl BucketUrl {
    /// Where the objects live.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The bucket, the container or the memory's name; empty for a directory.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The path below the bucket without slashes at its ends; for a directory its absolute path without the first
    /// slash.
    pub fn path(&self) -> String {
        self.segments.join("/")
    }

    /// The URL without its last segment; `None` at the bucket itself or at the root directory.
    pub fn parent(&self) -> Option<BucketUrl> {
        let (_, above) = self.segments.split_last()?;
        Some(BucketUrl { segments: above.to_vec(), ends_in_slash: false, ..self.clone() })
    }

    /// The last segment of the path; `None` where there is none.
    pub fn last_segment(&self) -> Option<&str> {
        self.segments.last().map(String::as_str)
    }

    /// The name of the volume that this URL names: its last segment.
    ///
    /// # Errors
    /// The URL names a bucket or a folder (no path, or a slash at the end): ask for the volume's name.
    pub fn volume_name(&self) -> Result<&str, UrlError> {
        match self.last_segment() {
            Some(name) if !self.ends_in_slash => Ok(name),
            _ => refuse(format!(
                "'{self}' names no volume: a volume's name follows the last slash, as in '{}/db1'",
                self.to_string().trim_end_matches('/')
            )),
        }
    }

    /// The name of the volume that this URL names, or of the bucket if it names all of one.
    ///
    /// # Errors
    /// As for [`BucketUrl::volume_name`], for a directory without a path.
    pub fn volume_or_bucket_name(&self) -> Result<&str, UrlError> {
        match (self.segments.is_empty(), self.bucket.as_str()) {
            (true, bucket) if !bucket.is_empty() => Ok(bucket),
            _ => self.volume_name(),
        }
    }

    /// The way from here to another URL of the same store: `..` for each folder up, then names. `None` where it is another store, or
    /// the same place.
    pub fn path_to(&self, other: &BucketUrl) -> Option<String> {
        if (self.scheme, &self.bucket) != (other.scheme, &other.bucket) || self.segments == other.segments {
            return None;
        }
        let shared = self.segments.iter().zip(&other.segments).take_while(|(a, b)| a == b).count();
        let up = self.segments[shared..].iter().map(|_| "..");
        let down = other.segments[shared..].iter().map(String::as_str);
        Some(up.chain(down).collect::<Vec<_>>().join("/"))
    }

    /// The URL to which such a way leads from here; `None` if it leads out of the store, or has a name that can not be.
    pub fn beside(&self, path: &str) -> Option<BucketUrl> {
        let mut segments = self.segments.clone();
        for segment in path.split('/') {
            if segment == ".." {
                segments.pop()?;
            } else {
                check_segment(segment).ok()?;
                segments.push(segment.to_owned());
            }
        }
        Some(BucketUrl { segments, ends_in_slash: false, ..self.clone() })
    }

    /// The URL of what is called `segment` in here.
    ///
    /// # Errors
    /// The segment is empty or has characters that no segment may have.
    pub fn join(&self, segment: &str) -> Result<BucketUrl, UrlError> {
        check_segment(segment)?;
        let mut joined = self.clone();
        joined.segments.push(segment.to_owned());
        joined.ends_in_slash = false;
        Ok(joined)
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.bucket)?;
        if self.segments.is_empty() && self.scheme == Scheme::File {
            return f.write_str("/");
        }
        self.segments.iter().try_for_each(|segment| write!(f, "/{segment}"))?;
        if self.ends_in_slash { f.write_str("/") } else { Ok(()) }
    }
}

impl FromStr for BucketUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = SCHEMES.map(|(_, name)| format!("{name}://")).join(", ");
        let Some((scheme, rest)) = text.split_once("://") else {
            return refuse(format!("a store is named by a URL that begins with one of {known}"));
        };
        let Some((scheme, _)) = SCHEMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(scheme)) else {
            return refuse(format!("unknown scheme; a store's URL begins with one of {known}"));
        };
        if rest.contains(['?', '#']) {
            return refuse(
                "a store's URL has no query ('?') and no fragment ('#'): options are given apart from it",
            );
        }
        let (bucket, path) = match rest.split_once('/') {
            Some((bucket, path)) => (bucket, Some(path)),
            None => (rest, None),
        };
        check_bucket(*scheme, bucket)?;
        if *scheme == Scheme::File && path.is_none() {
            return refuse("a directory is named by its absolute path, as in 'file:///var/lib/lsvd/db1'");
        }
        let path = path.unwrap_or_default();
        let (path, ends_in_slash) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, false),
        };
        let segments: Vec<String> = if path.is_empty() && !ends_in_slash {
            Vec::new()
        } else {
            path.split('/').map(str::to_owned).collect()
        };
        segments.iter().try_for_each(|segment| check_segment(segment))?;
        Ok(BucketUrl { scheme: *scheme, bucket: bucket.to_owned(), segments, ends_in_slash })
    }
}

fn check_bucket(scheme: Scheme, bucket: &str) -> Result<(), UrlError> {
    if bucket.contains(['@', ':']) {
        return refuse(
            "credentials and ports do not belong into a store's URL: credentials come from the environment or a \
             profile, a server's address is the endpoint option",
        );
    }
    if scheme == Scheme::File {
        return match bucket {
            "" => Ok(()),
            _ => refuse(
                "a directory is named by its absolute path after three slashes, as in 'file:///var/lib/lsvd/db1'",
            ),
        };
    }
    if bucket.is_empty() {
        return refuse(format!("the bucket is missing: '{0}://BUCKET/PREFIX/VOLUME'", scheme.name()));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !bucket.chars().all(fits) || bucket.starts_with('.') || bucket.contains("..") {
        return refuse("a bucket's name has letters, digits, '-', '_' and single '.' only");
    }
    Ok(())
}

fn check_segment(segment: &str) -> Result<(), UrlError> {
    match segment {
        "" => return refuse("the path has an empty segment (two slashes in a row)"),
        "." | ".." => return refuse("the path has a '.' or '..' segment: write where it leads to"),
        _ => {}
    }
    if segment.contains('@') {
        return refuse(
            "'@' is kept for naming snapshots and other moments of a volume, where a command takes one; it can not be in a \
             path",
        );
    }
    if segment.contains(['\\', '%', '?', '#']) || segment.chars().any(char::is_control) {
        return refuse(
            "a path has no control characters and none of '\\', '%', '?', '#' (nothing is decoded)",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;

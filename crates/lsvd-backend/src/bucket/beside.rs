//! From one prefix of a bucket to another one, by a path that is relative as in a file system.
//!
//! Knows names, and that what lies beside a directory is reached as a directory of its own; makes no requests. Invariant: no
//! path leads out of the bucket.

use std::path::Path as FsPath;
use std::sync::Arc;

use object_store::path::Path;

use super::Bucket;
use crate::classify::{Failure, FailureKind, directory_failure};
use crate::directory::{Directory, DirectoryError};
use crate::error::{Error, Site, Verb};

impl Bucket {
    /// The same bucket, which is all of this directory.
    pub(crate) fn in_folder(self, folder: &FsPath) -> Self {
        Bucket { folder: Some(Arc::from(folder)), ..self }
    }

    /// What `path` leads to from here, as a bucket of its own: `..` for each folder up, then names, with slashes between.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] if it leads out of the bucket; [`Error::NotFound`] if it is a directory that is not there.
    pub fn beside(&self, path: &str) -> Result<Bucket, Error> {
        let folder: Vec<&str> = self.folder.as_deref().map_or_else(Vec::new, |folder| {
            let names = folder.iter().filter_map(|name| name.to_str());
            names.filter(|name| *name != "/").collect()
        });
        let own: Vec<String> = self.prefix.parts().map(|part| part.as_ref().to_owned()).collect();
        let mut segments: Vec<&str> = folder.into_iter().chain(own.iter().map(String::as_str)).collect();
        let mut label: Vec<&str> = self.label.trim_end_matches('/').split('/').collect();
        let site = || Site { store: self.label.clone(), verb: Verb::Open, object: path.to_owned() };
        for segment in path.split('/') {
            if segment == ".." {
                if segments.pop().is_none() {
                    let detail = "it leads out of the bucket";
                    return Err(Failure::new(FailureKind::Misconfigured, detail).into_error(site()));
                }
                label.pop();
            } else {
                segments.push(segment);
                label.push(segment);
            }
        }
        let (label, place) = (Arc::from(label.join("/")), segments.join("/"));
        let Some(_) = &self.folder else {
            let prefix = Path::parse(&place).unwrap_or_else(|_| Path::from(place));
            return Ok(Bucket { prefix, label, ..self.clone() });
        };
        let place = format!("/{place}");
        let directory = Directory::open(FsPath::new(&place), false).map_err(|error| match error {
            DirectoryError::Gone { path } => {
                let detail = format!("the directory '{}' does not exist", path.display());
                Failure::new(FailureKind::NotFound, detail).into_error(site())
            }
            error => directory_failure(&error).into_error(site()),
        })?;
        let folder = Some(Arc::from(FsPath::new(&place)));
        Ok(Bucket { store: Arc::new(directory), prefix: Path::default(), folder, label, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::{BucketUrl, Created, StoreOptions};

    fn memory(prefix: &str) -> Bucket {
        Bucket::from_store(Arc::new(InMemory::new()), prefix, &format!("memory://x/{prefix}"))
    }

    #[tokio::test]
    async fn what_lies_beside_is_the_same_store() {
        let here = memory("a/b");
        for (path, name, label) in [
            ("../c", "a/c/x", "memory://x/a/c"),
            ("..", "a/x", "memory://x/a"),
            ("d/e", "a/b/d/e/x", "memory://x/a/b/d/e"),
            ("../../z", "z/x", "memory://x/z"),
        ] {
            let there = here.beside(path).unwrap();
            assert_eq!(there.label(), label);
            assert_eq!(there.create("x", "1".into()).await, Ok(Created::Done));
            let whole = here.beside("../..").unwrap();
            assert!(whole.read_head(name, 10).await.unwrap().is_some(), "{path}");
        }
        assert!(matches!(here.beside("../../.."), Err(Error::Misconfigured { .. })));
    }

    #[tokio::test]
    async fn what_lies_beside_a_directory_is_another_directory() {
        let root = tempfile::tempdir().unwrap();
        let url =
            |name: &str| format!("file://{}/{name}", root.path().display()).parse::<BucketUrl>().unwrap();
        let options = StoreOptions { create_root: true, ..StoreOptions::default() };
        let (one, other) =
            ["one", "deep/other"].map(|name| Bucket::open(&url(name), &options).unwrap()).into();
        other.create("x", "1".into()).await.unwrap();
        let there = one.beside("../deep/other").unwrap();
        assert!(there.read_head("x", 10).await.unwrap().is_some());
        assert_eq!(there.label(), url("deep/other").to_string());
        assert!(there.beside("../../one").is_ok(), "and back");
        assert!(matches!(one.beside("../none"), Err(Error::NotFound { .. })));
    }
}

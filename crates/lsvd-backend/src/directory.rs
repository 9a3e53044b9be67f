//! A directory of this host as a store, as durable and as strict as a bucket.
//!
//! Wraps `object_store`'s `LocalFileSystem` and mends where it is laxer than the rules allow. Invariants: what was
//! answered as stored survives a power cut, directory entries included (also those that another process made and did
//! not live to sync); a name that can not be examined is an error, not an absence (rule 4); once the root directory
//! is gone, or another one is in its place (a file system that was unmounted), nothing is read, written or listed.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What is wrong with the directory itself or with what lies in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// The host's file system failed.
    #[error("can not {what} '{}': {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// The root directory was there when it was opened.
    #[error("the directory '{}' is gone", path.display())]
    Gone { path: PathBuf },
    /// Another directory has the root's name now.
    #[error("'{}' is not the directory any more that was opened: was a file system unmounted?", path.display())]
    Replaced { path: PathBuf },
}

impl From<DirectoryError> for object_store::Error {
    fn from(error: DirectoryError) -> Self {
        object_store::Error::Generic { store: "directory", source: Box::new(error) }
    }
}

fn at<'a>(what: &'static str, path: &'a FsPath) -> impl FnOnce(io::Error) -> DirectoryError + 'a {
    move |source| DirectoryError::Io { what, path: path.to_owned(), source }
}

/// Age from which an object's unfinished file is nobody's any more: no attempt at a PUT lasts that long.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// The root directory: its name and which directory had that name when it was opened.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    device_and_inode: (u64, u64),
    /// Folders whose entries in all folders above them are known to be durable.
    durable: Mutex<HashSet<PathBuf>>,
}

/// A directory as a store.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    inner: LocalFileSystem,
    root: Arc<Root>,
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory({})", self.root.path.display())
    }
}

impl Directory {
    /// Opens a directory; makes it, durably, if it is not there and `create` is set.
    pub(crate) fn open(path: &FsPath, create: bool) -> Result<Directory, DirectoryError> {
        if create {
            create_durably(path)?;
        }
        // Symbolic links are resolved once, so that one that is turned elsewhere does not split the volume.
        let path = fs::canonicalize(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => DirectoryError::Gone { path: path.to_owned() },
            _ => at("open", path)(error),
        })?;
        let metadata = fs::metadata(&path).map_err(at("open", &path))?;
        if !metadata.is_dir() {
            return Err(at("open", &path)(ErrorKind::NotADirectory.into()));
        }
        let inner = LocalFileSystem::new_with_prefix(&path)
            .map_err(|error| at("open", &path)(io::Error::other(error)))?
            .with_fsync(true);
        let root =
            Root { device_and_inode: (metadata.dev(), metadata.ino()), durable: Mutex::default(), path };
        Ok(Directory { inner, root: Arc::new(root) })
    }

    /// The folder and file of an object.
    fn file(&self, location: &Path) -> Result<(PathBuf, PathBuf)> {
        let file = self.inner.path_to_filesystem(location)?;
        let folder = file.parent().unwrap_or(&self.root.path).to_owned();
        Ok((folder, file))
    }
}

impl Root {
    fn check(&self) -> Result<(), DirectoryError> {
        match fs::metadata(&self.path) {
            Ok(now) if (now.dev(), now.ino()) == self.device_and_inode => Ok(()),
            Ok(_) => Err(DirectoryError::Replaced { path: self.path.clone() }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(DirectoryError::Gone { path: self.path.clone() })
            }
            Err(error) => Err(at("examine", &self.path)(error)),
        }
    }

    /// Makes a folder in the root and its entries durable, whoever made them.
    fn prepare_folder(&self, folder: &FsPath) -> Result<(), DirectoryError> {
        self.check()?;
        let known = |durable: &Mutex<HashSet<PathBuf>>| {
            durable.lock().unwrap_or_else(PoisonError::into_inner).contains(folder)
        };
        if known(&self.durable) {
            return Ok(());
        }
        fs::create_dir_all(folder).map_err(at("make the folder", folder))?;
        for above in folder.ancestors().take_while(|above| above.starts_with(&self.path)) {
            sync_folder(above)?;
        }
        remove_abandoned(folder);
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        Ok(())
    }

    /// The objects of a folder, at any depth or only directly in it, and the folders directly in it.
    fn walk(&self, folder: &Path, deep: bool, after: Option<&Path>) -> Result<ListResult, DirectoryError> {
        let mut objects = Vec::new();
        let mut common_prefixes = BTreeSet::new();
        let mut pending = vec![folder.clone()];
        while let Some(folder) = pending.pop() {
            let folder_path = self.path.join(folder.as_ref());
            let entries = match fs::read_dir(&folder_path) {
                Ok(entries) => entries,
                // A folder that nobody needed yet has no objects; whether the root is there is asked below.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(at("list", &folder_path)(error)),
            };
            for entry in entries {
                let entry = entry.map_err(at("list", &folder_path))?;
                let Some(location) = location_in(&folder, &entry.file_name()) else { continue };
                let path = entry.path();
                let metadata = match fs::metadata(&path) {
                    Ok(metadata) => metadata,
                    // Deleted since the folder was read. A dangling link is another matter.
                    Err(error) if error.kind() == ErrorKind::NotFound && path.symlink_metadata().is_err() => {
                        continue;
                    }
                    Err(error) => return Err(at("examine", &path)(error)),
                };
                if metadata.is_dir() && deep {
                    pending.push(location);
                } else if metadata.is_dir() {
                    common_prefixes.insert(location);
                } else if metadata.is_file() && after.is_none_or(|after| location.as_ref() > after.as_ref()) {
                    let modified = metadata.modified().map_err(at("examine", &path))?;
                    objects.push(ObjectMeta {
                        location,
                        last_modified: modified.into(),
                        size: metadata.len(),
                        e_tag: None,
                        version: None,
                    });
                }
            }
        }
        // Last, so that it covers all of the above: an unmounted directory is empty, not an empty store.
        self.check()?;
        objects.sort_unstable_by(|a, b| a.location.as_ref().cmp(b.location.as_ref()));
        let common_prefixes = common_prefixes.into_iter().collect();
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }
}

/// The object's name of a file, unless the file is none of ours: `LocalFileSystem` writes to `name#1` and then links.
fn location_in(folder: &Path, file_name: &std::ffi::OsStr) -> Option<Path> {
    let name = file_name.to_str()?;
    if is_staged(name) {
        return None;
    }
    match folder.as_ref() {
        "" => Path::parse(name).ok(),
        folder => Path::parse(format!("{folder}/{name}")).ok(),
    }
}

fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// An object's file that was never finished.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    pub(crate) path: PathBuf,
    pub(crate) file_bytes: u64,
    pub(crate) age: Duration,
}

impl Staged {
    /// Whether whoever wrote it is surely gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.age > ABANDONED_AFTER
    }
}

/// The unfinished files below a directory, by name.
pub(crate) fn staged(root: &FsPath) -> Result<Vec<Staged>, DirectoryError> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).map_err(at("list", &folder))? {
            let entry = entry.map_err(at("list", &folder))?;
            // What has gone since is not there any more.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if entry.file_name().to_str().is_some_and(is_staged) {
                let age = metadata.modified().ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
                found.push(Staged { path: entry.path(), file_bytes: metadata.len(), age });
            }
        }
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Removes the folders in `folder` that hold nothing, itself too, and those above it as far as `root`.
pub(crate) fn remove_empty_folders(root: &FsPath, folder: &FsPath) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for below in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_empty_below(&below.path());
    }
    for folder in folder.ancestors().take_while(|folder| *folder != root && folder.starts_with(root)) {
        // One that is not empty stays, and so does what is above it.
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

fn remove_empty_below(folder: &FsPath) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for below in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_empty_below(&below.path());
    }
    let _ = fs::remove_dir(folder);
}

/// Removes what writers that were killed have left of objects. If one of them still lives, its PUT fails and is made
/// again.
fn remove_abandoned(folder: &FsPath) {
    let is_abandoned = |entry: &fs::DirEntry| {
        let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
        entry.file_name().to_str().is_some_and(is_staged)
            && matches!(age, Ok(Ok(age)) if age > ABANDONED_AFTER)
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(is_abandoned) {
        // It is in nobody's way: no listing shows it.
        match fs::remove_file(entry.path()) {
            Ok(()) => tracing::info!(path = %entry.path().display(), "removed what a killed writer left"),
            Err(error) => tracing::debug!(path = %entry.path().display(), %error, "left where it is"),
        }
    }
}

fn create_durably(path: &FsPath) -> Result<(), DirectoryError> {
    let missing: Vec<&FsPath> = path.ancestors().take_while(|above| !above.exists()).collect();
    fs::create_dir_all(path).map_err(at("make the directory", path))?;
    // A new directory is durable when the one that names it has been synced.
    missing.iter().filter_map(|made| made.parent()).try_for_each(sync_folder)
}

fn sync_folder(path: &FsPath) -> Result<(), DirectoryError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(at("sync the folder", path))
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DirectoryError> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| object_store::Error::JoinError { source })?
        .map_err(object_store::Error::from)
}

#[async_trait]
impl ObjectStore for Directory {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (folder, file) = self.file(location)?;
        let root = self.root.clone();
        blocking({
            let folder = folder.clone();
            move || root.prepare_folder(&folder)
        })
        .await?;
        // In one piece: each would be a system call of its own.
        let payload = PutPayload::from(Bytes::from(payload));
        let result = self.inner.put_opts(location, payload, opts).await;
        if matches!(result, Err(object_store::Error::AlreadyExists { .. })) {
            // Whoever linked it may have died before syncing; the caller will take it for stored.
            blocking(move || {
                let synced = File::open(&file).and_then(|file| file.sync_all());
                match synced {
                    Err(error) if error.kind() != ErrorKind::NotFound => Err(at("sync", &file)(error)),
                    _ => sync_folder(&folder),
                }
            })
            .await?;
        }
        result
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let result = self.inner.get_opts(location, options).await;
        if matches!(result, Err(object_store::Error::NotFound { .. })) {
            let root = self.root.clone();
            blocking(move || root.check()).await?;
        }
        result
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .and_then(move |location| {
                let this = this.clone();
                async move {
                    let (folder, _) = this.file(&location)?;
                    let root = this.root.clone();
                    // Before, so that nothing is removed from another directory.
                    blocking({
                        let root = root.clone();
                        move || root.check()
                    })
                    .await?;
                    match this.inner.delete(&location).await {
                        Ok(()) => blocking(move || sync_folder(&folder)).await?,
                        Err(error) => {
                            blocking(move || root.check()).await?;
                            return Err(error);
                        }
                    }
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_after(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_after(prefix, Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let root = self.root.clone();
        let folder = prefix.cloned().unwrap_or_default();
        blocking(move || root.walk(&folder, false, None)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl Directory {
    fn list_after(
        &self,
        prefix: Option<&Path>,
        after: Option<Path>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let root = self.root.clone();
        let folder = prefix.cloned().unwrap_or_default();
        stream::once(blocking(move || root.walk(&folder, true, after.as_ref())))
            .map_ok(|result| stream::iter(result.objects.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }
}

#[cfg(test)]
mod tests;

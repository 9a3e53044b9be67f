//! From a URL and options to a bucket. No request is made here.
//!
//! Knows which scheme goes to which store, and keeps the memory stores of this process. A directory is opened at
//! the whole path of its URL, a bucket with the URL's path as prefix. Secrets stay inside the stores (rule 11).

use std::collections::HashMap;
use std::path::Path as FsPath;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;

use crate::bucket::{Bucket, Traits};
use crate::classify::{Failure, FailureKind, Protocol, directory_failure};
use crate::cloud::{azure, google, s3};
use crate::directory::{Directory, DirectoryError};
use crate::environment::Environment;
use crate::error::{Error, Site, Verb};
use crate::url::{BucketUrl, Scheme};

/// How to reach a store, apart from its name. What is not set here is taken from the environment.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The server's URL where it is not the cloud's own, for example `http://127.0.0.1:9000`.
    pub endpoint: Option<String>,
    /// The region to sign for. Without one: `auto` for Cloudflare R2, `us-east-1` for everything else.
    pub region: Option<String>,
    /// Whether plain http is acceptable: everything, keys' signatures aside, is then readable on the way.
    pub allow_http: bool,
    /// Whether the bucket is named in the URL's path (`true`, the default) or in the host name (`false`); S3 only.
    pub path_style: Option<bool>,
    /// Sends requests unsigned and looks for no credentials.
    pub skip_signature: bool,
    /// Whether the role of the machine may be used (the cloud's metadata service is asked for it) where no other
    /// credentials are given. Never done for a custom endpoint. Default `true`.
    pub instance_credentials: bool,
    /// Makes the directory of a `file://` URL where it is missing. Default `false`.
    pub create_root: bool,
    /// The variables that are consulted. Default: those of the process.
    pub environment: Environment,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            endpoint: None,
            region: None,
            allow_http: false,
            path_style: None,
            skip_signature: false,
            instance_credentials: true,
            create_root: false,
            environment: Environment::process(),
        }
    }
}

/// The memory stores of this process by name, so that one part of it finds what another has created.
static MEMORY: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

impl Bucket {
    /// The bucket, or the prefix of one, that a URL names. No request is made and nothing is checked that needs one.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] and [`Error::Denied`]: options, environment and URL do not fit together, or there are
    /// no credentials; the message says what to set. [`Error::NotFound`]: a directory that is not there.
    pub fn open(url: &BucketUrl, options: &StoreOptions) -> Result<Bucket, Error> {
        let label = url.to_string();
        let label = label.trim_end_matches('/');
        let open = match url.scheme() {
            Scheme::File => directory(url, options).map(|store| (store, Protocol::Embedded, false)),
            Scheme::Memory => Ok((memory(url.bucket()) as _, Protocol::Embedded, false)),
            Scheme::S3 => s3::open(url, options).map(|(store, renewable)| (store, Protocol::S3, renewable)),
            Scheme::Azure => azure::open(url, options).map(|store| (store, Protocol::Azure, false)),
            Scheme::Google => google::open(url, options).map(|store| (store, Protocol::Google, false)),
        };
        let at = || Site { store: Arc::from(label), verb: Verb::Open, object: String::new() };
        let (store, protocol, renewable): (Arc<dyn ObjectStore>, _, _) =
            open.map_err(|failure| failure.into_error(at()))?;
        let prefix = match url.scheme() {
            Scheme::File => Path::default(),
            _ => Path::parse(url.path()).map_err(|error| {
                Failure::new(FailureKind::Misconfigured, error.to_string()).into_error(at())
            })?,
        };
        let traits = Traits { protocol, lists_in_order: true, renewable };
        let bucket = Bucket::assemble(store, traits, prefix, label);
        Ok(match url.scheme() {
            Scheme::File => bucket.in_folder(FsPath::new(&format!("/{}", url.path()))),
            _ => bucket,
        })
    }
}

fn memory(name: &str) -> Arc<InMemory> {
    let mut stores = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    stores.entry(name.to_owned()).or_default().clone()
}

fn directory(url: &BucketUrl, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, Failure> {
    let path = format!("/{}", url.path());
    match Directory::open(FsPath::new(&path), options.create_root) {
        Ok(directory) => Ok(Arc::new(directory)),
        Err(DirectoryError::Gone { path }) => {
            let detail = format!("the directory '{}' does not exist", path.display());
            Err(Failure::new(FailureKind::NotFound, detail))
        }
        Err(error) => Err(directory_failure(&error)),
    }
}

//! A prefix of a bucket: create-only PUT, ranged GET, ordered LIST, DELETE, and a probe of what a store really does.
//!
//! Turns a URL into a [`Bucket`] over `object_store`, on which every request is retried, timed and sorted by what its
//! outcome means. Knows names and bytes; never blocks, extents or what a volume puts into its objects.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use lsvd_backend::{Bucket, BucketUrl, Created, StoreOptions};
//!
//! let url: BucketUrl = "memory://trial/db1".parse()?;
//! let bucket = Bucket::open(&url, &StoreOptions::default())?;
//! assert_eq!(bucket.create("log/1", "bytes".into()).await?, Created::Done);
//! assert_eq!(bucket.create("log/1", "other".into()).await?, Created::Exists);
//! assert_eq!(bucket.read_range("log/1", 1..3).await?.as_deref(), Some(&b"yt"[..]));
//! assert_eq!(bucket.list("log", None).await?.len(), 1);
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(example()).unwrap();
//! ```

mod bucket;
mod classify;
mod cloud;
mod counts;
mod directory;
pub mod doctor;
mod environment;
mod error;
mod open;
mod pace;
mod probe;
mod profile;
mod pulse;
mod retry;
mod scrub;
mod url;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

pub use bucket::{Bucket, Created, Head, Listed};
pub use cloud::s3::iam_policy;
pub use counts::RequestCounts;
pub use environment::Environment;
pub use error::{Error, Site, Verb};
pub use object_store::PutPayload;
pub use open::StoreOptions;
pub use probe::ProbeReport;
pub use retry::RetryPolicy;
pub use url::{BucketUrl, Scheme, UrlError};

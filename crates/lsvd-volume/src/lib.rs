//! The embeddable disk: a log-structured block volume on a prefix of a bucket.
//!
//! Drives the engine against a bucket: take-over, fence and recovery at opening, uploads, fetches and a cache of
//! verified chunks while it is open. Knows no NBD, no command line and no environment variables.
//!
//! ```
//! use lsvd_backend::{Bucket, BucketUrl, StoreOptions};
//! use lsvd_volume::{CreateOptions, OpenOptions, Piece, Volume, create};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url: BucketUrl = "memory://example/db1".parse()?;
//! let bucket = Bucket::open(&url, &StoreOptions::default())?;
//! create(&bucket, &CreateOptions::new(1 << 30)).await?;
//!
//! let volume = Volume::open(bucket.clone(), OpenOptions::default()).await?;
//! volume.write(8192, "hello".into(), false).await?; // any alignment; accepted
//! volume.flush().await?; // durable: the bucket holds it
//! drop(volume); // without closing: as safe as a crash
//!
//! let volume = Volume::open(bucket, OpenOptions::default()).await?;
//! let pieces = volume.read(8192, 5).await?;
//! assert_eq!(pieces, [Piece::Data("hello".into())]);
//! volume.close().await?; // drains, flushes, and says so in the bucket
//! # Ok(())
//! # }
//! ```

mod acceptance;
mod adopt;
mod cache;
mod calendar;
mod changes;
mod checkpoint;
mod clones;
mod collect;
mod core;
mod diff;
mod error;
mod fetch;
mod flatten;
mod garbage;
mod group;
mod guarantees;
mod handover;
mod history;
mod journal;
mod lag;
mod log_list;
mod mend;
mod moments;
mod named;
mod occupancy;
mod options;
mod orphans;
mod pressure;
mod reclaim;
mod recovery;
mod regions;
mod remove;
mod resize;
mod retention;
mod rollback;
mod root;
mod snapshots;
mod stamp;
mod store;
mod takeover;
mod tasks;
mod upkeep;
mod upload;
mod volume;
mod wound_back;

pub use adopt::{Adopted, adopt};
pub use calendar::{parse_utc, utc};
pub use changes::{ChangeStatus, Changes};
pub use clones::{Cloned, create_clone};
pub use collect::Collected;
pub use diff::{ChangedExtent, Difference, diff};
pub use error::Error;
pub use flatten::{FlattenStep, Flattened};
pub use garbage::{CollectionGoal, CollectionStep, Garbage, GivenBack};
pub use group::{GroupError, create_group_snapshot};
pub use handover::HandoverOptions;
pub use journal::JournalOptions;
pub use lag::{JournalLag, journal_lag};
pub use log_list::{LogEntry, LogKind, list_log};
pub use lsvd_engine::LastData;
pub use lsvd_format::superblock::{Parent, PinnedFor, SNAPSHOTS_MAX, Snapshot, check_snapshot_name};
pub use lsvd_format::{LogLayout, ObjectFormat, SequenceNumber, VolumeId};
pub use lsvd_local::{Files, JournalError};
pub use moments::{Moment, MomentInfo, inspect_at};
pub use options::{
    AdoptOptions, CollectOptions, CreateOptions, Environment, OpenOptions, RemoveOptions, UpkeepOptions,
};
pub use orphans::{OrphanKind, Orphans, PROBE_FOLDER, Survey, survey};
pub use remove::{Plan, Progress, Removed, plan_removal, remove, remove_clone};
pub use resize::{Resized, ShrinkPolicy};
pub use retention::Retention;
pub use rollback::{RollbackPlan, RolledBack, plan_rollback, rollback};
pub use root::{
    CheckpointInfo, CloneInfo, Created, Identity, VolumeInfo, create, identify, inspect, list, snapshots,
};
pub use snapshots::Scheduled;
pub use volume::{ExtentStatus, Piece, Recovery, Stats, Volume, VolumeDescription};

//! The metadata contexts of a served moment: `lsvd:changed-since:NAME`, what changed between a snapshot and that moment.
//!
//! Knows names, flags, and which comparisons are shared; what changed, the volume's library says. Invariants: 1. only a moment
//! has them: what changes while it is copied has no answer that a backup can rely on; 2. whoever selected one is told by
//! the same two moments to the end of its connection, whatever becomes of the name.

use std::collections::VecDeque;
use std::sync::Arc;

use lsvd_backend::Bucket;
use lsvd_nbd::{ContextExtent, ContextStatus, MetaContext};
use lsvd_volume::{Changes, Error, Moment, SequenceNumber};
use tokio::sync::Mutex;

use crate::export::refuse;

/// The namespace.
pub(crate) const NAMESPACE: &str = "lsvd:";
const CHANGED_SINCE: &str = "lsvd:changed-since:";

/// The range may read otherwise than at the snapshot.
const CHANGED: u32 = 1 << 0;
/// It changed, and reads as zeroes now.
const ZERO: u32 = 1 << 1;

/// Comparisons that are kept for further connections: each holds two moments as two open volumes do.
const KEPT_MAX: usize = 2;

/// The comparisons with the moment that an export shows.
#[derive(Debug)]
pub(crate) struct ChangedSince {
    bucket: Bucket,
    as_of: SequenceNumber,
    size_bytes: u64,
    kept: Mutex<VecDeque<Arc<Comparison>>>,
}

/// A context as its clients have it.
#[derive(Debug)]
struct Comparison {
    name: String,
    changes: Changes,
}

impl ChangedSince {
    /// Of the volume on `bucket` as of a moment, with the size that is served.
    pub(crate) fn new(bucket: Bucket, as_of: SequenceNumber, size_bytes: u64) -> Self {
        Self { bucket, as_of, size_bytes, kept: Mutex::default() }
    }

    /// Names of the contexts that a query is about.
    ///
    /// # Errors
    /// If the snapshots can not be read.
    pub(crate) async fn list(&self, query: &str) -> Result<Vec<String>, Error> {
        let asked = query == NAMESPACE || query.starts_with(CHANGED_SINCE);
        if !asked {
            return Ok(Vec::new());
        }
        let (snapshots, _) = lsvd_volume::snapshots(&self.bucket).await?;
        let names = snapshots.iter().map(|snapshot| format!("{CHANGED_SINCE}{}", snapshot.name));
        Ok(names.filter(|name| query.ends_with(':') || query == name).collect())
    }

    /// The context of this name, if there is such a snapshot.
    ///
    /// # Errors
    /// If one of the two moments can not be reached, or the store can not.
    pub(crate) async fn open(&self, name: &str) -> Result<Option<Arc<dyn MetaContext>>, Error> {
        let Some(snapshot) = name.strip_prefix(CHANGED_SINCE) else { return Ok(None) };
        // Held meanwhile: connections that come together share one comparison.
        let mut kept = self.kept.lock().await;
        let (snapshots, _) = lsvd_volume::snapshots(&self.bucket).await?;
        let Some(found) = snapshots.iter().find(|found| found.name == snapshot) else { return Ok(None) };
        let known = kept.iter().find(|known| known.name == name && known.changes.from() == found.as_of);
        if let Some(known) = known {
            return Ok(Some(known.clone()));
        }
        let from = Moment::Snapshot(snapshot.to_owned());
        let changes = Changes::between(&self.bucket, &from, self.as_of, self.size_bytes).await?;
        let opened = Arc::new(Comparison { name: name.to_owned(), changes });
        kept.retain(|known| known.name != name);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(opened.clone());
        Ok(Some(opened))
    }
}

impl MetaContext for Comparison {
    fn name(&self) -> &str {
        &self.name
    }

    fn status(&self, offset_bytes: u64, length_bytes: u64) -> ContextStatus<'_> {
        Box::pin(async move {
            let told = self.changes.status(offset_bytes, length_bytes).await.map_err(refuse)?;
            let extent = |of: &lsvd_volume::ChangeStatus| ContextExtent {
                length_bytes: of.length_bytes,
                flags: if of.changed { CHANGED } else { 0 } | if of.zero { ZERO } else { 0 },
            };
            Ok(told.iter().map(extent).collect())
        })
    }
}

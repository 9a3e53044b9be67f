//! Resizing an open volume, while its clients go on.
//!
//! Knows the order of the steps, which makes every crash harmless; not who asks. A volume **grows** by a superblock version
//! first: what a client writes beyond the old end is never in a log whose volume ends before it. It **shrinks** in four steps:
//! 1. requests beyond the new end are refused from here on; those that were taken in before are in the engine's order;
//! 2. a trim of all beyond the new end takes its place behind them;
//! 3. it is in the store, journal or not, and so is all before it;
//! 4. a superblock version says the new size.
//!
//! So what lies beyond the end of a volume that says so is nothing, in the log and in every journal, and growing again shows
//! zeroes. A crash before 4 leaves the old size. Where it is not known whether the version of step 4 is stored, step 1 holds
//! until that is known: a write beyond might not be there at the next opening.

use std::sync::Arc;

use lsvd_engine::{Live, Request};
use lsvd_format::{BLOCK_BYTES, BlockIndex, Extent, ObjectFormat};

use crate::Error;
use crate::core::Core;
use crate::named::NamedState;
use crate::root::check_size;

/// What becomes of data beyond the new end of a volume that shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShrinkPolicy {
    /// The volume does not shrink while there is any.
    Refuse,
    /// It is discarded, and is gone whatever becomes of the rest.
    Discard,
}

/// What a resize did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resized {
    /// The size before, in bytes.
    pub before_bytes: u64,
    /// The size now, in bytes.
    pub size_bytes: u64,
}

/// Gives the volume another size. One at a time.
pub(crate) async fn resize(
    core: &Arc<Core>,
    named: &NamedState,
    size_bytes: u64,
    policy: ShrinkPolicy,
) -> Result<Resized, Error> {
    check_size(size_bytes)?;
    // A version of an earlier try may be stored: from here on what is stored is known.
    named.check_newest().await?;
    let before_bytes = core.size_bytes();
    let shrinking = match size_bytes < before_bytes {
        true => Some(clear(core, size_bytes, policy).await?),
        false => None,
    };
    if named.get().await.size_bytes != size_bytes {
        // From here on the version may be stored, whatever the answer is.
        if let Some(lowered) = shrinking {
            lowered.keep();
        }
        let since = core.engine(|engine| engine.first_incomplete());
        named.update(|superblock| *superblock = superblock.clone().with_size(size_bytes, since)).await?;
    } else if let Some(lowered) = shrinking {
        lowered.keep();
    }
    core.set_size_bytes(size_bytes);
    tracing::info!(volume = %core.store().label(), before_bytes, size_bytes, "resized");
    Ok(Resized { before_bytes, size_bytes })
}

/// Steps 1 to 3 of shrinking.
async fn clear(core: &Arc<Core>, size_bytes: u64, policy: ShrinkPolicy) -> Result<Lowered<'_>, Error> {
    let before_bytes = core.size_bytes();
    if core.store().append_format() == ObjectFormat::V1 {
        return Err(Error::Invalid(format!(
            "volume '{}' writes its log in format 1, which can not say that blocks were discarded: it can grow, but not shrink \
             from {before_bytes} to {size_bytes} bytes",
            core.store().label()
        )));
    }
    let beyond = Extent::new(size_bytes / BLOCK_BYTES, (before_bytes - size_bytes) / BLOCK_BYTES);
    // Armed before the size falls: nothing that fails or is given up leaves it low.
    let lowered = Lowered { core, before_bytes: Some(before_bytes) };
    match policy {
        ShrinkPolicy::Discard => core.set_size_bytes(size_bytes),
        ShrinkPolicy::Refuse => {
            refuse_live(core, size_bytes, live_beyond(core, beyond).await?)?;
            refuse_live(core, size_bytes, core.shrink_if_unused(beyond).await?)?;
        }
    }
    let length_bytes = before_bytes - size_bytes;
    core.discard(size_bytes, length_bytes).await?;
    core.request(Request::Drain).await?;
    Ok(lowered)
}

/// Counts what holds data, a few regions of the map in memory at once.
async fn live_beyond(core: &Arc<Core>, beyond: Extent) -> Result<Live, Error> {
    let (mut live, mut at) = (Live::default(), beyond.start);
    while at < beyond.end() {
        let rest = Extent::new(at.0, beyond.end().0 - at.0);
        let (some, until) = core.with_regions(|engine| engine.live_ahead(rest)).await?;
        if let Some(first) = some.first {
            live.add(first, some.blocks);
        }
        at = until;
    }
    Ok(live)
}

fn refuse_live(core: &Core, size_bytes: u64, live: Live) -> Result<(), Error> {
    let Some(BlockIndex(first)) = live.first else { return Ok(()) };
    let (live_bytes, first_bytes) = (live.blocks * BLOCK_BYTES, first * BLOCK_BYTES);
    Err(Error::HoldsData { volume: core.store().label(), size_bytes, live_bytes, first_bytes })
}

/// The size is lower than the superblock says: until that is to stay, whatever ends this raises it again.
struct Lowered<'a> {
    core: &'a Core,
    before_bytes: Option<u64>,
}

impl Lowered<'_> {
    fn keep(mut self) {
        self.before_bytes = None;
    }
}

impl Drop for Lowered<'_> {
    fn drop(&mut self) {
        if let Some(before_bytes) = self.before_bytes {
            self.core.set_size_bytes(before_bytes);
        }
    }
}

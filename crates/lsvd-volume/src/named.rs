//! The superblock of a volume that is open for writing: every later version is written here, one at a time.
//!
//! Knows how to put a version and to see that another writer has put a higher one (rule 9); not what a version says.
//! Invariant: what is held is the version with the highest number that this writer knows to be stored.

use std::sync::Arc;

use lsvd_format::superblock::Superblock;
use lsvd_format::{Epoch, SuperblockNumber};
use tokio::sync::Mutex;

use crate::store::{Put, VolumeStore};
use crate::takeover::{prune_superblocks, written_by};
use crate::{Environment, Error};

/// Old versions are pruned when this many were written since.
const PRUNE_EVERY: u32 = 16;

struct Newest {
    number: SuperblockNumber,
    superblock: Superblock,
    written: u32,
    /// A version was put under the next number, and whether it is stored is not known.
    unsettled: bool,
}

/// The superblock of an open volume; clones are the same one.
#[derive(Clone)]
pub(crate) struct NamedState {
    store: VolumeStore,
    environment: Environment,
    newest: Arc<Mutex<Newest>>,
}

impl NamedState {
    pub(crate) fn new(
        store: VolumeStore,
        environment: Environment,
        number: SuperblockNumber,
        superblock: Superblock,
    ) -> Self {
        let newest = Arc::new(Mutex::new(Newest { number, superblock, written: 0, unsettled: false }));
        Self { store, environment, newest }
    }

    /// The newest version.
    pub(crate) async fn get(&self) -> Superblock {
        self.newest.lock().await.superblock.clone()
    }

    /// The newest version's number.
    pub(crate) async fn number(&self) -> SuperblockNumber {
        self.newest.lock().await.number
    }

    /// Writes a next version that differs from the newest by `change`.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another writer has written it. After a store's error it may be stored or not: the next call
    /// finds out.
    pub(crate) async fn update(&self, mut change: impl FnMut(&mut Superblock)) -> Result<Superblock, Error> {
        self.try_update(|superblock| {
            change(superblock);
            Ok(())
        })
        .await
    }

    /// As [`NamedState::update`], with a change that may find that it can not be made to the version that it is given.
    ///
    /// # Errors
    /// The change's, with nothing written; otherwise as for [`NamedState::update`].
    pub(crate) async fn try_update(
        &self,
        change: impl FnMut(&mut Superblock) -> Result<(), Error>,
    ) -> Result<Superblock, Error> {
        self.write(&mut *self.newest.lock().await, change).await
    }

    async fn write(
        &self,
        newest: &mut Newest,
        mut change: impl FnMut(&mut Superblock) -> Result<(), Error>,
    ) -> Result<Superblock, Error> {
        loop {
            let number = newest.number.next();
            let mut next = newest.superblock.clone();
            next.written_unix_ms = (self.environment.now_unix_ms)();
            next.written_by = written_by();
            change(&mut next)?;
            newest.unsettled = true;
            let put = self.store.put_next_superblock(number, &next).await?;
            newest.unsettled = false;
            match put {
                Put::Mine => {
                    newest.number = number;
                    newest.superblock = next.clone();
                    newest.written += 1;
                    if newest.written.is_multiple_of(PRUNE_EVERY) {
                        prune_superblocks(&self.store, number).await?;
                    }
                    return Ok(next);
                }
                // An earlier try of mine whose answer was lost.
                Put::Theirs(stored) if stored.writer_id == next.writer_id && stored.epoch == next.epoch => {
                    newest.number = number;
                    newest.superblock = stored;
                }
                Put::Theirs(theirs) => {
                    return Err(Error::Fenced { volume: self.store.label(), epoch: Some(theirs.epoch) });
                }
            }
        }
    }

    /// Looks whether this writer is the newest still (rule 9), and knows what it has stored: a version whose outcome is open
    /// may name what would be deleted, so its number is settled first (rule 2).
    ///
    /// # Errors
    /// [`Error::Fenced`] if it is not, or the store's.
    pub(crate) async fn check_newest(&self) -> Result<(), Error> {
        let mut newest = self.newest.lock().await;
        if newest.unsettled {
            self.write(&mut newest, |_| Ok(())).await?;
        }
        let before = SuperblockNumber(newest.number.0 - 1);
        let Some(&highest) = self.store.superblock_numbers(Some(before)).await?.last() else {
            // Whoever is the newest loses its version only if the volume was removed, and no marker was left.
            return Err(Error::Fenced { volume: self.store.label(), epoch: None });
        };
        if highest == newest.number {
            return Ok(());
        }
        // It may be an earlier try of mine whose answer was lost.
        match self.store.read_superblock(highest).await? {
            Some(stored) if stored.writer_id == newest.superblock.writer_id => Ok(()),
            stored => {
                let epoch = stored.map_or(Epoch(highest.0), |stored| stored.epoch);
                Err(Error::Fenced { volume: self.store.label(), epoch: Some(epoch) })
            }
        }
    }
}

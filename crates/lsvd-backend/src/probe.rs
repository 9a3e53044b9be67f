//! What a store really does, whatever its documents say.
//!
//! Creates, races, lists, reads and removes a few objects of its own. Invariants: nothing that was there is touched
//! (names hold a nonce); what it made it removes, also when it fails, as far as the store lets it.

use futures::future::join_all;
use object_store::PutPayload;

use crate::bucket::{Bucket, Created};
use crate::error::{Error, Verb};

/// How often a PUT that met a conflict is made again.
const CONFLICT_TRIES: usize = 5;

/// How often a reading is made again that did not come back as expected.
const READ_TRIES: usize = 4;

/// How often another object is deleted when one did not go away.
const DELETE_TRIES: usize = 2;

/// Creators that race for one name.
const RACERS: usize = 4;

/// Races that are run. A store that lets two win does so now and then, not always.
const RACES: usize = 3;

/// What a probe has found. All of it holds on a store that a volume can trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeReport {
    /// A create-only PUT of a name that is taken is refused, and what is there stays.
    pub create_only: bool,
    /// Of several creators at once exactly one wins, and its bytes are there.
    pub create_only_under_race: bool,
    /// A LIST shows at once what was created and no more what was deleted, in order, and begins where it is told.
    pub list_after_write: bool,
    /// A ranged GET returns exactly its bytes, and a missing object is definitely not found.
    pub range_reads: bool,
    /// What was found wanting, for a person, one sentence each.
    pub details: Vec<String>,
}

impl ProbeReport {
    /// `Ok` if everything holds.
    ///
    /// # Errors
    /// What does not hold, in a sentence. Where [`ProbeReport::reads_hold`], a volume may still be used by a single
    /// writer whose owner vouches that there is no other.
    pub fn verdict(&self) -> Result<(), String> {
        let all = self.create_only && self.create_only_under_race && self.reads_hold();
        if all { Ok(()) } else { Err(self.details.join("; ")) }
    }

    /// Whether listing and reading can be relied on: without that no volume can be on this store.
    pub fn reads_hold(&self) -> bool {
        self.list_after_write && self.range_reads
    }

    fn find(&mut self, holds: bool, detail: impl FnOnce() -> String) -> bool {
        if !holds {
            self.details.push(detail());
        }
        holds
    }
}

impl Bucket {
    /// Finds out what the store does, with about thirty requests for small objects below `folder`.
    ///
    /// `nonce` makes the names unique: no two probes may share it.
    ///
    /// # Errors
    /// The store did not answer, or refused: nothing was found out. A store that answers wrongly is no error but a
    /// report that says so.
    pub async fn probe(&self, folder: &str, nonce: &str) -> Result<ProbeReport, Error> {
        let base = format!("{}/{nonce}", folder.trim_matches('/'));
        let probe = Probe { bucket: self, base, racers: RACERS, races: RACES };
        let result = probe.run().await;
        probe.clean_up().await;
        result
    }
}

impl Bucket {
    /// What time the store's clock shows, in milliseconds since 1970 and as coarse as its listings: that of an object
    /// that is made, listed and removed. `nonce` makes its name unique.
    ///
    /// # Errors
    /// As [`Bucket::create`] and [`Bucket::list`]; a listing that does not show what was just created is
    /// [`Error::Misconfigured`].
    pub async fn clock_unix_ms(&self, folder: &str, nonce: &str) -> Result<i64, Error> {
        let folder = format!("{}/{nonce}", folder.trim_matches('/'));
        let name = format!("{folder}/clock");
        self.create(&name, PutPayload::from_static(b"what time is it?")).await?;
        let listed = self.list(&folder, None).await;
        self.delete(&name).await?;
        let found = listed?.into_iter().find(|listed| listed.name == name);
        found.map(|listed| listed.last_modified_unix_ms).ok_or_else(|| Error::Misconfigured {
            at: self.site(Verb::List, &folder),
            detail: "the store does not list what was just created".to_owned(),
        })
    }
}

/// The questions themselves, each to be asked apart by who wants to know more than a volume has to.
pub(crate) struct Probe<'a> {
    pub(crate) bucket: &'a Bucket,
    /// Folder of the objects of this probe alone.
    pub(crate) base: String,
    pub(crate) racers: usize,
    pub(crate) races: usize,
}

impl Probe<'_> {
    fn plain(&self) -> String {
        format!("{}/a", self.base)
    }

    /// All names that it may create.
    pub(crate) fn names(&self) -> Vec<String> {
        let races = (0..self.races).map(|race| self.race(race));
        let others = (0..DELETE_TRIES).map(|nth| self.other(nth));
        races.chain([self.plain(), format!("{}/b", self.base)]).chain(others).collect()
    }

    fn race(&self, race: usize) -> String {
        format!("{}/race-{race}", self.base)
    }

    fn other(&self, nth: usize) -> String {
        format!("{}/c-{nth}", self.base)
    }

    async fn run(&self) -> Result<ProbeReport, Error> {
        let mut report = ProbeReport::default();
        report.create_only = self.create_only(&mut report).await?;
        report.create_only_under_race = report.create_only && self.races(&mut report).await?;
        report.range_reads = self.range_reads(&mut report).await?;
        report.list_after_write = self.lists(&mut report).await?;
        Ok(report)
    }

    /// The bytes that are stored, whole: as two readings in a row say, since one may have been damaged on the way, and
    /// nothing here can be verified otherwise.
    async fn stored(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let mut before = self.read_once(name).await?;
        for _ in 0..READ_TRIES {
            let again = self.read_once(name).await?;
            if again == before {
                break;
            }
            before = again;
        }
        Ok(before)
    }

    async fn read_once(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        // Whole and without a range, which not every store holds to.
        Ok(self.bucket.read_head(name, u64::MAX).await?.map(|head| head.bytes.to_vec()))
    }

    /// Whether a ranged GET gives what is expected; a damaged answer is asked for again.
    async fn range_is(&self, name: &str, expected: Option<&[u8]>) -> Result<bool, Error> {
        for _ in 0..READ_TRIES {
            match self.bucket.read_range(name, 1..5).await {
                Ok(read) if read.is_some() && read.as_deref() == expected => return Ok(true),
                Ok(_) | Err(Error::Corrupt { .. } | Error::Misconfigured { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Creates an object and gives what is stored then. "Exists" is this very PUT, retried after a lost answer; "exists"
    /// and then nothing there is a conflict (409), after which a PUT is made again (rule 2).
    async fn place(&self, name: &str, bytes: &'static [u8]) -> Result<Option<Vec<u8>>, Error> {
        for _ in 1..CONFLICT_TRIES {
            self.bucket.create(name, PutPayload::from_static(bytes)).await?;
            if let Some(stored) = self.stored(name).await? {
                return Ok(Some(stored));
            }
        }
        self.bucket.create(name, PutPayload::from_static(bytes)).await?;
        self.stored(name).await
    }

    pub(crate) async fn create_only(&self, report: &mut ProbeReport) -> Result<bool, Error> {
        let name = self.plain();
        let stored = self.place(&name, b"the first bytes").await?;
        if !report.find(stored.as_deref() == Some(b"the first bytes"), || {
            "an object that was just created does not read back".to_owned()
        }) {
            return Ok(false);
        }
        let again = self.bucket.create(&name, PutPayload::from_static(b"second")).await?;
        let kept = self.stored(&name).await?.as_deref() == Some(b"the first bytes");
        let holds = again == Created::Exists && kept;
        Ok(report.find(holds, || {
            let what = if kept { "is answered as done" } else { "overwrites" };
            format!("a create-only PUT (If-None-Match: *) of a name that is taken {what}")
        }))
    }

    pub(crate) async fn races(&self, report: &mut ProbeReport) -> Result<bool, Error> {
        for race in 0..self.races {
            let name = self.race(race);
            let mut tries = 1;
            let (winners, stored) = loop {
                let creators = (0..self.racers).map(|racer| {
                    let name = &name;
                    async move { self.bucket.create(name, racer_bytes(racer).into()).await }
                });
                let outcomes: Vec<Created> =
                    join_all(creators).await.into_iter().collect::<Result<_, _>>()?;
                let winners: Vec<usize> =
                    (0..self.racers).filter(|&racer| outcomes[racer] == Created::Done).collect();
                let stored = self.stored(&name).await?;
                // Everybody was told of a conflict and nobody created it: no race was run.
                if !winners.is_empty() || stored.is_some() || tries == CONFLICT_TRIES {
                    break (winners, stored);
                }
                tries += 1;
            };
            let holds = match winners[..] {
                [winner] => stored == Some(racer_bytes(winner)),
                // The winner's answer was lost and its retry found the object: any racer's bytes will do.
                [] => (0..self.racers).any(|racer| stored == Some(racer_bytes(racer))),
                _ => false,
            };
            if !report.find(holds, || match winners.len() {
                0 | 1 => "after a race of creators another's bytes are stored than the winner's".to_owned(),
                n => {
                    format!("{n} of {} creators of one name at once were all told that they won", self.racers)
                }
            }) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) async fn range_reads(&self, report: &mut ProbeReport) -> Result<bool, Error> {
        // Compared with what is there: on a store that overwrites that is the second object, which is no matter of reads.
        let whole = self.stored(&self.plain()).await?;
        let expected = whole.as_deref().and_then(|whole| whole.get(1..5));
        let read = self.range_is(&self.plain(), expected).await?;
        let exact = report.find(read, || "a ranged GET does not return exactly its bytes".to_owned());
        let missing = self.stored(&format!("{}/missing", self.base)).await?.is_none();
        Ok(report.find(missing, || "an object that never was is found".to_owned()) && exact)
    }

    pub(crate) async fn lists(&self, report: &mut ProbeReport) -> Result<bool, Error> {
        let names =
            |listed: Vec<crate::bucket::Listed>| listed.into_iter().map(|l| l.name).collect::<Vec<_>>();
        let second = format!("{}/b", self.base);
        self.place(&second, b"b").await?;
        let listed = names(self.bucket.list(&self.base, None).await?);
        let expected = |name: &String| *name == self.plain() || *name == second;
        let plain: Vec<String> = listed.into_iter().filter(expected).collect();
        let after = names(self.bucket.list(&self.base, Some(&self.plain())).await?);
        let begins = after.contains(&second) && !after.contains(&self.plain());
        let complete = report.find(plain == [self.plain(), second.clone()] && begins, || {
            "a LIST does not show what was just created, or not from where it was told".to_owned()
        });
        let mut gone = self.goes(&second).await?;
        for nth in 0..DELETE_TRIES {
            if gone {
                break;
            }
            // A create that failed may have landed behind the delete: another name tells whether it was that.
            let other = self.other(nth);
            self.place(&other, b"b").await?;
            gone = self.goes(&other).await?;
        }
        Ok(report.find(gone, || "an object that was just deleted is still there".to_owned()) && complete)
    }

    /// Deletes an object, and says whether it is gone.
    async fn goes(&self, name: &str) -> Result<bool, Error> {
        self.bucket.delete(name).await?;
        let listed = self.bucket.list(&self.base, None).await?;
        Ok(!listed.iter().any(|listed| listed.name == name) && self.stored(name).await?.is_none())
    }

    /// What stays behind does no harm: it is no part of any volume.
    async fn clean_up(&self) {
        let names = self.names();
        let removed = join_all(names.iter().map(|name| self.bucket.delete(name))).await;
        if let Some(error) = removed.into_iter().find_map(Result::err) {
            tracing::debug!(%error, verb = %Verb::Delete, folder = %self.base, "the probe left something behind");
        }
    }
}

fn racer_bytes(racer: usize) -> Vec<u8> {
    format!("bytes of racer {racer}").into_bytes()
}

//! The volume's objects in its bucket: superblock versions and log objects, put and read with their identities checked.
//!
//! The one place that resolves lost answers (rule 2): "already exists" is never believed, the stored object is read and
//! says whose it is. Knows no order of steps: take-over and uploads do. Learns what the log's objects are called from the
//! first superblock that it reads, and with which volumes a clone shares objects: neither ever changes, but that a clone may
//! need them no more.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use lsvd_backend::{Bucket, Created, PutPayload, Site, Verb};
use lsvd_format::log_object::Header;
use lsvd_format::superblock::{self, Parent, Superblock};
use lsvd_format::{
    AnyHeader, DecodeError, Epoch, LogLayout, ObjectFormat, SequenceNumber, SuperblockNumber, VolumeId,
    decode_any, names,
};
use tokio::time::Instant;

use crate::Error;

/// First read of a log object, in bytes: the header of a batch of 2,048 single blocks fits.
const HEADER_READ_BYTES: u64 = 40 << 10;
/// A superblock is small; what is larger is something else.
const SUPERBLOCK_BYTES_MAX: u64 = 16 << 20;

/// What fails verification is read this often: the damage may be the network's.
pub(crate) const VERIFY_TRIES: u32 = 3;

/// Wait before a PUT that is answered "exists" while nothing is there is made again: another creator may be under way.
const EXISTS_PAUSE_FIRST: Duration = Duration::from_millis(20);
const EXISTS_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The volume's own prefix of a bucket.
#[derive(Clone, Debug)]
pub(crate) struct VolumeStore {
    bucket: Bucket,
    label: Arc<str>,
    /// What the superblocks say of the log's layout, since one was read.
    layout: Arc<OnceLock<Option<LogLayout>>>,
    /// The volumes that this one is a clone of, since a superblock said so: ascending.
    parents: Arc<OnceLock<Vec<Home>>>,
}

/// Where a parent's objects are.
#[derive(Debug)]
struct Home {
    parent: Parent,
    store: OnceLock<VolumeStore>,
}

/// Whose object is stored under the number that was put.
#[derive(Clone, Debug)]
pub(crate) enum Put<T> {
    /// Mine: put now or before.
    Mine,
    /// Another's.
    Theirs(T),
}

/// A log object found by listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedLog {
    pub(crate) number: SequenceNumber,
    pub(crate) object_bytes: u64,
}

impl VolumeStore {
    pub(crate) fn new(bucket: Bucket) -> Self {
        let label = Arc::from(bucket.label());
        Self { bucket, label, layout: Arc::default(), parents: Arc::default() }
    }

    /// A volume to be, whose log has this layout.
    pub(crate) fn with_layout(self, layout: Option<LogLayout>) -> Self {
        Self { layout: Arc::new(OnceLock::from(layout)), ..self }
    }

    /// The layout of a log that may have objects of format 1; `None` if it may not, or no superblock was read yet.
    pub(crate) fn layout(&self) -> Option<&LogLayout> {
        self.layout.get()?.as_ref()
    }

    /// The format of new log objects.
    pub(crate) fn append_format(&self) -> ObjectFormat {
        self.layout().map_or(ObjectFormat::V2, |layout| layout.append_format)
    }

    /// The name of a log object.
    pub(crate) fn log_name(&self, number: SequenceNumber) -> String {
        self.layout().map_or_else(|| names::log_object(number), |layout| layout.name(number))
    }

    /// The number of a log object, if an object's name is one of the log's.
    pub(crate) fn log_number(&self, name: &str) -> Option<SequenceNumber> {
        match self.layout() {
            None => names::parse_log_object(name),
            Some(layout) => layout.parse(name),
        }
    }

    /// Whether an object's name is one of the log's.
    pub(crate) fn is_log_name(&self, name: &str) -> bool {
        self.log_number(name).is_some()
    }

    /// Where the log's objects lie.
    pub(crate) fn log_folder(&self) -> &str {
        self.layout().map_or(names::LOG_FOLDER, |layout| &layout.prefix)
    }

    /// Whose objects have this number, among which this volume's own are, and its parents' if it is a clone.
    fn home(&self, number: SequenceNumber) -> Option<&Home> {
        let parents = self.parents.get()?;
        parents.get(parents.partition_point(|home| home.parent.as_of < number))
    }

    /// The volume that an object or a part with this number belongs to: `own`, or a parent.
    pub(crate) fn volume_of(&self, number: SequenceNumber, own: VolumeId) -> VolumeId {
        self.home(number).map_or(own, |home| home.parent.volume_id)
    }

    /// Where the object or part with this number is: here, or with a parent.
    ///
    /// # Errors
    /// The store's, if a parent can not be reached.
    pub(crate) fn store_of(&self, number: SequenceNumber) -> Result<&VolumeStore, Error> {
        let Some(home) = self.home(number) else { return Ok(self) };
        if let Some(store) = home.store.get() {
            return Ok(store);
        }
        let store = self.beside(&home.parent.path)?.with_layout(home.parent.log_layout.clone());
        Ok(home.store.get_or_init(|| store))
    }

    /// Another volume in the same bucket, by its path from this one's prefix.
    ///
    /// # Errors
    /// The store's, if the path leads out of it.
    pub(crate) fn beside(&self, path: &str) -> Result<VolumeStore, Error> {
        let bucket = self.bucket.beside(path).map_err(|error| self.store_error(error))?;
        Ok(VolumeStore::new(bucket))
    }

    pub(crate) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    pub(crate) fn label(&self) -> Arc<str> {
        self.label.clone()
    }

    pub(crate) fn store_error(&self, source: lsvd_backend::Error) -> Error {
        match source {
            lsvd_backend::Error::Corrupt { at, detail } => self.corrupt(at.object, detail),
            source => Error::Store { volume: self.label(), source },
        }
    }

    pub(crate) fn corrupt(&self, object: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Corrupt { volume: self.label(), object: object.into(), reason: reason.into() }
    }

    fn decode_error(&self, object: String, error: DecodeError) -> Error {
        match error {
            DecodeError::Newer { what } => {
                Error::Newer { volume: self.label(), what: format!("{object}: {what}") }
            }
            other => self.corrupt(object, other.to_string()),
        }
    }

    /// Numbers of the superblock versions above `after`, ascending; all of them without it.
    pub(crate) async fn superblock_numbers(
        &self,
        after: Option<SuperblockNumber>,
    ) -> Result<Vec<SuperblockNumber>, Error> {
        let after = after.map(names::superblock);
        let listed = self.bucket.list(names::SUPERBLOCK_FOLDER, after.as_deref()).await;
        let listed = listed.map_err(|error| self.store_error(error))?;
        Ok(listed.iter().filter_map(|entry| names::parse_superblock(&entry.name)).collect())
    }

    /// Reads one superblock version; `None` if it is definitely not there.
    pub(crate) async fn read_superblock(
        &self,
        number: SuperblockNumber,
    ) -> Result<Option<Superblock>, Error> {
        let name = names::superblock(number);
        let head = self.bucket.read_head(&name, SUPERBLOCK_BYTES_MAX).await;
        let Some(head) = head.map_err(|error| self.store_error(error))? else { return Ok(None) };
        if head.object_bytes > SUPERBLOCK_BYTES_MAX {
            return Err(
                self.corrupt(name, format!("{} bytes are too many for a superblock", head.object_bytes))
            );
        }
        let superblock = superblock::decode(number, &head.bytes);
        let superblock = superblock.map_err(|error| self.decode_error(name.clone(), error))?;
        // A volume that comes after it may have any layout.
        if superblock.is_gone() {
            return Ok(Some(superblock));
        }
        if *self.layout.get_or_init(|| superblock.log_layout.clone()) != superblock.log_layout {
            return Err(self.corrupt(name, "it says something else of the log's layout than another version"));
        }
        if !superblock.parents.is_empty() {
            let home = |parent: &Parent| Home { parent: parent.clone(), store: OnceLock::new() };
            self.parents.get_or_init(|| superblock.parents.iter().map(home).collect());
        }
        Ok(Some(superblock))
    }

    /// Creates a superblock version.
    pub(crate) async fn put_superblock(
        &self,
        number: SuperblockNumber,
        superblock: &Superblock,
    ) -> Result<Put<Superblock>, Error> {
        let bytes = Bytes::from(superblock::encode(number, superblock));
        let mut conflict = Conflict::new(self, names::superblock(number));
        loop {
            let created =
                self.bucket.create(&names::superblock(number), PutPayload::from(bytes.clone())).await;
            match created.map_err(|error| self.store_error(error))? {
                Created::Done => return Ok(Put::Mine),
                Created::Exists => match self.read_superblock(number).await? {
                    Some(stored) if stored == *superblock => return Ok(Put::Mine),
                    Some(stored) => return Ok(Put::Theirs(stored)),
                    None => conflict.again().await?,
                },
            }
        }
    }

    /// Creates the version behind one's own. Its number may have been used by a newer writer and pruned since: then what
    /// was put counts for nothing, and the highest version is another's.
    pub(crate) async fn put_next_superblock(
        &self,
        number: SuperblockNumber,
        superblock: &Superblock,
    ) -> Result<Put<Superblock>, Error> {
        let put = self.put_superblock(number, superblock).await?;
        let Some(&highest) = self.superblock_numbers(Some(number)).await?.last() else { return Ok(put) };
        match self.read_superblock(highest).await? {
            Some(highest) => Ok(Put::Theirs(highest)),
            // Pruned since the listing: there is a higher one still.
            None => Err(Error::Fenced { volume: self.label(), epoch: Some(Epoch(highest.0)) }),
        }
    }

    /// Lists the log above `after` (all of it without), ascending.
    pub(crate) async fn list_log(&self, after: Option<SequenceNumber>) -> Result<Vec<ListedLog>, Error> {
        // Names of format 2 have the order of their numbers, and a listing of many begins in their midst.
        let after_name = after.filter(|_| self.layout().is_none()).map(names::log_object);
        let listed = self.bucket.list(self.log_folder(), after_name.as_deref()).await;
        let listed = listed.map_err(|error| self.store_error(error))?;
        let parse = |entry: &lsvd_backend::Listed| {
            let number = match self.layout() {
                None => names::parse_log_object(&entry.name),
                Some(layout) => layout.parse(&entry.name),
            };
            Some(ListedLog { number: number?, object_bytes: entry.object_bytes })
        };
        let mut log: Vec<ListedLog> = listed.iter().filter_map(parse).collect();
        if self.layout().is_some() {
            log.retain(|entry| after.is_none_or(|after| entry.number > after));
            log.sort_unstable_by_key(|entry| entry.number);
        }
        Ok(log)
    }

    /// Reads a log object's header, and checks the object's length and number against it; `None` if it is definitely
    /// not there.
    pub(crate) async fn read_log_header(&self, number: SequenceNumber) -> Result<Option<AnyHeader>, Error> {
        for _ in 1..VERIFY_TRIES {
            match self.read_log_header_once(number).await {
                Err(error @ Error::Corrupt { .. }) => tracing::warn!("{error}; it is read again"),
                other => return other,
            }
        }
        self.read_log_header_once(number).await
    }

    async fn read_log_header_once(&self, number: SequenceNumber) -> Result<Option<AnyHeader>, Error> {
        let name = self.log_name(number);
        let mut read_bytes = HEADER_READ_BYTES;
        let (header, object_bytes) = loop {
            let head = self.bucket.read_head(&name, read_bytes).await;
            let Some(head) = head.map_err(|error| self.store_error(error))? else { return Ok(None) };
            let header = match self.layout() {
                // Twelve KiB of zeroes are a sound object of format 1: only where that format may be.
                None => Header::decode(&head.bytes).map(AnyHeader::V2),
                Some(_) => decode_any(&head.bytes),
            };
            match header {
                Ok(header) => break (header, head.object_bytes),
                Err(DecodeError::Short { need_bytes, .. })
                    if need_bytes > read_bytes && need_bytes <= head.object_bytes =>
                {
                    read_bytes = need_bytes;
                }
                Err(error) => return Err(self.decode_error(name, error)),
            }
        };
        if header.object_bytes() != object_bytes {
            let reason =
                format!("it has {object_bytes} bytes where its header says {}", header.object_bytes());
            return Err(self.corrupt(name, reason));
        }
        match &header {
            AnyHeader::V2(header) if header.identity.number != number => {
                let said = header.identity.number;
                Err(self.corrupt(name, format!("its header says that it is number {said}")))
            }
            _ => Ok(Some(header)),
        }
    }

    /// Creates a log object from its header and all of its encoded bytes.
    pub(crate) async fn put_log_object(
        &self,
        number: SequenceNumber,
        header: &AnyHeader,
        object: PutPayload,
    ) -> Result<Put<AnyHeader>, Error> {
        let name = self.log_name(number);
        let mut conflict = Conflict::new(self, name.clone());
        loop {
            let created = self.bucket.create(&name, object.clone()).await;
            match created.map_err(|error| self.store_error(error))? {
                Created::Done => return Ok(Put::Mine),
                // Format 1 has no identity: only the same bytes are mine.
                Created::Exists if matches!(header, AnyHeader::V1(_)) => {
                    match self.read_whole(&name).await? {
                        Some(stored) if is_payload(&stored, &object) => return Ok(Put::Mine),
                        // It may be gone again before its header is read: then it was nobody's.
                        Some(_) => match self.read_log_header(number).await? {
                            Some(stored) => return Ok(Put::Theirs(stored)),
                            None => conflict.again().await?,
                        },
                        None => conflict.again().await?,
                    }
                }
                Created::Exists => match (self.read_log_header(number).await?, header) {
                    (Some(AnyHeader::V2(stored)), AnyHeader::V2(mine))
                        if stored.identity == mine.identity =>
                    {
                        return Ok(Put::Mine);
                    }
                    (Some(stored), _) => return Ok(Put::Theirs(stored)),
                    (None, _) => conflict.again().await?,
                },
            }
        }
    }

    /// Moves a log object into the archive (rule 3). It may be damaged and is kept all the same, so nothing in it can
    /// be checked: it is read twice, and its copy is read back, before it is deleted.
    ///
    /// Gives whether it was still there.
    pub(crate) async fn archive_log_object(&self, number: SequenceNumber, copy: &str) -> Result<bool, Error> {
        let name = self.log_name(number);
        let (first, second) = (self.read_whole(&name).await?, self.read_whole(&name).await?);
        let (Some(object), Some(again)) = (first, second) else { return Ok(false) };
        if object != again {
            return Err(self.corrupt(name, "read twice, it came back different: it was not moved"));
        }
        let mut conflict = Conflict::new(self, copy.to_owned());
        loop {
            let payload = PutPayload::from(object.clone());
            let created = self.bucket.create(copy, payload).await;
            created.map_err(|error| self.store_error(error))?;
            // Whether it was created now, or before by a try whose answer was lost: what counts is what is there.
            match self.read_whole(copy).await? {
                Some(stored) if stored == object => break,
                Some(_) => return Err(self.corrupt(copy, "it is not the copy that was put there")),
                None => conflict.again().await?,
            }
        }
        self.bucket.delete(&name).await.map_err(|error| self.store_error(error))?;
        Ok(true)
    }

    async fn read_whole(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let read = self.bucket.read_head(name, u64::MAX).await;
        Ok(read.map_err(|error| self.store_error(error))?.map(|head| head.bytes))
    }

    /// Deletes a superblock version.
    pub(crate) async fn delete_superblock(&self, number: SuperblockNumber) -> Result<(), Error> {
        let deleted = self.bucket.delete(&names::superblock(number)).await;
        deleted.map_err(|error| self.store_error(error))
    }
}

/// Whether these are the bytes that were put.
fn is_payload(stored: &[u8], object: &PutPayload) -> bool {
    let mut rest = stored;
    let same = object.iter().all(|piece| {
        let (begins, after) = rest.split_at(piece.len().min(rest.len()));
        rest = after;
        begins == &piece[..]
    });
    same && rest.is_empty()
}

/// A create that is answered "exists" while nothing is there (a 409): it is made again, but neither without pause nor
/// for ever (rules 2 and 10).
struct Conflict<'a> {
    store: &'a VolumeStore,
    name: String,
    since: Instant,
    pause: Duration,
}

impl<'a> Conflict<'a> {
    fn new(store: &'a VolumeStore, name: String) -> Self {
        Self { store, name, since: Instant::now(), pause: EXISTS_PAUSE_FIRST }
    }

    /// Pauses before the next try.
    async fn again(&mut self) -> Result<(), Error> {
        if self.since.elapsed() >= self.store.bucket.retry().total_limit {
            let store = self.store.bucket.label().into();
            let at = Site { store, verb: Verb::Put, object: self.name.clone() };
            let detail = "the store says that it exists, and then that it is not there".to_owned();
            return Err(self.store.store_error(lsvd_backend::Error::Unavailable { at, detail }));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(EXISTS_PAUSE_MAX);
        Ok(())
    }
}

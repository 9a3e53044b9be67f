//! The journal of an open volume: where it is, what of it is replayed at an opening, and who does its work ([`worker`]).
//!
//! Knows records and files; not which journal may be replayed, which `acceptance` and `handover` decide.

mod worker;

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lsvd_engine::{Content, Event};
use lsvd_format::journal::{RecordHeader, RecordKind};
use lsvd_format::{BLOCK_BYTES, Extent};
use lsvd_local::{Directory, Files, JournalError, JournalWriter, Limits, Replaying};

pub(crate) use self::worker::{JournalQueue, start};
use crate::Error;
use crate::core::Core;
use crate::handover;

/// The files behind a journal, whatever they are.
pub(crate) type AnyFiles = Box<dyn Files + Send>;
pub(crate) type Writer = JournalWriter<AnyFiles>;

/// Records are read from the disk in runs of about this many bytes when a journal is replayed.
const REPLAY_RUN_BYTES: u64 = 4 << 20;

/// Where a volume's journal is, and its ceilings.
#[derive(Clone)]
pub struct JournalOptions {
    open: OpenFiles,
    place: Arc<str>,
    /// Bytes that the journal takes of its disk at most. 8 GiB by default; when they are used up, flushes wait for the
    /// store as if there was no journal.
    pub bytes_max: u64,
    pub(crate) segment_bytes: u64,
    pause: Option<Pause>,
}

type OpenFiles = Arc<dyn Fn() -> io::Result<AnyFiles> + Send + Sync>;
type Pause = Arc<dyn Fn() -> Duration + Send + Sync>;

impl JournalOptions {
    /// A journal in a directory, which is made if it is not there. One journal to a directory.
    pub fn directory(path: &Path) -> Self {
        Self::opened(path, Directory::open)
    }

    /// One that outlives this process, and not this host.
    pub(crate) fn unsynced_directory(path: &Path) -> Self {
        Self::opened(path, Directory::open_unsynced)
    }

    fn opened(path: &Path, open: impl Fn(&Path) -> io::Result<Directory> + Send + Sync + 'static) -> Self {
        let directory = path.to_owned();
        let open = move || open(&directory).map(|files| Box::new(files) as AnyFiles);
        Self::at(path.display().to_string().into(), Arc::new(open), None)
    }

    fn at(place: Arc<str>, open: OpenFiles, pause: Option<Pause>) -> Self {
        let Limits { segment_bytes, bytes_max } = Limits::default();
        Self { open, place, bytes_max, segment_bytes, pause }
    }

    /// A journal on a simulated disk: no thread of its own, a task that pauses before each step instead.
    pub fn simulated(
        open: impl Fn() -> io::Result<Box<dyn Files + Send>> + Send + Sync + 'static,
        pause: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self::at("a simulated disk".into(), Arc::new(open), Some(Arc::new(pause)))
    }

    pub(crate) fn open(&self) -> io::Result<AnyFiles> {
        (self.open)()
    }

    /// Whether its disk's work is done where it holds nobody up.
    pub(crate) fn has_own_thread(&self) -> bool {
        self.pause.is_none()
    }

    /// Names this start of its host; `None` where nobody can.
    pub(crate) fn boot(&self) -> Option<String> {
        if self.pause.is_some() { None } else { handover::boot_id().ok() }
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn limits(&self) -> Limits {
        // Half of it at most, so that there is something to remove before it is full.
        let segment_bytes = self.segment_bytes.min(self.bytes_max / 2);
        Limits { segment_bytes, bytes_max: self.bytes_max }
    }
}

impl fmt::Debug for JournalOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalOptions").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Hands the journal's records to the engine, as fast as the ceiling of its memory allows. Gives the writer and how many
/// records there were.
pub(crate) async fn replay(
    core: &Arc<Core>,
    options: &JournalOptions,
    mut replaying: Replaying<AnyFiles>,
    buffer_bytes_max: u64,
) -> Result<(Writer, u64), Error> {
    const LOOK_EVERY: Duration = Duration::from_millis(2);
    let own_thread = options.has_own_thread();
    let failed = |error| Error::journal(core.store().label(), error);
    let mut records = 0;
    loop {
        let run = blocking(own_thread, move || {
            let run = read_run(&mut replaying);
            (replaying, run)
        });
        let (back, run) = run.await;
        replaying = back;
        let run = run.map_err(failed)?;
        if run.is_empty() {
            break;
        }
        for (header, data) in run {
            let (extent, content) = content_of(core, &header, data)?;
            // What is uploaded by now makes room; a single record is always let in.
            loop {
                core.check_ended()?;
                let buffered_bytes = core.stats().buffered_bytes;
                if buffered_bytes == 0 || buffered_bytes + header.payload_bytes() <= buffer_bytes_max {
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            records += 1;
            core.event(Event::Replayed { record: header.record, extent, content });
        }
    }
    let limits = options.limits();
    let writer = blocking(own_thread, move || replaying.finish(limits)).await.map_err(failed)?;
    Ok((writer, records))
}

type Run = Vec<(RecordHeader, Vec<u8>)>;

fn read_run(replaying: &mut Replaying<AnyFiles>) -> Result<Run, JournalError> {
    let (mut run, mut run_bytes) = (Vec::new(), 0);
    while run_bytes < REPLAY_RUN_BYTES {
        let Some((header, data)) = replaying.record()? else { break };
        run_bytes += header.payload_bytes() + 1;
        run.push((header, data));
    }
    Ok(run)
}

fn content_of(core: &Core, header: &RecordHeader, data: Vec<u8>) -> Result<(Extent, Content), Error> {
    let (start, length) = (header.start_bytes, header.length_bytes);
    let fits = start.checked_add(length).is_some_and(|end| end <= core.size_bytes());
    if !fits || start % BLOCK_BYTES != 0 || length % BLOCK_BYTES != 0 {
        let reason = format!(
            "record {} covers {length} bytes at byte {start}, which are no whole blocks of this volume",
            header.record
        );
        let damaged = JournalError::Damaged { file: "its records".to_owned(), offset: 0, reason };
        return Err(Error::journal(core.store().label(), damaged));
    }
    let content = match header.kind {
        RecordKind::Data => Content::Data(data.into()),
        RecordKind::Zero => Content::Zero,
        RecordKind::Trim => Content::Trim,
    };
    Ok((Extent::new(start / BLOCK_BYTES, length / BLOCK_BYTES), content))
}

/// Runs what waits for a disk where it holds nobody up; in a simulation at once.
pub(crate) async fn blocking<T: Send + 'static>(
    own_thread: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if !own_thread {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Opens a journal's directory, waiting a moment for a process that is about to let go of it.
pub(crate) async fn open_files(options: &JournalOptions) -> Result<AnyFiles, JournalError> {
    const TRIES: u32 = 40;
    const PAUSE: Duration = Duration::from_millis(50);
    for _ in 1..TRIES {
        match options.open() {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => tokio::time::sleep(PAUSE).await,
            other => return other.map_err(|error| opening(options, error)),
        }
    }
    options.open().map_err(|error| opening(options, error))
}

fn opening(options: &JournalOptions, source: io::Error) -> JournalError {
    if source.kind() == ErrorKind::ResourceBusy {
        return JournalError::InUse;
    }
    JournalError::Io { what: "open", file: options.place.to_string(), source }
}

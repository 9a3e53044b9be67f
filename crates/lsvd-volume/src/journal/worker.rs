//! The journal's hands: a thread that writes records, syncs once for all who wait, and lets go of what the log contains.
//!
//! The engine says what and in which order, under its lock; the queue here keeps that order. Knows no order of writes. Small
//! records are written by who asks for them, as long as that is quick: it costs less than to wake the thread and to be woken.
//! Invariants: 1. a record that the log contains is dropped from the queue, so that a slow disk holds no memory for long;
//! 2. nobody is answered by a journal that failed: if flushes mean it, its failure ends the volume; otherwise it is given up, and
//! writes are answered by uploads.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use lsvd_engine::{Content, Event};
use lsvd_format::journal::RecordKind;
use lsvd_format::{BLOCK_BYTES, Epoch, Extent, WriterId};
use lsvd_local::{JournalError, JournalWriter, Written};
use tokio::sync::Notify;

use super::{JournalOptions, Pause, Writer};
use crate::Error;
use crate::core::Core;

/// Records that are written before their writes are answered, while more are at hand.
const TOLD_AT_ONCE: u64 = 16;

/// Who asks for a write does no more than this of the journal's work, in steps and in bytes of a record.
const OWN_STEPS: usize = 4;
const OWN_RECORD_LEN: usize = 32 << 10;
/// A write that took longer was held up by its disk: the thread has the next ones, for so long.
const QUICK: Duration = Duration::from_millis(1);
const THREAD_ALONE_FOR: Duration = Duration::from_millis(100);

struct Record {
    record: u64,
    extent: Extent,
    content: Content,
}

#[derive(Default)]
struct Queued {
    records: VecDeque<Record>,
    /// Somebody waits for this record.
    sync: u64,
    /// The log contains all up to this one.
    released: u64,
    ended: bool,
    /// Something was asked for since somebody looked.
    news: bool,
    /// A writer that is let go is kept here for who closes the volume.
    keep: bool,
    kept: Option<Writer>,
    gone: bool,
}

/// What the engine asked for and is not done, in order.
#[derive(Default)]
pub(crate) struct JournalQueue {
    state: Mutex<Queued>,
    /// For a thread that waits.
    changed: Condvar,
    /// For a task that waits.
    notify: Notify,
    /// Who does it, where that is a thread.
    worker: Mutex<Option<Worker>>,
}

impl JournalQueue {
    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.state.lock().expect("nothing panics under this lock")
    }

    fn ask(&self, ask: impl FnOnce(&mut Queued)) {
        let mut queued = self.lock();
        ask(&mut queued);
        queued.news = true;
    }

    fn change(&self, change: impl FnOnce(&mut Queued)) {
        change(&mut self.lock());
        self.wake();
    }

    fn wake(&self) {
        self.lock().news = true;
        self.changed.notify_all();
        self.notify.notify_one();
    }

    /// Has done what was asked for since: at once, where that is quick, or soon.
    pub(crate) fn hand_in(&self) {
        if !self.lock().news {
            return;
        }
        if let Ok(mut worker) = self.worker.try_lock()
            && let Some(worker) = worker.as_mut()
            && worker.is_quick()
        {
            // All of it is done here, or the thread is woken.
            self.lock().news = false;
            for _ in 0..OWN_STEPS {
                let work = {
                    let mut queued = self.lock();
                    match worker.next_quick(&mut queued) {
                        Some(Work::Wait) => return,
                        Some(work) => work,
                        None => break,
                    }
                };
                if !worker.work(work) {
                    break;
                }
            }
        }
        self.wake();
    }

    pub(crate) fn write(&self, record: u64, extent: Extent, content: Content) {
        self.ask(|queued| queued.records.push_back(Record { record, extent, content }));
    }

    pub(crate) fn sync(&self, record: u64) {
        self.ask(|queued| queued.sync = queued.sync.max(record));
    }

    pub(crate) fn release(&self, record: u64) {
        self.ask(|queued| {
            queued.released = queued.released.max(record);
            while queued.records.front().is_some_and(|first| first.record <= record) {
                queued.records.pop_front();
            }
        });
    }

    /// Nothing more is done.
    pub(crate) fn end(&self) {
        self.change(|queued| queued.ended = true);
    }

    /// The writer is to be kept when the work ends: for [`JournalQueue::take_writer`].
    pub(crate) fn keep_writer(&self) {
        self.change(|queued| queued.keep = true);
    }

    /// The writer of a journal whose work has ended: `None` until then.
    pub(crate) fn take_writer(&self) -> Option<Writer> {
        self.lock().kept.take()
    }

    /// Whether the work has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.lock().gone
    }
}

/// What is to be done next.
enum Work {
    Release(u64),
    Write(Record),
    /// All up to this one are written: say so.
    Tell(u64),
    Sync,
    Wait,
    End,
}

/// Who does it.
struct Worker {
    core: Arc<Core>,
    queue: Arc<JournalQueue>,
    /// Taken only when it is dropped.
    writer: Option<Writer>,
    identity: (Epoch, WriterId),
    synced: u64,
    released: u64,
    /// The last record that was said to be written.
    told: u64,
    /// There is no room until something is released.
    full: bool,
    /// When its disk last held somebody up.
    slow_at: Option<Instant>,
    /// Flushes mean this journal.
    answers_flushes: bool,
    /// It failed, and nothing that was flushed needs it: it takes no more.
    given_up: bool,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let writer = self.writer.take();
        self.queue.change(|queued| {
            queued.gone = true;
            queued.kept = writer.filter(|_| queued.keep);
        });
    }
}

impl Worker {
    /// Whether its disk takes what is written without delay.
    fn is_quick(&self) -> bool {
        self.slow_at.is_none_or(|at| at.elapsed() >= THREAD_ALONE_FOR)
    }

    /// What is to be done next, if it is no matter for the thread: a small record, or to say that it is written.
    fn next_quick(&self, queued: &mut Queued) -> Option<Work> {
        let data_len = |first: &Record| match &first.content {
            Content::Data(bytes) => bytes.len(),
            Content::Zero | Content::Trim => 0,
        };
        if let Some(len) = queued.records.front().map(data_len) {
            // Segments are begun, synced and removed by the thread.
            let has_room = self.writer.as_ref().is_some_and(|writer| writer.has_room(len as u64));
            if len > OWN_RECORD_LEN || !has_room {
                return None;
            }
        }
        Some(self.next(queued)).filter(|work| matches!(work, Work::Write(_) | Work::Tell(_) | Work::Wait))
    }

    fn next(&self, queued: &mut Queued) -> Work {
        let written = self.writer.as_ref().map_or(0, JournalWriter::last);
        if queued.ended {
            return Work::End;
        }
        if self.given_up {
            // Records go when the log contains them, and who waits for one is answered then.
            return Work::Wait;
        }
        if queued.released > self.released {
            return Work::Release(queued.released);
        }
        // Once for all that wait by now; who comes while it runs shares the next one.
        if queued.sync > self.synced.max(queued.released) && written >= queued.sync {
            return Work::Sync;
        }
        // For several at once, as each time takes the engine's lock.
        if written > self.told
            && (queued.records.is_empty() || self.full || written >= self.told + TOLD_AT_ONCE)
        {
            return Work::Tell(written);
        }
        match queued.records.pop_front() {
            Some(record) if self.full => {
                queued.records.push_front(record);
                Work::Wait
            }
            Some(record) => Work::Write(record),
            None => Work::Wait,
        }
    }

    /// Does one thing; `false` when there is nothing more to do.
    fn work(&mut self, work: Work) -> bool {
        let Some(writer) = &mut self.writer else { return false };
        let failed = match work {
            Work::End => return false,
            Work::Wait => return true,
            Work::Release(record) => {
                (self.released, self.full) = (record, false);
                if let Err(error) = writer.release(record) {
                    // The next opening removes it.
                    tracing::warn!(volume = %self.core.store().label(), "{error}");
                }
                return true;
            }
            Work::Tell(record) => {
                self.told = record;
                self.core.event(Event::JournalWritten { record });
                return true;
            }
            Work::Sync => match writer.sync() {
                Ok(record) => {
                    (self.synced, self.told) = (record, record);
                    self.core.event(Event::JournalSynced { record });
                    return true;
                }
                Err(error) => error,
            },
            Work::Write(Record { record, extent, content }) => {
                let range = (extent.start.0 * BLOCK_BYTES, extent.count.0 * BLOCK_BYTES);
                let (kind, data) = match &content {
                    Content::Data(bytes) => (RecordKind::Data, &bytes[..]),
                    Content::Zero => (RecordKind::Zero, &[][..]),
                    Content::Trim => (RecordKind::Trim, &[][..]),
                };
                let began = Instant::now();
                let written = writer.write(record, self.identity, kind, range, data);
                if began.elapsed() > QUICK {
                    self.slow_at = Some(Instant::now());
                }
                match written {
                    Ok(Written::Done) => return true,
                    Ok(Written::Full) => {
                        self.full = true;
                        self.told = writer.last();
                        // Before it is said that there is no room, which a later one would take back.
                        self.core.event(Event::JournalWritten { record: self.told });
                        self.queue.change(|queued| {
                            // Unless the log contains it since.
                            if record > queued.released {
                                queued.records.push_front(Record { record, extent, content });
                            }
                        });
                        let held_bytes = writer.bytes();
                        tracing::warn!(
                            volume = %self.core.store().label(),
                            held_bytes,
                            "the journal is full: what waits for it waits for the store"
                        );
                        self.core.event(Event::JournalFull);
                        return true;
                    }
                    Err(error) => error,
                }
            }
        };
        self.failed(failed)
    }

    /// A journal that flushes mean ends the volume when it fails. Another one is given up: writes are answered by uploads then.
    fn failed(&mut self, error: JournalError) -> bool {
        if self.answers_flushes {
            self.core.end(Error::journal(self.core.store().label(), error));
            return false;
        }
        tracing::warn!(
            volume = %self.core.store().label(),
            "{error}: from now on writes wait for the store, so that nothing that was answered is lost if this process is killed"
        );
        self.given_up = true;
        self.core.event(Event::JournalFull);
        true
    }

    /// Its records are nobody's any more: another writer has the volume.
    fn is_left(&self) -> bool {
        !self.answers_flushes && matches!(self.core.check_ended(), Err(Error::Fenced { .. }))
    }

    /// For a simulation.
    async fn run_as_task(mut self, pause: Pause) {
        let queue = self.queue.clone();
        loop {
            let work = self.next(&mut queue.lock());
            if matches!(work, Work::Wait) {
                queue.notify.notified().await;
                continue;
            }
            tokio::time::sleep(pause()).await;
            if !self.work(work) {
                return;
            }
        }
    }
}

/// For a thread of its own: does what the queue's worker has to do, until there is nothing more.
fn run(queue: &JournalQueue) {
    loop {
        // Nobody who has it holds it for long, and nobody panics with it.
        let mut at_work = queue.worker.lock().expect("nothing panics under this lock");
        let Some(worker) = at_work.as_mut() else { return };
        let work = {
            let mut queued = queue.lock();
            let work = worker.next(&mut queued);
            if matches!(work, Work::Wait) {
                queued.news = false;
                drop(at_work);
                while !queued.news {
                    queued = queue.changed.wait(queued).expect("as for the lock");
                }
                continue;
            }
            work
        };
        if !worker.work(work) {
            let worker = at_work.take();
            // It lets go of the core, which may be the last one to hold this queue.
            drop(at_work);
            if let Some(mut worker) = worker
                && worker.is_left()
                && let Some(Err(error)) = worker.writer.take().map(JournalWriter::finish)
            {
                tracing::warn!(volume = %worker.core.store().label(), "{error}");
            }
            return;
        }
    }
}

/// Starts the work.
///
/// # Errors
/// If no thread can be had.
pub(crate) fn start(
    core: &Arc<Core>,
    options: &JournalOptions,
    writer: Writer,
    contained: u64,
    identity: (Epoch, WriterId),
) -> Result<(), Error> {
    let Some(queue) = core.journal() else { return Ok(()) };
    let synced = writer.last();
    let worker = Worker {
        core: core.clone(),
        queue: queue.clone(),
        writer: Some(writer),
        identity,
        synced,
        told: synced,
        released: contained,
        full: false,
        slow_at: None,
        answers_flushes: core.answers_flushes(),
        given_up: false,
    };
    match options.pause.clone() {
        Some(pause) => core.spawn(worker.run_as_task(pause)),
        None => {
            let queue = queue.clone();
            *queue.worker.lock().expect("nothing panics under this lock") = Some(worker);
            let thread = std::thread::Builder::new().name("lsvd-journal".to_owned());
            thread.spawn(move || run(&queue)).map_err(|source| {
                let failed = JournalError::Io {
                    what: "start the thread of",
                    file: options.place().to_owned(),
                    source,
                };
                Error::journal(core.store().label(), failed)
            })?;
        }
    }
    Ok(())
}

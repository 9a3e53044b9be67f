//! Whether a store is there at all, so that requests that met its silence do not wait out their time when it is back.
//!
//! A request that was swallowed by an outage is never answered: a minute's worth of them would keep everybody waiting
//! after the store's return. So while nothing is answered one small question at a time is asked beside them; when one
//! was lost and a later request is answered, whatever began before that one and did not move since is given up, to be
//! made again. Knows requests as futures, and not what they ask. Invariants: no question is asked while anything is
//! answered; nothing is given up unless a question was lost; a request whose bytes still move is never given up; each time an
//! operation was given up it must have been silent twice as long for the next one.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// Nothing was answered for this long: a question is asked. Stores answer within a second or two, even under load.
const SILENCE: Duration = Duration::from_secs(5);

/// A question without an answer for this long was lost.
const QUESTION_LIMIT: Duration = Duration::from_secs(3);

/// The pause after a lost question: with the limit, how much later than its return a store is noticed at most.
const QUESTION_PAUSE: Duration = Duration::from_millis(500);

/// One store's.
#[derive(Debug)]
pub(crate) struct Pulse {
    state: Mutex<State>,
    /// When a request began that was answered after a question had been lost.
    back: watch::Sender<Option<Instant>>,
}

#[derive(Debug, Default)]
struct State {
    /// The last answer, of whatever kind, and until one: when it was first asked.
    answered: Option<Instant>,
    asking: bool,
    /// When the last question was given up, if nothing that began later has been answered.
    lost: Option<Instant>,
}

impl Default for Pulse {
    fn default() -> Self {
        Pulse { state: Mutex::default(), back: watch::Sender::new(None) }
    }
}

impl Pulse {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a question was lost and nothing was answered since: a timeout then says nothing of how much is asked.
    pub(crate) fn is_silent(&self) -> bool {
        self.lock().lost.is_some()
    }

    /// A request that began then was answered, by a refusal or a broken connection too.
    fn answered(&self, begun: Instant) {
        let mut state = self.lock();
        state.answered = Some(Instant::now());
        if state.lost.is_some_and(|lost| begun >= lost) {
            state.lost = None;
            drop(state);
            tracing::info!("the store answers again");
            self.back.send_replace(Some(begun));
        }
    }

    fn begun(&self) {
        self.lock().answered.get_or_insert_with(Instant::now);
    }

    /// When it is time to ask.
    fn due(&self) -> Instant {
        let state = self.lock();
        let silent_from = state.answered.unwrap_or_else(Instant::now);
        let next = state.lost.map(|lost| lost + QUESTION_PAUSE);
        next.unwrap_or(silent_from + SILENCE)
    }

    /// The right to ask; only one has it at a time.
    fn claim(&self) -> Option<Asking<'_>> {
        let due = self.due();
        let mut state = self.lock();
        if state.asking || Instant::now() < due {
            return None;
        }
        state.asking = true;
        Some(Asking(self))
    }

    fn lost(&self) {
        let first = self.lock().lost.replace(Instant::now()).is_none();
        if first {
            let seconds = (SILENCE + QUESTION_LIMIT).as_secs();
            tracing::warn!("the store has answered nothing for {seconds} s");
        }
    }
}

/// Given back when dropped, also when who asked goes away.
struct Asking<'a>(&'a Pulse);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.lock().asking = false;
    }
}

/// When a request last showed that it is under way.
#[derive(Debug)]
pub(crate) struct Signs {
    begun: Instant,
    moved_ms: AtomicU64,
}

impl Signs {
    fn new() -> Self {
        Signs { begun: Instant::now(), moved_ms: AtomicU64::new(0) }
    }

    /// Some of its bytes went or came.
    pub(crate) fn moved(&self) {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.fetch_max(ms, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.begun + Duration::from_millis(self.moved_ms.load(Ordering::Relaxed))
    }
}

tokio::task_local! {
    static SIGNS: Arc<Signs>;
}

/// Where the request that this task makes now shows that its bytes move; `None` for a question.
pub(crate) fn signs() -> Option<Arc<Signs>> {
    SIGNS.try_with(Arc::clone).ok()
}

/// The watch over the requests of one operation.
pub(crate) struct Watch<'a> {
    pulse: &'a Pulse,
    store: &'a dyn ObjectStore,
    /// What is asked for: its first byte, or whether it is there.
    path: Path,
    given_up: u32,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(pulse: &'a Pulse, store: &'a dyn ObjectStore, path: &Path) -> Self {
        // The root is no object: asking for it would list the bucket.
        let path = if path.as_ref().is_empty() { Path::from("question") } else { path.clone() };
        Watch { pulse, store, path, given_up: 0 }
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.pulse.is_silent()
    }

    /// Waits for a request. `None`: the store was silent and is back, and this was lost meanwhile.
    pub(crate) async fn over<T>(&mut self, request: impl Future<Output = T>) -> Option<T> {
        self.pulse.begun();
        let signs = Arc::new(Signs::new());
        let mut back = self.pulse.back.subscribe();
        let mut request = std::pin::pin!(SIGNS.scope(signs.clone(), request));
        loop {
            let look = self.pulse.due().max(signs.last() + SILENCE);
            tokio::select! {
                biased;
                answer = &mut request => {
                    self.pulse.answered(signs.begun);
                    return Some(answer);
                }
                // Its sender is the pulse, which lives as long.
                _ = back.changed() => {
                    let patience = SILENCE * 2u32.saturating_pow(self.given_up);
                    let since = *back.borrow_and_update();
                    if since.is_some_and(|since| signs.last() < since) && signs.last().elapsed() >= patience {
                        self.given_up += 1;
                        return None;
                    }
                }
                () = self.ask_at(look) => {}
            }
        }
    }

    /// Asks, if it is time by then and nobody else does. Never long without an end, so that a claim is looked at again.
    async fn ask_at(&self, look: Instant) {
        sleep_until(look.max(Instant::now())).await;
        let Some(asking) = self.pulse.claim() else {
            return sleep_until(Instant::now() + QUESTION_PAUSE).await;
        };
        let begun = Instant::now();
        let options = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
        match timeout(QUESTION_LIMIT, self.store.get_opts(&self.path, options)).await {
            // Whatever it is, it is an answer.
            Ok(_) => self.pulse.answered(begun),
            Err(_) => self.pulse.lost(),
        }
        drop(asking);
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use tokio::time::sleep;

    use super::*;

    /// A request that ends after a minute, whose bytes move each second until then or not at all.
    async fn minute(moves: bool) {
        for _ in 0..60 {
            sleep(Duration::from_secs(1)).await;
            if moves {
                signs().expect("it is watched").moved();
            }
        }
    }

    /// Loses a question after ten seconds and has another request answered at once.
    async fn outage(pulse: &Pulse) {
        sleep(Duration::from_secs(10)).await;
        pulse.lost();
        sleep(Duration::from_millis(100)).await;
        assert!(pulse.is_silent());
        pulse.answered(Instant::now());
        assert!(!pulse.is_silent());
    }

    /// Rule 10: what still moves is not given up, nor what nobody showed to be lost.
    #[tokio::test(start_paused = true)]
    async fn only_what_was_silent_through_a_silence_is_given_up() {
        let store = InMemory::new();
        for (moves, lost, given_up) in [(true, true, false), (false, true, true), (false, false, false)] {
            let pulse = Pulse::default();
            let mut watch = Watch::new(&pulse, &store, &Path::from("log/1"));
            let around = async {
                if lost {
                    outage(&pulse).await;
                } else {
                    sleep(Duration::from_secs(10)).await;
                    pulse.answered(Instant::now());
                }
            };
            let (ended, ()) = tokio::join!(watch.over(minute(moves)), around);
            assert_eq!(ended.is_none(), given_up, "moves {moves}, lost {lost}");
        }
    }

    /// A line so slow that questions are lost on it, and answers late, must not have the same bytes sent for ever.
    #[tokio::test(start_paused = true)]
    async fn an_operation_is_given_up_ever_more_rarely() {
        let (store, pulse) = (InMemory::new(), Pulse::default());
        let mut watch = Watch::new(&pulse, &store, &Path::from("log/1"));
        let mut attempts = 0;
        let flapping = async {
            loop {
                outage(&pulse).await;
            }
        };
        let ends = async {
            while watch.over(minute(false)).await.is_none() {
                attempts += 1;
            }
        };
        tokio::select! {
            () = ends => {}
            () = flapping => {}
        }
        assert!((1..=4).contains(&attempts), "{attempts}");
    }
}

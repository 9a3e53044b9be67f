//! Writers that draw their requests by chance and write down what happens to each.
//!
//! A connection is two threads: one sends while fewer than `depth` requests are in flight, one receives. Knows nothing of who
//! serves. Invariant: what is written down is never more certain than what happened; see `history`.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::{self, Receiver, Sender};
use super::history::{Answer, BLOCK_SECTORS, Kind, Op, Tick};
use crate::numbers::Numbers;

/// Blocks at the volume's start that get half of all requests, so that they overlap.
const HOT_BLOCKS: u32 = 64;

/// How writers write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) connections: u32,
    /// Requests in flight on each connection.
    pub(crate) depth: usize,
    /// Whether trims are among the requests: not every server leaves zeroes.
    pub(crate) trims: bool,
    /// Requests a second, all connections together.
    pub(crate) rate: u32,
}

/// The ticks and the write numbers of one volume's life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    ticks: Arc<AtomicU64>,
    numbers: Arc<AtomicU64>,
}

impl Clock {
    /// A new tick.
    pub(crate) fn tick(&self) -> Tick {
        self.ticks.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// Writers at work.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    connections: Vec<Arc<Connection>>,
    threads: Vec<JoinHandle<()>>,
}

/// What one connection's halves share.
#[derive(Debug, Default)]
struct Connection {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By cookie.
    ops: Vec<Op>,
    in_flight: usize,
    /// Why nothing more comes.
    broken: Option<io::Error>,
    /// Nothing more is sent.
    sent_all: bool,
}

impl Connection {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    fn breaks(&self, error: io::Error) {
        self.lock().broken.get_or_insert(error);
        self.changed.notify_all();
    }
}

impl Load {
    /// Starts writers on the export `name` behind the socket at `path`, of `sectors` sectors.
    pub(crate) fn start(
        (path, name, sectors): (&Path, &str, u32),
        shape: Shape,
        clock: &Clock,
        seed: u64,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut connections, mut threads) = (Vec::new(), Vec::new());
        for index in 0..shape.connections {
            let (sender, receiver, _) = client::connect(path, name)?;
            let connection = Arc::new(Connection::default());
            let (ours, clock_of_answers) = (connection.clone(), clock.clone());
            threads.push(std::thread::spawn(move || receive(receiver, &ours, &clock_of_answers)));
            let draw = Draw { chance: Numbers::new(seed ^ u64::from(index) << 32), shape, sectors };
            let (ours, clock, stop) = (connection.clone(), clock.clone(), stop.clone());
            threads.push(std::thread::spawn(move || send(sender, &ours, draw, &clock, &stop)));
            connections.push(connection);
        }
        Ok(Self { stop, connections, threads })
    }

    /// Ends it, waiting for what is in flight as long as the server lives, and says what happened.
    ///
    /// # Errors
    /// If the server was silent for longer than is allowed, or answered nonsense.
    pub(crate) fn end(self) -> io::Result<Vec<Op>> {
        self.stop.store(true, Ordering::SeqCst);
        for connection in &self.connections {
            connection.changed.notify_all();
        }
        for thread in self.threads {
            thread.join().map_err(|_| io::Error::other("a writer's thread panicked"))?;
        }
        let mut ops = Vec::new();
        for connection in &self.connections {
            let mut state = connection.lock();
            if let Some(error) = state.broken.take().filter(|error| !is_the_peers_end(error)) {
                return Err(error);
            }
            ops.append(&mut state.ops);
        }
        Ok(ops)
    }
}

fn is_the_peers_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn send(mut sender: Sender, connection: &Connection, mut draw: Draw, clock: &Clock, stop: &AtomicBool) {
    let begun = Instant::now();
    let every = Duration::from_secs(1) * draw.shape.connections / draw.shape.rate.max(1);
    for cookie in 0_u64.. {
        // Late is late: what a slow answer held up is not caught up with in a burst.
        let due = every * u32::try_from(cookie).unwrap_or(u32::MAX);
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(early);
        }
        let mut state = connection.lock();
        while state.in_flight >= draw.shape.depth && state.broken.is_none() {
            state = connection.changed.wait(state).expect("as for the lock");
        }
        if stop.load(Ordering::SeqCst) || state.broken.is_some() {
            state.sent_all = true;
            break;
        }
        let op = draw.next(clock);
        state.ops.push(op);
        state.in_flight += 1;
        drop(state);
        if let Err(error) = sender.send(&op, cookie) {
            connection.breaks(error);
        }
    }
    let mut state = connection.lock();
    while state.in_flight > 0 && state.broken.is_none() {
        state = connection.changed.wait(state).expect("as for the lock");
    }
    drop(state);
    sender.disconnect();
}

fn receive(mut receiver: Receiver, connection: &Connection, clock: &Clock) {
    loop {
        let answer = receiver.answer();
        let tick = clock.tick();
        match answer {
            Ok((cookie, error)) => {
                let mut state = connection.lock();
                let op = usize::try_from(cookie).ok().and_then(|cookie| state.ops.get_mut(cookie));
                match op {
                    Some(op) if op.answer == Answer::None => {
                        op.answer = if error == 0 { Answer::Done(tick) } else { Answer::Failed(tick) };
                        state.in_flight -= 1;
                    }
                    _ => {
                        let what = format!("an answer to what was not asked: cookie {cookie}");
                        state.broken = Some(io::Error::new(io::ErrorKind::InvalidData, what));
                    }
                }
                drop(state);
                connection.changed.notify_all();
            }
            Err(error) => {
                let state = connection.lock();
                let idle = state.sent_all && state.in_flight == 0;
                drop(state);
                // After the goodbye the server hangs up, which is no news.
                if !idle {
                    connection.breaks(error);
                }
                return;
            }
        }
    }
}

/// Draws requests.
#[derive(Debug)]
struct Draw {
    chance: Numbers,
    shape: Shape,
    sectors: u32,
}

impl Draw {
    fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.chance.below(u64::from(end))).unwrap_or(0)
    }

    fn next(&mut self, clock: &Clock) -> Op {
        let kind = match self.below(100) {
            0..4 => Kind::Flush,
            4..10 if self.shape.trims => Kind::Trim,
            10..16 => Kind::Zero,
            _ => Kind::Write(clock.number()),
        };
        let (first, count) = if kind == Kind::Flush { (0, 0) } else { self.range() };
        let fua = kind != Kind::Flush && self.below(100) < 4;
        Op { kind, first, count, fua, submit: clock.tick(), answer: Answer::None }
    }

    /// Small and large, whole blocks and parts, half of them where many meet.
    fn range(&mut self) -> (u32, u32) {
        let end = if self.below(2) == 0 { HOT_BLOCKS * BLOCK_SECTORS } else { self.sectors };
        let count = match self.below(20) {
            0..10 => 1 + self.below(BLOCK_SECTORS),
            10..16 => (1 + self.below(4)) * BLOCK_SECTORS,
            16..19 => 1 + self.below(8 * BLOCK_SECTORS),
            _ => 1 + self.below(HOT_BLOCKS * BLOCK_SECTORS),
        };
        let first = self.below(end - count + 1);
        // Aligned and not, whatever the length.
        if self.below(2) == 0 { (first / BLOCK_SECTORS * BLOCK_SECTORS, count) } else { (first, count) }
    }
}

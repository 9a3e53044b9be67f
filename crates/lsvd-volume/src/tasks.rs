//! Background tasks that end together with the volume they belong to.
//!
//! Knows nothing of what they do. A stopped task ends at its next wait; what it had asked of the store may still happen,
//! as after a crash.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

/// Spawns tasks and stops them all; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    stopped: Arc<watch::Sender<bool>>,
    /// Where the volume was opened. A request may be given up where no runtime is, and its blocks are then free for
    /// others, whose work goes on here.
    runtime: Handle,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { stopped: Arc::new(watch::Sender::new(false)), runtime: Handle::current() }
    }

    /// Runs `task` until it ends or all are stopped.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut stopped = self.stopped.subscribe();
        self.runtime.spawn(async move {
            tokio::select! {
                // In this order, so that nothing goes on once it is stopped, and simulations repeat.
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = task => {}
            }
        });
    }

    /// Stops all tasks, those spawned later too.
    pub(crate) fn stop(&self) {
        self.stopped.send_replace(true);
    }
}

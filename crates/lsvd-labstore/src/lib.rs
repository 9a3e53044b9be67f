//! An S3 server (and Google's XML API) for tests and benchmarks: in memory, cheap, with a slow line and faults on demand.
//!
//! It serves what lsvd asks of a store, path-style: PUT (`If-None-Match: *`, `If-Match`), GET and HEAD with a range,
//! ListObjectsV2, DELETE. To requests that bear a token it speaks Google's XML API, as far as lsvd needs it: PUT
//! (`x-goog-if-generation-match: 0`), a generation in its answers, 404 to a DELETE of what is not there, and all else as S3
//! has it. **No signature or token is verified and no right is checked**: it listens on loopback, and whoever
//! reaches it may do everything. Objects are gone with the process. Not served, and refused by name: multipart uploads,
//! batch deletes, copies, versions, chunked signatures, checksums.
//!
//! A [`Line`] makes it as far away as a real store: the time to the first byte has a median and a tail, and all bodies
//! of one direction share a bandwidth. A [`Rule`] makes it misbehave: by verb, by key, by rate or by count. Chance is
//! drawn from a seed, in the order in which requests arrive; so one client in sequence sees the same again, several at
//! once do not.
//!
//! Over HTTP, beside the buckets (an underscore is in no bucket's name):
//!
//! | request | does |
//! |---|---|
//! | `GET /_lab/stats` | counters by verb and outcome, as JSON; `DELETE` sets them to zero |
//! | `GET /_lab/faults` | the rules with how often each struck; `POST` adds one or an array, `DELETE` removes all |
//! | `POST /_lab/line` | another latency and bandwidth |
//! | `DELETE /_lab/objects` | empties all buckets |
//!
//! ```
//! # async fn example() -> std::io::Result<()> {
//! use lsvd_labstore::{Fault, LabOptions, LabStore, Rule, Verb};
//!
//! let lab = LabStore::start(LabOptions::default()).await?;
//! println!("AWS_ENDPOINT_URL={}, bucket 'lab'", lab.endpoint());
//! lab.add_fault(Rule::new(Fault::SlowDown).verb(Verb::Put).rate(0.2));
//! // … drive a client …
//! assert_eq!(lab.stats().in_flight, 0);
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
//! ```

mod body;
mod calendar;
mod control;
mod faults;
mod line;
mod numbers;
mod objects;
mod refusal;
mod request;
mod serve;
mod stats;
mod xml;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use faults::{Fault, Rule};
pub use line::{Latency, Line};
pub use request::Verb;
pub use stats::{Stats, VerbStats};

/// How a lab store begins.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Where it listens; port 0, the default, takes a free one of loopback.
    pub listen: SocketAddr,
    /// Buckets that are there from the start. Default: `lab`.
    pub buckets: Vec<String>,
    /// What chance is drawn from.
    pub seed: u64,
    /// How far away it seems. Default: not at all.
    pub line: Line,
    /// How it misbehaves. Default: not at all.
    pub faults: Vec<Rule>,
}

impl Default for LabOptions {
    fn default() -> Self {
        LabOptions {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            buckets: vec!["lab".to_owned()],
            seed: 0,
            line: Line::default(),
            faults: Vec::new(),
        }
    }
}

/// A lab store that runs on this runtime until it is dropped.
#[derive(Debug)]
pub struct LabStore {
    address: SocketAddr,
    lab: Arc<serve::Lab>,
    accepting: JoinHandle<()>,
}

impl LabStore {
    /// Listens, and serves in the background.
    ///
    /// # Errors
    /// The address can not be listened on.
    pub async fn start(options: LabOptions) -> io::Result<LabStore> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let lab = Arc::new(serve::Lab::new(options));
        let accepting = tokio::spawn(serve::accept(listener, Arc::clone(&lab)));
        Ok(LabStore { address, lab, accepting })
    }

    /// The URL that clients are given as their endpoint, without a slash at its end.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule after those that are there: the first that fits a request strikes.
    pub fn add_fault(&self, rule: Rule) {
        self.lab.faults.add([rule]);
    }

    /// Removes all rules. What hangs already goes on hanging.
    pub fn clear_faults(&self) {
        self.lab.faults.clear();
    }

    /// The rules, with how often each struck.
    pub fn faults(&self) -> Vec<Rule> {
        self.lab.faults.rules()
    }

    /// Another latency and bandwidth from now on.
    pub fn set_line(&self, line: &Line) {
        self.lab.line.set(line);
    }

    /// What was asked and answered so far.
    pub fn stats(&self) -> Stats {
        self.lab.stats.read(&self.lab.objects)
    }

    /// Counts from zero again.
    pub fn reset_stats(&self) {
        self.lab.stats.reset();
    }

    /// Waits as long as the store serves, which is until the process ends.
    pub async fn serve(mut self) {
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for LabStore {
    fn drop(&mut self) {
        // Its connections are dropped with it.
        self.accepting.abort();
    }
}

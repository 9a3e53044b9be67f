//! The conformance suite on a store that runs already: what each store has to do, checked on any of them.
//!
//!     cargo run -p lsvd-backend --features conformance --example conformance -- s3://bucket/empty/prefix
//!
//! Endpoint and credentials come from the environment, as lsvd's do. What is below the prefix must be nothing; what the
//! suite makes stays there. It ends with the promise that does not hold.

use std::error::Error;
use std::time::{Duration, Instant};

use lsvd_backend::{Bucket, RetryPolicy, StoreOptions, conformance};

/// A store that is there answers sooner, and one that does not is an error and not a wait.
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: conformance URL")?;
    let options = StoreOptions { create_root: true, ..StoreOptions::default() };
    let retry = RetryPolicy { total_limit: LIMIT, ..RetryPolicy::default() };
    let bucket = Bucket::open(&url.parse()?, &options)?.with_retry(retry);
    let begun = Instant::now();
    conformance::run(bucket).await;
    println!("{url} conforms; it took {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

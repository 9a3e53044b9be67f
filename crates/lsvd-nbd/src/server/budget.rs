//! What a connection may hold at once, and the receipts for it (rule 10).
//!
//! A request takes its place before anything is allocated for it, and gives it back when its last reply is sent. Bytes
//! are taken from the connection's share first, then from the server's: who waits for the latter holds none of the
//! former that anybody else needs to finish, and nobody who holds bytes waits for more.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::Limits;

/// One connection's share.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    requests: Arc<Semaphore>,
    requests_max: u32,
    payload_bytes: Arc<Semaphore>,
    payload_bytes_total: Arc<Semaphore>,
}

/// A request in flight, until dropped.
#[derive(Debug)]
pub(super) struct RequestPlace(
    #[expect(dead_code, reason = "it is dropped, that is all")] OwnedSemaphorePermit,
);

/// Bytes in flight, until dropped.
#[derive(Debug)]
pub(super) struct PayloadShare {
    _of_connection: OwnedSemaphorePermit,
    _of_server: OwnedSemaphorePermit,
}

impl Budget {
    pub(super) fn new(limits: &Limits, payload_bytes_total: Arc<Semaphore>) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(limits.requests_in_flight_max as usize)),
            requests_max: limits.requests_in_flight_max,
            payload_bytes: Arc::new(Semaphore::new(limits.payload_bytes_in_flight_max as usize)),
            payload_bytes_total,
        }
    }

    pub(super) async fn request(&self) -> RequestPlace {
        RequestPlace(self.requests.clone().acquire_owned().await.expect("never closed"))
    }

    /// `bytes` is at most the payload limit, so that it fits at all.
    pub(super) async fn payload(&self, bytes: u32) -> Option<PayloadShare> {
        if bytes == 0 {
            return None;
        }
        let of_connection = self.payload_bytes.clone().acquire_many_owned(bytes).await.expect("never closed");
        let of_server =
            self.payload_bytes_total.clone().acquire_many_owned(bytes).await.expect("never closed");
        Some(PayloadShare { _of_connection: of_connection, _of_server: of_server })
    }

    /// Resolves at a moment when no request is in flight. Cancel-safe; while it waits no request can start.
    pub(super) async fn idle(&self) {
        let _all = self.requests.acquire_many(self.requests_max).await.expect("never closed");
    }
}

//! The server's ceilings: what one client, and all of them, can make it hold (rule 10). It knows no defaults of others.
//!
//! 1. `payload_bytes_max` ≤ `payload_bytes_in_flight_max` ≤ `payload_bytes_total_max`, so that the largest request fits.
//! 2. All counts are above zero.

use std::time::Duration;

/// Ceilings of a [`Server`](crate::Server).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, over all listeners; one more is closed at once. Default 128.
    pub connections_max: usize,
    /// Requests in flight per connection; the next one waits unread. Default 128.
    pub requests_in_flight_max: u32,
    /// Bytes of data in one request, told to clients. From 1 MiB to 64 MiB, default 32 MiB.
    pub payload_bytes_max: u32,
    /// Bytes of data in flight per connection, requests and replies together. Default 64 MiB.
    pub payload_bytes_in_flight_max: u32,
    /// Bytes of data in flight over all connections. Default 256 MiB.
    pub payload_bytes_total_max: u32,
    /// A client must have chosen its export within this time. Default 30 s.
    pub handshake_timeout: Duration,
    /// A client that stalls this long in the middle of a message, or leaves replies unread, is cut off, because it
    /// holds memory that others wait for. An idle one is not. Default 120 s.
    pub stall_timeout: Duration,
    /// How long requests in flight may take to finish at shutdown. Default 10 s.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 128,
            requests_in_flight_max: 128,
            payload_bytes_max: 32 << 20,
            payload_bytes_in_flight_max: 64 << 20,
            payload_bytes_total_max: 256 << 20,
            handshake_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(120),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Says which limit makes no sense, if any.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.connections_max == 0 || self.requests_in_flight_max == 0 {
            return Err("connections_max and requests_in_flight_max must be at least 1".into());
        }
        if !(1 << 20..=64 << 20).contains(&self.payload_bytes_max) {
            return Err(format!(
                "payload_bytes_max must be from 1 MiB to 64 MiB, not {}",
                self.payload_bytes_max
            ));
        }
        if self.payload_bytes_in_flight_max < self.payload_bytes_max {
            return Err("payload_bytes_in_flight_max must be at least payload_bytes_max".into());
        }
        if self.payload_bytes_total_max < self.payload_bytes_in_flight_max {
            return Err("payload_bytes_total_max must be at least payload_bytes_in_flight_max".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_consistent() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    /// Rule 10: a request that could never get its share of memory would wait for ever, so such limits are refused.
    #[test]
    fn a_ceiling_below_one_request_is_refused() {
        let limits = Limits { payload_bytes_in_flight_max: (32 << 20) - 1, ..Limits::default() };
        assert!(limits.check().is_err_and(|error| error.contains("payload_bytes_in_flight_max")));
        let limits = Limits { payload_bytes_total_max: (64 << 20) - 1, ..Limits::default() };
        assert!(limits.check().is_err_and(|error| error.contains("payload_bytes_total_max")));
        for limits in [
            Limits { payload_bytes_max: 4096, ..Limits::default() },
            Limits { payload_bytes_max: u32::MAX, ..Limits::default() },
            Limits { connections_max: 0, ..Limits::default() },
            Limits { requests_in_flight_max: 0, ..Limits::default() },
        ] {
            assert!(limits.check().is_err(), "{limits:?}");
        }
    }
}

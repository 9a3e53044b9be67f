//! What went wrong with a store, sorted by what the caller does next.
//!
//! Knows no requests and no retries. Every message names the store, the verb and the object; none holds a secret
//! (rule 11): whatever a server or a library said has been through [`crate::scrub`] before it arrives here.

use std::fmt;
use std::sync::Arc;

/// What was being done to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Finding out how to reach the store; no request was made.
    Open,
    /// Creating or writing an object.
    Put,
    /// Reading an object or a part of one.
    Get,
    /// Listing names.
    List,
    /// Removing an object.
    Delete,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Open => "open",
            Verb::Put => "PUT",
            Verb::Get => "GET",
            Verb::List => "LIST",
            Verb::Delete => "DELETE",
        })
    }
}

/// Where it went wrong: which store, which verb, which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The store as its user names it, for example `s3://acme/db1`.
    pub store: Arc<str>,
    /// What was asked of it.
    pub verb: Verb,
    /// The object's or folder's name below the store's prefix; empty where none is concerned.
    pub object: String,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.object.is_empty() {
            write!(f, "{} of '{}'", self.verb, self.store)
        } else {
            write!(f, "{} of '{}' in '{}'", self.verb, self.object, self.store)
        }
    }
}

/// Why a store did not do what was asked. The variants are the caller's possible reactions.
///
/// No variant means that an object is absent: absence is an `Ok(None)` and only ever a definite answer (rule 4).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bucket, container or directory itself is not there: name another one or create it.
    #[error("{at}: {detail}")]
    NotFound {
        /// Where.
        at: Site,
        /// What is missing, for a person.
        detail: String,
    },
    /// The store refuses these credentials, or they lack a right: mend them, then try again.
    #[error("{at}: {detail}")]
    Denied {
        /// Where.
        at: Site,
        /// What was refused and what to check, for a person.
        detail: String,
    },
    /// The request can not succeed as it is made (wrong region, endpoint, certificate, URL): mend the configuration.
    #[error("{at}: {detail}")]
    Misconfigured {
        /// Where.
        at: Site,
        /// What does not fit, for a person.
        detail: String,
    },
    /// No room is left in the store: make some, then try again. Nothing was stored.
    #[error("{at}: {detail}")]
    Full {
        /// Where.
        at: Site,
        /// What is full, for a person.
        detail: String,
    },
    /// No usable answer within the total limit, after retries: try again later. A PUT or DELETE may have taken
    /// effect all the same, or may do so yet: whoever tries again must expect that.
    #[error("{at}: {detail}")]
    Unavailable {
        /// Where.
        at: Site,
        /// The last failure and how often it was tried, for a person.
        detail: String,
    },
    /// The object is not as long as it must be, or the store returned other bytes than were asked for: do not use
    /// it; reading it again does not help.
    #[error("{at}: {detail}")]
    Corrupt {
        /// Where.
        at: Site,
        /// Lengths and offsets in bytes, for a person.
        detail: String,
    },
}

impl Error {
    /// Where it went wrong.
    pub fn site(&self) -> &Site {
        match self {
            Error::NotFound { at, .. }
            | Error::Denied { at, .. }
            | Error::Misconfigured { at, .. }
            | Error::Full { at, .. }
            | Error::Unavailable { at, .. }
            | Error::Corrupt { at, .. } => at,
        }
    }

    /// What went wrong, without where.
    pub fn detail(&self) -> &str {
        match self {
            Error::NotFound { detail, .. }
            | Error::Denied { detail, .. }
            | Error::Misconfigured { detail, .. }
            | Error::Full { detail, .. }
            | Error::Unavailable { detail, .. }
            | Error::Corrupt { detail, .. } => detail,
        }
    }

    /// Whether the same request may succeed later with nobody doing anything about it. A full store is not
    /// retryable in this sense: somebody has to make room.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unavailable { .. })
    }
}

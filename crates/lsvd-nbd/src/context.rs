//! Metadata contexts that an export has beside `base:allocation`: a name, and 32 flags for each of its bytes.
//!
//! Defined here, by the one who calls it. What the flags of a context mean, its export says; `base:allocation` is the server's own.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::export::ExportError;

/// Contexts that one connection may select beside `base:allocation`: the answers of all of them fit in the smallest
/// largest payload.
pub(crate) const CONTEXTS_MAX: usize = 3;

/// A run of bytes and what a context says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextExtent {
    /// Length in bytes, not 0.
    pub length_bytes: u64,
    /// The context's flags.
    pub flags: u32,
}

/// The status of a range, when it is known.
pub type ContextStatus<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<ContextExtent>, ExportError>> + Send + 'a>>;

/// A metadata context that a client has selected. It is kept as long as the connection, and may be shared by several.
pub trait MetaContext: fmt::Debug + Send + Sync {
    /// Its whole name, with the namespace.
    fn name(&self) -> &str;

    /// Tells the flags from `offset_bytes` on: at least one extent; it may stop before `length_bytes` are covered, and the client
    /// asks again from there.
    ///
    /// # Errors
    /// The client sees it; the connection goes on. No status is never taken for one without flags.
    fn status(&self, offset_bytes: u64, length_bytes: u64) -> ContextStatus<'_>;
}

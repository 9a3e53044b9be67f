//! The commands, one file for each: what `lsvd COMMAND` does between its arguments and its output.
//!
//! Each knows the libraries that it composes and none of the other commands.

pub(crate) mod adopt;
pub(crate) mod attach;
pub(crate) mod clone;
pub(crate) mod create;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod gc;
pub(crate) mod info;
pub(crate) mod log;
pub(crate) mod ls;
pub(crate) mod manual;
pub(crate) mod resize;
pub(crate) mod rm;
pub(crate) mod rollback;
pub(crate) mod serve;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod top;

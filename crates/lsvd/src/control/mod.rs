//! The control socket of a running daemon: what may be asked of it beside NBD, by whom, and where it is found.
//!
//! `protocol` has the words, `line` their frames on a stream, `server` the connections, `methods` what each method does, `place`
//! the directory, `client` the other side, and `ask` what commands do that change a volume. A method is a struct with its parameters in `protocol`, what it does in `methods`,
//! and its name in the one list there. docs/control.md has the protocol; RFC 7 why it is as it is.

pub(crate) mod ask;
pub(crate) mod client;
pub(crate) mod daemon;
mod line;
mod methods;
pub(crate) mod place;
pub(crate) mod protocol;
mod rollback;
pub(crate) mod server;

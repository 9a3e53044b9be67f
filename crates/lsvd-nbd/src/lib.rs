//! An NBD server for anything that implements [`Export`].
//!
//! The room between a block device that somebody else keeps and the clients that speak the Network Block Device
//! protocol to it: the Linux kernel, QEMU, libnbd. It knows sockets and the protocol; it does not know what a volume
//! is, where bytes are stored or what makes them durable.
//!
//! ```no_run
//! use std::sync::Arc;
//! use bytes::Bytes;
//! use lsvd_nbd::{Export, ExportError, ExportInfo, ExtentStatus, Limits, ListenAddress, Listener, ReadPiece, Server, ZeroFlags};
//!
//! /// A disk of 1 GiB that is always empty.
//! struct Empty;
//!
//! impl Export for Empty {
//!     fn info(&self) -> ExportInfo {
//!         ExportInfo { read_only: true, ..ExportInfo::new(1 << 30) }
//!     }
//!     async fn read(&self, _offset_bytes: u64, length_bytes: u32) -> Result<Vec<ReadPiece>, ExportError> {
//!         Ok(vec![ReadPiece::Hole(length_bytes.into())])
//!     }
//!     // A read-only export is never asked to write.
//!     async fn write(&self, _: u64, _: Bytes, _: bool) -> Result<(), ExportError> { Ok(()) }
//!     async fn trim(&self, _: u64, _: u64, _: bool) -> Result<(), ExportError> { Ok(()) }
//!     async fn write_zeroes(&self, _: u64, _: u64, _: ZeroFlags) -> Result<(), ExportError> { Ok(()) }
//!     async fn flush(&self) -> Result<(), ExportError> { Ok(()) }
//!     async fn block_status(&self, _: u64, length_bytes: u64) -> Result<Vec<ExtentStatus>, ExportError> {
//!         Ok(vec![ExtentStatus { length_bytes, hole: true, zero: true }])
//!     }
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::new(vec![("empty".into(), Arc::new(Empty))], Some("empty".into()), Limits::default())?;
//! let listener = Listener::bind(&"unix:/run/empty.sock".parse::<ListenAddress>()?).await?;
//! println!("{}", listener.address().uri("empty"));
//! server.serve(listener, async { tokio::signal::ctrl_c().await.ok(); }).await;
//! # Ok(()) }
//! ```
//!
//! # Rooms
//!
//! | room | what it does | what it does not know |
//! |---|---|---|
//! | `handshake` | bytes ⇄ options; from the first byte to the chosen export | sockets, time |
//! | `transmission` | bytes ⇄ requests and replies; the one gate that validates a request | sockets, time, exports' insides |
//! | `server` | connections, limits, tasks, shutdown | layouts of messages |
//! | `listener`, `address` | sockets to listen on, and how people write them | the protocol |
//! | [`attach`] | the other side: the kernel as the client of an export, here or elsewhere | the server, tasks |
//!
//! # Invariants
//!
//! 1. A request that fails, for whatever reason, leaves the stream where the next request begins.
//! 2. An [`Export`] is asked only for ranges within the size that it told, never to write when it is read-only.
//! 3. Memory for requests in flight stays below [`Limits`]; at the limit the server stops reading (rule 10).
//! 4. Every request that was read is answered exactly once, unless the connection breaks.

mod address;
pub mod attach;
mod context;
mod export;
mod handshake;
mod limits;
mod listener;
mod server;
mod transmission;

pub use address::{AddressError, DEFAULT_PORT, ListenAddress};
pub use context::{ContextExtent, ContextStatus, MetaContext};
pub use export::{Export, ExportError, ExportErrorKind, ExportInfo, ExtentStatus, ReadPiece, ZeroFlags};
pub use limits::Limits;
pub use listener::{BindError, Listener};
pub use server::{Server, ServerError};

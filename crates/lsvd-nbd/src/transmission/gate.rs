//! The one gate: a request's head and the session → a command that may run, or the error that the client gets.
//!
//! 1. A [`Command`]'s range lies within the export.
//! 2. No command that writes passes on a read-only export.
//! 3. A write's data, and what an unsplit read returns, is at most the payload limit.

use super::request::{RequestHead, command, flag};
use super::{Errno, Session};
use crate::export::ZeroFlags;

/// A request that may run. Lengths may be 0 except for [`Command::BlockStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Read { offset_bytes: u64, length_bytes: u32, unfragmented: bool },
    Write { offset_bytes: u64, length_bytes: u32, fua: bool },
    Flush,
    Trim { offset_bytes: u64, length_bytes: u32, fua: bool },
    Cache { offset_bytes: u64, length_bytes: u32 },
    WriteZeroes { offset_bytes: u64, length_bytes: u32, flags: ZeroFlags },
    BlockStatus { offset_bytes: u64, length_bytes: u32, one_extent: bool },
    Disconnect,
}

/// Why a request may not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) errno: Errno,
    pub(crate) message: &'static str,
}

const fn deny(errno: Errno, message: &'static str) -> Result<(), Denial> {
    Err(Denial { errno, message })
}

/// Judges a request.
pub(crate) fn admit(head: &RequestHead, session: &Session) -> Result<Command, Denial> {
    let RequestHead { offset_bytes, length_bytes, .. } = *head;
    let has = |flag: u16| head.flags & flag != 0;
    let fua = has(flag::FUA);
    match head.command {
        command::READ => {
            let allowed = if session.structured { flag::DF } else { 0 };
            check_flags(head, allowed)?;
            check_range(head, session, Errno::Invalid)?;
            let unfragmented = has(flag::DF);
            if length_bytes > session.payload_bytes_max {
                if !session.structured {
                    deny(Errno::Invalid, "a read may not be longer than the largest payload")?;
                } else if unfragmented {
                    deny(Errno::Overflow, "an unfragmented read may not be longer than the largest payload")?;
                }
            }
            Ok(Command::Read { offset_bytes, length_bytes, unfragmented })
        }
        command::WRITE => {
            check_flags(head, 0)?;
            check_writable(session)?;
            if length_bytes > session.payload_bytes_max {
                deny(Errno::Invalid, "a write may not be longer than the largest payload")?;
            }
            check_range(head, session, Errno::NoSpace)?;
            Ok(Command::Write { offset_bytes, length_bytes, fua })
        }
        command::DISCONNECT => Ok(Command::Disconnect),
        command::FLUSH => {
            check_flags(head, 0)?;
            if offset_bytes != 0 || length_bytes != 0 {
                deny(Errno::Invalid, "a flush covers all: offset and length must be 0")?;
            }
            Ok(Command::Flush)
        }
        command::TRIM => {
            check_flags(head, 0)?;
            check_writable(session)?;
            if !session.offers_trim() {
                deny(Errno::Invalid, "this export does not offer TRIM")?;
            }
            check_range(head, session, Errno::Invalid)?;
            Ok(Command::Trim { offset_bytes, length_bytes, fua })
        }
        command::CACHE => {
            check_flags(head, 0)?;
            check_range(head, session, Errno::Invalid)?;
            Ok(Command::Cache { offset_bytes, length_bytes })
        }
        command::WRITE_ZEROES => {
            // The read-only answer comes first: such an export offers no fast zeroes, and EPERM says more.
            check_writable(session)?;
            let fast_zero = if session.offers_fast_zero() { flag::FAST_ZERO } else { 0 };
            check_flags(head, flag::NO_HOLE | fast_zero)?;
            check_range(head, session, Errno::NoSpace)?;
            let flags = ZeroFlags { fua, no_hole: has(flag::NO_HOLE), fast: has(flag::FAST_ZERO) };
            Ok(Command::WriteZeroes { offset_bytes, length_bytes, flags })
        }
        command::BLOCK_STATUS => {
            check_flags(head, flag::REQ_ONE)?;
            if session.selected() == 0 {
                deny(Errno::Invalid, "no metadata context was negotiated")?;
            }
            if length_bytes == 0 {
                deny(Errno::Invalid, "there is no status of nothing")?;
            }
            check_range(head, session, Errno::Invalid)?;
            Ok(Command::BlockStatus { offset_bytes, length_bytes, one_extent: has(flag::REQ_ONE) })
        }
        _ => Err(Denial { errno: Errno::Invalid, message: "unknown command" }),
    }
}

/// FUA is good on every command, and means something on those that write.
fn check_flags(head: &RequestHead, allowed: u16) -> Result<(), Denial> {
    if head.flags & !(allowed | flag::FUA) != 0 {
        return deny(Errno::Invalid, "a flag that this command does not have here");
    }
    Ok(())
}

fn check_writable(session: &Session) -> Result<(), Denial> {
    if session.read_only { deny(Errno::Permission, "this export is read-only") } else { Ok(()) }
}

impl Session {
    /// Whether it has all of a request's range.
    pub(crate) fn reaches(&self, head: &RequestHead) -> bool {
        let end = head.offset_bytes.checked_add(head.length_bytes.into());
        end.is_some_and(|end| end <= self.size_bytes)
    }
}

fn check_range(head: &RequestHead, session: &Session, errno: Errno) -> Result<(), Denial> {
    if session.reaches(head) {
        return Ok(());
    }
    deny(errno, "the range ends beyond the export")
}

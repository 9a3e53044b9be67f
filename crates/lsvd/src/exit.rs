//! From an error to the words and the exit code that a user sees.
//!
//! Knows every error type of the layers below and nothing of what was being done. Invariant: the codes are a
//! contract, written in the help and in docs/cli.md.

use std::fmt::{self, Write as _};
use std::io;
use std::process::ExitCode;

use crate::control::client::DaemonError;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked is done.
    Done = 0,
    /// Another error.
    Other = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The store is away, refuses or is full.
    Store = 3,
    /// Another writer took the volume over.
    Fenced = 4,
    /// Corrupt, or written by a newer lsvd.
    Corrupt = 5,
    /// Not there, or there already.
    Existence = 6,
    /// The store does not hold create-only PUT.
    UnsafeStore = 7,
    /// Somebody else seems to write the volume, or the log that is to be adopted.
    InUse = 8,
    /// The local journal is needed, or can not be used.
    Journal = 9,
    /// Something that is kept needs the volume.
    Pinned = 10,
    /// Stopped at once by a second signal.
    Interrupted = 130,
}

impl Exit {
    /// The end that has this code; another error where none has.
    pub(crate) fn of_code(code: u8) -> Self {
        let all = [
            Self::Done,
            Self::Usage,
            Self::Store,
            Self::Fenced,
            Self::Corrupt,
            Self::Existence,
            Self::UnsafeStore,
            Self::InUse,
            Self::Journal,
            Self::Pinned,
            Self::Interrupted,
        ];
        all.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Self::Other)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command line that parses and still makes no sense.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The exit code that says what the caller can do about `error`.
pub(crate) fn of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(of_cause).unwrap_or(Exit::Other)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if cause.is::<Usage>() {
        return Some(Exit::Usage);
    }
    if let Some(error) = cause.downcast_ref::<DaemonError>() {
        return Some(error.exit);
    }
    if let Some(error) = cause.downcast_ref::<lsvd_volume::Error>() {
        return Some(of_volume(error));
    }
    cause.downcast_ref::<lsvd_backend::Error>().map(of_store)
}

/// The exit code that says what the caller can do about a volume's error.
pub(crate) fn of_volume(error: &lsvd_volume::Error) -> Exit {
    use lsvd_volume::Error;
    match error {
        Error::Fenced { .. } => Exit::Fenced,
        Error::Corrupt { .. } | Error::Missing { .. } | Error::Newer { .. } => Exit::Corrupt,
        Error::Store { source, .. } => of_store(source),
        Error::TimedOut { .. } | Error::Unsteady { .. } => Exit::Store,
        Error::Invalid(_) | Error::BeyondEnd { .. } => Exit::Usage,
        Error::NotFound { .. }
        | Error::Exists { .. }
        | Error::NoMoment { .. }
        | Error::Unreachable { .. }
        | Error::Removed { .. } => Exit::Existence,
        Error::Pinned { .. } | Error::KeptForClone { .. } | Error::NeedsParent { .. } => Exit::Pinned,
        Error::UnsafeStore { .. } => Exit::UnsafeStore,
        Error::InUse { .. } | Error::LogGrowing { .. } => Exit::InUse,
        Error::Journal { .. } | Error::JournalNeeded { .. } | Error::JournalPassedOver { .. } => {
            Exit::Journal
        }
        Error::ReadOnly { .. } | Error::Closed { .. } | Error::HoldsData { .. } => Exit::Other,
    }
}

fn of_store(error: &lsvd_backend::Error) -> Exit {
    use lsvd_backend::Error;
    match error {
        Error::NotFound { .. } => Exit::Existence,
        Error::Corrupt { .. } => Exit::Corrupt,
        _ => Exit::Store,
    }
}

/// What the user can do next, where the error itself does not say so.
pub(crate) fn help(error: &anyhow::Error) -> Option<&str> {
    use lsvd_volume::{Error, JournalError};
    const ABSENT: &str = "check the URL; a bucket must be there before, a directory is made by `lsvd create`";
    let absent = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(lsvd_backend::Error::NotFound { .. }))
    };
    if let Some(daemon) = error.chain().find_map(|cause| cause.downcast_ref::<DaemonError>()) {
        return daemon.help.as_deref();
    }
    if error.chain().any(absent) {
        return Some(ABSENT);
    }
    error.chain().find_map(|cause| cause.downcast_ref::<Error>()).and_then(|error| match error {
        Error::Newer { .. } => Some("a newer lsvd wrote this: use that one; nothing was changed"),
        Error::Corrupt { .. } => {
            Some("nothing was changed; restore the object, or serve what is whole with --read-only")
        }
        Error::Store { source: lsvd_backend::Error::NotFound { .. }, .. } => Some(ABSENT),
        Error::JournalNeeded { .. } => Some(
            "serve it with --flush journal --journal DIR where that journal is; if its disk is lost, --abandon-journal opens \
             what the store has, and what only the journal held is gone",
        ),
        Error::JournalPassedOver { .. } => Some(
            "serve it with another --journal directory; --abandon-journal removes this one, and what only it held is gone",
        ),
        Error::Journal { source, .. } => match **source {
            JournalError::Damaged { .. } | JournalError::OlderVolume { .. } => Some(
                "nothing was changed; restore the file, or give up what only the journal holds with --abandon-journal",
            ),
            JournalError::Io { .. } | JournalError::Failed => {
                Some("check the disk; what was flushed is read back from it when the volume is served again")
            }
            JournalError::InUse => Some("stop the daemon that has it; one journal serves one daemon"),
            JournalError::OtherVolume { .. } => None,
        },
        Error::HoldsData { .. } => Some(
            "shrink the file system first; its trims free what it does not use. --discard lets go of what is left beyond the new end",
        ),
        Error::InUse { .. } => Some(
            "stop the other daemon, which closes the volume, or wait; `lsvd serve` without --if-free takes it over, and the \
             other daemon is fenced",
        ),
        _ => None,
    })
}

/// Whether `error` is that nobody reads what is printed: no error of ours.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(broken)
}

/// The whole story of `error` in one line, from what was being done to why it failed, nothing said twice.
pub(crate) fn words(error: &anyhow::Error) -> String {
    let mut story = String::new();
    for cause in error.chain() {
        let words = cause.to_string();
        if story.ends_with(&words) {
            continue;
        }
        // Layers name the volume that they speak of, and so has the layer above, by its short name.
        let news = match words.split_once(": ") {
            Some((subject, rest)) if subject.starts_with("volume '") && story.contains("volume '") => rest,
            _ => &words,
        };
        let separator = if story.is_empty() { "" } else { ": " };
        write!(story, "{separator}{news}").expect("a String takes everything");
    }
    story
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn corrupt() -> lsvd_volume::Error {
        lsvd_volume::Error::Corrupt {
            volume: "s3://acme/db1".into(),
            object: "log/0000000000000003".into(),
            reason: "checksum of the header differs at byte 12".into(),
        }
    }

    #[test]
    fn the_story_says_nothing_twice() {
        let error = Err::<(), _>(corrupt()).context("cannot open volume 'db1'").expect_err("is one");
        let expected = "cannot open volume 'db1': object 'log/0000000000000003' is corrupt: checksum of the header \
                        differs at byte 12";
        assert_eq!(words(&error), expected);
    }

    #[test]
    fn codes_by_what_the_caller_does_next() {
        let volume = || "db1".into();
        for (error, exit) in [
            (corrupt(), Exit::Corrupt),
            (lsvd_volume::Error::Fenced { volume: volume(), epoch: None }, Exit::Fenced),
            (lsvd_volume::Error::Newer { volume: volume(), what: "format 9".into() }, Exit::Corrupt),
            (lsvd_volume::Error::NotFound { volume: volume() }, Exit::Existence),
            (lsvd_volume::Error::Exists { volume: volume() }, Exit::Existence),
            (lsvd_volume::Error::Removed { volume: volume() }, Exit::Existence),
            (lsvd_volume::Error::Pinned { volume: volume(), by: "no".into() }, Exit::Pinned),
            (lsvd_volume::Error::Invalid("no".into()), Exit::Usage),
            (lsvd_volume::Error::UnsafeStore { volume: volume(), details: "no".into() }, Exit::UnsafeStore),
            (lsvd_volume::Error::Closed { volume: volume() }, Exit::Other),
        ] {
            let words = error.to_string();
            assert_eq!(of(&anyhow::Error::new(error).context("doing a thing")), exit, "{words}");
        }
        assert_eq!(of(&anyhow::Error::new(Usage("no".into()))), Exit::Usage);
        assert_eq!(of(&anyhow::anyhow!("plain")), Exit::Other);
    }
}

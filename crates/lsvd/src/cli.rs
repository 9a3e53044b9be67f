//! The command line: one definition that yields parser, help, man page and completions.
//!
//! Knows names, defaults and words; does nothing; each command's arguments are in a room of their own. Every default is said in the help. Invariant: no flag takes a
//! secret (rule 11): credentials come from the environment and from profiles alone. URLs are plain texts here: a
//! parser would have them repeated in its error, with whatever secret was typed into them by mistake.

mod adopt;
mod attach;
mod clone;
mod create;
mod demo;
mod diff;
mod doctor;
mod gc;
mod info;
mod log;
mod ls;
mod manual;
mod resize;
mod rm;
mod rollback;
mod serve;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod top;

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::adopt::Adopt;
pub(crate) use self::attach::{Attach, Detach};
pub(crate) use self::clone::{CloneOf, Flatten};
pub(crate) use self::create::Create;
pub(crate) use self::demo::Demo;
pub(crate) use self::diff::Diff;
pub(crate) use self::doctor::Doctor;
pub(crate) use self::gc::{Collecting, Gc, Upgrade};
pub(crate) use self::info::Info;
pub(crate) use self::log::Log;
pub(crate) use self::ls::Ls;
pub(crate) use self::manual::{Completions, Man};
pub(crate) use self::resize::Resize;
pub(crate) use self::rm::Rm;
pub(crate) use self::rollback::Rollback;
pub(crate) use self::serve::{Flush, Moments, Serve};
pub(crate) use self::snapshot::{
    Keeping, Snapshot, SnapshotAct, SnapshotCreate, SnapshotGroup, SnapshotLs, SnapshotRm, parse_retention,
};
pub(crate) use self::status::{ControlPlace, Status};
pub(crate) use self::top::Top;
use crate::units::parse_duration;

/// Version and commit, as `--version` prints them.
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("LSVD_COMMIT"), ")");

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    another error
  2    the command line is wrong
  3    the store is away, refuses or is full: credentials, network, configuration
  4    fenced: another writer took the volume over
  5    corrupt, or written by a newer lsvd
  6    not there, or there already; a moment that can not be reached
  7    the store does not hold create-only PUT, and nobody vouched for a single writer
  8    --if-free, adopt, gc, upgrade, resize, rollback, snapshot, clone, flatten, rm: somebody else seems to write the volume
  9    the local journal is needed, damaged, in use or another volume's, or its disk failed
  10   rm, snapshot rm, flatten: something that is kept needs the volume or the snapshot
  130  stopped at once by a second signal

Volumes are named by URL: file:///DIR/VOLUME, s3://BUCKET/PREFIX/VOLUME, az://CONTAINER/PREFIX/VOLUME,
gs://BUCKET/PREFIX/VOLUME, memory://NAME/VOLUME; serve, info, diff and clone take a moment of one behind it: URL@SNAPSHOT, URL@NUMBER
of the log, URL@2026-11-25T20:00:00Z. Credentials come from the environment (AWS_ACCESS_KEY_ID and the
like) or from a profile, never from the command line.";

/// Bottomless block volumes on object storage, served over NBD.
#[derive(Debug, Parser)]
#[command(name = "lsvd", version = VERSION, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Cli {
    /// How log lines on stderr are written. Before the command; most take it behind their name too
    #[arg(long, value_enum, default_value_t = LogFormat::Text, help_heading = "Logging")]
    pub(crate) log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or directives such as info,lsvd_volume=debug
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "LSVD_LOG",
        default_value = "info",
        help_heading = "Logging"
    )]
    pub(crate) log: String,

    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// How log lines are written, said behind a command's name. Commands that make a volume mean its log by `--log-format`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct LogLines {
    /// How log lines on stderr are written [default: text]
    #[arg(long, value_enum, help_heading = "Logging")]
    pub(crate) log_format: Option<LogFormat>,
}

/// The format of a volume's log objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ObjectFormat {
    /// That of the experiment from which lsvd descends, which its reader can read. No checksums, no trim, no journal, no
    /// fencing of late objects: needs --unsafe-single-writer
    #[value(name = "1")]
    V1,
    /// lsvd's own
    #[value(name = "2")]
    V2,
}

impl From<ObjectFormat> for lsvd_volume::ObjectFormat {
    fn from(format: ObjectFormat) -> Self {
        match format {
            ObjectFormat::V1 => Self::V1,
            ObjectFormat::V2 => Self::V2,
        }
    }
}

impl Cli {
    /// How log lines are written: what the command says counts.
    pub(crate) fn log_format(&self) -> LogFormat {
        let lines = match &self.command {
            Command::Serve(arguments) => Some(arguments.lines),
            Command::Ls(arguments) => Some(arguments.lines),
            Command::Info(arguments) => Some(arguments.lines),
            Command::Status(arguments) => Some(arguments.lines),
            Command::Top(arguments) => Some(arguments.lines),
            Command::Log(arguments) => Some(arguments.lines),
            Command::Gc(arguments) => Some(arguments.common.lines),
            Command::Upgrade(arguments) => Some(arguments.common.lines),
            Command::Rm(arguments) => Some(arguments.lines),
            Command::Rollback(arguments) => Some(arguments.lines),
            Command::Diff(arguments) => Some(arguments.lines),
            Command::Resize(arguments) => Some(arguments.lines),
            Command::Clone(arguments) => Some(arguments.common.lines),
            Command::Flatten(arguments) => Some(arguments.common.lines),
            Command::Snapshot(arguments) => Some(match &arguments.act {
                SnapshotAct::Create(arguments) => arguments.common.lines,
                SnapshotAct::Group(arguments) => arguments.lines,
                SnapshotAct::Ls(arguments) => arguments.lines,
                SnapshotAct::Rm(arguments) => arguments.common.lines,
            }),
            Command::Doctor(arguments) => Some(arguments.lines),
            Command::Attach(arguments) => Some(arguments.lines),
            Command::Detach(arguments) => Some(arguments.lines),
            Command::Demo(arguments) => Some(arguments.lines),
            _ => None,
        };
        lines.and_then(|lines| lines.log_format).unwrap_or(self.log_format)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new volume
    Create(Create),
    /// Make a volume of a bucket that the experiment's daemon wrote, copying nothing
    Adopt(Adopt),
    /// Serve volumes over NBD until a signal comes
    Serve(Box<Serve>),
    /// Attach an export to a device of this kernel, and reconnect it when its server comes back
    Attach(Attach),
    /// Detach a device of this kernel
    Detach(Detach),
    /// List the volumes below a URL
    Ls(Ls),
    /// Say what a volume is, writing nothing
    Info(Info),
    /// Say what the daemons of this host do
    Status(Status),
    /// Show what served volumes do at this moment: requests, times, lag, space
    Top(Top),
    /// List the objects of a volume's log, writing nothing
    Log(Log),
    /// Collect the garbage of a volume: by its daemon, or here if nobody serves it; a daemon does it by itself, too
    Gc(Gc),
    /// Write anew what a volume holds in objects of format 1, so that all of it has checksums
    Upgrade(Upgrade),
    /// Delete a volume, all of it
    Rm(Rm),
    /// Take a volume back to an earlier moment; what came since stays as a snapshot
    Rollback(Rollback),
    /// List what changed between two moments of a volume, writing nothing
    Diff(Diff),
    /// Give a volume that nobody serves another size
    Resize(Resize),
    /// Make, list and remove snapshots: named moments of a volume that stay
    Snapshot(Snapshot),
    /// Make a writable volume that begins as another one was at a moment, sharing its objects
    Clone(CloneOf),
    /// Copy what a clone shares, so that it lives without its parent
    Flatten(Flatten),
    /// Examine a store: what it promises, what it permits, how fast it is, what its settings would do to a volume
    Doctor(Doctor),
    /// Create, serve, write, kill, recover and verify a volume in a temporary directory
    Demo(Demo),
    /// Print the licences of everything in this program
    Licenses,
    /// Print a completion script
    Completions(Completions),
    /// Print the manual page, or write one for each command
    Man(Man),
}

/// How the store is reached.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Store")]
pub(crate) struct Store {
    /// Address of the S3 server, as http://127.0.0.1:9000 [default: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the cloud's]
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,

    /// Region of the bucket [default: AWS_REGION, the profile's, or what fits the endpoint]
    #[arg(long)]
    pub(crate) region: Option<String>,

    /// Allow an endpoint without TLS
    #[arg(long)]
    pub(crate) allow_http: bool,

    /// Put the bucket's name in the path of requests (the default with --endpoint)
    #[arg(long, conflicts_with = "virtual_hosted")]
    pub(crate) path_style: bool,

    /// Put the bucket's name in the host of requests (the default without --endpoint)
    #[arg(long)]
    pub(crate) virtual_hosted: bool,
}

/// The patience of commands that somebody waits for.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long the store is asked again while it does not answer
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("with none nothing would ever be done".into()),
        Ok(count) => Ok(count),
        Err(_) => Err(format!("'{text}' is not a number")),
    }
}

//! The command line: one definition that yields parser, help, man page and completions.
//!
//! Knows names, defaults and words; does nothing. Every default is said in the help. Invariant: no flag takes a
//! secret (rule 11): credentials come from the environment and from profiles alone. URLs are plain texts here: a
//! parser would have them repeated in its error, with whatever secret was typed into them by mistake.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::units::{parse_bytes, parse_duration, parse_volume_bytes};

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
  6    not there, or there already
  7    the store does not hold create-only PUT, and nobody vouched for a single writer
  8    --if-free, adopt: somebody else seems to write the volume
  9    the local journal is needed, damaged, in use or another volume's, or its disk failed
  130  stopped at once by a second signal

Volumes are named by URL: file:///DIR/VOLUME, s3://BUCKET/PREFIX/VOLUME, az://CONTAINER/PREFIX/VOLUME,
gs://BUCKET/PREFIX/VOLUME, memory://NAME/VOLUME. Credentials come from the environment (AWS_ACCESS_KEY_ID and the
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
    Serve(Serve),
    /// Attach an export to a device of this kernel, and reconnect it when its server comes back
    Attach(Attach),
    /// Detach a device of this kernel
    Detach(Detach),
    /// List the volumes below a URL
    Ls(Ls),
    /// Say what a volume is, writing nothing
    Info(Info),
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

/// `lsvd create`
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Where: the last segment is the volume's name
    pub(crate) url: String,

    /// Size of the device, as 64M or 1T (powers of 1,024). Nothing is paid for what was never written
    #[arg(long, value_parser = parse_volume_bytes)]
    pub(crate) size: u64,

    /// Numbers that a writer may be ahead of its first unfinished upload, for good
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(2..=65_536))]
    pub(crate) window: u64,

    /// Use a store without create-only PUT. Two writers at once then LOSE DATA: you vouch that there is one
    #[arg(long)]
    pub(crate) unsafe_single_writer: bool,

    /// Format of the log's objects, for good
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ObjectFormat::V2)]
    pub(crate) log_format: ObjectFormat,

    /// How long the store may be away.
    #[command(flatten)]
    pub(crate) patience: Patience,

    /// How the store is reached.
    #[command(flatten)]
    pub(crate) store: Store,
}

/// `lsvd adopt`
#[derive(Args, Debug)]
pub(crate) struct Adopt {
    /// Where the objects lie: a prefix, or a bucket alone, which is then the volume's name
    pub(crate) url: String,

    /// Size of the device, as 64M or 1T (powers of 1,024): what the old daemon served, or more
    #[arg(long, value_parser = parse_volume_bytes)]
    pub(crate) size: u64,

    /// Format of new objects, for good
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ObjectFormat::V2)]
    pub(crate) log_format: ObjectFormat,

    /// What the objects' names begin with below the URL, if not with their number: folders, each with its slash
    #[arg(long, value_name = "PREFIX", default_value = "")]
    pub(crate) log_prefix: String,

    /// The log begins with this number (decimal), and nothing before it is missing. Needed if that is neither 0 nor 1
    #[arg(long, value_name = "N")]
    pub(crate) first_number: Option<u64>,

    /// Refuse a log to which something was added this lately, by the store's clock
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) quiet_for: Duration,

    /// Numbers that a writer may be ahead of its first unfinished upload, for good
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(2..=65_536))]
    pub(crate) window: u64,

    /// Use format 1, or a store without create-only PUT. Two writers at once then LOSE DATA: you vouch that there is one
    #[arg(long)]
    pub(crate) unsafe_single_writer: bool,

    /// How long the store may be away.
    #[command(flatten)]
    pub(crate) patience: Patience,

    /// How the store is reached.
    #[command(flatten)]
    pub(crate) store: Store,
}

/// `lsvd serve`
#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// The volumes; each is an export named by its last segment, one alone is the default export too
    #[arg(required = true, value_name = "URL")]
    pub(crate) urls: Vec<String>,

    /// Where clients connect: unix:PATH or tcp:HOST:PORT; may be repeated
    /// [default: unix:DIR/VOLUME.sock, with $XDG_RUNTIME_DIR/lsvd or else /run/lsvd as DIR]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,

    /// Let tcp: addresses be reached from other hosts. There is NO AUTHENTICATION and no encryption: who connects
    /// reads and writes the volume
    #[arg(long)]
    pub(crate) allow_remote: bool,

    /// Serve as of now, writing nothing and fencing nobody; opens what is whole of a damaged volume
    #[arg(long, conflicts_with = "create")]
    pub(crate) read_only: bool,

    /// Create with this size what does not exist yet
    #[arg(long, value_name = "SIZE", value_parser = parse_volume_bytes)]
    pub(crate) create: Option<u64>,

    /// Use a store without create-only PUT. Two writers at once then LOSE DATA: you vouch that there is one
    #[arg(long)]
    pub(crate) unsafe_single_writer: bool,

    /// Open a log that lost its newest objects, as if they had never been written. For winding a volume back by
    /// deleting them on purpose; what they held is GONE
    #[arg(long, conflicts_with = "read_only")]
    pub(crate) accept_shorter_log: bool,

    /// Take a volume over only if it was closed cleanly, or nothing was stored in it for this long by the store's clock
    /// [one minute if no time is given]. A writer that is idle can not be seen
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "60s",
        value_parser = parse_duration, conflicts_with = "read_only")]
    pub(crate) if_free: Option<Duration>,

    /// How long a first SIGTERM or SIGINT waits for the store to take what is buffered; then the daemon ends as after a
    /// crash: what was flushed is safe
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = parse_duration)]
    pub(crate) shutdown_timeout: Duration,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,

    /// The local journal.
    #[command(flatten)]
    pub(crate) journal: Journal,

    /// Log what each volume holds and has done, this often [default: never]: docs/json.md has the fields
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) stats_interval: Option<Duration>,

    /// Ceilings.
    #[command(flatten)]
    pub(crate) limits: Limits,

    /// How the store is reached.
    #[command(flatten)]
    pub(crate) store: Store,
}

/// What a flush waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flush {
    /// The store holds it: losing this host loses nothing that was flushed
    Object,
    /// The local journal holds it: fast, but losing its disk loses what the store does not hold yet
    Journal,
}

/// The local journal.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Local journal")]
pub(crate) struct Journal {
    /// When FLUSH, FUA and fsync are answered
    #[arg(long, value_enum, default_value_t = Flush::Object, conflicts_with = "read_only")]
    pub(crate) flush: Flush,

    /// Where journals are kept, on a local disk that survives: each volume's in a folder of its name. Needs --flush journal
    #[arg(long, value_name = "DIR")]
    pub(crate) journal: Option<PathBuf>,

    /// What each volume's journal may take of the disk; when it is full, flushes wait for the store
    #[arg(long, value_name = "SIZE", default_value = "8G", value_parser = parse_bytes)]
    pub(crate) journal_size: u64,

    /// Open a volume whose journal is lost or damaged, or can not be replayed any more. What only that journal holds is
    /// GONE, flushed or not: what is known of it is said first
    #[arg(long, conflicts_with = "read_only")]
    pub(crate) abandon_journal: bool,
}

/// The ceilings of each served volume.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Ceilings, for each volume")]
pub(crate) struct Limits {
    /// Memory for chunks that were read
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_bytes)]
    pub(crate) cache: u64,

    /// Memory for writes that the store does not hold yet; beyond it writes wait
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = parse_bytes)]
    pub(crate) buffer: u64,

    /// A log object is sealed when it holds this much
    #[arg(long, value_name = "SIZE", default_value = "8M", value_parser = parse_bytes)]
    pub(crate) batch: u64,

    /// A log object is sealed when its first write is this old: what a crash can take of unflushed writes
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub(crate) batch_age: Duration,

    /// Uploads in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    pub(crate) uploads: usize,

    /// Uploads in flight for flushes; beyond it flushes wait and share the next one
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    pub(crate) flush_uploads: usize,

    /// Fetches in flight
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub(crate) fetches: usize,

    /// How long a request waits for the store before it fails; service resumes when the store is back
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) io_timeout: Duration,
}

/// `lsvd attach`
#[derive(Args, Debug)]
pub(crate) struct Attach {
    /// The export, as `lsvd serve` prints it: nbd+unix:///NAME?socket=PATH or nbd://HOST:PORT/NAME
    pub(crate) uri: String,

    /// The device, as /dev/nbd0
    pub(crate) device: String,

    /// Connections; more are quicker where both sides have the cores for it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) connections: u32,

    /// Bytes of a logical block: 512, 1024, 2048 or 4096. A partition table or file system made with one size is not read
    /// with another
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    pub(crate) block_size: u32,

    /// Cut a connection off whose request takes longer, and send its requests again on a new one. Make it longer than the
    /// daemon's own --io-timeout [default: none is cut off; what was in flight when a connection died is sent again
    /// within 30 s]
    #[arg(long, value_name = "DURATION", value_parser = whole_seconds)]
    pub(crate) timeout: Option<Duration>,

    /// While the server is away, requests wait this long before they fail, and the device with them
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = whole_seconds)]
    pub(crate) dead_conn_timeout: Duration,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,
}

/// `lsvd detach`
#[derive(Args, Debug)]
pub(crate) struct Detach {
    /// The device, as /dev/nbd0
    pub(crate) device: String,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,
}

/// `lsvd ls`
#[derive(Args, Debug)]
pub(crate) struct Ls {
    /// The prefix below which volumes are looked for
    pub(crate) url: String,

    /// Print JSON: docs/json.md has the fields
    #[arg(long)]
    pub(crate) json: bool,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,

    /// How long the store may be away.
    #[command(flatten)]
    pub(crate) patience: Patience,

    /// How the store is reached.
    #[command(flatten)]
    pub(crate) store: Store,
}

/// `lsvd info`
#[derive(Args, Debug)]
pub(crate) struct Info {
    /// The volume
    pub(crate) url: String,

    /// Say what only the local journal in this directory holds: the one that `serve --journal` has
    #[arg(long, value_name = "DIR")]
    pub(crate) journal: Option<PathBuf>,

    /// Print JSON: docs/json.md has the fields
    #[arg(long)]
    pub(crate) json: bool,

    /// How long the store may be away.
    #[command(flatten)]
    pub(crate) patience: Patience,

    /// How the store is reached.
    #[command(flatten)]
    pub(crate) store: Store,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,
}

/// `lsvd doctor`
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// A volume, or where one is to be; its objects are not touched. Some 100 MB are sent and as many fetched, and
    /// removed again
    pub(crate) url: String,

    /// Print JSON: docs/json.md has the fields
    #[arg(long)]
    pub(crate) json: bool,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,

    /// How long the store may be away.
    #[command(flatten)]
    pub(crate) patience: Patience,

    /// How the store is reached.
    #[command(flatten)]
    pub(crate) store: Store,
}

/// `lsvd demo`
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Where the demo makes its own directory, which it removes at the end [default: the system's temporary directory]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,

    /// How much is written in one stream
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = demo_bytes)]
    pub(crate) data: u64,

    /// Leave the directory there
    #[arg(long)]
    pub(crate) keep: bool,

    /// How log lines are written.
    #[command(flatten)]
    pub(crate) lines: LogLines,
}

/// `lsvd completions`
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// `lsvd man`
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Write lsvd.1, lsvd-create.1 and so on here
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("with none nothing would ever be done".into()),
        Ok(count) => Ok(count),
        Err(_) => Err(format!("'{text}' is not a number")),
    }
}

/// The kernel counts in these.
fn whole_seconds(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration.is_zero() || duration.subsec_nanos() != 0 {
        return Err("the kernel counts in whole seconds, from 1s on".into());
    }
    Ok(duration)
}

fn demo_bytes(text: &str) -> Result<u64, String> {
    const MIB: u64 = 1 << 20;
    let bytes = parse_bytes(text)?;
    if !(MIB..=64 << 30).contains(&bytes) || !bytes.is_multiple_of(MIB) {
        return Err("the demo writes whole MiB, from 1M to 64G".into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// Rule 11: what could be a secret has no flag.
    #[test]
    fn no_flag_takes_a_secret() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                for word in ["key", "secret", "token", "password", "credential"] {
                    assert!(!name.contains(word), "{} --{name}", command.get_name());
                }
            }
        }
    }

    /// The defaults that the help promises are the library's own.
    #[test]
    fn defaults_are_the_librarys() {
        let cli = Cli::parse_from(["lsvd", "serve", "memory://a/b"]);
        let Command::Serve(serve) = cli.command else { panic!("serve was asked for") };
        let library = lsvd_volume::OpenOptions::default();
        assert_eq!(serve.limits.cache, library.cache_bytes_max);
        assert_eq!(serve.limits.buffer, library.buffer_bytes_max);
        assert_eq!(serve.limits.batch, library.batch_bytes_max);
        assert_eq!(serve.limits.batch_age, library.batch_age_max);
        assert_eq!(serve.limits.uploads, library.uploads_max);
        assert_eq!(serve.limits.flush_uploads, library.flush_uploads_max);
        assert_eq!(serve.limits.fetches, library.fetches_max);
        assert_eq!(serve.limits.io_timeout, library.io_timeout);
        let journal = lsvd_volume::JournalOptions::directory(std::path::Path::new("j"));
        assert_eq!(serve.journal.journal_size, journal.bytes_max);
        let cli = Cli::parse_from(["lsvd", "attach", "nbd://host/db1", "/dev/nbd0"]);
        let Command::Attach(attach) = cli.command else { panic!("attach was asked for") };
        let library = lsvd_nbd::attach::AttachOptions::default();
        assert_eq!(attach.connections, library.connections);
        assert_eq!(attach.block_size, library.block_size_bytes);
        assert_eq!(attach.timeout, library.timeout);
        assert_eq!(attach.dead_conn_timeout, library.dead_connection_timeout);
        let Command::Adopt(adopt) =
            Cli::parse_from(["lsvd", "adopt", "memory://a/b", "--size", "1M"]).command
        else {
            panic!("adopt was asked for")
        };
        let library = lsvd_volume::AdoptOptions::new(1 << 20);
        assert_eq!(adopt.quiet_for, library.quiet_for);
        assert_eq!(adopt.log_prefix, library.log_prefix);
        assert_eq!(adopt.window, library.create.window);
        assert_eq!(lsvd_volume::ObjectFormat::from(adopt.log_format), library.create.log_format);
    }

    /// `--log-format` is how lines are written, but for the commands that make a volume: its log's, then.
    #[test]
    fn log_lines_and_the_log_have_formats_of_their_own() {
        let lines = |arguments: &[&str]| Cli::try_parse_from(arguments).map(|cli| cli.log_format());
        assert_eq!(
            lines(&["lsvd", "--log-format", "json", "serve", "memory://a/b"]).ok(),
            Some(LogFormat::Json)
        );
        assert_eq!(
            lines(&["lsvd", "serve", "memory://a/b", "--log-format", "json"]).ok(),
            Some(LogFormat::Json)
        );
        assert_eq!(lines(&["lsvd", "info", "memory://a/b"]).ok(), Some(LogFormat::Text));
        let create =
            ["lsvd", "--log-format", "json", "create", "memory://a/b", "--size", "1M", "--log-format", "1"];
        let cli = Cli::try_parse_from(create).unwrap();
        assert_eq!(cli.log_format(), LogFormat::Json);
        let Command::Create(create) = cli.command else { panic!("create was asked for") };
        assert_eq!(create.log_format, ObjectFormat::V1);
        assert!(lines(&["lsvd", "create", "memory://a/b", "--size", "1M", "--log-format", "json"]).is_err());
    }
}

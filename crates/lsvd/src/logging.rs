//! Log lines on stderr.
//!
//! Knows `tracing` and the two forms; stdout is never written to. Invariant: libraries that speak to the network
//! stay quiet below warnings unless they are named, so that no header of a request is ever logged by accident
//! (rule 11).

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;
use crate::exit::Usage;

const QUIET: &str = "object_store=warn,hyper=warn,hyper_util=warn,reqwest=warn,rustls=warn,h2=warn";

/// Has everything logged from here on, as `level` (a level or directives) and `format` say.
///
/// # Errors
/// If `level` does not parse: the user mends it.
pub(crate) fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let filter = filter(level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        }
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).with_target(false).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    // What comes later wins, so a directive of the user's may still name a quiet one.
    let filter = EnvFilter::try_new(format!("{QUIET},{level}"));
    filter.map_err(|error| Usage(format!("'{level}' is neither a log level nor directives: {error}")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives() {
        for level in ["info", "debug", "warn,lsvd_volume=trace", "trace,object_store=debug", ""] {
            assert!(filter(level).is_ok(), "{level}");
        }
        let quiet = filter("debug").expect("is a level").to_string();
        assert!(quiet.contains("object_store=warn") && quiet.contains("debug"), "{quiet}");
        let named = filter("info,object_store=debug").expect("are directives").to_string();
        assert!(!named.contains("object_store=warn"), "{named}");
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        let error = filter("lsvd=loudly").expect_err("is no level");
        assert_eq!(crate::exit::of(&error), crate::exit::Exit::Usage);
    }
}

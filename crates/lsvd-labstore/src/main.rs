//! `lsvd-labstore`: the lab store as a process of its own.
//!
//! Knows the command line. Prints one line, the endpoint, when clients may come, and serves until it is killed.

use std::io::Write;
use std::net::SocketAddr;

use clap::Parser;
use lsvd_labstore::{LabOptions, LabStore, Latency, Line, Rule};

/// Serves S3 from memory, for tests and benchmarks: no signature is verified, and nothing outlives the process.
#[derive(Debug, Parser)]
#[command(name = "lsvd-labstore")]
struct Arguments {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A bucket that is there from the start; may be repeated
    #[arg(long, value_name = "NAME", default_value = "lab")]
    bucket: Vec<String>,
    /// What chance is drawn from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Time to the first byte of answers in milliseconds, for all verbs or some: [PUT,GET=]MEDIAN[:P99]; may be
    /// repeated
    #[arg(long, value_name = "MS", value_parser = latency)]
    latency: Vec<Latency>,
    /// Bandwidth that the bodies of all requests share, in bytes per second
    #[arg(long, value_name = "BYTES")]
    up: Option<u64>,
    /// Bandwidth that the bodies of all answers share, in bytes per second
    #[arg(long, value_name = "BYTES")]
    down: Option<u64>,
    /// How to misbehave, as JSON: {"fault": "slow-down", "verbs": ["PUT"], "key": "log/", "rate": 0.2, "count": 5};
    /// may be repeated. Faults: slow-down, reset, hang, truncate, lose-answer, stale-listing,
    /// expired-token, ignore-condition
    #[arg(long, value_name = "RULE", value_parser = rule)]
    fault: Vec<Rule>,
}

fn rule(text: &str) -> Result<Rule, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn latency(text: &str) -> Result<Latency, String> {
    let (verbs, times) = text.split_once('=').unwrap_or(("", text));
    let verb = |name: &str| serde_json::from_value(name.into()).map_err(|_| format!("'{name}' is no verb"));
    let verbs = verbs.split(',').filter(|name| !name.is_empty()).map(verb).collect::<Result<_, _>>()?;
    let (median, p99) = times.split_once(':').unwrap_or((times, "0"));
    let ms = |text: &str| match text.parse::<f64>() {
        Ok(ms) if ms.is_finite() && ms >= 0.0 => Ok(ms),
        _ => Err(format!("'{text}' is no time in milliseconds")),
    };
    Ok(Latency { verbs, median_ms: ms(median)?, p99_ms: ms(p99)? })
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let line =
        Line { latency: arguments.latency, up_bytes_per_s: arguments.up, down_bytes_per_s: arguments.down };
    let options = LabOptions {
        listen: arguments.listen,
        buckets: arguments.bucket,
        seed: arguments.seed,
        line,
        faults: arguments.fault,
    };
    let lab = LabStore::start(options).await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", lab.endpoint())?;
    stdout.flush()?;
    lab.serve().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_read() {
        let all = latency("20:150").unwrap();
        assert_eq!((all.verbs.len(), all.median_ms, all.p99_ms), (0, 20.0, 150.0));
        assert_eq!(latency("PUT,GET=0.5").unwrap().verbs.len(), 2);
        for bad in ["", "x", "POST=1", "-1", "1:x", "inf", "NaN"] {
            assert!(latency(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        let bad = Arguments::try_parse_from(["lsvd-labstore", "--fault", "{}"]).unwrap_err().to_string();
        assert!(bad.contains("missing field `fault`"), "{bad}");
    }
}

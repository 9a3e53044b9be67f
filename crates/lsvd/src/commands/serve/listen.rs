//! Which addresses a daemon listens on.
//!
//! Knows texts and one directory; binds nothing. Invariant: an address that other hosts can reach needs the user's
//! explicit word, because nobody who connects is asked who they are.

use std::env;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use listenfd::ListenFd;
use lsvd_nbd::{AddressError, ListenAddress, Listener};

use crate::exit::Usage;

/// The addresses that `texts` name, or the default one for these exports.
///
/// # Errors
/// If one does not parse, is given twice, or can be reached from other hosts without permission.
pub(crate) fn addresses(
    texts: &[String],
    names: &[&str],
    allow_remote: bool,
) -> anyhow::Result<Vec<ListenAddress>> {
    if texts.is_empty() {
        let runtime_dir = env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
        let path = default_path(runtime_dir.map(PathBuf::from), names);
        make_parent(&path)?;
        return Ok(vec![ListenAddress::Unix(path)]);
    }
    let mut addresses = Vec::new();
    for text in texts {
        let address: ListenAddress = text.parse().map_err(|error: AddressError| Usage(error.to_string()))?;
        if addresses.contains(&address) {
            return Err(Usage(format!("'{address}' is given twice")).into());
        }
        if !address.is_local() {
            check_remote(&address, allow_remote)?;
        }
        addresses.push(address);
    }
    Ok(addresses)
}

/// The sockets that a service manager hands over (`LISTEN_FDS`, as systemd's socket activation does).
///
/// # Errors
/// If one is no listening stream socket, or can be reached from other hosts without permission.
pub(crate) fn handed_over(allow_remote: bool) -> anyhow::Result<Vec<Listener>> {
    let mut handed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..handed.len() {
        // Of the wrong kind is an error that leaves it in its place for the next question.
        let listener = match handed.take_unix_listener(index) {
            Ok(Some(unix)) => Listener::from_unix(unix)?,
            _ => match handed.take_tcp_listener(index) {
                Ok(Some(tcp)) => Listener::from_tcp(tcp)?,
                _ => {
                    let what = format!(
                        "socket {index} of LISTEN_FDS is neither a unix nor a TCP socket that listens"
                    );
                    return Err(Usage(what).into());
                }
            },
        };
        if !listener.address().is_local() {
            check_remote(listener.address(), allow_remote)?;
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

fn check_remote(address: &ListenAddress, allow_remote: bool) -> anyhow::Result<()> {
    if !allow_remote {
        let what = format!(
            "other hosts can reach '{address}', and there is no authentication: whoever connects reads and writes \
             the volume. Listen on tcp:127.0.0.1, or say --allow-remote if that is what you want"
        );
        return Err(Usage(what).into());
    }
    tracing::warn!(%address, "other hosts can reach this address: there is no authentication and no encryption");
    Ok(())
}

fn default_path(runtime_dir: Option<PathBuf>, names: &[&str]) -> PathBuf {
    let dir = runtime_dir.unwrap_or_else(|| PathBuf::from("/run")).join("lsvd");
    match names {
        [name] => dir.join(format!("{name}.sock")),
        _ => dir.join("lsvd.sock"),
    }
}

fn make_parent(path: &Path) -> anyhow::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| {
        format!("cannot make '{}' for the socket; choose one with --listen unix:PATH", dir.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{self, Exit};

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn remote_addresses_need_permission() {
        for text in ["tcp:0.0.0.0:10809", "tcp:[::]:1", "tcp:example.org:1"] {
            let error = addresses(&texts(&[text]), &["a"], false).expect_err(text);
            assert_eq!(exit::of(&error), Exit::Usage);
            assert!(error.to_string().contains("no authentication"), "{error}");
            assert!(addresses(&texts(&[text]), &["a"], true).is_ok(), "{text}");
        }
        for text in ["tcp:127.0.0.1:0", "tcp:localhost:1", "tcp:[::1]:1", "unix:/x/y.sock"] {
            assert!(addresses(&texts(&[text]), &["a"], false).is_ok(), "{text}");
        }
    }

    #[test]
    fn nonsense_and_doubles_are_usage_errors() {
        for given in [texts(&["/x.sock"]), texts(&["unix:/x.sock", "unix:/x.sock"])] {
            let error = addresses(&given, &["a"], false).expect_err("is wrong");
            assert_eq!(exit::of(&error), Exit::Usage, "{error}");
        }
    }

    #[test]
    fn the_default_is_named_after_the_volume() {
        assert_eq!(default_path(None, &["db1"]), Path::new("/run/lsvd/db1.sock"));
        assert_eq!(
            default_path(Some("/run/user/7".into()), &["db1"]),
            Path::new("/run/user/7/lsvd/db1.sock")
        );
        assert_eq!(default_path(None, &["db1", "db2"]), Path::new("/run/lsvd/lsvd.sock"));
    }
}

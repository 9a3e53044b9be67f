//! Where a server listens, as people write it (`unix:PATH`, `tcp:HOST:PORT`) and as clients paste it (`nbd://…`).
//!
//! It opens nothing and resolves no names.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The port that IANA gave to NBD.
pub const DEFAULT_PORT: u16 = 10809;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A unix socket at this path.
    Unix(PathBuf),
    /// A TCP port of a host name or IP address (IPv6 without brackets).
    Tcp {
        /// Name or address.
        host: String,
        /// Port; 0 lets the system choose.
        port: u16,
    },
}

/// An address that can not be understood: it says what can be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot listen on '{text}': {reason}")]
pub struct AddressError {
    text: String,
    reason: &'static str,
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    /// `unix:PATH`, `tcp:HOST:PORT`, `tcp:HOST` (port 10809) or `tcp:PORT` (of 127.0.0.1). IPv6 is `tcp:[::1]:PORT`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refuse = |reason| AddressError { text: text.to_owned(), reason };
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(refuse("the path is empty; write unix:/run/name.sock"));
            }
            if path.contains('\0') {
                return Err(refuse("a path holds no NUL"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let Some(rest) = text.strip_prefix("tcp:") else {
            return Err(refuse("write unix:PATH or tcp:HOST:PORT"));
        };
        parse_tcp(rest).map_err(refuse)
    }
}

fn parse_tcp(rest: &str) -> Result<ListenAddress, &'static str> {
    const BAD_PORT: &str = "the port is a number from 0 to 65535";
    if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
        let port = rest.parse().map_err(|_| BAD_PORT)?;
        return Ok(ListenAddress::Tcp { host: "127.0.0.1".to_owned(), port });
    }
    let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
        let (host, after) =
            bracketed.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
        if !host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) {
            return Err("what is in brackets is not an IPv6 address");
        }
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err("a port follows the bracket after a colon: tcp:[::1]:10809"),
        }
    } else {
        match rest.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("an IPv6 address needs brackets: tcp:[::1]:10809");
            }
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        }
    };
    if host.is_empty() {
        return Err("the host is missing: 127.0.0.1 serves this machine only, 0.0.0.0 everybody");
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        return Err("that is not a host name");
    }
    let port = match port {
        Some(port) if port.starts_with('+') => return Err(BAD_PORT),
        Some(port) => port.parse().map_err(|_| BAD_PORT)?,
        None => DEFAULT_PORT,
    };
    Ok(ListenAddress::Tcp { host: host.to_owned(), port })
}

impl fmt::Display for ListenAddress {
    /// As [`FromStr`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

impl ListenAddress {
    /// Only this machine can connect. Warn before listening elsewhere: NBD as served here has no authentication.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host.eq_ignore_ascii_case("localhost")
                    || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }

    /// The URI by which clients reach `export` here, ready to paste: `nbd+unix:///NAME?socket=PATH` or
    /// `nbd://HOST:PORT/NAME`, percent-encoded. An address that means "all interfaces" is given as loopback.
    pub fn uri(&self, export: &str) -> String {
        let name = percent_encode(export.as_bytes());
        match self {
            Self::Unix(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                format!("nbd+unix:///{name}?socket={}", percent_encode(path_bytes(&path)))
            }
            Self::Tcp { host, port } => {
                let host = match host.parse::<IpAddr>() {
                    Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".to_owned(),
                    Ok(IpAddr::V6(address)) if address.is_unspecified() => "[::1]".to_owned(),
                    Ok(IpAddr::V6(address)) => format!("[{address}]"),
                    _ => percent_encode(host.as_bytes()),
                };
                format!("nbd://{host}:{port}/{name}")
            }
        }
    }
}

fn path_bytes(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}

/// RFC 3986: unreserved characters and the slash stay, all else is encoded.
fn percent_encode(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for nibble in [byte >> 4, byte & 15] {
                encoded.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> ListenAddress {
        ListenAddress::Tcp { host: host.into(), port }
    }

    #[test]
    fn addresses_that_people_write() {
        for (text, expected) in [
            ("unix:/run/a b.sock", ListenAddress::Unix("/run/a b.sock".into())),
            ("tcp:127.0.0.1:0", tcp("127.0.0.1", 0)),
            ("tcp:example.org:10810", tcp("example.org", 10810)),
            ("tcp:example.org", tcp("example.org", DEFAULT_PORT)),
            ("tcp:10810", tcp("127.0.0.1", 10810)),
            ("tcp:[::1]:10809", tcp("::1", 10809)),
            ("tcp:[::]", tcp("::", DEFAULT_PORT)),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address, expected, "{text}");
            assert_eq!(address.to_string().parse::<ListenAddress>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn addresses_that_make_no_sense_say_why() {
        for (text, why) in [
            ("/run/x.sock", "write unix:PATH or tcp:HOST:PORT"),
            ("", "write unix:PATH"),
            ("unix:", "the path is empty"),
            ("unix:a\0b", "NUL"),
            ("tcp:", "the host is missing"),
            ("tcp::10809", "the host is missing"),
            ("tcp:::1:10809", "needs brackets"),
            ("tcp:[::1", "not closed"),
            ("tcp:[::1]10809", "after a colon"),
            ("tcp:[host]:1", "not an IPv6 address"),
            ("tcp:host:65536", "from 0 to 65535"),
            ("tcp:host:+1", "from 0 to 65535"),
            ("tcp:host:", "from 0 to 65535"),
            ("tcp:99999", "from 0 to 65535"),
            ("tcp:nbd/x:1", "not a host name"),
            ("tcp:a b:1", "not a host name"),
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn uris_are_percent_encoded() {
        let unix = ListenAddress::Unix("/run/lsvd/ä b&c.sock".into());
        assert_eq!(unix.uri("db1"), "nbd+unix:///db1?socket=/run/lsvd/%C3%A4%20b%26c.sock");
        assert_eq!(unix.uri(""), "nbd+unix:///?socket=/run/lsvd/%C3%A4%20b%26c.sock");
        assert_eq!(tcp("localhost", 10809).uri("a/b?c#d%"), "nbd://localhost:10809/a/b%3Fc%23d%25");
        assert_eq!(tcp("::1", 1).uri("x"), "nbd://[::1]:1/x");
        assert_eq!(tcp("0.0.0.0", 1).uri("x"), "nbd://127.0.0.1:1/x");
        assert_eq!(tcp("::", 1).uri("x"), "nbd://[::1]:1/x");
        let relative = ListenAddress::Unix("x.sock".into()).uri("");
        assert!(relative.starts_with("nbd+unix:///?socket=/") && relative.ends_with("/x.sock"), "{relative}");
    }

    #[test]
    fn only_loopback_and_unix_are_local() {
        for (text, local) in [
            ("unix:/x", true),
            ("tcp:localhost:1", true),
            ("tcp:127.8.0.1:1", true),
            ("tcp:[::1]:1", true),
            ("tcp:0.0.0.0:1", false),
            ("tcp:[::]:1", false),
            ("tcp:example.org:1", false),
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().is_local(), local, "{text}");
        }
    }
}

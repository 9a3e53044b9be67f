//! URIs of exports, as servers print them and people paste them: `nbd://HOST:PORT/NAME`, `nbd+unix:///NAME?socket=PATH`.
//!
//! The other direction of [`ListenAddress::uri`](crate::ListenAddress::uri). Resolves no names.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::address::{DEFAULT_PORT, ListenAddress};

/// Where an export is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdUri {
    /// The server.
    pub server: ListenAddress,
    /// The export's name; the default export has none.
    pub export: String,
}

/// A URI that can not be understood: it says what can be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no URI of an export: {reason}")]
pub struct UriError {
    text: String,
    reason: &'static str,
}

impl FromStr for NbdUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        parse(text).map_err(|reason| UriError { text: text.to_owned(), reason })
    }
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server.uri(&self.export))
    }
}

fn parse(text: &str) -> Result<NbdUri, &'static str> {
    if let Some(rest) = text.strip_prefix("nbd+unix://") {
        let path = rest
            .strip_prefix('/')
            .ok_or("three slashes come before the export: nbd+unix:///NAME?socket=PATH")?;
        let (name, query) =
            path.split_once('?').ok_or("the socket is missing: nbd+unix:///NAME?socket=PATH")?;
        let socket = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("socket="))
            .filter(|socket| !socket.is_empty())
            .ok_or("the socket is missing: nbd+unix:///NAME?socket=PATH")?;
        let server = ListenAddress::Unix(PathBuf::from(decode(socket)?));
        return Ok(NbdUri { server, export: decode(name)? });
    }
    let rest =
        text.strip_prefix("nbd://").ok_or("write nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH")?;
    let (authority, name) = rest.split_once('/').unwrap_or((rest, ""));
    if name.contains(['?', '#']) || authority.contains(['@', '?', '#']) {
        return Err("nothing but host, port and export can be said: nbd://HOST:PORT/NAME");
    }
    // A bracket holds colons of its own.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().map_err(|_| "the port is a number from 1 to 65535")?)
        }
        _ => (authority, DEFAULT_PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || port == 0 {
        return Err("host and port are needed: nbd://HOST:PORT/NAME");
    }
    Ok(NbdUri { server: ListenAddress::Tcp { host: decode(host)?, port }, export: decode(name)? })
}

/// RFC 3986: a percent sign and two digits are a byte.
fn decode(text: &str) -> Result<String, &'static str> {
    const BAD: &str = "two hexadecimal digits follow a percent sign";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or(BAD);
            let (high, low) = (digit()?, digit()?);
            bytes.push(u8::try_from(high << 4 | low).map_err(|_| BAD)?);
        } else {
            bytes.push(byte);
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err("names and paths are UTF-8 without NUL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_print_is_read_back() {
        for (listen, export) in [
            ("unix:/run/lsvd/ä b&c=d?.sock", "db1"),
            ("unix:/x.sock", ""),
            ("tcp:127.0.0.1:10809", "a/b?c#d%"),
            ("tcp:[::1]:1", "x"),
            ("tcp:example.org:2", ""),
        ] {
            let server: ListenAddress = listen.parse().unwrap();
            let uri = server.uri(export);
            let read: NbdUri = uri.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(read, NbdUri { server, export: export.to_owned() }, "{uri}");
            assert_eq!(read.to_string(), uri);
        }
        let short: NbdUri = "nbd://host".parse().unwrap();
        assert_eq!(short.server, ListenAddress::Tcp { host: "host".into(), port: DEFAULT_PORT });
        let bare: NbdUri = "nbd://[::1]/x".parse().unwrap();
        assert_eq!(bare.server, ListenAddress::Tcp { host: "::1".into(), port: DEFAULT_PORT });
    }

    #[test]
    fn what_makes_no_sense_says_what_can_be_written() {
        for (text, why) in [
            ("/run/x.sock", "write nbd://HOST:PORT/NAME"),
            ("nbds://host/x", "write nbd://"),
            ("nbd+unix:///db1", "the socket is missing"),
            ("nbd+unix:///db1?socket=", "the socket is missing"),
            ("nbd+unix://db1?socket=/x", "three slashes"),
            ("nbd://", "host and port are needed"),
            ("nbd://host:0/x", "host and port are needed"),
            ("nbd://host:99999/x", "from 1 to 65535"),
            ("nbd://user@host/x", "nothing but host"),
            ("nbd://host/x?tls=1", "nothing but host"),
            ("nbd://host/%4", "two hexadecimal digits"),
            ("nbd://host/%ff", "UTF-8"),
        ] {
            let error = text.parse::<NbdUri>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

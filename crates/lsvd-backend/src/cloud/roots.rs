//! Which certificate authorities are trusted: those bundled with the program and those of this host.
//!
//! The bundled ones make an image without CA certificates work; the host's make a private authority work. Invariant:
//! a host whose certificates are missing or malformed still gets the bundled ones.

use std::path::{Path, PathBuf};

use reqwest::Certificate;

use crate::environment::Environment;

/// Where distributions keep all roots in one file, most frequent first.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// The roots that come with the program (Mozilla's list).
pub(super) fn bundled() -> Vec<Certificate> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .filter_map(|der| Certificate::from_der(der).ok())
        .collect()
}

/// The roots of this host: those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where set, else its usual bundle.
pub(super) fn of_host(environment: &Environment) -> Vec<Certificate> {
    let file = environment.get("SSL_CERT_FILE").map(PathBuf::from);
    let folders =
        environment.get("SSL_CERT_DIR").map(|folders| std::env::split_paths(folders).collect::<Vec<_>>());
    if file.is_none() && folders.is_none() {
        let bundle = BUNDLES.iter().map(Path::new).find(|path| path.exists());
        return bundle.map(read).unwrap_or_default();
    }
    let in_folders = folders.unwrap_or_default().into_iter().flat_map(|folder| match std::fs::read_dir(&folder) {
        // Distributions keep folders of other formats beside the certificates.
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| !path.is_dir()).collect(),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "SSL_CERT_DIR names a folder that can not be read");
            Vec::new()
        }
    });
    file.into_iter().chain(in_folders).flat_map(|path| read(&path)).collect()
}

fn read(path: &Path) -> Vec<Certificate> {
    let pem = match std::fs::read(path) {
        Ok(pem) => pem,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a file of certificates can not be read");
            return Vec::new();
        }
    };
    Certificate::from_pem_bundle(&pem).unwrap_or_else(|_| {
        tracing::warn!(path = %path.display(), "a file of certificates holds something else; it is passed over");
        Vec::new()
    })
}

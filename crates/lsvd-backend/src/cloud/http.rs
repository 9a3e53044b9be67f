//! How HTTP is spoken: trusted roots, no redirects, connections enough for a hundred requests at once.
//!
//! Names the host that did not answer, which the store's URL does not where an endpoint is configured. Knows no protocol
//! of a store. Sets no time limit on a request: the loop of attempts does (`retry`), on one clock.

use std::time::Duration;

use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::{Certificate, Client, ClientBuilder, redirect};

use super::roots;
use crate::environment::Environment;

/// Longest wait for a connection. A host that is there answers within a round trip.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle connections that are kept to a host: as many as the requests that are in flight at once, and some.
const IDLE_CONNECTIONS_MAX: usize = 128;

/// How long an idle connection is kept: shorter than the minute after which most balancers close it unannounced.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Makes the clients that `object_store` speaks through.
#[derive(Debug)]
pub(super) struct Connector {
    roots: Vec<Certificate>,
}

impl Connector {
    pub(super) fn new(environment: &Environment) -> Self {
        let mut roots = roots::bundled();
        let of_host = roots::of_host(environment);
        if client(roots.iter().chain(&of_host), false).build().is_ok() {
            roots.extend(of_host);
        } else {
            // One certificate that the verifier does not like would make all connections fail, http ones too.
            let count = of_host.len();
            let good = of_host.into_iter().filter(|root| client([root], false).build().is_ok());
            let before = roots.len();
            roots.extend(good);
            tracing::warn!(
                passed_over = count - (roots.len() - before),
                "some of this host's roots are malformed"
            );
        }
        Connector { roots }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allow_http = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let client = client(&self.roots, allow_http).build().map_err(|error| {
            object_store::Error::Generic { store: "HTTP client", source: Box::new(error.without_url()) }
        })?;
        Ok(HttpClient::new(NamesHost(client)))
    }
}

/// A client whose failures to connect say where to.
#[derive(Debug)]
struct NamesHost(Client);

/// No connection: the host with its port, and the last cause only, since the others repeat it.
#[derive(Debug, thiserror::Error)]
#[error("no connection to {host}: {cause}")]
struct NoConnection {
    host: String,
    cause: String,
}

#[async_trait]
impl HttpService for NamesHost {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let uri = request.uri().clone();
        let error = match HttpService::call(&self.0, request).await {
            Err(error) if matches!(error.kind(), HttpErrorKind::Connect | HttpErrorKind::Timeout) => error,
            answer => return answer,
        };
        let Some(host) = uri.host() else { return Err(error) };
        let host = uri.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Err(HttpError::new(error.kind(), NoConnection { host, cause: cause.to_string() }))
    }
}

fn client<'a>(roots: impl IntoIterator<Item = &'a Certificate>, allow_http: bool) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("lsvd/", env!("CARGO_PKG_VERSION")))
        .tls_certs_only(roots.into_iter().cloned())
        // A store that sends elsewhere is a wrong region or endpoint, and elsewhere nobody named (nor trusts).
        .redirect(redirect::Policy::none())
        .https_only(!allow_http)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(30))
        .http1_only()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
}

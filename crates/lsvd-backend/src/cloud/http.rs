//! How HTTP is spoken: trusted roots, no redirects, connections enough for a hundred requests at once.
//!
//! Names the host that did not answer, which the store's URL does not where an endpoint is configured, reads what a busy
//! store asks for, and shows that bytes move. Knows no protocol of a store. Sets no time limit on a request: the loop of attempts does (`retry`), on one clock.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use http_body_util::BodyExt;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::{Certificate, Client, ClientBuilder, Request, Response, redirect};

use super::roots;
use crate::environment::Environment;
use crate::pulse::{self, Signs};

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
        Ok(HttpClient::new(Service(client)))
    }
}

/// A client that says what `object_store` leaves out: where it could not connect to, that bytes move, and for how long a
/// store asks to be left alone.
#[derive(Debug)]
struct Service(Client);

/// A failure without an answer: the host with its port, and the last cause only, since the others repeat it.
#[derive(Debug, thiserror::Error)]
#[error("{what} {host}: {cause}")]
struct NoAnswer {
    what: &'static str,
    host: String,
    cause: String,
}

/// A 429 or 503 that says when to come again.
#[derive(Debug, thiserror::Error)]
#[error("the store answered {status} and asks for a pause of {} s", .retry_after.as_secs())]
pub(crate) struct Busy {
    pub(crate) status: u16,
    pub(crate) retry_after: Duration,
    pub(crate) body: String,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let uri = request.uri().clone();
        let host = || {
            let host = uri.host().unwrap_or_default();
            uri.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
        };
        let signs = pulse::signs();
        let request = request.map(|body| moving(body, signs.clone()));
        let request = Request::try_from(request).map_err(|error| failed(error, host()))?;
        let response = self.0.execute(request).await.map_err(|error| failed(error, host()))?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        let headers = response.headers().clone();
        let mut answer = HttpResponse::new(coming(response.into(), host(), signs));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        match retry_after {
            Some(retry_after) => {
                let body = answer.into_body().bytes().await?;
                let body = String::from_utf8_lossy(&body).into_owned();
                Err(HttpError::new(
                    HttpErrorKind::Unknown,
                    Busy { status: status.as_u16(), retry_after, body },
                ))
            }
            None => Ok(answer),
        }
    }
}

/// A request's body that shows when a piece of it is taken.
fn moving(body: HttpRequestBody, signs: Option<Arc<Signs>>) -> reqwest::Body {
    match (body.as_bytes(), signs) {
        // In one piece there is nothing to see of it, and one without a length would be sent in chunks.
        (Some(bytes), _) => bytes.clone().into(),
        (None, None) => reqwest::Body::wrap_stream(body.into_data_stream()),
        (None, Some(signs)) => {
            reqwest::Body::wrap_stream(body.into_data_stream().inspect_ok(move |_| signs.moved()))
        }
    }
}

/// An answer's body that shows when a piece of it comes.
fn coming(body: reqwest::Body, host: String, signs: Option<Arc<Signs>>) -> HttpResponseBody {
    let moved = move || signs.iter().for_each(|signs| signs.moved());
    moved();
    let body = body.map_frame(move |frame| {
        moved();
        frame
    });
    HttpResponseBody::new(body.map_err(move |error| failed(error, host.clone())))
}

/// The seconds of a Retry-After. One that is a date is passed over: it would be by the server's clock.
fn retry_after(response: &Response) -> Option<Duration> {
    if !matches!(response.status().as_u16(), 429 | 503) {
        return None;
    }
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn failed(error: reqwest::Error, host: String) -> HttpError {
    let (kind, what) = match () {
        () if error.is_connect() => (HttpErrorKind::Connect, "no connection to"),
        () if error.is_timeout() => (HttpErrorKind::Timeout, "no connection to"),
        () if error.is_decode() => (HttpErrorKind::Decode, "no answer that can be read from"),
        () => (HttpErrorKind::Unknown, "the connection broke to"),
    };
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    HttpError::new(kind, NoAnswer { what, host, cause: cause.to_string() })
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

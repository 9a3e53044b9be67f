//! Connections and requests: takes them, waits as the line demands, lets faults strike, and answers.
//!
//! Knows HTTP through hyper; the objects, rules and counters are rooms of their own. Invariants: a request takes effect
//! after its last byte came and its latency is over, in one step, or not at all, and not at all if its client left before
//! (but for a hang that ends); a fault that strikes before is without
//! effect; nothing that a client sends makes the server panic.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::LabOptions;
use crate::body::{Answer, Cut};
use crate::calendar::http_date;
use crate::control;
use crate::faults::{Fault, Faults, Strike};
use crate::line::LineState;
use crate::objects::{Object, Objects};
use crate::refusal::Refusal;
use crate::request::{Ask, ByteRange, Call, Dialect, Verb};
use crate::stats::{Counters, Outcome, Tally};
use crate::xml;

/// The longest body that is taken: lsvd's objects are a few MiB, and all are in memory.
const BODY_BYTES_MAX: u64 = 1 << 30;

/// What is set aside for a body whose length is told before its bytes have come.
const BODY_RESERVED_MAX: u64 = 16 << 20;

/// When no more files can be opened, accepting fails at once, again and again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// All that the server is made of.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) objects: Objects,
    pub(crate) faults: Faults,
    pub(crate) line: Arc<LineState>,
    pub(crate) stats: Arc<Counters>,
}

impl Lab {
    pub(crate) fn new(options: LabOptions) -> Self {
        let objects = Objects::default();
        for bucket in &options.buckets {
            objects.create_bucket(bucket);
        }
        Lab {
            objects,
            // Apart, so that another line does not change what faults strike.
            faults: Faults::new(options.seed, options.faults),
            line: Arc::new(LineState::new(options.seed.wrapping_add(1), &options.line)),
            stats: Arc::default(),
        }
    }
}

/// Takes connections until it is aborted; they end with it.
pub(crate) async fn accept(listener: TcpListener, lab: Arc<Lab>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&lab)));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            // Those that ended are forgotten.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, lab: Arc<Lab>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let reset = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request| answer(Arc::clone(&lab), Arc::clone(&reset), request));
    let mut connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // An error is a client that left or spoke no HTTP, or a cut.
    let _ = (&mut connection).await;
    if reset.load(Ordering::Relaxed) {
        let stream = connection.into_parts().io.into_inner();
        // Without a farewell: the client sees "connection reset by peer".
        let _: io::Result<()> = stream.set_zero_linger();
    }
}

async fn answer(
    lab: Arc<Lab>,
    reset: Arc<AtomicBool>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Cut> {
    if request.uri().path().starts_with("/_lab/") {
        return control::answer(&lab, request).await;
    }
    let (parts, mut body) = request.into_parts();
    let call = Call::parse(&parts.method, &parts.uri, &parts.headers);
    let verb = call.as_ref().map_or(Verb::Other, Call::verb);
    let mut tally = lab.stats.begin(verb);
    let strike = lab.faults.draw(verb, call.as_ref().map_or("", Call::about), signer(&parts.headers));
    let cut = |mut tally: Tally, outcome| {
        tally.outcome = outcome;
        reset.store(true, Ordering::Relaxed);
        Err(Cut)
    };
    match strike {
        Some(Strike { fault: Fault::Reset, .. }) => return cut(tally, Outcome::Reset),
        Some(Strike { fault: Fault::Hang, time: None }) => {
            // It is swallowed: while bytes wait unread, nobody notices that the client has left.
            while let Some(frame) = body.frame().await {
                frame.map_err(|_| Cut)?;
            }
            std::future::pending().await
        }
        _ => {}
    }
    let result = match receive(&lab, body, &mut tally).await? {
        Ok(body) => {
            let latency = lab.line.first_byte(verb);
            if !latency.is_zero() {
                sleep(latency).await;
            }
            match strike {
                // A task of its own: it takes effect, whether or not the client waits that long.
                Some(Strike { fault: Fault::Hang, time: Some(time) }) => {
                    let lab = Arc::clone(&lab);
                    let late = async move {
                        sleep(time).await;
                        call.and_then(|call| carry_out(&lab, &call, body, strike))
                    };
                    tokio::spawn(late).await.map_err(|_| Cut)?
                }
                _ => call.and_then(|call| carry_out(&lab, &call, body, strike)),
            }
        }
        Err(refusal) => Err(refusal),
    };
    let (mut response, bytes) = result.unwrap_or_else(|refusal| refused(&refusal, parts.uri.path()));
    if matches!(strike, Some(Strike { fault: Fault::LoseAnswer, .. })) {
        return cut(tally, Outcome::AnswerLost);
    }
    let truncated = matches!(strike, Some(Strike { fault: Fault::Truncate, .. })) && !bytes.is_empty();
    tally.outcome = match truncated {
        true => Outcome::Truncated,
        false => Outcome::Status(response.status().as_u16()),
    };
    if response.status() != StatusCode::NO_CONTENT {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    }
    // A HEAD's body is never asked for; its length is told.
    let body = Answer::down(bytes, &lab.line, tally);
    let body = if truncated && parts.method != Method::HEAD { body.cut() } else { body };
    Ok(response.map(|()| body))
}

/// Reads a request's body at the pace of the line.
async fn receive(lab: &Lab, mut body: Incoming, tally: &mut Tally) -> Result<Result<Bytes, Refusal>, Cut> {
    use hyper::body::Body;
    let told = body.size_hint().lower();
    if told > BODY_BYTES_MAX {
        return Ok(Err(Refusal::too_large()));
    }
    // One copy, into one piece: frames are pieces of buffers that a small object would keep whole.
    let mut bytes = BytesMut::with_capacity(usize::try_from(told.min(BODY_RESERVED_MAX)).unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Cut)?.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > BODY_BYTES_MAX {
            return Ok(Err(Refusal::too_large()));
        }
        tally.bytes_in += data.len() as u64;
        if let Some(at) = lab.line.up.passes_at(data.len()) {
            sleep_until(at).await;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Ok(bytes.freeze()))
}

/// The access key id of a signature, which is not verified; empty where there is none.
fn signer(headers: &HeaderMap) -> &str {
    let signature = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let credential =
        signature.and_then(|signature| signature.split_once("Credential=")).map(|(_, rest)| rest);
    credential.and_then(|credential| credential.split('/').next()).unwrap_or_default()
}

type Answered = (Response<()>, Bytes);

/// Does what was asked, in one step.
fn carry_out(lab: &Lab, call: &Call, body: Bytes, strike: Option<Strike>) -> Result<Answered, Refusal> {
    let Call { bucket, key, ask, dialect } = call;
    if let Some(Strike { fault: Fault::SlowDown, time }) = strike {
        let ms = u64::try_from(time.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        return Err(Refusal::slow_down(ms.div_ceil(1_000)));
    }
    if let Some(Strike { fault: Fault::ExpiredToken, .. }) = strike {
        return Err(Refusal::expired_token());
    }
    match ask {
        Ask::Put(condition) => {
            let lax = matches!(strike, Some(Strike { fault: Fault::IgnoreCondition, .. }));
            let condition = if lax { &crate::request::Condition::None } else { condition };
            let object = lab.objects.put(bucket, key, condition, body)?;
            let mut response = Response::new(());
            identify(&mut response, &object, *dialect);
            Ok((response, Bytes::new()))
        }
        Ask::Get(range) | Ask::Head(range) => read(&lab.objects.get(bucket, key)?, *range, *dialect),
        Ask::Delete => {
            let was_there = lab.objects.delete(bucket, key)?;
            if !was_there && *dialect == Dialect::Google {
                return Err(Refusal::no_such_key());
            }
            Ok((status(StatusCode::NO_CONTENT), Bytes::new()))
        }
        Ask::List(listing) => {
            let stale = match strike {
                Some(Strike { fault: Fault::StaleListing, time }) => time,
                _ => None,
            };
            let page = lab.objects.list(bucket, listing, stale)?;
            Ok((xml_response(StatusCode::OK), xml::page(bucket, listing, &page).into()))
        }
        Ask::CreateBucket => {
            lab.objects.create_bucket(bucket);
            Ok((status(StatusCode::OK), Bytes::new()))
        }
        Ask::HeadBucket => {
            lab.objects.has_bucket(bucket)?;
            Ok((status(StatusCode::OK), Bytes::new()))
        }
    }
}

const GENERATION: HeaderName = HeaderName::from_static("x-goog-generation");

/// By which of its versions an object was stored or read.
fn identify(response: &mut Response<()>, object: &Object, dialect: Dialect) {
    response.headers_mut().insert(header::ETAG, value(&object.etag()));
    if dialect == Dialect::Google {
        response.headers_mut().insert(GENERATION, HeaderValue::from(object.version));
    }
}

fn read(object: &Object, range: Option<ByteRange>, dialect: Dialect) -> Result<Answered, Refusal> {
    let mut response = Response::new(());
    let mut bytes = object.bytes.clone();
    if let Some(range) = range {
        let object_bytes = bytes.len();
        let range = range.within(object_bytes)?;
        let told = format!("bytes {}-{}/{object_bytes}", range.start, range.end - 1);
        response.headers_mut().insert(header::CONTENT_RANGE, value(&told));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        bytes = bytes.slice(range);
    }
    identify(&mut response, object, dialect);
    let headers = response.headers_mut();
    headers.insert(header::LAST_MODIFIED, value(&http_date(object.written)));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok((response, bytes))
}

fn refused(refusal: &Refusal, path: &str) -> Answered {
    let mut response = xml_response(refusal.status);
    if let Some(seconds) = refusal.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    (response, xml::refusal(refusal, path).into())
}

fn xml_response(code: StatusCode) -> Response<()> {
    let mut response = status(code);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}

fn status(code: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = code;
    response
}

/// A header's value. All that are made here are ASCII.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

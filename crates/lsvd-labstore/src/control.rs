//! What tests and people tell the store beside the protocol: faults, line and counters, over HTTP.
//!
//! Knows JSON and the rooms that it sets. Nothing here waits, is counted, or is struck by a fault.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::body::{Answer, Cut};
use crate::faults::Rule;
use crate::line::Line;
use crate::serve::Lab;

/// The longest body that is read.
const BODY_BYTES_MAX: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(untagged)]
enum Rules {
    Many(Vec<Rule>),
    One(Rule),
}

/// Answers a request below `/_lab/`.
pub(crate) async fn answer(lab: &Lab, request: Request<Incoming>) -> Result<Response<Answer>, Cut> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|_| Cut)?.to_bytes();
    Ok(match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/_lab/stats") => json(&lab.stats.read(&lab.objects)),
        (&Method::DELETE, "/_lab/stats") => {
            lab.stats.reset();
            done()
        }
        (&Method::GET, "/_lab/faults") => json(&lab.faults.rules()),
        (&Method::POST, "/_lab/faults") => match serde_json::from_slice(&body) {
            Ok(Rules::One(rule)) => {
                lab.faults.add([rule]);
                done()
            }
            Ok(Rules::Many(rules)) => {
                lab.faults.add(rules);
                done()
            }
            Err(error) => not_understood("a rule", &error, &body),
        },
        (&Method::DELETE, "/_lab/faults") => {
            lab.faults.clear();
            done()
        }
        (&Method::POST, "/_lab/line") => match serde_json::from_slice::<Line>(&body) {
            Ok(line) => {
                lab.line.set(&line);
                done()
            }
            Err(error) => not_understood("a line", &error, &body),
        },
        (&Method::DELETE, "/_lab/objects") => {
            lab.objects.clear();
            done()
        }
        (method, path) => text(StatusCode::NOT_FOUND, format!("there is no {method} {path}\n")),
    })
}

fn json(value: &impl Serialize) -> Response<Answer> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(Answer::plain(bytes));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn done() -> Response<Answer> {
    text(StatusCode::NO_CONTENT, String::new())
}

fn not_understood(what: &str, error: &serde_json::Error, body: &Bytes) -> Response<Answer> {
    let said = String::from_utf8_lossy(body);
    text(StatusCode::BAD_REQUEST, format!("not {what} as JSON: {error}: {said}\n"))
}

fn text(status: StatusCode, words: String) -> Response<Answer> {
    let mut response = Response::new(Answer::plain(words));
    *response.status_mut() = status;
    response
}

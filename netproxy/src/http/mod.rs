//! Plain HTTP/1: every request is parsed, judged and written anew.
//!
//! A connection stands for one name and port. Each request on it must be for them (RFC 9110, section 7.2), and each is judged by itself, also the
//! hundredth. What is passed on is what the parser understood, never the bytes that came: there is no second reading of them.

mod headers;

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;

use crate::json;
use crate::name::HostName;
use crate::relay::Metered;
use crate::stack::GuestStream;

/// How long a request's head may take (a slow one holds a connection).
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Most bytes of a message's head.
pub(crate) const MAX_HEAD: usize = 64 << 10;
pub(crate) const MAX_HEADERS: usize = 100;
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

type Body = BoxBody<Bytes, hyper::Error>;

/// Whom a connection is to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The name.
    pub name: HostName,
    /// The port.
    pub port: u16,
}

/// Why a request is not passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// It is for another host, or does not say for which. `Host`, or the target, as it came.
    OtherHost,
    /// It asks for something that only proxies do, or that changes what the connection is.
    Method,
    /// The policy does not allow it.
    Policy(Denied),
    /// There were as many requests as the policy allows in a minute, or connections.
    Quota(Denied),
}

/// What a person needs to know who could change the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Why, in a line.
    pub reason: String,
    /// The rule that would allow it, or the one whose quota is used up, in TOML, and where that one is.
    pub rule: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherHost => "a request for another host than the connection is to",
            Self::Method => "a request that only proxies answer",
            Self::Policy(denied) | Self::Quota(denied) => &denied.reason,
        })
    }
}

/// A connection that is to come.
pub type Connecting<'j> = Pin<Box<dyn Future<Output = io::Result<Metered>> + 'j>>;

/// Who judges requests, and connects.
pub trait Judge {
    /// Whether a request may be passed on, which is counted then. `target` is its path with its query.
    ///
    /// # Errors
    ///
    /// Why not.
    fn judge(&self, method: &str, target: &str) -> Result<(), Refused>;

    /// The same for what the request may be, too, to a server that reads it in another way. It is not counted.
    ///
    /// # Errors
    ///
    /// Why not.
    fn permit(&self, method: &str, target: &str) -> Result<(), Refused>;

    /// A request was refused before it came to that.
    fn misdirected(&self, refused: &Refused);

    /// Another connection to the same authority, when the one before has ended.
    fn connect(&self) -> Connecting<'_>;
}

/// Serves the requests on `guest`, all of which are to be for `authority`; `upstream` is a connection to it. Unless it `keeps_alive`, there is one.
///
/// # Errors
///
/// The guest did not speak HTTP, or broke off.
pub async fn serve<J: Judge + ?Sized + 'static>(
    guest: GuestStream,
    upstream: Metered,
    authority: Authority,
    judge: Rc<J>,
    keeps_alive: bool,
) -> Result<(), hyper::Error> {
    let gate = Rc::new(Gate {
        authority,
        judge,
        first: RefCell::new(Some(upstream)),
        sender: tokio::sync::Mutex::default(),
    });
    let service = service_fn(move |request| {
        let gate = Rc::clone(&gate);
        Box::pin(async move { Ok::<_, Infallible>(gate.answer(request).await) })
    });
    let broken = guest.broken();
    let mut connection = server::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .half_close(true)
        .keep_alive(keeps_alive)
        .serve_connection(TokioIo::new(guest), service);
    let done = tokio::select! {
        biased;
        done = poll_fn(|cx| connection.poll_without_shutdown(cx)) => done,
        // While an answer is waited for, nothing is read that would show it.
        () = broken => return Ok(()),
    };
    // Also where it broke off: what was answered is to reach the guest, which a reset would keep it from.
    connection.into_parts().io.into_inner().close();
    done
}

struct Gate<J: ?Sized> {
    authority: Authority,
    judge: Rc<J>,
    /// The connection that was made before the first request came.
    first: RefCell<Option<Metered>>,
    sender: tokio::sync::Mutex<Option<SendRequest<Incoming>>>,
}

impl<J: Judge + ?Sized> Gate<J> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let takes_json = headers::takes_json(request.headers());
        let request = match self.admit(request) {
            Ok(request) => request,
            Err(refused) => {
                if !matches!(refused, Refused::Policy(_) | Refused::Quota(_)) {
                    self.judge.misdirected(&refused);
                }
                return refusal(&refused, &self.authority, takes_json);
            }
        };
        match self.pass_on(request).await {
            Ok(response) => response,
            Err(problem) => failure(&problem),
        }
    }

    /// The request as it is passed on.
    fn admit(&self, request: Request<Incoming>) -> Result<Request<Incoming>, Refused> {
        if *request.method() == Method::CONNECT {
            return Err(Refused::Method);
        }
        if !headers::is_for(&request, &self.authority) {
            return Err(Refused::OtherHost);
        }
        let root = PathAndQuery::from_static("/");
        let target = request.uri().path_and_query().unwrap_or(&root).clone();
        let (method, path) = (request.method().as_str(), target.as_str());
        // Before it is counted: it may be any of these.
        for (method, path) in headers::other_readings(request.headers(), method, path) {
            self.judge.permit(method, path)?;
        }
        self.judge.judge(method, path)?;
        let (mut head, body) = request.into_parts();
        headers::strip(&mut head.headers);
        head.headers.insert(HOST, self.authority.header());
        head.uri = Uri::from(target);
        head.version = Version::HTTP_11;
        Ok(Request::from_parts(head, body))
    }

    async fn pass_on(&self, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let mut sender = self.sender.lock().await;
        let is_usable = match sender.as_mut() {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !is_usable {
            *sender = Some(self.connect().await?);
        }
        let Some(sender) = sender.as_mut() else {
            return Err(Problem::Connect(io::ErrorKind::NotConnected.into()));
        };
        let mut response = sender
            .send_request(request)
            .await
            .map_err(Problem::Upstream)?;
        headers::strip(response.headers_mut());
        Ok(response.map(|body| body.boxed()))
    }

    async fn connect(&self) -> Result<SendRequest<Incoming>, Problem> {
        let first = self.first.take();
        let stream = match first {
            Some(stream) => stream,
            None => self.judge.connect().await.map_err(Problem::Connect)?,
        };
        let handshake = client::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(Problem::Upstream)?;
        // It ends with its sender; what it fails with, the sender says too.
        tokio::task::spawn_local(connection);
        Ok(sender)
    }
}

/// Why there is no answer from upstream.
#[derive(Debug)]
enum Problem {
    Connect(io::Error),
    Upstream(hyper::Error),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "no connection: {error}"),
            Self::Upstream(error) => write!(
                f,
                "the server's answer is no HTTP, or it broke off: {error}"
            ),
        }
    }
}

impl Authority {
    fn header(&self) -> HeaderValue {
        let text = if self.port == 80 {
            self.name.to_string()
        } else {
            format!("{}:{}", self.name, self.port)
        };
        // A canonical name has nothing that a header may not have.
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// What the guest is told in JSON.
#[derive(Serialize)]
struct Said<'a> {
    error: &'a str,
    destination: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
}

/// Why the guest does not get something, for whoever reads its answer.
pub(crate) struct Refusal<'a> {
    pub(crate) status: u16,
    pub(crate) error: &'a str,
    pub(crate) destination: &'a str,
    pub(crate) reason: &'a str,
    /// A rule, and what it is about.
    pub(crate) rule: Option<(&'a str, &'a str)>,
}

impl Refusal<'_> {
    fn text(&self) -> String {
        let Self {
            error,
            destination,
            reason,
            ..
        } = self;
        let rule = self.rule.map(|(what, rule)| format!("{what}: {rule}\n"));
        let rule = rule.unwrap_or_default();
        let text = format!("{error} ({destination}): {reason}\n{rule}");
        format!("cofferdam: {}\n", text.trim_end())
    }

    fn json(&self) -> String {
        let said = Said {
            error: self.error,
            destination: self.destination,
            reason: self.reason,
            rule: self.rule.map(|(_, rule)| rule),
        };
        format!("{}\n", json::line(&said))
    }
}

/// A whole answer of HTTP/1.1, after which the connection ends.
pub(crate) fn whole_answer(refusal: &Refusal<'_>) -> Vec<u8> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let body = refusal.text();
    let len = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {TEXT}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
    );
    (head + &body).into_bytes()
}

/// What the guest is told, as text, or as JSON if it takes that.
fn refusal(refused: &Refused, authority: &Authority, takes_json: bool) -> Response<Body> {
    let (status, error) = match refused {
        Refused::OtherHost => (
            StatusCode::MISDIRECTED_REQUEST,
            "this connection is to another host than the request",
        ),
        Refused::Method => (StatusCode::METHOD_NOT_ALLOWED, "this is no proxy"),
        Refused::Quota(_) => (
            StatusCode::TOO_MANY_REQUESTS,
            "the sandbox's policy allows no more of these requests now",
        ),
        Refused::Policy(_) => (
            StatusCode::FORBIDDEN,
            "the sandbox's policy denies this request",
        ),
    };
    let rule = match refused {
        Refused::Policy(denied) => denied
            .rule
            .as_deref()
            .map(|rule| ("to allow it, add", rule)),
        Refused::Quota(denied) => denied.rule.as_deref().map(|rule| ("the rule", rule)),
        Refused::OtherHost | Refused::Method => None,
    };
    let refusal = Refusal {
        status: status.as_u16(),
        error,
        destination: &format!("{}:{}", authority.name, authority.port),
        reason: &refused.to_string(),
        rule,
    };
    if takes_json {
        return said(status, JSON, refusal.json());
    }
    said(status, TEXT, refusal.text())
}

fn failure(problem: &Problem) -> Response<Body> {
    let text = format!("cofferdam: {}\n", problem.to_string().trim_end());
    said(StatusCode::BAD_GATEWAY, TEXT, text)
}

fn said(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let body = Full::from(body).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(all(test, unix))]
mod tests;

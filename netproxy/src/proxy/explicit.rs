//! The proxy that guests can name, at the gateway, for programs that take one (`HTTP_PROXY`, `HTTPS_PROXY`).
//!
//! It opens nothing that a connection by itself would not: whom `CONNECT` names, or the target of a request, is decided about, dialled, recognised and
//! judged as that is. What is denied gets an answer instead of a reset.

use std::net::IpAddr;
use std::rc::Rc;
use std::str::FromStr as _;

use hyper::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{Proxy, Via, Why};
use crate::dial::Resolver;
use crate::http::{self, HEAD_LIMIT, MAX_HEAD, MAX_HEADERS, Refusal};
use crate::name::HostName;
use crate::policy::Host;
use crate::stack::GuestStream;

/// Where the guest finds it, at the gateway's address.
pub const PROXY_PORT: u16 = 3128;

/// What a guest asks of the proxy.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    host: Host,
    port: u16,
    via: Via,
}

/// Why it is asked nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Malformed {
    #[error("this is a proxy, and the request is none for a proxy")]
    NoProxyRequest,
    #[error("the request is not HTTP/1, or its head is too long")]
    Head,
    #[error("the target of CONNECT must be a name or an address, a colon and a port")]
    Authority,
    #[error("only http targets are fetched: use CONNECT for others")]
    Scheme,
}

impl<R: Resolver + 'static> Proxy<R> {
    /// Serves a connection to the proxy.
    pub(super) async fn serve_explicit(self: Rc<Self>, mut guest: GuestStream) {
        guest.accept();
        let asked = timeout(HEAD_LIMIT, guest.peek(read));
        let (asked, head_len) = match asked.await {
            Ok(Ok(Some(Ok(asked)))) => asked,
            Ok(Ok(Some(Err(malformed)))) => {
                let refusal = Refusal {
                    status: 400,
                    error: "this request cannot be carried out",
                    destination: "the sandbox's proxy",
                    reason: &malformed.to_string(),
                    rule: None,
                };
                return say(guest, &refusal).await;
            }
            // It said nothing, or broke off.
            Ok(Ok(None) | Err(_)) | Err(_) => return,
        };
        let target = self.target_for(asked.host, asked.port, asked.via);
        let Some(opening) = guest.opening() else {
            let destination = target.destination().to_string();
            let refusal = Refusal {
                status: 503,
                error: "too many connections are being opened",
                destination: &destination,
                reason: "try again when some of them have come about",
                rule: None,
            };
            return say(guest, &refusal).await;
        };
        let reached = self.reach(&target).await;
        drop(opening);
        let reached = match reached {
            Ok(reached) => reached,
            Err(why) => {
                let refusal = refusal(&why);
                let (status, error) = refusal;
                let (reason, destination) = (why.to_string(), target.destination().to_string());
                let rule = self.tell(&target, None, None, why);
                let refusal = Refusal {
                    status,
                    error,
                    destination: &destination,
                    reason: &reason,
                    rule: rule.as_deref().map(|rule| ("to allow it, add", rule)),
                };
                return say(guest, &refusal).await;
            }
        };
        if asked.via == Via::Connect && stands(&mut guest, head_len).await.is_err() {
            return;
        }
        self.carry_on(guest, reached, target).await;
    }
}

/// What the head of a request asks for, and how long it is. `None`: it is not whole yet.
fn read(bytes: &[u8]) -> Option<Result<(Asked, usize), Malformed>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => {
            let target = request.path.unwrap_or_default();
            let asked = match request.method {
                Some("CONNECT") => connect(target),
                _ => fetch(target),
            };
            Some(asked.map(|asked| (asked, len)))
        }
        Ok(httparse::Status::Partial) if bytes.len() <= MAX_HEAD => None,
        Ok(httparse::Status::Partial) | Err(_) => Some(Err(Malformed::Head)),
    }
}

/// `CONNECT name:port` (RFC 9110, section 9.3.6).
fn connect(target: &str) -> Result<Asked, Malformed> {
    let (host, port) = target.rsplit_once(':').ok_or(Malformed::Authority)?;
    Ok(Asked {
        host: parse_host(host)?,
        port: parse_port(port)?,
        via: Via::Connect,
    })
}

/// `GET http://name/path` (RFC 9112, section 3.2.2).
fn fetch(target: &str) -> Result<Asked, Malformed> {
    if target.starts_with('/') || target == "*" {
        return Err(Malformed::NoProxyRequest);
    }
    let uri = Uri::from_str(target).map_err(|_| Malformed::NoProxyRequest)?;
    let authority = uri.authority().ok_or(Malformed::NoProxyRequest)?;
    if uri.scheme_str() != Some("http") {
        return Err(Malformed::Scheme);
    }
    // Behind a user there would be more than the name and its port.
    let port = authority.as_str().strip_prefix(authority.host());
    let port = match port.ok_or(Malformed::Authority)? {
        "" => 80,
        port => parse_port(port.strip_prefix(':').ok_or(Malformed::Authority)?)?,
    };
    Ok(Asked {
        host: parse_host(authority.host())?,
        port,
        via: Via::Fetch,
    })
}

fn parse_port(text: &str) -> Result<u16, Malformed> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = is_plain.then(|| text.parse().ok()).flatten();
    port.filter(|port| *port != 0).ok_or(Malformed::Authority)
}

fn parse_host(text: &str) -> Result<Host, Malformed> {
    let in_brackets = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match in_brackets {
        Some(text) => text.parse().map(IpAddr::V6).ok(),
        None => text.parse().map(IpAddr::V4).ok(),
    };
    if let Some(address) = address {
        return Ok(Host::Address(address));
    }
    let name = HostName::parse(text).map_err(|_| Malformed::Authority)?;
    Ok(Host::Name(name))
}

/// How a connection that is not made is told.
const fn refusal(why: &Why) -> (u16, &'static str) {
    match why {
        Why::Policy(_) => (403, "the sandbox's policy denies this connection"),
        Why::Quota(_) => (
            429,
            "the sandbox's policy allows no more of these connections now",
        ),
        _ => (502, "there is no connection to this destination"),
    }
}

/// Takes the request's head, and tells that the connection stands. What the guest sent behind it is the connection's.
async fn stands(guest: &mut GuestStream, head_len: usize) -> std::io::Result<()> {
    let mut head = vec![0; head_len];
    guest.read_exact(&mut head).await?;
    guest
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await
}

/// Answers, and ends.
async fn say(mut guest: GuestStream, refusal: &Refusal<'_>) {
    // What goes wrong is the guest's own business.
    let _ = guest.write_all(&http::whole_answer(refusal)).await;
    guest.close();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str, port: u16, via: Via) -> Asked {
        Asked {
            host: Host::Name(HostName::parse(text).unwrap()),
            port,
            via,
        }
    }

    #[test]
    fn heads_of_requests() {
        let address = |text: &str, port, via| Asked {
            host: Host::Address(text.parse().unwrap()),
            port,
            via,
        };
        for (line, expected) in [
            (
                "CONNECT a.example:443",
                Ok(name("a.example", 443, Via::Connect)),
            ),
            (
                "CONNECT A.Example.:22",
                Ok(name("a.example", 22, Via::Connect)),
            ),
            (
                "CONNECT 192.0.2.1:443",
                Ok(address("192.0.2.1", 443, Via::Connect)),
            ),
            (
                "CONNECT [2001:db8::1]:443",
                Ok(address("2001:db8::1", 443, Via::Connect)),
            ),
            (
                "GET http://a.example/x?y",
                Ok(name("a.example", 80, Via::Fetch)),
            ),
            (
                "POST HTTP://A.example:8080",
                Ok(name("a.example", 8080, Via::Fetch)),
            ),
            ("GET http://[::1]:80/", Ok(address("::1", 80, Via::Fetch))),
            ("CONNECT a.example", Err(Malformed::Authority)),
            ("CONNECT a.example:", Err(Malformed::Authority)),
            ("CONNECT a.example:0", Err(Malformed::Authority)),
            ("CONNECT a.example:+1", Err(Malformed::Authority)),
            ("CONNECT a.example:65536", Err(Malformed::Authority)),
            ("CONNECT :443", Err(Malformed::Authority)),
            ("CONNECT x@a.example:443", Err(Malformed::Authority)),
            ("CONNECT a.example:443/", Err(Malformed::Authority)),
            ("CONNECT a.example:443:443", Err(Malformed::Authority)),
            ("CONNECT 0x7f.1:443", Err(Malformed::Authority)),
            ("CONNECT 127.1:443", Err(Malformed::Authority)),
            ("CONNECT http://a.example:443", Err(Malformed::Authority)),
            ("CONNECT /", Err(Malformed::Authority)),
            ("GET /", Err(Malformed::NoProxyRequest)),
            ("OPTIONS *", Err(Malformed::NoProxyRequest)),
            ("GET a.example:80", Err(Malformed::Scheme)),
            ("GET https://a.example/", Err(Malformed::Scheme)),
            ("GET ftp://a.example/", Err(Malformed::Scheme)),
            ("GET http://x@a.example/", Err(Malformed::Authority)),
            ("GET http://x:y@a.example:80/", Err(Malformed::Authority)),
            ("GET http://a.example:x/", Err(Malformed::Authority)),
            ("GET http:///", Err(Malformed::NoProxyRequest)),
            ("GET http://127.1/", Err(Malformed::Authority)),
        ] {
            let head = format!("{line} HTTP/1.1\r\nHost: b.example\r\n\r\n");
            let len = head.len();
            let read = read(format!("{head}behind").as_bytes()).unwrap();
            assert_eq!(read, expected.map(|asked| (asked, len)), "{line}");
        }
        assert_eq!(read(b"CONNECT a.example:443 HT"), None);
        for head in [
            "\x16\x03\x01",
            "CONNECT a.example:443 HTTP/2.0\r\n\r\n",
            "a b\r\n\r\n",
        ] {
            let read = read(head.as_bytes()).unwrap();
            assert_eq!(read, Err(Malformed::Head), "{head:?}");
        }
        let long = format!("GET http://a.example/{}", "x".repeat(MAX_HEAD));
        assert_eq!(read(long.as_bytes()), Some(Err(Malformed::Head)));
    }
}

//! A proxy of the host's network, by which everything outside is reached, as companies have it.
//!
//! It is asked by `CONNECT` (RFC 9110, section 9.3.6) for whatever was decided about here, on any port. It resolves names itself, so which address they have is
//! not seen here. Its own address may be any: the host's user says which it is.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::{Host as UrlHost, Url};
use zeroize::Zeroizing;

use super::{RESOLVE_LIMIT, Resolver, connect_first};
use crate::address::Subnet;
use crate::name::HostName;
use crate::policy::Host;

/// Most bytes of the head of its answer.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// Most interim answers before the one that counts.
const MAX_INTERIM: usize = 8;
/// How long it may take to be reached and to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Most destinations that are reached without it.
pub const MAX_DIRECT: usize = 128;

/// A proxy of the host's network.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamProxy {
    host: String,
    port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<Zeroizing<String>>,
    direct: Vec<Direct>,
}

/// What is reached without the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Direct {
    Everything,
    /// A name and those below it, on this port or on any.
    Name(String, Option<u16>),
    /// Addresses that begin with these bits, on this port or on any.
    Addresses(IpAddr, u8, Option<u16>),
}

/// Why a text is no proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// It is no URL with a host.
    #[error("the upstream proxy must be a URL such as http://proxy.example.com:3128")]
    Url,
    /// It is reached by another scheme than http.
    #[error(
        "the upstream proxy must be an http:// one: TLS to the proxy itself and SOCKS are not supported"
    )]
    Scheme,
    /// The user's name or password has characters that no header can carry.
    #[error("the upstream proxy's user or password has control characters")]
    Credentials,
    /// There are more exceptions than are looked at.
    #[error("more than {MAX_DIRECT} exceptions from the upstream proxy")]
    Exceptions,
}

/// Why the proxy makes no connection. The text does not repeat what it says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// It is not reached.
    #[error("the upstream proxy is not reached")]
    Unreachable(#[source] io::Error),
    /// It wants to know who asks, or does not believe it.
    #[error("the upstream proxy wants other credentials (407): set them in its URL")]
    Credentials,
    /// It does not make the connection.
    #[error("the upstream proxy refuses the connection, with status {0}")]
    Refused(u16),
    /// What it says is no answer to that.
    #[error("the upstream proxy's answer is no HTTP, or longer than 16 KiB")]
    Malformed,
}

impl UpstreamProxy {
    /// The proxy at `url` (`http://[user:password@]host:port`), by which everything is reached but what `no_proxy` lists, separated by commas: a name for itself and
    /// those below it (with or without a dot before it), an address, a network (`192.0.2.0/24`), each with or without a port, or `*` for everything. The
    /// addresses are for connections to addresses: names are not resolved to compare them. What is none of these is ignored, as other programs do.
    ///
    /// # Errors
    ///
    /// It is no proxy (caller). The text does not repeat what was given: there may be a password in it.
    pub fn new(url: &str, no_proxy: &str) -> Result<Self, UpstreamError> {
        // As people write it, without a scheme.
        let with_scheme = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let url = Url::parse(&with_scheme).map_err(|_| UpstreamError::Url)?;
        if url.scheme() != "http" {
            return Err(UpstreamError::Scheme);
        }
        let host = match url.host().ok_or(UpstreamError::Url)? {
            UrlHost::Domain(name) => name.to_owned(),
            UrlHost::Ipv4(address) => address.to_string(),
            UrlHost::Ipv6(address) => address.to_string(),
        };
        let exceptions = no_proxy.split(',').map(str::trim);
        let exceptions = exceptions.filter(|entry| !entry.is_empty());
        let direct: Vec<Direct> = exceptions.filter_map(Direct::parse).collect();
        if direct.len() > MAX_DIRECT {
            return Err(UpstreamError::Exceptions);
        }
        Ok(Self {
            host,
            // The scheme has one.
            port: url.port_or_known_default().unwrap_or(80),
            authorization: authorization(&url)?,
            direct,
        })
    }

    /// Where it is, without what it is told of its user.
    #[must_use]
    pub fn place(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }

    /// Whether this is reached without it.
    #[must_use]
    pub fn is_direct(&self, host: &Host, port: u16) -> bool {
        self.direct.iter().any(|direct| direct.is_for(host, port))
    }

    /// A connection to `host` that it makes.
    ///
    /// # Errors
    ///
    /// It makes none.
    pub(crate) async fn connect(
        &self,
        host: &Host,
        port: u16,
        resolver: &impl Resolver,
    ) -> Result<TcpStream, ProxyError> {
        let connected = timeout(ANSWER_LIMIT, async {
            let mut stream = self.reach(resolver).await?;
            self.ask(&mut stream, host, port).await?;
            Ok(stream)
        });
        let timed_out = |_| Err(ProxyError::Unreachable(io::ErrorKind::TimedOut.into()));
        connected.await.unwrap_or_else(timed_out)
    }

    async fn reach(&self, resolver: &impl Resolver) -> Result<TcpStream, ProxyError> {
        let addresses = match self.host.parse() {
            Ok(address) => vec![address],
            Err(_) => {
                let name = HostName::parse(&self.host).map_err(io::Error::other);
                let name = name.map_err(ProxyError::Unreachable)?;
                let found = timeout(RESOLVE_LIMIT, resolver.resolve(&name)).await;
                let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                found.map_err(ProxyError::Unreachable)?
            }
        };
        let stream = connect_first(addresses, self.port).await;
        stream.map_err(ProxyError::Unreachable)
    }

    async fn ask(&self, stream: &mut TcpStream, host: &Host, port: u16) -> Result<(), ProxyError> {
        let to = match host {
            Host::Address(IpAddr::V6(address)) => format!("[{address}]:{port}"),
            host => format!("{host}:{port}"),
        };
        let mut head = Zeroizing::new(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n"));
        if let Some(authorization) = &self.authorization {
            head.push_str("Proxy-Authorization: ");
            head.push_str(authorization);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let written = stream.write_all(head.as_bytes()).await;
        written.map_err(ProxyError::Unreachable)?;
        for _ in 0..=MAX_INTERIM {
            match answer(stream).await? {
                // There is another one to come (RFC 9110, section 15.2).
                100..=199 => {}
                200..=299 => return Ok(()),
                407 => return Err(ProxyError::Credentials),
                status => return Err(ProxyError::Refused(status)),
            }
        }
        Err(ProxyError::Malformed)
    }
}

/// Takes the head of an answer off the stream, and not a byte more: what follows is the connection's. Gives its status.
async fn answer(stream: &mut TcpStream) -> Result<u16, ProxyError> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let seen = stream.peek(&mut piece).await;
        let seen = seen.map_err(ProxyError::Unreachable)?;
        let known = head.len();
        head.extend_from_slice(piece.get(..seen).unwrap_or_default());
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        let (len, status) = match answer.parse(&head) {
            Ok(httparse::Status::Complete(len)) => (len, answer.code),
            Ok(httparse::Status::Partial) if seen > 0 && head.len() <= MAX_HEAD => {
                (head.len(), None)
            }
            Ok(httparse::Status::Partial) | Err(_) => return Err(ProxyError::Malformed),
        };
        // What was seen is there.
        let taken = piece.get_mut(..len - known).unwrap_or_default();
        let taken = stream.read_exact(taken).await;
        taken.map_err(ProxyError::Unreachable)?;
        if let Some(status) = status {
            return Ok(status);
        }
    }
}

/// Basic authentication (RFC 7617).
fn authorization(url: &Url) -> Result<Option<Zeroizing<String>>, UpstreamError> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decoded = |text: &str| -> Zeroizing<Vec<u8>> {
        Zeroizing::new(percent_encoding::percent_decode_str(text).collect())
    };
    let (user, password) = (
        decoded(url.username()),
        decoded(url.password().unwrap_or_default()),
    );
    let both = Zeroizing::new([&user[..], b":", &password[..]].concat());
    if both.iter().any(u8::is_ascii_control) || user.contains(&b':') {
        return Err(UpstreamError::Credentials);
    }
    let encoded = Zeroizing::new(STANDARD.encode(&*both));
    Ok(Some(Zeroizing::new(format!("Basic {}", *encoded))))
}

impl Direct {
    /// What could match nothing is none.
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::Everything);
        }
        if let Some(addresses) = Self::addresses(entry, None) {
            return Some(addresses);
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (entry, None),
        };
        if let Some(addresses) = Self::addresses(host, port) {
            return Some(addresses);
        }
        let name = host.trim_start_matches('*').trim_start_matches('.');
        let name = HostName::parse(name).ok()?;
        Some(Self::Name(name.to_string(), port))
    }

    fn addresses(text: &str, port: Option<u16>) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let in_brackets = address
            .strip_prefix('[')
            .and_then(|it| it.strip_suffix(']'));
        let address: IpAddr = in_brackets.unwrap_or(address).parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        (bits <= all).then_some(Self::Addresses(address, bits, port))
    }

    fn is_for(&self, host: &Host, port: u16) -> bool {
        match (self, host) {
            (Self::Everything, _) => true,
            (Self::Name(base, of), Host::Name(name)) => {
                let rest = name.as_str().strip_suffix(base.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                    && of.is_none_or(|of| of == port)
            }
            (Self::Addresses(base, bits, of), Host::Address(address)) => {
                Subnet::new(*base, *bits).is_ok_and(|subnet| subnet.contains(*address))
                    && of.is_none_or(|of| of == port)
            }
            _ => false,
        }
    }
}

impl fmt::Debug for UpstreamProxy {
    /// Without the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamProxy")
            .field("place", &self.place())
            .field("direct", &self.direct)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! Connections to the outside: a name is resolved here, every address is checked, and exactly the address that was checked is dialled.

mod upstream;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::name::HostName;

pub use upstream::{MAX_DIRECT, ProxyError, UpstreamError, UpstreamProxy};

/// Most addresses of a name that are looked at. What a name server says beyond that is not.
pub const MAX_ADDRESSES: usize = 16;
/// The next address is tried when the one before has not answered for so long (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How long resolving may take.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);
/// How long all attempts together may take.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Names to addresses, as the host's own programs see them.
pub trait Resolver {
    /// The addresses of a name, the ones that are to be tried first at the beginning.
    ///
    /// # Errors
    ///
    /// There are none ([`io::ErrorKind::NotFound`]), or nobody says (any other).
    fn resolve(&self, name: &HostName) -> impl Future<Output = io::Result<Vec<IpAddr>>>;
}

/// Which addresses may be dialled.
pub trait AddressFilter {
    /// Why an address may not be dialled.
    type Refusal: fmt::Display;

    /// Whether it may.
    ///
    /// # Errors
    ///
    /// Why not.
    fn check(&self, address: IpAddr) -> Result<(), Self::Refusal>;
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The name has no address.
    #[error("the name has no address")]
    Unresolved(#[source] io::Error),
    /// Nobody says which addresses the name has.
    #[error("this host's name servers do not answer for the name, or what they say cannot be used")]
    NameServers(#[source] io::Error),
    /// Every address of the name is one that may not be dialled. The text says why the first one may not.
    #[error("{address} may not be dialled: {why}")]
    Refused {
        /// The first of them.
        address: IpAddr,
        /// Why not.
        why: String,
    },
    /// The name is of no public DNS, and would be another host to the proxy that resolves it.
    #[error("only public names are asked of the upstream proxy")]
    NotPublic,
    /// The proxy of the host's network makes no connection.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// Nobody there took the connection.
    #[error("{}", unreachable(.0.kind()))]
    Unreachable(#[source] io::Error),
}

/// Whose doing it is that a connection does not come up.
const fn unreachable(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ConnectionRefused => "the server refuses the connection",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            "this host has no way there now"
        }
        _ => "nobody answered",
    }
}

/// Connects to `name`. The stream's far end is an address that `filter` let pass.
///
/// # Errors
///
/// Why there is no connection.
pub async fn dial(
    name: &HostName,
    port: u16,
    resolver: &impl Resolver,
    filter: &impl AddressFilter,
) -> Result<TcpStream, DialError> {
    let resolved = timeout(RESOLVE_LIMIT, resolver.resolve(name));
    let found = resolved
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let found = found.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DialError::Unresolved(error),
        _ => DialError::NameServers(error),
    })?;
    let addresses = permitted(&found, filter)?;
    let attempts = connect_first(interleaved(&addresses), port);
    let connected = timeout(CONNECT_LIMIT, attempts).await;
    connected
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(DialError::Unreachable)
}

/// Those of the addresses that may be dialled.
fn permitted<F: AddressFilter>(found: &[IpAddr], filter: &F) -> Result<Vec<IpAddr>, DialError> {
    let mut refused = None;
    let mut permitted = Vec::new();
    for &address in found.iter().take(MAX_ADDRESSES) {
        match filter.check(address) {
            Ok(()) => permitted.push(address),
            Err(why) => refused = refused.or_else(|| Some((address, why.to_string()))),
        }
    }
    match refused {
        Some((address, why)) if permitted.is_empty() => Err(DialError::Refused { address, why }),
        _ if permitted.is_empty() => Err(DialError::Unresolved(io::ErrorKind::NotFound.into())),
        _ => Ok(permitted),
    }
}

/// Both families in turn, beginning with the first address's, each in its own order (RFC 8305, section 4).
fn interleaved(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let begins_with_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let of_family = |v6: bool| {
        addresses
            .iter()
            .copied()
            .filter(move |address| address.is_ipv6() == v6)
    };
    let (mut first, mut second) = (of_family(begins_with_v6), of_family(!begins_with_v6));
    let mut all = Vec::with_capacity(addresses.len());
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

/// The first of the addresses that takes a connection.
async fn connect_first(addresses: Vec<IpAddr>, port: u16) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    let mut rest = addresses.into_iter();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    loop {
        let next = rest.next();
        let has_more = next.is_some();
        if let Some(address) = next {
            attempts.spawn_local(TcpStream::connect(SocketAddr::new(address, port)));
        }
        let patience = if has_more && rest.len() > 0 {
            ATTEMPT_DELAY
        } else {
            CONNECT_LIMIT
        };
        match timeout(patience, attempts.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Some(Ok(Err(error)))) => last = error,
            // An attempt that panicked is one that failed.
            Ok(Some(Err(_))) => {}
            Ok(None) if !has_more => return Err(last),
            Ok(None) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;

//! What a connection is by the first bytes of its client: TLS for some name, HTTP, or neither.
//!
//! A connection says nothing that is passed on before it has been recognised.

mod hello;

use rustls::server::Acceptor;

use crate::name::HostName;
use hello::Reading;

pub(crate) use hello::hello_len;

/// Longest first message of a TLS client that is waited for, in bytes. Browsers and their like send two thousand at most.
pub const LONGEST_HELLO: usize = 64 << 10;
/// The content type of a TLS record with a handshake message (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
/// The longest method that is registered (RFC 9110, section 16.1) has 17 letters.
const LONGEST_METHOD: usize = 20;

/// What a client's first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FirstBytes {
    /// The first message of TLS, for this name (RFC 6066, section 3).
    Tls(HostName),
    /// The same, but another first message may be encrypted within, for another name (ECH, RFC 9849).
    HiddenTls(HostName),
    /// The first message of TLS, without a name, with something else instead, or with names that can be read in several ways.
    TlsWithoutName,
    /// The beginning of an HTTP/1 request.
    Http,
    /// None of these.
    Unknown,
}

/// What `bytes` are the beginning of. `None`: more of them will tell.
#[must_use]
pub fn recognise(bytes: &[u8]) -> Option<FirstBytes> {
    match bytes.first()? {
        &HANDSHAKE => recognise_tls(bytes),
        b'A'..=b'Z' => recognise_http(bytes),
        _ => Some(FirstBytes::Unknown),
    }
}

fn recognise_tls(bytes: &[u8]) -> Option<FirstBytes> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes
        .get(..bytes.len().min(LONGEST_HELLO))
        .unwrap_or_default();
    loop {
        // A slice does not fail to be read; a full buffer is the acceptor's, and an error of `accept` then.
        let has_read = acceptor.read_tls(&mut rest).is_ok_and(|len| len > 0);
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let name = hello
                    .server_name()
                    .and_then(|name| HostName::parse(name).ok());
                return Some(match (name, hello::read(bytes)) {
                    (Some(name), Reading::Clear) => FirstBytes::Tls(name),
                    (Some(name), Reading::Hidden) => FirstBytes::HiddenTls(name),
                    (None, _) | (_, Reading::Unclear) => FirstBytes::TlsWithoutName,
                });
            }
            Err(_) => return Some(FirstBytes::Unknown),
            Ok(None) if has_read => {}
            Ok(None) if bytes.len() >= LONGEST_HELLO => return Some(FirstBytes::Unknown),
            Ok(None) => return None,
        }
    }
}

/// A method, a space, and the beginning of a target.
fn recognise_http(bytes: &[u8]) -> Option<FirstBytes> {
    let is_letter = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'-';
    let Some(end) = bytes.iter().position(|byte| !is_letter(byte)) else {
        return (bytes.len() > LONGEST_METHOD).then_some(FirstBytes::Unknown);
    };
    let is_http = end <= LONGEST_METHOD && bytes.get(end) == Some(&b' ');
    Some(if is_http {
        FirstBytes::Http
    } else {
        FirstBytes::Unknown
    })
}

#[cfg(test)]
mod tests;

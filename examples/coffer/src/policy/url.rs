//! URLs as policies see them: whom a connection is to, and what is asked for there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sandbox::policy::{Host, HostName, Scheme};

/// The longest URL that is read, in bytes.
const LONGEST: usize = 8 << 10;

/// A URL. Users, passwords and fragments are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// How the policy calls what is spoken.
    pub(crate) scheme: Scheme,
    /// Whom it is to.
    pub(crate) host: Host,
    /// The port, the usual one unless it was said.
    pub(crate) port: u16,
    /// Path and query, as they were written.
    pub(crate) path: String,
}

impl Url {
    /// The URL that `text` is.
    ///
    /// # Errors
    ///
    /// Says why it is none. It does not repeat the text, in which there may be a password.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("it is longer than {LONGEST} bytes"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("it has a space or a control character".to_owned());
        }
        let (name, rest) = text.split_once("://").ok_or_else(unknown)?;
        let (scheme, usual) = scheme(name)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = authority_of(authority)?;
        let port = port.or(usual);
        Ok(Self {
            scheme,
            host,
            port: port.ok_or_else(|| format!("{name}:// needs a port: {name}://host:port"))?,
            path: path_of(path),
        })
    }
}

/// What a policy makes of a URL's scheme, and its usual port.
fn scheme(name: &str) -> Result<(Scheme, Option<u16>), String> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "https" | "wss" => (Scheme::Https, Some(443)),
        "http" | "ws" => (Scheme::Http, Some(80)),
        "ssh" => (Scheme::Tcp, Some(22)),
        "git" => (Scheme::Tcp, Some(9418)),
        "tcp" => (Scheme::Tcp, None),
        _ => return Err(unknown()),
    })
}

fn unknown() -> String {
    "it does not begin with https://, http://, wss://, ws://, ssh://, git:// or tcp://".to_owned()
}

/// Host and port of what stands before the path.
fn authority_of(authority: &str) -> Result<(Host, Option<u16>), String> {
    // Behind a backslash some programs see the path, and others more of the host.
    if authority.contains('\\') {
        return Err("there is a backslash before its path".to_owned());
    }
    let place = authority.rsplit_once('@').map_or(authority, |(_, it)| it);
    if let Some(rest) = place.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').unwrap_or((rest, "?"));
        let address: Result<Ipv6Addr, _> = address.parse();
        let address = address.map_err(|_| "what is in brackets is no IPv6 address".to_owned())?;
        let port = rest.strip_prefix(':').or(rest.is_empty().then_some(""));
        let port = port.ok_or_else(|| "behind `]` is no `:` and port".to_owned())?;
        return Ok((Host::Address(IpAddr::V6(address)), port_of(port)?));
    }
    let (host, port) = place.split_once(':').unwrap_or((place, ""));
    Ok((host_of(host)?, port_of(port)?))
}

fn host_of(text: &str) -> Result<Host, String> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    let name = HostName::parse(text).map_err(|error| format!("its host is not valid: {error}"))?;
    Ok(Host::Name(name))
}

/// A port, or none where nothing is said.
fn port_of(text: &str) -> Result<Option<u16>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| is_number && *port > 0);
    port.map(Some)
        .ok_or_else(|| "its port is not a number from 1 to 65535".to_owned())
}

fn path_of(text: &str) -> String {
    let path = text.split_once('#').map_or(text, |(path, _)| path);
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    }
}

/// Where it leads, without its path.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => {
                write!(f, "{}://[{address}]:{}", self.scheme, self.port)
            }
            host => write!(f, "{}://{host}:{}", self.scheme, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_destination_and_a_path() {
        for (text, place, path) in [
            ("https://a.example", "https://a.example:443", "/"),
            ("HTTPS://A.Example./x", "https://a.example:443", "/x"),
            ("wss://a.example/x", "https://a.example:443", "/x"),
            ("http://a.example", "http://a.example:80", "/"),
            ("ws://a.example:8080", "http://a.example:8080", "/"),
            ("http://a.example:", "http://a.example:80", "/"),
            ("http://a.example?b=c", "http://a.example:80", "/?b=c"),
            ("http://a.example#/x", "http://a.example:80", "/"),
            ("http://a.example/x?b#c?d", "http://a.example:80", "/x?b"),
            // As it is sent: whether it is clear is the policy's business.
            (
                "http://a.example/a/../%62//;c",
                "http://a.example:80",
                "/a/../%62//;c",
            ),
            (
                "https://bücher.example/",
                "https://xn--bcher-kva.example:443",
                "/",
            ),
            ("ssh://git@a.example/x.git", "tcp://a.example:22", "/x.git"),
            ("git://a.example/x.git", "tcp://a.example:9418", "/x.git"),
            ("tcp://a.example:5432", "tcp://a.example:5432", "/"),
            ("https://user:pass@a.example/", "https://a.example:443", "/"),
            ("https://a.example@b.example/", "https://b.example:443", "/"),
            ("https://a@b@c.example/", "https://c.example:443", "/"),
            ("https://192.0.2.1:8443/x", "https://192.0.2.1:8443", "/x"),
            ("tcp://[2001:db8::1]:22", "tcp://[2001:db8::1]:22", "/"),
            ("https://[2001:db8::1]/", "https://[2001:db8::1]:443", "/"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!(
                (url.to_string().as_str(), url.path.as_str()),
                (place, path),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_url_is_told_without_its_secrets() {
        for (text, part) in [
            ("", "does not begin with https://"),
            ("a.example", "does not begin with https://"),
            ("//a.example", "does not begin with https://"),
            ("ftp://a.example", "does not begin with https://"),
            ("file:///etc/hostname", "does not begin with https://"),
            ("https:a.example", "does not begin with https://"),
            ("https://", "the name is empty"),
            ("https:///x", "the name is empty"),
            ("https://secret@/", "the name is empty"),
            ("tcp://a.example", "needs a port"),
            ("https://a.example:0", "not a number from 1"),
            ("https://a.example:65536", "not a number from 1"),
            ("https://a.example:+443", "not a number from 1"),
            ("https://a.example:443:443", "not a number from 1"),
            ("https://secret:x@a.example:y/", "not a number from 1"),
            ("https://a.example\\@b.example/", "backslash"),
            ("https://a.example\n/", "a space or a control"),
            ("https://a example/", "a space or a control"),
            ("https://a.example/\u{1b}[2J", "a space or a control"),
            ("https://a%2eexample/", "host names cannot have"),
            ("https://*.example/", "host names cannot have"),
            ("https://0x7f.1/", "ends in a number"),
            ("https://2130706433/", "ends in a number"),
            ("https://127.1/", "ends in a number"),
            ("https://[::1/", "no `:` and port"),
            ("https://[::1%lo]/", "no IPv6 address"),
            ("https://[127.0.0.1]/", "no IPv6 address"),
            ("https://[::1]x/", "no `:` and port"),
            ("https://::1/", "not valid"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("secret"), "{text}: {error}");
        }
        let long = format!("https://a.example/{}", "x".repeat(LONGEST));
        assert!(Url::parse(&long).unwrap_err().contains("longer"));
    }
}

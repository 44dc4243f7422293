//! Which host a request is for, and what belongs to one connection only.

use hyper::header::{
    ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::uri;
use hyper::{Request, Version};

use super::Authority;
use crate::name::HostName;

/// What is of one connection only (RFC 9110, section 7.6.1), and what speaks to proxies. `Transfer-Encoding` is written anew.
const OF_A_CONNECTION: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// By these, frameworks take another method than the request's (Rails, Django, Symfony, Express, and Google's servers).
const METHODS: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];
/// By these, another path (IIS, Symfony, Zend).
const PATHS: [&str; 2] = ["x-original-url", "x-rewrite-url"];

/// What a request is to servers that go by a header instead of by its first line: each pair of method and path that one of them may take it for.
pub(super) fn other_readings<'a>(
    headers: &'a HeaderMap,
    method: &'a str,
    path: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let methods = move || values(headers, &METHODS);
    let paths = values(headers, &PATHS);
    // Both may be there, and either may count.
    let by_path = paths.flat_map(move |path| {
        let methods = methods().map(move |method| (method, path));
        std::iter::once((method, path)).chain(methods)
    });
    methods().map(move |method| (method, path)).chain(by_path)
}

/// The values of these headers. Some gateways make hyphens of underscores (as CGI has it), so both count. What is no text is a value that no rule allows.
fn values<'a>(headers: &'a HeaderMap, names: &'static [&str]) -> impl Iterator<Item = &'a str> {
    let is_one = |name: &HeaderName| {
        let name = name.as_str().bytes().map(|byte| match byte {
            b'_' => b'-',
            byte => byte,
        });
        names.iter().any(|other| name.clone().eq(other.bytes()))
    };
    let all = headers.iter().filter(move |(name, _)| is_one(name));
    all.map(|(_, value)| value.to_str().map_or("", str::trim))
}

/// Whether whoever asks would rather have JSON than text: it names that, which browsers and curl do not.
pub(super) fn takes_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    let mut named = accepted.filter_map(|value| value.to_str().ok());
    named.any(|value| {
        let mut kinds = value.split(',').map(|kind| kind.split(';').next());
        kinds.any(|kind| {
            let kind = kind.unwrap_or_default().trim().to_ascii_lowercase();
            kind == "application/json" || kind.ends_with("+json")
        })
    })
}

/// Whether all that a request says of its host is `authority`.
pub(super) fn is_for<B>(request: &Request<B>, authority: &Authority) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let named = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().is_ok_and(|host| names(host, authority)),
        (Some(_), Some(_)) => false,
        // Before HTTP/1.1 a request need not say.
        (None, _) => request.version() < Version::HTTP_11,
    };
    let scheme = request.uri().scheme_str();
    let target = request
        .uri()
        .authority()
        .is_none_or(|target| names(target.as_str(), authority));
    named && target && scheme.is_none_or(|scheme| scheme == "http")
}

/// Whether a `Host` is `authority`. Without a port it is that of the scheme.
fn names(host: &str, authority: &Authority) -> bool {
    let Ok(parsed) = host.parse::<uri::Authority>() else {
        return false;
    };
    // Behind a user there would be more than the name and its port, and the parser lets ports be that are no numbers.
    let port = match host.strip_prefix(parsed.host()) {
        Some("" | ":") => Some(80),
        Some(port) => port.strip_prefix(':').and_then(number),
        None => None,
    };
    let name = HostName::parse(parsed.host());
    port == Some(authority.port) && name.is_ok_and(|name| name == authority.name)
}

fn number(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// Takes away what belongs to one connection only.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != HOST)
        .collect();
    for name in named.iter().chain(&OF_A_CONNECTION) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {

    use hyper::header::HeaderValue;

    use super::*;

    fn authority(port: u16) -> Authority {
        Authority {
            name: HostName::parse("a.example").unwrap(),
            port,
        }
    }

    #[test]
    fn a_host_is_the_connections_or_it_is_not() {
        for (host, port, expected) in [
            ("a.example", 80, true),
            ("A.EXAMPLE", 80, true),
            ("a.example.", 80, true),
            ("a.example:80", 80, true),
            ("a.example:8080", 8080, true),
            ("a.example", 8080, false),
            ("a.example:8080", 80, false),
            ("b.example", 80, false),
            ("a.example.b", 80, false),
            ("x.a.example", 80, false),
            ("a.example@b.example", 80, false),
            ("b.example@a.example", 80, false),
            ("user:pw@a.example", 80, false),
            ("a.example:080", 80, true),
            ("a.example:80:80", 80, false),
            ("a.example:", 80, true),
            ("a.example:0x50", 80, false),
            ("a.example:+80", 80, false),
            ("a.example:65616", 80, false),
            ("a.example,b.example", 80, false),
            ("a.example b.example", 80, false),
            ("a.example/", 80, false),
            ("a.example#", 80, false),
            ("a.example?", 80, false),
            ("a.example\\", 80, false),
            ("a.example%00", 80, false),
            ("a%2eexample", 80, false),
            ("http://a.example", 80, false),
            ("", 80, false),
            ("127.0.0.1", 80, false),
            ("[::1]", 80, false),
        ] {
            assert_eq!(names(host, &authority(port)), expected, "{host}");
        }
    }

    #[test]
    fn all_that_a_request_says_must_agree() {
        let cases: [(&str, &[&str], Version, bool); 12] = [
            ("/", &["a.example"], Version::HTTP_11, true),
            ("/", &[], Version::HTTP_11, false),
            ("/", &[], Version::HTTP_10, true),
            ("/", &["b.example"], Version::HTTP_10, false),
            ("/", &["a.example", "a.example"], Version::HTTP_11, false),
            ("/", &["a.example", "b.example"], Version::HTTP_11, false),
            ("http://a.example/", &["a.example"], Version::HTTP_11, true),
            ("http://b.example/", &["a.example"], Version::HTTP_11, false),
            ("http://a.example/", &["b.example"], Version::HTTP_11, false),
            ("http://a.example/", &[], Version::HTTP_11, false),
            (
                "https://a.example/",
                &["a.example"],
                Version::HTTP_11,
                false,
            ),
            (
                "http://x@a.example/",
                &["a.example"],
                Version::HTTP_11,
                false,
            ),
        ];
        for (target, hosts, version, expected) in cases {
            let mut request = Request::builder()
                .uri(target)
                .version(version)
                .body(())
                .unwrap();
            for host in hosts {
                request.headers_mut().append(HOST, host.parse().unwrap());
            }
            assert_eq!(
                is_for(&request, &authority(80)),
                expected,
                "{target} {hosts:?}"
            );
        }
    }

    #[test]
    fn what_belongs_to_one_connection_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("connection", "keep-alive,x-other , host"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("keep-alive", "5"),
            ("proxy-authorization", "x"),
            ("proxy-connection", "x"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("host", "a.example"),
            ("accept", "*/*"),
        ] {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host"]);
    }
}

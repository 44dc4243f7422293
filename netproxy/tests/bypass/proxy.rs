//! The proxy at the gateway: whatever is tried on a connection to a name is tried in a tunnel to it, too, and what only a proxy is asked.

use crate::bench::Bench;
use crate::table::{Attack, Technique, Verdict, in_every_state};

/// The same in a tunnel.
fn in_a_tunnel(technique: Technique) -> Option<Technique> {
    let Attack::Say(port, pieces) = technique.attack else {
        return None;
    };
    Some(Technique {
        name: format!("in a tunnel: {}", technique.name),
        attack: Attack::Tunnel(port, pieces),
        ..technique
    })
}

fn connect(to: &str) -> String {
    format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")
}

fn get(target: &str, host: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[rustfmt::skip] // one row a line
fn asked(bench: &Bench) -> Vec<(&'static str, &'static str, String, u16)> {
    let forbidden = bench.sinks.forbidden.port();
    let stale = bench.stale.map_or_else(|| "198.18.9.9".to_owned(), |address| address.to_string());
    let mut all = vec![
        ("P01", "a tunnel to a name without a rule", connect("evil.host:443"), 403),
        ("P01", "a tunnel to another port of a name", connect("a.host:81"), 403),
        ("P02", "a tunnel to loopback", connect(&format!("127.0.0.1:{forbidden}")), 403),
        ("P02", "a tunnel to loopback of IPv6", connect(&format!("[::1]:{forbidden}")), 403),
        ("P02", "a tunnel to loopback within IPv6", connect(&format!("[::ffff:127.0.0.1]:{forbidden}")), 403),
        ("P02", "a tunnel to any address", connect(&format!("0.0.0.0:{forbidden}")), 403),
        ("P02", "a tunnel to metadata", connect("169.254.169.254:80"), 403),
        ("P02", "a tunnel to localhost", connect(&format!("localhost:{forbidden}")), 403),
        ("P03", "a tunnel to a number", connect(&format!("2130706433:{forbidden}")), 400),
        ("P03", "a tunnel to a short address", connect(&format!("127.1:{forbidden}")), 400),
        ("P03", "a tunnel to a hexadecimal address", connect(&format!("0x7f000001:{forbidden}")), 400),
        ("P03", "a tunnel to an octal address", connect(&format!("0177.0.0.1:{forbidden}")), 400),
        ("P03", "a tunnel to an address with a zone", connect(&format!("[fe80::1%25lo]:{forbidden}")), 400),
        ("P01", "a tunnel to the proxy itself", connect("100.64.0.1:3128"), 403),
        ("P01", "a tunnel to the resolver", connect("100.64.0.1:53"), 403),
        ("N05", "a tunnel to an address that stood for a name", connect(&format!("{stale}:443")), 403),
        ("P04", "a tunnel with a user", connect("a.host@evil.host:443"), 400),
        ("P04", "a tunnel with a path", connect("a.host:80/evil.host:443"), 400),
        ("P04", "a tunnel with two ports", connect("a.host:80:443"), 400),
        ("P04", "a tunnel without a port", connect("a.host"), 400),
        ("P04", "a tunnel with a port too great", connect("a.host:65616"), 400),
        ("P04", "a tunnel with an encoded end", connect("a.host%00.evil.host:443"), 400),
        ("P04", "a tunnel with a backslash", connect("a.host\\evil.host:443"), 400),
        ("H05", "a tunnel to a whole URL", connect("http://a.host:80"), 400),
        ("H05", "a tunnel whose Host is allowed", "CONNECT evil.host:443 HTTP/1.1\r\nHost: a.host:80\r\n\r\n".to_owned(), 403),
        ("H05", "a tunnel with a body", "CONNECT evil.host:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello".to_owned(), 403),
        ("H01", "a tunnel with a line of two", "CONNECT a.host:80 evil.host:443 HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("H01", "a tunnel with a CR within", "CONNECT a.host:80\rX HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("H01", "a tunnel of HTTP/2", "CONNECT a.host:80 HTTP/2.0\r\n\r\n".to_owned(), 400),
        ("H01", "the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
        ("T06", "TLS to the proxy", "\u{16}\u{3}\u{1}\0\u{5}hello".to_owned(), 400),
        ("P07", "SOCKS to the proxy", "\u{5}\u{1}\0".to_owned(), 400),
        ("P01", "a fetch from a name without a rule", get("http://evil.host/", "evil.host"), 403),
        ("P01", "a fetch from another port", get("http://a.host:81/", "a.host:81"), 403),
        ("P01", "a fetch from a port for TLS", get("http://a.host:443/", "a.host:443"), 403),
        ("P01", "a fetch from a port for anything", get("http://a.host:7/", "a.host:7"), 403),
        ("H06", "a fetch whose Host is another", get("http://a.host/x", "evil.host"), 421),
        ("H06", "a fetch whose Host is allowed", get("http://evil.host/x", "a.host"), 403),
        ("P04", "a fetch with a user", get("http://a.host@evil.host/", "a.host"), 400),
        ("P04", "a fetch with a user and a password", get("http://a.host:80@evil.host/", "a.host"), 400),
        ("P04", "a fetch by another scheme", get("ftp://a.host/x", "a.host"), 400),
        ("P04", "a fetch by https", get("https://a.host/x", "a.host"), 400),
        ("P04", "a fetch without a host", get("http:///x", "a.host"), 400),
        ("P04", "no fetch", get("/x", "a.host"), 400),
        ("P08", "a fetch of a secret", get("http://a.host/secret/x", "a.host"), 403),
        ("P08", "a fetch with a way up", get("http://a.host/x/../secret/x", "a.host"), 403),
        ("P08", "a fetch by a method that is denied", "DELETE http://a.host/x HTTP/1.1\r\nHost: a.host\r\n\r\n".to_owned(), 403),
        ("H06", "a fetch that is allowed", get("http://a.host/x", "a.host"), 200),
        ("H05", "a fetch, and another behind it", get("http://a.host/x", "a.host") + &get("http://evil.host/x", "evil.host"), 200),
        ("H05", "a fetch, and a tunnel behind it", get("http://a.host/x", "a.host") + &connect("evil.host:443"), 200),
    ];
    let head = format!("CONNECT a.host:80 HTTP/1.1\r\nX: {}", "x".repeat(70_000));
    all.push(("H10", "a head without an end", head, 400));
    all
}

pub(crate) fn techniques(bench: &Bench) -> Vec<Technique> {
    let tunnels = crate::http::techniques(bench)
        .into_iter()
        .chain(crate::tls::techniques(bench));
    let mut all: Vec<Technique> = tunnels.filter_map(in_a_tunnel).collect();
    for (row, name, bytes, status) in asked(bench) {
        let attack = Attack::Proxy(bytes.into_bytes());
        let verdict = Verdict::Status(vec![status]);
        all.push(Technique::new(
            row,
            format!("proxy: {name}"),
            attack,
            verdict,
        ));
    }
    all
}

in_every_state!(techniques);

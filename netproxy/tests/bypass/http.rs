//! Requests to a name that is allowed, on its port for plain HTTP: each is judged as the server will read it, and one in is one out.
//!
//! The policy denies what is below `/secret`, and the method DELETE.

use std::fmt::Write as _;

use crate::bench::Bench;
use crate::table::{Attack, Technique, Verdict, in_every_state};

type Row = (&'static str, &'static str, String, &'static [u16]);

fn get(target: &str, host: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// A GET that is allowed, but for these headers.
fn with(headers: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: a.host\r\n{headers}\r\n\r\n")
}

/// A POST that is allowed, but for these headers and this body.
fn post(headers: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a.host\r\n{headers}\r\n\r\n{body}")
}

/// What a request says of its host.
#[rustfmt::skip] // one row a line
fn hosts() -> Vec<Row> {
    let mut all = vec![
        ("H06", "another host", get("/x", "evil.host"), &[421][..]),
        ("H06", "no host", "GET /x HTTP/1.1\r\n\r\n".to_owned(), &[421]),
        ("H06", "an empty host", get("/x", ""), &[421]),
        ("H06", "two hosts, the right one first", get("/x", "a.host\r\nHost: evil.host"), &[421]),
        ("H06", "two hosts, the right one last", get("/x", "evil.host\r\nHost: a.host"), &[421]),
        ("H06", "the right host twice", get("/x", "a.host\r\nHost: a.host"), &[421]),
        ("H06", "a whole URL for another host", get("http://evil.host/x", "a.host"), &[421]),
        ("H06", "a whole URL, another Host", get("http://a.host/x", "evil.host"), &[421]),
        ("H06", "a whole URL of another scheme", get("https://a.host/x", "a.host"), &[421]),
        ("H06", "a whole URL of a file", get("file:///etc/passwd", "a.host"), &[400]),
        ("H06", "a whole URL with a user", get("http://evil.host@a.host/x", "a.host"), &[421]),
        ("H06", "a whole URL with a port", get("http://a.host:8080/x", "a.host"), &[421]),
        ("H06", "a whole URL that is right", get("http://a.host/x", "a.host"), &[200]),
        ("H06", "HTTP/1.0 without a host", "GET /x HTTP/1.0\r\n\r\n".to_owned(), &[200]),
        ("H06", "HTTP/1.0 for another host", "GET /x HTTP/1.0\r\nHost: evil.host\r\n\r\n".to_owned(), &[421]),
        ("H06", "the right host in capitals", get("/x", "A.HOST"), &[200]),
        ("H06", "the right host with its port", get("/x", "a.host:80"), &[200]),
        ("H06", "the right host with a dot", get("/x", "a.host."), &[200]),
        ("H06", "forwarded for another host", with("X-Forwarded-Host: a.host"), &[200]),
    ];
    for (row, name, host) in [
        ("H06", "Host with another port", "a.host:8080"),
        ("P04", "Host with a port of letters", "a.host:80x"),
        ("P04", "Host with two ports", "a.host:80:443"),
        ("P04", "Host with a port too great", "a.host:65616"),
        ("P04", "Host with a user", "evil.host@a.host"),
        ("P04", "Host as a user", "a.host@evil.host"),
        ("P04", "Host with a path", "a.host/x"),
        ("P04", "Host with a hash", "a.host#@evil.host"),
        ("P04", "Host with a question mark", "a.host?evil.host"),
        ("P04", "Host with a backslash", "a.host\\evil.host"),
        ("P04", "Host with a comma", "a.host,evil.host"),
        ("P04", "Host with a space", "a.host evil.host"),
        ("P04", "Host with a tab", "a.host\tevil.host"),
        ("P04", "Host with an escape", "a%2ehost"),
        ("P04", "Host with a zone", "[fe80::1%25eth0]"),
        ("P02", "Host as an address", "127.0.0.1"),
        ("P02", "Host as a number", "2130706433"),
        ("P01", "Host as a mapped address", "[::ffff:127.0.0.1]"),
        ("D07", "Host with a full-width letter", "\u{ff41}.host"),
        ("D07", "Host with a Cyrillic letter", "\u{430}.host"),
        ("P06", "Host with an ending", "a.host.evil.test"),
        ("P06", "Host with a beginning", "evil.a.host"),
    ] {
        all.push((row, name, get("/x", host), &[421]));
    }
    all
}

/// What is below `/secret`, in spellings that some server takes for it.
#[rustfmt::skip] // one row a line
fn paths() -> Vec<Row> {
    [
        ("as it is", "/secret/x"),
        ("the directory", "/secret"),
        ("the directory with a slash", "/secret/"),
        ("a letter escaped", "/s%65cret/x"),
        ("all letters escaped", "/%73%65%63%72%65%74/x"),
        ("escapes in capitals and not", "/%73%6Ccret/..%2f..%2Fsecret/x"),
        ("escaped twice", "/%2573ecret/x"),
        ("the slash escaped", "/secret%2fx"),
        ("the first slash escaped", "/%2fsecret/x"),
        ("two slashes", "//secret/x"),
        ("two slashes within", "/secret//x"),
        ("a dot segment", "/./secret/x"),
        ("a dot segment behind", "/secret/./x"),
        ("a way up", "/x/../secret/x"),
        ("a way up with escapes", "/x/%2e%2e/secret/x"),
        ("a way up with one escape", "/x/.%2e/secret/x"),
        ("a way up with an escaped slash", "/x/..%2fsecret/x"),
        ("a way up with a backslash", "/x\\..\\secret/x"),
        ("a way up with an escaped backslash", "/x/..%5csecret/x"),
        ("a way up with parameters", "/x/..;/secret/x"),
        ("parameters", "/secret;v=1/x"),
        ("parameters before", "/;/secret/x"),
        ("parameters escaped", "/secret%3bv/x"),
        ("NUL escaped", "/secret%00/x"),
        ("NUL escaped behind", "/x%00/../secret/x"),
        ("CR LF escaped", "/x%0d%0asecret"),
        ("overlong UTF-8", "/x/%c0%ae%c0%ae/secret/x"),
        ("escapes that are cut", "/x%2/../secret"),
        ("escapes of other kinds", "/%u0073ecret/x"),
        ("a query behind", "/secret/x?a=b"),
        ("a query with a way up", "/secret/x?/../x"),
    ]
    .map(|(name, path)| ("P08", name, get(path, "a.host"), &[403][..]))
    .into_iter()
    .chain([
        ("P08", "a hash in a path", get("/x#/../secret", "a.host"), &[200][..]),
        ("P08", "a whole URL of a secret", get("http://a.host/secret/x", "a.host"), &[403]),
        ("P08", "a whole URL with a way up", get("http://a.host/x/../secret/x", "a.host"), &[403]),
        ("P08", "no slash", get("secret/x", "a.host"), &[400]),
        ("P08", "another directory", get("/public/secret", "a.host"), &[200]),
        ("P08", "the path is in a query", get("/x?/public", "a.host"), &[200]),
        ("P08", "a path in a header of IIS", with("X-Original-URL: /secret/x"), &[403]),
        ("P08", "a path in another header of IIS", with("X-Rewrite-URL: /secret/x"), &[403]),
        ("P08", "a path in a header, with a way up", with("X-Original-URL: /x/../secret"), &[403]),
        ("P08", "two paths in headers", with("X-Original-URL: /y\r\nX-Original-URL: /secret/x"), &[403]),
        ("P08", "a path in a header with underscores", with("X_Original_URL: /secret/x"), &[403]),
        ("P08", "an allowed path in a header", with("X-Original-URL: /y"), &[200]),
    ])
    .collect()
}

#[rustfmt::skip] // one row a line
fn methods() -> Vec<Row> {
    let method =
        |method: &str, target: &str| format!("{method} {target} HTTP/1.1\r\nHost: a.host\r\n\r\n");
    vec![
        ("P08", "a denied method", method("DELETE", "/x"), &[403]),
        ("P08", "another method", method("PUT", "/x"), &[200]),
        ("P08", "OPTIONS for the server", method("OPTIONS", "*"), &[403]),
        ("P08", "a method in a header", with("X-HTTP-Method-Override: DELETE"), &[403]),
        ("P08", "a method in a header, in small letters", with("x-http-method-override: delete"), &[403]),
        ("P08", "a method in another header", with("X-Method-Override: DELETE"), &[403]),
        ("P08", "a method in a third header", with("X-HTTP-Method: DELETE"), &[403]),
        ("P08", "a method in a header with underscores", with("X_HTTP_Method_Override: DELETE"), &[403]),
        ("P08", "an allowed method in a header", with("X-HTTP-Method-Override: PATCH"), &[200]),
        ("H05", "CONNECT", "CONNECT evil.host:443 HTTP/1.1\r\nHost: evil.host\r\n\r\n".to_owned(), &[405]),
        ("H05", "CONNECT to the same host", "CONNECT a.host:80 HTTP/1.1\r\nHost: a.host\r\n\r\n".to_owned(), &[405]),
        ("H05", "CONNECT to an address", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: a.host\r\n\r\n".to_owned(), &[405]),
        ("H05", "CONNECT with a body", "CONNECT a.host:80 HTTP/1.1\r\nHost: a.host\r\nContent-Length: 4\r\n\r\nGET " .to_owned(), &[405]),
        ("H05", "CONNECT to a path", method("CONNECT", "/x"), &[405]),
    ]
}

/// Two readings of one stream of bytes.
#[rustfmt::skip] // one row a line
fn framings() -> Vec<Row> {
    let inner = "GET /secret/x HTTP/1.1\r\nHost: a.host\r\n\r\n";
    let cl_te = format!(
        "Content-Length: {}\r\nTransfer-Encoding: chunked",
        inner.len() + 5
    );
    let te_cl = "Transfer-Encoding: chunked\r\nContent-Length: 4";
    let te = |coding: &str| {
        post(
            &format!("Transfer-Encoding: {coding}"),
            &format!("0\r\n\r\n{inner}"),
        )
    };
    let chunks = |chunks: &str| post("Transfer-Encoding: chunked", chunks);
    let long_head = format!("X: {}", "x".repeat(200_000));
    let mut many = "A: b".to_owned();
    for _ in 0..200 {
        many.push_str("\r\nA: b");
    }
    vec![
        ("H01", "a length and chunks", post(&cl_te, &format!("0\r\n\r\n{inner}")), &[200]),
        ("H01", "chunks and a length", post(te_cl, &format!("0\r\n\r\n{inner}")), &[200]),
        ("H01", "two lengths", post("Content-Length: 0\r\nContent-Length: 41", inner), &[400]),
        ("H01", "two lengths in one", post("Content-Length: 0, 41", inner), &[400]),
        ("H01", "one length twice", post("Content-Length: 2\r\nContent-Length: 2", "hi"), &[200]),
        ("H01", "a length with a sign", post("Content-Length: +2", "hi"), &[400]),
        ("H01", "a length below zero", post("Content-Length: -1", "hi"), &[400]),
        ("H01", "a length in hexadecimal", post("Content-Length: 0x2", "hi"), &[400]),
        ("H01", "a length too great", post("Content-Length: 18446744073709551618", "hi"), &[400]),
        ("H01", "a length of nothing", post("Content-Length:", "hi"), &[400]),
        ("H01", "a coding that is none", te("xchunked"), &[400]),
        ("H01", "chunks twice", te("chunked, chunked"), &[200, 403]),
        ("H01", "chunks and identity", te("chunked, identity"), &[400]),
        ("H01", "identity", te("identity"), &[400]),
        ("H01", "chunks in capitals", te("CHUNKED"), &[200, 403]),
        ("H01", "chunks behind a tab", te("\tchunked"), &[200, 403]),
        ("H01", "chunks with a vertical tab", te("\x0bchunked"), &[400]),
        ("H01", "chunks in quotes", te("\"chunked\""), &[400]),
        ("H01", "two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", &format!("0\r\n\r\n{inner}")), &[400]),
        ("H01", "a space before the colon", post("Transfer-Encoding : chunked", &format!("0\r\n\r\n{inner}")), &[400]),
        ("H01", "a folded header", with("X: a\r\n Transfer-Encoding: chunked"), &[400]),
        ("H01", "a fold before the first header", "GET /x HTTP/1.1\r\n Host: evil.host\r\nHost: a.host\r\n\r\n".to_owned(), &[400]),
        ("H01", "a header without a colon", with("Transfer-Encoding chunked"), &[400]),
        ("H01", "a header without a name", with(": x"), &[400]),
        ("H01", "NUL in a value", with("X: a\0b"), &[400]),
        ("H01", "CR in a value", with("X: a\rTransfer-Encoding: chunked"), &[400]),
        ("H01", "bare line feeds", "GET /x HTTP/1.1\nHost: a.host\n\n".to_owned(), &[200]),
        ("H01", "a bare line feed in a value", with("X: a\nX-Other: b"), &[200]),
        ("H01", "an extension of a chunk", chunks(&format!("2;a=b\r\nhi\r\n0\r\n\r\n{inner}")), &[200, 403]),
        ("H01", "an extension with a line feed", chunks(&format!("2;\nxx\r\nhi\r\n0\r\n\r\n{inner}")), &[502]),
        ("H01", "a chunk's length with 0x", chunks("0x2\r\nhi\r\n0\r\n\r\n"), &[502]),
        ("H01", "a chunk's length with an underscore", chunks("0_2\r\nhi\r\n0\r\n\r\n"), &[502]),
        ("H01", "a chunk's length too great", chunks("10000000000000002\r\nhi\r\n0\r\n\r\n"), &[502]),
        ("H01", "a chunk longer than it says", chunks("1\r\nhi\r\n0\r\n\r\n"), &[502]),
        ("H01", "trailers", chunks("0\r\nHost: evil.host\r\nX-Original-URL: /secret\r\n\r\n"), &[200]),
        (
            "H01",
            "a body of GET that is a request",
            get(
                "/x",
                &format!("a.host\r\nContent-Length: {}\r\n\r\n{inner}", inner.len()),
            )[..]
                .trim_end_matches("\r\n")
                .to_owned()
                + "\r\n\r\n",
            &[200],
        ),
        ("H01", "a length in a name with an underscore", post("Content_Length: 41", inner), &[200, 403]),
        ("H10", "a head of 200 kB", with(&long_head), &[431]),
        ("H10", "two hundred headers", with(&many), &[431]),
        ("H10", "a target of 200 kB", get(&format!("/{}", "x".repeat(200_000)), "a.host"), &[431]),
        ("H10", "a head that does not end", "GET /x HTTP/1.1\r\nHost: a.host\r\nX: y".to_owned(), &[]),
    ]
}

/// What a connection becomes, or what comes behind the first request.
#[rustfmt::skip] // one row a line
fn connections() -> Vec<Row> {
    let twice = |second: &str| with("Accept: */*") + second;
    let mut alternating = String::new();
    for number in 0..20 {
        // Whatever was allowed before, each is judged by itself.
        let _ = write!(
            alternating,
            "{}{}",
            get(&format!("/{number}"), "a.host"),
            get("/secret", "a.host")
        );
    }
    const ALTERNATING: [u16; 40] = {
        let mut all = [200; 40];
        let mut at = 1;
        while at < 40 {
            all[at] = 403;
            at += 2;
        }
        all
    };
    vec![
        ("H04", "a second request for another host", twice(&get("/x", "evil.host")), &[200, 421]),
        ("H04", "a second request for a secret", twice(&get("/secret/x", "a.host")), &[200, 403]),
        ("H04", "a second request that is none", twice("\0\0\0\0\r\n\r\n"), &[200, 400]),
        ("H04", "a second request of TLS", twice("\x16\x03\x01\x02\0\x01\0\x01\u{7f}"), &[200, 400]),
        ("H04", "a second request of HTTP/2", twice("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), &[200]),
        ("H04", "allowed and denied in turn", alternating, &ALTERNATING),
        ("H02", "an upgrade to h2c", with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"), &[200]),
        (
            "H02",
            "an upgrade to WebSocket",
            with(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            ),
            &[200],
        ),
        ("H02", "an upgrade to TLS", with("Connection: Upgrade\r\nUpgrade: TLS/1.0"), &[200]),
        ("H02", "an upgrade, and bytes behind", with("Connection: Upgrade\r\nUpgrade: websocket") + "\u{1}\0\0\0\r\n\r\n", &[200, 400]),
        ("H03", "headers of the connection", with("Connection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: x"), &[200]),
        ("H03", "the host as a header of the connection", with("Connection: Host"), &[200]),
        (
            "H03",
            "the length as a header of the connection",
            post(
                "Connection: Content-Length\r\nContent-Length: 40",
                "GET /secret/x HTTP/1.1\r\nHost: a.host\r\n\r\n",
            ),
            &[200],
        ),
        ("H10", "a server's 100 is waited for", post("Expect: 100-continue\r\nContent-Length: 2", "hi"), &[100, 200]),
    ]
}

/// What is taken for no HTTP at all, so that nothing of it is answered.
fn others() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let hello = crate::craft::hello(&[crate::craft::sni("a.host")]);
    vec![
        ("T07", "TLS on the port of HTTP", hello),
        (
            "H01",
            "a method in small letters",
            b"get /x HTTP/1.1\r\nHost: a.host\r\n\r\n".to_vec(),
        ),
        (
            "H01",
            "an empty line first",
            b"\r\nGET /x HTTP/1.1\r\nHost: a.host\r\n\r\n".to_vec(),
        ),
        (
            "H01",
            "a space first",
            b" GET /x HTTP/1.1\r\nHost: a.host\r\n\r\n".to_vec(),
        ),
        (
            "H01",
            "a method with a tab",
            b"GET\t/x HTTP/1.1\r\nHost: a.host\r\n\r\n".to_vec(),
        ),
        ("H01", "a method without end", vec![b'A'; 4000]),
        (
            "H01",
            "a method with NUL",
            b"GE\0T /x HTTP/1.1\r\nHost: a.host\r\n\r\n".to_vec(),
        ),
        ("H01", "frames of HTTP/2", vec![0, 0, 18, 4, 0, 0, 0, 0, 0]),
        ("H05", "SOCKS", vec![5, 2, 0, 2]),
        ("T07", "SSH on the port of HTTP", b"SSH-2.0-x\r\n".to_vec()),
        (
            "T07",
            "a command of Redis",
            b"*1\r\n$4\r\nPING\r\n".to_vec(),
        ),
    ]
}

/// A request that must be refused as soon as it is whole, however it is cut.
fn cuts() -> Vec<Technique> {
    let denied = get("/secret/x", "a.host").into_bytes();
    let other = get("/x", "evil.host").into_bytes();
    let at = |bytes: &[u8], cut: usize| vec![bytes[..cut].to_vec(), bytes[cut..].to_vec()];
    let singly = |bytes: &[u8]| bytes.chunks(1).map(<[u8]>::to_vec).collect();
    let technique = |name: &str, pieces, status| {
        let name = format!("HTTP in segments: {name}");
        Technique::new(
            "H01",
            name,
            Attack::Say(80, pieces),
            Verdict::Status(vec![status]),
        )
    };
    vec![
        technique("each byte of a secret's path", singly(&denied), 403),
        technique("each byte of another host", singly(&other), 421),
        technique("cut within a secret's path", at(&denied, 8), 403),
        technique("cut within the method", at(&denied, 2), 403),
        technique("cut within the name of Host", at(&other, 20), 421),
        technique("cut within the host", at(&other, 25), 421),
        technique("cut between CR and LF", at(&other, 17), 421),
    ]
}

pub(crate) fn techniques(_: &Bench) -> Vec<Technique> {
    let rows = [hosts(), paths(), methods(), framings(), connections()];
    let mut all: Vec<Technique> = rows
        .into_iter()
        .flatten()
        .map(|(row, name, bytes, statuses)| {
            let pieces = vec![bytes.into_bytes()];
            let name = format!("HTTP: {name}");
            Technique::new(
                row,
                name,
                Attack::Say(80, pieces),
                Verdict::Status(statuses.to_vec()),
            )
        })
        .collect();
    for (row, name, bytes) in others() {
        let name = format!("no HTTP: {name}");
        all.push(Technique::new(
            row,
            name,
            Attack::Say(80, vec![bytes]),
            Verdict::Reset,
        ));
    }
    all.extend(cuts());
    all
}

in_every_state!(techniques);

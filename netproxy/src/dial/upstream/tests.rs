//! The proxy's settings, and a proxy on loopback that says what a test has it say.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};

use super::*;

fn proxy(url: &str) -> UpstreamProxy {
    UpstreamProxy::new(url, "").unwrap()
}

#[test]
fn urls() {
    for (url, place, authorization) in [
        ("http://proxy.example:3128", "proxy.example:3128", None),
        ("http://proxy.example", "proxy.example:80", None),
        ("proxy.example:3128", "proxy.example:3128", None),
        ("HTTP://Proxy.Example:3128/", "proxy.example:3128", None),
        ("http://10.0.0.1:3128", "10.0.0.1:3128", None),
        ("http://[::1]:3128", "[::1]:3128", None),
        (
            "http://u:p@proxy.example:3128",
            "proxy.example:3128",
            Some("Basic dTpw"),
        ),
        (
            "http://u@proxy.example",
            "proxy.example:80",
            Some("Basic dTo="),
        ),
        (
            "http://u:%40%3a@proxy.example",
            "proxy.example:80",
            Some("Basic dTpAOg=="),
        ),
    ] {
        let proxy = proxy(url);
        assert_eq!(proxy.place(), place, "{url}");
        let said = proxy.authorization.as_ref().map(|said| said.as_str());
        assert_eq!(said, authorization, "{url}");
    }
    for (url, error) in [
        ("", UpstreamError::Url),
        ("http://", UpstreamError::Url),
        ("http://:3128", UpstreamError::Url),
        ("http://proxy.example:x", UpstreamError::Url),
        ("https://proxy.example:3128", UpstreamError::Scheme),
        ("socks5://proxy.example:1080", UpstreamError::Scheme),
        ("http://u:%0d%0a@proxy.example", UpstreamError::Credentials),
        ("http://u%3ax:p@proxy.example", UpstreamError::Credentials),
    ] {
        assert_eq!(UpstreamProxy::new(url, ""), Err(error), "{url}");
    }
}

#[test]
fn a_password_is_in_no_text_for_people() {
    let proxy = UpstreamProxy::new("http://user:hunter2@proxy.example:3128", "x.example").unwrap();
    let text = format!("{proxy:?} {}", proxy.place());
    for secret in ["hunter2", "user", "Basic", "dXNlcjpodW50ZXIy"] {
        assert!(!text.contains(secret), "{text}");
    }
    let error = UpstreamProxy::new("https://user:hunter2@proxy.example", "").unwrap_err();
    assert!(!error.to_string().contains("hunter2"));
}

#[test]
fn exceptions() {
    let proxy = |no_proxy: &str| UpstreamProxy::new("http://p.example", no_proxy).unwrap();
    let name = |text: &str| Host::Name(HostName::parse(text).unwrap());
    for (no_proxy, host, port, is_direct) in [
        ("", name("a.example"), 443, false),
        ("*", name("a.example"), 443, true),
        ("a.example", name("a.example"), 443, true),
        ("a.example", name("x.a.example"), 443, true),
        ("a.example", name("xa.example"), 443, false),
        (".a.example", name("x.a.example"), 443, true),
        (".a.example", name("a.example"), 443, true),
        ("*.a.example", name("x.a.example"), 443, true),
        ("A.Example", name("a.example"), 443, true),
        (" b.example , a.example ", name("a.example"), 443, true),
        ("a.example:443", name("a.example"), 443, true),
        ("a.example:443", name("a.example"), 80, false),
        ("a.example:x", name("a.example"), 80, false),
        ("192.0.2.1", Host::Address([192, 0, 2, 1].into()), 80, true),
        ("192.0.2.1", Host::Address([192, 0, 2, 2].into()), 80, false),
        (
            "192.0.2.0/24",
            Host::Address([192, 0, 2, 9].into()),
            80,
            true,
        ),
        (
            "192.0.2.0/240",
            Host::Address([192, 0, 2, 9].into()),
            80,
            false,
        ),
        (
            "[2001:db8::1]",
            Host::Address("2001:db8::1".parse().unwrap()),
            80,
            true,
        ),
        ("192.0.2.0/24", name("a.example"), 80, false),
        (
            "192.0.2.1:80",
            Host::Address([192, 0, 2, 1].into()),
            80,
            true,
        ),
        (
            "192.0.2.1:80",
            Host::Address([192, 0, 2, 1].into()),
            443,
            false,
        ),
        (
            "192.0.2.0/24:80",
            Host::Address([192, 0, 2, 9].into()),
            80,
            true,
        ),
        (
            "192.0.2.0/24:80",
            Host::Address([192, 0, 2, 9].into()),
            443,
            false,
        ),
        ("[::1]:80", Host::Address("::1".parse().unwrap()), 80, true),
        (
            "[::1]:80",
            Host::Address("::1".parse().unwrap()),
            443,
            false,
        ),
        ("::1", Host::Address("::1".parse().unwrap()), 443, true),
        (
            "fe80::/10",
            Host::Address("fe80::9".parse().unwrap()),
            443,
            true,
        ),
    ] {
        assert_eq!(
            proxy(no_proxy).is_direct(&host, port),
            is_direct,
            "{no_proxy} {host}"
        );
    }
    let many = |count: usize| vec!["a.example"; count].join(",");
    assert!(UpstreamProxy::new("http://p.example", &many(MAX_DIRECT)).is_ok());
    let refused = UpstreamProxy::new("http://p.example", &many(MAX_DIRECT + 1));
    assert_eq!(refused, Err(UpstreamError::Exceptions));
}

/// Every name is at loopback.
struct Loopback;

impl Resolver for Loopback {
    async fn resolve(&self, _: &HostName) -> io::Result<Vec<IpAddr>> {
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }
}

/// A proxy that answers with these pieces, each in a segment of its own, and what it was asked.
fn answering(pieces: Vec<Vec<u8>>) -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
        }
        for piece in pieces {
            // Who asked may have heard enough.
            if stream.write_all(&piece).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        String::from_utf8(head).unwrap()
    });
    (port, thread)
}

/// What comes of it: what follows the answer's head, or why there is no connection.
fn ask(user: &str, host: &Host, pieces: Vec<Vec<u8>>) -> (Result<Vec<u8>, String>, String) {
    let (port, asked) = answering(pieces);
    let proxy = proxy(&format!("http://{user}proxy.example:{port}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let tasks = tokio::task::LocalSet::new();
    let got = tasks.block_on(&runtime, async {
        let stream = proxy.connect(host, 443, &Loopback).await;
        let mut stream = stream.map_err(|error| error.to_string())?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        Ok(rest)
    });
    (got, asked.join().unwrap())
}

fn name() -> Host {
    Host::Name(HostName::parse("a.example").unwrap())
}

#[test]
fn what_follows_its_answer_is_the_connections() {
    let answer = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nSSH-2.0-x\r\n".to_vec();
    for size in [answer.len(), 1, 7, answer.len() - 3] {
        let pieces = answer.chunks(size).map(<[u8]>::to_vec).collect();
        let (got, asked) = ask("", &name(), pieces);
        assert_eq!(got, Ok(b"SSH-2.0-x\r\n".to_vec()), "in pieces of {size}");
        assert_eq!(
            asked,
            "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"
        );
    }
    let (_, asked) = ask(
        "u:p@",
        &Host::Address("2001:db8::1".parse().unwrap()),
        vec![answer],
    );
    assert_eq!(
        asked,
        "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
    );
}

#[test]
fn what_is_no_connection_is_told() {
    let endless = |line: &str| vec![line.repeat(40).into_bytes(); 100];
    for (pieces, why) in [
        (vec![b"HTTP/1.1 407 Who\r\n\r\n".to_vec()], "407"),
        (
            vec![b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno".to_vec()],
            "status 403",
        ),
        (vec![b"HTTP/1.1 502 No\r\n\r\n".to_vec()], "status 502"),
        (
            vec![b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(); MAX_INTERIM + 1],
            "no HTTP",
        ),
        (
            vec![b"HTTP/1.1 301 There\r\nLocation: http://b.example/\r\n\r\n".to_vec()],
            "status 301",
        ),
        (vec![b"SSH-2.0-x\r\n".to_vec()], "no HTTP"),
        (vec![b"HTTP/1.1 200 OK\r\n".to_vec()], "no HTTP"),
        (vec![], "no HTTP"),
        (
            [vec![b"HTTP/1.1 200 OK\r\n".to_vec()], endless("X: y\r\n")].concat(),
            "no HTTP",
        ),
        (
            vec![format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD)).into_bytes()],
            "16 KiB",
        ),
    ] {
        let (got, _) = ask("", &name(), pieces.clone());
        let got = got.unwrap_err();
        assert!(got.contains(why), "{got}, not {why}");
    }
    let proxy = UpstreamProxy::new("http://127.0.0.1:1", "").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let tasks = tokio::task::LocalSet::new();
    let got = tasks.block_on(&runtime, async {
        proxy.connect(&name(), 443, &Loopback).await
    });
    assert!(got.unwrap_err().to_string().contains("not reached"));
}

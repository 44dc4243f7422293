//! Quotas of rules, as the guest, the server and the observer see them.

use super::*;

fn limited(name: &str, address: SocketAddr, scheme: &str, quota: &str) -> String {
    service(name, address, scheme, 80) + &format!("quota = {{ {quota} }}\n")
}

/// Sends until the end, a byte at a time; then says how the connection ended.
fn trickle(bench: &mut Bench, connection: Connection, count: usize) -> Option<End> {
    for _ in 0..count {
        if !bench.guest.send(connection, b"x") {
            break;
        }
    }
    bench.guest.receive_all(connection).1
}

/// The next line that is about a quota.
fn spent(bench: &Bench) -> String {
    loop {
        let line = bench.told();
        if line.contains("quota") {
            return line;
        }
    }
}

#[test]
fn not_a_byte_more_is_sent_than_the_quota() {
    let (server, told) = echo();
    let policy = limited("a.host", server, "tcp", "sent_bytes = 10");
    let mut bench = Bench::new(&policy);
    let connection = bench.connect("a.host", 80);
    assert!(bench.guest.send(connection, b"0123456789"));
    assert_eq!(bench.guest.receive(connection, 10), b"0123456789");
    assert_eq!(trickle(&mut bench, connection, 1), Some(End::Reset));
    assert_eq!(told.recv().unwrap(), 10);
    assert_eq!(bench.told(), "1: a.host:80 opened by test:1");
    assert_eq!(bench.told(), "a.host:80 tcp: 10 sent, 10 received");
    let line = bench.told();
    let why =
        "a.host:80: the rule's quota is used up: sent_bytes = 10 (service = [{ name = \"a.host\"";
    assert!(line.starts_with(why), "{line}");
    // Nothing is left for another connection, which is not even made.
    let other = bench.connect("a.host", 80);
    assert!(!bench.guest.is_connected(other));
    assert!(bench.told().starts_with(why));
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
}

#[test]
fn exactly_the_quota_may_go_and_end() {
    let (server, told) = echo();
    let quota = "sent_bytes = 5, received_bytes = 5";
    let mut bench = Bench::new(&limited("a.host", server, "tcp", quota));
    let connection = bench.connect("a.host", 80);
    assert!(bench.guest.send(connection, b"hello"));
    bench.guest.finish(connection);
    assert_eq!(
        bench.guest.receive_all(connection),
        (b"hello".to_vec(), Some(End::Finished))
    );
    assert_eq!(told.recv().unwrap(), 5);
}

#[test]
fn not_a_byte_more_is_received_than_the_quota() {
    let (server, _told) = echo();
    let policy = limited("a.host", server, "tcp", "received_bytes = 1000");
    let mut bench = Bench::new(&policy);
    let (one, other) = (bench.connect("a.host", 80), bench.connect("a.host", 80));
    assert!(bench.guest.send(one, &[1; 600]));
    assert_eq!(bench.guest.receive(one, 600).len(), 600);
    // The rest is shared.
    assert!(bench.guest.send(other, &[2; 600]));
    let (received, end) = bench.guest.receive_all(other);
    assert!(received.len() <= 400 && received.iter().all(|byte| *byte == 2));
    assert_eq!(end, Some(End::Reset));
    let line = spent(&bench);
    assert!(line.contains("received_bytes = 1000"), "{line}");
    assert_eq!(trickle(&mut bench, one, 1), Some(End::Reset));
}

#[test]
fn connections_beyond_the_quota_are_refused_until_others_end() {
    let (server, _told) = echo();
    let policy = limited("a.host", server, "tcp", "connections = 2");
    let mut bench = Bench::new(&policy);
    let held = [0, 1].map(|_| {
        let connection = bench.connect("a.host", 80);
        assert!(bench.guest.is_connected(connection));
        connection
    });
    let third = bench.connect("a.host", 80);
    assert!(!bench.guest.is_connected(third));
    assert!(spent(&bench).contains("connections = 2"));
    bench.guest.finish(held[0]);
    assert_eq!(bench.guest.receive_all(held[0]).1, Some(End::Finished));
    let third = bench.connect("a.host", 80);
    assert!(bench.guest.is_connected(third));
}

#[test]
fn a_new_policy_with_the_same_rule_gives_nothing_back() {
    let (server, _told) = echo();
    let rule = limited("a.host", server, "tcp", "sent_bytes = 10");
    let mut bench = Bench::new(&rule);
    let connection = bench.connect("a.host", 80);
    assert!(bench.guest.send(connection, &[0; 10]));
    assert_eq!(bench.guest.receive(connection, 10).len(), 10);
    // The same rule, at another line.
    let more = service("b.host", server, "tcp", 7) + &rule;
    bench.policies.send(more).unwrap();
    while bench.guest.resolve("b.host").is_none() {}
    assert_eq!(trickle(&mut bench, connection, 1), Some(End::Reset));
    let other = bench.connect("a.host", 80);
    assert!(!bench.guest.is_connected(other));
    // Another quota is another rule.
    let another = limited("a.host", server, "tcp", "sent_bytes = 11");
    bench.policies.send(another).unwrap();
    while bench.guest.resolve("b.host").is_some() {}
    let other = bench.connect("a.host", 80);
    assert!(bench.guest.is_connected(other));
}

#[test]
fn a_quota_that_a_new_policy_brings_holds_for_what_is_open() {
    let (server, _told) = echo();
    let mut bench = Bench::new(&service("a.host", server, "tcp", 80));
    let connection = bench.connect("a.host", 80);
    assert!(bench.guest.send(connection, &[0; 100]));
    assert_eq!(bench.guest.receive(connection, 100).len(), 100);
    let policy =
        limited("a.host", server, "tcp", "sent_bytes = 1") + &service("b.host", server, "tcp", 7);
    bench.policies.send(policy).unwrap();
    while bench.guest.resolve("b.host").is_none() {}
    assert_eq!(trickle(&mut bench, connection, 2), Some(End::Reset));
    assert!(spent(&bench).contains("sent_bytes = 1"));
}

/// A server that answers every request of every connection with this many bytes.
fn answers(len: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let (mut seen, mut byte) = (Vec::new(), [0]);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
                let answer = [head.into_bytes(), vec![b'x'; len]].concat();
                while let Ok(1) = stream.read(&mut byte) {
                    seen.extend(byte);
                    if seen.ends_with(b"\r\n\r\n") && stream.write_all(&answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nHost: a.host\r\n\r\n";

fn ask(bench: &mut Bench, connection: Connection) -> String {
    assert!(bench.guest.send(connection, REQUEST));
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("\r\n\r\n") {
        answer.extend(bench.guest.receive(connection, 1));
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn requests_beyond_the_quota_are_told_the_rule() {
    let quota = "requests_per_minute = 2";
    let mut bench = Bench::new(&limited("a.host", answers(0), "http", quota));
    let one = bench.connect("a.host", 80);
    assert!(ask(&mut bench, one).starts_with("HTTP/1.1 200 "));
    let other = bench.connect("a.host", 80);
    assert!(ask(&mut bench, other).starts_with("HTTP/1.1 200 "));
    for connection in [one, other] {
        let answer = ask(&mut bench, connection);
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
        let mut body = answer;
        while !body.contains("requests_per_minute = 2") {
            let rest = bench.guest.receive(connection, 1);
            assert!(!rest.is_empty(), "{body}");
            body += &String::from_utf8(rest).unwrap();
        }
        let line = spent(&bench);
        assert!(
            line.starts_with("a.host:80 GET /x: the rule's quota"),
            "{line}"
        );
    }
}

#[test]
fn what_http_carries_is_limited_to_the_byte() {
    let quota = "received_bytes = 500";
    let mut bench = Bench::new(&limited("a.host", answers(10_000), "http", quota));
    let connection = bench.connect("a.host", 80);
    assert!(bench.guest.send(connection, REQUEST));
    let (received, end) = bench.guest.receive_all(connection);
    assert_eq!(end, Some(End::Reset));
    assert!(received.len() <= 500 + 100, "{}", received.len());
    assert!(received.iter().filter(|byte| **byte == b'x').count() < 500);
    let lines: Vec<_> = (0..4).map(|_| bench.told()).collect();
    assert!(lines[2].ends_with(", 500 received"), "{lines:?}");
    assert!(lines[3].contains("received_bytes = 500"), "{lines:?}");
}

#[test]
fn what_http_sends_is_limited_to_the_byte() {
    let (server, told) = echo();
    let quota = "sent_bytes = 60";
    let mut bench = Bench::new(&limited("a.host", server, "http", quota));
    let connection = bench.connect("a.host", 80);
    let request = [
        &b"POST /x HTTP/1.1\r\nHost: a.host\r\nContent-Length: 1000\r\n\r\n"[..],
        &[b'y'; 1000],
    ]
    .concat();
    assert!(bench.guest.send(connection, &request));
    assert_eq!(bench.guest.receive_all(connection).1, Some(End::Reset));
    assert_eq!(told.recv().unwrap(), 60);
    assert!(spent(&bench).contains("sent_bytes = 60"));
}

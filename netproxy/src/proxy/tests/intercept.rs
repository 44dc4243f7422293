//! TLS that is ended by somebody: here by one who takes the first message, and reads what is behind it as lines of a method and a path.

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::*;
use crate::first_bytes::hello_len;
use crate::intercept::{Intercepted, Interceptor, Serving};

struct Lines;

impl Interceptor for Lines {
    fn intercept(&self, connection: Intercepted) -> Serving {
        Box::pin(async move {
            let Intercepted {
                guest,
                mut upstream,
                authority,
                judge,
            } = connection;
            let len = guest.peek(hello_len).await?.unwrap();
            let mut guest = BufReader::new(guest);
            let mut hello = vec![0; len];
            tokio::io::AsyncReadExt::read_exact(&mut guest, &mut hello).await?;
            loop {
                let mut line = String::new();
                if guest.read_line(&mut line).await? == 0 {
                    return Ok(());
                }
                let (method, path) = line.trim_end().split_once(' ').unwrap();
                match judge.judge(method, path) {
                    Ok(()) => {
                        let passed = format!("{}:{} {line}", authority.name, authority.port);
                        upstream.write_all(passed.as_bytes()).await?;
                        guest.get_mut().write_all(b"ok").await?;
                    }
                    Err(_) => guest.get_mut().write_all(b"no").await?,
                }
            }
        })
    }
}

fn bench(policy: &str) -> Bench {
    let intercepting = |proxy: Proxy<Everything>| proxy.intercepting(Rc::new(Lines));
    let own = || Ok(HostAddresses::default());
    Bench::set_up(compile(policy, "", true), own, intercepting)
}

#[test]
fn requests_of_tls_that_is_ended_are_judged() {
    let (address, got) = echo();
    let policy = service("a.host", address, "https", 443)
        + "[[deny]]\nhost = \"a.host\"\nscheme = \"https\"\npaths = [\"/secret\"]\n";
    let mut bench = bench(&policy);
    let connection = bench.connect("a.host", 443);
    assert!(bench.guest.send(connection, &hello("a.host")));
    for (line, answer) in [("GET /x\n", b"ok"), ("GET /secret\n", b"no")] {
        assert!(bench.guest.send(connection, line.as_bytes()));
        assert_eq!(bench.guest.receive(connection, 2), answer, "{line}");
    }
    bench.guest.finish(connection);
    // Neither the first message nor what was denied.
    assert_eq!(got.recv().unwrap(), "a.host:443 GET /x\n".len());
    let told: Vec<_> = (0..3).map(|_| bench.told()).collect();
    let expected = [
        "1: a.host:443 opened by test:1",
        "a.host:443 GET /x",
        "a.host:443 GET /secret: a rule denies it",
    ];
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}");
    }
}

#[test]
fn what_is_for_another_name_never_gets_there() {
    let (address, got) = echo();
    let mut bench = bench(&service("a.host", address, "https", 443));
    let connection = bench.connect("a.host", 443);
    assert!(bench.guest.send(connection, &hello("b.host")));
    assert_eq!(bench.guest.receive_all(connection).1, Some(End::Reset));
    assert_eq!(got.recv().unwrap(), 0);
}

#[test]
fn what_passes_through_is_carried_as_it_is() {
    let (address, got) = echo();
    let (port, _asked) = upstream::proxy_to(address);
    let policy =
        "[[allow]]\nhost = \"a.example\"\npassthrough = true\n[[allow]]\nhost = \"b.example\"\n";
    let own = || Ok(HostAddresses::default());
    let mut bench = Bench::set_up(compile(policy, "", true), own, move |proxy| {
        let upstream = UpstreamProxy::new(&format!("http://127.0.0.1:{port}"), "");
        proxy
            .by(Some(upstream.unwrap()))
            .intercepting(Rc::new(Lines))
    });
    for (name, carried) in [("a.example", true), ("b.example", false)] {
        let connection = bench.connect(name, 443);
        let hello = hello(name);
        assert!(bench.guest.send(connection, &hello));
        assert!(bench.guest.send(connection, b"GET /x\n"));
        let (answer, len) = match carried {
            true => ([&*hello, b"GET /x\n"].concat(), hello.len() + 7),
            false => (b"ok".to_vec(), format!("{name}:443 GET /x\n").len()),
        };
        assert_eq!(bench.guest.receive(connection, answer.len()), answer);
        bench.guest.finish(connection);
        assert_eq!(got.recv().unwrap(), len, "{name}");
    }
}

//! Large policies.

use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

use super::super::{LARGEST_FILE, Layers, Origin, Policy, Scheme, Verdict};
use super::{compile, host, user};

/// 10 000 rules for as many hosts: exact names, wildcards, denials, and rules about requests.
fn large() -> Layers {
    let mut text = String::new();
    for number in 0..2500 {
        writeln!(
            text,
            "[[allow]]\nhost = 'h{number}.corp.example'\n[[allow]]\nhost = '*.w{number}.corp.example'\n\
             [[deny]]\nhost = 'no.w{number}.corp.example'\n\
             [[allow]]\nhost = 'api{number}.corp.example'\nmethods = ['GET']\npaths = ['/v1/**', '/*/x']"
        )
        .unwrap();
    }
    user(&text)
}

#[test]
fn ten_thousand_rules_compile_and_decide() {
    let engine = compile(&large()).unwrap();
    let verdict = |name: &str| engine.connection(&host(name), 443, Scheme::Https).verdict;
    for number in [0, 1, 1249, 2499] {
        assert_eq!(verdict(&format!("h{number}.corp.example")), Verdict::Allow);
        assert_eq!(
            verdict(&format!("a.b.w{number}.corp.example")),
            Verdict::Allow
        );
        assert!(!verdict(&format!("no.w{number}.corp.example")).permits());
        let api = host(&format!("api{number}.corp.example"));
        let request = |path| {
            engine
                .request(&api, 443, Scheme::Https, "GET", path)
                .verdict
        };
        assert_eq!(request("/v1/a"), Verdict::Allow);
        assert!(!request("/v2/a").permits());
    }
    assert!(!verdict("h2500.corp.example").permits());
    assert!(!verdict("corp.example").permits());
}

#[test]
fn the_largest_hostile_files_are_refused_in_time() {
    let units = [
        "[",
        "{",
        "a.",
        "[a.",
        "[[",
        "a=[",
        "a={a=",
        "\"",
        "'''",
        "\\",
        "[[allow]]\n",
        "allow.x=1\n",
        "\u{202e}",
        "x=1\n",
        "[[allow]]\nhost='a'\nports=[1,\n",
        "#\n",
    ];
    for unit in units {
        let start = Instant::now();
        let file = unit.repeat(LARGEST_FILE / unit.len());
        let parsed = Policy::parse(file.as_bytes(), Origin::default());
        // Comments are a policy, an empty one.
        assert_eq!(parsed.is_ok(), unit == "#\n", "{unit}");
        let message = parsed.map_or_else(|error| error.to_string(), |_| String::new());
        println!(
            "{unit:?}: {:?}, {} bytes of message",
            start.elapsed(),
            message.len()
        );
        assert!(
            start.elapsed().as_secs() < 20 && message.len() < 1000,
            "{unit}"
        );
    }
}

/// Measures; run it in a release build: `cargo test --release -p netproxy -- --ignored --nocapture time_of_a_decision`.
#[test]
#[ignore = "measures, and means something only in a release build on a quiet machine"]
fn time_of_a_decision() {
    const ROUNDS: u32 = 200_000;
    let start = Instant::now();
    let layers = large();
    println!("parse: {:?}", start.elapsed());
    let start = Instant::now();
    let engine = compile(&layers).unwrap();
    println!("compile: {:?}", start.elapsed());
    let mut slowest = 0;
    for name in [
        "h77.corp.example",
        "a.b.w1234.corp.example",
        "no.w1234.corp.example",
        "api9.corp.example",
        "other.host.somewhere.example",
        "1.2.3.4",
    ] {
        let host = host(name);
        let time = |what: &str, decide: &dyn Fn() -> bool| {
            let start = Instant::now();
            let permitted = (0..ROUNDS).filter(|_| black_box(decide())).count();
            let nanoseconds = (start.elapsed() / ROUNDS).as_nanos();
            println!(
                "{name} {what}: {nanoseconds} ns, permitted {}",
                permitted > 0
            );
            nanoseconds
        };
        let connection = || {
            engine
                .connection(black_box(&host), 443, Scheme::Https)
                .verdict
                .permits()
        };
        let request = || {
            let decision = engine.request(
                black_box(&host),
                443,
                Scheme::Https,
                "GET",
                "/v1/repos/some/path?x=y",
            );
            decision.verdict.permits()
        };
        slowest = slowest
            .max(time("connection", &connection))
            .max(time("request", &request));
    }
    assert!(slowest < 1000, "{slowest} ns");
}

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::rules::is_allowed;
use super::*;
use crate::audit::{Digest, Event, LONGEST_PATH, Record};
use crate::policy::{Allow, Origin};

const ABILITIES: Abilities = Abilities {
    intercepts_tls: false,
};

fn is_public(address: IpAddr) -> bool {
    crate::address::check(address).is_ok()
}

fn policy(text: &str) -> Policy {
    Policy::parse(text.as_bytes(), Origin::new("p")).unwrap()
}

/// What was let through, as the log has it.
fn record(host: &str, port: u16, scheme: Scheme, request: Option<(&str, &str)>) -> Record {
    Record {
        time: 1_785_585_600_000,
        event: match request {
            Some(_) => Event::Request,
            None => Event::Opened,
        },
        flow: Some(1),
        host: Some(host.to_owned()),
        port: Some(port),
        scheme: Some(scheme),
        request: request.map(|(method, path)| (method.to_owned(), path.to_owned())),
        verdict: Some(Verdict::Audit),
        ..Record::lost(0, 0)
    }
}

fn denied(host: &str, port: Option<u16>, reason: &str) -> Record {
    Record {
        event: Event::Denied,
        host: Some(host.to_owned()),
        port,
        verdict: Some(Verdict::Deny),
        reason: Some(reason.to_owned()),
        ..Record::lost(0, 0)
    }
}

fn learned(existing: &str, records: &[Record], wildcards: Wildcards) -> Learned {
    let mut learner = Learner::new(policy(existing), ABILITIES, is_public).unwrap();
    for record in records {
        learner.learn(record.line(&Digest::default(), "box").as_bytes());
    }
    learner.finish(wildcards).unwrap()
}

/// The policy that a text is, beside another.
fn compile(existing: &str, allow: Vec<Allow>) -> Engine {
    let layers = Layers {
        global: Some(policy(existing)),
        sandbox: Some(Policy {
            allow,
            ..Policy::default()
        }),
        repository: None,
    };
    Engine::compile(&layers, ABILITIES, is_public).unwrap()
}

fn https(host: &str) -> Record {
    record(host, 443, Scheme::Https, None)
}

fn http(host: &str, method: &str, path: &str) -> Record {
    record(host, 80, Scheme::Http, Some((method, path)))
}

/// The rules alone, each without its comments.
fn rules(learned: &Learned) -> Vec<String> {
    let text = learned.to_string();
    let parsed = policy(&text);
    assert_eq!(parsed.allow.len(), learned.rules().len(), "{text}");
    assert!(parsed.deny.is_empty() && parsed.service.is_empty() && parsed.mode.is_none());
    let line = |allow: &Allow| {
        let rule = crate::policy::Rule::allow(allow, ABILITIES, is_public)
            .unwrap()
            .to_string();
        let rule = rule.strip_prefix("allow = [{ ").unwrap();
        rule.strip_suffix(" }]").unwrap().to_owned()
    };
    parsed.allow.iter().map(line).collect()
}

#[test]
fn what_was_let_through_becomes_the_rules_that_are_missing() {
    let table: &[(&str, &[Record], &[&str])] = &[
        ("", &[], &[]),
        (
            "",
            &[https("a.example"), https("a.example")],
            &["host = \"a.example\""],
        ),
        ("[[allow]]\nhost = 'a.example'", &[https("a.example")], &[]),
        (
            "[[allow]]\nhost = '*.example.org'",
            &[https("a.example.org")],
            &[],
        ),
        (
            "mode = 'audit'",
            &[
                https("a.example"),
                record("a.example", 8443, Scheme::Https, None),
            ],
            &[
                "host = \"a.example\"",
                "host = \"a.example\", ports = [8443]",
            ],
        ),
        (
            "",
            &[record("8.8.8.8", 53, Scheme::Tcp, None)],
            &["host = \"8.8.8.8\", scheme = \"tcp\", ports = [53]"],
        ),
        // What is carried unread may be anything.
        (
            "",
            &[
                record("a.example", 8080, Scheme::Https, None),
                record("a.example", 8080, Scheme::Http, Some(("GET", "/"))),
                record("a.example", 8080, Scheme::Tcp, None),
            ],
            &["host = \"a.example\", scheme = \"tcp\", ports = [8080]"],
        ),
        (
            "[[allow]]\nhost = 'a.example'\nscheme = 'tcp'\nports = [443]",
            &[https("a.example")],
            &[],
        ),
        // A connection without requests needs no rule.
        ("", &[record("a.example", 80, Scheme::Http, None)], &[]),
        (
            "",
            &[
                http("a.example", "GET", "/x?key="),
                http("a.example", "HEAD", "/x"),
                http("a.example", "POST", "/y%20z"),
            ],
            &[
                "host = \"a.example\", scheme = \"http\", methods = [\"GET\", \"HEAD\"], paths = [\"/x\"]",
                "host = \"a.example\", scheme = \"http\", methods = [\"POST\"], paths = [\"/y z\"]",
            ],
        ),
        (
            "[[allow]]\nhost = 'a.example'\nscheme = 'http'\nmethods = ['GET']",
            &[
                http("a.example", "GET", "/x"),
                http("a.example", "POST", "/x"),
            ],
            &["host = \"a.example\", scheme = \"http\", methods = [\"POST\"], paths = [\"/x\"]"],
        ),
        (
            "",
            &[
                http("a.example", "GET", "/x;y"),
                http("a.example", "GET", "/x"),
                http("a.example", "PUT", "/x"),
            ],
            &[
                "host = \"a.example\", scheme = \"http\", methods = [\"GET\"]",
                "host = \"a.example\", scheme = \"http\", methods = [\"PUT\"], paths = [\"/x\"]",
            ],
        ),
        (
            "",
            &[
                http("a.example", "get", "/x"),
                http("a.example", "PUT", "/y"),
            ],
            &["host = \"a.example\", scheme = \"http\""],
        ),
    ];
    for (existing, records, expected) in table {
        let mut found = rules(&learned(existing, records, Wildcards::Never));
        found.sort();
        assert_eq!(found, *expected, "{existing} {records:?}");
    }
}

#[test]
fn what_no_rule_can_be_added_for_is_told_and_not_learned() {
    let pair = [
        http("a.example", "GET", "/x"),
        http("a.example", "GET", "/y"),
    ];
    let table: &[(&str, &[Record], usize, &str)] = &[
        (
            "[[deny]]\nhost = 'a.example'",
            &[https("a.example")],
            0,
            "https a.example:443: a deny rule",
        ),
        (
            "[[deny]]\nhost = 'a.example'\nscheme = 'http'\npaths = ['/x/**']",
            &pair,
            1,
            "http a.example:80 GET /x: a deny rule",
        ),
        (
            "[[service]]\nname = 'a.example'\naddress = '127.0.0.1:1'",
            &[https("a.example")],
            0,
            "https a.example:443: the name is a service's",
        ),
        (
            "[[allow]]\nhost = '*.a.example'\nscheme = 'http'\nports = [8080]\nmethods = ['GET']",
            &[record("x.a.example", 8080, Scheme::Tcp, None)],
            0,
            "tcp x.a.example:8080: it would be carried unread",
        ),
    ];
    for (existing, records, count, part) in table {
        let learned = learned(existing, records, Wildcards::Never);
        assert_eq!(rules(&learned).len(), *count, "{learned}");
        let text = learned.to_string();
        assert!(text.contains(&format!("#   {part}")), "{part}: {text}");
    }
    // A denial is never learned, whatever it was for.
    let own = "the address may not be dialled: private";
    let records = [
        denied("a.example", Some(443), own),
        denied("a.example", Some(443), own),
        denied("10.0.0.1", Some(80), "no rule allows this host"),
        denied("b.example", None, "no rule allows this host"),
    ];
    let text = learned("", &records, Wildcards::Never).to_string();
    assert!(policy(&text).allow.is_empty());
    for line in [
        "#   a.example:443: the address may not be dialled: private (2 times)",
        "#   10.0.0.1:80: no rule allows this host (1 time)",
        "#   b.example: no rule allows this host (1 time)",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn what_is_no_destination_of_a_policy_is_counted_and_never_learned() {
    let hosts = [
        "A.example",
        "a.example.",
        "*.example",
        "*",
        "",
        "x\"\n[[allow]]\nhost = \"y.example",
        "a b",
        "127.0.0.1",
        "10.0.0.1",
        "::ffff:8.8.8.8",
        "0x7f.1",
        "localhost\u{202e}",
        "[::1]",
        "169.254.169.254",
        "008.8.8.8",
    ];
    let mut learner = Learner::new(policy(""), ABILITIES, is_public).unwrap();
    for host in hosts {
        learner.learn(https(host).line(&Digest::default(), "box").as_bytes());
    }
    let mut odd = https("a.example");
    odd.port = None;
    learner.learn(odd.line(&Digest::default(), "box").as_bytes());
    for line in ["", "x", "{}", "[1]", "{\"time\":1}"] {
        learner.learn(line.as_bytes());
    }
    let lost = Record::lost(0, 7);
    learner.learn(lost.line(&Digest::default(), "box").as_bytes());
    let text = learner.finish(Wildcards::Below).unwrap().to_string();
    assert!(policy(&text).allow.is_empty(), "{text}");
    for line in [
        format!(
            "# Of nothing that a rule could be for: {} records.",
            hosts.len() + 1 + 5
        ),
        "# Missing in the log, and so here: 7 records.".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
}

#[test]
fn whatever_stands_in_a_log_is_a_comment_of_printable_lines_or_nothing() {
    let hostile = "\u{1b}[2J\n[[allow]]\nhost = \"evil.example\"\n\u{202e}#\u{85}\u{2028}\r\u{0}";
    let mut refused = denied(hostile, Some(1), hostile);
    refused.request = Some((hostile.into(), hostile.into()));
    let mut learner = Learner::new(policy(""), ABILITIES, is_public).unwrap();
    for record in [
        https("a.example"),
        refused,
        http("a.example", hostile, hostile),
    ] {
        learner.learn(record.line(&Digest::default(), hostile).as_bytes());
    }
    let learned = learner.finish(Wildcards::Never).unwrap();
    let expected = [
        "host = \"a.example\", scheme = \"http\"",
        "host = \"a.example\"",
    ];
    assert_eq!(rules(&learned), expected);
    let text = learned.to_string();
    let acts = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{2028}".contains(c));
    assert!(!text.contains(acts), "{text:?}");
    assert!(text.lines().all(|line| line.len() < 1000));
}

#[test]
fn comments_say_how_often_when_and_by_whom() {
    let mut learner = Learner::new(policy(""), ABILITIES, is_public).unwrap();
    for (number, name) in (0..).zip(["one", "two", "two", "three", "four"]) {
        let mut record = https("a.example");
        record.time += number * 60_000;
        learner.learn(record.line(&Digest::default(), name).as_bytes());
    }
    for (method, path) in [
        ("GET", "/x"),
        ("GET", "/x"),
        ("PUT", "/y"),
        ("PUT", "/y"),
        ("PUT", "/z"),
    ] {
        let record = http("b.example", method, path);
        learner.learn(record.line(&Digest::default(), "box").as_bytes());
    }
    let text = learner.finish(Wildcards::Never).unwrap().to_string();
    let requests = "# 2 requests, 2026-08-01T12:00:00Z to 2026-08-01T12:00:00Z, by box\n[[allow]]\nhost = \"b.example\"";
    assert!(
        text.contains(requests) && text.contains("# 3 requests, "),
        "{text}"
    );
    let comment = "# 5 connections, 2026-08-01T12:00:00Z to 2026-08-01T12:04:00Z, by four, one, three and others\n[[allow]]\nhost";
    assert!(text.contains(comment), "{text}");
}

#[test]
fn wildcards_are_made_when_asked_for_and_of_enough_names() {
    let table: &[(&[&str], &[&str])] = &[
        (
            &["a.d.example", "b.d.example"],
            &["a.d.example", "b.d.example"],
        ),
        (
            &["a.d.example", "b.d.example", "x.y.d.example", "d.example"],
            &["*.d.example", "d.example"],
        ),
        (
            &["a.e.d.example", "b.e.d.example", "c.e.d.example"],
            &["*.e.d.example"],
        ),
        (
            &["e.d.example", "b.e.d.example", "c.e.d.example"],
            &["b.e.d.example", "c.e.d.example", "e.d.example"],
        ),
        // Each belongs to somebody else: a public suffix.
        (
            &["a.co.uk", "b.co.uk", "c.co.uk"],
            &["a.co.uk", "b.co.uk", "c.co.uk"],
        ),
        (
            &["a.github.io", "b.github.io", "c.github.io"],
            &["a.github.io", "b.github.io", "c.github.io"],
        ),
        (
            &["co.uk", "github.io", "example"],
            &["co.uk", "example", "github.io"],
        ),
    ];
    for (names, expected) in table {
        let records: Vec<_> = names.iter().map(|name| https(name)).collect();
        let hosts = |wildcards| {
            let learned = learned("", &records, wildcards);
            let parsed = policy(&learned.to_string());
            let mut hosts: Vec<_> = parsed.allow.into_iter().map(|it| it.host).collect();
            hosts.sort();
            hosts
        };
        assert_eq!(hosts(Wildcards::Below), *expected);
        assert!(
            !hosts(Wildcards::Never)
                .iter()
                .any(|host| host.contains('*'))
        );
    }
}

#[test]
fn what_a_learner_holds_is_bounded() {
    let mut learner = Learner::new(policy(""), ABILITIES, is_public).unwrap();
    let mut learn =
        |record: Record| learner.learn(record.line(&Digest::default(), "box").as_bytes());
    for number in 0..MOST_DENIED + 5 {
        learn(denied(&format!("{number}.example"), Some(443), "no"));
    }
    for number in 0..MOST_FLOWS + 5 {
        learn(https(&format!("h{number}.example")));
    }
    let long = "x".repeat(LONGEST_PATH / 2);
    for number in 0..40 {
        let host = format!("h{number}.example");
        let mut one = http(&host, "GET", &format!("/{long}"));
        one.port = Some(443);
        one.scheme = Some(Scheme::Https);
        // Requests of what is not read are no more than their connection.
        learn(one);
    }
    assert_eq!(learner.flows.len(), MOST_FLOWS);
    assert_eq!(learner.paths_left, MOST_PATHS);
    assert_eq!(learner.denied.len(), MOST_DENIED);
    assert_eq!(learner.counts.beyond, 10);
    let learned = learner.finish(Wildcards::Never).unwrap();
    assert_eq!(learned.rules().len(), MOST_FLOWS);
    let text = learned.to_string();
    assert!(text.contains("# Left out, because there are too many destinations: 10 records."));
    assert!(
        text.contains("#   and 950 more"),
        "{}",
        text.lines().count()
    );

    let mut learner = Learner::new(policy(""), ABILITIES, is_public).unwrap();
    learner.paths_left = 3;
    for number in 0..5 {
        let record = http("a.example", "GET", &format!("/{number}"));
        learner.learn(record.line(&Digest::default(), "box").as_bytes());
    }
    let learned = learner.finish(Wildcards::Never).unwrap();
    let any_path = "host = \"a.example\", scheme = \"http\", methods = [\"GET\"]";
    assert_eq!(rules(&learned), [any_path]);
    assert!(
        learned
            .to_string()
            .contains("# any path: there were paths about which")
    );
}

const EXISTING: [&str; 4] = [
    "",
    "mode = 'audit'\n[[allow]]\nhost = 'a.example'\n[[allow]]\nhost = '*.d.example'\nports = [8443]",
    "[[allow]]\nhost = 'a.example'\nscheme = 'http'\nmethods = ['GET']\npaths = ['/a/**', '/p/**']",
    "[[allow]]\nhost = 'x.d.example'\nscheme = 'tcp'\nports = [22, 443]",
];

fn any_record() -> impl Strategy<Value = Record> {
    let host = select(
        &[
            "a.example",
            "b.example",
            "x.d.example",
            "y.d.example",
            "z.d.example",
            "d.example",
            "8.8.8.8",
        ][..],
    );
    let method = select(&["GET", "GET", "HEAD", "POST", "get"][..]);
    let path = prop_oneof![
        select(
            &[
                "/", "/a", "/a/", "/a/b?c=", "/%C3%BC", "/a//b", "/a*", "*", "/q/r"
            ][..]
        )
        .prop_map(str::to_owned),
        (0..60).prop_map(|number| format!("/p/{number}")),
        (0..60).prop_map(|number| format!("/{number}")),
    ];
    let request = (host.clone(), select(&[80, 8080][..]), method, path);
    let unread = (
        host,
        select(
            &[
                (443, Scheme::Https),
                (8443, Scheme::Https),
                (22, Scheme::Tcp),
                (8080, Scheme::Tcp),
                (8443, Scheme::Tcp),
            ][..],
        ),
    );
    prop_oneof![
        3 => request.prop_map(|(host, port, method, path)| record(host, port, Scheme::Http, Some((method, &path)))),
        2 => unread.prop_map(|(host, (port, scheme))| record(host, port, scheme, None)),
    ]
}

fn is_covered(engine: &Engine, record: &Record) -> bool {
    let host = record.host.clone().unwrap();
    let address = host.parse().map(Host::Address);
    let flow = Flow {
        host: address.unwrap_or_else(|_| Host::Name(HostName::parse(&host).unwrap())),
        port: record.port.unwrap(),
        scheme: record.scheme.unwrap(),
    };
    let request = record.request.as_ref();
    let request = request.map(|(method, path)| (method.as_str(), path.as_str()));
    is_allowed(engine, &flow, request)
}

/// Each compiles a policy once for each of its rules, so they are few unless more are asked for.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(60, |count| count.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// The parser takes what is printed; it allows every flow; without any of its rules it does not.
    #[test]
    fn a_learned_policy_allows_what_was_seen_and_no_rule_is_too_many(
        records in vec(any_record(), 0..120),
        existing in select(&EXISTING[..]),
        wildcards in select(&[Wildcards::Never, Wildcards::Below][..]),
    ) {
        let learned = learned(existing, &records, wildcards);
        prop_assert!(learned.refused.is_empty(), "{}", learned);
        let rules = policy(&learned.to_string()).allow;
        prop_assert_eq!(rules.len(), learned.rules().len());
        let all = compile(existing, rules.clone());
        for record in &records {
            prop_assert!(is_covered(&all, record), "{:?} {}", record, learned);
        }
        for left_out in 0..rules.len() {
            let mut fewer = rules.clone();
            let rule = fewer.remove(left_out);
            let engine = compile(existing, fewer);
            let is_lost = records.iter().any(|record| !is_covered(&engine, record));
            prop_assert!(is_lost, "{:?} is not needed: {}", rule, learned);
        }
    }

    /// Whatever a log holds, what comes of it is a policy.
    #[test]
    fn whatever_is_read_is_learned_or_not_without_a_panic(lines in vec("\\PC{0,80}|\\{\"time\":\"[0-9TZ:-]{0,20}\",\"sandbox\":\"\\PC{0,9}\",\"event\":\"(opened|denied|lost)\",\"host\":\"\\PC{0,9}\",\"port\":[0-9]{1,5},\"scheme\":\"(https|tcp)\",\"verdict\":\"audit\"\\}", 0..20)) {
        let mut learner = Learner::new(policy(""), ABILITIES, is_public).unwrap();
        for line in &lines {
            learner.learn(line.as_bytes());
        }
        let text = learner.finish(Wildcards::Below).unwrap().to_string();
        let parsed = Policy::parse(text.as_bytes(), Origin::new("p"));
        prop_assert!(parsed.is_ok_and(|policy| policy.deny.is_empty()), "{}", text);
    }
}

//! The rule that would allow what was denied.

use super::super::{Host, Layers, Scheme};
use super::{compile, engine, host, policy};

const POLICY: &str = "
[[allow]]
host = 'a.example'
methods = ['GET']

[[deny]]
host = 'evil.example'

[[service]]
name = 'db.host'
address = '127.0.0.1:5432'
";

#[test]
fn the_suggested_rule_allows_what_was_denied_and_nothing_beside_it() {
    let before = engine(POLICY);
    for (destination, port, scheme, request, rule) in [
        (
            "b.example",
            443,
            Scheme::Https,
            None,
            "allow = [{ host = \"b.example\" }]",
        ),
        (
            "b.example",
            8443,
            Scheme::Https,
            None,
            "allow = [{ host = \"b.example\", ports = [8443] }]",
        ),
        (
            "b.example",
            80,
            Scheme::Http,
            None,
            "allow = [{ host = \"b.example\", scheme = \"http\" }]",
        ),
        (
            "b.example",
            22,
            Scheme::Tcp,
            None,
            "allow = [{ host = \"b.example\", scheme = \"tcp\", ports = [22] }]",
        ),
        (
            "8.8.8.8",
            443,
            Scheme::Https,
            None,
            "allow = [{ host = \"8.8.8.8\" }]",
        ),
        (
            "a.example",
            443,
            Scheme::Https,
            Some(("PUT", "/x/%61?q=\"")),
            "allow = [{ host = \"a.example\", methods = [\"PUT\"], paths = [\"/x/a\"] }]",
        ),
        (
            "b.example",
            443,
            Scheme::Https,
            Some(("GET", "/")),
            "allow = [{ host = \"b.example\", methods = [\"GET\"], paths = [\"/\"] }]",
        ),
    ] {
        let host = host(destination);
        let suggested = before.suggestion(&host, port, scheme, request).unwrap();
        assert_eq!(suggested.to_string(), rule);
        let after = engine(&format!("{POLICY}\n{}", suggested.to_table()));
        let (method, path) = request.unwrap_or(("GET", "/y"));
        assert!(
            !before
                .request(&host, port, scheme, method, path)
                .verdict
                .permits()
        );
        assert!(
            after
                .request(&host, port, scheme, method, path)
                .verdict
                .permits()
        );
        assert!(!after.connection(&host, port + 1, scheme).verdict.permits());
        assert_eq!(after.suggestion(&host, port, scheme, request), None);
    }
}

#[test]
fn nothing_is_suggested_where_no_rule_would_help() {
    let engine = engine(POLICY);
    let none = |host: &Host, port, scheme, request| {
        assert_eq!(
            engine.suggestion(host, port, scheme, request),
            None,
            "{host}:{port}"
        );
    };
    none(&host("a.example"), 443, Scheme::Https, None);
    none(&host("evil.example"), 443, Scheme::Https, None);
    none(&host("db.host"), 80, Scheme::Http, None);
    none(&host("10.0.0.1"), 443, Scheme::Https, None);
    none(&host("::ffff:8.8.8.8"), 443, Scheme::Https, None);
    none(&host("b.example"), 0, Scheme::Tcp, None);
    // It would let through unread what the rule about GET is to judge.
    none(&host("a.example"), 443, Scheme::Tcp, None);
    for path in ["/../x", "/a*b", "x"] {
        none(&host("b.example"), 443, Scheme::Https, Some(("GET", path)));
    }
    none(&host("b.example"), 443, Scheme::Https, Some(("get", "/")));
}

#[test]
fn what_the_repository_does_not_allow_is_suggested_for_it() {
    let layers = |repository: &str| Layers {
        global: Some(policy("[[allow]]\nhost = 'b.example'")),
        repository: Some(policy(repository)),
        ..Layers::default()
    };
    let narrow = "[[allow]]\nhost = 'a.example'\n";
    let b = host("b.example");
    let before = compile(&layers(narrow)).unwrap();
    let suggested = before.suggestion(&b, 443, Scheme::Https, None).unwrap();
    let after = compile(&layers(&format!("{narrow}{}", suggested.to_table()))).unwrap();
    assert!(after.connection(&b, 443, Scheme::Https).verdict.permits());
}

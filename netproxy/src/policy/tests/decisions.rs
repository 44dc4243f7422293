//! What one policy decides.

use super::super::path::PathError;
use super::super::{Reason, Scheme, Verdict};
use super::{NOT_INTERCEPTING, engine, host, is_public, user};
use crate::HostName;

const POLICY: &str = "
[[allow]]
host = 'api.example'
methods = ['GET', 'POST']
paths = ['/repos/*/issues/**', '/user']
quota = { sent_bytes = 1000, requests_per_minute = 60 }

[[allow]]
host = '*.cdn.example'
ports = [443, 8443]

[[allow]]
host = '*.pinned.cdn.example'
passthrough = true

[[allow]]
host = 'git.example'
scheme = 'tcp'
ports = [22]

[[allow]]
host = 'plain.example'
scheme = 'http'

[[allow]]
host = '8.8.8.8'

[[deny]]
host = 'secret.cdn.example'

[[deny]]
host = '*.cdn.example'
ports = [8443]
methods = ['DELETE']

[[service]]
name = 'db.host'
address = '127.0.0.1:5432'
ports = [15432]
quota = { connections = 3 }
";

const CONNECTIONS: &[(&str, u16, Scheme, Verdict, Option<u32>)] = &[
    ("api.example", 443, Scheme::Https, Verdict::Allow, Some(2)),
    (
        "api.example",
        80,
        Scheme::Http,
        Verdict::Deny(Reason::Port),
        None,
    ),
    (
        "api.example",
        443,
        Scheme::Http,
        Verdict::Deny(Reason::Scheme),
        None,
    ),
    (
        "api.example",
        443,
        Scheme::Tcp,
        Verdict::Deny(Reason::Scheme),
        None,
    ),
    (
        "a.api.example",
        443,
        Scheme::Https,
        Verdict::Deny(Reason::Host),
        None,
    ),
    (
        "example",
        443,
        Scheme::Https,
        Verdict::Deny(Reason::Host),
        None,
    ),
    (
        "cdn.example",
        443,
        Scheme::Https,
        Verdict::Deny(Reason::Host),
        None,
    ),
    (
        "xcdn.example",
        443,
        Scheme::Https,
        Verdict::Deny(Reason::Host),
        None,
    ),
    (
        "a.cdn.example.evil.example",
        443,
        Scheme::Https,
        Verdict::Deny(Reason::Host),
        None,
    ),
    ("a.cdn.example", 443, Scheme::Https, Verdict::Allow, Some(8)),
    (
        "a.b.c.cdn.example",
        8443,
        Scheme::Https,
        Verdict::Allow,
        Some(8),
    ),
    (
        "secret.cdn.example",
        443,
        Scheme::Https,
        Verdict::Deny(Reason::DenyRule),
        Some(28),
    ),
    (
        "secret.cdn.example",
        8443,
        Scheme::Tcp,
        Verdict::Deny(Reason::DenyRule),
        Some(28),
    ),
    (
        "a.secret.cdn.example",
        443,
        Scheme::Https,
        Verdict::Allow,
        Some(8),
    ),
    (
        "pinned.cdn.example",
        443,
        Scheme::Https,
        Verdict::Allow,
        Some(8),
    ),
    (
        "a.pinned.cdn.example",
        443,
        Scheme::Https,
        Verdict::Allow,
        Some(12),
    ),
    (
        "a.pinned.cdn.example",
        8443,
        Scheme::Https,
        Verdict::Allow,
        Some(8),
    ),
    ("git.example", 22, Scheme::Tcp, Verdict::Allow, Some(16)),
    (
        "git.example",
        22,
        Scheme::Https,
        Verdict::Deny(Reason::Scheme),
        None,
    ),
    ("plain.example", 80, Scheme::Http, Verdict::Allow, Some(21)),
    (
        "plain.example",
        443,
        Scheme::Https,
        Verdict::Deny(Reason::Port),
        None,
    ),
    ("8.8.8.8", 443, Scheme::Https, Verdict::Allow, Some(25)),
    (
        "8.8.4.4",
        443,
        Scheme::Https,
        Verdict::Deny(Reason::Host),
        None,
    ),
    ("db.host", 15432, Scheme::Tcp, Verdict::Allow, Some(36)),
    (
        "db.host",
        5432,
        Scheme::Tcp,
        Verdict::Deny(Reason::Port),
        None,
    ),
    (
        "127.0.0.1",
        5432,
        Scheme::Tcp,
        Verdict::Deny(Reason::Host),
        None,
    ),
];

#[test]
fn connections() {
    let engine = engine(POLICY);
    for (destination, port, scheme, verdict, line) in CONNECTIONS.iter().copied() {
        let decision = engine.connection(&host(destination), port, scheme);
        let found = decision.rule.map(|rule| rule.place().line.unwrap());
        assert_eq!(
            (decision.verdict, found),
            (verdict, line),
            "{destination}:{port} {scheme}"
        );
        let listed = engine.schemes(&host(destination), port).contains(scheme);
        assert_eq!(listed, verdict.permits(), "{destination}:{port} {scheme}");
    }
}

#[test]
fn a_decision_carries_what_the_connection_is_to_be_given() {
    let engine = engine(POLICY);
    let service = engine.connection(&host("db.host"), 15432, Scheme::Tcp);
    assert_eq!(service.service, Some("127.0.0.1:5432".parse().unwrap()));
    assert_eq!(service.quota.connections, Some(3));
    let api = engine.connection(&host("api.example"), 443, Scheme::Https);
    assert_eq!(
        (api.quota.sent_bytes, api.quota.requests_per_minute),
        (Some(1000), Some(60))
    );
    assert_eq!(
        (api.each_request, api.passthrough, api.service),
        (true, false, None)
    );
    let pinned = engine.connection(&host("a.pinned.cdn.example"), 443, Scheme::Https);
    assert_eq!((pinned.each_request, pinned.passthrough), (false, true));
    let cdn = |port| {
        engine
            .connection(&host("a.cdn.example"), port, Scheme::Https)
            .each_request
    };
    assert_eq!((cdn(443), cdn(8443)), (false, true));
}

#[test]
fn requests() {
    let engine = engine(POLICY);
    let denied = Verdict::Deny;
    for (destination, port, method, path, verdict) in [
        ("api.example", 443, "GET", "/user", Verdict::Allow),
        (
            "api.example",
            443,
            "GET",
            "/user?x=../..//;",
            Verdict::Allow,
        ),
        ("api.example", 443, "GET", "/%75ser", Verdict::Allow),
        ("api.example", 443, "GET", "/User", denied(Reason::Request)),
        ("api.example", 443, "PUT", "/user", denied(Reason::Request)),
        (
            "api.example",
            443,
            "get",
            "/user",
            denied(Reason::AmbiguousMethod),
        ),
        (
            "api.example",
            443,
            "POST",
            "/repos/x/issues",
            Verdict::Allow,
        ),
        (
            "api.example",
            443,
            "POST",
            "/repos/x/issues/1/comments",
            Verdict::Allow,
        ),
        (
            "api.example",
            443,
            "POST",
            "/repos/x/y/issues",
            denied(Reason::Request),
        ),
        (
            "api.example",
            443,
            "POST",
            "/repos/x/issues/../keys",
            denied(Reason::AmbiguousPath(PathError::DotSegment)),
        ),
        (
            "api.example",
            443,
            "PUT",
            "/repos/x/issues/../keys",
            denied(Reason::Request),
        ),
        (
            "api.example",
            443,
            "GET",
            "*",
            denied(Reason::AmbiguousPath(PathError::Relative)),
        ),
        (
            "a.cdn.example",
            443,
            "DELETE",
            "/a//b/../%2f",
            Verdict::Allow,
        ),
        (
            "a.cdn.example",
            8443,
            "DELETE",
            "/",
            denied(Reason::DenyRule),
        ),
        ("a.cdn.example", 8443, "GET", "/../", Verdict::Allow),
        (
            "a.cdn.example",
            8443,
            "Delete",
            "/",
            denied(Reason::AmbiguousMethod),
        ),
        (
            "secret.cdn.example",
            443,
            "GET",
            "/",
            denied(Reason::DenyRule),
        ),
        ("other.example", 443, "GET", "/", denied(Reason::Host)),
    ] {
        let decision = engine.request(&host(destination), port, Scheme::Https, method, path);
        assert_eq!(
            decision.verdict, verdict,
            "{method} {destination}:{port}{path}"
        );
    }
}

#[test]
fn an_unclear_path_is_denied_where_a_deny_rule_is_about_paths() {
    let engine = engine(
        "[[allow]]\nhost = 'a.example'\n[[deny]]\nhost = 'a.example'\npaths = ['/admin/**']",
    );
    let verdict = |path| {
        engine
            .request(&host("a.example"), 443, Scheme::Https, "GET", path)
            .verdict
    };
    for path in ["/", "/x", "/administrator", "/Admin"] {
        assert_eq!(verdict(path), Verdict::Allow, "{path}");
    }
    for path in ["/admin", "/admin/", "/admin/x", "/%61dmin", "/admin?x"] {
        assert_eq!(verdict(path), Verdict::Deny(Reason::DenyRule), "{path}");
    }
    for path in [
        "//admin",
        "/x/../admin",
        "/x%2f..%2fadmin",
        "/admin;x",
        "/.//admin",
        "\\admin",
        "/x\\..\\admin",
    ] {
        assert!(
            matches!(verdict(path), Verdict::Deny(Reason::AmbiguousPath(_))),
            "{path}"
        );
    }
}

#[test]
fn names_are_answered_for_exactly_if_a_connection_could_be_permitted() {
    let text = format!(
        "{POLICY}\n[[allow]]\nhost = 'gone.example'\nports = [1, 2]\n[[deny]]\nhost = 'gone.example'\nports = [1, 2, 3]\n\
         [[allow]]\nhost = 'half.example'\nports = [1, 2]\n[[deny]]\nhost = 'half.example'\nports = [1]",
    );
    let engine = engine(&text);
    for (name, resolves) in [
        ("api.example", true),
        ("a.cdn.example", true),
        ("git.example", true),
        ("db.host", true),
        ("half.example", true),
        ("gone.example", false),
        ("secret.cdn.example", false),
        ("cdn.example", false),
        ("example", false),
        ("x.db.host", false),
        ("other.example", false),
    ] {
        assert_eq!(
            engine.may_resolve(&HostName::parse(name).unwrap()),
            resolves,
            "{name}"
        );
    }
}

#[test]
fn https_that_nothing_intercepts_is_decided_by_the_connection() {
    let layers = user("[[allow]]\nhost = 'a.example'");
    let engine = super::Engine::compile(&layers, NOT_INTERCEPTING, is_public).unwrap();
    let decision = engine.connection(&host("a.example"), 443, Scheme::Https);
    assert_eq!(
        (decision.verdict, decision.each_request),
        (Verdict::Allow, false)
    );
}

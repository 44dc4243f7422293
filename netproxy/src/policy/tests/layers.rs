//! What several policies say together.

use super::super::{Layers, Problem, Quota, Reason, Scheme, Verdict};
use super::{compile, engine, host, policy};
use crate::HostName;

const A: &str = "[[allow]]\nhost = 'a.example'\n";
const B: &str = "[[allow]]\nhost = 'b.example'\n";

fn layers(global: &str, sandbox: &str, repository: &str) -> Layers {
    Layers {
        global: Some(policy(global)),
        sandbox: Some(policy(sandbox)),
        repository: Some(policy(repository)),
    }
}

fn https(layers: &Layers, name: &str) -> Verdict {
    let engine = compile(layers).unwrap();
    engine.connection(&host(name), 443, Scheme::Https).verdict
}

#[test]
fn without_a_policy_everything_is_denied() {
    let empty = || Some(policy(""));
    for layers in [
        Layers::default(),
        layers("", "", ""),
        Layers {
            global: empty(),
            ..Layers::default()
        },
        Layers {
            repository: Some(policy(A)),
            ..Layers::default()
        },
    ] {
        let engine = compile(&layers).unwrap();
        for name in ["a.example", "localhost", "github.com"] {
            assert!(!engine.may_resolve(&HostName::parse(name).unwrap()));
        }
        for destination in [
            "a.example",
            "127.0.0.1",
            "8.8.8.8",
            "::1",
            "2606:4700::1111",
        ] {
            let host = host(destination);
            for port in [0, 1, 53, 80, 443, 65535] {
                assert!(engine.schemes(&host, port).is_empty());
                for scheme in Scheme::ALL {
                    let denied = Verdict::Deny(Reason::Host);
                    assert_eq!(engine.connection(&host, port, scheme).verdict, denied);
                    assert_eq!(
                        engine.request(&host, port, scheme, "GET", "/").verdict,
                        denied
                    );
                }
            }
        }
    }
}

#[test]
fn the_users_layers_add_up() {
    let both = layers(A, B, "");
    assert_eq!(https(&both, "a.example"), Verdict::Allow);
    assert_eq!(https(&both, "b.example"), Verdict::Allow);
    for layers in [
        layers(A, "[[deny]]\nhost = 'a.example'", ""),
        layers("[[deny]]\nhost = 'a.example'", A, ""),
        layers(A, "", "[[deny]]\nhost = 'a.example'"),
    ] {
        assert_eq!(https(&layers, "a.example"), Verdict::Deny(Reason::DenyRule));
    }
}

#[test]
fn the_sandboxes_rule_comes_before_the_global_one() {
    let rule = |connections| format!("{A}quota = {{ connections = {connections} }}");
    let engine = compile(&layers(&rule(2), &rule(5), "")).unwrap();
    let decision = engine.connection(&host("a.example"), 443, Scheme::Https);
    assert_eq!(decision.quota.connections, Some(5));
}

#[test]
fn the_repository_can_only_tighten() {
    let user = format!("{A}{B}");
    assert_eq!(https(&layers(&user, "", ""), "b.example"), Verdict::Allow);
    assert_eq!(https(&layers(&user, "", A), "a.example"), Verdict::Allow);
    assert_eq!(
        https(&layers(&user, "", A), "b.example"),
        Verdict::Deny(Reason::Repository)
    );
    let more = "[[allow]]\nhost = 'c.example'";
    assert_eq!(
        https(&layers(&user, "", more), "c.example"),
        Verdict::Deny(Reason::Host)
    );
    // Neither a smaller port list nor another scheme of the user's is widened.
    let wide = "[[allow]]\nhost = '*.example'\nforce = true\nports = [1, 443]";
    assert_eq!(https(&layers(A, "", wide), "a.example"), Verdict::Allow);
    let engine = compile(&layers(A, "", wide)).unwrap();
    let decision = engine.connection(&host("a.example"), 1, Scheme::Https);
    assert_eq!(decision.verdict, Verdict::Deny(Reason::Port));
}

#[test]
fn the_repositorys_conditions_apply_too() {
    let engine = compile(&layers(
        A,
        "",
        &format!("{A}methods = ['GET']\npaths = ['/x/**']"),
    ))
    .unwrap();
    let a = host("a.example");
    let connection = engine.connection(&a, 443, Scheme::Https);
    assert_eq!(
        (connection.verdict, connection.each_request),
        (Verdict::Allow, true)
    );
    let verdict = |method, path| engine.request(&a, 443, Scheme::Https, method, path).verdict;
    assert_eq!(verdict("GET", "/x/y"), Verdict::Allow);
    assert_eq!(verdict("PUT", "/x/y"), Verdict::Deny(Reason::Repository));
    assert_eq!(verdict("GET", "/y"), Verdict::Deny(Reason::Repository));
}

#[test]
fn the_smaller_quota_of_user_and_repository_applies() {
    let quota = |sent, connections| {
        format!("{A}quota = {{ sent_bytes = {sent}, connections = {connections} }}")
    };
    let engine = compile(&layers(&quota(100, 2), "", &quota(50, 900))).unwrap();
    let quota = engine
        .connection(&host("a.example"), 443, Scheme::Https)
        .quota;
    let expected = Quota {
        sent_bytes: Some(50),
        connections: Some(2),
        ..Quota::default()
    };
    assert_eq!(quota, expected);
}

#[test]
fn what_would_loosen_has_no_place_in_the_repositorys() {
    for (text, key, line) in [
        ("mode = 'audit'", "mode = \"audit\"", None),
        (
            "\n[[service]]\nname = 'db.host'\naddress = '127.0.0.1:1'",
            "service",
            Some(2),
        ),
        (
            "[[allow]]\nhost = 'a.example'\npassthrough = true",
            "passthrough",
            Some(1),
        ),
    ] {
        let error = compile(&layers(A, "", text)).unwrap_err();
        assert_eq!(error.problem, Problem::Repository(key));
        assert_eq!(error.place.line, line);
        assert!(compile(&layers(A, text, "")).is_ok() || key == "passthrough");
    }
}

#[test]
fn a_repositorys_rule_about_requests_needs_what_is_read() {
    let unread = format!("{A}passthrough = true");
    let error = compile(&layers(&unread, "", &format!("{A}methods = ['GET']"))).unwrap_err();
    assert!(matches!(error.problem, Problem::Conflict(_)), "{error}");
    assert_eq!(https(&layers(&unread, "", A), "a.example"), Verdict::Allow);
    // What the repository says of tcp lets nothing through by itself.
    let tcp = "[[allow]]\nhost = 'a.example'\nscheme = 'tcp'\nports = [443]";
    let layers = layers(&format!("{A}methods = ['GET']"), "", tcp);
    assert_eq!(
        https(&layers, "a.example"),
        Verdict::Deny(Reason::Repository)
    );
}

#[test]
fn a_service_is_limited_by_the_repository_too() {
    let service = "[[service]]\nname = 'db.host'\naddress = '127.0.0.1:5432'";
    let verdict = |repository: &str| {
        let engine = compile(&layers(service, "", repository)).unwrap();
        engine
            .connection(&host("db.host"), 5432, Scheme::Tcp)
            .verdict
    };
    assert_eq!(verdict(""), Verdict::Allow);
    assert_eq!(verdict(A), Verdict::Deny(Reason::Repository));
    assert_eq!(
        verdict("[[deny]]\nhost = 'db.host'"),
        Verdict::Deny(Reason::DenyRule)
    );
    let named = "[[allow]]\nhost = 'db.host'\nscheme = 'tcp'\nports = [5432]";
    assert_eq!(verdict(named), Verdict::Allow);
}

#[test]
fn the_mode_is_audit_if_a_users_layer_says_so_and_none_says_enforce() {
    let audit = "mode = 'audit'";
    let enforce = "mode = 'enforce'";
    let audited = Verdict::Audited(Reason::Host);
    let denied = Verdict::Deny(Reason::Host);
    for (global, sandbox, repository, verdict) in [
        ("", "", "", denied),
        (audit, "", "", audited),
        ("", audit, "", audited),
        (audit, audit, "", audited),
        (enforce, "", "", denied),
        ("", enforce, "", denied),
        ("", "", enforce, denied),
        (enforce, audit, "", denied),
        (audit, enforce, "", denied),
        (audit, "", enforce, denied),
        ("", audit, enforce, denied),
        (enforce, enforce, enforce, denied),
        (audit, audit, enforce, denied),
    ] {
        assert_eq!(
            https(&layers(global, sandbox, repository), "x.example"),
            verdict
        );
    }
}

/// What becomes of connections in audit mode, by the rules of the test.
const AUDITED: &[(&str, u16, Scheme, Verdict)] = &[
    ("a.example", 443, Scheme::Https, Verdict::Allow),
    (
        "a.example",
        444,
        Scheme::Https,
        Verdict::Audited(Reason::Port),
    ),
    // Nothing goes unread to the ports of the web.
    ("a.example", 443, Scheme::Tcp, Verdict::Deny(Reason::Scheme)),
    ("b.example", 443, Scheme::Tcp, Verdict::Deny(Reason::Host)),
    (
        "a.example",
        80,
        Scheme::Http,
        Verdict::Audited(Reason::Port),
    ),
    ("x.example", 80, Scheme::Tcp, Verdict::Deny(Reason::Host)),
    ("x.example", 22, Scheme::Tcp, Verdict::Audited(Reason::Host)),
    (
        "x.example",
        8080,
        Scheme::Http,
        Verdict::Audited(Reason::Host),
    ),
    (
        "b.example",
        443,
        Scheme::Https,
        Verdict::Audited(Reason::Host),
    ),
    (
        "b.example",
        80,
        Scheme::Tcp,
        Verdict::Deny(Reason::DenyRule),
    ),
    (
        "evil.example",
        22,
        Scheme::Tcp,
        Verdict::Deny(Reason::DenyRule),
    ),
    (
        "c.example",
        443,
        Scheme::Tcp,
        Verdict::Deny(Reason::DenyRule),
    ),
    (
        "c.example",
        443,
        Scheme::Https,
        Verdict::Audited(Reason::Host),
    ),
    ("8.8.8.8", 53, Scheme::Tcp, Verdict::Audited(Reason::Host)),
    // An address has no name that its TLS or HTTP could be for.
    ("8.8.8.8", 443, Scheme::Https, Verdict::Deny(Reason::Host)),
    ("8.8.8.8", 443, Scheme::Tcp, Verdict::Deny(Reason::Host)),
    ("8.8.8.8", 80, Scheme::Http, Verdict::Deny(Reason::Host)),
    ("8.8.4.4", 53, Scheme::Tcp, Verdict::Deny(Reason::DenyRule)),
    (
        "::ffff:8.8.4.4",
        53,
        Scheme::Tcp,
        Verdict::Deny(Reason::DenyRule),
    ),
    (
        "127.0.0.1",
        5432,
        Scheme::Tcp,
        Verdict::Deny(Reason::NotPublic),
    ),
    (
        "169.254.169.254",
        80,
        Scheme::Http,
        Verdict::Deny(Reason::NotPublic),
    ),
    (
        "::ffff:127.0.0.1",
        80,
        Scheme::Http,
        Verdict::Deny(Reason::NotPublic),
    ),
    ("db.host", 5432, Scheme::Tcp, Verdict::Allow),
    ("db.host", 5433, Scheme::Tcp, Verdict::Deny(Reason::Port)),
];

#[test]
fn audit_lets_through_what_no_rule_denies() {
    let engine = engine(
        "mode = 'audit'\n[[allow]]\nhost = 'a.example'\n[[deny]]\nhost = 'evil.example'\n[[deny]]\nhost = '8.8.4.4'\n\
         [[deny]]\nhost = 'b.example'\nports = [80]\n[[deny]]\nhost = 'c.example'\npaths = ['/x/**']\n\
         [[service]]\nname = 'db.host'\naddress = '127.0.0.1:5432'",
    );
    for (destination, port, scheme, verdict) in AUDITED {
        let decision = engine.connection(&host(destination), *port, *scheme);
        assert_eq!(decision.verdict, *verdict, "{destination}:{port} {scheme}");
    }
    let c = host("c.example");
    assert!(engine.connection(&c, 443, Scheme::Https).each_request);
    let verdict = |path| engine.request(&c, 443, Scheme::Https, "GET", path).verdict;
    assert_eq!(verdict("/x"), Verdict::Deny(Reason::DenyRule));
    assert_eq!(verdict("/y"), Verdict::Audited(Reason::Host));
    assert!(!verdict("/y/%2e%2e/x").permits());
    let resolves = |name| engine.may_resolve(&HostName::parse(name).unwrap());
    assert!(resolves("x.example") && resolves("b.example") && resolves("db.host"));
    assert!(!resolves("evil.example"));
}

#[test]
fn audit_answers_for_names_unless_every_scheme_is_denied_on_all_ports() {
    let deny = |rest: &str| format!("[[deny]]\nhost = 'x.example'\n{rest}\n");
    let https = deny("scheme = 'https'");
    let http = deny("scheme = 'http'");
    for (rules, resolves) in [
        (deny(""), false),
        (deny("ports = [1, 2]"), true),
        (deny("methods = ['GET']"), true),
        (https.clone(), true),
        (format!("{https}{http}"), false),
        (
            format!("{https}{}", deny("scheme = 'http'\nports = [80]")),
            true,
        ),
        (
            format!("{https}{}", deny("scheme = 'http'\nmethods = ['GET']")),
            true,
        ),
    ] {
        let engine = engine(&format!("mode = 'audit'\n{rules}"));
        let name = HostName::parse("x.example").unwrap();
        assert_eq!(engine.may_resolve(&name), resolves, "{rules}");
    }
}

#[test]
fn audit_is_for_names_of_the_public_dns() {
    let local = "[[allow]]\nhost = 'mine.internal'\n[[allow]]\nhost = 'here'\n";
    let engine = engine(&format!("mode = 'audit'\n{local}"));
    for (name, expected) in [
        ("x.example", Verdict::Audited(Reason::Host)),
        ("x.local.example", Verdict::Audited(Reason::Host)),
        ("local.", Verdict::Deny(Reason::NotPublic)),
        ("router", Verdict::Deny(Reason::NotPublic)),
        ("x.localhost", Verdict::Deny(Reason::NotPublic)),
        ("LOCALHOST", Verdict::Deny(Reason::NotPublic)),
        ("printer.local", Verdict::Deny(Reason::NotPublic)),
        ("metadata.x.internal", Verdict::Deny(Reason::NotPublic)),
        ("x.home.arpa", Verdict::Deny(Reason::NotPublic)),
        ("1.0.0.127.in-addr.arpa", Verdict::Deny(Reason::NotPublic)),
        ("x.onion", Verdict::Deny(Reason::NotPublic)),
        ("x.alt", Verdict::Deny(Reason::NotPublic)),
        ("x.invalid", Verdict::Deny(Reason::NotPublic)),
        ("x.test", Verdict::Deny(Reason::NotPublic)),
        // By a rule of the user's, as in any mode.
        ("mine.internal", Verdict::Allow),
        ("here", Verdict::Allow),
    ] {
        let decision = engine.connection(&host(name), 443, Scheme::Https);
        assert_eq!(decision.verdict, expected, "{name}");
        let resolves = engine.may_resolve(&HostName::parse(name).unwrap());
        assert_eq!(resolves, expected.permits(), "{name}");
    }
}

//! Rules that must not compile, each with the error that it must give.

use super::super::path::{PathError, PatternError};
use super::super::{Engine, Origin, Place, Problem, Unread};
use super::{INTERCEPTING, NOT_INTERCEPTING, compile, is_public, refusal};
use crate::NameError;

/// A rule of one line, with `host` and what follows it.
fn allow(host: &str, rest: &str) -> String {
    format!("# one\n[[allow]]\nhost = '{host}'\n{rest}")
}

#[test]
fn hosts_that_rules_cannot_name_are_refused() {
    let name = Problem::Host;
    let suffix = |base: &str| Problem::PublicSuffix(base.to_owned());
    let private = |address: &str| Problem::NotPublic(address.parse().unwrap());
    for (host, problem) in [
        ("", name(NameError::Empty)),
        (".", name(NameError::Empty)),
        ("*", Problem::Everything),
        ("*.", name(NameError::Empty)),
        ("**", Problem::Wildcard),
        ("*.*", Problem::Wildcard),
        ("*.*.example.com", Problem::Wildcard),
        ("**.example.com", Problem::Wildcard),
        ("a*.example.com", Problem::Wildcard),
        ("*a.example.com", Problem::Wildcard),
        ("a.*.example.com", Problem::Wildcard),
        ("example.*", Problem::Wildcard),
        ("example.com*", Problem::Wildcard),
        ("＊.example.com", name(NameError::Character)),
        ("https://example.com", name(NameError::Character)),
        ("example.com:443", name(NameError::Character)),
        ("example.com/path", name(NameError::Character)),
        ("user@example.com", name(NameError::Character)),
        (" example.com", name(NameError::Character)),
        ("example..com", name(NameError::EmptyLabel)),
        (".example.com", name(NameError::EmptyLabel)),
        ("*..example.com", name(NameError::EmptyLabel)),
        ("*.com", suffix("com")),
        ("*.co.uk", suffix("co.uk")),
        ("*.CO.UK.", suffix("co.uk")),
        ("*.github.io", suffix("github.io")),
        ("*.s3.amazonaws.com", suffix("s3.amazonaws.com")),
        ("*.ck", suffix("ck")),
        ("*.kawasaki.jp", suffix("kawasaki.jp")),
        ("*.localhost", suffix("localhost")),
        ("*.internal", suffix("internal")),
        ("*.公司.cn", suffix("xn--55qx5d.cn")),
        ("127.0.0.1", private("127.0.0.1")),
        ("10.0.0.1", private("10.0.0.1")),
        ("169.254.169.254", private("169.254.169.254")),
        ("0.0.0.0", private("0.0.0.0")),
        ("::1", private("::1")),
        ("fd00::1", private("fd00::1")),
        ("::ffff:127.0.0.1", private("::ffff:127.0.0.1")),
        ("::ffff:8.8.8.8", private("::ffff:8.8.8.8")),
        ("*.8.8.8.8", name(NameError::Address)),
        ("127.1", name(NameError::Address)),
        ("0x7f000001", name(NameError::Address)),
        ("2130706433", name(NameError::Address)),
        ("010.0.0.1", name(NameError::Address)),
        ("10.0.0.0/8", name(NameError::Character)),
        ("[2606:4700::1111]", name(NameError::Character)),
        ("fe80::1%eth0", name(NameError::Character)),
    ] {
        for text in [allow(host, ""), allow(host, "").replace("allow", "deny")] {
            let error = refusal(text.as_bytes());
            let shown = format!("p.toml:2: {problem}");
            assert_eq!(
                (&error.problem, error.to_string()),
                (&problem, shown),
                "{host}"
            );
        }
    }
}

#[test]
fn force_is_for_wildcards_on_public_suffixes_only() {
    for host in [
        "*.co.uk",
        "*.github.io",
        "*.internal",
        "*.kawasaki.jp",
        "*.com",
    ] {
        super::engine(&allow(host, "force = true"));
    }
    for host in ["*", "**", "*.*.com", "10.0.0.1", ""] {
        refusal(allow(host, "force = true").as_bytes());
    }
    for host in [
        "*.example.com",
        "*.a.github.io",
        "*.github.com",
        "github.io",
        "co.uk",
    ] {
        super::engine(&allow(host, ""));
    }
}

#[test]
fn rules_that_mean_nothing_are_refused() {
    let unread = |key, because| Problem::Unread { key, because };
    let repeated = |list, value: &str| Problem::Repeated {
        list,
        value: value.to_owned(),
    };
    let pattern = |pattern: &str, error| Problem::Pattern {
        pattern: pattern.to_owned(),
        error,
    };
    for (rest, problem) in [
        ("ports = []", Problem::Empty("ports")),
        ("methods = []", Problem::Empty("methods")),
        ("paths = []", Problem::Empty("paths")),
        ("ports = [0]", Problem::PortZero),
        ("ports = [443, 0]", Problem::PortZero),
        ("ports = [443, 80, 443]", repeated("ports", "443")),
        ("methods = ['GET', 'GET']", repeated("methods", "GET")),
        ("paths = ['/a', '/b', '/a']", repeated("paths", "/a")),
        ("methods = ['get']", Problem::Method("get".into())),
        ("methods = ['Get']", Problem::Method("Get".into())),
        ("methods = ['']", Problem::Method(String::new())),
        ("methods = ['GET ']", Problem::Method("GET ".into())),
        ("methods = ['*']", Problem::Method("*".into())),
        ("methods = ['-']", Problem::Method("-".into())),
        (
            "methods = ['GET', \"P\\r\\nX\"]",
            Problem::Method("P\\r\\nX".into()),
        ),
        ("paths = ['']", pattern("", PathError::Relative.into())),
        ("paths = ['a']", pattern("a", PathError::Relative.into())),
        (
            "paths = ['/a', 'https://a.example/']",
            pattern("https://a.example/", PathError::Relative.into()),
        ),
        (
            "paths = ['/a**']",
            pattern("/a**", PatternError::DoubleStar),
        ),
        ("scheme = 'tcp'", Problem::NoPorts),
        (
            "scheme = 'tcp'\nports = [443]\nmethods = ['GET']",
            unread("methods", Unread::Tcp),
        ),
        (
            "scheme = 'tcp'\nports = [443]\npaths = ['/a']",
            unread("paths", Unread::Tcp),
        ),
        (
            "scheme = 'tcp'\nports = [443]\nquota = { requests_per_minute = 1 }",
            unread("quota.requests_per_minute", Unread::Tcp),
        ),
        (
            "passthrough = true\nmethods = ['GET']",
            unread("methods", Unread::Passthrough),
        ),
        (
            "passthrough = true\npaths = ['/a']",
            unread("paths", Unread::Passthrough),
        ),
        (
            "passthrough = true\nquota = { requests_per_minute = 1 }",
            unread("quota.requests_per_minute", Unread::Passthrough),
        ),
        ("passthrough = true\nscheme = 'http'", Problem::Passthrough),
        (
            "passthrough = true\nscheme = 'tcp'\nports = [1]",
            Problem::Passthrough,
        ),
        ("quota = { sent_bytes = 0 }", Problem::NoQuota("sent_bytes")),
        (
            "quota = { received_bytes = 0 }",
            Problem::NoQuota("received_bytes"),
        ),
        (
            "quota = { requests_per_minute = 0 }",
            Problem::NoQuota("requests_per_minute"),
        ),
        (
            "quota = { connections = 0 }",
            Problem::NoQuota("connections"),
        ),
    ] {
        let error = refusal(allow("a.example", rest).as_bytes());
        assert_eq!(error.problem, problem, "{rest}");
        assert_eq!(error.place.to_string(), "p.toml:2");
    }
}

#[test]
fn messages_are_short_and_printable() {
    let long = "a\u{202e}\\u001b".repeat(10_000);
    for rest in [
        format!("\"{long}\" = 1"),
        format!("scheme = \"{long}\""),
        format!("methods = [\"{long}\"]"),
        format!("methods = ['GET', \"{long}\"]"),
        format!("paths = [\"{long}\"]"),
        format!("paths = [\"/{long}\", \"/{long}\"]"),
    ] {
        let message = refusal(allow("a.example", &rest).as_bytes()).to_string();
        assert!(message.len() < 2000, "{message}");
        assert!(!message.contains(['\u{202e}', '\u{1b}']), "{message}");
    }
    let error = refusal(allow(&long, "").as_bytes());
    assert!(error.to_string().len() < 200);
}

#[test]
fn deny_rules_that_mean_nothing_are_refused() {
    for (rest, problem) in [
        ("ports = []", Problem::Empty("ports")),
        ("ports = [0]", Problem::PortZero),
        ("methods = ['delete']", Problem::Method("delete".into())),
        (
            "scheme = 'tcp'\nmethods = ['GET']",
            Problem::Unread {
                key: "methods",
                because: Unread::Tcp,
            },
        ),
    ] {
        let error = refusal(format!("[[deny]]\nhost = 'a.example'\n{rest}").as_bytes());
        assert_eq!(error.problem, problem, "{rest}");
    }
}

#[test]
fn rules_about_requests_need_interception_for_https() {
    let compiled = |text: &str| Engine::compile(&super::user(text), NOT_INTERCEPTING, is_public);
    for (text, key) in [
        (allow("a.example", "methods = ['GET']"), "methods"),
        (allow("a.example", "paths = ['/a']"), "paths"),
        (
            allow("a.example", "quota = { requests_per_minute = 9 }"),
            "quota.requests_per_minute",
        ),
        (
            "\n[[deny]]\nhost = 'a.example'\nmethods = ['GET']".to_owned(),
            "methods",
        ),
        (
            "\n[[deny]]\nhost = 'a.example'\nscheme = 'https'\npaths = ['/a']".to_owned(),
            "paths",
        ),
    ] {
        let error = compiled(&text).unwrap_err();
        let because = Unread::NotIntercepted;
        assert_eq!(error.problem, Problem::Unread { key, because }, "{text}");
        assert_eq!(error.place.line, Some(2));
        assert!(Engine::compile(&super::user(&text), INTERCEPTING, is_public).is_ok());
    }
    compiled(&allow("a.example", "scheme = 'http'\nmethods = ['GET']")).unwrap();
    compiled("[[deny]]\nhost = 'a.example'\nscheme = 'http'\npaths = ['/a']").unwrap();
}

#[test]
fn rules_about_requests_do_not_share_traffic_with_rules_that_leave_it_unread() {
    let tcp = "[[allow]]\nhost = 'a.b.example'\nscheme = 'tcp'\nports = [80, 443]\n";
    let passthrough = "[[allow]]\nhost = '*.b.example'\npassthrough = true\n";
    let about = |list: &str, host: &str, rest: &str| {
        format!("[[{list}]]\nhost = '{host}'\nmethods = ['GET']\n{rest}\n")
    };
    for (unread, about_requests, conflicts) in [
        (tcp, about("allow", "a.b.example", ""), true),
        (tcp, about("allow", "*.b.example", ""), true),
        (tcp, about("allow", "*.b.example", "scheme = 'http'"), true),
        (tcp, about("deny", "*.b.example", ""), true),
        (tcp, about("deny", "*.b.example", "ports = [8443]"), false),
        (tcp, about("allow", "a.b.example", "ports = [8443]"), false),
        (tcp, about("allow", "*.a.b.example", ""), false),
        (tcp, about("allow", "c.b.example", ""), false),
        (passthrough, about("allow", "*.b.example", ""), true),
        (passthrough, about("allow", "a.b.example", ""), true),
        (passthrough, about("allow", "*.a.b.example", ""), true),
        (passthrough, about("deny", "*.a.b.example", ""), true),
        (
            passthrough,
            about("deny", "a.b.example", "scheme = 'http'"),
            false,
        ),
        (passthrough, about("allow", "b.example", ""), false),
        (
            passthrough,
            about("allow", "a.b.example", "scheme = 'http'\nports = [443]"),
            false,
        ),
    ] {
        let text = format!("{unread}{about_requests}");
        let compiled = compile(&super::user(&text));
        assert_eq!(compiled.is_err(), conflicts, "{text}");
        if let Err(error) = compiled {
            let place = Place {
                origin: Origin::new("p.toml"),
                line: Some(1),
            };
            assert_eq!(error.problem, Problem::Conflict(place), "{text}");
        }
    }
}

#[test]
fn https_that_nothing_intercepts_is_no_obstacle_to_rules_about_http() {
    let text = "[[allow]]\nhost = 'a.example'\n[[allow]]\nhost = 'a.example'\nscheme = 'http'\npaths = ['/a']\n\
                [[deny]]\nhost = 'a.example'\nscheme = 'http'\npaths = ['/a/b']";
    assert!(Engine::compile(&super::user(text), NOT_INTERCEPTING, is_public).is_ok());
}

#[test]
fn services_that_are_none_are_refused() {
    let service = |name: &str, address: &str, rest: &str| {
        format!("[[service]]\nname = '{name}'\naddress = '{address}'\n{rest}\n")
    };
    let address = |text: &str| Problem::ServiceAddress(text.parse().unwrap());
    let bad_address = Problem::Syntax("`address` is not `address:port`".to_owned());
    for (text, problem) in [
        (service("*.host", "127.0.0.1:1", ""), Problem::ServiceName),
        (service("*", "127.0.0.1:1", ""), Problem::ServiceName),
        (service("8.8.8.8", "127.0.0.1:1", ""), Problem::ServiceName),
        (
            service("a b", "127.0.0.1:1", ""),
            Problem::Host(NameError::Character),
        ),
        (
            service("", "127.0.0.1:1", ""),
            Problem::Host(NameError::Empty),
        ),
        (service("db.host", "", ""), bad_address.clone()),
        (service("db.host", "localhost:1", ""), bad_address.clone()),
        (service("db.host", "127.0.0.1", ""), bad_address.clone()),
        (
            service("db.host", "127.0.0.1:65536", ""),
            bad_address.clone(),
        ),
        (service("db.host", "/run/db.sock", ""), bad_address),
        (service("db.host", "127.0.0.1:0", ""), Problem::PortZero),
        (
            service("db.host", "127.0.0.1:1", "ports = [0]"),
            Problem::PortZero,
        ),
        (
            service("db.host", "127.0.0.1:1", "ports = []"),
            Problem::Empty("ports"),
        ),
        (service("db.host", "0.0.0.0:1", ""), address("0.0.0.0:1")),
        (service("db.host", "[::]:1", ""), address("[::]:1")),
        (
            service("db.host", "224.0.0.1:1", ""),
            address("224.0.0.1:1"),
        ),
        (
            service("db.host", "255.255.255.255:1", ""),
            address("255.255.255.255:1"),
        ),
        (
            service("db.host", "169.254.169.254:80", ""),
            address("169.254.169.254:80"),
        ),
        (
            service("db.host", "[::ffff:169.254.169.254]:80", ""),
            address("[::ffff:169.254.169.254]:80"),
        ),
        (
            service("db.host", "[fe80::1]:80", ""),
            address("[fe80::1]:80"),
        ),
        (service("db.host", "8.8.8.8:53", ""), address("8.8.8.8:53")),
        (
            service(
                "db.host",
                "127.0.0.1:1",
                "quota = { requests_per_minute = 1 }",
            ),
            Problem::Unread {
                key: "quota.requests_per_minute",
                because: Unread::Tcp,
            },
        ),
    ] {
        let error = refusal(text.as_bytes());
        assert_eq!(error.problem, problem, "{text}");
        assert_eq!(error.place.line, Some(1));
    }
}

#[test]
fn the_name_of_a_service_is_the_services() {
    let service = "[[service]]\nname = 'db.host'\naddress = '127.0.0.1:5432'\n";
    for (other, clashes) in [
        ("[[allow]]\nhost = 'db.host'\n", true),
        (
            "[[allow]]\nhost = 'db.host'\nscheme = 'tcp'\nports = [9]\n",
            true,
        ),
        (
            "[[service]]\nname = 'DB.host'\naddress = '127.0.0.1:9'\nports = [1, 5432]\n",
            true,
        ),
        (
            "[[service]]\nname = 'db.host'\naddress = '127.0.0.1:9'\n",
            false,
        ),
        ("[[allow]]\nhost = '*.host'\nforce = true\n", false),
        ("[[deny]]\nhost = 'db.host'\n", false),
    ] {
        let text = format!("{service}{other}");
        let compiled = compile(&super::user(&text));
        let taken = matches!(
            compiled.map_err(|error| error.problem),
            Err(Problem::ServiceTaken(_))
        );
        assert_eq!(taken, clashes, "{text}");
    }
}

#[test]
fn the_same_rule_twice_is_refused() {
    let first = "[[allow]]\nhost = 'a.example'\nmethods = ['GET', 'PUT']\n";
    for second in [
        first,
        "[[allow]]\nhost = 'A.Example.'\nmethods = ['PUT', 'GET']\nports = [443]\nscheme = 'https'\n",
    ] {
        let error = refusal(format!("{first}{second}").as_bytes());
        assert_eq!(
            error.to_string(),
            "p.toml:4: the same rule is at p.toml:1 already"
        );
    }
    let others = "[[allow]]\nhost = 'a.example'\nmethods = ['GET']\n[[deny]]\nhost = 'a.example'\nmethods = ['GET', 'PUT']\n";
    super::engine(&format!("{first}{others}"));
}

#[test]
fn a_list_of_rules_that_is_there_and_empty_is_refused() {
    for key in ["allow", "deny", "service"] {
        let error = refusal(format!("{key} = []").as_bytes());
        assert_eq!(error.problem, Problem::Empty(key));
    }
}

//! How rules are shown.

use super::super::{Engine, Scheme};
use super::{engine, host};

fn shown(engine: &Engine, name: &str, port: u16, scheme: Scheme) -> (String, String) {
    let rule = engine.connection(&host(name), port, scheme).rule.unwrap();
    (rule.to_string(), rule.to_table())
}

#[test]
fn a_rule_is_shown_as_a_policy_with_this_rule() {
    for (line, name, port, scheme) in [
        (
            "allow = [{ host = \"a.example\" }]",
            "a.example",
            443,
            Scheme::Https,
        ),
        (
            "allow = [{ host = \"*.example\", force = true }]",
            "a.example",
            443,
            Scheme::Https,
        ),
        (
            "allow = [{ host = \"8.8.8.8\", scheme = \"tcp\", ports = [53, 853] }]",
            "8.8.8.8",
            53,
            Scheme::Tcp,
        ),
        (
            "allow = [{ host = \"a.example\", scheme = \"http\" }]",
            "a.example",
            80,
            Scheme::Http,
        ),
        (
            "allow = [{ host = \"a.example\", passthrough = true }]",
            "a.example",
            443,
            Scheme::Https,
        ),
        (
            "allow = [{ host = \"*.b.example\", ports = [443, 8443], methods = [\"GET\", \"PUT\"], \
             paths = [\"/a \\\"b'/é\\U0000202E\", \"/x/**\"], quota = { sent_bytes = 1, connections = 2 } }]",
            "a.b.example",
            8443,
            Scheme::Https,
        ),
        (
            "deny = [{ host = \"a.example\" }]",
            "a.example",
            7,
            Scheme::Tcp,
        ),
        (
            "deny = [{ host = \"a.example\", scheme = \"https\", ports = [7] }]",
            "a.example",
            7,
            Scheme::Https,
        ),
        (
            "service = [{ name = \"db.host\", address = \"127.0.0.1:5432\" }]",
            "db.host",
            5432,
            Scheme::Tcp,
        ),
        (
            "service = [{ name = \"web.host\", address = \"[::1]:80\", scheme = \"http\", ports = [8080], \
             quota = { received_bytes = 9, requests_per_minute = 4 } }]",
            "web.host",
            8080,
            Scheme::Http,
        ),
    ] {
        let (once, table) = shown(&engine(line), name, port, scheme);
        assert_eq!(once, line);
        // As lines of a file it is the same rule.
        let (again, same) = shown(&engine(&table), name, port, scheme);
        assert_eq!((again, same), (once, table));
    }
}

#[test]
fn the_file_in_the_documentation_is_a_policy() {
    let lines = include_str!("../mod.rs").lines();
    let example: Vec<&str> = lines
        .skip_while(|line| !line.contains("```toml"))
        .skip(1)
        .map_while(|line| line.strip_prefix("//!"))
        .take_while(|line| !line.contains("```"))
        .collect();
    let engine = engine(&example.join("\n"));
    let permits = |name, port, scheme| {
        engine
            .connection(&host(name), port, scheme)
            .verdict
            .permits()
    };
    assert!(permits("api.github.com", 443, Scheme::Https));
    assert!(permits("a.pinned.example", 443, Scheme::Https));
    assert!(permits("db.host", 5432, Scheme::Tcp));
    assert!(!permits("gist.github.com", 443, Scheme::Https));
}

#[test]
fn a_rule_knows_its_file_and_line() {
    let engine = engine("# a\n\n  [[allow]]\nhost = 'a.example'\n\n[[allow]]\nhost = 'b.example'");
    for (name, place) in [("a.example", "p.toml:3"), ("b.example", "p.toml:6")] {
        let decision = engine.connection(&host(name), 443, Scheme::Https);
        assert_eq!(decision.rule.unwrap().place().to_string(), place);
    }
    let inline =
        super::engine("allow = [\n  { host = 'a.example' },\r\n  { host = 'b.example' },\n]");
    for (name, place) in [("a.example", "p.toml:2"), ("b.example", "p.toml:3")] {
        let decision = inline.connection(&host(name), 443, Scheme::Https);
        assert_eq!(decision.rule.unwrap().place().to_string(), place);
    }
}

//! Policy files of any bytes, and policies of small alphabets: the engine agrees with itself, and with a reference that reads the rules one by one; a path
//! matches a pattern as a slow reader of both says.
#![no_main]

use cofferdam_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use netproxy::HostName;
use netproxy::policy::path::{CanonicalPath, PathPattern};
use netproxy::policy::{
    Abilities, Allow, Deny, Engine, Host, Layers, Origin, Policy, Reason, Scheme, Verdict,
};

const HOSTS: [&str; 8] = [
    "a", "b", "a.a", "b.a", "a.b.a", "a.a.a", "8.8.8.8", "10.0.0.1",
];
const PATTERNS: [&str; 9] = [
    "a", "b", "a.a", "b.a", "*.a", "*.b.a", "*.b", "*.a.a", "8.8.8.8",
];
const PORTS: [u16; 4] = [1, 80, 443, 65535];
const ABILITIES: [Abilities; 2] = [
    Abilities {
        intercepts_tls: false,
    },
    Abilities {
        intercepts_tls: true,
    },
];

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    match input.below(4) {
        0 => file(&mut input),
        1 => paths(&mut input),
        _ => rules(&mut input),
    }
});

fn host(text: &str) -> Host {
    let address = text.parse().map(Host::Address);
    address.unwrap_or_else(|_| Host::Name(HostName::parse(text).expect("a name")))
}

fn compile(policy: Policy, input: &mut Input<'_>) -> Option<Engine> {
    let layers = Layers {
        sandbox: Some(policy),
        ..Layers::default()
    };
    let is_public = |address| netproxy::address::check(address).is_ok();
    Engine::compile(&layers, input.choose(&ABILITIES), is_public).ok()
}

/// Parts of files, and the input's own bytes.
fn file(input: &mut Input<'_>) {
    const PARTS: [&str; 24] = [
        "[[allow]]\n",
        "[[deny]]\n",
        "[[service]]\n",
        "host = \"a\"\n",
        "host = \"*.a\"\nforce = true\n",
        "host = \"8.8.8.8\"\n",
        "host = \"b.a\"\n",
        "scheme = \"http\"\n",
        "scheme = \"tcp\"\n",
        "scheme = \"https\"\n",
        "ports = [443, 80]\n",
        "ports = [1]\n",
        "methods = [\"GET\"]\n",
        "paths = [\"/a/**\"]\n",
        "passthrough = true\n",
        "mode = \"audit\"\n",
        "mode = \"enforce\"\n",
        "name = \"a.host\"\n",
        "address = \"127.0.0.1:80\"\n",
        "quota = { connections = 8 }\n",
        "\n",
        "#",
        "\"",
        " = ",
    ];
    let mut text = Vec::new();
    while !input.is_empty() && text.len() < 4096 {
        let choice = input.below(PARTS.len() + 2);
        let part = PARTS
            .get(choice)
            .map_or_else(|| input.blob(), |part| part.as_bytes());
        text.extend_from_slice(part);
    }
    let Ok(policy) = Policy::parse(&text, Origin::new("fuzz")) else {
        return;
    };
    let Some(engine) = compile(policy, input) else {
        return;
    };
    for name in HOSTS.iter().chain(&["a.host", "x.y"]) {
        agrees_with_itself(&engine, &host(name));
    }
}

fn agrees_with_itself(engine: &Engine, host: &Host) {
    let mut is_reachable = false;
    for port in PORTS {
        let schemes = engine.schemes(host, port);
        for scheme in Scheme::ALL {
            let connection = engine.connection(host, port, scheme);
            let permits = connection.verdict.permits();
            assert_eq!(schemes.contains(scheme), permits);
            is_reachable |= permits;
            for (method, target) in [("GET", "/a/b"), ("get", "/"), ("POST", "/a/../b")] {
                let request = engine.request(host, port, scheme, method, target);
                assert!(
                    permits || !request.verdict.permits(),
                    "{host}:{port} {method} {target}"
                );
            }
            if let Some(rule) = engine.suggestion(host, port, scheme, None) {
                let text = rule.to_string();
                let parsed = Policy::parse(text.as_bytes(), Origin::new("fuzz"));
                assert!(parsed.is_ok(), "{text}");
            }
        }
    }
    if let Host::Name(name) = host {
        assert!(engine.may_resolve(name) || !is_reachable, "{name}");
    }
}

/// A policy without rules about requests, and what each of its rules says by itself.
fn rules(input: &mut Input<'_>) {
    let ports = |input: &mut Input<'_>| {
        let ports: Vec<u16> = PORTS.into_iter().filter(|_| input.u8() & 1 == 1).collect();
        (!ports.is_empty()).then_some(ports)
    };
    let allow = (0..input.below(6)).map(|_| {
        let scheme = input.choose(&Scheme::ALL);
        let ports = ports(input);
        Allow {
            host: input.choose(&PATTERNS).to_owned(),
            ports: ports.or((scheme == Scheme::Tcp).then(|| vec![443])),
            scheme,
            force: true,
            ..Allow::default()
        }
    });
    let allow: Vec<Allow> = allow.collect();
    let deny = (0..input.below(4)).map(|_| Deny {
        host: input.choose(&PATTERNS).to_owned(),
        ports: ports(input),
        scheme: input.choose(&[
            None,
            Some(Scheme::Https),
            Some(Scheme::Http),
            Some(Scheme::Tcp),
        ]),
        force: true,
        ..Deny::default()
    });
    let policy = Policy {
        allow,
        deny: deny.collect(),
        ..Policy::default()
    };
    let Some(engine) = compile(policy.clone(), input) else {
        return;
    };
    for name in HOSTS {
        let host = host(name);
        agrees_with_itself(&engine, &host);
        for port in PORTS {
            for scheme in Scheme::ALL {
                let decision = engine.connection(&host, port, scheme);
                let expected = is_allowed(&policy, name, port, scheme);
                assert_eq!(
                    decision.verdict.permits(),
                    expected,
                    "{name}:{port} {scheme} {policy:?}"
                );
                assert!(expected || decision.verdict != Verdict::Deny(Reason::NotPublic));
            }
        }
    }
}

fn is_allowed(policy: &Policy, name: &str, port: u16, scheme: Scheme) -> bool {
    let is_host = |pattern: &str| match pattern.strip_prefix('*') {
        Some(end) => name.ends_with(end),
        None => name == pattern,
    };
    let is_port =
        |ports: &Option<Vec<u16>>| ports.as_ref().is_none_or(|ports| ports.contains(&port));
    let denied = policy.deny.iter().any(|rule| {
        let of_scheme = rule.scheme.is_none_or(|denied| denied == scheme);
        is_host(&rule.host) && is_port(&rule.ports) && (of_scheme || scheme == Scheme::Tcp)
    });
    let allowed = policy.allow.iter().any(|rule| {
        let usual = if rule.scheme == Scheme::Http { 80 } else { 443 };
        let ports = rule.ports.clone().unwrap_or(vec![usual]);
        is_host(&rule.host) && rule.scheme == scheme && ports.contains(&port)
    });
    allowed && !denied
}

/// A pattern and a path of few letters.
fn paths(input: &mut Input<'_>) {
    let text = |input: &mut Input<'_>, parts: &[&str]| -> String {
        let count = input.below(12);
        std::iter::once("/")
            .chain((0..count).map(|_| parts[input.below(parts.len())]))
            .collect()
    };
    let pattern = text(input, &["/", "/", "a", "b", "*", "**", "/**/", "."]);
    let target = text(
        input,
        &[
            "/", "/", "a", "b", "%61", "%2e", ".", "%2F", ";", "\\", "?", "%c3%a9", "%",
        ],
    );
    let path = target.split('?').next().unwrap_or_default();
    let parsed = CanonicalPath::parse(&target);
    let decoded = path
        .replace("%61", "a")
        .replace("%2e", ".")
        .replace("%c3%a9", "\u{e9}");
    let parts: Vec<&str> = parts(&decoded);
    let is_clear = !decoded.contains(['%', ';', '\\'])
        && !parts.iter().any(|part| ["", ".", ".."].contains(part));
    assert_eq!(parsed.is_ok(), is_clear, "{target}");
    let (Ok(parsed), Ok(compiled)) = (parsed, PathPattern::parse(&pattern)) else {
        return;
    };
    let expected = matches(&self::parts(&pattern), &parts);
    assert_eq!(compiled.matches(&parsed), expected, "{pattern} {target}");
}

fn parts(path: &str) -> Vec<&str> {
    let inner = &path[1..];
    if inner.is_empty() {
        return Vec::new();
    }
    inner
        .strip_suffix('/')
        .unwrap_or(inner)
        .split('/')
        .collect()
}

fn matches(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=path.len()).any(|skipped| matches(rest, &path[skipped..])),
        ([first, rest @ ..], [part, others @ ..]) => {
            is_like(first.as_bytes(), part.as_bytes()) && matches(rest, others)
        }
        _ => false,
    }
}

fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skipped| is_like(rest, &text[skipped..])),
        ([one, rest @ ..], [other, others @ ..]) => one == other && is_like(rest, others),
        _ => false,
    }
}

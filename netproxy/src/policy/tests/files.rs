//! Files that are no policy.

use super::super::{Allow, LARGEST_FILE, Layers, MOST_RULES, Origin, Policy, Problem};
use super::{compile, refusal};

/// What is no policy, the line of the mistake, and a part of the message.
const NO_POLICIES: &[(&str, Option<u32>, &str)] = &[
    ("[[alow]]\nhost = 'a.example'", Some(1), "alow"),
    ("allow = 'a.example'", Some(1), "invalid type"),
    ("allow = ['a.example']", Some(1), "invalid type"),
    ("[allow]\nhost = 'a.example'", Some(1), "invalid type"),
    ("\n\n[[allow]]\nhosts = 'a.example'", Some(4), "hosts"),
    ("[[allow]]\nports = [443]", Some(1), "missing field `host`"),
    ("[[allow]]\nhost = ['a.example']", Some(2), "invalid type"),
    ("[[allow]]\nhost = 7", Some(2), "invalid type"),
    (
        "[[allow]]\nhost = 'a.example'\nhost = 'b.example'",
        Some(3),
        "duplicate key",
    ),
    (
        "[[allow]]\nhost = 'a.example'\nports = 443",
        Some(3),
        "invalid type",
    ),
    (
        "[[allow]]\nhost = 'a.example'\nports = [65536]",
        Some(3),
        "65536",
    ),
    ("[[allow]]\nhost = 'a.example'\nports = [-1]", Some(3), "-1"),
    (
        "[[allow]]\nhost = 'a.example'\nports = ['https']",
        Some(3),
        "invalid type",
    ),
    (
        "[[allow]]\nhost = 'a.example'\nscheme = 'HTTPS'",
        Some(3),
        "HTTPS",
    ),
    (
        "[[allow]]\nhost = 'a.example'\nscheme = 'udp'",
        Some(3),
        "udp",
    ),
    (
        "[[allow]]\nhost = 'a.example'\nscheme = ''",
        Some(3),
        "unknown variant",
    ),
    (
        "[[allow]]\nhost = 'a.example'\nmethods = 'GET'",
        Some(3),
        "invalid type",
    ),
    (
        "[[allow]]\nhost = 'a.example'\nforce = 'yes'",
        Some(3),
        "invalid type",
    ),
    (
        "[[allow]]\nhost = 'a.example'\npassthrough = 1",
        Some(3),
        "invalid type",
    ),
    (
        "[[allow]]\nhost = 'a.example'\nline = 3",
        Some(3),
        "unknown field `line`",
    ),
    (
        "[[allow]]\nhost = 'a.example'\nquota = 7",
        Some(3),
        "invalid type",
    ),
    (
        "[[allow]]\nhost = 'a.example'\nquota = { bytes = 7 }",
        Some(3),
        "unknown field `bytes`",
    ),
    (
        "[[allow]]\nhost = 'a.example'\nquota = { sent_bytes = -7 }",
        Some(3),
        "-7",
    ),
    (
        "[[allow]]\nhost = 'a.example'\nquota = { connections = 4294967296 }",
        Some(3),
        "4294967296",
    ),
    (
        "[[deny]]\nhost = 'a.example'\npassthrough = true",
        Some(3),
        "unknown field `passthrough`",
    ),
    (
        "[[deny]]\nhost = 'a.example'\nquota = { connections = 1 }",
        Some(3),
        "unknown field `quota`",
    ),
    (
        "[[service]]\nhost = 'a.example'",
        Some(2),
        "unknown field `host`",
    ),
    (
        "[[service]]\nname = 'db.host'",
        Some(1),
        "missing field `address`",
    ),
    (
        "[[service]]\naddress = '127.0.0.1:1'",
        Some(1),
        "missing field `name`",
    ),
    (
        "[[service]]\nname = 'db.host'\naddress = '127.0.0.1:1'\nmethods = ['GET']",
        Some(4),
        "methods",
    ),
    ("mode = 'permissive'", Some(1), "permissive"),
    ("mode = 'off'", Some(1), "unknown variant"),
    ("mode = true", Some(1), "wanted string"),
    ("mode = 'enforce'\nmode = 'audit'", Some(2), "duplicate key"),
    ("default = 'allow'", Some(1), "unknown field `default`"),
    ("[[allow]", Some(1), "unclosed"),
    ("[[allow]]\nhost = \"a.example", Some(2), "invalid"),
    ("host a.example", Some(1), "="),
    ("{}", Some(1), "invalid"),
    ("null", Some(1), "="),
    ("\0", Some(1), ""),
    ("[[allow]]\nhost = 'a\u{1b}.example'", Some(2), ""),
    (
        "[[allow]]\nhost = 'a.example'\n\"\\u001b[2J\" = 1",
        Some(3),
        "\\u{1b}[2J",
    ),
];

#[test]
fn what_is_no_policy_file_is_refused_with_its_line() {
    for (text, line, message) in NO_POLICIES.iter().copied() {
        let error = refusal(text.as_bytes());
        assert_eq!(error.place.line, line, "{text:?}: {error}");
        let Problem::Syntax(said) = &error.problem else {
            panic!("{text:?}: {error}");
        };
        assert!(said.contains(message), "{text:?}: {said}");
        assert!(!error.to_string().contains('\u{1b}'), "{text:?}");
    }
}

#[test]
fn what_is_no_text_is_refused() {
    let cases: [(&[u8], Option<u32>); 5] = [
        (b"\xff\xfe[\0", Some(1)),
        (b"\x7fELF\x02\x01\x01\xf7", Some(1)),
        (b"# a\n# b\n\xc0\xae", Some(3)),
        (b"[[allow]]\nhost = '\xe9.example'", Some(2)),
        (b"\x1f\x8b\x08\x00", Some(1)),
    ];
    for (bytes, line) in cases {
        let error = refusal(bytes);
        assert_eq!((error.place.line, error.problem), (line, Problem::NotText));
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let comment = |length| format!("#{}", "a".repeat(length - 1));
    assert_eq!(
        refusal(comment(LARGEST_FILE + 1).as_bytes()).problem,
        Problem::TooLarge
    );
    let largest = Policy::parse(comment(LARGEST_FILE).as_bytes(), Origin::default()).unwrap();
    assert_eq!(largest, Policy::default());

    let many = |count| Policy {
        allow: (0..count)
            .map(|number| Allow {
                host: format!("h{number}.example"),
                ..Allow::default()
            })
            .collect(),
        ..Policy::default()
    };
    let compiled = |count| {
        compile(&Layers {
            sandbox: Some(many(count)),
            ..Layers::default()
        })
    };
    assert_eq!(
        compiled(MOST_RULES + 1).unwrap_err().problem,
        Problem::TooManyRules
    );
    assert!(compiled(MOST_RULES).is_ok());
}

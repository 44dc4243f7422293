//! Names of hosts in any spelling: there is one canonical form, it is its own, and nobody takes it for an address.
#![no_main]

use std::net::IpAddr;

use cofferdam_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use netproxy::HostName;
use netproxy::policy::{Abilities, Allow, Engine, Host, Layers, Policy, Scheme};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let text = text(&mut input);
    let Ok(name) = HostName::parse(&text) else {
        return;
    };
    let canonical = name.as_str();
    assert_eq!(HostName::parse(canonical).as_ref(), Ok(&name), "{text:?}");
    let again = [format!("{canonical}."), canonical.to_uppercase()];
    for spelling in again {
        assert_eq!(
            HostName::parse(&spelling).as_ref(),
            Ok(&name),
            "{spelling:?}"
        );
    }
    let is_known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    assert!(canonical.bytes().all(is_known), "{canonical:?}");
    assert!(
        canonical.len() <= 253
            && canonical
                .split('.')
                .all(|label| (1..=63).contains(&label.len()))
    );
    // The forms that libraries take for addresses.
    assert!(canonical.parse::<IpAddr>().is_err());
    let last = canonical.rsplit('.').next().unwrap_or_default();
    assert!(
        !last.bytes().all(|byte| byte.is_ascii_digit()),
        "{canonical}"
    );
    decides(&text, &name);
});

/// A rule in this spelling is for the name and for no other.
fn decides(text: &str, name: &HostName) {
    let policy = Policy {
        allow: vec![Allow {
            host: text.to_owned(),
            ..Allow::default()
        }],
        ..Policy::default()
    };
    let layers = Layers {
        sandbox: Some(policy),
        ..Layers::default()
    };
    let abilities = Abilities {
        intercepts_tls: false,
    };
    let Ok(engine) = Engine::compile(&layers, abilities, |_| true) else {
        return;
    };
    let permits = |host: &HostName| {
        let host = Host::Name(host.clone());
        engine
            .connection(&host, 443, Scheme::Https)
            .verdict
            .permits()
    };
    assert!(permits(name), "{text:?}");
    for other in [format!("x.{name}"), format!("x{name}"), format!("{name}x")] {
        if let Ok(other) = HostName::parse(&other) {
            assert!(!permits(&other), "{text:?} {other}");
        }
    }
}

/// Letters that are more than they seem, and the input's own.
fn text(input: &mut Input<'_>) -> String {
    const PARTS: [&str; 30] = [
        "a",
        "A",
        "example",
        "xn--",
        "xn--bcher-kva",
        "b\u{fc}cher",
        "u\u{308}",
        "\u{df}",
        "\u{3c2}",
        "\u{130}",
        ".",
        "\u{3002}",
        "\u{ff0e}",
        "-",
        "_",
        "0x",
        "7f",
        "127",
        "1",
        "\u{ff11}",
        "\u{ad}",
        "\u{200d}",
        "\u{430}",
        "\u{2100}",
        "%",
        "@",
        ":",
        "\0",
        "/",
        " ",
    ];
    let mut text = String::new();
    while !input.is_empty() && text.len() < 600 {
        let choice = input.below(PARTS.len() + 2);
        match PARTS.get(choice) {
            Some(part) => text.push_str(part),
            None => text.push_str(&String::from_utf8_lossy(input.blob())),
        }
    }
    text
}

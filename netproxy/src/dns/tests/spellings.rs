//! One name in many spellings: each is that name or none, and never another (attack D07).

use std::net::Ipv4Addr;

use super::wire::{ask, ask_labels};
use super::{Few, Seen, answer, see};

/// Which name policy is asked about, if at all.
fn asked(query: &[u8]) -> Option<String> {
    let mut zone = Few::new();
    answer(query, &mut zone);
    zone.asked.pop()
}

#[test]
fn spellings_of_one_name_are_that_name() {
    for (spelling, canonical, last) in [
        ("api.example.com", "api.example.com", 1),
        ("API.EXAMPLE.COM", "api.example.com", 1),
        ("Api.Example.Com", "api.example.com", 1),
        ("aPI.eXAMPLE.cOM", "api.example.com", 1),
        ("api.example.coM", "api.example.com", 1),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", 2),
        ("XN--BCHER-KVA.EXAMPLE", "xn--bcher-kva.example", 2),
        ("Xn--Bcher-Kva.example", "xn--bcher-kva.example", 2),
        ("xN--bCHER-kVA.eXAMPLE", "xn--bcher-kva.example", 2),
        ("_acme.example", "_acme.example", 3),
        ("_ACME.example", "_acme.example", 3),
        ("SINGLE", "single", 4),
    ] {
        let query = ask(spelling, 1);
        assert_eq!(see(&query), Seen::Address(last), "{spelling}");
        assert_eq!(asked(&query).as_deref(), Some(canonical), "{spelling}");
    }
}

/// Programs turn each of these into a name that exists, or take it for one. DNS does not.
#[test]
fn spellings_that_only_programs_equate_are_no_names() {
    let spellings: [&[&str]; 34] = [
        // International labels as such, composed and decomposed, and in capitals.
        &["bücher", "example"],
        &["bu\u{308}cher", "example"],
        &["BÜCHER", "example"],
        &["ｂücher", "example"],
        // Full width, mathematical, circled, small capital: compatible with ASCII.
        &["ａｐｉ", "example", "com"],
        &["api", "ｅｘａｍｐｌｅ", "com"],
        &["𝐚𝐩𝐢", "example", "com"],
        &["ⓐⓟⓘ", "example", "com"],
        &["ᴀpi", "example", "com"],
        &["api", "example", "ℂom"],
        &["api", "example", "c℺m"],
        // Letters that look alike: Cyrillic, Greek, and mixed script as punycode.
        &["арі", "example", "com"],
        &["αpi", "example", "com"],
        &["api", "exаmple", "com"],
        // Other dots, in one label.
        &["api。example", "com"],
        &["api．example", "com"],
        &["api｡example", "com"],
        &["api\u{2024}example", "com"],
        &["api.example.com"],
        &["api.example", "com"],
        &["api", "example.com"],
        // What is ignored when it is shown or mapped: soft hyphen, joiners, variation selector, byte order mark.
        &["a\u{ad}pi", "example", "com"],
        &["api\u{200b}", "example", "com"],
        &["a\u{200d}pi", "example", "com"],
        &["api\u{fe0f}", "example", "com"],
        &["\u{feff}api", "example", "com"],
        // Escapes of files and of URLs.
        &["%61pi", "example", "com"],
        &["\\097pi", "example", "com"],
        &["api\\", "example", "com"],
        &["api", "example", "com\\."],
        // Punycode that decodes to ASCII (RUSTSEC-2024-0421), to nothing, or badly.
        &["xn--api-", "example", "com"],
        &["xn--single-"],
        &["xn--", "example"],
        &["xn--bcher-kv", "example"],
    ];
    for labels in spellings {
        let octets: Vec<&[u8]> = labels.iter().map(|label| label.as_bytes()).collect();
        let query = ask_labels(&octets);
        assert_eq!(see(&query), Seen::NxDomain, "{labels:?}");
        assert_eq!(asked(&query), None, "{labels:?}");
    }
}

/// Good names, which are other names than the one they look like.
#[test]
fn names_that_look_like_another_are_asked_about_as_themselves() {
    for spelling in [
        // раypal.com in mixed script, аpi in Cyrillic, api with an underscore or hyphens.
        "xn--ypal-43d9g.com",
        "xn--80a6b2b.example.com",
        "api_.example.com",
        "_api.example.com",
        "a-pi.example.com",
        "apl.example.com",
        "api.example.com.example.com",
        "api.example.co",
    ] {
        let query = ask(spelling, 1);
        assert_eq!(see(&query), Seen::NxDomain, "{spelling}");
        assert_eq!(asked(&query).as_deref(), Some(spelling));
    }
}

#[test]
fn each_case_of_letters_gets_the_same_address_and_its_own_question() {
    let name = "api.example.com";
    for bits in 0..1_u32 << 13 {
        let mut letter = 0;
        let spelling: String = name
            .chars()
            .map(|each| {
                letter += u32::from(each != '.');
                let is_upper = each != '.' && bits >> (letter - 1) & 1 == 1;
                if is_upper {
                    each.to_ascii_uppercase()
                } else {
                    each
                }
            })
            .collect();
        // `see` compares the question.
        assert_eq!(see(&ask(&spelling, 1)), Seen::Address(1), "{spelling}");
    }
    assert_eq!(Few::new().names[name], Ipv4Addr::new(198, 18, 0, 1));
}

use super::{HostName, NameError};

#[test]
fn one_name_has_one_form() {
    for (given, canonical) in [
        ("example.com", "example.com"),
        ("EXAMPLE.Com", "example.com"),
        ("example.com.", "example.com"),
        ("example。com", "example.com"),
        ("ｅｘａｍｐｌｅ.com", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("_acme.example", "_acme.example"),
        ("a-b.example", "a-b.example"),
        ("1.example", "1.example"),
        ("localhost", "localhost"),
        ("exa\u{ad}mple.com", "example.com"),
    ] {
        assert_eq!(
            HostName::parse(given).unwrap().as_str(),
            canonical,
            "{given}"
        );
    }
}

#[test]
fn what_is_no_name_is_refused() {
    let long_label = format!("{}.example", "a".repeat(64));
    let long_name = format!("{}example", "abcdefg.".repeat(31));
    assert_eq!(long_name.len(), 255);
    for (given, error) in [
        ("", NameError::Empty),
        (".", NameError::Empty),
        (&long_label, NameError::TooLong),
        (&long_name, NameError::TooLong),
        (&"a".repeat(100_000), NameError::TooLong),
        ("a..example", NameError::EmptyLabel),
        (".example", NameError::EmptyLabel),
        ("example..", NameError::EmptyLabel),
        ("-a.example", NameError::Character),
        ("a-.example", NameError::Character),
        ("a b.example", NameError::Character),
        ("a\0.example", NameError::Character),
        ("a\r\n.example", NameError::Character),
        ("a\t.example", NameError::Character),
        ("a%2e.example", NameError::Character),
        ("a\\.example", NameError::Character),
        ("a/.example", NameError::Character),
        ("user@a.example", NameError::Character),
        ("a#.example", NameError::Character),
        ("a:80", NameError::Character),
        ("[::1]", NameError::Character),
        ("::1", NameError::Character),
        ("fe80::1%eth0", NameError::Character),
        ("*.example", NameError::Character),
        // Punycode that decodes to ASCII (RUSTSEC-2024-0421), and that decodes to nothing.
        ("xn--example-.com", NameError::Character),
        ("xn--.com", NameError::Character),
        ("xn--a.com", NameError::Character),
        ("127.0.0.1", NameError::Address),
        ("127.1", NameError::Address),
        ("2130706433", NameError::Address),
        ("0x7f.1", NameError::Address),
        ("0x7F000001", NameError::Address),
        ("0177.0.0.01", NameError::Address),
        ("１２７.０.０.１", NameError::Address),
        ("127.0.0.1.", NameError::Address),
        ("a.example.1", NameError::Address),
        ("a.0x", NameError::Address),
    ] {
        assert_eq!(HostName::parse(given), Err(error), "{given:?}");
    }
}

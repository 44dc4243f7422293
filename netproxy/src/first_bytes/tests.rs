use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// What a TLS client says first.
fn hello(to: &str, with_name: bool) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.enable_sni = with_name;
    let name = ServerName::try_from(to.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn tls(name: &str) -> Option<FirstBytes> {
    Some(FirstBytes::Tls(HostName::parse(name).unwrap()))
}

#[test]
fn a_tls_client_names_its_server() {
    assert_eq!(recognise(&hello("a.example", true)), tls("a.example"));
    assert_eq!(recognise(&hello("A.Example", true)), tls("a.example"));
    assert_eq!(
        recognise(&hello("a.example", false)),
        Some(FirstBytes::TlsWithoutName)
    );
    assert_eq!(
        recognise(&hello("192.0.2.1", true)),
        Some(FirstBytes::TlsWithoutName)
    );
}

#[test]
fn a_hello_is_recognised_when_it_is_whole_and_not_before() {
    let whole = hello("a.example", true);
    for len in 0..whole.len() {
        assert_eq!(recognise(&whole[..len]), None, "{len} bytes");
    }
    let with_more = [whole, vec![0xff; 100]].concat();
    assert_eq!(recognise(&with_more), tls("a.example"));
}

#[test]
fn a_hello_in_many_records_is_put_together() {
    let whole = hello("a.example", true);
    let (header, message) = whole.split_at(5);
    for size in [1, 2, 7, 100] {
        let records: Vec<u8> = message
            .chunks(size)
            .flat_map(|piece| {
                let len = u16::try_from(piece.len()).unwrap().to_be_bytes();
                [&header[..3], &len, piece].concat()
            })
            .collect();
        assert_eq!(
            recognise(&records),
            tls("a.example"),
            "records of {size} bytes"
        );
    }
}

#[test]
fn http_is_known_by_its_method() {
    for (bytes, expected) in [
        ("", None),
        ("G", None),
        ("GET", None),
        ("GET ", Some(FirstBytes::Http)),
        ("GET / HTTP/1.1\r\n", Some(FirstBytes::Http)),
        ("VERSION-CONTROL /", Some(FirstBytes::Http)),
        ("PRI * HTTP/2.0\r\n", Some(FirstBytes::Http)),
        ("GET\t/", Some(FirstBytes::Unknown)),
        ("Get /", Some(FirstBytes::Unknown)),
        ("get /", Some(FirstBytes::Unknown)),
        (" GET /", Some(FirstBytes::Unknown)),
        ("\r\nGET /", Some(FirstBytes::Unknown)),
        ("AAAAAAAAAAAAAAAAAAAAA", Some(FirstBytes::Unknown)),
        ("SSH-2.0-OpenSSH_9.2\r\n", Some(FirstBytes::Unknown)),
        ("\0", Some(FirstBytes::Unknown)),
        ("\u{80}", Some(FirstBytes::Unknown)),
    ] {
        assert_eq!(recognise(bytes.as_bytes()), expected, "{bytes:?}");
    }
}

#[test]
fn a_hello_without_end_is_given_up() {
    let header = [22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    let endless: Vec<u8> = header
        .into_iter()
        .chain(std::iter::repeat_n(0, LONGEST_HELLO))
        .collect();
    assert_eq!(recognise(&endless), Some(FirstBytes::Unknown));
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = recognise(&bytes);
        let _ = recognise(&[&[22, 3, 1], &*bytes].concat());
    }

    /// Whatever is changed in a hello, a name that is found is a name.
    #[test]
    fn no_hello_is_too_odd(changes in prop::collection::vec((0_usize..200, any::<u8>()), 1..4)) {
        let mut bytes = hello("a.example", true);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let _ = recognise(&bytes);
    }
}

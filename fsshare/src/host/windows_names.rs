//! Which names mean the same to Windows as to a guest.
//!
//! To a guest a name is a row of bytes. Windows finds more in some: streams (`a:b`), devices (`nul.txt`), separators, wildcards, and
//! names that it takes for others (`a.` and `a ` for `a`, `GIT~1` for `.git`). The kernel below does not do all of that itself, but the
//! programs of the host's user do, so none of these names is looked up, made or shown. What is refused here needs no rule.
//!
//! Case is another matter: NTFS keeps it and does not mind it. One file then has many spellings, and [`Rules`](crate::Rules) compare all of
//! them folded, as they do on every system.

/// Not in any name, besides control characters.
const FORBIDDEN: &[char] = &['<', '>', ':', '"', '/', '\\', '|', '?', '*'];

/// Devices, also with anything behind a dot.
const DEVICES: &[&str] = &["con", "prn", "aux", "nul", "conin$", "conout$", "clock$"];

/// Devices of which there are several.
const NUMBERED_DEVICES: &[&str] = &["com", "lpt"];

/// The name for a host call; `None` if it means something else to Windows, or is no Unicode.
pub(super) fn to_host(name: &[u8]) -> Option<Vec<u16>> {
    let name = std::str::from_utf8(name).ok()?;
    is_plain(name).then(|| name.encode_utf16().collect())
}

/// The name for the guest; `None` if the guest could not ask for it.
pub(super) fn to_guest(name: &[u16]) -> Option<String> {
    let name = String::from_utf16(name).ok()?;
    // The entries for a directory and the one above it are shown, and never asked for.
    (matches!(name.as_str(), "." | "..") || is_plain(&name)).then_some(name)
}

/// Whether Windows may have made the name up for a longer one (8.3; it then has a tilde). Such a name leads only to what has it as its own.
pub(super) fn may_be_short(name: &[u16]) -> bool {
    name.contains(&u16::from(b'~'))
}

fn is_plain(name: &str) -> bool {
    let is_allowed = |symbol: char| symbol >= ' ' && !FORBIDDEN.contains(&symbol);
    !name.is_empty()
        && !name.ends_with(['.', ' '])
        && name.chars().all(is_allowed)
        && !is_device(name)
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    let stem = stem.trim_end_matches(' ').to_lowercase();
    let is_number = |rest: &str| {
        let mut symbols = rest.chars();
        matches!(
            (symbols.next(), symbols.next()),
            (Some('0'..='9' | '\u{B9}' | '\u{B2}' | '\u{B3}'), None)
        )
    };
    DEVICES.contains(&stem.as_str())
        || NUMBERED_DEVICES
            .iter()
            .filter_map(|device| stem.strip_prefix(device))
            .any(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &[&str] = &[
        "",
        "a:b",
        "a:",
        ":$DATA",
        "a::$DATA",
        ".git::$INDEX_ALLOCATION",
        "C:",
        "a\\b",
        "\\",
        "..\\..",
        "a/b",
        "\\\\.\\nul",
        "a*",
        "a?",
        "<",
        "a>",
        "\"a",
        "a|b",
        "a\u{1}",
        "a\tb",
        "a\n",
        "\u{1f}",
        "a.",
        "a ",
        "a. ",
        ".git.",
        ".git ",
        "...",
        " ",
        ".",
        "..",
        "con",
        "CON",
        "Con.txt",
        "con .txt",
        "nul",
        "nul.tar.gz",
        "NUL  .x",
        "aux.c",
        "prn",
        "com0",
        "COM1",
        "com9.log",
        "COM\u{B9}",
        "lpt\u{B2}.x",
        "LPT\u{B3}",
        "lpt1",
        "CONIN$",
        "conout$.x",
        "clock$",
    ];

    #[test]
    fn names_that_mean_more_to_windows_are_refused() {
        for name in REFUSED {
            assert_eq!(to_host(name.as_bytes()), None, "{name:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        for name in [&b"\xff"[..], b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf"] {
            assert_eq!(to_host(name), None, "{name:?}");
        }
    }

    #[test]
    fn ordinary_names_go_to_the_host_and_come_back() {
        for name in [
            "a",
            ".a",
            "..a",
            "a.b",
            " a",
            "a b",
            "~",
            "a~1",
            "com",
            "com10",
            "com1x",
            "comma",
            "console.log",
            "nullable.rs",
            "auxiliary",
            "x.con",
            "lpt\u{2074}",
            "\u{E9}",
            "\u{1F980}",
            "a\u{7f}",
            "'$&;",
        ] {
            let host = to_host(name.as_bytes()).unwrap();
            assert_eq!(to_guest(&host).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_the_guest_could_not_ask_for_is_not_shown() {
        for name in [
            &[0xD800_u16][..],
            &[0x61, 0xDC00],
            &[0x61, 0x2e],
            &[0x6e, 0x75, 0x6c],
        ] {
            assert_eq!(to_guest(name), None, "{name:x?}");
        }
        assert_eq!(to_guest(&[0x2e]).as_deref(), Some("."));
        assert_eq!(to_guest(&[0x2e, 0x2e]).as_deref(), Some(".."));
    }

    #[test]
    fn whatever_looks_like_a_short_name_is_looked_at_twice() {
        for (name, expected) in [
            ("GIT~1", true),
            ("git~1", true),
            ("GI7EBA~1", true),
            ("A~12.TXT", true),
            ("a.~1~", true),
            ("~0", true),
            ("git~", true),
            ("", false),
            (".git", false),
            ("plain.txt", false),
        ] {
            let units: Vec<_> = name.encode_utf16().collect();
            assert_eq!(may_be_short(&units), expected, "{name:?}");
        }
    }
}

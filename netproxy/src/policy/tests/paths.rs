//! Which paths have one form, and which patterns match it.

use proptest::prelude::*;

use super::super::LARGEST_PATTERN;
use super::super::path::{CanonicalPath, LONGEST_PATH, PathError, PathPattern, PatternError};

fn canonical(target: &str) -> Result<String, PathError> {
    CanonicalPath::parse(target).map(|path| path.to_string())
}

#[test]
fn paths_have_one_form() {
    for (target, form) in [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a/b?c=d", "/a/b"),
        ("/a?", "/a"),
        ("/?//../;\\", "/"),
        ("/%61%2D%2e5%7E%5f", "/a-.5~_"),
        ("/A%42", "/AB"),
        ("/...", "/..."),
        ("/.a/b./..c", "/.a/b./..c"),
        ("/.well-known/x", "/.well-known/x"),
        ("/%40scope:x@y", "/@scope:x@y"),
        ("/a%20b+c", "/a b+c"),
        ("/%C3%A9%c3%a9", "/éé"),
        ("/%F0%9F%A6%80", "/🦀"),
        ("/a=b,c&d!$'()*", "/a=b,c&d!$'()*"),
        ("/%2A", "/*"),
    ] {
        assert_eq!(canonical(target).as_deref(), Ok(form), "{target}");
    }
}

#[test]
fn paths_that_could_be_read_in_several_ways_are_refused() {
    for (target, error) in [
        ("", PathError::Relative),
        ("*", PathError::Relative),
        ("a", PathError::Relative),
        ("?/a", PathError::Relative),
        ("http://a.example/", PathError::Relative),
        ("a.example:443", PathError::Relative),
        ("%2fa", PathError::Relative),
        ("//", PathError::EmptySegment),
        ("//a", PathError::EmptySegment),
        ("/a//b", PathError::EmptySegment),
        ("/a//", PathError::EmptySegment),
        ("/.", PathError::DotSegment),
        ("/..", PathError::DotSegment),
        ("/./", PathError::DotSegment),
        ("/a/../b", PathError::DotSegment),
        ("/a/./b", PathError::DotSegment),
        ("/a/..", PathError::DotSegment),
        ("/a/..?x", PathError::DotSegment),
        ("/a/%2e%2e/b", PathError::DotSegment),
        ("/a/%2E./b", PathError::DotSegment),
        ("/a/.%2e", PathError::DotSegment),
        ("/%2e", PathError::DotSegment),
        ("/a%2fb", PathError::EscapedDelimiter),
        ("/a%2Fb", PathError::EscapedDelimiter),
        ("/a%5cb", PathError::EscapedDelimiter),
        ("/a%5Cb", PathError::EscapedDelimiter),
        ("/%252e%252e", PathError::EscapedDelimiter),
        ("/a%25", PathError::EscapedDelimiter),
        ("/a%3bb", PathError::EscapedDelimiter),
        ("/a%3Fb", PathError::EscapedDelimiter),
        ("/a%23b", PathError::EscapedDelimiter),
        ("/a\\b", PathError::Backslash),
        ("/..\\b", PathError::Backslash),
        ("\\a", PathError::Relative),
        ("/a;b", PathError::Parameters),
        ("/a;", PathError::Parameters),
        ("/..;/a", PathError::Parameters),
        ("/a#b", PathError::Character),
        ("/a b", PathError::Character),
        ("/a\tb", PathError::Character),
        ("/a\r\nb", PathError::Character),
        ("/a\0", PathError::Character),
        ("/a\x7f", PathError::Character),
        ("/é", PathError::Character),
        ("/／", PathError::Character),
        ("/%00", PathError::Character),
        ("/%0a", PathError::Character),
        ("/%7F", PathError::Character),
        ("/%", PathError::Escape),
        ("/%2", PathError::Escape),
        ("/%g1", PathError::Escape),
        ("/%1g", PathError::Escape),
        ("/%+1", PathError::Escape),
        ("/%u002e", PathError::Escape),
        ("/%c0%ae", PathError::Escape),
        ("/%e0%80%af", PathError::Escape),
        ("/%ff", PathError::Escape),
        ("/%C3", PathError::Escape),
        ("/%ed%a0%80", PathError::Escape),
    ] {
        assert_eq!(canonical(target), Err(error), "{target:?}");
    }
    let of_length = |length: usize| format!("/{}", "a".repeat(length - 1));
    assert!(canonical(&of_length(LONGEST_PATH)).is_ok());
    assert_eq!(
        canonical(&of_length(LONGEST_PATH + 1)),
        Err(PathError::TooLong)
    );
    let query = format!("/?{}", "a".repeat(LONGEST_PATH * 2));
    assert!(canonical(&query).is_ok());
}

#[test]
fn patterns() {
    for (pattern, matching, others) in [
        ("/", &["/"][..], &["/a"][..]),
        ("/**", &["/", "/a", "/a/", "/a/b/c"], &[]),
        ("/*", &["/a", "/abc/", "/*"], &["/", "/a/b"]),
        (
            "/a",
            &["/a", "/a/", "/%61"],
            &["/", "/A", "/ab", "/a/b", "/b"],
        ),
        ("/a/", &["/a", "/a/"], &["/a/b"]),
        (
            "/a/**",
            &["/a", "/a/", "/a/b", "/a/b/c"],
            &["/ab", "/", "/b/a"],
        ),
        ("/**/a", &["/a", "/b/a", "/a/a/b/a/"], &["/", "/a/b", "/ba"]),
        (
            "/a/**/b",
            &["/a/b", "/a/x/b", "/a/b/b", "/a/b/c/b"],
            &["/a", "/b", "/a/b/c"],
        ),
        (
            "/**/a/**/b/**",
            &["/a/b", "/x/a/y/b/z", "/b/a/b"],
            &["/b/a", "/a", "/"],
        ),
        ("/**/**", &["/", "/a"], &[]),
        ("/a*", &["/a", "/ab"], &["/ba", "/a/b"]),
        ("/*a", &["/a", "/ba", "/aaa"], &["/ab"]),
        ("/a*b*c", &["/abc", "/axbxc", "/abcbc"], &["/acb", "/abcd"]),
        (
            "/*.git/**",
            &["/x.git", "/x.git/info/refs"],
            &["/x/.gitx", "/a/x.git"],
        ),
        ("/é b", &["/%C3%A9%20b"], &["/e b", "/%C3%89%20b"]),
        ("/a[b]{c}", &["/a[b]{c}"], &["/ab"]),
    ] {
        let pattern = PathPattern::parse(pattern).unwrap();
        for path in matching {
            assert!(
                pattern.matches(&CanonicalPath::parse(path).unwrap()),
                "{pattern:?} {path}"
            );
        }
        for path in others {
            let matches = CanonicalPath::parse(path).is_ok_and(|path| pattern.matches(&path));
            assert!(!matches, "{pattern:?} {path}");
        }
    }
}

#[test]
fn patterns_that_could_match_nothing_are_refused() {
    for (text, error) in [
        ("", PathError::Relative.into()),
        ("**", PathError::Relative.into()),
        ("a/b", PathError::Relative.into()),
        ("/a**", PatternError::DoubleStar),
        ("/**a/b", PatternError::DoubleStar),
        ("/a/***", PatternError::DoubleStar),
        ("/a?b=c", PatternError::Query),
        ("/a%20b", PatternError::Escaped),
        ("/%2e", PatternError::Escaped),
        ("/a//b", PathError::EmptySegment.into()),
        ("//", PathError::EmptySegment.into()),
        ("/a/../b", PathError::DotSegment.into()),
        ("/.", PathError::DotSegment.into()),
        ("/a;b", PathError::Parameters.into()),
        ("/a\\b", PathError::Backslash.into()),
        ("/a#b", PathError::Character.into()),
        ("/a\n", PathError::Character.into()),
        ("/a\u{85}", PathError::Character.into()),
    ] {
        assert_eq!(PathPattern::parse(text).unwrap_err(), error, "{text:?}");
    }
    let of_length = |length: usize| format!("/{}", "a".repeat(length - 1));
    assert!(PathPattern::parse(&of_length(LARGEST_PATTERN)).is_ok());
    let error = PathPattern::parse(&of_length(LARGEST_PATTERN + 1)).unwrap_err();
    assert_eq!(error, PatternError::TooLong);
}

#[test]
fn the_worst_pattern_on_the_worst_path_takes_no_time() {
    let pattern = PathPattern::parse(&"/**/a".repeat(LARGEST_PATTERN / 5)).unwrap();
    let deep = format!("{}/b", "/a".repeat(LONGEST_PATH / 2 - 1));
    let path = CanonicalPath::parse(&deep).unwrap();
    let pattern_within = PathPattern::parse(&format!("/{}b", "*a".repeat(500))).unwrap();
    let long = format!("/{}", "a".repeat(LONGEST_PATH - 1));
    let path_within = CanonicalPath::parse(&long).unwrap();
    let start = std::time::Instant::now();
    assert!(!pattern.matches(&path) && !pattern_within.matches(&path_within));
    // Backtracking would not end in the life of this machine.
    assert!(start.elapsed().as_secs() < 10);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_path_panics_and_what_is_taken_is_clear(target in "(/|/[ -~]{0,6}|/%[0-9a-fA-F]{2}|/\\PC{0,4}){1,6}") {
        if let Ok(path) = canonical(&target) {
            prop_assert!(path.starts_with('/'));
            prop_assert!(!path.contains("//") && !path.contains(['\\', ';', '%', '#', '?', '\0']));
            prop_assert!(!path.split('/').any(|part| part == "." || part == ".."));
            // Escaping all of it again changes nothing.
            let escaped: String = path.bytes().map(|byte| match byte {
                b'/' => "/".to_owned(),
                byte => format!("%{byte:02x}"),
            }).collect();
            prop_assert_eq!(canonical(&escaped), Ok(path));
        }
    }
}

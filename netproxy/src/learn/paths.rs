//! Paths of requests, as rules have them.

use std::collections::BTreeSet;

use crate::audit::LONGEST_PATH;
use crate::policy::path::{CanonicalPath, PathPattern};

/// Most patterns of a rule: more nobody reads.
pub(super) const MOST_PATTERNS: usize = 16;

/// The pattern that matches the path of a record and no other; none if there is no such pattern, or the record holds only its beginning.
pub(super) fn literal(recorded: &str) -> Option<String> {
    let (path, is_whole) = match recorded.split_once('?') {
        Some((path, _)) => (path, true),
        None => (
            recorded,
            recorded.len() + 3 < LONGEST_PATH || !recorded.ends_with("..."),
        ),
    };
    let path = CanonicalPath::parse(path).ok().filter(|_| is_whole)?;
    let path = path.to_string();
    let path = match path.strip_suffix('/') {
        // With one slash more at the end it is the same path.
        Some(shorter) if !shorter.is_empty() => shorter,
        _ => &path,
    };
    let is_pattern = !path.contains('*') && PathPattern::parse(path).is_ok();
    is_pattern.then(|| path.to_owned())
}

/// A few patterns that match `paths`: these themselves, or else all that is below the deepest directories of which there are few. None: any path.
pub(super) fn patterns(paths: &BTreeSet<String>) -> Option<BTreeSet<String>> {
    if paths.len() <= MOST_PATTERNS {
        return Some(paths.clone());
    }
    let deepest = paths.iter().map(|path| path.matches('/').count()).max();
    (1..deepest.unwrap_or_default())
        .rev()
        .map(|depth| folded(paths, depth))
        .find(|folded| folded.len() <= MOST_PATTERNS)
}

/// `paths`, in which those with more than `depth` segments are replaced by all that is below these.
fn folded(paths: &BTreeSet<String>, depth: usize) -> BTreeSet<String> {
    let folded = paths.iter().map(|path| {
        // The first one opens the path.
        match path.match_indices('/').nth(depth) {
            Some((end, _)) => format!("{}/**", path.get(..end).unwrap_or_default()),
            None => path.clone(),
        }
    });
    folded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_path_is_a_pattern_or_none() {
        for (recorded, expected) in [
            ("/", Some("/")),
            ("/a/b", Some("/a/b")),
            ("/a/", Some("/a")),
            ("/a?x=&y=", Some("/a")),
            ("/a%20b/%C3%BC", Some("/a b/ü")),
            ("/a..b/...", Some("/a..b/...")),
            ("", None),
            ("*", None),
            ("a", None),
            ("//", None),
            ("/a//b", None),
            ("/a/../b", None),
            ("/a/%2e%2e", None),
            ("/a%2fb", None),
            ("/a;b", None),
            ("/a*", None),
            ("/a%C2%80", None),
            ("/\u{1b}", None),
        ] {
            assert_eq!(literal(recorded).as_deref(), expected, "{recorded}");
        }
        let long = |len: usize, end: &str| format!("/{}{end}", "x".repeat(len - 1 - end.len()));
        assert!(literal(&long(LONGEST_PATH, "x")).is_some());
        assert_eq!(literal(&long(LONGEST_PATH, "...")), None);
        assert!(literal(&long(LONGEST_PATH - 3, "?x=...")).is_some());
    }

    #[test]
    fn many_paths_are_told_by_their_directories() {
        let set = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        let many = |prefix: &str| {
            (0..20)
                .map(|at| format!("{prefix}{at}"))
                .collect::<Vec<_>>()
        };
        let few: BTreeSet<String> = set(&["/a", "/b/c"]);
        assert_eq!(patterns(&few), Some(few));
        let mut pool: BTreeSet<String> = many("/debian/pool/x/").into_iter().collect();
        assert_eq!(patterns(&pool), Some(set(&["/debian/pool/x/**"])));
        pool.insert("/debian/Release".into());
        assert_eq!(
            patterns(&pool),
            Some(set(&["/debian/Release", "/debian/pool/x/**"]))
        );
        let deep = many("/debian/")
            .iter()
            .map(|path| format!("{path}/x"))
            .collect();
        assert_eq!(patterns(&deep), Some(set(&["/debian/**"])));
        assert_eq!(patterns(&many("/").into_iter().collect()), None);
        let wide = many("/").iter().map(|path| format!("{path}/x")).collect();
        assert_eq!(patterns(&wide), None);
    }
}

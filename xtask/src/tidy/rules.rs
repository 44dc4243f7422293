//! The house rules that a machine can check. Each gives one line a breach.

use std::path::Path;

use super::source::Source;

/// The modules that may hold `unsafe` (ARCHITECTURE.md, invariant 4).
const UNSAFE_MODULES: &[&str] = &["ffi", "memory", "kick", "event", "confine", "jail", "sys"];

const LONGEST_FILE: usize = 600;
const LONGEST_FUNCTION: usize = 100;

/// How far above an `unsafe` block its SAFETY comment may end: the statement may begin some lines before the block.
const SAFETY_REACH: usize = 4;

/// Text that belongs to one machine or one workplace. Written in pieces, so that this file passes.
const FOREIGN: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/Use", "rs/"), "a path of one machine"),
    (
        concat!("crates", ".io"),
        "the host name of a package registry",
    ),
    (
        concat!("deb.deb", "ian.org"),
        "the host name of a package registry",
    ),
    (
        concat!("security.deb", "ian.org"),
        "the host name of a package registry",
    ),
    (
        concat!("pypi", ".org"),
        "the host name of a package registry",
    ),
    (
        concat!("python", "hosted.org"),
        "the host name of a package registry",
    ),
    (
        concat!("npm", "js.org"),
        "the host name of a package registry",
    ),
    (
        concat!("proxy.gol", "ang.org"),
        "the host name of a package registry",
    ),
];

/// Checks the text of any file.
pub(super) fn check_text(path: &Path, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (needle, what) in FOREIGN {
            if line.contains(needle) {
                broken.push(breach(path, number, &format!("{what} ({needle})")));
            }
        }
    }
    broken
}

/// Checks a Rust file.
pub(super) fn check_source(source: &Source) -> Vec<String> {
    [
        unsafe_is_confined(source),
        unsafe_is_explained(source),
        sizes(source),
        unfinished(source),
    ]
    .concat()
}

fn breach(path: &Path, line: usize, what: &str) -> String {
    format!("{}:{}: {what}", path.display(), line + 1)
}

fn unsafe_is_confined(source: &Source) -> Vec<String> {
    let allowed = source.path.with_extension("").components().any(|part| {
        part.as_os_str()
            .to_str()
            .is_some_and(|name| UNSAFE_MODULES.contains(&name))
    });
    let lines = source
        .lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.has_word("unsafe"));
    let message = format!(
        "`unsafe` outside of the modules {}",
        UNSAFE_MODULES.join(", ")
    );
    if allowed {
        Vec::new()
    } else {
        lines
            .map(|(number, _)| breach(&source.path, number, &message))
            .collect()
    }
}

/// The lines with an `unsafe` block or implementation, and whether a SAFETY comment stands before each.
pub(super) fn unsafe_blocks(source: &Source) -> Vec<(usize, bool)> {
    let opens = |code: &str| {
        let mut parts = code.split("unsafe").skip(1);
        parts.any(|after| {
            after.trim_start().starts_with('{') || after.trim_start().starts_with("impl")
        })
    };
    let lines = source.lines.iter().enumerate();
    let blocks = lines.filter(|(_, line)| line.has_word("unsafe") && opens(&line.code));
    blocks
        .map(|(number, _)| (number, is_explained(source, number)))
        .collect()
}

fn is_explained(source: &Source, block: usize) -> bool {
    let above = source.lines.get(..=block).unwrap_or_default().iter().rev();
    let mut code_lines = 0;
    for line in above {
        if line.comment.contains("SAFETY:") {
            return true;
        }
        if line.has_code() {
            code_lines += 1;
        }
        if code_lines > SAFETY_REACH {
            break;
        }
    }
    false
}

fn unsafe_is_explained(source: &Source) -> Vec<String> {
    let bare = unsafe_blocks(source)
        .into_iter()
        .filter(|(_, explained)| !explained);
    bare.map(|(number, _)| breach(&source.path, number, "`unsafe` without a SAFETY comment"))
        .collect()
}

fn sizes(source: &Source) -> Vec<String> {
    let product = source.lines.len() - source.test_lines();
    let long = source
        .functions
        .iter()
        .filter(|function| function.length > LONGEST_FUNCTION);
    let mut broken: Vec<_> = long
        .map(|function| {
            let what = format!(
                "function {} has {} lines, over {LONGEST_FUNCTION}",
                function.name, function.length
            );
            breach(&source.path, function.line, &what)
        })
        .collect();
    if product > LONGEST_FILE {
        broken.push(breach(
            &source.path,
            0,
            &format!("{product} lines without tests, over {LONGEST_FILE}"),
        ));
    }
    broken
}

fn unfinished(source: &Source) -> Vec<String> {
    let mut broken = Vec::new();
    for (number, line) in source.lines.iter().enumerate() {
        if line.code.contains("todo!") || line.code.contains("unimplemented!") {
            broken.push(breach(&source.path, number, "unfinished code"));
        }
        if line.code.contains("#[ignore]") {
            broken.push(breach(
                &source.path,
                number,
                "an ignored test without a reason",
            ));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str) -> Vec<String> {
        check_source(&Source::new(path.into(), text))
    }

    #[test]
    fn unsafe_belongs_into_named_modules() {
        let text = "// SAFETY: sound\nunsafe { x }\n";
        for (path, breaches) in [
            ("a/src/sys.rs", 0),
            ("a/src/memory/map.rs", 0),
            ("a/src/vm.rs", 1),
            ("a/src/system.rs", 1),
        ] {
            assert_eq!(check(path, text).len(), breaches, "{path}");
        }
        assert!(
            check(
                "a/src/vm.rs",
                "// unsafe\n#![deny(unsafe_code)]\nlet s = \"unsafe { }\";\n"
            )
            .is_empty()
        );
    }

    #[test]
    fn unsafe_needs_its_reason_nearby() {
        let table = [
            ("// SAFETY: sound\nlet a =\n    unsafe { x };\n", true),
            ("// SAFETY: sound\nunsafe impl Send for X {}\n", true),
            ("unsafe { x } // SAFETY: sound\n", true),
            ("unsafe fn f();\n", true),
            ("unsafe { x }\n", false),
            (
                "// SAFETY: for another\nb;\nc;\nd;\ne;\nunsafe { x }\n",
                false,
            ),
        ];
        for (text, good) in table {
            assert_eq!(check("a/src/sys.rs", text).is_empty(), good, "{text}");
        }
    }

    #[test]
    fn sizes_have_limits() {
        let function = |lines: usize| format!("fn f() {{\n{}}}\n", "    x;\n".repeat(lines));
        assert!(check("a/src/a.rs", &function(100)).is_empty());
        assert!(check("a/src/a.rs", &function(101))[0].contains("function f has 101 lines"));
        assert!(check("a/src/a.rs", &"x;\n".repeat(600)).is_empty());
        assert_eq!(check("a/src/a.rs", &"x;\n".repeat(601)).len(), 1);
        assert!(check("a/src/tests.rs", &"x;\n".repeat(900)).is_empty());
        let with_tests = format!(
            "{}#[cfg(test)]\nmod tests {{\n{}}}\n",
            "x;\n".repeat(600),
            "y;\n".repeat(300)
        );
        assert!(check("a/src/a.rs", &with_tests).is_empty());
    }

    #[test]
    fn unfinished_code_is_found_outside_of_strings() {
        assert_eq!(
            check(
                "a.rs",
                concat!("to", "do!();\nunimple", "mented!();\n#[ignore]\n")
            )
            .len(),
            3
        );
        assert!(
            check(
                "a.rs",
                "#[ignore = \"needs a network\"]\nlet s = \"todo!\";\n"
            )
            .is_empty()
        );
    }

    #[test]
    fn foreign_text_is_found_in_any_file() {
        for (needle, _) in FOREIGN {
            assert_eq!(
                check_text(Path::new("a.md"), &format!("one\nsee {needle}x\n")).len(),
                1,
                "{needle}"
            );
        }
        assert!(check_text(Path::new("a.md"), "the /workspace of the guest\n").is_empty());
    }
}

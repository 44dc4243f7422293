//! The grammar against what git itself reads.

use super::*;

#[test]
fn list_is_sorted() {
    assert!(HARMLESS.is_sorted());
}

const ORDINARY: &[u8] = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true # yes\n\
    [remote \"origin\"]\n\turl = https://example.com/a.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n\
    [branch \"a \\\"b\\\\\"]\n\tremote = origin\n; end\n[user]\r\n\tname = \"A; B\"\r\n";

#[test]
fn what_git_writes_is_admitted() {
    assert_eq!(admit(ORDINARY, b""), Ok(()));
    assert_eq!(admit(b"", ORDINARY), Ok(()));
    for url in [
        "git@example.com:a/b.git",
        "host:a",
        "ssh://git@host/a",
        "git://h/a",
    ] {
        let text = format!(
            "[remote \"o\"]\n\turl = {url}\n[branch \"m\"]\n\tpushRemote = o\n\tremote = ."
        );
        assert_eq!(admit(text.as_bytes(), b""), Ok(()), "{url}");
    }
    let entries = parse(ORDINARY).unwrap();
    assert_eq!(entries.len(), 6);
    assert_eq!(entries[4].subsection.as_deref(), Some(&b"a \"b\\"[..]));
    assert_eq!(entries[5].value.as_deref(), Some(&b"A; B"[..]));
    assert_eq!(entries[1].value.as_deref(), Some(&b"true"[..]));
}

#[test]
fn what_names_a_program_is_refused_however_it_is_written() {
    for text in [
        "[core]\nfsmonitor = x",
        "[core]\nFSMonitor=x",
        "[CORE]\n\tfsmonitor\n",
        "[core] # c\n fsmonitor = x",
        "[core] fsmonitor = x",
        "[core]fsmonitor = x",
        "[core.fsmonitor]\nx = 1",
        "[core]\nsshCommand = x",
        "[core]\nhooksPath = x",
        "[core]\nworktree = /",
        "[core]\neditor = x",
        "[core]\npager = x",
        "[core]\naskPass = x",
        "[core]\ngitProxy = x",
        "[core]\nattributesFile = x",
        "[core]\nfilemode = true \\\n\n fsmonitor = x",
        "[core]\nfilemode = \"true\n[core]\nfsmonitor = x",
        "[sequence]\neditor = x",
        "[diff]\nexternal = x",
        "[diff \"x\"]\ncommand = x",
        "[diff \"x\"]\ntextconv = x",
        "[diff \"x\"]\nalgorithm = x",
        "[filter \"x\"]\nclean = x",
        "[filter \"x\"]\nprocess = x",
        "[merge \"x\"]\ndriver = x",
        "[credential]\nhelper = x",
        "[credential \"https://a\"]\nhelper = !x",
        "[include]\npath = x",
        "[includeIf \"gitdir:/\"]\npath = x",
        "[alias]\nst = !x",
        "[gpg]\nprogram = x",
        "[gpg \"ssh\"]\nprogram = x",
        "[url \"ext::x\"]\ninsteadOf = https://",
        "[remote \"o\"]\nurl = ext::sh -c x",
        "[remote \"o\"]\nurl = \"e\"xt::sh",
        "[remote \"o\"]\nurl = -oProxyCommand=x",
        "[remote \"o\"]\npushurl = fd::7",
        "[remote \"o\"]\nurl = ./evil",
        "[remote \"o\"]\nurl = /home/u/private",
        "[remote \"o\"]\nurl = file:///home/u/private",
        "[remote \"o\"]\nurl = evil",
        "[remote \"o\"]\nurl = helper://x",
        "[remote \"o\"]\nurl = ssh://-oProxyCommand=x/y",
        "[remote \"o\"]\nurl = ssh://a@-oProxyCommand=x/y",
        "[remote \"o\"]\nurl",
        "[remote \"o\"]\nmirror = true",
        "[branch \"m\"]\npushRemote = ./evil",
        "[branch \"m\"]\npushRemote = evil",
        "[branch \"m\"]\nremote = foo::x",
        "[remote \"o\"]\nuploadpack = x",
        "[remote \"o\"]\nvcs = x",
        "[remote \"o\"]\nproxy = x",
        "[submodule \"s\"]\nupdate = !x",
        "[protocol \"ext\"]\nallow = always",
        "[http]\nproxy = x",
        "[pager]\nlog = x",
        "[browser \"x\"]\ncmd = x",
        "[difftool \"x\"]\ncmd = x",
        "[uploadpack]\npackObjectsHook = x",
        "[trailer \"x\"]\ncommand = x",
        "[interactive]\ndiffFilter = x",
        "[init]\ntemplateDir = x",
        "\u{FEFF}[core]\nbare = true",
        "[core]\nbare = true\0",
        "bare = true",
        "[core",
        "[core]\n= x",
        "[core]\nbare = \\q",
    ] {
        assert_eq!(admit(text.as_bytes(), b""), Err(Errno::EPERM), "{text:?}");
    }
}

#[test]
fn what_the_host_has_set_may_stay_but_not_change() {
    let present = b"[core]\n\thooksPath = .husky\n[alias]\n\tst = status\n";
    let kept = b"[alias]\nst = status\n[core]\nhooksPath = .husky\n[user]\nname = a\n";
    assert_eq!(admit(kept, present), Err(Errno::EPERM), "the order");
    let kept = b"[core]\nhooksPath = .husky\n[user]\nname = a\n[alias]\nst = status\n";
    assert_eq!(admit(kept, present), Ok(()));
    for changed in [
        "[core]\nhooksPath = .evil",
        "[alias]\nco = !x",
        "[alias]\nst = status\n",
        "",
    ] {
        assert_eq!(admit(changed.as_bytes(), present), Err(Errno::EPERM));
    }
}

/// Parts of a file, so put together that they often make one.
const PARTS: &[&str] = &[
    "[core]",
    "[Core]",
    "[remote \"o\"]",
    "[diff \"a.b\"]",
    "[core.x]",
    "[alias]",
    "[user]\n",
    "[core",
    "]",
    "\n",
    "\n",
    "\n\t",
    "\r\n",
    "\r",
    " ",
    "bare",
    "fsmonitor",
    "url",
    "name",
    "st",
    "command",
    "=",
    " = ",
    "x",
    "true",
    "ext::y",
    "https://h/p",
    "./p",
    "\"",
    "\\",
    "\\\n",
    "\\\"",
    "#",
    ";",
    "-",
    "\u{FEFF}",
    ".",
    "\0",
];

/// What git reads in a file.
fn as_git_reads(text: &[u8]) -> Vec<Entry> {
    use std::io::Write as _;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text).unwrap();
    let list = ["config", "--list", "-z", "--no-includes", "--file"];
    let git = std::process::Command::new("git")
        .args(list)
        .arg(file.path())
        .output()
        .unwrap();
    let entry = |text: &[u8]| {
        let end = text.iter().position(|byte| *byte == b'\n');
        let (name, value) = text.split_at(end.unwrap_or(text.len()));
        let name = String::from_utf8_lossy(name);
        let (section, rest) = name.split_once('.').unwrap();
        let (subsection, key) = rest
            .rsplit_once('.')
            .map_or((None, rest), |(sub, key)| (Some(sub), key));
        Entry {
            name: format!(
                "{section}{}.{key}",
                if subsection.is_some() { ".*" } else { "" }
            ),
            subsection: subsection.map(|sub| sub.as_bytes().to_vec()),
            value: value.get(1..).map(<[u8]>::to_vec),
        }
    };
    // A file that git refuses does no harm.
    let read = if git.status.success() {
        git.stdout
    } else {
        Vec::new()
    };
    let entries = read
        .split(|byte| *byte == 0)
        .filter(|text| !text.is_empty());
    entries.map(entry).collect()
}

#[test]
fn git_finds_nothing_harmful_in_what_is_admitted() {
    if let Err(error) = std::process::Command::new("git").arg("--version").output() {
        // Past the harness's capture.
        let skip = format!(
            "SKIP git_finds_nothing_harmful_in_what_is_admitted: git cannot be started: {error}\n"
        );
        std::io::Write::write_all(&mut std::io::stderr(), skip.as_bytes()).unwrap();
        return;
    }
    // What git cannot read is harmless: this says that it reads at all.
    assert_eq!(as_git_reads(ORDINARY), parse(ORDINARY).unwrap());
    // One in thirty is admitted.
    let config = proptest::test_runner::Config {
        cases: 4096,
        failure_persistence: None,
        ..Default::default()
    };
    let parts = proptest::collection::vec(proptest::sample::select(PARTS), 1..24);
    proptest::proptest!(config, |(parts in parts)| {
        let text = format!("[core]\n{}", parts.concat());
        if admit(text.as_bytes(), b"").is_ok() {
            let read = as_git_reads(text.as_bytes());
            let harmful = read.iter().find(|entry| !entry.is_harmless());
            proptest::prop_assert!(harmful.is_none(), "{text:?}: {harmful:?}");
        }
    });
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_bytes_are_a_reason_to_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = admit(&bytes, &bytes);
    }
}

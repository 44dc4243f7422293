//! What a guest may write into a repository's `config`.
//!
//! Dozens of keys there name a program, or a file that names one, and git on the host would run it. So it is told what is harmless: keys
//! that are listed here; all others stay as the present file has them. The grammar (git-config(1), SYNTAX) is read strictly: what git
//! itself never writes is refused.

use crate::errno::Errno;

/// A longer file is not read.
pub(crate) const LONGEST: usize = 1 << 20;

/// Keys that run nothing, read nothing and lead nowhere, as `section.key` or `section.*.key`; `*` in place of a key is any.
const HARMLESS: &[&str] = &[
    "advice.*",
    "apply.whitespace",
    "author.email",
    "author.name",
    "branch.*.description",
    "branch.*.merge",
    "branch.*.pushremote",
    "branch.*.rebase",
    "branch.*.remote",
    "branch.*.vscode-merge-base",
    "color.*",
    "color.*.*",
    "commit.cleanup",
    "commit.gpgsign",
    "commit.status",
    "commit.verbose",
    "committer.email",
    "committer.name",
    "core.abbrev",
    "core.autocrlf",
    "core.bare",
    "core.bigfilethreshold",
    "core.checkstat",
    "core.commentchar",
    "core.commitgraph",
    "core.compression",
    "core.eol",
    "core.filemode",
    "core.ignorecase",
    "core.logallrefupdates",
    "core.loosecompression",
    "core.multipackindex",
    "core.precomposeunicode",
    "core.preloadindex",
    "core.quotepath",
    "core.repositoryformatversion",
    "core.safecrlf",
    "core.sparsecheckout",
    "core.sparsecheckoutcone",
    "core.splitindex",
    "core.symlinks",
    "core.trustctime",
    "core.untrackedcache",
    "core.whitespace",
    "diff.algorithm",
    "diff.colormoved",
    "diff.context",
    "diff.mnemonicprefix",
    "diff.noprefix",
    "diff.renamelimit",
    "diff.renames",
    "extensions.objectformat",
    "extensions.partialclone",
    "extensions.preciousobjects",
    "extensions.refstorage",
    "extensions.relativeworktrees",
    "extensions.worktreeconfig",
    "feature.experimental",
    "feature.manyfiles",
    "fetch.parallel",
    "fetch.prune",
    "fetch.prunetags",
    "fetch.writecommitgraph",
    "gc.auto",
    "gc.autodetach",
    "gc.pruneexpire",
    "index.threads",
    "index.version",
    "init.defaultbranch",
    "lfs.repositoryformatversion",
    "log.abbrevcommit",
    "log.date",
    "maintenance.auto",
    "maintenance.strategy",
    "merge.conflictstyle",
    "merge.ff",
    "merge.renamelimit",
    "merge.renames",
    "merge.stat",
    "pack.depth",
    "pack.threads",
    "pack.window",
    "pull.ff",
    "pull.rebase",
    "push.autosetupremote",
    "push.default",
    "push.followtags",
    "rebase.autosquash",
    "rebase.autostash",
    "rebase.stat",
    "rebase.updaterefs",
    "remote.*.fetch",
    "remote.*.gh-resolved",
    "remote.*.partialclonefilter",
    "remote.*.promisor",
    "remote.*.prune",
    "remote.*.prunetags",
    "remote.*.pushurl",
    "remote.*.skipfetchall",
    "remote.*.tagopt",
    "remote.*.url",
    "rerere.autoupdate",
    "rerere.enabled",
    "status.branch",
    "status.short",
    "status.showuntrackedfiles",
    "submodule.*.active",
    "submodule.*.branch",
    "submodule.*.ignore",
    "submodule.*.update",
    "submodule.*.url",
    "submodule.active",
    "tag.gpgsign",
    "tag.sort",
    "user.email",
    "user.name",
    "user.signingkey",
    "user.useconfigonly",
];

/// One setting.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// `section.key` or `section.*.key`, in lower case.
    name: String,
    subsection: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl Entry {
    fn is_harmless(&self) -> bool {
        let listed = HARMLESS.binary_search(&self.name.as_str()).is_ok() || self.is_any_key();
        let value = self.value.as_deref().unwrap_or_default();
        listed
            && match self.name.rsplit('.').next() {
                Some("url" | "pushurl") => is_far(value),
                // In the place of a name, a path or a URL will do; so it must be the name of a remote.
                Some("remote" | "pushremote") => value == b"." || is_plain(value),
                Some("update") => !value.starts_with(b"!"),
                _ => true,
            }
    }

    /// The remote that the entry names, when it is to be found in the same file.
    fn named_remote(&self) -> Option<&[u8]> {
        let names = matches!(
            self.name.as_str(),
            "branch.*.remote" | "branch.*.pushremote"
        );
        let value = self.value.as_deref().unwrap_or_default();
        (names && value != b".").then_some(value)
    }

    fn defines_remote(&self, remote: &[u8]) -> bool {
        self.name == "remote.*.url" && self.subsection.as_deref() == Some(remote)
    }

    fn is_any_key(&self) -> bool {
        let section = self.name.split('.').next().unwrap_or_default();
        let pattern = match self.subsection {
            Some(_) => format!("{section}.*.*"),
            None => format!("{section}.*"),
        };
        HARMLESS.binary_search(&pattern.as_str()).is_ok()
    }
}

/// Whether a URL leads to another machine: a path of this one holds hooks that a push runs, and `helper::address` names a program.
fn is_far(url: &[u8]) -> bool {
    let far = [&b"https://"[..], b"http://", b"ssh://", b"git://"];
    let host = far.iter().find_map(|scheme| url.strip_prefix(*scheme));
    // user@host:path, with the colon before any slash.
    let short = || {
        let end = url.iter().position(|byte| b":/".contains(byte))?;
        let (host, path) = url.split_at(end);
        let is_short =
            path.starts_with(b":") && !path.starts_with(b"::") && !path.starts_with(b"://");
        is_short.then_some(host)
    };
    let host = host.or_else(short).unwrap_or_default();
    // In the place of a host an option would go to the program that connects.
    let after_user = host.rsplit(|byte| *byte == b'@').next();
    !host.is_empty()
        && ![Some(host), after_user]
            .iter()
            .flatten()
            .any(|part| part.starts_with(b"-"))
}

/// Whether it is a word that is no path.
fn is_plain(name: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    !name.is_empty()
        && !name.starts_with(b"-")
        && !name.starts_with(b".")
        && name.iter().all(is_part)
}

/// Whether the guest may put `new` in the place of `present`.
///
/// # Errors
/// `EPERM`: it may not.
pub(crate) fn admit(new: &[u8], present: &[u8]) -> Result<(), Errno> {
    let (new, present) = (parse(new), parse(present));
    let (new, present) = (new.ok_or(Errno::EPERM)?, present.ok_or(Errno::EPERM)?);
    let is_known = |entry: &Entry| {
        entry
            .named_remote()
            .is_none_or(|remote| new.iter().any(|other| other.defines_remote(remote)))
    };
    let risky = |entries| -> Vec<_> {
        Iterator::filter(entries, |entry: &&Entry| !entry.is_harmless()).collect()
    };
    // The last of several counts, and a setting may also forbid: so the others keep their order and their number.
    if new.iter().all(is_known) && risky(new.iter()) == risky(present.iter()) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// The settings of a file, or nothing if it is not what git writes.
fn parse(text: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut section: Option<Header> = None;
    let mut rest = text;
    if rest.contains(&0) {
        return None;
    }
    while let Some(first) = rest.first() {
        match first {
            b' ' | b'\t' | b'\n' => rest = rest.get(1..)?,
            b'\r' => rest = rest.strip_prefix(b"\r\n")?,
            b'#' | b';' => rest = after_line(rest),
            b'[' => {
                let (header, tail) = header(rest)?;
                section = Some(header);
                rest = tail;
            }
            _ => {
                let (section, subsection) = section.as_ref()?;
                let (key, tail) = word(rest, |byte| byte.is_ascii_alphanumeric() || byte == b'-');
                if !key.starts_with(|symbol: char| symbol.is_ascii_alphabetic()) {
                    return None;
                }
                let (value, tail) = value(tail)?;
                let middle = if subsection.is_some() { ".*" } else { "" };
                entries.push(Entry {
                    name: format!("{section}{middle}.{key}"),
                    subsection: subsection.clone(),
                    value,
                });
                rest = tail;
            }
        }
    }
    Some(entries)
}

/// A section's name, and that of its subsection.
type Header = (String, Option<Vec<u8>>);

/// `[section]` or `[section "subsection"]`, and what follows.
fn header(text: &[u8]) -> Option<(Header, &[u8])> {
    let (section, rest) = word(text.strip_prefix(b"[")?, |byte| {
        byte.is_ascii_alphanumeric() || byte == b'-'
    });
    if section.is_empty() {
        return None;
    }
    if let Some(rest) = rest.strip_prefix(b"]") {
        return Some(((section, None), end_of_line(rest)?));
    }
    let mut rest = rest.strip_prefix(b" \"")?;
    let mut subsection = Vec::new();
    loop {
        let (byte, tail) = rest.split_first()?;
        rest = tail;
        match byte {
            b'"' => break,
            b'\n' => return None,
            b'\\' => {
                let (byte, tail) = rest.split_first()?;
                rest = tail;
                if !matches!(byte, b'"' | b'\\') {
                    return None;
                }
                subsection.push(*byte);
            }
            other => subsection.push(*other),
        }
    }
    let rest = end_of_line(rest.strip_prefix(b"]")?)?;
    Some(((section, Some(subsection)), rest))
}

/// What follows a key: nothing, or `=` and a value, which may be quoted and go over several lines.
fn value(text: &[u8]) -> Option<(Option<Vec<u8>>, &[u8])> {
    let text = text.trim_ascii_start_of(b" \t");
    let Some(mut rest) = text.strip_prefix(b"=") else {
        return Some((None, end_of_line(text)?));
    };
    let (mut value, mut quoted) = (Vec::new(), false);
    while let Some((byte, tail)) = rest.split_first() {
        rest = match byte {
            b'\n' if quoted => return None,
            b'\n' => break,
            b'\r' if tail.starts_with(b"\n") && !quoted => break,
            b'#' | b';' if !quoted => {
                rest = after_line(rest);
                break;
            }
            b'"' => {
                quoted = !quoted;
                tail
            }
            b'\\' => {
                let (escaped, tail) = tail.split_first()?;
                match escaped {
                    b'n' => value.push(b'\n'),
                    b't' => value.push(b'\t'),
                    b'b' => value.push(8),
                    b'"' | b'\\' => value.push(*escaped),
                    b'\n' => {}
                    _ => return None,
                }
                tail
            }
            other => {
                value.push(*other);
                tail
            }
        };
    }
    (!quoted).then(|| (Some(value.trim_ascii().to_vec()), rest))
}

trait TrimStart {
    fn trim_ascii_start_of(&self, bytes: &[u8]) -> &Self;
}

impl TrimStart for [u8] {
    fn trim_ascii_start_of(&self, bytes: &[u8]) -> &Self {
        let from = self.iter().take_while(|byte| bytes.contains(byte)).count();
        self.get(from..).unwrap_or_default()
    }
}

/// The longest beginning of such bytes, in lower case, and the rest.
fn word(text: &[u8], is_part: impl Fn(u8) -> bool) -> (String, &[u8]) {
    let length = text.iter().take_while(|byte| is_part(**byte)).count();
    let (word, rest) = text.split_at(length);
    (String::from_utf8_lossy(word).to_ascii_lowercase(), rest)
}

/// What comes after the end of the line, on which there is at most a comment.
fn end_of_line(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_start_of(b" \t");
    match text.first() {
        None | Some(b'\n') => Some(text),
        Some(b'\r') => text.starts_with(b"\r\n").then_some(text),
        Some(b'#' | b';') => Some(after_line(text)),
        Some(_) => None,
    }
}

fn after_line(text: &[u8]) -> &[u8] {
    let length = text.iter().take_while(|byte| **byte != b'\n').count();
    text.get(length..).unwrap_or_default()
}

#[cfg(test)]
mod tests;

//! The settings of tools that name hosts.

use configparser::ini::{Ini, IniDefault};

use super::Parsed;
use super::files::Environment;

/// A text in sections, as Python's configparser and git write them. Keys are as they are written.
fn sections(text: &str, delimiters: &[char], continued: bool) -> Result<Ini, String> {
    let mut defaults = IniDefault::default();
    defaults.case_sensitive = true;
    defaults.multiline = continued;
    defaults.delimiters = delimiters.to_vec();
    // Within a value they are of the value, as in a URL's fragment.
    defaults.enable_inline_comments = false;
    let mut ini = Ini::new_from_defaults(defaults);
    ini.read(text.to_owned())?;
    Ok(ini)
}

/// Every section, key and value, in order.
fn values(ini: &Ini) -> Vec<(String, String, String)> {
    let mut values = Vec::new();
    for (section, keys) in ini.get_map_ref() {
        for (key, value) in keys {
            let value = value.clone().unwrap_or_default();
            values.push((section.clone(), key.clone(), value));
        }
    }
    values.sort();
    values
}

/// pip's `pip.conf`: in any section, for any of its commands.
pub(super) fn pip(text: &str) -> Parsed {
    let ini = match sections(text, &['=', ':'], true) {
        Ok(ini) => ini,
        Err(problem) => return Parsed::problem(problem),
    };
    let mut parsed = Parsed::default();
    for (_, key, value) in values(&ini) {
        // pip takes underscores for hyphens.
        let key = key.to_ascii_lowercase().replace('_', "-");
        if PIP.contains(&key.as_str()) {
            list(&mut parsed, &key, &value);
        }
    }
    parsed
}

/// Those of pip's settings that name hosts.
const PIP: [&str; 3] = ["extra-index-url", "find-links", "index-url"];

/// pip's variables: `PIP_` and a setting.
pub(super) fn pip_variables(environment: &Environment) -> Parsed {
    let mut parsed = Parsed::default();
    for (name, value) in environment.iter() {
        let key = name.strip_prefix("PIP_").unwrap_or_default();
        if PIP.contains(&key.to_ascii_lowercase().replace('_', "-").as_str()) {
            list(&mut parsed, name, value);
        }
    }
    parsed
}

fn list(parsed: &mut Parsed, key: &str, value: &str) {
    for url in value.split_whitespace() {
        parsed.add(key, url);
    }
}

/// npm's `.npmrc`: `registry`, and `@scope:registry`. All other keys, among them those with tokens, are passed over.
pub(super) fn npm(text: &str, environment: &Environment) -> Parsed {
    let ini = match sections(text, &['='], false) {
        Ok(ini) => ini,
        Err(problem) => return Parsed::problem(problem),
    };
    let mut parsed = Parsed::default();
    for (_, key, value) in values(&ini) {
        if !is_registry(&key) {
            continue;
        }
        match expanded(unquoted(&value), environment) {
            Some(url) => parsed.add(key, url),
            None => parsed
                .problems
                .push(format!("{key}: a variable in it is not set")),
        }
    }
    parsed
}

fn is_registry(key: &str) -> bool {
    key == "registry" || key.starts_with('@') && key.ends_with(":registry")
}

/// npm's variables, in any case: `npm_config_` and a setting.
pub(super) fn npm_variables(environment: &Environment) -> Parsed {
    let mut parsed = Parsed::default();
    for (name, value) in environment.iter() {
        let lower = name.to_ascii_lowercase();
        if lower.strip_prefix("npm_config_").is_some_and(is_registry) {
            parsed.add(name, value);
        }
    }
    parsed
}

/// `text` with the variables that are named as `${NAME}`; none, if one is not set.
fn expanded(text: &str, environment: &Environment) -> Option<String> {
    let mut pieces = text.split("${");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once('}')?;
        out.push_str(environment.get(name)?);
        out.push_str(rest);
    }
    Some(out)
}

fn unquoted(text: &str) -> &str {
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    inner.unwrap_or(text)
}

/// cargo's `config.toml`. A source that another one replaces is not asked.
pub(super) fn cargo(text: &str) -> Parsed {
    let table: toml::Table = match toml::from_str(text) {
        Ok(table) => table,
        // Its message could quote a token.
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let before = text.bytes().take(at).filter(|byte| *byte == b'\n').count();
            return Parsed::problem(format!("line {} is no TOML", before + 1));
        }
    };
    let mut parsed = Parsed::default();
    for (list, keys) in [
        ("source", &["registry", "git"][..]),
        ("registries", &["index"]),
    ] {
        let entries = table.get(list).and_then(toml::Value::as_table);
        for (name, entry) in entries.into_iter().flatten() {
            if entry.get("replace-with").is_some() {
                continue;
            }
            for key in keys {
                if let Some(url) = entry.get(key).and_then(toml::Value::as_str) {
                    parsed.add(format!("{list}.{name}.{key}"), url);
                }
            }
        }
    }
    parsed
}

/// cargo's variables: `CARGO_REGISTRIES_NAME_INDEX`.
pub(super) fn cargo_variables(environment: &Environment) -> Parsed {
    let mut parsed = Parsed::default();
    for (name, value) in environment.iter() {
        if name.starts_with("CARGO_REGISTRIES_") && name.ends_with("_INDEX") {
            parsed.add(name, value);
        }
    }
    parsed
}

/// Go's `env` file: `NAME=VALUE`.
pub(super) fn go(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((name, value)) => go_value(&mut parsed, name, value),
            None => parsed
                .problems
                .push(format!("line {number} is no NAME=VALUE")),
        }
    }
    parsed
}

/// Go's variables.
pub(super) fn go_variables(environment: &Environment) -> Parsed {
    let mut parsed = Parsed::default();
    for (name, value) in environment.iter() {
        go_value(&mut parsed, name, value);
    }
    parsed
}

/// A list of proxies, or a database of sums: its name, perhaps its key, and its URL.
fn go_value(parsed: &mut Parsed, name: &str, value: &str) {
    let separators: &[char] = match name {
        "GOPROXY" => &[',', '|'],
        "GOSUMDB" => &[' '],
        _ => return,
    };
    for url in value.split(separators).filter(|url| url.contains("://")) {
        parsed.add(name, url.trim());
    }
}

/// git's `config` and `.gitmodules`: where remotes and submodules are, and what stands for the beginnings of others (`url.BASE.insteadOf`).
pub(super) fn git(text: &str) -> Parsed {
    let ini = match sections(text, &['='], false) {
        Ok(ini) => ini,
        Err(problem) => return Parsed::problem(problem),
    };
    let mut parsed = Parsed::default();
    for (section, key, value) in values(&ini) {
        let key = key.to_ascii_lowercase();
        let base = section
            .strip_prefix("url ")
            .map(|base| unquoted(base.trim()));
        if let Some(base) = base.filter(|_| matches!(key.as_str(), "insteadof" | "pushinsteadof")) {
            parsed.add(format!("url {key}"), base);
            continue;
        }
        let section = section.to_ascii_lowercase();
        let is_place = section.starts_with("remote ") || section.starts_with("submodule ");
        if is_place && matches!(key.as_str(), "url" | "pushurl") {
            // A comment can follow behind a space, which no URL has.
            let value = value.split_whitespace().next().unwrap_or_default();
            parsed.add(format!("{section} {key}"), unquoted(value));
        }
    }
    parsed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::of(
            variables
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        )
    }

    /// Keys and URLs, and problems.
    fn check(parsed: &Parsed, urls: &[(&str, &str)], problems: &[&str]) {
        let found: Vec<_> = parsed
            .urls
            .iter()
            .map(|(key, url)| (&**key, &**url))
            .collect();
        assert_eq!(found, urls);
        assert_eq!(parsed.problems, problems);
    }

    #[test]
    fn pip_has_lists_over_several_lines() {
        let text = "# a comment\n[global]\nindex-url = https://u:secret@a.example/simple#x\nextra_index_url =\n    https://b.example/x\n    \
            http://c.example/x\ntimeout = 60\n; another\n[install]\nfind-links: https://d.example/y ./wheels\ntrusted-host = e.example\n";
        check(
            &pip(text),
            &[
                ("extra-index-url", "https://b.example/x"),
                ("extra-index-url", "http://c.example/x"),
                ("index-url", "https://u:secret@a.example/simple#x"),
                ("find-links", "https://d.example/y"),
                ("find-links", "./wheels"),
            ],
            &[],
        );
        check(&pip(""), &[], &[]);
        let broken = pip("[global\nindex-url = https://secret@a.example/");
        assert!(broken.urls.is_empty() && broken.problems.len() == 1);
        assert!(broken.problems[0].starts_with("line 1: "));
        let variables = environment(&[
            ("PIP_INDEX_URL", "https://a.example/"),
            (
                "PIP_EXTRA_INDEX_URL",
                "https://b.example/ https://c.example/",
            ),
            ("PIP_TIMEOUT", "https://x.example/"),
            ("INDEX_URL", "https://x.example/"),
        ]);
        check(
            &pip_variables(&variables),
            &[
                ("PIP_EXTRA_INDEX_URL", "https://b.example/"),
                ("PIP_EXTRA_INDEX_URL", "https://c.example/"),
                ("PIP_INDEX_URL", "https://a.example/"),
            ],
            &[],
        );
    }

    #[test]
    fn npm_has_registries_and_variables_in_them() {
        let text = "registry=https://a.example/npm/\n@scope:registry = \"https://b.example/\"\n//a.example/npm/:_authToken=secret\n\
            @other:registry=https://${HOST}/${PATH_OF}\n@gone:registry=https://${GONE}/\n@open:registry=https://${HOST\n\
            ; registry=https://x.example/\nalways-auth=true\n";
        let variables = environment(&[("HOST", "c.example"), ("PATH_OF", "p")]);
        check(
            &npm(text, &variables),
            &[
                ("@other:registry", "https://c.example/p"),
                ("@scope:registry", "https://b.example/"),
                ("registry", "https://a.example/npm/"),
            ],
            &[
                "@gone:registry: a variable in it is not set",
                "@open:registry: a variable in it is not set",
            ],
        );
        let variables = environment(&[
            ("NPM_CONFIG_REGISTRY", "https://a.example/"),
            ("npm_config_@scope:registry", "https://b.example/"),
            ("npm_config_cache", "https://x.example/"),
            ("REGISTRY", "https://x.example/"),
        ]);
        check(
            &npm_variables(&variables),
            &[
                ("NPM_CONFIG_REGISTRY", "https://a.example/"),
                ("npm_config_@scope:registry", "https://b.example/"),
            ],
            &[],
        );
    }

    #[test]
    fn cargo_has_sources_and_registries() {
        let text = "[source.first]\nreplace-with = 'mirror'\nregistry = 'https://x.example/'\n[source.mirror]\n\
            registry = 'sparse+https://a.example/index/'\n[source.repo]\ngit = 'https://b.example/r.git'\n[source.here]\n\
            directory = 'vendor'\n[registries]\nours = { index = 'sparse+https://c.example/', token = 'secret' }\n\
            [registries.odd]\nindex = 7\n[net]\nindex = 'https://x.example/'\n";
        check(
            &cargo(text),
            &[
                ("source.mirror.registry", "sparse+https://a.example/index/"),
                ("source.repo.git", "https://b.example/r.git"),
                ("registries.ours.index", "sparse+https://c.example/"),
            ],
            &[],
        );
        check(
            &cargo("a = 1\n[registries.x]\ntoken = secret"),
            &[],
            &["line 3 is no TOML"],
        );
        check(&cargo("source = 1\nregistries = [1]"), &[], &[]);
        let variables = environment(&[
            ("CARGO_REGISTRIES_OURS_INDEX", "sparse+https://a.example/"),
            ("CARGO_REGISTRIES_OURS_TOKEN", "secret"),
            ("CARGO_HOME", "https://x.example/"),
        ]);
        check(
            &cargo_variables(&variables),
            &[("CARGO_REGISTRIES_OURS_INDEX", "sparse+https://a.example/")],
            &[],
        );
    }

    #[test]
    fn go_has_a_list_of_proxies() {
        let text = "# comment\nGOPROXY=https://a.example,https://u:secret@b.example|direct\nGOSUMDB=c.example+key https://c.example\n\
            GOFLAGS=-mod=mod\nGONOPROXY=https://x.example\nbroken\n";
        let urls = [
            ("GOPROXY", "https://a.example"),
            ("GOPROXY", "https://u:secret@b.example"),
            ("GOSUMDB", "https://c.example"),
        ];
        check(&go(text), &urls, &["line 6 is no NAME=VALUE"]);
        let variables = environment(&[("GOPROXY", "off"), ("GOSUMDB", "sum.example")]);
        check(&go_variables(&variables), &[], &[]);
        let variables = environment(&[("GOPROXY", "https://a.example")]);
        check(&go_variables(&variables), &urls[..1], &[]);
    }

    #[test]
    fn git_has_remotes_and_submodules() {
        let text = "[core]\n\tbare = false\n\turl = https://x.example/\n[remote \"origin\"]\n\turl = https://u:secret@a.example/r.git\n\
            \tpushurl = git@b.example:r.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n[Remote \"Up\"]\n\tURL = \"ssh://c.example/r\" ; why\n\
            [url \"https://u:secret@D.example/Git/\"]\n\tinsteadOf = https://x.example/\n\t[url \"y\"]\nother = 1\n[branch \"main\"]\n\tremote = origin\n[submodule \"lib\"]\n\tactive = true\n\turl = ../lib.git\n";
        check(
            &git(text),
            &[
                ("remote \"up\" url", "ssh://c.example/r"),
                ("remote \"origin\" pushurl", "git@b.example:r.git"),
                ("remote \"origin\" url", "https://u:secret@a.example/r.git"),
                ("submodule \"lib\" url", "../lib.git"),
                ("url insteadof", "https://u:secret@D.example/Git/"),
            ],
            &[],
        );
        assert_eq!(git("[remote").problems.len(), 1);
    }

    proptest! {
        /// A repository's files are whatever somebody made them.
        #[test]
        fn whatever_is_read_ends_without_a_panic(text in "\\PC{0,60}|([\\[\\]=:#; \t\n\r\"\\\\a-c\u{fc}]|url|remote|\\$\\{){0,60}") {
            let none = environment(&[]);
            for parsed in [pip(&text), npm(&text, &none), cargo(&text), go(&text), git(&text), super::super::apt::lines(&text), super::super::apt::fields(&text)] {
                prop_assert!(parsed.urls.len() <= text.len());
            }
        }
    }
}

//! From what tools are configured with to rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sandbox::policy::path::PathPattern;
use sandbox::policy::{ABILITIES, Allow, Host, Rule, Scheme, is_public};

use super::super::url::Url;
use super::{Found, Tool};
use crate::print::escaped;

/// Most origins that are told of one rule.
const MOST_ORIGINS: usize = 8;

/// Most characters of where something is that are told. A repository's file may have any names.
const LONGEST_ORIGIN: usize = 300;
/// Most rules. What a repository's file has beyond is no list of remotes.
const MOST_RULES: usize = 1000;

/// Hosts that tools are configured with.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: BTreeMap<(Host, u16, Scheme), Use>,
    problems: Vec<String>,
}

/// What is done at a host.
#[derive(Debug, Default)]
struct Use {
    origins: BTreeSet<String>,
    /// Somebody may send to it.
    is_written: bool,
    /// The folders that are read; none in a set: all.
    folders: BTreeSet<Option<String>>,
}

impl Hosts {
    /// Adds what a file or a variable says.
    pub(super) fn add(&mut self, found: Found) {
        let Found {
            tool,
            origin,
            parsed,
        } = found;
        let origin = format!("{}: {origin}", tool.name());
        let problems = parsed.problems.into_iter();
        self.problems
            .extend(problems.map(|problem| format!("{origin}: {problem}")));
        for (key, text) in parsed.urls {
            let origin = format!("{origin}: {key}");
            let origin: String = origin.chars().take(LONGEST_ORIGIN).collect();
            match place(tool, &text) {
                Ok(None) => {}
                Ok(Some(url)) => self.host(tool, origin, url),
                Err(problem) => self.problems.push(format!("{origin}: {problem}")),
            }
        }
    }

    fn host(&mut self, tool: Tool, origin: String, url: Url) {
        let folder = (tool == Tool::Apt).then(|| folder(&url.path)).flatten();
        let place = (url.host, url.port, url.scheme);
        if self.hosts.len() >= MOST_RULES && !self.hosts.contains_key(&place) {
            self.problems.push(format!(
                "{origin}: there are more than {MOST_RULES} hosts already"
            ));
            return;
        }
        let used = self.hosts.entry(place).or_default();
        used.origins.insert(origin);
        used.is_written |= tool == Tool::Git;
        used.folders.insert(folder);
    }

    /// What could not be understood, with where it is.
    pub(super) fn problems(&self) -> impl Iterator<Item = &str> {
        self.problems.iter().map(String::as_str)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    fn rules(&self) -> impl Iterator<Item = (&Use, Result<Rule, String>)> {
        self.hosts.iter().map(|((host, port, scheme), used)| {
            let is_named = matches!((host, scheme), (Host::Name(_), _) | (_, Scheme::Tcp));
            let allow = used.allow(host, *port, *scheme);
            let rule = match is_named {
                true => Rule::allow(&allow, ABILITIES, is_public).map_err(|it| it.to_string()),
                false => Err("an address has no name that TLS or HTTP could be for".to_owned()),
            };
            (used, rule)
        })
    }
}

impl Use {
    /// What this needs. What is only read over plain HTTP is not written to.
    fn allow(&self, host: &Host, port: u16, scheme: Scheme) -> Allow {
        let is_read = scheme == Scheme::Http && !self.is_written;
        let folders: Option<Vec<String>> = self.folders.iter().cloned().collect();
        Allow {
            host: host.to_string(),
            ports: (Some(port) != scheme.usual_port()).then(|| vec![port]),
            scheme,
            methods: is_read.then(|| vec!["GET".to_owned(), "HEAD".to_owned()]),
            paths: folders.filter(|_| is_read),
            ..Allow::default()
        }
    }
}

/// Where `text` leads over a network, if it does.
fn place(tool: Tool, text: &str) -> Result<Option<Url>, String> {
    let text = text.trim();
    // Read from its file.
    if tool == Tool::Apt && text.starts_with("mirror+file:") {
        return Ok(None);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        // Paths, words such as `direct`, media, and git's short form of ssh.
        return match (tool, ssh(text)) {
            (Tool::Git, Some(place)) => Url::parse(&format!("ssh://{place}")).map(Some),
            _ => Ok(None),
        };
    };
    // How a tool speaks to it is before a plus sign.
    let scheme = scheme.rsplit_once('+').map_or(scheme, |(_, scheme)| scheme);
    if matches!(scheme, "file" | "copy" | "cdrom") {
        return Ok(None);
    }
    Url::parse(&format!("{scheme}://{rest}")).map(Some)
}

/// User and host of `user@host:path` (git-clone(1), GIT URLS).
fn ssh(text: &str) -> Option<&str> {
    let (place, _) = text.split_once(':')?;
    let is_path = place.contains('/') || place.is_empty();
    (!is_path).then_some(place)
}

/// All that is below the path of a source of apt's, as a pattern, if there can be one.
fn folder(path: &str) -> Option<String> {
    let path = path.trim_end_matches('/');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._~+-".contains(c);
    let pattern = format!("{path}/**");
    let is_pattern = !path.is_empty() && path.chars().all(is_plain);
    (is_pattern && PathPattern::parse(&pattern).is_ok()).then_some(pattern)
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# From the settings of this host's tools: take what the guest needs. A server may send its clients on to other hosts, which audit"
        )?;
        writeln!(
            f,
            "# mode and `coffer policy learn` find. Whatever a rule says, no private address is dialled."
        )?;
        for (used, rule) in self.rules() {
            writeln!(f)?;
            for origin in used.origins.iter().take(MOST_ORIGINS) {
                writeln!(f, "# {}", escaped(origin))?;
            }
            match used.origins.len().saturating_sub(MOST_ORIGINS) {
                0 => {}
                more => writeln!(f, "# and {more} more")?,
            }
            match rule {
                Ok(rule) => f.write_str(&rule.to_table())?,
                Err(problem) => writeln!(f, "# no rule: {problem}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sandbox::policy::{Origin, Policy};

    use super::super::Parsed;
    use super::*;

    fn hosts(urls: &[(Tool, &str)]) -> Hosts {
        let mut hosts = Hosts::default();
        for (tool, url) in urls {
            let mut parsed = Parsed::default();
            parsed.add("key", *url);
            let origin = "file".to_owned();
            hosts.add(Found {
                tool: *tool,
                origin,
                parsed,
            });
        }
        hosts
    }

    /// What is written is a policy, of these rules.
    fn rules(hosts: &Hosts) -> Vec<String> {
        let text = hosts.to_string();
        let policy = Policy::parse(text.as_bytes(), Origin::new("p")).unwrap();
        let rule = |allow| {
            Rule::allow(allow, ABILITIES, is_public)
                .unwrap()
                .to_string()
        };
        let rules = policy.allow.iter().map(rule);
        let inner = |rule: String| {
            Some(
                rule.strip_prefix("allow = [{ ")?
                    .strip_suffix(" }]")?
                    .to_owned(),
            )
        };
        rules.filter_map(inner).collect()
    }

    #[test]
    fn each_place_is_a_rule_that_means_as_little_as_it_can() {
        for (tool, url, expected) in [
            (
                Tool::Pip,
                "https://u:secret@a.example/simple",
                "host = \"a.example\"",
            ),
            (
                Tool::Npm,
                "https://a.example:8443/",
                "host = \"a.example\", ports = [8443]",
            ),
            (
                Tool::Cargo,
                "sparse+https://a.example/i/",
                "host = \"a.example\"",
            ),
            (
                Tool::Pip,
                "http://a.example/simple",
                "host = \"a.example\", scheme = \"http\", methods = [\"GET\", \"HEAD\"]",
            ),
            (
                Tool::Apt,
                "http://a.example/debian/",
                "host = \"a.example\", scheme = \"http\", methods = [\"GET\", \"HEAD\"], paths = [\"/debian/**\"]",
            ),
            (
                Tool::Apt,
                "mirror+http://a.example/x%20y",
                "host = \"a.example\", scheme = \"http\", methods = [\"GET\", \"HEAD\"]",
            ),
            (
                Tool::Apt,
                "https://a.example/debian",
                "host = \"a.example\"",
            ),
            (
                Tool::Git,
                "http://a.example/r",
                "host = \"a.example\", scheme = \"http\"",
            ),
            (
                Tool::Git,
                "git@a.example:r.git",
                "host = \"a.example\", scheme = \"tcp\", ports = [22]",
            ),
            (
                Tool::Git,
                "ssh://git@a.example:2222/r",
                "host = \"a.example\", scheme = \"tcp\", ports = [2222]",
            ),
            (
                Tool::Git,
                "git+ssh://a.example/r",
                "host = \"a.example\", scheme = \"tcp\", ports = [22]",
            ),
            (
                Tool::Git,
                "git://a.example/r",
                "host = \"a.example\", scheme = \"tcp\", ports = [9418]",
            ),
            (
                Tool::Git,
                "ssh://8.8.8.8/r",
                "host = \"8.8.8.8\", scheme = \"tcp\", ports = [22]",
            ),
        ] {
            let hosts = hosts(&[(tool, url)]);
            assert_eq!(rules(&hosts), [expected], "{url}");
            assert_eq!(hosts.problems().count(), 0);
            let text = hosts.to_string();
            assert!(
                text.contains(&format!("# {}: file: key\n", tool.name())),
                "{text}"
            );
            assert!(!text.contains("secret"));
        }
    }

    #[test]
    fn what_is_on_this_host_is_no_rule() {
        for (tool, url) in [
            (Tool::Go, "direct"),
            (Tool::Go, "off"),
            (Tool::Pip, "./wheels"),
            (Tool::Pip, "file:///srv/wheels"),
            (Tool::Apt, "cdrom:[Medium"),
            (Tool::Apt, "copy:/srv"),
            (Tool::Apt, "mirror+file:///etc/apt/mirrors.list"),
            (Tool::Git, "/srv/r.git"),
            (Tool::Git, "../r.git"),
            (Tool::Git, "./a:b"),
            (Tool::Npm, ""),
        ] {
            let hosts = hosts(&[(tool, url)]);
            assert!(hosts.is_empty() && hosts.problems().count() == 0, "{url}");
        }
    }

    #[test]
    fn one_host_is_one_rule_for_all_who_use_it() {
        let read = "host = \"a.example\", scheme = \"http\", methods = [\"GET\", \"HEAD\"]";
        let apt = [
            (Tool::Apt, "http://a.example/one"),
            (Tool::Apt, "http://a.example/two"),
        ];
        let both = format!("{read}, paths = [\"/one/**\", \"/two/**\"]");
        assert_eq!(rules(&hosts(&apt)), [both]);
        let all = [apt[0], (Tool::Pip, "http://a.example/three")];
        assert_eq!(rules(&hosts(&all)), [read]);
        let written = [apt[0], (Tool::Git, "http://a.example/r.git")];
        assert_eq!(
            rules(&hosts(&written)),
            ["host = \"a.example\", scheme = \"http\""]
        );
        let schemes = [
            (Tool::Pip, "https://a.example/"),
            (Tool::Git, "a.example:r"),
        ];
        assert_eq!(rules(&hosts(&schemes)).len(), 2);
    }

    #[test]
    fn what_a_file_can_make_of_it_is_bounded() {
        let urls = (0..MOST_RULES + 5).map(|at| format!("https://h{at}.example/"));
        let urls: Vec<String> = urls.collect();
        let urls: Vec<_> = urls.iter().map(|url| (Tool::Git, url.as_str())).collect();
        let mut hosts = hosts(&urls);
        let counts = (rules(&hosts).len(), hosts.problems().count());
        assert_eq!(counts, (MOST_RULES, 5));
        let mut parsed = Parsed::default();
        parsed.add("k".repeat(100_000), "https://h0.example/");
        hosts.add(Found {
            tool: Tool::Git,
            origin: "file".to_owned(),
            parsed,
        });
        let text = hosts.to_string();
        assert!(text.lines().all(|line| line.len() < 2 * LONGEST_ORIGIN));
    }

    #[test]
    fn what_is_not_understood_is_told_without_what_it_says() {
        let mut hosts = hosts(&[
            (Tool::Pip, "https://secret@a.example:x/"),
            (Tool::Npm, "ftp://secret@a.example/"),
            (Tool::Git, "secret@a b:r"),
            (Tool::Go, "https://8.8.8.8/"),
            (Tool::Git, "ssh://10.0.0.1/r"),
        ]);
        hosts.add(Found {
            tool: Tool::Npm,
            origin: "f\u{1b}".into(),
            parsed: Parsed::problem("line 1 is none"),
        });
        let told: Vec<_> = hosts.problems().collect();
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[0].starts_with("pip: file: key: its port"));
        assert!(!told.iter().any(|line| line.contains("secret")), "{told:?}");
        assert!(rules(&hosts).is_empty());
        let text = hosts.to_string();
        for part in [
            "# no rule: an address has no name",
            "# no rule: 10.0.0.1 is not a public address",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let named = Found {
            tool: Tool::Git,
            origin: "x\n[[allow]]\nhost = \"evil.example\"\n\u{202e}".into(),
            parsed: Parsed {
                urls: vec![("k\u{1b}".into(), "https://a.example/".into())],
                problems: Vec::new(),
            },
        };
        hosts.add(named);
        assert_eq!(rules(&hosts), ["host = \"a.example\""]);
        let acts = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!hosts.to_string().contains(acts));
    }
}

//! `coffer policy check`: what the policy says of a URL, and by which rule.

use std::process::ExitCode;

use sandbox::policy::{Decision, Engine, Host, Mode, Reason, Rule, Scheme, Verdict};
use sandbox::{Error, NetworkPolicy};
use serde::Serialize;

use super::options::CheckOptions;
use super::url::Url;
use crate::failure::Failure;
use crate::network::{self, Sources};
use crate::print::{escaped, print};
use crate::run::absolute;

/// Prints the answer; fails if it is no.
pub(crate) fn main(options: &CheckOptions) -> Result<ExitCode, Failure> {
    let url = Url::parse(&options.url)
        .map_err(|problem| Error::Config(format!("the URL cannot be checked: {problem}")))?;
    let workspace = options.workspace.as_deref().map(absolute);
    let policy = network::policy(Sources {
        policy: options.policy.as_deref(),
        allow: &options.allow,
        workspace: workspace.as_deref(),
    })?;
    let engine = policy.clone().unwrap_or_else(NetworkPolicy::new).engine()?;
    let mut answer = Answer::of(&engine, &url, &options.method);
    if policy.is_none() {
        let none = "without --policy or --allow the guest connects to nothing";
        answer.reason = Some(none.to_owned());
    }
    let text = match options.json {
        true => format!("{}\n", serde_json::json!(answer)),
        false => answer.text(),
    };
    print(text.as_bytes())?;
    Ok(match answer.verdict {
        Answered::Deny => ExitCode::FAILURE,
        Answered::Allow | Answered::Audit => ExitCode::SUCCESS,
    })
}

/// What is decided, as it is printed.
#[derive(Debug, Serialize)]
struct Answer {
    /// Scheme, host and port.
    to: String,
    /// Where requests are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<AnsweredRequest>,
    mode: &'static str,
    verdict: Answered,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The rules that decided: the one that denies, or those that allow.
    rules: Vec<AnsweredRule>,
    /// A rule that would allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    /// That rule would have to be in the repository's policy, beside one of the user's that allows it already.
    #[serde(skip_serializing_if = "is_false")]
    missing_in_repository: bool,
    /// What of it nobody looks at.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_judged: Option<&'static str>,
    /// What can be known only when the guest connects.
    open: Vec<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Answered {
    Allow,
    Audit,
    Deny,
}

#[derive(Debug, Serialize)]
struct AnsweredRequest {
    method: String,
    path: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct AnsweredRule {
    from: String,
    rule: String,
}

impl From<&Rule> for AnsweredRule {
    fn from(rule: &Rule) -> Self {
        Self {
            from: rule.place().to_string(),
            rule: rule.to_string(),
        }
    }
}

impl Answer {
    /// As the guest's connection would be decided about: first whether it is looked at, then the connection, then the request.
    fn of(engine: &Engine, url: &Url, method: &str) -> Self {
        let (host, port) = (&url.host, url.port);
        let scheme = match engine.is_carried_unread(host, port) {
            true => Scheme::Tcp,
            false => url.scheme,
        };
        let connection = engine.connection(host, port, scheme);
        let is_read = connection.each_request || scheme == Scheme::Http;
        let request = (is_read && connection.verdict.permits()).then_some((method, &*url.path));
        let decision = match request {
            Some((method, path)) => engine.request(host, port, scheme, method, path),
            None => connection,
        };
        let mut answer = Self {
            to: url.to_string(),
            request: request.map(|(method, path)| AnsweredRequest {
                method: method.to_owned(),
                path: path.to_owned(),
            }),
            mode: match engine.mode() {
                Mode::Audit => "audit",
                _ => "enforce",
            },
            verdict: Answered::Allow,
            reason: None,
            rules: rules(&decision),
            missing: None,
            missing_in_repository: false,
            not_judged: not_judged(scheme, is_read),
            open: open(host, scheme, &decision),
        };
        answer.judge(&decision);
        let missing = |scheme| {
            // A rule can say as much as is read; of some paths none can.
            let asked = (scheme == Scheme::Http).then_some((method, &*url.path));
            let narrow = asked.and_then(|asked| engine.suggestion(host, port, scheme, Some(asked)));
            narrow.or_else(|| engine.suggestion(host, port, scheme, request))
        };
        if matches!(
            (host, scheme),
            (Host::Address(_), Scheme::Https | Scheme::Http)
        ) {
            answer.verdict = Answered::Deny;
            answer.reason = Some(WITHOUT_NAME.to_owned());
            answer.missing = missing(Scheme::Tcp).map(|rule| rule.to_string());
        } else if answer.verdict != Answered::Allow {
            answer.missing = missing(scheme).map(|rule| rule.to_string());
        }
        if answer.verdict == Answered::Deny {
            answer.open.clear();
            answer.not_judged = None;
        }
        answer
    }

    fn judge(&mut self, decision: &Decision<'_>) {
        let (verdict, reason) = match decision.verdict {
            Verdict::Allow => (Answered::Allow, None),
            Verdict::Audited(reason) => (Answered::Audit, Some(reason)),
            Verdict::Deny(reason) => (Answered::Deny, Some(reason)),
            // What it does not know it does not let through.
            _ => (Answered::Deny, Some(Reason::Host)),
        };
        self.verdict = verdict;
        self.missing_in_repository = reason == Some(Reason::Repository);
        self.reason = reason.map(|reason| reason.to_string());
    }

    fn text(&self) -> String {
        let verdict = match self.verdict {
            Answered::Allow => "allowed",
            Answered::Audit => "let through by audit mode, otherwise denied",
            Answered::Deny => "denied",
        };
        let request = self.request.as_ref();
        let request = request.map(|it| format!(" {} {}", escaped(&it.method), escaped(&it.path)));
        let mut lines = vec![format!(
            "{}{}: {verdict}",
            self.to,
            request.unwrap_or_default()
        )];
        lines.extend(self.reason.iter().map(|reason| format!("  why: {reason}")));
        for AnsweredRule { from, rule } in &self.rules {
            lines.push(format!("  rule: {from}: {rule}"));
        }
        let place = match self.missing_in_repository {
            true => ", in the repository's policy",
            false => "",
        };
        match (&self.missing, self.verdict) {
            (Some(rule), _) => lines.push(format!("  to allow it{place}: {rule}")),
            (None, Answered::Deny) if !self.rules.is_empty() => {
                lines.push(
                    "  to allow it: change that rule; none that is added beats it".to_owned(),
                );
            }
            (None, Answered::Deny) => lines.push("  to allow it: no rule can be added".to_owned()),
            (None, _) => {}
        }
        let unread = self.not_judged.iter();
        lines.extend(unread.map(|what| format!("  not judged: {what}")));
        lines.extend(
            self.open
                .iter()
                .map(|open| format!("  not known yet: {open}")),
        );
        lines.join("\n") + "\n"
    }
}

/// TLS and HTTP are let through by the names in them.
const WITHOUT_NAME: &str = "an address has no name that TLS or HTTP could be for; only a rule with scheme = \"tcp\" reaches it";

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

/// What is let through without a look at it.
fn not_judged(scheme: Scheme, is_read: bool) -> Option<&'static str> {
    match scheme {
        Scheme::Tcp => Some("whatever is said there: a rule of tcp lets anything through unread"),
        Scheme::Https if !is_read => Some("method and path: TLS is passed through unread"),
        _ => None,
    }
}

fn rules(decision: &Decision<'_>) -> Vec<AnsweredRule> {
    let rules = [decision.rule, decision.narrow];
    rules
        .into_iter()
        .flatten()
        .map(AnsweredRule::from)
        .collect()
}

/// What of a connection that is let through is decided when it is there.
fn open(host: &Host, scheme: Scheme, decision: &Decision<'_>) -> Vec<&'static str> {
    let mut open = Vec::new();
    match (decision.service, host) {
        (Some(_), _) => open.push("whether the service listens on this host"),
        (None, Host::Name(_)) => open.push(
            "whether the name has a public address that is not of this host's networks; no other is dialled",
        ),
        (None, Host::Address(_)) => open.push("whether the address is of this host's networks"),
    }
    match scheme {
        Scheme::Https if decision.passthrough => {
            open.push("whether the TLS is for this name, as far as it says one in clear");
        }
        Scheme::Https => open.push("whether the TLS is for this name and hides no other (ECH)"),
        Scheme::Http => open.push("whether a header names another host, method or path"),
        _ => {}
    }
    if decision.quota != sandbox::policy::Quota::default() {
        open.push("how much of the quota is used");
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(layers: [&str; 3], url: &str, method: &str) -> Answer {
        let [global, sandbox, repository] = layers;
        let policy = NetworkPolicy::new()
            .global("global", global)
            .sandbox("own", sandbox)
            .repository("repository", repository);
        Answer::of(&policy.engine().unwrap(), &Url::parse(url).unwrap(), method)
    }

    const OWN: &str = "[[allow]]\nhost = 'a.example'\n[[allow]]\nhost = 'a.example'\nscheme = 'http'\nmethods = ['GET']\n\
        paths = ['/x/**']\n[[allow]]\nhost = '*.b.example'\nquota = { connections = 1 }\n[[deny]]\nhost = 'evil.b.example'\n\
        [[allow]]\nhost = 'git.example'\nscheme = 'tcp'\nports = [22, 8443]\n[[allow]]\nhost = '8.8.8.8'\n\
        [[service]]\nname = 'db.host'\naddress = '127.0.0.1:5432'\n";

    #[test]
    fn the_answer_is_the_engines_with_its_rule() {
        use Answered::{Allow, Deny};
        let table: &[(&str, &str, Answered, &str, &str)] = &[
            ("https://a.example/any", "GET", Allow, "own:1", ""),
            ("https://a.example:8443/", "GET", Deny, "", "ports = [8443]"),
            ("http://a.example/x/y", "GET", Allow, "own:3", ""),
            ("http://a.example/x/y?q=1", "GET", Allow, "own:3", ""),
            (
                "http://a.example/x/y",
                "POST",
                Deny,
                "",
                "methods = [\"POST\"]",
            ),
            ("http://a.example/z", "GET", Deny, "", "paths = [\"/z\"]"),
            ("http://a.example/x/../z", "GET", Deny, "", ""),
            (
                "http://c.example/z",
                "GET",
                Deny,
                "",
                "scheme = \"http\", methods = [\"GET\"], paths = [\"/z\"] }",
            ),
            // No rule about paths can be about this one.
            (
                "http://c.example/z;y",
                "GET",
                Deny,
                "",
                "host = \"c.example\", scheme = \"http\" }",
            ),
            ("https://x.b.example", "GET", Allow, "own:8", ""),
            ("https://b.example", "GET", Deny, "", "host = \"b.example\""),
            ("https://evil.b.example", "GET", Deny, "own:11", ""),
            ("ssh://git@git.example/x", "GET", Allow, "own:13", ""),
            ("tcp://git.example:23", "GET", Deny, "", "ports = [23]"),
            // Carried unread, whatever is spoken.
            ("https://git.example:8443/", "GET", Allow, "own:13", ""),
            (
                "https://8.8.8.8/",
                "GET",
                Deny,
                "own:17",
                "scheme = \"tcp\", ports = [443]",
            ),
            ("https://127.0.0.1/", "GET", Deny, "", ""),
            ("tcp://10.0.0.1:22", "GET", Deny, "", ""),
            ("tcp://db.host:5432", "GET", Allow, "own:19", ""),
            ("tcp://db.host:5433", "GET", Deny, "", ""),
        ];
        for (url, method, verdict, from, missing) in table {
            let answer = answer(["", OWN, ""], url, method);
            assert_eq!(answer.verdict, *verdict, "{answer:?}");
            let first = answer.rules.first().map_or("", |rule| &rule.from);
            assert_eq!(first, *from, "{answer:?}");
            let told = answer.missing.as_deref().unwrap_or_default();
            assert!(told.contains(missing), "{answer:?}");
            assert_eq!(told.is_empty(), missing.is_empty(), "{answer:?}");
            assert_eq!(answer.open.is_empty(), *verdict == Deny, "{answer:?}");
        }
    }

    #[test]
    fn all_layers_count() {
        let (audit, allow) = ("mode = 'audit'\n", "[[allow]]\nhost = 'a.example'\n");
        let deny = "[[deny]]\nhost = 'a.example'\n";
        let narrow = "[[allow]]\nhost = 'b.example'\n";
        for (layers, verdict, rules) in [
            (["", "", ""], Answered::Deny, &[][..]),
            ([allow, "", ""], Answered::Allow, &["global:1"]),
            ([deny, allow, ""], Answered::Deny, &["global:1"]),
            ([allow, "", deny], Answered::Deny, &["repository:1"]),
            ([allow, "", narrow], Answered::Deny, &[]),
            (
                ["", allow, allow],
                Answered::Allow,
                &["own:1", "repository:1"],
            ),
            (["", audit, ""], Answered::Audit, &[]),
            ([deny, audit, ""], Answered::Deny, &["global:1"]),
            ([audit, "mode = 'enforce'", ""], Answered::Deny, &[]),
        ] {
            let answer = answer(layers, "https://a.example/", "GET");
            assert_eq!(answer.verdict, verdict, "{answer:?}");
            let from: Vec<_> = answer.rules.iter().map(|rule| &*rule.from).collect();
            assert_eq!(from, rules, "{answer:?}");
            let is_narrow = answer.missing_in_repository;
            assert_eq!(is_narrow, layers[2] == narrow, "{answer:?}");
            assert_eq!(
                is_narrow,
                answer.text().contains("in the repository's policy: allow")
            );
        }
    }

    #[test]
    fn the_answer_is_told_to_people_and_to_programs() {
        let fixed = answer(["", OWN, ""], "https://evil.b.example/", "GET").text();
        assert!(fixed.contains("to allow it: change that rule"), "{fixed}");
        let none = answer(["", OWN, ""], "tcp://10.0.0.1:22", "GET").text();
        assert!(none.contains("to allow it: no rule can be added"), "{none}");
        let denied = answer(["", OWN, ""], "http://a.example/z", "P\u{1b}");
        let text = denied.text();
        assert!(
            !text.contains('\u{1b}') && text.contains("denied\n  why: "),
            "{text}"
        );
        let allowed = answer(["", OWN, ""], "https://x.b.example", "GET");
        assert_eq!(
            allowed.text(),
            "https://x.b.example:443: allowed\n  \
             rule: own:8: allow = [{ host = \"*.b.example\", quota = { connections = 1 } }]\n  \
             not judged: method and path: TLS is passed through unread\n  \
             not known yet: whether the name has a public address that is not of this host's networks; no other is dialled\n  \
             not known yet: whether the TLS is for this name and hides no other (ECH)\n  \
             not known yet: how much of the quota is used\n"
        );
        let json = serde_json::json!(answer(["", OWN, ""], "http://a.example/z", "GET"));
        for (key, value) in [
            ("to", serde_json::json!("http://a.example:80")),
            (
                "request",
                serde_json::json!({ "method": "GET", "path": "/z" }),
            ),
            ("mode", serde_json::json!("enforce")),
            ("verdict", serde_json::json!("deny")),
            (
                "reason",
                serde_json::json!("no rule allows this method and path"),
            ),
            ("rules", serde_json::json!([])),
        ] {
            assert_eq!(json[key], value, "{json}");
        }
    }
}

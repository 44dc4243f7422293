//! What a person could add to allow what was denied.

use super::conflict;
use super::decision::{Question, Reason, Request, Verdict};
use super::document::{LARGEST_PATTERN, Quota, Scheme};
use super::engine::Engine;
use super::error::{Origin, Place};
use super::host::{Host, HostPattern, is_public, is_public_name};
use super::path::PathPattern;
use super::rule::{Action, Ports, Rule, Schemes};

impl Engine {
    /// The narrowest rule that would allow what is denied or only audited for want of a rule; `request` is method and path, if it was
    /// a request.
    ///
    /// None if it is allowed; if no rule could allow it, because a deny rule matches, the address or name is not public, the name is a
    /// service's or the request is not in a clear form; and if the rule would let through unread what other rules judge by its requests. Where the
    /// reason is [`Reason::Repository`], the rule belongs in the repository's policy.
    #[must_use]
    pub fn suggestion(
        &self,
        host: &Host,
        port: u16,
        scheme: Scheme,
        request: Option<(&str, &str)>,
    ) -> Option<Rule> {
        let question = Question {
            port,
            scheme,
            request: request.map(|(method, target)| Request::new(method, target)),
        };
        let reason = match self.decide(host, &question).verdict {
            Verdict::Allow => return None,
            Verdict::Audited(reason) | Verdict::Deny(reason) => reason,
        };
        if port == 0 || reason == Reason::DenyRule || self.is_service(host) {
            return None;
        }
        let rule = self.rule_for(host, &question)?;
        (!self.conflicts_with(&rule)).then_some(rule)
    }

    /// The same policy with a rule that [`Self::suggestion`] gave and a person allowed. None: rules that have come since do not go with it.
    #[must_use]
    pub fn allowing(&self, rule: &Rule) -> Option<Self> {
        if conflict::would_conflict(&self.index, rule, self.abilities) {
            return None;
        }
        let mut rule = rule.clone();
        rule.place.origin = Origin::new("a person's answer");
        let mut engine = self.clone();
        engine.index.add(rule).ok()?;
        Some(engine)
    }

    fn rule_for(&self, host: &Host, question: &Question<'_>) -> Option<Rule> {
        let (methods, paths) = match &question.request {
            Some(request) if self.reads(question.scheme) => {
                let (method, path) = conditions(request)?;
                (Some([method].into()), Some([path].into()))
            }
            _ => (None, None),
        };
        Some(Rule {
            place: Place {
                origin: Origin::new("suggestion"),
                line: None,
            },
            action: Action::Allow { passthrough: false },
            host: self.exactly(host)?,
            force: false,
            ports: Ports::Only([question.port].into()),
            schemes: Schemes::only(question.scheme),
            methods,
            paths,
            quota: Quota::default(),
        })
    }

    /// Whether adding `rule`, which would be one more of the user's allow rules, is a mistake: rules about requests could not be enforced any more.
    pub(crate) fn conflicts_with(&self, rule: &Rule) -> bool {
        conflict::would_conflict(&self.index, rule, self.abilities)
    }

    /// Whether requests with this scheme are read.
    pub(crate) fn reads(&self, scheme: Scheme) -> bool {
        match scheme {
            Scheme::Https => self.abilities.intercepts_tls,
            Scheme::Http => true,
            Scheme::Tcp => false,
        }
    }

    fn exactly(&self, host: &Host) -> Option<HostPattern> {
        match host {
            Host::Name(name) => is_public_name(name).then(|| HostPattern::Exact(name.clone())),
            Host::Address(address) => is_public(self.is_public, *address)
                .then(|| HostPattern::Address(address.to_canonical())),
        }
    }
}

/// The request's method and path as a rule has them, if it can have them literally.
fn conditions(request: &Request<'_>) -> Option<(Box<str>, PathPattern)> {
    let path = request.path().ok()?.to_string();
    let is_literal = path.len() <= LARGEST_PATTERN && !path.contains('*');
    let pattern = is_literal.then(|| PathPattern::parse(&path).ok())??;
    let method = request.method_is_clear().then(|| request.method.into())?;
    Some((method, pattern))
}

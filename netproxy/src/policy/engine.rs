//! The compiled policy.

use super::check::{Checker, Layer};
use super::decision::{Decision, Question, Reason, Request, Verdict};
use super::document::{Mode, Quota, Scheme};
use super::error::PolicyError;
use super::host::{Host, is_public, is_public_name};
use super::index::{Group, Index};
use super::rule::{Action, Match, Ports, Rule, Schemes};
use super::{Abilities, IsPublic, Layers, conflict};
use crate::HostName;

/// All that applies to one sandbox, compiled. It never changes; another policy is another engine.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) index: Index,
    pub(super) abilities: Abilities,
    pub(super) is_public: IsPublic,
    mode: Mode,
    /// The repository has allow rules, so that one of them must match.
    narrows: bool,
}

impl Engine {
    /// Checks and compiles `layers`. `is_public` says which addresses a policy may name, and to which audit mode may connect.
    ///
    /// # Errors
    ///
    /// Says which rule of which layer, at which line, is not valid or could not be enforced. Then there is no policy to go on with.
    pub fn compile(
        layers: &Layers,
        abilities: Abilities,
        is_public: IsPublic,
    ) -> Result<Self, PolicyError> {
        let checker = Checker {
            abilities,
            is_public,
        };
        let mut index = Index::default();
        // The sandbox's rules come before the global ones for the same host.
        for policy in [&layers.sandbox, &layers.global].into_iter().flatten() {
            for rule in checker.rules(policy, Layer::User)? {
                index.add(rule)?;
            }
        }
        let narrows = match &layers.repository {
            Some(policy) => add_repository(&mut index, checker.rules(policy, Layer::Repository)?)?,
            None => false,
        };
        conflict::check(&index, abilities)?;
        Ok(Self {
            index,
            abilities,
            is_public,
            mode: mode(layers),
            narrows,
        })
    }

    /// What becomes of what no rule mentions.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// What is decided about a connection before any of its content. `scheme` is what the connection turned out to be; for one that is
    /// to be carried unread it is [`Scheme::Tcp`]: whether it is to be is asked first, because then nothing needs to be looked at.
    #[must_use]
    pub fn connection(&self, host: &Host, port: u16, scheme: Scheme) -> Decision<'_> {
        self.decide(
            host,
            &Question {
                port,
                scheme,
                request: None,
            },
        )
    }

    /// What is decided about one request of a connection. `target` is its path, with or without a query. A denial is about this
    /// request only. Whether headers replace the method (as `X-HTTP-Method-Override` does for some servers) is not seen here: who reads requests asks
    /// for each reading.
    #[must_use]
    pub fn request(
        &self,
        host: &Host,
        port: u16,
        scheme: Scheme,
        method: &str,
        target: &str,
    ) -> Decision<'_> {
        self.decide(
            host,
            &Question {
                port,
                scheme,
                request: Some(Request::new(method, target)),
            },
        )
    }

    /// The schemes that a connection to this port could be permitted with: none means that it can be refused before its first byte.
    #[must_use]
    pub fn schemes(&self, host: &Host, port: u16) -> Schemes {
        let permitted = |scheme: &Scheme| self.connection(host, port, *scheme).verdict.permits();
        let permitted = Scheme::ALL.into_iter().filter(permitted);
        permitted.fold(Schemes::default(), Schemes::and)
    }

    /// Whether a rule says that what goes to this port is carried unread, whatever is spoken there: then nothing of it is looked at, and the
    /// connection is one of [`Scheme::Tcp`]. Without a rule, audit mode looks first.
    #[must_use]
    pub fn is_carried_unread(&self, host: &Host, port: u16) -> bool {
        self.connection(host, port, Scheme::Tcp).verdict == Verdict::Allow
    }

    /// Whether some connection to `name` could be permitted, so that it makes sense to answer for it. In audit mode a name counts as denied
    /// only if it is denied on all ports at once.
    #[must_use]
    pub fn may_resolve(&self, name: &HostName) -> bool {
        let host = Host::Name(name.clone());
        let is_audited = self.mode == Mode::Audit && is_public_name(name);
        if is_audited && !self.is_service(&host) {
            return self.denied_on_all_ports(&host) != Schemes::ALL;
        }
        let mut allows = self.index.groups(&host).flat_map(|group| &group.allow);
        allows.any(|rule| self.permits_some(rule, &host))
    }

    /// Whether something of what `rule` allows to `host` is permitted.
    fn permits_some(&self, rule: &Rule, host: &Host) -> bool {
        let Ports::Only(ports) = &rule.ports else {
            return false;
        };
        let permits = |port: &u16| {
            let possible = |scheme: Scheme| self.connection(host, *port, scheme).verdict.permits();
            let schemes = Scheme::ALL.into_iter();
            schemes
                .filter(|scheme| rule.schemes.contains(*scheme))
                .any(possible)
        };
        ports.iter().any(permits)
    }

    fn denied_on_all_ports(&self, host: &Host) -> Schemes {
        let denies = self.index.groups(host).flat_map(|group| &group.deny);
        let on_all_ports = denies.filter(|rule| rule.ports == Ports::All);
        on_all_ports.fold(Schemes::default(), |denied, rule| {
            // As in `Rule::matches`: what nobody reads is denied by either.
            let denied = denied.and(Scheme::Tcp);
            match rule.judges_requests() {
                true => denied,
                false => denied.or(rule.schemes),
            }
        })
    }

    /// The rules with a quota; true for those of the repository.
    pub(crate) fn limited(&self) -> impl Iterator<Item = (bool, &Rule)> {
        let rules = self.index.all().flat_map(|group| {
            let allow = group.allow.iter().map(|rule| (false, rule));
            allow.chain(group.narrow.iter().map(|rule| (true, rule)))
        });
        rules.filter(|(_, rule)| rule.quota != Quota::default())
    }

    /// Whether the repository's policy leaves this out, whatever the user's says of it.
    pub(crate) fn is_left_out(&self, host: &Host, port: u16, scheme: Scheme) -> bool {
        let question = Question {
            port,
            scheme,
            request: None,
        };
        let mut narrow = Side::default();
        for group in self.index.groups(host) {
            narrow.look(&group.narrow, &question);
        }
        self.narrows && narrow.found.is_none()
    }

    pub(crate) fn is_service(&self, host: &Host) -> bool {
        self.index.groups(host).any(Group::is_service)
    }

    pub(super) fn decide<'a>(&'a self, host: &Host, question: &Question<'_>) -> Decision<'a> {
        let mut search = Search::default();
        for group in self.index.groups(host) {
            for rule in &group.deny {
                if let Some(reason) = search.deny(rule.matches(question)) {
                    return Decision::deny(reason, Some(rule));
                }
            }
            // A wildcard does not allow what is below it under a service's name: that is never resolved.
            if !search.is_service {
                search.allow.look(&group.allow, question);
                search.is_service = group.is_service();
            }
            search.narrow.look(&group.narrow, question);
        }
        self.conclude(host, question, &search)
    }

    /// What follows, as nothing denies it.
    fn conclude<'a>(
        &'a self,
        host: &Host,
        question: &Question<'_>,
        search: &Search<'a>,
    ) -> Decision<'a> {
        let (allow, narrow) = (search.allow.found, search.narrow.found);
        let missing = match (allow, narrow) {
            (None, _) => Some(Reason::not_allowed(search.allow.nearest)),
            (Some(_), None) if self.narrows => Some(Reason::Repository),
            (Some(_), _) => None,
        };
        let verdict = missing.map_or(Verdict::Allow, |reason| {
            self.missing(host, question, search, reason)
        });
        if let Verdict::Deny(reason) = verdict {
            return Decision::deny(reason, None);
        }
        let matched = [allow, narrow].into_iter().flatten();
        let quota = matched.fold(Quota::default(), |quota, rule| quota.and(rule.quota));
        Decision {
            each_request: search.some_requests(),
            narrow,
            ..Decision::new(verdict, allow, quota)
        }
    }

    /// The verdict on what would need a rule and has none.
    fn missing(
        &self,
        host: &Host,
        question: &Question<'_>,
        search: &Search<'_>,
        reason: Reason,
    ) -> Verdict {
        // There is nothing to be let through to: the name is not resolved, and no service is there.
        let is_no_service = search.is_service && search.allow.found.is_none();
        if self.mode == Mode::Enforce || is_no_service {
            return Verdict::Deny(reason);
        }
        let is_public = match host {
            Host::Name(name) => search.is_service || is_public_name(name),
            Host::Address(address) => is_public(self.is_public, *address),
        };
        match is_public {
            true if is_audited(host, question) => Verdict::Audited(reason),
            true => Verdict::Deny(reason),
            false => Verdict::Deny(Reason::NotPublic),
        }
    }
}

/// Whether audit mode is about connections like this. On the ports of the web it lets through what can be known to be for its name, and nothing
/// unread; an address has no name, so elsewhere it is for bytes that nobody reads only.
fn is_audited(host: &Host, question: &Question<'_>) -> bool {
    let usual = Scheme::ALL.into_iter().filter_map(Scheme::usual_port);
    let is_web = usual.into_iter().any(|port| port == question.port);
    match (question.scheme, host) {
        (Scheme::Tcp, _) => !is_web,
        (_, Host::Name(_)) => true,
        (_, Host::Address(_)) => false,
    }
}

/// The rules found on the way from the host to the names above it.
#[derive(Default)]
struct Search<'a> {
    allow: Side<'a>,
    narrow: Side<'a>,
    is_service: bool,
    some_requests_denied: bool,
}

/// The first rule of its kind that matches.
#[derive(Default)]
struct Side<'a> {
    found: Option<&'a Rule>,
    some_requests: bool,
    /// How far those matched that did not.
    nearest: Option<Match>,
}

impl Search<'_> {
    /// The reason for a denial, if a deny rule matches like this.
    fn deny(&mut self, matched: Match) -> Option<Reason> {
        match matched {
            Match::Full => Some(Reason::DenyRule),
            // In one of its readings it would be denied.
            Match::AmbiguousPath(error) => Some(Reason::AmbiguousPath(error)),
            Match::AmbiguousMethod => Some(Reason::AmbiguousMethod),
            Match::SomeRequests => {
                self.some_requests_denied = true;
                None
            }
            Match::OtherPort | Match::OtherScheme | Match::OtherRequest => None,
        }
    }

    fn some_requests(&self) -> bool {
        self.some_requests_denied || self.allow.some_requests || self.narrow.some_requests
    }
}

impl<'a> Side<'a> {
    fn look(&mut self, rules: &'a [Rule], question: &Question<'_>) {
        for rule in rules {
            if self.found.is_some() {
                return;
            }
            let matched = rule.matches(question);
            if matched >= Match::SomeRequests {
                self.found = Some(rule);
                self.some_requests = matched == Match::SomeRequests;
            } else {
                self.nearest = self.nearest.max(Some(matched));
            }
        }
    }
}

/// Adds the repository's rules, and says whether it has allow rules.
fn add_repository(index: &mut Index, rules: Vec<Rule>) -> Result<bool, PolicyError> {
    let mut narrows = false;
    for rule in rules {
        if rule.action == Action::Deny {
            index.add(rule)?;
        } else {
            index.add_narrow(rule);
            narrows = true;
        }
    }
    Ok(narrows)
}

/// Audit if one of the user's layers says so and none says otherwise: who wrote `enforce` anywhere is not overruled. The repository cannot ask
/// for audit, which the check of its layer refuses.
fn mode(layers: &Layers) -> Mode {
    let layers = [&layers.global, &layers.sandbox, &layers.repository];
    let said = || {
        layers
            .into_iter()
            .flatten()
            .filter_map(|policy| policy.mode)
    };
    match said().any(|mode| mode == Mode::Enforce) {
        true => Mode::Enforce,
        false => said().next().unwrap_or_default(),
    }
}

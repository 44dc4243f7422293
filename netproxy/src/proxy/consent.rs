//! Connections about which a person is asked, because no rule allows them and one could.
//!
//! The guest's attempt waits meanwhile, neither accepted nor refused. Several attempts at one destination are one question. Asked is about
//! connections only: a rule that denies, the repository's policy and what is not public stay what they are, and requests of HTTP are judged by rules.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Destination, Proxy, Target, Why};
use crate::dial::Resolver;
use crate::name::HostName;
use crate::policy::{Engine, Host, Reason, Rule, Scheme, Verdict};

/// Most questions that wait for an answer; what comes beyond them is denied.
pub const MAX_QUESTIONS: usize = 32;
/// Most destinations of which it is remembered that the answer was no.
const MAX_REFUSED: usize = 1024;
/// How long a person may take. Guests give up after about as long.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a person says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consent {
    /// No; it is not asked again before there is another policy.
    No,
    /// Yes, for the connections that wait.
    Once,
    /// Yes, by the rule from now on.
    Always,
}

/// A connection that no rule allows.
#[derive(Debug)]
pub struct Question {
    /// Whom it is to.
    pub destination: Destination,
    /// Why it would be denied.
    pub reason: Reason,
    /// The rule that would allow it.
    pub rule: Rule,
}

/// An answer that is to come.
pub type Asking = Pin<Box<dyn Future<Output = Consent>>>;

/// Knows a person to ask.
pub trait Prompt {
    /// Asks. What is dropped is not waited for any more.
    fn ask(&self, question: Question) -> Asking;
}

/// Whom a question is about, and the rule that it shows.
type Subject = (Destination, String);

/// What was asked and said.
#[derive(Default)]
pub(super) struct Consents {
    prompt: RefCell<Option<Rc<dyn Prompt>>>,
    asking: RefCell<HashMap<Subject, watch::Receiver<Option<Consent>>>>,
    refused: RefCell<HashSet<Subject>>,
    granted: RefCell<Vec<Rule>>,
}

impl Consents {
    /// The policy with what was granted, as far as that goes with it. What was refused is asked again.
    pub(super) fn over(&self, engine: Engine) -> Engine {
        self.refused.borrow_mut().clear();
        let granted = self.granted.borrow();
        granted.iter().fold(engine, |engine, rule| {
            engine.allowing(rule).unwrap_or(engine)
        })
    }

    pub(super) const fn is_asked(&self, reason: Reason) -> bool {
        matches!(reason, Reason::Host | Reason::Port | Reason::Scheme)
    }

    fn grant(&self, rule: &Rule) {
        let mut granted = self.granted.borrow_mut();
        if !granted.contains(rule) {
            granted.push(rule.clone());
        }
    }

    /// Asks, unless that is known or being asked already.
    async fn ask(&self, prompt: Rc<dyn Prompt>, question: Question) -> Consent {
        // Also of what: another scheme is another rule than the one that is shown.
        let subject = (question.destination.clone(), question.rule.to_string());
        if self.refused.borrow().contains(&subject) {
            return Consent::No;
        }
        let asking = self.asking.borrow().get(&subject).cloned();
        if let Some(mut answer) = asking {
            let answer = answer.wait_for(Option::is_some).await;
            // Who asked has gone without an answer.
            return answer.map_or(Consent::No, |answer| answer.unwrap_or(Consent::No));
        }
        if self.asking.borrow().len() >= MAX_QUESTIONS {
            return Consent::No;
        }
        let (tell, told) = watch::channel(None);
        self.asking.borrow_mut().insert(subject.clone(), told);
        let _asked = Asked(self, &subject);
        let Ok(consent) = timeout(PATIENCE, prompt.ask(question)).await else {
            return Consent::No;
        };
        let mut refused = self.refused.borrow_mut();
        if consent == Consent::No && refused.len() < MAX_REFUSED {
            refused.insert(subject.clone());
        }
        tell.send_replace(Some(consent));
        consent
    }
}

/// A question that waits for its answer.
struct Asked<'c>(&'c Consents, &'c Subject);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.asking.borrow_mut().remove(self.1);
    }
}

impl<R: Resolver + 'static> Proxy<R> {
    /// Asks about connections from now on, or about none.
    pub fn ask(&self, prompt: Option<Rc<dyn Prompt>>) {
        self.consents.prompt.replace(prompt);
    }

    /// Whether a person can be asked about some connection to `name`, so that it makes sense to answer for it.
    pub(super) fn may_ask(&self, engine: &Engine, name: &HostName) -> bool {
        if self.consents.prompt.borrow().is_none() {
            return false;
        }
        let host = Host::from(name.clone());
        let verdict = engine.connection(&host, 443, Scheme::Https).verdict;
        matches!(verdict, Verdict::Deny(reason) if self.consents.is_asked(reason))
            && !engine.is_left_out(&host, 443, Scheme::Https)
            && engine.suggestion(&host, 443, Scheme::Https, None).is_some()
    }

    /// Lets a person allow what no rule does.
    ///
    /// # Errors
    ///
    /// It stays denied.
    pub(super) async fn consent(&self, target: &Target) -> Result<(), Why> {
        let scheme = target.usual_scheme();
        let reason = self.reason(target, scheme);
        let denied = Err(Why::Policy(reason));
        let prompt = self.consents.prompt.borrow().clone();
        let Some(prompt) = prompt.filter(|_| self.consents.is_asked(reason)) else {
            return denied;
        };
        let engine = self.engine();
        let (host, port) = (&target.host, target.port);
        let rule = engine.suggestion(host, port, scheme, None);
        let Some(rule) = rule.filter(|_| !engine.is_left_out(host, port, scheme)) else {
            return denied;
        };
        let question = Question {
            destination: target.destination(),
            reason,
            rule: rule.clone(),
        };
        let consent = tokio::select! {
            biased;
            () = self.until(target, |engine| !engine.schemes(&target.host, target.port).is_empty()) => {
                return Ok(());
            }
            consent = self.consents.ask(prompt, question) => consent,
        };
        match consent {
            Consent::No => return denied,
            Consent::Once => target.allow_once(rule),
            Consent::Always => self.grant(&rule),
        }
        match self
            .rules(target)
            .schemes(&target.host, target.port)
            .is_empty()
        {
            true => denied,
            false => Ok(()),
        }
    }

    fn grant(&self, rule: &Rule) {
        self.consents.grant(rule);
        let engine = self.engine();
        if let Some(engine) = engine.allowing(rule) {
            self.engine.send_replace(Rc::new(engine));
        }
    }
}

/// A rule that holds for one connection.
pub(super) struct OneTime {
    rule: Rule,
    /// The policy, and the same with the rule.
    known: RefCell<Option<(Rc<Engine>, Rc<Engine>)>>,
}

impl OneTime {
    pub(super) const fn new(rule: Rule) -> Self {
        Self {
            rule,
            known: RefCell::new(None),
        }
    }

    /// The policy with the rule.
    pub(super) fn over(&self, engine: Rc<Engine>) -> Rc<Engine> {
        let mut known = self.known.borrow_mut();
        if let Some((of, with)) = &*known
            && Rc::ptr_eq(of, &engine)
        {
            return Rc::clone(with);
        }
        let with = engine.allowing(&self.rule);
        let with = with.map_or_else(|| Rc::clone(&engine), Rc::new);
        *known = Some((engine, Rc::clone(&with)));
        with
    }
}

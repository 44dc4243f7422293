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
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a person says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consent {
    /// No; it is not asked again before there is another policy.
    No,
    /// Yes, for the connections that wait.
    Once,
    /// Yes, by the rule from now on, also when no connection waits any more.
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

/// An answer that is to come. Without one nobody was there to give it: the connection is denied, and the next one asks again.
pub type Asking = Pin<Box<dyn Future<Output = Option<Consent>>>>;

/// Knows a person to ask.
pub trait Prompt {
    /// Asks. What is dropped is not waited for any more.
    fn ask(&self, question: Question) -> Asking;
}

/// Whom a question is about, and the rule that it shows.
type Subject = (Destination, String);

/// What comes of a question.
#[derive(Clone)]
enum Outcome {
    Denied,
    /// For whoever waits; one for all of them, since it holds a policy of its own.
    Once(Rc<OneTime>),
    Always,
}

/// What a question comes to, as soon as that is known.
type Settling = watch::Receiver<Option<Outcome>>;

/// What was asked and said.
#[derive(Default)]
pub(super) struct Consents {
    prompt: RefCell<Option<Rc<dyn Prompt>>>,
    asking: RefCell<HashMap<Subject, Settling>>,
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

    fn refuse(&self, subject: &Subject) {
        let mut refused = self.refused.borrow_mut();
        if refused.len() < MAX_REFUSED {
            refused.insert(subject.clone());
        }
    }

    fn grant(&self, rule: &Rule) {
        let mut granted = self.granted.borrow_mut();
        if !granted.contains(rule) {
            granted.push(rule.clone());
        }
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
    pub(super) async fn consent(self: &Rc<Self>, target: &Target) -> Result<(), Why> {
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
            rule,
        };
        let outcome = tokio::select! {
            biased;
            () = self.until(target, |engine| !engine.schemes(&target.host, target.port).is_empty()) => {
                return Ok(());
            }
            outcome = self.outcome(prompt, question) => outcome,
        };
        match outcome {
            Outcome::Denied => return denied,
            Outcome::Once(rule) => target.allow_once(rule),
            Outcome::Always => {}
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

    /// What comes of a question, which is asked unless that is known or it is being asked already.
    async fn outcome(self: &Rc<Self>, prompt: Rc<dyn Prompt>, question: Question) -> Outcome {
        // Also of what: another scheme is another rule than the one that is shown.
        let subject = (question.destination.clone(), question.rule.to_string());
        if self.consents.refused.borrow().contains(&subject) {
            return Outcome::Denied;
        }
        let known = self.consents.asking.borrow().get(&subject).cloned();
        let settling = known.or_else(|| self.begin_to_ask(prompt, question, subject));
        let Some(mut settling) = settling else {
            return Outcome::Denied;
        };
        let outcome = settling.wait_for(Option::is_some).await;
        // Who asked has gone without an answer.
        let outcome = outcome.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or(Outcome::Denied)
    }

    /// Asks, if not too much is being asked. That does not end with the guest's attempt: what the person says to it later holds all the same.
    fn begin_to_ask(
        self: &Rc<Self>,
        prompt: Rc<dyn Prompt>,
        question: Question,
        subject: Subject,
    ) -> Option<Settling> {
        let mut asking = self.consents.asking.borrow_mut();
        if asking.len() >= MAX_QUESTIONS {
            return None;
        }
        let (tell, settling) = watch::channel(None);
        asking.insert(subject.clone(), settling.clone());
        let proxy = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let rule = question.rule.clone();
            let consent = timeout(PATIENCE, prompt.ask(question)).await;
            let outcome = proxy.settle(consent.ok().flatten(), rule, &subject);
            proxy.consents.asking.borrow_mut().remove(&subject);
            tell.send_replace(Some(outcome));
        });
        Some(settling)
    }

    fn settle(&self, consent: Option<Consent>, rule: Rule, subject: &Subject) -> Outcome {
        match consent {
            None => Outcome::Denied,
            Some(Consent::No) => {
                self.consents.refuse(subject);
                Outcome::Denied
            }
            Some(Consent::Once) => Outcome::Once(Rc::new(OneTime::new(rule))),
            Some(Consent::Always) => {
                self.consents.grant(&rule);
                if let Some(engine) = self.engine().allowing(&rule) {
                    self.engine.send_replace(Rc::new(engine));
                }
                Outcome::Always
            }
        }
    }
}

/// A rule that holds for the connections that waited for it.
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

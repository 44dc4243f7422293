//! Asks the host program about connections that no rule allows.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::mpsc::SyncSender;

use netproxy::proxy::{Asking, Consent, Prompt, Question};
use tokio::sync::oneshot;

use crate::control::Report;
use crate::network::Denied;

/// The questions that wait for the host program; the proxy has a cap on them.
pub(super) struct HostPrompt {
    reports: SyncSender<Report>,
    waiting: RefCell<HashMap<u64, oneshot::Sender<Consent>>>,
    asked: Cell<u64>,
}

impl HostPrompt {
    pub(super) fn new(reports: SyncSender<Report>) -> Self {
        Self {
            reports,
            waiting: RefCell::default(),
            asked: Cell::default(),
        }
    }

    /// Passes an answer on, if somebody gave one.
    pub(super) fn answer(&self, number: u64, consent: Option<Consent>) {
        let waiting = self.waiting.borrow_mut().remove(&number);
        // Otherwise nobody waits for it any more: it took too long.
        if let Some((waiting, consent)) = waiting.zip(consent) {
            let _ = waiting.send(consent);
        }
    }
}

impl Prompt for HostPrompt {
    fn ask(&self, question: Question) -> Asking {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|_, sender| !sender.is_closed());
        let number = self.asked.get() + 1;
        self.asked.set(number);
        let Question {
            destination,
            reason,
            rule,
        } = question;
        let rule = rule.to_string();
        let denied = Denied::new(
            &destination.to_string(),
            &reason.to_string(),
            Some(rule.as_str()),
        );
        let (sender, answer) = oneshot::channel();
        // The host program does not keep up with reports: nobody is asked.
        if self
            .reports
            .try_send(Report::Question(number, denied))
            .is_ok()
        {
            waiting.insert(number, sender);
        }
        Box::pin(async { answer.await.ok() })
    }
}

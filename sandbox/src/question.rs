//! A connection about which whoever started the sandbox is asked.

use std::fmt;
use std::sync::Arc;

use netproxy::proxy::Consent;
use tokio::sync::mpsc::UnboundedSender;

use crate::network::Denied;

/// A connection that the guest wants, that no rule allows and one could. It waits for the answer, two minutes at most. A question that is
/// dropped is answered with no.
#[must_use = "a question that is dropped is answered with no"]
pub struct Question {
    denied: Denied,
    number: u64,
    answers: Option<Answers>,
}

/// Who is told the answers, with the questions' numbers.
pub(crate) type Answers = UnboundedSender<(u64, Consent)>;

/// Who asks.
pub(crate) type Ask = Arc<dyn Fn(Question) + Send + Sync>;

impl Question {
    pub(crate) const fn new(number: u64, denied: Denied, answers: Answers) -> Self {
        Self {
            denied,
            number,
            answers: Some(answers),
        }
    }

    /// What the guest is kept from, why, and the rule that would allow it.
    #[must_use]
    pub const fn denied(&self) -> &Denied {
        &self.denied
    }

    /// Lets this connection through, and those to the same destination that wait with it.
    pub fn allow_once(mut self) {
        self.answer(Consent::Once);
    }

    /// Lets it through by the rule, which holds beside the policy from now on, also beside another one, until the sandbox ends or its network is started again.
    /// To keep it for longer, write the rule into a policy.
    pub fn allow_always(mut self) {
        self.answer(Consent::Always);
    }

    /// Denies it. It is not asked again before there is another policy.
    pub fn deny(mut self) {
        self.answer(Consent::No);
    }

    fn answer(&mut self, consent: Consent) {
        // The network has ended.
        let answers = self.answers.take();
        let _ = answers.map(|answers| answers.send((self.number, consent)));
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.answer(Consent::No);
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("denied", &self.denied)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_is_answered_once_and_a_dropped_one_with_no() {
        let (sender, mut answers) = tokio::sync::mpsc::unbounded_channel();
        let ways: [fn(Question); 4] = [
            Question::allow_once,
            Question::allow_always,
            Question::deny,
            drop,
        ];
        for way in ways {
            let denied = Denied::new("a.example:443", "no rule allows it", None);
            way(Question::new(7, denied, sender.clone()));
        }
        drop(sender);
        let all: Vec<_> = std::iter::from_fn(|| answers.blocking_recv()).collect();
        let expected = [Consent::Once, Consent::Always, Consent::No, Consent::No];
        assert_eq!(all, expected.map(|consent| (7, consent)));
    }
}

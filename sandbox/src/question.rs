//! A connection about which whoever started the sandbox is asked.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use netproxy::proxy::{Consent, MAX_QUESTIONS, PATIENCE};
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use crate::network::Denied;

/// A connection that the guest wants, that no rule allows and one could. It waits for the answer, two minutes at most. A question that is
/// dropped is not answered: the connection is denied, and the next one to the same destination asks again.
#[must_use = "a question that is dropped is not answered, and its connection denied"]
pub struct Question {
    denied: Denied,
    number: u64,
    deadline: Instant,
    answers: Option<Answers>,
}

/// A question was answered when nobody waited for it any more: two minutes had passed, or the network had ended. Nothing is allowed; the next
/// connection to the same destination asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("nobody waits for the answer any more; the guest's next attempt asks again")]
pub struct TooLate;

/// Who is told the answers, with the questions' numbers.
type Answers = UnboundedSender<(u64, Option<Consent>)>;

/// Who asks.
pub(crate) type Ask = Arc<dyn Fn(Question) + Send + Sync>;

impl Question {
    /// What the guest is kept from, why, and the rule that would allow it.
    #[must_use]
    pub const fn denied(&self) -> &Denied {
        &self.denied
    }

    /// Lets this connection through, and those to the same destination that wait with it, if they still do.
    ///
    /// # Errors
    ///
    /// It took too long.
    pub fn allow_once(self) -> Result<(), TooLate> {
        self.answer(Consent::Once)
    }

    /// Lets it through by the rule, which holds beside the policy from now on, also beside another one, until the sandbox ends or its network is started again.
    /// To keep it for longer, write the rule into a policy.
    ///
    /// # Errors
    ///
    /// It took too long.
    pub fn allow_always(self) -> Result<(), TooLate> {
        self.answer(Consent::Always)
    }

    /// Denies it. It is not asked again before there is another policy.
    ///
    /// # Errors
    ///
    /// It took too long: it is denied, but asked again.
    pub fn deny(self) -> Result<(), TooLate> {
        self.answer(Consent::No)
    }

    fn answer(mut self, consent: Consent) -> Result<(), TooLate> {
        let answers = self.answers.take();
        let answers = answers.filter(|_| Instant::now() < self.deadline);
        let answer = (self.number, Some(consent));
        answers
            .and_then(|answers| answers.send(answer).ok())
            .ok_or(TooLate)
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(answers) = self.answers.take() {
            // It fails when the network has ended.
            let _ = answers.send((self.number, None));
        }
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("denied", &self.denied)
            .finish_non_exhaustive()
    }
}

/// The questions of an egress worker that wait for an answer.
pub(crate) struct Questions {
    /// Their numbers and until when, the oldest first.
    open: VecDeque<(u64, Instant)>,
    answers: UnboundedReceiver<(u64, Option<Consent>)>,
    sender: Answers,
}

impl Questions {
    pub(crate) fn new() -> Self {
        let (sender, answers) = unbounded_channel();
        Self {
            open: VecDeque::new(),
            answers,
            sender,
        }
    }

    /// One more, unless as many wait already as a worker may have.
    pub(crate) fn open(&mut self, number: u64, denied: Denied) -> Option<Question> {
        let now = Instant::now();
        // Whoever holds them for longer does not keep others from being asked.
        self.open.retain(|(_, deadline)| now < *deadline);
        if self.open.len() >= MAX_QUESTIONS {
            return None;
        }
        let deadline = now + PATIENCE;
        self.open.push_back((number, deadline));
        Some(Question {
            denied,
            number,
            deadline,
            answers: Some(self.sender.clone()),
        })
    }

    /// The next answer to one of them, or that there will be none. Cancel-safe.
    pub(crate) async fn answer(&mut self) -> (u64, Option<Consent>) {
        // The sender is ours, so there is always one more to come.
        while let Some((number, consent)) = self.answers.recv().await {
            let place = self.open.iter().position(|(open, _)| *open == number);
            if let Some(place) = place {
                self.open.remove(place);
                return (number, consent);
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> Denied {
        Denied::new("a.example:443", "no rule allows it", None)
    }

    #[tokio::test]
    async fn each_question_is_answered_once_and_a_dropped_one_by_nobody() {
        let mut questions = Questions::new();
        let ways: [fn(Question) -> Result<(), TooLate>; 4] = [
            Question::allow_once,
            Question::allow_always,
            Question::deny,
            |question| {
                drop(question);
                Ok(())
            },
        ];
        let said = [
            Some(Consent::Once),
            Some(Consent::Always),
            Some(Consent::No),
            None,
        ];
        for (number, (way, said)) in (7..).zip(ways.into_iter().zip(said)) {
            way(questions.open(number, denied()).unwrap()).unwrap();
            assert_eq!(questions.answer().await, (number, said));
            assert!(questions.answers.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_a_worker_may_have_and_none_for_ever() {
        let mut questions = Questions::new();
        let all = (0..).map_while(|number| questions.open(number, denied()));
        let mut all: Vec<_> = all.collect();
        assert_eq!(all.len(), MAX_QUESTIONS);
        all.pop().unwrap().deny().unwrap();
        let last = u64::try_from(MAX_QUESTIONS).unwrap() - 1;
        assert_eq!(questions.answer().await, (last, Some(Consent::No)));
        assert!(questions.open(100, denied()).is_some());
        tokio::time::advance(PATIENCE).await;
        let late = all.pop().unwrap();
        assert_eq!(late.allow_always(), Err(TooLate));
        let question = questions.open(101, denied()).unwrap();
        // What comes late to nothing else is dropped.
        drop(all);
        question.allow_once().unwrap();
        assert_eq!(questions.answer().await, (101, Some(Consent::Once)));
        let orphan = questions.open(102, denied()).unwrap();
        drop(questions);
        assert_eq!(orphan.allow_once(), Err(TooLate));
    }
}

//! Follows the egress workers of a sandbox, which are the guest's network, one after the other.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use hv_core::Fault;
use netproxy::proxy::{Consent, MAX_QUESTIONS};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::{DRAIN_LIMIT, End, Watched};
use crate::control::Report;
use crate::error::{Error, Result};
use crate::host::{AuditWriter, EgressStart, EgressWorker, Published};
use crate::network::Layer;
use crate::question::{Ask, Question};
use crate::text::printable;
use crate::timeline::Phase;

/// How long the egress worker may take to do what it is ordered.
const ORDER_LIMIT: Duration = Duration::from_secs(10);

/// The guest's network. It ends with its handle.
#[derive(Debug)]
pub(super) struct GuestNetwork {
    follower: JoinHandle<()>,
    wishes: mpsc::Sender<(Wish, oneshot::Sender<Result<()>>)>,
    /// Why it has ended, while it has.
    end: watch::Receiver<Option<String>>,
}

/// What the handle wants of it.
enum Wish {
    /// To decide by these layers.
    Policy(Vec<Layer>),
    /// To carry connections to the guest.
    Publish(Published),
    /// To ask about connections that no rule allows.
    Ask(Ask),
    /// What somebody said.
    Answer(u64, Consent),
    /// To be there again.
    Restart,
}

impl GuestNetwork {
    /// Follows `worker`, which `start` has started. The second resolves when the network is there, or with why it is not.
    pub(super) fn follow(
        start: EgressStart,
        worker: EgressWorker,
        watched: Watched,
        audit: Option<AuditWriter>,
    ) -> (Self, impl Future<Output = Result<()>> + use<>) {
        let (wishes, receiver) = mpsc::channel(1);
        let (ended, end) = watch::channel(None);
        let follower = Follower {
            start,
            watched,
            audit,
            wishes: receiver,
            ended,
            ask: None,
            waiting: VecDeque::new(),
        };
        let (started, network) = oneshot::channel();
        let network = async move {
            // The follower goes without a word only when it was aborted.
            network.await.unwrap_or_else(|_| Err(gone()))
        };
        let follower = tokio::spawn(follower.run(worker, started));
        let network_handle = Self {
            follower,
            wishes,
            end,
        };
        (network_handle, network)
    }

    /// Has it decide by these layers, and waits until it does.
    pub(super) async fn replace_policy(&self, layers: Vec<Layer>) -> Result<()> {
        self.wish(Wish::Policy(layers)).await
    }

    /// Has it carry connections to the guest.
    pub(super) async fn publish(&self, published: Published) -> Result<()> {
        self.wish(Wish::Publish(published)).await
    }

    /// Has `ask` called for connections that no rule allows.
    pub(super) async fn on_denied(&self, ask: Ask) -> Result<()> {
        self.wish(Wish::Ask(ask)).await
    }

    /// Starts it again when it has ended, by the policy that held then.
    pub(super) async fn restart(&self) -> Result<()> {
        self.wish(Wish::Restart).await
    }

    /// Waits until it has ended, and says why.
    pub(super) async fn ended(&self) -> String {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The follower went with the machine.
            Err(_) => std::future::pending().await,
        }
    }

    async fn wish(&self, wish: Wish) -> Result<()> {
        let (sender, done) = oneshot::channel();
        let done = async {
            // One that cannot be sent is not waited for.
            drop(self.wishes.send((wish, sender)).await);
            done.await
        };
        match tokio::time::timeout(ORDER_LIMIT, done).await {
            Ok(done) => done.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(Error::Host {
                what: "the network does not answer; what held before may still hold".into(),
                source: io::ErrorKind::TimedOut.into(),
            }),
        }
    }
}

impl Drop for GuestNetwork {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

fn gone() -> Error {
    Error::Host {
        what: "the guest's network has ended: Sandbox::restart_network starts it again".into(),
        source: io::ErrorKind::BrokenPipe.into(),
    }
}

struct Follower {
    start: EgressStart,
    watched: Watched,
    audit: Option<AuditWriter>,
    wishes: mpsc::Receiver<(Wish, oneshot::Sender<Result<()>>)>,
    ended: watch::Sender<Option<String>>,
    ask: Option<Ask>,
    /// What the worker has not answered yet, and who waits for it.
    waiting: VecDeque<(Wish, oneshot::Sender<Result<()>>)>,
}

impl Follower {
    /// Takes what the egress workers tell, until the machine ends. `started` gets why there is no network, or that there is one.
    async fn run(mut self, mut worker: EgressWorker, mut started: oneshot::Sender<Result<()>>) {
        loop {
            let begun = self.begin(&mut worker).await;
            let is_begun = begun.is_ok();
            if !is_begun {
                worker.process.kill();
            }
            let why = begun.as_ref().err().map(ToString::to_string);
            self.ended.send_replace(why);
            // Nobody may be listening any more.
            drop(started.send(begun));
            if is_begun && !self.serve(worker).await {
                return;
            }
            match self.wait_for_restart().await {
                Some(next) => (worker, started) = next,
                None => return,
            }
        }
    }

    /// Waits until the worker is confined, and tells it what to do: the guest's bytes are then looked at, and not before.
    async fn begin(&mut self, worker: &mut EgressWorker) -> Result<()> {
        let not_started = |fault, why: &str| {
            let message = format!("network: {}", printable(why));
            End::NotStarted(fault, message).error()
        };
        let mut unanswered = 1 + self.start.published.len() + usize::from(self.ask.is_some());
        while let Some(Ok(report)) = worker.process.report().await {
            match report {
                // Of one that is gone the end is seen next.
                Report::Phase(Phase::Confined, _) => drop(self.instruct(worker).await),
                Report::Done(Ok(())) if unanswered > 1 => unanswered -= 1,
                Report::Done(Ok(())) => return Ok(()),
                Report::Done(Err(why)) => return Err(not_started(Fault::Caller, &why)),
                Report::NotStarted(failure) => {
                    return Err(not_started(failure.fault.into(), &failure.message));
                }
                report => self.note(report).await,
            }
        }
        worker.process.kill();
        let words = worker.process.wait().await;
        let why = format!("the egress worker has ended: {words}");
        Err(not_started(Fault::Host, &why))
    }

    async fn instruct(&self, worker: &mut EgressWorker) -> io::Result<()> {
        worker.decide_by(&self.start.policy).await?;
        for published in &self.start.published {
            worker.publish(published).await?;
        }
        if self.ask.is_some() {
            worker.ask().await?;
        }
        Ok(())
    }

    /// Takes what the worker tells until it ends. False: the machine has ended, too.
    async fn serve(&mut self, mut worker: EgressWorker) -> bool {
        let mut why = None;
        // Those of the worker before have come to nothing.
        let (sender, mut answers) = mpsc::unbounded_channel();
        let mut unanswered = 0;
        loop {
            let report = tokio::select! {
                report = worker.process.report() => match report {
                    Some(Ok(report)) => report,
                    _ => break,
                },
                // The sender is ours, so there is always one more to come.
                Some((number, consent)) = answers.recv() => {
                    unanswered -= 1;
                    let nobody = oneshot::channel().0;
                    self.fulfil(Wish::Answer(number, consent), nobody, &mut worker).await;
                    continue;
                }
                Some((wish, waiting)) = self.wishes.recv() => {
                    self.fulfil(wish, waiting, &mut worker).await;
                    continue;
                }
            };
            match report {
                Report::Done(done) => self.done(done),
                Report::Question(number, denied) => {
                    let question = Question::new(number, denied.checked(), sender.clone());
                    unanswered += 1;
                    // What nobody is asked is answered by being dropped.
                    if let Some(ask) = self.ask.as_ref().filter(|_| unanswered <= MAX_QUESTIONS) {
                        ask(question);
                    }
                }
                Report::NotStarted(failure) => why = Some(failure.message),
                report => self.note(report).await,
            }
        }
        worker.process.kill();
        let words = worker.process.wait().await;
        // It ends with the machine, too, and that is known a moment later.
        let machine = tokio::time::timeout(DRAIN_LIMIT, self.watched.ended());
        if why.is_none() && words.is_success() && machine.await.is_ok() {
            return false;
        }
        let why = printable(&why.unwrap_or_else(|| words.to_string()));
        self.watched
            .note_broken(&format!("network: the egress worker has ended: {why}"));
        self.ended.send_replace(Some(why));
        // Who waited is told that it has gone.
        self.waiting.clear();
        true
    }

    /// Waits until a worker is wanted again, and starts it; whom to tell of it. `None`: the machine has ended.
    async fn wait_for_restart(&mut self) -> Option<(EgressWorker, oneshot::Sender<Result<()>>)> {
        loop {
            let (wish, waiting) = tokio::select! {
                wish = self.wishes.recv() => wish?,
                _ = self.watched.ended() => return None,
            };
            let spawned = match wish {
                Wish::Restart => self.start.spawn(),
                // Nothing is allowed now; what is from then on, the next worker decides by this, and never by the one before.
                Wish::Policy(layers) => {
                    self.start.policy = layers;
                    drop(waiting.send(Ok(())));
                    continue;
                }
                Wish::Publish(_) | Wish::Ask(_) | Wish::Answer(..) => Err(gone()),
            };
            match spawned {
                Ok(worker) => {
                    self.watched.set_egress_worker(worker.process.id());
                    return Some((worker, waiting));
                }
                // Who waited may have given up.
                Err(error) => drop(waiting.send(Err(error))),
            }
        }
    }

    async fn fulfil(
        &mut self,
        wish: Wish,
        waiting: oneshot::Sender<Result<()>>,
        worker: &mut EgressWorker,
    ) {
        let ordered = match &wish {
            Wish::Policy(layers) => worker.decide_by(layers).await,
            Wish::Publish(published) => worker.publish(published).await,
            Wish::Ask(_) => worker.ask().await,
            Wish::Answer(number, consent) => worker.answer(*number, *consent).await,
            // It is there. Who waited may have given up.
            Wish::Restart => return drop(waiting.send(Ok(()))),
        };
        // Of one that is gone the end is seen next.
        drop(ordered);
        self.waiting.push_back((wish, waiting));
    }

    /// Tells who waits for it. What was done the next worker is to do, too.
    fn done(&mut self, done: std::result::Result<(), String>) {
        let Some((wish, waiting)) = self.waiting.pop_front() else {
            return;
        };
        match wish {
            Wish::Policy(layers) if done.is_ok() => self.start.policy = layers,
            Wish::Publish(published) if done.is_ok() => self.start.published.push(published),
            Wish::Ask(ask) => self.ask = Some(ask),
            _ => {}
        }
        // Who waited may have given up.
        drop(waiting.send(done.map_err(Error::Config)));
    }

    async fn note(&self, report: Report) {
        match report {
            Report::Denied(denied) => Watched::note_denied(&self.watched.denied, &denied),
            Report::WouldBeDenied(denied) => {
                Watched::note_denied(&self.watched.would_be_denied, &denied);
            }
            Report::Audit(record) => {
                if let Some(audit) = &self.audit {
                    audit.write(*record).await;
                }
            }
            Report::Broken(problem) => self.watched.note_broken(&problem),
            _ => {}
        }
    }
}

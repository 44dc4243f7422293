//! Follows the egress workers of a sandbox, which are the guest's network, one after the other.

use std::time::Duration;
use std::{fmt, io};

use hv_core::Fault;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{DRAIN_LIMIT, End, Watched};
use crate::control::Report;
use crate::error::{Error, Result};
use crate::host::{AuditWriter, EgressStart, EgressWorker, Published, TakesNoOrders};
use crate::network::{Denied, Layer};
use crate::question::{Ask, Questions};
use crate::text::printable;
use crate::timeline::Phase;

/// How long an egress worker may take until it is confined.
const CONFINED_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to do what it is ordered. The audit log's disk counts: what a worker tells is written in its order, and not lost.
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
        Self::follow_within(ORDER_LIMIT, start, worker, watched, audit, None)
    }

    fn follow_within(
        order_limit: Duration,
        start: EgressStart,
        worker: EgressWorker,
        watched: Watched,
        audit: Option<AuditWriter>,
        ask: Option<Ask>,
    ) -> (Self, impl Future<Output = Result<()>> + use<>) {
        let (wishes, receiver) = mpsc::channel(1);
        let (ended, end) = watch::channel(None);
        let follower = Follower {
            start,
            watched,
            audit,
            wishes: receiver,
            ended,
            ask,
            order_limit,
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

    /// It is fulfilled, or refused, or the worker that does not answer is ended.
    async fn wish(&self, wish: Wish) -> Result<()> {
        let (sender, done) = oneshot::channel();
        // One that cannot be sent is not waited for.
        drop(self.wishes.send((wish, sender)).await);
        done.await.unwrap_or_else(|_| Err(gone()))
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
    /// [`ORDER_LIMIT`].
    order_limit: Duration,
}

/// What a worker has not done yet, who waits for it, and until when.
struct Pending {
    wish: Wish,
    waiting: oneshot::Sender<Result<()>>,
    deadline: Instant,
}

/// Why a worker is not trusted to be the guest's network any more, and is ended.
#[derive(Debug, Error)]
enum Breach {
    #[error("{0}")]
    Orders(#[from] TakesNoOrders),
    #[error("it did not do in time what it was ordered")]
    Overdue,
    #[error("it did what it was not ordered")]
    NotOrdered,
    #[error("it asked what it was not to ask")]
    NotToAsk,
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
        let is_confined = |report: &Report| matches!(report, Report::Phase(Phase::Confined, _));
        let is_done = |report: &Report| *report == Report::Done(Ok(()));
        self.expect(worker, CONFINED_LIMIT, is_confined).await?;
        worker.decide_by(self.start.policy.clone()).map_err(host)?;
        self.expect(worker, self.order_limit, is_done).await?;
        for published in &self.start.published {
            worker.publish(published).map_err(host)?;
            self.expect(worker, self.order_limit, is_done).await?;
        }
        if self.ask.is_some() {
            worker.ask().map_err(host)?;
            self.expect(worker, self.order_limit, is_done).await?;
        }
        Ok(())
    }

    /// Waits for a report of a worker that begins.
    async fn expect(
        &self,
        worker: &mut EgressWorker,
        limit: Duration,
        is_it: impl Fn(&Report) -> bool,
    ) -> Result<()> {
        let expected = async {
            while let Some(Ok(report)) = worker.process.report().await {
                match report {
                    report if is_it(&report) => return Ok(()),
                    Report::Done(Err(why)) => return Err(not_started(Fault::Caller, &why)),
                    Report::NotStarted(failure) => {
                        return Err(not_started(failure.fault.into(), &failure.message));
                    }
                    report => self.note(report).await,
                }
            }
            worker.process.kill();
            let words = worker.process.wait().await;
            Err(host(format_args!("the egress worker has ended: {words}")))
        };
        let expected = tokio::time::timeout(limit, expected).await;
        expected.unwrap_or_else(|_| Err(host("the egress worker does not answer")))
    }

    /// Takes what the worker tells until it ends. False: the machine has ended, too.
    async fn serve(&mut self, mut worker: EgressWorker) -> bool {
        let why = self.follow(&mut worker).await;
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
        true
    }

    /// Has the worker do what is wanted, and takes what it tells, until it ends or has to be ended; why, if that is known.
    async fn follow(&mut self, worker: &mut EgressWorker) -> Option<String> {
        let mut why = None;
        let mut pending = None;
        // Those of the worker before have come to nothing.
        let mut questions = Questions::new();
        loop {
            let followed = tokio::select! {
                report = worker.process.report() => match report {
                    Some(Ok(Report::Done(done))) => self.done(pending.take(), done),
                    Some(Ok(Report::Question(number, denied))) => {
                        self.question(&mut questions, worker, number, &denied)
                    }
                    Some(Ok(Report::NotStarted(failure))) => {
                        why = Some(failure.message);
                        Ok(())
                    }
                    Some(Ok(report)) => {
                        self.note(report).await;
                        Ok(())
                    }
                    _ => return why,
                },
                (number, consent) = questions.answer() => worker.answer(number, consent).map_err(Breach::from),
                Some((wish, waiting)) = self.wishes.recv(), if pending.is_none() => {
                    let fulfilled = self.fulfil(wish, waiting, worker);
                    fulfilled.map(|begun| pending = begun)
                }
                () = overdue(pending.as_ref()) => Err(Breach::Overdue),
            };
            if let Err(breach) = followed {
                return Some(breach.to_string());
            }
        }
    }

    /// Passes on a question, if somebody is there whom it may be put to.
    fn question(
        &self,
        questions: &mut Questions,
        worker: &EgressWorker,
        number: u64,
        denied: &Denied,
    ) -> Result<(), Breach> {
        let ask = self.ask.as_ref().ok_or(Breach::NotToAsk)?;
        match questions.open(number, denied.checked()) {
            Some(question) => ask(question),
            // The guest is not to wait.
            None => worker.answer(number, None)?,
        }
        Ok(())
    }

    /// Has the worker begin with it; what it is to say that it has done.
    fn fulfil(
        &self,
        wish: Wish,
        waiting: oneshot::Sender<Result<()>>,
        worker: &EgressWorker,
    ) -> Result<Option<Pending>, Breach> {
        match &wish {
            Wish::Policy(layers) => worker.decide_by(layers.clone())?,
            Wish::Publish(published) => worker.publish(published)?,
            Wish::Ask(_) => worker.ask()?,
            Wish::Restart => {
                // It is there. Who waited may have given up.
                drop(waiting.send(Ok(())));
                return Ok(None);
            }
        }
        let deadline = Instant::now() + self.order_limit;
        Ok(Some(Pending {
            wish,
            waiting,
            deadline,
        }))
    }

    /// Tells who waits for it. What was done the next worker is to do, too.
    fn done(
        &mut self,
        pending: Option<Pending>,
        done: std::result::Result<(), String>,
    ) -> Result<(), Breach> {
        let Pending { wish, waiting, .. } = pending.ok_or(Breach::NotOrdered)?;
        match wish {
            Wish::Policy(layers) if done.is_ok() => self.start.policy = layers,
            Wish::Publish(published) if done.is_ok() => self.start.published.push(published),
            Wish::Ask(ask) if done.is_ok() => self.ask = Some(ask),
            _ => {}
        }
        // Who waited may have given up.
        drop(waiting.send(done.map_err(Error::Config)));
        Ok(())
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
                Wish::Publish(_) | Wish::Ask(_) => Err(gone()),
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

/// Resolves when this should have been done.
async fn overdue(pending: Option<&Pending>) {
    match pending {
        Some(pending) => tokio::time::sleep_until(pending.deadline).await,
        None => std::future::pending().await,
    }
}

fn not_started(fault: Fault, why: &str) -> Error {
    let message = format!("network: {}", printable(why));
    End::NotStarted(fault, message).error()
}

fn host(why: impl fmt::Display) -> Error {
    not_started(Fault::Host, &why.to_string())
}

#[cfg(test)]
mod tests;

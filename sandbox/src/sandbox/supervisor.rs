//! Follows the workers of a sandbox to their end.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use hv_core::Fault;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::{DRAIN_LIMIT, End, Watched};
use crate::control::{MachineEnd, Order, Report};
use crate::error::{EndReason, Error, Result};
use crate::host::{AuditState, AuditWriter, Console, WorkerProcess};
use crate::network::Layer;
use crate::text::printable;
use crate::timeline::Phase;

/// How long the egress worker may take to have another policy.
const POLICY_LIMIT: Duration = Duration::from_secs(10);

/// The supervisor, which ends with its handle, and the worker with it.
#[derive(Debug)]
pub(super) struct Supervision {
    task: JoinHandle<()>,
    /// Follows the egress worker, which ends with it.
    egress: Option<JoinHandle<()>>,
    /// Where the egress worker gets other policies.
    policies: Option<mpsc::Sender<NewPolicy>>,
    leash: Option<UnixStream>,
}

impl Supervision {
    /// Has the egress worker decide by these layers, and waits until it does.
    pub(super) async fn replace_policy(&self, layers: Vec<Layer>) -> Result<()> {
        let Some(policies) = &self.policies else {
            let message = "this sandbox was started without a network, so it can have no policy";
            return Err(Error::Config(message.into()));
        };
        let (sender, is_done) = oneshot::channel();
        let done = async {
            // One that cannot be sent is not waited for.
            drop(policies.send((layers, sender)).await);
            is_done.await
        };
        let failed = |kind: io::ErrorKind| Error::Host {
            what:
                "the network did not take the policy; the one before holds, or there is no network"
                    .into(),
            source: kind.into(),
        };
        match tokio::time::timeout(POLICY_LIMIT, done).await {
            Ok(Ok(done)) => done.map_err(Error::Config),
            Ok(Err(_)) => Err(failed(io::ErrorKind::BrokenPipe)),
            Err(_) => Err(failed(io::ErrorKind::TimedOut)),
        }
    }
}

impl Drop for Supervision {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(egress) = &self.egress {
            egress.abort();
        }
        // The task may not be polled again; this reaches the worker all the same. It fails only
        // when the worker is gone.
        let _ = self
            .leash
            .as_ref()
            .map(|leash| leash.shutdown(Shutdown::Both));
    }
}

/// Follows the workers; what they tell is in the first, they end with the second, and the third says whether there is the network that was asked
/// for.
pub(super) fn supervise(
    mut process: WorkerProcess,
    egress: Option<WorkerProcess>,
    console_stream: Receiver,
    console: Console,
    audit: Option<(AuditWriter, AuditState)>,
) -> (
    Watched,
    Supervision,
    impl Future<Output = Result<()>> + use<>,
) {
    let leash = process.take_leash();
    let (sender, end) = watch::channel(None);
    let (audit, audited) = audit.unzip();
    let watched = Watched {
        console,
        timeline: Arc::default(),
        broken: Arc::default(),
        refusals: Arc::default(),
        denied: Arc::default(),
        audited,
        end,
        kill: Arc::default(),
    };
    let supervisor = Supervisor {
        process,
        console_stream,
        watched: watched.clone(),
        killed: false,
    };
    let task = tokio::spawn(async move {
        let end = supervisor.run().await;
        // Nobody may be listening any more.
        drop(sender.send(Some(end)));
    });
    let (started, network) = oneshot::channel();
    let is_wanted = egress.is_some();
    let (sender, policies) = mpsc::channel(1);
    let sender = is_wanted.then_some(sender);
    let egress = egress.map(|egress| {
        let follower = EgressFollower {
            process: egress,
            watched: watched.clone(),
            audit,
            policies,
            waiting: HashMap::new(),
            orders: 0,
        };
        tokio::spawn(follower.run(started))
    });
    let supervision = Supervision {
        task,
        egress,
        policies: sender,
        leash,
    };
    let network = async move {
        if is_wanted {
            // The follower goes without a word only when it was aborted.
            let end = network.await.unwrap_or(Some(End::Ran(EndReason::Killed)));
            return end.map_or(Ok(()), |end| Err(end.error()));
        }
        Ok(())
    };
    (watched, supervision, network)
}

/// A policy that is to decide from now on, and who waits for that.
type NewPolicy = (Vec<Layer>, oneshot::Sender<std::result::Result<(), String>>);

struct EgressFollower {
    process: WorkerProcess,
    watched: Watched,
    audit: Option<AuditWriter>,
    policies: mpsc::Receiver<NewPolicy>,
    /// Who waits for the order with this number.
    waiting: HashMap<u64, oneshot::Sender<std::result::Result<(), String>>>,
    /// How many orders there were.
    orders: u64,
}

impl EgressFollower {
    /// Takes what the egress worker tells, until it ends. `started` gets why there is no network, or that there is one.
    async fn run(mut self, started: oneshot::Sender<Option<End>>) {
        // Nobody may be listening any more.
        if let Err(end) = self.start().await {
            drop(started.send(Some(end)));
            return;
        }
        drop(started.send(None));
        let mut why = None;
        loop {
            let report = tokio::select! {
                report = self.process.report() => match report {
                    Some(Ok(report)) => report,
                    _ => break,
                },
                Some(policy) = self.policies.recv() => {
                    self.order(policy).await;
                    continue;
                }
            };
            match report {
                Report::Done(number, done) => {
                    let waiting = self.waiting.remove(&number);
                    // Who waited may have given up.
                    drop(waiting.map(|waiting| waiting.send(done)));
                }
                Report::Denied(denied) => self.watched.note_denied(&denied),
                Report::Audit(record) => {
                    if let Some(audit) = &self.audit {
                        audit.write(*record).await;
                    }
                }
                Report::NotStarted(failure) => why = Some(failure.message),
                Report::Broken(problem) => self.watched.note_broken(&problem),
                _ => {}
            }
        }
        self.waiting.clear();
        self.policies.close();
        // There is no more for the log.
        self.audit = None;
        self.process.kill();
        let words = self.process.wait().await;
        // It ends with the machine, too, and that is known a moment later.
        if why.is_none()
            && tokio::time::timeout(DRAIN_LIMIT, self.watched.ended())
                .await
                .is_ok()
        {
            return;
        }
        let why = why.unwrap_or(words);
        self.watched
            .note_broken(&format!("network: the egress worker has ended: {why}"));
    }

    async fn order(&mut self, (layers, waiting): NewPolicy) {
        self.orders += 1;
        let order = Order::Policy(self.orders, layers);
        // Of one that is gone the end is seen next.
        if self.process.order(&order).await.is_ok() {
            self.waiting.insert(self.orders, waiting);
        }
    }

    /// Waits until it is confined: the guest's bytes are then looked at, and not before.
    async fn start(&mut self) -> std::result::Result<(), End> {
        let not_started =
            |fault, why: &str| End::NotStarted(fault, format!("network: {}", printable(why)));
        while let Some(Ok(report)) = self.process.report().await {
            match report {
                Report::Phase(Phase::Confined, _) => return Ok(()),
                Report::NotStarted(failure) => {
                    return Err(not_started(failure.fault.into(), &failure.message));
                }
                _ => {}
            }
        }
        self.process.kill();
        let words = self.process.wait().await;
        Err(not_started(
            Fault::Host,
            &format!("the egress worker has ended: {words}"),
        ))
    }
}

struct Supervisor {
    process: WorkerProcess,
    console_stream: Receiver,
    watched: Watched,
    killed: bool,
}

impl Supervisor {
    async fn run(mut self) -> End {
        let mut last = None;
        let mut buffer = vec![0; 16 << 10];
        loop {
            tokio::select! {
                report = self.process.report() => match report {
                    Some(Ok(Report::Phase(phase, at))) => {
                        self.watched.mark(phase, at);
                        if let Err(message) = self.room(phase) {
                            return self.give_up(message).await;
                        }
                    }
                    Some(Ok(Report::Broken(device))) => self.watched.note_broken(&device),
                    Some(Ok(Report::Refused(refusal))) => self.watched.note_refusal(&refusal),
                    // It has no network to tell of.
                    Some(Ok(Report::Denied(_) | Report::Audit(_) | Report::Done(..))) => {}
                    Some(Ok(report)) => last = Some(report),
                    Some(Err(_)) | None => break,
                },
                read = self.console_stream.read(&mut buffer) => match read {
                    Ok(count) if count > 0 => self.take_console(&buffer, count),
                    // The worker has closed it, so it is about to end.
                    _ => break,
                },
                () = self.watched.kill.notified() => {
                    self.killed = true;
                    self.process.kill();
                }
            }
        }
        self.finish(last, &mut buffer).await
    }

    fn room(&self, phase: Phase) -> std::result::Result<(), String> {
        if phase == Phase::Confined {
            self.process.room()
        } else {
            Ok(())
        }
    }

    async fn give_up(mut self, message: String) -> End {
        self.process.kill();
        self.process.wait().await;
        End::NotStarted(Fault::Host, message)
    }

    fn take_console(&self, buffer: &[u8], count: usize) {
        self.watched
            .console
            .append(buffer.get(..count).unwrap_or_default());
    }

    /// Takes what is left in the pipes of a worker that is ending. One that closed its channel but
    /// goes on is not waited for.
    async fn finish(mut self, mut last: Option<Report>, buffer: &mut [u8]) -> End {
        let drain = async {
            while let Some(Ok(report)) = self.process.report().await {
                match report {
                    Report::Phase(..)
                    | Report::Broken(_)
                    | Report::Denied(_)
                    | Report::Audit(_)
                    | Report::Done(..) => {}
                    Report::Refused(refusal) => self.watched.note_refusal(&refusal),
                    report => last = Some(report),
                }
            }
            while let Ok(count @ 1..) = self.console_stream.read(buffer).await {
                let bytes = buffer.get(..count).unwrap_or_default();
                self.watched.console.append(bytes);
            }
        };
        tokio::select! {
            () = drain => {}
            () = self.watched.kill.notified() => self.killed = true,
            () = tokio::time::sleep(DRAIN_LIMIT) => {}
        }
        self.process.kill();
        let words = self.process.wait().await;
        self.end(last, words)
    }

    fn end(&self, last: Option<Report>, words: String) -> End {
        match last {
            Some(Report::NotStarted(failure)) => {
                End::NotStarted(failure.fault.into(), printable(&failure.message))
            }
            Some(Report::Ended(end)) => End::Ran(self.reason(end)),
            _ if self.killed => End::Ran(EndReason::Killed),
            _ => End::Ran(EndReason::WorkerDied(words)),
        }
    }

    fn reason(&self, end: MachineEnd) -> EndReason {
        match (end, self.watched.console.panic_reason()) {
            (MachineEnd::Reset | MachineEnd::Crash(_), Some(reason)) => EndReason::Panicked(reason),
            (MachineEnd::PowerOff, _) => EndReason::PoweredOff,
            (MachineEnd::Reset, None) => EndReason::Rebooted,
            (MachineEnd::Crash(text), None) => EndReason::Crashed(printable(&text)),
            (MachineEnd::Hypervisor(text), _) => EndReason::Hypervisor(printable(&text)),
        }
    }
}

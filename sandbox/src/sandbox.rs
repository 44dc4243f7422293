//! A running sandbox.

#[cfg(feature = "testkit")]
mod bare;
mod network;
mod supervisor;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hv_core::Fault;
use tokio::sync::{Notify, watch};

use crate::agent::{AgentClient, ExecSpec, Output, Process};
use crate::changes::{Changed, WorkspaceChanges};
use crate::config::{GuestFiles, SandboxBuilder};
use crate::error::{EndReason, Error, Result};
use crate::host::{
    AuditState, AuditWriter, Console, EgressStart, Prepared, Published, WorkerProcess, into_tokio,
    pipe_receiver, prepare,
};
use crate::network::{Denied, MAX_DENIED, NetworkPolicy};
use crate::protocol::{BootFacts, Configure, Network, Octets};
use crate::question::Question;
use crate::refusal::Refusal;
use crate::text::{printable, printable_path};
use crate::timeline::{BootTimeline, Phase, monotonic_ns};
use crate::worker::{WORKER_VARIABLE, WorkerKind};
#[cfg(feature = "testkit")]
pub use bare::BareNetwork;
use network::GuestNetwork;
use supervisor::{Supervision, supervise};

/// How long the guest's processes may take to end before a stop kills them.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long a stop as a whole may take before the worker is killed.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How often, and after which pause, a workspace that is in use is tried again.
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// How long a worker that closed its channel may take to be gone.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// A running sandbox. Dropping it ends the machine at once.
#[derive(Debug)]
pub struct Sandbox {
    agent: AgentClient,
    facts: BootFacts,
    watched: Watched,
    worker: Option<u32>,
    changed: Vec<Changed>,
    network: Option<GuestNetwork>,
    published: Vec<SocketAddr>,
    _supervision: Supervision,
}

/// What the supervisor and the handle share.
#[derive(Clone, Debug)]
struct Watched {
    console: Console,
    timeline: Arc<Mutex<BootTimeline>>,
    broken: Arc<Mutex<Vec<String>>>,
    refusals: Arc<Mutex<Vec<Refusal>>>,
    denied: Arc<Mutex<Vec<Denied>>>,
    /// The process id of the egress worker, 0 without one.
    egress_worker: Arc<AtomicU32>,
    would_be_denied: Arc<Mutex<Vec<Denied>>>,
    /// The audit log, if there is one.
    audited: Option<AuditState>,
    end: watch::Receiver<Option<End>>,
    kill: Arc<Notify>,
}

/// How a worker ended.
#[derive(Clone, Debug)]
enum End {
    /// It never ran a machine.
    NotStarted(Fault, String),
    /// The machine ran.
    Ran(EndReason),
}

/// Most broken devices that are told of.
const MAX_BROKEN: usize = 16;
/// Most refusals that are kept: those of four shares.
const MAX_REFUSALS: usize = 1024;

impl Sandbox {
    /// Settings for a sandbox of the guest that [`GuestFiles::locate`] finds.
    pub fn builder() -> SandboxBuilder {
        Self::of(GuestFiles::locate())
    }

    /// Settings for a sandbox of this guest.
    pub fn of(guest: GuestFiles) -> SandboxBuilder {
        SandboxBuilder::new(guest)
    }

    pub(crate) async fn start(config: SandboxBuilder) -> Result<Self> {
        if std::env::var_os(WORKER_VARIABLE).is_some() {
            let message =
                "this process is a vmm worker: call sandbox::worker::init() first in main";
            return Err(Error::Config(message.into()));
        }
        let prepared = prepare_when_free(&config).await?;
        let spawned = monotonic_ns();
        let program = config.worker_program.as_deref();
        let egress = prepared.egress.as_ref().map(EgressStart::spawn);
        let egress = egress.transpose()?;
        let (plan, files) = (&prepared.plan, &prepared.files);
        let process = WorkerProcess::spawn(program, WorkerKind::Vmm, plan, files, plan.memory)?;
        let worker = process.id();
        let configure = configuration(&config, &prepared);
        let Prepared {
            agent,
            console,
            console_log,
            files,
            changed,
            egress: egress_start,
            audit,
            ..
        } = prepared;
        // While we held the worker's ends, its streams would not end with it.
        drop(files);
        let audit = audit.map(AuditWriter::start).transpose()?;
        let (audit, audited) = audit.unzip();
        let console = (pipe_receiver(console)?, Console::new(console_log));
        let (watched, supervision) = supervise(process, console.0, console.1, audited);
        watched.mark(Phase::Spawned, spawned);
        let published = egress_start.iter().flat_map(|start| &start.published);
        let published = published.map(Published::address).collect::<Result<_>>()?;
        let network = egress_start.zip(egress);
        let network = network.map(|(start, worker)| {
            watched.set_egress_worker(worker.process.id());
            GuestNetwork::follow(start, worker, watched.clone(), audit)
        });
        let (network, has_network) = network.unzip();
        let (agent, facts) = watched
            .ready(
                into_tokio(agent)?,
                configure,
                has_network,
                config.start_timeout,
            )
            .await?;
        Ok(Self {
            agent,
            facts,
            watched,
            worker,
            changed,
            network,
            published,
            _supervision: supervision,
        })
    }

    /// Starts a command and gives its streams.
    ///
    /// # Errors
    /// The command cannot be started in the guest, or the sandbox has ended.
    pub async fn exec(&self, spec: ExecSpec) -> Result<Process> {
        self.watched.while_running(self.agent.exec(spec)).await
    }

    /// Runs a command to its end and collects what it wrote.
    ///
    /// # Errors
    /// As [`Sandbox::exec`].
    pub async fn output(&self, spec: ExecSpec) -> Result<Output> {
        let process = self.exec(spec).await?;
        self.watched.while_running(process.output()).await
    }

    /// Reads a whole regular file of the guest, of at most `limit` bytes.
    ///
    /// # Errors
    /// The guest's error, by its number; or the sandbox has ended.
    pub async fn read_file(&self, path: impl AsRef<[u8]>, limit: u64) -> Result<Vec<u8>> {
        self.watched
            .while_running(self.agent.read_file(path.as_ref(), 0, limit))
            .await
    }

    /// Creates or replaces a regular file of the guest.
    ///
    /// # Errors
    /// The guest's error, by its number; or the sandbox has ended.
    pub async fn write_file(
        &self,
        path: impl AsRef<[u8]>,
        mode: u32,
        content: &[u8],
    ) -> Result<()> {
        self.watched
            .while_running(self.agent.write_file(path.as_ref(), mode, content))
            .await
    }

    /// The release of the guest's kernel, in the guest's own words.
    #[must_use]
    pub fn kernel(&self) -> &str {
        &self.facts.kernel
    }

    /// When each phase of the start was reached.
    #[must_use]
    pub fn timeline(&self) -> BootTimeline {
        self.watched.timeline().clone()
    }

    /// The last 64 KiB of the guest's console. It is the guest's text: do not print it to a
    /// terminal as it is.
    #[must_use]
    pub fn console(&self) -> Vec<u8> {
        self.watched.console.tail()
    }

    /// What does not work any more while the machine goes on, one line each: devices that the guest
    /// broke or the host failed, and a console log that is not written any more.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let broken = self.watched.broken().clone();
        let log = self.watched.console.problem();
        broken.into_iter().chain(log).collect()
    }

    /// How many records the audit log lacks so far, and why, in a line; `None`: it has all, or there is none. All is known when
    /// [`Sandbox::wait`] has returned.
    #[must_use]
    pub fn audit_problem(&self) -> Option<String> {
        self.watched.audited.as_ref().and_then(AuditState::problem)
    }

    /// How many records of the audit log were not exported so far, and why, in a line; `None`: none, or they were not to be. All is known when
    /// [`Sandbox::wait`] has returned.
    #[cfg(feature = "otel")]
    #[must_use]
    pub fn export_problem(&self) -> Option<String> {
        let audited = self.watched.audited.as_ref();
        audited.and_then(AuditState::export_problem)
    }

    /// What the guest was kept from in the shares so far: hidden and protected names, and files of several names. Each is told once, the
    /// first 256 of each share.
    #[must_use]
    pub fn refusals(&self) -> Vec<Refusal> {
        self.watched.refusals().clone()
    }

    /// What the guest was kept from on its network so far, each destination once, the first thousand of them.
    #[must_use]
    pub fn denied(&self) -> Vec<Denied> {
        self.watched
            .denied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What the guest got on its network so far only because the policy's mode is audit, as it would have been denied: each destination once, the first
    /// thousand of them.
    #[must_use]
    pub fn would_be_denied(&self) -> Vec<Denied> {
        self.watched
            .would_be_denied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Has the guest's network decide by `policy` from now on: what is new at once, and what it does not allow ends. Returns when that is so. Its audit log
    /// stays the one that it was started with. While the network has ended, the policy is the one by which it starts again. Cancel-safe: what was asked for is done.
    ///
    /// # Errors
    /// It is no policy, or there is no network; the policy before holds.
    pub async fn replace_policy(&self, policy: NetworkPolicy) -> Result<()> {
        policy.check()?;
        self.network()?.replace_policy(policy.layers).await
    }

    /// Has `ask` called, from now on, for each connection that the guest wants, that no rule allows and one could: it may be answered at once or later, from anywhere,
    /// and the guest's attempt waits. Names that such a rule could be for resolve then. Several attempts at one destination are one question, and 32 can wait. Not asked
    /// is about what a rule denies or the repository's policy leaves out, what is not public, and single requests of HTTP. `ask` is called by a task of
    /// the runtime: it must neither wait nor panic.
    ///
    /// # Errors
    /// There is no network, or it has ended.
    pub async fn on_denied(&self, ask: impl Fn(Question) + Send + Sync + 'static) -> Result<()> {
        self.network()?.on_denied(Arc::new(ask)).await
    }

    /// Where the ports are reached that [`SandboxBuilder::publish`] published, in that order.
    #[must_use]
    pub fn published(&self) -> &[SocketAddr] {
        &self.published
    }

    /// Publishes another port, as [`SandboxBuilder::publish`] does, until the sandbox ends, and says where it is reached.
    ///
    /// # Errors
    /// The address is no loopback address (caller), or in use; there is no network.
    pub async fn publish(&self, address: SocketAddr, port: u16) -> Result<SocketAddr> {
        let network = self.network()?;
        let published = Published::listen(address, port)?;
        let address = published.address()?;
        network.publish(published).await?;
        Ok(address)
    }

    /// Waits until the guest's network has ended while its machine goes on, and says why. The guest then reaches nothing, until
    /// [`Sandbox::restart_network`]. Pending for as long as that is not so, and for ever without a network. Cancel-safe.
    pub async fn network_ended(&self) -> String {
        match &self.network {
            Some(network) => network.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Starts the guest's network again when it has ended, in a new process, with the policy that held. The guest's connections are gone; its network
    /// device and what it knows of names go on. Quotas begin anew. Does nothing while there is a network. Cancel-safe: what was asked for is done.
    ///
    /// # Errors
    /// There was none, or the host's; then it can be asked for again.
    pub async fn restart_network(&self) -> Result<()> {
        self.network()?.restart().await
    }

    fn network(&self) -> Result<&GuestNetwork> {
        self.network.as_ref().ok_or_else(|| {
            let message = "this sandbox was started without a network: start one with a policy";
            Error::Config(message.into())
        })
    }

    /// What the guest has changed so far in each workspace that is not read-only. It reads what was changed, and blocks that long: in async
    /// code call it on a thread for such work.
    ///
    /// # Errors
    /// A workspace, or the directory with its changes, is not there any more or cannot be used.
    pub fn changes(&self) -> Result<Vec<(PathBuf, WorkspaceChanges)>> {
        self.changed.iter().map(Changed::read).collect()
    }

    /// The process id of the vmm worker.
    #[must_use]
    pub const fn worker_id(&self) -> Option<u32> {
        self.worker
    }

    /// The process id of the egress worker, which is the guest's network; of the last one, where there were several.
    #[must_use]
    pub fn egress_worker_id(&self) -> Option<u32> {
        let id = self.watched.egress_worker.load(Ordering::Acquire);
        (id != 0).then_some(id)
    }

    /// Waits for the sandbox to end and says why. The audit log, if there is one, is then written to its end, unless the disk takes longer than
    /// two seconds for it; what is to be exported (feature `otel`) gets five more. Cancel-safe.
    pub async fn wait(&self) -> EndReason {
        let end = self.watched.ended().await;
        if let Some(audited) = &self.watched.audited {
            // What it lacks then, it says itself when it goes on.
            let closed = tokio::time::timeout(DRAIN_LIMIT, audited.closed()).await;
            #[cfg(feature = "otel")]
            if closed.is_ok() {
                audited.exported().await;
            }
            drop(closed);
        }
        end.reason()
    }

    /// Ends the machine at once, as a power failure does. [`Sandbox::wait`] returns after it.
    pub fn kill(&self) {
        self.watched.kill.notify_one();
    }

    /// Ends the guest's processes, powers the guest off and waits for the end. A guest that does
    /// not do it in time is killed.
    ///
    /// # Errors
    /// None today; a later version may report what was lost.
    pub async fn stop(self) -> Result<EndReason> {
        let graceful = async {
            // A guest whose agent refuses or does not answer is killed below.
            drop(self.agent.shutdown(STOP_GRACE).await);
            self.wait().await
        };
        if let Ok(reason) = tokio::time::timeout(STOP_LIMIT, graceful).await {
            return Ok(reason);
        }
        self.kill();
        Ok(self.wait().await)
    }
}

/// Prepares the start; a workspace whose sandbox is just ending is waited for.
async fn prepare_when_free(config: &SandboxBuilder) -> Result<Prepared> {
    for _ in 0..BUSY_TRIES {
        match prepare(config) {
            Err(Error::Busy { .. }) => tokio::time::sleep(BUSY_PAUSE).await,
            result => return result,
        }
    }
    prepare(config)
}

fn configuration(config: &SandboxBuilder, prepared: &Prepared) -> Configure {
    // Git's templates hold hooks, which cannot be written where names are protected.
    let templates = config.rules.usual.then(|| b"GIT_TEMPLATE_DIR=".to_vec());
    let own = config.env.iter();
    let own = own.map(|(name, value)| format!("{name}={value}").into_bytes());
    let environment = templates.into_iter().chain(own);
    Configure {
        hostname: config.hostname.clone(),
        mounts: prepared.guest_mounts(),
        network: prepared.egress.is_some().then(network),
        environment: environment.map(Octets).collect(),
    }
}

fn network() -> Network {
    let network = netproxy::gateway::Network::default();
    Network {
        address: network.guest.octets(),
        prefix_len: network.prefix_len,
        gateway: network.gateway.octets(),
        mtu: network.mtu.get(),
    }
}

impl End {
    fn reason(self) -> EndReason {
        match self {
            Self::Ran(reason) => reason,
            Self::NotStarted(_, message) => EndReason::WorkerDied(message),
        }
    }

    fn error(self) -> Error {
        match self {
            Self::Ran(reason) => Error::Ended(reason),
            Self::NotStarted(fault, message) => Error::NotStarted { fault, message },
        }
    }
}

impl Watched {
    /// Of a sandbox of which nothing is known yet.
    fn new(
        console: Console,
        audited: Option<AuditState>,
        end: watch::Receiver<Option<End>>,
    ) -> Self {
        Self {
            console,
            timeline: Arc::default(),
            broken: Arc::default(),
            refusals: Arc::default(),
            denied: Arc::default(),
            egress_worker: Arc::default(),
            would_be_denied: Arc::default(),
            audited,
            end,
            kill: Arc::default(),
        }
    }

    fn timeline(&self) -> MutexGuard<'_, BootTimeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, phase: Phase, at: u64) {
        self.timeline().mark(phase, at);
    }

    fn broken(&self) -> MutexGuard<'_, Vec<String>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a worker says about a device. It says so once a device, unless it is not ours any more.
    fn note_broken(&self, device: &str) {
        let mut broken = self.broken();
        if broken.len() < MAX_BROKEN {
            broken.push(printable(device));
        }
    }

    fn refusals(&self) -> MutexGuard<'_, Vec<Refusal>> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_refusal(&self, refusal: &Refusal) {
        let mut refusals = self.refusals();
        if refusals.len() < MAX_REFUSALS {
            refusals.push(Refusal {
                reason: refusal.reason,
                path: printable_path(&refusal.path),
            });
        }
    }

    /// Keeps a destination that was, or would have been, denied.
    fn note_denied(list: &Mutex<Vec<Denied>>, denied: &Denied) {
        let mut all = list.lock().unwrap_or_else(PoisonError::into_inner);
        let denied = denied.checked();
        if all.len() < MAX_DENIED && !all.contains(&denied) {
            all.push(denied);
        }
    }

    fn set_egress_worker(&self, id: Option<u32>) {
        self.egress_worker
            .store(id.unwrap_or_default(), Ordering::Release);
    }

    async fn ended(&self) -> End {
        let mut end = self.end.clone();
        let ended = end
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|end| end.clone());
        // The sender goes without a value only when the supervisor was aborted.
        ended.unwrap_or(End::Ran(EndReason::Killed))
    }

    /// Carries out a call on the agent, and gives the sandbox's end as the reason when the agent
    /// went away because of it.
    async fn while_running<T>(
        &self,
        call: impl Future<Output = Result<T, crate::agent::AgentError>>,
    ) -> Result<T> {
        let error = match call.await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if !error.is_gone() {
            return Err(error.into());
        }
        // The stream to the agent closes a moment before the worker's end is known.
        match tokio::time::timeout(Duration::from_secs(2), self.ended()).await {
            Ok(end) => Err(end.error()),
            Err(_) => Err(error.into()),
        }
    }

    async fn ready(
        &self,
        stream: tokio::net::UnixStream,
        configure: Configure,
        network: Option<impl Future<Output = Result<()>>>,
        limit: Duration,
    ) -> Result<(AgentClient, BootFacts)> {
        let connect = async {
            let agent = AgentClient::connect(stream).await?;
            let facts = agent.configure(configure).await?;
            Ok((agent, facts))
        };
        let network = async {
            match network {
                Some(network) => network.await,
                None => Ok(()),
            }
        };
        let connect = async { tokio::try_join!(self.while_running(connect), network) };
        let ((agent, facts), ()) = tokio::select! {
            result = connect => result?,
            end = self.ended() => return Err(end.error()),
            () = tokio::time::sleep(limit) => {
                let console = self.console.last_line();
                return Err(Error::StartTimeout { seconds: limit.as_secs(), console });
            }
        };
        let now = monotonic_ns();
        self.mark(Phase::AgentReady, now);
        self.mark(
            Phase::InitStarted,
            now - facts.ready_ns.saturating_sub(facts.init_ns).min(now),
        );
        Ok((agent, facts))
    }
}

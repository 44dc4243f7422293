//! `coffer run`.

use std::process::ExitCode;
use std::time::Duration;

use sandbox::agent::{InputWriter, OutputReader};
use sandbox::{BootTimeline, Error, ExecSpec, ExitStatus, Process, Sandbox, SandboxBuilder};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::RunOptions;
use crate::failure::{SANDBOX_FAILED, TIMED_OUT, report};
use crate::terminal::{self, RawMode};

/// The user of our own root image, who is known before the guest is.
const AGENT: (&str, u32) = ("agent", 1000);

/// Runs the command and gives its exit status.
pub(crate) fn main(options: &RunOptions) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("coffer: cannot start: {error}");
            return ExitCode::from(SANDBOX_FAILED);
        }
    };
    let status = runtime.block_on(async {
        tokio::select! {
            result = run(options) => result.unwrap_or_else(|error| report(&error, options.json)),
            signal = ended_by_signal(options) => ExitCode::from(signal),
        }
    });
    // A thread may wait for standard input for ever; the process ends without it.
    runtime.shutdown_background();
    status
}

async fn run(options: &RunOptions) -> Result<ExitCode, Error> {
    let workspace = options.workspace.as_deref().map(absolute);
    let sandbox = settings(options, workspace.as_deref()).start().await?;
    if options.timeline {
        print_timeline(&sandbox.timeline(), options.json);
    }
    let tty = options.tty || (terminal::is_interactive() && options.workspace.is_some());
    let result = command(&sandbox, options, workspace.as_deref(), tty).await;
    if let Some(problem) = sandbox.console_problem() {
        eprintln!("coffer: {problem}");
    }
    // The command is done and its changes are on the host: the machine need not end gracefully.
    sandbox.kill();
    sandbox.wait().await;
    result
}

async fn command(
    sandbox: &Sandbox,
    options: &RunOptions,
    workspace: Option<&std::path::Path>,
    tty: bool,
) -> Result<ExitCode, Error> {
    let process = sandbox.exec(spec(options, workspace, tty)).await?;
    let _raw = tty.then(RawMode::enter);
    let limit = options.timeout.unwrap_or(Duration::MAX);
    let status = tokio::select! {
        status = stream(process, tty) => status.map_err(Error::from),
        () = sleep(limit) => return Ok(ExitCode::from(TIMED_OUT)),
    };
    match status {
        Ok(ExitStatus::Code(code)) => Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))),
        Ok(ExitStatus::Signal(signal)) => Ok(ExitCode::from(
            u8::try_from(128_i32.saturating_add(signal)).unwrap_or(u8::MAX),
        )),
        // The agent went because the machine did: its end is the reason worth telling.
        Err(Error::Agent(error)) if error.is_gone() => Err(Error::Ended(sandbox.wait().await)),
        Err(error) => Err(error),
    }
}

/// Waits for `limit`, or for ever where the clock does not reach that far.
async fn sleep(limit: Duration) {
    if limit == Duration::MAX {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(limit).await;
}

fn absolute(path: &std::path::Path) -> std::path::PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn settings(options: &RunOptions, workspace: Option<&std::path::Path>) -> SandboxBuilder {
    let mut builder = Sandbox::of(options.guest.files())
        .vcpus(options.cpus)
        .memory_mib(options.memory)
        .serial(options.serial);
    if let Some(workspace) = workspace {
        let mount = sandbox::Mount {
            host: workspace.to_owned(),
            guest: None,
            read_only: options.read_only,
        };
        builder = builder.mount(mount);
    }
    if let Some((uid, gid)) = options.user.as_deref().and_then(ids) {
        builder = builder.owner(uid, gid);
    }
    if let Some(file) = &options.console_log {
        builder = builder.console_log(file);
    }
    options
        .kernel_arg
        .iter()
        .fold(builder, SandboxBuilder::kernel_arg)
}

/// The numbers of a user, where they are known without asking the guest.
fn ids(user: &str) -> Option<(u32, u32)> {
    if user == AGENT.0 {
        return Some((AGENT.1, AGENT.1));
    }
    let (uid, gid) = user.split_once(':').unwrap_or((user, user));
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

fn spec(options: &RunOptions, workspace: Option<&std::path::Path>, tty: bool) -> ExecSpec {
    let program = options.command.first().map_or("", String::as_str);
    let mut spec = ExecSpec::new(program).args(options.command.iter().skip(1));
    if let Some(directory) = options.workdir.as_deref().or(workspace) {
        spec = spec.directory(directory);
    }
    for setting in &options.env {
        spec = match setting.split_once('=') {
            Some((name, value)) => spec.env(name, value),
            None => match std::env::var_os(setting) {
                Some(value) => spec.env(setting, value),
                None => spec,
            },
        };
    }
    if let Some(user) = &options.user {
        spec = match ids(user) {
            Some((uid, gid)) if user.starts_with(|c: char| c.is_ascii_digit()) => {
                spec.user(format!("{uid}:{gid}"))
            }
            _ => spec.user(user.clone()),
        };
    }
    if tty {
        let term = std::env::var("TERM").unwrap_or_else(|_| "xterm".into());
        return spec.env("TERM", term).terminal(terminal::size());
    }
    if options.interactive || !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return spec.piped_stdin();
    }
    spec
}

/// Connects our streams to the command's until it ends.
async fn stream(mut process: Process, tty: bool) -> Result<ExitStatus, sandbox::agent::AgentError> {
    let input = process.stdin.take().map(|input| tokio::spawn(feed(input)));
    let out = tokio::spawn(drain(process.stdout.take(), tokio::io::stdout()));
    let err = tokio::spawn(drain(process.stderr.take(), tokio::io::stderr()));
    let mut sizes = SizeChanges::new(tty);
    let status = loop {
        tokio::select! {
            status = process.wait() => break status,
            () = sizes.next() => {}
        }
        if let Err(error) = process.resize(terminal::size()).await {
            break Err(error);
        }
    };
    // What the command wrote has arrived; it only has to be printed.
    drop(out.await);
    drop(err.await);
    if let Some(input) = input {
        input.abort();
    }
    status
}

/// Changes of our terminal's size, which the command's has to follow.
struct SizeChanges(Option<tokio::signal::unix::Signal>);

impl SizeChanges {
    fn new(tty: bool) -> Self {
        Self(
            tty.then(|| signal(SignalKind::window_change()).ok())
                .flatten(),
        )
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some(changes) => drop(changes.recv().await),
            None => std::future::pending().await,
        }
    }
}

async fn feed(mut input: InputWriter) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 32 << 10];
    while let Ok(count @ 1..) = stdin.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        if input.write_all(bytes).await.is_err() || input.flush().await.is_err() {
            return; // The command closed its standard input.
        }
    }
    // The command may have closed it already.
    drop(input.shutdown().await);
}

async fn drain(output: Option<OutputReader>, mut to: impl AsyncWrite + Unpin) {
    if let Some(output) = output {
        drop(copy(output, &mut to).await);
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.flush().await;
        }
        to.write_all(buffer.get(..count).unwrap_or_default())
            .await?;
        to.flush().await?;
    }
}

/// Waits for the user to end us; the machine ends with its handle. Returns the exit status.
async fn ended_by_signal(options: &RunOptions) -> u8 {
    let wait = async |kind: SignalKind, number: u8| {
        match signal(kind) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        };
        128 + number
    };
    let status = tokio::select! {
        status = wait(SignalKind::interrupt(), 2) => status,
        status = wait(SignalKind::terminate(), 15) => status,
        status = wait(SignalKind::hangup(), 1) => status,
    };
    if !options.json {
        eprintln!("coffer: ended by a signal");
    }
    status
}

fn print_timeline(timeline: &BootTimeline, json: bool) {
    let phases = timeline
        .phases()
        .map(|(phase, at)| (phase.label(), at.as_secs_f64() * 1e3));
    if json {
        let phases: Vec<_> = phases
            .map(|(phase, ms)| serde_json::json!({ "phase": phase, "ms": ms }))
            .collect();
        eprintln!("{}", serde_json::json!({ "timeline": phases }));
    } else {
        phases.for_each(|(phase, ms)| eprintln!("{ms:9.2} ms  {phase}"));
    }
}

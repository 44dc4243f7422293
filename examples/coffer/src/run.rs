//! `coffer run`.

use std::process::ExitCode;
use std::time::Duration;

use sandbox::agent::User;
use sandbox::{
    BootTimeline, Error, ExecSpec, ExitStatus, NetworkPolicy, Refusal, Sandbox, SandboxBuilder,
    ShareCache, ShareMode,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::changes;
use crate::cli::{CacheOption, RunOptions};
use crate::failure::Failure;
use crate::network::{self, Sources};
use crate::policy_watch;
use crate::print::say;
use crate::streams;
use crate::terminal::{self, RawMode};

/// The user of our own root image, who is known before the guest is.
const AGENT: (&str, u32) = ("agent", 1000);
/// Names that are told of at the end.
const MOST_REFUSALS: usize = 8;

/// Runs the command and gives its exit status.
pub(crate) fn main(options: &RunOptions) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Start)?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = run(options) => result,
            number = ended_by_signal() => Err(Failure::Signal(number)),
        }
    });
    // A thread may wait for standard input for ever; the process ends without it.
    runtime.shutdown_background();
    result
}

async fn run(options: &RunOptions) -> Result<ExitCode, Failure> {
    let workspace = options.workspace.as_deref().map(absolute);
    let sources = Sources {
        policy: options.policy.as_deref(),
        allow: &options.allow,
        workspace: workspace.as_deref(),
    };
    let policy = policy(options, sources)?;
    let mut settings = settings(options, workspace.as_deref())?;
    if let Some(policy) = &policy {
        settings = settings.network(policy.clone());
    }
    if policy.is_some()
        && let Some(proxy) = network::upstream_proxy(options.upstream_proxy.as_deref())?
    {
        say(&format!(
            "coffer: connections go by the proxy {}",
            proxy.place()
        ));
        settings = settings.upstream_proxy(proxy);
    }
    let published = options.publish.iter();
    settings = published.fold(settings, |settings, (address, port)| {
        settings.publish(*address, *port)
    });
    let sandbox = settings.start().await?;
    for ((asked, port), address) in options.publish.iter().zip(sandbox.published()) {
        if asked.port() == 0 {
            say(&format!("coffer: port {port} of the guest is at {address}"));
        }
    }
    if options.timeline {
        print_timeline(&sandbox.timeline(), options.json);
    }
    let tty = options.tty || terminal::is_interactive();
    let policies = async {
        match policy {
            Some(policy) => {
                let log = options.audit_log.as_deref();
                policy_watch::follow(&sandbox, sources, log, policy).await
            }
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        result = command(&sandbox, options, workspace.as_deref(), tty) => result,
        never = policies => match never {},
        never = network::keep(&sandbox) => match never {},
    };
    for problem in sandbox.problems() {
        say(&format!("coffer: {problem}"));
    }
    // The command is done and its changes are on the host: the machine need not end gracefully.
    sandbox.kill();
    sandbox.wait().await;
    // It is known when the log is closed.
    if let Some(problem) = sandbox.audit_problem() {
        say(&format!("coffer: {problem}"));
    }
    #[cfg(feature = "otel")]
    if let Some(problem) = sandbox.export_problem() {
        say(&format!("coffer: {problem}"));
    }
    say_refusals(&sandbox.refusals());
    network::say_denied("not reached", &sandbox.denied());
    let audited = "let through by audit mode, otherwise denied";
    network::say_denied(audited, &sandbox.would_be_denied());
    match sandbox.changes() {
        Ok(workspaces) => workspaces
            .iter()
            .for_each(|(_, changes)| changes::say_summary(changes)),
        Err(error) => say(&format!("coffer: what was changed cannot be told: {error}")),
    }
    result
}

/// The policy of the guest's network, if it is to have one.
fn policy(options: &RunOptions, sources: Sources<'_>) -> Result<Option<NetworkPolicy>, Failure> {
    let log = options.audit_log.as_deref();
    let Some(policy) = network::policy(sources)? else {
        let problem = "--audit-log is about a network: give --policy or --allow, too";
        return match (log, options.publish.is_empty()) {
            (Some(_), true) => Err(Error::Config(problem.into()).into()),
            (None, true) => Ok(None),
            (log, false) => Ok(Some(network::logged(NetworkPolicy::new(), log))),
        };
    };
    network::say_mode(&policy);
    #[cfg(feature = "otel")]
    if log.is_none() {
        network::say_not_exported();
    }
    Ok(Some(network::logged(policy, log)))
}

/// Tells what the command was kept from: its own error messages cannot say why.
fn say_refusals(refusals: &[Refusal]) {
    for refusal in refusals.iter().take(MOST_REFUSALS) {
        say(&format!("coffer: kept from the guest: {refusal}"));
    }
    match refusals.len().saturating_sub(MOST_REFUSALS) {
        0 => {}
        more => say(&format!("coffer: and {more} more names")),
    }
}

async fn command(
    sandbox: &Sandbox,
    options: &RunOptions,
    workspace: Option<&std::path::Path>,
    tty: bool,
) -> Result<ExitCode, Failure> {
    let process = sandbox.exec(spec(options, workspace, tty)).await?;
    let _raw = tty.then(RawMode::enter);
    let limit = options.timeout.unwrap_or(Duration::MAX);
    let status = tokio::select! {
        status = streams::connect(process, tty) => status,
        () = sleep(limit) => Err(Failure::TimedOut(limit)),
    };
    match status {
        Ok(ExitStatus::Code(code)) => Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))),
        Ok(ExitStatus::Signal(signal)) => Ok(ExitCode::from(
            u8::try_from(128_i32.saturating_add(signal)).unwrap_or(u8::MAX),
        )),
        // The agent went because the machine did: its end is the reason worth telling.
        Err(Failure::Sandbox(Error::Agent(error))) if error.is_gone() => {
            Err(Error::Ended(sandbox.wait().await).into())
        }
        Err(failure) => Err(failure),
    }
}

/// Waits for `limit`, or for ever where the clock does not reach that far.
async fn sleep(limit: Duration) {
    if limit == Duration::MAX {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(limit).await;
}

pub(crate) fn absolute(path: &std::path::Path) -> std::path::PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn share_mode(options: &RunOptions, workspace: &std::path::Path) -> Result<ShareMode, Failure> {
    Ok(if options.overlay {
        let changes = changes::place(workspace, options.changes.as_deref())?;
        ShareMode::Overlay { changes }
    } else if options.read_only {
        ShareMode::ReadOnly
    } else {
        ShareMode::Direct
    })
}

fn settings(
    options: &RunOptions,
    workspace: Option<&std::path::Path>,
) -> Result<SandboxBuilder, Failure> {
    let mut builder = Sandbox::of(options.guest.files())
        .vcpus(options.cpus)
        .memory_mib(options.memory)
        .serial(options.serial);
    if let Some(workspace) = workspace {
        let mount = sandbox::Mount {
            host: workspace.to_owned(),
            guest: None,
            mode: share_mode(options, workspace)?,
        };
        match sandbox::git::repository(workspace, &mount.mode) {
            Ok(repository) => builder = repository.into_iter().fold(builder, SandboxBuilder::mount),
            Err(error) => say(&format!(
                "coffer: git will not work on {}: {error}",
                workspace.display()
            )),
        }
        builder = builder.mount(mount).share_cache(match options.cache {
            CacheOption::Auto => ShareCache::Auto,
            CacheOption::Always => ShareCache::Always,
            CacheOption::Never => ShareCache::Never,
        });
    }
    // Absolute, as the workspace is: the way to `../library` leads through the workspace itself.
    let beside = options.mounts.iter().map(|mount| sandbox::Mount {
        host: absolute(&mount.host),
        ..mount.clone()
    });
    builder = beside.fold(builder, SandboxBuilder::mount);
    builder = rules(options, builder);
    if let Some((uid, gid)) = options.user.as_deref().and_then(owner) {
        builder = builder.owner(uid, gid);
    }
    if let Some(file) = &options.console_log {
        builder = builder.console_log(file);
    }
    let arguments = options.kernel_arg.iter();
    Ok(arguments.fold(builder, SandboxBuilder::kernel_arg))
}

/// What the command may do in the workspace.
fn rules(options: &RunOptions, mut builder: SandboxBuilder) -> SandboxBuilder {
    if options.no_usual_rules {
        builder = builder.without_usual_rules();
    }
    if let Some(mib) = options.quota {
        builder = builder.quota_bytes(mib.saturating_mul(1 << 20));
    }
    if let Some(count) = options.quota_files {
        builder = builder.quota_files(count);
    }
    if options.writable_hard_links {
        builder = builder.writable_hard_links();
    }
    builder = options.hide.iter().fold(builder, SandboxBuilder::hide);
    options
        .protect
        .iter()
        .fold(builder, SandboxBuilder::protect)
}

/// The numbers of a user, where they are known without asking the guest.
fn owner(user: &str) -> Option<(u32, u32)> {
    match User::from(user) {
        User::Ids { uid, gid } => Some((uid, gid)),
        User::Name(name) => (name == AGENT.0).then_some((AGENT.1, AGENT.1)),
    }
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
        spec = spec.user(user.as_str());
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

/// Waits for the user to end us, and gives the signal's number; the machine ends with its handle.
async fn ended_by_signal() -> u8 {
    let wait = async |kind: SignalKind, number: u8| {
        match signal(kind) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        };
        number
    };
    tokio::select! {
        number = wait(SignalKind::interrupt(), 2) => number,
        number = wait(SignalKind::terminate(), 15) => number,
        number = wait(SignalKind::hangup(), 1) => number,
    }
}

fn print_timeline(timeline: &BootTimeline, json: bool) {
    let phases = timeline
        .phases()
        .map(|(phase, at)| (phase.label(), at.as_secs_f64() * 1e3));
    if json {
        let phases: Vec<_> = phases
            .map(|(phase, ms)| serde_json::json!({ "phase": phase, "ms": ms }))
            .collect();
        say(&serde_json::json!({ "timeline": phases }).to_string());
    } else {
        phases.for_each(|(phase, ms)| say(&format!("{ms:9.2} ms  {phase}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_belongs_to_users_whose_numbers_are_known() {
        for (user, ids) in [
            ("agent", Some((1000, 1000))),
            ("7", Some((7, 7))),
            ("7:8", Some((7, 8))),
            ("root", None),
            ("+7", None),
        ] {
            assert_eq!(owner(user), ids, "{user}");
        }
    }
}

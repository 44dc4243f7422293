//! The client against the real guest program's server (with real processes), and against guests that lie.

#![cfg(target_os = "linux")]

mod files;
mod hostile;
mod processes;
mod streams;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use sandbox_guest::protocol as theirs;
use sandbox_guest::serve::{Ending, Machine, ServeError, serve};
use tokio::net::UnixStream;

use super::*;

/// Longer than any of these takes on a busy machine: a hang becomes a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// A machine that has nothing to configure.
struct Bench;

impl Machine for Bench {
    fn configure(
        &mut self,
        wanted: &theirs::Configure,
    ) -> Result<theirs::BootFacts, theirs::ConfigureFailure> {
        match wanted.mounts.first() {
            Some(mount) => Err(theirs::ConfigureFailure {
                step: theirs::ConfigureStep::Mount(mount.tag.clone()),
                errno: 19,
            }),
            None => Ok(theirs::BootFacts {
                kernel: wanted.hostname.clone(),
                init_ns: 1,
                ready_ns: 2,
            }),
        }
    }

    fn child_events(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn cgroups(&self) -> Option<&Path> {
        None
    }
}

type Server = std::thread::JoinHandle<Result<Ending, ServeError>>;

fn stream_pair() -> (UnixStream, StdUnixStream) {
    let (ours, theirs) = StdUnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (UnixStream::from_std(ours).unwrap(), theirs)
}

fn start_server() -> (UnixStream, Server) {
    let (ours, theirs) = stream_pair();
    (
        ours,
        std::thread::spawn(move || serve(OwnedFd::from(theirs), &mut Bench)),
    )
}

/// A configured guest.
async fn guest() -> (AgentClient, Server) {
    let (stream, server) = start_server();
    let client = AgentClient::connect(stream).await.unwrap();
    let environment = ["CONFIGURED=yes", "BOTH=configured"].into_iter().collect();
    let facts = client
        .configure(Configure {
            network: None,
            hostname: "bench".into(),
            mounts: vec![],
            environment,
        })
        .await
        .unwrap();
    assert_eq!(
        facts,
        BootFacts {
            kernel: "bench".into(),
            init_ns: 1,
            ready_ns: 2
        }
    );
    (client, server)
}

fn sh(script: &str) -> ExecSpec {
    ExecSpec::new("sh").arg("-c").arg(script)
}

async fn output(client: &AgentClient, spec: ExecSpec) -> Output {
    within(async { client.exec(spec).await?.output().await })
        .await
        .unwrap()
}

async fn stdout(client: &AgentClient, spec: ExecSpec) -> String {
    String::from_utf8(output(client, spec).await.stdout).unwrap()
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("it hangs")
}

/// Waits until a process of this machine is gone (a zombie counts: nobody runs there any more).
async fn gone(pid: u32) {
    within(async {
        while is_running(pid) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

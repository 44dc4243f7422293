//! Egress workers that a guest has taken over: a script that says what it likes, and takes orders or does not.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use netproxy::proxy::MAX_QUESTIONS;

use super::*;
use crate::config::SandboxBuilder;
use crate::control;
use crate::host::Console;
use crate::network::NetworkPolicy;
use crate::plan::PolicyLayer;
use crate::{GuestFiles, Question};

/// Long enough for a script to start.
const LIMIT: Duration = Duration::from_secs(3);

/// A sandbox's network whose workers are the script.
struct Taken {
    network: GuestNetwork,
    begun: Result<()>,
    _files: tempfile::TempDir,
    _machine: OwnedFd,
    _end: watch::Sender<Option<End>>,
}

impl Taken {
    /// Each worker is `script`, which has the channel as its standard input, and `reports` in the file `said` beside it.
    async fn new(reports: &[Report], script: &str, ask: Option<Ask>) -> Self {
        let files = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = reports.iter().flat_map(control::encode).collect();
        fs::write(files.path().join("said"), bytes).unwrap();
        let broken = Report::Broken("x".repeat(1000));
        let on = control::encode(&broken).repeat(1000);
        fs::write(files.path().join("said-on"), on).unwrap();
        let program = files.path().join("worker");
        let head = "#!/bin/sh\nsaid=${0%worker}said\n";
        fs::write(&program, format!("{head}{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let config = SandboxBuilder::new(GuestFiles::locate()).worker_program(program);
        let (start, machine) = EgressStart::new(&NetworkPolicy::new(), &config).unwrap();
        let worker = loop {
            match start.spawn() {
                // A child of another test still has it open, which we have just written.
                Err(Error::Host { source, .. })
                    if source.kind() == io::ErrorKind::ExecutableFileBusy => {}
                worker => break worker.unwrap(),
            }
        };
        let (sender, end) = watch::channel(None);
        let watched = Watched::new(Console::new(None), None, end);
        let (network, begun) =
            GuestNetwork::follow_within(LIMIT, start, worker, watched, None, ask);
        Self {
            begun: begun.await,
            network,
            _files: files,
            _machine: machine,
            _end: sender,
        }
    }

    async fn ended(&self) -> String {
        let ended = tokio::time::timeout(4 * LIMIT, self.network.ended());
        ended.await.expect("it goes on")
    }
}

/// What a worker says that begins as it should.
fn begins(orders: usize) -> Vec<Report> {
    let mut reports = vec![Report::Phase(Phase::Confined, 1)];
    reports.extend((0..orders).map(|_| Report::Done(Ok(()))));
    reports
}

fn questions(count: u64) -> impl Iterator<Item = Report> {
    let denied = || Denied::new("a.example:443", "no rule allows this host", None);
    (0..count).map(move |number| Report::Question(number, denied()))
}

/// Talks, and reads nothing.
const TAKES_NOTHING: &str = "exec tail -c +1 -f \"$said\" >&0";
/// Talks, and then reads.
const TAKES_ORDERS: &str = "cat \"$said\" >&0; exec cat >/dev/null";

/// Talks on and on, and reads nothing.
const TALKS_ON: &str = "cat \"$said\" >&0; while :; do cat \"$said-on\" >&0 2>/dev/null; done";

#[tokio::test]
async fn one_that_does_not_do_what_it_is_ordered_is_ended_and_can_be_replaced() {
    let taken = Taken::new(&begins(1), TAKES_ORDERS, None).await;
    taken.begun.as_ref().unwrap();
    let refused = taken.network.replace_policy(Vec::new()).await;
    assert!(refused.is_err());
    let why = taken.ended().await;
    assert_eq!(why, "it did not do in time what it was ordered");
    taken.network.restart().await.unwrap();
}

#[tokio::test]
async fn one_that_talks_without_end_and_does_not_listen_is_ended() {
    let taken = Taken::new(&begins(1), TALKS_ON, None).await;
    taken.begun.as_ref().unwrap();
    // More than lies in a socket that nobody reads.
    let layer = |_| Layer {
        whose: PolicyLayer::Sandbox,
        origin: "x".into(),
        text: vec![b'#'; NetworkPolicy::LARGEST_LAYER],
    };
    let layers = (0..3).map(layer).collect();
    assert!(taken.network.replace_policy(layers).await.is_err());
    let why = taken.ended().await;
    assert_eq!(why, "it did not do in time what it was ordered");
}

#[tokio::test]
async fn one_that_never_begins_is_given_up() {
    let taken = Taken::new(&begins(0), TAKES_NOTHING, None).await;
    let why = taken.begun.as_ref().unwrap_err().to_string();
    assert!(why.contains("the egress worker does not answer"), "{why}");
    // What nobody waits for is told all the same.
    assert!(taken.ended().await.contains("does not answer"));
}

#[tokio::test]
async fn one_that_asks_unasked_is_ended() {
    let mut reports = begins(1);
    reports.extend(questions(1));
    let taken = Taken::new(&reports, TAKES_ORDERS, None).await;
    assert_eq!(taken.ended().await, "it asked what it was not to ask");
}

#[tokio::test]
async fn one_that_asks_without_end_gets_so_many_questions_and_no_more() {
    let held: Arc<Mutex<Vec<Question>>> = Arc::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let ask: Ask = {
        let (held, asked) = (Arc::clone(&held), Arc::clone(&asked));
        Arc::new(move |question| {
            asked.fetch_add(1, Ordering::Relaxed);
            held.lock().unwrap().push(question);
        })
    };
    let mut reports = begins(2);
    reports.extend(questions(20_000));
    let taken = Taken::new(&reports, TAKES_NOTHING, Some(Arc::clone(&ask))).await;
    assert_eq!(taken.ended().await, "it takes no orders");
    assert_eq!(asked.swap(0, Ordering::Relaxed), MAX_QUESTIONS);
    // One that listens is only told that nobody answers.
    reports.truncate(3 + 2 * MAX_QUESTIONS);
    reports.push(Report::Done(Ok(())));
    let taken = Taken::new(&reports, TAKES_ORDERS, Some(ask)).await;
    assert_eq!(taken.ended().await, "it did what it was not ordered");
    assert_eq!(asked.load(Ordering::Relaxed), MAX_QUESTIONS);
}

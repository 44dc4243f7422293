//! The server against hosts that do not keep to the protocol, and as the parent of every process. What an orderly host sees is
//! tested with the real client, in the `sandbox` crate.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::*;
use crate::protocol::{
    Event, ExecRequest, ExitStatus, FrameDecoder, Id, Octets, Request, Stream, TerminalSize,
    VERSION, WINDOW, encode,
};

/// Longer than any of these takes on a busy machine: a hang becomes a failure.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    child_events: Option<BorrowedFd<'static>>,
}

impl Machine for Bench {
    fn configure(&mut self, _wanted: &Configure) -> Result<BootFacts, ConfigureFailure> {
        Ok(BootFacts::default())
    }

    fn child_events(&self) -> Option<BorrowedFd<'_>> {
        self.child_events
    }

    fn cgroups(&self) -> Option<&Path> {
        None
    }
}

/// A host that sends what it is told to.
struct Host {
    stream: UnixStream,
    decoder: FrameDecoder<Event>,
    received: Vec<Event>,
    /// Bytes of output that came, of all execs.
    output: u32,
}

impl Host {
    fn over(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: FrameDecoder::default(),
            received: Vec::new(),
            output: 0,
        }
    }

    fn send(&mut self, requests: &[Request]) {
        let mut bytes = Vec::new();
        requests
            .iter()
            .for_each(|request| encode(request, &mut bytes).unwrap());
        self.stream.write_all(&bytes).unwrap();
    }

    /// Reads until an event that is wanted has come, or to the end of the connection.
    fn wait_for(&mut self, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(found) = self.received.iter().position(&wanted) {
                return Some(self.received.remove(found));
            }
            let len = self.stream.read(&mut buffer).unwrap_or(0);
            let mut input = &buffer[..len];
            if input.is_empty() {
                return None;
            }
            while let Some(event) = self.decoder.decode(&mut input).unwrap() {
                if let Event::Output { bytes, .. } = &event {
                    self.output += u32::try_from(bytes.0.len()).unwrap();
                }
                self.received.push(event);
            }
        }
    }

    /// Reads until this much output has come, in all.
    fn wait_for_output(&mut self, wanted: u32) {
        while self.output < wanted {
            let came = self.wait_for(|event| matches!(event, Event::Output { .. }));
            assert!(came.is_some(), "only {} bytes came", self.output);
        }
    }

    fn status(&mut self, wanted: Id) -> Option<ExitStatus> {
        match self.wait_for(|event| matches!(event, Event::Exited { id, .. } if *id == wanted)) {
            Some(Event::Exited { status, .. }) => Some(status),
            _ => None,
        }
    }
}

fn start() -> (Host, JoinHandle<Result<Ending, ServeError>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server =
        std::thread::spawn(move || serve(OwnedFd::from(theirs), &mut Bench { child_events: None }));
    (Host::over(ours), server)
}

fn opening() -> Vec<Request> {
    vec![
        Request::Hello { version: VERSION },
        Request::Configure(Configure::default()),
    ]
}

fn sh(id: Id, script: &str) -> Request {
    let argv = ["sh", "-c", script].into_iter().collect();
    Request::Exec(ExecRequest {
        id,
        argv,
        stdin: true,
        ..ExecRequest::default()
    })
}

/// How serving ends after `requests`, the host still being there.
fn ending_after(requests: &[Request]) -> Result<Ending, ServeError> {
    let (mut host, server) = start();
    let mut bytes = Vec::new();
    requests
        .iter()
        .for_each(|request| encode(request, &mut bytes).unwrap());
    // The server may hang up before it has taken all of it.
    let _ = host.stream.write_all(&bytes);
    let ending = server.join().unwrap();
    assert_eq!(host.wait_for(|_| false), None, "the connection ends");
    ending
}

#[test]
fn requests_that_make_no_sense_end_the_connection() {
    let hello = Request::Hello { version: VERSION };
    let configure = Request::Configure(Configure::default());
    let read = |id| Request::ReadFile {
        id,
        path: "/proc/self/maps".into(),
        offset: 0,
        limit: 9,
    };
    let write = |id| Request::WriteFile {
        id,
        path: "/no/such/file".into(),
        mode: 0,
    };
    let tails: [Vec<Request>; 6] = [
        vec![hello.clone()],
        vec![configure.clone()],
        vec![sh(1, "sleep 100"), sh(1, "true")],
        vec![sh(1, "sleep 100"), read(1)],
        vec![sh(1, "sleep 100"), write(1)],
        vec![sh(1, "sleep 100"), Request::Signal { id: 1, signal: 99 }],
    ];
    let whole = tails.into_iter().map(|tail| [opening(), tail].concat());
    let unopened = [
        vec![Request::Ping { token: 1 }],
        vec![configure],
        vec![hello, sh(1, "true")],
    ];
    for requests in whole.chain(unopened) {
        let ending = ending_after(&requests);
        assert!(
            matches!(ending, Err(ServeError::Request(_))),
            "{requests:?}: {ending:?}"
        );
    }
}

#[test]
fn another_version_is_told_ours() {
    let (mut host, server) = start();
    host.send(&[Request::Hello {
        version: VERSION + 7,
    }]);
    let answer = host.wait_for(|_| true);
    assert_eq!(answer, Some(Event::Hello { version: VERSION }));
    assert!(
        matches!(server.join().unwrap(), Err(ServeError::Version(version)) if version == VERSION + 7)
    );
}

#[test]
fn broken_windows_end_the_connection() {
    let flood = vec![
        Request::Input {
            id: 1,
            bytes: Octets(vec![0; 32 * 1024])
        };
        16
    ];
    let overgrant = Request::OutputCredit {
        id: 1,
        stream: Stream::Stdout,
        bytes: WINDOW,
    };
    for tail in [
        [vec![sh(1, "sleep 100")], flood].concat(),
        vec![sh(1, "sleep 100"), overgrant],
    ] {
        let ending = ending_after(&[opening(), tail].concat());
        assert!(matches!(ending, Err(ServeError::Credit(_))), "{ending:?}");
    }
}

#[test]
fn malformed_frames_end_the_connection() {
    let mut good = Vec::new();
    opening()
        .iter()
        .for_each(|request| encode(request, &mut good).unwrap());
    let bad: [&[u8]; 4] = [
        &[0xff; 4],
        &[1, 0, 0, 0, 77],
        &[0, 0, 0, 0],
        &[3, 0, 0, 0, 11, 1, 1],
    ];
    for prefix in [&[][..], &good] {
        for bytes in bad {
            let (mut host, server) = start();
            host.stream.write_all(&[prefix, bytes].concat()).unwrap();
            assert!(
                matches!(server.join().unwrap(), Err(ServeError::Frame(_))),
                "{bytes:?}"
            );
        }
    }
}

#[test]
fn an_end_of_the_connection_is_told_apart_from_a_broken_one() {
    let (host, server) = start();
    drop(host);
    assert_eq!(server.join().unwrap().unwrap(), Ending::HostGone);
    let (mut host, server) = start();
    host.stream.write_all(&[9, 0]).unwrap();
    drop(host);
    assert!(matches!(server.join().unwrap(), Err(ServeError::Frame(_))));
}

#[test]
fn what_crosses_with_an_end_is_ignored() {
    let (mut host, _server) = start();
    host.send(&[opening(), vec![sh(1, "exit 3")]].concat());
    assert_eq!(host.status(1), Some(ExitStatus::Code(3)));
    host.send(&[
        Request::Input {
            id: 1,
            bytes: "late".into(),
        },
        Request::InputEnd { id: 1 },
        Request::OutputCredit {
            id: 1,
            stream: Stream::Stdout,
            bytes: 1,
        },
        Request::Signal { id: 1, signal: 9 },
        Request::Cancel { id: 1 },
        Request::Ping { token: 4 },
    ]);
    assert!(
        host.wait_for(|event| *event == Event::Pong { token: 4 })
            .is_some()
    );
}

#[test]
fn more_transfers_than_the_cap_are_refused() {
    use crate::protocol::MAX_TRANSFERS;

    let (mut host, _server) = start();
    host.send(&opening());
    let path = std::env::temp_dir().join(format!("cofferdam-cap-{}", std::process::id()));
    let name = Octets(path.as_os_str().as_encoded_bytes().to_vec());
    let cap = Id::try_from(MAX_TRANSFERS).unwrap();
    let writes: Vec<_> = (0..=cap)
        .map(|id| Request::WriteFile {
            id,
            path: name.clone(),
            mode: 0o600,
        })
        .collect();
    host.send(&writes);
    let refused = host.wait_for(|event| matches!(event, Event::TransferEnd { .. }));
    assert_eq!(
        refused,
        Some(Event::TransferEnd {
            id: cap,
            result: Err(libc::EMFILE)
        })
    );
    std::fs::remove_file(&path).unwrap();
}

/// An exec leaves a process behind that holds its output, and more in it than there is credit for.
fn holder_of_output_is_not_waited_for(terminal: Option<TerminalSize>) {
    const REST: u32 = 1000;
    let (mut host, _server) = start();
    host.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The end of a terminal's first process hangs up on the others.
    let script = format!(
        "trap '' HUP; sleep 600 & head -c {} /dev/zero; exit 5",
        WINDOW + REST
    );
    let mut request = sh(1, &script);
    if let Request::Exec(exec) = &mut request {
        exec.terminal = terminal;
    }
    host.send(&[opening(), vec![request]].concat());
    let started = host.wait_for(|event| matches!(event, Event::Started { .. }));
    let Some(Event::Started { pid, .. }) = started else {
        panic!("not started: {started:?}")
    };
    host.wait_for_output(WINDOW);
    // Gone from there means reaped by the server.
    while Path::new(&format!("/proc/{pid}")).exists() {
        std::thread::yield_now();
    }
    for bytes in [1, REST - 2, 7] {
        host.send(&[Request::OutputCredit {
            id: 1,
            stream: Stream::Stdout,
            bytes,
        }]);
    }
    let status = host.status(1);
    let group = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process_group(group, Signal::KILL).unwrap();
    assert_eq!(status, Some(ExitStatus::Code(5)));
    assert_eq!(host.output, WINDOW + REST, "all that it wrote itself");
    let ends = |stream| move |event: &&Event| **event == Event::OutputEnd { id: 1, stream };
    for stream in [Stream::Stdout, Stream::Stderr] {
        assert_eq!(host.received.iter().filter(ends(stream)).count(), 1);
    }
}

#[test]
fn a_background_process_that_holds_a_pipe_is_not_waited_for() {
    holder_of_output_is_not_waited_for(None);
}

#[test]
fn a_background_process_that_holds_a_terminal_is_not_waited_for() {
    holder_of_output_is_not_waited_for(Some(TerminalSize {
        rows: 9,
        columns: 9,
    }));
}

/// Set for the process that plays PID 1.
const ROLE: &str = "COFFERDAM_TEST_PARENT_OF_ALL";

/// The other process of [`the_parent_of_all_reaps_orphans`]: serves its standard input as PID 1 would. Does nothing in an ordinary run.
#[test]
fn parent_of_all() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let connection = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).unwrap();
    let child_events = Some(crate::sys::child_events().unwrap());
    let ending = serve(connection, &mut Bench { child_events }).unwrap();
    assert_eq!(ending, Ending::HostGone);
}

#[test]
fn the_parent_of_all_reaps_orphans() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serve::tests::parent_of_all", "--test-threads=1"])
        .env(ROLE, "1")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut host = Host::over(ours);
    host.send(&opening());
    // Each leaves a child behind that ends later, with nobody but the server to reap it.
    for id in 1..=20 {
        host.send(&[sh(
            id,
            "sh -c 'exec >/dev/null; read line < /dev/null' & exit 4",
        )]);
        assert_eq!(host.status(id), Some(ExitStatus::Code(4)));
    }
    host.send(&[sh(21, "kill -9 $$")]);
    assert_eq!(host.status(21), Some(ExitStatus::Signal(9)));
    while children_of(parent.id()) > 0 {
        host.send(&[Request::Ping { token: 1 }]);
        assert!(
            host.wait_for(|event| matches!(event, Event::Pong { .. }))
                .is_some()
        );
    }
    drop(host);
    assert!(parent.wait().unwrap().success());
}

/// Children of a process, the dead ones included.
fn children_of(parent: u32) -> usize {
    let stat = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("stat")).ok();
    let parent_in = |stat: &str| stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok();
    let entries = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| stat(entry.ok()?));
    entries
        .filter(|stat| parent_in(stat) == Some(parent))
        .count()
}

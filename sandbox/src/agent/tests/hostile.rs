//! Guests that break the protocol, and connections that break.

use std::io::{Read, Write};

use super::*;
use crate::protocol::{
    CreditError, Event, FrameDecoder, FrameError, Id, MAX_DATA, Octets, Peer, Request, Stream,
    VERSION, WINDOW, encode,
};

/// A guest that greets, waits for one request, says `script`, and then takes whatever it is sent.
fn liar(script: Vec<u8>) -> UnixStream {
    let (ours, mut theirs) = stream_pair();
    std::thread::spawn(move || {
        theirs
            .write_all(&frames(&[Event::Hello { version: VERSION }]))
            .unwrap();
        // The greeting and the request may come in one piece.
        if take_requests(&mut theirs, 2) {
            let _ = theirs.write_all(&script);
        }
        while theirs.read(&mut [0; 4096]).unwrap_or(0) > 0 {}
    });
    ours
}

/// Reads until so many requests have come; `false` if the connection ends before.
fn take_requests(from: &mut StdUnixStream, mut count: usize) -> bool {
    let mut decoder = FrameDecoder::<Request>::default();
    let mut buffer = [0; 4096];
    while count > 0 {
        let len = from.read(&mut buffer).unwrap_or(0);
        let mut input = &buffer[..len];
        if input.is_empty() {
            return false;
        }
        while decoder.decode(&mut input).unwrap().is_some() {
            count = count.saturating_sub(1);
        }
    }
    true
}

fn frames(events: &[Event]) -> Vec<u8> {
    let mut out = Vec::new();
    events
        .iter()
        .for_each(|event| encode(event, &mut out).unwrap());
    out
}

fn output(id: Id, len: usize) -> Event {
    Event::Output {
        id,
        stream: Stream::Stdout,
        bytes: Octets(vec![0; len]),
    }
}

/// What a client that runs one command makes of it.
async fn verdict(script: Vec<u8>) -> AgentError {
    let client = AgentClient::connect(liar(script)).await.unwrap();
    let mut process = match within(client.exec(sh("true"))).await {
        Ok(process) => process,
        Err(error) => return error,
    };
    within(process.wait()).await.unwrap_err()
}

#[tokio::test]
async fn every_lie_ends_the_connection_with_its_name() {
    let started = Event::Started { id: 1, pid: 5 };
    let after_start = |event: Event| frames(&[started.clone(), event]);
    let unknown = |id| GuestFault::UnknownId(id);
    let exit = |id| Event::Exited {
        id,
        status: ExitStatus::Code(0),
    };
    let flood = [
        vec![started.clone()],
        vec![output(1, MAX_DATA); 8],
        vec![output(1, 1)],
    ]
    .concat();
    let overgrant = CreditError::Overgrant {
        granted: 1,
        credit: WINDOW,
    };
    let cases = [
        (frames(&[Event::Started { id: 9, pid: 1 }]), unknown(9)),
        (frames(&[output(1, 1)]), unknown(1)),
        (frames(&[exit(1)]), unknown(1)),
        (
            after_start(started.clone()),
            GuestFault::Unasked("a second start"),
        ),
        (after_start(output(2, 1)), unknown(2)),
        (after_start(exit(2)), unknown(2)),
        (
            after_start(Event::ExecFailed {
                id: 1,
                reason: ExecFailure::NotFound,
            }),
            unknown(1),
        ),
        (
            after_start(Event::TransferEnd {
                id: 1,
                result: Ok(0),
            }),
            unknown(1),
        ),
        (after_start(Event::InputClosed { id: 3 }), unknown(3)),
        (
            after_start(Event::OutputEnd {
                id: 3,
                stream: Stream::Stderr,
            }),
            unknown(3),
        ),
        (
            after_start(Event::InputCredit { id: 1, bytes: 1 }),
            overgrant.into(),
        ),
        (
            frames(&flood),
            CreditError::Overrun { sent: 1, credit: 0 }.into(),
        ),
        (
            after_start(Event::Hello { version: VERSION }),
            GuestFault::Unasked("a second greeting"),
        ),
        (
            after_start(Event::Ready(BootFacts::default())),
            GuestFault::Unasked("that it is configured"),
        ),
        (
            after_start(Event::Pong { token: 1 }),
            GuestFault::Unasked("a pong"),
        ),
        (
            vec![1, 0, 0, 0, 99],
            FrameError::UnknownKind {
                sender: Peer::Guest,
                kind: 99,
            }
            .into(),
        ),
        (
            vec![0xff; 4],
            FrameError::Oversize {
                sender: Peer::Guest,
                len: 0xffff_ffff,
                max: 65536,
            }
            .into(),
        ),
    ];
    for (script, expected) in cases {
        match verdict(script).await {
            AgentError::Protocol(fault) => assert_eq!(fault, expected),
            other => panic!("{expected:?}, not {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_event_after_the_exit_is_a_lie() {
    let exit = Event::Exited {
        id: 1,
        status: ExitStatus::Code(3),
    };
    let client = AgentClient::connect(liar(frames(&[
        Event::Started { id: 1, pid: 5 },
        exit,
        output(1, 1),
    ])))
    .await
    .unwrap();
    let mut process = client.exec(sh("true")).await.unwrap();
    assert_eq!(
        process.wait().await.unwrap(),
        ExitStatus::Code(3),
        "what was told before it counts"
    );
    let error = within(client.ping()).await.unwrap_err();
    assert!(
        matches!(error, AgentError::Protocol(GuestFault::UnknownId(1))),
        "{error:?}"
    );
    assert_eq!(error.fault(), hv_core::Fault::Guest);
}

#[tokio::test]
async fn a_guest_that_ends_is_gone_for_everybody() {
    let (ours, mut theirs) = stream_pair();
    theirs
        .write_all(&frames(&[Event::Hello { version: VERSION }]))
        .unwrap();
    let client = AgentClient::connect(ours).await.unwrap();
    let calls = client.clone();
    let exec = tokio::spawn(async move { calls.exec(sh("true")).await.map(drop) });
    let calls = client.clone();
    let read = tokio::spawn(async move { calls.read_file(b"/x", 0, 1).await.map(drop) });
    let calls = client.clone();
    let ping = tokio::spawn(async move { calls.ping().await });
    let asked = tokio::task::spawn_blocking(move || take_requests(&mut theirs, 4));
    assert!(
        within(asked).await.unwrap(),
        "the greeting and three requests, and then the end"
    );
    for call in [exec, read, ping] {
        let error = within(call).await.unwrap().unwrap_err();
        assert!(error.is_gone(), "{error:?}");
    }
    assert!(
        client
            .configure(Configure::default())
            .await
            .unwrap_err()
            .is_gone()
    );
}

#[tokio::test]
async fn an_end_inside_a_frame_is_the_guests_fault() {
    let (ours, mut theirs) = stream_pair();
    theirs
        .write_all(&frames(&[Event::Hello { version: VERSION }]))
        .unwrap();
    let client = AgentClient::connect(ours).await.unwrap();
    theirs.write_all(&[5, 0]).unwrap();
    drop(theirs);
    let error = within(async {
        loop {
            if let Err(error) = client.ping().await {
                break error;
            }
        }
    })
    .await;
    let truncated = FrameError::Truncated {
        sender: Peer::Guest,
    };
    // Our own write may meet the closed end first.
    assert!(
        error.is_gone()
            || matches!(&error, AgentError::Protocol(fault) if *fault == truncated.into()),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_reader_learns_of_a_broken_connection_after_what_had_come() {
    use tokio::io::AsyncReadExt;

    let script = frames(&[
        Event::Started { id: 1, pid: 5 },
        output(1, 3),
        Event::Pong { token: 77 },
    ]);
    let client = AgentClient::connect(liar(script)).await.unwrap();
    let mut process = client.exec(sh("true")).await.unwrap();
    let mut bytes = Vec::new();
    let error = within(process.stdout.as_mut().unwrap().read_to_end(&mut bytes))
        .await
        .unwrap_err();
    assert_eq!(
        (bytes.len(), error.kind()),
        (3, std::io::ErrorKind::ConnectionAborted)
    );
}

async fn connect_error(greeting: Vec<u8>) -> AgentError {
    let (ours, mut theirs) = stream_pair();
    theirs.write_all(&greeting).unwrap();
    // It still listens, so that our own greeting does not fail first.
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    within(AgentClient::connect(ours)).await.unwrap_err()
}

#[tokio::test]
async fn greetings_are_checked() {
    let hello = |version| Event::Hello { version };
    let error = connect_error(frames(&[hello(VERSION + 1)])).await;
    assert!(
        matches!(error, AgentError::Version { host: VERSION, guest } if guest == VERSION + 1),
        "{error:?}"
    );
    let lies = [
        frames(&[Event::Pong { token: 1 }]),
        frames(&[hello(VERSION), Event::Pong { token: 1 }]),
        vec![0xff; 8],
        vec![1, 0, 0, 0, 50],
    ];
    for lie in lies {
        let error = connect_error(lie).await;
        assert!(matches!(error, AgentError::Protocol(_)), "{error:?}");
    }
}

#[tokio::test]
async fn what_a_guest_lets_wait_is_bounded() {
    let client = AgentClient::connect(liar(vec![])).await.unwrap();
    let (read, write, ping) = (
        || client.read_file(b"/x", 0, 1),
        || client.write_file(b"/x", 0, b""),
        || client.ping(),
    );
    for _ in 0..crate::protocol::MAX_EXECS + crate::protocol::MAX_TRANSFERS {
        // A caller that gives up does not free the guest of its answer.
        within(until_asked(read())).await;
        within(until_asked(ping())).await;
    }
    let refusals = [
        within(read()).await.map(drop),
        within(write()).await,
        within(ping()).await,
        within(client.exec(sh("true"))).await.map(drop),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Err(AgentError::TooMany)), "{refusal:?}");
    }
}

/// Polls a call once, which queues its request.
async fn until_asked(call: impl Future) {
    tokio::select! { biased; _ = call => panic!("nobody answers"), () = tokio::task::yield_now() => {} }
}

#[tokio::test]
async fn a_silent_guest_is_gone() {
    assert!(connect_error(vec![]).await.is_gone());
}

#[tokio::test]
async fn a_request_that_does_not_fit_is_the_callers_fault() {
    let (client, _server) = guest().await;
    let error = client
        .exec(sh("true").env("BIG", "x".repeat(300_000)))
        .await
        .unwrap_err();
    assert!(matches!(error, AgentError::Request(_)), "{error:?}");
    assert_eq!(error.fault(), hv_core::Fault::Caller);
    assert!(
        super::output(&client, sh("true").env("LARGE", "x".repeat(100_000)))
            .await
            .success()
    );
}

use proptest::prelude::*;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn frame<M: Message>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, &mut out).unwrap();
    out
}

fn exec_request() -> ExecRequest {
    ExecRequest {
        id: 7,
        argv: ["ls", "-l"].into_iter().collect(),
        environment: ["A=1"].into_iter().collect(),
        directory: Some("/tmp".into()),
        user: Some(User::Ids {
            uid: 1000,
            gid: 100,
        }),
        terminal: Some(TerminalSize {
            rows: 24,
            columns: 80,
        }),
        stdin: true,
    }
}

fn configure() -> Configure {
    Configure {
        hostname: "box".into(),
        mounts: vec![
            Mount {
                tag: "ws".into(),
                entry: None,
                path: "/w".into(),
                read_only: true,
            },
            Mount {
                tag: "more".into(),
                entry: Some(7),
                path: "/m".into(),
                read_only: false,
            },
        ],
        network: Some(Network {
            address: [100, 64, 0, 2],
            prefix_len: 30,
            gateway: [100, 64, 0, 1],
            mtu: 1500,
        }),
        environment: ["B=2"].into_iter().collect(),
    }
}

/// One of each kind of request, with the body that it has on the wire.
fn requests() -> Vec<(Request, &'static str)> {
    let named = ExecRequest {
        user: Some(User::Name("me".into())),
        ..ExecRequest::default()
    };
    vec![
        (Request::Hello { version: 300 }, "00ac02"),
        (
            Request::Configure(configure()),
            "0103626f780202777300022f7701046d6f72650107022f6d0001644000021e64400001dc0b0103423d32",
        ),
        (
            Request::Exec(exec_request()),
            "020702026c73022d6c0103413d3101042f746d700101e8076401185001",
        ),
        (Request::Exec(named), "02000000000100026d650000"),
        (
            Request::Input {
                id: 7,
                bytes: "hi".into(),
            },
            "0307026869",
        ),
        (Request::InputEnd { id: 128 }, "048001"),
        (
            Request::OutputCredit {
                id: 7,
                stream: Stream::Stderr,
                bytes: 65536,
            },
            "050701808004",
        ),
        (
            Request::Resize {
                id: 7,
                size: TerminalSize {
                    rows: 50,
                    columns: 200,
                },
            },
            "060732c801",
        ),
        (Request::Signal { id: 7, signal: 15 }, "07071e"),
        (
            Request::ReadFile {
                id: 8,
                path: "/a".into(),
                offset: 1,
                limit: u64::MAX,
            },
            "0808022f6101ffffffffffffffffff01",
        ),
        (
            Request::WriteFile {
                id: 9,
                path: "/b".into(),
                mode: 0o644,
            },
            "0909022f62a403",
        ),
        (Request::Cancel { id: 9 }, "0a09"),
        (Request::Ping { token: 5 }, "0b05"),
        (Request::Shutdown { grace_ms: 2000 }, "0cd00f"),
    ]
}

/// One of each kind of event, and of each reason and result.
fn events() -> Vec<(Event, &'static str)> {
    let failure = |step| Event::ConfigureFailed(ConfigureFailure { step, errno: 2 });
    let refused = |reason| Event::ExecFailed { id: 7, reason };
    vec![
        (Event::Hello { version: 1 }, "0001"),
        (
            Event::Ready(BootFacts {
                kernel: "6.1".into(),
                init_ns: 1,
                ready_ns: 300,
            }),
            "0103362e3101ac02",
        ),
        (failure(ConfigureStep::Hostname), "020004"),
        (failure(ConfigureStep::Mount("ws".into())), "020102777304"),
        (failure(ConfigureStep::Network), "020204"),
        (Event::Started { id: 7, pid: 42 }, "03072a"),
        (refused(ExecFailure::NotFound), "040700"),
        (refused(ExecFailure::NotExecutable), "040701"),
        (refused(ExecFailure::NoSuchUser), "040702"),
        (refused(ExecFailure::NoSuchDirectory), "040703"),
        (refused(ExecFailure::TooMany), "040704"),
        (refused(ExecFailure::Other(12)), "04070518"),
        (
            Event::Output {
                id: 7,
                stream: Stream::Stdout,
                bytes: "hi".into(),
            },
            "050700026869",
        ),
        (
            Event::OutputEnd {
                id: 7,
                stream: Stream::Stderr,
            },
            "060701",
        ),
        (Event::InputCredit { id: 7, bytes: 1 }, "070701"),
        (Event::InputClosed { id: 7 }, "0807"),
        (
            Event::Exited {
                id: 7,
                status: ExitStatus::Code(1),
            },
            "09070002",
        ),
        (
            Event::Exited {
                id: 7,
                status: ExitStatus::Signal(9),
            },
            "09070112",
        ),
        (
            Event::TransferEnd {
                id: 8,
                result: Ok(3),
            },
            "0a080003",
        ),
        (
            Event::TransferEnd {
                id: 8,
                result: Err(2),
            },
            "0a080104",
        ),
        (Event::Pong { token: 5 }, "0b05"),
    ]
}

fn check_golden<M: Message + PartialEq + std::fmt::Debug>(table: &[(M, &str)]) {
    let mut kinds = std::collections::BTreeSet::new();
    for (message, body) in table {
        let bytes = frame(message);
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().unwrap();
        assert_eq!(
            hex(rest),
            *body,
            "{message:?}: the wire has changed; if that is meant, raise VERSION"
        );
        assert_eq!(u32::from_le_bytes(*header) as usize, rest.len());
        let decoded = FrameDecoder::<M>::default()
            .decode(&mut bytes.as_slice())
            .unwrap();
        assert_eq!(decoded.as_ref(), Some(message));
        kinds.insert(rest[0]);
    }
    assert_eq!(
        kinds.into_iter().map(u32::from).collect::<Vec<_>>(),
        (0..M::KINDS).collect::<Vec<_>>(),
        "every kind, and KINDS of them"
    );
}

#[test]
fn the_encoding_does_not_drift() {
    check_golden(&requests());
    check_golden(&events());
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(body);
    bytes
}

fn event_error(bytes: &[u8]) -> FrameError {
    FrameDecoder::<Event>::default()
        .decode(&mut &*bytes)
        .unwrap_err()
}

#[test]
fn bad_frames_name_the_sender() {
    let guest = Peer::Guest;
    assert_eq!(
        event_error(&framed(&[12])),
        FrameError::UnknownKind {
            sender: guest,
            kind: 12
        }
    );
    assert_eq!(
        event_error(&framed(&[0xff, 0xff, 0x03])),
        FrameError::UnknownKind {
            sender: guest,
            kind: 65535
        }
    );
    assert_eq!(
        event_error(&framed(&[8, 7, 0])),
        FrameError::Trailing {
            sender: guest,
            extra: 1
        }
    );
    let malformed: [&[u8]; 7] = [
        &[],
        &[8],
        &[4, 7, 6],
        &[5, 7, 2, 0],
        &[5, 7, 0, 3, 1],
        &[0xff; 6],
        &[1, 1, 0xff, 0, 0],
    ];
    for body in malformed {
        let error = event_error(&framed(body));
        assert!(
            matches!(
                error,
                FrameError::Malformed {
                    sender: Peer::Guest,
                    ..
                }
            ),
            "{body:?}: {error:?}"
        );
    }
    let host = FrameDecoder::<Request>::default()
        .decode(&mut &*framed(&[13]))
        .unwrap_err();
    assert_eq!(
        host,
        FrameError::UnknownKind {
            sender: Peer::Host,
            kind: 13
        }
    );
    assert!(host.to_string().contains("host"), "{host}");
}

#[test]
fn an_announced_length_over_the_cap_is_refused_at_the_header() {
    for (len, max) in [(MAX_EVENT + 1, MAX_EVENT), (u32::MAX as usize, MAX_EVENT)] {
        let header = u32::try_from(len).unwrap().to_le_bytes();
        assert_eq!(
            event_error(&header),
            FrameError::Oversize {
                sender: Peer::Guest,
                len,
                max
            }
        );
    }
    let allowed = u32::try_from(MAX_EVENT).unwrap().to_le_bytes();
    assert_eq!(
        FrameDecoder::<Event>::default().decode(&mut &allowed[..]),
        Ok(None)
    );
}

#[test]
fn a_frame_that_does_not_end_is_truncated() {
    let mut decoder = FrameDecoder::<Event>::default();
    assert_eq!(decoder.finish(), Ok(()));
    let bytes = frame(&Event::Pong { token: 1 });
    for cut in 1..bytes.len() {
        let mut decoder = FrameDecoder::<Event>::default();
        assert_eq!(decoder.decode(&mut &bytes[..cut]), Ok(None));
        assert_eq!(
            decoder.finish(),
            Err(FrameError::Truncated {
                sender: Peer::Guest
            })
        );
    }
    assert!(decoder.decode(&mut bytes.as_slice()).unwrap().is_some());
    assert_eq!(decoder.finish(), Ok(()));
}

#[test]
fn a_message_that_is_too_long_leaves_the_buffer_as_it_was() {
    let mut out = vec![1, 2, 3];
    let long = ExecRequest {
        argv: [Octets(vec![b'x'; MAX_REQUEST])].into_iter().collect(),
        ..ExecRequest::default()
    };
    let error = encode(&Request::Exec(long), &mut out).unwrap_err();
    assert!(
        matches!(
            error,
            EncodeError::TooLong {
                max: MAX_REQUEST,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn the_largest_pieces_fit_their_frames() {
    let bytes = Octets(vec![0; MAX_DATA]);
    assert!(
        frame(&Event::Output {
            id: Id::MAX,
            stream: Stream::Stderr,
            bytes: bytes.clone()
        })
        .len()
            < MAX_EVENT
    );
    assert!(frame(&Request::Input { id: Id::MAX, bytes }).len() < MAX_REQUEST);
}

#[test]
fn a_list_holds_no_more_than_its_cap() {
    let body = |strings: usize| {
        let request = ExecRequest {
            argv: (0..strings).map(|_| "").collect(),
            ..ExecRequest::default()
        };
        frame(&Request::Exec(request))
    };
    assert!(
        FrameDecoder::<Request>::default()
            .decode(&mut body(MAX_STRINGS).as_slice())
            .is_ok()
    );
    assert!(
        FrameDecoder::<Request>::default()
            .decode(&mut body(MAX_STRINGS + 1).as_slice())
            .is_err()
    );
}

#[test]
fn no_event_can_ask_for_anything() {
    // The type is the proof; this names every kind so that a new one must be thought about here.
    for (event, _) in events() {
        match event {
            Event::Hello { .. } | Event::Ready(_) | Event::ConfigureFailed(_) => {}
            Event::Started { .. } | Event::ExecFailed { .. } | Event::Exited { .. } => {}
            Event::Output { .. }
            | Event::OutputEnd { .. }
            | Event::InputCredit { .. }
            | Event::InputClosed { .. } => {}
            Event::TransferEnd { .. } | Event::Pong { .. } => {}
        }
    }
}

#[test]
fn credit_is_counted_on_both_sides() {
    let (mut sender, mut receiver) = (SendWindow::default(), ReceiveWindow::default());
    let window = sender.credit();
    assert_eq!(sender.take(usize::MAX), window);
    assert_eq!(sender.take(1), 0, "nothing is left");
    assert_eq!(receiver.receive(window), Ok(()));
    assert_eq!(
        receiver.receive(1),
        Err(CreditError::Overrun { sent: 1, credit: 0 })
    );
    receiver.consume(window / 4 - 1);
    assert_eq!(receiver.take_grant(), None, "too little for a frame");
    receiver.consume(1);
    assert_eq!(receiver.take_grant(), Some(WINDOW / 4));
    assert_eq!(sender.grant(WINDOW / 4), Ok(()));
    assert_eq!(
        sender.grant(WINDOW),
        Err(CreditError::Overgrant {
            granted: WINDOW,
            credit: WINDOW / 4
        })
    );
    assert_eq!(
        sender.grant(u32::MAX),
        Err(CreditError::Overgrant {
            granted: u32::MAX,
            credit: WINDOW / 4
        })
    );
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_messages(cuts in proptest::collection::vec(1_usize..40, 0..200)) {
        let stream: Vec<u8> = events().iter().flat_map(|(event, _)| frame(event)).collect();
        let mut decoder = FrameDecoder::<Event>::default();
        let (mut decoded, mut rest) = (Vec::new(), stream.as_slice());
        let mut cuts = cuts.into_iter().chain(std::iter::repeat(17));
        while !rest.is_empty() {
            let (mut chunk, tail) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            while let Some(event) = decoder.decode(&mut chunk).unwrap() {
                decoded.push(event);
            }
            prop_assert!(chunk.is_empty());
            rest = tail;
        }
        let expected: Vec<_> = events().into_iter().map(|(event, _)| event).collect();
        prop_assert_eq!(decoded, expected);
    }

    #[test]
    fn hostile_bytes_give_messages_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut input = bytes.as_slice();
        let mut decoder = FrameDecoder::<Event>::default();
        while let Ok(Some(event)) = decoder.decode(&mut input) {
            prop_assert!(frame(&event).len() <= MAX_EVENT + HEADER_LEN);
        }
        let _ = FrameDecoder::<Request>::default().decode(&mut bytes.as_slice());
    }

    #[test]
    fn hostile_bodies_give_a_message_that_encodes_again(kind in 0..Event::KINDS, body in proptest::collection::vec(any::<u8>(), 0..40)) {
        let body = [vec![u8::try_from(kind).unwrap()], body].concat();
        if let Ok(Some(event)) = FrameDecoder::<Event>::default().decode(&mut framed(&body).as_slice()) {
            let again = FrameDecoder::<Event>::default().decode(&mut frame(&event).as_slice());
            prop_assert_eq!(again, Ok(Some(event)));
        }
    }

    #[test]
    fn windows_never_disagree(steps in proptest::collection::vec((0_usize..100_000, 0_usize..100_000), 0..60)) {
        let (mut sender, mut receiver, mut buffered) = (SendWindow::default(), ReceiveWindow::default(), 0_usize);
        for (write, read) in steps {
            let sent = sender.take(write);
            prop_assert!(receiver.receive(sent).is_ok());
            buffered += sent;
            prop_assert!(buffered <= WINDOW as usize);
            let read = read.min(buffered);
            buffered -= read;
            receiver.consume(read);
            if let Some(grant) = receiver.take_grant() {
                prop_assert!(sender.grant(grant).is_ok());
            }
        }
        prop_assert!(buffered > 0 || sender.credit() > 0, "an emptied stream can always go on");
    }
}

//! Requests that nobody planned: well-formed ones in any order, and damaged ones.

use fsshare::LockPolicy;
use fsshare::abi::{Opcode, ROOT_ID, wire};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::client::{Share, text};

/// Names that collide, so that operations meet each other's results.
const NAMES: [&str; 5] = ["a", "b", "c", "link", "dir"];
/// Targets of the links that are made.
const TARGETS: [&str; 4] = ["../outside", "../outside/secret", "/", "a"];

/// One request with small numbers in every place, so that most mean something.
#[derive(Clone, Copy, Debug)]
struct Step {
    opcode: usize,
    node: u64,
    other: u64,
    names: (usize, usize),
    number: u32,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let small = || 1_u64..12;
    let step = (
        0..Opcode::ALL.len(),
        small(),
        small(),
        (0..5_usize, 0..5_usize),
        0_u32..16,
    );
    let step = step.prop_map(|(opcode, node, other, names, number)| Step {
        opcode,
        node,
        other,
        names,
        number,
    });
    prop::collection::vec(step, 1..150)
}

fn with(head: &[u8], tail: &[u8]) -> Vec<u8> {
    [head, tail].concat()
}

fn body(step: &Step, opcode: Opcode) -> Vec<u8> {
    let Step { other, number, .. } = *step;
    let (name, second) = (text(NAMES[step.names.0]), text(NAMES[step.names.1]));
    match opcode {
        Opcode::Lookup | Opcode::Unlink | Opcode::RmDir => name,
        Opcode::Symlink => with(&name, &text(TARGETS[step.names.1 % 4])),
        Opcode::MkNod => {
            let head = wire::MkNodIn {
                mode: 0o100_644 | number << 9,
                ..Default::default()
            };
            with(head.as_bytes(), &name)
        }
        Opcode::MkDir => {
            let head = wire::MkDirIn {
                mode: 0o755 | number << 9,
                umask: 0,
            };
            with(head.as_bytes(), &name)
        }
        Opcode::Rename => {
            let head = wire::RenameIn { newdir: other };
            with(head.as_bytes(), &with(&name, &second))
        }
        Opcode::Rename2 => {
            let head = wire::Rename2In {
                newdir: other,
                flags: number,
                padding: 0,
            };
            with(head.as_bytes(), &with(&name, &second))
        }
        Opcode::Link => with(wire::LinkIn { oldnodeid: other }.as_bytes(), &name),
        Opcode::Create | Opcode::TmpFile => {
            let head = wire::CreateIn {
                flags: number,
                mode: 0o6644,
                ..Default::default()
            };
            with(head.as_bytes(), &name)
        }
        _ => body_without_name(opcode, other, number),
    }
}

fn body_without_name(opcode: Opcode, fh: u64, number: u32) -> Vec<u8> {
    let offset = u64::from(number);
    match opcode {
        Opcode::Open | Opcode::OpenDir => {
            let open = wire::OpenIn {
                flags: number,
                open_flags: 0,
            };
            open.as_bytes().to_vec()
        }
        Opcode::Write => {
            let head = wire::WriteIn {
                fh,
                offset,
                size: 4,
                ..Default::default()
            };
            with(head.as_bytes(), b"data")
        }
        Opcode::Read | Opcode::ReadDir | Opcode::ReadDirPlus => {
            let read = wire::ReadIn {
                fh,
                offset,
                size: number * 512,
                ..Default::default()
            };
            read.as_bytes().to_vec()
        }
        Opcode::SetAttr => {
            let changes = wire::SetAttrIn {
                valid: number * 97,
                fh,
                size: 9,
                mode: 0o7777,
                ..Default::default()
            };
            changes.as_bytes().to_vec()
        }
        Opcode::Forget => wire::ForgetIn { nlookup: offset }.as_bytes().to_vec(),
        Opcode::Release | Opcode::ReleaseDir => {
            let release = wire::ReleaseIn {
                fh,
                ..Default::default()
            };
            release.as_bytes().to_vec()
        }
        Opcode::GetLk | Opcode::SetLk | Opcode::SetLkW => {
            let lock = wire::FileLock {
                start: 0,
                end: offset,
                kind: number % 4,
                pid: 0,
            };
            let body = wire::LockIn {
                fh,
                owner: fh,
                lock,
                lk_flags: number & 1,
                padding: 0,
            };
            body.as_bytes().to_vec()
        }
        _ => vec![u8::try_from(number).unwrap(); 8 * (number as usize)],
    }
}

/// Nothing on the host may be privileged, and nothing outside may differ.
fn assert_harmless(share: &Share) {
    share.assert_outside_untouched();
    for entry in std::fs::read_dir(&share.root).unwrap() {
        let data = std::fs::symlink_metadata(entry.unwrap().path()).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&data) & 0o6000, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operations_in_any_order_stay_inside(steps in steps(), pieces in prop::option::of(1_usize..100)) {
        let share = Share::with(|config| {
            config.locks = LockPolicy::Host;
            config.limits.max_inodes = 8;
            config.limits.max_held = 3;
            config.limits.max_handles = 6;
        })
        .in_pieces(pieces);
        // Making a whole host file system durable takes long and tells nothing here.
        for step in steps.iter().filter(|step| Opcode::ALL[step.opcode] != Opcode::SyncFs) {
            let opcode = Opcode::ALL[step.opcode];
            let _ = share.call(opcode, step.node, &body(step, opcode));
            if opcode == Opcode::Destroy {
                share.init();
            }
        }
        prop_assert!(share.getattr(ROOT_ID).is_ok());
        assert_harmless(&share);
    }

    #[test]
    fn damaged_requests_do_no_harm(
        damaged in prop::collection::vec((0_u32..56, 0_u64..4, prop::collection::vec(any::<u8>(), 0..120), 0_usize..300), 1..60),
        pieces in prop::option::of(1_usize..100)
    ) {
        let share = Share::new().in_pieces(pieces);
        for (opcode, node, body, room) in damaged {
            if opcode != Opcode::SyncFs as u32 {
                let _ = share.raw(opcode, node, &body, room + 16);
            }
        }
        share.init();
        prop_assert!(share.getattr(ROOT_ID).is_ok());
        assert_harmless(&share);
    }
}

//! Locks that are the host's: they exclude, they end, and they never make anyone wait.

use std::fs::{self, File};

use fsshare::LockPolicy;
use fsshare::abi::{Opcode, ROOT_ID, wire};
use libc::O_RDWR;

use super::client::{Reply, Share, parse};

const SHARED: u32 = 0;
const EXCLUSIVE: u32 = 1;
const NONE: u32 = 2;

struct Locked {
    share: Share,
    node: u64,
    handles: [u64; 2],
}

impl Locked {
    fn new() -> Self {
        let share = Share::with(|config| config.locks = LockPolicy::Host);
        fs::write(share.root.join("f"), "0123456789").unwrap();
        let node = share.walk("f");
        let handles = [
            share.open(node, O_RDWR).unwrap(),
            share.open(node, O_RDWR).unwrap(),
        ];
        Self {
            share,
            node,
            handles,
        }
    }

    fn body(&self, owner: u64, kind: u32, range: (u64, u64)) -> wire::LockIn {
        let lock = wire::FileLock {
            start: range.0,
            end: range.1,
            kind,
            pid: 1,
        };
        wire::LockIn {
            fh: self.handles[0],
            owner,
            lock,
            ..Default::default()
        }
    }

    fn set(&self, opcode: Opcode, owner: u64, kind: u32, range: (u64, u64)) -> Reply {
        self.share
            .ask(opcode, self.node, &self.body(owner, kind, range), &[])
    }

    fn get(&self, owner: u64, range: (u64, u64)) -> wire::FileLock {
        parse(self.share.ask(
            Opcode::GetLk,
            self.node,
            &self.body(owner, EXCLUSIVE, range),
            &[],
        ))
        .unwrap()
    }

    fn flock(&self, handle: usize, kind: u32) -> Reply {
        let lock = wire::FileLock {
            kind,
            ..Default::default()
        };
        let body = wire::LockIn {
            fh: self.handles[handle],
            lock,
            lk_flags: 1,
            ..Default::default()
        };
        self.share.ask(Opcode::SetLkW, self.node, &body, &[])
    }
}

#[test]
fn owners_exclude_each_other_even_on_one_handle() {
    let file = Locked::new();
    assert_eq!(file.set(Opcode::SetLk, 1, EXCLUSIVE, (0, 4)), Ok(vec![]));
    assert_eq!(
        file.set(Opcode::SetLk, 1, EXCLUSIVE, (0, 4)),
        Ok(vec![]),
        "not itself"
    );
    assert_eq!(
        file.set(Opcode::SetLk, 2, SHARED, (4, 9)),
        Err(libc::EAGAIN)
    );
    assert_eq!(
        file.set(Opcode::SetLkW, 2, SHARED, (4, 9)),
        Err(libc::EAGAIN),
        "waiting is not offered"
    );
    assert_eq!(file.set(Opcode::SetLk, 2, SHARED, (5, 9)), Ok(vec![]));
    assert_eq!(
        file.get(2, (0, 9)),
        wire::FileLock {
            start: 0,
            end: 4,
            kind: EXCLUSIVE,
            pid: 0
        }
    );
    assert_eq!(
        file.get(3, (5, 9)),
        wire::FileLock {
            start: 5,
            end: 9,
            kind: SHARED,
            pid: 0
        }
    );
    assert_eq!(file.get(1, (0, 4)).kind, NONE);
    assert_eq!(file.set(Opcode::SetLk, 1, NONE, (0, 4)), Ok(vec![]));
    assert_eq!(file.set(Opcode::SetLk, 2, SHARED, (0, 9)), Ok(vec![]));
    assert_eq!(
        file.set(Opcode::SetLk, 9, NONE, (0, 9)),
        Ok(vec![]),
        "an owner without locks"
    );
}

#[test]
fn an_owners_locks_end_with_its_first_close() {
    let file = Locked::new();
    file.set(Opcode::SetLk, 1, EXCLUSIVE, (0, i64::MAX as u64))
        .unwrap();
    let flush = |owner| {
        let body = wire::FlushIn {
            fh: file.handles[1],
            lock_owner: owner,
            ..Default::default()
        };
        file.share
            .ask(Opcode::Flush, file.node, &body, &[])
            .unwrap();
    };
    flush(2);
    assert_eq!(
        file.set(Opcode::SetLk, 2, SHARED, (0, 0)),
        Err(libc::EAGAIN)
    );
    flush(1);
    assert_eq!(file.set(Opcode::SetLk, 2, SHARED, (0, 0)), Ok(vec![]));
}

#[test]
fn whole_file_locks_belong_to_the_handle_and_are_seen_by_the_host() {
    let file = Locked::new();
    let host = File::open(file.share.root.join("f")).unwrap();
    assert_eq!(
        (file.flock(0, EXCLUSIVE), file.flock(1, SHARED)),
        (Ok(vec![]), Err(libc::EAGAIN))
    );
    assert!(host.try_lock().is_err());
    file.share.release(file.node, file.handles[0]).unwrap();
    assert_eq!(file.flock(1, SHARED), Ok(vec![]));
    assert!(host.try_lock_shared().is_ok());
    assert_eq!(
        file.flock(1, EXCLUSIVE),
        Err(libc::EAGAIN),
        "the host's lock is respected"
    );
    assert_eq!(file.flock(1, NONE), Ok(vec![]));
    assert!(host.try_lock().is_ok());
}

#[test]
fn locks_that_mean_nothing_are_refused() {
    let file = Locked::new();
    for (kind, range) in [
        (3, (0, 1)),
        (u32::MAX, (0, 1)),
        (SHARED, (2, 1)),
        (SHARED, (0, u64::MAX)),
        (SHARED, (1 << 63, u64::MAX)),
    ] {
        assert_eq!(
            file.set(Opcode::SetLk, 1, kind, range),
            Err(libc::EINVAL),
            "{kind} {range:?}"
        );
    }
}

#[test]
fn lock_owners_count_as_handles() {
    let share = Share::with(|config| {
        config.locks = LockPolicy::Host;
        config.limits.max_handles = 3;
    });
    let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o644).unwrap();
    let lock = |owner| {
        let lock = wire::FileLock {
            start: owner,
            end: owner,
            kind: EXCLUSIVE,
            pid: 0,
        };
        share.ask(
            Opcode::SetLk,
            entry.nodeid,
            &wire::LockIn {
                fh,
                owner,
                lock,
                ..Default::default()
            },
            &[],
        )
    };
    assert_eq!(
        (lock(1), lock(2), lock(3)),
        (Ok(vec![]), Ok(vec![]), Err(libc::ENFILE))
    );
    share
        .ask(
            Opcode::Flush,
            entry.nodeid,
            &wire::FlushIn {
                fh,
                lock_owner: 1,
                ..Default::default()
            },
            &[],
        )
        .unwrap();
    assert_eq!(lock(3), Ok(vec![]));
}

#[test]
fn without_the_policy_locks_are_the_guests_own() {
    let share = Share::new();
    let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o644).unwrap();
    for opcode in [Opcode::GetLk, Opcode::SetLk, Opcode::SetLkW] {
        let body = wire::LockIn {
            fh,
            ..Default::default()
        };
        assert_eq!(
            share.ask(opcode, entry.nodeid, &body, &[]),
            Err(libc::ENOSYS),
            "{opcode:?}"
        );
    }
}

//! A tiny FUSE client: raw requests into a [`Server`], typed replies out of it.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fsshare::abi::{InitFlags, Opcode, ROOT_ID, wire};
use fsshare::transfer::{Reader, Writer};
use fsshare::{Config, Error, Server, Shares};
use tempfile::TempDir;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::pieces::Pieces;

/// What a guest gets: the payload, or a positive error number.
pub(crate) type Reply<T = Vec<u8>> = Result<T, i32>;

/// Room that the client leaves for a reply unless told otherwise.
const ROOM: usize = (1 << 20) + 4096;

/// A share of `root/` with a sentinel tree beside it, and a client on it.
pub(crate) struct Share {
    pub(crate) server: Served,
    pub(crate) root: PathBuf,
    pub(crate) outside: PathBuf,
    sentinel: BTreeMap<PathBuf, String>,
    unique: AtomicU64,
    /// Where an overlay keeps what is changed.
    pub(crate) changes: PathBuf,
    /// Length of the pieces in which requests and replies lie, unless they are whole.
    pieces: Option<usize>,
    _place: Place,
}

/// What answers.
pub(crate) enum Served {
    One(Box<Server>),
    Many(Shares),
}

impl Served {
    fn one(config: Config) -> Self {
        Self::One(Box::new(Server::new(config).unwrap()))
    }

    pub(crate) fn handle(
        &self,
        request: &mut dyn Reader,
        reply: &mut dyn Writer,
    ) -> Result<usize, Error> {
        match self {
            Self::One(server) => server.handle(request, reply),
            Self::Many(shares) => shares.handle(request, reply),
        }
    }

    pub(crate) fn reset(&self) {
        match self {
            Self::One(server) => server.reset(),
            Self::Many(shares) => shares.reset(),
        }
    }
}

/// Goes when it is dropped, also with directories that its owner may not write.
struct Place(TempDir);

impl Drop for Place {
    fn drop(&mut self) {
        if !rustix::process::geteuid().is_root() {
            open_up(self.0.path());
        }
    }
}

/// Not by a program: a lock would stay taken for as long as it takes to start one.
fn open_up(directory: &Path) {
    drop(fs::set_permissions(
        directory,
        Permissions::from_mode(0o700),
    ));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

impl Share {
    /// A share whose session is open, with the server configured by `configure`.
    pub(crate) fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let share = Self::unopened(configure);
        share.init();
        share
    }

    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn read_only() -> Self {
        Self::with(|config| config.read_only = true)
    }

    /// A share with an overlay: what is in `root` never changes.
    pub(crate) fn overlay(configure: impl FnOnce(&mut Config)) -> Self {
        let share = Self::build(|root, changes| {
            let mut config = config(root, Some(changes));
            configure(&mut config);
            Served::one(config)
        });
        share.init();
        share
    }

    /// Three shares in one session, before INIT: `1`, `2` and `3` in `root`.
    pub(crate) fn many(configure: impl FnOnce(&mut [Config; 3])) -> Self {
        Self::build(|root, _| {
            let mut configs = ["1", "2", "3"].map(|number| {
                fs::create_dir(root.join(number)).unwrap();
                config(&root.join(number), None)
            });
            configure(&mut configs);
            Served::Many(Shares::new(configs.into()).unwrap())
        })
    }

    /// The same after its server has ended and another has begun.
    pub(crate) fn again(self, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(&self.root, Some(&self.changes));
        configure(&mut config);
        let Self { server, .. } = self;
        drop(server);
        let share = Self {
            server: Served::one(config),
            ..self
        };
        share.init();
        share
    }

    /// The same before INIT.
    pub(crate) fn unopened(configure: impl FnOnce(&mut Config)) -> Self {
        Self::build(|root, _| {
            let mut config = config(root, None);
            configure(&mut config);
            Served::one(config)
        })
    }

    fn build(serve: impl FnOnce(&Path, &Path) -> Served) -> Self {
        let place = TempDir::new().unwrap();
        let (root, outside) = (place.path().join("root"), place.path().join("outside"));
        let changes = place.path().join("changes");
        fs::create_dir(&root).unwrap();
        fs::create_dir(&changes).unwrap();
        fs::create_dir_all(outside.join("dir")).unwrap();
        fs::write(outside.join("secret"), "sentinel").unwrap();
        fs::write(outside.join("dir/secret"), "sentinel").unwrap();
        let server = serve(&root, &changes);
        let sentinel = fingerprint(&outside);
        Self {
            server,
            root,
            outside,
            sentinel,
            changes,
            unique: AtomicU64::new(1),
            pieces: None,
            _place: Place(place),
        }
    }

    /// The same through a transport that moves content of files itself, in pieces of `len` bytes, or as before.
    pub(crate) fn in_pieces(mut self, len: Option<usize>) -> Self {
        self.pieces = len;
        self
    }

    pub(crate) fn init(&self) -> wire::InitOut {
        self.try_init(InitFlags::all()).unwrap()
    }

    pub(crate) fn try_init(&self, flags: InitFlags) -> Reply<wire::InitOut> {
        let body = wire::InitIn {
            major: 7,
            minor: 41,
            max_readahead: 1 << 20,
            flags: flags.low(),
        };
        let mut bytes = body.as_bytes().to_vec();
        bytes.extend_from_slice(wire::InitInExt::default().as_bytes());
        parse(self.call(Opcode::Init, 0, &bytes))
    }

    /// Makes all that is shared theirs as whom [`as_nobody`] acts; without root it is already.
    pub(crate) fn give_to_nobody(&self) {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let mut chown = std::process::Command::new("chown");
        chown.args(["-hR", "65534:65534"]).arg(&self.root);
        let done = chown.arg(&self.changes).output().unwrap();
        assert!(done.status.success() || !self.changes.exists(), "{done:?}");
        let parent = self.root.parent().unwrap();
        allow(parent, 0o755);
    }

    /// Panics if anything beside the share was changed, made or removed.
    pub(crate) fn assert_outside_untouched(&self) {
        assert_eq!(
            fingerprint(&self.outside),
            self.sentinel,
            "something outside the share changed"
        );
    }

    /// Sends one request with `body`.
    pub(crate) fn call(&self, opcode: Opcode, node: u64, body: &[u8]) -> Reply {
        self.raw(opcode as u32, node, body, ROOM)
    }

    /// Sends a request with a structure and `tail` behind it.
    pub(crate) fn ask<T: IntoBytes + Immutable>(
        &self,
        opcode: Opcode,
        node: u64,
        body: &T,
        tail: &[u8],
    ) -> Reply {
        self.call(opcode, node, &[body.as_bytes(), tail].concat())
    }

    /// Sends one request and leaves `room` bytes for the reply, head included.
    pub(crate) fn raw(&self, opcode: u32, node: u64, body: &[u8], room: usize) -> Reply {
        let unique = self.unique.fetch_add(1, Ordering::Relaxed);
        let request = request(opcode, unique, node, body);
        let (outcome, mut reply) = self.handle(&request, room);
        let written = match outcome {
            // A malformed request that nobody waits for ends in silence, like a good one.
            Err(Error::Request(_))
                if Opcode::from_number(opcode).is_some_and(|op| !op.is_answered()) =>
            {
                0
            }
            outcome => outcome.unwrap(),
        };
        reply.truncate(written);
        if written == 0 {
            return Ok(Vec::new());
        }
        let (head, payload) = wire::OutHeader::read_from_prefix(&reply).unwrap();
        assert_eq!(
            (head.unique, head.len as usize),
            (unique, written),
            "reply to another request"
        );
        assert!(
            (-511..=0).contains(&head.error),
            "error {} is none",
            head.error
        );
        assert!(
            head.error == 0 || payload.is_empty(),
            "an error carries a payload"
        );
        if head.error == 0 {
            Ok(payload.to_vec())
        } else {
            Err(-head.error)
        }
    }

    /// Has the bytes of a request handled; gives what was written and the room for it.
    pub(crate) fn handle(&self, request: &[u8], room: usize) -> (Result<usize, Error>, Vec<u8>) {
        if let Some(len) = self.pieces {
            let mut reply = Pieces::of(&vec![0; room], len);
            let outcome = self
                .server
                .handle(&mut Pieces::of(request, len), &mut reply);
            if let Ok(written) = outcome {
                assert_eq!(reply.position(), written, "what counts as written");
            }
            return (outcome, reply.bytes());
        }
        let (mut request, mut reply) = (request, vec![0; room]);
        let outcome = self.server.handle(&mut request, &mut reply.as_mut_slice());
        (outcome, reply)
    }

    pub(crate) fn lookup(&self, parent: u64, name: &str) -> Reply<wire::EntryOut> {
        parse(self.call(Opcode::Lookup, parent, &text(name)))
    }

    /// The node of a path below the root, looked up name by name.
    pub(crate) fn walk(&self, path: &str) -> u64 {
        path.split('/').fold(ROOT_ID, |node, name| {
            self.lookup(node, name).unwrap().nodeid
        })
    }

    pub(crate) fn getattr(&self, node: u64) -> Reply<wire::Attr> {
        let reply: Reply<wire::AttrOut> =
            parse(self.ask(Opcode::GetAttr, node, &wire::GetAttrIn::default(), &[]));
        reply.map(|out| out.attr)
    }

    pub(crate) fn setattr(&self, node: u64, changes: wire::SetAttrIn) -> Reply<wire::Attr> {
        let reply: Reply<wire::AttrOut> = parse(self.ask(Opcode::SetAttr, node, &changes, &[]));
        reply.map(|out| out.attr)
    }

    pub(crate) fn open(&self, node: u64, flags: i32) -> Reply<u64> {
        let body = wire::OpenIn {
            flags: flags as u32,
            open_flags: 0,
        };
        parse(self.ask(Opcode::Open, node, &body, &[])).map(|out: wire::OpenOut| out.fh)
    }

    pub(crate) fn opendir(&self, node: u64) -> Reply<u64> {
        parse(self.ask(Opcode::OpenDir, node, &wire::OpenIn::default(), &[]))
            .map(|out: wire::OpenOut| out.fh)
    }

    pub(crate) fn create(
        &self,
        parent: u64,
        name: &str,
        flags: i32,
        mode: u32,
    ) -> Reply<(wire::EntryOut, u64)> {
        let body = wire::CreateIn {
            flags: flags as u32,
            mode: 0o100_000 | mode,
            umask: 0,
            open_flags: 0,
        };
        let reply = self.ask(Opcode::Create, parent, &body, &text(name))?;
        let (entry, rest) = wire::EntryOut::read_from_prefix(&reply).unwrap();
        Ok((entry, wire::OpenOut::read_from_bytes(rest).unwrap().fh))
    }

    pub(crate) fn mkdir(&self, parent: u64, name: &str) -> Reply<wire::EntryOut> {
        parse(self.ask(
            Opcode::MkDir,
            parent,
            &wire::MkDirIn {
                mode: 0o755,
                umask: 0,
            },
            &text(name),
        ))
    }

    pub(crate) fn symlink(&self, parent: u64, name: &str, target: &str) -> Reply<wire::EntryOut> {
        parse(self.call(
            Opcode::Symlink,
            parent,
            &[text(name), text(target)].concat(),
        ))
    }

    pub(crate) fn link(&self, node: u64, parent: u64, name: &str) -> Reply<wire::EntryOut> {
        parse(self.ask(
            Opcode::Link,
            parent,
            &wire::LinkIn { oldnodeid: node },
            &text(name),
        ))
    }

    pub(crate) fn rename(&self, from: (u64, &str), to: (u64, &str), flags: u32) -> Reply {
        let body = wire::Rename2In {
            newdir: to.0,
            flags,
            padding: 0,
        };
        self.ask(
            Opcode::Rename2,
            from.0,
            &body,
            &[text(from.1), text(to.1)].concat(),
        )
    }

    pub(crate) fn read(&self, node: u64, fh: u64, offset: u64, size: u32) -> Reply {
        self.ask(
            Opcode::Read,
            node,
            &wire::ReadIn {
                fh,
                offset,
                size,
                ..Default::default()
            },
            &[],
        )
    }

    pub(crate) fn write(&self, node: u64, fh: u64, offset: u64, data: &[u8]) -> Reply<u32> {
        let size = data.len().try_into().unwrap();
        let body = wire::WriteIn {
            fh,
            offset,
            size,
            ..Default::default()
        };
        parse(self.ask(Opcode::Write, node, &body, data)).map(|out: wire::WriteOut| out.size)
    }

    pub(crate) fn release(&self, node: u64, fh: u64) -> Reply {
        self.ask(
            Opcode::Release,
            node,
            &wire::ReleaseIn {
                fh,
                ..Default::default()
            },
            &[],
        )
    }

    pub(crate) fn forget(&self, node: u64, nlookup: u64) {
        assert_eq!(
            self.ask(Opcode::Forget, node, &wire::ForgetIn { nlookup }, &[]),
            Ok(Vec::new())
        );
    }

    /// All entries of a directory, read `size` bytes at a time.
    pub(crate) fn list(&self, node: u64, size: u32, plus: bool) -> Vec<(String, u64)> {
        let fh = self.opendir(node).unwrap();
        let opcode = if plus {
            Opcode::ReadDirPlus
        } else {
            Opcode::ReadDir
        };
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            let body = wire::ReadIn {
                fh,
                offset,
                size,
                ..Default::default()
            };
            let reply = self.ask(opcode, node, &body, &[]).unwrap();
            assert!(reply.len() <= size as usize);
            if reply.is_empty() {
                break;
            }
            offset = entries(&reply, plus, &mut all);
        }
        self.ask(
            Opcode::ReleaseDir,
            node,
            &wire::ReleaseIn {
                fh,
                ..Default::default()
            },
            &[],
        )
        .unwrap();
        all
    }
}

fn config(root: &Path, changes: Option<&Path>) -> Config {
    let mut config = Config::new(File::open(root).unwrap().into());
    config.overlay = changes.map(|path| File::open(path).unwrap().into());
    config
}

/// Takes a listing apart into names and node ids, or inode numbers where there are none; returns the last cookie.
pub(crate) fn entries(mut bytes: &[u8], plus: bool, all: &mut Vec<(String, u64)>) -> u64 {
    let mut cookie = 0;
    while !bytes.is_empty() {
        let mut node = 0;
        if plus {
            let (entry, rest) = wire::EntryOut::read_from_prefix(bytes).unwrap();
            (node, bytes) = (entry.nodeid, rest);
        }
        let (head, rest) = wire::Dirent::read_from_prefix(bytes).unwrap();
        if !plus {
            node = head.ino;
        }
        let (name, rest) = rest.split_at(head.namelen as usize);
        all.push((String::from_utf8(name.to_vec()).unwrap(), node));
        bytes = &rest[(8 - name.len() % 8) % 8..];
        cookie = head.off;
    }
    cookie
}

/// The bytes of a request.
pub(crate) fn request(opcode: u32, unique: u64, nodeid: u64, body: &[u8]) -> Vec<u8> {
    let len = (size_of::<wire::InHeader>() + body.len())
        .try_into()
        .unwrap();
    let head = wire::InHeader {
        len,
        opcode,
        unique,
        nodeid,
        uid: 0,
        gid: 0,
        pid: 1,
        total_extlen: 0,
        padding: 0,
    };
    [head.as_bytes(), body].concat()
}

/// Does it as a user without privileges, on a thread of its own. Gives nothing where we have none to lay down.
pub(crate) fn as_nobody<T: Send>(test: &str, act: impl FnOnce() -> T + Send) -> Option<T> {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return Some(act());
    }
    let user = rustix::process::Uid::from_raw(NOBODY);
    let done = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let root = rustix::process::Uid::ROOT;
            rustix::thread::set_thread_res_uid(root, user, root).ok()?;
            Some(act())
        });
        thread.join().unwrap()
    });
    if done.is_none() {
        // Past the capture of the test harness, so that it is counted.
        let line = format!("SKIP {test}: the user cannot be changed\n");
        drop(std::io::stderr().write_all(line.as_bytes()));
    }
    done
}

/// Sets a path's permissions.
pub(crate) fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Tells how many attempts to get out a test made, past the capture of the test harness: `cargo xtask campaign share` adds them up.
pub(crate) fn count_attempts(test: &str, attempts: usize) {
    let line = format!("ATTEMPTS {test}: {attempts}\n");
    drop(std::io::stderr().write_all(line.as_bytes()));
}

/// A text with its terminator.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// The reply as exactly one structure.
pub(crate) fn parse<T: FromBytes>(reply: Reply) -> Reply<T> {
    reply.map(|bytes| {
        T::read_from_bytes(&bytes).unwrap_or_else(|_| panic!("a reply of {} bytes", bytes.len()))
    })
}

/// Everything below `path` that a change would show in.
pub(crate) fn fingerprint(path: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![path.to_path_buf()];
    while let Some(path) = left.pop() {
        let data = fs::symlink_metadata(&path).unwrap();
        let times = (
            data.mtime(),
            data.mtime_nsec(),
            data.ctime(),
            data.ctime_nsec(),
        );
        let content = if data.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        if data.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        all.insert(
            path,
            format!("{:o} {} {times:?} {content:?}", data.mode(), data.nlink()),
        );
    }
    all
}

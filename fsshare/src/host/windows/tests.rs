//! The layer on a real directory, with one beside it that must stay as it is.
//!
//! They also pass under Wine 8, where less is shown: it has no reparse points, removes a name only with the last handle, lets an administrator
//! write what is read-only, does not rename to another case, and takes a handle for the name that it was opened by (which is noticed).

use std::ffi::CStr;
use std::fs;
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::tree::{MAY_READ, MAY_WRITE};
use super::*;
use crate::abi::{InitFlags, Opcode, ROOT_ID, RenameMode, Target, wire};
use crate::host::{LockRequest, NewTime, Next, Time};

/// `FILE_FLAG_BACKUP_SEMANTICS`: also opens directories.
const BACKUP: u32 = 0x0200_0000;

struct Share {
    host: Host,
    root: Node,
    path: PathBuf,
    outside: PathBuf,
    _place: TempDir,
}

impl Share {
    fn new() -> Self {
        let place = TempDir::new().unwrap();
        let (path, outside) = (place.path().join("root"), place.path().join("outside"));
        fs::create_dir(&path).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "sentinel").unwrap();
        let (host, root) = Host::new(directory(&path), false).unwrap();
        Self {
            host,
            root,
            path,
            outside,
            _place: place,
        }
    }

    fn find(&self, name: &CStr) -> Result<Node, Errno> {
        self.host.lookup(&self.root, of(name))
    }

    fn make(&self, name: &CStr, content: &str) -> Result<Node, Errno> {
        let mode = AccessMode::WRITE;
        let (file, node) = self.host.create(&self.root, of(name), 0o644, mode)?;
        let mut content = content.as_bytes();
        let len = content.len();
        assert_eq!(file.write_from(&mut content, 0, len), Ok(len));
        Ok(node)
    }

    fn read(&self, node: &Node) -> Result<String, Errno> {
        let (file, attributes) = self.host.open(node, AccessMode::READ)?;
        let mut content = vec![0; 100];
        let len = file.read_at(&mut content, 0)?;
        assert_eq!(len as u64, attributes.size);
        content.truncate(len);
        Ok(String::from_utf8(content).unwrap())
    }

    fn rename(&self, from: &CStr, to: &CStr, mode: RenameMode) -> Result<(), Errno> {
        self.host
            .rename((&self.root, of(from)), (&self.root, of(to)), mode)
    }

    /// Names in the root, in order, without those for a directory itself.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = list(&self.host.open_directory(&self.root).unwrap(), 0, 1000)
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        names
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let kept = fs::read_to_string(self.outside.join("secret"));
        assert_eq!(kept.ok().as_deref(), Some("sentinel"));
        assert_eq!(fs::read_dir(&self.outside).unwrap().count(), 1);
    }
}

/// A directory, open as an embedder would.
fn directory(path: &Path) -> OwnedHandle {
    let mut options = fs::OpenOptions::new();
    options.access_mode(FILE_READ_ATTRIBUTES);
    options.custom_flags(BACKUP).open(path).unwrap().into()
}

fn of(name: &CStr) -> Name<'_> {
    Name::new(name).unwrap()
}

fn list(directory: &Directory, from: u64, most: usize) -> Vec<(String, u64)> {
    let mut shown = Vec::new();
    directory
        .list(from, &mut [], |entry| {
            if shown.len() == most {
                return Ok(Next::Enough);
            }
            let name = String::from_utf8(entry.name.to_vec()).unwrap();
            shown.push((name, entry.next));
            Ok(Next::More)
        })
        .unwrap();
    shown
}

#[test]
fn files_are_made_found_read_and_removed() {
    let share = Share::new();
    let made = share.make(c"a", "content").unwrap();
    assert_eq!(share.read(&made).as_deref(), Ok("content"));
    let found = share.find(c"a").unwrap();
    let (a, b) = (made.attributes().unwrap(), found.attributes().unwrap());
    assert_eq!((a.identity, a.kind()), (b.identity, Kind::Regular));
    assert_eq!(share.make(c"a", "").unwrap_err(), Errno::EEXIST);
    assert_eq!(share.make(c"A", "").unwrap_err(), Errno::EEXIST);
    share.host.unlink(&share.root, of(c"a")).unwrap();
    // Windows before 10 (1709) keeps the name for as long as a handle is held.
    drop((made, found));
    assert_eq!(share.find(c"a").unwrap_err(), Errno::ENOENT);
    assert_eq!(share.names(), [""; 0]);
}

#[test]
fn names_that_mean_more_to_windows_lead_nowhere() {
    let share = Share::new();
    share.make(c"file", "content").unwrap();
    fs::create_dir(share.path.join("dir")).unwrap();
    for name in [
        c"file:stream",
        c"file::$DATA",
        c"dir::$INDEX_ALLOCATION",
        c"..\\outside\\secret",
        c"dir\\..\\..\\outside",
        c"\\??\\C:\\",
        c"C:",
        c"nul",
        c"con.txt",
        c"file.",
        c"file ",
        c"f*",
        c"fil?",
        c"file\x01",
        c"\xff",
    ] {
        assert_eq!(share.find(name).unwrap_err(), Errno::ENOENT, "{name:?}");
        assert_eq!(share.make(name, "").unwrap_err(), Errno::EINVAL);
        let (host, root) = (&share.host, &share.root);
        assert_eq!(host.unlink(root, of(name)), Err(Errno::ENOENT));
        assert_eq!(
            host.make_directory(root, of(name), 0).unwrap_err(),
            Errno::EINVAL
        );
        let moved = share.rename(c"file", name, RenameMode::empty());
        assert_eq!(moved, Err(Errno::EINVAL), "{name:?}");
        let node = share.find(c"file").unwrap();
        assert_eq!(host.link(&node, root, of(name)), Err(Errno::EINVAL));
    }
    assert_eq!(share.names(), ["dir", "file"]);
}

#[test]
fn only_a_directory_has_names_in_it_and_only_a_file_content() {
    let share = Share::new();
    let file = share.make(c"file", "").unwrap();
    let host = &share.host;
    let directory = host.make_directory(&share.root, of(c"dir"), 0o755).unwrap();
    assert_eq!(host.lookup(&file, of(c"x")).unwrap_err(), Errno::ENOTDIR);
    assert_eq!(host.open_directory(&file).unwrap_err(), Errno::ENOTDIR);
    let opened = host.open(&directory, AccessMode::READ);
    assert_eq!(opened.unwrap_err(), Errno::EISDIR);
    assert_eq!(host.unlink(&share.root, of(c"dir")), Err(Errno::EISDIR));
    let removed = host.remove_directory(&share.root, of(c"file"));
    assert_eq!(removed, Err(Errno::ENOTDIR));
    host.create(&directory, of(c"x"), 0o644, AccessMode::READ)
        .unwrap();
    let removed = host.remove_directory(&share.root, of(c"dir"));
    assert_eq!(removed, Err(Errno::ENOTEMPTY));
    host.unlink(&directory, of(c"x")).unwrap();
    host.remove_directory(&share.root, of(c"dir")).unwrap();
}

#[test]
fn a_node_is_its_file_whatever_its_name_is() {
    let share = Share::new();
    let moved = share.make(c"before", "content").unwrap();
    share
        .rename(c"before", c"after", RenameMode::empty())
        .unwrap();
    share.make(c"before", "another").unwrap();
    match share.read(&moved) {
        Ok(content) => assert_eq!(content, "content"),
        // This system takes the handle for its old name; it must not show the other file then.
        Err(errno) => assert_eq!(errno, Errno::ESTALE),
    }
    let node = share.find(c"after").unwrap();
    let (file, _) = share.host.open(&node, AccessMode::BOTH).unwrap();
    share.host.unlink(&share.root, of(c"after")).unwrap();
    assert_eq!(file.write_from(&mut &b"more"[..], 7, 4), Ok(4));
    assert_eq!(node.attributes().unwrap().size, 11);
    drop((node, file, moved));
    assert_eq!(share.find(c"after").unwrap_err(), Errno::ENOENT);
    assert_eq!(share.names(), ["before"]);
}

#[test]
fn a_rename_replaces_what_linux_would_replace() {
    let share = Share::new();
    let none = RenameMode::empty();
    let (host, root) = (&share.host, &share.root);
    share.make(c"a", "a").unwrap();
    share.make(c"b", "b").unwrap();
    let kept = share.rename(c"a", c"b", RenameMode::NOREPLACE);
    assert_eq!(kept, Err(Errno::EEXIST));
    let exchanged = share.rename(c"a", c"b", RenameMode::EXCHANGE);
    assert_eq!(exchanged, Err(Errno::EINVAL));
    share.rename(c"a", c"b", none).unwrap();
    assert_eq!(share.read(&share.find(c"b").unwrap()).as_deref(), Ok("a"));
    host.make_directory(root, of(c"d"), 0o755).unwrap();
    host.make_directory(root, of(c"e"), 0o755).unwrap();
    assert_eq!(share.rename(c"b", c"d", none), Err(Errno::EISDIR));
    assert_eq!(share.rename(c"d", c"b", none), Err(Errno::ENOTDIR));
    share.rename(c"d", c"e", none).unwrap();
    assert_eq!(share.names(), ["b", "e"]);
    fs::write(share.path.join("e").join("x"), "").unwrap();
    host.make_directory(root, of(c"d"), 0o755).unwrap();
    assert_eq!(share.rename(c"d", c"e", none), Err(Errno::ENOTEMPTY));
    share.rename(c"b", c"B", none).unwrap();
    let names = share.names().concat();
    assert_eq!(names.to_lowercase(), "bde");
}

#[test]
fn a_short_name_does_not_lead_to_the_long_one() {
    let share = Share::new();
    share.make(c"a long name.text", "content").unwrap();
    let directory = share.root.reopen(FILE_LIST_DIRECTORY, 0).unwrap();
    let mut answer = [0; 128];
    let name: Vec<_> = "a long name.text".encode_utf16().collect();
    sys::list(directory.as_handle(), &mut answer, Some(&name), true).unwrap();
    // ShortNameLength and ShortName of FILE_ID_BOTH_DIR_INFORMATION.
    let bytes = answer.as_bytes();
    let units = bytes[70..70 + usize::from(bytes[68])].chunks_exact(2);
    let units: Vec<_> = units
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .collect();
    if units.is_empty() {
        eprintln!("skipped: this volume makes no short names");
        return;
    }
    assert!(windows_names::may_be_short(&units));
    let opened = sys::open(
        share.root.handle.as_handle(),
        &units,
        how(FILE_READ_ATTRIBUTES, 0),
    );
    assert!(opened.is_ok(), "the system itself follows the short name");
    let short = std::ffi::CString::new(String::from_utf16(&units).unwrap()).unwrap();
    assert_eq!(share.find(&short).unwrap_err(), Errno::ENOENT, "{short:?}");
    let removed = share.host.unlink(&share.root, of(&short));
    assert_eq!(removed, Err(Errno::ENOENT));
    share.make(c"other", "").unwrap();
    let replaced = share.rename(c"other", &short, RenameMode::empty());
    assert_eq!(replaced, Err(Errno::EEXIST));
    assert_eq!(share.names(), ["a long name.text", "other"]);
}

#[test]
fn a_name_with_a_tilde_of_its_own_is_found() {
    let share = Share::new();
    for name in [c"GIT~1", c"backup~", c"a.~1~"] {
        share.make(name, "own").unwrap();
        assert_eq!(share.read(&share.find(name).unwrap()).as_deref(), Ok("own"));
    }
    share
        .rename(c"GIT~1", c"backup~", RenameMode::empty())
        .unwrap();
    assert_eq!(share.names(), ["a.~1~", "backup~"]);
}

#[test]
fn a_listing_goes_on_where_it_ended() {
    let share = Share::new();
    let mut expected: Vec<_> = (0..100).map(|number| format!("file {number:03}")).collect();
    for name in &expected {
        fs::write(share.path.join(name), "").unwrap();
    }
    expected.sort();
    let directory = share.host.open_directory(&share.root).unwrap();
    let (mut names, mut at) = (Vec::new(), 0);
    loop {
        let piece = list(&directory, at, 7);
        let Some(last) = piece.last() else { break };
        at = last.1;
        names.extend(piece.into_iter().map(|(name, _)| name));
    }
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    assert_eq!(names, expected);
    assert_eq!(list(&directory, 50, 3), list(&directory, 50, 3));
}

#[test]
fn what_is_appended_goes_to_the_end() {
    let share = Share::new();
    let node = share.make(c"log", "one").unwrap();
    let flags = OpenFlags::WRONLY | OpenFlags::APPEND;
    let access = AccessMode::from_guest(flags, false);
    let (file, _) = share.host.open(&node, access).unwrap();
    assert_eq!(file.write_from(&mut &b" two"[..], 0, 4), Ok(4));
    assert_eq!(share.read(&node).as_deref(), Ok("one two"));
    file.set_size(3).unwrap();
    assert_eq!(share.read(&node).as_deref(), Ok("one"));
    file.sync(false).unwrap();
    for others in [
        OpenFlags::WRONLY,
        OpenFlags::WRONLY | OpenFlags::APPEND,
        OpenFlags::empty(),
    ] {
        file.write_from(&mut &b"more"[..], 0, 4).unwrap();
        let access = AccessMode::from_guest(others | OpenFlags::TRUNC, false);
        share.host.open(&node, access).unwrap();
        assert_eq!(share.read(&node).as_deref(), Ok(""));
    }
}

#[test]
fn links_times_and_permissions_are_set() {
    let share = Share::new();
    let node = share.make(c"a", "content").unwrap();
    share.host.link(&node, &share.root, of(c"b")).unwrap();
    let other = share.find(c"b").unwrap().attributes().unwrap();
    assert_eq!(other.links, 2);
    assert_eq!(other.identity, node.attributes().unwrap().identity);
    let linked = share.host.link(&node, &share.root, of(c"b"));
    assert_eq!(linked, Err(Errno::EEXIST));
    let at = Time {
        seconds: 1_000_000_000,
        nanos: 500,
    };
    node.set_times(NewTime::Keep, NewTime::At(at)).unwrap();
    assert_eq!(node.attributes().unwrap().modified, at);
    share.host.set_mode(&node, 0o444).unwrap();
    assert_eq!(node.attributes().unwrap().mode, 0o100_555);
    assert_eq!(share.host.may_access(&node, MAY_WRITE), Err(Errno::EACCES));
    assert_eq!(share.host.may_access(&node, MAY_READ), Ok(()));
    share.host.set_mode(&node, 0o644).unwrap();
    assert_eq!(share.host.may_access(&node, MAY_WRITE), Ok(()));
    share.host.set_mode(&node, 0o444).unwrap();
    let removed = share.host.unlink(&share.root, of(c"a"));
    // Windows before 10 (1809) does not remove what is read-only.
    assert!(matches!(removed, Ok(()) | Err(Errno::EPERM)), "{removed:?}");
}

#[test]
fn what_windows_has_not_is_refused() {
    let share = Share::new();
    let node = share.make(c"a", "content").unwrap();
    let (host, root) = (&share.host, &share.root);
    let unnamed = host.create_unnamed(root, 0o644, AccessMode::BOTH, false);
    assert_eq!(unnamed.unwrap_err(), Errno::ENOSYS);
    let name = crate::abi::XattrName::new(c"user.a").unwrap();
    assert_eq!(host.get_xattr(&node, name, &mut []), Err(Errno::ENOSYS));
    let (file, _) = host.open(&node, AccessMode::BOTH).unwrap();
    assert_eq!(file.next_hole(0), Err(Errno::ENOSYS));
    assert_eq!(file.flock(LockRequest::Shared), Err(Errno::EOPNOTSUPP));
    let exchanged = share.rename(c"a", c"b", RenameMode::EXCHANGE);
    assert_eq!(exchanged, Err(Errno::EINVAL));
    assert!(root.space().unwrap().blocks > 0);
}

#[test]
fn a_symbolic_link_is_kept_and_never_followed() {
    let share = Share::new();
    let target = Target::new(c"../outside/secret").unwrap();
    let link = match share.host.make_symlink(&share.root, of(c"link"), target) {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
            assert_eq!(share.names(), [""; 0], "half a link is left");
            eprintln!("skipped: this volume has no reparse points");
            return;
        }
        made => made.unwrap(),
    };
    let mut text = Vec::new();
    share.host.read_link(&link, &mut text).unwrap();
    assert_eq!(text, target.as_c_str().to_bytes());
    assert_eq!(link.attributes().unwrap().kind(), Kind::Symlink);
    let opened = share.host.open(&link, AccessMode::READ);
    assert_eq!(opened.unwrap_err(), Errno::ELOOP);
    share.host.unlink(&share.root, of(c"link")).unwrap();
}

/// Sends one request; gives the error number and what is behind the head.
fn ask(server: &crate::Server, opcode: Opcode, node: u64, body: &[u8]) -> (i32, Vec<u8>) {
    let head = wire::InHeader {
        len: u32::try_from(size_of::<wire::InHeader>() + body.len()).unwrap(),
        opcode: opcode as u32,
        unique: 1,
        nodeid: node,
        ..wire::InHeader::default()
    };
    let request = [head.as_bytes(), body].concat();
    let mut reply = Vec::with_capacity(8192);
    server.handle(&mut &request[..], &mut reply).unwrap();
    let error = i32::from_le_bytes(*reply[4..].first_chunk().unwrap());
    (error, reply[16..].to_vec())
}

#[test]
fn a_server_answers_from_it() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("seen"), "content").unwrap();
    fs::write(place.path().join("hidden"), "secret").unwrap();
    let mut config = crate::Config::new(directory(place.path()));
    config.rules = crate::Rules::none();
    config.rules.hide("hidden").unwrap();
    let server = crate::Server::new(config).unwrap();
    let ask = |opcode, node, body: &[u8]| ask(&server, opcode, node, body);
    let init = wire::InitIn {
        major: 7,
        minor: 41,
        max_readahead: 1 << 20,
        flags: InitFlags::all().low(),
    };
    let init = [init.as_bytes(), wire::InitInExt::default().as_bytes()].concat();
    assert_eq!(ask(Opcode::Init, 0, &init).0, 0);
    let (error, entry) = ask(Opcode::Lookup, ROOT_ID, b"seen\0");
    assert_eq!(error, 0);
    let node = u64::from_le_bytes(*entry.first_chunk().unwrap());
    for (name, errno) in [
        (&b"hidden\0"[..], Errno::ENOENT),
        (b"HIDDEN\0", Errno::ENOENT),
        (b"hidden::$DATA\0", Errno::ENOENT),
        (b"HIDDEN~1\0", Errno::ENOENT),
    ] {
        assert_eq!(ask(Opcode::Lookup, ROOT_ID, name).0, errno.reply_code());
    }
    let (error, opened) = ask(Opcode::Open, node, wire::OpenIn::default().as_bytes());
    assert_eq!(error, 0);
    let read = wire::ReadIn {
        fh: u64::from_le_bytes(*opened.first_chunk().unwrap()),
        size: 100,
        ..wire::ReadIn::default()
    };
    let content = ask(Opcode::Read, node, read.as_bytes());
    assert_eq!(content, (0, b"content".to_vec()));
}

//! Extended attributes: those of users, and no others.
//!
//! `security.*` would grant capabilities, `trusted.*` is the host administrator's, `system.*` are access lists that speak of
//! the host's users.

use super::Server;
use super::scratch::{Answer, Scratch};
use crate::abi::{XattrMode, XattrName, wire};
use crate::errno::Errno;
use crate::host::LONGEST_XATTR;

/// The name space that the guest may use.
const USER: &[u8] = b"user.";
/// The name space of access lists: a file system that has none says "not supported", and programs that copy files expect that.
const SYSTEM: &[u8] = b"system.";

impl Server {
    /// GETXATTR.
    pub(super) fn get_xattr(
        &self,
        node: u64,
        name: XattrName<'_>,
        size: u32,
        scratch: &mut Scratch,
    ) -> Result<Answer, Errno> {
        let inode = self.node(node)?;
        if !is_users(name.as_c_str().to_bytes()) {
            return Err(Errno::EOPNOTSUPP);
        }
        let len = self
            .host
            .get_xattr(&inode.node, name, scratch.value(LONGEST_XATTR))?;
        if size == 0 {
            told(len, scratch)
        } else {
            given(len, size, scratch).map(|()| Answer::Value(len))
        }
    }

    /// SETXATTR.
    pub(super) fn set_xattr(
        &self,
        node: u64,
        name: XattrName<'_>,
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), Errno> {
        let inode = self.node(node)?.changeable()?;
        changeable(name)?;
        if value.len() > LONGEST_XATTR {
            return Err(Errno::E2BIG);
        }
        let inode = self.own(inode)?;
        self.host.set_xattr(&inode.node, name, value, mode)
    }

    /// LISTXATTR.
    pub(super) fn list_xattrs(
        &self,
        node: u64,
        size: u32,
        scratch: &mut Scratch,
    ) -> Result<Answer, Errno> {
        let inode = self.node(node)?;
        let list = scratch.value(LONGEST_XATTR);
        let len = self.host.list_xattrs(&inode.node, list)?;
        let len = keep_users(list, len);
        if size == 0 {
            told(len, scratch)
        } else {
            given(len, size, scratch).map(|()| Answer::Value(len))
        }
    }

    /// REMOVEXATTR.
    pub(super) fn remove_xattr(&self, node: u64, name: XattrName<'_>) -> Result<(), Errno> {
        let inode = self.node(node)?.changeable()?;
        changeable(name)?;
        let inode = self.own(inode)?;
        self.host.remove_xattr(&inode.node, name)
    }
}

/// The answer to "how long is it".
fn told(len: usize, scratch: &mut Scratch) -> Result<Answer, Errno> {
    let size = u32::try_from(len).map_err(|_| Errno::E2BIG)?;
    Ok(scratch.put(&wire::GetXattrOut { size, padding: 0 }))
}

/// Checks that `len` bytes fit what the guest asked for.
fn given(len: usize, size: u32, scratch: &Scratch) -> Result<(), Errno> {
    if usize::try_from(size).is_ok_and(|size| len <= size.min(scratch.room)) {
        Ok(())
    } else {
        Err(Errno::ERANGE)
    }
}

fn is_users(name: &[u8]) -> bool {
    name.len() > USER.len() && name.starts_with(USER)
}

fn changeable(name: XattrName<'_>) -> Result<(), Errno> {
    match name.as_c_str().to_bytes() {
        name if is_users(name) => Ok(()),
        name if name.starts_with(SYSTEM) => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::EPERM),
    }
}

/// Moves the names of users' attributes to the front of `list`, whose first `len` bytes are names with a NUL behind
/// each; returns their length.
fn keep_users(list: &mut [u8], len: usize) -> usize {
    let mut kept = Vec::with_capacity(len);
    let names = list
        .get(..len)
        .unwrap_or_default()
        .split_inclusive(|byte| *byte == 0);
    names
        .filter(|name| is_users(name.strip_suffix(b"\0").unwrap_or(name)))
        .for_each(|name| kept.extend_from_slice(name));
    if let Some(front) = list.get_mut(..kept.len()) {
        front.copy_from_slice(&kept);
    }
    kept.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_users_are_listed() {
        for (list, expected) in [
            (&b""[..], &b""[..]),
            (b"user.a\0", b"user.a\0"),
            (
                b"security.selinux\0user.a\0trusted.x\0user.bb\0",
                b"user.a\0user.bb\0",
            ),
            (b"user.\0userx.a\0system.posix_acl_access\0", b""),
            (b"user.last", b"user.last"),
        ] {
            let mut buffer = list.to_vec();
            let len = keep_users(&mut buffer, list.len());
            assert_eq!(buffer.get(..len), Some(expected));
        }
    }

    #[test]
    fn each_name_space_is_refused_in_its_own_way() {
        for (name, expected) in [
            (c"user.a", Ok(())),
            (c"user.", Err(Errno::EPERM)),
            (c"user", Err(Errno::EPERM)),
            (c"USER.a", Err(Errno::EPERM)),
            (c"security.capability", Err(Errno::EPERM)),
            (c"trusted.overlay.opaque", Err(Errno::EPERM)),
            (c"system.posix_acl_access", Err(Errno::EOPNOTSUPP)),
            (c"x", Err(Errno::EPERM)),
        ] {
            assert_eq!(
                changeable(XattrName::new(name).unwrap()),
                expected,
                "{name:?}"
            );
        }
    }
}

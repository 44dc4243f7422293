//! The way to the host.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::last_errno;

/// Connects to a vsock port of the host. That this port is the agent's was arranged by the host; nothing else of it answers.
pub(crate) fn connect_to_host(port: u32) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::VSOCK,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let address = address(libc::VMADDR_CID_HOST, port);
    // SAFETY: `address` is an initialised `sockaddr_vm` and its own size is given.
    let connected =
        unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length()) };
    if connected == 0 {
        Ok(socket)
    } else {
        Err(last_errno())
    }
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: `sockaddr_vm` is plain data for which all zero bytes are a valid value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap_or_default();
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

fn length() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<libc::sockaddr_vm>()).unwrap_or_default()
}

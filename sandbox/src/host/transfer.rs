//! Hands a plan and its descriptors from the host program to the worker over a Unix socket.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::plan::{MAX_DESCRIPTORS, MAX_PLAN};

/// Room for the control messages of one transfer.
const ANCILLARY: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// Sends `plan` with one descriptor for each of its roles.
pub(super) fn send_plan(
    mut socket: &UnixStream,
    plan: &impl Serialize,
    files: &[OwnedFd],
) -> io::Result<()> {
    let body = postcard::to_stdvec(plan).map_err(io::Error::other)?;
    let length = u32::try_from(body.len())
        .map_err(io::Error::other)?
        .to_le_bytes();
    if body.len() > MAX_PLAN || files.len() > MAX_DESCRIPTORS {
        return Err(io::Error::other("the plan is too large"));
    }
    let borrowed: Vec<BorrowedFd<'_>> = files.iter().map(OwnedFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); ANCILLARY];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&borrowed));
    // The descriptors travel with the four bytes of the length, which are never split.
    sendmsg(
        socket,
        &[IoSlice::new(&length)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    socket.write_all(&body)
}

/// Receives a plan with its descriptors; their number may differ from that of the roles.
pub(crate) fn receive_plan<P: DeserializeOwned>(
    mut socket: &UnixStream,
) -> io::Result<(P, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); ANCILLARY];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut length)];
    let got = recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes != 4 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let files = received(&mut ancillary);
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_PLAN {
        return Err(io::Error::other("the plan is too large"));
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    let plan = postcard::from_bytes(&body).map_err(io::Error::other)?;
    Ok((plan, files))
}

/// Sends a descriptor, with a byte that says nothing.
pub(crate) fn send_descriptor(socket: &UnixStream, descriptor: impl AsFd) -> io::Result<()> {
    let borrowed = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&borrowed));
    let parts = [IoSlice::new(&[0])];
    sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives the next descriptor.
///
/// # Errors
///
/// `WouldBlock` where the socket does not wait; the other end is closed, or sent something else.
pub(crate) fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let got = recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    received(&mut ancillary)
        .into_iter()
        .next()
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn received(ancillary: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    let messages = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    messages.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{PLAN_VERSION, Plan, Role, RulePlan};
    use std::io::Seek as _;

    #[test]
    fn a_plan_arrives_with_its_descriptors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        file.rewind().unwrap();
        let plan = Plan {
            version: PLAN_VERSION,
            vcpus: 1,
            memory: 1 << 26,
            command_line: "quiet ".repeat(1000),
            serial: false,
            roles: vec![Role::Kernel],
            share_devices: Vec::new(),
            shares: vec![],
            rules: RulePlan::default(),
        };
        send_plan(&ours, &plan, &[file.into()]).unwrap();
        let (got, files) = receive_plan(&theirs).unwrap();
        assert_eq!((got, files.len()), (plan, 1));
        let mut text = String::new();
        std::fs::File::from(files.into_iter().next().unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "content");
    }

    #[test]
    fn a_closed_or_lying_socket_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert!(receive_plan::<Plan>(&theirs).is_err());
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(receive_plan::<Plan>(&theirs).is_err());
    }
}

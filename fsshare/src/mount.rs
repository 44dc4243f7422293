//! The server on this host's own `/dev/fuse`: the tree appears at a directory of this host, served as a guest would see it.
//!
//! It is for tests, benchmarks and for whoever wants to look at a share through the policy that guards it. The kernel checks
//! permissions (`default_permissions`), as the kernel of a guest does.
//!
//! The bytes are those of the kernel's FUSE device (`Documentation/filesystems/fuse.rst`): a read gives one request, a write takes one
//! reply. Each thread reads from a queue of its own (`FUSE_DEV_IOC_CLONE`).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::{Server, sys};

/// Room for what comes before and after the content of the largest request or reply; the kernel insists on one page
/// at least.
const OVERHEAD: usize = 16 << 10;

/// A share that is mounted on this host. Dropping it unmounts, also under programs that still use it, and waits for the
/// requests that are under way.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
    threads: Vec<JoinHandle<()>>,
}

impl Mount {
    /// Mounts `server` at the directory `at` and serves it with so many threads (one at least).
    ///
    /// # Errors
    /// `PermissionDenied`: mounting takes `CAP_SYS_ADMIN`. Otherwise what the host says of `/dev/fuse` and `at`.
    pub fn new(server: Server, at: &Path, threads: usize) -> io::Result<Self> {
        let at = at.canonicalize()?;
        let device = open_device()?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
            device.as_raw_fd()
        );
        let options = CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount(
            c"cofferdam",
            &at,
            c"fuse.cofferdam",
            flags,
            options.as_c_str(),
        )?;
        let mut mount = Self {
            at,
            threads: Vec::new(),
        };
        let server = Arc::new(server);
        mount.serve(&server, device.try_clone()?)?;
        for _ in 1..threads {
            mount.serve(&server, another_queue(&device)?)?;
        }
        Ok(mount)
    }

    fn serve(&mut self, server: &Arc<Server>, device: OwnedFd) -> io::Result<()> {
        let server = Arc::clone(server);
        let thread = thread::Builder::new().name("fuse".into());
        self.threads
            .push(thread.spawn(move || serve(&server, &device))?);
        Ok(())
    }

    /// Waits until someone else unmounts the share.
    pub fn wait(mut self) {
        self.join();
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to give.
            drop(thread.join());
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Its threads end with the mount, and what someone else mounts there afterwards is not ours.
        let is_mounted = self.threads.iter().any(|thread| !thread.is_finished());
        if is_mounted {
            let _ = rustix::mount::unmount(&self.at, UnmountFlags::FORCE | UnmountFlags::DETACH);
        }
        self.join();
    }
}

fn open_device() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(c"/dev/fuse", flags, Mode::empty())?)
}

/// Another queue of the same mount.
fn another_queue(first: &OwnedFd) -> io::Result<OwnedFd> {
    let device = open_device()?;
    sys::join_fuse(&device, first.as_fd())?;
    Ok(device)
}

/// Answers requests until the share is unmounted.
fn serve(server: &Server, device: &OwnedFd) {
    let room = server.longest_transfer() + OVERHEAD;
    let mut request = vec![0; room];
    let mut reply = Vec::with_capacity(room);
    loop {
        let length = match rustix::io::read(device, &mut request) {
            Ok(length) => length,
            // The request was given up before it was read, or a signal came.
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
            // ENODEV: unmounted.
            Err(_) => return,
        };
        reply.clear();
        let mut unread = request.get(..length).unwrap_or_default();
        match server.handle(&mut unread, &mut reply) {
            Ok(0) => {}
            Ok(_) => {
                // It fails with ENOENT when the request was given up meanwhile.
                let _ = rustix::io::write(device, &reply);
            }
            // The kernel sent what is no request of FUSE: it waits for nothing.
            Err(_) => {}
        }
    }
}

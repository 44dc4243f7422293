//! The server on this host's own `/dev/fuse`: the tree appears at a directory of this host, served as a guest would see it.
//!
//! It is for tests, benchmarks and for whoever wants to look at a share through the policy that guards it.
//!
//! The bytes are those of the kernel's FUSE device (`Documentation/filesystems/fuse.rst`): a read gives one request, a write takes one
//! reply. Each thread reads from a queue of its own (`FUSE_DEV_IOC_CLONE`). Before it sleeps for the next request, one thread at a time looks
//! out for it for a moment (`PATIENCE`), which spends a processor's time to save that of waking up.
//!
//! Where the kernel can (Linux 6.9), it reads and writes the content of open files itself (passthrough, `FUSE_DEV_IOC_BACKING_OPEN`): no
//! READ or WRITE comes to the server then. The server lets it do so only where it would have nothing to say: not on a share that is
//! read-only or has a quota.

use std::ffi::CString;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use zerocopy::IntoBytes as _;

use crate::server::Backing;
use crate::transfer::{FileReply, Writer};
use crate::{Server, sys};

/// How long a thread looks out for the next request.
const PATIENCE: Duration = Duration::from_micros(100);
/// Room for what comes before and after the content of the largest request or reply; the kernel insists on one page
/// at least.
const OVERHEAD: usize = 16 << 10;

/// Who may use a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The user who mounts it alone. What that user may do is for the host to say, when the server asks it.
    Owner,
    /// Every user. The kernel checks permissions (`allow_other`, `default_permissions`), as the kernel of a guest does; for that it asks
    /// about a directory again whenever something in it was made or removed.
    All,
}

impl Access {
    const fn options(self) -> &'static str {
        match self {
            Self::Owner => "",
            Self::All => ",default_permissions,allow_other",
        }
    }
}

/// A share that is mounted on this host. Dropping it unmounts, also under programs that still use it, and waits for the
/// requests that are under way.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
    threads: Vec<JoinHandle<()>>,
}

impl Mount {
    /// Mounts `server` at the directory `at` and serves it with so many threads (one at least), each with two descriptors.
    ///
    /// # Errors
    /// `PermissionDenied`: mounting takes `CAP_SYS_ADMIN`. Otherwise what the host says of `/dev/fuse`, `at` and threads. Nothing stays
    /// mounted.
    pub fn new(mut server: Server, at: &Path, threads: usize, access: Access) -> io::Result<Self> {
        let at = at.canonicalize()?;
        let device = open_device(OFlags::empty())?;
        let options = format!(
            "fd={},rootmode=40000,user_id={},group_id={}{}",
            device.as_raw_fd(),
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
            access.options()
        );
        let options = CString::new(options)?;
        server.pass_through_to(Box::new(Kernel(device.try_clone()?)));
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
        if let Err(error) = mount.start(server, &device, threads.max(1)) {
            // Perhaps no thread serves it, by which a drop would know that it is there.
            mount.unmount();
            mount.join();
            return Err(error);
        }
        Ok(mount)
    }

    fn start(&mut self, server: Server, device: &OwnedFd, threads: usize) -> io::Result<()> {
        let server = Arc::new(server);
        let polled = Arc::new(AtomicBool::new(false));
        for _ in 0..threads {
            let (server, polled) = (Arc::clone(&server), Arc::clone(&polled));
            let queue = Queue {
                waiting: another_queue(device, OFlags::empty())?,
                polling: another_queue(device, OFlags::NONBLOCK)?,
                polled,
            };
            let thread = thread::Builder::new().name("fuse".into());
            let thread = thread.spawn(move || serve(&server, &queue))?;
            self.threads.push(thread);
        }
        Ok(())
    }

    /// Waits until someone else unmounts the share.
    pub fn wait(mut self) {
        self.join();
    }

    fn unmount(&self) {
        // It fails where someone else was faster.
        let _ = rustix::mount::unmount(&self.at, UnmountFlags::FORCE | UnmountFlags::DETACH);
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
            self.unmount();
        }
        self.join();
    }
}

/// The kernel's side of the mount, which takes files over.
struct Kernel(OwnedFd);

impl Backing for Kernel {
    fn open(&self, file: BorrowedFd<'_>) -> io::Result<i32> {
        sys::open_backing(self.0.as_fd(), file)
    }

    fn close(&self, id: i32) {
        // It fails for a number that the kernel does not know, or with the mount; then there is nothing to let go of.
        let _ = sys::close_backing(self.0.as_fd(), id);
    }
}

fn open_device(flags: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | flags;
    Ok(rustix::fs::open(c"/dev/fuse", flags, Mode::empty())?)
}

/// Another queue of the same mount.
fn another_queue(first: &OwnedFd, flags: OFlags) -> io::Result<OwnedFd> {
    let device = open_device(flags)?;
    sys::join_fuse(&device, first.as_fd())?;
    Ok(device)
}

/// Answers requests until the share is unmounted.
fn serve(server: &Server, queue: &Queue) {
    let room = server.longest_transfer() + OVERHEAD;
    let (mut request, mut content) = (vec![0; room], Vec::new());
    loop {
        let (device, length) = match queue.next(&mut request) {
            Ok(next) => next,
            // The request was given up before it was read, or a signal came.
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
            // ENODEV: unmounted.
            Err(_) => return,
        };
        let mut unread = request.get(..length).unwrap_or_default();
        // It fails when the request was given up meanwhile (ENOENT), or is none of FUSE; then nobody waits.
        let mut reply = Reply {
            device,
            room,
            content: &mut content,
        };
        let _ = server.handle(&mut unread, &mut reply);
    }
}

/// What one thread serves. A reply goes back where its request came from.
struct Queue {
    waiting: OwnedFd,
    polling: OwnedFd,
    /// Whether some thread of the mount is looking out.
    polled: Arc<AtomicBool>,
}

impl Queue {
    /// The next request. One thread at a time looks out for it for a moment before it goes to sleep: who asks one thing after the other would
    /// otherwise wait for a processor to wake up, each time.
    fn next(&self, request: &mut [u8]) -> Result<(&OwnedFd, usize), Errno> {
        if !self.polled.swap(true, Ordering::Relaxed) {
            let outcome = self.look_out(request);
            self.polled.store(false, Ordering::Relaxed);
            match outcome {
                Err(Errno::AGAIN) => {}
                outcome => return outcome.map(|length| (&self.polling, length)),
            }
        }
        rustix::io::read(&self.waiting, request).map(|length| (&self.waiting, length))
    }

    fn look_out(&self, request: &mut [u8]) -> Result<usize, Errno> {
        let begin = Instant::now();
        loop {
            match rustix::io::read(&self.polling, &mut *request) {
                Err(Errno::AGAIN) if begin.elapsed() < PATIENCE => thread::yield_now(),
                outcome => return outcome,
            }
        }
    }
}

/// Takes a reply, which has to come in one write.
struct Reply<'a> {
    device: &'a OwnedFd,
    room: usize,
    /// For what is read from files.
    content: &'a mut Vec<u8>,
}

impl Writer for Reply<'_> {
    fn available(&self) -> usize {
        self.room
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send(bytes, &[])
    }

    fn send(&mut self, head: &[u8], payload: &[u8]) -> io::Result<()> {
        send(self.device, head, payload)
    }

    fn send_file(&mut self, reply: &FileReply<'_>) -> io::Result<usize> {
        let (head, payload) = reply.read_into(self.content);
        send(self.device, head.as_bytes(), payload)?;
        Ok(FileReply::HEAD_LEN + payload.len())
    }
}

fn send(device: &OwnedFd, head: &[u8], payload: &[u8]) -> io::Result<()> {
    let parts = [IoSlice::new(head), IoSlice::new(payload)];
    rustix::io::writev(device, &parts)?;
    Ok(())
}

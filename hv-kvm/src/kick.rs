//! Gets a vCPU's thread out of `KVM_RUN`, from any thread, at any time.
//!
//! Two means together leave no gap: the byte `immediate_exit` that `KVM_RUN` shares with user space
//! makes the next entry return at once, and a signal ends an entry that is under way.
//!
//! ```text
//! kick():  if immediate_exit.swap(1) == 0 && inside { signal the thread }
//! run():   inside := true;       KVM_RUN ...; EINTR and immediate_exit.swap(0) == 1 => kicked
//! ```
//!
//! Both sides write their own flag and then read the other's, all sequentially consistent: either
//! the kicker sees `inside` and signals, or `KVM_RUN` sees `immediate_exit`. A signal that comes too
//! late finds the flag cleared, and the run loop enters again. The flag is sticky by itself. Kicks
//! while one is pending send no signal: real-time signals queue up, and a storm of kicks would keep
//! the thread busy with signals for ever.
//!
//! The kicker works under a lock that teardown takes too, so the thread that it signals and the
//! page that it writes exist. The page is a mapping of the vCPU's descriptor of its own, beside the
//! one that `kvm-ioctls` forms references to.

#![expect(
    unsafe_code,
    reason = "writes a byte that is shared with the kernel, and sends a signal"
)]

use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hv_core::{HvError, Kick, Result};
use kvm_bindings::{kvm_run, kvm_run__bindgen_ty_1__bindgen_ty_4};
use kvm_ioctls::VcpuFd;

/// Enough of `kvm_run` to hold `immediate_exit`.
const PAGE: usize = 4096;

fn last_error(op: &'static str) -> HvError {
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    HvError::from_errno(op, errno)
}

extern "C" fn ignore(_signal: libc::c_int) {}

/// Installs the signal's handler, which does nothing: that the signal interrupts is what counts.
pub(crate) fn install_handler() -> Result<()> {
    static INSTALLED: OnceLock<Result<()>> = OnceLock::new();
    INSTALLED.get_or_init(set_handler).clone()
}

fn set_handler() -> Result<()> {
    // SAFETY: an all-zero `sigaction` is a valid one: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // Other system calls of the thread go on; `KVM_RUN` answers EINTR all the same.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is initialised, its handler touches nothing, and no old action is asked for.
    let set = unsafe { libc::sigaction(libc::SIGRTMIN(), &raw const action, std::ptr::null_mut()) };
    if set == 0 {
        Ok(())
    } else {
        Err(last_error("sigaction"))
    }
}

/// Lets the signal reach the calling thread, whatever mask it inherited.
fn unblock() {
    // SAFETY: `set` is written by `sigemptyset` before it is read; the calls touch nothing else and
    // cannot fail with these arguments.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGRTMIN());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// A mapping of the head of a vCPU's `kvm_run`, for `immediate_exit` and for the one field of a port
/// access that `kvm-ioctls` does not pass on.
pub(crate) struct RunPage(NonNull<u8>);

// SAFETY: the mapping belongs to the process, not to a thread, and is used through an atomic.
unsafe impl Send for RunPage {}
// SAFETY: as above.
unsafe impl Sync for RunPage {}

impl RunPage {
    fn new(vcpu: &VcpuFd) -> Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = vcpu.as_raw_fd();
        // SAFETY: a new mapping at an address that the kernel picks replaces nothing.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                protection,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(last_error("mmap of a vCPU"));
        }
        NonNull::new(page.cast())
            .map(Self)
            .ok_or(HvError::invalid("mmap of a vCPU"))
    }

    fn immediate_exit(&self) -> &AtomicU8 {
        const OFFSET: usize = std::mem::offset_of!(kvm_run, immediate_exit);
        // SAFETY: the byte lies in the mapping, which lives as long as `self`; this process reaches it
        // through this mapping only, always atomically. The kernel only reads it.
        unsafe { AtomicU8::from_ptr(self.0.as_ptr().add(OFFSET)) }
    }

    /// Takes a pending kick; true when there was one.
    pub(crate) fn take(&self) -> bool {
        self.immediate_exit().swap(0, SeqCst) != 0
    }

    /// The width of one item of the port access that was the last exit, at least 1.
    pub(crate) fn port_width(&self) -> usize {
        const OFFSET: usize = std::mem::offset_of!(kvm_run, __bindgen_anon_1)
            + std::mem::offset_of!(kvm_run__bindgen_ty_1__bindgen_ty_4, size);
        // SAFETY: the byte lies in the mapping, which lives as long as `self`. The kernel writes it
        // only inside `KVM_RUN`, which the thread that asks is not in.
        let width = unsafe { self.0.as_ptr().add(OFFSET).read_volatile() };
        usize::from(width).max(1)
    }

    /// Asks for an exit; true when nobody had asked already.
    fn request(&self) -> bool {
        self.immediate_exit().swap(1, SeqCst) == 0
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, has this size, and nobody else knows of it.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE) };
    }
}

/// Whom a kick reaches.
enum Target {
    /// No thread yet; a kick is kept for it.
    Seed { kicked: bool },
    /// The vCPU of this thread.
    Bound {
        page: Arc<RunPage>,
        thread: libc::pthread_t,
    },
    /// Nobody any more.
    Gone,
}

/// What a vCPU and those who kick it share.
pub(crate) struct KickState {
    target: Mutex<Target>,
    /// The thread is in `run`: only then is it worth a signal.
    inside: AtomicBool,
}

impl KickState {
    pub(crate) fn new() -> Self {
        Self {
            target: Mutex::new(Target::Seed { kicked: false }),
            inside: AtomicBool::new(false),
        }
    }

    fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ties kicks to the calling thread and its vCPU.
    pub(crate) fn bind(&self, vcpu: &VcpuFd) -> Result<Arc<RunPage>> {
        unblock();
        let page = Arc::new(RunPage::new(vcpu)?);
        let mut target = self.target();
        if matches!(*target, Target::Seed { kicked: true }) {
            page.request();
        }
        *target = Target::Bound {
            page: Arc::clone(&page),
            // SAFETY: always succeeds and touches nothing.
            thread: unsafe { libc::pthread_self() },
        };
        Ok(page)
    }

    /// Ends that: called by the thread itself, so it is alive until then. Lets go of the page,
    /// which would keep the VM alive in the kernel.
    pub(crate) fn release(&self) {
        *self.target() = Target::Gone;
    }

    /// Marks the thread as inside `run` until the mark is dropped.
    pub(crate) fn enter(&self) -> Inside<'_> {
        self.inside.store(true, SeqCst);
        Inside(self)
    }
}

/// The thread is inside `run`.
pub(crate) struct Inside<'a>(&'a KickState);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.store(false, SeqCst);
    }
}

impl Kick for KickState {
    fn kick(&self) {
        match &mut *self.target() {
            Target::Seed { kicked } => *kicked = true,
            Target::Bound { page, thread } => {
                if page.request() && self.inside.load(SeqCst) {
                    // SAFETY: the thread is alive: it calls `release`, which waits for the lock that
                    // is held here, before it ends.
                    unsafe { libc::pthread_kill(*thread, libc::SIGRTMIN()) };
                }
            }
            Target::Gone => {}
        }
    }
}

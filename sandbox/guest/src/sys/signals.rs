//! Being told of ended children, and signalling everybody.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::process::Signal;

use super::last_errno;

static CHILD_ENDED: OnceLock<OwnedFd> = OnceLock::new();

/// Runs in signal context: one system call, and the errno of whoever was interrupted is put back.
extern "C" fn on_child_ended(_signal: libc::c_int) {
    if let Some(event) = CHILD_ENDED.get() {
        // SAFETY: `event` is open for the life of the program, the buffer is 8 readable bytes, and errno is thread-local: reading
        // and writing it through its own location is always sound.
        unsafe {
            let errno = *libc::__errno_location();
            libc::write(
                event.as_raw_fd(),
                (&raw const ONE).cast(),
                size_of_val(&ONE),
            );
            *libc::__errno_location() = errno;
        }
    }
}

static ONE: u64 = 1;

/// An eventfd that becomes readable when a child of this process ends. One for the whole program.
pub(crate) fn child_events() -> Result<BorrowedFd<'static>, Errno> {
    if CHILD_ENDED.get().is_none() {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        CHILD_ENDED.get_or_init(|| event);
        install_handler()?;
    }
    CHILD_ENDED
        .get()
        .map(std::os::fd::AsFd::as_fd)
        .ok_or(Errno::BADF)
}

fn install_handler() -> Result<(), Errno> {
    // SAFETY: `sigaction` is plain data for which all zero bytes are a valid value (no flags, empty mask).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_child_ended as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
    // SAFETY: `action` is a valid structure whose handler is async-signal-safe; no old action is asked for.
    match unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Sends `signal` to every process but this one; for PID 1 only.
pub(crate) fn signal_everything(signal: Signal) {
    // SAFETY: kill takes no memory. It fails only if there is nobody to signal.
    unsafe { libc::kill(-1, signal.as_raw()) };
}

//! Which system calls a worker may still make (seccomp, `Documentation/userspace-api/seccomp_filter.rst`).
//!
//! Two lists. What no worker ever asks for ends the process that asks: it is not doing our work any more. The egress worker has, beside that, a
//! list of all that it may ask for; what is not on it is refused with `EPERM`, so that a C library that tries something new, and can do without, goes on.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// What ends a worker: other programs, other processes' memory, signals to them, other namespaces, and what has had more holes in kernels than uses here.
const FATAL: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_madvise,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_fsopen,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
];

/// What the egress worker may ask for, whatever the arguments.
const EGRESS: &[c_long] = &[
    // Descriptors that it has, and sockets.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_close,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    // Memory, as far as it holds no code.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads and time.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_membarrier,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // For old C libraries, on the one architecture that has them.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// The filters of a worker, made while it may still allocate.
#[derive(Debug)]
pub(super) struct Filters(Vec<BpfProgram>);

impl Filters {
    /// Of every worker.
    pub(super) fn common() -> io::Result<Self> {
        let fatal = FATAL.iter().map(|call| (*call, Vec::new()));
        let fatal = program(
            fatal.collect(),
            SeccompAction::KillProcess,
            SeccompAction::Allow,
        )?;
        Ok(Self(vec![fatal]))
    }

    /// Of the egress worker.
    pub(super) fn egress() -> io::Result<Self> {
        let Self(mut all) = Self::common()?;
        // Its flags are in memory, where no filter sees them; C libraries then take the older call.
        let unseen = [(libc::SYS_clone3, Vec::new())].into();
        let refused = SeccompAction::Errno(number(libc::ENOSYS));
        all.push(program(unseen, refused, SeccompAction::Allow)?);
        let mut rules: BTreeMap<_, _> = EGRESS.iter().map(|call| (*call, Vec::new())).collect();
        rules.extend(conditional()?);
        // `clone3` has its own answer.
        rules.insert(libc::SYS_clone3, Vec::new());
        let refused = SeccompAction::Errno(number(libc::EPERM));
        all.push(program(rules, SeccompAction::Allow, refused)?);
        Ok(Self(all))
    }

    /// Holds for this thread from now on, and for those that it starts. It takes `PR_SET_NO_NEW_PRIVS`.
    pub(super) fn apply(&self) -> io::Result<()> {
        for filter in &self.0 {
            seccompiler::apply_filter(filter).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// What depends on its arguments.
fn conditional() -> io::Result<BTreeMap<c_long, Vec<SeccompRule>>> {
    // Of the internet, and the kernel's own for a look at the host's addresses.
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let families = families.map(|family| when(0, SeccompCmpOp::Eq, number(family).into()));
    let no_code = || -> io::Result<_> {
        let execute = u64::from(number(libc::PROT_EXEC));
        Ok(vec![when(2, SeccompCmpOp::MaskedEq(execute), 0)?])
    };
    let thread = u64::from(number(libc::CLONE_THREAD));
    let commands = [
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_DUPFD_CLOEXEC,
    ];
    let commands = commands.map(|command| when(1, SeccompCmpOp::Eq, number(command).into()));
    let rules = [
        (
            libc::SYS_socket,
            families.into_iter().collect::<io::Result<_>>()?,
        ),
        // The runtime's, for signals. A single pair has nobody at its other end.
        (
            libc::SYS_socketpair,
            vec![when(0, SeccompCmpOp::Eq, number(libc::AF_UNIX).into())?],
        ),
        (libc::SYS_mmap, no_code()?),
        (libc::SYS_mprotect, no_code()?),
        (
            libc::SYS_clone,
            vec![when(0, SeccompCmpOp::MaskedEq(thread), thread)?],
        ),
        (
            libc::SYS_ioctl,
            vec![when(1, SeccompCmpOp::Eq, libc::FIONBIO)?],
        ),
        // To itself: it ends so when it cannot go on.
        (
            libc::SYS_tgkill,
            vec![when(0, SeccompCmpOp::Eq, std::process::id().into())?],
        ),
        // Not those by which others get signals.
        (
            libc::SYS_fcntl,
            commands.into_iter().collect::<io::Result<_>>()?,
        ),
        (
            libc::SYS_prctl,
            vec![when(0, SeccompCmpOp::Eq, number(libc::PR_SET_NAME).into())?],
        ),
    ];
    Ok(rules.into())
}

fn when(argument: u8, op: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value);
    let rule = condition.and_then(|condition| SeccompRule::new(vec![condition]));
    rule.map_err(io::Error::other)
}

fn program(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    listed: SeccompAction,
    others: SeccompAction,
) -> io::Result<BpfProgram> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, others, listed, architecture);
    let program = filter.and_then(BpfProgram::try_from);
    program.map_err(io::Error::other)
}

/// A constant of C's that is not negative.
const fn number(constant: libc::c_int) -> u32 {
    constant.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    /// What `attempt` gives on a thread that is confined so.
    fn confined<R: Send + 'static>(
        filters: Filters,
        attempt: impl FnOnce() -> R + Send + 'static,
    ) -> R {
        let thread = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            filters.apply().unwrap();
            attempt()
        });
        thread.join().unwrap()
    }

    #[test]
    fn the_egress_worker_has_the_network_and_threads() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let said = confined(Filters::egress().unwrap(), move || {
            let mut near = TcpStream::connect(address).unwrap();
            near.set_nonblocking(true).unwrap();
            near.set_nodelay(true).unwrap();
            let (mut far, _) = listener.accept().unwrap();
            let named = std::thread::Builder::new().name("other".into());
            let other = named.spawn(move || far.write_all(b"hello").unwrap());
            other.unwrap().join().unwrap();
            near.set_nonblocking(false).unwrap();
            let mut said = [0; 5];
            near.read_exact(&mut said).unwrap();
            assert!(UdpSocket::bind("127.0.0.1:0").is_ok());
            assert!(!if_addrs::get_if_addrs().unwrap().is_empty());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let pause = async { tokio::time::sleep(Duration::from_millis(1)).await };
            runtime.unwrap().block_on(pause);
            said
        });
        assert_eq!(&said, b"hello");
    }

    #[test]
    fn the_egress_worker_has_nothing_else() {
        let refusals = confined(Filters::egress().unwrap(), || {
            let kind = |result: io::Result<()>| result.map_err(|error| error.kind());
            [
                kind(File::open("/dev/null").map(drop)),
                kind(UnixStream::connect("/dev/log").map(drop)),
                kind(Command::new("true").status().map(drop)),
                kind(rustix::process::getsid(None).map(drop).map_err(Into::into)),
                kind(
                    rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 0)
                        .map(drop)
                        .map_err(Into::into),
                ),
            ]
        });
        let refused = Err(ErrorKind::PermissionDenied);
        assert_eq!(refusals, [refused, refused, refused, refused, Ok(())]);
    }
}

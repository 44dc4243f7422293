//! Which system calls a worker may still make (seccomp, `Documentation/userspace-api/seccomp_filter.rst`).
//!
//! What no worker ever asks for ends the process that asks: it is not doing our work any more. No worker starts processes or signals others. The
//! egress worker has, beside that, a list of all that it may ask for; what is not on it is refused with `EPERM`, so that a C library that tries
//! something new, and can do without, goes on.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
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
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
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
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
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
    // Threads and time. Of both of these the common filters let only some through.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_tgkill,
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
        // Its flags are in memory, where no filter sees them; C libraries then take the older call.
        let unseen = [(libc::SYS_clone3, Vec::new())];
        let thread = u64::from(number(libc::CLONE_THREAD));
        let others = [
            // Processes, and with them other namespaces.
            (
                libc::SYS_clone,
                vec![when(0, SeccompCmpOp::MaskedEq(thread), 0)?],
            ),
            // It ends so itself when it cannot go on.
            (
                libc::SYS_tgkill,
                vec![when(0, SeccompCmpOp::Ne, std::process::id().into())?],
            ),
        ];
        let [no_call, refused] =
            [libc::ENOSYS, libc::EPERM].map(|code| SeccompAction::Errno(number(code)));
        Ok(Self(vec![
            other_numbers(),
            program(unseen.into(), no_call, SeccompAction::Allow)?,
            program(others.into(), refused, SeccompAction::Allow)?,
            program(
                fatal.collect(),
                SeccompAction::KillProcess,
                SeccompAction::Allow,
            )?,
        ]))
    }

    /// Of the egress worker.
    pub(super) fn egress() -> io::Result<Self> {
        let Self(mut all) = Self::common()?;
        let mut rules: BTreeMap<_, _> = EGRESS.iter().map(|call| (*call, Vec::new())).collect();
        rules.extend(conditional()?);
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
    let no_code = || -> io::Result<_> {
        let execute = u64::from(number(libc::PROT_EXEC));
        Ok(vec![when(2, SeccompCmpOp::MaskedEq(execute), 0)?])
    };
    let commands = [
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_DUPFD_CLOEXEC,
    ];
    let commands = commands.map(|command| when(1, SeccompCmpOp::Eq, number(command).into()));
    let rules = [
        (libc::SYS_socket, sockets()?),
        // The runtime's, for signals. A single pair has nobody at its other end.
        (
            libc::SYS_socketpair,
            vec![when(0, SeccompCmpOp::Eq, number(libc::AF_UNIX).into())?],
        ),
        (libc::SYS_mmap, no_code()?),
        (libc::SYS_mprotect, no_code()?),
        (
            libc::SYS_ioctl,
            vec![when(1, SeccompCmpOp::Eq, libc::FIONBIO)?],
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

/// TCP and UDP, and what the C library has for a look at the host's addresses: no other protocol of these families, which have had more holes than
/// uses here.
fn sockets() -> io::Result<Vec<SeccompRule>> {
    let kinds = [
        (libc::SOCK_STREAM, [0, libc::IPPROTO_TCP]),
        (libc::SOCK_DGRAM, [0, libc::IPPROTO_UDP]),
    ];
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for (kind, protocols) in kinds {
            all.extend(protocols.map(|protocol| (family, kind, protocol)));
        }
    }
    all.push((libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE));
    let rules = all.into_iter().map(|(family, kind, protocol)| {
        // Without the flags that are among the kinds.
        let flags = number(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
        let kinds = SeccompCmpOp::MaskedEq(u64::from(!flags));
        rule(&[
            (0, SeccompCmpOp::Eq, number(family).into()),
            (1, kinds, number(kind).into()),
            (2, SeccompCmpOp::Eq, number(protocol).into()),
        ])
    });
    rules.collect()
}

fn when(argument: u8, op: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    rule(&[(argument, op, value)])
}

/// When all of these hold.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> io::Result<SeccompRule> {
    let conditions = conditions.iter().map(|(argument, op, value)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, op.clone(), *value)
    });
    let conditions: Result<Vec<_>, _> = conditions.collect();
    let rule = conditions.and_then(SeccompRule::new);
    rule.map_err(io::Error::other)
}

/// Refuses the numbers by which some hosts have every call a second time (x32), with pointers of 32 bits: no list here knows them.
fn other_numbers() -> BpfProgram {
    const SECOND: u32 = 0x4000_0000;
    let of = |code: u32, jump_true, jump_false, k| sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: jump_true,
        jf: jump_false,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    vec![
        // The number is first in `struct seccomp_data`.
        of(load, 0, 0, 0),
        of(at_least, 0, 1, SECOND),
        of(answer, 0, 0, libc::SECCOMP_RET_ERRNO | number(libc::EPERM)),
        of(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
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

    #[test]
    fn the_egress_worker_has_tcp_and_udp_and_no_other_protocol() {
        use rustix::net::{AddressFamily, Protocol, SocketType, ipproto, netlink, socket};
        const OTHERS: [(AddressFamily, SocketType, Option<Protocol>); 4] = [
            (
                AddressFamily::INET,
                SocketType::STREAM,
                Some(ipproto::MPTCP),
            ),
            (AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP)),
            (AddressFamily::UNIX, SocketType::STREAM, None),
            (
                AddressFamily::NETLINK,
                SocketType::RAW,
                Some(netlink::GENERIC),
            ),
        ];
        let errors = || OTHERS.map(|(family, kind, protocol)| socket(family, kind, protocol).err());
        // Whatever this kernel has of them, it is not for want of a permission, but for pings, which a host may keep from a user's group.
        for (index, error) in errors().into_iter().enumerate() {
            assert!(
                index == 1 || error != Some(rustix::io::Errno::PERM),
                "{index}"
            );
        }
        let refused = confined(Filters::egress().unwrap(), errors);
        assert_eq!(refused, [Some(rustix::io::Errno::PERM); 4]);
    }
}

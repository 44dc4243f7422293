//! The limit on the size of files under which the target `fuse_server` runs.
#![expect(
    unsafe_code,
    reason = "the standard library sets neither limits nor signal dispositions"
)]

/// No input may fill the host's memory: a file ends after 1 MiB, with an error and not a signal.
pub fn cap_files() {
    let limit = libc::rlimit {
        rlim_cur: 1 << 20,
        rlim_max: 1 << 20,
    };
    // SAFETY: both calls only read their arguments, `limit` is alive, and no other thread runs yet.
    let done = unsafe {
        libc::setrlimit(libc::RLIMIT_FSIZE, &limit) == 0
            && libc::signal(libc::SIGXFSZ, libc::SIG_IGN) != libc::SIG_ERR
    };
    assert!(done, "the size of files cannot be limited");
}

//! Giving the kernel's random generator bytes that count.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::last_errno;

/// Most bytes given at once.
pub(crate) const SEED_LEN: usize = 64;

/// `struct rand_pool_info` of `linux/random.h` with room for [`SEED_LEN`] bytes.
#[repr(C)]
struct PoolInfo {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; SEED_LEN],
}

/// `RNDADDENTROPY`: `_IOW('R', 3, int[2])`.
const ADD_ENTROPY: libc::c_ulong = 0x4008_5203;

/// Mixes `seed` in and credits eight bits for each byte. `random` is `/dev/random` or `/dev/urandom`.
pub(crate) fn add_entropy(random: BorrowedFd<'_>, seed: &[u8; SEED_LEN]) -> Result<(), Errno> {
    let len = libc::c_int::try_from(SEED_LEN).unwrap_or_default();
    let info = PoolInfo {
        entropy_count: len * 8,
        buf_size: len,
        buf: *seed,
    };
    // SAFETY: the request reads a `rand_pool_info` and `buf_size` bytes behind its head; `info` is exactly that.
    match unsafe { libc::ioctl(random.as_raw_fd(), ADD_ENTROPY, &raw const info) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

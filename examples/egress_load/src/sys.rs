//! What the standard library does not have: which network device a descriptor is, and how the C library gets memory.
#![expect(unsafe_code, reason = "ioctl of TUN devices, mallopt")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Opens the TAP device `name`, making it: frames, behind a `struct virtio_net_hdr` if `has_header` (and then any TCP segment and checksum is left
/// to the reader).
pub(crate) fn open_tap(name: &str, has_header: bool) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
    if has_header {
        flags |= libc::IFF_VNET_HDR;
    }
    // SAFETY: all bytes of `ifreq` may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap_or_default();
    // SAFETY: TUNSETIFF reads and writes an `ifreq`, which lives across the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    if has_header {
        let offloads = libc::c_ulong::from(libc::TUN_F_CSUM | libc::TUN_F_TSO4);
        // SAFETY: TUNSETOFFLOAD takes a number.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) })?;
    }
    Ok(file)
}

/// As a sandbox's egress worker has it.
pub(crate) fn keep_large_buffers_apart() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no other thread allocates meanwhile, which is all that glibc asks for.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

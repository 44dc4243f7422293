//! How this process gets its memory.
#![expect(unsafe_code, reason = "mallopt is C's")]

/// From this size on buffers are mappings of their own, each.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 << 10;

/// Has the C library keep large buffers apart for good. By itself it takes them from the heap once one was freed, and clears them there: a connection
/// that says nothing would take what its buffers could hold. To be called before there are threads.
pub(super) fn keep_large_buffers_apart() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no other thread allocates meanwhile, which is all that glibc asks for. It cannot fail for this parameter.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

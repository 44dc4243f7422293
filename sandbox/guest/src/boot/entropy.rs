//! Seeding the random generator before the first exec.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use super::console;
use crate::sys;

/// Takes a seed from the virtio random device, so that no exec can find the generator unready or predictable. Without the
/// device the kernel must help itself, which is said on the console.
pub(super) fn seed() {
    if let Err(error) = try_seed() {
        console::line(&format!("no seed from the virtio random device: {error}"));
    }
}

fn try_seed() -> io::Result<()> {
    let mut seed = [0; sys::SEED_LEN];
    File::open("/dev/hwrng")?.read_exact(&mut seed)?;
    sys::add_entropy(File::open("/dev/urandom")?.as_fd(), &seed)?;
    Ok(())
}

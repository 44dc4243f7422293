//! The guest's network card: frames between a TAP device and the egress's socket.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, bail};
use netproxy::link::{LENGTH_LEN, LONGEST_RECORD, Offloads};

use crate::{Network, sys};

pub(crate) const DEVICE: &str = "tap0";
const BUFFER_LEN: usize = 512 << 10;

/// Passes frames on until one side ends.
pub(crate) fn run(socket: &Path, network: Network) -> Result<()> {
    let is_ours = network == Network::Ours;
    let tap = sys::open_tap(DEVICE, is_ours).context("cannot make a TAP device")?;
    let mut link = UnixStream::connect(socket)
        .with_context(|| format!("nobody listens at {}", socket.display()))?;
    if is_ours {
        let offloads = Offloads {
            checksum: true,
            segmentation: true,
        };
        link.write_all(&offloads.emit())?;
    }
    // Lengths are big endian for passt.
    let length = move |bytes: [u8; LENGTH_LEN]| {
        if is_ours {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        }
    };
    let (from, to) = (tap.try_clone()?, link.try_clone()?);
    thread::spawn(move || {
        if let Err(error) = send(&from, &to, is_ours) {
            eprintln!("egress_load tap: {error:#}");
        }
    });
    receive(&link, &tap, length)
}

fn send(mut tap: &File, mut link: &UnixStream, is_ours: bool) -> Result<()> {
    let mut record = vec![0; LENGTH_LEN + LONGEST_RECORD];
    loop {
        let (head, frame) = record.split_at_mut(LENGTH_LEN);
        let len = tap.read(frame)?;
        let bytes = u32::try_from(len)?;
        head.copy_from_slice(&if is_ours {
            bytes.to_le_bytes()
        } else {
            bytes.to_be_bytes()
        });
        link.write_all(record.get(..LENGTH_LEN + len).unwrap_or_default())?;
    }
}

fn receive(
    mut link: &UnixStream,
    mut tap: &File,
    length: impl Fn([u8; LENGTH_LEN]) -> u32,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER_LEN];
    let mut filled = 0;
    loop {
        let len = link.read(buffer.get_mut(filled..).unwrap_or_default())?;
        if len == 0 {
            bail!("the egress has ended");
        }
        filled += len;
        let mut rest = buffer.get(..filled).unwrap_or_default();
        while let Some((head, behind)) = rest.split_first_chunk() {
            let len = usize::try_from(length(*head))?;
            let Some((frame, behind)) = behind.split_at_checked(len) else {
                break;
            };
            // The kernel refuses what is no frame; so does a real card.
            let _ = tap.write(frame);
            rest = behind;
        }
        let done = filled - rest.len();
        buffer.copy_within(done..filled, 0);
        filled -= done;
    }
}

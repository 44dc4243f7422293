//! Starts of a bare-metal guest that writes one byte to the serial port and powers off.
//!
//! It needs no more than a KVM that interprets, so it measures the VMM's part of a start on any
//! machine. The guest's fourth instruction is the one that is seen.

use std::env::temp_dir;
use std::time::Instant;

use anyhow::Result;
use serde::Deserialize;

use crate::boot::power_off;
use crate::console::Log;
use crate::job::{Guest, Samples};

const ADDRESS: u32 = 0x10_0000;
const HEADERS: u32 = 64 + 2 * 56;

/// Starts of the bare-metal guest.
#[derive(Debug, Deserialize)]
pub(crate) struct Starts {
    memory_mib: u64,
    rounds: usize,
}

/// Measures from the call that starts the sandbox to the guest's byte.
pub(crate) async fn measure(starts: &Starts, samples: &mut Samples) -> Result<()> {
    let folder = temp_dir().join(format!("bench-probe-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let guest = Guest {
        kernel: folder.join("kernel"),
        initrd: folder.join("initrd"),
        root: None,
        kernel_args: Vec::new(),
        serial: true,
    };
    std::fs::write(&guest.kernel, kernel())?;
    std::fs::write(&guest.initrd, [0; 16])?;
    for _ in 0..starts.rounds {
        let log = Log::create(&folder, "!")?;
        let builder = guest.builder(starts.memory_mib).slow_hypervisor(true);
        let builder = builder.console_log(log.path());
        let spawned = Instant::now();
        let started = builder.start().await;
        let first = log.finish();
        power_off(started)?;
        samples.note("first instruction", (first? - spawned).as_secs_f64());
    }
    Ok(std::fs::remove_dir_all(&folder)?)
}

/// A 64-bit ELF file with one loaded segment of code and the note of its PVH entry (Xen's x86/HVM
/// direct boot ABI): 32-bit protected mode.
fn kernel() -> Vec<u8> {
    let code: &[u8] = &[
        0x66, 0xBA, 0xF8, 0x03, // mov dx, 0x3F8
        0xB0, b'!', // mov al, '!'
        0xEE, // out dx, al
        0x66, 0xBA, 0x00, 0x06, // mov dx, 0x600: the sleep control register
        0xB0, 0x34, // mov al, sleep type 5, enable
        0xEE, // out dx, al
        0xF4, // hlt
    ];
    let mut note = words(&[4, 4, 18]);
    note.extend(b"Xen\0");
    note.extend(ADDRESS.to_le_bytes());
    let note_size = u32::try_from(note.len()).unwrap_or_default();
    let code_size = u32::try_from(code.len()).unwrap_or_default();
    let mut file = file_header();
    file.extend(program_header(1, HEADERS + note_size, code_size));
    file.extend(program_header(4, HEADERS, note_size));
    file.extend(note);
    file.extend(code);
    file
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn file_header() -> Vec<u8> {
    let mut header = b"\x7FELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    // Executable, x86-64, version 1.
    header.extend(words(&[62 << 16 | 2, 1]));
    // Entry (unused), program headers right behind, no section headers.
    header.extend(words(&[ADDRESS, 0, 64, 0, 0, 0, 0]));
    // Sizes: this header, a program header; two of them; no sections.
    header.extend(words(&[56 << 16 | 64, 2, 0]));
    header.truncate(64);
    header
}

fn program_header(kind: u32, offset: u32, size: u32) -> Vec<u8> {
    // Kind, readable and executable; then 64-bit offset, virtual and physical address, both sizes, alignment.
    words(&[
        kind, 5, offset, 0, ADDRESS, 0, ADDRESS, 0, size, 0, size, 0, 4, 0,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_a_pvh_kernel_of_one_segment() {
        let file = kernel();
        assert_eq!(file.get(..4), Some(&b"\x7FELF"[..]));
        let half = |at: usize| u16::from_le_bytes([file[at], file[at + 1]]);
        assert_eq!((half(16), half(18)), (2, 62));
        // e_ehsize, e_phentsize, e_phnum
        assert_eq!((half(52), half(54), half(56)), (64, 56, 2));
        let at = usize::try_from(HEADERS).unwrap();
        assert_eq!(file.get(at + 12..at + 16), Some(&b"Xen\0"[..]));
        assert_eq!(file.last(), Some(&0xF4));
    }
}

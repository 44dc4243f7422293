//! Guest RAM with split rings in it, laid out from an input.

use devices::virtio::QueueState;
use hv_core::{GuestRam, RamRange};
use vm_memory::{Bytes as _, GuestAddress};

use crate::Input;

/// Bytes of RAM, so that every 16-bit number is an address in it.
pub const RAM: u64 = 1 << 16;
/// Descriptors of each ring.
pub const SIZE: u16 = 16;
/// Where the content of buffers begins; below are the rings.
pub const DATA: u64 = 0x4000;
/// Bytes between the rings of two queues.
const STRIDE: u64 = 0x400;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// RAM of one guest.
///
/// # Panics
/// The host has no memory.
pub fn ram() -> GuestRam {
    GuestRam::new(&[RamRange {
        start: 0,
        size: RAM,
    }])
    .expect("64 KiB of memory")
}

/// The registers of queue `index` as a good driver sets them.
pub fn place(index: u64) -> QueueState {
    let base = index * STRIDE;
    QueueState {
        size: SIZE,
        ready: true,
        descriptors: base,
        available: base + 0x100,
        used: base + 0x200,
        ..QueueState::default()
    }
}

/// Fills the rings at `place` and makes chains available: a table of descriptors, then heads.
pub fn offer(ram: &GuestRam, place: &QueueState, input: &mut Input<'_>) {
    let count = u16::try_from(input.below(usize::from(SIZE) + 1)).unwrap_or(0);
    for slot in 0..count {
        put(
            ram,
            place.descriptors.wrapping_add(16 * u64::from(slot)),
            &descriptor(slot, input),
        );
    }
    let heads = input.u8();
    let index = (u16::from(heads) & 0x1f).wrapping_add(place.next_avail);
    for slot in 0..u16::from(heads & 0x1f).min(SIZE) {
        let entry = place.next_avail.wrapping_add(slot) % SIZE;
        put(
            ram,
            place.available.wrapping_add(4 + 2 * u64::from(entry)),
            &u16::from(input.u8() & 0x3f).to_le_bytes(),
        );
    }
    put(ram, place.available, &u16::from(heads >> 7).to_le_bytes());
    put(ram, place.available.wrapping_add(2), &index.to_le_bytes());
}

/// One descriptor: address, length, flags, next. A driver chains to the slot behind unless it is told otherwise.
fn descriptor(slot: u16, input: &mut Input<'_>) -> [u8; 16] {
    let kind = input.u8();
    if kind & 0xc0 == 0xc0 {
        return input.array();
    }
    let flags = [(1, NEXT), (2, WRITE), (4, INDIRECT)]
        .iter()
        .filter(|(bit, _)| kind & bit != 0);
    let flags: u16 = flags.map(|(_, flag)| flag).sum();
    let address = u64::from(input.u16()) + if kind & 8 == 0 { DATA } else { 0 };
    let length = u32::from(input.u8()) << if kind & 16 == 0 { 0 } else { 6 };
    let next = if kind & 32 == 0 {
        slot + 1
    } else {
        u16::from(input.u8() & 0x1f)
    };
    encode(address, length, flags, next)
}

/// Bytes of RAM that each slot's buffer has in a good driver's chains.
const BUFFER: u64 = 0x400;

/// A chain of a good driver of queue `index` at `slot`: `request` to read in one buffer, then `room` bytes to write in
/// another, [`BUFFER`] bytes of each at most. Returns the slots that it takes.
pub fn good_chain(ram: &GuestRam, index: u64, slot: u16, request: &[u8], room: u32) -> u16 {
    let most = u32::try_from(BUFFER).unwrap_or(u32::MAX);
    let len = u32::try_from(request.len()).unwrap_or(most).min(most);
    let buffers: Vec<_> = [(len, 0), (room.min(most), WRITE)]
        .into_iter()
        .filter(|(len, _)| *len > 0)
        .collect();
    let count = u16::try_from(buffers.len()).unwrap_or(0);
    for (at, (len, flags)) in (slot..).zip(&buffers) {
        // Three queues share what is left of RAM.
        let spot = DATA + (index % 3 * u64::from(SIZE) + u64::from(at % SIZE)) * BUFFER;
        if *flags & WRITE == 0 {
            put(ram, spot, &request[..usize::try_from(*len).unwrap_or(0)]);
        }
        let next = if at + 1 < slot + count { NEXT } else { 0 };
        let descriptor = encode(spot, *len, *flags | next, at + 1);
        put(
            ram,
            place(index).descriptors + 16 * u64::from(at),
            &descriptor,
        );
    }
    count
}

fn encode(address: u64, length: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

/// Makes the chains that begin at `heads` available, after `taken` earlier ones.
pub fn publish(ram: &GuestRam, place: &QueueState, taken: u16, heads: &[u16]) {
    for (number, head) in (0..).zip(heads) {
        let entry = taken.wrapping_add(number) % SIZE;
        put(
            ram,
            place.available + 4 + 2 * u64::from(entry),
            &head.to_le_bytes(),
        );
    }
    let count = u16::try_from(heads.len()).unwrap_or(0);
    put(
        ram,
        place.available + 2,
        &taken.wrapping_add(count).to_le_bytes(),
    );
}

/// Writes into RAM, as far as it goes.
pub fn put(ram: &GuestRam, address: u64, bytes: &[u8]) {
    // What does not fit is a driver's mistake that has no effect.
    let _ = ram.write(bytes, GuestAddress(address));
}

//! What is left of a PC's firmware: the code at the reset vector.
//!
//! Linux with EFI support does not use the ACPI reset register of a hardware-reduced machine; when
//! there is no EFI it goes back to real mode and jumps to the vector, as PCs have always been reset.

use hv_core::GuestRam;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryError};

use super::layout::{RESET_PORT, RESET_VALUE, RESET_VECTOR};

/// Writes 16-bit code to the reset vector that resets the machine by its reset register.
pub(super) fn write_reset_vector(ram: &GuestRam) -> Result<(), GuestMemoryError> {
    let [low, high] = RESET_PORT.to_le_bytes();
    let code = [
        0xB0,
        RESET_VALUE, // mov al, value
        0xBA,
        low,
        high, // mov dx, port
        0xEE, // out dx, al
        0xF4, // hlt
        0xEB,
        0xFD, // jmp to the hlt
    ];
    ram.write_slice(&code, GuestAddress(RESET_VECTOR))
}

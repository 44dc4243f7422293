//! Ports and memory that nobody mapped.

use std::sync::Arc;

use super::{Checked, DONE, ended, equal, read_at, read_u64, table, write_at};
use crate::DoorbellSpace::{Mmio, Pio};
use crate::arch::x86_64::asm::{Program, Width};
use crate::conformance::probe::{Failure, pattern};
use crate::conformance::{BareGuest, Probe, Touch, layout, port};
use crate::{GuestRam, Hypervisor};

table!(pio_widths string_io mmio_widths mmio_across_a_page);

const VALUE: u64 = 0x8877_6655_4433_2211;

/// The bytes that a read of `width` bytes at `address` gives.
fn given(address: u64, width: usize) -> Vec<u8> {
    (address..).take(width).map(pattern).collect()
}

/// Runs `program` to its end by power-off; gives what it touched and its RAM.
fn run_to_end(
    hypervisor: &dyn Hypervisor,
    program: &mut Program,
) -> Result<(Vec<Touch>, GuestRam), Failure> {
    program.raw(DONE.code());
    let probe = Arc::new(Probe::default());
    let running = BareGuest::new(program).start(hypervisor, &probe)?;
    let ram = running.ram.clone();
    ended(running)?;
    Ok((probe.touches(), ram))
}

/// What an 8-byte slot in RAM holds after `bytes` were read into a cleared register.
fn slot(bytes: &[u8]) -> u64 {
    let place = |(shift, byte): (u32, &u8)| u64::from(*byte) << shift;
    (0..).step_by(8).zip(bytes).map(place).sum()
}

fn pio_widths(hypervisor: &dyn Hypervisor) -> Checked {
    let mut program = Program::new();
    let mut expected = Vec::new();
    let mut slots = Vec::new();
    for (place, width) in (layout::DATA..).step_by(8).zip(Width::PORT) {
        program.out(port::PLAIN, width, 0x4433_2211);
        program
            .input(port::PLAIN, width)
            .store_rax(place, Width::W8);
        let bytes = given(port::PLAIN.into(), width.bytes());
        let written: Vec<_> = VALUE
            .to_le_bytes()
            .into_iter()
            .take(width.bytes())
            .collect();
        expected.push(write_at(Pio, port::PLAIN.into(), &written));
        expected.push(read_at(Pio, port::PLAIN.into(), &bytes));
        slots.push((place, slot(&bytes)));
    }
    check(hypervisor, &mut program, &expected, &slots)
}

fn mmio_widths(hypervisor: &dyn Hypervisor) -> Checked {
    let mut program = Program::new();
    let mut expected = Vec::new();
    let mut slots = Vec::new();
    // Aligned, and not.
    for (index, address) in [layout::NOWHERE + 0x40, layout::NOWHERE + 0x63]
        .into_iter()
        .enumerate()
    {
        let places = (layout::DATA + index as u64 * 64..).step_by(8);
        for (place, width) in places.zip(Width::ALL) {
            program.store(address, width, VALUE);
            program.load(address, width).store_rax(place, Width::W8);
            let bytes = given(address, width.bytes());
            let written: Vec<_> = VALUE
                .to_le_bytes()
                .into_iter()
                .take(width.bytes())
                .collect();
            expected.push(write_at(Mmio, address, &written));
            expected.push(read_at(Mmio, address, &bytes));
            slots.push((place, slot(&bytes)));
        }
    }
    check(hypervisor, &mut program, &expected, &slots)
}

/// Start and width of a part of an access.
type Piece = (u64, usize);

/// An access that spans two pages comes as pieces of legal widths, each within a page, rising.
fn mmio_across_a_page(hypervisor: &dyn Hypervisor) -> Checked {
    let edge = layout::NOWHERE + 0x1000;
    let table: [(u64, Width, &[Piece]); 4] = [
        (edge - 4, Width::W8, &[(edge - 4, 4), (edge, 4)]),
        (edge - 1, Width::W2, &[(edge - 1, 1), (edge, 1)]),
        (edge - 2, Width::W4, &[(edge - 2, 2), (edge, 2)]),
        (
            edge - 3,
            Width::W8,
            &[(edge - 3, 1), (edge - 2, 2), (edge, 4), (edge + 4, 1)],
        ),
    ];
    let mut program = Program::new();
    let mut expected = Vec::new();
    let mut slots = Vec::new();
    for (place, (address, width, pieces)) in (layout::DATA..).step_by(8).zip(table) {
        program.store(address, width, VALUE);
        program.load(address, width).store_rax(place, Width::W8);
        let mut left = VALUE.to_le_bytes().into_iter();
        for &(at, size) in pieces {
            let written: Vec<_> = left.by_ref().take(size).collect();
            expected.push(write_at(Mmio, at, &written));
        }
        for &(at, size) in pieces {
            expected.push(read_at(Mmio, at, &given(at, size)));
        }
        slots.push((place, slot(&given(address, width.bytes()))));
    }
    check(hypervisor, &mut program, &expected, &slots)
}

fn check(
    hypervisor: &dyn Hypervisor,
    program: &mut Program,
    expected: &[Touch],
    slots: &[(u64, u64)],
) -> Checked {
    let (touches, ram) = run_to_end(hypervisor, program)?;
    equal("accesses", touches.as_slice(), expected)?;
    for (place, value) in slots {
        equal("value read", &read_u64(&ram, *place)?, value)?;
    }
    Ok(())
}

/// Items of a string access come one by one, in their order, each with the width of an item.
fn string_io(hypervisor: &dyn Hypervisor) -> Checked {
    const COUNT: u64 = 5;
    let source = layout::DATA;
    let mut program = Program::new();
    let mut expected = Vec::new();
    program.store(source, Width::W8, VALUE);
    for (index, width) in (0_u64..).zip(Width::PORT) {
        program.out_string(port::PLAIN, width, source, COUNT);
        program.in_string(port::SEQUENCE, width, source + 0x1000 * (index + 1), COUNT);
        let mut memory = VALUE.to_le_bytes().into_iter().chain(std::iter::repeat(0));
        for _ in 0..COUNT {
            let item: Vec<_> = memory.by_ref().take(width.bytes()).collect();
            expected.push(write_at(Pio, port::PLAIN.into(), &item));
        }
    }
    let (touches, ram) = run_to_end(hypervisor, &mut program)?;
    equal("items written", &touches, &expected)?;
    for (index, width) in (0_u64..).zip(Width::PORT) {
        let size = width.bytes() as u64;
        for item in 0..COUNT {
            let place = source + 0x1000 * (index + 1) + item * size;
            let mask = u64::MAX >> (64 - size * 8);
            let value = read_u64(&ram, place)? & mask;
            equal("item read", &value, &(index * COUNT + item))?;
        }
    }
    Ok(())
}

//! Mapped memory beside RAM, and the dirty log.

use std::sync::Arc;

use vm_memory::{Bytes as _, VolatileMemory as _};

use super::{Checked, DONE, caller_fault, ended, equal, facet, read_u64, table, write_at};
use crate::DoorbellSpace::Mmio;
use crate::arch::x86_64::asm::{Program, Width};
use crate::conformance::probe::{Failure, pattern};
use crate::conformance::{BareGuest, Gates as _, Probe, layout};
use crate::{Access, DirtyLog, HostMemory, Hypervisor};

table!(read_only_memory map_unmap_remap memory_mistakes dirty_log_is_exact dirty_log_mistakes);

/// Two granules of any hypervisor, at least.
const BYTES: u64 = 0x8000;

/// Memory whose first two words are `values`.
fn memory(values: [u64; 2]) -> Result<Arc<HostMemory>, Failure> {
    let broken = |error: &dyn std::fmt::Display| Failure::Broken(error.to_string());
    let memory = HostMemory::new(BYTES).map_err(|error| broken(&error))?;
    let slice = memory.as_volatile_slice();
    slice.write_obj(values, 0).map_err(|error| broken(&error))?;
    Ok(Arc::new(memory))
}

fn word(memory: &HostMemory, offset: usize) -> Result<u64, Failure> {
    let word = memory.as_volatile_slice().read_obj(offset);
    word.map_err(|error| Failure::Broken(error.to_string()))
}

fn read_only_memory(hypervisor: &dyn Hypervisor) -> Checked {
    let second = layout::WINDOW + 8;
    let mut program = Program::new();
    program
        .load(layout::WINDOW, Width::W8)
        .store_rax(layout::DATA, Width::W8)
        .store(second, Width::W8, 7)
        .gate(0)
        .store(second, Width::W8, 8);
    program.raw(DONE.code());
    let probe = Arc::new(Probe::default());
    let machine = BareGuest::new(&program).build(hypervisor)?;
    let shown = memory([3, 4])?;
    let map = machine.partition.memory();
    let mapping = map.map(layout::WINDOW, Arc::clone(&shown), Access::ReadOnly)?;
    let running = machine.start(&probe)?;
    running.set.resume();
    probe.wait_gate(0)?;
    equal("memory after a refused write", &word(&shown, 8)?, &4)?;
    mapping.protect(Access::ReadWrite)?;
    probe.open_gate(0);
    let ram = running.ram.clone();
    ended(running)?;
    equal("what the guest read", &read_u64(&ram, layout::DATA)?, &3)?;
    equal("memory after a write", &word(&shown, 8)?, &8)?;
    let refused = write_at(Mmio, second, &7_u64.to_le_bytes());
    equal("accesses", &probe.touches(), &vec![refused])
}

fn map_unmap_remap(hypervisor: &dyn Hypervisor) -> Checked {
    let mut program = Program::new();
    for step in 0..3 {
        program
            .gate(step)
            .load(layout::WINDOW, Width::W8)
            .store_rax(layout::DATA + u64::from(step) * 8, Width::W8);
    }
    program.raw(DONE.code());
    let probe = Arc::new(Probe::default());
    let running = BareGuest::new(&program).start(hypervisor, &probe)?;
    let map = running.partition.memory();

    probe.wait_gate(0)?;
    let first = map.map(layout::WINDOW, memory([1, 0])?, Access::ReadWrite)?;
    probe.open_gate(0);
    probe.wait_gate(1)?;
    drop(first);
    probe.open_gate(1);
    probe.wait_gate(2)?;
    let second = map.map(layout::WINDOW, memory([2, 0])?, Access::ReadWrite)?;
    probe.open_gate(2);

    let ram = running.ram.clone();
    ended(running)?;
    drop(second);
    let nobody = u64::from_le_bytes(std::array::from_fn(|i| pattern(layout::WINDOW + i as u64)));
    let mut seen = [0; 3];
    for (value, place) in seen.iter_mut().zip((layout::DATA..).step_by(8)) {
        *value = read_u64(&ram, place)?;
    }
    equal("values read", &seen, &[1, nobody, 2])?;
    equal("number of accesses", &probe.touches().len(), &1)
}

fn memory_mistakes(hypervisor: &dyn Hypervisor) -> Checked {
    let machine = BareGuest::new(&Program::new()).build(hypervisor)?;
    let map = machine.partition.memory();
    let shown = memory([0, 0])?;
    let granule = machine.limits.granule;
    let beyond = 1 << machine.limits.address_bits;
    let kept = map.map(layout::WINDOW, Arc::clone(&shown), Access::ReadWrite)?;
    for (what, address) in [
        ("unaligned", layout::WINDOW + BYTES + granule / 2),
        ("over RAM", layout::RAM - granule),
        ("over itself", layout::WINDOW),
        ("half over itself", layout::WINDOW + BYTES - granule),
        ("beyond the address width", beyond),
        ("half beyond the address width", beyond - granule),
        ("at the end of the address space", u64::MAX - granule + 1),
    ] {
        let mapped = map.map(address, Arc::clone(&shown), Access::ReadWrite);
        caller_fault(what, mapped)?;
    }
    drop(kept);
    drop(map.map(layout::WINDOW, shown, Access::ReadOnly)?);
    Ok(())
}

/// Compares the log with the pages of `addresses`, among those that are the program's own: with nested
/// paging the processor counts its walks of the guest's page tables as writes (APM volume 2, section
/// 15.25).
fn compare(what: &str, log: &dyn DirtyLog, addresses: &[u64]) -> Checked {
    let pages = log.take()?;
    let size = pages.first().map_or(4096, |range| range.page_size);
    let mut expected: Vec<_> = addresses.iter().map(|at| at / size * size).collect();
    expected.dedup();
    let own = |at: &u64| *at >= layout::DATA;
    let seen = pages.iter().flat_map(|range| range.addresses());
    let seen: Vec<_> = seen.filter(own).collect();
    equal(what, &seen, &expected)
}

fn dirty_log_is_exact(hypervisor: &dyn Hypervisor) -> Checked {
    let page = |number: u64| layout::DATA + number * 0x4000 + 0x123;
    let first = [0, 3, 64, 190].map(page);
    let second = [3, 4].map(page);
    let mut program = Program::new();
    for (step, pages) in [(0, first.as_slice()), (1, &second)] {
        program.gate(step);
        for address in pages {
            program.store(*address, Width::W1, 1);
        }
    }
    program
        .gate(2)
        .store(page(9), Width::W1, 1)
        .raw(DONE.code());
    let probe = Arc::new(Probe::default());
    let running = BareGuest::new(&program).start(hypervisor, &probe)?;
    let partition = Arc::clone(&running.partition);
    let log = facet("dirty log", partition.dirty())?;

    probe.wait_gate(0)?;
    log.start()?;
    compare("pages before any write", log, &[])?;
    probe.open_gate(0);
    probe.wait_gate(1)?;
    compare("pages of the first step", log, &first)?;
    compare("pages taken already", log, &[])?;
    probe.open_gate(1);
    probe.wait_gate(2)?;
    compare("pages of the second step", log, &second)?;
    log.stop()?;
    probe.open_gate(2);
    ended(running)
}

fn dirty_log_mistakes(hypervisor: &dyn Hypervisor) -> Checked {
    let machine = BareGuest::new(&Program::new()).build(hypervisor)?;
    let log = facet("dirty log", machine.partition.dirty())?;
    caller_fault("pages of a log that is off", log.take())?;
    log.start()?;
    log.take()?;
    log.stop()?;
    caller_fault("pages of a log that is off again", log.take())
}

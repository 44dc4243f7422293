//! Doorbells: the right writes ring, all others come out of the guest.

use std::sync::Arc;

use super::{Checked, DONE, caller_fault, ended, equal, facet, table, write_at};
use crate::DoorbellSpace::{Mmio, Pio};
use crate::arch::x86_64::asm::{Program, Width};
use crate::conformance::probe::Failure;
use crate::conformance::{BareGuest, Gates as _, Machine, Probe, layout};
use crate::{Attached, DoorbellSpace, Event, Hypervisor};

table!(doorbell_widths doorbell_values doorbell_mistakes);

const PORTS: u16 = 0x500;

struct Bell {
    event: Event,
    attached: Box<dyn Attached>,
}

fn bell(
    machine: &Machine,
    space: DoorbellSpace,
    address: u64,
    width: Width,
    value: Option<u64>,
) -> Result<Bell, Failure> {
    let event = Event::new().map_err(|error| Failure::Broken(error.to_string()))?;
    let doorbells = facet("doorbells", machine.partition.doorbells())?;
    let bytes = u8::try_from(width.bytes()).unwrap_or(0);
    let attached = doorbells.attach(space, address, bytes, value, &event)?;
    Ok(Bell { event, attached })
}

fn run(machine: Machine, probe: &Arc<Probe>) -> Checked {
    let running = machine.start(probe)?;
    running.set.resume();
    ended(running)
}

/// One bell for each width in each space; each also gets a write of another width.
fn doorbell_widths(hypervisor: &dyn Hypervisor) -> Checked {
    let mut program = Program::new();
    let mut others = Vec::new();
    let memory: Vec<_> = (layout::NOWHERE..).step_by(0x40).zip(Width::ALL).collect();
    let ports: Vec<_> = (PORTS..).step_by(0x10).zip(Width::PORT).collect();
    for &(address, width) in &memory {
        let other = if width == Width::W4 {
            Width::W2
        } else {
            Width::W4
        };
        program.store(address, width, 7).store(address, other, 9);
        let bytes = 9_u64.to_le_bytes();
        others.push(write_at(
            Mmio,
            address,
            bytes.get(..other.bytes()).unwrap_or(&[]),
        ));
    }
    for &(port, width) in &ports {
        let other = if width == Width::W2 {
            Width::W1
        } else {
            Width::W2
        };
        program.out(port, width, 7).out(port, other, 9);
        let bytes = 9_u64.to_le_bytes();
        others.push(write_at(
            Pio,
            port.into(),
            bytes.get(..other.bytes()).unwrap_or(&[]),
        ));
    }
    program.raw(DONE.code());
    let machine = BareGuest::new(&program).build(hypervisor)?;
    let mut bells = Vec::new();
    for &(address, width) in &memory {
        bells.push(bell(&machine, Mmio, address, width, None)?);
    }
    for &(port, width) in &ports {
        bells.push(bell(&machine, Pio, port.into(), width, None)?);
    }
    let probe = Arc::new(Probe::default());
    run(machine, &probe)?;
    let rung: Vec<_> = bells.iter().map(|bell| bell.event.take()).collect();
    equal("bells rung", &rung, &vec![true; memory.len() + ports.len()])?;
    equal("writes that ring nothing", &probe.touches(), &others)
}

fn doorbell_values(hypervisor: &dyn Hypervisor) -> Checked {
    let at = layout::NOWHERE + 0x50;
    let mut program = Program::new();
    for value in [1, 3] {
        program.store(at, Width::W4, value);
        program.out(PORTS, Width::W2, u32::try_from(value).unwrap_or(0));
    }
    program.gate(0).store(at, Width::W4, 1).raw(DONE.code());
    let machine = BareGuest::new(&program).build(hypervisor)?;
    let one = bell(&machine, Mmio, at, Width::W4, Some(1))?;
    let two = bell(&machine, Mmio, at, Width::W4, Some(2))?;
    let port_one = bell(&machine, Pio, PORTS.into(), Width::W2, Some(1))?;
    let probe = Arc::new(Probe::default());
    let running = machine.start(&probe)?;
    running.set.resume();
    probe.wait_gate(0)?;
    let rung = [&one, &two, &port_one].map(|bell| bell.event.take());
    equal("bells rung", &rung, &[true, false, true])?;
    drop(one.attached);
    probe.open_gate(0);
    ended(running)?;
    equal("a bell that was taken off", &one.event.take(), &false)?;
    let others = vec![
        write_at(Mmio, at, &3_u32.to_le_bytes()),
        write_at(Pio, PORTS.into(), &3_u16.to_le_bytes()),
        write_at(Mmio, at, &1_u32.to_le_bytes()),
    ];
    equal("writes that ring nothing", &probe.touches(), &others)
}

fn doorbell_mistakes(hypervisor: &dyn Hypervisor) -> Checked {
    let machine = BareGuest::new(&Program::new()).build(hypervisor)?;
    let first = bell(&machine, Mmio, layout::NOWHERE, Width::W4, Some(1))?;
    let doorbells = facet("doorbells", machine.partition.doorbells())?;
    let again = doorbells.attach(Mmio, layout::NOWHERE, 4, Some(1), &first.event);
    caller_fault("the same doorbell twice", again)?;
    for (space, address, width) in [
        (Mmio, layout::NOWHERE, 0),
        (Mmio, layout::NOWHERE, 3),
        (Pio, PORTS.into(), 8),
        (Pio, 0x1_0000, 1),
    ] {
        let attached = doorbells.attach(space, address, width, None, &first.event);
        caller_fault("an impossible doorbell", attached)?;
    }
    drop(first);
    drop(bell(&machine, Mmio, layout::NOWHERE, Width::W4, Some(1))?);
    Ok(())
}

//! Interrupts: between processors, by lines, by messages, by events, and out of a halt.

use std::sync::Arc;

use super::{Checked, caller_fault, ended, ensure, equal, facet, table};
use crate::arch::x86_64::asm::{Program, Width};
use crate::conformance::probe::Failure;
use crate::conformance::{BareGuest, Gates as _, Probe, Running, layout, port};
use crate::{Event, Hypervisor, IrqChip, IrqLayout, Msi, Outcome};

table!(
    ipi_between_vcpus start_of_another_processor line_delivery msi_delivery interrupt_mistakes
    halt_and_wake event_irq event_irq_mistakes
);

const VECTOR: u8 = 0x41;
const OTHER_VECTOR: u8 = 0x52;
/// The local APIC's ID register, in x2APIC mode.
const APIC_ID: u32 = 0x802;

fn msi_to(target: u64, vector: u8) -> Msi {
    Msi {
        address: 0xfee0_0000 | target << 12,
        data: vector.into(),
    }
}

/// Says that it is ready and serves interrupts.
fn server() -> Program {
    let mut program = Program::new();
    program.enable_apic().out(port::PLAIN, Width::W1, 0xee);
    program.serve_interrupts();
    program
}

/// A handler that writes `value`.
fn writes(value: u8) -> Program {
    let mut program = Program::new();
    program.handler(|p| p.out(port::PLAIN, Width::W1, value.into()));
    program
}

/// A handler that writes the processor's number.
fn writes_number() -> Program {
    let mut program = Program::new();
    program.handler(|p| p.read_msr(APIC_ID).out_rax(port::PLAIN, Width::W1));
    program
}

/// Programs the I/O APIC: line `line` is an edge that gives `vector` on processor 0.
fn route(program: &mut Program, line: u32, vector: u8) {
    const SELECT: u64 = 0xfec0_0000;
    const WINDOW: u64 = 0xfec0_0010;
    let entry = u64::from(0x10 + line * 2);
    program
        .store(SELECT, Width::W4, entry + 1)
        .store(WINDOW, Width::W4, 0)
        .store(SELECT, Width::W4, entry)
        .store(WINDOW, Width::W4, vector.into());
}

/// A guest whose lines 5 and 23 write 5 and 23.
fn line_server(hypervisor: &dyn Hypervisor, probe: &Arc<Probe>) -> Result<Running, Failure> {
    let mut program = Program::new();
    route(&mut program, 5, VECTOR);
    route(&mut program, 23, OTHER_VECTOR);
    program.raw(server().code());
    let guest = BareGuest::new(&program)
        .handler(VECTOR, &writes(5))
        .handler(OTHER_VECTOR, &writes(23));
    let running = guest.start(hypervisor, probe)?;
    probe.wait_written(port::PLAIN, 1)?;
    Ok(running)
}

/// Ends the guest from outside and compares what it wrote.
fn finish(running: Running, probe: &Probe, expected: &[u8]) -> Checked {
    equal("outcome", &running.set.stop(), &Outcome::Cancelled)?;
    equal(
        "what the guest wrote",
        &probe.written(port::PLAIN).as_slice(),
        &expected,
    )
}

fn ipi_between_vcpus(hypervisor: &dyn Hypervisor) -> Checked {
    let mut sender = Program::new();
    sender.enable_apic().gate(0).send_ipi(1, VECTOR).halt();
    let mut receives = Program::new();
    receives.handler(|p| {
        p.read_msr(APIC_ID).out_rax(port::PLAIN, Width::W1).out(
            port::DONE,
            Width::W1,
            port::POWER_OFF,
        )
    });
    let probe = Arc::new(Probe::default());
    let guest = BareGuest::new(&sender).vcpu(&server());
    let running = guest.handler(VECTOR, &receives).start(hypervisor, &probe)?;
    probe.wait_written(port::PLAIN, 1)?;
    probe.open_gate(0);
    ended(running)?;
    equal("who got it", &probe.written(port::PLAIN), &vec![0xee, 1])
}

fn start_of_another_processor(hypervisor: &dyn Hypervisor) -> Checked {
    let mut boot = Program::new();
    boot.enable_apic()
        .start_processor(1, layout::STARTUP_PAGE)
        .halt();
    let mut started = Program::new();
    started.real_mode_out(0x10, 0x5a);
    let probe = Arc::new(Probe::default());
    let guest = BareGuest::new(&boot).startup(&started);
    let running = guest.start(hypervisor, &probe)?;
    probe.wait_written(port::PLAIN, 1)?;
    finish(running, &probe, &[0x5a])
}

fn line_delivery(hypervisor: &dyn Hypervisor) -> Checked {
    let probe = Arc::new(Probe::default());
    let running = line_server(hypervisor, &probe)?;
    let chip = running.partition.irq();
    // A line that stays high is one edge, however often it is driven.
    chip.set_line(5, true)?;
    probe.wait_written(port::PLAIN, 2)?;
    chip.set_line(5, true)?;
    chip.set_line(5, false)?;
    chip.pulse(5)?;
    probe.wait_written(port::PLAIN, 3)?;
    chip.pulse(23)?;
    probe.wait_written(port::PLAIN, 4)?;
    finish(running, &probe, &[0xee, 5, 5, 23])
}

fn msi_delivery(hypervisor: &dyn Hypervisor) -> Checked {
    let probe = Arc::new(Probe::default());
    let guest = BareGuest::new(&server()).vcpu(&server());
    let guest = guest.handler(VECTOR, &writes_number());
    let running = guest.start(hypervisor, &probe)?;
    probe.wait_written(port::PLAIN, 2)?;
    let chip = running.partition.irq();
    for (count, target) in [(3, 1), (4, 0), (5, 1)] {
        chip.msi(msi_to(target, VECTOR))?;
        probe.wait_written(port::PLAIN, count)?;
    }
    // To a processor that does not exist: lost, as on hardware.
    chip.msi(msi_to(9, VECTOR))?;
    finish(running, &probe, &[0xee, 0xee, 1, 0, 1])
}

fn lines(chip: &dyn IrqChip) -> u32 {
    let IrqLayout::X86_64 { lines, .. } = chip.layout();
    lines
}

fn interrupt_mistakes(hypervisor: &dyn Hypervisor) -> Checked {
    let machine = BareGuest::new(&Program::new()).build(hypervisor)?;
    let chip = machine.partition.irq();
    caller_fault("a line too many", chip.set_line(lines(chip), true))?;
    caller_fault("no line at all", chip.pulse(u32::MAX))?;
    for address in [0, 0xfed0_0000, u64::MAX] {
        let msi = Msi {
            address,
            data: 0x41,
        };
        caller_fault("a message to nowhere", chip.msi(msi))?;
    }
    chip.set_line(lines(chip) - 1, false)?;
    Ok(())
}

/// A halted processor can be paused, keeps what arrives meanwhile, and is woken by an interrupt.
fn halt_and_wake(hypervisor: &dyn Hypervisor) -> Checked {
    let probe = Arc::new(Probe::default());
    let guest = BareGuest::new(&server()).handler(VECTOR, &writes(1));
    let guest = guest.handler(OTHER_VECTOR, &writes(2));
    let running = guest.start(hypervisor, &probe)?;
    probe.wait_written(port::PLAIN, 1)?;
    ensure("a halted processor can be paused", running.set.pause())?;
    running.set.resume();
    running.partition.irq().msi(msi_to(0, VECTOR))?;
    probe.wait_written(port::PLAIN, 2)?;
    ensure("it can be paused again", running.set.pause())?;
    running.partition.irq().msi(msi_to(0, OTHER_VECTOR))?;
    running.set.resume();
    probe.wait_written(port::PLAIN, 3)?;
    finish(running, &probe, &[0xee, 1, 2])
}

fn new_event() -> Result<Event, Failure> {
    Event::new().map_err(|error| Failure::Broken(error.to_string()))
}

fn event_irq(hypervisor: &dyn Hypervisor) -> Checked {
    let probe = Arc::new(Probe::default());
    let running = line_server(hypervisor, &probe)?;
    let partition = Arc::clone(&running.partition);
    let event_irqs = facet("event interrupts", partition.event_irqs())?;
    let event = new_event()?;
    let attached = event_irqs.attach(5, &event)?;
    for count in [2, 3] {
        event.signal();
        probe.wait_written(port::PLAIN, count)?;
    }
    drop(attached);
    event.signal();
    partition.irq().pulse(23)?;
    probe.wait_written(port::PLAIN, 4)?;
    finish(running, &probe, &[0xee, 5, 5, 23])
}

fn event_irq_mistakes(hypervisor: &dyn Hypervisor) -> Checked {
    let machine = BareGuest::new(&Program::new()).build(hypervisor)?;
    let event_irqs = facet("event interrupts", machine.partition.event_irqs())?;
    let event = new_event()?;
    let none = lines(machine.partition.irq());
    caller_fault("a line too many", event_irqs.attach(none, &event))?;
    let attached = event_irqs.attach(5, &event)?;
    caller_fault("an event that is tied", event_irqs.attach(6, &event))?;
    drop(attached);
    drop(event_irqs.attach(6, &event)?);
    Ok(())
}

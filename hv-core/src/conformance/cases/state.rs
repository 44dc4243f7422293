//! Pausing, saving, loading: nothing is lost and nothing happens twice.

use std::sync::Arc;

use super::{Checked, DONE, caller_fault, ended, ensure, equal, table};
use crate::arch::x86_64::asm::{Program, Width};
use crate::arch::x86_64::{self, msr};
use crate::conformance::probe::Failure;
use crate::conformance::{BareGuest, Gates as _, Probe, Running, port};
use crate::{Hypervisor, Msi, PartitionState, VcpuState, VmSpec};

table!(vcpu_mistakes translation pause_and_resume save_and_load restore_into_another_vm);

fn vcpu_mistakes(hypervisor: &dyn Hypervisor) -> Checked {
    let too_many = hypervisor.host().max_vcpus.saturating_add(1);
    for vcpus in [0, too_many] {
        let what = format!("{vcpus} vCPUs");
        caller_fault(&what, hypervisor.prepare(&VmSpec { vcpus }))?;
    }
    Ok(())
}

fn translation(hypervisor: &dyn Hypervisor) -> Checked {
    let mut machine = BareGuest::new(&Program::new()).build(hypervisor)?;
    let vcpu = machine.bind_first()?;
    equal("mapped", &vcpu.translate(0x12_3456)?, &Some(0x12_3456))?;
    equal("not mapped", &vcpu.translate(5 << 30)?, &None)
}

const STEPS: u16 = 240;

/// Passes the sequence on, step by step: a step that is lost or done twice shows.
fn passes_sequence() -> Program {
    let mut program = Program::new();
    program.repeat(STEPS.into(), |p| {
        p.input(port::SEQUENCE, Width::W2)
            .out_rax(port::PLAIN, Width::W2)
    });
    program
}

fn check_sequence(probe: &Probe) -> Checked {
    let steps: Vec<u8> = (0..STEPS).flat_map(u16::to_le_bytes).collect();
    equal("the sequence", &probe.written(port::PLAIN), &steps)
}

/// Interrupts the guest about every twelfth step and does `job` on it while it is paused.
fn disturb(hypervisor: &dyn Hypervisor, mut job: impl FnMut(&Running) -> Checked) -> Checked {
    let probe = Arc::new(Probe::default());
    let mut program = passes_sequence();
    program.raw(DONE.code());
    let running = BareGuest::new(&program).start(hypervisor, &probe)?;
    for step in (12..STEPS).step_by(12) {
        probe.wait_written(port::PLAIN, usize::from(step) * 2)?;
        if !running.set.pause() {
            break;
        }
        job(&running)?;
        running.set.resume();
    }
    ended(running)?;
    check_sequence(&probe)
}

fn pause_and_resume(hypervisor: &dyn Hypervisor) -> Checked {
    disturb(hypervisor, |running| {
        // Paused means that nothing changes.
        let registers = running.set.with(0, |vcpu| vcpu.registers())??;
        equal(
            "registers",
            &running.set.with(0, |vcpu| vcpu.registers())??,
            &registers,
        )
    })
}

fn save_vcpu(running: &Running, index: usize) -> Result<VcpuState, Failure> {
    Ok(running.set.with(index, |vcpu| vcpu.save())??)
}

fn load_vcpu(running: &Running, index: usize, state: &VcpuState) -> Checked {
    let state = state.clone();
    Ok(running.set.with(index, move |vcpu| vcpu.load(&state))??)
}

/// A state without what goes on by itself: the time-stamp counter.
fn still(state: &VcpuState) -> Box<x86_64::VcpuState> {
    let VcpuState::X86_64(state) = state;
    let mut state = state.clone();
    state.msrs.retain(|value| value.index != msr::TSC);
    state
}

fn save_and_load(hypervisor: &dyn Hypervisor) -> Checked {
    disturb(hypervisor, |running| {
        let (saved, partition) = (save_vcpu(running, 0)?, running.partition.save()?);
        running.partition.load(&partition)?;
        load_vcpu(running, 0, &saved)?;
        let again = save_vcpu(running, 0)?;
        equal("state after load", &still(&again), &still(&saved))?;
        ensure(
            "the state tells the sequence's place",
            !still(&saved).lapic.is_empty(),
        )
    })
}

/// Everything of a guest but its RAM.
struct Saved {
    partition: PartitionState,
    vcpus: [VcpuState; 2],
}

fn restore_into_another_vm(hypervisor: &dyn Hypervisor) -> Checked {
    const VECTOR: u8 = 0x41;
    const READY: u16 = 0x30;
    const ANSWER: u16 = 0x31;
    let mut waits = Program::new();
    waits
        .enable_apic()
        .out(READY, Width::W1, 1)
        .serve_interrupts();
    let mut passes = passes_sequence();
    passes.gate(0).raw(DONE.code());
    let mut answers = Program::new();
    answers.handler(|p| p.out(ANSWER, Width::W1, 0x77));
    let guest = BareGuest::new(&passes)
        .vcpu(&waits)
        .handler(VECTOR, &answers);
    let probe = Arc::new(Probe::default());

    let first = guest.start(hypervisor, &probe)?;
    probe.wait_written(READY, 1)?;
    probe.wait_written(port::PLAIN, usize::from(STEPS))?;
    ensure("the first VM can be paused", first.set.pause())?;
    let saved = Saved {
        vcpus: [save_vcpu(&first, 0)?, save_vcpu(&first, 1)?],
        partition: first.partition.save()?,
    };
    let ram = first.ram.clone();
    drop(first);

    let second = guest.build_on(hypervisor, ram)?.start_blank(&probe)?;
    second.partition.load(&saved.partition)?;
    for (index, state) in saved.vcpus.iter().enumerate() {
        load_vcpu(&second, index, state)?;
    }
    second.set.resume();
    let to_second = Msi {
        address: 0xfee0_1000,
        data: VECTOR.into(),
    };
    second.partition.irq().msi(to_second)?;
    probe.wait_written(ANSWER, 1)?;
    probe.open_gate(0);
    ended(second)?;
    check_sequence(&probe)
}

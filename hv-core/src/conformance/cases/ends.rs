//! How a guest ends, and what must not end it, or the host.

use std::sync::Arc;
use std::time::Duration;

use super::{Checked, DONE, ensure, equal, table};
use crate::arch::x86_64::asm::{Program, Width};
use crate::conformance::probe::Failure;
use crate::conformance::{BareGuest, Probe, port};
use crate::{CrashKind, Exit, Hypervisor, Outcome, Registers, Stop, Vcpu};

table!(power_off reset triple_fault unknown_msr hypercall);

fn stops_with(hypervisor: &dyn Hypervisor, request: u32, stop: Stop) -> Checked {
    let mut program = Program::new();
    program
        .out(port::DONE, Width::W1, request)
        .out(port::PLAIN, Width::W1, 1)
        .spin();
    let probe = Arc::new(Probe::default());
    // The second processor is busy: it has to be stopped as well.
    let mut busy = Program::new();
    busy.spin();
    let running = BareGuest::new(&program)
        .vcpu(&busy)
        .start(hypervisor, &probe)?;
    equal("outcome", &running.wait(), &Outcome::Stopped(stop))?;
    equal("what ran after the end", &probe.touches(), &vec![])
}

fn power_off(hypervisor: &dyn Hypervisor) -> Checked {
    stops_with(hypervisor, port::POWER_OFF, Stop::PowerOff)
}

fn reset(hypervisor: &dyn Hypervisor) -> Checked {
    stops_with(hypervisor, port::RESET, Stop::Reset)
}

fn triple_fault(hypervisor: &dyn Hypervisor) -> Checked {
    let mut program = Program::new();
    program.invalid();
    let probe = Arc::new(Probe::default());
    let guest = BareGuest::new(&program).without_handlers();
    match guest.start(hypervisor, &probe)?.wait() {
        Outcome::Crashed(crash) => {
            equal("kind of the crash", &crash.kind, &CrashKind::TripleFault)?;
            ensure("registers are reported", crash.registers.is_some())
        }
        other => Err(Failure::Broken(format!("outcome: {other:?}"))),
    }
}

/// The guest may get an exception out of `allowed`, or an answer; either way it goes on, and so do we.
fn is_survived(hypervisor: &dyn Hypervisor, program: &mut Program, allowed: &[u8]) -> Checked {
    program.raw(DONE.code());
    let probe = Arc::new(Probe::default());
    let running = BareGuest::new(program).start(hypervisor, &probe)?;
    equal(
        "outcome",
        &running.wait(),
        &Outcome::Stopped(Stop::PowerOff),
    )?;
    let exceptions = probe.written(port::EXCEPTION);
    let legal = exceptions.iter().all(|vector| allowed.contains(vector));
    ensure(
        &format!("exceptions {exceptions:?} are in {allowed:?}"),
        legal,
    )
}

const GENERAL_PROTECTION: u8 = 13;

fn unknown_msr(hypervisor: &dyn Hypervisor) -> Checked {
    const UNKNOWN: u32 = 0x4bff_ff00;
    let mut reads = Program::new();
    reads.read_msr(UNKNOWN);
    let mut writes = Program::new();
    writes.write_msr(UNKNOWN, u64::MAX);
    is_survived(hypervisor, &mut reads, &[GENERAL_PROTECTION])?;
    is_survived(hypervisor, &mut writes, &[GENERAL_PROTECTION])
}

fn rip(vcpu: &dyn Vcpu) -> Result<u64, Failure> {
    let Registers::X86_64(registers) = vcpu.registers()?;
    Ok(registers.general.rip)
}

/// Some KVMs patch an instruction of the wrong vendor and try it again; one that interprets does so for
/// ever. That costs the guest its processor, not us: a kick has to get it back.
fn hypercall(hypervisor: &dyn Hypervisor) -> Checked {
    const UNKNOWN: u32 = 0xdead;
    const INVALID_OPCODE: u8 = 6;
    // MOV EAX, imm32, before the call itself.
    const LOADS_NUMBER: u64 = 5;
    const PATIENCE: Duration = Duration::from_secs(3);
    let mut program = Program::new();
    program.hypercall(UNKNOWN).raw(DONE.code());
    let mut machine = BareGuest::new(&program).build(hypervisor)?;
    let kick = machine.kick()?;
    let mut vcpu = machine.bind_first()?;
    let start = rip(&*vcpu)?;
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let probe = Probe::default();
    // Full is as good as sent.
    probe.on_done(move |_| {
        let _ = sender.try_send(());
    });
    let helper = std::thread::spawn(move || {
        let ended = receiver.recv_timeout(PATIENCE).is_ok();
        kick.kick();
        ended
    });
    equal("exit", &vcpu.run(&probe)?, &Exit::Kicked)?;
    let exceptions = probe.written(port::EXCEPTION);
    let legal = exceptions.iter().all(|vector| *vector == INVALID_OPCODE);
    ensure(&format!("exceptions {exceptions:?}"), legal)?;
    if helper.join().unwrap_or(false) {
        return Ok(());
    }
    equal("where the guest is", &rip(&*vcpu)?, &(start + LOADS_NUMBER))?;
    Err(Failure::Skip(
        "this hypervisor repeats an unknown hypercall for ever; a kick ends it".to_owned(),
    ))
}

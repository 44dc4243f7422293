//! Kicks: sticky, at any time, and against the end of their vCPU.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Checked, equal, table};
use crate::arch::x86_64::asm::{Program, Width};
use crate::conformance::probe::Failure;
use crate::conformance::{BareGuest, Machine, Probe, port};
use crate::{Exit, Hypervisor, Kick, Vcpu};

table!(kick_before_run kick_during_run kick_after_run no_kick_is_lost kicks_against_teardown);

/// Writes 1 to the plain port, asks for the end, and spins.
fn one_write() -> Program {
    let mut program = Program::new();
    program
        .out(port::PLAIN, Width::W1, 1)
        .out(port::DONE, Width::W1, port::POWER_OFF)
        .spin();
    program
}

/// The machine of `program`, and a handle on its vCPU.
fn machine(
    hypervisor: &dyn Hypervisor,
    program: &Program,
) -> Result<(Machine, Arc<dyn Kick>), Failure> {
    let machine = BareGuest::new(program).build(hypervisor)?;
    let kick = machine.kick()?;
    Ok((machine, kick))
}

fn kicked(vcpu: &mut dyn Vcpu, probe: &Probe) -> Checked {
    equal("exit", &vcpu.run(probe)?, &Exit::Kicked)
}

fn kick_before_run(hypervisor: &dyn Hypervisor) -> Checked {
    let (mut machine, kick) = machine(hypervisor, &one_write())?;
    let probe = Probe::default();
    kick.kick();
    let mut vcpu = machine.bind_first()?;
    kicked(&mut *vcpu, &probe)?;
    // Two are one.
    kick.kick();
    kick.kick();
    kicked(&mut *vcpu, &probe)?;
    equal("accesses before the guest ran", &probe.touches(), &vec![])?;
    probe.on_done(move |_| kick.kick());
    kicked(&mut *vcpu, &probe)?;
    equal(
        "what the guest wrote",
        &probe.written(port::PLAIN),
        &vec![1],
    )
}

/// Kicks once the guest wrote `count` bytes.
fn kick_later(probe: &Arc<Probe>, kick: &Arc<dyn Kick>, count: usize) -> JoinHandle<Checked> {
    let (probe, kick) = (Arc::clone(probe), Arc::clone(kick));
    std::thread::spawn(move || {
        probe.wait_written(port::PLAIN, count)?;
        // Most likely the guest is back in its loop by then; wherever it is, the kick has to work.
        std::thread::sleep(Duration::from_millis(2));
        kick.kick();
        Ok(())
    })
}

fn join(thread: JoinHandle<Checked>) -> Checked {
    let panicked = |_| Err(Failure::Broken("a helper thread panicked".to_owned()));
    thread.join().unwrap_or_else(panicked)
}

/// Out of a busy loop, and out of a halt that nothing else ends.
fn kick_during_run(hypervisor: &dyn Hypervisor) -> Checked {
    let mut spins = Program::new();
    spins.out(port::PLAIN, Width::W1, 1).spin();
    let mut halts = Program::new();
    halts
        .out(port::PLAIN, Width::W1, 1)
        .disable_interrupts()
        .halt();
    halts.out(port::PLAIN, Width::W1, 2).spin();
    for program in [spins, halts] {
        let (mut machine, kick) = machine(hypervisor, &program)?;
        let probe = Arc::new(Probe::default());
        let mut vcpu = machine.bind_first()?;
        for _ in 0..4 {
            let helper = kick_later(&probe, &kick, 1);
            kicked(&mut *vcpu, &probe)?;
            join(helper)?;
        }
        equal(
            "what the guest wrote",
            &probe.written(port::PLAIN),
            &vec![1],
        )?;
    }
    Ok(())
}

fn kick_after_run(hypervisor: &dyn Hypervisor) -> Checked {
    let (mut machine, kick) = machine(hypervisor, &one_write())?;
    let probe = Probe::default();
    let mut vcpu = machine.bind_first()?;
    let later = Arc::clone(&kick);
    probe.on_done(move |_| later.kick());
    kicked(&mut *vcpu, &probe)?;
    kick.kick();
    kicked(&mut *vcpu, &probe)?;
    drop(vcpu);
    kick.kick();
    drop(machine);
    kick.kick();
    equal(
        "what the guest wrote",
        &probe.written(port::PLAIN),
        &vec![1],
    )
}

/// Each kick ends a run, wherever between two runs or inside one it falls. As many rounds as a busy
/// machine has time for.
fn no_kick_is_lost(hypervisor: &dyn Hypervisor) -> Checked {
    const ROUNDS: usize = 400;
    const BUDGET: Duration = Duration::from_secs(3);
    let mut program = Program::new();
    program.spin();
    let (mut machine, kick) = machine(hypervisor, &program)?;
    let mut vcpu = machine.bind_first()?;
    let probe = Probe::default();
    let (again, orders) = std::sync::mpsc::channel();
    let kicker = std::thread::spawn(move || {
        kick.kick();
        while orders.recv() == Ok(true) {
            kick.kick();
        }
        Ok(())
    });
    let start = Instant::now();
    for round in 1..=ROUNDS {
        kicked(&mut *vcpu, &probe)?;
        let more = round < ROUNDS && start.elapsed() < BUDGET;
        // The kicker is gone only after the last order.
        let _ = again.send(more);
        if !more {
            break;
        }
    }
    join(kicker)
}

fn kicks_against_teardown(hypervisor: &dyn Hypervisor) -> Checked {
    const ROUNDS: usize = 8;
    let mut program = Program::new();
    program.spin();
    for _ in 0..ROUNDS {
        let (mut machine, kick) = machine(hypervisor, &program)?;
        let over = Arc::new(AtomicBool::new(false));
        let storm = [(); 3].map(|()| {
            let (kick, over) = (Arc::clone(&kick), Arc::clone(&over));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    kick.kick();
                    std::thread::yield_now();
                }
                Ok(())
            })
        });
        let probe = Probe::default();
        let mut vcpu = machine.bind_first()?;
        for _ in 0..8 {
            kicked(&mut *vcpu, &probe)?;
        }
        drop(vcpu);
        drop(machine);
        over.store(true, Ordering::Relaxed);
        storm.into_iter().try_for_each(join)?;
    }
    Ok(())
}

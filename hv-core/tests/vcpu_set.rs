//! The vCPU threads: start, pause, resume, jobs, ends, and what goes wrong on the way.

#![cfg(all(feature = "fake", feature = "conformance"))]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hv_core::arch::x86_64::asm::{Program, Width};
use hv_core::conformance::{BareGuest, Gates as _, Machine, Probe, port};
use hv_core::fake::{Call, FakeHypervisor};
use hv_core::{CrashKind, HvErrorKind, Outcome, Registers, Stop, Vcpu, VcpuSet, VmIo};

/// Counts on the plain port for ever.
fn counts() -> Program {
    let mut program = Program::new();
    let start = program.label();
    program.out(port::PLAIN, Width::W1, 1).jump(start);
    program
}

fn machine(fake: &FakeHypervisor, vcpus: usize) -> Machine {
    let guest = (1..vcpus).fold(BareGuest::new(&counts()), |guest, _| guest.vcpu(&counts()));
    guest.build(fake).unwrap()
}

fn io(probe: &Arc<Probe>) -> Arc<dyn VmIo> {
    Arc::clone(probe) as Arc<dyn VmIo>
}

#[test]
fn a_set_starts_paused_and_runs_only_between_resume_and_pause() {
    let probe = Arc::new(Probe::default());
    let running = machine(&FakeHypervisor::default(), 3)
        .start(&probe)
        .unwrap();
    assert_eq!(probe.touches().len(), 0);
    for _ in 0..20 {
        let before = probe.touches().len();
        running.set.resume();
        running.set.resume();
        probe.wait_written(port::PLAIN, before + 1).unwrap();
        assert!(running.set.pause());
        assert!(running.set.pause());
        let paused = probe.touches().len();
        std::thread::yield_now();
        assert_eq!(probe.touches().len(), paused);
    }
    assert_eq!(running.set.stop(), Outcome::Cancelled);
}

#[test]
fn jobs_run_on_their_vcpu_while_paused_only() {
    let probe = Arc::new(Probe::default());
    let running = machine(&FakeHypervisor::default(), 2)
        .start(&probe)
        .unwrap();
    let mut stacks = Vec::new();
    for index in 0..2 {
        let registers = running.set.with(index, |vcpu| vcpu.registers());
        let Registers::X86_64(registers) = registers.unwrap().unwrap() else {
            panic!("another architecture");
        };
        stacks.push(registers.general.rsp);
    }
    assert_ne!(stacks[0], stacks[1]);
    let missing = running.set.with(2, |_| ()).unwrap_err();
    assert_eq!(missing.kind, HvErrorKind::InvalidState);
    running.set.resume();
    let runs = running.set.with(0, |_| ()).unwrap_err();
    assert_eq!(runs.kind, HvErrorKind::InvalidState);
}

#[test]
fn jobs_of_many_threads_all_run_once() {
    let probe = Arc::new(Probe::default());
    let running = machine(&FakeHypervisor::default(), 2)
        .start(&probe)
        .unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for index in 0..8 {
            let (set, done) = (&running.set, Arc::clone(&done));
            scope.spawn(move || {
                for _ in 0..25 {
                    let done = Arc::clone(&done);
                    set.with(index % 2, move |_| done.fetch_add(1, Ordering::Relaxed))
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), 200);
}

#[test]
fn the_first_end_wins_and_later_calls_are_harmless() {
    let mut program = Program::new();
    program.out(port::DONE, Width::W1, port::RESET).spin();
    let probe = Arc::new(Probe::default());
    let guest = BareGuest::new(&program).vcpu(&counts());
    let running = guest.start(&FakeHypervisor::default(), &probe).unwrap();
    assert_eq!(running.set.wait(), Outcome::Stopped(Stop::Reset));
    running.set.stop_handle().stop(Stop::PowerOff);
    running.set.resume();
    assert!(!running.set.pause());
    assert!(running.set.with(0, |_| ()).is_err());
    assert_eq!(running.set.stop(), Outcome::Stopped(Stop::Reset));
}

#[test]
fn dropping_a_running_set_ends_its_threads() {
    let probe = Arc::new(Probe::default());
    let running = machine(&FakeHypervisor::default(), 4)
        .start(&probe)
        .unwrap();
    running.set.resume();
    probe.wait_written(port::PLAIN, 4).unwrap();
    drop(running);
    // The vCPUs' threads hold the probe; nobody but us does any more.
    assert_eq!(Arc::strong_count(&probe), 1);
}

#[test]
fn a_vcpu_that_cannot_be_made_fails_the_start_and_leaves_nothing() {
    for nth in 1..=3 {
        let fake = FakeHypervisor::default();
        let machine = machine(&fake, 3);
        fake.fail(Call::Bind, nth);
        let probe = Arc::new(Probe::default());
        let error = VcpuSet::start(machine.seeds, &io(&probe)).unwrap_err();
        assert_eq!(error.kind, HvErrorKind::Exhausted);
        assert_eq!(Arc::strong_count(&probe), 1);
    }
}

#[test]
fn a_hypervisor_that_fails_while_running_ends_the_set() {
    let fake = FakeHypervisor::default();
    let probe = Arc::new(Probe::default());
    let running = machine(&fake, 2).start(&probe).unwrap();
    fake.fail(Call::Run, 2);
    running.set.resume();
    let Outcome::Failed(error) = running.set.wait() else {
        panic!("{:?}", running.set.wait());
    };
    assert_eq!(error.kind, HvErrorKind::Exhausted);
}

#[test]
fn a_panic_in_a_job_ends_the_set_and_nobody_waits_for_ever() {
    let probe = Arc::new(Probe::default());
    let running = machine(&FakeHypervisor::default(), 2)
        .start(&probe)
        .unwrap();
    let job = |_: &mut dyn Vcpu| panic!("a job that panics (this is a test)");
    let error = running.set.with::<(), _>(0, job).unwrap_err();
    assert_eq!(error.kind, HvErrorKind::InvalidState);
    let Outcome::Failed(error) = running.set.wait() else {
        panic!("{:?}", running.set.wait());
    };
    assert_eq!(error.op, "vCPU thread");
    assert!(!running.set.pause());
}

#[test]
fn a_crash_is_reported_with_its_registers() {
    let mut program = Program::new();
    program.raw(&[0x0f, 0xff]);
    let probe = Arc::new(Probe::default());
    let running = BareGuest::new(&program).start(&FakeHypervisor::default(), &probe);
    let Outcome::Crashed(crash) = running.unwrap().wait() else {
        panic!("no crash");
    };
    assert_eq!((crash.kind, crash.code), (CrashKind::Emulation, 0xff));
    assert!(crash.registers.is_some());
}

#[test]
fn a_device_may_stop_the_set_while_another_thread_pauses_it() {
    for _ in 0..20 {
        let mut program = Program::new();
        program
            .gate(0)
            .out(port::DONE, Width::W1, port::POWER_OFF)
            .spin();
        let probe = Arc::new(Probe::default());
        let running = BareGuest::new(&program).start(&FakeHypervisor::default(), &probe);
        let running = running.unwrap();
        probe.wait_gate(0).unwrap();
        probe.open_gate(0);
        while running.set.pause() {
            running.set.resume();
        }
        assert_eq!(running.set.stop(), Outcome::Stopped(Stop::PowerOff));
    }
}

//! A fake vCPU: the contract's side of it. The instructions are in [`super::cpu`].

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use super::Call;
use super::cpu::{Cpu, Flow, LAPIC_PAGE};
use super::vm::Vm;
use crate::{
    Crash, CrashKind, Exit, HvError, Kick, Registers, Result, Vcpu, VcpuSeed, VcpuState, VmIo,
};

struct KickState {
    kicked: AtomicBool,
    /// Weak: a kick handle does not keep a VM.
    vm: Weak<Vm>,
}

impl Kick for KickState {
    fn kick(&self) {
        let vm = self.vm.upgrade();
        // Under the lock that a waiting vCPU looks at the flag under, so that no kick is missed.
        let inner = vm.as_ref().map(|vm| vm.inner());
        self.kicked.store(true, SeqCst);
        drop(inner);
        if let Some(vm) = vm {
            vm.wake.notify_all();
        }
    }
}

pub(super) struct FakeSeed {
    vm: Arc<Vm>,
    index: usize,
    kick: Arc<KickState>,
}

impl FakeSeed {
    pub(super) fn new(vm: Arc<Vm>, index: usize) -> Self {
        let kick = Arc::new(KickState {
            kicked: AtomicBool::new(false),
            vm: Arc::downgrade(&vm),
        });
        Self { vm, index, kick }
    }
}

impl VcpuSeed for FakeSeed {
    fn kick(&self) -> Arc<dyn Kick> {
        Arc::clone(&self.kick) as Arc<dyn Kick>
    }

    fn bind(self: Box<Self>) -> Result<Box<dyn Vcpu>> {
        self.vm.host.enter(Call::Bind)?;
        Ok(Box::new(FakeVcpu {
            cpu: Cpu::new(self.vm, self.index),
            kick: self.kick,
        }))
    }
}

struct FakeVcpu {
    cpu: Cpu,
    kick: Arc<KickState>,
}

impl FakeVcpu {
    /// Waits for a start-up or an interrupt; false: a kick came first.
    fn wait_for_work(&mut self) -> bool {
        if self.kick.kicked.load(SeqCst) || self.cpu.is_undisturbed() {
            return !self.kick.kicked.load(SeqCst);
        }
        let vm = Arc::clone(&self.cpu.vm);
        let mut inner = vm.inner();
        while !self.kick.kicked.load(SeqCst) {
            if let Some(lines) = inner.cpus.get_mut(self.cpu.index)
                && self.cpu.accept(lines)
            {
                return true;
            }
            inner = vm.wait(inner);
        }
        false
    }

    fn crash(&self, kind: CrashKind, code: u64) -> Exit {
        let registers = self.registers().ok();
        Exit::Crash(Crash {
            kind,
            code,
            registers,
        })
    }
}

impl Vcpu for FakeVcpu {
    fn run(&mut self, io: &dyn VmIo) -> Result<Exit> {
        self.cpu.vm.host.enter(Call::Run)?;
        loop {
            if !self.wait_for_work() {
                self.kick.kicked.store(false, SeqCst);
                return Ok(Exit::Kicked);
            }
            match self.cpu.step(io) {
                Flow::Next => {}
                Flow::TripleFault => return Ok(self.crash(CrashKind::TripleFault, 0)),
                Flow::Unknown(code) => {
                    return Ok(self.crash(CrashKind::Emulation, code.into()));
                }
            }
        }
    }

    fn registers(&self) -> Result<Registers> {
        Ok(Registers::X86_64(Box::new(self.cpu.state.registers)))
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<()> {
        self.cpu.vm.host.enter(Call::Load)?;
        let Registers::X86_64(registers) = registers;
        self.cpu.state.registers = **registers;
        Ok(())
    }

    fn save(&mut self) -> Result<VcpuState> {
        self.cpu.vm.host.enter(Call::Save)?;
        Ok(VcpuState::X86_64(Box::new(self.cpu.save())))
    }

    fn load(&mut self, state: &VcpuState) -> Result<()> {
        self.cpu.vm.host.enter(Call::Load)?;
        let VcpuState::X86_64(state) = state;
        if state.lapic.len() != LAPIC_PAGE {
            return Err(HvError::invalid("load: the local APIC's size"));
        }
        self.cpu.load(state);
        Ok(())
    }

    fn translate(&self, address: u64) -> Result<Option<u64>> {
        Ok((address >> 32 == 0).then_some(address))
    }
}

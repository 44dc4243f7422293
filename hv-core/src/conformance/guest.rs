//! A bare guest: page tables, descriptor tables and programs in RAM, processors that start there.

use std::sync::Arc;

use vm_memory::{Bytes as _, GuestAddress};

use super::probe::{Failure, Probe};
use crate::arch::x86_64::asm::{Program, Width};
use crate::arch::x86_64::{self, DescriptorTable, MpState, Segment};
use crate::{
    GuestRam, HvError, Hypervisor, IrqPlan, Kick, Limits, Outcome, Partition, RamRange, Registers,
    Result, Vcpu, VcpuSeed, VcpuSet, VcpuState, VmIo, VmSpec,
};

/// Where things are in a bare guest's memory, all of which is mapped one to one up to 4 GiB.
pub mod layout {
    /// Bytes of RAM, from address 0.
    pub const RAM: u64 = 4 << 20;
    /// RAM that only the program of a case uses, up to the end.
    pub const DATA: u64 = 1 << 20;
    /// A guest-physical range where neither RAM nor a device of the machine is.
    pub const NOWHERE: u64 = 0xd000_0000;
    /// Another one, to map memory at.
    pub const WINDOW: u64 = 0x8000_0000;
    /// The page at which [`super::BareGuest::startup`] puts its code, as a start-up IPI names it.
    pub const STARTUP_PAGE: u8 = 8;

    pub(super) const GDT: u64 = 0x500;
    pub(super) const PML4: u64 = 0x2000;
    pub(super) const PDPT: u64 = 0x3000;
    pub(super) const DIRECTORIES: u64 = 0x4000;
    pub(super) const IDT: u64 = 0x1_0000;
    pub(super) const EXCEPTIONS: u64 = 0x1_1000;
    pub(super) const HANDLERS: u64 = 0x1_2000;
    pub(super) const PROGRAMS: u64 = 0x2_0000;
    pub(super) const PROGRAM_SIZE: u64 = 0x4000;
    pub(super) const STACKS: u64 = 0x8_0000;
    pub(super) const STACK_SIZE: u64 = 0x1000;
}

/// A guest under construction: one program a vCPU.
#[derive(Clone, Debug, Default)]
pub struct BareGuest {
    programs: Vec<Program>,
    handlers: Vec<(u8, Program)>,
    startup: Option<Program>,
    unprotected: bool,
    waiting: u32,
}

impl BareGuest {
    /// A guest whose boot processor runs `program`.
    #[must_use]
    pub fn new(program: &Program) -> Self {
        Self::default().vcpu(program)
    }

    /// Adds a processor that runs `program` from the start.
    #[must_use]
    pub fn vcpu(mut self, program: &Program) -> Self {
        self.programs.push(program.clone());
        self
    }

    /// Adds a processor that waits to be started at [`layout::STARTUP_PAGE`], in real mode.
    #[must_use]
    pub fn startup(mut self, program: &Program) -> Self {
        self.startup = Some(program.clone());
        self.waiting += 1;
        self
    }

    /// Handles the interrupt `vector` (32 and up) with `handler`.
    #[must_use]
    pub fn handler(mut self, vector: u8, handler: &Program) -> Self {
        self.handlers.push((vector, handler.clone()));
        self
    }

    /// Leaves the interrupt table empty, so that any exception becomes a triple fault. Otherwise an
    /// exception is written to [`super::port::EXCEPTION`] and ends the guest.
    #[must_use]
    pub const fn without_handlers(mut self) -> Self {
        self.unprotected = true;
        self
    }

    /// Makes the VM; nothing runs yet.
    ///
    /// # Errors
    /// The hypervisor refused, or a program is too long.
    pub fn build(&self, hypervisor: &dyn Hypervisor) -> std::result::Result<Machine, Failure> {
        let ram = GuestRam::new(&[RamRange {
            start: 0,
            size: layout::RAM,
        }])
        .map_err(|error| Failure::Broken(error.to_string()))?;
        self.fill(&ram)?;
        self.build_on(hypervisor, ram)
    }

    /// Makes the VM over RAM that such a guest has filled and used before.
    ///
    /// # Errors
    /// The hypervisor refused.
    pub fn build_on(
        &self,
        hypervisor: &dyn Hypervisor,
        ram: GuestRam,
    ) -> std::result::Result<Machine, Failure> {
        let running = u32::try_from(self.programs.len()).unwrap_or(u32::MAX);
        let vcpus = running.saturating_add(self.waiting);
        let draft = hypervisor.prepare(&VmSpec { vcpus })?;
        let limits = *draft.limits();
        let parts = draft.finish(&ram, &IrqPlan::X86_64)?;
        Ok(Machine {
            ram,
            limits,
            partition: parts.partition,
            seeds: parts.vcpus,
            running,
            idt_limit: if self.unprotected { 0 } else { 0xfff },
        })
    }

    /// Builds the guest, sets its processors up and lets them run.
    ///
    /// # Errors
    /// As [`BareGuest::build`]; a processor could not be set up.
    pub fn start(
        &self,
        hypervisor: &dyn Hypervisor,
        probe: &Arc<Probe>,
    ) -> std::result::Result<Running, Failure> {
        let running = self.build(hypervisor)?.start(probe)?;
        running.set.resume();
        Ok(running)
    }

    fn fill(&self, ram: &GuestRam) -> std::result::Result<(), Failure> {
        page_tables(ram)?;
        for (place, descriptor) in (layout::GDT..).step_by(8).zip(GDT) {
            put(ram, place, &descriptor.to_le_bytes())?;
        }
        self.interrupt_table(ram)?;
        let places = (layout::PROGRAMS..).step_by(layout_step(layout::PROGRAM_SIZE));
        for (place, program) in places.zip(&self.programs) {
            put_program(ram, place, program)?;
        }
        if let Some(startup) = &self.startup {
            put_program(ram, u64::from(layout::STARTUP_PAGE) << 12, startup)?;
        }
        Ok(())
    }

    fn interrupt_table(&self, ram: &GuestRam) -> std::result::Result<(), Failure> {
        if self.unprotected {
            return Ok(());
        }
        for vector in 0..32 {
            let place = layout::EXCEPTIONS + u64::from(vector) * 64;
            put_program(ram, place, &report(vector))?;
            put_gate(ram, vector, place)?;
        }
        let places = (layout::HANDLERS..).step_by(1024);
        for (place, (vector, handler)) in places.zip(&self.handlers) {
            put_program(ram, place, handler)?;
            put_gate(ram, *vector, place)?;
        }
        Ok(())
    }
}

fn layout_step(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The handler of an exception: tell the vector, end the guest.
fn report(vector: u8) -> Program {
    let mut program = Program::new();
    program
        .out(super::port::EXCEPTION, Width::W1, vector.into())
        .out(super::port::DONE, Width::W1, super::port::POWER_OFF)
        .spin();
    program
}

fn put(ram: &GuestRam, address: u64, bytes: &[u8]) -> std::result::Result<(), Failure> {
    ram.write_slice(bytes, GuestAddress(address))
        .map_err(|error| Failure::Broken(format!("the guest's layout: {error}")))
}

fn put_program(ram: &GuestRam, place: u64, program: &Program) -> std::result::Result<(), Failure> {
    if program.code().len() as u64 > layout::PROGRAM_SIZE {
        return Err(Failure::Broken("a guest program is too long".to_owned()));
    }
    put(ram, place, program.code())
}

/// Null, 64-bit code (0x08), data (0x10); their accessed bits are set, so that the processor does not
/// write to them.
const GDT: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
const CODE: u16 = 0x08;
const DATA: u16 = 0x10;

/// An interrupt gate (APM volume 2, section 4.8.4).
fn put_gate(ram: &GuestRam, vector: u8, handler: u64) -> std::result::Result<(), Failure> {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e00;
    let low = handler & 0xffff | u64::from(CODE) << 16 | PRESENT_INTERRUPT_GATE << 32;
    let gate = low | (handler >> 16 & 0xffff) << 48;
    put(
        ram,
        layout::IDT + u64::from(vector) * 16,
        &gate.to_le_bytes(),
    )
}

/// 4 GiB one to one in pages of 2 MiB. Accessed and dirty bits are set, so that the processor writes to
/// none of the tables: the dirty log has to show the program's writes only.
fn page_tables(ram: &GuestRam) -> std::result::Result<(), Failure> {
    const TABLE: u64 = 0x23; // present, writable, accessed
    const LEAF: u64 = 0xe3; // ..., dirty, 2 MiB
    put(ram, layout::PML4, &(layout::PDPT | TABLE).to_le_bytes())?;
    for gib in 0..4 {
        let directory = layout::DIRECTORIES + gib * 0x1000;
        put(
            ram,
            layout::PDPT + gib * 8,
            &(directory | TABLE).to_le_bytes(),
        )?;
        let entries = (0..512).map(|i| gib << 30 | i << 21 | LEAF);
        let bytes: Vec<u8> = entries.flat_map(u64::to_le_bytes).collect();
        put(ram, directory, &bytes)?;
    }
    Ok(())
}

/// A built guest.
pub struct Machine {
    /// Its RAM.
    pub ram: GuestRam,
    /// The bounds that it was built within.
    pub limits: Limits,
    /// Its VM.
    pub partition: Arc<dyn Partition>,
    /// Its processors.
    pub seeds: Vec<Box<dyn VcpuSeed>>,
    running: u32,
    idt_limit: u16,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

impl Machine {
    /// Puts the processors on threads, with their programs' first instruction next, paused. What the guest
    /// writes to [`super::port::DONE`] ends it.
    ///
    /// # Errors
    /// The hypervisor refused.
    pub fn start(self, probe: &Arc<Probe>) -> std::result::Result<Running, Failure> {
        let running = self.start_blank(probe)?;
        let (count, idt_limit) = (running.programs, running.idt_limit);
        for index in 0..count {
            let set_up = move |vcpu: &mut dyn Vcpu| set_up(vcpu, index, idt_limit);
            running
                .set
                .with(usize::try_from(index).unwrap_or(0), set_up)??;
        }
        Ok(running)
    }

    /// Puts the processors on threads as the hypervisor made them, paused.
    ///
    /// # Errors
    /// The hypervisor refused.
    pub fn start_blank(self, probe: &Arc<Probe>) -> std::result::Result<Running, Failure> {
        let io = Arc::clone(probe) as Arc<dyn VmIo>;
        let set = VcpuSet::start(self.seeds, &io)?;
        let handle = set.stop_handle();
        probe.on_done(move |stop| handle.stop(stop));
        Ok(Running {
            set,
            ram: self.ram,
            partition: self.partition,
            programs: self.running,
            idt_limit: self.idt_limit,
        })
    }

    /// A handle on the boot processor that kicks it.
    ///
    /// # Errors
    /// It was bound already.
    pub fn kick(&self) -> std::result::Result<Arc<dyn Kick>, Failure> {
        let first = self.seeds.first().map(|seed| seed.kick());
        first.ok_or_else(|| Failure::Broken("the VM has no vCPU".to_owned()))
    }

    /// The boot processor on the calling thread, with its program's first instruction next.
    ///
    /// # Errors
    /// The hypervisor refused.
    pub fn bind_first(&mut self) -> std::result::Result<Box<dyn Vcpu>, Failure> {
        if self.seeds.is_empty() {
            return Err(Failure::Broken("the VM has no vCPU".to_owned()));
        }
        let mut vcpu = self.seeds.remove(0).bind()?;
        set_up(&mut *vcpu, 0, self.idt_limit)?;
        Ok(vcpu)
    }
}

/// A guest on its threads.
pub struct Running {
    /// Its processors.
    pub set: VcpuSet,
    /// Its RAM.
    pub ram: GuestRam,
    /// Its VM.
    pub partition: Arc<dyn Partition>,
    programs: u32,
    idt_limit: u16,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

impl Running {
    /// Waits for the end and gives everything back.
    #[must_use]
    pub fn wait(self) -> Outcome {
        let outcome = self.set.wait();
        drop(self.set);
        outcome
    }
}

/// Sets a processor up to execute its program. The boot processor needs registers only; the others are
/// taken out of their wait for a start-up IPI by loading a state.
fn set_up(vcpu: &mut dyn Vcpu, index: u32, idt_limit: u16) -> Result<()> {
    if index == 0 {
        let Registers::X86_64(mut registers) = vcpu.registers()?;
        long_mode(&mut registers, index, idt_limit);
        return vcpu.set_registers(&Registers::X86_64(registers));
    }
    let VcpuState::X86_64(mut state) = vcpu.save()?;
    state.mp_state = MpState::Running;
    long_mode(&mut state.registers, index, idt_limit);
    vcpu.load(&VcpuState::X86_64(state))
}

fn long_mode(registers: &mut x86_64::Registers, index: u32, idt_limit: u16) {
    const PROTECTED_PAGED: u64 = 0x8000_0033; // PE, MP, ET, NE, PG
    const PAE_AND_SSE: u64 = 0x620;
    const LONG_MODE: u64 = 0x500; // LME, LMA
    const X2APIC: u64 = 0xc00; // global enable, extended
    let index = u64::from(index);
    let general = &mut registers.general;
    general.rip = layout::PROGRAMS + index * layout::PROGRAM_SIZE;
    general.rsp = layout::STACKS - index * layout::STACK_SIZE;
    general.rflags = 2;
    let system = &mut registers.system;
    (system.cr0, system.cr4, system.efer) = (PROTECTED_PAGED, PAE_AND_SSE, LONG_MODE);
    system.cr3 = layout::PML4;
    system.apic_base |= X2APIC;
    system.gdt = table(layout::GDT, 8 * 3 - 1);
    system.idt = table(layout::IDT, idt_limit);
    system.cs = Segment {
        kind: 0xb,
        long: true,
        default_big: false,
        ..flat(CODE)
    };
    for segment in [
        &mut system.ds,
        &mut system.es,
        &mut system.fs,
        &mut system.gs,
        &mut system.ss,
    ] {
        *segment = flat(DATA);
    }
}

const fn table(base: u64, limit: u16) -> DescriptorTable {
    DescriptorTable { base, limit }
}

/// A writable data segment over everything.
const fn flat(selector: u16) -> Segment {
    Segment {
        base: 0,
        limit: u32::MAX,
        selector,
        kind: 3,
        code_or_data: true,
        dpl: 0,
        present: true,
        available: false,
        long: false,
        default_big: true,
        granularity: true,
        unusable: false,
    }
}

impl From<HvError> for Failure {
    fn from(error: HvError) -> Self {
        Self::Broken(error.to_string())
    }
}

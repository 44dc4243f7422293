//! The machine, from RAM to the end of the guest.

use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};
use devices::bus::BusBuilder;
use devices::console::ConsoleSink;
use devices::legacy::{PowerControl, PowerSwitch, Serial};
use devices::virtio::IrqLine;
use hv_core::arch::x86_64::Segment;
use hv_core::{
    DoorbellSpace, GuestRam, Hypervisor as _, IrqPlan, Outcome, Parts, RamRange, Registers, Stop,
    StopHandle, VcpuSet, VmIo, VmSpec,
};
use vm_memory::{Bytes as _, GuestAddress};

/// Where the guest's code is and begins.
const ENTRY: u64 = 0x1000;
/// What the guest prints; it follows the code.
const TEXT: &[u8] = b"hello from a bare guest\n\0";
/// Real-mode code: sends the text to the serial port, then powers off.
const CODE: &[u8] = &[
    0xbe, 0x15, 0x10, // mov si, TEXT
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xac, // next: lodsb
    0x84, 0xc0, // test al, al
    0x74, 0x03, // jz off
    0xee, // out dx, al
    0xeb, 0xf8, // jmp next
    0xba, 0x00, 0x06, // off: mov dx, 0x600
    0xb0, 0x34, // mov al, 0x34: sleep type 5, enable
    0xee, // out dx, al
    0xf4, // hlt
];

const SERIAL_PORT: u64 = 0x3f8;
const SERIAL_LINE: u32 = 4;
const POWER_PORT: u64 = 0x600;

/// Builds the machine and runs its guest to the end.
pub(crate) fn run() -> Result<Outcome> {
    let hypervisor = hv_kvm::KvmHypervisor::new()?;
    let ram = GuestRam::new(&[RamRange {
        start: 0,
        size: 1 << 20,
    }])?;
    ram.write_slice(&[CODE, TEXT].concat(), GuestAddress(ENTRY))
        .context("load the guest")?;

    let draft = hypervisor.prepare(&VmSpec { vcpus: 1 })?;
    let Parts { partition, vcpus } = draft.finish(&ram, &IrqPlan::X86_64)?;

    let power = Arc::new(Power::default());
    let mut bus = BusBuilder::new();
    let serial = Serial::new(
        IrqLine::Pulse {
            partition,
            line: SERIAL_LINE,
        },
        Box::new(Stdout),
    );
    bus.insert(
        DoorbellSpace::Pio,
        SERIAL_PORT,
        Serial::LEN,
        Arc::new(serial),
    )?;
    let control = PowerControl::new(Arc::clone(&power) as Arc<dyn PowerSwitch>);
    bus.insert(
        DoorbellSpace::Pio,
        POWER_PORT,
        PowerControl::LEN,
        Arc::new(control),
    )?;
    let io: Arc<dyn VmIo> = Arc::new(bus.build());

    let vcpus = VcpuSet::start(vcpus, &io)?;
    power.0.get_or_init(|| vcpus.stop_handle());
    vcpus.with(0, |vcpu| {
        let Registers::X86_64(mut registers) = vcpu.registers()? else {
            return Ok(());
        };
        registers.system.cs = Segment {
            base: 0,
            selector: 0,
            ..registers.system.cs
        };
        registers.general.rip = ENTRY;
        vcpu.set_registers(&Registers::X86_64(registers))
    })??;
    vcpus.resume();
    Ok(vcpus.wait())
}

/// The guest's power button, connected once the vCPUs are there.
#[derive(Default)]
struct Power(OnceLock<StopHandle>);

impl PowerSwitch for Power {
    fn power_off(&self) {
        self.0.get().inspect(|vcpus| vcpus.stop(Stop::PowerOff));
    }

    fn reset(&self) {
        self.0.get().inspect(|vcpus| vcpus.stop(Stop::Reset));
    }
}

struct Stdout;

impl ConsoleSink for Stdout {
    fn write(&mut self, bytes: &[u8]) {
        // An example's output that nobody reads is no loss.
        let _ = std::io::stdout().write_all(bytes);
    }
}

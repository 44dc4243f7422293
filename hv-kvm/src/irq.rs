//! The in-kernel interrupt controller: local APICs, one I/O APIC, message-signalled interrupts.

use std::sync::Arc;

use hv_core::{Attached, Event, EventIrqs, HvError, IrqChip, IrqLayout, IrqPlan, Msi, Result};
use kvm_bindings::{KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_irqchip, kvm_msi};
use kvm_ioctls::VmFd;

use crate::failed;
use crate::vm::{KvmPartition, Vm};

const LAPIC: u64 = 0xfee0_0000;
const LAPIC_END: u64 = 0xfef0_0000;
const IOAPIC: u64 = 0xfec0_0000;
/// Pins of KVM's I/O APIC.
const LINES: u32 = 24;

/// Makes the controller; before the first vCPU.
pub(crate) fn create(vm: &VmFd, plan: &IrqPlan) -> Result<()> {
    let IrqPlan::X86_64 = plan else {
        return Err(HvError::invalid("interrupt plan of another architecture"));
    };
    vm.create_irq_chip().map_err(failed("KVM_CREATE_IRQCHIP"))?;
    mask_8259(vm, KVM_IRQCHIP_PIC_MASTER)?;
    mask_8259(vm, KVM_IRQCHIP_PIC_SLAVE)
}

/// KVM makes two 8259s as well and leads each line to its pin of the I/O APIC and to them. No guest of ours sets them up,
/// so they must never pass an interrupt on. (Other routes would do too, but to set them takes milliseconds.)
fn mask_8259(vm: &VmFd, chip_id: u32) -> Result<()> {
    let mut chip = kvm_irqchip {
        chip_id,
        ..kvm_irqchip::default()
    };
    vm.get_irqchip(&mut chip)
        .map_err(failed("KVM_GET_IRQCHIP"))?;
    chip.chip.pic.imr = 0xff;
    vm.set_irqchip(&chip).map_err(failed("KVM_SET_IRQCHIP"))
}

fn check_line(line: u32) -> Result<u32> {
    if line < LINES {
        Ok(line)
    } else {
        Err(HvError::invalid("interrupt line that does not exist"))
    }
}

fn to_kvm(msi: Msi) -> Result<kvm_msi> {
    if !(LAPIC..LAPIC_END).contains(&msi.address) {
        return Err(HvError::invalid(
            "MSI to an address without interrupt controller",
        ));
    }
    let [a, b, c, d, ..] = msi.address.to_le_bytes();
    Ok(kvm_msi {
        address_lo: u32::from_le_bytes([a, b, c, d]),
        data: msi.data,
        ..kvm_msi::default()
    })
}

impl IrqChip for KvmPartition {
    fn set_line(&self, line: u32, high: bool) -> Result<()> {
        self.0
            .fd
            .set_irq_line(check_line(line)?, high)
            .map_err(failed("KVM_IRQ_LINE"))
    }

    fn msi(&self, msi: Msi) -> Result<()> {
        match self.0.fd.signal_msi(to_kvm(msi)?) {
            Ok(_) => Ok(()),
            // KVM's -1 for "no such processor" reads as EPERM; hardware drops such a message too.
            Err(error) if error.errno() == libc::EPERM => Ok(()),
            Err(error) => Err(failed("KVM_SIGNAL_MSI")(error)),
        }
    }

    fn layout(&self) -> IrqLayout {
        IrqLayout::X86_64 {
            lapic: LAPIC,
            ioapic: IOAPIC,
            lines: LINES,
        }
    }
}

impl EventIrqs for KvmPartition {
    fn attach(&self, line: u32, event: &Event) -> Result<Box<dyn Attached>> {
        let line = check_line(line)?;
        self.0
            .fd
            .register_irqfd(event.eventfd(), line)
            .map_err(failed("KVM_IRQFD"))?;
        Ok(Box::new(IrqEvent {
            vm: Arc::clone(&self.0),
            event: event.clone(),
            line,
        }))
    }
}

/// An irqfd; it holds the event, because KVM does not keep the descriptor's number from being used
/// again.
struct IrqEvent {
    vm: Arc<Vm>,
    event: Event,
    line: u32,
}

impl Attached for IrqEvent {}

impl Drop for IrqEvent {
    fn drop(&mut self) {
        // It fails only when it is not registered, and then there is nothing to end.
        let _ = self.vm.fd.unregister_irqfd(self.event.eventfd(), self.line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_apic_addresses_take_messages() {
        for (address, good) in [
            (0xfee0_0000, true),
            (0xfeef_f000, true),
            (0xfef0_0000, false),
            (0xfedf_ffff, false),
            (0x1_fee0_0000, false),
        ] {
            assert_eq!(
                to_kvm(Msi { address, data: 0 }).is_ok(),
                good,
                "{address:#x}"
            );
        }
        let msi = to_kvm(Msi {
            address: 0xfee0_1000,
            data: 0x41,
        })
        .unwrap();
        assert_eq!(
            (msi.address_lo, msi.address_hi, msi.data),
            (0xfee0_1000, 0, 0x41)
        );
    }
}

//! What the fake does beyond the contract: failures on demand, and a record of interrupts.

#![cfg(all(feature = "fake", feature = "conformance"))]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::Arc;

use hv_core::arch::x86_64::asm::Program;
use hv_core::conformance::{BareGuest, layout};
use hv_core::fake::{Call, FakeHypervisor, FakeOptions, Interrupt};
use hv_core::{
    Access, DoorbellSpace, Event, GuestRam, HostMemory, HvErrorKind, Hypervisor, IrqPlan, Mapping,
    Msi, Partition, RamRange, Result, VmSpec,
};

fn partition(fake: &FakeHypervisor) -> Arc<dyn Partition> {
    let mut program = Program::new();
    program.halt();
    BareGuest::new(&program).build(fake).unwrap().partition
}

fn memory() -> Arc<HostMemory> {
    Arc::new(HostMemory::new(0x8000).unwrap())
}

fn map(partition: &dyn Partition, address: u64) -> Result<Box<dyn Mapping>> {
    partition.memory().map(address, memory(), Access::ReadWrite)
}

#[test]
fn the_chosen_call_fails_and_no_other() {
    let fake = FakeHypervisor::default();
    let vm = partition(&fake);
    let event = Event::new().unwrap();
    let calls: [(Call, &dyn Fn() -> bool); 8] = [
        (Call::Prepare, &|| {
            fake.prepare(&VmSpec { vcpus: 1 }).is_ok()
        }),
        (Call::Map, &|| map(&*vm, layout::WINDOW).is_ok()),
        (Call::Protect, &|| {
            let mapping = map(&*vm, layout::WINDOW).unwrap();
            mapping.protect(Access::ReadOnly).is_ok()
        }),
        (Call::SetLine, &|| vm.irq().set_line(3, true).is_ok()),
        (Call::Msi, &|| {
            let msi = Msi {
                address: 0xfee0_0000,
                data: 0x41,
            };
            vm.irq().msi(msi).is_ok()
        }),
        (Call::AttachDoorbell, &|| {
            let bells = vm.doorbells().unwrap();
            bells
                .attach(DoorbellSpace::Pio, 0x500, 2, None, &event)
                .is_ok()
        }),
        (Call::AttachEventIrq, &|| {
            vm.event_irqs().unwrap().attach(3, &event).is_ok()
        }),
        (Call::Save, &|| vm.save().is_ok()),
    ];
    for (call, works) in calls {
        fake.fail(call, 2);
        assert_eq!([works(), works(), works()], [true, false, true], "{call:?}");
    }
}

#[test]
fn interrupts_are_recorded_in_their_order() {
    let fake = FakeHypervisor::default();
    let vm = partition(&fake);
    let msi = Msi {
        address: 0xfee0_0000,
        data: 0x41,
    };
    vm.irq().pulse(4).unwrap();
    vm.irq().msi(msi).unwrap();
    assert!(vm.irq().set_line(24, true).is_err());
    let line = |high| Interrupt::Line { line: 4, high };
    assert_eq!(
        fake.interrupts(),
        [line(true), line(false), Interrupt::Msi(msi)]
    );
}

#[test]
fn mappings_run_out() {
    let vm = partition(&FakeHypervisor::default());
    let mut kept = Vec::new();
    let full = (0..).find_map(|index| match map(&*vm, layout::WINDOW + index * 0x1_0000) {
        Ok(mapping) => {
            kept.push(mapping);
            None
        }
        Err(error) => Some(error.kind),
    });
    // One mapping is RAM.
    assert_eq!((full, kept.len()), (Some(HvErrorKind::Exhausted), 31));
}

#[test]
fn ram_has_to_fit_the_granule() {
    let fake = FakeHypervisor::new(FakeOptions {
        granule: 16384,
        ..FakeOptions::default()
    });
    for (size, fits) in [(0x4000, true), (0x5000, false)] {
        let ram = GuestRam::new(&[RamRange { start: 0, size }]).unwrap();
        let draft = fake.prepare(&VmSpec { vcpus: 1 }).unwrap();
        assert_eq!(draft.limits().granule, 16384);
        assert_eq!(
            draft.finish(&ram, &IrqPlan::X86_64).is_ok(),
            fits,
            "{size:#x}"
        );
    }
}

#[test]
fn facets_can_be_left_out() {
    let vm = partition(&FakeHypervisor::new(FakeOptions {
        doorbells: false,
        event_irqs: false,
        dirty_log: false,
        ..FakeOptions::default()
    }));
    assert!(vm.doorbells().is_none() && vm.event_irqs().is_none() && vm.dirty().is_none());
}

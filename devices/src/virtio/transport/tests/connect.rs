//! A device's connection to a VM that has all facets, or none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use hv_core::{
    Attached, DirtyLog, DoorbellSpace, Doorbells, Event, EventIrqs, GuestMap, GuestRam, HvError,
    HvErrorKind, IrqChip, IrqLayout, Msi, Partition, PartitionState, RamRange, Result, VmIo as _,
};

use super::super::{ConnectError, MmioTransport, WINDOW_SIZE, connect};
use crate::bus::BusBuilder;
use crate::rng::{EntropySource, Rng};
use crate::virtio::{Interrupt, IrqLine, Model, RunEnv, StartError, VirtioDevice, Worker};

const BASE: u64 = 0xd000_0000;

/// Address, width, value, event.
type Bell = (u64, u8, Option<u64>, Event);

#[derive(Default)]
struct Wires {
    edges: Mutex<Vec<u32>>,
    bells: Mutex<Vec<Bell>>,
    high: AtomicBool,
}

/// A VM that only remembers; with or without doorbells.
#[derive(Clone, Default)]
struct Vm {
    wires: Arc<Wires>,
    facets: bool,
}

struct Guard;
impl Attached for Guard {}

impl IrqChip for Vm {
    fn set_line(&self, line: u32, high: bool) -> Result<()> {
        if line >= 24 {
            return Err(HvError::invalid("set a line"));
        }
        // A line that is high already has no edge.
        if high && !self.wires.high.swap(true, Ordering::SeqCst) {
            self.wires.edges.lock().unwrap().push(line);
        }
        std::thread::yield_now();
        if !high {
            self.wires.high.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    fn msi(&self, _: Msi) -> Result<()> {
        Ok(())
    }

    fn layout(&self) -> IrqLayout {
        IrqLayout::X86_64 {
            lapic: 0,
            ioapic: 0,
            lines: 24,
        }
    }
}

impl Doorbells for Vm {
    fn attach(
        &self,
        _: DoorbellSpace,
        address: u64,
        width: u8,
        value: Option<u64>,
        event: &Event,
    ) -> Result<Box<dyn Attached>> {
        let bell = (address, width, value, event.clone());
        self.wires.bells.lock().unwrap().push(bell);
        Ok(Box::new(Guard))
    }
}

impl Partition for Vm {
    fn memory(&self) -> &dyn GuestMap {
        unreachable!("a device maps nothing")
    }

    fn irq(&self) -> &dyn IrqChip {
        self
    }

    fn doorbells(&self) -> Option<&dyn Doorbells> {
        self.facets.then_some(self)
    }

    fn event_irqs(&self) -> Option<&dyn EventIrqs> {
        None
    }

    fn dirty(&self) -> Option<&dyn DirtyLog> {
        None
    }

    fn save(&self) -> Result<PartitionState> {
        Err(HvError::new("save", HvErrorKind::Unsupported))
    }

    fn load(&self, _: &PartitionState) -> Result<()> {
        Ok(())
    }
}

struct Zeros;
impl EntropySource for Zeros {
    fn fill(&mut self, data: &mut [u8]) -> std::io::Result<()> {
        data.fill(0);
        Ok(())
    }
}

fn ram() -> GuestRam {
    GuestRam::new(&[RamRange {
        start: 0,
        size: 1 << 20,
    }])
    .unwrap()
}

/// Connects a device and makes it interrupt by a queue that cannot be.
fn interrupting(vm: &Vm) -> super::super::VirtioMmio {
    let partition: Arc<dyn Partition> = Arc::new(vm.clone());
    let mut builder = BusBuilder::new();
    let device = Box::new(Rng::new(Zeros));
    let connected = connect(device, &partition, &ram(), &mut builder, BASE, 5).unwrap();
    let bus = builder.build();
    let write = |offset, value: u32| bus.mmio_write(BASE + offset, &value.to_le_bytes());
    let mut magic = [0; 4];
    bus.mmio_read(BASE, &mut magic);
    assert_eq!(&magic, b"virt");
    // VERSION_1, a queue of 3 descriptors, DRIVER_OK.
    for (offset, value) in [(0x24, 1), (0x20, 1), (0x38, 3), (0x44, 1)] {
        write(offset, value);
    }
    for status in [1, 3, 11, 15] {
        write(0x70, status);
    }
    assert!(connected.failure().is_some());
    connected
}

#[test]
fn without_facets_the_bus_rings_and_the_line_is_pulsed() {
    let vm = Vm::default();
    let connected = interrupting(&vm);
    assert_eq!(*vm.wires.edges.lock().unwrap(), [5]);
    assert!(!connected.doorbells()[0].take());
}

#[test]
fn with_doorbells_the_hypervisor_rings() {
    let vm = Vm {
        facets: true,
        ..Vm::default()
    };
    let connected = interrupting(&vm);
    assert_eq!(*vm.wires.edges.lock().unwrap(), [5]);
    let bells = vm.wires.bells.lock().unwrap();
    let (address, width, value, event) = &bells[0];
    assert_eq!((*address, *width, *value), (BASE + 0x50, 4, Some(0)));
    event.signal();
    assert!(connected.doorbells()[0].take());
}

#[test]
fn edges_of_several_threads_do_not_become_one() {
    const EACH: usize = 500;
    let vm = Vm::default();
    let partition: Arc<dyn Partition> = Arc::new(vm.clone());
    let interrupt = Interrupt::new(IrqLine::Pulse { partition, line: 5 });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..EACH).for_each(|_| interrupt.used_buffer()));
        }
    });
    assert_eq!(vm.wires.edges.lock().unwrap().len(), 4 * EACH);
}

#[test]
fn a_notification_signals_the_doorbell_by_table_and_by_register() {
    let partition: Arc<dyn Partition> = Arc::new(Vm::default());
    let mut builder = BusBuilder::new();
    let device = Box::new(Rng::new(Zeros));
    let connected = connect(device, &partition, &ram(), &mut builder, BASE, 5).unwrap();
    let bus = builder.build();
    bus.mmio_write(BASE + MmioTransport::NOTIFY_OFFSET, &[0; 4]);
    assert!(connected.doorbells()[0].take());
    bus.mmio_write(BASE + MmioTransport::NOTIFY_OFFSET, &[1, 0, 0, 0]);
    assert!(!connected.doorbells()[0].take(), "there is no queue 1");
    crate::bus::BusDevice::write(&*connected, MmioTransport::NOTIFY_OFFSET, &[0; 4]);
    assert!(connected.doorbells()[0].take());
}

#[test]
fn what_does_not_fit_is_refused() {
    let partition: Arc<dyn Partition> = Arc::new(Vm {
        facets: true,
        ..Vm::default()
    });
    let mut builder = BusBuilder::new();
    let mut try_connect = |base, line| {
        let device = Box::new(Rng::new(Zeros));
        connect(device, &partition, &ram(), &mut builder, base, line).map(drop)
    };
    assert!(try_connect(BASE, 1).is_ok());
    let overlap = try_connect(BASE + WINDOW_SIZE - 1, 2);
    assert!(matches!(overlap, Err(ConnectError::Bus(_))));
    let line = try_connect(BASE + WINDOW_SIZE, 24);
    assert!(matches!(line, Err(ConnectError::Hypervisor(_))));
}

/// A device that says it has one queue of this size.
struct Sized(u16);

impl VirtioDevice for Sized {
    fn model(&self) -> Model {
        Model {
            id: 1,
            features: 0,
            queue_sizes: vec![self.0],
            config_len: 0,
        }
    }

    fn read_config(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn start(&mut self, _: RunEnv) -> std::result::Result<Box<dyn Worker>, StartError> {
        Err(StartError::Running)
    }
}

#[test]
fn queue_sizes_that_cannot_be_are_refused() {
    let partition: Arc<dyn Partition> = Arc::new(Vm::default());
    for (size, possible) in [
        (0, false),
        (1, true),
        (3, false),
        (32768, true),
        (65535, false),
    ] {
        let mut builder = BusBuilder::new();
        let device = Box::new(Sized(size));
        let result = connect(device, &partition, &ram(), &mut builder, BASE, 1);
        assert_eq!(result.is_ok(), possible, "{size}");
    }
}

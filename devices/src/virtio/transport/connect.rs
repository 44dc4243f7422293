//! Ties a virtio device to a VM: registers on the bus, doorbells, interrupt line.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use hv_core::{Attached, DoorbellSpace, GuestRam, HvError, Partition};

use super::mmio::{MmioTransport, WINDOW_SIZE};
use crate::bus::{BusBuilder, BusError};
use crate::virtio::{IrqLine, QueueState, VirtioDevice};

/// Why a device cannot be connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A queue of the model has a size that no split queue can have (caller).
    #[error("the device offers a queue of {0} descriptors, which is no power of two up to 32768")]
    QueueSize(u16),
    /// Its window does not fit the bus (caller).
    #[error("the device's registers do not fit the bus")]
    Bus(#[from] BusError),
    /// The hypervisor refused a doorbell or the interrupt line.
    #[error("the hypervisor refused a doorbell or an interrupt line")]
    Hypervisor(#[from] HvError),
    /// The host has no descriptor left.
    #[error("the host has no descriptor left for the device")]
    Host(#[from] std::io::Error),
}

/// A device that is connected to a VM. Dereferences to its transport; dropping it takes the doorbells back.
pub struct VirtioMmio {
    transport: Arc<MmioTransport>,
    _attached: Vec<Box<dyn Attached>>,
}

impl Deref for VirtioMmio {
    type Target = MmioTransport;

    fn deref(&self) -> &MmioTransport {
        &self.transport
    }
}

impl fmt::Debug for VirtioMmio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.transport.fmt(f)
    }
}

/// Connects `device`: [`WINDOW_SIZE`] bytes of registers at `base`, interrupts on `line`.
///
/// Where the hypervisor has no doorbells, the bus does the same.
///
/// # Errors
/// The model or the window is impossible (caller), the hypervisor refused, or the host is out of
/// descriptors.
pub fn connect(
    device: Box<dyn VirtioDevice>,
    partition: &Arc<dyn Partition>,
    ram: &GuestRam,
    bus: &mut BusBuilder,
    base: u64,
    line: u32,
) -> Result<VirtioMmio, ConnectError> {
    let sizes = device.model().queue_sizes;
    if let Some(size) = sizes
        .into_iter()
        .find(|size| !QueueState::valid_size(*size))
    {
        return Err(ConnectError::QueueSize(size));
    }
    let mut attached = Vec::new();
    let line = irq_line(partition, line)?;
    let transport = Arc::new(MmioTransport::new(device, ram, line)?);
    let window: Arc<MmioTransport> = Arc::clone(&transport);
    bus.insert(DoorbellSpace::Mmio, base, WINDOW_SIZE, window)?;
    let address = base + MmioTransport::NOTIFY_OFFSET;
    for (index, event) in (0..).zip(transport.doorbells()) {
        let value = Some(index);
        bus.doorbell(DoorbellSpace::Mmio, address, 4, value, event);
        if let Some(doorbells) = partition.doorbells() {
            attached.push(doorbells.attach(DoorbellSpace::Mmio, address, 4, value, event)?);
        }
    }
    Ok(VirtioMmio {
        transport,
        _attached: attached,
    })
}

/// Interrupts by the controller, and not by an event: KVM hands an event for a line of an I/O APIC to a kernel thread first, which is
/// one more change of threads an interrupt (6 % of a small request's whole way, `docs/results`).
fn irq_line(partition: &Arc<dyn Partition>, line: u32) -> Result<IrqLine, ConnectError> {
    // Whether there is such a line; low is what it is.
    partition.irq().set_line(line, false)?;
    Ok(IrqLine::Pulse {
        partition: Arc::clone(partition),
        line,
    })
}

//! The machine's devices, and where they sit.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use devices::block::{Block, DiskAccess, FileDisk};
use devices::bus::{Bus, BusBuilder, BusDevice, BusError};
use devices::console::ConsolePort;
use devices::fs::{Fs, MAX_REQUEST_QUEUES};
use devices::legacy::{PowerControl, PowerSwitch, ResetLine, Rtc, Serial};
use devices::net::Net;
use devices::rng::{OsEntropy, Rng};
use devices::virtio::transport::connect;
use devices::virtio::{IrqLine, VirtioDevice, VirtioMmio};
use devices::vsock::{Arranged, Vsock, unix_stream};
use hv_core::{DoorbellSpace, Fault, GuestRam, IrqLayout, Partition};
use netproxy::gateway::Network;

use super::chain;
use super::console::Console;
use super::files::Files;
use super::network::Wire;
use super::power::Power;
use super::share::{Backend, Places, Policy, Told};
use crate::boot::layout::{KEYBOARD_PORT, RTC_PORT, SERIAL_LINE, SERIAL_PORT, SLEEP_CONTROL_PORT};
use crate::boot::{AnnouncedDevice, DeviceWindows};
use crate::control::StartFailure;
use crate::plan::{Plan, Role};
use crate::protocol;
use crate::worker::Reporter;

/// The guest's address on its sockets; every guest has the host to itself.
const GUEST_CID: u64 = 3;

/// A machine's devices.
#[derive(Debug)]
pub(super) struct Devices {
    /// What the guest's accesses reach.
    pub(super) bus: Arc<Bus>,
    /// What the kernel is told of.
    pub(super) announced: Vec<AnnouncedDevice>,
    connected: Vec<VirtioMmio>,
}

impl Devices {
    /// Makes the devices of `plan`.
    pub(super) fn build(
        plan: &Plan,
        files: &mut Files,
        partition: &Arc<dyn Partition>,
        ram: &GuestRam,
        power: &Arc<Power>,
        reporter: &Arc<Reporter>,
    ) -> Result<Self, StartFailure> {
        let console = Console::new(files.take(Role::Console)?, reporter).map_err(host)?;
        let mut machine = Assembly::new(partition, ram, reporter)?;
        machine.legacy(power, plan.serial.then_some(&console))?;
        let port = ConsolePort::console(console.sink().map_err(host)?);
        machine.add(
            "console",
            devices::console::Console::new(vec![port]).map_err(host)?,
        )?;
        machine.add("random number generator", Rng::new(OsEntropy))?;
        machine.add("sockets", sockets(files)?)?;
        if let Some(root) = files.take_optional(Role::Root) {
            let disk = FileDisk::new(File::from(root), DiskAccess::ReadOnly).map_err(caller)?;
            machine.add("root disk", Block::new(disk, "root"))?;
        }
        if let Some(socket) = files.take_optional(Role::Network) {
            let wire = Wire::new(socket.into()).map_err(host)?;
            let network = Network::default();
            let mac = network.guest_hardware.0;
            machine.add("network", Net::new(mac, network.mtu.get(), Box::new(wire)))?;
        }
        machine.add_shares(plan, files)?;
        let devices = machine.finish();
        console.watch(&devices.bus);
        Ok(devices)
    }

    /// Stops every device, so that what it had in hand is done.
    pub(super) fn stop(&self) {
        for device in &self.connected {
            device.pause();
        }
    }
}

/// Request queues, each with a thread, of a device with shares: Linux has one for each processor, so more would be of no use. Each takes four
/// of the descriptors that the servers leave to the rest of the process ([`fsshare::Limits::RESERVED_DESCRIPTORS`]); there are two such devices.
fn request_queues(vcpus: u32) -> u32 {
    vcpus.clamp(1, MAX_REQUEST_QUEUES)
}

fn sockets(files: &mut Files) -> Result<Vsock, StartFailure> {
    let agent = UnixStream::from(files.take(Role::Agent)?);
    let stream = unix_stream(agent).map_err(host)?;
    let backend = Arranged::new([(protocol::PORT, stream)]);
    Vsock::new(GUEST_CID, Arc::new(backend)).map_err(host)
}

/// Devices that are being put together.
struct Assembly<'a> {
    partition: &'a Arc<dyn Partition>,
    ram: &'a GuestRam,
    bus: BusBuilder,
    windows: DeviceWindows,
    announced: Vec<AnnouncedDevice>,
    connected: Vec<VirtioMmio>,
    reporter: &'a Arc<Reporter>,
}

impl<'a> Assembly<'a> {
    fn new(
        partition: &'a Arc<dyn Partition>,
        ram: &'a GuestRam,
        reporter: &'a Arc<Reporter>,
    ) -> Result<Self, StartFailure> {
        let lines = match partition.irq().layout() {
            IrqLayout::X86_64 { lines, .. } => lines,
            _ => {
                return Err(StartFailure::new(
                    Fault::Host,
                    "this machine has no I/O APIC",
                ));
            }
        };
        Ok(Self {
            partition,
            ram,
            bus: BusBuilder::new(),
            windows: DeviceWindows::new(lines)?,
            announced: Vec::new(),
            connected: Vec::new(),
            reporter,
        })
    }

    fn port(&mut self, base: u16, length: u64, device: Arc<dyn BusDevice>) -> Result<(), BusError> {
        self.bus
            .insert(DoorbellSpace::Pio, u64::from(base), length, device)
    }

    fn legacy(&mut self, power: &Arc<Power>, serial: Option<&Console>) -> Result<(), StartFailure> {
        let switch: Arc<dyn PowerSwitch> = Arc::clone(power) as Arc<dyn PowerSwitch>;
        let control = Arc::new(PowerControl::new(Arc::clone(&switch)));
        self.port(SLEEP_CONTROL_PORT, PowerControl::LEN, control)
            .map_err(host)?;
        let reset = Arc::new(ResetLine::new(switch));
        self.port(KEYBOARD_PORT, ResetLine::LEN, reset)
            .map_err(host)?;
        self.port(RTC_PORT, Rtc::LEN, Arc::new(Rtc::host_time()))
            .map_err(host)?;
        if let Some(console) = serial {
            let sink = console.sink().map_err(host)?;
            let partition = Arc::clone(self.partition);
            let line = IrqLine::Pulse {
                partition,
                line: SERIAL_LINE,
            };
            let uart = Arc::new(Serial::new(line, sink));
            self.port(SERIAL_PORT, Serial::LEN, uart).map_err(host)?;
        }
        Ok(())
    }

    /// Adds the devices on which the shares are.
    fn add_shares(&mut self, plan: &Plan, files: &mut Files) -> Result<(), StartFailure> {
        let rules = plan.rules.rules().map_err(caller)?;
        let policy = Policy {
            rules,
            hard_links: plan.rules.hard_links(),
            quota: plan.rules.quota(),
            servers: plan.shares.len(),
            observer: Arc::new(Told(Arc::clone(self.reporter))),
        };
        for device in &plan.share_devices {
            let mut shares = Vec::new();
            for &number in &device.shares {
                let places = Places {
                    root: files.take(Role::Share(number))?,
                    changes: files.take_optional(Role::Changes(number)),
                    journal: files.take_optional(Role::Journal(number)),
                };
                let share = plan.shares.get(number).ok_or_else(|| {
                    StartFailure::new(Fault::Caller, format!("the plan lacks share {number}"))
                })?;
                shares.push((places, share));
            }
            let backend = Backend::new(shares, &policy).map_err(host)?;
            let queues = request_queues(plan.vcpus);
            let device = Fs::new(&device.tag, queues, Arc::new(backend)).map_err(caller)?;
            self.add("share", device)?;
        }
        Ok(())
    }

    /// Adds a device; `what` is its name in reports.
    fn add(
        &mut self,
        what: &'static str,
        device: impl VirtioDevice + 'static,
    ) -> Result<(), StartFailure> {
        let window = self.windows.allocate()?;
        let device = connect(
            Box::new(device),
            self.partition,
            self.ram,
            &mut self.bus,
            window.address,
            window.line,
        )
        .map_err(host)?;
        let reporter = Arc::clone(self.reporter);
        device.on_failure(move |why| reporter.broken(what, why));
        self.connected.push(device);
        self.announced.push(window);
        Ok(())
    }

    fn finish(self) -> Devices {
        Devices {
            bus: Arc::new(self.bus.build()),
            announced: self.announced,
            connected: self.connected,
        }
    }
}

fn host(error: impl std::error::Error) -> StartFailure {
    StartFailure::new(Fault::Host, chain(&error))
}

fn caller(error: impl std::error::Error) -> StartFailure {
    StartFailure::new(Fault::Caller, chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_a_queue_for_each_processor_within_bounds() {
        for (vcpus, queues) in [(0, 1), (1, 1), (2, 2), (8, 8), (64, 8), (u32::MAX, 8)] {
            assert_eq!(request_queues(vcpus), queues, "{vcpus} processors");
        }
    }
}

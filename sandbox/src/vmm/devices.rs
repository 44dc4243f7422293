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
use super::share::{Places, Policy, Share, Told};
use crate::boot::layout::{KEYBOARD_PORT, RTC_PORT, SERIAL_LINE, SERIAL_PORT, SLEEP_CONTROL_PORT};
use crate::boot::{AnnouncedDevice, DeviceWindows};
use crate::control::StartFailure;
use crate::plan::{Plan, Role};
use crate::protocol;
use crate::worker::Reporter;

/// The guest's address on its sockets; every guest has the host to itself.
const GUEST_CID: u64 = 3;

/// Most threads that serve shares, of all shares together, unless there are more shares. Each takes four of the descriptors that
/// the servers leave to the rest of the process ([`fsshare::Limits::RESERVED_DESCRIPTORS`]).
const MAX_SHARE_THREADS: u32 = 16;

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
        let rules = plan.rules.rules().map_err(caller)?;
        let queues = request_queues(plan.vcpus, plan.shares.len());
        for (number, share) in plan.shares.iter().enumerate() {
            let root = files.take(Role::Share(number))?;
            let policy = Policy {
                rules: rules.clone(),
                hard_links: plan.rules.hard_links(),
                quota: plan.rules.quota(),
            };
            let told = Arc::new(Told(Arc::clone(reporter)));
            let places = Places {
                root,
                changes: files.take_optional(Role::Changes(number)),
                journal: files.take_optional(Role::Journal(number)),
            };
            let backend = Share::new(places, share, policy, plan.shares.len(), told);
            let backend = backend.map_err(host)?;
            machine.add(
                "share",
                Fs::new(&share.tag, queues, Arc::new(backend)).map_err(caller)?,
            )?;
        }
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

/// Request queues, each with a thread, of each of so many shares: Linux has one for each processor, so more would be of no use.
fn request_queues(vcpus: u32, shares: usize) -> u32 {
    let shares = u32::try_from(shares).unwrap_or(u32::MAX).max(1);
    let most = MAX_REQUEST_QUEUES.min(MAX_SHARE_THREADS / shares);
    vcpus.min(most).max(1)
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
    fn a_share_has_a_queue_for_each_processor_within_bounds() {
        for (vcpus, shares, queues) in [
            (1, 1, 1),
            (2, 1, 2),
            (8, 1, 8),
            (64, 1, 8),
            (64, 2, 8),
            (64, 3, 5),
            (2, 3, 2),
            (2, 14, 1),
            (64, 17, 1),
            (u32::MAX, usize::MAX, 1),
            (0, 0, 1),
        ] {
            let threads = request_queues(vcpus, shares);
            assert_eq!(threads, queues, "{vcpus} processors, {shares} shares");
        }
    }
}

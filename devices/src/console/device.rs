//! The device: its registers and what it does with its queues.

use std::fmt;
use std::io;

use hv_core::Event;

use super::control::{Control, Description};
use super::host::{ConsoleInput, ConsoleSink};
use super::wire::{self, MESSAGE_LEN, Message};
use crate::virtio::worker::{Broken, Context, Parked, Ready, Service};
use crate::virtio::{Model, RunEnv, StartError, VirtioDevice, Worker, read_config_bytes};

/// Most ports of a device.
pub const MAX_PORTS: usize = 16;
/// Longest name of a port in bytes; with it a message still fits any driver's buffers.
const MAX_NAME: usize = 64;

/// The device type (section 5.3.1).
const DEVICE_ID: u32 = 3;
/// `VIRTIO_CONSOLE_F_MULTIPORT` (section 5.3.3).
const F_MULTIPORT: u64 = 1 << 1;
/// Drivers keep a page in each buffer towards the guest, so there are few.
const RECEIVE_QUEUE_SIZE: u16 = 32;
const TRANSMIT_QUEUE_SIZE: u16 = 64;

/// Most bytes that are taken from one buffer of a guest; the rest of it is lost. Drivers write a
/// tenth of it at a time, and `stop` waits for a queue full of them.
const MAX_OUTPUT: usize = 1 << 20;
/// Bytes copied at a time.
const PIECE: usize = 4096;

/// Ports that a console cannot have; the caller's mistake, or a host out of descriptors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// None, or more than [`MAX_PORTS`].
    #[error("a console has 1 to {MAX_PORTS} ports, not {0}")]
    Ports(usize),
    /// The name is empty or longer than 64 bytes.
    #[error("the name of a console port has 1 to {MAX_NAME} bytes: {0:?}")]
    Name(String),
    /// No descriptor is left.
    #[error("the host has no descriptor left for a console")]
    Host(#[from] io::Error),
}

/// A port of a console, and where its output goes.
pub struct ConsolePort {
    description: Description,
    sink: Box<dyn ConsoleSink>,
}

impl ConsolePort {
    /// A terminal of the guest: `hvc0` for the first, and so on.
    #[must_use]
    pub fn console(sink: Box<dyn ConsoleSink>) -> Self {
        Self {
            description: Description {
                name: None,
                console: true,
            },
            sink,
        }
    }

    /// A stream that the guest's programs find by its name.
    #[must_use]
    pub fn named(name: &str, sink: Box<dyn ConsoleSink>) -> Self {
        let name = Some(name.to_owned());
        Self {
            description: Description {
                name,
                console: false,
            },
            sink,
        }
    }
}

impl fmt::Debug for ConsolePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConsolePort")
            .field(&self.description)
            .finish()
    }
}

/// A console with one or more ports.
#[derive(Debug)]
pub struct Console {
    inputs: Vec<ConsoleInput>,
    service: Parked<ConsoleService>,
}

impl Console {
    /// A device with these ports; the first should be a console, since a driver without support for
    /// several takes it for one.
    ///
    /// # Errors
    /// Too few or too many ports or a bad name (caller); the host is out of descriptors.
    pub fn new(ports: Vec<ConsolePort>) -> Result<Self, ConsoleError> {
        if ports.is_empty() || ports.len() > MAX_PORTS {
            return Err(ConsoleError::Ports(ports.len()));
        }
        let mut names = ports
            .iter()
            .filter_map(|port| port.description.name.as_ref());
        if let Some(name) = names.find(|name| name.is_empty() || name.len() > MAX_NAME) {
            return Err(ConsoleError::Name(name.clone()));
        }
        let wake = Event::new()?;
        let inputs: Vec<_> = ports
            .iter()
            .map(|_| ConsoleInput::new(wake.clone()))
            .collect();
        let control = Control::new(ports.iter().map(|port| port.description.clone()));
        let streams = ports
            .into_iter()
            .map(|port| port.sink)
            .zip(inputs.iter().cloned());
        let service = Parked::new(ConsoleService {
            control,
            streams: streams.collect(),
            wake,
            met: false,
        });
        Ok(Self { inputs, service })
    }

    /// The input of a port; `None` when there is no such port.
    #[must_use]
    pub fn input(&self, port: usize) -> Option<ConsoleInput> {
        self.inputs.get(port).cloned()
    }

    fn config(&self) -> [u8; 12] {
        wire::config(u32::try_from(self.inputs.len()).unwrap_or(0))
    }
}

impl VirtioDevice for Console {
    fn model(&self) -> Model {
        // One pair of queues a port and one for control (section 5.3.2).
        let pairs = self.inputs.len() + 1;
        Model {
            id: DEVICE_ID,
            features: F_MULTIPORT,
            queue_sizes: [RECEIVE_QUEUE_SIZE, TRANSMIT_QUEUE_SIZE].repeat(pairs),
            config_len: u32::try_from(self.config().len()).unwrap_or(0),
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config(), offset, data);
    }

    fn start(&mut self, env: RunEnv) -> Result<Box<dyn Worker>, StartError> {
        self.service.start("virtio-console", env)
    }

    fn reset(&mut self) {
        self.service.with(ConsoleService::reset);
    }
}

/// What a queue is for (section 5.3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Input(usize),
    Output(usize),
    ControlToGuest,
    ControlFromGuest,
}

impl Role {
    pub(super) const fn of(queue: usize) -> Self {
        match (queue, queue % 2) {
            (2, _) => Self::ControlToGuest,
            (3, _) => Self::ControlFromGuest,
            (0 | 1, 0) => Self::Input(0),
            (0 | 1, _) => Self::Output(0),
            (_, 0) => Self::Input(queue / 2 - 1),
            (_, _) => Self::Output(queue / 2 - 1),
        }
    }

    pub(super) const fn queue(self) -> usize {
        match self {
            Self::Input(0) => 0,
            Self::Output(0) => 1,
            Self::ControlToGuest => 2,
            Self::ControlFromGuest => 3,
            Self::Input(port) => 2 * port + 2,
            Self::Output(port) => 2 * port + 3,
        }
    }
}

struct ConsoleService {
    control: Control,
    streams: Vec<(Box<dyn ConsoleSink>, ConsoleInput)>,
    /// Signalled when there is input.
    wake: Event,
    /// A driver started the device since the last reset.
    met: bool,
}

impl Service for ConsoleService {
    fn started(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        self.met = true;
        Ok(context.sources.add_event(0, &self.wake)?)
    }

    fn queue(&mut self, index: usize, context: &mut Context<'_>) -> Result<(), Broken> {
        match Role::of(index) {
            Role::Input(port) => self.give_input(port, context),
            Role::Output(port) => self.take_output(port, context),
            Role::ControlToGuest => self.give_control(context),
            Role::ControlFromGuest => {
                self.take_control(context)?;
                self.give_control(context)?;
                self.give_all_input(context)
            }
        }
    }

    fn source(&mut self, _: u32, _: Ready, context: &mut Context<'_>) -> Result<(), Broken> {
        self.give_all_input(context)
    }
}

impl ConsoleService {
    /// Input for a driver that is gone is not for the next one. The first driver resets the device
    /// too; what came before it is for it.
    fn reset(&mut self) {
        self.control.reset();
        if std::mem::take(&mut self.met) {
            self.streams.iter().for_each(|(_, input)| input.clear());
        }
    }

    fn take_output(&mut self, port: usize, context: &mut Context<'_>) -> Result<(), Broken> {
        let Some(queue) = context.queues.get(Role::Output(port).queue()) else {
            return Ok(());
        };
        let Some((sink, _)) = self.streams.get_mut(port) else {
            return Ok(());
        };
        let mut piece = [0; PIECE];
        while let Some(chain) = queue.pop()? {
            let mut reader = chain.reader();
            for _ in 0..MAX_OUTPUT / PIECE {
                match reader.read(&mut piece) {
                    0 => break,
                    len => sink.write(piece.get(..len).unwrap_or_default()),
                }
            }
            chain.finish(0)?;
        }
        Ok(())
    }

    fn give_all_input(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        (0..self.streams.len()).try_for_each(|port| self.give_input(port, context))
    }

    fn give_input(&mut self, port: usize, context: &mut Context<'_>) -> Result<(), Broken> {
        let Some(queue) = context.queues.get(Role::Input(port).queue()) else {
            return Ok(());
        };
        let Some((_, input)) = self.streams.get(port) else {
            return Ok(());
        };
        let mut piece = [0; PIECE];
        while self.control.takes_input(port) && !input.is_empty() {
            let Some(chain) = queue.pop()? else { break };
            let mut writer = chain.writer();
            let room = writer.available().min(PIECE);
            let len = input.take(piece.get_mut(..room).unwrap_or_default());
            writer.write(piece.get(..len).unwrap_or_default());
            let written = writer.written();
            chain.finish(written)?;
        }
        Ok(())
    }

    fn take_control(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        let queue = context.queues.get(Role::ControlFromGuest.queue());
        let Some(queue) = queue else { return Ok(()) };
        while let Some(chain) = queue.pop()? {
            let mut message = [0; MESSAGE_LEN];
            if chain.reader().read_exact(&mut message).is_ok() {
                self.control.receive(Message::parse(message));
            }
            chain.finish(0)?;
        }
        Ok(())
    }

    fn give_control(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        let queue = context.queues.get(Role::ControlToGuest.queue());
        let Some(queue) = queue else { return Ok(()) };
        while self.control.has_messages() {
            let Some(chain) = queue.pop()? else { break };
            let mut writer = chain.writer();
            // A buffer without room for any message goes back empty.
            if writer.available() < MESSAGE_LEN + MAX_NAME {
                continue;
            }
            if let Some((message, name)) = self.control.next() {
                writer.write(&message.emit());
                writer.write(name.as_bytes());
            }
            let written = writer.written();
            chain.finish(written)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConsoleService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleService")
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

//! The conversation about ports on the control queues (virtio 1.3, section 5.3.6.2).
//!
//! Answers are flags of a port, not a queue, so a guest that keeps asking and never reads makes
//! nothing grow.

use super::wire::{Event, Message};

/// What a guest is told of a port.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Description {
    /// Shown to the guest's programs under `/dev/virtio-ports`.
    pub(super) name: Option<String>,
    /// The port is a console (`hvc`).
    pub(super) console: bool,
}

bitflags::bitflags! {
    /// Messages that the guest shall get about a port.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    struct Pending: u8 {
        const ADD = 1 << 0;
        const NAME = 1 << 1;
        const CONSOLE = 1 << 2;
        const OPEN = 1 << 3;
    }
}

impl Pending {
    const ORDER: [(Self, Event); 4] = [
        (Self::ADD, Event::PortAdd),
        (Self::NAME, Event::PortName),
        (Self::CONSOLE, Event::ConsolePort),
        (Self::OPEN, Event::PortOpen),
    ];
}

#[derive(Debug)]
struct Port {
    description: Description,
    pending: Pending,
    /// A program of the guest has it open.
    open: bool,
}

impl Port {
    /// What follows once the driver can use the port. The host's end is always open.
    fn introduction(&self) -> Pending {
        let mut pending = Pending::OPEN;
        pending.set(Pending::NAME, self.description.name.is_some());
        pending.set(Pending::CONSOLE, self.description.console);
        pending
    }
}

/// The device's side of the conversation.
#[derive(Debug)]
pub(super) struct Control(Vec<Port>);

impl Control {
    pub(super) fn new(ports: impl IntoIterator<Item = Description>) -> Self {
        let port = |description| Port {
            description,
            pending: Pending::empty(),
            open: false,
        };
        Self(ports.into_iter().map(port).collect())
    }

    /// A message of the guest. What makes no sense is ignored: no answer to it is specified.
    pub(super) fn receive(&mut self, message: Message) {
        let event = Event::from_code(message.event);
        if (event, message.value) == (Some(Event::DeviceReady), 1) {
            self.0
                .iter_mut()
                .for_each(|port| port.pending |= Pending::ADD);
        }
        let port = usize::try_from(message.port)
            .ok()
            .and_then(|id| self.0.get_mut(id));
        match (event, port) {
            (Some(Event::PortReady), Some(port)) if message.value == 1 => {
                port.pending |= port.introduction();
            }
            (Some(Event::PortOpen), Some(port)) => port.open = message.value == 1,
            _ => {}
        }
    }

    /// True when the guest keeps what is sent to a port. It throws away what comes to a port that
    /// nobody has open, but for a console.
    pub(super) fn takes_input(&self, port: usize) -> bool {
        self.0
            .get(port)
            .is_some_and(|port| port.open || port.description.console)
    }

    /// The driver was reset: the conversation begins anew.
    pub(super) fn reset(&mut self) {
        for port in &mut self.0 {
            (port.pending, port.open) = (Pending::empty(), false);
        }
    }

    /// True when [`Control::next`] has a message.
    pub(super) fn has_messages(&self) -> bool {
        self.0.iter().any(|port| !port.pending.is_empty())
    }

    /// The next message for the guest, with the name that follows it.
    pub(super) fn next(&mut self) -> Option<(Message, &str)> {
        let (id, port) = self
            .0
            .iter_mut()
            .enumerate()
            .find(|(_, p)| !p.pending.is_empty())?;
        let &(flag, event) = Pending::ORDER
            .iter()
            .find(|(flag, _)| port.pending.contains(*flag))?;
        port.pending.remove(flag);
        let name = port
            .description
            .name
            .as_deref()
            .filter(|_| event == Event::PortName);
        let value = u16::from(event != Event::PortName && event != Event::PortAdd);
        let message = Message {
            port: u32::try_from(id).ok()?,
            event: event.code(),
            value,
        };
        Some((message, name.unwrap_or_default()))
    }
}

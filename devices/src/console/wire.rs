//! Control messages and configuration of virtio-console (virtio 1.3, sections 5.3.4 and 5.3.6.2).

/// Bytes of a control message without a name.
pub const MESSAGE_LEN: usize = 8;

/// What a control message is about (section 5.3.6.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
pub enum Event {
    /// The driver can (value 1) or cannot handle ports.
    DeviceReady = 0,
    /// A port exists.
    PortAdd = 1,
    /// A port is gone.
    PortRemove = 2,
    /// The driver can (value 1) or cannot use a port.
    PortReady = 3,
    /// The port is for a console.
    ConsolePort = 4,
    /// The size of the console changed.
    Resize = 5,
    /// An end opened (value 1) or closed the port.
    PortOpen = 6,
    /// The port's name follows.
    PortName = 7,
}

impl Event {
    const ALL: [Self; 8] = [
        Self::DeviceReady,
        Self::PortAdd,
        Self::PortRemove,
        Self::PortReady,
        Self::ConsolePort,
        Self::Resize,
        Self::PortOpen,
        Self::PortName,
    ];

    /// The event of a code, `None` when the specification has none of it.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.code() == code)
    }

    /// Its code in a message.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }
}

/// A control message. Any value can come from a guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message {
    /// The port that it is about.
    pub port: u32,
    /// Code of the [`Event`].
    pub event: u16,
    /// Its value, mostly 0 or 1.
    pub value: u16,
}

impl Message {
    /// Reads a message.
    #[must_use]
    pub fn parse(bytes: [u8; MESSAGE_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self {
            port: u32::from_le_bytes([a, b, c, d]),
            event: u16::from_le_bytes([e, f]),
            value: u16::from_le_bytes([g, h]),
        }
    }

    /// Writes the message.
    #[must_use]
    pub fn emit(self) -> [u8; MESSAGE_LEN] {
        let [a, b, c, d] = self.port.to_le_bytes();
        let [e, f] = self.event.to_le_bytes();
        let [g, h] = self.value.to_le_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

/// The configuration space: no size, this many ports, emergency write not offered.
#[must_use]
pub fn config(ports: u32) -> [u8; 12] {
    let mut config = [0; 12];
    config[4..8].copy_from_slice(&ports.to_le_bytes());
    config
}

//! A 16550 UART: the console of a guest's first moments, before virtio is up.
//!
//! The register machine is `vm-superio`'s. Bytes that the guest sends go to a [`ConsoleSink`] at
//! once; nothing is kept. There is no input.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use vm_superio::Trigger;
use vm_superio::serial::NoEvents;

use crate::bus::BusDevice;
use crate::console::ConsoleSink;
use crate::virtio::IrqLine;

type Uart = vm_superio::Serial<Line, NoEvents, Output>;

/// The UART's eight registers.
pub struct Serial(Mutex<Uart>);

impl Serial {
    /// Bytes that the registers take on a bus.
    pub const LEN: u64 = 8;

    /// A UART that interrupts through `line` and whose output goes to `sink`. What the sink does
    /// not take is lost, as on a real line without flow control.
    #[must_use]
    pub fn new(line: IrqLine, sink: Box<dyn ConsoleSink>) -> Self {
        Self(Mutex::new(Uart::new(Line(line), Output(sink))))
    }
}

impl BusDevice for Serial {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let mut uart = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let ([value], Ok(offset)) = (data, u8::try_from(offset)) {
            *value = uart.read(offset);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut uart = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (&[value], Ok(offset)) = (data, u8::try_from(offset)) {
            // A lost interrupt or byte is not the guest's business; its driver polls anyway.
            drop(uart.write(offset, value));
        }
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Serial")
    }
}

struct Line(IrqLine);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.raise();
        Ok(())
    }
}

struct Output(Box<dyn ConsoleSink>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

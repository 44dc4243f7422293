//! Credit windows: who may send how many bytes on a stream.

use thiserror::Error;

use super::WINDOW;

/// The peer broke the window of a stream. Fault of the peer: a correct end cannot do this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CreditError {
    /// More bytes than were granted.
    #[error("the peer sent {sent} bytes with a credit of {credit}")]
    Overrun {
        /// Bytes received.
        sent: usize,
        /// Bytes that were still allowed.
        credit: u32,
    },
    /// A grant that would open the window beyond [`WINDOW`].
    #[error("the peer granted {granted} bytes on top of {credit}, over the window of {WINDOW}")]
    Overgrant {
        /// Bytes granted.
        granted: u32,
        /// Bytes that were still allowed.
        credit: u32,
    },
}

/// The sender's side of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendWindow(u32);

impl Default for SendWindow {
    fn default() -> Self {
        Self(WINDOW)
    }
}

impl SendWindow {
    /// Bytes that may be sent now.
    pub fn credit(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Takes credit for up to `wanted` bytes; returns how many may be sent.
    pub fn take(&mut self, wanted: usize) -> usize {
        let taken = u32::try_from(wanted).unwrap_or(u32::MAX).min(self.0);
        self.0 -= taken;
        usize::try_from(taken).unwrap_or(usize::MAX)
    }

    /// Adds what the receiver granted.
    pub fn grant(&mut self, granted: u32) -> Result<(), CreditError> {
        let sum = self.0.checked_add(granted).filter(|sum| *sum <= WINDOW);
        self.0 = sum.ok_or(CreditError::Overgrant {
            granted,
            credit: self.0,
        })?;
        Ok(())
    }
}

/// The receiver's side of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiveWindow {
    credit: u32,
    consumed: u32,
}

impl Default for ReceiveWindow {
    fn default() -> Self {
        Self {
            credit: WINDOW,
            consumed: 0,
        }
    }
}

impl ReceiveWindow {
    /// Counts `len` received bytes against the credit.
    pub fn receive(&mut self, len: usize) -> Result<(), CreditError> {
        let left = u32::try_from(len)
            .ok()
            .and_then(|len| self.credit.checked_sub(len));
        self.credit = left.ok_or(CreditError::Overrun {
            sent: len,
            credit: self.credit,
        })?;
        Ok(())
    }

    /// Notes that `len` received bytes left the buffer.
    pub fn consume(&mut self, len: usize) {
        let outstanding = WINDOW - self.credit;
        let consumed = u32::try_from(len)
            .unwrap_or(u32::MAX)
            .saturating_add(self.consumed);
        self.consumed = consumed.min(outstanding);
    }

    /// Whether a grant is worth a frame.
    pub fn is_due(&self) -> bool {
        self.consumed >= WINDOW / 4
    }

    /// A grant to send now, if one is due.
    pub fn take_grant(&mut self) -> Option<u32> {
        if !self.is_due() {
            return None;
        }
        let grant = std::mem::take(&mut self.consumed);
        self.credit += grant;
        Some(grant)
    }
}

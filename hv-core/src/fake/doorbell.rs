//! Doorbells.

use std::sync::Arc;

use super::Call;
use super::vm::{FakePartition, Inner, Vm};
use crate::{Attached, DoorbellSpace, Doorbells, Event, HvError, HvErrorKind, Result};

/// Which writes ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Key {
    space: DoorbellSpace,
    address: u64,
    width: u8,
    value: Option<u64>,
}

/// A registered doorbell.
pub(super) struct Bell {
    key: Key,
    event: Event,
}

impl Inner {
    /// Rings for a write; false when it rings nothing.
    pub(super) fn ring(&self, space: DoorbellSpace, address: u64, data: &[u8]) -> bool {
        let mut bytes = [0; 8];
        for (byte, written) in bytes.iter_mut().zip(data) {
            *byte = *written;
        }
        let written = u64::from_le_bytes(bytes);
        let matches = |key: &Key| {
            (key.space, key.address, usize::from(key.width)) == (space, address, data.len())
                && key.value.is_none_or(|value| value == written)
        };
        let bell = self.bells.iter().find(|bell| matches(&bell.key));
        bell.inspect(|bell| bell.event.signal()).is_some()
    }
}

impl Doorbells for FakePartition {
    fn attach(
        &self,
        space: DoorbellSpace,
        address: u64,
        width: u8,
        value: Option<u64>,
        event: &Event,
    ) -> Result<Box<dyn Attached>> {
        self.0.host.enter(Call::AttachDoorbell)?;
        let key = Key {
            space,
            address,
            width,
            value,
        };
        let (widest, last) = match space {
            DoorbellSpace::Mmio => (8, u64::MAX),
            DoorbellSpace::Pio => (4, 0xffff),
        };
        if !matches!(width, 1 | 2 | 4 | 8) || width > widest || address > last {
            return Err(HvError::invalid("doorbell of this width at this address"));
        }
        let mut inner = self.0.inner();
        if inner.bells.iter().any(|bell| bell.key == key) {
            return Err(HvError::new("doorbell exists", HvErrorKind::InvalidState));
        }
        let event = event.clone();
        inner.bells.push(Bell { key, event });
        Ok(Box::new(Registration {
            vm: Arc::clone(&self.0),
            key,
        }))
    }
}

struct Registration {
    vm: Arc<Vm>,
    key: Key,
}

impl Attached for Registration {}

impl Drop for Registration {
    fn drop(&mut self) {
        self.vm.inner().bells.retain(|bell| bell.key != self.key);
    }
}

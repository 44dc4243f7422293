//! Doorbells: `KVM_IOEVENTFD`.

use std::sync::Arc;

use hv_core::{Attached, DoorbellSpace, Doorbells, Event, HvError, Result};
use kvm_bindings::{
    kvm_ioeventfd, kvm_ioeventfd_flag_nr_datamatch, kvm_ioeventfd_flag_nr_deassign,
    kvm_ioeventfd_flag_nr_pio,
};
use std::os::fd::AsRawFd as _;

use crate::sys;
use crate::vm::{KvmPartition, Vm};

impl Doorbells for KvmPartition {
    fn attach(
        &self,
        space: DoorbellSpace,
        address: u64,
        width: u8,
        value: Option<u64>,
        event: &Event,
    ) -> Result<Box<dyn Attached>> {
        let mut request = request(space, address, width, value)?;
        request.fd = event.as_raw_fd();
        sys::ioeventfd(&self.0.fd, &request)?;
        Ok(Box::new(Doorbell {
            vm: Arc::clone(&self.0),
            _event: event.clone(),
            request,
        }))
    }
}

fn request(
    space: DoorbellSpace,
    address: u64,
    width: u8,
    value: Option<u64>,
) -> Result<kvm_ioeventfd> {
    let (widest, last, space) = match space {
        DoorbellSpace::Mmio => (8, u64::MAX, 0),
        DoorbellSpace::Pio => (4, 0xffff, 1 << kvm_ioeventfd_flag_nr_pio),
    };
    if !matches!(width, 1 | 2 | 4 | 8) || width > widest || address > last {
        return Err(HvError::invalid("doorbell of this width at this address"));
    }
    let compare = value.map_or(0, |_| 1 << kvm_ioeventfd_flag_nr_datamatch);
    Ok(kvm_ioeventfd {
        addr: address,
        len: u32::from(width),
        datamatch: value.unwrap_or(0),
        flags: space | compare,
        ..kvm_ioeventfd::default()
    })
}

/// An ioeventfd; it holds the event, by which KVM finds the registration again.
struct Doorbell {
    vm: Arc<Vm>,
    _event: Event,
    request: kvm_ioeventfd,
}

impl Attached for Doorbell {}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.request.flags |= 1 << kvm_ioeventfd_flag_nr_deassign;
        // It fails only when it is not registered, and then there is nothing to end.
        drop(sys::ioeventfd(&self.vm.fd, &self.request));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DoorbellSpace::{Mmio, Pio};

    #[test]
    fn widths_and_addresses_are_checked() {
        for (space, address, width, good) in [
            (Mmio, 0xd000_0000, 1, true),
            (Mmio, 0xd000_0000, 8, true),
            (Mmio, 0xd000_0000, 3, false),
            (Mmio, 0xd000_0000, 0, false),
            (Pio, 0xffff, 1, true),
            (Pio, 0x500, 8, false),
            (Pio, 0x1_0000, 1, false),
        ] {
            let request = request(space, address, width, None);
            assert_eq!(request.is_ok(), good, "{space:?} {address:#x} {width}");
        }
    }

    #[test]
    fn a_value_is_compared_only_when_there_is_one() {
        let flags = |value| request(Pio, 0x500, 2, value).map(|r| (r.flags, r.datamatch));
        assert_eq!(flags(None), Ok((0b010, 0)));
        assert_eq!(flags(Some(7)), Ok((0b011, 7)));
    }
}

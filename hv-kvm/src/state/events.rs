//! Pending events and the place in the start-up protocol.

use hv_core::arch::x86_64::{MpState, PendingEvents};
use hv_core::{HvError, HvErrorKind, Result};
use kvm_bindings::{
    KVM_MP_STATE_AP_RESET_HOLD, KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED,
    KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_SIPI_RECEIVED, KVM_MP_STATE_UNINITIALIZED,
    KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW, kvm_mp_state, kvm_vcpu_events,
};

pub(crate) fn events_from(events: &kvm_vcpu_events) -> PendingEvents {
    let exception = &events.exception;
    let code = (exception.has_error_code != 0).then_some(exception.error_code);
    PendingEvents {
        exception: (exception.injected != 0 || exception.pending != 0)
            .then_some((exception.nr, code)),
        interrupt: (events.interrupt.injected != 0).then_some(events.interrupt.nr),
        shadow: events.interrupt.shadow,
        nmi_injected: events.nmi.injected != 0,
        nmi_pending: events.nmi.pending != 0,
        nmi_masked: events.nmi.masked != 0,
        sipi_vector: events.sipi_vector,
    }
}

/// The start-up vector is not passed back: KVM never reports it, because reading the start-up state,
/// which comes first, has consumed it.
pub(crate) fn events_to(events: &PendingEvents) -> kvm_vcpu_events {
    let mut kvm = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        ..kvm_vcpu_events::default()
    };
    if let Some((vector, code)) = events.exception {
        kvm.exception.injected = 1;
        kvm.exception.nr = vector;
        kvm.exception.has_error_code = code.is_some().into();
        kvm.exception.error_code = code.unwrap_or(0);
    }
    if let Some(vector) = events.interrupt {
        kvm.interrupt.injected = 1;
        kvm.interrupt.nr = vector;
    }
    kvm.interrupt.shadow = events.shadow;
    kvm.nmi.injected = events.nmi_injected.into();
    kvm.nmi.pending = events.nmi_pending.into();
    kvm.nmi.masked = events.nmi_masked.into();
    kvm
}

pub(crate) fn mp_state_from(state: kvm_mp_state) -> Result<MpState> {
    match state.mp_state {
        KVM_MP_STATE_RUNNABLE => Ok(MpState::Running),
        KVM_MP_STATE_HALTED => Ok(MpState::Halted),
        KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_AP_RESET_HOLD => Ok(MpState::Uninitialized),
        KVM_MP_STATE_INIT_RECEIVED => Ok(MpState::InitReceived),
        KVM_MP_STATE_SIPI_RECEIVED => Ok(MpState::SipiReceived),
        _ => Err(HvError::new("KVM_GET_MP_STATE", HvErrorKind::Other)),
    }
}

pub(crate) const fn mp_state_to(state: MpState) -> kvm_mp_state {
    kvm_mp_state {
        mp_state: match state {
            MpState::Running => KVM_MP_STATE_RUNNABLE,
            MpState::Halted => KVM_MP_STATE_HALTED,
            MpState::Uninitialized => KVM_MP_STATE_UNINITIALIZED,
            MpState::InitReceived => KVM_MP_STATE_INIT_RECEIVED,
            MpState::SipiReceived => KVM_MP_STATE_SIPI_RECEIVED,
        },
    }
}

//! The whole state of a vCPU, in the order that KVM needs.
//!
//! Reading: the start-up state first, because asking for it carries out pending INIT and start-up
//! interrupts; pending events last, because every other question can change them. Writing: the
//! registers (with the APIC base) before the local APIC, that before the MSRs (with the deadline of
//! its timer), pending events last.

use hv_core::arch::x86_64::{MsrValue, VcpuState, msr};
use hv_core::{HvError, Result};
use kvm_ioctls::Cap;

use super::KvmVcpu;
use crate::{failed, state, sys};

impl KvmVcpu {
    fn xsave_size(&self) -> Result<usize> {
        usize::try_from(self.vm.fd.check_extension_int(Cap::Xsave2))
            .map_err(|_| HvError::invalid("KVM_CAP_XSAVE2"))
    }

    pub(super) fn take_snapshot(&self) -> Result<VcpuState> {
        let fd = &self.fd;
        let mp_state = fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?;
        let registers = self.get_registers()?;
        let debug = fd.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))?;
        let mut xsave = state::empty_xsave(self.xsave_size()?)?;
        sys::get_xsave(fd, &mut xsave)?;
        let xcrs = self.get_xcrs()?;
        let lapic = fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?;
        let msrs = self.get_msrs(&msr::state(&self.vm.host.listed_msrs()?))?;
        let events = fd.get_vcpu_events();
        let events = events.map_err(failed("KVM_GET_VCPU_EVENTS"))?;
        Ok(VcpuState {
            registers,
            debug: state::debug_from(&debug),
            xsave: state::xsave_from(&xsave),
            xcrs,
            msrs,
            lapic: state::lapic_from(&lapic),
            mp_state: state::mp_state_from(mp_state)?,
            events: state::events_from(&events),
        })
    }

    pub(super) fn put_snapshot(&self, snapshot: &VcpuState) -> Result<()> {
        let fd = &self.fd;
        fd.set_mp_state(state::mp_state_to(snapshot.mp_state))
            .map_err(failed("KVM_SET_MP_STATE"))?;
        self.put_registers(&snapshot.registers)?;
        let xsave = state::xsave_to(&snapshot.xsave, self.xsave_size()?)?;
        sys::set_xsave(fd, &xsave)?;
        self.set_xcrs(&snapshot.xcrs)?;
        fd.set_debug_regs(&state::debug_to(&snapshot.debug))
            .map_err(failed("KVM_SET_DEBUGREGS"))?;
        fd.set_lapic(&state::lapic_to(&snapshot.lapic)?)
            .map_err(failed("KVM_SET_LAPIC"))?;
        self.set_msrs(&snapshot.msrs)?;
        fd.set_vcpu_events(&state::events_to(&snapshot.events))
            .map_err(failed("KVM_SET_VCPU_EVENTS"))
    }

    fn get_xcrs(&self) -> Result<Vec<(u32, u64)>> {
        if !self.vm.host.has_xcrs {
            return Ok(Vec::new());
        }
        let xcrs = self.fd.get_xcrs().map_err(failed("KVM_GET_XCRS"))?;
        Ok(state::xcrs_from(&xcrs))
    }

    fn set_xcrs(&self, xcrs: &[(u32, u64)]) -> Result<()> {
        if xcrs.is_empty() {
            return Ok(());
        }
        let xcrs = state::xcrs_to(xcrs)?;
        self.fd.set_xcrs(&xcrs).map_err(failed("KVM_SET_XCRS"))
    }

    /// The values of those of `wanted` that this vCPU has. KVM stops at one that it has not: whether
    /// it has a register that it lists depends on CPUID.
    fn get_msrs(&self, wanted: &[u32]) -> Result<Vec<MsrValue>> {
        let mut found = Vec::with_capacity(wanted.len());
        let mut rest = wanted;
        while !rest.is_empty() {
            let ask: Vec<_> = rest
                .iter()
                .map(|&index| MsrValue { index, value: 0 })
                .collect();
            let mut table = state::msr_table(&ask)?;
            let count = self.fd.get_msrs(&mut table);
            let count = count.map_err(failed("KVM_GET_MSRS"))?;
            let answers = table.as_slice().iter().take(count);
            found.extend(answers.map(|answer| MsrValue {
                index: answer.index,
                value: answer.data,
            }));
            rest = rest.get(count + 1..).unwrap_or_default();
        }
        Ok(found)
    }
}

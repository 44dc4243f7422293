//! General and system registers.

use hv_core::arch::x86_64::{DescriptorTable, GeneralRegisters, Segment, SystemRegisters};
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

/// Copies the fields of the same name from one structure into another type.
macro_rules! same_fields {
    ($type:ident { $($field:ident),* $(,)? } from $source:expr) => {
        $type { $($field: $source.$field),* }
    };
}

pub(crate) fn general_from(regs: &kvm_regs) -> GeneralRegisters {
    same_fields!(GeneralRegisters {
        rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags,
    } from regs)
}

pub(crate) fn general_to(regs: &GeneralRegisters) -> kvm_regs {
    same_fields!(kvm_regs {
        rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags,
    } from regs)
}

fn segment_from(segment: &kvm_segment) -> Segment {
    Segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        kind: segment.type_,
        code_or_data: segment.s != 0,
        dpl: segment.dpl,
        present: segment.present != 0,
        available: segment.avl != 0,
        long: segment.l != 0,
        default_big: segment.db != 0,
        granularity: segment.g != 0,
        unusable: segment.unusable != 0,
    }
}

fn segment_to(segment: &Segment) -> kvm_segment {
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: segment.kind,
        present: segment.present.into(),
        dpl: segment.dpl,
        db: segment.default_big.into(),
        s: segment.code_or_data.into(),
        l: segment.long.into(),
        g: segment.granularity.into(),
        avl: segment.available.into(),
        unusable: segment.unusable.into(),
        padding: 0,
    }
}

const fn table_from(table: &kvm_dtable) -> DescriptorTable {
    DescriptorTable {
        base: table.base,
        limit: table.limit,
    }
}

const fn table_to(table: &DescriptorTable) -> kvm_dtable {
    kvm_dtable {
        base: table.base,
        limit: table.limit,
        padding: [0; 3],
    }
}

pub(crate) fn system_from(sregs: &kvm_sregs) -> SystemRegisters {
    SystemRegisters {
        cs: segment_from(&sregs.cs),
        ds: segment_from(&sregs.ds),
        es: segment_from(&sregs.es),
        fs: segment_from(&sregs.fs),
        gs: segment_from(&sregs.gs),
        ss: segment_from(&sregs.ss),
        tr: segment_from(&sregs.tr),
        ldt: segment_from(&sregs.ldt),
        gdt: table_from(&sregs.gdt),
        idt: table_from(&sregs.idt),
        cr0: sregs.cr0,
        cr2: sregs.cr2,
        cr3: sregs.cr3,
        cr4: sregs.cr4,
        cr8: sregs.cr8,
        efer: sregs.efer,
        apic_base: sregs.apic_base,
    }
}

/// KVM's `interrupt_bitmap` stays empty: what is being delivered is part of the pending events.
pub(crate) fn system_to(system: &SystemRegisters) -> kvm_sregs {
    kvm_sregs {
        cs: segment_to(&system.cs),
        ds: segment_to(&system.ds),
        es: segment_to(&system.es),
        fs: segment_to(&system.fs),
        gs: segment_to(&system.gs),
        ss: segment_to(&system.ss),
        tr: segment_to(&system.tr),
        ldt: segment_to(&system.ldt),
        gdt: table_to(&system.gdt),
        idt: table_to(&system.idt),
        cr0: system.cr0,
        cr2: system.cr2,
        cr3: system.cr3,
        cr4: system.cr4,
        cr8: system.cr8,
        efer: system.efer,
        apic_base: system.apic_base,
        interrupt_bitmap: [0; 4],
    }
}

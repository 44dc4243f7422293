use super::*;
use hv_core::arch::x86_64::{
    DescriptorTable, GeneralRegisters, MpState, PendingEvents, Segment, SystemRegisters,
};
use kvm_bindings::{kvm_mp_state, kvm_vcpu_events};

fn general() -> GeneralRegisters {
    GeneralRegisters {
        rax: 1,
        rbx: 2,
        rcx: 3,
        rdx: 4,
        rsi: 5,
        rdi: 6,
        rsp: 7,
        rbp: 8,
        r8: 9,
        r9: 10,
        r10: 11,
        r11: 12,
        r12: 13,
        r13: 14,
        r14: 15,
        r15: 16,
        rip: 17,
        rflags: 18,
    }
}

/// A segment of which every field differs from that of `segment(seed + 1)`.
fn segment(seed: u8) -> Segment {
    let odd = seed % 2 == 1;
    Segment {
        base: u64::from(seed) << 40,
        limit: 0xffff_0000 | u32::from(seed),
        selector: 0x1000 | u16::from(seed),
        kind: seed & 0xf,
        code_or_data: odd,
        dpl: seed & 3,
        present: !odd,
        available: odd,
        long: !odd,
        default_big: odd,
        granularity: !odd,
        unusable: odd,
    }
}

fn system() -> SystemRegisters {
    let table = |base, limit| DescriptorTable { base, limit };
    SystemRegisters {
        cs: segment(1),
        ds: segment(2),
        es: segment(3),
        fs: segment(4),
        gs: segment(5),
        ss: segment(6),
        tr: segment(7),
        ldt: segment(8),
        gdt: table(1 << 50, 0x17),
        idt: table(1 << 51, 0xfff),
        cr0: 20,
        cr2: 21,
        cr3: 22,
        cr4: 23,
        cr8: 24,
        efer: 25,
        apic_base: 26,
    }
}

#[test]
fn registers_come_back_as_they_went() {
    assert_eq!(general_from(&general_to(&general())), general());
    assert_eq!(system_from(&system_to(&system())), system());
    assert_eq!(system_to(&system()).interrupt_bitmap, [0; 4]);
}

#[test]
fn kvm_sees_each_register_under_its_name() {
    let (regs, sregs) = (general_to(&general()), system_to(&system()));
    assert_eq!((regs.rax, regs.rsp, regs.r15, regs.rip), (1, 7, 16, 17));
    assert_eq!((sregs.tr.selector, sregs.ldt.selector), (0x1007, 0x1008));
    assert_eq!((sregs.cr3, sregs.efer, sregs.apic_base), (22, 25, 26));
    assert_eq!((sregs.cs.s, sregs.cs.l, sregs.cs.type_), (1, 0, 1));
}

#[test]
fn pending_events_come_back_as_they_went() {
    let table = [
        PendingEvents::default(),
        PendingEvents {
            exception: Some((14, Some(0x1f))),
            ..PendingEvents::default()
        },
        PendingEvents {
            exception: Some((6, None)),
            nmi_masked: true,
            ..PendingEvents::default()
        },
        PendingEvents {
            interrupt: Some(0x41),
            shadow: 2,
            nmi_pending: true,
            ..PendingEvents::default()
        },
        PendingEvents {
            nmi_injected: true,
            ..PendingEvents::default()
        },
    ];
    for events in table {
        assert_eq!(events_from(&events_to(&events)), events);
    }
}

#[test]
fn an_exception_that_only_waits_is_kept_too() {
    let mut events = kvm_vcpu_events::default();
    (events.exception.pending, events.exception.nr) = (1, 13);
    assert_eq!(events_from(&events).exception, Some((13, None)));
}

#[test]
fn start_up_states_come_back_and_unknown_ones_are_refused() {
    for state in [
        MpState::Running,
        MpState::Halted,
        MpState::Uninitialized,
        MpState::InitReceived,
        MpState::SipiReceived,
    ] {
        assert_eq!(mp_state_from(mp_state_to(state)), Ok(state));
    }
    assert!(mp_state_from(kvm_mp_state { mp_state: 99 }).is_err());
}

#[test]
fn areas_of_bytes_have_exactly_their_size() {
    let bytes: Vec<u8> = (0_u8..=255).cycle().take(4096 + 12).collect();
    let xsave = xsave_to(&bytes, bytes.len()).unwrap();
    assert_eq!(xsave_from(&xsave), bytes);
    assert_eq!(xsave_from(&empty_xsave(4096 + 9).unwrap()).len(), 4096 + 12);
    for (length, size) in [(0, 4096), (4095, 4096), (4096, 4100), (4100, 4096)] {
        assert!(xsave_to(&vec![0; length], size).is_err(), "{length} {size}");
    }
    let page: Vec<u8> = (0_u8..=255).cycle().take(1024).collect();
    assert_eq!(lapic_from(&lapic_to(&page).unwrap()), page);
    assert!(lapic_to(&page[1..]).is_err());
}

#[test]
fn tables_come_back_as_they_went() {
    let debug = DebugRegisters {
        dr: [1, 2, 3, 4],
        dr6: 5,
        dr7: 6,
    };
    assert_eq!(debug_from(&debug_to(&debug)), debug);
    let xcrs = vec![(0, 7), (1, 9)];
    assert_eq!(xcrs_from(&xcrs_to(&xcrs).unwrap()), xcrs);
    assert!(xcrs_to(&[(0, 0); 17]).is_err());
    let entries = [true, false].map(|indexed| CpuidEntry {
        function: 4,
        index: 2,
        indexed,
        eax: 1,
        ebx: 2,
        ecx: 3,
        edx: 4,
    });
    assert_eq!(cpuid_entries(&cpuid_table(&entries).unwrap()), entries);
    let msr = MsrValue { index: 1, value: 2 };
    assert_eq!(msr_table(&[msr]).unwrap().as_slice()[0].data, 2);
    assert!(msr_table(&[msr; 257]).is_err());
}

//! One suite of tiny guests that every backend must run alike.
//!
//! A backend's `tests/conformance.rs` is:
//!
//! ```text
//! hv_core::conformance_tests!(|| KvmHypervisor::new());
//! ```
//!
//! which makes one `#[test]` a case. Guests are built by [`BareGuest`] from
//! [`Program`](crate::arch::x86_64::asm::Program)s and watched by a [`Probe`]; both also serve
//! benchmarks. No case can hang the test run: each has a watchdog. A case that a backend lacks a facet
//! for prints why it is skipped.

mod cases;
mod guest;
mod probe;
mod run;

pub use guest::{BareGuest, Machine, Running, layout};
pub use probe::{Failure, Gates, Probe, Touch, port};
pub use run::{Case, Verdict, cases, check, print_skip, run};

/// Makes one `#[test]` of every case of the suite; the argument is a function or closure that opens the
/// hypervisor: `Fn() -> hv_core::Result<impl Hypervisor + 'static>`.
#[macro_export]
macro_rules! conformance_tests {
    ($open:expr) => {
        $crate::conformance_tests! { @each $open;
            pio_widths string_io mmio_widths mmio_across_a_page
            read_only_memory map_unmap_remap memory_mistakes dirty_log_is_exact dirty_log_mistakes
            kick_before_run kick_during_run kick_after_run no_kick_is_lost kicks_against_teardown
            ipi_between_vcpus start_of_another_processor line_delivery msi_delivery
            interrupt_mistakes halt_and_wake event_irq event_irq_mistakes
            power_off reset triple_fault unknown_msr hypercall
            vcpu_mistakes translation pause_and_resume save_and_load restore_into_another_vm
            doorbell_widths doorbell_values doorbell_mistakes
        }
    };
    (@each $open:expr; $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::conformance::check(stringify!($case), $open);
            }
        )*

        #[test]
        fn the_whole_suite_is_run() {
            let listed = [$(stringify!($case)),*];
            let names: Vec<_> = $crate::conformance::cases().map(|case| case.name).collect();
            assert_eq!(listed.as_slice(), names.as_slice());
        }
    };
}
